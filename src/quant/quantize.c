/* ht_quantize: a file's matrices in another type. Embedding and output matrices are converted like the others. */
#include "base/os.h"
#include "quant/quant.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const struct {
    const char *name;
    ht_type type;
    uint32_t file_type; /* general.file_type, in llama.cpp's numbering */
} targets[] = {
    {"f16", HT_TYPE_F16, 1},
    {"q4_0", HT_TYPE_Q4_0, 2},
    {"q4_1", HT_TYPE_Q4_1, 3},
    {"q8_0", HT_TYPE_Q8_0, 7},
};

typedef struct job {
    ht_gguf *in;
    ht_gguf_writer *out;
    ht_type type;
    ht_progress_function progress;
    void *user;
    double done, total; /* bytes read */
    float *floats;      /* rows between the two formats */
    uint8_t *blocks;
    size_t cap_floats, cap_blocks;
    ht_error *error;
} job;

/* Matrices whose rows are whole blocks; what is no weights stays as it is; everything else (norms, biases, narrow matrices) is small, and stays F32. */
static ht_type target_of(const job *work, const ht_tensor *tensor) {
    const ht_type_traits *traits = ht_type_get(work->type);
    if (ht_type_get(tensor->type)->bits == 0)
        return tensor->type;
    return tensor->n_dims >= 2 && tensor->dims[0] % (uint64_t)traits->block == 0 ? work->type : HT_TYPE_F32;
}

/* Rows of at least a block that are no whole blocks: not small, and larger in the result than asked for. One line for all of them. */
static void tell_of_kept(const job *work) {
    const ht_type_traits *traits = ht_type_get(work->type);
    const ht_tensor *first = NULL;
    size_t n = 0;
    for (size_t i = 0; i < ht_gguf_tensor_count(work->in); i++) {
        const ht_tensor *tensor = ht_gguf_tensor_at(work->in, i);
        if (ht_type_get(tensor->type)->bits == 0 || tensor->n_dims < 2 || tensor->dims[0] < (uint64_t)traits->block ||
            target_of(work, tensor) == work->type)
            continue;
        first = n++ ? first : tensor;
    }
    if (n)
        ht_log(HT_LOG_WARN, "%s: %zu %s F32, %s%s: rows of %llu values are no whole blocks of %d, which %s has",
               ht_gguf_path(work->in), n, n == 1 ? "tensor is" : "tensors are", first->name, n == 1 ? "" : " first",
               (unsigned long long)first->dims[0], traits->block, traits->name);
}

static bool key_is(const ht_gguf_value *value, const char *key) {
    return value->key.bytes == strlen(key) && !memcmp(value->key.data, key, value->key.bytes);
}

static ht_status write_values(job *work, uint32_t file_type) {
    static const char split[] = "split."; /* the result is one file, whatever the source was */
    static const char quantised[] = "general.quantization_version";
    /* general.file_type and the version of the formats are ours to say; the rest is the model's. */
    ht_status status = ht_gguf_put_u32(work->out, "general.file_type", file_type, work->error);
    if (!status)
        status = ht_gguf_put_u32(work->out, quantised, 2, work->error);
    for (size_t i = 0; i < ht_gguf_value_count(work->in) && !status; i++) {
        const ht_gguf_value *value = ht_gguf_value_at(work->in, i);
        bool drop = key_is(value, "general.file_type") || key_is(value, quantised) ||
                    (value->key.bytes >= sizeof split - 1 && !memcmp(value->key.data, split, sizeof split - 1));
        if (!drop)
            status = ht_gguf_copy_value(work->out, value, work->error);
    }
    for (size_t i = 0; i < ht_gguf_tensor_count(work->in) && !status; i++) {
        const ht_tensor *tensor = ht_gguf_tensor_at(work->in, i);
        status = ht_gguf_put_tensor(work->out, tensor->name, target_of(work, tensor), tensor->n_dims, tensor->dims,
                                    work->error);
    }
    return status;
}

static ht_status copy_tensor(job *work, const ht_tensor *tensor) {
    work->done += (double)tensor->bytes;
    return ht_gguf_write_data(work->out, tensor->data, tensor->bytes, work->error);
}

static ht_status convert_tensor(job *work, const ht_tensor *tensor) {
    if (ht_type_get(tensor->type)->bits == 0)
        return copy_tensor(work, tensor);
    const ht_type_traits *to = ht_type_get(target_of(work, tensor));
    const ht_matrix matrix = ht_matrix_of(tensor);
    size_t out_bytes = matrix.cols / (size_t)to->block * (size_t)to->block_bytes;
    size_t at_once = ht_min_size(matrix.rows, ht_max_size(1, ((size_t)1 << 20) / matrix.cols));
    ht_status status = ht_grow((void **)&work->floats, &work->cap_floats, at_once * matrix.cols, sizeof *work->floats,
                               tensor->name, work->error);
    if (!status) {
        status = ht_grow((void **)&work->blocks, &work->cap_blocks, at_once * out_bytes, 1, tensor->name, work->error);
    }
    for (size_t row = 0; row < matrix.rows && !status; row += at_once) {
        size_t n = ht_min_size(at_once, matrix.rows - row);
        ht_matrix_floats(&matrix, row, n, work->floats);
        for (size_t r = 0; r < n; r++) {
            ht_encode_row(to->type, work->floats + r * matrix.cols, matrix.cols, work->blocks + r * out_bytes);
        }
        status = ht_gguf_write_data(work->out, work->blocks, n * out_bytes, work->error);
        work->done += (double)(n * matrix.row_bytes);
        if (!status && work->progress && !work->progress("quantizing", work->done, work->total, work->user)) {
            status = ht_fail(work->error, HT_ERROR_CANCELLED, "%s: quantizing was cancelled", ht_gguf_path(work->in));
        }
    }
    ht_mapping_drop(tensor->data, tensor->bytes); /* read once: the whole file need not stay resident */
    return status;
}

static ht_status convert(job *work, const char *out, uint32_t file_type) {
    ht_status status = HT_OK;
    if (ht_gguf_holds(work->in, out))
        status = ht_fail(work->error, HT_ERROR_ARGUMENT, "%s: cannot overwrite the model being read", out);
    if (!status)
        status = ht_gguf_create(out, &work->out, work->error);
    if (!status)
        status = write_values(work, file_type);
    for (size_t i = 0; i < ht_gguf_tensor_count(work->in); i++) {
        work->total += (double)ht_gguf_tensor_at(work->in, i)->bytes;
    }
    for (size_t i = 0; i < ht_gguf_tensor_count(work->in) && !status; i++) {
        status = convert_tensor(work, ht_gguf_tensor_at(work->in, i));
    }
    if (!status)
        status = ht_gguf_finish(work->out, work->error);
    if (!status)
        tell_of_kept(work);
    return status;
}

ht_status ht_quantize(const char *in, const char *out, const char *type, ht_progress_function progress, void *user,
                      ht_quantize_result *result, ht_error *error) {
    size_t target = 0;
    while (target < HT_COUNT(targets) && strcasecmp(targets[target].name, type))
        target++;
    if (target == HT_COUNT(targets)) {
        return ht_fail(error, HT_ERROR_ARGUMENT, "type \"%s\" cannot be written (f16, q4_0, q4_1 and q8_0 can)", type);
    }
    job work = {.type = targets[target].type, .progress = progress, .user = user, .error = error};
    ht_status status = ht_gguf_open(in, &work.in, error);
    if (status)
        return status;
    status = convert(&work, out, targets[target].file_type);
    ht_os_info info;
    if (!status && result) {
        *result = (ht_quantize_result){.in_bytes = ht_gguf_file_bytes(work.in)};
        if (!ht_os_look(out, &info))
            result->out_bytes = info.bytes;
    }
    ht_gguf_abandon(work.out);
    ht_gguf_close(work.in);
    free(work.floats);
    free(work.blocks);
    return status;
}
