/* Kernels: built or read from the disk (program.c), and launched (launch.c). */
#ifndef HT_OPENCL_KERNEL_H
#define HT_OPENCL_KERNEL_H

#include "device/opencl/opencl.h"

#if HT_HAVE_OPENCL

/* The kernel `name` of source file `source` (without ".cl"), built with the device's own options and `options`
 * ("-DBITS=4 -DMINS=1"). Built, or read from the disk, at the first call for (source, options) and kept; a build is
 * reported through the device's progress. The kernel belongs to the device. HT_ERROR_DEVICE with the kernel, the device
 * and the first line of the build log (all of it goes to the log). */
ht_status ht_cl_kernel(ht_cl_device *d, const char *source, const char *name, const char *options, cl_kernel *kernel,
                       ht_error *error);
/* Another object of the same kernel, with arguments of its own; the caller releases it. */
ht_status ht_cl_kernel_copy(ht_cl_device *d, cl_kernel kernel, cl_kernel *copy, ht_error *error);
void ht_cl_programs_release(ht_cl_device *d);

typedef struct ht_cl_argument {
    size_t bytes;
    const void *value; /* NULL: local memory of `bytes` */
} ht_cl_argument;
#define HT_CL_ARGUMENT(x) \
    { sizeof(x), &(x) }

typedef struct ht_cl_grid {
    cl_uint dims;
    const size_t *global; /* work-items */
    const size_t *local;  /* of a group; NULL: the driver's choice */
} ht_cl_grid;

/* Enqueues kernel with arguments[0..n) over the grid's work-items. A task launches copies of its
 * own, of which only the arguments that changed are set again: half of what a launch costs the host is that. `task` NULL:
 * the kernel itself. */
ht_status ht_cl_launch(ht_cl_device *d, ht_task *task, cl_kernel kernel, const ht_cl_argument *arguments, size_t n,
                       const ht_cl_grid *grid, ht_error *error);

#endif
#endif
