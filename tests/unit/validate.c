/* Public measurements: what files may not be, one prediction by hand, how errors are counted, and the rule by which rows are
 * for testing. */
#include "reproduce/validate.h"
#include "unit/test.h"

#include <math.h>

#define FIGURE(name, value) "\"" name "\": {\"value\": " value ", \"source\": \"s\"}"
#define ENGINE_BEGIN                                                                                                   \
    "{\"name\": \"e\", \"processor\": \"gpu\", \"about\": \"a\",\n\"activations\": {\"value\": \"fp16\", \"source\": " \
    "\"s\"}"
#define ENGINES(list) "{\"about\": \"a\", \"engines\": [\n" list "\n]}"
#define ENGINE "@" /* a whole one, in a text for `parse` */
#define ROW_OF(use, more)                                                                                        \
    "{\"chip\": \"c\", \"processor\": \"gpu\", \"engine\": \"e\", \"model\": \"tiny\", \"phase\": \"prefill\", " \
    "\"use\": "                                                                                                  \
    "\"" use "\",\n\"source\": \"s\"" more "}"
#define ROW ROW_OF("fit", ", \"prompt\": 6, \"tps\": 10")
#define ROWS(list) "{\"about\": \"a\", \"rows\": [\n" list "\n], \"left_out\": []}"

/* Figures of that engine; all others are 0. */
static const struct {
    ht_engine_key key;
    double value;
} given[] = {{HT_ENGINE_WEIGHT_BITS, 4}, {HT_ENGINE_HEAD_BITS, 8},    {HT_ENGINE_KV_BYTES, 2},
             {HT_ENGINE_CHUNK, 4},       {HT_ENGINE_PAD, 4},          {HT_ENGINE_CROSSINGS, 2},
             {HT_ENGINE_PASS, 100},      {HT_ENGINE_MATRIX_SHARE, 1}, {HT_ENGINE_BANDWIDTH_SHARE, 1}};

static ht_status parse(const char *engines, const char *rows, ht_measurements **m, ht_error *error) {
    ht_text text = {0};
    for (; *engines; engines++) {
        if (*engines != '@') {
            assert_int_equal(ht_text_append(&text, engines, 1, NULL), HT_OK);
            continue;
        }
        assert_int_equal(ht_text_printf(&text, NULL, "%s", ENGINE_BEGIN), HT_OK);
        for (int key = 0; key < HT_ENGINE_KEYS; key++) {
            double value = 0;
            for (size_t i = 0; i < HT_COUNT(given); i++)
                value = (int)given[i].key == key ? given[i].value : value;
            assert_int_equal(ht_text_printf(&text, NULL, ",\n\"%s\": {\"value\": %g, \"source\": \"s\"}",
                                            ht_engine_key_name((ht_engine_key)key), value),
                             HT_OK);
        }
        assert_int_equal(ht_text_append(&text, "}", 1, NULL), HT_OK);
    }
    const ht_status status = ht_measurements_parse(text.data, rows, m, error);
    ht_text_free(&text);
    return status;
}

/* ---- files -------------------------------------------------------------------------------------------------------------- */

#define ENERGY(more)                                                                                                \
    "{\"rows\": [], \"left_out\": [], \"energy\": [\n{\"chip\": \"c\", \"processor\": \"gpu\", \"source\": \"s\", " \
    "\"use\": \"test\", \"rail_W\": 5, " more "}]}"

/* Each with one mistake: what the error must say. */
static const struct {
    const char *engines, *rows, *says;
} mistakes[] = {
    {"[", "{}", "engines.json: line 1: "},
    {"{\"rows\": []}", "{}", "engines.json: line 1: rows: unknown key"},
    {"{\"engines\": 1}", "{}", "engines: must be a list"},
    {"{}", "{}", "engines.json: line 1: engines: is missing"},
    {ENGINES("7"), "{}", "engines.json: line 2: engines[0]: must be an object"},
    {ENGINES("{\"name\": \"e\",\n\"colour\": 1}"), "{}", "line 3: engines[0].colour: unknown key"},
    {ENGINES("{\"name\": \"e\"}"), "{}", "engines[0].about: is missing"},
    {ENGINES("{\"name\": \"e\", \"about\": \"a\",\n\"processor\": \"tpu\"}"), "{}",
     "line 3: engines[0].processor: \"tpu\" is not one of cpu, gpu, npu"},
    {ENGINES(ENGINE_BEGIN "}"), "{}", "line 2: engines[0].weight_bits: is missing"},
    {ENGINES(ENGINE_BEGIN ",\n" FIGURE("weight_bits", "64") "}"), "{}",
     "line 4: engines[0].weight_bits.value: 64 is not from 1 to 32"},
    {ENGINES(ENGINE_BEGIN ",\"weight_bits\": 4}"), "{}", "engines[0].weight_bits: must be {\"value\""},
    {ENGINES(ENGINE_BEGIN ",\"weight_bits\": {\"value\": 4, \"source\": \"s\", \"fit\": 1}}"), "{}",
     "engines[0].weight_bits.fit: must be true or false"},
    {ENGINES("{\"name\": \"e\", \"about\": \"a\", \"processor\": \"gpu\",\n\"activations\": {\"value\": \"int4\", "
             "\"source\": \"s\"}}"),
     "{}", "line 3: engines[0].activations.value: \"int4\" is not one of fp16, bf16, int16, int8"},
    {ENGINES(ENGINE ",\n" ENGINE), "{}", "engines[1].name: \"e\" occurs twice for this processor"},
    {ENGINES(ENGINE), "{\"rows\": []}", "rows.json: line 1: left_out: is missing"},
    {ENGINES(ENGINE), ROWS("{}"), "rows.json: line 2: rows[0].chip: is missing"},
    {ENGINES(ENGINE), ROWS(ROW ",\n\n" ROW_OF("fit", ",\n\"prompt\": 6, \"tps\": 0")),
     "rows.json: line 7: rows[1].tps: 0 is not from"},
    {ENGINES(ENGINE), ROWS(ROW_OF("guess", "")), "rows[0].use: \"guess\" is not one of fit, test"},
    {ENGINES(ENGINE), ROWS(ROW_OF("fit", ", \"prompt\": 6.5, \"tps\": 1")), "rows[0].prompt: must be a whole number"},
    {ENGINES(ENGINE), ROWS(ROW_OF("fit", ", \"prompt\": 6, \"tps\": 1, \"weight_bits\": \"4\"")),
     "rows[0].weight_bits: must be a number"},
    {ENGINES(ENGINE), ROWS(ROW_OF("fit", ", \"prompt\": 6, \"tps\": 9, \"range\": [1, 8]")),
     "rows[0].range: must be two numbers around tps"},
    {ENGINES(ENGINE), ROWS(ROW_OF("fit", ", \"prompt\": 6, \"tps\": 9, \"range\": [1, 10, 11]")),
     "rows[0].range: must"},
    {ENGINES(""), ROWS(ROW), "rows.json: line 2: rows[0].engine: \"e\" is not in engines.json for this processor"},
    {ENGINES(ENGINE), "{\"rows\": [], \"left_out\": [], \"energy\": [\n{\"chip\": \"c\"}]}",
     "line 2: energy[0]: must have one of joules and total_W"},
    {ENGINES(ENGINE), ENERGY("\"joules\": 1, \"total_W\": 2"), "energy[0]: must have one of joules and total_W"},
    {ENGINES(ENGINE), ENERGY("\"joules\": 1"), "energy[0].engine: is missing"},
    {ENGINES(ENGINE), ENERGY("\"total_W\": 0"), "energy[0].total_W: 0 is not from"},
    {ENGINES(ENGINE), "{\"rows\": [], \"left_out\": [\n{\"what\": \"w\"}]}", "line 2: left_out[0].why: is missing"},
};

static void test_mistakes(void **state) {
    for (size_t i = 0; i < HT_COUNT(mistakes); i++) {
        ht_measurements *m;
        ht_error error = {0};
        const ht_status status = parse(mistakes[i].engines, mistakes[i].rows, &m, &error);
        fails(status, HT_ERROR_FORMAT, &error, mistakes[i].says);
    }
}

/* Marked by a rule that was there before anything was fitted; every row has its engine, model and description. */
static void test_embedded(void **state) {
    static const char *const tested[] = {"snapdragon-x-elite", "snapdragon-8-elite-gen-5", "ryzen-ai-7-350"};
    ht_measurements *m;
    ht_validated *rows;
    size_t n, fit = 0;
    ht_error error;
    check(ht_measurements_load(&m, &error), &error);
    check(ht_validate_rows(m, NULL, &rows, &n, &error), &error);
    assert_int_equal(n, m->n_rows);
    assert_true(n > 150 && m->n_left_out > 10);
    for (size_t i = 0; i < n; i++) {
        const ht_measured_row *row = rows[i].row;
        bool test = !strcmp(row->engine->name, "powerserve");
        for (size_t k = 0; k < HT_COUNT(tested); k++)
            test |= !strcmp(tested[k], row->chip);
        assert_int_equal(row->test, test);
        fit += !row->test;
        if (!isnan(rows[i].predicted))
            assert_true(rows[i].predicted > 0 && isfinite(rows[i].predicted));
    }
    size_t parameters = 0;
    for (size_t i = 0; i < m->n_engines; i++)
        for (int key = 0; key < HT_ENGINE_KEYS; key++)
            parameters += m->engines[i].figures[key].fitted;
    for (size_t i = 0; ht_soc_name(i); i++) {
        ht_soc *soc;
        check(ht_soc_load(ht_soc_name(i), &soc, &error), &error);
        for (int key = 0; key < HT_SOC_KEYS; key++) {
            parameters += soc->figures[key].fitted;
            for (size_t p = 0; p < soc->n_processors; p++)
                parameters += soc->processors[p].figures[key].fitted;
        }
        ht_soc_free(soc);
    }
    assert_true(4 * parameters <= fit);
    free(rows);
    ht_measurements_free(m);
}

/* ---- a prediction by hand ------------------------------------------------------------------------------------------------- */

/* shape:tiny on a chip that computes slowly or moves slowly: 100 million operations a second and any number of bytes, or
 * the other way round. */
static double predict(const ht_measured_row *row, bool computing) {
    static const char *const texts[] = {"1e5}", "1e-4}"};
    char text[512];
    ht_soc *soc;
    ht_model *model;
    ht_error error;
    snprintf(text, sizeof text,
             "{\"name\": \"c\", \"memory\": {\"peak_GBps\": {\"value\": 100, \"source\": \"s\"}}, \"processors\": [{"
             "\"name\": \"gpu\", \"kind\": \"gpu\", \"launch_us\": {\"value\": 10, \"source\": \"s\"}, \"empty_us\": "
             "{\"value\": 20, \"source\": \"s\"}, \"finish_us\": {\"value\": 30, \"source\": \"s\"}, "
             "\"bandwidth_GBps\": {\"value\": %s, \"source\": \"s\"}, \"reached_TFLOPS\": {\"source\": \"s\", "
             "\"value\": %s}]}",
             computing ? "1e5" : "0.1", texts[computing]);
    check(ht_soc_parse("c.json", text, strlen(text), &soc, &error), &error);
    for (int key = 0; key < HT_SOC_KEYS; key++) /* what else would take time does not */
        if (!soc->processors[0].figures[key].given && ht_soc_key_unit((ht_soc_key)key) == 1e-6)
            soc->processors[0].figures[key].value = 0;
    check(ht_model_open("shape:tiny", &model, &error), &error);
    const double tps = ht_predict_row(row, soc, model);
    ht_soc_free(soc);
    ht_model_close(model);
    return tps;
}

static void is_near(double value, double expected) {
    if (fabs(value / expected - 1) > 1e-6)
        fail_msg("%.9g where %.9g is due", value, expected);
}

/* What few engines do in prefill: two passes of these seconds each but for the host's, and no head. */
static void test_prefill_by_hand(ht_measurements *m, const ht_measured_row *decode, double seconds, double host) {
    ht_json_figure *figures = m->engines[0].figures;
    ht_measured_row row = *decode;
    row.decode = false;
    figures[HT_ENGINE_NO_PROMPT_HEAD].value = 1;
    is_near(predict(&row, true), 6 / (seconds + 2 * host));
    figures[HT_ENGINE_LAYER_PREFILL].value = 0.5;
    is_near(predict(&row, true), 6 / (seconds + 2 * host + 2 * 2 * 0.5)); /* two passes, two layers */
    figures[HT_ENGINE_LAYER_PREFILL].value = 0;
    const double before = 6 / predict(&row, false);
    figures[HT_ENGINE_WRITTEN_BITS].value = 16; /* of 4 bits: read, written, and read as 16 */
    is_near(6 / predict(&row, false) - before, 2 * 2 * 147456 * (4 + 16 + 16 - 4) / 8 / 1e8);
    figures[HT_ENGINE_WRITTEN_BITS].value = figures[HT_ENGINE_NO_PROMPT_HEAD].value = 0;
}

/* Two layers, 128 wide, 4 heads and 2 key-value heads of 32, 256 features, 512 words: 147456 weights a layer, 65536 in the
 * head. The prompt of 6 is two passes of 4, the second one padded; a pass crosses twice in 60 us each, and costs 100 us. */
static void test_by_hand(void **state) {
    ht_measurements *m;
    ht_error error;
    check(parse(ENGINES(ENGINE), ROWS(ROW), &m, &error), &error);
    ht_measured_row row = m->rows[0];
    const double flops = 1e8, host = 2 * 60e-6 + 100e-6, layers = 2, key = 4.0 * 4 * 32 * layers;
    const double matrices = 2 * 147456 * layers, head = 2 * 65536;
    is_near(predict(&row, true), 6 / ((8 * matrices + (10 + 26) * key + head) / flops + 2 * host));
    row.decode = true; /* behind 6 others: it sees 7 keys */
    is_near(predict(&row, true), 1 / ((matrices + 7 * key + head) / flops + host));
    m->engines[0].figures[HT_ENGINE_CONTEXT].value = 16;
    is_near(predict(&row, true), 1 / ((matrices + 16 * key + head) / flops + host));
    m->engines[0].figures[HT_ENGINE_LAUNCHES].value = 1000; /* each 10 us: longer than computing */
    is_near(predict(&row, true), 1 / (1000 * layers * 10e-6 + host));
    m->engines[0].figures[HT_ENGINE_LAUNCHES].value = 0;
    m->engines[0].figures[HT_ENGINE_LAYER_CALLS].value = 3;
    is_near(predict(&row, true), 1 / ((matrices + 16 * key + head) / flops + host + 3 * layers * 60e-6));
    m->engines[0].figures[HT_ENGINE_LAYER_CALLS].value = m->engines[0].figures[HT_ENGINE_CONTEXT].value = 0;
    test_prefill_by_hand(m, &row, (8 * matrices + (10 + 26) * key) / flops, host);
    /* More bytes where moving is slow: from 4 and 8 bits to 8 and 16. */
    const double before = 1 / predict(&row, false);
    row.bits[0] = 8;
    row.bits[1] = 16;
    is_near(1 / predict(&row, false) - before, (147456 * layers * 0.5 + 65536) / 1e8);
    m->engines[0].figures[HT_ENGINE_BANDWIDTH_SHARE].value = 0.5;
    row.bits[0] = row.bits[1] = 0;
    is_near(1 / predict(&row, false) - host, 2 * (before - host));
    m->engines[0].kind = HT_DEVICE_NPU; /* this chip has none */
    assert_true(isnan(predict(&row, true)));
    ht_measurements_free(m);
}

#define FIGURE_OF(name, value) ", \"" name "\": {\"source\": \"s\", \"value\": " value "}"

/* An NPU beside a CPU: a pass of few tokens is the vector unit's, and the head is the CPU's. */
static void test_npu_by_hand(void **state) {
    const char *text =
        "{\"name\": \"c\", \"memory\": {\"peak_GBps\": {\"value\": 100, \"source\": \"s\"}}, "
        "\"processors\": [{\"name\": \"npu\", \"kind\": \"npu\"" FIGURE_OF("reached_TFLOPS", "1000")
            FIGURE_OF("bandwidth_GBps", "1e5") FIGURE_OF(
                "expand_Gweights", "1e6") "},"
                                          "{\"name\": \"cpu\", \"kind\": \"cpu\"" FIGURE_OF("reached_TFLOPS", "1e-4")
                                              FIGURE_OF("bandwidth_GBps", "1e5") "}]}";
    ht_measurements *m;
    ht_soc *soc;
    ht_model *model;
    ht_error error;
    check(parse(ENGINES(ENGINE), ROWS(ROW), &m, &error), &error);
    check(ht_soc_parse("c.json", text, strlen(text), &soc, &error), &error);
    check(ht_model_open("shape:tiny", &model, &error), &error);
    ht_json_figure *figures = m->engines[0].figures;
    m->engines[0].kind = HT_DEVICE_NPU;
    const double before = 6 / ht_predict_row(&m->rows[0], soc, model);
    figures[HT_ENGINE_FEW].value = 5; /* passes are 4 long */
    figures[HT_ENGINE_FEW_RATE].value = 1e6;
    const double few = 6 / ht_predict_row(&m->rows[0], soc, model), products = 8 * 2.0 * 147456 * 2 / 1e6;
    assert_true(fabs((few - before) / products - 1) < 0.01);
    figures[HT_ENGINE_FEW].value = 4; /* as long as they are */
    is_near(6 / ht_predict_row(&m->rows[0], soc, model), before);
    figures[HT_ENGINE_HEAD_ON_CPU].value = 1;
    assert_true(fabs((6 / ht_predict_row(&m->rows[0], soc, model) - before) / (2 * 65536 / 1e8) - 1) < 0.05);
    ht_soc_free(soc);
    ht_model_close(model);
    ht_measurements_free(m);
}

/* ---- how errors are counted ------------------------------------------------------------------------------------------------ */

static void test_quality(void **state) {
    const ht_measured_row fit = {.tps = 100}, test = {.tps = 100, .test = true},
                          decode = {.tps = 100, .test = true, .decode = true};
    const ht_validated rows[] = {{&test, 90, 1},  {&test, 141, 1},  {&fit, 500, 1}, {&test, 60.5, 1},
                                 {&test, NAN, 1}, {&decode, 20, 1}, {&test, 120, 1}};
    ht_quality q;
    ht_error error;
    check(ht_quality_of(rows, HT_COUNT(rows), true, HT_PHASE_PREFILL, &q, &error), &error);
    assert_int_equal(q.rows, 5);
    assert_int_equal(q.predicted, 4);
    is_near(q.median, (0.2 + 0.395) / 2); /* 0.1, 0.2, 0.395, 0.41 */
    is_near(q.within, 0.75);
    is_near(q.worst, 0.605); /* 1.65 times too slow: farther than 1.41 times too fast */
    check(ht_quality_of(rows, HT_COUNT(rows), true, HT_PHASE_BOTH, &q, &error), &error);
    assert_int_equal(q.predicted, 5);
    is_near(q.median, 0.395);
    is_near(q.worst, 0.2);
    check(ht_quality_of(rows, HT_COUNT(rows), false, HT_PHASE_DECODE, &q, &error), &error);
    assert_true(q.rows == 0 && isnan(q.median) && isnan(q.within) && isnan(q.worst));
}

static void test_sizes(void **state) {
    const ht_measured_engine engine = {.name = "e"};
#define PREFILL(speed, tokens) \
    {.chip = "c", .engine = &engine, .source = "s", .weights = "", .tps = (speed), .prompt = (tokens)}
    ht_measured_row of[] = {PREFILL(1000, 128), PREFILL(600, 128), PREFILL(300, 128), PREFILL(7, 64), PREFILL(9, 128)};
    of[4].source = "another build";
    const ht_validated rows[] = {
        {&of[0], 2000, 2e9}, {&of[1], 900, 1e9}, {&of[2], 400, 8e9}, {&of[3], 7, 3e9}, {&of[4], 9, 9e9}};
    ht_size_ratio ratio;
    assert_true(ht_size_ratio_of(rows, HT_COUNT(rows), 0, &ratio));
    assert_true(ratio.smallest == &rows[1] && ratio.largest == &rows[2]);
    is_near(ratio.measured, 8.0 * 300 / 600);
    is_near(ratio.predicted, 8.0 * 400 / 900);
    assert_false(ht_size_ratio_of(rows, HT_COUNT(rows), 1, &ratio)); /* not the first of them */
    assert_false(ht_size_ratio_of(rows, HT_COUNT(rows), 3, &ratio)); /* alone */
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_mistakes), cmocka_unit_test(test_embedded),
                                       cmocka_unit_test(test_by_hand),  cmocka_unit_test(test_npu_by_hand),
                                       cmocka_unit_test(test_quality),  cmocka_unit_test(test_sizes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
