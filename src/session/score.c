/* Measuring a model: log-probabilities of given tokens, perplexity and divergence. */
#include "session/session.h"

#include "base/base.h"

#include <math.h>
#include <stdlib.h>

/* ---- teacher forcing -------------------------------------------------------------------------------------------- */

/* logits[i]: [vocabulary], of sessions[i], what follows token `position`. False: no more of them. */
typedef bool (*position_function)(size_t position, const float *const *logits, void *user);

/* A text fed to one session, or to two side by side (the second one, on an engine of its own, is the yardstick). */
typedef struct walk {
    ht_session *sessions[2];
    size_t n_sessions, chunk;
    position_function visit;
    void *user;
} walk;

/* Logits of tokens [first, first + count) of the chunk ids[0..n) that session number s was just fed. A device that fails in
 * the head is done without: the chunk is computed again by the others. */
static ht_status walk_head(const walk *w, size_t s, const int32_t *ids, size_t n, size_t first, size_t count,
                           const float **logits, ht_error *error) {
    ht_session *session = w->sessions[s];
    ht_status status = ht_passes_head(&session->engine->passes, first, count, logits, error);
    while (status == HT_ERROR_DEVICE && ht_engine_recover(session->engine)) {
        session->n_tokens -= n;
        status = ht_session_feed(session, ids, n, first, &w->sessions[0]->cancel, error);
        if (status == HT_OK)
            status = ht_passes_head(&session->engine->passes, first, count, logits, error);
    }
    return status;
}

/* Feeds ids[begin..begin+n), one chunk, and visits those of its positions that lie in [first, last). Logits are asked
 * for in blocks and read where the engine has them: a whole chunk's would be half a gigabyte for Gemma's vocabulary. */
static ht_status walk_chunk(const walk *w, const int32_t *ids, size_t begin, size_t n, size_t first, size_t last,
                            ht_error *error) {
    const size_t wanted = first > begin ? ht_min_size(first - begin, n) : 0;
    ht_status status = ht_session_check_cancel(w->sessions[0], error);
    for (size_t s = 0; s < w->n_sessions && status == HT_OK; s++)
        status = ht_session_feed(w->sessions[s], ids + begin, n, wanted, &w->sessions[0]->cancel, error);
    const size_t end = ht_min_size(begin + n, last);
    for (size_t block = ht_max_size(begin, first); block < end && status == HT_OK; block += HT_HEAD_TOKENS) {
        const float *logits[2] = {NULL, NULL};
        const size_t count = ht_min_size(HT_HEAD_TOKENS, end - block);
        for (size_t s = 0; s < w->n_sessions && status == HT_OK; s++)
            status = walk_head(w, s, ids + begin, n, block - begin, count, &logits[s], error);
        for (size_t i = 0; i < count && status == HT_OK; i++) {
            for (size_t s = 0; s < w->n_sessions && status == HT_OK; s++)
                status = ht_session_check_logits(w->sessions[s], logits[s], block + i, error);
            if (status != HT_OK)
                break;
            if (!w->visit(block + i, logits, w->user)) {
                status = ht_fail(error, HT_ERROR_CANCELLED, "stopped by the caller");
                break;
            }
            for (size_t s = 0; s < w->n_sessions; s++)
                logits[s] += ht_session_vocabulary(w->sessions[s]);
        }
    }
    return status;
}

/* Replaces the sessions' tokens by ids[0..n) and visits positions [first, last) in order. */
static ht_status walk_tokens(const walk *w, const int32_t *ids, size_t n, size_t first, size_t last, ht_error *error) {
    ht_engine *engines[2] = {w->sessions[0]->engine, w->n_sessions > 1 ? w->sessions[1]->engine : NULL};
    if (engines[1] != NULL && (uintptr_t)engines[1] < (uintptr_t)engines[0]) {
        /* Both are held at once: everyone takes them in the same order, or two walks could wait for each other. */
        ht_engine *lower = engines[1];
        engines[1] = engines[0];
        engines[0] = lower;
    }
    for (size_t s = 0; s < w->n_sessions; s++)
        w->sessions[s]->n_tokens = 0;
    ht_status status = HT_OK;
    for (size_t begin = 0; begin < n && status == HT_OK; begin += w->chunk) {
        for (size_t s = 0; s < w->n_sessions; s++)
            ht_lanes_lock(&engines[s]->set);
        status = walk_chunk(w, ids, begin, ht_min_size(w->chunk, n - begin), first, last, error);
        for (size_t s = w->n_sessions; s-- > 0;)
            ht_lanes_unlock(&engines[s]->set);
    }
    return status;
}

typedef struct scoring {
    const int32_t *ids;
    size_t n, vocabulary, n_top;
    float *logprobs;
    ht_token_logprob *top;
} scoring;

static bool score_position(size_t position, const float *const *logits, void *user) {
    const scoring *s = user;
    if (position + 1 < s->n) {
        const double log_sum = ht_log_sum_exp(logits[0], s->vocabulary);
        s->logprobs[position + 1] = (float)(logits[0][s->ids[position + 1]] - log_sum);
    }
    if (s->n_top > 0)
        ht_top_logprobs(logits[0], s->vocabulary, s->n_top, s->top + position * s->n_top);
    return true;
}

ht_status ht_session_score(ht_session *session, const int32_t *ids, size_t n, int chunk, float *logprobs, size_t n_top,
                           ht_token_logprob *top, ht_error *error) {
    scoring s = {.ids = ids,
                 .n = n,
                 .vocabulary = ht_session_vocabulary(session),
                 .n_top = top != NULL ? n_top : 0,
                 .logprobs = logprobs,
                 .top = top};
    if (n == 0)
        return ht_fail(error, HT_ERROR_ARGUMENT, "empty prompt: there is no token to score");
    if (n > ht_session_context(session))
        return ht_fail(error, HT_ERROR_CONTEXT, "%zu tokens to score exceed the context of %zu tokens", n,
                       ht_session_context(session));
    if (chunk < 0)
        return ht_fail(error, HT_ERROR_ARGUMENT, "chunk: %d is negative", chunk);
    if (s.n_top > s.vocabulary)
        return ht_fail(error, HT_ERROR_ARGUMENT, "top: %zu is more than the vocabulary of %zu", n_top, s.vocabulary);
    ht_status status = ht_session_check_writes(session, error);
    if (status == HT_OK)
        status = ht_session_check_ids(session, ids, n, error);
    if (status != HT_OK)
        return status;
    const size_t largest = (size_t)session->engine->info.chunk;
    const walk w = {.sessions = {session},
                    .n_sessions = 1,
                    .chunk = chunk > 0 ? ht_min_size((size_t)chunk, largest) : largest,
                    .visit = score_position,
                    .user = &s};
    logprobs[0] = NAN;
    /* What follows the last token is asked for only by those who want alternatives. */
    return walk_tokens(&w, ids, n, 0, s.n_top > 0 ? n : n - 1, error);
}

/* ---- logits of any position ------------------------------------------------------------------------------------- */

typedef struct visiting {
    ht_position_function visit;
    void *user;
    size_t vocabulary;
} visiting;

static bool visit_position(size_t position, const float *const *logits, void *user) {
    const visiting *v = user;
    return v->visit(position, logits[0], v->vocabulary, v->user);
}

ht_status ht_session_logits(ht_session *session, const int32_t *ids, size_t n, size_t first, ht_position_function visit,
                            void *user, ht_error *error) {
    visiting v = {.visit = visit, .user = user, .vocabulary = ht_session_vocabulary(session)};
    const walk w = {.sessions = {session},
                    .n_sessions = 1,
                    .chunk = (size_t)session->engine->info.chunk,
                    .visit = visit_position,
                    .user = &v};
    ht_status status = ht_session_check_prompt(session, ids, n, error);
    if (status == HT_OK && first >= n)
        status = ht_fail(error, HT_ERROR_ARGUMENT, "first: token %zu of %zu", first, n);
    return status == HT_OK ? walk_tokens(&w, ids, n, first, n, error) : status;
}

/* ---- perplexity ------------------------------------------------------------------------------------------------- */

enum { WINDOW = 512, SHORTEST_TEXT = 32 };

typedef struct divergence {
    int32_t window[WINDOW]; /* tokens of the one at hand */
    size_t vocabulary, counted, agreements;
    double loss, reference_loss, kl_sum, kl_most; /* nats */
} divergence;

static bool count_position(size_t position, const float *const *logits, void *user) {
    divergence *d = user;
    const float *own = logits[0], *reference = logits[1];
    const int32_t next = d->window[position + 1];
    const double own_sum = ht_log_sum_exp(own, d->vocabulary);
    d->counted++;
    d->loss -= own[next] - own_sum;
    if (reference == NULL)
        return true;
    const double reference_sum = ht_log_sum_exp(reference, d->vocabulary);
    d->reference_loss -= reference[next] - reference_sum;
    double kl = 0;
    for (size_t i = 0; i < d->vocabulary; i++) {
        const double log_p = reference[i] - reference_sum;
        const double p = exp(log_p);
        if (p > 0)
            kl += p * (log_p - (own[i] - own_sum));
    }
    if (kl < 0)
        kl = 0; /* rounding, of equal distributions */
    d->kl_sum += kl;
    if (!(kl <= d->kl_most))
        d->kl_most = kl; /* a NaN shows */
    d->agreements += ht_best_index(own, d->vocabulary) == ht_best_index(reference, d->vocabulary);
    return true;
}

static ht_status check_reference(const ht_session *session, const ht_session *reference, ht_error *error) {
    if (reference->engine == session->engine)
        return ht_fail(error, HT_ERROR_ARGUMENT, "reference: must be a session of another engine");
    if (ht_session_vocabulary(reference) != ht_session_vocabulary(session))
        return ht_fail(error, HT_ERROR_ARGUMENT, "reference: another model: its vocabulary is %zu, the session's %zu",
                       ht_session_vocabulary(reference), ht_session_vocabulary(session));
    return ht_session_check_writes(reference, error);
}

/* The windows of ids[0..n): `stride` tokens of text each, behind BOS where there is one. */
static ht_status walk_windows(const walk *w, divergence *d, const int32_t *ids, size_t n, size_t stride,
                              ht_progress_function progress, void *user, ht_error *error) {
    int32_t *window = d->window;
    const int bos = ht_tokenizer_bos(w->sessions[0]->engine->model->tokenizer);
    const size_t skip = bos >= 0;
    const size_t windows = ht_max_size(n / stride, 1);
    window[0] = bos;
    for (size_t i = 0; i < windows; i++) {
        if (progress != NULL && !progress("perplexity, windows", (double)i, (double)windows, user))
            return ht_fail(error, HT_ERROR_CANCELLED, "cancelled");
        const size_t tokens = skip + ht_min_size(stride, n - i * stride);
        for (size_t j = skip; j < tokens; j++)
            window[j] = ids[i * stride + j - skip];
        /* Token j is predicted at position j - 1. */
        ht_status status = walk_tokens(w, window, tokens, tokens / 2 - 1, tokens - 1, error);
        if (status != HT_OK)
            return status;
    }
    if (progress != NULL)
        progress("perplexity, windows", (double)windows, (double)windows, user);
    return HT_OK;
}

ht_status ht_perplexity(ht_session *session, ht_session *reference, const char *text, size_t bytes,
                        ht_progress_function progress, void *user, ht_perplexity_result *result, ht_error *error) {
    const ht_model *model = session->engine->model;
    const ht_tokenizer *tokenizer = model->tokenizer;
    if (tokenizer == NULL)
        return ht_fail(error, HT_ERROR_UNSUPPORTED, "perplexity: %s",
                       model->no_tokenizer ? model->no_tokenizer : "the model has no tokenizer");
    size_t context = ht_session_context(session), chunk = (size_t)session->engine->info.chunk;
    ht_status status = ht_session_check_writes(session, error);
    if (status != HT_OK)
        return status;
    if (reference != NULL) {
        status = check_reference(session, reference, error);
        if (status != HT_OK)
            return status;
        context = ht_min_size(context, ht_session_context(reference));
        chunk = ht_min_size(chunk, (size_t)reference->engine->info.chunk);
    }
    if (context < 4)
        return ht_fail(error, HT_ERROR_CONTEXT, "perplexity: a context of %zu tokens is too short", context);

    int32_t *ids = NULL;
    size_t n = 0;
    status = ht_tokenizer_encode(tokenizer, text, bytes, 0, &ids, &n, error);
    if (status != HT_OK)
        return status;
    const size_t stride = ht_min_size(context, WINDOW) - (ht_tokenizer_bos(tokenizer) >= 0);
    divergence d = {.vocabulary = ht_session_vocabulary(session)};
    const walk w = {.sessions = {session, reference},
                    .n_sessions = reference != NULL ? 2 : 1,
                    .chunk = chunk,
                    .visit = count_position,
                    .user = &d};
    if (n < ht_min_size(stride, SHORTEST_TEXT))
        status = ht_fail(error, HT_ERROR_ARGUMENT, "text too short: %zu tokens, at least %zu are needed", n,
                         ht_min_size(stride, SHORTEST_TEXT));
    else
        status = ht_session_check_ids(session, ids, n, error);
    if (status == HT_OK)
        status = walk_windows(&w, &d, ids, n, stride, progress, user, error);
    ht_free(ids);
    if (status != HT_OK)
        return status;

    const double counted = (double)d.counted;
    *result = (ht_perplexity_result){
        .perplexity = exp(d.loss / counted), .tokens = d.counted, .has_reference = reference != NULL};
    if (reference != NULL) {
        result->reference_perplexity = exp(d.reference_loss / counted);
        result->kl_mean = d.kl_sum / counted;
        result->kl_max = d.kl_most;
        result->top1_agreement = (double)d.agreements / counted;
    }
    return HT_OK;
}
