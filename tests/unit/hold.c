/* What lanes hold of the weights: the windows of their plans and a margin, no more than 1.3 times the file in all; what is
 * computed from them; what a lane has that is left alone. tests/unit/solve.c compares the planner with brute force. */
#include "unit/recurrent_model.h"
#include "unit/test.h"

#include "engine/engine.h"
#include "model/build.h"
#include "session/session.h"

#include <float.h>
#include <math.h>

enum { VOCABULARY = 512, CONTEXT = 256, CHUNK = 64, DECODED = 6 };
#define BOTH "cpu:cpus=0,cpu:cpus=1"

static const int lengths[] = {1, 5, 33, 64, 100};
enum { LENGTHS = HT_COUNT(lengths) };
static int32_t ids[CONTEXT];
static ht_model *model;
static float expected[LENGTHS][DECODED + 1][VOCABULARY], bound;

static uint32_t random_state = 1;
static double uniform(double low, double high) {
    random_state = random_state * 1664525u + 1013904223u;
    return low + (high - low) * (random_state >> 8) / (double)(1u << 24);
}

/* ---- engines
 * -------------------------------------------------------------------------------------------------------------- */

static ht_engine *open_engine(const char *devices, ht_strategy strategy, bool whole) {
    const ht_engine_options options =
        HT_INIT(ht_engine_options, .devices = devices, .strategy = strategy, .whole_weights = whole,
                .precision = HT_PRECISION_EXACT, .kv_type = HT_KV_F32, .context = CONTEXT, .chunk = CHUNK);
    ht_error error = {0};
    ht_engine *engine = NULL;
    check(ht_engine_create(model, &options, &engine, &error), &error);
    return engine;
}

/* Made-up costs, so that no lane alone is quicker; `even`: both take the same. */
static void pretend(ht_engine *engine, bool even) {
    engine->passes.policy.frozen = true;
    for (size_t l = 0; l < engine->set.n_lanes; l++) {
        ht_lane_cost *cost = &engine->set.lanes[l].cost;
        *cost = (ht_lane_cost){.devices = engine->set.lanes[l].devices};
        for (size_t k = 0; k < model->n_signatures; k++) {
            const ht_op *op = model->signatures[k].op;
            const double one = op->kind == HT_OP_MATMUL ? even ? 1 : uniform(0.3, 3) : 0.001;
            if (op->kind != HT_OP_FFN)
                cost->ops[k] = (ht_op_cost){.points = {{1, one}, {512, one * 200}}, .n_points = 2};
        }
    }
    ht_lanes_keep_ready(&engine->set);
    ht_passes_forget_schedules(&engine->passes);
}

/* Takes away what is prepared, as if it had not been yet. */
static void put_off(ht_engine *engine) {
    const ht_engine_options options = HT_INIT(ht_engine_options);
    ht_error error = {0};
    ht_lanes_settle(&engine->set);
    engine->set.late = true;
    ht_lanes_release_late(&engine->set);
    check(ht_lanes_place(&engine->set, &options, &error), &error);
}

/* As strategy auto does it, on lanes that hold everything. */
static void hold(ht_engine *engine) {
    const ht_engine_options options = HT_INIT(ht_engine_options, .prompts = lengths, .n_prompts = LENGTHS);
    ht_error error = {0};
    put_off(engine);
    assert_int_equal(ht_lanes_task_bytes(&engine->set), 0); /* nothing is held twice on the way */
    check(ht_engine_hold(engine, &options, &error), &error);
    assert_false(engine->set.late);
}

static bool holds_some(const ht_engine *engine) {
    bool some = false;
    for (size_t l = 0; l < engine->set.n_lanes; l++)
        some |= engine->passes.holds[l].partly;
    return some;
}

/* ---- comparing
 * ------------------------------------------------------------------------------------------------------------ */

static void same_logits(const float *got, const float *want, size_t length, size_t step) {
    for (size_t i = 0; i < VOCABULARY; i++)
        if (!(fabsf(got[i] - want[i]) <= bound))
            fail_msg("%zu tokens, %zu decoded: logit %zu is %g, not %g (bound %g)", length, step, i, (double)got[i],
                     (double)want[i], (double)bound);
}

static ht_status run_prompt(ht_session *session, size_t i, ht_error *error) {
    const size_t n = (size_t)lengths[i];
    const float *logits = NULL;
    ht_status status = ht_session_prefill(session, ids, n, &logits, NULL, error);
    for (size_t k = 0; k <= DECODED && !status; k++) {
        same_logits(logits, expected[i][k], n, k);
        if (k < DECODED)
            status = ht_session_decode(session, ids[n + k], &logits, error);
    }
    return status;
}

/* What one lane gives; sums in another order differ by so much at most, as in lanes.c. */
static void expect_logits(int matrices) {
    ht_engine *engine = open_engine("cpu:cpus=0", HT_STRATEGY_SINGLE, false);
    ht_error error = {0};
    ht_session *session = NULL;
    float largest = 0;
    check(ht_session_create(engine, &session, &error), &error);
    for (size_t i = 0; i < LENGTHS; i++) {
        const float *logits;
        check(ht_session_prefill(session, ids, (size_t)lengths[i], &logits, NULL, &error), &error);
        for (size_t k = 0; k <= DECODED; k++) {
            memcpy(expected[i][k], logits, sizeof expected[i][k]);
            for (size_t v = 0; v < VOCABULARY; v++)
                largest = fmaxf(largest, fabsf(logits[v]));
            if (k < DECODED)
                check(ht_session_decode(session, ids[(size_t)lengths[i] + k], &logits, &error), &error);
        }
    }
    bound = (float)matrices * 16 * FLT_EPSILON / 2 * largest;
    ht_session_destroy(session);
    ht_engine_destroy(engine);
    ht_engine_destroy(open_engine(BOTH, HT_STRATEGY_TENSOR, false)); /* measures: later engines find it */
}

/* Every step of every schedule asks for what its task has. */
static void check_steps(const ht_engine *engine) {
    const ht_lanes *set = &engine->set;
    for (size_t s = 0; s < HT_SCHEDULES; s++) {
        const ht_schedule *schedule = &engine->passes.schedules[s];
        for (size_t i = 0; schedule->tokens && !schedule->stale && i < schedule->n_lanes; i++) {
            const ht_program *program = ht_schedule_program(schedule, i);
            for (size_t k = 0; k < program->n_steps; k++) {
                const ht_step *step = &program->steps[k];
                const ht_slice_task *task = set->tasks;
                while (task < set->tasks + set->n_tasks && task->task != step->task)
                    task++;
                assert_true(step->task && task < set->tasks + set->n_tasks);
                const ht_slice part = step->divides ? step->part : ht_whole_slice(step->op);
                assert_true(task->holds == HT_HOLDS_ALL ||
                            (task->holds == HT_HOLDS_SOME && ht_slice_lies_in(step->op, &part, &task->held)));
            }
        }
    }
}

/* ---- models
 * --------------------------------------------------------------------------------------------------------------- */

static int open_model(void **state, const char *name) {
    ht_error error = {0};
    if (!*test_folder && (make_folder(state) || setenv("XDG_CACHE_HOME", test_folder, 1)))
        return -1;
    for (int i = 0; i < CONTEXT; i++)
        ids[i] = (i * i * 7 + i * 37 + 11) % VOCABULARY;
    if (ht_model_open(name, &model, &error)) {
        print_error("%s\n", error.text);
        return -1;
    }
    return 0;
}

static int open_tiny(void **state) {
    if (open_model(state, "shape:tiny"))
        return -1;
    expect_logits(9);
    return 0;
}

static int open_experts(void **state) {
    if (open_model(state, "shape:tiny-experts"))
        return -1;
    expect_logits(3 * 9);
    return 0;
}

static int open_recurrent(void **state) {
    ht_error error = {0};
    if (open_model(state, "shape:tiny"))
        return -1;
    ht_builder b;
    const ht_rotation rotation = recurrent_anew(model, &b, &error);
    check(recurrent_list(&b, &rotation), &error);
    expect_logits(RECURRENT_MATRICES);
    return 0;
}

static int close_model(void **state) {
    ht_model_close(model);
    return 0;
}

static int close_all(void **state) {
    return close_model(state) || remove_folder(state);
}

/* ---- the tests
 * ------------------------------------------------------------------------------------------------------------ */

/* Lanes of random speeds: right logits whatever the number of tokens, expected or not. */
static void test_right_logits(void **state) {
    size_t held = 0;
    for (size_t seed = 0; seed < (SANITIZED ? 3 : 12); seed++) {
        ht_engine *engine = open_engine(BOTH, HT_STRATEGY_TENSOR, false);
        ht_error error = {0};
        ht_session *session = NULL;
        const uint64_t twice = ht_lanes_task_bytes(&engine->set);
        pretend(engine, seed == 0);
        hold(engine);
        held += holds_some(engine);
        assert_true(ht_lanes_task_bytes(&engine->set) <= twice);
        if (holds_some(engine))
            assert_true(ht_lanes_task_bytes(&engine->set) < twice);
        check(ht_session_create(engine, &session, &error), &error);
        for (size_t i = 0; i < LENGTHS; i++)
            check(run_prompt(session, i, &error), &error);
        check_steps(engine);
        ht_session_destroy(session);
        ht_engine_destroy(engine);
    }
    assert_true(held > 0);
}

static void test_bytes(void **state) {
    ht_engine *engine = open_engine(BOTH, HT_STRATEGY_TENSOR, false);
    const uint64_t once = ht_lanes_task_bytes(&engine->set) / 2;
    pretend(engine, true);
    hold(engine);
    assert_true(holds_some(engine));
    assert_in_range(ht_lanes_task_bytes(&engine->set), once, once * 13 / 10);
    assert_int_equal(engine->info.weight_bytes, ht_lanes_task_bytes(&engine->set));
    ht_engine_destroy(engine);
}

static uint64_t first_bytes(const ht_engine *engine) {
    return ht_lanes_weight_bytes(&engine->set, 0);
}

/* Lanes that have become slower get other windows, and none where nothing has changed. */
static void test_windows_move(void **state) {
    ht_engine *engine = open_engine(BOTH, HT_STRATEGY_TENSOR, false);
    ht_error error = {0};
    ht_session *session = NULL;
    const uint64_t once = ht_lanes_task_bytes(&engine->set) / 2;
    pretend(engine, true);
    hold(engine);
    check(ht_session_create(engine, &session, &error), &error);
    check(run_prompt(session, 2, &error), &error);
    const uint64_t before = first_bytes(engine);
    check(ht_engine_hold_anew(engine, 17, &error), &error);
    assert_int_equal(first_bytes(engine), before);
    for (size_t k = 0; k < model->n_signatures; k++) /* ten times as long */
        for (size_t i = 0; i < engine->set.lanes[0].cost.ops[k].n_points; i++)
            engine->set.lanes[0].cost.ops[k].points[i].seconds *= 10;
    check(ht_engine_hold_anew(engine, 17, &error), &error);
    assert_true(first_bytes(engine) < before * 3 / 4);
    assert_true(ht_lanes_task_bytes(&engine->set) <= once * 13 / 10);
    ht_lanes_keep_ready(&engine->set);
    for (size_t i = 0; i < LENGTHS; i++)
        check(run_prompt(session, i, &error), &error);
    check_steps(engine);
    ht_session_destroy(session);
    ht_engine_destroy(engine);
}

/* Measuring has some operators whole, for as long as it takes. */
static void test_measured_and_gone(void **state) {
    ht_engine *engine = open_engine(BOTH, HT_STRATEGY_TENSOR, false);
    const ht_engine_options options = HT_INIT(ht_engine_options, .measure = true);
    ht_error error = {0};
    put_off(engine);
    check(ht_engine_measure(engine, &options, &error), &error);
    assert_int_equal(ht_lanes_task_bytes(&engine->set), 0);
    assert_true(engine->set.lanes[1].cost.ops[model->ops[model->blocks[0].first + 1].signature].n_points > 0);
    hold(engine);
    ht_engine_destroy(engine);
}

static void test_who_holds_all(void **state) {
    ht_engine *engine = open_engine(BOTH, HT_STRATEGY_TENSOR, false);
    const ht_engine_options rows[] = {HT_INIT(ht_engine_options), HT_INIT(ht_engine_options, .whole_weights = true),
                                      HT_INIT(ht_engine_options, .strategy = HT_STRATEGY_TENSOR),
                                      HT_INIT(ht_engine_options, .cuts = "causal")};
    for (size_t i = 0; i < HT_COUNT(rows); i++)
        assert_int_equal(ht_engine_may_hold_some(engine, &rows[i]), i == 0);
    ht_engine_destroy(engine);
    engine = open_engine(BOTH, HT_STRATEGY_AUTO, true);
    assert_false(holds_some(engine));
    ht_engine_destroy(engine);
}

/* The lane that is left gets the rest from the file. */
static void test_lost_device(void **state) {
    for (size_t lane = 0; lane < 2; lane++)
        for (unsigned at = 1; at < 90; at += SANITIZED ? 23 : 5) {
            char devices[64];
            snprintf(devices, sizeof devices, lane ? "cpu:cpus=0,cpu:cpus=1:fail=%u" : "cpu:cpus=0:fail=%u,cpu:cpus=1",
                     at);
            ht_engine *engine = open_engine(devices, HT_STRATEGY_TENSOR, false);
            ht_error error = {0};
            ht_session *session = NULL;
            const uint64_t once = ht_lanes_weight_bytes(&engine->set, 1 - lane);
            pretend(engine, true);
            hold(engine);
            assert_true(holds_some(engine));
            check(ht_session_create(engine, &session, &error), &error);
            for (size_t i = 0; i < LENGTHS; i++)
                check(run_prompt(session, i, &error), &error);
            assert_true(engine->set.lanes[lane].lost);
            assert_false(engine->set.lanes[1 - lane].lost);
            assert_false(holds_some(engine));
            assert_int_equal(ht_lanes_weight_bytes(&engine->set, 1 - lane), once);
            ht_session_destroy(session);
            ht_engine_destroy(engine);
        }
}

int main(void) {
    const struct CMUnitTest tiny[] = {
        cmocka_unit_test(test_right_logits),      cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_measured_and_gone), cmocka_unit_test(test_who_holds_all),
        cmocka_unit_test(test_lost_device),       cmocka_unit_test(test_windows_move),
    };
    const struct CMUnitTest others[] = {cmocka_unit_test(test_right_logits), cmocka_unit_test(test_lost_device)};
    if ((ht_all_cores()->words[0] & 3) != 3) {
        printf("skipped: two lanes need cores 0 and 1\n");
        return 77;
    }
    int failed = cmocka_run_group_tests_name("tiny", tiny, open_tiny, close_model);
    failed += cmocka_run_group_tests_name("experts", others, open_experts, close_model);
    return failed + cmocka_run_group_tests_name("recurrent", others, open_recurrent, close_all);
}
