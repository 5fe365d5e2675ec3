/* Passes: how so many tokens are computed by one lane or divided between several, and what is learnt from it.
 *
 * The planner (src/plan) chooses; a schedule keeps its choice for a kind of pass, with a program for each lane (program.c);
 * a crew of threads runs the programs side by side (crew.c); what they took moves the choice (learn.c). Who calls holds the
 * lanes (ht_lanes_lock). */
#ifndef HT_PASS_H
#define HT_PASS_H

#include "lane/lane.h"

typedef struct ht_crew ht_crew; /* threads of lanes (crew.c) */

/* What passes take over what the tables of times predict. All ones: as predicted. */
typedef struct ht_pace {
    double lanes[HT_MAX_DEVICES][HT_REGIMES]; /* busy, not waiting */
    /* Waiting that was not predicted: what a pass takes over what its lanes are busy. */
    double stall[HT_REGIMES];
    double head;
} ht_pace;
extern const ht_pace ht_even_pace;

/* A way to compute that was left for another one. */
typedef struct ht_left {
    uint64_t way; /* regime and lanes, however much each computes */
    double took;  /* measured, without the head */
} ht_left;
#define HT_LEFT 16

/* How a kind of pass is computed, and its lanes' programs (program.c). */
typedef struct ht_schedule {
    /* For passes of so many tokens of which the last `wanted` go to the end, from about this position on, in sequences
     * of `apart` tokens each (0: one, or such as differ); tokens 0: unused. */
    size_t tokens, wanted, position, apart;
    uint64_t age; /* when it was used last */
    ht_choice choice;
    ht_pace pace;   /* lately */
    ht_pace usual;  /* before the first request: what is not used is believed to become again */
    ht_pace solved; /* when the choice was made */
    /* Of the pass before: what lanes[i], all of it, and the head took over what was predicted. */
    double ratios[HT_MAX_DEVICES], whole, head;
    ht_estimate lanes_take[HT_MAX_DEVICES]; /* predicted, of lanes[i] */
    size_t n_lanes;                         /* that take part, in the order in which they take tokens */
    ht_lane *lanes[HT_MAX_DEVICES];
    /* More than one lane: theirs, the head included where all compute it. */
    ht_program programs[HT_MAX_DEVICES];
    size_t runs;
    /* Measured, without the head: what passes by this choice take, and by the best one so far (0: none yet). */
    double took, best_took;
    ht_choice best;
    bool held;       /* that one was gone back to */
    size_t patience; /* for so many passes */
    ht_left left[HT_LEFT];
    size_t n_left;
    size_t moves; /* of ht_loads, when the choice was made */
    bool tried;   /* what passes of this kind take was learnt before the first request, now or in an earlier process */
    bool heads;   /* one head was timed at least */
    bool stale;   /* the choice is to be made anew */
} ht_schedule;
#define HT_SCHEDULES 64

/* What lane number i of a schedule computes. */
static inline const ht_program *ht_schedule_program(const ht_schedule *schedule, size_t i) {
    return schedule->n_lanes > 1 ? &schedule->programs[i] : ht_lane_program(schedule->lanes[0], schedule->tokens);
}

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

/* How finely an axis divides on every lane (units.c). */
typedef struct ht_units {
    size_t grain; /* rows, heads or features of one */
    size_t of;    /* so many are all; 0: it does not divide */
    /* Lanes that divide it so, as bits: of query heads those that can, of what else is divided all. */
    unsigned lanes;
} ht_units;

/* What schedules may do. */
typedef struct ht_policy {
    unsigned cuts;    /* ht_cuts */
    bool must_share;  /* several lanes, even where one alone is predicted to be quicker */
    bool by_operator; /* single operators are cut only: the regime OWNER (for experiments) */
    bool frozen;      /* they stay as they were first made: nothing is learnt from passes */
} ht_policy;

/* What passes are planned for. */
typedef enum ht_stage {
    HT_STAGE_SERVING,  /* a request waits: nothing is built for it */
    HT_STAGE_WEIGHING, /* ways to compute are compared: graphs may be planned for that are not there */
    HT_STAGE_TRYING    /* the same, and passes are run to learn what the ways cost */
} ht_stage;

/* Graphs of shares on lanes whose devices have static lengths. */
typedef struct ht_graphs {
    size_t built[HT_MAX_LANES][HT_MAX_AXES][HT_MAX_SHARES]; /* units of the shares that have some; 0: no more */
    bool no_room; /* there is no memory for more, but for other lengths of shares that have some */
} ht_graphs;

/* How often the experts of one block are chosen (load.c). */
typedef struct ht_load {
    const ht_op *router;
    size_t experts, units, grain; /* a unit of the axis is so many experts */
    float *share;                 /* [experts]: of all that is chosen, lately */
    float *before;                /* [units + 1]: of units [0, u), as plans believe */
    float *now;                   /* [units + 1]: and as it is */
    double away, chance;          /* how far these are apart, and how far chance would bring them */
    uint32_t
        *counts; /* [lanes][experts]: tokens that chose each, not in the average yet; a lane's thread writes its own */
} ht_load;
typedef struct ht_loads {
    ht_load each[HT_MAX_LOADS];
    ht_block_load plans[HT_MAX_LOADS]; /* the same as plans have it */
    size_t n;
    ht_load **of;   /* [blocks of the model]; NULL: none is kept of it */
    size_t counted; /* tokens, not in the average yet */
    double seen;    /* tokens that the average stands for */
    size_t moves;   /* how often plans had to learn of it; 0: experts are believed to be chosen evenly */
} ht_loads;

typedef struct ht_passes {
    ht_lanes *set;
    ht_schedule schedules[HT_SCHEDULES];
    ht_schedule *current; /* of the newest forward: the head follows in the same way */
    /* The newest one whose lanes' speeds had changed, so that it was solved anew; NULL: none. */
    const ht_schedule *moved;
    uint64_t clock; /* counts passes */
    ht_policy policy;
    ht_stage stage;
    ht_lane *running;            /* of the newest forward, if one lane computes the head */
    const ht_program *program;   /* likewise */
    ht_crew *crew;               /* threads of the other lanes (crew.c); NULL: one lane */
    ht_units units[HT_MAX_AXES]; /* of the model's axes */
    ht_graphs graphs;
    ht_loads loads;
    ht_windows holds[HT_MAX_LANES]; /* what lanes hold of the weights (hold.c) */
    ht_recording *recordings;       /* [n_lanes]; NULL: nothing is recorded */
    const ht_observer *observer;    /* of passes of one lane on the CPU; NULL: nobody looks */
    /* Of the newest forward: what ht_passes_head can be asked for, and how many tokens there were. */
    size_t first_token, last_tokens;
} ht_passes;

static inline bool ht_may_build(const ht_passes *passes) {
    return passes->stage != HT_STAGE_SERVING;
}

/* What passes by several lanes need besides the lanes' own buffers: how finely operators divide, programs that need not
 * grow. The lanes are there, and the model fits (ht_plan_misfit). */
ht_status ht_passes_prepare(ht_passes *passes, ht_error *error);
/* Frees what they hold, but not the lanes. */
void ht_passes_clear(ht_passes *passes);
/* How finely each axis divides on these lanes (units.c). */
void ht_passes_find_units(ht_passes *passes);
/* Units [begin, end) of an axis: which slice they are of the operator at this place of its blocks. All of them are
 * the whole slice as ht_whole_slice has it: a task of it is found as the whole operator's. */
ht_slice ht_units_slice(const ht_axis *axis, const ht_units *units, const ht_op *op, size_t place, size_t begin,
                        size_t end);
/* What each lane's tasks hold of every axis (hold.c); to be called whenever these have changed. */
void ht_passes_find_windows(ht_passes *passes);
/* Does some lane hold some of the weights only? */
bool ht_passes_hold_partly(const ht_passes *passes);
/* Nothing is recorded any more. */
void ht_passes_forget_recordings(ht_passes *passes);

/* Everything but the head for the tokens of segments[0..n_segments), in this order, `chunk` at most in all; each
 * sequence is there once, and its keys and values go to its kv. The head may be asked for tokens [first, n of all)
 * afterwards: the tail computes no more than that for the others. Devices may still be computing when it returns: the
 * head waits for them, and so does whoever uses their memory next. `cancel` (may be NULL) is looked at between steps:
 * HT_ERROR_CANCELLED. The caller has checked ids and positions. Allocates nothing. */
ht_status ht_passes_forward(ht_passes *passes, const ht_segment *segments, size_t n_segments, size_t first,
                            const atomic_bool *cancel, ht_error *error);
/* Logits of tokens [first, first + count) of the newest forward, count <= HT_HEAD_TOKENS: [count][vocabulary], valid until
 * the next call. Once for each token: the final norm adds the last block's output to the residual stream. */
ht_status ht_passes_head(ht_passes *passes, size_t first, size_t count, const float **logits, ht_error *error);
/* What the final norm leaves of the same tokens: row i at rows->data + i * rows->stride. As ht_passes_head, and instead
 * of it: once for each token. */
ht_status ht_passes_hidden(ht_passes *passes, size_t first, size_t count, ht_view *rows, ht_error *error);
/* Only the id of the largest logit of token `token`, found where the logits are: for greedy generation. As
 * ht_passes_head, once for each token. */
ht_status ht_passes_pick(ht_passes *passes, size_t token, int32_t *id, ht_error *error);

/* ---- schedules (program.c)
 * --------------------------------------------------------------------------------------------- */

/* How to compute n tokens from `position` on, of which the last `wanted` go to the end: found again, or solved now. */
ht_status ht_passes_schedule(ht_passes *passes, size_t n, size_t position, size_t wanted, size_t apart,
                             ht_schedule **schedule, ht_error *error);
#define HT_MAX_SAMPLES 256 /* shares of one block of each kind, on all lanes */

/* What the solver's question points into. */
typedef struct ht_question {
    const ht_passes *passes;
    ht_solver_lane lanes[HT_MAX_LANES];
    const ht_slice_task *samples[HT_MAX_SAMPLES]; /* static graphs of shares, of the first block of each kind */
    size_t n_samples;
} ht_question;

/* The solver's question for such a pass. It is good for as long as *question is, and no task is added or dropped. */
ht_problem ht_passes_problem(const ht_passes *passes, size_t n, size_t position, size_t wanted, size_t apart,
                             const ht_pace *pace, ht_question *question);
/* The schedule of such passes, without a choice as yet if it is new; the one used least lately makes room for it. */
ht_schedule *ht_passes_find_schedule(ht_passes *passes, size_t n, size_t position, size_t wanted, size_t apart);
void ht_passes_solve_anew(ht_passes *passes);       /* choices are made again, each at the next pass of its kind */
void ht_passes_forget_schedules(ht_passes *passes); /* lanes have changed */

/* ---- learning (learn.c)
 * ------------------------------------------------------------------------------------------------ */

/* After a pass: what it took, all in all and each lane (busy[i] of schedule->lanes[i], without waiting). */
void ht_passes_learn(ht_passes *passes, ht_schedule *schedule, double seconds, const double *busy);
/* The same of a head of one token. */
void ht_passes_learn_head(ht_passes *passes, double seconds);
/* The choice is worse than an earlier one was, as measured. */
bool ht_passes_is_worse(const ht_schedule *schedule);
/* What the schedule's choice takes is kept, before another one is made. */
void ht_passes_leave(ht_schedule *schedule);
/* The same regime and lanes, however much each computes. */
bool ht_passes_same_way(const ht_choice *a, const ht_choice *b);
/* Was such a way left, and did it take longer than it is predicted to now? It is no use to take it again. */
bool ht_passes_was_left(const ht_schedule *schedule, const ht_choice *choice);
/* Nothing is known any more of what choices take. */
void ht_passes_forget_left(ht_schedule *schedule);
/* Has what passes take moved so far that the choice is worth making anew? */
bool ht_passes_have_moved(const ht_passes *passes, const ht_schedule *schedule);

/* ---- loads of experts (load.c)
 * ----------------------------------------------------------------------------------------- */

/* Units are known (ht_passes_find_units). */
ht_status ht_passes_make_loads(ht_passes *passes, ht_error *error);
void ht_passes_free_loads(ht_passes *passes);
/* Do passes count? Those that are tried choose for made-up tokens. */
static inline bool ht_passes_do_count(const ht_passes *passes) {
    return passes->loads.n && passes->stage == HT_STAGE_SERVING && !passes->policy.frozen;
}
/* The number of a block's load; HT_MAX_LOADS: it has none. */
size_t ht_passes_block_load(const ht_passes *passes, size_t block);
/* The share of what is chosen that plans believe experts [begin, end) of `of` to have. */
double ht_passes_load_share(const ht_passes *passes, size_t block, size_t begin, size_t end, size_t of);
/* Behind a step's submit: if it was a router's choice, and the host can read it, it is counted. The lane's thread. */
void ht_passes_count(ht_passes *passes, const ht_lane *lane, const ht_step *step, const ht_binding *binding);
/* After a pass of so many tokens, whose lanes have counted. */
void ht_passes_learn_loads(ht_passes *passes, size_t tokens);

/* ---- inside a pass (run.c, wait.c, crew.c)
 * ----------------------------------------------------------------------------- */

/* One lane's part of a pass. */
typedef struct ht_run {
    ht_passes *passes;
    ht_lane *lane;
    const ht_program *program;
    const atomic_bool *cancel; /* may be NULL */
    ht_crew *crew;             /* of a pass that several lanes share; NULL: this lane has it alone */
    size_t index;              /* of the lane among those that share it */
    size_t offset;             /* of the binding's token 0 in the lane's own buffers */
    bool counts;               /* which experts are chosen */
} ht_run;

/* Runs steps [first, end) of the program; after a failure nothing of the lane is under way. */
ht_status ht_run_steps(const ht_run *run, size_t first, size_t end, const ht_binding *common, ht_error *error);
/* Runs everything but the head for all of the binding's tokens, the tail of the last layer for tokens [wanted, ..) of them
 * only, by the program for so few: run->program is the one that has computed them. */
ht_status ht_run_body(ht_run *run, const ht_binding *common, size_t wanted, ht_error *error);
/* What is bound of `all` from token `first` on, its slots in slots[]; logits and picks stay where they are. */
ht_binding ht_binding_from(const ht_model *model, const ht_binding *all, size_t first, ht_view slots[HT_MAX_SLOTS]);

/* Threads for the lanes after the first one, asleep between passes. *crew is NULL after a failure. */
ht_status ht_crew_create(size_t lanes, ht_crew **crew, ht_error *error);
void ht_crew_destroy(ht_crew *crew);
/* What a crew runs: steps [first[i], end[i]) of every lane's program, at once. */
typedef struct ht_crew_work {
    const ht_schedule *schedule;
    size_t first[HT_MAX_LANES], end[HT_MAX_LANES];
    const ht_binding *binding;
    size_t offset;             /* of the binding's token 0 in the lanes' own buffers */
    const atomic_bool *cancel; /* may be NULL */
} ht_crew_work;
/* busy[i] (may be NULL): seconds that lane i did not wait. */
ht_status ht_crew_run(ht_passes *passes, const ht_crew_work *work, double *busy, ht_error *error);
/* Called by ht_run_steps around a step of a shared pass: waits for other lanes; tells them. */
ht_status ht_crew_before(const ht_run *run, const ht_step *step, ht_error *error);
ht_status ht_crew_after(const ht_run *run, const ht_step *step, ht_sync sync, ht_error *error);

#endif
