/* Command R and R+: arch "command-r". Cohere (2024). Attention and the feed-forward block read one LayerNorm, which has no bias, and the
 * stream gets what both gave. R+ norms queries and keys, each head with weights of its own. Logits are scaled by the final norm's
 * weights. */
#include "model/build.h"

static ht_status build_command_r(const ht_family *family, ht_model *model, ht_error *error) {
    ht_builder b = ht_build_begin(model, error);
    ht_rotation rotation = {.table = ht_build_rope_table(&b, ht_build_freq_base(&b, false), true),
                            .norm = HT_NORM_LAYER,
                            .norm_heads = true};
    b.norm = HT_NORM_LAYER;
    b.output_scale = ht_build_factor(&b, "logit_scale", 0.0f);
    ht_build_embed(&b, 1.0f);
    for (int layer = 0; layer < model->hparams.layers; layer++) {
        ht_build_layer(&b, layer);
        const bool normed = ht_build_has_matrix(&b, "attn_q_norm") || ht_build_has_matrix(&b, "attn_k_norm");
        rotation.q_norm = normed ? "attn_q_norm" : NULL;
        rotation.k_norm = normed ? "attn_k_norm" : NULL;
        ht_build_block(&b, HT_BLOCK_ATTENTION, model->hparams.kv_heads);
        ht_build_norm(&b, "attn_norm");
        ht_build_qkv(&b, HT_BIAS_OPTIONAL);
        ht_build_rope(&b, &rotation);
        ht_build_attention(&b, 0.0f, 0);
        ht_build_attention_output(&b);
        ht_build_add(&b, NULL);
        ht_build_block(&b, HT_BLOCK_FEED_FORWARD, model->hparams.feed_forward); /* beside it */
        ht_build_gate_up(&b);
        ht_build_glu(&b, HT_ACT_SILU);
        ht_build_down(&b);
        ht_build_add(&b, NULL);
    }
    return ht_build_head(&b);
}

const ht_family ht_family_command_r = {.arch = "command-r", .build = build_command_r, .layer_norm = true};
