/* The families whose pass is Llama's, and what tells them apart:
 *   llama      Llama 1 to 3.2, SmolLM2, Mistral; Mixtral, with a mixture of experts (Jiang et al., 2024). Touvron et al., "LLaMA" (2023); "The Llama 3 Herd of Models" (2024).
 *   qwen2      Qwen2 and Qwen2.5. Yang et al., "Qwen2 Technical Report" (2024). Biases on queries, keys and values.
 *   qwen3      Qwen3, the dense ones. Yang et al., "Qwen3 Technical Report" (2025). Every query and key head is
 *              RMS-normalised before the rotation; heads * head_dim need not be the embedding's width.
 *   qwen3moe   The same with a mixture of experts in every layer, weighted by a softmax over those that are chosen.
 *   internlm2  Cai et al., "InternLM2 Technical Report" (2024). Its checkpoints hold one interleaved wqkv; GGUF files have it
 *              already cut into attn_q, attn_k and attn_v.
 */
#include "model/build.h"

static ht_status build(const ht_family *family, ht_model *model, ht_error *error) {
    ht_builder b = ht_build_begin(model, error);
    const float base = ht_build_freq_base(&b, family->freq_base_known);
    const ht_rotation rotation = {.table = ht_build_rope_table(&b, base, true),
                                  .halves = family->halves,
                                  .q_norm = family->head_norms ? "attn_q_norm" : NULL,
                                  .k_norm = family->head_norms ? "attn_k_norm" : NULL};
    const int features = family->wide_experts ? model->hparams.feed_forward : 0;
    const ht_mixture mixture =
        family->experts ? ht_build_mixture_of(&b, HT_ROUTE_SOFTMAX, true, features) : (ht_mixture){0};

    ht_build_embed(&b, 1.0f);
    for (int layer = 0; layer < model->hparams.layers; layer++) {
        ht_build_layer(&b, layer);
        ht_build_block(&b, HT_BLOCK_ATTENTION, model->hparams.kv_heads);
        ht_build_norm(&b, "attn_norm");
        ht_build_qkv(&b, family->qkv_bias ? HT_BIAS_REQUIRED : HT_BIAS_OPTIONAL);
        ht_build_rope(&b, &rotation);
        ht_build_attention(&b, 0.0f, 0);
        ht_build_attention_output(&b);
        ht_build_add(&b, NULL);
        ht_build_mixed(&b, &mixture, "ffn_norm");
    }
    return ht_build_head(&b);
}

const ht_family ht_families_like_llama[HT_FAMILIES_LIKE_LLAMA] = {
    {.arch = "llama", .build = build, .freq_base_known = true, .experts = true, .wide_experts = true},
    {.arch = "qwen2", .build = build, .halves = true, .qkv_bias = true},
    {.arch = "qwen3", .build = build, .halves = true, .head_norms = true},
    {.arch = "internlm2", .build = build},
    {.arch = "qwen3moe", .build = build, .halves = true, .head_norms = true, .experts = true},
};
