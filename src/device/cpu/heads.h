/* HEADS on the CPU device: each head's own matrix, packed by itself. All heads' activations are packed in one loop and
 * all their strips multiplied in the next, as many heads at once as there is room for. */
#ifndef HT_CPU_HEADS_H
#define HT_CPU_HEADS_H

#include "device/cpu/experts.h"

typedef struct ht_head_matrices ht_head_matrices; /* of a whole operator */

/* tools->room is the activations' here and below. HT_ERROR_MEMORY; HT_ERROR_FORMAT: a weight is no number. */
ht_status ht_heads_prepare(const ht_cpu_tools *tools, const ht_op *op, ht_head_matrices **out, ht_error *error);
void ht_heads_release(ht_head_matrices *matrices); /* NULL: nothing */
size_t ht_heads_bytes(const ht_head_matrices *matrices);
/* Of the binding's tokens the query heads of `own`; what is copied behind the last head, too, where it makes one's keys. */
void ht_heads_run(const ht_cpu_tools *tools, const ht_head_matrices *matrices, const ht_heads *own,
                  const ht_binding *binding);

#endif
