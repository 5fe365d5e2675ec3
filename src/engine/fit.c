/* The model on devices that cannot hold all of it: which operators each computes.
 *
 * Before anything is placed, a few operators of each signature are prepared on the bounded device and on the one that
 * does the rest, and timed with one token and with many; they tell what they hold, too. From these the planner
 * (src/plan/fit.c) says who computes what, so that a usual request is quickest: what is quick for its bytes stays. In a
 * mixture of experts, attention and dense matrices do, and experts, of which a token reads few, go: nobody has to name
 * them. */
#include "engine/engine.h"
#include "base/os.h"
#include "plan/fit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ENOUGH_BYTES 24000000 /* of the operators that are timed: more than caches near a core hold */
enum { MOST_SAMPLES = 48, USUAL_ANSWER = 128 /* tokens of decode in a usual request, for each piece of a prompt */ };

enum { BOUNDED, OTHER, SIDES };

typedef struct fitting {
    ht_engine *engine;
    ht_lane *lane;
    int devices[SIDES];
    const ht_kv_layer *kv;
    size_t many;              /* tokens of a piece of a prompt */
    double (*seconds)[SIDES]; /* of a usual request, by signature; infinite: it does not compute it */
    uint64_t *bytes;          /* that the bounded device holds, by signature, caches not included */
    bool ruled;               /* by options->place */
    double change;            /* of a usual request: from one device to the other */
} fitting;

/* ---- what operators take
 * ------------------------------------------------------------------------------------------------- */

/* Median seconds of one run of the steps, for a usual request. */
static ht_status time_usual(const fitting *f, const ht_step *steps, size_t n, bool head, double *seconds,
                            ht_error *error) {
    const size_t later = ht_min_size(128, f->engine->set.context - 1);
    double one = 0, many = 0;
    ht_status status = ht_engine_time_steps(f->engine, f->lane, f->kv, steps, n, 1, later, &one, error);
    if (!status && f->many > 1 && !head)
        status = ht_engine_time_steps(f->engine, f->lane, f->kv, steps, n, f->many, 0, &many, error);
    *seconds = USUAL_ANSWER * one + many;
    return status;
}

/* Some operators of the signature as steps of one device. */
static ht_status take_samples(const fitting *f, size_t signature, int side, ht_step steps[MOST_SAMPLES], size_t *n,
                              ht_error *error) {
    ht_lanes *set = &f->engine->set;
    const ht_model *model = set->model;
    const int device = f->devices[side];
    ht_status status = HT_OK;
    /* In a pass the weights of other operators drive these out of every cache. */
    uint64_t enough = 2 * ht_os_cache_bytes();
    enough = enough > ENOUGH_BYTES ? enough : ENOUGH_BYTES;
    if (side == BOUNDED && enough > set->limits[device] / 2)
        enough = set->limits[device] / 2;
    *n = 0;
    for (size_t i = 0; i < model->n_ops && *n < MOST_SAMPLES && !status; i++) {
        const ht_op *op = &model->ops[i];
        ht_slice_task *task;
        if (op->signature != (int)signature)
            continue;
        if (ht_lanes_weight_bytes(set, (size_t)device) >= enough) /* nothing else is placed yet */
            break;
        const ht_slice whole = ht_whole_slice(op);
        status = ht_lanes_task(set, device, op, &whole, &task, error);
        if (status)
            break;
        steps[(*n)++] = (ht_step){.op = op, .device = device, .slice = whole, .task = task->task};
    }
    return status;
}

static ht_status time_signature(fitting *f, size_t signature, int side, ht_error *error) {
    ht_lanes *set = &f->engine->set;
    const ht_signature *s = &set->model->signatures[signature];
    const ht_device *device = set->devices[f->devices[side]];
    ht_step steps[MOST_SAMPLES] = {0};
    size_t n = 0;
    f->seconds[signature][side] = INFINITY;
    if (s->op->members || ht_device_refuses_whole(device, s->op))
        return HT_OK;
    const size_t before = set->n_tasks;
    ht_status status = take_samples(f, signature, side, steps, &n, error);
    if (!status && side == BOUNDED && n && device->ops->task_bytes && steps[0].task)
        f->bytes[signature] = device->ops->task_bytes(steps[0].task);
    double seconds = 0;
    if (!status)
        status = time_usual(f, steps, n, s->head, &seconds, error);
    f->seconds[signature][side] = seconds / (double)(n ? n : 1);
    ht_lanes_drop_tasks(set, before);
    set->next_task = 0;
    return status;
}

/* What handing over takes: norms in turn on both devices, less what they take on each. */
static ht_status time_change(fitting *f, ht_error *error) {
    enum { TURNS = 4 };
    ht_lanes *set = &f->engine->set;
    const ht_op *norm = &set->model->ops[set->model->blocks[0].first];
    const ht_slice whole = ht_whole_slice(norm);
    ht_step steps[2 * TURNS];
    double alone[SIDES] = {0}, turns = 0;
    ht_status status = HT_OK;
    const size_t before = set->n_tasks;
    for (int side = 0; side < SIDES; side++)
        if (ht_device_refuses_whole(set->devices[f->devices[side]], norm))
            return HT_OK; /* it never computes what is between matrices: its operators' times have that in them */
    for (int side = 0; side < SIDES && !status; side++) {
        ht_slice_task *task;
        status = ht_lanes_task(set, f->devices[side], norm, &whole, &task, error);
        for (size_t i = 0; i < TURNS && !status; i++)
            steps[2 * i + (size_t)side] =
                (ht_step){.op = norm, .device = f->devices[side], .slice = whole, .task = task->task};
    }
    for (int side = 0; side < SIDES && !status; side++) {
        ht_step own[TURNS];
        for (size_t i = 0; i < TURNS; i++)
            own[i] = steps[2 * i + (size_t)side];
        status = time_usual(f, own, TURNS, false, &alone[side], error);
    }
    if (!status)
        status = time_usual(f, steps, HT_COUNT(steps), false, &turns, error);
    f->change = fmax(0, (turns - alone[BOUNDED] - alone[OTHER]) / (double)(2 * TURNS - 1));
    ht_lanes_drop_tasks(set, before);
    set->next_task = 0;
    return status;
}

static ht_status time_all(fitting *f, ht_error *error) {
    const size_t n = f->engine->model->n_signatures;
    ht_status status = HT_OK;
    for (size_t s = 0; s < n && !status; s++)
        for (int side = 0; side < SIDES && !status; side++)
            status = time_signature(f, s, side, error);
    return status ? status : time_change(f, error);
}

/* ---- who computes what
 * --------------------------------------------------------------------------------------------------- */

static ht_status no_room(const fitting *f, uint64_t limit, ht_error *error) {
    const ht_lanes *set = &f->engine->set;
    char room[32], takes[32];
    return ht_fail(error, HT_ERROR_MEMORY,
                   "%s: it may hold %s, %s takes %s with a context of %zu tokens, and no other device in use has room "
                   "for the rest%s",
                   ht_lanes_caps(set, (size_t)f->devices[BOUNDED])->name, ht_size_text(limit, room),
                   set->model->info.path, ht_size_text(ht_lanes_model_bytes(set), takes), set->context,
                   f->ruled ? ", as place says" : "");
}

/* The planner's answer as bits of ht_lanes.left. `wide` is its answer where there would be room for all: what even then
 * is the other device's, or would still fit, is left for its time. */
static void tell_left(const fitting *f, const ht_fit *fit, const bool *here, const bool *wide) {
    ht_lanes *set = &f->engine->set;
    const uint32_t bit = 1u << f->devices[BOUNDED];
    uint64_t used = fit->limit / 32; /* more than the planner's steps are */
    size_t left = 0, full = 0;
    char room[32];
    for (size_t i = 0; i < fit->n; i++)
        used += here[i] ? fit->ops[i].bytes : 0;
    for (size_t i = 0; i < fit->n; i++) {
        const uint64_t bytes = fit->ops[i].bytes;
        const bool fits = !bytes || !wide[i] || used + bytes <= fit->limit;
        if (here[i] || set->left[i].placed & bit)
            continue;
        left++;
        full += !fits;
        *(fits ? &set->left[i].slow : &set->left[i].full) |= bit;
    }
    snprintf(set->quicker[f->devices[BOUNDED]], sizeof *set->quicker, "quicker on %s",
             ht_lanes_caps(set, (size_t)f->devices[OTHER])->name);
    ht_log(HT_LOG_INFO, "%s: %zu of %zu operators are another device's, for %zu of them there is no room in %s",
           ht_lanes_caps(set, (size_t)f->devices[BOUNDED])->name, left, fit->n, full,
           ht_size_text(set->limits[f->devices[BOUNDED]], room));
}

/* The planner's answers, with the room that there is and with room for all. */
static ht_status solve(const fitting *f, const ht_fit *fit, uint64_t limit, ht_error *error) {
    bool *here = NULL, *wide = NULL;
    double seconds = 0;
    ht_fit all = *fit;
    all.limit = 0;
    for (size_t i = 0; i < fit->n; i++)
        all.limit += 2 * fit->ops[i].bytes; /* and room for what is rounded */
    ht_status status = ht_alloc((void **)&here, fit->n, sizeof *here, "placing operators", error);
    if (!status)
        status = ht_alloc((void **)&wide, fit->n, sizeof *wide, "placing operators", error);
    if (!status)
        status = ht_fit_solve(fit, here, &seconds, error);
    if (!status && !isfinite(seconds))
        status = no_room(f, limit, error);
    if (!status)
        status = ht_fit_solve(&all, wide, &seconds, error);
    if (!status)
        tell_left(f, fit, here, wide);
    free(here);
    free(wide);
    return status;
}

static uint32_t left_by(const ht_leavers *left) {
    return left->placed | left->slow | left->full;
}

/* What each operator takes on either device. */
static ht_status divide(fitting *f, uint64_t limit, ht_error *error) {
    ht_lanes *set = &f->engine->set;
    const ht_model *model = set->model;
    const ht_device_caps *caps = ht_lanes_caps(set, (size_t)f->devices[BOUNDED]);
    const uint64_t scratch = caps->unified_memory ? 0 : set->buffer_bytes;
    ht_fit fit = {.n = model->n_ops, .limit = limit > scratch ? limit - scratch : 0, .change = f->change};
    ht_fit_op *ops = NULL;
    ht_status status = ht_alloc((void **)&ops, model->n_ops, sizeof *ops, "placing operators", error);
    for (size_t i = 0; i < model->n_ops && !status; i++) {
        const ht_op *op = &model->ops[i];
        double own[SIDES];
        for (int side = 0; side < SIDES; side++)
            own[side] = left_by(&set->left[i]) >> f->devices[side] & 1 ? INFINITY : f->seconds[op->signature][side];
        /* keys and values are charged to who reads them, and who writes them is the same device's */
        const bool reads = ht_op_reads(op) & HT_BIT_KV && op->cache >= 0;
        ops[i] = (ht_fit_op){own[BOUNDED], own[OTHER],
                             f->bytes[op->signature] + (reads ? ht_lanes_cache_bytes(set, (size_t)op->cache) : 0)};
    }
    fit.ops = ops;
    if (!status)
        status = solve(f, &fit, limit, error);
    free(ops);
    return status;
}

static ht_status fit_lane(fitting *f, uint64_t limit, ht_error *error) {
    const ht_model *model = f->engine->model;
    ht_kv_layer *kv = NULL;
    ht_status status =
        ht_alloc((void **)&f->seconds, model->n_signatures, sizeof *f->seconds, "placing operators", error);
    if (!status)
        status = ht_alloc((void **)&f->bytes, model->n_signatures, sizeof *f->bytes, "placing operators", error);
    if (!status)
        status = ht_kv_create_locked(&f->engine->set, &kv, error);
    if (!status) {
        f->kv = kv;
        ht_lanes_clear_ids(&f->engine->set);
        status = time_all(f, error);
    }
    if (!status)
        status = divide(f, limit, error);
    ht_kv_destroy_locked(&f->engine->set, kv);
    free(f->seconds);
    free(f->bytes);
    return status;
}

/* ---- all of it
 * ------------------------------------------------------------------------------------------------------------- */

/* The device of the lane that does what device d leaves: one that has room for all of it, if there is one; -1: nobody
 * takes it. */
static int find_other(const ht_lanes *set, const ht_lane *lane, size_t d) {
    int found = -1;
    for (size_t other = 0; other < set->n_devices; other++) {
        if (other == d || !(lane->devices >> other & 1) || !ht_lanes_take_all(set, 1u << other))
            continue;
        if (ht_lanes_fits(set, other))
            return (int)other;
        found = found < 0 ? (int)other : found;
    }
    return found;
}

ht_status ht_engine_fit(ht_engine *engine, const ht_engine_options *options, ht_error *error) {
    ht_lanes *set = &engine->set;
    int usual[2];
    size_t n_prompts;
    const int *prompts = ht_engine_prompts(engine, usual, &n_prompts);
    size_t many = 1;
    for (size_t i = 0; i < n_prompts; i++)
        many = ht_max_size(many, ht_min_size((size_t)prompts[i], set->chunk));
    const bool ruled = options->place && *options->place;
    ht_status status = ruled ? ht_engine_place(engine, options->place, error) : HT_OK;
    if (status)
        return status;
    for (size_t l = 0; l < set->n_lanes; l++)
        for (size_t d = 0; d < set->n_devices; d++) {
            if (!(set->lanes[l].devices >> d & 1) || ht_lanes_fits(set, d))
                continue;
            fitting f = {
                .engine = engine, .lane = &set->lanes[l], .devices = {(int)d, -1}, .many = many, .ruled = ruled};
            f.devices[OTHER] = find_other(set, &set->lanes[l], d);
            if (f.devices[OTHER] < 0)
                return no_room(&f, set->limits[d], error);
            if (!set->left)
                status =
                    ht_alloc((void **)&set->left, engine->model->n_ops, sizeof *set->left, "placing operators", error);
            if (!status)
                status = fit_lane(&f, set->limits[d], error);
            if (status)
                return status;
        }
    return HT_OK;
}
