/* Which static graphs of whole operators are there: a lane's table without those that are not. */
#include "lane/lane.h"

#include <string.h>

/* Are the lane's graphs of whole operators of this class there for so many tokens? Of the last layer, whose end is for few
 * tokens, nobody asks. */
static bool has_whole(const ht_lanes *set, const ht_lane *lane, ht_class c, size_t tokens) {
    int found = 0;
    for (size_t t = 0; t < set->n_tasks; t++) {
        const ht_slice_task *task = &set->tasks[t];
        const ht_slice whole = ht_whole_slice(task->op);
        ht_device *device = set->devices[task->device];
        const bool end = task->op->layer + 1 == set->model->hparams.layers && c > HT_CLASS_ATTENTION;
        if (!device->ops->caps(device)->n_lengths || !device->ops->ready || !task->task || task->dropped || end ||
            !(lane->devices >> task->device & 1) || ht_class_of(task->op) != c ||
            memcmp(&whole, &task->slice, sizeof whole) != 0)
            continue;
        if (!device->ops->ready(device, task->task, tokens))
            return false;
        found++;
    }
    /* matrices that were timed alone are there in a few layers only */
    return found > 0 && (c >= HT_CLASS_LM_HEAD || found + 1 >= set->model->hparams.layers);
}

/* The lane's table without the lengths that its graphs are not there for: they are not built while a request waits. */
static void keep_ready(const ht_lanes *set, const ht_lane *lane, ht_lane_cost *cost) {
    const bool leaves = ht_lanes_facts(set, lane->devices).many_only; /* a companion computes single tokens */
    *cost = lane->cost;
    for (int c = 0; c < HT_CLASSES; c++) {
        ht_class_cost *class = &cost->classes[c];
        size_t kept = 0;
        for (size_t i = 0; i < class->n_points; i++) {
            const size_t tokens = class->points[i].tokens;
            if (!class->stepped || (tokens == 1 && leaves) || has_whole(set, lane, (ht_class)c, tokens))
                class->points[kept++] = class->points[i];
        }
        class->n_points = kept;
    }
}

void ht_lanes_keep_ready(ht_lanes *set) {
    for (size_t l = 0; l < set->n_lanes; l++)
        keep_ready(set, &set->lanes[l], &set->lanes[l].whole);
}
