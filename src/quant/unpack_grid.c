/* Formats that keep places in a codebook: IQ1_S, IQ1_M, IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS, IQ3_S. Any index lies in its
 * codebook, whatever the file's bits. */
#include "quant/grids.h"
#include "quant/unpack.h"

/* Codes are whole numbers: those of IQ1 are eight times the format's -1, 0, 1 and its shift of an eighth, those of
 * IQ3_XXS half of the format's. `unit` makes up for it. */
#define IQ2_MAGNITUDES \
    { 8, 25, 43 }
static const ht_grid grids[] = {
    {ht_grid_iq1, 11, 8, {-8, 0, 8}, 0.125f},
    {ht_grid_iq2_xxs, 8, 8, IQ2_MAGNITUDES, 0.125f},
    {ht_grid_iq2_xs, 9, 8, IQ2_MAGNITUDES, 0.125f},
    {ht_grid_iq2_s, 10, 8, IQ2_MAGNITUDES, 0.125f},
    {ht_grid_iq3_xxs, 8, 4, {2, 6, 10, 14, 18, 22, 26, 31}, 0.5f},
    {ht_grid_iq3_s, 9, 4, {1, 3, 5, 7, 9, 11, 13, 15}, 1},
};

const ht_grid *ht_grid_of(ht_type type) {
    switch ((int)type) {
    case HT_TYPE_IQ1_S:
    case HT_TYPE_IQ1_M:
        return &grids[0];
    case HT_TYPE_IQ2_XXS:
        return &grids[1];
    case HT_TYPE_IQ2_XS:
        return &grids[2];
    case HT_TYPE_IQ2_S:
        return &grids[3];
    case HT_TYPE_IQ3_XXS:
        return &grids[4];
    case HT_TYPE_IQ3_S:
        return &grids[5];
    }
    return NULL;
}

/* Signs of eight columns in seven bits: an even number of columns is negative, so the eighth follows from the others. */
static uint8_t even_signs(unsigned seven) {
    const unsigned folded = seven ^ seven >> 4, twice = folded ^ folded >> 2;
    return (uint8_t)(seven | (twice ^ twice >> 1) << 7);
}

static void put_sub(ht_grid_block *out, int group32, unsigned first, unsigned second) {
    out->sub[2 * group32] = (int8_t)(2 * first + 1);
    out->sub[2 * group32 + 1] = (int8_t)(2 * second + 1);
}

/* Of 32 columns: four signs of seven bits and a scale of four in one word. */
static void signs_and_scale(uint32_t word, int group32, ht_grid_block *out) {
    for (int i = 0; i < 4; i++)
        out->signs[4 * group32 + i] = even_signs(word >> 7 * i & 127);
    put_sub(out, group32, word >> 28, word >> 28);
}

static void read_iq1_s(const uint8_t *in, ht_grid_block *out) {
    out->d = ht_load16(in);
    for (int g = 0; g < 8; g++) {
        const unsigned high = ht_load16(in + 34 + 2 * g);
        put_sub(out, g, high >> 12 & 7, high >> 12 & 7);
        for (int i = 0; i < 4; i++) {
            out->index[4 * g + i] = (uint16_t)(in[2 + 4 * g + i] | (high >> 3 * i & 7) << 8);
            out->shift[4 * g + i] = high & 0x8000 ? -1 : 1;
        }
    }
}

/* The scale of the block lies in the top nibbles of four words, whose other bits are the groups' scales. */
static void read_iq1_m(const uint8_t *in, ht_grid_block *out) {
    unsigned d = 0;
    for (int i = 0; i < 4; i++)
        d |= (unsigned)(ht_load16(in + 48 + 2 * i) >> 12) << 4 * i;
    out->d = (uint16_t)d;
    for (int g = 0; g < 8; g++) {
        const unsigned word = ht_load16(in + 48 + 2 * (g / 2)) >> 6 * (g % 2);
        put_sub(out, g, word & 7, word >> 3 & 7);
    }
    for (int i = 0; i < 32; i++) {
        const unsigned high = in[32 + i / 2] >> 4 * (i % 2) & 15;
        out->index[i] = (uint16_t)(in[i] | (high & 7) << 8);
        out->shift[i] = high & 8 ? -1 : 1;
    }
}

static void read_iq2_xxs(const uint8_t *in, ht_grid_block *out) {
    out->d = ht_load16(in);
    for (int g = 0; g < 8; g++) {
        for (int i = 0; i < 4; i++)
            out->index[4 * g + i] = in[2 + 8 * g + i];
        signs_and_scale(ht_load32(in + 2 + 8 * g + 4), g, out);
    }
}

static void read_iq2_xs(const uint8_t *in, ht_grid_block *out) {
    out->d = ht_load16(in);
    for (int i = 0; i < 32; i++) {
        const unsigned word = ht_load16(in + 2 + 2 * i);
        out->index[i] = word & 511;
        out->signs[i] = even_signs(word >> 9);
    }
    for (int g = 0; g < 8; g++)
        put_sub(out, g, in[66 + g] & 15, in[66 + g] >> 4);
}

static void read_iq2_s(const uint8_t *in, ht_grid_block *out) {
    out->d = ht_load16(in);
    for (int i = 0; i < 32; i++)
        out->index[i] = (uint16_t)(in[2 + i] | (in[66 + i / 4] >> 2 * (i % 4) & 3) << 8);
    memcpy(out->signs, in + 34, 32);
    for (int g = 0; g < 8; g++)
        put_sub(out, g, in[74 + g] & 15, in[74 + g] >> 4);
}

static void read_iq3_xxs(const uint8_t *in, ht_grid_block *out) {
    out->d = ht_load16(in);
    for (int i = 0; i < 64; i++)
        out->index[i] = in[2 + i];
    for (int g = 0; g < 8; g++)
        signs_and_scale(ht_load32(in + 66 + 4 * g), g, out);
}

static void read_iq3_s(const uint8_t *in, ht_grid_block *out) {
    out->d = ht_load16(in);
    for (int i = 0; i < 64; i++)
        out->index[i] = (uint16_t)(in[2 + i] | (in[66 + i / 8] >> i % 8 & 1) << 8);
    memcpy(out->signs, in + 74, 32);
    for (int g = 0; g < 8; g++) {
        const unsigned scale = in[106 + g / 2] >> 4 * (g % 2) & 15;
        put_sub(out, g, scale, scale);
    }
}

void ht_grid_read(ht_type type, const uint8_t *block, ht_grid_block *out) {
    memset(out, 0, sizeof *out);
    switch ((int)type) {
    case HT_TYPE_IQ1_S:
        read_iq1_s(block, out);
        return;
    case HT_TYPE_IQ1_M:
        read_iq1_m(block, out);
        return;
    case HT_TYPE_IQ2_XXS:
        read_iq2_xxs(block, out);
        return;
    case HT_TYPE_IQ2_XS:
        read_iq2_xs(block, out);
        return;
    case HT_TYPE_IQ2_S:
        read_iq2_s(block, out);
        return;
    case HT_TYPE_IQ3_XXS:
        read_iq3_xxs(block, out);
        return;
    default:
        read_iq3_s(block, out);
    }
}

static void multiply_out(ht_type type, const uint8_t *in, size_t blocks, int8_t *codes, float *scales) {
    const ht_grid *grid = ht_grid_of(type);
    const ht_type_traits *t = ht_type_get(type);
    const unsigned each = 16 / grid->columns;
    for (size_t b = 0; b < blocks; b++, in += t->block_bytes, codes += 256) {
        ht_grid_block of;
        ht_grid_read(type, in, &of);
        const float d = ht_f16_to_f32(of.d) * grid->unit;
        for (int g = 0; g < 256; g += t->group) {
            const int at = g / 16;
            *scales++ = d * (float)of.sub[at];
        }
        for (unsigned i = 0; i < 256 / grid->columns; i++)
            for (unsigned k = 0, at = i * grid->columns; k < grid->columns; k++, at++) {
                const int8_t value = grid->magnitudes[grid->entries[of.index[i]] >> each * k & ((1u << each) - 1) & 7];
                codes[at] = (int8_t)((of.signs[at / 8] >> at % 8 & 1 ? -value : value) + of.shift[at / 8]);
            }
    }
}

#define UNPACK(name, type)                                                                                           \
    void ht_unpack_##name(const uint8_t *restrict in, size_t blocks, int8_t *restrict codes, float *restrict scales, \
                          float *restrict minima) {                                                                  \
        multiply_out(type, in, blocks, codes, scales);                                                               \
    }
UNPACK(iq1_s, HT_TYPE_IQ1_S)
UNPACK(iq1_m, HT_TYPE_IQ1_M)
UNPACK(iq2_xxs, HT_TYPE_IQ2_XXS)
UNPACK(iq2_xs, HT_TYPE_IQ2_XS)
UNPACK(iq2_s, HT_TYPE_IQ2_S)
UNPACK(iq3_xxs, HT_TYPE_IQ3_XXS)
UNPACK(iq3_s, HT_TYPE_IQ3_S)
