/* The builder: operators appended in the order of a forward pass. */
#include "model/build.h"

#include <math.h>
#include <stdio.h>

static const float *norm_weight(ht_builder *b, const char *name, size_t n) {
    char full[64];
    snprintf(full, sizeof full, "%s.weight", name);
    return ht_build_vector(b, full, n, true, 1.0f);
}

/* A zeroed operator at the end of the list, or NULL after an error. */
static ht_op *append(ht_builder *b, ht_op_kind kind, const char *name, ht_slot in, ht_slot aux, ht_slot out) {
    ht_model *model = b->model;
    if (b->status != HT_OK)
        return NULL;
    b->status =
        ht_grow((void **)&model->ops, &model->cap_ops, model->n_ops + 1, sizeof *model->ops, "operators", b->error);
    if (b->status != HT_OK)
        return NULL;
    ht_op *op = &model->ops[model->n_ops++];
    *op = (ht_op){.kind = kind,
                  .layer = b->layer,
                  .block = -1,
                  .cache = -1,
                  .in = in,
                  .aux = aux,
                  .out = out,
                  .eps = model->hparams.eps};
    if (b->layer >= 0)
        snprintf(op->name, sizeof op->name, "blk.%d.%s", b->layer, name);
    else
        snprintf(op->name, sizeof op->name, "%s", name);
    return op;
}

static const ht_hparams *shape_of(const ht_builder *b) {
    return b->shape ? b->shape : &b->model->hparams;
}

void ht_build_shape(ht_builder *b, const ht_hparams *shape) {
    const ht_hparams *most = &b->model->hparams;
    const int group = most->group ? most->group : most->heads / (most->kv_heads ? most->kv_heads : 1);
    b->shape = shape;
    if (shape && (shape->heads > most->heads || shape->kv_heads > most->kv_heads || shape->kv_heads < 1 ||
                  shape->heads % shape->kv_heads != 0 || shape->heads / shape->kv_heads > group ||
                  shape->head_dim > most->head_dim || shape->feed_forward > most->feed_forward ||
                  shape->embedding != most->embedding))
        ht_build_fail(b, HT_ERROR_FORMAT,
                      "layer %d has %d/%d heads of %d and %d features, more than the model's %d/%d, %d and %d",
                      b->layer, shape->heads, shape->kv_heads, shape->head_dim, shape->feed_forward, most->heads,
                      most->kv_heads, most->head_dim, most->feed_forward);
}

typedef struct part {
    const char *name; /* without ".weight" */
    size_t rows;
} part;

static void matmul(ht_builder *b, const char *name, ht_slot in, ht_slot out, const part *parts, int n, ht_bias bias) {
    ht_op *op = append(b, HT_OP_MATMUL, name, in, HT_SLOT_NONE, out);
    if (!op)
        return;
    op->n_parts = n;
    const size_t cols = ht_slot_width(shape_of(b), in);
    for (int i = 0; i < n; i++) {
        char bias_name[64];
        snprintf(bias_name, sizeof bias_name, "%s.bias", parts[i].name);
        op->parts[i] = ht_build_matrix(b, parts[i].name, parts[i].rows, cols);
        op->bias[i] = ht_build_vector(b, bias_name, parts[i].rows, bias == HT_BIAS_REQUIRED, 0.0f);
    }
}

void ht_build_embed(ht_builder *b, float scale) {
    const ht_hparams *h = &b->model->hparams;
    ht_op *op = append(b, HT_OP_EMBED, "token_embd", HT_SLOT_IDS, HT_SLOT_NONE, HT_SLOT_X);
    if (!op)
        return;
    op->n_parts = 1;
    op->parts[0] = ht_build_matrix(b, "token_embd", (size_t)h->vocabulary, (size_t)h->embedding);
    op->scale = scale;
}

void ht_build_layer(ht_builder *b, int layer) {
    b->layer = layer;
}

void ht_build_norm(ht_builder *b, const char *name) {
    ht_op *op = append(b, HT_OP_NORM, name, HT_SLOT_X, b->delta ? HT_SLOT_DELTA : HT_SLOT_NONE, HT_SLOT_NORMED);
    if (!op)
        return;
    op->width = b->model->hparams.embedding;
    op->weight = norm_weight(b, name, (size_t)b->model->hparams.embedding);
    op->post_norm = b->post_norm;
    b->delta = false;
    b->post_norm = NULL;
}

void ht_build_add(ht_builder *b, const char *post_norm) {
    b->delta = true;
    b->post_norm = post_norm ? norm_weight(b, post_norm, (size_t)b->model->hparams.embedding) : NULL;
}

void ht_build_qkv(ht_builder *b, ht_bias bias) {
    const ht_hparams *h = shape_of(b);
    const size_t q = (size_t)h->heads * (size_t)h->head_dim, kv = (size_t)h->kv_heads * (size_t)h->head_dim;
    matmul(b, "attn_qkv", HT_SLOT_NORMED, HT_SLOT_QKV, (part[]){{"attn_q", q}, {"attn_k", kv}, {"attn_v", kv}}, 3,
           bias);
}

void ht_build_rope(ht_builder *b, const ht_rotation *rotation) {
    const ht_hparams *h = shape_of(b);
    const size_t head_dim = (size_t)h->head_dim;
    ht_op *op = append(b, HT_OP_ROPE, "rope", HT_SLOT_QKV, HT_SLOT_NONE, HT_SLOT_QKV);
    if (!op)
        return;
    op->cache = b->caches++;
    op->heads = h->heads, op->kv_heads = h->kv_heads, op->head_dim = h->head_dim;
    op->rope = rotation->table;
    op->rope_halves = rotation->halves;
    op->rope_dim = ht_rope_dim(b->model);
    op->q_norm = rotation->q_norm ? norm_weight(b, rotation->q_norm, head_dim) : NULL;
    op->k_norm = rotation->k_norm ? norm_weight(b, rotation->k_norm, head_dim) : NULL;
}

void ht_build_attention(ht_builder *b, float scale, int window) {
    ht_op *op = append(b, HT_OP_ATTENTION, "attn", HT_SLOT_QKV, HT_SLOT_NONE, HT_SLOT_ATTN);
    if (!op)
        return;
    const ht_hparams *h = shape_of(b);
    op->heads = h->heads, op->kv_heads = h->kv_heads, op->head_dim = h->head_dim;
    op->cache = b->caches - 1;
    op->scale = scale != 0.0f ? scale : 1.0f / sqrtf((float)h->head_dim);
    op->window = window;
}

void ht_build_attention_output(ht_builder *b) {
    const size_t rows = (size_t)b->model->hparams.embedding;
    matmul(b, "attn_output", HT_SLOT_ATTN, HT_SLOT_DELTA, (part[]){{"attn_output", rows}}, 1, HT_BIAS_OPTIONAL);
}

void ht_build_gate_up(ht_builder *b) {
    const size_t rows = (size_t)shape_of(b)->feed_forward;
    matmul(b, "ffn_gate_up", HT_SLOT_NORMED, HT_SLOT_FFN, (part[]){{"ffn_gate", rows}, {"ffn_up", rows}}, 2,
           HT_BIAS_OPTIONAL);
}

void ht_build_glu(ht_builder *b, ht_activation activation) {
    ht_op *op = append(b, HT_OP_GLU, "ffn_act", HT_SLOT_FFN, HT_SLOT_NONE, HT_SLOT_ACT);
    if (op)
        op->activation = activation, op->width = shape_of(b)->feed_forward;
}

void ht_build_down(ht_builder *b) {
    const size_t rows = (size_t)b->model->hparams.embedding;
    matmul(b, "ffn_down", HT_SLOT_ACT, HT_SLOT_DELTA, (part[]){{"ffn_down", rows}}, 1, HT_BIAS_OPTIONAL);
}

ht_status ht_build_head(ht_builder *b) {
    const ht_model *model = b->model;
    b->layer = -1;
    ht_build_block(b, HT_BLOCK_HEAD, model->hparams.vocabulary);
    ht_build_norm(b, "output_norm");
    const bool tied = model->file ? !ht_gguf_tensor(model->file, "output.weight") : model->shape->tied;
    matmul(b, "output", HT_SLOT_NORMED, HT_SLOT_LOGITS,
           (part[]){{tied ? "token_embd" : "output", (size_t)model->hparams.vocabulary}}, 1, HT_BIAS_OPTIONAL);
    ht_op *pick = append(b, HT_OP_ARGMAX, "argmax", HT_SLOT_LOGITS, HT_SLOT_NONE, HT_SLOT_PICK);
    if (pick)
        pick->width = model->hparams.vocabulary;
    return ht_build_blocks(b);
}
