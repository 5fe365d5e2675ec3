/* Gemma 3n, text part: arch "gemma3n". Google DeepMind, "Gemma 3n" (2025). Four streams of which layers see the first
 * and predict the others (AltUp); a low-rank path beside attention (LAuReL, Menghani et al., 2024); per-layer
 * embeddings; gates of the first layers that are far above the others' go on alone; the last layers read the keys and
 * values of the last one before that is like them. */
#include "model/build.h"

#include <math.h>

/* What llama.cpp takes for granted, whatever the file says: which layers are sparse, and how much; streams are 4, ranks
 * 64. */
enum { SPARSE_LAYERS = 10, KEEPING_LAYERS = 20, STREAMS = 4, RANK = 64, SIDE = 256 };
#define SPARSITY 1.6448533535003662f /* of a normal distribution 0.95 is below that */

typedef struct gemma3n {
    bool is_local[HT_MAX_LAYERS];
    ht_rotation wide, local;
    int streams, side, first_shared;
} gemma3n;

static int source_of(ht_builder *b, const gemma3n *g, int layer) {
    int source = layer < g->first_shared ? layer : g->first_shared - 1;
    while (source >= 0 && g->is_local[source] != g->is_local[layer])
        source--;
    if (source < 0)
        ht_build_fail(b, HT_ERROR_FORMAT, "layer %d shares keys and values, and no layer before has such", layer);
    return source < 0 ? 0 : source;
}

static void attention(ht_builder *b, const gemma3n *g, int layer) {
    const ht_hparams *h = &b->model->hparams;
    const int source = source_of(b, g, layer);
    ht_rotation rotation = g->is_local[layer] ? g->local : g->wide;
    rotation.shared = source != layer;
    ht_build_block(b, HT_BLOCK_MIXED_ATTENTION, h->kv_heads);
    ht_build_predict(b, g->streams);
    ht_build_norm(b, "attn_norm");
    if (rotation.shared)
        ht_build_queries(b, HT_BIAS_OPTIONAL);
    else
        ht_build_qkv(b, HT_BIAS_OPTIONAL);
    ht_build_rope(b, &rotation);
    ht_build_attention_of(b, &(ht_attending){.scale = 1.0f,
                                             .window = g->is_local[layer] ? h->sliding_window : 0,
                                             .shared = rotation.shared,
                                             .cache = source});
    ht_build_attention_output(b);
    ht_build_add_each(b, "post_attention_norm", NULL);
    ht_build_low_rank(b, RANK, "laurel_l", "laurel_r");
    ht_build_add_each(b, "laurel_post_norm", NULL);
}

/* It reads (stream + attention's + low-rank path's + what these read) / sqrt(2). */
static void feed_forward(ht_builder *b, bool sparse) {
    const int features = b->model->hparams.feed_forward;
    ht_build_block(b, sparse ? HT_BLOCK_SPARSE_FEED_FORWARD : HT_BLOCK_FEED_FORWARD, features);
    b->stream_scale = sqrtf(0.5f);
    ht_build_norm_of(b, "ffn_norm", &(ht_norming){.adds_normed = true});
    ht_build_gate_up(b);
    ht_build_glu(b, HT_ACT_GELU_TANH);
    if (sparse && b->status == HT_OK)
        b->model->ops[b->model->n_ops - 1].sparsity = SPARSITY;
    ht_build_down(b);
    ht_build_add(b, "post_ffw_norm");
}

/* What the corrected first stream and the layer's own embedding give to the other streams. */
static void side(ht_builder *b, const gemma3n *g, int layer) {
    ht_hparams shape = b->model->hparams;
    shape.feed_forward = g->side;
    ht_build_shape(b, &shape);
    ht_build_block(b, HT_BLOCK_MIXED_FEED_FORWARD, g->side);
    ht_build_correct(b, g->streams);
    ht_build_side_gate(b);
    ht_build_side_glu(b, HT_ACT_GELU_TANH, "per_layer_token_embd", (size_t)layer * (size_t)g->side);
    ht_build_side_output(b);
    ht_build_add(b, "post_norm");
    ht_build_shape(b, NULL);
}

static void read_keys(ht_builder *b, gemma3n *g) {
    ht_hparams *h = &b->model->hparams;
    h->sliding_window = (int)ht_build_int(b, "attention.sliding_window", 0, INT32_MAX, h->sliding_window);
    if (h->sliding_window > 0)
        ht_build_pattern(b, g->is_local, 5);
    b->output_cap = ht_build_factor(b, "final_logit_softcapping", 30.0f);
    g->wide = (ht_rotation){.halves = true, .q_norm = "attn_q_norm", .k_norm = "attn_k_norm", .v_norm = true};
    g->local = g->wide;
    g->wide.table = ht_build_rope_table(b, ht_build_float(b, "rope.freq_base", 10000.0f), true);
    g->local.table = ht_build_rope_table(b, ht_build_float(b, "rope.freq_base_swa", 10000.0f), false);
    g->streams = (int)ht_build_int(b, "altup.num_inputs", 2, HT_MAX_MIXED, STREAMS);
    g->side = (int)ht_build_int(b, "embedding_length_per_layer_input", 1, 1 << 16, SIDE);
    ht_build_int(b, "altup.active_idx", 0, 0, 0); /* another stream than the first is nobody's */
    const int kept = h->layers < KEEPING_LAYERS ? h->layers : KEEPING_LAYERS;
    g->first_shared =
        h->layers - (int)ht_build_int(b, "attention.shared_kv_layers", 0, h->layers - 1, h->layers - kept);
}

static ht_status build_gemma3n(const ht_family *family, ht_model *model, ht_error *error) {
    ht_builder b = ht_build_begin(model, error);
    ht_hparams *h = &model->hparams;
    gemma3n g = {.streams = STREAMS};
    read_keys(&b, &g);
    const int features = h->feed_forward;
    if (g.side > features)
        ht_build_fail(&b, HT_ERROR_UNSUPPORTED, "a layer's embedding of %d values, more than its %d features", g.side,
                      features);

    ht_build_embed(&b, sqrtf((float)h->embedding));
    ht_build_side_inputs(&b, (size_t)g.side);
    ht_build_streams(&b, g.streams);
    for (int layer = 0; layer < h->layers && b.status == HT_OK; layer++) {
        ht_build_layer(&b, layer);
        attention(&b, &g, layer);
        feed_forward(&b, layer < SPARSE_LAYERS);
        side(&b, &g, layer);
    }
    ht_build_one_stream(&b, g.streams);
    return ht_build_head(&b);
}

const ht_family ht_family_gemma3n = {.arch = "gemma3n", .build = build_gemma3n};
