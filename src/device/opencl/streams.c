/* Special NORMs, sparse GLUs and MIX: streams.cl. */
#include "device/opencl/streams.h"
#include "device/opencl/kernel.h"
#include "device/opencl/weights.h"

#if HT_HAVE_OPENCL

static cl_mem table_or(const ht_task *task, size_t which, cl_mem other) {
    return task->tables[which] ? task->tables[which] : other;
}

static ht_status kernel_of(ht_cl_device *d, const char *name, cl_kernel *kernel, ht_error *error) {
    return ht_cl_kernel(d, "streams", name, "", kernel, error);
}

static ht_status launch_tokens(ht_cl_device *d, ht_task *task, const ht_cl_call *call, size_t kernel,
                               const ht_cl_argument *arguments, size_t n, ht_error *error) {
    const size_t global = call->tokens * d->local;
    return ht_cl_launch(d, task, task->kernels[kernel], arguments, n, &(ht_cl_grid){1, &global, &d->local}, error);
}

/* ---- NORM
 * ---------------------------------------------------------------------------------------------------------------- */

enum { NORM_WEIGHT, NORM_POST, NORM_BIAS, NORM_FIRST, NORM_SECOND };

ht_status ht_cl_norm_special_prepare(ht_cl_device *d, ht_task *task, ht_error *error) {
    const size_t n = (size_t)task->shape.embedding;
    const ht_op *op = task->op;
    ht_status status = ht_cl_table(d, task, NORM_FIRST, op->each_norm[0], n, error);
    if (status == HT_OK)
        status = ht_cl_table(d, task, NORM_SECOND, op->each_norm[1], n, error);
    return status ? status : kernel_of(d, "norm_special", &task->kernels[2], error);
}

/* streams.cl's bits. */
static cl_uint norm_mode(const ht_op *op) {
    const size_t added = ht_op_added(op);
    return (added > 0 ? 1 : 0) | (added > 1 ? 2 : 0) | (added > 0 && op->each_norm[0] ? 4 : 0) |
           (added > 1 && op->each_norm[1] ? 8 : 0) | (added > 0 && op->post_norm ? 16 : 0) | (op->replaces ? 32 : 0) |
           (op->adds_normed ? 64 : 0) | (op->norm == HT_NORM_LAYER ? 128 : 0) | (op->norm == HT_NORM_NONE ? 256 : 0) |
           (op->norm_bias ? 512 : 0);
}

ht_status ht_cl_norm_special_enqueue(ht_cl_device *d, ht_task *task, const ht_cl_call *call, ht_error *error) {
    const ht_op *op = task->op;
    const ht_cl_place *in = &call->in, *aux = ht_op_added(op) ? &call->aux : in, *out = &call->out;
    const cl_uint strides[] = {(cl_uint)in->stride, (cl_uint)aux->stride, (cl_uint)out->stride};
    const cl_uint n = (cl_uint)task->shape.embedding, mode = norm_mode(op), pieces = (cl_uint)call->n_pieces,
                  own = (cl_uint)call->binding->first_pieces;
    const cl_mem weight = table_or(task, NORM_WEIGHT, in->region->memory), post = table_or(task, NORM_POST, weight),
                 bias = table_or(task, NORM_BIAS, weight), first = table_or(task, NORM_FIRST, weight),
                 second = table_or(task, NORM_SECOND, weight);
    const float post_eps = op->post_eps > 0 ? op->post_eps : op->eps,
                scale = op->stream_scale != 0.0f ? op->stream_scale : 1.0f;
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
                                        HT_CL_ARGUMENT(first),
                                        HT_CL_ARGUMENT(second),
                                        HT_CL_ARGUMENT(post),
                                        HT_CL_ARGUMENT(weight),
                                        HT_CL_ARGUMENT(bias),
                                        HT_CL_ARGUMENT(out->region->memory),
                                        HT_CL_ARGUMENT(out->offset),
                                        HT_CL_ARGUMENT(strides[2]),
                                        HT_CL_ARGUMENT(n),
                                        HT_CL_ARGUMENT(op->eps),
                                        HT_CL_ARGUMENT(post_eps),
                                        HT_CL_ARGUMENT(scale),
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
                                        HT_CL_ARGUMENT(pieces),
                                        HT_CL_ARGUMENT(own)};
    return launch_tokens(d, task, call, 2, arguments, HT_COUNT(arguments), error);
}

/* ---- GLU
 * ----------------------------------------------------------------------------------------------------------------- */

ht_status ht_cl_sparse_prepare(ht_cl_device *d, ht_task *task, ht_error *error) {
    return task->op->sparsity > 0 ? kernel_of(d, "sparse_gates", &task->kernels[1], error) : HT_OK;
}

ht_status ht_cl_sparse_enqueue(ht_cl_device *d, ht_task *task, const ht_cl_call *call, ht_error *error) {
    const ht_cl_place *in = &call->in, *out = &call->out;
    const cl_uint in_stride = (cl_uint)in->stride, out_stride = (cl_uint)out->stride,
                  n = (cl_uint)task->shape.feed_forward;
    const ht_cl_argument arguments[] = {HT_CL_ARGUMENT(in->region->memory),
                                        HT_CL_ARGUMENT(in->offset),
                                        HT_CL_ARGUMENT(in_stride),
                                        HT_CL_ARGUMENT(out->region->memory),
                                        HT_CL_ARGUMENT(out->offset),
                                        HT_CL_ARGUMENT(out_stride),
                                        HT_CL_ARGUMENT(n),
                                        HT_CL_ARGUMENT(task->op->sparsity)};
    return launch_tokens(d, task, call, 1, arguments, HT_COUNT(arguments), error);
}

/* ---- MIX
 * ----------------------------------------------------------------------------------------------------------------- */

/* The kernel, and its tables in the order of its arguments. */
ht_status ht_cl_mix_prepare(ht_cl_device *d, ht_task *task, ht_error *error) {
    static const char *const names[] = {
        [HT_MIX_SIDE] = "mix_side",       [HT_MIX_BEGIN] = "mix_begin",   [HT_MIX_PREDICT] = "mix_predict",
        [HT_MIX_CORRECT] = "mix_correct", [HT_MIX_GATHER] = "mix_gather", [HT_MIX_END] = "mix_end"};
    const ht_op *op = task->op;
    const ht_mix *mix = &op->mix;
    const size_t n = (size_t)task->shape.embedding, streams = (size_t)mix->streams,
                 coefs = streams * streams * (mix->function == HT_MIX_PREDICT ? streams : 1);
    ht_status status = mix->function == HT_MIX_SIDE ? ht_cl_table(d, task, 0, op->weight, n, error)
                                                    : ht_cl_table(d, task, 0, mix->router_norm, n, error);
    if (status == HT_OK)
        status = ht_cl_table(d, task, 1, mix->router, streams * n, error);
    if (status == HT_OK)
        status = ht_cl_table(d, task, 2, mix->coefs, coefs, error);
    if (status == HT_OK)
        status = ht_cl_table(d, task, 3, mix->scale, n, error);
    return status ? status : kernel_of(d, names[mix->function], &task->kernels[0], error);
}

ht_status ht_cl_mix_enqueue(ht_cl_device *d, ht_task *task, const ht_cl_call *call, ht_error *error) {
    static const size_t n_tables[] = {[HT_MIX_SIDE] = 1, [HT_MIX_PREDICT] = 3, [HT_MIX_CORRECT] = 4, [HT_MIX_END] = 0};
    const ht_op *op = task->op;
    const ht_cl_place *in = &call->in, *more = op->n_more ? &call->aux : in, *out = &call->out;
    const cl_uint in_stride = (cl_uint)in->stride, more_stride = (cl_uint)more->stride,
                  out_stride = (cl_uint)out->stride, n = (cl_uint)task->shape.embedding,
                  streams = (cl_uint)op->mix.streams;
    const ht_cl_argument arguments[] = {HT_CL_ARGUMENT(in->region->memory),
                                        HT_CL_ARGUMENT(in->offset),
                                        HT_CL_ARGUMENT(in_stride),
                                        HT_CL_ARGUMENT(more->region->memory),
                                        HT_CL_ARGUMENT(more->offset),
                                        HT_CL_ARGUMENT(more_stride),
                                        HT_CL_ARGUMENT(out->region->memory),
                                        HT_CL_ARGUMENT(out->offset),
                                        HT_CL_ARGUMENT(out_stride),
                                        HT_CL_ARGUMENT(n),
                                        HT_CL_ARGUMENT(streams),
                                        HT_CL_ARGUMENT(op->eps),
                                        HT_CL_ARGUMENT(task->tables[0]),
                                        HT_CL_ARGUMENT(task->tables[1]),
                                        HT_CL_ARGUMENT(task->tables[2]),
                                        HT_CL_ARGUMENT(task->tables[3])};
    return launch_tokens(d, task, call, 0, arguments, 12 + n_tables[op->mix.function], error);
}

#else
typedef int ht_cl_streams_is_empty; /* ISO C wants something in every file */
#endif
