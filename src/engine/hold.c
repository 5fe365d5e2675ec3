/* What each lane holds of the weights, where several share a model: the rows that its plans use, and a margin for
 * ratios to move.
 *
 * Strategy auto finds one path of axes for every block along which lanes divide it (heads, then features), whatever the
 * number of tokens. For each kind of pass that is expected the planner says how. A lane's window of an axis reaches
 * from the first to the last unit that any of these gives it, and further by the margin; it is narrowed towards one of
 * these plans until all lanes together hold no more than HT_HELD_OF_FILE times what the file takes. Of several paths,
 * and plans to narrow towards, those are taken with which passes are predicted to be quickest. Later plans keep within
 * the windows (ht_solver_lane.holds).
 *
 * Nothing is prepared before that (ht_lanes.late) but what is measured, and is gone again. */
#include "engine/engine.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MARGIN (1.0 / 16) /* of an axis, at either end of a window */
#define WORTH_TWICE 1.3   /* plans with all weights are so much quicker, as a mean of all passes that are expected */
#define WORTH_MOVING 0.95 /* other windows are so much quicker, by what has been learnt, as the same mean */
#define PAUSE 10 /* seconds before windows may be moved again while requests run, and twice as many every time */
enum { MOST_KINDS = HT_HOLD_KINDS, NARROWINGS = 16 };

/* A kind of pass that is expected. */
typedef struct kind {
    size_t tokens, position;
    double best; /* predicted seconds with all weights on every lane */
    ht_choice choice;
} kind;

typedef struct holding {
    ht_engine *engine;
    kind kinds[MOST_KINDS];
    size_t n_kinds;
    bool used[HT_MAX_AXES];                                  /* the path of the candidate that is looked at */
    bool tried[MOST_KINDS][HT_MAX_AXES];                     /* those before */
    ht_window ranges[MOST_KINDS][HT_MAX_LANES][HT_MAX_AXES]; /* what plans along it give */
    ht_windows trial[HT_MAX_LANES], best[HT_MAX_LANES];
    bool best_used[HT_MAX_AXES];
    bool fits;    /* the best is within what may be held */
    double least; /* and its product of predicted seconds over those with all weights */
    unsigned fed; /* lanes, as bits, whose tokens another looks up */
    uint64_t fixed, most;
} holding;

/* ---- asking the planner
 * -------------------------------------------------------------------------------------------------- */

static void solve(const holding *h, const kind *k, const ht_windows *holds, ht_choice *choice) {
    ht_passes *passes = &h->engine->passes;
    ht_question question;
    const ht_pace pace = ht_passes_find_schedule(passes, k->tokens, k->position, 1, 0)->pace;
    const ht_problem p = ht_passes_problem(passes, k->tokens, k->position, 1, 0, &pace, &question);
    for (size_t l = 0; l < p.n_lanes; l++)
        question.lanes[l].holds = holds ? &holds[l] : NULL;
    ht_solve(&p, choice);
}

static void add_kind(holding *h, size_t tokens) {
    const size_t position = tokens > 1 ? 0 : ht_min_size(128, h->engine->set.context - 1);
    for (size_t i = 0; i < h->n_kinds; i++)
        if (h->kinds[i].tokens == tokens)
            return;
    if (h->n_kinds < MOST_KINDS && tokens)
        h->kinds[h->n_kinds++] = (kind){.tokens = tokens, .position = position};
}

static void list_kinds(holding *h, const ht_engine_options *options) {
    int usual[2];
    size_t n_prompts;
    const int *prompts = ht_engine_prompts(h->engine, usual, &n_prompts);
    add_kind(h, 1);
    for (size_t i = 0; i < n_prompts; i++)
        add_kind(h, ht_min_size((size_t)prompts[i], h->engine->set.chunk));
}

/* ---- paths
 * --------------------------------------------------------------------------------------------------------------- */

/* Everything may be divided but by tokens; or, used: along these axes only. */
static void free_windows(holding *h, const bool *used) {
    const ht_model *model = h->engine->model;
    for (size_t l = 0; l < h->engine->set.n_lanes; l++) {
        h->trial[l].partly = true;
        h->trial[l].fed = h->fed >> l & 1;
        for (size_t a = 0; a < model->n_axes; a++) {
            const bool there = model->axes[a].kind != HT_AXIS_TOKENS && (!used || used[a]);
            h->trial[l].axes[a] = (ht_window){0, there ? h->engine->passes.units[a].of : 0};
        }
    }
}

/* Does the group speak for all blocks like its own? The one with most of them does. */
static bool speaks(const ht_model *model, size_t group) {
    const ht_group *g = &model->groups[group];
    for (size_t i = 0; i < model->n_groups; i++)
        if (model->blocks[model->groups[i].block].first_axis == model->blocks[g->block].first_axis &&
            (model->groups[i].count > g->count || (model->groups[i].count == g->count && i < group)))
            return false;
    return true;
}

static void take_path(holding *h, const ht_choice *c) {
    const ht_model *model = h->engine->model;
    memset(h->used, 0, sizeof h->used);
    for (size_t k = 0; k < model->n_groups; k++)
        for (size_t a = 0; a < c->groups[k].n_axes && speaks(model, k); a++)
            h->used[model->blocks[model->groups[k].block].first_axis + c->groups[k].axes[a]] = true;
}

static void widen(ht_window *w, size_t first, size_t end) {
    if (first >= end)
        return;
    if (w->end == 0)
        *w = (ht_window){first, end};
    w->first = ht_min_size(w->first, first);
    w->end = ht_max_size(w->end, end);
}

/* What a choice along the path gives each lane. */
static void take_ranges(const holding *h, const ht_choice *c, ht_window ranges[HT_MAX_LANES][HT_MAX_AXES]) {
    const ht_model *model = h->engine->model;
    memset(ranges, 0, HT_MAX_LANES * sizeof *ranges);
    for (size_t k = 0; k < model->n_groups; k++) {
        const ht_group_choice *gc = &c->groups[k];
        const size_t first = model->blocks[model->groups[k].block].first_axis;
        for (size_t a = 0; a < gc->n_axes; a++)
            for (size_t i = 0, begin = 0; i < c->n_lanes; begin += gc->units[gc->axes[a]][i++])
                widen(&ranges[c->lanes[i]][first + gc->axes[a]], begin, begin + gc->units[gc->axes[a]][i]);
    }
}

/* ---- windows and what they take
 * ------------------------------------------------------------------------------------------ */

/* The axis of the path that divides operator number `op` of the model's weights; -1: every lane has all of it. */
static int axis_of(const ht_model *model, const bool *used, const ht_op *op) {
    const ht_block *block = ht_op_block(model, op);
    if (!block || op->kind != HT_OP_MATMUL)
        return -1;
    const size_t place = ht_op_place(model, op);
    for (size_t a = block->first_axis; a < block->first_axis + block->n_axes; a++) {
        const ht_axis *axis = &model->axes[a];
        if (used[a] && axis->from <= place && place < axis->to && axis->maps[place] != HT_MAP_EVERY &&
            axis->maps[place] != HT_MAP_REPLICATED)
            return (int)a;
    }
    return -1;
}

static uint64_t task_bytes(const ht_lanes *set, const ht_slice_task *task) {
    const ht_device_ops *ops = set->devices[task->device]->ops;
    return task->task && ops->task_bytes ? ops->task_bytes(task->task) : 0;
}

/* Does the device hold the operator's matrix anyway, for an EMBED reads it? */
static bool is_there(const ht_lanes *set, int device, const ht_op *op) {
    if (!ht_op_is_table(set->model, op))
        return false;
    for (size_t t = 0; t < set->n_tasks; t++) {
        const ht_slice_task *task = &set->tasks[t];
        if (task->op->kind == HT_OP_EMBED && task->device == device && task_bytes(set, task) > 0)
            return true;
    }
    return false;
}

static ht_slice slice_of(const holding *h, size_t axis, const ht_op *op, ht_window w) {
    const ht_model *model = h->engine->model;
    return ht_units_slice(&model->axes[axis], &h->engine->passes.units[axis], op, ht_op_place(model, op), w.first,
                          w.end);
}

/* As the file has them. */
static uint64_t slice_bytes(const ht_op *op, const ht_slice *s) {
    const size_t cols = ht_op_cols(op), own = (s->reduction_end ? s->reduction_end : cols) - s->reduction_begin;
    double bytes = 0;
    for (int i = 0; i < op->n_parts; i++) {
        size_t begin, end;
        if (ht_slice_rows(op, s, i, &begin, &end))
            bytes += (double)(end - begin) * (double)op->parts[i].row_bytes * (double)own / (double)cols;
    }
    return (uint64_t)bytes;
}

/* Which of its matrices' slices lane l holds of one step's operator by these windows. */
static ht_holding holds_of(const holding *h, const bool *used, const ht_windows *windows, size_t l, const ht_step *step,
                           ht_slice *slice) {
    const ht_lanes *set = &h->engine->set;
    const int axis = axis_of(set->model, used, step->op);
    *slice = ht_whole_slice(step->op);
    if (axis < 0)
        return HT_HOLDS_ALL;
    const ht_window w = windows[l].axes[axis];
    const ht_device *device = set->devices[step->device];
    if (w.first >= w.end)
        return HT_HOLDS_NONE;
    if (w.first == 0 && w.end == h->engine->passes.units[axis].of)
        return HT_HOLDS_ALL;
    *slice = slice_of(h, (size_t)axis, step->op, w);
    return device->ops->refuses && device->ops->refuses(device, step->op, slice) ? HT_HOLDS_ALL : HT_HOLDS_SOME;
}

/* What all lanes hold by these windows. */
static uint64_t bytes_of(const holding *h, const ht_windows *windows) {
    const ht_lanes *set = &h->engine->set;
    uint64_t bytes = h->fixed;
    for (size_t l = 0; l < set->n_lanes; l++) {
        const ht_program *program = &set->lanes[l].programs[HT_FORM_MANY];
        for (size_t i = 0; i < program->n_steps && !set->lanes[l].lost; i++) {
            const ht_step *step = &program->steps[i];
            ht_slice slice;
            const ht_holding holds = holds_of(h, h->used, windows, l, step, &slice);
            const ht_slice whole = ht_whole_slice(step->op);
            if (step->op->kind == HT_OP_MATMUL && holds != HT_HOLDS_NONE &&
                !(holds == HT_HOLDS_ALL && is_there(set, step->device, step->op)))
                bytes += slice_bytes(step->op, holds == HT_HOLDS_ALL ? &whole : &slice);
        }
    }
    return bytes;
}

/* Is the axis of a matrix that the lane holds anyway? */
static bool is_free(const holding *h, size_t l, size_t axis) {
    const ht_lanes *set = &h->engine->set;
    const ht_program *program = &set->lanes[l].programs[HT_FORM_MANY];
    bool any = false, there = true;
    for (size_t i = program->head; i < program->n_steps; i++)
        if (axis_of(set->model, h->used, program->steps[i].op) == (int)axis) {
            any = true;
            there &= is_there(set, program->steps[i].device, program->steps[i].op);
        }
    return any && there;
}

/* Windows narrowed to kind `centre`: by nothing where narrow is 0, to no more than that plan gives where it is 1. */
static void make_windows(holding *h, size_t centre, double narrow) {
    const ht_model *model = h->engine->model;
    for (size_t l = 0; l < h->engine->set.n_lanes; l++)
        for (size_t a = 0; a < model->n_axes; a++) {
            const size_t of = h->used[a] ? h->engine->passes.units[a].of : 0,
                         margin = (size_t)(MARGIN * (double)of + 0.5);
            const ht_window own = h->ranges[centre][l][a];
            ht_window hull = {0, 0};
            for (size_t k = 0; k < h->n_kinds; k++)
                widen(&hull, h->ranges[k][l][a].first, h->ranges[k][l][a].end);
            if (hull.end) {
                hull.first -= ht_min_size(hull.first, margin);
                hull.end = ht_min_size(hull.end + margin, of);
            }
            if (own.end) {
                hull.first = own.first - (size_t)ceil((1 - narrow) * (double)(own.first - hull.first));
                hull.end = own.end + (size_t)ceil((1 - narrow) * (double)(hull.end - own.end));
            } else if (narrow > 0) {
                hull = (ht_window){0, 0};
            }
            h->trial[l].axes[a] = is_free(h, l, a) ? (ht_window){0, of} : hull;
        }
}

/* ---- candidates
 * ---------------------------------------------------------------------------------------------------------- */

/* The widest windows around kind `centre` that fit, and how they do. */
static void try_centre(holding *h, size_t centre) {
    double product = 1;
    for (int i = 0; i <= NARROWINGS; i++) {
        make_windows(h, centre, (double)i / NARROWINGS);
        if (bytes_of(h, h->trial) <= h->most)
            break;
    }
    for (size_t k = 0; k < h->n_kinds; k++) {
        ht_choice c;
        solve(h, &h->kinds[k], h->trial, &c);
        product *= c.n_lanes ? c.seconds / h->kinds[k].best : INFINITY;
    }
    ht_log(HT_LOG_INFO, "weights by %zu tokens: %.2f of the file, %.3f of the time with all of them",
           h->kinds[centre].tokens, (double)bytes_of(h, h->trial) / (double)h->most * HT_HELD_OF_FILE,
           pow(product, 1 / (double)h->n_kinds));
    const bool fits = bytes_of(h, h->trial) <= h->most;
    if (h->fits > fits || (h->fits == fits && !(product < h->least)))
        return;
    h->least = product;
    h->fits = fits;
    memcpy(h->best, h->trial, sizeof h->best);
    memcpy(h->best_used, h->used, sizeof h->best_used);
}

/* The path that kind number k would take if no plan were to need whole weights. */
static void try_path(holding *h, size_t k) {
    ht_choice c;
    free_windows(h, NULL);
    solve(h, &h->kinds[k], h->trial, &c);
    if (c.n_lanes == 0)
        return;
    take_path(h, &c);
    memcpy(h->tried[k], h->used, sizeof h->used);
    for (size_t i = 0; i < k; i++)
        if (!memcmp(h->tried[i], h->used, sizeof h->used))
            return;
    for (size_t i = 0; i < h->n_kinds; i++) {
        free_windows(h, h->used);
        solve(h, &h->kinds[i], h->trial, &c);
        if (c.n_lanes == 0)
            return;
        take_ranges(h, &c, h->ranges[i]);
    }
    for (size_t i = 0; i < h->n_kinds; i++)
        try_centre(h, i);
}

/* ---- holding them
 * -------------------------------------------------------------------------------------------------------- */

/* What is no matrix that can be divided is every lane's. But where one looks up tokens without a table of its own, the
 * others need none: it does so for them. */
static ht_status prepare_rest(holding *h, ht_error *error) {
    ht_lanes *set = &h->engine->set;
    ht_status status = HT_OK;
    bool reads = false;
    for (int tables = 0; tables < 2; tables++) /* those last that take memory, where there is a choice */
        for (size_t t = 0; t < set->n_tasks && !status; t++) {
            ht_slice_task *task = &set->tasks[t], *same;
            const bool table = task->op->kind == HT_OP_EMBED;
            const bool caller = ht_lanes_caps(set, (size_t)task->device)->runs_in_caller;
            if (task->op->kind == HT_OP_MATMUL || task->dropped || tables != (table && !caller))
                continue;
            if (table && tables && reads) {
                task->holds = HT_HOLDS_NONE;
                for (size_t l = 0; l < set->n_lanes; l++)
                    h->fed |= (set->lanes[l].devices >> task->device & 1u) << l;
                continue;
            }
            status = ht_lanes_task(set, task->device, task->op, &task->slice, &same, error);
            reads |= !status && table && task_bytes(set, same) == 0;
        }
    h->fixed = 0;
    for (size_t t = 0; t < set->n_tasks; t++)
        h->fixed += set->tasks[t].op->kind == HT_OP_MATMUL ? 0 : task_bytes(set, &set->tasks[t]);
    h->most = (uint64_t)(HT_HELD_OF_FILE * (double)ht_lanes_file_bytes(set->model));
    return status;
}

/* Tasks hold what the best windows say (all: everything); those that held something else are gone until they are placed. */
static void keep(const holding *h, bool all) {
    ht_lanes *set = &h->engine->set;
    for (size_t l = 0; l < set->n_lanes; l++)
        for (size_t t = 0; t < set->n_tasks; t++) {
            ht_slice_task *task = &set->tasks[t];
            const ht_step as = {.op = task->op, .device = task->device};
            ht_slice held = ht_whole_slice(task->op);
            if (!(set->lanes[l].devices >> task->device & 1) || (task->op->kind != HT_OP_MATMUL && !all))
                continue;
            const ht_holding holds = all ? HT_HOLDS_ALL : holds_of(h, h->best_used, h->best, l, &as, &held);
            ht_lanes_hold(set, task, holds, &held);
        }
}

static ht_status place(ht_engine *engine, const ht_engine_options *options, ht_error *error) {
    ht_status status = ht_lanes_place(&engine->set, options, error);
    engine->info.weight_bytes = ht_lanes_task_bytes(&engine->set);
    if (status)
        return status;
    ht_lanes_plan_transfers(&engine->set, NULL);
    ht_passes_find_windows(&engine->passes);
    return HT_OK;
}

/* The best windows for the engine's kinds of passes; h->least is infinite where lanes cannot share. */
static ht_status find(holding *h, ht_error *error) {
    ht_engine *engine = h->engine;
    size_t lanes = 0;
    for (size_t l = 0; l < engine->set.n_lanes; l++)
        lanes += !engine->set.lanes[l].lost;
    const ht_stage before = engine->passes.stage;
    engine->passes.stage = HT_STAGE_WEIGHING;
    ht_status status = prepare_rest(h, error);
    for (size_t k = 0; k < h->n_kinds && !status && lanes > 1; k++) {
        ht_choice c;
        solve(h, &h->kinds[k], NULL, &c);
        h->kinds[k].best = c.seconds;
    }
    for (size_t k = 0; k < h->n_kinds && !status && lanes > 1; k++)
        try_path(h, k);
    engine->passes.stage = before;
    return status;
}

ht_status ht_engine_hold(ht_engine *engine, const ht_engine_options *options, ht_error *error) {
    holding *h;
    if (!engine->set.late)
        return HT_OK;
    engine->set.late = false;
    ht_status status = ht_alloc((void **)&h, 1, sizeof *h, "finding out what devices hold", error);
    if (status)
        return status;
    h->engine = engine;
    h->least = INFINITY;
    list_kinds(h, options);
    for (size_t k = 0; k < h->n_kinds; k++)
        engine->hold.tokens[k] = h->kinds[k].tokens;
    engine->hold.n = h->n_kinds;
    engine->hold.next = ht_clock_now(engine->set.time) + PAUSE;
    status = find(h, error);
    const bool worth_twice = h->least >= pow(WORTH_TWICE, (double)h->n_kinds) && ht_engine_has_room(engine);
    keep(h, status || h->least == INFINITY || worth_twice);
    free(h);
    return status ? status : place(engine, options, error);
}

/* ---- moving windows
 * ------------------------------------------------------------------------------------------------------ */

/* Predicted seconds of all kinds by what lanes hold now, over those with all weights. */
static double product_now(const holding *h) {
    double product = 1;
    for (size_t k = 0; k < h->n_kinds; k++) {
        ht_choice c;
        solve(h, &h->kinds[k], h->engine->passes.holds, &c);
        product *= c.seconds / h->kinds[k].best;
    }
    return product;
}

/* Weights that lanes did not hold are packed from the file, once others are gone. What was there before comes back
 * where there is no memory for them. */
static ht_status move_windows(holding *h, ht_error *error) {
    ht_engine *engine = h->engine;
    ht_lanes *set = &engine->set;
    const ht_engine_options plain = HT_INIT(ht_engine_options);
    const size_t n = set->n_tasks;
    ht_slice_task *before;
    ht_status status = ht_alloc((void **)&before, n, sizeof *before, "what devices hold", error);
    if (status)
        return status;
    memcpy(before, set->tasks, n * sizeof *before);
    ht_lanes_settle(set);
    keep(h, false);
    if (place(engine, &plain, error)) {
        for (size_t t = 0; t < n; t++)
            ht_lanes_hold(set, &set->tasks[t], before[t].holds, &before[t].held);
        status = place(engine, &plain, error);
    }
    free(before);
    for (size_t i = 0; i < HT_SCHEDULES; i++) /* the best ways so far may be none any more */
        ht_passes_forget_left(&engine->passes.schedules[i]);
    ht_passes_solve_anew(&engine->passes);
    engine->passes.current = NULL;
    for (size_t l = 0; l < set->n_lanes && status; l++)
        set->lanes[l].lost = true;
    return status;
}

ht_status ht_engine_hold_anew(ht_engine *engine, size_t tokens, ht_error *error) {
    holding *h;
    if (!ht_passes_hold_partly(&engine->passes))
        return HT_OK;
    ht_status status = ht_alloc((void **)&h, 1, sizeof *h, "finding out what devices hold", error);
    if (status)
        return status;
    h->engine = engine;
    h->least = INFINITY;
    add_kind(h, tokens);
    for (size_t k = 0; k < engine->hold.n; k++)
        add_kind(h, engine->hold.tokens[k]);
    status = find(h, error);
    if (!status && h->fits && h->least < pow(WORTH_MOVING, (double)h->n_kinds) * product_now(h)) {
        ht_log(HT_LOG_INFO, "windows move: %.2f of the time they take now",
               pow(h->least / product_now(h), 1 / (double)h->n_kinds));
        status = move_windows(h, error);
    }
    free(h);
    return status;
}

void ht_engine_hold_moved(ht_engine *engine, const ht_schedule *moved) {
    const double now = ht_clock_now(engine->set.time);
    ht_error error;
    if (now < engine->hold.next || engine->passes.policy.frozen)
        return;
    engine->hold.pause = engine->hold.pause > 0 ? 2 * engine->hold.pause : PAUSE;
    engine->hold.next = now + engine->hold.pause;
    if (ht_engine_hold_anew(engine, moved->tokens, &error))
        ht_log(HT_LOG_WARN, "%s", error.text);
}
