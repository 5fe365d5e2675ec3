/* Dividing a pass among lanes: what each lane's tokens cost, measured, and the causal cut that ends first.
 *
 * A lane's time for n tokens is measured on its first layers, steps run as in a pass, and scaled to all of them. Between the
 * points it is linear; a lane with static lengths only does those, so its time is a staircase of the cheapest pieces
 * (PAPER.md, GPU-1 and NPU-1). Tokens further back cost more attention: in proportion to tokens times position. */
#include "exec/exec.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define RUNS 3                    /* of each point, after one that warms up: the median counts */
#define ENOUGH_BYTES (24.0 * 1e6) /* of weights in the layers that are timed: more than caches near a core hold */
#define LATER 1024                /* position of the second point of attention */
#define LAYER_SECONDS (60e-6)     /* telling the lanes behind that a layer's keys and values are there */

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- predicting ---------------------------------------------------------------------------------------------------------- */

/* Seconds of n tokens at position 0. */
static double base_seconds(const ht_lane_cost *cost, size_t n) {
    const ht_cost_point *p = cost->points;
    size_t i = 0;
    if (n == 0)
        return 0;
    while (i + 1 < cost->n_points && p[i].tokens < n)
        i++;
    if (p[i].tokens < n) /* beyond the last one: again and again that */
        return cost->stepped ? p[i].seconds + base_seconds(cost, n - p[i].tokens)
                             : p[i].seconds * (double)n / (double)p[i].tokens;
    if (p[i].tokens == n || i == 0)
        return p[i].seconds;
    if (!cost->stepped) {
        const double share = (double)(n - p[i - 1].tokens) / (double)(p[i].tokens - p[i - 1].tokens);
        return p[i - 1].seconds + share * (p[i].seconds - p[i - 1].seconds);
    }
    const size_t rest = ht_max_size(n - p[i - 1].tokens, 2); /* a graph for one token may not be there */
    const double pieces = p[i - 1].tokens > 1 ? p[i - 1].seconds + base_seconds(cost, rest) : p[i].seconds;
    return pieces < p[i].seconds ? pieces : p[i].seconds;
}

double ht_lane_seconds(const ht_lane_cost *cost, size_t n, size_t position) {
    return base_seconds(cost, n) + cost->per_key * (double)n * (double)position;
}

/* ---- cutting ------------------------------------------------------------------------------------------------------------- */

/* Each lane in turn takes the most tokens that it does in `limit` seconds; true if that is all n. */
static bool fill(const ht_engine *engine, size_t n, size_t position, double limit, ht_cut *cut) {
    size_t begin = 0;
    memset(cut, 0, sizeof *cut);
    for (size_t l = 0; l < engine->n_lanes && begin < n; l++) {
        const ht_lane_cost *cost = &engine->lanes[l].cost;
        size_t low = 0, high = n - begin;
        while (low < high) { /* time grows with tokens */
            const size_t middle = (low + high + 1) / 2;
            if (ht_lane_seconds(cost, middle, position + begin) <= limit)
                low = middle;
            else
                high = middle - 1;
        }
        cut->tokens[l] = low;
        begin += low;
    }
    return begin == n;
}

static size_t quickest_lane(const ht_engine *engine, size_t n, size_t position) {
    size_t best = 0;
    for (size_t l = 1; l < engine->n_lanes; l++)
        if (ht_lane_seconds(&engine->lanes[l].cost, n, position) <
            ht_lane_seconds(&engine->lanes[best].cost, n, position))
            best = l;
    return best;
}

static bool any_copies(const ht_engine *engine) {
    for (size_t l = 0; l < engine->n_lanes; l++)
        if (ht_lane_copies(engine, &engine->lanes[l]))
            return true;
    return false;
}

void ht_engine_cut(const ht_engine *engine, size_t n, size_t position, size_t first, ht_cut *cut) {
    const size_t alone = quickest_lane(engine, n, position);
    double high = ht_lane_seconds(&engine->lanes[alone].cost, n, position);
    ht_cut best = {0}, trial;
    best.tokens[alone] = n;
    /* the head of every wanted token runs on the last lane: it must see the others' */
    if (engine->n_lanes > 1 && n > 1 && (first + 1 >= n || !any_copies(engine))) {
        const double join = LAYER_SECONDS * engine->model->hparams.layers;
        double low = 0;
        high -= join;
        for (int i = 0; i < 40 && high - low > 1e-4 * high; i++) {
            const double middle = (low + high) / 2;
            if (fill(engine, n, position, middle, &trial)) {
                best = trial;
                high = middle;
            } else {
                low = middle;
            }
        }
    }
    *cut = best;
}

void ht_engine_predict(const ht_engine *engine, size_t n, const ht_cut *cut, ht_plan_times *times) {
    size_t begin = 0;
    *times = (ht_plan_times){0};
    if (engine->n_lanes < 2)
        return;
    for (size_t l = 0; l < engine->n_lanes; l++) {
        const ht_lane *lane = &engine->lanes[l];
        const ht_device *first = engine->devices[__builtin_ctz(lane->devices)];
        const double seconds = ht_lane_seconds(&lane->cost, cut->tokens[l], begin);
        if (seconds > times->seconds)
            times->seconds = seconds;
        begin += cut->tokens[l];
        times->alone[times->n_alone].device = first->ops->caps(first)->name;
        times->alone[times->n_alone++].seconds = ht_lane_seconds(&lane->cost, n, 0);
    }
}

/* ---- measuring ------------------------------------------------------------------------------------------------------------ */

/* Steps of the first layers, enough for the weights to come from memory, and how many layers those are. */
static size_t timed_steps(const ht_engine *engine, const ht_plan *plan, int *layers) {
    const ht_hparams *h = &engine->model->hparams;
    double bytes = 0;
    size_t i = 0;
    for (int layer = 0; layer < h->layers && (bytes < ENOUGH_BYTES || layer < 2); layer++) {
        for (; i + HT_HEAD_STEPS < plan->n_steps && plan->steps[i].op->layer <= layer; i++) {
            const ht_op *op = plan->steps[i].op;
            if (op->kind == HT_OP_MATMUL)
                bytes += 0.5 * (double)ht_op_rows(op) * (double)ht_op_cols(op);
            else if (op->kind == HT_OP_FFN)
                bytes += 1.5 * (double)op->members[0].parts[0].rows * (double)ht_op_cols(&op->members[0]);
        }
        *layers = layer + 1;
    }
    return i;
}

static int compare(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static ht_status measure_point(ht_engine *engine, ht_lane *lane, const ht_kv_layer *kv, size_t n, size_t position,
                               double *seconds, ht_error *error) {
    const ht_run run = {.engine = engine, .lane = lane, .plan = ht_lane_plan(lane, n)};
    const ht_binding binding = {.slots = engine->slots,
                                .kv = kv,
                                .position = position,
                                .tokens = n,
                                .room = (size_t)engine->info.chunk,
                                .sync = engine->sync,
                                .joined = true};
    int layers = 1;
    const size_t end = timed_steps(engine, run.plan, &layers);
    double times[RUNS];
    ht_status status = HT_OK;
    for (int i = -1; i < RUNS && !status; i++) {
        const double begin = now();
        status = ht_run_steps(&run, 0, end, &binding, error);
        if (i >= 0)
            times[i] = now() - begin;
    }
    if (status)
        return status;
    qsort(times, RUNS, sizeof *times, compare);
    *seconds = times[RUNS / 2] * engine->model->hparams.layers / layers;
    return HT_OK;
}

/* The lengths to time: a static lane's own, else a few. */
static size_t list_lengths(const ht_engine *engine, ht_lane *lane, size_t lengths[HT_MAX_POINTS]) {
    static const size_t dynamic[] = {1, 2, 16, 32, 64, 128, 256, 512};
    const size_t chunk = (size_t)engine->info.chunk;
    size_t n = 0;
    for (size_t d = 0; d < engine->n_devices; d++) {
        const ht_device_caps *caps = engine->devices[d]->ops->caps(engine->devices[d]);
        if (!(lane->devices >> d & 1) || !caps->n_lengths)
            continue;
        lane->cost.stepped = true;
        lengths[n++] = 1;
        for (size_t i = 0; i < caps->n_lengths && n < HT_MAX_POINTS; i++)
            if (caps->lengths[i] > 1 && (size_t)caps->lengths[i] <= chunk)
                lengths[n++] = (size_t)caps->lengths[i];
        return n;
    }
    for (size_t i = 0; i < sizeof dynamic / sizeof *dynamic; i++)
        if (dynamic[i] <= chunk)
            lengths[n++] = dynamic[i];
    return n;
}

static ht_status measure_lane(ht_engine *engine, ht_lane *lane, const ht_kv_layer *kv, ht_error *error) {
    size_t lengths[HT_MAX_POINTS];
    const size_t n = list_lengths(engine, lane, lengths);
    ht_status status = HT_OK;
    for (size_t i = 0; i < n && !status; i++) {
        ht_cost_point *point = &lane->cost.points[lane->cost.n_points++];
        point->tokens = lengths[i];
        status = measure_point(engine, lane, kv, lengths[i], 0, &point->seconds, error);
        if (i && point->seconds < point[-1].seconds) /* noise: more tokens never cost less */
            point->seconds = point[-1].seconds;
        ht_log(HT_LOG_INFO, "lane %zu: %zu tokens in %.2f ms", (size_t)(lane - engine->lanes), lengths[i],
               point->seconds * 1e3);
    }
    const size_t tokens = n > 2 ? lengths[n / 2] : 1, context = (size_t)engine->info.context;
    const size_t later = context > tokens ? ht_min_size(LATER, context - tokens) : 0;
    double seconds;
    if (status || later == 0 || (status = measure_point(engine, lane, kv, tokens, later, &seconds, error)) != HT_OK)
        return status;
    const double more = seconds - base_seconds(&lane->cost, tokens);
    lane->cost.per_key = more > 0 ? more / (double)(tokens * later) : 0;
    return HT_OK;
}

ht_status ht_engine_measure_lanes(ht_engine *engine, const ht_engine_options *options, ht_error *error) {
    ht_kv_layer *kv;
    ht_status status = ht_kv_create(engine, &kv, error);
    if (status)
        return status;
    memset(engine->slots[HT_SLOT_IDS].data, 0, engine->slot_bytes[HT_SLOT_IDS]);
    for (size_t l = 0; l < engine->n_lanes && !status; l++) {
        if (options->progress &&
            !options->progress("measuring", (double)l, (double)engine->n_lanes, options->progress_user))
            status = ht_fail(error, HT_ERROR_CANCELLED, "measuring was stopped");
        else
            status = measure_lane(engine, &engine->lanes[l], kv, error);
    }
    ht_kv_destroy(engine, kv);
    return status;
}
