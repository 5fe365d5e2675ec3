/* What operators, and passes on one lane, take: what the solver asks again and again, kept by number of tokens. Of src/plan only. */
#ifndef HT_PLAN_ESTIMATE_H
#define HT_PLAN_ESTIMATE_H

#include "plan/plan.h"

#include <math.h>

#define REMEMBERED 256 /* numbers of tokens whose times are kept: of all lanes, by 8 bits of a hash */

/* What one lane's operators take for one number of tokens, whole: the search asks for the same numbers again and again. */
typedef struct times {
    const ht_lane_cost *cost; /* NULL: nothing is kept here */
    size_t n;
    double of[HT_CLASSES];   /* attention's: of the first tokens; of them: */
    double wait[HT_CLASSES]; /* until the queue begins, and its end is seen */
    ht_estimate begin, end;  /* of a layer: up to and with ROPE, and behind that */
} times;

static inline void add(ht_estimate *sum, double often, ht_estimate e) {
    if (often > 0) { /* 0 times infinite is nothing */
        sum->busy += often * e.busy;
        sum->wait += often * e.wait;
    }
}

static inline ht_estimate of_class(const times *t, ht_class c) {
    return (ht_estimate){t->of[c] - t->wait[c], t->wait[c]};
}

typedef struct solver {
    const ht_problem *p;
    ht_choice *best;
    double bound;        /* several lanes that take longer are of no use: one lane is quicker, or others are */
    const size_t *lanes; /* the set that is tried */
    size_t n_lanes;
    double slower[HT_MAX_LANES][2]; /* of each lane in the set: with one token, and many */
    double slower_norms[HT_MAX_LANES][2];
    size_t lookups;
    times kept[REMEMBERED];
} solver;

/* The ways to compute a feed-forward block without its norm: as one operator where the lane has it, and in three. */
static inline void block_ways(const times *t, ht_estimate ways[2]) {
    ways[0] = of_class(t, HT_CLASS_FFN);
    ways[1] = of_class(t, HT_CLASS_GATE_UP);
    add(&ways[1], 1, of_class(t, HT_CLASS_GLU));
    add(&ways[1], 1, of_class(t, HT_CLASS_DOWN));
}

static inline double seconds_of(ht_estimate e) {
    return e.busy + e.wait;
}

static inline ht_estimate block_of(const times *t) {
    ht_estimate ways[2];
    block_ways(t, ways);
    return ways[seconds_of(ways[1]) <= seconds_of(ways[0])];
}

void ht_estimate_start(solver *s, const ht_problem *p, ht_choice *best);
/* The set of lanes that is estimated from now on; the array stays the caller's. */
void ht_estimate_set(solver *s, const size_t *lanes, size_t n_lanes);
/* Fills in what is not kept. */
void ht_estimate_fill(solver *s, const ht_lane_cost *cost, size_t n, times *t);

static inline const times *look_up(solver *s, size_t lane, const ht_lane_cost *cost, size_t n) {
    static const times nothing;
    const uint32_t key = (uint32_t)(n * 16 + lane * 2 + (cost != s->p->lanes[lane].cost)) * 2654435769u;
    times *t = &s->kept[key >> 24];
    if (n == 0)
        return &nothing;
    if (t->cost != cost || t->n != n)
        ht_estimate_fill(s, cost, n, t);
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

/* Attention of n tokens from `position` on takes so much longer than of the first n. */
static inline double keys_seconds(const ht_lane_cost *cost, size_t n, size_t position) {
    return cost->per_key * (double)n * (double)position;
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

/* What a lane's own norm takes where all lanes of the set begin one at once, as segments do: norms are bound by memory, which
 * they contend for until the first of them is done. */
double ht_estimate_norm(solver *s, size_t lane, size_t n);
/* The head of one token. */
double ht_estimate_head(solver *s, size_t lane);
/* n tokens from `position` on through all layers, the last w of them to the end of the last. */
ht_estimate ht_estimate_pass(solver *s, size_t lane, size_t n, size_t w, size_t position);
/* The problem's pass on one lane alone. */
double ht_estimate_alone(solver *s, size_t lane);

#endif
