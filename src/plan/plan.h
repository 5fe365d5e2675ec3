/* Planning: what operators cost on lanes, and how a pass is best divided among them. The only place that compares
 * devices.
 *
 * What is planned for is a model's blocks, the axes along which they divide, and what operators of each signature cost;
 * what a block is for, nobody here knows. A lane's cost table holds measured times of its operators by signature,
 * tokens and position (cost.c). From these the solver (solve.c) finds the cheapest way to compute a pass: on one lane,
 * or shared by several in one of three regimes.
 *
 *   TOKENS  the causal cut: each lane takes a range of tokens through all layers; keys and values flow one way. Of a pass of
 *           several sequences each lane may take some: then nothing flows, and there is no join.
 *   SHARES  every lane computes the residual stream itself (norms are cheap) and a share of the matrices: heads, features,
 *           rows. A join ends each axis; along which axes a block is cut is found by an exact dynamic programme.
 *   OWNER   as in the paper: one lane computes what is no matrix multiplication; each matrix is computed by it, by
 *           another lane, or cut between them by rows, by tokens, or both; a join before and after.
 */
#ifndef HT_PLAN_H
#define HT_PLAN_H

#include "base/cores.h"
#include "model/model.h"

#define HT_MAX_LANES 8 /* of an engine */
#define HT_MAX_SUMS \
    4 /* partial sums that one norm adds: of each lane, as many as there are slots of sums that it adds */
#define HT_MAX_SHARES 4 /* different cuts of one matrix that a static lane has graphs for: each holds its weights */
#define HT_MAX_POINTS 16
/* Of a model that several lanes can share. */
#define HT_MAX_SIGNATURES 64
#define HT_MAX_AXES 160
#define HT_MAX_GROUPS 32
#define HT_MAX_BLOCK_AXES 8
#define HT_MAX_LOADS 128 /* blocks whose experts are known to be chosen unequally often; more count as chosen evenly */

/* ---- cost
 * ----------------------------------------------------------------------------------------------------------------- */

typedef struct ht_cost_point {
    size_t tokens;
    double seconds;
} ht_cost_point;

/* Of operators of one signature. */
typedef struct ht_op_cost {
    /* By tokens, times not falling; the first is of one token; none: not computed. */
    ht_cost_point points[HT_MAX_POINTS];
    size_t n_points;
    bool stepped; /* static lengths: nothing between the points, and nothing behind one of one token */
    /* Of each matrix, seconds for which nothing is computed, where the lane's other devices compute what is before and
     * behind it: its queue begins empty, and its end is waited for. */
    double start;
    /* Tokens, where lengths are not static, cost as much as the next multiple; 0 or 1: any number. */
    size_t granule;
    double per_key; /* more for each token and position before the pass: of what reads keys and values */
} ht_op_cost;

typedef struct ht_lane_cost {
    uint32_t devices;                  /* of the lane, when it was measured */
    ht_op_cost ops[HT_MAX_SIGNATURES]; /* one operator of each signature, queue not empty */
    double launch;                     /* of an operator that has next to nothing to do */
    double join;  /* from an empty queue's next submit to knowing that it is done, less what the work takes */
    ht_sync sync; /* the way of waiting that was found quickest, on the lane's own cores */
    double joins[HT_SYNC_FLAG + 1]; /* what a join takes by each of them; 0: not measured */
    /* What everything takes while other lanes compute, too, over what it takes alone, and what norms take while the others
     * compute norms: [beside this lane; its own index: beside all of them][one token, many]. 0: not measured, as 1. */
    double together[HT_MAX_LANES][2], norms[HT_MAX_LANES][2];
} ht_lane_cost;

/* Seconds of a lane: those in which it computes, and those in which it waits: until a queue begins, until its end is
 * seen, and, of a whole pass, for other lanes. What is computed beside other lanes takes longer; waiting does not, and
 * leaves the memory to the others. */
typedef struct ht_estimate {
    double busy, wait;
} ht_estimate;

/* What a part of an operator takes however small it is. */
double ht_op_fixed(const ht_lane_cost *cost, int signature);
/* A share (0..1] of an operator for n tokens from `position` on; infinite where the lane does not compute it. */
ht_estimate ht_op_estimate(const ht_lane_cost *cost, int signature, size_t n, double share, size_t position);
double ht_op_seconds(const ht_lane_cost *cost, int signature, size_t n, double share, size_t position); /* both */

/* How many times as long as alone a lane takes in a set of lanes that compute at the same time, for so many tokens;
 * factors: its `together` or `norms`. Beside several it is no better than beside the worst of them. */
double ht_factor(const double factors[HT_MAX_LANES][2], size_t lane, const size_t *lanes, size_t n_lanes,
                 size_t tokens);

/* ---- what the solver is asked
 * ------------------------------------------------------------------------------------------- */

/* Cuts that a plan may use, as bits: for ablations, and for strategies. */
typedef enum ht_cuts {
    HT_CUT_NONE = 0,
    HT_CUT_LAYER = 1,     /* whole matrices to another lane */
    HT_CUT_ROWS = 2,      /* output features of one matrix */
    HT_CUT_SEQUENCE = 4,  /* tokens of one matrix; of a pass of several sequences, these */
    HT_CUT_HYBRID = 8,    /* both */
    HT_CUT_FEATURES = 16, /* of a whole feed-forward block */
    HT_CUT_HEADS = 32,    /* of a whole attention block */
    HT_CUT_CAUSAL = 64,   /* tokens of the whole pass */
    HT_CUT_QUERIES = 128, /* the same, and query heads of one key-value head may be different lanes' */
    HT_CUT_EXPERTS = 256,
    HT_CUT_CHANNELS = 512, /* of a convolution, a delta net or a selective scan */
    HT_CUT_ALL = 1023
} ht_cuts;

typedef enum ht_regime { HT_REGIME_SOLO, HT_REGIME_TOKENS, HT_REGIME_SHARES, HT_REGIME_OWNER, HT_REGIMES } ht_regime;
const char *ht_regime_name(ht_regime r); /* "single", "causal", "shares", "owner" */

/* Has the model more kinds of anything than several lanes can plan for? NULL: no; else which. */
const char *ht_plan_misfit(const ht_model *model);
/* What a person calls a cut along the axis: "head", "query", "causal", "row", "feature". */
const char *ht_axis_cut(const ht_axis *axis);

/* Units [first, end) of an axis whose weights a lane holds. */
typedef struct ht_window {
    size_t first, end;
} ht_window;

/* What a lane holds of the model where that is not all of it. */
typedef struct ht_windows {
    bool partly;                 /* else all of it, and the rest says nothing */
    bool fed;                    /* another lane looks up its tokens */
    ht_window axes[HT_MAX_AXES]; /* of tokens: [0, 1) where the operators of the axis are there whole, else [0, 0) */
} ht_windows;

/* A lane as the solver sees it. */
typedef struct ht_solver_lane {
    const ht_lane_cost *cost;   /* of whole operators, at lengths whose graphs are there */
    const ht_lane_cost *shares; /* of shares of them, whatever is there; NULL: cost */
    double drift[HT_REGIMES];   /* what it takes lately in a regime, over what was predicted: multiplies every time */
    ht_cores cores;             /* lanes that share some are never used together */
    bool lost;                  /* takes no part */
    bool built_only;     /* static graphs: with more than one token it computes shares that were built, and no others */
    bool built_only_one; /* and with one token, too */
    bool may_build;      /* but a few more may be, where that pays */
    bool no_room;        /* but no more: there is no memory for them */
    size_t built[HT_MAX_AXES][HT_MAX_SHARES]; /* units of the shares that were; 0: no more */
    const int *lengths;                       /* static ones, ascending; NULL: any */
    size_t n_lengths;
    /* What weights it holds; NULL: all. A lane that holds some only has no pass alone, and of every axis no units but these:
     * it takes part in SHARES alone. */
    const ht_windows *holds;
} ht_solver_lane;

/* How much of what an axis of experts divides its units have, in one block: before[u] is the share of units [0, u),
 * before[of] is 1. Experts are chosen unequally often, and in every layer others. */
typedef struct ht_block_load {
    size_t block; /* of the model */
    const float *before;
} ht_block_load;

typedef struct ht_problem {
    const ht_model *model;       /* its operators' signatures, blocks, axes, groups; nothing else is looked at */
    const ht_solver_lane *lanes; /* in the order in which they take tokens */
    size_t n_lanes;
    unsigned cuts;                   /* ht_cuts; none: a lane alone */
    size_t tokens, wanted, position; /* of the pass; the last `wanted` tokens go through the model's tail */
    /* It is of sequences of so many tokens each, which need nothing of each other; 0: of one, or of such as differ. */
    size_t apart;
    bool by_operator;         /* OWNER or a lane alone: nothing is planned over a whole block */
    bool forced;              /* several lanes, even where one alone would be quicker */
    double stall[HT_REGIMES]; /* what passes in a regime take lately over what their lanes are busy, and over what was
                               * predicted of that: multiplies the whole; 0: 1 */
    double head;              /* likewise of the head; 0: 1 */
    double join;              /* seconds from one lane's having told to another's going on */
    double exchange;          /* and for each byte that one lane writes and another reads: lines go from core to core */
    /* Does static lane `lane` have graphs for units [0, units) of an axis of the model with so many tokens? NULL: yes. */
    bool (*ready)(const void *context, size_t lane, size_t axis, size_t units, size_t tokens);
    const void *ready_context;
    size_t of[HT_MAX_AXES];       /* units that an axis of the model can be divided into; 0: not at all */
    unsigned unable[HT_MAX_AXES]; /* lanes, as bits, that take no part of it: sets with one of them do not divide it */
    /* Of some blocks with an axis of experts, HT_MAX_LOADS at most; where there is none, units have equal shares. Lanes
     * with static graphs of shares divide all blocks of a group alike. */
    const ht_block_load *loads;
    size_t n_loads;
    bool tokens_divide; /* whether several lanes may take tokens of their own and all are wanted (TOKENS) */
} ht_problem;

/* ---- its answer
 * ------------------------------------------------------------------------------------------------------------ */

/* OWNER: the other lane computes units [0, units) of `of` for tokens [0, tokens); all else is the owner's. */
typedef struct ht_matrix_cut {
    size_t tokens, units, of;
} ht_matrix_cut;

/* How each block of a group is computed. */
typedef struct ht_group_choice {
    /* SHARES: along which axes (numbers in the block) it is cut, in order; of lanes[i] units[axis][i], one lane's behind the
     * other's; of tokens: so many. */
    size_t axes[HT_MAX_BLOCK_AXES], n_axes;
    size_t units[HT_MAX_BLOCK_AXES][HT_MAX_LANES];
    ht_matrix_cut cuts[HT_MAX_BLOCK_AXES]; /* OWNER: of what the axis can hand over */
} ht_group_choice;

typedef struct ht_choice {
    ht_regime regime;
    size_t n_lanes;
    size_t lanes[HT_MAX_LANES];  /* by index, ascending; OWNER: the owner, then the other */
    double seconds, head;        /* predicted, the head of one token included; the head of that */
    double alone[HT_MAX_LANES];  /* what each of the problem's lanes alone would take; infinite: it cannot */
    size_t tokens[HT_MAX_LANES]; /* TOKENS: of lanes[i] */
    bool
        apart; /* TOKENS: these are whole sequences. No lane needs another, and each computes the head of its own tokens. */
    ht_group_choice groups[HT_MAX_GROUPS]; /* of the model's groups of blocks */
    /* SHARES, by_load: along an axis of experts block loads[k].block of the problem is divided so, not as its group is. */
    bool by_load;
    uint16_t loaded[HT_MAX_LOADS][HT_MAX_SUMS];
    size_t lookups; /* times of operators that were looked up in tables to find it */
} ht_choice;

/* A lane more than two has to make a pass this much quicker: about what a prediction with three lanes is off. */
#define HT_THIRD_LANE 0.98

/* The cheapest way that the cuts allow, by exact search: over lanes, over regimes, over the axes of each block (a dynamic
 * programme: a join saved between neighbours counts), over where each is divided. n_lanes 0: every lane is lost. */
void ht_solve(const ht_problem *problem, ht_choice *choice);
/* OWNER: the axis that hands over operator number `place` of the block, and its number there; NULL: nothing does. */
const ht_axis *ht_choice_handed(const ht_model *model, const ht_block *block, const ht_group_choice *choice,
                                size_t place, size_t *number);
/* Lane number i of the choice, without the head. Busy: with its own part, as passes measure it, joins of its own included.
 * Waiting: for the other lanes. */
ht_estimate ht_choice_estimate(const ht_problem *problem, const ht_choice *choice, size_t i);

#endif
