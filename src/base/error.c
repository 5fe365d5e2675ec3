/* Status, error text and log: everything that is said to a person passes through here. */
#include "base/base.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define STRING_OF(x) #x
#define VERSION_TEXT(major, minor, patch) STRING_OF(major) "." STRING_OF(minor) "." STRING_OF(patch)

const char *ht_version(void) {
    return VERSION_TEXT(HT_VERSION_MAJOR, HT_VERSION_MINOR, HT_VERSION_PATCH);
}

const char *ht_status_name(ht_status status) {
    static const char *const names[] = {
        [HT_OK] = "ok",
        [HT_ERROR_ARGUMENT] = "argument",
        [HT_ERROR_FORMAT] = "format",
        [HT_ERROR_UNSUPPORTED] = "unsupported",
        [HT_ERROR_IO] = "io",
        [HT_ERROR_MEMORY] = "memory",
        [HT_ERROR_DEVICE] = "device",
        [HT_ERROR_CONTEXT] = "context",
        [HT_ERROR_CANCELLED] = "cancelled",
    };
    return (unsigned)status < HT_COUNT(names) ? names[status] : "unknown";
}

void ht_make_printable(char *text) {
    size_t bytes = strlen(text);
    bytes = ht_utf8_whole(text, bytes); /* snprintf may have cut a character in two */
    text[bytes] = 0;
    for (size_t at = 0, used; at < bytes; at += used) {
        int32_t c = ht_utf8_next(text + at, bytes - at, &used);
        const bool turns = (c >= 0x202a && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069);
        if (c < 0x20 || (c >= 0x7f && c < 0xa0) || turns) /* controls of either kind, and what reverses a text */
            memset(text + at, '?', used);
    }
}

const char *ht_size_text(uint64_t bytes, char buffer[32]) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes;
    int unit = 0;
    for (; value >= 1024 && unit < 4; unit++)
        value /= 1024;
    snprintf(buffer, 32, unit ? "%.1f %s" : "%.0f %s", value, units[unit]);
    return buffer;
}

ht_status(ht_fail)(ht_error *error, ht_status status, const char *format, ...) {
    if (!error)
        return status;
    /* By way of a second buffer, because an argument may be error->text itself. */
    char text[sizeof error->text];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    ht_make_printable(text);
    memcpy(error->text, text, sizeof text);
    error->status = status;
    return status;
}

ht_status ht_error_prefix(ht_error *error, ht_status status, const char *format, ...) {
    if (!error)
        return status;
    char context[sizeof error->text], rest[sizeof error->text];
    memcpy(rest, error->text, sizeof rest);
    va_list list;
    va_start(list, format);
    vsnprintf(context, sizeof context, format, list);
    va_end(list);
    return ht_fail(error, status, "%s: %s", context, rest);
}

/* ---- log: the one piece of process-wide state besides the allocation counter ---- */

static void print_line(ht_log_level level, const char *line, void *user) {
    static const char *const names[] = {"error", "warning", "info", "debug"};
    fprintf(stderr, "hetero: %s: %s\n", names[level], line);
}

#define MOST_NESTED 8
#define GENERATIONS 8 /* that are told apart: of sinks that calls may still be in */

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    ht_log_function function;
    void *user;
    ht_log_level most_detailed;
    uint64_t generation; /* counts ht_log_set */
    struct {
        uint64_t generation; /* the oldest that is counted here */
        unsigned running;    /* calls of its sink under way, in all threads */
    } calls[GENERATIONS];
} sink = {.lock = PTHREAD_MUTEX_INITIALIZER,
          .changed = PTHREAD_COND_INITIALIZER,
          .function = print_line,
          .most_detailed = HT_LOG_WARN};

/* How many calls of a sink this thread is inside of: a sink may log, and may set another one. */
static _Thread_local unsigned nested;

static bool older_runs(uint64_t generation) {
    for (size_t i = 0; i < GENERATIONS; i++)
        if (sink.calls[i].running && sink.calls[i].generation < generation)
            return true;
    return false;
}

/* Waits until no other thread is in an older sink: calls of the new one may go on without end. What this thread is
 * inside of itself cannot be waited for; and of two sinks that set one at the same time neither waits for the other, or
 * they would wait for ever. */
void ht_log_set(ht_log_function function, void *user, ht_log_level most_detailed) {
    pthread_mutex_lock(&sink.lock);
    sink.function = function ? function : print_line;
    sink.user = function ? user : NULL;
    sink.most_detailed = most_detailed;
    const uint64_t generation = ++sink.generation;
    if (!sink.calls[generation % GENERATIONS].running)
        sink.calls[generation % GENERATIONS].generation = generation;
    while (nested == 0 && older_runs(generation))
        pthread_cond_wait(&sink.changed, &sink.lock);
    pthread_mutex_unlock(&sink.lock);
}

void ht_log(ht_log_level level, const char *format, ...) {
    pthread_mutex_lock(&sink.lock);
    const ht_log_function function = sink.function;
    void *user = sink.user;
    const bool wanted = level <= sink.most_detailed && (unsigned)level <= HT_LOG_DEBUG && nested < MOST_NESTED;
    unsigned *running = &sink.calls[sink.generation % GENERATIONS].running;
    *running += wanted;
    pthread_mutex_unlock(&sink.lock);
    if (!wanted)
        return;
    char line[1024];
    va_list list;
    va_start(list, format);
    vsnprintf(line, sizeof line, format, list);
    va_end(list);
    ht_make_printable(line);
    nested++;
    function(level, line, user); /* outside the lock: it may log, or set another sink */
    nested--;
    pthread_mutex_lock(&sink.lock);
    if (--*running == 0)
        pthread_cond_broadcast(&sink.changed);
    pthread_mutex_unlock(&sink.lock);
}
