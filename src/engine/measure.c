/* Measuring what a lane's operators take: the cost tables that the solver works with, kept in the cache folder.
 *
 * Operators of one class are run one after the other on a few layers, so that weights come from memory as in a pass and
 * queues stay full; then whole layers, and each class is scaled so that the sum is what a layer takes. A table is found
 * again by what its times depend on: processor, devices and their versions, options, precision, shapes and types.
 */
#include "engine/engine.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define VERSION 11
#define ENOUGH_BYTES (24.0 * 1e6) /* of weights in the layers that are timed: more than caches near a core hold */
#define MOST_RUNS 5
#define ENOUGH_SECONDS 0.12 /* of runs at one point */
#define LATER 1024          /* position of the second point of attention */
#define MOST_STEPS 512
#define PACES (sizeof(ht_pace) / sizeof(double))

/* ---- timing ------------------------------------------------------------------------------------------------------------------ */

typedef struct timer {
    ht_engine *engine;
    ht_lane *lane;
    const ht_kv_layer *kv;
    ht_step steps[MOST_STEPS];
    size_t n_steps;
    int layers; /* whose steps they are */
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
static ht_status time_steps(const timer *t, size_t n, size_t position, bool apart, double *seconds, ht_error *error) {
    double times[MOST_RUNS], spent = 0;
    size_t runs = 0;
    ht_status status = run_once(t, n, position, apart, seconds, error);
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

/* ---- which steps ------------------------------------------------------------------------------------------------------------- */

static double weight_bytes(const ht_op *op) {
    if (op->kind == HT_OP_FFN)
        return weight_bytes(&op->members[0]) + weight_bytes(&op->members[2]);
    return op->kind == HT_OP_MATMUL ? 0.5 * (double)ht_op_rows(op) * (double)ht_op_cols(op) : 0;
}

static double layer_bytes(const ht_program *program, int layer) {
    double bytes = 0;
    for (size_t i = 0; i < program->n_steps; i++)
        bytes += program->steps[i].op->layer == layer ? weight_bytes(program->steps[i].op) : 0;
    return bytes;
}

/* Is this layer one of `count` that stand for all: first, last, between? Types may differ along a model. */
static bool is_sample(int layer, int count, int layers) {
    for (int i = 0; i < count; i++)
        if (layer == (count == 1 ? layers / 2 : i * (layers - 1) / (count - 1)))
            return true;
    return false;
}

/* Takes the steps of a class (HT_CLASSES: all of them) of the sampled layers. */
static void take_steps(timer *t, const ht_program *program, int class, int samples) {
    const int layers = t->engine->model->hparams.layers;
    t->n_steps = 0;
    t->layers = samples;
    for (size_t i = 0; i < program->n_steps && t->n_steps < MOST_STEPS; i++) {
        const ht_op *op = program->steps[i].op;
        const bool inside = op->layer >= 0 ? is_sample(op->layer, samples, layers) : class != HT_CLASSES;
        if (inside && (class == HT_CLASSES || (int)ht_class_of(op) == class) &&
            (class != HT_CLASS_NORM || op->layer >= 0))
            t->steps[t->n_steps++] = program->steps[i];
    }
}

static int count_samples(const timer *t, const ht_program *program, size_t n) {
    const int layers = t->engine->model->hparams.layers;
    int samples = 2;
    while (samples < layers && samples < 8 && n < 64 && samples * layer_bytes(program, 0) < ENOUGH_BYTES)
        samples++;
    return samples < layers ? samples : layers;
}

/* ---- one lane ------------------------------------------------------------------------------------------------------------------ */

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
static ht_status warm(const timer *t, size_t n, ht_error *error) {
    ht_status status = HT_OK;
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

static void add_point(ht_class_cost *cost, size_t n, double seconds, bool stepped) {
    ht_cost_point *p = &cost->points[cost->n_points];
    if (cost->n_points == HT_MAX_POINTS)
        return;
    cost->stepped |= stepped;
    p->tokens = n;
    p->seconds = cost->n_points && seconds < p[-1].seconds ? p[-1].seconds : seconds; /* noise: more never cost less */
    cost->n_points++;
}

/* All classes of a layer at one number of tokens. */
static ht_status measure_point(timer *t, size_t n, ht_error *error) {
    const ht_program *program = ht_lane_program(t->lane, n);
    const int samples = count_samples(t, program, n);
    double seconds[HT_CLASSES] = {0}, sum = 0, layer = 0;
    size_t count[HT_CLASSES] = {0};
    take_steps(t, program, HT_CLASSES, samples);
    ht_status status = warm(t, n, error);
    if (!status)
        status = time_steps(t, n, 0, false, &layer, error);
    layer /= samples;
    for (int c = HT_CLASS_NORM; c < HT_CLASS_LM_HEAD && !status; c++) {
        take_steps(t, program, c, samples);
        count[c] = t->n_steps;
        if (t->n_steps == 0)
            continue;
        status = time_steps(t, n, 0, false, &seconds[c], error);
        seconds[c] /= (double)t->n_steps;
        sum += seconds[c] * (double)count[c] / samples;
    }
    if (status)
        return status;
    const double scale = fmin(fmax(layer / sum, 0.6), 1.7);
    const bool graphs = ht_lanes_facts(&t->engine->set, t->lane->devices).static_caps;
    for (int c = HT_CLASS_NORM; c < HT_CLASS_LM_HEAD; c++)
        if (count[c]) {
            take_steps(t, program, c, samples);
            const ht_device *device = t->engine->set.devices[t->steps[0].device];
            add_point(&t->lane->cost.classes[c], n, seconds[c] * scale, graphs && device->ops->caps(device)->n_lengths);
        }
    ht_log(HT_LOG_INFO, "lane %d: %zu tokens, a layer in %.1f us (parts %.1f us)",
           (int)(t->lane - t->engine->set.lanes), n, layer * 1e6, sum * 1e6);
    return HT_OK;
}

/* The steps of one part of the feed-forward blocks that the lane computes as one: member 0, gate and up, or 2, down. None: it
 * has no such blocks, or only where any number of rows can be asked for. */
static ht_status take_members(timer *t, const ht_program *program, int member, int samples, ht_error *error) {
    ht_status status = HT_OK;
    size_t n = 0;
    take_steps(t, program, HT_CLASS_FFN, samples);
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

/* Where static graphs compute a feed-forward block as one, its matrices may still be better cut apart: a device that is quick
 * with one of them and slow with the other takes more of the first. Where there is no room for their graphs they are not. */
static ht_status measure_members(timer *t, size_t n, ht_error *error) {
    static const struct {
        int member;
        ht_class class;
    } parts[] = {{0, HT_CLASS_GATE_UP}, {2, HT_CLASS_DOWN}};
    const ht_program *program = ht_lane_program(t->lane, n);
    const int samples = count_samples(t, program, n);
    double seconds[HT_COUNT(parts)];
    if (n < 2 || !(t->engine->passes.policy.cuts & (HT_CUT_ROWS | HT_CUT_HYBRID)))
        return HT_OK;
    for (size_t i = 0; i < HT_COUNT(parts); i++) {
        ht_status status = take_members(t, program, parts[i].member, samples, error);
        if (!status)
            status = warm(t, n, error);
        if (status == HT_ERROR_MEMORY || status == HT_ERROR_UNSUPPORTED || (!status && t->n_steps == 0))
            return HT_OK;
        if (!status)
            status = time_steps(t, n, 0, false, &seconds[i], error);
        if (status)
            return status;
        seconds[i] /= (double)t->n_steps;
    }
    for (size_t i = 0; i < HT_COUNT(parts); i++)
        add_point(&t->lane->cost.classes[parts[i].class], n, seconds[i], true);
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

/* What a join costs by each way of waiting: single tokens' steps with a join after each, against all in one go. The way
 * that makes such steps and longer ones end soonest is what the lane will use, unless one was asked for: polling, for one,
 * is quick to see the end of a short kernel, and takes a core from the long ones of a device that computes on it. */
static ht_status measure_joins(timer *t, const ht_program *one, const ht_program *many, size_t most, ht_error *error) {
    ht_lane_cost *cost = &t->lane->cost;
    double single[HT_SYNC_FLAG + 1], longer[HT_SYNC_FLAG + 1] = {0}, pipelined;
    take_steps(t, one, HT_CLASSES, count_samples(t, one, 1));
    const bool choose = has_queue(t) && t->engine->set.sync == HT_SYNC_AUTO;
    const int first = choose ? HT_SYNC_FINISH : HT_SYNC_AUTO, last = choose ? HT_SYNC_FLAG : HT_SYNC_AUTO;
    for (int sync = first; sync <= last; sync++) {
        cost->sync = (ht_sync)sync;
        take_steps(t, one, HT_CLASSES, count_samples(t, one, 1));
        ht_status status = time_steps(t, 1, 0, true, &single[sync], error); /* twice: the flag learns what to expect */
        if (!status)
            status = time_steps(t, 1, 0, false, &pipelined, error);
        if (!status)
            status = time_steps(t, 1, 0, true, &single[sync], error);
        if (status)
            return status;
        cost->joins[sync] = fmax(0.2e-6, (single[sync] - pipelined) / (double)t->n_steps);
        if (choose && most >= 16) {
            take_steps(t, many, HT_CLASSES, 1);
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
    return HT_OK;
}

/* What stands around the layers, the join, attention further back. */
static ht_status measure_rest(timer *t, const size_t *lengths, size_t n_lengths, ht_error *error) {
    static const ht_class around[] = {HT_CLASS_EMBED, HT_CLASS_LM_HEAD, HT_CLASS_ARGMAX};
    ht_lane_cost *cost = &t->lane->cost;
    const ht_program *one = ht_lane_program(t->lane, 1), *many = ht_lane_program(t->lane, 2);
    const size_t most = lengths[n_lengths - 1];
    double seconds;
    ht_status status = HT_OK;
    for (size_t i = 0; i < HT_COUNT(around) && !status; i++) {
        take_steps(t, one, around[i], 1);
        status = time_steps(t, 1, 0, false, &seconds, error);
        add_point(&cost->classes[around[i]], 1, seconds, false);
        if (around[i] != HT_CLASS_EMBED || status || most < 2)
            continue;
        take_steps(t, many, around[i], 1);
        status = time_steps(t, most, 0, false, &seconds, error);
        add_point(&cost->classes[around[i]], most, seconds, false);
    }
    if (!status)
        status = measure_joins(t, one, many, most, error);
    if (status)
        return status;
    const size_t context = (size_t)t->engine->info.context, n = ht_min_size(64, most);
    const size_t later = context > n ? ht_min_size(LATER, context - n) : 0;
    take_steps(t, n > 1 ? many : one, HT_CLASS_ATTENTION, 2);
    if (later == 0 || t->n_steps == 0)
        return HT_OK;
    double first;
    status = time_steps(t, n, 0, false, &first, error);
    if (!status)
        status = time_steps(t, n, later, false, &seconds, error);
    if (!status)
        cost->per_key = fmax(0, (seconds - first) / (double)t->n_steps / (double)(n * later));
    return status;
}

static ht_status measure_lane(ht_engine *engine, ht_lane *lane, const ht_kv_layer *kv, ht_error *error) {
    size_t lengths[HT_MAX_POINTS];
    const size_t n = list_lengths(engine, lane, lengths);
    timer *t;
    ht_status status = ht_alloc((void **)&t, 1, sizeof *t, "measuring", error);
    if (status)
        return status;
    *t = (timer){.engine = engine, .lane = lane, .kv = kv};
    lane->cost =
        (ht_lane_cost){.devices = lane->devices, .granule = ht_lanes_facts(&engine->set, lane->devices).granule};
    ht_stay stay;
    ht_stay_on_cores(&engine->set, lane, &stay);
    /* keys and values stay on a device with memory of its own, as they would if it had a pass alone */
    ht_lanes_plan_transfers(&engine->set, lane);
    status = measure_rest(t, lengths, n, error);
    for (size_t i = 0; i < n && !status; i++)
        status = measure_point(t, lengths[i], error);
    const size_t n_tasks = engine->set.n_tasks;
    for (size_t i = 0; i < n && !status; i++)
        status = measure_members(t, lengths[i], error);
    ht_lanes_drop_tasks(&engine->set, n_tasks);
    ht_leave_cores(&stay);
    ht_lanes_plan_transfers(&engine->set, NULL);
    lane->cost.launch = lane->cost.classes[HT_CLASS_NORM].points[0].seconds;
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
    memset(engine->set.slots[HT_SLOT_IDS].data, 0, engine->set.slot_bytes[HT_SLOT_IDS]);
    status = measure_lane(engine, lane, kv, error);
    ht_kv_destroy_locked(&engine->set, kv);
    return status;
}

/* ---- lanes at the same time ----------------------------------------------------------------------------------------------------- */

/* Without ROPE and ATTENTION, in which a lane would read keys that another writes meanwhile. */
static void leave_out_cache(timer *t) {
    size_t n = 0;
    for (size_t i = 0; i < t->n_steps; i++)
        if (t->steps[i].op->kind != HT_OP_ROPE && t->steps[i].op->kind != HT_OP_ATTENTION)
            t->steps[n++] = t->steps[i];
    t->n_steps = n;
}

/* How much longer than alone what took `busy` takes while the other lane computes: that was done after `other`, and what was
 * left then went as quickly as alone. */
static double slowed(double busy, double other, double alone) {
    const double rest = busy - other, beside = alone - rest; /* seconds of work, alone, that were done beside it */
    return rest <= 0 || beside < 0.1 * alone ? busy / alone : other / beside;
}

/* Two lanes run layers side by side, without waiting for each other: how much slower each becomes. */
static ht_status measure_together(ht_engine *engine, size_t a, size_t b, const ht_kv_layer *kv, size_t n,
                                  ht_error *error) {
    ht_schedule *s = &engine->passes.schedules[0];
    const size_t pair[2] = {a, b};
    double alone[2], busy[2], together[2] = {0, 0};
    size_t first[2] = {0, 0}, end[2];
    timer *t;
    ht_status status = ht_alloc((void **)&t, 1, sizeof *t, "measuring", error);
    if (status)
        return status;
    s->n_lanes = 2;
    for (size_t i = 0; i < 2 && !status; i++) {
        const ht_program *program = ht_lane_program(&engine->set.lanes[pair[i]], n);
        *t = (timer){.engine = engine, .lane = &engine->set.lanes[pair[i]], .kv = kv};
        take_steps(t, program, HT_CLASSES, count_samples(t, program, n));
        leave_out_cache(t);
        s->lanes[i] = &engine->set.lanes[pair[i]];
        ht_stay stay;
        ht_stay_on_cores(&engine->set, s->lanes[i], &stay);
        status = time_steps(t, n, 0, false, &alone[i], error);
        ht_leave_cores(&stay);
        end[i] = s->programs[i].n_steps = 0;
        for (int again = 0; again < (n == 1 ? 8 : 1); again++) /* long against the start */
            for (size_t k = 0; k < t->n_steps && !status; k++) {
                status = ht_grow((void **)&s->programs[i].steps, &s->programs[i].cap_steps, end[i] + 1,
                                 sizeof *s->programs[i].steps, "a program", error);
                if (status)
                    break;
                ht_step *step = &s->programs[i].steps[end[i]++];
                *step = t->steps[k];
                step->begin = (uint32_t)(i * n); /* tokens of its own: lanes write side by side */
                step->end = (uint32_t)(i * n + n);
            }
        s->programs[i].n_steps = end[i];
        alone[i] *= (double)end[i] / (double)(t->n_steps ? t->n_steps : 1);
    }
    free(t);
    const ht_binding binding = {.slots = engine->set.slots,
                                .kv = kv,
                                .tokens = n,
                                .room = (size_t)engine->info.chunk,
                                .sync = engine->set.sync};
    engine->passes.current = s;
    for (int run = 0; run < 7 && !status; run++) {
        status = ht_crew_run(engine->passes.crew, &engine->passes, s, first, end, &binding, 0, NULL, busy, error);
        for (size_t i = 0; i < 2 && run; i++) { /* the least of the runs */
            const double beside = slowed(busy[i], busy[1 - i], alone[i]);
            together[i] = together[i] > 0 ? fmin(together[i], beside) : beside;
        }
    }
    engine->passes.current = NULL;
    for (size_t i = 0; i < 2 && !status; i++) {
        double *factor = &engine->set.lanes[pair[i]].cost.together[n > 1];
        *factor = fmax(*factor, fmin(fmax(together[i], 1), 3));
        ht_log(HT_LOG_INFO, "lane %zu beside lane %zu: %.2f times as long (%zu tokens)", pair[i], pair[1 - i], *factor,
               n);
    }
    return status;
}

static ht_status measure_pairs(ht_engine *engine, const ht_kv_layer *kv, ht_error *error) {
    ht_status status = HT_OK;
    for (size_t a = 0; a < engine->set.n_lanes; a++)
        for (size_t b = a + 1; b < engine->set.n_lanes; b++)
            for (int many = 0; many < 2 && !status; many++) {
                const size_t n = many ? ht_min_size(64, (size_t)engine->info.chunk / 2) : 1;
                if (engine->set.lanes[a].lost || engine->set.lanes[b].lost)
                    continue;
                if (!ht_cores_meet(&engine->set.lanes[a].cores, &engine->set.lanes[b].cores) && n > (size_t)many &&
                    2 * n <= (size_t)engine->info.chunk)
                    status = measure_together(engine, a, b, kv, n, error);
            }
    return status;
}

/* ---- keeping ---------------------------------------------------------------------------------------------------------------------- */

/* All that the times of the lanes depend on. */
static ht_status describe(const ht_engine *engine, ht_text *key, ht_error *error) {
    const ht_model *m = engine->model;
    const ht_hparams *h = &m->hparams;
    ht_status status = ht_text_printf(key, error, "%s %d %d/%d/%d %d %d; %s %d; chunk %d context %d kv %d sync %d;",
                                      ht_version(), h->layers, h->heads, h->kv_heads, h->head_dim, h->feed_forward,
                                      h->embedding, m->info.architecture, h->vocabulary, engine->info.chunk,
                                      engine->info.context < LATER ? engine->info.context : LATER,
                                      (int)engine->info.kv_type, (int)engine->set.sync);
    for (size_t i = 0; i < m->n_ops && !status; i++)
        for (int p = 0; p < m->ops[i].n_parts && !status; p++)
            status = ht_text_printf(key, error, "%d", (int)m->ops[i].parts[p].type->type);
    for (size_t l = 0; l < engine->set.n_lanes && !status; l++) {
        status = ht_text_printf(key, error, ";");
        for (size_t d = 0; d < engine->set.n_devices && !status; d++) {
            const ht_device_caps *caps = engine->set.devices[d]->ops->caps(engine->set.devices[d]);
            char cores[HT_MAX_CORES];
            ht_cores_print(&caps->cores, cores, sizeof cores);
            if (engine->set.lanes[l].devices >> d & 1)
                status = ht_text_printf(key, error, " %s (%s, %s) cores %s lengths %zu precision %d threads %d,",
                                        caps->name, caps->runtime, caps->description, cores, caps->n_lengths,
                                        (int)engine->info.precision, engine->info.threads);
        }
    }
    return status;
}

static json_t *cost_json(const ht_lane_cost *cost) {
    json_t *classes = json_object();
    for (int c = 0; c < HT_CLASSES; c++) {
        json_t *points = json_array();
        for (size_t i = 0; i < cost->classes[c].n_points; i++)
            json_array_append_new(points, json_pack("[I, f]", (json_int_t)cost->classes[c].points[i].tokens,
                                                    cost->classes[c].points[i].seconds * 1e6));
        json_object_set_new(classes, ht_class_name((ht_class)c),
                            json_pack("{s:b, s:o}", "stepped", cost->classes[c].stepped, "tokens_us", points));
    }
    return json_pack("{s:o, s:I, s:f, s:f, s:f, s:[f, f], s:s, s:[f, f, f, f]}", "classes", classes, "granule",
                     (json_int_t)cost->granule, "attention_us_per_token_and_key", cost->per_key * 1e6, "launch_us",
                     cost->launch * 1e6, "join_us", cost->join * 1e6, "together", cost->together[0], cost->together[1],
                     "sync", ht_sync_name(cost->sync), "joins_us", cost->joins[1] * 1e6, cost->joins[2] * 1e6,
                     cost->joins[3] * 1e6, cost->joins[4] * 1e6);
}

static bool read_cost(const json_t *json, ht_lane_cost *cost) {
    *cost = (ht_lane_cost){0};
    const json_t *classes = json_object_get(json, "classes"), *together = json_object_get(json, "together");
    for (int c = 0; c < HT_CLASSES; c++) {
        const json_t *one = json_object_get(classes, ht_class_name((ht_class)c));
        const json_t *points = json_object_get(one, "tokens_us");
        cost->classes[c].stepped = json_is_true(json_object_get(one, "stepped"));
        for (size_t i = 0; i < json_array_size(points) && i < HT_MAX_POINTS; i++) {
            const json_t *p = json_array_get(points, i);
            const json_int_t tokens = json_integer_value(json_array_get(p, 0));
            const double us = json_number_value(json_array_get(p, 1));
            if (tokens < 1 || !(us >= 0) || (i && (size_t)tokens <= cost->classes[c].points[i - 1].tokens))
                return false;
            cost->classes[c].points[cost->classes[c].n_points++] = (ht_cost_point){(size_t)tokens, us * 1e-6};
        }
    }
    const json_int_t granule = json_integer_value(json_object_get(json, "granule"));
    cost->granule = granule > 0 && granule <= 1024 ? (size_t)granule : 0;
    cost->per_key = json_number_value(json_object_get(json, "attention_us_per_token_and_key")) * 1e-6;
    cost->launch = json_number_value(json_object_get(json, "launch_us")) * 1e-6;
    cost->join = json_number_value(json_object_get(json, "join_us")) * 1e-6;
    const char *sync = json_string_value(json_object_get(json, "sync"));
    for (int i = HT_SYNC_AUTO; sync && i <= HT_SYNC_FLAG; i++)
        if (!strcmp(sync, ht_sync_name((ht_sync)i)))
            cost->sync = (ht_sync)i;
    for (size_t i = 0; i < HT_SYNC_FLAG; i++)
        cost->joins[i + 1] = json_number_value(json_array_get(json_object_get(json, "joins_us"), i)) * 1e-6;
    for (size_t i = 0; i < 2; i++)
        cost->together[i] = json_number_value(json_array_get(together, i));
    return cost->classes[HT_CLASS_NORM].n_points > 0 && cost->classes[HT_CLASS_LM_HEAD].n_points > 0;
}

static bool table_path(const ht_text *key, char *path, size_t capacity) {
    char name[64];
    snprintf(name, sizeof name, "plan/%016llx.json", (unsigned long long)ht_hash(HT_HASH_START, key->data, key->bytes));
    return ht_cache_path(name, path, capacity, NULL) == HT_OK;
}

static json_t *learnt_json(const ht_engine *engine) {
    json_t *list = json_array();
    for (size_t i = 0; i < HT_SCHEDULES; i++) {
        const ht_schedule *s = &engine->passes.schedules[i];
        json_t *pace = json_array();
        for (size_t k = 0; k < PACES; k++)
            json_array_append_new(pace, json_real(((const double *)&s->usual)[k]));
        if (s->tokens && s->tried)
            json_array_append_new(list,
                                  json_pack("{s:I, s:I, s:I, s:O}", "tokens", (json_int_t)s->tokens, "position",
                                            (json_int_t)s->position, "wanted", (json_int_t)s->wanted, "pace", pace));
        json_decref(pace);
    }
    return list;
}

/* What an earlier process learnt; what makes no sense is left out. */
static void read_learnt(ht_engine *engine, const json_t *list) {
    for (size_t i = 0; i < json_array_size(list) && i < HT_SCHEDULES; i++) {
        const json_t *one = json_array_get(list, i), *pace = json_object_get(one, "pace");
        const json_int_t n = json_integer_value(json_object_get(one, "tokens")),
                         position = json_integer_value(json_object_get(one, "position")),
                         wanted = json_integer_value(json_object_get(one, "wanted"));
        bool good = n > 0 && n <= engine->info.chunk && position >= 0 && wanted >= 0 && wanted <= n &&
                    json_array_size(pace) == PACES;
        for (size_t k = 0; k < PACES && good; k++) {
            const double value = json_number_value(json_array_get(pace, k));
            good = value >= 0.2 && value <= 10;
        }
        if (!good)
            continue;
        ht_schedule *s = ht_passes_find_schedule(&engine->passes, (size_t)n, (size_t)position, (size_t)wanted);
        s->tried = true;
        for (size_t k = 0; k < PACES; k++)
            ((double *)&s->usual)[k] = json_number_value(json_array_get(pace, k));
        s->pace = s->usual;
    }
}

/* True: every lane has its table. A file that is not of this key, or is damaged, is as good as none. */
static bool load_tables(ht_engine *engine, const ht_text *key) {
    char path[1024];
    if (!table_path(key, path, sizeof path))
        return false;
    json_t *root = json_load_file(path, 0, NULL);
    const char *own = json_string_value(json_object_get(root, "key"));
    bool good = own && !strcmp(own, key->data) && json_integer_value(json_object_get(root, "version")) == VERSION;
    for (size_t l = 0; l < engine->set.n_lanes && good; l++) {
        good = read_cost(json_array_get(json_object_get(root, "lanes"), l), &engine->set.lanes[l].cost);
        engine->set.lanes[l].cost.devices = engine->set.lanes[l].devices;
    }
    if (good)
        read_learnt(engine, json_object_get(root, "learnt"));
    if (root && !good)
        ht_log(HT_LOG_INFO, "%s: of another version or damaged: measuring anew", path);
    json_decref(root);
    return good;
}

static void save_tables(const ht_engine *engine, const ht_text *key) {
    char path[1024];
    json_t *lanes = json_array();
    for (size_t l = 0; l < engine->set.n_lanes; l++)
        json_array_append_new(lanes, cost_json(&engine->set.lanes[l].cost));
    json_t *root = json_pack("{s:i, s:s, s:o, s:o}", "version", VERSION, "key", key->data, "lanes", lanes, "learnt",
                             learnt_json(engine));
    char *text = root ? json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(9)) : NULL;
    ht_error error;
    if (text && table_path(key, path, sizeof path) && ht_file_write(path, text, strlen(text), &error))
        ht_log(HT_LOG_WARN, "%s", error.text);
    free(text);
    json_decref(root);
}

ht_status ht_engine_measure(ht_engine *engine, const ht_engine_options *options, ht_error *error) {
    ht_text key = {0};
    ht_kv_layer *kv = NULL;
    bool whole = true; /* every device of every lane was measured: worth keeping */
    if (engine->set.n_lanes < 2)
        return HT_OK;
    for (size_t l = 0; l < engine->set.n_lanes && engine->info.emulated; l++)
        ht_lane_cost_by_rule(&engine->set, &engine->set.lanes[l]);
    if (engine->info.emulated)
        return HT_OK;
    ht_status status = describe(engine, &key, error);
    const bool kept = !engine->set.time; /* virtual time costs none: simulated lanes are measured anew */
    if (!status && kept && !options->measure && load_tables(engine, &key)) {
        ht_text_free(&key);
        return HT_OK;
    }
    if (!status)
        status = ht_kv_create(&engine->set, &kv, error);
    memset(engine->set.slots[HT_SLOT_IDS].data, 0, engine->set.slot_bytes[HT_SLOT_IDS]);
    for (size_t l = 0; l < engine->set.n_lanes && !status; l++) {
        if (options->progress &&
            !options->progress("measuring devices", (double)l, (double)engine->set.n_lanes + 1, options->progress_user))
            status = ht_fail(error, HT_ERROR_CANCELLED, "measuring was stopped");
        else
            status = measure_lane(engine, &engine->set.lanes[l], kv, error);
        if (status == HT_ERROR_DEVICE || status == HT_ERROR_MEMORY) { /* graphs that do not compile, or find no room */
            const int device = ht_lanes_facts(&engine->set, engine->set.lanes[l].devices).static_device;
            if (device >= 0)
                atomic_fetch_or(&engine->set.failed, 1u << device);
            ht_log(HT_LOG_WARN, "%s", error ? error->text : "a device could not be measured");
            whole = false;
            if (ht_engine_recover(engine)) /* measures what is left of the lane */
                status = HT_OK;
        }
    }
    while (!status && (status = measure_pairs(engine, kv, error)) == HT_ERROR_DEVICE && ht_engine_recover(engine)) {
        whole = false;
        status = HT_OK; /* once more, with those that are left */
    }
    if (kv)
        ht_kv_destroy(&engine->set, kv);
    if (!status && whole && kept)
        save_tables(engine, &key);
    ht_text_free(&key);
    return status;
}

void ht_engine_keep_learnt(const ht_engine *engine) {
    ht_text key = {0};
    bool all = !engine->set.time && !engine->info.emulated; /* as the tables; a lane that was lost is in none */
    for (size_t l = 0; l < engine->set.n_lanes; l++)
        all &= !engine->set.lanes[l].lost && engine->set.lanes[l].cost.devices == engine->set.lanes[l].devices;
    if (all && describe(engine, &key, NULL) == HT_OK)
        save_tables(engine, &key);
    ht_text_free(&key);
}
