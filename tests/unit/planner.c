/* The planner on a simulated phone with real models' shapes, through engines as any program would use them: what it decides
 * must pay. Time is virtual, so that figures are the same every time. */
#include "unit/test.h"

#include "engine/engine.h"
#include "hetero_tools.h"

#include <math.h>
#include <time.h>

#define SOC "sim:snapdragon-8-gen-3"
#define GPU SOC "/gpu"
#define NPU SOC "/npu"
#define CPU SOC "/cpu"

static ht_engine *open_engine(ht_model *model, const char *devices, uint64_t npu_memory, const int *prompts,
                              size_t n_prompts) {
    const ht_engine_options options =
        HT_INIT(ht_engine_options, .devices = devices, .precision = HT_PRECISION_EXACT, .context = 2048, .chunk = 1024,
                .strategy = HT_STRATEGY_AUTO, .prompts = prompts, .n_prompts = n_prompts, .npu_memory = npu_memory);
    ht_engine *engine;
    ht_error error = {0};
    check(ht_engine_create(model, &options, &engine, &error), &error);
    return engine;
}

static ht_model *open_model(const char *name) {
    ht_model *model;
    ht_error error = {0};
    check(ht_model_open(name, &model, &error), &error);
    return model;
}

static double thread_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* A prompt of a new length waits for its plan: for the solver, for questions whether graphs are there, and for programs. */
static void test_a_new_length_waits_less_than_a_millisecond(void **state) {
    static const int prompts[] = {64, 256, 1024};
    static const size_t lengths[] = {17, 40, 65, 100, 135, 200, 300, 333, 525, 777, 1000};
    ht_model *model = open_model("shape:llama-3-8b");
    ht_engine *engine = open_engine(model, GPU "," NPU "," CPU, 16ull << 30, prompts, HT_COUNT(prompts));
    double seconds[HT_COUNT(lengths)];
    ht_error error = {0};
    assert_int_equal(engine->set.n_lanes, 3);
    for (size_t i = 0; i < HT_COUNT(lengths); i++) {
        ht_schedule *schedule;
        const double begin = thread_seconds();
        check(ht_passes_schedule(&engine->passes, lengths[i], 0, 1, &schedule, &error), &error);
        seconds[i] = thread_seconds() - begin;
    }
    ht_sort_doubles(seconds, HT_COUNT(lengths));
    print_message("a new length with three lanes: planned in %.0f us (median), %.0f us at most\n",
                  seconds[HT_COUNT(lengths) / 2] * 1e6, seconds[HT_COUNT(lengths) - 1] * 1e6);
    assert_true(!TIMED || seconds[HT_COUNT(lengths) / 2] < 1e-3);
    ht_engine_destroy(engine);
    ht_model_close(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_new_length_waits_less_than_a_millisecond),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
