/* Running a pass: steps to device queues behind each other, a join where the host needs a result. */
#include "engine/engine.h"
#include "base/os.h"

#include <string.h>

#define AHEAD 16 /* steps from one mark to the next: devices are given up to twice as many in advance */

/* Sessions that share an engine take turns by the pass: milliseconds, so sleeping a little between looks costs nothing. */
void ht_engine_lock(ht_engine *engine) {
    for (int i = 0; atomic_flag_test_and_set_explicit(&engine->busy, memory_order_acquire); i++) {
        if (i < 100)
            ht_os_yield();
        else
            ht_os_nap(100000);
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
        if (one == HT_ERROR_DEVICE)
            atomic_fetch_or(&engine->failed, 1u << d);
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

static ht_view view_from(ht_view view, size_t first) {
    view.data = (float *)view.data + first * view.stride;
    return view;
}

/* What a step works on: its tokens of the pass, and the lane's own buffers where every lane computes the residual stream. */
static void bind(const ht_run *run, const ht_step *step, const ht_binding *common, ht_view slots[HT_SLOT_COUNT],
                 ht_view pieces[HT_MAX_PIECES], ht_binding *binding) {
    const ht_lane *lane = run->lane;
    const ht_schedule *schedule = run->engine->current;
    memcpy(slots, common->slots, HT_SLOT_COUNT * sizeof *slots);
    binding->slots = slots;
    if (step->own) {
        slots[HT_SLOT_X] = view_from(lane->own_x, run->offset);
        slots[HT_SLOT_NORMED] = view_from(lane->own_normed, run->offset);
    }
    if (step->delta)
        slots[HT_SLOT_DELTA] = view_from(lane->deltas[step->delta - 1], run->offset);
    bool first = true;
    for (size_t i = 0; i < schedule->n_lanes && step->adds; i++) {
        if (!(step->adds >> i & 1))
            continue;
        const ht_view sums = schedule->lanes[i]->deltas[step->delta - 1];
        if (first)
            slots[HT_SLOT_DELTA] = view_from(sums, run->offset);
        else
            pieces[binding->n_pieces++] = view_from(sums, run->offset + step->begin);
        first = false;
    }
    binding->pieces = pieces;
    if (step->end) {
        *binding = ht_binding_from(binding, step->begin, slots);
        binding->tokens = step->end - step->begin;
        binding->cached = 0; /* others write what this lane has not seen */
        if (step->end < common->tokens)
            binding->room = binding->tokens; /* rows behind are another's */
    }
    if (step->divides)
        binding->part = &step->part;
}

/* Submits a step behind all that the lane has under way elsewhere. Waits for nothing itself: queues keep their own order,
 * other devices' tickets are dependencies. */
static ht_status run_step(const ht_run *run, const ht_step *step, const ht_binding *common, ht_error *error) {
    ht_engine *engine = run->engine;
    ht_ticket ticket = 0, *newest = run->lane->front.newest;
    ht_dependency after[HT_MAX_DEVICES];
    ht_device *device = engine->devices[step->device];
    size_t n_after = 0;
    ht_view slots[HT_SLOT_COUNT], pieces[HT_MAX_PIECES];
    ht_binding binding = *common;
    for (size_t d = 0; d < engine->n_devices; d++)
        if (newest[d] && engine->devices[d] != device)
            after[n_after++] = (ht_dependency){engine->devices[d], newest[d]};
    binding.resident = step->resident;
    binding.kept = step->kept & ~common->kept; /* common: what the caller of this pass reads */
    binding.yields = step->yields;
    if (run->crew)
        bind(run, step, common, slots, pieces, &binding);
    binding.room = ht_min_size(binding.room, ht_engine_slot_tokens(engine, step->op->out) - step->begin);
    ht_status status = device->ops->submit(device, step->task, &binding, after, n_after, &ticket, error);
    if (status) {
        if (status == HT_ERROR_DEVICE)
            atomic_fetch_or(&engine->failed, 1u << step->device);
        return ht_error_prefix(error, "%s", step->op->name);
    }
    memset(newest, 0, sizeof run->lane->front.newest);
    newest[step->device] = ticket;
    return HT_OK;
}

/* ---- recording ---------------------------------------------------------------------------------------------------------- */

static void record(const ht_run *run, const char *what, const char *device, double begin) {
    ht_recording *r = &run->engine->recordings[run->lane - run->engine->lanes];
    if (ht_grow((void **)&r->events, &r->capacity, r->n + 1, sizeof *r->events, "a recording", NULL) == HT_OK)
        r->events[r->n++] =
            (ht_event){what, device, (size_t)(run->lane - run->engine->lanes), begin, ht_clock_now(run->engine->time)};
}

/* A recorded step is waited for, so that its end is known: lanes still run side by side, queues do not run ahead. */
static ht_status run_recorded(const ht_run *run, const ht_step *step, const ht_binding *binding, ht_error *error) {
    const ht_device *device = run->engine->devices[step->device];
    const double begin = ht_clock_now(run->engine->time);
    ht_status status = run_step(run, step, binding, error);
    if (!status)
        status = ht_lane_join(run->engine, run->lane, binding->sync, error);
    record(run, step->op->name, device->ops->caps(device)->name, begin);
    return status;
}

/* ---- running steps ------------------------------------------------------------------------------------------------------- */

static ht_status run_one(const ht_run *run, const ht_step *step, const ht_binding *binding, ht_error *error) {
    ht_status status = HT_OK;
    const bool recorded = run->engine->recordings != NULL;
    if (run->crew) {
        const double begin = recorded && step->waits ? ht_clock_now(run->engine->time) : -1;
        status = ht_crew_before(run, step, error);
        if (begin >= 0)
            record(run, "wait", "", begin);
    }
    if (!status)
        status = recorded ? run_recorded(run, step, binding, error) : run_step(run, step, binding, error);
    if (!status && run->crew)
        status = ht_crew_after(run, step, binding->sync, error);
    return status;
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
        binding.joined = (common->joined && i + 1 == end) || step->publishes;
        if (run->cancel && atomic_load_explicit(run->cancel, memory_order_relaxed))
            status = ht_fail(error, HT_ERROR_CANCELLED, "cancelled");
        if (!status && i % AHEAD == 0) {
            status = join(engine, front->mark, run->lane->crowded ? HT_SYNC_CALLBACK : HT_SYNC_EVENT, error);
            memcpy(front->mark, front->newest, sizeof front->mark);
        }
        if (!status)
            status = run_one(run, step, &binding, error);
    }
    if (status || common->joined) {
        const ht_status one =
            ht_lane_join(engine, run->lane, status ? HT_SYNC_AUTO : common->sync, status ? NULL : error);
        status = status ? status : one;
    }
    return status;
}

ht_binding ht_binding_from(const ht_binding *all, size_t first, ht_view slots[HT_SLOT_COUNT]) {
    memmove(slots, all->slots, HT_SLOT_COUNT * sizeof *slots); /* they may be the same */
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

/* ---- a pass ------------------------------------------------------------------------------------------------------------- */

/* A lane alone. Several lanes are there, but this pass is not shared: what it took teaches the planner. */
static ht_status run_alone(ht_engine *engine, ht_schedule *schedule, const ht_binding *binding, size_t first,
                           const atomic_bool *cancel, ht_error *error) {
    ht_lane *lane = schedule ? schedule->lanes[0] : &engine->lanes[0];
    ht_run run = {.engine = engine, .lane = lane, .cancel = cancel};
    ht_stay stay = {0};
    ht_binding own = *binding;
    own.sync = ht_lane_sync(engine, lane);
    const double start = ht_clock_now(engine->time);
    if (ht_cores_any(&lane->cores)) /* as it was measured, and as the lane would run beside others */
        ht_stay_on_cores(engine, lane, &stay);
    ht_status status = ht_run_body(&run, &own, first, error);
    engine->running = lane;
    engine->plan = run.plan;
    if (!status && schedule)
        status = ht_lane_join(engine, lane, own.sync, error);
    ht_leave_cores(&stay);
    if (status || !schedule)
        return status;
    const double seconds = ht_clock_now(engine->time) - start;
    ht_engine_learn(engine, schedule, seconds, &seconds);
    return status;
}

static ht_status run_shared(ht_engine *engine, ht_schedule *schedule, const ht_binding *binding,
                            const atomic_bool *cancel, ht_error *error) {
    size_t first[HT_MAX_DEVICES] = {0}, end[HT_MAX_DEVICES];
    double busy[HT_MAX_DEVICES];
    const double start = ht_clock_now(engine->time);
    for (size_t i = 0; i < schedule->n_lanes; i++)
        end[i] = schedule->programs[i].tail; /* where the head begins */
    ht_status status = ht_crew_run(engine->crew, engine, schedule, first, end, binding, 0, cancel, busy, error);
    if (status)
        return status;
    ht_engine_learn(engine, schedule, ht_clock_now(engine->time) - start, busy);
    const size_t head = schedule->choice.regime == HT_REGIME_TOKENS ? schedule->n_lanes - 1 : 0;
    engine->running = schedule->choice.regime == HT_REGIME_SHARES ? NULL : schedule->lanes[head];
    engine->plan = ht_lane_plan(schedule->lanes[head], 1);
    return HT_OK;
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
    ht_schedule *schedule = NULL;
    if (engine->n_lanes > 1)
        status = ht_engine_schedule(engine, n, position, n - first, &schedule, error);
    if (status)
        return status;
    engine->current = schedule;
    status = schedule && schedule->n_lanes > 1 ? run_shared(engine, schedule, &binding, cancel, error)
                                               : run_alone(engine, schedule, &binding, first, cancel, error);
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
    if (!engine->running) { /* every lane has the residual stream: each computes some rows */
        size_t begin[HT_MAX_DEVICES], end[HT_MAX_DEVICES];
        for (size_t i = 0; i < engine->current->n_lanes; i++) {
            const ht_plan *program = &engine->current->programs[i];
            begin[i] = program->tail;
            end[i] = program->n_steps - (i == 0 && wanted == HT_SLOT_LOGITS); /* the first lane's last step picks */
        }
        return ht_crew_run(engine->crew, engine, engine->current, begin, end, &binding, first, NULL, NULL, error);
    }
    const ht_run run = {.engine = engine, .lane = engine->running, .plan = engine->plan};
    const size_t end = run.plan->n_steps - (wanted == HT_SLOT_LOGITS);
    return ht_run_steps(&run, run.plan->n_steps - HT_HEAD_STEPS, end, &binding, error);
}

ht_status ht_engine_head(ht_engine *engine, size_t first, size_t count, const float **logits, ht_error *error) {
    const double start = ht_clock_now(engine->time);
    ht_status status = run_head(engine, first, count, HT_SLOT_LOGITS, error);
    if (!status && count == 1)
        ht_engine_learn_head(engine, ht_clock_now(engine->time) - start);
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
