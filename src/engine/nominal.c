/* Costs by rule, where a lane has a device that is emulated: its numbers count, its times do not. A multiply-add takes the
 * same on every lane and everything else next to nothing, so that lanes get equal shares, as far as units divide. Nobody is
 * told these times, and nothing is learnt or kept. */
#include "engine/engine.h"

#include <math.h>

#define EACH 1e-9 /* seconds of a multiply-add: enough that joins are never worth avoiding */
#define EMULATED \
    0.98 /* of that on emulated devices: what is only ever whole, such as a matrix of strategy layer, goes there */

static double multiply_adds(const ht_op *op) {
    return fmax(ht_op_products(op), 1);
}

/* One point of one token for what a lane does with any number, the device's lengths for the rest. */
static void add_points(const ht_device *device, const ht_op *op, bool one, ht_op_cost *cost) {
    const ht_device_caps *caps = device->ops->caps(device);
    const double each = EACH * (caps->emulated ? EMULATED : 1) * multiply_adds(op);
    if (cost->n_points > (one ? 0 : 1) || (!one && cost->n_points && !caps->n_lengths))
        return; /* another block's */
    if (one || !caps->n_lengths)
        cost->points[cost->n_points++] = (ht_cost_point){1, each};
    cost->stepped |= caps->n_lengths > 0;
    for (size_t i = 0; !one && i < caps->n_lengths && cost->n_points < HT_MAX_POINTS; i++)
        if (caps->lengths[i] > 1)
            cost->points[cost->n_points++] = (ht_cost_point){(size_t)caps->lengths[i], each * caps->lengths[i]};
}

void ht_lane_cost_by_rule(const ht_lanes *set, ht_lane *lane) {
    lane->cost = (ht_lane_cost){.devices = lane->devices, .join = 1e-7, .sync = HT_SYNC_FINISH};
    for (size_t form = 0; form < HT_FORMS; form++)
        for (size_t i = 0; i < lane->programs[form].n_steps; i++) {
            const ht_step *step = &lane->programs[form].steps[i];
            add_points(set->devices[step->device], step->op, form == HT_FORM_ONE, &lane->cost.ops[step->op->signature]);
        }
}
