/* Values: made, compared, gone through. */
#include "text/template/value.h"

#include "text/template/characters.h"

#include <math.h>
#include <string.h>

tpl_value tpl_fail(tpl_run *run, ht_status status, const char *format, ...) {
    if (run->status == HT_OK) {
        char text[384];
        va_list list;
        va_start(list, format);
        vsnprintf(text, sizeof text, format, list);
        va_end(list);
        run->status = ht_fail(run->error, status, "chat template: line %u: %s", run->line, text);
    }
    return tpl_undefined(NULL);
}

bool tpl_step(tpl_run *run, size_t steps) {
    run->steps += steps;
    if (run->status == HT_OK && run->steps > run->most_steps)
        tpl_fail(run, HT_ERROR_UNSUPPORTED, "takes more than %llu steps", (unsigned long long)run->most_steps);
    return run->status == HT_OK;
}

void *tpl_alloc(tpl_run *run, size_t n, size_t size) {
    if (run->status != HT_OK)
        return NULL;
    if (n > (TPL_MOST_MEMORY - run->memory) / size) {
        tpl_fail(run, HT_ERROR_UNSUPPORTED, "takes more than %u MiB of memory", TPL_MOST_MEMORY >> 20);
        return NULL;
    }
    run->memory += n * size;
    void *memory = ht_arena_alloc(&run->arena, ht_max_size(n * size, 1));
    if (!memory)
        tpl_fail(run, HT_ERROR_MEMORY, "no memory for %zu bytes", n * size);
    return memory;
}

tpl_value tpl_undefined(const char *name) {
    return (tpl_value){.kind = TPL_UNDEFINED, .as.name = name};
}

tpl_value tpl_none(void) {
    return (tpl_value){.kind = TPL_NONE};
}

tpl_value tpl_bool(bool truth) {
    return (tpl_value){.kind = TPL_BOOL, .as.truth = truth};
}

tpl_value tpl_int(int64_t integer) {
    return (tpl_value){.kind = TPL_INT, .as.integer = integer};
}

tpl_value tpl_float(double real) {
    return (tpl_value){.kind = TPL_FLOAT, .as.real = real};
}

static tpl_value new_string(tpl_run *run, tpl_string of) {
    tpl_string *string = tpl_alloc(run, 1, sizeof *string);
    if (!string)
        return tpl_undefined(NULL);
    *string = of;
    return (tpl_value){.kind = TPL_STRING, .as.string = string};
}

tpl_value tpl_own_text(tpl_run *run, const char *text, size_t bytes) {
    return new_string(run, (tpl_string){.data = text, .bytes = bytes});
}

tpl_value tpl_slice(tpl_run *run, const tpl_string *of, size_t from, size_t to) {
    return new_string(run, (tpl_string){.data = of->data + from,
                                        .marks = of->marks ? of->marks + from : NULL,
                                        .bytes = to - from,
                                        .marked = of->marked,
                                        .safe = of->safe});
}

bool tpl_marked(const tpl_string *string, size_t at) {
    return string->marks && at < string->bytes ? string->marks[at] != 0 : string->marked;
}

/* ---- texts that grow ---- */

static bool reserve(tpl_run *run, tpl_buffer *out, size_t bytes) {
    if (run->status != HT_OK)
        return false;
    if (bytes > TPL_MOST_TEXT - out->bytes) {
        tpl_fail(run, HT_ERROR_UNSUPPORTED, "makes a text of more than %u MiB", TPL_MOST_TEXT >> 20);
        return false;
    }
    if (out->bytes + bytes <= out->capacity)
        return true;
    const size_t capacity = ht_max_size(64, ht_max_size(out->bytes + bytes, out->capacity * 2));
    char *data = tpl_alloc(run, capacity, 2);
    if (!data)
        return false;
    uint8_t *marks = (uint8_t *)data + capacity;
    if (out->bytes) {
        memcpy(data, out->data, out->bytes);
        memcpy(marks, out->marks, out->bytes);
    }
    out->data = data;
    out->marks = marks;
    out->capacity = capacity;
    return true;
}

void tpl_put(tpl_run *run, tpl_buffer *out, const char *text, size_t bytes, bool marked) {
    if (!bytes || !reserve(run, out, bytes))
        return;
    memcpy(out->data + out->bytes, text, bytes);
    memset(out->marks + out->bytes, marked, bytes);
    out->bytes += bytes;
}

void tpl_put_string(tpl_run *run, tpl_buffer *out, const tpl_string *string, size_t from, size_t to) {
    if (from >= to || !reserve(run, out, to - from))
        return;
    memcpy(out->data + out->bytes, string->data + from, to - from);
    if (string->marks)
        memcpy(out->marks + out->bytes, string->marks + from, to - from);
    else
        memset(out->marks + out->bytes, string->marked, to - from);
    out->bytes += to - from;
}

void tpl_put_character(tpl_run *run, tpl_buffer *out, int32_t c, bool marked) {
    char text[4];
    tpl_put(run, out, text, tpl_write_character(text, c), marked);
}

tpl_value tpl_finish(tpl_run *run, const tpl_buffer *out) {
    return new_string(run, (tpl_string){.data = out->bytes ? out->data : "",
                                        .marks = out->bytes ? out->marks : NULL,
                                        .bytes = out->bytes});
}

tpl_value tpl_finish_safe(tpl_run *run, const tpl_buffer *out) {
    return new_string(run, (tpl_string){.data = out->bytes ? out->data : "",
                                        .marks = out->bytes ? out->marks : NULL,
                                        .bytes = out->bytes,
                                        .safe = true});
}

/* ---- lists and dictionaries ---- */

static bool grow(tpl_run *run, void **array, size_t *capacity, size_t n, size_t size) {
    if (run->status != HT_OK)
        return false;
    if (n < *capacity)
        return true;
    const size_t more = ht_max_size(4, *capacity * 2);
    void *grown = tpl_alloc(run, more, size);
    if (!grown)
        return false;
    if (n)
        memcpy(grown, *array, n * size);
    *array = grown;
    *capacity = more;
    return true;
}

tpl_value tpl_new_list(tpl_run *run, tpl_kind kind) {
    tpl_list *list = tpl_alloc(run, 1, sizeof *list);
    return list ? (tpl_value){.kind = kind, .as.list = list} : tpl_undefined(NULL);
}

void tpl_append(tpl_run *run, tpl_value list, tpl_value item) {
    if (tpl_step(run, 1) &&
        grow(run, (void **)&list.as.list->at, &list.as.list->capacity, list.as.list->n, sizeof item))
        list.as.list->at[list.as.list->n++] = item;
}

tpl_value tpl_pair_of(tpl_run *run, tpl_value a, tpl_value b) {
    tpl_value pair = tpl_new_list(run, TPL_TUPLE);
    tpl_append(run, pair, a);
    tpl_append(run, pair, b);
    return pair;
}

tpl_value tpl_new_dict(tpl_run *run, tpl_kind kind) {
    tpl_dict *dict = tpl_alloc(run, 1, sizeof *dict);
    return dict ? (tpl_value){.kind = kind, .as.dict = dict} : tpl_undefined(NULL);
}

tpl_value *tpl_dict_get(tpl_run *run, const tpl_dict *dict, tpl_value key) {
    for (size_t i = 0; i < dict->n && tpl_step(run, 1); i++)
        if (tpl_equal(run, dict->at[i].key, key))
            return &dict->at[i].value;
    return NULL;
}

tpl_value *tpl_dict_named(tpl_run *run, const tpl_dict *dict, const char *name) {
    const size_t bytes = strlen(name);
    for (size_t i = 0; i < dict->n && tpl_step(run, 1); i++) {
        const tpl_value key = dict->at[i].key;
        if (key.kind == TPL_STRING && key.as.string->bytes == bytes && memcmp(key.as.string->data, name, bytes) == 0)
            return &dict->at[i].value;
    }
    return NULL;
}

static void add_pair(tpl_run *run, tpl_dict *dict, tpl_value key, tpl_value value) {
    if (tpl_step(run, 1) && grow(run, (void **)&dict->at, &dict->capacity, dict->n, sizeof *dict->at))
        dict->at[dict->n++] = (tpl_pair){key, value};
}

void tpl_dict_set(tpl_run *run, tpl_dict *dict, tpl_value key, tpl_value value) {
    if (run->status != HT_OK)
        return;
    if (key.kind == TPL_LIST || key.kind == TPL_DICT) {
        tpl_fail(run, HT_ERROR_FORMAT, "a %s cannot be a key", tpl_kind_name(key));
        return;
    }
    tpl_value *there = tpl_dict_get(run, dict, key);
    if (there)
        *there = value;
    else
        add_pair(run, dict, key, value);
}

/* ---- what holds of values ---- */

const char *tpl_kind_name(tpl_value value) {
    static const char *const names[] = {"undefined", "None", "bool",  "int",      "float",
                                        "string",    "list", "tuple", "iterator", "dictionary",
                                        "namespace", "loop", "macro", "function", "method"};
    return names[value.kind];
}

bool tpl_is_list(tpl_value value) {
    return value.kind == TPL_LIST || value.kind == TPL_TUPLE;
}

bool tpl_is_number(tpl_value value) {
    return value.kind == TPL_BOOL || value.kind == TPL_INT || value.kind == TPL_FLOAT;
}

double tpl_real(tpl_value value) {
    return value.kind == TPL_FLOAT ? value.as.real
           : value.kind == TPL_INT ? (double)value.as.integer
                                   : (double)value.as.truth;
}

bool tpl_true(tpl_value value) {
    switch (value.kind) {
    case TPL_UNDEFINED:
    case TPL_NONE:
        return false;
    case TPL_BOOL:
    case TPL_INT:
    case TPL_FLOAT:
        return tpl_real(value) != 0;
    case TPL_STRING:
        return value.as.string->bytes != 0;
    case TPL_LIST:
    case TPL_TUPLE:
        return value.as.list->n != 0;
    case TPL_DICT:
        return value.as.dict->n != 0;
    default:
        return true;
    }
}

static bool equal_lists(tpl_run *run, const tpl_list *a, const tpl_list *b) {
    bool equal = a->n == b->n;
    for (size_t i = 0; equal && i < a->n; i++)
        equal = tpl_equal(run, a->at[i], b->at[i]);
    return equal;
}

static bool equal_dicts(tpl_run *run, const tpl_dict *a, const tpl_dict *b) {
    bool equal = a->n == b->n;
    for (size_t i = 0; equal && i < a->n; i++) {
        const tpl_value *other = tpl_dict_get(run, b, a->at[i].key);
        equal = other && tpl_equal(run, a->at[i].value, *other);
    }
    return equal;
}

bool tpl_equal(tpl_run *run, tpl_value a, tpl_value b) {
    if (!tpl_step(run, 1))
        return false;
    if (tpl_is_number(a) && tpl_is_number(b))
        return a.kind == TPL_FLOAT || b.kind == TPL_FLOAT
                   ? tpl_real(a) == tpl_real(b)
                   : (a.kind == TPL_INT ? a.as.integer : a.as.truth) == (b.kind == TPL_INT ? b.as.integer : b.as.truth);
    if (a.kind != b.kind)
        return false;
    switch (a.kind) {
    case TPL_UNDEFINED:
    case TPL_NONE:
        return true;
    case TPL_STRING:
        return a.as.string->bytes == b.as.string->bytes && tpl_step(run, a.as.string->bytes / 64) &&
               (!a.as.string->bytes || memcmp(a.as.string->data, b.as.string->data, a.as.string->bytes) == 0);
    case TPL_LIST:
    case TPL_TUPLE:
    case TPL_DICT: {
        if (++run->depth > TPL_MOST_DEPTH)
            tpl_fail(run, HT_ERROR_UNSUPPORTED, "more than %d levels deep", TPL_MOST_DEPTH);
        const bool equal = run->status == HT_OK && (a.kind == TPL_DICT ? equal_dicts(run, a.as.dict, b.as.dict)
                                                                       : equal_lists(run, a.as.list, b.as.list));
        run->depth--;
        return equal;
    }
    default:
        return a.as.list == b.as.list; /* all others are pointers */
    }
}

int tpl_order(tpl_run *run, tpl_value a, tpl_value b) {
    if (!tpl_step(run, 1))
        return 0;
    if (a.kind == TPL_INT && b.kind == TPL_INT)
        return (a.as.integer > b.as.integer) - (a.as.integer < b.as.integer);
    if (tpl_is_number(a) && tpl_is_number(b))
        return (tpl_real(a) > tpl_real(b)) - (tpl_real(a) < tpl_real(b));
    if (a.kind == TPL_STRING && b.kind == TPL_STRING) {
        const size_t n = ht_min_size(a.as.string->bytes, b.as.string->bytes);
        const int order = n && tpl_step(run, n / 64) ? memcmp(a.as.string->data, b.as.string->data, n) : 0;
        return order ? order : (a.as.string->bytes > b.as.string->bytes) - (a.as.string->bytes < b.as.string->bytes);
    }
    if (tpl_is_list(a) && a.kind == b.kind) {
        for (size_t i = 0; i < a.as.list->n && i < b.as.list->n && run->depth < TPL_MOST_DEPTH; i++) {
            run->depth++;
            const bool equal = tpl_equal(run, a.as.list->at[i], b.as.list->at[i]);
            const int order = equal ? 0 : tpl_order(run, a.as.list->at[i], b.as.list->at[i]);
            run->depth--;
            if (!equal)
                return order;
        }
        return (a.as.list->n > b.as.list->n) - (a.as.list->n < b.as.list->n);
    }
    tpl_fail(run, HT_ERROR_FORMAT, "%s and %s have no order", tpl_kind_name(a), tpl_kind_name(b));
    return 0;
}

bool tpl_contains(tpl_run *run, tpl_value whole, tpl_value part) {
    if (run->status != HT_OK)
        return false;
    switch (whole.kind) {
    case TPL_STRING:
        if (part.kind != TPL_STRING) {
            tpl_fail(run, HT_ERROR_FORMAT, "'in' looks for a string in a string, not for %s", tpl_kind_name(part));
            return false;
        }
        return !part.as.string->bytes || (tpl_step(run, whole.as.string->bytes / 16) &&
                                          ht_find_bytes(whole.as.string->data, whole.as.string->bytes,
                                                        part.as.string->data, part.as.string->bytes));
    case TPL_DICT:
        if (part.kind == TPL_LIST || part.kind == TPL_DICT)
            tpl_fail(run, HT_ERROR_FORMAT, "a %s cannot be a key", tpl_kind_name(part));
        return tpl_dict_get(run, whole.as.dict, part) != NULL;
    default: {
        const tpl_list *items = tpl_items(run, whole);
        for (size_t i = 0; items && i < items->n; i++)
            if (tpl_equal(run, items->at[i], part))
                return true;
        return false;
    }
    }
}

const tpl_list *tpl_items(tpl_run *run, tpl_value value) {
    if (run->status != HT_OK)
        return NULL;
    if (tpl_is_list(value))
        return value.as.list;
    const tpl_value list = tpl_new_list(run, TPL_LIST);
    if (list.kind == TPL_UNDEFINED)
        return NULL;
    switch (value.kind) {
    case TPL_UNDEFINED:
        break;
    case TPL_ITERATOR:
        *list.as.list = *value.as.list;
        *value.as.list = (tpl_list){0};
        break;
    case TPL_DICT:
        for (size_t i = 0; i < value.as.dict->n; i++)
            tpl_append(run, list, value.as.dict->at[i].key);
        break;
    case TPL_STRING:
        for (size_t at = 0, used; at < value.as.string->bytes && run->status == HT_OK; at += used) {
            (void)ht_utf8_next(value.as.string->data + at, value.as.string->bytes - at, &used);
            tpl_append(run, list, tpl_slice(run, value.as.string, at, at + used));
        }
        break;
    default:
        tpl_fail(run, HT_ERROR_FORMAT, "%s cannot be gone through", tpl_kind_name(value));
    }
    return run->status == HT_OK ? list.as.list : NULL;
}

size_t tpl_length(tpl_run *run, tpl_value value) {
    switch (value.kind) {
    case TPL_UNDEFINED:
        return 0;
    case TPL_STRING:
        tpl_step(run, value.as.string->bytes / 16);
        return tpl_count_characters(value.as.string->data, value.as.string->bytes);
    case TPL_LIST:
    case TPL_TUPLE:
        return value.as.list->n;
    case TPL_DICT:
        return value.as.dict->n;
    default:
        tpl_fail(run, HT_ERROR_FORMAT, "%s has no length", tpl_kind_name(value));
        return 0;
    }
}

/* ---- JSON ---- */

static tpl_value string_from_json(tpl_run *run, const char *text, size_t bytes, bool marked) {
    return new_string(run, (tpl_string){.data = text, .bytes = bytes, .marked = marked});
}

tpl_value tpl_from_json(tpl_run *run, const json_t *tree, bool marked, unsigned depth) {
    if (depth > TPL_MOST_DEPTH / 2)
        return tpl_fail(run, HT_ERROR_UNSUPPORTED, "a variable is more than %d levels deep", TPL_MOST_DEPTH / 2);
    if (!tpl_step(run, 1))
        return tpl_undefined(NULL);
    switch (json_typeof(tree)) {
    case JSON_STRING:
        return string_from_json(run, json_string_value(tree), json_string_length(tree), marked);
    case JSON_INTEGER:
        return tpl_int(json_integer_value(tree));
    case JSON_REAL:
        return tpl_float(json_real_value(tree));
    case JSON_TRUE:
    case JSON_FALSE:
        return tpl_bool(json_is_true(tree));
    case JSON_ARRAY: {
        const tpl_value list = tpl_new_list(run, TPL_LIST);
        for (size_t i = 0; i < json_array_size(tree) && run->status == HT_OK; i++)
            tpl_append(run, list, tpl_from_json(run, json_array_get(tree, i), marked, depth + 1));
        return list;
    }
    case JSON_OBJECT: {
        const tpl_value dict = tpl_new_dict(run, TPL_DICT);
        const char *key;
        json_t *member;
        json_object_foreach((json_t *)tree, key, member) {
            if (run->status != HT_OK)
                break;
            const tpl_value name = string_from_json(run, key, strlen(key), marked);
            add_pair(run, dict.as.dict, name, tpl_from_json(run, member, marked, depth + 1));
        }
        return dict;
    }
    default:
        return tpl_none();
    }
}

/* ---- arguments ---- */

static const tpl_value *find_argument(const tpl_arguments *given, size_t at, const char *name) {
    if (at < given->positional)
        return &given->at[at];
    for (size_t i = given->positional; i < given->n && name; i++)
        if (strcmp(given->name[i], name) == 0)
            return &given->at[i];
    return NULL;
}

tpl_value tpl_argument(const tpl_arguments *given, size_t at, const char *name, tpl_value otherwise) {
    const tpl_value *found = find_argument(given, at, name);
    return found ? *found : otherwise;
}

bool tpl_has_argument(const tpl_arguments *given, size_t at, const char *name) {
    return find_argument(given, at, name) != NULL;
}
