/* Canonical rows -> strips of the CPU's layout (kernels.h). */
#include "device/cpu/kernels.h"

#include <stdlib.h>
#include <string.h>

ht_pack_form ht_form_of(const ht_matrix *matrix) {
    static const ht_pack_form forms[] = {
        [HT_TYPE_F32] = HT_FORM_F32,         [HT_TYPE_F16] = HT_FORM_F16,         [HT_TYPE_BF16] = HT_FORM_BF16,
        [HT_TYPE_Q4_0] = HT_FORM_4,          [HT_TYPE_Q4_1] = HT_FORM_4O,         [HT_TYPE_Q5_0] = HT_FORM_5,
        [HT_TYPE_Q5_1] = HT_FORM_5O,         [HT_TYPE_Q8_0] = HT_FORM_8,          [HT_TYPE_Q2_K] = HT_FORM_2SO,
        [HT_TYPE_Q3_K] = HT_FORM_3S,         [HT_TYPE_Q4_K] = HT_FORM_4SO,        [HT_TYPE_Q5_K] = HT_FORM_5SO,
        [HT_TYPE_Q6_K] = HT_FORM_6S16,       [HT_TYPE_IQ2_XXS] = HT_FORM_IQ2_XXS, [HT_TYPE_IQ2_XS] = HT_FORM_IQ2_XS,
        [HT_TYPE_IQ3_XXS] = HT_FORM_IQ3_XXS, [HT_TYPE_IQ1_S] = HT_FORM_IQ1_S,     [HT_TYPE_IQ4_NL] = HT_FORM_4N,
        [HT_TYPE_IQ3_S] = HT_FORM_IQ3_S,     [HT_TYPE_IQ2_S] = HT_FORM_IQ2_S,     [HT_TYPE_IQ4_XS] = HT_FORM_4NS,
        [HT_TYPE_IQ1_M] = HT_FORM_IQ1_M,     [HT_TYPE_TQ1_0] = HT_FORM_DIGITS,    [HT_TYPE_TQ2_0] = HT_FORM_2R,
        [HT_TYPE_MXFP4] = HT_FORM_4X,        [HT_TYPE_NVFP4] = HT_FORM_4X16,      [HT_TYPE_Q1_0] = HT_FORM_1R,
        [HT_TYPE_Q2_0] = HT_FORM_2H,
    };
    const ht_type type = matrix->type->type;
    if (!matrix->data) /* made-up codes are any, and made-up weights have no levels, but where blocks are made up */
        switch ((int)type) {
        case HT_TYPE_Q4_K:
            return HT_FORM_4O;
        case HT_TYPE_Q5_K:
            return HT_FORM_5O;
        case HT_TYPE_Q6_K:
            return HT_FORM_F32;
        case HT_TYPE_MXFP4:
        case HT_TYPE_IQ4_NL:
            return HT_FORM_8;
        }
    return forms[type];
}

/* What to add to a canonical code to make it unsigned. */
static int code_bias(ht_pack_form form) {
    const ht_form_traits t = ht_forms[form];
    return t.bias ? t.bias : 1 << (t.bits - 1);
}

ht_status ht_packed_create(const ht_matrix *matrix, size_t row_begin, size_t row_end, size_t col_begin, size_t col_end,
                           const float *bias, ht_packed *packed, ht_error *error) {
    const ht_pack_form form = ht_form_of(matrix);
    const size_t grain = ht_form_grain(form);
    if (col_begin % grain || (col_end - col_begin) % grain)
        return ht_fail(error, HT_ERROR_ARGUMENT, "%s: columns %zu..%zu are not whole groups of %zu", matrix->name,
                       col_begin, col_end, grain);
    *packed = (ht_packed){.form = form,
                          .rows = row_end - row_begin,
                          .cols = ht_round_up(col_end - col_begin, HT_STEP),
                          .factor = ht_matrix_factor(matrix, row_begin)};
    packed->strips = (packed->rows + HT_STRIP - 1) / HT_STRIP;
    packed->strip_bytes = ht_form_bytes(form, packed->cols / HT_STEP);
    packed->bytes = packed->strips * packed->strip_bytes;
    packed->data = ht_pages_alloc(packed->bytes);
    if (!packed->data)
        return ht_fail(error, HT_ERROR_MEMORY, "%s: no memory for %zu bytes of packed weights", matrix->name,
                       packed->bytes);
    if (bias) {
        ht_status status =
            ht_alloc((void **)&packed->bias, packed->strips * HT_STRIP, sizeof(float), matrix->name, error);
        if (status) {
            ht_packed_free(packed);
            return status;
        }
        memcpy(packed->bias, bias + row_begin, packed->rows * sizeof(float));
    }
    return HT_OK;
}

void ht_packed_free(ht_packed *packed) {
    if (packed->data)
        ht_pages_free(packed->data, packed->bytes);
    free(packed->bias);
    *packed = (ht_packed){0};
}

size_t ht_pack_scratch(const ht_matrix *matrix) {
    return matrix->cols * (sizeof(float) + 1 + 2 * sizeof(float)) +
           256; /* a row of floats, or of codes, scales and offsets */
}

/* 32 unsigned codes of one row -> its lane in the chunks of its block of 16 rows. */
static inline void put_codes(const ht_pack_form form, const uint8_t *u, size_t row, uint8_t *codes) {
    const int bits = ht_forms[form].bits;
    const size_t block = row / 16, lane = row % 16 * 4;
    if (bits == 8) {
        for (size_t j = 0; j < 8; j++)
            memcpy(codes + (block * 8 + j) * 64 + lane, u + 4 * j, 4);
        return;
    }
    uint8_t low[16];
    for (int i = 0; i < 16; i++)
        low[i] = (uint8_t)((u[i] & 15) | u[i + 16] << 4);
    for (size_t i = 0; i < 4; i++)
        memcpy(codes + (block * 4 + i) * 64 + lane, low + 4 * i, 4);
    if (bits == 5) {
        uint8_t high[4] = {0};
        for (size_t i = 0; i < HT_STEP; i++)
            high[i % 4] |= (uint8_t)(u[i] >> 4 << i / 4);
        memcpy(codes + (8 + block) * 64 + lane, high, 4);
    }
    if (bits == 6) {
        for (size_t h = 0; h < 2; h++) {
            uint8_t high[4];
            for (size_t k = 0; k < 4; k++) {
                const uint8_t *q = u + 16 * h + k;
                high[k] = (uint8_t)(q[0] >> 4 | (q[4] >> 4) << 2 | (q[8] >> 4) << 4 | (q[12] >> 4) << 6);
            }
            memcpy(codes + (8 + block * 2 + h) * 64 + lane, high, 4);
        }
    }
}

/* The names of 32 codes of HT_FORM_4X: ht_named_codes turned about. */
static void name_codes(uint8_t *u) {
    static const uint8_t names[25] = {[0] = 15, [4] = 14, [6] = 13, [8] = 12, [9] = 11, [10] = 10, [11] = 9,
                                      [13] = 1, [14] = 2, [15] = 3, [16] = 4, [18] = 5, [20] = 6,  [24] = 7};
    for (int i = 0; i < HT_STEP; i++)
        u[i] = names[u[i] - 20];
}

static void put_half(uint8_t *at, size_t index, uint16_t half) {
    memcpy(at + 2 * index, &half, 2);
}

static void pack_float_row(const ht_matrix *m, size_t source, size_t col_begin, ht_packed *p, uint8_t *strip,
                           size_t lane, float *row) {
    ht_matrix_floats(m, source, 1, row);
    if (m->data) /* made-up ones of group-quantised types come here, too */
        ht_packed_note(p, m, source, NULL, NULL);
    const size_t size = p->form == HT_FORM_F32 ? 4 : 2;
    for (size_t c = 0; c < p->cols && col_begin + c < m->cols; c++) {
        const float value = row[col_begin + c];
        uint32_t bits;
        memcpy(&bits, &value, 4);
        if (p->form == HT_FORM_F16)
            bits = ht_f32_to_f16(value);
        else if (p->form == HT_FORM_BF16)
            bits >>= 16; /* exact: the value came from bf16 */
        memcpy(strip + (c * HT_STRIP + lane) * size, &bits, size);
    }
}

static void pack_coded_row(const ht_matrix *m, size_t source, size_t col_begin, ht_packed *p, uint8_t *strip,
                           size_t lane, void *scratch) {
    const ht_form_traits t = ht_forms[p->form];
    const size_t group = (size_t)m->type->group, groups = m->cols / group;
    float *scales = scratch, *offsets = scales + groups;
    int8_t *codes = (int8_t *)(offsets + groups);
    const int bias = code_bias(p->form);
    ht_matrix_codes(m, source, 1, codes, scales, offsets);
    /* MXFP4's scales, here half of the file's, go beyond fp16: one below 2^-24 becomes 0, which the values of other
     * blocks do not notice. */
    ht_packed_note(p, m, source, scales, offsets);
    uint8_t *levels = (uint8_t *)scales; /* the floats are not needed when the levels are */
    uint16_t *d = (uint16_t *)(void *)levels, *dmin = d + m->cols / 256;
    int8_t *sub = (int8_t *)(dmin + m->cols / 256), *sub_min = sub + groups;
    if (t.span)
        ht_matrix_levels(m, source, 1, d, dmin, sub, sub_min);
    for (size_t s = 0; s < p->cols / HT_STEP; s++) {
        const size_t col = col_begin + s * HT_STEP, g = col / group;
        uint8_t *head = NULL, *step = strip + s * (size_t)t.step_bytes;
        uint8_t u[HT_STEP];
        for (int i = 0; i < HT_STEP; i++)
            u[i] = (uint8_t)(codes[col + (size_t)i] + bias);
        if (p->form == HT_FORM_4X)
            name_codes(u);
        if (t.span) {
            head = strip + s / 8 * (size_t)(t.head_bytes + 8 * t.step_bytes);
            step = head + t.head_bytes + s % 8 * (size_t)t.step_bytes;
            if (s % 8 == 0) {
                put_half(head, lane, d[col / 256]);
                if (t.offset)
                    put_half(head + 64, lane, dmin[col / 256]);
            }
            for (size_t h = 0; h < (size_t)t.halves; h++)
                step[h * HT_STRIP + lane] = (uint8_t)sub[g + h];
            if (t.offset)
                step[HT_STRIP + lane] = (uint8_t)sub_min[g];
            put_codes(p->form, u, lane, step + 64);
            continue;
        }
        put_half(step, lane, ht_f32_to_f16(scales[g]));
        if (t.offset)
            put_half(step + 64, lane, ht_f32_to_f16(offsets[g] - (float)bias * scales[g]));
        put_codes(p->form, u, lane, step + (t.offset ? 128 : 64));
    }
}

void ht_pack_strip(const ht_matrix *m, size_t row_begin, size_t col_begin, ht_packed *p, size_t strip, void *scratch) {
    uint8_t *out = p->data + strip * p->strip_bytes;
    const size_t rows = ht_min_size(HT_STRIP, p->rows - strip * HT_STRIP);
    for (size_t lane = 0; lane < rows; lane++) {
        const size_t source = row_begin + strip * HT_STRIP + lane;
        if (ht_forms[p->form].via != p->form)
            ht_pack_small_row(m, source, col_begin, p, out, lane, scratch);
        else if (ht_forms[p->form].bits)
            pack_coded_row(m, source, col_begin, p, out, lane, scratch);
        else
            pack_float_row(m, source, col_begin, p, out, lane, scratch);
    }
}
