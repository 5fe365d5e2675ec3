/* Prints embeddings of given tokens, for test_embeddings.py.
 *
 * usage: embed_values MODEL DEVICES CUTS CHUNK IDS...     CUTS: "": all; CHUNK: 0: the engine's own; IDS: comma-separated,
 *                                                         a line each
 *
 * A session of the engine computes them all. An error is one line of stderr, and the end.
 */
#include <hetero.h>

#include <stdio.h>
#include <stdlib.h>

enum { MAX_IDS = 4096 };

static size_t read_ids(const char *text, int32_t *ids) {
    size_t n = 0;
    for (const char *at = text; *at && n < MAX_IDS; at += *at == ',') {
        char *end;
        ids[n++] = (int32_t)strtol(at, &end, 10);
        if (end == at)
            return 0;
        at = end;
    }
    return n;
}

static ht_status print(ht_session *session, const char *text, size_t width, ht_error *error) {
    static int32_t ids[MAX_IDS];
    float *vectors;
    size_t count;
    const size_t n = read_ids(text, ids);
    ht_status status = ht_session_embed(session, ids, n, HT_POOLING_DEFAULT, false, &vectors, &count, error);
    if (status)
        return status;
    for (size_t i = 0; i < count * width; i++)
        printf("%s%.7g", i ? " " : "", (double)vectors[i]);
    putchar('\n');
    ht_free(vectors);
    return HT_OK;
}

int main(int argc, char **argv) {
    ht_error error = {HT_OK, "usage: embed_values MODEL DEVICES CUTS CHUNK IDS..."};
    ht_engine_options options =
        HT_INIT(ht_engine_options, .precision = HT_PRECISION_EXACT, .kv_type = HT_KV_F32, .threads = 1);
    ht_model *model = NULL;
    ht_engine *engine = NULL;
    ht_session *session = NULL;
    bool failed = argc < 6;
    if (!failed)
        options.devices = argv[2], options.cuts = *argv[3] ? argv[3] : NULL, options.chunk = atoi(argv[4]);
    failed = failed || ht_model_open(argv[1], &model, &error) || ht_engine_create(model, &options, &engine, &error) ||
             ht_session_create(engine, &session, &error);
    for (int i = 5; i < argc && !failed; i++)
        failed = print(session, argv[i], (size_t)ht_model_get_info(model)->embedding, &error) != HT_OK;
    if (failed)
        fprintf(stderr, "%s\n", error.text);
    ht_session_destroy(session);
    ht_engine_destroy(engine);
    ht_model_close(model);
    return failed;
}
