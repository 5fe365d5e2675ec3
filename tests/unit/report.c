/* The report: that nothing personal is left in a text, what is read of a machine, parts that fail, crash and hang. */
#include "unit/test.h"

#include "base/os.h"
#include "report/report.h"

#include <signal.h>
#include <sys/stat.h>
#include <time.h>

/* ---- scrubbing -------------------------------------------------------------------------------------------------------------- */

static ht_scrubber *scrubber_of(const char *model, const char *devices) {
    ht_scrubber *scrubber;
    ht_error error = {0};
    setenv("HOME", "/home/alicia", 1);
    setenv("USER", "wonder", 1);
    setenv("LOGNAME", "alf", 1);
    setenv("SUDO_USER", "ubuntu", 1); /* nobody's own */
    setenv("HOSTNAME", "rabbit-hole.example.org", 1);
    setenv("SOME_PATH", "/usr/bin:/mnt/My Secret Disk/bin", 1);
    check(ht_scrubber_create(model, devices, &scrubber, &error), &error);
    return scrubber;
}

static void test_scrub(void **state) {
    static const struct {
        const char *text, *clean;
    } rows[] = {
        {"", ""},
        {"plain text of 3 words, 12.5 tokens/s (fast/exact), 1/4 of rows", NULL},
        {"OpenCL 3.0 PoCL HSTR: pthread-x86_64-pc-linux-gnu-skylake-avx51", NULL},
        {"sim:snapdragon-8-gen-3/gpu", NULL},
        {"opencl:0:cpus=0-1:memory=copied", NULL},
        {"Ubuntu 24.04 LTS as root", NULL}, /* what thousands have */
        {"/home/alicia", "~"},
        {"/home/alicia/", "~"},
        {"/home/alicia/.cache/hetero/profile/: no profile", "~: no profile"},
        {"/home/alicianna/x", "PATH"}, /* another's */
        {"in '/home/alicia/a b", "in '~ b"},
        {"/home/Alicia/x", "~"},
        {"no OpenCL loader: /vendor/lib64/libOpenCL.so: not found", "no OpenCL loader: PATH/libOpenCL.so: not found"},
        {"/home/alicia/.venv/lib/python3.11/site-packages/onnxruntime/capi/libonnxruntime.so.1.32.0",
         "~/libonnxruntime.so.1.32.0"},
        {"/opt/alicia/libwonder.so", "PATH/libUSER.so"},
        {"a,/etc/passwd;x=/srv/y \"/z\"", "a,PATH;x=PATH \"PATH\""},
        {"-I/home/alicia/include -O3 -fdebug-prefix-map=/build/x=.", "-I~ -O3 -fdebug-prefix-map=PATH"},
        {"../../alicia/x ./y ~/z", "PATH PATH PATH"},
        {"C:\\Users\\alicia\\x.txt is gone", "PATH is gone"},
        {"other.gguf: no such tensor", "FILE: no such tensor"},
        {"sim:my-chip.json@memory.peak_GBps=60/gpu", "sim:FILE"},
        {"sim:/tmp/chip.json/gpu", "sim:PATH"},
        {"wonder's file", "USER's file"},
        {"Linux 6.1.0-wonder aarch64", "Linux 6.1.0-USER aarch64"},
        {"WONDERful", "USERful"},
        {"alf's", "USER's"},
        {"half of all; alfalfa", NULL}, /* short names as words of their own only */
        {"on rabbit-hole.example.org, or rabbit-hole", "on HOST, or HOST"},
        {"/mnt/My Secret Disk/bin/python3: not found", "PATH: not found"},
        {"cannot open /mnt/My Secret Disk/other", "cannot open PATH"},
        {"models of my own/tea party.gguf: broken", "MODEL: broken"},
        {"tea party.gguf: broken", "MODEL: broken"},
        {"tea party-00002-of-00003.gguf is missing", "MODEL-00002-of-00003.gguf is missing"},
        {"sim:my own chip.json/gpu is not", "DEVICE is not"},
    };
    ht_scrubber *scrubber = scrubber_of("models of my own/tea party.gguf", "cpu,sim:my own chip.json/gpu");
    for (size_t i = 0; i < HT_COUNT(rows); i++) {
        const char *expected = rows[i].clean ? rows[i].clean : rows[i].text;
        ht_text clean = {0};
        assert_int_equal(ht_scrub(scrubber, rows[i].text, &clean, NULL), HT_OK);
        if (strcmp(clean.data, expected) != 0)
            fail_msg("\"%s\" became \"%s\", not \"%s\"", rows[i].text, clean.data, expected);
        ht_text_free(&clean);
    }
    ht_scrubber_destroy(scrubber);
}

/* Our own keys stay, keys that are names do not; what is no text stays as it is. */
static void test_scrub_tree(void **state) {
    ht_scrubber *scrubber = scrubber_of(NULL, NULL);
    json_t *tree = json_loads("{\"wonder\": [1, true, null, \"wonder\", {\"sim:/home/alicia/c.json/gpu\": 2.5}],"
                              " \"b\": \"/x/y\"}",
                              0, NULL);
    assert_int_equal(ht_scrub_json(scrubber, tree, NULL), HT_OK);
    char *text = json_dumps(tree, JSON_COMPACT);
    assert_string_equal(text, "{\"wonder\":[1,true,null,\"USER\",{\"sim:~\":2.5}],\"b\":\"PATH\"}");
    free(text);
    json_decref(tree);
    ht_scrubber_destroy(scrubber);
}

/* ---- the machine ------------------------------------------------------------------------------------------------------------ */

static void write_file(const char *name, const char *text) {
    char path[256];
    snprintf(path, sizeof path, "%s%s", test_folder, name);
    for (char *slash = path + strlen(test_folder) + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = '\0';
        mkdir(path, 0700);
        *slash = '/';
    }
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

/* A phone: two little cores, five, and a prime one; a serial number wherever one can be. */
static void make_phone(void) {
    static const struct {
        int first, last, khz, capacity;
        const char *part;
    } groups[] = {{0, 1, 2265600, 376, "0xd80"}, {2, 6, 3148800, 895, "0xd81"}, {7, 7, 3302400, 1024, "0xd82"}};
    ht_text info = {0};
    char path[128], text[64];
    for (size_t g = 0; g < HT_COUNT(groups); g++)
        for (int i = groups[g].first; i <= groups[g].last; i++) {
            ht_text_printf(&info, NULL,
                           "processor\t: %d\nFeatures\t: fp asimd i8mm\nCPU implementer\t: 0x41\nCPU part\t: %s\n\n", i,
                           groups[g].part);
            snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/cpufreq/cpuinfo_max_freq", i);
            snprintf(text, sizeof text, "%d\n", groups[g].khz);
            write_file(path, text);
            snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/cpu_capacity", i);
            snprintf(text, sizeof text, "%d\n", groups[g].capacity);
            write_file(path, text);
        }
    ht_text_printf(&info, NULL, "Hardware\t: Qualcomm Technologies, Inc SM8650\nSerial\t\t: SERIAL1234\n");
    write_file("/proc/cpuinfo", info.data);
    ht_text_free(&info);
    write_file("/proc/meminfo", "MemTotal:       12000000 kB\nMemFree: 5 kB\nMemAvailable:    7000000 kB\n");
    write_file("/proc/self/cgroup", "0::/app\n");
    write_file("/sys/fs/cgroup/app/cpu.max", "150000 100000\n");
    write_file("/etc/os-release", "ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\nHOME_URL=\"SERIAL1234\"\n");
    write_file("/sys/devices/soc0/soc_id", "557\n");
    write_file("/sys/devices/soc0/machine", "Snapdragon\n");
    write_file("/sys/devices/soc0/serial_number", "SERIAL1234\n");
    write_file("/sys/class/dmi/id/product_serial", "SERIAL1234\n");
    write_file("/sys/class/dmi/id/product_name", "Handset\x01\n");
    write_file("/sys/class/kgsl/kgsl-3d0/gpu_model", "Adreno750v2\n");
    write_file("/sys/module/nvidia/version", "535.104.05\n");
    write_file("/sys/module/fastrpc/parameters/x", "1\n");
    write_file("/dev/kgsl-3d0", "");
}

static const char *at(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "(none)";
}

static void test_host(void **state) {
    make_phone();
    json_t *host = ht_host_json(test_folder);
    char *all = json_dumps(host, JSON_COMPACT);
    assert_null(strstr(all, "SERIAL1234"));
    static const struct {
        const char *cores, *part;
        int n;
        double mhz;
    } groups[] = {{"0-1", "0x41:0xd80", 2, 2265.6}, {"2-6", "0x41:0xd81", 5, 3148.8}, {"7", "0x41:0xd82", 1, 3302.4}};
    const json_t *list = json_object_get(host, "core_groups");
    assert_int_equal(json_array_size(list), HT_COUNT(groups));
    for (size_t i = 0; i < HT_COUNT(groups); i++) {
        const json_t *group = json_array_get(list, i);
        assert_string_equal(at(group, "cores"), groups[i].cores);
        assert_string_equal(at(group, "part"), groups[i].part);
        assert_int_equal(json_integer_value(json_object_get(group, "n")), groups[i].n);
        assert_true(json_real_value(json_object_get(group, "max_mhz")) == groups[i].mhz);
    }
    assert_string_equal(at(host, "hardware"), "Qualcomm Technologies, Inc SM8650");
    assert_string_equal(at(host, "features"), "fp asimd i8mm");
    assert_string_equal(at(host, "os"), "Debian GNU/Linux 13 (trixie)");
    assert_string_equal(at(json_object_get(host, "soc"), "soc_id"), "557");
    assert_string_equal(at(json_object_get(host, "soc"), "machine"), "Snapdragon");
    assert_string_equal(at(json_object_get(host, "board"), "product"), "Handset?");
    assert_string_equal(at(json_object_get(host, "drivers"), "kgsl_gpu"), "Adreno750v2");
    assert_string_equal(at(json_object_get(host, "drivers"), "nvidia"), "535.104.05");
    assert_string_equal(at(json_object_get(host, "drivers"), "fastrpc"), "in the kernel");
    assert_true(json_integer_value(json_object_get(host, "memory_bytes")) == 12000000ll * 1024);
    assert_true(json_real_value(json_object_get(host, "cpu_quota")) == 1.5);
    assert_int_equal(json_array_size(json_object_get(host, "device_nodes")), 1);
    assert_string_equal(json_string_value(json_array_get(json_object_get(host, "device_nodes"), 0)), "kgsl-3d0");
    free(all);
    json_decref(host);
}

/* A machine of which nothing can be read is no error. */
static void test_bare_host(void **state) {
    json_t *host = ht_host_json("/nowhere");
    assert_string_not_equal(at(host, "kernel"), "(none)");
    assert_int_equal(json_array_size(json_object_get(host, "core_groups")), 0);
    assert_null(json_object_get(host, "soc"));
    json_decref(host);
}

/* ---- parts ------------------------------------------------------------------------------------------------------------------ */

/* What the other process does: asked for by name, in a process that is this program again. */
static ht_status answer(const char *const *asked, char **json, ht_error *error) {
    const char *what = ht_part_value(asked, "what");
    char text[200001];
    ht_log(HT_LOG_WARN, "first line");
    ht_log(HT_LOG_INFO, "not wanted");
    printf("Rdrivers write what they like\n"); /* to standard output, which is not the answer */
    fflush(stdout);
    if (!strcmp(what, "crash")) {
        signal(SIGSEGV, SIG_DFL); /* not a sanitizer's */
        raise(SIGSEGV);
    }
    if (!strcmp(what, "hang"))
        for (;;)
            pause();
    if (!strcmp(what, "leave"))
        _exit(3);
    if (!strcmp(what, "fail"))
        return ht_fail(error, HT_ERROR_DEVICE, "the device is on fire");
    memset(text, 'x', sizeof text);
    text[0] = text[200000 - 1] = '"';
    text[200000] = '\0';
    *json = strdup(!strcmp(what, "long") ? text : "{\"a\": 1}");
    return HT_OK;
}

static const ht_part_row parts[] = {{"other", NULL}, {"answer", answer}, {NULL, NULL}};
static const char *program[] = {NULL, "part", NULL}; /* this program: main sets it */

static void check_error(const json_t *object, const char *error, const char *status) {
    assert_true(strncmp(at(object, "error"), error ? error : "(none)", error ? strlen(error) : 6) == 0);
    assert_string_equal(at(object, "status"), status ? status : "(none)");
    assert_int_equal(json_object_get(object, "result") != NULL, !error);
}

static void test_parts(void **state) {
    static const struct {
        const char *what, *error, *status;
    } rows[] = {{"what=answer", NULL, NULL},
                {"what=long", NULL, NULL},
                {"what=fail", "the device is on fire", "device"},
                {"what=crash", "it crashed: signal 11", "device"},
                {"what=hang", "it hangs: no answer in 0 s", "device"},
                {"what=leave", "it ended without an answer", "device"}};
    for (size_t i = 0; i < HT_COUNT(rows); i++) {
        const char *const asked[] = {"part=answer", rows[i].what, NULL};
        const bool hangs = !strcmp(rows[i].what, "what=hang"), is_long = !strcmp(rows[i].what, "what=long");
        json_t *object = ht_part_run(program, parts, asked, hangs ? 0.5 : 60);
        assert_non_null(object);
        check_error(object, rows[i].error, rows[i].status);
        assert_int_equal(json_array_size(json_object_get(object, "log")), 1);
        assert_string_equal(json_string_value(json_array_get(json_object_get(object, "log"), 0)), "first line");
        if (is_long)
            assert_int_equal(json_string_length(json_object_get(object, "result")), 200000 - 2);
        json_decref(object);
    }
}

/* Without a program the parts run in this process, which they must not end. */
static void test_parts_here(void **state) {
    json_t *object = ht_part_run(NULL, parts, (const char *const[]){"part=answer", "what=answer", NULL}, 60);
    check_error(object, NULL, NULL);
    json_decref(object);
    object = ht_part_run(NULL, parts, (const char *const[]){"part=answer", "what=fail", NULL}, 60);
    check_error(object, "the device is on fire", "device");
    json_decref(object);
}

static void test_parts_not_there(void **state) {
    const char *const nowhere[] = {"/no/such/program", NULL};
    json_t *object = ht_part_run(nowhere, parts, (const char *const[]){"part=answer", NULL}, 60);
    check_error(object, "/no/such/program: cannot be started", "io");
    json_decref(object);
    object = ht_part_run(program, parts, (const char *const[]){"part=unheard of", NULL}, 60);
    check_error(object, "the report has no part 'unheard of'", "argument");
    json_decref(object);
}

/* ---- the file --------------------------------------------------------------------------------------------------------------- */

static void check_content(const char *path, const char *expected) {
    char text[64] = "";
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_non_null(fgets(text, sizeof text, file));
    fclose(file);
    assert_string_equal(text, expected);
}

static void test_save(void **state) {
    char path[64], again[64], folder[1024];
    ht_error error = {0};
    ht_status status = HT_OK;
    time_t before, after;
    assert_non_null(getcwd(folder, sizeof folder));
    assert_int_equal(chdir(test_folder), 0);
    do { /* both in the same second */
        before = time(NULL);
        check(ht_report_save("one", NULL, path, sizeof path, &error), &error);
        status = ht_report_save("two", NULL, again, sizeof again, &error);
        after = time(NULL);
    } while (before != after);
    fails(status, HT_ERROR_ARGUMENT, &error, path); /* nothing is replaced that nobody named */
    check_content(path, "one");
    check(ht_report_save("three", path, again, sizeof again, &error), &error);
    assert_string_equal(again, path);
    check_content(path, "three");
    fails(ht_report_save("four", "no/such/folder", again, sizeof again, &error), HT_ERROR_IO, &error, "no/such/folder");
    assert_int_equal(chdir(folder), 0);
}

int main(int argc, char **argv) {
    char self[HT_PATH_BYTES];
    if (argc > 1 && !strcmp(argv[1], "part"))
        return ht_part_serve(parts, (const char *const *)argv + 2);
    program[0] = ht_os_program_path(self, sizeof self) ? self : NULL;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scrub),
        cmocka_unit_test(test_scrub_tree),
        cmocka_unit_test_setup_teardown(test_host, make_folder, remove_folder),
        cmocka_unit_test(test_bare_host),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_parts_here),
        cmocka_unit_test(test_parts_not_there),
        cmocka_unit_test_setup_teardown(test_save, make_folder, remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
