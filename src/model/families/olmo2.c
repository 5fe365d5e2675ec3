/* OLMo 2 and 3: arch "olmo2". "2 OLMo 2 Furious" (2024), "OLMo 3" (2025). Blocks read the stream as it is; what they give is normed
 * before it is added. Queries and keys are normed as whole rows. OLMo 3 has sliding windows in three layers of four, whose rotation
 * is not stretched. */
#include "model/build.h"

static ht_status build_olmo2(const ht_family *family, ht_model *model, ht_error *error) {
    ht_builder b = ht_build_begin(model, error);
    ht_hparams *h = &model->hparams;
    bool is_local[HT_MAX_LAYERS] = {false};
    const float base = ht_build_freq_base(&b, false);
    h->sliding_window = (int)ht_build_int(&b, "attention.sliding_window", 0, INT32_MAX, h->sliding_window);
    if (h->sliding_window > 0)
        ht_build_pattern(&b, is_local, 4);
    ht_rotation wide = {.halves = true, .q_norm = "attn_q_norm", .k_norm = "attn_k_norm", .norm_whole = true};
    wide.table = ht_build_rope_table(&b, base, true);
    ht_rotation local = wide;
    if (h->sliding_window > 0)
        local.table = ht_build_rope_table(&b, ht_build_float(&b, "rope.freq_base_swa", base), false);

    ht_build_embed(&b, 1.0f);
    for (int layer = 0; layer < h->layers; layer++) {
        ht_build_layer(&b, layer);
        ht_build_block(&b, HT_BLOCK_WHOLE_ROW_ATTENTION, h->kv_heads);
        ht_build_norm(&b, NULL);
        ht_build_qkv(&b, HT_BIAS_OPTIONAL);
        ht_build_rope(&b, is_local[layer] ? &local : &wide);
        ht_build_attention(&b, 0.0f, is_local[layer] ? h->sliding_window : 0);
        ht_build_attention_output(&b);
        ht_build_add(&b, "post_attention_norm");
        ht_build_feed_forward(&b, NULL, HT_ACT_SILU, "post_ffw_norm");
    }
    return ht_build_head(&b);
}

const ht_family ht_family_olmo2 = {.arch = "olmo2", .build = build_olmo2};
