/* The planner against brute force: every set of lanes, every way to cut a block along its axes, every division of units and
 * tokens, every matrix cut, by formulas written here from what plan.h says. Costs are made up. */
#include "unit/test.h"

#include "base/os.h"
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

/* ---- made-up models ---------------------------------------------------------------------------------------------------------- */

enum { MOST_UNITS = 128 };
enum { LANES = 3, MOST_TOKENS = 9, MOST_BLOCKS = 6, MOST_OPS = 1 + 5 * MOST_BLOCKS };

typedef struct made {
    ht_problem p;
    ht_solver_lane lanes[LANES];
    ht_windows windows[LANES];
    ht_lane_cost costs[LANES];
    ht_model model;
    ht_op ops[MOST_OPS];
    ht_block blocks[MOST_BLOCKS];
    ht_axis axes[24];
    ht_group groups[MOST_BLOCKS];
    ht_signature signatures[28];
    ht_op fused[28]; /* by signature */
    double scales[28];
    ht_block_load loads[MOST_BLOCKS];
    float before[MOST_BLOCKS][MOST_UNITS + 1];
} made;

/* Kinds of blocks: a letter for each operator, (n)orm, (m)atrix, (w)rites a cache, (r)eads it, else anything; where three of them
 * can be one; axes. */
typedef struct made_axis {
    ht_axis_kind kind;
    ht_axis_result result;
    size_t from, to, hand_from, hand_to;
    const char *maps; /* as in model/blocks.c */
    bool ordered, statistics;
} made_axis;
typedef struct made_kind {
    const char *ops;
    size_t fused, n_axes;
    made_axis axes[7];
} made_kind;

enum { ATTENTION, FEED_FORWARD, MIXER, EXPERTS, MIXTURE, BESIDE, HEAD };
static const made_kind kinds[] = {
    [ATTENTION] = {"nmwrm",
                   0,
                   7,
                   {{HT_AXIS_HEADS, HT_RESULT_SUMS, 0, 5, 0, 0, "esssc", false, false},
                    {HT_AXIS_TOKENS, HT_RESULT_ROWS, 0, 5, 0, 0, "errrr", true, false},
                    {HT_AXIS_ROWS, HT_RESULT_COLUMNS, 0, 2, 1, 2, "ew", false, false},
                    {HT_AXIS_HEADS, HT_RESULT_COLUMNS, 2, 4, 0, 0, "ss", false, false},
                    {HT_AXIS_HEADS, HT_RESULT_SUMS, 2, 5, 0, 0, "ssc", false, false},
                    {HT_AXIS_ROWS, HT_RESULT_COLUMNS, 4, 5, 4, 5, "w", false, false},
                    {HT_AXIS_QUERIES, HT_RESULT_SUMS, 0, 5, 0, 0, "egggc", false, false}}},
    [FEED_FORWARD] = {"nmxm",
                      1,
                      3,
                      {{HT_AXIS_FEATURES, HT_RESULT_SUMS, 0, 4, 1, 4, "essc", false, false},
                       {HT_AXIS_FEATURES, HT_RESULT_COLUMNS, 0, 3, 1, 2, "ess", false, false},
                       {HT_AXIS_ROWS, HT_RESULT_COLUMNS, 3, 4, 3, 4, "w", false, false}}},
    /* a recurrent one: what is small every lane computes, and its norm goes over all lanes' channels */
    [MIXER] = {"nmwxm",
               0,
               3,
               {{HT_AXIS_HEADS, HT_RESULT_SUMS, 0, 5, 0, 0, "esrsc", false, true},
                {HT_AXIS_ROWS, HT_RESULT_COLUMNS, 0, 2, 1, 2, "ew", false, false},
                {HT_AXIS_HEADS, HT_RESULT_SUMS, 2, 5, 0, 0, "rsc", false, true}}},
    /* a router on every lane that has a part */
    [EXPERTS] = {"nmmxm",
                 2,
                 2,
                 {{HT_AXIS_FEATURES, HT_RESULT_SUMS, 0, 5, 2, 5, "erssc", false, false},
                  {HT_AXIS_TOKENS, HT_RESULT_ROWS, 0, 5, 0, 0, "errrr", false, false}}},
    /* the same, with experts that are somebody's as a whole, and chosen unequally often */
    [MIXTURE] = {"nmxm",
                 0,
                 3,
                 {{HT_AXIS_EXPERTS, HT_RESULT_SUMS, 0, 4, 0, 0, "errt", false, false},
                  {HT_AXIS_FEATURES, HT_RESULT_SUMS, 0, 4, 0, 0, "errc", false, false},
                  {HT_AXIS_TOKENS, HT_RESULT_ROWS, 0, 4, 0, 0, "errr", false, false}}},
    /* beside another, whose norm it reads */
    [BESIDE] = {"mxm",
                0,
                3,
                {{HT_AXIS_FEATURES, HT_RESULT_SUMS, 0, 3, 0, 3, "ssc", false, false},
                 {HT_AXIS_FEATURES, HT_RESULT_COLUMNS, 0, 2, 0, 1, "ss", false, false},
                 {HT_AXIS_ROWS, HT_RESULT_COLUMNS, 2, 3, 2, 3, "w", false, false}}},
    [HEAD] = {"nmx", 0, 1, {{HT_AXIS_ROWS, HT_RESULT_COLUMNS, 0, 2, 0, 0, "ew", false, false}}},
};

static ht_map map_of(char letter) {
    static const char letters[] = "erscwtg";
    return (ht_map)(strchr(letters, letter) - letters);
}

/* So many units, in groups of so many, of whatever they are made of. */
static void set_groups(made *m, size_t a, size_t groups, size_t group) {
    const size_t grain = 1 + a % 2;
    m->p.of[a] = groups * group;
    m->axes[a].group = group * grain;
    m->axes[a].extent = groups * group * grain;
}

/* The first operator of a kind has its signature in `first`; norms all have signature 1. */
static void add_kind(made *m, int kind, int first[HEAD + 1], size_t first_axis[HEAD + 1]) {
    const made_kind *k = &kinds[kind];
    const size_t norms = k->ops[0] == 'n';
    first[kind] = (int)(m->model.n_signatures - norms); /* behind the norm */
    for (size_t i = norms; i < strlen(k->ops); i++) {
        ht_signature *s = &m->signatures[m->model.n_signatures];
        *s = (ht_signature){.name = "", .head = kind == HEAD};
        m->scales[m->model.n_signatures++] = k->ops[i] != 'm' ? 1 + 4 * (k->ops[i] == 'r')
                                             : kind == HEAD   ? 60
                                                              : 10 + pick(20);
    }
    if (k->fused) {
        m->fused[first[kind]] = (ht_op){.kind = HT_OP_FFN, .signature = (int)m->model.n_signatures};
        m->scales[m->model.n_signatures++] = 50;
    }
    first_axis[kind] = m->model.n_axes;
    for (size_t a = 0; a < k->n_axes; a++) {
        const made_axis *row = &k->axes[a];
        ht_axis *axis = &m->axes[m->model.n_axes++];
        *axis = (ht_axis){.kind = row->kind,
                          .result = row->result,
                          .from = row->from,
                          .to = row->to,
                          .ordered = row->ordered,
                          .hand_from = row->hand_from,
                          .hand_to = row->hand_to,
                          .handed = 64 + pick(64),
                          .leaves = kind == HEAD ? 0 : 32 + pick(64),
                          .statistics = row->statistics ? 1 + pick(20) : 0};
        for (size_t i = row->from; i < row->to; i++) {
            axis->maps[i] = map_of(row->maps[i - row->from]);
            if (k->ops[i] == 'w')
                axis->ready = i + 1;
            if (axis->maps[i] == HT_MAP_GROUPS && i < 3)
                axis->common[i] = uniform(0.05, 0.9);
        }
        axis->lent = 1 + pick(200);
    }
}

static void add_block(made *m, int kind, int first, size_t first_axis) {
    const made_kind *k = &kinds[kind];
    ht_model *model = &m->model;
    ht_block *block = &m->blocks[model->n_blocks++];
    *block = (ht_block){.first = model->n_ops,
                        .n = strlen(k->ops),
                        .first_axis = first_axis,
                        .n_axes = k->n_axes,
                        .signature = kind,
                        .fused = k->fused ? &m->fused[first] : NULL,
                        .fused_from = k->fused,
                        .fused_to = k->fused + 3};
    for (size_t i = 0; i < block->n; i++) {
        const bool norm = k->ops[i] == 'n';
        m->ops[model->n_ops++] =
            (ht_op){.kind = k->ops[i] == 'm' ? HT_OP_MATMUL : HT_OP_GLU, .signature = norm ? 1 : first + (int)i};
        if (k->ops[i] == 'w')
            model->tail = model->n_ops, model->n_caches++;
    }
}

/* Blocks of these kinds, the last of which is a head. */
static void make_model(made *m, const int *blocks, size_t n) {
    int first[HEAD + 1];
    size_t first_axis[HEAD + 1];
    m->model = (ht_model){.ops = m->ops,
                          .blocks = m->blocks,
                          .axes = m->axes,
                          .groups = m->groups,
                          .signatures = m->signatures,
                          .n_ops = 1,
                          .n_signatures = 2};
    m->ops[0] = (ht_op){.kind = HT_OP_EMBED};
    m->signatures[0] = m->signatures[1] = (ht_signature){.name = ""};
    m->scales[0] = m->scales[1] = 1;
    for (size_t k = 0; k < n; k++) {
        bool known = false;
        for (size_t i = 0; i < k; i++)
            known |= blocks[i] == blocks[k];
        if (!known)
            add_kind(m, blocks[k], first, first_axis);
        add_block(m, blocks[k], first[blocks[k]], first_axis[blocks[k]]);
    }
    for (size_t k = 0; k < n; k++) {
        const ht_block *block = &m->blocks[k];
        const size_t before = m->model.tail > block->first ? m->model.tail - block->first : 0,
                     tail = before < block->n ? before : block->n;
        size_t g = 0;
        while (g < m->model.n_groups && (m->blocks[m->groups[g].block].signature != block->signature ||
                                         m->groups[g].tail != tail || m->groups[g].last != (k + 2 == n)))
            g++;
        if (g == m->model.n_groups)
            m->groups[m->model.n_groups++] =
                (ht_group){.block = k, .tail = tail, .last = k + 2 == n, .head = block->signature == HEAD};
        m->groups[g].count++;
        m->blocks[k].group = (int)g;
    }
    m->p.model = &m->model;
}

/* Of mixtures, but for some: units that nobody likes, and some that nearly everybody does. */
static void make_loads(made *m) {
    for (size_t b = 0; b < m->model.n_blocks; b++) {
        ht_block_load *load = &m->loads[m->p.n_loads];
        const size_t of = m->p.of[m->blocks[b].first_axis];
        float *before = m->before[m->p.n_loads], sum = 0;
        if (m->blocks[b].signature != MIXTURE || of == 0 || pick(5) == 0)
            continue;
        before[0] = 0;
        for (size_t u = 0; u < of; u++)
            before[u + 1] = before[u] + (pick(4) ? (float)uniform(0.1, pick(4) ? 1 : 8) : 0);
        sum = before[of] > 0 ? before[of] : 1;
        for (size_t u = 0; u < of; u++)
            before[u] /= sum;
        before[of] = 1;
        *load = (ht_block_load){b, before};
        m->p.n_loads++;
    }
    m->p.loads = m->loads;
    if (m->p.n_loads && pick(4)) /* features divide evenly, and would be nearly always better */
        m->p.cuts = (m->p.cuts | HT_CUT_EXPERTS | HT_CUT_HEADS) & ~(unsigned)(HT_CUT_FEATURES | HT_CUT_CAUSAL);
}

/* ---- made-up problems ------------------------------------------------------------------------------------------------------- */

static const int static_lengths[] = {4, 8};

static ht_op_cost make_op(bool stepped, double scale) {
    static const size_t dynamic[] = {1, 2, 4, 8}, fixed[] = {1, 4, 8};
    const size_t n = stepped ? HT_COUNT(fixed) : HT_COUNT(dynamic);
    ht_op_cost c = {.n_points = n, .stepped = stepped};
    double s = scale * uniform(0.5, 2);
    for (size_t i = 0; i < n; i++, s += scale * uniform(0, 2))
        c.points[i] = (ht_cost_point){stepped ? fixed[i] : dynamic[i], s};
    return c;
}

/* Matrices cost more than the rest, joins sometimes much and sometimes next to nothing, so that every regime wins now and
 * then. */
static ht_lane_cost make_cost(const made *m, bool stepped) {
    ht_lane_cost cost = {.launch = uniform(0, 1) * 1e-6, .join = uniform(0, pick(2) ? 0.5 : 10) * 1e-6};
    for (size_t l = 0; l < LANES; l++)
        for (int many = 0; many < 2; many++) {
            cost.together[l][many] = pick(3) ? uniform(1, pick(4) ? 1.5 : 20) : 0;
            cost.norms[l][many] = pick(2) ? uniform(1, 3) : 0;
        }
    const size_t granule = pick(3) ? 0 : 2;
    for (size_t s = 0; s < m->model.n_signatures; s++) {
        const bool one = m->scales[s] == 50, matrix = m->scales[s] >= 10;
        if (!one || pick(2)) /* not every device takes operators as one */
            cost.ops[s] = make_op(stepped && matrix, m->scales[s] * 1e-6);
        cost.ops[s].granule = matrix && !m->signatures[s].head ? granule : 0;
        cost.ops[s].start = stepped && matrix && pick(2) ? uniform(0, 20) * 1e-6 : 0;
        cost.ops[s].per_key = m->scales[s] == 5 ? uniform(0, 0.05) * 1e-6 : 0;
    }
    if (pick(12) == 0)
        cost.ops[pick((unsigned)m->model.n_signatures)].n_points = 0; /* a lane that lacks an operator */
    return cost;
}

/* Layers that are alike, or blocks of any kind in any order. */
static void make_blocks(made *m) {
    static const int two[] = {ATTENTION, FEED_FORWARD, ATTENTION, FEED_FORWARD, HEAD};
    static const int mixed[] = {ATTENTION, MIXTURE, ATTENTION, MIXTURE, MIXTURE, HEAD};
    int any[MOST_BLOCKS];
    size_t n = 2 + pick(3);
    if (pick(4) == 0) {
        make_model(m, mixed, HT_COUNT(mixed));
        return;
    }
    if (pick(2)) {
        make_model(m, two, HT_COUNT(two));
        return;
    }
    any[0] = pick(2) ? ATTENTION : MIXER;
    for (size_t i = 1; i < n; i++)
        any[i] = (int)pick(HEAD);
    any[n++] = HEAD;
    make_model(m, any, n);
}

static void make_problem(made *m, size_t n_lanes) {
    *m = (made){.p = {.lanes = m->lanes,
                      .n_lanes = n_lanes,
                      .cuts = pick(4) ? pick(HT_CUT_ALL + 1) : HT_CUT_ALL,
                      .tokens = 1 + pick(MOST_TOKENS),
                      .position = pick(2) * 100,
                      .forced = pick(3) == 0,
                      .join = uniform(0, 1) * 1e-6,
                      .exchange = pick(2) ? uniform(0, 1) * 1e-9 : 0,
                      .tokens_divide = pick(2)}};
    make_blocks(m);
    m->p.wanted = pick(2) ? m->p.tokens : 1;
    const size_t n_sequences = 1 + pick(4);
    m->p.apart = n_sequences > 1 && m->p.tokens % n_sequences == 0 ? m->p.tokens / n_sequences : 0;
    const size_t heads = 1 + pick(4), n_axes = m->model.n_axes;
    for (size_t a = 0; a < n_axes; a++)
        m->p.of[a] = m->axes[a].kind == HT_AXIS_HEADS ? heads : 3 + pick(4);
    for (size_t a = 0; a < n_axes; a++)
        if (m->axes[a].kind == HT_AXIS_QUERIES)
            set_groups(m, a, heads, 2 + pick(3));
    if (pick(6) == 0)
        m->p.of[pick((unsigned)n_axes)] = 0;
    for (size_t l = 0; l < n_lanes; l++) {
        const bool fixed = l == 0 && pick(3) == 0; /* static lengths come first */
        m->costs[l] = make_cost(m, fixed);
        m->lanes[l] = (ht_solver_lane){.cost = &m->costs[l],
                                       .cores = {{1u << l | (pick(6) == 0 ? 1u : 0)}},
                                       .lost = pick(10) == 0,
                                       .built_only = fixed,
                                       .may_build = pick(2),
                                       .lengths = fixed ? static_lengths : NULL,
                                       .n_lengths = fixed ? HT_COUNT(static_lengths) : 0};
        for (int r = 0; r < HT_REGIMES; r++)
            m->lanes[l].drift[r] = pick(2) ? 1 : uniform(0.5, 2);
        for (size_t a = 0; a < n_axes; a++) /* graphs are of key-value heads */
            m->p.unable[a] |= (unsigned)((m->axes[a].group && fixed) || pick(20) == 0) << l;
        for (size_t a = 0; a < n_axes && fixed && !m->lanes[l].may_build; a++)
            for (int k = 0; k < 2; k++) /* none, one or two */
                m->lanes[l].built[a][k] = m->p.of[a] > 1 && pick(2) && (k == 0 || m->lanes[l].built[a][0])
                                              ? 1 + pick((unsigned)m->p.of[a] - 1)
                                              : 0;
    }
    if (!m->lanes[0].built_only && pick(4)) /* lanes with graphs of shares have the same of every block */
        make_loads(m);
}

/* Lanes that hold some of the weights: of every axis a window of units, of tokens all or nothing. */
static void make_windows(made *m) {
    for (size_t l = 0; l < m->p.n_lanes; l++) {
        ht_windows *w = &m->windows[l];
        *w = (ht_windows){.partly = pick(3) > 0, .fed = pick(2)};
        m->lanes[l].holds = w;
        for (size_t a = 0; a < m->model.n_axes; a++) {
            const size_t of = m->axes[a].kind == HT_AXIS_TOKENS ? 1 : m->p.of[a];
            w->axes[a].first = pick(2) ? 0 : pick((unsigned)of + 1);
            w->axes[a].end = pick(2) ? of : w->axes[a].first + pick((unsigned)(of - w->axes[a].first) + 1);
            if (m->axes[a].kind == HT_AXIS_EXPERTS) /* every lane holds these whole */
                w->axes[a] = (ht_window){0, of};
        }
    }
}

/* ---- brute force ------------------------------------------------------------------------------------------------------------ */

/* Block by block and operator by operator: of groups, sides of the tail and sums over them nothing is known here. */

/* Of n tokens' whole operator, so much is waiting, whatever the share. */
static ht_estimate op(const ht_problem *p, size_t lane, int signature, size_t n, double share, size_t position) {
    if (n == 0 || share <= 0)
        return (ht_estimate){0};
    const double seconds = ht_op_seconds(p->lanes[lane].cost, signature, n, share, position),
                 wait = fmin(seconds, p->lanes[lane].cost->ops[signature].start);
    return (ht_estimate){seconds - wait, wait};
}
static ht_estimate whole(const ht_problem *p, size_t lane, int signature, size_t n) {
    return op(p, lane, signature, n, 1, 0);
}
static double both(ht_estimate e) {
    return e.busy + e.wait;
}
static void add(ht_estimate *sum, ht_estimate e) {
    sum->busy += e.busy;
    sum->wait += e.wait;
}
static int sign(const ht_problem *p, const ht_block *b, size_t i) {
    return p->model->ops[b->first + i].signature;
}

static bool is_one(const ht_block *b, size_t from, size_t to) {
    return b->fused && from <= b->fused_from && b->fused_to <= to;
}

/* Operators [from, to) of a block for the same tokens: with those as one that can be (way 0), or each by itself. */
static ht_estimate run_way(const ht_problem *p, size_t lane, const ht_block *b, size_t from, size_t to, size_t n,
                           double share, size_t position, int way) {
    const bool one = way == 0 && is_one(b, from, to);
    ht_estimate e = {0};
    for (size_t i = from; i < to; i++)
        if (!one || i < b->fused_from || i >= b->fused_to)
            add(&e, op(p, lane, sign(p, b, i), n, share, position));
    if (one)
        add(&e, op(p, lane, b->fused->signature, n, share, position));
    return e;
}
static ht_estimate run(const ht_problem *p, size_t lane, const ht_block *b, size_t from, size_t to, size_t n,
                       double share, size_t position) {
    const ht_estimate one = run_way(p, lane, b, from, to, n, share, position, 0),
                      apart = run_way(p, lane, b, from, to, n, share, position, 1);
    return both(one) < both(apart) ? one : apart;
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
/* What every lane begins at once: slower until the first one has ended. */
static double shared_norm(const ht_problem *p, size_t lane, int signature, size_t n) {
    double first = INFINITY;
    for (size_t i = 0; i < set_size; i++) {
        const size_t l = set_lanes[i];
        first = fmin(first, both(whole(p, l, signature, n)) * contention(p->lanes[l].cost->norms, l, n > 1));
    }
    const double lost = first * (1 - 1 / contention(p->lanes[lane].cost->norms, lane, n > 1));
    return both(whole(p, lane, signature, n)) + (first < INFINITY ? lost : 0);
}
static double join(const ht_problem *p, size_t lane) {
    return p->lanes[lane].cost->join;
}
static const ht_block *head_block(const ht_problem *p) {
    return &p->model->blocks[p->model->n_blocks - 1];
}
static double head(const ht_problem *p, size_t lane) {
    return both(run(p, lane, head_block(p), 0, 3, 1, 1, 0));
}

/* First of tokens [begin, end) that an operator computes: behind the tail only wanted ones. */
static size_t first_of(const ht_problem *p, const ht_block *b, size_t i, size_t begin, size_t end) {
    const size_t from = p->tokens - p->wanted;
    return b->first + i < p->model->tail || from < begin ? begin : from < end ? from : end;
}
static size_t tokens_at(const ht_problem *p, const ht_block *b, size_t i) {
    return b == head_block(p) ? 1 : p->tokens - first_of(p, b, i, 0, p->tokens);
}

/* Tokens [begin, end) of the pass on one lane, without the head. */
static ht_estimate body(const ht_problem *p, size_t lane, size_t begin, size_t end) {
    ht_estimate s = whole(p, lane, 0, end - begin);
    for (const ht_block *b = p->model->blocks; b < head_block(p); b++)
        for (size_t i = 0; i < b->n;) {
            const size_t first = first_of(p, b, i, begin, end),
                         to = b->fused && i == b->fused_from ? b->fused_to : i + 1;
            add(&s, run(p, lane, b, i, to, end - first, 1, p->position + first));
            i = to;
        }
    return s;
}

static double solo(const ht_problem *p, size_t lane) {
    return (both(body(p, lane, 0, p->tokens)) + head(p, lane) + join(p, lane)) * drift(p, lane, HT_REGIME_SOLO);
}

static double tokens_lane(const ht_problem *p, size_t lane, size_t begin, size_t end) {
    const double caches = (double)p->model->n_caches;
    ht_estimate e = body(p, lane, begin, end);
    e.wait += end == p->tokens ? head(p, lane) : caches * join(p, lane); /* the head: when the others are done */
    return beside(p, lane, HT_REGIME_TOKENS, e) + caches * p->join;
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

static double sequence_lane(const ht_problem *p, size_t lane, size_t begin, size_t end) {
    const size_t first = p->tokens - p->wanted, from = first < begin ? begin : first < end ? first : end;
    const size_t n = end - begin, wanted = end - from;
    ht_problem own = *p; /* a pass of its own, at the same position */
    own.tokens = n, own.wanted = wanted;
    return beside(p, lane, HT_REGIME_TOKENS, body(&own, lane, 0, n));
}

/* The same of whole sequences: no lane waits, and each computes a head. */
static double best_sequences(const ht_problem *p, const size_t *lanes, size_t n, size_t i, size_t begin) {
    if (i + 1 >= n)
        return sequence_lane(p, lanes[i], begin, p->tokens);
    double best = INFINITY;
    for (size_t end = begin + p->apart; end + (n - i - 1) * p->apart <= p->tokens; end += p->apart)
        best = fmin(best, fmax(sequence_lane(p, lanes[i], begin, end), best_sequences(p, lanes, n, i + 1, end)));
    return best;
}

static double slowest_head(const ht_problem *p, const size_t *lanes, size_t n) {
    double most = 0;
    for (size_t i = 0; i < n; i++)
        most = fmax(most, head(p, lanes[i]) * drift(p, lanes[i], HT_REGIME_TOKENS));
    return most;
}

/* An axis of a block. */
typedef struct along {
    const ht_block *b;
    const ht_axis *axis;
    size_t of;
} along;
static along along_of(const ht_problem *p, const ht_block *b, size_t a) {
    return (along){b, &p->model->axes[b->first_axis + a], p->of[b->first_axis + a]};
}
static size_t number_of(const ht_problem *p, const along *x) {
    return (size_t)(x->axis - p->model->axes);
}

static bool partly(const ht_problem *p, size_t lane) {
    return p->lanes[lane].holds && p->lanes[lane].holds->partly;
}
/* Has the lane the weights of units [begin, begin + n)? */
static bool has(const ht_problem *p, size_t lane, const along *x, size_t begin, size_t n) {
    for (size_t u = begin; u < begin + n && partly(p, lane); u++)
        if (u < p->lanes[lane].holds->axes[number_of(p, x)].first ||
            u >= p->lanes[lane].holds->axes[number_of(p, x)].end)
            return false;
    return true;
}
/* The first operators of a pass: another lane's, where this one has no table. */
static double embedding(const ht_problem *p, size_t lane) {
    return partly(p, lane) && p->lanes[lane].holds->fed
               ? p->join + join(p, lane)
               : beside(p, lane, HT_REGIME_SHARES, whole(p, lane, 0, p->tokens));
}

/* From a join until a lane computes, as with the first matrix. */
static double pause_of(const ht_problem *p, size_t lane) {
    return join(p, lane) + p->lanes[lane].cost->ops[sign(p, p->model->blocks, 1)].start;
}

/* A lane's part of an axis, which all of them begin at once: until the first of the others computes, it is as if alone. */
static double in_axis(const ht_problem *p, size_t lane, bool many, ht_estimate e) {
    double first = INFINITY;
    for (size_t i = 0; i < set_size; i++)
        if (set_lanes[i] != lane)
            first = fmin(first, pause_of(p, set_lanes[i]));
    const double alone = fmin(fmax(first - pause_of(p, lane), 0), e.busy);
    return drift(p, lane, HT_REGIME_SHARES) * (e.wait + alone + (e.busy - alone) * slower(p, lane, many));
}

/* One lane's part of it: so many units, which have this share. */
static double axis_lane_of(const ht_problem *p, size_t lane, const along *x, size_t units, double share) {
    const bool is_head = x->b == head_block(p);
    ht_estimate ways[2];
    for (int way = 0; way < 2; way++) {
        ht_estimate *sum = &ways[way];
        *sum = (ht_estimate){0, join(p, lane) * (x->axis->statistics ? 2 : 1)};
        for (size_t i = x->axis->from; i < x->axis->to;) {
            const size_t n = tokens_at(p, x->b, i), at = p->position + p->tokens - n;
            const bool one = x->b->fused && i == x->b->fused_from && is_one(x->b, x->axis->from, x->axis->to);
            const size_t to = one ? x->b->fused_to : i + 1;
            if (x->axis->maps[i] == HT_MAP_EVERY)
                sum->busy +=
                    is_head ? both(whole(p, lane, sign(p, x->b, i), n)) : shared_norm(p, lane, sign(p, x->b, i), n);
            else if (x->axis->maps[i] == HT_MAP_REPLICATED)
                add(sum, units ? op(p, lane, sign(p, x->b, i), n, 1, at) : (ht_estimate){0});
            else
                add(sum, run_way(p, lane, x->b, i, to, n, share, at, way));
            i = to;
        }
    }
    /* the head's is one token */
    return fmin(in_axis(p, lane, !is_head && p->tokens > 1, ways[0]),
                in_axis(p, lane, !is_head && p->tokens > 1, ways[1]));
}

static double axis_lane(const ht_problem *p, size_t lane, const along *x, size_t units) {
    return axis_lane_of(p, lane, x, units, (double)units / (double)x->of);
}

/* The number of a block's load; n_loads: it has none, or the axis is none of experts. */
static size_t load_of(const ht_problem *p, const along *x) {
    size_t k = 0;
    while (k < p->n_loads && (x->axis->kind != HT_AXIS_EXPERTS || &p->model->blocks[p->loads[k].block] != x->b))
        k++;
    return k;
}

/* Units [begin, begin + units) of an axis whose units have different shares in every block. */
static double loaded_lane(const ht_problem *p, size_t lane, const along *x, size_t load, size_t begin, size_t units) {
    const float *before = p->loads[load].before;
    const double share = (double)(before[begin + units] - before[begin]);
    /* a unit that nobody likes is a part all the same */
    return axis_lane_of(p, lane, x, units, units == x->of ? 1 : units ? fmax(share, 1e-12) : 0);
}

/* May the lane compute so many units? With several tokens a lane of static graphs has shares that were built, or none. */
static bool may_take(const ht_problem *p, size_t lane, const along *x, size_t units) {
    const ht_solver_lane *l = &p->lanes[lane];
    const size_t *built = l->built[number_of(p, x)];
    size_t i = x->axis->from;
    while (i < x->axis->to && p->model->ops[x->b->first + i].kind != HT_OP_MATMUL)
        i++;
    if (!l->built_only || i == x->axis->to || tokens_at(p, x->b, i) <= 1 || units == 0)
        return true;
    return units == built[0] || units == built[1] || l->may_build;
}

static double best_units(const ht_problem *p, const size_t *lanes, size_t n, const along *x, size_t i, size_t left) {
    double best = INFINITY;
    for (size_t u = i + 1 == n ? left : 0; u <= left; u++)
        if (may_take(p, lanes[i], x, u) && has(p, lanes[i], x, x->of - left, u))
            best = fmin(
                best, fmax(axis_lane(p, lanes[i], x, u), i + 1 == n ? 0 : best_units(p, lanes, n, x, i + 1, left - u)));
    return best;
}

static double best_loaded(const ht_problem *p, const size_t *lanes, size_t n, const along *x, size_t load, size_t i,
                          size_t begin) {
    double best = INFINITY;
    for (size_t u = i + 1 == n ? x->of - begin : 0; begin + u <= x->of; u++)
        best = fmin(best, fmax(loaded_lane(p, lanes[i], x, load, begin, u),
                               i + 1 == n ? 0 : best_loaded(p, lanes, n, x, load, i + 1, begin + u)));
    return best;
}

/* Tokens [begin, end) of a block that is cut by tokens. */
static double range_lane(const ht_problem *p, size_t lane, const along *x, size_t begin, size_t end) {
    ht_estimate sum = {0, join(p, lane)};
    if (end > begin && x->axis->ordered)
        sum.wait += join(p, lane) + p->join;
    for (size_t i = x->axis->from; i < x->axis->to; i++) {
        const size_t first = first_of(p, x->b, i, begin, end);
        if (x->axis->maps[i] == HT_MAP_EVERY)
            sum.busy += shared_norm(p, lane, sign(p, x->b, i), tokens_at(p, x->b, i));
        else
            add(&sum, op(p, lane, sign(p, x->b, i), end - first, 1, p->position + first));
    }
    return beside(p, lane, HT_REGIME_SHARES, sum);
}

static double best_range(const ht_problem *p, const size_t *lanes, size_t n, const along *x, size_t i, size_t begin) {
    double best = INFINITY;
    for (size_t end = i + 1 == n ? p->tokens : begin; end <= p->tokens; end++)
        best = fmin(best, fmax(range_lane(p, lanes[i], x, begin, end),
                               i + 1 == n ? 0 : best_range(p, lanes, n, x, i + 1, end)));
    return best;
}

/* Units [begin, begin + units) of query heads on a lane, which waits for keys and values that another has made of a
 * group at *ready, and tells of its own. *late: how long it waits. */
static double query_lane(const ht_problem *p, size_t lane, const along *x, size_t begin, size_t units, double *ready,
                         double *late) {
    const size_t group = x->axis->group * x->of / x->axis->extent, end = begin + units;
    const double tell = join(p, lane) * drift(p, lane, HT_REGIME_SHARES);
    size_t groups = 0;
    ht_estimate sum = {0}, first = {0};
    *late = 0;
    for (size_t u = begin; u < end; u++)
        groups += u % group == 0;
    for (size_t i = x->axis->from; i < x->axis->to; i++) {
        const size_t n = tokens_at(p, x->b, i);
        const double common = x->axis->common[i], share = (double)units / (double)x->of * (1 - common) +
                                                          (double)(groups * group) / (double)x->of * common;
        if (x->axis->maps[i] == HT_MAP_EVERY)
            sum.busy += shared_norm(p, lane, sign(p, x->b, i), n);
        else
            add(&sum, op(p, lane, sign(p, x->b, i), n, share, p->position + p->tokens - n));
        if (i < x->axis->ready)
            first = sum;
    }
    sum.wait += join(p, lane);
    double seconds = in_axis(p, lane, p->tokens > 1, sum), there = in_axis(p, lane, p->tokens > 1, first);
    if (units == 0 || units == x->of)
        return seconds;
    if (begin % group) { /* others have its first unit, and floats of every token go from there to here */
        const size_t floats = x->axis->lent * tokens_at(p, x->b, x->axis->ready - 1);
        *late = fmax(*ready + p->join + p->exchange * 4 * (double)floats - there, 0);
        seconds += tell;
    }
    if (end % group && end - end % group >= begin) { /* others have its last unit */
        *ready = there + tell;
        seconds += tell;
    }
    return seconds;
}

static double best_queries(const ht_problem *p, const size_t *lanes, size_t n, const along *x, size_t i, size_t begin,
                           double ready) {
    double best = INFINITY, late;
    for (size_t u = i + 1 == n ? x->of - begin : 0; begin + u <= x->of; u++) {
        if (!has(p, lanes[i], x, begin, u))
            continue;
        double next = ready, s = query_lane(p, lanes[i], x, begin, u, &next, &late) + late;
        if (i + 1 < n && s < best)
            s = fmax(s, best_queries(p, lanes, n, x, i + 1, begin + u, next));
        best = fmin(best, s);
    }
    return best;
}

static double exchanged(const ht_problem *p, size_t n, const along *x) {
    const size_t floats = x->axis->leaves * (x->axis->result == HT_RESULT_SUMS ? n : 1) + x->axis->statistics * n;
    return p->exchange * 4 * (double)(floats * tokens_at(p, x->b, x->axis->to - 1)) +
           p->join * (x->axis->statistics ? 2 : 1);
}

static bool is_allowed(const ht_problem *p, const along *x) {
    const bool columns = x->axis->result == HT_RESULT_COLUMNS;
    if (x->b == head_block(p))
        return p->cuts &
               (HT_CUT_ROWS | HT_CUT_HEADS | HT_CUT_FEATURES | HT_CUT_QUERIES | HT_CUT_EXPERTS | HT_CUT_CHANNELS);
    switch (x->axis->kind) {
    case HT_AXIS_TOKENS:
        return p->cuts & HT_CUT_CAUSAL;
    case HT_AXIS_HEADS:
        return p->cuts & (columns ? HT_CUT_HEADS | HT_CUT_ROWS : HT_CUT_HEADS);
    case HT_AXIS_QUERIES:
        return p->cuts & HT_CUT_QUERIES;
    case HT_AXIS_FEATURES:
        return p->cuts & (columns ? HT_CUT_ROWS : HT_CUT_FEATURES);
    case HT_AXIS_EXPERTS:
        return p->cuts & HT_CUT_EXPERTS;
    default:
        return p->cuts & HT_CUT_ROWS;
    }
}

static double best_axis(const ht_problem *p, const size_t *lanes, size_t n, const along *x) {
    bool able = is_allowed(p, x);
    for (size_t i = 0; i < n; i++)
        able &= !(p->unable[number_of(p, x)] >> lanes[i] & 1) &&
                (x->axis->kind != HT_AXIS_TOKENS || has(p, lanes[i], x, 0, 1));
    if (!able)
        return INFINITY;
    if (x->axis->kind == HT_AXIS_TOKENS)
        return p->tokens < 2 ? INFINITY : exchanged(p, n, x) + best_range(p, lanes, n, x, 0, 0);
    if (x->of && x->axis->kind == HT_AXIS_QUERIES)
        return exchanged(p, n, x) + best_queries(p, lanes, n, x, 0, 0, 0);
    if (x->of && load_of(p, x) < p->n_loads)
        return exchanged(p, n, x) + best_loaded(p, lanes, n, x, load_of(p, x), 0, 0);
    return x->of ? exchanged(p, n, x) + best_units(p, lanes, n, x, 0, x->of) : INFINITY;
}

/* Of a group's blocks, which are all cut along the same axes: the average. */
static double best_of_group(const ht_problem *p, const size_t *lanes, size_t n, const ht_block *block, size_t a) {
    double sum = 0;
    size_t count = 0;
    for (const ht_block *b = p->model->blocks; b <= head_block(p); b++) {
        const along x = along_of(p, b, a < b->n_axes ? a : 0);
        if (b->group == block->group)
            sum += best_axis(p, lanes, n, &x), count++;
    }
    return sum / (double)count;
}

static double best_path(const ht_problem *p, const ht_block *b, const double *axes, size_t from, size_t end) {
    double best = from == end ? 0 : INFINITY;
    for (size_t a = 0; a < b->n_axes; a++) {
        const along x = along_of(p, b, a);
        if (x.axis->from == from)
            best = fmin(best, axes[a] + best_path(p, b, axes, x.axis->to, end));
    }
    return best;
}

static double best_shares(const ht_problem *p, const size_t *lanes, size_t n) {
    double embed = 0, sum = 0;
    for (const ht_block *b = p->model->blocks; b <= head_block(p); b++) {
        double axes[HT_MAX_BLOCK_AXES];
        for (size_t a = 0; a < b->n_axes; a++)
            axes[a] = best_of_group(p, lanes, n, b, a);
        sum += best_path(p, b, axes, 0, b->n - (b == head_block(p)));
    }
    for (size_t i = 0; i < n; i++)
        embed = fmax(embed, embedding(p, lanes[i]));
    return embed + sum + both(whole(p, lanes[0], sign(p, head_block(p), 2), 1)) * drift(p, lanes[0], HT_REGIME_SHARES);
}

static ht_estimate handed(const ht_problem *p, size_t lane, const along *x, size_t n, double share) {
    return run(p, lane, x->b, x->axis->hand_from, x->axis->hand_to, n, share, 0);
}

/* While the other lane computes, too. */
static double handed_beside(const ht_problem *p, size_t lane, const along *x, size_t n, double share) {
    double least = INFINITY;
    for (int way = 0; way < 2; way++)
        least = fmin(least, beside(p, lane, HT_REGIME_OWNER,
                                   run_way(p, lane, x->b, x->axis->hand_from, x->axis->hand_to, n, share, 0, way)));
    return least;
}

/* Of n tokens the other lane computes units of the first tokens. */
static double cut_matrix(const ht_problem *p, size_t owner, size_t other, const along *x, size_t n, size_t tokens,
                         double share) {
    const double own = handed_beside(p, owner, x, tokens, 1 - share) + handed_beside(p, owner, x, n - tokens, 1);
    const bool all = tokens == n && share == 1; /* nothing is computed beside it */
    return 2 * p->join + join(p, owner) * drift(p, owner, HT_REGIME_OWNER) +
           p->exchange * 4 * (double)(tokens * x->axis->handed) +
           fmax(own, drift(p, other, HT_REGIME_OWNER) * join(p, other) +
                         (all ? drift(p, other, HT_REGIME_OWNER) * both(handed(p, other, x, tokens, share))
                              : handed_beside(p, other, x, tokens, share)));
}

static bool cut_allowed(const ht_problem *p, size_t owner, size_t other, const along *x, size_t n, size_t tokens,
                        size_t units) {
    const ht_solver_lane *l = &p->lanes[other];
    const bool all_tokens = tokens == n, all_units = units == x->of;
    bool length = !l->lengths || all_tokens;
    for (size_t i = 0; i < l->n_lengths; i++)
        length |= (size_t)l->lengths[i] == tokens;
    if (x->b + 1 == head_block(p) && x->axis->hand_to == x->b->n) /* the head goes on from it, and adds no sums */
        return false;
    if (all_units && all_tokens)
        return p->cuts & HT_CUT_LAYER;
    if (!all_tokens && (tokens < 2 || !length)) /* a single token is another plan's */
        return false;
    if (all_units)
        return p->cuts & HT_CUT_SEQUENCE;
    const size_t *built = l->built[number_of(p, x)];
    if ((n > 1 && p->lanes[owner].built_only) ||
        (n > 1 && l->built_only && units != built[0] && units != built[1] && !l->may_build))
        return false;
    return p->cuts & (!all_tokens ? HT_CUT_HYBRID : x->axis->result == HT_RESULT_SUMS ? HT_CUT_FEATURES : HT_CUT_ROWS);
}

/* Operators [at, ..) of a block: each the owner's, or handed over. *cut: whether something is, where that is best. */
static double best_owned(const ht_problem *p, size_t owner, size_t other, const ht_block *b, size_t at, bool *cut) {
    const double pace = drift(p, owner, HT_REGIME_OWNER); /* of what no other computes beside it */
    if (at == b->n)
        return 0;
    const size_t n = tokens_at(p, b, at), position = p->position + p->tokens - n;
    bool rest = false;
    double best =
        both(run(p, owner, b, at, at + 1, n, 1, position)) * pace + best_owned(p, owner, other, b, at + 1, &rest);
    *cut = rest;
    if (b->fused && at == b->fused_from) {
        const double one = both(run(p, owner, b, at, b->fused_to, n, 1, 0)) * pace +
                           best_owned(p, owner, other, b, b->fused_to, (rest = false, &rest));
        if (one < best)
            best = one, *cut = rest;
    }
    for (size_t a = 0; a < b->n_axes; a++) {
        const along x = along_of(p, b, a);
        if (x.axis->hand_from == x.axis->hand_to || x.axis->hand_from != at)
            continue;
        rest = false;
        const double behind = best_owned(p, owner, other, b, x.axis->hand_to, &rest);
        for (size_t tokens = 1; tokens <= n; tokens++)
            for (size_t units = 1; units <= x.of; units++) {
                if (!cut_allowed(p, owner, other, &x, n, tokens, units))
                    continue;
                const double s = behind + cut_matrix(p, owner, other, &x, n, tokens, (double)units / (double)x.of);
                if (s < best)
                    best = s, *cut = true;
            }
    }
    return best;
}

static double best_owner(const ht_problem *p, size_t owner, size_t other) {
    double sum = (both(whole(p, owner, 0, p->tokens)) + head(p, owner)) * drift(p, owner, HT_REGIME_OWNER);
    bool any = false;
    for (const ht_block *b = p->model->blocks; b < head_block(p); b++) {
        bool cut = false;
        sum += best_owned(p, owner, other, b, 0, &cut);
        any |= cut;
    }
    return any ? sum : INFINITY;
}

/* Seconds of the best choice, or infinite; *several: more than one lane takes part. */
static double brute_force(const ht_problem *p, bool *several) {
    double alone = INFINITY, best = INFINITY, of_size[HT_MAX_LANES + 1];
    for (size_t n = 0; n <= HT_MAX_LANES; n++)
        of_size[n] = INFINITY;
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
        bool all = true;
        for (size_t i = 0; i < n; i++)
            all &= !partly(p, lanes[i]);
        if (valid && n == 1 && all)
            alone = fmin(alone, solo(p, lanes[0]));
        if (!valid || n < 2)
            continue;
        double shared = of_size[n];
        set_size = n;
        set_lanes = lanes;
        if (all && p->cuts & HT_CUT_CAUSAL && p->tokens >= 2 * n && (p->wanted == 1 || p->tokens_divide))
            shared = fmin(shared, best_tokens(p, lanes, n, 0, 0));
        if (all && p->cuts & HT_CUT_SEQUENCE && p->apart && p->tokens / p->apart >= n)
            shared = fmin(shared, best_sequences(p, lanes, n, 0, 0) + slowest_head(p, lanes, n));
        shared = fmin(shared, best_shares(p, lanes, n));
        for (size_t owner = 0; owner < 2 && n == 2 && all; owner++)
            shared = fmin(shared, best_owner(p, lanes[owner], lanes[1 - owner]));
        of_size[n] = shared;
    }
    double bound = p->forced ? INFINITY : alone;
    for (size_t n = 2; n <= HT_MAX_LANES; n++) { /* a lane more has to be worth it */
        bound *= n > 2 ? HT_THIRD_LANE : 1;
        if (of_size[n] < bound)
            best = bound = of_size[n];
    }
    *several = best < INFINITY && (p->forced || best < alone);
    return *several ? best : alone;
}

/* ---- the tests --------------------------------------------------------------------------------------------------------------- */

static size_t cut_groups; /* lanes that waited for another's keys and values */
static size_t by_load;    /* parts of blocks that were cut by their loads */

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
            const size_t end = begin + c->tokens[i];
            if (c->apart)
                assert_int_equal(end % p->apart, 0);
            sum = fmax(sum, (c->apart ? sequence_lane : tokens_lane)(p, c->lanes[i], begin, end));
        }
        assert_int_equal(begin, p->tokens);
        return sum + (c->apart ? slowest_head(p, c->lanes, c->n_lanes) : 0);
    }
    assert_int_equal(c->regime, HT_REGIME_SHARES);
    for (size_t i = 0; i < c->n_lanes; i++)
        sum = fmax(sum, embedding(p, c->lanes[i]));
    for (const ht_block *b = p->model->blocks; b <= head_block(p); b++) {
        const ht_group_choice *g = &c->groups[b->group];
        size_t at = 0;
        for (size_t k = 0; k < g->n_axes; k++) {
            const along x = along_of(p, b, g->axes[k]);
            const bool tokens = x.axis->kind == HT_AXIS_TOKENS, queries = x.axis->kind == HT_AXIS_QUERIES;
            double slowest = 0, ready = 0, late = 0;
            const size_t load = load_of(p, &x);
            size_t units = 0, own;
            assert_int_equal(x.axis->from, at);
            at = x.axis->to;
            for (size_t i = 0; i < c->n_lanes; units += own, i++) {
                own = load < p->n_loads ? c->loaded[load][i] : g->units[g->axes[k]][i];
                assert_true(tokens || queries || may_take(p, c->lanes[i], &x, own));
                assert_false(p->unable[number_of(p, &x)] >> c->lanes[i] & 1);
                assert_true(tokens ? has(p, c->lanes[i], &x, 0, 1) : has(p, c->lanes[i], &x, units, own));
                const double one = tokens              ? range_lane(p, c->lanes[i], &x, units, units + own)
                                   : queries           ? query_lane(p, c->lanes[i], &x, units, own, &ready, &late)
                                   : load < p->n_loads ? loaded_lane(p, c->lanes[i], &x, load, units, own)
                                                       : axis_lane(p, c->lanes[i], &x, own);
                by_load += load < p->n_loads && own && own < x.of;
                slowest = fmax(slowest, one + late);
                cut_groups += queries && late > 0;
            }
            assert_int_equal(units, tokens ? p->tokens : x.of);
            sum += exchanged(p, c->n_lanes, &x) + slowest;
        }
        assert_int_equal(at, b->n - (b == head_block(p)));
    }
    return sum + both(whole(p, c->lanes[0], sign(p, head_block(p), 2), 1)) * drift(p, c->lanes[0], HT_REGIME_SHARES);
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

static void compare(size_t n_lanes, unsigned cases, bool windows) {
    size_t won[4] = {0}, apart = 0;
    const unsigned first = seed_of(1);
    cut_groups = by_load = 0;
    for (unsigned seed = first; seed - first < cases; seed++) {
        made m;
        ht_choice c;
        bool several;
        random_state = seed * 2654435761u;
        do
            make_problem(&m, n_lanes);
        while (windows && m.lanes[0].built_only); /* graphs of shares are such as were built */
        if (windows)
            make_windows(&m);
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
        apart += c.apart;
    }
    if (apart < cases / 200 && !windows)
        fail_msg("whole sequences won %zu times of %u only", apart, cases);
    if (cut_groups < cases / 200 && !windows)
        fail_msg("lanes waited for keys and values of a cut group %zu times only", cut_groups);
    if (by_load < cases / 100)
        fail_msg("only %zu parts of blocks were cut by load", by_load);
    for (int r = 0; r < 4; r++) /* or the cases show nothing */
        if (won[r] < cases / 100 && (!windows || r == HT_REGIME_SHARES))
            fail_msg("%s won %zu times of %u only", ht_regime_name((ht_regime)r), won[r], cases);
}

static void test_two_lanes_equal_brute_force(void **state) {
    compare(2, 6000, false);
}
static void test_three_lanes_equal_brute_force(void **state) {
    compare(3, 3000, false);
}
/* Shares never leave what lanes hold, and are the best of those that do not. */
static void test_windows_equal_brute_force(void **state) {
    compare(2, 3000, true);
    compare(3, 3000, true);
}

static void set_drift(ht_solver_lane *lane, double drift) {
    for (int r = 0; r < HT_REGIMES; r++)
        lane->drift[r] = drift;
}

/* A plain problem: equal lanes of the same times, all cuts. */
static void plain_problem(made *m, size_t n_lanes) {
    static const int two[] = {ATTENTION, FEED_FORWARD, ATTENTION, FEED_FORWARD, HEAD};
    random_state = 5;
    make_problem(m, n_lanes);
    make_model(m, two, HT_COUNT(two));
    const ht_lane_cost cost = make_cost(m, false);
    m->p.cuts = HT_CUT_ALL;
    m->p.tokens = m->p.wanted = 8;
    m->p.tokens_divide = true;
    m->p.forced = false;
    m->p.join = 0;
    for (size_t a = 0; a < m->model.n_axes; a++)
        m->p.of[a] = 6, m->p.unable[a] = 0;
    for (size_t a = 0; a < m->model.n_axes; a++)
        if (m->axes[a].kind == HT_AXIS_QUERIES)
            set_groups(m, a, 2, 3);
    for (size_t l = 0; l < n_lanes; l++) {
        m->costs[l] = cost;
        m->costs[l].join = 0;
        memset(m->costs[l].together, 0, sizeof m->costs[l].together);
        memset(m->costs[l].norms, 0, sizeof m->costs[l].norms);
        for (size_t k = 0; k < m->model.n_signatures; k++)
            m->costs[l].ops[k] = (ht_op_cost){.points = {{1, 1e-6}, {8, 8e-6}}, .n_points = 2};
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
    const size_t heads = m.blocks[0].first_axis, features = m.blocks[1].first_axis;
    m.lanes[0].built[heads][0] = 2;
    m.lanes[0].built[features][0] = 4;
    ht_solve(&m.p, &c);
    assert_int_equal(c.regime, HT_REGIME_SHARES);
    assert_int_equal(c.groups[0].units[0][0], 2);
    assert_int_equal(c.groups[1].units[0][0], 4);
    assert_int_equal(c.groups[1].units[0][1], 2);
    assert_int_equal(c.groups[3].units[0][0], 3); /* one token: any share */
    m.lanes[0].built[heads][0] = m.lanes[0].built[features][0] = 0;
    m.lanes[0].may_build = true;
    ht_solve(&m.p, &c);
    assert_int_equal(c.groups[0].units[0][0], 3);
    assert_int_equal(c.groups[1].units[0][0], 3);
}

/* A launch takes 1, of any share. */
static double seconds_of(const ht_cost_point *points, size_t n_points, bool stepped, size_t n, double share) {
    ht_lane_cost cost = {.launch = 1};
    memcpy(cost.ops[2].points, points, n_points * sizeof *points);
    cost.ops[2].n_points = n_points;
    cost.ops[2].stepped = stepped;
    return ht_op_seconds(&cost, 2, n, share, 0);
}

static void test_op_seconds(void **state) {
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
    ht_lane_cost tiles = {0}; /* matrices in fours, but for few tokens; the rest by the token */
    tiles.ops[3] = tiles.ops[4] = (ht_op_cost){.points = {{1, 1}, {64, 64}}, .n_points = 2};
    tiles.ops[3].granule = 4;
    assert_true(fabs(ht_op_seconds(&tiles, 3, 33, 1, 0) - 36) < 1e-9);
    assert_true(fabs(ht_op_seconds(&tiles, 3, 36, 1, 0) - 36) < 1e-9);
    assert_true(fabs(ht_op_seconds(&tiles, 3, 7, 1, 0) - 7) < 1e-9);
    assert_true(fabs(ht_op_seconds(&tiles, 4, 33, 1, 0) - 33) < 1e-9);
    tiles.ops[5] = (ht_op_cost){.points = {{1, 2}}, .n_points = 1, .per_key = 0.5};
    assert_true(fabs(ht_op_seconds(&tiles, 5, 3, 1, 10) - (6 + 0.5 * 3 * 10)) < 1e-9);
    assert_true(fabs(ht_op_seconds(&tiles, 5, 3, 0.5, 10) - 10.5) < 1e-9);
    tiles.ops[4].start = 20; /* no share saves that */
    assert_true(fabs(ht_op_seconds(&tiles, 4, 33, 0.5, 0) - 26.5) < 1e-9);
    assert_true(fabs(ht_op_seconds(&tiles, 4, 3, 0.5, 0) - 3) < 1e-9);
}

/* More tokens or more units never cost less: what bisection rests on. */
static void test_op_seconds_never_fall(void **state) {
    for (unsigned seed = 1; seed <= 300; seed++) {
        random_state = seed * 2654435761u;
        static const int blocks[] = {ATTENTION, FEED_FORWARD, HEAD};
        made m = {0};
        make_model(&m, blocks, HT_COUNT(blocks));
        const ht_lane_cost cost = make_cost(&m, seed % 2);
        const int matrix = m.ops[2].signature;
        for (size_t n = 1; n < 40; n++)
            assert_true(ht_op_seconds(&cost, matrix, n, 1, 0) <= ht_op_seconds(&cost, matrix, n + 1, 1, 0));
        for (int u = 1; u < 8; u++)
            assert_true(ht_op_seconds(&cost, matrix, 5, u / 8.0, 0) <=
                        ht_op_seconds(&cost, matrix, 5, (u + 1) / 8.0, 0));
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
        assert_false(c.apart); /* that takes another cut */
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
    size_t blocks, embedding, qkv, feed_forward; /* blocks: of each kind */
    size_t kv_heads, group;                      /* group: query heads of each */
    size_t experts;                              /* 0: none; of feed_forward features each, eight are used */
} real_shape;

/* Times of about what a phone's NPU, GPU and CPU take, in that order. */
static ht_lane_cost real_cost(const made *m, const real_shape *shape, size_t lane) {
    static const struct {
        double flops, bandwidth, launch, join, per_key;
        size_t granule;
    } rows[LANES] = {
        {11.5e12, 42e9, 20e-6, 5e-6, 2e-9, 0}, {1e12, 43e9, 5e-6, 3e-6, 1e-9, 0}, {0.4e12, 42e9, 1e-6, 5e-6, 1e-9, 6}};
    static const size_t any[] = {1, 2, 8, 16, 32, 64, 128, 256, 512}, fixed[] = {1, 32, 64, 128, 256, 512, 1024};
    const double e = (double)shape->embedding, f = (double)shape->feed_forward;
    double weights[24] = {0};
    for (size_t k = 0; k < m->model.n_blocks; k++) {
        const ht_block *b = &m->blocks[k];
        const double first[] = {[ATTENTION] = e * (double)shape->qkv,
                                [FEED_FORWARD] = 2 * e * f,
                                [MIXTURE] = e * (double)shape->experts,
                                [HEAD] = e * 128256};
        const double last[] = {[ATTENTION] = e * e, [FEED_FORWARD] = e * f, [MIXTURE] = 8 * 3 * e * f, [HEAD] = 0};
        weights[m->ops[b->first + 1].signature] = first[b->signature];
        weights[m->ops[b->first + b->n - 1].signature] = last[b->signature];
        if (b->fused)
            weights[b->fused->signature] = 3 * e * f;
    }
    ht_lane_cost cost = {
        .launch = rows[lane].launch, .join = rows[lane].join, .together = {{1.3, 1.1}, {1.3, 1.1}, {1.3, 1.1}}};
    for (size_t s = 0; s < m->model.n_signatures; s++) {
        ht_op_cost *c = &cost.ops[s];
        const bool once = m->signatures[s].head;
        const size_t n = once ? 1 : lane ? HT_COUNT(any) : HT_COUNT(fixed);
        c->granule = weights[s] > 0 && !once ? rows[lane].granule : 0;
        c->per_key = m->scales[s] == 5 ? rows[lane].per_key : 0;
        c->stepped = lane == 0 && weights[s] > 0 && !once;
        for (size_t i = 0; i < n && (lane == 0 || m->scales[s] != 50); i++) {
            const size_t tokens = lane ? any[i] : fixed[i];
            const double moving = (weights[s] * 0.5625 + (double)tokens * e * 8) / rows[lane].bandwidth,
                         computing = 2 * weights[s] * (double)tokens / rows[lane].flops;
            c->points[c->n_points++] = (ht_cost_point){tokens, rows[lane].launch + fmax(moving, computing)};
        }
    }
    return cost;
}

/* As many layers as the model has, each with favourites of its own, on axis number `axis`. */
static void load_layers(made *m, const real_shape *shape, size_t axis) {
    static ht_block_load loads[HT_MAX_LOADS];
    static float before[HT_MAX_LOADS][MOST_UNITS + 1];
    random_state = 3;
    for (size_t k = 0; k < shape->blocks; k++) {
        double sum = 0;
        for (size_t u = 0; u <= shape->experts; u++) {
            before[k][u] = (float)sum;
            sum += 1 / uniform(0.1, 4);
        }
        for (size_t u = 0; u <= shape->experts; u++)
            before[k][u] = u < shape->experts ? before[k][u] / (float)sum : 1;
        loads[k] = (ht_block_load){k + 1 < shape->blocks ? 1 : 3, before[k]};
    }
    m->p.of[axis] = shape->experts;
    m->p.loads = loads;
    m->p.n_loads = shape->blocks;
}

static void real_problem(made *m, const real_shape *shape, size_t n_lanes, size_t tokens, bool queries_on_all) {
    static const int lengths[] = {32, 64, 128, 256, 512, 1024},
                     dense[] = {ATTENTION, FEED_FORWARD, ATTENTION, FEED_FORWARD, HEAD},
                     mixed[] = {ATTENTION, MIXTURE, ATTENTION, MIXTURE, HEAD};
    const size_t e = shape->embedding / 32, f = shape->feed_forward / 32;
    const size_t h = shape->kv_heads, of[] = {h, 0, shape->qkv / 32, h, h, e, 32, f, f, e, 501},
                 leaves[] = {32 * e, 32 * e, shape->qkv, 32 * e, 32 * e, 32 * e, 32 * e, 32 * e, 32 * f, 32 * e, 0};
    *m = (made){.p = {.lanes = m->lanes,
                      .n_lanes = n_lanes,
                      .cuts = HT_CUT_ALL,
                      .tokens = tokens,
                      .wanted = 1,
                      .join = 3e-6,
                      .exchange = 0.25e-9,
                      .tokens_divide = true}};
    make_model(m, shape->experts ? mixed : dense, HT_COUNT(dense));
    memcpy(m->p.of, of, sizeof of);
    if (shape->experts)
        load_layers(m, shape, m->blocks[1].first_axis);
    set_groups(m, 6, shape->kv_heads, shape->group);
    m->p.unable[6] = queries_on_all ? 0 : 1; /* the NPU */
    for (size_t g = 0; g < 2; g++)           /* as many as the model has, but for the last of them */
        m->groups[g].count = shape->blocks - 1;
    for (size_t a = 0; a < m->model.n_axes; a++)
        m->axes[a].leaves = leaves[a], m->axes[a].handed = 2 * shape->embedding;
    for (size_t l = 0; l < n_lanes; l++) {
        m->costs[l] = real_cost(m, shape, l);
        m->lanes[l] =
            (ht_solver_lane){.cost = &m->costs[l], .cores = {{1u << l}}, .built_only = l == 0 && !shape->experts};
        set_drift(&m->lanes[l], 1);
    }
    m->lanes[0].lengths = lengths;
    m->lanes[0].n_lengths = HT_COUNT(lengths);
    for (size_t a = 0; a < m->model.n_axes && !shape->experts; a++) /* as many graphs as there may be */
        for (size_t k = 0; k < HT_MAX_SHARES && of[a] > 1; k++)
            m->lanes[0].built[a][k] = of[a] * (k + 4) / 8;
}

static double thread_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

enum { RUNS = 9 };

/* Seconds of solving one problem, in order. */
static void time_solving(const ht_problem *p, ht_choice *c, double times[RUNS]) {
    for (size_t run = 0; run < RUNS; run++) {
        const double begin = thread_seconds();
        ht_solve(p, c);
        times[run] = thread_seconds() - begin;
    }
    ht_sort_doubles(times, RUNS);
}

/* A new length of a prompt is solved while the request waits: within a millisecond, with three lanes, at the size of a
 * real model. Looking up times is most of it, and is counted, for clocks depend on what else the machine does: a shared
 * one may be half as fast for a second, so what took too long is timed again later. */
static void test_solving_takes_less_than_a_millisecond(void **state) {
    static const real_shape shapes[] = {{"8B", 32, 4096, 6144, 14336, 8, 4, 0},
                                        {"1B", 16, 2048, 3072, 8192, 8, 4, 0},
                                        {"405B", 126, 16384, 18432, 53248, 8, 16, 0},
                                        {"128 heads over one", 32, 4096, 4352, 14336, 1, 128, 0},
                                        {"30B, 128 experts", 48, 2048, 5120, 768, 4, 8, 128},
                                        {"30B, features uncut", 48, 2048, 5120, 768, 4, 8, 128}};
    static const size_t tokens[] = {1, 17, 40, 64, 100, 135, 256, 300, 333, 525, 777, 1000, 1024};
    size_t naps = 0;
    for (size_t k = 0; k < HT_COUNT(shapes); k++)
        for (size_t n_lanes = 2; n_lanes <= LANES; n_lanes++) {
            double each[HT_COUNT(tokens)], least = 0;
            size_t lookups = 0;
            for (size_t i = 0; i < HT_COUNT(tokens); i++) {
                made m;
                ht_choice c;
                double times[RUNS];
                real_problem(&m, &shapes[k], n_lanes, tokens[i], i % 2);
                if (k + 1 == HT_COUNT(shapes))
                    m.p.cuts &= ~(unsigned)(HT_CUT_FEATURES | HT_CUT_CAUSAL);
                time_solving(&m.p, &c, times);
                for (; TIMED && times[0] >= 1e-3 && naps < 50; naps++) {
                    ht_os_nap(100000000);
                    time_solving(&m.p, &c, times);
                }
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

/* Models of every family fit into the planner's tables; one of more kinds of blocks is told from them. */
static void test_models_fit(void **state) {
    static const char *const shapes[] = {"shape:llama-3.2-1b", "shape:internlm2-1.8b", "shape:qwen2.5-1.5b",
                                         "shape:qwen3-0.6b", "shape:gemma-3-1b"};
    ht_error error = {0};
    ht_model *model;
    for (size_t i = 0; i < HT_COUNT(shapes); i++) {
        check(ht_model_open(shapes[i], &model, &error), &error);
        assert_null(ht_plan_misfit(model));
        ht_model_close(model);
    }
    ht_model large = {.n_signatures = HT_MAX_SIGNATURES + 1};
    assert_string_equal(ht_plan_misfit(&large), "operators");
    large = (ht_model){.n_axes = HT_MAX_AXES + 1};
    assert_string_equal(ht_plan_misfit(&large), "blocks");
    large = (ht_model){.n_groups = HT_MAX_GROUPS + 1};
    assert_string_equal(ht_plan_misfit(&large), "blocks");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_models_fit),
        cmocka_unit_test(test_two_lanes_equal_brute_force),
        cmocka_unit_test(test_three_lanes_equal_brute_force),
        cmocka_unit_test(test_windows_equal_brute_force),
        cmocka_unit_test(test_no_cuts_is_one_lane),
        cmocka_unit_test(test_forced_shares_where_one_is_quicker),
        cmocka_unit_test(test_shared_cores_and_lost_lanes),
        cmocka_unit_test(test_fixed_lanes_use_built_shares),
        cmocka_unit_test(test_op_seconds),
        cmocka_unit_test(test_op_seconds_never_fall),
        cmocka_unit_test(test_busy_agrees_with_prediction),
        cmocka_unit_test(test_busy_and_wait_are_the_pass),
        cmocka_unit_test(test_solving_takes_less_than_a_millisecond),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
