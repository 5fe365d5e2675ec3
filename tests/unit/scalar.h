/* A model's operators one after the other in double precision, from its weights as they are: what devices' logits
 * are compared with. It follows the comments at ht_op_kind and nothing else. */
#ifndef TEST_SCALAR_H
#define TEST_SCALAR_H

#include "reference.h"
#include "unit/test.h"

#include "model/model.h"
#include "recurrent.h"

#include <math.h>

typedef struct scalar {
    const ht_model *model;
    const int32_t *ids;
    size_t tokens;
    double *slots[HT_MAX_SLOTS]; /* [tokens][width] */
    double *keys, *values;       /* [caches][tokens][embedding's most] */
    size_t kv_width;
} scalar;

static double *scalar_row(const scalar *s, ht_slot slot, size_t t) {
    return s->slots[slot] + t * s->model->slots[slot].width;
}

static double *scalar_kv(const scalar *s, double *kv, const ht_op *op, size_t t) {
    return kv + ((size_t)op->cache * s->tokens + t) * s->kv_width;
}

static void scalar_norm(const scalar *s, const ht_op *op, size_t t) {
    const size_t n = (size_t)op->width;
    double *x = scalar_row(s, op->in, t), delta[1024] = {0};
    assert_true(n <= 1024);
    for (size_t k = 0; k < ht_op_added(op); k++)
        for (size_t i = 0; i < n; i++)
            delta[i] += scalar_row(s, ht_op_addend(op, k), t)[i];
    if (op->post_norm)
        reference_norm(HT_NORM_RMS, delta, op->post_norm, NULL, (double)op->eps, n, delta);
    for (size_t i = 0; i < n; i++)
        x[i] += delta[i];
    reference_norm(op->norm, x, op->weight, op->norm_bias, (double)op->eps, n, scalar_row(s, op->out, t));
}

static void scalar_matmul(const scalar *s, const ht_op *op) {
    const size_t cols = ht_op_cols(op);
    float *weights = malloc(cols * sizeof *weights);
    size_t to = 0;
    for (int p = 0; p < op->n_parts; p++)
        for (size_t r = 0; r < op->parts[p].rows; r++, to++) {
            ht_matrix_floats(&op->parts[p], r, 1, weights);
            for (size_t t = 0; t < s->tokens; t++) {
                double sum = op->bias[p] ? (double)op->bias[p][r] : 0;
                for (size_t c = 0; c < cols; c++)
                    sum += (double)weights[c] * scalar_row(s, op->in, t)[c];
                scalar_row(s, op->out, t)[to] = sum;
            }
        }
    free(weights);
}

static void scalar_rope(const scalar *s, const ht_op *op, size_t t) {
    const size_t dim = (size_t)op->head_dim, half = (size_t)op->rope_dim / 2, heads = (size_t)op->heads,
                 kvs = (size_t)op->kv_heads, n = op->norm_dim ? (size_t)op->norm_dim : dim;
    double *x = scalar_row(s, op->in, t);
    for (size_t h = 0; h < heads + kvs; h++) {
        const bool query = h < heads;
        const size_t own = query ? h : h - heads;
        double *head = x + h * dim;
        const float *norm = query ? op->q_norm : op->k_norm,
                    *table = (query && op->rope_queries ? op->rope_queries : op->rope) + t * 2 * half;
        if (norm && op->norm_whole && own == 0)
            reference_norm(op->norm, head, norm, NULL, (double)op->eps, (query ? heads : kvs) * dim, head);
        if (norm && !op->norm_whole)
            reference_norm(op->norm, head, norm + (op->norm_heads ? own * n : 0), NULL, (double)op->eps, n, head);
        head += op->rope_first;
        for (size_t i = 0; i < half; i++) {
            double *a = head + (op->rope_halves ? i : 2 * i), *b = op->rope_halves ? a + half : a + 1;
            const double c = (double)table[2 * i], d = (double)table[2 * i + 1], was = *a;
            *a = was * c - *b * d;
            *b = was * d + *b * c;
        }
    }
    memcpy(scalar_kv(s, s->keys, op, t), x + heads * dim, kvs * dim * sizeof *x);
    double *values = x + (op->value_dim ? heads : heads + kvs) * dim;
    for (size_t h = 0; h < kvs && op->v_norm; h++)
        reference_norm(HT_NORM_RMS, values + h * dim, NULL, NULL, (double)op->eps, dim, values + h * dim);
    memcpy(scalar_kv(s, s->values, op, t), values, kvs * dim * sizeof *x);
}

static double scalar_capped(double x, float cap) {
    return cap > 0 ? (double)cap * tanh(x / (double)cap) : x;
}

static void scalar_attention(const scalar *s, const ht_op *op, size_t t) {
    const size_t dim = (size_t)op->head_dim, group = (size_t)(op->heads / op->kv_heads),
                 chunk = (size_t)op->attention_chunk,
                 first = chunk                                   ? t / chunk * chunk
                         : op->window && t >= (size_t)op->window ? t + 1 - (size_t)op->window
                                                                 : 0;
    for (size_t h = 0; h < (size_t)op->heads; h++) {
        const double *query = scalar_row(s, op->in, t) + h * dim;
        double *out = scalar_row(s, op->out, t) + h * dim, all = op->sinks ? exp((double)op->sinks[h]) : 0;
        memset(out, 0, dim * sizeof *out);
        for (size_t k = first; k <= t; k++) {
            const double *key = scalar_kv(s, s->keys, op, k) + h / group * dim,
                         *value = scalar_kv(s, s->values, op, k) + h / group * dim;
            double score = 0;
            for (size_t i = 0; i < dim; i++)
                score += query[i] * key[i];
            score *= (double)op->scale;
            score = scalar_capped(score, op->soft_cap);
            if (op->slopes)
                score -= (double)op->slopes[h] * (double)(t - k);
            const double weight = exp(score);
            all += weight;
            for (size_t i = 0; i < dim; i++)
                out[i] += weight * value[i];
        }
        for (size_t i = 0; i < dim; i++)
            out[i] /= all;
    }
}

static void scalar_heads(const scalar *s, const ht_op *op) {
    const size_t heads = (size_t)op->heads, rows = ht_op_rows(op) / heads, cols = ht_op_cols(op),
                 rest = (size_t)op->rest, width = (size_t)op->head_dim;
    float *weights = malloc(cols * sizeof *weights);
    for (size_t r = 0; r < heads * rows; r++) {
        ht_matrix_floats(&op->parts[0], r, 1, weights);
        for (size_t t = 0; t < s->tokens; t++) {
            double sum = 0;
            for (size_t c = 0; c < cols; c++)
                sum += (double)weights[c] * scalar_row(s, op->in, t)[r / rows * width + c];
            scalar_row(s, op->out, t)[r / rows * (rows + rest) + r % rows] = sum;
        }
    }
    for (size_t t = 0; t < s->tokens; t++) {
        const double *in = scalar_row(s, op->in, t),
                     *more = op->n_more ? scalar_row(s, op->more[0], t) + op->more_first : in + heads * width;
        double *out = scalar_row(s, op->out, t);
        for (size_t i = 0; i < heads * rest; i++)
            out[i / rest * (rows + rest) + rows + i % rest] = in[i / rest * width + cols + i % rest];
        memcpy(out + heads * (rows + rest), more, op->n_copied * sizeof *out);
    }
    free(weights);
}

static void scalar_glu(const scalar *s, const ht_op *op, size_t t) {
    const size_t n = (size_t)op->width;
    const double *gate = scalar_row(s, op->in, t),
                 *up = op->n_more ? scalar_row(s, op->more[0], t) + op->more_first : gate + n;
    for (size_t i = 0; i < n; i++)
        scalar_row(s, op->out, t)[i] = reference_glu(op->activation, !op->ungated, gate[i], op->ungated ? 1 : up[i]);
}

static void scalar_route(const scalar *s, const ht_op *op, size_t t) {
    const size_t n = (size_t)op->experts;
    const double *in = scalar_row(s, op->in, t);
    double *out = scalar_row(s, op->out, t), sum = 0, chosen = 0;
    bool *taken = calloc(n, sizeof *taken);
    assert_true(op->route.function != HT_ROUTE_SOFTMAX_CHOSEN && !op->route.bias && !op->route.groups);
    for (size_t e = 0; e < n; e++)
        sum += exp(in[e]);
    for (int k = 0; k < op->route.used; k++) {
        size_t best = n;
        for (size_t e = 0; e < n; e++)
            if (!taken[e] && (best == n || in[e] > in[best]))
                best = e;
        taken[best] = true;
        chosen += exp(in[best]);
    }
    for (size_t e = 0; e < n; e++) {
        const double p = op->route.function == HT_ROUTE_SIGMOID ? 1 / (1 + exp(-in[e]))
                                                                : exp(in[e]) / (op->route.renormalise ? chosen : sum);
        out[e] = taken[e] ? p * (double)op->route.scale : 0;
    }
    free(taken);
}

/* Rows of expert e of one of its matrices, times x. */
static void scalar_product(const ht_op *op, int part, size_t e, const double *x, double *out) {
    const ht_matrix *m = &op->parts[part];
    const size_t rows = m->rows / (size_t)op->experts;
    float *weights = malloc(m->cols * sizeof *weights);
    for (size_t r = 0; r < rows; r++) {
        ht_matrix_floats(m, e * rows + r, 1, weights);
        out[r] = op->bias[part] ? (double)op->bias[part][e * rows + r] : 0;
        for (size_t c = 0; c < m->cols; c++)
            out[r] += (double)weights[c] * x[c];
    }
    free(weights);
}

static void scalar_experts(const scalar *s, const ht_op *op, size_t t) {
    const size_t n = (size_t)op->width, rows = op->parts[2].rows / (size_t)op->experts;
    double *hidden = malloc((2 * n + rows) * sizeof *hidden), *up = hidden + n, *given = up + n,
           *out = scalar_row(s, op->out, t);
    assert_true(op->n_parts == 3 && op->activation == HT_ACT_SILU);
    memset(out, 0, rows * sizeof *out);
    for (size_t e = 0; e < (size_t)op->experts; e++) {
        const double weight = scalar_row(s, op->more[0], t)[e];
        if (fpclassify(weight) == FP_ZERO)
            continue;
        scalar_product(op, 0, e, scalar_row(s, op->in, t), hidden);
        scalar_product(op, 1, e, scalar_row(s, op->in, t), up);
        for (size_t i = 0; i < n; i++)
            hidden[i] = hidden[i] / (1 + exp(-hidden[i])) * up[i];
        scalar_product(op, 2, e, hidden, given);
        for (size_t r = 0; r < rows; r++)
            out[r] += weight * given[r];
    }
    free(hidden);
}

static void scalar_embed(const scalar *s, const ht_op *op, size_t t) {
    const size_t n = ht_op_cols(op);
    double *out = scalar_row(s, op->out, t);
    float *row = malloc(n * sizeof *row);
    ht_matrix_floats(&op->parts[0], op->positions ? t : (size_t)s->ids[t], 1, row);
    for (size_t i = 0; i < n; i++)
        out[i] = (op->positions ? out[i] : 0) + (double)row[i] * (double)op->scale;
    free(row);
}

static void scalar_recurrent(const scalar *s, const ht_op *op) {
    double *off = malloc(ht_op_out_width(op, &s->model->hparams) * sizeof *off);
    recurrent r = recurrent_begin(op, &s->model->hparams);
    for (size_t t = 0; t < s->tokens; t++)
        recurrent_token(&r, scalar_row(s, op->in, t), op->n_more ? scalar_row(s, op->more[0], t) : NULL,
                        scalar_row(s, op->out, t), off);
    recurrent_end(&r);
    free(off);
}

/* Logits behind ids[0..n). */
static void scalar_logits(const ht_model *model, const int32_t *ids, size_t n, float *logits) {
    scalar s = {.model = model, .ids = ids, .tokens = n};
    s.kv_width = (size_t)(model->hparams.kv_heads * model->hparams.head_dim);
    s.keys = calloc(model->n_caches * n * s.kv_width, sizeof *s.keys);
    s.values = calloc(model->n_caches * n * s.kv_width, sizeof *s.values);
    for (int i = 0; i < model->n_slots; i++)
        s.slots[i] = calloc(n * model->slots[i].width, sizeof **s.slots);
    static void (*const per_token[HT_OP_KINDS])(const scalar *, const ht_op *, size_t) = {
        [HT_OP_EMBED] = scalar_embed,         [HT_OP_NORM] = scalar_norm, [HT_OP_ROPE] = scalar_rope,
        [HT_OP_ATTENTION] = scalar_attention, [HT_OP_GLU] = scalar_glu,   [HT_OP_ROUTE] = scalar_route,
        [HT_OP_EXPERTS] = scalar_experts};
    for (size_t i = 0; i + 1 < model->n_ops; i++) { /* all but the greedy choice */
        const ht_op *op = &model->ops[i];
        if (op->kind == HT_OP_MATMUL)
            scalar_matmul(&s, op);
        if (op->kind == HT_OP_HEADS)
            scalar_heads(&s, op);
        if (ht_op_state(op, &model->hparams))
            scalar_recurrent(&s, op);
        for (size_t t = 0; t < n && per_token[op->kind]; t++)
            per_token[op->kind](&s, op, t);
    }
    const ht_slot out = ht_model_slot(model, HT_ROLE_LOGITS);
    for (size_t v = 0; v < model->slots[out].width; v++)
        logits[v] = (float)scalar_capped(scalar_row(&s, out, n - 1)[v], model->ops[model->n_ops - 1].soft_cap);
    for (int i = 0; i < model->n_slots; i++)
        free(s.slots[i]);
    free(s.keys);
    free(s.values);
}

#endif
