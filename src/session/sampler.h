/* From logits to a token, and to log-probabilities (sampler.c). Any thread; a sampler is one thread's at a time. */
#ifndef HT_SAMPLER_H
#define HT_SAMPLER_H

#include "base/base.h"

/* Picks a token from logits [vocabulary] (left as they are). history: the tokens so far, newest last. */
typedef struct ht_sampler ht_sampler;
ht_status ht_sampler_create(const ht_sampling *options, size_t vocabulary, ht_sampler **sampler, ht_error *error);
void ht_sampler_destroy(ht_sampler *sampler);
int32_t ht_sampler_pick(ht_sampler *sampler, const float *logits, const int32_t *history, size_t n_history);
/* What it draws with: the one asked for, or the random one. */
uint64_t ht_sampler_seed(const ht_sampler *sampler);
/* It always takes the largest logit. */
bool ht_sampler_is_greedy(const ht_sampler *sampler);
/* The n_top best tokens of logits [vocabulary] with their log-probabilities, best first (ties: lower id first). */
void ht_top_logprobs(const float *logits, size_t vocabulary, size_t n_top, ht_token_logprob *top);
/* Which is the largest, the lowest of equals. As devices choose it (HT_OP_ARGMAX): a NaN is never it; 0 if all are. */
size_t ht_best_index(const float *values, size_t n);
/* log(sum(exp(logits))) in double. */
double ht_log_sum_exp(const float *logits, size_t vocabulary);

#endif
