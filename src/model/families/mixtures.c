/* Families whose layers are attention and a mixture of experts, and what tells them apart:
 *   qwen2moe      Qwen1.5-MoE, Qwen2-57B-A14B. Yang et al., "Qwen2 Technical Report" (2024). A shared expert with a gate.
 *   qwen3vlmoe    Qwen3-VL, text part: one position for the three of M-RoPE, and nothing for the layers to be shown. Bai et al. (2025).
 *   olmoe         Muennighoff et al., "OLMoE" (2024). Queries and keys are normed as whole rows.
 *   phimoe        Phi-3.5-MoE. Abdin et al., "Phi-3 Technical Report" (2024). Norms have biases; rope by two lists of divisors.
 *   glm4moe       GLM-4.5 and 4.6. "GLM-4.5" (2025). Norms of heads where the file has them.
 *   hunyuan-moe   Hunyuan-A13B. Tencent (2025). Norms of heads behind the rotation.
 *   ernie4_5-moe  Baidu, "ERNIE 4.5 Technical Report" (2025).
 *   deepseek      Dai et al., "DeepSeekMoE" (2024).
 *   dots1         rednote-hilab, "dots.llm1 Technical Report" (2025).
 *   bailingmoe    Ling-lite and -plus. Ling team, "Every FLOP Counts" (2025). bailingmoe2: Ling 2.0 and Ring; QKV is one matrix.
 *   minimax-m2    MiniMax (2025). Queries and keys are normed as whole rows.
 *   exaone-moe    K-EXAONE. LG AI Research (2026). Only layers with a window know positions.
 *   hy_v3         Hunyuan 3. Tencent (2026). mimo2: MiMo-V2-Flash. Xiaomi (2025): sinks, windows with a base of their own.
 *   afmoe         Trinity. Arcee (2025). What heads give is gated; norms before and after blocks; every fourth layer knows no positions.
 *   mellum        Mellum 2. JetBrains (2026). Qwen 3's, and windows whose rotation is not stretched.
 * What differs is a row; files say the rest. */
#include "model/build.h"

#include <math.h>

typedef enum head_norms { NORMS_NONE, NORMS_HEADS, NORMS_WANTED, NORMS_AFTER, NORMS_WHOLE } head_norms;

/* How wide the shared expert is. SHARED_SAID: expert_shared_feed_forward_length, or as many experts as there are shared
 * ones. */
typedef enum shared_width {
    SHARED_SAID,
    SHARED_OR_DENSE,  /* what is said, or as an ordinary feed-forward block */
    SHARED_OR_EXPERT, /* what is said, or one expert */
    SHARED_EACH       /* either, times how many there are */
} shared_width;

typedef enum window_rope { ROPE_ALIKE, ROPE_OF_WINDOWS, ROPE_PLAIN_WINDOWS, ROPE_OWN_BASE } window_rope;

typedef struct mixed {
    ht_family family; /* first: ht_family_with_experts gives it out */
    head_norms norms; /* NORMS_WANTED: heads', where the file has them */
    int function;
    bool renormalised; /* whatever the file says */
    bool dense_width;  /* experts are as wide as feed_forward_length says */
    bool everywhere;   /* leading_dense_block_count means nothing */
    bool biased, gated;
    bool plain_output, plain_qkv; /* the matrix behind attention, those in front, have no bias, whatever the file has */
    shared_width shared;
    const char *norm;  /* in front of the feed-forward block; NULL: ffn_norm */
    int pattern;       /* every so manieth layer sees all tokens where the file has a window; 0: the family has none */
    bool rope_factors; /* rope_factors_long and _short hold whatever rope.scaling.type says */
    window_rope
        rope; /* of layers with a window: as the others', only these rotate, theirs is not stretched, has a base of its own */
    bool by_router;  /* a layer has experts where it has a router */
    bool sinks;      /* where the file has them */
    bool gate;       /* of what heads give: attn_gate */
    bool post_norms; /* of what blocks give: post_attention_norm, post_ffw_norm */
    int still_every; /* every so manieth layer rotates nothing; 0: none */
    bool root;       /* embeddings times the root of their width */
} mixed;

static ht_mixture read_mixture(ht_builder *b, const mixed *f) {
    ht_hparams *h = &b->model->hparams;
    const int dense = h->feed_forward; /* before a wide shared expert raises it */
    ht_mixture m = ht_build_mixture_of(b, f->function, f->renormalised, f->dense_width ? dense : 0);
    const int count = (int)ht_build_int(b, "expert_shared_count", 0, HT_MAX_EXPERTS, 0),
              said = (int)ht_build_int(b, "expert_shared_feed_forward_length", 0, 1 << 20, 0);
    if (b->status == HT_OK && m.experts == 0)
        ht_build_fail(b, HT_ERROR_FORMAT, "%s.expert_count is missing, or 0", f->family.arch);
    m.always_biased = f->biased, m.always_gated = f->gated;
    if (f->everywhere)
        m.dense_layers = 0;
    if (b->model->shape)
        return m;
    if (f->shared == SHARED_OR_DENSE)
        m.shared_features = said ? said : dense;
    else if (f->shared == SHARED_OR_EXPERT)
        m.shared_features = said ? said : m.features;
    else if (f->shared == SHARED_EACH && (int64_t)(said ? said : m.features) * count <= 1 << 20)
        m.shared_features = (said ? said : m.features) * count;
    if (m.shared_features > h->feed_forward)
        h->feed_forward = m.shared_features;
    return m;
}

static void attention(ht_builder *b, const mixed *f, ht_rotation rotation, int window) {
    const ht_hparams *h = ht_build_shape_of(b);
    const size_t q = (size_t)h->heads * (size_t)h->head_dim;
    if (f->norms == NORMS_WANTED && !ht_build_has_matrix(b, "attn_q_norm"))
        rotation.q_norm = NULL;
    if (f->norms == NORMS_WANTED && !ht_build_has_matrix(b, "attn_k_norm"))
        rotation.k_norm = NULL;
    ht_build_block(b,
                   f->norms == NORMS_WHOLE ? HT_BLOCK_WHOLE_ROW_ATTENTION
                   : f->gate               ? HT_BLOCK_GATED_ATTENTION
                                           : HT_BLOCK_ATTENTION,
                   h->kv_heads);
    ht_build_norm(b, "attn_norm");
    ht_build_qkv(b, f->plain_qkv ? HT_BIAS_IGNORED : HT_BIAS_OPTIONAL);
    ht_build_rope(b, &rotation);
    const bool sinks = f->sinks && ht_build_has_matrix(b, "attn_sinks");
    ht_build_attention_of(b, &(ht_attending){.window = window, .sinks = sinks ? "attn_sinks.weight" : NULL});
    if (f->gate) {
        ht_build_attention_gate(b, &(ht_build_part){.name = "attn_gate", .rows = q});
        ht_build_gated_output(b);
    } else {
        ht_build_attention_output_of(b, f->plain_output ? HT_BIAS_IGNORED : HT_BIAS_OPTIONAL);
    }
    ht_build_add(b, f->post_norms ? "post_attention_norm" : NULL);
}

static void feed_forward(ht_builder *b, const mixed *f, const ht_mixture *mixture) {
    const char *const norm = f->norm ? f->norm : "ffn_norm", *const post = f->post_norms ? "post_ffw_norm" : NULL;
    if (f->by_router ? ht_build_has_matrix(b, "ffn_gate_inp") : ht_build_is_mixed(b, mixture))
        ht_build_experts(b, mixture, norm, post);
    else
        ht_build_feed_forward(b, norm, HT_ACT_SILU, post);
}

static ht_status build_mixed(const ht_family *family, ht_model *model, ht_error *error) {
    const mixed *f = (const mixed *)family;
    ht_builder b = ht_build_begin(model, error);
    ht_hparams *h = &model->hparams;
    bool is_local[HT_MAX_LAYERS] = {false};
    if (f->pattern)
        h->sliding_window = (int)ht_build_int(&b, "attention.sliding_window", 0, INT32_MAX, h->sliding_window);
    if (h->sliding_window > 0)
        ht_build_pattern(&b, is_local, f->pattern);
    const float base = ht_build_freq_base(&b, false);
    ht_rotation wide = {
        .halves = family->halves, .norm_whole = f->norms == NORMS_WHOLE, .norm_after = f->norms == NORMS_AFTER};
    if (f->norms != NORMS_NONE)
        wide.q_norm = "attn_q_norm", wide.k_norm = "attn_k_norm";
    ht_rotation local = wide;
    local.table = ht_build_rope_table_of(
        &b, &(ht_rope_kind){.freq_base = base, .scaled = f->rope != ROPE_PLAIN_WINDOWS, .factors = f->rope_factors});
    wide.table = f->rope == ROPE_ALIKE || f->rope == ROPE_OWN_BASE ? local.table : NULL;
    if (f->rope == ROPE_PLAIN_WINDOWS)
        wide.table = ht_build_rope_table(&b, base, true);
    const float own = f->rope == ROPE_OWN_BASE ? ht_build_factor(&b, "rope.freq_base_swa", base) : base;
    if (own != base)
        local.table = ht_build_rope_table(&b, own, true);
    ht_rotation still = wide;
    still.table = NULL;
    const ht_mixture mixture = read_mixture(&b, f);
    /* behind the layers stand some that guess a further token */
    h->layers -= (int)ht_build_int(&b, "nextn_predict_layers", 0, h->layers - 1, 0);

    if (ht_build_factor(&b, "attention.value_scale", 1.0f) != 1.0f)
        ht_build_fail(&b, HT_ERROR_UNSUPPORTED, "%s.attention.value_scale is not supported", family->arch);

    ht_build_embed(&b, f->root ? sqrtf((float)h->embedding) : 1.0f);
    for (int layer = 0; layer < h->layers; layer++) {
        ht_build_layer(&b, layer);
        const bool turns = !f->still_every || (layer + 1) % f->still_every != 0;
        attention(&b, f, !turns ? still : is_local[layer] ? local : wide, is_local[layer] ? h->sliding_window : 0);
        feed_forward(&b, f, &mixture);
    }
    return ht_build_head(&b);
}

#define FAMILY(NAME, ...) .family = {.arch = NAME, .build = build_mixed, .experts = true, __VA_ARGS__}
static const mixed rows[] = {
    {FAMILY("qwen2moe", .halves = true), .gated = true, .shared = SHARED_OR_DENSE},
    {FAMILY("qwen3vlmoe", .halves = true), .norms = NORMS_HEADS, .renormalised = true},
    {FAMILY("olmoe", .halves = true), .norms = NORMS_WHOLE, .dense_width = true},
    {FAMILY("phimoe", .halves = true), .dense_width = true, .renormalised = true, .rope_factors = true},
    {FAMILY("glm4moe", .halves = true), .norms = NORMS_WANTED, .function = HT_ROUTE_SIGMOID, .biased = true,
     .norm = "post_attention_norm"},
    {FAMILY("hunyuan-moe", .halves = true), .norms = NORMS_AFTER, .dense_width = true, .renormalised = true,
     .everywhere = true, .shared = SHARED_OR_DENSE},
    {FAMILY("ernie4_5-moe", .halves = false), .renormalised = true, .plain_output = true},
    {FAMILY("deepseek", .halves = false)},
    {FAMILY("dots1", .halves = true), .norms = NORMS_HEADS},
    {FAMILY("bailingmoe", .halves = false), .everywhere = true},
    {FAMILY("bailingmoe2", .halves = true), .norms = NORMS_HEADS, .shared = SHARED_EACH},
    {FAMILY("minimax-m2", .halves = true), .norms = NORMS_WHOLE, .function = HT_ROUTE_SIGMOID, .renormalised = true,
     .dense_width = true, .everywhere = true, .biased = true},
    {FAMILY("exaone-moe", .halves = true), .norms = NORMS_HEADS, .shared = SHARED_OR_EXPERT, .pattern = 4,
     .rope = ROPE_OF_WINDOWS},
    {FAMILY("hy_v3", .halves = true), .norms = NORMS_HEADS, .function = HT_ROUTE_SIGMOID, .shared = SHARED_OR_EXPERT,
     .by_router = true},
    {FAMILY("mimo2", .halves = true), .function = HT_ROUTE_SIGMOID, .renormalised = true, .plain_output = true,
     .plain_qkv = true, .pattern = 6, .rope = ROPE_OWN_BASE, .by_router = true, .sinks = true},
    {FAMILY("afmoe", .halves = true), .norms = NORMS_HEADS, .function = HT_ROUTE_SIGMOID, .biased = true, .pattern = 4,
     .rope = ROPE_OWN_BASE, .gate = true, .post_norms = true, .still_every = 4, .root = true},
    {FAMILY("mellum", .halves = true), .norms = NORMS_HEADS, .renormalised = true, .pattern = 4,
     .rope = ROPE_PLAIN_WINDOWS},
};

const ht_family *ht_family_with_experts(size_t i) {
    return i < HT_COUNT(rows) ? &rows[i].family : NULL;
}
