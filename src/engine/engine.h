/* Runs a plan: slices to device queues, joins, one pool of buffers that every layer reuses, the KV cache. */
#ifndef HT_EXEC_H
#define HT_EXEC_H

#include "device/common.h"
#include "plan/plan.h"

#include <stdatomic.h>

/* One operator, or a slice of it, on one device. The fields of the second half are for passes that several lanes share. */
typedef struct ht_step {
    const ht_op *op;
    int device; /* index into the engine's devices */
    ht_slice slice;
    ht_task *task;
    uint32_t resident, kept; /* of its binding (device.h): what need not move on devices with memory of their own */
    bool yields;             /* likewise */

    bool divides;       /* only `part` of the task */
    bool own;           /* slots X and NORMED are the lane's own: every lane computes the same norms */
    uint8_t adds;       /* NORM: adds what lane i of the pass wrote to its buffer number `delta` - 1, for every bit i;
                     * others: write to lane i's */
    uint32_t publishes; /* not 0: how far the lane is once this is complete, for the others to know */
    uint8_t delta;      /* slot DELTA is 0: the shared one; k: the lane's own buffer of partial sums number k - 1 */
    uint8_t waits;      /* bit i: begins once lane i of the pass has published `need` times */
    uint32_t need;
    uint32_t begin, end; /* tokens of the pass; 0, 0: all */
    ht_slice part;
} ht_step;

/* A forward pass as steps in order; the last three are the head: final NORM, lm_head MATMUL, ARGMAX. */
typedef struct ht_plan {
    ht_step *steps;
    size_t n_steps, cap_steps;
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

/* Devices that together compute every operator, on cores of their own: a whole device, or a partial one and the CPU that
 * does the rest on the same cores. Lanes that share no core may compute parts of a pass at the same time. */
typedef struct ht_crew ht_crew; /* threads of lanes (crew.c) */

typedef struct ht_lane {
    uint32_t devices; /* bit d: the engine's device d */
    ht_cores cores;   /* of the machine, that it occupies */
    bool lost;        /* one of its devices failed: it takes no part any more */
    bool crowded;     /* a device's own threads compute on these cores: the lane's thread must not poll meanwhile */
    ht_plan plans[HT_PHASES];
    ht_front front;
    ht_lane_cost cost;              /* what its operators take (plan/cost.c) */
    ht_lane_cost whole;             /* the same, with the lengths only whose graphs of whole operators are there */
    ht_view own_x, own_normed;      /* where every lane computes the residual stream; no data: not allocated */
    ht_view deltas[HT_LANE_DELTAS]; /* partial sums: of attention and of feed-forward blocks in turn */
} ht_lane;

/* What passes take over what the tables of times predict. All ones: as predicted. Doubles only. */
typedef struct ht_pace {
    double lanes[HT_MAX_DEVICES][HT_REGIMES]; /* busy, not waiting */
    double stall[HT_REGIMES]; /* waiting that was not predicted: what a pass takes over what its lanes are busy */
    double head;
} ht_pace;
extern const ht_pace ht_even_pace;

/* How a kind of pass is computed, and its lanes' programs (program.c). */
typedef struct ht_schedule {
    size_t tokens, wanted,
        position; /* for passes of so many tokens of which the last `wanted` go to the end, from about
                                        this position on; tokens 0: unused */
    uint64_t age; /* when it was used last */
    ht_choice choice;
    ht_pace pace;   /* lately */
    ht_pace usual;  /* before the first request: what is not used is believed to become again */
    ht_pace solved; /* when the choice was made */
    double ratios[HT_MAX_DEVICES], whole,
        head;                    /* of the pass before: what lanes[i], and all of it, took over what was predicted */
    double busy[HT_MAX_DEVICES]; /* predicted, of lanes[i]: seconds without waiting */
    size_t n_lanes;              /* that take part, in the order in which they take tokens */
    ht_lane *lanes[HT_MAX_DEVICES];
    ht_plan programs[HT_MAX_DEVICES]; /* more than one lane: theirs, the head included where all compute it */
    size_t runs;
    bool tried; /* what passes of this kind take was learnt before the first request, now or in an earlier process */
    bool heads; /* one head was timed at least */
    bool stale; /* the choice is to be made anew */
} ht_schedule;
#define HT_SCHEDULES 64

/* A slice prepared on a device: steps of several plans may share it. */
typedef struct ht_engine_task {
    int device;
    const ht_op *op;
    ht_slice slice;
    ht_task *task;
    bool dropped; /* its device could not do what it said it could */
} ht_engine_task;

/* What happened when, in a pass that is recorded. */
typedef struct ht_event {
    const char *what, *device; /* operator's name; "wait" */
    size_t lane;
    double begin, end; /* seconds, of the engine's clock */
} ht_event;
typedef struct ht_recording { /* of one lane: written by its thread alone */
    ht_event *events;
    size_t n, capacity;
} ht_recording;

struct ht_engine {
    ht_model *model;
    ht_engine_info info;
    ht_clock *time;             /* of its devices; NULL: the machine's own */
    struct ht_machine *machine; /* of simulated devices */
    ht_device *devices[HT_MAX_DEVICES];
    size_t n_devices, n_named; /* the first n_named were asked for, others are companions */
    bool found;                /* nobody asked for them: they were found */
    const char *names[HT_MAX_DEVICES];
    ht_lane lanes[HT_MAX_DEVICES]; /* in the order in which they take tokens */
    size_t n_lanes;
    ht_schedule schedules[HT_SCHEDULES];
    ht_schedule *current; /* of the newest forward: the head follows in the same way */
    uint64_t clock;       /* counts passes */
    unsigned cuts;        /* ht_cuts that schedules may use */
    bool apart;           /* a feed-forward block is never one operator: the cuts asked for are of single matrices */
    bool by_operator;     /* plans cut single operators only: the regime OWNER (for experiments) */
    bool fixed;           /* plans stay as they were first made: nothing is learnt from passes (for experiments) */
    bool by_rule;     /* a device is emulated: shares follow a rule (engine/nominal.c), no time is measured or told */
    bool forced;      /* several lanes, even where one alone is predicted to be quicker */
    ht_lane *running; /* of the newest forward, if one lane computes the head */
    const ht_plan *plan; /* likewise */
    ht_crew *crew;       /* threads of the other lanes (crew.c); NULL: one lane */
    size_t segment_of[HT_SEGMENTS], segment_grain[HT_SEGMENTS]; /* units of a segment; rows, heads or features of one */
    size_t built[HT_MAX_DEVICES][HT_SEGMENTS][HT_MAX_SHARES]; /* shares that static lanes have graphs for; 0: no more */
    const ht_lane *alone;     /* transfers are planned as if this lane were the only one; NULL: all are */
    bool trying;              /* passes are made to learn what ways to compute cost */
    bool may_build;           /* such graphs may be built now: not while a request waits */
    bool full;                /* there is no memory for more graphs, but of other lengths of shares that have some */
    atomic_uint failed;       /* bit d: device d has failed since the last recovery */
    ht_recording *recordings; /* [n_lanes]; NULL: nothing is recorded */
    ht_op *blocks;            /* [layers]: FFN operators, where a device takes them as one */
    ht_engine_task *tasks;
    size_t n_tasks, cap_tasks;
    ht_view slots[HT_SLOT_COUNT];
    size_t slot_bytes[HT_SLOT_COUNT];
    size_t first_token,
        last_tokens; /* of the newest forward: what ht_engine_head can be asked for, and how many there were */
    ht_sync sync;
    atomic_flag busy; /* an engine computes one pass at a time; sessions take turns */
};

/* As ht_engine_create on this list of devices that nobody named: one that cannot be opened is left out, with a warning. */
ht_status ht_engine_create_found(ht_model *model, const ht_engine_options *options, const char *found, ht_engine **out,
                                 ht_error *error);

#define HT_HEAD_TOKENS 32 /* most tokens of one ht_engine_head: logits are wide */

/* Keys and values of one session: [layers]. Pages are touched as tokens arrive. Both take the engine for a moment: devices
 * import and forget the pages. */
ht_status ht_kv_create(ht_engine *engine, ht_kv_layer **kv, ht_error *error);
void ht_kv_destroy(ht_engine *engine, ht_kv_layer *kv);
/* The same for who has the engine already. */
ht_status ht_kv_create_locked(ht_engine *engine, ht_kv_layer **kv, ht_error *error);
void ht_kv_destroy_locked(ht_engine *engine, ht_kv_layer *kv);

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
/* Does any of these devices (bits) compute each of the model's operators? */
bool ht_engine_takes_all(const ht_engine *engine, uint32_t devices);

/* Has any device of the lane memory of its own? */
bool ht_lane_copies(const ht_engine *engine, const ht_lane *lane);
/* What moves between devices with memory of their own, and who hands over cores, worked out from who computes which step
 * (lane/transfers.c). */
void ht_engine_plan_transfers(ht_engine *engine);

/* Everything but the head for ids[0..n), n <= info.chunk, at positions position .. position + n - 1; keys and values go to
 * kv. The head may be asked for tokens [first, n) afterwards: the last layer computes no more than that for the others.
 * Devices may still be computing when it returns: the head waits for them, and so does whoever uses their memory next.
 * `cancel` (may be NULL) is looked at between steps: HT_ERROR_CANCELLED. The caller holds the engine and has checked ids
 * and position. Allocates nothing. */
ht_status ht_engine_forward(ht_engine *engine, const ht_kv_layer *kv, const int32_t *ids, size_t n, size_t position,
                            size_t first, const atomic_bool *cancel, ht_error *error);

/* ---- inside a pass (pass.c, crew.c) ---------------------------------------------------------------------------------- */

/* One lane's part of a pass. */
typedef struct ht_run {
    ht_engine *engine;
    ht_lane *lane;
    const ht_plan *plan;
    const atomic_bool *cancel; /* may be NULL */
    ht_crew *crew;             /* of a pass that several lanes share; NULL: this lane has it alone */
    size_t index;              /* of the lane among those that share it */
    size_t offset;             /* of the binding's token 0 in the lane's own buffers */
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

/* ---- schedules (program.c) ---------------------------------------------------------------------------------------------- */

/* How to compute n tokens from `position` on, of which the last `wanted` go to the end: found again, or solved now. */
ht_status ht_engine_schedule(ht_engine *engine, size_t n, size_t position, size_t wanted, ht_schedule **schedule,
                             ht_error *error);
/* The solver's question for such a pass; its lanes in lanes[]. */
ht_problem ht_engine_problem(const ht_engine *engine, size_t n, size_t position, size_t wanted, const ht_pace *pace,
                             ht_solver_lane lanes[HT_MAX_DEVICES]);
/* After a pass: what it took, all in all and each lane (busy[i] of schedule->lanes[i], without waiting). */
void ht_engine_learn(ht_engine *engine, ht_schedule *schedule, double seconds, const double *busy);
/* The same of a head of one token. */
void ht_engine_learn_head(ht_engine *engine, double seconds);
/* Has what passes take moved so far that the choice is worth making anew? */
bool ht_engine_has_moved(const ht_engine *engine, const ht_schedule *schedule);
void ht_engine_forget_schedules(ht_engine *engine); /* lanes have changed */
/* The schedule of such passes, without a choice as yet if it is new; the one used least lately makes room for it. */
ht_schedule *ht_engine_find_schedule(ht_engine *engine, size_t n, size_t position, size_t wanted);
/* What several lanes need besides plans: their threads, buffers of their own, how finely operators are divided. */
ht_status ht_engine_prepare_sharing(ht_engine *engine, ht_error *error);
/* Measures the lanes, or finds what was measured before (engine/measure.c); then solves for prompts that are expected and
 * has graphs of shares built. */
ht_status ht_engine_measure_lanes(ht_engine *engine, const ht_engine_options *options, ht_error *error);
ht_status ht_engine_expect(ht_engine *engine, const ht_engine_options *options, ht_error *error);
void ht_engine_keep_learnt(const ht_engine *engine); /* beside the tables of times, for later processes */
/* Where one lane is predicted to be as quick for all prompts to come, and in decode, as any or several are: closes the
 * devices of the others, and is an engine of one lane from then on. */
ht_status ht_engine_reduce(ht_engine *engine, const ht_engine_options *options, bool *reduced, ht_error *error);
/* A device has failed: its lanes go on without it, or are lost. False: nothing is left that computes the model. */
bool ht_engine_recover(ht_engine *engine);

void ht_engine_keep_ready(ht_engine *engine); /* which graphs are there, for the lanes' tables of whole operators */
void ht_lane_free_buffers(const ht_engine *engine, ht_lane *lane);
/* Fills a lane's plans anew, after it has lost a device. */
ht_status ht_engine_place_lane(ht_engine *engine, ht_lane *lane, const ht_engine_options *options, ht_error *error);
ht_status ht_lane_measure(ht_engine *engine, ht_lane *lane, ht_error *error); /* its cost table (engine/measure.c) */
void ht_lane_cost_by_rule(const ht_engine *engine,
                          ht_lane *lane); /* the same where times say nothing (engine/nominal.c) */

/* ---- the crew (crew.c) --------------------------------------------------------------------------------------------------- */

/* Threads for the lanes after the first one, asleep between passes. *crew is NULL after a failure. */
ht_status ht_crew_create(size_t lanes, ht_crew **crew, ht_error *error);
void ht_crew_destroy(ht_crew *crew);
/* Runs steps [first[i], end[i]) of every lane's program at once. The binding's token 0 is token `offset` of the lanes' own
 * buffers. busy[i] (may be NULL): seconds that lane i did not wait. */
ht_status ht_crew_run(ht_crew *crew, ht_engine *engine, const ht_schedule *schedule, const size_t *first,
                      const size_t *end, const ht_binding *binding, size_t offset, const atomic_bool *cancel,
                      double *busy, ht_error *error);
/* How a lane is waited for: as was asked for, else as was measured to be quickest. */
static inline ht_sync ht_lane_sync(const ht_engine *engine, const ht_lane *lane) {
    return engine->sync == HT_SYNC_AUTO ? lane->cost.sync : engine->sync;
}
/* ht_stay_on the lane's cores: a lane's thread would else take time from another lane's devices. Cores of a simulated
 * machine are not this one's. */
void ht_stay_on_cores(const ht_engine *engine, const ht_lane *lane, ht_stay *stay);
/* Called by ht_run_steps around a step of a shared pass: waits for other lanes; tells them. */
ht_status ht_crew_before(const ht_run *run, const ht_step *step, ht_error *error);
ht_status ht_crew_after(const ht_run *run, const ht_step *step, ht_sync sync, ht_error *error);

/* ---- placement (placement.c) ------------------------------------------------------------------------------------------ */

/* A task of a slice of op on a device, prepared now if it is not there. */
ht_status ht_engine_task_of(ht_engine *engine, int device, const ht_op *op, const ht_slice *slice,
                            ht_engine_task **task, ht_error *error);
/* Releases tasks [first, n_tasks), which no plan and no schedule has. */
void ht_engine_drop_tasks(ht_engine *engine, size_t first);
/* Releases all static graphs of shares; no schedule is there. */
void ht_engine_drop_shares(ht_engine *engine);
ht_slice ht_whole_slice(const ht_op *op);
/* The step of a part of a feed-forward block by itself, on the lane's device that takes it: whole, or where graphs are
 * static without a task yet. */
ht_status ht_engine_step_of(ht_engine *engine, const ht_lane *lane, const ht_op *op, ht_step *step, ht_error *error);

/* Logits of tokens [first, first + count) of the newest forward, count <= HT_HEAD_TOKENS: [count][vocabulary], valid until
 * the next call on the engine. Once for each token: the final norm adds the last block's output to the residual stream. */
ht_status ht_engine_head(ht_engine *engine, size_t first, size_t count, const float **logits, ht_error *error);
/* Only the id of the largest logit of token `token`, found where the logits are: for greedy generation. As
 * ht_engine_head, once for each token. */
ht_status ht_engine_pick(ht_engine *engine, size_t token, int32_t *id, ht_error *error);

/* session/sampler.c: picks a token from logits [vocabulary] (left as they are). history: the tokens so far, newest last. */
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
