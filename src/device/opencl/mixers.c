/* CONV, DELTA_NET and SCAN: mixers.cl. Every token's channels at once, then each column of each head's state through all
 * tokens. */
#include "device/opencl/kernel.h"
#include "device/opencl/ops.h"
#include "device/opencl/weights.h"
#include "device/opencl/slice.h"

#if HT_HAVE_OPENCL
#include <stdio.h>

#define CHANNEL_RUN 64 /* channels of a work-item on CPUs, where a group costs as much as many of them */

#define MOST_KEYS 512 /* of a state's column in a work-item's own memory */

enum { TABLE_CONV, TABLE_BIAS, TABLE_A, TABLE_DT, TABLE_SKIP, TABLE_NORM };
enum { KERNEL_MIX, KERNEL_STATE, KERNEL_SCALARS, KERNEL_RECUR, KERNEL_NORM };

static bool on_cpu(const ht_cl_device *d) {
    return d->features & HT_CL_VECTOR;
}

static size_t channel_run(const ht_cl_device *d) {
    return on_cpu(d) ? CHANNEL_RUN : 1;
}

const char *ht_cl_mixer_refuses(const ht_cl_device *d, const ht_op *op, const ht_slice *s) {
    if (s->reduction_begin || s->reduction_end || (!s->of && (s->row_begin || s->row_end)))
        return "ranges of rows or columns are for matrix multiplications";
    if (op->recurrence.key_dim > MOST_KEYS)
        return "keys of more dimensions than a work-item holds";
    if (!s->of)
        return NULL;
    if (s->of != ht_cl_units_of(d, op))
        return "a share that is not counted in channels, value heads or groups";
    return s->row_begin >= s->row_end || s->row_end > s->of ? "no such channels, heads or groups" : NULL;
}

/* What a submit has to do with units of the state. */
typedef struct mixing {
    cl_uint units, groups, first, fresh, tokens; /* as mixers.cl has them */
    size_t own, heads, rows;                     /* units of the part; heads of a unit; its channels */
} mixing;

static mixing mixing_of(const ht_cl_device *d, const ht_task *task, const ht_cl_call *call) {
    const size_t units = ht_cl_units_of(d, task->op), heads = (size_t)task->shape.heads / units;
    return (mixing){.units = (cl_uint)units,
                    .groups = (cl_uint)task->shape.kv_heads,
                    .first = (cl_uint)call->part.row_begin,
                    .fresh = call->binding->position == 0,
                    .tokens = call->tokens,
                    .own = call->part.row_end - call->part.row_begin,
                    .heads = heads,
                    .rows = heads * (size_t)task->shape.head_dim + 2 * (size_t)task->op->recurrence.key_dim};
}

/* ---- CONV
 * ------------------------------------------------------------------------------------------------------------------ */

static ht_status conv_prepare(ht_cl_device *d, ht_task *task, ht_error *error) {
    char options[64];
    const size_t n = (size_t)task->op->taps * (size_t)task->shape.feed_forward;
    snprintf(options, sizeof options, "-DTAPS=%d -DRUN=%zu", task->op->taps, channel_run(d));
    ht_status status = ht_cl_table(d, task, TABLE_CONV, task->op->weight, n, error);
    if (!status)
        status = ht_cl_kernel(d, "mixers", "convolution", options, &task->kernels[KERNEL_MIX], error);
    return status ? status
                  : ht_cl_kernel(d, "mixers", "convolution_state", options, &task->kernels[KERNEL_STATE], error);
}

static ht_status conv_enqueue(ht_cl_device *d, ht_task *task, const ht_cl_call *call, ht_error *error) {
    const ht_cl_place *in = &call->in, *out = &call->out;
    const cl_uint in_stride = (cl_uint)in->stride, out_stride = (cl_uint)out->stride,
                  width = (cl_uint)task->shape.feed_forward, first = (cl_uint)call->part.row_begin,
                  end = (cl_uint)call->part.row_end, fresh = call->binding->position == 0, tokens = call->tokens;
    const ht_cl_argument all[] = {HT_CL_ARGUMENT(in->region->memory),
                                  HT_CL_ARGUMENT(in->offset),
                                  HT_CL_ARGUMENT(in_stride),
                                  HT_CL_ARGUMENT(task->tables[0]),
                                  HT_CL_ARGUMENT(call->state->memory),
                                  HT_CL_ARGUMENT(call->state_offset),
                                  HT_CL_ARGUMENT(out->region->memory),
                                  HT_CL_ARGUMENT(out->offset),
                                  HT_CL_ARGUMENT(out_stride),
                                  HT_CL_ARGUMENT(width),
                                  HT_CL_ARGUMENT(first),
                                  HT_CL_ARGUMENT(end),
                                  HT_CL_ARGUMENT(fresh)};
    const ht_cl_argument kept[] = {HT_CL_ARGUMENT(in->region->memory),
                                   HT_CL_ARGUMENT(in->offset),
                                   HT_CL_ARGUMENT(in_stride),
                                   HT_CL_ARGUMENT(call->state->memory),
                                   HT_CL_ARGUMENT(call->state_offset),
                                   HT_CL_ARGUMENT(width),
                                   HT_CL_ARGUMENT(first),
                                   HT_CL_ARGUMENT(end),
                                   HT_CL_ARGUMENT(fresh),
                                   HT_CL_ARGUMENT(tokens)};
    const size_t run = channel_run(d), items = ht_round_up((end - first + run - 1) / run, d->local);
    const size_t global[2] = {items, tokens}, local[2] = {d->local, 1};
    ht_status status =
        ht_cl_launch(d, task, task->kernels[KERNEL_MIX], all, HT_COUNT(all), &(ht_cl_grid){2, global, local}, error);
    return status ? status
                  : ht_cl_launch(d, task, task->kernels[KERNEL_STATE], kept, HT_COUNT(kept),
                                 &(ht_cl_grid){1, global, local}, error);
}

/* ---- DELTA_NET, SCAN
 * ----------------------------------------------------------------------------------------------------- */

/* Columns of a head's state in a work-item: vectors on CPUs, where they are whole. */
static int state_columns(const ht_cl_device *d, const ht_task *task) {
    const int dim = task->shape.head_dim;
    return !on_cpu(d) ? 1 : dim % 16 == 0 ? 16 : dim % 4 == 0 ? 4 : 1;
}

static ht_status make_tables(ht_cl_device *d, ht_task *task, ht_error *error) {
    const ht_hparams *h = &task->shape;
    const ht_recurrence *r = &task->op->recurrence;
    const size_t heads = (size_t)h->heads, dim = (size_t)h->head_dim, inner = heads * dim,
                 channels = inner + 2 * (size_t)h->kv_heads * (size_t)r->key_dim;
    const struct {
        const float *values;
        size_t n;
    } tables[] = {[TABLE_CONV] = {r->conv, (size_t)r->taps * channels},
                  [TABLE_BIAS] = {r->conv_bias, channels},
                  [TABLE_A] = {r->a, heads},
                  [TABLE_DT] = {r->dt_bias, heads},
                  [TABLE_SKIP] = {r->skip, heads},
                  [TABLE_NORM] = {r->norm, task->op->kind == HT_OP_SCAN ? inner : dim}};
    ht_status status = HT_OK;
    for (size_t i = 0; i < HT_COUNT(tables) && !status; i++)
        status = ht_cl_table(d, task, i, tables[i].values, tables[i].n, error);
    return status;
}

static ht_status mixer_prepare(ht_cl_device *d, ht_task *task, ht_error *error) {
    static const char *const names[] = {"mix_channels", "mix_state", "mix_scalars", "recur", "mix_norm"};
    const ht_recurrence *r = &task->op->recurrence;
    char options[160];
    snprintf(options, sizeof options,
             "-DTAPS=%d -DRUN=%zu -DSCAN=%d -DKEY=%d -DDIM=%d -DHEADS=%zu -DCOLS=%d "
             "-DREPEATED=%d",
             r->taps, channel_run(d), task->op->kind == HT_OP_SCAN, r->key_dim, task->shape.head_dim,
             (size_t)task->shape.heads / ht_cl_units_of(d, task->op), state_columns(d, task), r->repeated);
    ht_status status = make_tables(d, task, error);
    for (size_t i = 0; i < HT_COUNT(names) && !status; i++)
        status = ht_cl_kernel(d, "mixers", names[i], options, &task->kernels[i], error);
    return status;
}

#define SOURCES                                                                                \
    HT_CL_ARGUMENT(in->region->memory), HT_CL_ARGUMENT(in->offset), HT_CL_ARGUMENT(in_stride), \
        HT_CL_ARGUMENT(more->region->memory), HT_CL_ARGUMENT(more->offset), HT_CL_ARGUMENT(more_stride)
#define NUMBERS                                                                                          \
    HT_CL_ARGUMENT(m.units), HT_CL_ARGUMENT(m.groups), HT_CL_ARGUMENT(m.first), HT_CL_ARGUMENT(m.fresh), \
        HT_CL_ARGUMENT(m.tokens)

/* The convolution of all tokens, and what it keeps. */
static ht_status enqueue_channels(ht_cl_device *d, ht_task *task, const ht_cl_call *call, mixing m, ht_error *error) {
    const ht_cl_place *in = &call->in, *more = &call->aux;
    const cl_uint in_stride = (cl_uint)in->stride, more_stride = (cl_uint)more->stride,
                  biased = task->tables[TABLE_BIAS] != NULL;
    const cl_mem bias = task->tables[biased ? TABLE_BIAS : TABLE_CONV], mixed = d->scratch[HT_CL_SCRATCH_ACTS];
    const ht_cl_argument all[] = {SOURCES,
                                  HT_CL_ARGUMENT(call->state->memory),
                                  HT_CL_ARGUMENT(call->state_offset),
                                  HT_CL_ARGUMENT(task->tables[TABLE_CONV]),
                                  HT_CL_ARGUMENT(bias),
                                  HT_CL_ARGUMENT(biased),
                                  HT_CL_ARGUMENT(mixed),
                                  NUMBERS};
    const ht_cl_argument kept[] = {SOURCES, HT_CL_ARGUMENT(call->state->memory), HT_CL_ARGUMENT(call->state_offset),
                                   NUMBERS};
    const size_t run = channel_run(d);
    const size_t global[3] = {ht_round_up((m.rows + run - 1) / run, d->local), m.own, m.tokens},
                 local[3] = {d->local, 1, 1};
    ht_status status =
        ht_cl_launch(d, task, task->kernels[KERNEL_MIX], all, HT_COUNT(all), &(ht_cl_grid){3, global, local}, error);
    return status ? status
                  : ht_cl_launch(d, task, task->kernels[KERNEL_STATE], kept, HT_COUNT(kept),
                                 &(ht_cl_grid){2, global, local}, error);
}

static ht_status enqueue_states(ht_cl_device *d, ht_task *task, const ht_cl_call *call, mixing m, ht_error *error) {
    const ht_cl_place *in = &call->in, *more = &call->aux, *out = &call->out;
    const cl_uint in_stride = (cl_uint)in->stride, more_stride = (cl_uint)more->stride,
                  out_stride = (cl_uint)out->stride;
    const cl_mem mixed = d->scratch[HT_CL_SCRATCH_ACTS], scalars = d->scratch[HT_CL_SCRATCH_PARTS],
                 skip = task->tables[task->tables[TABLE_SKIP] ? TABLE_SKIP : TABLE_A];
    const float eps = task->op->eps;
    const ht_cl_argument of_scalars[] = {SOURCES,
                                         HT_CL_ARGUMENT(task->tables[TABLE_A]),
                                         HT_CL_ARGUMENT(task->tables[TABLE_DT]),
                                         HT_CL_ARGUMENT(mixed),
                                         HT_CL_ARGUMENT(scalars),
                                         HT_CL_ARGUMENT(eps),
                                         NUMBERS};
    const ht_cl_argument of_recur[] = {HT_CL_ARGUMENT(mixed),
                                       HT_CL_ARGUMENT(scalars),
                                       HT_CL_ARGUMENT(skip),
                                       HT_CL_ARGUMENT(call->state->memory),
                                       HT_CL_ARGUMENT(call->state_offset),
                                       HT_CL_ARGUMENT(out->region->memory),
                                       HT_CL_ARGUMENT(out->offset),
                                       HT_CL_ARGUMENT(out_stride),
                                       NUMBERS};
    const ht_cl_argument of_norm[] = {SOURCES,
                                      HT_CL_ARGUMENT(task->tables[TABLE_NORM]),
                                      HT_CL_ARGUMENT(out->region->memory),
                                      HT_CL_ARGUMENT(out->offset),
                                      HT_CL_ARGUMENT(out_stride),
                                      HT_CL_ARGUMENT(eps),
                                      NUMBERS};
    const size_t heads = m.own * m.heads, columns = (size_t)(task->shape.head_dim / state_columns(d, task));
    const size_t each[2] = {heads, m.tokens}, states[2] = {columns, heads}, one[2] = {1, 1},
                 groups[2] = {m.own * d->local, m.tokens}, local[2] = {d->local, 1};
    const size_t *const alone = on_cpu(d) ? one : NULL;
    ht_status status = ht_cl_launch(d, task, task->kernels[KERNEL_SCALARS], of_scalars, HT_COUNT(of_scalars),
                                    &(ht_cl_grid){2, each, alone}, error);
    if (!status)
        status = ht_cl_launch(d, task, task->kernels[KERNEL_RECUR], of_recur, HT_COUNT(of_recur),
                              &(ht_cl_grid){2, states, alone}, error);
    return status ? status
                  : ht_cl_launch(d, task, task->kernels[KERNEL_NORM], of_norm, HT_COUNT(of_norm),
                                 &(ht_cl_grid){2, groups, local}, error);
}

static ht_status mixer_enqueue(ht_cl_device *d, ht_task *task, const ht_cl_call *call, ht_error *error) {
    const mixing m = mixing_of(d, task, call);
    ht_status status = ht_cl_scratch(d, HT_CL_SCRATCH_ACTS, m.tokens * m.own * m.rows * sizeof(float), error);
    if (!status)
        status = ht_cl_scratch(d, HT_CL_SCRATCH_PARTS, m.tokens * m.own * m.heads * 2 * sizeof(float), error);
    if (!status)
        status = enqueue_channels(d, task, call, m, error);
    return status ? status : enqueue_states(d, task, call, m, error);
}

ht_status ht_cl_mixer_prepare(ht_cl_device *d, ht_task *task, ht_error *error) {
    return task->op->kind == HT_OP_CONV ? conv_prepare(d, task, error) : mixer_prepare(d, task, error);
}

ht_status ht_cl_mixer_enqueue(ht_cl_device *d, ht_task *task, const ht_cl_call *call, ht_error *error) {
    return task->op->kind == HT_OP_CONV ? conv_enqueue(d, task, call, error) : mixer_enqueue(d, task, call, error);
}

#else
typedef int ht_cl_mixers_is_empty; /* ISO C wants something in every file */
#endif
