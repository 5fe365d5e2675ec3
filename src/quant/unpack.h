/* Rows of blocks to canonical codes, a function a format: decode.c, unpack_low.c and unpack_grid.c have them. */
#ifndef HT_QUANT_UNPACK_H
#define HT_QUANT_UNPACK_H

#include "quant/quant.h"

#include <string.h>

/* One row: `blocks` blocks to symmetric codes, one scale a group, and the format's own minimum a group (what it adds to
 * scale * unsigned code; zero rows are not written for formats that have none). */
typedef void ht_unpack_row(const uint8_t *restrict in, size_t blocks, int8_t *restrict codes, float *restrict scales,
                           float *restrict minima);

ht_unpack_row ht_unpack_q2_k, ht_unpack_q3_k, ht_unpack_iq4_xs, ht_unpack_nvfp4, ht_unpack_tq1_0, ht_unpack_tq2_0,
    ht_unpack_q1_0, ht_unpack_q2_0; /* unpack_low.c */
ht_unpack_row ht_unpack_iq1_s, ht_unpack_iq1_m, ht_unpack_iq2_xxs, ht_unpack_iq2_xs, ht_unpack_iq2_s, ht_unpack_iq3_xxs,
    ht_unpack_iq3_s; /* unpack_grid.c */

/* Six-bit scales of Q3_K's sixteen groups (minus 32), and of IQ4_XS's eight. */
void ht_sub_scales_q3_k(const uint8_t *block, int8_t sub[16]);
void ht_sub_scales_iq4_xs(const uint8_t *block, int8_t sub[8]);

static inline uint16_t ht_load16(const uint8_t *data) {
    uint16_t value;
    memcpy(&value, data, sizeof value);
    return value;
}
static inline uint32_t ht_load32(const uint8_t *data) {
    uint32_t value;
    memcpy(&value, data, sizeof value);
    return value;
}
static inline float ht_load_half(const uint8_t *data) {
    return ht_f16_to_f32(ht_load16(data));
}

#endif
