/* A template's source to tokens. What happens to white space beside tags is decided here, as Jinja's own lexer does. */
#include "text/template/tree.h"

#include "text/template/characters.h"

#include <string.h>

typedef struct lexer {
    ht_arena *arena;
    const char *at, *end;
    unsigned line;
    bool line_starts; /* does `at` begin a line, in the sense of lstrip_blocks? */
    tpl_tokens *tokens;
    ht_error *error;
} lexer;

static ht_status bad(const lexer *l, const char *what) {
    return ht_fail(l->error, HT_ERROR_FORMAT, "line %u: %s", l->line, what);
}

static ht_status add(lexer *l, tpl_token_kind kind, const char *text, size_t bytes, tpl_token **out) {
    ht_status status = ht_grow((void **)&l->tokens->at, &l->tokens->capacity, l->tokens->n + 1, sizeof(tpl_token),
                               "the tokens of a template", l->error);
    if (status != HT_OK)
        return status;
    char *copy = ht_arena_strndup(l->arena, text, bytes);
    if (!copy)
        return ht_fail(l->error, HT_ERROR_MEMORY, "no memory for a template");
    tpl_token *token = &l->tokens->at[l->tokens->n++];
    *token = (tpl_token){.kind = kind, .line = l->line, .text = copy, .bytes = bytes};
    if (out)
        *out = token;
    return HT_OK;
}

static void advance(lexer *l, size_t bytes) {
    for (size_t i = 0; i < bytes; i++)
        l->line += l->at[i] == '\n';
    l->at += bytes;
}

static bool starts(const lexer *l, const char *what) {
    const size_t n = strlen(what);
    return (size_t)(l->end - l->at) >= n && memcmp(l->at, what, n) == 0;
}

static void skip_space(lexer *l) {
    advance(l, tpl_space_before(l->at, (size_t)(l->end - l->at)));
}

/* At the end of a tag, "%}" or "#}" (newline: one newline belongs to it) or "}}", with its sign? Then it is taken. */
static bool take_end(lexer *l, const char *mark, bool newline) {
    const char *at = l->at;
    const bool minus = at < l->end && *at == '-', plus = newline && at < l->end && *at == '+';
    at += minus || plus;
    if (l->end - at < 2 || memcmp(at, mark, 2) != 0)
        return false;
    advance(l, (size_t)(at - l->at) + 2);
    const char *behind = l->at;
    if (minus)
        skip_space(l);
    else if (newline && !plus && l->at < l->end && *l->at == '\n')
        advance(l, 1);
    l->line_starts = l->at > behind && l->at[-1] == '\n';
    return true;
}

/* The text before a tag that begins at `tag`, less what its sign and lstrip_blocks take away. */
static ht_status add_text(lexer *l, const char *tag) {
    size_t bytes = (size_t)(tag - l->at);
    const char sign = l->end - tag > 2 ? tag[2] : 0;
    if (tag < l->end && sign == '-') {
        bytes = tpl_without_space_after(l->at, bytes);
    } else if (tag < l->end && sign != '+' && tag[1] != '{') {
        size_t line = bytes;
        while (line > 0 && l->at[line - 1] != '\n')
            line--;
        if ((line > 0 || l->line_starts) && tpl_space_before(l->at + line, bytes - line) == bytes - line)
            bytes = line;
    }
    const ht_status status = bytes ? add(l, TOKEN_TEXT, l->at, bytes, NULL) : HT_OK;
    advance(l, (size_t)(tag - l->at));
    return status;
}

static const char *find_tag(const lexer *l) {
    const char *at = l->at;
    for (; at < l->end; at++)
        if (*at == '{' && l->end - at >= 2 && (at[1] == '{' || at[1] == '%' || at[1] == '#'))
            return at;
    return at;
}

static ht_status skip_comment(lexer *l) {
    advance(l, 2);
    while (l->at < l->end)
        if (take_end(l, "#}", true))
            return HT_OK;
        else
            advance(l, 1);
    return bad(l, "a comment has no end");
}

/* At "{%- raw -%}" or the like (word: "raw", "endraw")? It is taken. */
static bool take_word_tag(lexer *l, const char *word, bool newline) {
    const lexer before = *l;
    advance(l, 2);
    if (l->at < l->end && (*l->at == '-' || *l->at == '+'))
        advance(l, 1);
    skip_space(l);
    if (starts(l, word)) {
        advance(l, strlen(word));
        skip_space(l);
        if (newline || starts(l, "-")) {
            if (take_end(l, "%}", true))
                return true;
        } else if (starts(l, "%}")) {
            advance(l, 2);
            l->line_starts = false;
            return true;
        }
    }
    l->at = before.at;
    l->line = before.line;
    return false;
}

static ht_status raw_text(lexer *l) {
    lexer here = *l;
    for (; l->end - here.at >= 2; advance(&here, 1)) {
        const char *at = here.at;
        lexer behind = here;
        if (at[0] != '{' || at[1] != '%' || !take_word_tag(&behind, "endraw", true))
            continue;
        const ht_status status = add_text(l, at);
        l->at = behind.at;
        l->line = behind.line;
        l->line_starts = behind.line_starts;
        return status;
    }
    return bad(l, "a raw block has no end");
}

static int digits_of(const char *at, const char *end, int count, unsigned base, uint32_t *value) {
    *value = 0;
    int n = 0;
    for (; n < count && at + n < end; n++) {
        const char c = at[n];
        const unsigned digit = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                               : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10
                               : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A') + 10
                                                      : 99;
        if (digit >= base)
            break;
        *value = *value * base + digit;
    }
    return n;
}

/* Behind a backslash at `at`: writes what it stands for and gives how many bytes of the source it took; 0: no such escape. */
static size_t unescape(const char *at, const char *end, char *out, size_t *n) {
    static const char from[] = "n t r \\ ' \" a b f v", to[] = "\n \t \r \\ ' \" \a \b \f \v";
    const char *plain = *at != ' ' ? memchr(from, *at, sizeof from - 1) : NULL;
    uint32_t value;
    *n = 1;
    if (plain) {
        *out = to[plain - from];
        return 1;
    }
    if (*at == '\n') {
        *n = 0;
        return 1;
    }
    const int octal = digits_of(at, end, 3, 8, &value);
    if (octal) {
        *n = tpl_write_character(out, (int32_t)value);
        return (size_t)octal;
    }
    const int want = *at == 'x' ? 2 : *at == 'u' ? 4 : *at == 'U' ? 8 : 0;
    if (!want || digits_of(at + 1, end, want, 16, &value) != want || value > 0x10ffff)
        return 0;
    *n = tpl_write_character(out, (int32_t)value);
    return (size_t)want + 1;
}

static ht_status lex_string(lexer *l) {
    const char quote = *l->at, *at = l->at + 1;
    while (at < l->end && *at != quote)
        at += *at == '\\' && l->end - at > 1 ? 2 : 1;
    if (at >= l->end)
        return bad(l, "a string has no end");
    tpl_token *token;
    const ht_status status = add(l, TOKEN_STRING, l->at + 1, (size_t)(at - l->at - 1), &token);
    if (status != HT_OK)
        return status;
    char *out = (char *)token->text; /* ours alone; what an escape stands for is never longer than the escape */
    size_t n = 0;
    for (const char *from = l->at + 1; from < at;) {
        char made[4];
        size_t written = 0, taken = *from == '\\' ? unescape(from + 1, at, made, &written) : 0;
        if (taken) {
            memcpy(out + n, made, written);
            n += written;
            from += taken + 1;
        } else {
            out[n++] = *from++;
        }
    }
    out[n] = '\0';
    token->bytes = n;
    advance(l, (size_t)(at - l->at) + 1);
    return HT_OK;
}

/* Jansson reads the digits, for the C library's own functions depend on the locale. What it fails at after the look at the
 * form is too large, or memory is out. */
ht_status tpl_read_real(const char *text, size_t bytes, double *value) {
    size_t at = 0, part = 0;
    for (int i = 0; i < 3; i++) { /* digits, ".digits", "e+digits" */
        if (i && (at >= bytes || (i == 1 ? text[at] != '.' : text[at] != 'e' && text[at] != 'E')))
            continue;
        at += i > 0;
        at += i == 2 && at < bytes && (text[at] == '+' || text[at] == '-');
        for (part = at; at < bytes && text[at] >= '0' && text[at] <= '9';)
            at++;
        if (part == at)
            return HT_ERROR_FORMAT;
    }
    if (at < bytes)
        return HT_ERROR_FORMAT;
    json_error_t why;
    json_t *number = json_loadb(text, bytes, JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL, &why);
    if (!number)
        return json_error_code(&why) == json_error_numeric_overflow ? HT_ERROR_FORMAT : HT_ERROR_MEMORY;
    *value = json_number_value(number);
    json_decref(number);
    return HT_OK;
}

static ht_status lex_number(lexer *l) {
    char text[64];
    size_t n = 0, used = 0;
    bool real = false;
    const size_t left = (size_t)(l->end - l->at);
    for (; used < left && n + 1 < sizeof text; used++) {
        const char c = l->at[used], following = used + 1 < left ? l->at[used + 1] : 0;
        if (c >= '0' && c <= '9') {
            text[n++] = c;
        } else if (c == '_') {
            continue;
        } else if (c == '.' && !real && following >= '0' && following <= '9') {
            real = true;
            text[n++] = c;
        } else if ((c == 'e' || c == 'E') && !memchr(text, 'e', n) &&
                   ((following >= '0' && following <= '9') || following == '-' || following == '+')) {
            real = true;
            text[n++] = 'e';
            text[n++] = following;
            used++;
        } else {
            break;
        }
    }
    tpl_token *token;
    const ht_status status = add(l, real ? TOKEN_FLOAT : TOKEN_INT, l->at, used, &token);
    if (status != HT_OK)
        return status;
    size_t zeros = 0;
    while (zeros + 1 < n && text[zeros] == '0' && text[zeros + 1] >= '0' && text[zeros + 1] <= '9')
        zeros++;
    ht_status read = HT_OK;
    int64_t integer = 0;
    if (real)
        read = tpl_read_real(text + zeros, n - zeros, &token->number.real);
    for (size_t i = zeros; !real && i < n; i++)
        if (__builtin_mul_overflow(integer, 10, &integer) || __builtin_add_overflow(integer, text[i] - '0', &integer))
            read = HT_ERROR_FORMAT;
    if (read == HT_ERROR_MEMORY)
        return ht_fail(l->error, HT_ERROR_MEMORY, "no memory for a template");
    if (read != HT_OK || n + 2 >= sizeof text)
        return bad(l, "a number that cannot be read");
    if (!real)
        token->number.integer = integer;
    advance(l, used);
    return HT_OK;
}

static bool name_byte(char c, bool first) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (unsigned char)c >= 0x80 ||
           (!first && c >= '0' && c <= '9');
}

static ht_status lex_operator(lexer *l, int *open) {
    static const char *const operators[] = {"**", "//", "==", "!=", ">=", "<=", "+", "-", "*", "/", "%", "~", "[",
                                            "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};
    for (size_t i = 0; i < HT_COUNT(operators); i++) {
        if (!starts(l, operators[i]))
            continue;
        const char c = operators[i][0];
        *open += c == '(' || c == '[' || c == '{' ? 1 : c == ')' || c == ']' || c == '}' ? -1 : 0;
        if (*open < 0)
            return bad(l, "a bracket closes that was not opened");
        const ht_status status = add(l, TOKEN_OPERATOR, operators[i], strlen(operators[i]), NULL);
        advance(l, strlen(operators[i]));
        return status;
    }
    return bad(l, "a character that no expression has");
}

/* The inside of a tag, up to its end. */
static ht_status lex_tag(lexer *l, bool print) {
    ht_status status = add(l, print ? TOKEN_PRINT : TOKEN_BLOCK, "", 0, NULL);
    int open = 0;
    advance(l, 2);
    if (l->at < l->end && (*l->at == '-' || *l->at == '+'))
        advance(l, 1);
    while (status == HT_OK) {
        skip_space(l);
        if (l->at >= l->end)
            return bad(l, "a tag has no end");
        if (open == 0 && take_end(l, print ? "}}" : "%}", !print))
            return add(l, print ? TOKEN_PRINT_END : TOKEN_BLOCK_END, "", 0, NULL);
        if (*l->at == '"' || *l->at == '\'') {
            status = lex_string(l);
        } else if (*l->at >= '0' && *l->at <= '9') {
            status = lex_number(l);
        } else if (name_byte(*l->at, true)) {
            size_t n = 1;
            while (l->at + n < l->end && name_byte(l->at[n], false))
                n++;
            status = add(l, TOKEN_NAME, l->at, n, NULL);
            advance(l, n);
        } else {
            status = lex_operator(l, &open);
        }
    }
    return status;
}

/* The source with "\n" for every kind of line end, less one at its end. */
static char *normalise(ht_arena *arena, const char *source, size_t *bytes) {
    char *out = ht_arena_alloc(arena, *bytes + 1);
    size_t n = 0;
    for (size_t i = 0; out && i < *bytes; i++) {
        const bool pair = source[i] == '\r' && i + 1 < *bytes && source[i + 1] == '\n';
        out[n++] = source[i] == '\r' ? '\n' : source[i];
        i += pair;
    }
    *bytes = n && out[n - 1] == '\n' ? n - 1 : n;
    return out;
}

ht_status tpl_lex(ht_arena *arena, const char *source, size_t bytes, tpl_tokens *tokens, ht_error *error) {
    if (bytes > TPL_MOST_SOURCE)
        return ht_fail(error, HT_ERROR_UNSUPPORTED, "a template of %zu bytes; %u are the most", bytes, TPL_MOST_SOURCE);
    const char *text = normalise(arena, source, &bytes);
    if (!text)
        return ht_fail(error, HT_ERROR_MEMORY, "no memory for a template");
    lexer l = {arena, text, text + bytes, 1, true, tokens, error};
    ht_status status = HT_OK;
    while (status == HT_OK && l.at < l.end) {
        const char *tag = find_tag(&l);
        status = add_text(&l, tag);
        if (status != HT_OK || l.at >= l.end)
            break;
        if (tag[1] == '#')
            status = skip_comment(&l);
        else if (tag[1] == '{')
            status = lex_tag(&l, true);
        else if (take_word_tag(&l, "raw", false))
            status = raw_text(&l);
        else
            status = lex_tag(&l, false);
    }
    return status == HT_OK ? add(&l, TOKEN_END, "", 0, NULL) : status;
}
