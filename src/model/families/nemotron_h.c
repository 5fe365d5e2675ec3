/* Nemotron-H and Nemotron 3: archs "nemotron_h" and, with mixtures of experts, "nemotron_h_moe". NVIDIA, "Nemotron-H"
 * (2025). A layer is one block: Mamba-2, attention without positions, or a feed-forward block of squared ReLUs. */
#include "model/build.h"

static void attention(ht_builder *b) {
    ht_build_block(b, HT_BLOCK_ATTENTION, ht_build_shape_of(b)->kv_heads);
    ht_build_norm(b, "attn_norm");
    ht_build_qkv(b, HT_BIAS_OPTIONAL);
    ht_build_rope(b, &(ht_rotation){0});
    ht_build_attention(b, ht_build_factor(b, "attention.scale", 0.0f), 0);
    ht_build_attention_output(b);
    ht_build_add(b, NULL);
}

static void scan(ht_builder *b, const ht_mixer *mixer) {
    ht_build_block(b, HT_BLOCK_SCAN, mixer->groups);
    ht_build_norm(b, "attn_norm");
    ht_build_scan(b, mixer);
    ht_build_add(b, NULL);
}

static void feed_forward(ht_builder *b) {
    ht_build_block(b, HT_BLOCK_FEED_FORWARD, ht_build_shape_of(b)->feed_forward);
    ht_build_norm(b, "attn_norm");
    ht_build_up(b);
    ht_build_activation(b, HT_ACT_RELU2);
    ht_build_down(b);
    ht_build_add(b, NULL);
}

static ht_status build_nemotron_h(const ht_family *family, ht_model *model, ht_error *error) {
    ht_builder b = ht_build_begin(model, error);
    ht_hparams *h = &model->hparams;
    const ht_mixer mixer = ht_build_read_mixer(&b);
    ht_mixture mixture = family->experts ? ht_build_mixture(&b, HT_ROUTE_SIGMOID, false) : (ht_mixture){0};
    mixture.activation = HT_ACT_RELU2;
    mixture.ungated = mixture.always_biased = true;
    mixture.route.function = HT_ROUTE_SIGMOID;
    if (ht_build_int(&b, "moe_latent_size", 0, 1 << 20, 0) > 0)
        ht_build_fail(&b, HT_ERROR_UNSUPPORTED, "experts in a latent space are not supported");
    /* behind the layers stand some that guess a further token */
    h->layers -= (int)ht_build_int(&b, "nextn_predict_layers", 0, h->layers - 1, 0);

    ht_build_embed(&b, 1.0f);
    for (int layer = 0; layer < h->layers && b.status == HT_OK; layer++) {
        const ht_hparams own = ht_build_layer_shape(&b, layer);
        ht_build_layer(&b, layer);
        ht_build_shape(&b, &own);
        if (own.feed_forward == 0 && own.kv_heads == 0)
            scan(&b, &mixer);
        else if (own.feed_forward == 0)
            attention(&b);
        else if (mixture.experts)
            ht_build_experts(&b, &mixture, "attn_norm", NULL);
        else
            feed_forward(&b);
    }
    ht_build_shape(&b, NULL);
    return ht_build_head(&b);
}

const ht_family ht_families_nemotron_h[2] = {
    {.arch = "nemotron_h", .build = build_nemotron_h, .heads_differ = true},
    {.arch = "nemotron_h_moe", .build = build_nemotron_h, .heads_differ = true, .experts = true}};
