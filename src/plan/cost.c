/* Predicting from measured points: linear between them on devices that take any length (HeteroLLM, GPU-1), a staircase of
 * the cheapest pieces where lengths are static (NPU-1). */
#include "plan/plan.h"

#include <math.h>

/* Seconds of n > 0 tokens, whole. */
static double whole_seconds(const ht_op_cost *cost, size_t n) {
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

double ht_op_fixed(const ht_lane_cost *cost, int signature) {
    return fmax(cost->launch, cost->ops[signature].start);
}

double ht_op_seconds(const ht_lane_cost *cost, int signature, size_t n, double share, size_t position) {
    if (n == 0)
        return 0;
    const ht_op_cost *op = &cost->ops[signature];
    /* few tokens have kernels of their own, and the points of the table lie close there */
    const bool rounds = op->granule && n > 2 * op->granule && !op->stepped;
    const double s = whole_seconds(op, rounds ? ht_round_up(n, op->granule) : n) +
                     op->per_key * (double)n * (double)position,
                 fixed = ht_op_fixed(cost, signature);
    return s <= fixed || s == INFINITY ? s : fixed + share * (s - fixed);
}

ht_estimate ht_op_estimate(const ht_lane_cost *cost, int signature, size_t n, double share, size_t position) {
    const double seconds = ht_op_seconds(cost, signature, n, share, position),
                 wait = fmin(seconds, cost->ops[signature].start);
    return (ht_estimate){seconds - wait, wait};
}

double ht_factor(const double factors[HT_MAX_LANES][2], size_t lane, const size_t *lanes, size_t n_lanes,
                 size_t tokens) {
    double factor = n_lanes > 2 ? factors[lane][tokens > 1] : 1;
    for (size_t i = 0; i < n_lanes; i++)
        if (lanes[i] != lane)
            factor = fmax(factor, factors[lanes[i]][tokens > 1]);
    return fmax(factor, 1);
}

/* ---- what is known of a model
 * -------------------------------------------------------------------------------------------- */

const char *ht_plan_misfit(const ht_model *model) {
    if (model->n_signatures > HT_MAX_SIGNATURES)
        return "operators";
    if (model->n_axes > HT_MAX_AXES || model->n_groups > HT_MAX_GROUPS)
        return "blocks";
    for (size_t k = 0; k < model->n_blocks; k++)
        if (model->blocks[k].n_axes > HT_MAX_BLOCK_AXES)
            return "cuts";
    return NULL;
}

const char *ht_axis_cut(const ht_axis *axis) {
    static const char *const names[HT_AXIS_KINDS] = {"causal", "head", "feature", "row", "query", "expert", "channel"};
    /* matrices that are cut by the same features, with a join behind the first: rows of each */
    return axis->kind == HT_AXIS_FEATURES && axis->result == HT_RESULT_COLUMNS ? "row" : names[axis->kind];
}
