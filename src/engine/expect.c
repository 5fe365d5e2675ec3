/* The last phase: plans for the prompts that are expected, and graphs of the shares they want. */
#include "engine/engine.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SHARE_CUTS (HT_CUT_ROWS | HT_CUT_HYBRID | HT_CUT_FEATURES | HT_CUT_HEADS) /* graphs of their own */

/* ---- prompts to come
 * ------------------------------------------------------------------------------------------------------ */

static void keep_share(ht_engine *engine, size_t lane, size_t axis, size_t units) {
    size_t *built = engine->passes.graphs.built[lane][axis];
    for (size_t i = 0; i < HT_MAX_SHARES; i++)
        if (built[i] == 0 || built[i] == units) {
            built[i] = units;
            return;
        }
}

/* Has lane i of the choice graphs of its shares for so many tokens? Else it has a device that divides. */
static bool has_graphs(const ht_engine *engine, const ht_choice *c, size_t i, size_t tokens) {
    const ht_device_caps *caps = ht_lanes_facts(&engine->set, engine->set.lanes[c->lanes[i]].devices).static_caps;
    return caps && (tokens > 1 || !caps->many_only);
}

/* Shares of an axis that lanes with graphs have of so many tokens. Of the model's axes it is number `axis`. */
static void keep_axis(ht_engine *engine, const ht_choice *c, size_t axis, const size_t *units, size_t tokens) {
    for (size_t i = 0; i < c->n_lanes; i++)
        if (units[i] && units[i] < engine->passes.units[axis].of && has_graphs(engine, c, i, tokens))
            keep_share(engine, c->lanes[i], axis, units[i]);
}

/* Does the group say which shares such blocks have? Who computes all tokens does; the tail, which is for few, only where no
 * block before it is alike. */
static bool speaks(const ht_model *model, size_t group) {
    const ht_group *g = &model->groups[group];
    const ht_block *block = &model->blocks[g->block];
    bool only = true;
    for (size_t k = 0; k < model->n_groups; k++) {
        const ht_block *other = &model->blocks[model->groups[k].block];
        only &= other->signature != block->signature || model->groups[k].tail < other->n;
    }
    return g->head || g->tail == block->n || only;
}

/* Graphs of shares that a schedule wants are what every later one has: few cuts of a matrix serve all lengths. */
static void keep_shares(ht_engine *engine, const ht_schedule *schedule) {
    const ht_model *model = engine->model;
    const ht_choice *c = &schedule->choice;
    for (size_t k = 0; k < model->n_groups; k++) {
        const ht_group *g = &model->groups[k];
        const ht_block *block = &model->blocks[g->block];
        const ht_group_choice *gc = &c->groups[k];
        const size_t first = block->first_axis, tokens = g->head ? 1 : schedule->tokens;
        if (!speaks(model, k))
            continue;
        for (size_t a = 0; a < gc->n_axes && c->regime == HT_REGIME_SHARES; a++)
            if (model->axes[first + gc->axes[a]].kind != HT_AXIS_TOKENS)
                keep_axis(engine, c, first + gc->axes[a], gc->units[gc->axes[a]], tokens);
        for (size_t a = 0; a < block->n_axes && c->regime == HT_REGIME_OWNER; a++)
            if (gc->cuts[a].tokens && gc->cuts[a].units < gc->cuts[a].of && has_graphs(engine, c, 1, schedule->tokens))
                keep_share(engine, c->lanes[1], first + a, gc->cuts[a].units);
    }
}

/* Has the graphs of a schedule's steps built (or begins to: settle false). */
static ht_status build_graphs(ht_engine *engine, const ht_schedule *schedule, bool settle, ht_error *error) {
    for (size_t i = 0; i < schedule->n_lanes; i++) {
        const ht_program *program = ht_schedule_program(schedule, i);
        for (size_t k = 0; k < program->n_steps; k++) {
            const ht_step *step = &program->steps[k];
            ht_device *device = engine->set.devices[step->device];
            const size_t tokens = step->end ? step->end - step->begin : step->op->layer < 0 ? 1 : schedule->tokens;
            if (!device->ops->caps(device)->n_lengths || !device->ops->warm)
                continue;
            ht_status status = (settle ? device->ops->settle : device->ops->warm)(device, step->task, tokens, error);
            if (settle)
                ht_op_drop_pages(step->op);
            if (status == HT_ERROR_DEVICE || status == HT_ERROR_MEMORY)
                atomic_fetch_or(&engine->set.failed, 1u << step->device);
            if (status)
                return status;
        }
    }
    return HT_OK;
}

ht_status ht_engine_begin_graphs(ht_engine *engine, const ht_schedule *schedule, ht_error *error) {
    keep_shares(engine, schedule);
    return build_graphs(engine, schedule, false, error);
}

static ht_status solve_and_build(ht_engine *engine, size_t n, size_t position, size_t wanted, ht_error *error) {
    ht_schedule *schedule;
    ht_status status = ht_passes_schedule(&engine->passes, n, position, wanted, 0, &schedule, error);
    if (status)
        return status;
    status = ht_engine_begin_graphs(engine, schedule, error);
    return status ? status : build_graphs(engine, schedule, true, error);
}

/* Solves for a pass and has its graphs built. Where these find no memory, what was new goes again, and the planner
 * works with what is there. */
static ht_status expect(ht_engine *engine, size_t n, size_t position, size_t wanted, ht_error *error) {
    const ht_graphs before = engine->passes.graphs;
    const size_t n_tasks = engine->set.n_tasks;
    ht_status status = solve_and_build(engine, n, position, wanted, error);
    if (status != HT_ERROR_MEMORY || before.no_room)
        return status;
    ht_log(HT_LOG_INFO, "no memory for graphs of more shares: %s", error ? error->text : "");
    engine->passes.graphs = before;
    engine->passes.graphs.no_room = true;
    atomic_store(&engine->set.failed, 0);
    ht_passes_forget_schedules(&engine->passes);
    ht_lanes_drop_tasks(&engine->set, n_tasks);
    ht_lanes_keep_ready(&engine->set);
    return solve_and_build(engine, n, position, wanted, error);
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
    for (size_t i = 0; i < (size_t)engine->info.chunk && !status; i++) /* all alike would all choose the same experts */
        t->ids[i] = (int32_t)((uint32_t)i * 2654435761u % (uint32_t)engine->model->hparams.vocabulary);
    if (!status)
        status = ht_kv_create(&engine->set, &t->kv, error);
    t->failed = status != HT_OK;
    return status;
}

/* Were passes of about so many tokens (to the power of two) tried, now or by an earlier process? */
static bool was_tried(const ht_engine *engine, size_t n) {
    bool tried = false;
    for (size_t i = 0; i < HT_SCHEDULES; i++) {
        const size_t tokens = engine->passes.schedules[i].tokens;
        tried |= engine->passes.schedules[i].tried && tokens && __builtin_clzll(tokens) == __builtin_clzll(n);
    }
    return tried;
}

/* Runs such passes before the first request: what joins and exchange cost shows only there, and so does which of several
 * ways is best that are predicted to take nearly the same. */
static ht_status try_passes(ht_engine *engine, trials *t, size_t n, size_t position, size_t wanted, ht_error *error) {
    ht_status status = expect(engine, n, position, wanted, error);
    double spent = 0;
    /* simulated devices' tables are exact, and nothing else is on them */
    const bool calm = engine->passes.policy.frozen || engine->set.time;
    if (status || calm || was_tried(engine, n))
        return status;
    status = make_trials(engine, t, error);
    for (size_t i = 0; i < (n > 1 ? TRIALS : TRIALS_OF_ONE) && !status && spent < TRIAL_SECONDS; i++) {
        const double start = ht_clock_now(engine->set.time);
        const float *logits;
        const ht_segment all = {.kv = t->kv, .ids = t->ids, .n = n, .position = position};
        status = ht_passes_forward(&engine->passes, &all, 1, n - wanted, NULL, error);
        if (!status && wanted)
            status = ht_passes_head(&engine->passes, n - 1, 1, &logits, error);
        spent += ht_clock_now(engine->set.time) - start;
        if (!status)
            status = expect(engine, n, position, wanted, error);
    }
    if (!status) {
        ht_schedule *schedule = ht_passes_find_schedule(&engine->passes, n, position, wanted, 0);
        schedule->tried = true;
        schedule->usual = schedule->pace;
    }
    return status;
}

/* A prompt to come, or (0) decode. */
static ht_status expect_prompt(ht_engine *engine, trials *t, size_t prompt, ht_error *error) {
    const size_t chunk = (size_t)engine->info.chunk;
    ht_status status = HT_OK;
    engine->passes.stage = HT_STAGE_TRYING;
    if (prompt == 0)
        status = try_passes(engine, t, 1, 0, 1, error);
    for (size_t begin = 0; begin < prompt && !status; begin += chunk) {
        const size_t n = ht_min_size(chunk, prompt - begin);
        status = try_passes(engine, t, n, begin, begin + n == prompt, error);
    }
    engine->passes.stage = HT_STAGE_SERVING;
    return status;
}

/* Goes on after a failure, where that is possible. */
static bool can_go_on(ht_engine *engine, ht_status status, const ht_error *error) {
    const unsigned shares = SHARE_CUTS;
    if (status == HT_ERROR_MEMORY && engine->passes.policy.cuts & shares && engine->passes.policy.cuts & ~shares) {
        ht_log(HT_LOG_WARN, "no memory for graphs of shares, continuing with whole operators: %s",
               error ? error->text : "");
        engine->passes.policy.cuts &= ~shares;
        engine->passes.graphs.no_room = false;
        ht_passes_forget_schedules(&engine->passes);
        ht_lanes_drop_shares(&engine->set);
        memset(engine->passes.graphs.built, 0, sizeof engine->passes.graphs.built);
        atomic_store(&engine->set.failed, 0);
        return true;
    }
    if ((status != HT_ERROR_DEVICE && status != HT_ERROR_MEMORY) || !atomic_load(&engine->set.failed))
        return false;
    ht_log(HT_LOG_WARN, "%s", error ? error->text : "a graph could not be built");
    return ht_engine_recover(engine);
}

/* Plans for decode and for the prompts, in this order or (decode_last) the other way round: what comes first has the
 * memory for its graphs. */
static ht_status expect_all(ht_engine *engine, const ht_engine_options *options, bool decode_last, trials *t,
                            ht_error *error) {
    int usual[2];
    size_t n_prompts;
    const int *prompts = ht_engine_prompts(engine, usual, &n_prompts);
    ht_status status = HT_OK;
    for (size_t i = 0; i <= n_prompts && !status; i++) {
        const size_t which = decode_last ? (i + 1) % (n_prompts + 1) : i; /* 0: decode */
        if (options->progress && !options->progress("planning", (double)i, (double)n_prompts, options->progress_user))
            status = ht_fail(error, HT_ERROR_CANCELLED, "planning was stopped");
        else
            status = expect_prompt(engine, t, which ? (size_t)prompts[which - 1] : 0, error);
        if (status && !t->failed && can_go_on(engine, status, error))
            status = HT_OK, i--;
    }
    ht_lanes_keep_ready(&engine->set);
    return status;
}

/* ---- too little memory for graphs
 * ------------------------------------------------------------------------------------------- */

/* How quick an engine is predicted to be in decode and with the prompts to come, over the best lane alone in each of
 * these. */
typedef struct verdict {
    double worst, product;
} verdict;

static void judge(verdict *v, double seconds, double alone) {
    const double ratio = alone < INFINITY && seconds < INFINITY ? alone / seconds : seconds < INFINITY;
    v->worst = fmin(v->worst, ratio);
    v->product *= ratio;
}

/* Not to be slower than one device is worth more than to be quicker elsewhere. */
static bool is_better(const verdict *a, const verdict *b) {
    const double worst_a = fmin(a->worst, HT_WORTH_SHARING), worst_b = fmin(b->worst, HT_WORTH_SHARING);
    return worst_a > worst_b + 1e-6 || (worst_a > worst_b - 1e-6 && a->product > b->product);
}

static uint64_t weight_bytes(const ht_op *op) {
    uint64_t bytes = 0;
    for (int i = 0; op->kind == HT_OP_FFN && i < 3; i++)
        bytes += weight_bytes(&op->members[i]);
    for (int i = 0; (op->kind == HT_OP_MATMUL || op->kind == HT_OP_EXPERTS) && i < op->n_parts; i++)
        bytes += (uint64_t)op->parts[i].rows * op->parts[i].row_bytes;
    return bytes;
}

/* Is there memory for the weights, at least, of all graphs that a lane alone needs? Else some operators would move to its
 * companion, which nobody timed. */
static bool holds_all(const ht_engine *engine, size_t l) {
    const ht_lane *lane = &engine->set.lanes[l];
    const ht_program *program = &lane->programs[HT_FORM_MANY];
    uint64_t bytes[HT_MAX_DEVICES] = {0};
    for (size_t i = 0; i < program->n_steps; i++)
        bytes[program->steps[i].device] += weight_bytes(program->steps[i].op);
    for (size_t d = 0; d < engine->set.n_devices; d++) {
        const ht_device_caps *caps = ht_lanes_caps(&engine->set, d);
        if (lane->devices >> d & 1 && caps->n_lengths && caps->graph_bytes && bytes[d] > caps->graph_bytes)
            return false;
    }
    return true;
}

/* Of a pass with the graphs that are there, and of each lane alone with all that it needs. */
static void judge_pass(ht_engine *engine, size_t n, size_t position, size_t wanted, verdict *together,
                       verdict alone[HT_MAX_LANES]) {
    ht_question question;
    ht_choice choice, lanes;
    double best = INFINITY;
    ht_problem p = ht_passes_problem(&engine->passes, n, position, wanted, 0, &ht_even_pace, &question);
    ht_solve(&p, &choice);
    p.cuts = HT_CUT_NONE;
    for (size_t l = 0; l < p.n_lanes; l++)
        question.lanes[l].cost = &engine->set.lanes[l].cost;
    ht_solve(&p, &lanes);
    for (size_t l = 0; l < p.n_lanes; l++) {
        lanes.alone[l] = holds_all(engine, l) ? lanes.alone[l] : INFINITY;
        best = fmin(best, lanes.alone[l]);
    }
    judge(together, choice.n_lanes ? choice.seconds : INFINITY, best);
    for (size_t l = 0; l < p.n_lanes; l++)
        judge(&alone[l], lanes.alone[l], best);
}

static verdict judge_all(ht_engine *engine, const ht_engine_options *options, verdict alone[HT_MAX_LANES]) {
    const size_t chunk = engine->set.chunk;
    int usual[2];
    size_t n_prompts;
    const int *prompts = ht_engine_prompts(engine, usual, &n_prompts);
    verdict together = {1e9, 1};
    for (size_t l = 0; l < HT_MAX_LANES; l++)
        alone[l] = together;
    judge_pass(engine, 1, 0, 1, &together, alone);
    for (size_t i = 0; i < n_prompts; i++)
        for (size_t begin = 0; begin < (size_t)prompts[i]; begin += chunk) {
            const size_t n = ht_min_size(chunk, (size_t)prompts[i] - begin);
            judge_pass(engine, n, begin, begin + n == (size_t)prompts[i], &together, alone);
        }
    return together;
}

/* As if nothing had been built. */
static ht_status start_anew(ht_engine *engine, unsigned cuts, ht_error *error) {
    engine->passes.policy.cuts = cuts;
    engine->passes.graphs.no_room = false;
    ht_lanes_settle(&engine->set);
    ht_passes_forget_schedules(&engine->passes);
    memset(engine->passes.graphs.built, 0, sizeof engine->passes.graphs.built);
    atomic_store(&engine->set.failed, 0);
    return ht_lanes_drop_graphs(&engine->set, error);
}

/* The memory for graphs did not do for all that was planned. Whoever came first had it, be it of little use: other
 * orders are tried, and whole operators only, until no device alone is quicker in anything; else the best of these is
 * kept, or one lane alone (*keep) where that is better. */
static ht_status expect_with_less(ht_engine *engine, const ht_engine_options *options, trials *t, size_t *keep,
                                  ht_error *error) {
    static const struct {
        bool decode_last;
        unsigned without;
    } ways[] = {{false, HT_CUT_NONE}, {true, HT_CUT_NONE}, {true, SHARE_CUTS}};
    const unsigned cuts = engine->passes.policy.cuts;
    verdict best = {0}, alone[HT_MAX_LANES] = {{0}};
    size_t chosen = 0, made = 0;
    ht_status status = HT_OK;
    for (size_t i = 0; i < HT_COUNT(ways) && !status && best.worst < 1; i++) {
        if (i)
            status = start_anew(engine, cuts & ~ways[i].without, error);
        if (i && !status)
            status = expect_all(engine, options, ways[i].decode_last, t, error);
        if (status)
            break;
        const verdict v = judge_all(engine, options, alone);
        ht_log(HT_LOG_INFO, "graphs for %s: %.2f of the best device alone at worst",
               ways[i].without ? "whole operators"
               : i             ? "prompts first"
                               : "decode first",
               v.worst);
        made = i;
        if (i == 0 || is_better(&v, &best))
            best = v, chosen = i;
    }
    for (size_t l = 0; l < engine->set.n_lanes && !status; l++)
        if (options->strategy == HT_STRATEGY_AUTO && !engine->set.lanes[l].lost && is_better(&alone[l], &best))
            best = alone[l], *keep = l;
    if (status || *keep != SIZE_MAX || chosen == made)
        return status;
    status = start_anew(engine, cuts & ~ways[chosen].without, error);
    return status ? status : expect_all(engine, options, ways[chosen].decode_last, t, error);
}

/* ---- the phase
 * ----------------------------------------------------------------------------------------------------------- */

ht_status ht_engine_expect(ht_engine *engine, const ht_engine_options *options, ht_error *error) {
    trials t = {0};
    size_t keep = SIZE_MAX;
    if (engine->set.n_lanes < 2)
        return HT_OK;
    ht_status status = expect_all(engine, options, false, &t, error); /* decode first: it is part of every answer */
    if (!status && engine->passes.graphs.no_room && !engine->passes.policy.must_share)
        status = expect_with_less(engine, options, &t, &keep, error);
    if (!status) /* passes have taught what joins cost */
        status = ht_engine_hold_anew(engine, 0, error);
    ht_passes_solve_anew(&engine->passes); /* they were free to ask for graphs */
    if (!status && t.kv)                   /* something was tried */
        ht_engine_keep_learnt(engine);
    ht_kv_destroy(&engine->set, t.kv);
    free(t.ids);
    if (status || keep == SIZE_MAX)
        return status;
    status = start_anew(engine, engine->passes.policy.cuts, error);
    return status ? status : ht_engine_keep_lane(engine, keep, options, error);
}
