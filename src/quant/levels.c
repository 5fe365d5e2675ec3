/* The K formats' two-level scales, taken apart rather than multiplied out (quant.h). */
#include "quant/unpack.h"

enum { SUPER = 256 };

bool ht_matrix_has_levels(const ht_matrix *matrix) {
    switch ((int)matrix->type->type) {
    case HT_TYPE_Q4_K:
    case HT_TYPE_Q5_K:
    case HT_TYPE_Q6_K:
        return matrix->data != NULL;
    case HT_TYPE_Q2_K:
    case HT_TYPE_Q3_K:
    case HT_TYPE_IQ4_XS:
        return true; /* their blocks are made up where there is no file */
    }
    return false;
}

/* Six-bit scales and minima of eight groups in 12 bytes: the first four plain, the others split over two places. */
static void k_levels(const uint8_t *in, int8_t *sub, int8_t *sub_min) {
    for (int g = 0; g < 4; g++) {
        sub[g] = (int8_t)(in[g] & 63);
        sub_min[g] = (int8_t)(in[g + 4] & 63);
        sub[g + 4] = (int8_t)((in[g + 8] & 15) | (in[g] >> 6) << 4);
        sub_min[g + 4] = (int8_t)((in[g + 8] >> 4) | (in[g + 4] >> 6) << 4);
    }
}

/* One block's; minima count as what is added. */
static void levels_of(ht_type type, const uint8_t *block, uint16_t *d, uint16_t *dmin, int8_t *sub, int8_t *sub_min) {
    switch ((int)type) {
    case HT_TYPE_Q6_K:
        memcpy(sub, block + 192, 16);
        *d = ht_load16(block + 208);
        return;
    case HT_TYPE_Q3_K:
        ht_sub_scales_q3_k(block, sub);
        *d = ht_load16(block + 108);
        return;
    case HT_TYPE_IQ4_XS:
        ht_sub_scales_iq4_xs(block, sub);
        *d = ht_load16(block);
        return;
    case HT_TYPE_Q2_K:
        for (int g = 0; g < 16; g++) {
            sub[g] = (int8_t)(block[g] & 15);
            sub_min[g] = (int8_t)(block[g] >> 4);
        }
        block += 80;
        break;
    default:
        k_levels(block + 4, sub, sub_min);
    }
    *d = ht_load16(block);
    *dmin = ht_load16(block + 2) ^ 0x8000; /* the formats subtract it */
}

void ht_matrix_levels(const ht_matrix *matrix, size_t row, size_t n, uint16_t *d, uint16_t *dmin, int8_t *sub,
                      int8_t *sub_min) {
    const size_t blocks = matrix->cols / SUPER, groups = SUPER / (size_t)matrix->type->group;
    uint8_t made[SUPER];
    for (size_t r = 0; r < n; r++)
        for (size_t b = 0; b < blocks; b++) {
            const size_t at = r * blocks + b;
            uint16_t none;
            int8_t no_minima[SUPER / 16];
            levels_of(matrix->type->type, ht_matrix_blocks(matrix, row + r, b, 1, made), &d[at],
                      matrix->type->offset ? &dmin[at] : &none, sub + at * groups,
                      matrix->type->offset ? sub_min + at * groups : no_minima);
        }
}
