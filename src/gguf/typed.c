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

typedef struct number {     /* one item of any numeric kind */
    bool is_float, too_big; /* too_big: an unsigned number past INT64_MAX */
    int64_t i;
    double f;
} number;

#define LOAD(type, address, index) \
    type value;                    \
    memcpy(&value, (address) + (index) * sizeof value, sizeof value)

static number load(ht_gguf_kind kind, const uint8_t *data, uint64_t index) {
    switch (kind) {
    case HT_GGUF_U8:
    case HT_GGUF_BOOL:
        return (number){.i = data[index]};
    case HT_GGUF_I8:
        return (number){.i = (int8_t)data[index]};
    case HT_GGUF_U16: {
        LOAD(uint16_t, data, index);
        return (number){.i = value};
    }
    case HT_GGUF_I16: {
        LOAD(int16_t, data, index);
        return (number){.i = value};
    }
    case HT_GGUF_U32: {
        LOAD(uint32_t, data, index);
        return (number){.i = value};
    }
    case HT_GGUF_I32: {
        LOAD(int32_t, data, index);
        return (number){.i = value};
    }
    case HT_GGUF_I64: {
        LOAD(int64_t, data, index);
        return (number){.i = value};
    }
    case HT_GGUF_F32: {
        LOAD(float, data, index);
        return (number){.is_float = true, .f = (double)value};
    }
    case HT_GGUF_F64: {
        LOAD(double, data, index);
        return (number){.is_float = true, .f = value};
    }
    case HT_GGUF_U64: {
        LOAD(uint64_t, data, index);
        bool big = value > INT64_MAX;
        return (number){.too_big = big, .i = big ? INT64_MAX : (int64_t)value, .f = (double)value};
    }
    default:
        return (number){0};
    }
}

static number load_item(const ht_gguf_value *value, uint64_t index) {
    return load(value->kind == HT_GGUF_ARRAY ? value->item_kind : value->kind, value->data, index);
}

double ht_gguf_item(const ht_gguf_value *value, uint64_t index) {
    number n = load_item(value, index);
    return n.is_float || n.too_big ? n.f : (double)n.i;
}

int64_t ht_gguf_item_int(const ht_gguf_value *value, uint64_t index) {
    number n = load_item(value, index);
    if (!n.is_float)
        return n.i;
    /* Saturates, as a conversion out of range is undefined in C. */
    if (!(n.f > -0x1p63))
        return n.f <= -0x1p63 ? INT64_MIN : 0;
    return n.f < 0x1p63 ? (int64_t)n.f : INT64_MAX;
}

/* Some converters write a number for each layer. Where they are all alike, that is one number: *out. */
static ht_status load_one(const ht_gguf *file, const ht_gguf_value *value, const char *key, number *out,
                          ht_error *error) {
    *out = load_item(value, 0);
    for (uint64_t i = 1; value->kind == HT_GGUF_ARRAY && i < value->count; i++) {
        const number other = load_item(value, i);
        if (other.i != out->i || other.f != out->f || other.too_big != out->too_big)
            return ht_fail(error, HT_ERROR_UNSUPPORTED,
                           "%s: key \"%s\" differs between layers (item 0 is %g, item %llu is %g): not supported",
                           ht_gguf_path(file), key, out->is_float ? out->f : (double)out->i, (unsigned long long)i,
                           other.is_float ? other.f : (double)other.i);
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

ht_status ht_gguf_int(const ht_gguf *file, const char *key, bool required, int64_t min, int64_t max, int64_t *out,
                      ht_error *error) {
    const ht_gguf_value *value;
    ht_status status = find(file, key, required, &value, error);
    if (status || !value)
        return status;
    if (!is_integer(number_kind(value)))
        return wrong_kind(file, value, key, "an integer", error);
    number n;
    status = load_one(file, value, key, &n, error);
    if (status)
        return status;
    if (n.too_big || n.i < min || n.i > max) {
        return ht_fail(error, HT_ERROR_FORMAT, "%s: key \"%s\" is %s%lld, which is not in %lld..%lld",
                       ht_gguf_path(file), key, n.too_big ? "more than " : "", (long long)n.i, (long long)min,
                       (long long)max);
    }
    *out = n.i;
    return HT_OK;
}

ht_status ht_gguf_float(const ht_gguf *file, const char *key, bool required, float *out, ht_error *error) {
    const ht_gguf_value *value;
    ht_status status = find(file, key, required, &value, error);
    if (status || !value)
        return status;
    const ht_gguf_kind kind = number_kind(value);
    if (kind != HT_GGUF_F32 && kind != HT_GGUF_F64 && !is_integer(kind))
        return wrong_kind(file, value, key, "a float", error);
    number n;
    status = load_one(file, value, key, &n, error);
    if (status)
        return status;
    double f = n.is_float || n.too_big ? n.f : (double)n.i;
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
