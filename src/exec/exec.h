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
        uint32_t resident, kept; /* of its binding (device.h): what need not move on devices with memory of their own */
        bool yields;             /* likewise */
    } slices[HT_MAX_DEVICES];
} ht_step;

/* A forward pass as steps in order; the last three are the head: final NORM, lm_head MATMUL, ARGMAX. */
typedef struct ht_plan {
    ht_step *steps;
    size_t n_steps;
    size_t
        tail; /* first step that only tokens need whose logits are wanted: the last layer's ATTENTION; 0: not known */
} ht_plan;

/* By the tokens of a pass: devices that are slow with one leave it to others. */
typedef enum ht_phase { HT_PHASE_ONE, HT_PHASE_MANY, HT_PHASES } ht_phase;

#define HT_HEAD_STEPS 3 /* final norm, lm_head, argmax */

/* A slice prepared on a device: steps of both plans may share it. */
typedef struct ht_engine_task {
    int device;
    const ht_op *op;
    ht_slice slice;
    ht_task *task;
    bool dropped; /* its device could not do what it said it could */
} ht_engine_task;

struct ht_engine {
    ht_model *model;
    ht_engine_info info;
    ht_device *devices[HT_MAX_DEVICES];
    size_t n_devices;
    const char *names[HT_MAX_DEVICES];
    ht_plan plans[HT_PHASES];
    const ht_plan *running; /* of the newest forward: its head follows */
    ht_op *blocks;          /* [layers]: FFN operators, where a device takes them as one */
    ht_engine_task *tasks;
    size_t n_tasks, cap_tasks;
    ht_ticket front[HT_MAX_DEVICES]; /* newest of each device; 0: nothing under way that anyone must wait for */
    ht_ticket mark[HT_MAX_DEVICES];  /* the front some steps ago: devices may be ahead of it, not behind */
    ht_view slots[HT_SLOT_COUNT];
    size_t slot_bytes[HT_SLOT_COUNT];
    size_t first_token,
        last_tokens; /* of the newest forward: what ht_engine_head can be asked for, and how many there were */
    ht_sync sync;
    atomic_flag busy; /* an engine computes one pass at a time; sessions take turns */
};

#define HT_HEAD_TOKENS 32 /* most tokens of one ht_engine_head: logits are wide */

/* Keys and values of one session: [layers]. Pages are touched as tokens arrive. Both take the engine for a moment: devices
 * import and forget the pages. */
ht_status ht_kv_create(ht_engine *engine, ht_kv_layer **kv, ht_error *error);
void ht_kv_destroy(ht_engine *engine, ht_kv_layer *kv);

/* Takes and gives the engine for one or more passes. */
void ht_engine_lock(ht_engine *engine);
void ht_engine_unlock(ht_engine *engine);

/* Everything under way ends, whatever comes of it. */
void ht_engine_settle(ht_engine *engine);
size_t ht_engine_slot_tokens(const ht_engine *engine, ht_slot slot); /* rows of its buffer */

/* The plan for a pass of `tokens` tokens. */
static inline const ht_plan *ht_engine_plan_for(const ht_engine *engine, size_t tokens) {
    return &engine->plans[tokens > 1 ? HT_PHASE_MANY : HT_PHASE_ONE];
}
/* Fills both plans, prepares their tasks, builds what the first requests need (placement.c). */
ht_status ht_engine_place(ht_engine *engine, const ht_engine_options *options, ht_error *error);
void ht_engine_unplace(ht_engine *engine); /* nothing is under way */
/* Is the device part of any plan; cache_only: of its ROPE or ATTENTION steps? */
bool ht_engine_uses(const ht_engine *engine, size_t device, bool cache_only);
/* Why the device does not compute the operator whole; NULL: it does. */
const char *ht_device_refuses_whole(const ht_device *device, const ht_op *op);

/* What moves between devices with memory of their own, and who hands over cores, worked out from who computes which step
 * (exec/residency.c). */
void ht_engine_plan_transfers(ht_engine *engine);

/* Everything but the head for ids[0..n), n <= info.chunk, at positions position .. position + n - 1; keys and values go to
 * kv. The head may be asked for tokens [first, n) afterwards: the last layer computes no more than that for the others. Devices may still be computing when it returns: the head waits for them, and so does whoever uses their memory next.
 * `cancel` (may be NULL) is looked at between steps: HT_ERROR_CANCELLED. The caller holds the engine and has checked ids
 * and position. Allocates nothing. */
ht_status ht_engine_forward(ht_engine *engine, const ht_kv_layer *kv, const int32_t *ids, size_t n, size_t position,
                            size_t first, const atomic_bool *cancel, ht_error *error);
/* Logits of tokens [first, first + count) of the newest forward, count <= HT_HEAD_TOKENS: [count][vocabulary], valid until
 * the next call on the engine. Once for each token: the final norm adds the last block's output to the residual stream. */
ht_status ht_engine_head(ht_engine *engine, size_t first, size_t count, const float **logits, ht_error *error);
/* Only the id of the largest logit of token `token`, found where the logits are: for greedy generation. As
 * ht_engine_head, once for each token. */
ht_status ht_engine_pick(ht_engine *engine, size_t token, int32_t *id, ht_error *error);

/* exec/sampler.c: picks a token from logits [vocabulary] (left as they are). history: the tokens so far, newest last. */
typedef struct ht_sampler ht_sampler;
ht_status ht_sampler_create(const ht_sampling *options, size_t vocabulary, ht_sampler **sampler, ht_error *error);
void ht_sampler_destroy(ht_sampler *sampler);
int32_t ht_sampler_pick(ht_sampler *sampler, const float *logits, const int32_t *history, size_t n_history);
/* It always takes the largest logit. */
bool ht_sampler_is_greedy(const ht_sampler *sampler);
/* The n_top best tokens of logits [vocabulary] with their log-probabilities, best first (ties: lower id first). */
void ht_top_logprobs(const float *logits, size_t vocabulary, size_t n_top, ht_token_logprob *top);
/* log(sum(exp(logits))) in double. */
double ht_log_sum_exp(const float *logits, size_t vocabulary);

#endif
