/* The builder: operators appended in the order of a forward pass. */
#include "model/build.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const float *norm_weight(ht_builder *b, const char *name, size_t n) {
    char full[64];
    snprintf(full, sizeof full, "%s.weight", name);
    return ht_build_vector(b, full, n, true, 1.0f);
}

ht_slot ht_build_slot(ht_builder *b, const char *name, ht_slot_role role, size_t width) {
    ht_model *model = b->model;
    int i = 0;
    while (i < model->n_slots && strcmp(model->slots[i].name, name) != 0)
        i++;
    if (b->status == HT_OK && i == HT_MAX_SLOTS)
        ht_build_fail(b, HT_ERROR_UNSUPPORTED, "slot %s: a model has %d slots at most", name, HT_MAX_SLOTS);
    if (b->status != HT_OK)
        return HT_SLOT_NONE;
    ht_slot_info *slot = &model->slots[i];
    if (i == model->n_slots) {
        const bool whole = role == HT_ROLE_IDS || role == HT_ROLE_PICK;
        *slot = (ht_slot_info){.name = name, .role = role, .type = whole ? HT_SLOT_INT32 : HT_SLOT_FLOAT32};
        model->n_slots++;
    }
    if (slot->role != role)
        ht_build_fail(b, HT_ERROR_FORMAT, "slot %s is declared for two roles", name);
    slot->width = ht_max_size(slot->width, width);
    return i;
}

/* Those of all families. */
static ht_slot stream(ht_builder *b) {
    return b->stream ? ht_build_slot(b, b->stream, HT_ROLE_OWN, 0)
                     : ht_build_slot(b, "x", HT_ROLE_OWN, (size_t)b->model->hparams.embedding);
}

static size_t stream_width(ht_builder *b) {
    const ht_slot slot = stream(b);
    return slot == HT_SLOT_NONE ? 0 : b->model->slots[slot].width;
}

static ht_slot normed(ht_builder *b) {
    return ht_build_slot(b, "normed", HT_ROLE_OWN, b->normed);
}

/* Where the block's result goes: what others gave may be waiting yet for the next norm. */
static const char *const sums_names[HT_BUILD_SUMS] = {"delta", "delta2", "delta3", "delta4"};

static int free_sums(ht_builder *b) {
    int i = 0;
    while (i < HT_BUILD_SUMS && b->given[i].waits)
        i++;
    if (i == HT_BUILD_SUMS)
        ht_build_fail(b, HT_ERROR_UNSUPPORTED, "layer %d: %d blocks gave what no norm has added yet", b->layer, i);
    return i % HT_BUILD_SUMS;
}

static ht_slot sums(ht_builder *b) {
    return ht_build_slot(b, sums_names[free_sums(b)], HT_ROLE_SUMS, stream_width(b));
}

/* A zeroed operator at the end of the list, or NULL after an error. */
static ht_op *append(ht_builder *b, ht_op_kind kind, const char *name, ht_slot in, ht_slot out) {
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
                  .aux = HT_SLOT_NONE,
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

/* From one slot to another, `cols` values of the first. */
typedef struct way {
    ht_slot in, out;
    size_t cols;
} way;

static void matmul(ht_builder *b, const char *name, way from, const part *parts, int n, ht_bias bias) {
    ht_op *op = append(b, HT_OP_MATMUL, name, from.in, from.out);
    if (!op)
        return;
    op->n_parts = n;
    for (int i = 0; i < n; i++) {
        char bias_name[64];
        snprintf(bias_name, sizeof bias_name, "%s.bias", parts[i].name);
        op->parts[i] = ht_build_matrix(b, parts[i].name, parts[i].rows, from.cols);
        op->bias[i] = ht_build_vector(b, bias_name, parts[i].rows, bias == HT_BIAS_REQUIRED, 0.0f);
    }
}

static void embed(ht_builder *b, const char *name, ht_slot out, size_t width, float scale) {
    ht_op *op = append(b, HT_OP_EMBED, name, ht_build_slot(b, "ids", HT_ROLE_IDS, 1), out);
    if (!op)
        return;
    op->n_parts = 1;
    op->parts[0] = ht_build_matrix(b, name, (size_t)b->model->hparams.vocabulary, width);
    op->scale = scale;
}

void ht_build_embed(ht_builder *b, float scale) {
    embed(b, "token_embd", stream(b), (size_t)b->model->hparams.embedding, scale);
}

void ht_build_side(ht_builder *b, const char *name, size_t width, float scale) {
    embed(b, name, ht_build_slot(b, name, HT_ROLE_OWN, width), width, scale);
}

void ht_build_stream(ht_builder *b, const char *name) {
    b->stream = name;
    if (stream_width(b) > (size_t)b->model->hparams.embedding)
        ht_build_fail(b, HT_ERROR_UNSUPPORTED, "stream %s is %zu values wide, more than the embedding's %d",
                      name ? name : "x", stream_width(b), b->model->hparams.embedding);
}

void ht_build_layer(ht_builder *b, int layer) {
    b->layer = layer;
}

void ht_build_norm(ht_builder *b, const char *name) {
    b->normed = stream_width(b);
    ht_op *op = append(b, HT_OP_NORM, name, stream(b), normed(b));
    if (!op)
        return;
    op->width = (int)b->normed;
    op->weight = norm_weight(b, name, b->normed);
    for (int i = 0; i < HT_BUILD_SUMS && b->status == HT_OK; i++) {
        ht_given *given = &b->given[i];
        if (!given->waits || given->stream != op->in)
            continue;
        const ht_slot slot = ht_build_slot(b, sums_names[i], HT_ROLE_SUMS, b->normed);
        if (op->post_norm || op->n_more == HT_MAX_MORE)
            ht_build_fail(b, HT_ERROR_UNSUPPORTED, "%s: %s", op->name,
                          op->post_norm ? "what is normed by itself is added with another block's"
                                        : "more than two blocks give what it adds");
        else if (op->aux == HT_SLOT_NONE)
            op->aux = slot;
        else
            op->more[op->n_more++] = slot;
        op->post_norm = given->post_norm;
        *given = (ht_given){0};
    }
}

void ht_build_add(ht_builder *b, const char *post_norm) {
    const float *weight = post_norm ? norm_weight(b, post_norm, stream_width(b)) : NULL;
    b->given[free_sums(b)] = (ht_given){true, stream(b), weight};
}

/* Of the layer at hand: queries, keys and values of all heads; every head's values; gate, and up where `parts` is 2;
 * features. */
static ht_slot qkv_slot(ht_builder *b) {
    const ht_hparams *h = shape_of(b);
    return ht_build_slot(b, "qkv", HT_ROLE_BETWEEN, ((size_t)h->heads + 2 * (size_t)h->kv_heads) * (size_t)h->head_dim);
}

static ht_slot heads_slot(ht_builder *b) {
    const ht_hparams *h = shape_of(b);
    return ht_build_slot(b, "attn", HT_ROLE_BETWEEN, (size_t)h->heads * (size_t)h->head_dim);
}

static ht_slot gate_slot(ht_builder *b, size_t parts) {
    return ht_build_slot(b, "ffn", HT_ROLE_BETWEEN, parts * (size_t)shape_of(b)->feed_forward);
}

static ht_slot features_slot(ht_builder *b) {
    return ht_build_slot(b, "act", HT_ROLE_BETWEEN, (size_t)shape_of(b)->feed_forward);
}

void ht_build_qkv(ht_builder *b, ht_bias bias) {
    const ht_hparams *h = shape_of(b);
    const size_t q = (size_t)h->heads * (size_t)h->head_dim, kv = (size_t)h->kv_heads * (size_t)h->head_dim;
    const way from = {normed(b), qkv_slot(b), b->normed};
    matmul(b, "attn_qkv", from, (part[]){{"attn_q", q}, {"attn_k", kv}, {"attn_v", kv}}, 3, bias);
}

void ht_build_rope(ht_builder *b, const ht_rotation *rotation) {
    const ht_hparams *h = shape_of(b);
    const size_t head_dim = (size_t)h->head_dim;
    ht_op *op = append(b, HT_OP_ROPE, "rope", qkv_slot(b), qkv_slot(b));
    if (!op)
        return;
    op->cache = b->caches++;
    op->heads = h->heads, op->kv_heads = h->kv_heads, op->head_dim = h->head_dim;
    op->rope = rotation->table;
    op->rope_halves = rotation->halves;
    op->rope_dim = (int)ht_min_size((size_t)ht_rope_dim(b->model), head_dim);
    op->q_norm = rotation->q_norm ? norm_weight(b, rotation->q_norm, head_dim) : NULL;
    op->k_norm = rotation->k_norm ? norm_weight(b, rotation->k_norm, head_dim) : NULL;
}

void ht_build_attention(ht_builder *b, float scale, int window) {
    ht_op *op = append(b, HT_OP_ATTENTION, "attn", qkv_slot(b), heads_slot(b));
    if (!op)
        return;
    const ht_hparams *h = shape_of(b);
    op->heads = h->heads, op->kv_heads = h->kv_heads, op->head_dim = h->head_dim;
    op->cache = b->caches - 1;
    op->scale = scale != 0.0f ? scale : 1.0f / sqrtf((float)h->head_dim);
    op->window = window;
}

/* The block's last matrix, from `cols` values of a slot to what the next norm of the stream adds. */
static void give(ht_builder *b, const char *name, ht_slot in, size_t cols) {
    const way from = {in, sums(b), cols};
    matmul(b, name, from, (part[]){{name, stream_width(b)}}, 1, HT_BIAS_OPTIONAL);
}

void ht_build_attention_output(ht_builder *b) {
    const ht_hparams *h = shape_of(b);
    give(b, "attn_output", heads_slot(b), (size_t)h->heads * (size_t)h->head_dim);
}

void ht_build_gate_up(ht_builder *b) {
    const size_t rows = (size_t)shape_of(b)->feed_forward;
    const way from = {normed(b), gate_slot(b, 2), b->normed};
    matmul(b, "ffn_gate_up", from, (part[]){{"ffn_gate", rows}, {"ffn_up", rows}}, 2, HT_BIAS_OPTIONAL);
}

void ht_build_glu(ht_builder *b, ht_activation activation) {
    ht_op *op = append(b, HT_OP_GLU, "ffn_act", gate_slot(b, 2), features_slot(b));
    if (op)
        op->activation = activation, op->width = shape_of(b)->feed_forward;
}

void ht_build_down(ht_builder *b) {
    give(b, "ffn_down", features_slot(b), (size_t)shape_of(b)->feed_forward);
}

void ht_build_side_gate(ht_builder *b) {
    const size_t rows = (size_t)shape_of(b)->feed_forward;
    const way from = {normed(b), gate_slot(b, 1), b->normed};
    matmul(b, "inp_gate", from, (part[]){{"inp_gate", rows}}, 1, HT_BIAS_OPTIONAL);
}

void ht_build_side_glu(ht_builder *b, ht_activation activation, const char *side, size_t first) {
    const ht_slot up = ht_build_slot(b, side, HT_ROLE_OWN, 0);
    ht_op *op = append(b, HT_OP_GLU, "inp_act", gate_slot(b, 1), features_slot(b));
    if (!op)
        return;
    op->activation = activation, op->width = shape_of(b)->feed_forward;
    op->n_more = 1, op->more[0] = up, op->more_first = first;
}

void ht_build_side_output(ht_builder *b) {
    give(b, "proj", features_slot(b), (size_t)shape_of(b)->feed_forward);
}

ht_status ht_build_head(ht_builder *b) {
    const ht_model *model = b->model;
    b->layer = -1;
    ht_build_stream(b, NULL);
    ht_build_block(b, HT_BLOCK_HEAD, model->hparams.vocabulary);
    ht_build_norm(b, "output_norm");
    const bool tied = model->file ? !ht_gguf_tensor(model->file, "output.weight") : model->shape->tied;
    const size_t rows = (size_t)model->hparams.vocabulary;
    const way from = {normed(b), ht_build_slot(b, "logits", HT_ROLE_LOGITS, rows), b->normed};
    matmul(b, "output", from, (part[]){{tied ? "token_embd" : "output", rows}}, 1, HT_BIAS_OPTIONAL);
    ht_op *pick = append(b, HT_OP_ARGMAX, "argmax", from.out, ht_build_slot(b, "pick", HT_ROLE_PICK, 1));
    if (pick)
        pick->width = model->hparams.vocabulary;
    return ht_build_blocks(b);
}
