/* The form of a chat template: a hash that two templates share when they say the same in other words.
 *
 * A template (Jinja, as transformers sets it up: trim_blocks, lstrip_blocks) is cut into literal text, statements and
 * outputs. The form does not see white space inside tags, quotes and escapes of strings, comments, m.role for m['role'], or
 * whether text is literal or put out as a string or as a part of a sum. Branches are left out that no conversation of ours
 * can reach: a message is a role (system, user, assistant) and a string, there are no tools, and whoever asks for an
 * assistant's turn says so. Anything else in a template is in its form, so an unknown variant is not taken for a known one.
 */
#include "text/text.h"

#include <stdlib.h>
#include <string.h>

enum { TEXT = 1, STATEMENT, OUTPUT, STRING, STRING_END }; /* bytes that no accepted template holds */
enum { MOST_SOURCE = 1 << 20, MOST_DEPTH = 64 };

typedef struct item {
    char kind; /* TEXT, STATEMENT, OUTPUT */
    size_t begin, bytes;
} item; /* of form.text */

typedef struct form {
    const char *in;
    size_t n, at;
    ht_text text; /* what items point into; tokens of a tag have a space between */
    item *items;
    size_t n_items, cap_items;
    bool failed; /* no memory, or something that this cannot read */
} form;

/* ---- cutting ------------------------------------------------------------------------------------------------- */

static void put(form *f, const char *data, size_t bytes) {
    if (!f->failed && ht_text_append(&f->text, data, bytes, NULL) != HT_OK)
        f->failed = true;
}

static void add_item(form *f, char kind, size_t begin) {
    const item it = {kind, begin, f->text.bytes - begin};
    if (!f->failed &&
        ht_grow((void **)&f->items, &f->cap_items, f->n_items + 1, sizeof *f->items, "chat template", NULL) != HT_OK)
        f->failed = true;
    if (!f->failed && (it.bytes > 0 || kind != TEXT))
        f->items[f->n_items++] = it;
}

static bool is_space(char c) {
    return c == ' ' || c == '\t' || c == '\n';
}

static bool is_word(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

static char peek(const form *f, size_t ahead) {
    return f->at + ahead < f->n ? f->in[f->at + ahead] : '\0';
}

/* A string literal: what it means, between STRING and STRING_END. */
static void take_string(form *f) {
    static const char names[] = "nt\\'\"\n", means[] = "\n\t\\'\"";
    const char quote = f->in[f->at++];
    put(f, (char[]){STRING}, 1);
    while (f->at < f->n && f->in[f->at] != quote) {
        char c = f->in[f->at++];
        if (c == '\\') {
            const char *name = f->at < f->n && f->in[f->at] ? strchr(names, f->in[f->at]) : NULL;
            if (!name || *name == '\n') {
                f->failed = true; /* an escape whose meaning is not known here */
                return;
            }
            c = means[name - names];
            f->at++;
        }
        put(f, &c, 1);
    }
    f->failed |= f->at >= f->n;
    f->at++;
    put(f, (char[]){STRING_END}, 1);
}

/* .name is ['name'], unless it is called. */
static void take_member(form *f) {
    f->at++;
    const size_t begin = f->at;
    while (is_word(peek(f, 0)))
        f->at++;
    size_t after = 0;
    while (is_space(peek(f, after)))
        after++;
    if (f->at == begin || peek(f, after) == '(') {
        put(f, ".", 1);
        put(f, f->in + begin, f->at - begin);
        return;
    }
    put(f, (char[]){'[', ' ', STRING}, 3);
    put(f, f->in + begin, f->at - begin);
    put(f, (char[]){STRING_END, ' ', ']'}, 3);
}

static void take_operator(form *f) {
    static const char two[][2] = {{'=', '='}, {'!', '='}, {'<', '='}, {'>', '='}, {'*', '*'}, {'/', '/'}};
    size_t bytes = 1;
    for (size_t i = 0; i < HT_COUNT(two); i++)
        if (peek(f, 0) == two[i][0] && peek(f, 1) == two[i][1])
            bytes = 2;
    put(f, f->in + f->at, bytes);
    f->at += bytes;
}

/* The tokens up to the tag's end, which is passed. Returns whether white space after it goes. */
static bool take_tag(form *f, char close) {
    int depth = 0; /* of braces: their end may look like the tag's */
    for (bool first = true; !f->failed && f->at < f->n;) {
        const char c = f->in[f->at];
        if (is_space(c)) {
            f->at++;
            continue;
        }
        const bool minus = c == '-' || c == '+';
        if (depth == 0 && peek(f, minus) == close && peek(f, minus + 1u) == '}') {
            f->at += minus + 2u;
            return c == '-';
        }
        if (!first)
            put(f, " ", 1);
        first = false;
        depth += (c == '{') - (c == '}');
        if (c == '"' || c == '\'') {
            take_string(f);
        } else if (is_word(c)) {
            const size_t begin = f->at;
            while (is_word(peek(f, 0)))
                f->at++;
            put(f, f->in + begin, f->at - begin);
        } else if (c == '.' && f->at + 1 < f->n && is_word(f->in[f->at + 1])) {
            take_member(f);
        } else {
            take_operator(f);
        }
    }
    f->failed = true; /* no end */
    return false;
}

/* ---- outputs ------------------------------------------------------------------------------------------------- */

static size_t token_bytes(const char *at, const char *end) {
    const char *stop = *at == STRING ? memchr(at, STRING_END, (size_t)(end - at)) : memchr(at, ' ', (size_t)(end - at));
    return stop ? (size_t)(stop - at) + (*at == STRING) : (size_t)(end - at);
}

static bool is_token(const char *token, size_t bytes, const char *const *list, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (strlen(list[i]) == bytes && memcmp(list[i], token, bytes) == 0)
            return true;
    return false;
}

/* Whether an expression is nothing but a sum of strings, so that its parts may be put out one by one. */
static bool is_sum(const char *at, const char *end) {
    static const char *const others[] = {"if", "else", "or", "and", "not", "in", "is", "==", "!=", "<", ">",
                                         "<=", ">=",   "*",  "/",   "-",   "%",  "//", "**", ",",  "=", "loop"};
    int depth = 0;
    for (size_t bytes; at < end; at += bytes + 1) {
        bytes = token_bytes(at, end);
        depth += bytes == 1 && strchr("([{", *at) ? 1 : 0;
        depth -= bytes == 1 && strchr(")]}", *at) ? 1 : 0;
        if (depth == 0 && is_token(at, bytes, others, HT_COUNT(others)))
            return false;
    }
    return true;
}

/* One part of a sum, moved to the end of the text as an item of its own. */
static void add_part(form *f, size_t begin, size_t end) {
    if (begin >= end || f->failed)
        return;
    const size_t bytes = end - begin, start = f->text.bytes;
    if (ht_grow((void **)&f->text.data, &f->text.capacity, start + bytes + 1, 1, "chat template", NULL) != HT_OK) {
        f->failed = true;
        return;
    }
    const char *part = f->text.data + begin;
    const bool literal = *part == STRING && token_bytes(part, part + bytes) == bytes;
    put(f, part + literal, bytes - 2 * (size_t)literal);
    add_item(f, literal ? TEXT : OUTPUT, start);
}

static void add_output(form *f, size_t begin) {
    const size_t end = f->text.bytes;
    if (f->failed)
        return;
    size_t at = begin, part = begin;
    int depth = 0;
    const bool sum = is_sum(f->text.data + begin, f->text.data + end);
    while (sum && at < end) {
        const char *token = f->text.data + at;
        const size_t bytes = token_bytes(token, f->text.data + end);
        const char c = bytes == 1 ? *token : '\0';
        depth += (c == '(' || c == '[' || c == '{') - (c == ')' || c == ']' || c == '}');
        if (depth == 0 && (c == '+' || c == '~')) {
            add_part(f, part, at > part ? at - 1 : at);
            part = at + bytes + 1;
        }
        at += bytes + 1;
    }
    add_part(f, part, end);
}

/* ---- the whole source ---------------------------------------------------------------------------------------- */

enum { KEEP, LINE_END, ALL }; /* white space that the tag before takes away */

/* Literal text in[at, end) before a tag (or the end): without what the tags beside it take. */
static void add_text(form *f, size_t end, int before, bool tag) {
    size_t begin = f->at;
    const char *in = f->in;
    if (before == LINE_END && begin < end && in[begin] == '\n')
        begin++;
    while (before == ALL && begin < end && is_space(in[begin]))
        begin++;
    size_t stop = end;
    const char kind = tag && end + 1 < f->n ? in[end + 1] : '\0', sign = tag && end + 2 < f->n ? in[end + 2] : '\0';
    if (sign == '-') {
        while (stop > begin && is_space(in[stop - 1]))
            stop--;
    } else if ((kind == '%' || kind == '#') && sign != '+') { /* what indents a block */
        size_t line = stop;
        while (line > begin && (in[line - 1] == ' ' || in[line - 1] == '\t'))
            line--;
        if (line == 0 || in[line - 1] == '\n')
            stop = line;
    }
    const size_t start = f->text.bytes;
    put(f, in + begin, stop - begin);
    add_item(f, TEXT, start);
}

static size_t find_tag(const form *f) {
    for (size_t i = f->at; i + 1 < f->n; i++)
        if (f->in[i] == '{' && (f->in[i + 1] == '{' || f->in[i + 1] == '%' || f->in[i + 1] == '#'))
            return i;
    return f->n;
}

static void cut(form *f) {
    int before = KEEP;
    while (!f->failed && f->at < f->n) {
        const size_t tag = find_tag(f);
        add_text(f, tag, before, tag < f->n);
        f->at = tag;
        if (tag == f->n)
            return;
        const char kind = f->in[tag + 1];
        f->at += 2;
        if (kind == '#') {
            while (f->at + 1 < f->n && !(f->in[f->at] == '#' && f->in[f->at + 1] == '}'))
                f->at++;
            f->failed |= f->at + 1 >= f->n;
            before = f->in[f->at - 1] == '-' ? ALL : LINE_END;
            f->at += 2;
            continue;
        }
        if (peek(f, 0) == '-' || peek(f, 0) == '+')
            f->at++;
        const size_t start = f->text.bytes;
        const bool all = take_tag(f, kind == '%' ? '%' : '}');
        before = all ? ALL : kind == '%' ? LINE_END : KEEP;
        if (kind == '%')
            add_item(f, STATEMENT, start);
        else
            add_output(f, start);
    }
}

/* ---- branches that cannot be reached, or always are ----------------------------------------------------------- */

#define S(text) "\4" text "\5"
#define MEMBER(name) "[ " S(name) " ]"
#define ROLE(name) "message " MEMBER("role") " == " S(name)
#define HAS_CALLS "message " MEMBER("tool_calls") " is defined and message " MEMBER("tool_calls") " is not none"
#define QWEN_SPEAKS                                                                               \
    "( " ROLE("user") " ) or ( " ROLE("system") " and not loop " MEMBER("first") " ) or ( " ROLE( \
        "assistant") " and not message " MEMBER("tool_calls") " )"

static const struct {
    const char *condition;
    bool value;
    const char *after; /* only in a chain that begins so */
} known[] = {
    {"tools", false, NULL},
    {"not tools is defined", true, NULL},
    {"custom_tools is defined", false, NULL},
    {"builtin_tools is defined", false, NULL},
    {"builtin_tools is defined or tools is not none", false, NULL},
    {"tools is not none and not tools_in_user_message", false, NULL},
    {"tools_in_user_message and not tools is none", false, NULL},
    {"tools is not none and ( message == user_messages [ - 1 ] )", false, NULL},
    {"message " MEMBER("tool_calls"), false, NULL},
    {HAS_CALLS, false, NULL},
    {S("tool_calls") " in message", false, NULL},
    {ROLE("tool"), false, NULL},
    {ROLE("assistant") " and message " MEMBER("content") " is none", false, NULL},
    {ROLE("tool_results") " or " ROLE("tool"), false, NULL},
    {ROLE("tool") " or " ROLE("ipython"), false, NULL},
    {"not ( " ROLE("ipython") " or " ROLE("tool") " or " S("tool_calls") " in message )", true, NULL},
    {"not ( " ROLE("tool") " or " ROLE("tool_results") " or ( " HAS_CALLS " ) )", true, NULL},
    {ROLE("assistant"), false, QWEN_SPEAKS},
    {"message " MEMBER("content") " is string", true, NULL},
    {"messages [ 0 ] " MEMBER("content") " is string", true, NULL},
    {"message " MEMBER("reasoning_content") " is string", false, NULL},
    {"message " MEMBER("reasoning_content") " is defined and message " MEMBER("reasoning_content") " is not none",
     false, NULL},
    {"enable_thinking is defined and enable_thinking is false", false, NULL},
    {"not add_generation_prompt is defined", false, NULL},
    {"strftime_now is defined", false, NULL}, /* the date is the template's own, not today's */
};

typedef enum truth { NO, YES, OPEN } truth;

typedef struct level { /* of if or for */
    bool outside;      /* what is round it is reached */
    bool written;      /* the if itself is in the form */
    bool done;         /* a branch that is always taken has passed */
    bool loop;
    const item *first; /* the if */
} level;

static bool item_is(const form *f, const item *it, const char *text) {
    return it->bytes == strlen(text) && memcmp(f->text.data + it->begin, text, it->bytes) == 0;
}

static bool begins(const form *f, const item *it, const char *word) {
    const size_t bytes = strlen(word);
    return it->bytes >= bytes && memcmp(f->text.data + it->begin, word, bytes) == 0 &&
           (it->bytes == bytes || f->text.data[it->begin + bytes] == ' ');
}

static item condition_of(const form *f, const item *it) {
    const size_t word = begins(f, it, "if") ? 3 : 5; /* "if " or "elif " */
    return it->bytes > word ? (item){STATEMENT, it->begin + word, it->bytes - word} : (item){STATEMENT, it->begin, 0};
}

static truth value_of(const form *f, const item *it, const item *first) {
    const item condition = condition_of(f, it), beginning = condition_of(f, first);
    for (size_t i = 0; i < HT_COUNT(known); i++)
        if (item_is(f, &condition, known[i].condition) && (!known[i].after || item_is(f, &beginning, known[i].after)))
            return known[i].value ? YES : NO;
    return OPEN;
}

typedef struct folding {
    form *f;
    item *out; /* [n_items + 1] */
    size_t n;
    level levels[MOST_DEPTH];
    size_t depth;
    bool reached;
} folding;

static size_t put_word(form *f, const char *word) {
    const size_t at = f->text.bytes;
    put(f, word, strlen(word));
    return at;
}

/* The next branch of a chain: `if`, `elif` or (condition NULL) `else`. */
static void branch(folding *g, const item *it, bool last) {
    level *l = &g->levels[g->depth - 1];
    const truth value = last ? YES : value_of(g->f, it, l->first);
    g->reached = l->outside && !l->done && value != NO;
    if (l->done || value == NO)
        return;
    if (value == YES)
        l->done = true;
    if (!l->outside || (value == YES && !l->written))
        return;
    const item condition = condition_of(g->f, it);
    const size_t at = put_word(g->f, value == YES ? "else" : l->written ? "elif " : "if ");
    if (value == OPEN && !g->f->failed) {
        for (size_t i = 0; i < condition.bytes; i++) /* by bytes: the text may move */
            put(g->f, (char[]){g->f->text.data[condition.begin + i]}, 1);
    }
    l->written |= value == OPEN;
    g->out[g->n++] = (item){STATEMENT, at, g->f->text.bytes - at};
}

static void fold_statement(folding *g, const item *it) {
    form *f = g->f;
    const bool is_if = begins(f, it, "if"), is_for = begins(f, it, "for");
    level *top = g->depth ? &g->levels[g->depth - 1] : NULL;
    if (is_if || is_for) {
        if (g->depth == MOST_DEPTH) {
            f->failed = true;
            return;
        }
        g->levels[g->depth++] = (level){.outside = g->reached, .loop = is_for, .first = it};
        if (is_if) {
            branch(g, it, false);
            return;
        }
    } else if (top && !top->loop && (begins(f, it, "elif") || item_is(f, it, "else"))) {
        branch(g, it, item_is(f, it, "else"));
        return;
    } else if (top && (item_is(f, it, "endif") || item_is(f, it, "endfor"))) {
        f->failed |= top->loop != item_is(f, it, "endfor");
        g->reached = top->outside;
        g->depth--;
        if (!top->loop && !top->written)
            return;
    }
    if (g->reached)
        g->out[g->n++] = *it;
}

static void fold(form *f) {
    folding g = {.f = f, .reached = true};
    if (f->failed || ht_alloc((void **)&g.out, f->n_items + 1, sizeof *g.out, "chat template", NULL) != HT_OK) {
        f->failed = true;
        return;
    }
    for (size_t i = 0; i < f->n_items && !f->failed; i++) {
        if (f->items[i].kind == STATEMENT)
            fold_statement(&g, &f->items[i]);
        else if (g.reached)
            g.out[g.n++] = f->items[i];
    }
    f->failed |= g.depth != 0;
    free(f->items);
    f->items = g.out;
    f->n_items = g.n;
}

/* ---- the form ------------------------------------------------------------------------------------------------ */

/* Text that lies side by side is one text. */
static uint64_t hash_items(const form *f) {
    uint64_t hash = HT_HASH_START;
    char kind = 0;
    for (size_t i = 0; i < f->n_items; i++) {
        const item *it = &f->items[i];
        if (it->kind != TEXT || kind != TEXT)
            hash = ht_hash(hash, &it->kind, 1);
        kind = it->kind;
        for (size_t k = 0; k < it->bytes; k++) /* one by one: the hash must not depend on where pieces end */
            hash = ht_hash(hash, f->text.data + it->begin + k, 1);
    }
    return hash ? hash : 1;
}

uint64_t ht_chat_form(ht_string source) {
    form f = {.in = source.data, .n = source.bytes};
    if (f.n > MOST_SOURCE)
        return 0;
    for (size_t i = 0; i < f.n; i++)
        if ((unsigned char)f.in[i] < 0x20 && f.in[i] != '\t' && f.in[i] != '\n')
            return 0;
    if (f.n > 0 && f.in[f.n - 1] == '\n') /* as Jinja does */
        f.n--;
    cut(&f);
    fold(&f);
    const uint64_t hash = f.failed ? 0 : hash_items(&f);
    ht_text_free(&f.text);
    free(f.items);
    return hash;
}
