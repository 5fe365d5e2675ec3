/* MATMUL: runs of rows with one form become segments, each with packed weights (weights.c) and, for every number of tokens,
 * a row of the table of kernels. */
#include "device/opencl/kernel.h"
#include "device/opencl/matmul.h"
#include "device/opencl/slice.h"
#include "device/opencl/tiles.h"
#include "device/opencl/weights.h"

#if HT_HAVE_OPENCL
#include <stdio.h>
#include <string.h>

/* ---- choosing --------------------------------------------------------------------------------------------------------- */

static const ht_cl_matmul_row *choose(const ht_cl_device *d, const ht_cl_form *form, size_t rows, size_t cols,
                                      size_t tokens) {
    if (d->forced_kernel >= 0) {
        const ht_cl_matmul_row *found[HT_CL_MATMUL_ROWS];
        const int n = ht_cl_matmul_candidates(d, form, rows, cols, tokens, found, HT_CL_MATMUL_ROWS);
        return n ? found[d->forced_kernel % n] : NULL;
    }
    const ht_cl_matmul_row *tuned = ht_cl_tuned(d, form, rows, cols, tokens);
    return tuned ? tuned : ht_cl_matmul_by_rule(d, form, rows, cols, tokens);
}

ht_status ht_cl_matmul_kernel(ht_cl_device *d, const ht_cl_matmul_row *row, const ht_cl_form *form, const char *name,
                              const char *more, cl_kernel *kernel, ht_error *error) {
    char options[256];
    ht_cl_form_options(form, options, sizeof options);
    const size_t n = strlen(options);
    snprintf(options + n, sizeof options - n, " %s%s", row->options, more);
    return ht_cl_kernel(d, row->source, name, options, kernel, error);
}

/* ---- launches -------------------------------------------------------------------------------------------------------- */

static size_t packed_bytes(const ht_cl_matmul_row *row, size_t tokens, size_t cols) {
    return ht_round_up(tokens, row->tile_tokens) * ht_round_up(cols, 32) * sizeof(float);
}

static ht_status pack_activations(ht_cl_device *d, ht_task *task, const ht_cl_product *p, ht_error *error) {
    const ht_cl_matmul_row *row = p->choice->row;
    const ht_cl_place *in = p->in;
    const cl_uint cols = p->window.cols, tokens = p->tokens;
    const cl_uint stride = (cl_uint)in->stride;
    const ht_cl_argument arguments[] = {HT_CL_ARGUMENT(in->region->memory),
                                        HT_CL_ARGUMENT(in->offset),
                                        HT_CL_ARGUMENT(stride),
                                        HT_CL_ARGUMENT(d->scratch[HT_CL_SCRATCH_ACTS]),
                                        HT_CL_ARGUMENT(cols),
                                        HT_CL_ARGUMENT(tokens)};
    const size_t tiles = (tokens + row->tile_tokens - 1) / row->tile_tokens, local[2] = {row->packed, 1},
                 global[2] = {ht_round_up((cols + 31) / 32, row->packed), row->packed == 1 ? tiles : tokens};
    return ht_cl_launch(d, task, p->choice->pack, arguments, HT_COUNT(arguments), &(ht_cl_grid){2, global, local},
                        error);
}

/* The bias belongs to the sum that has the first columns. */
static cl_uint has_bias_for(const ht_cl_weights *w, const ht_cl_window *window) {
    return w->bias != NULL && window->col == 0;
}

static ht_status add_parts(ht_cl_device *d, ht_task *task, const ht_cl_product *p, cl_uint parts, ht_error *error) {
    const ht_cl_weights *w = p->weights;
    const ht_cl_window *window = &p->window;
    const ht_cl_place *out = p->out;
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
                                        HT_CL_ARGUMENT(p->tokens),
                                        HT_CL_ARGUMENT(has_bias),
                                        HT_CL_ARGUMENT(window->row)};
    const size_t local[2] = {d->local, 1}, global[2] = {ht_round_up(window->rows, d->local), p->tokens};
    return ht_cl_launch(d, task, p->choice->add, arguments, HT_COUNT(arguments), &(ht_cl_grid){2, global, local},
                        error);
}

/* As ht_cl_matmul_launch; `packed`: the activations of a row that wants them so are there already. */
static ht_status launch(ht_cl_device *d, ht_task *task, const ht_cl_product *p, bool packed, ht_error *error) {
    const ht_cl_matmul_row *row = p->choice->row;
    const ht_cl_weights *w = p->weights;
    const ht_cl_window *window = &p->window;
    const ht_cl_place *in = p->in, *out = p->out;
    const cl_uint tokens = p->tokens;
    ht_status status = row->packed && !packed ? pack_activations(d, task, p, error) : HT_OK;
    if (status != HT_OK)
        return status;
    const size_t parts = ht_cl_matmul_parts(d, row, window->rows, window->cols, tokens);
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
    status = ht_cl_launch(d, task, p->choice->kernel, arguments, HT_COUNT(arguments), &(ht_cl_grid){3, global, local},
                          error);
    return !status && parts > 1 ? add_parts(d, task, p, (cl_uint)parts, error) : status;
}

ht_status ht_cl_matmul_launch(ht_cl_device *d, ht_task *task, const ht_cl_product *product, ht_error *error) {
    return launch(d, task, product, false, error);
}

ht_status ht_cl_matmul_kernels(ht_cl_device *d, const ht_cl_form *form, size_t rows, size_t cols, size_t tokens,
                               struct ht_cl_choice *choice, ht_error *error) {
    const ht_cl_matmul_row *row = choice->row;
    ht_status status = ht_cl_matmul_kernel(d, row, form, row->kernel, "", &choice->kernel, error);
    if (!status && row->packed) {
        status = ht_cl_matmul_kernel(d, row, form, "pack_acts", "", &choice->pack, error);
        if (!status)
            status = ht_cl_scratch(d, HT_CL_SCRATCH_ACTS, packed_bytes(row, tokens, cols), error);
    }
    const size_t parts = ht_cl_matmul_parts(d, row, rows, cols, tokens);
    if (!status && row->parts > 1)
        status = ht_cl_matmul_kernel(d, row, form, "add_parts", "", &choice->add, error);
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
    if (tuned && s->built & ht_cl_matmul_bit(tuned))
        return tuned;
    const ht_cl_matmul_row *found[HT_CL_MATMUL_ROWS];
    const int n = ht_cl_matmul_candidates(d, &w->form, rows, cols, tokens, found, HT_CL_MATMUL_ROWS);
    for (int i = 0; i < n; i++)
        if (s->built & ht_cl_matmul_bit(found[i]) && (!best || ht_cl_matmul_cost(d, found[i], rows, cols, tokens) <
                                                                   ht_cl_matmul_cost(d, best, rows, cols, tokens)))
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
        ht_cl_place out = call->out;
        out.offset += from;
        ht_cl_product product = {.weights = &s->weights,
                                 .window = {.row = (cl_uint)(from - s->first_row),
                                            .rows = (cl_uint)(to - from),
                                            .col = (cl_uint)(part->reduction_begin - task->slice.reduction_begin),
                                            .cols = (cl_uint)(part->reduction_end - part->reduction_begin)},
                                 .in = &in,
                                 .out = &out,
                                 .tokens = call->tokens};
        const struct ht_cl_choice *choice;
        status = find_choice(d, s, &product.window, call->shape_tokens, &choice, error);
        if (status != HT_OK)
            return status;
        product.choice = choice;
        const ht_cl_matmul_row *row = choice->row;
        const bool there = *packed && (*packed)->packed == row->packed && (*packed)->source == row->source &&
                           (row->packed != 1 || (*packed)->tile_tokens == row->tile_tokens);
        status = launch(d, task, &product, there, error);
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
    for (int p = 0; p < op->n_parts; p++)
        if (op->parts[p].type->group && cols % 32)
            return "quantised rows that are not a multiple of 32 columns";
    if (slice->of && !ht_share_fits(op, slice))
        return "a share that is not a whole number of rows";
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
    const ht_cl_matmul_row *row;
    for (size_t i = 0; (row = ht_cl_matmul_row_at(i)); i++) {
        if (!(s->built & ht_cl_matmul_bit(row)))
            continue;
        const size_t tokens = ht_min_size(d->max_tokens, row->max_tokens);
        sums = ht_max_size(sums, ht_cl_matmul_most_sums(d, row, rows, cols, tokens));
        if (row->packed)
            acts = ht_max_size(acts, packed_bytes(row, tokens, cols));
    }
    ht_status status = ht_cl_scratch(d, HT_CL_SCRATCH_PARTS, sums * sizeof(float), error);
    return status ? status : ht_cl_scratch(d, HT_CL_SCRATCH_ACTS, acts, error);
}

/* Builds every kernel that a submit of up to max_tokens will choose, and makes room for what they need. */
static ht_status build_kernels(ht_cl_device *d, ht_cl_segment *s, ht_error *error) {
    const ht_cl_weights *w = &s->weights;
    for (size_t tokens = 1; tokens <= d->max_tokens; tokens++) {
        struct ht_cl_choice choice = {.row = choose(d, &w->form, w->rows, w->cols, tokens)};
        if (!choice.row)
            return ht_fail(error, HT_ERROR_DEVICE, "%s: no kernel multiplies %zu tokens here", d->caps.name, tokens);
        const uint64_t bit = ht_cl_matmul_bit(choice.row);
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
