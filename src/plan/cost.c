/* Predicting from measured points: linear between them on devices that take any length (HeteroLLM, GPU-1), a staircase of
 * the cheapest pieces where lengths are static (NPU-1). */
#include "plan/plan.h"

#include <math.h>

ht_class ht_class_of(const ht_op *op) {
    switch (op->kind) {
    case HT_OP_EMBED:
        return HT_CLASS_EMBED;
    case HT_OP_NORM:
        return HT_CLASS_NORM;
    case HT_OP_ROPE:
        return HT_CLASS_ROPE;
    case HT_OP_ATTENTION:
        return HT_CLASS_ATTENTION;
    case HT_OP_GLU:
        return HT_CLASS_GLU;
    case HT_OP_FFN:
        return HT_CLASS_FFN;
    case HT_OP_ARGMAX:
        return HT_CLASS_ARGMAX;
    default:
        return op->out == HT_SLOT_LOGITS ? HT_CLASS_LM_HEAD
               : op->out == HT_SLOT_QKV  ? HT_CLASS_QKV
               : op->out == HT_SLOT_FFN  ? HT_CLASS_GATE_UP
               : op->in == HT_SLOT_ACT   ? HT_CLASS_DOWN
                                         : HT_CLASS_OUT;
    }
}

const char *ht_class_name(ht_class c) {
    static const char *const names[HT_CLASSES] = {"embed",   "norm", "qkv",  "rope", "attention", "out",
                                                  "gate_up", "glu",  "down", "ffn",  "lm_head",   "argmax"};
    return names[c];
}

/* Is it a matrix multiplication? */
static bool is_matmul(ht_class c) {
    return c == HT_CLASS_QKV || c == HT_CLASS_OUT || c == HT_CLASS_GATE_UP || c == HT_CLASS_DOWN || c == HT_CLASS_FFN;
}

/* Seconds of n > 0 tokens, whole. */
static double whole_seconds(const ht_class_cost *cost, size_t n) {
    const ht_cost_point *p = cost->points;
    size_t i = 0;
    /* graphs for many tokens only: the lane's plan for one has other steps */
    if (cost->n_points == 0 || (n == 1 && cost->stepped && p[0].tokens > 1))
        return INFINITY;
    while (i + 1 < cost->n_points && p[i].tokens < n)
        i++;
    if (p[i].tokens < n && cost->stepped) /* beyond the last one: again and again that */
        return p[i].tokens > 1
                   ? p[i].seconds + whole_seconds(cost, ht_max_size(n - p[i].tokens, p[0].tokens > 1 ? 2 : 1))
                   : INFINITY;
    if (p[i].tokens < n) /* as quick for each */
        return p[i].seconds * (double)n / (double)p[i].tokens;
    if (p[i].tokens == n || i == 0)
        return p[i].seconds;
    if (!cost->stepped) {
        const double share = (double)(n - p[i - 1].tokens) / (double)(p[i].tokens - p[i - 1].tokens);
        return p[i - 1].seconds + share * (p[i].seconds - p[i - 1].seconds);
    }
    if (p[i - 1].tokens == 1) /* the graph for one token may not be there */
        return p[i].seconds;
    const double pieces = p[i - 1].seconds + whole_seconds(cost, ht_max_size(n - p[i - 1].tokens, 2));
    return pieces < p[i].seconds ? pieces : p[i].seconds;
}

double ht_class_fixed(const ht_lane_cost *cost, ht_class c) {
    return fmax(cost->launch, cost->classes[c].fixed);
}

double ht_class_seconds(const ht_lane_cost *cost, ht_class c, size_t n, double share, size_t position) {
    if (n == 0)
        return 0;
    /* few tokens have kernels of their own, and the points of the table lie close there */
    const bool whole = cost->granule && n > 2 * cost->granule && is_matmul(c) && !cost->classes[c].stepped;
    double s = whole_seconds(&cost->classes[c], whole ? ht_round_up(n, cost->granule) : n);
    if (c == HT_CLASS_ATTENTION)
        s += cost->per_key * (double)n * (double)position;
    const double fixed = ht_class_fixed(cost, c);
    return s <= fixed || s == INFINITY ? s : fixed + share * (s - fixed);
}

static double factor_of(const double factors[2][2], size_t n_lanes, bool many) {
    const double pair = factors[0][many], more = factors[1][many], factor = n_lanes > 2 && more > pair ? more : pair;
    return n_lanes > 1 && factor > 0 ? factor : 1;
}

double ht_together(const ht_lane_cost *cost, size_t n_lanes, size_t tokens) {
    return factor_of(cost->together, n_lanes, tokens > 1);
}

double ht_norms_together(const ht_lane_cost *cost, size_t n_lanes, size_t tokens) {
    return factor_of(cost->norms, n_lanes, tokens > 1);
}
