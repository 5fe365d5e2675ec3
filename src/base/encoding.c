/* UTF-8, fp16 as bits, hashes; and what C lacks: a search among bytes, a sort of numbers. */
#include "base/base.h"

#include <stdlib.h>
#include <string.h>

/* ---- UTF-8 (RFC 3629: no overlong forms, no surrogates, nothing past U+10FFFF) ---- */

/* Bytes of the character that `lead` begins, and the range its second byte must lie in; 0: not a lead byte. */
static size_t utf8_lead(uint8_t lead, uint8_t *low, uint8_t *high) {
    *low = 0x80;
    *high = 0xbf;
    if (lead < 0x80)
        return 1;
    if (lead < 0xc2)
        return 0;
    if (lead < 0xe0)
        return 2;
    if (lead < 0xf0) {
        if (lead == 0xe0)
            *low = 0xa0;
        if (lead == 0xed)
            *high = 0x9f;
        return 3;
    }
    if (lead > 0xf4)
        return 0;
    if (lead == 0xf0)
        *low = 0x90;
    if (lead == 0xf4)
        *high = 0x8f;
    return 4;
}

/* How many of the first `bytes` bytes can belong to the character that begins at text; *whole: it is all there. */
static size_t utf8_span(const uint8_t *text, size_t bytes, bool *whole) {
    uint8_t low, high;
    size_t need = utf8_lead(text[0], &low, &high), have = 1;
    while (have < need && have < bytes && text[have] >= low && text[have] <= high) {
        have++;
        low = 0x80;
        high = 0xbf;
    }
    *whole = need && have == need;
    return need ? have : 0;
}

size_t ht_utf8_whole(const char *text, size_t bytes) {
    const uint8_t *data = (const uint8_t *)text;
    /* Only the last three bytes can begin a character that is cut off, and only if nothing wrong follows its lead. */
    for (size_t back = 1; back <= 3 && back <= bytes; back++) {
        uint8_t byte = data[bytes - back];
        if ((byte & 0xc0) == 0x80)
            continue;
        bool whole;
        size_t span = utf8_span(data + bytes - back, back, &whole);
        return !whole && span == back ? bytes - back : bytes;
    }
    return bytes;
}

int32_t ht_utf8_next(const char *text, size_t bytes, size_t *used) {
    const uint8_t *data = (const uint8_t *)text;
    bool whole;
    size_t span = utf8_span(data, bytes, &whole);
    *used = whole ? span : 1;
    if (!whole)
        return -1;
    if (span == 1)
        return data[0];
    int32_t c = data[0] & (0x7f >> span);
    for (size_t i = 1; i < span; i++)
        c = c << 6 | (data[i] & 0x3f);
    return c;
}

/* ---- fp16 ---- */

static float float_of(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static uint32_t bits_of(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

float ht_f16_to_f32(uint16_t h) {
    uint32_t exponent = h & 0x7c00u, magnitude = (uint32_t)(h & 0x7fffu) << 13;
    float f;
    if (exponent == 0x7c00u)
        f = float_of(magnitude + (224u << 23)); /* infinity, NaN */
    else if (exponent)
        f = float_of(magnitude + (112u << 23));
    else
        f = float_of(magnitude + (113u << 23)) - 0x1p-14f; /* subnormal: never a float32 subnormal on the way */
    return float_of(bits_of(f) | (uint32_t)(h & 0x8000u) << 16);
}

uint16_t ht_f32_to_f16(float f) {
    uint32_t bits = bits_of(f), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    uint32_t half;
    if (magnitude > 0x7f800000u) {
        half = 0x7e00u | (magnitude >> 13 & 0x3ffu); /* NaN: made quiet, payload kept */
    } else if (magnitude >= 0x477ff000u) {
        half = 0x7c00u; /* 65520 and more round to infinity */
    } else if (magnitude >= 0x38800000u) {
        uint32_t odd = magnitude >> 13 & 1;
        half = (magnitude - (112u << 23) + 0xfffu + odd) >> 13;
    } else {
        /* Subnormal: adding 2^-1 puts the unit of fp16's last place, 2^-24, at float32's last place, and the addition
         * rounds to nearest even. */
        half = bits_of(float_of(magnitude) + 0.5f) - bits_of(0.5f);
    }
    return (uint16_t)(sign | half);
}

uint64_t ht_hash(uint64_t hash, const void *data, size_t bytes) {
    const uint8_t *at = data;
    for (; bytes > 0;) {
        uint64_t word = 0;
        const size_t n = ht_min_size(bytes, sizeof word);
        memcpy(&word, at, n);
        hash = (hash ^ word ^ (uint64_t)n << 61) * UINT64_C(0x9e3779b97f4a7c15);
        hash ^= hash >> 29;
        at += n, bytes -= n;
    }
    return hash;
}

/* Folded 64x64-bit products, as in wyhash (Wang Yi): the seed is a factor of each, so that no word of
 * the text can make one 0, and without it a collision cannot be aimed for. */
uint64_t ht_hash_seeded(uint64_t seed, const void *data, size_t bytes) {
    const uint8_t *at = data;
    uint64_t h = seed ^ bytes;
    for (size_t i = 0; i < bytes; i += 8) {
        uint64_t word = 0;
        memcpy(&word, at + i, ht_min_size(8, bytes - i));
        unsigned __int128 product = (unsigned __int128)(h ^ word) * (seed | 1);
        h = (uint64_t)product ^ (uint64_t)(product >> 64) ^ 0x9e3779b97f4a7c15u;
    }
    return h ^ h >> 32;
}

/* ---- searching and sorting ---- */

const char *ht_find_bytes(const char *data, size_t bytes, const char *what, size_t n) {
    if (n == 0)
        return data;
    for (const char *at = data; bytes >= n; at++) {
        const char *found = memchr(at, what[0], bytes - n + 1);
        if (!found)
            return NULL;
        if (memcmp(found, what, n) == 0)
            return found;
        bytes -= (size_t)(found - at) + 1;
        at = found;
    }
    return NULL;
}

static int compare_doubles(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void ht_sort_doubles(double *values, size_t n) {
    qsort(values, n, sizeof *values, compare_doubles);
}
