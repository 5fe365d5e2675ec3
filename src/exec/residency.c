/* Which values need not move.
 *
 * A device with memory of its own brings in what others wrote and hands out what others read. Both follow from the plan:
 * walking the steps in order, the newest values of a slot are those of the device that wrote it last, alone and whole.
 * Where several devices wrote rows of it, or the host did (token ids), nobody has all of it.
 */
#include "exec/exec.h"

enum { NOBODY = -1 };

/* Slots an operator reads and writes, as bits. */
static uint32_t bit(ht_slot slot) {
    return slot == HT_SLOT_NONE ? 0 : 1u << slot;
}

static uint32_t reads(const ht_op *op) {
    return bit(op->in) | (op->kind == HT_OP_NORM ? bit(op->aux) : 0) | (op->kind == HT_OP_ATTENTION ? HT_BIT_KV : 0);
}

static uint32_t writes(const ht_op *op) {
    /* a NORM with aux adds it to its input */
    return bit(op->out) | (op->kind == HT_OP_NORM ? bit(op->aux == HT_SLOT_NONE ? HT_SLOT_NONE : op->in) : 0) |
           (op->kind == HT_OP_ROPE ? HT_BIT_KV : 0);
}

static int only_device(const ht_step *step) {
    return step->n_slices == 1 ? step->slices[0].device : NOBODY;
}

/* Is what step `at` writes to the slots of `what` read by nobody but `device` before it is written again? The cache is
 * read by the layer's own ATTENTION only. */
static bool stays(const ht_engine *engine, size_t at, uint32_t what, int device) {
    for (size_t i = at + 1; i < engine->n_steps; i++) {
        const ht_step *step = &engine->steps[i];
        const bool other_cache = what == HT_BIT_KV && step->op->layer != engine->steps[at].op->layer;
        if (!other_cache && reads(step->op) & what && only_device(step) != device)
            return false;
        if (writes(step->op) & what)
            return true;
    }
    return true;
}

void ht_engine_plan_transfers(ht_engine *engine) {
    int owner[HT_SLOT_COUNT + 1]; /* the last for HT_BIT_KV, of the layer under way */
    for (size_t i = 0; i <= HT_SLOT_COUNT; i++)
        owner[i] = NOBODY;
    for (size_t i = 0; i < engine->n_steps; i++) {
        ht_step *step = &engine->steps[i];
        const int device = only_device(step);
        for (size_t s = 0; s < step->n_slices; s++) {
            struct ht_step_slice *slice = &step->slices[s];
            slice->resident = slice->kept = 0;
            for (uint32_t slot = 0; slot <= HT_SLOT_COUNT && device != NOBODY; slot++) {
                if (reads(step->op) >> slot & 1 && owner[slot] == device)
                    slice->resident |= 1u << slot;
                if (writes(step->op) >> slot & 1 && stays(engine, i, 1u << slot, device))
                    slice->kept |= 1u << slot;
            }
        }
        for (uint32_t slot = 0; slot <= HT_SLOT_COUNT; slot++)
            if (writes(step->op) >> slot & 1)
                owner[slot] = device;
    }
}
