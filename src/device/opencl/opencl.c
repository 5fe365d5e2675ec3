/* OpenCL devices: one in-order queue each, one event a submit, kernels from *.cl (embedded at build).
 *
 * Thin: MATMUL alone. Memory of the pool becomes buffers once, at import: over the same pages (USE_HOST_PTR) where
 * device and host share memory, else mirrored, and then a submit moves what its task reads and writes. The option
 * memory=copied asks for mirrors on any device, so that they can be tested without a discrete GPU. On unified memory
 * results are taken to be visible to the host when their event is complete, without mapping: OpenCL does not promise
 * it, PoCL and integrated GPUs do it.
 */
#include "device/opencl/opencl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if HT_HAVE_OPENCL
#include <sched.h>

#define MAX_FOUND 16        /* devices of all platforms */
#define POLL_SECONDS 200e-6 /* polling past this only steals time from a CPU driver's threads */

static const ht_cl_variant variants[] = {{CL_DEVICE_TYPE_CPU, 8, 1}, {CL_DEVICE_TYPE_GPU, 4, 32}, {0, 4, 1}};

/* ---- what there is ----------------------------------------------------------------------------------------------- */

/* Devices of all platforms in the drivers' order; *why when there are none. */
static size_t find_devices(const ht_cl *cl, cl_device_id *found, const char **why) {
    cl_platform_id platforms[MAX_FOUND];
    cl_uint n_platforms = 0;
    size_t n = 0;
    cl_int code = cl->GetPlatformIDs(MAX_FOUND, platforms, &n_platforms);
    *why = code == CL_SUCCESS ? "no OpenCL driver has a device" : "no OpenCL driver is installed";
    if (code != CL_SUCCESS)
        return 0;
    for (cl_uint i = 0; i < n_platforms && i < MAX_FOUND && n < MAX_FOUND; i++) {
        cl_uint more = 0;
        if (cl->GetDeviceIDs(platforms[i], CL_DEVICE_TYPE_ALL, (cl_uint)(MAX_FOUND - n), found + n, &more) ==
            CL_SUCCESS)
            n += ht_min_size(more, MAX_FOUND - n);
    }
    return n;
}

/* A string property; "" if there is none. */
static void device_text(const ht_cl *cl, cl_device_id id, cl_device_info what, char *out, size_t capacity) {
    char text[1024] = "";
    if (cl->GetDeviceInfo(id, what, sizeof text - 1, text, NULL) != CL_SUCCESS)
        text[0] = '\0';
    snprintf(out, capacity, "%.*s", (int)capacity - 1, text + strspn(text, " "));
}

static cl_device_type describe(const ht_cl *cl, cl_device_id id, size_t index, ht_device_info *info) {
    *info = (ht_device_info){0};
    cl_device_type type = 0;
    cl_ulong memory = 0;
    cl_bool unified = CL_FALSE, available = CL_FALSE, compiler = CL_FALSE;
    cl->GetDeviceInfo(id, CL_DEVICE_TYPE, sizeof type, &type, NULL);
    cl->GetDeviceInfo(id, CL_DEVICE_GLOBAL_MEM_SIZE, sizeof memory, &memory, NULL);
    cl->GetDeviceInfo(id, CL_DEVICE_HOST_UNIFIED_MEMORY, sizeof unified, &unified, NULL);
    cl->GetDeviceInfo(id, CL_DEVICE_AVAILABLE, sizeof available, &available, NULL);
    cl->GetDeviceInfo(id, CL_DEVICE_COMPILER_AVAILABLE, sizeof compiler, &compiler, NULL);
    snprintf(info->name, sizeof info->name, "opencl:%zu", index);
    snprintf(info->kind, sizeof info->kind, "%s", type & CL_DEVICE_TYPE_CPU ? "cpu" : "gpu");
    device_text(cl, id, CL_DEVICE_VERSION, info->runtime, sizeof info->runtime);
    device_text(cl, id, CL_DEVICE_NAME, info->description, sizeof info->description);
    snprintf(info->dtypes, sizeof info->dtypes, "int4,int8");
    info->memory_bytes = memory;
    info->unified_memory = unified;
    info->usable = available && compiler;
    snprintf(info->why, sizeof info->why, "%s",
             !available  ? "the driver says it is not available"
             : !compiler ? "its driver has no compiler"
                         : "");
    return type;
}

static ht_status opencl_list(ht_device_info **list, size_t *n, ht_error *error) {
    const char *why;
    const ht_cl *cl = ht_cl_load(&why);
    cl_device_id ids[MAX_FOUND];
    size_t count = cl ? find_devices(cl, ids, &why) : 0;
    ht_device_info info = {.name = "opencl", .kind = "gpu"};
    if (count == 0) {
        snprintf(info.why, sizeof info.why, "%s", why);
        return ht_device_list_add(list, n, &info, error);
    }
    for (size_t i = 0; i < count; i++) {
        describe(cl, ids[i], i, &info);
        ht_status status = ht_device_list_add(list, n, &info, error);
        if (status != HT_OK)
            return status;
    }
    return HT_OK;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

/* Replaces the device by the sub-device of cores cpus=. */
static ht_status take_cores(ht_cl_device *d, const char *cpus, ht_error *error) {
    const char *name = d->caps.name;
    uint64_t cores;
    ht_status status = ht_parse_cpus(name, cpus, &cores, error);
    if (status != HT_OK)
        return status;
    if (d->variant->type != CL_DEVICE_TYPE_CPU)
        return ht_fail(error, HT_ERROR_ARGUMENT, "device %s: cpus= is for OpenCL devices that are CPUs", name);
    cl_uint units = 0;
    cl_int code = d->cl->GetDeviceInfo(d->id, CL_DEVICE_MAX_COMPUTE_UNITS, sizeof units, &units, NULL);
    status = ht_cl_check(code, name, "clGetDeviceInfo", error);
    if (status != HT_OK)
        return status;
    int first = __builtin_ctzll(cores), n = ht_core_count(cores);
    if (cores >> first != (n == 64 ? ~UINT64_C(0) : (UINT64_C(1) << n) - 1) || first + n > (int)units)
        return ht_fail(error, HT_ERROR_ARGUMENT, "device %s: cpus=%s: OpenCL takes one run of its %u compute units",
                       name, cpus, units);
    d->caps.cores = cores;
    if (n == (int)units)
        return HT_OK;
    /* Sub-devices come in the order of their units, so those before the first core go to one that is not used. */
    cl_device_partition_property counts[5] = {CL_DEVICE_PARTITION_BY_COUNTS, 0};
    int at = 1;
    if (first > 0)
        counts[at++] = first;
    counts[at++] = n;
    counts[at] = CL_DEVICE_PARTITION_BY_COUNTS_LIST_END;
    cl_device_id parts[2];
    code = d->cl->CreateSubDevices(d->id, counts, 2, parts, NULL);
    status = ht_cl_check(code, name, "clCreateSubDevices", error);
    if (status != HT_OK)
        return status;
    if (first > 0)
        d->cl->ReleaseDevice(parts[0]);
    d->id = parts[first > 0];
    d->is_sub_device = true;
    return HT_OK;
}

static const ht_device_caps *opencl_caps(const ht_device *device) {
    return &((const ht_cl_device *)device)->caps;
}

static void opencl_close(ht_device *device) {
    ht_cl_device *d = (ht_cl_device *)device;
    if (!d)
        return;
    const ht_cl *cl = d->cl;
    if (d->queue)
        cl->Finish(d->queue);
    for (; d->done < d->last; d->done++)
        cl->ReleaseEvent(d->events[(d->done + 1) % HT_CL_IN_FLIGHT]);
    for (size_t i = 0; i < 4; i++) {
        ht_cl_kernels *k = &d->kernels[i / 2][i % 2];
        if (k->matmul)
            cl->ReleaseKernel(k->matmul);
        if (k->group_sums)
            cl->ReleaseKernel(k->group_sums);
        if (k->program)
            cl->ReleaseProgram(k->program);
    }
    for (size_t i = 0; i < d->n_regions; i++)
        cl->ReleaseMemObject(d->regions[i].memory);
    if (d->sums)
        cl->ReleaseMemObject(d->sums);
    if (d->queue)
        cl->ReleaseCommandQueue(d->queue);
    if (d->context)
        cl->ReleaseContext(d->context);
    if (d->is_sub_device)
        cl->ReleaseDevice(d->id);
    free(d);
}

/* Fills in what a device is: its place in the drivers' list, caps, variant, options. */
static ht_status choose(ht_cl_device *d, const ht_device_options *options, ht_error *error) {
    static const char *const known[] = {"cpus", "memory", NULL};
    ht_status status = ht_device_check_options(options->name, options->options, known, error);
    if (status != HT_OK)
        return status;
    const char *why = "", *number = strchr(options->name, ':');
    char *end = NULL;
    unsigned long index = number ? strtoul(number + 1, &end, 10) : 0;
    if (number && (end == number + 1 || *end))
        return ht_fail(error, HT_ERROR_ARGUMENT, "device %s: opencl: and a number", options->name);
    cl_device_id ids[MAX_FOUND];
    size_t n = find_devices(d->cl, ids, &why);
    if (index >= n)
        return ht_fail(error, HT_ERROR_DEVICE, "device %s: %s", options->name, n ? "no device of this number" : why);
    d->id = ids[index];

    ht_device_info info;
    cl_device_type type = describe(d->cl, d->id, index, &info);
    if (!info.usable)
        return ht_fail(error, HT_ERROR_DEVICE, "device %s: %s", options->name, info.why);
    for (d->variant = variants; d->variant->type && !(d->variant->type & type);)
        d->variant++;
    bool cpu = type & CL_DEVICE_TYPE_CPU;
    d->caps = (ht_device_caps){.kind = cpu ? HT_DEVICE_CPU : HT_DEVICE_GPU,
                               .memory_bytes = info.memory_bytes,
                               .unified_memory = info.unified_memory,
                               .cores = cpu ? ht_all_cores() : 0};
    memcpy(d->caps.name, info.name, sizeof info.name);
    memcpy(d->caps.runtime, info.runtime, sizeof info.runtime);
    memcpy(d->caps.description, info.description, sizeof info.description);
    memcpy(d->caps.dtypes, info.dtypes, sizeof info.dtypes);

    char value[64] = "";
    d->mirrored = !info.unified_memory;
    if (ht_device_option(options->options, "memory", value, sizeof value)) {
        if (strcmp(value, "copied") != 0 && strcmp(value, "shared") != 0)
            return ht_fail(error, HT_ERROR_ARGUMENT, "device %s: memory=%s: shared or copied", options->name, value);
        if (!d->mirrored)
            d->mirrored = value[0] == 'c'; /* without unified memory nothing can be shared */
    }
    return ht_device_option(options->options, "cpus", value, sizeof value) ? take_cores(d, value, error) : HT_OK;
}

static ht_status opencl_open(const ht_device_options *options, ht_device **device, ht_error *error) {
    const char *why;
    const ht_cl *cl = ht_cl_load(&why);
    if (!cl)
        return ht_fail(error, HT_ERROR_DEVICE, "device %s: %s", options->name, why);
    ht_cl_device *d;
    ht_status status = ht_alloc((void **)&d, 1, sizeof *d, options->name, error);
    if (status != HT_OK)
        return status;
    d->base.ops = &ht_device_opencl;
    d->cl = cl;
    d->max_tokens = options->max_tokens;
    status = choose(d, options, error);
    cl_int code = CL_SUCCESS;
    if (status == HT_OK) {
        d->context = cl->CreateContext(NULL, 1, &d->id, NULL, NULL, &code);
        status = ht_cl_check(code, d->caps.name, "clCreateContext", error);
    }
    if (status == HT_OK) {
        d->queue = cl->CreateCommandQueue(d->context, d->id, 0, &code);
        status = ht_cl_check(code, d->caps.name, "clCreateCommandQueue", error);
    }
    if (status != HT_OK) {
        opencl_close(&d->base);
        return status;
    }
    *device = &d->base;
    return HT_OK;
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

static ht_status opencl_import(ht_device *device, void *host, size_t bytes, ht_error *error) {
    ht_cl_device *d = (ht_cl_device *)device;
    if (d->n_regions == HT_CL_MAX_REGIONS)
        return ht_fail(error, HT_ERROR_DEVICE, "%s: more than %d imported buffers", d->caps.name, HT_CL_MAX_REGIONS);
    cl_mem_flags flags = CL_MEM_READ_WRITE | (d->mirrored ? 0 : CL_MEM_USE_HOST_PTR);
    cl_int code;
    cl_mem memory = d->cl->CreateBuffer(d->context, flags, bytes, d->mirrored ? NULL : host, &code);
    ht_status status = ht_cl_check(code, d->caps.name, "clCreateBuffer", error);
    if (status == HT_OK)
        d->regions[d->n_regions++] = (ht_cl_region){host, bytes, memory};
    return status;
}

static ht_status find_place(ht_cl_device *d, const ht_op *op, const ht_binding *binding, ht_slot slot, size_t first,
                            size_t width, ht_cl_place *out, ht_error *error) {
    const ht_view *view = &binding->slots[slot];
    const char *data = (const char *)view->data;
    if (binding->tokens > 1 && view->stride < first + width)
        return ht_fail(error, HT_ERROR_ARGUMENT, "%s: %s: a stride of %zu holds no %zu values", d->caps.name, op->name,
                       view->stride, first + width);
    size_t bytes = ((binding->tokens - 1) * view->stride + first + width) * sizeof(float);
    for (const ht_cl_region *r = d->regions; r < d->regions + d->n_regions; r++) {
        if (data < r->host || data >= r->host + r->bytes)
            continue;
        if (bytes > (size_t)(r->host + r->bytes - data))
            break;
        *out = (ht_cl_place){r, (cl_ulong)(data - r->host) / sizeof(float) + first, width, view->stride};
        return HT_OK;
    }
    return ht_fail(error, HT_ERROR_ARGUMENT, "%s: %s: slot %d is not in imported memory", d->caps.name, op->name, slot);
}

/* Between a mirrored buffer and the host's pages, in the queue's order. */
static ht_status move(ht_cl_device *d, const ht_cl_place *p, size_t tokens, bool to_device, cl_event *event,
                      ht_error *error) {
    size_t pitch = ht_max_size(p->stride, p->width) * sizeof(float);
    size_t origin[3] = {p->offset * sizeof(float), 0, 0}, extent[3] = {p->width * sizeof(float), tokens, 1};
    cl_int code = to_device ? d->cl->EnqueueWriteBufferRect(d->queue, p->region->memory, CL_FALSE, origin, origin,
                                                            extent, pitch, 0, pitch, 0, p->region->host, 0, NULL, event)
                            : d->cl->EnqueueReadBufferRect(d->queue, p->region->memory, CL_FALSE, origin, origin,
                                                           extent, pitch, 0, pitch, 0, p->region->host, 0, NULL, event);
    return ht_cl_check(code, d->caps.name, to_device ? "clEnqueueWriteBufferRect" : "clEnqueueReadBufferRect", error);
}

/* ---- tasks ------------------------------------------------------------------------------------------------------- */

static const char *opencl_refuses(const ht_device *device, const ht_op *op, const ht_slice *slice) {
    return ht_slice_form(op, slice, NULL);
}

static size_t opencl_task_bytes(const ht_task *task) {
    return task->bytes;
}

/* ---- the queue --------------------------------------------------------------------------------------------------- */

static ht_ticket opencl_completed(ht_device *device) {
    ht_cl_device *d = (ht_cl_device *)device;
    while (d->done < d->last) {
        cl_event *event = &d->events[(d->done + 1) % HT_CL_IN_FLIGHT];
        cl_int state = CL_COMPLETE;
        cl_int code = d->cl->GetEventInfo(*event, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof state, &state, NULL);
        if (code != CL_SUCCESS)
            state = code;
        if (state > CL_COMPLETE)
            break;
        /* A failed command counts as complete, lest a join polls for ever; wait tells. */
        if (state < 0 && !d->failed)
            d->failed = state;
        d->cl->ReleaseEvent(*event);
        d->done++;
    }
    return d->done;
}

/* FINISH empties the whole queue; CALLBACK and FLAG are not there yet and do as EVENT: poll a while, then block. */
static ht_status opencl_wait(ht_device *device, ht_ticket ticket, ht_sync sync, ht_error *error) {
    ht_cl_device *d = (ht_cl_device *)device;
    if (ticket > d->last)
        return ht_fail(error, HT_ERROR_ARGUMENT, "%s: ticket %llu was never given", d->caps.name,
                       (unsigned long long)ticket);
    ht_status status = HT_OK;
    if (sync == HT_SYNC_FINISH && opencl_completed(device) < ticket) {
        status = ht_cl_check(d->cl->Finish(d->queue), d->caps.name, "clFinish", error);
    } else {
        double until = 0;
        while (opencl_completed(device) < ticket && status == HT_OK) {
            double now = ht_seconds();
            if (until == 0)
                until = now + POLL_SECONDS;
            if (now < until)
                sched_yield();
            else {
                cl_int code = d->cl->WaitForEvents(1, &d->events[ticket % HT_CL_IN_FLIGHT]);
                if (opencl_completed(device) < ticket)
                    status = ht_cl_check(code, d->caps.name, "clWaitForEvents", error);
            }
        }
    }
    opencl_completed(device);
    if (status == HT_OK && d->failed)
        status = ht_cl_check(d->failed, d->caps.name, "a submitted kernel", error);
    return status;
}

static ht_status opencl_submit(ht_device *device, ht_task *task, const ht_binding *binding, const ht_dependency *after,
                               size_t n_after, ht_ticket *ticket, ht_error *error) {
    ht_cl_device *d = (ht_cl_device *)device;
    const ht_op *op = task->op;
    if (binding->tokens == 0 || binding->tokens > d->max_tokens)
        return ht_fail(error, HT_ERROR_ARGUMENT, "%s: %s: %zu tokens in one submit", d->caps.name, op->name,
                       binding->tokens);
    ht_cl_place in, out;
    size_t cols = task->groups * HT_GROUP, tokens = binding->tokens;
    ht_status status = find_place(d, op, binding, op->in, 0, cols, &in, error);
    if (status == HT_OK)
        status = find_place(d, op, binding, op->out, task->slice.row_begin, task->rows, &out, error);
    /* Thin: the host waits for the others. A GPU that is to stay busy across a join needs user events here. */
    if (status == HT_OK)
        status = ht_wait_all(device, after, n_after, binding->sync, error);
    if (status == HT_OK && d->last - opencl_completed(device) == HT_CL_IN_FLIGHT)
        status = opencl_wait(device, d->done + 1, HT_SYNC_EVENT, error);
    cl_event event = NULL;
    if (status == HT_OK && d->mirrored)
        status = move(d, &in, tokens, true, NULL, error);
    if (status == HT_OK)
        status = ht_cl_matmul_enqueue(d, task, &in, &out, (cl_uint)tokens, d->mirrored ? NULL : &event, error);
    if (status == HT_OK && d->mirrored)
        status = move(d, &out, tokens, false, &event, error);
    if (status != HT_OK)
        return status;
    d->events[++d->last % HT_CL_IN_FLIGHT] = event;
    *ticket = d->last;
    return ht_cl_check(d->cl->Flush(d->queue), d->caps.name, "clFlush", error);
}

#else /* !HT_HAVE_OPENCL */

#define NOT_BUILT "built without OpenCL (package opencl-headers)"

static ht_status opencl_list(ht_device_info **list, size_t *n, ht_error *error) {
    ht_device_info info = {.name = "opencl", .kind = "gpu", .why = NOT_BUILT};
    return ht_device_list_add(list, n, &info, error);
}

static ht_status opencl_open(const ht_device_options *options, ht_device **device, ht_error *error) {
    return ht_fail(error, HT_ERROR_UNSUPPORTED, "device %s: " NOT_BUILT, options->name);
}
#endif

const ht_device_ops ht_device_opencl = {
    .prefix = "opencl",
    .list = opencl_list,
    .open = opencl_open,
#if HT_HAVE_OPENCL
    .close = opencl_close,
    .caps = opencl_caps,
    .refuses = opencl_refuses,
    .import = opencl_import,
    .prepare = ht_cl_matmul_prepare,
    .release = ht_cl_matmul_release,
    .task_bytes = opencl_task_bytes,
    .submit = opencl_submit,
    .completed = opencl_completed,
    .wait = opencl_wait,
#endif
};
