/* Packed matrices, and buffers that tasks share (weights.c). */
#ifndef HT_OPENCL_WEIGHTS_H
#define HT_OPENCL_WEIGHTS_H

#include "device/opencl/opencl.h"

#if HT_HAVE_OPENCL

/* Rows [row, row + n) of an operator's parts, columns [col, col + cols), packed for this device. Parts must be of one
 * form. */
ht_status ht_cl_weights_create(ht_cl_device *d, const ht_op *op, size_t row, size_t n, size_t col, size_t cols,
                               ht_cl_weights *weights, ht_error *error);
void ht_cl_weights_release(ht_cl_device *d, ht_cl_weights *weights);
ht_cl_form ht_cl_form_of(const ht_type_traits *type);
/* "-DBITS=4 -DGROUP=32 -DHALF_SCALES=1 -DMINS=0": what codec.clh wants. */
void ht_cl_form_options(const ht_cl_form *form, char *out, size_t capacity);
bool ht_cl_same_form(const ht_cl_form *a, const ht_cl_form *b);

/* The shared buffer of (host, kind), made from data[0..bytes) if it is not there; released by as many calls of unshare. */
ht_status ht_cl_share(ht_cl_device *d, const void *host, uint64_t kind, const void *data, size_t bytes,
                      const char *what, cl_mem *memory, ht_error *error);
void ht_cl_unshare(ht_cl_device *d, cl_mem memory);
/* A table of n floats that tasks may share, as task->tables[which]; values NULL: none. */
ht_status ht_cl_table(ht_cl_device *d, ht_task *task, size_t which, const float *values, size_t n, ht_error *error);

#endif
#endif
