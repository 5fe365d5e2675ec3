/* hetero.h lets a caller pass NULL for the error. Every way to fail is gone twice here, with an error object and
 * without: the status must be the same, and with one it must be filled. Where devices fail and others go on, that must
 * not depend on it either. */
#include "unit/test.h"

#include "session/session.h"

#include <math.h>

static ht_model *model;
static int32_t ids[600];

static void quiet(ht_log_level level, const char *line, void *user) {}

static int start(void **state) {
    ht_error error = {0};
    ht_log_set(quiet, NULL, HT_LOG_WARN);
    for (size_t i = 0; i < HT_COUNT(ids); i++)
        ids[i] = (int32_t)((i * 37 + 11) % 512);
    if (ht_model_open("shape:tiny", &model, &error))
        print_error("%s\n", error.text);
    if (make_folder(state) || setenv("XDG_CACHE_HOME", test_folder, 1))
        return -1;
    return model ? 0 : -1;
}

static int end(void **state) {
    ht_log_set(NULL, NULL, HT_LOG_WARN);
    ht_model_close(model);
    return remove_folder(state);
}

/* ---- files ---------------------------------------------------------------------------------------------------------- */

static ht_status open_path(const char *path, ht_error *error) {
    ht_model *none = NULL;
    const ht_status status = ht_model_open(path, &none, error);
    ht_model_close(none);
    return status;
}

static ht_status open_bytes(const void *data, size_t bytes, ht_error *error) {
    char *path = temporary_path("wrong.gguf");
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
    const ht_status status = open_path(path, error);
    free(path);
    return status;
}

static ht_status no_file(ht_error *error) {
    return open_path("/nowhere/model.gguf", error);
}
static ht_status a_folder(ht_error *error) {
    return open_path("/tmp", error);
}
static ht_status no_shape(ht_error *error) {
    return open_path("shape:nothing", error);
}
static ht_status no_part(ht_error *error) {
    return open_path("/nowhere/model-00001-of-00002.gguf", error);
}
static ht_status empty_file(ht_error *error) {
    return open_bytes("", 0, error);
}
static ht_status no_gguf(ht_error *error) {
    return open_bytes("GGUX and so on, and so on", 25, error);
}
static ht_status cut_array_of_strings(ht_error *error) {
    static const uint8_t bytes[] = "GGUF\3\0\0\0\0\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0"
                                   "\3\0\0\0\0\0\0\0key\x9\0\0\0\x8\0\0\0\2\0\0\0\0\0\0\0"
                                   "\1\0\0\0\0\0\0\0x\xff\xff\xff\xff\0\0\0\0";
    return open_bytes(bytes, sizeof bytes - 1, error);
}
static ht_status no_model_in_file(ht_error *error) {
    static const uint8_t bytes[] = "GGUF\3\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    return open_bytes(bytes, sizeof bytes - 1, error);
}
static ht_status quantize_nothing(ht_error *error) {
    ht_quantize_result result = {0};
    return ht_quantize("/nowhere/in.gguf", "/nowhere/out.gguf", "q4_0", NULL, &result, error);
}
static ht_status quantize_to_nothing(ht_error *error) {
    ht_quantize_result result = {0};
    return ht_quantize("/nowhere/in.gguf", "/nowhere/out.gguf", "q9_9", NULL, &result, error);
}
static ht_status report_to_nowhere(ht_error *error) {
    char written[64];
    return ht_report_save("{}", "/nowhere/report.json", written, sizeof written, error);
}
static ht_status profile_to_nowhere(ht_error *error) {
    const ht_profile_result none = {0};
    return ht_profile_report(&none, "/nowhere/profile.html", error);
}
static ht_status compare_nothing(ht_error *error) {
    static const char *const socs[] = {"no-such-soc"};
    char *json;
    return ht_compare_chips(socs, 1, "shape:smollm2-135m", "/nowhere/folder", NULL, NULL, &json, error);
}
static ht_status reproduce_nothing(ht_error *error) {
    return ht_reproduce("no-such-soc", "/nowhere/folder", NULL, NULL, error);
}
static ht_status validate_nothing(ht_error *error) {
    char *json = NULL;
    return ht_validate("no-such-soc", NULL, &json, error);
}
static ht_status validate_to_nowhere(ht_error *error) {
    char *json = NULL;
    return ht_validate(NULL, "/proc/folder", &json, error);
}
static ht_status wrong_runtime(ht_error *error) {
    return ht_runtime_path("no-such-runtime", "/nowhere", error);
}

/* ---- engines -------------------------------------------------------------------------------------------------------- */

static ht_status create(ht_engine_options options, ht_error *error) {
    ht_engine *engine = NULL;
    options.devices = options.devices ? options.devices : "cpu:cpus=0";
    const ht_status status = ht_engine_create(model, &options, &engine, error);
    ht_engine_destroy(engine);
    return status;
}

static bool refuse(const char *what, double done, double total, void *user) {
    return false;
}

#define ENGINE(name, ...)                                              \
    static ht_status name(ht_error *error) {                           \
        return create(HT_INIT(ht_engine_options, __VA_ARGS__), error); \
    }
ENGINE(negative_context, .context = -1)
ENGINE(huge_context, .context = 1 << 30)
ENGINE(negative_chunk, .chunk = -1)
ENGINE(negative_threads, .threads = -1)
ENGINE(many_threads, .threads = 1 << 20)
ENGINE(negative_prompt, .prompts = (const int[]){-1}, .n_prompts = 1)
ENGINE(no_sync, .sync = (ht_sync)77)
ENGINE(no_precision, .precision = (ht_precision)77)
ENGINE(no_kv_type, .kv_type = (ht_kv_type)77)
ENGINE(no_strategy, .strategy = (ht_strategy)77)
ENGINE(no_cut, .cuts = "row,roe")
ENGINE(no_cut_of_two, .devices = "cpu:cpus=0,cpu:cpus=1", .strategy = HT_STRATEGY_TENSOR, .cuts = "row,roe")
ENGINE(one_lane, .strategy = HT_STRATEGY_TENSOR)
ENGINE(no_device, .devices = "abacus")
ENGINE(no_device_of_two, .devices = "cpu:cpus=0,abacus")
ENGINE(empty_device, .devices = "cpu:cpus=0,,cpu:cpus=1")
ENGINE(wrong_option, .devices = "cpu:colour=red")
ENGINE(wrong_core, .devices = "cpu:cpus=4000")
ENGINE(no_such_opencl, .devices = "opencl:99")
ENGINE(no_such_soc, .devices = "sim:nothing/cpu")
ENGINE(mixed, .devices = "cpu:cpus=0,sim:8gen3/cpu")
ENGINE(stopped, .devices = "cpu:cpus=0,cpu:cpus=1", .strategy = HT_STRATEGY_TENSOR, .measure = true, .progress = refuse)
ENGINE(fails_measuring, .devices = "cpu:cpus=0:fail=3,cpu:cpus=1:fail=3", .strategy = HT_STRATEGY_TENSOR,
       .measure = true)

/* ---- sessions ------------------------------------------------------------------------------------------------------- */

typedef ht_status (*session_case)(ht_session *session, ht_error *error);

static ht_status with_session(const char *devices, session_case run, ht_error *error) {
    ht_engine *engine = NULL;
    ht_session *session = NULL;
    const ht_engine_options options =
        HT_INIT(ht_engine_options, .devices = devices ? devices : "cpu:cpus=0",
                .strategy = devices && strchr(devices, ',') ? HT_STRATEGY_TENSOR : HT_STRATEGY_SINGLE, .context = 64);
    ht_error failure = {0};
    check(ht_engine_create(model, &options, &engine, &failure), &failure);
    check(ht_session_create(engine, &session, &failure), &failure);
    const ht_status status = run(session, error);
    ht_session_destroy(session);
    ht_engine_destroy(engine);
    return status;
}

#define SESSION(name, call)                                            \
    static ht_status name##_of(ht_session *session, ht_error *error) { \
        return call;                                                   \
    }                                                                  \
    static ht_status name(ht_error *error) {                           \
        return with_session(NULL, name##_of, error);                   \
    }

static ht_status decode_beyond(ht_session *session, ht_error *error) {
    ht_status status = ht_session_prefill(session, ids, 64, NULL, NULL, error);
    return status ? status : ht_session_decode(session, 1, NULL, error);
}
static ht_status prefill_cancelled(ht_session *session, ht_error *error) {
    ht_session_cancel(session);
    return ht_session_prefill(session, ids, 8, NULL, NULL, error);
}
static ht_status score(ht_session *session, size_t n, int chunk, ht_error *error) {
    static float logprobs[HT_COUNT(ids)];
    return ht_session_score(session, ids, n, chunk, logprobs, 0, NULL, error);
}
static ht_status generate(ht_session *session, size_t n, ht_generate_options options, ht_error *error) {
    ht_generate_result result = HT_INIT(ht_generate_result);
    const ht_status status = ht_session_generate(session, ids, n, &options, &result, error);
    ht_generate_result_clear(&result);
    return status;
}
static ht_status bench(ht_session *session, ht_bench_options options, ht_error *error) {
    ht_bench_result result = {0};
    return ht_bench(session, &options, &result, error);
}
static ht_status perplexity(ht_session *session, const char *text, ht_error *error) {
    ht_perplexity_result result = {0};
    return ht_perplexity(session, NULL, text, HT_STRLEN, NULL, NULL, &result, error);
}
static ht_status make_plan(ht_session *session, int tokens, ht_error *error) {
    ht_plan_row *rows = NULL;
    size_t n;
    const ht_status status = ht_engine_plan(session->engine, tokens, &rows, &n, NULL, error);
    free(rows);
    return status;
}
static ht_status make_trace(ht_session *session, int tokens, ht_error *error) {
    char *json = NULL;
    const ht_status status = ht_engine_trace(session->engine, tokens, false, &json, error);
    free(json);
    return status;
}
static const int32_t outside = 1 << 30;

SESSION(empty_prompt, ht_session_prefill(session, ids, 0, NULL, NULL, error))
SESSION(long_prompt, ht_session_prefill(session, ids, 65, NULL, NULL, error))
SESSION(wrong_token, ht_session_prefill(session, &outside, 1, NULL, NULL, error))
SESSION(wrong_decode, ht_session_decode(session, -1, NULL, error))
SESSION(full_context, decode_beyond(session, error))
SESSION(cancelled, prefill_cancelled(session, error))
SESSION(score_nothing, score(session, 0, 0, error))
SESSION(score_much, score(session, 65, 0, error))
SESSION(score_chunk, score(session, 8, -1, error))
SESSION(generate_nothing, generate(session, 0, HT_INIT(ht_generate_options), error))
SESSION(generate_much, generate(session, 65, HT_INIT(ht_generate_options), error))
SESSION(generate_negative, generate(session, 8, HT_INIT(ht_generate_options, .max_tokens = -1), error))
SESSION(generate_stop,
        generate(session, 8, HT_INIT(ht_generate_options, .stop = (const char *[]){""}, .n_stop = 1), error))
SESSION(generate_top, generate(session, 8, HT_INIT(ht_generate_options, .top_logprobs = 1 << 30), error))
SESSION(generate_hot,
        generate(session, 8, HT_INIT(ht_generate_options, .sampling = &HT_INIT(ht_sampling, .temperature = NAN)),
                 error))
SESSION(bench_nothing, bench(session, (ht_bench_options){0}, error))
SESSION(bench_much, bench(session, (ht_bench_options){.prompt = 65}, error))
SESSION(perplexity_without_text, perplexity(session, "text", error))
SESSION(plan_nothing, make_plan(session, 0, error))
SESSION(trace_nothing, make_trace(session, 0, error))
SESSION(trace_alone, make_trace(session, 8, error))

/* ---- text ----------------------------------------------------------------------------------------------------------- */

static ht_status tokenize_without(ht_error *error) {
    int32_t *tokens;
    size_t n;
    return ht_tokenize(model, "text", HT_STRLEN, false, &tokens, &n, error);
}
static ht_status detokenize_without(ht_error *error) {
    char *text;
    size_t n;
    return ht_detokenize(model, ids, 3, false, &text, &n, error);
}
static ht_status chat_without(ht_error *error) {
    char *text;
    return ht_chat_format(model, &(ht_message){"user", "text"}, 1, true, &text, error);
}

/* ---- devices that fail ---------------------------------------------------------------------------------------------- */

static ht_status prefill_and_score(ht_session *session, ht_error *error) {
    ht_status status = ht_session_prefill(session, ids, 40, NULL, NULL, error);
    for (int i = 0; i < 20 && !status; i++)
        status = ht_session_decode(session, ids[40 + i], NULL, error);
    return status ? status : score(session, 60, 0, error);
}

static void test_failing_device(void **state) {
    for (int at = 1; at < 120; at += 3) { /* 120 steps: into the decoding */
        char devices[64];
        ht_error error = {0};
        snprintf(devices, sizeof devices, "cpu:cpus=0:fail=%d", at);
        assert_int_equal(with_session(devices, prefill_and_score, &error), HT_ERROR_DEVICE);
        assert_int_equal(error.status, HT_ERROR_DEVICE);
        assert_int_equal(with_session(devices, prefill_and_score, NULL), HT_ERROR_DEVICE);
    }
}

/* Of two devices one fails: the answer comes from the other, whether or not anybody wants to read why. */
static void test_failing_one_of_two(void **state) {
    assert_int_equal(with_session("cpu:cpus=0,cpu:cpus=1", prefill_and_score, NULL), HT_OK); /* measures, for all */
    for (int at = 5; at < 120; at += 13) {
        char devices[64];
        ht_error error = {0};
        snprintf(devices, sizeof devices, "cpu:cpus=0,cpu:cpus=1:fail=%d", 1000 + at);
        check(with_session(devices, prefill_and_score, &error), &error);
        assert_int_equal(with_session(devices, prefill_and_score, NULL), HT_OK);
    }
}

/* The same while it is measured, lanes alone and beside each other. */
static void test_failing_while_measured(void **state) {
    for (int at = 900; at <= 1050; at += 30) {
        char devices[64];
        ht_engine *engine = NULL;
        ht_error error = {0};
        snprintf(devices, sizeof devices, "cpu:cpus=0,cpu:cpus=1:fail=%d", at);
        const ht_engine_options options =
            HT_INIT(ht_engine_options, .devices = devices, .strategy = HT_STRATEGY_TENSOR, .measure = true);
        check(ht_engine_create(model, &options, &engine, &error), &error);
        ht_engine_destroy(engine);
        assert_int_equal(ht_engine_create(model, &options, &engine, NULL), HT_OK);
        ht_engine_destroy(engine);
    }
}

/* ---- all of them ---------------------------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    ht_status (*run)(ht_error *error);
} cases[] = {
#define CASE(name) \
    { #name, name }
    CASE(no_file),
    CASE(a_folder),
    CASE(no_shape),
    CASE(no_part),
    CASE(empty_file),
    CASE(no_gguf),
    CASE(cut_array_of_strings),
    CASE(no_model_in_file),
    CASE(quantize_nothing),
    CASE(quantize_to_nothing),
    CASE(report_to_nowhere),
    CASE(profile_to_nowhere),
    CASE(reproduce_nothing),
    CASE(compare_nothing),
    CASE(validate_nothing),
    CASE(validate_to_nowhere),
    CASE(wrong_runtime),
    CASE(negative_context),
    CASE(huge_context),
    CASE(negative_chunk),
    CASE(negative_threads),
    CASE(many_threads),
    CASE(negative_prompt),
    CASE(no_sync),
    CASE(no_precision),
    CASE(no_kv_type),
    CASE(no_strategy),
    CASE(no_cut),
    CASE(no_cut_of_two),
    CASE(one_lane),
    CASE(no_device),
    CASE(no_device_of_two),
    CASE(empty_device),
    CASE(wrong_option),
    CASE(wrong_core),
    CASE(no_such_opencl),
    CASE(no_such_soc),
    CASE(mixed),
    CASE(stopped),
    CASE(fails_measuring),
    CASE(empty_prompt),
    CASE(long_prompt),
    CASE(wrong_token),
    CASE(wrong_decode),
    CASE(full_context),
    CASE(cancelled),
    CASE(score_nothing),
    CASE(score_much),
    CASE(score_chunk),
    CASE(generate_nothing),
    CASE(generate_much),
    CASE(generate_negative),
    CASE(generate_stop),
    CASE(generate_top),
    CASE(generate_hot),
    CASE(bench_nothing),
    CASE(bench_much),
    CASE(perplexity_without_text),
    CASE(plan_nothing),
    CASE(trace_nothing),
    CASE(trace_alone),
    CASE(tokenize_without),
    CASE(detokenize_without),
    CASE(chat_without),
};

static void test_every_case(void **state) {
    for (size_t i = 0; i < HT_COUNT(cases); i++) {
        ht_error error = {0};
        const ht_status with = cases[i].run(&error), without = cases[i].run(NULL);
        if (with == HT_OK || with != without)
            fail_msg("%s: %s with an error object, %s without", cases[i].name, ht_status_name(with),
                     ht_status_name(without));
        if (error.status != with || !error.text[0])
            fail_msg("%s: returned %s, the error says %s: %s", cases[i].name, ht_status_name(with),
                     ht_status_name(error.status), error.text);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_case),
        cmocka_unit_test(test_failing_device),
        cmocka_unit_test(test_failing_one_of_two),
        cmocka_unit_test(test_failing_while_measured),
    };
    return cmocka_run_group_tests(tests, start, end);
}
