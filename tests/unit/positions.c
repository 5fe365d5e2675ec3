/* What a program may ask for besides an answer: logits of any position, hidden states and what is pooled of them, a sampler that goes
 * on where it stood, a model by its descriptor. Over one lane, several in every cut, and a GPU. */
#include "unit/test.h"

#include "session/session.h"
#include "unit/tiny_file.h"

#include <fcntl.h>
#include <math.h>
#include <unistd.h>

enum {
    VOCABULARY = 512,
    TOKENS = 83,
    CONTEXT = 128,
    CHUNK = 40
}; /* a last chunk of three; more than a head takes at once */

static const float BOUND = 2e-5f;
static int32_t ids[TOKENS];
static float logits[TOKENS][VOCABULARY]; /* behind each token, computed one by one on the CPU */
static ht_model *model;
static size_t width;

static int open_tiny(void **state) {
    ht_error error = {0};
    for (int i = 0; i < TOKENS; i++)
        ids[i] = (i * i * 7 + i * 37 + 11) % VOCABULARY;
    if (ht_model_open("shape:tiny", &model, &error))
        return -1;
    width = (size_t)model->hparams.embedding;
    return 0;
}

static int close_tiny(void **state) {
    ht_model_close(model);
    return 0;
}

static ht_engine *open_engine(const char *devices, const char *cuts, ht_error *error) {
    const ht_engine_options options =
        HT_INIT(ht_engine_options, .devices = devices, .strategy = cuts ? HT_STRATEGY_TENSOR : HT_STRATEGY_SINGLE,
                .cuts = cuts, .threads = cuts ? 0 : 2, .precision = HT_PRECISION_EXACT, .kv_type = HT_KV_F32,
                .context = CONTEXT, .chunk = CHUNK);
    ht_engine *engine = NULL;
    return ht_engine_create(model, &options, &engine, error) ? NULL : engine;
}

static void close_to(const float *got, const float *wanted, size_t n, const char *what, size_t number) {
    float most = 0, away = 0;
    for (size_t i = 0; i < n; i++) {
        most = fmaxf(most, fabsf(wanted[i]));
        away = fmaxf(away, fabsf(got[i] - wanted[i]));
    }
    if (!(away <= BOUND * most) || !(most > 0))
        fail_msg("%s %zu: off by %g of %g", what, number, (double)away, (double)most);
}

/* ---- logits ------------------------------------------------------------------------------------------------------ */

typedef struct seen {
    size_t next, last; /* positions that come, and the one at which to stop */
} seen;

static bool look(size_t position, const float *row, size_t vocabulary, void *user) {
    seen *s = user;
    assert_int_equal(vocabulary, VOCABULARY);
    assert_int_equal(position, s->next++);
    close_to(row, logits[position], VOCABULARY, "logits behind token", position);
    return position != s->last;
}

static void check_logits(ht_session *session) {
    ht_error error = {0};
    const size_t firsts[] = {0, 1, CHUNK - 1, CHUNK, CHUNK + 33, TOKENS - 1};
    for (size_t i = 0; i < HT_COUNT(firsts); i++) {
        seen s = {firsts[i], SIZE_MAX};
        check(ht_session_logits(session, ids, TOKENS, firsts[i], look, &s, &error), &error);
        assert_int_equal(s.next, TOKENS);
    }
    seen s = {5, 7};
    assert_int_equal(ht_session_logits(session, ids, TOKENS, 5, look, &s, &error), HT_ERROR_CANCELLED);
    assert_int_equal(s.next, 8); /* not called again */
    assert_int_equal(ht_session_logits(session, ids, TOKENS, TOKENS, look, &s, &error), HT_ERROR_ARGUMENT);
    assert_int_equal(ht_session_logits(session, ids, CONTEXT + 1, 0, look, &s, &error), HT_ERROR_CONTEXT);
}

/* ---- embeddings -------------------------------------------------------------------------------------------------- */

static float *embed(ht_session *session, ht_pooling pooling, bool normalise, size_t expected) {
    ht_error error = {0};
    float *vectors;
    size_t count;
    check(ht_session_embed(session, ids, TOKENS, pooling, normalise, &vectors, &count, &error), &error);
    assert_int_equal(count, expected);
    return vectors;
}

/* The head's matrix times the hidden states must be the logits: no other vectors give all of them. */
static void check_states(const float *states) {
    const ht_op *output = &model->ops[model->n_ops - 2];
    float *matrix = malloc(VOCABULARY * width * sizeof *matrix), row[VOCABULARY];
    assert_non_null(matrix);
    assert_int_equal(output->parts[0].cols, width);
    ht_matrix_floats(&output->parts[0], 0, VOCABULARY, matrix);
    for (size_t t = 0; t < TOKENS; t++) {
        for (size_t r = 0; r < VOCABULARY; r++) {
            double sum = 0;
            for (size_t c = 0; c < width; c++)
                sum += (double)matrix[r * width + c] * states[t * width + c];
            row[r] = (float)sum;
        }
        close_to(row, logits[t], VOCABULARY, "states of token", t);
    }
    free(matrix);
}

static void check_embeddings(ht_session *session) {
    float *states = embed(session, HT_POOLING_NONE, false, TOKENS);
    check_states(states);
    float *mean = malloc(width * sizeof *mean);
    assert_non_null(mean);
    for (size_t i = 0; i < width; i++) {
        double sum = 0;
        for (size_t t = 0; t < TOKENS; t++)
            sum += states[t * width + i];
        mean[i] = (float)(sum / TOKENS);
    }
    const struct {
        ht_pooling pooling;
        const float *wanted;
    } cases[] = {{HT_POOLING_MEAN, mean},
                 {HT_POOLING_FIRST, states},
                 {HT_POOLING_LAST, states + (TOKENS - 1) * width},
                 {HT_POOLING_DEFAULT, states + (TOKENS - 1) * width}};
    for (size_t i = 0; i < HT_COUNT(cases); i++) {
        float *plain = embed(session, cases[i].pooling, false, 1), *unit = embed(session, cases[i].pooling, true, 1);
        close_to(plain, cases[i].wanted, width, "pooling", (size_t)cases[i].pooling);
        double length = 0, along = 0, wanted = 0;
        for (size_t k = 0; k < width; k++) {
            length += (double)unit[k] * unit[k];
            wanted += (double)cases[i].wanted[k] * cases[i].wanted[k];
            along += (double)unit[k] * cases[i].wanted[k];
        }
        assert_true(fabs(length - 1) < 1e-5 && fabs(along - sqrt(wanted)) < 1e-4 * sqrt(wanted));
        free(plain);
        free(unit);
    }
    free(mean);
    free(states);
}

static void check_on(const char *devices, const char *cuts) {
    ht_error error = {0};
    ht_session *session;
    ht_engine *engine = open_engine(devices, cuts, &error);
    if (!engine) {
        if (must_have("opencl", error.text))
            fail();
        return;
    }
    check(ht_session_create(engine, &session, &error), &error);
    check_logits(session);
    check_embeddings(session);
    size_t n;
    ht_session_tokens(session, &n);
    assert_int_equal(n, TOKENS); /* and the session goes on behind the text */
    const float *next;
    check(ht_session_decode(session, 1, &next, &error), &error);
    ht_session_destroy(session);
    ht_engine_destroy(engine);
}

static void test_alone(void **state) {
    ht_error error = {0};
    ht_session *session;
    ht_engine *engine = open_engine("cpu", NULL, &error);
    if (!engine)
        fail_msg("%s", error.text);
    check(ht_session_create(engine, &session, &error), &error);
    for (size_t i = 0; i < TOKENS; i++) {
        const float *row;
        check(ht_session_decode(session, ids[i], &row, &error), &error);
        memcpy(logits[i], row, sizeof logits[i]);
    }
    ht_session_destroy(session);
    ht_engine_destroy(engine);
    check_on("cpu", NULL);
}

static void test_over_lanes(void **state) {
    static const char *const cuts[] = {"causal", "head,feature", "row", "layer,sequence,hybrid,row,feature"};
    if ((ht_all_cores()->words[0] & 3) != 3)
        skip();
    for (size_t i = 0; i < HT_COUNT(cuts); i++)
        check_on("cpu:cpus=0,cpu:cpus=1", cuts[i]);
}

static void test_on_a_gpu(void **state) {
#ifdef __SANITIZE_THREAD__ /* which does not see what a driver's compiler makes */
    skip();
#endif
    if (is_unit())
        skip();
    check_on("opencl:0", NULL);
    check_on("opencl:0:memory=copied", NULL);
}

static void test_refusals(void **state) {
    ht_error error = {0};
    ht_session *session;
    float *vectors;
    size_t count;
    ht_engine *engine = open_engine("cpu", NULL, &error);
    if (!engine)
        fail_msg("%s", error.text);
    check(ht_session_create(engine, &session, &error), &error);
    assert_int_equal(ht_session_embed(session, ids, 0, HT_POOLING_MEAN, true, &vectors, &count, &error),
                     HT_ERROR_ARGUMENT);
    assert_int_equal(ht_session_embed(session, ids, TOKENS, (ht_pooling)9, true, &vectors, &count, &error),
                     HT_ERROR_ARGUMENT);
    model->pooling = HT_POOLING_DEFAULT; /* a file whose pooling only ranks */
    assert_int_equal(ht_session_embed(session, ids, TOKENS, HT_POOLING_DEFAULT, true, &vectors, &count, &error),
                     HT_ERROR_UNSUPPORTED);
    model->pooling = HT_POOLING_LAST;
    ht_session_cancel(session);
    assert_int_equal(ht_session_embed(session, ids, TOKENS, HT_POOLING_MEAN, true, &vectors, &count, &error),
                     HT_ERROR_CANCELLED);
    ht_session_destroy(session);
    ht_engine_destroy(engine);
}

/* ---- samplers ---------------------------------------------------------------------------------------------------- */

static ht_sampler *make_sampler(uint64_t seed) {
    ht_error error = {0};
    ht_sampler *sampler;
    const ht_sampling sampling = HT_INIT(ht_sampling, .temperature = 1.5f, .seed = seed);
    check(ht_sampler_create(&sampling, VOCABULARY, &sampler, &error), &error);
    return sampler;
}

static void generate(ht_session *session, ht_sampler *sampler, size_t n, int max, ht_generate_result *result) {
    ht_error error = {0};
    int32_t prompt[CONTEXT];
    size_t held;
    const int32_t *tokens = ht_session_tokens(session, &held);
    memcpy(prompt, held ? tokens : ids, (held ? held : n) * sizeof *prompt);
    const ht_generate_options options = HT_INIT(ht_generate_options, .max_tokens = max, .sampler = sampler);
    check(ht_session_generate(session, prompt, held ? held : n, &options, result, &error), &error);
}

/* An answer in two halves is the whole answer, also where another sampler has taken over from a file between them. */
static void test_sampler_goes_on(void **state) {
    ht_error error = {0};
    ht_session *session, *other;
    ht_engine *engine = open_engine("cpu", NULL, &error);
    char *path = temporary_path("session");
    ht_generate_result whole = HT_INIT(ht_generate_result), first = whole, second = whole;
    if (!engine)
        fail_msg("%s", error.text);
    check(ht_session_create(engine, &session, &error), &error);
    check(ht_session_create(engine, &other, &error), &error);
    ht_sampler *sampler = make_sampler(7), *halves = make_sampler(7), *later = make_sampler(99);
    generate(session, sampler, 20, 24, &whole);
    assert_int_equal(whole.n, 24);
    assert_int_equal(whole.seed, 7);
    generate(other, halves, 20, 9, &first);
    const float *row;
    check(ht_session_decode(other, first.ids[8], &row, &error), &error); /* the last one of an answer is not computed */
    check(ht_session_save(other, halves, path, &error), &error);
    check(ht_session_prefill(session, ids, 30, NULL, NULL, &error), &error);
    check(ht_session_load(session, later, path, &error), &error);
    assert_int_equal(ht_sampler_seed(later), 7);
    generate(session, later, 0, 15, &second);
    assert_memory_equal(first.ids, whole.ids, 9 * sizeof *whole.ids);
    assert_memory_equal(second.ids, whole.ids + 9, 15 * sizeof *whole.ids);

    check(ht_session_save(other, NULL, path, &error), &error);
    assert_int_equal(ht_session_load(session, later, path, &error), HT_ERROR_ARGUMENT);
    check(ht_session_load(session, NULL, path, &error), &error);
    const ht_sampling sampling = HT_INIT(ht_sampling, .temperature = 1);
    const ht_generate_options both = HT_INIT(ht_generate_options, .sampling = &sampling, .sampler = sampler);
    assert_int_equal(ht_session_generate(session, ids, 20, &both, &whole, &error), HT_ERROR_ARGUMENT);
    ht_sampler_destroy(later);
    check(ht_sampler_create(&sampling, VOCABULARY - 1, &later, &error), &error);
    const ht_generate_options narrow = HT_INIT(ht_generate_options, .sampler = later);
    assert_int_equal(ht_session_generate(session, ids, 20, &narrow, &whole, &error), HT_ERROR_ARGUMENT);
    ht_generate_result_clear(&whole);
    ht_generate_result_clear(&first);
    ht_generate_result_clear(&second);
    ht_sampler_destroy(sampler);
    ht_sampler_destroy(halves);
    ht_sampler_destroy(later);
    ht_session_destroy(session);
    ht_session_destroy(other);
    ht_engine_destroy(engine);
    free(path);
}

/* ---- batches ----------------------------------------------------------------------------------------------------- */

typedef struct meddler {
    ht_batch *batch;
    uint64_t cancels;
    size_t calls, pending;
} meddler;

static void meddle(float *row, size_t n, const int32_t *tokens, size_t n_tokens, void *user) {
    meddler *m = user;
    m->calls++;
    m->pending = ht_batch_pending(m->batch);
    ht_batch_cancel(m->batch, m->cancels);
}

static void step_until_none(ht_batch *batch) {
    ht_error error = {0};
    while (ht_batch_pending(batch)) {
        const ht_batch_event *events;
        size_t n;
        check(ht_batch_step(batch, &events, &n, &error), &error);
    }
}

/* What callers do that is not forbidden: on_logits that calls the batch, a sampler that is gone before the result is taken, a fork of
 * an answer that has ended, passes that are shorter than the usual number of sequences. */
static void test_batch_corners(void **state) {
    ht_error error = {0};
    ht_batch *batch;
    uint64_t request, other, fork;
    ht_generate_result result = HT_INIT(ht_generate_result);
    const ht_engine_options small = HT_INIT(ht_engine_options, .devices = "cpu", .context = CONTEXT, .chunk = 4);
    ht_engine *engine;
    check(ht_engine_create(model, &small, &engine, &error), &error);
    check(ht_batch_create(engine, NULL, &batch, &error), &error);
    meddler m = {.batch = batch};
    ht_sampler *sampler = make_sampler(3);
    const ht_generate_options sampled = HT_INIT(ht_generate_options, .max_tokens = 4, .sampler = sampler),
                              plain = HT_INIT(ht_generate_options, .max_tokens = 50),
                              meddling =
                                  HT_INIT(ht_generate_options, .max_tokens = 3, .on_logits = meddle, .logits_user = &m);
    check(ht_batch_add(batch, ids, 4, &sampled, &request, &error), &error);
    check(ht_batch_add(batch, ids, 5, &plain, &other, &error), &error);
    m.cancels = other;
    check(ht_batch_add(batch, ids, 6, &meddling, &fork, &error), &error);
    step_until_none(batch);
    ht_sampler_destroy(sampler);
    assert_true(m.calls == 3 && m.pending > 0);
    check(ht_batch_fork(batch, request, &plain, &fork, &error), &error);
    check(ht_batch_take(batch, request, &result, &error), &error);
    assert_int_equal(result.seed, 3);
    assert_int_equal(result.n, 4);
    ht_generate_result_clear(&result);
    check(ht_batch_take(batch, other, &result, &error), &error);
    assert_int_equal(result.stop, HT_STOP_CANCELLED);
    step_until_none(batch);
    ht_generate_result_clear(&result);
    check(ht_batch_take(batch, fork, &result, &error), &error);
    assert_int_equal(result.prompt_tokens, 8); /* the last one of the answer, too */
    const ht_generate_options no_list = HT_INIT(ht_generate_options, .n_stop = 1);
    assert_int_equal(ht_batch_add(batch, ids, 4, &no_list, &request, &error), HT_ERROR_ARGUMENT);
    ht_generate_result_clear(&result);
    ht_batch_destroy(batch);
    ht_engine_destroy(engine);
}

/* Prompts that are said to come, longer than the context: passes are tried before there are any, and none of them is. */
static void test_expected_prompts(void **state) {
    static const int prompts[] = {65, 258, 2000000000};
    ht_error error = {0};
    ht_session *session;
    ht_engine *engine;
    const ht_engine_options options =
        HT_INIT(ht_engine_options, .devices = "cpu:cpus=0,cpu:cpus=1", .context = 64, .chunk = 32, .prompts = prompts,
                .n_prompts = HT_COUNT(prompts), .measure = true);
    if ((ht_all_cores()->words[0] & 3) != 3)
        skip();
    check(ht_engine_create(model, &options, &engine, &error), &error);
    check(ht_session_create(engine, &session, &error), &error);
    assert_int_equal(ht_session_prefill(session, ids, 65, NULL, NULL, &error), HT_ERROR_CONTEXT);
    check(ht_session_prefill(session, ids, 64, NULL, NULL, &error), &error);
    ht_session_destroy(session);
    ht_engine_destroy(engine);
}

static void test_numbers_that_are_none(void **state) {
    ht_error error = {0};
    ht_sampler *sampler;
    const float none[] = {NAN, -INFINITY, NAN};
    check(ht_sampler_create(NULL, HT_COUNT(none), &sampler, &error), &error);
    assert_int_equal(ht_sampler_pick(sampler, none, NULL, 0), 1);
    ht_sampler_destroy(sampler);
}

/* ---- descriptors ------------------------------------------------------------------------------------------------- */

static void test_descriptor(void **state) {
    ht_error error = {0};
    ht_model *opened;
    char *path = temporary_path("empty.gguf");
    check(ht_file_write(path, "", 0, &error), &error);
    const int empty = open(path, O_RDONLY);
    assert_true(empty >= 0);
    assert_int_equal(ht_model_open_descriptor(empty, "handed over", &opened, &error), HT_ERROR_FORMAT);
    assert_non_null(strstr(error.text, "handed over"));
    assert_int_equal(ht_model_open_descriptor(-1, NULL, &opened, &error), HT_ERROR_ARGUMENT);
    assert_int_equal(ht_model_open_descriptor(9999, NULL, &opened, &error), HT_ERROR_IO);
    close(empty);
    free(path);

    const ht_pooling poolings[] = {HT_POOLING_LAST, HT_POOLING_NONE,   HT_POOLING_MEAN, HT_POOLING_FIRST,
                                   HT_POOLING_LAST, HT_POOLING_DEFAULT}; /* by the key: none, 0, 1, 2, 3, 4 */
    for (int i = 0; i < (int)HT_COUNT(poolings); i++) {
        path = tiny_save("tiny.gguf", &(tiny_fault){.pooling = i});
        const int file = open(path, O_RDONLY);
        assert_true(file >= 0 && lseek(file, 100, SEEK_SET) == 100);
        assert_int_equal(unlink(path), 0);
        check(ht_model_open_descriptor(file, "tiny", &opened, &error), &error);
        close(file);
        assert_string_equal(ht_model_get_info(opened)->path, "tiny");
        assert_int_equal(ht_model_pooling(opened), poolings[i]);
        assert_int_equal(ht_model_get_info(opened)->layers, TINY_LAYERS);
        ht_model_close(opened);
        free(path);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_alone),
                                       cmocka_unit_test(test_over_lanes),
                                       cmocka_unit_test(test_on_a_gpu),
                                       cmocka_unit_test(test_refusals),
                                       cmocka_unit_test(test_sampler_goes_on),
                                       cmocka_unit_test(test_descriptor),
                                       cmocka_unit_test(test_batch_corners),
                                       cmocka_unit_test(test_expected_prompts),
                                       cmocka_unit_test(test_numbers_that_are_none)};
    if (make_folder(NULL))
        return 1;
    const int failed = cmocka_run_group_tests(tests, open_tiny, close_tiny);
    remove_folder(NULL);
    return failed;
}
