/* Text to tokens and back. */
#ifndef HT_TEXT_H
#define HT_TEXT_H

#include "gguf/gguf.h"

typedef struct ht_tokenizer ht_tokenizer;

/* From the keys tokenizer.ggml.*: models "gpt2" (byte-level BPE, pre-tokenizer by tokenizer.ggml.pre) and "llama"
 * (SentencePiece BPE with byte fallback). Checks every array's kind and count, ids within the vocabulary; of equal
 * pieces the first counts; merges that name absent pieces are ignored. The file must outlive the tokenizer (strings
 * point into it). HT_ERROR_UNSUPPORTED: the file has none, or one of a kind that is not known. */
ht_status ht_tokenizer_create(const ht_gguf *file, ht_tokenizer **tokenizer, ht_error *error);
void ht_tokenizer_destroy(ht_tokenizer *tokenizer);

const char *ht_tokenizer_name(const ht_tokenizer *tokenizer); /* "gpt2/smollm" */
int ht_tokenizer_size(const ht_tokenizer *tokenizer);         /* vocabulary */
int ht_tokenizer_bos(const ht_tokenizer *tokenizer);          /* -1: none */
int ht_tokenizer_eos(const ht_tokenizer *tokenizer);
bool ht_tokenizer_adds_bos(const ht_tokenizer *tokenizer);
/* The control token of this text; -1: none. */
int32_t ht_tokenizer_special(const ht_tokenizer *tokenizer, const char *text);
/* eos, eot, eom and eos_token_ids of the file, and its special tokens whose text is known to end a turn or a text
 * (<|im_end|>, <|eot_id|>, </s>, ...) */
bool ht_tokenizer_ends(const ht_tokenizer *tokenizer, int32_t id);

/* As ht_tokenize in hetero.h. Works on invalid UTF-8 (bytes fall back) and on empty text. Near-linear in `bytes`. */
ht_status ht_tokenizer_encode(const ht_tokenizer *tokenizer, const char *text, size_t bytes, unsigned flags,
                              int32_t **ids, size_t *n, ht_error *error);

/* A text that is made of our own parts and of foreign ones (what users write). */
typedef struct ht_script {
    ht_text text;
    ht_stretch *foreign; /* [n_foreign] bytes of text: in order, none touching another; from malloc */
    size_t n_foreign, cap_foreign;
    const bool *
        marks; /* [vocabulary] of user-defined tokens those that a foreign stretch does not become, either; may be NULL */
    enum ht_script_bos {
        HT_BOS_NONE,    /* a BOS at the start is not known of */
        HT_BOS_WRITTEN, /* the template begins with its text, */
        HT_BOS_NAMED    /* or with the variable that stands for it */
    } bos;
} ht_script;
void ht_script_free(ht_script *script);
ht_status ht_script_append(ht_script *script, const char *text, size_t bytes, bool foreign, ht_error *error);
/* Sets found[id] of each special token whose text occurs in this one. */
void ht_tokenizer_find_specials(const ht_tokenizer *tokenizer, const char *text, size_t bytes, bool *found);
/* The same tokens as encoding the whole text with PARSE_SPECIAL, except that no special token takes any byte of a foreign
 * stretch (flags with PARSE_SPECIAL: even that). All else, as words across a border, is as in the whole. */
ht_status ht_tokenizer_encode_script(const ht_tokenizer *tokenizer, const ht_script *script, unsigned flags,
                                     int32_t **ids, size_t *n, ht_error *error);
/* Bytes of one token, as ht_token_text in hetero.h (raw: a leading SentencePiece space is kept). */
const char *ht_tokenizer_text(const ht_tokenizer *tokenizer, int32_t id, bool special, size_t *bytes);

/* Appends the text of many tokens, so that decode(encode(text)) is the text again: the space that SentencePiece models
 * put before a text and after each special token is left out. HT_ERROR_ARGUMENT for an id outside the vocabulary. */
ht_status ht_tokenizer_decode(const ht_tokenizer *tokenizer, const int32_t *ids, size_t n, bool special, ht_text *out,
                              ht_error *error);

#endif
