/* A session in a file: its tokens, what is kept of them, and where a sampler's generator stands. A file comes from
 * anywhere: nothing of it is believed before its sum is right and every size fits the model at hand, and the session
 * stays as it was until then. */
#include "session/session.h"

#include <errno.h>
#include <string.h>

enum { VERSION = 2 };
static const char MAGIC[8] = "htrsess";

/* Numbers as the host has them: a file from a host of another order has another magic version. */
typedef struct header {
    char magic[8];
    uint32_t version, kv_type, precision, n_caches;
    uint64_t model; /* which one it is of */
    uint64_t n_tokens;
    uint64_t has_sampler; /* 0 or 1 */
    ht_sampler_place sampler;
    uint64_t bytes; /* of keys, values and states behind the tokens; 0: there are none, they are to be computed again */
    uint64_t sum;   /* of all that follows, begun with all of this before */
} header;

/* Names, sizes and types of all matrices, and some of their weights: models that are fine-tuned have the same sizes. */
static uint64_t model_of(const ht_model *model) {
    enum { SAMPLE = 64 };
    uint64_t hash = HT_HASH_START;
    for (size_t i = 0; i < model->n_ops; i++)
        for (int p = 0; p < model->ops[i].n_parts; p++) {
            const ht_matrix *m = &model->ops[i].parts[p];
            const uint64_t numbers[] = {m->rows, m->cols, m->row_bytes, (uint64_t)m->type};
            hash = ht_hash(hash, m->name, strlen(m->name));
            hash = ht_hash(hash, numbers, sizeof numbers);
            if (m->data)
                hash = ht_hash(hash, m->data, ht_min_size(SAMPLE, m->row_bytes));
        }
    return hash;
}

static bool each_run(const ht_session *session, size_t n, ht_kv_function call, void *user) {
    return ht_kv_each(&session->engine->set, session->kv, NULL, 0, n, call, user);
}

static bool count(void *data, void *twin, size_t bytes, void *user) {
    *(uint64_t *)user += bytes;
    return true;
}

static bool sum(void *data, void *twin, size_t bytes, void *user) {
    uint64_t *hash = user;
    *hash = ht_hash(*hash, data, bytes);
    return true;
}

/* The same of what the file has in its place. */
typedef struct reading {
    const uint8_t *from;
    uint64_t hash;
} reading;

static bool sum_file(void *data, void *twin, size_t bytes, void *user) {
    reading *r = user;
    r->hash = ht_hash(r->hash, r->from, bytes);
    r->from += bytes;
    return true;
}

static bool put(void *data, void *twin, size_t bytes, void *user) {
    return fwrite(data, 1, bytes, user) == bytes;
}

static bool get(void *data, void *twin, size_t bytes, void *user) {
    const uint8_t **from = user;
    memcpy(data, *from, bytes);
    *from += bytes;
    return true;
}

static header header_of(const ht_session *session, const ht_sampler *sampler, size_t n, bool whole) {
    const ht_engine *engine = session->engine;
    header h = {.version = VERSION,
                .kv_type = (uint32_t)engine->info.kv_type,
                .precision = (uint32_t)engine->info.precision,
                .n_caches = (uint32_t)engine->model->n_caches,
                .model = model_of(engine->model),
                .n_tokens = n,
                .has_sampler = sampler != NULL};
    if (sampler)
        h.sampler = ht_sampler_tell(sampler);
    memcpy(h.magic, MAGIC, sizeof MAGIC);
    if (whole)
        each_run(session, n, count, &h.bytes);
    return h;
}

/* The lanes are locked, nothing is under way. */
static ht_status save(ht_session *session, const ht_sampler *sampler, const char *path, ht_error *error) {
    const ht_engine *engine = session->engine;
    const bool whole = ht_kv_is_hosts(&engine->set) && session->caches_lost == engine->caches_lost &&
                       (!session->recurrent || session->state_tokens == session->n_tokens);
    const size_t n = session->n_tokens;
    ht_output *output;
    header h = header_of(session, sampler, n, whole);
    h.sum = ht_hash(HT_HASH_START, &h, offsetof(header, sum));
    h.sum = ht_hash(h.sum, session->tokens, n * sizeof *session->tokens);
    if (whole)
        each_run(session, n, sum, &h.sum);
    ht_status status = ht_output_open(path, &output, error);
    if (status)
        return status;
    FILE *file = ht_output_file(output);
    errno = 0;
    if (put(&h, NULL, sizeof h, file) && put(session->tokens, NULL, n * sizeof *session->tokens, file) &&
        (!whole || each_run(session, n, put, file)))
        return ht_output_finish(output, error);
    status = ht_fail(error, HT_ERROR_IO, "%s: %s", path, strerror(errno ? errno : EIO));
    ht_output_abandon(output);
    return status;
}

static ht_status check(const ht_session *session, bool wants_sampler, const char *path, const ht_mapping *file,
                       ht_error *error) {
    header h, own;
    if (file->bytes < sizeof h || memcmp(file->data, MAGIC, sizeof MAGIC) != 0)
        return ht_fail(error, HT_ERROR_FORMAT, "%s: not a saved session", path);
    memcpy(&h, file->data, sizeof h);
    if (h.version != VERSION)
        return ht_fail(error, HT_ERROR_UNSUPPORTED, "%s: version %u of saved sessions, %d is known", path, h.version,
                       VERSION);
    own = header_of(session, NULL, 0, false);
    if (h.model != own.model || h.n_caches != own.n_caches)
        return ht_fail(error, HT_ERROR_ARGUMENT, "%s: a session of another model", path);
    if (h.kv_type != own.kv_type || h.precision != own.precision)
        return ht_fail(error, HT_ERROR_ARGUMENT, "%s: a session of another %s", path,
                       h.kv_type != own.kv_type ? "type of KV cache" : "precision");
    if (wants_sampler && !h.has_sampler)
        return ht_fail(error, HT_ERROR_ARGUMENT, "%s: was saved without a sampler", path);
    if (h.n_tokens > ht_session_context(session))
        return ht_fail(error, HT_ERROR_CONTEXT, "%s: %llu tokens exceed the context of %zu tokens", path,
                       (unsigned long long)h.n_tokens, ht_session_context(session));
    own = header_of(session, NULL, (size_t)h.n_tokens, h.bytes != 0);
    const uint64_t bytes = sizeof h + h.n_tokens * sizeof *session->tokens + own.bytes;
    if (h.bytes != own.bytes || file->bytes != bytes)
        return ht_fail(error, HT_ERROR_FORMAT, "%s: damaged: %zu bytes, not %llu", path, file->bytes,
                       (unsigned long long)bytes);
    reading r = {.from = file->data + sizeof h, .hash = ht_hash(HT_HASH_START, &h, offsetof(header, sum))};
    sum_file(NULL, NULL, (size_t)h.n_tokens * sizeof *session->tokens, &r);
    if (h.bytes)
        each_run(session, (size_t)h.n_tokens, sum_file, &r);
    if (r.hash != h.sum)
        return ht_fail(error, HT_ERROR_FORMAT, "%s: damaged: its sum is wrong", path);
    for (size_t i = 0; i < h.n_tokens; i++) {
        int32_t id;
        memcpy(&id, file->data + sizeof h + i * sizeof id, sizeof id);
        if (id < 0 || (size_t)id >= ht_session_vocabulary(session))
            return ht_fail(error, HT_ERROR_FORMAT, "%s: token %d is outside the vocabulary", path, (int)id);
    }
    return HT_OK;
}

static void load(ht_session *session, ht_sampler *sampler, const ht_mapping *file) {
    header h;
    memcpy(&h, file->data, sizeof h);
    const size_t n = (size_t)h.n_tokens;
    const uint8_t *from = file->data + sizeof h;
    memcpy(session->tokens, from, n * sizeof *session->tokens);
    from += n * sizeof *session->tokens;
    session->n_tokens = n;
    if (sampler)
        ht_sampler_seek(sampler, &h.sampler);
    if (h.bytes && ht_kv_is_hosts(&session->engine->set)) {
        each_run(session, n, get, &from);
        session->caches_lost = session->engine->caches_lost;
        session->state_tokens = n;
    } else { /* computed again by whoever asks next */
        session->caches_lost = session->engine->caches_lost - 1;
        session->state_tokens = HT_NO_STATE;
    }
}

ht_status ht_session_save(ht_session *session, const ht_sampler *sampler, const char *path, ht_error *error) {
    ht_lanes_lock(&session->engine->set);
    ht_status status = ht_engine_settle(session->engine, error);
    if (!status)
        status = save(session, sampler, path, error);
    ht_lanes_unlock(&session->engine->set);
    return status;
}

ht_status ht_session_load(ht_session *session, ht_sampler *sampler, const char *path, ht_error *error) {
    ht_mapping file;
    ht_status status = ht_mapping_open(path, &file, error);
    if (status)
        return status;
    ht_lanes_lock(&session->engine->set);
    status = ht_engine_settle(session->engine, error);
    if (!status)
        status = check(session, sampler != NULL, path, &file, error);
    if (!status)
        load(session, sampler, &file);
    ht_lanes_unlock(&session->engine->set);
    ht_mapping_close(&file);
    return status;
}
