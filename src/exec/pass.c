/* Running a pass: steps to device queues behind each other, a join where the host needs a result. */
#include "exec/exec.h"

#include <sched.h>
#include <string.h>
#include <time.h>

#define AHEAD 16 /* steps from one mark to the next: devices are given up to twice as many in advance */

/* Sessions that share an engine take turns by the pass: milliseconds, so sleeping a little between looks costs nothing. */
void ht_engine_lock(ht_engine *engine) {
    for (int i = 0; atomic_flag_test_and_set_explicit(&engine->busy, memory_order_acquire); i++) {
        if (i < 100)
            sched_yield();
        else
            nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    }
}

void ht_engine_unlock(ht_engine *engine) {
    atomic_flag_clear_explicit(&engine->busy, memory_order_release);
}

/* Waits until every device has reached tickets[]. After a failure the others are still waited for: nobody may use the
 * buffers before they are done with them. */
static ht_status join(ht_engine *engine, const ht_ticket *tickets, ht_sync sync, ht_error *error) {
    ht_status status = HT_OK;
    for (size_t d = 0; d < engine->n_devices; d++) {
        ht_device *device = engine->devices[d];
        if (tickets[d] == 0)
            continue;
        const ht_status one = device->ops->wait(device, tickets[d], sync, status ? NULL : error);
        status = status ? status : one;
    }
    return status;
}

void ht_engine_settle(ht_engine *engine) {
    (void)join(engine, engine->front, HT_SYNC_AUTO, NULL);
}

/* Submits every slice behind all of the step before, the one that computes in this thread last. Waits for nothing itself:
 * queues keep their own order, other devices' tickets are dependencies. */
static ht_status run_step(ht_engine *engine, const ht_step *step, const ht_binding *common, ht_error *error) {
    ht_ticket tickets[HT_MAX_DEVICES] = {0};
    ht_dependency after[HT_MAX_DEVICES];
    for (int in_caller = 0; in_caller < 2; in_caller++)
        for (size_t s = 0; s < step->n_slices; s++) {
            const struct ht_step_slice *slice = &step->slices[s];
            ht_device *device = engine->devices[slice->device];
            if (device->ops->caps(device)->runs_in_caller != (in_caller == 1))
                continue;
            size_t n_after = 0;
            for (size_t d = 0; d < engine->n_devices; d++)
                if (engine->front[d] && engine->devices[d] != device)
                    after[n_after++] = (ht_dependency){engine->devices[d], engine->front[d]};
            ht_binding binding = *common;
            binding.resident = slice->resident;
            binding.kept = slice->kept & ~common->kept; /* common: what the caller of this pass reads */
            binding.yields = slice->yields;
            binding.room =
                step->n_slices == 1 ? ht_min_size(common->room, ht_engine_slot_tokens(engine, step->op->out)) : 0;
            ht_status status =
                device->ops->submit(device, slice->task, &binding, after, n_after, &tickets[slice->device], error);
            if (status) {
                ht_error_prefix(error, "%s", step->op->name);
                for (size_t d = 0; d < engine->n_devices; d++)
                    engine->front[d] = ht_max_size(engine->front[d], tickets[d]);
                return status;
            }
        }
    memcpy(engine->front, tickets, sizeof tickets);
    return HT_OK;
}

/* Runs steps [first, end); every few of them waits for the devices to have come near, so that a cancellation or a failure
 * is noticed soon and queues stay short, but never empty. */
static ht_status run_steps(ht_engine *engine, size_t first, size_t end, const ht_binding *common,
                           const atomic_bool *cancel, ht_error *error) {
    ht_status status = HT_OK;
    for (size_t i = first; i < end && !status; i++) {
        ht_binding binding = *common;
        binding.joined = common->joined && i + 1 == end;
        if (cancel && atomic_load_explicit(cancel, memory_order_relaxed))
            status = ht_fail(error, HT_ERROR_CANCELLED, "cancelled");
        if (!status && i % AHEAD == 0) {
            status = join(engine, engine->mark, HT_SYNC_EVENT, error);
            memcpy(engine->mark, engine->front, sizeof engine->mark);
        }
        if (!status)
            status = run_step(engine, &engine->running->steps[i], &binding, error);
    }
    if (!status && common->joined) {
        status = join(engine, engine->front, engine->sync, error);
        memset(engine->front, 0, sizeof engine->front);
        memset(engine->mark, 0, sizeof engine->mark);
    }
    if (status)
        ht_engine_settle(engine);
    return status;
}

/* The slots with token `first` as their first; logits and picks stay where they are. */
static void shift_slots(const ht_engine *engine, size_t first, ht_view slots[HT_SLOT_COUNT]) {
    memcpy(slots, engine->slots, HT_SLOT_COUNT * sizeof *slots);
    for (int slot = 0; slot < HT_SLOT_COUNT; slot++)
        if (slot != HT_SLOT_LOGITS && slot != HT_SLOT_PICK)
            slots[slot].data = (float *)slots[slot].data + first * slots[slot].stride;
}

/* The last layer's steps for tokens [first, n): with few of them, by the plan for few. */
static ht_status run_tail(ht_engine *engine, const ht_binding *all, size_t first, const atomic_bool *cancel,
                          ht_error *error) {
    if (first == all->tokens)
        return HT_OK;
    ht_view slots[HT_SLOT_COUNT];
    shift_slots(engine, first, slots);
    ht_binding binding = *all;
    binding.slots = slots;
    binding.position += first;
    binding.tokens -= first;
    binding.room -= first;
    engine->running = ht_engine_plan_for(engine, binding.tokens);
    return run_steps(engine, engine->running->tail, engine->running->n_steps - HT_HEAD_STEPS, &binding, cancel, error);
}

ht_status ht_engine_forward(ht_engine *engine, const ht_kv_layer *kv, const int32_t *ids, size_t n, size_t position,
                            size_t first, const atomic_bool *cancel, ht_error *error) {
    const ht_binding binding = {.slots = engine->slots,
                                .kv = kv,
                                .position = position,
                                .tokens = n,
                                .room = (size_t)engine->info.chunk,
                                .sync = engine->sync};
    /* an earlier chunk's ids may not have been read yet */
    ht_status status = join(engine, engine->front, HT_SYNC_EVENT, error);
    if (status)
        return status;
    memcpy(engine->slots[HT_SLOT_IDS].data, ids, n * sizeof *ids);
    engine->running = ht_engine_plan_for(engine, n);
    const bool split = first > 0 && engine->running->tail > 0;
    const size_t body = split ? engine->running->tail : engine->running->n_steps - HT_HEAD_STEPS;
    status = run_steps(engine, 0, body, &binding, cancel, error);
    if (!status && split)
        status = run_tail(engine, &binding, first, cancel, error);
    if (!status) {
        engine->first_token = first;
        engine->last_tokens = n;
    }
    return status;
}

/* The head up to where `wanted` is written. */
static ht_status run_head(ht_engine *engine, size_t first, size_t count, ht_slot wanted, ht_error *error) {
    if (count > ht_engine_slot_tokens(engine, HT_SLOT_LOGITS) || first < engine->first_token ||
        first + count > engine->last_tokens)
        return ht_fail(error, HT_ERROR_ARGUMENT, "head: tokens %zu..%zu of %zu..%zu, %zu at a time", first,
                       first + count, engine->first_token, engine->last_tokens,
                       ht_engine_slot_tokens(engine, HT_SLOT_LOGITS));
    ht_view slots[HT_SLOT_COUNT];
    shift_slots(engine, first, slots);
    const ht_binding binding = {.slots = slots,
                                .tokens = count,
                                .room = (size_t)engine->info.chunk - first,
                                .sync = engine->sync,
                                .joined = true,
                                .kept = 1u << wanted};
    const size_t end = engine->running->n_steps - (wanted == HT_SLOT_LOGITS);
    return run_steps(engine, engine->running->n_steps - HT_HEAD_STEPS, end, &binding, NULL, error);
}

ht_status ht_engine_head(ht_engine *engine, size_t first, size_t count, const float **logits, ht_error *error) {
    ht_status status = run_head(engine, first, count, HT_SLOT_LOGITS, error);
    if (!status)
        *logits = engine->slots[HT_SLOT_LOGITS].data;
    return status;
}

ht_status ht_engine_pick(ht_engine *engine, size_t token, int32_t *id, ht_error *error) {
    ht_status status = run_head(engine, token, 1, HT_SLOT_PICK, error);
    if (!status)
        *id = *(const int32_t *)engine->slots[HT_SLOT_PICK].data;
    return status;
}
