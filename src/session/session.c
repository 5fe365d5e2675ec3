/* A session: the tokens seen so far, their keys and values, and the logits that follow them. */
#include "session/session.h"

#include "base/base.h"

#include <stdlib.h>
#include <string.h>

/* ht_session_cancel may be called by a signal handler: the flag must not hide a lock. */
_Static_assert(ATOMIC_BOOL_LOCK_FREE == 2, "atomic_bool takes a lock on this platform");

size_t ht_session_vocabulary(const ht_session *session) {
    return (size_t)session->engine->model->hparams.vocabulary;
}

size_t ht_session_context(const ht_session *session) {
    return (size_t)session->engine->info.context;
}

ht_status ht_session_create(ht_engine *engine, ht_session **session, ht_error *error) {
    ht_session *made = NULL;
    ht_status status = ht_alloc((void **)&made, 1, sizeof *made, "session", error);
    if (status != HT_OK)
        return status;
    made->engine = engine;
    made->recurrent = ht_model_has_state(engine->model);
    atomic_init(&made->cancel, false);
    const size_t context = ht_session_context(made), vocabulary = ht_session_vocabulary(made);
    status = ht_alloc((void **)&made->tokens, context, sizeof *made->tokens, "session's tokens", error);
    if (status == HT_OK)
        status = ht_alloc((void **)&made->logits, vocabulary, sizeof *made->logits, "session's logits", error);
    if (status == HT_OK)
        status = ht_kv_create(&engine->set, &made->kv, error);
    if (status == HT_OK)
        status = ht_snapshots_create(made, error);
    if (status != HT_OK) {
        ht_session_destroy(made);
        return status;
    }
    *session = made;
    return HT_OK;
}

void ht_session_destroy(ht_session *session) {
    if (session == NULL)
        return;
    ht_snapshots_destroy(session);
    if (session->kv != NULL)
        ht_kv_destroy(&session->engine->set, session->kv);
    free(session->logits);
    free(session->tokens);
    free(session);
}

const int32_t *ht_session_tokens(const ht_session *session, size_t *n) {
    *n = session->n_tokens;
    return session->tokens;
}

void ht_session_cancel(ht_session *session) {
    atomic_store(&session->cancel, true);
}

bool ht_session_take_cancel(ht_session *session) {
    /* The plain load first: an exchange would dirty the cache line at every token. */
    return atomic_load_explicit(&session->cancel, memory_order_relaxed) && atomic_exchange(&session->cancel, false);
}

ht_status ht_session_check_cancel(ht_session *session, ht_error *error) {
    if (ht_session_take_cancel(session))
        return ht_fail(error, HT_ERROR_CANCELLED, "cancelled");
    return HT_OK;
}

ht_status ht_session_check_ids(const ht_session *session, const int32_t *ids, size_t n, ht_error *error) {
    const size_t vocabulary = ht_session_vocabulary(session);
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || (size_t)ids[i] >= vocabulary)
            return ht_fail(error, HT_ERROR_ARGUMENT, "ids[%zu]: token %d is outside the vocabulary of %zu", i,
                           (int)ids[i], vocabulary);
    return HT_OK;
}

ht_status ht_session_check_writes(const ht_session *session, ht_error *error) {
    const ht_model *model = session->engine->model;
    if (model->both_ways)
        return ht_fail(error, HT_ERROR_UNSUPPORTED,
                       "%s: models of family %s make embeddings (ht_session_embed) and no text", model->info.path,
                       model->info.architecture);
    return HT_OK;
}

ht_status ht_session_check_text(const ht_session *session, const int32_t *ids, size_t n, ht_error *error) {
    const size_t context = ht_session_context(session);
    if (n == 0)
        return ht_fail(error, HT_ERROR_ARGUMENT, "empty prompt: there is no token to compute");
    if (n > context)
        return ht_fail(error, HT_ERROR_CONTEXT, "prompt of %zu tokens exceeds the context of %zu tokens", n, context);
    return ht_session_check_ids(session, ids, n, error);
}

ht_status ht_session_check_prompt(const ht_session *session, const int32_t *ids, size_t n, ht_error *error) {
    ht_status status = ht_session_check_writes(session, error);
    return status ? status : ht_session_check_text(session, ids, n, error);
}

/* Keys, values and states of the session's tokens anew: where a device took them along when it failed, or where the states
 * stand for other tokens. */
static ht_status restore_cache(ht_session *session, const atomic_bool *cancel, ht_error *error) {
    ht_engine *engine = session->engine;
    const size_t chunk = (size_t)engine->info.chunk;
    const unsigned lost = engine->caches_lost;
    ht_status status = HT_OK;
    if (session->caches_lost == lost && (!session->recurrent || session->state_tokens == session->n_tokens))
        return HT_OK;
    session->state_tokens = HT_NO_STATE;
    for (size_t begin = 0; begin < session->n_tokens && !status; begin += chunk) {
        const size_t n = ht_min_size(chunk, session->n_tokens - begin);
        const ht_segment piece = {.kv = session->kv, .ids = session->tokens + begin, .n = n, .position = begin};
        status = ht_passes_forward(&engine->passes, &piece, 1, n, cancel, error);
    }
    if (status)
        return status;
    session->caches_lost = lost;
    session->state_tokens = session->n_tokens;
    return HT_OK;
}

/* The parts behind their sessions' tokens, in one pass. A device that fails is done without; keys and values that it
 * alone had are computed again. */
static ht_status run_parts(const ht_session_part *parts, size_t n_parts, size_t first, atomic_bool *cancel,
                           ht_error *error) {
    ht_engine *engine = parts[0].session->engine;
    ht_segment segments[HT_MAX_SEQUENCES];
    ht_status status;
    do {
        status = HT_OK;
        for (size_t i = 0; i < n_parts && !status; i++) {
            ht_session *session = parts[i].session;
            status = restore_cache(session, cancel, error);
            segments[i] = (ht_segment){session->kv, parts[i].ids, parts[i].n, session->n_tokens};
        }
        for (size_t i = 0; i < n_parts && !status; i++)
            parts[i].session->state_tokens = HT_NO_STATE; /* until the pass is whole */
        if (!status)
            status = ht_passes_forward(&engine->passes, segments, n_parts, first, cancel, error);
    } while (status == HT_ERROR_DEVICE && ht_engine_recover(engine));
    return status;
}

ht_status ht_session_feed_parts(const ht_session_part *parts, size_t n_parts, size_t first, atomic_bool *cancel,
                                ht_error *error) {
    ht_status status = run_parts(parts, n_parts, first, cancel, error);
    if (status == HT_ERROR_CANCELLED)
        atomic_store(cancel, false);
    for (size_t i = 0; i < n_parts && !status; i++) {
        ht_session *session = parts[i].session;
        /* ids may be the session's own array: the prompt of a repeated prefill. */
        memmove(session->tokens + session->n_tokens, parts[i].ids, parts[i].n * sizeof *parts[i].ids);
        session->n_tokens += parts[i].n;
        session->state_tokens = session->n_tokens;
    }
    return status;
}

ht_status ht_session_feed(ht_session *session, const int32_t *ids, size_t n, size_t first, atomic_bool *cancel,
                          ht_error *error) {
    const ht_session_part all = {session, ids, n};
    return ht_session_feed_parts(&all, 1, first, cancel, error);
}

/* What is to follow a pass: nothing, logits in session->logits, or the id of the largest. */
typedef enum wanted { NOTHING, LOGITS, PICK } wanted;

/* One pass. The engine is taken for this pass only, so that sessions take turns chunk by chunk and a long prompt does not
 * make the others' tokens wait for all of it. */
static ht_status run_pass(ht_session *session, const int32_t *ids, size_t n, wanted what, int32_t *pick,
                          ht_error *error) {
    ht_status status = ht_session_check_cancel(session, error);
    if (status != HT_OK)
        return status;
    const float *logits = NULL;
    ht_lanes_lock(&session->engine->set);
    const size_t before = session->n_tokens;
    do {
        session->n_tokens = before;
        status = ht_session_feed(session, ids, n, what == NOTHING ? n : n - 1, &session->cancel, error);
        if (status == HT_OK && what == LOGITS)
            status = ht_passes_head(&session->engine->passes, n - 1, 1, &logits, error);
        if (status == HT_OK && what == LOGITS)
            memcpy(session->logits, logits, ht_session_vocabulary(session) * sizeof *session->logits);
        if (status == HT_OK && what == PICK)
            status = ht_passes_pick(&session->engine->passes, n - 1, pick, error);
    } while (status == HT_ERROR_DEVICE && ht_engine_recover(session->engine));
    if (status == HT_OK && n > 1)
        ht_session_passed(session, before, what != NOTHING);
    if (status == HT_OK)
        ht_engine_adapt(session->engine);
    ht_lanes_unlock(&session->engine->set);
    if (status == HT_OK && what == LOGITS)
        status = ht_session_check_logits(session, session->logits, session->n_tokens - 1, error);
    if (status == HT_OK && what == PICK && *pick < 0)
        status = ht_session_no_numbers(session, session->n_tokens - 1, error);
    if (status != HT_OK)
        session->n_tokens = before;
    return status;
}

/* The session keeps its first *prefix tokens, or as many of these as there is a state of. */
static ht_status go_back(ht_session *session, size_t *prefix, ht_error *error) {
    ht_status status = HT_OK;
    *prefix = ht_session_reusable(session, *prefix);
    if (!session->recurrent || session->state_tokens == *prefix) {
        session->n_tokens = *prefix;
        return HT_OK;
    }
    ht_lanes_lock(&session->engine->set);
    status = ht_engine_settle(session->engine, error);
    if (status == HT_OK)
        ht_session_go_back(session, session, *prefix);
    ht_lanes_unlock(&session->engine->set);
    return status;
}

static ht_status prefill(ht_session *session, const int32_t *ids, size_t n, wanted what, int32_t *pick, size_t *reused,
                         ht_error *error) {
    ht_status status = ht_session_check_prompt(session, ids, n, error);
    if (status == HT_OK)
        status = ht_session_check_cancel(session, error);
    if (status != HT_OK)
        return status;

    size_t prefix = 0;
    const size_t common = ht_min_size(n - 1, session->n_tokens); /* the last token is computed again for its logits */
    while (prefix < common && session->tokens[prefix] == ids[prefix])
        prefix++;
    status = go_back(session, &prefix, error);
    if (status != HT_OK)
        return status;

    const size_t chunk = (size_t)session->engine->info.chunk;
    for (size_t begin = prefix; begin < n; begin += chunk) {
        const size_t count = ht_min_size(chunk, n - begin);
        status = run_pass(session, ids + begin, count, begin + count == n ? what : NOTHING, pick, error);
        if (status != HT_OK)
            return status;
    }
    if (reused != NULL)
        *reused = prefix;
    return HT_OK;
}

ht_status ht_session_prefill(ht_session *session, const int32_t *ids, size_t n, const float **logits, size_t *reused,
                             ht_error *error) {
    ht_status status = prefill(session, ids, n, LOGITS, NULL, reused, error);
    if (status == HT_OK && logits != NULL)
        *logits = session->logits;
    return status;
}

ht_status ht_session_prefill_greedy(ht_session *session, const int32_t *ids, size_t n, int32_t *next, size_t *reused,
                                    ht_error *error) {
    return prefill(session, ids, n, PICK, next, reused, error);
}

static ht_status decode(ht_session *session, int32_t id, wanted what, int32_t *pick, ht_error *error) {
    const size_t context = ht_session_context(session);
    ht_status status = ht_session_check_writes(session, error);
    if (status == HT_OK && session->n_tokens >= context)
        status = ht_fail(error, HT_ERROR_CONTEXT, "the context of %zu tokens is full", context);
    if (status == HT_OK)
        status = ht_session_check_ids(session, &id, 1, error);
    if (status == HT_OK)
        status = run_pass(session, &id, 1, what, pick, error);
    return status;
}

ht_status ht_session_decode(ht_session *session, int32_t id, const float **logits, ht_error *error) {
    ht_status status = decode(session, id, LOGITS, NULL, error);
    if (status == HT_OK && logits != NULL)
        *logits = session->logits;
    return status;
}

ht_status ht_session_decode_greedy(ht_session *session, int32_t id, int32_t *next, ht_error *error) {
    return decode(session, id, PICK, next, error);
}
