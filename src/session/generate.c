/* Generation: prefill, then decode until the answer ends. */
#include "session/answer.h"
#include "session/session.h"

/* From the prompt's prediction to the end. */
static ht_status sample_and_decode(ht_session *session, ht_answer *answer, ht_prediction next, ht_error *error) {
    for (bool going = true; going;) {
        answer->stop = HT_STOP_CANCELLED;
        if (ht_session_take_cancel(session))
            break;
        ht_status status = ht_answer_take(answer, &next, session->tokens, session->n_tokens,
                                          ht_clock_now(session->engine->set.time), &going, error);
        if (status == HT_OK && going) {
            const int32_t id = answer->ids[answer->n - 1];
            answer->stop = HT_STOP_CANCELLED;
            status = next.logits != NULL ? ht_session_decode(session, id, &next.logits, error)
                                         : ht_session_decode_greedy(session, id, &next.best, error);
        }
        if (status == HT_ERROR_CANCELLED)
            break;
        if (status != HT_OK)
            return status;
    }
    ht_answer_end(answer);
    return HT_OK;
}

static ht_status generate(ht_session *session, ht_answer *answer, const int32_t *ids, size_t n,
                          ht_generate_result *result, ht_error *error) {
    ht_prediction next = {NULL, 0};
    ht_clock *clock = session->engine->set.time;
    const double start = ht_clock_now(clock);
    ht_status status = ht_answer_needs_logits(answer)
                           ? ht_session_prefill(session, ids, n, &next.logits, &result->prompt_reused, error)
                           : ht_session_prefill_greedy(session, ids, n, &next.best, &result->prompt_reused, error);
    result->prefill_ms = (ht_clock_now(clock) - start) * 1e3;
    result->prompt_tokens = n;
    if (status == HT_OK)
        return sample_and_decode(session, answer, next, error);
    answer->stop = HT_STOP_CANCELLED;
    return status == HT_ERROR_CANCELLED ? HT_OK : status;
}

ht_status ht_session_generate(ht_session *session, const int32_t *ids, size_t n, const ht_generate_options *options,
                              ht_generate_result *result, ht_error *error) {
    ht_generate_options read;
    ht_generate_result made = HT_INIT(ht_generate_result);
    ht_answer answer = {0};
    ht_status status = ht_struct_check(result, "ht_generate_result", error);
    if (status == HT_OK)
        status = ht_struct_read(&read, sizeof read, options, "ht_generate_options", error);
    if (status == HT_OK)
        status = ht_answer_begin(&answer, session->engine->model, ht_session_context(session), n, &read, error);
    if (status == HT_OK)
        status = generate(session, &answer, ids, n, &made, error);
    if (status == HT_OK) {
        ht_answer_move(&answer, &made);
        ht_struct_write(result, &made, sizeof made);
    }
    ht_answer_clear(&answer);
    return status;
}
