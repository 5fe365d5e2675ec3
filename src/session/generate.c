/* Generation: prefill, then sample and decode until something says stop, streaming whole characters on the way.
 *
 * Text is held back from the caller while it may still change: bytes that could be the beginning of a stop string, and
 * bytes of a UTF-8 character that is not complete yet. Whatever still waits when generation ends is handed over then,
 * so that the streamed pieces together are the result's text.
 */
#include "session/session.h"

#include "base/base.h"

#include <stdlib.h>
#include <string.h>

typedef struct generation {
    ht_session *session;
    const ht_generate_options *options;
    ht_sampler *sampler;
    ht_tokenizer *tokenizer; /* NULL for a model without text */
    size_t limit;            /* tokens at most: max_tokens and what the context leaves */
    int32_t *ids;
    size_t n, ids_capacity;
    ht_text text;
    size_t shown;      /* bytes of text handed to the caller */
    int32_t *stop_ids; /* [n_stop] the control token that a stop string is the text of; -1: none */
    ht_token_logprob *top;
    size_t n_top, top_capacity;
} generation;

const char *ht_stop_name(ht_stop stop) {
    static const char *const names[] = {"limit", "end", "string", "context", "caller", "cancelled"};
    return (size_t)stop < HT_COUNT(names) ? names[stop] : "unknown";
}

void ht_generate_result_clear(ht_generate_result *result) {
    if (result == NULL)
        return;
    free(result->ids);
    free(result->text);
    free(result->top);
    const ht_generate_result empty = HT_INIT(ht_generate_result);
    ht_struct_write(result, &empty, sizeof empty);
}

static ht_status check_options(const ht_session *session, const ht_generate_options *options, ht_error *error) {
    if (options->max_tokens < 0)
        return ht_fail(error, HT_ERROR_ARGUMENT, "max_tokens: %d is negative", options->max_tokens);
    if (options->top_logprobs < 0 || (size_t)options->top_logprobs > ht_session_vocabulary(session))
        return ht_fail(error, HT_ERROR_ARGUMENT, "top_logprobs: %d is not between 0 and the vocabulary of %zu",
                       options->top_logprobs, ht_session_vocabulary(session));
    for (size_t i = 0; i < options->n_stop; i++)
        if (options->stop[i] == NULL || options->stop[i][0] == '\0')
            return ht_fail(error, HT_ERROR_ARGUMENT, "stop[%zu]: an empty stop string", i);
    return HT_OK;
}

static ht_status find_stop_ids(generation *gen, ht_error *error) {
    ht_status status =
        ht_alloc((void **)&gen->stop_ids, gen->options->n_stop + 1, sizeof *gen->stop_ids, "stop strings", error);
    for (size_t i = 0; status == HT_OK && i < gen->options->n_stop; i++)
        gen->stop_ids[i] = gen->tokenizer ? ht_tokenizer_special(gen->tokenizer, gen->options->stop[i]) : -1;
    return status;
}

/* A token that ends generation and is not part of the result. */
static bool ends_at(const generation *gen, int32_t id, ht_stop *stop) {
    *stop = HT_STOP_STRING;
    for (size_t i = 0; i < gen->options->n_stop; i++)
        if (gen->stop_ids[i] == id)
            return true;
    *stop = HT_STOP_END;
    return gen->tokenizer != NULL && ht_tokenizer_ends(gen->tokenizer, id);
}

/* Room for all that generation can bring (within reason; the rest grows by doubling), so that no step allocates. */
static ht_status reserve(generation *gen, ht_error *error) {
    enum { MOST_TEXT = 1 << 20, MOST_TOP = 1 << 18, BYTES_A_TOKEN = 16 };
    const size_t text_bytes = ht_min_size(gen->limit * BYTES_A_TOKEN, MOST_TEXT) + 1;
    ht_status status = ht_grow((void **)&gen->ids, &gen->ids_capacity, gen->limit, sizeof *gen->ids, "tokens", error);
    if (status == HT_OK)
        status = ht_grow((void **)&gen->text.data, &gen->text.capacity, text_bytes, 1, "generated text", error);
    if (status != HT_OK)
        return status;
    gen->text.data[0] = '\0';
    if (gen->n_top == 0)
        return HT_OK;
    const size_t entries = ht_max_size(gen->n_top, ht_min_size(gen->limit * gen->n_top, MOST_TOP));
    return ht_grow((void **)&gen->top, &gen->top_capacity, entries, sizeof *gen->top, "top log-probabilities", error);
}

/* First place of the string `wanted` in text[0..bytes), which may hold NULs; NULL: nowhere. */
static const char *find(const char *text, size_t bytes, const char *wanted) {
    const size_t n = strlen(wanted);
    for (const char *end = text + bytes; (size_t)(end - text) >= n; text++) {
        text = memchr(text, wanted[0], (size_t)(end - text) - n + 1);
        if (text == NULL)
            return NULL;
        if (memcmp(text, wanted, n) == 0)
            return text;
    }
    return NULL;
}

/* Cuts the text at the first stop string in it. What was shown cannot be the beginning of one (see held_back), so the
 * search starts there. */
static bool cut_at_stop(generation *gen) {
    const char *unseen = gen->text.data + gen->shown;
    const size_t bytes = gen->text.bytes - gen->shown;
    const char *first = NULL;
    for (size_t i = 0; i < gen->options->n_stop; i++) {
        const char *found = find(unseen, bytes, gen->options->stop[i]);
        if (found != NULL && (first == NULL || found < first))
            first = found;
    }
    if (first == NULL)
        return false;
    gen->text.bytes = (size_t)(first - gen->text.data);
    gen->text.data[gen->text.bytes] = '\0';
    return true;
}

/* Length of the longest end of text[0..bytes) that a stop string could begin with. */
static size_t held_back(const generation *gen, const char *text, size_t bytes) {
    size_t held = 0;
    for (size_t i = 0; i < gen->options->n_stop; i++) {
        const char *stop = gen->options->stop[i];
        for (size_t n = ht_min_size(bytes, strlen(stop) - 1); n > held; n--)
            if (memcmp(text + bytes - n, stop, n) == 0)
                held = n; /* and the loop ends */
    }
    return held;
}

/* Hands over what may be seen by now (all there is when `last`, less a character that was not finished). False: the caller
 * wants no more. */
static bool show(generation *gen, int32_t id, const ht_token_logprob *top, bool last) {
    const char *unseen = gen->text.data + gen->shown;
    size_t bytes = gen->text.bytes - gen->shown;
    bytes = ht_utf8_whole(unseen, last ? bytes : bytes - held_back(gen, unseen, bytes));
    gen->shown += bytes;
    if (gen->options->on_token == NULL)
        return true;
    const size_t n_top = top != NULL ? gen->n_top : 0;
    const ht_generation step = {.id = id, .text = unseen, .text_bytes = bytes, .top = top, .n_top = n_top};
    return gen->options->on_token(&step, gen->options->user);
}

/* Adds a token to the result. *stop is set if it is the last one; *going says whether generation continues. */
static ht_status add_token(generation *gen, int32_t id, const float *logits, bool *going, ht_stop *stop,
                           ht_error *error) {
    ht_status status;
    ht_token_logprob *top = NULL;
    if (gen->n_top > 0) {
        status = ht_grow((void **)&gen->top, &gen->top_capacity, (gen->n + 1) * gen->n_top, sizeof *gen->top,
                         "top log-probabilities", error);
        if (status != HT_OK)
            return status;
        top = gen->top + gen->n * gen->n_top;
        ht_top_logprobs(logits, ht_session_vocabulary(gen->session), gen->n_top, top);
    }
    gen->ids[gen->n++] = id;
    if (gen->tokenizer != NULL) {
        size_t bytes = 0;
        const char *text = ht_tokenizer_text(gen->tokenizer, id, false, &bytes);
        status = text != NULL ? ht_text_append(&gen->text, text, bytes, error) : HT_OK;
        if (status != HT_OK)
            return status;
    }

    *going = false;
    if (cut_at_stop(gen))
        *stop = HT_STOP_STRING;
    else if (gen->options->max_tokens > 0 && gen->n == (size_t)gen->options->max_tokens)
        *stop = HT_STOP_LIMIT;
    else if (gen->n == gen->limit)
        *stop = HT_STOP_CONTEXT; /* this token was predicted from the last place of the context: none is left for it */
    else
        *going = true;
    if (!show(gen, id, top, !*going) && *going) {
        *stop = HT_STOP_CALLER;
        *going = false;
    }
    return HT_OK;
}

/* What the model says next: its logits, or only their largest's id when that is all that is needed. */
typedef struct prediction {
    const float *logits;
    int32_t best;
} prediction;

static bool best_suffices(const generation *gen) {
    return gen->n_top == 0 && ht_sampler_is_greedy(gen->sampler);
}

/* From the prompt's prediction to the end. *decode_ms: first token to last. */
static ht_status sample_and_decode(generation *gen, prediction next, ht_stop *stop, double *decode_ms,
                                   ht_error *error) {
    ht_session *session = gen->session;
    double first_token = 0;
    for (bool going = true; going;) {
        if (ht_session_take_cancel(session)) {
            *stop = HT_STOP_CANCELLED;
            break;
        }
        const int32_t id = next.logits != NULL
                               ? ht_sampler_pick(gen->sampler, next.logits, session->tokens, session->n_tokens)
                               : next.best;
        ht_stop why;
        if (ends_at(gen, id, &why)) {
            *stop = why;
            break;
        }
        const double now = ht_clock_now(session->engine->set.time);
        if (gen->n == 0)
            first_token = now;
        *decode_ms = (now - first_token) * 1e3;
        ht_status status = add_token(gen, id, next.logits, &going, stop, error);
        if (status == HT_OK && going)
            status = next.logits != NULL ? ht_session_decode(session, id, &next.logits, error)
                                         : ht_session_decode_greedy(session, id, &next.best, error);
        if (status == HT_ERROR_CANCELLED) {
            *stop = HT_STOP_CANCELLED;
            break;
        }
        if (status != HT_OK)
            return status;
    }
    /* An end token or a cancellation comes after the last token was shown: what was held back follows without one. */
    if (*stop != HT_STOP_CALLER && ht_utf8_whole(gen->text.data + gen->shown, gen->text.bytes - gen->shown) > 0)
        show(gen, -1, NULL, true);
    /* Half a character at the end is not text. */
    gen->text.bytes = gen->shown + ht_utf8_whole(gen->text.data + gen->shown, gen->text.bytes - gen->shown);
    gen->text.data[gen->text.bytes] = '\0';
    return HT_OK;
}

static ht_status generate(generation *gen, const int32_t *ids, size_t n, ht_generate_result *result, ht_error *error) {
    const size_t vocabulary = ht_session_vocabulary(gen->session);
    ht_status status = ht_sampler_create(gen->options->sampling, vocabulary, &gen->sampler, error);
    if (status == HT_OK)
        status = find_stop_ids(gen, error);
    if (status == HT_OK)
        status = reserve(gen, error);
    if (status != HT_OK)
        return status;
    result->seed = ht_sampler_seed(gen->sampler);
    prediction next = {NULL, 0};
    ht_clock *clock = gen->session->engine->set.time;
    const double start = ht_clock_now(clock);
    status = best_suffices(gen)
                 ? ht_session_prefill_greedy(gen->session, ids, n, &next.best, &result->prompt_reused, error)
                 : ht_session_prefill(gen->session, ids, n, &next.logits, &result->prompt_reused, error);
    result->prefill_ms = (ht_clock_now(clock) - start) * 1e3;
    result->prompt_tokens = n;
    if (status == HT_OK)
        return sample_and_decode(gen, next, &result->stop, &result->decode_ms, error);
    if (status != HT_ERROR_CANCELLED)
        return status;
    result->stop = HT_STOP_CANCELLED;
    return HT_OK;
}

ht_status ht_session_generate(ht_session *session, const int32_t *ids, size_t n, const ht_generate_options *options,
                              ht_generate_result *result, ht_error *error) {
    const size_t context = ht_session_context(session);
    ht_generate_options read;
    generation gen = {.session = session, .options = &read};
    ht_status status = ht_struct_check(result, "ht_generate_result", error);
    if (status == HT_OK)
        status = ht_struct_read(&read, sizeof read, options, "ht_generate_options", error);
    if (status == HT_OK)
        status = check_options(session, gen.options, error);
    if (status != HT_OK)
        return status;
    gen.tokenizer = session->engine->model->tokenizer;
    gen.n_top = (size_t)gen.options->top_logprobs;
    gen.limit = n <= context ? context - n + 1 : 1; /* a longer prompt is refused by prefill */
    if (gen.options->max_tokens > 0)
        gen.limit = ht_min_size(gen.limit, (size_t)gen.options->max_tokens);

    ht_generate_result made = HT_INIT(ht_generate_result);
    status = generate(&gen, ids, n, &made, error);
    ht_sampler_destroy(gen.sampler);
    free(gen.stop_ids);
    made.ids = gen.ids;
    made.n = gen.n;
    made.text = gen.text.data;
    made.text_bytes = gen.text.bytes;
    made.top = gen.top;
    made.n_top = gen.n_top;
    if (status != HT_OK) {
        ht_generate_result_clear(&made);
        return status;
    }
    ht_struct_write(result, &made, sizeof made);
    return HT_OK;
}
