/* NaN among the weights is an error that names them, on every way to an answer; without, nothing changes. */
#include "session/session.h"
#include "unit/tiny_file.h"

static const int32_t ids[] = {256, 72, 101, 108, 108, 111, 44, 32, 119, 111, 114, 108, 100};

typedef struct scene {
    ht_model *model;
    ht_engine *engine;
    ht_session *session;
} scene;

static scene open_scene(const tiny_fault *fault) {
    scene s;
    ht_error error = {0};
    char *path = tiny_save("tiny.gguf", fault);
    const ht_engine_options options =
        HT_INIT(ht_engine_options, .devices = "cpu:cpus=0", .precision = HT_PRECISION_EXACT);
    check(ht_model_open(path, &s.model, &error), &error);
    check(ht_engine_create(s.model, &options, &s.engine, &error), &error);
    check(ht_session_create(s.engine, &s.session, &error), &error);
    free(path);
    return s;
}

static void close_scene(const scene *s) {
    ht_session_destroy(s->session);
    ht_engine_destroy(s->engine);
    ht_model_close(s->model);
}

static ht_status generate(const scene *s, float temperature, ht_error *error) {
    const ht_sampling sampling = HT_INIT(ht_sampling, .temperature = temperature, .seed = 1);
    const ht_generate_options options = HT_INIT(ht_generate_options, .max_tokens = 4, .sampling = &sampling);
    ht_generate_result result = HT_INIT(ht_generate_result);
    const ht_status status = ht_session_generate(s->session, ids, HT_COUNT(ids), &options, &result, error);
    ht_generate_result_clear(&result);
    return status;
}

static ht_status score(const scene *s, ht_error *error) {
    float logprobs[HT_COUNT(ids)];
    return ht_session_score(s->session, ids, HT_COUNT(ids), 0, logprobs, 0, NULL, error);
}

static ht_status perplexity(const scene *s, ht_error *error) {
    static const char text[] = "Some text, long enough to be measured, and then a little more of it for good measure.";
    ht_perplexity_result result;
    return ht_perplexity(s->session, NULL, text, HT_STRLEN, NULL, NULL, &result, error);
}

/* Matrices are read when a device takes them. */
static void test_faulty_matrices(void **state) {
    static const tiny_fault faults[] = {{.tensor = "blk.1.ffn_down.weight", .row = 17},
                                        {.tensor = "blk.0.attn_v.weight", .row = 3},
                                        {.tensor = "token_embd.weight", .row = 101}};
    for (size_t i = 0; i < HT_COUNT(faults); i++) {
        ht_model *model = NULL;
        ht_engine *engine = NULL;
        ht_error error = {0};
        char *path = tiny_save("tiny.gguf", &faults[i]), row[32];
        const ht_engine_options options = HT_INIT(ht_engine_options, .devices = "cpu:cpus=0");
        snprintf(row, sizeof row, "row %zu,", faults[i].row);
        check(ht_model_open(path, &model, &error), &error);
        fails(ht_engine_create(model, &options, &engine, &error), HT_ERROR_FORMAT, &error, faults[i].tensor);
        assert_non_null(strstr(error.text, row));
        assert_null(engine);
        ht_model_close(model);
        free(path);
    }
}

/* What is seen only when it is computed: logits. */
static void test_faulty_logits(void **state) {
    const scene s = open_scene(NULL);
    ht_error error = {0};
    float logits[TINY_TOKENS] = {0};
    check(ht_session_check_logits(s.session, logits, 12, &error), &error);
    logits[200] = NAN;
    fails(ht_session_check_logits(s.session, logits, 12, &error), HT_ERROR_DEVICE, &error, "after token 12");
    assert_non_null(strstr(error.text, "all weights are"));
    const ht_op *norm = NULL; /* the last one, before the head; its weights spoil after they were read */
    for (size_t i = 0; i < s.model->n_ops; i++)
        norm = s.model->ops[i].kind == HT_OP_NORM ? &s.model->ops[i] : norm;
    ((float *)(uintptr_t)norm->weight)[7] = NAN;
    fails(ht_session_check_logits(s.session, logits, 12, &error), HT_ERROR_FORMAT, &error, norm->name);
    fails(generate(&s, 0, &error), HT_ERROR_FORMAT, &error, norm->name); /* by ARGMAX */
    fails(generate(&s, 1, &error), HT_ERROR_FORMAT, &error, norm->name); /* by logits */
    fails(score(&s, &error), HT_ERROR_FORMAT, &error, norm->name);
    close_scene(&s);
}

/* Norms and biases are read when the model is opened. */
static void test_faulty_vectors(void **state) {
    static const char *const names[] = {"blk.0.attn_norm.weight", "blk.1.ffn_norm.weight", "output_norm.weight"};
    for (size_t i = 0; i < HT_COUNT(names); i++) {
        ht_model *model = NULL;
        ht_error error = {0};
        char *path = tiny_save("tiny.gguf", &(tiny_fault){.tensor = names[i]});
        fails(ht_model_open(path, &model, &error), HT_ERROR_FORMAT, &error, names[i]);
        assert_non_null(strstr(error.text, "value 5 is not a number"));
        assert_null(model);
        free(path);
    }
}

static void test_sound(void **state) {
    const scene s = open_scene(NULL);
    ht_error error = {0};
    check(generate(&s, 0, &error), &error);
    check(generate(&s, 1, &error), &error);
    check(score(&s, &error), &error);
    check(perplexity(&s, &error), &error);
    close_scene(&s);
}

/* One rule for what is best, on devices and here. */
static void test_best(void **state) {
    assert_int_equal(ht_best_index((const float[]){NAN, 1, 3, NAN, 3}, 5), 2);
    assert_int_equal(ht_best_index((const float[]){NAN, NAN}, 2), 0);
    assert_int_equal(ht_best_index((const float[]){-INFINITY, NAN, -2}, 3), 2);
    assert_int_equal(ht_best_index((const float[]){5, NAN, 7, 7}, 4), 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_faulty_matrices),
        cmocka_unit_test(test_faulty_logits),
        cmocka_unit_test(test_faulty_vectors),
        cmocka_unit_test(test_sound),
        cmocka_unit_test(test_best),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
