/* shape: models: the sizes of real ones with made-up weights, for timing. Figures from the models' own config.json. Families
 * that are none of ours are the one whose operators have the same sizes: Mistral, Falcon3, Granite, InternLM3 and Phi are
 * Llama. So are fine-tuned models what they were made from: DeepSeek-R1-Distill-Llama-8B is llama-3.1-8b, SmallThinker-3B
 * qwen2.5-3b; and Qwen2-0.5B is as large as Qwen2.5-0.5B. */
#include "model/build.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

/*    layers embedding heads kv_heads head_dim feed_forward vocabulary context window eps group */
static const ht_shape shapes[] = {
    {"llama-3-8b", "llama", {32, 4096, 32, 8, 128, 14336, 128256, 8192, 0, 1e-5f, 0}, 500000.0f, false},
    {"llama-3.1-8b", "llama", {32, 4096, 32, 8, 128, 14336, 128256, 131072, 0, 1e-5f, 0}, 500000.0f, false},
    {"llama-2-7b", "llama", {32, 4096, 32, 32, 128, 11008, 32000, 4096, 0, 1e-5f, 0}, 10000.0f, false},
    {"llama-3.2-3b", "llama", {28, 3072, 24, 8, 128, 8192, 128256, 131072, 0, 1e-5f, 0}, 500000.0f, true},
    {"llama-3.2-1b", "llama", {16, 2048, 32, 8, 64, 8192, 128256, 131072, 0, 1e-5f, 0}, 500000.0f, true},
    {"mistral-7b", "llama", {32, 4096, 32, 8, 128, 14336, 32768, 32768, 0, 1e-5f, 0}, 1000000.0f, false},
    {"falcon3-7b", "llama", {28, 3072, 12, 4, 256, 23040, 131072, 32768, 0, 1e-6f, 0}, 1000042.0f, false},
    {"granite-3.1-8b", "llama", {40, 4096, 32, 8, 128, 12800, 49155, 131072, 0, 1e-5f, 0}, 10000000.0f, true},
    {"granite-3.3-2b", "llama", {40, 2048, 32, 8, 64, 8192, 49159, 131072, 0, 1e-5f, 0}, 10000000.0f, true},
    {"phi-3.5-mini", "llama", {32, 3072, 32, 32, 96, 8192, 32064, 131072, 0, 1e-5f, 0}, 10000.0f, false},
    {"phi-4-mini", "llama", {32, 3072, 24, 8, 128, 8192, 200064, 131072, 0, 1e-5f, 0}, 10000.0f, true},
    {"internlm3-8b", "llama", {48, 4096, 32, 2, 128, 10240, 128512, 32768, 0, 1e-5f, 0}, 50000000.0f, false},
    {"internlm2-1.8b", "internlm2", {24, 2048, 16, 8, 128, 8192, 92544, 32768, 0, 1e-5f, 0}, 1000000.0f, false},
    {"qwen2.5-0.5b", "qwen2", {24, 896, 14, 2, 64, 4864, 151936, 32768, 0, 1e-6f, 0}, 1000000.0f, true},
    {"qwen2.5-1.5b", "qwen2", {28, 1536, 12, 2, 128, 8960, 151936, 32768, 0, 1e-6f, 0}, 1000000.0f, true},
    {"qwen2.5-3b", "qwen2", {36, 2048, 16, 2, 128, 11008, 151936, 32768, 0, 1e-6f, 0}, 1000000.0f, true},
    {"qwen2.5-7b", "qwen2", {28, 3584, 28, 4, 128, 18944, 152064, 32768, 0, 1e-6f, 0}, 1000000.0f, false},
    {"qwen2.5-14b", "qwen2", {48, 5120, 40, 8, 128, 13824, 152064, 32768, 0, 1e-6f, 0}, 1000000.0f, false},
    {"qwen3-0.6b", "qwen3", {28, 1024, 16, 8, 128, 3072, 151936, 40960, 0, 1e-6f, 0}, 1000000.0f, true},
    {"qwen3-1.7b", "qwen3", {28, 2048, 16, 8, 128, 6144, 151936, 40960, 0, 1e-6f, 0}, 1000000.0f, true},
    {"qwen3-4b", "qwen3", {36, 2560, 32, 8, 128, 9728, 151936, 40960, 0, 1e-6f, 0}, 1000000.0f, true},
    {"qwen3-8b", "qwen3", {36, 4096, 32, 8, 128, 12288, 151936, 40960, 0, 1e-6f, 0}, 1000000.0f, false},
    {"qwen3-14b", "qwen3", {40, 5120, 40, 8, 128, 17408, 151936, 40960, 0, 1e-6f, 0}, 1000000.0f, false},
    {"qwen3-30b-a3b", "qwen3moe", {48, 2048, 32, 4, 128, 6144, 151936, 40960, 0, 1e-6f, 0}, 1000000.0f, false},
    {"gemma-3-1b", "gemma3", {26, 1152, 4, 1, 256, 6912, 262144, 32768, 512, 1e-6f, 0}, 1000000.0f, true},
    {"gemma-3-4b", "gemma3", {34, 2560, 8, 4, 256, 10240, 262208, 131072, 1024, 1e-6f, 0}, 1000000.0f, true},
    {"gemma-2-2b", "gemma2", {26, 2304, 8, 4, 256, 9216, 256000, 8192, 4096, 1e-6f, 0}, 10000.0f, true},
    {"ministral-3-8b", "mistral3", {34, 4096, 32, 8, 128, 14336, 131072, 131072, 0, 1e-5f, 0}, 1000000.0f, false},
    {"smollm3-3b", "smollm3", {36, 2048, 16, 4, 128, 11008, 128256, 65536, 0, 1e-6f, 0}, 5000000.0f, true},
    {"glm-4-9b", "glm4", {40, 4096, 32, 2, 128, 13696, 151552, 32768, 0, 1e-5f, 0}, 10000.0f, false},
    {"exaone-4.0-1.2b", "exaone4", {30, 2048, 32, 8, 64, 4096, 102400, 65536, 0, 1e-5f, 0}, 1000000.0f, true},
    {"mixtral-8x7b", "llama", {32, 4096, 32, 8, 128, 14336, 32000, 32768, 0, 1e-5f, 0}, 1000000.0f, false},
    {"llama-4-scout", "llama4", {48, 5120, 40, 8, 128, 16384, 202048, 1048576, 0, 1e-5f, 0}, 500000.0f, false},
    {"glm-4.5-air", "glm4moe", {46, 4096, 96, 8, 128, 10944, 151552, 131072, 0, 1e-5f, 0}, 1000000.0f, false},
    {"ernie-4.5-21b-a3b", "ernie4_5-moe", {28, 2560, 20, 4, 128, 12288, 103424, 131072, 0, 1e-5f, 0}, 500000.0f, true},
    {"olmoe-1b-7b", "olmoe", {16, 2048, 16, 16, 128, 1024, 50304, 4096, 0, 1e-5f, 0}, 10000.0f, false},
    {"smollm2-135m", "llama", {30, 576, 9, 3, 64, 1536, 49152, 8192, 0, 1e-5f, 0}, 100000.0f, true},
    {"tiny", "llama", {2, 128, 4, 2, 32, 256, 512, 1024, 0, 1e-5f, 0}, 10000.0f, true}, /* no real models: for tests */
    {"tiny-experts", "qwen3moe", {2, 128, 4, 2, 32, 256, 512, 1024, 0, 1e-5f, 0}, 10000.0f, true},
};

static const ht_shape_mixture mixtures[] = {{"qwen3-30b-a3b", 128, 8, 768, 0, 0},
                                            {"mixtral-8x7b", 8, 2, 14336, 0, 0},
                                            {"llama-4-scout", 16, 1, 8192, 8192, 0},
                                            {"glm-4.5-air", 128, 8, 1408, 1408, 1},
                                            {"ernie-4.5-21b-a3b", 64, 6, 1536, 3072, 1},
                                            {"olmoe-1b-7b", 64, 8, 1024, 0, 0},
                                            {"tiny-experts", 8, 3, 64, 0, 0}};

const ht_shape_mixture *ht_shape_experts(const ht_shape *shape) {
    for (size_t i = 0; i < HT_COUNT(mixtures); i++)
        if (strcmp(mixtures[i].name, shape->name) == 0)
            return &mixtures[i];
    return NULL;
}

/* Characters that both begin with. */
static size_t alike_in(const char *a, const char *b) {
    size_t n = 0;
    while (a[n] && a[n] == b[n])
        n++;
    return n;
}

ht_status ht_shape_find(const char *spec, const ht_shape **shape, const ht_type_traits **type, ht_error *error) {
    const char *name = spec + strlen("shape:");
    const char *colon = strchr(name, ':');
    const size_t bytes = colon ? (size_t)(colon - name) : strlen(name);
    const ht_type_traits *found = ht_type_by_name(colon ? colon + 1 : "Q4_0");
    if (!found)
        return ht_fail(error, HT_ERROR_ARGUMENT, "%s: unknown type \"%s\"", spec, colon + 1);
    for (size_t i = 0; i < HT_COUNT(shapes); i++) {
        if (strlen(shapes[i].name) != bytes || strncasecmp(shapes[i].name, name, bytes) != 0)
            continue;
        *shape = &shapes[i];
        *type = found;
        return HT_OK;
    }
    /* all would be longer than an error is: those that begin as the name does */
    size_t alike = 0;
    for (size_t i = 0; i < HT_COUNT(shapes); i++)
        alike = ht_max_size(alike, alike_in(shapes[i].name, name));
    char names[300] = "";
    for (size_t i = 0, at = 0; i < HT_COUNT(shapes) && at < sizeof names; i++)
        if (alike_in(shapes[i].name, name) == alike)
            at += (size_t)snprintf(names + at, sizeof names - at, "%s%s", at ? ", " : "", shapes[i].name);
    return ht_fail(error, HT_ERROR_ARGUMENT, "%s: unknown shape (nearest: %s)", spec, names);
}
