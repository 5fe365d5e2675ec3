/* The operators besides MATMUL and ATTENTION, and the table of all of them. */
#include "device/opencl/experts.h"
#include "device/opencl/kernel.h"
#include "device/opencl/matmul.h"
#include "device/opencl/ops.h"
#include "device/opencl/slice.h"
#include "device/opencl/streams.h"
#include "device/opencl/weights.h"

#if HT_HAVE_OPENCL
#include <stdio.h>
#include <string.h>

#define ROPE_ITEMS 32  /* work-items of a head on GPUs */
#define PICKERS 1024   /* of ARGMAX's group there, at most */
#define GLU_RUN 8      /* vectors of GLU in a work-item on CPUs, where a group costs as much as many of them */
#define HEADS_TOKENS 8 /* of HEADS in a work-item, by which a weight is read once */
#define EMBED_RUN 64   /* columns of EMBED, likewise */

static bool on_cpu(const ht_cl_device *d) {
    return d->features & HT_CL_VECTOR;
}

/* ---- slices ----------------------------------------------------------------------------------------------------------- */

/* EMBED and ARGMAX have no parts, nor has NORM: its sum of squares is that of the whole row. */
static const char *refuses_parts(const ht_cl_device *d, const ht_op *op, const ht_slice *slice) {
    (void)d;
    const bool rows = slice->row_begin || (slice->row_end && slice->row_end != ht_op_rows(op)),
               cols = slice->reduction_begin || (slice->reduction_end && slice->reduction_end != ht_op_cols(op));
    return slice->of || rows || cols ? "a part of an operator that is computed whole" : NULL;
}

static const char *refuses_shares(const ht_cl_device *d, const ht_op *op, const ht_slice *slice) {
    if (!slice->of)
        return refuses_parts(d, op, slice);
    if (op->norm_whole)
        return "whole rows of heads are normed";
    const ht_hparams shape = ht_op_shape(op, &d->hparams);
    const size_t units = ht_cl_units_of(d, op), each = units / slice->of;
    if (op->kind == HT_OP_GLU ? units % slice->of != 0 : !ht_counts_heads(slice, &shape))
        return "a share that is not counted in key-value or query heads, or equal parts of a GLU";
    if (slice->reduction_begin || slice->reduction_end)
        return "a range of columns of an operator without a sum over columns";
    if (slice->row_begin >= slice->row_end || slice->row_end > slice->of)
        return "no such heads or features";
    /* whole vectors: a part's numbers are those of the whole, to the last bit */
    const bool whole = slice->row_begin * each % HT_CL_BLOCK == 0 &&
                       (slice->row_end * each % HT_CL_BLOCK == 0 || slice->row_end == slice->of);
    if (op->sparsity > 0 && slice->row_end - slice->row_begin < slice->of)
        return "gates are compared with what all of them are";
    return op->kind == HT_OP_GLU && !whole ? "features that do not begin and end on multiples of 16" : NULL;
}

static const char *refuses_attention(const ht_cl_device *d, const ht_op *op, const ht_slice *slice) {
    return op->both_ways ? "attention in both directions" : refuses_shares(d, op, slice);
}

/* Some buffer where a kernel has an argument that it will not read. */
static cl_mem table_or(const ht_task *task, size_t which, cl_mem other) {
    return task->tables[which] ? task->tables[which] : other;
}

/* ---- NORM, GLU, ARGMAX: pointwise.cl
 * ----------------------------------------------------------------------------------- */

static size_t pickers(const ht_cl_device *d) {
    size_t n = 1;
    while (!on_cpu(d) && n * 2 <= d->largest_group && n < PICKERS)
        n *= 2;
    return n;
}

/* pointwise.cl has their numbers. */
_Static_assert(HT_ACT_SILU == 0 && HT_ACT_GELU_TANH == 1 && HT_ACT_GELU == 2 && HT_ACT_RELU2 == 3 &&
                   HT_ACT_SIGMOID == 4 && HT_ACT_CLAMPED == 5,
               "activations");

static size_t glu_run(const ht_cl_device *d) {
    return on_cpu(d) ? GLU_RUN : 1;
}

static ht_status pointwise(ht_cl_device *d, const char *name, cl_kernel *kernel, ht_error *error) {
    char options[64];
    snprintf(options, sizeof options, "-DPICKERS=%zu -DRUN=%zu", pickers(d), glu_run(d));
    return ht_cl_kernel(d, "pointwise", name, options, kernel, error);
}

/* pointwise.cl's bits. */
static cl_uint norm_mode(ht_norm norm) {
    return norm == HT_NORM_LAYER ? 4 : norm == HT_NORM_NONE ? 8 : 0;
}

static ht_status norm_prepare(ht_cl_device *d, ht_task *task, ht_error *error) {
    const size_t n = (size_t)task->shape.embedding;
    ht_status status = ht_cl_table(d, task, 0, task->op->weight, n, error);
    if (status == HT_OK)
        status = ht_cl_table(d, task, 1, task->op->post_norm, n, error);
    if (status == HT_OK)
        status = ht_cl_table(d, task, 2, task->op->norm_bias, n, error);
    if (status == HT_OK)
        status = pointwise(d, "norm", &task->kernels[0], error);
    if (status == HT_OK)
        status = pointwise(d, "norm_pieces", &task->kernels[1], error);
    return status || !ht_norm_is_special(task->op) ? status : ht_cl_norm_special_prepare(d, task, error);
}

static ht_status norm_enqueue(ht_cl_device *d, ht_task *task, const ht_cl_call *call, ht_error *error) {
    const ht_op *op = task->op;
    const bool adds = op->aux != HT_SLOT_NONE;
    if (ht_norm_is_special(op))
        return ht_cl_norm_special_enqueue(d, task, call, error);
    const ht_cl_place *in = &call->in, *aux = adds ? &call->aux : in, *out = &call->out;
    const cl_uint strides[] = {(cl_uint)in->stride, (cl_uint)aux->stride, (cl_uint)out->stride};
    const cl_uint n = (cl_uint)task->shape.embedding, mode = norm_mode(op->norm) |
                                                             (!adds           ? 0
                                                              : op->post_norm ? 2
                                                                              : 1) |
                                                             (op->norm_bias ? 16 : 0);
    const cl_mem weight = table_or(task, 0, in->region->memory), post = table_or(task, 1, weight),
                 bias = table_or(task, 2, weight);
    const cl_uint pieces = (cl_uint)call->n_pieces;
    const ht_cl_place *piece[HT_MAX_PIECES]; /* aux for those that are not read */
    cl_uint piece_strides[HT_MAX_PIECES];
    for (size_t i = 0; i < HT_MAX_PIECES; i++) {
        piece[i] = i < pieces ? &call->pieces[i] : aux;
        piece_strides[i] = (cl_uint)piece[i]->stride;
    }
    const ht_cl_argument arguments[] = {HT_CL_ARGUMENT(in->region->memory),
                                        HT_CL_ARGUMENT(in->offset),
                                        HT_CL_ARGUMENT(strides[0]),
                                        HT_CL_ARGUMENT(aux->region->memory),
                                        HT_CL_ARGUMENT(aux->offset),
                                        HT_CL_ARGUMENT(strides[1]),
                                        HT_CL_ARGUMENT(post),
                                        HT_CL_ARGUMENT(weight),
                                        HT_CL_ARGUMENT(bias),
                                        HT_CL_ARGUMENT(out->region->memory),
                                        HT_CL_ARGUMENT(out->offset),
                                        HT_CL_ARGUMENT(strides[2]),
                                        HT_CL_ARGUMENT(n),
                                        HT_CL_ARGUMENT(op->eps),
                                        HT_CL_ARGUMENT(mode),
                                        HT_CL_ARGUMENT(piece[0]->region->memory),
                                        HT_CL_ARGUMENT(piece[0]->offset),
                                        HT_CL_ARGUMENT(piece_strides[0]),
                                        HT_CL_ARGUMENT(piece[1]->region->memory),
                                        HT_CL_ARGUMENT(piece[1]->offset),
                                        HT_CL_ARGUMENT(piece_strides[1]),
                                        HT_CL_ARGUMENT(piece[2]->region->memory),
                                        HT_CL_ARGUMENT(piece[2]->offset),
                                        HT_CL_ARGUMENT(piece_strides[2]),
                                        HT_CL_ARGUMENT(pieces)};
    const size_t global = call->tokens * d->local, n_arguments = HT_COUNT(arguments) - (pieces ? 0 : 10);
    return ht_cl_launch(d, task, task->kernels[pieces > 0], arguments, n_arguments,
                        &(ht_cl_grid){1, &global, &d->local}, error);
}

static ht_status glu_prepare(ht_cl_device *d, ht_task *task, ht_error *error) {
    ht_status status = pointwise(d, "glu", &task->kernels[0], error);
    return status ? status : ht_cl_sparse_prepare(d, task, error);
}

static ht_status glu_enqueue(ht_cl_device *d, ht_task *task, const ht_cl_call *call, ht_error *error) {
    const ht_op *op = task->op;
    const size_t features = (size_t)task->shape.feed_forward, each = features / call->part.of;
    const size_t first = call->part.row_begin * each;
    const ht_cl_place *in = &call->in, *up = op->n_more ? &call->aux : in, *out = &call->out;
    const cl_uint up_stride = (cl_uint)up->stride, out_stride = (cl_uint)out->stride;
    const cl_ulong in_offset = in->offset + first, out_offset = out->offset + first,
                   up_offset = up->offset + first +
                               (op->n_more    ? op->more_first
                                : op->ungated ? 0
                                              : features);
    const cl_uint n = (cl_uint)(call->part.row_end * each - first), kind = (cl_uint)op->activation,
                  gated = !op->ungated;
    /* gates that go on have been put where the result will be */
    const ht_cl_place *gates = op->sparsity > 0 ? out : in;
    const cl_uint gate_stride = (cl_uint)gates->stride;
    const cl_ulong gate_offset = op->sparsity > 0 ? out_offset : in_offset;
    const ht_cl_argument arguments[] = {HT_CL_ARGUMENT(gates->region->memory),
                                        HT_CL_ARGUMENT(gate_offset),
                                        HT_CL_ARGUMENT(gate_stride),
                                        HT_CL_ARGUMENT(up->region->memory),
                                        HT_CL_ARGUMENT(up_offset),
                                        HT_CL_ARGUMENT(up_stride),
                                        HT_CL_ARGUMENT(out->region->memory),
                                        HT_CL_ARGUMENT(out_offset),
                                        HT_CL_ARGUMENT(out_stride),
                                        HT_CL_ARGUMENT(n),
                                        HT_CL_ARGUMENT(kind),
                                        HT_CL_ARGUMENT(gated)};
    if (op->sparsity > 0) {
        ht_status status = ht_cl_sparse_enqueue(d, task, call, error);
        if (status != HT_OK)
            return status;
    }
    const size_t chunk = d->vector * glu_run(d), local[2] = {d->local, 1};
    const size_t global[2] = {ht_round_up((n + chunk - 1) / chunk, d->local), call->tokens};
    return ht_cl_launch(d, task, task->kernels[0], arguments, HT_COUNT(arguments), &(ht_cl_grid){2, global, local},
                        error);
}

static ht_status argmax_prepare(ht_cl_device *d, ht_task *task, ht_error *error) {
    return pointwise(d, "argmax", &task->kernels[0], error);
}

static ht_status argmax_enqueue(ht_cl_device *d, ht_task *task, const ht_cl_call *call, ht_error *error) {
    const ht_cl_place *in = &call->in, *out = &call->out;
    const cl_uint in_stride = (cl_uint)in->stride, out_stride = (cl_uint)out->stride,
                  n = (cl_uint)task->shape.vocabulary;
    const ht_cl_argument arguments[] = {HT_CL_ARGUMENT(in->region->memory),
                                        HT_CL_ARGUMENT(in->offset),
                                        HT_CL_ARGUMENT(in_stride),
                                        HT_CL_ARGUMENT(out->region->memory),
                                        HT_CL_ARGUMENT(out->offset),
                                        HT_CL_ARGUMENT(out_stride),
                                        HT_CL_ARGUMENT(n),
                                        HT_CL_ARGUMENT(task->op->soft_cap)};
    const size_t local = pickers(d), global = call->tokens * local;
    return ht_cl_launch(d, task, task->kernels[0], arguments, HT_COUNT(arguments), &(ht_cl_grid){1, &global, &local},
                        error);
}

/* ---- EMBED
 * --------------------------------------------------------------------------------------------------------------- */

static size_t embed_run(const ht_cl_device *d) {
    return on_cpu(d) ? EMBED_RUN : 1;
}

static ht_status embed_prepare(ht_cl_device *d, ht_task *task, ht_error *error) {
    /* segments as a MATMUL over all rows and columns has them: a tied head shares their buffers */
    task->slice = (ht_slice){.row_end = task->op->parts[0].rows, .reduction_end = task->op->parts[0].cols};
    ht_status status = ht_cl_matmul_segments(d, task, error);
    if (status != HT_OK)
        return status;
    char options[128];
    ht_cl_form_options(&task->segments[0].weights.form, options, sizeof options);
    const size_t n = strlen(options);
    snprintf(options + n, sizeof options - n, " -DRUN=%zu", embed_run(d));
    return ht_cl_kernel(d, "embed", "embed", options, &task->kernels[0], error);
}

static ht_status embed_enqueue(ht_cl_device *d, ht_task *task, const ht_cl_call *call, ht_error *error) {
    const ht_cl_place *in = &call->in, *out = &call->out;
    const cl_uint in_stride = (cl_uint)in->stride, out_stride = (cl_uint)out->stride;
    const cl_uint by_position = task->op->positions, position = (cl_uint)call->binding->position;
    const size_t run = embed_run(d), local[2] = {d->local, 1};
    for (size_t i = 0; i < task->n_segments; i++) {
        const ht_cl_weights *w = &task->segments[i].weights;
        const cl_uint first = (cl_uint)task->segments[i].first_row;
        const cl_mem scales = w->scales ? w->scales : w->codes, mins = w->mins ? w->mins : w->codes;
        const ht_cl_argument arguments[] = {HT_CL_ARGUMENT(w->codes),
                                            HT_CL_ARGUMENT(scales),
                                            HT_CL_ARGUMENT(mins),
                                            HT_CL_ARGUMENT(in->region->memory),
                                            HT_CL_ARGUMENT(in->offset),
                                            HT_CL_ARGUMENT(in_stride),
                                            HT_CL_ARGUMENT(out->region->memory),
                                            HT_CL_ARGUMENT(out->offset),
                                            HT_CL_ARGUMENT(out_stride),
                                            HT_CL_ARGUMENT(first),
                                            HT_CL_ARGUMENT(w->rows),
                                            HT_CL_ARGUMENT(w->cols),
                                            HT_CL_ARGUMENT(task->op->scale),
                                            HT_CL_ARGUMENT(by_position),
                                            HT_CL_ARGUMENT(position)};
        const size_t global[2] = {ht_round_up((w->cols + run - 1) / run, d->local), call->tokens};
        ht_status status = ht_cl_launch(d, task, task->kernels[0], arguments, HT_COUNT(arguments),
                                        &(ht_cl_grid){2, global, local}, error);
        if (status != HT_OK)
            return status;
    }
    return HT_OK;
}

/* ---- HEADS
 * --------------------------------------------------------------------------------------------------------------- */

static ht_status heads_kernel(ht_cl_device *d, const ht_task *task, const char *name, cl_kernel *kernel,
                              ht_error *error) {
    char options[128];
    ht_cl_form_options(&task->segments[0].weights.form, options, sizeof options);
    const size_t n = strlen(options);
    snprintf(options + n, sizeof options - n, " -DTOKENS=%d", HEADS_TOKENS);
    return ht_cl_kernel(d, "heads", name, options, kernel, error);
}

static ht_status heads_prepare(ht_cl_device *d, ht_task *task, ht_error *error) {
    const ht_slice own = task->slice;
    task->slice = (ht_slice){.row_end = task->op->parts[0].rows, .reduction_end = task->op->parts[0].cols};
    ht_status status = ht_cl_matmul_segments(d, task, error);
    task->slice = own;
    if (status == HT_OK)
        status = heads_kernel(d, task, "heads", &task->kernels[0], error);
    return status ? status : heads_kernel(d, task, "copy_rest", &task->kernels[1], error);
}

/* Values that are handed on as they are. */
static ht_status copy_rest(ht_cl_device *d, ht_task *task, const ht_cl_call *call, const ht_heads *own,
                           ht_error *error) {
    const ht_op *op = task->op;
    const ht_cl_place *in = &call->in, *more = op->n_more && call->aux.region ? &call->aux : in, *out = &call->out;
    const cl_uint all = (cl_uint)task->shape.heads, width = (cl_uint)task->shape.head_dim, rest = (cl_uint)op->rest,
                  each = (cl_uint)op->parts[0].rows / all, cols = (cl_uint)op->parts[0].cols,
                  head = (cl_uint)own->queries, n = (cl_uint)(own->queries_end - own->queries),
                  copied = own->own < own->used_end ? (cl_uint)op->n_copied : 0, last = all * (each + rest);
    const cl_uint in_stride = (cl_uint)in->stride, more_stride = (cl_uint)more->stride,
                  out_stride = (cl_uint)out->stride;
    const cl_ulong from = more->offset + (op->n_more ? op->more_first : (size_t)all * width);
    const ht_cl_argument arguments[] = {HT_CL_ARGUMENT(in->region->memory),
                                        HT_CL_ARGUMENT(in->offset),
                                        HT_CL_ARGUMENT(in_stride),
                                        HT_CL_ARGUMENT(more->region->memory),
                                        HT_CL_ARGUMENT(from),
                                        HT_CL_ARGUMENT(more_stride),
                                        HT_CL_ARGUMENT(out->region->memory),
                                        HT_CL_ARGUMENT(out->offset),
                                        HT_CL_ARGUMENT(out_stride),
                                        HT_CL_ARGUMENT(head),
                                        HT_CL_ARGUMENT(n),
                                        HT_CL_ARGUMENT(rest),
                                        HT_CL_ARGUMENT(each),
                                        HT_CL_ARGUMENT(width),
                                        HT_CL_ARGUMENT(cols),
                                        HT_CL_ARGUMENT(copied),
                                        HT_CL_ARGUMENT(last)};
    const size_t local[2] = {d->local, 1}, global[2] = {ht_round_up(n * rest + copied, d->local), call->tokens};
    return global[0] ? ht_cl_launch(d, task, task->kernels[1], arguments, HT_COUNT(arguments),
                                    &(ht_cl_grid){2, global, local}, error)
                     : HT_OK;
}

static ht_status heads_enqueue(ht_cl_device *d, ht_task *task, const ht_cl_call *call, ht_error *error) {
    const ht_op *op = task->op;
    const ht_cl_place *in = &call->in, *out = &call->out;
    const ht_heads own = ht_slice_heads(&call->part, &task->shape);
    const cl_uint in_stride = (cl_uint)in->stride, out_stride = (cl_uint)out->stride,
                  each = (cl_uint)(op->parts[0].rows / (size_t)task->shape.heads),
                  width = (cl_uint)task->shape.head_dim, rest = (cl_uint)op->rest;
    const size_t from = own.queries * each, to = own.queries_end * each, local[2] = {d->local, 1};
    ht_status status = copy_rest(d, task, call, &own, error);
    for (size_t i = 0; i < task->n_segments && status == HT_OK; i++) {
        const ht_cl_weights *w = &task->segments[i].weights;
        const size_t base = task->segments[i].first_row;
        const cl_uint first = (cl_uint)base, begin = (cl_uint)(ht_max_size(from, base) - base),
                      end = (cl_uint)(ht_max_size(ht_min_size(to, base + w->rows), base) - base);
        const cl_mem scales = w->scales ? w->scales : w->codes, mins = w->mins ? w->mins : w->codes;
        const ht_cl_argument arguments[] = {HT_CL_ARGUMENT(w->codes),
                                            HT_CL_ARGUMENT(scales),
                                            HT_CL_ARGUMENT(mins),
                                            HT_CL_ARGUMENT(in->region->memory),
                                            HT_CL_ARGUMENT(in->offset),
                                            HT_CL_ARGUMENT(in_stride),
                                            HT_CL_ARGUMENT(out->region->memory),
                                            HT_CL_ARGUMENT(out->offset),
                                            HT_CL_ARGUMENT(out_stride),
                                            HT_CL_ARGUMENT(first),
                                            HT_CL_ARGUMENT(begin),
                                            HT_CL_ARGUMENT(end),
                                            HT_CL_ARGUMENT(w->cols),
                                            HT_CL_ARGUMENT(each),
                                            HT_CL_ARGUMENT(width),
                                            HT_CL_ARGUMENT(rest),
                                            HT_CL_ARGUMENT(call->tokens)};
        const size_t global[2] = {ht_round_up(end > begin ? end - begin : 0, d->local),
                                  (call->tokens + HEADS_TOKENS - 1) / HEADS_TOKENS};
        if (global[0])
            status = ht_cl_launch(d, task, task->kernels[0], arguments, HT_COUNT(arguments),
                                  &(ht_cl_grid){2, global, local}, error);
    }
    return status;
}

/* ---- ROPE
 * ---------------------------------------------------------------------------------------------------------------- */

static size_t rope_items(const ht_cl_device *d) {
    return on_cpu(d) ? 1 : ROPE_ITEMS;
}

static ht_status rope_kernel(ht_cl_device *d, const ht_task *task, ht_kv_type type, cl_kernel *kernel,
                             ht_error *error) {
    const ht_op *op = task->op;
    char options[160];
    snprintf(options, sizeof options,
             "-DDIM=%d -DROPE_DIM=%d -DROPE_FIRST=%d -DNORM_DIM=%d -DNORM_AFTER=%d -DHALVES=%d -DKV_F32=%d "
             "-DITEMS=%zu",
             task->shape.head_dim, op->rope_dim, op->rope_first, op->norm_dim ? op->norm_dim : task->shape.head_dim,
             op->norm_after, op->rope_halves, type == HT_KV_F32, rope_items(d));
    return ht_cl_kernel(d, "rope", "rope", options, kernel, error);
}

enum { ROPE_ANGLES, ROPE_Q_NORM, ROPE_K_NORM, ROPE_QUERY_ANGLES };

static ht_status rope_prepare(ht_cl_device *d, ht_task *task, ht_error *error) {
    const ht_op *op = task->op;
    const ht_hparams *h = &task->shape;
    const size_t rows = d->max_context * (size_t)op->rope_dim;
    const size_t each = (size_t)(op->norm_dim ? op->norm_dim : h->head_dim);
    const bool all = op->norm_whole || op->norm_heads;
    cl_kernel kernel;
    ht_status status = ht_cl_table(d, task, ROPE_ANGLES, op->rope_dim ? op->rope : NULL, rows, error);
    if (status == HT_OK)
        status = ht_cl_table(d, task, ROPE_QUERY_ANGLES, op->rope_dim ? op->rope_queries : NULL, rows, error);
    if (status == HT_OK)
        status = ht_cl_table(d, task, ROPE_Q_NORM, op->q_norm, each * (all ? (size_t)h->heads : 1), error);
    if (status == HT_OK)
        status = ht_cl_table(d, task, ROPE_K_NORM, op->k_norm, each * (all ? (size_t)h->kv_heads : 1), error);
    if (status == HT_OK && op->norm_whole)
        status = pointwise(d, "norm", &task->kernels[0], error);
    return status ? status : rope_kernel(d, task, op->shared ? HT_KV_F32 : d->kv_type, &kernel, error);
}

/* A row of all queries or all keys, in place. */
static ht_status norm_row(ht_cl_device *d, ht_task *task, const ht_cl_call *call, int which, size_t first, size_t width,
                          ht_error *error) {
    const ht_cl_place *in = &call->in;
    const cl_uint stride = (cl_uint)in->stride, n = (cl_uint)width, mode = norm_mode(task->op->norm);
    const cl_ulong offset = in->offset + first;
    const cl_mem weight = task->tables[which];
    if (!weight)
        return HT_OK;
    const ht_cl_argument arguments[] = {HT_CL_ARGUMENT(in->region->memory),
                                        HT_CL_ARGUMENT(offset),
                                        HT_CL_ARGUMENT(stride),
                                        HT_CL_ARGUMENT(in->region->memory),
                                        HT_CL_ARGUMENT(offset),
                                        HT_CL_ARGUMENT(stride),
                                        HT_CL_ARGUMENT(weight),
                                        HT_CL_ARGUMENT(weight),
                                        HT_CL_ARGUMENT(weight),
                                        HT_CL_ARGUMENT(in->region->memory),
                                        HT_CL_ARGUMENT(offset),
                                        HT_CL_ARGUMENT(stride),
                                        HT_CL_ARGUMENT(n),
                                        HT_CL_ARGUMENT(task->op->eps),
                                        HT_CL_ARGUMENT(mode)};
    const size_t global = call->tokens * d->local;
    return ht_cl_launch(d, task, task->kernels[0], arguments, HT_COUNT(arguments), &(ht_cl_grid){1, &global, &d->local},
                        error);
}

static ht_status norm_rows(ht_cl_device *d, ht_task *task, const ht_cl_call *call, ht_error *error) {
    const size_t dim = (size_t)task->shape.head_dim, queries = (size_t)task->shape.heads * dim;
    ht_status status = norm_row(d, task, call, ROPE_Q_NORM, 0, queries, error);
    return status ? status : norm_row(d, task, call, ROPE_K_NORM, queries, (size_t)task->shape.kv_heads * dim, error);
}

/* rope.cl's bits: which heads are normed, and how. */
static cl_uint rope_norms(const ht_op *op) {
    const bool apart = !op->norm_whole; /* else it is done already */
    return (op->q_norm && apart ? 1 : 0) | (op->k_norm && apart ? 2 : 0) | (op->v_norm ? 4 : 0) |
           (op->norm_heads ? 8 : 0) | (op->norm == HT_NORM_LAYER ? 16 : 0);
}

static ht_status rope_enqueue(ht_cl_device *d, ht_task *task, const ht_cl_call *call, ht_error *error) {
    const ht_op *op = task->op;
    const ht_hparams *h = &task->shape;
    static const ht_kv_layer none = {.type = HT_KV_F32};
    const ht_kv_layer *kv = op->shared ? &none : &call->binding->kv[op->cache];
    const size_t size = kv->type == HT_KV_F32 ? 4 : 2;
    cl_kernel kernel;
    ht_status status = rope_kernel(d, task, kv->type, &kernel, error);
    if (status == HT_OK && op->norm_whole)
        status = norm_rows(d, task, call, error);
    if (status != HT_OK)
        return status;
    const cl_mem angles = table_or(task, ROPE_ANGLES, call->in.region->memory),
                 query_angles = table_or(task, ROPE_QUERY_ANGLES, angles), q_norm = table_or(task, ROPE_Q_NORM, angles),
                 k_norm = table_or(task, ROPE_K_NORM, angles);
    const cl_uint stride = (cl_uint)call->in.stride, heads = (cl_uint)h->heads, kv_heads = (cl_uint)h->kv_heads,
                  positions = (cl_uint)kv->positions, position = (cl_uint)call->binding->position,
                  norms = rope_norms(op);
    const ht_heads own = ht_slice_heads(&call->part, h);
    const cl_uint first = (cl_uint)own.queries, n = (cl_uint)(own.queries_end - own.queries),
                  kv_first = (cl_uint)own.own, kv_n = op->shared ? 0 : (cl_uint)(own.used_end - own.own);
    const cl_mem no_cache = call->in.region->memory, kept_keys = op->shared ? no_cache : call->keys->memory,
                 kept_values = op->shared ? no_cache : call->values->memory;
    const cl_ulong keys = call->keys_offset / size, values = call->values_offset / size;
    const ht_cl_argument arguments[] = {HT_CL_ARGUMENT(call->in.region->memory),
                                        HT_CL_ARGUMENT(call->in.offset),
                                        HT_CL_ARGUMENT(stride),
                                        HT_CL_ARGUMENT(angles),
                                        HT_CL_ARGUMENT(query_angles),
                                        HT_CL_ARGUMENT(q_norm),
                                        HT_CL_ARGUMENT(k_norm),
                                        HT_CL_ARGUMENT(kept_keys),
                                        HT_CL_ARGUMENT(keys),
                                        HT_CL_ARGUMENT(kept_values),
                                        HT_CL_ARGUMENT(values),
                                        HT_CL_ARGUMENT(heads),
                                        HT_CL_ARGUMENT(kv_heads),
                                        HT_CL_ARGUMENT(positions),
                                        HT_CL_ARGUMENT(position),
                                        HT_CL_ARGUMENT(op->eps),
                                        HT_CL_ARGUMENT(norms),
                                        HT_CL_ARGUMENT(first),
                                        HT_CL_ARGUMENT(n),
                                        HT_CL_ARGUMENT(kv_first),
                                        HT_CL_ARGUMENT(kv_n)};
    const size_t local[2] = {rope_items(d), 1},
                 global[2] = {(n + (op->value_dim ? 1 : 2) * (size_t)kv_n) * local[0], call->tokens};
    if (global[0] == 0) /* a share without heads */
        return HT_OK;
    return ht_cl_launch(d, task, kernel, arguments, HT_COUNT(arguments), &(ht_cl_grid){2, global, local}, error);
}

const ht_cl_op_row ht_cl_ops[HT_OP_KINDS] = {
    [HT_OP_EMBED] = {refuses_parts, embed_prepare, embed_enqueue},
    [HT_OP_NORM] = {refuses_parts, norm_prepare, norm_enqueue},
    [HT_OP_MATMUL] = {ht_cl_matmul_refuses, ht_cl_matmul_prepare, ht_cl_matmul_enqueue},
    [HT_OP_ROPE] = {refuses_shares, rope_prepare, rope_enqueue},
    [HT_OP_ATTENTION] = {refuses_attention, ht_cl_attention_prepare, ht_cl_attention_enqueue},
    [HT_OP_GLU] = {refuses_shares, glu_prepare, glu_enqueue},
    [HT_OP_HEADS] = {refuses_shares, heads_prepare, heads_enqueue},
    [HT_OP_MIX] = {refuses_parts, ht_cl_mix_prepare, ht_cl_mix_enqueue},
    [HT_OP_ARGMAX] = {refuses_parts, argmax_prepare, argmax_enqueue},
    [HT_OP_ROUTE] = {refuses_parts, ht_cl_route_prepare, ht_cl_route_enqueue},
    [HT_OP_EXPERTS] = {ht_cl_experts_refuses, ht_cl_experts_prepare, ht_cl_experts_enqueue},
    [HT_OP_CONV] = {ht_cl_mixer_refuses, ht_cl_mixer_prepare, ht_cl_mixer_enqueue},
    [HT_OP_DELTA_NET] = {ht_cl_mixer_refuses, ht_cl_mixer_prepare, ht_cl_mixer_enqueue},
    [HT_OP_SCAN] = {ht_cl_mixer_refuses, ht_cl_mixer_prepare, ht_cl_mixer_enqueue},
};

const char *ht_cl_refuses(const ht_device *device, const ht_op *op, const ht_slice *slice) {
    if (op->kind >= HT_OP_KINDS || !ht_cl_ops[op->kind].enqueue)
        return "unknown operator";
    return ht_cl_ops[op->kind].refuses((const ht_cl_device *)device, op, slice);
}

const char *ht_cl_refuses_part(const ht_device *device, const ht_op *op, const ht_slice *part) {
    const ht_cl_device *d = (const ht_cl_device *)device;
    return op->kind == HT_OP_MATMUL    ? ht_cl_matmul_refuses_part(d, op, part)
           : op->kind == HT_OP_EXPERTS ? ht_cl_experts_refuses_part(d, op, part)
                                       : ht_cl_refuses(device, op, part);
}

#else
typedef int ht_cl_ops_is_empty; /* ISO C wants something in every file */
#endif
