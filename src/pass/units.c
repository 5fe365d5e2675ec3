/* How finely axes divide on every lane, and which slice so many units are. */
#include "pass/pass.h"

/* Does the lane take this part of the operator, on each of its devices that compute it? */
static bool lane_takes(const ht_lanes *set, size_t lane, const ht_op *op, const ht_slice *part) {
    bool any = false;
    for (size_t d = 0; d < set->n_devices; d++) {
        const ht_device *device = set->devices[d];
        if (!(set->lanes[lane].devices >> d & 1) || ht_device_refuses_whole(device, op))
            continue;
        const bool divides = device->ops->caps(device)->divisible && device->ops->refuses_part;
        const char *why = divides                ? device->ops->refuses_part(device, op, part)
                          : device->ops->refuses ? device->ops->refuses(device, op, part)
                                                 : NULL;
        if (why)
            return false;
        any = true;
    }
    return any;
}

ht_slice ht_units_slice(const ht_axis *axis, const ht_units *units, const ht_op *op, size_t place, size_t begin,
                        size_t end) {
    ht_slice s = ht_whole_slice(op);
    begin *= units->grain;
    end = ht_min_size(end * units->grain, axis->extent); /* the last unit may be shorter */
    if (begin == 0 && end == axis->extent)
        return s;
    switch (axis->maps[place]) {
    case HT_MAP_SHARE:
    case HT_MAP_GROUPS:
    case HT_MAP_TERMS:
        s.row_begin = begin, s.row_end = end;
        s.of = op->kind == HT_OP_FFN ? 0 : axis->extent;
        s.group = axis->group;
        return s;
    case HT_MAP_COLUMNS: {
        const size_t each = ht_op_summed(op) / axis->extent;
        s.reduction_begin = begin * each, s.reduction_end = end * each;
        return s;
    }
    case HT_MAP_ROWS:
        s.row_begin = begin, s.row_end = end;
        return s;
    default:
        return s;
    }
}

/* Lanes on which every operator of the axis can be cut at a few places, in every block that has the axis. */
static unsigned divides(const ht_lanes *set, size_t axis, const ht_units *units) {
    unsigned able = (1u << set->n_lanes) - 1;
    const ht_model *model = set->model;
    const ht_axis *a = &model->axes[axis];
    for (size_t i = 0; i < model->n_ops; i++) {
        const ht_op *op = &model->ops[i];
        const ht_block *block = ht_op_block(model, op);
        const size_t place = block ? i - block->first : 0, of = units->of;
        if (!block || axis < block->first_axis || axis >= block->first_axis + block->n_axes || place < a->from ||
            place >= a->to || a->maps[place] == HT_MAP_EVERY || a->maps[place] == HT_MAP_REPLICATED)
            continue;
        const size_t at[] = {1, of / 3, of / 2, of - 1};
        for (size_t k = 0; k < HT_COUNT(at) && of > 1; k++) {
            const size_t u = at[k] ? at[k] : 1;
            const ht_slice low = ht_units_slice(a, units, op, place, 0, u),
                           high = ht_units_slice(a, units, op, place, u, of);
            for (size_t l = 0; l < set->n_lanes; l++)
                if (able >> l & 1 && (!lane_takes(set, l, op, &low) || !lane_takes(set, l, op, &high)))
                    able &= ~(1u << l);
        }
    }
    return able;
}

/* The finest units by which all lanes divide the axis; of query heads, which not every device can take, the finest
 * by which most do, two at least. Programs have nothing yet by which lanes would exchange statistics. */
static void choose_units(ht_passes *passes, size_t axis) {
    const ht_axis *a = &passes->set->model->axes[axis];
    if (a->kind == HT_AXIS_TOKENS || a->statistics)
        return;
    const unsigned all = (1u << passes->set->n_lanes) - 1;
    int most = a->group ? 1 : __builtin_popcount(all) - 1;
    for (size_t grain = a->least; a->extent && grain <= a->most; grain *= 2) {
        ht_units units = {grain, (a->extent + grain - 1) / grain, all};
        if ((a->exact && a->extent % grain != 0) || (a->group && a->group % grain != 0))
            continue;
        units.lanes = divides(passes->set, axis, &units);
        if (__builtin_popcount(units.lanes) <= most)
            continue;
        most = __builtin_popcount(units.lanes);
        passes->units[axis] = units;
    }
}

void ht_passes_find_units(ht_passes *passes) {
    const ht_model *model = passes->set->model;
    for (size_t axis = 0; axis < model->n_axes; axis++)
        if (model->axes[axis].widths == axis)
            choose_units(passes, axis);
    for (size_t axis = 0; axis < model->n_axes; axis++)
        passes->units[axis] = passes->units[model->axes[axis].widths];
}
