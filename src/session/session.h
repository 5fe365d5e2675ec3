/* What session.c, generate.c and score.c share. */
#ifndef HT_SESSION_H
#define HT_SESSION_H

#include "engine/engine.h"
#include "session/sampler.h"

#define HT_NO_STATE SIZE_MAX
#define HT_SNAPSHOTS 4          /* of a session, the one used least lately goes first */
#define HT_SNAPSHOT_TOKENS 2048 /* from one on the way of a long prompt to the next */

/* Copies of a session's states (snapshot.c). */
typedef struct ht_snapshot {
    size_t tokens; /* that they stand for; 0: none */
    uint64_t hash; /* of these */
    uint64_t used;
    uint8_t *data; /* NULL: devices have the states in memory of their own */
} ht_snapshot;

struct ht_session {
    ht_engine *engine;
    ht_kv_layer *kv;
    int32_t *tokens; /* [context]; the first n_tokens have their keys and values in kv */
    size_t n_tokens;
    unsigned caches_lost; /* of the engine, when kv was whole last */
    /* The model has states: these stand for the first state_tokens of tokens, HT_NO_STATE: for nothing that is known,
     * because a pass ended within. They cannot be cut back. */
    bool recurrent;
    size_t state_tokens;
    ht_snapshot snapshots[HT_SNAPSHOTS];
    size_t snapshot_bytes; /* of each; 0: none is taken */
    uint64_t snapshot_clock;
    float *logits;      /* [vocabulary]: a copy, because the engine's own are overwritten by the next session's pass */
    atomic_bool cancel; /* set from anywhere, taken back by the call that returns HT_ERROR_CANCELLED */
};

size_t ht_session_vocabulary(const ht_session *session);
size_t ht_session_context(const ht_session *session);
/* HT_ERROR_ARGUMENT, naming index and id, if one of ids[0..n) is outside the vocabulary. */
ht_status ht_session_check_ids(const ht_session *session, const int32_t *ids, size_t n, ht_error *error);
/* The same, and that there are some, and no more than the context takes (HT_ERROR_CONTEXT). */
ht_status ht_session_check_text(const ht_session *session, const int32_t *ids, size_t n, ht_error *error);
/* HT_ERROR_UNSUPPORTED, naming the family, of a model that makes embeddings only; what every call does that wants logits. */
ht_status ht_session_check_writes(const ht_session *session, ht_error *error);
/* Both. */
ht_status ht_session_check_prompt(const ht_session *session, const int32_t *ids, size_t n, ht_error *error);
/* True, once, after ht_session_cancel. */
bool ht_session_take_cancel(ht_session *session);
/* What every call does before a pass: HT_ERROR_CANCELLED if that was asked for. */
ht_status ht_session_check_cancel(ht_session *session, ht_error *error);
/* Runs ids[0..n), n <= chunk, behind the session's tokens and appends them to these on success. The caller holds the
 * engine, has checked ids and context, and may ask ht_passes_head for the logits of ids[first..n). `cancel` is looked at
 * on the way (the session's own, or that of the session a measurement was called with). */
ht_status ht_session_feed(ht_session *session, const int32_t *ids, size_t n, size_t first, atomic_bool *cancel,
                          ht_error *error);
/* The same of several sessions of one engine, each there once, in one pass of `chunk` tokens at most: the parts follow
 * each other, and logits may be asked for from token `first` of them all on. */
typedef struct ht_session_part {
    ht_session *session;
    const int32_t *ids;
    size_t n;
} ht_session_part;
#define HT_MAX_SEQUENCES 64 /* of one pass */
ht_status ht_session_feed_parts(const ht_session_part *parts, size_t n_parts, size_t first, atomic_bool *cancel,
                                ht_error *error);
/* Memory for copies of states, where the model has states and the host sees them. */
ht_status ht_snapshots_create(ht_session *session, ht_error *error);
void ht_snapshots_destroy(ht_session *session);
/* A pass of a prompt's tokens is over, before which the session had `before`. Its states are copied where the prompt
 * ends (`last`), for a later one may part from it there, and on the way of a long one. The caller holds the engine. */
void ht_session_passed(ht_session *session, size_t before, bool last);
/* Of the first `common` tokens of the session so many need not be computed again: all of them, or, with states, as many
 * as there is a state of. */
size_t ht_session_reusable(ht_session *session, size_t common);
/* The session has n tokens, as many as ht_session_reusable has said of `from`: itself, or one whose tokens, keys,
 * values and states it has copied. Nothing is under way. */
void ht_session_go_back(ht_session *session, ht_session *from, size_t n);
/* The logits that follow token `position` are numbers; else an error that says which weights are none (numbers.c). */
ht_status ht_session_check_logits(const ht_session *session, const float *logits, size_t position, ht_error *error);
/* That error, where it is known that there are none: HT_OP_ARGMAX gave -1. */
ht_status ht_session_no_numbers(const ht_session *session, size_t position, ht_error *error);
/* ht_session_prefill and ht_session_decode for greedy generation: *next is the id of the largest logit, and the logits
 * themselves need not leave the device that computes them. */
ht_status ht_session_prefill_greedy(ht_session *session, const int32_t *ids, size_t n, int32_t *next, size_t *reused,
                                    ht_error *error);
ht_status ht_session_decode_greedy(ht_session *session, int32_t id, int32_t *next, ht_error *error);

#endif
