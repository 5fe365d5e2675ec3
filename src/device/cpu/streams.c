/* MIX, special NORMs and sparse GLUs on the CPU: plain loops that the compiler turns into vectors. Sums are in double,
 * so a token has the same bits whatever is computed beside it. */
#include "device/cpu/streams.h"

#include <math.h>
#include <string.h>

static float *row_of(const ht_binding *b, ht_slot slot, size_t t) {
    return (float *)b->slots[slot].data + t * b->slots[slot].stride;
}

static void add_to(float *to, const float *what, size_t n) {
    for (size_t i = 0; i < n; i++)
        to[i] += what[i];
}

static double squares(const float *x, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return sum;
}

static double dot(const float *x, const float *y, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)y[i];
    return sum;
}

/* ---- NORM
 * ---------------------------------------------------------------------------------------------------------------- */

static void norm_row(const ht_cpu_kernels *kernels, float *x, const float *weight, float eps, size_t n) {
    kernels->norm(&(ht_norm_job){.x = x, .weight = weight, .eps = eps, .n = n, .out = x});
}

/* Slot number k of those that are added, all pieces of it. */
static void gather(const ht_op *op, const ht_binding *b, size_t k, size_t t, size_t n, float *out) {
    const size_t from = k ? b->first_pieces : 0, to = k ? b->n_pieces : b->first_pieces;
    memset(out, 0, n * sizeof *out);
    if (k == 0)
        memcpy(out, row_of(b, op->aux, t), n * sizeof *out);
    for (size_t i = from; i < to; i++)
        add_to(out, (const float *)b->pieces[i].data + t * b->pieces[i].stride, n);
}

void ht_norm_special(const ht_cpu_kernels *kernels, const ht_op *op, size_t n, const ht_binding *b, size_t t,
                     float *scratch) {
    float *x = row_of(b, op->in, t), *out = row_of(b, op->out, t), *sum = scratch, *one = scratch + n;
    const float eps = op->post_eps > 0 ? op->post_eps : op->eps;
    memset(sum, 0, n * sizeof *sum);
    for (size_t k = 0; k < ht_op_added(op); k++) {
        gather(op, b, k, t, n, one);
        if (op->each_norm[k])
            norm_row(kernels, one, op->each_norm[k], eps, n);
        add_to(sum, one, n);
    }
    if (op->post_norm && ht_op_added(op))
        norm_row(kernels, sum, op->post_norm, eps, n);
    if (op->replaces)
        memset(x, 0, n * sizeof *x);
    add_to(x, sum, n);
    if (op->adds_normed)
        add_to(x, out, n);
    for (size_t i = 0; i < n && op->stream_scale != 0.0f; i++)
        x[i] *= op->stream_scale;
    kernels->norm(&(ht_norm_job){
        .kind = op->norm, .x = x, .weight = op->weight, .bias = op->norm_bias, .eps = op->eps, .n = n, .out = out});
}

/* ---- GLU
 * ----------------------------------------------------------------------------------------------------------------- */

void ht_sparse_gates(float sparsity, const float *gates, size_t n, float *out) {
    double mean = 0, sum = 0;
    for (size_t i = 0; i < n; i++)
        mean += (double)gates[i] / (double)n;
    for (size_t i = 0; i < n; i++)
        sum += ((double)gates[i] - mean) * ((double)gates[i] - mean);
    const float cut = (float)(mean + (double)sparsity * sqrt(sum / (double)(n > 1 ? n - 1 : 1)));
    for (size_t i = 0; i < n; i++)
        out[i] = gates[i] > cut ? gates[i] - cut : 0.0f;
}

/* ---- MIX
 * ----------------------------------------------------------------------------------------------------------------- */

/* What the router says of a row. */
static void ask(const ht_mix *mix, const float *x, float eps, size_t n, float *scratch, double says[HT_MAX_MIXED]) {
    const double scale = 1 / sqrt(squares(x, n) / (double)n + (double)eps);
    for (size_t i = 0; i < n; i++)
        scratch[i] = (float)((double)x[i] * scale) * mix->router_norm[i];
    for (size_t k = 0; k < (size_t)mix->streams; k++)
        says[k] = tanh(dot(mix->router + k * n, scratch, n) / (double)n);
}

static double weigh(const float *coefs, const double *says, size_t streams) {
    double sum = 0;
    for (size_t k = 0; k < streams; k++)
        sum += (double)coefs[k] * says[k];
    return sum;
}

static void side(const ht_op *op, const float *in, float *out, size_t n) {
    for (size_t k = 0; k < (size_t)op->mix.streams; k++, in += n, out += n) {
        const float scale = (float)(1 / sqrt(squares(in, n) / (double)n + (double)op->eps));
        for (size_t i = 0; i < n; i++)
            out[i] += in[i] * scale * op->weight[i];
    }
}

/* What makes a row as long as another; 0 of nothing. */
static float as_long(const float *x, double target, size_t n) {
    const double own = squares(x, n);
    return own > 0 ? (float)sqrt(target / own) : 0.0f;
}

static void begin(const ht_op *op, const float *x, const float *others, float *s, size_t n) {
    const double target = squares(x, n);
    memcpy(s, x, n * sizeof *s);
    for (size_t k = 1; k < (size_t)op->mix.streams; k++, others += n) {
        const float scale = as_long(others, target, n);
        for (size_t i = 0; i < n; i++)
            s[k * n + i] = others[i] * scale;
    }
}

static void predict(const ht_op *op, const float *f, float *s, float *x, size_t n, float *scratch) {
    const ht_mix *mix = &op->mix;
    const size_t streams = (size_t)mix->streams;
    double says[HT_MAX_MIXED];
    float coefs[HT_MAX_MIXED * HT_MAX_MIXED];
    for (size_t k = 1; k < streams; k++)
        add_to(s + k * n, f, n);
    ask(mix, s, op->eps, n, scratch, says);
    for (size_t k = 0; k < streams * streams; k++)
        coefs[k] = (float)weigh(mix->coefs + k * streams, says, streams);
    for (size_t i = 0; i < n; i++) {
        float before[HT_MAX_MIXED];
        for (size_t k = 0; k < streams; k++)
            before[k] = s[k * n + i];
        for (size_t k = 0; k < streams; k++) {
            float sum = before[k];
            for (size_t j = 0; j < streams; j++)
                sum += coefs[k * streams + j] * before[j];
            s[k * n + i] = sum;
        }
    }
    memcpy(x, s, n * sizeof *x);
}

static void correct(const ht_op *op, const float *a, float *s, float *out, size_t n, float *scratch) {
    const ht_mix *mix = &op->mix;
    const size_t streams = (size_t)mix->streams;
    double says[HT_MAX_MIXED];
    ask(mix, a, op->eps, n, scratch, says);
    for (size_t i = 0; i < n; i++)
        scratch[i] = a[i] - s[i];
    for (size_t k = 0; k < streams; k++) {
        const float factor = (float)(1 + weigh(mix->coefs + k * streams, says, streams));
        for (size_t i = 0; i < n; i++)
            s[k * n + i] += scratch[i] * factor;
    }
    for (size_t i = 0; i < n; i++)
        out[i] = s[i] * mix->scale[i];
}

static void end(const ht_op *op, const float *others, const float *s, float *out, size_t n) {
    const double target = squares(s, n);
    const size_t streams = (size_t)op->mix.streams;
    memcpy(out, s, n * sizeof *out);
    for (size_t k = 1; k < streams; k++, others += n) {
        const float scale = as_long(others, target, n);
        for (size_t i = 0; i < n; i++)
            out[i] += others[i] * scale;
    }
    for (size_t i = 0; i < n; i++)
        out[i] /= (float)streams;
}

void ht_mix_token(const ht_op *op, size_t n, const ht_binding *b, size_t t, float *scratch) {
    const float *in = row_of(b, op->in, t);
    float *out = row_of(b, op->out, t);
    if (op->mix.function == HT_MIX_SIDE) { /* the only one that has nothing more */
        side(op, in, out, n);
        return;
    }
    float *more = row_of(b, op->more[0], t);

    switch (op->mix.function) {
    case HT_MIX_SIDE:
        break;
    case HT_MIX_BEGIN:
        begin(op, in, more, out, n);
        break;
    case HT_MIX_PREDICT:
        predict(op, in, more, out, n, scratch);
        break;
    case HT_MIX_CORRECT:
        correct(op, in, more, out, n, scratch);
        break;
    case HT_MIX_GATHER:
        for (size_t k = 1; k < (size_t)op->mix.streams; k++)
            for (size_t i = 0; i < n; i++)
                out[(k - 1) * n + i] = more[k * n + i] + in[i];
        break;
    case HT_MIX_END:
        end(op, in, more, out, n);
        break;
    }
}
