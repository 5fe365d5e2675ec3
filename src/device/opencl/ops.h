/* What the device does for each kind of operator (ops.c; attention.c). */
#ifndef HT_OPENCL_OPS_H
#define HT_OPENCL_OPS_H

#include "device/opencl/memory.h"

#if HT_HAVE_OPENCL

/* What the device does for a kind of operator: one row a kind (ops.c, matmul.c). prepare fills task's own fields and has
 * every kernel built that a submit of up to max_tokens may use. */
typedef struct ht_cl_op_row {
    const char *(*refuses)(const ht_cl_device *d, const ht_op *op, const ht_slice *slice);
    ht_status (*prepare)(ht_cl_device *d, ht_task *task, ht_error *error);
    ht_status (*enqueue)(ht_cl_device *d, ht_task *task, const ht_cl_call *call, ht_error *error);
} ht_cl_op_row;
extern const ht_cl_op_row ht_cl_ops[HT_OP_KINDS];
const char *ht_cl_refuses(const ht_device *device, const ht_op *op, const ht_slice *slice);
const char *ht_cl_refuses_part(const ht_device *device, const ht_op *op, const ht_slice *part);

ht_status ht_cl_attention_prepare(ht_cl_device *d, ht_task *task, ht_error *error);
ht_status ht_cl_attention_enqueue(ht_cl_device *d, ht_task *task, const ht_cl_call *call, ht_error *error);
/* CONV, DELTA_NET and SCAN (mixers.c). */
const char *ht_cl_mixer_refuses(const ht_cl_device *d, const ht_op *op, const ht_slice *slice);
ht_status ht_cl_mixer_prepare(ht_cl_device *d, ht_task *task, ht_error *error);
ht_status ht_cl_mixer_enqueue(ht_cl_device *d, ht_task *task, const ht_cl_call *call, ht_error *error);

#endif
#endif
