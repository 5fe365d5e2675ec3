/* libFuzzer: the input is a text. Every pre-tokenizer's tokenizer of a tiny vocabulary, and SentencePiece's, encodes it; where no
 * special token takes part, what comes back is the text. */
#define _GNU_SOURCE /* memmem */
#include "fuzz/tiny_vocabulary.h"

static void round_trip(const ht_tokenizer *tokenizer, const char *text, size_t bytes, bool special) {
    const bool has_mark = memmem(text, bytes, "\xe2\x96\x81", 3) != NULL;
    int32_t *ids = NULL;
    size_t n = 0;
    ht_text out = {0};
    if (ht_tokenizer_encode(tokenizer, text, bytes, special ? HT_TOKENIZE_ADD_SPECIAL | HT_TOKENIZE_PARSE_SPECIAL : 0,
                            &ids, &n, NULL) != HT_OK)
        return;
    for (size_t i = 0; i < n; i++)
        must(ids[i] >= 0 && ids[i] < ht_tokenizer_size(tokenizer));
    must(ht_tokenizer_decode(tokenizer, ids, n, true, &out, NULL) == HT_OK);
    if (!special && !has_mark) /* SentencePiece's own mark of a space comes back as a space */
        must(out.bytes == bytes && (!bytes || memcmp(out.data, text, bytes) == 0));
    ht_text_free(&out);
    ht_free(ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static const char *const names[] = {"default", "smollm", "llama-bpe", "qwen2", "tekken"};
    static ht_tokenizer *tokenizers[HT_COUNT(names) + 1];
    for (size_t i = 0; i < HT_COUNT(tokenizers); i++) {
        if (!tokenizers[i])
            tokenizers[i] = i < HT_COUNT(names) ? make_tokenizer(names[i]) : make_sentencepiece();
        for (int special = 0; special < 2; special++)
            round_trip(tokenizers[i], (const char *)data, bytes, special);
    }
    return 0;
}
