/* Special NORMs, sparse GLUs and MIX (streams.c): rows of the table of operators (ops.h), or parts of what others do. */
#ifndef HT_OPENCL_STREAMS_H
#define HT_OPENCL_STREAMS_H

#include "device/opencl/memory.h"

#if HT_HAVE_OPENCL

ht_status ht_cl_mix_prepare(ht_cl_device *d, ht_task *task, ht_error *error);
ht_status ht_cl_mix_enqueue(ht_cl_device *d, ht_task *task, const ht_cl_call *call, ht_error *error);
ht_status ht_cl_norm_special_prepare(ht_cl_device *d, ht_task *task, ht_error *error);
ht_status ht_cl_norm_special_enqueue(ht_cl_device *d, ht_task *task, const ht_cl_call *call, ht_error *error);
/* kernels[1]: gates of `in` that go on, to slot `out`, which then is what the GLU's other kernel takes them from. */
ht_status ht_cl_sparse_prepare(ht_cl_device *d, ht_task *task, ht_error *error);
ht_status ht_cl_sparse_enqueue(ht_cl_device *d, ht_task *task, const ht_cl_call *call, ht_error *error);

#endif
#endif
