/* Generates text through hetero.h.
 *
 *   cc generate.c $(pkg-config --cflags --libs hetero) -o generate
 *   ./generate model.gguf "Name three colours."
 *
 * A model is opened, prepared on the devices found, and asked once through its chat template; the text is printed as it
 * comes. Every call that can fail returns a status and writes one line into `error`.
 */
#include <hetero.h>
#include <stdio.h>

static bool print(const ht_generation *step, void *user) {
    fwrite(step->text, 1, step->text_bytes, stdout);
    return !fflush(stdout); /* false would end the generation */
}

int main(int argc, char **argv) {
    ht_error error = {HT_OK, "usage: generate MODEL PROMPT"};
    ht_engine_options engine_options =
        HT_INIT(ht_engine_options); /* all devices found, one thread a core, fast precision */
    ht_generate_options options = HT_INIT(ht_generate_options, .max_tokens = 128, .on_token = print);
    ht_message message = {"user", argc == 3 ? argv[2] : ""};
    ht_generate_result result = HT_INIT(ht_generate_result);
    ht_model *model = NULL;
    ht_engine *engine = NULL;
    ht_session *session = NULL;
    int32_t *ids = NULL;
    size_t n;
    bool failed = argc != 3 || ht_model_open(argv[1], &model, &error) ||
                  ht_engine_create(model, &engine_options, &engine, &error) ||
                  ht_session_create(engine, &session, &error) ||
                  ht_chat_tokenize(model, &message, 1, true, HT_TOKENIZE_ADD_SPECIAL, &ids, &n, &error) ||
                  ht_session_generate(session, ids, n, &options, &result, &error);
    if (failed)
        fprintf(stderr, "%s\n", error.text);
    else
        putchar('\n');
    ht_generate_result_clear(&result);
    ht_free(ids);
    ht_session_destroy(session);
    ht_engine_destroy(engine);
    ht_model_close(model);
    return failed;
}
