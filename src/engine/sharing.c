/* What engines with several lanes need besides plans: buffers of each lane's own, how finely operators divide on every
 * device, graphs for the prompts to come, and going on without a device that failed. */
#include "engine/engine.h"

#include <stdlib.h>
#include <string.h>

#define COARSE_ROWS 256 /* of the head: a finer cut of the vocabulary gains nothing */

/* ---- buffers ---------------------------------------------------------------------------------------------------------------- */

static ht_status make_view(ht_engine *engine, ht_slot like, ht_view *view, ht_error *error) {
    const size_t bytes = engine->slot_bytes[like];
    view->stride = engine->slots[like].stride;
    view->data = ht_device_pages_alloc(engine->devices, engine->n_devices, bytes);
    if (!view->data)
        return ht_fail(error, HT_ERROR_MEMORY, "no memory for a buffer of %zu bytes", bytes);
    engine->info.buffer_bytes += bytes;
    for (size_t d = 0; d < engine->n_devices; d++) {
        const ht_device_ops *ops = engine->devices[d]->ops;
        ht_status status = ops->import ? ops->import(engine->devices[d], view->data, bytes, error) : HT_OK;
        if (status)
            return status;
    }
    return HT_OK;
}

static ht_status make_buffers(ht_engine *engine, ht_lane *lane, ht_error *error) {
    ht_status status = make_view(engine, HT_SLOT_X, &lane->own_x, error);
    if (!status)
        status = make_view(engine, HT_SLOT_NORMED, &lane->own_normed, error);
    for (size_t i = 0; i < HT_LANE_DELTAS && !status; i++)
        status = make_view(engine, HT_SLOT_DELTA, &lane->deltas[i], error);
    return status;
}

void ht_lane_free_buffers(const ht_engine *engine, ht_lane *lane) {
    if (lane->own_x.data)
        ht_device_pages_free(lane->own_x.data, engine->slot_bytes[HT_SLOT_X]);
    if (lane->own_normed.data)
        ht_device_pages_free(lane->own_normed.data, engine->slot_bytes[HT_SLOT_NORMED]);
    for (size_t i = 0; i < HT_LANE_DELTAS; i++)
        if (lane->deltas[i].data)
            ht_device_pages_free(lane->deltas[i].data, engine->slot_bytes[HT_SLOT_DELTA]);
}

/* ---- how finely operators divide ---------------------------------------------------------------------------------------- */

/* Does every lane that computes `op` take this part of it? */
static bool all_take(const ht_engine *engine, const ht_op *op, const ht_slice *part) {
    for (size_t l = 0; l < engine->n_lanes; l++) {
        bool any = false;
        for (size_t d = 0; d < engine->n_devices; d++) {
            const ht_device *device = engine->devices[d];
            if (!(engine->lanes[l].devices >> d & 1) || ht_device_refuses_whole(device, op))
                continue;
            const bool divides = device->ops->caps(device)->divisible && device->ops->refuses_part;
            const char *why = divides                ? device->ops->refuses_part(device, op, part)
                              : device->ops->refuses ? device->ops->refuses(device, op, part)
                                                     : NULL;
            if (why)
                return false;
            any = true;
        }
        if (!any)
            return false;
    }
    return true;
}

/* Part [begin, end) of units of `grain` rows, columns or heads of an operator of a segment. */
static ht_slice try_part(const ht_engine *engine, ht_segment segment, const ht_op *op, size_t grain, size_t begin,
                         size_t end) {
    const ht_hparams *h = &engine->model->hparams;
    ht_slice s = ht_whole_slice(op);
    const size_t of = segment == HT_SEGMENT_HEADS ? (size_t)h->kv_heads : (size_t)h->feed_forward;
    const size_t cols = segment == HT_SEGMENT_HEADS ? (size_t)(h->heads / h->kv_heads * h->head_dim) : grain;
    if (segment != HT_SEGMENT_HEADS && segment != HT_SEGMENT_FEATURES)
        s.row_begin = begin * grain, s.row_end = ht_min_size(end * grain, s.row_end);
    else if (ht_class_of(op) == HT_CLASS_OUT || ht_class_of(op) == HT_CLASS_DOWN)
        s.reduction_begin = begin * cols, s.reduction_end = end * cols;
    else
        s.row_begin = begin * grain, s.row_end = end * grain, s.of = of;
    return s;
}

/* Can every operator of these classes be cut at a few places of `of` units? */
static bool divides(const ht_engine *engine, ht_segment segment, unsigned classes, size_t grain, size_t of) {
    const ht_model *model = engine->model;
    for (size_t i = 0; i < model->n_ops; i++) {
        const ht_op *op = &model->ops[i];
        if (!(classes >> ht_class_of(op) & 1) || (op->kind == HT_OP_NORM))
            continue;
        const size_t at[] = {1, of / 3, of / 2, of - 1};
        for (size_t k = 0; k < HT_COUNT(at) && of > 1; k++) {
            const size_t u = at[k] ? at[k] : 1;
            const ht_slice low = try_part(engine, segment, op, grain, 0, u),
                           high = try_part(engine, segment, op, grain, u, of);
            if (!all_take(engine, op, &low) || !all_take(engine, op, &high))
                return false;
        }
    }
    return true;
}

static void set_grain(ht_engine *engine, ht_segment segment, unsigned classes, size_t rows, const size_t *grains,
                      size_t n) {
    for (size_t i = 0; i < n && rows; i++) {
        const size_t of = (rows + grains[i] - 1) / grains[i];
        if (!divides(engine, segment, classes, grains[i], of))
            continue;
        engine->segment_grain[segment] = grains[i];
        engine->segment_of[segment] = of;
        return;
    }
}

static void find_grains(ht_engine *engine) {
    static const size_t fine[] = {32, 64, 128, 256}, coarse[] = {COARSE_ROWS}, one[] = {1};
    const ht_model *model = engine->model;
    const ht_hparams *h = &model->hparams;
    size_t rows[HT_CLASSES] = {0};
    for (size_t i = 0; i < model->n_ops; i++)
        if (model->ops[i].kind == HT_OP_MATMUL)
            rows[ht_class_of(&model->ops[i])] = ht_op_rows(&model->ops[i]);
    const unsigned qkv = 1u << HT_CLASS_QKV, out = 1u << HT_CLASS_OUT, gate_up = 1u << HT_CLASS_GATE_UP,
                   down = 1u << HT_CLASS_DOWN, glu = 1u << HT_CLASS_GLU,
                   attention = 1u << HT_CLASS_ROPE | 1u << HT_CLASS_ATTENTION;
    set_grain(engine, HT_SEGMENT_QKV_ROWS, qkv, rows[HT_CLASS_QKV], fine, HT_COUNT(fine));
    set_grain(engine, HT_SEGMENT_OUT_ROWS, out, rows[HT_CLASS_OUT], fine, HT_COUNT(fine));
    set_grain(engine, HT_SEGMENT_DOWN_ROWS, down, rows[HT_CLASS_DOWN], fine, HT_COUNT(fine));
    set_grain(engine, HT_SEGMENT_LM_ROWS, 1u << HT_CLASS_LM_HEAD, rows[HT_CLASS_LM_HEAD], coarse, 1);
    if (h->feed_forward % 32 == 0)
        set_grain(engine, HT_SEGMENT_FEATURES, gate_up | glu | down, (size_t)h->feed_forward, fine, HT_COUNT(fine));
    set_grain(engine, HT_SEGMENT_HEADS, qkv | out | attention, (size_t)h->kv_heads, one, 1);
    const ht_segment like[][2] = {{HT_SEGMENT_GATE_UP, HT_SEGMENT_FEATURES},
                                  {HT_SEGMENT_ATTENTION, HT_SEGMENT_HEADS},
                                  {HT_SEGMENT_ATTENTION_OUT, HT_SEGMENT_HEADS}};
    for (size_t i = 0; i < HT_COUNT(like); i++) {
        engine->segment_grain[like[i][0]] = engine->segment_grain[like[i][1]];
        engine->segment_of[like[i][0]] = engine->segment_of[like[i][1]];
    }
}

ht_status ht_engine_prepare_sharing(ht_engine *engine, ht_error *error) {
    ht_status status = HT_OK;
    for (size_t l = 0; l < engine->n_lanes && !status; l++)
        status = make_buffers(engine, &engine->lanes[l], error);
    /* rows cut in two and the waits between: no program is longer, and a choice that is made anew allocates nothing */
    const size_t most = 2 * engine->model->n_ops + 64;
    for (size_t i = 0; i < HT_SCHEDULES * engine->n_lanes && !status; i++) {
        ht_plan *program = &engine->schedules[i / engine->n_lanes].programs[i % engine->n_lanes];
        status =
            ht_grow((void **)&program->steps, &program->cap_steps, most, sizeof *program->steps, "a program", error);
    }
    if (!status)
        find_grains(engine);
    return status;
}

/* ---- prompts to come ------------------------------------------------------------------------------------------------------ */

static void keep_share(ht_engine *engine, size_t lane, ht_segment segment, size_t units) {
    size_t *built = engine->built[lane][segment];
    for (size_t i = 0; i < HT_MAX_SHARES; i++)
        if (built[i] == 0 || built[i] == units) {
            built[i] = units;
            return;
        }
}

/* Has lane i of the choice graphs of its shares for so many tokens? Else it has a device that divides. */
static bool has_graphs(const ht_engine *engine, const ht_choice *c, size_t i, size_t tokens) {
    bool graphs = false;
    for (size_t d = 0; d < engine->n_devices; d++) {
        const ht_device_caps *caps = engine->devices[d]->ops->caps(engine->devices[d]);
        if (engine->lanes[c->lanes[i]].devices >> d & 1 && caps->n_lengths)
            graphs |= tokens > 1 || !caps->many_only;
    }
    return graphs;
}

static void keep_segment(ht_engine *engine, const ht_choice *c, ht_segment segment, size_t tokens) {
    for (size_t i = 0; i < c->n_lanes; i++) {
        const size_t units = c->units[0][segment][i];
        if (units && units < engine->segment_of[segment] && has_graphs(engine, c, i, tokens))
            keep_share(engine, c->lanes[i], segment, units);
    }
}

/* Graphs of shares that a schedule wants are what every later one has: few cuts of a matrix serve all lengths. */
static void keep_shares(ht_engine *engine, const ht_schedule *schedule) {
    const ht_choice *c = &schedule->choice;
    if (c->regime == HT_REGIME_OWNER && has_graphs(engine, c, 1, schedule->tokens)) {
        for (size_t i = 0; i < HT_OWNER_MATRICES; i++) {
            const ht_matrix_cut *cut = &c->cuts[0][ht_owner_matrices[i].class];
            if (cut->tokens && cut->units < cut->of)
                keep_share(engine, c->lanes[1], ht_owner_matrices[i].segment, cut->units);
        }
    }
    if (c->regime != HT_REGIME_SHARES)
        return;
    for (size_t g = 0; g < c->n_segments[0]; g++)
        keep_segment(engine, c, c->segments[0][g], schedule->tokens);
    keep_segment(engine, c, HT_SEGMENT_LM_ROWS, 1);
}

/* Has the graphs of a schedule's steps built (or begins to: settle false). */
static ht_status build_graphs(ht_engine *engine, const ht_schedule *schedule, bool settle, ht_error *error) {
    for (size_t i = 0; i < schedule->n_lanes; i++) {
        const ht_plan *plan =
            schedule->n_lanes > 1 ? &schedule->programs[i] : ht_lane_plan(schedule->lanes[0], schedule->tokens);
        for (size_t k = 0; k < plan->n_steps; k++) {
            const ht_step *step = &plan->steps[k];
            ht_device *device = engine->devices[step->device];
            const size_t tokens = step->end ? step->end - step->begin : step->op->layer < 0 ? 1 : schedule->tokens;
            if (!device->ops->caps(device)->n_lengths || !device->ops->warm)
                continue;
            ht_status status = (settle ? device->ops->settle : device->ops->warm)(device, step->task, tokens, error);
            if (settle)
                ht_op_drop_pages(step->op);
            if (status == HT_ERROR_DEVICE || status == HT_ERROR_MEMORY)
                atomic_fetch_or(&engine->failed, 1u << step->device);
            if (status)
                return status;
        }
    }
    return HT_OK;
}

/* Are the lane's graphs of whole operators of this class there for so many tokens? Of the last layer, whose end is for few
 * tokens, nobody asks. */
static bool has_whole(const ht_engine *engine, const ht_lane *lane, ht_class c, size_t tokens) {
    int found = 0;
    for (size_t t = 0; t < engine->n_tasks; t++) {
        const ht_engine_task *task = &engine->tasks[t];
        const ht_slice whole = ht_whole_slice(task->op);
        ht_device *device = engine->devices[task->device];
        const bool end = task->op->layer + 1 == engine->model->hparams.layers && c > HT_CLASS_ATTENTION;
        if (!device->ops->caps(device)->n_lengths || !device->ops->ready || !task->task || task->dropped || end ||
            !(lane->devices >> task->device & 1) || ht_class_of(task->op) != c ||
            memcmp(&whole, &task->slice, sizeof whole) != 0)
            continue;
        if (!device->ops->ready(device, task->task, tokens))
            return false;
        found++;
    }
    /* matrices that were timed alone are there in a few layers only */
    return found > 0 && (c >= HT_CLASS_LM_HEAD || found + 1 >= engine->model->hparams.layers);
}

/* Does a companion compute the lane's single tokens? */
static bool leaves_single(const ht_engine *engine, const ht_lane *lane) {
    bool leaves = false;
    for (size_t d = 0; d < engine->n_devices; d++)
        leaves |= lane->devices >> d & 1 && engine->devices[d]->ops->caps(engine->devices[d])->many_only;
    return leaves;
}

/* The lane's table without the lengths that its graphs are not there for: they are not built while a request waits. */
static void keep_ready(const ht_engine *engine, const ht_lane *lane, ht_lane_cost *cost) {
    const bool leaves = leaves_single(engine, lane);
    *cost = lane->cost;
    for (int c = 0; c < HT_CLASSES; c++) {
        ht_class_cost *class = &cost->classes[c];
        size_t kept = 0;
        for (size_t i = 0; i < class->n_points; i++) {
            const size_t tokens = class->points[i].tokens;
            if (!class->stepped || (tokens == 1 && leaves) || has_whole(engine, lane, (ht_class)c, tokens))
                class->points[kept++] = class->points[i];
        }
        class->n_points = kept;
    }
}

void ht_engine_keep_ready(ht_engine *engine) {
    for (size_t l = 0; l < engine->n_lanes; l++)
        keep_ready(engine, &engine->lanes[l], &engine->lanes[l].whole);
}

/* Solves for a pass and has its graphs built. Where these find no memory, what was new goes again, and the planner works with
 * what is there. */
static ht_status expect(ht_engine *engine, size_t n, size_t position, size_t wanted, ht_error *error) {
    ht_schedule *schedule;
    size_t built[HT_MAX_DEVICES][HT_SEGMENTS][HT_MAX_SHARES];
    const size_t n_tasks = engine->n_tasks;
    memcpy(built, engine->built, sizeof built);
    ht_status status = ht_engine_schedule(engine, n, position, wanted, &schedule, error);
    if (status)
        return status;
    keep_shares(engine, schedule);
    status = build_graphs(engine, schedule, false, error);
    if (!status)
        status = build_graphs(engine, schedule, true, error);
    if (status == HT_ERROR_MEMORY && !engine->full) {
        ht_log(HT_LOG_INFO, "no memory for graphs of more shares: %s", error ? error->text : "");
        engine->full = true;
        memcpy(engine->built, built, sizeof built);
        atomic_store(&engine->failed, 0);
        ht_engine_forget_schedules(engine);
        ht_engine_drop_tasks(engine, n_tasks);
        ht_engine_keep_ready(engine);
        return expect(engine, n, position, wanted, error);
    }
    return status;
}

#define TRIAL_SECONDS 1.5 /* of passes of one kind */
#define TRIALS 16
#define TRIALS_OF_ONE 40 /* single tokens are learnt from slowly */

/* What trial passes work on: made for the first one, for later processes try nothing. */
typedef struct trials {
    ht_kv_layer *kv;
    int32_t *ids; /* [chunk], any */
    bool failed;  /* there is no memory for them: no device's fault */
} trials;

static ht_status make_trials(ht_engine *engine, trials *t, ht_error *error) {
    if (t->kv)
        return HT_OK;
    ht_status status = HT_OK;
    if (!t->ids)
        status = ht_alloc((void **)&t->ids, (size_t)engine->info.chunk, sizeof *t->ids, "planning", error);
    if (!status)
        status = ht_kv_create(engine, &t->kv, error);
    t->failed = status != HT_OK;
    return status;
}

/* Were passes of about so many tokens (to the power of two) tried, now or by an earlier process? */
static bool was_tried(const ht_engine *engine, size_t n) {
    bool tried = false;
    for (size_t i = 0; i < HT_SCHEDULES; i++) {
        const size_t tokens = engine->schedules[i].tokens;
        tried |= engine->schedules[i].tried && tokens && __builtin_clzll(tokens) == __builtin_clzll(n);
    }
    return tried;
}

/* Runs such passes before the first request: what joins and exchange cost shows only there, and so does which of several
 * ways is best that are predicted to take nearly the same. */
static ht_status try_passes(ht_engine *engine, trials *t, size_t n, size_t position, size_t wanted, ht_error *error) {
    ht_status status = expect(engine, n, position, wanted, error);
    double spent = 0;
    const bool calm =
        engine->fixed || engine->time; /* simulated devices' tables are exact, and nothing else is on them */
    if (status || calm || was_tried(engine, n))
        return status;
    status = make_trials(engine, t, error);
    for (size_t i = 0; i < (n > 1 ? TRIALS : TRIALS_OF_ONE) && !status && spent < TRIAL_SECONDS; i++) {
        const double start = ht_clock_now(engine->time);
        const float *logits;
        status = ht_engine_forward(engine, t->kv, t->ids, n, position, n - wanted, NULL, error);
        if (!status && wanted)
            status = ht_engine_head(engine, n - 1, 1, &logits, error);
        spent += ht_clock_now(engine->time) - start;
        if (!status)
            status = expect(engine, n, position, wanted, error);
    }
    if (!status) {
        ht_schedule *schedule = ht_engine_find_schedule(engine, n, position, wanted);
        schedule->tried = true;
        schedule->usual = schedule->pace;
    }
    return status;
}

/* A prompt to come, or (0) decode. */
static ht_status expect_prompt(ht_engine *engine, trials *t, size_t prompt, ht_error *error) {
    const size_t chunk = (size_t)engine->info.chunk;
    ht_status status = HT_OK;
    engine->may_build = engine->trying = true;
    if (prompt == 0)
        status = try_passes(engine, t, 1, 0, 1, error);
    for (size_t begin = 0; begin < prompt && !status; begin += chunk) {
        const size_t n = ht_min_size(chunk, prompt - begin);
        status = try_passes(engine, t, n, begin, begin + n == prompt, error);
    }
    engine->may_build = engine->trying = false;
    return status;
}

/* Goes on after a failure, where that is possible. */
static bool can_go_on(ht_engine *engine, ht_status status, const ht_error *error) {
    const unsigned shares = HT_CUT_ROWS | HT_CUT_HYBRID | HT_CUT_FEATURES | HT_CUT_HEADS;
    if (status == HT_ERROR_MEMORY && engine->cuts & shares && engine->cuts & ~shares) {
        ht_log(HT_LOG_WARN, "no memory for graphs of shares, going on with whole ones: %s", error ? error->text : "");
        engine->cuts &= ~shares;
        engine->full = false;
        ht_engine_forget_schedules(engine);
        ht_engine_drop_shares(engine);
        memset(engine->built, 0, sizeof engine->built);
        atomic_store(&engine->failed, 0);
        return true;
    }
    if ((status != HT_ERROR_DEVICE && status != HT_ERROR_MEMORY) || !atomic_load(&engine->failed))
        return false;
    ht_log(HT_LOG_WARN, "%s", error ? error->text : "a graph could not be built");
    return ht_engine_recover(engine);
}

/* Tokens of the prompts that are expected; usual[2]: room for those that are where nobody says. */
static const int *prompts_to_come(const ht_engine *engine, const ht_engine_options *options, int *usual, size_t *n) {
    usual[0] = 64;
    usual[1] = engine->info.chunk;
    *n = options->n_prompts ? options->n_prompts : 2;
    return options->n_prompts ? options->prompts : usual;
}

ht_status ht_engine_expect(ht_engine *engine, const ht_engine_options *options, ht_error *error) {
    int usual[2];
    size_t n_prompts;
    const int *prompts = prompts_to_come(engine, options, usual, &n_prompts);
    trials t = {0};
    ht_status status = HT_OK;
    for (size_t i = 0; i <= n_prompts && !status; i++) { /* decode first: it is part of every answer */
        if (options->progress && !options->progress("planning", (double)i, (double)n_prompts, options->progress_user))
            status = ht_fail(error, HT_ERROR_CANCELLED, "planning was stopped");
        else
            status = expect_prompt(engine, &t, i ? (size_t)prompts[i - 1] : 0, error);
        if (status && !t.failed && can_go_on(engine, status, error))
            status = HT_OK, i--;
    }
    ht_engine_keep_ready(engine);
    for (size_t i = 0; i < HT_SCHEDULES; i++) /* they were free to ask for graphs */
        engine->schedules[i].stale = true;
    if (!status && t.kv) /* something was tried */
        ht_engine_keep_learnt(engine);
    ht_kv_destroy(engine, t.kv);
    free(t.ids);
    return status;
}

/* ---- one lane is enough --------------------------------------------------------------------------------------------------- */

#define WORTH_SHARING 0.97 /* several lanes must be so much quicker than the best alone */

/* The only lane that is as good as the best for passes of n tokens, as bits of lanes; 0: several together are better. */
static uint32_t good_lanes(ht_engine *engine, size_t n, size_t position) {
    ht_solver_lane lanes[HT_MAX_DEVICES];
    ht_choice choice;
    const ht_problem p = ht_engine_problem(engine, n, position, 1, &ht_even_pace, lanes);
    ht_solve(&p, &choice);
    double best = choice.alone[0];
    uint32_t good = 0;
    for (size_t l = 1; l < engine->n_lanes; l++)
        best = choice.alone[l] < best ? choice.alone[l] : best;
    if (choice.n_lanes > 1 && choice.seconds < WORTH_SHARING * best)
        return 0;
    for (size_t l = 0; l < engine->n_lanes; l++)
        good |= (uint32_t)(WORTH_SHARING * choice.alone[l] <= best) << l;
    return good;
}

/* Keeps the devices of one lane and closes the others: nothing is there yet but tasks and the pool. */
static void keep_lane(ht_engine *engine, size_t keep) {
    const ht_lane lane = engine->lanes[keep];
    int place[HT_MAX_DEVICES];
    size_t n = 0, n_tasks = 0;
    ht_engine_settle(engine);
    for (size_t d = 0; d < engine->n_devices; d++)
        place[d] = lane.devices >> d & 1 ? (int)n++ : -1;
    for (size_t t = 0; t < engine->n_tasks; t++) {
        ht_engine_task task = engine->tasks[t];
        if (place[task.device] < 0) {
            if (task.task)
                engine->devices[task.device]->ops->release(engine->devices[task.device], task.task);
            continue;
        }
        task.device = place[task.device];
        engine->tasks[n_tasks++] = task;
    }
    engine->n_tasks = n_tasks;
    for (size_t d = 0; d < engine->n_devices; d++)
        if (place[d] < 0)
            engine->devices[d]->ops->close(engine->devices[d]);
        else
            engine->devices[place[d]] = engine->devices[d]; /* never behind where it was */
    engine->n_devices = engine->n_named = n;
    for (size_t l = 0; l < engine->n_lanes; l++) {
        ht_lane_free_buffers(engine, &engine->lanes[l]);
        for (size_t p = 0; p < HT_PHASES; p++)
            free(engine->lanes[l].plans[p].steps);
    }
    memset(engine->lanes, 0, sizeof engine->lanes);
    engine->lanes[0].devices = (1u << n) - 1;
    engine->n_lanes = 1;
    ht_crew_destroy(engine->crew);
    engine->crew = NULL;
    ht_engine_forget_schedules(engine);
}

ht_status ht_engine_reduce(ht_engine *engine, const ht_engine_options *options, bool *reduced, ht_error *error) {
    const size_t chunk = (size_t)engine->info.chunk;
    int usual[2];
    size_t n_prompts;
    const int *prompts = prompts_to_come(engine, options, usual, &n_prompts);
    uint32_t good = good_lanes(engine, 1, ht_min_size(128, (size_t)engine->info.context - 1));
    engine->may_build = true;
    for (size_t i = 0; i < n_prompts && good; i++)
        for (size_t begin = 0; begin < (size_t)prompts[i]; begin += chunk)
            good &= good_lanes(engine, ht_min_size(chunk, (size_t)prompts[i] - begin), begin);
    engine->may_build = false;
    *reduced = good != 0;
    if (!good)
        return HT_OK;
    keep_lane(engine, (size_t)__builtin_ctz(good));
    engine->info.weight_bytes = 0;
    return ht_engine_place(engine, options, error);
}

/* ---- going on without a device -------------------------------------------------------------------------------------------- */

bool ht_engine_recover(ht_engine *engine) {
    const uint32_t failed = atomic_exchange(&engine->failed, 0);
    const ht_engine_options plain = HT_INIT(ht_engine_options);
    bool any = false;
    if (!failed)
        return false;
    ht_engine_settle(engine);
    memset(engine->built, 0, sizeof engine->built);
    for (size_t d = 0; d < engine->n_devices; d++)
        if (failed >> d & 1)
            ht_log(HT_LOG_WARN, "%s has failed: going on without it",
                   engine->devices[d]->ops->caps(engine->devices[d])->name);
    for (size_t l = 0; l < engine->n_lanes; l++) {
        ht_lane *lane = &engine->lanes[l];
        if (lane->devices & failed && !lane->lost) {
            ht_error error;
            lane->devices &= ~failed;
            lane->lost =
                !ht_engine_takes_all(engine, lane->devices) || ht_engine_place_lane(engine, lane, &plain, &error);
        }
        any |= !lane->lost;
    }
    ht_engine_forget_schedules(engine); /* even if nothing is left: later passes are to say so */
    if (!any)
        return false;
    ht_engine_plan_transfers(engine);
    /* a lane that lost its static graphs takes other times than were measured */
    for (size_t l = 0; l < engine->n_lanes && engine->n_lanes > 1; l++)
        if (!engine->lanes[l].lost && engine->lanes[l].cost.devices != engine->lanes[l].devices)
            engine->lanes[l].lost = ht_lane_measure(engine, &engine->lanes[l], NULL) != HT_OK;
    ht_engine_keep_ready(engine);
    return true;
}
