/* InternLM2: arch "internlm2". Cai et al., "InternLM2 Technical Report" (2024). Its checkpoints hold one interleaved
 * wqkv; GGUF files have it already cut into attn_q, attn_k and attn_v, which makes the pass Llama's. */
#include "model/build.h"

static ht_status build_internlm2(ht_model *model, ht_error *error) {
    ht_builder b = ht_build_begin(model, error);
    const ht_rotation rotation = {.table = ht_build_rope_table(&b, ht_build_freq_base(&b), true)};

    ht_build_embed(&b, 1.0f);
    for (int layer = 0; layer < model->hparams.layers; layer++) {
        ht_build_layer(&b, layer);
        ht_build_norm(&b, "attn_norm");
        ht_build_qkv(&b, HT_BIAS_OPTIONAL);
        ht_build_rope(&b, &rotation);
        ht_build_attention(&b, 0.0f, 0);
        ht_build_attention_output(&b);
        ht_build_add(&b, NULL);
        ht_build_norm(&b, "ffn_norm");
        ht_build_gate_up(&b);
        ht_build_glu(&b, HT_ACT_SILU);
        ht_build_down(&b);
        ht_build_add(&b, NULL);
    }
    return ht_build_head(&b);
}

const ht_family ht_family_internlm2 = {"internlm2", build_internlm2};
