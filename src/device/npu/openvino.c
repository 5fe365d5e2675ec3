/* OpenVINO behind npu.h, through its C API opened at run time (openvino_api.h).
 *
 * Tested on its CPU plugin alone; on Intel's NPU and GPU the same calls should do, untried.
 */
#define _GNU_SOURCE /* cpu_set_t */
#include "device/npu/npu.h"
#include "device/npu/openvino_api.h"
#include "device/npu/openvino_graph.h"

#include <dlfcn.h>
#include <glob.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct ht_npu {
    char name[64];      /* "openvino:CPU" */
    const char *device; /* "CPU": inside name */
    bool cpu;
    uint64_t cores;
    int threads;
    ht_precision precision;
    ov_core_t *core;
};

struct ht_npu_program {
    ov_compiled_model_t *compiled;
    ov_infer_request_t *request;
    int64_t length, cols, rows;
    ov_tensor_t *tensors[2]; /* in, out: over the caller's memory */
    float *bound[2];
};

/* ---- the library ------------------------------------------------------------------------------------------------- */

/* Process-wide, written once (under `once`) but for the path, which is set before. The library is never closed: its
 * threads would outlive it. */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static char wanted[1024], reason[256];
static ht_ov ov;
static bool loaded;

void ht_openvino_set_path(const char *path) {
    snprintf(wanted, sizeof wanted, "%s", path ? path : "");
}

/* The first library that `pattern` (with a %s for `folder`) names and that opens. */
static void *open_pattern(const char *pattern, const char *folder) {
    char text[1200];
    snprintf(text, sizeof text, pattern, folder);
    glob_t found;
    void *library = NULL;
    if (glob(text, 0, NULL, &found) != 0)
        return NULL;
    for (size_t i = 0; i < found.gl_pathc && !library; i++) {
        library = dlopen(found.gl_pathv[i], RTLD_NOW | RTLD_LOCAL);
        if (!library)
            snprintf(reason, sizeof reason, "%.250s", dlerror());
    }
    globfree(&found);
    return library;
}

#define FILES "libopenvino_c.so*"
/* A path from the user: the library, or a folder that holds it as wheels do. */
static void *open_path(const char *path) {
    static const char *const patterns[] = {"%s/" FILES, "%s/libs/" FILES, "%s/openvino/libs/" FILES,
                                           "%s/lib/python3*/site-packages/openvino/libs/" FILES, "%s"};
    for (size_t i = 0; i < HT_COUNT(patterns); i++) {
        if (i + 1 == HT_COUNT(patterns) && !strstr(path, ".so"))
            break; /* dlopen of a folder says nothing useful */
        void *library = open_pattern(patterns[i], path);
        if (library)
            return library;
    }
    return NULL;
}

/* The last resort: Python knows where its packages are. */
static void *ask_python(void) {
    FILE *pipe = popen("python3 -c 'import sys; print(*sys.path, sep=chr(10))' 2>/dev/null", "r");
    if (!pipe)
        return NULL;
    char line[1024];
    void *library = NULL;
    while (fgets(line, sizeof line, pipe)) { /* to the end, or python3 meets a closed pipe */
        line[strcspn(line, "\n")] = '\0';
        if (line[0] && !library)
            library = open_pattern("%s/openvino/libs/" FILES, line);
    }
    pclose(pipe);
    return library;
}

static void *find_library(void) {
    const char *path = wanted[0] ? wanted : getenv("HETERO_OPENVINO");
    if (path && *path) { /* named: no other will do */
        void *library = open_path(path);
        if (!library && !reason[0])
            snprintf(reason, sizeof reason, "no libopenvino_c.so in %.200s", path);
        return library;
    }
    const char *roots[] = {getenv("VIRTUAL_ENV"), ".venv"};
    void *library = NULL;
    for (size_t i = 0; i < HT_COUNT(roots) && !library; i++)
        if (roots[i])
            library = open_pattern("%s/lib/python3*/site-packages/openvino/libs/" FILES, roots[i]);
    if (!library)
        library = dlopen("libopenvino_c.so", RTLD_NOW | RTLD_LOCAL);
    if (!library)
        library = ask_python();
    if (!library && !reason[0])
        snprintf(reason, sizeof reason, "OpenVINO not found (pip install openvino, or --openvino PATH)");
    return library;
}

static void load(void) {
    void *library = find_library();
    if (!library)
        return;
    static const struct row {
        const char *name;
        size_t offset;
    } table[] = {
#define ROW(result, name, parameters) {#name, offsetof(ht_ov, name)},
        HT_OV_FUNCTIONS(ROW)
#undef ROW
    };
    for (size_t i = 0; i < HT_COUNT(table); i++) {
        void *symbol = dlsym(library, table[i].name);
        if (!symbol) {
            snprintf(reason, sizeof reason, "libopenvino_c.so has no %s: another version?", table[i].name);
            return;
        }
        *(void **)((char *)&ov + table[i].offset) = symbol; /* POSIX: function and object pointers are alike */
    }
    loaded = true;
}

/* HT_OK, or HT_ERROR_DEVICE with OpenVINO's own words in one line. */
static ht_status check(ov_status_e code, const char *device, const char *call, ht_error *error) {
    if (code == HT_OV_OK)
        return HT_OK;
    char text[300];
    const char *last = ov.ov_get_last_err_msg(), *name = ov.ov_get_error_info(code);
    snprintf(text, sizeof text, "%s", last ? last : "");
    if (last)
        ov.ov_free(last);
    for (char *p = text; *p; p++)
        if (*p == '\n')
            *p = ' ';
    return ht_fail(error, HT_ERROR_DEVICE, "%s: %s failed: %s (%d): %s", device, call, name ? name : "?", (int)code,
                   text);
}

/* ---- what there is ----------------------------------------------------------------------------------------------- */

static void describe(const ov_core_t *core, const char *device, ht_device_info *info) {
    static const struct row { const char *prefix, *kind; } kinds[] = {{"NPU", "npu"}, {"GPU", "gpu"}, {"CPU", "cpu"}};
    *info = (ht_device_info){.usable = true};
    snprintf(info->name, sizeof info->name, "openvino:%.40s", device);
    for (size_t i = 0; i < HT_COUNT(kinds); i++)
        if (strncmp(device, kinds[i].prefix, 3) == 0)
            snprintf(info->kind, sizeof info->kind, "%s", kinds[i].kind);
    ov_version_t version;
    if (ov.ov_get_openvino_version(&version) == HT_OV_OK) {
        snprintf(info->runtime, sizeof info->runtime, "OpenVINO %.40s", version.build_number);
        ov.ov_version_free(&version);
    }
    char *text = NULL;
    if (ov.ov_core_get_property(core, device, "FULL_DEVICE_NAME", &text) == HT_OV_OK && text) {
        snprintf(info->description, sizeof info->description, "%s", text);
        ov.ov_free(text);
    }
    snprintf(info->dtypes, sizeof info->dtypes, "int4,int8");
    snprintf(info->static_lengths, sizeof info->static_lengths, "1,32,64,128,256,512,1024");
    info->unified_memory = true;
    if (strcmp(info->kind, "cpu") == 0)
        info->memory_bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
}

static ht_status list(ht_device_info **rows, size_t *n, ht_error *error) {
    ht_device_info info = {.name = "openvino", .kind = "npu"};
    pthread_once(&once, load);
    if (!loaded) {
        snprintf(info.why, sizeof info.why, "%s", reason);
        return ht_device_list_add(rows, n, &info, error);
    }
    ov_core_t *core = NULL;
    ov_available_devices_t devices = {NULL, 0};
    ht_error failure = {0};
    ht_status status = check(ov.ov_core_create(&core), "openvino", "ov_core_create", &failure);
    if (status == HT_OK)
        status = check(ov.ov_core_get_available_devices(core, &devices), "openvino", "ov_core_get_available_devices",
                       &failure);
    if (status != HT_OK || devices.size == 0) { /* a broken runtime is a row that says so, not a failed listing */
        snprintf(info.why, sizeof info.why, "%.250s", status != HT_OK ? failure.text : "OpenVINO has no device");
        status = ht_device_list_add(rows, n, &info, error);
    }
    for (size_t i = 0; i < devices.size && status == HT_OK; i++) {
        describe(core, devices.devices[i], &info);
        status = ht_device_list_add(rows, n, &info, error);
    }
    if (devices.devices)
        ov.ov_available_devices_free(&devices);
    if (core)
        ov.ov_core_free(core);
    return status;
}

static void close_npu(ht_npu *npu) {
    if (npu->core)
        ov.ov_core_free(npu->core);
    free(npu);
}

static ht_status open_npu(const ht_npu_config *config, ht_npu **out, ht_device_info *info, ht_error *error) {
    pthread_once(&once, load);
    if (!loaded)
        return ht_fail(error, HT_ERROR_DEVICE, "device %s: %s", config->name, reason);
    ht_npu *npu;
    ht_status status = ht_alloc((void **)&npu, 1, sizeof *npu, config->name, error);
    if (status != HT_OK)
        return status;
    const char *colon = strchr(config->name, ':');
    snprintf(npu->name, sizeof npu->name, "openvino:%.40s", colon ? colon + 1 : "CPU");
    npu->device = strchr(npu->name, ':') + 1;
    npu->cpu = strncmp(npu->device, "CPU", 3) == 0;
    npu->cores = config->cores;
    npu->threads = config->threads;
    npu->precision = config->precision;
    status = check(ov.ov_core_create(&npu->core), npu->name, "ov_core_create", error);
    char *text = NULL; /* the cheapest question that only a device that is there answers */
    if (status == HT_OK)
        status = check(ov.ov_core_get_property(npu->core, npu->device, "FULL_DEVICE_NAME", &text), npu->name,
                       "ov_core_get_property", error);
    if (text)
        ov.ov_free(text);
    if (status == HT_OK) {
        describe(npu->core, npu->device, info);
        *out = npu;
    } else {
        close_npu(npu);
    }
    return status;
}

/* ---- compiling and running --------------------------------------------------------------------------------------- */

/* The caller computes too, and threads that OpenVINO makes inherit its mask: while this lasts, all of it stays on the
 * device's cores. The CPU plugin's own pinning chooses cores itself, so it is off. */
typedef struct pinned {
    cpu_set_t before;
    bool moved;
} pinned;

static pinned pin(const ht_npu *npu) {
    pinned p = {.moved = false};
    if (!npu->cores || sched_getaffinity(0, sizeof p.before, &p.before) != 0)
        return p;
    cpu_set_t cores;
    CPU_ZERO(&cores);
    for (int i = 0; i < 64; i++)
        if (npu->cores >> i & 1)
            CPU_SET(i, &cores);
    p.moved = !CPU_EQUAL(&cores, &p.before) && sched_setaffinity(0, sizeof cores, &cores) == 0; /* best effort */
    return p;
}

static void unpin(const pinned *p) {
    if (p->moved)
        sched_setaffinity(0, sizeof p->before, &p->before);
}

static void discard(ht_npu *npu, ht_npu_program *program) {
    for (int i = 0; i < 2; i++)
        if (program->tensors[i])
            ov.ov_tensor_free(program->tensors[i]);
    if (program->request)
        ov.ov_infer_request_free(program->request);
    if (program->compiled)
        ov.ov_compiled_model_free(program->compiled);
    free(program);
}

/* Text and blob to a program. */
static ht_status build(ht_npu *npu, const ht_text *xml, const ov_tensor_t *weights, ht_npu_program *program,
                       ht_error *error) {
    char threads[16];
    ov_property_t properties[8];
    size_t n = 0;
    snprintf(threads, sizeof threads, "%d", npu->threads);
    properties[n++] = (ov_property_t){"PERFORMANCE_HINT", "LATENCY"};
    if (npu->cpu) { /* other plugins do not know these; they compute in fp16, as the paper does */
        properties[n++] = (ov_property_t){"NUM_STREAMS", "1"};
        if (npu->threads)
            properties[n++] = (ov_property_t){"INFERENCE_NUM_THREADS", threads};
        if (npu->cores)
            properties[n++] = (ov_property_t){"ENABLE_CPU_PINNING", "NO"};
        if (npu->precision == HT_PRECISION_EXACT) { /* the defaults: bf16 and int8 activations */
            properties[n++] = (ov_property_t){"INFERENCE_PRECISION_HINT", "f32"};
            properties[n++] = (ov_property_t){"DYNAMIC_QUANTIZATION_GROUP_SIZE", "0"};
        }
    }
    ov_model_t *model = NULL;
    ht_status status =
        check(ov.ov_core_read_model_from_memory_buffer(npu->core, xml->data, xml->bytes, weights, &model), npu->name,
              "ov_core_read_model_from_memory_buffer", error);
    if (status != HT_OK)
        return status;
    pinned p = pin(npu);
    status = check(ov.ov_core_compile_model_props(npu->core, model, npu->device, n, properties, &program->compiled),
                   npu->name, "ov_core_compile_model_props", error);
    if (status == HT_OK)
        status = check(ov.ov_compiled_model_create_infer_request(program->compiled, &program->request), npu->name,
                       "ov_compiled_model_create_infer_request", error);
    unpin(&p);
    ov.ov_model_free(model);
    return status;
}

static ht_status compile(ht_npu *npu, const ht_npu_graph *graph, size_t length, ht_npu_program **out, size_t *bytes,
                         ht_error *error) {
    ht_ov_blob b = ht_ov_lay_out(graph);
    ht_npu_program *program;
    ht_status status = ht_alloc((void **)&program, 1, sizeof *program, graph->op->name, error);
    if (status != HT_OK)
        return status;
    program->length = (int64_t)length;
    program->cols = (int64_t)graph->cols;
    program->rows = (int64_t)graph->rows;
    ov_tensor_t *weights = NULL;
    void *data = NULL;
    int64_t dims[] = {(int64_t)b.bytes};
    ht_text xml = {0};
    status =
        check(ov.ov_tensor_create(HT_OV_U8, (ov_shape_t){1, dims}, &weights), npu->name, "ov_tensor_create", error);
    if (status == HT_OK)
        status = check(ov.ov_tensor_data(weights, &data), npu->name, "ov_tensor_data", error);
    if (status == HT_OK)
        status = ht_ov_fill(graph, length, &b, data, error);
    if (status == HT_OK)
        status = ht_ov_write(graph, length, &b, &xml, error);
    if (status == HT_OK)
        status = build(npu, &xml, weights, program, error);
    if (weights)
        ov.ov_tensor_free(weights);
    ht_text_free(&xml);
    if (status != HT_OK) {
        discard(npu, program);
        if (status == HT_ERROR_DEVICE)
            ht_error_prefix(error, "%s at length %zu", graph->op->name, length);
        return status;
    }
    *bytes = b.bytes; /* what it repacks is of about this size; the plugin does not tell */
    *out = program;
    return HT_OK;
}

static ht_status bind(ht_npu *npu, ht_npu_program *program, float *in, float *out, ht_error *error) {
    float *memory[2] = {in, out};
    for (int i = 0; i < 2; i++) {
        if (program->bound[i] == memory[i])
            continue;
        int64_t dims[] = {program->length, i ? program->rows : program->cols};
        ov_tensor_t *tensor = NULL;
        ht_status status =
            check(ov.ov_tensor_create_from_host_ptr(HT_OV_F32, (ov_shape_t){2, dims}, memory[i], &tensor), npu->name,
                  "ov_tensor_create_from_host_ptr", error);
        if (status != HT_OK)
            return status;
        status = check(i ? ov.ov_infer_request_set_output_tensor_by_index(program->request, 0, tensor)
                         : ov.ov_infer_request_set_input_tensor_by_index(program->request, 0, tensor),
                       npu->name, "ov_infer_request_set_tensor", error);
        if (program->tensors[i])
            ov.ov_tensor_free(program->tensors[i]);
        program->tensors[i] = tensor;
        program->bound[i] = status == HT_OK ? memory[i] : NULL;
        if (status != HT_OK)
            return status;
    }
    return HT_OK;
}

/* Synchronous: 4-8 us of overhead, where start_async and wait cost 11-36. */
static ht_status start(ht_npu *npu, ht_npu_program *program, ht_error *error) {
    pinned p = pin(npu);
    ht_status status = check(ov.ov_infer_request_infer(program->request), npu->name, "ov_infer_request_infer", error);
    unpin(&p);
    return status;
}

static ht_status wait_done(ht_npu *npu, ht_npu_program *program, ht_error *error) {
    return HT_OK;
}

const ht_npu_runtime ht_npu_openvino = {list, open_npu, close_npu, compile, discard, bind, start, wait_done};
