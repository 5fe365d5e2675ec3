/* A model of no family, whose states are of every kind: for tests of lanes and of sessions. */
#ifndef TEST_RECURRENT_MODEL_H
#define TEST_RECURRENT_MODEL_H

#include "model/build.h"

#include <stdlib.h>

static void recurrent_mixer(ht_builder *b, int layer, ht_block_kind kind, const ht_mixer *mixer) {
    const int units = kind == HT_BLOCK_CONVOLUTION ? b->model->hparams.embedding
                      : kind == HT_BLOCK_SCAN      ? mixer->groups
                                                   : mixer->heads;
    ht_build_layer(b, layer);
    ht_build_block(b, kind, units);
    ht_build_norm(b, "attn_norm");
    if (kind == HT_BLOCK_CONVOLUTION)
        ht_build_convolution(b, 3);
    else if (kind == HT_BLOCK_SCAN)
        ht_build_scan(b, mixer);
    else
        ht_build_delta_net(b, mixer);
    ht_build_add(b, NULL);
}

static void recurrent_attention(ht_builder *b, int layer, const ht_rotation *rotation) {
    ht_build_layer(b, layer);
    ht_build_block(b, HT_BLOCK_ATTENTION, b->model->hparams.kv_heads);
    ht_build_norm(b, "attn_norm");
    ht_build_qkv(b, HT_BIAS_OPTIONAL);
    ht_build_rope(b, rotation);
    ht_build_attention(b, 0, 0);
    ht_build_attention_output(b);
    ht_build_add(b, NULL);
}

static void recurrent_feed_forward(ht_builder *b, int layer) {
    ht_build_layer(b, layer);
    ht_build_block(b, HT_BLOCK_FEED_FORWARD, b->model->hparams.feed_forward);
    ht_build_norm(b, "ffn_norm");
    ht_build_gate_up(b);
    ht_build_glu(b, HT_ACT_SILU);
    ht_build_down(b);
    ht_build_add(b, NULL);
}

enum { RECURRENT_CACHES = 6, RECURRENT_MATRICES = 24 }; /* one behind another, what is between them taken for some */

/* Layers of shape:tiny's width. The second convolution is like the first, and has a state of its own. */
static inline ht_status recurrent_list(ht_builder *b, const ht_rotation *rotation) {
    const ht_mixer even = {.taps = 4, .inner = 128, .state = 16, .heads = 4, .groups = 4};
    const ht_mixer fewer = {.taps = 4, .inner = 128, .state = 32, .heads = 4, .groups = 2};
    const ht_mixer scan = {.taps = 4, .inner = 256, .state = 16, .heads = 8, .groups = 4};
    recurrent_mixer(b, 0, HT_BLOCK_CONVOLUTION, NULL);
    recurrent_mixer(b, 1, HT_BLOCK_DELTA_NET, &even);
    recurrent_attention(b, 0, rotation);
    recurrent_mixer(b, 1, HT_BLOCK_CONVOLUTION, NULL);
    recurrent_feed_forward(b, 1);
    recurrent_mixer(b, 0, HT_BLOCK_SCAN, &scan);
    recurrent_mixer(b, 1, HT_BLOCK_GROUPED_DELTA_NET, &fewer);
    recurrent_feed_forward(b, 0);
    return ht_build_head(b);
}

/* The operators of an open model are taken away, for others to be listed. */
static void recurrent_clear(ht_model *model) {
    free(model->fused);
    model->fused = NULL;
    model->n_ops = model->n_blocks = model->n_axes = model->n_groups = model->n_signatures = 0;
    model->n_block_kinds = model->n_sites = model->n_caches = model->tail = 0;
    model->n_slots = 0, model->most_added = 0;
}

/* Of shape:tiny only what other models need is left: its rotation, and, behind the embedding, a builder. */
static inline ht_rotation recurrent_anew(ht_model *model, ht_builder *b, ht_error *error) {
    const ht_rotation rotation = {.table = model->ops[3].rope};
    recurrent_clear(model);
    *b = ht_build_begin(model, error);
    ht_build_embed(b, 1);
    return rotation;
}

#endif
