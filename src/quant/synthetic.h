/* Made-up weights for shape: models: a matrix without data. Cheap, and the same in every run and on every device. */
#ifndef HT_QUANT_SYNTHETIC_H
#define HT_QUANT_SYNTHETIC_H

#include "quant/quant.h"

/* Groups [group, group+n) of one row; offsets may be NULL. */
void ht_synthetic_codes(const ht_matrix *matrix, size_t row, size_t group, size_t n, int8_t *codes, float *scales,
                        float *offsets);
/* Is the type's made-up matrix one of made-up blocks, as a file would have them? Else it is one of canonical codes. */
bool ht_is_made_of_blocks(ht_type type);
/* Blocks [block, block + n) of a row of such a type. */
void ht_synthetic_blocks(const ht_matrix *matrix, size_t row, size_t block, size_t n, uint8_t *out);
/* A row of a floating type, with values that the type can hold. */
void ht_synthetic_floats(const ht_matrix *matrix, size_t row, float *out);

#endif
