/* Qwen3-Next: arch "qwen3next" (2025). Qwen3.5: archs "qwen35" and, with mixtures of experts, "qwen35moe". Qwen team
 * (2026), after Qwen3-Next (2025). Three layers of four have a gated delta net (Yang et al., 2024) in attention's
 * place; what attention gives is gated, and only a part of each head is rotated. Text has one position for the three of
 * M-RoPE. */
#include "model/build.h"

static void gated_attention(ht_builder *b, const ht_rotation *rotation) {
    const ht_hparams *h = ht_build_shape_of(b);
    const size_t dim = (size_t)h->head_dim, q = (size_t)h->heads * dim, kv = (size_t)h->kv_heads * dim;
    ht_build_block(b, HT_BLOCK_GATED_ATTENTION, h->kv_heads);
    ht_build_norm(b, "attn_norm");
    /* each head's rows of attn_q: its query, then its gate */
    ht_build_qkv_of(b,
                    (ht_build_part[]){{.name = "attn_q", .rows = q, .run = dim, .stride = 2 * dim},
                                      {.name = "attn_k", .rows = kv},
                                      {.name = "attn_v", .rows = kv}},
                    HT_BIAS_OPTIONAL);
    ht_build_rope(b, rotation);
    ht_build_attention(b, ht_build_factor(b, "attention.scale", 0.0f), 0);
    ht_build_attention_gate(b,
                            &(ht_build_part){.name = "attn_q", .rows = q, .first = dim, .run = dim, .stride = 2 * dim});
    ht_build_gated_output(b);
    ht_build_add(b, NULL);
}

static void delta_net(ht_builder *b, const ht_mixer *mixer) {
    ht_build_block(b, mixer->heads == mixer->groups ? HT_BLOCK_DELTA_NET : HT_BLOCK_GROUPED_DELTA_NET, mixer->heads);
    ht_build_norm(b, "attn_norm");
    ht_build_delta_net(b, mixer);
    ht_build_add(b, NULL);
}

static ht_status build_qwen35(const ht_family *family, ht_model *model, ht_error *error) {
    ht_builder b = ht_build_begin(model, error);
    ht_hparams *h = &model->hparams;
    const ht_rotation rotation = {.table = ht_build_rope_table(&b, ht_build_freq_base(&b, false), true),
                                  .halves = true,
                                  .q_norm = "attn_q_norm",
                                  .k_norm = "attn_k_norm"};
    const ht_mixer mixer = ht_build_read_mixer(&b);
    ht_mixture mixture = family->experts ? ht_build_mixture(&b, HT_ROUTE_SOFTMAX, true) : (ht_mixture){0};
    mixture.always_gated = true;
    const int interval = (int)ht_build_int(&b, "full_attention_interval", 1, HT_MAX_LAYERS, 4);
    const bool listed = ht_build_has(&b, "attention.recurrent_layers");
    /* behind the layers stand some that guess a further token */
    h->layers -= (int)ht_build_int(&b, "nextn_predict_layers", 0, h->layers - 1, 0);

    ht_build_embed(&b, 1.0f);
    for (int layer = 0; layer < h->layers; layer++) {
        const bool attends =
            listed ? !ht_build_int_at(&b, "attention.recurrent_layers", layer, 0, 1, 0) : (layer + 1) % interval == 0;
        ht_build_layer(&b, layer);
        if (attends)
            gated_attention(&b, &rotation);
        else
            delta_net(&b, &mixer);
        ht_build_mixed(&b, &mixture, "post_attention_norm");
    }
    return ht_build_head(&b);
}

const ht_family ht_families_qwen35[3] = {{.arch = "qwen35", .build = build_qwen35},
                                         {.arch = "qwen35moe", .build = build_qwen35, .experts = true},
                                         {.arch = "qwen3next", .build = build_qwen35, .experts = true}};
