/* Which devices are used where nobody names any: the rule over made-up listings, device nodes in a made-up /dev, and an
 * engine that goes on without what was found and does not work. */
#include "unit/test.h"

#include "device/device.h"
#include "engine/engine.h"

#include <sys/stat.h>

static int warnings;
static void count(ht_log_level level, const char *line, void *user) {
    warnings += level == HT_LOG_WARN;
}

/* "name kind" with a '-' before what is not usable, '~' simulated, '?' emulated. */
static ht_device_info row_of(const char *text) {
    ht_device_info row = {.usable = *text != '-', .simulated = *text == '~', .emulated = *text == '?'};
    if (sscanf(text + strspn(text, "-~?"), "%63s %7s", row.name, row.kind) != 2)
        fail_msg("%s", text);
    return row;
}

static void test_rule(void **state) {
    static const struct {
        const char *found[8], *chosen; /* a digit for each */
    } rows[] = {
        {{"cpu cpu"}, ""},
        {{"cpu cpu", "opencl:0 gpu"}, "1"},
        {{"cpu cpu", "opencl:0 cpu", "openvino:CPU cpu", "ort:cpu cpu"}, ""}, /* stand-ins are the CPU again */
        {{"opencl:0 cpu", "opencl:1 gpu", "opencl:2 gpu"}, "12"},
        {{"opencl:0 gpu", "openvino:CPU cpu", "openvino:GPU gpu", "openvino:NPU npu"}, "03"},
        {{"opencl:0 cpu", "openvino:GPU.0 gpu", "openvino:GPU.1 gpu"}, "12"},
        {{"openvino:GPU gpu", "-opencl:0 gpu"}, "0"}, /* one that cannot be used takes no place */
        {{"openvino:NPU npu", "ort:openvino npu", "ort:qnn npu"}, "02"},
        {{"?ort:qnn npu", "-openvino:NPU npu"}, ""},
        {{"~sim:snapdragon-8-gen-3/gpu gpu", "~sim:snapdragon-8-gen-3/npu npu", "~opencl:0 gpu"}, ""},
        {{"opencl:0 gpu", "ort:qnn npu", "?ort:qnn npu"}, "01"},
        {{"-opencl gpu", "-openvino npu", "-ort npu"}, ""},
    };
    for (size_t r = 0; r < HT_COUNT(rows); r++) {
        ht_device_info found[8];
        bool chosen[8];
        char text[16] = "";
        size_t n = 0;
        for (; n < 8 && rows[r].found[n]; n++)
            found[n] = row_of(rows[r].found[n]);
        ht_device_choose(found, n, chosen);
        for (size_t i = 0; i < n; i++)
            if (chosen[i])
                snprintf(text + strlen(text), sizeof text - strlen(text), "%zu", i);
        if (strcmp(text, rows[r].chosen) != 0)
            fail_msg("row %zu: chosen \"%s\", not \"%s\"", r, text, rows[r].chosen);
    }
}

/* ---- nodes ------------------------------------------------------------------------------------------------------------------ */

static int asked[3]; /* times that each fake runtime was */
static const char *const fake_rows[3][3] = {{"opencl:0 gpu", "opencl:1 gpu", NULL},
                                            {"openvino:CPU cpu", "openvino:GPU gpu", "openvino:NPU npu"},
                                            {"ort:cpu cpu", "ort:qnn npu", NULL}};
static bool no_gpu; /* OpenCL finds nothing */

static ht_status fake_list(size_t which, ht_device_info **list, size_t *n, ht_error *error) {
    ht_status status = HT_OK;
    asked[which]++;
    *list = realloc(*list, (*n + 3) * sizeof **list);
    assert_non_null(*list);
    for (size_t i = 0; i < 3 && fake_rows[which][i] && !(no_gpu && which == 0); i++)
        (*list)[(*n)++] = row_of(fake_rows[which][i]);
    return status;
}
static ht_status list_opencl(ht_device_info **list, size_t *n, ht_error *error) {
    return fake_list(0, list, n, error);
}
static ht_status list_openvino(ht_device_info **list, size_t *n, ht_error *error) {
    return fake_list(1, list, n, error);
}
static ht_status list_ort(ht_device_info **list, size_t *n, ht_error *error) {
    return fake_list(2, list, n, error);
}

static void make_node(const char *root, const char *name) {
    char path[256];
    snprintf(path, sizeof path, "%s%s", root, name);
    for (char *slash = path + strlen(root) + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = '\0';
        mkdir(path, 0700);
        *slash = '/';
    }
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fclose(file);
}

static void test_nodes(void **state) {
    ht_device_ops opencl = ht_device_opencl, openvino = ht_device_openvino, ort = ht_device_onnxruntime;
    opencl.list = list_opencl, openvino.list = list_openvino, ort.list = list_ort;
    const ht_device_ops *const fakes[] = {&ht_device_cpu, &opencl, &openvino, &ort, NULL};
    static const struct {
        const char *nodes[3], *expected;
        int asked[3];
        size_t most;
        bool no_gpu;
    } rows[] = {
        {{NULL}, "cpu", {0, 0, 0}, 8, false},             /* no runtime is opened at all */
        {{"/dev/dri/card0"}, "cpu", {0, 0, 0}, 8, false}, /* a screen */
        {{"/dev/dri/renderD128"}, "opencl:0,opencl:1,cpu", {1, 0, 0}, 8, false},
        {{"/dev/dri/renderD128"}, "openvino:GPU,openvino:NPU,cpu", {1, 1, 0}, 8, true},
        {{"/dev/nvidia3", "/dev/dri/renderD129"}, "opencl:0,opencl:1,cpu", {1, 0, 0}, 8, false},
        {{"/dev/nvidiactl"}, "cpu", {0, 0, 0}, 8, false}, /* a driver without a GPU */
        {{"/dev/accel/accel0", "/dev/dri/renderD128"}, "opencl:0,opencl:1,openvino:NPU,cpu", {1, 1, 0}, 8, false},
        {{"/dev/kgsl-3d0", "/dev/adsprpc-smd"}, "opencl:0,opencl:1,ort:qnn,cpu", {1, 0, 1}, 8, false},
        {{"/dev/fastrpc-cdsp", "/dev/fastrpc-adsp"}, "ort:qnn,cpu", {0, 0, 1}, 8, false},
        {{"/dev/mali0"}, "opencl:0,cpu", {1, 0, 0}, 2, false},
        {{"/dev/dxg"}, "cpu", {1, 0, 0}, 1, false},
    };
    for (size_t r = 0; r < HT_COUNT(rows); r++) {
        char root[128];
        ht_text list = {0};
        ht_error error = {0};
        snprintf(root, sizeof root, "%s/%zu", test_folder, r);
        mkdir(root, 0700);
        for (size_t i = 0; i < 3 && rows[r].nodes[i]; i++)
            make_node(root, rows[r].nodes[i]);
        memset(asked, 0, sizeof asked);
        no_gpu = rows[r].no_gpu;
        check(ht_device_defaults_of(fakes, root, rows[r].most, &list, &error), &error);
        assert_string_equal(list.data, rows[r].expected);
        assert_memory_equal(asked, rows[r].asked, sizeof asked);
        ht_text_free(&list);
    }
}

/* ---- engines ---------------------------------------------------------------------------------------------------------------- */

/* Devices that cannot be opened, for this reason or that, are a warning each; the CPU computes. */
static void test_found_but_broken(void **state) {
    static const struct {
        const char *found;
        int warnings;
    } rows[] = {{"cpu", 0}, {"opencl:99,cpu", 1}, {"openvino:NOSUCH,cpu", 1}, {"cpu:cpus=99,opencl:99,cpu", 2}};
    ht_model *model;
    ht_error error = {0};
    check(ht_model_open("shape:tiny", &model, &error), &error);
    ht_log_set(count, NULL, HT_LOG_WARN);
    for (size_t r = 0; r < HT_COUNT(rows); r++) {
        ht_engine *engine;
        warnings = 0;
        check(ht_engine_create_found(model, &HT_INIT(ht_engine_options, .threads = 1), rows[r].found, &engine, &error),
              &error);
        const ht_engine_info *info = ht_engine_get_info(engine);
        assert_int_equal(info->n_devices, 1);
        assert_string_equal(info->devices[0], "cpu");
        assert_int_equal(warnings, rows[r].warnings);
        ht_engine_destroy(engine);
    }
    /* what is wrong with the request is no device's fault */
    ht_engine *engine;
    warnings = 0;
    fails(ht_engine_create_found(model, &HT_INIT(ht_engine_options, .context = -1), "opencl:99,cpu", &engine, &error),
          HT_ERROR_ARGUMENT, &error, "context");
    assert_int_equal(warnings, 0);
    /* named, such a device is an error */
    fails(ht_engine_create(model, &HT_INIT(ht_engine_options, .devices = "cpu:cpus=99,cpu"), &engine, &error),
          HT_ERROR_ARGUMENT, &error, "cpus=99");
    ht_log_set(NULL, NULL, HT_LOG_WARN);
    ht_model_close(model);
}

/* A device that opens, but on which nothing can be made ready. */
static void test_found_but_useless(void **state) {
    ht_model *model;
    ht_engine *engine;
    ht_error error = {0};
    check(ht_model_open("shape:tiny", &model, &error), &error);
    ht_log_set(count, NULL, HT_LOG_WARN);
    warnings = 0;
    check(ht_engine_create_found(model, &HT_INIT(ht_engine_options, .measure = true), "cpu:fail=1,cpu:fail=1:cpus=0",
                                 &engine, &error),
          &error);
    assert_string_equal(ht_engine_get_info(engine)->devices[0], "cpu");
    assert_true(warnings >= 1);
    ht_engine_destroy(engine);
    ht_log_set(NULL, NULL, HT_LOG_WARN);
    ht_model_close(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rule),
        cmocka_unit_test_setup_teardown(test_nodes, make_folder, remove_folder),
        cmocka_unit_test(test_found_but_broken),
        cmocka_unit_test(test_found_but_useless),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
