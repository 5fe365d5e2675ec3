/* Inside the tokenizer: the state of one encoding. Only src/text includes this. */
#ifndef HT_ENCODER_H
#define HT_ENCODER_H

#include "text/vocab.h"

typedef struct ht_symbol {
    uint32_t start, bytes; /* in encoder.text; bytes 0: merged into the one before */
    int32_t prev, next;    /* -1: none */
    int32_t id;            /* -1: no piece */
} ht_symbol;

typedef struct ht_candidate {
    uint64_t key; /* priority << 32 | index of the left symbol */
    uint32_t right, bytes;
    int32_t id;
} ht_candidate;

typedef struct ht_step { /* of the best path that ends (PLaMo 2: begins) at a place of the text */
    double score;
    uint32_t bytes;
    int32_t id; /* -1: no piece */
} ht_step;

typedef struct ht_encoder {
    const ht_tokenizer *tokenizer;
    int32_t *ids;
    size_t n_ids, cap_ids;
    size_t n_before;  /* ids before the stretch of text at hand */
    const char *text; /* being merged */
    ht_symbol *symbols;
    size_t cap_symbols;
    ht_candidate *heap;
    size_t n_heap, cap_heap;
    ht_step *steps;
    size_t cap_steps;
    ht_text normal; /* the stretch of text as its normaliser leaves it */
    pcre2_match_data *matches[HT_MAX_PASSES];
} ht_encoder;

ht_status ht_encoder_push(ht_encoder *encoder, int32_t id, ht_error *error);
/* The tokens of single bytes, else the unknown token, which SentencePiece says once for a row of them. HT_ERROR_FORMAT:
 * the vocabulary has neither. */
ht_status ht_encoder_push_bytes(ht_encoder *encoder, const char *text, size_t bytes, ht_error *error);

/* A stretch of text without special tokens, by kind of vocabulary; normalised already. */
ht_status ht_encode_unigram(ht_encoder *encoder, const char *text, size_t bytes, ht_error *error);
ht_status ht_encode_plamo2(ht_encoder *encoder, const char *text, size_t bytes, ht_error *error);
ht_status ht_encode_greedy(ht_encoder *encoder, const char *text, size_t bytes, ht_error *error);
/* One word; `user` is an ht_encoder. */
ht_status ht_encode_wordpiece(void *user, const char *word, size_t bytes, ht_error *error);

#endif
