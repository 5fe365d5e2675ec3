/* A plan as rows for a person or a script, and its predicted times. */
#include "engine/listing.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct listing {
    const ht_engine *engine;
    const ht_schedule *schedule; /* NULL: one lane */
    size_t tokens;
    ht_listed *rows;
    size_t n, capacity;
    ht_status status;
    ht_error *error;
} listing;

/* ---- which cut
 * ---------------------------------------------------------------------------------------------------------- */

/* The axis along which the step's operator is cut; NULL: it is not. */
static const ht_axis *axis_of(const listing *l, const ht_step *step, const ht_matrix_cut **cut) {
    const ht_model *model = l->engine->model;
    const ht_block *block = ht_op_block(model, step->op);
    *cut = NULL;
    if (!l->schedule || l->schedule->n_lanes < 2 || !block)
        return NULL;
    const ht_group_choice *c = &l->schedule->choice.groups[block->group];
    const size_t place = ht_op_place(model, step->op);
    size_t number;
    if (l->schedule->choice.regime == HT_REGIME_OWNER) {
        const ht_axis *axis = ht_choice_handed(model, block, c, place, &number);
        *cut = axis ? &c->cuts[number] : NULL;
        return axis;
    }
    for (size_t a = 0; a < c->n_axes && l->schedule->choice.regime == HT_REGIME_SHARES; a++) {
        const ht_axis *axis = &model->axes[block->first_axis + c->axes[a]];
        if (axis->from <= place && place < axis->to)
            return axis;
    }
    return NULL;
}

static const char *owner_cut(const listing *l, const ht_step *step) {
    const ht_model *model = l->engine->model;
    const ht_matrix_cut *cut;
    const ht_axis *axis = axis_of(l, step, &cut);
    if (!axis || cut->units == 0)
        return "single";
    const ht_op *first = &model->ops[ht_op_block(model, step->op)->first + axis->hand_from];
    const bool tail = first - model->ops >= (ptrdiff_t)model->tail;
    if (cut->tokens < (tail ? l->schedule->wanted : l->schedule->tokens))
        return cut->units < cut->of ? "hybrid" : "sequence";
    return cut->units == cut->of ? "layer" : ht_axis_cut(axis);
}

static const char *share_cut(const listing *l, const ht_step *step) {
    const ht_slice whole = ht_whole_slice(step->op), *own = step->divides ? &step->part : &step->slice;
    const ht_matrix_cut *cut;
    const ht_axis *axis = axis_of(l, step, &cut);
    const ht_block *block = ht_op_block(l->engine->model, step->op);
    const ht_map map = axis ? axis->maps[ht_op_place(l->engine->model, step->op)] : HT_MAP_EVERY;
    if (!block || (axis && map == HT_MAP_EVERY))
        return "every";
    if (axis && axis->kind == HT_AXIS_TOKENS)
        return ht_axis_cut(axis);
    return !axis || !memcmp(own, &whole, sizeof whole) ? "single" : ht_axis_cut(axis);
}

static const char *cut_of(const listing *l, const ht_step *step, bool head) {
    const ht_schedule *schedule = l->schedule;
    if (!schedule || schedule->n_lanes < 2)
        return "single";
    if (schedule->choice.regime == HT_REGIME_SHARES)
        return share_cut(l, step);
    if (head) /* one lane's */
        return "single";
    if (schedule->choice.apart)
        return "sequence";
    return schedule->choice.regime == HT_REGIME_TOKENS ? "causal" : owner_cut(l, step);
}

/* ---- one row
 * ------------------------------------------------------------------------------------------------------------ */

/* What the solver multiplies a lane's times by: what it takes lately. */
static double drift_of(const listing *l, const ht_lane *lane) {
    const double drift =
        l->schedule ? l->schedule->solved.lanes[lane - l->engine->set.lanes][l->schedule->choice.regime] : 1;
    return drift > 0 ? drift : 1;
}

/* And what it computes beside others. */
static double beside_others(const listing *l, const ht_lane *lane, bool head) {
    const ht_choice *choice = &l->schedule->choice;
    return ht_factor(lane->cost.together, (size_t)(lane - l->engine->set.lanes), choice->lanes, choice->n_lanes,
                     head ? 1 : l->tokens);
}

static void predict(const listing *l, const ht_lane *lane, const ht_slice *own, ht_listed *listed) {
    ht_plan_row *row = &listed->row;
    const ht_op *op = listed->step->op;
    const ht_slice whole = ht_whole_slice(op);
    const bool shared = l->schedule && l->schedule->n_lanes > 1 && strcmp(row->cut, "single") != 0;
    double share = 1;
    if (!lane->cost.ops[op->signature].n_points || l->engine->info.emulated)
        return;
    const ht_matrix_cut *cut;
    const ht_axis *axis = own->of ? axis_of(l, listed->step, &cut) : NULL;
    if (axis && axis->kind == HT_AXIS_EXPERTS)
        share = ht_passes_load_share(&l->engine->passes, (size_t)op->block, own->row_begin, own->row_end, own->of);
    else if (axis)
        share = ht_axis_share(axis, ht_op_place(l->engine->model, op), own->of, own->row_begin,
                              own->row_end - own->row_begin);
    else if (own->of)
        share = (double)(own->row_end - own->row_begin) / (double)own->of;
    else if (whole.row_end)
        share = (double)(own->row_end - own->row_begin) / (double)whole.row_end;
    const size_t summed = op->kind == HT_OP_EXPERTS && own->reduction_end ? ht_op_summed(op) : whole.reduction_end;
    if (summed)
        share *= (double)(own->reduction_end - own->reduction_begin) / (double)summed;
    const ht_estimate e =
        ht_op_estimate(&lane->cost, op->signature, row->token_end - row->token_begin, share, row->token_begin);
    const double drift = drift_of(l, lane), factor = shared ? beside_others(l, lane, listed->head) : 1;
    row->seconds = e.busy < INFINITY ? drift * (e.wait + factor * e.busy) : 0;
    listed->join = row->joins ? drift * lane->cost.join : 0;
}

/* What the device computes of it in this pass. */
static double products_of(const listing *l, const ht_step *step, const ht_slice *own, size_t tokens) {
    const ht_op *op = step->op;
    const ht_slice whole = ht_whole_slice(op);
    const ht_matrix_cut *cut;
    const ht_axis *axis = own->of ? axis_of(l, step, &cut) : NULL;
    double share = 1;
    if (step->rest)
        return 0;
    if (axis)
        share = ht_axis_share(axis, ht_op_place(l->engine->model, op), own->of, own->row_begin,
                              own->row_end - own->row_begin);
    else if (own->of || whole.row_end)
        share = (double)(own->row_end - own->row_begin) / (double)(own->of ? own->of : whole.row_end);
    if (own->reduction_end)
        share *= (double)(own->reduction_end - own->reduction_begin) /
                 (double)(whole.reduction_end ? whole.reduction_end : ht_op_summed(op));
    return share * ht_op_products(op) * (double)tokens;
}

static void explain(const listing *l, const ht_lane *lane, ht_listed *listed) {
    const ht_step *step = listed->step;
    const ht_lanes *set = &l->engine->set;
    ht_plan_row *row = &listed->row;
    const bool one = listed->head || row->token_end - row->token_begin <= 1;
    const int by = step->rest
                       ? step[-1].device
                       : ht_lane_leaver(set, lane, step->op, one ? HT_FORM_ONE : HT_FORM_MANY, step->device, &row->why);
    if (step->rest)
        row->why = HT_REST_REASON;
    row->rest = step->rest;
    row->left_by = by < 0 ? NULL : ht_lanes_caps(set, (size_t)by)->name;
}

static void fill_row(const listing *l, const ht_lane *lane, size_t begin, size_t end, ht_listed *listed) {
    const ht_step *step = listed->step;
    const ht_op *op = step->op;
    const ht_device *device = l->engine->set.devices[step->device];
    const ht_slice whole = ht_whole_slice(op), *own = step->divides ? &step->part : &step->slice;
    const ht_matrix_cut *cut;
    const ht_axis *axis = axis_of(l, step, &cut);
    const bool ffn = op->kind == HT_OP_FFN, matrix = op->kind == HT_OP_MATMUL;
    const bool heads = own->of && axis && (axis->kind == HT_AXIS_HEADS || axis->kind == HT_AXIS_QUERIES);
    const bool experts = op->kind == HT_OP_EXPERTS; /* rows are experts, columns their features */
    const size_t cols = ffn ? ht_op_cols(&op->members[0]) : experts ? ht_op_summed(op) : whole.reduction_end;
    ht_plan_row *row = &listed->row;
    *row = (ht_plan_row){.op = op->name,
                         .device = device->ops->caps(device)->name,
                         .cut = cut_of(l, step, listed->head),
                         .number = (size_t)((ffn ? op->members : op) - l->engine->model->ops),
                         .rows = whole.row_end,
                         .cols = cols,
                         .row_begin = own->row_begin,
                         .row_end = own->row_end,
                         .reduction_begin = own->reduction_begin,
                         .reduction_end = ffn || (experts && !own->reduction_end) ? cols : own->reduction_end,
                         .head_begin = heads ? own->row_begin : 0,
                         .head_end = heads ? own->row_end : 0,
                         .token_begin = step->end ? step->begin : begin,
                         .token_end = step->end ? step->end : end,
                         .joins = step->publishes > 0,
                         .bytes = device->ops->task_bytes && step->task ? device->ops->task_bytes(step->task) : 0};
    if (own->of && matrix) { /* that part of each of its matrices: as many rows, if not next to each other */
        row->row_begin = row->row_end = 0;
        for (int i = 0; i < op->n_parts; i++) {
            size_t first, last;
            ht_share_rows(own, i, op->parts[i].rows, &first, &last);
            row->row_begin += first;
            row->row_end += last;
        }
    } else if (heads) {
        row->row_begin = row->row_end = 0;
    }
    row->products = products_of(l, step, own, row->token_end - row->token_begin);
    explain(l, lane, listed);
    if (!step->rest) /* it was timed with what leaves it */
        predict(l, lane, own, listed);
}

/* ---- all rows
 * ----------------------------------------------------------------------------------------------------------- */

/* Steps [first, end) of lane number i, for tokens [begin, to) where they do not say for which. */
static void add_steps(listing *l, size_t i, const ht_program *program, size_t first, size_t end, size_t begin,
                      size_t to, bool head) {
    const ht_lane *lane = l->schedule ? l->schedule->lanes[i] : &l->engine->set.lanes[0];
    for (size_t s = first; s < end && !l->status; s++) {
        if (program->steps[s].feeds) /* once more what the lane does for itself */
            continue;
        l->status = ht_grow((void **)&l->rows, &l->capacity, l->n + 1, sizeof *l->rows, "a plan", l->error);
        if (l->status)
            return;
        l->rows[l->n] = (ht_listed){.step = &program->steps[s], .lane = i, .head = head};
        fill_row(l, lane, begin, to, &l->rows[l->n++]);
    }
}

static void add_head(listing *l, size_t i, const ht_program *program) {
    add_steps(l, i, program, program->head, program->n_steps, l->tokens - 1, l->tokens, true);
}

/* A lane by itself: as ht_run_body, the end of the last layer for the last token only, by the plan for one. */
static void list_alone(listing *l) {
    const ht_lane *lane = l->schedule ? l->schedule->lanes[0] : &l->engine->set.lanes[0];
    const ht_program *program = ht_lane_program(lane, l->tokens);
    if (l->tokens == 1 || program->tail == program->head) {
        add_steps(l, 0, program, 0, program->head, 0, l->tokens, false);
    } else {
        add_steps(l, 0, program, 0, program->tail, 0, l->tokens, false);
        program = ht_lane_program(lane, 1);
        add_steps(l, 0, program, program->tail, program->head, l->tokens - 1, l->tokens, false);
    }
    add_head(l, 0, program);
}

static void list_shared(listing *l) {
    const ht_schedule *schedule = l->schedule;
    for (size_t i = 0; i < schedule->n_lanes; i++) {
        const ht_program *program = &schedule->programs[i];
        add_steps(l, i, program, 0, program->head, 0, l->tokens, false);
        add_steps(l, i, program, program->head, program->n_steps, l->tokens - 1, l->tokens, true);
    }
    if (schedule->choice.regime != HT_REGIME_SHARES && !schedule->choice.apart) { /* one lane's head */
        const size_t i = schedule->choice.regime == HT_REGIME_TOKENS ? schedule->n_lanes - 1 : 0;
        add_head(l, i, ht_lane_program(schedule->lanes[i], 1));
    }
}

ht_status ht_plan_list(const ht_engine *engine, const ht_schedule *schedule, size_t tokens, ht_listed **rows, size_t *n,
                       ht_error *error) {
    listing l = {.engine = engine, .schedule = schedule, .tokens = tokens, .error = error};
    if (schedule && schedule->n_lanes > 1)
        list_shared(&l);
    else
        list_alone(&l);
    if (l.status) {
        free(l.rows);
        return l.status;
    }
    *rows = l.rows;
    *n = l.n;
    return HT_OK;
}

/* ---- totals
 * ------------------------------------------------------------------------------------------------------------- */

/* Joins in the first layer: lanes that tell at the same one count once. */
static size_t count_joins(const ht_listed *rows, size_t n) {
    size_t joins = 0;
    for (size_t i = 0; i < n; i++) {
        bool counted = rows[i].step->publishes == 0 || rows[i].step->op->layer != 0;
        for (size_t k = 0; k < i && !counted; k++)
            counted = rows[k].step->op->layer == 0 && rows[k].step->publishes == rows[i].step->publishes;
        joins += !counted;
    }
    return joins;
}

/* Devices of one name, such as CPUs beside others, count as one. */
static void list_devices(const ht_engine *engine, const ht_listed *rows, size_t n, ht_plan_times *times) {
    for (size_t d = 0; d < engine->set.n_devices; d++) {
        const ht_device_caps *caps = ht_lanes_caps(&engine->set, d);
        bool used = false;
        size_t k = 0;
        for (size_t i = 0; i < n && !used; i++)
            used = rows[i].step->device == (int)d;
        while (k < times->n_devices && strcmp(times->devices[k].name, caps->name) != 0)
            k++;
        if (!used || k == HT_COUNT(times->devices))
            continue;
        times->n_devices = ht_max_size(times->n_devices, k + 1);
        times->devices[k].name = caps->name;
        times->devices[k].bytes += ht_lanes_weight_bytes(&engine->set, d);
        times->devices[k].limit += caps->graph_bytes;
        times->devices[k].held += ht_lanes_device_bytes(&engine->set, d);
        times->devices[k].room += engine->set.limits[d];
        times->devices[k].emulated |= caps->emulated;
    }
}

/* Tables from the cache folder may say that nobody computes something: such a time is told as unknown. */
static double known(double seconds) {
    return seconds < INFINITY ? seconds : 0;
}

static void list_times(const ht_engine *engine, const ht_schedule *schedule, ht_plan_times *times) {
    times->regime = ht_regime_name(schedule->choice.regime);
    if (engine->info.emulated)
        return;
    times->seconds = known(schedule->choice.seconds);
    /* What was learnt of whole passes may make them quicker than the parts of their lanes, which a reader is not to see. */
    const double stall = schedule->solved.stall[schedule->choice.regime], less = stall > 0 ? fmin(stall, 1) : 1;
    for (size_t i = 0; i < schedule->n_lanes; i++) {
        const ht_device *first = engine->set.devices[__builtin_ctz(schedule->lanes[i]->devices)];
        times->busy[i].device = first->ops->caps(first)->name;
        times->busy[i].busy = known(schedule->lanes_take[i].busy) * less;
        times->busy[i].wait = known(schedule->lanes_take[i].wait);
        times->n_busy = i + 1;
    }
    for (size_t l = 0; l < engine->set.n_lanes && times->n_alone < HT_COUNT(times->alone); l++) {
        const ht_device *first = engine->set.devices[__builtin_ctz(engine->set.lanes[l].devices)];
        const double seconds = schedule->choice.alone[l];
        if (engine->set.lanes[l].lost)
            continue;
        times->alone[times->n_alone].device = first->ops->caps(first)->name;
        times->alone[times->n_alone++].seconds = known(seconds);
    }
}

/* The passes of a prompt behind the first one. */
static ht_status predict_rest(ht_engine *engine, size_t tokens, double *seconds, ht_error *error) {
    const size_t chunk = (size_t)engine->info.chunk;
    ht_status status = HT_OK;
    for (size_t begin = chunk; begin < tokens && !status; begin += chunk) {
        ht_schedule *schedule;
        const size_t n = ht_min_size(chunk, tokens - begin);
        status = ht_passes_schedule(&engine->passes, n, begin, begin + n == tokens, 0, &schedule, error);
        if (!status && !engine->info.emulated)
            *seconds += known(schedule->choice.seconds);
    }
    return status;
}

static ht_status plan_pass(ht_engine *engine, size_t tokens, ht_plan_row **rows, size_t *n, ht_plan_times *times,
                           ht_error *error) {
    const size_t pass = ht_min_size(tokens, (size_t)engine->info.chunk);
    ht_schedule *schedule = NULL;
    ht_listed *listed = NULL;
    double rest = 0;
    ht_status status = HT_OK;
    if (engine->set.n_lanes > 1) /* the rest first: of schedules only so many are kept */
        status = predict_rest(engine, ht_min_size(tokens, (size_t)engine->info.context), &rest, error);
    if (!status && engine->set.n_lanes > 1)
        status = ht_passes_schedule(&engine->passes, pass, 0, 1, 0, &schedule, error);
    if (!status)
        status = ht_plan_list(engine, schedule, pass, &listed, n, error);
    if (status)
        return status;
    *times = (ht_plan_times){.regime = "single", .tokens = pass, .lanes = engine->set.n_lanes};
    if (schedule)
        list_times(engine, schedule, times);
    times->prompt_seconds = times->seconds + rest;
    times->joins = count_joins(listed, *n);
    list_devices(engine, listed, *n, times);
    status = ht_alloc((void **)rows, *n, sizeof **rows, "a plan", error);
    for (size_t i = 0; i < *n && !status; i++)
        (*rows)[i] = listed[i].row;
    free(listed);
    return status;
}

ht_status ht_engine_plan(ht_engine *engine, int tokens, ht_plan_row **rows, size_t *n, ht_plan_times *times,
                         ht_error *error) {
    ht_plan_times found;
    if (tokens < 1)
        return ht_fail(error, HT_ERROR_ARGUMENT, "tokens: must be at least 1 (got %d)", tokens);
    ht_lanes_lock(&engine->set);
    ht_status status = plan_pass(engine, (size_t)tokens, rows, n, &found, error);
    ht_lanes_unlock(&engine->set);
    if (!status && times)
        *times = found;
    return status;
}
