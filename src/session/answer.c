/* An answer: tokens sampled one by one until something says stop, streamed as whole characters on the way.
 *
 * Text is held back from the caller while it may still change: bytes that could be the beginning of a stop string, and
 * bytes of a UTF-8 character that is not complete yet. Whatever still waits when the answer ends is handed over then,
 * so that the streamed pieces together are the result's text.
 */
#include "session/answer.h"

#include <stdlib.h>
#include <string.h>

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

static ht_status check_options(const ht_answer *answer, ht_error *error) {
    const ht_generate_options *options = answer->options;
    if (options->max_tokens < 0)
        return ht_fail(error, HT_ERROR_ARGUMENT, "max_tokens: %d is negative", options->max_tokens);
    if (options->top_logprobs < 0 || (size_t)options->top_logprobs > answer->vocabulary)
        return ht_fail(error, HT_ERROR_ARGUMENT, "top_logprobs: %d is not between 0 and the vocabulary of %zu",
                       options->top_logprobs, answer->vocabulary);
    if (options->n_stop > 0 && options->stop == NULL)
        return ht_fail(error, HT_ERROR_ARGUMENT, "stop: %zu strings, but no list of them", options->n_stop);
    for (size_t i = 0; i < options->n_stop; i++)
        if (options->stop[i] == NULL || options->stop[i][0] == '\0')
            return ht_fail(error, HT_ERROR_ARGUMENT, "stop[%zu]: an empty stop string", i);
    return HT_OK;
}

static ht_status find_stop_ids(ht_answer *answer, ht_error *error) {
    ht_status status = ht_alloc((void **)&answer->stop_ids, answer->options->n_stop + 1, sizeof *answer->stop_ids,
                                "stop strings", error);
    for (size_t i = 0; status == HT_OK && i < answer->options->n_stop; i++)
        answer->stop_ids[i] =
            answer->tokenizer ? ht_tokenizer_special(answer->tokenizer, answer->options->stop[i]) : -1;
    return status;
}

/* A token that ends the answer and is not part of the result. */
static bool ends_at(const ht_answer *answer, int32_t id, ht_stop *stop) {
    *stop = HT_STOP_STRING;
    for (size_t i = 0; i < answer->options->n_stop; i++)
        if (answer->stop_ids[i] == id)
            return true;
    *stop = HT_STOP_END;
    return answer->tokenizer != NULL && ht_tokenizer_ends(answer->tokenizer, id);
}

/* Room for all that an answer can bring (within reason; the rest grows by doubling), so that no step allocates. */
static ht_status reserve(ht_answer *answer, ht_error *error) {
    enum { MOST_TEXT = 1 << 20, MOST_TOP = 1 << 18, BYTES_A_TOKEN = 16 };
    const size_t text_bytes = ht_min_size(answer->limit * BYTES_A_TOKEN, MOST_TEXT) + 1;
    ht_status status =
        ht_grow((void **)&answer->ids, &answer->ids_capacity, answer->limit, sizeof *answer->ids, "tokens", error);
    if (status == HT_OK)
        status = ht_grow((void **)&answer->text.data, &answer->text.capacity, text_bytes, 1, "generated text", error);
    if (status != HT_OK)
        return status;
    answer->text.data[0] = '\0';
    if (answer->n_top == 0)
        return HT_OK;
    const size_t entries = ht_max_size(answer->n_top, ht_min_size(answer->limit * answer->n_top, MOST_TOP));
    return ht_grow((void **)&answer->top, &answer->top_capacity, entries, sizeof *answer->top, "top log-probabilities",
                   error);
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
static bool cut_at_stop(ht_answer *answer) {
    const char *unseen = answer->text.data + answer->shown;
    const size_t bytes = answer->text.bytes - answer->shown;
    const char *first = NULL;
    for (size_t i = 0; i < answer->options->n_stop; i++) {
        const char *found = find(unseen, bytes, answer->options->stop[i]);
        if (found != NULL && (first == NULL || found < first))
            first = found;
    }
    if (first == NULL)
        return false;
    answer->text.bytes = (size_t)(first - answer->text.data);
    answer->text.data[answer->text.bytes] = '\0';
    return true;
}

/* Length of the longest end of text[0..bytes) that a stop string could begin with. */
static size_t held_back(const ht_answer *answer, const char *text, size_t bytes) {
    size_t held = 0;
    for (size_t i = 0; i < answer->options->n_stop; i++) {
        const char *stop = answer->options->stop[i];
        for (size_t n = ht_min_size(bytes, strlen(stop) - 1); n > held; n--)
            if (memcmp(text + bytes - n, stop, n) == 0)
                held = n; /* and the loop ends */
    }
    return held;
}

/* Hands over what may be seen by now (all there is when `last`, less a character that was not finished). False: the caller
 * wants no more. */
static bool show(ht_answer *answer, int32_t id, const ht_token_logprob *top, bool last) {
    const char *unseen = answer->text.data + answer->shown;
    size_t bytes = answer->text.bytes - answer->shown;
    bytes = ht_utf8_whole(unseen, last ? bytes : bytes - held_back(answer, unseen, bytes));
    answer->shown += bytes;
    if (answer->options->on_token == NULL)
        return true;
    const size_t n_top = top != NULL ? answer->n_top : 0;
    const ht_generation step = {.id = id, .text = unseen, .text_bytes = bytes, .top = top, .n_top = n_top};
    return answer->options->on_token(&step, answer->options->user);
}

/* Adds a token to the result. answer->stop is set if it is the last one; *going says whether the answer goes on. */
static ht_status add_token(ht_answer *answer, int32_t id, const float *logits, bool *going, ht_error *error) {
    ht_status status;
    ht_token_logprob *top = NULL;
    if (answer->n_top > 0) {
        status = ht_grow((void **)&answer->top, &answer->top_capacity, (answer->n + 1) * answer->n_top,
                         sizeof *answer->top, "top log-probabilities", error);
        if (status != HT_OK)
            return status;
        top = answer->top + answer->n * answer->n_top;
        ht_top_logprobs(logits, answer->vocabulary, answer->n_top, top);
    }
    answer->ids[answer->n++] = id;
    if (answer->tokenizer != NULL) {
        size_t bytes = 0;
        const char *text = ht_tokenizer_text(answer->tokenizer, id, false, &bytes);
        status = text != NULL ? ht_text_append(&answer->text, text, bytes, error) : HT_OK;
        if (status != HT_OK)
            return status;
    }

    *going = false;
    if (cut_at_stop(answer))
        answer->stop = HT_STOP_STRING;
    else if (answer->options->max_tokens > 0 && answer->n == (size_t)answer->options->max_tokens)
        answer->stop = HT_STOP_LIMIT;
    else if (answer->n == answer->limit)
        answer->stop =
            HT_STOP_CONTEXT; /* this token was predicted from the last place of the context: none is left for it */
    else
        *going = true;
    if (!show(answer, id, top, !*going) && *going) {
        answer->stop = HT_STOP_CALLER;
        *going = false;
    }
    return HT_OK;
}

ht_status ht_answer_begin(ht_answer *answer, const ht_model *model, size_t context, size_t n_prompt,
                          const ht_generate_options *options, ht_error *error) {
    *answer = (ht_answer){.options = options,
                          .tokenizer = model->tokenizer,
                          .vocabulary = (size_t)model->hparams.vocabulary,
                          /* a longer prompt is refused by prefill */
                          .limit = n_prompt <= context ? context - n_prompt + 1 : 1,
                          .stop = HT_STOP_CANCELLED};
    ht_status status = check_options(answer, error);
    if (status != HT_OK)
        return status;
    answer->n_top = (size_t)options->top_logprobs;
    if (options->max_tokens > 0)
        answer->limit = ht_min_size(answer->limit, (size_t)options->max_tokens);
    if (options->sampler && options->sampling)
        return ht_fail(error, HT_ERROR_ARGUMENT, "sampler and sampling: one of them, not both");
    if (options->sampler && ht_sampler_vocabulary(options->sampler) != answer->vocabulary)
        return ht_fail(error, HT_ERROR_ARGUMENT, "sampler: made for %zu tokens, the model has %zu",
                       ht_sampler_vocabulary(options->sampler), answer->vocabulary);
    answer->sampler = options->sampler;
    if (!answer->sampler)
        status = ht_sampler_create(options->sampling, answer->vocabulary, &answer->sampler, error);
    if (status == HT_OK)
        answer->seed = ht_sampler_seed(answer->sampler);
    if (status == HT_OK && options->on_logits != NULL)
        status = ht_alloc((void **)&answer->changed, answer->vocabulary, sizeof *answer->changed, "logits", error);
    if (status == HT_OK)
        status = find_stop_ids(answer, error);
    return status == HT_OK ? reserve(answer, error) : status;
}

bool ht_answer_needs_logits(const ht_answer *answer) {
    return answer->n_top > 0 || answer->changed != NULL || !ht_sampler_is_greedy(answer->sampler);
}

/* The token that is chosen behind history[0..n). */
static int32_t choose(ht_answer *answer, const ht_prediction *next, const int32_t *history, size_t n) {
    if (next->logits == NULL)
        return next->best;
    if (answer->changed == NULL)
        return ht_sampler_pick(answer->sampler, next->logits, history, n);
    memcpy(answer->changed, next->logits, answer->vocabulary * sizeof *answer->changed);
    answer->options->on_logits(answer->changed, answer->vocabulary, history, n, answer->options->logits_user);
    return ht_sampler_pick(answer->sampler, answer->changed, history, n);
}

ht_status ht_answer_take(ht_answer *answer, const ht_prediction *next, const int32_t *history, size_t n, double now,
                         bool *going, ht_error *error) {
    const int32_t id = choose(answer, next, history, n);
    *going = false;
    if (ends_at(answer, id, &answer->stop))
        return HT_OK;
    if (answer->n == 0)
        answer->first_token = now;
    answer->last_token = now;
    return add_token(answer, id, next->logits, going, error);
}

void ht_answer_end(ht_answer *answer) {
    /* An end token or a cancellation comes after the last token was shown: what was held back follows without one. */
    if (answer->stop != HT_STOP_CALLER &&
        ht_utf8_whole(answer->text.data + answer->shown, answer->text.bytes - answer->shown) > 0)
        show(answer, -1, NULL, true);
    /* Half a character at the end is not text. */
    answer->text.bytes =
        answer->shown + ht_utf8_whole(answer->text.data + answer->shown, answer->text.bytes - answer->shown);
    answer->text.data[answer->text.bytes] = '\0';
}

void ht_answer_move(ht_answer *answer, ht_generate_result *result) {
    result->ids = answer->ids;
    result->n = answer->n;
    result->text = answer->text.data;
    result->text_bytes = answer->text.bytes;
    result->top = answer->top;
    result->n_top = answer->n_top;
    result->stop = answer->stop;
    result->decode_ms = (answer->last_token - answer->first_token) * 1e3;
    result->seed = answer->seed;
    answer->ids = NULL, answer->text.data = NULL, answer->top = NULL;
}

void ht_answer_clear(ht_answer *answer) {
    if (answer->options && !answer->options->sampler)
        ht_sampler_destroy(answer->sampler);
    free(answer->stop_ids);
    free(answer->changed);
    free(answer->ids);
    free(answer->text.data);
    free(answer->top);
    *answer = (ht_answer){0};
}
