/* The dense families whose pass is Llama's but for what a row of the table says. Papers and models, by rows:
 *   llama         Llama 1 to 3.2, SmolLM2, Mistral. Touvron et al., "LLaMA" (2023); "The Llama 3 Herd of Models" (2024).
 *   qwen          Bai et al., "Qwen Technical Report" (2023). feed_forward_length counts gate and up together.
 *   qwen2, 2vl    Qwen2 and Qwen2.5. Yang et al., "Qwen2 Technical Report" (2024). Text has one position for the three of M-RoPE.
 *   qwen3, 3vl    Qwen3, the dense ones, and qwen3moe. Yang et al., "Qwen3 Technical Report" (2025).
 *   internlm2     Cai et al., "InternLM2 Technical Report" (2024).
 *   gemma to 3    Gemma Team, three reports (2024, 2024, 2025). The files' norm weights already have Gemma's "1 +" in them.
 *   gemma-embedding  Vera et al., "EmbeddingGemma" (2025): Gemma 3's layers, whose tokens see each other in both directions.
 *   phi2, phi3    Abdin et al., "Phi-3 Technical Report" (2024).
 *   granite       IBM, Granite 3 (2024): four multipliers. minicpm: Hu et al., "MiniCPM" (2024), the same by other names.
 *   smollm3       Hugging Face (2025): every fourth layer knows no positions.
 *   command-r     Cohere (2024): both blocks read one norm. R+ norms queries and keys, each head with weights of its own.
 *   cohere2       Command R7B (2024): the same; layers without a window know no positions. exaone4: LG AI Research (2025), too.
 *   olmo2         "2 OLMo 2 Furious" (2024), "OLMo 3" (2025): blocks read the stream as it is, what they give is normed.
 *   glm4          GLM-4-0414 (2025): norms before and after. mistral3: Ministral 3 (2025): queries grow with their position.
 *   gptneox       Black et al., "GPT-NeoX-20B" (2022). falcon: Almazrouei et al. (2023). gpt2: Radford et al. (2019).
 *   bloom, mpt, jais, refact, baichuan's 13B: ALiBi in place of a rotation.
 */
#include "model/build.h"

#include <math.h>

typedef struct pass pass;
/* How the two blocks of a layer stand to each other. */
typedef enum arrangement {
    IN_TURN,  /* the second reads what the first gave */
    AT_ONCE,  /* both read one norm of the stream */
    OWN_NORMS /* each reads a norm of its own, of the same stream */
} arrangement;

/* What a family does as Llama does not. */
struct ht_traits {
    void (*adjust)(pass *p); /* for what no other field says: changes p->t by the file's keys; NULL: nothing */
    bool layers_differ;      /* in heads and features */
    ht_norm norm;
    bool unweighted; /* norms have no weights */
    /* attention */
    bool
        halves; /* rotates halves of a head, not neighbours; mrope_halves: only where the file has sections of M-RoPE */
    bool mrope_halves;
    bool freq_base_known; /* a file without rope.freq_base is one of its models and means 10000 */
    bool rope_factors;    /* rope_factors_long and _short hold whatever rope.scaling.type says */
    bool plain_rope;      /* by base 10000, whatever the file says */
    bool rope_pattern;    /* attention.rope_pattern says which layers rotate */
    bool no_divisors;     /* rope_freqs means nothing */
    bool unrotated;
    bool learned_positions;
    int still_every; /* each so manieth layer rotates nothing; 0: none */
    bool qkv_bias;   /* files must have it */
    bool few_biases; /* no other matrix of a layer has any, whatever the file has */
    /* of queries and keys: with weights for each head, of whole rows, behind the rotation */
    bool head_norms, head_norms_optional, norm_heads, norm_whole, norm_after;
    ht_norm head_norm;
    float alibi;      /* largest bias; 0: none */
    bool alibi_key;   /* the file says it */
    bool sinks;       /* attn_sinks */
    bool by_width;    /* scores are divided by a head's width, not by its root */
    bool score_cap;   /* attn_logit_softcapping, 50 where it is absent */
    bool query_scale; /* attention.temperature_scale: queries grow with their position */
    /* windows: layers that see attention.sliding_window tokens. `period`: where the file says nothing of it every so
     * manieth layer has none; 0: all have one. Where the key is absent, the window is `window`; 0: there is none. */
    bool windows;
    int period, window;
    bool both_ways;   /* tokens see later ones: the model makes embeddings, by the mean where the file does not say */
    bool still_wide;  /* layers without a window rotate nothing */
    bool plain_local; /* those with one know no scaling of rotations; they may have a base of their own: local_base */
    float local_base;
    /* blocks */
    bool unnormed, post_norms; /* blocks read the stream as it is; what they give is normed */
    arrangement blocks;
    bool optional_norm;   /* a layer without the feed-forward block's norm has its blocks AT_ONCE */
    bool attention_norm;  /* a layer with attn_norm_2 has its blocks with OWN_NORMS: attention that one */
    const char *ffn_norm; /* NULL: "ffn_norm" */
    bool ungated, fused_up, half_features; /* ffn_up has gate's rows, too; feed_forward_length counts both */
    ht_activation activation;
    bool own_width; /* experts are as wide as expert_feed_forward_length says, not as feed_forward_length */
    bool dense;     /* files may speak of experts and have none */
    /* ends */
    bool embedding_root; /* embeddings times the root of their width */
    bool multipliers;    /* Granite's: of embeddings, of what blocks give, of scores; a divisor of logits */
    bool minicpm;        /* what these are where the file does not say */
    bool logit_scale;    /* logit_scale multiplies logits */
    bool logit_cap;      /* final_logit_softcapping */
    bool no_output_bias; /* whatever the file has */
    bool embedding_norm; /* embeddings are normed: token_embd_norm */
};

/* One model's pass: what traits and keys make of it. */
struct pass {
    ht_builder b;
    ht_traits t;
    ht_rotation wide, local, still;
    ht_attending attending;
    ht_mixture mixture;
    float residual, embedding_scale;
    bool is_local[HT_MAX_LAYERS];
    bool normed_loops; /* of a looped model: each loop's stream is the last one's, normed */
};

static void read_windows(pass *p) {
    ht_hparams *h = &p->b.model->hparams;
    const int absent = h->sliding_window ? h->sliding_window : p->t.window; /* shape: models have it */
    if (!p->t.windows)
        return;
    h->sliding_window = (int)ht_build_int(&p->b, "attention.sliding_window", 0, INT32_MAX, absent);
    if (h->sliding_window > 0)
        ht_build_pattern(&p->b, p->is_local, p->t.period);
}

/* A rope base under the name that llama.cpp's converter writes, or under Ollama's; absent: the family's own. */
static float read_base(ht_builder *b, const char *key, const char *other, float absent) {
    return ht_build_float(b, key, ht_build_float(b, other, absent));
}

static bool has_sections(ht_builder *b) {
    return ht_build_has(b, "rope.dimension_sections") &&
           ht_build_first_int(b, "rope.dimension_sections", INT32_MIN, INT32_MAX, 0) > 0;
}

static void read_rotations(pass *p) {
    ht_builder *b = &p->b;
    const ht_traits *t = &p->t;
    ht_hparams *h = &b->model->hparams;
    ht_rotation r = {.halves = t->halves || (t->mrope_halves && has_sections(b)),
                     .q_norm = t->head_norms ? "attn_q_norm" : NULL,
                     .k_norm = t->head_norms ? "attn_k_norm" : NULL,
                     .norm = t->head_norm,
                     .norm_heads = t->norm_heads,
                     .norm_whole = t->norm_whole,
                     .norm_after = t->norm_after};
    p->still = p->wide = p->local = r;
    if (t->unrotated)
        return;
    const float known = t->local_base != 0.0f && t->plain_local && !b->model->shape ? 1e6f : 0.0f; /* Gemma 3's */
    float base = t->plain_rope   ? 10000.0f
                 : known != 0.0f ? read_base(b, "rope.freq_base", "rope.global.freq_base", known)
                                 : ht_build_freq_base(b, t->freq_base_known);
    const float alpha =
        ht_build_factor(b, "rope.scaling.alpha", 0.0f); /* Hunyuan: the base is larger by a power of that */
    if (alpha != 0.0f && h->head_dim > 2)
        base *= powf(alpha, (float)h->head_dim / (float)(h->head_dim - 2));
    ht_rope_kind kind = {
        .freq_base = base ? base : NAN, .scaled = !t->plain_rope, .factors = t->rope_factors, .plain = t->no_divisors};
    p->wide.table = ht_build_rope_table_of(b, &kind);
    p->local.table = p->wide.table;
    if (h->sliding_window > 0) {
        const float own =
            read_base(b, "rope.freq_base_swa", "rope.local.freq_base", t->local_base != 0.0f ? t->local_base : base);
        if (t->plain_local || own != base)
            p->local.table = ht_build_rope_table(b, own, !t->plain_local);
    }
    const float growth =
        t->query_scale ? ht_build_float_in(b, "attention.temperature_scale", 0.0f, 100.0f, 0.0f) : 0.0f;
    kind.growth = growth;
    kind.every = (int)ht_build_int(b, "rope.scaling.original_context_length", 1, INT32_MAX, h->context_length);
    if (growth != 0.0f)
        p->wide.queries = ht_build_rope_table_of(b, &kind);
    if (t->still_wide && h->sliding_window > 0)
        p->wide = p->still;
}

static void read_multipliers(pass *p) {
    ht_builder *b = &p->b;
    const ht_traits *t = &p->t;
    const ht_hparams *h = &b->model->hparams;
    p->residual = p->embedding_scale = 1.0f;
    if (t->embedding_root)
        p->embedding_scale = sqrtf((float)h->embedding);
    if (t->logit_scale)
        b->output_scale = ht_build_factor(b, "logit_scale", 0.0f);
    if (!t->multipliers)
        return;
    p->residual = ht_build_factor(b, "residual_scale", t->minicpm ? 1.4f / sqrtf((float)h->layers) : 1.0f);
    p->embedding_scale = ht_build_factor(b, "embedding_scale", t->minicpm ? 12.0f : 1.0f) / p->residual;
    p->attending.scale = ht_build_factor(b, "attention.scale", 0.0f);
    b->output_scale = 1.0f / ht_build_factor(b, "logit_scale", t->minicpm ? (float)h->embedding / 256.0f : 1.0f);
    /* What blocks give is scaled by s before it is added: the stream is divided by s instead, from the embedding on,
     * and what its norms add to the mean of squares by s^2. */
    b->stream_eps = h->eps / (p->residual * p->residual);
}

static void read_scores(pass *p) {
    ht_builder *b = &p->b;
    const ht_traits *t = &p->t;
    const ht_hparams *h = &b->model->hparams;
    p->attending.sinks = t->sinks ? "attn_sinks.weight" : NULL;
    if (t->by_width)
        p->attending.scale = 1.0f / (float)h->head_dim;
    if (t->score_cap)
        p->attending.soft_cap = ht_build_factor(b, "attn_logit_softcapping", 50.0f);
    p->attending.alibi =
        t->alibi_key ? ht_build_float_in(b, "attention.max_alibi_bias", 0.0f, 1024.0f, 0.0f) : t->alibi;
    if (t->logit_cap)
        b->output_cap = ht_build_factor(b, "final_logit_softcapping", 0.0f);
}

/* Of the layer at hand. */
static arrangement arrangement_of(const pass *p) {
    if (p->t.attention_norm && ht_build_has_matrix(&p->b, "attn_norm_2"))
        return OWN_NORMS;
    return p->t.optional_norm && !ht_build_has_matrix(&p->b, "ffn_norm") ? AT_ONCE : p->t.blocks;
}

static void attention(pass *p, int layer) {
    ht_builder *b = &p->b;
    const ht_traits *t = &p->t;
    const ht_hparams *h = ht_build_shape_of(b);
    const bool local = p->is_local[layer],
               still = (t->still_every && (layer + 1) % t->still_every == 0) ||
                       (t->rope_pattern && !ht_build_int_at(b, "attention.rope_pattern", layer, 0, 1, 1));
    ht_rotation rotation = still ? p->still : local ? p->local : p->wide;
    ht_attending attending = p->attending;
    if (t->head_norms_optional) {
        const bool normed = ht_build_has_matrix(b, "attn_q_norm") || ht_build_has_matrix(b, "attn_k_norm");
        rotation.q_norm = normed ? "attn_q_norm" : NULL;
        rotation.k_norm = normed ? "attn_k_norm" : NULL;
    }
    const char *const norm = t->attention_norm && arrangement_of(p) == OWN_NORMS ? "attn_norm_2" : "attn_norm";
    attending.window = local ? b->model->hparams.sliding_window : 0;
    attending.both_ways = t->both_ways;
    ht_build_block(b,
                   t->both_ways    ? HT_BLOCK_BOTH_WAYS_ATTENTION
                   : t->norm_whole ? HT_BLOCK_WHOLE_ROW_ATTENTION
                                   : HT_BLOCK_ATTENTION,
                   h->kv_heads);
    ht_build_norm(b, t->unnormed ? NULL : norm);
    ht_build_qkv(b, t->qkv_bias ? HT_BIAS_REQUIRED : HT_BIAS_OPTIONAL);
    ht_build_rope(b, &rotation);
    ht_build_attention_of(b, &attending);
    ht_build_attention_output(b);
    ht_build_add(b, t->post_norms ? "post_attention_norm" : NULL);
}

static void feed_forward(pass *p) {
    ht_builder *b = &p->b;
    const ht_traits *t = &p->t;
    const arrangement blocks = arrangement_of(p);
    const char *const norm = t->unnormed ? NULL : t->ffn_norm ? t->ffn_norm : "ffn_norm";
    if (ht_build_is_mixed(b, &p->mixture)) {
        ht_build_experts(b, &p->mixture, norm, NULL);
        return;
    }
    ht_build_block(b, HT_BLOCK_FEED_FORWARD, ht_build_shape_of(b)->feed_forward);
    if (blocks == OWN_NORMS)
        ht_build_norm_beside(b, t->attention_norm ? "attn_norm" : norm);
    else if (blocks == IN_TURN)
        ht_build_norm(b, norm);
    if (t->ungated)
        ht_build_up(b);
    else if (t->fused_up)
        ht_build_fused_gate_up(b);
    else
        ht_build_gate_up(b);
    if (t->ungated)
        ht_build_activation(b, t->activation);
    else
        ht_build_glu(b, t->activation);
    ht_build_down(b);
    ht_build_add(b, t->post_norms ? "post_ffw_norm" : NULL);
}

static void list_layer(pass *p, int layer) {
    ht_builder *b = &p->b;
    const ht_hparams own = p->t.layers_differ ? ht_build_layer_shape(b, layer) : b->model->hparams;
    ht_build_layer(b, layer);
    ht_build_shape(b, p->t.layers_differ ? &own : NULL);
    if (b->status == HT_OK && own.heads > 0 && own.kv_heads == 0)
        ht_build_fail(b, HT_ERROR_UNSUPPORTED, "layer %d has a matrix in attention's place, which is not supported",
                      layer);
    if (own.heads > 0)
        attention(p, layer);
    if (own.feed_forward > 0)
        feed_forward(p);
    ht_build_shape(b, NULL);
}

/* The stream of the layer's loop, so that the last loop's is the one that the head reads. */
static const char *stream_of(const pass *p, int layer) {
    const int loops = p->b.model->hparams.layers / p->b.period;
    return (loops - 1 - layer / p->b.period) % 2 ? "x2" : NULL;
}

static ht_status build(const ht_family *family, ht_model *model, ht_error *error) {
    pass *p = ht_arena_alloc(&model->arena, sizeof *p);
    ht_hparams *h = &model->hparams;
    if (!p)
        return ht_fail(error, HT_ERROR_MEMORY, "%s: out of memory for its layers", model->info.path);
    *p = (pass){.b = ht_build_begin(model, error), .t = *family->traits};
    ht_builder *b = &p->b;
    h->layers -= (int)ht_build_int(b, "nextn_predict_layers", 0, h->layers - 1, 0); /* they guess a further token */
    if (p->t.adjust)
        p->t.adjust(p);
    b->norm = p->t.norm, b->unweighted = p->t.unweighted;
    b->no_output_bias = p->t.no_output_bias, b->few_biases = p->t.few_biases;
    if (p->t.half_features && h->feed_forward % 2 != 0)
        ht_build_fail(b, HT_ERROR_FORMAT, "%s.feed_forward_length is odd", family->arch);
    if (p->t.half_features)
        h->feed_forward /= 2;
    read_windows(p);
    read_rotations(p);
    read_multipliers(p);
    read_scores(p);
    if (family->experts && !p->t.dense)
        p->mixture = ht_build_mixture_of(b, HT_ROUTE_SOFTMAX, true, p->t.own_width ? 0 : h->feed_forward);

    if (p->normed_loops)
        ht_build_slot(b, "x2", HT_ROLE_OWN, (size_t)h->embedding);
    if (p->normed_loops)
        ht_build_stream(b, stream_of(p, 0));
    if (p->t.embedding_norm)
        ht_build_normed_embed(b, p->embedding_scale, "token_embd_norm");
    else
        ht_build_embed(b, p->embedding_scale);
    if (p->t.learned_positions)
        ht_build_positions(b, "position_embd");
    for (int layer = 0; layer < h->layers; layer++) {
        if (p->normed_loops && layer > 0 && layer % b->period == 0)
            ht_build_normed_stream(b, "output_norm", stream_of(p, layer));
        list_layer(p, layer);
    }
    return ht_build_head(b);
}

/* ---- what files of some families say by other means than a key of its own
 * -------------------------------------------------- */

static void adjust_granite(pass *p) {
    p->t.unrotated = !ht_build_bool(&p->b, "rope.scaling.finetuned", true);
}

/* The 7B model rotates, the 13B has ALiBi. */
static void adjust_baichuan(pass *p) {
    const int layers = p->b.model->hparams.layers;
    p->t.unrotated = layers != 32;
    p->t.alibi = layers == 40 ? 8.0f : 0.0f;
}

/* Only the 32B model has windows. */
static void adjust_exaone4(pass *p) {
    p->t.windows = p->t.still_wide = p->b.model->hparams.layers == 64;
}

static void adjust_gptneox(pass *p) {
    p->t.blocks = ht_build_bool(&p->b, "use_parallel_residual", true) ? OWN_NORMS : IN_TURN;
}

/* The 27B models, known by their layers, scale by the embedding's share of a head, not by the head's own width. */
static void adjust_gemma(pass *p) {
    const ht_hparams *h = &p->b.model->hparams;
    const int share = h->embedding / h->heads;
    if (h->layers == (p->t.score_cap ? 46 : 62))
        p->attending.scale = 1.0f / sqrtf((float)share);
    if (!p->b.model->shape && !ht_build_has(&p->b, "attention.sliding_window"))
        ht_log(HT_LOG_WARN, "%s: key \"%s.attention.sliding_window\" is missing: %s", p->b.model->info.path,
               p->b.model->info.architecture, p->t.window ? "4096 is taken" : "every layer attends to all tokens");
}

/* EmbeddingGemma's two matrices behind the pooling, which a file has both of, or none. */
static void adjust_embedding(pass *p) {
    ht_builder *b = &p->b;
    ht_model *model = b->model;
    const size_t width = (size_t)model->hparams.embedding;
    model->has_dense = ht_build_has_matrix(b, "dense_2") || ht_build_has_matrix(b, "dense_3");
    if (!model->has_dense)
        return;
    const size_t between = (size_t)ht_build_int(b, "dense_2_feat_out", 1, 1 << 20, (int64_t)width);
    model->dense[0] = ht_build_matrix(b, "dense_2", between, width);
    model->dense[1] = ht_build_matrix(b, "dense_3", width, between);
}

/* Nanbeige 4.1: the layers in turn, `num_loops` times, with keys and values of each time. */
static void adjust_nanbeige(pass *p) {
    ht_hparams *h = &p->b.model->hparams;
    const int loops = (int)ht_build_int(&p->b, "num_loops", 1, HT_MAX_LAYERS / h->layers, 1);
    p->normed_loops = loops > 1 && !ht_build_bool(&p->b, "skip_loop_final_norm", false);
    p->b.period = h->layers;
    h->layers *= loops;
}

/* Layers may have as many query heads to a key-value head as none has of the most of both. */
static void adjust_differing(pass *p) {
    ht_hparams *h = &p->b.model->hparams;
    h->group = 1;
    for (int layer = 0; layer < h->layers && p->b.status == HT_OK; layer++) {
        const ht_hparams own = ht_build_layer_shape(&p->b, layer);
        const int group = own.kv_heads ? own.heads / own.kv_heads : 0;
        h->group = group > h->group ? group : h->group;
    }
}

#define LIKE_LLAMA(...)                            \
    .build = build, .traits = &(const ht_traits) { \
        __VA_ARGS__                                \
    }
#define LAYER_NORM .norm = HT_NORM_LAYER
#define GEMMA .halves = true, .embedding_root = true, .activation = HT_ACT_GELU_TANH
#define GELU_MLP LAYER_NORM, .ungated = true, .activation = HT_ACT_GELU_TANH
#define RELU2_MLP .ungated = true, .activation = HT_ACT_RELU2

const ht_family ht_families_like_llama[] = {
    {.arch = "llama", .experts = true, LIKE_LLAMA(.freq_base_known = true)},
    {.arch = "qwen2", LIKE_LLAMA(.halves = true, .qkv_bias = true)},
    {.arch = "qwen3", LIKE_LLAMA(.halves = true, .head_norms = true)},
    {.arch = "gemma3",
     LIKE_LLAMA(GEMMA, .adjust = adjust_gemma, .head_norms = true, .post_norms = true, .windows = true, .period = 6,
                .plain_local = true, .local_base = 10000.0f, .logit_cap = true)},
    {.arch = "gemma-embedding",
     LIKE_LLAMA(GEMMA, .adjust = adjust_embedding, .head_norms = true, .post_norms = true, .windows = true, .period = 6,
                .plain_local = true, .local_base = 10000.0f, .both_ways = true)},
    {.arch = "internlm2", LIKE_LLAMA()},
    {.arch = "qwen3moe", .experts = true, LIKE_LLAMA(.halves = true, .head_norms = true, .own_width = true)},
    {.arch = "command-r",
     .layer_norm = true,
     LIKE_LLAMA(LAYER_NORM, .blocks = AT_ONCE, .head_norms_optional = true, .norm_heads = true,
                .head_norm = HT_NORM_LAYER, .logit_scale = true)},
    {.arch = "olmo2",
     LIKE_LLAMA(.halves = true, .head_norms = true, .norm_whole = true, .unnormed = true, .post_norms = true,
                .windows = true, .period = 4, .plain_local = true)},
    {.arch = "gemma", LIKE_LLAMA(GEMMA)},
    {.arch = "gemma2",
     LIKE_LLAMA(GEMMA, .adjust = adjust_gemma, .post_norms = true, .windows = true, .period = 2, .window = 4096,
                .score_cap = true, .logit_cap = true)},
    {.arch = "phi3", LIKE_LLAMA(.halves = true, .fused_up = true, .windows = true, .rope_factors = true)},
    {.arch = "granite", .experts = true, LIKE_LLAMA(.adjust = adjust_granite, .multipliers = true)},
    {.arch = "minicpm", .experts = true, LIKE_LLAMA(.multipliers = true, .minicpm = true)},
    {.arch = "mistral3", .experts = true, LIKE_LLAMA(.query_scale = true)},
    {.arch = "smollm3", LIKE_LLAMA(.still_every = 4)},
    {.arch = "glm4", LIKE_LLAMA(.mrope_halves = true, .fused_up = true, .post_norms = true)},
    {.arch = "ernie4_5", .experts = true, LIKE_LLAMA(.dense = true, .few_biases = true)},
    {.arch = "exaone4",
     LIKE_LLAMA(.adjust = adjust_exaone4, .halves = true, .head_norms = true, .unnormed = true, .post_norms = true,
                .windows = true, .period = 4, .window = 4096, .still_wide = true)},
    {.arch = "seed_oss", LIKE_LLAMA(.halves = true, .ffn_norm = "post_attention_norm")},
    {.arch = "cohere2",
     .layer_norm = true,
     LIKE_LLAMA(LAYER_NORM, .blocks = AT_ONCE, .windows = true, .period = 4, .still_wide = true, .logit_scale = true)},
    {.arch = "qwen2vl", LIKE_LLAMA(.halves = true, .qkv_bias = true, .no_output_bias = true)},
    {.arch = "qwen3vl", LIKE_LLAMA(.halves = true, .head_norms = true)},
    {.arch = "qwen", LIKE_LLAMA(.halves = true, .qkv_bias = true, .half_features = true)},
    {.arch = "arcee", LIKE_LLAMA(RELU2_MLP)},
    {.arch = "baichuan", LIKE_LLAMA(.adjust = adjust_baichuan)},
    {.arch = "bloom",
     .layer_norm = true,
     LIKE_LLAMA(GELU_MLP, .unrotated = true, .alibi = 8.0f, .embedding_norm = true)},
    {.arch = "chatglm", LIKE_LLAMA(.fused_up = true)},
    {.arch = "cogvlm", LIKE_LLAMA(.halves = true, .plain_rope = true)},
    {.arch = "granite_swa",
     .experts = true,
     LIKE_LLAMA(.multipliers = true, .windows = true, .rope_pattern = true, .sinks = true)},
    {.arch = "codeshell", .layer_norm = true, LIKE_LLAMA(GELU_MLP, .halves = true)},
    {.arch = "deci", .heads_differ = true, LIKE_LLAMA(.adjust = adjust_differing, .layers_differ = true)},
    {.arch = "exaone", LIKE_LLAMA(.halves = true)},
    {.arch = "falcon",
     .layer_norm = true,
     LIKE_LLAMA(GELU_MLP, .halves = true, .blocks = AT_ONCE, .attention_norm = true)},
    {.arch = "gpt2", .layer_norm = true, LIKE_LLAMA(GELU_MLP, .unrotated = true, .learned_positions = true)},
    {.arch = "gptneox", .layer_norm = true, LIKE_LLAMA(GELU_MLP, .adjust = adjust_gptneox, .halves = true)},
    {.arch = "hunyuan-dense", LIKE_LLAMA(.halves = true, .head_norms = true, .norm_after = true)},
    {.arch = "hunyuan_vl", LIKE_LLAMA(.halves = true, .head_norms = true, .norm_after = true)},
    {.arch = "maincoder", LIKE_LLAMA(.head_norms = true, .norm_after = true)},
    {.arch = "jais",
     .layer_norm = true,
     LIKE_LLAMA(LAYER_NORM, .unrotated = true, .alibi_key = true, .by_width = true)},
    {.arch = "jais2", .layer_norm = true, LIKE_LLAMA(LAYER_NORM, RELU2_MLP, .halves = true)},
    {.arch = "nanbeige", LIKE_LLAMA(.adjust = adjust_nanbeige)},
    {.arch = "nemotron", .layer_norm = true, LIKE_LLAMA(LAYER_NORM, RELU2_MLP, .halves = true)},
    {.arch = "openelm",
     .heads_differ = true,
     LIKE_LLAMA(.adjust = adjust_differing, .layers_differ = true, .halves = true, .head_norms = true)},
    {.arch = "orion", .layer_norm = true, LIKE_LLAMA(LAYER_NORM, .halves = true)},
    {.arch = "paddleocr", .experts = true, LIKE_LLAMA(.mrope_halves = true, .dense = true)},
    {.arch = "pangu-embedded", LIKE_LLAMA(.halves = true, .no_divisors = true)},
    {.arch = "phi2", .layer_norm = true, LIKE_LLAMA(GELU_MLP, .halves = true, .blocks = AT_ONCE)},
    {.arch = "plamo", LIKE_LLAMA(.halves = true, .blocks = AT_ONCE)},
    {.arch = "plamo3",
     LIKE_LLAMA(.halves = true, .head_norms = true, .fused_up = true, .post_norms = true, .windows = true, .period = 8,
                .local_base = 10000.0f)},
    {.arch = "refact", LIKE_LLAMA(.unrotated = true, .alibi = 8.0f, .few_biases = true)},
    {.arch = "stablelm",
     .layer_norm = true,
     LIKE_LLAMA(LAYER_NORM, .halves = true, .head_norms_optional = true, .norm_heads = true, .head_norm = HT_NORM_LAYER,
                .optional_norm = true)},
    {.arch = "starcoder", .layer_norm = true, LIKE_LLAMA(GELU_MLP, .unrotated = true, .learned_positions = true)},
    {.arch = "starcoder2", .layer_norm = true, LIKE_LLAMA(GELU_MLP, .halves = true)},
    {.arch = "xverse", LIKE_LLAMA()},
};
const size_t ht_n_families_like_llama = HT_COUNT(ht_families_like_llama);
