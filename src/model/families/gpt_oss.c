/* gpt-oss: arch "gpt-oss". OpenAI, "gpt-oss-120b & gpt-oss-20b Model Card" (2025). Every second layer, from the first on, looks at a
 * sliding window; each head has a sink, a logit of its own in the softmax; experts are clamped, and have biases, as all matrices. */
#include "model/build.h"

static ht_status build_gpt_oss(const ht_family *family, ht_model *model, ht_error *error) {
    ht_builder b = ht_build_begin(model, error);
    ht_hparams *h = &model->hparams;
    bool is_local[HT_MAX_LAYERS] = {false};
    h->sliding_window = (int)ht_build_int(&b, "attention.sliding_window", 0, INT32_MAX, h->sliding_window);
    if (h->sliding_window > 0)
        ht_build_pattern(&b, is_local, 2);
    const ht_rotation rotation = {.table = ht_build_rope_table(&b, ht_build_freq_base(&b, false), true),
                                  .halves = true};
    ht_mixture mixture = ht_build_mixture(&b, HT_ROUTE_SOFTMAX_CHOSEN, false);
    mixture.activation = HT_ACT_CLAMPED;
    if (b.status == HT_OK && mixture.experts == 0)
        ht_build_fail(&b, HT_ERROR_FORMAT, "gpt-oss.expert_count is missing, or 0");

    b.biased = true;
    ht_build_embed(&b, 1.0f);
    for (int layer = 0; layer < h->layers; layer++) {
        ht_build_layer(&b, layer);
        ht_build_block(&b, HT_BLOCK_ATTENTION, h->kv_heads);
        ht_build_norm(&b, "attn_norm");
        ht_build_qkv(&b, HT_BIAS_REQUIRED);
        ht_build_rope(&b, &rotation);
        ht_build_attention_of(
            &b, &(ht_attending){.window = is_local[layer] ? h->sliding_window : 0, .sinks = "attn_sinks.weight"});
        ht_build_attention_output(&b);
        ht_build_add(&b, NULL);
        ht_build_experts(&b, &mixture, "post_attention_norm", NULL); /* the norm of what is read, whatever its name */
    }
    return ht_build_head(&b);
}

const ht_family ht_family_gpt_oss = {.arch = "gpt-oss", .build = build_gpt_oss, .experts = true};
