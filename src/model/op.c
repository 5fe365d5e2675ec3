/* What is asked of operators and slots: sizes, parts, blocks. */
#include "model/model.h"

#include <stdio.h>

uint32_t ht_model_slots(const ht_model *model, ht_slot_role role) {
    uint32_t bits = 0;
    for (int i = 0; i < model->n_slots; i++)
        bits |= (uint32_t)(model->slots[i].role == role) << i;
    return bits;
}

ht_slot ht_model_slot(const ht_model *model, ht_slot_role role) {
    const uint32_t bits = ht_model_slots(model, role);
    return bits ? __builtin_ctz(bits) : HT_SLOT_NONE;
}

ht_hparams ht_op_shape(const ht_op *op, const ht_hparams *model) {
    ht_hparams h = *model;
    if (op->heads)
        h.heads = op->heads, h.kv_heads = op->kv_heads, h.head_dim = op->head_dim;
    switch (op->width ? op->kind : HT_OP_KINDS) {
    case HT_OP_NORM:
    case HT_OP_MIX:
        h.embedding = op->width;
        break;
    case HT_OP_GLU:
    case HT_OP_EXPERTS:
    case HT_OP_CONV:
        h.feed_forward = op->width;
        break;
    case HT_OP_ARGMAX:
        h.vocabulary = op->width;
        break;
    case HT_OP_EMBED: /* these have no width of their own: heads, or matrices, say it */
    case HT_OP_MATMUL:
    case HT_OP_ROPE:
    case HT_OP_ATTENTION:
    case HT_OP_ROUTE:
    case HT_OP_DELTA_NET:
    case HT_OP_SCAN:
    case HT_OP_HEADS:
    case HT_OP_FFN:
    case HT_OP_KINDS:
        break;
    }
    return h;
}

static void mix_widths(const ht_op *op, size_t n, size_t *in, size_t *out) {
    const size_t streams = (size_t)op->mix.streams;
    *in = *out = n;
    switch (op->mix.function) {
    case HT_MIX_SIDE:
        *in = *out = streams * n;
        break;
    case HT_MIX_BEGIN:
        *out = streams * n;
        break;
    case HT_MIX_GATHER:
        *out = (streams - 1) * n;
        break;
    case HT_MIX_END:
        *in = (streams - 1) * n;
        break;
    case HT_MIX_PREDICT:
    case HT_MIX_CORRECT:
        break;
    }
}

/* Widths of the slots that it reads and writes. */
static void find_widths(const ht_op *op, const ht_hparams *model, size_t *in, size_t *out) {
    const ht_hparams h = ht_op_shape(op, model);
    const size_t kept = op->shared ? 0 : op->value_dim ? 1 : 2; /* keys and values, beside queries */
    const size_t heads = (size_t)h.heads, kv_heads = (size_t)h.kv_heads, head_dim = (size_t)h.head_dim;
    switch (op->kind) {
    case HT_OP_EMBED:
        *in = 1, *out = ht_op_cols(op);
        break;
    case HT_OP_NORM:
        *in = *out = (size_t)h.embedding;
        break;
    case HT_OP_MATMUL:
        *in = ht_op_cols(op), *out = ht_op_rows(op);
        break;
    case HT_OP_ROPE:
        *in = *out = (heads + kept * kv_heads) * head_dim;
        break;
    case HT_OP_ATTENTION:
        *in = (heads + kept * kv_heads) * head_dim, *out = heads * head_dim;
        break;
    case HT_OP_MIX:
        mix_widths(op, (size_t)h.embedding, in, out);
        break;
    case HT_OP_GLU:
        *in = (op->n_more || op->ungated ? 1 : 2) * (size_t)h.feed_forward, *out = (size_t)h.feed_forward;
        break;
    case HT_OP_ROUTE:
        *in = *out = (size_t)op->experts;
        break;
    case HT_OP_EXPERTS:
        *in = ht_op_cols(op), *out = op->parts[op->n_parts - 1].rows / (size_t)op->experts;
        break;
    case HT_OP_CONV:
        *in = 3 * (size_t)h.feed_forward, *out = (size_t)h.feed_forward;
        break;
    case HT_OP_DELTA_NET:
        *in = 2 * kv_heads * (size_t)op->recurrence.key_dim, *out = heads * head_dim;
        break;
    case HT_OP_SCAN:
        *in = 2 * heads * head_dim + heads, *out = heads * head_dim;
        break;
    case HT_OP_HEADS:
        *in = heads * head_dim + (op->n_more ? 0 : op->n_copied);
        *out = ht_op_rows(op) + heads * (size_t)op->rest + op->n_copied;
        break;
    case HT_OP_ARGMAX:
        *in = (size_t)h.vocabulary, *out = 1;
        break;
    case HT_OP_FFN:
        *in = ht_op_cols(&op->members[0]), *out = ht_op_rows(&op->members[2]);
        break;
    case HT_OP_KINDS:
        *in = *out = 0;
        break;
    }
}

size_t ht_op_in_width(const ht_op *op, const ht_hparams *model) {
    size_t in = 0, out = 0;
    find_widths(op, model, &in, &out);
    return in;
}

size_t ht_op_out_width(const ht_op *op, const ht_hparams *model) {
    size_t in = 0, out = 0;
    find_widths(op, model, &in, &out);
    return out;
}

size_t ht_op_more_width(const ht_op *op, const ht_hparams *model) {
    const ht_hparams h = ht_op_shape(op, model);
    const size_t heads = (size_t)h.heads, head_dim = (size_t)h.head_dim;
    switch (op->n_more ? op->kind : HT_OP_KINDS) {
    case HT_OP_GLU:
        return (size_t)h.feed_forward;
    case HT_OP_EXPERTS:
        return (size_t)op->experts;
    case HT_OP_DELTA_NET:
        return 2 * heads * head_dim + 2 * heads;
    case HT_OP_SCAN:
        return 2 * (size_t)h.kv_heads * (size_t)op->recurrence.key_dim;
    case HT_OP_HEADS:
        return op->n_copied;
    case HT_OP_MIX:
        return (size_t)(op->mix.function == HT_MIX_BEGIN ? op->mix.streams - 1 : op->mix.streams) * (size_t)h.embedding;
    default:
        return 0;
    }
}

static bool has_state(const ht_op *op) {
    return op->kind == HT_OP_CONV || op->kind == HT_OP_DELTA_NET || op->kind == HT_OP_SCAN;
}

size_t ht_op_state_units(const ht_op *op, const ht_hparams *model) {
    const ht_hparams h = ht_op_shape(op, model);
    if (!has_state(op))
        return 0;
    return (size_t)(op->kind == HT_OP_CONV ? h.feed_forward : op->kind == HT_OP_SCAN ? h.kv_heads : h.heads);
}

size_t ht_op_state(const ht_op *op, const ht_hparams *model) {
    const ht_hparams h = ht_op_shape(op, model);
    const ht_recurrence *r = &op->recurrence;
    const size_t units = ht_op_state_units(op, model), key_dim = (size_t)r->key_dim;
    if (op->kind == HT_OP_CONV)
        return (size_t)(op->taps - 1) * units;
    if (!has_state(op))
        return 0;
    const size_t values = (size_t)h.heads / units * (size_t)h.head_dim; /* of one unit */
    return units * ((size_t)(r->taps - 1) * (2 * key_dim + values) + values * key_dim);
}

bool ht_model_has_state(const ht_model *model) {
    for (size_t i = 0; i < model->n_ops; i++)
        if (has_state(&model->ops[i]))
            return true;
    return false;
}

static uint32_t bit(ht_slot slot) {
    return slot == HT_SLOT_NONE ? 0 : 1u << slot;
}

uint32_t ht_op_reads(const ht_op *op) {
    uint32_t bits = bit(op->in) | (op->kind == HT_OP_ATTENTION || has_state(op) ? HT_BIT_KV : 0);
    for (size_t k = 0; k < ht_op_added(op); k++)
        bits |= bit(ht_op_addend(op, k));
    bits |= op->kind == HT_OP_EMBED && op->positions ? bit(op->out) : 0;
    bits |= op->kind == HT_OP_NORM && op->adds_normed ? bit(op->out) : 0;
    bits |= op->kind == HT_OP_MIX && op->mix.function == HT_MIX_SIDE ? bit(op->out) : 0;
    return bits | (op->kind != HT_OP_NORM && op->n_more ? bit(op->more[0]) : 0);
}

uint32_t ht_op_writes(const ht_op *op) {
    /* a NORM adds to its input; logits are capped where they are */
    return bit(op->out) | (op->kind == HT_OP_ARGMAX && op->soft_cap > 0 ? bit(op->in) : 0) |
           (op->kind == HT_OP_NORM && ht_norm_writes_stream(op) ? bit(op->in) : 0) |
           (ht_mix_in_place(op) ? bit(op->more[0]) : 0) |
           ((op->kind == HT_OP_ROPE && !op->shared) || has_state(op) ? HT_BIT_KV : 0);
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

double ht_op_products(const ht_op *op) {
    double products = 0;
    for (int i = 0; op->kind == HT_OP_FFN && i < 3; i++)
        products += ht_op_products(&op->members[i]);
    for (int i = 0; op->kind != HT_OP_EMBED && i < op->n_parts; i++)
        products += (double)op->parts[i].rows * (double)op->parts[i].cols;
    return op->kind == HT_OP_EXPERTS && op->route.used ? products * op->route.used / op->experts : products;
}

size_t ht_op_summed(const ht_op *op) {
    return op->kind == HT_OP_EXPERTS ? op->parts[op->n_parts - 1].cols : ht_op_cols(op);
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
    for (int p = 0; op->kind != HT_OP_EMBED && p < op->n_parts; p++)
        if (op->parts[p].data && !op->parts[p].made)
            ht_mapping_drop(op->parts[p].data, ht_matrix_span(&op->parts[p]));
}

bool ht_op_ffn(const ht_op *ops, size_t n, ht_op *ffn) {
    if (n < 3 || ops[0].kind != HT_OP_MATMUL || ops[1].kind != HT_OP_GLU || ops[2].kind != HT_OP_MATMUL ||
        ops[0].n_parts != 2 || ops[2].n_parts != 1 || ops[0].parts[0].rows != ops[0].parts[1].rows ||
        ops[0].out != ops[1].in || ops[1].out != ops[2].in || ops[1].n_more || ops[1].ungated || ops[1].sparsity > 0.0f)
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
