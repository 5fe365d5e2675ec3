/* src/base: errors, memory, files, UTF-8, fp16. */
#include "base/base.h"
#include "unit/test.h"

#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

static void test_fail(void **state) {
    ht_error error = {0};
    assert_int_equal(ht_fail(&error, HT_ERROR_FORMAT, "%s: key \"%s\"", "a.gguf", "x"), HT_ERROR_FORMAT);
    assert_int_equal(error.status, HT_ERROR_FORMAT);
    assert_string_equal(error.text, "a.gguf: key \"x\"");
    assert_int_equal(ht_error_prefix(&error, HT_ERROR_FORMAT, "part %d", 2), HT_ERROR_FORMAT);
    assert_string_equal(error.text, "part 2: a.gguf: key \"x\"");
    assert_int_equal(ht_fail(&error, HT_ERROR_IO, "again: %s", error.text), HT_ERROR_IO); /* may quote itself */
    assert_string_equal(error.text, "again: part 2: a.gguf: key \"x\"");
    assert_int_equal(ht_fail(NULL, HT_ERROR_IO, "nobody listens"), HT_ERROR_IO);
    assert_int_equal(ht_error_prefix(NULL, HT_ERROR_DEVICE, "nobody listens"), HT_ERROR_DEVICE);
}

/* Names come from hostile files: an error stays one printable line of valid UTF-8. */
static void test_fail_is_one_line(void **state) {
    ht_error error;
    ht_fail(&error, HT_ERROR_FORMAT, "a\nb\x1b[31m\x7f\xff\xc3\xa9 %s", "\xe2\x82"); /* the last character is cut off */
    assert_string_equal(error.text, "a?b?[31m??\xc3\xa9 ");
    ht_fail(&error, HT_ERROR_FORMAT,
            "a\xc2\x9b"
            "b\xe2\x80\xaeug\xe2\x81\xa6"); /* a control, and text that runs the other way */
    assert_string_equal(error.text, "a??b???ug???");
    char overlong[2000];
    memset(overlong, 'x', sizeof overlong);
    for (size_t i = 1; i + 1 < sizeof overlong; i += 2)
        memcpy(overlong + i, "\xc3\xa9", 2);
    overlong[sizeof overlong - 1] = 0;
    ht_fail(&error, HT_ERROR_FORMAT, "%s", overlong);
    assert_in_range(strlen(error.text), sizeof error.text - 4, sizeof error.text - 1);
    assert_int_equal(ht_utf8_whole(error.text, strlen(error.text)), strlen(error.text));
}

static void test_names(void **state) {
    assert_string_equal(ht_status_name(HT_OK), "ok");
    for (int status = HT_OK; status <= HT_ERROR_CANCELLED; status++) {
        assert_string_not_equal(ht_status_name((ht_status)status), "unknown");
    }
    assert_string_equal(ht_status_name((ht_status)99), "unknown");
    char version[32];
    snprintf(version, sizeof version, "%d.%d.%d", HT_VERSION_MAJOR, HT_VERSION_MINOR, HT_VERSION_PATCH);
    assert_string_equal(ht_version(), version);
}

static char last_line[2048];
static int lines;

static void keep_line(ht_log_level level, const char *line, void *user) {
    assert_int_equal(level, *(ht_log_level *)user);
    snprintf(last_line, sizeof last_line, "%s", line);
    lines++;
}

static void test_log(void **state) {
    ht_log_level expected = HT_LOG_INFO;
    ht_log_set(keep_line, &expected, HT_LOG_INFO);
    ht_log(HT_LOG_INFO, "loaded %d\nlayers", 30);
    assert_string_equal(last_line, "loaded 30?layers");
    ht_log(HT_LOG_DEBUG, "not wanted");
    assert_int_equal(lines, 1);
    ht_log_set(NULL, NULL, HT_LOG_WARN);
    ht_log(HT_LOG_INFO, "not wanted either");
    assert_int_equal(lines, 1);
}

/* A sink that logs and that sets another one, from inside. */
static void change_sink(ht_log_level level, const char *line, void *user) {
    if (++*(int *)user == 1)
        ht_log(HT_LOG_WARN, "from inside");
    ht_log_set(NULL, NULL, HT_LOG_ERROR);
}

/* What it works on is there while it is the sink, and gone at once afterwards. */
typedef struct slow_sink {
    atomic_bool inside, alive;
    atomic_int late;
} slow_sink;

static void slow_line(ht_log_level level, const char *line, void *user) {
    slow_sink *s = user;
    atomic_store(&s->inside, true);
    usleep(20000);
    atomic_fetch_add(&s->late, !atomic_load(&s->alive));
}

static void *log_once(void *user) {
    ht_log(HT_LOG_WARN, "from another thread");
    return NULL;
}

static void test_log_sink_ends(void **state) {
    int calls = 0;
    ht_log_set(change_sink, &calls, HT_LOG_WARN);
    ht_log(HT_LOG_WARN, "first");
    assert_int_equal(calls, 2);
    ht_log(HT_LOG_WARN, "to nobody");
    assert_int_equal(calls, 2);
    for (int i = 0; i < 10; i++) {
        slow_sink s = {.alive = true};
        pthread_t thread;
        ht_log_set(slow_line, &s, HT_LOG_WARN);
        assert_int_equal(pthread_create(&thread, NULL, log_once, NULL), 0);
        while (!atomic_load(&s.inside))
            usleep(100);
        ht_log_set(NULL, NULL, HT_LOG_WARN);
        atomic_store(&s.alive, false); /* here a caller's stack frame may end */
        pthread_join(thread, NULL);
        assert_int_equal(atomic_load(&s.late), 0);
    }
}

enum { LOGGERS = 4, LOGGED = 200 };

static void count_slowly(ht_log_level level, const char *line, void *user) {
    usleep(2000);
    atomic_fetch_add((atomic_int *)user, 1);
}

static void *log_often(void *user) {
    for (int i = 0; i < LOGGED; i++)
        ht_log(HT_LOG_WARN, "again");
    return NULL;
}

/* Who sets a sink waits for calls of the old one, and not for those of the new one, which may never pause. */
static void test_log_set_under_steady_logging(void **state) {
    atomic_int old = 0, new = 0;
    pthread_t threads[LOGGERS];
    ht_log_set(count_slowly, &old, HT_LOG_WARN);
    for (int i = 0; i < LOGGERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, log_often, NULL), 0);
    while (atomic_load(&old) < LOGGERS)
        usleep(100);
    ht_log_set(count_slowly, &new, HT_LOG_WARN);
    const int meanwhile = atomic_load(&new), before = atomic_load(&old);
    for (int i = 0; i < LOGGERS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(atomic_load(&old), before); /* nobody was in it any more */
    assert_int_equal(before + atomic_load(&new), LOGGERS * LOGGED);
    assert_in_range(meanwhile, 0, LOGGERS * LOGGED / 4);
    ht_log_set(NULL, NULL, HT_LOG_WARN);
}

/* What a killed process has left in the cache folder goes an hour later; what is younger, or another's, stays. */
static void test_temporary_sweep(void **state) {
    static const struct {
        const char *name;
        int age;
        bool stays;
    } rows[] = {{"export.0123456789abcdef.tmp", 7200, false},
                {"export.0123456789abcdee.tmp", 60, true},
                {"other.0123456789abcdef.tmp", 7200, true},
                {"export.0123456789abcdef.bin", 7200, true}};
    ht_temporary mine;
    ht_error error = {0};
    char path[512];
    assert_int_equal(setenv("XDG_CACHE_HOME", test_folder, 1), 0);
    check(ht_temporary_name("npu/export", &mine, &error), &error);
    assert_int_equal(mkdir(mine.path, 0700), 0);
    for (size_t i = 0; i < HT_COUNT(rows); i++) {
        const struct timespec then = {.tv_sec = time(NULL) - rows[i].age}, both[2] = {then, then};
        snprintf(path, sizeof path, "%s/hetero/npu/%s/graph.onnx", test_folder, rows[i].name);
        *strrchr(path, '/') = '\0';
        assert_int_equal(mkdir(path, 0700), 0);
        path[strlen(path)] = '/';
        check(ht_file_write(path, "x", 1, &error), &error);
        *strrchr(path, '/') = '\0';
        assert_int_equal(utimensat(AT_FDCWD, path, both, 0), 0);
    }
    ht_temporary_sweep(&mine);
    for (size_t i = 0; i < HT_COUNT(rows); i++) {
        snprintf(path, sizeof path, "%s/hetero/npu/%s", test_folder, rows[i].name);
        if ((access(path, F_OK) == 0) != rows[i].stays)
            fail_msg("%s: %s", rows[i].name, rows[i].stays ? "removed" : "still there");
    }
    assert_int_equal(access(mine.path, F_OK), 0);
    ht_temporary_remove(&mine);
}

static void test_alloc(void **state) {
    ht_error error = {0};
    unsigned char *memory = NULL;
    uint64_t before = ht_alloc_count();
    check(ht_alloc((void **)&memory, 100, 3, "test", &error), &error);
    for (int i = 0; i < 300; i++)
        assert_int_equal(memory[i], 0);
    assert_int_equal(ht_alloc_count(), before + 1);
    ht_free(memory);
    check(ht_alloc((void **)&memory, 0, 8, "nothing", &error), &error);
    assert_non_null(memory);
    ht_free(memory);
    void *none = NULL;
    fails(ht_alloc(&none, SIZE_MAX / 2, 3, "the moon", &error), HT_ERROR_MEMORY, &error, "the moon");
    assert_null(none);
}

static void test_grow(void **state) {
    ht_error error = {0};
    uint32_t *array = NULL;
    size_t capacity = 0;
    uint64_t before = ht_alloc_count();
    for (uint32_t i = 0; i < 1000; i++) {
        check(ht_grow((void **)&array, &capacity, i + 1, sizeof *array, "array", &error), &error);
        assert_true(capacity > i);
        assert_int_equal(array[capacity - 1], 0); /* what is new is zeroed */
        array[i] = i + 1;
    }
    for (uint32_t i = 0; i < 1000; i++)
        assert_int_equal(array[i], i + 1);
    assert_in_range(ht_alloc_count() - before, 1, 12); /* doubles */
    fails(ht_grow((void **)&array, &capacity, SIZE_MAX / 2, 4, "the moon", &error), HT_ERROR_MEMORY, &error,
          "the moon");
    assert_int_equal(array[999], 1000);
    free(array);
}

static void test_pages(void **state) {
    const size_t sizes[] = {0, 1, 4096, 100000, (size_t)2 << 20, ((size_t)5 << 20) + 12345};
    for (size_t i = 0; i < HT_COUNT(sizes); i++) {
        uint64_t before = ht_alloc_count();
        uint8_t *pages = ht_pages_alloc(sizes[i]);
        assert_non_null(pages);
        assert_int_equal(ht_alloc_count(), before + 1);
        assert_int_equal((uintptr_t)pages % (sizes[i] >= (size_t)2 << 20 ? (size_t)2 << 20 : 4096), 0);
        for (size_t at = 0; at < sizes[i]; at += 1000)
            assert_int_equal(pages[at], 0);
        if (sizes[i])
            memset(pages, 0xa5, sizes[i]);
        ht_pages_free(pages, sizes[i]);
    }
    assert_null(ht_pages_alloc(SIZE_MAX));
    ht_pages_free(NULL, 1);
}

static void test_arena(void **state) {
    ht_arena arena = {0};
    for (size_t i = 0; i < 3000; i++) {
        size_t bytes = i % 7 == 0 ? 5000 : i % 501 == 0 ? 200000 : i % 64;
        uint8_t *memory = ht_arena_alloc(&arena, bytes);
        assert_non_null(memory);
        assert_int_equal((uintptr_t)memory % 16, 0);
        for (size_t at = 0; at < bytes; at++) {
            if (memory[at])
                fail_msg("not zeroed, or given out twice: byte %zu of piece %zu", at, i);
        }
        memset(memory, 0xff, bytes);
    }
    char *copy = ht_arena_strndup(&arena, "hello, world", 5);
    assert_string_equal(copy, "hello");
    assert_string_equal(ht_arena_strndup(&arena, NULL, 0), "");
    assert_null(ht_arena_alloc(&arena, SIZE_MAX));
    ht_arena_free(&arena);
    assert_null(arena.head);
    ht_arena_free(&arena);
}

/* A large piece does not waste what is left of the block before it. */
static void test_arena_keeps_its_block(void **state) {
    ht_arena arena = {0};
    ht_arena_alloc(&arena, 100);
    uint64_t before = ht_alloc_count();
    ht_arena_alloc(&arena, 1000000);
    ht_arena_alloc(&arena, 100);
    assert_int_equal(ht_alloc_count(), before + 1);
    ht_arena_free(&arena);
}

static void test_text(void **state) {
    ht_error error = {0};
    ht_text text = {0};
    check(ht_text_append(&text, NULL, 0, &error), &error);
    assert_string_equal(text.data, "");
    check(ht_text_append(&text, "ab\0c", 4, &error), &error);
    assert_int_equal(text.bytes, 4);
    assert_int_equal(text.data[4], 0);
    for (int i = 0; i < 100; i++)
        check(ht_text_printf(&text, &error, "%d,", i), &error);
    assert_memory_equal(text.data, "ab\0c0,1,2,", 10);
    assert_string_equal(text.data + text.bytes - 6, "98,99,");
    fails(ht_text_append(&text, "x", SIZE_MAX - 2, &error), HT_ERROR_MEMORY, &error, "text");
    ht_text_free(&text);
    assert_null(text.data);
    ht_text_free(&text);
}

static void write_file(const char *path, size_t bytes) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    for (size_t i = 0; i < bytes; i++)
        fputc((int)(i % 251), file);
    assert_int_equal(fclose(file), 0);
}

static void test_mapping(void **state) {
    ht_error error = {0};
    ht_mapping mapping = {0};
    char *path = temporary_path("data");
    write_file(path, 20000);
    check(ht_mapping_open(path, &mapping, &error), &error);
    assert_int_equal(mapping.bytes, 20000);
    ht_mapping_want(mapping.data + 100, 15000);
    for (size_t i = 0; i < mapping.bytes; i++)
        assert_int_equal(mapping.data[i], i % 251);
    ht_mapping_drop(mapping.data + 1, 3);    /* no whole page: nothing happens */
    ht_mapping_drop(mapping.data + 1, 9000); /* page 1 */
    for (size_t i = 0; i < mapping.bytes; i++)
        assert_int_equal(mapping.data[i], i % 251); /* comes back */
    ht_mapping_close(&mapping);
    assert_null(mapping.data);
    ht_mapping_close(&mapping);
    free(path);
}

/* Pages of this process, by its page table: bit 63 of an entry of pagemap says that a page is mapped here. */
static int mapped_here(const void *address) {
    uint64_t entry = 0;
    int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (pagemap < 0)
        return -1;
    ssize_t n = pread(pagemap, &entry, sizeof entry, (off_t)((uintptr_t)address / 4096 * sizeof entry));
    close(pagemap);
    return n == sizeof entry ? (int)(entry >> 63) : -1;
}

static void test_mapping_drop(void **state) {
    ht_error error = {0};
    ht_mapping mapping = {0};
    char *path = temporary_path("data");
    write_file(path, 5 * 4096);
    check(ht_mapping_open(path, &mapping, &error), &error);
    volatile uint8_t sum = 0;
    for (size_t i = 0; i < mapping.bytes; i++)
        sum = (uint8_t)(sum + mapping.data[i]);
    int before = mapped_here(mapping.data + 4096);
    if (before != 1 || sysconf(_SC_PAGESIZE) != 4096) {
        ht_mapping_close(&mapping);
        free(path);
        skip();
    }
    ht_mapping_drop(mapping.data + 1, 3 * 4096); /* touches pages 0 to 3, holds 1 and 2 whole */
    const int expected[] = {1, 0, 0, 1, 1};
    for (size_t page = 0; page < 5; page++)
        assert_int_equal(mapped_here(mapping.data + page * 4096), expected[page]);
    ht_mapping_close(&mapping);
    free(path);
}

static void test_mapping_errors(void **state) {
    ht_error error = {0};
    ht_mapping mapping = {0};
    char *empty = temporary_path("empty"), *fifo = temporary_path("fifo"), *missing = temporary_path("missing");
    write_file(empty, 0);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    fails(ht_mapping_open(missing, &mapping, &error), HT_ERROR_IO, &error, missing);
    fails(ht_mapping_open(test_folder, &mapping, &error), HT_ERROR_IO, &error, "is a directory");
    fails(ht_mapping_open(empty, &mapping, &error), HT_ERROR_FORMAT, &error, "is empty");
    fails(ht_mapping_open(fifo, &mapping, &error), HT_ERROR_IO, &error, "not a regular file"); /* and does not hang */
    assert_null(mapping.data);
    free(missing);
    free(fifo);
    free(empty);
}

static void test_clock(void **state) {
    uint64_t a = ht_nanoseconds();
    double seconds = ht_seconds();
    usleep(2000);
    uint64_t b = ht_nanoseconds();
    assert_true(b - a >= 2000000 && b - a < 10000000000u);
    assert_true(seconds * 1e9 >= (double)a - 1e3 && seconds * 1e9 <= (double)b);
    assert_true(ht_peak_rss_bytes() > 100000);
}

static void test_peak_rss(void **state) {
    const size_t bytes = (size_t)40 << 20;
    uint64_t before = ht_peak_rss_bytes();
    uint8_t *pages = ht_pages_alloc(bytes);
    memset(pages, 1, bytes);
    ht_pages_free(pages, bytes);
    assert_true(ht_peak_rss_bytes() >= before && ht_peak_rss_bytes() >= bytes);
}

/* The file's content is this, and nothing else is in its folder. */
static void holds(const char *path, const char *text) {
    ht_error error = {0};
    ht_mapping mapping = {0};
    check(ht_mapping_open(path, &mapping, &error), &error);
    assert_int_equal(mapping.bytes, strlen(text));
    assert_memory_equal(mapping.data, text, mapping.bytes);
    ht_mapping_close(&mapping);
}

static void test_file_write(void **state) {
    ht_error error = {0};
    char *path = temporary_path("file"), *missing = temporary_path("missing/file"), *folder = temporary_path("folder");
    check(ht_file_write(path, "one", 3, &error), &error);
    holds(path, "one");
    ht_mapping before = {0};
    check(ht_mapping_open(path, &before, &error), &error);
    check(ht_file_write(path, "four", 4, &error), &error);
    holds(path, "four");
    assert_memory_equal(before.data, "one", 3); /* who had it open keeps what it was */
    ht_mapping_close(&before);
    fails(ht_file_write(missing, "x", 1, &error), HT_ERROR_IO, &error, missing);
    assert_int_equal(mkdir(folder, 0700), 0);
    fails(ht_file_write(folder, "x", 1, &error), HT_ERROR_ARGUMENT, &error, folder);
    assert_int_equal(count_files(), 2); /* what failed leaves nothing behind */
    free(path), free(missing), free(folder);
}

/* Sets or, for NULL, removes. */
static void set_variable(const char *name, const char *value) {
    assert_int_equal(value ? setenv(name, value, 1) : unsetenv(name), 0);
}

static void test_cache_path(void **state) {
    ht_error error = {0};
    char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME"), path[4096], want[4096];
    cache = cache ? strdup(cache) : NULL, home = home ? strdup(home) : NULL;

    set_variable("XDG_CACHE_HOME", test_folder);
    check(ht_cache_path("a/b.bin", path, sizeof path, &error), &error);
    snprintf(want, sizeof want, "%s/hetero/a/b.bin", test_folder);
    assert_string_equal(path, want);
    struct stat info;
    *strrchr(want, '/') = '\0';
    assert_int_equal(stat(want, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0700);
    check(ht_cache_path("a/b.bin", path, sizeof path, &error), &error); /* folders are there */
    check(ht_file_write(path, "x", 1, &error), &error);
    fails(ht_cache_path("a/b.bin/c", path, sizeof path, &error), HT_ERROR_IO, &error, "b.bin");
    fails(ht_cache_path("a/b.bin", path, 10, &error), HT_ERROR_IO, &error, "a/b.bin");

    set_variable("XDG_CACHE_HOME", "relative");
    set_variable("HOME", test_folder);
    check(ht_cache_path("b.bin", path, sizeof path, &error), &error);
    snprintf(want, sizeof want, "%s/.cache/hetero/b.bin", test_folder);
    assert_string_equal(path, want);
    set_variable("HOME", NULL);
    fails(ht_cache_path("b.bin", path, sizeof path, &error), HT_ERROR_IO, &error, "HOME");
    set_variable("HOME", "/proc/no such place");
    fails(ht_cache_path("b.bin", path, sizeof path, &error), HT_ERROR_IO, &error, "/proc/no such place");

    set_variable("XDG_CACHE_HOME", cache);
    set_variable("HOME", home);
    free(cache), free(home);
}

static void test_utf8_next(void **state) {
    static const struct {
        const char *text;
        size_t bytes;
        int32_t c;
        size_t used;
    } cases[] = {
        {"A", 1, 'A', 1},
        {"\0", 1, 0, 1},
        {"\xc3\xa9z", 3, 0xe9, 2},
        {"\xe2\x82\xac", 3, 0x20ac, 3},
        {"\xf0\x9f\x98\x80", 4, 0x1f600, 4},
        {"\xf4\x8f\xbf\xbf", 4, 0x10ffff, 4},
        {"\xed\x9f\xbf", 3, 0xd7ff, 3},
        {"\x80", 1, -1, 1},             /* a continuation byte alone */
        {"\xc0\x80", 2, -1, 1},         /* overlong */
        {"\xc1\xbf", 2, -1, 1},         /* overlong */
        {"\xe0\x9f\xbf", 3, -1, 1},     /* overlong */
        {"\xf0\x8f\xbf\xbf", 4, -1, 1}, /* overlong */
        {"\xed\xa0\x80", 3, -1, 1},     /* surrogate */
        {"\xf4\x90\x80\x80", 4, -1, 1}, /* past U+10FFFF */
        {"\xf5\x80\x80\x80", 4, -1, 1},
        {"\xff", 1, -1, 1},
        {"\xe2\x82", 2, -1, 1}, /* cut off */
        {"\xe2\x82z", 3, -1, 1},
    };
    for (size_t i = 0; i < HT_COUNT(cases); i++) {
        size_t used = 99;
        int32_t c = ht_utf8_next(cases[i].text, cases[i].bytes, &used);
        if (c != cases[i].c || used != cases[i].used)
            fail_msg("case %zu: %d, used %zu", i, (int)c, used);
    }
}

/* Every code point, encoded here in its own way, comes back. */
static void test_utf8_all(void **state) {
    for (int32_t c = 0; c <= 0x10ffff; c++) {
        uint8_t b[4];
        size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4, used;
        for (size_t i = n; i-- > 1;)
            b[i] = (uint8_t)(0x80 | (c >> 6 * (int)(n - 1 - i) & 0x3f));
        b[0] = (uint8_t)(n == 1 ? c : (0xf00 >> n & 0xff) | c >> 6 * (int)(n - 1));
        int32_t got = ht_utf8_next((const char *)b, n, &used);
        bool surrogate = c >= 0xd800 && c <= 0xdfff;
        if (got != (surrogate ? -1 : c) || used != (surrogate ? 1 : n))
            fail_msg("U+%04X: %d", (unsigned)c, (int)got);
        if (!surrogate && n > 1 && ht_utf8_whole((const char *)b, n - 1) != 0)
            fail_msg("U+%04X: not cut", (unsigned)c);
    }
}

static void test_utf8_whole(void **state) {
    static const struct {
        const char *text;
        size_t bytes, whole;
    } cases[] = {
        {"", 0, 0},
        {"abc", 3, 3},
        {"ab\xc3", 3, 2},
        {"ab\xc3\xa9", 4, 4},
        {"\xe2\x82", 2, 0},
        {"\xf0\x9f\x98", 3, 0},
        {"x\xf0\x9f", 3, 1},
        {"\xf0\x9f\x98\x80", 4, 4},
        {"\xff", 1, 1},         /* invalid bytes count as whole: they are not waited for */
        {"\x80\x80\x80", 3, 3}, /* likewise */
        {"\xe0\x80", 2, 2},     /* cannot become a character */
        {"\xed\xa0", 2, 2},     /* a surrogate, likewise */
        {"\xc3\xa9\xe2\x82", 4, 2},
        {"\xe2\xe2", 2, 1},
    };
    for (size_t i = 0; i < HT_COUNT(cases); i++) {
        size_t whole = ht_utf8_whole(cases[i].text, cases[i].bytes);
        if (whole != cases[i].whole)
            fail_msg("case %zu: %zu, not %zu", i, whole, cases[i].whole);
    }
}

/* fp16's value from its definition: sign, exponent, mantissa. */
static double half_by_definition(uint16_t h) {
    int exponent = h >> 10 & 31, mantissa = h & 1023;
    double sign = h >> 15 ? -1 : 1;
    if (exponent == 31)
        return mantissa ? NAN : sign * INFINITY;
    return sign * (exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24));
}

static void test_f16(void **state) {
    for (uint32_t h = 0; h <= UINT16_MAX; h++) {
        double expected = half_by_definition((uint16_t)h);
        float f = ht_f16_to_f32((uint16_t)h);
        if (isnan(expected)) {
            assert_true(isnan(f));
            assert_true(isnan(half_by_definition(ht_f32_to_f16(f))));
            continue;
        }
        if ((double)f != expected || !signbit(f) != !(h >> 15))
            fail_msg("%04x is %g", h, (double)f);
        if (ht_f32_to_f16(f) != h)
            fail_msg("%04x came back as %04x", h, ht_f32_to_f16(f));
    }
}

/* Between every two neighbours: the middle goes to the even one, either side of it to the nearer. */
static void test_f16_rounding(void **state) {
    for (uint32_t h = 0; h < 0x7bff; h++) {
        float middle = (float)((half_by_definition((uint16_t)h) + half_by_definition((uint16_t)(h + 1))) / 2);
        uint16_t even = (uint16_t)(h & 1 ? h + 1 : h);
        assert_int_equal(ht_f32_to_f16(middle), even);
        assert_int_equal(ht_f32_to_f16(-middle), even | 0x8000);
        assert_int_equal(ht_f32_to_f16(nextafterf(middle, INFINITY)), h + 1);
        assert_int_equal(ht_f32_to_f16(nextafterf(middle, -INFINITY)), h);
    }
    assert_int_equal(ht_f32_to_f16(65519.996f), 0x7bff);
    assert_int_equal(ht_f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(ht_f32_to_f16(-1e30f), 0xfc00);
    assert_int_equal(ht_f32_to_f16(1e-30f), 0);
    assert_true(ht_bf16_to_f32(0x3fc0) == 1.5f);
}

/* Any change of a byte, of the length or of the beginning changes it; the parts of a text may be hashed in turn. */
static void test_hash(void **state) {
    uint8_t text[40] = {0};
    for (size_t n = 0; n <= sizeof text; n++) {
        const uint64_t whole = ht_hash(HT_HASH_START, text, n);
        assert_true(whole == ht_hash(HT_HASH_START, text, n));
        assert_true(n == 0 || whole != ht_hash(HT_HASH_START, text, n - 1));
        assert_true(n == 0 || whole != ht_hash(HT_HASH_START + 1, text, n));
        assert_true(whole == ht_hash(ht_hash(HT_HASH_START, text, n / 8 * 8), text + n / 8 * 8, n % 8));
        for (size_t i = 0; i < n; i++) {
            text[i] ^= 1;
            assert_true(whole != ht_hash(HT_HASH_START, text, n));
            text[i] ^= 1;
        }
    }
}

/* A struct as an older program has it, as this library has it, and as a newer program has it. None ends in padding,
 * which holds anything and would be taken for the next version's member. */
typedef struct old_struct {
    size_t struct_size, a;
} old_struct;
typedef struct this_struct {
    size_t struct_size, a, b;
} this_struct;
typedef struct new_struct {
    size_t struct_size, a, b;
    double c;
} new_struct;

static void test_struct_read(void **state) {
    this_struct read = {1, 2, 3};
    ht_error error = {0};
    assert_int_equal(ht_struct_read(&read, sizeof read, NULL, "x", &error), HT_OK);
    assert_int_equal(read.a, 0);
    const old_struct old = HT_INIT(old_struct, .a = 5);
    read.b = 7; /* must become the default */
    assert_int_equal(ht_struct_read(&read, sizeof read, &old, "x", &error), HT_OK);
    assert_int_equal(read.a, 5);
    assert_int_equal(read.b, 0);
    new_struct newer = HT_INIT(new_struct, .a = 5, .b = 6);
    assert_int_equal(ht_struct_read(&read, sizeof read, &newer, "x", &error), HT_OK);
    assert_int_equal(read.b, 6);
    newer.c = 1; /* the caller relies on what is not there */
    assert_int_equal(ht_struct_read(&read, sizeof read, &newer, "x", &error), HT_ERROR_UNSUPPORTED);
    assert_string_equal(error.text, "x: a field is set that this library, version 0.2.0, does not know");
    const this_struct forgotten = {.a = 1};
    assert_int_equal(ht_struct_read(&read, sizeof read, &forgotten, "x", &error), HT_ERROR_ARGUMENT);
    assert_string_equal(error.text, "x: struct_size is 0 (make the struct with HT_INIT(x, ...))");
    const this_struct garbage = {.struct_size = (size_t)-1}; /* its bytes are not there: reading them would crash */
    assert_int_equal(ht_struct_read(&read, sizeof read, &garbage, "x", &error), HT_ERROR_ARGUMENT);
    assert_non_null(strstr(error.text, "expected at most 65536"));
    assert_int_equal(ht_struct_check(&garbage, "x", NULL), HT_ERROR_ARGUMENT);
    ht_struct_write((void *)&garbage, &read, sizeof read);
    assert_int_equal(ht_struct_check(&forgotten, "x", NULL), HT_ERROR_ARGUMENT);
    assert_int_equal(ht_struct_check(NULL, "x", NULL), HT_ERROR_ARGUMENT);
    assert_int_equal(ht_struct_check(&old, "x", NULL), HT_OK);
}

static void test_struct_write(void **state) {
    const this_struct full = {sizeof full, 1, 2};
    struct {
        old_struct old;
        int behind;
    } narrow = {HT_INIT(old_struct), 9};
    ht_struct_write(&narrow.old, &full, sizeof full);
    assert_int_equal(narrow.old.a, 1);
    assert_int_equal(narrow.old.struct_size, sizeof(old_struct));
    assert_int_equal(narrow.behind, 9);
    new_struct newer = HT_INIT(new_struct, .c = 5);
    ht_struct_write(&newer, &full, sizeof full);
    assert_int_equal(newer.b, 2);
    assert_true(newer.c == 0);
    assert_int_equal(newer.struct_size, sizeof newer);
}

/* Names that end in a word which made a factor of the tokenizer's own hash 0 all had the hash 0, whatever the seed. */
static void test_seeded_hash(void **state) {
    static const uint64_t words[] = {0, UINT64_C(0x9e3779b97f4a7c15), UINT64_C(0xd6e8feb86659fd93), UINT64_MAX};
    enum { NAMES = 64 };
    for (size_t w = 0; w < HT_COUNT(words); w++) {
        uint64_t hashes[NAMES], name[2] = {0, words[w]};
        for (size_t i = 0; i < NAMES; i++) {
            name[0] = i * 0x0101010101010101u;
            hashes[i] = ht_hash_seeded(12345, name, sizeof name);
            for (size_t k = 0; k < i; k++)
                assert_true(hashes[k] != hashes[i]);
        }
    }
    assert_true(ht_hash_seeded(1, "name", 4) != ht_hash_seeded(2, "name", 4));
    assert_true(ht_hash_seeded(1, "name", 4) == ht_hash_seeded(1, "names", 4));
}

static void test_parse_size(void **state) {
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {
        {"0", 0},           {"17", 17},     {"512M", 512ull << 20}, {"512MB", 512ull << 20}, {"8GiB", 8ull << 30},
        {"8g", 8ull << 30}, {"1kib", 1024}, {"2T", 2ull << 40}};
    static const char *const bad[] = {"", "G", "-1", "8 G", "8Gi", "8GiBs", "8B", "8iB", "1e9", "8GG", "9999999999T"};
    uint64_t bytes;
    for (size_t i = 0; i < HT_COUNT(good); i++) {
        assert_true(ht_parse_size(good[i].text, &bytes));
        assert_int_equal(bytes, good[i].bytes);
    }
    for (size_t i = 0; i < HT_COUNT(bad); i++)
        if (ht_parse_size(bad[i], &bytes))
            fail_msg("\"%s\" was taken for a size", bad[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse_size),
        cmocka_unit_test(test_seeded_hash),
        cmocka_unit_test(test_fail),
        cmocka_unit_test(test_fail_is_one_line),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_log),
        cmocka_unit_test(test_log_sink_ends),
        cmocka_unit_test(test_log_set_under_steady_logging),
        cmocka_unit_test_setup_teardown(test_temporary_sweep, make_folder, remove_folder),
        cmocka_unit_test(test_alloc),
        cmocka_unit_test(test_grow),
        cmocka_unit_test(test_pages),
        cmocka_unit_test(test_arena),
        cmocka_unit_test(test_arena_keeps_its_block),
        cmocka_unit_test(test_text),
        cmocka_unit_test_setup_teardown(test_mapping, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_mapping_drop, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_mapping_errors, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_file_write, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_cache_path, make_folder, remove_folder),
        cmocka_unit_test(test_clock),
        cmocka_unit_test(test_peak_rss),
        cmocka_unit_test(test_utf8_next),
        cmocka_unit_test(test_utf8_all),
        cmocka_unit_test(test_utf8_whole),
        cmocka_unit_test(test_f16),
        cmocka_unit_test(test_f16_rounding),
        cmocka_unit_test(test_hash),
        cmocka_unit_test(test_struct_read),
        cmocka_unit_test(test_struct_write),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
