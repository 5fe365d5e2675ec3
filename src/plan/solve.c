/* The planner: the cheapest way to compute a pass, from the lanes' cost tables (plan.h says which ways there are).
 *
 * Exact within the cost model. A segment is divided so that its slowest lane ends first: for a limit each lane takes the
 * most units that it does in time, and the limit is found by bisection, so any number of lanes will do. A layer's segments
 * are the shortest path over its operators; each edge ends with a join. Layers are alike but for the last, of which only
 * wanted tokens see the end. PAPER.md's solver, min over strategies of max(T) + T_sync for one operator at a time, is the
 * regime OWNER here.
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

typedef struct solver {
    const ht_problem *p;
    ht_choice *best;
} solver;

static double seconds(const ht_problem *p, size_t lane, ht_class c, size_t n, double share, size_t position) {
    const ht_solver_lane *l = &p->lanes[lane];
    return n ? ht_class_seconds(l->cost, c, n, share, position) : 0;
}

/* The same, of a part of an operator. */
static double share_seconds(const ht_problem *p, size_t lane, ht_class c, size_t n, double share, size_t position) {
    const ht_solver_lane *l = &p->lanes[lane];
    const ht_lane_cost *cost = l->shares && share < 1 ? l->shares : l->cost;
    return n ? ht_class_seconds(cost, c, n, share, position) : 0;
}

static double stall(const ht_problem *p, ht_regime regime) {
    return p->stall[regime] > 0 ? p->stall[regime] : 1;
}

/* What every time is multiplied by in a regime. Lanes that compute at the same time slow each other down: they share
 * memory, if no cores. */
static double pace(const ht_problem *p, size_t lane, ht_regime regime) {
    const double factor = p->lanes[lane].cost->together[p->tokens > 1];
    return p->lanes[lane].drift[regime] * (regime != HT_REGIME_SOLO && factor > 0 ? factor : 1);
}

static double join_seconds(const ht_problem *p, size_t lane) {
    return p->lanes[lane].cost->join;
}

/* A feed-forward block without its norm: as one operator where the lane has it, else in three. */
static double ffn_seconds(const ht_problem *p, size_t lane, size_t n, double share) {
    const double block = share_seconds(p, lane, HT_CLASS_FFN, n, share, 0);
    const double parts = share_seconds(p, lane, HT_CLASS_GATE_UP, n, share, 0) +
                         share_seconds(p, lane, HT_CLASS_GLU, n, share, 0) +
                         share_seconds(p, lane, HT_CLASS_DOWN, n, share, 0);
    return block < parts ? block : parts;
}

/* Up to and with ROPE, and behind that: a layer whose first part is for n tokens and whose end is for w of them. */
static double layer_begin(const ht_problem *p, size_t lane, size_t n) {
    return seconds(p, lane, HT_CLASS_NORM, n, 1, 0) + seconds(p, lane, HT_CLASS_QKV, n, 1, 0) +
           seconds(p, lane, HT_CLASS_ROPE, n, 1, 0);
}

static double layer_end(const ht_problem *p, size_t lane, size_t w, size_t position) {
    return seconds(p, lane, HT_CLASS_ATTENTION, w, 1, position) + seconds(p, lane, HT_CLASS_OUT, w, 1, 0) +
           seconds(p, lane, HT_CLASS_NORM, w, 1, 0) + ffn_seconds(p, lane, w, 1);
}

static double head_pace(const ht_problem *p) {
    return p->head > 0 ? p->head : 1;
}

static double head_seconds(const ht_problem *p, size_t lane) {
    return (seconds(p, lane, HT_CLASS_NORM, 1, 1, 0) + seconds(p, lane, HT_CLASS_LM_HEAD, 1, 1, 0) +
            seconds(p, lane, HT_CLASS_ARGMAX, 1, 1, 0)) *
           head_pace(p);
}

/* n tokens from `position` on through all layers, the last w of them to the end of the last. */
static double pass_seconds(const ht_problem *p, size_t lane, size_t n, size_t w, size_t position) {
    return seconds(p, lane, HT_CLASS_EMBED, n, 1, 0) + p->layers * layer_begin(p, lane, n) +
           (p->layers - 1) * layer_end(p, lane, n, position) + layer_end(p, lane, w, position + n - w);
}

static double solo_seconds(const ht_problem *p, size_t lane) {
    return (pass_seconds(p, lane, p->tokens, p->wanted, p->position) + head_seconds(p, lane) + join_seconds(p, lane)) *
           pace(p, lane, HT_REGIME_SOLO);
}

/* ---- dividing ---------------------------------------------------------------------------------------------------------------- */

/* Seconds of `units` of a quantity on lane number `lane`; never falls as units grow. */
typedef double (*unit_function)(const void *context, size_t lane, size_t begin, size_t units);

/* Each lane in turn takes the most units that it does within the limit, `least` at least; true if that is all of them.
 * fixed[i]: lane i takes so many or none; SIZE_MAX: any number. The last one takes all that is left or fails: tokens that
 * end a pass may take less than a few of them that do not, so that a search for the most would not find them. */
static bool fill(unit_function f, const void *context, const size_t *lanes, size_t n_lanes, size_t all, size_t least,
                 const size_t *fixed, double limit, size_t *units) {
    size_t begin = 0;
    for (size_t i = 0; i < n_lanes; i++) {
        size_t low = least, high = all - begin - least * (n_lanes - i - 1);
        if (fixed[i] != SIZE_MAX) {
            const size_t wanted = ht_min_size(fixed[i], high);
            low = wanted == fixed[i] && f(context, lanes[i], begin, wanted) <= limit ? wanted : 0;
        } else if (i + 1 == n_lanes) {
            low = high;
        } else
            while (low < high) {
                const size_t middle = (low + high + 1) / 2;
                if (f(context, lanes[i], begin, middle) <= limit)
                    low = middle;
                else
                    high = middle - 1;
            }
        if (low > 0 && f(context, lanes[i], begin, low) > limit)
            return false;
        units[i] = low;
        begin += low;
    }
    return begin == all;
}

/* The division whose slowest lane ends first; infinite if there is none. What a lane with nothing to do takes is not less
 * than f(.., 0). */
static double divide(unit_function f, const void *context, const size_t *lanes, size_t n_lanes, size_t all,
                     size_t least, const size_t *fixed, size_t *units) {
    size_t trial[HT_MAX_DEVICES];
    double high = 0, low = 0, most = 0, first = 0;
    for (size_t i = 0; i < n_lanes; i++) {
        const double idle = f(context, lanes[i], 0, 0), whole = f(context, lanes[i], 0, all);
        low = idle > low ? idle : low;
        first = fmax(first, f(context, lanes[i], 0, least));
        if (fixed[i] == SIZE_MAX && whole < INFINITY)
            most = whole > most ? whole : most;
        else if (fixed[i] != SIZE_MAX && f(context, lanes[i], 0, ht_min_size(fixed[i], all)) < INFINITY)
            most = fmax(most, f(context, lanes[i], 0, ht_min_size(fixed[i], all)));
    }
    if (first == INFINITY)
        return INFINITY;
    high = (fmax(most, low) + (least ? 2 * first : 0)) * 1.0001;
    if (!fill(f, context, lanes, n_lanes, all, least, fixed, high, units))
        return INFINITY;
    for (int i = 0; i < 48 && high - low > 1e-6 * high; i++) {
        const double middle = (low + high) / 2;
        if (fill(f, context, lanes, n_lanes, all, least, fixed, middle, trial)) {
            memcpy(units, trial, sizeof trial);
            high = middle;
        } else {
            low = middle;
        }
    }
    double slowest = 0;
    size_t begin = 0;
    for (size_t i = 0; i < n_lanes; begin += units[i++])
        slowest = fmax(slowest, f(context, lanes[i], begin, units[i]));
    return slowest;
}

static const size_t any_number[HT_MAX_DEVICES] = {SIZE_MAX, SIZE_MAX, SIZE_MAX, SIZE_MAX,
                                                  SIZE_MAX, SIZE_MAX, SIZE_MAX, SIZE_MAX};

/* ---- TOKENS ------------------------------------------------------------------------------------------------------------------ */

static double token_seconds(const void *context, size_t lane, size_t begin, size_t n) {
    const ht_problem *p = context;
    if (n == 0)
        return 0;
    const bool last = begin + n == p->tokens; /* all but this end with the last layer's keys and values */
    const size_t first = p->tokens - p->wanted, w = begin + n > first ? ht_min_size(begin + n - first, n) : 0;
    double s = seconds(p, lane, HT_CLASS_EMBED, n, 1, 0) + p->layers * layer_begin(p, lane, n) +
               (p->layers - 1) * layer_end(p, lane, n, p->position + begin) +
               layer_end(p, lane, w, p->position + begin + n - w);
    if (last)
        s += head_seconds(p, lane);
    else /* telling the lanes behind that a layer's keys and values are there */
        s += p->layers * join_seconds(p, lane);
    return s * pace(p, lane, HT_REGIME_TOKENS) + p->layers * p->join;
}

static void try_tokens(const solver *s, const size_t *lanes, size_t n_lanes) {
    const ht_problem *p = s->p;
    const size_t end = lanes[n_lanes - 1];
    ht_choice c = {
        .regime = HT_REGIME_TOKENS, .n_lanes = n_lanes, .head = head_seconds(p, end) * pace(p, end, HT_REGIME_TOKENS)};
    if (!(p->cuts & HT_CUT_CAUSAL) || p->tokens < 2 * n_lanes || (p->wanted > 1 && !p->tokens_divide))
        return;
    /* one token at least: without any it would be a choice of fewer lanes, which is tried as such */
    c.seconds =
        divide(token_seconds, p, lanes, n_lanes, p->tokens, 1, any_number, c.tokens) * stall(p, HT_REGIME_TOKENS);
    if (c.seconds < s->best->seconds) {
        memcpy(c.lanes, lanes, n_lanes * sizeof *lanes);
        *s->best = c;
    }
}

/* ---- SHARES ------------------------------------------------------------------------------------------------------------------- */

static const ht_class op_class[HT_AT_END] = {HT_CLASS_NORM,      HT_CLASS_QKV, HT_CLASS_ROPE,
                                             HT_CLASS_ATTENTION, HT_CLASS_OUT, HT_CLASS_NORM,
                                             HT_CLASS_GATE_UP,   HT_CLASS_GLU, HT_CLASS_DOWN};

const ht_segment_span ht_segment_spans[HT_SEGMENTS] = {
    [HT_SEGMENT_HEADS] = {HT_AT_NORM, HT_AT_NORM2, HT_CUT_HEADS},
    [HT_SEGMENT_TOKENS] = {HT_AT_NORM, HT_AT_NORM2, HT_CUT_CAUSAL},
    [HT_SEGMENT_QKV_ROWS] = {HT_AT_NORM, HT_AT_ROPE, HT_CUT_ROWS},
    [HT_SEGMENT_ATTENTION] = {HT_AT_ROPE, HT_AT_OUT, HT_CUT_ROWS | HT_CUT_HEADS},
    [HT_SEGMENT_ATTENTION_OUT] = {HT_AT_ROPE, HT_AT_NORM2, HT_CUT_HEADS},
    [HT_SEGMENT_OUT_ROWS] = {HT_AT_OUT, HT_AT_NORM2, HT_CUT_ROWS},
    [HT_SEGMENT_FEATURES] = {HT_AT_NORM2, HT_AT_END, HT_CUT_FEATURES},
    [HT_SEGMENT_GATE_UP] = {HT_AT_NORM2, HT_AT_DOWN, HT_CUT_ROWS},
    [HT_SEGMENT_DOWN_ROWS] = {HT_AT_DOWN, HT_AT_END, HT_CUT_ROWS},
    [HT_SEGMENT_LM_ROWS] = {-1, -1, HT_CUT_ROWS | HT_CUT_HEADS | HT_CUT_FEATURES},
};

typedef struct segment_context {
    const ht_problem *p;
    ht_segment segment;
    size_t begin, end; /* tokens before the layer's ATTENTION, and from there on */
} segment_context;

static double segment_seconds(const void *context, size_t lane, size_t begin, size_t units) {
    const segment_context *k = context;
    const ht_problem *p = k->p;
    const double share = (double)units / (double)p->of[k->segment];
    double s = join_seconds(p, lane);
    if (k->segment == HT_SEGMENT_LM_ROWS) {
        s += seconds(p, lane, HT_CLASS_NORM, 1, 1, 0) + (units ? seconds(p, lane, HT_CLASS_LM_HEAD, 1, share, 0) : 0);
        return s * pace(p, lane, HT_REGIME_SHARES);
    }
    for (int op = ht_segment_spans[k->segment].from; op < ht_segment_spans[k->segment].to; op++) {
        const size_t n = op < HT_AT_ATTENTION ? k->begin : k->end;
        if (op_class[op] == HT_CLASS_NORM) { /* every lane's own */
            s += seconds(p, lane, HT_CLASS_NORM, n, 1, 0);
        } else if (units && k->segment == HT_SEGMENT_FEATURES) {
            s += ffn_seconds(p, lane, n, share);
            break;
        } else if (units) {
            const size_t at = op_class[op] == HT_CLASS_ATTENTION ? p->position + k->begin - n : 0;
            s += share_seconds(p, lane, op_class[op], n, share, at);
        }
    }
    return s * pace(p, lane, HT_REGIME_SHARES);
}

/* HT_SEGMENT_TOKENS: tokens [begin, begin + n) of an attention block. */
static double attention_seconds(const void *context, size_t lane, size_t begin, size_t n) {
    const segment_context *k = context;
    const ht_problem *p = k->p;
    const size_t first = k->begin - k->end, w = begin + n > first ? ht_min_size(begin + n - first, n) : 0;
    double s = join_seconds(p, lane) + seconds(p, lane, HT_CLASS_NORM, k->begin, 1, 0);
    if (n)
        s += join_seconds(p, lane) + p->join + seconds(p, lane, HT_CLASS_QKV, n, 1, 0) +
             seconds(p, lane, HT_CLASS_ROPE, n, 1, 0) +
             seconds(p, lane, HT_CLASS_ATTENTION, w, 1, p->position + begin + n - w) +
             seconds(p, lane, HT_CLASS_OUT, w, 1, 0);
    return s * pace(p, lane, HT_REGIME_SHARES);
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
static bool is_fixed(const ht_solver_lane *lane, size_t n) {
    return lane->fixed && (n > 1 || lane->single);
}

static bool has_room(const ht_solver_lane *lane, ht_segment segment) {
    return lane->may_build && !lane->full && lane->built[segment][HT_MAX_SHARES - 1] == 0;
}

static bool is_ready(const ht_problem *p, size_t lane, ht_segment segment, size_t units, size_t tokens) {
    return p->lanes[lane].may_build || !p->ready || p->ready(p->ready_context, lane, segment, units, tokens);
}

/* May a static lane compute so many units? */
static bool is_built(const ht_problem *p, size_t lane, ht_segment segment, size_t units, size_t tokens) {
    for (size_t i = 0; i < HT_MAX_SHARES; i++)
        if (p->lanes[lane].built[segment][i] == units)
            return is_ready(p, lane, segment, units, tokens);
    return has_room(&p->lanes[lane], segment);
}

/* Divides a segment; infinite where it cannot be. */
static double solve_segment(const ht_problem *p, ht_segment segment, size_t begin, size_t end, const size_t *lanes,
                            size_t n_lanes, size_t *units) {
    const segment_context k = {p, segment, begin, end};
    size_t fixed[HT_MAX_DEVICES] = {0};
    if (!(p->cuts & ht_segment_spans[segment].needs))
        return INFINITY;
    if (segment == HT_SEGMENT_TOKENS)
        return begin < 2 ? INFINITY
                         : p->join + exchange_seconds(p, segment, begin, end, n_lanes) +
                               divide(attention_seconds, &k, lanes, n_lanes, begin, 0, any_number, units);
    if (p->of[segment] == 0)
        return INFINITY;
    const size_t n = segment == HT_SEGMENT_HEADS || segment == HT_SEGMENT_QKV_ROWS ? begin : end;
    const bool graphs = segment != HT_SEGMENT_ATTENTION;
    size_t trial[HT_MAX_DEVICES];
    double best = INFINITY;
    /* every combination of shares that static lanes have graphs for, as digits of one counter; then one of their own choice,
     * which must be worth its memory */
    const size_t options = HT_MAX_SHARES + 1;
    size_t combinations = 1;
    for (size_t i = 0; i < n_lanes; i++)
        combinations *= graphs && is_fixed(&p->lanes[lanes[i]], n) ? options : 1;
    for (size_t c = 0; c < combinations; c++) {
        bool possible = true, free = false;
        for (size_t i = 0, rest = c; i < n_lanes; i++) {
            const ht_solver_lane *lane = &p->lanes[lanes[i]];
            fixed[i] = SIZE_MAX;
            if (!graphs || !is_fixed(lane, n))
                continue;
            const size_t option = rest % options;
            rest /= options;
            fixed[i] = option < HT_MAX_SHARES ? lane->built[segment][option] : SIZE_MAX;
            if (fixed[i] != SIZE_MAX && !is_ready(p, lanes[i], segment, fixed[i], n))
                fixed[i] = 0;
            const bool none = option == 0 && fixed[i] == 0 && !has_room(lane, segment); /* it takes no part */
            possible &= none || (fixed[i] == SIZE_MAX ? has_room(lane, segment) : fixed[i] > 0);
            free |= fixed[i] == SIZE_MAX;
        }
        if (!possible)
            continue;
        const double s = divide(segment_seconds, &k, lanes, n_lanes, p->of[segment], 0, fixed, trial);
        if (s < (free && best < INFINITY ? WORTH_A_GRAPH * best : best)) {
            best = s;
            memcpy(units, trial, n_lanes * sizeof *units);
        }
    }
    return p->join + exchange_seconds(p, segment, begin, end, n_lanes) + best;
}

/* The shortest path over a layer's operators. */
static double solve_layer(const ht_problem *p, size_t begin, size_t end, const size_t *lanes, size_t n_lanes, int which,
                          ht_choice *c) {
    double at[HT_AT_END + 1];
    ht_segment via[HT_AT_END + 1];
    size_t units[HT_SEGMENTS][HT_MAX_DEVICES] = {{0}};
    at[0] = 0;
    for (int i = 1; i <= HT_AT_END; i++)
        at[i] = INFINITY;
    for (int i = 0; i < HT_AT_END; i++) /* edges lead forward: in this order every node is final when it is left */
        for (int g = 0; g < HT_SEGMENTS; g++) {
            if (ht_segment_spans[g].from != i || at[i] == INFINITY)
                continue;
            const double there = at[i] + solve_segment(p, (ht_segment)g, begin, end, lanes, n_lanes, units[g]);
            if (there < at[ht_segment_spans[g].to])
                at[ht_segment_spans[g].to] = there, via[ht_segment_spans[g].to] = (ht_segment)g;
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
    memcpy(c->units[which], units, sizeof units);
    return at[HT_AT_END];
}

static void try_shares(const solver *s, const size_t *lanes, size_t n_lanes) {
    const ht_problem *p = s->p;
    ht_choice c = {.regime = HT_REGIME_SHARES, .n_lanes = n_lanes};
    size_t lm[HT_MAX_DEVICES] = {0};
    if (n_lanes > HT_MAX_PIECES + 1)
        return;
    const double layer = solve_layer(p, p->tokens, p->tokens, lanes, n_lanes, 0, &c);
    if (layer == INFINITY)
        return;
    const double last = solve_layer(p, p->tokens, p->wanted, lanes, n_lanes, 1, &c);
    const double head = solve_segment(p, HT_SEGMENT_LM_ROWS, 1, 1, lanes, n_lanes, lm);
    memcpy(c.units[1][HT_SEGMENT_LM_ROWS], lm, sizeof lm);
    memcpy(c.units[0][HT_SEGMENT_LM_ROWS], lm, sizeof lm);
    double embed = 0;
    for (size_t i = 0; i < n_lanes; i++)
        embed =
            fmax(embed, seconds(p, lanes[i], HT_CLASS_EMBED, p->tokens, 1, 0) * pace(p, lanes[i], HT_REGIME_SHARES));
    c.head =
        (head + seconds(p, lanes[0], HT_CLASS_ARGMAX, 1, 1, 0) * pace(p, lanes[0], HT_REGIME_SHARES)) * head_pace(p);
    c.seconds = embed + (p->layers - 1) * layer + last + c.head;
    c.seconds *= stall(p, HT_REGIME_SHARES);
    if (c.seconds < s->best->seconds) {
        memcpy(c.lanes, lanes, n_lanes * sizeof *lanes);
        *s->best = c;
    }
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

static double matrix_seconds(const ht_problem *p, size_t lane, ht_class c, size_t n, double share) {
    if (n == 0 || share == 0)
        return 0;
    return c == HT_CLASS_FFN ? ffn_seconds(p, lane, n, share) : share_seconds(p, lane, c, n, share, 0);
}

typedef struct matrix_context {
    const ht_problem *p;
    ht_class class;
    size_t owner, other, n; /* lanes, tokens */
    ht_segment segment;     /* whose units are its rows */
    bool whole;             /* the owner's alone: the head goes on from what its device wrote itself */
} matrix_context;

static double cut_seconds(const matrix_context *k, const ht_matrix_cut *cut) {
    const ht_problem *p = k->p;
    const double share = cut->of ? (double)cut->units / (double)cut->of : 0;
    const double own_pace = pace(p, k->owner, HT_REGIME_OWNER), other_pace = pace(p, k->other, HT_REGIME_OWNER);
    if (cut->tokens == 0 || share == 0)
        return matrix_seconds(p, k->owner, k->class, k->n, 1) * own_pace;
    const size_t widths = owner_widths(p, k->class);
    /* the other lane begins once the owner has told, so that its join comes before, not beside */
    const double joins =
        2 * p->join + join_seconds(p, k->owner) * own_pace + p->exchange * 4 * (double)(cut->tokens * widths);
    const double others = join_seconds(p, k->other) + matrix_seconds(p, k->other, k->class, cut->tokens, share);
    const double own = matrix_seconds(p, k->owner, k->class, cut->tokens, 1 - share) +
                       matrix_seconds(p, k->owner, k->class, k->n - cut->tokens, 1);
    return joins + fmax(others * other_pace, own * own_pace);
}

static void try_cut(const matrix_context *k, size_t tokens, size_t units, ht_matrix_cut *best, double *least) {
    const ht_matrix_cut cut = {tokens, units, k->p->of[k->segment]};
    const double s = cut_seconds(k, &cut);
    if (s < *least)
        *least = s, *best = cut;
}

/* The cheapest way to compute one matrix (or feed-forward block). Every number of tokens that the other lane is built for,
 * every number of units. */
static double solve_matrix(const matrix_context *k, ht_matrix_cut *cut) {
    const ht_problem *p = k->p;
    const ht_solver_lane *other = &p->lanes[k->other];
    const size_t of = p->of[k->segment];
    const unsigned rows = k->class == HT_CLASS_FFN ? HT_CUT_FEATURES : HT_CUT_ROWS,
                   /* static graphs are built for the other lane's shares only */
        cuts = is_fixed(&p->lanes[k->owner], k->n) ? p->cuts & ~(rows | HT_CUT_HYBRID) : p->cuts;
    *cut = (ht_matrix_cut){0};
    double least = cut_seconds(k, cut);
    if (of == 0 || k->whole)
        return least;
    if (p->cuts & HT_CUT_LAYER)
        try_cut(k, k->n, of, cut, &least);
    for (size_t i = 0; i < (other->lengths ? other->n_lengths : 64) && k->n > 1; i++) {
        const size_t tokens = other->lengths ? (size_t)other->lengths[i] : k->n * (i + 1) / 64;
        if (tokens < 2 || tokens >= k->n || (i && !other->lengths && tokens == k->n * i / 64))
            continue;
        if (p->cuts & HT_CUT_SEQUENCE)
            try_cut(k, tokens, of, cut, &least);
        for (size_t u = 1; u < of && cuts & HT_CUT_HYBRID; u++)
            if (!other->fixed || is_built(p, k->other, k->segment, u, tokens))
                try_cut(k, tokens, u, cut, &least);
    }
    for (size_t u = 1; u < of && cuts & rows; u++)
        if (!is_fixed(other, k->n) || is_built(p, k->other, k->segment, u, k->n))
            try_cut(k, k->n, u, cut, &least);
    return least;
}

/* What is no matrix, of a layer whose end is for `end` tokens. */
static double owner_rest(const ht_problem *p, size_t owner, size_t end) {
    return seconds(p, owner, HT_CLASS_NORM, p->tokens, 1, 0) + seconds(p, owner, HT_CLASS_NORM, end, 1, 0) +
           seconds(p, owner, HT_CLASS_ROPE, p->tokens, 1, 0) +
           seconds(p, owner, HT_CLASS_ATTENTION, end, 1, p->position + p->tokens - end);
}

/* A layer of which the end is for `end` tokens. */
static double owner_layer(const ht_problem *p, size_t owner, size_t other, size_t end, bool last,
                          ht_matrix_cut cuts[HT_CLASSES]) {
    double matrices[HT_CLASSES] = {0};
    for (size_t i = 0; i < HT_OWNER_MATRICES; i++) {
        const ht_class class = ht_owner_matrices[i].class;
        const bool whole = last && (class == HT_CLASS_FFN || class == HT_CLASS_DOWN);
        const matrix_context k = {
            p, class, owner, other, class == HT_CLASS_QKV ? p->tokens : end, ht_owner_matrices[i].segment, whole};
        matrices[class] = k.n ? solve_matrix(&k, &cuts[class]) : 0;
    }
    const double own_pace = pace(p, owner, HT_REGIME_OWNER);
    const double parts =
        matrices[HT_CLASS_GATE_UP] + matrices[HT_CLASS_DOWN] + seconds(p, owner, HT_CLASS_GLU, end, 1, 0) * own_pace;
    if (parts < matrices[HT_CLASS_FFN])
        cuts[HT_CLASS_FFN] = (ht_matrix_cut){0};
    else
        cuts[HT_CLASS_GATE_UP] = cuts[HT_CLASS_DOWN] = (ht_matrix_cut){0};
    return owner_rest(p, owner, end) * own_pace + matrices[HT_CLASS_QKV] + matrices[HT_CLASS_OUT] +
           fmin(parts, matrices[HT_CLASS_FFN]);
}

static void try_owner(const solver *s, size_t owner, size_t other) {
    const ht_problem *p = s->p;
    ht_choice c = {.regime = HT_REGIME_OWNER, .n_lanes = 2, .lanes = {owner, other}};
    bool any = false;
    c.head = head_seconds(p, owner) * pace(p, owner, HT_REGIME_OWNER);
    c.seconds = seconds(p, owner, HT_CLASS_EMBED, p->tokens, 1, 0) * pace(p, owner, HT_REGIME_OWNER) + c.head;
    for (int last = 0; last < 2; last++) {
        const double layer = owner_layer(p, owner, other, last ? p->wanted : p->tokens, last, c.cuts[last]);
        c.seconds += (last ? 1 : p->layers - 1) * layer;
        for (size_t i = 0; i < HT_OWNER_MATRICES; i++)
            any |= c.cuts[last][ht_owner_matrices[i].class].tokens > 0;
    }
    c.seconds *= stall(p, HT_REGIME_OWNER);
    if (any && c.seconds < s->best->seconds)
        *s->best = c;
}

/* ---- all of them -------------------------------------------------------------------------------------------------------------- */

/* Lanes of a set, if they share no cores and none is lost. */
static size_t list_lanes(const ht_problem *p, unsigned set, size_t lanes[HT_MAX_DEVICES]) {
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

void ht_solve(const ht_problem *p, ht_choice *choice) {
    const solver s = {p, choice};
    ht_choice solo = {.seconds = INFINITY};
    double alone[HT_MAX_DEVICES];
    for (size_t l = 0; l < HT_MAX_DEVICES; l++)
        alone[l] = INFINITY;
    *choice = (ht_choice){.seconds = INFINITY};
    for (unsigned set = 1; set < 1u << p->n_lanes; set++) {
        size_t lanes[HT_MAX_DEVICES];
        const size_t n = list_lanes(p, set, lanes);
        if (n == 1) {
            alone[lanes[0]] = solo_seconds(p, lanes[0]);
            if (alone[lanes[0]] < solo.seconds || !solo.n_lanes)
                solo = (ht_choice){.n_lanes = 1,
                                   .lanes = {lanes[0]},
                                   .seconds = alone[lanes[0]],
                                   .head = head_seconds(p, lanes[0]) * pace(p, lanes[0], HT_REGIME_SOLO),
                                   .tokens = {p->tokens}};
        }
        if (n < 2 || !p->cuts)
            continue;
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
}

static double shares_busy(const ht_problem *p, const ht_choice *c, size_t i) {
    const size_t lane = c->lanes[i];
    double s = seconds(p, lane, HT_CLASS_EMBED, p->tokens, 1, 0) * pace(p, lane, HT_REGIME_SHARES);
    for (int which = 0; which < 2; which++)
        for (size_t g = 0; g < c->n_segments[which]; g++) {
            const segment_context k = {p, c->segments[which][g], p->tokens, which ? p->wanted : p->tokens};
            size_t begin = 0;
            for (size_t before = 0; before < i; before++)
                begin += c->units[which][k.segment][before];
            const double one = (k.segment == HT_SEGMENT_TOKENS ? attention_seconds : segment_seconds)(
                                   &k, lane, begin, c->units[which][k.segment][i]) +
                               exchange_seconds(p, k.segment, k.begin, k.end, c->n_lanes);
            s += which ? one : (p->layers - 1) * one;
        }
    return s;
}

static double owner_busy(const ht_problem *p, const ht_choice *c, size_t i) {
    const size_t lane = c->lanes[i];
    double s = i == 0 ? seconds(p, lane, HT_CLASS_EMBED, p->tokens, 1, 0) : 0;
    for (int which = 0; which < 2; which++) {
        const size_t end = which ? p->wanted : p->tokens;
        const bool apart = c->cuts[which][HT_CLASS_GATE_UP].tokens || c->cuts[which][HT_CLASS_DOWN].tokens;
        double layer = i ? 0 : owner_rest(p, lane, end);
        layer += i || !apart ? 0 : seconds(p, lane, HT_CLASS_GLU, end, 1, 0);
        for (size_t m = 0; m < HT_OWNER_MATRICES; m++) {
            const ht_class class = ht_owner_matrices[m].class;
            const ht_matrix_cut *cut = &c->cuts[which][class];
            const double share = cut->of ? (double)cut->units / (double)cut->of : 0;
            const size_t n = class == HT_CLASS_QKV ? p->tokens : end, tokens = cut->of ? cut->tokens : 0;
            const bool part = class == HT_CLASS_GATE_UP || class == HT_CLASS_DOWN;
            if ((part || class == HT_CLASS_FFN) && part != apart)
                continue;
            layer += p->exchange * 4 * (double)(tokens * owner_widths(p, class)) + (tokens ? join_seconds(p, lane) : 0);
            layer +=
                i ? matrix_seconds(p, lane, class, tokens, share)
                  : matrix_seconds(p, lane, class, tokens, 1 - share) + matrix_seconds(p, lane, class, n - tokens, 1);
        }
        s += which ? layer : (p->layers - 1) * layer;
    }
    return s * pace(p, lane, HT_REGIME_OWNER);
}

double ht_choice_busy(const ht_problem *p, const ht_choice *c, size_t i) {
    size_t begin = 0;
    switch (c->regime) {
    case HT_REGIME_TOKENS:
        for (size_t k = 0; k < i; k++)
            begin += c->tokens[k];
        return token_seconds(p, c->lanes[i], begin, c->tokens[i]) -
               (i + 1 == c->n_lanes ? head_seconds(p, c->lanes[i]) * pace(p, c->lanes[i], HT_REGIME_TOKENS) : 0);
    case HT_REGIME_SHARES:
        return shares_busy(p, c, i);
    case HT_REGIME_OWNER:
        return owner_busy(p, c, i);
    default:
        return pass_seconds(p, c->lanes[0], p->tokens, p->wanted, p->position) * pace(p, c->lanes[0], HT_REGIME_SOLO);
    }
}
