/* Reading JSON files that people write: every mistake is said with its file, line and key. */
#include "base/json.h"

#include <stdlib.h>
#include <string.h>

/* ---- where in the text ---------------------------------------------------------------------------------------------------------- */

/* jansson tells lines of broken syntax only, so what it has read is walked again. The text is valid JSON by then. */
static const char *skip_space(const char *at) {
    return at + strspn(at, " \t\r\n");
}

static const char *skip_string(const char *at) {
    for (at++; *at && *at != '"'; at++)
        at += *at == '\\' && at[1];
    return *at ? at + 1 : at;
}

static const char *skip_value(const char *at) {
    int depth = 0;
    do {
        at = skip_space(at);
        if (*at == '"')
            at = skip_string(at);
        else if (strchr("{[", *at) && *at)
            depth++, at++;
        else if (strchr("}]", *at) && *at)
            depth--, at++;
        else if (strchr(",:", *at) && *at)
            at++;
        else
            at += strcspn(at, " \t\r\n,:]}");
    } while (depth > 0 && *at);
    return at;
}

/* Where the value at a place begins, or its key; NULL: it is not there. */
static const char *find_place(const char *text, const ht_json_place *p, bool its_key) {
    if (!p->up)
        return skip_space(text);
    const char *at = find_place(text, p->up, false);
    if (!at || *at != (p->key ? '{' : '['))
        return NULL;
    at = skip_space(at + 1);
    for (size_t i = 0; *at && !strchr("}]", *at); i++) {
        const char *begin = at, *key_end = p->key ? skip_string(at) : at;
        if (p->key)
            at = skip_space(skip_space(key_end) + 1); /* behind the colon */
        const bool found =
            p->key ? (size_t)(key_end - begin) == strlen(p->key) + 2 && !strncmp(begin + 1, p->key, strlen(p->key))
                   : i == p->index;
        if (found)
            return its_key ? begin : at;
        at = skip_space(skip_value(at));
        at = skip_space(at + (*at == ','));
    }
    return NULL;
}

/* The line of a place; of what holds it, if it is not there. */
static int line_of(const char *text, const ht_json_place *p) {
    const char *at = NULL;
    for (; !at; p = p->up)
        at = find_place(text, p, true);
    int line = 1;
    for (const char *c = text; c < at; c++)
        line += *c == '\n';
    return line;
}

static void name_place(const ht_json_place *p, char *out, size_t capacity) {
    if (!p->up) {
        *out = 0;
        return;
    }
    name_place(p->up, out, capacity);
    const size_t n = strlen(out);
    if (p->key)
        snprintf(out + n, capacity - n, "%s%.60s", n ? "." : "", p->key);
    else
        snprintf(out + n, capacity - n, "[%zu]", p->index);
}

ht_status ht_json_bad(const ht_json_source *s, const ht_json_place *p, const char *format, ...) {
    char what[256], name[160];
    va_list list;
    va_start(list, format);
    vsnprintf(what, sizeof what, format, list);
    va_end(list);
    name_place(p, name, sizeof name);
    return ht_fail(s->error, HT_ERROR_FORMAT, "%s: line %d: %s%s%s", s->file, line_of(s->text, p), name,
                   *name ? ": " : "", what);
}

/* ---- reading ------------------------------------------------------------------------------------------------------------------------ */

ht_status ht_json_open(const char *file, const char *text, size_t bytes, ht_json_source *source, ht_error *error) {
    json_error_t syntax;
    char *copy = NULL;
    *source = (ht_json_source){.file = file, .error = error};
    ht_status status = ht_alloc((void **)&copy, bytes + 1, 1, file, error);
    if (status)
        return status;
    memcpy(copy, text, bytes); /* with a NUL at its end, which a mapped file has not */
    source->text = copy;
    source->root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &syntax);
    if (source->root)
        return HT_OK;
    status = ht_fail(error, HT_ERROR_FORMAT, "%s: line %d: %s", file, syntax.line, syntax.text);
    ht_json_close(source);
    return status;
}

void ht_json_close(ht_json_source *source) {
    json_decref(source->root);
    free((char *)source->text);
    *source = (ht_json_source){0};
}

ht_status ht_json_known(const ht_json_source *s, const json_t *object, const ht_json_place *here,
                        const char *const *keys) {
    const char *key;
    json_t *value;
    if (!json_is_object(object))
        return ht_json_bad(s, here, "must be an object");
    json_object_foreach((json_t *)object, key, value) {
        const ht_json_place inner = {here, key, 0};
        bool known = false;
        for (size_t i = 0; keys[i]; i++)
            known |= !strcmp(keys[i], key);
        if (!known)
            return ht_json_bad(s, &inner, "unknown key");
    }
    return HT_OK;
}

ht_status ht_json_read_text(const ht_json_source *s, const json_t *object, const ht_json_place *up, const char *key,
                            bool required, char *out, size_t capacity) {
    const ht_json_place here = {up, key, 0};
    const json_t *value = json_object_get(object, key);
    *out = 0;
    if (!value && !required)
        return HT_OK;
    if (!json_is_string(value) || (required && json_string_length(value) == 0))
        return ht_json_bad(s, &here, value ? "must be a text" : "is missing");
    if (json_string_length(value) >= capacity)
        return ht_json_bad(s, &here, "is longer than %zu bytes", capacity - 1);
    memcpy(out, json_string_value(value), json_string_length(value) + 1);
    return HT_OK;
}

ht_status ht_json_read_number(const ht_json_source *s, const json_t *object, const ht_json_place *up, const char *key,
                              double least, double most, double *out) {
    const ht_json_place here = {up, key, 0};
    const json_t *value = json_object_get(object, key);
    if (!json_is_number(value))
        return ht_json_bad(s, &here, value ? "must be a number" : "is missing");
    const double number = json_number_value(value);
    if (!(number >= least && number <= most))
        return ht_json_bad(s, &here, "%.9g is not from %.9g to %.9g", number, least, most);
    *out = number;
    return HT_OK;
}

/* "low" and "high", both or none, around the value. */
static ht_status read_range(const ht_json_source *s, const json_t *figure, const ht_json_place *here, double least,
                            double most, ht_json_figure *out) {
    const ht_json_place at_low = {here, "low", 0}, at_high = {here, "high", 0};
    out->low = out->high = out->value;
    if (!json_object_get(figure, "low") && !json_object_get(figure, "high"))
        return HT_OK;
    ht_status status = ht_json_read_number(s, figure, here, "low", least, most, &out->low);
    if (!status)
        status = ht_json_read_number(s, figure, here, "high", least, most, &out->high);
    if (!status && out->low > out->value)
        status = ht_json_bad(s, &at_low, "%.9g is above the value, %.9g", out->low, out->value);
    if (!status && out->high < out->value)
        status = ht_json_bad(s, &at_high, "%.9g is below the value, %.9g", out->high, out->value);
    return status;
}

ht_status ht_json_read_figure(const ht_json_source *s, const json_t *figure, const ht_json_place *here, double least,
                              double most, ht_json_figure *out) {
    static const char *const keys[] = {"value", "source", "fit", "low", "high"};
    const char *key;
    json_t *one;
    if (!json_is_object(figure))
        return ht_json_bad(s, here, "must be {\"value\": number, \"source\": text}");
    json_object_foreach((json_t *)figure, key, one) {
        const ht_json_place inner = {here, key, 0};
        bool known = false;
        for (size_t i = 0; i < HT_COUNT(keys); i++)
            known |= !strcmp(key, keys[i]);
        if (!known)
            return ht_json_bad(s, &inner, "unknown key; a figure has \"value\" and \"source\"");
    }
    const json_t *source = json_object_get(figure, "source"), *fit = json_object_get(figure, "fit");
    const ht_json_place at_source = {here, "source", 0}, at_fit = {here, "fit", 0};
    *out = (ht_json_figure){.fitted = json_is_true(fit)};
    if (json_object_get(figure, "value") && !source)
        return ht_json_bad(s, &at_source, "is missing");
    ht_status status = ht_json_read_number(s, figure, here, "value", least, most, &out->value);
    if (status)
        return status;
    if (!json_is_string(source) || !json_string_length(source))
        return ht_json_bad(s, &at_source, "must say where the figure is from, or \"estimated\"");
    if (fit && !json_is_boolean(fit))
        return ht_json_bad(s, &at_fit, "must be true or false");
    out->source = json_string_value(source);
    return read_range(s, figure, here, least, most, out);
}
