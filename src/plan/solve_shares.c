/* SHARES: every lane computes the residual stream itself, and a share of what the axes of each block divide. The axes
 * along which a block is cut are the shortest path over its operators. */
#include "plan/estimate.h"

#include <string.h>

#define WORTH_A_GRAPH 0.985 /* another cut must be so much quicker than those there are graphs for */

static const line no_line = {0, INFINITY, 0};

void ht_line_add(line *sum, const ht_lane_cost *cost, int signature, double seconds) {
    const double fixed = ht_op_fixed(cost, signature), wait = fmin(seconds, cost->ops[signature].start);
    const bool rises = seconds > fixed && seconds < INFINITY;
    sum->wait += wait;
    sum->at += (rises ? fixed : seconds) - wait;
    sum->slope += rises ? seconds - fixed : 0;
}

void ht_line_add_fused(const solver *s, line lines[2], const ht_lane_cost *cost, const ht_block *block,
                       const double *of) {
    ht_line_add(&lines[0], cost, block->fused->signature, of[block->fused->signature]);
    for (size_t i = block->fused_from; i < block->fused_to; i++)
        ht_line_add(&lines[1], cost, signature_of(s, block, i), of[signature_of(s, block, i)]);
}

/* How long a lane takes in an axis, which all of them begin at the same time. While the others wait for their queues,
 * it computes as if alone. */
typedef struct company {
    double drift, factor; /* of all; of what is computed beside others */
    double ahead;         /* seconds before the first of the others computes */
} company;

static double in_company(const company *c, ht_estimate e) {
    const double slowed = c->factor * e.busy - (c->factor - 1) * c->ahead;
    return c->drift * (e.wait + (slowed > e.busy ? slowed : e.busy));
}

/* The most that a lane which waits so long is busy within the limit. */
static double most_busy(const company *c, double wait, double limit) {
    const double left = limit / c->drift - wait, slowed = (left + (c->factor - 1) * c->ahead) / c->factor;
    return slowed < left ? slowed : left;
}

/* What an axis takes on one lane, by its units. */
typedef struct part {
    size_t of;
    company company;
    double none, all; /* without a unit, with all */
    line lines[2];    /* else: the lesser of both */
} part;

/* So many units, which have this share of what there is to do. */
static double part_of(const part *k, size_t units, double share) {
    if (units == 0 || units >= k->of)
        return units ? k->all : k->none;
    const line *a = &k->lines[0], *b = &k->lines[1];
    const double one = in_company(&k->company, (ht_estimate){a->at + a->slope * share, a->wait});
    if (b->at == INFINITY)
        return one;
    const double other = in_company(&k->company, (ht_estimate){b->at + b->slope * share, b->wait});
    return other < one ? other : one;
}

static double part_seconds(const part *k, size_t units) {
    return part_of(k, units, (double)units / (double)k->of);
}

/* The most units, of so many, that are done within the limit. */
static size_t most_units(const part *k, size_t left, double limit) {
    size_t most = 0;
    if (left == k->of && k->all <= limit)
        return left;
    for (int i = 0; i < 2 && k->lines[i].at < INFINITY; i++) {
        const line *l = &k->lines[i];
        const double busy = most_busy(&k->company, l->wait, limit);
        if (!(l->at <= busy))
            continue;
        const double share = l->slope > 0 ? (busy - l->at) / l->slope : 1;
        const size_t units = share >= 1 ? left : ht_min_size((size_t)(share * (double)k->of), left);
        most = ht_max_size(most, units);
    }
    most = ht_min_size(most, k->of - 1);
    while (most < left && most + 1 < k->of && part_seconds(k, most + 1) <= limit) /* rounding */
        most++;
    while (most > 0 && part_seconds(k, most) > limit)
        most--;
    return most;
}

/* From a join until the lane computes again: as with the model's first matrix. */
static double pause(const solver *s, size_t lane) {
    const ht_op *op = &s->model->ops[s->model->blocks[0].first];
    while (op->kind != HT_OP_MATMUL && op + 1 < s->model->ops + s->model->n_ops)
        op++;
    return join_seconds(s->p, lane) + s->p->lanes[lane].cost->ops[op->signature].start;
}

static company company_of(const solver *s, size_t lane, size_t tokens) {
    company c = {.drift = drift(s->p, lane, HT_REGIME_SHARES), .factor = together(s, lane, tokens), .ahead = INFINITY};
    const double own = pause(s, lane);
    for (size_t i = 0; i < s->n_lanes && c.factor > 1; i++)
        if (s->lanes[i] != lane)
            c.ahead = fmin(c.ahead, fmax(pause(s, s->lanes[i]) - own, 0));
    if (c.ahead == INFINITY)
        c.ahead = 0;
    return c;
}

/* Number `place` of the block, by itself or with those that it can be one operator with: returns the number behind. */
static size_t add_place(solver *s, const span *x, size_t lane, size_t place, ht_estimate all[2], line lines[2]) {
    const ht_problem *p = s->p;
    const size_t n = tokens_of(s, x->group, place);
    /* the head is computed by what is there whole */
    const ht_lane_cost *cost = p->lanes[lane].cost, *shares = x->group->head ? cost : part_cost(p, lane);
    const bool fused = place == x->block->fused_from && has_fused(x->block, x->axis->from, x->axis->to);
    const size_t to = fused ? x->block->fused_to : place + 1, at = p->position + p->tokens - n;
    ht_estimate ways[2];
    if (n == 0)
        return to;
    ht_estimate_ways(s, x->block, whole(s, lane, n), place, to, ways);
    const int signature = signature_of(s, x->block, place);
    for (int i = 0; i < 2; i++) {
        ways[i].busy += fused ? 0 : keys_seconds(cost, signature, n, at);
        add(&all[i], 1, ways[i]);
    }
    const double *of = look_up(s, lane, shares, n)->of;
    if (fused) {
        ht_line_add_fused(s, lines, shares, x->block, of);
        return to;
    }
    for (int i = 0; i < 2; i++)
        if (x->axis->maps[place] == HT_MAP_REPLICATED)
            lines[i].at += ways[i].busy, lines[i].wait += ways[i].wait;
        else
            ht_line_add(&lines[i], shares, signature, of[signature] + keys_seconds(shares, signature, n, at));
    return to;
}

static part make_part(solver *s, const span *x, size_t lane) {
    part k = {.of = s->p->of[x->number], .company = company_of(s, lane, x->group->head ? 1 : s->p->tokens)};
    ht_estimate none = {0, join_seconds(s->p, lane) * (x->axis->statistics ? 2 : 1)}, all[2] = {{0}};
    for (size_t i = x->axis->from; i < x->axis->to;) {
        if (x->axis->maps[i] != HT_MAP_EVERY) {
            i = add_place(s, x, lane, i, all, k.lines);
            continue;
        }
        const int signature = signature_of(s, x->block, i);
        /* lanes begin the head when they come to it */
        none.busy += x->group->head ? whole(s, lane, 1)->of[signature]
                                    : ht_estimate_every(s, lane, signature, tokens_of(s, x->group, i));
        i++;
    }
    if (!has_fused(x->block, x->axis->from, x->axis->to))
        k.lines[1] = no_line;
    for (int i = 0; i < 2; i++) {
        k.lines[i].at += none.busy, k.lines[i].wait += none.wait;
        add(&all[i], 1, none);
    }
    k.none = in_company(&k.company, none);
    k.all = fmin(in_company(&k.company, all[0]), in_company(&k.company, all[1]));
    return k;
}

typedef struct range_context {
    solver *s;
    const span *span;
} range_context;

/* Tokens [begin, begin + n) of a block that is cut by tokens. */
static double range_of_tokens(void *context, size_t lane, size_t begin, size_t n) {
    const range_context *k = context;
    solver *s = k->s;
    const ht_problem *p = s->p;
    const span *x = k->span;
    const size_t first = p->tokens - p->wanted, w = begin + n > first ? ht_min_size(begin + n - first, n) : 0;
    ht_estimate e = {0, join_seconds(p, lane)};
    if (n && x->axis->ordered) /* telling the lanes behind, in the midst of it */
        e.wait += join_seconds(p, lane) + p->join;
    for (size_t i = x->axis->from; i < x->axis->to; i++) {
        const int signature = signature_of(s, x->block, i);
        const size_t own = i < x->group->tail ? n : w;
        if (x->axis->maps[i] == HT_MAP_EVERY) {
            e.busy += ht_estimate_every(s, lane, signature, tokens_of(s, x->group, i));
        } else if (own) {
            add(&e, 1, of_signature(whole(s, lane, own), signature));
            e.busy += keys_seconds(p->lanes[lane].cost, signature, own, p->position + begin + n - own);
        }
    }
    return beside(s, lane, HT_REGIME_SHARES, e);
}

/* ---- query heads
 * ----------------------------------------------------------------------------------------------------------------- */

/* A part of an operator with as many groups as its elements make: the first line is of elements, its slope of all of
 * them; `common` is the slope of what goes with groups. */
typedef struct stage {
    line elements;
    double common;
} stage;

/* What an axis with groups takes on one lane: until what its groups have in common is there, and from then on. */
typedef struct grouped {
    part part;  /* without units, with all; its lines are of no use */
    double end; /* seconds from its end to the others' knowing */
    stage stages[2];
} grouped;

static grouped make_grouped(solver *s, const span *x, size_t lane) {
    const ht_lane_cost *shares = part_cost(s->p, lane);
    grouped g = {.part = make_part(s, x, lane), .end = join_seconds(s->p, lane)};
    for (size_t i = x->axis->from; i < x->axis->to; i++) {
        stage *to = &g.stages[i >= x->axis->ready];
        const size_t n = tokens_of(s, x->group, i), at = s->p->position + s->p->tokens - n;
        const int signature = signature_of(s, x->block, i);
        if (x->axis->maps[i] == HT_MAP_EVERY) {
            to->elements.at += ht_estimate_every(s, lane, signature, n);
            continue;
        }
        line l = {0};
        if (n)
            ht_line_add(&l, shares, signature,
                        look_up(s, lane, shares, n)->of[signature] + keys_seconds(shares, signature, n, at));
        to->elements.wait += l.wait;
        to->elements.at += l.at;
        to->elements.slope += l.slope * (1 - x->axis->common[i]);
        to->common += l.slope * x->axis->common[i];
    }
    return g;
}

/* Until stage number `last` ends, for so many units and groups, as if nobody were waited for. */
static double until_stage(const grouped *g, int last, size_t units, size_t groups, size_t group) {
    const double of = (double)g->part.of, share = (double)units / of, common = (double)(groups * group) / of;
    ht_estimate e = {0, last ? g->end : 0};
    for (int i = 0; i <= last; i++) {
        const stage *k = &g->stages[i];
        add(&e, 1, (ht_estimate){k->elements.at + k->elements.slope * share + k->common * common, k->elements.wait});
    }
    return in_company(&g->part.company, e);
}

/* How an axis is divided by query heads: lanes in order, each behind the other. */
typedef struct heads {
    const grouped *lanes;
    ht_window held[HT_MAX_LANES]; /* units that each may have */
    size_t n_lanes, of, group;
    double pass; /* seconds from what groups have in common being told to another lane's going on */
    /* More units than these lane i does not do within the bound, unless it is all of them; nor lanes i and up
     * together. */
    size_t most[HT_MAX_LANES], able[HT_MAX_LANES];
    size_t trial[HT_MAX_LANES], *units;
    double best;
} heads;

/* Units [begin, begin + n) on a lane: busy, joins of its own included; *ready: when what its last group has in
 * common is there, which is left as it is by a lane without that group's first unit. *late: how long it waits for
 * that of another. */
static double grouped_seconds(const heads *h, size_t i, size_t begin, size_t n, double *ready, double *late) {
    const grouped *g = &h->lanes[i];
    const size_t groups = ht_groups_before(h->group, begin + n) - ht_groups_before(h->group, begin);
    const double join = g->part.company.drift * g->end, there = *ready + h->pass;
    *late = 0;
    if (n == 0 || n == h->of)
        return n ? g->part.all : g->part.none;
    const double made = until_stage(g, 0, n, groups, h->group);
    double seconds = until_stage(g, 1, n, groups, h->group);
    if (begin % h->group != 0) { /* its queue is empty when it goes on */
        seconds += join;
        *late = fmax(there - made, 0);
    }
    if (ht_group_goes_on(h->group, begin, begin + n)) {
        seconds += join;
        *ready = made + join;
    }
    return seconds;
}

/* What lanes can do before the best so far, wherever their units begin: never less with fewer units. */
static void find_most(heads *h) {
    for (size_t i = h->n_lanes, able = 0; i-- > 0; h->able[i] = able) {
        const grouped *g = &h->lanes[i];
        size_t low = 0, high = h->of ? h->of - 1 : 0;
        while (low < high) {
            const size_t n = (low + high + 1) / 2;
            if (until_stage(g, 1, n, n / h->group, h->group) < h->best)
                low = n;
            else
                high = n - 1;
        }
        h->most[i] = low;
        able += g->part.all < h->best ? h->of : low;
    }
}

/* Every way to give units [begin, ..) to lanes i and up that ends before the best so far; `slowest`: of the lanes
 * before. */
static void divide_heads(heads *h, size_t i, size_t begin, double ready, double slowest) {
    const size_t left = h->of - begin;
    const bool last = i + 1 == h->n_lanes;
    for (size_t n = last ? left : left - ht_min_size(left, h->able[i + 1]); n <= left; n++) {
        double made = ready, late;
        if (!is_held(h->held[i], begin, n))
            continue;
        const double seconds = grouped_seconds(h, i, begin, n, &made, &late), here = fmax(slowest, seconds + late);
        h->trial[i] = n;
        if (here < h->best && last) {
            h->best = here;
            memcpy(h->units, h->trial, h->n_lanes * sizeof *h->units);
            find_most(h); /* the better the best, the fewer ways are left */
        } else if (here < h->best) {
            divide_heads(h, i + 1, begin + n, made, here);
        } else if (n > h->most[i]) { /* nor with more */
            n = ht_max_size(n, h->of - 1);
        }
    }
}

static heads heads_of(const solver *s, const span *x, const grouped *lanes, size_t n_lanes) {
    const size_t of = s->p->of[x->number], n = tokens_of(s, x->group, x->axis->ready - 1);
    return (heads){.lanes = lanes,
                   .n_lanes = n_lanes,
                   .of = of,
                   .group = x->axis->group * of / x->axis->extent,
                   .pass = s->p->join + s->p->exchange * 4 * (double)(n * x->axis->lent)};
}

/* Divides an axis that has groups; infinite: not within the bound. */
static double solve_heads(solver *s, const span *x, const size_t *lanes, size_t n_lanes, double bound, size_t *units) {
    grouped g[HT_MAX_LANES];
    for (size_t i = 0; i < n_lanes; i++)
        g[i] = make_grouped(s, x, lanes[i]);
    heads h = heads_of(s, x, g, n_lanes);
    for (size_t i = 0; i < n_lanes; i++)
        h.held[i] = window_of(s->p, lanes[i], x->number, h.of);
    h.units = units;
    h.best = bound;
    find_most(&h);
    divide_heads(&h, 0, 0, 0, 0);
    return h.best < bound ? h.best : INFINITY;
}

/* What goes from core to core at the end of an axis: sums that every lane wrote, or rows, heads and tokens of one slot;
 * and what is exchanged inside. */
static double exchange_seconds(const solver *s, const span *x, size_t n_lanes) {
    const size_t n = tokens_of(s, x->group, x->axis->to - 1), copies = x->axis->result == HT_RESULT_SUMS ? n_lanes : 1;
    return s->p->exchange * 4 * (double)(n * (copies * x->axis->leaves + n_lanes * x->axis->statistics));
}

/* The first matrix of an axis; its end: it has none. */
static size_t first_matrix(const solver *s, const span *x) {
    size_t i = x->axis->from;
    while (i < x->axis->to && s->model->ops[x->block->first + i].kind != HT_OP_MATMUL)
        i++;
    return i;
}

/* What a lane may take of an axis: shares that it has graphs for, ANY number, none. */
#define ANY SIZE_MAX

static size_t list_options(const solver *s, const span *x, size_t lane, size_t options[HT_MAX_SHARES + 2]) {
    const ht_problem *p = s->p;
    const ht_solver_lane *l = &p->lanes[lane];
    const size_t matrix = first_matrix(s, x), axis = x->number;
    const size_t tokens = matrix < x->axis->to ? tokens_of(s, x->group, matrix) : 0;
    size_t n = 0;
    options[0] = ANY;
    if (matrix == x->axis->to || !is_built_only(l, tokens))
        return 1;
    for (size_t i = 0; i < HT_MAX_SHARES; i++)
        if (l->built[axis][i] && l->built[axis][i] <= p->of[axis] && is_ready(p, lane, axis, l->built[axis][i], tokens))
            options[n++] = l->built[axis][i];
    if (n || !has_room(l, axis))
        options[n++] = 0;
    if (has_room(l, axis))
        options[n++] = ANY;
    return n;
}

/* Units of each lane of those that are there, one's behind another's: the most that it does within the limit and holds.
 * A lane that begins before its window has none, and none is lost by that: lanes before it have taken all that they
 * may. Returns what is left. Lanes that do not take `any` number hold everything. */
static size_t take_units(const part *parts, const bool *any, const ht_window *held, size_t n_lanes, size_t left,
                         double limit, size_t *units) {
    size_t begin = 0;
    for (size_t i = 0; i < n_lanes; i++) {
        if (!any[i])
            continue;
        const size_t room = held[i].first <= begin && begin < held[i].end ? held[i].end - begin : 0;
        units[i] = most_units(&parts[i], ht_min_size(left, room), limit);
        begin += units[i];
        left -= units[i];
    }
    return left;
}

/* Divides what is left of an axis among the lanes that take any number. Returns when the slowest ends; infinite: not within
 * the bound. units[] of those lanes are filled in. */
static double divide_units(const part *parts, const bool *any, const ht_window *held, size_t n_lanes, size_t left,
                           double bound, size_t *units) {
    double low = 0, high = bound, whole = 0;
    size_t last = n_lanes, n_any = 0;
    for (size_t i = 0; i < n_lanes; i++)
        if (any[i]) {
            const double all = part_seconds(&parts[i], left);
            low = fmax(low, parts[i].none);
            whole = all < INFINITY ? fmax(whole, all) : whole;
            last = i;
            n_any++;
        }
    if (n_any == 0)
        return left ? INFINITY : 0;
    if (n_any == 1)
        return units[last] = left, is_held(held[last], 0, left) ? part_seconds(&parts[last], left) : INFINITY;
    high = fmin(high, fmax(whole, low) * 1.0001);
    double slowest = INFINITY;
    for (int step = 0; step < 48 && low <= high && (step < 2 || high - low > 1e-7 * high); step++) {
        const double limit = step ? (low + high) / 2 : high;
        size_t trial[HT_MAX_LANES];
        if (take_units(parts, any, held, n_lanes, left, limit, trial)) {
            if (step == 0)
                return INFINITY;
            low = limit;
            continue;
        }
        slowest = 0;
        for (size_t i = 0; i < n_lanes; i++)
            if (any[i])
                units[i] = trial[i], slowest = fmax(slowest, part_seconds(&parts[i], trial[i]));
        high = fmin(slowest, limit);
    }
    return slowest;
}

/* Cuts that allow the axis, any of them. The head is cut with whatever of a block is. */
static unsigned cuts_of(const span *x) {
    static const unsigned cuts[HT_AXIS_KINDS] = {HT_CUT_CAUSAL,  HT_CUT_HEADS,   HT_CUT_FEATURES, HT_CUT_ROWS,
                                                 HT_CUT_QUERIES, HT_CUT_EXPERTS, HT_CUT_CHANNELS};
    const unsigned own = cuts[x->axis->kind];
    if (x->group->head)
        return HT_CUT_ROWS | HT_CUT_HEADS | HT_CUT_FEATURES | HT_CUT_QUERIES | HT_CUT_EXPERTS | HT_CUT_CHANNELS;
    if (x->axis->kind == HT_AXIS_FEATURES) /* one matrix's features by themselves are its rows */
        return x->axis->result == HT_RESULT_COLUMNS ? HT_CUT_ROWS : own;
    return x->axis->result == HT_RESULT_COLUMNS ? own | HT_CUT_ROWS : own;
}

/* Divides what an axis divides by every combination of shares that static lanes have graphs for, as digits of one
 * counter; then by one of their own choice, which must be worth its memory. */
static double divide_axis(const solver *s, const span *x, const part *parts, const size_t *lanes, size_t n_lanes,
                          double bound, size_t *units) {
    size_t options[HT_MAX_LANES][HT_MAX_SHARES + 2], n_options[HT_MAX_LANES], combinations = 1;
    ht_window held[HT_MAX_LANES];
    for (size_t i = 0; i < n_lanes; i++) {
        held[i] = window_of(s->p, lanes[i], x->number, s->p->of[x->number]);
        n_options[i] = list_options(s, x, lanes[i], options[i]);
        combinations *= n_options[i];
    }
    double best = INFINITY;
    for (size_t c = 0; c < combinations; c++) {
        bool any[HT_MAX_LANES] = {false}, free = false;
        size_t trial[HT_MAX_LANES], left = s->p->of[x->number];
        double slowest = 0;
        for (size_t i = 0, rest = c; i < n_lanes && slowest < INFINITY; rest /= n_options[i++]) {
            const size_t option = options[i][rest % n_options[i]];
            any[i] = option == ANY;
            free |= any[i] && n_options[i] > 1;
            if (any[i])
                continue;
            trial[i] = option;
            slowest = option <= left ? fmax(slowest, part_seconds(&parts[i], option)) : INFINITY;
            left -= option;
        }
        const double worth = fmin(free && best < INFINITY ? WORTH_A_GRAPH * best : best, bound);
        if (slowest == INFINITY || slowest > worth)
            continue;
        slowest = fmax(slowest, divide_units(parts, any, held, n_lanes, left, worth, trial));
        if (slowest < best && slowest <= worth) {
            best = slowest;
            memcpy(units, trial, n_lanes * sizeof *units);
        }
    }
    return best;
}

/* ---- experts: units whose shares differ from block to block
 * ------------------------------------------------------------------- */

/* One block of them. */
typedef struct loaded {
    const part *parts; /* of the lanes */
    const float *before;
    size_t n_lanes, of;
} loaded;

/* Units [begin, end) on a lane. */
static double loaded_seconds(const loaded *l, size_t lane, size_t begin, size_t end) {
    return part_of(&l->parts[lane], end - begin, (double)(l->before[end] - l->before[begin]));
}

/* Divides units [begin, of) among lanes [lane, n_lanes) so that the slowest of them ends first: those of lane i end at
 * ends[i]. The more a lane takes, the later it ends, and the sooner the lanes behind it: the best is where they meet.
 * Only all of the units may take less than most of them, on a lane that has a task of the whole. */
static double divide_loaded(const loaded *l, size_t lane, size_t begin, size_t *ends) {
    size_t trial[HT_MAX_LANES], low = begin, high = l->of;
    double best = INFINITY;
    if (lane + 1 == l->n_lanes) {
        ends[lane] = l->of;
        return loaded_seconds(l, lane, begin, l->of);
    }
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (loaded_seconds(l, lane, begin, middle) < divide_loaded(l, lane + 1, middle, trial))
            low = middle + 1;
        else
            high = middle;
    }
    const size_t tried[] = {low, low > begin ? low - 1 : low, begin, l->of};
    for (size_t k = 0; k < (begin ? 2 : HT_COUNT(tried)); k++) {
        trial[lane] = tried[k];
        const double behind = divide_loaded(l, lane + 1, tried[k], trial),
                     seconds = fmax(loaded_seconds(l, lane, begin, tried[k]), behind);
        if (seconds < best) {
            best = seconds;
            memcpy(ends + lane, trial + lane, (l->n_lanes - lane) * sizeof *ends);
        }
    }
    return best;
}

static bool is_of(const solver *s, const ht_block_load *load, const ht_group *group) {
    return &s->model->groups[s->model->blocks[load->block].group] == group;
}

/* How many of the group's blocks have loads of their own. */
static size_t count_loads(const solver *s, const ht_group *group) {
    size_t n = 0;
    for (size_t k = 0; k < s->p->n_loads; k++)
        n += is_of(s, &s->p->loads[k], group);
    return n;
}

/* Divides each block of the group by its own load, in c->loaded; lanes that have shares built have the same of each.
 * units[]: of blocks without one. What a block takes on average. */
static double divide_blocks(const solver *s, const span *x, const part *parts, const size_t *lanes, size_t n_lanes,
                            size_t *units, ht_choice *c) {
    const ht_problem *p = s->p;
    const size_t others = x->group->count - count_loads(s, x->group);
    loaded l = {.parts = parts, .n_lanes = n_lanes, .of = p->of[x->number]};
    size_t options[HT_MAX_SHARES + 2];
    bool any = true;
    const double even = divide_axis(s, x, parts, lanes, n_lanes, INFINITY, units);
    double sum = others ? (double)others * even : 0;
    for (size_t i = 0; i < n_lanes; i++)
        any &= list_options(s, x, lanes[i], options) == 1 && options[0] == ANY &&
               is_held(window_of(p, lanes[i], x->number, l.of), 0, l.of);
    for (size_t k = 0; k < p->n_loads; k++) {
        size_t ends[HT_MAX_LANES], begin = 0;
        double seconds = 0;
        if (!is_of(s, &p->loads[k], x->group))
            continue;
        l.before = p->loads[k].before;
        if (any)
            seconds = divide_loaded(&l, 0, 0, ends);
        for (size_t i = 0; i < n_lanes && even < INFINITY; begin = ends[i++]) {
            ends[i] = any ? ends[i] : begin + units[i];
            c->loaded[k][i] = (uint16_t)(ends[i] - begin);
            seconds = fmax(seconds, loaded_seconds(&l, i, begin, ends[i]));
        }
        sum += seconds;
    }
    return even < INFINITY ? sum / (double)x->group->count : INFINITY;
}

/* Divides along an axis; infinite where it cannot be, or not within the bound. */
static double solve_axis(solver *s, const span *x, const size_t *lanes, size_t n_lanes, double bound, size_t *units,
                         ht_choice *c) {
    const ht_problem *p = s->p;
    if (!(p->cuts & cuts_of(x)))
        return INFINITY;
    for (size_t i = 0; i < n_lanes; i++)
        if (p->unable[x->number] >> lanes[i] & 1 ||
            (x->axis->kind == HT_AXIS_TOKENS && !is_held(window_of(p, lanes[i], x->number, 1), 0, 1)))
            return INFINITY;
    const double joins = p->join * (x->axis->statistics ? 2 : 1) + exchange_seconds(s, x, n_lanes);
    if (x->axis->kind == HT_AXIS_TOKENS) {
        range_context k = {s, x};
        division d = {.f = range_of_tokens, .context = &k, .lanes = lanes, .n_lanes = n_lanes, .all = p->tokens};
        if (p->tokens < 2)
            return INFINITY;
        const double seconds = ht_divide(&d, bound - joins);
        memcpy(units, d.many, n_lanes * sizeof *units);
        return joins + seconds;
    }
    if (p->of[x->number] == 0)
        return INFINITY;
    if (x->axis->group)
        return joins + solve_heads(s, x, lanes, n_lanes, bound - joins, units);
    part parts[HT_MAX_LANES];
    for (size_t i = 0; i < n_lanes; i++)
        parts[i] = make_part(s, x, lanes[i]);
    if (x->axis->kind == HT_AXIS_EXPERTS && count_loads(s, x->group))
        return joins + divide_blocks(s, x, parts, lanes, n_lanes, units, c);
    return joins + divide_axis(s, x, parts, lanes, n_lanes, bound - joins, units);
}

/* The shortest path over a block's operators up to `end`; infinite where it is longer than the bound. */
static double solve_block(solver *s, const ht_group *g, size_t end, const size_t *lanes, size_t n_lanes, double bound,
                          ht_choice *choice) {
    const ht_block *block = block_of(s, g);
    ht_group_choice *c = &choice->groups[g - s->model->groups];
    double at[HT_MAX_BLOCK_OPS + 1];
    size_t via[HT_MAX_BLOCK_OPS + 1] = {0}, reversed[HT_MAX_BLOCK_OPS], n = 0;
    at[0] = 0;
    for (size_t i = 1; i <= end; i++)
        at[i] = INFINITY;
    for (size_t i = 0; i < end; i++) /* edges lead forward: in this order every node is final when it is left */
        for (size_t a = 0; a < block->n_axes; a++) {
            const span x = span_of(s, g, a);
            const size_t to = x.axis->to;
            if (x.axis->from != i || !(at[i] < bound))
                continue;
            const double left = fmin(bound, at[to]) - at[i],
                         there = at[i] + solve_axis(s, &x, lanes, n_lanes, left, c->units[a], choice);
            if (there < at[to])
                at[to] = there, via[to] = a;
        }
    if (at[end] == INFINITY)
        return INFINITY;
    for (size_t i = end; i > 0; i = s->model->axes[block->first_axis + reversed[n - 1]].from)
        reversed[n++] = via[i];
    c->n_axes = n;
    for (size_t i = 0; i < n; i++)
        c->axes[i] = reversed[n - 1 - i];
    return at[end];
}

/* Looking up tokens; for a lane that has it done, waiting for that. */
static double embedding(solver *s, size_t lane) {
    const bool fed = is_partly(s->p, lane) && s->p->lanes[lane].holds->fed;
    return fed ? s->p->join + join_seconds(s->p, lane)
               : beside(s, lane, HT_REGIME_SHARES, ht_estimate_embedding(s, lane, s->p->tokens));
}

void ht_solve_shares(solver *s, const size_t *lanes, size_t n_lanes) {
    const ht_problem *p = s->p;
    const ht_group *head = head_group(s);
    ht_choice c = {.regime = HT_REGIME_SHARES, .n_lanes = n_lanes, .by_load = p->n_loads > 0};
    double seconds[HT_MAX_GROUPS], sum = 0;
    if (n_lanes * ht_max_size(s->model->most_added, 1) > HT_MAX_SUMS)
        return;
    for (size_t i = 0; i < n_lanes; i++)
        sum = fmax(sum, embedding(s, lanes[i]));
    const double factor = stall(p, HT_REGIME_SHARES), bound = s->bound / factor;
    /* the greedy choice is the first lane's */
    const size_t end = block_of(s, head)->n - 1, n = s->model->n_groups - 1;
    c.head = solve_block(s, head, end, lanes, n_lanes, (bound - sum) / head_pace(p), &c);
    c.head += seconds_of(of_range(s, block_of(s, head), whole(s, lanes[0], 1), end, end + 1)) *
              drift(p, lanes[0], HT_REGIME_SHARES);
    c.head *= head_pace(p);
    sum += c.head;
    for (size_t k = 0; k < n && sum < bound; k++) {
        const ht_group *g = &s->model->groups[k];
        const size_t same = ht_estimate_same_group(s, k);
        if (same < k && !count_loads(s, g) && !count_loads(s, &s->model->groups[same]))
            c.groups[k] = c.groups[same], seconds[k] = seconds[same];
        else
            seconds[k] = solve_block(s, g, block_of(s, g)->n, lanes, n_lanes, (bound - sum) / (double)g->count, &c);
        sum += (double)g->count * seconds[k];
    }
    c.seconds = sum * factor;
    if (sum < INFINITY)
        ht_estimate_propose(s, &c, lanes);
}

/* What lane number i of the choice is busy in an axis of experts, on average of the group's blocks. */
static double loaded_busy(const solver *s, const ht_choice *c, const span *x, const part *own, const size_t *units,
                          size_t i) {
    const ht_problem *p = s->p;
    double sum = (double)(x->group->count - count_loads(s, x->group)) * part_seconds(own, units[i]);
    for (size_t k = 0; k < p->n_loads; k++) {
        size_t begin = 0, end = 0;
        if (!is_of(s, &p->loads[k], x->group))
            continue;
        for (size_t lane = 0; lane <= i; lane++)
            begin = end, end += c->by_load ? c->loaded[k][lane] : units[lane];
        sum += part_of(own, end - begin, (double)(p->loads[k].before[end] - p->loads[k].before[begin]));
    }
    return sum / (double)x->group->count;
}

/* What lane number i of the choice is busy in an axis of which the lanes have these units. */
static double busy_in(solver *s, const ht_choice *c, const span *x, const size_t *units, size_t i) {
    range_context context = {s, x};
    size_t begin = 0;
    double ready = 0, late;
    for (size_t before = 0; before < i; before++)
        begin += units[before];
    if (x->axis->kind == HT_AXIS_TOKENS)
        return range_of_tokens(&context, c->lanes[i], begin, units[i]);
    if (x->axis->group) {
        const grouped g = make_grouped(s, x, c->lanes[i]);
        heads h = heads_of(s, x, &g, 1);
        return grouped_seconds(&h, 0, begin, units[i], &ready, &late);
    }
    const part p = make_part(s, x, c->lanes[i]);
    return x->axis->kind == HT_AXIS_EXPERTS && s->p->n_loads ? loaded_busy(s, c, x, &p, units, i)
                                                             : part_seconds(&p, units[i]);
}

double ht_shares_busy(solver *s, const ht_choice *c, size_t i) {
    const size_t lane = c->lanes[i];
    double sum = embedding(s, lane);
    for (size_t k = 0; k + 1 < s->model->n_groups; k++) {
        const ht_group *g = &s->model->groups[k];
        for (size_t a = 0; a < c->groups[k].n_axes; a++) {
            const span x = span_of(s, g, c->groups[k].axes[a]);
            const double one = busy_in(s, c, &x, c->groups[k].units[c->groups[k].axes[a]], i);
            sum += (double)g->count * (one + exchange_seconds(s, &x, c->n_lanes));
        }
    }
    return sum;
}
