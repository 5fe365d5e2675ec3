/* Importance of columns: sums of squares of what matrices read over a text (quant/imatrix.h). */
#include "quant/imatrix.h"
#include "session/session.h"

#include <stdlib.h>
#include <string.h>

enum { PIECE = 512 };

typedef struct collection {
    const ht_model *model;
    ht_imatrix_entry *entries; /* whose names are the file's tensors' */
    size_t n, capacity;
    uint32_t *of_part; /* [ops][HT_MAX_PARTS]: entry, and 1; 0: not seen yet */
    ht_status status;  /* of what could not be counted */
    ht_error error;
} collection;

/* The tensor that a part's rows are of: a name may have behind it which rows ("NAME[FIRST+RUN/STRIDE]"). */
static const ht_tensor *tensor_of(const collection *c, const ht_matrix *part) {
    char name[128];
    const size_t bytes = strcspn(part->name, "[");
    if (bytes >= sizeof name)
        return NULL;
    memcpy(name, part->name, bytes);
    name[bytes] = 0;
    return ht_gguf_tensor(c->model->file, name);
}

static ht_status add_entry(collection *c, const ht_tensor *tensor, ht_error *error) {
    ht_status status = ht_grow((void **)&c->entries, &c->capacity, c->n + 1, sizeof *c->entries, "importance", error);
    if (status)
        return status;
    ht_imatrix_entry *entry = &c->entries[c->n++];
    *entry = (ht_imatrix_entry){
        .name = tensor->name, .cols = (size_t)tensor->dims[0], .matrices = (size_t)(tensor->dims[2] * tensor->dims[3])};
    status = ht_alloc((void **)&entry->sums, entry->cols * entry->matrices, sizeof *entry->sums, tensor->name, error);
    return status ? status
                  : ht_alloc((void **)&entry->counts, entry->matrices, sizeof *entry->counts, tensor->name, error);
}

/* The entry of an operator's matrix; NULL: it has none, or there is no memory (c->status). */
static ht_imatrix_entry *entry_of(collection *c, const ht_op *op, int part) {
    uint32_t *known = &c->of_part[(size_t)(op - c->model->ops) * HT_MAX_PARTS + (size_t)part];
    if (*known)
        return &c->entries[*known - 1];
    const ht_tensor *tensor = tensor_of(c, &op->parts[part]);
    if (!tensor || strncmp(tensor->name, "blk.", 4) || tensor->dims[0] != op->parts[part].cols)
        return NULL;
    if (op->parts[part].data != tensor->data && !op->parts[part].made) /* later rows: the first ones are counted */
        return NULL;
    size_t i = 0;
    while (i < c->n && strcmp(c->entries[i].name, tensor->name))
        i++;
    if (i == c->n && (c->status = add_entry(c, tensor, &c->error)))
        return NULL;
    *known = (uint32_t)i + 1;
    return &c->entries[i];
}

static void add_rows(ht_imatrix_entry *entry, size_t matrix, const float *rows, size_t n, size_t stride) {
    double *sums = entry->sums + matrix * entry->cols;
    for (size_t r = 0; r < n; r++) {
        for (size_t i = 0; i < entry->cols; i++)
            sums[i] += (double)rows[r * stride + i] * (double)rows[r * stride + i];
    }
    entry->counts[matrix] += n;
}

static void look(void *user, const ht_op *op, int first, int end, size_t matrix, const float *rows, size_t n,
                 size_t stride) {
    collection *c = user;
    if (c->status || op < c->model->ops || op >= c->model->ops + c->model->n_ops)
        return;
    for (int i = first; i < end; i++) {
        ht_imatrix_entry *entry = entry_of(c, op, i);
        if (entry && matrix < entry->matrices)
            add_rows(entry, matrix, rows, n, stride);
    }
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const ht_imatrix_entry *)a)->name, ((const ht_imatrix_entry *)b)->name);
}

/* ids[0..n) in pieces, the first token of each replaced by BOS. */
static ht_status feed_pieces(ht_session *session, int32_t *ids, size_t n, const ht_imatrix_options *options,
                             ht_imatrix_result *result, size_t *piece, ht_error *error) {
    const ht_tokenizer *tokenizer = session->engine->model->tokenizer;
    const int bos = ht_tokenizer_adds_bos(tokenizer) ? ht_tokenizer_bos(tokenizer) : -1;
    ht_lanes *set = &session->engine->set;
    const collection *c = session->engine->passes.observer->user;
    *piece = ht_min_size(ht_min_size(PIECE, ht_session_context(session)), (size_t)session->engine->info.chunk);
    const size_t pieces = ht_max_size(n / *piece, 1);
    ht_status status = HT_OK;
    for (size_t i = 0; i < pieces && !status; i++) {
        int32_t *from = ids + i * *piece;
        const size_t tokens = ht_min_size(*piece, n - i * *piece);
        if (options->progress &&
            !options->progress("importance, pieces", (double)i, (double)pieces, options->progress_user))
            return ht_fail(error, HT_ERROR_CANCELLED, "cancelled");
        if (bos >= 0)
            from[0] = bos;
        ht_lanes_lock(set);
        session->n_tokens = 0;
        status = ht_session_feed(session, from, tokens, 0, &session->cancel, error);
        ht_lanes_unlock(set);
        result->tokens += tokens;
        if (!status && c->status) {
            *error = c->error;
            status = c->status;
        }
    }
    return status;
}

static ht_status collect(ht_model *model, ht_session *session, const char *text, size_t bytes, const char *out,
                         const ht_imatrix_options *options, ht_imatrix_result *result, ht_error *error) {
    collection c = {.model = model};
    const ht_observer observer = {look, &c};
    int32_t *ids = NULL;
    size_t n = 0, piece = 0;
    ht_status status =
        ht_alloc((void **)&c.of_part, model->n_ops * HT_MAX_PARTS, sizeof *c.of_part, "importance", error);
    if (!status)
        status = ht_tokenizer_encode(model->tokenizer, text, bytes, HT_TOKENIZE_ADD_SPECIAL, &ids, &n, error);
    if (!status)
        status =
            n ? ht_session_check_ids(session, ids, n, error) : ht_fail(error, HT_ERROR_ARGUMENT, "the text is empty");
    session->engine->passes.observer = &observer;
    if (!status)
        status = feed_pieces(session, ids, n, options, result, &piece, error);
    session->engine->passes.observer = NULL;
    if (!status) {
        qsort(c.entries, c.n, sizeof *c.entries, by_name);
        result->entries = c.n;
        status = ht_imatrix_write(out, c.entries, c.n, options->name ? options->name : "",
                                  (uint32_t)ht_max_size(n / piece, 1), (uint32_t)piece, error);
    }
    for (size_t i = 0; i < c.n; i++) {
        free(c.entries[i].sums);
        free(c.entries[i].counts);
    }
    free(c.entries);
    free(c.of_part);
    ht_free(ids);
    return status;
}

ht_status ht_imatrix_collect(ht_model *model, const char *text, size_t bytes, const char *out,
                             const ht_imatrix_options *options, ht_imatrix_result *result, ht_error *error) {
    static const ht_imatrix_options none;
    ht_error own; /* copied from where a device could not return it */
    ht_imatrix_result counted = {0};
    ht_engine *engine = NULL;
    ht_session *session = NULL;
    if (!error)
        error = &own;
    if (!options)
        options = &none;
    if (!model->tokenizer)
        return ht_fail(error, HT_ERROR_UNSUPPORTED, "importance: %s",
                       model->no_tokenizer ? model->no_tokenizer : "the model has no tokenizer");
    ht_status status = ht_output_check(out, error);
    const ht_engine_options how =
        HT_INIT(ht_engine_options, .devices = "cpu", .threads = options->threads, .precision = HT_PRECISION_EXACT,
                .strategy = HT_STRATEGY_SINGLE, .chunk = PIECE, .kv_type = HT_KV_F32,
                .context = model->info.context_length < PIECE ? (int)model->info.context_length : PIECE);
    if (!status && ht_gguf_holds(model->file, out))
        status = ht_fail(error, HT_ERROR_ARGUMENT, "%s: cannot overwrite the model being read", out);
    if (!status)
        status = ht_engine_create(model, &how, &engine, error);
    if (!status)
        status = ht_session_create(engine, &session, error);
    if (!status)
        status = collect(model, session, text, bytes, out, options, &counted, error);
    if (!status && result)
        *result = counted;
    ht_session_destroy(session);
    ht_engine_destroy(engine);
    return status;
}
