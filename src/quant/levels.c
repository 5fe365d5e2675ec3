/* The K formats' two-level scales, taken apart rather than multiplied out (quant.h). */
#include "quant/quant.h"

#include <string.h>

enum { SUPER = 256 };

bool ht_matrix_has_levels(const ht_matrix *matrix) {
    const ht_type type = matrix->type->type;
    return matrix->data && (type == HT_TYPE_Q4_K || type == HT_TYPE_Q5_K || type == HT_TYPE_Q6_K);
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

void ht_matrix_levels(const ht_matrix *matrix, size_t row, size_t n, uint16_t *d, uint16_t *dmin, int8_t *sub,
                      int8_t *sub_min) {
    const size_t blocks = matrix->cols / SUPER, bytes = (size_t)matrix->type->block_bytes;
    const bool q6 = matrix->type->type == HT_TYPE_Q6_K;
    const size_t groups = q6 ? 16 : 8;
    for (size_t r = 0; r < n; r++) {
        const uint8_t *block = ht_matrix_row(matrix, row + r);
        for (size_t b = 0; b < blocks; b++, block += bytes) {
            const size_t at = r * blocks + b;
            if (q6) {
                memcpy(sub + at * groups, block + 192, groups);
                memcpy(&d[at], block + 208, 2);
            } else {
                memcpy(&d[at], block, 2);
                memcpy(&dmin[at], block + 2, 2);
                dmin[at] ^= 0x8000; /* the formats subtract it */
                k_levels(block + 4, sub + at * groups, sub_min + at * groups);
            }
        }
    }
}
