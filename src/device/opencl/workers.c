/* PoCL's worker threads. PoCL makes one for each core of the machine, pinned there, and wakes all of them for every
 * command, a sub-device's, too: those that do not belong to it look and sleep again. On a core that another device
 * computes on that was 5% of its time in the kernel, and 10% of its speed. So workers whose own core no open device has
 * stay on cores of one that is open. */
#define _GNU_SOURCE /* sched_setaffinity, cpu_set_t */
#include "device/common.h"
#include "device/opencl/cl_loader.h"

#if HT_HAVE_OPENCL
#include <dirent.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define MOST_WORKERS 64 /* cores that cpus= can name */
#define MOST_THREADS 1024

typedef struct worker {
    pid_t thread;
    int core; /* where PoCL pinned it */
} worker;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static worker workers[MOST_WORKERS]; /* found once: PoCL keeps them for the process's life */
static size_t n_workers;
static unsigned users[MOST_WORKERS]; /* open devices, by core */

static size_t list_threads(pid_t *threads, size_t most) {
    DIR *folder = opendir("/proc/self/task");
    size_t n = 0;
    for (struct dirent *entry; folder && n < most && (entry = readdir(folder));)
        if (entry->d_name[0] != '.')
            threads[n++] = (pid_t)strtol(entry->d_name, NULL, 10);
    if (folder)
        closedir(folder);
    return n;
}

static bool is_among(pid_t thread, const pid_t *threads, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (threads[i] == thread)
            return true;
    return false;
}

/* Asks every platform for its CPUs, which is when PoCL makes its workers: new threads that are pinned to one core. */
void ht_cl_find_workers(const ht_cl *cl) {
    pid_t before[MOST_THREADS], after[MOST_THREADS];
    cl_platform_id platforms[16];
    cl_uint n_platforms = 0, n_devices;
    const size_t n_before = list_threads(before, MOST_THREADS);
    if (cl->GetPlatformIDs(HT_COUNT(platforms), platforms, &n_platforms) != CL_SUCCESS)
        return;
    for (cl_uint i = 0; i < n_platforms && i < HT_COUNT(platforms); i++)
        (void)cl->GetDeviceIDs(platforms[i], CL_DEVICE_TYPE_CPU, 0, NULL, &n_devices);
    const size_t n_after = list_threads(after, MOST_THREADS);
    for (size_t i = 0; i < n_after && n_workers < MOST_WORKERS; i++) {
        cpu_set_t set;
        if (is_among(after[i], before, n_before) || sched_getaffinity(after[i], sizeof set, &set) ||
            CPU_COUNT(&set) != 1)
            continue;
        for (int core = 0; core < MOST_WORKERS; core++)
            if (CPU_ISSET(core, &set))
                workers[n_workers++] = (worker){after[i], core};
    }
}

static void place(uint64_t guests) {
    for (size_t i = 0; i < n_workers; i++) {
        const worker *w = &workers[i];
        cpu_set_t set;
        const bool guest = guests && !users[w->core];
        ht_core_set(guest ? guests : UINT64_C(1) << w->core, &set);
        /* Where these fail all is as PoCL had it. A batch thread that wakes does not interrupt the one that computes. */
        (void)sched_setaffinity(w->thread, sizeof set, &set);
        (void)sched_setscheduler(w->thread, guest ? SCHED_BATCH : SCHED_OTHER, &(struct sched_param){0});
    }
}

void ht_cl_use_cores(uint64_t cores, bool use) {
    uint64_t others = 0;
    pthread_mutex_lock(&lock);
    for (int core = 0; core < MOST_WORKERS; core++) {
        if (cores >> core & 1)
            users[core] += use ? 1 : -1u;
        others |= (uint64_t)(users[core] > 0) << core;
    }
    place(use ? cores : others);
    pthread_mutex_unlock(&lock);
}
#endif
