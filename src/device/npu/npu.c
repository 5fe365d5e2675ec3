/* The ht_device over a static-graph runtime: lengths, padding, strides.
 *
 * A submit of n tokens is padded to the next length; more than the longest length is split first. Where a view is dense
 * and no padding is needed, the graph reads and writes the slot itself; else through two staging buffers of the device.
 * Thin: MATMUL alone, and a length's graph is built by the first submit that needs it (milliseconds to a second): it
 * belongs into prepare once prepare knows the lengths of the plan. Submits compute in the caller.
 */
#include "device/npu/npu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_LENGTHS 16
#define MAX_LENGTH 65536
static const int default_lengths[] = {1, 32, 64, 128, 256, 512, 1024};

typedef struct npu_device {
    ht_device base;
    ht_device_caps caps;
    const ht_npu_runtime *runtime;
    ht_npu *npu;
    int lengths[MAX_LENGTHS]; /* ascending */
    float *in, *out;          /* staging: [longest][cols], [longest][rows] of the widest tasks */
    size_t in_bytes, out_bytes;
    ht_ticket last; /* every ticket given is complete */
} npu_device;

struct ht_task {
    ht_npu_graph graph;
    ht_npu_program *programs[MAX_LENGTHS]; /* one a length, NULL until needed */
    size_t bytes;
};

/* ---- opening ----------------------------------------------------------------------------------------------------- */

/* "1+64+256", ascending. */
static ht_status parse_lengths(npu_device *d, const char *text, ht_error *error) {
    size_t n = 0;
    for (const char *p = text; p;) {
        char *end;
        long length = *p >= '0' && *p <= '9' ? strtol(p, &end, 10) : 0;
        if (length < 1 || length > MAX_LENGTH || (*end && *end != '+') || n == MAX_LENGTHS ||
            (n && length <= d->lengths[n - 1]))
            return ht_fail(error, HT_ERROR_ARGUMENT,
                           "device %s: lengths=%s: up to %d ascending lengths such as 1+64+256", d->caps.name, text,
                           MAX_LENGTHS);
        d->lengths[n++] = (int)length;
        p = *end ? end + 1 : NULL;
    }
    d->caps.n_lengths = n;
    return HT_OK;
}

/* The usual lengths, as far as a submit can fill them. */
static void default_to(npu_device *d, size_t max_tokens) {
    for (size_t i = 0; i < HT_COUNT(default_lengths); i++) {
        if (i > 0 && (size_t)default_lengths[i - 1] >= max_tokens)
            break;
        d->lengths[d->caps.n_lengths++] = default_lengths[i];
    }
}

static void npu_close(ht_device *device) {
    npu_device *d = (npu_device *)device;
    if (!d)
        return;
    if (d->npu)
        d->runtime->close(d->npu);
    if (d->in)
        ht_pages_free(d->in, d->in_bytes);
    if (d->out)
        ht_pages_free(d->out, d->out_bytes);
    free(d);
}

static ht_status configure(npu_device *d, const ht_device_options *options, ht_error *error) {
    static const char *const known[] = {"cpus", "lengths", NULL};
    ht_status status = ht_device_check_options(options->name, options->options, known, error);
    if (status != HT_OK)
        return status;
    ht_npu_config config = {.name = options->name, .threads = options->threads, .precision = options->precision};
    char value[128];
    snprintf(d->caps.name, sizeof d->caps.name, "%s", options->name);
    d->caps.lengths = d->lengths;
    if (ht_device_option(options->options, "lengths", value, sizeof value))
        status = parse_lengths(d, value, error);
    else
        default_to(d, options->max_tokens);
    if (status == HT_OK && ht_device_option(options->options, "cpus", value, sizeof value)) {
        status = ht_parse_cpus(options->name, value, &config.cores, error);
        config.threads = ht_core_count(config.cores);
    }
    if (status != HT_OK)
        return status;
    ht_device_info info;
    status = d->runtime->open(&config, &d->npu, &info, error);
    if (status != HT_OK)
        return status;
    bool cpu = strcmp(info.kind, "cpu") == 0;
    if (config.cores && !cpu)
        return ht_fail(error, HT_ERROR_ARGUMENT, "device %s: cpus= is for devices that are CPUs", options->name);
    d->caps.kind = cpu ? HT_DEVICE_CPU : strcmp(info.kind, "gpu") == 0 ? HT_DEVICE_GPU : HT_DEVICE_NPU;
    memcpy(d->caps.name, info.name, sizeof info.name);
    memcpy(d->caps.runtime, info.runtime, sizeof info.runtime);
    memcpy(d->caps.description, info.description, sizeof info.description);
    memcpy(d->caps.dtypes, info.dtypes, sizeof info.dtypes);
    d->caps.memory_bytes = info.memory_bytes;
    d->caps.unified_memory = info.unified_memory;
    d->caps.runs_in_caller = true;
    d->caps.cores = config.cores ? config.cores : cpu ? ht_all_cores() : 0;
    return HT_OK;
}

static ht_status npu_open(const ht_device_ops *ops, const ht_npu_runtime *runtime, const ht_device_options *options,
                          ht_device **device, ht_error *error) {
    npu_device *d;
    ht_status status = ht_alloc((void **)&d, 1, sizeof *d, options->name, error);
    if (status != HT_OK)
        return status;
    d->base.ops = ops;
    d->runtime = runtime;
    status = configure(d, options, error);
    if (status != HT_OK)
        npu_close(&d->base);
    else
        *device = &d->base;
    return status;
}

static const ht_device_caps *npu_caps(const ht_device *device) {
    return &((const npu_device *)device)->caps;
}

static const char *npu_refuses(const ht_device *device, const ht_op *op, const ht_slice *slice) {
    return ht_slice_form(op, slice, NULL);
}

/* ---- tasks ------------------------------------------------------------------------------------------------------- */

static ht_status grow(float **buffer, size_t *bytes, size_t need, const char *name, ht_error *error) {
    if (need <= *bytes)
        return HT_OK;
    float *grown = ht_pages_alloc(need);
    if (!grown)
        return ht_fail(error, HT_ERROR_MEMORY, "%s: no memory for a staging buffer of %zu bytes", name, need);
    if (*buffer)
        ht_pages_free(*buffer, *bytes);
    *buffer = grown;
    *bytes = need;
    return HT_OK;
}

static ht_status npu_prepare(ht_device *device, const ht_op *op, const ht_slice *slice, ht_task **out,
                             ht_error *error) {
    npu_device *d = (npu_device *)device;
    ht_form form;
    const char *why = ht_slice_form(op, slice, &form);
    if (why)
        return ht_fail(error, HT_ERROR_UNSUPPORTED, "%s: %s: %s", d->caps.name, op->name, why);
    ht_npu_graph graph = {op, slice->row_begin, slice->row_end - slice->row_begin, op->parts[0].cols, form};
    size_t longest = (size_t)d->lengths[d->caps.n_lengths - 1];
    ht_status status = grow(&d->in, &d->in_bytes, longest * graph.cols * sizeof(float), d->caps.name, error);
    if (status == HT_OK)
        status = grow(&d->out, &d->out_bytes, longest * graph.rows * sizeof(float), d->caps.name, error);
    ht_task *task = NULL;
    if (status == HT_OK)
        status = ht_alloc((void **)&task, 1, sizeof *task, op->name, error);
    if (status != HT_OK)
        return status;
    task->graph = graph;
    *out = task;
    return HT_OK;
}

static void npu_release(ht_device *device, ht_task *task) {
    npu_device *d = (npu_device *)device;
    if (!task)
        return;
    for (size_t i = 0; i < MAX_LENGTHS; i++)
        if (task->programs[i])
            d->runtime->discard(d->npu, task->programs[i]);
    free(task);
}

static size_t npu_task_bytes(const ht_task *task) {
    return task->bytes;
}

/* The shortest length that holds `tokens`, else the longest there is. */
static size_t choose_length(const npu_device *d, size_t tokens) {
    size_t i = 0;
    while (i + 1 < d->caps.n_lengths && (size_t)d->lengths[i] < tokens)
        i++;
    return i;
}

/* The graph of one length, unless it is there. */
static ht_status build(npu_device *d, ht_task *task, size_t i, ht_error *error) {
    if (task->programs[i])
        return HT_OK;
    size_t bytes = 0;
    ht_status status =
        d->runtime->compile(d->npu, &task->graph, (size_t)d->lengths[i], &task->programs[i], &bytes, error);
    if (status == HT_OK)
        task->bytes += bytes;
    return status;
}

static ht_status npu_warm(ht_device *device, ht_task *task, size_t tokens, ht_error *error) {
    npu_device *d = (npu_device *)device;
    ht_status status = HT_OK;
    while (tokens > 0 && status == HT_OK) { /* the pieces that submit cuts them into */
        size_t i = choose_length(d, tokens);
        status = build(d, task, i, error);
        tokens -= ht_min_size(tokens, (size_t)d->lengths[i]);
    }
    return status;
}

/* Runs `tokens` <= lengths[i] tokens; token 0's values at in and out, rows of the slot in_stride and out_stride apart.
 * */
static ht_status run(npu_device *d, ht_task *task, size_t i, size_t tokens, float *in, size_t in_stride, float *out,
                     size_t out_stride, ht_error *error) {
    size_t length = (size_t)d->lengths[i], cols = task->graph.cols, rows = task->graph.rows;
    ht_status status = build(d, task, i, error);
    if (status != HT_OK)
        return status;
    bool whole = tokens == length;
    float *from = in, *to = out;
    if (!whole || (length > 1 && in_stride != cols)) {
        from = d->in;
        for (size_t t = 0; t < tokens; t++)
            memcpy(from + t * cols, in + t * in_stride, cols * sizeof *in);
        /* Padding's results are dropped, but stale bits there could be NaNs or denormals, which are slow. */
        memset(from + tokens * cols, 0, (length - tokens) * cols * sizeof *in);
    }
    if (!whole || (length > 1 && out_stride != rows))
        to = d->out;
    status = d->runtime->bind(d->npu, task->programs[i], from, to, error);
    if (status == HT_OK)
        status = d->runtime->start(d->npu, task->programs[i], error);
    if (status == HT_OK)
        status = d->runtime->wait(d->npu, task->programs[i], error);
    if (status == HT_OK && to != out)
        for (size_t t = 0; t < tokens; t++)
            memcpy(out + t * out_stride, to + t * rows, rows * sizeof *out);
    return status;
}

static ht_status npu_submit(ht_device *device, ht_task *task, const ht_binding *binding, const ht_dependency *after,
                            size_t n_after, ht_ticket *ticket, ht_error *error) {
    npu_device *d = (npu_device *)device;
    const ht_view *in = &binding->slots[task->graph.op->in], *out = &binding->slots[task->graph.op->out];
    ht_status status = ht_wait_all(device, after, n_after, binding->sync, error);
    for (size_t done = 0; done < binding->tokens && status == HT_OK;) {
        size_t left = binding->tokens - done, i = choose_length(d, left);
        size_t tokens = ht_min_size(left, (size_t)d->lengths[i]);
        status = run(d, task, i, tokens, (float *)in->data + done * in->stride, in->stride,
                     (float *)out->data + done * out->stride + task->graph.row_begin, out->stride, error);
        done += tokens;
    }
    if (status == HT_OK)
        *ticket = ++d->last;
    return status;
}

static ht_ticket npu_completed(ht_device *device) {
    return ((npu_device *)device)->last;
}

static ht_status npu_wait(ht_device *device, ht_ticket ticket, ht_sync sync, ht_error *error) {
    npu_device *d = (npu_device *)device;
    if (ticket <= d->last)
        return HT_OK;
    return ht_fail(error, HT_ERROR_ARGUMENT, "%s: ticket %llu was never given", d->caps.name,
                   (unsigned long long)ticket);
}

/* ---- one table a runtime: only finding and opening differ -------------------------------------------------------- */

static ht_status openvino_list(ht_device_info **list, size_t *n, ht_error *error) {
    return ht_npu_openvino.list(list, n, error);
}

static ht_status openvino_open(const ht_device_options *options, ht_device **device, ht_error *error) {
    return npu_open(&ht_device_openvino, &ht_npu_openvino, options, device, error);
}

const ht_device_ops ht_device_openvino = {
    .prefix = "openvino",
    .list = openvino_list,
    .open = openvino_open,
    .close = npu_close,
    .caps = npu_caps,
    .refuses = npu_refuses,
    .import = NULL, /* tensors lie over any host memory */
    .prepare = npu_prepare,
    .release = npu_release,
    .task_bytes = npu_task_bytes,
    .warm = npu_warm,
    .submit = npu_submit,
    .completed = npu_completed,
    .wait = npu_wait,
};
