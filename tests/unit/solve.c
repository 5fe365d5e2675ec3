/* The planner against brute force: every set of lanes, every way to cut a layer into segments, every division of units and
 * tokens, every matrix cut, by formulas written here from what plan.h says. Costs are made up. */
#include "unit/test.h"

#include "plan/plan.h"

#include <math.h>
#include <time.h>

#define TOLERANCE 1e-5 /* where a segment is divided is found by bisection, to a relative 1e-6 */

static uint32_t random_state;
static unsigned pick(unsigned n) { /* 0..n-1 */
    random_state = random_state * 1664525u + 1013904223u;
    return (random_state >> 8) % n;
}
static double uniform(double low, double high) {
    return low + (high - low) * pick(1u << 20) / (double)(1u << 20);
}

/* ---- made-up problems ------------------------------------------------------------------------------------------------------- */

enum { LANES = 3, MOST_TOKENS = 9 };

typedef struct made {
    ht_problem p;
    ht_solver_lane lanes[LANES];
    ht_lane_cost costs[LANES];
} made;

static const int static_lengths[] = {4, 8};

static ht_class_cost make_class(bool stepped, double scale) {
    static const size_t dynamic[] = {1, 2, 4, 8}, fixed[] = {1, 4, 8};
    const size_t n = stepped ? HT_COUNT(fixed) : HT_COUNT(dynamic);
    ht_class_cost c = {.n_points = n, .stepped = stepped};
    double s = scale * uniform(0.5, 2);
    for (size_t i = 0; i < n; i++, s += scale * uniform(0, 2))
        c.points[i] = (ht_cost_point){stepped ? fixed[i] : dynamic[i], s};
    return c;
}

/* Matrices cost more than the rest, joins sometimes much and sometimes next to nothing, so that every regime wins now and
 * then. */
static ht_lane_cost make_cost(bool stepped) {
    static const double scales[HT_CLASSES] = {
        [HT_CLASS_EMBED] = 1,     [HT_CLASS_NORM] = 1, [HT_CLASS_QKV] = 15,     [HT_CLASS_ROPE] = 1,
        [HT_CLASS_ATTENTION] = 5, [HT_CLASS_OUT] = 10, [HT_CLASS_GATE_UP] = 30, [HT_CLASS_GLU] = 2,
        [HT_CLASS_DOWN] = 20,     [HT_CLASS_FFN] = 50, [HT_CLASS_LM_HEAD] = 60, [HT_CLASS_ARGMAX] = 1};
    ht_lane_cost cost = {.granule = pick(3) ? 0 : 2,
                         .per_key = uniform(0, 0.05) * 1e-6,
                         .launch = uniform(0, 1) * 1e-6,
                         .join = uniform(0, pick(2) ? 0.5 : 10) * 1e-6};
    for (size_t l = 0; l < LANES; l++)
        for (int many = 0; many < 2; many++) {
            cost.together[l][many] = pick(3) ? uniform(1, pick(4) ? 1.5 : 20) : 0;
            cost.norms[l][many] = pick(2) ? uniform(1, 3) : 0;
        }
    for (int c = 0; c < HT_CLASSES; c++)
        if (c != HT_CLASS_FFN || pick(2)) /* not every device takes the block as one */
            cost.classes[c] = make_class(stepped && c != HT_CLASS_NORM && c != HT_CLASS_ATTENTION, scales[c] * 1e-6);
    for (int c = HT_CLASS_QKV; c < HT_CLASS_ARGMAX; c++)
        cost.classes[c].start = stepped && scales[c] >= 10 && pick(2) ? uniform(0, 20) * 1e-6 : 0;
    if (pick(12) == 0)
        cost.classes[pick(HT_CLASSES)].n_points = 0; /* a lane that lacks an operator */
    return cost;
}

static void make_problem(made *m, size_t n_lanes) {
    *m = (made){.p = {.layers = 2 + (int)pick(2),
                      .lanes = m->lanes,
                      .n_lanes = n_lanes,
                      .cuts = pick(4) ? pick(HT_CUT_ALL + 1) : HT_CUT_ALL,
                      .tokens = 1 + pick(MOST_TOKENS),
                      .position = pick(2) * 100,
                      .forced = pick(3) == 0,
                      .join = uniform(0, 1) * 1e-6,
                      .exchange = pick(2) ? uniform(0, 1) * 1e-9 : 0,
                      .embedding = 64,
                      .qkv = 96,
                      .attention = 48,
                      .feed_forward = 200,
                      .tokens_divide = pick(2)}};
    m->p.wanted = pick(2) ? m->p.tokens : 1;
    const size_t heads = 1 + pick(4);
    for (int s = 0; s < HT_SEGMENTS; s++)
        m->p.of[s] =
            s == HT_SEGMENT_HEADS || s == HT_SEGMENT_ATTENTION || s == HT_SEGMENT_ATTENTION_OUT ? heads : 3 + pick(4);
    if (pick(6) == 0)
        m->p.of[pick(HT_SEGMENTS)] = 0;
    for (size_t l = 0; l < n_lanes; l++) {
        const bool fixed = l == 0 && pick(3) == 0; /* static lengths come first */
        m->costs[l] = make_cost(fixed);
        m->lanes[l] = (ht_solver_lane){.cost = &m->costs[l],
                                       .cores = {{1u << l | (pick(6) == 0 ? 1u : 0)}},
                                       .lost = pick(10) == 0,
                                       .built_only = fixed,
                                       .may_build = pick(2),
                                       .lengths = fixed ? static_lengths : NULL,
                                       .n_lengths = fixed ? HT_COUNT(static_lengths) : 0};
        for (int r = 0; r < HT_REGIMES; r++)
            m->lanes[l].drift[r] = pick(2) ? 1 : uniform(0.5, 2);
        for (int s = 0; s < HT_SEGMENTS && fixed && !m->lanes[l].may_build; s++)
            for (int k = 0; k < 2; k++) /* none, one or two */
                m->lanes[l].built[s][k] = m->p.of[s] > 1 && pick(2) && (k == 0 || m->lanes[l].built[s][0])
                                              ? 1 + pick((unsigned)m->p.of[s] - 1)
                                              : 0;
    }
}

/* ---- brute force ------------------------------------------------------------------------------------------------------------ */

/* Of n tokens' whole operator, so much is waiting, whatever the share. */
static ht_estimate op(const ht_problem *p, size_t lane, ht_class c, size_t n, double share, size_t position) {
    if (n == 0 || share <= 0)
        return (ht_estimate){0};
    const double seconds = ht_class_seconds(p->lanes[lane].cost, c, n, share, position),
                 wait = fmin(seconds, p->lanes[lane].cost->classes[c].start);
    return (ht_estimate){seconds - wait, wait};
}
static ht_estimate whole(const ht_problem *p, size_t lane, ht_class c, size_t n) {
    return op(p, lane, c, n, 1, 0);
}
static double both(ht_estimate e) {
    return e.busy + e.wait;
}
static void add(ht_estimate *sum, ht_estimate e) {
    sum->busy += e.busy;
    sum->wait += e.wait;
}
/* As one operator, or (1) in three. */
static ht_estimate ffn_way(const ht_problem *p, size_t lane, size_t n, double share, int way) {
    ht_estimate e = op(p, lane, way ? HT_CLASS_GATE_UP : HT_CLASS_FFN, n, share, 0);
    if (way) {
        add(&e, op(p, lane, HT_CLASS_GLU, n, share, 0));
        add(&e, op(p, lane, HT_CLASS_DOWN, n, share, 0));
    }
    return e;
}
static ht_estimate ffn(const ht_problem *p, size_t lane, size_t n, double share) {
    const ht_estimate one = ffn_way(p, lane, n, share, 0), three = ffn_way(p, lane, n, share, 1);
    return both(one) < both(three) ? one : three;
}

static size_t set_size; /* lanes of the set that is looked at */
static const size_t *set_lanes;

/* Beside several lanes it is no better than beside the worst of them. 0: as alone. */
static double contention(const double factors[HT_MAX_LANES][2], size_t lane, bool many) {
    double factor = 1;
    for (size_t i = 0; i < set_size; i++)
        if (set_lanes[i] != lane || set_size > 2)
            factor = fmax(factor, factors[set_lanes[i]][many]);
    return factor;
}
static double drift(const ht_problem *p, size_t lane, ht_regime regime) {
    return p->lanes[lane].drift[regime];
}
static double slower(const ht_problem *p, size_t lane, bool many) {
    return contention(p->lanes[lane].cost->together, lane, many);
}
/* What is computed beside the others takes longer; waiting does not. */
static double beside(const ht_problem *p, size_t lane, ht_regime regime, ht_estimate e) {
    return drift(p, lane, regime) * (e.wait + slower(p, lane, p->tokens > 1) * e.busy);
}
/* A norm that every lane begins at once: slower until the first one has ended. */
static double shared_norm(const ht_problem *p, size_t lane, size_t n) {
    double first = INFINITY;
    for (size_t i = 0; i < set_size; i++) {
        const size_t l = set_lanes[i];
        first = fmin(first, both(whole(p, l, HT_CLASS_NORM, n)) * contention(p->lanes[l].cost->norms, l, n > 1));
    }
    const double lost = first * (1 - 1 / contention(p->lanes[lane].cost->norms, lane, n > 1));
    return both(whole(p, lane, HT_CLASS_NORM, n)) + (first < INFINITY ? lost : 0);
}
static double join(const ht_problem *p, size_t lane) {
    return p->lanes[lane].cost->join;
}
static double head(const ht_problem *p, size_t lane) {
    return both(whole(p, lane, HT_CLASS_NORM, 1)) + both(whole(p, lane, HT_CLASS_LM_HEAD, 1)) +
           both(whole(p, lane, HT_CLASS_ARGMAX, 1));
}

/* Tokens [begin, end) of the pass on one lane, without the head. */
static ht_estimate body(const ht_problem *p, size_t lane, size_t begin, size_t end) {
    const size_t n = end - begin, from = p->tokens - p->wanted;
    ht_estimate s = whole(p, lane, HT_CLASS_EMBED, n);
    for (int layer = 0; layer < p->layers; layer++) {
        const size_t first = layer + 1 < p->layers || from < begin ? begin : from < end ? from : end, w = end - first;
        add(&s, whole(p, lane, HT_CLASS_NORM, n));
        add(&s, whole(p, lane, HT_CLASS_QKV, n));
        add(&s, whole(p, lane, HT_CLASS_ROPE, n));
        add(&s, op(p, lane, HT_CLASS_ATTENTION, w, 1, p->position + first));
        add(&s, whole(p, lane, HT_CLASS_OUT, w));
        add(&s, whole(p, lane, HT_CLASS_NORM, w));
        add(&s, ffn(p, lane, w, 1));
    }
    return s;
}

static double solo(const ht_problem *p, size_t lane) {
    return (both(body(p, lane, 0, p->tokens)) + head(p, lane) + join(p, lane)) * drift(p, lane, HT_REGIME_SOLO);
}

static double tokens_lane(const ht_problem *p, size_t lane, size_t begin, size_t end) {
    ht_estimate e = body(p, lane, begin, end);
    e.wait += end == p->tokens ? head(p, lane) : p->layers * join(p, lane); /* the head: when the others are done */
    return beside(p, lane, HT_REGIME_TOKENS, e) + p->layers * p->join;
}

/* Every way to give tokens [begin, ..) to lanes[i..n): the slowest lane's time of the best. */
static double best_tokens(const ht_problem *p, const size_t *lanes, size_t n, size_t i, size_t begin) {
    if (i + 1 >= n)
        return tokens_lane(p, lanes[i], begin, p->tokens);
    double best = INFINITY;
    for (size_t end = begin + 1; end + (n - i - 1) <= p->tokens; end++)
        best = fmin(best, fmax(tokens_lane(p, lanes[i], begin, end), best_tokens(p, lanes, n, i + 1, end)));
    return best;
}

static const ht_class layer_ops[] = {HT_CLASS_NORM, HT_CLASS_QKV,     HT_CLASS_ROPE, HT_CLASS_ATTENTION, HT_CLASS_OUT,
                                     HT_CLASS_NORM, HT_CLASS_GATE_UP, HT_CLASS_GLU,  HT_CLASS_DOWN};
static const struct {
    size_t from, to;
    unsigned cuts;
} spans[HT_SEGMENTS] = {[HT_SEGMENT_HEADS] = {0, 5, HT_CUT_HEADS},
                        [HT_SEGMENT_TOKENS] = {0, 5, HT_CUT_CAUSAL},
                        [HT_SEGMENT_QKV_ROWS] = {0, 2, HT_CUT_ROWS},
                        [HT_SEGMENT_ATTENTION] = {2, 4, HT_CUT_ROWS | HT_CUT_HEADS},
                        [HT_SEGMENT_ATTENTION_OUT] = {2, 5, HT_CUT_HEADS},
                        [HT_SEGMENT_OUT_ROWS] = {4, 5, HT_CUT_ROWS},
                        [HT_SEGMENT_FEATURES] = {5, 9, HT_CUT_FEATURES},
                        [HT_SEGMENT_GATE_UP] = {5, 8, HT_CUT_ROWS},
                        [HT_SEGMENT_DOWN_ROWS] = {8, 9, HT_CUT_ROWS},
                        [HT_SEGMENT_LM_ROWS] = {9, 9, HT_CUT_ROWS | HT_CUT_HEADS | HT_CUT_FEATURES}};

/* From a join until a lane computes. */
static double pause_of(const ht_problem *p, size_t lane) {
    return join(p, lane) + p->lanes[lane].cost->classes[HT_CLASS_QKV].start;
}

/* A lane's part of a segment, which all of them begin at once: until the first of the others computes, it is as if alone. */
static double in_segment(const ht_problem *p, size_t lane, bool many, ht_estimate e) {
    double first = INFINITY;
    for (size_t i = 0; i < set_size; i++)
        if (set_lanes[i] != lane)
            first = fmin(first, pause_of(p, set_lanes[i]));
    const double alone = fmin(fmax(first - pause_of(p, lane), 0), e.busy);
    return drift(p, lane, HT_REGIME_SHARES) * (e.wait + alone + (e.busy - alone) * slower(p, lane, many));
}

/* One lane's part of a segment of a layer for `w` of n tokens in what follows ROPE. */
static double segment_lane(const ht_problem *p, size_t lane, ht_segment s, size_t units, size_t w) {
    const double share = (double)units / (double)p->of[s];
    ht_estimate sum = {0, join(p, lane)};
    for (size_t i = spans[s].from; i < spans[s].to; i++) {
        const size_t n = i < 3 ? p->tokens : w;
        if (layer_ops[i] == HT_CLASS_NORM)
            sum.busy += shared_norm(p, lane, n);
        else if (s != HT_SEGMENT_FEATURES)
            add(&sum, op(p, lane, layer_ops[i], n, share,
                         layer_ops[i] == HT_CLASS_ATTENTION ? p->position + p->tokens - n : 0));
    }
    if (s == HT_SEGMENT_FEATURES && units) {
        ht_estimate ways[2] = {sum, sum};
        for (int way = 0; way < 2; way++)
            add(&ways[way], ffn_way(p, lane, w, share, way));
        return fmin(in_segment(p, lane, p->tokens > 1, ways[0]), in_segment(p, lane, p->tokens > 1, ways[1]));
    }
    if (s == HT_SEGMENT_LM_ROWS) {
        add(&sum, whole(p, lane, HT_CLASS_NORM, 1));
        add(&sum, op(p, lane, HT_CLASS_LM_HEAD, 1, share, 0));
    }
    return in_segment(p, lane, s != HT_SEGMENT_LM_ROWS && p->tokens > 1, sum); /* the head's is one token */
}

/* May the lane compute so many units? With several tokens a lane of static graphs has shares that were built, or none. */
static bool may_take(const ht_problem *p, size_t lane, ht_segment s, size_t units, size_t w) {
    const ht_solver_lane *l = &p->lanes[lane];
    const size_t n = s == HT_SEGMENT_HEADS || s == HT_SEGMENT_QKV_ROWS ? p->tokens : w;
    if (!l->built_only || n <= 1 || s == HT_SEGMENT_ATTENTION || s == HT_SEGMENT_LM_ROWS || units == 0)
        return true;
    return units == l->built[s][0] || units == l->built[s][1] || l->may_build;
}

static double best_units(const ht_problem *p, const size_t *lanes, size_t n, ht_segment s, size_t w, size_t i,
                         size_t left) {
    double best = INFINITY;
    for (size_t u = i + 1 == n ? left : 0; u <= left; u++)
        if (may_take(p, lanes[i], s, u, w))
            best = fmin(best, fmax(segment_lane(p, lanes[i], s, u, w),
                                   i + 1 == n ? 0 : best_units(p, lanes, n, s, w, i + 1, left - u)));
    return best;
}

/* Tokens [begin, end) of an attention block; only those behind tokens - w go on behind ROPE. */
static double attention_lane(const ht_problem *p, size_t lane, size_t w, size_t begin, size_t end) {
    const size_t from = p->tokens - w, first = from < begin ? begin : from < end ? from : end;
    ht_estimate sum = {shared_norm(p, lane, p->tokens), join(p, lane)};
    if (end > begin) {
        sum.wait += join(p, lane) + p->join;
        add(&sum, whole(p, lane, HT_CLASS_QKV, end - begin));
        add(&sum, whole(p, lane, HT_CLASS_ROPE, end - begin));
        add(&sum, op(p, lane, HT_CLASS_ATTENTION, end - first, 1, p->position + first));
        add(&sum, whole(p, lane, HT_CLASS_OUT, end - first));
    }
    return beside(p, lane, HT_REGIME_SHARES, sum);
}

static double best_attention(const ht_problem *p, const size_t *lanes, size_t n, size_t w, size_t i, size_t begin) {
    double best = INFINITY;
    for (size_t end = i + 1 == n ? p->tokens : begin; end <= p->tokens; end++)
        best = fmin(best, fmax(attention_lane(p, lanes[i], w, begin, end),
                               i + 1 == n ? 0 : best_attention(p, lanes, n, w, i + 1, end)));
    return best;
}

static double exchanged(const ht_problem *p, size_t n, ht_segment s, size_t w) {
    double floats = (double)(w * p->embedding);
    if (s == HT_SEGMENT_HEADS || s == HT_SEGMENT_ATTENTION_OUT || s == HT_SEGMENT_FEATURES)
        floats *= (double)n;
    else if (s == HT_SEGMENT_QKV_ROWS)
        floats = (double)(p->tokens * p->qkv);
    else if (s == HT_SEGMENT_ATTENTION)
        floats = (double)(w * p->attention);
    else if (s == HT_SEGMENT_GATE_UP)
        floats = (double)(w * p->feed_forward);
    else if (s == HT_SEGMENT_LM_ROWS)
        floats = 0;
    return p->exchange * 4 * floats;
}

static double best_segment(const ht_problem *p, const size_t *lanes, size_t n, ht_segment s, size_t w) {
    if (!(p->cuts & spans[s].cuts))
        return INFINITY;
    if (s == HT_SEGMENT_TOKENS)
        return p->tokens < 2 ? INFINITY : p->join + exchanged(p, n, s, w) + best_attention(p, lanes, n, w, 0, 0);
    return p->of[s] ? p->join + exchanged(p, n, s, w) + best_units(p, lanes, n, s, w, 0, p->of[s]) : INFINITY;
}

static double best_path(const double *segments, size_t from) {
    double best = from == 9 ? 0 : INFINITY;
    for (int s = 0; s < HT_SEGMENT_LM_ROWS; s++)
        if (spans[s].from == from)
            best = fmin(best, segments[s] + best_path(segments, spans[s].to));
    return best;
}

static double best_shares(const ht_problem *p, const size_t *lanes, size_t n) {
    double segments[2][HT_SEGMENTS], embed = 0;
    for (int s = 0; s < HT_SEGMENTS; s++)
        for (int last = 0; last < 2; last++)
            segments[last][s] = best_segment(p, lanes, n, (ht_segment)s, last ? p->wanted : p->tokens);
    for (size_t i = 0; i < n; i++)
        embed = fmax(embed, beside(p, lanes[i], HT_REGIME_SHARES, whole(p, lanes[i], HT_CLASS_EMBED, p->tokens)));
    return embed + (p->layers - 1) * best_path(segments[0], 0) + best_path(segments[1], 0) +
           best_segment(p, lanes, n, HT_SEGMENT_LM_ROWS, 1) +
           both(whole(p, lanes[0], HT_CLASS_ARGMAX, 1)) * drift(p, lanes[0], HT_REGIME_SHARES);
}

static ht_estimate matrix(const ht_problem *p, size_t lane, ht_class c, size_t n, double share) {
    return n == 0 || share <= 0 ? (ht_estimate){0}
           : c == HT_CLASS_FFN  ? ffn(p, lane, n, share)
                                : op(p, lane, c, n, share, 0);
}

/* While the other lane computes, too. */
static double matrix_beside(const ht_problem *p, size_t lane, ht_class c, size_t n, double share) {
    if (c != HT_CLASS_FFN || n == 0 || share <= 0)
        return beside(p, lane, HT_REGIME_OWNER, matrix(p, lane, c, n, share));
    return fmin(beside(p, lane, HT_REGIME_OWNER, ffn_way(p, lane, n, share, 0)),
                beside(p, lane, HT_REGIME_OWNER, ffn_way(p, lane, n, share, 1)));
}

/* A matrix of n tokens of which the other lane computes units of the first tokens. */
static double cut_matrix(const ht_problem *p, size_t owner, size_t other, ht_class c, size_t n, size_t tokens,
                         double share) {
    const double own = matrix_beside(p, owner, c, tokens, 1 - share) + matrix_beside(p, owner, c, n - tokens, 1);
    const bool all = tokens == n && share == 1; /* nothing is computed beside it */
    const size_t widths = c == HT_CLASS_QKV       ? p->embedding + p->qkv
                          : c == HT_CLASS_GATE_UP ? p->embedding + 2 * p->feed_forward
                          : c == HT_CLASS_DOWN    ? p->feed_forward + p->embedding
                                                  : 2 * p->embedding;
    return 2 * p->join + join(p, owner) * drift(p, owner, HT_REGIME_OWNER) +
           p->exchange * 4 * (double)(tokens * widths) +
           fmax(own, drift(p, other, HT_REGIME_OWNER) * join(p, other) +
                         (all ? drift(p, other, HT_REGIME_OWNER) * both(matrix(p, other, c, tokens, share))
                              : matrix_beside(p, other, c, tokens, share)));
}

static ht_segment segment_of(ht_class c) {
    return c == HT_CLASS_QKV       ? HT_SEGMENT_QKV_ROWS
           : c == HT_CLASS_OUT     ? HT_SEGMENT_OUT_ROWS
           : c == HT_CLASS_GATE_UP ? HT_SEGMENT_GATE_UP
           : c == HT_CLASS_DOWN    ? HT_SEGMENT_DOWN_ROWS
                                   : HT_SEGMENT_FEATURES;
}

static bool cut_allowed(const ht_problem *p, size_t owner, size_t other, ht_class c, size_t n, size_t tokens,
                        size_t units, bool sums) {
    const ht_solver_lane *l = &p->lanes[other];
    const size_t of = p->of[segment_of(c)];
    const bool all_tokens = tokens == n, all_units = units == of;
    bool length = !l->lengths || all_tokens;
    for (size_t i = 0; i < l->n_lengths; i++)
        length |= (size_t)l->lengths[i] == tokens;
    if (!sums) /* of what the head goes on from */
        return false;
    if (all_units && all_tokens)
        return p->cuts & HT_CUT_LAYER;
    if (!all_tokens && (tokens < 2 || !length)) /* a single token is another plan's */
        return false;
    if (all_units)
        return p->cuts & HT_CUT_SEQUENCE;
    const size_t *built = l->built[segment_of(c)];
    if ((n > 1 && p->lanes[owner].built_only) ||
        (n > 1 && l->built_only && units != built[0] && units != built[1] && !l->may_build))
        return false;
    return p->cuts & (!all_tokens ? HT_CUT_HYBRID : c == HT_CLASS_FFN ? HT_CUT_FEATURES : HT_CUT_ROWS);
}

/* One matrix, cut or not; *cut: whether a cut is best. */
static double best_matrix(const ht_problem *p, size_t owner, size_t other, ht_class c, size_t n, bool sums, bool *cut) {
    const size_t of = p->of[segment_of(c)];
    double best = both(matrix(p, owner, c, n, 1)) * drift(p, owner, HT_REGIME_OWNER);
    for (size_t tokens = 1; tokens <= n; tokens++)
        for (size_t units = 1; units <= of; units++) {
            if (!cut_allowed(p, owner, other, c, n, tokens, units, sums))
                continue;
            const double s = cut_matrix(p, owner, other, c, n, tokens, (double)units / (double)of);
            *cut |= s < best;
            best = fmin(best, s);
        }
    return best;
}

static double best_owner(const ht_problem *p, size_t owner, size_t other) {
    const double pace = drift(p, owner, HT_REGIME_OWNER); /* of what no other computes beside it */
    double sum = (both(whole(p, owner, HT_CLASS_EMBED, p->tokens)) + head(p, owner)) * pace;
    bool cut = false;
    for (int layer = 0; layer < p->layers; layer++) {
        const bool last = layer + 1 == p->layers;
        const size_t n = p->tokens, w = last ? p->wanted : n;
        ht_estimate rest = whole(p, owner, HT_CLASS_NORM, n);
        add(&rest, whole(p, owner, HT_CLASS_ROPE, n));
        add(&rest, whole(p, owner, HT_CLASS_NORM, w));
        add(&rest, op(p, owner, HT_CLASS_ATTENTION, w, 1, p->position + n - w));
        sum += pace * both(rest);
        bool block_cut = false, parts_cut = false;
        const double block =
            best_matrix(p, owner, other, HT_CLASS_FFN, w, !last, &block_cut); /* the head adds no sums */
        const double parts = best_matrix(p, owner, other, HT_CLASS_GATE_UP, w, true, &parts_cut) +
                             pace * both(whole(p, owner, HT_CLASS_GLU, w)) +
                             best_matrix(p, owner, other, HT_CLASS_DOWN, w, !last, &parts_cut);
        sum += best_matrix(p, owner, other, HT_CLASS_QKV, n, true, &cut) +
               best_matrix(p, owner, other, HT_CLASS_OUT, w, true, &cut) + fmin(block, parts);
        cut |= parts < block ? parts_cut : block_cut;
    }
    return cut ? sum : INFINITY;
}

/* Seconds of the best choice, or infinite; *several: more than one lane takes part. */
static double brute_force(const ht_problem *p, bool *several) {
    double alone = INFINITY, shared = INFINITY;
    for (unsigned set = 1; set < 1u << p->n_lanes; set++) {
        size_t lanes[HT_MAX_LANES], n = 0;
        ht_cores cores = {{0}};
        bool valid = true;
        for (size_t l = 0; l < p->n_lanes; l++)
            if (set >> l & 1) {
                valid &= !p->lanes[l].lost && !ht_cores_meet(&p->lanes[l].cores, &cores);
                ht_cores_join(&cores, &p->lanes[l].cores);
                lanes[n++] = l;
            }
        if (valid && n == 1)
            alone = fmin(alone, solo(p, lanes[0]));
        if (!valid || n < 2)
            continue;
        set_size = n;
        set_lanes = lanes;
        if (p->cuts & HT_CUT_CAUSAL && p->tokens >= 2 * n && (p->wanted == 1 || p->tokens_divide))
            shared = fmin(shared, best_tokens(p, lanes, n, 0, 0));
        shared = fmin(shared, best_shares(p, lanes, n));
        for (size_t owner = 0; owner < 2 && n == 2; owner++)
            shared = fmin(shared, best_owner(p, lanes[owner], lanes[1 - owner]));
    }
    *several = shared < INFINITY && (p->forced || shared < alone);
    return *several ? shared : alone;
}

/* ---- the tests --------------------------------------------------------------------------------------------------------------- */

/* What the choice itself says, computed by the formulas above: its parts are whole, and take what it predicts. */
static double evaluate(const ht_problem *p, const ht_choice *c) {
    double sum = 0;
    set_size = c->n_lanes;
    set_lanes = c->lanes;
    if (c->n_lanes == 1)
        return solo(p, c->lanes[0]);
    if (c->regime == HT_REGIME_TOKENS) {
        size_t begin = 0;
        for (size_t i = 0; i < c->n_lanes; begin += c->tokens[i++]) {
            assert_true(c->tokens[i] > 0);
            sum = fmax(sum, tokens_lane(p, c->lanes[i], begin, begin + c->tokens[i]));
        }
        assert_int_equal(begin, p->tokens);
        return sum;
    }
    assert_int_equal(c->regime, HT_REGIME_SHARES);
    for (size_t i = 0; i < c->n_lanes; i++)
        sum = fmax(sum, beside(p, c->lanes[i], HT_REGIME_SHARES, whole(p, c->lanes[i], HT_CLASS_EMBED, p->tokens)));
    for (int which = 0; which < 2; which++) {
        size_t at = 0;
        for (size_t g = 0; g <= c->n_segments[which]; g++) {
            const bool is_head = g == c->n_segments[which];
            const ht_segment s = is_head ? HT_SEGMENT_LM_ROWS : c->segments[which][g];
            const size_t w = which ? p->wanted : p->tokens;
            double slowest = 0;
            size_t units = 0;
            assert_int_equal(spans[s].from, at);
            at = spans[s].to;
            for (size_t i = 0; i < c->n_lanes; units += c->units[which][s][i++]) {
                const size_t own = c->units[which][s][i];
                assert_true(s == HT_SEGMENT_TOKENS || may_take(p, c->lanes[i], s, own, is_head ? 1 : w));
                slowest = fmax(slowest, s == HT_SEGMENT_TOKENS ? attention_lane(p, c->lanes[i], w, units, units + own)
                                                               : segment_lane(p, c->lanes[i], s, own, w));
            }
            assert_int_equal(units, s == HT_SEGMENT_TOKENS ? p->tokens : p->of[s]);
            sum += (which ? 1 : is_head ? 0 : p->layers - 1) * (p->join + exchanged(p, c->n_lanes, s, w) + slowest);
        }
        assert_int_equal(at, 9);
    }
    return sum + both(whole(p, c->lanes[0], HT_CLASS_ARGMAX, 1)) * drift(p, c->lanes[0], HT_REGIME_SHARES);
}

static void check_lanes(const ht_problem *p, const ht_choice *c) {
    ht_cores cores = {{0}};
    for (size_t i = 0; i < c->n_lanes; i++) {
        const ht_solver_lane *l = &p->lanes[c->lanes[i]];
        assert_false(l->lost);
        assert_false(ht_cores_meet(&l->cores, &cores));
        ht_cores_join(&cores, &l->cores);
    }
    for (size_t l = 0; l < p->n_lanes; l++)
        assert_true(p->lanes[l].lost          ? c->alone[l] == INFINITY
                    : c->alone[l] == INFINITY ? solo(p, l) == INFINITY
                                              : fabs(c->alone[l] / solo(p, l) - 1) < 1e-9);
}

static void compare(size_t n_lanes, unsigned cases) {
    size_t won[4] = {0};
    const unsigned first = seed_of(1);
    for (unsigned seed = first; seed - first < cases; seed++) {
        made m;
        ht_choice c;
        bool several;
        random_state = seed * 2654435761u;
        make_problem(&m, n_lanes);
        const double best = brute_force(&m.p, &several);
        ht_solve(&m.p, &c);
        check_lanes(&m.p, &c);
        if (best == INFINITY) {
            assert_true(c.seconds == INFINITY);
            continue;
        }
        if (c.regime != HT_REGIME_OWNER && fabs(evaluate(&m.p, &c) / c.seconds - 1) > 1e-9)
            fail_msg("seed %u, %s: says %.9g us, which takes %.9g us", seed, ht_regime_name(c.regime), c.seconds * 1e6,
                     evaluate(&m.p, &c) * 1e6);
        if (c.seconds < best * (1 - 1e-9) || c.seconds > best * (1 + TOLERANCE) || (c.n_lanes > 1) != several)
            fail_msg(
                "seed %u: %s on %zu lanes in %.9g us; by brute force %s in %.9g us (%zu tokens, %zu wanted, cuts %u%s)",
                seed, ht_regime_name(c.regime), c.n_lanes, c.seconds * 1e6, several ? "several" : "one", best * 1e6,
                m.p.tokens, m.p.wanted, m.p.cuts, m.p.forced ? ", forced" : "");
        won[c.regime]++;
    }
    for (int r = 0; r < 4; r++) /* or the cases show nothing */
        if (won[r] < cases / 100)
            fail_msg("%s won %zu times of %u only", ht_regime_name((ht_regime)r), won[r], cases);
}

static void test_two_lanes_equal_brute_force(void **state) {
    compare(2, 6000);
}
static void test_three_lanes_equal_brute_force(void **state) {
    compare(3, 3000);
}

static void set_drift(ht_solver_lane *lane, double drift) {
    for (int r = 0; r < HT_REGIMES; r++)
        lane->drift[r] = drift;
}

/* A plain problem: equal lanes of the same times, all cuts. */
static void plain_problem(made *m, size_t n_lanes) {
    random_state = 5;
    make_problem(m, n_lanes);
    const ht_lane_cost cost = make_cost(false);
    m->p.cuts = HT_CUT_ALL;
    m->p.tokens = m->p.wanted = 8;
    m->p.tokens_divide = true;
    m->p.forced = false;
    m->p.join = 0;
    for (int s = 0; s < HT_SEGMENTS; s++)
        m->p.of[s] = 6;
    for (size_t l = 0; l < n_lanes; l++) {
        m->costs[l] = cost;
        m->costs[l].join = 0;
        memset(m->costs[l].together, 0, sizeof m->costs[l].together);
        memset(m->costs[l].norms, 0, sizeof m->costs[l].norms);
        for (int c = 0; c < HT_CLASSES; c++)
            m->costs[l].classes[c] = (ht_class_cost){.points = {{1, 1e-6}, {8, 8e-6}}, .n_points = 2};
        m->lanes[l] = (ht_solver_lane){.cost = &m->costs[l], .cores = {{1u << l}}};
        set_drift(&m->lanes[l], 1);
    }
}

static void test_no_cuts_is_one_lane(void **state) {
    made m;
    ht_choice c;
    plain_problem(&m, 2);
    m.p.cuts = HT_CUT_NONE;
    m.p.forced = true;
    set_drift(&m.lanes[0], 2);
    ht_solve(&m.p, &c);
    assert_int_equal(c.n_lanes, 1);
    assert_int_equal(c.lanes[0], 1);
    assert_int_equal(c.regime, HT_REGIME_SOLO);
}

static void test_forced_shares_where_one_is_quicker(void **state) {
    made m;
    ht_choice c;
    plain_problem(&m, 2);
    set_drift(&m.lanes[1], 50); /* the first lane in its time could do all several times over */
    for (unsigned cut = HT_CUT_ROWS; cut <= HT_CUT_CAUSAL; cut <<= 1) {
        m.p.cuts = cut == HT_CUT_ROWS || cut == HT_CUT_CAUSAL ? cut : HT_CUT_HEADS | HT_CUT_FEATURES;
        m.p.forced = false;
        ht_solve(&m.p, &c);
        assert_int_equal(c.n_lanes, 1);
        m.p.forced = true;
        ht_solve(&m.p, &c);
        assert_int_equal(c.n_lanes, 2);
    }
}

static void test_shared_cores_and_lost_lanes(void **state) {
    made m;
    ht_choice c;
    plain_problem(&m, 3);
    ht_solve(&m.p, &c);
    assert_int_equal(c.n_lanes, 3);
    m.lanes[1].cores = m.lanes[0].cores; /* never together */
    ht_solve(&m.p, &c);
    assert_int_equal(c.n_lanes, 2);
    assert_int_equal(c.lanes[1], 2);
    m.lanes[2].lost = true;
    ht_solve(&m.p, &c);
    assert_int_equal(c.n_lanes, 1);
    assert_true(c.alone[2] == INFINITY);
    m.lanes[0].lost = m.lanes[1].lost = true;
    ht_solve(&m.p, &c);
    assert_int_equal(c.n_lanes, 0);
}

/* Static graphs: what was built, whatever it is, and no share at all where none may be built. */
static void test_fixed_lanes_use_built_shares(void **state) {
    made m;
    ht_choice c;
    plain_problem(&m, 2);
    m.p.cuts = HT_CUT_HEADS | HT_CUT_FEATURES;
    m.p.wanted = 1;
    m.lanes[0].built_only = true;
    m.lanes[0].built[HT_SEGMENT_HEADS][0] = 2;
    m.lanes[0].built[HT_SEGMENT_FEATURES][0] = 4;
    ht_solve(&m.p, &c);
    assert_int_equal(c.regime, HT_REGIME_SHARES);
    assert_int_equal(c.units[0][HT_SEGMENT_HEADS][0], 2);
    assert_int_equal(c.units[0][HT_SEGMENT_FEATURES][0], 4);
    assert_int_equal(c.units[0][HT_SEGMENT_FEATURES][1], 2);
    assert_int_equal(c.units[1][HT_SEGMENT_FEATURES][0], 3); /* one token: any share */
    m.lanes[0].built[HT_SEGMENT_HEADS][0] = m.lanes[0].built[HT_SEGMENT_FEATURES][0] = 0;
    m.lanes[0].may_build = true;
    ht_solve(&m.p, &c);
    assert_int_equal(c.units[0][HT_SEGMENT_HEADS][0], 3);
    assert_int_equal(c.units[0][HT_SEGMENT_FEATURES][0], 3);
}

/* A launch takes 1, of any share. */
static double seconds_of(const ht_cost_point *points, size_t n_points, bool stepped, size_t n, double share) {
    ht_lane_cost cost = {.launch = 1};
    memcpy(cost.classes[HT_CLASS_QKV].points, points, n_points * sizeof *points);
    cost.classes[HT_CLASS_QKV].n_points = n_points;
    cost.classes[HT_CLASS_QKV].stepped = stepped;
    return ht_class_seconds(&cost, HT_CLASS_QKV, n, share, 0);
}

static void test_class_seconds(void **state) {
    static const ht_cost_point p[] = {{1, 3}, {8, 10}, {32, 34}, {64, 90}};
    static const struct {
        bool stepped;
        size_t n;
        double share, want;
    } rows[] = {{false, 0, 1, 0},       {false, 1, 1, 3},   {false, 2, 1, 4}, /* linear */
                {false, 20, 1, 22},     {false, 48, 1, 62}, {false, 64, 1, 90},
                {false, 128, 1, 180},                     /* beyond the last: as quick for each token */
                {false, 20, 0.5, 11.5},                   /* 1 + (22 - 1) / 2 */
                {true, 1, 1, 3},        {true, 2, 1, 10}, /* the next length; one token's is another's */
                {true, 9, 1, 20},                         /* 8 and 8 */
                {true, 16, 1, 20},      {true, 17, 1, 30},  {true, 25, 1, 34},
                {true, 33, 1, 44}, /* 32 and 8 */
                {true, 60, 1, 68}, /* 32 and 32, for 64 takes longer */
                {true, 65, 1, 93}, /* 64 and 1 */
                {true, 192, 1, 270}};
    for (size_t r = 0; r < HT_COUNT(rows); r++) {
        const double got = seconds_of(p, HT_COUNT(p), rows[r].stepped, rows[r].n, rows[r].share);
        if (fabs(got - rows[r].want) > 1e-9)
            fail_msg("%zu tokens%s: %g, not %g", rows[r].n, rows[r].stepped ? ", stepped" : "", got, rows[r].want);
    }
    static const ht_cost_point small[] = {{1, 0.5}};
    assert_true(seconds_of(small, 1, false, 1, 0.25) == 0.5); /* no more than a launch: a share takes as long */
    assert_true(seconds_of(small, 0, false, 1, 1) == INFINITY);
    assert_true(seconds_of(p + 1, 3, true, 1, 1) == INFINITY); /* graphs of 8 tokens and more: one takes other steps */
    assert_true(seconds_of(p + 1, 3, true, 65, 1) == 100);     /* 64 and 8 */
    ht_lane_cost tiles = {.granule = 4}; /* matrices in fours, but for few tokens; the rest by the token */
    tiles.classes[HT_CLASS_OUT] = tiles.classes[HT_CLASS_GLU] =
        (ht_class_cost){.points = {{1, 1}, {64, 64}}, .n_points = 2};
    assert_true(fabs(ht_class_seconds(&tiles, HT_CLASS_OUT, 33, 1, 0) - 36) < 1e-9);
    assert_true(fabs(ht_class_seconds(&tiles, HT_CLASS_OUT, 36, 1, 0) - 36) < 1e-9);
    assert_true(fabs(ht_class_seconds(&tiles, HT_CLASS_OUT, 7, 1, 0) - 7) < 1e-9);
    assert_true(fabs(ht_class_seconds(&tiles, HT_CLASS_GLU, 33, 1, 0) - 33) < 1e-9);
    ht_lane_cost attention = {.per_key = 0.5};
    attention.classes[HT_CLASS_ATTENTION] = (ht_class_cost){.points = {{1, 2}}, .n_points = 1};
    assert_true(fabs(ht_class_seconds(&attention, HT_CLASS_ATTENTION, 3, 1, 10) - (6 + 0.5 * 3 * 10)) < 1e-9);
    assert_true(fabs(ht_class_seconds(&attention, HT_CLASS_ATTENTION, 3, 0.5, 10) - 10.5) < 1e-9);
}

/* More tokens or more units never cost less: what bisection rests on. */
static void test_class_seconds_never_fall(void **state) {
    for (unsigned seed = 1; seed <= 300; seed++) {
        random_state = seed * 2654435761u;
        const ht_lane_cost cost = make_cost(seed % 2);
        for (size_t n = 1; n < 40; n++)
            assert_true(ht_class_seconds(&cost, HT_CLASS_QKV, n, 1, 0) <=
                        ht_class_seconds(&cost, HT_CLASS_QKV, n + 1, 1, 0));
        for (int u = 1; u < 8; u++)
            assert_true(ht_class_seconds(&cost, HT_CLASS_QKV, 5, u / 8.0, 0) <=
                        ht_class_seconds(&cost, HT_CLASS_QKV, 5, (u + 1) / 8.0, 0));
    }
}

static void test_busy_agrees_with_prediction(void **state) {
    unsigned seen = 0;
    for (unsigned seed = 1; seed <= 4000; seed++) {
        made m;
        ht_choice c;
        random_state = seed * 2654435761u;
        make_problem(&m, 3);
        m.p.cuts = HT_CUT_CAUSAL;
        ht_solve(&m.p, &c);
        if (c.regime != HT_REGIME_TOKENS || c.seconds == INFINITY)
            continue;
        double slowest = 0;
        set_size = c.n_lanes;
        set_lanes = c.lanes;
        for (size_t i = 0; i < c.n_lanes; i++) {
            const double after =
                i + 1 == c.n_lanes ? head(&m.p, c.lanes[i]) * drift(&m.p, c.lanes[i], HT_REGIME_TOKENS) : 0;
            slowest = fmax(slowest, ht_choice_estimate(&m.p, &c, i).busy + after);
        }
        assert_true(fabs(slowest / c.seconds - 1) < 1e-9);
        seen++;
    }
    assert_in_range(seen, 100, 4000);
}

/* What a lane is not busy in a pass, it waits; nobody is busy for longer than the pass takes. */
static void test_busy_and_wait_are_the_pass(void **state) {
    unsigned seen[HT_REGIMES] = {0};
    for (unsigned seed = 1; seed <= 4000; seed++) {
        made m;
        ht_choice c;
        random_state = seed * 2654435761u;
        make_problem(&m, 3);
        ht_solve(&m.p, &c);
        if (c.n_lanes < 2 || c.seconds == INFINITY)
            continue;
        for (size_t i = 0; i < c.n_lanes; i++) {
            const ht_estimate e = ht_choice_estimate(&m.p, &c, i);
            assert_true(e.busy > 0 && e.wait >= 0);
            if (c.regime != HT_REGIME_TOKENS) /* there the head is behind the last lane only */
                assert_true(fabs((e.busy + e.wait + c.head) / c.seconds - 1) < 1e-9);
        }
        seen[c.regime]++;
    }
    assert_true(seen[HT_REGIME_TOKENS] > 100 && seen[HT_REGIME_SHARES] > 100 && seen[HT_REGIME_OWNER] > 100);
}

/* ---- how long it takes ------------------------------------------------------------------------------------------------------ */

typedef struct real_shape {
    const char *name;
    int layers;
    size_t embedding, qkv, feed_forward;
} real_shape;

/* Times of about what a phone's NPU, GPU and CPU take, in that order. */
static ht_lane_cost real_cost(const real_shape *shape, size_t lane) {
    static const struct {
        double flops, bandwidth, launch, join, per_key;
        size_t granule;
    } rows[LANES] = {
        {11.5e12, 42e9, 20e-6, 5e-6, 2e-9, 0}, {1e12, 43e9, 5e-6, 3e-6, 1e-9, 0}, {0.4e12, 42e9, 1e-6, 5e-6, 1e-9, 6}};
    static const size_t any[] = {1, 2, 8, 16, 32, 64, 128, 256, 512}, fixed[] = {1, 32, 64, 128, 256, 512, 1024};
    const double e = (double)shape->embedding, f = (double)shape->feed_forward;
    const double weights[HT_CLASSES] = {[HT_CLASS_QKV] = e * (double)shape->qkv,
                                        [HT_CLASS_OUT] = e * e,
                                        [HT_CLASS_GATE_UP] = 2 * e * f,
                                        [HT_CLASS_DOWN] = e * f,
                                        [HT_CLASS_FFN] = 3 * e * f,
                                        [HT_CLASS_LM_HEAD] = e * 128256};
    ht_lane_cost cost = {.granule = rows[lane].granule,
                         .per_key = rows[lane].per_key,
                         .launch = rows[lane].launch,
                         .join = rows[lane].join,
                         .together = {{1.3, 1.1}, {1.3, 1.1}, {1.3, 1.1}}};
    for (int c = 0; c < HT_CLASSES; c++) {
        ht_class_cost *class = &cost.classes[c];
        const bool once = c == HT_CLASS_LM_HEAD || c == HT_CLASS_ARGMAX;
        const size_t n = once ? 1 : lane ? HT_COUNT(any) : HT_COUNT(fixed);
        class->stepped = lane == 0 && weights[c] > 0 && !once;
        for (size_t i = 0; i < n && (lane == 0 || c != HT_CLASS_FFN); i++) {
            const size_t tokens = lane ? any[i] : fixed[i];
            const double moving = (weights[c] * 0.5625 + (double)tokens * e * 8) / rows[lane].bandwidth,
                         computing = 2 * weights[c] * (double)tokens / rows[lane].flops;
            class->points[class->n_points++] = (ht_cost_point){tokens, rows[lane].launch + fmax(moving, computing)};
        }
    }
    return cost;
}

static void real_problem(made *m, const real_shape *shape, size_t n_lanes, size_t tokens) {
    static const int lengths[] = {32, 64, 128, 256, 512, 1024};
    const size_t e = shape->embedding / 32, f = shape->feed_forward / 32;
    const size_t of[HT_SEGMENTS] = {8, 1, shape->qkv / 32, 8, 8, e, f, f, e, 501};
    *m = (made){.p = {.layers = shape->layers,
                      .lanes = m->lanes,
                      .n_lanes = n_lanes,
                      .cuts = HT_CUT_ALL,
                      .tokens = tokens,
                      .wanted = 1,
                      .join = 3e-6,
                      .exchange = 0.25e-9,
                      .embedding = shape->embedding,
                      .qkv = shape->qkv,
                      .attention = shape->embedding,
                      .feed_forward = shape->feed_forward,
                      .tokens_divide = true}};
    memcpy(m->p.of, of, sizeof of);
    for (size_t l = 0; l < n_lanes; l++) {
        m->costs[l] = real_cost(shape, l);
        m->lanes[l] = (ht_solver_lane){.cost = &m->costs[l], .cores = {{1u << l}}, .built_only = l == 0};
        set_drift(&m->lanes[l], 1);
    }
    m->lanes[0].lengths = lengths;
    m->lanes[0].n_lengths = HT_COUNT(lengths);
    for (int s = 0; s < HT_SEGMENTS; s++) /* as many graphs as there may be */
        for (size_t k = 0; k < HT_MAX_SHARES && of[s] > 1; k++)
            m->lanes[0].built[s][k] = of[s] * (k + 4) / 8;
}

static double thread_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* A new length of a prompt is solved while the request waits: within a millisecond, with three lanes, at the size of a real
 * model. Looking up times is most of it, and is counted, for clocks depend on what else the machine does. */
static void test_solving_takes_less_than_a_millisecond(void **state) {
    static const real_shape shapes[] = {{"8B", 32, 4096, 6144, 14336}, {"1B", 16, 2048, 3072, 8192}};
    static const size_t tokens[] = {1, 17, 40, 64, 100, 135, 256, 300, 333, 525, 777, 1000, 1024};
    enum { RUNS = 9 };
    for (size_t k = 0; k < HT_COUNT(shapes); k++)
        for (size_t n_lanes = 2; n_lanes <= LANES; n_lanes++) {
            double each[HT_COUNT(tokens)], least = 0;
            size_t lookups = 0;
            for (size_t i = 0; i < HT_COUNT(tokens); i++) {
                made m;
                ht_choice c;
                double times[RUNS];
                real_problem(&m, &shapes[k], n_lanes, tokens[i]);
                for (size_t run = 0; run < RUNS; run++) {
                    const double begin = thread_seconds();
                    ht_solve(&m.p, &c);
                    times[run] = thread_seconds() - begin;
                }
                ht_sort_doubles(times, RUNS);
                each[i] = times[RUNS / 2];
                least = fmax(least, times[0]);
                lookups = ht_max_size(lookups, c.lookups);
            }
            ht_sort_doubles(each, HT_COUNT(tokens));
            print_message("%s shape, %zu lanes: solved in %.0f us (median of %zu lengths), %.0f us at most; %zu "
                          "lookups at most\n",
                          shapes[k].name, n_lanes, each[HT_COUNT(tokens) / 2] * 1e6, HT_COUNT(tokens),
                          each[HT_COUNT(tokens) - 1] * 1e6, lookups);
            assert_in_range(lookups, 1, n_lanes == 2 ? 4000 : 12000);
            assert_true(!TIMED || least < 1e-3);
        }
}

/* ---- what the solver knows of a model ---------------------------------------------------------------------------------------- */

/* Every family's layers are the nine operators that it works with; a model whose are not is told from these. */
static void test_layers_fit(void **state) {
    static const char *const shapes[] = {"shape:llama-3.2-1b", "shape:internlm2-1.8b", "shape:qwen2.5-1.5b",
                                         "shape:qwen3-0.6b", "shape:gemma-3-1b"};
    ht_error error = {0};
    ht_model *model;
    for (size_t i = 0; i < HT_COUNT(shapes); i++) {
        check(ht_model_open(shapes[i], &model, &error), &error);
        assert_null(ht_plan_misfit(model));
        ht_model_close(model);
    }
    check(ht_model_open("shape:tiny", &model, &error), &error);
    ht_op *second_norm = &model->ops[1 + HT_AT_END + HT_AT_NORM2];
    const ht_op kept = *second_norm;
    *second_norm = model->ops[1 + HT_AT_GLU];
    assert_ptr_equal(ht_plan_misfit(model), second_norm);
    *second_norm = kept;
    model->n_ops--;
    assert_ptr_equal(ht_plan_misfit(model), &model->ops[model->n_ops - 1]);
    model->n_ops++;
    model->hparams.layers--;
    assert_ptr_equal(ht_plan_misfit(model), &model->ops[1 + HT_AT_END + HT_AT_QKV]);
    model->hparams.layers++;
    assert_null(ht_plan_misfit(model));
    ht_model_close(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layers_fit),
        cmocka_unit_test(test_two_lanes_equal_brute_force),
        cmocka_unit_test(test_three_lanes_equal_brute_force),
        cmocka_unit_test(test_no_cuts_is_one_lane),
        cmocka_unit_test(test_forced_shares_where_one_is_quicker),
        cmocka_unit_test(test_shared_cores_and_lost_lanes),
        cmocka_unit_test(test_fixed_lanes_use_built_shares),
        cmocka_unit_test(test_class_seconds),
        cmocka_unit_test(test_class_seconds_never_fall),
        cmocka_unit_test(test_busy_agrees_with_prediction),
        cmocka_unit_test(test_busy_and_wait_are_the_pass),
        cmocka_unit_test(test_solving_takes_less_than_a_millisecond),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
