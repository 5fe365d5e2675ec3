/* The builder: recurrent mixers, which keep a state in place of keys and values. */
#include "model/build.h"

#include <stdio.h>

#define MOST_TAPS 8 /* of a convolution: more than any model has */

/* Numbers of a shape: model in place of what a file says, others for each: no head is like another. */
static const float *vary(ht_builder *b, const float *values, size_t n, float first, float step) {
    float *out = (float *)(uintptr_t)values; /* the model's arena's */
    for (size_t i = 0; i < n && out && !b->model->file; i++)
        out[i] = first + step * (float)(i % 13);
    return values;
}

/* What states decay by, before the step: -exp of what was trained, so nothing above 0, with which they would grow
 * without end. */
static const float *decays(ht_builder *b, size_t columns, size_t n) {
    const float *a = ht_build_vectors(b, "ssm_a", columns, n / columns, true, 0.0f);
    for (size_t i = 0; a && i < n; i++)
        if (a[i] > 0.0f)
            ht_build_fail(b, HT_ERROR_FORMAT, "tensor blk.%d.ssm_a: value %zu is %g, above 0", b->layer, i,
                          (double)a[i]);
    return a;
}

static ht_slot inputs(ht_builder *b, const char *name, size_t width) {
    return ht_build_slot(b, name, HT_ROLE_BETWEEN, width);
}

void ht_build_convolution(ht_builder *b, int taps) {
    const size_t n = b->normed;
    const ht_slot in = inputs(b, "qkv", 3 * n), out = inputs(b, "attn", n);
    if (taps < 2 || taps > MOST_TAPS)
        ht_build_fail(b, HT_ERROR_UNSUPPORTED, "a convolution over %d tokens: 2 to %d are supported", taps, MOST_TAPS);
    ht_build_part parts[3];
    for (size_t i = 0; i < 3; i++)
        parts[i] = (ht_build_part){.name = "shortconv.in_proj", .rows = n, .first = i * n, .run = n, .stride = 3 * n};
    ht_build_matmul(b, "shortconv.in_proj", ht_build_normed(b), in, n, parts, 3, HT_BIAS_OPTIONAL);
    ht_op *op = ht_build_op(b, HT_OP_CONV, "shortconv", in, out);
    if (!op)
        return;
    op->cache = b->caches++;
    op->width = (int)n;
    op->taps = taps;
    op->weight = ht_build_taps(b, "shortconv.conv.weight", taps, n);
    ht_build_give(b, "shortconv.out_proj", out, n);
}

ht_mixer ht_build_read_mixer(ht_builder *b) {
    const ht_mixer m = {.taps = (int)ht_build_int(b, "ssm.conv_kernel", 2, MOST_TAPS, 4),
                        .inner = (int)ht_build_int(b, "ssm.inner_size", 1, 1 << 20, 0),
                        .state = (int)ht_build_int(b, "ssm.state_size", 1, 1 << 12, 0),
                        .heads = (int)ht_build_int(b, "ssm.time_step_rank", 1, 1 << 12, 0),
                        .groups = (int)ht_build_int(b, "ssm.group_count", 1, 1 << 12, 0)};
    if (b->status == HT_OK &&
        (!m.inner || !m.state || !m.heads || !m.groups || m.inner % m.heads || m.heads % m.groups))
        ht_build_fail(b, HT_ERROR_FORMAT,
                      "%s.ssm: %d channels, %d heads, %d groups, states of %d: heads are whole parts of channels, "
                      "groups of heads, and none is missing",
                      b->model->info.architecture, m.inner, m.heads, m.groups, m.state);
    return b->status == HT_OK ? m : (ht_mixer){.taps = 2, .inner = 1, .state = 1, .heads = 1, .groups = 1};
}

/* The operator, with what both kinds of mixer have. */
static ht_op *mixer_op(ht_builder *b, ht_op_kind kind, const ht_mixer *m, ht_slot in, ht_slot more, ht_slot out) {
    const size_t heads = (size_t)m->heads, channels = (size_t)m->inner + 2 * (size_t)m->groups * (size_t)m->state;
    ht_op *op = ht_build_op(b, kind, kind == HT_OP_SCAN ? "scan" : "delta_net", in, out);
    if (!op)
        return NULL;
    op->cache = b->caches++;
    op->n_more = 1, op->more[0] = more;
    op->heads = m->heads, op->kv_heads = m->groups, op->head_dim = m->inner / m->heads;
    ht_recurrence *r = &op->recurrence;
    r->key_dim = m->state, r->taps = m->taps;
    r->conv = ht_build_taps(b, "ssm_conv1d.weight", m->taps, channels);
    r->dt_bias = vary(b, ht_build_vector(b, "ssm_dt.bias", heads, true, 0.0f), heads, -1.0f, 0.2f);
    return op;
}

/* Where a delta net's matrices lie. */
typedef struct delta_parts {
    ht_build_part qk[2], rest[4]; /* v, z, beta, alpha */
    bool repeated;                /* value heads that use one key head follow each other */
} delta_parts;

/* Qwen3-Next has beta and alpha of each key head's value heads in one matrix; its first files also queries, keys,
 * values, gates. */
static delta_parts find_parts(ht_builder *b, const ht_mixer *m) {
    const size_t heads = (size_t)m->heads, inner = (size_t)m->inner, state = (size_t)m->state,
                 groups = (size_t)m->groups, keys = groups * state, all = 2 * keys + inner, each = heads / groups,
                 own = inner / groups, row = 2 * state + 2 * own;
    delta_parts p = {.qk = {{.name = "attn_qkv", .rows = keys, .run = keys, .stride = all},
                            {.name = "attn_qkv", .rows = keys, .first = keys, .run = keys, .stride = all}},
                     .rest = {{.name = "attn_qkv", .rows = inner, .first = 2 * keys, .run = inner, .stride = all},
                              {.name = "attn_gate", .rows = inner},
                              {.name = "ssm_beta", .rows = heads},
                              {.name = "ssm_alpha", .rows = heads}},
                     .repeated = ht_build_has_matrix(b, "ssm_ba")};
    if (!p.repeated)
        return p;
    for (size_t i = 0; i < 2; i++)
        p.rest[2 + i] =
            (ht_build_part){.name = "ssm_ba", .rows = heads, .first = i * each, .run = each, .stride = 2 * each};
    if (ht_build_has_matrix(b, "attn_qkv"))
        return p;
    for (size_t i = 0; i < 2; i++) {
        p.qk[i] = (ht_build_part){.name = "ssm_in", .rows = keys, .first = i * state, .run = state, .stride = row};
        p.rest[i] =
            (ht_build_part){.name = "ssm_in", .rows = inner, .first = 2 * state + i * own, .run = own, .stride = row};
    }
    return p;
}

void ht_build_delta_net(ht_builder *b, const ht_mixer *m) {
    const size_t heads = (size_t)m->heads, inner = (size_t)m->inner, keys = (size_t)m->groups * (size_t)m->state,
                 cols = b->normed;
    /* where there are fewer key heads every lane has all of them for itself */
    const delta_parts parts = find_parts(b, m);
    const ht_slot in = m->groups < m->heads ? ht_build_slot(b, "qk", HT_ROLE_PRIVATE, 2 * keys)
                                            : inputs(b, "qkv", 2 * keys),
                  more = inputs(b, "ffn", 2 * inner + 2 * heads), out = inputs(b, "attn", inner);
    ht_build_matmul(b, "attn_qk", ht_build_normed(b), in, cols, parts.qk, 2, HT_BIAS_OPTIONAL);
    ht_build_matmul(b, "attn_v_gate", ht_build_normed(b), more, cols, parts.rest, 4, HT_BIAS_OPTIONAL);
    ht_op *op = mixer_op(b, HT_OP_DELTA_NET, m, in, more, out);
    if (!op)
        return;
    const size_t dim = (size_t)op->head_dim;
    op->recurrence.repeated = parts.repeated;
    op->recurrence.a = vary(b, decays(b, heads, heads), heads, -0.05f, -0.06f);
    op->recurrence.norm = vary(b, ht_build_vector(b, "ssm_norm.weight", dim, true, 1.0f), dim, 0.5f, 0.1f);
    ht_build_give(b, "ssm_out", out, inner);
}

void ht_build_scan(ht_builder *b, const ht_mixer *m) {
    const size_t heads = (size_t)m->heads, groups = (size_t)m->groups, inner = (size_t)m->inner,
                 states = groups * (size_t)m->state, all = 2 * inner + 2 * states + heads, cols = b->normed;
    const ht_slot in = inputs(b, "ffn", 2 * inner + heads), more = inputs(b, "qkv", 2 * states),
                  out = inputs(b, "attn", inner);
    const ht_build_part z = {.name = "ssm_in", .rows = inner, .run = inner, .stride = all};
    ht_build_part x = z, dt = z, common[2] = {z, z};
    x.first = inner;
    for (size_t i = 0; i < 2; i++)
        common[i].rows = common[i].run = states, common[i].first = 2 * inner + i * states;
    dt.rows = dt.run = heads, dt.first = 2 * inner + 2 * states;
    ht_build_matmul(b, "ssm_in", ht_build_normed(b), in, cols, (ht_build_part[]){z, x, dt}, 3, HT_BIAS_OPTIONAL);
    ht_build_matmul(b, "ssm_in_bc", ht_build_normed(b), more, cols, common, 2, HT_BIAS_OPTIONAL);
    ht_op *op = mixer_op(b, HT_OP_SCAN, m, in, more, out);
    if (!op)
        return;
    ht_recurrence *r = &op->recurrence;
    r->conv_bias = ht_build_vector(b, "ssm_conv1d.bias", inner + 2 * states, false, 0.0f);
    r->a = vary(b, decays(b, 1, heads), heads, -0.3f, -0.2f);
    r->skip = vary(b, ht_build_vectors(b, "ssm_d", 1, heads, true, 0.0f), heads, 0.3f, 0.1f);
    r->norm = vary(b, ht_build_vectors(b, "ssm_norm.weight", inner / groups, groups, true, 0.0f), inner, 0.5f, 0.1f);
    ht_build_give(b, "ssm_out", out, inner);
}
