/* Experts that are chosen unequally often: plans come to cut them where the work is halved, in every layer elsewhere;
 * what is chosen evenly leaves plans alone; and answers stay the same meanwhile. */
#include "unit/recurrent_model.h"
#include "unit/test.h"

#include "engine/engine.h"
#include "model/build.h"
#include "session/session.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { VOCABULARY = 512, CONTEXT = 256, CHUNK = 64, LAYERS = 2, EXPERTS = 16, LIKED = 4, MATRICES = 4 * LAYERS + 1 };
#define BOTH "cpu:cpus=0,cpu:cpus=1"
#define SOC "sim:tests/golden/tiny/three-cores.json"
#define THREE SOC "/one:numbers=on," SOC "/two:numbers=on," SOC "/three:numbers=on"

static int32_t ids[CONTEXT];
static ht_model *model;
static float biases[LAYERS][EXPERTS];
static float expected[CONTEXT][VOCABULARY]; /* on one lane, behind ids[0..i] */

static uint32_t random_state;
static unsigned pick(unsigned n) {
    random_state = random_state * 1664525u + 1013904223u;
    return (random_state >> 8) % n;
}

static void mixture(ht_builder *b, int layer) {
    static const ht_mixture m = {
        .experts = EXPERTS, .features = 96, .route = {HT_ROUTE_SOFTMAX, .used = 2, .renormalise = true, .scale = 1}};
    ht_build_layer(b, layer);
    ht_build_experts(b, &m, "ffn_norm", NULL);
}

/* Two layers: in the first nobody likes any but the first experts, in the second any but the last ones. */
static int open_model(void **state) {
    ht_error error = {0};
    if (!*test_folder && (make_folder(state) || setenv("XDG_CACHE_HOME", test_folder, 1)))
        return -1;
    for (int i = 0; i < CONTEXT; i++)
        ids[i] = (i * i * 7 + i * 37 + 11) % VOCABULARY;
    if (ht_model_open("shape:tiny", &model, &error))
        return -1;
    ht_builder b;
    const ht_rotation rotation = recurrent_anew(model, &b, &error);
    for (int layer = 0; layer < LAYERS; layer++) {
        recurrent_attention(&b, layer, &rotation);
        mixture(&b, layer);
    }
    check(ht_build_head(&b), &error);
    for (size_t e = 0; e < LIKED; e++)
        biases[0][e] = biases[1][EXPERTS - 1 - e] = 1;
    for (size_t i = 0; i < model->n_ops; i++)
        if (model->ops[i].kind == HT_OP_ROUTE)
            model->ops[i].route.bias = biases[model->ops[i].layer];
    return 0;
}

static int close_model(void **state) {
    ht_model_close(model);
    return 0;
}

static ht_session *open_session(const char *devices, ht_strategy strategy, const char *cuts, ht_engine **engine) {
    const ht_engine_options options =
        HT_INIT(ht_engine_options, .devices = devices, .strategy = strategy, .cuts = cuts,
                .precision = HT_PRECISION_EXACT, .kv_type = HT_KV_F32, .context = CONTEXT, .chunk = CHUNK);
    ht_error error = {0};
    ht_session *session = NULL;
    check(ht_engine_create(model, &options, engine, &error), &error);
    check(ht_session_create(*engine, &session, &error), &error);
    return session;
}

/* Lanes that take the same, so much longer than passes really do that what is learnt of their speed is the same of all. */
static ht_session *open_lanes(const char *devices, ht_engine **engine) {
    ht_session *session = open_session(devices, HT_STRATEGY_TENSOR, "expert,head", engine);
    for (size_t l = 0; l < (*engine)->set.n_lanes; l++) {
        ht_lane_cost *cost = &(*engine)->set.lanes[l].cost;
        *cost = (ht_lane_cost){.devices = (*engine)->set.lanes[l].devices};
        for (size_t k = 0; k < model->n_signatures; k++) {
            const ht_op_kind kind = model->signatures[k].op->kind;
            const double one = kind == HT_OP_EXPERTS ? 20 : kind == HT_OP_NORM || kind == HT_OP_ROUTE ? 0.01 : 1;
            cost->ops[k] = (ht_op_cost){.points = {{1, one}, {512, one * 200}}, .n_points = 2};
        }
    }
    ht_lanes_keep_ready(&(*engine)->set);
    ht_passes_forget_schedules(&(*engine)->passes);
    return session;
}

static void close_session(ht_session *session, ht_engine *engine) {
    ht_session_destroy(session);
    ht_engine_destroy(engine);
}

/* Where the experts of one of the schedule's lanes end in a layer, in the newest pass; where it has none: SIZE_MAX. */
static size_t end_of(const ht_engine *engine, size_t lane, int layer) {
    const ht_schedule *s = engine->passes.current;
    assert_int_equal(s->n_lanes, engine->set.n_lanes);
    for (size_t i = 0; i < s->programs[lane].n_steps; i++) {
        const ht_step *step = &s->programs[lane].steps[i];
        if (step->op->kind == HT_OP_EXPERTS && step->op->layer == layer) {
            assert_true(step->divides);
            return step->part.row_end;
        }
    }
    return SIZE_MAX;
}

/* Experts of the first lane. */
static size_t boundary(const ht_engine *engine, int layer) {
    const size_t end = end_of(engine, 0, layer);
    assert_in_range(end, 1, EXPERTS);
    return end;
}

/* What one lane gives for every prefix. */
static void expect_logits(float *bound) {
    ht_engine *engine;
    ht_error error = {0};
    float largest = 0;
    ht_session *session = open_session("cpu:cpus=0", HT_STRATEGY_SINGLE, NULL, &engine);
    for (size_t i = 0; i < CONTEXT - 1; i++) {
        const float *logits;
        check(i ? ht_session_decode(session, ids[i], &logits, &error)
                : ht_session_prefill(session, ids, 1, &logits, NULL, &error),
              &error);
        memcpy(expected[i], logits, sizeof expected[i]);
        for (size_t v = 0; v < VOCABULARY; v++)
            largest = fmaxf(largest, fabsf(logits[v]));
    }
    close_session(session, engine);
    *bound = MATRICES * 16 * FLT_EPSILON / 2 * largest; /* as in lanes.c */
}

static void same_logits(const float *got, size_t behind, float bound) {
    for (size_t v = 0; v < VOCABULARY; v++)
        if (!(fabsf(got[v] - expected[behind][v]) <= bound))
            fail_msg("behind token %zu logit %zu is %g, not %g (bound %g)", behind, v, (double)got[v],
                     (double)expected[behind][v], (double)bound);
}

/* ---- with a model
 * ------------------------------------------------------------------------------------------------------------- */

/* Passes of `chunk` tokens, one conversation behind another: after how many are both layers cut among the experts that are
 * liked? Every answer is one lane's. */
static void move(size_t chunk) {
    enum { PASSES = 60 };
    ht_engine *engine;
    ht_error error = {0};
    float bound;
    size_t at = 0, moved = 0, early = 0;
    expect_logits(&bound);
    ht_session *session = open_lanes(BOTH, &engine);
    for (size_t pass = 1; pass <= PASSES; pass++, at += chunk) {
        const float *logits;
        if (at + chunk >= CONTEXT) {
            at = 0;
            ht_session_destroy(session);
            check(ht_session_create(engine, &session, &error), &error);
        }
        check(chunk == 1 && at ? ht_session_decode(session, ids[at], &logits, &error)
                               : ht_session_prefill(session, ids, at + chunk, &logits, NULL, &error),
              &error);
        same_logits(logits, at + chunk - 1, bound);
        early = pass < PASSES / 2 ? engine->passes.loads.moves : early;
        const size_t first = boundary(engine, 0), second = boundary(engine, 1);
        if (pass == 1) {
            assert_int_equal(first, EXPERTS / 2);
            assert_int_equal(second, EXPERTS / 2);
        }
        if (moved) /* never back */
            assert_true(first <= LIKED && second >= EXPERTS - LIKED);
        else if (first < LIKED && second > EXPERTS - LIKED)
            moved = pass;
    }
    print_message("%zu tokens a pass: moved after %zu passes, %zu times; %zu and %zu experts of %d\n", chunk, moved,
                  engine->passes.loads.moves, boundary(engine, 0), boundary(engine, 1), EXPERTS);
    assert_in_range(moved, 2, 20);
    assert_in_range(early, 1, 5); /* the more tokens are known, the finer */
    assert_in_range(engine->passes.loads.moves, early, early + 1);
    for (size_t k = 0; k < LAYERS; k++) { /* half on either side, as far as whole experts let it be */
        const float *before = engine->passes.loads.each[k].before;
        const size_t u = boundary(engine, (int)k);
        assert_true(before[u - 1] <= 0.5f && before[u + 1] >= 0.5f);
    }
    close_session(session, engine);
}

static void test_boundaries_follow_a_skewed_router(void **state) {
    move(16);
    move(64);
}
static void test_boundaries_follow_token_by_token(void **state) {
    move(1);
}

/* Three lanes, of a simulated machine: none has much more than it must, one expert being the least that can be given. */
static void test_three_lanes(void **state) {
    ht_engine *engine;
    ht_error error = {0};
    float bound;
    expect_logits(&bound);
    ht_session *session = open_lanes(THREE, &engine);
    for (size_t at = 0; at + 16 < CONTEXT; at += 16) {
        const float *logits;
        check(ht_session_prefill(session, ids, at + 16, &logits, NULL, &error), &error);
        same_logits(logits, at + 15, bound);
    }
    for (size_t k = 0; k < LAYERS; k++) {
        const float *before = engine->passes.loads.each[k].before;
        float largest = 0;
        size_t begin = 0;
        for (size_t e = 0; e < EXPERTS; e++)
            largest = fmaxf(largest, before[e + 1] - before[e]);
        for (size_t lane = 0; lane < 3; lane++) {
            const size_t end = end_of(engine, lane, (int)k);
            if (end == SIZE_MAX)
                continue;
            print_message("layer %zu, lane %zu: experts %zu-%zu, %.0f%%\n", k, lane, begin, end - 1,
                          100 * (double)(before[end] - before[begin]));
            assert_true(before[end] - before[begin] < 1 / 3.0f + largest);
            begin = end;
        }
        assert_int_equal(begin, EXPERTS);
    }
    close_session(session, engine);
}

/* What was learnt of lanes before is not counted twice: the pace of a lane that was slow for its experts goes back. */
static void test_pace_is_explained(void **state) {
    ht_engine *engine;
    ht_error error = {0};
    const float *logits;
    ht_session *session = open_lanes(BOTH, &engine);
    check(ht_session_prefill(session, ids, 32, &logits, NULL, &error), &error);
    ht_schedule *s = ht_passes_find_schedule(&engine->passes, 1, 0, 1, 0);
    check(ht_session_decode(session, ids[32], &logits, &error), &error);
    assert_ptr_equal(s, engine->passes.current);
    ht_loads *loads = &engine->passes.loads;
    for (size_t k = 0; k < loads->n; k++) /* the first lane has next to all of it */
        for (size_t e = 0; e < EXPERTS; e++)
            loads->each[k].counts[e] = e < LIKED ? 1000 : 1;
    ht_passes_learn_loads(&engine->passes, 1000);
    s->pace = s->solved = ht_even_pace;
    s->pace.lanes[0][HT_REGIME_SHARES] = 1.5;
    s->runs = 1;
    check(ht_passes_schedule(&engine->passes, 1, 0, 1, 0, &s, &error), &error);
    const double after = s->solved.lanes[0][HT_REGIME_SHARES];
    print_message("pace 1.5 is %.2f and %.2f, explained\n", after, s->solved.lanes[1][HT_REGIME_SHARES]);
    assert_true(after > 0.7 && after < 1.2);
    assert_true(s->solved.lanes[1][HT_REGIME_SHARES] ==
                1); /* which was quick for its experts, but that was not learnt */
    assert_true(fabs(s->lanes_take[0].busy / s->lanes_take[1].busy - 1) < 0.2);
    close_session(session, engine);
}

/* ---- with made-up choices
 * --------------------------------------------------------------------------------------------------- */

/* n tokens choose two experts each, in the first layer any below `end` and in the second any. */
static void choose(ht_engine *engine, size_t n, unsigned end) {
    for (size_t k = 0; k < LAYERS; k++)
        for (size_t t = 0; t < n; t++) {
            const unsigned of = k ? EXPERTS : end, a = pick(of), b = (a + 1 + pick(of - 1)) % of;
            engine->passes.loads.each[k].counts[a]++;
            engine->passes.loads.each[k].counts[b]++;
        }
    ht_passes_learn_loads(&engine->passes, n);
}

static void test_even_choices_leave_plans_alone(void **state) {
    ht_engine *engine;
    ht_session *session = open_lanes(BOTH, &engine);
    const ht_loads *loads = &engine->passes.loads;
    size_t moves = 0;
    for (unsigned seed = 1; seed <= 40; seed++) {
        ht_passes_free_loads(&engine->passes);
        check(ht_passes_make_loads(&engine->passes, NULL), &(ht_error){0});
        random_state = seed * 2654435761u;
        for (size_t pass = 0; pass < 2000; pass++)
            choose(engine, seed % 2 ? 1 : 1 + pick(64), EXPERTS);
        moves += loads->moves;
    }
    print_message("moved %zu times in %d tries of 2000 passes\n", moves, 40);
    assert_in_range(moves, 0, 1);
    close_session(session, engine);
}

/* Two experts of sixteen that nobody chooses any more move an eighth to one side; that one of them is chosen half as often,
 * a thirtieth. */
static void test_plans_learn_of_a_twentieth(void **state) {
    ht_engine *engine;
    ht_session *session = open_lanes(BOTH, &engine);
    ht_loads *loads = &engine->passes.loads;
    random_state = 7;
    for (size_t pass = 0; pass < 200; pass++)
        choose(engine, 64, EXPERTS);
    assert_int_equal(loads->moves, 0);
    for (size_t pass = 0; pass < 400; pass++)
        choose(engine, 64, pass % 2 ? EXPERTS : EXPERTS - 1);
    assert_int_equal(loads->moves, 0);
    for (size_t pass = 0; pass < 200; pass++)
        choose(engine, 64, EXPERTS - 2);
    assert_in_range(loads->moves, 1, 3);
    const size_t moves = loads->moves;
    assert_true(loads->each[0].before[EXPERTS - 2] > 0.94f);
    for (size_t u = 0; u <= EXPERTS; u++) /* the other layer's were chance */
        assert_true(loads->each[1].before[u] == (float)u / EXPERTS);
    for (size_t pass = 0; pass < 200; pass++) /* and back */
        choose(engine, 64, EXPERTS);
    assert_in_range(loads->moves, moves + 1, moves + 3);
    close_session(session, engine);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_boundaries_follow_a_skewed_router),
                                       cmocka_unit_test(test_boundaries_follow_token_by_token),
                                       cmocka_unit_test(test_three_lanes),
                                       cmocka_unit_test(test_pace_is_explained),
                                       cmocka_unit_test(test_even_choices_leave_plans_alone),
                                       cmocka_unit_test(test_plans_learn_of_a_twentieth)};
    return cmocka_run_group_tests(tests, open_model, close_model);
}
