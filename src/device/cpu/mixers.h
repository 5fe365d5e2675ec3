/* Recurrent mixers on the CPU device: CONV, DELTA_NET, SCAN (mixers.c). */
#ifndef HT_CPU_MIXERS_H
#define HT_CPU_MIXERS_H

#include "device/cpu/kernels.h"
#include "device/device.h"

/* One submit of such an operator. */
typedef struct ht_mixer_job {
    const ht_cpu_kernels *kernels;
    ht_pool *pool;
    const ht_op *op;
    const ht_binding *binding;
    ht_slice slice;   /* spelt out: of 0 is all */
    ht_hparams shape; /* the operator's */
    float *scratch;   /* ht_mixer_scratch floats, 64-byte aligned */
} ht_mixer_job;

static inline bool ht_is_mixer(const ht_op *op) {
    return op->kind == HT_OP_CONV || op->kind == HT_OP_DELTA_NET || op->kind == HT_OP_SCAN;
}
/* Floats that its submits need, whatever their tokens, on so many threads. */
size_t ht_mixer_scratch(const ht_op *op, const ht_hparams *shape, int threads);
/* Computes it, on all threads of the pool. */
void ht_mixer_run(const ht_mixer_job *job);

#endif
