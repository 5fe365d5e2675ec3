/* Gemma 4, text part: arch "gemma4". Google DeepMind (2026). Layers with a sliding window and layers that see
 * everything have heads of different width and number; the last ones read keys and values of the last layer of their
 * own kind that made some. A key may be its value, too. Small models have per-layer embeddings, some an ordinary
 * feed-forward block and experts side by side, each with norms of its own. What leaves a layer is scaled. */
#include "model/build.h"

#include <math.h>

typedef struct gemma4 {
    bool is_local[HT_MAX_LAYERS];
    ht_hparams shapes[HT_MAX_LAYERS];
    ht_rotation wide, local;
    ht_mixture mixture;
    int first_shared; /* layers from here on make no keys and values */
    int side;         /* values of a layer's embedding; 0: there is none */
} gemma4;

/* Heads of each layer; the model's figures are the most of them. */
static void read_shapes(ht_builder *b, gemma4 *g) {
    ht_hparams *h = &b->model->hparams;
    const int wide = h->head_dim, local = (int)ht_build_int(b, "attention.key_length_swa", 2, 1024, wide);
    if (local % 2 != 0 || ht_build_int(b, "attention.value_length_swa", 1, 1024, local) != local)
        ht_build_fail(b, HT_ERROR_UNSUPPORTED, "heads of %d values: it must be an even number, and values' the same",
                      local);
    h->head_dim = wide > local ? wide : local;
    h->group = 1;
    for (int layer = 0; layer < h->layers && b->status == HT_OK; layer++) {
        ht_hparams own = ht_build_layer_shape(b, layer);
        own.head_dim = g->is_local[layer] ? local : wide;
        if (own.kv_heads < 1 || own.heads < own.kv_heads || own.heads % own.kv_heads != 0)
            ht_build_fail(b, HT_ERROR_FORMAT, "layer %d has %d heads for %d key-value heads", layer, own.heads,
                          own.kv_heads);
        else if (own.heads / own.kv_heads > h->group)
            h->group = own.heads / own.kv_heads;
        g->shapes[layer] = own;
    }
}

/* The layer whose keys and values this one reads: itself, or the last one of its kind that has some. */
static int source_of(ht_builder *b, const gemma4 *g, int layer) {
    int source = layer < g->first_shared ? layer : g->first_shared - 1;
    while (source >= 0 && g->is_local[source] != g->is_local[layer])
        source--;
    if (source < 0 || g->shapes[source].kv_heads != g->shapes[layer].kv_heads) {
        ht_build_fail(b, HT_ERROR_FORMAT, "layer %d shares keys and values, and no layer before has such", layer);
        return 0;
    }
    return source;
}

static void attention(ht_builder *b, const gemma4 *g, int layer) {
    const ht_hparams *h = ht_build_shape_of(b);
    const size_t q = (size_t)h->heads * (size_t)h->head_dim, kv = (size_t)h->kv_heads * (size_t)h->head_dim;
    const int source = source_of(b, g, layer);
    ht_rotation rotation = g->is_local[layer] ? g->local : g->wide;
    rotation.shared = source != layer;
    ht_build_block(b, HT_BLOCK_ATTENTION, h->kv_heads);
    ht_build_norm(b, "attn_norm");
    if (rotation.shared)
        ht_build_queries(b, HT_BIAS_OPTIONAL);
    else
        ht_build_qkv_of(
            b,
            (ht_build_part[]){
                {.name = "attn_q", .rows = q},
                {.name = "attn_k", .rows = kv},
                {.name = ht_build_has_matrix(b, "attn_v") || !b->model->file ? "attn_v" : "attn_k", .rows = kv}},
            HT_BIAS_OPTIONAL);
    ht_build_rope(b, &rotation);
    ht_build_attention_of(b, &(ht_attending){.scale = 1.0f,
                                             .window = g->is_local[layer] ? b->model->hparams.sliding_window : 0,
                                             .shared = rotation.shared,
                                             .cache = source});
    ht_build_attention_output(b);
    ht_build_add(b, "post_attention_norm");
}

/* An ordinary block and experts side by side. */
static void both(ht_builder *b, const gemma4 *g) {
    const ht_hparams *h = ht_build_shape_of(b);
    const size_t n = (size_t)h->embedding;
    ht_build_block(b, HT_BLOCK_FEED_FORWARD, h->feed_forward);
    ht_build_norm(b, "ffn_norm");
    ht_build_gate_up(b);
    ht_build_glu(b, HT_ACT_GELU_TANH);
    ht_build_down(b);
    ht_build_add_each(b, "post_ffw_norm_1", NULL);
    ht_build_block(b, HT_BLOCK_NORMED_EXPERTS, g->mixture.features);
    const float *router = ht_build_scaled_vector(b, "ffn_gate_inp.scale", n, 1.0f / sqrtf((float)n));
    ht_build_norm_of(b, "ffn_gate_inp_norm", &(ht_norming){.looks = true, .weight = router});
    ht_build_router(b, &g->mixture);
    ht_build_norm_of(b, "pre_ffw_norm_2", &(ht_norming){.looks = true});
    ht_build_chosen(b, &g->mixture);
    ht_build_add_each(b, "post_ffw_norm_2", "post_ffw_norm");
}

/* What the layer makes of its own embedding. */
static void side(ht_builder *b, const gemma4 *g, int layer) {
    ht_hparams shape = g->shapes[layer];
    shape.feed_forward = g->side;
    ht_build_shape(b, &shape);
    ht_build_block(b, HT_BLOCK_FEED_FORWARD, g->side);
    ht_build_norm(b, NULL);
    ht_build_side_gate(b);
    ht_build_side_glu(b, HT_ACT_GELU_TANH, "per_layer_token_embd", (size_t)layer * (size_t)g->side);
    ht_build_side_output(b);
    ht_build_add(b, "post_norm");
    ht_build_shape(b, NULL);
}

static void scale_layer(ht_builder *b) {
    const float *scale = ht_build_vector(b, "layer_output_scale.weight", 1, false, 1.0f);
    if (scale && !(fabsf(*scale) >= 1e-6f && fabsf(*scale) <= 1e6f))
        ht_build_fail(b, HT_ERROR_FORMAT, "layer %d: its output is scaled by %g", b->layer, (double)*scale);
    else if (scale)
        b->stream_scale = *scale;
}

static ht_status build_gemma4(const ht_family *family, ht_model *model, ht_error *error) {
    static const char *const own_scales[] = {"ffn_gate_inp", "ffn_down_exps", NULL};
    ht_builder b = ht_build_begin(model, error);
    ht_hparams *h = &model->hparams;
    gemma4 *g = ht_arena_alloc(&model->arena, sizeof *g);
    if (!g)
        return ht_build_fail(&b, HT_ERROR_MEMORY, "out of memory for its layers");
    *g = (gemma4){.wide = {.halves = true, .q_norm = "attn_q_norm", .k_norm = "attn_k_norm", .v_norm = true}};
    h->sliding_window = (int)ht_build_int(&b, "attention.sliding_window", 0, INT32_MAX, h->sliding_window);
    if (h->sliding_window > 0)
        ht_build_pattern(&b, g->is_local, 6);
    b.output_cap = ht_build_factor(&b, "final_logit_softcapping", 0.0f);
    b.own_scales = own_scales;
    const int turned = (int)ht_build_int(&b, "rope.dimension_count", 2, h->head_dim, h->head_dim);
    g->local = g->wide;
    g->wide.table = ht_build_rope_table(&b, ht_build_freq_base(&b, false), true);
    read_shapes(&b, g);
    g->local.table = ht_build_rope_table_of(
        &b, &(ht_rope_kind){.freq_base = ht_build_float(&b, "rope.freq_base_swa", 10000.0f),
                            .dim = (int)ht_build_int(&b, "rope.dimension_count_swa", 2, h->head_dim, turned)});
    g->first_shared = h->layers - (int)ht_build_int(&b, "attention.shared_kv_layers", 0, h->layers - 1, 0);
    g->side = (int)ht_build_int(&b, "embedding_length_per_layer_input", 0, 1 << 16, 0);
    if (g->side > h->feed_forward)
        h->feed_forward = g->side;
    g->mixture = ht_build_mixture(&b, HT_ROUTE_SOFTMAX, true);
    g->mixture.activation = HT_ACT_GELU_TANH;
    g->mixture.factored = true;

    ht_build_embed(&b, sqrtf((float)h->embedding));
    if (g->side)
        ht_build_side_inputs(&b, (size_t)g->side);
    for (int layer = 0; layer < h->layers && b.status == HT_OK; layer++) {
        ht_build_layer(&b, layer);
        ht_build_shape(&b, &g->shapes[layer]);
        attention(&b, g, layer);
        if (g->mixture.experts && ht_build_has_matrix(&b, "ffn_gate_inp"))
            both(&b, g);
        else
            ht_build_feed_forward(&b, "ffn_norm", HT_ACT_GELU_TANH, "post_ffw_norm");
        if (g->side)
            side(&b, g, layer);
        scale_layer(&b);
    }
    ht_build_shape(&b, NULL);
    return ht_build_head(&b);
}

const ht_family ht_family_gemma4 = {.arch = "gemma4", .build = build_gemma4, .experts = true, .heads_differ = true};
