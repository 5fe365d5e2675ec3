/* Callbacks are called while the call that they were given to is under way, and never after: what `user` points to is taken
 * away when it returns, so that one more call would crash. */
#include "session/session.h"
#include "unit/test.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>

static ht_model *model;

typedef struct listener {
    atomic_int calls;
} listener;

/* A page of its own, which can be taken away. */
static listener *make_listener(void) {
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(page != MAP_FAILED);
    return page;
}

static int take_away(listener *l) {
    const int calls = atomic_load(&l->calls);
    assert_int_equal(mprotect(l, 4096, PROT_NONE), 0);
    return calls;
}

static bool told(const char *what, double done, double total, void *user) {
    atomic_fetch_add(&((listener *)user)->calls, 1);
    return true;
}

static int open_model(void **state) {
    ht_error error = {0};
    if (make_folder(state) || setenv("XDG_CACHE_HOME", test_folder, 1))
        return -1;
    check(ht_model_open("shape:tiny", &model, &error), &error);
    return 0;
}

static int close_model(void **state) {
    ht_model_close(model);
    return remove_folder(state);
}

/* Prompts of lengths that nobody announced have graphs built, and kernels compiled, long after the engine was created. */
static void progress_of(const char *devices, bool *there) {
    static int32_t ids[700];
    ht_engine *engine = NULL;
    ht_session *session = NULL;
    ht_error error = {0};
    listener *l = make_listener();
    const ht_engine_options options =
        HT_INIT(ht_engine_options, .devices = devices, .strategy = HT_STRATEGY_SINGLE, .prompts = (const int[]){64},
                .n_prompts = 1, .progress = told, .progress_user = l);
    const ht_status status = ht_engine_create(model, &options, &engine, &error);
    const int calls = take_away(l);
    *there = status != HT_ERROR_DEVICE;
    if (*there) {
        check(status, &error);
        assert_in_range(calls, 1, 1000000);
        check(ht_session_create(engine, &session, &error), &error);
        static const size_t lengths[] = {3, 130, 600};
        for (size_t i = 0; i < HT_COUNT(lengths); i++) {
            ids[0] = (int32_t)i; /* nothing is reused */
            check(ht_session_prefill(session, ids, lengths[i], NULL, NULL, &error), &error);
        }
        ht_session_destroy(session);
        ht_engine_destroy(engine);
    }
    munmap(l, 4096);
}

static void test_progress(void **state) {
    static const char *const devices[] = {"cpu", "opencl:0:cpus=0", "openvino:CPU:cpus=0:cache=off",
                                          "ort:cpu:cache=off", "sim:snapdragon-8-gen-3/npu"};
    for (size_t i = 0; i < HT_COUNT(devices); i++) {
        bool there;
        progress_of(devices[i], &there);
        if (!there)
            print_message("%s is not there\n", devices[i]);
    }
}

/* An engine that could not be created has told nobody either since. */
static bool stops(const char *what, double done, double total, void *user) {
    return atomic_fetch_add(&((listener *)user)->calls, 1) < 3;
}

static void test_stopped(void **state) {
    ht_engine *engine = NULL;
    ht_error error = {0};
    listener *l = make_listener();
    const ht_engine_options options =
        HT_INIT(ht_engine_options, .devices = "cpu", .progress = stops, .progress_user = l);
    fails(ht_engine_create(model, &options, &engine, &error), HT_ERROR_CANCELLED, &error, "");
    assert_int_equal(take_away(l), 4);
    munmap(l, 4096);
}

/* ---- tokens ---------------------------------------------------------------------------------------------------------- */

static bool count_token(const ht_generation *step, void *user) {
    return atomic_fetch_add(&((listener *)user)->calls, 1) < 4;
}

static void test_tokens(void **state) {
    ht_engine *engine = NULL;
    ht_session *session = NULL;
    ht_error error = {0};
    const int32_t ids[] = {1, 2, 3};
    listener *l = make_listener();
    ht_generate_result result = HT_INIT(ht_generate_result);
    const ht_engine_options options = HT_INIT(ht_engine_options, .devices = "cpu");
    const ht_generate_options wanted =
        HT_INIT(ht_generate_options, .max_tokens = 50, .on_token = count_token, .user = l);
    check(ht_engine_create(model, &options, &engine, &error), &error);
    check(ht_session_create(engine, &session, &error), &error);
    check(ht_session_generate(session, ids, 3, &wanted, &result, &error), &error);
    assert_int_equal(take_away(l), 5);
    assert_int_equal(result.stop, HT_STOP_CALLER);
    ht_generate_result_clear(&result);
    check(ht_session_decode(session, 4, NULL, &error), &error);
    ht_session_destroy(session);
    ht_engine_destroy(engine);
    munmap(l, 4096);
}

/* LeakSanitizer's own thread crashes when it walks those of OpenVINO's engine; leaks are sought by the other tests. */
int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void) {
    return 1;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_progress),
        cmocka_unit_test(test_stopped),
        cmocka_unit_test(test_tokens),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
