/* What single devices do, and two at once, measured through the seam alone: the tables of the profile.
 *
 * A product is prepared several times, each a copy of the weights, and the copies take turns, so that weights come from memory
 * as they do in a model. A run is some submits and one wait; a point is the median of some runs. Devices that compute in
 * their caller run on a thread that stays on their cores, as they do in an engine's lane. */
#include "profile/characterise.h"

#include "device/common.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_COPIES 64
#define MOST_TOKENS 512
#define MOST_LENGTHS 24
#define RUNS 5                 /* of each point: the median counts; */
#define FEW_RUNS 3             /* in haste, of those longer than this: */
#define LONG_RUN 0.02          /* seconds */
#define FEW_WEIGHTS (4u << 20) /* in haste, of the matrices whose proportions are compared */
#define MOST_JOINS 1000
#define MOST_PASSES 256
#define BUSY 20            /* tasks before the one that is waited for */
#define IDLE_SECONDS 0.005 /* until a queue that ran empty counts as idle */
#define FEW_GRAPHS 2     /* copies on static graphs: each is built for each length, and many tokens read weights once */
#define MEMORY_ROWS 4096 /* of the matrices that BANDWIDTH reads; */
#define MEMORY_COLS 4096
#define DISCRETE_ROWS 16384 /* of those for devices with memory of their own */

enum { IN, OUT }; /* slots: there is no model */

typedef struct product { /* one copy of its weights */
    ht_op op;
    char name[16];
    ht_task *task;
} product;

typedef struct rig { /* an open device, and what runs on it */
    ht_profiler *p;
    int index; /* of result->devices */
    ht_device *device;
    const ht_device_ops *ops;
    const ht_device_caps *caps;
    ht_clock *clock;
    product *products; /* [MOST_COPIES] */
    size_t n, next;
    void *pages[2]; /* input and output */
    size_t page_bytes[2];
    ht_view slots[HT_MAX_SLOTS];
    size_t room;  /* rows of both */
    ht_stay stay; /* of this thread, on the device's cores */
} rig;

static bool is_quick(const rig *r) {
    return r->p->options->quick;
}

static ht_status add_point(ht_profiler *p, const ht_profile_point *point, ht_error *error) {
    ht_profile_result *result = p->result;
    ht_status status = ht_grow((void **)&result->points, &p->point_capacity, result->n_points + 1,
                               sizeof *result->points, "the profile", error);
    if (!status)
        result->points[result->n_points++] = *point;
    return status;
}

/* ---- a device and its products ------------------------------------------------------------------------------------------- */

/* `more`: an option besides those of the device's name, or "". */
static ht_status open_rig(ht_profiler *p, int index, const char *more, rig *r, ht_error *error) {
    char spec[sizeof p->result->devices->spec + 32];
    snprintf(spec, sizeof spec, "%s%s%s", p->result->devices[index].spec, *more ? ":" : "", more);
    const ht_device_options options = {.precision = p->options->precision,
                                       .hparams = &p->model->hparams,
                                       .max_tokens = MOST_TOKENS,
                                       .max_context = 64,
                                       .machine = &p->machine,
                                       .made_up = true}; /* what is computed is of no interest */
    *r = (rig){.p = p, .index = index};
    ht_status status = ht_alloc((void **)&r->products, MOST_COPIES, sizeof *r->products, "the profile", error);
    if (!status)
        status = ht_device_open(spec, &options, &r->device, error);
    if (status)
        return status;
    r->ops = r->device->ops;
    r->caps = r->ops->caps(r->device);
    r->clock = ht_device_clock(r->device);
    ht_stay_on(r->caps->runs_in_caller && !r->clock ? &r->caps->cores : NULL, &r->stay);
    return HT_OK;
}

static void drop_products(rig *r) {
    while (r->n)
        r->ops->release(r->device, r->products[--r->n].task);
    r->next = 0;
}

static void drop_pages(rig *r) {
    for (int i = 0; i < 2; i++) {
        if (r->pages[i] && r->ops->forget)
            r->ops->forget(r->device, r->pages[i]);
        if (r->pages[i])
            ht_pages_free(r->pages[i], r->page_bytes[i]);
        r->pages[i] = NULL;
    }
}

static void close_rig(rig *r) {
    if (r->device) {
        drop_products(r);
        drop_pages(r);
        r->ops->close(r->device);
    }
    ht_leave_cores(&r->stay);
    free(r->products);
    *r = (rig){0};
}

/* Slots for the products, dense, with room for `tokens`. */
static ht_status make_slots(rig *r, size_t tokens, ht_error *error) {
    const ht_op *op = &r->products[0].op;
    const size_t widths[2] = {ht_op_cols(op), ht_op_rows(op)};
    const ht_slot slots[2] = {op->in, op->out};
    drop_pages(r);
    r->room = tokens;
    for (int i = 0; i < 2; i++) {
        r->page_bytes[i] = ht_round_up(tokens * widths[i] * sizeof(float), 4096);
        r->pages[i] = ht_pages_alloc(r->page_bytes[i]);
        if (!r->pages[i])
            return ht_fail(error, HT_ERROR_MEMORY, "the profile: no memory for %zu bytes", r->page_bytes[i]);
        float *values = r->pages[i];
        for (size_t k = 0; k < tokens * widths[i]; k++)
            values[k] = (float)(k * 2654435761u % 65536) / 32768 - 1;
        r->slots[slots[i]] = (ht_view){values, widths[i]};
        ht_status status = r->ops->import ? r->ops->import(r->device, values, r->page_bytes[i], error) : HT_OK;
        if (status)
            return status;
    }
    return HT_OK;
}

static ht_status add_product(rig *r, const ht_op *op, const ht_slice *slice, ht_error *error) {
    product *made = &r->products[r->n];
    made->op = *op;
    made->op.in = IN;
    made->op.out = OUT;
    made->op.aux = HT_SLOT_NONE;
    if (!op->parts[0].data) { /* made-up weights are told apart by their names */
        snprintf(made->name, sizeof made->name, "w%zu", r->n);
        made->op.parts[0].name = made->name;
    }
    ht_status status = r->ops->prepare(r->device, &made->op, slice, &made->task, error);
    r->n += !status;
    return status;
}

/* Bytes of weights that no cache holds. */
static size_t enough_bytes(const rig *r) {
    const size_t scale = r->caps->unified_memory ? 1 : 4;
    return scale * ((size_t)(is_quick(r) ? 96 : 256) << 20);
}

static size_t file_bytes(const ht_op *op) {
    size_t bytes = 0;
    for (int i = 0; i < op->n_parts; i++)
        bytes += op->parts[i].rows * op->parts[i].row_bytes;
    return bytes;
}

bool ht_profile_alike(const ht_op *a, const ht_op *b) {
    if (a->kind != HT_OP_MATMUL || b->kind != HT_OP_MATMUL || a->n_parts != b->n_parts)
        return false;
    for (int i = 0; i < a->n_parts; i++)
        if (a->parts[i].type != b->parts[i].type || a->parts[i].rows != b->parts[i].rows ||
            a->parts[i].cols != b->parts[i].cols || !a->bias[i] != !b->bias[i])
            return false;
    return true;
}

/* Copies of model->ops[first], made of all layers' weights in turn. */
static ht_status fill_from_model(rig *r, size_t first, const ht_slice *slice, size_t most, ht_error *error) {
    const ht_model *model = r->p->model;
    const ht_op *op = &model->ops[first];
    size_t bytes = 0;
    ht_status status = HT_OK;
    drop_products(r);
    for (size_t i = first; r->n < most && bytes < enough_bytes(r) && !status;
         i = i + 1 < model->n_ops ? i + 1 : first) {
        if (!ht_profile_alike(op, &model->ops[i]))
            continue;
        status = add_product(r, &model->ops[i], slice, error);
        bytes += file_bytes(op);
    }
    return status ? status : make_slots(r, MOST_TOKENS, error);
}

/* Copies of a made-up matrix of the model's own type. */
static ht_status fill_made_up(rig *r, size_t rows, size_t cols, size_t most, size_t tokens, ht_error *error) {
    const ht_type_traits *type = NULL;
    for (size_t i = 0; i < r->p->model->n_ops && !type; i++)
        if (r->p->model->ops[i].kind == HT_OP_MATMUL)
            type = r->p->model->ops[i].parts[0].type;
    if (!type)
        return ht_fail(error, HT_ERROR_UNSUPPORTED, "the model has no matrix to measure");
    ht_op op = {.kind = HT_OP_MATMUL, .layer = -1, .name = "made up", .n_parts = 1};
    op.parts[0] = (ht_matrix){
        .type = type, .rows = rows, .cols = cols, .row_bytes = cols / (size_t)type->block * (size_t)type->block_bytes};
    const ht_slice whole = {.row_end = rows, .reduction_end = cols};
    ht_status status = HT_OK;
    drop_products(r);
    for (size_t bytes = 0; r->n < most && bytes < enough_bytes(r) && !status; bytes += file_bytes(&op))
        status = add_product(r, &op, &whole, error);
    return status ? status : make_slots(r, tokens, error);
}

/* ---- timing --------------------------------------------------------------------------------------------------------------- */

static ht_status submit(rig *r, product *what, size_t tokens, ht_sync sync, bool joined, ht_ticket *ticket,
                        ht_error *error) {
    const ht_binding binding = {.slots = r->slots,
                                .tokens = tokens,
                                .room = r->room,
                                .resident = ~0u, /* no transfers: what is timed is the product */
                                .kept = ~0u,
                                .joined = joined,
                                .sync = sync};
    return r->ops->submit(r->device, what->task, &binding, NULL, 0, ticket, error);
}

/* `repeats` submits in turn among the first `n` products, and one wait. */
static ht_status run(rig *r, size_t n, size_t repeats, size_t tokens, double *seconds, ht_error *error) {
    ht_ticket ticket = 0;
    ht_status status = HT_OK;
    const double start = ht_clock_now(r->clock);
    for (size_t i = 0; i < repeats && !status; i++)
        status = submit(r, &r->products[r->next++ % n], tokens, HT_SYNC_AUTO, i + 1 == repeats, &ticket, error);
    if (!status)
        status = r->ops->wait(r->device, ticket, HT_SYNC_AUTO, error);
    *seconds = ht_clock_now(r->clock) - start;
    return status;
}

static ht_status warm(rig *r, size_t n, size_t tokens, ht_error *error) {
    ht_status status = HT_OK;
    for (size_t i = 0; i < n && !status && r->ops->warm; i++)
        status = r->ops->warm(r->device, r->products[i].task, tokens, error);
    for (size_t i = 0; i < n && !status && r->ops->settle; i++)
        status = r->ops->settle(r->device, r->products[i].task, tokens, error);
    return status;
}

typedef struct timing { /* of products with one number of tokens */
    size_t tokens, n, repeats;
    int runs;
    double times[RUNS];
} timing;

/* Does everything that only the first run has to do, and finds out how many submits are long enough for the clock. */
static ht_status begin_timing(rig *r, timing *t, ht_error *error) {
    double first = 0;
    t->n = r->caps->n_lengths && t->tokens > 1 ? ht_min_size(r->n, FEW_GRAPHS) : r->n;
    ht_status status = warm(r, t->n, t->tokens, error);
    for (int i = 0; i < 2 && !status && first < 5 * LONG_RUN; i++) /* the first may load something */
        status = run(r, t->n, 1, t->tokens, &first, error);
    first = first > 1e-7 ? first : 1e-7; /* a clock may be coarse */
    t->repeats = ht_max_size(1, ht_min_size((size_t)((is_quick(r) ? 0.004 : 0.02) / first), 500));
    t->runs = is_quick(r) && first > LONG_RUN ? FEW_RUNS : RUNS;
    return status;
}

/* Measures what the rig is filled with at each of `lengths`, and adds it. Rounds in which every length has its turn: what
 * slows the machine for a while slows one run of all, and medians do not see it. */
static ht_status add_times(rig *r, ht_profile_table table, const char *what, size_t rows, const size_t *lengths,
                           size_t n, ht_error *error) {
    timing t[MOST_LENGTHS];
    ht_status status = HT_OK;
    for (size_t i = 0; i < n && !status; i++) {
        t[i].tokens = lengths[i];
        status = begin_timing(r, &t[i], error);
    }
    for (int k = 0; k < RUNS && !status; k++)
        for (size_t i = 0; i < n && !status; i++) {
            if (k >= t[i].runs)
                continue;
            status = run(r, t[i].n, t[i].repeats, t[i].tokens, &t[i].times[k], error);
            t[i].times[k] /= (double)t[i].repeats;
        }
    for (size_t i = 0; i < n && !status; i++) {
        ht_sort_doubles(t[i].times, (size_t)t[i].runs);
        ht_profile_point point = {.table = table,
                                  .device = r->index,
                                  .with = -1,
                                  .rows = rows,
                                  .cols = ht_op_cols(&r->products[0].op),
                                  .tokens = lengths[i],
                                  .seconds = t[i].times[t[i].runs / 2]};
        snprintf(point.what, sizeof point.what, "%s", what);
        status = add_point(r->p, &point, error);
    }
    return status;
}

/* ---- tables ---------------------------------------------------------------------------------------------------------------- */

/* The MATMUL of a layer that has most weights. */
static size_t largest(const ht_model *model) {
    size_t best = 0, most = 0;
    for (size_t i = 0; i < model->n_ops; i++) {
        const ht_op *op = &model->ops[i];
        const size_t size = op->kind == HT_OP_MATMUL && op->layer >= 0 ? ht_op_rows(op) * ht_op_cols(op) : 0;
        if (size > most)
            best = i, most = size;
    }
    return best;
}

static ht_slice rows_of(const ht_op *op, size_t rows) {
    return (ht_slice){.row_end = rows, .reduction_end = ht_op_cols(op)};
}

/* Numbers of tokens at static lengths, just behind them, and between. */
static ht_status curve(rig *r, ht_error *error) {
    static const size_t all[] = {1,  2,  4,   8,   12,  16,  24,  32,  33,  48,  64,
                                 65, 96, 128, 129, 192, 256, 257, 320, 384, 448, 512};
    static const size_t quick[] = {1, 8, 32, 33, 64, 65, 96, 128, 129, 192, 256};
    _Static_assert(HT_COUNT(all) <= MOST_LENGTHS && HT_COUNT(quick) <= MOST_LENGTHS, "timings for every length");
    const size_t n = is_quick(r) ? HT_COUNT(quick) : HT_COUNT(all), *lengths = is_quick(r) ? quick : all;
    const size_t first = largest(r->p->model), rows = ht_op_rows(&r->p->model->ops[first]);
    const ht_slice whole = rows_of(&r->p->model->ops[first], rows);
    ht_status status = fill_from_model(r, first, &whole, MOST_COPIES, error);
    return status ? status : add_times(r, HT_PROFILE_CURVE, "", rows, lengths, n, error);
}

static ht_status order_of(rig *r, const char *name, ht_error *error) {
    static const size_t lengths[] = {64, 256};
    const size_t first = largest(r->p->model), rows = ht_op_rows(&r->p->model->ops[first]);
    const ht_slice whole = rows_of(&r->p->model->ops[first], rows);
    ht_status status = fill_from_model(r, first, &whole, FEW_GRAPHS, error);
    return status ? status
                  : add_times(r, HT_PROFILE_ORDER, name, rows, lengths, is_quick(r) ? 1 : HT_COUNT(lengths), error);
}

/* Devices of their own with either operand first. */
static ht_status order(rig *r, ht_error *error) {
    static const char *const names[] = {"activations", "weights"};
    ht_status status = HT_OK;
    if (!r->caps->n_lengths || strstr(r->p->result->devices[r->index].spec, ":order="))
        return HT_OK;
    for (size_t i = 0; i < HT_COUNT(names) && !status; i++) {
        char option[32];
        rig other;
        snprintf(option, sizeof option, "order=%s", names[i]);
        status = open_rig(r->p, r->index, option, &other, error);
        if (!status)
            status = order_of(&other, names[i], error);
        close_rig(&other);
    }
    return status;
}

/* Largest whole number whose square is at most x. */
static size_t whole_root(size_t x) {
    size_t root = 0;
    for (size_t bit = (size_t)1 << 31; bit; bit >>= 1)
        if ((root + bit) * (root + bit) <= x)
            root += bit;
    return root;
}

/* About as many weights as the largest matrix in other proportions; then parts of its rows, as cuts would make them. */
static ht_status shape(rig *r, ht_error *error) {
    static const struct {
        const char *name;
        size_t rows, cols;
    } ratios[] = {{"1:4", 1, 4}, {"1:2", 1, 2}, {"1:1", 1, 1}, {"2:1", 2, 1}, {"4:1", 4, 1}};
    static const char *const parts[] = {"1/4 of rows", "1/2 of rows", "3/4 of rows", "all rows"};
    const size_t tokens = is_quick(r) ? 64 : 256, first = largest(r->p->model),
                 step = 256; /* a multiple of every type's block */
    const ht_op *op = &r->p->model->ops[first];
    const size_t rows = ht_op_rows(op), all = rows * ht_op_cols(op);
    const size_t weights = is_quick(r) ? ht_min_size(all, FEW_WEIGHTS) : all;
    ht_status status = HT_OK;
    for (size_t i = 0; i < HT_COUNT(ratios) && !status; i++) {
        const size_t wish = whole_root(weights / ratios[i].rows * ratios[i].cols);
        const size_t cols = ht_max_size(step, (wish + step / 2) / step * step);
        const size_t high = ht_max_size(32, ht_round_up(weights / cols, 32));
        status = fill_made_up(r, high, cols, FEW_GRAPHS, tokens, error);
        if (!status)
            status = add_times(r, HT_PROFILE_SHAPE, ratios[i].name, high, &tokens, 1, error);
    }
    for (size_t i = 0; i < HT_COUNT(parts) && !status; i++) {
        const ht_slice slice = rows_of(op, i + 1 < HT_COUNT(parts) ? ht_round_up(rows * (i + 1) / 4, 32) : rows);
        if (slice.row_end > rows || (r->ops->refuses && r->ops->refuses(r->device, op, &slice)))
            continue;
        status = fill_from_model(r, first, &slice, FEW_GRAPHS, error);
        if (!status)
            status = add_times(r, HT_PROFILE_SHAPE, parts[i], slice.row_end, &tokens, 1, error);
    }
    return status;
}

/* ---- joins ------------------------------------------------------------------------------------------------------------------ */

typedef enum join_state { ALONE, IDLE, BEHIND, JOIN_STATES } join_state;
static const char *const join_names[] = {"alone", "after 5 ms", "behind 20"};

static ht_status join_once(rig *r, ht_sync sync, join_state state, double *seconds, ht_error *error) {
    product *tiny = &r->products[0];
    ht_ticket ticket = 0;
    ht_status status = HT_OK;
    if (state == IDLE)
        ht_clock_sleep(r->clock, IDLE_SECONDS);
    for (int i = 0; state == BEHIND && i < BUSY && !status; i++)
        status = submit(r, tiny, 1, sync, false, &ticket, error);
    const double start = ht_clock_now(r->clock);
    if (!status)
        status = submit(r, tiny, 1, sync, true, &ticket, error);
    if (!status)
        status = r->ops->wait(r->device, ticket, sync, error);
    *seconds = ht_clock_now(r->clock) - start;
    return status;
}

static ht_status joins_of(rig *r, ht_sync sync, double *times, ht_error *error) {
    ht_status status = HT_OK;
    for (join_state state = ALONE; state < JOIN_STATES && !status; state++) {
        const size_t n = (state == IDLE ? 100u : 1000u) / (is_quick(r) ? 4 : 1);
        for (size_t i = 0; i < n / 10 && !status; i++)
            status = join_once(r, sync, state, &times[0], error);
        for (size_t i = 0; i < n && !status; i++)
            status = join_once(r, sync, state, &times[i], error);
        if (status)
            break;
        ht_sort_doubles(times, n);
        ht_profile_point point = {.table = HT_PROFILE_JOINS,
                                  .device = r->index,
                                  .with = -1,
                                  .rows = ht_op_rows(&r->products[0].op),
                                  .cols = ht_op_cols(&r->products[0].op),
                                  .tokens = 1,
                                  .seconds = times[n / 2],
                                  .p99 = times[n * 99 / 100]};
        snprintf(point.what, sizeof point.what, "%s, %s", r->caps->runs_in_caller ? "caller" : ht_sync_name(sync),
                 join_names[state]);
        status = add_point(r->p, &point, error);
    }
    return status;
}

/* A device that computes in its caller has one way. */
static ht_status joins(rig *r, ht_error *error) {
    const ht_sync last = r->caps->runs_in_caller ? HT_SYNC_FINISH : HT_SYNC_FLAG;
    double *times = NULL;
    ht_status status = ht_alloc((void **)&times, MOST_JOINS, sizeof *times, "the profile", error);
    if (!status)
        status = fill_made_up(r, 32, 256, 1, 32, error);
    if (!status)
        status = warm(r, r->n, 1, error);
    for (ht_sync sync = HT_SYNC_FINISH; sync <= last && !status; sync++)
        status = joins_of(r, sync, times, error);
    free(times);
    return status;
}

/* ---- graphs ----------------------------------------------------------------------------------------------------------------- */

static ht_status build_graph(rig *r, size_t rows, size_t cols, size_t tokens, ht_error *error) {
    ht_profile_point point = {
        .table = HT_PROFILE_GRAPHS, .device = r->index, .with = -1, .rows = rows, .cols = cols, .tokens = tokens};
    ht_status status = fill_made_up(r, rows, cols, 1, 1, error);
    const double start = ht_clock_now(r->clock);
    if (!status)
        status = warm(r, 1, tokens, error);
    point.seconds = ht_clock_now(r->clock) - start;
    if (!status)
        point.bytes = (double)r->ops->task_bytes(r->products[0].task);
    return status ? status : add_point(r->p, &point, error);
}

/* On a device that builds anew what it may have kept on disk. */
static ht_status graphs(rig *r, ht_error *error) {
    static const size_t quick_widths[] = {512, 1024}, widths[] = {256, 512, 1024, 2048, 4096};
    const size_t n = is_quick(r) ? HT_COUNT(quick_widths) : HT_COUNT(widths);
    if (!r->caps->n_lengths)
        return HT_OK;
    rig other;
    const bool said =
        r->clock || strstr(r->p->result->devices[r->index].spec, ":cache="); /* simulated: nothing is kept */
    ht_status status = open_rig(r->p, r->index, said ? "" : "cache=off", &other, error);
    if (!status) /* the first build starts the runtime's compiler */
        status = fill_made_up(&other, 64, 256, 1, 1, error);
    if (!status)
        status = warm(&other, 1, (size_t)other.caps->lengths[0], error);
    for (size_t i = 0; i < n && !status; i++)
        for (size_t k = 0; k < other.caps->n_lengths && !status; k++) {
            const size_t width = is_quick(r) ? quick_widths[i] : widths[i], tokens = (size_t)other.caps->lengths[k];
            if (tokens <= MOST_TOKENS && (!is_quick(r) || tokens == 1 || tokens == 64 || tokens == 256))
                status = build_graph(&other, width, width, tokens, error);
        }
    close_rig(&other);
    return status;
}

ht_status ht_characterise_joins(ht_profiler *p, int index, ht_error *error) {
    rig r;
    ht_status status = open_rig(p, index, "", &r, error);
    if (!status)
        status = joins(&r, error);
    close_rig(&r);
    return status;
}

ht_status ht_characterise_build(ht_profiler *p, int index, size_t rows, size_t cols, size_t tokens, ht_error *error) {
    rig r;
    ht_status status = open_rig(p, index, "", &r, error);
    if (!status)
        status = build_graph(&r, rows, cols, tokens, error);
    close_rig(&r);
    return status;
}

/* ---- cuts ------------------------------------------------------------------------------------------------------------------- */

#define MOST_PARTS 4

static ht_status open_part(ht_profiler *p, const ht_product *part, bool only, rig *r, ht_error *error) {
    ht_status status = open_rig(p, part->device, part->more, r, error);
    if (!status && !only && r->caps->runs_in_caller)
        status = ht_fail(error, HT_ERROR_UNSUPPORTED, "%s computes in its caller", r->caps->name);
    if (!status)
        status = fill_made_up(r, part->rows, part->cols, FEW_GRAPHS, part->tokens, error);
    return status ? status : warm(r, r->n, part->tokens, error);
}

static ht_status run_parts(rig *rigs, const ht_product *parts, size_t n, size_t repeats, ht_error *error) {
    ht_ticket tickets[MOST_PARTS];
    ht_status status = HT_OK;
    for (size_t k = 0; k < repeats; k++)
        for (size_t i = 0; i < n && !status; i++)
            status = submit(&rigs[i], &rigs[i].products[k % rigs[i].n], parts[i].tokens, HT_SYNC_AUTO, k + 1 == repeats,
                            &tickets[i], error);
    for (size_t i = 0; i < n && !status; i++)
        status = rigs[i].ops->wait(rigs[i].device, tickets[i], HT_SYNC_AUTO, error);
    return status;
}

ht_status ht_characterise_cut(ht_profiler *p, const ht_product *parts, size_t n, size_t repeats, double *seconds,
                              ht_error *error) {
    rig rigs[MOST_PARTS] = {0};
    ht_status status =
        n <= MOST_PARTS ? HT_OK : ht_fail(error, HT_ERROR_ARGUMENT, "a cut has at most %d parts", MOST_PARTS);
    for (size_t i = 0; i < n && !status; i++)
        status = open_part(p, &parts[i], n == 1, &rigs[i], error);
    if (!status) /* the first one loads something */
        status = run_parts(rigs, parts, n, 1, error);
    const double start = ht_clock_now(rigs[0].clock);
    if (!status)
        status = run_parts(rigs, parts, n, repeats, error);
    *seconds = (ht_clock_now(rigs[0].clock) - start) / (double)repeats;
    for (size_t i = 0; i < n && i < MOST_PARTS; i++)
        close_rig(&rigs[i]);
    return status;
}

ht_status ht_characterise(ht_profiler *p, int index, ht_error *error) {
    static ht_status (*const tables[])(rig *, ht_error *) = {curve, order, shape, joins, graphs};
    const ht_profile_options *options = p->options;
    rig r;
    ht_status status = open_rig(p, index, "", &r, error);
    const size_t n = HT_COUNT(tables);
    for (size_t i = 0; i < n && !status; i++) {
        if (options->progress &&
            !options->progress(p->result->devices[index].spec, (double)i, (double)(n + 1), options->progress_user))
            status = ht_fail(error, HT_ERROR_CANCELLED, "profiling was stopped");
        if (!status)
            status = tables[i](&r, error);
    }
    close_rig(&r);
    return status;
}

/* ---- bandwidth --------------------------------------------------------------------------------------------------------------- */

typedef struct reader { /* reads weights on a thread of its own */
    rig *r;
    size_t number; /* of the clock's threads */
    atomic_uint *running;
    pthread_barrier_t *start;
    pthread_t thread;
    double limit, times[MOST_PASSES]; /* of passes over all copies */
    size_t n;
    ht_status status;
    ht_error error;
} reader;

static void *read_weights(void *argument) {
    reader *self = argument;
    rig *r = self->r;
    ht_stay stay;
    double pass, seconds = 0;
    if (!r->clock)
        ht_stay_on(&r->caps->cores, &stay);
    ht_clock_enter(r->clock, self->number);
    self->status = run(r, r->n, r->n, 1, &pass, &self->error);
    if (!r->clock) /* in virtual time nobody is late */
        pthread_barrier_wait(self->start);
    const double start = ht_clock_now(r->clock);
    for (size_t i = 0; !self->status && seconds < self->limit; i++) {
        self->status = run(r, r->n, r->n, 1, &self->times[i % MOST_PASSES], &self->error);
        self->n = ht_min_size(i + 1, MOST_PASSES);
        seconds = ht_clock_now(r->clock) - start;
    }
    atomic_fetch_sub(self->running, 1);
    ht_clock_leave(r->clock, self->number);
    return NULL;
}

static bool all_read(const void *running) {
    return atomic_load((const atomic_uint *)running) == 0;
}

/* Both for the same time; second may be NULL. The median pass counts: what else the machine does hits some only. */
static ht_status read_together(rig *first, rig *second, ht_error *error) {
    rig *const rigs[2] = {first, second};
    const unsigned n = second ? 2 : 1;
    reader readers[2];
    pthread_barrier_t start;
    atomic_uint running = n;
    ht_status status = HT_OK;
    pthread_barrier_init(&start, NULL, n);
    unsigned started = 0;
    for (; started < n; started++) {
        readers[started] = (reader){.r = rigs[started],
                                    .number = started + 1,
                                    .running = &running,
                                    .start = &start,
                                    .limit = is_quick(first) ? 0.25 : 1.5};
        if (pthread_create(&readers[started].thread, NULL, read_weights, &readers[started]))
            break;
    }
    atomic_fetch_sub(&running, n - started);
    ht_clock_begin(first->clock, started + 1, INFINITY);
    if (first->clock)
        ht_clock_await(first->clock, all_read, &running, INFINITY);
    else if (started == 1 && n == 2) /* let the one that waits go on */
        pthread_barrier_wait(&start);
    for (unsigned i = 0; i < started; i++)
        pthread_join(readers[i].thread, NULL);
    pthread_barrier_destroy(&start);
    if (started < n)
        return ht_fail(error, HT_ERROR_MEMORY, "the profile: cannot start a thread");
    for (unsigned i = 0; i < n && !status; i++) {
        const rig *r = rigs[i];
        if ((status = readers[i].status) && error)
            *error = readers[i].error;
        if (status)
            break;
        ht_sort_doubles(readers[i].times, readers[i].n);
        const ht_profile_point point = {.table = HT_PROFILE_BANDWIDTH,
                                        .device = r->index,
                                        .with = second ? rigs[1 - i]->index : -1,
                                        .rows = ht_op_rows(&r->products[0].op),
                                        .cols = ht_op_cols(&r->products[0].op),
                                        .tokens = 1,
                                        .seconds = readers[i].times[readers[i].n / 2],
                                        .bytes = (double)r->n * (double)file_bytes(&r->products[0].op)};
        status = add_point(r->p, &point, error);
    }
    return status;
}

static ht_status fill_for_bandwidth(rig *r, ht_error *error) {
    const size_t rows = r->caps->unified_memory ? MEMORY_ROWS : DISCRETE_ROWS;
    if (r->caps->n_lengths && r->caps->lengths[0] != 1)
        return ht_fail(error, HT_ERROR_UNSUPPORTED, "%s has no graphs for one token", r->caps->name);
    ht_status status = fill_made_up(r, rows, MEMORY_COLS, MOST_COPIES, 1, error);
    return status ? status : warm(r, r->n, 1, error);
}

static ht_status read_pairs(rig *rigs, const bool *ready, size_t n, ht_error *error) {
    ht_status status = HT_OK;
    for (size_t i = 0; i < n && !status; i++)
        for (size_t k = i + 1; k < n && !status; k++)
            if (ready[i] && ready[k] && !ht_cores_meet(&rigs[i].caps->cores, &rigs[k].caps->cores) &&
                rigs[i].clock == rigs[k].clock)
                status = read_together(&rigs[i], &rigs[k], error);
    return status;
}

ht_status ht_characterise_bandwidth(ht_profiler *p, ht_error *error) {
    const size_t n = p->result->n_devices;
    rig *rigs = NULL;
    bool *ready = NULL;
    ht_status status = ht_alloc((void **)&rigs, n, sizeof *rigs, "the profile", error);
    if (!status)
        status = ht_alloc((void **)&ready, n, sizeof *ready, "the profile", error);
    for (size_t i = 0; i < n && !status; i++) {
        ht_status failed = open_rig(p, (int)i, "", &rigs[i], error);
        /* readers have threads of their own, and the next device is not to inherit these cores */
        ht_leave_cores(&rigs[i].stay);
        if (!failed)
            failed = fill_for_bandwidth(&rigs[i], error);
        if (!failed)
            failed = read_together(&rigs[i], NULL, error);
        ready[i] = !failed;
        if (failed)
            ht_log(HT_LOG_WARN, "%s: bandwidth not measured: %s", p->result->devices[i].spec, error->text);
        if (p->options->progress &&
            !p->options->progress("bandwidth", (double)(i + 1), (double)(n + 1), p->options->progress_user))
            status = ht_fail(error, HT_ERROR_CANCELLED, "profiling was stopped");
    }
    if (!status && read_pairs(rigs, ready, n, error))
        ht_log(HT_LOG_WARN, "stopped measuring pairs: %s", error->text);
    for (size_t i = 0; i < n && rigs; i++)
        close_rig(&rigs[i]);
    free(rigs);
    free(ready);
    return status;
}
