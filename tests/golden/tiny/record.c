/* Prints llama.cpp's log-probabilities of given tokens, for recorded.json (README.md says how to build and run this).
 *
 * usage: record [--embed] MODEL.gguf IDS
 *                                  --embed: one line, the text's embedding as the file pools it
 *                                  IDS: comma-separated; prints one line a token: the log-probabilities of every token of
 *                                  the vocabulary after it
 * Keys and values in float32 and no flash attention, so that what is recorded is as near to the exact values as it gets.
 */
#include "llama.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_IDS = 4096 };

static void quiet(enum ggml_log_level level, const char *text, void *user) {
    (void)user;
    if (level == GGML_LOG_LEVEL_ERROR)
        fputs(text, stderr);
}

static void print_row(const float *logits, int n) {
    double sum = 0.0, max = logits[0];
    for (int i = 1; i < n; i++)
        max = fmax(max, logits[i]);
    for (int i = 0; i < n; i++)
        sum += exp(logits[i] - max);
    for (int i = 0; i < n; i++)
        printf("%s%.6f", i ? " " : "", logits[i] - max - log(sum));
    putchar('\n');
}

static void print_embedding(struct llama_context *context, const struct llama_model *model) {
    const float *values = llama_get_embeddings_seq(context, 0);
    for (int i = 0; values && i < llama_model_n_embd(model); i++)
        printf("%s%.7f", i ? " " : "", values[i]);
    putchar('\n');
}

static int read_ids(const char *text, llama_token *ids) {
    int n = 0;
    for (const char *at = text; *at && n < MAX_IDS; at += strspn(at, ",")) {
        char *end;
        ids[n++] = (llama_token)strtol(at, &end, 10);
        if (end == at)
            return 0;
        at = end;
    }
    return n;
}

int main(int argc, char **argv) {
    static llama_token ids[MAX_IDS];
    const bool embeds = argc == 4 && strcmp(argv[1], "--embed") == 0;
    const char *const path = argv[1 + embeds];
    const int n = argc == 3 + embeds ? read_ids(argv[2 + embeds], ids) : 0;
    if (n == 0) {
        fprintf(stderr, "usage: record [--embed] MODEL.gguf IDS\n");
        return 2;
    }
    llama_log_set(quiet, NULL);
    llama_backend_init();
    struct llama_model_params model_params = llama_model_default_params();
    model_params.n_gpu_layers = 0;
    struct llama_model *model = llama_model_load_from_file(path, model_params);
    if (!model)
        return 1;
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = params.n_batch = params.n_ubatch = n < 256 ? 256 : (uint32_t)n;
    params.n_threads = params.n_threads_batch = 1;
    params.type_k = params.type_v = GGML_TYPE_F32;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    params.embeddings = embeds;
    struct llama_context *context = llama_init_from_model(model, params);
    struct llama_batch batch = llama_batch_init(n, 0, 1);
    if (!context)
        return 1;
    for (int i = 0; i < n; i++) {
        batch.token[i] = ids[i];
        batch.pos[i] = i;
        batch.n_seq_id[i] = 1;
        batch.seq_id[i][0] = 0;
        batch.logits[i] = 1;
    }
    batch.n_tokens = n;
    if (llama_decode(context, batch) != 0)
        return 1;
    if (embeds)
        print_embedding(context, model);
    for (int i = 0; i < n && !embeds; i++)
        print_row(llama_get_logits_ith(context, i), llama_vocab_n_tokens(llama_model_get_vocab(model)));
    llama_batch_free(batch);
    llama_free(context);
    llama_model_free(model);
    llama_backend_free();
    return 0;
}
