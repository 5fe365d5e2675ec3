/* The planner: the cheapest way to compute a pass, from the lanes' cost tables (plan.h says which ways there are).
 *
 * Exact within the cost model. An axis is divided so that its slowest lane ends first: for a limit each lane takes the
 * most units that it does in time, and the limit is found by bisection, so any number of lanes will do. The axes along
 * which a block is cut are the shortest path over its operators; each edge ends with a join. Blocks of a group are
 * alike; behind the model's tail they compute wanted tokens only. Here are the search over sets of lanes and the regime
 * TOKENS; SHARES and OWNER have files of their own.
 */
#include "plan/estimate.h"

#include <math.h>
#include <string.h>

const char *ht_regime_name(ht_regime r) {
    static const char *const names[] = {"single", "causal", "shares", "owner"};
    return names[r];
}

/* ---- TOKENS
 * ------------------------------------------------------------------------------------------------------------------ */

static double token_seconds(void *context, size_t lane, size_t begin, size_t n) {
    solver *s = context;
    const ht_problem *p = s->p;
    if (n == 0)
        return 0;
    const bool last = begin + n == p->tokens; /* all but this end with the last layer's keys and values */
    const size_t first = p->tokens - p->wanted, w = begin + n > first ? ht_min_size(begin + n - first, n) : 0;
    const double caches = (double)s->model->n_caches;
    ht_estimate e = ht_estimate_pass(s, lane, n, w, p->position + begin);
    if (last) /* the others are done */
        e.wait += ht_estimate_head(s, lane);
    else /* telling the lanes behind that a block's keys and values are there */
        e.wait += caches * join_seconds(p, lane);
    return beside(s, lane, HT_REGIME_TOKENS, e) + caches * p->join;
}

/* The head, by the lane that computes it. */
static double own_head(solver *s, size_t lane) {
    return ht_estimate_head(s, lane) * drift(s->p, lane, HT_REGIME_TOKENS);
}

static void try_tokens(solver *s, const size_t *lanes, size_t n_lanes) {
    const ht_problem *p = s->p;
    if (!(p->cuts & HT_CUT_CAUSAL) || p->tokens < 2 * n_lanes || (p->wanted > 1 && !p->tokens_divide))
        return;
    /* one token at least: without any it would be a choice of fewer lanes, which is tried as such; two where a lane
     * has graphs for many tokens only */
    division d = {.f = token_seconds, .context = s, .lanes = lanes, .n_lanes = n_lanes, .all = p->tokens, .least = 1};
    for (size_t i = 0; i < n_lanes; i++)
        d.least = token_seconds(s, lanes[i], 0, 1) < INFINITY ? d.least : 2;
    const double factor = stall(p, HT_REGIME_TOKENS), seconds = ht_divide(&d, s->bound / factor);
    if (seconds == INFINITY)
        return;
    const size_t end = lanes[n_lanes - 1];
    ht_choice c = {
        .regime = HT_REGIME_TOKENS, .n_lanes = n_lanes, .seconds = seconds * factor, .head = own_head(s, end)};
    memcpy(c.tokens, d.many, n_lanes * sizeof *c.tokens);
    ht_estimate_propose(s, &c, lanes);
}

/* Whole sequences [begin, begin + n), without the head: from the position on that stands for all of them. */
static double sequence_seconds(void *context, size_t lane, size_t begin, size_t n) {
    solver *s = context;
    const ht_problem *p = s->p;
    if (n == 0)
        return 0;
    const size_t tokens = n * p->apart, end = begin * p->apart + tokens, first = p->tokens - p->wanted;
    const size_t w = end > first ? ht_min_size(end - first, tokens) : 0;
    return beside(s, lane, HT_REGIME_TOKENS, ht_estimate_pass(s, lane, tokens, w, p->position));
}

static void try_sequences(solver *s, const size_t *lanes, size_t n_lanes) {
    const ht_problem *p = s->p;
    if (!(p->cuts & HT_CUT_SEQUENCE) || !p->apart || p->tokens / p->apart < n_lanes)
        return;
    ht_choice c = {.regime = HT_REGIME_TOKENS, .n_lanes = n_lanes, .apart = true};
    for (size_t i = 0; i < n_lanes; i++)
        c.head = fmax(c.head, own_head(s, lanes[i]));
    division d = {.f = sequence_seconds,
                  .context = s,
                  .lanes = lanes,
                  .n_lanes = n_lanes,
                  .all = p->tokens / p->apart,
                  .least = 1};
    const double factor = stall(p, HT_REGIME_TOKENS), seconds = ht_divide(&d, s->bound / factor - c.head);
    if (!(seconds + c.head < INFINITY))
        return;
    c.seconds = (seconds + c.head) * factor;
    for (size_t i = 0; i < n_lanes; i++)
        c.tokens[i] = d.many[i] * p->apart;
    ht_estimate_propose(s, &c, lanes);
}

/* ---- all of them
 * -------------------------------------------------------------------------------------------------------------- */

/* Lanes of a set, if they share no cores and none is lost. */
static size_t list_lanes(const ht_problem *p, unsigned set, size_t lanes[HT_MAX_LANES]) {
    ht_cores taken = {{0}};
    size_t n = 0;
    for (size_t l = 0; l < p->n_lanes; l++) {
        if (!(set >> l & 1))
            continue;
        if (p->lanes[l].lost || ht_cores_meet(&p->lanes[l].cores, &taken))
            return 0;
        ht_cores_join(&taken, &p->lanes[l].cores);
        lanes[n++] = l;
    }
    return n;
}

/* Lanes alone: the quickest of them, as several are to be quicker. */
static void solve_alone(solver *s, ht_choice *solo, double alone[HT_MAX_LANES]) {
    const ht_problem *p = s->p;
    *solo = (ht_choice){.seconds = INFINITY};
    for (size_t l = 0; l < HT_MAX_LANES; l++)
        alone[l] = INFINITY;
    for (size_t l = 0; l < p->n_lanes; l++) {
        if (p->lanes[l].lost)
            continue;
        alone[l] = ht_estimate_alone(s, l);
        if (is_partly(p, l)) /* what it would take with all weights */
            continue;
        if (alone[l] < solo->seconds || !solo->n_lanes)
            *solo = (ht_choice){.n_lanes = 1,
                                .lanes = {l},
                                .seconds = alone[l],
                                .head = ht_estimate_head(s, l) * drift(p, l, HT_REGIME_SOLO),
                                .tokens = {p->tokens}};
    }
}

static void solve_set(solver *s, const size_t *lanes, size_t n) {
    bool whole = true;
    for (size_t i = 0; i < n; i++)
        whole &= !is_partly(s->p, lanes[i]);
    ht_estimate_set(s, lanes, n);
    if (!s->p->by_operator) {
        if (whole) {
            try_tokens(s, lanes, n);
            try_sequences(s, lanes, n);
        }
        ht_solve_shares(s, lanes, n);
    }
    if (n == 2 && whole) {
        ht_solve_owner(s, lanes[0], lanes[1]);
        ht_solve_owner(s, lanes[1], lanes[0]);
    }
}

/* Small sets come first: what they reach is what a lane more has to beat, by more than predictions err. */
void ht_solve(const ht_problem *p, ht_choice *choice) {
    solver s;
    ht_choice solo;
    double alone[HT_MAX_LANES];
    ht_estimate_start(&s, p, choice);
    solve_alone(&s, &solo, alone);
    *choice = (ht_choice){.seconds = INFINITY};
    s.bound = p->forced ? INFINITY : solo.seconds;
    for (size_t size = 2; size <= p->n_lanes; size++) {
        if (size > 2)
            s.bound *= HT_THIRD_LANE;
        for (unsigned set = 1; set < 1u << p->n_lanes && p->cuts; set++) {
            size_t lanes[HT_MAX_LANES];
            if (list_lanes(p, set, lanes) == size)
                solve_set(&s, lanes, size);
        }
    }
    if (choice->n_lanes == 0 || (solo.seconds <= choice->seconds && !p->forced))
        *choice = solo;
    memcpy(choice->alone, alone, sizeof alone);
    choice->lookups = s.lookups;
}

static double choice_busy(const ht_problem *p, const ht_choice *c, size_t i) {
    size_t begin = 0;
    ht_estimate e;
    solver s;
    ht_estimate_start(&s, p, NULL);
    ht_estimate_set(&s, c->lanes, c->n_lanes);
    switch (c->regime) {
    case HT_REGIME_TOKENS:
        for (size_t k = 0; k < i; k++)
            begin += c->tokens[k];
        if (c->apart)
            return sequence_seconds(&s, c->lanes[i], begin / p->apart, c->tokens[i] / p->apart);
        return token_seconds(&s, c->lanes[i], begin, c->tokens[i]) -
               (i + 1 == c->n_lanes ? own_head(&s, c->lanes[i]) : 0);
    case HT_REGIME_SHARES:
        return ht_shares_busy(&s, c, i);
    case HT_REGIME_OWNER:
        return ht_owner_busy(&s, c, i);
    default:
        e = ht_estimate_pass(&s, c->lanes[0], p->tokens, p->wanted, p->position);
        return (e.busy + e.wait) * drift(p, c->lanes[0], HT_REGIME_SOLO);
    }
}

ht_estimate ht_choice_estimate(const ht_problem *p, const ht_choice *c, size_t i) {
    const double busy = choice_busy(p, c, i);
    return (ht_estimate){busy, c->n_lanes > 1 ? fmax(c->seconds - c->head * stall(p, c->regime) - busy, 0) : 0};
}
