/* What batch.c (requests) and batch_pass.c (which of their tokens make up a pass) share. */
#ifndef HT_BATCH_H
#define HT_BATCH_H

#include "session/answer.h"
#include "session/session.h"

#include <pthread.h>

/* Of a request: it waits for a sequence; tokens of it have to be computed before the next one is known; the newest
 * token has; it has ended. */
typedef enum ht_phase { HT_PHASE_WAITING, HT_PHASE_PREFILL, HT_PHASE_DECODE, HT_PHASE_ENDED } ht_phase;

/* A sequence's tokens, keys and values stay when its request has ended, for one that begins likewise. */
typedef struct ht_sequence {
    ht_session *session;
    struct ht_batch_request *owner; /* NULL: none */
    uint64_t used;                  /* the step in which it was last: the least one goes first */
} ht_sequence;

typedef struct ht_batch_request {
    uint64_t name;
    ht_phase phase;
    ht_generate_options options;
    ht_sampling sampling; /* options.sampling points here */
    char **stop;          /* [options.n_stop], its own */
    int32_t *ids;         /* [n_ids] prompt and answer, with room for all that may come */
    size_t n_ids, n_prompt;
    ht_answer answer;
    ht_sequence *sequence; /* NULL: none */
    bool cancelled;
    ht_generation piece; /* of this step; */
    bool has_piece;
    double begun, first; /* seconds: its turn has come; its first token was there; 0: not yet */
    size_t reused;
    ht_status status; /* of a request that has ended */
    ht_error error;
} ht_batch_request;

struct ht_batch {
    ht_engine *engine;
    size_t n_sequences, most_tokens;
    double pass_seconds;
    ht_sequence sequences[HT_MAX_SEQUENCES];
    float *logits;               /* [n_sequences][vocabulary]: copies, for the engine's own are the next pass's */
    pthread_mutex_t mutex;       /* of what follows; the lanes are taken first */
    ht_batch_request **requests; /* [n_requests] in the order in which they came */
    size_t n_requests, cap_requests;
    ht_batch_event *events;
    size_t n_events, cap_events;
    uint64_t names, steps;
    double rate;       /* tokens a second of passes with pieces of prompts, lately; 0: there was none */
    atomic_bool never; /* no pass is cancelled */
};

/* Tokens that a pass computes: of each sequence one part. Parts whose last token is followed come last. */
typedef struct ht_batch_pass {
    ht_session_part parts[HT_MAX_SEQUENCES];
    ht_batch_request *requests[HT_MAX_SEQUENCES]; /* whose they are */
    bool wanted[HT_MAX_SEQUENCES];                /* what follows the part's last token */
    size_t n_parts, tokens, prompt_tokens;
    size_t first; /* token of the pass from which on logits are wanted */
} ht_batch_pass;

/* Requests come to have sequences, or lose them; then what each of these computes next. Both are locked, nothing is
 * under way. */
void ht_batch_compose(ht_batch *batch, ht_batch_pass *pass);
/* Computes it, logits that are wanted included: part i's go to batch->logits[i]. The lanes are locked, the batch is not. */
ht_status ht_batch_run(ht_batch *batch, const ht_batch_pass *pass, ht_error *error);

#endif
