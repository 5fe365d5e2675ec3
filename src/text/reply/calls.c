/* Calls whose arguments are JSON: passed on as they come. */
#include "text/reply/parser.h"

#include <string.h>

static void new_call(ht_reply *r) {
    r->name.bytes = r->id.bytes = r->arguments.bytes = 0;
    r->called = r->any_arguments = false;
}

void ht_reply_begin_call(ht_reply *r) {
    static const ht_reply_mode begins[] = {
        [HT_CALL_JSON] = HT_MODE_JSON,    [HT_CALL_NAMED] = HT_MODE_NAME,  [HT_CALL_TAGS] = HT_MODE_NAME,
        [HT_CALL_PYTHON] = HT_MODE_WHOLE, [HT_CALL_GEMMA] = HT_MODE_WHOLE, [HT_CALL_CHANNELS] = HT_MODE_HEADER};
    r->json = (ht_json_scan){.token = r->json.token, .calls = r->calls};
    r->json.token.bytes = 0;
    new_call(r);
    r->mode = begins[r->style->form];
}

/* "functions.NAME:0", "NAME[CALL_ID]abc", " NAME\n": the name, and what else it says. */
static void set_name(ht_reply *r, const char *text, size_t bytes) {
    static const char prefix[] = "functions.", call_id[] = "[CALL_ID]";
    while (bytes && ht_is_blank(text[bytes - 1]))
        bytes--;
    while (bytes && ht_is_blank(*text))
        text++, bytes--;
    const char *const id = ht_find_bytes(text, bytes, call_id, sizeof call_id - 1);
    if (id) {
        const char *const value = id + sizeof call_id - 1;
        ht_reply_append(r, &r->id, value, (size_t)(text + bytes - value));
        bytes = (size_t)(id - text);
    }
    if (bytes > sizeof prefix - 1 && memcmp(text, prefix, sizeof prefix - 1) == 0) {
        size_t end = bytes;
        while (end && text[end - 1] >= '0' && text[end - 1] <= '9')
            end--;
        if (end && end < bytes && text[end - 1] == ':') {
            ht_reply_append(r, &r->id, text, bytes);
            bytes = end - 1;
        }
        text += sizeof prefix - 1, bytes -= sizeof prefix - 1;
    }
    ht_reply_append(r, &r->name, text, bytes);
}

bool ht_reply_name_step(ht_reply *r, bool end) {
    const ht_reply_style *const s = r->style;
    const bool tags = s->form == HT_CALL_TAGS;
    /* GLM's name ends with its line, or with what follows it */
    const char *const marks[] = {s->name_end, s->call_end, tags ? s->key : NULL};
    size_t which, safe;
    ht_reply_skip_blanks(r);
    const size_t at = ht_reply_find(r, marks, HT_COUNT(marks), end, &which, &safe);
    if (at == HT_REPLY_NONE && !end && ht_reply_left(r) <= HT_REPLY_NAME)
        return false;
    set_name(r, ht_reply_rest(r), at == HT_REPLY_NONE ? 0 : at);
    if (!r->name.bytes || at > HT_REPLY_NAME || (which == 1 && !tags)) {
        ht_reply_no_call(r);
        return ht_reply_left(r) > 0;
    }
    ht_reply_take(r, at + (which == 0 ? strlen(marks[0]) : 0), true);
    ht_reply_call(r);
    r->mode = tags ? HT_MODE_BETWEEN : HT_MODE_JSON;
    return true;
}

/* ---- JSON ---- */

static bool token_is(const ht_text *token, const char *const *words) {
    for (; *words; words++)
        if (token->bytes == strlen(*words) + 2 && memcmp(token->data + 1, *words, strlen(*words)) == 0)
            return true;
    return false;
}

static void read_key(ht_reply *r) {
    static const char *const names[] = {"name", "tool_name", NULL},
                             *const arguments[] = {"arguments", "parameters", NULL},
                             *const ids[] = {"id", "tool_call_id", NULL}, *const functions[] = {"function", NULL};
    ht_json_scan *const j = &r->json;
    j->key = token_is(&j->token, names)       ? HT_KEY_NAME
             : token_is(&j->token, arguments) ? HT_KEY_ARGUMENTS
             : token_is(&j->token, ids)       ? HT_KEY_ID
             : token_is(&j->token, functions) ? HT_KEY_FUNCTION
                                              : HT_KEY_OTHER;
}

/* A string of the call itself: its name, its id, or arguments that were written as a string of JSON. */
static void read_value(ht_reply *r) {
    ht_json_scan *const j = &r->json;
    json_t *const value = json_loadb(j->token.data, j->token.bytes, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    const char *const text = json_string_value(value);
    const size_t bytes = json_string_length(value);
    if (text && j->key == HT_KEY_ARGUMENTS)
        ht_reply_give_arguments(r, text, bytes);
    else if (text && bytes <= HT_REPLY_NAME && strlen(text) == bytes && !r->called) {
        ht_text *const field = j->key == HT_KEY_NAME ? &r->name : &r->id;
        field->bytes = 0;
        ht_reply_append(r, field, text, bytes);
    }
    json_decref(value);
}

/* Where a string begins: is it of use? */
static void open_string(ht_json_scan *j) {
    j->in_string = true;
    j->keeping = HT_TOKEN_NONE;
    if (j->passing || !j->call || j->depth != j->call)
        return;
    if (!j->colon)
        j->keeping = HT_TOKEN_KEY;
    else if (j->key == HT_KEY_NAME || j->key == HT_KEY_ID || j->key == HT_KEY_ARGUMENTS)
        j->keeping = HT_TOKEN_VALUE;
    j->token.bytes = 0;
}

static void close_string(ht_reply *r) {
    ht_json_scan *const j = &r->json;
    j->in_string = false;
    if (j->keeping == HT_TOKEN_KEY)
        read_key(r);
    else if (j->keeping == HT_TOKEN_VALUE)
        read_value(r);
    j->keeping = HT_TOKEN_NONE;
}

/* A bracket opens; false: deeper than we go. */
static bool open_bracket(ht_reply *r, char c) {
    ht_json_scan *const j = &r->json;
    if (j->depth + 1 >= HT_REPLY_DEPTH)
        return false;
    const bool in_array = j->depth && (j->arrays >> j->depth & 1), of_call = j->call && j->depth == j->call && j->colon;
    if (of_call && j->key == HT_KEY_ARGUMENTS && !j->passing)
        j->passing = true, j->passed = j->depth;
    j->depth++;
    j->arrays = (j->arrays & ~(UINT64_C(1) << j->depth)) | (uint64_t)(c == '[') << j->depth;
    if (c == '{' && !j->passing && !j->call && (j->depth == 1 || (j->depth == 2 && in_array))) {
        j->call = j->depth;
        new_call(r);
    } else if (c == '{' && of_call && j->key == HT_KEY_FUNCTION) {
        j->call = j->depth; /* {"type": "function", "function": {...}} */
    } else {
        return true;
    }
    j->colon = false;
    j->key = HT_KEY_OTHER;
    return true;
}

/* Tells the call once its name is known and what follows is its arguments, or its end. False: it is no call. */
static bool tell(ht_reply *r) {
    if (r->called)
        return true;
    if (!r->name.bytes || (!r->style->call && !ht_reply_knows(r, r->name.data)))
        return false;
    ht_reply_call(r);
    return true;
}

/* Of JSON's own characters, outside strings. */
static bool structure(ht_reply *r, char c) {
    ht_json_scan *const j = &r->json;
    switch (c) {
    case '{':
    case '[':
        return open_bracket(r, c);
    case '}':
    case ']':
        if (j->depth == 0 || (bool)(j->arrays >> j->depth & 1) != (c == ']'))
            return false;
        if (c == '}' && j->depth == j->call) {
            if (!tell(r))
                return false;
            ht_reply_call_end(r);
            j->call = 0;
        }
        j->depth--;
        return true;
    case ':':
        j->colon |= j->call && j->depth == j->call;
        return true;
    case ',':
        if (j->call && j->depth == j->call)
            j->colon = false, j->key = HT_KEY_OTHER;
        return true;
    default: /* numbers, true, false, null */
        return c && strchr("+-.0123456789truefalsnE \n\r\t", c);
    }
}

/* One byte of JSON; false: it is none. */
static bool scan_byte(ht_reply *r, char c) {
    ht_json_scan *const j = &r->json;
    if (!j->in_string && c != '"')
        return structure(r, c);
    if (!j->in_string)
        open_string(j);
    else if (j->escaped || c == '\\')
        j->escaped = !j->escaped;
    else if (c == '"')
        j->in_string = false;
    if (j->keeping != HT_TOKEN_NONE && j->token.bytes < HT_REPLY_HELD)
        ht_reply_append(r, &j->token, &c, 1);
    if (!j->in_string)
        close_string(r);
    return true;
}

/* The scan's next bytes. Returns how many were taken; *done: the value is at its end; *broken: there is none, or no call. */
static size_t scan(ht_reply *r, const char *text, size_t bytes, bool *done, bool *broken) {
    ht_json_scan *const j = &r->json;
    const bool bare = r->style->form == HT_CALL_NAMED; /* arguments and nothing round them */
    size_t from = 0, i = 0;                            /* [from, i): arguments that are not yet given */
    for (; i < bytes && !*done && r->status == HT_OK; i++) {
        const char c = text[i];
        const size_t told = r->calls;
        if (j->begun || !ht_is_blank(c)) {
            if (!j->begun && bare)
                j->passing = true, from = i;
            const bool passed = j->passing, first = !j->begun;
            j->begun = true;
            *broken = (first && c != '{' && (bare || c != '[')) || !scan_byte(r, c);
            if (!*broken && !passed && j->passing) { /* they begin here */
                from = i;
                *broken = r->name.bytes && !tell(r);
            }
            if (*broken)
                break;
            if (passed && !j->in_string && j->depth == j->passed && (c == '}' || c == ']')) {
                ht_reply_give_arguments(r, text + from, i + 1 - from);
                j->passing = false;
            }
            *done = j->depth == 0;
        }
        if (!r->called && r->calls == told)
            ht_reply_append(r, &r->raw, &c, 1);
    }
    if (j->passing)
        ht_reply_give_arguments(r, text + from, i - from);
    return i;
}

bool ht_reply_json_step(ht_reply *r, bool end) {
    bool done = false, broken = false;
    ht_reply_take(r, scan(r, ht_reply_rest(r), ht_reply_left(r), &done, &broken), false);
    if (!done && !broken && !end)
        return false;
    if (r->called) { /* a call without arguments, or with broken ones, is one all the same */
        ht_reply_call_end(r);
        ht_reply_after(r, false);
    } else if (done && r->calls > r->json.calls) {
        ht_reply_after(r, false);
    } else {
        ht_reply_no_call(r);
    }
    return ht_reply_left(r) > 0;
}
