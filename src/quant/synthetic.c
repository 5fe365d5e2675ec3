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

/* The weights' root mean square is about 1/sqrt(cols), as in a trained model: activations neither die nor explode.
 * Scales and offsets are of few bits times a power of two, exact in F16, so that devices which keep them so compute
 * with the same. */
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

/* Types whose codes follow from places in codebooks, levels or digits: their blocks are made up, and all that reads
 * them is as with a file. size: the power of two that their weights are of, about, where the fp16 scale at `scale` is
 * 1. */
static const struct made_block {
    ht_type type;
    int scale, min; /* bytes of a block where fp16 scales stand; min -1: none */
    int size;
} made_blocks[] = {
    {HT_TYPE_Q2_K, 80, 82, 3},   {HT_TYPE_Q3_K, 108, -1, 5},  {HT_TYPE_IQ1_S, 0, -1, 3},  {HT_TYPE_IQ1_M, -1, -1, 3},
    {HT_TYPE_IQ2_XXS, 0, -1, 6}, {HT_TYPE_IQ2_XS, 0, -1, 6},  {HT_TYPE_IQ2_S, 0, -1, 6},  {HT_TYPE_IQ3_XXS, 0, -1, 7},
    {HT_TYPE_IQ3_S, 0, -1, 7},   {HT_TYPE_IQ4_XS, 0, -1, 10}, {HT_TYPE_TQ1_0, 52, -1, 0}, {HT_TYPE_TQ2_0, 64, -1, 0},
    {HT_TYPE_NVFP4, -1, -1, 2},  {HT_TYPE_Q1_0, 0, -1, 0},    {HT_TYPE_Q2_0, 0, -1, 0},
};

static const struct made_block *made_block_of(ht_type type) {
    for (size_t i = 0; i < HT_COUNT(made_blocks); i++)
        if (made_blocks[i].type == type)
            return &made_blocks[i];
    return NULL;
}

bool ht_is_made_of_blocks(ht_type type) {
    return made_block_of(type) != NULL;
}

/* An E4M3 number of about 2^exponent: one of two neighbours. */
static uint8_t e4m3_near(int exponent, unsigned random) {
    const int e = exponent + 7; /* as it is biased */
    return (uint8_t)(e > 0 ? e << 3 | (int)(random & 1) : e > -3 ? 4 >> -e : 1);
}

static void put_scales(const struct made_block *made, float unit, uint64_t x, uint8_t *block) {
    const uint16_t d = ht_f32_to_f16(unit * (0.75f + 0x1p-9f * (float)(x & 255))),
                   dmin = ht_f32_to_f16(unit * (1.25f + 0x1p-9f * (float)(x >> 8 & 255)));
    if (made->scale >= 0)
        memcpy(block + made->scale, &d, 2);
    if (made->min >= 0)
        memcpy(block + made->min, &dmin, 2);
    for (int i = 0; i < 4 && made->type == HT_TYPE_IQ1_M; i++) /* a nibble each in the tops of four words */
        block[49 + 2 * i] = (uint8_t)((block[49 + 2 * i] & 15) | (d >> 4 * i & 15) << 4);
    for (int i = 0; i < 4 && made->type == HT_TYPE_NVFP4; i++)
        block[i] = e4m3_near((int)lrint(log2((double)unit)) + 1, (unsigned)(x >> i));
}

void ht_synthetic_blocks(const ht_matrix *matrix, size_t row, size_t block, size_t n, uint8_t *out) {
    const struct made_block *made = made_block_of(matrix->type->type);
    const size_t bytes = (size_t)matrix->type->block_bytes;
    const float unit = ldexpf(1.0f, -made->size - (int)lrint(log2(sqrt((double)matrix->cols))));
    const uint64_t seed = row_seed(matrix, row);
    for (size_t b = 0; b < n; b++, out += bytes) {
        const uint64_t first = mix(seed + (block + b) * 0x9e3779b97f4a7c15u);
        uint64_t x = first;
        for (size_t i = 0; i < bytes; i += sizeof x) {
            x = x * 0xd1342543de82ef95u + 0x2545f4914f6cdd1du;
            const uint64_t eight = x ^ x >> 32;
            memcpy(out + i, &eight, ht_min_size(sizeof eight, bytes - i));
        }
        for (size_t i = 0; i < bytes && (made->type == HT_TYPE_Q2_0 || made->type == HT_TYPE_TQ2_0); i++)
            out[i] &= (uint8_t) ~((out[i] & 0x55) << 1);
        put_scales(made, unit, first, out);
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
