/* Running a pass: on one lane or on several, then its head. */
#include "pass/pass.h"

#include <stdlib.h>
#include <string.h>

/* ---- a pass
 * ------------------------------------------------------------------------------------------------------------- */

/* A lane alone. Several lanes are there, but this pass is not shared: what it took teaches the planner. */
static ht_status run_alone(ht_passes *passes, ht_schedule *schedule, const ht_binding *binding, size_t first,
                           const atomic_bool *cancel, ht_error *error) {
    ht_lane *lane = schedule ? schedule->lanes[0] : &passes->set->lanes[0];
    ht_run run = {.passes = passes, .lane = lane, .cancel = cancel, .counts = schedule && ht_passes_do_count(passes)};
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
    ht_crew_work work = {.schedule = schedule, .binding = binding, .cancel = cancel};
    double busy[HT_MAX_LANES];
    const double start = ht_clock_now(passes->set->time);
    for (size_t i = 0; i < schedule->n_lanes; i++)
        work.end[i] = schedule->programs[i].head;
    ht_status status = ht_crew_run(passes, &work, busy, error);
    if (status)
        return status;
    ht_passes_learn(passes, schedule, ht_clock_now(passes->set->time) - start, busy);
    const ht_choice *c = &schedule->choice;
    const size_t head = c->regime == HT_REGIME_TOKENS ? schedule->n_lanes - 1 : 0;
    passes->running = c->regime == HT_REGIME_SHARES || c->apart ? NULL : schedule->lanes[head];
    passes->program = ht_lane_program(schedule->lanes[head], 1);
    return HT_OK;
}

/* The position from which one sequence's tokens, as many as the segments' together, would see as many keys. */
static size_t usual_position(const ht_segment *segments, size_t n_segments, size_t n) {
    double pairs = 0;
    for (size_t i = 0; i < n_segments; i++)
        pairs += (double)segments[i].n * ((double)segments[i].position + 0.5 * (double)(segments[i].n - 1));
    const double position = pairs / (double)n - 0.5 * (double)(n - 1);
    return position > 0 ? (size_t)position : 0;
}

/* Tokens of each sequence, where all have as many; 0: they differ, or there is one. */
static size_t alike(const ht_segment *segments, size_t n_segments) {
    for (size_t i = 1; i < n_segments; i++)
        if (segments[i].n != segments->n)
            return 0;
    return n_segments > 1 ? segments->n : 0;
}

ht_status ht_passes_forward(ht_passes *passes, const ht_segment *segments, size_t n_segments, size_t first,
                            const atomic_bool *cancel, ht_error *error) {
    const bool several = n_segments > 1;
    size_t n = 0;
    for (size_t i = 0; i < n_segments; n += segments[i++].n)
        if (segments[i].position + segments[i].n > passes->set->context) /* caches have no more room */
            return ht_fail(error, HT_ERROR_CONTEXT, "tokens %zu..%zu exceed the context of %zu tokens",
                           segments[i].position, segments[i].position + segments[i].n, passes->set->context);
    const size_t position = several ? usual_position(segments, n_segments, n) : segments->position;
    const ht_binding binding = {.slots = passes->set->slots,
                                .kv = segments->kv,
                                .position = position,
                                .tokens = n,
                                .segments = several ? segments : NULL,
                                .n_segments = several ? n_segments : 0,
                                .room = passes->set->chunk,
                                .cached = passes->set->n_lanes > 1 ? 0 : SIZE_MAX, /* other lanes wrote some */
                                .sync = passes->set->sync};
    /* an earlier chunk's ids may not have been read yet */
    ht_status status = ht_lanes_join(passes->set, HT_SYNC_EVENT, error);
    if (status)
        return status;
    int32_t *ids = passes->set->slots[ht_model_slot(passes->set->model, HT_ROLE_IDS)].data;
    for (size_t i = 0; i < n_segments; ids += segments[i++].n)
        memcpy(ids, segments[i].ids, segments[i].n * sizeof *ids);
    ht_schedule *schedule = NULL;
    if (passes->set->n_lanes > 1)
        status = ht_passes_schedule(passes, n, position, n - first, alike(segments, n_segments), &schedule, error);
    if (status)
        return status;
    passes->current = schedule;
    status = schedule && schedule->n_lanes > 1 ? run_shared(passes, schedule, &binding, cancel, error)
                                               : run_alone(passes, schedule, &binding, first, cancel, error);
    if (!status && schedule && ht_passes_do_count(passes))
        ht_passes_learn_loads(passes, n);
    if (!status) {
        passes->first_token = first;
        passes->last_tokens = n;
    }
    return status;
}

/* Behind the head's steps that come to what the slot says: its last writer, and what comes before. */
static size_t head_end(const ht_model *model, const ht_program *program, ht_slot slot) {
    const ht_op *writer = &model->ops[model->n_ops - 1];
    while (!(ht_op_writes(writer) >> slot & 1))
        writer--;
    size_t end = program->head;
    while (end < program->n_steps && program->steps[end].op <= writer)
        end++;
    return end;
}

/* Where the slot's rows lie once the head has come to it, the binding's first token's first: where every lane computes
 * the norm, with one that does. */
static ht_view find_rows(const ht_passes *passes, const ht_binding *binding, ht_slot slot, size_t first) {
    const ht_schedule *schedule = passes->running ? NULL : passes->current;
    for (size_t i = 0; schedule && i < schedule->n_lanes; i++) {
        const ht_program *program = &schedule->programs[i];
        ht_view own = schedule->lanes[i]->own[slot];
        if (head_end(passes->set->model, program, slot) == program->head || !program->steps[program->head].own ||
            !own.data)
            continue;
        own.data = (float *)own.data + first * own.stride;
        return own;
    }
    return binding->slots[slot];
}

/* Where lanes have whole sequences: lane number i's head is of those of tokens [first, first + count) that are its own.
 * False: none is. */
static bool take_tokens(ht_schedule *schedule, size_t i, size_t first, size_t count) {
    const ht_choice *c = &schedule->choice;
    ht_program *program = &schedule->programs[i];
    size_t begin = 0;
    if (!c->apart)
        return true;
    for (size_t k = 0; k < i; k++)
        begin += c->tokens[k];
    const size_t from = ht_max_size(begin, first), to = ht_min_size(begin + c->tokens[i], first + count);
    for (size_t k = program->head; k < program->n_steps && from < to; k++)
        program->steps[k].begin = (uint32_t)(from - first), program->steps[k].end = (uint32_t)(to - first);
    return from < to;
}

/* The head up to where the slot is written, for tokens [first, first + count): *rows. Who picks caps the logits, too,
 * where they are to be capped. */
static ht_status run_head(ht_passes *passes, size_t first, size_t count, ht_slot slot, ht_view *rows, ht_error *error) {
    const ht_model *model = passes->set->model;
    const size_t most = ht_min_size(HT_HEAD_TOKENS, passes->set->chunk);
    if (count > most || first < passes->first_token || first + count > passes->last_tokens)
        return ht_fail(error, HT_ERROR_ARGUMENT, "head: tokens %zu..%zu of %zu..%zu, %zu at a time", first,
                       first + count, passes->first_token, passes->last_tokens, most);
    ht_view slots[HT_MAX_SLOTS];
    const ht_binding all = {.slots = passes->set->slots,
                            .tokens = first + count,
                            .room = passes->set->chunk,
                            .sync = passes->set->sync,
                            .joined = true,
                            .kept = 1u << slot};
    const ht_binding binding = ht_binding_from(model, &all, first, slots);
    *rows = find_rows(passes, &binding, slot, first);
    if (!passes->running) { /* every lane has the residual stream, and computes some rows; or it has some tokens */
        ht_schedule *schedule = passes->current;
        ht_crew_work work = {.schedule = schedule, .binding = &binding, .offset = schedule->choice.apart ? 0 : first};
        for (size_t i = 0; i < schedule->n_lanes; i++) {
            const ht_program *program = &schedule->programs[i];
            work.first[i] = program->head;
            work.end[i] = take_tokens(schedule, i, first, count) ? head_end(model, program, slot) : program->head;
        }
        return ht_crew_run(passes, &work, NULL, error);
    }
    const ht_run run = {.passes = passes, .lane = passes->running, .program = passes->program};
    return ht_run_steps(&run, run.program->head, head_end(model, run.program, slot), &binding, error);
}

ht_status ht_passes_head(ht_passes *passes, size_t first, size_t count, const float **logits, ht_error *error) {
    const double start = ht_clock_now(passes->set->time);
    ht_view rows;
    ht_status status = run_head(passes, first, count, ht_model_slot(passes->set->model, HT_ROLE_LOGITS), &rows, error);
    if (!status && count == 1)
        ht_passes_learn_head(passes, ht_clock_now(passes->set->time) - start);
    if (!status)
        *logits = rows.data;
    return status;
}

ht_status ht_passes_hidden(ht_passes *passes, size_t first, size_t count, ht_view *rows, ht_error *error) {
    const ht_model *model = passes->set->model;
    return run_head(passes, first, count, model->ops[model->blocks[model->n_blocks - 1].first].out, rows, error);
}

ht_status ht_passes_pick(ht_passes *passes, size_t token, int32_t *id, ht_error *error) {
    ht_view rows;
    ht_status status = run_head(passes, token, 1, ht_model_slot(passes->set->model, HT_ROLE_PICK), &rows, error);
    if (!status)
        *id = *(const int32_t *)rows.data;
    return status;
}

/* ---- their memory
 * -------------------------------------------------------------------------------------------------------- */

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
    return status ? status : ht_passes_make_loads(passes, error);
}

void ht_passes_clear(ht_passes *passes) {
    ht_crew_destroy(passes->crew);
    for (size_t i = 0; i < HT_SCHEDULES; i++)
        for (size_t k = 0; k < HT_MAX_LANES; k++)
            free(passes->schedules[i].programs[k].steps);
    ht_passes_free_loads(passes);
    ht_passes_forget_recordings(passes);
}

void ht_passes_forget_recordings(ht_passes *passes) {
    for (size_t l = 0; l < HT_MAX_LANES && passes->recordings; l++)
        free(passes->recordings[l].events);
    free(passes->recordings);
    passes->recordings = NULL;
}
