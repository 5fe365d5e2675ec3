/* Granite 4.0, the hybrids, with mixtures of experts and without: arch "granitehybrid"; Granite 3's mixtures, which
 * have attention alone and always positions: "granitemoe". IBM (2024, 2025). Most layers have Mamba-2 in attention's
 * place, and attention knows no positions. What blocks give is scaled by s before it is added: here the residual stream
 * is divided by s instead, from the embedding on, and what its norms add to the mean of squares by s^2. Logits are
 * scaled by the final norm's weights. */
#include "model/build.h"

static void attention(ht_builder *b, const ht_rotation *rotation, float scale) {
    ht_build_block(b, HT_BLOCK_ATTENTION, ht_build_shape_of(b)->kv_heads);
    ht_build_norm(b, "attn_norm");
    ht_build_qkv(b, HT_BIAS_OPTIONAL);
    ht_build_rope(b, rotation);
    ht_build_attention(b, scale, 0);
    ht_build_attention_output(b);
    ht_build_add(b, NULL);
}

static void scan(ht_builder *b, const ht_mixer *mixer) {
    ht_build_block(b, HT_BLOCK_SCAN, mixer->groups);
    ht_build_norm(b, "attn_norm");
    ht_build_scan(b, mixer);
    ht_build_add(b, NULL);
}

static ht_status build_granitehybrid(const ht_family *family, ht_model *model, ht_error *error) {
    ht_builder b = ht_build_begin(model, error);
    const ht_hparams *h = &model->hparams;
    ht_rotation rotation = {0};
    const ht_mixer mixer = family->heads_differ ? ht_build_read_mixer(&b) : (ht_mixer){0};
    const float residual = ht_build_factor(&b, "residual_scale", 1.0f),
                attention_scale = ht_build_factor(&b, "attention.scale", 0.0f);
    const ht_mixture mixture = ht_build_mixture_of(&b, HT_ROUTE_SOFTMAX, true, h->feed_forward);
    if (!family->heads_differ || ht_build_bool(&b, "rope.scaling.finetuned", true))
        rotation.table = ht_build_rope_table(&b, ht_build_freq_base(&b, false), true);
    b.stream_eps = h->eps / (residual * residual);
    b.output_scale = 1.0f / ht_build_factor(&b, "logit_scale", 1.0f);

    ht_build_embed(&b, ht_build_factor(&b, "embedding_scale", 1.0f) / residual);
    for (int layer = 0; layer < h->layers; layer++) {
        const ht_hparams own = ht_build_layer_shape(&b, layer);
        ht_build_layer(&b, layer);
        ht_build_shape(&b, &own);
        if (own.kv_heads)
            attention(&b, &rotation, attention_scale);
        else
            scan(&b, &mixer);
        ht_build_mixed(&b, &mixture, "ffn_norm");
    }
    ht_build_shape(&b, NULL);
    return ht_build_head(&b);
}

const ht_family ht_families_granite[2] = {
    {.arch = "granitehybrid", .build = build_granitehybrid, .heads_differ = true, .experts = true},
    {.arch = "granitemoe", .build = build_granitehybrid, .experts = true}};
