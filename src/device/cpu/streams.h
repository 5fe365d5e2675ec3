/* What families do to streams beside adding and norming: MIX, special NORMs and sparse GLUs of one token each
 * (streams.c). */
#ifndef HT_CPU_STREAMS_H
#define HT_CPU_STREAMS_H

#include "device/cpu/kernels.h"
#include "device/device.h"

/* Floats that one of these needs, of rows so wide. */
static inline size_t ht_streams_scratch(size_t width) {
    return 2 * width;
}
/* Token t of a submit; scratch: ht_streams_scratch of the operator's width. */
void ht_mix_token(const ht_op *op, size_t width, const ht_binding *b, size_t t, float *scratch);
void ht_norm_special(const ht_cpu_kernels *kernels, const ht_op *op, size_t width, const ht_binding *b, size_t t,
                     float *scratch);
/* Of `width` gates what is above mean + sparsity * deviation, 0 for the others; may be in place. */
void ht_sparse_gates(float sparsity, const float *gates, size_t width, float *out);

#endif
