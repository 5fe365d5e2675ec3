/* A batch: requests that come and go, computed together pass by pass. */
#include "session/batch.h"

#include <stdlib.h>
#include <string.h>

#define PASS_SECONDS 0.25

/* ---- requests ---------------------------------------------------------------------------------------------------- */

static void free_request(ht_batch_request *r) {
    if (!r)
        return;
    ht_answer_clear(&r->answer);
    for (size_t i = 0; r->stop && i < r->options.n_stop; i++)
        free(r->stop[i]);
    free(r->stop);
    free(r->ids);
    free(r);
}

/* Copies what the options point to. */
static ht_status copy_options(ht_batch_request *r, const ht_generate_options *options, ht_error *error) {
    ht_status status = ht_struct_read(&r->options, sizeof r->options, options, "ht_generate_options", error);
    if (!status && r->options.on_token)
        status = ht_fail(error, HT_ERROR_ARGUMENT, "on_token: a batch has events instead");
    const char *const *stop = r->options.stop; /* of NULL none are copied, and ht_answer_begin refuses it */
    const size_t n_stop = status || !stop ? 0 : r->options.n_stop;
    if (stop)
        r->options.n_stop = 0; /* so many are copied */
    if (!status && r->options.sampling) {
        status = ht_struct_read(&r->sampling, sizeof r->sampling, r->options.sampling, "ht_sampling", error);
        r->sampling.struct_size = sizeof r->sampling;
        r->options.sampling = &r->sampling;
    }
    if (!status && n_stop)
        status = ht_alloc((void **)&r->stop, n_stop, sizeof *r->stop, "stop strings", error);
    for (size_t i = 0; i < n_stop && !status; i++) {
        const char *text = stop[i] ? stop[i] : ""; /* which is refused, as NULL is */
        status = ht_alloc((void **)&r->stop[i], strlen(text) + 1, 1, "stop strings", error);
        if (!status)
            memcpy(r->stop[r->options.n_stop++], text, strlen(text) + 1);
    }
    r->options.stop = (const char *const *)r->stop;
    return status;
}

static bool note_piece(const ht_generation *piece, void *user) {
    ht_batch_request *r = user;
    r->piece = *piece;
    r->has_piece = true;
    return true;
}

static ht_status check_prompt(const ht_batch *batch, const int32_t *ids, size_t n, ht_error *error) {
    if (n > batch->most_tokens && n <= batch->engine->set.context)
        return ht_fail(error, HT_ERROR_CONTEXT, "prompt of %zu tokens exceeds the batch's %zu tokens", n,
                       batch->most_tokens);
    return ht_session_check_prompt(batch->sequences[0].session, ids, n, error);
}

static ht_status make_request(const ht_batch *batch, const int32_t *ids, size_t n, const ht_generate_options *options,
                              ht_batch_request **request, ht_error *error) {
    const size_t context = ht_min_size((size_t)batch->engine->info.context, batch->most_tokens);
    ht_batch_request *r = NULL;
    ht_status status = check_prompt(batch, ids, n, error);
    if (!status)
        status = ht_alloc((void **)&r, 1, sizeof *r, "a request", error);
    if (!status)
        status = copy_options(r, options, error);
    if (!status) {
        r->options.on_token = note_piece;
        r->options.user = r;
        status = ht_answer_begin(&r->answer, batch->engine->model, context, n, &r->options, error);
    }
    if (!status) /* all that may come, so that no step allocates */
        status = ht_alloc((void **)&r->ids, n + r->answer.limit, sizeof *r->ids, "a request's tokens", error);
    if (status) {
        free_request(r);
        return status;
    }
    memcpy(r->ids, ids, n * sizeof *ids);
    r->n_ids = r->n_prompt = n;
    *request = r;
    return HT_OK;
}

/* The mutex is held. */
static ht_status add(ht_batch *batch, const int32_t *ids, size_t n, const ht_generate_options *options,
                     uint64_t *request, ht_error *error) {
    ht_batch_request *r;
    ht_status status = make_request(batch, ids, n, options, &r, error);
    if (status)
        return status;
    status = ht_grow((void **)&batch->requests, &batch->cap_requests, batch->n_requests + 1, sizeof *batch->requests,
                     "requests", error);
    if (status) {
        free_request(r);
        return status;
    }
    r->name = ++batch->names;
    batch->requests[batch->n_requests++] = r;
    *request = r->name;
    return HT_OK;
}

static ht_batch_request **find(const ht_batch *batch, uint64_t name) {
    for (size_t i = 0; i < batch->n_requests; i++)
        if (batch->requests[i]->name == name)
            return &batch->requests[i];
    return NULL;
}

ht_status ht_batch_add(ht_batch *batch, const int32_t *ids, size_t n, const ht_generate_options *options,
                       uint64_t *request, ht_error *error) {
    pthread_mutex_lock(&batch->mutex);
    ht_status status = add(batch, ids, n, options, request, error);
    pthread_mutex_unlock(&batch->mutex);
    return status;
}

ht_status ht_batch_fork(ht_batch *batch, uint64_t of, const ht_generate_options *options, uint64_t *request,
                        ht_error *error) {
    pthread_mutex_lock(&batch->mutex);
    ht_batch_request **found = find(batch, of);
    ht_status status =
        found ? add(batch, (*found)->ids, (*found)->n_ids, options, request, error)
              : ht_fail(error, HT_ERROR_ARGUMENT, "request %llu: there is none of this name", (unsigned long long)of);
    pthread_mutex_unlock(&batch->mutex);
    return status;
}

void ht_batch_cancel(ht_batch *batch, uint64_t request) {
    pthread_mutex_lock(&batch->mutex);
    ht_batch_request **found = find(batch, request);
    if (found)
        (*found)->cancelled = true;
    pthread_mutex_unlock(&batch->mutex);
}

size_t ht_batch_pending(ht_batch *batch) {
    size_t n = 0;
    pthread_mutex_lock(&batch->mutex);
    for (size_t i = 0; i < batch->n_requests; i++)
        n += batch->requests[i]->phase != HT_PHASE_ENDED;
    pthread_mutex_unlock(&batch->mutex);
    return n;
}

static ht_status take(ht_batch *batch, uint64_t request, ht_generate_result *result, ht_error *error) {
    ht_batch_request **found = find(batch, request), *r = found ? *found : NULL;
    ht_generate_result made = HT_INIT(ht_generate_result);
    if (!r || r->phase != HT_PHASE_ENDED)
        return ht_fail(error, HT_ERROR_ARGUMENT, "request %llu: %s", (unsigned long long)request,
                       r ? "it has not ended" : "there is none of this name");
    const ht_status status = r->status;
    if (status && error)
        *error = r->error;
    if (!status) {
        ht_answer_move(&r->answer, &made);
        made.prompt_tokens = r->n_prompt;
        made.prompt_reused = r->reused;
        made.prefill_ms = r->first > 0 ? (r->first - r->begun) * 1e3 : 0;
        ht_struct_write(result, &made, sizeof made);
    }
    free_request(r);
    batch->n_requests--;
    memmove(found, found + 1, (size_t)(batch->requests + batch->n_requests - found) * sizeof *found);
    return status;
}

ht_status ht_batch_take(ht_batch *batch, uint64_t request, ht_generate_result *result, ht_error *error) {
    ht_status status = ht_struct_check(result, "ht_generate_result", error);
    if (status)
        return status;
    pthread_mutex_lock(&batch->mutex);
    status = take(batch, request, result, error);
    pthread_mutex_unlock(&batch->mutex);
    return status;
}

/* ---- steps ------------------------------------------------------------------------------------------------------- */

static void end_request(ht_batch_request *r) {
    if (!r->status)
        ht_answer_end(&r->answer);
    if (r->sequence)
        r->sequence->owner = NULL;
    r->sequence = NULL;
    r->phase = HT_PHASE_ENDED;
}

/* What this step has brought for the request. */
static void add_event(ht_batch *batch, const ht_batch_request *r) {
    const ht_generation none = {.id = -1, .text = ""};
    batch->events[batch->n_events++] = (ht_batch_event){
        .request = r->name, .piece = r->has_piece ? r->piece : none, .ended = r->phase == HT_PHASE_ENDED};
}

/* Room for an event of every request. Those that are to end do. */
static ht_status begin_step(ht_batch *batch, ht_error *error) {
    ht_status status =
        ht_grow((void **)&batch->events, &batch->cap_events, batch->n_requests, sizeof *batch->events, "events", error);
    if (status)
        return status;
    batch->steps++;
    for (size_t i = 0; i < batch->n_requests; i++) {
        ht_batch_request *r = batch->requests[i];
        r->has_piece = false;
        if (r->cancelled && r->phase != HT_PHASE_ENDED) {
            r->answer.stop = HT_STOP_CANCELLED;
            end_request(r);
            add_event(batch, r);
        }
    }
    return HT_OK;
}

/* What the pass says comes next for the request. True: it wants to be followed. No lock is held, for on_logits may call
 * what takes them; nobody but who steps changes a request that has not ended. */
static bool choose_next(const ht_batch *batch, ht_batch_request *r, const float *logits) {
    const ht_session *session = r->sequence->session;
    const double now = ht_clock_now(batch->engine->set.time);
    const ht_prediction next = {.logits = logits};
    bool going = false;
    if (r->first == 0)
        r->first = now;
    r->status = ht_session_check_logits(session, logits, session->n_tokens - 1, &r->error);
    if (!r->status)
        r->status = ht_answer_take(&r->answer, &next, session->tokens, session->n_tokens, now, &going, &r->error);
    return !r->status && going;
}

/* The same for everyone to know. before: tokens of the answer so far. */
static void deliver(ht_batch *batch, ht_batch_request *r, size_t before, bool going) {
    if (r->answer.n > before) /* the last one of an answer, too: whoever forks it goes on behind that */
        r->ids[r->n_ids++] = r->answer.ids[r->answer.n - 1];
    if (going)
        r->phase = HT_PHASE_DECODE;
    else
        end_request(r);
    add_event(batch, r);
}

ht_status ht_batch_step(ht_batch *batch, const ht_batch_event **events, size_t *n, ht_error *error) {
    const size_t vocabulary = (size_t)batch->engine->model->hparams.vocabulary;
    ht_batch_pass pass = {0};
    size_t before[HT_MAX_SEQUENCES];
    bool going[HT_MAX_SEQUENCES];
    *n = 0;
    batch->n_events = 0;
    ht_lanes_lock(&batch->engine->set);
    ht_status status = ht_engine_settle(batch->engine, error);
    pthread_mutex_lock(&batch->mutex);
    if (!status)
        status = begin_step(batch, error);
    if (!status)
        ht_batch_compose(batch, &pass);
    pthread_mutex_unlock(&batch->mutex);
    if (!status && pass.n_parts)
        status = ht_batch_run(batch, &pass, error);
    ht_lanes_unlock(&batch->engine->set);
    for (size_t i = 0; i < pass.n_parts && !status; i++) {
        before[i] = pass.requests[i]->answer.n;
        if (pass.wanted[i])
            going[i] = choose_next(batch, pass.requests[i], batch->logits + i * vocabulary);
    }
    pthread_mutex_lock(&batch->mutex);
    for (size_t i = 0; i < pass.n_parts && !status; i++)
        if (pass.wanted[i])
            deliver(batch, pass.requests[i], before[i], going[i]);
    *n = batch->n_events; /* of requests that were cancelled, whatever came of the pass */
    *events = batch->events;
    pthread_mutex_unlock(&batch->mutex);
    return status;
}

/* ---- all of it --------------------------------------------------------------------------------------------------- */

static ht_status read_options(ht_batch_options *read, const ht_batch_options *options, size_t chunk, ht_error *error) {
    ht_status status = ht_struct_read(read, sizeof *read, options, "ht_batch_options", error);
    if (status)
        return status;
    if (read->sequences < 0 || read->sequences > HT_MAX_SEQUENCES)
        return ht_fail(error, HT_ERROR_ARGUMENT, "sequences: %d is not between 0 and %d", read->sequences,
                       HT_MAX_SEQUENCES);
    if (!(read->pass_seconds >= 0))
        return ht_fail(error, HT_ERROR_ARGUMENT, "pass_seconds: %g is no time", read->pass_seconds);
    read->sequences = read->sequences ? read->sequences : (int)ht_min_size(8, chunk);
    if ((size_t)read->sequences > chunk)
        return ht_fail(error, HT_ERROR_ARGUMENT, "sequences: %d is more than the %zu tokens of a pass (chunk)",
                       read->sequences, chunk);
    return HT_OK;
}

ht_status ht_batch_create(ht_engine *engine, const ht_batch_options *options, ht_batch **batch, ht_error *error) {
    ht_batch_options read;
    ht_batch *made = NULL;
    ht_status status = read_options(&read, options, (size_t)engine->info.chunk, error);
    if (!status)
        status = ht_alloc((void **)&made, 1, sizeof *made, "a batch", error);
    if (status)
        return status;
    made->engine = engine;
    made->most_tokens = read.tokens ? read.tokens : SIZE_MAX;
    made->pass_seconds = read.pass_seconds > 0 ? read.pass_seconds : PASS_SECONDS;
    atomic_init(&made->never, false);
    pthread_mutex_init(&made->mutex, NULL);
    const size_t vocabulary = (size_t)engine->model->hparams.vocabulary;
    status = ht_alloc((void **)&made->logits, (size_t)read.sequences * vocabulary, sizeof *made->logits,
                      "a batch's logits", error);
    for (int i = 0; i < read.sequences && !status; i++) {
        status = ht_session_create(engine, &made->sequences[i].session, error);
        made->n_sequences += status == HT_OK;
    }
    if (status) {
        ht_batch_destroy(made);
        return status;
    }
    *batch = made;
    return HT_OK;
}

void ht_batch_destroy(ht_batch *batch) {
    if (!batch)
        return;
    for (size_t i = 0; i < batch->n_requests; i++)
        free_request(batch->requests[i]);
    for (size_t i = 0; i < batch->n_sequences; i++)
        ht_session_destroy(batch->sequences[i].session);
    pthread_mutex_destroy(&batch->mutex);
    free(batch->requests);
    free(batch->events);
    free(batch->logits);
    free(batch);
}
