/* Calls in notations of their own: Python's calls, Gemma's braces. They are read once they are all there. */
#include "text/reply/parser.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct reader {
    const char *at, *end;
    bool failed;
} reader;

static const char gemma_quote[] = "<|\"|>";

static void skip(reader *p) {
    while (p->at < p->end && ht_is_blank(*p->at))
        p->at++;
}

/* Takes a text if it is next. */
static bool next(reader *p, const char *text) {
    const size_t bytes = strlen(text);
    skip(p);
    if ((size_t)(p->end - p->at) < bytes || memcmp(p->at, text, bytes) != 0)
        return false;
    p->at += bytes;
    return true;
}

static void need(reader *p, const char *text) {
    p->failed |= !next(p, text);
}

static json_t *refuse(reader *p) {
    p->failed = true;
    return NULL;
}

/* A name: letters, digits, _ . - ; its bytes. */
static size_t word(reader *p, const char **text) {
    skip(p);
    *text = p->at;
    while (p->at < p->end &&
           (strchr("_.-", *p->at) ? *p->at != 0
                                  : (*p->at >= '0' && *p->at <= '9') || (*p->at >= 'a' && *p->at <= 'z') ||
                                        (*p->at >= 'A' && *p->at <= 'Z') || (*p->at & 0x80)))
        p->at++;
    return (size_t)(p->at - *text);
}

/* Behind the quote of a string in Python's notation. */
static json_t *python_string(reader *p, char quote) {
    ht_text text = {0};
    bool whole = true;
    for (; p->at < p->end && *p->at != quote; p->at++) {
        char c = *p->at;
        if (c == '\\' && p->at + 1 < p->end) {
            c = *++p->at;
            c = c == 'n' ? '\n' : c == 't' ? '\t' : c == 'r' ? '\r' : c;
        }
        whole &= ht_text_append(&text, &c, 1, NULL) == HT_OK;
    }
    json_t *const string = p->at < p->end && whole ? json_stringn(text.data ? text.data : "", text.bytes) : NULL;
    ht_text_free(&text);
    if (!string)
        return refuse(p);
    p->at++;
    return string;
}

static json_t *quoted(reader *p) {
    if (next(p, gemma_quote)) {
        const char *const close = ht_find_bytes(p->at, (size_t)(p->end - p->at), gemma_quote, sizeof gemma_quote - 1);
        json_t *const string = close ? json_stringn(p->at, (size_t)(close - p->at)) : NULL;
        if (!string)
            return refuse(p);
        p->at = close + sizeof gemma_quote - 1;
        return string;
    }
    if (next(p, "\""))
        return python_string(p, '"');
    return next(p, "'") ? python_string(p, '\'') : NULL;
}

static json_t *value(reader *p, int depth);

/* KEY separator VALUE, ... up to the closing bracket, of which the opening one has been read. */
static json_t *members(reader *p, const char *separator, const char *close, int depth) {
    json_t *const object = json_object();
    while (!p->failed && !next(p, close)) {
        json_t *const name = quoted(p);
        const char *text = json_string_value(name);
        size_t bytes = json_string_length(name);
        if (!name)
            bytes = word(p, &text);
        char key[HT_REPLY_NAME + 1] = "";
        if (bytes > 0 && bytes <= HT_REPLY_NAME)
            memcpy(key, text, bytes);
        need(p, separator);
        p->failed |= !*key || json_object_set_new(object, key, value(p, depth)) != 0;
        json_decref(name);
        if (!next(p, ",") && !p->failed) {
            need(p, close);
            break;
        }
    }
    return object;
}

static json_t *list(reader *p, const char *close, int depth) {
    json_t *const array = json_array();
    while (!p->failed && !next(p, close)) {
        p->failed |= json_array_append_new(array, value(p, depth)) != 0;
        if (!next(p, ",") && !p->failed) {
            need(p, close);
            break;
        }
    }
    return array;
}

static json_t *bare(reader *p) {
    static const struct {
        const char *name;
        int kind;
    } words[] = {{"true", 1}, {"True", 1}, {"false", 0}, {"False", 0}, {"null", 2}, {"None", 2}};
    const char *text;
    size_t bytes = word(p, &text);
    if (!bytes || bytes > 64)
        return refuse(p);
    for (size_t i = 0; i < HT_COUNT(words); i++)
        if (bytes == strlen(words[i].name) && memcmp(text, words[i].name, bytes) == 0)
            return words[i].kind == 2 ? json_null() : json_boolean(words[i].kind);
    if (p->at < p->end && *p->at == '+' && (text[bytes - 1] == 'e' || text[bytes - 1] == 'E')) { /* 1e+5 */
        const char *more;
        p->at++;
        word(p, &more);
        bytes = (size_t)(p->at - text);
    }
    json_t *const number = json_loadb(text, bytes, JSON_DECODE_ANY, NULL);
    if (json_is_number(number))
        return number;
    json_decref(number);
    return refuse(p);
}

static json_t *value(reader *p, int depth) {
    if (p->failed || depth >= HT_REPLY_DEPTH)
        return refuse(p);
    json_t *const string = quoted(p);
    if (string || p->failed)
        return string;
    if (next(p, "{"))
        return members(p, ":", "}", depth + 1);
    if (next(p, "["))
        return list(p, "]", depth + 1);
    if (next(p, "("))
        return list(p, ")", depth + 1);
    return bare(p);
}

/* One call: NAME ( members ). Told only if all of it could be read. */
static bool read_call(ht_reply *r, reader *p, const char *open, const char *separator, const char *close) {
    const char *name;
    const size_t bytes = word(p, &name);
    p->failed |= !bytes || bytes > HT_REPLY_NAME;
    need(p, open);
    json_t *const arguments = p->failed ? NULL : members(p, separator, close, 1);
    char *const text = arguments && !p->failed ? json_dumps(arguments, 0) : NULL;
    if (text) {
        r->name.bytes = r->id.bytes = r->arguments.bytes = 0;
        r->any_arguments = false;
        ht_reply_append(r, &r->name, name, bytes);
        ht_reply_call(r);
        ht_reply_give_arguments(r, text, strlen(text));
        ht_reply_call_end(r);
    }
    free(text);
    json_decref(arguments);
    return text != NULL;
}

static bool read_calls(ht_reply *r, const char *text, size_t bytes) {
    reader p = {text, text + bytes, false};
    if (r->style->form == HT_CALL_GEMMA) {
        need(&p, "call:");
        return !p.failed && read_call(r, &p, "{", ":", "}");
    }
    const bool listed = next(&p, "[");
    bool any = false;
    do {
        if (!read_call(r, &p, "(", "=", ")"))
            return any;
        any = true;
    } while (next(&p, ","));
    (void)(listed && next(&p, "]"));
    return true;
}

bool ht_reply_whole_step(ht_reply *r, bool end) {
    size_t which, safe;
    r->at += r->searched; /* or byte by byte it would be quadratic */
    size_t at = ht_reply_find(r, &r->style->call_end, 1, end, &which, &safe);
    r->at -= r->searched;
    if (at == HT_REPLY_NONE && !end && ht_reply_left(r) <= HT_REPLY_HELD) {
        r->searched += safe;
        return false;
    }
    at += at == HT_REPLY_NONE ? 0 : r->searched;
    r->searched = 0;
    const size_t bytes = at == HT_REPLY_NONE ? ht_reply_left(r) : at, told = r->calls;
    if (bytes <= HT_REPLY_HELD)
        read_calls(r, ht_reply_rest(r), bytes);
    if (r->calls == told) {
        ht_reply_take(r, bytes, true);
        ht_reply_no_call(r);
        return ht_reply_left(r) > 0;
    }
    ht_reply_take(r, bytes, false);
    if (at != HT_REPLY_NONE)
        ht_reply_take(r, strlen(r->style->call_end), false);
    ht_reply_after(r, true);
    return ht_reply_left(r) > 0;
}
