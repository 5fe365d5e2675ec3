#include "device/sim/law.h"

#include <math.h>

/* ---- how much there is to do ---------------------------------------------------------------------------------------- */

typedef struct extent { /* of a slice of a MATMUL, or of HEADS: all heads' rows */
    double rows, cols, bytes;
} extent;

/* Rows of the operator's matrix number `part`, which begins at its row `base`, as a slice has them. */
static double rows_of(const ht_slice *s, int part, size_t base, size_t rows) {
    size_t begin = ht_max_size(s->row_begin, base), end = ht_min_size(s->row_end, base + rows);
    if (s->of)
        ht_share_rows(s, part, rows, &begin, &end);
    else if (!s->row_end)
        return (double)rows;
    return end > begin ? (double)(end - begin) : 0;
}

static extent extent_of(const ht_op *op, const ht_slice *s) {
    const size_t all = ht_op_cols(op);
    extent e = {.cols = (double)(s->reduction_end ? s->reduction_end - s->reduction_begin : all)};
    size_t base = 0;
    for (int i = 0; i < op->n_parts; base += op->parts[i++].rows) {
        const double rows = rows_of(s, i, base, op->parts[i].rows);
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
    } else if (op->kind == HT_OP_MATMUL || op->kind == HT_OP_HEADS) {
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

/* Matrix and vector unit take turns (values are expanded before and written back after a product); moving hides behind
 * both, as far as the processor overlaps them. */
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

/* A product whose operands and result are in memory or, `on_chip`, where the operators beside it left them. Where they
 * are on the chip, a long reduction is computed block by block as its columns come, and spills nothing. */
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

/* Each head's own matrix: heads do not share what they read. */
static ht_load heads_load(const ht_law *law, const ht_op *op, const ht_slice *slice, size_t tokens) {
    ht_load load = product_load(law, op, slice, tokens, true);
    const double share = slice->of ? (double)(slice->row_end - slice->row_begin) / (double)slice->of : 1;
    const size_t width = ht_op_in_width(op, law->hparams) + ht_op_out_width(op, law->hparams);
    if (!law->whole)
        load.bytes += activation_bytes(law) * (double)tokens * share * (double)width;
    return load;
}

/* Keys that queries [0, n) see together in runs of `chunk` positions. */
static double chunks_seen(double n, double chunk) {
    const double whole = floor(n / chunk), rest = n - whole * chunk;
    return whole * chunk * (chunk + 1) / 2 + rest * (rest + 1) / 2;
}

/* Keys that all tokens see together. */
static double keys_seen(const ht_op *op, double tokens, double position) {
    const double window = (double)op->window, chunk = (double)op->attention_chunk;
    if (op->attention_chunk)
        return chunks_seen(position + tokens, chunk) - chunks_seen(position, chunk);
    if (op->window == 0 || position + tokens <= window)
        return tokens * position + tokens * (tokens + 1) / 2;
    const double ramp = fmax(window - position, 0); /* tokens that see fewer than the window */
    return ramp * position + ramp * (ramp + 1) / 2 + (tokens - ramp) * window;
}

/* Of the key-value heads those that the slice makes, or uses. */
static double heads_share(const ht_slice *s, const ht_hparams *h, bool makes) {
    const ht_heads own = ht_slice_heads(s, h);
    return (double)(own.used_end - (makes ? own.own : own.used)) / (double)h->kv_heads;
}

/* Operators without weights, and the rows of the embedding: values read and written, arithmetic only in attention. Of heads
 * and features a share. */
static ht_work rest_work(const ht_law *law, const ht_op *op, const ht_slice *s, size_t tokens, size_t position) {
    const ht_hparams own = ht_op_shape(op, law->hparams), *h = &own;
    const double n = (double)tokens;
    double share = s->of ? (double)(s->row_end - s->row_begin) / (double)s->of : 1;
    double made = share; /* of what is read or written besides activations */
    const double value = law->soc->figures[HT_SOC_ACTIVATION_BYTES].value, dim = (double)h->head_dim;
    const double kept = law->kv_bytes > 0 ? law->kv_bytes : law->kv_type == HT_KV_F32 ? 4 : 2;
    const double key = (op->value_dim ? 1 : 2) * (double)h->kv_heads * dim * kept; /* and value, of a token */
    double values = 0, bytes = 0, flops = 0, scores = 0;
    switch (op->kind) {
    case HT_OP_EMBED:
        values = h->embedding;
        bytes = n * (double)op->parts[0].row_bytes;
        break;
    case HT_OP_NORM: /* X and what is added to it; X and the result */
        values = (op->aux == HT_SLOT_NONE ? 2 : 4 + op->n_more) * (double)h->embedding;
        break;
    case HT_OP_MIX:
        values = (double)(ht_op_in_width(op, h) + ht_op_more_width(op, h) + ht_op_out_width(op, h));
        break;
    case HT_OP_ROPE:
        made = heads_share(s, h, true);
        values = 2 * h->heads * dim + (share > 0 ? made / share : 1) * 3 * h->kv_heads * dim;
        bytes = n * key;
        break;
    case HT_OP_ATTENTION: {
        made = heads_share(s, h, false);
        const double fixed = (double)law->context; /* a static graph's, a mask in front of those that are not there */
        const double seen = fixed > 0 ? n * fixed : keys_seen(op, n, (double)position);
        const double all = fixed > 0 ? fixed : (double)position + n;
        values = 2 * h->heads * dim;
        const double window = op->attention_chunk ? op->attention_chunk : op->window;
        bytes = key * (window > 0 ? fmin(all, window + n) : all);
        flops = 4 * h->heads * dim * seen;
        scores = h->heads * (is_npu(law) ? seen * round_up(n, figure(law, HT_SOC_ARRAY)) / n : seen);
        break;
    }
    case HT_OP_GLU:
        values = (op->ungated ? 2 : 3) * (double)h->feed_forward;
        break;
    case HT_OP_ARGMAX:
        values = h->vocabulary;
        break;
    case HT_OP_ROUTE:
        values = 2 * op->experts;
        break;
    case HT_OP_EXPERTS: {
        const double used = op->route.used ? (double)op->route.used / op->experts : 1;
        const double all = (double)ht_op_summed(op);
        share *= s->reduction_end ? (double)(s->reduction_end - s->reduction_begin) / all : 1;
        made = share;
        for (int i = 0; i < op->n_parts; i++) {
            bytes += (double)op->parts[i].rows * (double)op->parts[i].row_bytes;
            flops += 2 * (double)op->parts[i].rows * (double)op->parts[i].cols * used * n;
        }
        bytes *= 1 - pow(1 - used, n); /* of the experts that somebody is expected to choose */
        values = (double)ht_op_cols(op) + (double)ht_op_out_width(op, h) + 2.0 * op->n_parts * used * op->experts * all;
        break;
    }
    case HT_OP_CONV:
    case HT_OP_DELTA_NET:
    case HT_OP_SCAN: { /* a state is read and written once; of each of its values k S, S and q S are made */
        const double state = (double)ht_op_state(op, law->hparams);
        values = (double)(ht_op_in_width(op, h) + ht_op_more_width(op, h) + ht_op_out_width(op, h));
        bytes = 2 * sizeof(float) * state;
        flops = n * (op->kind == HT_OP_CONV ? 2 * (state + h->feed_forward) : 7 * state);
        break;
    }
    case HT_OP_HEADS:
    case HT_OP_MATMUL: /* products have laws of their own */
    case HT_OP_FFN:
    case HT_OP_KINDS:
        break;
    }
    ht_load load = {.matrix = share * flops / reached(law), .flops = share * flops, .bytes = made * bytes};
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
    if (op->kind == HT_OP_HEADS)
        return work_of(law, heads_load(law, op, slice, tokens));
    return rest_work(law, op, slice, tokens, position);
}
