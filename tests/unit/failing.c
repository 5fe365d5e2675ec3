/* Batches whose device fails: of 2,000 requests, every 50th is under way when it does. All answers are what one device
 * alone makes of them, and no memory is lost on the way. */
#include "unit/test.h"

#include "session/session.h"
#include "unit/recurrent_model.h"

#include <math.h>
#include <stdio.h>

#if SANITIZED
enum { ENGINES = 2 };
#else
enum { ENGINES = 20 }; /* of each model */
#endif
enum { REQUESTS = 50, SEQUENCES = 6, VOCABULARY = 512, CONTEXT = 96, CHUNK = 32, PROMPT = 40, ANSWER = 20, TOP = 3 };

static const float BOUND = 2e-4f; /* of a log-probability, float32 caches; a wrong key or state moves it by tenths */
static ht_model *model;
static ht_session *alone;
static ht_engine *alone_on;
static uint32_t random_state;
static atomic_int lost;
static size_t reused; /* tokens of prompts */

static size_t pick(size_t n) {
    random_state = random_state * 1664525u + 1013904223u;
    return (random_state >> 8) % n;
}

static void note(ht_log_level level, const char *line, void *user) {
    if (level == HT_LOG_WARN && strstr(line, "failed: continuing without it"))
        atomic_fetch_add(&lost, 1);
}

static ht_engine *open_engine(const char *devices, ht_strategy strategy) {
    const ht_engine_options options =
        HT_INIT(ht_engine_options, .devices = devices, .strategy = strategy, .precision = HT_PRECISION_EXACT,
                .kv_type = HT_KV_F32, .context = CONTEXT, .chunk = CHUNK);
    ht_engine *engine;
    ht_error error = {0};
    check(ht_engine_create(model, &options, &engine, &error), &error);
    return engine;
}

typedef struct request {
    uint64_t name;
    int32_t ids[CONTEXT];
    size_t n;
} request;

static void make_request(request *r, ht_batch *batch) {
    ht_error error = {0};
    const ht_sampling sampling = HT_INIT(ht_sampling, .temperature = pick(2) ? 0.8f : 0, .seed = pick(1000));
    const ht_generate_options options =
        HT_INIT(ht_generate_options, .max_tokens = 1 + (int)pick(ANSWER), .top_logprobs = TOP, .sampling = &sampling);
    const size_t alike = 8 * pick(4); /* some begin as others do, or with all of another one */
    r->n = alike + (alike && pick(3) == 0 ? 0 : 1 + pick(PROMPT - alike));
    for (size_t i = 0; i < r->n; i++)
        r->ids[i] = (int32_t)(i < alike ? 3 * i + 5 : pick(VOCABULARY));
    check(ht_batch_add(batch, r->ids, r->n, &options, &r->name, &error), &error);
}

/* The alternatives that were reported behind each token are those of the text computed anew. */
static void check_answer(request *r, const ht_generate_result *got) {
    ht_error error = {0};
    ht_token_logprob top[CONTEXT * TOP];
    float logprobs[CONTEXT];
    assert_int_equal(got->stop, HT_STOP_LIMIT);
    memcpy(r->ids + r->n, got->ids, got->n * sizeof *got->ids);
    check(ht_session_score(alone, r->ids, r->n + got->n, 0, logprobs, TOP, top, &error), &error);
    for (size_t i = 0; i < got->n; i++)
        for (size_t k = 0; k < TOP; k++) {
            const float wanted = top[(r->n + i - 1) * TOP + k].logprob, is = got->top[i * TOP + k].logprob;
            if (!(fabsf(wanted - is) <= BOUND))
                fail_msg("request %llu, token %zu: a log-probability of %g, not %g", (unsigned long long)r->name, i,
                         (double)is, (double)wanted);
        }
}

static uint64_t resident_bytes(void) {
    unsigned long pages = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%lu %lu", &pages, &resident), 2);
    fclose(file);
    return resident * 4096ull;
}

/* Fifty requests on two lanes, one of which fails at submit number `at`. */
static void run_requests(unsigned at, bool first) {
    static const char *const cuts[] = {"head,feature,channel", "causal", "row"};
    ht_error error = {0};
    char devices[64];
    request requests[REQUESTS];
    size_t n = 0, taken = 0;
    ht_batch *batch;
    snprintf(devices, sizeof devices, first ? "cpu:cpus=0:fail=%u,cpu:cpus=1" : "cpu:cpus=0,cpu:cpus=1:fail=%u", at);
    const ht_engine_options options =
        HT_INIT(ht_engine_options, .devices = devices, .strategy = HT_STRATEGY_TENSOR, .precision = HT_PRECISION_EXACT,
                .cuts = cuts[pick(3)], .kv_type = HT_KV_F32, .context = CONTEXT, .chunk = CHUNK);
    ht_engine *engine;
    check(ht_engine_create(model, &options, &engine, &error), &error);
    check(ht_batch_create(engine, &HT_INIT(ht_batch_options, .sequences = SEQUENCES), &batch, &error), &error);
    while (taken < REQUESTS) {
        const ht_batch_event *events;
        size_t n_events;
        while (n < REQUESTS && (n - taken < SEQUENCES || pick(2)))
            make_request(&requests[n++], batch);
        check(ht_batch_step(batch, &events, &n_events, &error), &error);
        for (size_t i = 0; i < n_events; i++) {
            ht_generate_result result = HT_INIT(ht_generate_result);
            if (!events[i].ended)
                continue;
            size_t k = 0;
            while (requests[k].name != events[i].request)
                k++;
            check(ht_batch_take(batch, requests[k].name, &result, &error), &error);
            check_answer(&requests[k], &result);
            reused += result.prompt_reused;
            ht_generate_result_clear(&result);
            taken++;
        }
    }
    ht_batch_destroy(batch);
    ht_engine_destroy(engine);
}

static void test_failures(void **state) {
    uint64_t before = 0;
    if ((ht_all_cores()->words[0] & 3) != 3)
        skip();
    ht_log_set(note, NULL, HT_LOG_WARN);
    for (unsigned e = 0; e < ENGINES; e++) {
        random_state = e * 2654435761u + 3;
        run_requests(400 + (unsigned)pick(1200), e % 2);
        if (e == ENGINES / 4)
            before = resident_bytes();
    }
    const uint64_t after = resident_bytes();
    ht_log_set(NULL, NULL, HT_LOG_WARN);
    print_message("%d of %d engines lost a device; %zu tokens computed before; memory held %.1f MiB, then %.1f\n",
                  atomic_load(&lost), ENGINES, reused, (double)before / 1048576, (double)after / 1048576);
    assert_int_equal(atomic_load(&lost), ENGINES);
    assert_true(reused > 20 * ENGINES);
    assert_true(SANITIZED || after < before + (2u << 20));
}

/* The second time, a model with states. */
static int open_all(void **state) {
    static bool recurrent;
    ht_error error = {0};
    if (ht_model_open("shape:tiny", &model, &error))
        return -1;
    if (recurrent) {
        ht_builder b;
        const ht_rotation rotation = recurrent_anew(model, &b, &error);
        check(recurrent_list(&b, &rotation), &error);
    }
    recurrent = true;
    atomic_store(&lost, 0);
    reused = 0;
    alone_on = open_engine("cpu", HT_STRATEGY_SINGLE);
    return ht_session_create(alone_on, &alone, &error);
}

static int close_all(void **state) {
    ht_session_destroy(alone);
    ht_engine_destroy(alone_on);
    ht_model_close(model);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_failures)};
    const int failed = cmocka_run_group_tests(tests, open_all, close_all);
    return failed + cmocka_run_group_tests(tests, open_all, close_all);
}
