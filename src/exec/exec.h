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

/* How far the devices of a lane have been given work. */
typedef struct ht_front {
    ht_ticket newest[HT_MAX_DEVICES]; /* 0: nothing under way that anyone must wait for */
    ht_ticket mark[HT_MAX_DEVICES];   /* the front some steps ago: devices may be ahead of it, not behind */
} ht_front;

/* What tokens cost on a lane (plan/cut.c): seconds of a pass without its head. */
#define HT_MAX_POINTS 16
typedef struct ht_cost_point {
    size_t tokens;
    double seconds;
} ht_cost_point;
typedef struct ht_lane_cost {
    ht_cost_point points[HT_MAX_POINTS]; /* at position 0, by tokens, times not falling */
    size_t n_points;
    bool stepped;   /* static lengths: nothing between the points */
    double per_key; /* more for each token and position before the pass */
} ht_lane_cost;
/* Predicted seconds of n tokens whose first is at `position`. */
double ht_lane_seconds(const ht_lane_cost *cost, size_t n, size_t position);

/* Devices that together compute every operator, on cores of their own: a whole device, or a partial one and the CPU that
 * does the rest on the same cores. Lanes that share no core may compute parts of a pass at the same time. */
typedef struct ht_crew ht_crew; /* threads of lanes (lanes.c) */

typedef struct ht_lane {
    uint32_t devices; /* bit d: the engine's device d */
    uint64_t cores;   /* bit i: occupies core i of the machine */
    ht_plan plans[HT_PHASES];
    ht_front front;
    ht_lane_cost cost;
} ht_lane;

/* Tokens of a pass by lane: the first lane with any takes the first ones. */
typedef struct ht_cut {
    size_t tokens[HT_MAX_DEVICES];
} ht_cut;

/* A slice prepared on a device: steps of several plans may share it. */
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
    ht_lane lanes[HT_MAX_DEVICES]; /* in the order in which they take tokens */
    size_t n_lanes;
    ht_lane *running;    /* of the newest forward, which computed its last tokens: the head follows there */
    const ht_plan *plan; /* likewise */
    ht_crew *crew;       /* threads of the other lanes (lanes.c); NULL: one lane */
    ht_op *blocks;       /* [layers]: FFN operators, where a device takes them as one */
    ht_engine_task *tasks;
    size_t n_tasks, cap_tasks;
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

/* A lane's plan for `tokens` tokens. */
static inline const ht_plan *ht_lane_plan(const ht_lane *lane, size_t tokens) {
    return &lane->plans[tokens > 1 ? HT_PHASE_MANY : HT_PHASE_ONE];
}
/* Fills the lanes' plans, prepares their tasks, builds what the first requests need (placement.c). */
ht_status ht_engine_place(ht_engine *engine, const ht_engine_options *options, ht_error *error);
void ht_engine_unplace(ht_engine *engine); /* nothing is under way */
/* Is the device part of any plan; cache_only: of its ROPE or ATTENTION steps? */
bool ht_engine_uses(const ht_engine *engine, size_t device, bool cache_only);
/* Why the device does not compute the operator whole; NULL: it does. */
const char *ht_device_refuses_whole(const ht_device *device, const ht_op *op);

/* Has any device of the lane memory of its own? */
bool ht_lane_copies(const ht_engine *engine, const ht_lane *lane);
/* What moves between devices with memory of their own, and who hands over cores, worked out from who computes which step
 * (exec/residency.c). */
void ht_engine_plan_transfers(ht_engine *engine);

/* Everything but the head for ids[0..n), n <= info.chunk, at positions position .. position + n - 1; keys and values go to
 * kv. The head may be asked for tokens [first, n) afterwards: the last layer computes no more than that for the others.
 * Devices may still be computing when it returns: the head waits for them, and so does whoever uses their memory next.
 * `cancel` (may be NULL) is looked at between steps: HT_ERROR_CANCELLED. The caller holds the engine and has checked ids
 * and position. Allocates nothing. */
ht_status ht_engine_forward(ht_engine *engine, const ht_kv_layer *kv, const int32_t *ids, size_t n, size_t position,
                            size_t first, const atomic_bool *cancel, ht_error *error);

/* ---- inside a pass (pass.c, lanes.c) ---------------------------------------------------------------------------------- */

/* One lane's part of a pass. */
typedef struct ht_run {
    ht_engine *engine;
    ht_lane *lane;
    const ht_plan *plan;
    const atomic_bool *cancel; /* may be NULL */
    ht_crew *crew;             /* of a pass that several lanes share; NULL: this lane has it alone */
    size_t index;              /* of the lane among those that share it */
} ht_run;

/* Runs steps [first, end) of the plan; after a failure nothing of the lane is under way. */
ht_status ht_run_steps(const ht_run *run, size_t first, size_t end, const ht_binding *common, ht_error *error);
/* Runs everything but the head for all of the binding's tokens, the tail of the last layer for tokens [wanted, ..) of them
 * only, by the plan for so few: run->plan is the one that has computed them. */
ht_status ht_run_body(ht_run *run, const ht_binding *common, size_t wanted, ht_error *error);
/* Waits until every device has reached what the lane gave it, whatever comes of the others. */
ht_status ht_lane_join(ht_engine *engine, ht_lane *lane, ht_sync sync, ht_error *error);
/* What is bound of `all` from token `first` on, its slots in slots[]; logits and picks stay where they are. */
ht_binding ht_binding_from(const ht_binding *all, size_t first, ht_view slots[HT_SLOT_COUNT]);
/* What a pass at position 0 is predicted to take, cut like this and on each lane alone. */
void ht_engine_predict(const ht_engine *engine, size_t n, const ht_cut *cut, ht_plan_times *times);
/* Times the lanes, whose tasks are prepared, for ht_engine_cut (plan/cut.c). */
ht_status ht_engine_measure_lanes(ht_engine *engine, const ht_engine_options *options, ht_error *error);
/* Which lane takes how many of a pass's n tokens, so that the last one to end ends first; logits of [first, n) are wanted
 * (plan/cut.c). A lane alone where that is predicted to be quicker. */
void ht_engine_cut(const ht_engine *engine, size_t n, size_t position, size_t first, ht_cut *cut);

/* Threads for the lanes after the first one, asleep between passes. *crew is NULL after a failure. */
ht_status ht_crew_create(size_t lanes, ht_crew **crew, ht_error *error);
void ht_crew_destroy(ht_crew *crew);
/* ht_run_body on several lanes at once: the causal cut. Each computes its tokens through all layers; a layer's attention
 * starts once the lanes before have their keys and values of it. binding: of the whole pass. */
ht_status ht_crew_run(ht_crew *crew, ht_engine *engine, const ht_cut *cut, const ht_binding *binding, size_t first,
                      const atomic_bool *cancel, ht_error *error);
/* Called by ht_run_steps around a step of a shared pass: waits for lanes before; tells lanes after. */
ht_status ht_crew_before(const ht_run *run, const ht_step *step, ht_error *error);
ht_status ht_crew_after(const ht_run *run, const ht_step *step, ht_sync sync, ht_error *error);

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
