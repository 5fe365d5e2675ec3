/* Simulated SoCs: timelines, sharing and laws against what is worked out by hand; engines on them, whose numbers are the CPU's
 * and whose times are the same every time. The SoC is made up, of round figures. */
#include "unit/test.h"
#include "slots.h"

#include "device/sim/law.h"
#include "device/sim/sim.h"
#include "engine/engine.h"
#include "session/session.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>

enum { GPU, NPU, CPU, LITTLE }; /* as in the file */
enum { TOKENS = 100, DECODED = 4, VOCABULARY = 512, CONTEXT = 256 };

static const char toy[] =
    "{\"name\": \"toy\",\n"
    " \"memory\": {\"peak_GBps\": {\"value\": 100, \"source\": \"test\"}, \"together_GBps\": {\"value\": 60, "
    "\"source\": \"test\"},\n"
    "   \"reached_GBps\": {\"value\": 70, \"source\": \"test\"}, \"activation_bytes\": {\"value\": 2, \"source\": "
    "\"test\"}},\n"
    " \"host\": {\"poll_us\": {\"value\": 1, \"source\": \"test\"}, \"sleep_late_us\": {\"value\": 50, \"source\": "
    "\"test\"},\n"
    "   \"switch_us\": {\"value\": 20, \"source\": \"test\"}},\n"
    " \"processors\": [\n"
    "  {\"name\": \"gpu\", \"kind\": \"gpu\", \"reached_TFLOPS\": {\"value\": 1, \"source\": \"test\"},\n"
    "   \"bandwidth_GBps\": {\"value\": 40, \"source\": \"test\"}, \"launch_us\": {\"value\": 10, \"source\": "
    "\"test\"},\n"
    "   \"empty_us\": {\"value\": 70, \"source\": \"test\"}, \"finish_us\": {\"value\": 400, \"source\": \"test\"},\n"
    "   \"event_us\": {\"value\": 30, \"source\": \"test\"}, \"flag_us\": {\"value\": 5, \"source\": \"test\"},\n"
    "   \"copy_us\": {\"value\": 300, \"source\": \"test\"}, \"operator_us\": {\"value\": 0, \"source\": \"test\"}},\n"
    "  {\"name\": \"npu\", \"kind\": \"npu\", \"companion\": \"little\", \"reached_TFLOPS\": {\"value\": 10, "
    "\"source\": \"test\"},\n"
    "   \"bandwidth_GBps\": {\"value\": 40, \"source\": \"test\"}, \"overlap\": {\"value\": 1, \"source\": \"test\"},\n"
    "   \"launch_us\": {\"value\": 10, \"source\": \"test\"}, \"empty_us\": {\"value\": 0, \"source\": \"test\"},\n"
    "   \"array\": {\"value\": 32, \"source\": \"test\"}, \"arrays\": {\"value\": 8, \"source\": \"test\"},\n"
    "   \"tile_load_rows\": {\"value\": 96, \"source\": \"test\"}, \"onchip_MiB\": {\"value\": 8, \"source\": "
    "\"test\"},\n"
    "   \"spill_columns\": {\"value\": 1024, \"source\": \"test\"}, \"build_ms\": {\"value\": 2, \"source\": "
    "\"test\"},\n"
    "   \"operator_us\": {\"value\": 0, \"source\": \"test\"}, \"graph_us\": {\"value\": 0, \"source\": \"test\"},\n"
    "   \"vector_Gvalues\": {\"value\": 1e6, \"source\": \"test\"}, \"scores_Gvalues\": {\"value\": 1e6, "
    "\"source\": \"test\"},\n"
    "   \"int16_TFLOPS\": {\"value\": 10, \"source\": \"test\"}, \"int16_graphs\": {\"value\": 1, \"source\": "
    "\"test\"},\n"
    "   \"build_ns_per_weight\": {\"value\": 10, \"source\": \"test\"}},\n"
    "  {\"name\": \"cpu\", \"kind\": \"cpu\", \"cores\": \"4-7\", \"reached_TFLOPS\": {\"value\": 0.4, \"source\": "
    "\"test\"},\n"
    "   \"bandwidth_GBps\": {\"value\": 40, \"source\": \"test\"}},\n"
    "  {\"name\": \"little\", \"kind\": \"cpu\", \"cores\": \"0-3\", \"reached_TFLOPS\": {\"value\": 0.1, \"source\": "
    "\"test\"},\n"
    "   \"bandwidth_GBps\": {\"value\": 10, \"source\": \"test\"}}]}\n";

static ht_model *model;
static int32_t ids[CONTEXT];

/* "PATH" or "PATH@gpu.launch_us=0": the file, with changes. */
static const char *soc(const char *changes) {
    static char spec[256];
    char *path = temporary_path("toy.json");
    snprintf(spec, sizeof spec, "%s%s", path, changes);
    free(path);
    return spec;
}

static ht_machine *open_machine(const char *changes) {
    ht_error error = {0};
    ht_machine *machine = NULL;
    check(ht_machine_join(NULL, soc(changes), &machine, &error), &error);
    return machine;
}

static double now_us(ht_machine *m) {
    return ht_clock_now(ht_machine_clock(m)) * 1e6;
}

static void is_near(double got, double want) {
    if (!(fabs(got - want) <= 1e-5 * fmax(1, fabs(want))))
        fail_msg("%.9g, not %.9g", got, want);
}

static ht_ticket submit_us(ht_machine *m, size_t processor, double us, double megabytes) {
    const ht_work work = {.seconds = us * 1e-6, .bytes = megabytes * 1e6};
    return ht_machine_submit(m, processor, &work);
}

static void wait_for(ht_machine *m, size_t processor, ht_ticket ticket, ht_sync sync) {
    ht_error error = {0};
    check(ht_machine_wait(m, processor, ticket, sync, &error), &error);
}

/* ---- one queue ------------------------------------------------------------------------------------------------------ */

static void test_queue_and_joins(void **state) {
    ht_machine *m = open_machine("");
    const ht_ticket first = submit_us(m, GPU, 1000, 0);
    is_near(now_us(m), 10); /* the launch keeps the caller */
    wait_for(m, GPU, first, HT_SYNC_FLAG);
    is_near(now_us(m), 10 + 70 + 1000 + 5);
    wait_for(m, GPU, first, HT_SYNC_FINISH); /* seen already */
    is_near(now_us(m), 1085);
    submit_us(m, GPU, 100, 0); /* empty for 15 us: 1095 + 70 + 100 = 1265 */
    const ht_ticket third = submit_us(m, GPU, 100, 0);
    is_near(now_us(m), 1105);
    assert_int_equal(ht_machine_completed(m, GPU), 1);
    wait_for(m, GPU, third - 1, HT_SYNC_EVENT);
    is_near(now_us(m), 1265 + 30);
    wait_for(m, GPU, third, HT_SYNC_FINISH); /* 1365 */
    is_near(now_us(m), 1365 + 400);
    submit_us(m, GPU, 100, 0); /* begins at 1775 + 70 */
    submit_us(m, GPU, 100, 0);
    wait_for(m, GPU, third + 1, HT_SYNC_FINISH); /* for all that is in the queue */
    is_near(now_us(m), 1775 + 70 + 200 + 400);
    ht_machine_leave(m);
}

/* One tiny command after the other: gaps shorter than a launch leave the queue awake. */
static void test_queue_stays_awake(void **state) {
    ht_machine *m = open_machine("");
    ht_ticket last = 0;
    submit_us(m, GPU, 1000, 0); /* begins at 80 */
    for (int i = 0; i < 200; i++)
        last = submit_us(m, GPU, 2, 0); /* those from the 108th on are launched after it */
    wait_for(m, GPU, last, HT_SYNC_FLAG);
    is_near(now_us(m), 10 + 200 * 10 + 2 + 5);
    ht_clock_charge(ht_machine_clock(m), 20e-6);
    last = submit_us(m, GPU, 2, 0);
    wait_for(m, GPU, last, HT_SYNC_FLAG);
    is_near(now_us(m), 2017 + 20 + 10 + 70 + 2 + 5);
    ht_machine_leave(m);
}

static void test_known_ends_cost_nothing(void **state) {
    ht_machine *m = open_machine("");
    const ht_ticket ticket = submit_us(m, GPU, 100, 0);
    ht_clock_charge(ht_machine_clock(m), 1);
    const double before = now_us(m);
    wait_for(m, GPU, ticket, HT_SYNC_EVENT);
    is_near(now_us(m), before);
    const ht_ticket next = submit_us(m, GPU, 100, 0);
    ht_clock_charge(ht_machine_clock(m), 1);
    wait_for(m, GPU, next, HT_SYNC_FINISH); /* a queue is drained, whatever is in it */
    is_near(now_us(m), before + 1e6 + 10 + 400);
    ht_error error = {0};
    fails(ht_machine_wait(m, GPU, next + 1, HT_SYNC_FLAG, &error), HT_ERROR_DEVICE, &error, "sim:toy/gpu");
    ht_machine_leave(m);
}

static void test_sleeps_are_late(void **state) {
    ht_machine *m = open_machine("");
    ht_clock_sleep(ht_machine_clock(m), 100e-6);
    is_near(now_us(m), 150);
    ht_machine_leave(m);
}

/* ---- sharing -------------------------------------------------------------------------------------------------------- */

#define AT_ONCE "@gpu.launch_us=0@gpu.empty_us=0@npu.launch_us=0@cpu.launch_us=0@cpu.empty_us=0"

/* When the commands of `n` processors end that all begin at 0: each takes 1 ms alone and moves so many megabytes. */
static void check_ends(const char *changes, size_t n, const double *megabytes, const double *ends) {
    ht_machine *m = open_machine(changes);
    for (size_t i = 0; i < n; i++)
        submit_us(m, i, 1000, megabytes[i]);
    for (size_t i = 0; i < n; i++) {
        double end = INFINITY;
        for (size_t k = 0; k < n; k++) /* in order of their ends */
            if (ht_machine_completed(m, k) == 0)
                end = fmin(end, ends[k]);
        for (size_t k = 0; k < n; k++)
            if (ends[k] == end)
                wait_for(m, k, 1, HT_SYNC_FLAG);
    }
    for (size_t i = 0; i < n; i++) {
        ht_machine_use use;
        ht_machine_use_of(m, i, &use);
        is_near(use.busy * 1e6, ends[i]);
        is_near(use.bytes, megabytes[i] * 1e6);
    }
    ht_machine_leave(m);
}

static void test_sharing(void **state) {
    /* 40 and 10 GB/s: less than 60 */
    check_ends(AT_ONCE, 2, (const double[]){40, 10}, (const double[]){1000, 1000});
    /* the GPU first: the NPU has 20 of 40, and after 1 ms all of it for the other half */
    check_ends(AT_ONCE, 2, (const double[]){40, 40}, (const double[]){1000, 1500});
    /* equals: 30 each */
    check_ends(AT_ONCE "@gpu.priority=0", 2, (const double[]){40, 40}, (const double[]){4000 / 3.0, 4000 / 3.0});
    /* in proportion: 45 of 40 + 20 asked for leaves both three quarters; then the other alone */
    check_ends(AT_ONCE "@gpu.priority=0@memory.together_GBps=45", 2, (const double[]){40, 20},
               (const double[]){4000 / 3.0, 4000 / 3.0});
    /* three: 70, of which the GPU has 40 and each other 15 of 40; then 60 for two: 30 of 40. At 1 ms 3/8 are done */
    check_ends(AT_ONCE, 3, (const double[]){40, 40, 40}, (const double[]){1000, 1000 + 625 / 0.75, 1000 + 625 / 0.75});
    /* computing disturbs nobody */
    check_ends(AT_ONCE, 2, (const double[]){40, 0}, (const double[]){1000, 1000});
}

/* ---- a game --------------------------------------------------------------------------------------------------------- */

static void test_frames(void **state) {
    ht_machine *m = open_machine(AT_ONCE);
    ht_machine_use use;
    ht_machine_load(m, GPU, 0.5, 100); /* 5 of every 10 ms, from 0 on */
    const ht_ticket ticket = submit_us(m, GPU, 12000, 0);
    wait_for(m, GPU, ticket, HT_SYNC_FLAG);
    is_near(now_us(m),
            12000 + 5); /* ours began first, and is not interrupted: the frame of 0 is late, that of 10 left out */
    ht_machine_use_of(m, GPU, &use);
    assert_int_equal(use.frames, 0);
    const ht_ticket second = submit_us(m, GPU, 1000, 0); /* behind the frame: 12 + 5 + 1 */
    wait_for(m, GPU, second, HT_SYNC_FLAG);
    is_near(now_us(m), 18000 + 5);
    for (int i = 0; i < 80; i++) /* short ones: a frame has to wait for one of them at most */
        submit_us(m, GPU, 1000, 0);
    wait_for(m, GPU, second + 80, HT_SYNC_FLAG);
    ht_machine_use_of(m, GPU, &use);
    assert_in_range(use.frames_due - use.frames, 1, 2); /* the one left out, and perhaps one under way */
    is_near(use.busy * 1e6, 12000 + 81 * 1000);
    assert_in_range((int)(now_us(m) / 1000), 170, 190); /* half the processor is ours */
    ht_machine_leave(m);
}

/* ---- laws ----------------------------------------------------------------------------------------------------------- */

static ht_law law_of(const ht_machine *m, size_t processor, ht_sim_order order) {
    return (ht_law){.soc = ht_machine_soc(m),
                    .processor = &ht_machine_soc(m)->processors[processor],
                    .hparams = &model->hparams,
                    .activations = HT_SIM_INT16, /* nothing to expand */
                    .order = order};
}

static ht_op made_up(size_t rows, size_t cols) {
    ht_op op = {.kind = HT_OP_MATMUL, .layer = 0, .n_parts = 1};
    op.parts[0] = (ht_matrix){.type = ht_type_by_name("Q4_0"), .rows = rows, .cols = cols, .row_bytes = cols / 32 * 18};
    return op;
}

static double microseconds(const ht_law *law, const ht_op *op, const ht_slice *slice, size_t tokens) {
    return ht_law_work(law, op, slice, tokens, 0).seconds * 1e6;
}

static void test_laws(void **state) {
    ht_machine *m = open_machine("");
    const ht_law gpu = law_of(m, GPU, HT_SIM_BEST), best = law_of(m, NPU, HT_SIM_BEST),
                 activations = law_of(m, NPU, HT_SIM_ACTIVATIONS_FIRST), weights = law_of(m, NPU, HT_SIM_WEIGHTS_FIRST);
    const ht_op op = made_up(4096, 2048), deep = made_up(1024, 16384);
    const ht_slice whole = {0}, half = {.row_end = 2048}, columns = {.reduction_begin = 1024, .reduction_end = 2048};
    const double bytes = 4096 * 2048 * 18 / 32.0; /* of weights */
    is_near(microseconds(&gpu, &op, &whole, 1), (bytes + 2 * 6144) / 40e3);
    is_near(microseconds(&gpu, &op, &half, 1), (bytes / 2 + 2 * 4096) / 40e3);
    is_near(microseconds(&gpu, &op, &columns, 1), (bytes / 2 + 2 * 5120) / 40e3);
    is_near(microseconds(&gpu, &op, &whole, 256), 2.0 * 256 * 4096 * 2048 / 1e6); /* computing takes longer */
    const double tiles = 2048 / 32.0, row = 2 * 32 * 32 / 10e6;
    is_near(microseconds(&activations, &op, &whole, 256), tiles * 128 * (96 + 256) * row);
    is_near(microseconds(&weights, &op, &whole, 256), tiles * 8 * (96 + 4096) * row);
    is_near(microseconds(&best, &op, &whole, 256), tiles * 8 * (96 + 4096) * row);
    is_near(microseconds(&best, &op, &whole, 225), microseconds(&best, &op, &whole, 256)); /* padded to 32 */
    assert_true(microseconds(&best, &op, &whole, 257) > microseconds(&best, &op, &whole, 256));
    const ht_slice odd = {.row_end = 2049}, even = {.row_end = 2080};
    is_near(microseconds(&weights, &op, &odd, 256), microseconds(&weights, &op, &even, 256));
    /* a long reduction: 4 * 32 * 8 * 16384 bytes are twice what the chip holds; sums go out 16 times, come back 15 times */
    const ht_work spilled = ht_law_work(&best, &deep, &whole, 64, 0);
    is_near(spilled.bytes, 1024 * 16384 * 18 / 32.0 + 2 * 64 * (1024 + 16384) + 8 * 1024 * 64 * 15.0);
    const ht_slice share = {.row_begin = 1, .row_end = 2, .of = 4};
    is_near(ht_law_work(&gpu, &op, &share, 1, 0).bytes, bytes / 4 + 2 * (1024 + 2048));
    ht_machine_leave(m);
}

static const ht_op *find_op(ht_op_kind kind) {
    for (size_t i = 0; i < model->n_ops; i++)
        if (model->ops[i].kind == kind)
            return &model->ops[i];
    fail();
    return NULL;
}

/* What an NPU spends beside its arrays: weights are expanded, results written back, each operator and graph takes a while. */
static void test_laws_of_npus(void **state) {
    ht_machine *m = open_machine("@npu.vector_Gvalues=5@npu.expand_Gweights=50@npu.scores_Gvalues=20@npu.operator_us=20"
                                 "@npu.graph_us=90@npu.int16_TFLOPS=20");
    const ht_op op = made_up(4096, 2048), deep = made_up(1024, 16384);
    const ht_slice whole = {0};
    const double fixed = 20 + 90, weights = 4096 * 2048, expand = weights / 50e3, bytes = weights * 18 / 32;
    const double row = 2 * 32 * 32 / 10e6, matrix = 2048 / 32.0 * 8 * (96 + 4096) * row, written = 256 * 4096 / 5e3;
    ht_law law = law_of(m, NPU, HT_SIM_BEST);
    law.activations = HT_SIM_FP16;
    is_near(microseconds(&law, &op, &whole, 256), matrix + expand + written + fixed);
    is_near(microseconds(&law, &op, &whole, 1), expand + 4096 / 5e3 + fixed); /* the vector unit alone, no array */
    law.expand = 100e9;
    is_near(microseconds(&law, &op, &whole, 256), matrix + expand / 2 + written + fixed);
    law.expand = 0;
    law.activations = HT_SIM_INT16;
    is_near(microseconds(&law, &op, &whole, 256), matrix / 2 + written + fixed);
    is_near(microseconds(&law, &op, &whole, 1), (bytes + 2 * 6144) / 40e3 + fixed); /* nothing to expand: memory */
    const ht_work apart = ht_law_work(&law, &op, &whole, 1, 0);
    is_near(apart.apart * 1e6, fixed);
    law.whole = true; /* one graph: what is between operators stays on the chip, a long reduction, too */
    is_near(microseconds(&law, &op, &whole, 1), bytes / 40e3 + 20);
    is_near(ht_law_work(&law, &deep, &whole, 64, 0).bytes, 1024 * 16384 * 18 / 32.0);
    law.whole = false;
    ht_op ffn;
    size_t at = 0;
    while (!ht_op_ffn(&model->ops[at], model->n_ops - at, &ffn))
        assert_true(++at < model->n_ops);
    is_near(ht_law_work(&law, &ffn, &whole, 64, 0).bytes, 3 * 128 * 256 * 18 / 32.0 + 2 * 64 * 2 * 128.0);
    /* 4 heads; 1 token's scores fill the array's 32 rows; 64 keys in front of a mask, whatever the position is */
    law.context = 64;
    const double values = 2 * 4 * 32 / 5e3, scores = 4 * 32 * 64 / 20e3, flops = 4 * 4 * 32 * 64 / 20e6;
    is_near(microseconds(&law, find_op(HT_OP_ATTENTION), &whole, 1), values + scores + flops + fixed);
    ht_machine_leave(m);
}

/* shape:tiny: 128 wide, 4 heads and 2 key-value heads of 32, 256 features, 512 words. */
static void test_laws_without_weights(void **state) {
    ht_machine *m = open_machine("");
    ht_law gpu = law_of(m, GPU, HT_SIM_BEST);
    const ht_slice whole = {0}, head = {.row_end = 1, .of = 2};
    const size_t first = 10;
    gpu.kv_type = HT_KV_F16;
    const ht_work attention = ht_law_work(&gpu, find_op(HT_OP_ATTENTION), &whole, 3, first);
    is_near(attention.flops, 4.0 * 4 * 32 * (11 + 12 + 13));
    is_near(attention.bytes, 2.0 * 2 * 32 * 2 * 13 + 2.0 * 3 * 2 * 4 * 32);
    is_near(ht_law_work(&gpu, find_op(HT_OP_ATTENTION), &head, 3, first).flops, attention.flops / 2);
    is_near(ht_law_work(&gpu, find_op(HT_OP_GLU), &whole, 5, 0).bytes, 2.0 * 5 * 3 * 256);
    is_near(ht_law_work(&gpu, find_op(HT_OP_ARGMAX), &whole, 1, 0).bytes, 2.0 * 512);
    is_near(ht_law_work(&gpu, find_op(HT_OP_EMBED), &whole, 2, 0).bytes, 2 * (128 / 32 * 18 + 2 * 128.0));
    ht_op windowed = *find_op(HT_OP_ATTENTION);
    windowed.window = 12;
    is_near(ht_law_work(&gpu, &windowed, &whole, 3, first).flops, 4.0 * 4 * 32 * (11 + 12 + 12));
    ht_machine_leave(m);
}

/* ---- the clock ------------------------------------------------------------------------------------------------------ */

typedef struct actor { /* a thread that takes part, and writes down when it ran */
    ht_clock *clock;
    size_t number;
    double pause;
    char *log;
    atomic_int *running;
    bool stuck;
} actor;

static bool never(const void *context) {
    return false;
}
static bool is_zero(const void *context) {
    return atomic_load((const atomic_int *)context) == 0;
}

static void *act(void *argument) {
    actor *a = argument;
    ht_clock_enter(a->clock, a->number);
    for (int i = 0; i < 3 && a->pause > 0; i++) {
        ht_clock_charge(a->clock, a->pause);
        sprintf(a->log + strlen(a->log), "%zu@%.0f ", a->number, ht_clock_now(a->clock));
    }
    if (a->pause == 0)
        a->stuck = !ht_clock_await(a->clock, never, NULL, INFINITY);
    atomic_fetch_sub(a->running, 1);
    ht_clock_leave(a->clock, a->number);
    return NULL;
}

/* Two threads with these pauses, and the caller, who waits for them. */
static void run_actors(double first, double second, char log[256], bool stuck[2]) {
    static const ht_clock_host host = {.poll = 0, .late = 0, .wake = 0};
    const ht_clock_source nothing = {0};
    ht_error error = {0};
    ht_clock *clock;
    atomic_int running = 2;
    pthread_t threads[2];
    check(ht_clock_create(&host, &nothing, &clock, &error), &error);
    *log = 0;
    actor actors[2] = {{clock, 1, first, log, &running, false}, {clock, 2, second, log, &running, false}};
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, act, &actors[i]), 0);
    ht_clock_begin(clock, 3, 0);
    assert_true(ht_clock_await(clock, is_zero, &running, INFINITY));
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
        stuck[i] = actors[i].stuck;
    }
    ht_clock_destroy(clock);
}

static void test_threads_take_turns(void **state) {
    char log[256];
    bool stuck[2];
    for (int i = 0; i < 50; i++) {
        run_actors(2, 3, log, stuck);
        assert_string_equal(log, "1@2 2@3 1@4 1@6 2@6 2@9 "); /* at 6 both could: the lower number first */
        assert_true(!stuck[0] && !stuck[1]);
    }
}

static void test_deadlock_is_told(void **state) {
    char log[256];
    bool stuck[2];
    run_actors(0, 0, log, stuck);
    assert_true(stuck[0] && stuck[1]);
    run_actors(0, 3, log, stuck); /* once the other has ended */
    assert_string_equal(log, "2@3 2@6 2@9 ");
    assert_true(stuck[0] && !stuck[1]);
}

/* ---- engines -------------------------------------------------------------------------------------------------------- */

/* "gpu,npu:lengths=1+64" of the SoC, as names of devices. */
static char *devices_of(const char *processors, const char *changes) {
    ht_text text = {0};
    char spec[256];
    ht_error error = {0};
    for (const char *list = processors; ht_device_next(&list, spec);)
        check(ht_text_printf(&text, &error, "%ssim:%s/%s", text.bytes ? "," : "", soc(changes), spec), &error);
    return text.data;
}

static ht_status create(const char *devices, ht_strategy strategy, const char *cuts, ht_engine **engine,
                        ht_error *error) {
    static const int prompts[] = {1, TOKENS};
    const ht_engine_options options = HT_INIT(ht_engine_options, .devices = devices, .strategy = strategy, .cuts = cuts,
                                              .precision = HT_PRECISION_EXACT, .kv_type = HT_KV_F32, .context = CONTEXT,
                                              .prompts = prompts, .n_prompts = HT_COUNT(prompts));
    return ht_engine_create(model, &options, engine, error);
}

static ht_session *open_session(const char *processors, const char *changes, ht_strategy strategy, const char *cuts,
                                ht_engine **engine) {
    ht_error error = {0};
    ht_session *session;
    char *devices = devices_of(processors, changes);
    check(create(devices, strategy, cuts, engine, &error), &error);
    check(ht_session_create(*engine, &session, &error), &error);
    free(devices);
    return session;
}

static void close_session(ht_session *session, ht_engine *engine) {
    ht_session_destroy(session);
    ht_engine_destroy(engine);
}

/* Logits behind a prompt and behind each of some tokens. */
static void run(ht_session *session, float *logits) {
    ht_error error = {0};
    const float *here;
    check(ht_session_prefill(session, ids, TOKENS, &here, NULL, &error), &error);
    for (int i = 0; i <= DECODED; i++) {
        memcpy(logits + i * VOCABULARY, here, VOCABULARY * sizeof *here);
        if (i < DECODED)
            check(ht_session_decode(session, ids[TOKENS + i], &here, &error), &error);
    }
}

static float expected[(DECODED + 1) * VOCABULARY], got[(DECODED + 1) * VOCABULARY];

static void expect_logits(void) {
    ht_error error = {0};
    ht_engine *engine;
    ht_session *session;
    check(create("cpu", HT_STRATEGY_SINGLE, NULL, &engine, &error), &error);
    check(ht_session_create(engine, &session, &error), &error);
    run(session, expected);
    close_session(session, engine);
}

static void test_numbers_are_the_cpus(void **state) {
    static const char *const alone[] = {"gpu:numbers=on", "cpu:numbers=on"};
    ht_engine *engine;
    expect_logits();
    for (size_t i = 0; i < HT_COUNT(alone); i++) {
        ht_session *session = open_session(alone[i], "", HT_STRATEGY_SINGLE, NULL, &engine);
        run(session, got);
        assert_memory_equal(got, expected, sizeof got);
        close_session(session, engine);
    }
}

/* Other orders of sums only. */
static void test_numbers_of_cuts(void **state) {
    static const char *const cuts[] = {NULL, "row", "feature,head", "sequence", "hybrid", "causal", "layer"};
    static const char *const devices[] = {"gpu:numbers=on,npu:numbers=on:lengths=32+64",
                                          "gpu:numbers=on,npu:numbers=on:lengths=1+32+64,cpu:numbers=on"};
    ht_engine *engine;
    expect_logits();
    float largest = 0;
    for (size_t i = 0; i < HT_COUNT(expected); i++)
        largest = fmaxf(largest, fabsf(expected[i]));
    for (size_t d = 0; d < HT_COUNT(devices); d++)
        for (size_t c = SANITIZED ? d : 0; c < HT_COUNT(cuts); c += SANITIZED ? 3 : 1) {
            ht_session *session = open_session(devices[d], "", HT_STRATEGY_TENSOR, cuts[c], &engine);
            assert_int_equal(engine->set.n_lanes, 2 + d);
            run(session, got);
            for (size_t i = 0; i < HT_COUNT(got); i++)
                if (!(fabsf(got[i] - expected[i]) <= 1e-5f * largest))
                    fail_msg("%s, %s: logit %zu is %g, not %g", devices[d], cuts[c] ? cuts[c] : "all cuts", i,
                             (double)got[i], (double)expected[i]);
            close_session(session, engine);
        }
}

/* Tokens a second of the same run, twice: the same bits. */
static void test_runs_are_equal(void **state) {
    static const char *const devices[] = {"gpu", "gpu,npu:lengths=1+32+64", "gpu,npu:lengths=32+64,cpu"};
    for (size_t d = 0; d < HT_COUNT(devices); d++) {
        double first[2] = {0, 0};
        for (int again = 0; again < 3; again++)
            for (int decode = 0; decode < 2; decode++) {
                ht_engine *engine;
                ht_error error = {0};
                ht_bench_result result;
                const ht_bench_options options = {.prompt = decode ? 0 : TOKENS, .gen = decode ? 8 : 0};
                ht_session *session =
                    open_session(devices[d], "", d ? HT_STRATEGY_TENSOR : HT_STRATEGY_SINGLE, NULL, &engine);
                check(ht_bench(session, &options, &result, &error), &error);
                if (!again)
                    first[decode] = result.tps_median;
                assert_memory_equal(&first[decode], &result.tps_median, sizeof(double));
                close_session(session, engine);
            }
    }
}

/* A pass on one device is its commands' times behind each other, and one join. */
static void test_pass_is_its_commands(void **state) {
    ht_engine *engine;
    ht_session *session = open_session("gpu", "@gpu.launch_us=0", HT_STRATEGY_SINGLE, NULL, &engine);
    ht_error error = {0};
    size_t processor;
    ht_machine *m = ht_sim_machine(engine->set.devices[0], &processor);
    ht_law law = law_of(m, processor, HT_SIM_BEST);
    law.kv_type = HT_KV_F32;
    double all = 0;
    for (size_t i = 0; i < model->n_ops; i++) {
        const ht_slice whole = ht_whole_slice(&model->ops[i]);
        all += microseconds(&law, &model->ops[i], &whole, 1);
    }
    int32_t pick;
    check(ht_session_prefill_greedy(session, ids, 1, &pick, NULL, &error), &error);
    is_near(now_us(m), 70 + all + 5); /* begun once: the queue never ran empty */
    close_session(session, engine);
}

static void test_copies(void **state) {
    double seconds[2];
    for (int copied = 0; copied < 2; copied++) {
        ht_engine *engine;
        ht_error error = {0};
        ht_session *session = open_session(copied ? "gpu:memory=copied" : "gpu", "", HT_STRATEGY_SINGLE, NULL, &engine);
        int32_t pick;
        check(ht_session_prefill_greedy(session, ids, 1, &pick, NULL, &error), &error);
        seconds[copied] = ht_clock_now(engine->set.time);
        close_session(session, engine);
    }
    is_near(seconds[1] - seconds[0], 2 * 300e-6); /* ids in, the pick out */
}

/* ---- static graphs -------------------------------------------------------------------------------------------------- */

typedef struct bench { /* one product on one device of its own machine */
    ht_device *device;
    ht_task *task;
    ht_op op;
    ht_view slots[HT_MAX_SLOTS];
} bench;

static void open_bench(const char *processor, bench *b) {
    ht_error error = {0};
    char spec[300];
    snprintf(spec, sizeof spec, "sim:%s/%s", soc(""), processor);
    const ht_device_options options = {
        .hparams = &model->hparams, .max_tokens = 512, .max_context = 64, .made_up = true};
    const ht_slice whole = {.row_end = 4096, .reduction_end = 2048};
    check(ht_device_open(spec, &options, &b->device, &error), &error);
    b->op = made_up(4096, 2048);
    check(b->device->ops->prepare(b->device, &b->op, &whole, &b->task, &error), &error);
}

static void close_bench(bench *b) {
    b->device->ops->release(b->device, b->task);
    b->device->ops->close(b->device);
}

/* Microseconds from submit to the end of the wait by flag. */
static double time_submit(bench *b, size_t tokens) {
    ht_error error = {0};
    ht_ticket ticket;
    ht_clock *clock = ht_device_clock(b->device);
    const ht_binding binding = {.slots = b->slots, .tokens = tokens, .room = 512};
    const double start = ht_clock_now(clock);
    check(b->device->ops->submit(b->device, b->task, &binding, NULL, 0, &ticket, &error), &error);
    check(b->device->ops->wait(b->device, ticket, HT_SYNC_AUTO, &error), &error);
    return (ht_clock_now(clock) - start) * 1e6;
}

static void test_graphs(void **state) {
    bench b = {0};
    ht_error error = {0};
    open_bench("npu:lengths=64+128+256", &b);
    const ht_device_ops *ops = b.device->ops;
    ht_clock *clock = ht_device_clock(b.device);
    const double build = 2e-3 + 4096 * 2048 * 10e-9;
    assert_false(ops->ready(b.device, b.task, 128));
    check(ops->warm(b.device, b.task, 128, &error), &error);
    check(ops->warm(b.device, b.task, 256, &error), &error);
    is_near(ht_clock_now(clock), 0); /* built in the background, one after the other */
    check(ops->settle(b.device, b.task, 128, &error), &error);
    is_near(ht_clock_now(clock), build);
    assert_true(ops->ready(b.device, b.task, 128) && !ops->ready(b.device, b.task, 256));
    const double at_128 = time_submit(&b, 128);
    is_near(time_submit(&b, 60), at_128); /* no graph for 64: padded */
    is_near(time_submit(&b, 90), at_128);
    check(ops->settle(b.device, b.task, 256, &error), &error);
    is_near(ht_clock_now(clock), fmax(2 * build, ht_clock_now(clock)));
    const double at_256 = time_submit(&b, 200);
    assert_true(at_256 > at_128 && at_256 < 2 * at_128);
    is_near(time_submit(&b, 256 + 128), at_256 + at_128 - 3 - 10); /* behind each other: one launch hides, one join */
    close_bench(&b);
    bench online = {0};
    open_bench("npu:lengths=64:online=on", &online);
    time_submit(&online, 64);
    assert_true(time_submit(&online, 100) >= build * 1e6); /* at every submit */
    assert_true(time_submit(&online, 100) >= build * 1e6);
    close_bench(&online);
}

/* An engine for prompts of 64 and 96 tokens whose graphs may hold so many bytes (0: any); what they hold. */
static uint64_t open_with_memory(ht_model *deep, uint64_t bytes, const char *devices, ht_engine **engine) {
    static const int prompts[] = {64, 96};
    const ht_engine_options options =
        HT_INIT(ht_engine_options, .devices = devices, .strategy = HT_STRATEGY_TENSOR, .context = CONTEXT,
                .prompts = prompts, .n_prompts = HT_COUNT(prompts), .npu_memory = bytes);
    uint64_t held = 0;
    ht_error error = {0};
    check(ht_engine_create(deep, &options, engine, &error), &error);
    for (size_t i = 0; i < (*engine)->set.n_tasks; i++) {
        const ht_slice_task *task = &(*engine)->set.tasks[i];
        const ht_device *device = (*engine)->set.devices[task->device];
        if (device->ops->caps(device)->n_lengths)
            held += device->ops->task_bytes(task->task);
    }
    return held;
}

static bool has_npu(const ht_engine *engine) {
    bool found = false;
    for (size_t l = 0; l < engine->set.n_lanes; l++)
        for (size_t d = 0; d < engine->set.n_devices; d++)
            found |= engine->set.lanes[l].devices >> d & 1 && !engine->set.lanes[l].lost &&
                     engine->set.devices[d]->ops->caps(engine->set.devices[d])->kind == HT_DEVICE_NPU;
    return found;
}

/* With less memory than the plans would like there are fewer graphs; with next to none the NPU is done without. */
static void test_graph_memory(void **state) {
    ht_engine *engine;
    ht_error error = {0};
    ht_model *deep; /* what is measured first is two layers of it */
    char *devices = devices_of("gpu,npu:lengths=64+96", "");
    check(ht_model_open("shape:smollm2-135m", &deep, &error), &error);
    const uint64_t all = open_with_memory(deep, 0, devices, &engine);
    assert_true(has_npu(engine) && !engine->passes.graphs.no_room);
    ht_engine_destroy(engine);
    for (uint64_t part = 2; part < 5; part++) {
        const uint64_t held = open_with_memory(deep, all * part / 5, devices, &engine);
        assert_true(has_npu(engine) && engine->passes.graphs.no_room);
        assert_true(held <= all * part / 5);
        ht_engine_destroy(engine);
    }
    open_with_memory(deep, 1 << 10, devices, &engine);
    assert_false(has_npu(engine));
    ht_engine_destroy(engine);
    ht_model_close(deep);
    free(devices);
}

/* ---- what must not hang, or be ------------------------------------------------------------------------------------------ */

/* A program that waits for what no lane tells. */
static void test_lanes_that_wait_for_ever(void **state) {
    ht_engine *engine;
    ht_error error = {0};
    ht_session *session = open_session("gpu,npu:lengths=64", "", HT_STRATEGY_TENSOR, "head,feature", &engine);
    const float *logits;
    check(ht_session_prefill(session, ids, 64, &logits, NULL, &error), &error);
    ht_schedule *schedule = engine->passes.current;
    assert_true(schedule->n_lanes == 2);
    for (size_t i = 0; i < 2; i++)
        for (size_t k = 0; k < schedule->programs[i].head; k++)
            if (schedule->programs[i].steps[k].waits)
                schedule->programs[i].steps[k].need += 1000;
    ids[0]++;
    fails(ht_session_prefill(session, ids, 64, &logits, NULL, &error), HT_ERROR_DEVICE, &error,
          "deadlock between lanes");
    ids[0]--;
    ht_passes_forget_schedules(&engine->passes);
    check(ht_session_prefill(session, ids, 64, &logits, NULL, &error), &error); /* still usable */
    close_session(session, engine);
}

static void test_wrong_names(void **state) {
    static const struct {
        const char *devices, *culprit;
    } wrong[] = {{"sim:%s/tpu", "tpu"},
                 {"sim:%s/gpu:order=best", "order"},
                 {"sim:%s/npu:order=worst", "order=worst"},
                 {"sim:%s/npu:lengths=64+32", "lengths"},
                 {"sim:%s/gpu:game=120", "game"},
                 {"sim:%s/gpu:speed=2", "speed"},
                 {"sim:%s/gpu,cpu", "simulated"},
                 {"cpu,sim:%s/gpu", "simulated"},
                 {"sim:%s/gpu,sim:%1$s@memory.together_GBps=50/npu", "one SoC"},
                 {"sim:nowhere/gpu", "nowhere"},
                 {"sim:/gpu", "sim:"}};
    for (size_t i = 0; i < HT_COUNT(wrong); i++) {
        char devices[512], *path = temporary_path("toy.json"), *at;
        ht_error error = {0};
        ht_engine *engine;
        ht_text text = {0};
        snprintf(devices, sizeof devices, "%s", wrong[i].devices);
        for (char *rest = devices; rest; rest = at ? at + (at[1] == 's' ? 2 : 4) : NULL) { /* %s, %1$s: the path */
            at = strchr(rest, '%');
            check(ht_text_printf(&text, &error, "%.*s%s", (int)(at ? at - rest : (long)strlen(rest)), rest,
                                 at ? path : ""),
                  &error);
        }
        fails(create(text.data, HT_STRATEGY_AUTO, NULL, &engine, &error), HT_ERROR_ARGUMENT, &error, wrong[i].culprit);
        ht_text_free(&text);
        free(path);
    }
}

/* "sim:SOC" is all of it, without the CPU that only stands beside the NPU. */
static void test_all_of_a_soc(void **state) {
    ht_text list = {0};
    ht_error error = {0};
    char spec[300];
    snprintf(spec, sizeof spec, "sim:%s,cpu", soc(""));
    check(ht_device_expand(spec, &list, &error), &error);
    assert_non_null(strstr(list.data, "toy.json/gpu,"));
    assert_non_null(strstr(list.data, "toy.json/npu,"));
    assert_non_null(strstr(list.data, "toy.json/cpu,cpu"));
    assert_null(strstr(list.data, "little"));
    ht_text_free(&list);
}

static int open_model(void **state) {
    ht_error error = {0};
    if (make_folder(state) || setenv("XDG_CACHE_HOME", test_folder, 1))
        return -1;
    char *path = temporary_path("toy.json");
    const int failed = ht_file_write(path, toy, strlen(toy), &error) || ht_model_open("shape:tiny", &model, &error);
    free(path);
    for (int i = 0; i < CONTEXT; i++)
        ids[i] = (i * i * 7 + i * 37 + 11) % VOCABULARY;
    if (failed)
        print_error("%s\n", error.text);
    return failed ? -1 : 0;
}

static int close_model(void **state) {
    ht_model_close(model);
    return remove_folder(state);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_queue_and_joins),
        cmocka_unit_test(test_queue_stays_awake),
        cmocka_unit_test(test_known_ends_cost_nothing),
        cmocka_unit_test(test_sleeps_are_late),
        cmocka_unit_test(test_sharing),
        cmocka_unit_test(test_frames),
        cmocka_unit_test(test_laws),
        cmocka_unit_test(test_laws_of_npus),
        cmocka_unit_test(test_laws_without_weights),
        cmocka_unit_test(test_threads_take_turns),
        cmocka_unit_test(test_deadlock_is_told),
        cmocka_unit_test(test_numbers_are_the_cpus),
        cmocka_unit_test(test_numbers_of_cuts),
        cmocka_unit_test(test_runs_are_equal),
        cmocka_unit_test(test_pass_is_its_commands),
        cmocka_unit_test(test_copies),
        cmocka_unit_test(test_graphs),
        cmocka_unit_test(test_graph_memory),
        cmocka_unit_test(test_lanes_that_wait_for_ever),
        cmocka_unit_test(test_wrong_names),
        cmocka_unit_test(test_all_of_a_soc),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
