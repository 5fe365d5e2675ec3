/* Rows of rarer types to the small forms of the CPU's layout (kernels.h), in about the file's own bits. */
#include "device/cpu/kernels.h"

#include <string.h>

/* Where the pieces of one row's step lie. */
typedef struct place {
    uint8_t *head, *step; /* the same without heads */
    size_t lane, block;   /* the row's number in its strip, and 16-row block */
} place;

static place place_of(const ht_packed *p, uint8_t *strip, size_t s, size_t lane) {
    const ht_form_traits t = ht_forms[p->form];
    const size_t span = t.span ? (size_t)t.span : 1, head = (size_t)t.head_bytes, step = (size_t)t.step_bytes;
    uint8_t *at = strip + s / span * (head + span * step);
    return (place){at, at + head + s % span * step, lane, lane / 16};
}

static void put_half(uint8_t *rows, const place *to, uint16_t half) {
    memcpy(rows + 2 * to->lane, &half, 2);
}
/* Four bytes to the row's lane of chunk `chunk`, of those that a block has. */
static void put_four(uint8_t *codes, const place *to, size_t chunks, size_t chunk, const uint8_t *four) {
    memcpy(codes + (to->block * chunks + chunk) * 64 + to->lane % 16 * 4, four, 4);
}

/* ---- codes
 * ----------------------------------------------------------------------------------------------------------------- */

/* Unsigned codes of 32 columns in planes of `bits` (1 or 2) bits, from bit `shift` of the codes on. */
static void put_plane(uint8_t *codes, const place *to, int bits, int shift, const uint8_t *u) {
    const size_t quads = (size_t)(8 / bits);
    for (size_t chunk = 0; chunk < 8 / quads; chunk++) {
        uint8_t four[4] = {0};
        for (size_t i = 0; i < 4 * quads; i++)
            four[i % 4] |= (uint8_t)((u[4 * quads * chunk + i] >> shift & ((1 << bits) - 1)) << i / 4 * (size_t)bits);
        put_four(codes, to, 8 / quads, chunk, four);
    }
}

static void put_nibbles(uint8_t *codes, const place *to, const uint8_t *u) {
    for (size_t chunk = 0; chunk < 4; chunk++) {
        uint8_t four[4];
        for (size_t i = 0; i < 4; i++)
            four[i] = (uint8_t)((u[4 * chunk + i] & 15) | u[4 * chunk + i + 16] << 4);
        put_four(codes, to, 4, chunk, four);
    }
}

/* 256 codes of -1 to 1 as digits: five quads' to a byte, rounded up so that three times it gives them back. */
static void put_digits(uint8_t *codes, const place *to, const int8_t *q) {
    for (size_t chunk = 0; chunk < 13; chunk++) {
        uint8_t four[4];
        for (size_t k = 0; k < 4; k++) {
            unsigned number = 0;
            for (size_t quad = 5 * chunk; quad < 5 * chunk + 5;
                 quad++) /* a code of 2, which none has, is taken for 1 */
                number = 3 * number + (quad < 64 ? (unsigned)(q[4 * quad + k] > 0 ? 2 : q[4 * quad + k] + 1) : 0);
            four[k] = (uint8_t)((number * 256 + 242) / 243);
        }
        put_four(codes, to, 13, chunk, four);
    }
}

/* ---- places in codebooks
 * ----------------------------------------------------------------------------------------------------- */

static void put_octets(const ht_grid_block *of, size_t group, ht_pack_form form, const place *to) {
    const uint16_t *index = of->index + 4 * group;
    uint8_t low[4];
    unsigned high = 0, each = form == HT_FORM_IQ1_S ? 3 : form == HT_FORM_IQ1_M ? 4 : 2;
    for (unsigned o = 0; o < 4; o++) {
        low[o] = (uint8_t)index[o];
        high |= (unsigned)(index[o] >> 8) << each * o;
        if (form == HT_FORM_IQ1_M)
            high |= (of->shift[4 * group + o] < 0 ? 8u : 0u) << 4 * o;
    }
    const unsigned first = (unsigned)of->sub[2 * group] >> 1,
                   second = (unsigned)of->sub[2 * group + 1] >> 1; /* s of 2 s + 1 */
    uint8_t *rows = to->step + to->lane, *codes = to->step + 64;
    if (form == HT_FORM_IQ1_S || form == HT_FORM_IQ1_M) {
        if (form == HT_FORM_IQ1_S)
            high |= first << 12 | (of->shift[4 * group] < 0 ? 0x8000u : 0u);
        else
            rows[2 * HT_STRIP] = (uint8_t)(first | second << 3), codes += HT_STRIP;
        rows[0] = (uint8_t)high, rows[HT_STRIP] = (uint8_t)(high >> 8);
        put_four(codes, to, 1, 0, low);
        return;
    }
    if (form == HT_FORM_IQ2_XXS)
        rows[0] = (uint8_t)first, codes -= HT_STRIP;
    else
        rows[0] = (uint8_t)(first | second << 4), rows[HT_STRIP] = (uint8_t)high;
    put_four(codes, to, 2, 0, low);
    put_four(codes, to, 2, 1, of->signs + 4 * group);
}

static void put_quads(const ht_grid_block *of, size_t group, ht_pack_form form, const place *to) {
    const uint16_t *index = of->index + 8 * group;
    uint8_t low[8], high = 0, *rows = to->step + to->lane, *codes = to->step + HT_STRIP;
    for (size_t i = 0; i < 8; i++) {
        low[i] = (uint8_t)index[i];
        high |= (uint8_t)(index[i] >> 8 << i);
    }
    rows[0] = (uint8_t)(of->sub[2 * group] >> 1);
    if (form == HT_FORM_IQ3_S)
        rows[HT_STRIP] = high, codes += HT_STRIP;
    put_four(codes, to, 3, 0, low);
    put_four(codes, to, 3, 1, low + 4);
    put_four(codes, to, 3, 2, of->signs + 4 * group);
}

static void pack_grid_row(const ht_matrix *m, size_t row, size_t col_begin, const ht_packed *p, uint8_t *strip,
                          size_t lane) {
    uint8_t made[256];
    ht_grid_block of;
    for (size_t s = 0; s < p->cols / HT_STEP; s++) {
        const place to = place_of(p, strip, s, lane);
        if (s % 8 == 0) {
            ht_grid_read(m->type->type, ht_matrix_blocks(m, row, col_begin / 256 + s / 8, 1, made), &of);
            put_half(to.head, &to, of.d);
        }
        if (p->form == HT_FORM_IQ3_S || p->form == HT_FORM_IQ3_XXS)
            put_quads(&of, s % 8, p->form, &to);
        else
            put_octets(&of, s % 8, p->form, &to);
    }
}

/* ---- a row
 * ------------------------------------------------------------------------------------------------------------------- */

typedef struct row_levels { /* of a row, see ht_matrix_levels */
    uint16_t *d, *dmin;
    int8_t *sub, *sub_min;
} row_levels;

static void put_levels(ht_pack_form form, const row_levels *of, size_t s, size_t col, const place *to) {
    const size_t halves = form == HT_FORM_4NS ? 1 : 2, g = col / (HT_STEP / halves);
    if (s % 8 == 0) {
        put_half(to->head, to, of->d[col / 256]);
        if (form == HT_FORM_2SO)
            put_half(to->head + 64, to, of->dmin[col / 256]);
    }
    for (size_t h = 0; h < halves; h++)
        to->step[h * HT_STRIP + to->lane] =
            (uint8_t)(form == HT_FORM_2SO ? of->sub[g + h] | of->sub_min[g + h] << 4 : of->sub[g + h]);
}

/* Of the codes as bytes: their names among a form's levels. */
static void name_levels(ht_pack_form form, uint8_t names[256]) {
    const int8_t *levels = form == HT_FORM_4X16 ? ht_levels_fp4 : ht_levels_iq4;
    for (int i = 15; i >= 0; i--) /* 0 has two names in fp4: the first */
        names[(uint8_t)levels[i]] = (uint8_t)i;
}

static void put_codes(ht_pack_form form, const int8_t *q, const uint8_t names[256], const place *to) {
    uint8_t u[HT_STEP];
    switch (form) {
    case HT_FORM_4N:
    case HT_FORM_4NS:
    case HT_FORM_4X16:
        for (size_t i = 0; i < HT_STEP; i++)
            u[i] = names[(uint8_t)q[i]];
        put_nibbles(to->step + (form == HT_FORM_4N ? 64 : form == HT_FORM_4NS ? HT_STRIP : 128), to, u);
        return;
    case HT_FORM_1R:
        for (size_t i = 0; i < HT_STEP; i++)
            u[i] = q[i] > 0;
        put_plane(to->step, to, 1, 0, u);
        return;
    default: {
        const int bias = form == HT_FORM_2SO ? 2 : form == HT_FORM_3S ? 4 : 1;
        for (size_t i = 0; i < HT_STEP; i++)
            u[i] = (uint8_t)(q[i] + bias);
        uint8_t *codes = form == HT_FORM_2R ? to->step : to->step + 64;
        put_plane(codes, to, 2, 0, u);
        if (form == HT_FORM_3S)
            put_plane(codes + 256, to, 1, 2, u);
    }
    }
}

void ht_pack_small_row(const ht_matrix *m, size_t row, size_t col_begin, ht_packed *p, uint8_t *strip, size_t lane,
                       void *scratch) {
    const size_t group = (size_t)m->type->group, groups = m->cols / group, blocks = m->cols / 256;
    float *scales = scratch, *offsets = scales + groups;
    int8_t *codes = (int8_t *)(offsets + groups);
    row_levels of = {.d = (uint16_t *)(void *)(codes + ht_round_up(m->cols, 2))};
    of.dmin = of.d + blocks, of.sub = (int8_t *)(of.dmin + blocks), of.sub_min = of.sub + groups;
    ht_matrix plain = *m; /* a factor is multiplied by when weights are unpacked */
    plain.factors = NULL;
    ht_matrix_codes(&plain, row, 1, codes, scales, offsets);
    ht_packed_note(p, m, row, scales, offsets);
    const ht_form_traits t = ht_forms[p->form];
    if (ht_grid_of(m->type->type)) {
        pack_grid_row(m, row, col_begin, p, strip, lane);
        return;
    }
    uint8_t names[256];
    name_levels(p->form, names);
    const bool has_levels = ht_matrix_has_levels(m);
    if (has_levels)
        ht_matrix_levels(m, row, 1, of.d, of.dmin, of.sub, of.sub_min);
    for (size_t s = 0; s < p->cols / HT_STEP; s++) {
        const place to = place_of(p, strip, s, lane);
        const size_t col = col_begin + s * HT_STEP, g = col / group;
        if (has_levels)
            put_levels(p->form, &of, s, col, &to);
        else if (!t.span || s % (size_t)t.span == 0)
            put_half(to.head, &to, ht_f32_to_f16(scales[g]));
        if (p->form == HT_FORM_4X16)
            put_half(to.head + 64, &to, ht_f32_to_f16(scales[g + 1]));
        if (p->form != HT_FORM_DIGITS)
            put_codes(p->form, codes + col, names, &to);
        else if (s % 8 == 0)
            put_digits(to.head + 64, &to, codes + col);
    }
}
