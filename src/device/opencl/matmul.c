/* MATMUL: runs of rows with one form become segments, each with packed weights (weights.c) and, for every number of tokens,
 * a row of the table of kernels. */
#include "device/opencl/matmul.h"

#if HT_HAVE_OPENCL
#include <stdio.h>
#include <string.h>

#define MANY 0xffffffffu

/* ---- the table of kernels -------------------------------------------------------------------------------------------- */

/* clang-format off */
#define MATVEC(tokens, most, lanes, blocks, speed) \
    {"matmul_simt", "matvec_simt", "-DINT8=0 -DTOKENS=" #tokens " -DLANES=" #lanes " -DBLOCKS=" #blocks, HT_CL_SIMT, \
     1, most, 16 * (blocks), tokens, 1, speed, 0, 1, {16, lanes}, (blocks) * (tokens) * (lanes) * 64}
#define MATMUL(tile_rows, tile_tokens, rows, tokens, speed) \
    {"matmul_simt", "matmul_simt", "-DINT8=0 " TILE(tile_rows, tile_tokens, rows, tokens), HT_CL_SIMT, 5, MANY, \
     tile_rows, tile_tokens, 1, speed, 0, 16, {(tile_rows) * (tile_tokens) / ((rows) * (tokens)), 1}, \
     128 * ((tile_rows) + (tile_tokens))}
#define MATVEC_INT8(tokens, most, lanes, blocks, speed) \
    {"matmul_simt", "matvec_simt", "-DINT8=1 -DTOKENS=" #tokens " -DLANES=" #lanes " -DBLOCKS=" #blocks, \
     HT_CL_SIMT | HT_CL_DOT, 1, most, 16 * (blocks), tokens, 1, speed, RECORDS, 1, {16, lanes}, \
     (blocks) * (tokens) * (lanes) * 64}
#define MATMUL_INT8(tile_rows, tile_tokens, rows, tokens, speed) \
    {"matmul_simt", "matmul_simt", "-DINT8=1 " TILE(tile_rows, tile_tokens, rows, tokens), HT_CL_SIMT | HT_CL_DOT, 5, \
     MANY, tile_rows, tile_tokens, 1, speed, RECORDS, 16, {(tile_rows) * (tile_tokens) / ((rows) * (tokens)), 1}, \
     56 * ((tile_rows) + (tile_tokens))}
#define TILE(tile_rows, tile_tokens, rows, tokens) \
    "-DTILE_ROWS=" #tile_rows " -DTILE_TOKENS=" #tile_tokens " -DITEM_ROWS=" #rows " -DITEM_TOKENS=" #tokens
#define RECORDS 64 /* work-items of a group of its pack_acts */
/* clang-format on */

/* Of equal cost (see cost below) the first is taken. Speeds of SIMT rows are an H100's; what differs elsewhere is found by
 * measuring (tune.c). */
static const ht_cl_matmul_row table[] = {
    {"matmul_vector", "matvec_vector", "-DTOKENS=1", HT_CL_VECTOR, 1, 1, 32, 1, 1, 100, 0, 1, {1, 1}, 0},
    {"matmul_vector", "matvec_vector", "-DTOKENS=2", HT_CL_VECTOR, 1, 2, 32, 2, 1, 100, 0, 1, {1, 1}, 0},
    {"matmul_vector", "matvec_vector", "-DTOKENS=4", HT_CL_VECTOR, 1, 4, 16, 4, 1, 100, 0, 1, {1, 1}, 0},
    {"matmul_vector", "matmul_vector", "-DTILE=12 -DRUN=8", HT_CL_VECTOR, 2, MANY, 32, 12, 8, 100, 1, 1, {1, 1}, 0},
    MATVEC(1, 1, 16, 2, 100),
    MATVEC(1, 1, 32, 2, 102),
    MATVEC(1, 1, 16, 4, 97),
    MATVEC(1, 1, 32, 4, 90),
    MATVEC(1, 1, 64, 2, 80),
    MATVEC(1, 1, 32, 1, 75),
    MATVEC(1, 1, 16, 1, 60),
    MATVEC(2, 2, 16, 2, 170),
    MATVEC(2, 2, 32, 2, 165),
    MATVEC(4, 4, 16, 2, 180),
    MATVEC(4, 4, 32, 2, 175),
    MATVEC(4, 4, 16, 1, 115),
    MATVEC(8, 8, 16, 2, 220),
    MATVEC(8, 8, 16, 1, 190),
    MATMUL(128, 128, 8, 8, 530),
    MATMUL(128, 64, 8, 4, 500),
    MATMUL(64, 64, 8, 4, 490),
    MATMUL(128, 32, 8, 4, 460),
    MATMUL(64, 32, 4, 4, 430),
    MATMUL(32, 32, 4, 4, 400),
    MATVEC_INT8(1, 1, 16, 2, 125),
    MATVEC_INT8(1, 1, 32, 2, 125),
    MATVEC_INT8(1, 1, 64, 2, 100),
    MATVEC_INT8(2, 2, 16, 2, 235),
    MATVEC_INT8(2, 2, 32, 2, 235),
    MATVEC_INT8(4, 4, 16, 2, 370),
    MATVEC_INT8(4, 4, 32, 2, 370),
    MATVEC_INT8(8, 8, 16, 1, 450),
    MATVEC_INT8(8, 8, 16, 2, 470),
    MATMUL_INT8(128, 128, 8, 8, 1000),
    MATMUL_INT8(128, 64, 8, 4, 1000),
    MATMUL_INT8(64, 64, 8, 4, 950),
    MATMUL_INT8(128, 32, 8, 4, 1100),
    MATMUL_INT8(32, 32, 4, 4, 720),
};

int ht_cl_matmul_candidates(const ht_cl_device *d, const ht_cl_form *form, size_t rows, size_t cols, size_t tokens,
                            const ht_cl_matmul_row *out[], int max) {
    (void)rows, (void)cols; /* every kernel there is takes all of them */
    int n = 0;
    for (const ht_cl_matmul_row *row = table; row < table + HT_COUNT(table) && n < max; row++)
        if ((row->features & d->features) == row->features && (form->bits <= 8 || !(row->features & HT_CL_DOT)) &&
            tokens >= row->min_tokens && tokens <= row->max_tokens && row->local_bytes <= d->local_bytes &&
            row->local[0] * row->local[1] <= d->largest_group)
            out[n++] = row;
    return n;
}

static size_t count_tiles(const ht_cl_matmul_row *row, size_t rows, size_t tokens) {
    return ((rows + row->tile_rows - 1) / row->tile_rows) * ((tokens + row->tile_tokens - 1) / row->tile_tokens);
}

/* Groups that keep every unit busy. Behind few tokens a unit waits for memory and wants as many work-items as it holds;
 * one of a CPU's drivers runs a group at a time, and two leave none idle at the end. */
static size_t full_groups(const ht_cl_device *d, const ht_cl_matmul_row *row) {
    const size_t items = row->local[0] * row->local[1], wanted = row->parts > 1 ? 512 : 1024;
    return d->units * (row->features & HT_CL_VECTOR ? 2 : ht_max_size(1, wanted / items));
}

#define PART_GROUPS 8 /* groups of 32 columns that are worth a part */

/* Parts of the columns that fill the device. */
static size_t count_parts(const ht_cl_device *d, const ht_cl_matmul_row *row, size_t rows, size_t cols, size_t tokens) {
    const size_t wanted = full_groups(d, row) / count_tiles(row, rows, tokens);
    return ht_max_size(1, ht_min_size(ht_min_size(wanted, row->parts), cols / (32 * PART_GROUPS)));
}

/* Work of all tiles, what they waste included, and no less than a full device would do: one that is not full takes as
 * long, and so does a last round of groups that does not fill it. Packing activations costs another launch, which weighs
 * as much as this many weights at speed 1. */
#define PACK_WEIGHTS 112000.0
static double cost(const ht_cl_device *d, const ht_cl_matmul_row *row, size_t rows, size_t cols, size_t tokens) {
    const size_t parts = count_parts(d, row, rows, cols, tokens), full = full_groups(d, row);
    const size_t groups = ht_round_up(count_tiles(row, rows, tokens) * parts, row->features & HT_CL_SIMT ? full : 1);
    return (double)ht_max_size(groups, full) / (double)parts * row->tile_rows * row->tile_tokens / row->speed +
           (row->packed > 1 ? PACK_WEIGHTS / (double)cols : 0);
}

const ht_cl_matmul_row *ht_cl_matmul_by_rule(const ht_cl_device *d, const ht_cl_form *form, size_t rows, size_t cols,
                                             size_t tokens) {
    const ht_cl_matmul_row *best = NULL, *found[HT_COUNT(table)];
    const int n = ht_cl_matmul_candidates(d, form, rows, cols, tokens, found, HT_COUNT(table));
    for (int i = 0; i < n; i++)
        if (!best || cost(d, found[i], rows, cols, tokens) < cost(d, best, rows, cols, tokens))
            best = found[i];
    return best;
}

static const ht_cl_matmul_row *choose(const ht_cl_device *d, const ht_cl_form *form, size_t rows, size_t cols,
                                      size_t tokens) {
    if (d->forced_kernel >= 0) {
        const ht_cl_matmul_row *found[HT_COUNT(table)];
        const int n = ht_cl_matmul_candidates(d, form, rows, cols, tokens, found, HT_COUNT(table));
        return n ? found[d->forced_kernel % n] : NULL;
    }
    const ht_cl_matmul_row *tuned = ht_cl_tuned(d, form, rows, cols, tokens);
    return tuned ? tuned : ht_cl_matmul_by_rule(d, form, rows, cols, tokens);
}

static ht_status kernel_of(ht_cl_device *d, const ht_cl_matmul_row *row, const ht_cl_form *form, const char *name,
                           cl_kernel *kernel, ht_error *error) {
    char options[256];
    ht_cl_form_options(form, options, sizeof options);
    const size_t n = strlen(options);
    snprintf(options + n, sizeof options - n, " %s", row->options);
    return ht_cl_kernel(d, row->source, name, options, kernel, error);
}

/* ---- launches -------------------------------------------------------------------------------------------------------- */

static size_t packed_bytes(const ht_cl_matmul_row *row, size_t tokens, size_t cols) {
    return ht_round_up(tokens, row->tile_tokens) * ht_round_up(cols, 32) * sizeof(float);
}

static ht_status pack_activations(ht_cl_device *d, ht_task *task, const struct ht_cl_choice *choice, cl_uint cols,
                                  const ht_cl_place *in, cl_uint tokens, const char *what, ht_error *error) {
    const ht_cl_matmul_row *row = choice->row;
    const cl_uint stride = (cl_uint)in->stride;
    const ht_cl_argument arguments[] = {HT_CL_ARGUMENT(in->region->memory),
                                        HT_CL_ARGUMENT(in->offset),
                                        HT_CL_ARGUMENT(stride),
                                        HT_CL_ARGUMENT(d->scratch[HT_CL_SCRATCH_ACTS]),
                                        HT_CL_ARGUMENT(cols),
                                        HT_CL_ARGUMENT(tokens)};
    const size_t tiles = (tokens + row->tile_tokens - 1) / row->tile_tokens, local[2] = {row->packed, 1},
                 global[2] = {ht_round_up((cols + 31) / 32, row->packed), row->packed == 1 ? tiles : tokens};
    return ht_cl_launch(d, task, choice->pack, what, arguments, HT_COUNT(arguments), 2, global, local, error);
}

/* The bias belongs to the sum that has the first columns. */
static cl_uint has_bias_for(const ht_cl_weights *w, const ht_cl_window *window) {
    return w->bias != NULL && window->col == 0;
}

static ht_status add_parts(ht_cl_device *d, ht_task *task, const struct ht_cl_choice *choice, const ht_cl_weights *w,
                           const ht_cl_window *window, cl_uint parts, const ht_cl_place *out, cl_uint tokens,
                           const char *what, ht_error *error) {
    const cl_mem bias = w->bias ? w->bias : w->codes;
    const cl_uint stride = (cl_uint)ht_round_up(window->rows, HT_CL_BLOCK), out_stride = (cl_uint)out->stride,
                  has_bias = has_bias_for(w, window);
    const ht_cl_argument arguments[] = {HT_CL_ARGUMENT(d->scratch[HT_CL_SCRATCH_PARTS]),
                                        HT_CL_ARGUMENT(parts),
                                        HT_CL_ARGUMENT(stride),
                                        HT_CL_ARGUMENT(bias),
                                        HT_CL_ARGUMENT(out->region->memory),
                                        HT_CL_ARGUMENT(out->offset),
                                        HT_CL_ARGUMENT(out_stride),
                                        HT_CL_ARGUMENT(window->rows),
                                        HT_CL_ARGUMENT(tokens),
                                        HT_CL_ARGUMENT(has_bias),
                                        HT_CL_ARGUMENT(window->row)};
    const size_t local[2] = {d->local, 1}, global[2] = {ht_round_up(window->rows, d->local), tokens};
    return ht_cl_launch(d, task, choice->add, what, arguments, HT_COUNT(arguments), 2, global, local, error);
}

/* As ht_cl_matmul_launch; `packed`: the activations of a row that wants them so are there already. */
static ht_status launch(ht_cl_device *d, ht_task *task, const struct ht_cl_choice *choice, const ht_cl_weights *w,
                        const ht_cl_window *window, const ht_cl_place *in, const ht_cl_place *out, cl_uint tokens,
                        bool packed, const char *what, ht_error *error) {
    const ht_cl_matmul_row *row = choice->row;
    ht_status status = HT_OK;
    if (row->packed && !packed)
        status = pack_activations(d, task, choice, window->cols, in, tokens, what, error);
    if (status != HT_OK)
        return status;
    const size_t parts = count_parts(d, row, window->rows, window->cols, tokens);
    const cl_mem scales = w->scales ? w->scales : w->codes, mins = w->mins ? w->mins : w->codes,
                 bias = w->bias ? w->bias : w->codes; /* none of these is read */
    const cl_mem x = row->packed ? d->scratch[HT_CL_SCRATCH_ACTS] : in->region->memory;
    const cl_mem to = parts > 1 ? d->scratch[HT_CL_SCRATCH_PARTS] : out->region->memory;
    const cl_ulong x_offset = row->packed ? 0 : in->offset, out_offset = parts > 1 ? 0 : out->offset;
    const cl_uint x_stride = (cl_uint)in->stride,
                  out_stride = (cl_uint)(parts > 1 ? ht_round_up(window->rows, HT_CL_BLOCK) : out->stride),
                  has_bias = parts == 1 && has_bias_for(w, window), first_block = window->row / HT_CL_BLOCK,
                  first_group = window->col / 32, row_groups = (w->cols + 31) / 32;
    const ht_cl_argument arguments[] = {HT_CL_ARGUMENT(w->codes),
                                        HT_CL_ARGUMENT(scales),
                                        HT_CL_ARGUMENT(mins),
                                        HT_CL_ARGUMENT(bias),
                                        HT_CL_ARGUMENT(x),
                                        HT_CL_ARGUMENT(x_offset),
                                        HT_CL_ARGUMENT(x_stride),
                                        HT_CL_ARGUMENT(to),
                                        HT_CL_ARGUMENT(out_offset),
                                        HT_CL_ARGUMENT(out_stride),
                                        HT_CL_ARGUMENT(window->rows),
                                        HT_CL_ARGUMENT(window->cols),
                                        HT_CL_ARGUMENT(tokens),
                                        HT_CL_ARGUMENT(has_bias),
                                        HT_CL_ARGUMENT(first_block),
                                        HT_CL_ARGUMENT(first_group),
                                        HT_CL_ARGUMENT(row_groups)};
    const size_t tiles = (tokens + row->tile_tokens - 1) / row->tile_tokens,
                 wide = (window->rows + row->tile_rows - 1) / row->tile_rows;
    /* Long runs save work, as long as every unit has some. */
    const size_t wanted = (2 * (size_t)d->units + wide - 1) / wide;
    const size_t runs = ht_max_size((tiles + row->run - 1) / row->run, ht_min_size(tiles, wanted));
    const size_t global[3] = {wide * row->local[0], runs * row->local[1], parts},
                 local[3] = {row->local[0], row->local[1], 1};
    status = ht_cl_launch(d, task, choice->kernel, what, arguments, HT_COUNT(arguments), 3, global, local, error);
    return !status && parts > 1 ? add_parts(d, task, choice, w, window, (cl_uint)parts, out, tokens, what, error)
                                : status;
}

ht_status ht_cl_matmul_launch(ht_cl_device *d, ht_task *task, const struct ht_cl_choice *choice,
                              const ht_cl_weights *weights, const ht_cl_window *window, const ht_cl_place *in,
                              const ht_cl_place *out, cl_uint tokens, const char *what, ht_error *error) {
    return launch(d, task, choice, weights, window, in, out, tokens, false, what, error);
}

ht_status ht_cl_matmul_kernels(ht_cl_device *d, const ht_cl_form *form, size_t rows, size_t cols, size_t tokens,
                               struct ht_cl_choice *choice, ht_error *error) {
    const ht_cl_matmul_row *row = choice->row;
    ht_status status = kernel_of(d, row, form, row->kernel, &choice->kernel, error);
    if (!status && row->packed) {
        status = kernel_of(d, row, form, "pack_acts", &choice->pack, error);
        if (!status)
            status = ht_cl_scratch(d, HT_CL_SCRATCH_ACTS, packed_bytes(row, tokens, cols), error);
    }
    const size_t parts = count_parts(d, row, rows, cols, tokens);
    if (!status && row->parts > 1)
        status = kernel_of(d, row, form, "add_parts", &choice->add, error);
    if (!status && parts > 1)
        status = ht_cl_scratch(d, HT_CL_SCRATCH_PARTS, parts * tokens * ht_round_up(rows, HT_CL_BLOCK) * sizeof(float),
                               error);
    return status;
}

/* A part takes what was measured for all of the matrix, else the cheapest kernel that is there already: a ratio that moves
 * from submit to submit shall not wait for a compiler. */
static const ht_cl_matmul_row *choose_for_part(const ht_cl_device *d, const ht_cl_segment *s, size_t rows, size_t cols,
                                               size_t tokens) {
    const ht_cl_weights *w = &s->weights;
    if (d->forced_kernel >= 0)
        return choose(d, &w->form, rows, cols, tokens);
    const ht_cl_matmul_row *tuned = ht_cl_tuned(d, &w->form, w->rows, w->cols, tokens), *best = NULL;
    if (tuned && s->built >> (tuned - table) & 1)
        return tuned;
    const ht_cl_matmul_row *found[HT_COUNT(table)];
    const int n = ht_cl_matmul_candidates(d, &w->form, rows, cols, tokens, found, HT_COUNT(table));
    for (int i = 0; i < n; i++)
        if (s->built >> (found[i] - table) & 1 &&
            (!best || cost(d, found[i], rows, cols, tokens) < cost(d, best, rows, cols, tokens)))
            best = found[i];
    return best;
}

/* The kernels for this window and number of tokens, from memory where they were met before: decoding and chunks, whole and
 * in parts, for each matrix of a fused operator. */
static ht_status find_choice(ht_cl_device *d, ht_cl_segment *s, const ht_cl_window *window, size_t tokens,
                             const struct ht_cl_choice **out, ht_error *error) {
    for (size_t i = 0; i < HT_CL_CHOICES; i++) {
        const struct ht_cl_choice *c = &s->choices[i];
        if (c->tokens == tokens && c->rows == window->rows && c->cols == window->cols) {
            *out = c;
            return HT_OK;
        }
    }
    const ht_cl_weights *w = &s->weights;
    const bool whole = window->rows == w->rows && window->cols == w->cols;
    struct ht_cl_choice *choice = &s->choices[s->n_chosen++ % HT_CL_CHOICES];
    *choice = (struct ht_cl_choice){.rows = window->rows, .cols = window->cols};
    choice->row = whole ? choose(d, &w->form, w->rows, w->cols, tokens)
                        : choose_for_part(d, s, window->rows, window->cols, tokens);
    if (!choice->row)
        return ht_fail(error, HT_ERROR_DEVICE, "%s: no kernel multiplies %zu tokens here", d->caps.name, tokens);
    ht_status status = ht_cl_matmul_kernels(d, &w->form, window->rows, window->cols, tokens, choice, error);
    if (!status)
        choice->tokens = tokens;
    *out = choice;
    return status;
}

/* Rows [first, end) of the operator, in every segment that has some. `packed`: the row whose tiles the scratch holds. */
static ht_status multiply_rows(ht_cl_device *d, ht_task *task, const ht_cl_call *call, size_t first, size_t end,
                               const ht_cl_matmul_row **packed, ht_error *error) {
    const ht_slice *part = &call->part;
    ht_cl_place in = call->in;
    in.offset += part->reduction_begin;
    ht_status status = HT_OK;
    for (size_t i = 0; i < task->n_segments && status == HT_OK; i++) {
        ht_cl_segment *s = &task->segments[i];
        const size_t from = ht_max_size(first, s->first_row), to = ht_min_size(end, s->first_row + s->weights.rows);
        if (from >= to)
            continue;
        const ht_cl_window window = {.row = (cl_uint)(from - s->first_row),
                                     .rows = (cl_uint)(to - from),
                                     .col = (cl_uint)(part->reduction_begin - task->slice.reduction_begin),
                                     .cols = (cl_uint)(part->reduction_end - part->reduction_begin)};
        const struct ht_cl_choice *choice;
        status = find_choice(d, s, &window, call->shape_tokens, &choice, error);
        if (status != HT_OK)
            return status;
        const ht_cl_matmul_row *row = choice->row;
        ht_cl_place out = call->out;
        out.offset += from;
        const bool there = *packed && (*packed)->packed == row->packed && (*packed)->source == row->source &&
                           (row->packed != 1 || (*packed)->tile_tokens == row->tile_tokens);
        status = launch(d, task, choice, &s->weights, &window, &in, &out, call->tokens, there, task->op->name, error);
        if (row->packed)
            *packed = row;
    }
    return status;
}

ht_status ht_cl_matmul_enqueue(ht_cl_device *d, ht_task *task, const ht_cl_call *call, ht_error *error) {
    const ht_cl_matmul_row *packed = NULL;
    ht_cl_run runs[HT_MAX_PARTS];
    const size_t n = ht_cl_matmul_runs(task->op, &call->part, runs);
    ht_status status = HT_OK;
    for (size_t i = 0; i < n && status == HT_OK; i++)
        status = multiply_rows(d, task, call, runs[i].first, runs[i].first + runs[i].width, &packed, error);
    return status;
}

/* ---- tasks ----------------------------------------------------------------------------------------------------------- */

size_t ht_cl_matmul_runs(const ht_op *op, const ht_slice *slice, ht_cl_run runs[HT_MAX_PARTS]) {
    size_t n = 0, base = 0;
    if (!slice->of)
        ht_cl_add_run(runs, &n, slice->row_begin, slice->row_end - slice->row_begin);
    for (int p = 0; p < op->n_parts && slice->of; base += op->parts[p++].rows) {
        const size_t share = op->parts[p].rows / slice->of;
        ht_cl_add_run(runs, &n, base + slice->row_begin * share, (slice->row_end - slice->row_begin) * share);
    }
    return n;
}

/* Can a part begin or end at this row? Packed rows lie in blocks, from the first of each segment on (add_rows). */
static bool on_grain(const ht_op *op, size_t row) {
    size_t base = 0, first = 0; /* first: the segment's */
    for (int p = 0; p < op->n_parts; base += op->parts[p++].rows) {
        const ht_cl_form here = ht_cl_form_of(op->parts[p].type), before = ht_cl_form_of(op->parts[p ? p - 1 : 0].type);
        if (!ht_cl_same_form(&here, &before) || (base - first) % HT_CL_BLOCK)
            first = base;
        if (row < base + op->parts[p].rows)
            return (row - first) % HT_CL_BLOCK == 0;
    }
    return true; /* the last row's end */
}

static const char *off_grain(const ht_op *op, const ht_slice *part) {
    ht_cl_run runs[HT_MAX_PARTS];
    const size_t n = ht_cl_matmul_runs(op, part, runs);
    for (size_t i = 0; i < n; i++)
        if (!on_grain(op, runs[i].first) || !on_grain(op, runs[i].first + runs[i].width))
            return "rows that do not begin and end on multiples of 16 of their matrix";
    return NULL;
}

const char *ht_cl_matmul_refuses(const ht_cl_device *d, const ht_op *op, const ht_slice *slice) {
    const size_t cols = ht_op_cols(op);
    for (int p = 0; p < op->n_parts; p++) {
        if (op->parts[p].type->group && cols % 32)
            return "quantised rows that are no multiple of 32 columns";
        if (slice->of && op->parts[p].rows % slice->of)
            return "a share that is no whole number of rows";
    }
    if (slice->row_begin >= slice->row_end || slice->row_end > (slice->of ? slice->of : ht_op_rows(op)))
        return "no such rows";
    const ht_slice part = ht_cl_resolve(d, op, slice);
    if (part.reduction_begin >= part.reduction_end || part.reduction_end > cols)
        return "no such columns";
    if (part.reduction_begin % 32 || (part.reduction_end % 32 && part.reduction_end != cols))
        return "a range of columns that does not end on multiples of 32";
    return slice->of ? off_grain(op, &part) : NULL; /* a slice of its own is packed from its first row on */
}

const char *ht_cl_matmul_refuses_part(const ht_cl_device *d, const ht_op *op, const ht_slice *part) {
    const char *why = ht_cl_matmul_refuses(d, op, part);
    const ht_slice own = ht_cl_resolve(d, op, part);
    return why ? why : off_grain(op, &own);
}

/* Rows [row, row + n) of one form as segments, each in buffers that the device takes. */
static ht_status add_segments(ht_cl_device *d, ht_task *task, const ht_cl_form *form, size_t row, size_t n,
                              ht_error *error) {
    const size_t first = task->slice.reduction_begin, cols = task->slice.reduction_end - first;
    const size_t bits = form->bits == 17 ? 16 : (size_t)form->bits;
    const size_t block = HT_CL_BLOCK * ht_round_up(cols, 32) * bits / 8; /* codes: larger than scales and minimums */
    const size_t most = block ? (size_t)(d->largest / block) * HT_CL_BLOCK : 0;
    if (!most)
        return ht_fail(error, HT_ERROR_DEVICE,
                       "%s: %s: %d rows of weights are %zu bytes, but the device takes at most "
                       "%llu in one buffer",
                       d->caps.name, task->op->name, HT_CL_BLOCK, block, (unsigned long long)d->largest);
    for (const size_t end = row + n; row < end; row += most) {
        if (task->n_segments == HT_CL_MAX_SEGMENTS)
            return ht_fail(error, HT_ERROR_DEVICE, "%s: %s: rows of %zu bytes need more than %d buffers of %llu bytes",
                           d->caps.name, task->op->name, block / HT_CL_BLOCK, HT_CL_MAX_SEGMENTS,
                           (unsigned long long)d->largest);
        ht_status status = ht_grow((void **)&task->segments, &task->cap_segments, task->n_segments + 1,
                                   sizeof *task->segments, task->op->name, error);
        if (status != HT_OK)
            return status;
        ht_cl_segment *s = &task->segments[task->n_segments];
        *s = (ht_cl_segment){.first_row = row};
        status = ht_cl_weights_create(d, task->op, row, ht_min_size(most, end - row), first, cols, &s->weights, error);
        if (status != HT_OK)
            return status;
        task->n_segments++;
        task->bytes += s->weights.bytes;
    }
    return HT_OK;
}

/* Room for the sums and activations of every kernel that is built, whatever part of the matrix it is given: no submit
 * makes more. Parts of the columns are as many as fill the device, so their sums are never more than it computes at once. */
static ht_status make_room(ht_cl_device *d, const ht_cl_segment *s, ht_error *error) {
    const size_t rows = ht_round_up(s->weights.rows, HT_CL_BLOCK), cols = s->weights.cols;
    size_t sums = 0, acts = 0;
    for (const ht_cl_matmul_row *row = table; row < table + HT_COUNT(table); row++) {
        if (!(s->built >> (row - table) & 1))
            continue;
        const size_t tokens = ht_min_size(d->max_tokens, row->max_tokens);
        const size_t parts = ht_min_size(row->parts, cols / (32 * PART_GROUPS));
        if (parts > 1)
            sums = ht_max_size(
                sums, ht_min_size(parts * tokens * rows, full_groups(d, row) * row->tile_rows * row->tile_tokens));
        if (row->packed)
            acts = ht_max_size(acts, packed_bytes(row, tokens, cols));
    }
    ht_status status = ht_cl_scratch(d, HT_CL_SCRATCH_PARTS, sums * sizeof(float), error);
    return status ? status : ht_cl_scratch(d, HT_CL_SCRATCH_ACTS, acts, error);
}

/* Builds every kernel that a submit of up to max_tokens will choose, and makes room for what they need. */
static ht_status build_kernels(ht_cl_device *d, ht_cl_segment *s, ht_error *error) {
    _Static_assert(HT_COUNT(table) <= 64, "bits of ht_cl_segment.built");
    const ht_cl_weights *w = &s->weights;
    for (size_t tokens = 1; tokens <= d->max_tokens; tokens++) {
        struct ht_cl_choice choice = {.row = choose(d, &w->form, w->rows, w->cols, tokens)};
        if (!choice.row)
            return ht_fail(error, HT_ERROR_DEVICE, "%s: no kernel multiplies %zu tokens here", d->caps.name, tokens);
        const uint64_t bit = UINT64_C(1) << (choice.row - table);
        if (s->built & bit)
            continue;
        s->built |= bit;
        ht_status status = ht_cl_matmul_kernels(d, &w->form, w->rows, w->cols, tokens, &choice, error);
        if (status != HT_OK)
            return status;
    }
    return make_room(d, s, error);
}

/* Rows [begin, rows_end) of the operator as segments, each of one form. A matrix that would begin within a block has its
 * own: shares begin where matrices do. */
static ht_status add_rows(ht_cl_device *d, ht_task *task, size_t begin, size_t rows_end, ht_error *error) {
    const ht_op *op = task->op;
    ht_cl_form form = {0};
    size_t base = 0, end = begin; /* [begin, end): rows of `form` seen so far */
    ht_status status = HT_OK;
    for (int p = 0; p < op->n_parts && status == HT_OK; base += op->parts[p++].rows) {
        const size_t part_end = ht_min_size(base + op->parts[p].rows, rows_end);
        if (part_end <= end)
            continue;
        const ht_cl_form here = ht_cl_form_of(op->parts[p].type);
        if (end > begin && (!ht_cl_same_form(&form, &here) || (end - begin) % HT_CL_BLOCK)) {
            status = add_segments(d, task, &form, begin, end - begin, error);
            begin = end;
        }
        form = here;
        end = part_end;
    }
    return status ? status : add_segments(d, task, &form, begin, end - begin, error);
}

ht_status ht_cl_matmul_segments(ht_cl_device *d, ht_task *task, ht_error *error) {
    ht_cl_run runs[HT_MAX_PARTS];
    const size_t n = ht_cl_matmul_runs(task->op, &task->slice, runs);
    ht_status status = HT_OK;
    for (size_t i = 0; i < n && status == HT_OK; i++)
        status = add_rows(d, task, runs[i].first, runs[i].first + runs[i].width, error);
    return status;
}

ht_status ht_cl_matmul_prepare(ht_cl_device *d, ht_task *task, ht_error *error) {
    ht_status status = ht_cl_matmul_segments(d, task, error);
    for (size_t i = 0; i < task->n_segments && status == HT_OK; i++)
        status = build_kernels(d, &task->segments[i], error);
    return status;
}

#else
typedef int ht_cl_matmul_is_empty; /* ISO C wants something in every file */
#endif
