/* A model's operators one after the other in double precision, from its weights as they are: what devices' logits
 * are compared with. It follows the comments at ht_op_kind and nothing else. */
#ifndef TEST_SCALAR_H
#define TEST_SCALAR_H

#include "unit/test.h"

#include "model/model.h"

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

static void scalar_rms(const double *x, const float *weight, double eps, size_t n, double *out) {
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    for (size_t i = 0; i < n; i++)
        out[i] = x[i] / sqrt(sum / (double)n + eps) * (double)weight[i];
}

static void scalar_norm(const scalar *s, const ht_op *op, size_t t) {
    const size_t n = (size_t)op->width;
    double *x = scalar_row(s, op->in, t), delta[1024] = {0};
    assert_true(n <= 1024);
    for (size_t k = 0; k < ht_op_added(op); k++)
        for (size_t i = 0; i < n; i++)
            delta[i] += scalar_row(s, ht_op_addend(op, k), t)[i];
    if (op->post_norm)
        scalar_rms(delta, op->post_norm, (double)op->eps, n, delta);
    for (size_t i = 0; i < n; i++)
        x[i] += delta[i];
    scalar_rms(x, op->weight, (double)op->eps, n, scalar_row(s, op->out, t));
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
                 kvs = (size_t)op->kv_heads;
    double *x = scalar_row(s, op->in, t);
    for (size_t h = 0; h < heads + kvs; h++) {
        double *head = x + h * dim;
        const float *norm = h < heads ? op->q_norm : op->k_norm;
        if (norm)
            scalar_rms(head, norm, (double)op->eps, dim, head);
        for (size_t i = 0; i < half; i++) {
            double *a = head + (op->rope_halves ? i : 2 * i), *b = op->rope_halves ? a + half : a + 1;
            const double c = (double)op->rope[t * dim + 2 * i], d = (double)op->rope[t * dim + 2 * i + 1], was = *a;
            *a = was * c - *b * d;
            *b = was * d + *b * c;
        }
    }
    memcpy(scalar_kv(s, s->keys, op, t), x + heads * dim, kvs * dim * sizeof *x);
    memcpy(scalar_kv(s, s->values, op, t), x + (heads + kvs) * dim, kvs * dim * sizeof *x);
}

static void scalar_attention(const scalar *s, const ht_op *op, size_t t) {
    const size_t dim = (size_t)op->head_dim, group = (size_t)(op->heads / op->kv_heads),
                 first = op->window && t >= (size_t)op->window ? t + 1 - (size_t)op->window : 0;
    for (size_t h = 0; h < (size_t)op->heads; h++) {
        const double *query = scalar_row(s, op->in, t) + h * dim;
        double *out = scalar_row(s, op->out, t) + h * dim, all = 0;
        memset(out, 0, dim * sizeof *out);
        for (size_t k = first; k <= t; k++) {
            const double *key = scalar_kv(s, s->keys, op, k) + h / group * dim,
                         *value = scalar_kv(s, s->values, op, k) + h / group * dim;
            double score = 0;
            for (size_t i = 0; i < dim; i++)
                score += query[i] * key[i];
            const double weight = exp(score * (double)op->scale);
            all += weight;
            for (size_t i = 0; i < dim; i++)
                out[i] += weight * value[i];
        }
        for (size_t i = 0; i < dim; i++)
            out[i] /= all;
    }
}

static void scalar_glu(const scalar *s, const ht_op *op, size_t t) {
    const size_t n = (size_t)op->width;
    const double *gate = scalar_row(s, op->in, t),
                 *up = op->n_more ? scalar_row(s, op->more[0], t) + op->more_first : gate + n;
    assert_int_equal(op->activation, HT_ACT_SILU);
    for (size_t i = 0; i < n; i++)
        scalar_row(s, op->out, t)[i] = gate[i] / (1 + exp(-gate[i])) * up[i];
}

static void scalar_embed(const scalar *s, const ht_op *op, size_t t) {
    const size_t n = ht_op_cols(op);
    float *row = malloc(n * sizeof *row);
    ht_matrix_floats(&op->parts[0], (size_t)s->ids[t], 1, row);
    for (size_t i = 0; i < n; i++)
        scalar_row(s, op->out, t)[i] = (double)row[i] * (double)op->scale;
    free(row);
}

/* Logits behind ids[0..n). */
static void scalar_logits(const ht_model *model, const int32_t *ids, size_t n, float *logits) {
    scalar s = {.model = model, .ids = ids, .tokens = n};
    s.kv_width = (size_t)(model->hparams.kv_heads * model->hparams.head_dim);
    s.keys = calloc(model->n_caches * n * s.kv_width, sizeof *s.keys);
    s.values = calloc(model->n_caches * n * s.kv_width, sizeof *s.values);
    for (int i = 0; i < model->n_slots; i++)
        s.slots[i] = calloc(n * model->slots[i].width, sizeof **s.slots);
    static void (*const per_token[HT_OP_KINDS])(const scalar *, const ht_op *,
                                                size_t) = {[HT_OP_EMBED] = scalar_embed,
                                                           [HT_OP_NORM] = scalar_norm,
                                                           [HT_OP_ROPE] = scalar_rope,
                                                           [HT_OP_ATTENTION] = scalar_attention,
                                                           [HT_OP_GLU] = scalar_glu};
    for (size_t i = 0; i + 1 < model->n_ops; i++) { /* all but the greedy choice */
        const ht_op *op = &model->ops[i];
        if (op->kind == HT_OP_MATMUL)
            scalar_matmul(&s, op);
        for (size_t t = 0; t < n && op->kind != HT_OP_MATMUL; t++)
            per_token[op->kind](&s, op, t);
    }
    const ht_slot out = ht_model_slot(model, HT_ROLE_LOGITS);
    for (size_t v = 0; v < model->slots[out].width; v++)
        logits[v] = (float)scalar_row(&s, out, n - 1)[v];
    for (int i = 0; i < model->n_slots; i++)
        free(s.slots[i]);
    free(s.keys);
    free(s.values);
}

#endif
