/* A fork-join pool. Workers spin briefly after a loop (the next one is microseconds away while a model runs), then sleep
 * on a futex. Items are handed out from one atomic counter, so that a core that is busy elsewhere simply takes fewer; and a
 * worker that wakes too late is not waited for: it finds the loop's gate closed. */
#include "base/pool.h"
#include "base/os.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define SPIN_NS \
    60000 /* longer than any gap between two loops of one pass; short against a person's or a device's time */

#define CLOSED (1u << 31)

struct ht_pool {
    int threads;
    ht_cores cores;
    pthread_t *workers;
    int started;
    /* one loop; written by the caller before `round` is advanced */
    ht_pool_function function;
    void *context;
    size_t items, grain;
    _Alignas(64) atomic_size_t next;
    _Alignas(64) atomic_uint round; /* a futex word: advanced to start a loop */
    _Alignas(64) atomic_uint gate;  /* workers inside the loop; CLOSED: nobody may enter any more */
    atomic_int sleepers;
    atomic_bool restless; /* workers sleep at once, for somebody else needs their cores */
    atomic_bool stop;
};

static void take_items(ht_pool *pool, int thread) {
    for (;;) {
        size_t first = atomic_fetch_add_explicit(&pool->next, pool->grain, memory_order_relaxed);
        if (first >= pool->items)
            return;
        size_t end = ht_min_size(first + pool->grain, pool->items);
        for (size_t item = first; item < end; item++)
            pool->function(pool->context, item, thread);
    }
}

/* Returns once `round` differs from seen: spins first, then sleeps. */
static unsigned await_round(ht_pool *pool, unsigned seen) {
    uint64_t start = 0;
    for (unsigned i = 0;; i++) {
        unsigned now = atomic_load_explicit(&pool->round, memory_order_acquire);
        if (now != seen)
            return now;
        ht_relax();
        if (i % 64 != 63)
            continue;
        uint64_t time = ht_nanoseconds();
        if (!start)
            start = time;
        if (time - start < SPIN_NS && !atomic_load_explicit(&pool->restless, memory_order_relaxed))
            continue;
        atomic_fetch_add(&pool->sleepers, 1);
        /* a round that began before the line above is seen by the kernel's own comparison */
        ht_os_wait_on(&pool->round, seen);
        atomic_fetch_sub(&pool->sleepers, 1);
        start = 0;
    }
}

typedef struct worker_start {
    ht_pool *pool;
    int thread;
} worker_start;

static void pin_thread(const ht_cores *cores, int thread) {
    const int n = ht_cores_count(cores);
    if (n == 0)
        return;
    int core = ht_cores_next(cores, 0);
    for (int skip = thread % n; skip > 0; skip--)
        core = ht_cores_next(cores, core + 1);
    const ht_cores own = ht_cores_one(core);
    if (!ht_os_set_affinity(&own))
        ht_log(HT_LOG_WARN, "cpu: cannot pin a thread to core %d", core);
}

static void *worker_main(void *argument) {
    worker_start start = *(worker_start *)argument;
    free(argument);
    ht_pool *pool = start.pool;
    pin_thread(&pool->cores, start.thread);
    unsigned seen = 0; /* the pool's first round is 1: no loop can be missed */
    for (;;) {
        seen = await_round(pool, seen);
        if (atomic_load(&pool->stop))
            return NULL;
        unsigned gate = atomic_load_explicit(&pool->gate, memory_order_relaxed);
        while (!(gate & CLOSED) && !atomic_compare_exchange_weak_explicit(&pool->gate, &gate, gate + 1,
                                                                          memory_order_acquire, memory_order_relaxed))
            ;
        if (gate & CLOSED)
            continue;
        take_items(pool,
                   start.thread); /* of this round or a later one: what it reads was written before the gate opened */
        atomic_fetch_sub_explicit(&pool->gate, 1, memory_order_release);
    }
}

ht_status ht_pool_create(int threads, const ht_cores *cores, ht_pool **out, ht_error *error) {
    if (threads < 1 || threads > HT_MAX_THREADS)
        return ht_fail(error, HT_ERROR_ARGUMENT, "threads: must be from 1 to %d (got %d)", HT_MAX_THREADS, threads);
    ht_pool *pool = ht_pages_alloc(sizeof *pool); /* its counters have cache lines of their own */
    pthread_t *workers = calloc((size_t)threads, sizeof *workers);
    if (!pool || !workers) {
        ht_pages_free(pool, sizeof *pool), free(workers);
        return ht_fail(error, HT_ERROR_MEMORY, "no memory for a pool of %d threads", threads);
    }
    pool->threads = threads;
    pool->cores = *cores;
    pool->workers = workers;
    atomic_init(&pool->gate, CLOSED);
    for (int i = 1; i < threads; i++) {
        worker_start *start = malloc(sizeof *start);
        if (start)
            *start = (worker_start){pool, i};
        if (!start || pthread_create(&workers[pool->started], NULL, worker_main, start) != 0) {
            free(start);
            ht_pool_destroy(pool);
            return ht_fail(error, HT_ERROR_MEMORY, "cannot start thread %d of %d", i + 1, threads);
        }
        pool->started++;
    }
    *out = pool;
    return HT_OK;
}

static void start_round(ht_pool *pool) {
    atomic_fetch_add_explicit(&pool->round, 1, memory_order_seq_cst);
    if (atomic_load_explicit(&pool->sleepers, memory_order_seq_cst) > 0)
        ht_os_wake_all(&pool->round);
}

void ht_pool_destroy(ht_pool *pool) {
    if (!pool)
        return;
    atomic_store(&pool->stop, true);
    start_round(pool);
    for (int i = 0; i < pool->started; i++)
        pthread_join(pool->workers[i], NULL);
    free(pool->workers);
    ht_pages_free(pool, sizeof *pool);
}

void ht_pool_yield(ht_pool *pool, bool yield) {
    atomic_store_explicit(&pool->restless, yield, memory_order_relaxed);
}

int ht_pool_threads(const ht_pool *pool) {
    return pool->threads;
}

void ht_pool_run(ht_pool *pool, ht_pool_function function, void *context, size_t items, size_t grain) {
    if (pool->started == 0 || items <= grain) { /* nothing to share: wake nobody */
        for (size_t i = 0; i < items; i++)
            function(context, i, 0);
        return;
    }
    pool->function = function;
    pool->context = context;
    pool->items = items;
    pool->grain = grain ? grain : 1;
    atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
    atomic_store_explicit(&pool->gate, 0, memory_order_release);
    start_round(pool);
    take_items(pool, 0);
    atomic_fetch_or_explicit(&pool->gate, CLOSED, memory_order_relaxed);
    for (unsigned i = 0; atomic_load_explicit(&pool->gate, memory_order_acquire) != CLOSED; i++) {
        ht_relax();
        if (i > 20000)
            ht_os_yield(), i = 0; /* a worker was descheduled: let it have this core */
    }
}

/* ---- how many
 * ------------------------------------------------------------------------------------------------------------- */

static double quota; /* of cores' time; 0: none */

static void find_quota(void) {
    quota = ht_os_cpu_quota("");
}

int ht_default_threads(const ht_cores *cores) {
    const int n = ht_cores_count(cores);
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, find_quota);
    return quota > 0 && quota < n ? (int)ceil(quota) : n;
}
