/* The planner: the cheapest way to compute a pass, from the lanes' cost tables (plan.h says which ways there are).
 *
 * Exact within the cost model. An axis is divided so that its slowest lane ends first: for a limit each lane takes the
 * most units that it does in time, and the limit is found by bisection, so any number of lanes will do. The axes along
 * which a block is cut are the shortest path over its operators; each edge ends with a join. Blocks of a group are alike;
 * behind the model's tail they compute wanted tokens only. The regime OWNER is the solver of HeteroLLM (arXiv 2501.14794): min over strategies of
 * max(T) + T_sync for one operator at a time.
 */
#include "plan/plan.h"

#include <math.h>
#include <string.h>

#define WORTH_A_GRAPH 0.985 /* another cut must be so much quicker than those there are graphs for */

const char *ht_regime_name(ht_regime r) {
    static const char *const names[] = {"single", "causal", "shares", "owner"};
    return names[r];
}

/* ---- what operators take -------------------------------------------------------------------------------------------------- */

#define REMEMBERED 256 /* numbers of tokens whose times are kept: of all lanes, by bits of a hash */
#define POOL 8192      /* and times of all of these together */

/* What one lane's operators take for one number of tokens, whole: the search asks for the same numbers again and again. */
typedef struct times {
    const ht_lane_cost *cost; /* NULL: nothing is kept here */
    size_t n;
    const double *of;  /* by signature; of what reads keys: of the first tokens */
    double begin, end; /* of all blocks but the head: before the tail, and behind it */
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
    side sides[2]; /* before the tail, behind it */
    size_t lookups;
    int shift; /* of a hash to the number of what is kept */
    times kept[REMEMBERED];
    double pool[POOL];
} solver;

static const ht_block *block_of(const solver *s, const ht_group *g) {
    return &s->model->blocks[g->block];
}

static int signature_of(const solver *s, const ht_block *block, size_t place) {
    return s->model->ops[block->first + place].signature;
}

/* Tokens of the pass that operator number `place` of such blocks computes. */
static size_t tokens_of(const solver *s, const ht_group *g, size_t place) {
    return g->head ? 1 : place < g->tail ? s->p->tokens : s->p->wanted;
}

static void count_op(side *to, int signature, size_t count) {
    size_t i = 0;
    while (i < to->n_ops && to->ops[i].signature != signature)
        i++;
    if (i == to->n_ops)
        to->ops[to->n_ops++].signature = signature, to->ops[i].count = 0;
    to->ops[i].count += count;
}

static void count_ops(solver *s) {
    for (size_t k = 0; k < s->model->n_groups; k++) {
        const ht_group *g = &s->model->groups[k];
        const ht_block *block = block_of(s, g);
        for (size_t i = 0; i < block->n && !g->head; i++) {
            side *to = &s->sides[i >= g->tail];
            if (block->fused && i == block->fused_from && (i >= g->tail) == (block->fused_to > g->tail)) {
                to->fused[to->n_fused].block = block;
                to->fused[to->n_fused++].count = g->count;
                i = block->fused_to - 1;
                continue;
            }
            count_op(to, signature_of(s, block, i), g->count);
        }
    }
}

static void start(solver *s, const ht_problem *p, ht_choice *best) {
    s->p = p;
    s->model = p->model;
    s->best = best;
    s->bound = INFINITY;
    s->n_lanes = 1;
    s->lookups = 0;
    for (int i = 0; i < 2; i++)
        s->sides[i].n_ops = s->sides[i].n_fused = 0;
    count_ops(s);
    size_t n = REMEMBERED;
    s->shift = 24;
    for (; n * p->model->n_signatures > POOL; n /= 2)
        s->shift++;
    for (size_t i = 0; i < n; i++)
        s->kept[i].cost = NULL;
}

/* What the block can have as one operator: as that where the lane has it, else in its parts. */
static double fused_seconds(const solver *s, const ht_block *block, const double *of) {
    double apart = 0;
    for (size_t i = block->fused_from; i < block->fused_to; i++)
        apart += of[signature_of(s, block, i)];
    return fmin(of[block->fused->signature], apart);
}

static bool has_fused(const ht_block *block, size_t from, size_t to) {
    return block->fused && block->fused_from >= from && block->fused_to <= to;
}

/* Operators [from, to) of a block, without what keys of earlier positions add. */
static double range_seconds(const solver *s, const ht_block *block, const double *of, size_t from, size_t to) {
    double sum = 0;
    for (size_t i = from; i < to; i++)
        if (i == block->fused_from && has_fused(block, from, to)) {
            sum += fused_seconds(s, block, of);
            i = block->fused_to - 1;
        } else {
            sum += of[signature_of(s, block, i)];
        }
    return sum;
}

static double side_seconds(const solver *s, const side *x, const double *of) {
    double sum = 0;
    for (size_t i = 0; i < x->n_ops; i++)
        sum += (double)x->ops[i].count * of[x->ops[i].signature];
    for (size_t i = 0; i < x->n_fused; i++)
        sum += (double)x->fused[i].count * fused_seconds(s, x->fused[i].block, of);
    return sum;
}

static const times *look_up(solver *s, size_t lane, const ht_lane_cost *cost, size_t n) {
    static const double none[HT_MAX_SIGNATURES];
    static const times nothing = {.of = none};
    const uint32_t key = (uint32_t)(n * 16 + lane * 2 + (cost != s->p->lanes[lane].cost)) * 2654435769u;
    const size_t place = key >> s->shift, n_signatures = s->model->n_signatures;
    times *t = &s->kept[place];
    if (n == 0)
        return &nothing;
    if (t->cost == cost && t->n == n)
        return t;
    double *of = &s->pool[place * n_signatures];
    t->cost = cost;
    t->n = n;
    t->of = of;
    for (size_t i = 0; i < n_signatures; i++) {
        const bool known = n == 1 || !s->model->signatures[i].head; /* the head is of one token */
        of[i] = known ? ht_op_seconds(cost, (int)i, n, 1, 0) : INFINITY;
        s->lookups += known;
    }
    t->begin = side_seconds(s, &s->sides[0], of);
    t->end = side_seconds(s, &s->sides[1], of);
    return t;
}

/* Of whole operators, and of parts of them: every part's time follows from that of the whole. */
static const times *whole(solver *s, size_t lane, size_t n) {
    return look_up(s, lane, s->p->lanes[lane].cost, n);
}

static const ht_lane_cost *part_cost(const ht_problem *p, size_t lane) {
    return p->lanes[lane].shares ? p->lanes[lane].shares : p->lanes[lane].cost;
}

static const times *parts(solver *s, size_t lane, size_t n) {
    return look_up(s, lane, part_cost(s->p, lane), n);
}

/* An operator takes so much longer for n tokens from `position` on than for the first n. */
static double keys_seconds(const ht_lane_cost *cost, int signature, size_t n, size_t position) {
    return cost->ops[signature].per_key * (double)n * (double)position;
}

/* The same of all operators on one side of the tail. */
static double side_keys(const side *x, const ht_lane_cost *cost, size_t n, size_t position) {
    double sum = 0;
    for (size_t i = 0; i < x->n_ops; i++)
        sum += (double)x->ops[i].count * keys_seconds(cost, x->ops[i].signature, n, position);
    return sum;
}

static double stall(const ht_problem *p, ht_regime regime) {
    return p->stall[regime] > 0 ? p->stall[regime] : 1;
}

/* What every time is multiplied by in a regime. Lanes that compute at the same time slow each other down: they share
 * memory, if no cores. */
static double pace(const solver *s, size_t lane, ht_regime regime) {
    const ht_solver_lane *l = &s->p->lanes[lane];
    return l->drift[regime] * (regime == HT_REGIME_SOLO ? 1 : ht_together(l->cost, s->n_lanes, s->p->tokens));
}

/* What every lane computes for itself, a norm, where all lanes of the set begin it at once, as axes do: it is bound by memory,
 * which they contend for until the first of them is done. */
static double every_seconds(solver *s, size_t lane, int signature, size_t n) {
    double first = INFINITY, alone = 0, factor = 1;
    for (size_t i = 0; i < s->n_lanes; i++) {
        const size_t l = s->lanes[i];
        const double seconds = whole(s, l, n)->of[signature],
                     slower = ht_norms_together(s->p->lanes[l].cost, s->n_lanes, n);
        first = fmin(first, seconds * slower);
        if (l == lane)
            alone = seconds, factor = slower;
    }
    return alone < INFINITY ? alone + first * (1 - 1 / factor) : alone;
}

static double join_seconds(const ht_problem *p, size_t lane) {
    return p->lanes[lane].cost->join;
}

static double head_pace(const ht_problem *p) {
    return p->head > 0 ? p->head : 1;
}

static const ht_group *head_group(const solver *s) {
    return &s->model->groups[s->model->n_groups - 1];
}

static double head_seconds(solver *s, size_t lane) {
    const ht_block *head = block_of(s, head_group(s));
    return range_seconds(s, head, whole(s, lane, 1)->of, 0, head->n) * head_pace(s->p);
}

/* n tokens from `position` on through all blocks, the last w of them through the tail. */
static double pass_seconds(solver *s, size_t lane, size_t n, size_t w, size_t position) {
    const ht_lane_cost *cost = s->p->lanes[lane].cost;
    const double end = whole(s, lane, w)->end + side_keys(&s->sides[1], cost, w, position + n - w);
    const times *t = whole(s, lane, n);
    return t->of[s->model->ops[0].signature] + t->begin + side_keys(&s->sides[0], cost, n, position) + end;
}

static double solo_seconds(solver *s, size_t lane) {
    const ht_problem *p = s->p;
    return (pass_seconds(s, lane, p->tokens, p->wanted, p->position) + head_seconds(s, lane) + join_seconds(p, lane)) *
           pace(s, lane, HT_REGIME_SOLO);
}

/* ---- dividing tokens ------------------------------------------------------------------------------------------------------- */

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

/* The division whose slowest lane ends first, in d->many; infinite if there is none within the bound. What a lane with
 * nothing to do takes is not less than f(.., 0). */
static double divide(division *d, double bound) {
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
    double seconds = pass_seconds(s, lane, n, w, p->position + begin);
    if (last)
        seconds += head_seconds(s, lane);
    else /* telling the lanes behind that a block's keys and values are there */
        seconds += (double)s->model->n_caches * join_seconds(p, lane);
    return seconds * pace(s, lane, HT_REGIME_TOKENS) + (double)s->model->n_caches * p->join;
}

/* Keeps the choice where it is the best so far. */
static void propose(solver *s, ht_choice *c, const size_t *lanes) {
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
    const double factor = stall(p, HT_REGIME_TOKENS), seconds = divide(&d, s->bound / factor);
    if (seconds == INFINITY)
        return;
    const size_t end = lanes[n_lanes - 1];
    ht_choice c = {.regime = HT_REGIME_TOKENS,
                   .n_lanes = n_lanes,
                   .seconds = seconds * factor,
                   .head = head_seconds(s, end) * pace(s, end, HT_REGIME_TOKENS)};
    memcpy(c.tokens, d.many, n_lanes * sizeof *c.tokens);
    propose(s, &c, lanes);
}

/* ---- SHARES ------------------------------------------------------------------------------------------------------------------- */

/* What a part of an operator takes: so much whatever it is, and so much more the more of it. */
typedef struct line {
    double at, slope;
} line;

static const line no_line = {INFINITY, 0};

/* ht_op_seconds as a function of the share. */
static void add_line(line *sum, const ht_lane_cost *cost, int signature, double seconds) {
    const double fixed = ht_op_fixed(cost, signature);
    const bool rises = seconds > fixed && seconds < INFINITY;
    sum->at += rises ? fixed : seconds;
    sum->slope += rises ? seconds - fixed : 0;
}

/* Parts of what the block can have as one operator: as that, or in three. */
static void add_fused(const solver *s, line lines[2], const ht_lane_cost *cost, const ht_block *block,
                      const double *of) {
    add_line(&lines[0], cost, block->fused->signature, of[block->fused->signature]);
    for (size_t i = block->fused_from; i < block->fused_to; i++)
        add_line(&lines[1], cost, signature_of(s, block, i), of[signature_of(s, block, i)]);
}

static double on_lines(const line lines[2], double share) {
    const double a = lines[0].at + lines[0].slope * share, b = lines[1].at + lines[1].slope * share;
    return a < b ? a : b;
}

/* What an axis takes on one lane, by its units. */
typedef struct part {
    size_t of;
    double none, all; /* without a unit, with all */
    line lines[2];    /* else: the lesser of both */
} part;

static double part_seconds(const part *k, size_t units) {
    return units == 0 ? k->none : units >= k->of ? k->all : on_lines(k->lines, (double)units / (double)k->of);
}

/* The most units, of so many, that are done within the limit. */
static size_t most_units(const part *k, size_t left, double limit) {
    size_t most = 0;
    if (left == k->of && k->all <= limit)
        return left;
    for (int i = 0; i < 2; i++) {
        const line *l = &k->lines[i];
        if (!(l->at <= limit))
            continue;
        const double share = l->slope > 0 ? (limit - l->at) / l->slope : 1;
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

/* An axis of the blocks of a group. */
typedef struct span {
    const ht_group *group;
    const ht_block *block;
    const ht_axis *axis;
    size_t number; /* of the model's axes */
} span;

static span span_of(const solver *s, const ht_group *g, size_t axis) {
    const ht_block *block = block_of(s, g);
    const size_t number = block->first_axis + axis;
    return (span){g, block, &s->model->axes[number], number};
}

/* Number `place` of the block, by itself or with those that it can be one operator with: returns the number behind. */
static size_t add_place(solver *s, const span *x, size_t lane, size_t place, double *all, line lines[2]) {
    const ht_problem *p = s->p;
    const size_t n = tokens_of(s, x->group, place);
    /* the head is computed by what is there whole */
    const ht_lane_cost *cost = p->lanes[lane].cost, *shares = x->group->head ? cost : part_cost(p, lane);
    if (place == x->block->fused_from && has_fused(x->block, x->axis->from, x->axis->to)) {
        *all += fused_seconds(s, x->block, whole(s, lane, n)->of);
        if (n)
            add_fused(s, lines, shares, x->block, look_up(s, lane, shares, n)->of);
        return x->block->fused_to;
    }
    const int signature = signature_of(s, x->block, place);
    const size_t at = p->position + p->tokens - n;
    const double seconds = n ? whole(s, lane, n)->of[signature] + keys_seconds(cost, signature, n, at) : 0;
    *all += seconds;
    for (int i = 0; i < 2 && n; i++)
        if (x->axis->maps[place] == HT_MAP_REPLICATED)
            lines[i].at += seconds;
        else
            add_line(&lines[i], shares, signature,
                     look_up(s, lane, shares, n)->of[signature] + keys_seconds(shares, signature, n, at));
    return place + 1;
}

static part make_part(solver *s, const span *x, size_t lane) {
    const double factor = pace(s, lane, HT_REGIME_SHARES);
    part k = {.of = s->p->of[x->number], .none = join_seconds(s->p, lane) * (x->axis->statistics ? 2 : 1)};
    double all = 0;
    for (size_t i = x->axis->from; i < x->axis->to;) {
        if (x->axis->maps[i] != HT_MAP_EVERY) {
            i = add_place(s, x, lane, i, &all, k.lines);
            continue;
        }
        const int signature = signature_of(s, x->block, i);
        /* lanes begin the head when they come to it */
        k.none += x->group->head ? whole(s, lane, 1)->of[signature]
                                 : every_seconds(s, lane, signature, tokens_of(s, x->group, i));
        i++;
    }
    if (!has_fused(x->block, x->axis->from, x->axis->to))
        k.lines[1] = no_line;
    for (int i = 0; i < 2; i++)
        k.lines[i].at = (k.lines[i].at + k.none) * factor, k.lines[i].slope *= factor;
    k.all = (k.none + all) * factor;
    k.none *= factor;
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
    double sum = join_seconds(p, lane);
    if (n && x->axis->ordered) /* telling the lanes behind, in the midst of it */
        sum += join_seconds(p, lane) + p->join;
    for (size_t i = x->axis->from; i < x->axis->to; i++) {
        const int signature = signature_of(s, x->block, i);
        const size_t own = i < x->group->tail ? n : w;
        if (x->axis->maps[i] == HT_MAP_EVERY)
            sum += every_seconds(s, lane, signature, tokens_of(s, x->group, i));
        else if (own)
            sum += whole(s, lane, own)->of[signature] +
                   keys_seconds(p->lanes[lane].cost, signature, own, p->position + begin + n - own);
    }
    return sum * pace(s, lane, HT_REGIME_SHARES);
}

/* What goes from core to core at the end of an axis: sums that every lane wrote, or rows, heads and tokens of one slot; and what is
 * exchanged inside. */
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

/* Does the lane compute n tokens by graphs of shares? */
static bool is_built_only(const ht_solver_lane *lane, size_t n) {
    return lane->built_only && (n > 1 || lane->built_only_one);
}

static bool has_room(const ht_solver_lane *lane, size_t axis) {
    return lane->may_build && !lane->no_room && lane->built[axis][HT_MAX_SHARES - 1] == 0;
}

static bool is_ready(const ht_problem *p, size_t lane, size_t axis, size_t units, size_t tokens) {
    return p->lanes[lane].may_build || !p->ready || p->ready(p->ready_context, lane, axis, units, tokens);
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

/* Divides what is left of an axis among the lanes that take any number. Returns when the slowest ends; infinite: not within
 * the bound. units[] of those lanes are filled in. */
static double divide_units(const part *parts, const bool *any, size_t n_lanes, size_t left, double bound,
                           size_t *units) {
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
        return units[last] = left, part_seconds(&parts[last], left);
    high = fmin(high, fmax(whole, low) * 1.0001);
    double slowest = INFINITY;
    for (int step = 0; step < 48 && low <= high && (step < 2 || high - low > 1e-7 * high); step++) {
        const double limit = step ? (low + high) / 2 : high;
        size_t rest = left, trial[HT_MAX_LANES];
        for (size_t i = 0; i < n_lanes; i++)
            if (any[i])
                rest -= trial[i] = most_units(&parts[i], rest, limit);
        if (rest) {
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
    static const unsigned cuts[HT_AXIS_KINDS] = {HT_CUT_CAUSAL, HT_CUT_HEADS, HT_CUT_FEATURES, HT_CUT_ROWS};
    const unsigned own = cuts[x->axis->kind];
    if (x->group->head)
        return HT_CUT_ROWS | HT_CUT_HEADS | HT_CUT_FEATURES;
    if (x->axis->kind == HT_AXIS_FEATURES) /* one matrix's features by themselves are its rows */
        return x->axis->result == HT_RESULT_COLUMNS ? HT_CUT_ROWS : own;
    return x->axis->result == HT_RESULT_COLUMNS ? own | HT_CUT_ROWS : own;
}

/* Divides what an axis divides by every combination of shares that static lanes have graphs for, as digits of one counter; then
 * by one of their own choice, which must be worth its memory. */
static double divide_axis(const solver *s, const span *x, const part *parts, const size_t *lanes, size_t n_lanes,
                          double bound, size_t *units) {
    size_t options[HT_MAX_LANES][HT_MAX_SHARES + 2], n_options[HT_MAX_LANES], combinations = 1;
    for (size_t i = 0; i < n_lanes; i++) {
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
        slowest = fmax(slowest, divide_units(parts, any, n_lanes, left, worth, trial));
        if (slowest < best && slowest <= worth) {
            best = slowest;
            memcpy(units, trial, n_lanes * sizeof *units);
        }
    }
    return best;
}

/* Divides along an axis; infinite where it cannot be, or not within the bound. */
static double solve_axis(solver *s, const span *x, const size_t *lanes, size_t n_lanes, double bound, size_t *units) {
    const ht_problem *p = s->p;
    if (!(p->cuts & cuts_of(x)))
        return INFINITY;
    const double joins = p->join * (x->axis->statistics ? 2 : 1) + exchange_seconds(s, x, n_lanes);
    if (x->axis->kind == HT_AXIS_TOKENS) {
        range_context k = {s, x};
        division d = {.f = range_of_tokens, .context = &k, .lanes = lanes, .n_lanes = n_lanes, .all = p->tokens};
        if (p->tokens < 2)
            return INFINITY;
        const double seconds = divide(&d, bound - joins);
        memcpy(units, d.many, n_lanes * sizeof *units);
        return joins + seconds;
    }
    if (p->of[x->number] == 0)
        return INFINITY;
    part parts[HT_MAX_LANES];
    for (size_t i = 0; i < n_lanes; i++)
        parts[i] = make_part(s, x, lanes[i]);
    return joins + divide_axis(s, x, parts, lanes, n_lanes, bound - joins, units);
}

/* The shortest path over a block's operators up to `end`; infinite where it is longer than the bound. */
static double solve_block(solver *s, const ht_group *g, size_t end, const size_t *lanes, size_t n_lanes, double bound,
                          ht_group_choice *c) {
    const ht_block *block = block_of(s, g);
    double at[HT_MAX_BLOCK_OPS + 1];
    size_t via[HT_MAX_BLOCK_OPS + 1], reversed[HT_MAX_BLOCK_OPS], n = 0;
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
                         there = at[i] + solve_axis(s, &x, lanes, n_lanes, left, c->units[a]);
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

/* An earlier group whose blocks take the same, for all tokens are wanted; the group's own number: there is none. */
static size_t same_group(const solver *s, size_t group) {
    const ht_group *groups = s->model->groups;
    size_t k = s->p->wanted == s->p->tokens ? 0 : group;
    while (k < group && block_of(s, &groups[k])->signature != block_of(s, &groups[group])->signature)
        k++;
    return k;
}

static void try_shares(solver *s, const size_t *lanes, size_t n_lanes) {
    const ht_problem *p = s->p;
    const ht_group *head = head_group(s);
    ht_choice c = {.regime = HT_REGIME_SHARES, .n_lanes = n_lanes};
    double seconds[HT_MAX_GROUPS], sum = 0;
    if (n_lanes > HT_MAX_SUMS)
        return;
    const int embed = s->model->ops[0].signature;
    for (size_t i = 0; i < n_lanes; i++)
        sum = fmax(sum, whole(s, lanes[i], p->tokens)->of[embed] * pace(s, lanes[i], HT_REGIME_SHARES));
    const double factor = stall(p, HT_REGIME_SHARES), bound = s->bound / factor;
    /* the greedy choice is the first lane's */
    const size_t end = block_of(s, head)->n - 1, n = s->model->n_groups - 1;
    c.head = solve_block(s, head, end, lanes, n_lanes, (bound - sum) / head_pace(p), &c.groups[n]);
    c.head += range_seconds(s, block_of(s, head), whole(s, lanes[0], 1)->of, end, end + 1) *
              pace(s, lanes[0], HT_REGIME_SHARES);
    c.head *= head_pace(p);
    sum += c.head;
    for (size_t k = 0; k < n && sum < bound; k++) {
        const ht_group *g = &s->model->groups[k];
        const size_t same = same_group(s, k);
        if (same < k)
            c.groups[k] = c.groups[same], seconds[k] = seconds[same];
        else
            seconds[k] =
                solve_block(s, g, block_of(s, g)->n, lanes, n_lanes, (bound - sum) / (double)g->count, &c.groups[k]);
        sum += (double)g->count * seconds[k];
    }
    c.seconds = sum * factor;
    if (sum < INFINITY)
        propose(s, &c, lanes);
}

/* ---- OWNER -------------------------------------------------------------------------------------------------------------------- */

/* What an axis can hand over, a matrix or some operators as one, of the cut's tokens on two lanes: seconds by the share that each
 * computes. */
typedef struct matrix {
    span span;
    size_t owner, other, n; /* lanes, tokens */
    bool whole;             /* the owner's alone: the head goes on from what its device wrote itself */
    unsigned cuts;
    double least; /* seconds of the best way so far */
    ht_matrix_cut best;
} matrix;

static double matrix_seconds(const solver *s, const times *t, const span *x) {
    return range_seconds(s, x->block, t->of, x->axis->hand_from, x->axis->hand_to);
}

static void matrix_lines(solver *s, size_t lane, const span *x, size_t n, double factor, line lines[2]) {
    const ht_lane_cost *cost = part_cost(s->p, lane);
    const double *of = parts(s, lane, n)->of;
    const bool fused = has_fused(x->block, x->axis->hand_from, x->axis->hand_to);
    lines[0] = (line){0, 0};
    lines[1] = fused ? (line){0, 0} : no_line;
    if (fused)
        add_fused(s, lines, cost, x->block, of);
    for (size_t i = x->axis->hand_from; i < x->axis->hand_to && !fused; i++)
        add_line(&lines[0], cost, signature_of(s, x->block, i), of[signature_of(s, x->block, i)]);
    for (int i = 0; i < 2; i++)
        lines[i].at *= factor, lines[i].slope *= factor;
}

/* The other lane's part of a matrix and the owner's, for tokens [0, tokens), beside what takes the same however it is cut. */
typedef struct halves {
    double joins, others_join, rest; /* rest: the owner's other tokens */
    line other[2], own[2];
    size_t tokens, of;
} halves;

static halves halve(solver *s, const matrix *m, size_t tokens) {
    const ht_problem *p = s->p;
    const double own_pace = pace(s, m->owner, HT_REGIME_OWNER), other_pace = pace(s, m->other, HT_REGIME_OWNER);
    halves h = {/* the other lane begins once the owner has told, so that its join comes before, not beside */
                .joins = 2 * p->join + join_seconds(p, m->owner) * own_pace +
                         p->exchange * 4 * (double)(tokens * m->span.axis->handed),
                .others_join = join_seconds(p, m->other) * other_pace,
                .rest = matrix_seconds(s, whole(s, m->owner, m->n - tokens), &m->span) * own_pace,
                .tokens = tokens,
                .of = p->of[m->span.number]};
    matrix_lines(s, m->other, &m->span, tokens, other_pace, h.other);
    matrix_lines(s, m->owner, &m->span, tokens, own_pace, h.own);
    return h;
}

/* The other lane takes `units`, not all. */
static void try_units(matrix *m, const halves *h, size_t units) {
    const double share = (double)units / (double)h->of, others = h->others_join + on_lines(h->other, share),
                 own = h->rest + on_lines(h->own, 1 - share), seconds = h->joins + fmax(others, own);
    if (seconds < m->least)
        m->least = seconds, m->best = (ht_matrix_cut){h->tokens, units, h->of};
}

/* And all of them. */
static void try_all(solver *s, matrix *m, size_t tokens) {
    const ht_problem *p = s->p;
    const double own_pace = pace(s, m->owner, HT_REGIME_OWNER), other_pace = pace(s, m->other, HT_REGIME_OWNER);
    const double joins =
        2 * p->join + join_seconds(p, m->owner) * own_pace + p->exchange * 4 * (double)(tokens * m->span.axis->handed);
    const double others =
        (join_seconds(p, m->other) + matrix_seconds(s, whole(s, m->other, tokens), &m->span)) * other_pace;
    const double own = matrix_seconds(s, whole(s, m->owner, m->n - tokens), &m->span) * own_pace;
    const size_t of = p->of[m->span.number];
    if (joins + fmax(others, own) < m->least)
        m->least = joins + fmax(others, own), m->best = (ht_matrix_cut){tokens, of, of};
}

/* Any number of units: the more of them, the later the other lane ends and the sooner the owner, so that the best is where
 * they meet. Each is the lesser of two lines; the other lane is behind once both of its lines are behind one of the owner's. */
static void try_any(matrix *m, const halves *h) {
    double meet = 0;
    if (h->of < 2 || !(h->joins + fmax(h->rest, h->others_join) < m->least))
        return;
    for (int i = 0; i < 2; i++) {
        double behind = INFINITY;
        for (int k = 0; k < 2 && h->other[i].at < INFINITY; k++) {
            const double ahead = h->rest + h->own[k].at + h->own[k].slope - h->others_join - h->other[i].at,
                         slope = h->own[k].slope + h->other[i].slope;
            if (ahead < INFINITY)
                behind = fmin(behind, ahead <= 0 ? 0 : slope > 0 ? ahead / slope : 1);
        }
        if (h->other[i].at < INFINITY)
            meet = fmax(meet, behind);
    }
    const size_t units = (size_t)(fmin(meet, 1) * (double)h->of), last = h->of - 1;
    try_units(m, h, ht_min_size(ht_max_size(units, 1), last));
    try_units(m, h, ht_min_size(units + 1, last));
}

/* So many tokens to the other lane. Static graphs are built for some numbers of units, and for the other lane's shares only. */
static void try_length(solver *s, matrix *m, size_t tokens) {
    const ht_problem *p = s->p;
    const ht_solver_lane *other = &p->lanes[m->other];
    const bool all = tokens == m->n;
    const unsigned rows = m->span.axis->result == HT_RESULT_SUMS ? HT_CUT_FEATURES : HT_CUT_ROWS;
    if (m->cuts & (all ? HT_CUT_LAYER : HT_CUT_SEQUENCE))
        try_all(s, m, tokens);
    if (!(m->cuts & (all ? rows : HT_CUT_HYBRID)) || is_built_only(&p->lanes[m->owner], m->n))
        return;
    const halves h = halve(s, m, tokens);
    if (all ? !is_built_only(other, m->n) : !other->built_only) {
        try_any(m, &h);
        return;
    }
    for (size_t i = 0; i < HT_MAX_SHARES; i++) {
        const size_t units = other->built[m->span.number][i];
        if (units && units < h.of && is_ready(p, m->other, m->span.number, units, tokens))
            try_units(m, &h, units);
    }
    if (has_room(other, m->span.number))
        try_any(m, &h);
}

/* The cheapest way to compute some matrices of as many tokens: every number of tokens that the other lane is built for, every
 * number of units. */
static void solve_matrices(solver *s, matrix *matrices, size_t n_matrices) {
    const ht_problem *p = s->p;
    const ht_solver_lane *other = &p->lanes[matrices[0].other];
    const size_t n = matrices[0].n;
    for (size_t i = 0; i < n_matrices; i++) {
        matrix *m = &matrices[i];
        m->cuts = p->of[m->span.number] && !m->whole && n ? p->cuts : 0;
        m->least = matrix_seconds(s, whole(s, m->owner, n), &m->span) * pace(s, m->owner, HT_REGIME_OWNER);
        m->best = (ht_matrix_cut){0};
        try_length(s, m, n);
    }
    for (size_t i = 0; i < (other->lengths ? other->n_lengths : 64) && n > 1; i++) {
        const size_t length = other->lengths ? (size_t)other->lengths[i] : n * (i + 1) / 64;
        if (length < 2 || length >= n || (i && !other->lengths && length == n * i / 64))
            continue;
        for (size_t k = 0; k < n_matrices; k++) /* one length for all of them: their times are at hand */
            try_length(s, &matrices[k], length);
    }
}

/* An operator that nobody else may compute. */
static double owner_seconds(solver *s, const ht_group *g, size_t place, size_t owner) {
    const int signature = signature_of(s, block_of(s, g), place);
    const size_t n = tokens_of(s, g, place);
    return whole(s, owner, n)->of[signature] +
           keys_seconds(s->p->lanes[owner].cost, signature, n, s->p->position + s->p->tokens - n);
}

/* What is never handed over, of all blocks. */
static double owner_rest(solver *s, size_t owner) {
    double sum = 0;
    for (size_t k = 0; k + 1 < s->model->n_groups; k++) {
        const ht_group *g = &s->model->groups[k];
        const ht_block *block = block_of(s, g);
        bool handed[HT_MAX_BLOCK_OPS] = {false};
        for (size_t a = 0; a < block->n_axes; a++) {
            const ht_axis *axis = &s->model->axes[block->first_axis + a];
            for (size_t i = axis->hand_from; i < axis->hand_to; i++)
                handed[i] = true;
        }
        for (size_t i = 0; i < block->n; i++)
            sum += handed[i] ? 0 : (double)g->count * owner_seconds(s, g, i, owner);
    }
    return sum;
}

typedef matrix handed[HT_MAX_BLOCK_AXES]; /* of a group's blocks, by their axes */

/* What an earlier group has found for the same matrix and as many tokens; NULL: nothing. */
static const matrix *find_handed(const solver *s, const handed *of, const matrix *m, size_t axis) {
    for (const ht_group *g = s->model->groups; g < m->span.group; g++) {
        const matrix *found = &of[g - s->model->groups][axis];
        if (block_of(s, g)->signature == m->span.block->signature && found->n == m->n && found->whole == m->whole)
            return found;
    }
    return NULL;
}

/* The matrices of a block, solved: those of as many tokens together. */
static void solve_handed(solver *s, const ht_group *g, handed *of, size_t owner, size_t other) {
    const ht_block *block = block_of(s, g);
    matrix some[HT_MAX_BLOCK_AXES], *own = of[g - s->model->groups];
    size_t from[HT_MAX_BLOCK_AXES], n = 0;
    for (size_t a = 0; a <= block->n_axes; a++) {
        matrix m = {.owner = owner, .other = other};
        if (a < block->n_axes) {
            m.span = span_of(s, g, a);
            m.n = tokens_of(s, g, m.span.axis->hand_from);
            m.whole = g->last && m.span.axis->hand_to == block->n;
            const matrix *found = find_handed(s, of, &m, a);
            if (found)
                own[a] = *found;
            if (found || m.span.axis->hand_from == m.span.axis->hand_to)
                continue;
        }
        if (n && (a == block->n_axes || some[0].n != m.n)) {
            solve_matrices(s, some, n);
            for (size_t i = 0; i < n; i++)
                own[from[i]] = some[i];
            n = 0;
        }
        if (a < block->n_axes)
            some[n] = m, from[n++] = a;
    }
}

/* The shortest path over a block's operators: each is the owner's, or of something that is handed over. */
static double owner_block(solver *s, const ht_group *g, const matrix *of, size_t owner, ht_group_choice *c) {
    const ht_block *block = block_of(s, g);
    const double own_pace = pace(s, owner, HT_REGIME_OWNER);
    double at[HT_MAX_BLOCK_OPS + 1];
    size_t via[HT_MAX_BLOCK_OPS + 1], from[HT_MAX_BLOCK_OPS + 1];
    at[0] = 0;
    for (size_t i = 1; i <= block->n; i++)
        at[i] = INFINITY;
    for (size_t i = 0; i < block->n; i++) {
        for (size_t a = 0; a < block->n_axes; a++) {
            const ht_axis *axis = &s->model->axes[block->first_axis + a];
            if (axis->hand_from == axis->hand_to || axis->hand_from != i || !(at[i] + of[a].least < at[axis->hand_to]))
                continue;
            at[axis->hand_to] = at[i] + of[a].least;
            via[axis->hand_to] = a;
            from[axis->hand_to] = i;
        }
        if (block->fused && block->fused_from == i) {
            const double one = at[i] + own_pace * fused_seconds(s, block, whole(s, owner, tokens_of(s, g, i))->of);
            if (one < at[block->fused_to])
                at[block->fused_to] = one, via[block->fused_to] = HT_MAX_BLOCK_AXES, from[block->fused_to] = i;
        }
        const double own = at[i] + owner_seconds(s, g, i, owner) * own_pace;
        if (own < at[i + 1])
            at[i + 1] = own, via[i + 1] = HT_MAX_BLOCK_AXES, from[i + 1] = i;
    }
    memset(c->cuts, 0, sizeof c->cuts);
    for (size_t i = at[block->n] < INFINITY ? block->n : 0; i > 0; i = from[i])
        if (via[i] < HT_MAX_BLOCK_AXES)
            c->cuts[via[i]] = of[via[i]].best;
    return at[block->n];
}

static void try_owner(solver *s, size_t owner, size_t other) {
    const ht_problem *p = s->p;
    const double own_pace = pace(s, owner, HT_REGIME_OWNER), factor = stall(p, HT_REGIME_OWNER);
    const size_t lanes[2] = {owner, other};
    ht_choice c = {.regime = HT_REGIME_OWNER, .n_lanes = 2, .head = head_seconds(s, owner) * own_pace};
    bool any = false;
    handed of[HT_MAX_GROUPS];
    c.seconds = whole(s, owner, p->tokens)->of[s->model->ops[0].signature] * own_pace + c.head;
    if (!((c.seconds + owner_rest(s, owner) * own_pace) * factor < s->bound)) /* even if matrices took no time */
        return;
    for (size_t k = 0; k + 1 < s->model->n_groups; k++) {
        const ht_group *g = &s->model->groups[k];
        solve_handed(s, g, of, owner, other);
        c.seconds += (double)g->count * owner_block(s, g, of[k], owner, &c.groups[k]);
        for (size_t a = 0; a < block_of(s, g)->n_axes; a++)
            any |= c.groups[k].cuts[a].tokens > 0;
    }
    c.seconds *= factor;
    if (any)
        propose(s, &c, lanes);
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
        alone[l] = solo_seconds(s, l);
        if (alone[l] < solo->seconds || !solo->n_lanes)
            *solo = (ht_choice){.n_lanes = 1,
                                .lanes = {l},
                                .seconds = alone[l],
                                .head = head_seconds(s, l) * pace(s, l, HT_REGIME_SOLO),
                                .tokens = {p->tokens}};
    }
}

void ht_solve(const ht_problem *p, ht_choice *choice) {
    solver s;
    ht_choice solo;
    double alone[HT_MAX_LANES];
    start(&s, p, choice);
    solve_alone(&s, &solo, alone);
    *choice = (ht_choice){.seconds = INFINITY};
    s.bound = p->forced ? INFINITY : solo.seconds;
    for (unsigned set = 1; set < 1u << p->n_lanes && p->cuts; set++) {
        size_t lanes[HT_MAX_LANES];
        const size_t n = list_lanes(p, set, lanes);
        if (n < 2)
            continue;
        s.lanes = lanes;
        s.n_lanes = n;
        if (!p->by_operator) {
            try_tokens(&s, lanes, n);
            try_shares(&s, lanes, n);
        }
        if (n == 2) {
            try_owner(&s, lanes[0], lanes[1]);
            try_owner(&s, lanes[1], lanes[0]);
        }
    }
    if (choice->n_lanes == 0 || (solo.seconds <= choice->seconds && !p->forced))
        *choice = solo;
    memcpy(choice->alone, alone, sizeof alone);
    choice->lookups = s.lookups;
}

static double shares_busy(solver *s, const ht_choice *c, size_t i) {
    const size_t lane = c->lanes[i];
    double sum = whole(s, lane, s->p->tokens)->of[s->model->ops[0].signature] * pace(s, lane, HT_REGIME_SHARES);
    for (size_t k = 0; k + 1 < s->model->n_groups; k++) {
        const ht_group *g = &s->model->groups[k];
        for (size_t a = 0; a < c->groups[k].n_axes; a++) {
            const span x = span_of(s, g, c->groups[k].axes[a]);
            const size_t *units = c->groups[k].units[c->groups[k].axes[a]];
            range_context context = {s, &x};
            size_t begin = 0;
            for (size_t before = 0; before < i; before++)
                begin += units[before];
            const part p = make_part(s, &x, lane);
            const double one = x.axis->kind == HT_AXIS_TOKENS ? range_of_tokens(&context, lane, begin, units[i])
                                                              : part_seconds(&p, units[i]);
            sum += (double)g->count * (one + exchange_seconds(s, &x, c->n_lanes));
        }
    }
    return sum;
}

/* What one lane computes of a matrix. */
static double matrix_busy(solver *s, const ht_choice *c, size_t i, const span *x, const ht_matrix_cut *cut) {
    const ht_problem *p = s->p;
    const size_t lane = c->lanes[i], tokens = cut->of ? cut->tokens : 0, n = tokens_of(s, x->group, x->axis->hand_from);
    const bool all = cut->units == cut->of;
    double sum = i ? 0 : matrix_seconds(s, whole(s, lane, n - tokens), x);
    line lines[2];
    if (tokens == 0)
        return sum;
    matrix_lines(s, lane, x, tokens, 1, lines);
    const double share = (double)cut->units / (double)cut->of;
    if (all)
        sum += i ? matrix_seconds(s, whole(s, lane, tokens), x) : 0;
    else
        sum += on_lines(lines, i ? share : 1 - share);
    return sum + p->exchange * 4 * (double)(tokens * x->axis->handed) + join_seconds(p, lane);
}

const ht_axis *ht_choice_handed(const ht_model *model, const ht_block *block, const ht_group_choice *c, size_t place,
                                size_t *number) {
    for (size_t a = 0; a < block->n_axes; a++) {
        const ht_axis *axis = &model->axes[block->first_axis + a];
        if (c->cuts[a].tokens && axis->hand_from <= place && place < axis->hand_to)
            return *number = a, axis;
    }
    return NULL;
}

/* Operators of one block on lane number i of the choice. */
static double owner_block_busy(solver *s, const ht_choice *c, size_t i, size_t group) {
    const ht_group *g = &s->model->groups[group];
    const ht_block *block = block_of(s, g);
    size_t a;
    double sum = 0;
    for (size_t place = 0; place < block->n;) {
        const ht_axis *axis = ht_choice_handed(s->model, block, &c->groups[group], place, &a);
        bool fused = place == block->fused_from && block->fused && !axis;
        for (size_t k = place; k < block->fused_to && fused; k++)
            fused = !ht_choice_handed(s->model, block, &c->groups[group], k, &a);
        if (axis) {
            const span x = span_of(s, g, a);
            sum += matrix_busy(s, c, i, &x, &c->groups[group].cuts[a]);
        } else if (i == 0) {
            sum += fused ? fused_seconds(s, block, whole(s, c->lanes[0], tokens_of(s, g, place))->of)
                         : owner_seconds(s, g, place, c->lanes[0]);
        }
        place = axis ? axis->hand_to : fused ? block->fused_to : place + 1;
    }
    return sum;
}

static double owner_busy(solver *s, const ht_choice *c, size_t i) {
    const size_t lane = c->lanes[i];
    double sum = i == 0 ? whole(s, lane, s->p->tokens)->of[s->model->ops[0].signature] : 0;
    for (size_t k = 0; k + 1 < s->model->n_groups; k++)
        sum += (double)s->model->groups[k].count * owner_block_busy(s, c, i, k);
    return sum * pace(s, lane, HT_REGIME_OWNER);
}

double ht_choice_busy(const ht_problem *p, const ht_choice *c, size_t i) {
    size_t begin = 0;
    solver s;
    start(&s, p, NULL);
    s.lanes = c->lanes;
    s.n_lanes = c->n_lanes;
    switch (c->regime) {
    case HT_REGIME_TOKENS:
        for (size_t k = 0; k < i; k++)
            begin += c->tokens[k];
        return token_seconds(&s, c->lanes[i], begin, c->tokens[i]) -
               (i + 1 == c->n_lanes ? head_seconds(&s, c->lanes[i]) * pace(&s, c->lanes[i], HT_REGIME_TOKENS) : 0);
    case HT_REGIME_SHARES:
        return shares_busy(&s, c, i);
    case HT_REGIME_OWNER:
        return owner_busy(&s, c, i);
    default:
        return pass_seconds(&s, c->lanes[0], p->tokens, p->wanted, p->position) * pace(&s, c->lanes[0], HT_REGIME_SOLO);
    }
}
