/* Tokenizers of tiny vocabularies, which can say every byte. They live as long as the program. */
#ifndef HT_FUZZ_TINY_VOCABULARY_H
#define HT_FUZZ_TINY_VOCABULARY_H

#include "text/vocab.h"
#include "unit/vocab_kinds.h"

#include "fuzz/fuzz.h"

#define BYTES 256
#define MERGES 6

/* A tokenizer points into its file; the list keeps it from being taken for a leak. */
static inline ht_gguf *stays_open(ht_gguf *file) {
    static ht_gguf *volatile files[64];
    static size_t n;
    must(n < HT_COUNT(files));
    return files[n++] = file;
}

/* A byte-level vocabulary: all bytes, some pieces, a special token. */
static inline ht_tokenizer *make_tokenizer(const char *pre) {
    static char bytes[BYTES][3];
    static const char *tokens[BYTES + MERGES + 1], *const pieces[MERGES] = {"th",          "the", "\xc4\xa0t",
                                                                            "\xc4\xa0the", "12",  "'s"},
                                                          *merges[MERGES] = {"t h",          "th e", "\xc4\xa0 t",
                                                                             "\xc4\xa0t he", "1 2",  "' s"};
    static int32_t types[BYTES + MERGES + 1];
    for (int b = 0; b < BYTES; b++) {
        bytes[b][ht_byte_to_char((uint8_t)b, bytes[b])] = '\0';
        tokens[b] = bytes[b], types[b] = HT_TOKEN_NORMAL;
    }
    for (int i = 0; i < MERGES; i++)
        tokens[BYTES + i] = pieces[i], types[BYTES + i] = HT_TOKEN_NORMAL;
    merges[3] = "\xc4\xa0 the";
    tokens[BYTES + MERGES] = "<|im_end|>", types[BYTES + MERGES] = HT_TOKEN_CONTROL;
    const vocab_file v = {.model = "gpt2",
                          .pre = pre,
                          .tokens = tokens,
                          .n_tokens = HT_COUNT(tokens),
                          .types = types,
                          .n_types = HT_COUNT(types),
                          .merges = merges,
                          .n_merges = MERGES};
    ht_error error = {0};
    ht_gguf *file = stays_open(vocab_open(&v, &error));
    ht_tokenizer *tokenizer = NULL;
    must(file && ht_tokenizer_create(file, &tokenizer, &error) == HT_OK);
    return tokenizer;
}

/* A SentencePiece vocabulary: bytes and some pieces. */
static inline ht_tokenizer *make_sentencepiece(void) {
    static char bytes[BYTES][8];
    static const char *tokens[BYTES + 8], *const more[8] = {"<unk>", "<s>", "</s>", "\xe2\x96\x81",
                                                            "a",     "b",   "ab",   "\xe2\x96\x81\x61"};
    static int32_t types[BYTES + 8];
    static float scores[BYTES + 8];
    for (int i = 0; i < BYTES + 8; i++) {
        if (i >= 8)
            snprintf(bytes[i - 8], sizeof bytes[0], "<0x%02X>", i - 8);
        tokens[i] = i < 8 ? more[i] : bytes[i - 8];
        types[i] = i == 0 ? HT_TOKEN_UNKNOWN : i < 3 ? HT_TOKEN_CONTROL : i < 8 ? HT_TOKEN_NORMAL : HT_TOKEN_BYTE;
        scores[i] = (float)-i;
    }
    const vocab_file v = {.model = "llama",
                          .tokens = tokens,
                          .n_tokens = HT_COUNT(tokens),
                          .types = types,
                          .n_types = HT_COUNT(types),
                          .scores = scores,
                          .n_scores = HT_COUNT(scores)};
    ht_error error = {0};
    ht_gguf *file = stays_open(vocab_open(&v, &error));
    ht_tokenizer *tokenizer = NULL;
    must(file && ht_tokenizer_create(file, &tokenizer, &error) == HT_OK);
    return tokenizer;
}

/* A vocabulary of another kind, by tokenizer.ggml.model; `charsmap`: with replacements. */
static inline ht_tokenizer *make_kind(const char *model, bool charsmap) {
    static vocab_kind kinds[16];
    static size_t n;
    must(n < HT_COUNT(kinds));
    vocab_kind *v = &kinds[n++];
    vocab_kind_init(v, model);
    if (charsmap)
        vocab_charsmap(v);
    ht_error error = {0};
    ht_gguf *file = stays_open(vocab_open(&v->file, &error));
    ht_tokenizer *tokenizer = NULL;
    must(file && ht_tokenizer_create(file, &tokenizer, &error) == HT_OK);
    return tokenizer;
}

#endif
