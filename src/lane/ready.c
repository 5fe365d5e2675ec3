/* Which static graphs of whole operators are there: a lane's table without those that are not. */
#include "lane/lane.h"

#include <string.h>

/* Are the lane's graphs of whole operators of this signature there for so many tokens? Of the model's tail, which is for few
 * tokens, nobody asks, but of the head. */
static bool has_whole(const ht_lanes *set, const ht_lane *lane, int signature, size_t tokens) {
    const ht_model *model = set->model;
    size_t found = 0;
    for (size_t t = 0; t < set->n_tasks; t++) {
        const ht_slice_task *task = &set->tasks[t];
        const ht_op *op = task->op;
        const ht_slice whole = ht_whole_slice(op);
        ht_device *device = set->devices[task->device];
        if (op->signature != signature || !device->ops->caps(device)->n_lengths || !device->ops->ready || !task->task ||
            task->dropped || !(lane->devices >> task->device & 1) || memcmp(&whole, &task->slice, sizeof whole) != 0)
            continue;
        if (op->layer >= 0 && model->blocks[op->block].first + ht_op_place(model, op) >= model->tail)
            continue;
        if (!device->ops->ready(device, task->task, tokens))
            return false;
        found++;
    }
    /* matrices that were timed alone are there in a few blocks only */
    return found > 0 && found >= model->signatures[signature].count;
}

/* The lane's table without the lengths that its graphs are not there for: they are not built while a request waits. */
static void keep_ready(const ht_lanes *set, const ht_lane *lane, ht_lane_cost *cost) {
    const bool leaves = ht_lanes_facts(set, lane->devices).many_only; /* a companion computes single tokens */
    *cost = lane->cost;
    for (size_t s = 0; s < set->model->n_signatures && s < HT_MAX_SIGNATURES; s++) {
        ht_op_cost *op = &cost->ops[s];
        size_t kept = 0;
        for (size_t i = 0; i < op->n_points; i++) {
            const size_t tokens = op->points[i].tokens;
            if (!op->stepped || (tokens == 1 && leaves) || has_whole(set, lane, (int)s, tokens))
                op->points[kept++] = op->points[i];
        }
        op->n_points = kept;
    }
}

void ht_lanes_keep_ready(ht_lanes *set) {
    for (size_t l = 0; l < set->n_lanes; l++)
        keep_ready(set, &set->lanes[l], &set->lanes[l].whole);
}
