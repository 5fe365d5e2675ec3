/* What an operator's slice is to a simulated processor: seconds alone, bytes, operations (the laws of soc.h). */
#ifndef HT_SIM_LAW_H
#define HT_SIM_LAW_H

#include "device/sim/machine.h"

/* Which operand of an NPU's product stays in the array while the other streams through. */
typedef enum ht_sim_order {
    HT_SIM_BEST,              /* whichever takes less */
    HT_SIM_ACTIVATIONS_FIRST, /* [tokens, K] x [K, rows] as the model has it: the second operand, the weights, stays */
    HT_SIM_WEIGHTS_FIRST      /* its transpose: activations stay */
} ht_sim_order;

/* How an engine holds activations. */
typedef enum ht_sim_activations { HT_SIM_FP16, HT_SIM_INT16, HT_SIM_INT8 } ht_sim_activations;

typedef struct ht_law {
    const ht_soc *soc;
    const ht_soc_processor *processor;
    const ht_hparams *hparams;
    ht_kv_type kv_type;
    ht_sim_order order;
    /* Of another engine than ours; 0 is what this project does, or what the processor reaches. */
    ht_sim_activations activations;
    double weight_bits;                   /* of a weight, scales included; 0: as the model's file has it */
    double kv_bytes;                      /* of a value in the KV cache; 0: by kv_type */
    size_t context;                       /* keys that attention computes over; 0: those that there are */
    double matrix_share, bandwidth_share; /* of what the processor reaches; 0: all of it */
    double expand;                        /* weights a second that are expanded to fp16; 0: as the processor does */
    size_t few;      /* NPUs: the vector unit computes products of fewer tokens than this; 0: none */
    double few_rate; /* operations a second that it does of these */
    bool whole;      /* NPUs: all operators are one graph; what passes between them stays on the chip */
} ht_law;

/* `tokens` tokens from `position` on, of the slice; a graph's length where graphs are static. */
ht_work ht_law_work(const ht_law *law, const ht_op *op, const ht_slice *slice, size_t tokens, size_t position);
/* Weights of a slice of a MATMUL or FFN: their number, and their bytes in the model's file. */
void ht_law_weights(const ht_op *op, const ht_slice *slice, double *count, double *bytes);

#endif
