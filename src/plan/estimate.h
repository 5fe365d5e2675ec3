/* What operators, and passes on one lane, take: what the solver asks again and again, kept by number of tokens. Of src/plan only. */
#ifndef HT_PLAN_ESTIMATE_H
#define HT_PLAN_ESTIMATE_H

#include "plan/plan.h"

#include <math.h>

#define REMEMBERED 256 /* numbers of tokens whose times are kept: of all lanes, by bits of a hash */
#define POOL 8192      /* and times of all of these together */

/* What one lane's operators take for one number of tokens, whole: the search asks for the same numbers again and again. */
typedef struct times {
    const ht_lane_cost *cost; /* NULL: nothing is kept here */
    size_t n;
    const double *of;       /* by signature; of what reads keys: of the first tokens; of them: */
    const double *wait;     /* until the queue begins, and its end is seen */
    ht_estimate begin, end; /* of all blocks but the head: before the tail, and behind it */
} times;

/* Operators on one side of the tail: so many of each signature, and so many times what a block can have as one or in three. */
typedef struct side {
    size_t n_ops, n_fused;
    struct {
        int signature;
        size_t count;
    } ops[HT_MAX_SIGNATURES];
    struct {
        const ht_block *block;
        size_t count;
    } fused[HT_MAX_GROUPS];
} side;

typedef struct solver {
    const ht_problem *p;
    const ht_model *model;
    ht_choice *best;
    double bound;        /* several lanes that take longer are of no use: one lane is quicker, or others are */
    const size_t *lanes; /* the set that is tried */
    size_t n_lanes;
    double slower[HT_MAX_LANES][2]; /* of each lane in the set: with one token, and many */
    double slower_norms[HT_MAX_LANES][2];
    side sides[2]; /* before the tail, behind it */
    size_t lookups;
    int shift; /* of a hash to the number of what is kept */
    times kept[REMEMBERED];
    double pool[2 * POOL];
} solver;

/* An axis of the blocks of a group. */
typedef struct span {
    const ht_group *group;
    const ht_block *block;
    const ht_axis *axis;
    size_t number; /* of the model's axes */
} span;

static inline void add(ht_estimate *sum, double often, ht_estimate e) {
    if (often > 0) { /* 0 times infinite is nothing */
        sum->busy += often * e.busy;
        sum->wait += often * e.wait;
    }
}

static inline double seconds_of(ht_estimate e) {
    return e.busy + e.wait;
}

/* ---- of a model ---------------------------------------------------------------------------------------------------------- */

static inline const ht_block *block_of(const solver *s, const ht_group *g) {
    return &s->model->blocks[g->block];
}

static inline const ht_group *head_group(const solver *s) {
    return &s->model->groups[s->model->n_groups - 1];
}

static inline int signature_of(const solver *s, const ht_block *block, size_t place) {
    return s->model->ops[block->first + place].signature;
}

/* Tokens of the pass that operator number `place` of such blocks computes. */
static inline size_t tokens_of(const solver *s, const ht_group *g, size_t place) {
    return g->head ? 1 : place < g->tail ? s->p->tokens : s->p->wanted;
}

static inline span span_of(const solver *s, const ht_group *g, size_t axis) {
    const ht_block *block = block_of(s, g);
    const size_t number = block->first_axis + axis;
    return (span){g, block, &s->model->axes[number], number};
}

static inline bool has_fused(const ht_block *block, size_t from, size_t to) {
    return block->fused && block->fused_from >= from && block->fused_to <= to;
}

/* ---- of operators --------------------------------------------------------------------------------------------------------- */

static inline ht_estimate of_signature(const times *t, int signature) {
    return (ht_estimate){t->of[signature] - t->wait[signature], t->wait[signature]};
}

/* The ways to compute operators [from, to) of a block, without what keys of earlier positions add: with those as one that it can
 * have as one, where the lane has that, and each by itself. */
void ht_estimate_ways(const solver *s, const ht_block *block, const times *t, size_t from, size_t to,
                      ht_estimate ways[2]);

static inline ht_estimate of_range(const solver *s, const ht_block *block, const times *t, size_t from, size_t to) {
    ht_estimate ways[2];
    ht_estimate_ways(s, block, t, from, to, ways);
    return ways[seconds_of(ways[1]) <= seconds_of(ways[0])];
}

void ht_estimate_start(solver *s, const ht_problem *p, ht_choice *best);
/* The set of lanes that is estimated from now on; the array stays the caller's. */
void ht_estimate_set(solver *s, const size_t *lanes, size_t n_lanes);
/* Fills in what is not kept, at place number `place`. */
void ht_estimate_fill(solver *s, const ht_lane_cost *cost, size_t n, size_t place);

static inline const times *look_up(solver *s, size_t lane, const ht_lane_cost *cost, size_t n) {
    static const double none[HT_MAX_SIGNATURES];
    static const times nothing = {.of = none, .wait = none};
    const uint32_t key = (uint32_t)(n * 16 + lane * 2 + (cost != s->p->lanes[lane].cost)) * 2654435769u;
    const times *t = &s->kept[key >> s->shift];
    if (n == 0)
        return &nothing;
    if (t->cost != cost || t->n != n)
        ht_estimate_fill(s, cost, n, key >> s->shift);
    return t;
}

/* Of whole operators, and of parts of them: every part's time follows from that of the whole. */
static inline const times *whole(solver *s, size_t lane, size_t n) {
    return look_up(s, lane, s->p->lanes[lane].cost, n);
}

static inline const ht_lane_cost *part_cost(const ht_problem *p, size_t lane) {
    return p->lanes[lane].shares ? p->lanes[lane].shares : p->lanes[lane].cost;
}

static inline const times *parts(solver *s, size_t lane, size_t n) {
    return look_up(s, lane, part_cost(s->p, lane), n);
}

/* An operator takes so much longer for n tokens from `position` on than for the first n. */
static inline double keys_seconds(const ht_lane_cost *cost, int signature, size_t n, size_t position) {
    return cost->ops[signature].per_key * (double)n * (double)position;
}

static inline double stall(const ht_problem *p, ht_regime regime) {
    return p->stall[regime] > 0 ? p->stall[regime] : 1;
}

static inline double drift(const ht_problem *p, size_t lane, ht_regime regime) {
    return p->lanes[lane].drift[regime];
}

static inline double together(const solver *s, size_t lane, size_t tokens) {
    return s->slower[lane][tokens > 1];
}

/* What a lane takes that computes beside the others. */
static inline double beside(const solver *s, size_t lane, ht_regime regime, ht_estimate e) {
    return drift(s->p, lane, regime) * (e.wait + together(s, lane, s->p->tokens) * e.busy);
}

static inline double join_seconds(const ht_problem *p, size_t lane) {
    return p->lanes[lane].cost->join;
}

static inline double head_pace(const ht_problem *p) {
    return p->head > 0 ? p->head : 1;
}

/* What every lane computes for itself, a norm, where all lanes of the set begin it at once, as axes do: it is bound by memory,
 * which they contend for until the first of them is done. */
double ht_estimate_every(solver *s, size_t lane, int signature, size_t n);
/* The head of one token. */
double ht_estimate_head(solver *s, size_t lane);
/* The embedding of n tokens. */
ht_estimate ht_estimate_embedding(solver *s, size_t lane, size_t n);
/* n tokens from `position` on through all blocks, the last w of them through the tail. */
ht_estimate ht_estimate_pass(solver *s, size_t lane, size_t n, size_t w, size_t position);
/* The problem's pass on one lane alone. */
double ht_estimate_alone(solver *s, size_t lane);

/* ---- lines: parts of operators (solve_shares.c) ---------------------------------------------------------------------------- */

/* What a part of an operator takes: so much whatever it is, and so much more the more of it. */
typedef struct line {
    double wait, at, slope; /* at, slope: busy */
} line;

/* ht_op_estimate as a function of the share, added; `seconds`: of all of it. */
void ht_line_add(line *sum, const ht_lane_cost *cost, int signature, double seconds);
/* Parts of what the block can have as one operator: as that, or in three. */
void ht_line_add_fused(const solver *s, line lines[2], const ht_lane_cost *cost, const ht_block *block,
                       const double *of);
static inline ht_estimate on_lines(const line lines[2], double share) {
    const ht_estimate a = {lines[0].at + lines[0].slope * share, lines[0].wait},
                      b = {lines[1].at + lines[1].slope * share, lines[1].wait};
    return a.busy + a.wait < b.busy + b.wait ? a : b;
}

/* ---- static graphs ----------------------------------------------------------------------------------------------------------- */

/* Does the lane compute n tokens by graphs of shares? */
static inline bool is_built_only(const ht_solver_lane *lane, size_t n) {
    return lane->built_only && (n > 1 || lane->built_only_one);
}

static inline bool has_room(const ht_solver_lane *lane, size_t axis) {
    return lane->may_build && !lane->no_room && lane->built[axis][HT_MAX_SHARES - 1] == 0;
}

static inline bool is_ready(const ht_problem *p, size_t lane, size_t axis, size_t units, size_t tokens) {
    return p->lanes[lane].may_build || !p->ready || p->ready(p->ready_context, lane, axis, units, tokens);
}

/* ---- what lanes hold ------------------------------------------------------------------------------------------------------ */

/* Does the lane hold some of the weights only? */
static inline bool is_partly(const ht_problem *p, size_t lane) {
    return p->lanes[lane].holds && p->lanes[lane].holds->partly;
}

/* What it holds of an axis that divides into so many units. */
static inline ht_window window_of(const ht_problem *p, size_t lane, size_t axis, size_t of) {
    return is_partly(p, lane) ? p->lanes[lane].holds->axes[axis] : (ht_window){0, of};
}

/* Are units [begin, begin + n) in the window? None always are. */
static inline bool is_held(ht_window w, size_t begin, size_t n) {
    return n == 0 || (w.first <= begin && begin + n <= w.end);
}

/* ---- the regimes (solve.c, solve_shares.c, solve_owner.c) ------------------------------------------------------------------- */

/* Seconds of tokens [begin, begin + n) on lane number `lane`; never falls as n grows. */
typedef double (*token_function)(void *context, size_t lane, size_t begin, size_t n);

/* What is to be divided, and how many each lane takes at a limit that is too low, and at one that is not: limits between
 * them need not be tried for other numbers. */
typedef struct division {
    token_function f;
    void *context;
    const size_t *lanes;
    size_t n_lanes, all, least; /* each lane takes `least` at least */
    size_t few[HT_MAX_LANES], many[HT_MAX_LANES];
} division;

/* (divide.c) The division whose slowest lane ends first, in d->many; infinite if there is none within the bound. What a lane with
 * nothing to do takes is not less than f(.., 0). */
double ht_divide(division *d, double bound);
/* Keeps the choice where it is the best so far. */
void ht_estimate_propose(solver *s, ht_choice *c, const size_t *lanes);
/* An earlier group whose blocks take the same, for all tokens are wanted; the group's own number: there is none. */
size_t ht_estimate_same_group(const solver *s, size_t group);
void ht_solve_shares(solver *s, const size_t *lanes, size_t n_lanes);
void ht_solve_owner(solver *s, size_t owner, size_t other);
/* What lane number i of the choice is busy for. */
double ht_shares_busy(solver *s, const ht_choice *c, size_t i);
double ht_owner_busy(solver *s, const ht_choice *c, size_t i);

#endif
