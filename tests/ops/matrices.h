/* Made-up inputs of the operator tests: numbers with outliers, matrices of random blocks. */
#ifndef HT_TEST_MATRICES_H
#define HT_TEST_MATRICES_H

#include "device/device.h"

#include <stdlib.h>
#include <string.h>

static uint64_t random_state = 88172645463325252u;
static double uniform(void) { /* in [-1, 1) */
    random_state ^= random_state << 13, random_state ^= random_state >> 7, random_state ^= random_state << 17;
    return (double)(random_state >> 11) * 0x1p-52 - 1;
}
static inline void fill(float *x, size_t n) {
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(uniform() * (i % 37 == 0 ? 8 : 1)); /* outliers, as activations have */
}

static const struct {
    ht_type type;
    int halves[2];
} block_types[] = {
    /* where a block keeps its fp16 scales */
    {HT_TYPE_Q4_0, {0, -1}},   {HT_TYPE_Q4_1, {0, 2}},    {HT_TYPE_Q5_0, {0, -1}},    {HT_TYPE_Q5_1, {0, 2}},
    {HT_TYPE_Q8_0, {0, -1}},   {HT_TYPE_Q4_K, {0, 2}},    {HT_TYPE_Q5_K, {0, 2}},     {HT_TYPE_Q6_K, {208, -1}},
    {HT_TYPE_IQ4_NL, {0, -1}}, {HT_TYPE_MXFP4, {-1, -1}}, {HT_TYPE_F16, {-1, -1}},    {HT_TYPE_BF16, {-1, -1}},
    {HT_TYPE_F32, {-1, -1}},   {HT_TYPE_Q2_K, {80, 82}},  {HT_TYPE_Q3_K, {108, -1}},  {HT_TYPE_IQ4_XS, {0, -1}},
    {HT_TYPE_NVFP4, {-1, -1}}, {HT_TYPE_IQ1_S, {0, -1}},  {HT_TYPE_IQ1_M, {-1, -1}},  {HT_TYPE_IQ2_XXS, {0, -1}},
    {HT_TYPE_IQ2_XS, {0, -1}}, {HT_TYPE_IQ2_S, {0, -1}},  {HT_TYPE_IQ3_XXS, {0, -1}}, {HT_TYPE_IQ3_S, {0, -1}},
    {HT_TYPE_TQ1_0, {52, -1}}, {HT_TYPE_TQ2_0, {64, -1}}, {HT_TYPE_Q1_0, {0, -1}},    {HT_TYPE_Q2_0, {0, -1}},
};

enum { FIRST_FLOAT = 10, FLOATS_END = 13 }; /* of these */

static inline ht_matrix make_matrix(const char *name, size_t kind, size_t rows, size_t cols) {
    const ht_type_traits *traits = ht_type_get(block_types[kind].type);
    ht_matrix m = {.name = name, .type = traits, .rows = rows, .cols = cols};
    m.row_bytes = cols / (size_t)traits->block * (size_t)traits->block_bytes;
    uint8_t *data = malloc(rows * m.row_bytes);
    if (!traits->group) {
        float *row = malloc(cols * sizeof *row);
        for (size_t r = 0; r < rows; r++) {
            for (size_t c = 0; c < cols; c++)
                row[c] = (float)uniform() * 0.1f;
            ht_encode_row(traits->type, row, NULL, cols, data + r * m.row_bytes);
        }
        free(row);
    } else {
        for (size_t i = 0; i < rows * m.row_bytes; i++)
            data[i] = (uint8_t)(random_state >> 20), uniform();
        for (uint8_t *block = data; block < data + rows * m.row_bytes; block += traits->block_bytes)
            for (int h = 0; h < 2 && block_types[kind].halves[h] >= 0; h++) {
                uint16_t half = ht_f32_to_f16((float)(0.002 + 0.001 * uniform()) * (h ? -3 : 1));
                memcpy(block + block_types[kind].halves[h], &half, 2);
            }
        for (uint8_t *block = data; block < data + rows * m.row_bytes && traits->type == HT_TYPE_MXFP4; block += 17)
            block[0] = (uint8_t)(119 + block[0] % 3); /* 2^-8 .. 2^-6 */
        for (uint8_t *block = data; block < data + rows * m.row_bytes && traits->type == HT_TYPE_NVFP4; block += 36)
            for (int i = 0; i < 4; i++)
                block[i] = 1 + block[i] % 15; /* 2^-9 .. 2^-6 */
        static const float factor = 0.7f;
        if (traits->type == HT_TYPE_NVFP4)
            m.factors = &factor, m.factor_rows = rows;
        for (uint8_t *block = data; block < data + rows * m.row_bytes && traits->type == HT_TYPE_IQ1_M; block += 56)
            for (int i = 0; i < 4; i++) /* 2^-9 and a little */
                block[49 + 2 * i] = (uint8_t)((block[49 + 2 * i] & 15) | (const uint8_t[]){0x70, 0x80, 0x80, 0x10}[i]);
    }
    m.data = data;
    return m;
}

#endif
