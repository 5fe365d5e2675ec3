/* libFuzzer: the input is a chat template and messages, each ended by a NUL: recognised or refused, and rendered. A message
 * begins with a digit for its role. */
#include "model/model.h"

#include "fuzz/tiny_vocabulary.h"

#define MESSAGES 8

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static const char *const roles[] = {"system", "user", "assistant", "tool"};
    static ht_tokenizer *tokenizer;
    ht_message messages[MESSAGES];
    size_t n = 0;
    if (!tokenizer)
        tokenizer = make_sentencepiece();
    char *text = malloc(bytes + 1);
    must(text != NULL);
    if (bytes)
        memcpy(text, data, bytes);
    text[bytes] = '\0';
    for (const char *at = text + strlen(text) + 1; at < text + bytes && n < MESSAGES; at += strlen(at) + 1)
        messages[n++] = (ht_message){roles[(uint8_t)*at % HT_COUNT(roles)], *at ? at + 1 : at};
    ht_error error = {0};
    ht_gguf *file = vocab_open(&(vocab_file){.chat = text}, &error);
    if (file) {
        const ht_chat_template *chat = ht_chat_recognise(file);
        ht_model model = {.file = file, .chat = chat, .tokenizer = tokenizer};
        char *out = NULL;
        must(!chat || ht_chat_name(chat));
        for (int more = 0; more < 2 && chat; more++) {
            int32_t *ids = NULL;
            size_t n_ids = 0;
            const ht_status status = ht_chat_format(&model, messages, n, more, &out, &error);
            must(status != HT_OK || out);
            for (unsigned flags = 0; flags <= (HT_TOKENIZE_ADD_SPECIAL | HT_TOKENIZE_PARSE_SPECIAL); flags++) {
                must(ht_chat_tokenize(&model, messages, n, more, flags, &ids, &n_ids, &error) == status);
                free(ids);
                ids = NULL;
            }
            free(out);
            out = NULL;
        }
        ht_gguf_close(file);
    }
    free(text);
    return 0;
}
