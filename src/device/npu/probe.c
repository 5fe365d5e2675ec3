/* Does a built graph compute what it should? Compilers of such graphs have been seen to drop zero points, swap rows and
 * round weights without a word, so each program runs once on a made-up input, and sampled tokens and rows are compared
 * with sums in double precision over the canonical weights.
 *
 * Bounds. Errors are taken as independent, and six standard deviations are allowed. Arithmetic with unit roundoff u
 * rounds both factors of a product, so a sum of products p errs by u * |p|_2 or less; adding n terms in float32 by eps
 * * sqrt(n) * |p|_2 (eight of these); a scale kept in fp16 by 2^-11 of its group's sum. Activations in 8 bits err by up
 * to half a step of their group: a standard deviation of step / sqrt(12) each, times the weights. In an FFN the hidden
 * values' errors go through the activation (its slope is at most 1.13 for all kinds but the square) and then through
 * down, like any input's. */
#include "device/npu/npu.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define VECTORS 2 /* inputs whose answers are known: first and middle token have one, the last has the other */
#define ROWS 16   /* sampled of a graph's outputs */
#define EPS 0x1p-24

typedef struct answer { /* of one set of matrices */
    double want[VECTORS][ROWS], bound[VECTORS][ROWS];
} answer;

struct ht_npu_probe {
    size_t rows[ROWS], n_rows;
    float *x;        /* [VECTORS][cols] */
    answer *answers; /* [sets of matrices] */
};

void ht_npu_probe_free(ht_npu_probe *probe) {
    if (!probe)
        return;
    free(probe->x);
    free(probe->answers);
    free(probe);
}

static void fill(uint64_t seed, float *x, size_t n) {
    uint64_t state = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    for (size_t i = 0; i < n; i++) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        x[i] =
            (float)((double)(state >> 11) * 0x1p-52 - 1) * (i % 61 == 7 ? 6.0f : 1.0f); /* outliers, as models have */
    }
}

/* ---- one row by one vector
 * ------------------------------------------------------------------------------------------------- */

typedef struct row_sum {
    double sum, variance; /* of its errors */
} row_sum;

/* w.x with the variance of what the device adds to it. spread (may be NULL): variances of x itself. */
static row_sum row_by_vector(const ht_npu_facts *facts, const ht_npu_matrix *m, const float *w, const double *x,
                             const double *spread) {
    const size_t group = m->group ? m->group : 32;
    const double u = facts->step, code = m->group ? facts->code_step : 0;
    double sum = 0, squares = 0, rounding = 0, scales = 0;
    for (size_t g = 0; g < m->cols; g += group) {
        const size_t end = ht_min_size(g + group, m->cols);
        double most = 0, part = 0, weights = 0;
        for (size_t c = g; c < end; c++) {
            const double product = (double)w[c] * x[c], square = (double)w[c] * (double)w[c];
            most = fmax(most, fabs(x[c]));
            part += product;
            squares += product * product;
            weights += square;
            if (spread)
                rounding += square * spread[c];
        }
        sum += part;
        scales += m->group ? part * part * 0x1p-22 : 0;
        rounding += weights * (most * code) * (most * code) / 12;
    }
    const double adding = 8.0 / 6 * EPS * sqrt((double)m->cols);
    return (row_sum){sum, squares * (u * u + adding * adding) + (u > EPS ? scales : 0) + rounding};
}

/* Offsets are a product of their own, and where sums are kept in 16 bits both of them are rounded before they meet, however
 * near to nothing they come to: what that adds to the variance of row `row` by x. */
static ht_status offset_variance(const ht_npu_facts *facts, const ht_npu_matrix *m, size_t row, const double *x,
                                 double sum, double *variance, ht_error *error) {
    const size_t groups = m->cols / m->group;
    float *scales;
    ht_status status = ht_alloc((void **)&scales, 2 * groups * sizeof(float) + m->cols, 1, "a graph's check", error);
    if (status == HT_OK)
        status = ht_npu_codes(m, row, 1, (int8_t *)(scales + 2 * groups), scales, scales + groups, error);
    double added = 0, squares = 0;
    for (size_t g = 0; g < groups && status == HT_OK; g++) {
        double part = 0;
        for (size_t c = 0; c < m->group; c++)
            part += x[g * m->group + c];
        part *= (double)scales[groups + g];
        added += part, squares += part * part;
    }
    *variance += 4 * facts->step * facts->step * (squares + added * added + (sum - added) * (sum - added));
    free(scales);
    return status;
}

static ht_status matrix_rows(const ht_npu_facts *facts, const ht_npu_matrix *m, size_t row, size_t n,
                             const double *const *x, const double *const *spread, row_sum *out, ht_error *error) {
    float *w, *bias = NULL;
    ht_status status = ht_alloc((void **)&w, m->cols, sizeof *w, "a graph's check", error);
    if (status == HT_OK && m->bias)
        status = ht_alloc((void **)&bias, m->rows, sizeof *bias, "a graph's check", error);
    if (bias)
        ht_npu_bias(m, bias);
    for (size_t r = 0; r < n && status == HT_OK; r++) {
        status = ht_npu_floats(m, row + r, 1, w, error);
        for (size_t v = 0; v < VECTORS && status == HT_OK; v++) {
            row_sum *to = &out[v * n + r];
            *to = row_by_vector(facts, m, w, x[v], spread ? spread[v] : NULL);
            if (m->offset && facts->step > EPS)
                status = offset_variance(facts, m, row + r, x[v], to->sum, &to->variance, error);
            to->sum += bias ? (double)bias[row + r] : 0;
            const double last = 4 * fmax(facts->step, EPS) * (fabs(to->sum) + (bias ? fabs((double)bias[row + r]) : 0));
            to->variance += last * last;
        }
    }
    free(bias);
    free(w);
    return status;
}

/* ---- what a graph should say
 * ------------------------------------------------------------------------------------------------- */

#define SLOPE 1.13

/* act(g), and *slope: by how much at most what is wrong with g is multiplied. */
static double activate(ht_activation kind, double g, double *slope) {
    *slope = SLOPE;
    switch (kind) {
    case HT_ACT_RELU2:
        *slope = 2 * fmax(g, 0);
        return g > 0 ? g * g : 0;
    case HT_ACT_CLAMPED:
        g = fmin(g, 7);
        return g / (1 + exp(-1.702 * g));
    case HT_ACT_GELU_TANH:
        return 0.5 * g * (1 + tanh(0.7978845608028654 * (g + 0.044715 * g * g * g)));
    default:
        return g / (1 + exp(-g));
    }
}

/* The hidden layer of an FFN, or an expert, for every vector, and how far the device's may be off: hidden, spread
 * [VECTORS][features]. parts: gate, up; without a gate up alone. */
static ht_status hidden_layer(const ht_npu_facts *facts, const ht_npu_graph *g, const ht_npu_matrix *parts,
                              const double *const *x, double *hidden, double *spread, ht_error *error) {
    const size_t features = parts[0].rows;
    const bool gated = g->n_parts > 2;
    row_sum *sums;
    ht_status status = ht_alloc((void **)&sums, 2 * VECTORS * features, sizeof *sums, "a graph's check", error);
    row_sum *up = sums + VECTORS * features;
    if (status == HT_OK)
        status = matrix_rows(facts, &parts[0], 0, features, x, NULL, sums, error);
    if (status == HT_OK && gated)
        status = matrix_rows(facts, &parts[1], 0, features, x, NULL, up, error);
    for (size_t i = 0; i < VECTORS * features && status == HT_OK; i++) {
        double slope;
        const double a = activate(g->op->activation, sums[i].sum, &slope), u = fmax(facts->step, 4 * EPS);
        if (!gated)
            up[i] = (row_sum){1, 0};
        else if (g->op->activation == HT_ACT_CLAMPED)
            up[i].sum = fmin(fmax(up[i].sum, -7), 7) + 1;
        hidden[i] = a * up[i].sum;
        spread[i] = slope * slope * sums[i].variance * (up[i].sum * up[i].sum + up[i].variance) +
                    a * a * up[i].variance + 16 * u * u * hidden[i] * hidden[i];
    }
    free(sums);
    return status;
}

/* What set number `set` of the graph's matrices should say. */
static ht_status find_answer(const ht_npu_probe *p, const ht_npu_facts *facts, const ht_npu_graph *g, size_t set,
                             ht_error *error) {
    const bool inner = g->op->kind != HT_OP_MATMUL;
    ht_npu_matrix parts[HT_NPU_PARTS] = {{0}};
    for (int i = 0; i < g->n_parts; i++)
        parts[i] = ht_npu_of_expert(g, i, set);
    const size_t cols = g->cols, features = inner ? parts[0].rows : 0;
    double *memory;
    ht_status status =
        ht_alloc((void **)&memory, VECTORS * (cols + 2 * features), sizeof *memory, "a graph's check", error);
    if (status != HT_OK)
        return status;
    double *hidden = memory + VECTORS * cols, *spreads = hidden + VECTORS * features;
    const double *x[VECTORS], *spread[VECTORS] = {NULL};
    for (size_t v = 0; v < VECTORS; v++) {
        for (size_t c = 0; c < cols; c++)
            memory[v * cols + c] = (double)p->x[v * cols + c];
        x[v] = memory + v * cols;
    }
    if (inner) {
        status = hidden_layer(facts, g, parts, x, hidden, spreads, error);
        for (size_t v = 0; v < VECTORS; v++)
            x[v] = hidden + v * features, spread[v] = spreads + v * features;
    }
    for (size_t i = 0; i < p->n_rows && status == HT_OK; i++) {
        size_t row = p->rows[i];
        int part = inner ? g->n_parts - 1 : 0;
        while (row >= parts[part].rows)
            row -= parts[part++].rows;
        row_sum sums[VECTORS];
        status = matrix_rows(facts, &parts[part], row, 1, x, inner ? spread : NULL, sums, error);
        for (size_t v = 0; v < VECTORS && status == HT_OK; v++) {
            p->answers[set].want[v][i] = sums[v].sum;
            p->answers[set].bound[v][i] = 6 * sqrt(sums[v].variance) + 1e-30;
        }
    }
    free(memory);
    return status;
}

/* Ten rows evenly from first to last, and the first and last of every part. */
static void sample_rows(ht_npu_probe *p, const ht_npu_graph *g) {
    for (size_t i = 0; i < 10; i++)
        p->rows[p->n_rows++] = i * (g->rows - 1) / 9;
    size_t row = 0;
    for (int i = 0; i < g->n_parts && g->op->kind == HT_OP_MATMUL; i++) {
        p->rows[p->n_rows++] = row;
        row += g->parts[i].rows;
        p->rows[p->n_rows++] = row - 1;
    }
}

static ht_status make_probe(ht_npu_probe **out, const ht_npu_facts *facts, const ht_npu_graph *g, ht_error *error) {
    ht_npu_probe *p;
    ht_status status = ht_alloc((void **)&p, 1, sizeof *p, "a graph's check", error);
    if (status == HT_OK)
        status = ht_alloc((void **)&p->x, VECTORS * g->cols, sizeof *p->x, "a graph's check", error);
    if (status == HT_OK)
        status = ht_alloc((void **)&p->answers, ht_npu_sets(g), sizeof *p->answers, "a graph's check", error);
    if (status == HT_OK) {
        fill(1, p->x, VECTORS * g->cols);
        sample_rows(p, g);
    }
    for (size_t set = 0; set < ht_npu_sets(g) && status == HT_OK; set++)
        status = find_answer(p, facts, g, set, error);
    if (status == HT_OK)
        *out = p;
    else
        ht_npu_probe_free(p);
    return status;
}

/* ---- the check
 * ----------------------------------------------------------------------------------------------------------------- */

/* Row `token` of a graph's output, which set number `set` of its matrices computed. */
static ht_status compare(const ht_npu_probe *p, const ht_npu_graph *g, const float *out, size_t set, size_t token,
                         size_t vector, ht_error *error) {
    const answer *a = &p->answers[set];
    for (size_t i = 0; i < p->n_rows; i++) {
        const double got = (double)out[token * g->rows + p->rows[i]], want = a->want[vector][i];
        if (!(fabs(got - want) <= a->bound[vector][i]))
            return ht_fail(error, HT_ERROR_DEVICE,
                           "computes wrong numbers: token %zu, row %zu is %.9g, not %.9g (within %.2g)", token,
                           p->rows[i], got, want, a->bound[vector][i]);
    }
    return HT_OK;
}

ht_status ht_npu_probe_check(ht_npu_probe **probe, const ht_npu_store_options *o, const ht_npu_graph *g,
                             ht_npu_program *program, size_t length, ht_error *error) {
    ht_status status = *probe ? HT_OK : make_probe(probe, o->facts, g, error);
    if (status != HT_OK)
        return status;
    const ht_npu_probe *p = *probe;
    const size_t each = ht_npu_capacity(g, length), all = ht_npu_rows(g, length), sets = ht_npu_sets(g);
    const size_t tokens[] = {0, each - 1, each / 2}, vectors[] = {0, 1, 0}, n = ht_min_size(each, 3);
    const size_t in_bytes = all * g->cols * sizeof(float), out_bytes = all * g->rows * sizeof(float);
    float *in = ht_npu_pages_alloc(o->runtime, o->npu, in_bytes),
          *out = ht_npu_pages_alloc(o->runtime, o->npu, out_bytes);
    if (!in || !out)
        status = ht_fail(error, HT_ERROR_MEMORY, "no memory to check a graph");
    if (status == HT_OK) {
        fill(2, in, all * g->cols);
        for (size_t i = 0; i < n * sets; i++)
            memcpy(in + (i / n * each + tokens[i % n]) * g->cols, p->x + vectors[i % n] * g->cols,
                   g->cols * sizeof *in);
        memset(out, 0xff, out_bytes); /* NaNs: what is not written is wrong too */
        status = o->runtime->bind(o->npu, program, in, out, error);
    }
    if (status == HT_OK)
        status = o->runtime->start(o->npu, program, error);
    if (status == HT_OK)
        status = o->runtime->wait(o->npu, program, error);
    for (size_t i = 0; i < n * sets && status == HT_OK; i++)
        status = compare(p, g, out, i / n, i / n * each + tokens[i % n], vectors[i % n], error);
    if (in)
        ht_npu_pages_free(o->runtime, in, in_bytes);
    if (out)
        ht_npu_pages_free(o->runtime, out, out_bytes);
    return status;
}
