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

/* A list has an item for each of the file's layers: one of another length was meant for another model. block_count says
 * how many, for a family may leave the last ones out. */
static void check_list(ht_builder *b, const char *full) {
    const ht_gguf_value *value = ht_gguf_find(b->model->file, full);
    const int64_t layers = ht_build_int(b, "block_count", 1, HT_MAX_LAYERS, b->model->hparams.layers);
    if (value && value->kind == HT_GGUF_ARRAY && value->count != (uint64_t)layers)
        ht_build_fail(b, HT_ERROR_FORMAT, "key \"%s\" has %llu items for %lld layers", full,
                      (unsigned long long)value->count, (long long)layers);
}

int64_t ht_build_int_at(ht_builder *b, const char *key, int layer, int64_t min, int64_t max, int64_t absent) {
    char full[128];
    snprintf(full, sizeof full, "%s.%s", b->model->info.architecture, key);
    int64_t value = absent;
    if (b->status == HT_OK && b->model->file)
        check_list(b, full);
    if (b->status == HT_OK && b->model->file)
        b->status = ht_gguf_int_at(b->model->file, full, (uint64_t)layer, min, max, &value, b->error);
    return value;
}

int64_t ht_build_first_int(ht_builder *b, const char *key, int64_t min, int64_t max, int64_t absent) {
    char full[128];
    snprintf(full, sizeof full, "%s.%s", b->model->info.architecture, key);
    int64_t value = absent;
    if (b->status == HT_OK && b->model->file)
        b->status = ht_gguf_int_at(b->model->file, full, 0, min, max, &value, b->error);
    return value;
}

int64_t ht_build_most(ht_builder *b, const char *key, int64_t min, int64_t max, int64_t absent) {
    int64_t most = ht_build_int_at(b, key, 0, min, max, absent);
    for (int layer = 1; layer < b->model->hparams.layers; layer++) {
        const int64_t value = ht_build_int_at(b, key, layer, min, max, absent);
        most = value > most ? value : most;
    }
    return most;
}

bool ht_build_bool(ht_builder *b, const char *key, bool absent) {
    char full[128];
    snprintf(full, sizeof full, "%s.%s", b->model->info.architecture, key);
    bool value = absent;
    if (b->status == HT_OK && b->model->file)
        b->status = ht_gguf_bool(b->model->file, full, false, &value, b->error);
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

float ht_build_float_in(ht_builder *b, const char *key, float least, float most, float absent) {
    const float value = ht_build_float(b, key, absent);
    if (b->status == HT_OK && !(value >= least && value <= most))
        ht_build_fail(b, HT_ERROR_FORMAT, "key \"%s.%s\" is %g, which is not in %g..%g", b->model->info.architecture,
                      key, (double)value, (double)least, (double)most);
    return b->status == HT_OK ? value : absent;
}

float ht_build_factor(ht_builder *b, const char *key, float absent) {
    return ht_build_float(b, key, absent) != 0.0f ? ht_build_float_in(b, key, 1e-6f, 1e6f, absent) : absent;
}

void ht_build_pattern(ht_builder *b, bool *local, int absent) {
    const ht_gguf *file = b->model->file;
    const int layers = b->model->hparams.layers;
    char key[128];
    snprintf(key, sizeof key, "%s.attention.sliding_window_pattern", b->model->info.architecture);
    const ht_gguf_value *value = file ? ht_gguf_find(file, key) : NULL;
    if (value && value->kind == HT_GGUF_ARRAY) {
        check_list(b, key);
        if (value->item_kind == HT_GGUF_STRING)
            ht_build_fail(b, HT_ERROR_FORMAT, "%s must have a flag for each of the %d layers", key, layers);
        for (int layer = 0; layer < layers && b->status == HT_OK; layer++)
            local[layer] = ht_gguf_item(value, (uint64_t)layer) != 0.0;
        return;
    }
    const int64_t period = ht_build_int(b, "attention.sliding_window_pattern", 0, 1024, absent);
    for (int layer = 0; layer < layers; layer++)
        local[layer] = period == 0 || layer % period < period - 1;
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
        snprintf(full, NAME_BYTES, "blk.%d.%s%s", b->period ? b->layer % b->period : b->layer, name, suffix);
    else
        snprintf(full, NAME_BYTES, "%s%s", name, suffix);
}

/* NULL with an error if the tensor has another shape, or is absent and required. */
static const ht_tensor *find_tensor(ht_builder *b, const char *full, size_t rows, size_t cols, size_t n,
                                    bool required) {
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
    if (tensor->dims[0] == cols && tensor->dims[1] == rows && tensor->dims[2] == n && tensor->dims[3] == 1)
        return tensor;
    ht_build_fail(b, HT_ERROR_FORMAT,
                  "tensor %s is [%llu, %llu, %llu, %llu], but the hyperparameters require [%zu, %zu, %zu]", full,
                  (unsigned long long)tensor->dims[0], (unsigned long long)tensor->dims[1],
                  (unsigned long long)tensor->dims[2], (unsigned long long)tensor->dims[3], cols, rows, n);
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

static const float *read_floats(ht_builder *b, const ht_tensor *tensor, size_t n);

/* NVFP4's second scale: llama.cpp multiplies what the matrix gives by it, before a bias is added, here the weights are.
 * One number, or one for each of `n` matrices. */
static void add_factors(ht_builder *b, const ht_tensor *scale, size_t n, ht_matrix *matrix) {
    if (matrix->type->type != HT_TYPE_NVFP4)
        ht_build_fail(b, HT_ERROR_UNSUPPORTED, "tensor %s scales %s, which is of type %s: only NVFP4 is scaled",
                      scale->name, matrix->name, matrix->type->name);
    else if (scale->type != HT_TYPE_F32 || scale->bytes != n * sizeof(float))
        ht_build_fail(b, HT_ERROR_FORMAT, "tensor %s is not %zu F32 number%s", scale->name, n, n == 1 ? "" : "s");
    else {
        matrix->factors = read_floats(b, scale, n);
        matrix->factor_rows = matrix->rows / n;
    }
}

ht_matrix ht_build_matrices(ht_builder *b, const char *name, size_t rows, size_t cols, size_t n) {
    char full[NAME_BYTES];
    tensor_name(b, name, ".weight", full);
    if (b->status != HT_OK)
        return (ht_matrix){0};
    if (!b->model->file)
        return made_up_matrix(b, full, rows * n, cols);
    const ht_tensor *tensor = find_tensor(b, full, rows, cols, n, true);
    if (!tensor)
        return (ht_matrix){0};
    ht_matrix matrix = ht_matrix_of(tensor);
    tensor_name(b, name, ".scale", full);
    const ht_tensor *scale = ht_gguf_tensor(b->model->file, full);
    for (const char *const *own = b->own_scales; own && *own; own++)
        if (strcmp(*own, name) == 0)
            scale = NULL;
    if (scale)
        add_factors(b, scale, n, &matrix);
    return matrix;
}

ht_matrix ht_build_matrix(ht_builder *b, const char *name, size_t rows, size_t cols) {
    return ht_build_matrices(b, name, rows, cols, 1);
}

bool ht_build_has_matrix(const ht_builder *b, const char *name) {
    char full[NAME_BYTES];
    tensor_name(b, name, ".weight", full);
    return b->model->file && ht_gguf_tensor(b->model->file, full);
}

ht_matrix ht_build_rows(ht_builder *b, const char *name, size_t rows, size_t cols, size_t first, size_t run,
                        size_t stride) {
    return ht_build_rows_of(b, ht_build_matrix(b, name, rows / run * stride, cols), first, run, stride);
}

ht_matrix ht_build_rows_of(ht_builder *b, ht_matrix m, size_t first, size_t run, size_t stride) {
    if (b->status != HT_OK)
        return m;
    char full[NAME_BYTES];
    snprintf(full, sizeof full, "%s[%zu+%zu/%zu]", m.name, first, run, stride);
    m.data = m.data ? m.data + first * m.row_bytes : NULL;
    m.rows = m.rows / stride * run;
    if (m.rows > run)
        m.run = run, m.stride = stride; /* else they follow each other */
    m.name = ht_arena_strndup(&b->model->arena, full, strlen(full));
    if (!m.name)
        ht_build_fail(b, HT_ERROR_MEMORY, "out of memory for tensor names");
    return m;
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

/* The values of a tensor of [rows, cols] floats, row by row. */
static const float *read_floats(ht_builder *b, const ht_tensor *tensor, size_t n) {
    float *out = aligned_floats(b, n);
    if (!out)
        return NULL;
    const ht_type_traits *type = ht_type_get(tensor->type);
    const ht_matrix row = {
        .name = tensor->name, .type = type, .rows = 1, .cols = n, .data = tensor->data, .row_bytes = tensor->bytes};
    ht_matrix_floats(&row, 0, 1, out);
    for (size_t i = 0; i < n; i++)
        if (!isfinite(out[i])) { /* it would make every number of the model NaN, or be lost where they are rounded */
            ht_build_fail(b, HT_ERROR_FORMAT, "tensor %s: value %zu is not a number (%g)", tensor->name, i,
                          (double)out[i]);
            return NULL;
        }
    return out;
}

const float *ht_build_vectors(ht_builder *b, const char *name, size_t each, size_t count, bool required,
                              float made_up) {
    const size_t rows = count, cols = each;
    char full[NAME_BYTES];
    tensor_name(b, name, "", full);
    if (b->status != HT_OK || (!b->model->file && !required))
        return NULL;
    const ht_tensor *tensor = b->model->file ? find_tensor(b, full, rows, cols, 1, required) : NULL;
    if (tensor)
        return read_floats(b, tensor, rows * cols);
    float *out = b->model->file ? NULL : aligned_floats(b, rows * cols);
    for (size_t i = 0; i < rows * cols && out; i++)
        out[i] = made_up;
    return out;
}

const float *ht_build_vector(ht_builder *b, const char *name, size_t n, bool required, float made_up) {
    return ht_build_vectors(b, name, n, 1, required, made_up);
}

const float *ht_build_constant(ht_builder *b, size_t n, float value) {
    float *out = b->status == HT_OK ? aligned_floats(b, n) : NULL;
    for (size_t i = 0; i < n && out; i++)
        out[i] = value;
    return out;
}

const float *ht_build_taps(ht_builder *b, const char *name, int taps, size_t channels) {
    const float *file = ht_build_vectors(b, name, (size_t)taps, channels, true, 0.0f);
    float *out = file ? aligned_floats(b, (size_t)taps * channels) : NULL;
    for (size_t i = 0; i < (size_t)taps * channels && out; i++) {
        const size_t tap = i / channels, channel = i % channels;
        out[i] = b->model->file ? file[channel * (size_t)taps + tap]
                                : (float)(1 + (channel * 7 + tap * 3) % 11) / 11.0f - (tap % 2 ? 0.7f : 0.0f);
    }
    return out;
}
