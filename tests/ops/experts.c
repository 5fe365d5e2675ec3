/* ROUTE and EXPERTS on every device against a scalar reference in double precision: types, shapes, tokens, ways to
 * choose, shares.
 *
 * usage: test_experts [--small] [DEVICE ...]   default: the CPU once for each instruction set, the first OpenCL device
 *
 * A device with static graphs leaves what is past their capacity: the CPU beside it adds that, and the sum is compared.
 */
#include "ops/run.h"

enum { ROUTER = SLOT_ATTN, ROUTE = SLOT_FFN, MAX_EXPERTS = 32, MAX_FEATURES = 512 };

/* ---- who is chosen
 * ------------------------------------------------------------------------------------------------------- */

/* The number of the largest of x[0..n) that is not taken, the lowest of equals; n: none. */
static size_t best_of(const double *x, const bool *taken, size_t n) {
    size_t best = n;
    for (size_t i = 0; i < n; i++)
        if (!taken[i] && x[i] > -INFINITY && (best == n || x[i] > x[best]))
            best = i;
    return best;
}

static void want_route(const ht_op *op, const float *in, double *weights) {
    const ht_route *r = &op->route;
    const size_t n = (size_t)op->experts;
    double p[MAX_EXPERTS], score[MAX_EXPERTS], sum = 0, chosen_sum = 0;
    bool taken[MAX_EXPERTS] = {false}, kept[MAX_EXPERTS] = {false};
    for (size_t i = 0; i < n; i++)
        sum += p[i] = r->function == HT_ROUTE_SOFTMAX ? exp((double)in[i]) : (double)in[i];
    for (size_t i = 0; i < n; i++) {
        if (r->function == HT_ROUTE_SOFTMAX)
            p[i] /= sum;
        else if (r->function == HT_ROUTE_SIGMOID)
            p[i] = 1 / (1 + exp(-p[i]));
        score[i] = p[i] + (r->bias ? (double)r->bias[i] : 0);
        weights[i] = 0;
    }
    if (r->groups > 1) {
        const size_t each = n / (size_t)r->groups;
        double sums[MAX_EXPERTS];
        for (size_t g = 0; g < (size_t)r->groups; g++) {
            bool of_group[MAX_EXPERTS] = {false};
            const size_t first = best_of(score + g * each, of_group, each);
            of_group[first] = true;
            sums[g] = score[g * each + first] + score[g * each + best_of(score + g * each, of_group, each)];
        }
        for (int k = 0; k < r->groups_used; k++)
            kept[best_of(sums, kept, (size_t)r->groups)] = true;
        for (size_t i = 0; i < n; i++)
            taken[i] = !kept[i / each];
    }
    for (int k = 0; k < r->used; k++) {
        const size_t best = best_of(score, taken, n);
        taken[best] = true;
        weights[best] = r->function == HT_ROUTE_SOFTMAX_CHOSEN ? exp(p[best]) : p[best];
        chosen_sum += weights[best];
    }
    const double divide = r->renormalise || r->function == HT_ROUTE_SOFTMAX_CHOSEN ? chosen_sum : 1;
    for (size_t i = 0; i < n; i++)
        weights[i] *= (double)r->scale / divide * (r->factors ? (double)r->factors[i] : 1);
}

static void check_route(bench *b, const ht_op *op, size_t tokens) {
    const size_t n = (size_t)op->experts;
    float *in = make_slot(b, ROUTER, tokens, n), *out = make_slot(b, ROUTE, tokens, n);
    const size_t is = b->slots[ROUTER].stride, os = b->slots[ROUTE].stride;
    for (size_t i = 0; i < (tokens - 1) * is + n; i++)
        in[i] = (float)uniform() * 3;
    for (size_t t = 0; t < tokens; t += 3) /* equals, of which the lowest numbers are chosen */
        for (size_t i = 0; i < n; i++)
            in[t * is + i] = t % 2 ? 0.25f : (float)(i % 3);
    for (size_t i = 0; i < (tokens - 1) * os + n; i++)
        out[i] = 12345;
    if (run_op(b, op, &(ht_slice){0}, tokens, 0))
        for (size_t t = 0; t < tokens; t++) {
            double want[MAX_EXPERTS];
            want_route(op, in + t * is, want);
            for (size_t i = 0; i < n; i++)
                check((double)out[t * os + i], want[i], want[i] == 0 ? 0 : 64 * EPS * want[i], "route", b->name, t, i);
        }
    free_slots(b);
}

static void test_route(bench *b) {
    static const size_t token_counts[] = {1, 2, 33};
    static const struct {
        int experts, used, groups, groups_used;
    } shapes[] = {{8, 3, 0, 0}, {13, 13, 0, 0}, {5, 1, 0, 0}, {1, 1, 0, 0}, {16, 3, 4, 2}};
    float bias[MAX_EXPERTS], factors[MAX_EXPERTS];
    for (size_t i = 0; i < MAX_EXPERTS; i++)
        factors[i] = 0.5f + (float)(i % 5) / 4;
    for (size_t i = 0; i < MAX_EXPERTS; i++)
        bias[i] = (float)((int)(i * 5 % 7) - 3) * 0.25f;
    for (size_t s = 0; s < HT_COUNT(shapes); s++)
        for (int way = 0; way < 12; way++) {
            const ht_op op = {.kind = HT_OP_ROUTE,
                              .name = "route",
                              .in = ROUTER,
                              .out = ROUTE,
                              .experts = shapes[s].experts,
                              .route = {.function = way % 3,
                                        .used = shapes[s].used,
                                        .groups = shapes[s].groups,
                                        .groups_used = shapes[s].groups_used,
                                        .bias = way / 3 % 2 ? bias : NULL,
                                        .renormalise = way / 6,
                                        .factors = way % 4 == 1 ? factors : NULL,
                                        .scale = way % 2 ? 2.5f : 1}};
            for (size_t k = 0; k < HT_COUNT(token_counts) && (k == 0 || way % 4 == 1); k++)
                check_route(b, &op, token_counts[k]);
        }
}

/* What is no number is not chosen, and nobody is if there are no numbers. */
static void test_route_nan(bench *b) {
    const ht_op op = {.kind = HT_OP_ROUTE,
                      .name = "route",
                      .in = ROUTER,
                      .out = ROUTE,
                      .experts = 6,
                      .route = {.function = HT_ROUTE_SIGMOID, .used = 2, .scale = 1}};
    float *in = make_slot(b, ROUTER, 2, 6), *out = make_slot(b, ROUTE, 2, 6);
    for (size_t i = 0; i < 6; i++)
        in[i] = i == 2 ? NAN : (float)i, in[b->slots[ROUTER].stride + i] = NAN;
    if (run_op(b, &op, &(ht_slice){0}, 2, 0))
        for (size_t i = 0; i < 6; i++) {
            assert_true(i < 4 ? out[i] == 0.0f : out[i] > 0.9f);
            assert_true(out[b->slots[ROUTE].stride + i] == 0.0f);
        }
    free_slots(b);
}

/* ---- experts
 * ---------------------------------------------------------------------------------------------------------------- */

typedef enum pattern { SPREAD, SKEWED, ONE, EVERY, SOME_NONE, PATTERNS } pattern;

/* Weights as a router leaves them; of expert 2 nobody has any, but in EVERY. */
static void choose(float *weights, size_t stride, size_t experts, size_t tokens, pattern how) {
    for (size_t t = 0; t < tokens; t++)
        for (size_t e = 0; e < experts; e++) {
            bool chosen = how == EVERY;
            if (how == ONE || (how == SKEWED && e == 0))
                chosen = e == 0;
            else if (how == SPREAD || how == SOME_NONE)
                chosen = e == t % experts || e == (t * 3 + 1) % experts;
            else if (how == SKEWED)
                chosen = t % 7 == e;
            chosen &= how == EVERY || (e != 2 && !(how == SOME_NONE && t % 2));
            weights[t * stride + e] = chosen ? (float)(0.1 + fabs(uniform())) : 0;
        }
}

typedef struct value {
    double x, error;
} value;

static value product_row(const bench *b, const ht_op *op, int part, size_t expert, size_t row, size_t col, size_t n,
                         const double *x, const double *error) {
    const ht_matrix *m = &op->parts[part];
    const size_t each = m->rows / (size_t)op->experts;
    row_sum sum = matvec_row(b, m, expert * each + row, col, n, x, error);
    if (error && (op->parts[0].type->offset ||
                  m->type->offset)) { /* weights of one sign: what is wrong with one feature is so with all of them */
        float *w = malloc(m->cols * sizeof *w);
        double together = 0;
        ht_matrix_floats(m, expert * each + row, 1, w);
        for (size_t c = 0; c < n; c++)
            together += fabs((double)w[col + c]) * error[c];
        sum.error = hypot(sum.error, together);
        free(w);
    }
    if (op->bias[part] && col == 0)
        sum.sum += (double)op->bias[part][expert * each + row], sum.error += EPS * fabs(sum.sum) * 4;
    return (value){sum.sum, sum.error};
}

/* act(g) * u with its error; of weight * g and weight * u where the operator weighs what experts read. */
static value activated(const ht_op *op, value g, value u, double weight) {
    double a = 0, slope = 1.13;
    if (op->weighs_input)
        g.x *= weight, g.error *= weight, u.x *= weight, u.error *= weight;
    if (op->activation == HT_ACT_RELU2) {
        a = g.x > 0 ? g.x * g.x : 0;
        slope = 2 * (fmax(g.x, 0) + 3 * g.error);
    } else if (op->activation == HT_ACT_CLAMPED) {
        const double x = fmin(g.x, 7);
        a = x / (1 + exp(-1.702 * x));
        u.x = fmin(fmax(u.x, -7), 7) + 1;
    } else {
        a = g.x / (1 + exp(-g.x));
    }
    if (op->ungated)
        u = (value){1, 0};
    return (value){a * u.x, hypot(slope * g.error * hypot(u.x, u.error), hypot(a * u.error, 1e-6 * a * u.x))};
}

/* What one expert gives for one token: its rows' values with their errors. */
static void want_expert(const bench *b, const ht_op *op, const ht_slice *s, size_t expert, double weight,
                        const double *x, value *out) {
    const size_t cols = ht_op_cols(op), last = (size_t)op->n_parts - 1, n = s->reduction_end - s->reduction_begin;
    double hidden[MAX_FEATURES], error[MAX_FEATURES];
    for (size_t i = 0; i < n; i++) {
        const size_t row = s->reduction_begin + i;
        const value g = product_row(b, op, 0, expert, row, 0, cols, x, NULL),
                    u = op->ungated ? g : product_row(b, op, 1, expert, row, 0, cols, x, NULL);
        const value h = activated(op, g, u, weight);
        hidden[i] = h.x, error[i] = h.error;
    }
    for (size_t r = 0; r < op->parts[last].rows / (size_t)op->experts; r++)
        out[r] = product_row(b, op, (int)last, expert, r, s->reduction_begin, n, hidden, error);
}

static size_t row_grain; /* rows are multiples of it: other devices take no experts whose rows end within a block */
static size_t taken;     /* checks that the device computed */

static ht_slice spelt_out(const ht_op *op, ht_slice s) {
    if (!s.of)
        s.of = s.row_end = (size_t)op->experts;
    if (!s.reduction_end)
        s.reduction_end = ht_op_summed(op);
    return s;
}

static void check_experts(bench *b, const ht_op *op, ht_slice slice, size_t tokens, pattern how) {
    const size_t cols = ht_op_cols(op), n = (size_t)op->experts, rows = op->parts[op->n_parts - 1].rows / n;
    float *x = make_slot(b, SLOT_NORMED, tokens, cols), *w = make_slot(b, ROUTE, tokens, n),
          *y = make_slot(b, SLOT_DELTA, tokens, rows);
    const size_t xs = b->slots[SLOT_NORMED].stride, ws = b->slots[ROUTE].stride, ys = b->slots[SLOT_DELTA].stride;
    const ht_slice s = spelt_out(op, slice);
    if (row_grain > 1 && refused(b, op, &slice)) {
        free_slots(b);
        return;
    }
    taken++;
    value *want = malloc(2 * rows * sizeof *want), *one = want + rows;
    double *xt = malloc(cols * sizeof *xt);
    fill(x, (tokens - 1) * xs + cols);
    choose(w, ws, n, tokens, how);
    for (size_t i = 0; i < (tokens - 1) * ys + rows; i++)
        y[i] = 12345;
    const bool ran = run_op(b, op, &slice, tokens, 0);
    for (size_t t = 0; t < tokens && ran; t += tokens > 40 ? 29 : 1) {
        memset(want, 0, rows * sizeof *want);
        for (size_t c = 0; c < cols; c++)
            xt[c] = (double)x[t * xs + c];
        for (size_t e = s.row_begin; e < s.row_end; e++) {
            double weight = (double)w[t * ws + e];
            if (w[t * ws + e] == 0.0f)
                continue;
            want_expert(b, op, &s, e, weight, xt, one);
            weight = op->weighs_input ? 1 : weight;
            for (size_t r = 0; r < rows; r++) {
                want[r].x += weight * one[r].x;
                want[r].error = hypot(want[r].error, weight * (one[r].error + EPS * 4 * fabs(one[r].x)));
            }
        }
        for (size_t r = 0; r < rows; r++)
            check((double)y[t * ys + r], want[r].x, 6 * want[r].error, op->parts[0].type->name, b->name, t, r);
    }
    for (size_t t = 0; t < tokens && ran; t++) /* beside the rows nothing is written */
        for (size_t r = rows; r < ys && t + 1 < tokens; r++)
            check((double)y[t * ys + r], 12345, 0, "beside the rows", b->name, t, r);
    free(want), free(xt);
    free_slots(b);
}

typedef struct mixture {                                  /* of an operator to test */
    size_t experts, cols, features, rows, gate, up, down; /* the last three: types, as block_types has them */
    ht_activation activation;
    bool ungated, biases, merged, weighs_input;
} mixture;

/* How many experts a token is said to choose. 1 is less than most tests have: static graphs have too little room; 0:
 * any number. */
static int said_used;

static ht_op make_experts(const mixture *m, float *bias) {
    ht_op op = {.kind = HT_OP_EXPERTS,
                .name = "experts",
                .in = SLOT_NORMED,
                .out = SLOT_DELTA,
                .n_more = 1,
                .more = {ROUTE},
                .experts = (int)m->experts,
                .route = {.used = said_used},
                .width = (int)m->features,
                .activation = m->activation,
                .ungated = m->ungated,
                .weighs_input = m->weighs_input};
    const size_t inner = m->experts * m->features;
    if (m->merged) {
        op.parts[0] = make_matrix("gate_up", m->gate, 2 * inner, m->cols);
        op.parts[0].rows = inner, op.parts[0].run = m->features, op.parts[0].stride = 2 * m->features;
        op.parts[1] = op.parts[0];
        op.parts[1].data += m->features * op.parts[1].row_bytes;
        op.n_parts = 2;
    } else {
        op.parts[op.n_parts++] = make_matrix("gate", m->gate, inner, m->cols);
        if (!m->ungated)
            op.parts[op.n_parts++] = make_matrix("up", m->up, inner, m->cols);
    }
    op.parts[op.n_parts++] = make_matrix("down", m->down, m->experts * ht_round_up(m->rows, row_grain), m->features);
    for (int i = 0; i < op.n_parts && m->biases; i++)
        op.bias[i] = bias + 7 * i;
    return op;
}

static void free_experts(const ht_op *op, const mixture *m) {
    for (int i = 0; i < op->n_parts; i++)
        if (!(m->merged && i == 1))
            free((void *)(uintptr_t)op->parts[i].data);
}

static const ht_slice whole = {0};

/* Has the device graphs? They take long to build: there are fewer of them here. */
static bool has_graphs(const bench *b) {
    return b->device->ops->caps(b->device)->n_lengths > 0;
}

/* Where there are some, one task is for all runs of an operator. */
static void keep_task(bench *b, const ht_op *op) {
    ht_error error = {0};
    if (leaves(b, op) && !refused(b, op, &whole) && b->device->ops->prepare(b->device, op, &whole, &b->task, &error))
        fail_msg("prepare %s: %s", op->name, error.text);
}

static void drop_task(bench *b) {
    if (b->task)
        b->device->ops->release(b->device, b->task);
    b->task = NULL;
}

static void test_types(bench *b) {
    static const size_t token_counts[] = {1, 2, 33, 5, 12};
    for (size_t k = has_graphs(b) && b->fast; k < HT_COUNT(block_types); k += has_graphs(b) ? 2 : 1) {
        if (small && row_grain > 1 && k != 0 && k != 1 && k != 7 && k != 9 &&
            k != 12) /* a form each: kernels are compiled */
            continue;
        const bool super = ht_type_get(block_types[k].type)->block > 32;
        const mixture m = {.experts = 5,
                           .cols = super ? 256 : 96,
                           .features = super ? 256 : 64,
                           .rows = 70,
                           .gate = k,
                           .up = k,
                           .down = k};
        const ht_op op = make_experts(&m, NULL);
        const size_t counts = small || super ? 2 : HT_COUNT(token_counts);
        keep_task(b, &op);
        for (size_t i = has_graphs(b); i < counts; i++)
            check_experts(b, &op, whole, token_counts[i], i % 2 ? SKEWED : SPREAD);
        drop_task(b);
        free_experts(&op, &m);
    }
}

static void test_forms(bench *b) {
    static const mixture rows[] = {
        /* Q4_K_M: another type for the last matrix; types of each differ; odd sizes; no gate; gpt-oss; Llama 4; one tensor;
         * one expert */
        {3, 256, 256, 40, 5, 5, 7, HT_ACT_SILU, false, false, false, false},
        {4, 64, 96, 33, 0, 4, 12, HT_ACT_SILU, false, true, false, false},
        {7, 37, 50, 45, 12, 10, 11, HT_ACT_SILU, false, false, false, false},
        {6, 96, 64, 50, 4, 0, 4, HT_ACT_RELU2, true, true, false, false},
        {5, 96, 96, 64, 9, 9, 9, HT_ACT_CLAMPED, false, true, false, false},
        {5, 96, 64, 48, 4, 0, 4, HT_ACT_SILU, false, false, false, true}, /* Llama 4 */
        {4, 64, 33, 35, 12, 0, 12, HT_ACT_SILU, false, false, true, false},
        {1, 64, 64, 32, 4, 4, 0, HT_ACT_SILU, false, false, false, false},
        {19, 64, 32, 32, 4, 4, 0, HT_ACT_SILU, false, false, false, false}}; /* more than one static graph has */
    float bias[7 * 200];
    fill(bias, HT_COUNT(bias));
    for (size_t i = 0; i < HT_COUNT(rows); i++) {
        const ht_op op = make_experts(&rows[i], bias);
        keep_task(b, &op);
        for (pattern how = 0; how < PATTERNS; how++) {
            if (!has_graphs(b) || (how == SKEWED && i == 0))
                check_experts(b, &op, whole, 1, how);
            check_experts(b, &op, whole, small && !leaves(b, &op) ? 4 : 21, how);
            assert_true(!leaves(b, &op) || (b->task != NULL) == !rows[i].weighs_input); /* which graphs refuse */
            if (b->task && rows[i].experts > 1) /* the first expert has all tokens, or each has all */
                assert_true((how != ONE && how != EVERY) || (b->n_left >= 5 && b->n_left < 21 * rows[i].experts));
        }
        drop_task(b);
        free_experts(&op, &rows[i]);
    }
}

/* One operator at all lengths of a device with graphs, which share its weights: codes of several forms, then floats.
 * Each length's graph is there, or another would stand in for it. */
static void test_lengths(bench *b) {
    static const mixture rows[] = {{5, 96, 64, 70, 1, 0, 4, HT_ACT_SILU, false, true, false, false},
                                   {3, 64, 32, 35, 12, 10, 12, HT_ACT_CLAMPED, false, false, false, false}};
    const ht_device_caps *caps = b->device->ops->caps(b->device);
    float bias[800];
    fill(bias, HT_COUNT(bias));
    for (size_t i = 0; i < HT_COUNT(rows); i++) {
        const ht_op op = make_experts(&rows[i], bias);
        ht_error error = {0};
        keep_task(b, &op);
        for (size_t k = 0; k < caps->n_lengths; k++) {
            const size_t tokens = (size_t)caps->lengths[k];
            if (b->device->ops->warm(b->device, b->task, tokens, &error) ||
                b->device->ops->settle(b->device, b->task, tokens, &error))
                fail_msg("settle %s: %s", op.name, error.text);
            check_experts(b, &op, whole, tokens, SPREAD);
        }
        drop_task(b);
        free_experts(&op, &rows[i]);
    }
}

/* Longer than what is computed together, all of one expert; and of several. */
static void test_long(bench *b) {
    const mixture m = {5, 64, 64, 40, 4, 4, 4, HT_ACT_SILU, false, false, false, false};
    const ht_op op = make_experts(&m, NULL);
    check_experts(b, &op, whole, 600, ONE);
    check_experts(b, &op, whole, 600, EVERY);
    free_experts(&op, &m);
}

/* Shares by experts and by features, prepared and chosen at submit. */
static void test_shares(bench *b) {
    static const mixture rows[] = {{6, 96, 96, 70, 0, 4, 4, HT_ACT_SILU, false, true, false, false},
                                   {6, 256, 512, 40, 5, 5, 7, HT_ACT_SILU, false, false, false, false},
                                   {6, 64, 80, 33, 12, 10, 12, HT_ACT_RELU2, true, true, false, false}};
    float bias[3000];
    fill(bias, HT_COUNT(bias));
    for (size_t i = 0; i < (small ? 1 : HT_COUNT(rows)); i++) {
        const ht_op op = make_experts(&rows[i], bias);
        const size_t cut = i == 1 ? 256 : 32;
        const ht_slice slices[] = {
            {.row_end = 2, .of = 6},
            {.row_begin = 2, .row_end = 3, .of = 6}, /* whom nobody chooses */
            {.row_begin = 3, .row_end = 6, .of = 6},
            {.reduction_end = cut},
            {.reduction_begin = cut, .reduction_end = rows[i].features},
            {.row_begin = 1, .row_end = 5, .of = 6, .reduction_begin = cut, .reduction_end = rows[i].features}};
        for (int divided = 0; divided <= divisible(b); divided++) {
            ht_error error = {0};
            b->divided = divided;
            if (divided && b->device->ops->prepare(b->device, &op, &whole, &b->task, &error))
                fail_msg("prepare %s: %s", op.name, error.text);
            for (size_t k = 0; k < HT_COUNT(slices); k += has_graphs(b) ? 2 : 1) {
                assert_true(!divided || row_grain > 1 || !refused(b, &op, &slices[k]));
                if (!has_graphs(b))
                    check_experts(b, &op, slices[k], 1, k == 1 ? ONE : SPREAD);
                check_experts(b, &op, slices[k], small ? 3 : 17, SPREAD);
            }
            if (divided)
                b->device->ops->release(b->device, b->task);
            b->task = NULL;
            b->divided = false;
        }
        free_experts(&op, &rows[i]);
    }
}

static void test_bad_parts(bench *b) {
    static const ht_slice bad[] = {{.row_end = 7, .of = 6},
                                   {.row_end = 1, .of = 5},
                                   {.row_begin = 2, .row_end = 2, .of = 6},
                                   {.row_end = 3},
                                   {.row_end = 2, .of = 6, .group = 2},
                                   {.reduction_begin = 16, .reduction_end = 64},
                                   {.reduction_end = 48},
                                   {.reduction_end = 96}};
    const mixture m = {6, 64, 64, 40, 4, 4, 4, HT_ACT_SILU, false, false, false, false};
    const ht_op op = make_experts(&m, NULL);
    for (size_t i = 0; i < HT_COUNT(bad); i++)
        assert_true(refused(b, &op, &bad[i]));
    free_experts(&op, &m);
}

/* A weight that is no number names the tensor. */
static void test_bad_weight(bench *b) {
    const mixture m = {3, 64, 64, 48, 12, 12, 12, HT_ACT_SILU, false, false, false, false};
    const ht_op op = make_experts(&m, NULL);
    const float nan = NAN;
    ht_error error = {0};
    ht_task *task = NULL;
    memcpy((uint8_t *)(uintptr_t)op.parts[1].data + 70 * op.parts[1].row_bytes, &nan, sizeof nan);
    if (!refused(b, &op, &whole)) {
        assert_int_equal(b->device->ops->prepare(b->device, &op, &whole, &task, &error), HT_ERROR_FORMAT);
        assert_non_null(strstr(error.text, "up, row 70"));
    }
    free_experts(&op, &m);
}

/* MXFP4's scales may be beyond fp16: small ones are nothing, large ones an error. */
static void test_wide_scale(bench *b) {
    static const struct {
        uint8_t exponent;
        ht_status status;
    } rows[] = {{143, HT_OK}, {144, HT_ERROR_FORMAT}, {255, HT_ERROR_FORMAT}, {100, HT_OK}, {0, HT_OK}};
    const mixture m = {3, 64, 64, 48, 9, 9, 9, HT_ACT_SILU, false, false, false, false};
    const ht_op op = make_experts(&m, NULL);
    for (size_t i = 0; i < HT_COUNT(rows); i++) {
        ht_error error = {0};
        ht_task *task = NULL;
        ((uint8_t *)(uintptr_t)op.parts[2].data)[100 * op.parts[2].row_bytes] = rows[i].exponent;
        assert_int_equal(b->device->ops->prepare(b->device, &op, &whole, &task, &error), rows[i].status);
        if (rows[i].status)
            assert_non_null(strstr(error.text, "down, row 100"));
        if (task)
            b->device->ops->release(b->device, task);
    }
    free_experts(&op, &m);
}

/* ---- devices
 * ------------------------------------------------------------------------------------------------------------------ */

static const char *specs[16] = {HT_TEST_ISAS};
static size_t n_specs;

static void each_device(ht_precision precision) {
    const ht_hparams h = {.layers = 1, .embedding = 64, .heads = 2, .kv_heads = 1, .head_dim = 32, .feed_forward = 64};
    for (size_t i = 0; i < n_specs; i++) {
        bench b = {.name = specs[i], .fast = precision == HT_PRECISION_FAST};
        const ht_device_options
            options = {.threads = 2, .precision = precision, .hparams = &h, .max_tokens = 600, .max_context = 64},
            beside = {.threads = 1, .precision = precision, .hparams = &h, .max_tokens = 600, .max_context = 64};
        ht_error error = {0};
        if (ht_device_open(specs[i], &options, &b.device, &error)) {
            if (error.status != HT_ERROR_DEVICE || must_have(runtime_of(specs[i]), error.text))
                fail_msg("%s: %s", specs[i], error.text);
            continue;
        }
        if (ht_device_open("cpu", &beside, &b.beside, &error))
            fail_msg("%s", error.text);
        row_grain = strncmp(specs[i], "cpu", 3) == 0 ? 1 : 16, taken = 0;
        said_used = has_graphs(&b);
        test_route(&b), test_route_nan(&b), test_types(&b);
        if (!has_graphs(&b) || !b.fast)
            test_forms(&b), test_shares(&b);
        if (has_graphs(&b))
            test_lengths(&b);
        if (!small)
            test_long(&b);
        if (divisible(&b))
            test_bad_parts(&b);
        if (!has_graphs(&b))
            test_bad_weight(&b), test_wide_scale(&b);
        b.device->ops->close(b.device);
        b.beside->ops->close(b.beside);
    }
    row_grain = 1;
    assert_int_equal(failures, 0);
}

static void test_exact(void **state) {
    each_device(HT_PRECISION_EXACT);
}
static void test_fast(void **state) {
    each_device(HT_PRECISION_FAST);
}

/* The same bits whatever number of threads there is: who adds up does so in the experts' order. */
static void test_order(void **state) {
    const ht_hparams h = {.layers = 1, .embedding = 64};
    row_grain = 1;
    const mixture m = {5, 256, 96, 70, 4, 4, 4, HT_ACT_SILU, false, false, false, false};
    const ht_op op = make_experts(&m, NULL);
    float first[40 * 70];
    for (int threads = 1; threads <= 3; threads++) {
        bench b = {.name = "cpu"};
        const ht_device_options options = {.threads = threads, .hparams = &h, .max_tokens = 64, .max_context = 64};
        ht_error error = {0};
        if (ht_device_open("cpu", &options, &b.device, &error))
            fail_msg("%s", error.text);
        float *x = make_slot(&b, SLOT_NORMED, 40, 256), *w = make_slot(&b, ROUTE, 40, 5),
              *y = make_slot(&b, SLOT_DELTA, 40, 70);
        random_state = 12345;
        fill(x, 39 * b.slots[SLOT_NORMED].stride + 256);
        choose(w, b.slots[ROUTE].stride, 5, 40, EVERY);
        assert_true(run_op(&b, &op, &whole, 40, 0));
        for (size_t t = 0; t < 40; t++) {
            if (threads == 1)
                memcpy(first + t * 70, y + t * b.slots[SLOT_DELTA].stride, 70 * sizeof *y);
            assert_memory_equal(first + t * 70, y + t * b.slots[SLOT_DELTA].stride, 70 * sizeof *y);
        }
        free_slots(&b);
        b.device->ops->close(b.device);
    }
    free_experts(&op, &m);
}

int main(int argc, char **argv) {
    int first = 1;
    if (argc > first && strcmp(argv[first], "--small") == 0)
        small = true, first++;
    if (argc > first)
        memset(specs, 0, sizeof specs);
    while (n_specs < HT_COUNT(specs) && specs[n_specs])
        n_specs++;
    for (int i = first; i < argc && n_specs < HT_COUNT(specs); i++)
        specs[n_specs++] = argv[i];
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_exact), cmocka_unit_test(test_fast),
                                       cmocka_unit_test(test_order)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
