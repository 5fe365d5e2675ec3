/* Measuring what a lane's operators take: the cost tables that the solver works with.
 *
 * Operators of one signature are run one after the other, those of a few blocks of each kind, so that weights come from
 * memory as in a pass and queues stay full; then these blocks whole, and each signature is scaled so that the sum is
 * what the blocks take. The join that ends each run is left out. Then what lanes take beside each other.
 */
#include "engine/engine.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ENOUGH_BYTES (24.0 * 1e6) /* of weights in the layers that are timed: more than caches near a core hold */
#define MOST_RUNS 5
#define ENOUGH_SECONDS 0.12 /* of runs at one point */
#define MOST_STEPS 512
#define LEAST_JOIN 0.2e-6
#define MOST_SLOWED 32 /* times as long beside others: a lane that has all of the memory may leave next to nothing */

/* ---- timing
 * ------------------------------------------------------------------------------------------------------------------ */

typedef struct timer {
    ht_engine *engine;
    ht_lane *lane;
    const ht_kv_layer *kv;
    ht_step steps[MOST_STEPS];
    size_t n_steps;
    double start; /* seconds that a matrix takes which stands apart (stands_apart), however small it is */
} timer;

static ht_status run_once(const timer *t, size_t n, size_t position, bool apart, double *seconds, ht_error *error) {
    const ht_program program = {.steps = (ht_step *)t->steps, .n_steps = t->n_steps};
    const ht_run run = {.passes = &t->engine->passes, .lane = t->lane, .program = &program};
    const ht_binding binding = {.slots = t->engine->set.slots,
                                .kv = t->kv,
                                .position = position,
                                .tokens = n,
                                .room = (size_t)t->engine->info.chunk,
                                .sync = ht_lane_sync(&t->engine->set, t->lane),
                                .joined = true};
    const double begin = ht_clock_now(t->engine->set.time);
    ht_status status = apart ? HT_OK : ht_run_steps(&run, 0, t->n_steps, &binding, error);
    for (size_t i = 0; i < t->n_steps && apart && !status; i++) /* a join after each */
        status = ht_run_steps(&run, i, i + 1, &binding, error);
    *seconds = ht_clock_now(t->engine->set.time) - begin;
    return status;
}

/* Median seconds of all steps. One run warms up; long ones are run once, for noise is short against them. */
static ht_status time_steps(timer *t, size_t n, size_t position, bool apart, double *seconds, ht_error *error) {
    double times[MOST_RUNS], spent = 0;
    size_t runs = 0;
    ht_status status = ht_lanes_prepare_steps(&t->engine->set, t->steps, t->n_steps, error);
    if (!status)
        status = run_once(t, n, position, apart, seconds, error);
    const size_t most = t->engine->set.time ? 1 : MOST_RUNS; /* virtual time has no noise */
    while (!status && runs < most && (runs == 0 || spent < ENOUGH_SECONDS)) {
        status = run_once(t, n, position, apart, &times[runs], error);
        spent += times[runs++];
    }
    if (status)
        return status;
    ht_sort_doubles(times, runs);
    *seconds = times[runs / 2];
    return HT_OK;
}

/* ---- which steps
 * ------------------------------------------------------------------------------------------------------------- */

/* Of one token. */
static double weight_bytes(const ht_op *op) {
    return 0.5 * ht_op_products(op);
}

static double layer_bytes(const ht_program *program, int layer) {
    double bytes = 0;
    for (size_t i = 0; i < program->n_steps; i++)
        bytes += program->steps[i].op->layer == layer ? weight_bytes(program->steps[i].op) : 0;
    return bytes;
}

/* Is number `i` of n one of `count` that stand for all: first, last, between? */
static bool is_sample(int i, int count, int n) {
    for (int k = 0; k < count; k++)
        if (i == (count == 1 ? n / 2 : k * (n - 1) / (count - 1)))
            return true;
    return false;
}

/* Is the block one of `count` of its kind that stand for all? */
static bool is_sampled(const ht_model *model, int block, int count) {
    int before = 0, alike = 0;
    for (size_t k = 0; k < model->n_blocks; k++)
        if (model->blocks[k].signature == model->blocks[block].signature) {
            before += (int)k < block;
            alike++;
        }
    return is_sample(before, count < alike ? count : alike, alike);
}

#define ALL (-1) /* in place of a signature */

/* What every lane computes for itself, at the beginning of every block. */
static int norm_of(const ht_model *model) {
    return model->ops[model->blocks[0].first].signature;
}

/* Does the lane compute operators of this signature on a device of its own, between what others of its devices compute?
 * Then the queue is empty whenever such an operator comes, and somebody waits for its end: what that takes is the
 * operator's. */
static bool stands_apart(const timer *t, const ht_program *program, int signature) {
    int layer = t->engine->model->hparams.layers / 2;
    bool apart = false, there = false;
    for (size_t i = 0; i < program->n_steps; i++)
        there |= program->steps[i].op->layer == layer && program->steps[i].op->signature == signature;
    layer = there ? layer : t->engine->model->signatures[signature].op->layer;
    for (size_t i = 0; i < program->n_steps; i++) {
        const ht_step *step = &program->steps[i];
        if (step->op->layer != layer || step->op->signature != signature)
            continue;
        apart |= i > 0 && step[-1].device != step->device;
        apart |= i + 1 < program->n_steps && step[1].device != step->device;
    }
    return apart;
}

/* Leaves matrices only: a join comes behind one of them. */
static void keep_matrices(timer *t) {
    size_t n = 0;
    for (size_t i = 0; i < t->n_steps; i++)
        if (t->steps[i].op->kind == HT_OP_MATMUL || t->steps[i].op->kind == HT_OP_FFN ||
            t->steps[i].op->kind == HT_OP_EXPERTS)
            t->steps[n++] = t->steps[i];
    t->n_steps = n;
}

/* Weights as a router would leave them if every expert were chosen as often: what made-up tokens choose are a few
 * experts, over and over. A device with a copy of its own is to bring them in. */
static void choose_evenly(const timer *t, ht_step *step) {
    const ht_op *op = step->op;
    const ht_view *view = &t->engine->set.slots[op->more[0]];
    const size_t experts = (size_t)op->experts, used = op->route.used ? (size_t)op->route.used : experts;
    step->resident &= ~(1u << op->more[0]);
    for (size_t n = 0; n < (size_t)t->engine->info.chunk && view->data; n++) {
        float *weights = (float *)view->data + n * view->stride;
        memset(weights, 0, experts * sizeof *weights);
        for (size_t k = 0; k < used; k++)
            weights[(n * used + k) % experts] = 1 / (float)used;
    }
}

/* Takes the steps of a signature (ALL: of all, but what stands around the layers, and routers' choices, which would be
 * those of made-up tokens) in the sampled blocks. */
static void take_steps(timer *t, const ht_program *program, int signature, int samples) {
    const ht_model *model = t->engine->model;
    t->n_steps = 0;
    for (size_t i = 0; i < program->n_steps && t->n_steps < MOST_STEPS; i++) {
        const ht_op *op = program->steps[i].op;
        const bool around = op->layer < 0 && (op->block < 0 || model->signatures[op->signature].head);
        const bool inside = op->layer >= 0 ? is_sampled(model, op->block, samples) : around && signature != ALL;
        if (!inside || (signature == ALL ? op->kind == HT_OP_ROUTE : op->signature != signature))
            continue;
        t->steps[t->n_steps] = program->steps[i];
        if (op->kind == HT_OP_EXPERTS)
            choose_evenly(t, &t->steps[t->n_steps]);
        t->n_steps++;
    }
}

/* Operators of the steps: what one leaves, another computes. */
static size_t count_ops(const timer *t) {
    size_t n = 0;
    for (size_t i = 0; i < t->n_steps; i++)
        n += !t->steps[i].rest;
    return n ? n : 1;
}

static int count_samples(const timer *t, const ht_program *program, size_t n) {
    const int layers = t->engine->model->hparams.layers;
    int samples = 2;
    while (samples < layers && samples < 8 && n < 64 && samples * layer_bytes(program, 0) < ENOUGH_BYTES)
        samples++;
    return samples < layers ? samples : layers;
}

/* ---- one lane
 * ------------------------------------------------------------------------------------------------------------------ */

static size_t list_lengths(const ht_engine *engine, const ht_lane *lane, size_t lengths[HT_MAX_POINTS]) {
    static const size_t dynamic[] = {1, 2, 8, 16, 32, 64, 128, 256, 512};
    const ht_device_caps *caps = ht_lanes_facts(&engine->set, lane->devices).static_caps;
    const size_t chunk = (size_t)engine->info.chunk;
    size_t n = 0;
    if (caps)
        lengths[n++] = 1;
    for (size_t i = 0; caps && i < caps->n_lengths && n < HT_MAX_POINTS; i++)
        if (caps->lengths[i] > 1 && (size_t)caps->lengths[i] <= chunk)
            lengths[n++] = (size_t)caps->lengths[i];
    for (size_t i = 0; !caps && i < HT_COUNT(dynamic); i++)
        if (dynamic[i] <= chunk)
            lengths[n++] = dynamic[i];
    return n;
}

/* Graphs of the sampled layers for this length. */
static ht_status warm(timer *t, size_t n, ht_error *error) {
    ht_status status = ht_lanes_prepare_steps(&t->engine->set, t->steps, t->n_steps, error);
    for (int settle = 0; settle < 2; settle++)
        for (size_t i = 0; i < t->n_steps && !status; i++) {
            ht_device *device = t->engine->set.devices[t->steps[i].device];
            ht_status (*f)(ht_device *, ht_task *, size_t, ht_error *) =
                settle ? device->ops->settle : device->ops->warm;
            if (f && t->steps[i].op->layer >= 0)
                status = f(device, t->steps[i].task, n, error);
        }
    return status;
}

static void add_point(ht_op_cost *cost, size_t n, double seconds, bool stepped) {
    ht_cost_point *p = &cost->points[cost->n_points];
    if (cost->n_points == HT_MAX_POINTS)
        return;
    cost->stepped |= stepped;
    p->tokens = n;
    p->seconds = cost->n_points && seconds < p[-1].seconds ? p[-1].seconds : seconds; /* noise: more never cost less */
    cost->n_points++;
}

/* Seconds of steps without what they take to begin with an empty queue and to be waited for: a join, which who predicts adds
 * where there is one. */
static double without_join(const timer *t, double seconds) {
    return fmax(seconds - t->lane->cost.join, 0.5 * seconds);
}

/* Is it one of those around the layers, which are measured by themselves (measure_rest)? */
static bool is_around(const ht_model *model, int signature) {
    return model->signatures[signature].head || model->signatures[signature].op->block < 0;
}

/* All signatures of the layers at one number of tokens. */
static ht_status measure_point(timer *t, size_t n, ht_error *error) {
    const ht_model *model = t->engine->model;
    const ht_program *program = ht_lane_program(t->lane, n);
    const int samples = count_samples(t, program, n);
    double seconds[HT_MAX_SIGNATURES] = {0}, sum = 0, blocks = 0;
    size_t count[HT_MAX_SIGNATURES] = {0};
    take_steps(t, program, ALL, samples);
    ht_status status = warm(t, n, error);
    if (!status)
        status = time_steps(t, n, 0, false, &blocks, error);
    blocks = without_join(t, blocks);
    for (int s = 0; s < (int)model->n_signatures && !status; s++) {
        take_steps(t, program, s, samples);
        if (t->n_steps == 0 || is_around(model, s))
            continue;
        count[s] = count_ops(t);
        const bool apart = stands_apart(t, program, s);
        status = time_steps(t, n, 0, apart, &seconds[s], error);
        seconds[s] = (apart ? seconds[s] : without_join(t, seconds[s])) / (double)count[s];
        sum += model->signatures[s].op->kind == HT_OP_ROUTE ? 0 : seconds[s] * (double)count[s];
    }
    if (status)
        return status;
    const double scale = fmin(fmax(blocks / sum, 0.6), 1.7);
    const bool graphs = ht_lanes_facts(&t->engine->set, t->lane->devices).static_caps;
    for (int s = 0; s < (int)model->n_signatures; s++)
        if (count[s]) {
            take_steps(t, program, s, samples);
            const ht_device_caps *caps = ht_lanes_caps(&t->engine->set, (size_t)t->steps[0].device);
            add_point(&t->lane->cost.ops[s], n, seconds[s] * scale, graphs && caps->n_lengths);
            keep_matrices(t);
            if (t->n_steps && !caps->runs_in_caller && stands_apart(t, program, s))
                t->lane->cost.ops[s].start = t->start;
        }
    ht_log(HT_LOG_INFO, "lane %d: %zu tokens, a layer in %.1f us (parts %.1f us)",
           (int)(t->lane - t->engine->set.lanes), n, blocks / samples * 1e6, sum / samples * 1e6);
    return HT_OK;
}

/* The steps of one part of what the lane computes as one, member number `member` of operators of this signature. None:
 * it has none of these, or only where any number of rows can be asked for. */
static ht_status take_members(timer *t, const ht_program *program, int fused, int member, int samples,
                              ht_error *error) {
    ht_status status = HT_OK;
    size_t n = 0;
    take_steps(t, program, fused, samples);
    for (size_t i = 0; i < t->n_steps && !status; i++) {
        const ht_device *device = t->engine->set.devices[t->steps[i].device];
        const ht_op *op = &t->steps[i].op->members[member];
        const ht_slice whole = ht_whole_slice(op);
        ht_slice_task *task;
        if (device->ops->caps(device)->n_lengths == 0)
            continue;
        status = ht_lanes_task(&t->engine->set, t->steps[i].device, op, &whole, &task, error);
        if (!status)
            t->steps[n++] = (ht_step){.op = op, .device = task->device, .slice = task->slice, .task = task->task};
    }
    t->n_steps = n;
    return status;
}

/* Where static graphs compute some operators as one, its matrices may still be better cut apart: a device that is quick
 * with one of them and slow with the other takes more of the first. Where there is no room for their graphs they are
 * not. */
static ht_status measure_members(timer *t, int fused, size_t n, ht_error *error) {
    const ht_op *members = t->engine->model->signatures[fused].op->members;
    const ht_program *program = ht_lane_program(t->lane, n);
    const int samples = count_samples(t, program, n);
    double seconds[3] = {0};
    if (n < 2 || !(t->engine->passes.policy.cuts & (HT_CUT_ROWS | HT_CUT_HYBRID)))
        return HT_OK;
    for (int i = 0; i < 3; i++) {
        if (members[i].kind != HT_OP_MATMUL)
            continue;
        ht_status status = take_members(t, program, fused, i, samples, error);
        if (!status)
            status = warm(t, n, error);
        if (status == HT_ERROR_MEMORY || status == HT_ERROR_UNSUPPORTED || (!status && t->n_steps == 0))
            return HT_OK;
        const bool apart = stands_apart(t, program, fused);
        if (!status)
            status = time_steps(t, n, 0, apart, &seconds[i], error);
        if (status)
            return status;
        seconds[i] = (apart ? seconds[i] : without_join(t, seconds[i])) / (double)t->n_steps;
    }
    for (int i = 0; i < 3; i++)
        if (seconds[i] > 0) {
            ht_op_cost *cost = &t->lane->cost.ops[members[i].signature];
            add_point(cost, n, seconds[i], true);
            cost->start = t->start;
        }
    return HT_OK;
}

static bool has_queue(const timer *t) {
    bool queues = false;
    for (size_t i = 0; i < t->n_steps; i++) {
        const ht_device *device = t->engine->set.devices[t->steps[i].device];
        queues |= !device->ops->caps(device)->runs_in_caller;
    }
    return queues;
}

/* What a join costs by each way of waiting: single tokens' matrices with a join after each, against all in one go. The way
 * that makes such steps and longer ones end soonest is what the lane will use, unless one was asked for: polling, for one,
 * is quick to see the end of a short kernel, and takes a core from the long ones of a device that computes on it. */
static ht_status measure_joins(timer *t, const ht_program *one, const ht_program *many, size_t most, ht_error *error) {
    ht_lane_cost *cost = &t->lane->cost;
    double single[HT_SYNC_FLAG + 1], longer[HT_SYNC_FLAG + 1] = {0}, starts[HT_SYNC_FLAG + 1], pipelined;
    const int samples = count_samples(t, one, 1);
    take_steps(t, one, ALL, samples);
    const bool choose = has_queue(t) && t->engine->set.sync == HT_SYNC_AUTO;
    const ht_block *first_block = &t->engine->model->blocks[0];
    const ht_op *matrix = &t->engine->model->ops[first_block->first + first_block->n - 1];
    const bool apart = stands_apart(t, one, matrix->signature); /* it has its join with it */
    const int first = choose ? HT_SYNC_FINISH : HT_SYNC_AUTO, last = choose ? HT_SYNC_FLAG : HT_SYNC_AUTO;
    for (int sync = first; sync <= last; sync++) {
        cost->sync = (ht_sync)sync;
        take_steps(t, one, ALL, samples);
        keep_matrices(t);
        ht_status status = time_steps(t, 1, 0, true, &single[sync], error); /* twice: the flag learns what to expect */
        if (!status)
            status = time_steps(t, 1, 0, false, &pipelined, error);
        if (!status)
            status = time_steps(t, 1, 0, true, &single[sync], error);
        if (status)
            return status;
        const double joins = (double)t->n_steps - 1; /* in one go, the last one is waited for, too */
        starts[sync] = joins < 1 ? LEAST_JOIN : fmax(LEAST_JOIN, (single[sync] - pipelined) / joins);
        cost->joins[sync] = apart ? LEAST_JOIN : starts[sync];
        if (choose && most >= 16) {
            take_steps(t, many, ALL, 1);
            status = time_steps(t, 16, 0, true, &longer[sync], error);
        }
        if (status)
            return status;
        ht_log(HT_LOG_INFO, "lane %d: a join by %s takes %.1f us (%.1f us a token, %.1f us for 16 in a layer)",
               (int)(t->lane - t->engine->set.lanes), ht_sync_name((ht_sync)sync), cost->joins[sync] * 1e6,
               single[sync] * 1e6, longer[sync] * 1e6);
    }
    int best = first;
    for (int sync = first + 1; sync <= last; sync++)
        if (t->lane->crowded && (sync == HT_SYNC_EVENT || sync == HT_SYNC_FLAG))
            continue; /* a thread that polls takes the time from the device's own */
        else if (single[sync] / single[best] + (longer[best] > 0 ? longer[sync] / longer[best] : 1) < 2)
            best = sync;
    cost->sync = (ht_sync)best;
    cost->join = cost->joins[best];
    t->start = apart ? starts[best] : 0;
    return HT_OK;
}

/* What stands around the layers: the embedding for many tokens, too. */
static ht_status measure_around(timer *t, int signature, size_t most, ht_error *error) {
    ht_op_cost *cost = &t->lane->cost.ops[signature];
    double seconds;
    take_steps(t, ht_lane_program(t->lane, 1), signature, 1);
    ht_status status = time_steps(t, 1, 0, false, &seconds, error);
    if (status)
        return status;
    add_point(cost, 1, without_join(t, seconds), false);
    if (t->engine->model->signatures[signature].head || most < 2)
        return HT_OK;
    take_steps(t, ht_lane_program(t->lane, 2), signature, 1);
    status = time_steps(t, most, 0, false, &seconds, error);
    if (!status)
        add_point(cost, most, without_join(t, seconds), false);
    return status;
}

/* What reads keys and values, further back: from position `later` on, for n tokens. */
static ht_status measure_keys(timer *t, int signature, size_t n, size_t later, ht_error *error) {
    double first, seconds;
    take_steps(t, ht_lane_program(t->lane, n), signature, 2);
    if (t->n_steps == 0)
        return HT_OK;
    ht_status status = time_steps(t, n, 0, false, &first, error);
    if (!status)
        status = time_steps(t, n, later, false, &seconds, error);
    if (!status)
        t->lane->cost.ops[signature].per_key = fmax(0, (seconds - first) / (double)t->n_steps / (double)(n * later));
    return status;
}

/* The join, what stands around the layers, and what depends on the position. */
static ht_status measure_rest(timer *t, const size_t *lengths, size_t n_lengths, ht_error *error) {
    const ht_model *model = t->engine->model;
    const size_t most = lengths[n_lengths - 1], context = (size_t)t->engine->info.context, n = ht_min_size(64, most),
                 later = context > n ? ht_min_size(HT_LATER_POSITION, context - n) : 0;
    ht_status status = measure_joins(t, ht_lane_program(t->lane, 1), ht_lane_program(t->lane, 2), most, error);
    for (int s = 0; s < (int)model->n_signatures && !status; s++)
        if (is_around(model, s))
            status = measure_around(t, s, most, error);
    for (int s = 0; s < (int)model->n_signatures && !status && later; s++)
        if (ht_op_reads(model->signatures[s].op) & HT_BIT_KV && !ht_op_state(model->signatures[s].op, &model->hparams))
            status = measure_keys(t, s, n, later, error);
    return status;
}

/* Nothing is known of the lane, but how many tokens its matrices compute together. */
static void clear_cost(const ht_engine *engine, ht_lane *lane) {
    const size_t granule = ht_lanes_facts(&engine->set, lane->devices).granule;
    lane->cost = (ht_lane_cost){.devices = lane->devices};
    for (size_t s = 0; s < engine->model->n_signatures; s++) {
        const ht_signature *signature = &engine->model->signatures[s];
        const bool matrix = signature->op->kind == HT_OP_MATMUL || signature->op->kind == HT_OP_FFN;
        lane->cost.ops[s].granule = matrix && !signature->head ? granule : 0;
    }
}

ht_status ht_engine_time_steps(ht_engine *engine, ht_lane *lane, const ht_kv_layer *kv, const ht_step *steps,
                               size_t n_steps, size_t tokens, size_t position, double *seconds, ht_error *error) {
    timer *t;
    ht_status status = ht_alloc((void **)&t, 1, sizeof *t, "measuring", error);
    if (status)
        return status;
    *t = (timer){.engine = engine, .lane = lane, .kv = kv, .n_steps = ht_min_size(n_steps, MOST_STEPS)};
    memcpy(t->steps, steps, t->n_steps * sizeof *steps);
    status = time_steps(t, tokens, position, false, seconds, error);
    free(t);
    return status;
}

ht_status ht_engine_time_lane(ht_engine *engine, ht_lane *lane, const ht_kv_layer *kv, ht_error *error) {
    size_t lengths[HT_MAX_POINTS];
    const size_t n = list_lengths(engine, lane, lengths);
    timer *t;
    ht_status status = ht_alloc((void **)&t, 1, sizeof *t, "measuring", error);
    if (status)
        return status;
    *t = (timer){.engine = engine, .lane = lane, .kv = kv};
    clear_cost(engine, lane);
    ht_stay stay;
    ht_stay_on_cores(&engine->set, lane, &stay);
    /* keys and values stay on a device with memory of its own, as they would if it had a pass alone */
    ht_lanes_plan_transfers(&engine->set, lane);
    status = measure_rest(t, lengths, n, error);
    for (size_t i = 0; i < n && !status; i++)
        status = measure_point(t, lengths[i], error);
    const size_t n_tasks = engine->set.n_tasks;
    for (int fused = 0; fused < (int)engine->model->n_signatures; fused++)
        for (size_t i = 0; i < n && !status && engine->model->signatures[fused].op->members; i++)
            status = measure_members(t, fused, lengths[i], error);
    ht_lanes_drop_tasks(&engine->set, n_tasks);
    ht_leave_cores(&stay);
    ht_lanes_plan_transfers(&engine->set, NULL);
    lane->cost.launch = lane->cost.ops[norm_of(engine->model)].points[0].seconds;
    free(t);
    return status;
}

ht_status ht_engine_measure_lane(ht_engine *engine, ht_lane *lane, ht_error *error) {
    ht_kv_layer *kv;
    if (engine->info.emulated) {
        ht_lane_cost_by_rule(&engine->set, lane);
        return HT_OK;
    }
    ht_status status = ht_kv_create_locked(&engine->set, &kv, error);
    if (status)
        return status;
    ht_lanes_clear_ids(&engine->set);
    status = ht_engine_time_lane(engine, lane, kv, error);
    ht_kv_destroy_locked(&engine->set, kv);
    return status;
}

/* ---- lanes at the same time
 * ----------------------------------------------------------------------------------------------------- */

/* Without what reads and writes caches: a lane would read keys that another writes meanwhile. */
static void leave_out_cache(timer *t) {
    size_t n = 0;
    for (size_t i = 0; i < t->n_steps; i++)
        if (!((ht_op_reads(t->steps[i].op) | ht_op_writes(t->steps[i].op)) & HT_BIT_KV))
            t->steps[n++] = t->steps[i];
    t->n_steps = n;
}

/* How much longer than alone what took `busy` takes while the other lane computes: that was done after `other`, and what was
 * left then went as quickly as alone. */
static double slowed(double busy, double other, double alone) {
    const double rest = busy - other, beside = alone - rest; /* seconds of work, alone, that were done beside it */
    return rest <= 0 || beside < 1.0 / MOST_SLOWED * alone ? busy / alone : other / beside;
}

/* Lanes that run something side by side, to see how much slower each becomes. */
typedef struct company {
    size_t lanes[HT_MAX_LANES], n_lanes;
    size_t tokens; /* of each */
    bool norms;    /* nothing but norms, else layers */
    double alone[HT_MAX_LANES];
} company;

/* The lane's steps as a program, `again` times over. */
static ht_status repeat_steps(const timer *t, const company *c, size_t i, size_t again, ht_program *program,
                              ht_error *error) {
    const size_t n = again * t->n_steps;
    ht_status status =
        ht_grow((void **)&program->steps, &program->cap_steps, n, sizeof *program->steps, "a program", error);
    for (size_t k = 0; k < n && !status; k++) {
        ht_step *step = &program->steps[k];
        *step = t->steps[k % t->n_steps];
        step->begin = (uint32_t)(i * c->tokens); /* tokens of its own: lanes write side by side */
        step->end = (uint32_t)((i + 1) * c->tokens);
    }
    program->n_steps = status ? 0 : n;
    return status;
}

/* What the lane takes alone. */
static ht_status time_alone(company *c, size_t i, timer *t, ht_error *error) {
    const ht_program *program = ht_lane_program(t->lane, c->tokens);
    ht_stay stay;
    take_steps(t, program, c->norms ? norm_of(t->engine->model) : ALL,
               c->norms ? 2 : count_samples(t, program, c->tokens));
    leave_out_cache(t);
    ht_stay_on_cores(&t->engine->set, t->lane, &stay);
    ht_status status = time_steps(t, c->tokens, 0, false, &c->alone[i], error);
    ht_leave_cores(&stay);
    return status;
}

static ht_status prepare_company(ht_engine *engine, company *c, ht_schedule *s, const ht_kv_layer *kv,
                                 ht_error *error) {
    timer *t;
    ht_status status = ht_alloc((void **)&t, 1, sizeof *t, "measuring", error);
    double longest = 0;
    if (status)
        return status;
    s->n_lanes = c->n_lanes;
    for (int build = 0; build < 2; build++)
        for (size_t i = 0; i < c->n_lanes && !status; i++) {
            *t = (timer){.engine = engine, .lane = s->lanes[i] = &engine->set.lanes[c->lanes[i]], .kv = kv};
            if (!build) {
                status = time_alone(c, i, t, error);
                longest = fmax(longest, c->alone[i]);
                continue;
            }
            const ht_program *program = ht_lane_program(t->lane, c->tokens);
            take_steps(t, program, c->norms ? norm_of(t->engine->model) : ALL,
                       c->norms ? 2 : count_samples(t, program, c->tokens));
            leave_out_cache(t);
            status = ht_lanes_prepare_steps(&engine->set, t->steps, t->n_steps, error);
            size_t again = c->tokens == 1 || c->norms ? 8 : 1; /* long against the start */
            if (c->n_lanes > 2 || c->norms)                    /* a lane that ends sooner leaves the others alone */
                again *= (size_t)fmin(longest / c->alone[i] + 0.5, 64);
            if (!status)
                status = repeat_steps(t, c, i, again, &s->programs[i], error);
            c->alone[i] *= (double)again;
        }
    free(t);
    return status;
}

/* How many times as long as alone each lane takes beside the others. */
static ht_status run_company(ht_engine *engine, const company *c, ht_schedule *s, const ht_kv_layer *kv,
                             double together[HT_MAX_LANES], ht_error *error) {
    ht_crew_work work = {.schedule = s};
    double busy[HT_MAX_LANES];
    const ht_binding binding = {.slots = engine->set.slots,
                                .kv = kv,
                                .tokens = c->tokens,
                                .room = (size_t)engine->info.chunk,
                                .sync = engine->set.sync};
    ht_status status = HT_OK;
    for (size_t i = 0; i < c->n_lanes; i++)
        work.end[i] = s->programs[i].n_steps;
    work.binding = &binding;
    engine->passes.current = s;
    for (int run = 0; run < 7 && !status; run++) {
        status = ht_crew_run(&engine->passes, &work, busy, error);
        for (size_t i = 0; i < c->n_lanes && run; i++) { /* the least of the runs */
            double others = INFINITY; /* until the first of them has ended; what it leaves is shared by the others */
            for (size_t k = 0; k < c->n_lanes; k++)
                others = k == i ? others : fmin(others, busy[k]);
            const double beside = slowed(busy[i], others, c->alone[i]);
            together[i] = run > 1 ? fmin(together[i], beside) : beside;
        }
    }
    engine->passes.current = NULL;
    return status;
}

/* Lanes run layers, or norms, side by side: how much slower each becomes. */
static ht_status measure_company(ht_engine *engine, company *c, const ht_kv_layer *kv, ht_error *error) {
    ht_schedule *s; /* of no pass: what the engine keeps is left alone */
    double together[HT_MAX_LANES];
    ht_status status = ht_alloc((void **)&s, 1, sizeof *s, "measuring", error);
    if (status)
        return status;
    status = prepare_company(engine, c, s, kv, error);
    if (!status)
        status = run_company(engine, c, s, kv, together, error);
    for (size_t i = 0; i < HT_COUNT(s->programs); i++)
        free(s->programs[i].steps);
    free(s);
    for (size_t i = 0; i < c->n_lanes && !status; i++) {
        ht_lane_cost *cost = &engine->set.lanes[c->lanes[i]].cost;
        const size_t beside = c->n_lanes > 2 ? c->lanes[i] : c->lanes[!i];
        double *factor = &(c->norms ? cost->norms : cost->together)[beside][c->tokens > 1];
        *factor = fmin(fmax(together[i], 1), MOST_SLOWED);
        ht_log(HT_LOG_INFO, "lane %zu beside %s %zu: %s take %.2f times as long (%zu tokens)", c->lanes[i],
               c->n_lanes > 2 ? "all of" : "lane", c->n_lanes > 2 ? c->n_lanes : beside, c->norms ? "norms" : "layers",
               *factor, c->tokens);
    }
    return status;
}

/* Layers of one token and of many, and norms of many. */
static ht_status measure_lanes_together(ht_engine *engine, const size_t *lanes, size_t n_lanes, const ht_kv_layer *kv,
                                        ht_error *error) {
    static const struct {
        size_t tokens;
        bool norms;
    } rows[] = {{1, false}, {64, false}, {256, true}};
    const size_t chunk = (size_t)engine->info.chunk;
    ht_status status = HT_OK;
    for (size_t i = 0; i < HT_COUNT(rows) && !status; i++) {
        company c = {
            .n_lanes = n_lanes, .norms = rows[i].norms, .tokens = ht_min_size(rows[i].tokens, chunk / n_lanes)};
        memcpy(c.lanes, lanes, n_lanes * sizeof *lanes);
        if (c.tokens > (rows[i].tokens > 1))
            status = measure_company(engine, &c, kv, error);
    }
    return status;
}

ht_status ht_engine_time_together(ht_engine *engine, const ht_kv_layer *kv, ht_error *error) {
    const ht_lane *all = engine->set.lanes;
    size_t lanes[HT_MAX_LANES], n = 0;
    ht_cores taken = {{0}};
    ht_status status = HT_OK;
    for (size_t a = 0; a < engine->set.n_lanes; a++) {
        for (size_t b = a + 1; b < engine->set.n_lanes && !status; b++) {
            const size_t pair[2] = {a, b};
            if (!ht_cores_meet(&all[a].cores, &all[b].cores) && !all[a].lost && !all[b].lost)
                status = measure_lanes_together(engine, pair, 2, kv, error);
        }
        if (ht_cores_meet(&all[a].cores, &taken) || all[a].lost)
            continue;
        ht_cores_join(&taken, &all[a].cores);
        lanes[n++] = a;
    }
    return status || n < 3 ? status : measure_lanes_together(engine, lanes, n, kv, error);
}
