#include "device/sim/law.h"

#include <math.h>

/* ---- how much there is to do ---------------------------------------------------------------------------------------- */

typedef struct extent { /* of a slice of a MATMUL */
    double rows, cols, bytes;
} extent;

/* Rows of the operator's matrix that begins at its row `base`, as a slice has them. */
static double rows_of(const ht_slice *s, size_t base, size_t rows) {
    if (s->of)
        return (double)(s->row_end - s->row_begin) * (double)rows / (double)s->of;
    if (!s->row_end)
        return (double)rows;
    const size_t begin = ht_max_size(s->row_begin, base), end = ht_min_size(s->row_end, base + rows);
    return end > begin ? (double)(end - begin) : 0;
}

static extent extent_of(const ht_op *op, const ht_slice *s) {
    const size_t all = ht_op_cols(op);
    extent e = {.cols = (double)(s->reduction_end ? s->reduction_end - s->reduction_begin : all)};
    size_t base = 0;
    for (int i = 0; i < op->n_parts; base += op->parts[i++].rows) {
        const double rows = rows_of(s, base, op->parts[i].rows);
        e.rows += rows;
        e.bytes += rows * (double)op->parts[i].row_bytes * e.cols / (double)all;
    }
    return e;
}

/* The slices of gate and up, and of down, that a slice of a feed-forward block is. */
static void split_ffn(const ht_op *op, const ht_slice *s, ht_slice *gate_up, ht_slice *down) {
    const size_t features = op->members[0].parts[0].rows, begin = s->row_begin,
                 end = s->row_end ? s->row_end : features;
    *gate_up = (ht_slice){.row_begin = begin, .row_end = end, .of = features};
    *down = (ht_slice){.reduction_begin = begin, .reduction_end = end};
}

void ht_law_weights(const ht_op *op, const ht_slice *slice, double *count, double *bytes) {
    *count = *bytes = 0;
    if (op->kind == HT_OP_FFN) {
        ht_slice gate_up, down;
        double more, more_bytes;
        split_ffn(op, slice, &gate_up, &down);
        ht_law_weights(&op->members[0], &gate_up, count, bytes);
        ht_law_weights(&op->members[2], &down, &more, &more_bytes);
        *count += more;
        *bytes += more_bytes;
    } else if (op->kind == HT_OP_MATMUL) {
        const extent e = extent_of(op, slice);
        *count = e.rows * e.cols;
        *bytes = e.bytes;
    }
}

/* ---- how long it takes ---------------------------------------------------------------------------------------------- */

static double figure(const ht_law *law, ht_soc_key key) {
    return law->processor->figures[key].value;
}

static bool is_npu(const ht_law *law) {
    return law->processor->kind == HT_DEVICE_NPU;
}

static double or_all(double share) {
    return share > 0 ? share : 1;
}

/* Operations a second of matrices. */
static double reached(const ht_law *law) {
    const bool integers = is_npu(law) && law->activations != HT_SIM_FP16;
    return figure(law, integers ? HT_SOC_REACHED_INTEGER : HT_SOC_REACHED) * or_all(law->matrix_share);
}

/* What the units of a processor have to do for one command, in seconds of each alone, and what is counted of it. */
typedef struct ht_load {
    double matrix, vector; /* vector: NPUs only */
    double bytes, flops;
} ht_load;

static ht_load add_loads(ht_load a, ht_load b) {
    return (ht_load){a.matrix + b.matrix, a.vector + b.vector, a.bytes + b.bytes, a.flops + b.flops};
}

/* Matrix and vector unit take turns (values are expanded before and written back after a product); moving hides behind both, as
 * far as the processor overlaps them. */
static ht_work work_of(const ht_law *law, ht_load load) {
    const double move = load.bytes / (figure(law, HT_SOC_BANDWIDTH) * or_all(law->bandwidth_share));
    const double compute = load.matrix + load.vector;
    const double apart = (1 - figure(law, HT_SOC_OVERLAP)) * fmin(compute, move);
    const double fixed = figure(law, HT_SOC_OPERATOR) + (is_npu(law) && !law->whole ? figure(law, HT_SOC_GRAPH) : 0);
    /* of the shorter one of computing and moving, only what does not hide takes time */
    const double computing = compute > 0 ? (compute < move ? apart : compute) / compute : 0;
    return (ht_work){.seconds = fmax(compute, move) + apart + fixed,
                     .bytes = load.bytes,
                     .flops = load.flops,
                     .apart = apart + fixed,
                     .parts = {[HT_PART_MEMORY] = move > compute ? move : apart,
                               [HT_PART_MATRIX] = computing * load.matrix,
                               [HT_PART_VECTOR] = computing * load.vector,
                               [HT_PART_FIXED] = fixed}};
}

static double round_up(double x, double multiple) {
    return ceil(x / multiple) * multiple;
}

/* Seconds of [tokens, cols] x [cols, rows] on systolic arrays. */
static double array_seconds(const ht_law *law, double tokens, double rows, double cols) {
    const double a = figure(law, HT_SOC_ARRAY), load = figure(law, HT_SOC_TILE_LOAD);
    const double m = round_up(tokens, a), n = round_up(rows, a), k = round_up(cols, a);
    const double weights = k / a * (n / a) * (load + m), activations = k / a * (m / a) * (load + n);
    const double streamed = law->order == HT_SIM_ACTIVATIONS_FIRST ? weights
                            : law->order == HT_SIM_WEIGHTS_FIRST   ? activations
                                                                   : fmin(weights, activations);
    return streamed * 2 * a * a / reached(law);
}

/* Partial sums that go to memory and back. */
static double spilled_bytes(const ht_law *law, double tokens, double rows, double cols) {
    const double held = 4 * figure(law, HT_SOC_ARRAY) * cols * figure(law, HT_SOC_ARRAYS);
    const double times = cols / figure(law, HT_SOC_SPILL) - 1;
    return held > figure(law, HT_SOC_ONCHIP) && times > 0 ? 8 * rows * tokens * times : 0;
}

static double activation_bytes(const ht_law *law) {
    return law->activations == HT_SIM_INT8 ? 1 : law->soc->figures[HT_SOC_ACTIVATION_BYTES].value;
}

/* A product whose operands and result are in memory or, `on_chip`, where the operators beside it left them. Where they are on
 * the chip, a long reduction is computed block by block as its columns come, and spills nothing. */
static ht_load product_load(const ht_law *law, const ht_op *op, const ht_slice *slice, size_t tokens, bool on_chip) {
    const extent e = extent_of(op, slice);
    const double m = (double)tokens, weights = e.rows * e.cols;
    const double held = law->weight_bits > 0 ? weights * law->weight_bits / 8 : e.bytes;
    ht_load load = {.flops = 2 * m * weights, .bytes = held};
    if (!on_chip)
        load.bytes += activation_bytes(law) * m * (e.rows + e.cols);
    load.matrix = load.flops / reached(law);
    if (!is_npu(law))
        return load;
    load.matrix = array_seconds(law, m, e.rows, e.cols);
    if (tokens < law->few) {
        load.matrix = 0;
        load.vector = load.flops / law->few_rate;
    } else if (law->activations == HT_SIM_FP16 && held < 2 * weights) {
        /* a few tokens take no longer on the vector unit alone */
        const double expand = weights / (law->expand > 0 ? law->expand : figure(law, HT_SOC_EXPAND));
        const bool arrays = load.matrix + expand < m * expand;
        load.vector = arrays ? expand : m * expand;
        load.matrix = arrays ? load.matrix : 0;
    }
    load.vector += m * e.rows / figure(law, HT_SOC_VECTOR);
    if (!on_chip)
        load.bytes += spilled_bytes(law, m, e.rows, e.cols);
    return load;
}

/* Gate, up, their product and down in one graph: features are made and used up on the chip. */
static ht_load ffn_load(const ht_law *law, const ht_op *op, const ht_slice *slice, size_t tokens) {
    ht_slice gate_up, down;
    split_ffn(op, slice, &gate_up, &down);
    ht_load load = add_loads(product_load(law, &op->members[0], &gate_up, tokens, true),
                             product_load(law, &op->members[2], &down, tokens, true));
    const double features = (double)(down.reduction_end - down.reduction_begin);
    const double ends = (double)ht_op_cols(&op->members[0]) + (double)op->members[2].parts[0].rows;
    load.bytes += activation_bytes(law) * (double)tokens * ends;
    if (is_npu(law))
        load.vector += 3 * (double)tokens * features / figure(law, HT_SOC_VECTOR);
    return load;
}

/* Keys that all tokens see together. */
static double keys_seen(const ht_op *op, double tokens, double position) {
    const double window = (double)op->window;
    if (op->window == 0 || position + tokens <= window)
        return tokens * position + tokens * (tokens + 1) / 2;
    const double ramp = fmax(window - position, 0); /* tokens that see fewer than the window */
    return ramp * position + ramp * (ramp + 1) / 2 + (tokens - ramp) * window;
}

/* Operators without weights, and the rows of the embedding: values read and written, arithmetic only in attention. Of heads
 * and features a share. */
static ht_work rest_work(const ht_law *law, const ht_op *op, const ht_slice *s, size_t tokens, size_t position) {
    const ht_hparams own = ht_op_shape(op, law->hparams), *h = &own;
    const double n = (double)tokens, share = s->of ? (double)(s->row_end - s->row_begin) / (double)s->of : 1;
    const double value = law->soc->figures[HT_SOC_ACTIVATION_BYTES].value, dim = (double)h->head_dim;
    const double kept = law->kv_bytes > 0 ? law->kv_bytes : law->kv_type == HT_KV_F32 ? 4 : 2;
    const double key = 2 * (double)h->kv_heads * dim * kept; /* and value, of a token */
    double values = 0, bytes = 0, flops = 0, scores = 0;
    switch (op->kind) {
    case HT_OP_EMBED:
        values = h->embedding;
        bytes = n * (double)op->parts[0].row_bytes;
        break;
    case HT_OP_NORM: /* X and what is added to it; X and the result */
        values = (op->aux == HT_SLOT_NONE ? 2 : 4 + op->n_more) * (double)h->embedding;
        break;
    case HT_OP_ROPE:
        values = 2 * (h->heads + h->kv_heads) * dim + h->kv_heads * dim;
        bytes = n * key;
        break;
    case HT_OP_ATTENTION: {
        const double fixed = (double)law->context; /* a static graph's, a mask in front of those that are not there */
        const double seen = fixed > 0 ? n * fixed : keys_seen(op, n, (double)position);
        const double all = fixed > 0 ? fixed : (double)position + n;
        values = 2 * h->heads * dim;
        bytes = key * (op->window ? fmin(all, op->window + n) : all);
        flops = 4 * h->heads * dim * seen;
        scores = h->heads * (is_npu(law) ? seen * round_up(n, figure(law, HT_SOC_ARRAY)) / n : seen);
        break;
    }
    case HT_OP_GLU:
        values = 3 * (double)h->feed_forward;
        break;
    case HT_OP_ARGMAX:
        values = h->vocabulary;
        break;
    case HT_OP_MATMUL: /* products have laws of their own */
    case HT_OP_FFN:
    case HT_OP_KINDS:
        break;
    }
    ht_load load = {.matrix = share * flops / reached(law), .flops = share * flops, .bytes = share * bytes};
    if (is_npu(law)) /* others have neither figure: they would divide by zero */
        load.vector = share * (n * values / figure(law, HT_SOC_VECTOR) + scores / figure(law, HT_SOC_SCORES));
    if (!law->whole)
        load.bytes += share * value * n * values;
    return work_of(law, load);
}

ht_work ht_law_work(const ht_law *law, const ht_op *op, const ht_slice *slice, size_t tokens, size_t position) {
    if (op->kind == HT_OP_MATMUL)
        return work_of(law, product_load(law, op, slice, tokens, law->whole));
    if (op->kind == HT_OP_FFN)
        return work_of(law, ffn_load(law, op, slice, tokens));
    return rest_work(law, op, slice, tokens, position);
}
