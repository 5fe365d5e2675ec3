/* The builder: keys and tensors checked as they are read, operators appended. */
#include "model/build.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

ht_builder ht_build_begin(ht_model *model, ht_error *error) {
    return (ht_builder){.model = model, .error = error, .status = HT_OK, .layer = -1};
}

ht_status ht_build_fail(ht_builder *b, ht_status status, const char *format, ...) {
    if (b->status != HT_OK)
        return b->status;
    char text[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return b->status = ht_fail(b->error, status, "%s: %s", b->model->info.path, text);
}

/* ---- keys ---- */

bool ht_build_has(const ht_builder *b, const char *key) {
    char full[128];
    snprintf(full, sizeof full, "%s.%s", b->model->info.architecture, key);
    return b->model->file && ht_gguf_find(b->model->file, full);
}

int64_t ht_build_int(ht_builder *b, const char *key, int64_t min, int64_t max, int64_t absent) {
    char full[128];
    snprintf(full, sizeof full, "%s.%s", b->model->info.architecture, key);
    int64_t value = absent;
    if (b->status == HT_OK && b->model->file)
        b->status = ht_gguf_int(b->model->file, full, false, min, max, &value, b->error);
    return value;
}

float ht_build_float(ht_builder *b, const char *key, float absent) {
    char full[128];
    snprintf(full, sizeof full, "%s.%s", b->model->info.architecture, key);
    float value = absent;
    if (b->status == HT_OK && b->model->file)
        b->status = ht_gguf_float(b->model->file, full, false, &value, b->error);
    return value;
}

float ht_build_freq_base(ht_builder *b, bool known) {
    if (b->model->shape)
        return b->model->shape->freq_base;
    if (!known && !ht_build_has(b, "rope.freq_base"))
        ht_log(HT_LOG_WARN, "%s: key \"%s.rope.freq_base\" is missing: continuing with 10000", b->model->info.path,
               b->model->info.architecture);
    return ht_build_float(b, "rope.freq_base", 10000.0f);
}

/* ---- tensors ---- */

enum { NAME_BYTES = 96 };

static void tensor_name(const ht_builder *b, const char *name, const char *suffix, char full[NAME_BYTES]) {
    if (b->layer >= 0)
        snprintf(full, NAME_BYTES, "blk.%d.%s%s", b->layer, name, suffix);
    else
        snprintf(full, NAME_BYTES, "%s%s", name, suffix);
}

/* NULL with an error if the tensor has another shape, or is absent and required. */
static const ht_tensor *find_tensor(ht_builder *b, const char *full, size_t rows, size_t cols, bool required) {
    const ht_tensor *tensor = ht_gguf_tensor(b->model->file, full);
    if (!tensor) {
        if (required)
            ht_build_fail(b, HT_ERROR_FORMAT, "tensor %s is missing", full);
        return NULL;
    }
    const ht_type_traits *type = ht_type_get(tensor->type);
    if (type->bits == 0) {
        ht_build_fail(b, HT_ERROR_UNSUPPORTED, "tensor %s is of type %s, which is not supported for weights", full,
                      type->name);
        return NULL;
    }
    if (tensor->dims[0] == cols && tensor->dims[1] == rows && tensor->dims[2] == 1 && tensor->dims[3] == 1)
        return tensor;
    ht_build_fail(b, HT_ERROR_FORMAT, "tensor %s is [%llu, %llu, %llu, %llu]; the hyperparameters make it [%zu, %zu]",
                  full, (unsigned long long)tensor->dims[0], (unsigned long long)tensor->dims[1],
                  (unsigned long long)tensor->dims[2], (unsigned long long)tensor->dims[3], cols, rows);
    return NULL;
}

static ht_matrix made_up_matrix(ht_builder *b, const char *full, size_t rows, size_t cols) {
    const ht_type_traits *type = b->model->shape_type;
    ht_matrix matrix = {
        .name = ht_arena_strndup(&b->model->arena, full, strlen(full)), .type = type, .rows = rows, .cols = cols};
    if (cols % (size_t)type->block != 0)
        ht_build_fail(b, HT_ERROR_UNSUPPORTED, "%s has %zu columns, no multiple of the %d of a block of %s", full, cols,
                      type->block, type->name);
    else if (!matrix.name)
        ht_build_fail(b, HT_ERROR_MEMORY, "out of memory for tensor names");
    matrix.row_bytes = cols / (size_t)type->block * (size_t)type->block_bytes;
    return matrix;
}

ht_matrix ht_build_matrix(ht_builder *b, const char *name, size_t rows, size_t cols) {
    char full[NAME_BYTES];
    tensor_name(b, name, ".weight", full);
    if (b->status != HT_OK)
        return (ht_matrix){0};
    if (!b->model->file)
        return made_up_matrix(b, full, rows, cols);
    const ht_tensor *tensor = find_tensor(b, full, rows, cols, true);
    if (!tensor)
        return (ht_matrix){0};
    const ht_type_traits *type = ht_type_get(tensor->type);
    return (ht_matrix){.name = tensor->name,
                       .type = type,
                       .rows = rows,
                       .cols = cols,
                       .data = tensor->data,
                       .row_bytes = cols / (size_t)type->block * (size_t)type->block_bytes};
}

/* Kernels load whole vectors from these; the arena promises only 16. */
static float *aligned_floats(ht_builder *b, size_t n) {
    char *memory = ht_arena_alloc(&b->model->arena, ht_round_up(n * sizeof(float), 64) + 64);
    if (!memory) {
        ht_build_fail(b, HT_ERROR_MEMORY, "out of memory for norms and biases");
        return NULL;
    }
    return (float *)(void *)(memory + (64 - (uintptr_t)memory % 64) % 64);
}

const float *ht_build_vector(ht_builder *b, const char *name, size_t n, bool required, float made_up) {
    char full[NAME_BYTES];
    tensor_name(b, name, "", full);
    if (b->status != HT_OK || (!b->model->file && !required))
        return NULL;
    const ht_tensor *tensor = b->model->file ? find_tensor(b, full, 1, n, required) : NULL;
    if (!tensor && b->model->file)
        return NULL;
    float *out = aligned_floats(b, n);
    if (!out)
        return NULL;
    if (tensor) {
        const ht_type_traits *type = ht_type_get(tensor->type);
        const ht_matrix row = {
            .name = tensor->name, .type = type, .rows = 1, .cols = n, .data = tensor->data, .row_bytes = tensor->bytes};
        ht_matrix_floats(&row, 0, 1, out);
    } else {
        for (size_t i = 0; i < n; i++)
            out[i] = made_up;
    }
    return out;
}

static const float *norm_weight(ht_builder *b, const char *name, size_t n) {
    char full[64];
    snprintf(full, sizeof full, "%s.weight", name);
    return ht_build_vector(b, full, n, true, 1.0f);
}

/* ---- operators ---- */

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
    *op = (ht_op){.kind = kind, .layer = b->layer, .in = in, .aux = aux, .out = out, .eps = model->hparams.eps};
    if (b->layer >= 0)
        snprintf(op->name, sizeof op->name, "blk.%d.%s", b->layer, name);
    else
        snprintf(op->name, sizeof op->name, "%s", name);
    return op;
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
    const size_t cols = ht_slot_width(&b->model->hparams, in);
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
    const ht_hparams *h = &b->model->hparams;
    const size_t q = (size_t)h->heads * (size_t)h->head_dim, kv = (size_t)h->kv_heads * (size_t)h->head_dim;
    matmul(b, "attn_qkv", HT_SLOT_NORMED, HT_SLOT_QKV, (part[]){{"attn_q", q}, {"attn_k", kv}, {"attn_v", kv}}, 3,
           bias);
}

void ht_build_rope(ht_builder *b, const ht_rotation *rotation) {
    const size_t head_dim = (size_t)b->model->hparams.head_dim;
    ht_op *op = append(b, HT_OP_ROPE, "rope", HT_SLOT_QKV, HT_SLOT_NONE, HT_SLOT_QKV);
    if (!op)
        return;
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
    op->scale = scale != 0.0f ? scale : 1.0f / sqrtf((float)b->model->hparams.head_dim);
    op->window = window;
}

void ht_build_attention_output(ht_builder *b) {
    const size_t rows = (size_t)b->model->hparams.embedding;
    matmul(b, "attn_output", HT_SLOT_ATTN, HT_SLOT_DELTA, (part[]){{"attn_output", rows}}, 1, HT_BIAS_OPTIONAL);
}

void ht_build_gate_up(ht_builder *b) {
    const size_t rows = (size_t)b->model->hparams.feed_forward;
    matmul(b, "ffn_gate_up", HT_SLOT_NORMED, HT_SLOT_FFN, (part[]){{"ffn_gate", rows}, {"ffn_up", rows}}, 2,
           HT_BIAS_OPTIONAL);
}

void ht_build_glu(ht_builder *b, ht_activation activation) {
    ht_op *op = append(b, HT_OP_GLU, "ffn_act", HT_SLOT_FFN, HT_SLOT_NONE, HT_SLOT_ACT);
    if (op)
        op->activation = activation;
}

void ht_build_down(ht_builder *b) {
    const size_t rows = (size_t)b->model->hparams.embedding;
    matmul(b, "ffn_down", HT_SLOT_ACT, HT_SLOT_DELTA, (part[]){{"ffn_down", rows}}, 1, HT_BIAS_OPTIONAL);
}

ht_status ht_build_head(ht_builder *b) {
    const ht_model *model = b->model;
    b->layer = -1;
    ht_build_norm(b, "output_norm");
    const bool tied = model->file ? !ht_gguf_tensor(model->file, "output.weight") : model->shape->tied;
    matmul(b, "output", HT_SLOT_NORMED, HT_SLOT_LOGITS,
           (part[]){{tied ? "token_embd" : "output", (size_t)model->hparams.vocabulary}}, 1, HT_BIAS_OPTIONAL);
    append(b, HT_OP_ARGMAX, "argmax", HT_SLOT_LOGITS, HT_SLOT_NONE, HT_SLOT_PICK);
    return b->status;
}
