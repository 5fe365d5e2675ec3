/* Llama 4, text part: arch "llama4". Meta (2025). Three layers of four see the keys of their own run of 8,192
 * positions; every fourth one sees all, knows no positions, and its queries grow with them. Queries and keys of the
 * former are normed without weights behind the rotation, but in the model of 128 experts. Experts weigh what they read
 * by a sigmoid; every so manieth layer has some, and a shared one beside them as wide as each. */
#include "model/build.h"

enum { CHUNK = 8192, PERIOD = 4, LARGEST = 128 };

/* A file whose sliding window is 0 has no such layers: all rotate and see everything. llama.cpp knows CHUNK as a number
 * of its own; keys of ours may name another. */
static ht_status build_llama4(const ht_family *family, ht_model *model, ht_error *error) {
    ht_builder b = ht_build_begin(model, error);
    ht_hparams *h = &model->hparams;
    bool is_local[HT_MAX_LAYERS] = {false};
    const bool chunks = ht_build_int(&b, "attention.sliding_window", 0, INT32_MAX, CHUNK) != 0;
    const int chunk = (int)ht_build_int(&b, "attention.chunk_size", 1, INT32_MAX, CHUNK);
    if (chunks)
        ht_build_pattern(&b, is_local, PERIOD);
    const float base = ht_build_freq_base(&b, false);
    ht_rotation rotation = {.table = ht_build_rope_table(&b, base, true), .unit = true, .norm_after = true};
    ht_rotation local = rotation, none = {0};
    if (chunks) {
        const float own = ht_build_float(&b, "rope.freq_base_swa", base);
        local.table = own == base ? rotation.table : ht_build_rope_table(&b, own, true);
        const ht_rope_kind still = {.dim = h->head_dim};
        ht_rope_kind growing = still;
        growing.growth = ht_build_factor(&b, "attention.temperature_scale", 0.1f);
        growing.every = (int)ht_build_int(&b, "attention.temperature_length", 0, INT32_MAX, 0);
        growing.every = growing.every ? growing.every : CHUNK;
        growing.from = 1;
        none.table = ht_build_rope_table_of(&b, &still), none.queries = ht_build_rope_table_of(&b, &growing);
    }
    ht_mixture mixture = ht_build_mixture(&b, HT_ROUTE_SIGMOID, false);
    if (b.status == HT_OK && mixture.experts == 0)
        ht_build_fail(&b, HT_ERROR_FORMAT, "llama4.expert_count is missing, or 0");
    rotation.unit = local.unit = mixture.experts != LARGEST;
    mixture.weighs_input = true, mixture.dense_layers = 0;
    mixture.shared_features = mixture.features;
    if (mixture.features > h->feed_forward)
        h->feed_forward = mixture.features;

    ht_build_embed(&b, 1.0f);
    for (int layer = 0; layer < h->layers; layer++) {
        const bool turns = !chunks || (layer + 1) % PERIOD != 0;
        ht_build_layer(&b, layer);
        ht_build_block(&b, HT_BLOCK_ATTENTION, h->kv_heads);
        ht_build_norm(&b, "attn_norm");
        ht_build_qkv(&b, HT_BIAS_OPTIONAL);
        ht_build_rope(&b, !turns ? &none : is_local[layer] ? &local : &rotation);
        ht_build_attention_of(&b, &(ht_attending){.scale = ht_build_factor(&b, "attention.scale", 0.0f),
                                                  .chunk = is_local[layer] ? chunk : 0});
        ht_build_attention_output(&b);
        ht_build_add(&b, NULL);
        ht_build_mixed(&b, &mixture, "ffn_norm");
    }
    return ht_build_head(&b);
}

const ht_family ht_family_llama4 = {.arch = "llama4", .build = build_llama4, .experts = true};
