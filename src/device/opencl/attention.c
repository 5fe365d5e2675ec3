/* ATTENTION: which kernel, how large its tiles, into how many splits. */
#include "device/opencl/kernel.h"
#include "device/opencl/ops.h"
#include "device/opencl/weights.h"

#if HT_HAVE_OPENCL
#include <stdio.h>

#define ITEMS 128      /* work-items of a group on GPUs */
#define FEW 3          /* tokens up to which a CPU takes a (head, token) at a time */
#define FEW_SIMT 8     /* the same on GPUs, where keys are also split */
#define SPLIT_KEYS 128 /* fewest keys worth a split */
#define MOST_SPLITS 64

/* Tiles of attention_tiles, best first; the first whose local memory the device has is taken. */
static const struct tile { size_t queries, keys; } tiles[] = {{64, 32}, {32, 32}, {32, 16}, {16, 32}};

static size_t tile_bytes(size_t dim, const struct tile *t) {
    return (dim * (t->queries + t->keys) + t->queries * t->keys + 3 * t->queries) * sizeof(float);
}

/* NULL: none fits, and attention_split serves any number of tokens. */
static const struct tile *choose_tile(const ht_cl_device *d, const ht_task *task) {
    for (size_t i = 0; i < HT_COUNT(tiles); i++)
        if (tiles[i].keys * (tiles[i].queries / 4) >= ITEMS &&
            tile_bytes((size_t)task->shape.head_dim, &tiles[i]) <= d->local_bytes)
            return &tiles[i];
    return NULL;
}

typedef enum way { MANY_VECTOR, FEW_VECTOR, TILES, SPLIT } way;

static way choose(const ht_cl_device *d, const ht_task *task, size_t tokens) {
    if (d->features & HT_CL_VECTOR)
        return tokens > FEW ? MANY_VECTOR : FEW_VECTOR;
    return tokens > FEW_SIMT && choose_tile(d, task) ? TILES : SPLIT;
}

/* The work on a head is unrolled, so there is a program for every head_dim, and for what is done to scores; all else that
 * layers may differ in is an argument. */
static ht_status get_kernel(ht_cl_device *d, const ht_task *task, way w, const char *name, ht_kv_type type,
                            cl_kernel *kernel, ht_error *error) {
    const ht_op *op = task->op;
    char options[160];
    int n = snprintf(options, sizeof options, "-DDIM=%d -DKV_F32=%d -DCAPPED=%d -DSLOPED=%d -DCHUNKED=%d -DSINKS=%d",
                     task->shape.head_dim, type == HT_KV_F32, op->soft_cap > 0, op->slopes != NULL,
                     op->attention_chunk > 0, op->sinks != NULL);
    if (w == TILES) {
        const struct tile *t = choose_tile(d, task);
        snprintf(options + n, sizeof options - (size_t)n, " -DITEMS=%d -DQUERIES=%zu -DKEYS=%zu", ITEMS, t->queries,
                 t->keys);
    } else if (w == SPLIT)
        snprintf(options + n, sizeof options - (size_t)n, " -DITEMS=%d", ITEMS);
    return ht_cl_kernel(d, w == TILES || w == SPLIT ? "attention_simt" : "attention_vector", name, options, kernel,
                        error);
}

enum { SINKS, SLOPES }; /* the task's tables */

static const char *const names[] = {"attention_many", "attention_few", "attention_tiles", "attention_split"};

/* Splits of the keys that give every unit a few groups. */
static size_t count_splits(const ht_cl_device *d, size_t heads, size_t tokens, size_t keys) {
    const size_t groups = tokens * heads, wanted = (4 * (size_t)d->units + groups - 1) / groups;
    const size_t most = (keys + SPLIT_KEYS - 1) / SPLIT_KEYS;
    return ht_max_size(1, ht_min_size(ht_min_size(wanted, most), MOST_SPLITS));
}

static size_t partial_bytes(const ht_task *task, size_t heads, size_t tokens, size_t splits) {
    return tokens * heads * splits * ((size_t)task->shape.head_dim + 2) * sizeof(float);
}

/* What the partial results of `tokens` tokens need at most, whichever part of the heads they are of: fewer heads may have
 * more splits. */
static size_t most_partial_bytes(const ht_cl_device *d, const ht_task *task, size_t tokens) {
    size_t room = 0;
    for (size_t n = 1; n <= (size_t)task->shape.heads; n++) {
        const size_t splits = count_splits(d, n, tokens, d->max_context);
        if (splits > 1)
            room = ht_max_size(room, partial_bytes(task, n, tokens, splits));
    }
    return room;
}

ht_status ht_cl_attention_prepare(ht_cl_device *d, ht_task *task, ht_error *error) {
    bool built[HT_COUNT(names)] = {false};
    size_t room = sizeof(float);
    const size_t heads = (size_t)task->shape.heads;
    ht_status made = ht_cl_table(d, task, SINKS, task->op->sinks, heads, error);
    if (made == HT_OK)
        made = ht_cl_table(d, task, SLOPES, task->op->slopes, heads, error);
    if (made != HT_OK)
        return made;
    for (size_t tokens = 1; tokens <= d->max_tokens; tokens++) {
        const way w = choose(d, task, tokens);
        if (w == SPLIT)
            room = ht_max_size(room, most_partial_bytes(d, task, tokens));
        if (built[w])
            continue;
        built[w] = true;
        cl_kernel kernel;
        ht_status status = get_kernel(d, task, w, names[w], d->kv_type, &kernel, error);
        if (!status && w == SPLIT)
            status = get_kernel(d, task, w, "attention_merge", d->kv_type, &kernel, error);
        if (status)
            return status;
    }
    return ht_cl_scratch(d, HT_CL_SCRATCH_SPLITS, room, error);
}

static ht_status merge(ht_cl_device *d, ht_task *task, const ht_cl_call *call, cl_ulong out_offset, cl_uint heads,
                       cl_uint splits, ht_error *error) {
    cl_kernel kernel;
    ht_status status =
        get_kernel(d, task, SPLIT, "attention_merge", call->binding->kv[task->op->cache].type, &kernel, error);
    if (status)
        return status;
    const cl_uint stride = (cl_uint)call->out.stride;
    const ht_cl_argument arguments[] = {HT_CL_ARGUMENT(d->scratch[HT_CL_SCRATCH_SPLITS]),
                                        HT_CL_ARGUMENT(splits),
                                        HT_CL_ARGUMENT(call->out.region->memory),
                                        HT_CL_ARGUMENT(out_offset),
                                        HT_CL_ARGUMENT(stride),
                                        HT_CL_ARGUMENT(heads)};
    const size_t local[2] = {ITEMS, 1}, global[2] = {heads * ITEMS, call->tokens};
    return ht_cl_launch(d, task, kernel, arguments, HT_COUNT(arguments), &(ht_cl_grid){2, global, local}, error);
}

ht_status ht_cl_attention_enqueue(ht_cl_device *d, ht_task *task, const ht_cl_call *call, ht_error *error) {
    const ht_op *op = task->op;
    const ht_kv_layer *kv = &call->binding->kv[op->cache];
    const size_t size = kv->type == HT_KV_F32 ? 4 : 2;
    const way w = choose(d, task, call->shape_tokens);
    cl_kernel kernel;
    ht_status status = get_kernel(d, task, w, names[w], kv->type, &kernel, error);
    if (status)
        return status;
    const ht_heads own = ht_slice_heads(&call->part, &task->shape);
    const cl_uint in_stride = (cl_uint)call->in.stride, out_stride = (cl_uint)call->out.stride,
                  group = (cl_uint)(task->shape.heads / task->shape.kv_heads),
                  heads = (cl_uint)(own.queries_end - own.queries), lead = (cl_uint)(own.queries - own.used * group),
                  positions = (cl_uint)kv->positions, position = (cl_uint)call->binding->position,
                  tokens = call->tokens, window = (cl_uint)op->window, chunk = (cl_uint)op->attention_chunk,
                  first_head = (cl_uint)own.queries;
    const size_t keys = position + tokens, seen = chunk ? chunk : window ? window : keys;
    const cl_uint splits = w == SPLIT ? (cl_uint)count_splits(d, heads, tokens, ht_min_size(keys, seen)) : 1;
    const cl_mem some = call->in.region->memory, sinks = task->tables[SINKS] ? task->tables[SINKS] : some,
                 slopes = task->tables[SLOPES] ? task->tables[SLOPES] : some;
    /* A part of the heads is an attention of its own, that begins elsewhere everywhere. */
    const cl_ulong dim = (cl_ulong)task->shape.head_dim, columns = own.queries * dim, rows = own.used * positions * dim,
                   in_offset = call->in.offset + columns, out_offset = call->out.offset + columns,
                   keys_offset = call->keys_offset / size + rows, values_offset = call->values_offset / size + rows;
    const ht_cl_argument arguments[] = {HT_CL_ARGUMENT(call->in.region->memory),
                                        HT_CL_ARGUMENT(in_offset),
                                        HT_CL_ARGUMENT(in_stride),
                                        HT_CL_ARGUMENT(call->keys->memory),
                                        HT_CL_ARGUMENT(keys_offset),
                                        HT_CL_ARGUMENT(call->values->memory),
                                        HT_CL_ARGUMENT(values_offset),
                                        HT_CL_ARGUMENT(call->out.region->memory),
                                        HT_CL_ARGUMENT(out_offset),
                                        HT_CL_ARGUMENT(out_stride),
                                        HT_CL_ARGUMENT(heads),
                                        HT_CL_ARGUMENT(group),
                                        HT_CL_ARGUMENT(lead),
                                        HT_CL_ARGUMENT(positions),
                                        HT_CL_ARGUMENT(position),
                                        HT_CL_ARGUMENT(tokens),
                                        HT_CL_ARGUMENT(window),
                                        HT_CL_ARGUMENT(op->scale),
                                        HT_CL_ARGUMENT(sinks),
                                        HT_CL_ARGUMENT(slopes),
                                        HT_CL_ARGUMENT(first_head),
                                        HT_CL_ARGUMENT(op->soft_cap),
                                        HT_CL_ARGUMENT(chunk),
                                        HT_CL_ARGUMENT(d->scratch[HT_CL_SCRATCH_SPLITS]),
                                        HT_CL_ARGUMENT(splits)};
    const size_t n = w == SPLIT ? HT_COUNT(arguments) : HT_COUNT(arguments) - 2;
    const size_t per_group = w == MANY_VECTOR ? 16 : w == TILES ? choose_tile(d, task)->queries : 1;
    const size_t items = w == TILES || w == SPLIT ? ITEMS : 1, local[3] = {items, 1, 1};
    const size_t global[3] = {heads * items, (tokens + per_group - 1) / per_group, splits};
    status = ht_cl_launch(d, task, kernel, arguments, n, &(ht_cl_grid){3, global, local}, error);
    return !status && splits > 1 ? merge(d, task, call, out_offset, heads, splits, error) : status;
}

#else
typedef int ht_cl_attention_is_empty; /* ISO C wants something in every file */
#endif
