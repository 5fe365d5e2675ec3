/* ROUTE and EXPERTS. A plan of who has chosen whom is made on the device, so that nothing waits for the host: places
 * for a token and an expert each, in tiles of one expert's. The products are launches of the MATMUL kernels over tiles,
 * as many as there can be; those that nobody needs end at once. With one token a tile has one place, and what is read
 * is the chosen experts' alone. */
#include "device/opencl/experts.h"
#include "device/opencl/kernel.h"
#include "device/opencl/matmul.h"
#include "device/opencl/slice.h"
#include "device/opencl/weights.h"

#if HT_HAVE_OPENCL
#include <stdio.h>
#include <string.h>

#define ROUTERS 64   /* work-items of a token's ROUTE on GPUs */
#define SORTERS 256  /* of the plan's only group there, at most */
#define MOST_TILE 64 /* places of a tile: larger ones waste more than they gain, for an expert has few tokens */

static bool on_cpu(const ht_cl_device *d) {
    return d->features & HT_CL_VECTOR;
}

static size_t items(const ht_cl_device *d, size_t most) {
    size_t n = 1;
    while (!on_cpu(d) && n * 2 <= d->largest_group && n < most)
        n *= 2;
    return n;
}

/* Vectors that a work-item computes: a group costs a CPU as much as many of them. */
static size_t run_of(const ht_cl_device *d) {
    return on_cpu(d) ? 16 : 1;
}

static size_t runs(const ht_cl_device *d, size_t values) {
    const size_t run = d->vector * run_of(d);
    return ht_round_up((values + run - 1) / run, d->local);
}

static ht_status own_kernel(ht_cl_device *d, const ht_op *op, const char *name, cl_kernel *kernel, ht_error *error) {
    char options[96];
    snprintf(options, sizeof options, "-DITEMS=%zu -DSORTERS=%zu -DRUN=%zu -DACT=%d -DGATES=%d -DWEIGHED=%d",
             items(d, ROUTERS), items(d, SORTERS), run_of(d), op->kind == HT_OP_EXPERTS ? (int)op->activation : 0,
             op->ungated ? 1 : 2, op->weighs_input);
    return ht_cl_kernel(d, "experts", name, options, kernel, error);
}

/* ---- ROUTE
 * ---------------------------------------------------------------------------------------------------------------- */

ht_status ht_cl_route_prepare(ht_cl_device *d, ht_task *task, ht_error *error) {
    const ht_op *op = task->op;
    const float none[1] = {0};
    const float *bias = op->route.bias ? op->route.bias : none;
    const size_t n = op->route.bias ? (size_t)op->experts : 1;
    ht_status status = ht_cl_upload(d, bias, n * sizeof *bias, op->name, &task->tables[0], error);
    if (!status)
        status = ht_cl_table(d, task, 1, op->route.factors, (size_t)op->experts, error);
    return status ? status : own_kernel(d, op, "route", &task->kernels[0], error);
}

ht_status ht_cl_route_enqueue(ht_cl_device *d, ht_task *task, const ht_cl_call *call, ht_error *error) {
    const ht_op *op = task->op;
    const ht_route *r = &op->route;
    const ht_cl_place *in = &call->in, *out = &call->out;
    const cl_uint in_stride = (cl_uint)in->stride, out_stride = (cl_uint)out->stride, has_bias = r->bias != NULL,
                  n = (cl_uint)op->experts, function = (cl_uint)r->function, used = (cl_uint)r->used,
                  groups = (cl_uint)r->groups, groups_used = (cl_uint)r->groups_used, renormalise = r->renormalise,
                  has_factors = r->factors != NULL;
    const cl_mem factors = r->factors ? task->tables[1] : task->tables[0];
    const ht_cl_argument arguments[] = {HT_CL_ARGUMENT(in->region->memory),
                                        HT_CL_ARGUMENT(in->offset),
                                        HT_CL_ARGUMENT(in_stride),
                                        HT_CL_ARGUMENT(out->region->memory),
                                        HT_CL_ARGUMENT(out->offset),
                                        HT_CL_ARGUMENT(out_stride),
                                        HT_CL_ARGUMENT(task->tables[0]),
                                        HT_CL_ARGUMENT(has_bias),
                                        HT_CL_ARGUMENT(n),
                                        HT_CL_ARGUMENT(function),
                                        HT_CL_ARGUMENT(used),
                                        HT_CL_ARGUMENT(groups),
                                        HT_CL_ARGUMENT(groups_used),
                                        HT_CL_ARGUMENT(renormalise),
                                        HT_CL_ARGUMENT(r->scale),
                                        HT_CL_ARGUMENT(factors),
                                        HT_CL_ARGUMENT(has_factors)};
    const size_t local = items(d, ROUTERS), global = call->tokens * local;
    return ht_cl_launch(d, task, task->kernels[0], arguments, HT_COUNT(arguments), &(ht_cl_grid){1, &global, &local},
                        error);
}

/* ---- slices of EXPERTS
 * ------------------------------------------------------------------------------------------------------ */

const char *ht_cl_experts_refuses_part(const ht_cl_device *d, const ht_op *op, const ht_slice *part) {
    const size_t n = (size_t)op->experts, features = ht_op_summed(op), last = (size_t)op->n_parts - 1;
    if (op->activation == HT_ACT_GELU || op->activation == HT_ACT_SIGMOID)
        return "experts with this activation";
    if (features % 32 || op->parts[last].rows / n % HT_CL_BLOCK || (op->parts[0].type->group && ht_op_cols(op) % 32))
        return "experts whose features are no multiple of 32, or rows of 16";
    const char *why = ht_refuse_experts(op, part);
    if (why)
        return why;
    const ht_slice s = ht_spell_out_experts(op, part);
    if (s.reduction_begin % 32 || s.reduction_end % 32)
        return "a range of features that does not begin and end on multiples of 32";
    return NULL;
}

const char *ht_cl_experts_refuses(const ht_cl_device *d, const ht_op *op, const ht_slice *slice) {
    const char *why = ht_cl_experts_refuses_part(d, op, slice);
    return why                            ? why
           : ht_cl_is_whole(d, op, slice) ? NULL
                                          : "some of the experts: a part of them all is chosen at submit";
}

/* ---- tiles
 * ---------------------------------------------------------------------------------------------------------------------- */

/* What a submit of so many tokens needs room for. */
typedef struct layout {
    size_t used, tile, tiles,
        places; /* experts of a token; places of a tile; the most tiles and places that can be needed */
    size_t rows_at, weights_at, pairs_at, words; /* of the plan */
} layout;

static layout lay_out(const ht_op *op, size_t tokens, size_t tile) {
    const size_t experts = (size_t)op->experts;
    layout l = {.used = op->route.used ? (size_t)op->route.used : experts, .tile = tile};
    const size_t pairs = tokens * l.used;
    l.tiles = ht_min_size(pairs, pairs / tile + ht_min_size(pairs, experts));
    l.places = l.tiles * tile;
    l.rows_at = 4 * l.tiles;
    l.weights_at = l.rows_at + l.places;
    l.pairs_at = l.weights_at + l.places;
    l.words = l.pairs_at + 2 * pairs;
    return l;
}

/* The quickest kernel with tiles of so many places; NULL: there is none. */
static const ht_cl_matmul_row *row_of(const ht_cl_device *d, const ht_cl_weights *w, size_t tile) {
    const ht_cl_matmul_row *found[HT_CL_MATMUL_ROWS], *best = NULL;
    const int n = ht_cl_matmul_candidates(d, &w->form, w->rows, w->cols, tile, found, HT_CL_MATMUL_ROWS);
    for (int i = 0; i < n; i++)
        if (found[i]->tile_tokens == tile && (!best || found[i]->speed > best->speed))
            best = found[i];
    return best;
}

/* The tile that wastes least: experts have a few tokens each, and the last tile of each is seldom full. */
static size_t choose_tile(const ht_cl_device *d, const ht_task *task, size_t tokens) {
    const ht_op *op = task->op;
    const double pairs = (double)(tokens * lay_out(op, tokens, 1).used), each = pairs / op->experts;
    size_t best = 0;
    double least = 0;
    for (size_t tile = 1; tile <= MOST_TILE; tile++) {
        const ht_cl_matmul_row *row = row_of(d, &task->segments[0].weights, tile);
        bool all = row != NULL;
        for (size_t i = 0; i < task->n_segments && all; i++)
            all = row_of(d, &task->segments[i].weights, tile) != NULL;
        if (!all)
            continue;
        const double tiles = each <= 1 ? 1 : each / (double)tile + (tile > 1 ? 0.5 : 0);
        const double cost = (tiles > 1 ? tiles : 1) * (double)tile / row->speed;
        if (!best || cost < least)
            best = tile, least = cost;
    }
    return best;
}

/* ---- tasks
 * ------------------------------------------------------------------------------------------------------------------- */

/* Each of the operator's tensors is a segment. */
static ht_status pack(ht_cl_device *d, ht_task *task, ht_error *error) {
    const ht_op *op = task->op;
    size_t row = 0;
    ht_status status = ht_grow((void **)&task->segments, &task->cap_segments, (size_t)op->n_parts,
                               sizeof *task->segments, op->name, error);
    for (int i = 0; i < op->n_parts && !status; row += op->parts[i++].rows) {
        ht_cl_segment *s = &task->segments[i];
        *s = (ht_cl_segment){.first_row = row};
        status = ht_cl_weights_create(d, op, row, op->parts[i].rows, 0, op->parts[i].cols, &s->weights, error);
        if (status)
            return status;
        task->n_segments++;
        task->bytes += s->weights.bytes;
    }
    return status;
}

/* Kernels and room for tiles of this size. */
static ht_status make_ready(ht_cl_device *d, const ht_task *task, size_t tile, ht_error *error) {
    const ht_op *op = task->op;
    const layout l = lay_out(op, d->max_tokens, tile);
    const size_t features = ht_op_summed(op), gates = (size_t)op->n_parts - 1;
    const size_t rows = op->parts[gates].rows / (size_t)op->experts;
    size_t acts = 0;
    ht_status status = HT_OK;
    for (size_t i = 0; i < task->n_segments && !status; i++) {
        const ht_cl_weights *w = &task->segments[i].weights;
        const ht_cl_matmul_row *row = row_of(d, w, tile);
        cl_kernel kernel;
        status = ht_cl_matmul_kernel(d, row, &w->form, row->kernel, " -DEXPERTS=1", &kernel, error);
        if (!status && row->packed)
            status = ht_cl_matmul_kernel(d, row, &w->form, "pack_acts", " -DEXPERTS=1", &kernel, error);
        if (row->packed)
            acts = ht_max_size(acts, ht_max_size(l.places, d->max_tokens) * ht_round_up(w->cols, 32) * sizeof(float));
    }
    const size_t needs[][2] = {{HT_CL_SCRATCH_ACTS, acts},
                               {HT_CL_SCRATCH_PLAN, l.words * 4},
                               {HT_CL_SCRATCH_HIDDEN, l.places * gates * features * sizeof(float)},
                               {HT_CL_SCRATCH_GIVEN, l.places * rows * sizeof(float)}};
    for (size_t i = 0; i < HT_COUNT(needs) && !status; i++)
        status = ht_cl_scratch(d, (int)needs[i][0], needs[i][1], error);
    return status;
}

ht_status ht_cl_experts_prepare(ht_cl_device *d, ht_task *task, ht_error *error) {
    ht_status status = pack(d, task, error);
    if (!status)
        status = own_kernel(d, task->op, "experts_plan", &task->kernels[0], error);
    if (!status)
        status = own_kernel(d, task->op, "experts_act", &task->kernels[1], error);
    uint64_t ready[MOST_TILE / 64 + 1] = {0};
    for (size_t tokens = 1; tokens <= d->max_tokens && !status; tokens++) {
        const size_t tile = choose_tile(d, task, tokens);
        if (!tile)
            return ht_fail(error, HT_ERROR_DEVICE, "%s: no kernel multiplies experts here", d->caps.name);
        if (ready[tile / 64] >> tile % 64 & 1)
            continue;
        ready[tile / 64] |= UINT64_C(1) << tile % 64;
        status = make_ready(d, task, tile, error);
    }
    return status;
}

/* Fills choice number *at of every segment for so many tokens, if it is not there from an earlier submit. */
static ht_status find_choice(ht_cl_device *d, ht_task *task, size_t tokens, size_t *at, ht_error *error) {
    ht_cl_segment *first = &task->segments[0];
    for (*at = 0; *at < HT_CL_CHOICES; ++*at)
        if (first->choices[*at].tokens == tokens)
            return HT_OK;
    *at = first->n_chosen++ % HT_CL_CHOICES;
    first->choices[*at].tokens = 0;
    const size_t tile = choose_tile(d, task, tokens);
    ht_status status = HT_OK;
    for (size_t i = 0; i < task->n_segments && !status; i++) {
        const ht_cl_weights *w = &task->segments[i].weights;
        struct ht_cl_choice *c = &task->segments[i].choices[*at];
        *c = (struct ht_cl_choice){.row = row_of(d, w, tile)};
        if (!c->row)
            return ht_fail(error, HT_ERROR_DEVICE, "%s: no kernel multiplies experts here", d->caps.name);
        status = ht_cl_matmul_kernel(d, c->row, &w->form, c->row->kernel, " -DEXPERTS=1", &c->kernel, error);
        if (!status && c->row->packed)
            status = ht_cl_matmul_kernel(d, c->row, &w->form, "pack_acts", " -DEXPERTS=1", &c->pack, error);
        if (!status)
            status = own_kernel(d, task->op, "experts_sum", &c->add, error);
    }
    first->choices[*at].tokens = status ? 0 : tokens;
    return status;
}

/* ---- running
 * ------------------------------------------------------------------------------------------------------------------ */

typedef struct floats { /* rows of floats on the device */
    cl_mem memory;
    cl_ulong offset;
    cl_uint stride;
} floats;

/* What is multiplied: of each expert of a segment rows [row, row + rows), columns [col, col + cols). */
typedef struct product {
    const ht_cl_weights *weights;
    const struct ht_cl_choice *choice;
    ht_cl_window window;
    floats in, out;
    bool gather; /* `in` has a row a token, else one a place */
    size_t in_rows;
} product;

static ht_status launch_plan(ht_cl_device *d, ht_task *task, const ht_cl_call *call, const layout *l, ht_error *error) {
    const ht_cl_place *in = &call->aux;
    const cl_uint stride = (cl_uint)in->stride, tokens = call->tokens, first = (cl_uint)call->part.row_begin,
                  end = (cl_uint)call->part.row_end, used = (cl_uint)l->used, tile = (cl_uint)l->tile,
                  tiles = (cl_uint)l->tiles, rows_at = (cl_uint)l->rows_at, weights_at = (cl_uint)l->weights_at,
                  pairs_at = (cl_uint)l->pairs_at;
    const cl_ulong offset = in->offset + task->op->more_first;
    const ht_cl_argument arguments[] = {HT_CL_ARGUMENT(in->region->memory),
                                        HT_CL_ARGUMENT(offset),
                                        HT_CL_ARGUMENT(stride),
                                        HT_CL_ARGUMENT(d->scratch[HT_CL_SCRATCH_PLAN]),
                                        HT_CL_ARGUMENT(tokens),
                                        HT_CL_ARGUMENT(first),
                                        HT_CL_ARGUMENT(end),
                                        HT_CL_ARGUMENT(used),
                                        HT_CL_ARGUMENT(tile),
                                        HT_CL_ARGUMENT(tiles),
                                        HT_CL_ARGUMENT(rows_at),
                                        HT_CL_ARGUMENT(weights_at),
                                        HT_CL_ARGUMENT(pairs_at)};
    const size_t local = items(d, SORTERS);
    return ht_cl_launch(d, task, task->kernels[0], arguments, HT_COUNT(arguments), &(ht_cl_grid){1, &local, &local},
                        error);
}

static ht_status launch_pack(ht_cl_device *d, ht_task *task, const product *p, const layout *l, ht_error *error) {
    const ht_cl_matmul_row *row = p->choice->row;
    const cl_uint cols = p->window.cols, tokens = (cl_uint)p->in_rows, rows_at = (cl_uint)l->rows_at,
                  gather = p->gather;
    const ht_cl_argument arguments[] = {HT_CL_ARGUMENT(p->in.memory),
                                        HT_CL_ARGUMENT(p->in.offset),
                                        HT_CL_ARGUMENT(p->in.stride),
                                        HT_CL_ARGUMENT(d->scratch[HT_CL_SCRATCH_ACTS]),
                                        HT_CL_ARGUMENT(cols),
                                        HT_CL_ARGUMENT(tokens),
                                        HT_CL_ARGUMENT(d->scratch[HT_CL_SCRATCH_PLAN]),
                                        HT_CL_ARGUMENT(rows_at),
                                        HT_CL_ARGUMENT(gather)};
    const size_t local[2] = {row->packed, 1},
                 global[2] = {ht_round_up((cols + 31) / 32, row->packed), row->packed == 1 ? l->tiles : p->in_rows};
    return ht_cl_launch(d, task, p->choice->pack, arguments, HT_COUNT(arguments), &(ht_cl_grid){2, global, local},
                        error);
}

static ht_status launch_product(ht_cl_device *d, ht_task *task, const product *p, const layout *l, bool packed,
                                ht_error *error) {
    const ht_cl_weights *w = p->weights;
    const ht_cl_matmul_row *row = p->choice->row;
    ht_status status = row->packed && !packed ? launch_pack(d, task, p, l, error) : HT_OK;
    if (status)
        return status;
    const cl_mem scales = w->scales ? w->scales : w->codes, mins = w->mins ? w->mins : w->codes,
                 bias = w->bias ? w->bias : w->codes, x = row->packed ? d->scratch[HT_CL_SCRATCH_ACTS] : p->in.memory;
    const cl_ulong x_offset = row->packed ? 0 : p->in.offset;
    const cl_uint tokens = (cl_uint)l->places, has_bias = w->bias != NULL && p->window.col == 0,
                  first_block = p->window.row / HT_CL_BLOCK, first_group = p->window.col / 32,
                  row_groups = (w->cols + 31) / 32, rows_at = (cl_uint)l->rows_at, gather = p->gather,
                  expert_blocks = w->rows / (cl_uint)task->op->experts / HT_CL_BLOCK;
    const ht_cl_argument arguments[] = {HT_CL_ARGUMENT(w->codes),
                                        HT_CL_ARGUMENT(scales),
                                        HT_CL_ARGUMENT(mins),
                                        HT_CL_ARGUMENT(bias),
                                        HT_CL_ARGUMENT(x),
                                        HT_CL_ARGUMENT(x_offset),
                                        HT_CL_ARGUMENT(p->in.stride),
                                        HT_CL_ARGUMENT(p->out.memory),
                                        HT_CL_ARGUMENT(p->out.offset),
                                        HT_CL_ARGUMENT(p->out.stride),
                                        HT_CL_ARGUMENT(p->window.rows),
                                        HT_CL_ARGUMENT(p->window.cols),
                                        HT_CL_ARGUMENT(tokens),
                                        HT_CL_ARGUMENT(has_bias),
                                        HT_CL_ARGUMENT(first_block),
                                        HT_CL_ARGUMENT(first_group),
                                        HT_CL_ARGUMENT(row_groups),
                                        HT_CL_ARGUMENT(d->scratch[HT_CL_SCRATCH_PLAN]),
                                        HT_CL_ARGUMENT(rows_at),
                                        HT_CL_ARGUMENT(gather),
                                        HT_CL_ARGUMENT(expert_blocks)};
    const size_t wide = (p->window.rows + row->tile_rows - 1) / row->tile_rows;
    const size_t global[3] = {wide * row->local[0], l->tiles * row->local[1], 1},
                 local[3] = {row->local[0], row->local[1], 1};
    return ht_cl_launch(d, task, p->choice->kernel, arguments, HT_COUNT(arguments), &(ht_cl_grid){3, global, local},
                        error);
}

static ht_status launch_act(ht_cl_device *d, ht_task *task, size_t features, const layout *l, ht_error *error) {
    const cl_uint tile = (cl_uint)l->tile, n = (cl_uint)features, weights_at = (cl_uint)l->weights_at;
    const ht_cl_argument arguments[] = {HT_CL_ARGUMENT(d->scratch[HT_CL_SCRATCH_HIDDEN]),
                                        HT_CL_ARGUMENT(d->scratch[HT_CL_SCRATCH_PLAN]), HT_CL_ARGUMENT(weights_at),
                                        HT_CL_ARGUMENT(tile), HT_CL_ARGUMENT(n)};
    const size_t local[2] = {d->local, 1}, global[2] = {runs(d, features), l->places};
    return ht_cl_launch(d, task, task->kernels[1], arguments, HT_COUNT(arguments), &(ht_cl_grid){2, global, local},
                        error);
}

static ht_status launch_sum(ht_cl_device *d, ht_task *task, const ht_cl_call *call, size_t choice, size_t rows,
                            const layout *l, ht_error *error) {
    const ht_cl_place *out = &call->out;
    const cl_uint pairs_at = (cl_uint)l->pairs_at, used = (cl_uint)l->used, stride = (cl_uint)out->stride,
                  n = (cl_uint)rows;
    const ht_cl_argument arguments[] = {HT_CL_ARGUMENT(d->scratch[HT_CL_SCRATCH_GIVEN]),
                                        HT_CL_ARGUMENT(d->scratch[HT_CL_SCRATCH_PLAN]),
                                        HT_CL_ARGUMENT(pairs_at),
                                        HT_CL_ARGUMENT(used),
                                        HT_CL_ARGUMENT(out->region->memory),
                                        HT_CL_ARGUMENT(out->offset),
                                        HT_CL_ARGUMENT(stride),
                                        HT_CL_ARGUMENT(n)};
    const size_t local[2] = {d->local, 1}, global[2] = {runs(d, rows), call->tokens};
    return ht_cl_launch(d, task, task->segments[0].choices[choice].add, arguments, HT_COUNT(arguments),
                        &(ht_cl_grid){2, global, local}, error);
}

ht_status ht_cl_experts_enqueue(ht_cl_device *d, ht_task *task, const ht_cl_call *call, ht_error *error) {
    const ht_op *op = task->op;
    const size_t gates = (size_t)op->n_parts - 1, first = call->part.reduction_begin,
                 features = call->part.reduction_end - first, rows = op->parts[gates].rows / (size_t)op->experts;
    const ht_cl_matmul_row *packed = NULL;
    size_t at;
    ht_status status = find_choice(d, task, call->shape_tokens, &at, error);
    if (status)
        return status;
    const layout l = lay_out(op, call->tokens, task->segments[0].choices[at].row->tile_tokens);
    status = launch_plan(d, task, call, &l, error);
    for (size_t i = 0; i < gates && !status; i++) {
        const ht_cl_weights *w = &task->segments[i].weights;
        const product p = {.weights = w,
                           .choice = &task->segments[i].choices[at],
                           .window = {.row = (cl_uint)first, .rows = (cl_uint)features, .cols = w->cols},
                           .in = {call->in.region->memory, call->in.offset, (cl_uint)call->in.stride},
                           .out = {d->scratch[HT_CL_SCRATCH_HIDDEN], i * features, (cl_uint)(gates * features)},
                           .gather = true,
                           .in_rows = call->tokens};
        const ht_cl_matmul_row *row = p.choice->row;
        status = launch_product(d, task, &p, &l, packed && packed == row, error);
        packed = row->packed ? row : packed;
    }
    if (!status)
        status = launch_act(d, task, features, &l, error);
    const product down = {.weights = &task->segments[gates].weights,
                          .choice = &task->segments[gates].choices[at],
                          .window = {.rows = (cl_uint)rows, .col = (cl_uint)first, .cols = (cl_uint)features},
                          .in = {d->scratch[HT_CL_SCRATCH_HIDDEN], 0, (cl_uint)(gates * features)},
                          .out = {d->scratch[HT_CL_SCRATCH_GIVEN], 0, (cl_uint)rows},
                          .in_rows = l.places};
    if (!status)
        status = launch_product(d, task, &down, &l, false, error);
    return status ? status : launch_sum(d, task, call, at, rows, &l, error);
}

#else
typedef int ht_cl_experts_is_empty; /* ISO C wants something in every file */
#endif
