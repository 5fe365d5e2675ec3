/* Buffers, imported memory, where slots lie in it, and transfers (memory.c). */
#ifndef HT_OPENCL_MEMORY_H
#define HT_OPENCL_MEMORY_H

#include "device/opencl/opencl.h"

#if HT_HAVE_OPENCL

/* A device buffer; HT_ERROR_DEVICE with both sizes when it is larger than the device's largest allocation. */
ht_status ht_cl_buffer(ht_cl_device *d, size_t bytes, cl_mem_flags flags, const char *what, cl_mem *memory,
                       ht_error *error);
/* The same, filled with data[0..bytes) before it returns. */
ht_status ht_cl_upload(ht_cl_device *d, const void *data, size_t bytes, const char *what, cl_mem *memory,
                       ht_error *error);
/* Releases a buffer. Its handle may come again for another: arguments that were set before are no longer known. */
void ht_cl_drop(ht_cl_device *d, cl_mem memory);
/* The device's scratch buffer number `which`, at least `bytes` large; contents do not survive a submit. */
ht_status ht_cl_scratch(ht_cl_device *d, int which, size_t bytes, ht_error *error);
void ht_cl_memory_release(ht_cl_device *d);

/* Places of everything op reads and writes in this submit. */
typedef struct ht_cl_call {
    const ht_binding *binding;
    cl_uint tokens;
    size_t shape_tokens; /* kernels are chosen for this many: `tokens` but when a task is warmed */
    ht_slice part;       /* what to compute, as ht_cl_resolve says it */
    ht_cl_place in, aux, out, pieces[HT_MAX_PIECES]; /* aux: of NORM; of others their side input, more[0] */
    size_t n_pieces;
    const ht_cl_region *keys, *values;   /* ROPE, ATTENTION */
    cl_ulong keys_offset, values_offset; /* in bytes, from the region's beginning to the layer's */
    const ht_cl_region *state;           /* of recurrent mixers */
    cl_ulong state_offset;               /* in floats, likewise */
} ht_cl_call;

ht_status ht_cl_import(ht_device *device, void *host, size_t bytes, ht_error *error);
void ht_cl_forget(ht_device *device, void *host);
ht_status ht_cl_find_places(ht_cl_device *d, const ht_task *task, const ht_binding *binding, ht_cl_call *call,
                            ht_error *error);
/* Before the kernels: what other processors wrote since. After them: what others read. Nothing on unified memory. */
ht_status ht_cl_bring_in(ht_cl_device *d, const ht_task *task, const ht_cl_call *call, ht_error *error);
ht_status ht_cl_hand_out(ht_cl_device *d, const ht_task *task, const ht_cl_call *call, ht_error *error);

#endif
#endif
