/* The IQ1, IQ2 and IQ3 formats as they are kept: places in a codebook ("grid"), signs, small scales. Devices that pack
 * them so keep the file's bits; ht_matrix_codes multiplies them out. */
#ifndef HT_QUANT_GRIDS_H
#define HT_QUANT_GRIDS_H

#include "quant/quant.h"

/* Codebooks, see grids.c: entry i is the places of eight columns' magnitudes, 2 bits each (iq1, iq2), or of four
 * columns', 4 bits each (iq3). One entry of no meaning stands behind the last, so that 32 bits can be read at any of
 * them. */
extern const uint16_t ht_grid_iq1[2048 + 1], ht_grid_iq2_xxs[256 + 1], ht_grid_iq2_xs[512 + 1], ht_grid_iq2_s[1024 + 1],
    ht_grid_iq3_xxs[256 + 1], ht_grid_iq3_s[512 + 1];

typedef struct ht_grid {
    const uint16_t *entries;
    unsigned bits;        /* of an index */
    unsigned columns;     /* that an entry is for: 8 or 4 */
    int8_t magnitudes[8]; /* of a place; iq1: signed values */
    float unit;           /* scale = d * sub * unit */
} ht_grid;
const ht_grid *ht_grid_of(ht_type type); /* NULL: no such format */

/* 256 columns. code = (magnitude or, where the column's sign bit is set, its negative) + shift. */
typedef struct ht_grid_block {
    uint16_t d;         /* fp16 bits */
    int8_t sub[16];     /* of 16 columns: odd, 1 to 31 */
    uint16_t index[64]; /* below 2^bits; 32 of them where an entry is for eight columns */
    uint8_t signs[32];  /* of eight columns, the first lowest; iq1: 0 */
    int8_t shift[32];   /* of eight columns: 1 or -1 in iq1, 0 in others */
} ht_grid_block;
/* One block of a file, or of ht_matrix_blocks. */
void ht_grid_read(ht_type type, const uint8_t *block, ht_grid_block *out);

#endif
