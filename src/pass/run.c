/* Running one lane's steps: to device queues behind each other, a join where the host or another lane needs a result. */
#include "pass/pass.h"

#include <string.h>

#define AHEAD 16 /* steps from one mark to the next: devices are given up to twice as many in advance */

static ht_view view_from(ht_view view, size_t first) {
    view.data = (float *)view.data + first * view.stride;
    return view;
}

/* The slots of sums that a norm adds: the first of all lies where `aux` is looked for, the rest are pieces. */
static void bind_added(const ht_run *run, const ht_step *step, const ht_binding *common, ht_view *slots,
                       ht_view pieces[HT_MAX_PIECES], ht_binding *binding) {
    binding->pieces = pieces;
    binding->first_pieces = 0;
    for (size_t k = 0; k < ht_op_added(step->op); k++) {
        const ht_slot slot = ht_op_addend(step->op, k);
        bool first = k == 0;
        if (!step->adds[k] && !first)
            pieces[binding->n_pieces++] = view_from(common->slots[slot], step->begin);
        for (size_t i = 0; step->adds[k] >> i; i++) {
            if (!(step->adds[k] >> i & 1))
                continue;
            const ht_view sums = view_from(run->passes->current->lanes[i]->sums[step->sums[k] - 1][slot], run->offset);
            if (first)
                slots[slot] = sums;
            else
                pieces[binding->n_pieces++] = view_from(sums, step->begin);
            first = false;
        }
        if (k == 0)
            binding->first_pieces = binding->n_pieces;
    }
}

/* What a step works on: its tokens of the pass, and the lane's own buffers where every lane computes the residual stream. */
static void bind(const ht_run *run, const ht_step *step, const ht_binding *common, ht_view slots[HT_MAX_SLOTS],
                 ht_view pieces[HT_MAX_PIECES], ht_binding *binding) {
    const ht_lane *lane = run->lane, *own = step->feeds ? run->passes->current->lanes[step->feeds - 1] : lane;
    const ht_model *model = run->passes->set->model;
    const ht_slot out = step->op->out;
    memcpy(slots, common->slots, (size_t)model->n_slots * sizeof *slots);
    binding->slots = slots;
    for (ht_slot slot = 0; slot < model->n_slots && step->own; slot++)
        if (own->own[slot].data)
            slots[slot] = view_from(own->own[slot], run->offset);
    bind_added(run, step, common, slots, pieces, binding);
    if (step->sums[0] && !ht_op_added(step->op)) {
        const ht_lane *into = step->adds[0] ? run->passes->current->lanes[0] : lane;
        slots[out] = view_from(into->sums[step->sums[0] - 1][out], run->offset);
    }
    if (step->end) {
        *binding = ht_binding_from(model, binding, step->begin, slots);
        for (ht_slot slot = 0; slot < model->n_slots; slot++) /* of a head: its own tokens', of which these are some */
            if (model->slots[slot].role == HT_ROLE_LOGITS || model->slots[slot].role == HT_ROLE_PICK)
                slots[slot] = view_from(slots[slot], step->begin);
        binding->tokens = step->end - step->begin;
        binding->cached = 0; /* others write what this lane has not seen */
        if (step->end < common->tokens)
            binding->room = binding->tokens; /* rows behind are another's */
    }
    if (step->divides)
        binding->part = &step->part;
}

/* What one device leaves of an operator, and another computes. */
static void bind_rest(const ht_run *run, const ht_step *step, ht_view slots[HT_MAX_SLOTS], ht_binding *binding) {
    if (step->leaves)
        binding->left = &run->lane->left;
    if (!step->rest)
        return;
    if (binding->slots != slots)
        memcpy(slots, binding->slots, (size_t)run->passes->set->model->n_slots * sizeof *slots);
    slots[step->op->more[0]] = run->lane->left;
    binding->slots = slots;
    binding->adds = true;
}

/* The step once, or once for each sequence that its tokens are of, where that matters. The queue keeps their order:
 * *ticket is the last one's. */
static ht_status submit(const ht_run *run, const ht_step *step, const ht_binding *binding, const ht_dependency *after,
                        size_t n_after, ht_ticket *ticket, ht_error *error) {
    const ht_model *model = run->passes->set->model;
    ht_device *device = run->passes->set->devices[step->device];
    ht_status status = HT_OK;
    if (!binding->segments || !ht_op_sees_sequences(step->op))
        return device->ops->submit(device, step->task, binding, after, n_after, ticket, error);
    const size_t first = binding->skipped, end = first + binding->tokens;
    for (size_t i = 0, begin = 0; i < binding->n_segments && !status; begin += binding->segments[i++].n) {
        const ht_segment *segment = &binding->segments[i];
        const size_t from = ht_max_size(begin, first), to = ht_min_size(begin + segment->n, end);
        ht_view slots[HT_MAX_SLOTS];
        if (from >= to)
            continue;
        ht_binding own = ht_binding_from(model, binding, from - first, slots);
        own.kv = segment->kv;
        own.position = segment->position + from - begin;
        own.tokens = to - from;
        own.segments = NULL, own.n_segments = 0, own.skipped = 0;
        if (to < end) { /* what is behind is another sequence's, and will be computed */
            own.room = own.tokens;
            own.joined = false;
        }
        status = device->ops->submit(device, step->task, &own, after, n_after, ticket, error);
    }
    return status;
}

/* Submits a step behind all that the lane has under way elsewhere. Waits for nothing itself: queues keep their own order,
 * other devices' tickets are dependencies. */
static ht_status run_step(const ht_run *run, const ht_step *step, const ht_binding *common, ht_error *error) {
    ht_passes *passes = run->passes;
    ht_ticket ticket = 0, *newest = run->lane->front.newest;
    ht_dependency after[HT_MAX_DEVICES];
    ht_device *device = passes->set->devices[step->device];
    size_t n_after = 0;
    ht_view slots[HT_MAX_SLOTS], pieces[HT_MAX_PIECES];
    ht_binding binding = *common;
    for (size_t d = 0; d < passes->set->n_devices; d++)
        if (newest[d] && passes->set->devices[d] != device)
            after[n_after++] = (ht_dependency){passes->set->devices[d], newest[d]};
    binding.resident = step->resident;
    binding.kept = step->kept & ~common->kept; /* common: what the caller of this pass reads */
    binding.yields = step->yields;
    binding.observer = passes->observer;
    if (run->crew)
        bind(run, step, common, slots, pieces, &binding);
    else
        bind_added(run, step, common, slots, pieces, &binding);
    bind_rest(run, step, slots, &binding);
    binding.room = ht_min_size(binding.room, ht_lanes_slot_tokens(passes->set, step->op->out) - step->begin);
    ht_status status = submit(run, step, &binding, after, n_after, &ticket, error);
    if (status) {
        if (status == HT_ERROR_DEVICE)
            atomic_fetch_or(&passes->set->failed, 1u << step->device);
        return ht_error_prefix(error, status, "%s", step->op->name);
    }
    if (run->counts)
        ht_passes_count(passes, run->lane, step, &binding);
    memset(newest, 0, sizeof run->lane->front.newest);
    newest[step->device] = ticket;
    return HT_OK;
}

/* ---- recording
 * ---------------------------------------------------------------------------------------------------------- */

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

/* ---- running steps
 * ------------------------------------------------------------------------------------------------------- */

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

ht_binding ht_binding_from(const ht_model *model, const ht_binding *all, size_t first, ht_view slots[HT_MAX_SLOTS]) {
    memmove(slots, all->slots, (size_t)model->n_slots * sizeof *slots); /* they may be the same */
    for (ht_slot slot = 0; slot < model->n_slots; slot++)
        if (model->slots[slot].role != HT_ROLE_LOGITS && model->slots[slot].role != HT_ROLE_PICK)
            slots[slot] = view_from(slots[slot], first);
    ht_binding binding = *all;
    binding.slots = slots;
    binding.position += first;
    binding.skipped += first;
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
    ht_view slots[HT_MAX_SLOTS];
    const ht_binding binding = ht_binding_from(run->passes->set->model, common, wanted, slots);
    run->program = ht_lane_program(run->lane, binding.tokens);
    return ht_run_steps(run, run->program->tail, run->program->head, &binding, error);
}
