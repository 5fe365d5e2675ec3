/* What the files of the OpenCL device share: opencl.c finds, opens and queues; matmul.c packs weights and launches
 * kernels. */
#ifndef HT_OPENCL_H
#define HT_OPENCL_H

#include "device/common.h"
#include "device/opencl/cl_loader.h"

#if HT_HAVE_OPENCL

#define HT_CL_MAX_REGIONS 64 /* imported ranges */
#define HT_CL_IN_FLIGHT 256  /* submits whose events are kept; a further one waits for the oldest */

/* How kernels are built and launched on a kind of processor: one row of a table (opencl.c). */
typedef struct ht_cl_variant {
    cl_device_type type;
    unsigned tile;     /* tokens a work-item computes at once when there are several */
    size_t local_rows; /* work-group: blocks of rows; 1: PoCL hands whole groups to its threads */
} ht_cl_variant;

typedef struct ht_cl_region { /* memory of the pool */
    char *host;
    size_t bytes;
    cl_mem memory;
} ht_cl_region;

/* Where a slot's [tokens][first, first + width) lies: its buffer, and the offset of token 0's first value in floats. */
typedef struct ht_cl_place {
    const ht_cl_region *region;
    cl_ulong offset;
    size_t width, stride;
} ht_cl_place;

typedef struct ht_cl_kernels { /* of one code width and tile */
    cl_program program;
    cl_kernel matmul, group_sums;
} ht_cl_kernels;

typedef struct ht_cl_device {
    ht_device base;
    ht_device_caps caps;
    const ht_cl *cl;
    const ht_cl_variant *variant;
    cl_device_id id;
    bool is_sub_device, mirrored;
    cl_context context;
    cl_command_queue queue;
    ht_cl_kernels kernels[2][2]; /* [8 bits][several tokens] */
    ht_cl_region regions[HT_CL_MAX_REGIONS];
    size_t n_regions;
    size_t max_tokens;
    cl_mem sums; /* group sums of activations, [max_tokens][groups of the widest task] */
    size_t sums_bytes;
    cl_event events[HT_CL_IN_FLIGHT]; /* of ticket t at t % HT_CL_IN_FLIGHT, for done < t <= last */
    ht_ticket last, done;
    cl_int failed; /* first error a command ended with; every later wait tells it */
} ht_cl_device;

struct ht_task {
    const ht_op *op;
    ht_slice slice;
    ht_form form;
    cl_uint rows, groups;
    cl_mem codes, scales, offsets, bias; /* offsets NULL if the form has none */
    size_t bytes;
};

/* ht_device_ops.prepare and release. */
ht_status ht_cl_matmul_prepare(ht_device *device, const ht_op *op, const ht_slice *slice, ht_task **out,
                               ht_error *error);
void ht_cl_matmul_release(ht_device *device, ht_task *task);
/* Enqueues the task's kernels; *event (may be NULL) is the last one's. */
ht_status ht_cl_matmul_enqueue(ht_cl_device *d, ht_task *task, const ht_cl_place *in, const ht_cl_place *out,
                               cl_uint tokens, cl_event *event, ht_error *error);

#endif
#endif
