/* libFuzzer: the input is a saved session. Half of the inputs are given a right sum, and name the right model: else
 * nothing would ever come past these. What is loaded is used. */
#include "../../src/session/save.c"

#include "fuzz/fuzz.h"

#include <unistd.h>

static ht_session *session;

/* Or LeakSanitizer, which does not look into pages, would miss what they point to. */
static void close_session(void) {
    ht_engine *engine = session->engine;
    ht_model *model = ht_engine_model(engine);
    ht_session_destroy(session);
    ht_engine_destroy(engine);
    ht_model_close(model);
}

static void open_session(void) {
    const ht_engine_options options =
        HT_INIT(ht_engine_options, .devices = "cpu", .threads = 1, .context = 32, .chunk = 16);
    ht_model *model;
    ht_engine *engine;
    if (ht_model_open("shape:tiny", &model, NULL) || ht_engine_create(model, &options, &engine, NULL) ||
        ht_session_create(engine, &session, NULL))
        abort();
    atexit(close_session);
}

static void make_right(uint8_t *data, size_t bytes) {
    const header own = header_of(session, NULL, 0, false);
    header h;
    memcpy(&h, data, sizeof h);
    memcpy(h.magic, own.magic, sizeof h.magic);
    h.version = own.version, h.kv_type = own.kv_type, h.precision = own.precision;
    h.n_caches = own.n_caches, h.model = own.model;
    h.sum = ht_hash(HT_HASH_START, &h, offsetof(header, sum));
    h.sum = ht_hash(h.sum, data + sizeof h, bytes - sizeof h);
    memcpy(data, &h, sizeof h);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static char path[64];
    ht_error error;
    const float *logits;
    if (!session) {
        open_session();
        snprintf(path, sizeof path, "/dev/shm/fuzz-session-%d", (int)getpid());
    }
    uint8_t *copy = malloc(bytes + 1);
    if (!copy)
        return 0;
    memcpy(copy, data, bytes);
    if (bytes >= sizeof(header) && data[bytes - 1] % 2)
        make_right(copy, bytes);
    ht_status status = ht_file_write(path, copy, bytes, &error);
    free(copy);
    if (status == HT_OK && ht_session_load(session, NULL, path, &error) == HT_OK)
        ht_session_decode(session, 1, &logits, &error);
    remove(path);
    return 0;
}
