/* Calls whose arguments stand between tags, each by itself: put together to a JSON object as they come. A tag says
 * nothing of an argument's type, which the tool's schema does. */
#include "text/reply/parser.h"

#include <stdlib.h>
#include <string.h>

/* The characters of a JSON string. Bytes from 0x80 on are as they are: a character may be cut in two. */
static void give_escaped(ht_reply *r, const char *text, size_t bytes) {
    size_t from = 0;
    if (!bytes)
        return;
    for (size_t i = 0; i < bytes; i++) {
        const unsigned char c = (unsigned char)text[i];
        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        char escaped[8];
        const int n = c == '\n'  ? snprintf(escaped, sizeof escaped, "\\n")
                      : c < 0x20 ? snprintf(escaped, sizeof escaped, "\\u%04x", c)
                                 : snprintf(escaped, sizeof escaped, "\\%c", c);
        ht_reply_give_arguments(r, text + from, i - from);
        ht_reply_give_arguments(r, escaped, (size_t)n);
        from = i + 1;
    }
    ht_reply_give_arguments(r, text + from, bytes - from);
}

static void finish(ht_reply *r, bool closed) {
    if (r->any_arguments)
        ht_reply_give_arguments(r, "}", 1);
    ht_reply_call_end(r);
    ht_reply_after(r, closed);
}

bool ht_reply_between_step(ht_reply *r, bool end) {
    ht_reply_skip_blanks(r);
    const int key = ht_reply_next(r, r->style->key, end), closes = ht_reply_next(r, r->style->call_end, end);
    if (key > 0) {
        ht_reply_take(r, strlen(r->style->key), true);
        r->mode = HT_MODE_KEY;
        return true;
    }
    if (closes <= 0 && (key < 0 || closes < 0 || !ht_reply_left(r)) && !end)
        return false;
    if (closes > 0)
        ht_reply_take(r, strlen(r->style->call_end), true);
    finish(r, true); /* also where neither a key nor the end follows */
    return ht_reply_left(r) > 0;
}

/* Does the tool's schema say that an argument is a string? */
static bool declared_text(const ht_reply *r) {
    size_t i;
    json_t *tool;
    json_array_foreach((json_t *)r->tools, i, tool) {
        const json_t *const inner = json_object_get(tool, "function"), *const t = inner ? inner : tool;
        const char *const name = json_string_value(json_object_get(t, "name"));
        if (!name || strcmp(name, r->name.data) != 0)
            continue;
        const json_t *const openai = json_object_get(t, "parameters"), *const schema =
                                                                           openai ? openai
                                                                                  : json_object_get(t, "input_schema");
        const json_t *const own = json_object_get(json_object_get(schema, "properties"), r->key.data);
        const char *const type = json_string_value(json_object_get(own, "type"));
        return type && strcmp(type, "string") == 0;
    }
    return false;
}

bool ht_reply_key_step(ht_reply *r, bool end) {
    size_t which, safe;
    const size_t at = ht_reply_find(r, &r->style->key_end, 1, end, &which, &safe);
    if (at == HT_REPLY_NONE || at > HT_REPLY_NAME) {
        if (at == HT_REPLY_NONE && !end && ht_reply_left(r) <= HT_REPLY_NAME)
            return false;
        finish(r, true);
        return ht_reply_left(r) > 0;
    }
    /* KEY, or KEY" string="true" */
    const char *const text = ht_reply_rest(r), *const quote = memchr(text, '"', at);
    static const char string[] = "string=\"true\"";
    r->key.bytes = 0;
    ht_reply_append(r, &r->key, text, quote ? (size_t)(quote - text) : at);
    if (!r->key.bytes)
        ht_reply_append(r, &r->key, "?", 1);
    r->is_text = ht_find_bytes(text, at, string, sizeof string - 1) != NULL || (r->status == HT_OK && declared_text(r));
    ht_reply_take(r, at + strlen(r->style->key_end), true);
    ht_reply_give_arguments(r, r->any_arguments ? ", \"" : "{\"", r->any_arguments ? 3 : 2);
    give_escaped(r, r->key.data, r->key.bytes);
    ht_reply_give_arguments(r, r->is_text ? "\": \"" : "\": ", r->is_text ? 4 : 3);
    r->mode = HT_MODE_VALUE_OPEN;
    return true;
}

bool ht_reply_value_open_step(ht_reply *r, bool end) {
    if (r->style->value) {
        ht_reply_skip_blanks(r);
        const int opens = ht_reply_next(r, r->style->value, end);
        if ((opens < 0 || (!opens && !ht_reply_left(r))) && !end)
            return false;
        if (opens > 0)
            ht_reply_take(r, strlen(r->style->value), true);
    }
    r->value.bytes = 0;
    r->line = r->style->lines;
    r->held_line = false;
    r->mode = HT_MODE_VALUE;
    return true;
}

/* More of a value, less a line break at either end where these are not its own. */
static void more(ht_reply *r, const char *text, size_t bytes) {
    if (!bytes)
        return;
    if (r->line && *text == '\n')
        text++, bytes--;
    r->line = false;
    if (!bytes)
        return;
    const bool last = r->style->lines && text[bytes - 1] == '\n';
    void (*const put)(ht_reply *, const char *, size_t) = give_escaped;
    if (r->held_line && r->is_text)
        put(r, "\n", 1);
    else if (r->held_line)
        ht_reply_append(r, &r->value, "\n", 1);
    r->held_line = last;
    if (r->is_text)
        put(r, text, bytes - last);
    else
        ht_reply_append(r, &r->value, text, bytes - last);
}

/* A value of a type that nobody declared: JSON if it is that, else a string. */
static void give_value(ht_reply *r) {
    json_error_t why;
    json_t *const value = json_loadb(r->value.data ? r->value.data : "", r->value.bytes, JSON_DECODE_ANY, &why);
    char *const text = value ? json_dumps(value, JSON_ENCODE_ANY) : NULL;
    if (text) {
        ht_reply_give_arguments(r, text, strlen(text));
    } else {
        ht_reply_give_arguments(r, "\"", 1);
        give_escaped(r, r->value.data, r->value.bytes);
        ht_reply_give_arguments(r, "\"", 1);
    }
    free(text);
    json_decref(value);
}

bool ht_reply_value_step(ht_reply *r, bool end) {
    size_t which, safe;
    const size_t at = ht_reply_find(r, &r->style->value_end, 1, end, &which, &safe);
    more(r, ht_reply_rest(r), safe);
    ht_reply_take(r, safe, true);
    if (at == HT_REPLY_NONE && !end)
        return false;
    if (r->is_text)
        ht_reply_give_arguments(r, "\"", 1);
    else
        give_value(r);
    if (at == HT_REPLY_NONE) { /* cut off */
        finish(r, true);
        return false;
    }
    ht_reply_take(r, strlen(r->style->value_end), true);
    r->mode = HT_MODE_BETWEEN;
    return true;
}
