/* Operators with shapes of their own, and what a share of one may change. */
#ifndef HT_TEST_SHARES_H
#define HT_TEST_SHARES_H

#include "ops/products.h"

/* The operator says its heads and widths itself: its layer is not as large as others. */
static ht_op shaped(const bench *b, ht_op op, const ht_hparams *h) {
    if (!b->own_shape)
        return op;
    if (op.kind == HT_OP_ROPE || op.kind == HT_OP_ATTENTION)
        op.heads = h->heads, op.kv_heads = h->kv_heads, op.head_dim = h->head_dim;
    else
        op.width = op.kind == HT_OP_NORM ? h->embedding : op.kind == HT_OP_GLU ? h->feed_forward : h->vocabulary;
    return op;
}

/* ---- shares ------------------------------------------------------------------------------------------------------------------------ */

/* A slot, or keys or values, as it was and as the whole operator leaves it. */
typedef struct snapshot {
    void *data, *before, *after;
    size_t bytes;
} snapshot;

static snapshot snapshot_of(void *data, size_t bytes) {
    snapshot s = {data, malloc(bytes), malloc(bytes), bytes};
    memcpy(s.before, data, bytes);
    return s;
}

/* What the whole operator made of it is kept, and it is as it was. */
static void take_back(snapshot *s) {
    memcpy(s->after, s->data, s->bytes);
    memcpy(s->data, s->before, s->bytes);
}

static void free_snapshot(snapshot *s) {
    free(s->before), free(s->after);
}

/* Query heads (or features) up to `done`, and key-value heads whose first query head is one, are exactly as the
 * whole operator leaves them, the others as before. The slot has `heads` heads of `dim` values and then any number
 * of `kvs` more. */
static void check_done(const bench *b, const char *what, const snapshot *s, ht_slot slot, size_t tokens, size_t dim,
                       size_t heads, size_t kvs, size_t more, size_t done) {
    const size_t stride = b->slots[slot].stride;
    for (size_t t = 0; t < tokens; t++)
        for (size_t c = 0; c < (heads + more * kvs) * dim; c++) {
            const size_t head = c / dim, query = head < heads ? head : (head - heads) % kvs * (heads / kvs);
            const float *want = query < done ? s->after : s->before;
            check((double)((const float *)s->data)[t * stride + c], (double)want[t * stride + c], 0, what, b->name, t,
                  c);
        }
}

#endif
