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

ht_status ht_lane_join(ht_engine *engine, ht_lane *lane, ht_sync sync, ht_error *error) {
    const ht_status status = join(engine, lane->front.newest, sync, error);
    memset(&lane->front, 0, sizeof lane->front);
    return status;
}

static ht_status join_all(ht_engine *engine, ht_sync sync, ht_error *error) {
    ht_status status = HT_OK;
    for (size_t l = 0; l < engine->n_lanes; l++) {
        const ht_status one = ht_lane_join(engine, &engine->lanes[l], sync, status ? NULL : error);
        status = status ? status : one;
    }
    return status;
}

void ht_engine_settle(ht_engine *engine) {
    (void)join_all(engine, HT_SYNC_AUTO, NULL);
}

/* Submits every slice behind all of the step before, the one that computes in this thread last. Waits for nothing itself:
 * queues keep their own order, other devices' tickets are dependencies. */
static ht_status run_step(const ht_run *run, const ht_step *step, const ht_binding *common, ht_error *error) {
    ht_engine *engine = run->engine;
    ht_ticket tickets[HT_MAX_DEVICES] = {0}, *newest = run->lane->front.newest;
    ht_dependency after[HT_MAX_DEVICES];
    for (int in_caller = 0; in_caller < 2; in_caller++)
        for (size_t s = 0; s < step->n_slices; s++) {
            const struct ht_step_slice *slice = &step->slices[s];
            ht_device *device = engine->devices[slice->device];
            if (device->ops->caps(device)->runs_in_caller != (in_caller == 1))
                continue;
            size_t n_after = 0;
            for (size_t d = 0; d < engine->n_devices; d++)
                if (newest[d] && engine->devices[d] != device)
                    after[n_after++] = (ht_dependency){engine->devices[d], newest[d]};
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
                    newest[d] = ht_max_size(newest[d], tickets[d]);
                return status;
            }
        }
    memcpy(newest, tickets, sizeof tickets);
    return HT_OK;
}

/* Every few steps waits for the devices to have come near, so that a cancellation or a failure is noticed soon and queues
 * stay short, but never empty. */
ht_status ht_run_steps(const ht_run *run, size_t first, size_t end, const ht_binding *common, ht_error *error) {
    ht_engine *engine = run->engine;
    ht_front *front = &run->lane->front;
    ht_status status = HT_OK;
    for (size_t i = first; i < end && !status; i++) {
        const ht_step *step = &run->plan->steps[i];
        ht_binding binding = *common;
        binding.joined = common->joined && i + 1 == end;
        if (run->cancel && atomic_load_explicit(run->cancel, memory_order_relaxed))
            status = ht_fail(error, HT_ERROR_CANCELLED, "cancelled");
        if (!status && i % AHEAD == 0) {
            status = join(engine, front->mark, HT_SYNC_EVENT, error);
            memcpy(front->mark, front->newest, sizeof front->mark);
        }
        if (!status && run->crew)
            status = ht_crew_before(run, step, error);
        if (!status)
            status = run_step(run, step, &binding, error);
        if (!status && run->crew)
            status = ht_crew_after(run, step, common->sync, error);
    }
    if (status || common->joined) {
        const ht_status one =
            ht_lane_join(engine, run->lane, status ? HT_SYNC_AUTO : common->sync, status ? NULL : error);
        status = status ? status : one;
    }
    return status;
}

ht_binding ht_binding_from(const ht_binding *all, size_t first, ht_view slots[HT_SLOT_COUNT]) {
    memcpy(slots, all->slots, HT_SLOT_COUNT * sizeof *slots);
    for (int slot = 0; slot < HT_SLOT_COUNT; slot++)
        if (slot != HT_SLOT_LOGITS && slot != HT_SLOT_PICK)
            slots[slot].data = (float *)slots[slot].data + first * slots[slot].stride;
    ht_binding binding = *all;
    binding.slots = slots;
    if (binding.cached == binding.position)
        binding.cached += first;
    binding.position += first;
    binding.tokens -= first;
    binding.room -= first;
    return binding;
}

ht_status ht_run_body(ht_run *run, const ht_binding *common, size_t wanted, ht_error *error) {
    run->plan = ht_lane_plan(run->lane, common->tokens);
    const bool split = wanted > 0 && run->plan->tail > 0;
    ht_status status =
        ht_run_steps(run, 0, split ? run->plan->tail : run->plan->n_steps - HT_HEAD_STEPS, common, error);
    if (status || !split || wanted == common->tokens)
        return status;
    ht_view slots[HT_SLOT_COUNT];
    const ht_binding binding = ht_binding_from(common, wanted, slots);
    run->plan = ht_lane_plan(run->lane, binding.tokens);
    return ht_run_steps(run, run->plan->tail, run->plan->n_steps - HT_HEAD_STEPS, &binding, error);
}

/* The only lane with tokens, or NULL. */
static ht_lane *only_lane(ht_engine *engine, const ht_cut *cut) {
    ht_lane *only = NULL;
    for (size_t l = 0; l < engine->n_lanes; l++)
        if (cut->tokens[l] && only)
            return NULL;
        else if (cut->tokens[l])
            only = &engine->lanes[l];
    return only;
}

ht_status ht_engine_forward(ht_engine *engine, const ht_kv_layer *kv, const int32_t *ids, size_t n, size_t position,
                            size_t first, const atomic_bool *cancel, ht_error *error) {
    const ht_binding binding = {.slots = engine->slots,
                                .kv = kv,
                                .position = position,
                                .tokens = n,
                                .room = (size_t)engine->info.chunk,
                                .cached = engine->n_lanes > 1 ? 0 : position, /* other lanes wrote some */
                                .sync = engine->sync};
    /* an earlier chunk's ids may not have been read yet */
    ht_status status = join_all(engine, HT_SYNC_EVENT, error);
    if (status)
        return status;
    memcpy(engine->slots[HT_SLOT_IDS].data, ids, n * sizeof *ids);
    ht_cut cut;
    ht_engine_cut(engine, n, position, first, &cut);
    ht_lane *lane = only_lane(engine, &cut);
    if (lane) {
        ht_run run = {.engine = engine, .lane = lane, .cancel = cancel};
        status = ht_run_body(&run, &binding, first, error);
        engine->running = lane;
        engine->plan = run.plan;
    } else {
        status = ht_crew_run(engine->crew, engine, &cut, &binding, first, cancel, error);
    }
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
    const ht_binding all = {.slots = engine->slots,
                            .tokens = first + count,
                            .room = (size_t)engine->info.chunk,
                            .sync = engine->sync,
                            .joined = true,
                            .kept = 1u << wanted};
    const ht_binding binding = ht_binding_from(&all, first, slots);
    const ht_run run = {.engine = engine, .lane = engine->running, .plan = engine->plan};
    const size_t end = run.plan->n_steps - (wanted == HT_SLOT_LOGITS);
    return ht_run_steps(&run, run.plan->n_steps - HT_HEAD_STEPS, end, &binding, error);
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
