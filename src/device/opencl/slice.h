/* Which rows and columns of an operator a slice or a part means (slice.c). */
#ifndef HT_OPENCL_SLICE_H
#define HT_OPENCL_SLICE_H

#include "device/opencl/opencl.h"

#if HT_HAVE_OPENCL

/* What a share of an operator is counted in; 0: it has none. */
size_t ht_cl_units_of(const ht_cl_device *d, const ht_op *op);
/* A slice in one form, whichever way it was said. MATMUL: of 0 where that says the same, columns always a range. ROPE,
 * ATTENTION, GLU, EXPERTS: rows are heads (ht_slice_heads), features or experts, all of them where the slice is whole, and
 * columns features of EXPERTS. Others: zeros. */
ht_slice ht_cl_resolve(const ht_cl_device *d, const ht_op *op, const ht_slice *slice);
/* Is it the whole operator? */
bool ht_cl_is_whole(const ht_cl_device *d, const ht_op *op, const ht_slice *slice);
/* Appends columns to a place, to its last run where they follow on it; none: nothing. */
void ht_cl_add_run(ht_cl_run runs[HT_MAX_PARTS], size_t *n, size_t first, size_t width);
/* The operator's rows in a resolved slice of a MATMUL, ascending; returns how many runs. */
size_t ht_cl_matmul_runs(const ht_op *op, const ht_slice *slice, ht_cl_run runs[HT_MAX_PARTS]);

#endif
#endif
