/* The builder: streams beside each other and side inputs, which every lane computes for itself. Per-layer embeddings:
 * "Gemma 3n" (2025); AltUp: Baykal et al., "Alternating Updates for Efficient Transformers" (2023). */
#include "model/build.h"

#include <math.h>
#include <stdio.h>

static ht_slot own_slot(ht_builder *b, const char *name, size_t width) {
    return ht_build_slot(b, name, HT_ROLE_OWN, width);
}

static ht_slot stream_slot(ht_builder *b) {
    return own_slot(b, b->stream ? b->stream : "x", 0);
}

void ht_build_normed_embed(ht_builder *b, float scale, const char *name) {
    const size_t n = (size_t)b->model->hparams.embedding;
    const char *const stream = b->stream;
    b->stream = "embedded";
    own_slot(b, b->stream, n);
    ht_build_embed(b, scale);
    b->stream = stream;
    own_slot(b, stream ? stream : "x", n);
    ht_op *op = ht_build_op(b, HT_OP_NORM, name ? name : "embed_norm", own_slot(b, "embedded", n), stream_slot(b));
    if (!op)
        return;
    char full[64];
    op->width = (int)n;
    op->norm = name ? b->norm : HT_NORM_RMS;
    snprintf(full, sizeof full, "%s.weight", name ? name : "");
    op->weight = name ? ht_build_vector(b, full, n, true, 1.0f) : ht_build_constant(b, n, 1.0f);
    snprintf(full, sizeof full, "%s.bias", name ? name : "");
    op->norm_bias = name && b->norm == HT_NORM_LAYER ? ht_build_vector(b, full, n, false, 0.0f) : NULL;
}

/* ---- per-layer embeddings
 * ------------------------------------------------------------------------------------------------- */

void ht_build_side_inputs(ht_builder *b, size_t width) {
    const size_t layers = (size_t)b->model->hparams.layers, all = layers * width, n = ht_build_stream_width(b);
    const float half = sqrtf(0.5f);
    ht_build_side(b, "per_layer_token_embd", all, half * sqrtf((float)width));
    const ht_slot made = own_slot(b, "per_layer_proj", all);
    ht_build_matmul(b, "per_layer_model_proj", stream_slot(b), made, n,
                    (ht_build_part[]){{.name = "per_layer_model_proj", .rows = all}}, 1, HT_BIAS_OPTIONAL);
    ht_op *op = ht_build_op(b, HT_OP_MIX, "per_layer_proj_norm", made, own_slot(b, "per_layer_token_embd", all));
    if (!op)
        return;
    op->mix = (ht_mix){.function = HT_MIX_SIDE, .streams = (int)layers};
    op->width = (int)width;
    op->eps *= (float)n; /* what is normed is 1 / sqrt(n) of it */
    op->weight = ht_build_scaled_vector(b, "per_layer_proj_norm.weight", width, half);
}

/* ---- AltUp
 * ----------------------------------------------------------------------------------------------------------------- */

static ht_slot streams_slot(ht_builder *b, int streams) {
    return own_slot(b, "streams", (size_t)streams * ht_build_stream_width(b));
}

static ht_op *mix(ht_builder *b, const char *name, int function, int streams, ht_slot in, ht_slot more, ht_slot out) {
    ht_op *op = ht_build_op(b, HT_OP_MIX, name, in, out);
    if (!op)
        return NULL;
    op->mix.function = function, op->mix.streams = streams;
    op->width = (int)ht_build_stream_width(b);
    op->n_more = 1, op->more[0] = more;
    return op;
}

void ht_build_streams(ht_builder *b, int streams) {
    const size_t n = ht_build_stream_width(b), others = (size_t)(streams - 1);
    const ht_slot made = own_slot(b, "projected", others * n);
    if (streams < 2 || streams > HT_MAX_MIXED)
        ht_build_fail(b, HT_ERROR_UNSUPPORTED, "%d streams: 2 to %d are supported", streams, HT_MAX_MIXED);
    ht_op *op = ht_build_op(b, HT_OP_MATMUL, "altup_proj", stream_slot(b), made);
    if (!op)
        return;
    op->n_parts = 1;
    op->parts[0] = ht_build_matrices(b, "altup_proj", n, n, others);
    mix(b, "altup_begin", HT_MIX_BEGIN, streams, stream_slot(b), made, streams_slot(b, streams));
}

/* What the layer's router is. */
static void add_router(ht_builder *b, ht_op *op) {
    const size_t n = ht_build_stream_width(b), streams = (size_t)op->mix.streams;
    const bool predicts = op->mix.function == HT_MIX_PREDICT;
    op->mix.router_norm = ht_build_vector(b, "altup_router_norm.weight", n, true, 1.0f);
    op->mix.router = ht_build_vectors(b, "altup_router.weight", n, streams, true, 0.1f);
    op->mix.coefs = ht_build_vectors(b, predicts ? "altup_predict_coef.weight" : "altup_correct_coef.weight", streams,
                                     predicts ? streams * streams : streams, true, 0.1f);
}

void ht_build_predict(ht_builder *b, int streams) {
    ht_build_norm_of(b, NULL, &(ht_norming){.replaces = true});
    ht_op *op =
        mix(b, "altup_predict", HT_MIX_PREDICT, streams, ht_build_normed(b), streams_slot(b, streams), stream_slot(b));
    if (op)
        add_router(b, op);
}

void ht_build_correct(ht_builder *b, int streams) {
    ht_build_norm(b, NULL);
    ht_op *op = mix(b, "altup_correct", HT_MIX_CORRECT, streams, ht_build_normed(b), streams_slot(b, streams),
                    ht_build_normed(b));
    if (!op)
        return;
    add_router(b, op);
    op->mix.scale = ht_build_vector(b, "altup_correct_scale.weight", b->normed, true, 1.0f);
}

void ht_build_one_stream(ht_builder *b, int streams) {
    const size_t n = ht_build_stream_width(b), others = (size_t)(streams - 1);
    const int layer = b->layer;
    ht_build_block(b, HT_BLOCK_MIXED_END, streams);
    ht_build_norm_of(b, NULL, &(ht_norming){.replaces = true});
    const ht_slot in = own_slot(b, "others", others * n),
                  out = ht_build_slot(b, "unprojected", HT_ROLE_BETWEEN, others * n);
    mix(b, "altup_gather", HT_MIX_GATHER, streams, ht_build_normed(b), streams_slot(b, streams), in);
    ht_op *op = ht_build_op(b, HT_OP_HEADS, "altup_unembd_proj", in, out);
    if (!op)
        return;
    op->heads = (int)others, op->kv_heads = 1, op->head_dim = (int)n;
    op->n_parts = 1;
    b->layer = -1;
    op->parts[0] = ht_build_matrices(b, "altup_unembd_proj", n, n, others);
    b->layer = layer;
    mix(b, "altup_end", HT_MIX_END, streams, out, streams_slot(b, streams), ht_build_sums(b));
    ht_build_add(b, NULL);
    b->stream_anew = true;
}

void ht_build_low_rank(ht_builder *b, int rank, const char *down, const char *up) {
    const ht_slot between = ht_build_slot(b, "low_rank", HT_ROLE_BETWEEN, (size_t)rank);
    ht_build_block(b, HT_BLOCK_LOW_RANK, rank);
    ht_build_matmul(b, down, ht_build_normed(b), between, b->normed,
                    (ht_build_part[]){{.name = down, .rows = (size_t)rank}}, 1, HT_BIAS_OPTIONAL);
    ht_build_give(b, up, between, (size_t)rank);
}
