/* Times kept in the cache folder: what a file says reaches the solver only where a measurement can give it. */
#include "engine/costs.c" /* what reads them is static */

#include "unit/test.h"

#include <math.h>

static const char good_text[] =
    "{\"operators\": {%s}, \"launch_us\": 2, \"join_us\": 3.5,"
    " \"together\": [1, 1.5, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],"
    " \"norms\": [0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], \"sync\": \"event\", \"joins_us\": [1, 2, 3, 4]}";

static ht_model *model;

static int open_model(void **state) {
    ht_error error;
    check(ht_model_open("shape:tiny", &model, &error), &error);
    return 0;
}
static int close_model(void **state) {
    ht_model_close(model);
    return 0;
}

/* Every signature with two points. */
static json_t *make(void) {
    ht_text operators = {0};
    for (size_t s = 0; s < model->n_signatures; s++)
        check(ht_text_printf(&operators, NULL,
                             "%s\"%s\": {\"stepped\": false, \"granule\": 8, \"start_us\": 1.5,"
                             " \"us_per_token_and_key\": 0.1, \"tokens_us\": [[1, 5], [64, 100.5]]}",
                             s ? ", " : "", model->signatures[s].name),
              NULL);
    ht_text whole = {0};
    check(ht_text_printf(&whole, NULL, good_text, operators.data), NULL);
    json_t *json = json_loads(whole.data, 0, NULL);
    assert_non_null(json);
    ht_text_free(&operators);
    ht_text_free(&whole);
    return json;
}

static json_t *operator_of(json_t *json, size_t s) {
    return json_object_get(json_object_get(json, "operators"), model->signatures[s].name);
}

static bool reads(json_t *json) {
    ht_lane_cost cost;
    const bool good = read_cost(model, json, &cost);
    json_decref(json);
    return good;
}

static void test_read(void **state) {
    json_t *json = make();
    ht_lane_cost cost;
    assert_true(read_cost(model, json, &cost));
    const int first = model->ops[1].signature, last = model->ops[model->n_ops - 1].signature;
    assert_int_equal(cost.ops[first].granule, 8);
    assert_true(fabs(cost.ops[first].start - 1.5e-6) < 1e-12 && fabs(cost.ops[first].per_key - 1e-7) < 1e-12);
    assert_int_equal(cost.sync, HT_SYNC_EVENT);
    assert_int_equal(cost.ops[first].n_points, 2);
    assert_true(fabs(cost.joins[HT_SYNC_FLAG] - 4e-6) < 1e-12 && fabs(cost.join - 3.5e-6) < 1e-12);
    json_t *again = cost_json(model, &cost); /* what is written is read */
    ht_lane_cost same;
    assert_true(read_cost(model, again, &same));
    assert_true(same.together[1][1] == 2);
    assert_int_equal(same.ops[last].points[1].tokens, 64);
    assert_true(fabs(same.ops[first].start - 1.5e-6) < 1e-12 && fabs(same.ops[first].per_key - 1e-7) < 1e-12);
    json_decref(again);
    json_decref(json);
    json = make(); /* what a lane does not compute is not there; with what blocks begin, it computes */
    json_object_del(json_object_get(json, "operators"), model->signatures[model->ops[2].signature].name);
    assert_true(read_cost(model, json, &cost));
    assert_int_equal(cost.ops[model->ops[2].signature].n_points, 0);
    json_object_del(json_object_get(json, "operators"), model->signatures[first].name);
    assert_false(read_cost(model, json, &cost));
    json_decref(json);
    /* a block beside another begins without a norm: with a matrix that a lane may have fused only */
    json = make();
    model->blocks[1].first++;
    json_object_del(json_object_get(json, "operators"), model->signatures[model->ops[7].signature].name);
    assert_true(read_cost(model, json, &cost));
    model->blocks[1].first--;
    json_decref(json);
}

/* Each number in turn is missing, negative, huge, or no number. */
static void test_wrong_numbers(void **state) {
    static const char *const keys[] = {"launch_us", "join_us", "together", "norms", "sync", "joins_us", "operators"},
                             *const own[] = {"granule", "start_us", "us_per_token_and_key", "tokens_us"};
    static const char *const wrong[] = {"-1",     "-1e-9",      "1e300", "null",      "\"nan\"",
                                        "[]",     "[-1, -1]",   "[1]",   "[1, -0.5]", "[0.5, 0.5]",
                                        "[1e99]", "[1, 2, -3]", "{}",    "true",      "[1, 2, 3, \"x\"]"};
    for (size_t k = 0; k < HT_COUNT(keys); k++) {
        json_t *json = make();
        json_object_del(json, keys[k]);
        if (reads(json))
            fail_msg("without %s", keys[k]);
        for (size_t w = 0; w < HT_COUNT(wrong); w++) {
            json = make();
            json_object_set_new(json, keys[k], json_loads(wrong[w], JSON_DECODE_ANY, NULL));
            if (reads(json))
                fail_msg("%s: %s", keys[k], wrong[w]);
        }
    }
    for (size_t k = 0; k < HT_COUNT(own); k++)
        for (size_t w = 0; w <= HT_COUNT(wrong); w++) {
            json_t *json = make();
            if (w == HT_COUNT(wrong))
                json_object_del(operator_of(json, 1), own[k]);
            else
                json_object_set_new(operator_of(json, 1), own[k], json_loads(wrong[w], JSON_DECODE_ANY, NULL));
            const bool good = w < HT_COUNT(wrong) && !strcmp(own[k], "tokens_us") && !strcmp(wrong[w], "[]");
            if (reads(json) && !good) /* an operator without points is one that the lane does not run */
                fail_msg("%s: %s", own[k], w < HT_COUNT(wrong) ? wrong[w] : "missing");
        }
}

static void test_wrong_points(void **state) {
    static const char *const wrong[] = {
        "[[0, 1]]", "[[-1, 1]]", "[[1, -1]]",   "[[1, 1e300]]", "[[64, 1], [1, 1]]", "[[1, 1], [1, 2]]",  "[[1]]",
        "[1, 2]",   "\"x\"",     "[[1, null]]", "[[1e300, 1]]", "[[1, 1], [2]]",     "[[1, 2], [64, 1]]", "{\"a\": 1}"};
    for (size_t w = 0; w < HT_COUNT(wrong); w++)
        for (size_t s = 0; s < model->n_signatures; s++) {
            json_t *json = make();
            json_object_set_new(operator_of(json, s), "tokens_us", json_loads(wrong[w], JSON_DECODE_ANY, NULL));
            if (reads(json))
                fail_msg("%s: %s", model->signatures[s].name, wrong[w]);
        }
}

/* The file has every number of a pace once. */
static void test_pace_numbers(void **state) {
    ht_pace pace = {.head = 0};
    assert_int_equal(PACES * sizeof(double), sizeof pace);
    for (size_t i = 0; i < PACES; i++) {
        assert_true(*pace_number(&pace, i) == 0);
        *pace_number(&pace, i) = (double)(i + 1);
    }
    assert_true(pace.lanes[1][2] == HT_REGIMES + 3 && pace.head == (double)PACES);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pace_numbers),
        cmocka_unit_test(test_read),
        cmocka_unit_test(test_wrong_numbers),
        cmocka_unit_test(test_wrong_points),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
