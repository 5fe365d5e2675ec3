/* Small GGUF files that hold a vocabulary (and a chat template), right or wrong on purpose, for the tests of text. */
#ifndef HT_VOCAB_FILE_H
#define HT_VOCAB_FILE_H

#include "gguf/gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct vocab_file {                /* what is NULL or 0 is left out of the file */
    const char *model, *pre, *name, *arch; /* arch NULL: llama */
    const char *chat, *tools;              /* the two templates */
    const char **tokens;
    size_t n_tokens;
    const int32_t *types;
    size_t n_types;
    const float *scores;
    size_t n_scores;
    const char **merges;
    size_t n_merges;
    const int32_t *ends; /* tokenizer.ggml.eos_token_ids */
    size_t n_ends;
    const uint8_t *charsmap; /* tokenizer.ggml.precompiled_charsmap */
    size_t n_charsmap;
    const char *bad_kind; /* this key becomes a string */
    struct {
        const char *key;
        uint32_t value;
    } ids[4];
    struct {
        const char *key;
        bool value;
    } flags[4];
} vocab_file;

typedef struct vocab_bytes {
    ht_text text;
    uint64_t values;
    const char *bad_kind;
} vocab_bytes;

static inline void vocab_put(vocab_bytes *out, const void *data, size_t bytes) {
    if (ht_text_append(&out->text, data, bytes, NULL) != HT_OK)
        abort();
}

static inline void vocab_number(vocab_bytes *out, uint64_t value, size_t bytes) {
    vocab_put(out, &value, bytes);
}

static inline void vocab_string(vocab_bytes *out, const char *text) {
    vocab_number(out, strlen(text), 8);
    vocab_put(out, text, strlen(text));
}

/* Writes the key and its kind; false: the key is the one that gets the wrong kind, and is done. */
static inline bool vocab_key(vocab_bytes *out, const char *key, ht_gguf_kind kind) {
    bool bad = out->bad_kind && strcmp(key, out->bad_kind) == 0;
    vocab_string(out, key);
    vocab_number(out, bad ? HT_GGUF_STRING : kind, 4);
    if (bad)
        vocab_string(out, "wrong");
    out->values++;
    return !bad;
}

static inline void vocab_text(vocab_bytes *out, const char *key, const char *text) {
    if (text && vocab_key(out, key, HT_GGUF_STRING))
        vocab_string(out, text);
}

static inline bool vocab_array(vocab_bytes *out, const char *key, ht_gguf_kind item, size_t n) {
    if (!vocab_key(out, key, HT_GGUF_ARRAY))
        return false;
    vocab_number(out, item, 4);
    vocab_number(out, n, 8);
    return true;
}

static inline void vocab_strings(vocab_bytes *out, const char *key, const char **list, size_t n) {
    if (!list || !vocab_array(out, key, HT_GGUF_STRING, n))
        return;
    for (size_t i = 0; i < n; i++)
        vocab_string(out, list[i]);
}

/* Opens the file that the description makes; it is gone from the disk at once. NULL: the reader refused it. */
static inline ht_gguf *vocab_open(const vocab_file *v, ht_error *error) {
    vocab_bytes body = {.bad_kind = v->bad_kind}, head = {0};
    vocab_text(&body, "general.architecture", v->arch ? v->arch : "llama");
    vocab_text(&body, "general.name", v->name);
    vocab_text(&body, "tokenizer.ggml.model", v->model);
    vocab_text(&body, "tokenizer.ggml.pre", v->pre);
    vocab_text(&body, "tokenizer.chat_template", v->chat);
    vocab_text(&body, "tokenizer.chat_template.tool_use", v->tools);
    vocab_strings(&body, "tokenizer.ggml.tokens", v->tokens, v->n_tokens);
    vocab_strings(&body, "tokenizer.ggml.merges", v->merges, v->n_merges);
    if (v->types && vocab_array(&body, "tokenizer.ggml.token_type", HT_GGUF_I32, v->n_types))
        vocab_put(&body, v->types, v->n_types * sizeof *v->types);
    if (v->scores && vocab_array(&body, "tokenizer.ggml.scores", HT_GGUF_F32, v->n_scores))
        vocab_put(&body, v->scores, v->n_scores * sizeof *v->scores);
    if (v->ends && vocab_array(&body, "tokenizer.ggml.eos_token_ids", HT_GGUF_I32, v->n_ends))
        vocab_put(&body, v->ends, v->n_ends * sizeof *v->ends);
    if (v->charsmap && vocab_array(&body, "tokenizer.ggml.precompiled_charsmap", HT_GGUF_U8, v->n_charsmap))
        vocab_put(&body, v->charsmap, v->n_charsmap);
    for (size_t i = 0; i < 4 && v->ids[i].key; i++)
        if (vocab_key(&body, v->ids[i].key, HT_GGUF_U32))
            vocab_number(&body, v->ids[i].value, 4);
    for (size_t i = 0; i < 4 && v->flags[i].key; i++)
        if (vocab_key(&body, v->flags[i].key, HT_GGUF_BOOL))
            vocab_number(&body, v->flags[i].value, 1);
    vocab_put(&head, "GGUF", 4);
    vocab_number(&head, 3, 4);
    vocab_number(&head, 0, 8);
    vocab_number(&head, body.values, 8);
    char path[] = "/tmp/hetero-vocab-XXXXXX";
    int fd = mkstemp(path);
    if (fd < 0 || write(fd, head.text.data, head.text.bytes) != (ssize_t)head.text.bytes ||
        write(fd, body.text.data, body.text.bytes) != (ssize_t)body.text.bytes)
        abort();
    close(fd);
    ht_text_free(&head.text);
    ht_text_free(&body.text);
    ht_gguf *file = NULL;
    ht_gguf_open(path, &file, error);
    unlink(path);
    return file;
}

#endif
