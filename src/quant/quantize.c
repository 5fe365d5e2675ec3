/* ht_quantize: a file's matrices in other types (recipe.h), with what their columns are worth if that is known
 * (imatrix.h). */
#include "base/os.h"
#include "base/pool.h"
#include "quant/imatrix.h"
#include "quant/quant.h"
#include "quant/recipe.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define AT_ONCE ((size_t)1 << 20) /* weights that are in memory as floats */
#define A_PIECE ((size_t)1 << 14) /* weights that a thread takes at a time, at least */

typedef struct job {
    const ht_quantize_options *options;
    const ht_recipe *recipe;
    ht_gguf *in;
    ht_gguf_writer *out;
    ht_imatrix *imatrix; /* NULL: none */
    ht_pool *pool;
    ht_type *targets, *wanted; /* [tensors] */
    double done, total;        /* bytes read */
    float *floats;             /* rows between the two formats */
    uint8_t *blocks;
    size_t cap_floats, cap_blocks;
} job;

/* ---- what is told -------------------------------------------------------------------------------------------------- */

/* Rows that are no whole blocks of what was wanted: one line for each type that they became instead. */
static void tell_of_others(const job *work) {
    const size_t n = ht_gguf_tensor_count(work->in);
    for (size_t i = 0; i < n; i++) {
        const ht_tensor *first = ht_gguf_tensor_at(work->in, i);
        const ht_type_traits *wanted = ht_type_get(work->wanted[i]), *got = ht_type_get(work->targets[i]);
        size_t alike = 0;
        bool told = false;
        for (size_t k = 0; k < n; k++) {
            if (work->wanted[k] != work->wanted[i] || work->targets[k] != work->targets[i] ||
                ht_gguf_tensor_at(work->in, k)->dims[0] < (uint64_t)ht_min_size((size_t)wanted->block, 32))
                continue;
            alike++;
            told |= k < i;
        }
        if (wanted == got || told || first->dims[0] < (uint64_t)ht_min_size((size_t)wanted->block, 32))
            continue;
        ht_log(HT_LOG_WARN, "%s: %zu %s %s, %s%s: rows of %llu values are no whole blocks of %d, which %s has",
               ht_gguf_path(work->in), alike, alike == 1 ? "tensor is" : "tensors are", got->name, first->name,
               alike == 1 ? "" : " first", (unsigned long long)first->dims[0], wanted->block, wanted->name);
    }
}

/* Is the tensor fitted to importance, where there is some? */
static bool wants_importance(const job *work, size_t i) {
    const ht_type type = work->targets[i];
    return work->imatrix && type != ht_gguf_tensor_at(work->in, i)->type && ht_type_get(type)->group &&
           type != HT_TYPE_Q8_0;
}

/* Matrices without importance, which llama-imatrix does not have of the table of tokens and of the output; and whether the
 * whole matrix is another model's. */
static ht_status check_importance(const job *work, ht_error *error) {
    const char *first = NULL;
    size_t missing = 0, found = 0;
    for (size_t i = 0; i < ht_gguf_tensor_count(work->in); i++) {
        const char *name = ht_gguf_tensor_at(work->in, i)->name;
        if (!wants_importance(work, i) || strncmp(name, "blk.", 4))
            continue;
        if (ht_imatrix_has(work->imatrix, name)) {
            found++;
        } else {
            first = missing++ ? first : name;
        }
    }
    if (missing && !found)
        return ht_fail(error, HT_ERROR_ARGUMENT, "%s: has no importance of any matrix of %s, such as %s",
                       work->options->imatrix, ht_gguf_path(work->in), first);
    if (missing)
        ht_log(HT_LOG_WARN, "%s: %zu %s no importance there, %s%s: all columns of such count the same",
               work->options->imatrix, missing, missing == 1 ? "matrix has" : "matrices have", first,
               missing == 1 ? "" : " first");
    return HT_OK;
}

/* ---- headers ------------------------------------------------------------------------------------------------------ */

static bool key_is(const ht_gguf_value *value, const char *key) {
    return value->key.bytes == strlen(key) && !memcmp(value->key.data, key, value->key.bytes);
}

static ht_status write_headers(job *work, ht_error *error) {
    static const char split[] = "split."; /* the result is one file, whatever the source was */
    static const char quantised[] = "general.quantization_version";
    /* general.file_type and the version of the formats are ours to say; the rest is the model's. */
    ht_status status = ht_gguf_put_u32(work->out, "general.file_type", ht_recipe_file_type(work->recipe), error);
    if (!status)
        status = ht_gguf_put_u32(work->out, quantised, 2, error);
    for (size_t i = 0; i < ht_gguf_value_count(work->in) && !status; i++) {
        const ht_gguf_value *value = ht_gguf_value_at(work->in, i);
        bool drop = key_is(value, "general.file_type") || key_is(value, quantised) ||
                    (value->key.bytes >= sizeof split - 1 && !memcmp(value->key.data, split, sizeof split - 1));
        if (!drop)
            status = ht_gguf_copy_value(work->out, value, error);
    }
    for (size_t i = 0; i < ht_gguf_tensor_count(work->in) && !status; i++) {
        const ht_tensor *tensor = ht_gguf_tensor_at(work->in, i);
        status = ht_gguf_put_tensor(work->out, tensor->name, work->targets[i], tensor->n_dims, tensor->dims, error);
    }
    return status;
}

/* ---- tensors ------------------------------------------------------------------------------------------------------- */

typedef struct rows { /* of a tensor, that are in memory together */
    const ht_matrix *matrix;
    const ht_type_traits *to;
    const float *importance; /* [matrices][cols]; NULL: none */
    size_t each;             /* rows of one matrix */
    size_t first, out_bytes;
    float *floats;
    uint8_t *blocks;
    atomic_size_t bad; /* a row that has weights which are no numbers, and 1; 0: none */
} rows;

static bool is_finite(const float *x, size_t n) {
    uint32_t bad = 0; /* no early end, so that it becomes vectors */
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        bad |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    return !bad;
}

static void convert_row(void *context, size_t item, int thread) {
    rows *r = context;
    const size_t row = r->first + item, cols = r->matrix->cols;
    float *floats = r->floats + item * cols;
    ht_matrix_floats(r->matrix, row, 1, floats);
    if (r->to->group && !is_finite(floats, cols)) {
        atomic_store(&r->bad, row + 1);
        return;
    }
    const float *importance = r->importance ? r->importance + row / r->each * cols : NULL;
    ht_encode_row(r->to->type, floats, importance, cols, r->blocks + item * r->out_bytes);
}

static ht_status tell_progress(const job *work, ht_error *error) {
    const ht_quantize_options *o = work->options;
    if (o->progress && !o->progress("quantizing", work->done, work->total, o->progress_user))
        return ht_fail(error, HT_ERROR_CANCELLED, "%s: quantizing was cancelled", ht_gguf_path(work->in));
    return HT_OK;
}

static ht_status copy_tensor(job *work, const ht_tensor *tensor, ht_error *error) {
    ht_status status = ht_gguf_write_data(work->out, tensor->data, tensor->bytes, error);
    work->done += (double)tensor->bytes;
    return status ? status : tell_progress(work, error);
}

static ht_status convert_rows(job *work, rows *r, ht_error *error) {
    const ht_matrix *matrix = r->matrix;
    const size_t at_once = ht_min_size(matrix->rows, ht_max_size(1, AT_ONCE / matrix->cols));
    ht_status status = ht_grow((void **)&work->floats, &work->cap_floats, at_once * matrix->cols, sizeof *work->floats,
                               matrix->name, error);
    if (!status)
        status = ht_grow((void **)&work->blocks, &work->cap_blocks, at_once * r->out_bytes, 1, matrix->name, error);
    r->floats = work->floats;
    r->blocks = work->blocks;
    for (r->first = 0; r->first < matrix->rows && !status; r->first += at_once) {
        const size_t n = ht_min_size(at_once, matrix->rows - r->first);
        ht_pool_run(work->pool, convert_row, r, n, ht_max_size(1, A_PIECE / matrix->cols));
        const size_t bad = atomic_load(&r->bad);
        if (bad)
            return ht_matrix_refuse(matrix, bad - 1, error);
        status = ht_gguf_write_data(work->out, work->blocks, n * r->out_bytes, error);
        work->done += (double)(n * matrix->row_bytes);
        if (!status)
            status = tell_progress(work, error);
    }
    return status;
}

static ht_status convert_tensor(job *work, size_t i, ht_error *error) {
    const ht_tensor *tensor = ht_gguf_tensor_at(work->in, i);
    if (work->targets[i] == tensor->type)
        return copy_tensor(work, tensor, error);
    const ht_matrix matrix = ht_matrix_of(tensor);
    const ht_type_traits *to = ht_type_get(work->targets[i]);
    float *importance = NULL;
    ht_status status = HT_OK;
    if (wants_importance(work, i) && ht_imatrix_has(work->imatrix, tensor->name))
        status = ht_imatrix_weights(work->imatrix, tensor, &importance, error);
    rows r = {.matrix = &matrix,
              .to = to,
              .importance = importance,
              .each = (size_t)tensor->dims[1],
              .out_bytes = matrix.cols / (size_t)to->block * (size_t)to->block_bytes};
    if (!status)
        status = convert_rows(work, &r, error);
    free(importance);
    ht_mapping_drop(tensor->data, tensor->bytes); /* read once: the whole file need not stay resident */
    return status;
}

/* ---- all of it ------------------------------------------------------------------------------------------------------ */

static ht_status prepare(job *work, ht_error *error) {
    const int threads = work->options->threads ? work->options->threads : ht_default_threads(ht_os_allowed_cores());
    ht_status status = ht_recipe_apply(work->recipe, work->in, &work->targets, &work->wanted, error);
    if (!status && work->options->imatrix)
        status = ht_imatrix_open(work->options->imatrix, &work->imatrix, error);
    if (!status && work->imatrix)
        status = check_importance(work, error);
    if (!status)
        status = ht_pool_create(threads, &(ht_cores){{0}}, &work->pool, error);
    return status;
}

static ht_status convert(job *work, const char *out, ht_error *error) {
    if (ht_gguf_holds(work->in, out))
        return ht_fail(error, HT_ERROR_ARGUMENT, "%s: cannot overwrite the model being read", out);
    ht_status status = prepare(work, error);
    if (!status)
        status = ht_gguf_create(out, &work->out, error);
    if (!status)
        status = write_headers(work, error);
    const size_t n = ht_gguf_tensor_count(work->in);
    for (size_t i = 0; i < n; i++)
        work->total += (double)ht_gguf_tensor_at(work->in, i)->bytes;
    for (size_t i = 0; i < n && !status; i++)
        status = convert_tensor(work, i, error);
    if (!status)
        status = ht_gguf_finish(work->out, error);
    if (!status)
        tell_of_others(work);
    return status;
}

ht_status ht_quantize(const char *in, const char *out, const char *type, const ht_quantize_options *options,
                      ht_quantize_result *result, ht_error *error) {
    static const ht_quantize_options none;
    char names[256];
    job work = {.options = options ? options : &none, .recipe = ht_recipe_find(type)};
    if (!work.recipe)
        return ht_fail(error, HT_ERROR_ARGUMENT, "type \"%s\" cannot be written (%s can)", type,
                       ht_recipe_names(names, sizeof names));
    ht_status status = ht_gguf_open(in, &work.in, error);
    if (status)
        return status;
    status = convert(&work, out, error);
    ht_os_info info;
    if (!status && result) {
        *result = (ht_quantize_result){.in_bytes = ht_gguf_file_bytes(work.in)};
        if (!ht_os_look(out, &info))
            result->out_bytes = info.bytes;
    }
    ht_gguf_abandon(work.out);
    ht_gguf_close(work.in);
    ht_imatrix_close(work.imatrix);
    ht_pool_destroy(work.pool);
    free(work.targets);
    free(work.wanted);
    free(work.floats);
    free(work.blocks);
    return status;
}
