/* Importance matrices: files (imatrix.h). */
#include "quant/imatrix.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SUMS ".in_sum2"
#define COUNTS ".counts"
#define LEAST 1e-4f /* of the average: what no token had a value for is worth next to nothing, but not nothing */

struct ht_imatrix {
    ht_gguf *file;
};

static bool ends_with(const char *text, const char *end, size_t *stem) {
    const size_t bytes = strlen(text), tail = strlen(end);
    *stem = bytes - tail;
    return bytes > tail && !strcmp(text + bytes - tail, end);
}

static uint64_t elements(const ht_tensor *t) {
    return t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3];
}

static float item(const ht_tensor *t, uint64_t i) {
    float f;
    memcpy(&f, t->data + 4 * i, sizeof f);
    return f;
}

/* The tensor of a name with this end; NULL: absent. */
static const ht_tensor *part(const ht_imatrix *imatrix, const char *name, size_t bytes, const char *end) {
    char full[256];
    snprintf(full, sizeof full, "%.*s%s", (int)ht_min_size(bytes, 200), name, end);
    return ht_gguf_tensor(imatrix->file, full);
}

/* Finite, not negative, and if `most` is not 0 no more than that. */
static ht_status check_numbers(const ht_gguf *file, const ht_tensor *t, float most, ht_error *error) {
    if (t->type != HT_TYPE_F32)
        return ht_fail(error, HT_ERROR_FORMAT, "%s: %s is of type %s, not F32", ht_gguf_path(file), t->name,
                       ht_type_get(t->type)->name);
    for (uint64_t i = 0; i < elements(t); i++) {
        const float value = item(t, i);
        if (!isfinite(value) || value < 0 || (most > 0 && value > most))
            return ht_fail(error, HT_ERROR_FORMAT, "%s: %s: value %llu is %g, which no %s is", ht_gguf_path(file),
                           t->name, (unsigned long long)i, (double)value,
                           most > 0 ? "count of tokens" : "sum of squares");
    }
    return HT_OK;
}

static ht_status check_entry(const ht_imatrix *imatrix, const ht_tensor *sums, size_t stem, ht_error *error) {
    const ht_tensor *counts = part(imatrix, sums->name, stem, COUNTS);
    const char *path = ht_gguf_path(imatrix->file);
    if (!counts)
        return ht_fail(error, HT_ERROR_FORMAT, "%s: %s has no %.*s" COUNTS " beside it", path, sums->name, (int)stem,
                       sums->name);
    ht_status status = check_numbers(imatrix->file, sums, 0, error);
    if (!status)
        status = check_numbers(imatrix->file, counts, 0x1p52f, error);
    if (!status && (elements(counts) == 0 || elements(sums) % elements(counts)))
        status = ht_fail(error, HT_ERROR_FORMAT, "%s: %s: %llu values are not the same number for each of %llu counts",
                         path, sums->name, (unsigned long long)elements(sums), (unsigned long long)elements(counts));
    return status;
}

static ht_status check_file(const ht_imatrix *imatrix, ht_error *error) {
    const ht_gguf *file = imatrix->file;
    ht_string type = {"", 0};
    size_t entries = 0, stem;
    ht_status status = ht_gguf_string(file, "general.type", false, &type, error);
    if (!status && type.bytes && (type.bytes != 7 || memcmp(type.data, "imatrix", 7)))
        status = ht_fail(error, HT_ERROR_FORMAT, "%s: general.type is \"%.*s\", not \"imatrix\"", ht_gguf_path(file),
                         (int)ht_min_size(type.bytes, 40), type.data);
    for (size_t i = 0; i < ht_gguf_tensor_count(file) && !status; i++) {
        const ht_tensor *t = ht_gguf_tensor_at(file, i);
        if (ends_with(t->name, SUMS, &stem)) {
            status = check_entry(imatrix, t, stem, error);
            entries++;
        } else if (ends_with(t->name, COUNTS, &stem) && !part(imatrix, t->name, stem, SUMS)) {
            status = ht_fail(error, HT_ERROR_FORMAT, "%s: %s has no %.*s" SUMS " beside it", ht_gguf_path(file),
                             t->name, (int)stem, t->name);
        }
    }
    if (!status && entries == 0)
        status =
            ht_fail(error, HT_ERROR_FORMAT, "%s: no importance matrix: it has no tensor NAME" SUMS, ht_gguf_path(file));
    return status;
}

ht_status ht_imatrix_open(const char *path, ht_imatrix **out, ht_error *error) {
    ht_imatrix *imatrix;
    ht_status status = ht_alloc((void **)&imatrix, 1, sizeof *imatrix, "importance matrix", error);
    if (status)
        return status;
    status = ht_gguf_open(path, &imatrix->file, error);
    if (!status)
        status = check_file(imatrix, error);
    if (status)
        ht_imatrix_close(imatrix);
    else
        *out = imatrix;
    return status;
}

void ht_imatrix_close(ht_imatrix *imatrix) {
    if (!imatrix)
        return;
    ht_gguf_close(imatrix->file);
    free(imatrix);
}

bool ht_imatrix_has(const ht_imatrix *imatrix, const char *name) {
    return part(imatrix, name, strlen(name), SUMS) != NULL;
}

ht_status ht_imatrix_weights(const ht_imatrix *imatrix, const ht_tensor *tensor, float **weights, ht_error *error) {
    const ht_tensor *sums = part(imatrix, tensor->name, strlen(tensor->name), SUMS);
    const ht_tensor *counts = part(imatrix, tensor->name, strlen(tensor->name), COUNTS);
    const uint64_t cols = tensor->dims[0], matrices = tensor->dims[2] * tensor->dims[3], n = cols * matrices;
    if (elements(sums) != n || (elements(counts) != 1 && elements(counts) != matrices))
        return ht_fail(
            error, HT_ERROR_FORMAT,
            "%s: %s has %llu values and %llu counts, and the tensor %llu columns in %llu matrices: of another model?",
            ht_gguf_path(imatrix->file), sums->name, (unsigned long long)elements(sums),
            (unsigned long long)elements(counts), (unsigned long long)cols, (unsigned long long)matrices);
    ht_status status = ht_alloc((void **)weights, (size_t)n, sizeof **weights, tensor->name, error);
    for (uint64_t m = 0; m < matrices && !status; m++) {
        float *row = *weights + m * cols;
        double sum = 0;
        for (uint64_t c = 0; c < cols; c++)
            sum += (double)item(sums, m * cols + c);
        const double mean = sum / (double)cols;
        const bool met = item(counts, elements(counts) == 1 ? 0 : m) > 0 && mean > 0;
        for (uint64_t c = 0; c < cols; c++)
            row[c] = met ? (float)((double)item(sums, m * cols + c) / mean) + LEAST : 1;
    }
    return status;
}

/* ---- writing ------------------------------------------------------------------------------------------------------ */

/* A string as files have it: its length first. */
static ht_status put_text(ht_gguf_writer *writer, const char *key, const char *text, bool array, ht_error *error) {
    ht_text data = {0};
    const uint64_t bytes = strlen(text);
    ht_status status = ht_text_append(&data, (const char *)&bytes, sizeof bytes, error);
    if (!status)
        status = ht_text_append(&data, text, (size_t)bytes, error);
    ht_string only = {text, (size_t)bytes};
    const ht_gguf_value value = {.key = {key, strlen(key)},
                                 .kind = array ? HT_GGUF_ARRAY : HT_GGUF_STRING,
                                 .item_kind = HT_GGUF_STRING,
                                 .count = 1,
                                 .data = (const uint8_t *)data.data,
                                 .strings = &only};
    if (!status)
        status = ht_gguf_copy_value(writer, &value, error);
    ht_text_free(&data);
    return status;
}

static ht_status put_headers(ht_gguf_writer *writer, const ht_imatrix_entry *entries, size_t n, const char *text,
                             uint32_t chunks, uint32_t chunk, ht_error *error) {
    ht_status status = put_text(writer, "general.type", "imatrix", false, error);
    if (!status)
        status = put_text(writer, "imatrix.datasets", text, true, error);
    if (!status)
        status = ht_gguf_put_u32(writer, "imatrix.chunk_count", chunks, error);
    if (!status)
        status = ht_gguf_put_u32(writer, "imatrix.chunk_size", chunk, error);
    for (size_t i = 0; i < n && !status; i++) {
        char name[256];
        snprintf(name, sizeof name, "%s" SUMS, entries[i].name);
        status =
            ht_gguf_put_tensor(writer, name, HT_TYPE_F32, 2, (uint64_t[]){entries[i].cols, entries[i].matrices}, error);
        snprintf(name, sizeof name, "%s" COUNTS, entries[i].name);
        if (!status)
            status = ht_gguf_put_tensor(writer, name, HT_TYPE_F32, 2, (uint64_t[]){1, entries[i].matrices}, error);
    }
    return status;
}

static ht_status put_data(ht_gguf_writer *writer, const ht_imatrix_entry *entry, ht_error *error) {
    ht_status status = HT_OK;
    for (size_t i = 0; i < entry->cols * entry->matrices && !status; i++) {
        const float sum = (float)entry->sums[i];
        if (!isfinite(sum))
            return ht_fail(error, HT_ERROR_UNSUPPORTED, "%s: the sum of squares of column %zu is not finite",
                           entry->name, i % entry->cols);
        status = ht_gguf_write_data(writer, &sum, sizeof sum, error);
    }
    for (size_t i = 0; i < entry->matrices && !status; i++) {
        const float count = (float)entry->counts[i];
        status = ht_gguf_write_data(writer, &count, sizeof count, error);
    }
    return status;
}

ht_status ht_imatrix_write(const char *path, const ht_imatrix_entry *entries, size_t n, const char *text,
                           uint32_t chunks, uint32_t chunk, ht_error *error) {
    ht_gguf_writer *writer = NULL;
    ht_status status = ht_gguf_create(path, &writer, error);
    if (!status)
        status = put_headers(writer, entries, n, text, chunks, chunk, error);
    for (size_t i = 0; i < n && !status; i++)
        status = put_data(writer, &entries[i], error);
    if (!status)
        status = ht_gguf_finish(writer, error);
    ht_gguf_abandon(writer);
    return status;
}
