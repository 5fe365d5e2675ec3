/* Energy of a made-up chip against what is worked out by hand, ranges against every corner, and where a machine's time went. */
#include "unit/test.h"

#include "reproduce/compare.h"
#include "reproduce/validate.h"

#include <math.h>

#define QUOTE(...) #__VA_ARGS__

/* Package 2 W (1 to 4); GPU 8 and 1 W, for certain; NPU 3 W (2 to 6), idle 0.5 (0.25 to 1); a CPU whose watts nobody gives. */
static const char toy[] = QUOTE({
    "name" : "toy",
    "memory" : {
        "peak_GBps" : {"value" : 100, "source" : "s"},
        "base_W" : {"value" : 2, "low" : 1, "high" : 4, "source" : "assumed"}
    },
    "processors" : [
        {
            "name" : "gpu",
            "kind" : "gpu",
            "reached_TFLOPS" : {"value" : 1, "source" : "s"},
            "busy_W" : {"value" : 8, "source" : "s"},
            "idle_W" : {"value" : 1, "source" : "s"}
        },
        {
            "name" : "npu",
            "kind" : "npu",
            "reached_TFLOPS" : {"value" : 1, "source" : "s"},
            "busy_W" : {"value" : 3, "low" : 2, "high" : 6, "source" : "assumed"},
            "idle_W" : {"value" : 0.5, "low" : 0.25, "high" : 1, "source" : "assumed"}
        },
        {"name" : "cpu", "kind" : "cpu", "reached_TFLOPS" : {"value" : 1, "source" : "s"}, "cores" : "0-3"}
    ]
});

static ht_soc *parse(void) {
    ht_soc *soc = NULL;
    ht_error error;
    check(ht_soc_parse("toy.json", toy, strlen(toy), &soc, &error), &error);
    return soc;
}

static void is_near(double value, double expected) {
    if (!(fabs(value - expected) <= 1e-9 * fabs(expected)))
        fail_msg("%.12g where %.12g is due", value, expected);
}

/* A token of 2 s: the GPU computes for 1.5 s of them, the NPU for 0.5 s. */
static void test_by_hand(void **state) {
    ht_soc *soc = parse();
    ht_energy energy = {.seconds = 2, .busy = {1.5, 0.5}};
    const ht_range joules = ht_energy_joules(soc, &energy);
    is_near(joules.value, 2 * 2 + 1.5 * 8 + 0.5 * 1 + 0.5 * 3 + 1.5 * 0.5);
    is_near(joules.low, 2 * 1 + 1.5 * 8 + 0.5 * 1 + 0.5 * 2 + 1.5 * 0.25);
    is_near(joules.high, 2 * 4 + 1.5 * 8 + 0.5 * 1 + 0.5 * 6 + 1.5 * 1);
    energy.busy[2] = 0.1; /* the CPU's watts are not known */
    assert_true(isnan(ht_energy_joules(soc, &energy).value));
    ht_soc_free(soc);
}

/* Every end of every range: base, the NPU busy and idle. */
static void test_ratio(void **state) {
    static const ht_energy pairs[][2] = {{{2, {1.5, 0.5}}, {3, {3, 0}}},
                                         {{1, {0, 1}}, {3, {3, 0}}},
                                         {{3, {3, 0}}, {1, {0, 1}}},
                                         {{5, {0.1, 4}}, {5, {4, 0.1}}}};
    ht_soc *soc = parse();
    for (size_t p = 0; p < HT_COUNT(pairs); p++) {
        const ht_range ratio = ht_energy_ratio(soc, &pairs[p][0], &pairs[p][1]);
        double low = INFINITY, high = 0, middle = 0;
        for (int corner = 0; corner < 8; corner++) {
            double joules[2];
            for (int side = 0; side < 2; side++) {
                const ht_energy *e = &pairs[p][side];
                joules[side] = (corner & 1 ? 4 : 1) * e->seconds + 8 * e->busy[0] + (e->seconds - e->busy[0]) +
                               (corner & 2 ? 6 : 2) * e->busy[1] + (corner & 4 ? 1 : 0.25) * (e->seconds - e->busy[1]);
            }
            low = fmin(low, joules[0] / joules[1]);
            high = fmax(high, joules[0] / joules[1]);
        }
        middle = ht_energy_joules(soc, &pairs[p][0]).value / ht_energy_joules(soc, &pairs[p][1]).value;
        is_near(ratio.value, middle);
        is_near(ratio.low, low);
        is_near(ratio.high, high);
        const ht_range same = ht_energy_ratio(soc, &pairs[p][0], &pairs[p][0]);
        assert_true(fabs(same.low - 1) < 1e-9 && fabs(same.high - 1) < 1e-9); /* whatever the watts are */
    }
    ht_soc_free(soc);
}

/* All processors: this rail, and the others idle. DRAM is in no rail, so the base is not, either. */
static void test_total(void **state) {
    ht_soc *soc = parse();
    ht_measured_energy e = {.kind = HT_DEVICE_NPU, .rail = 5, .total = 10};
    is_near(ht_predict_energy(&e, soc, NULL).value, 5 + 1);
    e.kind = HT_DEVICE_GPU;
    const ht_range watts = ht_predict_energy(&e, soc, NULL);
    is_near(watts.value, 5 + 0.5);
    is_near(watts.low, 5 + 0.25);
    is_near(watts.high, 5 + 1);
    ht_soc_free(soc);
}

/* Two processors side by side, one of them longer than the other; then nobody. All of the time is somewhere. */
static void test_where_time_goes(void **state) {
    ht_error error;
    ht_machine *machine = NULL;
    ht_machine_use use[2];
    char *path = temporary_path("toy.json");
    check(ht_file_write(path, toy, strlen(toy), &error), &error);
    char spec[256];
    snprintf(spec, sizeof spec, "%s@gpu.launch_us=0@gpu.empty_us=0@npu.launch_us=0@npu.empty_us=0@gpu.finish_us=0",
             path);
    check(ht_machine_join(NULL, spec, &machine, &error), &error);
    /* 1 s of moving 70 GB beside 0.5 s of 70 GB: together they get 87 */
    const ht_work moving = {.seconds = 1, .bytes = 70e9, .parts = {[HT_PART_MEMORY] = 1}};
    const ht_work mixed = {
        .seconds = 0.5, .bytes = 1, .parts = {[HT_PART_MATRIX] = 0.3, [HT_PART_VECTOR] = 0.1, [HT_PART_FIXED] = 0.1}};
    ht_machine_submit(machine, 0, &moving);
    ht_machine_submit(machine, 1, &mixed);
    check(ht_machine_wait(machine, 0, 1, HT_SYNC_FINISH, &error), &error);
    ht_clock_charge(ht_machine_clock(machine), 0.25);
    for (size_t i = 0; i < 2; i++)
        ht_machine_use_of(machine, i, &use[i]);
    assert_true(fabs(use[0].parts[HT_PART_MEMORY] - 0.75) < 1e-6); /* half of the first 0.5 s, then alone */
    assert_true(fabs(use[1].parts[HT_PART_MATRIX] - 0.15) < 1e-6);
    assert_true(fabs(use[1].parts[HT_PART_VECTOR] - 0.05) < 1e-6);
    assert_true(fabs(use[1].parts[HT_PART_FIXED] - 0.05) < 1e-6);
    double all = 0;
    for (size_t i = 0; i < 2; i++)
        for (int part = 0; part < HT_WORK_PARTS; part++)
            all += use[i].parts[part];
    assert_true(fabs(all - (use[0].seconds - 0.25)) < 1e-6);
    ht_machine_leave(machine);
    free(path);
}

/* What memory that is short makes a command longer is memory's, whatever the command does alone. */
static void test_contention(void **state) {
    ht_error error;
    ht_machine *machine = NULL;
    ht_machine_use use;
    char *path = temporary_path("toy.json");
    check(ht_file_write(path, toy, strlen(toy), &error), &error);
    char spec[256];
    snprintf(spec, sizeof spec,
             "%s@memory.together_GBps=60@gpu.launch_us=0@gpu.empty_us=0@npu.launch_us=0@npu.empty_us=0@npu.priority=0",
             path);
    check(ht_machine_join(NULL, spec, &machine, &error), &error);
    const ht_work gpu = {.seconds = 10, .bytes = 400e9, .parts = {[HT_PART_MEMORY] = 10}};
    const ht_work npu = {.seconds = 1, .bytes = 40e9, .parts = {[HT_PART_MATRIX] = 1}};
    ht_machine_submit(machine, 0, &gpu); /* served first: 40 of 60 GB/s, so the NPU has half of what it asks for */
    ht_machine_submit(machine, 1, &npu);
    check(ht_machine_wait(machine, 1, 1, HT_SYNC_FINISH, &error), &error);
    ht_machine_use_of(machine, 1, &use);
    assert_true(fabs(use.busy - 2) < 1e-6);
    assert_true(fabs(use.parts[HT_PART_MATRIX] - 0.5) < 1e-6 && fabs(use.parts[HT_PART_MEMORY] - 0.5) < 1e-6);
    ht_machine_leave(machine);
    free(path);
}

static void test_limits_in_words(void **state) {
    ht_soc *soc = parse();
    ht_spent spent = {.waiting = 0.2};
    char text[160];
    spent.parts[0][HT_PART_MEMORY] = 0.25;
    spent.parts[1][HT_PART_MEMORY] = 0.11;
    spent.parts[1][HT_PART_VECTOR] = 0.34;
    spent.parts[0][HT_PART_MATRIX] = 0.1;
    ht_limits_text(soc, &spent, 3, text);
    assert_string_equal(text, "memory 36%, NPU's vector unit 34%, joins and launches 20%");
    ht_limits_text(soc, &spent, 1, text);
    assert_string_equal(text, "memory 36%");
    ht_soc_free(soc);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_by_hand),    cmocka_unit_test(test_ratio),
                                       cmocka_unit_test(test_total),    cmocka_unit_test(test_where_time_goes),
                                       cmocka_unit_test(test_contention), cmocka_unit_test(test_limits_in_words)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
