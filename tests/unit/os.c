/* base/os.h and what is built on it: files that are written whole, names by patterns, sets of cores, quotas, children. */
#include "unit/test.h"

#include "base/os.h"
#include "device/common.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* ---- files that are written whole ---- */

static void put(const char *path, const char *text) {
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void holds(const char *path, const char *expected) {
    char text[64] = "";
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    const size_t n = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    assert_int_equal(n, strlen(expected));
    assert_string_equal(text, expected);
}

static mode_t mode_of(const char *path) {
    struct stat info;
    assert_int_equal(lstat(path, &info), 0);
    return info.st_mode;
}

static void write_it(const char *path, const char *text) {
    ht_error error = {0};
    check(ht_file_write(path, text, strlen(text), &error), &error);
}

static void test_permissions(void **state) {
    char *path = temporary_path("new"), *kept = temporary_path("kept");
    const mode_t before = umask(0027);
    write_it(path, "x");
    umask(before);
    assert_int_equal(mode_of(path) & 0777, 0640);
    put(kept, "old");
    assert_int_equal(chmod(kept, 0604), 0);
    write_it(kept, "new");
    holds(kept, "new");
    assert_int_equal(mode_of(kept) & 0777, 0604);
    free(path), free(kept);
}

/* A link stays one: what it leads to is written, be it there or not. */
static void test_links(void **state) {
    char *target = temporary_path("target"), *link = temporary_path("link"), *chain = temporary_path("chain");
    char *far = temporary_path("folder/far"), *dangling = temporary_path("dangling"),
         *folder = temporary_path("folder");
    char *loop = temporary_path("loop");
    ht_error error = {0};
    assert_int_equal(mkdir(folder, 0700), 0);
    put(target, "old");
    assert_int_equal(symlink("target", link), 0);
    assert_int_equal(symlink(link, chain), 0);
    assert_int_equal(symlink("folder/far", dangling), 0);
    assert_int_equal(symlink("loop", loop), 0);
    write_it(chain, "one");
    holds(target, "one");
    write_it(dangling, "two");
    holds(far, "two");
    assert_true(S_ISLNK(mode_of(link)) && S_ISLNK(mode_of(chain)) && S_ISLNK(mode_of(dangling)));
    fails(ht_file_write(loop, "x", 1, &error), HT_ERROR_IO, &error, loop);
    assert_int_equal(count_files(), 6);
    free(target), free(link), free(chain), free(far), free(dangling), free(folder), free(loop);
}

/* What is no regular file is refused, and is what it was. */
static void test_no_regular_files(void **state) {
    char *pipe = temporary_path("pipe"), *folder = temporary_path("folder"), *null = temporary_path("null");
    const char *const paths[] = {pipe, folder, null, "/dev/null", "/dev/full"};
    ht_error error = {0};
    assert_int_equal(mkfifo(pipe, 0600), 0);
    assert_int_equal(mkdir(folder, 0700), 0);
    assert_int_equal(symlink("/dev/null", null), 0);
    for (size_t i = 0; i < HT_COUNT(paths); i++) {
        fails(ht_file_write(paths[i], "x", 1, &error), HT_ERROR_ARGUMENT, &error, paths[i]);
        fails(ht_output_check(paths[i], &error), HT_ERROR_ARGUMENT, &error, paths[i]);
    }
    assert_true(S_ISFIFO(mode_of(pipe)) && S_ISDIR(mode_of(folder)) && S_ISLNK(mode_of(null)));
    assert_true(S_ISCHR(mode_of("/dev/null")) && S_ISCHR(mode_of("/dev/full")));
    assert_int_equal(count_files(), 3);
    free(pipe), free(folder), free(null);
}

/* A disk that is full, or a limit that is reached: what was there stays. */
static void test_full_disk(void **state) {
    char *path = temporary_path("plan.json");
    static const char much[100000] = "x";
    ht_error error = {0};
    struct rlimit before, small;
    put(path, "the older plan");
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    signal(SIGXFSZ, SIG_IGN);
    small = before;
    small.rlim_cur = 1000;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    const ht_status status = ht_file_write(path, much, sizeof much, &error);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    fails(status, HT_ERROR_IO, &error, path);
    holds(path, "the older plan");
    assert_int_equal(count_files(), 1);
    free(path);
}

/* Two that write one file at a time, beside files that the user has there. */
static void test_others_files(void **state) {
    char *path = temporary_path("out"), *users = temporary_path("out.tmp");
    ht_output *a, *b;
    ht_error error = {0};
    put(users, "the user's");
    check(ht_output_open(path, &a, &error), &error);
    check(ht_output_open(path, &b, &error), &error);
    fputs("aaaa", ht_output_file(a));
    fputs("bb", ht_output_file(b));
    check(ht_output_finish(b, &error), &error);
    holds(path, "bb");
    check(ht_output_finish(a, &error), &error);
    holds(path, "aaaa");
    holds(users, "the user's");
    assert_int_equal(count_files(), 2);
    free(path), free(users);
}

/* A child that a signal ends, with the handlers that `hetero` has. */
static void test_signals(void **state) {
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    char *path = temporary_path("out");
    put(path, "older");
    for (size_t i = 0; i < HT_COUNT(numbers); i++) {
        int ready[2], status;
        char byte;
        assert_int_equal(pipe(ready), 0);
        const pid_t child = fork();
        if (child == 0) {
            ht_output *output;
            signal(numbers[i], SIG_DFL);
            ht_os_program_on_end(ht_outputs_remove);
            if (ht_output_open(path, &output, NULL))
                _exit(1);
            fputs("half", ht_output_file(output));
            fflush(ht_output_file(output));
            _exit(write(ready[1], "x", 1) == 1 ? pause() : 1);
        }
        assert_int_equal(read(ready[0], &byte, 1), 1);
        assert_int_equal(count_files(), 2);
        kill(child, numbers[i]);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == numbers[i]);
        assert_int_equal(count_files(), 1);
        holds(path, "older");
        close(ready[0]), close(ready[1]);
    }
    free(path);
}

static volatile sig_atomic_t interrupts;
static void on_interrupt(void) {
    interrupts++;
}

/* The first Ctrl-C is the handler's, the next one ends the program; one that was ignored at the start stays ignored. */
static void test_interrupts(void **state) {
    for (int ignored = 0; ignored < 2; ignored++) {
        int status;
        const pid_t child = fork();
        if (child == 0) {
            signal(SIGINT, ignored ? SIG_IGN : SIG_DFL);
            ht_os_program_on_end(ht_outputs_remove);
            ht_os_program_on_interrupt(on_interrupt);
            raise(SIGINT);
            if (interrupts != !ignored || ht_os_program_ignores_interrupts() != (ignored == 1))
                _exit(2);
            raise(SIGINT);
            _exit(0);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(ignored ? WIFEXITED(status) && WEXITSTATUS(status) == 0
                            : WIFSIGNALED(status) && WTERMSIG(status) == SIGINT);
    }
}

/* ---- names by patterns ---- */

static void test_patterns(void **state) {
    static const struct {
        const char *pattern, *name;
        bool matches;
    } rows[] = {{"libx.so*", "libx.so", true},
                {"libx.so*", "libx.so.1.2", true},
                {"libx.so*", "liby.so", false},
                {"*", "", true},
                {"*", ".hidden", false},
                {".*", ".hidden", true},
                {"nvidia[0-9]*", "nvidia0", true},
                {"nvidia[0-9]*", "nvidiactl", false},
                {"python3*", "python3.11", true},
                {"a?c", "abc", true},
                {"a?c", "ac", false},
                {"[!a]b", "cb", true},
                {"[!a]b", "ab", false},
                {"*b*d", "abcd", true},
                {"*b*d", "abc", false},
                {"", "", true},
                {"", "a", false}};
    for (size_t i = 0; i < HT_COUNT(rows); i++)
        if (ht_name_matches(rows[i].pattern, rows[i].name) != rows[i].matches)
            fail_msg("%s and %s", rows[i].pattern, rows[i].name);
}

static void test_paths(void **state) {
    static const char *const folders[] = {"lib", "lib/python3.9", "lib/python3.11", "lib/python2", "lib/[x]"};
    static const char *const files[] = {"lib/python3.9/a.so", "lib/python3.11/b.so", "lib/python2/c.so",
                                        "lib/[x]/d.so"};
    ht_paths found = {0};
    for (size_t i = 0; i < HT_COUNT(folders); i++) {
        char *path = temporary_path(folders[i]);
        assert_int_equal(mkdir(path, 0700), 0);
        free(path);
    }
    for (size_t i = 0; i < HT_COUNT(files); i++) {
        char *path = temporary_path(files[i]);
        put(path, "");
        free(path);
    }
    assert_int_equal(ht_paths_find(test_folder, "lib/python3*/*.so", &found, NULL), HT_OK);
    assert_int_equal(found.n, 2);
    assert_string_equal(found.at[0] + strlen(test_folder), "/lib/python3.11/b.so");
    assert_string_equal(found.at[1] + strlen(test_folder), "/lib/python3.9/a.so");
    ht_paths_free(&found);
    char *odd = temporary_path("lib/[x]"); /* a folder is taken as it is written */
    assert_int_equal(ht_paths_find(odd, "*.so", &found, NULL), HT_OK);
    assert_int_equal(found.n, 1);
    assert_int_equal(ht_paths_find("", "*", &found, NULL), HT_OK); /* never the current one */
    assert_int_equal(found.n, 1);
    ht_paths_free(&found);
    free(odd);
}

/* ---- cores ---- */

static void test_core_sets(void **state) {
    static const struct {
        const char *text, *printed;
        int n;
    } rows[] = {{"0", "0", 1},
                {"0-1,3", "0-1,3", 3},
                {"64-127", "64-127", 64},
                {"5,4,1023", "4-5,1023", 3},
                {"0-1023", "0-1023", 1024}};
    static const char *const bad[] = {
        "", "-1", "0-", "0,", ",0", "a", "0-1-2", "2-1", "1024", "0 1", "99999999999999999999"};
    char text[64];
    ht_cores set = {{7}};
    for (size_t i = 0; i < HT_COUNT(bad); i++)
        assert_false(ht_cores_parse(bad[i], &set));
    assert_int_equal(set.words[0], 7);
    for (size_t i = 0; i < HT_COUNT(rows); i++) {
        assert_true(ht_cores_parse(rows[i].text, &set));
        ht_cores_print(&set, text, sizeof text);
        assert_string_equal(text, rows[i].printed);
        assert_int_equal(ht_cores_count(&set), rows[i].n);
    }
    ht_cores high, low = ht_cores_one(3);
    assert_true(ht_cores_parse("64-127", &high));
    assert_false(ht_cores_meet(&high, &low));
    ht_cores_add(&low, 100);
    assert_true(ht_cores_meet(&high, &low) && !ht_cores_within(&low, &high));
    ht_cores_remove(&low, 3);
    assert_true(ht_cores_within(&low, &high) && ht_cores_next(&low, 0) == 100 && ht_cores_next(&low, 101) == -1);
    assert_true(ht_cores_parse("0,2,4,6,8,10,12,14,16,18,20,22,24,26,28,30,32,34,36", &set));
    ht_cores_print(&set, text, 16);
    assert_string_equal(text, "0,2,4,6,8,10...");
}

/* A set may name cores past 64 as long as the process may use them: of this machine's, what is not there is refused. */
static void test_cpus(void **state) {
    ht_error error = {0};
    ht_cores set = {{0}};
    fails(ht_parse_cpus("cpu", "1000-1023", &set, &error), HT_ERROR_ARGUMENT, &error, "may use");
    assert_true(ht_cores_any(ht_all_cores()));
}

static void write_below(const char *root, const char *path, const char *text) {
    ht_text full = {0};
    assert_int_equal(ht_text_printf(&full, NULL, "%s/%s", root, path), HT_OK);
    assert_int_equal(ht_make_folders(full.data, true, NULL), HT_OK);
    put(full.data, text);
    ht_text_free(&full);
}

static void test_quota(void **state) {
    static const struct {
        const char *files[6][2];
        double quota;
    } rows[] = {
        {{{"proc/self/cgroup", "0::/\n"}}, 0},
        {{{"proc/self/cgroup", "0::/\n"}, {"sys/fs/cgroup/cpu.max", "max 100000\n"}}, 0},
        {{{"proc/self/cgroup", "0::/\n"}, {"sys/fs/cgroup/cpu.max", "150000 100000\n"}}, 1.5},
        {{{"proc/self/cgroup", "0::/a/b\n"},
          {"sys/fs/cgroup/a/cpu.max", "200000 100000\n"},
          {"sys/fs/cgroup/a/b/cpu.max", "max 100000\n"}},
         2}, /* a group above */
        {{{"proc/self/cgroup", "0::/not/there\n"}, {"sys/fs/cgroup/cpu.max", "50000 100000\n"}}, 0.5},
        {{{"proc/self/cgroup", "0::/../../x\n"}, {"sys/fs/cgroup/cpu.max", "50000 100000\n"}}, 0.5},
        {{{"proc/self/cgroup", "12:memory:/m\n4:cpu,cpuacct:/c\n0::/\n"},
          {"sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_quota_us", "300000\n"},
          {"sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_period_us", "100000\n"}},
         3}, /* version 1 */
        {{{"proc/self/cgroup", "4:cpu:/c\n"},
          {"sys/fs/cgroup/cpu/c/cpu.cfs_quota_us", "-1\n"},
          {"sys/fs/cgroup/cpu/c/cpu.cfs_period_us", "100000\n"}},
         0},
        {{{"proc/self/cgroup", "4:cpuset:/c\n"}, {"sys/fs/cgroup/cpu/c/cpu.cfs_quota_us", "100000\n"}}, 0},
    };
    assert_true(ht_os_cpu_quota("/no/such/root") == 0);
    for (size_t i = 0; i < HT_COUNT(rows); i++) {
        char name[16];
        snprintf(name, sizeof name, "root%zu", i);
        char *root = temporary_path(name);
        for (size_t k = 0; k < 6 && rows[i].files[k][0]; k++)
            write_below(root, rows[i].files[k][0], rows[i].files[k][1]);
        const double quota = ht_os_cpu_quota(root);
        if (quota != rows[i].quota)
            fail_msg("tree %zu: %g, not %g", i, quota, rows[i].quota);
        free(root);
    }
}

/* ---- waiting ---- */

static void test_conditions(void **state) {
    pthread_cond_t condition;
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    ht_os_cond_init(&condition);
    pthread_mutex_lock(&mutex);
    const double start = ht_seconds();
    while (ht_os_cond_wait(&condition, &mutex, start + 0.05)) {}
    assert_true(ht_seconds() - start >= 0.05);
    assert_false(ht_os_cond_wait(&condition, &mutex, start)); /* it was before */
    pthread_mutex_unlock(&mutex);
    pthread_cond_destroy(&condition);
}

/* ---- children ---- */

static void test_child(void **state) {
    const char *const command[] = {"/bin/sh", "-c", "printf 'one two'; kill -TERM $$", NULL};
    ht_os_child *child;
    ht_error error = {0};
    char text[64] = "", how[64] = "";
    size_t n = 0;
    check(ht_os_child_start(command, &child, &error), &error);
    for (long got; (got = ht_os_child_read(child, text + n, sizeof text - 1 - n, 5000)) >= 0;)
        n += (size_t)got;
    assert_string_equal(text, "one two");
    while (!ht_os_child_ended(child, how, sizeof how))
        ht_os_nap(1000000);
    assert_non_null(strstr(how, "signal 15"));
    ht_os_child_close(child);
    fails(ht_os_child_start((const char *const[]){"/no/such/program", NULL}, &child, &error), HT_ERROR_IO, &error,
          "/no/such/program");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_permissions, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_links, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_no_regular_files, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_full_disk, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_others_files, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_signals, make_folder, remove_folder),
        cmocka_unit_test(test_interrupts),
        cmocka_unit_test(test_patterns),
        cmocka_unit_test_setup_teardown(test_paths, make_folder, remove_folder),
        cmocka_unit_test(test_core_sets),
        cmocka_unit_test(test_cpus),
        cmocka_unit_test_setup_teardown(test_quota, make_folder, remove_folder),
        cmocka_unit_test(test_conditions),
        cmocka_unit_test(test_child),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
