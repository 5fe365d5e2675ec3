/* libFuzzer: the input is a text. Every pre-tokenizer's tokenizer of a tiny vocabulary, and the other kinds', encodes
 * it; where no special token takes part, what comes back is the text, or its normal form where the tokenizer composes.
 * The first half of the input is a SentencePiece table of replacements, too. */
#define _GNU_SOURCE /* memmem */
#include "fuzz/tiny_vocabulary.h"

typedef enum returns { ANYTHING, THE_TEXT, COMPOSED } returns; /* what decoding gives */

static void round_trip(const ht_tokenizer *tokenizer, const char *text, size_t bytes, bool special, returns back) {
    const bool has_mark = memmem(text, bytes, MARK, 3) != NULL;
    int32_t *ids = NULL;
    size_t n = 0;
    ht_text out = {0}, normal = {0};
    if (ht_tokenizer_encode(tokenizer, text, bytes, special ? HT_TOKENIZE_ADD_SPECIAL | HT_TOKENIZE_PARSE_SPECIAL : 0,
                            &ids, &n, NULL) != HT_OK)
        return;
    for (size_t i = 0; i < n; i++)
        must(ids[i] >= 0 && ids[i] < ht_tokenizer_size(tokenizer));
    must(ht_tokenizer_decode(tokenizer, ids, n, true, &out, NULL) == HT_OK);
    if (back == COMPOSED)
        must(ht_normalise_nfc(text, bytes, &normal, NULL) == HT_OK), text = normal.data, bytes = normal.bytes;
    if (!special && !has_mark && back != ANYTHING) /* SentencePiece's own mark of a space comes back as a space */
        must(out.bytes == bytes && (!bytes || memcmp(out.data, text, bytes) == 0));
    ht_text_free(&normal);
    ht_text_free(&out);
    ht_free(ids);
}

static void known_kinds(const char *text, size_t bytes) {
    static const struct {
        const char *name; /* of the pre-tokenizer; model: of the kind */
        const char *model;
        returns back;
    } rows[] = {{"default", NULL, THE_TEXT},    {"smollm", NULL, THE_TEXT},       {"llama-bpe", NULL, THE_TEXT},
                {"qwen2", NULL, COMPOSED},      {"tekken", NULL, THE_TEXT},       {"gpt-4o", NULL, THE_TEXT},
                {"kimi-k2", NULL, THE_TEXT},    {"deepseek-llm", NULL, THE_TEXT}, {"deepseek-v3", NULL, THE_TEXT},
                {"tiny_aya", NULL, COMPOSED},   {"youtu", NULL, THE_TEXT},        {"afmoe", NULL, THE_TEXT},
                {"exaone-moe", NULL, THE_TEXT}, {"chameleon", NULL, THE_TEXT},    {"superbpe", NULL, THE_TEXT},
                {NULL, NULL, THE_TEXT},         {NULL, "t5", ANYTHING},           {NULL, "bert", ANYTHING},
                {NULL, "plamo2", ANYTHING},     {NULL, "rwkv", THE_TEXT},         {NULL, "gemma4", THE_TEXT},
                {NULL, "whitespace", ANYTHING}};
    static ht_tokenizer *tokenizers[HT_COUNT(rows)];
    for (size_t i = 0; i < HT_COUNT(rows); i++) {
        if (!tokenizers[i])
            tokenizers[i] = rows[i].name    ? make_tokenizer(rows[i].name)
                            : rows[i].model ? make_kind(rows[i].model, true)
                                            : make_sentencepiece();
        for (int special = 0; special < 2; special++)
            round_trip(tokenizers[i], text, bytes, special, rows[i].back);
    }
}

static void hostile_replacements(const uint8_t *data, size_t bytes) {
    ht_normaliser normaliser = {.merges_spaces = bytes % 2 == 1};
    ht_arena arena = {0};
    ht_text out = {0};
    const size_t half = bytes / 2;
    if (ht_normaliser_charsmap(&normaliser, data, half, "fuzz", &arena, NULL) == HT_OK)
        must(ht_normalise_pieces(&normaliser, bytes % 3 == 1, (const char *)data + half, bytes - half, &out, NULL) ==
             HT_OK);
    ht_text_free(&out);
    ht_arena_free(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    known_kinds((const char *)data, bytes);
    hostile_replacements(data, bytes);
    return 0;
}
