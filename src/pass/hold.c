/* What lanes hold of each axis: which units a plan may give them. */
#include "pass/pass.h"

#include <string.h>

/* How the lane's task of the operator is held; NULL: there is none, or the operator has no task of its own. */
static const ht_slice_task *task_of(const ht_lanes *set, const ht_lane *lane, const ht_op *op) {
    const ht_slice whole = ht_whole_slice(op);
    for (size_t t = 0; t < set->n_tasks; t++) {
        const ht_slice_task *task = &set->tasks[t];
        if (task->op == op && lane->devices >> task->device & 1 && !task->dropped &&
            !memcmp(&task->slice, &whole, sizeof whole))
            return task;
    }
    return NULL;
}

static bool has_part(const ht_slice_task *task, const ht_op *op, const ht_slice *part) {
    return !task || task->holds == HT_HOLDS_ALL ||
           (task->holds == HT_HOLDS_SOME && ht_slice_lies_in(op, part, &task->held));
}

/* The lane's window of an axis: the first run of units for which everything is there. */
static ht_window find_window(const ht_passes *passes, const ht_lane *lane, const ht_block *block, size_t axis) {
    const ht_model *model = passes->set->model;
    const ht_axis *a = &model->axes[axis];
    const ht_units *units = &passes->units[axis];
    const bool tokens = a->kind == HT_AXIS_TOKENS;
    const size_t of = tokens ? 1 : units->of;
    const ht_slice_task *tasks[HT_MAX_BLOCK_OPS] = {NULL};
    ht_window w = {0, 0};
    for (size_t i = a->from; i < a->to; i++)
        tasks[i] = task_of(passes->set, lane, &model->ops[block->first + i]);
    for (size_t u = 0; u < of; u++) {
        bool held = true;
        for (size_t i = a->from; i < a->to && held; i++) {
            const ht_op *op = &model->ops[block->first + i];
            const bool whole = tokens || a->maps[i] == HT_MAP_EVERY || a->maps[i] == HT_MAP_REPLICATED;
            const ht_slice part = whole ? ht_whole_slice(op) : ht_units_slice(a, units, op, i, u, u + 1);
            held = has_part(tasks[i], op, &part);
        }
        if (held && w.end == 0)
            w.first = u;
        if (held)
            w.end = u + 1;
        else if (w.end)
            break;
    }
    return w;
}

void ht_passes_find_windows(ht_passes *passes) {
    const ht_lanes *set = passes->set;
    const ht_model *model = set->model;
    for (size_t l = 0; l < set->n_lanes; l++) {
        ht_windows *holds = &passes->holds[l];
        holds->partly = holds->fed = false;
        for (size_t t = 0; t < set->n_tasks; t++) {
            const ht_slice_task *task = &set->tasks[t];
            const bool lacks = set->lanes[l].devices >> task->device & 1 && task->holds != HT_HOLDS_ALL;
            holds->partly |= lacks;
            holds->fed |= lacks && task->op->kind == HT_OP_EMBED;
        }
        for (size_t b = 0; b < model->n_blocks && holds->partly; b++) {
            const ht_block *block = &model->blocks[b];
            bool seen = false; /* blocks that are alike have the same axes */
            for (size_t k = 0; k < b && !seen; k++)
                seen = model->blocks[k].first_axis == block->first_axis;
            for (size_t a = block->first_axis; a < block->first_axis + block->n_axes && !seen; a++)
                holds->axes[a] = find_window(passes, &set->lanes[l], block, a);
        }
    }
}

bool ht_passes_hold_partly(const ht_passes *passes) {
    bool some = false;
    for (size_t l = 0; l < passes->set->n_lanes; l++)
        some |= passes->holds[l].partly;
    return some;
}
