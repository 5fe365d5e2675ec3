/* LFM2: archs "lfm2" and, with mixtures of experts behind the first layers, "lfm2moe". Liquid AI, "LFM2 Technical Report"
 * (2025). Most layers have a short convolution in attention's place; attention is Qwen3's. */
#include "model/build.h"

static void mixer(ht_builder *b, const ht_rotation *rotation, int taps, int window) {
    if (ht_build_shape_of(b)->kv_heads == 0) {
        ht_build_block(b, HT_BLOCK_CONVOLUTION, b->model->hparams.embedding);
        ht_build_norm(b, "attn_norm");
        ht_build_convolution(b, taps);
    } else {
        ht_build_block(b, HT_BLOCK_ATTENTION, ht_build_shape_of(b)->kv_heads);
        ht_build_norm(b, "attn_norm");
        ht_build_qkv(b, HT_BIAS_OPTIONAL);
        ht_build_rope(b, rotation);
        ht_build_attention(b, 0.0f, window);
        ht_build_attention_output(b);
    }
    ht_build_add(b, NULL);
}

static ht_status build_lfm2(const ht_family *family, ht_model *model, ht_error *error) {
    ht_builder b = ht_build_begin(model, error);
    const ht_hparams *h = &model->hparams;
    const ht_rotation rotation = {.table = ht_build_rope_table(&b, ht_build_freq_base(&b, false), true),
                                  .halves = true,
                                  .q_norm = "attn_q_norm",
                                  .k_norm = "attn_k_norm"};
    const int taps = (int)ht_build_int(&b, "shortconv.l_cache", 2, 1024, 3);
    ht_mixture mixture = family->experts ? ht_build_mixture(&b, HT_ROUTE_SIGMOID, true) : (ht_mixture){0};
    mixture.always_biased = true;
    const int window = (int)ht_build_int(&b, "attention.sliding_window", 0, INT32_MAX, 0);

    ht_build_embed(&b, 1.0f);
    for (int layer = 0; layer < h->layers; layer++) {
        const ht_hparams own = ht_build_layer_shape(&b, layer);
        ht_build_layer(&b, layer);
        ht_build_shape(&b, &own);
        mixer(&b, &rotation, taps, window);
        ht_build_mixed(&b, &mixture, "ffn_norm");
    }
    ht_build_shape(&b, NULL);
    b.output_norm = "token_embd_norm"; /* so the files call it */
    return ht_build_head(&b);
}

const ht_family ht_families_lfm2[2] = {{.arch = "lfm2", .build = build_lfm2, .heads_differ = true},
                                       {.arch = "lfm2moe", .build = build_lfm2, .heads_differ = true, .experts = true}};
