/* What several devices share: lists, cores, waiting. Not part of the seam. */
#ifndef HT_DEVICE_COMMON_H
#define HT_DEVICE_COMMON_H

#include "base/pool.h"
#include "device/device.h"

/* Appends a copy of *info to a list grown with realloc: what ht_device_ops.list fills. */
ht_status ht_device_list_add(ht_device_info **list, size_t *n, const ht_device_info *info, ht_error *error);

/* The cores that this process may use. */
const ht_cores *ht_all_cores(void);

/* The calling thread stays on these cores until ht_leave_cores, where the system lets it; NULL, none, or where it is
 * already: no change. */
typedef struct ht_stay {
    bool moved;
    ht_cores before;
} ht_stay;
void ht_stay_on(const ht_cores *cores, ht_stay *stay);
/* The same on the core it is on, with all threads it makes until then: for a virtual clock's, of which one runs at a
 * time. */
void ht_stay_here(ht_stay *stay);
void ht_leave_cores(ht_stay *stay); /* a second time does nothing */

/* Blocks until every dependency on another device than `self` is complete (an in-order queue keeps its own order). For
 * devices that cannot wait in their own queue. */
ht_status ht_wait_all(const ht_device *self, const ht_dependency *after, size_t n_after, ht_sync sync, ht_error *error);

#endif
