/* What a program that uses the library finds of itself afterwards: environment, descriptors, signals, cores, folder, locale and
 * floating-point mode as before, during use and after it. HETERO_QUICK=unit: on the CPU alone. */
#define _GNU_SOURCE /* cpu_set_t */
#include "unit/test.h"

#include "device/device.h"

#include <fcntl.h>
#include <locale.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

extern char **environ;

#define MAX_LINES 512
typedef struct host { /* a line each, so that a difference can be shown */
    char *lines[MAX_LINES];
    size_t n;
} host;

/* What a driver does in the process, which we cannot keep it from, and what we must do for one: parts of lines. */
static const char *const nothing[] = {NULL};
static const char *const of_pocl[] = {
    "signal ", /* LLVM, which compiles, has handlers of its own: it removes its files and raises the signal again; SIGFPE */
    "environment POCL_AFFINITY=1",     /* PoCL reads it when it is loaded */
    "environment HWLOC_PLUGINS_PATH=", /* its own */
    NULL};
static const char *const of_ort[] = {"/.onnxruntime/onnxruntime.db", NULL}; /* its own records, in the cache folder */

static void add(host *h, const char *what, const char *text) {
    ht_text line = {0};
    assert_true(h->n < MAX_LINES);
    assert_int_equal(ht_text_printf(&line, NULL, "%s %s", what, text), HT_OK);
    h->lines[h->n++] = line.data;
}

static int compare(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void add_descriptors(host *h) {
    DIR *folder = opendir("/proc/self/fd");
    assert_non_null(folder);
    for (struct dirent *entry; (entry = readdir(folder));) {
        char name[300], to[256] = "";
        snprintf(name, sizeof name, "/proc/self/fd/%s", entry->d_name);
        if (*entry->d_name != '.' && atoi(entry->d_name) != dirfd(folder) && readlink(name, to, sizeof to - 1) > 0)
            add(h, "descriptor", to);
    }
    closedir(folder);
}

static host look(bool descriptors) {
    host h = {0};
    char text[4096], hex[32];
    for (char **one = environ; *one; one++)
        add(&h, "environment", *one);
    if (descriptors)
        add_descriptors(&h);
    for (int s = 1; s < 65; s++) {
        struct sigaction action;
        if (sigaction(s, NULL, &action))
            continue;
        snprintf(text, sizeof text, "%d: %p flags %x", s, (void *)(uintptr_t)action.sa_handler,
                 (unsigned)action.sa_flags);
        add(&h, "signal", text);
    }
    sigset_t mask;
    assert_int_equal(pthread_sigmask(SIG_SETMASK, NULL, &mask), 0);
    for (int s = 1; s < 65; s++)
        if (sigismember(&mask, s) == 1)
            snprintf(text, sizeof text, "%d", s), add(&h, "blocked signal", text);
    cpu_set_t cores;
    assert_int_equal(sched_getaffinity(0, sizeof cores, &cores), 0);
    for (int c = 0; c < CPU_SETSIZE; c++)
        if (CPU_ISSET(c, &cores))
            snprintf(text, sizeof text, "%d", c), add(&h, "core", text);
    assert_non_null(getcwd(text, sizeof text));
    add(&h, "folder", text);
    add(&h, "locale", setlocale(LC_ALL, NULL));
    const mode_t mode = umask(0);
    umask(mode);
    snprintf(hex, sizeof hex, "%o", (unsigned)mode);
    add(&h, "umask", hex);
    snprintf(hex, sizeof hex, "%d %d", getpriority(PRIO_PROCESS, 0), sched_getscheduler(0));
    add(&h, "priority", hex);
#if defined __x86_64__
    snprintf(hex, sizeof hex, "%x", __builtin_ia32_stmxcsr() & ~0x3fu); /* but for what was raised */
    add(&h, "floating-point mode", hex);
#endif
    qsort(h.lines, h.n, sizeof *h.lines, compare);
    return h;
}

static bool is_known(const char *line, const char *const *known) {
    for (size_t i = 0; known[i]; i++)
        if (strstr(line, known[i]))
            return true;
    return false;
}

/* Both are sorted: lines of one that the other has not. */
static void same(host before, host after, const char *const *known, const char *when) {
    size_t i = 0, k = 0, others = 0;
    while (i < before.n || k < after.n) {
        const int order = i == before.n ? 1 : k == after.n ? -1 : strcmp(before.lines[i], after.lines[k]);
        const char *line = order < 0 ? before.lines[i] : k < after.n ? after.lines[k] : "";
        if (order && !is_known(line, known))
            print_error("%s: %s %s\n", when, order < 0 ? "gone:" : "new:", line), others++;
        i += order <= 0, k += order >= 0;
    }
    for (size_t n = 0; n < before.n; n++)
        free(before.lines[n]);
    for (size_t n = 0; n < after.n; n++)
        free(after.lines[n]);
    assert_int_equal(others, 0);
}

/* Opens a model and devices, generates, looks, closes, looks again. */
static void use(const char *devices, const char *const *known) {
    /* the sanitizers have handlers and descriptors of their own */
    const host before = look(!SANITIZED), again = look(false);
    ht_error error = {0};
    ht_model *model = NULL;
    ht_engine *engine = NULL;
    ht_session *session = NULL;
    const int32_t ids[] = {1, 2, 3, 4, 5};
    const ht_engine_options options = HT_INIT(ht_engine_options, .devices = devices);
    const float *logits;
    check(ht_model_open("shape:tiny", &model, &error), &error);
    check(ht_engine_create(model, &options, &engine, &error), &error);
    check(ht_session_create(engine, &session, &error), &error);
    check(ht_session_prefill(session, ids, HT_COUNT(ids), &logits, NULL, &error), &error);
    same(again, look(false), known, "during use");
    ht_session_destroy(session);
    ht_engine_destroy(engine);
    ht_model_close(model);
    same(before, look(!SANITIZED), known, "after use");
}

static void test_cpu(void **state) {
    use("cpu", nothing);
    use("cpu:cpus=0", nothing);
}

/* A second use finds what the first left: nothing more may gather. */
static void test_drivers(void **state) {
    static const struct {
        const char *devices;
        const char *const *known;
    } rows[] = {{"openvino:CPU", nothing},
                {"ort:cpu", of_ort},
                {"opencl:0", of_pocl},
                {"opencl:0:cpus=0,openvino:CPU:cpus=1", of_pocl}};
    for (size_t i = 0; i < HT_COUNT(rows) && !is_unit() && !SANITIZED; i++)
        for (int turn = 0; turn < 2; turn++) {
            print_message("%s\n", rows[i].devices);
            use(rows[i].devices, rows[i].known);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cpu), cmocka_unit_test(test_drivers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
