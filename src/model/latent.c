/* Multi-head latent attention: DeepSeek-AI, "DeepSeek-V2" (2024). Keys and values of all heads are made from one latent
 * row a token, which is all that is kept: [latent, normed | shared key, rotated]. Each head's own matrices absorb its
 * queries into the latent space (attn_k_b) and take its values out of it (attn_v_b), so that attention is that of one
 * key-value head whose values are its keys' first values. */
#include "model/build.h"

#include <stdio.h>
#include <string.h>

static size_t key_row(const ht_latent *l) { /* as it is cached */
    return (size_t)l->latent + (size_t)l->rotated;
}

static size_t all_queries(const ht_builder *b, const ht_latent *l) {
    return (size_t)ht_build_shape_of(b)->heads * (size_t)(l->plain + l->rotated);
}

/* Each head's own matrix, from values of `width` each of which it reads as many as it has columns and copies the next
 * `rest`. */
static void heads(ht_builder *b, const char *name, ht_slot in, ht_slot out, ht_matrix matrix, int width, int rest) {
    ht_op *op = ht_build_op(b, HT_OP_HEADS, name, in, out);
    if (!op)
        return;
    op->heads = ht_build_shape_of(b)->heads, op->kv_heads = 1, op->head_dim = width;
    op->n_parts = 1, op->parts[0] = matrix;
    op->rest = rest;
}

/* Older files have keys' and values' rows of each head in one matrix, and keys' the other way round. */
static ht_matrix turned(ht_builder *b, const ht_latent *l) {
    const size_t n = (size_t)ht_build_shape_of(b)->heads, plain = (size_t)l->plain, cols = (size_t)l->latent,
                 stride = plain + (size_t)l->values;
    const ht_matrix both = ht_build_matrix(b, "attn_kv_b", n * stride, cols);
    if (b->status != HT_OK || !both.data)
        return both;
    char name[96];
    snprintf(name, sizeof name, "%s[0+%zu/%zu]", both.name, plain, stride);
    ht_matrix m = {.name = ht_arena_strndup(&b->model->arena, name, strlen(name)),
                   .type = ht_type_get(HT_TYPE_F32),
                   .rows = n * cols,
                   .cols = plain,
                   .row_bytes = plain * sizeof(float),
                   .made = true};
    float *data = ht_arena_alloc(&b->model->arena, m.rows * m.row_bytes);
    float *row = ht_arena_alloc(&b->model->arena, cols * sizeof *row);
    if (!data || !row || !m.name) {
        ht_build_fail(b, HT_ERROR_MEMORY, "out of memory for %s", both.name);
        return m;
    }
    for (size_t r = 0; r < n * plain; r++) {
        ht_matrix_floats(&both, r / plain * stride + r % plain, 1, row);
        for (size_t c = 0; c < cols; c++)
            data[(r / plain * cols + c) * plain + r % plain] = row[c];
    }
    m.data = (const uint8_t *)data;
    return m;
}

static ht_matrix key_matrix(ht_builder *b, const ht_latent *l) {
    const size_t n = (size_t)ht_build_shape_of(b)->heads;
    return l->old ? turned(b, l) : ht_build_matrices(b, "attn_k_b", (size_t)l->latent, (size_t)l->plain, n);
}

static ht_matrix value_matrix(ht_builder *b, const ht_latent *l) {
    const size_t n = (size_t)ht_build_shape_of(b)->heads, rows = (size_t)l->values, cols = (size_t)l->latent,
                 plain = (size_t)l->plain;
    return l->old ? ht_build_rows(b, "attn_kv_b", n * rows, cols, plain, rows, plain + rows)
                  : ht_build_matrices(b, "attn_v_b", rows, cols, n);
}

/* Queries from what was normed, in the model's own space, and the key row; *first: where that one begins in the slot. */
static void queries(ht_builder *b, const ht_latent *l) {
    const size_t q = all_queries(b, l), row = key_row(l);
    const ht_slot out = ht_build_slot(b, "queries", HT_ROLE_BETWEEN, q + row);
    ht_build_matmul(b, "attn_q_kv_a", ht_build_normed(b), out, b->normed,
                    (ht_build_part[]){{.name = "attn_q", .rows = q}, {.name = "attn_kv_a_mqa", .rows = row}}, 2,
                    HT_BIAS_OPTIONAL);
}

/* The same by way of a latent row of queries, which every lane makes for itself, with the key row behind it. */
static void low_rank_queries(ht_builder *b, const ht_latent *l) {
    const size_t rank = (size_t)l->query_rank, row = key_row(l), q = all_queries(b, l);
    const ht_slot both = ht_build_slot(b, "q_kv_a", HT_ROLE_PRIVATE, rank + row),
                  normed = ht_build_slot(b, "q_a", HT_ROLE_PRIVATE, rank);
    ht_build_matmul(b, "attn_q_kv_a", ht_build_normed(b), both, b->normed,
                    (ht_build_part[]){{.name = "attn_q_a", .rows = rank}, {.name = "attn_kv_a_mqa", .rows = row}}, 2,
                    HT_BIAS_OPTIONAL);
    ht_op *op = ht_build_op(b, HT_OP_NORM, "attn_q_a_norm", both, normed);
    if (!op)
        return;
    op->width = (int)rank;
    op->weight = ht_build_vector(b, "attn_q_a_norm.weight", rank, true, 1.0f);
    ht_build_matmul(b, "attn_q_b", normed, ht_build_slot(b, "queries", HT_ROLE_BETWEEN, q), rank,
                    (ht_build_part[]){{.name = "attn_q_b", .rows = q}}, 1, HT_BIAS_OPTIONAL);
}

void ht_build_latent_attention(ht_builder *b, const ht_latent *l, const ht_rotation *rotation, float scale) {
    const ht_hparams *h = ht_build_shape_of(b);
    const size_t n = (size_t)h->heads, row = key_row(l);
    ht_rotation keys = *rotation;
    ht_build_block(b, l->query_rank ? HT_BLOCK_LOW_RANK_ATTENTION : HT_BLOCK_LATENT_ATTENTION, 1);
    ht_build_norm(b, "attn_norm");
    if (l->query_rank)
        low_rank_queries(b, l);
    else
        queries(b, l);
    const ht_slot in = ht_build_slot(b, "queries", HT_ROLE_BETWEEN, 0),
                  latent = ht_build_slot(b, "latent", HT_ROLE_BETWEEN, (n + 1) * row);
    heads(b, "attn_k_b", in, latent, key_matrix(b, l), l->plain + l->rotated, l->rotated);
    if (b->status != HT_OK)
        return;
    ht_op *op = &b->model->ops[b->model->n_ops - 1];
    op->n_copied = row;
    if (l->query_rank) {
        op->n_more = 1, op->more[0] = ht_build_slot(b, "q_kv_a", HT_ROLE_PRIVATE, 0);
        op->more_first = (size_t)l->query_rank;
    }
    keys.k_norm = "attn_kv_a_norm", keys.norm_dim = l->latent;
    keys.first = rotation->queries ? 0 : l->latent, keys.value_dim = l->latent;
    ht_build_rope(b, &keys);
    ht_build_attention_of(b, &(ht_attending){.scale = scale, .value_dim = l->latent});
    const ht_slot attended = ht_build_slot(b, "attn", HT_ROLE_BETWEEN, 0),
                  values = ht_build_slot(b, "values", HT_ROLE_BETWEEN, n * (size_t)l->values);
    heads(b, "attn_v_b", attended, values, value_matrix(b, l), h->head_dim, 0);
    ht_build_give(b, "attn_output", values, n * (size_t)l->values);
}
