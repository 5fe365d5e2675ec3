/* What is asked of operators and slots: sizes, parts, blocks. */
#include "model/model.h"

#include <stdio.h>

size_t ht_slot_width(const ht_hparams *h, ht_slot slot) {
    const size_t embedding = (size_t)h->embedding, head_dim = (size_t)h->head_dim;
    switch (slot) {
    case HT_SLOT_IDS:
    case HT_SLOT_PICK:
        return 1;
    case HT_SLOT_X:
    case HT_SLOT_NORMED:
    case HT_SLOT_DELTA:
        return embedding;
    case HT_SLOT_QKV:
        return ((size_t)h->heads + 2 * (size_t)h->kv_heads) * head_dim;
    case HT_SLOT_ATTN:
        return (size_t)h->heads * head_dim;
    case HT_SLOT_FFN:
        return 2 * (size_t)h->feed_forward;
    case HT_SLOT_ACT:
        return (size_t)h->feed_forward;
    case HT_SLOT_LOGITS:
        return (size_t)h->vocabulary;
    default:
        return 0;
    }
}

ht_hparams ht_op_shape(const ht_op *op, const ht_hparams *model) {
    ht_hparams h = *model;
    if (op->heads)
        h.heads = op->heads, h.kv_heads = op->kv_heads, h.head_dim = op->head_dim;
    if (op->width && op->kind == HT_OP_NORM)
        h.embedding = op->width;
    else if (op->width && op->kind == HT_OP_GLU)
        h.feed_forward = op->width;
    else if (op->width)
        h.vocabulary = op->width;
    return h;
}

static uint32_t bit(ht_slot slot) {
    return slot == HT_SLOT_NONE ? 0 : 1u << slot;
}

uint32_t ht_op_reads(const ht_op *op) {
    return bit(op->in) | (op->kind == HT_OP_NORM ? bit(op->aux) : 0) | (op->kind == HT_OP_ATTENTION ? HT_BIT_KV : 0);
}

uint32_t ht_op_writes(const ht_op *op) {
    /* a NORM with aux adds it to its input */
    return bit(op->out) | (op->kind == HT_OP_NORM ? bit(op->aux == HT_SLOT_NONE ? HT_SLOT_NONE : op->in) : 0) |
           (op->kind == HT_OP_ROPE ? HT_BIT_KV : 0);
}

size_t ht_op_rows(const ht_op *op) {
    size_t rows = 0;
    for (int i = 0; i < op->n_parts; i++)
        rows += op->parts[i].rows;
    return rows;
}

size_t ht_op_cols(const ht_op *op) {
    return op->n_parts > 0 ? op->parts[0].cols : 0;
}

int ht_op_part(const ht_op *op, size_t row, size_t *local) {
    int part = 0;
    while (part + 1 < op->n_parts && row >= op->parts[part].rows)
        row -= op->parts[part++].rows;
    *local = row;
    return part;
}

void ht_op_drop_pages(const ht_op *op) {
    for (int i = 0; op->kind == HT_OP_FFN && i < 3; i++)
        ht_op_drop_pages(&op->members[i]);
    for (int p = 0; op->kind == HT_OP_MATMUL && p < op->n_parts; p++)
        if (op->parts[p].data)
            ht_mapping_drop(op->parts[p].data, op->parts[p].rows * op->parts[p].row_bytes);
}

bool ht_op_ffn(const ht_op *ops, size_t n, ht_op *ffn) {
    if (n < 3 || ops[0].kind != HT_OP_MATMUL || ops[1].kind != HT_OP_GLU || ops[2].kind != HT_OP_MATMUL ||
        ops[0].n_parts != 2 || ops[2].n_parts != 1 || ops[0].parts[0].rows != ops[0].parts[1].rows ||
        ops[0].out != ops[1].in || ops[1].out != ops[2].in)
        return false;
    *ffn = (ht_op){.kind = HT_OP_FFN,
                   .layer = ops[0].layer,
                   .block = ops[0].block,
                   .cache = -1,
                   .in = ops[0].in,
                   .aux = HT_SLOT_NONE,
                   .out = ops[2].out,
                   .activation = ops[1].activation,
                   .members = ops};
    if (ffn->layer >= 0)
        snprintf(ffn->name, sizeof ffn->name, "blk.%d.ffn", ffn->layer);
    else
        snprintf(ffn->name, sizeof ffn->name, "ffn");
    return true;
}
