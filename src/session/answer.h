/* What a request for an answer comes to, token by token (answer.c): of one session's generation, or of a batch's. One
 * thread at a time. */
#ifndef HT_ANSWER_H
#define HT_ANSWER_H

#include "base/base.h"
#include "model/model.h"
#include "session/sampler.h"

typedef struct ht_answer {
    const ht_generate_options *options;
    ht_sampler *sampler;     /* its own, or the options' */
    ht_tokenizer *tokenizer; /* NULL for a model without text */
    size_t vocabulary;
    uint64_t seed;
    size_t limit; /* tokens at most: max_tokens and what the context leaves */
    int32_t *ids; /* [n] */
    size_t n, ids_capacity;
    ht_text text;
    size_t shown;      /* bytes of text handed to the caller */
    int32_t *stop_ids; /* [n_stop] the control token that a stop string is the text of; -1: none */
    float *changed;    /* [vocabulary] logits that on_logits has seen; NULL: there is none */
    ht_token_logprob *top;
    size_t n_top, top_capacity;
    double first_token, last_token; /* when they were taken, seconds */
    ht_stop stop;                   /* once it has ended: why; until then CANCELLED */
} ht_answer;

/* What the model says next: logits [vocabulary], or (NULL) only their largest's id, where that is all that is needed. */
typedef struct ht_prediction {
    const float *logits;
    int32_t best;
} ht_prediction;

/* Begins the answer to a prompt of so many tokens. The options are complete (ht_struct_read), and outlive the answer.
 * ht_answer_clear, whatever comes of it. */
ht_status ht_answer_begin(ht_answer *answer, const ht_model *model, size_t context, size_t n_prompt,
                          const ht_generate_options *options, ht_error *error);
/* Do the largest logits' ids not suffice? */
bool ht_answer_needs_logits(const ht_answer *answer);
/* The next token, by what the model says behind history[0..n). *going: it is ids[n - 1] and wants to be followed; else
 * nothing more is, answer->stop says why, and ht_answer_end is next. `now`: seconds. */
ht_status ht_answer_take(ht_answer *answer, const ht_prediction *next, const int32_t *history, size_t n, double now,
                         bool *going, ht_error *error);
/* Hands over the text that was held back. */
void ht_answer_end(ht_answer *answer);
/* Moves what there is into the result. */
void ht_answer_move(ht_answer *answer, ht_generate_result *result);
void ht_answer_clear(ht_answer *answer);

#endif
