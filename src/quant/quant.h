/* Block formats of GGUF files <-> the canonical group-quantised form.
 *
 * Canonical form of a quantised matrix [rows, cols]: signed codes in groups of `group` columns,
 *     weight[r][c] = scale[r][c/group] * code[r][c] + offset[r][c/group]
 * with float32 scale and, where the format is asymmetric, float32 offset. Codes of a 4-bit form lie in -8..7, of a
 * 6-bit form in -32..31, of an 8-bit form in -128..127; those of formats of fewer bits are taken as 4-bit ones, levels
 * as what they stand for (IQ4: 8 bits), and places in codebooks likewise (IQ1, IQ3: 6 bits, IQ2: 8). The conversion is
 * exact but for one float32 rounding of scale and offset. It is made when a device reads its slice, never kept: the
 * file stays the only copy of what no device holds.
 */
#ifndef HT_QUANT_H
#define HT_QUANT_H

#include "gguf/gguf.h"

/* A matrix of a file (or of a shape: model), or some rows of one: device-free, no copy. Rows follow each other in runs:
 * `run` rows, then as many as are left of `stride` are another matrix's, and so on. run 0: all follow each other. */
typedef struct ht_matrix {
    const char *name; /* of rows of a tensor "NAME[FIRST+RUN/STRIDE]" */
    const ht_type_traits *type;
    size_t rows, cols;
    const uint8_t *data; /* of its first row; NULL: made-up weights (shape: models), reproducible by row */
    size_t row_bytes;
    size_t run, stride;
    bool made; /* data lies in the model's own memory, not in the file */
    /* What weights are multiplied by, one number for every factor_rows rows of the tensor; NULL: nothing. NVFP4's
     * "NAME.scale". */
    const float *factors;
    size_t factor_rows;
} ht_matrix;

/* A tensor's rows, those of all its matrices one behind the other. */
ht_matrix ht_matrix_of(const ht_tensor *tensor);
static inline size_t ht_matrix_at(const ht_matrix *m,
                                  size_t row) { /* a row's number among the tensor's, from the first on */
    return m->run ? row / m->run * m->stride + row % m->run : row;
}
/* Where a row lies; NULL: the weights are made up. */
static inline const uint8_t *ht_matrix_row(const ht_matrix *m, size_t row) {
    return m->data ? m->data + ht_matrix_at(m, row) * m->row_bytes : NULL;
}
/* What a row's weights are multiplied by. */
static inline float ht_matrix_factor(const ht_matrix *m, size_t row) {
    return m->factors ? m->factors[ht_matrix_at(m, row) / m->factor_rows] : 1;
}
/* Bytes from its first row to the end of its last. */
static inline size_t ht_matrix_span(const ht_matrix *m) {
    const size_t last = m->rows - 1;
    return ((m->run ? last / m->run * m->stride + last % m->run : last) + 1) * m->row_bytes;
}

/* Codes of rows [row, row+n) : codes [n][cols], scales and offsets [n][cols/group]. offsets may be NULL where the type has
 * none; where given and the type has none it is filled with zeros. Only for group-quantised types. */
void ht_matrix_codes(const ht_matrix *matrix, size_t row, size_t n, int8_t *codes, float *scales, float *offsets);
/* Rows [row, row+n) as float32 [n][cols]; every type of weights. The reference of everything else. */
void ht_matrix_floats(const ht_matrix *matrix, size_t row, size_t n, float *out);

/* Blocks [block, block + n) of a row: the file's, or with a type that is made up as blocks (quant/synthetic.h) made
 * ones in `made`, which has room for n. */
const uint8_t *ht_matrix_blocks(const ht_matrix *matrix, size_t row, size_t block, size_t n, uint8_t *made);

/* Levels of IQ4_NL and IQ4_XS, closer together near zero, where weights are dense; and twice the values of E2M1 (OCP
 * Microscaling Formats, 2023), for MXFP4 and NVFP4. */
extern const int8_t ht_levels_iq4[16], ht_levels_fp4[16];

/* Has the row weights that nothing is computed with: NaN, infinite, or an MXFP4 scale above 2^16? Of group-quantised
 * types it is scales and offsets that tell, as ht_matrix_codes gives them (offsets NULL: there are none); of others the
 * file's own row, and both are NULL. Never of made-up weights. */
bool ht_matrix_is_bad(const ht_matrix *matrix, size_t row, const float *scales, const float *offsets);
/* The error of such a row, the same from every device that packs it. */
ht_status ht_matrix_refuse(const ht_matrix *matrix, size_t row, ht_error *error);

/* Two-level scales, as the K formats keep them: scale = d * sub, offset (to unsigned codes) = dmin * sub_min. Keeping
 * the levels apart saves a device the bytes of float scales and their rounding. Only for Q4_K, Q5_K and Q6_K with data,
 * Q2_K, Q3_K and IQ4_XS; rows [row, row + n): d and dmin (fp16 bits) [n][cols/256], sub [n][cols/group], sub_min
 * [n][cols/group]. dmin and sub_min are not written for types without offsets, and may be NULL. */
bool ht_matrix_has_levels(const ht_matrix *matrix);
void ht_matrix_levels(const ht_matrix *matrix, size_t row, size_t n, uint16_t *d, uint16_t *dmin, int8_t *sub,
                      int8_t *sub_min);

/* Float32 to blocks, `cols` a multiple of the block. importance [cols]: what the square of a column's error is worth,
 * not negative, not all zeros; NULL: all columns the same, and then F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0
 * have the same rounding as ggml's reference. */
bool ht_type_can_encode(ht_type type);
void ht_encode_row(ht_type type, const float *in, const float *importance, size_t cols, uint8_t *out);

#endif
