/* DeepSeek-V2, V2-Lite, V3 and R1: arch "deepseek2". DeepSeek-AI, "DeepSeek-V2" (2024), "DeepSeek-V3 Technical Report"
 * (2024). V3.2 (2025): "deepseek32", and GLM-5 (2026): "glm-dsa", whose indexers are left out. Mistral Large 3 and
 * Small 4 (2026): "deepseek2" and "mistral4", whose queries grow with their position. Latent attention, queries of the
 * larger ones by way of a latent row, too; experts with shared ones beside them behind some ordinary layers. Files say
 * what is cached as key_length, what heads have as key_length_mla; older ones say the heads' alone. */
#include "model/build.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static ht_latent read_latent(ht_builder *b) {
    const ht_hparams *h = &b->model->hparams;
    const char *arch = b->model->info.architecture;
    const bool old = !ht_build_has(b, "attention.key_length_mla");
    const int key = old ? h->head_dim : (int)ht_build_int(b, "attention.key_length_mla", 2, 1024, 0);
    const char *const length = old ? "attention.value_length" : "attention.value_length_mla";
    ht_latent l = {.old = old,
                   .latent = (int)ht_build_int(b, "attention.kv_lora_rank", 0, 1024, 0),
                   .query_rank = (int)ht_build_int(b, "attention.q_lora_rank", 0, 1 << 16, 0),
                   .rotated = (int)ht_build_int(b, "rope.dimension_count", 2, 1024, 0),
                   .values = (int)ht_build_int(b, length, 1, 1024, key)};
    l.plain = key - l.rotated;
    if (b->status == HT_OK &&
        (l.latent < 2 || l.latent % 2 || l.plain < 1 || l.rotated < 2 || l.rotated % 2 || l.latent + l.rotated > 1024))
        ht_build_fail(b, HT_ERROR_FORMAT,
                      "%s: heads of %d values, %d of them rotated, and a latent row of %d: these do not fit", arch, key,
                      l.rotated, l.latent);
    return l;
}

/* What YaRN makes of scores, besides the length of rotated vectors: as llama.cpp does. `multiplier`: 0.1 *
 * mscale_all_dim. */
static float yarn_scale(ht_builder *b, float multiplier) {
    char key[64];
    const ht_gguf *file = b->model->file;
    ht_string type = {NULL, 0};
    snprintf(key, sizeof key, "%s.rope.scaling.type", b->model->info.architecture);
    if (file && b->status == HT_OK)
        b->status = ht_gguf_string(file, key, false, &type, b->error);
    const float factor = ht_build_float(b, "rope.scaling.factor", 1.0f);
    const bool yarn = type.bytes == 4 && memcmp(type.data, "yarn", 4) == 0;
    if (!yarn || !(factor > 1.0f))
        return 1.0f;
    return 1.0f + (multiplier != 0.0f ? multiplier : 0.1f) * logf(factor);
}

/* Queries that grow with their position grow as a whole, so that there the tables are as long as keys. `unit`: scores
 * have YaRN's factor, and not the rotated vectors. */
static ht_rotation rotate(ht_builder *b, const ht_latent *latent, bool unit) {
    ht_rope_kind kind = {
        .freq_base = ht_build_freq_base(b, true), .scaled = true, .dim = latent->rotated, .unit = unit};
    ht_rotation rotation = {0};
    kind.growth = ht_build_float_in(b, "attention.temperature_scale", 0.0f, 1000.0f, 0.0f);
    if (kind.growth == 0.0f) {
        rotation.table = ht_build_rope_table_of(b, &kind);
        return rotation;
    }
    kind.still = latent->latent;
    kind.every = (int)ht_build_int(b, "attention.temperature_length", 1, INT32_MAX, 1);
    rotation.queries = ht_build_rope_table_of(b, &kind);
    kind.growth = 0.0f;
    rotation.table = ht_build_rope_table_of(b, &kind);
    return rotation;
}

/* An indexer chooses the top_k tokens that each one attends to: up to as many it chooses all, and is not needed. */
static void limit_context(ht_builder *b) {
    ht_hparams *h = &b->model->hparams;
    const int top = (int)ht_build_int(b, "attention.indexer.top_k", 1, INT32_MAX, 1);
    if (top >= h->context_length)
        return;
    ht_log(HT_LOG_WARN,
           "%s: attention to chosen tokens (%s.attention.indexer) is not supported: contexts are %d tokens at most",
           b->model->info.path, b->model->info.architecture, top);
    h->context_length = top;
}

static ht_status build_deepseek2(const ht_family *family, ht_model *model, ht_error *error) {
    ht_builder b = ht_build_begin(model, error);
    ht_hparams *h = &model->hparams;
    const ht_latent latent = read_latent(&b);
    const float multiplier = ht_build_float_in(&b, "rope.scaling.yarn_log_multiplier", 0.0f, 1000.0f, 0.0f);
    const float s = yarn_scale(&b, multiplier), scale = s * s / sqrtf((float)(latent.plain + latent.rotated));
    h->kv_heads = 1, h->head_dim = latent.latent + latent.rotated;
    h->group = h->heads;
    const ht_rotation rotation = rotate(&b, &latent, multiplier != 0.0f);
    /* behind the layers stand some that guess a further token */
    h->layers -= (int)ht_build_int(&b, "nextn_predict_layers", 0, h->layers - 1, 0);
    const bool indexed = ht_build_int(&b, "attention.indexer.top_k", 0, INT32_MAX, 0) > 0;
    const ht_mixture mixture = ht_build_mixture(&b, indexed ? HT_ROUTE_SIGMOID : HT_ROUTE_SOFTMAX, false);
    if (indexed)
        limit_context(&b);

    ht_build_embed(&b, 1.0f);
    for (int layer = 0; layer < h->layers; layer++) {
        ht_build_layer(&b, layer);
        ht_build_latent_attention(&b, &latent, &rotation, scale);
        ht_build_add(&b, NULL);
        ht_build_mixed(&b, &mixture, "ffn_norm");
    }
    return ht_build_head(&b);
}

const ht_family ht_families_latent[4] = {
    {.arch = "deepseek2", .build = build_deepseek2, .experts = true, .latent = true},
    {.arch = "mistral4", .build = build_deepseek2, .experts = true, .latent = true},
    {.arch = "deepseek32", .build = build_deepseek2, .experts = true, .latent = true},
    {.arch = "glm-dsa", .build = build_deepseek2, .experts = true, .latent = true}};
