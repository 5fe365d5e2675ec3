/* What several devices share: lists, cores, waiting. Not part of the seam. */
#ifndef HT_DEVICE_COMMON_H
#define HT_DEVICE_COMMON_H

#include "device/device.h"

#include <sched.h>

/* Appends a copy of *info to a list grown with realloc: what ht_device_ops.list fills. */
ht_status ht_device_list_add(ht_device_info **list, size_t *n, const ht_device_info *info, ht_error *error);

uint64_t ht_all_cores(void);                      /* bits of the machine's online cores */
int ht_core_count(uint64_t cores);                /* bits set */
#ifdef CPU_SETSIZE                                /* where _GNU_SOURCE is defined */
void ht_core_set(uint64_t cores, cpu_set_t *set); /* the same as the system's set */
#endif

/* The calling thread stays on these cores until ht_leave_cores, where the system lets it; 0, or where it is already: no change. */
typedef struct ht_stay {
    bool moved;
    uint64_t before[16]; /* a cpu_set_t */
} ht_stay;
void ht_stay_on(uint64_t cores, ht_stay *stay);
/* The same on the core it is on, with all threads it makes until then: for a virtual clock's, of which one runs at a time. */
void ht_stay_here(ht_stay *stay);
void ht_leave_cores(ht_stay *stay); /* a second time does nothing */

/* Blocks until every dependency on another device than `self` is complete (an in-order queue keeps its own order). For
 * devices that cannot wait in their own queue. */
ht_status ht_wait_all(const ht_device *self, const ht_dependency *after, size_t n_after, ht_sync sync, ht_error *error);

#endif
