/* The executor on the CPU with a small made-up model: what must hold whatever the weights are. */
#include "unit/test.h"

#include "engine/engine.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>

/* Every allocation of this program passes here, so that "steady decode allocates nothing" is counted, not believed. The
 * sanitizers replace malloc themselves: there only the library's own counter is asked. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
static unsigned long allocations(void) {
    return (unsigned long)ht_alloc_count();
}
#else
static atomic_ulong malloc_calls;
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t n, size_t bytes);
void *__libc_realloc(void *p, size_t bytes);
void *__libc_memalign(size_t alignment, size_t bytes);
void *malloc(size_t bytes) {
    atomic_fetch_add(&malloc_calls, 1);
    return __libc_malloc(bytes);
}
void *calloc(size_t n, size_t bytes) {
    atomic_fetch_add(&malloc_calls, 1);
    return __libc_calloc(n, bytes);
}
void *realloc(void *p, size_t bytes) {
    atomic_fetch_add(&malloc_calls, 1);
    return __libc_realloc(p, bytes);
}
void *aligned_alloc(size_t alignment, size_t bytes) {
    atomic_fetch_add(&malloc_calls, 1);
    return __libc_memalign(alignment, bytes);
}
static unsigned long allocations(void) {
    return atomic_load(&malloc_calls) + (unsigned long)ht_alloc_count();
}
#endif

enum { TOKENS = 300 };
static int32_t ids[TOKENS];
static ht_model *model;

static int open_model(void **state) {
    ht_error error = {0};
    for (int i = 0; i < TOKENS; i++)
        ids[i] = (i * 37 + 11) % 512;
    if (ht_model_open("shape:tiny", &model, &error))
        print_error("%s\n", error.text);
    return model ? 0 : -1;
}

static int close_model(void **state) {
    ht_model_close(model);
    return 0;
}

static ht_session *open_session(const ht_engine_options *options, ht_engine **engine) {
    ht_error error = {0};
    ht_session *session = NULL;
    if (ht_engine_create(model, options, engine, &error) || ht_session_create(*engine, &session, &error))
        fail_msg("%s", error.text);
    return session;
}

static void close_session(ht_session *session, ht_engine *engine) {
    ht_session_destroy(session);
    ht_engine_destroy(engine);
}

static void test_steady_batch_allocates_nothing(void **state) {
    ht_engine *engine;
    ht_session *session = open_session(&HT_INIT(ht_engine_options, .threads = 2), &engine);
    ht_batch *batch;
    ht_error error = {0};
    const ht_batch_event *events;
    size_t n;
    check(ht_batch_create(engine, NULL, &batch, &error), &error);
    for (int i = 0; i < 4; i++) {
        uint64_t request;
        check(ht_batch_add(batch, ids + i, 20, NULL, &request, &error), &error);
    }
    unsigned long before = 0;
    for (int i = 0; i < 40; i++) {
        before = i == 8 ? allocations() : before;
        check(ht_batch_step(batch, &events, &n, &error), &error);
    }
    assert_int_equal(allocations(), before);
    ht_batch_destroy(batch);
    close_session(session, engine);
}

static void test_steady_decode_allocates_nothing(void **state) {
    for (int precision = 0; precision < 2; precision++) {
        ht_engine *engine;
        ht_session *session =
            open_session(&HT_INIT(ht_engine_options, .threads = 2, .precision = (ht_precision)precision), &engine);
        const float *logits;
        ht_error error;
        assert_int_equal(ht_session_prefill(session, ids, 40, &logits, NULL, &error), HT_OK);
        const unsigned long before = allocations();
        for (int i = 40; i < 140; i++)
            assert_int_equal(ht_session_decode(session, ids[i], &logits, &error), HT_OK);
        assert_int_equal(allocations() - before, 0);
        free(malloc(1)); /* the counter does count */
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
        assert_int_equal(allocations() - before, 1);
#endif
        close_session(session, engine);
    }
}

/* The same tokens in one prefill, in chunks and one by one. Exact arithmetic differs in the order of float additions only:
 * a few units of 2^-24 through two layers and an fp16 cache that may round such a difference up to 2^-11. */
static void test_chunks_agree(void **state) {
    static float whole[TOKENS], parts[TOKENS];
    ht_engine *engine;
    ht_error error;
    ht_session *session =
        open_session(&HT_INIT(ht_engine_options, .threads = 2, .precision = HT_PRECISION_EXACT), &engine);
    assert_int_equal(ht_session_score(session, ids, TOKENS, 0, whole, 0, NULL, &error), HT_OK);
    static const int chunks[] = {1, 2, 31, 33, 64};
    for (size_t c = 0; c < HT_COUNT(chunks); c++) {
        assert_int_equal(ht_session_score(session, ids, TOKENS, chunks[c], parts, 0, NULL, &error), HT_OK);
        for (int i = 1; i < TOKENS; i++)
            if (fabsf(whole[i] - parts[i]) > 5e-3f)
                fail_msg("chunk %d, token %d: %g, all at once %g", chunks[c], i, (double)parts[i], (double)whole[i]);
    }
    close_session(session, engine);
}

static void test_thread_counts_and_isas_agree(void **state) {
    static const struct {
        const char *devices;
        int threads;
    } rows[] = {{"cpu", 1}, {"cpu", 3}, {"cpu:cpus=0", 0}};
    static const char *const isas[] = {HT_TEST_ISAS};
    static float want[TOKENS], got[TOKENS];
    for (size_t r = 0; r < HT_COUNT(rows) + HT_COUNT(isas); r++) {
        const bool is_row = r < HT_COUNT(rows);
        const char *devices = is_row ? rows[r].devices : isas[r - HT_COUNT(rows)];
        const ht_engine_options options =
            HT_INIT(ht_engine_options, .devices = devices, .threads = is_row ? rows[r].threads : 2,
                    .precision = HT_PRECISION_EXACT);
        ht_engine *engine;
        ht_error error = {0};
        ht_session *session;
        ht_status status = ht_engine_create(model, &options, &engine, &error);
        if (status == HT_ERROR_DEVICE) { /* this processor lacks it */
            print_message("skipped: %s\n", error.text);
            continue;
        }
        assert_int_equal(status, HT_OK);
        assert_int_equal(ht_session_create(engine, &session, &error), HT_OK);
        assert_int_equal(ht_session_score(session, ids, 100, 0, r ? got : want, 0, NULL, &error), HT_OK);
        for (int i = 1; i < 100 && r; i++)
            if (fabsf(got[i] - want[i]) > 5e-3f)
                fail_msg("%s, token %d: %g, want %g", devices, i, (double)got[i], (double)want[i]);
        close_session(session, engine);
    }
}

static void test_bad_options_are_named(void **state) {
    static const struct {
        const char *devices, *culprit;
        int threads, context;
    } rows[] = {{"nonsense", "nonsense", 0, 0}, {"cpu:isa=mmx", "mmx", 0, 0},   {"cpu:speed=9", "speed", 0, 0},
                {"cpu:cpus=9-1", "9-1", 0, 0},  {"cpu,,cpu", "cpu,,cpu", 0, 0}, {"cpu", "threads", -1, 0},
                {"cpu", "context", 0, 5000},    {"cpu", "threads", 100000, 0}};
    for (size_t r = 0; r < HT_COUNT(rows); r++) {
        const ht_engine_options options = HT_INIT(ht_engine_options, .devices = rows[r].devices,
                                                  .threads = rows[r].threads, .context = rows[r].context);
        ht_engine *engine = NULL;
        ht_error error = {0};
        assert_int_not_equal(ht_engine_create(model, &options, &engine, &error), HT_OK);
        assert_null(engine);
        if (!strstr(error.text, rows[r].culprit))
            fail_msg("\"%s\" does not name %s", error.text, rows[r].culprit);
    }
}

typedef struct runner {
    ht_session *session;
    float logprobs[TOKENS];
    ht_status status;
} runner;

/* What is kept by devices' numbers moves with them. */
static void test_kept_devices_keep_what_is_theirs(void **state) {
    const ht_engine_options options =
        HT_INIT(ht_engine_options, .devices = "cpu:isa=scalar,cpu:limit=1G", .strategy = HT_STRATEGY_SINGLE,
                .place = "ffn_down=cpu:isa=scalar, attn_output = cpu");
    ht_engine *engine;
    ht_error error = {0};
    if (ht_engine_create(model, &options, &engine, &error))
        fail_msg("%s", error.text);
    ht_lanes *set = &engine->set;
    size_t n[2] = {0};
    assert_int_equal(set->limits[0], 0);
    assert_int_equal(set->limits[1], 1 << 30);
    for (size_t i = 0; i < model->n_ops; i++) {
        n[0] += set->left[i].placed == 1; /* attn_output */
        n[1] += set->left[i].placed == 2;
    }
    assert_int_equal(n[0], (size_t)model->hparams.layers);
    assert_int_equal(n[1], (size_t)model->hparams.layers);
    set->left[0].slow = set->left[0].full = 3;
    atomic_store(&set->failed, 2);
    snprintf(set->quicker[1], sizeof set->quicker[1], "quicker elsewhere");
    engine->info.n_devices = 0; /* their names go with them */
    ht_engine_keep_devices(engine, 2);
    assert_int_equal(set->n_devices, 1);
    assert_int_equal(engine->n_named, 1);
    assert_int_equal(set->limits[0], 1 << 30);
    assert_string_equal(engine->asked[0], "cpu");
    assert_string_equal(set->quicker[0], "quicker elsewhere");
    assert_int_equal(atomic_load(&set->failed), 1);
    assert_int_equal(set->left[0].slow | set->left[0].full << 1, 3);
    for (size_t i = 0; i < model->n_ops; i++)
        n[1] -= set->left[i].placed == 1;
    assert_int_equal(n[1], 0);
    for (size_t t = 0; t < set->n_tasks; t++)
        assert_int_equal(set->tasks[t].device, 0);
    atomic_store(&set->failed, 0);
    ht_engine_destroy(engine);
}

static void *run_score(void *argument) {
    runner *r = argument;
    ht_error error;
    r->status = ht_session_score(r->session, ids, 200, 16, r->logprobs, 0, NULL, &error);
    return NULL;
}

static void test_two_sessions_take_turns(void **state) {
    ht_engine *engine;
    ht_error error;
    runner alone = {.session = open_session(&HT_INIT(ht_engine_options, .threads = 2, .precision = HT_PRECISION_EXACT),
                                            &engine)},
           both[2];
    run_score(&alone);
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
        assert_int_equal(ht_session_create(engine, &both[i].session, &error), HT_OK);
        assert_int_equal(pthread_create(&threads[i], NULL, run_score, &both[i]), 0);
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(both[i].status, HT_OK);
        assert_memory_equal(both[i].logprobs + 1, alone.logprobs + 1, 199 * sizeof(float));
        ht_session_destroy(both[i].session);
    }
    close_session(alone.session, engine);
}

static void *cancel_soon(void *session) {
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    ht_session_cancel(session);
    return NULL;
}

static void test_cancel_from_another_thread(void **state) {
    ht_engine *engine;
    ht_error error;
    ht_session *session = open_session(&HT_INIT(ht_engine_options, .threads = 2), &engine);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, cancel_soon, session), 0);
    ht_status status = HT_OK;
    const float *logits;
    const double start = ht_seconds();
    while (!status && ht_seconds() - start < 30) { /* prefills that share nothing, until one is stopped */
        ids[0] = (ids[0] + 1) % 512;
        status = ht_session_prefill(session, ids, TOKENS, &logits, NULL, &error);
    }
    pthread_join(thread, NULL);
    assert_int_equal(status, HT_ERROR_CANCELLED);
    assert_int_equal(ht_session_prefill(session, ids, TOKENS, &logits, NULL, &error), HT_OK); /* still usable */
    close_session(session, engine);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_steady_decode_allocates_nothing),
        cmocka_unit_test(test_steady_batch_allocates_nothing),
        cmocka_unit_test(test_chunks_agree),
        cmocka_unit_test(test_thread_counts_and_isas_agree),
        cmocka_unit_test(test_bad_options_are_named),
        cmocka_unit_test(test_kept_devices_keep_what_is_theirs),
        cmocka_unit_test(test_two_sessions_take_turns),
        cmocka_unit_test(test_cancel_from_another_thread),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
