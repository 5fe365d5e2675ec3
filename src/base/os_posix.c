/* Linux and Android: memory, clocks, threads, facts of the system. Files and processes: os_posix_files.c,
 * os_posix_process.c. */
#define _GNU_SOURCE /* sched_setaffinity, cpu_set_t */
#include "base/os.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <math.h>
#include <pwd.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>
#ifdef __ANDROID__
#include <sys/system_properties.h>
#endif

#define HUGE_PAGE ((size_t)2 << 20)

/* ---- clocks --------------------------------------------------------------------------------------------------------- */

uint64_t ht_nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void ht_os_nap(uint64_t nanoseconds) {
    const struct timespec time = {(time_t)(nanoseconds / 1000000000u), (long)(nanoseconds % 1000000000u)};
    nanosleep(&time, NULL);
}

void ht_os_yield(void) {
    sched_yield();
}

void ht_os_cond_init(pthread_cond_t *condition) {
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(condition, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

bool ht_os_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex, double until) {
    const double whole = floor(until);
    const struct timespec time = {(time_t)whole, (long)((until - whole) * 1e9)};
    return pthread_cond_timedwait(condition, mutex, &time) != ETIMEDOUT;
}

/* ---- memory --------------------------------------------------------------------------------------------------------- */

size_t ht_os_page_bytes(void) {
    return (size_t)sysconf(_SC_PAGESIZE);
}

uint64_t ht_os_memory_bytes(void) {
    return (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t ht_os_cache_bytes(void) {
#ifdef _SC_LEVEL3_CACHE_SIZE
    const long bytes = sysconf(_SC_LEVEL3_CACHE_SIZE);
    return bytes > 0 ? (uint64_t)bytes : 0;
#else
    return 0;
#endif
}

uint64_t ht_peak_rss_bytes(void) {
    /* VmHWM first: ru_maxrss survives exec, so it may be the peak of the program that started this one. */
    unsigned long long kib = 0;
    FILE *status = ht_os_open("/proc/self/status", "r");
    if (status) {
        char line[256];
        while (!kib && fgets(line, sizeof line, status)) {
            if (sscanf(line, "VmHWM: %llu kB", &kib) != 1)
                kib = 0;
        }
        fclose(status);
    }
    struct rusage usage;
    if (!kib && getrusage(RUSAGE_SELF, &usage) == 0)
        kib = (unsigned long long)usage.ru_maxrss;
    return kib * 1024;
}

void *ht_os_pages(size_t bytes) {
    bool huge = bytes >= HUGE_PAGE;
    /* A huge page needs an aligned address: take one page too many and give the ends back. */
    size_t taken = bytes + (huge ? HUGE_PAGE : 0);
    char *start = mmap(NULL, taken, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED)
        return NULL;
    if (!huge)
        return start;
    size_t head = -(uintptr_t)start & (HUGE_PAGE - 1);
    if (head)
        munmap(start, head);
    if (taken - head > bytes)
        munmap(start + head + bytes, taken - head - bytes);
    madvise(start + head, bytes, MADV_HUGEPAGE); /* a wish: refusal costs speed only */
    return start + head;
}

void ht_os_pages_free(void *pages, size_t bytes) {
    munmap(pages, bytes);
}

ht_status ht_mapping_of(int descriptor, const char *path, ht_mapping *mapping, ht_error *error) {
    struct stat info;
    if (fstat(descriptor, &info))
        return ht_fail(error, HT_ERROR_IO, "%s: %s", path, strerror(errno));
    if (S_ISDIR(info.st_mode))
        return ht_fail(error, HT_ERROR_IO, "%s: is a directory, not a file", path);
    if (!S_ISREG(info.st_mode))
        return ht_fail(error, HT_ERROR_IO, "%s: is not a regular file", path);
    if (info.st_size <= 0)
        return ht_fail(error, HT_ERROR_FORMAT, "%s: the file is empty", path);
    void *data = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_SHARED, descriptor, 0);
    if (data == MAP_FAILED)
        return ht_fail(error, HT_ERROR_IO, "%s: cannot be mapped: %s", path, strerror(errno));
    *mapping = (ht_mapping){data, (size_t)info.st_size};
    return HT_OK;
}

ht_status ht_mapping_open(const char *path, ht_mapping *mapping, ht_error *error) {
    /* O_NONBLOCK: opening a FIFO must not wait for a writer. */
    int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0)
        return ht_fail(error, HT_ERROR_IO, "%s: %s", path, strerror(errno));
    ht_status status = ht_mapping_of(descriptor, path, mapping, error);
    close(descriptor);
    return status;
}

void ht_mapping_close(ht_mapping *mapping) {
    if (mapping->data)
        munmap((void *)(uintptr_t)mapping->data, mapping->bytes);
    *mapping = (ht_mapping){0};
}

void ht_mapping_drop(const void *data, size_t bytes) {
    /* Whole pages inside only: the pages at the ends hold bytes of neighbours that may be in use. */
    uintptr_t page = ht_os_page_bytes();
    uintptr_t begin = ((uintptr_t)data + page - 1) / page * page, end = ((uintptr_t)data + bytes) / page * page;
    if (begin < end)
        madvise((void *)begin, end - begin, MADV_DONTNEED);
}

void ht_mapping_want(const void *data, size_t bytes) {
    uintptr_t page = ht_os_page_bytes();
    uintptr_t begin = (uintptr_t)data / page * page, end = (uintptr_t)data + bytes;
    if (begin < end)
        madvise((void *)begin, end - begin, MADV_WILLNEED);
}

/* ---- threads -------------------------------------------------------------------------------------------------------- */

void ht_os_wait_on(atomic_uint *word, unsigned seen) {
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

void ht_os_wake_all(atomic_uint *word) {
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

_Static_assert(sizeof(ht_cores) == sizeof(cpu_set_t) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "ht_cores and cpu_set_t are the same bits");

bool ht_os_thread_cores(int64_t thread, ht_cores *cores) {
    cpu_set_t set;
    if (sched_getaffinity((pid_t)thread, sizeof set, &set) != 0)
        return false;
    memcpy(cores, &set, sizeof set); /* bit i of both is core i: this is asked thousands of times a second */
    return true;
}

bool ht_os_get_affinity(ht_cores *cores) {
    return ht_os_thread_cores(0, cores);
}

bool ht_os_set_affinity(const ht_cores *cores) {
    cpu_set_t set;
    memcpy(&set, cores, sizeof set);
    return sched_setaffinity(0, sizeof set, &set) == 0;
}

int ht_os_current_core(void) {
    return sched_getcpu();
}

size_t ht_os_list_threads(int64_t *threads, size_t most) {
    DIR *folder = opendir("/proc/self/task");
    size_t n = 0;
    for (struct dirent *entry; folder && n < most && (entry = readdir(folder));)
        if (entry->d_name[0] != '.')
            threads[n++] = strtol(entry->d_name, NULL, 10);
    if (folder)
        closedir(folder);
    return n;
}

void ht_os_place_thread(int64_t thread, const ht_cores *cores, bool background) {
    cpu_set_t set;
    memcpy(&set, cores, sizeof set);
    /* Where these fail all is as it was. A batch thread that wakes does not interrupt the one that computes. */
    (void)sched_setaffinity((pid_t)thread, sizeof set, &set);
    (void)sched_setscheduler((pid_t)thread, background ? SCHED_BATCH : SCHED_OTHER, &(struct sched_param){0});
}

/* ---- cores that may be used ----------------------------------------------------------------------------------------- */

int ht_os_online_cores(void) {
    const long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : n > HT_MAX_CORES ? HT_MAX_CORES : (int)n;
}

static ht_cores allowed;

static void find_allowed(void) {
    /* of the process's first thread: this one may stay on cores of a device */
    if (ht_os_thread_cores(getpid(), &allowed) && ht_cores_any(&allowed))
        return;
    for (int core = 0; core < ht_os_online_cores(); core++)
        ht_cores_add(&allowed, core);
}

const ht_cores *ht_os_allowed_cores(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, find_allowed);
    return &allowed;
}

/* Up to two numbers of a file; a first word "max" is -1. How many there were. */
static int read_numbers(const char *path, double numbers[2]) {
    char line[128] = "", word[32];
    FILE *file = ht_os_open(path, "r");
    if (!file)
        return 0;
    const int n = fgets(line, sizeof line, file) ? sscanf(line, "%31s %lf", word, &numbers[1]) : 0;
    fclose(file);
    numbers[0] = n > 0 && strcmp(word, "max") ? strtod(word, NULL) : -1;
    return n > 0 ? n : 0;
}

/* Cores' time of one group; 0: no limit. */
static double group_quota(const char *folder, bool first_version) {
    char path[HT_PATH_BYTES + 32];
    double numbers[2] = {-1, 100000}, period[2] = {100000, 0};
    if (first_version) {
        snprintf(path, sizeof path, "%s/cpu.cfs_period_us", folder);
        read_numbers(path, period);
        snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", folder);
        read_numbers(path, numbers);
        numbers[1] = period[0];
    } else {
        snprintf(path, sizeof path, "%s/cpu.max", folder);
        read_numbers(path, numbers);
    }
    return numbers[0] > 0 && numbers[1] > 0 ? numbers[0] / numbers[1] : 0;
}

/* The least of a group and those above it: a container may see its own group as the top one, and then its path is not
 * below the mount, which is all that is looked at then. */
static double least_quota(const char *mount, const char *group, bool first_version) {
    char folder[HT_PATH_BYTES];
    double least = 0;
    const size_t top = strlen(mount);
    if ((size_t)snprintf(folder, sizeof folder, "%s%s", mount, group) >= sizeof folder || strstr(group, ".."))
        snprintf(folder, sizeof folder, "%s", mount);
    for (;;) {
        const double quota = group_quota(folder, first_version);
        least = quota > 0 && (least <= 0 || quota < least) ? quota : least;
        char *slash = strrchr(folder, '/');
        if (strlen(folder) <= top || !slash)
            return least;
        *slash = '\0';
    }
}

/* Is `name` one of the comma-separated words in list[0..bytes)? */
static bool has_word(const char *list, size_t bytes, const char *name) {
    for (size_t at = 0; at < bytes;) {
        const size_t word = strcspn(list + at, ",:");
        if (word == strlen(name) && strncmp(list + at, name, word) == 0)
            return true;
        at += word + 1;
    }
    return false;
}

double ht_os_cpu_quota(const char *root) {
    static const struct {
        const char *mount;
        bool first_version;
    } mounts[] = {{"/sys/fs/cgroup", false},
                  {"/sys/fs/cgroup/unified", false},
                  {"/sys/fs/cgroup/cpu", true},
                  {"/sys/fs/cgroup/cpu,cpuacct", true}};
    char path[512], line[HT_PATH_BYTES];
    double least = 0;
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *file = ht_os_open(path, "r");
    while (file && fgets(line, sizeof line, file)) { /* "0::/group" is version 2, "4:cpu,cpuacct:/group" version 1 */
        char *controllers = strchr(line, ':'), *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group)
            continue;
        controllers++;
        group[strcspn(group, "\n")] = '\0';
        const bool first_version = group > controllers;
        if (first_version && !has_word(controllers, (size_t)(group - controllers), "cpu"))
            continue;
        for (size_t i = 0; i < HT_COUNT(mounts); i++) {
            snprintf(path, sizeof path, "%s%s", root, mounts[i].mount);
            const double quota =
                mounts[i].first_version == first_version ? least_quota(path, group + 1, first_version) : 0;
            least = quota > 0 && (least <= 0 || quota < least) ? quota : least;
        }
    }
    if (file)
        fclose(file);
    return least;
}

/* ---- facts ---------------------------------------------------------------------------------------------------------- */

bool ht_os_random(void *out, size_t bytes) {
    return getrandom(out, bytes, GRND_NONBLOCK) == (ssize_t)bytes;
}

bool ht_os_local_time(int64_t seconds, struct tm *local) {
    const time_t when = seconds ? (time_t)seconds : time(NULL);
    return localtime_r(&when, local) != NULL;
}

void ht_os_date(const char *format, char *out, size_t capacity) {
    const time_t now = time(NULL);
    struct tm utc;
    if (!gmtime_r(&now, &utc) || !strftime(out, capacity, format, &utc))
        *out = '\0';
}

bool ht_os_is_terminal(FILE *file) {
    return isatty(fileno(file)) != 0;
}

bool ht_os_has_feature(ht_os_feature feature) {
#ifdef __aarch64__
    switch (feature) {
    case HT_OS_ARM_DOTPROD:
        return (getauxval(AT_HWCAP) & 1ul << 20) != 0; /* HWCAP_ASIMDDP */
    case HT_OS_ARM_I8MM:
        return (getauxval(AT_HWCAP2) & 1ul << 13) != 0; /* HWCAP2_I8MM */
    }
#endif
    return false;
}

bool ht_os_property(const char *name, char *out, size_t capacity) {
#ifdef __ANDROID__
    char value[PROP_VALUE_MAX] = "";
    if (__system_property_get(name, value) <= 0)
        return false;
    snprintf(out, capacity, "%s", value);
    return true;
#else
    return false;
#endif
}

void ht_os_get_names(ht_os_names *names) {
    struct utsname system = {0};
    char text[4096];
    struct passwd entry, *user = NULL;
    *names = (ht_os_names){0};
    uname(&system);
    snprintf(names->system, sizeof names->system, "%s", system.sysname);
    snprintf(names->release, sizeof names->release, "%s", system.release);
    snprintf(names->machine, sizeof names->machine, "%s", system.machine);
    snprintf(names->host, sizeof names->host, "%s", system.nodename);
    if (getpwuid_r(getuid(), &entry, text, sizeof text, &user) || !user)
        return;
    snprintf(names->user, sizeof names->user, "%s", user->pw_name ? user->pw_name : "");
    snprintf(names->home, sizeof names->home, "%s", user->pw_dir ? user->pw_dir : "");
    if (user->pw_gecos) /* "Full Name,room,telephone" */
        snprintf(names->full_name, sizeof names->full_name, "%.*s", (int)strcspn(user->pw_gecos, ","), user->pw_gecos);
}

const char *const *ht_os_environment(void) {
    return (const char *const *)environ;
}
