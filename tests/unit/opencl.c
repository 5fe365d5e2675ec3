/* OpenCL devices where things go wrong, and their cache of programs: no loader, no platform, a build that fails, calls
 * that fail at every possible place, a device that dies or hangs, one that takes small buffers only.
 *
 * Failures are put into the table of functions that devices call through. That operators compute the right numbers is
 * what tests/ops shows. */
#define _GNU_SOURCE /* sched_getaffinity */
#include "device/opencl/kernel.h"
#include "device/opencl/tiles.h"
#include "unit/test.h"

#if HT_HAVE_OPENCL
#include "unit/opencl_calls.h"

#include <fcntl.h>
#include <math.h>
#include <sched.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>

extern char **environ;

/* ---- programs on disk -------------------------------------------------------------------------------------------------- */

static char *user_cache; /* XDG_CACHE_HOME as it was */

/* A cache folder of our own. The driver may have one by the same variable: it has looked by now. */
static int make_cache(void **state) {
    const char *before = getenv("XDG_CACHE_HOME");
    user_cache = before ? strdup(before) : NULL;
    log_text[0] = '\0';
    ht_log_set(keep_log, NULL, HT_LOG_INFO);
    stop = false;
    return make_folder(state) || setenv("XDG_CACHE_HOME", test_folder, 1);
}

static int remove_cache(void **state) {
    ht_log_set(NULL, NULL, HT_LOG_WARN);
    const int result = user_cache ? setenv("XDG_CACHE_HOME", user_cache, 1) : unsetenv("XDG_CACHE_HOME");
    free(user_cache);
    return result || remove_folder(state);
}

/* Names of the files in the cache folder; how many. */
static int cached(char paths[][512], int max) {
    char folder[256];
    int n = 0;
    snprintf(folder, sizeof folder, "%s/hetero/opencl", test_folder);
    DIR *all = opendir(folder);
    for (struct dirent *entry; all && (entry = readdir(all));)
        if (entry->d_name[0] != '.' && n++ < max)
            snprintf(paths[n - 1], 512, "%s/%s", folder, entry->d_name);
    if (all)
        closedir(all);
    return n;
}

/* Opens a device, takes a kernel, runs it: was the program built (true), or read? */
static bool builds(const char *spec) {
    ht_cl_device *d;
    ht_error error = {0};
    check(open_device(spec, &d, &error), &error);
    cl_kernel kernel, again;
    check(ht_cl_kernel(d, "queue", "raise_flag", "", &kernel, &error), &error);
    check(ht_cl_kernel(d, "queue", "raise_flag", "", &again, &error), &error);
    assert_ptr_equal(kernel, again);
    check(ht_cl_kernel(d, "queue", "keep_busy", "", &again, &error), &error);
    assert_int_equal(d->n_programs, 1);
    cl_mem memory;
    check(ht_cl_buffer(d, 4, CL_MEM_READ_WRITE, "flag", &memory, &error), &error);
    cl_uint value = 12345, got = 0;
    const ht_cl_argument arguments[] = {HT_CL_ARGUMENT(memory), HT_CL_ARGUMENT(value)};
    check(ht_cl_launch(d, NULL, kernel, arguments, 2, &(ht_cl_grid){1, (size_t[]){1}, NULL}, &error), &error);
    assert_int_equal(d->cl->EnqueueReadBuffer(d->queue, memory, CL_TRUE, 0, 4, &got, 0, NULL, NULL), CL_SUCCESS);
    assert_int_equal(got, value);
    d->cl->ReleaseMemObject(memory);
    const bool built = d->n_built > 0;
    assert_int_equal(d->n_built, built);
    assert_int_equal(reports > 0, built); /* only what takes long is reported */
    assert_true(ended);
    close_device(d);
    return built;
}

static void test_cache(void **state) {
    char paths[4][512];
    assert_true(builds("opencl:0"));
    assert_int_equal(cached(paths, 4), 1);
    assert_false(builds("opencl:0"));
    assert_true(builds("opencl:0:define=SOMETHING_ELSE"));
    assert_false(builds("opencl:0:define=SOMETHING_ELSE"));
    assert_false(builds("opencl:0"));
    assert_int_equal(cached(paths, 4), 2);
    struct stat info; /* nobody else's, by its folder */
    *strrchr(paths[0], '/') = '\0';
    assert_int_equal(stat(paths[0], &info), 0);
    assert_int_equal(info.st_mode & 0777, 0700);
    assert_string_equal(log_text, "");
}

/* Another driver, another program. */
static void test_cache_knows_the_device(void **state) {
    ht_cl_device *d;
    ht_error error = {0};
    cl_kernel kernel;
    for (int i = 0; i < 4; i++) {
        check(open_device("opencl:0", &d, &error), &error);
        assert_true(*d->fingerprint);
        if (i % 2)
            d->fingerprint[strlen(d->fingerprint) - 1] ^= 1;
        check(ht_cl_kernel(d, "queue", "raise_flag", "", &kernel, &error), &error);
        assert_int_equal(d->n_built, i < 2);
        close_device(d);
    }
}

static void put_file(const char *path, const void *data, size_t bytes) {
    ht_error error = {0};
    check(ht_file_write(path, data, bytes, &error), &error);
}

/* Files that are not what they should be are noticed, built anew, and put right. */
static void test_cache_damage(void **state) {
    char paths[4][512];
    assert_true(builds("opencl:0"));
    assert_int_equal(cached(paths, 4), 1);
    assert_true(builds("opencl:0:define=SOMETHING_ELSE"));
    assert_int_equal(cached(paths + 1, 3), 2);
    const char *path = paths[0], *foreign = paths[strcmp(paths[0], paths[1]) == 0 ? 2 : 1];
    ht_error error = {0};
    ht_mapping file, other;
    check(ht_mapping_open(path, &file, &error), &error);
    check(ht_mapping_open(foreign, &other, &error), &error);
    char *flipped = malloc(file.bytes), *longer = calloc(1, file.bytes + 1);
    memcpy(flipped, file.data, file.bytes);
    memcpy(longer, file.data, file.bytes);
    flipped[file.bytes / 2] ^= 4;
    const struct {
        const void *data;
        size_t bytes;
        const char *why;
    } rows[] = {
        {file.data, file.bytes - 1, "not whole"},
        {file.data, 60, "not whole"},
        {file.data, 20, "not a program"},
        {"", 0, "empty"},
        {flipped, file.bytes, "damaged"},
        {longer, file.bytes + 1, "not whole"},
        {other.data, other.bytes, "another"},
        {"Dear diary, this file is mine, not yours at all, keep off!", 58, "not a"},
    };
    for (size_t i = 0; i < HT_COUNT(rows); i++) {
        put_file(path, rows[i].data, rows[i].bytes);
        log_text[0] = '\0';
        assert_true(builds("opencl:0"));
        if (!strstr(log_text, rows[i].why) || !strstr(log_text, path) || log_text[0] != '0' + HT_LOG_INFO)
            fail_msg("row %zu: the log says: %s", i, log_text);
        log_text[0] = '\0';
        assert_false(builds("opencl:0"));
        assert_string_equal(log_text, "");
    }
    free(flipped), free(longer);
    ht_mapping_close(&file), ht_mapping_close(&other);
}

/* A driver that does not take its own binary any more, and one that gives none. */
static void test_cache_refused(void **state) {
    char paths[4][512];
    watch_calls(state);
    victim.name = "GetProgramInfo", victim.countdown = 1, victim.for_good = false;
    assert_true(builds("opencl:0"));
    assert_int_equal(cached(paths, 4), 0);
    assert_non_null(strstr(log_text, "not saved"));
    victim.name = NULL, victim.struck = false;
    assert_true(builds("opencl:0"));
    victim.name = "CreateProgramWithBinary", victim.countdown = 1;
    assert_true(builds("opencl:0"));
    victim.name = "BuildProgram", victim.countdown = 1, victim.struck = false;
    assert_true(builds("opencl:0"));
    assert_non_null(strstr(log_text, "rebuilt"));
    assert_int_equal(cached(paths, 4), 1);
    assert_false(builds("opencl:0"));
    assert_int_equal(alive, 0);
    restore_calls(state);
}

/* Nowhere to keep anything: a file where the folder should be stops root, too. */
static void test_cache_without_folder(void **state) {
    char *path = temporary_path("hetero");
    put_file(path, "x", 1);
    assert_true(builds("opencl:0"));
    assert_true(builds("opencl:0"));
    assert_int_equal(log_text[0], '0' + HT_LOG_INFO);
    assert_null(strstr(log_text + 1, "\n0 "));
    assert_non_null(strstr(log_text, path));
    free(path);
}

static void test_progress_can_cancel(void **state) {
    ht_cl_device *d;
    ht_error error = {0};
    cl_kernel kernel;
    check(open_device("opencl:0", &d, &error), &error);
    stop = true;
    fails(ht_cl_kernel(d, "queue", "raise_flag", "", &kernel, &error), HT_ERROR_CANCELLED, &error, "opencl:0");
    stop = false;
    check(ht_cl_kernel(d, "queue", "raise_flag", "", &kernel, &error), &error);
    close_device(d);
}

static void test_build_failure(void **state) {
    ht_cl_device *d;
    ht_error error = {0};
    cl_kernel kernel;
    char paths[4][512];
    check(open_device("opencl:0:define=__kernel=planted", &d, &error), &error);
    fails(ht_cl_kernel(d, "queue", "raise_flag", "-DEXTRA=7", &kernel, &error), HT_ERROR_DEVICE, &error, "raise_flag");
    const char *const told[] = {"opencl:0",  "queue.cl",   "planted",
                                "-DEXTRA=7", "raise_flag", "CL_BUILD_PROGRAM_FAILURE"};
    for (size_t i = 0; i < HT_COUNT(told); i++)
        if (!strstr(error.text, told[i]) || (i < 4 && !strstr(log_text, told[i])))
            fail_msg("%s is not in \"%s\" and \"%s\"", told[i], error.text, log_text);
    assert_non_null(strstr(log_text, d->caps.description));
    assert_int_equal(log_text[0], '0' + HT_LOG_ERROR);
    assert_true(ended);
    assert_int_equal(cached(paths, 4), 0);
    assert_int_equal(d->n_programs, 0);
    close_device(d);
    /* and from a model's side: the operator cannot be prepared */
    scene s;
    fails(set_up(&s, "opencl:0:define=__kernel=planted", &error), HT_ERROR_DEVICE, &error, "does not build");
    tear_down(&s);
}

static void test_kernel_names(void **state) {
    ht_cl_device *d;
    ht_error error = {0};
    cl_kernel kernel;
    char overlong[1024];
    memset(overlong, ' ', sizeof overlong);
    overlong[sizeof overlong - 1] = '\0';
    check(open_device("opencl:0", &d, &error), &error);
    fails(ht_cl_kernel(d, "no_such", "x", "", &kernel, &error), HT_ERROR_DEVICE, &error, "no_such.cl");
    fails(ht_cl_kernel(d, "queue", "no_such", "", &kernel, &error), HT_ERROR_DEVICE, &error, "no_such");
    fails(ht_cl_kernel(d, "queue", "raise_flag", overlong, &kernel, &error), HT_ERROR_DEVICE, &error, "raise_flag");
    close_device(d);
}

/* ---- the search for tiles ------------------------------------------------------------------------------------------------ */

/* What a search found is used by devices opened later; a file that is damaged or has strange kernels is not. */
static void test_tune(void **state) {
    ht_error error = {0};
    scene s;
    ht_tuned found;
    check(set_up(&s, "opencl:0:variant=simt", &error), &error);
    const ht_cl_form form = s.task->segments[0].weights.form;
    assert_null(ht_cl_tuned(s.d, &form, ROWS, COLS, TOKENS));
    check(s.d->base.ops->tune(&s.d->base, &s.task, 1, TOKENS, &found, &error), &error);
    assert_true(found.tried > 2 && found.seconds > 0 && found.by_rule >= found.seconds);
    assert_non_null(strstr(found.path, test_folder));
    tear_down(&s);

    ht_cl_device *d;
    check(open_device("opencl:0:variant=simt", &d, &error), &error);
    const ht_cl_matmul_row *row = ht_cl_tuned(d, &form, ROWS, COLS, TOKENS);
    assert_non_null(row);
    assert_non_null(strstr(found.kernel, row->options));
    assert_ptr_equal(ht_cl_tuned(d, &form, ROWS, COLS, TOKENS + 1), row); /* near enough */
    assert_null(ht_cl_tuned(d, &form, ROWS, COLS, 100 * TOKENS));         /* too far */
    assert_null(ht_cl_tuned(d, &form, ROWS + 16, COLS, TOKENS));          /* another shape */
    close_device(d);
    check(play("opencl:0:variant=simt", HT_SYNC_AUTO, &error), &error);
    check(open_device("opencl:0:variant=vector", &d, &error), &error); /* other kernels: a file of its own */
    assert_null(ht_cl_tuned(d, &form, ROWS, COLS, TOKENS));
    close_device(d);

    static const char *const damaged[] = {"", "{", "[]", "{\"device\": \"another\", \"tiles\": []}",
                                          "{\"tiles\": [{\"form\": 3}]}"};
    for (size_t i = 0; i < HT_COUNT(damaged); i++) {
        check(ht_file_write(found.path, damaged[i], strlen(damaged[i]), &error), &error);
        check(open_device("opencl:0:variant=simt", &d, &error), &error);
        assert_null(d->tiles);
        close_device(d);
    }
}

/* ---- other processes --------------------------------------------------------------------------------------------------- */

/* Starts this program again to do `what` (main); its process. */
static pid_t start(const char *what) {
    pid_t child;
    char *const arguments[] = {(char[]){"test_opencl"}, (char *)(uintptr_t)what, NULL};
    assert_int_equal(posix_spawn(&child, "/proc/self/exe", NULL, NULL, arguments, environ), 0);
    return child;
}

static int result_of(pid_t child) {
    int result;
    assert_int_equal(waitpid(child, &result, 0), child);
    return WIFEXITED(result) ? WEXITSTATUS(result) : 128 + WTERMSIG(result);
}

/* Several processes build the same program at the same time; what is left is whole. */
static void test_cache_shared(void **state) {
    pid_t children[4];
    char paths[4][512];
    for (size_t i = 0; i < HT_COUNT(children); i++)
        children[i] = start("--build");
    for (size_t i = 0; i < HT_COUNT(children); i++)
        assert_int_equal(result_of(children[i]), 0);
    assert_int_equal(cached(paths, 4), 1);
    assert_false(builds("opencl:0"));
    assert_string_equal(log_text, "");
}

/* Neither lists a usable device nor opens one, and says why. */
static int finds_none(const char *why) {
    setenv("TBB_ENABLE_SANITIZERS", "1", 0); /* or OpenVINO's TBB, listed beside, ends a build with AddressSanitizer */
    ht_error error = {0};
    ht_device_info *list = NULL;
    size_t n = 0;
    ht_cl_device *d;
    int rows = 0;
    if (ht_devices_list(&list, &n, &error))
        return 2;
    for (size_t i = 0; i < n; i++)
        if (strncmp(list[i].name, "opencl", 6) == 0)
            rows += list[i].usable || !strstr(list[i].why, why) ? 100 : 1;
    ht_free(list);
    if (rows != 1)
        return 3;
    const bool said = open_device("opencl:0", &d, &error) == HT_ERROR_DEVICE && strstr(error.text, why);
    if (!said)
        fprintf(stderr, "%s\n", error.text);
    return said ? 0 : 4;
}

static void test_no_platform(void **state) {
    const char *before = getenv("OCL_ICD_VENDORS");
    char *kept = before ? strdup(before) : NULL;
    setenv("OCL_ICD_VENDORS", "/nonexistent", 1); /* loaders read it once, so another process must */
    const int result = result_of(start("--no-platform"));
    if (kept)
        setenv("OCL_ICD_VENDORS", kept, 1);
    else
        unsetenv("OCL_ICD_VENDORS");
    free(kept);
    assert_int_equal(result, 0);
}

static void test_no_loader(void **state) {
    const char *why;
    ht_cl_set_library("libhetero-no-such-loader.so.1");
    const int result = finds_none("libhetero-no-such-loader.so.1");
    ht_cl_set_library("libm.so.6"); /* a library, but not this one */
    const int other = finds_none("clGetPlatformIDs");
    ht_cl_set_library(NULL);
    assert_non_null(ht_cl_load(&why));
    assert_int_equal(result, 0);
    assert_int_equal(other, 0);
}

/* ---- calls that fail --------------------------------------------------------------------------------------------------- */

static void test_play(void **state) {
    ht_error error = {0};
    for (size_t s = 0; s < HT_COUNT(specs); s++)
        for (size_t i = 0; i < HT_COUNT(syncs); i++) {
            check(play(specs[s], syncs[i], &error), &error);
            assert_int_equal(alive, 0);
        }
}

/* The n-th call of each function fails, for every n, alone or with all calls after it: an error that names the device, or
 * right numbers by another way; nothing is left behind. */
static void test_every_call_fails(void **state) {
    static const char *const names[] = {
#define NAME(name) #name,
        CAN_FAIL(NAME)
#undef NAME
    };
    long struck = 0;
    for (size_t i = 0; i < HT_COUNT(names) * HT_COUNT(syncs) * 4; i++) {
        if (i % (4 * HT_COUNT(syncs)) > 1 && getenv("HETERO_QUICK"))
            continue; /* one way to wait, one kind of memory */
        const ht_sync sync = syncs[i / 4 % HT_COUNT(syncs)];
        const char *name = names[i / 4 / HT_COUNT(syncs)];
        const char *spec = i & 2 ? "opencl:0:timeout=0.5" : "opencl:0:timeout=0.5:memory=copied";
        bool reached = true;
        for (long n = 1; n < 40 && reached; n++) { /* polling asks as often as it likes */
            ht_error error = {0};
            watch_calls(state);
            victim.name = name, victim.countdown = n, victim.for_good = i & 1;
            victim.spares = sync != syncs[0]; /* nothing is waited for before: the same for all of them */
            ht_status status = play(spec, sync, &error);
            reached = victim.struck;
            victim.name = NULL, victim.struck = false;
            if (status && !reached) /* nothing failed: half a second was too short for a busy machine */
                status = play("opencl:0:timeout=60", sync, &error);
            if (status && (!reached || status != HT_ERROR_DEVICE || !strstr(error.text, "opencl:0")))
                fail_msg("%s, call %ld, %s: %s: %s", name, n, ht_sync_name(sync), ht_status_name(status), error.text);
            if (alive)
                fail_msg("%s, call %ld, %s: %ld objects are left", name, n, ht_sync_name(sync), alive);
            struck += reached;
        }
    }
    assert_true(struck > 100);
}

static void test_failing_submit_is_named(void **state) {
    ht_error error = {0};
    scene s;
    ht_ticket ticket;
    check(set_up(&s, "opencl:0", &error), &error);
    victim.name = "EnqueueNDRangeKernel", victim.countdown = 1, victim.for_good = false;
    fails(submit(&s, HT_SYNC_EVENT, &ticket, &error), HT_ERROR_DEVICE, &error, "blk.0.test");
    assert_non_null(strstr(error.text, "CL_OUT_OF_RESOURCES"));
    tear_down(&s);
    victim.struck = false, victim.name = "CreateBuffer", victim.countdown = 3;
    fails(set_up(&s, "opencl:0", &error), HT_ERROR_DEVICE, &error, "CL_MEM_OBJECT_ALLOCATION_FAILURE");
    tear_down(&s);
    assert_int_equal(alive, 0);
}

static cl_int event_state; /* what every event seems to be in */
static cl_int CL_API_CALL frozen_GetEventInfo(cl_event e, cl_event_info i, size_t n, void *v, size_t *s) {
    assert_int_equal(i, CL_EVENT_COMMAND_EXECUTION_STATUS);
    *(cl_int *)v = event_state;
    return CL_SUCCESS;
}
static void(CL_CALLBACK *late_call)(cl_event, cl_int, void *); /* one that a driver which hangs still owes us */
static void *late_user;
static cl_int CL_API_CALL frozen_SetEventCallback(cl_event e, cl_int t, void(CL_CALLBACK *f)(cl_event, cl_int, void *),
                                                  void *u) {
    if (event_state <= CL_COMPLETE)
        f(e, event_state, u);
    else
        late_call = f, late_user = u;
    return CL_SUCCESS;
}

/* A kernel that ends with an error: this wait and every later one says so, and so does a submit. */
static void test_failing_event(void **state) {
    for (size_t i = 0; i < HT_COUNT(syncs); i++) {
        ht_error error = {0};
        scene s;
        ht_ticket ticket;
        watch_calls(state);
        check(set_up(&s, "opencl:0", &error), &error);
        table->GetEventInfo = frozen_GetEventInfo;
        table->SetEventCallback = frozen_SetEventCallback;
        event_state = CL_OUT_OF_RESOURCES;
        check(submit(&s, syncs[i], &ticket, &error), &error);
        fails(s.d->base.ops->wait(&s.d->base, ticket, syncs[i], &error), HT_ERROR_DEVICE, &error,
              "CL_OUT_OF_RESOURCES");
        assert_true(s.d->base.ops->completed(&s.d->base) >= ticket);
        table->GetEventInfo = test_GetEventInfo;
        fails(s.d->base.ops->wait(&s.d->base, ticket, syncs[i], &error), HT_ERROR_DEVICE, &error, "opencl:0");
        fails(submit(&s, syncs[i], &ticket, &error), HT_ERROR_DEVICE, &error, "opencl:0");
        tear_down(&s);
        assert_int_equal(alive, 0);
    }
}

/* A device that hangs: waits give up. (clFinish cannot be left, so FINISH is not among them; a flag is raised by the
 * kernel itself here, so FLAG does not hang either.) */
static void test_hanging_event(void **state) {
    static const ht_sync some[] = {HT_SYNC_AUTO, HT_SYNC_EVENT, HT_SYNC_CALLBACK};
    for (size_t i = 0; i < HT_COUNT(some); i++) {
        ht_error error = {0};
        scene s;
        ht_ticket ticket;
        watch_calls(state);
        check(set_up(&s, "opencl:0:timeout=0.3", &error), &error);
        table->GetEventInfo = frozen_GetEventInfo;
        table->SetEventCallback = frozen_SetEventCallback;
        event_state = CL_SUBMITTED;
        const double before = ht_seconds();
        check(submit(&s, some[i], &ticket, &error), &error);
        fails(s.d->base.ops->wait(&s.d->base, ticket, some[i], &error), HT_ERROR_DEVICE, &error, "opencl:0");
        assert_true(ht_seconds() - before < 30); /* it ends; 0.3 s on a quiet machine */
        fails(submit(&s, some[i], &ticket, &error), HT_ERROR_DEVICE, &error, "opencl:0");
        tear_down(&s);
        assert_true(ht_seconds() - before < 30);
        if (late_call) /* after the device has gone */
            late_call(NULL, CL_COMPLETE, late_user);
        late_call = NULL;
    }
}

/* ---- limits and memory ------------------------------------------------------------------------------------------------- */

static cl_ulong largest;
static cl_int CL_API_CALL small_GetDeviceInfo(cl_device_id d, cl_device_info i, size_t n, void *v, size_t *s) {
    if (i != CL_DEVICE_MAX_MEM_ALLOC_SIZE)
        return real.GetDeviceInfo(d, i, n, v, s);
    memcpy(v, &largest, sizeof largest);
    return CL_SUCCESS;
}
static cl_mem CL_API_CALL small_CreateBuffer(cl_context c, cl_mem_flags f, size_t n, void *h, cl_int *code) {
    if (n > largest) {
        *code = CL_INVALID_BUFFER_SIZE;
        return NULL;
    }
    return test_CreateBuffer(c, f, n, h, code);
}

/* Matrices are cut where they do not fit into one buffer, and parts of them meet several; what cannot be cut is refused with
 * both sizes. */
static void test_small_buffers(void **state) {
    ht_error error = {0};
    scene s;
    table->GetDeviceInfo = small_GetDeviceInfo;
    table->CreateBuffer = small_CreateBuffer;
    largest = 20000; /* the matrix is 76800 bytes */
    for (size_t i = 0; i < HT_COUNT(specs); i++) {
        check(set_up(&s, specs[i], &error), &error);
        assert_true(s.task->n_segments >= 4);
        const uint64_t made = ht_alloc_count() + s.d->n_built + s.d->dropped;
        ht_ticket ticket = 0;
        memset(y, 0xff, PAGES);
        for (size_t row = 0; row < ROWS; row += 112) {
            const ht_slice part = {.row_begin = row, .row_end = ht_min_size(row + 112, ROWS)};
            const ht_binding binding = {.slots = s.slots, .tokens = TOKENS, .part = &part};
            check(s.d->base.ops->submit(&s.d->base, s.task, &binding, NULL, 0, &ticket, &error), &error);
        }
        check(s.d->base.ops->wait(&s.d->base, ticket, HT_SYNC_EVENT, &error), &error);
        check_numbers();
        assert_int_equal(ht_alloc_count() + s.d->n_built + s.d->dropped, made);
        tear_down(&s);
        check(play(specs[i], HT_SYNC_EVENT, &error), &error);
    }
    largest = 6000; /* slots no longer fit */
    fails(set_up(&s, "opencl:0", &error), HT_ERROR_DEVICE, &error, "6000");
    char size[32];
    snprintf(size, sizeof size, "%zu", REGION);
    assert_non_null(strstr(error.text, size));
    tear_down(&s);
    assert_int_equal(alive, 0);
}

/* Where memory is unified the device reads and writes the host's own pages. */
static void test_zero_copy(void **state) {
    ht_error error = {0};
    scene s;
    check(set_up(&s, "opencl:0", &error), &error);
    if (s.d->caps.unified_memory) {
        assert_int_equal(s.d->n_regions, 2);
        for (size_t i = 0; i < s.d->n_regions; i++) {
            const ht_cl_region *r = &s.d->regions[i];
            cl_int code;
            assert_false(r->mirrored);
            void *mapped = s.d->cl->EnqueueMapBuffer(s.d->queue, r->memory, CL_TRUE, CL_MAP_READ, 0, r->bytes, 0, NULL,
                                                     NULL, &code);
            assert_int_equal(code, CL_SUCCESS);
            assert_ptr_equal(mapped, r->host);
            s.d->cl->EnqueueUnmapMemObject(s.d->queue, r->memory, mapped, 0, NULL, NULL);
        }
    }
    tear_down(&s);
}

/* cpus=1: the thread that computes may run on core 1 alone, and threads that have nothing to do are on no other core. */
static void test_cores(void **state) {
    ht_error error = {0};
    scene s;
    ht_ticket ticket;
    if (sysconf(_SC_NPROCESSORS_ONLN) < 2) {
        print_message("skipped: one core\n");
        return;
    }
    if (set_up(&s, "opencl:0:cpus=1", &error) == HT_ERROR_ARGUMENT) {
        print_message("skipped: %s\n", error.text); /* a real GPU */
        tear_down(&s);
        return;
    }
    assert_non_null(s.task);
    assert_int_equal(s.d->caps.cores.words[0], 2);
    assert_int_equal(s.d->units, 1);
    check(submit(&s, HT_SYNC_FINISH, &ticket, &error), &error);
    check(s.d->base.ops->wait(&s.d->base, ticket, HT_SYNC_FINISH, &error), &error);
    DIR *all = opendir("/proc/self/task");
    int computing = 0, elsewhere = 0;
    for (struct dirent *entry; all && (entry = readdir(all));) {
        cpu_set_t set;
        const int thread = atoi(entry->d_name);
        if (thread == 0 || sched_getaffinity(thread, sizeof set, &set) || CPU_COUNT(&set) != 1)
            continue;
        computing += CPU_ISSET(1, &set) && sched_getscheduler(thread) == SCHED_OTHER;
        elsewhere += !CPU_ISSET(1, &set);
    }
    closedir(all);
    assert_int_equal(computing, 1);
    assert_int_equal(elsewhere, 0);
    tear_down(&s);
}

/* ---- a session --------------------------------------------------------------------------------------------------------- */

/* The device dies in the middle of a prefill, or of decoding: the session says so, then and later, and can be closed. */
static void test_session(void **state) {
    ht_error error = {0};
    ht_model *model;
    int32_t ids[40];
    for (int i = 0; i < 40; i++)
        ids[i] = (i * 37 + 11) % 512;
    check(ht_model_open("shape:tiny", &model, &error), &error);
    for (long n = 1; n < 120; n += 17) {
        ht_engine *engine;
        ht_session *session;
        const float *logits;
        watch_calls(state);
        check(
            ht_engine_create(model, &HT_INIT(ht_engine_options, .devices = "opencl:0", .context = 64), &engine, &error),
            &error);
        check(ht_session_create(engine, &session, &error), &error);
        victim.name = "EnqueueNDRangeKernel", victim.countdown = n, victim.for_good = true;
        ht_status status = ht_session_prefill(session, ids, 20, &logits, NULL, &error);
        for (int i = 20; i < 40 && !status; i++)
            status = ht_session_decode(session, ids[i], &logits, &error);
        fails(status, HT_ERROR_DEVICE, &error, "opencl:0");
        fails(ht_session_prefill(session, ids, 10, &logits, NULL, &error), HT_ERROR_DEVICE, &error, "opencl:0");
        ht_session_destroy(session);
        ht_engine_destroy(engine);
        assert_int_equal(alive, 0);
    }
    ht_model_close(model);
}

/* A device with memory of its own takes the session's keys and values along when it fails: those behind it go on from what
 * they have computed again, not from empty rows. */
static void test_keys_and_values_that_went_along(void **state) {
    enum { FIRST_IDS = 20, ALL_IDS = 40 };
    const char *const devices[] = {"cpu:cpus=0", "opencl:0:memory=copied,cpu:cpus=0"};
    ht_error error;
    ht_model *model;
    int32_t ids[ALL_IDS];
    static float expected[ALL_IDS][512];
    size_t failures = 0;
    for (int i = 0; i < ALL_IDS; i++)
        ids[i] = (i * 37 + 11) % 512;
    check(ht_model_open("shape:tiny", &model, &error), &error);
    for (long n = 0; n < 1000; n = n ? n + 190 : 60) { /* launches before the device fails; 0: the reference */
        const ht_engine_options options =
            HT_INIT(ht_engine_options, .devices = devices[n > 0], .strategy = HT_STRATEGY_SINGLE, .context = 64,
                    .precision = HT_PRECISION_EXACT, .kv_type = HT_KV_F32);
        ht_engine *engine;
        ht_session *session;
        const float *logits;
        watch_calls(state);
        check(ht_engine_create(model, &options, &engine, &error), &error);
        check(ht_session_create(engine, &session, &error), &error);
        if (n)
            victim.name = "EnqueueNDRangeKernel", victim.countdown = n, victim.for_good = true;
        for (int i = FIRST_IDS; i <= ALL_IDS; i++) {
            check(i == FIRST_IDS ? ht_session_prefill(session, ids, FIRST_IDS, &logits, NULL, &error)
                                 : ht_session_decode(session, ids[i - 1], &logits, &error),
                  &error);
            for (size_t k = 0; k < 512 && n; k++)
                assert_true(fabsf(logits[k] - expected[i - 1][k]) < 1e-4f * (1 + fabsf(expected[i - 1][k])));
            if (!n)
                memcpy(expected[i - 1], logits, sizeof expected[0]);
        }
        failures += n && victim.struck;
        ht_session_destroy(session);
        ht_engine_destroy(engine);
    }
    assert_true(failures > 2);
    ht_model_close(model);
}

#define CACHED(test) cmocka_unit_test_setup_teardown(test, make_cache, remove_cache)
#define WATCHED(test) cmocka_unit_test_setup_teardown(test, watch_calls, restore_calls)

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "--no-platform") == 0)
        return finds_none("OpenCL");
    if (argc > 1 && strcmp(argv[1], "--build") == 0) {
        builds("opencl:0");
        return 0;
    }
    ht_cl_device *d;
    ht_error error = {0};
    const char *why;
    if (open_device("opencl:0", &d, &error)) {
        return must_have("opencl", error.text) ? 1 : 77;
    }
    close_device(d);
    ht_cl_load(&why);
    table = ht_cl_functions_for_tests();
    real = *table;
    make_numbers();
    const struct CMUnitTest tests[] = {
        CACHED(test_cache),
        CACHED(test_cache_knows_the_device),
        CACHED(test_cache_damage),
        CACHED(test_cache_refused),
        CACHED(test_cache_without_folder),
        CACHED(test_cache_shared),
        CACHED(test_progress_can_cancel),
        CACHED(test_build_failure),
        CACHED(test_kernel_names),
        CACHED(test_tune),
        cmocka_unit_test(test_no_platform),
        cmocka_unit_test(test_no_loader),
        WATCHED(test_play),
        WATCHED(test_every_call_fails),
        WATCHED(test_failing_submit_is_named),
        WATCHED(test_failing_event),
        WATCHED(test_hanging_event),
        WATCHED(test_small_buffers),
        WATCHED(test_zero_copy),
        WATCHED(test_cores),
        WATCHED(test_session),
        WATCHED(test_keys_and_values_that_went_along),
    };
    const int result = cmocka_run_group_tests(tests, NULL, NULL);
    ht_pages_free(x, PAGES);
    ht_pages_free(y, PAGES);
    return result;
}

#else
int main(void) {
    return must_have("opencl", "built without OpenCL headers") ? 1 : 77;
}
#endif
