/* Times kept in the cache folder: what a file says reaches the solver only where a measurement can give it. */
#include "engine/costs.c" /* what reads them is static */

#include "unit/test.h"

#include <math.h>

static const char good_text[] =
    "{\"classes\": {%s}, \"granule\": 8, \"attention_us_per_token_and_key\": 0.1, \"launch_us\": 2, \"join_us\": 3.5,"
    " \"together\": [1, 1.5, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],"
    " \"norms\": [0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], \"sync\": \"event\", \"joins_us\": [1, 2, 3, 4]}";

/* Every class with two points. */
static json_t *make(void) {
    ht_text classes = {0};
    for (int c = 0; c < HT_CLASSES; c++)
        check(ht_text_printf(&classes, NULL, "%s\"%s\": {\"stepped\": false, \"start_us\": 7, \"tokens_us\": [[1, 5], [64, 100.5]]}",
                             c ? ", " : "", ht_class_name((ht_class)c)),
              NULL);
    ht_text whole = {0};
    check(ht_text_printf(&whole, NULL, good_text, classes.data), NULL);
    json_t *json = json_loads(whole.data, 0, NULL);
    assert_non_null(json);
    ht_text_free(&classes);
    ht_text_free(&whole);
    return json;
}

static bool reads(json_t *json) {
    ht_lane_cost cost;
    const bool good = read_cost(json, &cost);
    json_decref(json);
    return good;
}

static void test_read(void **state) {
    json_t *json = make();
    ht_lane_cost cost;
    assert_true(read_cost(json, &cost));
    assert_int_equal(cost.granule, 8);
    assert_int_equal(cost.sync, HT_SYNC_EVENT);
    assert_int_equal(cost.classes[HT_CLASS_NORM].n_points, 2);
    assert_true(fabs(cost.joins[HT_SYNC_FLAG] - 4e-6) < 1e-12 && fabs(cost.join - 3.5e-6) < 1e-12);
    json_t *again = cost_json(&cost); /* what is written is read */
    ht_lane_cost same;
    assert_true(read_cost(again, &same));
    assert_true(fabs(same.classes[HT_CLASS_QKV].start - 7e-6) < 1e-12 && same.together[1][1] == 2);
    assert_int_equal(same.classes[HT_CLASS_ARGMAX].points[1].tokens, 64);
    json_decref(again);
    json_decref(json);
}

/* Each number in turn is missing, negative, huge, or no number. */
static void test_wrong_numbers(void **state) {
    static const char *const keys[] = {
        "granule", "attention_us_per_token_and_key", "launch_us", "join_us", "together", "norms", "sync", "joins_us",
        "classes"};
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
}

static void test_wrong_points(void **state) {
    static const char *const wrong[] = {
        "[[0, 1]]", "[[-1, 1]]", "[[1, -1]]",   "[[1, 1e300]]", "[[64, 1], [1, 1]]", "[[1, 1], [1, 2]]", "[[1]]",
        "[1, 2]",   "\"x\"",     "[[1, null]]", "[[1e300, 1]]", "[[1, 1], [2]]",     "{\"a\": 1}"};
    for (size_t w = 0; w < HT_COUNT(wrong); w++)
        for (int c = 0; c < HT_CLASSES; c++) {
            json_t *json = make();
            json_object_set_new(json_object_get(json_object_get(json, "classes"), ht_class_name((ht_class)c)),
                                "tokens_us", json_loads(wrong[w], JSON_DECODE_ANY, NULL));
            if (reads(json))
                fail_msg("%s: %s", ht_class_name((ht_class)c), wrong[w]);
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
    return cmocka_run_group_tests(tests, NULL, NULL);
}
