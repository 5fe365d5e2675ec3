/* EXPERTS and ROUTE on the CPU device: for each expert that some token has chosen one product of its tokens with each
 * of its matrices. All threads share each step, and nothing is read of experts that nobody has chosen. */
#ifndef HT_CPU_EXPERTS_H
#define HT_CPU_EXPERTS_H

#include "device/cpu/kernels.h"
#include "device/device.h"

/* Memory that all EXPERTS tasks of a device share; zeroed before the first. Grows while tasks are prepared. */
typedef struct ht_experts_room {
    uint8_t *pages;
    size_t bytes;
} ht_experts_room;

/* What the device lends. */
typedef struct ht_cpu_tools {
    const ht_cpu_kernels *kernels;
    ht_pool *pool;
    int threads;
    ht_precision precision;
    size_t max_tokens; /* of one submit */
    float *
        scratch; /* [threads][scratch_floats]: strip_scratch(max_tokens) at the front, max_tokens strips from `aside` on */
    size_t scratch_floats, aside;
    ht_experts_room *room;
} ht_cpu_tools;

typedef struct ht_experts ht_experts; /* a slice of an operator, packed */

/* NULL: the device computes this slice; else why not. A share (of not 0) is of experts, a reduction range is of features. */
const char *ht_experts_refuse(const ht_op *op, const ht_slice *slice);
/* slice: spelt out, here and below. HT_ERROR_MEMORY; HT_ERROR_FORMAT: a weight is no number. */
ht_status ht_experts_prepare(const ht_cpu_tools *tools, const ht_op *op, const ht_slice *slice, ht_experts **out,
                             ht_error *error);
void ht_experts_release(ht_experts *experts); /* NULL: nothing */
size_t ht_experts_bytes(const ht_experts *experts);
/* Slot `out` of the binding's tokens: the sum over the slice's experts, in their order, whatever else the pool does;
 * binding->adds: added to what is there. */
void ht_experts_run(const ht_cpu_tools *tools, const ht_experts *experts, const ht_slice *slice,
                    const ht_binding *binding);
/* ROUTE of one token: `out` may be `in`. */
void ht_route_token(const ht_op *op, const float *in, float *out);

#endif
