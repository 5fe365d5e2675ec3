/* Which values need not move.
 *
 * A device with memory of its own brings in what others wrote and hands out what others read. Both follow from the program:
 * walking the steps in order, the newest values of a slot are those of the device that wrote it last, alone and whole.
 * Where several devices wrote rows of it, or the host did (token ids), nobody has all of it.
 */
#include "lane/lane.h"

enum { NOBODY = -1 };

/* Slots that the operator adds besides `aux` reach devices as pieces, which are always brought in from the host. */
static uint32_t reads_pieces(const ht_op *op) {
    return ht_op_added(op) > 1 ? 1u << op->more[0] : 0;
}

/* What the step reads: where it adds to what is there, that too. */
static uint32_t reads(const ht_step *step) {
    return ht_op_reads(step->op) | (step->rest ? ht_op_writes(step->op) : 0);
}

/* Is what step `at` writes to the slots of `what` read by nobody but `device` before it is written again? */
static bool stays(const ht_program *program, size_t at, uint32_t what, int device) {
    for (size_t i = at + 1; i < program->n_steps; i++) {
        const ht_step *step = &program->steps[i];
        if ((reads(step) & what && step->device != device) || reads_pieces(step->op) & what)
            return false;
        if (ht_op_writes(step->op) & what)
            return true;
    }
    return true;
}

/* The device that alone writes and reads a cache, whichever program runs: passes of all of them add to it. */
static int cache_owner(const ht_lanes *set, const ht_lane *alone, int cache) {
    int owner = NOBODY;
    for (size_t p = 0; p < set->n_lanes * HT_FORMS; p++) {
        const ht_program *program = &set->lanes[p / HT_FORMS].programs[p % HT_FORMS];
        if (alone && alone != &set->lanes[p / HT_FORMS])
            continue;
        for (size_t i = 0; i < program->n_steps; i++) {
            const ht_step *step = &program->steps[i];
            if (step->op->cache != cache || !((ht_op_reads(step->op) | ht_op_writes(step->op)) & HT_BIT_KV))
                continue;
            if (owner != NOBODY && owner != step->device)
                return NOBODY;
            owner = step->device;
        }
    }
    return owner;
}

/* Does a device that shares cores with `device` compute the step after `at`, and not `device` itself? */
static bool yields(const ht_lanes *set, const ht_program *program, size_t at, const ht_device *device) {
    if (at + 1 == program->n_steps)
        return false;
    const ht_device *next = set->devices[program->steps[at + 1].device];
    return next != device && ht_cores_meet(&next->ops->caps(next)->cores, &device->ops->caps(device)->cores);
}

static void plan_transfers(const ht_lanes *set, const ht_lane *alone, ht_program *program) {
    int owner[HT_MAX_SLOTS];
    for (size_t i = 0; i < HT_MAX_SLOTS; i++)
        owner[i] = NOBODY;
    for (size_t i = 0; i < program->n_steps; i++) {
        ht_step *step = &program->steps[i];
        const int device = step->device;
        const bool cached = (ht_op_reads(step->op) | ht_op_writes(step->op)) & HT_BIT_KV;
        const bool own_cache = cached && cache_owner(set, alone, step->op->cache) == device;
        step->yields = yields(set, program, i, set->devices[device]);
        step->resident = own_cache ? ht_op_reads(step->op) & HT_BIT_KV : 0;
        step->kept = own_cache ? ht_op_writes(step->op) & HT_BIT_KV : 0;
        for (ht_slot slot = 0; slot < set->model->n_slots; slot++) {
            const bool left = step->rest && slot == step->op->more[0]; /* what it reads is in another place */
            if (reads(step) >> slot & 1 && owner[slot] == device && !left)
                step->resident |= 1u << slot;
            if (ht_op_writes(step->op) >> slot & 1 && stays(program, i, 1u << slot, device))
                step->kept |= 1u << slot;
        }
        for (ht_slot slot = 0; slot < set->model->n_slots; slot++)
            if (ht_op_writes(step->op) >> slot & 1)
                owner[slot] = device;
    }
}

/* Steps that only wanted tokens need may be left to the lane's other program, and to fewer tokens: fine on devices that use
 * the pool's own pages, and where both programs name the same devices and each cache that is read there has one owner. */
static bool may_split(const ht_lanes *set, const ht_lane *alone, const ht_lane *lane) {
    const ht_program *one = &lane->programs[HT_FORM_ONE], *many = &lane->programs[HT_FORM_MANY];
    bool same = one->n_steps == many->n_steps;
    for (size_t i = 0; i < one->n_steps && same; i++)
        same = one->steps[i].device == many->steps[i].device;
    for (size_t i = set->model->tail; i < set->model->n_ops && same; i++)
        if (ht_op_reads(&set->model->ops[i]) & HT_BIT_KV)
            same = cache_owner(set, alone, set->model->ops[i].cache) != NOBODY;
    return !ht_lanes_facts(set, lane->devices).copies || same;
}

static void find_tails(const ht_lanes *set, const ht_lane *alone, ht_lane *lane) {
    const bool split = may_split(set, alone, lane);
    for (size_t p = 0; p < HT_FORMS; p++) {
        ht_program *program = &lane->programs[p];
        program->tail = program->head;
        for (size_t i = 0; i < program->n_steps && split; i++)
            if (program->steps[i].op == &set->model->ops[set->model->tail])
                program->tail = i;
    }
}

void ht_lanes_plan_transfers(ht_lanes *set, const ht_lane *alone) {
    for (size_t l = 0; l < set->n_lanes; l++) {
        find_tails(set, alone, &set->lanes[l]);
        for (size_t p = 0; p < HT_FORMS; p++)
            plan_transfers(set, alone, &set->lanes[l].programs[p]);
    }
}
