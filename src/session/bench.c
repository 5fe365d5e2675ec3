/* Speed of prefill and decode, of one sequence or of several together. */
#include "session/session.h"

#include <math.h>
#include <stdlib.h>

typedef struct bench {
    const ht_bench_options *options;
    ht_session *sessions[HT_MAX_SEQUENCES]; /* the first is the caller's */
    size_t n_sessions;
    int32_t *ids; /* of every sequence, one behind the other */
    size_t n_ids; /* of one */
} bench;

/* Fixed ids that look random, so that neither embedding rows nor predictions repeat. Control tokens are left out: a
 * prompt does not hold them in numbers. */
static void fill_ids(const ht_session *session, int32_t *ids, size_t n) {
    const ht_tokenizer *tokenizer = session->engine->model->tokenizer;
    const size_t vocabulary = ht_session_vocabulary(session);
    uint64_t state = 1;
    for (size_t i = 0; i < n; i++) {
        size_t bytes = 0;
        for (int tries = 0; tries < 16 && bytes == 0; tries++) {
            state = state * 6364136223846793005u + 1442695040888963407u; /* Knuth's MMIX generator */
            ids[i] = (int32_t)((state >> 33) % vocabulary);
            if (tokenizer == NULL)
                break;
            if (ht_tokenizer_text(tokenizer, ids[i], false, &bytes) == NULL)
                bytes = 0;
        }
    }
}

/* Every sequence's token number `at`, and the logits that follow. */
static ht_status decode_together(const bench *b, size_t at, ht_error *error) {
    ht_engine *engine = b->sessions[0]->engine;
    ht_session_part parts[HT_MAX_SEQUENCES];
    for (size_t s = 0; s < b->n_sessions; s++)
        parts[s] = (ht_session_part){b->sessions[s], b->ids + s * b->n_ids + at, 1};
    ht_lanes_lock(&engine->set);
    ht_status status = ht_session_feed_parts(parts, b->n_sessions, 0, &b->sessions[0]->cancel, error);
    for (size_t s = 0; s < b->n_sessions && !status; s += HT_HEAD_TOKENS) {
        const float *logits;
        status = ht_passes_head(&engine->passes, s, ht_min_size(HT_HEAD_TOKENS, b->n_sessions - s), &logits, error);
    }
    if (!status)
        ht_engine_adapt(engine);
    ht_lanes_unlock(&engine->set);
    return status;
}

/* One run: *seconds for the prompt alone, or for the tokens decoded behind a prompt of one. */
static ht_status run_bench(const bench *b, double *seconds, ht_error *error) {
    ht_session *session = b->sessions[0];
    ht_clock *clock = session->engine->set.time;
    const size_t prompt = b->options->gen > 0 ? 1 : (size_t)b->options->prompt;
    for (size_t s = 0; s < b->n_sessions; s++)
        b->sessions[s]->n_tokens = 0; /* nothing is reused */
    double start = ht_clock_now(clock);
    ht_status status = b->n_sessions > 1 ? decode_together(b, 0, error)
                                         : ht_session_prefill(session, b->ids, prompt, NULL, NULL, error);
    if (b->options->gen > 0)
        start = ht_clock_now(clock);
    for (int i = 1; i <= b->options->gen && status == HT_OK; i++)
        status = b->n_sessions > 1 ? decode_together(b, (size_t)i, error)
                                   : ht_session_decode(session, b->ids[i], NULL, error);
    *seconds = ht_clock_now(clock) - start;
    return status;
}

static ht_status check_bench(const ht_session *session, const ht_bench_options *options, ht_error *error) {
    const char *const names[] = {"prompt", "gen", "repetitions", "sequences"};
    const int values[] = {options->prompt, options->gen, options->repetitions, options->sequences};
    for (size_t i = 0; i < HT_COUNT(names); i++)
        if (values[i] < 0)
            return ht_fail(error, HT_ERROR_ARGUMENT, "%s: %d is negative", names[i], values[i]);
    if ((options->prompt > 0) == (options->gen > 0))
        return ht_fail(error, HT_ERROR_ARGUMENT, "prompt, gen: exactly one of them must be positive");
    if (options->prompt > 0 && options->sequences > 1)
        return ht_fail(error, HT_ERROR_ARGUMENT, "sequences: %d prompts are not computed together, answers are",
                       options->sequences);
    if (options->sequences > HT_MAX_SEQUENCES || (size_t)options->sequences > session->engine->set.chunk)
        return ht_fail(error, HT_ERROR_ARGUMENT, "sequences: %d is more than %zu", options->sequences,
                       ht_min_size(HT_MAX_SEQUENCES, session->engine->set.chunk));
    const size_t tokens = options->prompt > 0 ? (size_t)options->prompt : (size_t)options->gen + 1;
    if (tokens > ht_session_context(session))
        return ht_fail(error, HT_ERROR_CONTEXT, "%s: %zu tokens exceed the context of %zu tokens",
                       options->prompt > 0 ? "prompt" : "gen", tokens, ht_session_context(session));
    return HT_OK;
}

static ht_status make_sequences(bench *b, ht_session *session, ht_error *error) {
    const size_t n = b->options->sequences > 1 ? (size_t)b->options->sequences : 1;
    ht_status status = ht_alloc((void **)&b->ids, n * b->n_ids, sizeof *b->ids, "bench tokens", error);
    if (status == HT_OK)
        fill_ids(session, b->ids, n * b->n_ids);
    b->sessions[0] = session;
    for (b->n_sessions = 1; b->n_sessions < n && status == HT_OK; b->n_sessions += status == HT_OK)
        status = ht_session_create(session->engine, &b->sessions[b->n_sessions], error);
    return status;
}

static void free_sequences(bench *b) {
    while (b->n_sessions > 1)
        ht_session_destroy(b->sessions[--b->n_sessions]);
    free(b->ids);
}

ht_status ht_bench(ht_session *session, const ht_bench_options *options, ht_bench_result *result, ht_error *error) {
    ht_status status = ht_session_check_writes(session, error);
    if (status == HT_OK)
        status = check_bench(session, options, error);
    if (status != HT_OK)
        return status;
    const int repetitions = options->repetitions > 0 ? options->repetitions : 5;
    bench b = {.options = options, .n_ids = options->gen > 0 ? (size_t)options->gen + 1 : (size_t)options->prompt};
    double *speeds = NULL; /* tokens per second, of all sequences */
    status = ht_alloc((void **)&speeds, (size_t)repetitions, sizeof *speeds, "bench times", error);
    if (status == HT_OK)
        status = make_sequences(&b, session, error);
    const double tokens = options->gen > 0 ? options->gen * (double)b.n_sessions : options->prompt;
    for (int i = -1; i < repetitions && status == HT_OK; i++) { /* -1: the warm-up */
        double seconds = 0;
        status = run_bench(&b, &seconds, error);
        if (i >= 0)
            speeds[i] = tokens / fmax(seconds, 1e-9); /* a clock may be coarse */
    }
    if (status == HT_OK) {
        ht_sort_doubles(speeds, (size_t)repetitions);
        *result = (ht_bench_result){.tps_median = 0.5 * (speeds[(repetitions - 1) / 2] + speeds[repetitions / 2]),
                                    .tps_min = speeds[0],
                                    .tps_max = speeds[repetitions - 1],
                                    .peak_rss_bytes = ht_peak_rss_bytes(),
                                    .repetitions = repetitions};
    }
    free(speeds);
    free_sequences(&b);
    return status;
}
