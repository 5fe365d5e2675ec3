/* Running a pass: steps to device queues behind each other, a join where the host needs a result. */
#include "pass/pass.h"

#include <stdlib.h>
#include <string.h>

#define AHEAD 16 /* steps from one mark to the next: devices are given up to twice as many in advance */

static ht_view view_from(ht_view view, size_t first) {
    view.data = (float *)view.data + first * view.stride;
    return view;
}

/* What a step works on: its tokens of the pass, and the lane's own buffers where every lane computes the residual stream. */
static void bind(const ht_run *run, const ht_step *step, const ht_binding *common, ht_view slots[HT_SLOT_COUNT],
                 ht_view pieces[HT_MAX_PIECES], ht_binding *binding) {
    const ht_lane *lane = run->lane;
    const ht_schedule *schedule = run->passes->current;
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
    ht_passes *passes = run->passes;
    ht_ticket ticket = 0, *newest = run->lane->front.newest;
    ht_dependency after[HT_MAX_DEVICES];
    ht_device *device = passes->set->devices[step->device];
    size_t n_after = 0;
    ht_view slots[HT_SLOT_COUNT], pieces[HT_MAX_PIECES];
    ht_binding binding = *common;
    for (size_t d = 0; d < passes->set->n_devices; d++)
        if (newest[d] && passes->set->devices[d] != device)
            after[n_after++] = (ht_dependency){passes->set->devices[d], newest[d]};
    binding.resident = step->resident;
    binding.kept = step->kept & ~common->kept; /* common: what the caller of this pass reads */
    binding.yields = step->yields;
    if (run->crew)
        bind(run, step, common, slots, pieces, &binding);
    binding.room = ht_min_size(binding.room, ht_lanes_slot_tokens(passes->set, step->op->out) - step->begin);
    ht_status status = device->ops->submit(device, step->task, &binding, after, n_after, &ticket, error);
    if (status) {
        if (status == HT_ERROR_DEVICE)
            atomic_fetch_or(&passes->set->failed, 1u << step->device);
        return ht_error_prefix(error, status, "%s", step->op->name);
    }
    memset(newest, 0, sizeof run->lane->front.newest);
    newest[step->device] = ticket;
    return HT_OK;
}

/* ---- recording ---------------------------------------------------------------------------------------------------------- */

static void record(const ht_run *run, const char *what, const char *device, double begin) {
    ht_recording *r = &run->passes->recordings[run->lane - run->passes->set->lanes];
    if (ht_grow((void **)&r->events, &r->capacity, r->n + 1, sizeof *r->events, "a recording", NULL) == HT_OK)
        r->events[r->n++] = (ht_event){what, device, (size_t)(run->lane - run->passes->set->lanes), begin,
                                       ht_clock_now(run->passes->set->time)};
}

/* A recorded step is waited for, so that its end is known: lanes still run side by side, queues do not run ahead. */
static ht_status run_recorded(const ht_run *run, const ht_step *step, const ht_binding *binding, ht_error *error) {
    const ht_device *device = run->passes->set->devices[step->device];
    const double begin = ht_clock_now(run->passes->set->time);
    ht_status status = run_step(run, step, binding, error);
    if (!status)
        status = ht_lane_join(run->passes->set, run->lane, binding->sync, error);
    record(run, step->op->name, device->ops->caps(device)->name, begin);
    return status;
}

/* ---- running steps ------------------------------------------------------------------------------------------------------- */

static ht_status run_one(const ht_run *run, const ht_step *step, const ht_binding *binding, ht_error *error) {
    ht_status status = HT_OK;
    const bool recorded = run->passes->recordings != NULL;
    if (run->crew) {
        const double begin = recorded && step->waits ? ht_clock_now(run->passes->set->time) : -1;
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
    ht_passes *passes = run->passes;
    ht_front *front = &run->lane->front;
    ht_status status = HT_OK;
    for (size_t i = first; i < end && !status; i++) {
        const ht_step *step = &run->program->steps[i];
        ht_binding binding = *common;
        binding.joined = (common->joined && i + 1 == end) || step->publishes;
        if (run->cancel && atomic_load_explicit(run->cancel, memory_order_relaxed))
            status = ht_fail(error, HT_ERROR_CANCELLED, "cancelled");
        if (!status && i % AHEAD == 0) {
            status =
                ht_lanes_wait(passes->set, front->mark, run->lane->crowded ? HT_SYNC_CALLBACK : HT_SYNC_EVENT, error);
            memcpy(front->mark, front->newest, sizeof front->mark);
        }
        if (!status)
            status = run_one(run, step, &binding, error);
    }
    if (status || common->joined) {
        const ht_status one =
            ht_lane_join(passes->set, run->lane, status ? HT_SYNC_AUTO : common->sync, status ? NULL : error);
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
    run->program = ht_lane_program(run->lane, common->tokens);
    const bool split = wanted > 0 && run->program->tail < run->program->head;
    ht_status status = ht_run_steps(run, 0, split ? run->program->tail : run->program->head, common, error);
    if (status || !split || wanted == common->tokens)
        return status;
    ht_view slots[HT_SLOT_COUNT];
    const ht_binding binding = ht_binding_from(common, wanted, slots);
    run->program = ht_lane_program(run->lane, binding.tokens);
    return ht_run_steps(run, run->program->tail, run->program->head, &binding, error);
}

/* ---- a pass ------------------------------------------------------------------------------------------------------------- */

/* A lane alone. Several lanes are there, but this pass is not shared: what it took teaches the planner. */
static ht_status run_alone(ht_passes *passes, ht_schedule *schedule, const ht_binding *binding, size_t first,
                           const atomic_bool *cancel, ht_error *error) {
    ht_lane *lane = schedule ? schedule->lanes[0] : &passes->set->lanes[0];
    ht_run run = {.passes = passes, .lane = lane, .cancel = cancel};
    ht_stay stay = {0};
    ht_binding own = *binding;
    own.sync = ht_lane_sync(passes->set, lane);
    const double start = ht_clock_now(passes->set->time);
    if (ht_cores_any(&lane->cores)) /* as it was measured, and as the lane would run beside others */
        ht_stay_on_cores(passes->set, lane, &stay);
    ht_status status = ht_run_body(&run, &own, first, error);
    passes->running = lane;
    passes->program = run.program;
    if (!status && schedule)
        status = ht_lane_join(passes->set, lane, own.sync, error);
    ht_leave_cores(&stay);
    if (status || !schedule)
        return status;
    const double seconds = ht_clock_now(passes->set->time) - start;
    ht_passes_learn(passes, schedule, seconds, &seconds);
    return status;
}

static ht_status run_shared(ht_passes *passes, ht_schedule *schedule, const ht_binding *binding,
                            const atomic_bool *cancel, ht_error *error) {
    size_t first[HT_MAX_LANES] = {0}, end[HT_MAX_LANES];
    double busy[HT_MAX_LANES];
    const double start = ht_clock_now(passes->set->time);
    for (size_t i = 0; i < schedule->n_lanes; i++)
        end[i] = schedule->programs[i].head;
    ht_status status = ht_crew_run(passes->crew, passes, schedule, first, end, binding, 0, cancel, busy, error);
    if (status)
        return status;
    ht_passes_learn(passes, schedule, ht_clock_now(passes->set->time) - start, busy);
    const size_t head = schedule->choice.regime == HT_REGIME_TOKENS ? schedule->n_lanes - 1 : 0;
    passes->running = schedule->choice.regime == HT_REGIME_SHARES ? NULL : schedule->lanes[head];
    passes->program = ht_lane_program(schedule->lanes[head], 1);
    return HT_OK;
}

ht_status ht_passes_forward(ht_passes *passes, const ht_kv_layer *kv, const int32_t *ids, size_t n, size_t position,
                            size_t first, const atomic_bool *cancel, ht_error *error) {
    const ht_binding binding = {.slots = passes->set->slots,
                                .kv = kv,
                                .position = position,
                                .tokens = n,
                                .room = passes->set->chunk,
                                .cached = passes->set->n_lanes > 1 ? 0 : position, /* other lanes wrote some */
                                .sync = passes->set->sync};
    /* an earlier chunk's ids may not have been read yet */
    ht_status status = ht_lanes_join(passes->set, HT_SYNC_EVENT, error);
    if (status)
        return status;
    memcpy(passes->set->slots[HT_SLOT_IDS].data, ids, n * sizeof *ids);
    ht_schedule *schedule = NULL;
    if (passes->set->n_lanes > 1)
        status = ht_passes_schedule(passes, n, position, n - first, &schedule, error);
    if (status)
        return status;
    passes->current = schedule;
    status = schedule && schedule->n_lanes > 1 ? run_shared(passes, schedule, &binding, cancel, error)
                                               : run_alone(passes, schedule, &binding, first, cancel, error);
    if (!status) {
        passes->first_token = first;
        passes->last_tokens = n;
    }
    return status;
}

/* The head up to where `wanted` is written. */
static ht_status run_head(ht_passes *passes, size_t first, size_t count, ht_slot wanted, ht_error *error) {
    if (count > ht_lanes_slot_tokens(passes->set, HT_SLOT_LOGITS) || first < passes->first_token ||
        first + count > passes->last_tokens)
        return ht_fail(error, HT_ERROR_ARGUMENT, "head: tokens %zu..%zu of %zu..%zu, %zu at a time", first,
                       first + count, passes->first_token, passes->last_tokens,
                       ht_lanes_slot_tokens(passes->set, HT_SLOT_LOGITS));
    ht_view slots[HT_SLOT_COUNT];
    const ht_binding all = {.slots = passes->set->slots,
                            .tokens = first + count,
                            .room = passes->set->chunk,
                            .sync = passes->set->sync,
                            .joined = true,
                            .kept = 1u << wanted};
    const ht_binding binding = ht_binding_from(&all, first, slots);
    if (!passes->running) { /* every lane has the residual stream: each computes some rows */
        size_t begin[HT_MAX_LANES], end[HT_MAX_LANES];
        for (size_t i = 0; i < passes->current->n_lanes; i++) {
            const ht_program *program = &passes->current->programs[i];
            begin[i] = program->head;
            end[i] = program->n_steps - (i == 0 && wanted == HT_SLOT_LOGITS); /* the first lane's last step picks */
        }
        return ht_crew_run(passes->crew, passes, passes->current, begin, end, &binding, first, NULL, NULL, error);
    }
    const ht_run run = {.passes = passes, .lane = passes->running, .program = passes->program};
    const size_t end = run.program->n_steps - (wanted == HT_SLOT_LOGITS);
    return ht_run_steps(&run, run.program->head, end, &binding, error);
}

ht_status ht_passes_head(ht_passes *passes, size_t first, size_t count, const float **logits, ht_error *error) {
    const double start = ht_clock_now(passes->set->time);
    ht_status status = run_head(passes, first, count, HT_SLOT_LOGITS, error);
    if (!status && count == 1)
        ht_passes_learn_head(passes, ht_clock_now(passes->set->time) - start);
    if (!status)
        *logits = passes->set->slots[HT_SLOT_LOGITS].data;
    return status;
}

ht_status ht_passes_pick(ht_passes *passes, size_t token, int32_t *id, ht_error *error) {
    ht_status status = run_head(passes, token, 1, HT_SLOT_PICK, error);
    if (!status)
        *id = *(const int32_t *)passes->set->slots[HT_SLOT_PICK].data;
    return status;
}

/* ---- their memory -------------------------------------------------------------------------------------------------------- */

ht_status ht_passes_prepare(ht_passes *passes, ht_error *error) {
    const ht_lanes *set = passes->set;
    ht_status status = HT_OK;
    /* rows cut in two and the waits between: no program is longer, and a choice that is made anew allocates nothing */
    const size_t most = 2 * set->model->n_ops + 64;
    for (size_t i = 0; i < HT_SCHEDULES * set->n_lanes && !status; i++) {
        ht_program *program = &passes->schedules[i / set->n_lanes].programs[i % set->n_lanes];
        status =
            ht_grow((void **)&program->steps, &program->cap_steps, most, sizeof *program->steps, "a program", error);
    }
    if (!status)
        ht_passes_find_units(passes);
    return status;
}

void ht_passes_clear(ht_passes *passes) {
    ht_crew_destroy(passes->crew);
    for (size_t i = 0; i < HT_SCHEDULES; i++)
        for (size_t k = 0; k < HT_MAX_LANES; k++)
            free(passes->schedules[i].programs[k].steps);
    ht_passes_forget_recordings(passes);
}

void ht_passes_forget_recordings(ht_passes *passes) {
    for (size_t l = 0; l < HT_MAX_LANES && passes->recordings; l++)
        free(passes->recordings[l].events);
    free(passes->recordings);
    passes->recordings = NULL;
}
