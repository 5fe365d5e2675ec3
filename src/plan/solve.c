/* The planner: the cheapest way to compute a pass, from the lanes' cost tables (plan.h says which ways there are).
 *
 * Exact within the cost model. A segment is divided so that its slowest lane ends first: for a limit each lane takes the
 * most units that it does in time, and the limit is found by bisection, so any number of lanes will do. A layer's segments
 * are the shortest path over its operators; each edge ends with a join. Layers are alike but for the last, where only
 * wanted tokens see the end. The regime OWNER is the solver of HeteroLLM (arXiv 2501.14794): min over strategies of
 * max(T) + T_sync for one operator at a time.
 */
#include "plan/plan.h"

#include <math.h>
#include <string.h>

#define WORTH_A_GRAPH 0.985 /* another cut must be so much quicker than those there are graphs for */

const char *ht_segment_name(ht_segment s) {
    static const char *const names[HT_SEGMENTS] = {"head", "causal",  "row", "head", "head",
                                                   "row",  "feature", "row", "row",  "row"};
    return names[s];
}

bool ht_segment_is_partial(ht_segment s) {
    return s == HT_SEGMENT_HEADS || s == HT_SEGMENT_ATTENTION_OUT || s == HT_SEGMENT_FEATURES;
}

const char *ht_regime_name(ht_regime r) {
    static const char *const names[] = {"single", "causal", "shares", "owner"};
    return names[r];
}

/* ---- what operators take -------------------------------------------------------------------------------------------------- */

#define REMEMBERED 256 /* numbers of tokens whose times are kept: of all lanes, by 8 bits of a hash */

/* What one lane's operators take for one number of tokens, whole: the search asks for the same numbers again and again. */
typedef struct times {
    const ht_lane_cost *cost; /* NULL: nothing is kept here */
    size_t n;
    double of[HT_CLASSES]; /* attention's: of the first tokens */
    double begin, end;     /* of a layer: up to and with ROPE, and behind that */
} times;

typedef struct solver {
    const ht_problem *p;
    ht_choice *best;
    double bound;        /* several lanes that take longer are of no use: one lane is quicker, or others are */
    const size_t *lanes; /* the set that is tried */
    size_t n_lanes;
    size_t lookups;
    times kept[REMEMBERED];
} solver;

static void start(solver *s, const ht_problem *p, ht_choice *best) {
    s->p = p;
    s->best = best;
    s->bound = INFINITY;
    s->n_lanes = 1;
    s->lookups = 0;
    for (size_t i = 0; i < REMEMBERED; i++)
        s->kept[i].cost = NULL;
}

/* A feed-forward block without its norm: as one operator where the lane has it, else in three. */
static double block_seconds(const double of[HT_CLASSES]) {
    return fmin(of[HT_CLASS_FFN], of[HT_CLASS_GATE_UP] + of[HT_CLASS_GLU] + of[HT_CLASS_DOWN]);
}

static const times *look_up(solver *s, size_t lane, const ht_lane_cost *cost, size_t n) {
    static const times nothing;
    const uint32_t key = (uint32_t)(n * 16 + lane * 2 + (cost != s->p->lanes[lane].cost)) * 2654435769u;
    times *t = &s->kept[key >> 24];
    if (n == 0)
        return &nothing;
    if (t->cost == cost && t->n == n)
        return t;
    t->cost = cost;
    t->n = n;
    const int known = n > 1 ? HT_CLASS_LM_HEAD : HT_CLASSES; /* the head is of one token */
    for (int c = 0; c < HT_CLASSES; c++)
        t->of[c] = c < known ? ht_class_seconds(cost, (ht_class)c, n, 1, 0) : INFINITY;
    t->begin = t->of[HT_CLASS_NORM] + t->of[HT_CLASS_QKV] + t->of[HT_CLASS_ROPE];
    t->end = t->of[HT_CLASS_ATTENTION] + t->of[HT_CLASS_OUT] + t->of[HT_CLASS_NORM] + block_seconds(t->of);
    s->lookups += (size_t)known;
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

/* Attention of n tokens from `position` on takes so much longer than of the first n. */
static double keys_seconds(const ht_lane_cost *cost, size_t n, size_t position) {
    return cost->per_key * (double)n * (double)position;
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

/* What a lane's own norm takes where all lanes of the set begin one at once, as segments do: norms are bound by memory, which
 * they contend for until the first of them is done. */
static double norm_seconds(solver *s, size_t lane, size_t n) {
    double first = INFINITY, alone = 0, factor = 1;
    for (size_t i = 0; i < s->n_lanes; i++) {
        const size_t l = s->lanes[i];
        const double seconds = whole(s, l, n)->of[HT_CLASS_NORM],
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

static double head_seconds(solver *s, size_t lane) {
    const double *of = whole(s, lane, 1)->of;
    return (of[HT_CLASS_NORM] + of[HT_CLASS_LM_HEAD] + of[HT_CLASS_ARGMAX]) * head_pace(s->p);
}

/* n tokens from `position` on through all layers, the last w of them to the end of the last. */
static double pass_seconds(solver *s, size_t lane, size_t n, size_t w, size_t position) {
    const ht_problem *p = s->p;
    const ht_lane_cost *cost = p->lanes[lane].cost;
    const double end_of_last = w == n ? whole(s, lane, n)->end + keys_seconds(cost, n, position)
                                      : whole(s, lane, w)->end + keys_seconds(cost, w, position + n - w);
    const times *t = whole(s, lane, n);
    return t->of[HT_CLASS_EMBED] + p->layers * t->begin + (p->layers - 1) * (t->end + keys_seconds(cost, n, position)) +
           end_of_last;
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
    else /* telling the lanes behind that a layer's keys and values are there */
        seconds += p->layers * join_seconds(p, lane);
    return seconds * pace(s, lane, HT_REGIME_TOKENS) + p->layers * p->join;
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

/* ht_class_seconds as a function of the share. */
static void add_line(line *sum, const ht_lane_cost *cost, ht_class c, double seconds) {
    const double fixed = ht_class_fixed(cost, c);
    const bool rises = seconds > fixed && seconds < INFINITY;
    sum->at += rises ? fixed : seconds;
    sum->slope += rises ? seconds - fixed : 0;
}

/* Parts of a feed-forward block: as one operator, or in three. */
static void add_block(line lines[2], const ht_lane_cost *cost, const double of[HT_CLASSES]) {
    lines[1] = lines[0];
    add_line(&lines[0], cost, HT_CLASS_FFN, of[HT_CLASS_FFN]);
    for (int c = HT_CLASS_GATE_UP; c <= HT_CLASS_DOWN; c++)
        add_line(&lines[1], cost, (ht_class)c, of[c]);
}

static double on_lines(const line lines[2], double share) {
    const double a = lines[0].at + lines[0].slope * share, b = lines[1].at + lines[1].slope * share;
    return a < b ? a : b;
}

/* What a segment takes on one lane, by its units. */
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

static part make_part(solver *s, ht_segment segment, size_t lane, size_t begin, size_t end) {
    const ht_problem *p = s->p;
    const ht_lane_cost *cost = p->lanes[lane].cost, *shares = part_cost(p, lane);
    const double factor = pace(s, lane, HT_REGIME_SHARES);
    part k = {.of = p->of[segment], .none = join_seconds(p, lane), .lines = {{0, 0}, no_line}};
    double all = 0;
    if (segment == HT_SEGMENT_LM_ROWS) {
        const double *of = whole(s, lane, 1)->of;
        k.none += of[HT_CLASS_NORM];
        all = of[HT_CLASS_LM_HEAD];
        add_line(&k.lines[0], cost, HT_CLASS_LM_HEAD, all);
    }
    for (int op = ht_segment_spans[segment].from; op < ht_segment_spans[segment].to; op++) {
        const size_t n = op < HT_AT_ATTENTION ? begin : end;
        const ht_class class = ht_layer_classes[op];
        if (class == HT_CLASS_NORM) { /* every lane's own */
            k.none += norm_seconds(s, lane, n);
        } else if (segment == HT_SEGMENT_FEATURES) {
            all = block_seconds(whole(s, lane, n)->of);
            if (n)
                add_block(k.lines, shares, parts(s, lane, n)->of);
            break;
        } else if (n) {
            const size_t at = class == HT_CLASS_ATTENTION ? p->position + begin - n : 0;
            all += whole(s, lane, n)->of[class] + keys_seconds(cost, n, at);
            add_line(&k.lines[0], shares, class, parts(s, lane, n)->of[class] + keys_seconds(shares, n, at));
        }
    }
    for (int i = 0; i < 2; i++)
        k.lines[i].at = (k.lines[i].at + k.none) * factor, k.lines[i].slope *= factor;
    k.all = (k.none + all) * factor;
    k.none *= factor;
    return k;
}

typedef struct segment_context {
    solver *s;
    size_t begin, end; /* tokens before the layer's ATTENTION, and from there on */
} segment_context;

/* HT_SEGMENT_TOKENS: tokens [begin, begin + n) of an attention block. */
static double attention_seconds(void *context, size_t lane, size_t begin, size_t n) {
    const segment_context *k = context;
    const ht_problem *p = k->s->p;
    const size_t first = k->begin - k->end, w = begin + n > first ? ht_min_size(begin + n - first, n) : 0;
    double s = join_seconds(p, lane) + norm_seconds(k->s, lane, k->begin);
    if (n) {
        const double *of = whole(k->s, lane, n)->of;
        s += join_seconds(p, lane) + p->join + of[HT_CLASS_QKV] + of[HT_CLASS_ROPE];
        of = whole(k->s, lane, w)->of;
        s += of[HT_CLASS_ATTENTION] + keys_seconds(p->lanes[lane].cost, w, p->position + begin + n - w) +
             of[HT_CLASS_OUT];
    }
    return s * pace(k->s, lane, HT_REGIME_SHARES);
}

/* What goes from core to core at the end of a segment: sums that every lane wrote, or rows, heads and tokens of one slot. */
static double exchange_seconds(const ht_problem *p, ht_segment segment, size_t begin, size_t end, size_t n_lanes) {
    size_t floats = end * p->embedding; /* rows of OUT and DOWN, tokens of OUT */
    if (ht_segment_is_partial(segment))
        floats = n_lanes * end * p->embedding;
    else if (segment == HT_SEGMENT_QKV_ROWS)
        floats = begin * p->qkv;
    else if (segment == HT_SEGMENT_ATTENTION)
        floats = end * p->attention;
    else if (segment == HT_SEGMENT_GATE_UP)
        floats = end * p->feed_forward;
    else if (segment == HT_SEGMENT_LM_ROWS)
        floats = 0;
    return p->exchange * 4 * (double)floats;
}

/* Does the lane compute n tokens by graphs of shares? */
static bool is_built_only(const ht_solver_lane *lane, size_t n) {
    return lane->built_only && (n > 1 || lane->built_only_one);
}

static bool has_room(const ht_solver_lane *lane, ht_segment segment) {
    return lane->may_build && !lane->no_room && lane->built[segment][HT_MAX_SHARES - 1] == 0;
}

static bool is_ready(const ht_problem *p, size_t lane, ht_segment segment, size_t units, size_t tokens) {
    return p->lanes[lane].may_build || !p->ready || p->ready(p->ready_context, lane, segment, units, tokens);
}

/* What a lane may take of a segment: shares that it has graphs for, ANY number, none. */
#define ANY SIZE_MAX

static size_t list_options(const ht_problem *p, ht_segment segment, size_t lane, size_t tokens,
                           size_t options[HT_MAX_SHARES + 2]) {
    const ht_solver_lane *l = &p->lanes[lane];
    size_t n = 0;
    options[0] = ANY;
    if (segment == HT_SEGMENT_ATTENTION || !is_built_only(l, tokens))
        return 1;
    for (size_t i = 0; i < HT_MAX_SHARES; i++)
        if (l->built[segment][i] && l->built[segment][i] <= p->of[segment] &&
            is_ready(p, lane, segment, l->built[segment][i], tokens))
            options[n++] = l->built[segment][i];
    if (n || !has_room(l, segment))
        options[n++] = 0;
    if (has_room(l, segment))
        options[n++] = ANY;
    return n;
}

/* Divides what is left of a segment among the lanes that take any number. Returns when the slowest ends; infinite: not within
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

/* Divides a segment; infinite where it cannot be, or not within the bound. */
static double solve_segment(solver *s, ht_segment segment, size_t begin, size_t end, const size_t *lanes,
                            size_t n_lanes, double bound, size_t *units) {
    const ht_problem *p = s->p;
    if (!(p->cuts & ht_segment_spans[segment].needs))
        return INFINITY;
    const double joins = p->join + exchange_seconds(p, segment, begin, end, n_lanes);
    if (segment == HT_SEGMENT_TOKENS) {
        segment_context k = {s, begin, end};
        division d = {.f = attention_seconds, .context = &k, .lanes = lanes, .n_lanes = n_lanes, .all = begin};
        if (begin < 2)
            return INFINITY;
        const double seconds = divide(&d, bound - joins);
        memcpy(units, d.many, n_lanes * sizeof *units);
        return joins + seconds;
    }
    if (p->of[segment] == 0)
        return INFINITY;
    const size_t n = segment == HT_SEGMENT_HEADS || segment == HT_SEGMENT_QKV_ROWS ? begin : end;
    part parts[HT_MAX_LANES];
    size_t options[HT_MAX_LANES][HT_MAX_SHARES + 2], n_options[HT_MAX_LANES], combinations = 1;
    for (size_t i = 0; i < n_lanes; i++) {
        parts[i] = make_part(s, segment, lanes[i], begin, end);
        n_options[i] = list_options(p, segment, lanes[i], n, options[i]);
        combinations *= n_options[i];
    }
    double best = INFINITY;
    /* every combination of shares that static lanes have graphs for, as digits of one counter; then one of their own choice,
     * which must be worth its memory */
    for (size_t c = 0; c < combinations; c++) {
        bool any[HT_MAX_LANES] = {false}, free = false;
        size_t trial[HT_MAX_LANES], left = p->of[segment];
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
        const double worth = fmin(free && best < INFINITY ? WORTH_A_GRAPH * best : best, bound - joins);
        if (slowest == INFINITY || slowest > worth)
            continue;
        slowest = fmax(slowest, divide_units(parts, any, n_lanes, left, worth, trial));
        if (slowest < best && slowest <= worth) {
            best = slowest;
            memcpy(units, trial, n_lanes * sizeof *units);
        }
    }
    return joins + best;
}

/* The shortest path over a layer's operators; infinite where it is longer than the bound. */
static double solve_layer(solver *s, size_t begin, size_t end, const size_t *lanes, size_t n_lanes, int which,
                          double bound, ht_choice *c) {
    double at[HT_AT_END + 1];
    ht_segment via[HT_AT_END + 1];
    at[0] = 0;
    for (int i = 1; i <= HT_AT_END; i++)
        at[i] = INFINITY;
    for (int i = 0; i < HT_AT_END; i++) /* edges lead forward: in this order every node is final when it is left */
        for (int g = 0; g < HT_SEGMENTS; g++) {
            const ht_segment_span *span = &ht_segment_spans[g];
            if (span->from != i || !(at[i] < bound))
                continue;
            const double left = fmin(bound, at[span->to]) - at[i],
                         there = at[i] +
                                 solve_segment(s, (ht_segment)g, begin, end, lanes, n_lanes, left, c->units[which][g]);
            if (there < at[span->to])
                at[span->to] = there, via[span->to] = (ht_segment)g;
        }
    if (at[HT_AT_END] == INFINITY)
        return INFINITY;
    ht_segment reversed[HT_AT_END];
    size_t n = 0;
    for (int i = HT_AT_END; i > 0; i = ht_segment_spans[reversed[n - 1]].from)
        reversed[n++] = via[i];
    c->n_segments[which] = n;
    for (size_t i = 0; i < n; i++)
        c->segments[which][i] = reversed[n - 1 - i];
    return at[HT_AT_END];
}

static void try_shares(solver *s, const size_t *lanes, size_t n_lanes) {
    const ht_problem *p = s->p;
    ht_choice c = {.regime = HT_REGIME_SHARES, .n_lanes = n_lanes};
    double embed = 0;
    if (n_lanes > HT_MAX_SUMS)
        return;
    for (size_t i = 0; i < n_lanes; i++)
        embed = fmax(embed, whole(s, lanes[i], p->tokens)->of[HT_CLASS_EMBED] * pace(s, lanes[i], HT_REGIME_SHARES));
    const double factor = stall(p, HT_REGIME_SHARES), bound = s->bound / factor - embed;
    /* the last layer's first: what is behind it is the same for every layer but that */
    double layer = 0;
    size_t *lm = c.units[0][HT_SEGMENT_LM_ROWS];
    const double head = solve_segment(s, HT_SEGMENT_LM_ROWS, 1, 1, lanes, n_lanes, bound / head_pace(p), lm);
    c.head = (head + whole(s, lanes[0], 1)->of[HT_CLASS_ARGMAX] * pace(s, lanes[0], HT_REGIME_SHARES)) * head_pace(p);
    if (!(c.head < INFINITY))
        return;
    if (p->layers > 1 || p->wanted == p->tokens) {
        const double layers = p->layers - (p->wanted != p->tokens);
        layer = solve_layer(s, p->tokens, p->tokens, lanes, n_lanes, 0, (bound - c.head) / layers, &c);
    }
    if (layer == INFINITY)
        return;
    double last = layer;
    if (p->wanted == p->tokens) { /* it is as every other */
        memcpy(c.segments[1], c.segments[0], sizeof c.segments[0]);
        memcpy(c.units[1], c.units[0], sizeof c.units[0]);
        c.n_segments[1] = c.n_segments[0];
    } else {
        last = solve_layer(s, p->tokens, p->wanted, lanes, n_lanes, 1, bound - c.head - (p->layers - 1) * layer, &c);
    }
    memcpy(c.units[1][HT_SEGMENT_LM_ROWS], lm, sizeof c.units[1][HT_SEGMENT_LM_ROWS]);
    c.seconds = (embed + (p->layers - 1) * layer + last + c.head) * factor;
    propose(s, &c, lanes);
}

/* ---- OWNER -------------------------------------------------------------------------------------------------------------------- */

const ht_owner_matrix ht_owner_matrices[HT_OWNER_MATRICES] = {{HT_CLASS_QKV, HT_SEGMENT_QKV_ROWS},
                                                              {HT_CLASS_OUT, HT_SEGMENT_OUT_ROWS},
                                                              {HT_CLASS_FFN, HT_SEGMENT_FEATURES},
                                                              {HT_CLASS_GATE_UP, HT_SEGMENT_GATE_UP},
                                                              {HT_CLASS_DOWN, HT_SEGMENT_DOWN_ROWS}};

/* Floats a token that one lane writes and the other reads. */
static size_t owner_widths(const ht_problem *p, ht_class c) {
    return c == HT_CLASS_GATE_UP ? p->embedding + 2 * p->feed_forward
           : c == HT_CLASS_DOWN  ? p->feed_forward + p->embedding
           : c == HT_CLASS_QKV   ? p->embedding + p->qkv
                                 : 2 * p->embedding;
}

/* A matrix, or a feed-forward block, of the cut's tokens on two lanes: seconds by the share that each computes. */
typedef struct matrix {
    ht_class class;
    ht_segment segment;     /* whose units are its rows */
    size_t owner, other, n; /* lanes, tokens */
    bool whole;             /* the owner's alone: the head goes on from what its device wrote itself */
    unsigned cuts;
    double least; /* seconds of the best way so far */
    ht_matrix_cut best;
} matrix;

static double matrix_seconds(const times *t, ht_class c) {
    return c == HT_CLASS_FFN ? block_seconds(t->of) : t->of[c];
}

static void matrix_lines(solver *s, size_t lane, ht_class c, size_t n, double factor, line lines[2]) {
    const ht_lane_cost *cost = part_cost(s->p, lane);
    lines[0] = (line){0, 0};
    lines[1] = no_line;
    if (c == HT_CLASS_FFN)
        add_block(lines, cost, parts(s, lane, n)->of);
    else
        add_line(&lines[0], cost, c, parts(s, lane, n)->of[c]);
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
                         p->exchange * 4 * (double)(tokens * owner_widths(p, m->class)),
                .others_join = join_seconds(p, m->other) * other_pace,
                .rest = matrix_seconds(whole(s, m->owner, m->n - tokens), m->class) * own_pace,
                .tokens = tokens,
                .of = p->of[m->segment]};
    matrix_lines(s, m->other, m->class, tokens, other_pace, h.other);
    matrix_lines(s, m->owner, m->class, tokens, own_pace, h.own);
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
    const double joins = 2 * p->join + join_seconds(p, m->owner) * own_pace +
                         p->exchange * 4 * (double)(tokens * owner_widths(p, m->class));
    const double others =
        (join_seconds(p, m->other) + matrix_seconds(whole(s, m->other, tokens), m->class)) * other_pace;
    const double own = matrix_seconds(whole(s, m->owner, m->n - tokens), m->class) * own_pace;
    if (joins + fmax(others, own) < m->least)
        m->least = joins + fmax(others, own), m->best = (ht_matrix_cut){tokens, p->of[m->segment], p->of[m->segment]};
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
    const unsigned rows = m->class == HT_CLASS_FFN ? HT_CUT_FEATURES : HT_CUT_ROWS;
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
        const size_t units = other->built[m->segment][i];
        if (units && units < h.of && is_ready(p, m->other, m->segment, units, tokens))
            try_units(m, &h, units);
    }
    if (has_room(other, m->segment))
        try_any(m, &h);
}

/* The cheapest way to compute matrices (or feed-forward blocks) of n tokens: every number of tokens that the other lane is
 * built for, every number of units. */
static void solve_matrices(solver *s, matrix *matrices, size_t n_matrices, size_t n) {
    const ht_problem *p = s->p;
    const ht_solver_lane *other = &p->lanes[matrices[0].other];
    for (size_t i = 0; i < n_matrices; i++) {
        matrix *m = &matrices[i];
        m->n = n;
        m->cuts = p->of[m->segment] && !m->whole && n ? p->cuts : 0;
        m->least = matrix_seconds(whole(s, m->owner, n), m->class) * pace(s, m->owner, HT_REGIME_OWNER);
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

/* What is no matrix, of a layer whose end is for `end` tokens. */
static double owner_rest(solver *s, size_t owner, size_t end) {
    const ht_problem *p = s->p;
    const double *of = whole(s, owner, p->tokens)->of;
    const double seconds = of[HT_CLASS_NORM] + of[HT_CLASS_ROPE];
    of = whole(s, owner, end)->of;
    return seconds + of[HT_CLASS_NORM] + of[HT_CLASS_ATTENTION] +
           keys_seconds(p->lanes[owner].cost, end, p->position + p->tokens - end);
}

/* A layer of which the end is for `end` tokens; the first of its matrices, QKV, is solved already. */
static double owner_layer(solver *s, matrix matrices[HT_OWNER_MATRICES], size_t end, bool last,
                          ht_matrix_cut cuts[HT_CLASSES]) {
    const size_t owner = matrices[0].owner;
    double least[HT_CLASSES];
    for (size_t i = 1; i < HT_OWNER_MATRICES; i++)
        matrices[i].whole = last && (matrices[i].class == HT_CLASS_FFN || matrices[i].class == HT_CLASS_DOWN);
    solve_matrices(s, matrices + 1, HT_OWNER_MATRICES - 1, end);
    for (size_t i = 0; i < HT_OWNER_MATRICES; i++)
        cuts[matrices[i].class] = matrices[i].best, least[matrices[i].class] = matrices[i].least;
    const double own_pace = pace(s, owner, HT_REGIME_OWNER);
    const double parts =
        least[HT_CLASS_GATE_UP] + least[HT_CLASS_DOWN] + whole(s, owner, end)->of[HT_CLASS_GLU] * own_pace;
    if (parts < least[HT_CLASS_FFN])
        cuts[HT_CLASS_FFN] = (ht_matrix_cut){0};
    else
        cuts[HT_CLASS_GATE_UP] = cuts[HT_CLASS_DOWN] = (ht_matrix_cut){0};
    return owner_rest(s, owner, end) * own_pace + least[HT_CLASS_QKV] + least[HT_CLASS_OUT] +
           fmin(parts, least[HT_CLASS_FFN]);
}

static void try_owner(solver *s, size_t owner, size_t other) {
    const ht_problem *p = s->p;
    const double own_pace = pace(s, owner, HT_REGIME_OWNER), factor = stall(p, HT_REGIME_OWNER);
    const size_t lanes[2] = {owner, other};
    ht_choice c = {.regime = HT_REGIME_OWNER, .n_lanes = 2, .head = head_seconds(s, owner) * own_pace};
    bool any = false;
    matrix matrices[HT_OWNER_MATRICES];
    c.seconds = whole(s, owner, p->tokens)->of[HT_CLASS_EMBED] * own_pace + c.head;
    const double rest = (p->layers - 1) * owner_rest(s, owner, p->tokens) + owner_rest(s, owner, p->wanted);
    if (!((c.seconds + rest * own_pace) * factor < s->bound)) /* even if matrices took no time */
        return;
    for (size_t i = 0; i < HT_OWNER_MATRICES; i++)
        matrices[i] = (matrix){.class = ht_owner_matrices[i].class,
                               .segment = ht_owner_matrices[i].segment,
                               .owner = owner,
                               .other = other};
    solve_matrices(s, matrices, 1, p->tokens);
    for (int last = 0; last < 2; last++) {
        const double layer = owner_layer(s, matrices, last ? p->wanted : p->tokens, last, c.cuts[last]);
        c.seconds += (last ? 1 : p->layers - 1) * layer;
        for (size_t i = 0; i < HT_OWNER_MATRICES; i++)
            any |= c.cuts[last][ht_owner_matrices[i].class].tokens > 0;
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
    const ht_problem *p = s->p;
    const size_t lane = c->lanes[i];
    double sum = whole(s, lane, p->tokens)->of[HT_CLASS_EMBED] * pace(s, lane, HT_REGIME_SHARES);
    for (int which = 0; which < 2; which++)
        for (size_t g = 0; g < c->n_segments[which]; g++) {
            const ht_segment segment = c->segments[which][g];
            const size_t end = which ? p->wanted : p->tokens, units = c->units[which][segment][i];
            segment_context k = {s, p->tokens, end};
            const part k_part = make_part(s, segment, lane, p->tokens, end);
            size_t begin = 0;
            for (size_t before = 0; before < i; before++)
                begin += c->units[which][segment][before];
            const double one = (segment == HT_SEGMENT_TOKENS ? attention_seconds(&k, lane, begin, units)
                                                             : part_seconds(&k_part, units)) +
                               exchange_seconds(p, segment, p->tokens, end, c->n_lanes);
            sum += which ? one : (p->layers - 1) * one;
        }
    return sum;
}

/* What one lane computes of a matrix. */
static double matrix_busy(solver *s, const ht_choice *c, size_t i, ht_class class, const ht_matrix_cut *cut, size_t n) {
    const ht_problem *p = s->p;
    const size_t lane = c->lanes[i], tokens = cut->of ? cut->tokens : 0;
    const bool all = cut->units == cut->of;
    double sum = i ? 0 : matrix_seconds(whole(s, lane, n - tokens), class);
    line lines[2];
    if (tokens == 0)
        return sum;
    matrix_lines(s, lane, class, tokens, 1, lines);
    const double share = (double)cut->units / (double)cut->of;
    if (all)
        sum += i ? matrix_seconds(whole(s, lane, tokens), class) : 0;
    else
        sum += on_lines(lines, i ? share : 1 - share);
    return sum + p->exchange * 4 * (double)(tokens * owner_widths(p, class)) + join_seconds(p, lane);
}

static double owner_busy(solver *s, const ht_choice *c, size_t i) {
    const ht_problem *p = s->p;
    const size_t lane = c->lanes[i];
    double sum = i == 0 ? whole(s, lane, p->tokens)->of[HT_CLASS_EMBED] : 0;
    for (int which = 0; which < 2; which++) {
        const size_t end = which ? p->wanted : p->tokens;
        const bool apart = c->cuts[which][HT_CLASS_GATE_UP].tokens || c->cuts[which][HT_CLASS_DOWN].tokens;
        double layer = i ? 0 : owner_rest(s, lane, end);
        layer += i || !apart ? 0 : whole(s, lane, end)->of[HT_CLASS_GLU];
        for (size_t m = 0; m < HT_OWNER_MATRICES; m++) {
            const ht_class class = ht_owner_matrices[m].class;
            const bool of_block = class == HT_CLASS_GATE_UP || class == HT_CLASS_DOWN;
            if ((of_block || class == HT_CLASS_FFN) && of_block != apart)
                continue;
            layer += matrix_busy(s, c, i, class, &c->cuts[which][class], class == HT_CLASS_QKV ? p->tokens : end);
        }
        sum += which ? layer : (p->layers - 1) * layer;
    }
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
