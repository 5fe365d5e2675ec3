/* The ht_device over a static-graph runtime: lengths, padding, strides.
 *
 * A submit of n tokens runs at the shortest length that holds them and whose graph is there; more than the longest length
 * is split first. Padding costs no copy where the slots have room for it; else, and where a slot's rows are not dense, two
 * staging buffers of the device are used. Submits compute in the caller. What is no matrix multiplication is refused.
 *
 * A mixture of experts has a graph for each group of experts. What is past an expert's capacity stays in binding.left.
 */
#include "device/lengths.h"
#include "device/npu/npu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PIECE_TOKENS \
    8 /* what one more piece costs: reading and unpacking the weights again takes about as long as these */

typedef struct npu_device {
    ht_device base;
    ht_device_caps caps;
    const ht_npu_runtime *runtime;
    ht_npu *npu;
    ht_npu_facts facts;
    ht_npu_config config;
    char hint[16];
    ht_npu_store *store;
    bool weights_first;
    int lengths[HT_MOST_LENGTHS]; /* ascending */
    float *in, *out;              /* staging: [longest][cols], [longest][rows] of the widest tasks */
    size_t in_bytes, out_bytes;
    ht_npu_place *places; /* of the largest group of experts */
    size_t n_places;
    uint64_t pairs, left; /* of tokens and experts that they have chosen: so far, and past a graph's capacity */
    bool told;            /* of a graph that failed when it was needed */
    ht_ticket last;       /* every ticket given is complete */
} npu_device;

typedef struct task_graph {
    ht_npu_graph graph;
    ht_npu_entry *entry;
} task_graph;

struct ht_task {
    const ht_op *op;
    ht_slice slice; /* EXPERTS: spelt out */
    size_t n;       /* one; EXPERTS: for each group of experts one */
    size_t capacity;
    task_graph *graphs;
};

/* ---- memory ------------------------------------------------------------------------------------------------------ */

/* For the pool: NULL where programs have no need of other memory than anybody's. */
void *ht_npu_alloc_shared(ht_device *device, size_t bytes) {
    const npu_device *d = (npu_device *)device;
    return d->runtime->alloc_shared ? d->runtime->alloc_shared(d->npu, bytes) : NULL;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

/* The runtime's usual lengths, as far as a submit can fill them. */
static void default_to(npu_device *d, size_t max_tokens) {
    for (size_t i = 0; i < d->facts.n_lengths; i++) {
        if (i > 0 && (size_t)d->facts.lengths[i - 1] >= max_tokens)
            break;
        d->lengths[d->caps.n_lengths++] = d->facts.lengths[i];
    }
}

void ht_npu_close(ht_device *device) {
    npu_device *d = (npu_device *)device;
    if (!d)
        return;
    ht_npu_store_destroy(d->store);
    if (d->pairs)
        ht_log(HT_LOG_INFO, "%s: %llu of %llu pairs of a token and an expert were past the capacity of their graphs",
               d->caps.name, (unsigned long long)d->left, (unsigned long long)d->pairs);
    free(d->places);
    if (d->npu)
        d->runtime->close(d->npu);
    if (d->in)
        ht_npu_pages_free(d->runtime, d->in, d->in_bytes);
    if (d->out)
        ht_npu_pages_free(d->runtime, d->out, d->out_bytes);
    free(d);
}

static const char *const switches[] = {"off", "on", NULL}, *const orders[] = {"activations", "weights", NULL},
                         *const hints[] = {"f32", "bf16", "f16", NULL};

/* An option of two words; `usual`, where it is not given, and *value are whether it is the second. */
static ht_status read_switch(const ht_device_options *options, const char *key, const char *const words[3], bool usual,
                             bool *value, ht_error *error) {
    int choice = usual;
    ht_status status = ht_device_word(options, key, words, &choice, error);
    *value = choice == 1;
    return status;
}

/* What must be known before the runtime's device is opened. */
static ht_status read_config(npu_device *d, const ht_device_options *options, ht_error *error) {
    const char *const *own = d->runtime->options;
    const char *const known[] = {"cpus", "lengths", "decode", "cache", "order", "hint",
                                 own[0], own[1],    own[2],   own[3],  NULL};
    char value[128];
    ht_status status = ht_device_check_options(options->name, options->options, known, error);
    if (status != HT_OK)
        return status;
    snprintf(d->caps.name, sizeof d->caps.name, "%s", options->name);
    d->config = (ht_npu_config){.name = d->caps.name,
                                .threads = options->threads,
                                .precision = options->precision,
                                .hint = d->hint,
                                .options = options->options};
    int hint = -1;
    status = ht_device_word(options, "hint", hints, &hint, error);
    if (status != HT_OK)
        return status;
    if (hint >= 0)
        snprintf(d->hint, sizeof d->hint, "%s", hints[hint]);
    if (ht_device_option(options->options, "cpus", value, sizeof value)) {
        status = ht_parse_cpus(options->name, value, &d->config.cores, error);
        d->config.threads = ht_cores_count(&d->config.cores);
    }
    return status == HT_OK ? read_switch(options, "order", orders, false, &d->weights_first, error) : status;
}

static void state_caps(npu_device *d) {
    const ht_device_info *info = &d->facts.info;
    const bool cpu = strcmp(info->kind, "cpu") == 0;
    d->caps.kind = cpu ? HT_DEVICE_CPU : strcmp(info->kind, "gpu") == 0 ? HT_DEVICE_GPU : HT_DEVICE_NPU;
    memcpy(d->caps.name, info->name, sizeof info->name);
    memcpy(d->caps.runtime, info->runtime, sizeof info->runtime);
    memcpy(d->caps.description, info->description, sizeof info->description);
    memcpy(d->caps.dtypes, info->dtypes, sizeof info->dtypes);
    d->caps.memory_bytes = info->memory_bytes;
    d->caps.unified_memory = info->unified_memory;
    d->caps.emulated = info->emulated;
    d->caps.runs_in_caller = true;
    d->caps.leaves = true;
    d->caps.cores = d->config.cores;
    if (!ht_cores_any(&d->caps.cores) && (cpu || info->emulated))
        d->caps.cores = *ht_all_cores();
    d->caps.lengths = d->lengths;
}

static ht_status create_store(npu_device *d, const ht_device_options *options, ht_error *error) {
    const bool cpu = d->caps.kind == HT_DEVICE_CPU;
    const int threads = d->config.threads ? d->config.threads : ht_default_threads(ht_all_cores());
    ht_npu_store_options store = {.runtime = d->runtime,
                                  .npu = d->npu,
                                  .facts = &d->facts,
                                  .config = &d->config,
                                  .lengths = d->lengths,
                                  .n_lengths = d->caps.n_lengths,
                                  .budget = options->graph_memory ? options->graph_memory : d->caps.memory_bytes / 2,
                                  .builders = cpu ? threads : 2,
                                  .progress = options->progress};
    d->caps.graph_bytes = store.budget;
    ht_status status = read_switch(options, "cache", switches, d->facts.reloads, &store.cache, error);
    d->config.saves = store.cache;
    return status == HT_OK ? ht_npu_store_create(&store, &d->store, error) : status;
}

static ht_status configure(npu_device *d, const ht_device_options *options, ht_error *error) {
    ht_status status = read_config(d, options, error);
    if (status == HT_OK)
        status = d->runtime->open(&d->config, &d->npu, &d->facts, error);
    if (status != HT_OK)
        return status;
    state_caps(d);
    if (ht_cores_any(&d->config.cores) && d->caps.kind != HT_DEVICE_CPU && !d->caps.emulated)
        return ht_fail(error, HT_ERROR_ARGUMENT, "device %s: cpus= requires a device that is a CPU", options->name);
    char value[128];
    if (ht_device_option(options->options, "lengths", value, sizeof value))
        status = ht_parse_lengths(d->caps.name, value, d->lengths, &d->caps.n_lengths, error);
    else
        default_to(d, options->max_tokens);
    bool decodes;
    if (status == HT_OK)
        status = read_switch(options, "decode", switches, d->facts.single, &decodes, error);
    if (status != HT_OK)
        return status;
    d->caps.many_only = !decodes;
    return create_store(d, options, error);
}

ht_status ht_npu_open(const ht_device_ops *ops, const ht_npu_runtime *runtime, const ht_device_options *options,
                      ht_device **device, ht_error *error) {
    npu_device *d;
    ht_status status = ht_alloc((void **)&d, 1, sizeof *d, options->name, error);
    if (status != HT_OK)
        return status;
    d->base.ops = ops;
    d->runtime = runtime;
    status = configure(d, options, error);
    if (status != HT_OK)
        ht_npu_close(&d->base);
    else
        *device = &d->base;
    return status;
}

const ht_device_caps *ht_npu_caps(const ht_device *device) {
    return &((const npu_device *)device)->caps;
}

const char *ht_npu_refuses(const ht_device *device, const ht_op *op, const ht_slice *slice) {
    ht_npu_graph graph;
    return ht_npu_describe(op, slice, false, &graph);
}

/* ---- tasks ------------------------------------------------------------------------------------------------------- */

static ht_status grow(const npu_device *d, float **buffer, size_t *bytes, size_t need, ht_error *error) {
    if (need <= *bytes)
        return HT_OK;
    float *grown = ht_npu_pages_alloc(d->runtime, d->npu, need);
    if (!grown)
        return ht_fail(error, HT_ERROR_MEMORY, "%s: no memory for a staging buffer of %zu bytes", d->caps.name, need);
    if (*buffer)
        ht_npu_pages_free(d->runtime, *buffer, *bytes);
    *buffer = grown;
    *bytes = need;
    return HT_OK;
}

/* One more graph, and the buffers that it needs at the longest length. */
static ht_status add_graph(npu_device *d, ht_task *task, const ht_npu_graph *graph, ht_error *error) {
    const size_t longest = ht_npu_rows(graph, (size_t)d->lengths[d->caps.n_lengths - 1]);
    ht_status status =
        ht_grow((void **)&task->graphs, &task->capacity, task->n + 1, sizeof *task->graphs, task->op->name, error);
    if (status == HT_OK)
        status = grow(d, &d->in, &d->in_bytes, longest * graph->cols * sizeof(float), error);
    if (status == HT_OK)
        status = grow(d, &d->out, &d->out_bytes, longest * graph->rows * sizeof(float), error);
    if (status == HT_OK && graph->experts)
        status = ht_grow((void **)&d->places, &d->n_places, longest, sizeof *d->places, "tokens of experts", error);
    if (status != HT_OK)
        return status;
    task_graph *made = &task->graphs[task->n];
    *made = (task_graph){.graph = *graph};
    status = ht_npu_entry_create(d->store, graph, &made->entry, error);
    task->n += status == HT_OK;
    return status;
}

ht_status ht_npu_prepare(ht_device *device, const ht_op *op, const ht_slice *slice, ht_task **out, ht_error *error) {
    npu_device *d = (npu_device *)device;
    ht_task *task;
    ht_status status = ht_alloc((void **)&task, 1, sizeof *task, op->name, error);
    if (status != HT_OK)
        return status;
    const char *why = NULL;
    ht_npu_graph graph;
    task->op = op;
    task->slice =
        op->kind == HT_OP_EXPERTS && !ht_npu_refuses(device, op, slice) ? ht_spell_out_experts(op, slice) : *slice;
    for (ht_slice rest = task->slice; status == HT_OK;) {
        why = ht_npu_describe(op, &rest, d->weights_first, &graph);
        status = why ? ht_fail(error, HT_ERROR_UNSUPPORTED, "%s: %s: %s", d->caps.name, op->name, why)
                     : add_graph(d, task, &graph, error);
        rest.row_begin += graph.experts;
        if (graph.experts == 0 || rest.row_begin >= rest.row_end)
            break;
    }
    if (status == HT_OK)
        *out = task;
    else
        ht_npu_release(device, task);
    return status;
}

void ht_npu_release(ht_device *device, ht_task *task) {
    if (!task)
        return;
    for (size_t k = 0; k < task->n; k++)
        ht_npu_entry_destroy(task->graphs[k].entry);
    free(task->graphs);
    free(task);
}

size_t ht_npu_task_bytes(const ht_task *task) {
    size_t bytes = 0;
    for (size_t k = 0; k < task->n; k++)
        bytes += (size_t)ht_npu_entry_bytes(task->graphs[k].entry);
    return bytes;
}

static size_t choose_length(const npu_device *d, size_t tokens) {
    const ht_lengths lengths = {d->lengths, d->caps.n_lengths, PIECE_TOKENS};
    return ht_choose_length(&lengths, tokens);
}

ht_status ht_npu_warm(ht_device *device, ht_task *task, size_t tokens, ht_error *error) {
    const npu_device *d = (npu_device *)device;
    while (tokens > 0) { /* the pieces that submit cuts them into */
        const size_t i = choose_length(d, tokens);
        for (size_t k = 0; k < task->n; k++)
            ht_npu_entry_want(task->graphs[k].entry, i);
        tokens -= ht_min_size(tokens, (size_t)d->lengths[i]);
    }
    return HT_OK;
}

static ht_status await(const ht_task *task, size_t i, ht_error *error) {
    ht_status status = HT_OK;
    for (size_t k = 0; k < task->n && status == HT_OK; k++)
        status = ht_npu_entry_await(task->graphs[k].entry, i, error);
    return status;
}

static bool is_there(const void *context, size_t i) {
    const ht_task *task = context;
    for (size_t k = 0; k < task->n; k++)
        if (!ht_npu_entry_program(task->graphs[k].entry, i))
            return false;
    return true;
}

ht_status ht_npu_settle(ht_device *device, ht_task *task, size_t tokens, ht_error *error) {
    const npu_device *d = (npu_device *)device;
    ht_status status = HT_OK;
    while (tokens > 0 && status == HT_OK) {
        const size_t i = choose_length(d, tokens);
        status = await(task, i, error);
        tokens -= ht_min_size(tokens, (size_t)d->lengths[i]);
    }
    return status;
}

bool ht_npu_ready(ht_device *device, ht_task *task, size_t tokens) {
    const npu_device *d = (npu_device *)device;
    bool ready = true;
    while (tokens > 0 && ready) {
        const size_t i = choose_length(d, tokens);
        ready = is_there(task, i);
        tokens -= ht_min_size(tokens, (size_t)d->lengths[i]);
    }
    return ready;
}

/* Once: it will be so again. Want of memory is no failure. */
static void tell_shorter(npu_device *d, ht_status status, int length, const ht_error *error) {
    if (status == HT_ERROR_DEVICE && !d->told && error)
        ht_log(HT_LOG_WARN, "%s: continuing with graphs of %d tokens: %s", d->caps.name, length, error->text);
    d->told |= status == HT_ERROR_DEVICE;
}

/* A length whose graph is there for up to `tokens` tokens. Nothing suitable: the right one is built now, and if it
 * cannot be, any that is there will do. */
static ht_status find_length(npu_device *d, ht_task *task, size_t tokens, size_t *found, ht_error *error) {
    const ht_lengths lengths = {d->lengths, d->caps.n_lengths, PIECE_TOKENS};
    if (ht_find_length(&lengths, tokens, is_there, task, found))
        return HT_OK;
    ht_status status = await(task, *found, error);
    for (size_t i = *found; status && i-- > 0 && status != HT_ERROR_CANCELLED;)
        if (is_there(task, i)) {
            tell_shorter(d, status, d->lengths[i], error);
            return *found = i, HT_OK;
        }
    return status;
}

static ht_status run_program(const npu_device *d, ht_npu_program *program, float *in, float *out, ht_error *error) {
    ht_status status = d->runtime->bind(d->npu, program, in, out, error);
    if (status == HT_OK)
        status = d->runtime->start(d->npu, program, error);
    return status == HT_OK ? d->runtime->wait(d->npu, program, error) : status;
}

/* A piece of a submit: tokens [first, first + tokens) of it at lengths[i], which is no less; of the slots' rows `room`
 * are ours to read and to write. */
typedef struct piece {
    const ht_binding *binding;
    size_t first, tokens, room, i;
} piece;

static ht_view view_of(const piece *p, const ht_view *view, size_t column) {
    return (ht_view){(float *)view->data + p->first * view->stride + column, view->stride};
}

static ht_status run(npu_device *d, ht_task *task, const piece *p, ht_error *error) {
    const ht_npu_graph *g = &task->graphs[0].graph;
    const size_t first_in = g->op->kind == HT_OP_MATMUL ? g->slice.reduction_begin : 0; /* an FFN's columns are whole */
    const ht_view source = view_of(p, &p->binding->slots[g->op->in], first_in),
                  target = view_of(p, &p->binding->slots[g->op->out], 0);
    float *in = source.data, *out = target.data;
    const size_t in_stride = source.stride, out_stride = target.stride, tokens = p->tokens;
    const size_t length = (size_t)d->lengths[p->i], cols = g->cols, rows = g->rows;
    float *from = in, *to = out + g->runs[0].to;
    if (length > p->room || (length > 1 && in_stride != cols)) {
        from = d->in;
        for (size_t t = 0; t < tokens; t++)
            memcpy(from + t * cols, in + t * in_stride, cols * sizeof *in);
        /* Padding's results are dropped, but stale bits there could be NaNs or denormals, which are slow. */
        memset(from + tokens * cols, 0, (length - tokens) * cols * sizeof *in);
    }
    if (length > p->room || (length > 1 && out_stride != rows) || g->n_runs > 1)
        to = d->out;
    ht_status status = run_program(d, ht_npu_entry_program(task->graphs[0].entry, p->i), from, to, error);
    for (size_t t = 0; t < tokens && status == HT_OK && to == d->out; t++)
        for (int k = 0; k < g->n_runs; k++)
            memcpy(out + t * out_stride + g->runs[k].to, to + t * rows + g->runs[k].from,
                   g->runs[k].rows * sizeof *out);
    return status;
}

/* Group by group: one of which nobody has chosen an expert is not run. */
static ht_status run_experts(npu_device *d, ht_task *task, const piece *p, ht_error *error) {
    const ht_op *op = task->op;
    const ht_view out = view_of(p, &p->binding->slots[op->out], 0);
    const ht_npu_crowd crowd = {.x = view_of(p, &p->binding->slots[op->in], 0),
                                .weights = view_of(p, &p->binding->slots[op->more[0]], op->more_first),
                                .left = view_of(p, p->binding->left, 0),
                                .tokens = p->tokens};
    size_t left = 0, rows = task->graphs[0].graph.rows;
    ht_status status = HT_OK;
    for (size_t t = 0; t < p->tokens; t++) {
        const float *weights = (float *)crowd.weights.data + t * crowd.weights.stride;
        memset((float *)out.data + t * out.stride, 0, rows * sizeof(float));
        memcpy((float *)crowd.left.data + t * crowd.left.stride, weights, (size_t)op->experts * sizeof *weights);
        for (size_t e = task->slice.row_begin; e < task->slice.row_end; e++)
            left += weights[e] != 0.0f;
    }
    d->pairs += left;
    for (size_t k = 0; k < task->n && status == HT_OK; k++) {
        const ht_npu_graph *g = &task->graphs[k].graph;
        const size_t capacity = ht_npu_capacity(g, (size_t)d->lengths[p->i]),
                     n = ht_npu_gather(g, capacity, &crowd, d->in, d->places);
        left -= n;
        if (n)
            status = run_program(d, ht_npu_entry_program(task->graphs[k].entry, p->i), d->in, d->out, error);
        if (n && status == HT_OK)
            ht_npu_scatter(g, capacity, d->out, d->places, &out);
    }
    d->left += left;
    return status;
}

ht_status ht_npu_submit(ht_device *device, ht_task *task, const ht_binding *binding, const ht_dependency *after,
                        size_t n_after, ht_ticket *ticket, ht_error *error) {
    npu_device *d = (npu_device *)device;
    const bool experts = task->op->kind == HT_OP_EXPERTS;
    const size_t room = ht_max_size(binding->room, binding->tokens);
    if (binding->part)
        return ht_fail(error, HT_ERROR_ARGUMENT, "%s: %s: a graph computes its whole slice, not a part", d->caps.name,
                       task->op->name);
    if (experts && !binding->left)
        return ht_fail(error, HT_ERROR_ARGUMENT, "%s: %s: nowhere to leave what is past the capacity", d->caps.name,
                       task->op->name);
    ht_status status = ht_wait_all(device, after, n_after, binding->sync, error);
    for (size_t done = 0; done < binding->tokens && status == HT_OK;) {
        piece p = {.binding = binding, .first = done, .room = room - done};
        const size_t more = binding->tokens - done;
        status = find_length(d, task, more, &p.i, error);
        if (status == HT_OK) {
            p.tokens = ht_min_size(more, (size_t)d->lengths[p.i]);
            status = experts ? run_experts(d, task, &p, error) : run(d, task, &p, error);
        }
        done += p.tokens;
    }
    if (status == HT_OK)
        *ticket = ++d->last;
    return status;
}

ht_ticket ht_npu_completed(ht_device *device) {
    return ((npu_device *)device)->last;
}

ht_status ht_npu_wait(ht_device *device, ht_ticket ticket, ht_sync sync, ht_error *error) {
    npu_device *d = (npu_device *)device;
    if (ticket <= d->last)
        return HT_OK;
    return ht_fail(error, HT_ERROR_ARGUMENT, "%s: ticket %llu was never given", d->caps.name,
                   (unsigned long long)ticket);
}
