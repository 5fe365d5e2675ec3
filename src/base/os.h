/* Whatever differs by operating system, and nothing else: os_posix*.c for Linux and Android, os_windows.c for Windows. No
 * other file includes a header of the system's own (tests/tools/check_system.py), so that a port is these files alone.
 *
 * Paths are UTF-8, their parts divided by '/' on every system. Unless a comment says otherwise a function may be called by
 * several threads at once, and has no effect on the process beyond its answer. What begins with ht_os_program_ or says
 * "process-wide" is for a program's main() only: the library never calls it. Mappings, pages and clocks are in base.h. */
#ifndef HT_OS_H
#define HT_OS_H

#include "base/base.h"
#include "base/cores.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

/* ---- files ---------------------------------------------------------------------------------------------------------- */

#define HT_PATH_BYTES 4096 /* of the longest path that is followed or made */

typedef enum ht_os_kind { HT_OS_NOTHING, HT_OS_FILE, HT_OS_FOLDER, HT_OS_OTHER } ht_os_kind;
typedef struct ht_os_info {
    ht_os_kind kind; /* OTHER: a device, a pipe, a socket */
    uint64_t bytes;
    uint64_t changed;     /* nanoseconds since 1970 */
    uint64_t identity[2]; /* the same for two paths if and only if they lead to one file */
} ht_os_info;

/* What `path` leads to, through links. 0, or an errno with kind NOTHING. */
int ht_os_look(const char *path, ht_os_info *info);
static inline bool ht_os_same_file(const ht_os_info *a, const ht_os_info *b) {
    return a->kind && b->kind && a->identity[0] == b->identity[0] && a->identity[1] == b->identity[1];
}
bool ht_os_exists(const char *path);
/* 0, or an errno: may this process read (write) the file? */
int ht_os_may_read(const char *path);
int ht_os_may_write(const char *path);
/* fopen, of a file that child processes do not inherit. NULL: errno. */
FILE *ht_os_open(const char *path, const char *mode);
/* The same for "rb", "wb" and "ab", but a link at the end of the path is not followed: errno ELOOP. */
FILE *ht_os_open_unlinked(const char *path, const char *mode);
/* A new file, to be written: fails if anything of the name is there. For this user alone if `own`, else by the umask.
 * NULL: errno. */
FILE *ht_os_create(const char *path, bool own);
/* Gives an open file the permissions of the one at `path`. */
void ht_os_copy_mode(FILE *file, const char *path);
/* The file that writing to `path` means: links followed, a last one that leads nowhere yet, too. 0, or an errno. */
int ht_os_follow(const char *path, char target[HT_PATH_BYTES]);
/* The absolute path of what is there, without links; false: nothing is, or it is too long. */
bool ht_os_absolute(const char *path, char *out, size_t capacity);
bool ht_os_is_absolute(const char *path);
/* `to` becomes `from`, at once: whoever opens it sees the old or the new one. 0, or an errno. */
int ht_os_replace(const char *from, const char *to);
/* Async-signal-safe. 0, or an errno. */
int ht_os_remove(const char *path);
int ht_os_remove_folder(const char *path); /* an empty one */
/* `path` becomes a link to `target`, at once, whatever file or link is there; `target` counts from the folder of
 * `path`. 0, or an errno. */
int ht_os_link(const char *target, const char *path);
/* What is written to the file is on the disk. 0, or an errno. */
int ht_os_flush(FILE *file);
uint64_t ht_os_free_bytes(const char *folder); /* that this user may still write there; UINT64_MAX: not known */

typedef struct ht_os_lock ht_os_lock;
/* Locks the file, which is made if need be, against other processes (flock), until ht_os_unlock or the process's end.
 * 0, EAGAIN where another has it, or another errno. The file stays. */
int ht_os_lock_try(const char *path, ht_os_lock **lock);
void ht_os_unlock(ht_os_lock *lock); /* NULL is allowed */
/* Makes one folder; 0 if it is there afterwards, else an errno. `for_all`: as umask allows, else for this user alone. */
int ht_os_make_folder(const char *path, bool for_all);
bool ht_os_current_folder(char *out, size_t capacity);

typedef struct ht_os_folder ht_os_folder;
ht_os_folder *ht_os_folder_open(const char *path); /* NULL: it cannot be read */
/* The next name, "." and ".." left out, in no order, valid until the next call; NULL: that was all. */
const char *ht_os_folder_next(ht_os_folder *folder);
void ht_os_folder_close(ht_os_folder *folder); /* NULL is allowed */

/* ---- memory --------------------------------------------------------------------------------------------------------- */

/* Zeroed pages, huge ones asked for when there are many; bytes is a multiple of ht_os_page_bytes. NULL: none. */
void *ht_os_pages(size_t bytes);
void ht_os_pages_free(void *pages, size_t bytes);
size_t ht_os_page_bytes(void);
uint64_t ht_os_memory_bytes(void); /* of the machine */
uint64_t ht_os_cache_bytes(void);  /* of the last cache before memory, which cores share; 0: unknown */

/* ---- libraries ------------------------------------------------------------------------------------------------------ */

#ifdef _WIN32
#define HT_OS_LIBRARY(name) name ".dll"
#define HT_OS_LIBRARY_FILES(name) name ".dll" /* a pattern: with whatever version in its name */
#define HT_OS_LIBRARY_MARK ".dll"             /* what every library's path has in it */
#define HT_OS_SITE_PACKAGES "Lib/site-packages"
#define HT_OS_PATH_END ';' /* between paths of a list */
#else
#define HT_OS_LIBRARY(name) "lib" name ".so"
#define HT_OS_LIBRARY_FILES(name) "lib" name ".so*"
#define HT_OS_LIBRARY_MARK ".so"
#define HT_OS_SITE_PACKAGES "lib/python3*/site-packages"
#define HT_OS_PATH_END ':'
#endif

/* Opens a library, its names for itself only. A name without '/' is looked for where the system keeps libraries, never in
 * the current folder. NULL with `reason`, for a person. Libraries are never closed: their threads would outlive them. */
void *ht_os_library_open(const char *path, char *reason, size_t capacity);
void *ht_os_library_symbol(void *library, const char *name); /* NULL: none */
/* The folder, absolute, of the library that `symbol` is of; false: not known. */
bool ht_os_library_folder(const void *symbol, char *out, size_t capacity);

/* ---- threads -------------------------------------------------------------------------------------------------------- */

/* Sleeps while *word == seen, until it is woken; may wake for no reason. */
void ht_os_wait_on(atomic_uint *word, unsigned seen);
void ht_os_wake_all(atomic_uint *word);
/* The calling thread's cores. False: the system does not let it. */
bool ht_os_get_affinity(ht_cores *cores);
bool ht_os_set_affinity(const ht_cores *cores);
int ht_os_current_core(void); /* -1: not known */
void ht_os_yield(void);
void ht_os_nap(uint64_t nanoseconds);
/* A condition that can be waited for until a time of ht_seconds(), whatever becomes of the date. */
void ht_os_cond_init(pthread_cond_t *condition);
/* False: the time has come. */
bool ht_os_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex, double until);

/* Threads of this process that others have made, by the system's numbers: what ht_cl_find_workers needs. */
size_t ht_os_list_threads(int64_t *threads, size_t most);
bool ht_os_thread_cores(int64_t thread, ht_cores *cores);
/* `background`: it does not interrupt a thread that computes. */
void ht_os_place_thread(int64_t thread, const ht_cores *cores, bool background);

/* ---- the system ----------------------------------------------------------------------------------------------------- */

int ht_os_online_cores(void); /* of the machine, whoever may use them */
/* Those that this process was allowed to use when it was first asked (taskset, a container's set of cores). */
const ht_cores *ht_os_allowed_cores(void);
/* How many cores' time the process may use at once, by the quota of its control groups and of those above, version 1 and 2,
 * in the files below `root` ("" outside tests); 0: as many as there are. */
double ht_os_cpu_quota(const char *root);
bool ht_os_random(void *out, size_t bytes); /* false: none to be had */
bool ht_os_is_terminal(FILE *file);
/* What the date is, in universal time, as strftime has it; "" where the system does not know. */
void ht_os_date(const char *format, char *out, size_t capacity);
/* The user's own clock and calendar at so many seconds since 1970; 0: now. False: the system does not know. */
bool ht_os_local_time(int64_t seconds, struct tm *local);
typedef enum ht_os_feature { HT_OS_ARM_DOTPROD, HT_OS_ARM_I8MM } ht_os_feature;
bool ht_os_has_feature(ht_os_feature feature); /* of this processor */
/* Android's property; false: there is none of the name, or no Android. */
bool ht_os_property(const char *name, char *out, size_t capacity);

typedef struct ht_os_names {
    char system[65], release[65], machine[65]; /* "Linux", "6.1.0", "x86_64" */
    char host[256], user[256], full_name[256]; /* "": not known */
    char home[1024];                           /* as the user database has it; the environment may say otherwise */
} ht_os_names;
void ht_os_get_names(ht_os_names *names);
const char *const *ht_os_environment(void); /* "NAME=value", ..., NULL; valid until somebody changes it */

/* ---- child processes ------------------------------------------------------------------------------------------------ */

typedef struct ht_os_child ht_os_child;
/* Starts command[0] (a path) with these arguments, the last one NULL. Its standard output comes to ht_os_child_read,
 * all else is the parent's. */
ht_status ht_os_child_start(const char *const *command, ht_os_child **child, ht_error *error);
/* Waits for output, at most so long. Bytes read; 0: none in time; -1: no more will come. */
long ht_os_child_read(ht_os_child *child, char *out, size_t capacity, int milliseconds);
/* Is it gone? Then `how`, unless empty, says what was wrong: "signal 11 (Segmentation fault)". */
bool ht_os_child_ended(ht_os_child *child, char *how, size_t capacity);
void ht_os_child_close(ht_os_child *child); /* ends it if it still runs */

/* ---- for main() only: process-wide ---------------------------------------------------------------------------------- */

/* This program's own file, absolute. */
bool ht_os_program_path(char *out, size_t capacity);
/* Sets a variable that the user has not. Before the first thread. */
void ht_os_program_environment(const char *name, const char *value);
/* From here on whatever writes to standard output writes to standard error; the next one undoes that. They nest. */
void ht_os_program_hold_output(void);
void ht_os_program_release_output(void);
/* The same for good; the stream writes to what was standard output. NULL: none to be had. */
FILE *ht_os_program_take_output(void);
/* When a signal is about to end the program (Ctrl-C, a closed terminal, kill) `clean` runs first; it may only do what a
 * signal handler may. Signals that were ignored when the program started stay ignored. */
void ht_os_program_on_end(void (*clean)(void));
bool ht_os_program_ignores_interrupts(void); /* did whoever started the program want that? */
/* Async-signal-safe: writes to standard output, past its stream. */
void ht_os_program_say(const char *text, size_t bytes);
/* The next Ctrl-C calls `handler` instead, and the one after it ends the program as before. NULL: none does. */
void ht_os_program_on_interrupt(void (*handler)(void));
/* getline: C has none. Bytes, or -1. */
long ht_os_read_line(char **line, size_t *capacity, FILE *file);

#endif
