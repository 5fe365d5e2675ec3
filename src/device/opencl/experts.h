/* ROUTE and EXPERTS (experts.c): rows of the table of operators (ops.h). */
#ifndef HT_OPENCL_EXPERTS_H
#define HT_OPENCL_EXPERTS_H

#include "device/opencl/memory.h"

#if HT_HAVE_OPENCL

ht_status ht_cl_route_prepare(ht_cl_device *d, ht_task *task, ht_error *error);
ht_status ht_cl_route_enqueue(ht_cl_device *d, ht_task *task, const ht_cl_call *call, ht_error *error);
/* A task has all experts; parts of it, by experts and by features, are chosen at submit. */
const char *ht_cl_experts_refuses(const ht_cl_device *d, const ht_op *op, const ht_slice *slice);
const char *ht_cl_experts_refuses_part(const ht_cl_device *d, const ht_op *op, const ht_slice *part);
ht_status ht_cl_experts_prepare(ht_cl_device *d, ht_task *task, ht_error *error);
ht_status ht_cl_experts_enqueue(ht_cl_device *d, ht_task *task, const ht_cl_call *call, ht_error *error);

#endif
#endif
