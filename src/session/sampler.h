/* From logits to a token, and to log-probabilities (sampler.c). Any thread; a sampler is one thread's at a time. */
#ifndef HT_SAMPLER_H
#define HT_SAMPLER_H

#include "base/base.h"

size_t ht_sampler_vocabulary(const ht_sampler *sampler);
/* Where its generator stands, and the seed that it began with: what one must be given to draw as another would. */
typedef struct ht_sampler_place {
    uint64_t state[4], seed;
} ht_sampler_place;
ht_sampler_place ht_sampler_tell(const ht_sampler *sampler);
void ht_sampler_seek(ht_sampler *sampler, const ht_sampler_place *place);
/* It always takes the largest logit. */
bool ht_sampler_is_greedy(const ht_sampler *sampler);
/* The n_top best tokens of logits [vocabulary] with their log-probabilities, best first (ties: lower id first). */
void ht_top_logprobs(const float *logits, size_t vocabulary, size_t n_top, ht_token_logprob *top);
/* Which is the largest, the lowest of equals. As devices choose it (HT_OP_ARGMAX), a NaN is never it; 0 if all are. */
size_t ht_best_index(const float *values, size_t n);
/* log(sum(exp(logits))) in double. */
double ht_log_sum_exp(const float *logits, size_t vocabulary);

#endif
