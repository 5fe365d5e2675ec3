#include "quant/synthetic.h"

#include <math.h>
#include <string.h>

/* splitmix64's finaliser (Steele, Lea, Flood 2014): neighbouring rows and groups share no pattern. */
static uint64_t mix(uint64_t x) {
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9u;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static uint64_t row_seed(const ht_matrix *matrix, size_t row) {
    uint64_t seed = 0x9e3779b97f4a7c15u;
    for (const char *c = matrix->name; c && *c; c++)
        seed = (seed ^ (uint8_t)*c) * 0x100000001b3u;
    return mix(seed + row);
}

/* The weights' root mean square is about 1/sqrt(cols), as in a trained model: activations neither die nor explode. Scales
 * and offsets are of few bits times a power of two, exact in F16, so that devices which keep them so compute with the same. */
void ht_synthetic_codes(const ht_matrix *matrix, size_t row, size_t group, size_t n, int8_t *codes, float *scales,
                        float *offsets) {
    int spare = 8 - matrix->type->bits;
    size_t size = (size_t)matrix->type->group;
    float unit = ldexpf(1.0f, 2 - matrix->type->bits - (int)lrint(log2(sqrt((double)matrix->cols))));
    uint64_t seed = row_seed(matrix, row);
    for (size_t g = 0; g < n; g++, codes += size) {
        uint64_t x = mix(seed + (group + g) * 0x9e3779b97f4a7c15u);
        scales[g] = unit * (0.75f + 0x1p-9f * (float)(x & 255));
        if (offsets)
            offsets[g] = unit * (0x1p-7f * (float)(x >> 8 & 255) - 1.0f);
        for (size_t i = 0; i < size; i += 8) {
            x = x * 0xd1342543de82ef95u + 0x2545f4914f6cdd1du;
            uint64_t eight = x ^ x >> 32; /* the low bits of a power-of-two LCG alone would repeat */
            memcpy(codes + i, &eight, sizeof eight);
        }
        for (size_t i = 0; i < size; i++)
            codes[i] = (int8_t)(codes[i] >> spare);
    }
}

void ht_synthetic_floats(const ht_matrix *matrix, size_t row, float *out) {
    /* Seven-bit numbers times a power of two: exact in F16 and BF16 as in F32. */
    int exponent = (int)lrint(-log2(sqrt((double)matrix->cols)));
    float unit = ldexpf(1.0f, exponent - 6);
    uint64_t x = row_seed(matrix, row);
    for (size_t c = 0; c < matrix->cols; c++) {
        x = x * 0xd1342543de82ef95u + 0x2545f4914f6cdd1du;
        out[c] = unit * (float)((int)(x >> 57) - 64);
    }
}
