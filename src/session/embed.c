/* What a model makes of a text, without its head: hidden states, pooled. */
#include "session/session.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Where the vectors of a text go, as its tokens are computed chunk by chunk. */
typedef struct embedding {
    ht_session *session;
    const int32_t *ids;
    size_t n, width;
    ht_pooling pooling;
    float *vectors; /* [n][width] or [width] */
    double *sums;   /* [width]; NULL: not MEAN */
} embedding;

static void take_row(const embedding *e, size_t position, const float *row) {
    if (e->pooling == HT_POOLING_NONE)
        memcpy(e->vectors + position * e->width, row, e->width * sizeof *row);
    else if (position == (e->pooling == HT_POOLING_FIRST ? 0 : e->n - 1) && !e->sums)
        memcpy(e->vectors, row, e->width * sizeof *row);
    for (size_t i = 0; e->sums && i < e->width; i++)
        e->sums[i] += row[i];
}

/* Hidden states of the chunk's tokens [first, n), in blocks as the head takes them. */
static ht_status take_rows(const embedding *e, size_t begin, size_t n, size_t first, ht_error *error) {
    ht_passes *passes = &e->session->engine->passes;
    ht_status status = HT_OK;
    for (size_t at = first; at < n && !status; at += HT_HEAD_TOKENS) {
        const size_t count = ht_min_size(HT_HEAD_TOKENS, n - at);
        ht_view rows;
        status = ht_passes_hidden(passes, at, count, &rows, error);
        for (size_t i = 0; i < count && !status; i++)
            take_row(e, begin + at + i, (const float *)rows.data + i * rows.stride);
    }
    return status;
}

/* One chunk. A device that fails is done without: the chunk is computed again by the others. */
static ht_status embed_chunk(const embedding *e, size_t begin, size_t n, ht_error *error) {
    ht_session *session = e->session;
    const bool last = begin + n == e->n;
    size_t first = 0;
    if (e->pooling == HT_POOLING_FIRST)
        first = begin == 0 ? 0 : n;
    else if (e->pooling == HT_POOLING_LAST)
        first = last ? n - 1 : n;
    ht_status status;
    do {
        session->n_tokens = begin;
        status = ht_session_feed(session, e->ids + begin, n, first, &session->cancel, error);
        if (!status)
            status = take_rows(e, begin, n, first, error);
    } while (status == HT_ERROR_DEVICE && ht_engine_recover(session->engine));
    return status;
}

/* out [count][rows] = in [count][cols] times the matrix; row: room for one of its rows. */
static void multiply(const ht_matrix *m, const float *in, size_t count, float *row, float *out) {
    for (size_t r = 0; r < m->rows; r++) {
        ht_matrix_floats(m, r, 1, row);
        for (size_t i = 0; i < count; i++) {
            double sum = 0;
            for (size_t c = 0; c < m->cols; c++)
                sum += (double)row[c] * in[i * m->cols + c];
            out[i * m->rows + r] = (float)sum;
        }
    }
}

/* Times `scale`; over its length if so asked. HT_ERROR_FORMAT: it is not made of numbers. */
static ht_status finish(float *vector, size_t width, double scale, bool normalise, ht_error *error) {
    double length = 0;
    for (size_t i = 0; i < width; i++)
        length += (double)vector[i] * vector[i];
    if (!isfinite(length))
        return ht_fail(error, HT_ERROR_FORMAT, "the embedding is not made of numbers: weights are NaN or infinite");
    if (normalise)
        scale = length > 0 ? 1 / sqrt(length) : 0;
    for (size_t i = 0; i < width; i++)
        vector[i] = (float)(vector[i] * scale);
    return HT_OK;
}

/* The matrices behind the pooling: few rows for few vectors, which no device is worth asking for. */
static ht_status apply_dense(const ht_model *model, float *vectors, size_t count, ht_error *error) {
    const ht_matrix *first = &model->dense[0], *last = &model->dense[1];
    const size_t most = ht_max_size(first->cols, last->cols);
    float *row = NULL, *between = NULL;
    ht_status status = ht_alloc((void **)&row, most, sizeof *row, "a row", error);
    if (!status)
        status = ht_alloc((void **)&between, count * first->rows, sizeof *between, "embeddings", error);
    if (!status) {
        multiply(first, vectors, count, row, between);
        multiply(last, between, count, row, vectors);
    }
    free(between);
    free(row);
    return status;
}

static ht_status embed(embedding *e, size_t count, bool normalise, ht_error *error) {
    ht_session *session = e->session;
    const size_t chunk = (size_t)session->engine->info.chunk;
    const float scale = session->engine->model->hidden_scale;
    ht_status status = ht_session_check_cancel(session, error);
    for (size_t begin = 0; begin < e->n && !status; begin += chunk) { /* once, where tokens see later ones */
        ht_lanes_lock(&session->engine->set);
        status = embed_chunk(e, begin, ht_min_size(chunk, e->n - begin), error);
        if (!status)
            ht_engine_adapt(session->engine);
        ht_lanes_unlock(&session->engine->set);
    }
    for (size_t i = 0; e->sums && i < e->width; i++)
        e->vectors[i] = (float)(e->sums[i] / (double)e->n);
    if (!status && session->engine->model->has_dense)
        status = apply_dense(session->engine->model, e->vectors, count, error);
    for (size_t i = 0; i < count && !status; i++)
        status = finish(e->vectors + i * e->width, e->width, scale != 0 ? 1 / (double)scale : 1, normalise, error);
    return status;
}

ht_status ht_session_embed(ht_session *session, const int32_t *ids, size_t n, ht_pooling pooling, bool normalise,
                           float **vectors, size_t *count, ht_error *error) {
    const ht_model *model = session->engine->model;
    embedding e = {
        .session = session, .ids = ids, .n = n, .width = (size_t)model->hparams.embedding, .pooling = pooling};
    if ((unsigned)pooling > HT_POOLING_LAST)
        return ht_fail(error, HT_ERROR_ARGUMENT, "pooling: %d is none", (int)pooling);
    if (pooling == HT_POOLING_DEFAULT)
        e.pooling = model->pooling;
    if (e.pooling == HT_POOLING_DEFAULT)
        return ht_fail(error, HT_ERROR_UNSUPPORTED,
                       "%s: its %s.pooling_type makes no embedding; another can be asked for", model->info.path,
                       model->info.architecture);
    ht_status status = ht_session_check_text(session, ids, n, error);
    const size_t chunk = (size_t)session->engine->info.chunk;
    if (!status && model->both_ways && n > chunk)
        status =
            ht_fail(error, HT_ERROR_CONTEXT,
                    "a text of %zu tokens exceeds a pass of %zu tokens (chunk), and models of family %s take it in one",
                    n, chunk, model->info.architecture);
    const size_t made = e.pooling == HT_POOLING_NONE ? n : 1;
    if (!status)
        status = ht_alloc((void **)&e.vectors, made * e.width, sizeof *e.vectors, "embeddings", error);
    if (!status && e.pooling == HT_POOLING_MEAN)
        status = ht_alloc((void **)&e.sums, e.width, sizeof *e.sums, "a mean", error);
    if (!status)
        status = embed(&e, made, normalise, error);
    free(e.sums);
    if (status) {
        free(e.vectors);
        return status;
    }
    *vectors = e.vectors;
    *count = made;
    return HT_OK;
}
