/* PoCL's worker threads. PoCL makes one for each core of the machine, pinned there if POCL_AFFINITY is 1 in the
 * environment, and wakes all of them for every command, a sub-device's, too: those that do not belong to it look and sleep
 * again. On a core that another device computes on that was 5% of its time in the kernel, and 10% of its speed. So workers
 * whose own core no open device has stay on cores of one that is open.
 *
 * These threads are not ours. They are moved only in a program that has set POCL_AFFINITY, which asks PoCL for threads that
 * stay where they are put (hetero.h says so); the command does. */
#include "base/os.h"
#include "device/common.h"
#include "device/opencl/cl_loader.h"

#if HT_HAVE_OPENCL
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define MOST_THREADS 2048

typedef struct worker {
    int64_t thread;
    int core; /* where PoCL pinned it */
} worker;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static worker workers[HT_MAX_CORES]; /* found once: PoCL keeps them for the process's life */
static size_t n_workers;
static unsigned users[HT_MAX_CORES]; /* open devices, by core */

static bool is_among(int64_t thread, const int64_t *threads, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (threads[i] == thread)
            return true;
    return false;
}

/* Asks every platform for its CPUs, which is when PoCL makes its workers: new threads that are pinned to one core. */
void ht_cl_find_workers(const ht_cl *cl) {
    static int64_t before[MOST_THREADS], after[MOST_THREADS]; /* under the loader's lock */
    const char *affinity = getenv("POCL_AFFINITY");
    cl_platform_id platforms[16];
    cl_uint n_platforms = 0, n_devices;
    if (!affinity || strcmp(affinity, "1") != 0)
        return;
    const size_t n_before = ht_os_list_threads(before, MOST_THREADS);
    if (cl->GetPlatformIDs(HT_COUNT(platforms), platforms, &n_platforms) != CL_SUCCESS)
        return;
    for (cl_uint i = 0; i < n_platforms && i < HT_COUNT(platforms); i++)
        (void)cl->GetDeviceIDs(platforms[i], CL_DEVICE_TYPE_CPU, 0, NULL, &n_devices);
    const size_t n_after = ht_os_list_threads(after, MOST_THREADS);
    for (size_t i = 0; i < n_after && n_workers < HT_COUNT(workers); i++) {
        ht_cores cores;
        if (!is_among(after[i], before, n_before) && ht_os_thread_cores(after[i], &cores) &&
            ht_cores_count(&cores) == 1)
            workers[n_workers++] = (worker){after[i], ht_cores_next(&cores, 0)};
    }
}

static void place(const ht_cores *guests) {
    for (size_t i = 0; i < n_workers; i++) {
        const worker *w = &workers[i];
        const bool guest = ht_cores_any(guests) && !users[w->core];
        const ht_cores own = ht_cores_one(w->core);
        ht_os_place_thread(w->thread, guest ? guests : &own, guest);
    }
}

void ht_cl_use_cores(const ht_cores *cores, bool use) {
    ht_cores others = {{0}};
    pthread_mutex_lock(&lock);
    for (int core = 0; core < HT_MAX_CORES; core++) {
        if (ht_cores_has(cores, core))
            users[core] += use ? 1 : -1u;
        if (users[core] > 0)
            ht_cores_add(&others, core);
    }
    place(use ? cores : &others);
    pthread_mutex_unlock(&lock);
}
#else
typedef int ht_cl_workers_is_empty; /* ISO C wants something in every file */
#endif
