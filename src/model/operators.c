/* The builder: operators appended in the order of a forward pass. */
#include "model/build.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const float *norm_weight(ht_builder *b, const char *name, size_t n) {
    char full[64];
    if (b->unweighted)
        return ht_build_constant(b, n, 1.0f);
    snprintf(full, sizeof full, "%s.weight", name);
    if (!ht_build_has_matrix(b, name)) { /* PLaMo 3's files have the name alone */
        const float *bare = ht_build_vector(b, name, n, false, 1.0f);
        if (bare)
            return bare;
    }
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

size_t ht_build_stream_width(ht_builder *b) {
    const ht_slot slot = stream(b);
    return slot == HT_SLOT_NONE ? 0 : b->model->slots[slot].width;
}

ht_slot ht_build_normed(ht_builder *b) {
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

ht_slot ht_build_sums(ht_builder *b) {
    return ht_build_slot(b, sums_names[free_sums(b)], HT_ROLE_SUMS, ht_build_stream_width(b));
}

/* A zeroed operator at the end of the list, or NULL after an error. */
ht_op *ht_build_op(ht_builder *b, ht_op_kind kind, const char *name, ht_slot in, ht_slot out) {
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

const ht_hparams *ht_build_shape_of(const ht_builder *b) {
    return b->shape ? b->shape : &b->model->hparams;
}

void ht_build_shape(ht_builder *b, const ht_hparams *shape) {
    const ht_hparams *most = &b->model->hparams;
    const int group = most->group ? most->group : most->heads / (most->kv_heads ? most->kv_heads : 1);
    const bool attends = shape && shape->kv_heads != 0; /* else it has no attention */
    b->shape = shape;
    if (attends && (shape->heads % shape->kv_heads != 0 || shape->heads / shape->kv_heads > group))
        ht_build_fail(
            b, HT_ERROR_UNSUPPORTED,
            "layer %d has %d heads for %d key-value heads; supported is a whole multiple, %d at most: what the "
            "layers' most heads are of their most key-value heads",
            b->layer, shape->heads, shape->kv_heads, group);
    if (shape && (shape->heads > most->heads || shape->kv_heads > most->kv_heads || shape->kv_heads < 0 ||
                  shape->head_dim > most->head_dim || shape->feed_forward > most->feed_forward ||
                  shape->embedding != most->embedding))
        ht_build_fail(b, HT_ERROR_FORMAT,
                      "layer %d has %d/%d heads of %d and %d features, more than the model's %d/%d, %d and %d",
                      b->layer, shape->heads, shape->kv_heads, shape->head_dim, shape->feed_forward, most->heads,
                      most->kv_heads, most->head_dim, most->feed_forward);
}

ht_hparams ht_build_layer_shape(ht_builder *b, int layer) {
    ht_hparams h = b->model->hparams;
    h.heads = (int)ht_build_int_at(b, "attention.head_count", layer, 0, h.heads, h.heads);
    h.kv_heads = (int)ht_build_int_at(b, "attention.head_count_kv", layer, 0, h.kv_heads, h.kv_heads);
    h.feed_forward = (int)ht_build_int_at(b, "feed_forward_length", layer, 0, h.feed_forward, h.feed_forward);
    return h;
}

/* The values of a bias that go with some rows of its matrix. */
static const float *part_bias(ht_builder *b, const ht_build_part *part, ht_bias bias) {
    char name[64];
    snprintf(name, sizeof name, "%s.bias", part->name);
    const size_t all = part->stride ? part->rows / part->run * part->stride : part->rows;
    const bool required = bias == HT_BIAS_REQUIRED || (b->biased && b->layer >= 0);
    const bool few = b->few_biases && b->layer >= 0 && strncmp(part->name, "attn_q", 6) != 0 &&
                     strcmp(part->name, "attn_k") != 0 && strcmp(part->name, "attn_v") != 0;
    const float *whole = bias == HT_BIAS_IGNORED || few ? NULL : ht_build_vector(b, name, all, required, 0.0f);
    if (!part->stride || !whole)
        return whole;
    float *some = ht_arena_alloc(&b->model->arena, part->rows * sizeof *some);
    if (!some)
        ht_build_fail(b, HT_ERROR_MEMORY, "out of memory for norms and biases");
    for (size_t r = 0; some && r < part->rows; r++)
        some[r] = whole[part->first + r / part->run * part->stride + r % part->run];
    return some;
}

void ht_build_matmul(ht_builder *b, const char *name, ht_slot in, ht_slot out, size_t cols, const ht_build_part *parts,
                     int n, ht_bias bias) {
    ht_op *op = ht_build_op(b, HT_OP_MATMUL, name, in, out);
    if (!op)
        return;
    op->n_parts = n;
    for (int i = 0; i < n; i++) {
        const ht_build_part *p = &parts[i];
        op->parts[i] = p->stride ? ht_build_rows(b, p->name, p->rows, cols, p->first, p->run, p->stride)
                                 : ht_build_matrix(b, p->name, p->rows, cols);
        op->bias[i] = part_bias(b, p, bias);
    }
}

static void embed(ht_builder *b, const char *name, ht_slot out, size_t width, float scale) {
    ht_op *op = ht_build_op(b, HT_OP_EMBED, name, ht_build_slot(b, "ids", HT_ROLE_IDS, 1), out);
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

void ht_build_positions(ht_builder *b, const char *name) {
    ht_op *op = ht_build_op(b, HT_OP_EMBED, name, ht_build_slot(b, "ids", HT_ROLE_IDS, 1), stream(b));
    if (!op)
        return;
    op->positions = true, op->scale = 1.0f;
    op->n_parts = 1;
    op->parts[0] = ht_build_matrix(b, name, (size_t)b->model->hparams.context_length, ht_build_stream_width(b));
}

void ht_build_stream(ht_builder *b, const char *name) {
    b->stream = name;
    if (ht_build_stream_width(b) > (size_t)b->model->hparams.embedding)
        ht_build_fail(b, HT_ERROR_UNSUPPORTED, "stream %s is %zu values wide, more than the embedding's %d",
                      name ? name : "x", ht_build_stream_width(b), b->model->hparams.embedding);
}

void ht_build_layer(ht_builder *b, int layer) {
    b->layer = layer;
}

/* A norm's bias, where it may have one: NULL if it has none. */
static const float *norm_bias(ht_builder *b, ht_norm kind, const char *name, size_t n) {
    char full[64];
    snprintf(full, sizeof full, "%s.bias", name);
    return kind != HT_NORM_NONE ? ht_build_vector(b, full, n, false, 0.0f) : NULL;
}

/* What blocks gave to the stream since its last norm: the norm adds it. */
static void add_given(ht_builder *b, ht_op *op) {
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
        op->each_norm[op->n_more] = given->each_norm;
        op->post_norm = given->post_norm;
        if (op->post_norm || op->each_norm[0] || op->each_norm[1])
            op->post_eps = b->post_eps;
        *given = (ht_given){0};
    }
    op->stream_scale = b->stream_scale;
    op->replaces |= b->stream_anew;
    b->stream_scale = 0.0f, b->stream_anew = false;
}

void ht_build_norm_beside(ht_builder *b, const char *name) {
    ht_build_norm_of(b, name, &(ht_norming){.looks = true});
}

void ht_build_norm(ht_builder *b, const char *name) {
    ht_build_norm_of(b, name, &(ht_norming){0});
}

void ht_build_norm_of(ht_builder *b, const char *name, const ht_norming *norming) {
    b->normed = ht_build_stream_width(b);
    ht_op *op = ht_build_op(b, HT_OP_NORM, name ? name : "copy", stream(b), ht_build_normed(b));
    if (!op)
        return;
    op->width = (int)b->normed;
    op->eps = b->stream_eps > 0 ? b->stream_eps : op->eps;
    op->norm = name ? b->norm : HT_NORM_NONE;
    op->weight = !name ? NULL : norming->weight ? norming->weight : norm_weight(b, name, b->normed);
    op->norm_bias = name && !b->unweighted && !norming->weight ? norm_bias(b, op->norm, name, b->normed) : NULL;
    op->replaces = norming->replaces, op->adds_normed = norming->adds_normed;
    if (!norming->looks)
        add_given(b, op);
}

const float *ht_build_scaled_vector(ht_builder *b, const char *name, size_t n, float factor) {
    const float *file = ht_build_vector(b, name, n, true, 1.0f);
    float *out = (float *)(uintptr_t)(file ? ht_build_constant(b, n, factor) : NULL);
    for (size_t i = 0; out && i < n; i++)
        out[i] *= file[i];
    return out;
}

void ht_build_normed_stream(ht_builder *b, const char *name, const char *to) {
    const int layer = b->layer;
    const ht_slot out = ht_build_slot(b, to ? to : "x", HT_ROLE_OWN, ht_build_stream_width(b));
    b->layer = -1;
    ht_build_block(b, HT_BLOCK_STREAM_NORM, 1);
    ht_build_norm(b, name);
    if (b->status == HT_OK)
        b->model->ops[b->model->n_ops - 1].out = out;
    b->layer = layer;
    ht_build_stream(b, to);
}

void ht_build_add(ht_builder *b, const char *post_norm) {
    ht_build_add_each(b, NULL, post_norm);
}

void ht_build_add_each(ht_builder *b, const char *each_norm, const char *post_norm) {
    if ((post_norm || each_norm) && b->norm != HT_NORM_RMS)
        ht_build_fail(b, HT_ERROR_UNSUPPORTED, "%s: what a block gave is normed by its root mean square only",
                      post_norm ? post_norm : each_norm);
    const float *weight = post_norm ? norm_weight(b, post_norm, ht_build_stream_width(b)) : NULL,
                *each = each_norm ? norm_weight(b, each_norm, ht_build_stream_width(b)) : NULL;
    b->given[free_sums(b)] = (ht_given){true, stream(b), weight, each};
}

/* Of the layer at hand: queries, keys and values of all heads; every head's values; gate, and up where `parts` is 2;
 * features. */
static ht_slot qkv_slot(ht_builder *b) {
    const ht_hparams *h = ht_build_shape_of(b);
    return ht_build_slot(b, "qkv", HT_ROLE_BETWEEN, ((size_t)h->heads + 2 * (size_t)h->kv_heads) * (size_t)h->head_dim);
}

static ht_slot queries_slot(ht_builder *b) {
    const ht_hparams *h = ht_build_shape_of(b);
    return ht_build_slot(b, "qkv", HT_ROLE_BETWEEN, (size_t)h->heads * (size_t)h->head_dim);
}

/* Of latent attention: queries in the latent space, and one key that is the values, too. */
static ht_slot latent_qkv_slot(ht_builder *b) {
    const ht_hparams *h = ht_build_shape_of(b);
    return ht_build_slot(b, "latent", HT_ROLE_BETWEEN, (size_t)(h->heads + h->kv_heads) * (size_t)h->head_dim);
}

static ht_slot heads_slot(ht_builder *b) {
    const ht_hparams *h = ht_build_shape_of(b);
    return ht_build_slot(b, "attn", HT_ROLE_BETWEEN, (size_t)h->heads * (size_t)h->head_dim);
}

static ht_slot gate_slot(ht_builder *b, size_t parts) {
    return ht_build_slot(b, "ffn", HT_ROLE_BETWEEN, parts * (size_t)ht_build_shape_of(b)->feed_forward);
}

static ht_slot features_slot(ht_builder *b) {
    return ht_build_slot(b, "act", HT_ROLE_BETWEEN, (size_t)ht_build_shape_of(b)->feed_forward);
}

void ht_build_qkv_of(ht_builder *b, const ht_build_part *parts, ht_bias bias) {
    ht_build_matmul(b, "attn_qkv", ht_build_normed(b), qkv_slot(b), b->normed, parts, 3, bias);
}

void ht_build_qkv(ht_builder *b, ht_bias bias) {
    const ht_hparams *h = ht_build_shape_of(b);
    const size_t q = (size_t)h->heads * (size_t)h->head_dim, kv = (size_t)h->kv_heads * (size_t)h->head_dim,
                 all = q + 2 * kv;
    const ht_build_part apart[] = {
        {.name = "attn_q", .rows = q}, {.name = "attn_k", .rows = kv}, {.name = "attn_v", .rows = kv}};
    const ht_build_part fused[] = {{.name = "attn_qkv", .rows = q, .run = q, .stride = all},
                                   {.name = "attn_qkv", .rows = kv, .first = q, .run = kv, .stride = all},
                                   {.name = "attn_qkv", .rows = kv, .first = q + kv, .run = kv, .stride = all}};
    const bool one = ht_build_has_matrix(b, "attn_qkv");
    ht_build_qkv_of(b, one ? fused : apart, one ? HT_BIAS_OPTIONAL : bias);
    ht_op *op = one && b->status == HT_OK ? &b->model->ops[b->model->n_ops - 1] : NULL;
    for (int i = 0; i < 3 && op; i++) { /* biases may still be apart */
        char name[64];
        snprintf(name, sizeof name, "%s.bias", apart[i].name);
        if (!op->bias[i])
            op->bias[i] = ht_build_vector(b, name, apart[i].rows, bias == HT_BIAS_REQUIRED, 0.0f);
    }
}

void ht_build_queries(ht_builder *b, ht_bias bias) {
    const ht_hparams *h = ht_build_shape_of(b);
    const size_t q = (size_t)h->heads * (size_t)h->head_dim;
    ht_build_matmul(b, "attn_q", ht_build_normed(b), queries_slot(b), b->normed,
                    (ht_build_part[]){{.name = "attn_q", .rows = q}}, 1, bias);
}

/* Weights of queries' or keys' norm: of one head, of each of `heads`, of all of them as one row. */
static const float *head_norm(ht_builder *b, const ht_rotation *rotation, const char *name, int heads) {
    const size_t dim = (size_t)(rotation->norm_dim ? rotation->norm_dim : ht_build_shape_of(b)->head_dim);
    char full[64];
    if (rotation->unit)
        return ht_build_constant(b, dim, 1.0f);
    if (!name)
        return NULL;
    snprintf(full, sizeof full, "%s.weight", name);
    if (rotation->norm_heads) /* [heads, head_dim] in the file */
        return ht_build_vectors(b, full, dim, (size_t)heads, true, 1.0f);
    return ht_build_vector(b, full, rotation->norm_whole ? dim * (size_t)heads : dim, true, 1.0f);
}

void ht_build_rope(ht_builder *b, const ht_rotation *rotation) {
    const ht_hparams *h = ht_build_shape_of(b);
    const ht_slot slot = rotation->value_dim ? latent_qkv_slot(b) : rotation->shared ? queries_slot(b) : qkv_slot(b);
    ht_op *op = ht_build_op(b, HT_OP_ROPE, "rope", slot, slot);
    if (!op)
        return;
    op->shared = rotation->shared;
    op->cache = op->shared ? -1 : b->caches++;
    op->heads = h->heads, op->kv_heads = h->kv_heads, op->head_dim = h->head_dim;
    op->rope = rotation->table, op->rope_queries = rotation->queries;
    op->rope_halves = rotation->halves;
    op->rope_dim = rotation->table ? ht_rope_dim(b->model, rotation->table) : 0;
    op->rope_first = rotation->first;
    op->value_dim = rotation->value_dim;
    op->norm = rotation->norm;
    op->norm_whole = rotation->norm_whole, op->norm_heads = rotation->norm_heads, op->v_norm = rotation->v_norm;
    op->norm_after = rotation->norm_after && !rotation->norm_whole;
    op->norm_dim = rotation->norm_dim;
    op->q_norm = head_norm(b, rotation, rotation->q_norm, h->heads);
    op->k_norm = op->shared ? NULL : head_norm(b, rotation, rotation->k_norm, h->kv_heads);
    if (op->rope_first + op->rope_dim > h->head_dim || op->norm_dim > h->head_dim)
        ht_build_fail(b, HT_ERROR_FORMAT, "%s: %d of the %d dimensions of a head are rotated, from %d on", op->name,
                      op->rope_dim, h->head_dim, op->rope_first);
    if (op->rope_queries && ht_rope_dim(b->model, op->rope_queries) != op->rope_dim)
        ht_build_fail(b, HT_ERROR_FORMAT, "%s: tables of queries and keys differ in length", op->name);
}

/* Press et al., "Train Short, Test Long: Attention with Linear Biases" (2022): of heads that are no power of two, those past
 * the power below take every second slope of twice as many. */
static const float *make_slopes(ht_builder *b, float most, int heads) {
    int whole = 1;
    while (whole * 2 <= heads)
        whole *= 2;
    float *slopes = ht_arena_alloc(&b->model->arena, (size_t)heads * sizeof *slopes);
    if (!slopes)
        ht_build_fail(b, HT_ERROR_MEMORY, "out of memory for slopes");
    for (int i = 0; slopes && i < heads; i++)
        slopes[i] = i < whole ? exp2f(-most * (float)(i + 1) / (float)whole)
                              : exp2f(-most * (float)(2 * (i - whole) + 1) / (float)(2 * whole));
    return slopes;
}

void ht_build_attention_of(ht_builder *b, const ht_attending *attending) {
    const ht_slot in = attending->value_dim ? latent_qkv_slot(b) : attending->shared ? queries_slot(b) : qkv_slot(b);
    ht_op *op = ht_build_op(b, HT_OP_ATTENTION, "attn", in, heads_slot(b));
    if (!op)
        return;
    const ht_hparams *h = ht_build_shape_of(b);
    op->heads = h->heads, op->kv_heads = h->kv_heads, op->head_dim = h->head_dim;
    op->shared = attending->shared;
    op->cache = op->shared ? attending->cache : b->caches - 1;
    op->scale = attending->scale != 0.0f ? attending->scale : 1.0f / sqrtf((float)h->head_dim);
    op->soft_cap = attending->soft_cap;
    op->window = attending->window, op->attention_chunk = attending->chunk;
    op->value_dim = attending->value_dim;
    op->sinks = attending->sinks ? ht_build_vector(b, attending->sinks, (size_t)h->heads, true, 0.0f) : NULL;
    op->slopes = attending->alibi != 0.0f ? make_slopes(b, attending->alibi, h->heads) : NULL;
    op->both_ways = attending->both_ways;
    b->model->both_ways |= op->both_ways;
    if (op->both_ways && (op->attention_chunk || op->slopes))
        ht_build_fail(b, HT_ERROR_UNSUPPORTED, "%s: chunks or slopes of attention in both directions", op->name);
    if (op->window && op->attention_chunk)
        ht_build_fail(b, HT_ERROR_UNSUPPORTED, "%s: a window and chunks at once", op->name);
}

void ht_build_attention(ht_builder *b, float scale, int window) {
    ht_build_attention_of(b, &(ht_attending){.scale = scale, .window = window});
}

/* What gates all heads' values, and the gated values. */
static ht_slot head_gates_slot(ht_builder *b, const char *name) {
    const ht_hparams *h = ht_build_shape_of(b);
    return ht_build_slot(b, name, HT_ROLE_BETWEEN, (size_t)h->heads * (size_t)h->head_dim);
}

void ht_build_attention_gate(ht_builder *b, const ht_build_part *gate) {
    ht_build_matmul(b, "attn_gate", ht_build_normed(b), head_gates_slot(b, "gate"), b->normed, gate, 1,
                    HT_BIAS_OPTIONAL);
    ht_op *op = ht_build_op(b, HT_OP_GLU, "attn_gated", head_gates_slot(b, "gate"), head_gates_slot(b, "gated"));
    if (!op)
        return;
    op->activation = HT_ACT_SIGMOID;
    op->width = ht_build_shape_of(b)->heads * ht_build_shape_of(b)->head_dim;
    op->n_more = 1, op->more[0] = heads_slot(b);
}

void ht_build_gated_output(ht_builder *b) {
    const ht_hparams *h = ht_build_shape_of(b);
    ht_build_give(b, "attn_output", head_gates_slot(b, "gated"), (size_t)h->heads * (size_t)h->head_dim);
}

static void give(ht_builder *b, const char *name, ht_slot in, size_t cols, ht_bias bias) {
    ht_build_matmul(b, name, in, ht_build_sums(b), cols,
                    (ht_build_part[]){{.name = name, .rows = ht_build_stream_width(b)}}, 1, bias);
}

void ht_build_give(ht_builder *b, const char *name, ht_slot in, size_t cols) {
    give(b, name, in, cols, HT_BIAS_OPTIONAL);
}

void ht_build_attention_output_of(ht_builder *b, ht_bias bias) {
    const ht_hparams *h = ht_build_shape_of(b);
    give(b, "attn_output", heads_slot(b), (size_t)h->heads * (size_t)h->head_dim, bias);
}

void ht_build_attention_output(ht_builder *b) {
    ht_build_attention_output_of(b, HT_BIAS_OPTIONAL);
}

void ht_build_gate_up(ht_builder *b) {
    const size_t rows = (size_t)ht_build_shape_of(b)->feed_forward;
    ht_build_matmul(b, "ffn_gate_up", ht_build_normed(b), gate_slot(b, 2), b->normed,
                    (ht_build_part[]){{.name = "ffn_gate", .rows = rows}, {.name = "ffn_up", .rows = rows}}, 2,
                    HT_BIAS_OPTIONAL);
}

void ht_build_fused_gate_up(ht_builder *b) {
    const size_t rows = (size_t)ht_build_shape_of(b)->feed_forward;
    ht_build_matmul(b, "ffn_gate_up", ht_build_normed(b), gate_slot(b, 2), b->normed,
                    (ht_build_part[]){{.name = "ffn_up", .rows = rows, .run = rows, .stride = 2 * rows},
                                      {.name = "ffn_up", .rows = rows, .first = rows, .run = rows, .stride = 2 * rows}},
                    2, HT_BIAS_OPTIONAL);
}

void ht_build_glu(ht_builder *b, ht_activation activation) {
    ht_op *op = ht_build_op(b, HT_OP_GLU, "ffn_act", gate_slot(b, 2), features_slot(b));
    if (op)
        op->activation = activation, op->width = ht_build_shape_of(b)->feed_forward;
}

void ht_build_up(ht_builder *b) {
    const size_t rows = (size_t)ht_build_shape_of(b)->feed_forward;
    ht_build_matmul(b, "ffn_up", ht_build_normed(b), gate_slot(b, 1), b->normed,
                    (ht_build_part[]){{.name = "ffn_up", .rows = rows}}, 1, HT_BIAS_OPTIONAL);
}

void ht_build_activation(ht_builder *b, ht_activation activation) {
    ht_op *op = ht_build_op(b, HT_OP_GLU, "ffn_act", gate_slot(b, 1), features_slot(b));
    if (op)
        op->activation = activation, op->ungated = true, op->width = ht_build_shape_of(b)->feed_forward;
}

void ht_build_down(ht_builder *b) {
    ht_build_give(b, "ffn_down", features_slot(b), (size_t)ht_build_shape_of(b)->feed_forward);
}

void ht_build_feed_forward(ht_builder *b, const char *norm, ht_activation activation, const char *post_norm) {
    ht_build_block(b, HT_BLOCK_FEED_FORWARD, ht_build_shape_of(b)->feed_forward);
    ht_build_norm(b, norm);
    ht_build_gate_up(b);
    ht_build_glu(b, activation);
    ht_build_down(b);
    ht_build_add(b, post_norm);
}

void ht_build_side_gate(ht_builder *b) {
    const size_t rows = (size_t)ht_build_shape_of(b)->feed_forward;
    ht_build_matmul(b, "inp_gate", ht_build_normed(b), gate_slot(b, 1), b->normed,
                    (ht_build_part[]){{.name = "inp_gate", .rows = rows}}, 1, HT_BIAS_OPTIONAL);
}

void ht_build_side_glu(ht_builder *b, ht_activation activation, const char *side, size_t first) {
    const ht_slot up = ht_build_slot(b, side, HT_ROLE_OWN, 0);
    ht_op *op = ht_build_op(b, HT_OP_GLU, "inp_act", gate_slot(b, 1), features_slot(b));
    if (!op)
        return;
    op->activation = activation, op->width = ht_build_shape_of(b)->feed_forward;
    op->n_more = 1, op->more[0] = up, op->more_first = first;
}

void ht_build_side_output(ht_builder *b) {
    ht_build_give(b, "proj", features_slot(b), (size_t)ht_build_shape_of(b)->feed_forward);
}

/* Multiplies the weights of the norm that was listed last. */
static void scale_norm(ht_builder *b, float scale) {
    if (b->status != HT_OK || scale == 0.0f)
        return;
    ht_op *op = &b->model->ops[b->model->n_ops - 1];
    float *weight = ht_arena_alloc(&b->model->arena, b->normed * sizeof *weight + 64);
    if (!weight) {
        ht_build_fail(b, HT_ERROR_MEMORY, "out of memory for norms and biases");
        return;
    }
    for (size_t i = 0; i < b->normed; i++)
        weight[i] = op->weight[i] * scale;
    op->weight = weight;
    b->model->hidden_scale = scale;
    if (!op->norm_bias)
        return;
    float *bias = ht_arena_alloc(&b->model->arena, b->normed * sizeof *bias + 64);
    if (!bias)
        ht_build_fail(b, HT_ERROR_MEMORY, "out of memory for norms and biases");
    for (size_t i = 0; bias && i < b->normed; i++)
        bias[i] = op->norm_bias[i] * scale;
    op->norm_bias = bias;
}

ht_status ht_build_head(ht_builder *b) {
    const ht_model *model = b->model;
    b->layer = -1;
    ht_build_stream(b, NULL);
    ht_build_block(b, HT_BLOCK_HEAD, model->hparams.vocabulary);
    ht_build_norm(b, b->output_norm ? b->output_norm : "output_norm");
    scale_norm(b, b->output_scale);
    const bool tied = model->file ? !ht_gguf_tensor(model->file, "output.weight") : model->shape->tied;
    const size_t rows = (size_t)model->hparams.vocabulary;
    const ht_slot logits = ht_build_slot(b, "logits", HT_ROLE_LOGITS, rows);
    ht_build_matmul(b, "output", ht_build_normed(b), logits, b->normed,
                    (ht_build_part[]){{.name = tied ? "token_embd" : "output", .rows = rows}}, 1,
                    b->no_output_bias ? HT_BIAS_IGNORED : HT_BIAS_OPTIONAL);
    ht_op *pick = ht_build_op(b, HT_OP_ARGMAX, "argmax", logits, ht_build_slot(b, "pick", HT_ROLE_PICK, 1));
    if (b->output_scale != 0.0f && b->status == HT_OK && model->ops[model->n_ops - 2].bias[0])
        ht_build_fail(b, HT_ERROR_UNSUPPORTED, "output.bias, and a scale of logits");
    if (pick)
        pick->width = model->hparams.vocabulary, pick->soft_cap = b->output_cap;
    return ht_build_blocks(b);
}
