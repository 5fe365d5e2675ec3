/* OpenCL devices: finding, describing, opening; what kind of kernels a device gets. */
#include "device/opencl/kernel.h"
#include "device/opencl/ops.h"
#include "device/opencl/queue.h"
#include "device/opencl/slice.h"
#include "device/opencl/tiles.h"
#include "device/opencl/weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if HT_HAVE_OPENCL

#define MAX_FOUND 16       /* devices of all platforms */
#define DEFAULT_TIMEOUT 60 /* seconds without a finished submit */

/* How kernels are built for a kind of processor; the first row that fits. */
static const struct variant {
    const char *name; /* option variant=NAME */
    cl_device_type type;
    unsigned feature, vector;
    size_t local;
} variants[] = {
    {"vector", CL_DEVICE_TYPE_CPU, HT_CL_VECTOR, 16, 1}, /* PoCL does not vectorise across work-items here */
    {"simt", CL_DEVICE_TYPE_ALL, HT_CL_SIMT, 4, 128},
};

/* What a driver has and does not say, or says and does not have; every row that fits, in order. */
static const struct quirk {
    const char *vendor, *name; /* parts of CL_DEVICE_VENDOR and CL_DEVICE_NAME; NULL: any */
    unsigned add, remove;      /* features */
    const char *options;       /* of the compiler */
    size_t group;              /* most work-items of a group that run well; 0: GROUP_LIMIT */
} quirks[] = {
    {"NVIDIA", NULL, HT_CL_DOT, 0, "-DDOT=2", 1024}, /* no extension for it, but its compiler takes dp4a as assembler */
};

/* ---- what there is ----------------------------------------------------------------------------------------------------- */

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

/* Most work-items of a group, where it is not known that large groups run well. */
#define GROUP_LIMIT 256

/* A string property; "" if there is none. */
static void device_text(const ht_cl *cl, cl_device_id id, cl_device_info what, char *out, size_t capacity) {
    size_t bytes = 0;
    out[0] = '\0';
    if (cl->GetDeviceInfo(id, what, 0, NULL, &bytes) != CL_SUCCESS || bytes == 0)
        return;
    char *text = malloc(bytes + 1);
    if (text && cl->GetDeviceInfo(id, what, bytes, text, NULL) == CL_SUCCESS) {
        text[bytes] = '\0';
        snprintf(out, capacity, "%.*s", (int)capacity - 1, text + strspn(text, " "));
    }
    free(text);
}

typedef struct facts { /* of a device, as its driver tells them */
    cl_device_type type;
    cl_ulong memory, largest, local;
    cl_uint units;
    size_t group;
    cl_bool unified, available, compiler, little_endian;
    char vendor[64], name[160], version[64], c_version[64], driver[64], extensions[8192];
} facts;

static void read_facts(const ht_cl *cl, cl_device_id id, facts *f) {
    *f = (facts){0};
    const struct {
        cl_device_info what;
        void *to;
        size_t bytes;
    } numbers[] = {{CL_DEVICE_TYPE, &f->type, sizeof f->type},
                   {CL_DEVICE_GLOBAL_MEM_SIZE, &f->memory, sizeof f->memory},
                   {CL_DEVICE_MAX_MEM_ALLOC_SIZE, &f->largest, sizeof f->largest},
                   {CL_DEVICE_LOCAL_MEM_SIZE, &f->local, sizeof f->local},
                   {CL_DEVICE_MAX_COMPUTE_UNITS, &f->units, sizeof f->units},
                   {CL_DEVICE_MAX_WORK_GROUP_SIZE, &f->group, sizeof f->group},
                   {CL_DEVICE_HOST_UNIFIED_MEMORY, &f->unified, sizeof f->unified},
                   {CL_DEVICE_AVAILABLE, &f->available, sizeof f->available},
                   {CL_DEVICE_COMPILER_AVAILABLE, &f->compiler, sizeof f->compiler},
                   {CL_DEVICE_ENDIAN_LITTLE, &f->little_endian, sizeof f->little_endian}};
    const struct {
        cl_device_info what;
        char *to;
        size_t capacity;
    } texts[] = {{CL_DEVICE_VENDOR, f->vendor, sizeof f->vendor},
                 {CL_DEVICE_NAME, f->name, sizeof f->name},
                 {CL_DEVICE_VERSION, f->version, sizeof f->version},
                 {CL_DEVICE_OPENCL_C_VERSION, f->c_version, sizeof f->c_version},
                 {CL_DRIVER_VERSION, f->driver, sizeof f->driver},
                 {CL_DEVICE_EXTENSIONS, f->extensions, sizeof f->extensions}};
    for (size_t i = 0; i < HT_COUNT(numbers); i++)
        cl->GetDeviceInfo(id, numbers[i].what, numbers[i].bytes, numbers[i].to, NULL);
    for (size_t i = 0; i < HT_COUNT(texts); i++)
        device_text(cl, id, texts[i].what, texts[i].to, texts[i].capacity);
}

static bool has_extension(const facts *f, const char *name) {
    const size_t n = strlen(name);
    for (const char *at = f->extensions; (at = strstr(at, name)); at += n)
        if ((at == f->extensions || at[-1] == ' ') && (at[n] == ' ' || at[n] == '\0'))
            return true;
    return false;
}

/* "OpenCL C 1.2 PoCL" -> 12; 0 if it does not say. */
static int c_version(const facts *f) {
    int major = 0, minor = 0;
    return sscanf(f->c_version, "OpenCL C %d.%d", &major, &minor) == 2 ? 10 * major + minor : 0;
}

static const char *unusable(const facts *f) {
    if (!f->available)
        return "the driver says it is not available";
    if (!f->compiler)
        return "its driver has no compiler";
    if (!f->little_endian)
        return "it is big-endian";
    return c_version(f) < 12 ? "its OpenCL C is older than 1.2" : "";
}

static bool fits(const struct quirk *quirk, const facts *f) {
    return (!quirk->vendor || strstr(f->vendor, quirk->vendor)) && (!quirk->name || strstr(f->name, quirk->name));
}

static unsigned features_of(const facts *f) {
    unsigned features = 0;
    if (has_extension(f, "cl_khr_fp16"))
        features |= HT_CL_FP16;
    if (has_extension(f, "cl_khr_subgroups") && c_version(f) >= 20)
        features |= HT_CL_SUBGROUPS;
    if (has_extension(f, "cl_khr_integer_dot_product"))
        features |= HT_CL_DOT;
    for (size_t i = 0; i < HT_COUNT(quirks); i++)
        if (fits(&quirks[i], f))
            features = (features | quirks[i].add) & ~quirks[i].remove;
    return features;
}

static void describe(const facts *f, size_t index, ht_device_info *info) {
    *info = (ht_device_info){.memory_bytes = f->memory, .unified_memory = f->unified};
    const unsigned features = features_of(f);
    snprintf(info->name, sizeof info->name, "opencl:%zu", index);
    snprintf(info->kind, sizeof info->kind, "%s", f->type & CL_DEVICE_TYPE_CPU ? "cpu" : "gpu");
    snprintf(info->runtime, sizeof info->runtime, "%s", f->version);
    memcpy(info->driver, f->driver, sizeof info->driver);         /* of one size */
    memcpy(info->description, f->name, sizeof info->description); /* likewise */
    snprintf(info->dtypes, sizeof info->dtypes, "int4,int8,f16,bf16,f32");
    snprintf(info->limits, sizeof info->limits, "%u compute units, %.1f GiB in one buffer, %llu KiB local memory%s%s%s",
             f->units, (double)f->largest / (1 << 30), (unsigned long long)f->local / 1024,
             features & HT_CL_FP16 ? ", fp16" : "", features & HT_CL_SUBGROUPS ? ", subgroups" : "",
             features & HT_CL_DOT ? ", integer dot products" : "");
    snprintf(info->why, sizeof info->why, "%s", unusable(f));
    info->usable = !*info->why;
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
        facts f;
        read_facts(cl, ids[i], &f);
        describe(&f, i, &info);
        ht_status status = ht_device_list_add(list, n, &info, error);
        if (status != HT_OK)
            return status;
    }
    return HT_OK;
}

/* ---- options ----------------------------------------------------------------------------------------------------------- */

/* Replaces the device by the sub-device of cores cpus=. */
static ht_status take_cores(ht_cl_device *d, const char *cpus, const facts *f, ht_error *error) {
    const char *name = d->caps.name;
    ht_cores cores;
    ht_status status = ht_parse_cpus(name, cpus, &cores, error);
    if (status != HT_OK)
        return status;
    if (!(f->type & CL_DEVICE_TYPE_CPU))
        return ht_fail(error, HT_ERROR_ARGUMENT, "device %s: cpus= requires an OpenCL device that is a CPU", name);
    const int first = ht_cores_next(&cores, 0), n = ht_cores_count(&cores);
    bool run = first + n <= (int)f->units;
    for (int core = first; core < first + n; core++)
        run &= ht_cores_has(&cores, core);
    if (!run)
        return ht_fail(error, HT_ERROR_ARGUMENT, "device %s: cpus=%s: expected one range of its %u compute units", name,
                       cpus, f->units);
    d->caps.cores = cores;
    d->units = (cl_uint)n;
    if (n == (int)f->units)
        return HT_OK;
    /* Sub-devices come in the order of their units, so those before the first core go to one that is not used. */
    cl_device_partition_property counts[5] = {CL_DEVICE_PARTITION_BY_COUNTS, 0};
    int at = 1;
    if (first > 0)
        counts[at++] = first;
    counts[at++] = n;
    counts[at] = CL_DEVICE_PARTITION_BY_COUNTS_LIST_END;
    cl_device_id parts[2];
    cl_int code = d->cl->CreateSubDevices(d->id, counts, 2, parts, NULL);
    status = ht_cl_check(code, name, "clCreateSubDevices", error);
    if (status != HT_OK)
        return status;
    if (first > 0)
        d->cl->ReleaseDevice(parts[0]);
    d->id = parts[first > 0];
    d->is_sub_device = true;
    return HT_OK;
}

/* Variant, features and the options of every program. */
static ht_status choose_kernels(ht_cl_device *d, const ht_device_options *options, const facts *f, ht_error *error) {
    static const char *const names[] = {"vector", "simt", NULL}, *const switches[] = {"off", "on", NULL};
    int chosen = -1, int8 = -1;
    ht_status status = ht_device_word(options, "variant", names, &chosen, error);
    if (status == HT_OK)
        status = ht_device_word(options, "int8", switches, &int8, error);
    if (status != HT_OK)
        return status;
    const struct variant *v = variants;
    for (; chosen < 0 ? !(v->type & f->type) : strcmp(v->name, names[chosen]) != 0;)
        v++;
    d->features = v->feature | features_of(f);
    if (int8 >= 0) /* dot products of bytes can be put together from other operations */
        d->features = int8 ? d->features | HT_CL_DOT : d->features & ~(unsigned)HT_CL_DOT;
    /* arithmetic in fewer bits is what `fast` allows */
    if (options->precision == HT_PRECISION_EXACT)
        d->features &= ~(unsigned)(HT_CL_FP16 | HT_CL_DOT);
    d->vector = v->vector;
    d->local = f->group && v->local > f->group ? f->group : v->local;
    char define[48] = "";
    const bool defined = ht_device_option(options->options, "define", define, sizeof define);
    int n =
        snprintf(d->build_options, sizeof d->build_options,
                 "-cl-std=CL%s -cl-mad-enable -DVECTOR=%d -DSIMT=%d -DVEC=%u -DLOCAL=%zu -DFP16=%d -DSUBGROUPS=%d%s%s",
                 d->features & HT_CL_SUBGROUPS ? (c_version(f) >= 30 ? "3.0" : "2.0") : "1.2",
                 !!(d->features & HT_CL_VECTOR), !!(d->features & HT_CL_SIMT), d->vector, d->local,
                 !!(d->features & HT_CL_FP16), !!(d->features & HT_CL_SUBGROUPS), defined ? " -D" : "", define);
    const char *dot = has_extension(f, "cl_khr_integer_dot_product") ? "-DDOT=1" : "-DDOT=0";
    d->largest_group = f->type & CL_DEVICE_TYPE_CPU ? f->group : GROUP_LIMIT;
    for (size_t i = 0; i < HT_COUNT(quirks); i++)
        if (fits(&quirks[i], f)) {
            dot = quirks[i].add & HT_CL_DOT ? quirks[i].options : dot;
            d->largest_group = quirks[i].group ? quirks[i].group : d->largest_group;
        }
    d->largest_group = f->group ? ht_min_size(f->group, d->largest_group) : d->largest_group;
    snprintf(d->build_options + n, sizeof d->build_options - (size_t)n, " %s", dot);
    return HT_OK;
}

static ht_status find_device(ht_cl_device *d, const ht_device_options *options, size_t *index, ht_error *error) {
    const char *why = "", *number = strchr(options->name, ':');
    char *end = NULL;
    *index = number ? strtoul(number + 1, &end, 10) : 0;
    if (number && (end == number + 1 || *end))
        return ht_fail(error, HT_ERROR_ARGUMENT, "device %s: expected opencl: and a number", options->name);
    cl_device_id ids[MAX_FOUND];
    size_t n = find_devices(d->cl, ids, &why);
    if (*index >= n)
        return ht_fail(error, HT_ERROR_DEVICE, "device %s: %s", options->name, n ? "no device of this number" : why);
    d->id = ids[*index];
    return HT_OK;
}

/* Fills in what a device is: its place in the drivers' list, caps, variant, options. */
static ht_status choose(ht_cl_device *d, const ht_device_options *options, double *timeout, ht_error *error) {
    static const char *const known[] = {"cpus", "memory", "variant", "timeout", "int8", "kernel", "define", NULL};
    static const char *const memories[] = {"shared", "copied", NULL};
    size_t index;
    ht_status status = ht_device_check_options(options->name, options->options, known, error);
    if (status == HT_OK)
        status = find_device(d, options, &index, error);
    if (status != HT_OK)
        return status;
    facts *f = malloc(sizeof *f);
    if (!f)
        return ht_fail(error, HT_ERROR_MEMORY, "device %s: no memory", options->name);
    read_facts(d->cl, d->id, f);
    ht_device_info info;
    describe(f, index, &info);
    const bool cpu = f->type & CL_DEVICE_TYPE_CPU;
    d->caps = (ht_device_caps){.kind = cpu ? HT_DEVICE_CPU : HT_DEVICE_GPU,
                               .memory_bytes = info.memory_bytes,
                               .unified_memory = info.unified_memory,
                               .divisible = true};
    if (cpu)
        d->caps.cores = *ht_all_cores();
    memcpy(d->caps.name, info.name, sizeof info.name);
    memcpy(d->caps.runtime, info.runtime, sizeof info.runtime);
    memcpy(d->caps.description, info.description, sizeof info.description);
    memcpy(d->caps.dtypes, info.dtypes, sizeof info.dtypes);
    d->units = f->units;
    d->largest = f->largest;
    d->local_bytes = f->local;
    snprintf(d->fingerprint, sizeof d->fingerprint, "%.40s|%.100s|%.50s|%.50s", f->vendor, f->name, f->version,
             f->driver);

    char value[64] = "";
    int memory = -1;
    if (!info.usable)
        status = ht_fail(error, HT_ERROR_DEVICE, "device %s: %s", options->name, info.why);
    if (status == HT_OK)
        status = choose_kernels(d, options, f, error);
    if (status == HT_OK)
        status = ht_device_word(options, "memory", memories, &memory, error);
    d->caps.granule = d->features & HT_CL_VECTOR ? 4 : 0; /* matmul_vector.cl's tiles of 4, 8 and 12 */
    d->mirrored = !info.unified_memory || memory == 1;    /* without unified memory nothing can be shared */
    d->caps.unified_memory = !d->mirrored;
    if (status == HT_OK && ht_device_option(options->options, "cpus", value, sizeof value))
        status = take_cores(d, value, f, error);
    d->forced_kernel = -1;
    if (status == HT_OK && ht_device_option(options->options, "kernel", value, sizeof value))
        d->forced_kernel = atoi(value) & 0xff;
    *timeout = DEFAULT_TIMEOUT;
    if (status == HT_OK && ht_device_option(options->options, "timeout", value, sizeof value)) {
        char *end;
        *timeout = strtod(value, &end);
        if (*end || !(*timeout > 0 && *timeout < 1e6))
            status = ht_fail(error, HT_ERROR_ARGUMENT, "device %s: timeout=%s: expected seconds", options->name, value);
    }
    free(f);
    return status;
}

/* ---- opening ----------------------------------------------------------------------------------------------------------- */

static const ht_device_caps *opencl_caps(const ht_device *device) {
    return &((const ht_cl_device *)device)->caps;
}

static void opencl_close(ht_device *device) {
    ht_cl_device *d = (ht_cl_device *)device;
    if (!d)
        return;
    ht_cl_queue_release(d);
    ht_cl_tiles_release(d);
    ht_cl_programs_release(d);
    ht_cl_memory_release(d);
    if (d->context)
        d->cl->ReleaseContext(d->context);
    if (d->is_sub_device)
        d->cl->ReleaseDevice(d->id);
    ht_cl_use_cores(&d->used_cores, false);
    free(d);
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
    double timeout;
    d->base.ops = &ht_device_opencl;
    d->cl = cl;
    d->precision = options->precision;
    d->max_tokens = ht_max_size(options->max_tokens, 1);
    d->max_context = options->max_context;
    d->kv_type = options->kv_type;
    d->progress = options->progress;
    if (options->hparams)
        d->hparams = *options->hparams;
    status = choose(d, options, &timeout, error);
    if (status == HT_OK) {
        cl_int code;
        d->context = cl->CreateContext(NULL, 1, &d->id, NULL, NULL, &code);
        status = ht_cl_check(code, d->caps.name, "clCreateContext", error);
    }
    if (status == HT_OK)
        status = ht_cl_queue_create(d, timeout, error);
    if (status != HT_OK) {
        opencl_close(&d->base);
        return status;
    }
    d->used_cores = d->caps.cores;
    ht_cl_use_cores(&d->used_cores, true);
    ht_cl_tiles_load(d);
    *device = &d->base;
    return HT_OK;
}

/* ---- tasks ------------------------------------------------------------------------------------------------------------- */

static void opencl_release(ht_device *device, ht_task *task) {
    ht_cl_device *d = (ht_cl_device *)device;
    if (!task)
        return;
    for (size_t i = 0; i < task->n_segments; i++)
        ht_cl_weights_release(d, &task->segments[i].weights);
    for (size_t i = 0; i < HT_COUNT(task->tables); i++)
        if (task->tables[i])
            ht_cl_unshare(d, task->tables[i]);
    for (size_t i = 0; i < task->n_launched; i++)
        d->cl->ReleaseKernel(task->launched[i].copy);
    free(task->launched);
    free(task->segments);
    free(task);
}

static ht_status opencl_prepare(ht_device *device, const ht_op *op, const ht_slice *slice, ht_task **out,
                                ht_error *error) {
    ht_cl_device *d = (ht_cl_device *)device;
    const char *why = ht_cl_refuses(device, op, slice);
    if (why)
        return ht_fail(error, HT_ERROR_UNSUPPORTED, "%s: %s: %s", d->caps.name, op->name, why);
    ht_task *task;
    ht_status status = ht_alloc((void **)&task, 1, sizeof *task, op->name, error);
    if (status != HT_OK)
        return status;
    task->op = op;
    task->shape = ht_op_shape(op, &d->hparams);
    task->slice = ht_cl_resolve(d, op, slice);
    status = ht_cl_ops[op->kind].prepare(d, task, error);
    if (status != HT_OK) {
        opencl_release(device, task);
        return status;
    }
    *out = task;
    return HT_OK;
}

static size_t opencl_task_bytes(const ht_task *task) {
    return task->bytes;
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

static const ht_device_node nodes[] = {
    {"/dev/dri/renderD*", false}, /* every GPU with a driver in Linux */
    {"/dev/nvidia[0-9]*", false}, /* NVIDIA's own driver */
    {"/dev/kgsl-3d0", false},     /* Qualcomm Adreno, on Android */
    {"/dev/mali[0-9]*", false},   /* ARM Mali */
    {"/dev/dxg", false},          /* Windows' GPUs, in WSL */
    {NULL, false},
};

/* PoCL's devices are the CPU once more. */
static const ht_device_real real[] = {{"opencl:", "gpu", false}, {NULL, NULL, false}};

const ht_device_ops ht_device_opencl = {
    .prefix = "opencl",
    .stands_in = "gpu",
    .nodes = nodes,
    .real = real,
    .list = opencl_list,
    .open = opencl_open,
#if HT_HAVE_OPENCL
    .close = opencl_close,
    .caps = opencl_caps,
    .refuses = ht_cl_refuses,
    .refuses_part = ht_cl_refuses_part,
    .import = ht_cl_import,
    .forget = ht_cl_forget,
    .prepare = opencl_prepare,
    .release = opencl_release,
    .task_bytes = opencl_task_bytes,
    .warm = ht_cl_warm,
    .tune = ht_cl_tune,
    .submit = ht_cl_submit,
    .completed = ht_cl_completed,
    .wait = ht_cl_wait,
#endif
};
