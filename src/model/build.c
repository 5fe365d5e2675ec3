/* The builder: keys and tensors, checked as they are read. */
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
    ht_build_fail(b, HT_ERROR_FORMAT,
                  "tensor %s is [%llu, %llu, %llu, %llu], but the hyperparameters require [%zu, %zu]", full,
                  (unsigned long long)tensor->dims[0], (unsigned long long)tensor->dims[1],
                  (unsigned long long)tensor->dims[2], (unsigned long long)tensor->dims[3], cols, rows);
    return NULL;
}

static ht_matrix made_up_matrix(ht_builder *b, const char *full, size_t rows, size_t cols) {
    const ht_type_traits *type = b->model->shape_type;
    ht_matrix matrix = {
        .name = ht_arena_strndup(&b->model->arena, full, strlen(full)), .type = type, .rows = rows, .cols = cols};
    if (cols % (size_t)type->block != 0)
        ht_build_fail(b, HT_ERROR_UNSUPPORTED, "%s has %zu columns, not a multiple of %d, the block of %s", full, cols,
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
        for (size_t i = 0; i < n; i++)
            if (!isfinite(
                    out[i])) { /* it would make every number of the model NaN, or be lost where they are rounded */
                ht_build_fail(b, HT_ERROR_FORMAT, "tensor %s: value %zu is not a number (%g)", full, i, (double)out[i]);
                return NULL;
            }
    } else {
        for (size_t i = 0; i < n; i++)
            out[i] = made_up;
    }
    return out;
}
