/* Which tokens a batch's next pass computes, and computing them. */
#include "session/batch.h"

#include <string.h>

enum {
    FIRST_PIECE = 64, /* tokens of prompts beside answers under way, before a pass was timed */
    LEAST_PIECE = 16,
    MARGIN = 32, /* tokens for which there is to be room when a request that others were preferred to begins again */
};

/* ---- sequences --------------------------------------------------------------------------------------------------- */

/* Tokens of the request that the session's keys, values and states stand for, less the last one, which is always
 * computed. */
static size_t common_tokens(ht_session *session, const ht_batch_request *r) {
    const size_t most = ht_min_size(r->n_ids - 1, session->n_tokens);
    size_t n = 0;
    while (n < most && session->tokens[n] == r->ids[n])
        n++;
    return ht_session_reusable(session, n);
}

/* The free sequence that has most of the request's tokens, else the one used least lately; NULL: none is free. */
static ht_sequence *find_free(ht_batch *batch, const ht_batch_request *r, size_t *common) {
    ht_sequence *found = NULL;
    for (size_t i = 0; i < batch->n_sequences; i++) {
        ht_sequence *s = &batch->sequences[i];
        const size_t n = s->owner ? 0 : common_tokens(s->session, r);
        if (s->owner || (found && (n < *common || (n == *common && s->used >= found->used))))
            continue;
        found = s;
        *common = n;
    }
    return found;
}

/* The sequence that is in use and has most of the request's tokens. */
static const ht_sequence *find_busy(const ht_batch *batch, const ht_batch_request *r, size_t *common) {
    const ht_sequence *found = NULL;
    for (size_t i = 0; i < batch->n_sequences; i++) {
        const ht_sequence *s = &batch->sequences[i];
        const size_t n = s->owner ? common_tokens(s->session, r) : 0;
        if (n > *common) {
            found = s;
            *common = n;
        }
    }
    return found;
}

static void copy_tokens(const ht_batch *batch, ht_session *to, ht_session *from, size_t n) {
    ht_kv_copy(&batch->engine->set, to->kv, from->kv, n);
    memcpy(to->tokens, from->tokens, n * sizeof *to->tokens);
    to->caches_lost = from->caches_lost;
    ht_session_go_back(to, from, n);
}

/* Gives the request a sequence, with as many of its tokens as are there somewhere. False: none is free. */
static bool begin(ht_batch *batch, ht_batch_request *r) {
    size_t own = 0, other = 0;
    ht_sequence *s = find_free(batch, r, &own);
    if (!s)
        return false;
    const ht_sequence *from = find_busy(batch, r, &other);
    if (from && other > own && ht_kv_is_hosts(&batch->engine->set)) {
        copy_tokens(batch, s->session, from->session, other);
        own = other;
    } else {
        ht_session_go_back(s->session, s->session, own);
    }
    s->owner = r;
    r->sequence = s;
    r->phase = HT_PHASE_PREFILL;
    if (r->begun == 0) {
        r->begun = ht_clock_now(batch->engine->set.time);
        r->reused = own;
    }
    return true;
}

static size_t tokens_held(const ht_batch *batch) {
    size_t n = 0;
    for (size_t i = 0; i < batch->n_sequences; i++)
        n += batch->sequences[i].owner ? batch->sequences[i].owner->n_ids : 0;
    return n;
}

/* The running request that came last gives its sequence back, tokens and all, unless it is the only one. */
static bool push_back(ht_batch *batch) {
    ht_batch_request *last = NULL;
    size_t running = 0;
    for (size_t i = 0; i < batch->n_requests; i++)
        if (batch->requests[i]->sequence) {
            last = batch->requests[i];
            running++;
        }
    if (running < 2)
        return false;
    last->sequence->session->n_tokens = 0;
    ht_kv_drop(&batch->engine->set, last->sequence->session->kv, 0);
    last->sequence->owner = NULL;
    last->sequence = NULL;
    last->phase = HT_PHASE_WAITING;
    return true;
}

/* Tokens that free sequences hold for later count for nothing: they go when there is no room for those in use. */
static void drop_free(ht_batch *batch) {
    size_t held = tokens_held(batch);
    for (size_t i = 0; i < batch->n_sequences; i++)
        held += batch->sequences[i].owner ? 0 : batch->sequences[i].session->n_tokens;
    while (held > batch->most_tokens) {
        ht_sequence *oldest = NULL;
        for (size_t i = 0; i < batch->n_sequences; i++) {
            ht_sequence *s = &batch->sequences[i];
            if (!s->owner && s->session->n_tokens && (!oldest || s->used < oldest->used))
                oldest = s;
        }
        if (!oldest)
            return;
        held -= oldest->session->n_tokens;
        oldest->session->n_tokens = 0;
        ht_kv_drop(&batch->engine->set, oldest->session->kv, 0);
    }
}

/* In the order in which they came: nobody overtakes one for whom there is no room yet. */
static void begin_waiting(ht_batch *batch) {
    for (size_t i = 0; i < batch->n_requests; i++) {
        ht_batch_request *r = batch->requests[i];
        if (r->phase != HT_PHASE_WAITING)
            continue;
        const size_t held = tokens_held(batch);
        if ((held && held + r->n_ids + MARGIN > batch->most_tokens) || !begin(batch, r))
            return;
    }
}

/* ---- composing --------------------------------------------------------------------------------------------------- */

/* Tokens of prompts that the pass may have beside `answers` tokens of answers. */
static size_t prompt_budget(const ht_batch *batch, size_t answers) {
    const size_t room = batch->engine->set.chunk - answers;
    if (!answers)
        return room;
    double most = batch->rate > 0 ? batch->rate * batch->pass_seconds : FIRST_PIECE;
    most = most > (double)room ? (double)room : most;
    /* rounded, for every other number of tokens is planned anew */
    const size_t n = (size_t)most / LEAST_PIECE * LEAST_PIECE;
    return ht_min_size(ht_max_size(n, LEAST_PIECE), room);
}

static size_t left_of(const ht_batch_request *r) {
    return r->n_ids - r->sequence->session->n_tokens;
}

/* Divides the budget among those in prefill: equally, so that short prompts need not wait for long ones, and what is
 * over to who came first. */
static void share_out(ht_batch *batch, size_t budget, size_t pieces[HT_MAX_SEQUENCES]) {
    size_t n = 0;
    for (size_t i = 0; i < batch->n_sequences; i++) {
        pieces[i] = 0;
        n += batch->sequences[i].owner && batch->sequences[i].owner->phase == HT_PHASE_PREFILL;
    }
    const size_t each = n ? budget / n : 0;
    for (int round = 0; round < 2; round++)
        for (size_t k = 0; k < batch->n_requests && budget; k++) {
            const ht_batch_request *r = batch->requests[k];
            if (r->phase != HT_PHASE_PREFILL)
                continue;
            size_t *piece = &pieces[r->sequence - batch->sequences];
            const size_t more = ht_min_size(left_of(r) - *piece, round ? budget : ht_min_size(each, budget));
            *piece += more;
            budget -= more;
        }
}

static void add_part(ht_batch_pass *pass, ht_batch_request *r, size_t n, bool wanted) {
    ht_session *session = r->sequence->session;
    const size_t i = pass->n_parts++;
    pass->parts[i] = (ht_session_part){session, r->ids + session->n_tokens, n};
    pass->requests[i] = r;
    pass->wanted[i] = wanted;
    pass->tokens += n;
    if (wanted && pass->first == SIZE_MAX)
        pass->first = pass->tokens - 1;
}

void ht_batch_compose(ht_batch *batch, ht_batch_pass *pass) {
    size_t pieces[HT_MAX_SEQUENCES], answers = 0;
    *pass = (ht_batch_pass){.first = SIZE_MAX};
    while (tokens_held(batch) > batch->most_tokens && push_back(batch))
        continue;
    begin_waiting(batch);
    drop_free(batch);
    for (size_t i = 0; i < batch->n_sequences; i++)
        answers += batch->sequences[i].owner && batch->sequences[i].owner->phase == HT_PHASE_DECODE;
    share_out(batch, prompt_budget(batch, answers), pieces);
    /* What the tail computes begins with the first token that is wanted: parts in which none is come first, whole
     * answers last. */
    for (int kind = 0; kind < 3; kind++)
        for (size_t i = 0; i < batch->n_sequences; i++) {
            ht_batch_request *r = batch->sequences[i].owner;
            if (!r)
                continue;
            const bool decodes = r->phase == HT_PHASE_DECODE, ends = !decodes && pieces[i] == left_of(r);
            if ((decodes ? 2 : ends) != kind || (!decodes && !pieces[i]))
                continue;
            pass->prompt_tokens += pieces[i];
            add_part(pass, r, decodes ? 1 : pieces[i], decodes || ends);
            batch->sequences[i].used = batch->steps;
        }
    if (pass->first == SIZE_MAX)
        pass->first = pass->tokens;
}

/* ---- computing --------------------------------------------------------------------------------------------------- */

/* Logits of the tokens that are wanted: parts of one token stand behind each other, and are asked for together. */
static ht_status run_heads(ht_batch *batch, const ht_batch_pass *pass, ht_error *error) {
    const size_t vocabulary = (size_t)batch->engine->model->hparams.vocabulary;
    ht_status status = HT_OK;
    for (size_t i = 0, end = 0; i < pass->n_parts && !status; i++) {
        end += pass->parts[i].n;
        if (!pass->wanted[i])
            continue;
        size_t count = 1;
        while (i + count < pass->n_parts && pass->parts[i + count].n == 1 && pass->wanted[i + count] &&
               count < ht_min_size(HT_HEAD_TOKENS, batch->engine->set.chunk))
            count++;
        const float *logits;
        status = ht_passes_head(&batch->engine->passes, end - 1, count, &logits, error);
        if (!status)
            memcpy(batch->logits + i * vocabulary, logits, count * vocabulary * sizeof *logits);
        end += count - 1;
        i += count - 1;
    }
    return status;
}

ht_status ht_batch_run(ht_batch *batch, const ht_batch_pass *pass, ht_error *error) {
    ht_status status;
    size_t before[HT_MAX_SEQUENCES];
    const double start = ht_clock_now(batch->engine->set.time);
    for (size_t i = 0; i < pass->n_parts; i++)
        before[i] = pass->parts[i].session->n_tokens;
    do { /* a device that fails is done without */
        for (size_t i = 0; i < pass->n_parts; i++)
            pass->parts[i].session->n_tokens = before[i];
        status = ht_session_feed_parts(pass->parts, pass->n_parts, pass->first, &batch->never, error);
        if (!status)
            status = run_heads(batch, pass, error);
    } while (status == HT_ERROR_DEVICE && ht_engine_recover(batch->engine));
    for (size_t i = 0; i < pass->n_parts && status; i++)
        pass->parts[i].session->n_tokens = before[i];
    if (status)
        return status;
    for (size_t i = 0; i < pass->n_parts; i++)
        if (pass->requests[i]->phase == HT_PHASE_PREFILL)
            ht_session_passed(pass->parts[i].session, before[i], pass->wanted[i]);
    if (pass->prompt_tokens) {
        const double rate = (double)pass->tokens / (ht_clock_now(batch->engine->set.time) - start + 1e-9);
        batch->rate = batch->rate > 0 ? batch->rate + 0.5 * (rate - batch->rate) : rate;
    }
    ht_engine_adapt(batch->engine);
    return HT_OK;
}
