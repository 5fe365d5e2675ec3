/* Threads that share one parallel loop at a time. */
#ifndef HT_POOL_H
#define HT_POOL_H

#include "base/base.h"
#include "base/cores.h"

typedef struct ht_pool ht_pool;
typedef void (*ht_pool_function)(void *context, size_t item, int thread);
/* cores: to pin to, one thread each, in turn; none: not pinned. The caller is thread 0 of every loop; threads - 1
 * workers are made. */
ht_status ht_pool_create(int threads, const ht_cores *cores, ht_pool **pool, ht_error *error);
void ht_pool_destroy(ht_pool *pool);
/* From the next loop's end on, workers sleep at once (true) or spin for a while first. */
void ht_pool_yield(ht_pool *pool, bool yield);
int ht_pool_threads(const ht_pool *pool);
/* function(context, i, thread) for i in [0, items), in any order, on all threads; returns when all are done. Items are
 * handed out `grain` at a time. */
void ht_pool_run(ht_pool *pool, ht_pool_function function, void *context, size_t items, size_t grain);

/* The number of threads that compute on some cores unless somebody says otherwise: one for each, but no more than the
 * quota of this process's control group pays for. */
int ht_default_threads(const ht_cores *cores);

#endif
