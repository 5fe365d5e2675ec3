/* Going on where lanes' speeds have changed, by another program's load or by heat: the shares that are right then have no
 * graphs, so these are built while requests run. */
#include "engine/engine.h"

#define WORTH_BUILDING 0.9 /* of what a pass takes now */
#define WISH_SECONDS 1     /* between two of them */
#define LAST_CHECK 512     /* passes */

/* Tokens that a step of a schedule has graphs for. */
static size_t step_tokens(const ht_schedule *schedule, const ht_step *step) {
    return step->end ? step->end - step->begin : step->op->layer < 0 ? 1 : schedule->tokens;
}

/* Keeps the steps whose graphs are under way. */
static ht_status keep_wish(ht_engine *engine, const ht_schedule *schedule, ht_error *error) {
    ht_program *kept = &engine->wish.program;
    ht_status status = HT_OK;
    kept->n_steps = 0;
    for (size_t i = 0; i < schedule->n_lanes; i++) {
        const ht_program *program = ht_schedule_program(schedule, i);
        for (size_t k = 0; k < program->n_steps && !status; k++) {
            ht_step step = program->steps[k];
            const ht_device *device = engine->set.devices[step.device];
            if (!device->ops->caps(device)->n_lengths || !device->ops->ready)
                continue;
            step.end = (uint32_t)step_tokens(schedule, &step);
            status = ht_grow((void **)&kept->steps, &kept->cap_steps, kept->n_steps + 1, sizeof *kept->steps,
                             "a program", error);
            if (!status)
                kept->steps[kept->n_steps++] = step;
        }
    }
    return status;
}

static bool wish_is_there(const ht_engine *engine) {
    const ht_program *program = &engine->wish.program;
    for (size_t k = 0; k < program->n_steps; k++) {
        ht_device *device = engine->set.devices[program->steps[k].device];
        if (!device->ops->ready(device, program->steps[k].task, program->steps[k].end))
            return false;
    }
    return true;
}

/* Has the graphs of `schedule`'s best way begun, whatever is there. */
static ht_status begin_wish(ht_engine *engine, ht_schedule *schedule, ht_error *error) {
    const size_t tokens = schedule->tokens, position = schedule->position, wanted = schedule->wanted,
                 apart = schedule->apart;
    schedule->stale = true;
    ht_status status = ht_passes_schedule(&engine->passes, tokens, position, wanted, apart, &schedule, error);
    if (!status)
        status = keep_wish(engine, schedule, error);
    return status ? status : ht_engine_begin_graphs(engine, schedule, error);
}

/* The choice is made from what is there until all of the wish is. */
static void make_wish(ht_engine *engine, const ht_schedule *moved) {
    ht_passes *passes = &engine->passes;
    ht_schedule *schedule =
        ht_passes_find_schedule(passes, moved->tokens, moved->position, moved->wanted, moved->apart);
    const double now = schedule->choice.seconds;
    const size_t n_tasks = engine->set.n_tasks;
    const ht_graphs before = passes->graphs;
    ht_question question;
    ht_choice wish;
    ht_error error;
    passes->stage = HT_STAGE_WEIGHING;
    const ht_problem p = ht_passes_problem(passes, schedule->tokens, schedule->position, schedule->wanted,
                                           schedule->apart, &schedule->pace, &question);
    ht_solve(&p, &wish);
    if (wish.seconds < WORTH_BUILDING * now) {
        ht_log(HT_LOG_INFO, "building graphs in the background: %zu tokens in %.1f ms instead of %.1f",
               schedule->tokens, wish.seconds * 1e3, now * 1e3);
        ht_status status = begin_wish(engine, schedule, &error);
        engine->wish.graphs = passes->graphs;
        passes->graphs = before;
        if (status) { /* nothing is left of it */
            passes->graphs.no_room |= status == HT_ERROR_MEMORY;
            atomic_store(&engine->set.failed, 0);
            ht_lanes_drop_tasks(&engine->set, n_tasks);
        }
        engine->wish.passes = 0;
        engine->wish.checks = status ? 0 : 8;
        ht_passes_solve_anew(passes);
    }
    passes->stage = HT_STAGE_SERVING;
}

void ht_engine_adapt(ht_engine *engine) {
    ht_passes *passes = &engine->passes;
    ht_wish *wish = &engine->wish;
    const ht_schedule *moved = passes->moved;
    passes->moved = NULL;
    if (wish->checks && ++wish->passes >= wish->checks) {
        wish->checks = wish->checks < LAST_CHECK ? 2 * wish->checks : 0;
        if (wish_is_there(engine)) {
            passes->graphs = wish->graphs;
            ht_lanes_keep_ready(&engine->set);
            ht_passes_solve_anew(passes);
            wish->checks = 0;
        }
    }
    if (moved && moved->tokens)
        ht_engine_hold_moved(engine, moved);
    if (!moved || !moved->tokens || wish->checks || passes->graphs.no_room || passes->policy.frozen)
        return;
    const double now = ht_clock_now(engine->set.time);
    if (now < wish->next)
        return;
    wish->next = now + WISH_SECONDS;
    make_wish(engine, moved);
}
