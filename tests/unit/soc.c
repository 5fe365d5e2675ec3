/* Descriptions of SoCs: what is there, defaults, overrides; and for every kind of mistake a text with its line and key. */
#include "device/sim/soc.h"
#include "unit/test.h"

#include <math.h>

static ht_soc *parse(const char *text) {
    ht_soc *soc = NULL;
    ht_error error;
    check(ht_soc_parse("x.json", text, strlen(text), &soc, &error), &error);
    return soc;
}

#define MEMORY "\"memory\": {\"peak_GBps\": {\"value\": 100, \"source\": \"data sheet\"}}"
#define GPU "{\"name\": \"gpu\", \"kind\": \"gpu\", \"reached_TFLOPS\": {\"value\": 2, \"source\": \"estimated\"}}"

static void test_defaults(void **state) {
    ht_soc *soc = parse("{\"name\": \"a\", " MEMORY ",\n\"processors\": [" GPU "]}");
    const ht_soc_processor *gpu = ht_soc_find(soc, "gpu");
    assert_non_null(gpu);
    assert_int_equal(gpu->kind, HT_DEVICE_GPU);
    assert_true(gpu->figures[HT_SOC_REACHED].value == 2e12 && gpu->figures[HT_SOC_REACHED].given);
    assert_string_equal(soc->figures[HT_SOC_PEAK_BANDWIDTH].source, "data sheet");
    /* left out: a share of the memory's peak, or a number of its own; estimated */
    assert_true(fabs(gpu->figures[HT_SOC_BANDWIDTH].value / 62e9 - 1) < 1e-12);
    assert_false(gpu->figures[HT_SOC_BANDWIDTH].given);
    assert_string_equal(gpu->figures[HT_SOC_BANDWIDTH].source, "estimated");
    assert_true(fabs(gpu->figures[HT_SOC_FINISH].value / 400e-6 - 1) < 1e-12);
    assert_true(fabs(soc->figures[HT_SOC_TOGETHER].value / 87e9 - 1) < 1e-12);
    assert_true(soc->figures[HT_SOC_POLL].value > 0);
    assert_null(gpu->figures[HT_SOC_ARRAY].source); /* an NPU's */
    assert_null(ht_soc_find(soc, "npu"));
    ht_soc_free(soc);
}

/* Each with one mistake: what the error must say, its line included. */
static const struct {
    const char *text, *says;
} mistakes[] = {
    {"{\n\"name\": }", "x.json: line 2: "},
    {"{\"name\": \"a\", \"name\": \"b\"}", "x.json: line 1: "},
    {"[]", "x.json: line 1: must be an object"},
    {"{" MEMORY ",\n\"processors\": [" GPU "]}", "line 1: name: is missing"},
    {"{\"name\": 7,\n" MEMORY "}", "line 1: name: must be a text"},
    {"{\"name\": \"a\",\n\n\"colour\": 1}", "line 3: colour: unknown key"},
    {"{\"name\": \"a\",\n\"processors\": [" GPU "]}", "memory: is missing"},
    {"{\"name\": \"a\",\n\"memory\": 3}", "line 2: memory: must be an object"},
    {"{\"name\": \"a\",\n\"memory\": {}}", "line 2: memory.peak_GBps: is missing"},
    {"{\"name\": \"a\",\n\"memory\": {\n\"peak_GBps\": 100}}", "line 3: memory.peak_GBps: must be {\"value\""},
    {"{\"name\": \"a\",\n\"memory\": {\"peak_GBps\":\n{\"source\": \"s\"}}}",
     "line 2: memory.peak_GBps.value: is missing"},
    {"{\"name\": \"a\",\n\"memory\": {\"peak_GBps\": {\n\"value\": 1}}}", "memory.peak_GBps.source: is missing"},
    {"{\"name\": \"a\",\n\"memory\": {\"peak_GBps\": {\"value\": 1,\n\"source\": \"\"}}}",
     "line 3: memory.peak_GBps.source: must say where"},
    {"{\"name\": \"a\",\n\"memory\": {\"peak_GBps\": {\n\"value\": \"1\", \"source\": \"s\"}}}",
     "line 3: memory.peak_GBps.value: must be a number"},
    {"{\"name\": \"a\",\n\"memory\": {\"peak_GBps\": {\n\"value\": -1, \"source\": \"s\"}}}",
     "line 3: memory.peak_GBps.value: -1 is not from"},
    {"{\"name\": \"a\",\n\"memory\": {\"peak_GBps\": {\"value\": 1, \"source\": \"s\",\n\"unit\": 2}}}",
     "line 3: memory.peak_GBps.unit: unknown key; a figure has"},
    {"{\"name\": \"a\",\n\"memory\": {\"peak_GBps\": {\"value\": 1, \"source\": \"s\",\n\"low\": 0.5}}}",
     "memory.peak_GBps.high: is missing"},
    {"{\"name\": \"a\",\n\"memory\": {\"peak_GBps\": {\"value\": 1, \"source\": \"s\",\n\"high\": 2}}}",
     "memory.peak_GBps.low: is missing"},
    {"{\"name\": \"a\",\n\"memory\": {\"peak_GBps\": {\"value\": 1, \"source\": \"s\",\n\"low\": 1.5, \"high\": 2}}}",
     "line 3: memory.peak_GBps.low: 1.5 is above the value, 1"},
    {"{\"name\": \"a\",\n\"memory\": {\"peak_GBps\": {\"value\": 1, \"source\": \"s\",\n\"low\": 0.5,\n\"high\": "
     "0.9}}}",
     "line 4: memory.peak_GBps.high: 0.9 is below the value, 1"},
    {"{\"name\": \"a\",\n\"memory\": {\"peak_GBps\": {\"value\": 1, \"source\": \"s\", \"low\": -1, \"high\": 2}}}",
     "memory.peak_GBps.low: -1 is not from"},
    {"{\"name\": \"a\", " MEMORY "}", "processors: is missing"},
    {"{\"name\": \"a\", " MEMORY ",\n\"processors\": []}", "line 2: processors: must be a list"},
    {"{\"name\": \"a\", " MEMORY ",\n\"processors\": [" GPU ",\n5]}", "line 3: processors[1]: must be an object"},
    {"{\"name\": \"a\", " MEMORY ",\n\"processors\": [" GPU ",\n" GPU "]}",
     "line 3: processors[1].name: \"gpu\" occurs twice"},
    {"{\"name\": \"a\", " MEMORY ",\n\"processors\": [{\"name\": \"g\",\n\"kind\": \"tpu\"}]}",
     "line 3: processors[0].kind: \"tpu\" is not one of"},
    {"{\"name\": \"a\", " MEMORY ",\n\"processors\": [{\"name\": \"G p\", \"kind\": \"gpu\"}]}",
     "processors[0].name: must be of small letters"},
    {"{\"name\": \"a\", " MEMORY ",\n\"processors\": [{\"name\": \"g\", \"kind\": \"gpu\"}]}",
     "line 2: processors[0].reached_TFLOPS: is missing"},
    {"{\"name\": \"a\", " MEMORY ",\n\"processors\": [{\"name\": \"host\", \"kind\": \"cpu\"}]}",
     "line 2: processors[0].name: \"host\" is the name of a section"},
    {"{\"name\": \"a\", " MEMORY
     ",\n\"processors\": [{\"name\": \"n\", \"kind\": \"npu\",\n\"sessions\": {\"value\": 1.5, "
     "\"source\": \"s\"}}]}",
     "line 3: processors[0].sessions.value: must be a whole number"},
    {"{\"name\": \"a\", " MEMORY ",\n\"processors\": [{\"name\": \"g\", \"kind\": \"gpu\",\n\"array\": {\"value\": 32, "
     "\"source\": \"s\"}}]}",
     "line 3: processors[0].array: unknown key"},
    {"{\"name\": \"a\", " MEMORY ",\n\"processors\": [{\"name\": \"g\", \"kind\": \"gpu\",\n\"lengths\": [1]}]}",
     "line 3: processors[0].lengths: is not of a gpu"},
    {"{\"name\": \"a\", " MEMORY ",\n\"processors\": [{\"name\": \"n\", \"kind\": \"npu\", \"lengths\": [64,\n32]}]}",
     "line 3: processors[0].lengths[1]: lengths must ascend"},
    {"{\"name\": \"a\", " MEMORY
     ",\n\"processors\": [\n{\"name\": \"n\", \"kind\": \"npu\", \"reached_TFLOPS\": {\"value\": 1, "
     "\"source\": \"s\"}}]}",
     "line 3: processors[0]: an NPU needs a processor of kind \"cpu\""},
    {"{\"name\": \"a\", " MEMORY ",\n\"processors\": [{\"name\": \"n\", \"kind\": \"npu\", \"lengths\": [0]}]}",
     "processors[0].lengths[0]: must be a whole number"},
    {"{\"name\": \"a\", " MEMORY ",\n\"processors\": [{\"name\": \"c\", \"kind\": \"cpu\",\n\"cores\": \"2-\"}]}",
     "line 3: processors[0].cores: \"2-\" is not a list of cores"},
    {"{\"name\": \"a\", " MEMORY
     ",\n\"processors\": [{\"name\": \"n\", \"kind\": \"npu\", \"reached_TFLOPS\": {\"value\": 1, "
     "\"source\": \"s\"},\n\"companion\": \"n\"}]}",
     "line 3: processors[0].companion: \"n\" is not a CPU"},
};

static void test_mistakes(void **state) {
    for (size_t i = 0; i < HT_COUNT(mistakes); i++) {
        ht_soc *soc;
        ht_error error = {0};
        const ht_status status = ht_soc_parse("x.json", mistakes[i].text, strlen(mistakes[i].text), &soc, &error);
        fails(status, HT_ERROR_FORMAT, &error, mistakes[i].says);
    }
}

/* Keys that look alike, escapes, and the same key elsewhere do not lead to another line. */
static void test_line_of_a_key(void **state) {
    static const char text[] =
        "{\"name\": \"memory\\\"\",\n\"description\": \"{[\\\\\",\n" MEMORY ",\n\"processors\": [\n" GPU
        ",\n{\"name\": \"cpu\", \"kind\": \"cpu\",\n\"reached_TFLOPS\": {\"value\": 1, \"source\": "
        "\"s\"},\n\"launch_us\": {\"value\": true, \"source\": \"s\"}}]}";
    ht_soc *soc;
    ht_error error;
    fails(ht_soc_parse("x.json", text, strlen(text), &soc, &error), HT_ERROR_FORMAT, &error,
          "x.json: line 8: processors[1].launch_us.value: must be a number");
}

/* What the phones' and laptops' descriptions have in common: the figures that the first one gives for a processor of this
 * name, nobody leaves to a default, and none is from memory. No processor reaches more than its peak. */
static void check_figures(const ht_soc *soc, const ht_figure *figures, const ht_figure *first) {
    for (int key = 0; key < HT_SOC_KEYS; key++) {
        if (figures[key].given != first[key].given)
            fail_msg("%s: %s is given in one description and left out in another", soc->name, ht_soc_key_name(key));
        if (figures[key].given && !strncmp(figures[key].source, "assumed", 7) && figures[key].low == figures[key].high)
            fail_msg("%s: %s is assumed, but has no range", soc->name, ht_soc_key_name(key));
        if (figures[key].given && strstr(figures[key].source, "remembered"))
            fail_msg("%s: %s: \"%s\"", soc->name, ht_soc_key_name(key), figures[key].source);
    }
    assert_true(figures[HT_SOC_REACHED].value <= figures[HT_SOC_PEAK].value);
    assert_true(figures[HT_SOC_BANDWIDTH].value <= soc->figures[HT_SOC_REACHED_MEMORY].value);
}

static void test_embedded(void **state) {
    static const char *const names[] = {"core-ultra-7-155h",  "core-ultra-7-258v",  "dimensity-9300",
                                        "ryzen-ai-7-350",     "snapdragon-8-elite", "snapdragon-8-elite-gen-5",
                                        "snapdragon-8-gen-2", "snapdragon-8-gen-3", "snapdragon-x-elite"};
    ht_soc *first, *soc;
    ht_error error;
    size_t n = 0;
    check(ht_soc_load(names[0], &first, &error), &error);
    for (; ht_soc_name(n); n++) {
        check(ht_soc_load(ht_soc_name(n), &soc, &error), &error);
        assert_string_equal(soc->name, ht_soc_name(n));
        assert_int_equal(soc->n_processors, first->n_processors);
        for (size_t i = 0; i < soc->n_processors; i++) {
            assert_string_equal(soc->processors[i].name, first->processors[i].name);
            check_figures(soc, soc->processors[i].figures, first->processors[i].figures);
        }
        assert_true(soc->figures[HT_SOC_TOGETHER].value <= soc->figures[HT_SOC_REACHED_MEMORY].value);
        assert_true(soc->figures[HT_SOC_REACHED_MEMORY].value <= soc->figures[HT_SOC_PEAK_BANDWIDTH].value);
        ht_soc_free(soc);
    }
    ht_soc_free(first);
    assert_true(n >= HT_COUNT(names));
    for (size_t i = 0; i < HT_COUNT(names); i++) {
        check(ht_soc_load(names[i], &soc, &error), &error);
        ht_soc_free(soc);
    }
}

static void test_user_file(void **state) {
    ht_soc *soc;
    ht_error error;
    check(ht_soc_load("examples/my-chip.json", &soc, &error), &error);
    assert_string_equal(soc->name, "my-chip");
    assert_int_equal(ht_soc_find(soc, "cpu")->cores.words[0], 0xfc);
    ht_soc_free(soc);
}

static void test_overrides(void **state) {
    static const struct {
        const char *spec, *says;
    } wrong[] = {
        {"snapdragon-8-gen-4", "snapdragon-8-gen-4: unknown SoC (known: "},
        {"", "is not the name"},
        {"none/such.json", "none/such.json"},
        {"snapdragon-8-gen-3@gpu", "\"gpu\" is not of the form processor.key=number"},
        {"snapdragon-8-gen-3@tpu.launch_us=1", "snapdragon-8-gen-3 has no processor \"tpu\""},
        {"snapdragon-8-gen-3@gpu.array=1", "gpu has no array"},
        {"snapdragon-8-gen-3@gpu.launch_us=x", "gpu.launch_us: \"x\" is not a number from"},
        {"snapdragon-8-gen-3@gpu.launch_us=-1", "gpu.launch_us: \"-1\" is not a number from"},
        {"snapdragon-8-gen-3@npu.vector_Gvalues=nan", "npu.vector_Gvalues: \"nan\" is not a number from"},
        {"snapdragon-8-gen-3@npu.session_GiB=inf", "npu.session_GiB: \"inf\" is not a number from"},
        {"snapdragon-8-gen-3@npu.int16_graphs=0.3", "npu.int16_graphs: \"0.3\" is not a whole number"},
        {"snapdragon-8-gen-3@npu.array=1.5", "npu.array: \"1.5\" is not a whole number"},
    };
    ht_soc *soc, *plain;
    ht_error error;
    check(ht_soc_load("snapdragon-8-gen-3", &plain, &error), &error);
    check(ht_soc_load("snapdragon-8-gen-3@memory.together_GBps=80@gpu.finish_us=100@host.poll_us=2", &soc, &error),
          &error);
    assert_true(soc->figures[HT_SOC_TOGETHER].value == 80e9);
    assert_true(fabs(ht_soc_find(soc, "gpu")->figures[HT_SOC_FINISH].value - 100e-6) < 1e-12);
    assert_true(fabs(soc->figures[HT_SOC_POLL].value - 2e-6) < 1e-12);
    assert_true(soc->hash != plain->hash);
    /* a figure that is asked for is certain, whatever the file says */
    const ht_figure *base = &plain->figures[HT_SOC_BASE_WATTS];
    assert_true(0 < base->low && base->low < base->value && base->value < base->high);
    ht_soc_free(soc);
    check(ht_soc_load("snapdragon-8-gen-3@memory.base_W=2", &soc, &error), &error);
    base = &soc->figures[HT_SOC_BASE_WATTS];
    assert_true(base->low == 2 && base->value == 2 && base->high == 2);
    ht_soc_free(soc);
    ht_soc_free(plain);
    for (size_t i = 0; i < HT_COUNT(wrong); i++)
        fails(ht_soc_load(wrong[i].spec, &soc, &error),
              strstr(wrong[i].spec, "such.json") ? HT_ERROR_IO : HT_ERROR_ARGUMENT, &error, wrong[i].says);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults), cmocka_unit_test(test_mistakes),  cmocka_unit_test(test_line_of_a_key),
        cmocka_unit_test(test_embedded), cmocka_unit_test(test_user_file), cmocka_unit_test(test_overrides),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
