/* Values as text: Python's str and repr, and json.dumps. */
#include "text/template/value.h"

#include "text/template/characters.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void put_literal(tpl_run *run, tpl_buffer *out, const char *text) {
    tpl_put(run, out, text, strlen(text), false);
}

static void put_string(tpl_run *run, tpl_buffer *out, const tpl_string *string) {
    tpl_put_string(run, out, string, 0, string->bytes);
}

/* The shortest digits that read back as the same number, laid out as Python does. */
static void put_float(tpl_run *run, tpl_buffer *out, double value) {
    char text[40], digits[24];
    int precision = 0;
    do
        snprintf(text, sizeof text, "%.*e", precision, value);
    while (precision++ < 17 && strtod(text, NULL) != value);
    size_t n = 0;
    for (const char *at = text; *at && *at != 'e'; at++)
        if (*at >= '0' && *at <= '9' && n < sizeof digits)
            digits[n++] = *at;
    while (n > 1 && digits[n - 1] == '0')
        n--;
    const int exponent = (int)strtol(strchr(text, 'e') + 1, NULL, 10);
    if (signbit(value))
        put_literal(run, out, "-");
    if (exponent < -4 || exponent >= 16) {
        tpl_put(run, out, digits, 1, false);
        if (n > 1) {
            put_literal(run, out, ".");
            tpl_put(run, out, digits + 1, n - 1, false);
        }
        snprintf(text, sizeof text, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
        put_literal(run, out, text);
        return;
    }
    if (exponent < 0) {
        tpl_put(run, out, "0.0000", (size_t)(1 - exponent), false);
        tpl_put(run, out, digits, n, false);
        return;
    }
    for (int i = 0; i < (int)n || i <= exponent + 1; i++) {
        if (i == exponent + 1)
            put_literal(run, out, ".");
        tpl_put(run, out, i < (int)n ? &digits[i] : "0", 1, false);
    }
}

static void put_number(tpl_run *run, tpl_buffer *out, tpl_value value, bool json) {
    char text[32];
    if (value.kind == TPL_INT) {
        snprintf(text, sizeof text, "%lld", (long long)value.as.integer);
        put_literal(run, out, text);
    } else if (isnan(value.as.real)) {
        put_literal(run, out, json ? "NaN" : "nan");
    } else if (isinf(value.as.real)) {
        put_literal(run, out, json ? value.as.real < 0 ? "-Infinity" : "Infinity" : value.as.real < 0 ? "-inf" : "inf");
    } else {
        put_float(run, out, value.as.real);
    }
}

static const char *escape_of(int32_t c, char quote, char buffer[12]) {
    if (c == '\n')
        return "\\n";
    if (c == '\r')
        return "\\r";
    if (c == '\t')
        return "\\t";
    if (c == '\\')
        return "\\\\";
    if (c >= 0 && c == quote)
        return quote == '"' ? "\\\"" : "\\'";
    if (c < 0 || tpl_is_printable(c))
        return NULL;
    snprintf(buffer, 12, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", (unsigned)c);
    return buffer;
}

static void put_repr_string(tpl_run *run, tpl_buffer *out, const tpl_string *string) {
    const bool apostrophe = string->bytes && memchr(string->data, '\'', string->bytes);
    const char quote = apostrophe && !memchr(string->data, '"', string->bytes) ? '"' : '\'';
    tpl_put(run, out, &quote, 1, false);
    char buffer[12];
    for (size_t at = 0, used; at < string->bytes && tpl_step(run, 1); at += used) {
        const int32_t c = ht_utf8_next(string->data + at, string->bytes - at, &used);
        const char *escape = escape_of(c, quote, buffer);
        if (escape)
            tpl_put(run, out, escape, strlen(escape), tpl_marked(string, at));
        else
            tpl_put_string(run, out, string, at, at + used);
    }
    tpl_put(run, out, &quote, 1, false);
}

static void put_repr(tpl_run *run, tpl_buffer *out, tpl_value value);

static void put_repr_items(tpl_run *run, tpl_buffer *out, tpl_value value) {
    const bool tuple = value.kind == TPL_TUPLE;
    put_literal(run, out, tuple ? "(" : "[");
    for (size_t i = 0; i < value.as.list->n && run->status == HT_OK; i++) {
        if (i)
            put_literal(run, out, ", ");
        put_repr(run, out, value.as.list->at[i]);
    }
    put_literal(run, out, !tuple ? "]" : value.as.list->n == 1 ? ",)" : ")");
}

static void put_repr_dict(tpl_run *run, tpl_buffer *out, const tpl_dict *dict) {
    put_literal(run, out, "{");
    for (size_t i = 0; i < dict->n && run->status == HT_OK; i++) {
        if (i)
            put_literal(run, out, ", ");
        put_repr(run, out, dict->at[i].key);
        put_literal(run, out, ": ");
        put_repr(run, out, dict->at[i].value);
    }
    put_literal(run, out, "}");
}

static void put_repr(tpl_run *run, tpl_buffer *out, tpl_value value) {
    if (!tpl_step(run, 1))
        return;
    if (++run->depth > TPL_MOST_DEPTH) {
        tpl_fail(run, HT_ERROR_UNSUPPORTED, "more than %d levels deep", TPL_MOST_DEPTH);
    } else {
        switch (value.kind) {
        case TPL_UNDEFINED:
            put_literal(run, out, "Undefined");
            break;
        case TPL_STRING:
            put_repr_string(run, out, value.as.string);
            break;
        case TPL_LIST:
        case TPL_TUPLE:
            put_repr_items(run, out, value);
            break;
        case TPL_DICT:
            put_repr_dict(run, out, value.as.dict);
            break;
        default:
            tpl_put_value(run, out, value);
        }
    }
    run->depth--;
}

void tpl_put_value(tpl_run *run, tpl_buffer *out, tpl_value value) {
    if (run->status != HT_OK)
        return;
    switch (value.kind) {
    case TPL_UNDEFINED:
        break;
    case TPL_NONE:
        put_literal(run, out, "None");
        break;
    case TPL_BOOL:
        put_literal(run, out, value.as.truth ? "True" : "False");
        break;
    case TPL_INT:
    case TPL_FLOAT:
        put_number(run, out, value, false);
        break;
    case TPL_STRING:
        put_string(run, out, value.as.string);
        break;
    case TPL_LIST:
    case TPL_TUPLE:
    case TPL_DICT:
        put_repr(run, out, value);
        break;
    default: /* Python would print an address */
        put_literal(run, out, "<");
        put_literal(run, out, tpl_kind_name(value));
        put_literal(run, out, ">");
    }
}

const tpl_string *tpl_text(tpl_run *run, tpl_value value) {
    static const tpl_string empty = {.data = ""};
    if (value.kind == TPL_STRING)
        return value.as.string;
    tpl_buffer out = {0};
    tpl_put_value(run, &out, value);
    const tpl_value text = tpl_finish(run, &out);
    return text.kind == TPL_STRING ? text.as.string : &empty;
}

void tpl_put_escaped(tpl_run *run, tpl_buffer *out, const tpl_string *string) {
    static const char special[] = "&<>\"'", *const names[] = {"&amp;", "&lt;", "&gt;", "&#34;", "&#39;"};
    for (size_t at = 0; at < string->bytes && run->status == HT_OK; at++) {
        const char *found = string->safe ? NULL : memchr(special, string->data[at], sizeof special - 1);
        if (found)
            tpl_put(run, out, names[found - special], strlen(names[found - special]), tpl_marked(string, at));
        else
            tpl_put_string(run, out, string, at, at + 1);
    }
}

/* ---- JSON ---- */

static void put_json_character(tpl_run *run, tpl_buffer *out, const tpl_string *string, size_t at, size_t used,
                               int32_t c, bool ascii) {
    static const char plain[] = "\"\\\n\r\t\b\f", letters[] = "\"\\nrtbf";
    const char *found = c > 0 && c < 0x80 ? memchr(plain, c, sizeof plain - 1) : NULL;
    char text[16];
    if (found)
        snprintf(text, sizeof text, "\\%c", letters[found - plain]);
    else if (c >= 0x10000 && ascii)
        snprintf(text, sizeof text, "\\u%04x\\u%04x", 0xd800 + ((unsigned)(c - 0x10000) >> 10),
                 0xdc00 + ((unsigned)(c - 0x10000) & 0x3ff));
    else if (c >= 0 && (c < 0x20 || (ascii && c >= 0x7f)))
        snprintf(text, sizeof text, "\\u%04x", (unsigned)c);
    else {
        tpl_put_string(run, out, string, at, at + used);
        return;
    }
    tpl_put(run, out, text, strlen(text), tpl_marked(string, at));
}

static void put_json_string(tpl_run *run, tpl_buffer *out, const tpl_string *string, bool ascii) {
    put_literal(run, out, "\"");
    for (size_t at = 0, used; at < string->bytes && run->status == HT_OK; at += used) {
        const int32_t c = ht_utf8_next(string->data + at, string->bytes - at, &used);
        put_json_character(run, out, string, at, used, c, ascii);
    }
    put_literal(run, out, "\"");
}

static void put_line(tpl_run *run, tpl_buffer *out, const tpl_json_style *style, unsigned level) {
    if (!style->indent)
        return;
    put_literal(run, out, "\n");
    for (unsigned i = 0; i < level; i++)
        put_string(run, out, style->indent);
}

static void put_json_key(tpl_run *run, tpl_buffer *out, tpl_value key, const tpl_json_style *style) {
    if (key.kind == TPL_STRING) {
        put_json_string(run, out, key.as.string, style->ascii);
    } else if (key.kind == TPL_NONE || tpl_is_number(key)) {
        put_literal(run, out, "\"");
        tpl_put_json(run, out, key, style, 0);
        put_literal(run, out, "\"");
    } else {
        tpl_fail(run, HT_ERROR_FORMAT, "a %s is no key of JSON", tpl_kind_name(key));
    }
}

/* The keys' order: as they are, or ascending (by insertion, for keys are few). */
static const tpl_dict *sorted_dict(tpl_run *run, const tpl_dict *dict) {
    tpl_pair *pairs = tpl_alloc(run, dict->n, sizeof *pairs);
    tpl_dict *sorted = tpl_alloc(run, 1, sizeof *sorted);
    if (!pairs || !sorted)
        return dict;
    for (size_t i = 0; i < dict->n && run->status == HT_OK; i++) {
        size_t at = i;
        for (; at > 0 && tpl_order(run, dict->at[i].key, pairs[at - 1].key) < 0; at--)
            pairs[at] = pairs[at - 1];
        pairs[at] = dict->at[i];
    }
    *sorted = (tpl_dict){pairs, dict->n, dict->n};
    return sorted;
}

static void put_json_dict(tpl_run *run, tpl_buffer *out, const tpl_dict *dict, const tpl_json_style *style,
                          unsigned level) {
    if (style->sorted)
        dict = sorted_dict(run, dict);
    put_literal(run, out, "{");
    for (size_t i = 0; i < dict->n && run->status == HT_OK; i++) {
        if (i)
            put_string(run, out, style->item);
        put_line(run, out, style, level + 1);
        put_json_key(run, out, dict->at[i].key, style);
        put_string(run, out, style->key);
        tpl_put_json(run, out, dict->at[i].value, style, level + 1);
    }
    if (dict->n)
        put_line(run, out, style, level);
    put_literal(run, out, "}");
}

static void put_json_list(tpl_run *run, tpl_buffer *out, const tpl_list *list, const tpl_json_style *style,
                          unsigned level) {
    put_literal(run, out, "[");
    for (size_t i = 0; i < list->n && run->status == HT_OK; i++) {
        if (i)
            put_string(run, out, style->item);
        put_line(run, out, style, level + 1);
        tpl_put_json(run, out, list->at[i], style, level + 1);
    }
    if (list->n)
        put_line(run, out, style, level);
    put_literal(run, out, "]");
}

void tpl_put_json(tpl_run *run, tpl_buffer *out, tpl_value value, const tpl_json_style *style, unsigned level) {
    if (!tpl_step(run, 1))
        return;
    if (level > TPL_MOST_DEPTH) {
        tpl_fail(run, HT_ERROR_UNSUPPORTED, "more than %d levels deep", TPL_MOST_DEPTH);
        return;
    }
    switch (value.kind) {
    case TPL_NONE:
        put_literal(run, out, "null");
        break;
    case TPL_BOOL:
        put_literal(run, out, value.as.truth ? "true" : "false");
        break;
    case TPL_INT:
    case TPL_FLOAT:
        put_number(run, out, value, true);
        break;
    case TPL_STRING:
        put_json_string(run, out, value.as.string, style->ascii);
        break;
    case TPL_LIST:
    case TPL_TUPLE:
        put_json_list(run, out, value.as.list, style, level);
        break;
    case TPL_DICT:
        put_json_dict(run, out, value.as.dict, style, level);
        break;
    default:
        tpl_fail(run, HT_ERROR_FORMAT, "%s cannot be written as JSON", tpl_kind_name(value));
    }
}
