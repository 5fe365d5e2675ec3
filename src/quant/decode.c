/* Blocks of GGUF files to canonical codes and to floats.
 *
 * Runs over whole models at load, so each format is one plain loop over a row that the compiler vectorises. Data has no
 * alignment: every multi-byte field is read by memcpy. Scales of a hostile file may be NaN or infinite; codes never
 * leave their range, whatever the bits. The layouts are ggml's, as its block structs define them.
 */
#include "quant/synthetic.h"
#include "quant/unpack.h"

#include <math.h>
#include <string.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "GGUF is little-endian, and this file reads its fields as they lie"
#endif

static inline void low_high_nibbles(const uint8_t *restrict q, size_t n, int bias, int8_t *restrict low,
                                    int8_t *restrict high) {
    for (size_t j = 0; j < n; j++)
        low[j] = (int8_t)((q[j] & 15) - bias);
    for (size_t j = 0; j < n; j++)
        high[j] = (int8_t)((q[j] >> 4) - bias);
}

static void unpack_q4_0(const uint8_t *restrict in, size_t blocks, int8_t *restrict codes, float *restrict scales,
                        float *restrict minima) {
    for (size_t b = 0; b < blocks; b++, in += 18, codes += 32) {
        scales[b] = ht_load_half(in);
        low_high_nibbles(in + 2, 16, 8, codes, codes + 16);
    }
}

static void unpack_q4_1(const uint8_t *restrict in, size_t blocks, int8_t *restrict codes, float *restrict scales,
                        float *restrict minima) {
    for (size_t b = 0; b < blocks; b++, in += 20, codes += 32) {
        scales[b] = ht_load_half(in);
        minima[b] = ht_load_half(in + 2);
        low_high_nibbles(in + 4, 16, 8, codes, codes + 16);
    }
}

/* Fifth bits of 32 codes, one bit each in qh, to 0 or 16 in bytes: eight at a time in one word. */
static inline void spread_fifth_bits(const uint8_t *restrict qh, uint8_t *restrict out) {
    for (int i = 0; i < 4; i++) {
        uint64_t word = qh[i] * 0x0101010101010101u & 0x8040201008040201u; /* byte k: bit k of qh[i], in place */
        word = (word + 0x7f7f7f7f7f7f7f7fu) >> 3 & 0x1010101010101010u;    /* not zero: bit 7 set, moved to bit 4 */
        memcpy(out + 8 * i, &word, sizeof word);
    }
}

static inline void five_bit_codes(const uint8_t *restrict qh, const uint8_t *restrict qs, int8_t *restrict codes) {
    uint8_t high[32];
    spread_fifth_bits(qh, high);
    for (int j = 0; j < 16; j++)
        codes[j] = (int8_t)(((qs[j] & 15) | high[j]) - 16);
    for (int j = 0; j < 16; j++)
        codes[j + 16] = (int8_t)(((qs[j] >> 4) | high[j + 16]) - 16);
}

static void unpack_q5_0(const uint8_t *restrict in, size_t blocks, int8_t *restrict codes, float *restrict scales,
                        float *restrict minima) {
    for (size_t b = 0; b < blocks; b++, in += 22, codes += 32) {
        scales[b] = ht_load_half(in);
        five_bit_codes(in + 2, in + 6, codes);
    }
}

static void unpack_q5_1(const uint8_t *restrict in, size_t blocks, int8_t *restrict codes, float *restrict scales,
                        float *restrict minima) {
    for (size_t b = 0; b < blocks; b++, in += 24, codes += 32) {
        scales[b] = ht_load_half(in);
        minima[b] = ht_load_half(in + 2);
        five_bit_codes(in + 4, in + 8, codes);
    }
}

static void unpack_q8_0(const uint8_t *restrict in, size_t blocks, int8_t *restrict codes, float *restrict scales,
                        float *restrict minima) {
    for (size_t b = 0; b < blocks; b++, in += 34, codes += 32) {
        scales[b] = ht_load_half(in);
        memcpy(codes, in + 2, 32);
    }
}

static void unpack_iq4_nl(const uint8_t *restrict in, size_t blocks, int8_t *restrict codes, float *restrict scales,
                          float *restrict minima) {
    for (size_t b = 0; b < blocks; b++, in += 18, codes += 32) {
        scales[b] = ht_load_half(in);
        for (int j = 0; j < 16; j++) {
            codes[j] = ht_levels_iq4[in[2 + j] & 15];
            codes[j + 16] = ht_levels_iq4[in[2 + j] >> 4];
        }
    }
}

/* OCP Microscaling Formats (2023): an E8M0 scale, a power of two, and E2M1 values. The codes are twice these (0, 0.5,
 * 1, 1.5, 2, 3, 4, 6), so the scale is half of the file's. Scale 255 is the format's NaN, which devices refuse. */
static void unpack_mxfp4(const uint8_t *restrict in, size_t blocks, int8_t *restrict codes, float *restrict scales,
                         float *restrict minima) {
    for (size_t b = 0; b < blocks; b++, in += 17, codes += 32) {
        scales[b] = in[0] == 255 ? NAN : ldexpf(1, in[0] - 128);
        for (int j = 0; j < 16; j++) {
            codes[j] = ht_levels_fp4[in[1 + j] & 15];
            codes[j + 16] = ht_levels_fp4[in[1 + j] >> 4];
        }
    }
}

/* Q4_K and Q5_K: d, dmin, then eight 6-bit scales and eight 6-bit minima in 12 bytes. The first four of each lie in the
 * low six bits of bytes 0-3 and 4-7; the last four have their low four bits in bytes 8-11 and their top two bits in the
 * spare top bits of bytes 0-3 (scales) and 4-7 (minima). */
static inline void k_scales(const uint8_t *in, float *scales, float *minima) {
    float d = ht_load_half(in), dmin = ht_load_half(in + 2);
    const uint8_t *q = in + 4;
    for (int j = 0; j < 4; j++) {
        scales[j] = d * (float)(q[j] & 63);
        minima[j] = -dmin * (float)(q[j + 4] & 63);
        scales[j + 4] = d * (float)((q[j + 8] & 15) | (q[j] >> 6) << 4);
        minima[j + 4] = -dmin * (float)(q[j + 8] >> 4 | (q[j + 4] >> 6) << 4);
    }
}

static void unpack_q4_k(const uint8_t *restrict in, size_t blocks, int8_t *restrict codes, float *restrict scales,
                        float *restrict minima) {
    for (size_t b = 0; b < blocks; b++, in += 144, codes += 256, scales += 8, minima += 8) {
        k_scales(in, scales, minima);
        for (int i = 0; i < 4; i++)
            low_high_nibbles(in + 16 + 32 * i, 32, 8, codes + 64 * i, codes + 64 * i + 32);
    }
}

static void unpack_q5_k(const uint8_t *restrict in, size_t blocks, int8_t *restrict codes, float *restrict scales,
                        float *restrict minima) {
    for (size_t b = 0; b < blocks; b++, in += 176, codes += 256, scales += 8, minima += 8) {
        k_scales(in, scales, minima);
        const uint8_t *qh = in + 16, *qs = in + 48; /* bit g of qh[l]: fifth bit of code l of group g */
        for (int i = 0; i < 4; i++, qs += 32) {
            int8_t *low = codes + 64 * i, *high = low + 32;
            for (int l = 0; l < 32; l++)
                low[l] = (int8_t)(((qs[l] & 15) | (qh[l] >> 2 * i & 1) << 4) - 16);
            for (int l = 0; l < 32; l++)
                high[l] = (int8_t)((qs[l] >> 4 | (qh[l] >> (2 * i + 1) & 1) << 4) - 16);
        }
    }
}

static void unpack_q6_k(const uint8_t *restrict in, size_t blocks, int8_t *restrict codes, float *restrict scales,
                        float *restrict minima) {
    for (size_t b = 0; b < blocks; b++, in += 210, codes += 256, scales += 16) {
        float d = ht_load_half(in + 208);
        for (int g = 0; g < 16; g++)
            scales[g] = d * (float)(int8_t)in[192 + g];
        for (int half = 0; half < 2; half++) {
            const uint8_t *ql = in + 64 * half, *qh = in + 128 + 32 * half;
            int8_t *out = codes + 128 * half;
            for (int quarter = 0; quarter < 4; quarter++, out += 32) {
                const uint8_t *q = ql + 32 * (quarter & 1);
                int shift = quarter < 2 ? 0 : 4;
                for (int l = 0; l < 32; l++) {
                    out[l] = (int8_t)(((q[l] >> shift & 15) | (qh[l] >> 2 * quarter & 3) << 4) - 32);
                }
            }
        }
    }
}

static const struct {
    ht_unpack_row *unpack;
    float bias; /* what was taken from an asymmetric format's unsigned codes: its minimum belongs to code -bias */
} formats[] = {
    [HT_TYPE_Q4_0] = {unpack_q4_0, 0},          [HT_TYPE_Q4_1] = {unpack_q4_1, 8},
    [HT_TYPE_Q5_0] = {unpack_q5_0, 0},          [HT_TYPE_Q5_1] = {unpack_q5_1, 16},
    [HT_TYPE_Q8_0] = {unpack_q8_0, 0},          [HT_TYPE_Q2_K] = {ht_unpack_q2_k, 2},
    [HT_TYPE_Q3_K] = {ht_unpack_q3_k, 0},       [HT_TYPE_Q4_K] = {unpack_q4_k, 8},
    [HT_TYPE_Q5_K] = {unpack_q5_k, 16},         [HT_TYPE_Q6_K] = {unpack_q6_k, 0},
    [HT_TYPE_IQ1_S] = {ht_unpack_iq1_s, 0},     [HT_TYPE_IQ1_M] = {ht_unpack_iq1_m, 0},
    [HT_TYPE_IQ2_XXS] = {ht_unpack_iq2_xxs, 0}, [HT_TYPE_IQ2_XS] = {ht_unpack_iq2_xs, 0},
    [HT_TYPE_IQ2_S] = {ht_unpack_iq2_s, 0},     [HT_TYPE_IQ3_XXS] = {ht_unpack_iq3_xxs, 0},
    [HT_TYPE_IQ3_S] = {ht_unpack_iq3_s, 0},     [HT_TYPE_IQ4_NL] = {unpack_iq4_nl, 0},
    [HT_TYPE_IQ4_XS] = {ht_unpack_iq4_xs, 0},   [HT_TYPE_TQ1_0] = {ht_unpack_tq1_0, 0},
    [HT_TYPE_TQ2_0] = {ht_unpack_tq2_0, 0},     [HT_TYPE_MXFP4] = {unpack_mxfp4, 0},
    [HT_TYPE_NVFP4] = {ht_unpack_nvfp4, 0},     [HT_TYPE_Q1_0] = {ht_unpack_q1_0, 0},
    [HT_TYPE_Q2_0] = {ht_unpack_q2_0, 0},
};

ht_matrix ht_matrix_of(const ht_tensor *tensor) {
    const ht_type_traits *type = ht_type_get(tensor->type);
    const size_t cols = (size_t)tensor->dims[0];
    return (ht_matrix){.name = tensor->name,
                       .type = type,
                       .rows = (size_t)(tensor->dims[1] * tensor->dims[2] * tensor->dims[3]),
                       .cols = cols,
                       .data = tensor->data,
                       .row_bytes = cols / (size_t)type->block * (size_t)type->block_bytes};
}

const uint8_t *ht_matrix_blocks(const ht_matrix *matrix, size_t row, size_t block, size_t n, uint8_t *made) {
    const uint8_t *in = ht_matrix_row(matrix, row);
    if (in)
        return in + block * (size_t)matrix->type->block_bytes;
    ht_synthetic_blocks(matrix, row, block, n, made);
    return made;
}

#define CHUNK \
    512 /* columns unpacked at once: codes and floats stay in the first-level cache; a multiple of every block */
#define CHUNK_BYTES 288 /* of the largest blocks that are made up: NVFP4's and IQ4_XS's are 288 */

/* Columns [begin, begin + cols) of a row, whole blocks; the minima are the format's own, and not written where it has
 * none. */
static void unpack_chunk(const ht_matrix *matrix, size_t row, size_t begin, size_t cols, int8_t *codes, float *scales,
                         float *minima) {
    const ht_type_traits *type = matrix->type;
    const size_t block = (size_t)type->block;
    uint8_t made[CHUNK_BYTES];
    formats[type->type].unpack(ht_matrix_blocks(matrix, row, begin / block, cols / block, made), cols / block, codes,
                               scales, minima);
}

/* Only types without offsets have a factor. */
static void multiply(const ht_matrix *matrix, size_t row, float *scales, size_t n) {
    const float factor = ht_matrix_factor(matrix, row);
    for (size_t i = 0; i < n; i++)
        scales[i] *= factor;
}

static void codes_of_row(const ht_matrix *matrix, size_t row, int8_t *codes, float *scales, float *offsets) {
    const ht_type_traits *type = matrix->type;
    const size_t group = (size_t)type->group, groups = matrix->cols / group;
    if (!matrix->data && !ht_is_made_of_blocks(type->type)) {
        ht_synthetic_codes(matrix, row, 0, groups, codes, scales, type->offset ? offsets : NULL);
        return;
    }
    for (size_t begin = 0; begin < matrix->cols; begin += CHUNK)
        unpack_chunk(matrix, row, begin, ht_min_size(CHUNK, matrix->cols - begin), codes + begin,
                     scales + begin / group, offsets ? offsets + begin / group : NULL);
    if (matrix->factors)
        multiply(matrix, row, scales, groups);
    const float bias = formats[type->type].bias;
    for (size_t g = 0; g < groups && type->offset && offsets; g++) /* callers of an asymmetric type do give it */
        offsets[g] += bias * scales[g];
}

void ht_matrix_codes(const ht_matrix *matrix, size_t row, size_t n, int8_t *codes, float *scales, float *offsets) {
    const ht_type_traits *type = matrix->type;
    const size_t groups = matrix->cols / (size_t)type->group;
    if (offsets && !type->offset)
        memset(offsets, 0, n * groups * sizeof *offsets);
    for (size_t r = 0; r < n; r++)
        codes_of_row(matrix, row + r, codes + r * matrix->cols, scales + r * groups,
                     offsets ? offsets + r * groups : NULL);
}

/* ---- floats ---- */

/* As ht_f16_to_f32, without branches and inline, so that the loop over a row vectorises. */
static inline float half_to_float(uint16_t h) {
    uint32_t exponent = h & 0x7c00u, magnitude = (uint32_t)(h & 0x7fffu) << 13;
    uint32_t special = -(uint32_t)(exponent == 0x7c00u), subnormal = -(uint32_t)(exponent == 0); /* all ones, or 0 */
    uint32_t bits = magnitude + (112u << 23) + (special & 112u << 23) + (subnormal & 1u << 23);
    uint32_t excess = subnormal & 0x38800000u; /* 2^-14, or 0 */
    float f, less;
    memcpy(&f, &bits, sizeof f);
    memcpy(&less, &excess, sizeof less);
    f -= less;
    memcpy(&bits, &f, sizeof bits);
    bits |= (uint32_t)(h & 0x8000u) << 16;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static void floats_of_row(ht_type type, const uint8_t *restrict in, size_t cols, float *restrict out) {
    if (type == HT_TYPE_F32) {
        memcpy(out, in, cols * sizeof *out);
    } else if (type == HT_TYPE_F16) {
        for (size_t c = 0; c < cols; c++)
            out[c] = half_to_float(ht_load16(in + 2 * c));
    } else {
        for (size_t c = 0; c < cols; c++)
            out[c] = ht_bf16_to_f32(ht_load16(in + 2 * c));
    }
}

static void quantised_row(const ht_matrix *matrix, size_t row, float *restrict out) {
    const ht_type_traits *type = matrix->type;
    const bool plain = !matrix->data && !ht_is_made_of_blocks(type->type); /* made up as canonical codes */
    const size_t group = (size_t)type->group;
    const float bias = plain ? 0 : formats[type->type].bias;
    int8_t codes[CHUNK];
    float scales[CHUNK / 16], minima[CHUNK / 16] = {0};
    for (size_t begin = 0; begin < matrix->cols; begin += CHUNK) {
        size_t cols = ht_min_size(CHUNK, matrix->cols - begin);
        if (plain)
            ht_synthetic_codes(matrix, row, begin / group, cols / group, codes, scales, type->offset ? minima : NULL);
        else
            unpack_chunk(matrix, row, begin, cols, codes, scales, minima);
        if (matrix->factors)
            multiply(matrix, row, scales, cols / group);
        for (size_t g = 0; g < cols / group; g++) {
            /* scale * unsigned code + minimum, as the format defines a weight. */
            float scale = scales[g], minimum = minima[g];
            const int8_t *q = codes + g * group;
            float *weights = out + begin + g * group;
            for (size_t c = 0; c < group; c++)
                weights[c] = scale * ((float)q[c] + bias) + minimum;
        }
    }
}

void ht_matrix_floats(const ht_matrix *matrix, size_t row, size_t n, float *out) {
    const ht_type_traits *type = matrix->type;
    for (size_t r = 0; r < n; r++, out += matrix->cols) {
        if (type->group)
            quantised_row(matrix, row + r, out);
        else if (!matrix->data)
            ht_synthetic_floats(matrix, row + r, out);
        else
            floats_of_row(type->type, ht_matrix_row(matrix, row + r), matrix->cols, out);
    }
}

/* ---- what nothing is computed with ---- */

/* Of canonical MXFP4 scales, which are half of the file's: fp16 has them, and with codes of 4 bits no product overflows. */
#define MOST_MXFP4 0x1p15f

static bool is_finite(ht_type type, const uint8_t *restrict in, size_t n) {
    uint32_t bad = 0; /* no early end, so that it becomes vectors */
    if (type == HT_TYPE_F32)
        for (size_t i = 0; i < n; i++) {
            uint32_t bits;
            memcpy(&bits, in + 4 * i, sizeof bits);
            bad |= (bits & 0x7f800000u) == 0x7f800000u;
        }
    else
        for (size_t i = 0, exponent = type == HT_TYPE_F16 ? 0x7c00u : 0x7f80u; i < n; i++)
            bad |= (ht_load16(in + 2 * i) & exponent) == exponent;
    return !bad;
}

static bool is_wide(const float *scales, size_t n) {
    bool found = false;
    for (size_t i = 0; i < n; i++)
        found |= scales[i] > MOST_MXFP4;
    return found;
}

bool ht_matrix_is_bad(const ht_matrix *matrix, size_t row, const float *scales, const float *offsets) {
    const ht_type_traits *type = matrix->type;
    if (!matrix->data)
        return false;
    if (!type->group)
        return !is_finite(type->type, ht_matrix_row(matrix, row), matrix->cols);
    const size_t groups = matrix->cols / (size_t)type->group;
    return !is_finite(HT_TYPE_F32, (const uint8_t *)scales, groups) ||
           (offsets && !is_finite(HT_TYPE_F32, (const uint8_t *)offsets, groups)) ||
           (type->type == HT_TYPE_MXFP4 && is_wide(scales, groups));
}

ht_status ht_matrix_refuse(const ht_matrix *matrix, size_t row, ht_error *error) {
    int largest = 0; /* MXFP4's largest scale in the row, as the file has it */
    for (size_t b = 0; matrix->type->type == HT_TYPE_MXFP4 && b < matrix->cols / 32; b++) {
        const int scale = ht_matrix_row(matrix, row)[b * 17];
        largest = scale > largest ? scale : largest;
    }
    if (largest && largest < 255)
        return ht_fail(error, HT_ERROR_FORMAT, "weights of %s, row %zu: a scale of 2^%d, above 2^16, is too large",
                       matrix->name, row, largest - 127);
    return ht_fail(error, HT_ERROR_FORMAT, "weights of %s, row %zu, are not numbers (NaN or infinite)", matrix->name,
                   row);
}
