/* Answers four prompts at once through hetero.h.
 *
 *   cc batch.c $(pkg-config --cflags --libs hetero) -o batch
 *   ./batch model.gguf
 *
 * A step computes a token of every answer under way: weights are read once for all. Each answer is printed when it is whole.
 */
#include <hetero.h>
#include <stdio.h>

#define PROMPTS 4

static ht_status add(ht_model *model, ht_batch *batch, const char *prompt, ht_error *error) {
    const ht_message message = {"user", prompt};
    const ht_generate_options options = HT_INIT(ht_generate_options, .max_tokens = 48);
    uint64_t request;
    int32_t *ids = NULL;
    size_t n = 0;
    ht_status status = ht_chat_tokenize(model, &message, 1, true, HT_TOKENIZE_ADD_SPECIAL, &ids, &n, error);
    if (!status)
        status = ht_batch_add(batch, ids, n, &options, &request, error); /* requests are numbered from 1 */
    ht_free(ids);
    return status;
}

static ht_status print(ht_batch *batch, uint64_t request, const char *prompt, ht_error *error) {
    ht_generate_result result = HT_INIT(ht_generate_result);
    ht_status status = ht_batch_take(batch, request, &result, error);
    if (!status)
        printf("%s\n  %s\n", prompt, result.text);
    ht_generate_result_clear(&result);
    return status;
}

int main(int argc, char **argv) {
    static const char *const prompts[PROMPTS] = {"Name three colours.", "What is the capital of France?",
                                                 "Count from one to five.", "Say hello in Spanish."};
    ht_error error = {HT_OK, "usage: batch MODEL"};
    ht_model *model = NULL;
    ht_engine *engine = NULL;
    ht_batch *batch = NULL;
    bool failed = argc != 2 || ht_model_open(argv[1], &model, &error) ||
                  ht_engine_create(model, NULL, &engine, &error) || ht_batch_create(engine, NULL, &batch, &error);
    for (int i = 0; i < PROMPTS && !failed; i++)
        failed = add(model, batch, prompts[i], &error);
    while (!failed && ht_batch_pending(batch)) {
        const ht_batch_event *events;
        size_t n;
        failed = ht_batch_step(batch, &events, &n, &error);
        for (size_t i = 0; i < n && !failed; i++)
            if (events[i].ended)
                failed = print(batch, events[i].request, prompts[events[i].request - 1], &error);
    }
    if (failed)
        fprintf(stderr, "%s\n", error.text);
    ht_batch_destroy(batch);
    ht_engine_destroy(engine);
    ht_model_close(model);
    return failed;
}
