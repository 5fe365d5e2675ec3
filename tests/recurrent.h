/* CONV, DELTA_NET and SCAN in double precision, a token at a time, from the comments at ht_op_kind and ht_recurrence and
 * nothing else; and how far float32 may be off.
 *
 * Bounds. A state's error E, as a matrix, obeys E' = g (I - b k k^T) E + d (SCAN: E' = g E + d), and as k has length
 * one and 0 <= b <= 1 no error grows: |E'| <= g |E| + |d| in the Frobenius norm. What one token adds is d: rounding of
 * the state, and of what is added to it, whose terms (a sum of key_dim products, SiLU, exp, a length) err by less than
 * ROUNDINGS units. Of q S the error is |q| (|E| + ROUNDINGS |S|); a norm over some values divides that by their root
 * mean square. */
#ifndef TEST_RECURRENT_H
#define TEST_RECURRENT_H

#include "model/model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ROUNDINGS (32 * 0x1p-24)

typedef struct recurrent {
    const ht_op *op;
    ht_hparams shape;
    int taps;
    size_t channels;        /* of the convolution */
    double *rows;           /* [taps - 1][channels], the oldest first */
    double *states, *error; /* [heads][head_dim][key_dim]; [heads] */
    double *mixed;          /* [channels], of the token at hand */
} recurrent;

static recurrent recurrent_begin(const ht_op *op, const ht_hparams *model) {
    recurrent r = {.op = op, .shape = ht_op_shape(op, model)};
    const ht_hparams *h = &r.shape;
    const size_t heads = (size_t)h->heads, inner = heads * (size_t)h->head_dim,
                 key_dim = (size_t)op->recurrence.key_dim;
    const bool conv = op->kind == HT_OP_CONV;
    r.taps = conv ? op->taps : op->recurrence.taps;
    r.channels = conv ? (size_t)h->feed_forward : inner + 2 * (size_t)h->kv_heads * key_dim;
    r.rows = calloc((size_t)r.taps * r.channels, sizeof(double));
    r.mixed = calloc(r.channels, sizeof(double));
    r.states = conv ? NULL : calloc(inner * key_dim, sizeof(double));
    r.error = conv ? NULL : calloc(heads, sizeof(double));
    return r;
}

static void recurrent_end(recurrent *r) {
    free(r->rows), free(r->mixed), free(r->states), free(r->error);
}

static double recurrent_silu(double x) {
    return x / (1 + exp(-x));
}

/* r->mixed holds the token's channels: they become those of the convolution, of the last `taps` tokens. `sizes`: sums of
 * absolute values, or NULL. */
static void recurrent_convolve(recurrent *r, const float *weights, const float *bias, double *sizes) {
    const size_t n = r->channels, before = (size_t)r->taps - 1;
    for (size_t i = 0; i < n; i++) {
        double sum = bias ? (double)bias[i] : 0, size = fabs(sum);
        for (size_t k = 0; k <= before; k++) {
            const double x = k == before ? r->mixed[i] : r->rows[k * n + i], term = (double)weights[k * n + i] * x;
            sum += term, size += fabs(term);
        }
        for (size_t k = 0; k + 1 < before; k++)
            r->rows[k * n + i] = r->rows[(k + 1) * n + i];
        r->rows[(before - 1) * n + i] = r->mixed[i];
        r->mixed[i] = sum;
        if (sizes)
            sizes[i] = size;
    }
}

static double recurrent_length(const double *x, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    return sqrt(sum);
}

/* One head: S = g S + u k^T, out = S q. rate below 0: u is v, else what S does not say of k yet, times rate. The error
 * of out is given back. */
static double recurrent_head(recurrent *r, size_t head, const double *q, const double *k, const double *v, double g,
                             double rate, double *out) {
    const size_t dim = (size_t)r->shape.head_dim, key_dim = (size_t)r->op->recurrence.key_dim;
    double *s = r->states + head * dim * key_dim, squares = 0, added = 0;
    const double was = recurrent_length(s, dim * key_dim);
    for (size_t i = 0; i < dim; i++) {
        double said = 0, u = v[i];
        for (size_t c = 0; c < key_dim; c++)
            said += g * s[i * key_dim + c] * k[c];
        u = rate < 0 ? v[i] : rate * (v[i] - said);
        added += v[i] * v[i] + said * said;
        out[i] = 0;
        for (size_t c = 0; c < key_dim; c++) {
            s[i * key_dim + c] = g * s[i * key_dim + c] + u * k[c];
            squares += s[i * key_dim + c] * s[i * key_dim + c];
            out[i] += s[i * key_dim + c] * q[c];
        }
    }
    const double length = recurrent_length(k, key_dim);
    r->error[head] = g * r->error[head] + ROUNDINGS * (g * was + sqrt(squares) + sqrt(added) * length);
    return recurrent_length(q, key_dim) * (r->error[head] + ROUNDINGS * sqrt(squares));
}

static void recurrent_conv(recurrent *r, const double *in, double *out, double *bound) {
    const size_t n = r->channels;
    double *sizes = malloc(n * sizeof *sizes);
    for (size_t i = 0; i < n; i++)
        r->mixed[i] = in[i] * in[2 * n + i];
    recurrent_convolve(r, r->op->weight, NULL, sizes);
    for (size_t i = 0; i < n; i++) {
        out[i] = in[n + i] * r->mixed[i];
        bound[i] = ROUNDINGS / 2 * fabs(in[n + i]) * sizes[i];
    }
    free(sizes);
}

static void recurrent_over_length(double *x, size_t n, double eps, double scale) {
    const double length = sqrt(pow(recurrent_length(x, n), 2) + eps);
    for (size_t i = 0; i < n; i++)
        x[i] *= scale / length;
}

static void recurrent_delta(recurrent *r, const double *in, const double *more, double *out, double *bound) {
    const ht_recurrence *c = &r->op->recurrence;
    const size_t heads = (size_t)r->shape.heads, groups = (size_t)r->shape.kv_heads, dim = (size_t)r->shape.head_dim,
                 key_dim = (size_t)c->key_dim, keys = groups * key_dim, inner = heads * dim;
    const double eps = (double)r->op->eps, *z = more + inner, *beta = z + inner, *alpha = beta + heads;
    memcpy(r->mixed, in, 2 * keys * sizeof *in);
    memcpy(r->mixed + 2 * keys, more, inner * sizeof *in);
    recurrent_convolve(r, c->conv, NULL, NULL);
    for (size_t i = 0; i < r->channels; i++)
        r->mixed[i] = recurrent_silu(r->mixed[i]);
    for (size_t k = 0; k < 2 * groups; k++)
        recurrent_over_length(r->mixed + k * key_dim, key_dim, eps, k < groups ? 1 / sqrt((double)key_dim) : 1);
    for (size_t h = 0; h < heads; h++) {
        const double *q = r->mixed + (c->repeated ? h / (heads / groups) : h % groups) * key_dim,
                     *v = r->mixed + 2 * keys + h * dim;
        const double g = exp((double)c->a[h] * log1p(exp(alpha[h] + (double)c->dt_bias[h])));
        double *o = out + h * dim;
        const double error = recurrent_head(r, h, q, q + keys, v, g, 1 / (1 + exp(-beta[h])), o);
        const double rms = sqrt(pow(recurrent_length(o, dim), 2) / (double)dim + eps);
        for (size_t i = 0; i < dim; i++) {
            const double factor = (double)c->norm[i] * recurrent_silu(z[h * dim + i]);
            o[i] *= factor / rms;
            bound[h * dim + i] =
                fabs(factor) * error / rms * (1 + fabs(o[i] / (factor == 0 ? 1 : factor))) + ROUNDINGS * fabs(o[i]);
        }
    }
}

static void recurrent_scan(recurrent *r, const double *in, const double *more, double *out, double *bound) {
    const ht_recurrence *c = &r->op->recurrence;
    const size_t heads = (size_t)r->shape.heads, groups = (size_t)r->shape.kv_heads, dim = (size_t)r->shape.head_dim,
                 key_dim = (size_t)c->key_dim, keys = groups * key_dim, inner = heads * dim, own = inner / groups;
    double *u = malloc(dim * sizeof *u);
    memcpy(r->mixed, in + inner, inner * sizeof *in);
    memcpy(r->mixed + inner, more, 2 * keys * sizeof *in);
    recurrent_convolve(r, c->conv, c->conv_bias, NULL);
    for (size_t i = 0; i < r->channels; i++)
        r->mixed[i] = recurrent_silu(r->mixed[i]);
    for (size_t h = 0; h < heads; h++) {
        const size_t group = h / (heads / groups);
        const double *b = r->mixed + inner + group * key_dim, *x = r->mixed + h * dim;
        const double step = log1p(exp(in[2 * inner + h] + (double)c->dt_bias[h]));
        for (size_t i = 0; i < dim; i++)
            u[i] = step * x[i];
        const double error = recurrent_head(r, h, b + keys, b, u, exp((double)c->a[h] * step), -1, out + h * dim);
        for (size_t i = 0; i < dim; i++) {
            double *y = &out[h * dim + i];
            *y += (double)c->skip[h] * x[i];
            const double gate = recurrent_silu(in[h * dim + i]);
            bound[h * dim + i] = fabs(gate) * (error + ROUNDINGS * (fabs(*y) + fabs((double)c->skip[h] * x[i])));
            *y *= gate;
        }
    }
    for (size_t group = 0; group < groups; group++) {
        double *y = out + group * own, *off = bound + group * own;
        const double rms = sqrt(pow(recurrent_length(y, own), 2) / (double)own + (double)r->op->eps);
        const double all = recurrent_length(off, own) / sqrt((double)own) / rms; /* of the root mean square */
        for (size_t i = 0; i < own; i++) {
            const double norm = (double)c->norm[group * own + i];
            y[i] *= norm / rms;
            off[i] = off[i] * fabs(norm) / rms + (all + ROUNDINGS) * fabs(y[i]);
        }
    }
    free(u);
}

/* The next token: in, more (CONV: NULL) as its slots have them, to out; bound[i]: of out[i]. */
static void recurrent_token(recurrent *r, const double *in, const double *more, double *out, double *bound) {
    if (r->op->kind == HT_OP_CONV)
        recurrent_conv(r, in, out, bound);
    else if (r->op->kind == HT_OP_DELTA_NET)
        recurrent_delta(r, in, more, out, bound);
    else
        recurrent_scan(r, in, more, out, bound);
}

#endif
