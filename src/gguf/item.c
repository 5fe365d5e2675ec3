/* Numbers of any kind that a file has, converted. */
#include "gguf/gguf.h"

#include <string.h>

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
