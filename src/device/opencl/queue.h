/* Submits, tickets and the four ways to join (queue.c). */
#ifndef HT_OPENCL_QUEUE_H
#define HT_OPENCL_QUEUE_H

#include "device/opencl/opencl.h"

#if HT_HAVE_OPENCL

/* `limit`: seconds without progress after which a wait gives up. */
ht_status ht_cl_queue_create(ht_cl_device *d, double limit, ht_error *error);
void ht_cl_queue_release(ht_cl_device *d);
ht_status ht_cl_submit(ht_device *device, ht_task *task, const ht_binding *binding, const ht_dependency *after,
                       size_t n_after, ht_ticket *ticket, ht_error *error);
ht_status ht_cl_warm(ht_device *device, ht_task *task, size_t tokens, ht_error *error);
ht_ticket ht_cl_completed(ht_device *device);
ht_status ht_cl_wait(ht_device *device, ht_ticket ticket, ht_sync sync, ht_error *error);

#endif
#endif
