/* A model of no family, with what families do to norms, queries, keys, scores, gates and logits: for tests of lanes. */
#ifndef TEST_VARIED_MODEL_H
#define TEST_VARIED_MODEL_H

#include "model/build.h"

enum { VARIED_CACHES = 6, VARIED_MATRICES = 45 }; /* as RECURRENT_MATRICES */

static void varied_attention(ht_builder *b, int layer, ht_block_kind kind, const ht_rotation *rotation,
                             const ht_attending *attending, const char *post_norm) {
    const size_t q = 128;
    ht_build_layer(b, layer);
    ht_build_block(b, kind, b->model->hparams.kv_heads);
    ht_build_norm(b, post_norm ? NULL : "attn_norm");
    ht_build_qkv(b, HT_BIAS_OPTIONAL);
    ht_build_rope(b, rotation);
    ht_build_attention_of(b, attending);
    if (kind == HT_BLOCK_GATED_ATTENTION) {
        ht_build_attention_gate(b, &(ht_build_part){.name = "attn_gate", .rows = q});
        ht_build_gated_output(b);
    } else {
        ht_build_attention_output(b);
    }
    ht_build_add(b, post_norm);
}

static void varied_feed_forward(ht_builder *b, int layer, ht_activation activation, bool ungated,
                                const char *post_norm) {
    ht_build_layer(b, layer);
    ht_build_block(b, HT_BLOCK_FEED_FORWARD, b->model->hparams.feed_forward);
    ht_build_norm(b, post_norm ? NULL : "ffn_norm");
    if (ungated) {
        ht_build_up(b);
        ht_build_activation(b, activation);
    } else {
        ht_build_gate_up(b);
        ht_build_glu(b, activation);
    }
    ht_build_down(b);
    ht_build_add(b, post_norm);
}

static void varied_latent(ht_builder *b, int layer, int query_rank, const float *table) {
    const ht_latent latent = {.latent = 24, .plain = 16, .rotated = 8, .values = 16, .query_rank = query_rank};
    ht_hparams shape = b->model->hparams;
    shape.kv_heads = 1;
    ht_build_shape(b, &shape);
    ht_build_layer(b, layer);
    ht_build_latent_attention(b, &latent, &(ht_rotation){.table = table}, 0.25f);
    ht_build_add(b, NULL);
    ht_build_shape(b, NULL);
}

/* Norms' biases and sinks, of which made-up weights have none. */
static void varied_vectors(ht_model *model) {
    static float values[1024];
    for (size_t i = 0; i < HT_COUNT(values); i++)
        values[i] = (float)(i * 37 % 101) / 101 - 0.5f;
    for (size_t i = 0; i < model->n_ops; i++) {
        ht_op *op = &model->ops[i];
        if (op->kind == HT_OP_NORM && op->norm == HT_NORM_LAYER)
            op->norm_bias = values + i;
        if (op->sinks)
            op->sinks = values + i;
        if (op->kind == HT_OP_ROPE && op->norm_heads)
            op->q_norm = values + 100, op->k_norm = values + 300;
    }
}

/* Layers of shape:tiny's width, heads and features; `wide`: its rope table. */
static ht_status varied_list(ht_builder *b, const float *wide) {
    const float *narrow = ht_build_rope_table_of(b, &(ht_rope_kind){.freq_base = 500, .dim = 8}),
                *growing = ht_build_rope_table_of(
                    b, &(ht_rope_kind){.freq_base = 500, .dim = 32, .growth = 0.3f, .every = 16});
    const ht_rotation own = {.table = wide,
                             .halves = true,
                             .q_norm = "attn_q_norm",
                             .k_norm = "attn_k_norm",
                             .norm = HT_NORM_LAYER,
                             .norm_heads = true},
                      whole = {.table = wide, .q_norm = "attn_q_norm", .k_norm = "attn_k_norm", .norm_whole = true},
                      none = {.v_norm = true}, grown = {.table = wide, .queries = growing};
    b->model->hparams.group = 4;
    ht_build_positions(b, "position_embd");
    b->norm = HT_NORM_LAYER;
    varied_attention(b, 0, HT_BLOCK_ATTENTION, &own, &(ht_attending){.window = 16, .sinks = "attn_sinks.weight"}, NULL);
    varied_feed_forward(b, 0, HT_ACT_RELU2, true, NULL);
    b->norm = HT_NORM_RMS;
    varied_attention(b, 1, HT_BLOCK_WHOLE_ROW_ATTENTION, &whole, &(ht_attending){0}, "post_norm");
    varied_feed_forward(b, 1, HT_ACT_GELU, false, "post_norm");
    varied_latent(b, 0, 0, narrow);
    varied_latent(b, 1, 48, narrow);
    varied_attention(b, 0, HT_BLOCK_GATED_ATTENTION, &none, &(ht_attending){.soft_cap = 2, .alibi = 8}, NULL);
    varied_attention(b, 1, HT_BLOCK_GATED_ATTENTION, &grown, &(ht_attending){.chunk = 24}, NULL);
    varied_feed_forward(b, 1, HT_ACT_CLAMPED, false, NULL);
    b->norm = HT_NORM_LAYER;
    b->output_scale = 0.5f, b->output_cap = 3;
    const ht_status status = ht_build_head(b);
    varied_vectors(b->model);
    return status;
}

#endif
