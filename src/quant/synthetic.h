/* Made-up weights for shape: models: a matrix without data. Cheap, and the same in every run and on every device. */
#ifndef HT_QUANT_SYNTHETIC_H
#define HT_QUANT_SYNTHETIC_H

#include "quant/quant.h"

/* Groups [group, group+n) of one row; offsets may be NULL. */
void ht_synthetic_codes(const ht_matrix *matrix, size_t row, size_t group, size_t n, int8_t *codes, float *scales,
                        float *offsets);
/* A row of a floating type, with values that the type can hold. */
void ht_synthetic_floats(const ht_matrix *matrix, size_t row, float *out);

#endif
