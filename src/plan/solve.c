/* The planner: the cheapest way to compute a pass, from the lanes' cost tables (plan.h says which ways there are).
 *
 * Exact within the cost model. An axis is divided so that its slowest lane ends first: for a limit each lane takes the
 * most units that it does in time, and the limit is found by bisection, so any number of lanes will do. The axes along
 * which a block is cut are the shortest path over its operators; each edge ends with a join. Blocks of a group are alike;
 * behind the model's tail they compute wanted tokens only. The regime OWNER is the solver of HeteroLLM (arXiv 2501.14794): min over strategies of
 * max(T) + T_sync for one operator at a time.
 */
#include "plan/estimate.h"

#include <math.h>
#include <string.h>

const char *ht_regime_name(ht_regime r) {
    static const char *const names[] = {"single", "causal", "shares", "owner"};
    return names[r];
}

/* ---- dividing tokens ------------------------------------------------------------------------------------------------------- */

/* Each lane in turn takes the most that it does within the limit; true if that is all of them. The last one takes all that
 * is left or fails: tokens that end a pass may take less than a few of them that do not, so that a search for the most
 * would not find them. */
static bool fill(division *d, double limit) {
    size_t begin = 0, units[HT_MAX_LANES];
    bool good = true, known = true; /* where the lane's tokens begin is the same at both limits */
    size_t i = 0;
    for (; i < d->n_lanes && good; i++) {
        size_t low = d->least, high = d->all - begin - d->least * (d->n_lanes - i - 1);
        if (i + 1 == d->n_lanes)
            low = high;
        else if (known)
            low = ht_max_size(low, d->few[i]), high = ht_min_size(high, d->many[i]);
        while (low < high) {
            const size_t middle = (low + high + 1) / 2;
            if (d->f(d->context, d->lanes[i], begin, middle) <= limit)
                low = middle;
            else
                high = middle - 1;
        }
        good = low == 0 || d->f(d->context, d->lanes[i], begin, low) <= limit;
        known &= d->few[i] == d->many[i];
        units[i] = low;
        begin += low;
    }
    if (good)
        memcpy(d->many, units, d->n_lanes * sizeof *units);
    else
        for (size_t k = 0; k + 1 < d->n_lanes; k++)
            d->few[k] = k + 1 < i ? units[k] : d->least;
    return good;
}

/* Is there one division left? */
static bool is_settled(const division *d) {
    for (size_t i = 0; i + 1 < d->n_lanes; i++)
        if (d->few[i] != d->many[i])
            return false;
    return true;
}

double ht_solve_divide(division *d, double bound) {
    double low = 0, most = 0, first = 0, slowest = 0;
    for (size_t i = 0; i < d->n_lanes; i++) {
        const double whole = d->f(d->context, d->lanes[i], 0, d->all);
        low = fmax(low, d->f(d->context, d->lanes[i], 0, 0));
        first = fmax(first, d->f(d->context, d->lanes[i], 0, d->least));
        most = whole < INFINITY ? fmax(most, whole) : most;
        d->few[i] = d->least;
        d->many[i] = d->all;
    }
    double high = fmin((fmax(most, low) + (d->least ? 2 * first : 0)) * 1.0001, bound);
    if (first == INFINITY || low > high || !fill(d, high))
        return INFINITY;
    for (int i = 0; i < 48 && high - low > 1e-6 * high && !is_settled(d); i++) {
        const double middle = (low + high) / 2;
        if (fill(d, middle))
            high = middle;
        else
            low = middle;
    }
    for (size_t i = 0, begin = 0; i < d->n_lanes; begin += d->many[i++])
        slowest = fmax(slowest, d->f(d->context, d->lanes[i], begin, d->many[i]));
    return slowest;
}

/* ---- TOKENS ------------------------------------------------------------------------------------------------------------------ */

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

void ht_solve_propose(solver *s, ht_choice *c, const size_t *lanes) {
    if (!(c->seconds < s->best->seconds))
        return;
    memcpy(c->lanes, lanes, c->n_lanes * sizeof *lanes);
    *s->best = *c;
    s->bound = fmin(s->bound, c->seconds);
}

static void try_tokens(solver *s, const size_t *lanes, size_t n_lanes) {
    const ht_problem *p = s->p;
    if (!(p->cuts & HT_CUT_CAUSAL) || p->tokens < 2 * n_lanes || (p->wanted > 1 && !p->tokens_divide))
        return;
    /* one token at least: without any it would be a choice of fewer lanes, which is tried as such */
    division d = {.f = token_seconds, .context = s, .lanes = lanes, .n_lanes = n_lanes, .all = p->tokens, .least = 1};
    const double factor = stall(p, HT_REGIME_TOKENS), seconds = ht_solve_divide(&d, s->bound / factor);
    if (seconds == INFINITY)
        return;
    const size_t end = lanes[n_lanes - 1];
    ht_choice c = {.regime = HT_REGIME_TOKENS,
                   .n_lanes = n_lanes,
                   .seconds = seconds * factor,
                   .head = ht_estimate_head(s, end) * drift(p, end, HT_REGIME_TOKENS)};
    memcpy(c.tokens, d.many, n_lanes * sizeof *c.tokens);
    ht_solve_propose(s, &c, lanes);
}

/* ---- all of them -------------------------------------------------------------------------------------------------------------- */

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
        if (alone[l] < solo->seconds || !solo->n_lanes)
            *solo = (ht_choice){.n_lanes = 1,
                                .lanes = {l},
                                .seconds = alone[l],
                                .head = ht_estimate_head(s, l) * drift(p, l, HT_REGIME_SOLO),
                                .tokens = {p->tokens}};
    }
}

void ht_solve(const ht_problem *p, ht_choice *choice) {
    solver s;
    ht_choice solo;
    double alone[HT_MAX_LANES];
    ht_estimate_start(&s, p, choice);
    solve_alone(&s, &solo, alone);
    *choice = (ht_choice){.seconds = INFINITY};
    s.bound = p->forced ? INFINITY : solo.seconds;
    for (unsigned set = 1; set < 1u << p->n_lanes && p->cuts; set++) {
        size_t lanes[HT_MAX_LANES];
        const size_t n = list_lanes(p, set, lanes);
        if (n < 2)
            continue;
        ht_estimate_set(&s, lanes, n);
        if (!p->by_operator) {
            try_tokens(&s, lanes, n);
            ht_solve_shares(&s, lanes, n);
        }
        if (n == 2) {
            ht_solve_owner(&s, lanes[0], lanes[1]);
            ht_solve_owner(&s, lanes[1], lanes[0]);
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
        return token_seconds(&s, c->lanes[i], begin, c->tokens[i]) -
               (i + 1 == c->n_lanes ? ht_estimate_head(&s, c->lanes[i]) * drift(p, c->lanes[i], HT_REGIME_TOKENS) : 0);
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
