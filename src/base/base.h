/* What every module uses: errors, memory, files, clock, threads' small print. Link order: nothing below this. */
#ifndef HT_BASE_H
#define HT_BASE_H

#include "hetero.h"
#include "hetero_tools.h"

#include <stdarg.h>
#include <stdio.h>

#if defined(__GNUC__)
#ifdef __MINGW_PRINTF_FORMAT /* which of its two kinds of printf a program has */
#define HT_PRINTF(text, first) __attribute__((format(__MINGW_PRINTF_FORMAT, text, first)))
#else
#define HT_PRINTF(text, first) __attribute__((format(printf, text, first)))
#endif
#define HT_LIKELY(x) __builtin_expect(!!(x), 1)
#define HT_UNLIKELY(x) __builtin_expect(!!(x), 0)
#else
#define HT_PRINTF(text, first)
#define HT_LIKELY(x) (x)
#define HT_UNLIKELY(x) (x)
#endif

#define HT_MAX_THREADS 1024 /* most that a caller can ask for */
#define HT_COUNT(array) (sizeof(array) / sizeof((array)[0]))
static inline size_t ht_min_size(size_t a, size_t b) {
    return a < b ? a : b;
}
static inline size_t ht_max_size(size_t a, size_t b) {
    return a > b ? a : b;
}
static inline size_t ht_round_up(size_t n, size_t multiple) {
    return (n + multiple - 1) / multiple * multiple;
}

/* Fills *error (if not NULL) and returns status, so that `return ht_fail(error, HT_ERROR_IO, "...", ...)` reads well. */
ht_status ht_fail(ht_error *error, ht_status status, const char *format, ...) HT_PRINTF(3, 4);
/* The same call, but the compiler sees which status comes back, so that it does not warn of variables that only success
 * sets. `status` is evaluated twice. */
static inline ht_status ht_known_status(ht_status returned, ht_status known) {
    return (void)returned, known;
}
#define ht_fail(error, status, ...) ht_known_status(ht_fail((error), (status), __VA_ARGS__), (status))
/* Puts "context: " before the text of an error that was filled with `status` (NULL: nobody wants the text) and returns the
 * status, which therefore never has to be read out of an error that may not be there. */
ht_status ht_error_prefix(ht_error *error, ht_status status, const char *format, ...) HT_PRINTF(3, 4);

/* Structs that grow (hetero.h, struct_size): each begins with a size_t of that name.
 * read: *full, of this library's `size`, becomes what the caller gave, and zero where the caller's struct ends; given NULL: all
 * zero. HT_ERROR_ARGUMENT without a size, HT_ERROR_UNSUPPORTED if a field is set that lies behind `size`.
 * check: whether a result can be written to *given. write: fills as much of *given as the caller has. */
ht_status ht_struct_read(void *full, size_t size, const void *given, const char *type, ht_error *error);
ht_status ht_struct_check(const void *given, const char *type, ht_error *error);
void ht_struct_write(void *given, const void *full, size_t size);

/* What would break a line, a terminal or a JSON string becomes '?': texts of drivers, names out of hostile files. */
void ht_make_printable(char *text);

/* Who is told of long work, for those that keep it: a pointer to this is kept, never function and user themselves, so that the
 * owner can take the function out when the caller that `user` belongs to has gone. Not while somebody may be telling. */
typedef struct ht_progress {
    ht_progress_function function; /* NULL: nobody is told */
    void *user;
} ht_progress;
/* False: the one who is told asks to stop. progress may be NULL. */
static inline bool ht_progress_tell(const ht_progress *progress, const char *what, double done, double total) {
    return !progress || !progress->function || progress->function(what, done, total, progress->user);
}

void ht_log(ht_log_level level, const char *format, ...) HT_PRINTF(2, 3);

/* count*size with overflow checked; zeroed; fails with HT_ERROR_MEMORY naming `what`. */
ht_status ht_alloc(void **out, size_t count, size_t size, const char *what, ht_error *error);
/* Grows *array (of element size `size`) so that it holds at least `need` elements; *capacity is updated. */
ht_status ht_grow(void **array, size_t *capacity, size_t need, size_t size, const char *what, ht_error *error);
/* Page-aligned, zeroed, huge pages asked for when large. Freed with ht_pages_free(ptr, same bytes). Counted (below). */
void *ht_pages_alloc(size_t bytes);
void ht_pages_free(void *pages, size_t bytes);
/* The first bytes of a text, NUL-terminated, from malloc; NULL when memory is out. */
char *ht_copy_text(const char *text, size_t bytes);
/* Gives memory that was freed back to the system, where the C library can. Milliseconds: after large work only. */
void ht_memory_trim(void);
/* "512M", "512MB", "512MiB": bytes, of a whole number with K, M, G or T (powers of 1024, either case) or nothing behind it. */
bool ht_parse_size(const char *text, uint64_t *bytes);
/* The same for a person: "500.0 KiB", in the largest unit of which it is one or more. buffer. */
const char *ht_size_text(uint64_t bytes, char buffer[32]);
/* Allocations made through this header so far, in the whole process: what the "steady decode allocates nothing" test
 * watches. Counts ht_alloc, ht_grow, ht_pages_alloc, arena blocks and the growth of an ht_text. */
uint64_t ht_alloc_count(void);

void ht_sort_doubles(double *values, size_t n); /* ascending: for medians and percentiles */
/* Where `what` begins in data, NULL: nowhere. */
const char *ht_find_bytes(const char *data, size_t bytes, const char *what, size_t n);

/* Monotonic time in seconds, and nanoseconds. */
double ht_seconds(void);
uint64_t ht_nanoseconds(void);
uint64_t ht_peak_rss_bytes(void); /* of this process so far */

/* What a loop that polls does between two looks. */
static inline void ht_relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* A bump allocator: everything is released at once. Strings of a model's metadata live in one. */
typedef struct ht_arena {
    struct ht_arena_block *head;
} ht_arena;
void *ht_arena_alloc(ht_arena *arena, size_t bytes); /* 16-aligned, zeroed; NULL when memory is out */
char *ht_arena_strndup(ht_arena *arena, const char *text, size_t bytes);
void ht_arena_free(ht_arena *arena);

/* A growing byte string, always NUL-terminated once it holds anything. */
typedef struct ht_text {
    char *data;
    size_t bytes, capacity;
} ht_text;
ht_status ht_text_append(ht_text *text, const char *data, size_t bytes, ht_error *error);
ht_status ht_text_printf(ht_text *text, ht_error *error, const char *format, ...) HT_PRINTF(3, 4);
void ht_text_free(ht_text *text);

/* A file mapped read-only. Errors name the path: missing, a directory, empty, unreadable. */
typedef struct ht_mapping {
    const uint8_t *data;
    size_t bytes;
} ht_mapping;
ht_status ht_mapping_open(const char *path, ht_mapping *mapping, ht_error *error);
/* Of a file that is open for reading; the descriptor stays the caller's. `name`: for errors. */
ht_status ht_mapping_of(int descriptor, const char *name, ht_mapping *mapping, ht_error *error);
void ht_mapping_close(ht_mapping *mapping);
/* The pages inside [data, data+bytes) leave this process's memory (they stay in the page cache). */
void ht_mapping_drop(const void *data, size_t bytes);
/* Asks the kernel to read [data, data+bytes) ahead. */
void ht_mapping_want(const void *data, size_t bytes);

/* A file that is written whole or not at all. It is written beside its place, under a name of its own, and put there by
 * ht_output_finish: a reader, and a process that writes the same file at the same time, never sees a part of it, and when
 * something fails what was there stays. Links are followed, a file that is there keeps its permissions, a new one gets those
 * that the user's umask allows. Not flushed to the disk: after a power cut it may be short. */
typedef struct ht_output ht_output;
/* HT_ERROR_ARGUMENT: the path leads to a folder, a device, a pipe. */
ht_status ht_output_open(const char *path, ht_output **output, ht_error *error);
/* Would that work? For what takes minutes to be made. */
ht_status ht_output_check(const char *path, ht_error *error);
FILE *ht_output_file(ht_output *output); /* to be written with stdio; finish sees what failed */
/* Releases it, when it fails, too. */
ht_status ht_output_finish(ht_output *output, ht_error *error);
void ht_output_abandon(ht_output *output); /* instead of finish; NULL is allowed */
/* All of it at once: the file holds exactly data[0..bytes). */
ht_status ht_file_write(const char *path, const void *data, size_t bytes, ht_error *error);

/* A path below the cache folder (see there) that nobody else has, for a file, or a folder, that somebody else writes. */
typedef struct ht_temporary {
    char path[1024];
    int slot;
} ht_temporary;
ht_status ht_temporary_name(const char *file, ht_temporary *temporary, ht_error *error);
void ht_temporary_remove(ht_temporary *temporary); /* the file or the empty folder, if there is one */
/* Removes files and folders beside it, of the same name but for the number, that have not changed for an hour before this
 * one did: those of processes that were killed. */
void ht_temporary_sweep(const ht_temporary *temporary);
/* Removes what is half written, of all threads: for a program's signal handler, which may call it. */
void ht_outputs_remove(void);

/* Does `name` match a pattern of '*', '?' and sets such as [0-9]? A leading '.' is matched by a '.' only. */
bool ht_name_matches(const char *pattern, const char *name);
typedef struct ht_paths {
    char **at; /* ascending */
    size_t n, capacity;
} ht_paths;
/* Appends the paths "FOLDER/..." that match a pattern, each part of which may be one ("lib/python3*"), and which may be "".
 * The folder is taken as it is written; in "" there is nothing. None is no failure. */
ht_status ht_paths_find(const char *folder, const char *pattern, ht_paths *paths, ht_error *error);
void ht_paths_free(ht_paths *paths);

/* Makes every folder on the way to `path`, for this user alone unless `for_all`. */
ht_status ht_make_folders(const char *path, bool for_all, ht_error *error);
/* Where `file` ("opencl/0123.bin") of our cache folder lies: $XDG_CACHE_HOME/hetero, else ~/.cache/hetero. Missing folders
 * are made, for this user alone. HT_ERROR_IO if there is no such place; every caller can do without. */
ht_status ht_cache_path(const char *file, char *out, size_t capacity, ht_error *error);

/* A hash of bytes, to tell contents apart (not against malice): eight bytes at a time, each word mixed in by xor, multiply
 * and fold as FNV-1a and its kin do. Begin with HT_HASH_START or with an earlier result. */
#define HT_HASH_START UINT64_C(0xcbf29ce484222325)
uint64_t ht_hash(uint64_t hash, const void *data, size_t bytes);
/* A hash for tables of names from hostile files: with a seed that they cannot know, none can be made to collide. */
uint64_t ht_hash_seeded(uint64_t seed, const void *data, size_t bytes);

/* Length of the longest prefix of text that ends on a whole UTF-8 character; invalid bytes count as whole. */
size_t ht_utf8_whole(const char *text, size_t bytes);
/* Decodes one character at text[0..bytes), bytes > 0; *used is at least 1; an invalid byte gives -1 (used 1). */
int32_t ht_utf8_next(const char *text, size_t bytes, size_t *used);

/* fp16 and bf16 as bits. Round to nearest even; infinities and NaNs kept. */
float ht_f16_to_f32(uint16_t h);
uint16_t ht_f32_to_f16(float f);
static inline float ht_bf16_to_f32(uint16_t h) {
    union {
        uint32_t u;
        float f;
    } bits = {(uint32_t)h << 16};
    return bits.f;
}

#endif
