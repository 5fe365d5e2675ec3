/* Runs a plan: slices to device queues, joins, one pool of buffers that every layer reuses, the KV cache. */
#ifndef HT_EXEC_H
#define HT_EXEC_H

#include "device/device.h"

#include <stdatomic.h>

#define HT_MAX_DEVICES 8

/* One operator cut into slices that run at the same time on different devices, then one join. */
typedef struct ht_step {
    const ht_op *op;
    size_t n_slices;
    struct ht_step_slice {
        int device; /* index into the engine's devices */
        ht_slice slice;
        ht_task *task;
    } slices[HT_MAX_DEVICES];
} ht_step;

struct ht_engine {
    ht_model *model;
    ht_engine_info info;
    ht_device *devices[HT_MAX_DEVICES];
    size_t n_devices;
    const char *names[HT_MAX_DEVICES];
    ht_step *steps; /* one an operator, in order; the last two are the head: final NORM, lm_head MATMUL */
    size_t n_steps;
    ht_view slots[HT_SLOT_COUNT];
    size_t slot_bytes[HT_SLOT_COUNT];
    size_t last_tokens; /* of the newest forward: what ht_engine_head can be asked for */
    ht_sync sync;
    atomic_flag busy; /* an engine computes one pass at a time; sessions take turns */
};

#define HT_HEAD_TOKENS 32 /* most tokens of one ht_engine_head: logits are wide */

/* Keys and values of one session: [layers]. Pages are touched as tokens arrive. */
ht_status ht_kv_create(const ht_engine *engine, ht_kv_layer **kv, ht_error *error);
void ht_kv_destroy(const ht_engine *engine, ht_kv_layer *kv);

/* Takes and gives the engine for one or more passes. */
void ht_engine_lock(ht_engine *engine);
void ht_engine_unlock(ht_engine *engine);

/* Everything but the head for ids[0..n), n <= info.chunk, at positions position .. position + n - 1; keys and values go to
 * kv. `cancel` (may be NULL) is looked at between steps: HT_ERROR_CANCELLED. The caller holds the engine and has checked
 * ids and position. Allocates nothing. */
ht_status ht_engine_forward(ht_engine *engine, const ht_kv_layer *kv, const int32_t *ids, size_t n, size_t position,
                            const atomic_bool *cancel, ht_error *error);
/* Logits of tokens [first, first + count) of the newest forward, count <= HT_HEAD_TOKENS: [count][vocabulary], valid until
 * the next call on the engine. Once for each token: the final norm adds the last block's output to the residual stream. */
ht_status ht_engine_head(ht_engine *engine, size_t first, size_t count, const float **logits, ht_error *error);

/* exec/sampler.c: picks a token from logits [vocabulary] (left as they are). history: the tokens so far, newest last. */
typedef struct ht_sampler ht_sampler;
ht_status ht_sampler_create(const ht_sampling *options, size_t vocabulary, ht_sampler **sampler, ht_error *error);
void ht_sampler_destroy(ht_sampler *sampler);
int32_t ht_sampler_pick(ht_sampler *sampler, const float *logits, const int32_t *history, size_t n_history);
/* The n_top best tokens of logits [vocabulary] with their log-probabilities, best first (ties: lower id first). */
void ht_top_logprobs(const float *logits, size_t vocabulary, size_t n_top, ht_token_logprob *top);
/* log(sum(exp(logits))) in double. */
double ht_log_sum_exp(const float *logits, size_t vocabulary);

#endif
