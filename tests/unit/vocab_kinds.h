/* A tiny vocabulary of each kind that does not merge bytes, for the tests of text and their fuzzers. */
#ifndef HT_VOCAB_KINDS_H
#define HT_VOCAB_KINDS_H

#include "unit/vocab_file.h"

#include "text/vocab.h"

#define MARK "\xe2\x96\x81" /* U+2581, how most of them write a space */

enum { /* ids of the pieces after the 256 bytes */
       K_UNKNOWN = 256,
       K_BEGIN,
       K_END,
       K_TAG,
       K_A,
       K_B,
       K_AB,
       K_SPACE,
       K_SPACE_A,
       K_SPACE_AB,
       K_BAB,
       K_FI,
       K_E_ACUTE,
       K_NEWLINES,
       K_COMMA,
       K_COUNT
};

typedef struct vocab_kind {
    char bytes[256][8];
    const char *tokens[K_COUNT];
    int32_t types[K_COUNT];
    float scores[K_COUNT];
    uint8_t charsmap[4 * 256 * 9 + 64];
    vocab_file file;
} vocab_kind;

/* Adds what replaces `from` to a double array whose nodes have 256 units each; `node` counts those in use. */
static inline void vocab_replace(uint32_t *units, size_t *node, const char *from, uint32_t text) {
    size_t at = 0, block = 1;
    units[0] = 256u << 10;
    for (const char *c = from; *c; c++) {
        const uint8_t byte = (uint8_t)*c;
        at = block * 256 + byte;
        if (units[at] == 0)
            units[at] = byte | (uint32_t)(at ^ ++*node * 256) << 10;
        block = (at ^ units[at] >> 10) / 256;
    }
    units[at] |= 1u << 8;
    units[block * 256] = 1u << 31 | text;
}

/* The ligature fi is "fi", a tab a space, U+200B nothing. */
static inline void vocab_charsmap(vocab_kind *v) {
    enum { UNITS = 256 * 9 };
    static const char texts[] = "fi\0 \0";
    static uint32_t units[UNITS];
    const uint32_t bytes = sizeof units;
    size_t node = 1;
    memset(units, 0, sizeof units);
    vocab_replace(units, &node, "\xef\xac\x81", 0);
    vocab_replace(units, &node, "\t", 3);
    vocab_replace(units, &node, "\xe2\x80\x8b", 5);
    memcpy(v->charsmap, &bytes, 4);
    memcpy(v->charsmap + 4, units, bytes);
    memcpy(v->charsmap + 4 + bytes, texts, sizeof texts);
    v->file.charsmap = v->charsmap;
    v->file.n_charsmap = 4 + bytes + sizeof texts;
}

/* `model` is tokenizer.ggml.model. */
static inline void vocab_kind_init(vocab_kind *v, const char *model) {
    static const char *const pieces[] = {"<unk>",  "<s>",     "</s>", "<tag>", "a",        "b",    "ab", MARK,
                                         MARK "a", MARK "ab", "bab",  "fi",    "\xc3\xa9", "\n\n", ","};
    static const float scores[] = {0, 0, 0, 0, -5, -5, -4, -3, -4.5f, -7, -12, -6, -6, -6, -6};
    static const char *merges[] = {"a b", MARK " a", MARK "a b", "b ab", "f i"};
    const bool escapes = strcmp(model, "rwkv") == 0, words = strcmp(model, "bert") == 0;
    memset(v, 0, sizeof *v);
    for (int i = 0; i < K_COUNT; i++) {
        v->types[i] = HT_TOKEN_NORMAL;
        if (i < 256) {
            snprintf(v->bytes[i], sizeof v->bytes[i], escapes ? "\\x%02x" : "<0x%02X>", i);
            v->types[i] = escapes ? HT_TOKEN_NORMAL : HT_TOKEN_BYTE;
        }
        v->tokens[i] = i < 256 ? v->bytes[i] : pieces[i - 256];
        v->scores[i] = i < 256 ? 0 : scores[i - 256];
    }
    if (escapes)
        v->tokens[K_SPACE_A] = " a", v->tokens[K_SPACE_AB] = " ab", v->tokens[K_NEWLINES] = "\\n\\n";
    if (words)
        v->tokens[K_COMMA] = MARK ",", v->tokens[K_BAB] = MARK "bab";
    v->types[K_UNKNOWN] = HT_TOKEN_UNKNOWN;
    v->types[K_BEGIN] = v->types[K_END] = HT_TOKEN_CONTROL;
    v->types[K_TAG] = HT_TOKEN_USER_DEFINED;
    v->file = (vocab_file){.model = model,
                           .tokens = v->tokens,
                           .n_tokens = K_COUNT,
                           .types = v->types,
                           .n_types = K_COUNT,
                           .scores = v->scores,
                           .n_scores = K_COUNT,
                           .merges = merges,
                           .n_merges = HT_COUNT(merges),
                           .ids = {{"tokenizer.ggml.bos_token_id", K_BEGIN},
                                   {"tokenizer.ggml.eos_token_id", K_END},
                                   {"tokenizer.ggml.unknown_token_id", K_UNKNOWN},
                                   {"tokenizer.ggml.seperator_token_id", K_END}}};
}

#endif
