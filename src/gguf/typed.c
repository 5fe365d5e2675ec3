/* Values of a file as C types, with the errors that name file and key. */
#include "gguf/gguf.h"

#include <math.h>
#include <string.h>

static const char *kind_name(const ht_gguf_value *value) {
    switch (value->kind) {
    case HT_GGUF_STRING:
        return "a string";
    case HT_GGUF_ARRAY:
        return "an array";
    case HT_GGUF_BOOL:
        return "a bool";
    case HT_GGUF_F32:
    case HT_GGUF_F64:
        return "a float";
    default:
        return "an integer";
    }
}

/* *value NULL and HT_OK: absent, and that is allowed. */
static ht_status find(const ht_gguf *file, const char *key, bool required, const ht_gguf_value **value,
                      ht_error *error) {
    *value = ht_gguf_find(file, key);
    if (*value || !required)
        return HT_OK;
    return ht_fail(error, HT_ERROR_FORMAT, "%s: key \"%s\" is missing", ht_gguf_path(file), key);
}

static ht_status wrong_kind(const ht_gguf *file, const ht_gguf_value *value, const char *key, const char *wanted,
                            ht_error *error) {
    return ht_fail(error, HT_ERROR_FORMAT, "%s: key \"%s\" is %s, not %s", ht_gguf_path(file), key, kind_name(value),
                   wanted);
}

/* Some converters write a number for each layer: right if they are all alike. */
static ht_status check_alike(const ht_gguf *file, const ht_gguf_value *value, const char *key, ht_error *error) {
    for (uint64_t i = 1; value->kind == HT_GGUF_ARRAY && i < value->count; i++) {
        if (ht_gguf_item_int(value, i) == ht_gguf_item_int(value, 0) &&
            ht_gguf_item(value, i) == ht_gguf_item(value, 0))
            continue;
        return ht_fail(error, HT_ERROR_UNSUPPORTED,
                       "%s: key \"%s\" differs between layers (item 0 is %g, item %llu is %g): not supported",
                       ht_gguf_path(file), key, ht_gguf_item(value, 0), (unsigned long long)i, ht_gguf_item(value, i));
    }
    return HT_OK;
}

/* Kind of a scalar or of a whole array; BOOL, which no number may be, for an array of nothing. */
static ht_gguf_kind number_kind(const ht_gguf_value *value) {
    if (value->kind != HT_GGUF_ARRAY)
        return value->kind;
    return value->count ? value->item_kind : HT_GGUF_BOOL;
}

static bool is_integer(ht_gguf_kind kind) {
    return kind <= HT_GGUF_I32 || kind == HT_GGUF_U64 || kind == HT_GGUF_I64;
}

/* Item `index` of a value of integers, within bounds. */
static ht_status bounded(const ht_gguf *file, const ht_gguf_value *value, const char *key, uint64_t index, int64_t min,
                         int64_t max, int64_t *out, ht_error *error) {
    const bool too_big = number_kind(value) == HT_GGUF_U64 && value->data[index * 8 + 7] >> 7; /* past INT64_MAX */
    const int64_t number = ht_gguf_item_int(value, index);
    if (too_big || number < min || number > max) {
        return ht_fail(error, HT_ERROR_FORMAT, "%s: key \"%s\" is %s%lld, which is not in %lld..%lld",
                       ht_gguf_path(file), key, too_big ? "more than " : "", (long long)number, (long long)min,
                       (long long)max);
    }
    *out = number;
    return HT_OK;
}

ht_status ht_gguf_int(const ht_gguf *file, const char *key, bool required, int64_t min, int64_t max, int64_t *out,
                      ht_error *error) {
    const ht_gguf_value *value;
    ht_status status = find(file, key, required, &value, error);
    if (status || !value)
        return status;
    if (!is_integer(number_kind(value)))
        return wrong_kind(file, value, key, "an integer", error);
    status = check_alike(file, value, key, error);
    return status ? status : bounded(file, value, key, 0, min, max, out, error);
}

ht_status ht_gguf_int_at(const ht_gguf *file, const char *key, uint64_t index, int64_t min, int64_t max, int64_t *out,
                         ht_error *error) {
    const ht_gguf_value *value = ht_gguf_find(file, key);
    if (!value)
        return HT_OK;
    const bool array = value->kind == HT_GGUF_ARRAY, flags = array && value->item_kind == HT_GGUF_BOOL;
    if (!flags && !is_integer(number_kind(value)))
        return wrong_kind(file, value, key, "an integer", error);
    if (array && index >= value->count)
        return ht_fail(error, HT_ERROR_FORMAT, "%s: key \"%s\" has %llu items, and none of number %llu",
                       ht_gguf_path(file), key, (unsigned long long)value->count, (unsigned long long)index);
    return bounded(file, value, key, array ? index : 0, min, max, out, error);
}

ht_status ht_gguf_float(const ht_gguf *file, const char *key, bool required, float *out, ht_error *error) {
    const ht_gguf_value *value;
    ht_status status = find(file, key, required, &value, error);
    if (status || !value)
        return status;
    const ht_gguf_kind kind = number_kind(value);
    if (kind != HT_GGUF_F32 && kind != HT_GGUF_F64 && !is_integer(kind))
        return wrong_kind(file, value, key, "a float", error);
    status = check_alike(file, value, key, error);
    if (status)
        return status;
    const double f = ht_gguf_item(value, 0);
    if (!(fabs(f) <= 0x1.fffffep127)) {
        return ht_fail(error, HT_ERROR_FORMAT, "%s: key \"%s\" is not a finite float32", ht_gguf_path(file), key);
    }
    *out = (float)f;
    return HT_OK;
}

ht_status ht_gguf_bool(const ht_gguf *file, const char *key, bool required, bool *out, ht_error *error) {
    const ht_gguf_value *value;
    ht_status status = find(file, key, required, &value, error);
    if (status || !value)
        return status;
    if (value->kind != HT_GGUF_BOOL)
        return wrong_kind(file, value, key, "a bool", error);
    if (value->data[0] > 1) {
        return ht_fail(error, HT_ERROR_FORMAT, "%s: key \"%s\" is a bool of value %d", ht_gguf_path(file), key,
                       value->data[0]);
    }
    *out = value->data[0];
    return HT_OK;
}

ht_status ht_gguf_string(const ht_gguf *file, const char *key, bool required, ht_string *out, ht_error *error) {
    const ht_gguf_value *value;
    ht_status status = find(file, key, required, &value, error);
    if (status || !value)
        return status;
    if (value->kind != HT_GGUF_STRING)
        return wrong_kind(file, value, key, "a string", error);
    uint64_t bytes; /* the reader has checked that they are there */
    memcpy(&bytes, value->data, sizeof bytes);
    *out = (ht_string){(const char *)value->data + sizeof bytes, (size_t)bytes};
    return HT_OK;
}
