/* Gemma 3, text part: arch "gemma3". "Gemma 3 Technical Report" (2025). Five layers of six look only at a sliding
 * window and rotate with a base of their own; a norm stands before and after each block. The files' norm weights
 * already have Gemma's "1 +" in them. */
#include "model/build.h"

#include <math.h>

/* A rope base under the name that llama.cpp's converter writes, or under Ollama's; absent: the family's own. */
static float read_base(ht_builder *b, const char *key, const char *other, float absent) {
    return ht_build_float(b, key, ht_build_float(b, other, absent));
}

static ht_status build_gemma3(const ht_family *family, ht_model *model, ht_error *error) {
    ht_builder b = ht_build_begin(model, error);
    ht_hparams *h = &model->hparams;
    bool is_local[HT_MAX_LAYERS] = {false};
    h->sliding_window = (int)ht_build_int(&b, "attention.sliding_window", 0, INT32_MAX, h->sliding_window);
    if (h->sliding_window > 0)
        ht_build_pattern(&b, is_local, 6);
    else if (!ht_build_has(&b, "attention.sliding_window"))
        ht_log(HT_LOG_WARN, "%s: key \"gemma3.attention.sliding_window\" is missing: every layer attends to all tokens",
               model->info.path);
    b.output_cap = ht_build_factor(&b, "final_logit_softcapping", 0.0f);

    ht_rotation wide = {.halves = true, .q_norm = "attn_q_norm", .k_norm = "attn_k_norm"}, local = wide;
    wide.table = ht_build_rope_table(&b, read_base(&b, "rope.freq_base", "rope.global.freq_base", 1e6f), true);
    if (h->sliding_window > 0)
        local.table =
            ht_build_rope_table(&b, read_base(&b, "rope.freq_base_swa", "rope.local.freq_base", 10000.0f), false);
    /* The 27B model, known by its 62 layers, scales by the embedding's share of a head, not by the head's own width. */
    const float scale = 1.0f / sqrtf((float)(h->layers == 62 ? h->embedding / h->heads : h->head_dim));

    ht_build_embed(&b, sqrtf((float)h->embedding));
    for (int layer = 0; layer < h->layers; layer++) {
        ht_build_layer(&b, layer);
        ht_build_block(&b, HT_BLOCK_ATTENTION, h->kv_heads);
        ht_build_norm(&b, "attn_norm");
        ht_build_qkv(&b, HT_BIAS_OPTIONAL);
        ht_build_rope(&b, is_local[layer] ? &local : &wide);
        ht_build_attention(&b, scale, is_local[layer] ? h->sliding_window : 0);
        ht_build_attention_output(&b);
        ht_build_add(&b, "post_attention_norm");
        ht_build_feed_forward(&b, "ffn_norm", HT_ACT_GELU_TANH, "post_ffw_norm");
    }
    return ht_build_head(&b);
}

const ht_family ht_family_gemma3 = {.arch = "gemma3", .build = build_gemma3};
