/* Muse Glimmer: arch "muse-glimmer". Embeddings are normed; what heads give is gated; three layers of four have a
 * sliding window and are rotated, the others see everything and know no positions. A norm stands before and after each
 * block, those behind with an epsilon of their own. */
#include "model/build.h"

#define POST_EPSILON 1e-8f

static ht_status build_muse_glimmer(const ht_family *family, ht_model *model, ht_error *error) {
    ht_builder b = ht_build_begin(model, error);
    ht_hparams *h = &model->hparams;
    bool is_local[HT_MAX_LAYERS] = {false};
    const size_t q = (size_t)h->heads * (size_t)h->head_dim;
    h->sliding_window = (int)ht_build_int(&b, "attention.sliding_window", 0, INT32_MAX, h->sliding_window);
    if (h->sliding_window > 0)
        ht_build_pattern(&b, is_local, 4);
    b.output_scale = ht_build_factor(&b, "logit_scale", 0.0f);
    b.output_cap = ht_build_factor(&b, "final_logit_softcapping", 0.0f);
    b.post_eps = POST_EPSILON;
    const float base = ht_build_freq_base(&b, false);
    ht_rotation local = {.q_norm = "attn_q_norm", .k_norm = "attn_k_norm"}, wide = local;
    if (h->sliding_window > 0)
        local.table = ht_build_rope_table(&b, ht_build_float(&b, "rope.freq_base_swa", base), false);

    ht_build_normed_embed(&b, 1.0f, NULL);
    for (int layer = 0; layer < h->layers; layer++) {
        ht_build_layer(&b, layer);
        ht_build_block(&b, HT_BLOCK_GATED_ATTENTION, h->kv_heads);
        ht_build_norm(&b, "attn_norm");
        ht_build_qkv(&b, HT_BIAS_OPTIONAL);
        ht_build_rope(&b, is_local[layer] ? &local : &wide);
        ht_build_attention(&b, 0.0f, is_local[layer] ? h->sliding_window : 0);
        ht_build_attention_gate(&b, &(ht_build_part){.name = "attn_gate", .rows = q});
        ht_build_gated_output(&b);
        ht_build_add(&b, "post_attention_norm");
        ht_build_feed_forward(&b, "ffn_norm", HT_ACT_SILU, "post_ffw_norm");
    }
    return ht_build_head(&b);
}

const ht_family ht_family_muse_glimmer = {.arch = "muse-glimmer", .build = build_muse_glimmer};
