/* A fake engine and a fake tokenizer for tests of sessions, generation and measuring.
 *
 * Defines the functions of lane.h, pass.h, engine.h and text.h that src/session calls, so the linker takes none of
 * the real ones from the library. The fake model's logits are a hash of the whole token history, carried from position to
 * position in the KV cache: a token fed at a wrong position, or a reused cache that is stale, changes every logit after
 * it. A script can make chosen tokens win. */
#ifndef HT_UNIT_FAKE_ENGINE_H
#define HT_UNIT_FAKE_ENGINE_H

#include "engine/engine.h"
#include "session/session.h"

#include "base/base.h"

#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { VOCABULARY = 64, CONTEXT = 48, CHUNK = 4, MOST_CHUNK = 512 };
enum { END = 0, BOS = 1, CONTROL = 56 }; /* END, BOS and ids from CONTROL on are control tokens */

/* ---- the fake tokenizer ------------------------------------------------------------------------------------------ */

struct ht_tokenizer {
    int bos;
};

static const char *const PIECES[VOCABULARY] = {
    [2] = "a",
    [3] = "b",
    [4] = "c",
    [5] = "END",
    [6] = "EN",
    [7] = "D",
    [8] = "\xF0\x9F",
    [9] = "\x98\x80",
    [10] = "\xC3",
    [11] = "x\nUs",
    [12] = "er:",
    [13] = "E",
    [14] = "one END two STOP",
    [15] = "\xFF",
};

const char *ht_tokenizer_text(const ht_tokenizer *tokenizer, int32_t id, bool special, size_t *bytes) {
    assert_non_null(tokenizer);
    if (id < 0 || id >= VOCABULARY)
        return NULL;
    const char *text = id <= BOS || id >= CONTROL ? "" : PIECES[id] != NULL ? PIECES[id] : ".";
    *bytes = strlen(text);
    return text;
}
int32_t ht_tokenizer_special(const ht_tokenizer *tokenizer, const char *text) {
    return strcmp(text, "<control>") == 0 ? CONTROL : -1;
}
bool ht_tokenizer_ends(const ht_tokenizer *tokenizer, int32_t id) {
    return id == END;
}
int ht_tokenizer_bos(const ht_tokenizer *tokenizer) {
    return tokenizer->bos;
}

/* One token a byte. */
ht_status ht_tokenizer_encode(const ht_tokenizer *tokenizer, const char *text, size_t bytes, unsigned flags,
                              int32_t **ids, size_t *n, ht_error *error) {
    assert_int_equal(flags, 0);
    ht_status status = ht_alloc((void **)ids, bytes, sizeof **ids, "ids", error);
    if (status != HT_OK)
        return status;
    for (size_t i = 0; i < bytes; i++)
        (*ids)[i] = (uint8_t)text[i] % VOCABULARY;
    *n = bytes;
    return HT_OK;
}

/* ---- the fake engine --------------------------------------------------------------------------------------------- */

typedef struct fake {
    ht_engine engine; /* first: an ht_engine * is a fake * */
    ht_model model;
    ht_tokenizer tokenizer;
    double noise;                /* added to logits: another precision of the same model */
    uint64_t states[MOST_CHUNK]; /* of the newest forward */
    float logits[HT_HEAD_TOKENS * VOCABULARY];
    bool held;
    int forwards, fail_at; /* the fail_at-th forward from now fails */
    int cancel_at;         /* in the cancel_at-th forward from now, cancel_session is cancelled */
    ht_session *cancel_session;
    bool wait_for_cancel;
    atomic_bool waiting;
    size_t tokens_computed, heads;
    int32_t fed[4096]; /* every token computed */
    /* What wins once there are script_from tokens: script[0], then script[1], ... */
    const int32_t *script;
    size_t script_from, n_script;
    size_t positions[MOST_CHUNK];
} fake;

static uint64_t mix(uint64_t x, uint64_t y) {
    x = (x ^ y) * 0x9E3779B97F4A7C15u;
    return x ^ (x >> 29);
}

/* Logit of token id where the history hashes to `state` and n tokens have been seen. */
static float fake_logit(const fake *f, uint64_t state, size_t n, int32_t id) {
    const uint64_t bits = mix(mix(state, (uint64_t)id + 1), 77);
    double logit = (double)(bits >> 40) / (1 << 24) * 8 - 4;
    logit += f->noise * ((double)(mix(bits, 5) >> 40) / (1 << 24) - 0.5);
    if (f->script != NULL && n >= f->script_from && n - f->script_from < f->n_script &&
        f->script[n - f->script_from] == id)
        logit += 100;
    return (float)logit;
}

/* Logits of token i of ids, by the definition: all of the history. */
static void oracle(const fake *f, const int32_t *ids, size_t n, float *logits) {
    uint64_t state = 1;
    for (size_t i = 0; i < n; i++)
        state = mix(state, (uint64_t)ids[i] + 1);
    for (int32_t id = 0; id < VOCABULARY; id++)
        logits[id] = fake_logit(f, state, n, id);
}

static inline double oracle_logprob(const fake *f, const int32_t *ids, size_t n, int32_t next) {
    float logits[VOCABULARY];
    oracle(f, ids, n, logits);
    double sum = 0;
    for (int i = 0; i < VOCABULARY; i++)
        sum += exp(logits[i]);
    return logits[next] - log(sum);
}

static inline int32_t oracle_best(const fake *f, const int32_t *ids, size_t n) {
    float logits[VOCABULARY];
    oracle(f, ids, n, logits);
    int32_t best = 0;
    for (int32_t i = 1; i < VOCABULARY; i++)
        if (logits[i] > logits[best])
            best = i;
    return best;
}

static fake *fake_of(ht_lanes *set) {
    return (fake *)((char *)set - offsetof(fake, engine.set));
}

/* One layer whose keys hold a 64-bit state a position. */
ht_status ht_kv_create(ht_lanes *set, ht_kv_layer **kv, ht_error *error) {
    ht_status status = ht_alloc((void **)kv, 1, sizeof **kv, "kv", error);
    if (status != HT_OK)
        return status;
    (*kv)->positions = set->context;
    return ht_alloc((void **)&(*kv)->keys, (*kv)->positions, sizeof(uint64_t), "kv", error);
}

void ht_kv_destroy(ht_lanes *set, ht_kv_layer *kv) {
    free(kv->keys);
    free(kv);
}

bool ht_kv_is_hosts(const ht_lanes *set) {
    return true;
}

bool ht_kv_each(const ht_lanes *set, const ht_kv_layer *kv, const ht_kv_layer *twin, size_t from, size_t to,
                ht_kv_function call, void *user) {
    return true; /* no states that are not a position's */
}

void ht_kv_copy(const ht_lanes *set, ht_kv_layer *to, const ht_kv_layer *from, size_t n) {
    memcpy(to->keys, from->keys, n * sizeof(uint64_t));
}

bool ht_kv_drop(const ht_lanes *set, ht_kv_layer *kv, size_t n) {
    memset((uint64_t *)kv->keys + n, 0, (kv->positions - n) * sizeof(uint64_t));
    return true;
}

ht_status ht_lanes_join(ht_lanes *set, ht_sync sync, ht_error *error) {
    return HT_OK;
}

void ht_lanes_lock(ht_lanes *set) {
    fake *f = fake_of(set);
    assert_false(f->held);
    f->held = true;
}

void ht_lanes_unlock(ht_lanes *set) {
    fake *f = fake_of(set);
    assert_true(f->held);
    f->held = false;
}

/* One segment's tokens, the first of them number `first` of the pass. */
static void fake_segment(fake *f, const ht_segment *segment, size_t first) {
    uint64_t *states = (uint64_t *)(void *)segment->kv->keys;
    for (size_t i = 0; i < segment->n; i++) {
        assert_in_range(segment->ids[i], 0, VOCABULARY - 1);
        const size_t p = segment->position + i;
        states[p] = mix(p > 0 ? states[p - 1] : 1, (uint64_t)segment->ids[i] + 1);
        f->states[first + i] = states[p];
        f->positions[first + i] = p;
        if (f->tokens_computed < HT_COUNT(f->fed))
            f->fed[f->tokens_computed] = segment->ids[i];
        f->tokens_computed++;
    }
}

ht_status ht_passes_forward(ht_passes *passes, const ht_segment *segments, size_t n_segments, size_t first,
                            const atomic_bool *cancel, ht_error *error) {
    fake *f = fake_of(passes->set);
    size_t n = 0;
    assert_true(f->held);
    for (size_t i = 0; i < n_segments; i++) {
        n += segments[i].n;
        assert_true(segments[i].n > 0 && segments[i].position + segments[i].n <= passes->set->context);
    }
    assert_in_range(first, 0, n);
    assert_in_range(n, 1, passes->set->chunk);
    f->forwards++;
    if (f->fail_at > 0 && --f->fail_at == 0)
        return ht_fail(error, HT_ERROR_DEVICE, "made up");
    if (f->cancel_at > 0 && --f->cancel_at == 0)
        ht_session_cancel(f->cancel_session);
    if (f->wait_for_cancel) {
        atomic_store(&f->waiting, true);
        for (int i = 0; i < 5000 && !atomic_load(cancel); i++)
            usleep(1000);
    }
    if (cancel && atomic_load(cancel))
        return ht_fail(error, HT_ERROR_CANCELLED, "cancelled");
    for (size_t i = 0, at = 0; i < n_segments; at += segments[i++].n)
        fake_segment(f, &segments[i], at);
    passes->first_token = first;
    passes->last_tokens = n;
    return HT_OK;
}

ht_status ht_passes_head(ht_passes *passes, size_t first, size_t count, const float **logits, ht_error *error) {
    fake *f = fake_of(passes->set);
    assert_true(f->held);
    assert_in_range(count, 1, HT_HEAD_TOKENS);
    assert_true(first >= passes->first_token && first + count <= passes->last_tokens);
    f->heads += count;
    for (size_t i = 0; i < count; i++)
        for (int32_t id = 0; id < VOCABULARY; id++)
            f->logits[i * VOCABULARY + (size_t)id] =
                fake_logit(f, f->states[first + i], f->positions[first + i] + 1, id);
    *logits = f->logits;
    return HT_OK;
}

ht_status ht_passes_pick(ht_passes *passes, size_t token, int32_t *id, ht_error *error) {
    fake *f = fake_of(passes->set);
    assert_true(f->held);
    assert_true(token >= passes->first_token && token < passes->last_tokens);
    f->heads++;
    *id = 0;
    for (int32_t i = 1; i < VOCABULARY; i++)
        if (fake_logit(f, f->states[token], f->positions[token] + 1, i) >
            fake_logit(f, f->states[token], f->positions[token] + 1, *id))
            *id = i;
    return HT_OK;
}

/* The fake engine has nothing to go on without. */
void ht_engine_adapt(ht_engine *engine) {
    (void)engine;
}

ht_status ht_engine_settle(ht_engine *engine, ht_error *error) {
    return HT_OK;
}

bool ht_engine_recover(ht_engine *engine) {
    assert_true(((fake *)engine)->held);
    return false;
}

static inline fake *fake_create(int context, int chunk) {
    fake *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->tokenizer.bos = BOS;
    f->model.tokenizer = &f->tokenizer;
    f->model.hparams.vocabulary = VOCABULARY;
    f->engine.model = &f->model;
    f->engine.info.context = context;
    f->engine.info.chunk = chunk;
    f->engine.set.context = (size_t)context;
    f->engine.set.chunk = (size_t)chunk;
    f->engine.passes.set = &f->engine.set;
    return f;
}

/* Every test starts from a fresh engine and session. */
typedef struct fixture {
    fake *f;
    ht_session *session;
} fixture;

static inline int set_up(void **state) {
    fixture *x = calloc(1, sizeof *x);
    x->f = fake_create(CONTEXT, CHUNK);
    ht_error error = {0};
    if (ht_session_create(&x->f->engine, &x->session, &error) != HT_OK)
        fail_msg("%s", error.text);
    x->f->cancel_session = x->session;
    *state = x;
    return 0;
}

static inline int tear_down(void **state) {
    fixture *x = *state;
    ht_session_destroy(x->session);
    free(x->f);
    free(x);
    return 0;
}

static const int32_t PROMPT[] = {9, 8, 7, 6, 5, 4, 3, 2, 30, 31};
enum { N_PROMPT = HT_COUNT(PROMPT) };

static inline void check_logits(const fake *f, const float *logits, const int32_t *ids, size_t n) {
    float expected[VOCABULARY];
    oracle(f, ids, n, expected);
    assert_memory_equal(logits, expected, sizeof expected);
}

static inline void check_tokens(const ht_session *session, const int32_t *ids, size_t n) {
    size_t held;
    const int32_t *tokens = ht_session_tokens(session, &held);
    assert_int_equal(held, n);
    if (n > 0)
        assert_memory_equal(tokens, ids, n * sizeof *ids);
}

#endif
