/* Copies of recurrent states. A state stands for all tokens that it has seen and cannot be cut back: what is kept here
 * is where a session can go back to. A copy is found by the tokens that it stands for, so nobody has to say when it is
 * out of date. */
#include "session/session.h"

#include <string.h>

static bool count(void *data, void *twin, size_t bytes, void *user) {
    *(size_t *)user += bytes;
    return true;
}

static bool save(void *data, void *twin, size_t bytes, void *user) {
    uint8_t **to = user;
    if (bytes)
        memcpy(*to, data, bytes);
    *to += bytes;
    return true;
}

static bool restore(void *data, void *twin, size_t bytes, void *user) {
    const uint8_t **from = user;
    if (bytes)
        memcpy(data, *from, bytes);
    *from += bytes;
    return true;
}

/* No tokens: states are all that there is. */
static void each_state(const ht_session *session, ht_kv_function call, void *user) {
    ht_kv_each(&session->engine->set, session->kv, NULL, 0, 0, call, user);
}

static uint64_t hash_of(const int32_t *ids, size_t n) {
    return ht_hash(HT_HASH_START, ids, n * sizeof *ids);
}

ht_status ht_snapshots_create(ht_session *session, ht_error *error) {
    size_t bytes = 0;
    if (!session->recurrent || !ht_kv_is_hosts(&session->engine->set))
        return HT_OK;
    each_state(session, count, &bytes);
    for (size_t i = 0; i < HT_SNAPSHOTS; i++) {
        session->snapshots[i].data = ht_pages_alloc(bytes);
        if (!session->snapshots[i].data)
            return ht_fail(error, HT_ERROR_MEMORY, "no memory for copies of states of %zu MiB", bytes >> 20);
    }
    session->snapshot_bytes = bytes;
    return HT_OK;
}

void ht_snapshots_destroy(ht_session *session) {
    for (size_t i = 0; i < HT_SNAPSHOTS; i++)
        if (session->snapshots[i].data)
            ht_pages_free(session->snapshots[i].data, session->snapshot_bytes);
}

static void keep(ht_session *session) {
    ht_snapshot *to = &session->snapshots[0];
    for (size_t i = 0; i < HT_SNAPSHOTS; i++) {
        ht_snapshot *s = &session->snapshots[i];
        if (s->tokens == session->n_tokens) {
            to = s;
            break;
        }
        if (s->used < to->used)
            to = s;
    }
    uint8_t *data = to->data;
    each_state(session, save, &data);
    to->tokens = session->n_tokens;
    to->hash = hash_of(session->tokens, session->n_tokens);
    to->used = ++session->snapshot_clock;
}

void ht_session_passed(ht_session *session, size_t before, bool last) {
    const bool far = session->n_tokens / HT_SNAPSHOT_TOKENS > before / HT_SNAPSHOT_TOKENS;
    if (!session->snapshot_bytes || !(last || far) || session->state_tokens != session->n_tokens)
        return;
    if (ht_engine_settle(session->engine, NULL) == HT_OK) /* or there is no copy, and nothing else is wrong */
        keep(session);
}

/* The one that stands for the most of ids[0..most). */
static ht_snapshot *find(ht_session *session, const int32_t *ids, size_t most) {
    ht_snapshot *found = NULL;
    for (size_t i = 0; i < HT_SNAPSHOTS; i++) {
        ht_snapshot *s = &session->snapshots[i];
        if (s->tokens && s->tokens <= most && (!found || s->tokens > found->tokens) &&
            s->hash == hash_of(ids, s->tokens))
            found = s;
    }
    return found;
}

size_t ht_session_reusable(ht_session *session, size_t common) {
    if (!session->recurrent || session->state_tokens == common)
        return common;
    const size_t own = session->state_tokens < common ? session->state_tokens : 0; /* HT_NO_STATE is more than any */
    const ht_snapshot *s = find(session, session->tokens, common);
    return s && s->tokens > own ? s->tokens : own;
}

void ht_session_go_back(ht_session *session, ht_session *from, size_t n) {
    if (session->recurrent && from->state_tokens != n && n) {
        ht_snapshot *s = find(from, from->tokens, n);
        const uint8_t *data = s->data;
        each_state(session, restore, &data);
        s->used = ++from->snapshot_clock;
    }
    session->n_tokens = n;
    session->state_tokens = n;
}
