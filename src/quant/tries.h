/* The inner loop of the search for scales: one group of weights read with HT_TRIES scales and offsets at once. */
#ifndef HT_TRIES_H
#define HT_TRIES_H

#include "quant/search.h"

#define HT_TRIES 16

/* What does not depend on roundings: sums of w and of w*x over a group. */
typedef struct ht_moments {
    float w, x;
} ht_moments;

typedef enum ht_judge {
    HT_JUDGE_SCALE,      /* x = scale * q */
    HT_JUDGE_LINE,       /* x = scale * q + offset */
    HT_JUDGE_LINE_BELOW, /* the same, offset not above 0 */
    HT_JUDGE_AS_IT_IS    /* scale and offset are given: sums over groups of the same form can be compared */
} ht_judge;

/* Try t rounds `x * inverse[t] + shift[t]` to the grid's nearest value q, and has sums over the group of w*q, w*q*q and
 * w*x*q. scale and offset: the best ones for these roundings, or as given. gain: by how much they lower the sum of w *
 * error^2, up to a constant that all tries of the group have. */
typedef struct ht_tries {
    float inverse[HT_TRIES], shift[HT_TRIES];
    float scale[HT_TRIES], offset[HT_TRIES], gain[HT_TRIES];
} ht_tries;

typedef void ht_tries_function(const ht_grid *grid, const float *x, const float *w, size_t n, const ht_moments *moments,
                               ht_judge judge, ht_tries *tries);
ht_tries_function ht_tries_generic, ht_tries_avx2, ht_tries_avx512;

#endif
