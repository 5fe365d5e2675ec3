/* Windows: not there yet. Everything compiles (tools/mingw_check.sh), so that the rest of the source stays portable; what a
 * port needs to do is in this file alone. Where C has what is needed it is used, all else says that it cannot. */
#include "base/os.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define NOT_YET "not on Windows yet"

static ht_status not_yet(const char *what, ht_error *error) {
    return ht_fail(error, HT_ERROR_UNSUPPORTED, "%s: " NOT_YET, what);
}

/* ---- files ---------------------------------------------------------------------------------------------------------- */

int ht_os_look(const char *path, ht_os_info *info) {
    *info = (ht_os_info){HT_OS_NOTHING, 0, 0, {0, 0}};
    return ENOSYS;
}
bool ht_os_exists(const char *path) {
    FILE *file = fopen(path, "rb");
    if (file)
        fclose(file);
    return file != NULL;
}
int ht_os_may_read(const char *path) {
    return ht_os_exists(path) ? 0 : ENOENT;
}
int ht_os_may_write(const char *path) {
    return 0;
}
FILE *ht_os_open(const char *path, const char *mode) {
    char binary[8]; /* text is LF everywhere */
    snprintf(binary, sizeof binary, strchr(mode, 'b') ? "%.6s" : "%.6sb", mode);
    return fopen(path, binary);
}
FILE *ht_os_open_unlinked(const char *path, const char *mode) {
    return ht_os_open(path, mode);
}
FILE *ht_os_create(const char *path, bool own) {
    return fopen(path, "wbx");
}
void ht_os_copy_mode(FILE *file, const char *path) {}
int ht_os_follow(const char *path, char target[HT_PATH_BYTES]) {
    return (size_t)snprintf(target, HT_PATH_BYTES, "%s", path) < HT_PATH_BYTES ? 0 : ENAMETOOLONG;
}
bool ht_os_absolute(const char *path, char *out, size_t capacity) {
    return false;
}
bool ht_os_is_absolute(const char *path) {
    return *path && path[1] == ':' && (path[2] == '/' || path[2] == '\\');
}
int ht_os_replace(const char *from, const char *to) {
    return rename(from, to) ? errno : 0; /* MoveFileExW with MOVEFILE_REPLACE_EXISTING: this does not replace */
}
int ht_os_remove(const char *path) {
    return remove(path) ? errno : 0;
}
int ht_os_remove_folder(const char *path) {
    return ENOSYS;
}
int ht_os_link(const char *target, const char *path) {
    return ENOSYS;
}
int ht_os_flush(FILE *file) {
    return fflush(file) ? errno : 0;
}
uint64_t ht_os_free_bytes(const char *folder) {
    return UINT64_MAX;
}
int ht_os_lock_try(const char *path, ht_os_lock **lock) { /* LockFileEx */
    return ENOSYS;
}
void ht_os_unlock(ht_os_lock *lock) {}
int ht_os_make_folder(const char *path, bool for_all) {
    return ENOSYS;
}
bool ht_os_current_folder(char *out, size_t capacity) {
    return false;
}
ht_os_folder *ht_os_folder_open(const char *path) {
    return NULL;
}
const char *ht_os_folder_next(ht_os_folder *folder) {
    return NULL;
}
void ht_os_folder_close(ht_os_folder *folder) {}

/* ---- memory --------------------------------------------------------------------------------------------------------- */

void *ht_os_pages(size_t bytes) { /* VirtualAlloc */
    return calloc(bytes, 1);
}
void ht_os_pages_free(void *pages, size_t bytes) {
    free(pages);
}
size_t ht_os_page_bytes(void) {
    return 4096;
}
uint64_t ht_os_memory_bytes(void) {
    return 0;
}
uint64_t ht_os_cache_bytes(void) {
    return 0;
}
uint64_t ht_peak_rss_bytes(void) {
    return 0;
}
ht_status ht_mapping_open(const char *path, ht_mapping *mapping, ht_error *error) {
    return not_yet(path, error);
}
ht_status ht_mapping_of(int descriptor, const char *name, ht_mapping *mapping, ht_error *error) {
    return not_yet(name, error);
}
void ht_mapping_close(ht_mapping *mapping) {
    *mapping = (ht_mapping){0};
}
void ht_mapping_drop(const void *data, size_t bytes) {}
void ht_mapping_want(const void *data, size_t bytes) {}

/* ---- libraries ------------------------------------------------------------------------------------------------------ */

/* LoadLibraryExW with LOAD_LIBRARY_SEARCH_DEFAULT_DIRS: never from the current folder. */
void *ht_os_library_open(const char *path, char *reason, size_t capacity) {
    snprintf(reason, capacity, "%s: " NOT_YET, path);
    return NULL;
}
void *ht_os_library_symbol(void *library, const char *name) {
    return NULL;
}
bool ht_os_library_folder(const void *symbol, char *out, size_t capacity) {
    return false;
}

/* ---- threads -------------------------------------------------------------------------------------------------------- */

void ht_os_wait_on(atomic_uint *word, unsigned seen) { /* WaitOnAddress */
    while (atomic_load(word) == seen)
        ht_os_nap(100000);
}
void ht_os_wake_all(atomic_uint *word) {}
bool ht_os_get_affinity(ht_cores *cores) {
    return false;
}
bool ht_os_set_affinity(const ht_cores *cores) {
    return false;
}
int ht_os_current_core(void) {
    return -1;
}
void ht_os_yield(void) {
    ht_os_nap(0);
}
void ht_os_nap(uint64_t nanoseconds) { /* a high-resolution waitable timer: this returns at once when it is short */
    const struct timespec time = {(time_t)(nanoseconds / 1000000000u), (long)(nanoseconds % 1000000000u)};
    nanosleep(&time, NULL);
}
void ht_os_cond_init(pthread_cond_t *condition) {
    pthread_cond_init(condition, NULL); /* winpthreads has no monotonic conditions */
}
bool ht_os_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex, double until) {
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    const double left = until - ht_seconds(), whole = (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
    const double end = whole + (left > 0 ? left : 0);
    time.tv_sec = (time_t)end;
    time.tv_nsec = (long)((end - (double)time.tv_sec) * 1e9);
    return pthread_cond_timedwait(condition, mutex, &time) != ETIMEDOUT;
}
size_t ht_os_list_threads(int64_t *threads, size_t most) {
    return 0;
}
bool ht_os_thread_cores(int64_t thread, ht_cores *cores) {
    return false;
}
void ht_os_place_thread(int64_t thread, const ht_cores *cores, bool background) {}

/* ---- the system ----------------------------------------------------------------------------------------------------- */

uint64_t ht_nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}
int ht_os_online_cores(void) {
    return 1;
}
const ht_cores *ht_os_allowed_cores(void) {
    static const ht_cores one = {{1}};
    return &one;
}
double ht_os_cpu_quota(const char *root) {
    return 0;
}
bool ht_os_random(void *out, size_t bytes) { /* BCryptGenRandom */
    return false;
}
bool ht_os_local_time(int64_t seconds, struct tm *local) {
    const time_t when = seconds ? (time_t)seconds : time(NULL);
    return localtime_s(local, &when) == 0;
}
void ht_os_date(const char *format, char *out, size_t capacity) {
    const time_t now = time(NULL);
    const struct tm *utc = gmtime(&now); /* each thread has its own there */
    if (!utc || !strftime(out, capacity, format, utc))
        *out = '\0';
}
bool ht_os_is_terminal(FILE *file) {
    return false;
}
bool ht_os_has_feature(ht_os_feature feature) { /* IsProcessorFeaturePresent */
    return false;
}
bool ht_os_property(const char *name, char *out, size_t capacity) {
    return false;
}
void ht_os_get_names(ht_os_names *names) {
    *names = (ht_os_names){.system = "Windows"};
}
const char *const *ht_os_environment(void) {
    static const char *const none[] = {NULL};
    return none;
}

/* ---- processes ------------------------------------------------------------------------------------------------------ */

ht_status ht_os_child_start(const char *const *command, ht_os_child **child, ht_error *error) {
    return not_yet("child processes", error);
}
long ht_os_child_read(ht_os_child *child, char *out, size_t capacity, int milliseconds) {
    return -1;
}
bool ht_os_child_ended(ht_os_child *child, char *how, size_t capacity) {
    return true;
}
void ht_os_child_close(ht_os_child *child) {}
bool ht_os_program_path(char *out, size_t capacity) {
    return false;
}
void ht_os_program_environment(const char *name, const char *value) {}
void ht_os_program_hold_output(void) {}
void ht_os_program_release_output(void) {}
FILE *ht_os_program_take_output(void) {
    return NULL;
}
void ht_os_program_on_end(void (*clean)(void)) {}
bool ht_os_program_ignores_interrupts(void) {
    return false;
}
void ht_os_program_say(const char *text, size_t bytes) {}
void ht_os_program_on_interrupt(void (*handler)(void)) {}
long ht_os_read_line(char **line, size_t *capacity, FILE *file) {
    size_t n = 0;
    for (int c; (c = getc(file)) != EOF;) {
        if (n + 2 > *capacity) {
            char *grown = realloc(*line, *capacity ? *capacity * 2 : 128);
            if (!grown)
                return -1;
            *capacity = *capacity ? *capacity * 2 : 128;
            *line = grown;
        }
        (*line)[n++] = (char)c;
        (*line)[n] = '\0';
        if (c == '\n')
            break;
    }
    return n ? (long)n : -1;
}
