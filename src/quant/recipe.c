/* Which type quantize gives each tensor: one type for all matrices, or a recipe that spends more bits where they count. The
 * recipes are llama.cpp's, so that a name means the same file: what decides is the tensor's name and its layer. */
#include "quant/recipe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* What a recipe changes besides the output matrix, which becomes Q6_K. */
typedef enum mixture { PURE, Q3_MEDIUM, Q4_SMALL, Q4_MEDIUM, Q5_MEDIUM, SMALL } mixture;

struct ht_recipe {
    const char *name;
    ht_type type;
    uint32_t file_type;
    mixture mixture;
};

/* clang-format off */
static const ht_recipe recipes[] = {
    {"f16",    HT_TYPE_F16,    1,  PURE}, {"bf16",   HT_TYPE_BF16,   32, PURE}, {"q4_0",   HT_TYPE_Q4_0, 2,  PURE},
    {"q4_1",   HT_TYPE_Q4_1,   3,  PURE}, {"q5_0",   HT_TYPE_Q5_0,   8,  PURE}, {"q5_1",   HT_TYPE_Q5_1, 9,  PURE},
    {"q8_0",   HT_TYPE_Q8_0,   7,  PURE}, {"q2_k",   HT_TYPE_Q2_K,   10, PURE}, {"q3_k",   HT_TYPE_Q3_K, 11, PURE},
    {"q4_k",   HT_TYPE_Q4_K,   14, PURE}, {"q5_k",   HT_TYPE_Q5_K,   16, PURE}, {"q6_k",   HT_TYPE_Q6_K, 18, PURE},
    {"iq4_nl", HT_TYPE_IQ4_NL, 25, PURE}, {"iq4_xs", HT_TYPE_IQ4_XS, 30, PURE}, {"mxfp4",  HT_TYPE_MXFP4, 38, PURE},
    {"q3_k_s", HT_TYPE_Q3_K,   11, SMALL}, {"q3_k_m", HT_TYPE_Q3_K,  12, Q3_MEDIUM},
    {"q4_k_s", HT_TYPE_Q4_K,   14, Q4_SMALL}, {"q4_k_m", HT_TYPE_Q4_K, 15, Q4_MEDIUM},
    {"q5_k_s", HT_TYPE_Q5_K,   16, SMALL}, {"q5_k_m", HT_TYPE_Q5_K,  17, Q5_MEDIUM},
};
/* clang-format on */

const ht_recipe *ht_recipe_find(const char *name) {
    for (size_t i = 0; i < HT_COUNT(recipes); i++) {
        if (!strcasecmp(recipes[i].name, name))
            return &recipes[i];
    }
    return NULL;
}

const char *ht_recipe_names(char *text, size_t capacity) {
    size_t used = 0;
    for (size_t i = 0; i < HT_COUNT(recipes) && used < capacity; i++)
        used += (size_t)snprintf(text + used, capacity - used, "%s%s", i ? ", " : "", recipes[i].name);
    return text;
}

uint32_t ht_recipe_file_type(const ht_recipe *recipe) {
    return recipe->file_type;
}

/* ---- the model ---------------------------------------------------------------------------------------------------- */

typedef struct sight { /* what rules look at */
    const ht_gguf *file;
    int64_t layers, experts, heads, kv_heads;
    bool llama, tied; /* tied: the table of tokens is the output matrix, too */
} sight;

static bool has(const ht_tensor *tensor, const char *part) {
    return strstr(tensor->name, part) != NULL;
}

static bool is_value(const ht_tensor *tensor) {
    return has(tensor, "attn_v.weight") || has(tensor, "attn_qkv.weight") || has(tensor, "attn_kv_b.weight");
}

static long layer_of(const ht_tensor *tensor) {
    return strncmp(tensor->name, "blk.", 4) ? 0 : strtol(tensor->name + 4, NULL, 10);
}

/* A key that may be absent, or differ between layers, which no rule needs to know. */
static int64_t number_of(const ht_gguf *file, const ht_string *family, const char *name, int64_t otherwise) {
    char key[128];
    snprintf(key, sizeof key, "%.*s.%s", (int)ht_min_size(family->bytes, 64), family->data, name);
    int64_t value = otherwise;
    return ht_gguf_int(file, key, false, 0, INT32_MAX, &value, NULL) ? otherwise : value;
}

static sight look(const ht_gguf *file) {
    ht_string family = {"", 0};
    sight s = {.file = file};
    if (ht_gguf_string(file, "general.architecture", false, &family, NULL))
        family = (ht_string){"", 0};
    s.llama = family.bytes == 5 && !memcmp(family.data, "llama", 5);
    s.layers = number_of(file, &family, "block_count", 0);
    s.experts = number_of(file, &family, "expert_count", 0);
    s.heads = number_of(file, &family, "attention.head_count", 0);
    s.kv_heads = number_of(file, &family, "attention.head_count_kv", s.heads);
    s.tied = !ht_gguf_tensor(file, "output.weight");
    return s;
}

/* ---- rules -------------------------------------------------------------------------------------------------------- */

/* Small tensors that much depends on, and such as are no matrices: they stay as they are. */
static bool is_left_alone(const ht_tensor *tensor) {
    static const char *const parts[] = {"_norm.weight", "ffn_gate_inp", "ssm_conv1d",           "shortconv.conv",
                                        "altup",        "laurel",       "per_layer_model_proj", "position_embd",
                                        "token_types",  "attn_rel_b"};
    for (size_t i = 0; i < HT_COUNT(parts); i++) {
        if (has(tensor, parts[i]))
            return true;
    }
    return false;
}

/* The first and the last eighth of the layers, and every third one between. */
static bool more_bits(long i, long n) {
    return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
}

static ht_type value_type(const ht_recipe *recipe, const sight *s, long i, long n) {
    ht_type type = recipe->type;
    if (recipe->mixture == Q3_MEDIUM)
        type = i < 2 ? HT_TYPE_Q5_K : HT_TYPE_Q4_K;
    else if ((recipe->mixture == Q4_MEDIUM || recipe->mixture == Q5_MEDIUM) && more_bits(i, n))
        type = HT_TYPE_Q6_K;
    else if (recipe->mixture == Q4_SMALL && i < 4)
        type = HT_TYPE_Q5_K;
    /* Llama-70B: eight query heads share these, so they are an eighth as large. */
    if (s->llama && s->layers == 80 && s->heads != s->kv_heads && (type == HT_TYPE_Q3_K || type == HT_TYPE_Q4_K))
        type = HT_TYPE_Q5_K;
    return s->experts == 8 ? HT_TYPE_Q8_0 : type;
}

static ht_type down_type(const ht_recipe *recipe, long i, long n) {
    if (recipe->mixture == Q3_MEDIUM)
        return i < n / 16 ? HT_TYPE_Q5_K : HT_TYPE_Q4_K;
    if ((recipe->mixture == Q4_MEDIUM || recipe->mixture == Q5_MEDIUM) && more_bits(i, n))
        return HT_TYPE_Q6_K;
    return recipe->mixture == Q4_SMALL && i < n / 8 ? HT_TYPE_Q5_K : recipe->type;
}

/* i: how many such tensors of values come in layers before it, of n. */
static ht_type mixed_type(const ht_recipe *recipe, const sight *s, const ht_tensor *tensor, long i, long n) {
    const bool table =
        !strcmp(tensor->name, "token_embd.weight") || !strcmp(tensor->name, "per_layer_token_embd.weight");
    if (!strcmp(tensor->name, "output.weight") || (table && s->tied))
        return tensor->dims[0] % (uint64_t)ht_type_get(recipe->type)->block ? HT_TYPE_Q8_0 : HT_TYPE_Q6_K;
    if (table)
        return recipe->type;
    if (is_value(tensor))
        return value_type(recipe, s, i, n);
    if (has(tensor, "attn_k.weight"))
        return s->experts == 8 ? HT_TYPE_Q8_0 : recipe->type;
    if (has(tensor, "ffn_down"))
        return down_type(recipe, layer_of(tensor), (long)s->layers);
    if (has(tensor, "attn_output.weight") && s->experts == 8)
        return recipe->mixture == Q5_MEDIUM || recipe->type == HT_TYPE_Q5_K ? recipe->type : HT_TYPE_Q5_K;
    if (has(tensor, "attn_output.weight") && recipe->mixture == Q3_MEDIUM)
        return HT_TYPE_Q4_K;
    return recipe->type;
}

/* What has about the bits of a type whose blocks of 256 do not fit; blocks of 32 that do not fit are small tensors. */
static ht_type fitting(ht_type type, uint64_t cols) {
    if (cols % (uint64_t)ht_type_get(type)->block == 0)
        return type;
    switch (type) {
    case HT_TYPE_Q2_K:
    case HT_TYPE_Q3_K:
        type = HT_TYPE_Q4_0;
        break;
    case HT_TYPE_IQ4_XS:
        type = HT_TYPE_IQ4_NL;
        break;
    case HT_TYPE_Q4_K:
        type = HT_TYPE_Q5_0;
        break;
    case HT_TYPE_Q5_K:
        type = HT_TYPE_Q5_1;
        break;
    case HT_TYPE_Q6_K:
        type = HT_TYPE_Q8_0;
        break;
    default:
        return HT_TYPE_F32;
    }
    return cols % 32 ? HT_TYPE_F32 : type;
}

static int before(const ht_tensor *a, const ht_tensor *b) {
    return layer_of(a) < layer_of(b);
}

/* How many tensors of values come in layers before this one; of all of them if it is NULL. */
static long values_before(const ht_gguf *file, const ht_tensor *tensor) {
    long n = 0;
    for (size_t i = 0; i < ht_gguf_tensor_count(file); i++) {
        const ht_tensor *other = ht_gguf_tensor_at(file, i);
        n += is_value(other) && (!tensor || before(other, tensor));
    }
    return n;
}

ht_status ht_recipe_apply(const ht_recipe *recipe, const ht_gguf *file, ht_type **targets, ht_type **wanted,
                          ht_error *error) {
    const size_t n = ht_gguf_tensor_count(file);
    ht_status status = ht_alloc((void **)targets, n, sizeof **targets, "types of tensors", error);
    if (!status)
        status = ht_alloc((void **)wanted, n, sizeof **wanted, "types of tensors", error);
    if (status)
        return status;
    const sight s = look(file);
    const bool quantised = ht_type_get(recipe->type)->group != 0;
    const long values = values_before(file, NULL);
    for (size_t i = 0; i < n; i++) {
        const ht_tensor *tensor = ht_gguf_tensor_at(file, i);
        ht_type type = recipe->type;
        if (ht_type_get(tensor->type)->bits == 0 || (quantised && tensor->n_dims >= 2 && is_left_alone(tensor)))
            type = tensor->type;
        else if (tensor->n_dims < 2)
            type = HT_TYPE_F32;
        else if (recipe->mixture != PURE)
            type = mixed_type(recipe, &s, tensor, is_value(tensor) ? values_before(file, tensor) : 0, values);
        (*wanted)[i] = type;
        (*targets)[i] = type == tensor->type ? type : fitting(type, tensor->dims[0]);
    }
    return HT_OK;
}
