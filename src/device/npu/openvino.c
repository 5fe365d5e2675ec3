/* OpenVINO behind npu.h, through its C API opened at run time (openvino_api.h).
 *
 * Tested on its CPU plugin alone; on Intel's NPU and GPU the same calls should do, untried.
 */
#include "base/os.h"
#include "device/npu/npu.h"
#include "device/npu/openvino_api.h"
#include "device/npu/openvino_graph.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct ht_npu {
    const ht_ov *ov;
    char name[64];      /* "openvino:CPU" */
    const char *device; /* "CPU": inside name */
    ht_cores cores;     /* computes on these; none: anywhere */
    ov_core_t *core;
};

struct ht_npu_program {
    ht_npu_constants *weights; /* NULL: it was loaded */
    ov_compiled_model_t *compiled;
    ov_infer_request_t *request;
    int64_t length, cols, rows; /* length: rows of in and out */
    ov_tensor_t *tensors[2];    /* in, out: over the caller's memory */
    float *bound[2];
};

/* HT_OK, or HT_ERROR_DEVICE with OpenVINO's own words in one line. */
static ht_status check(const ht_ov *ov, ov_status_e code, const char *device, const char *call, ht_error *error) {
    if (code == HT_OV_OK)
        return HT_OK;
    char text[300] = "";
    const char *last = ov->ov_get_last_err_msg(), *name = ov->ov_get_error_info(code);
    if (last) {
        ht_ov_first_sentence(last, text, sizeof text);
        ov->ov_free(last);
    }
    return ht_fail(error, HT_ERROR_DEVICE, "%s: %s failed: %s (%d): %s", device, call, name ? name : "?", (int)code,
                   text);
}

/* ---- what there is ----------------------------------------------------------------------------------------------- */

typedef enum plugin { PLUGIN_CPU, PLUGIN_GPU, PLUGIN_NPU, PLUGIN_OTHER } plugin;

static plugin plugin_of(const char *device) {
    static const char *const names[] = {"CPU", "GPU", "NPU"};
    for (size_t i = 0; i < HT_COUNT(names); i++)
        if (strncmp(device, names[i], 3) == 0)
            return (plugin)i;
    return PLUGIN_OTHER;
}

static void describe(const ht_ov *ov, const ov_core_t *core, const char *device, ht_device_info *info) {
    static const char *const kinds[] = {"cpu", "gpu", "npu", "npu"};
    *info = (ht_device_info){.usable = true};
    snprintf(info->name, sizeof info->name, "openvino:%.40s", device);
    snprintf(info->kind, sizeof info->kind, "%s", kinds[plugin_of(device)]);
    ov_version_t version;
    if (ov->ov_get_openvino_version(&version) == HT_OV_OK) {
        snprintf(info->runtime, sizeof info->runtime, "OpenVINO %.40s", version.build_number);
        ov->ov_version_free(&version);
    }
    char *text = NULL;
    if (ov->ov_core_get_property(core, device, "FULL_DEVICE_NAME", &text) == HT_OV_OK && text) {
        snprintf(info->description, sizeof info->description, "%s", text);
        ov->ov_free(text);
    }
    snprintf(info->dtypes, sizeof info->dtypes, "int4,int8,f16,bf16,f32");
    ht_npu_describe_lengths(info);
    info->memory_bytes = ht_os_memory_bytes();
}

static ht_status list(ht_device_info **rows, size_t *n, ht_error *error) {
    ht_device_info info = {.name = "openvino", .kind = "npu"};
    const char *why;
    const ht_ov *ov = ht_ov_get(&why);
    if (!ov) {
        snprintf(info.why, sizeof info.why, "%s", why);
        return ht_device_list_add(rows, n, &info, error);
    }
    ov_core_t *core = NULL;
    ov_available_devices_t devices = {NULL, 0};
    ht_error failure = {0};
    ht_status status = check(ov, ov->ov_core_create(&core), "openvino", "ov_core_create", &failure);
    if (status == HT_OK)
        status = check(ov, ov->ov_core_get_available_devices(core, &devices), "openvino",
                       "ov_core_get_available_devices", &failure);
    if (status != HT_OK || devices.size == 0) { /* a broken runtime is a row that says so, not a failed listing */
        snprintf(info.why, sizeof info.why, "%.250s", status != HT_OK ? failure.text : "OpenVINO has no device");
        status = ht_device_list_add(rows, n, &info, error);
    }
    for (size_t i = 0; i < devices.size && status == HT_OK; i++) {
        describe(ov, core, devices.devices[i], &info);
        status = ht_device_list_add(rows, n, &info, error);
    }
    if (devices.devices)
        ov->ov_available_devices_free(&devices);
    if (core)
        ov->ov_core_free(core);
    return status;
}

static void close_npu(ht_npu *npu) {
    if (npu->core)
        npu->ov->ov_core_free(npu->core);
    free(npu);
}

/* ---- opening ------------------------------------------------------------------------------------------------------ */

/* Of the device, for compiled and for loaded programs alike. The CPU plugin's defaults for speed are bf16 and int8
 * activations; bf16 gains little where int8 is there and costs most of the precision, so `fast` takes float32 for the rest
 * unless a hint says otherwise. Other plugins compute in fp16, as the paper does, and do not know most of these. */
static ht_status set_properties(ht_npu *npu, const ht_npu_config *config, ht_error *error) {
    const bool cpu = plugin_of(npu->device) == PLUGIN_CPU, exact = config->precision == HT_PRECISION_EXACT;
    char threads[16];
    snprintf(threads, sizeof threads, "%d", config->threads);
    const struct {
        const char *key, *value;
        bool wanted;
    } properties[] = {{"PERFORMANCE_HINT", "LATENCY", true},
                      {"INFERENCE_PRECISION_HINT", exact || !config->hint[0] ? "f32" : config->hint, cpu},
                      {"DYNAMIC_QUANTIZATION_GROUP_SIZE", exact ? "0" : "32", cpu},
                      {"NUM_STREAMS", "1", cpu},
                      {"INFERENCE_NUM_THREADS", threads, cpu && config->threads > 0},
                      {"ENABLE_CPU_PINNING", "NO", cpu}}; /* cpus= and the kernel know better */
    for (size_t i = 0; i < HT_COUNT(properties); i++) {
        if (!properties[i].wanted)
            continue;
        ht_status status = check(
            npu->ov, npu->ov->ov_core_set_property(npu->core, npu->device, properties[i].key, properties[i].value),
            npu->name, properties[i].key, error);
        if (status != HT_OK)
            return status;
    }
    return HT_OK;
}

static void state_facts(const ht_npu *npu, const ht_npu_config *config, ht_npu_facts *facts) {
    const plugin kind = plugin_of(npu->device);
    const bool exact = config->precision == HT_PRECISION_EXACT, bf16 = !exact && strcmp(config->hint, "bf16") == 0;
    ht_npu_standard_lengths(facts);
    facts->single = kind != PLUGIN_CPU;  /* its matvec reads memory at half the rate of our own */
    facts->reloads = kind != PLUGIN_CPU; /* it would repack all weights again */
    facts->step = kind != PLUGIN_CPU || strcmp(config->hint, "f16") == 0 ? 0x1p-11 : bf16 ? 0x1p-9 : 0x1p-24;
    facts->code_step = kind == PLUGIN_CPU && !exact ? 1.0 / 127 : 0;
}

static ht_status open_npu(const ht_npu_config *config, ht_npu **out, ht_npu_facts *facts, ht_error *error) {
    const char *why, *colon = strchr(config->name, ':');
    const ht_ov *ov = ht_ov_get(&why);
    if (!ov)
        return ht_fail(error, HT_ERROR_DEVICE, "device %s: %s", config->name, why);
    ht_npu *npu;
    ht_status status = ht_alloc((void **)&npu, 1, sizeof *npu, config->name, error);
    if (status != HT_OK)
        return status;
    npu->ov = ov;
    snprintf(npu->name, sizeof npu->name, "openvino:%.40s", colon ? colon + 1 : "CPU");
    npu->device = strchr(npu->name, ':') + 1;
    npu->cores = config->cores;
    status = check(ov, ov->ov_core_create(&npu->core), npu->name, "ov_core_create", error);
    char *text = NULL; /* the cheapest question that only a device that is there answers */
    if (status == HT_OK)
        status = check(ov, ov->ov_core_get_property(npu->core, npu->device, "FULL_DEVICE_NAME", &text), npu->name,
                       "ov_core_get_property", error);
    if (text)
        ov->ov_free(text);
    if (status == HT_OK)
        status = set_properties(npu, config, error);
    if (status == HT_OK) {
        describe(ov, npu->core, npu->device, &facts->info);
        state_facts(npu, config, facts);
        *out = npu;
    } else {
        close_npu(npu);
    }
    return status;
}

/* ---- programs ------------------------------------------------------------------------------------------------------ */

static void discard(ht_npu *npu, ht_npu_program *program) {
    for (int i = 0; i < 2; i++)
        if (program->tensors[i])
            npu->ov->ov_tensor_free(program->tensors[i]);
    if (program->request)
        npu->ov->ov_infer_request_free(program->request);
    if (program->compiled)
        npu->ov->ov_compiled_model_free(program->compiled);
    ht_npu_constants_drop(program->weights);
    free(program);
}

static ht_status new_program(const ht_npu_graph *graph, size_t length, ht_npu_program **program, ht_error *error) {
    ht_status status = ht_alloc((void **)program, 1, sizeof **program, graph->op->name, error);
    if (status == HT_OK) {
        (*program)->length = (int64_t)ht_npu_rows(graph, length);
        (*program)->cols = (int64_t)graph->cols;
        (*program)->rows = (int64_t)graph->rows;
    }
    return status;
}

/* What compile and load end with: a request, or nothing left of the program. */
static ht_status finish_program(ht_npu *npu, ht_status status, ht_npu_program *program, ht_npu_program **out,
                                ht_error *error) {
    if (status == HT_OK)
        status = check(npu->ov, npu->ov->ov_compiled_model_create_infer_request(program->compiled, &program->request),
                       npu->name, "ov_compiled_model_create_infer_request", error);
    if (status == HT_OK)
        *out = program;
    else
        discard(npu, program);
    return status;
}

/* Text and blob to a compiled model. */
static ht_status compile_text(ht_npu *npu, const ht_ov_graph *graph, ht_npu_program *program, ht_error *error) {
    const ht_ov *ov = npu->ov;
    ov_model_t *model = NULL;
    ov_tensor_t *constants = NULL;
    ht_text xml = {0};
    int64_t dims[] = {(int64_t)program->weights->bytes};
    ht_status status = ht_ov_graph_write(graph, &xml, error);
    if (status == HT_OK)
        status = check(
            ov, ov->ov_tensor_create_from_host_ptr(HT_OV_U8, (ov_shape_t){1, dims}, program->weights->data, &constants),
            npu->name, "ov_tensor_create_from_host_ptr", error);
    if (status == HT_OK)
        status = check(ov, ov->ov_core_read_model_from_memory_buffer(npu->core, xml.data, xml.bytes, constants, &model),
                       npu->name, "ov_core_read_model_from_memory_buffer", error);
    if (status == HT_OK)
        status = check(ov, ov->ov_core_compile_model_props(npu->core, model, npu->device, 0, NULL, &program->compiled),
                       npu->name, "ov_core_compile_model_props", error);
    if (model)
        ov->ov_model_free(model);
    if (constants)
        ov->ov_tensor_free(constants);
    ht_text_free(&xml);
    return status;
}

static ht_status compile(ht_npu *npu, const ht_npu_graph *described, size_t length, const ht_npu_program *like,
                         ht_npu_program **out, ht_error *error) {
    ht_npu_program *program;
    ht_status status = new_program(described, length, &program, error);
    if (status != HT_OK)
        return status;
    ht_ov_graph *graph = NULL;
    status = ht_ov_graph_create(described, length, plugin_of(npu->device) != PLUGIN_CPU, &graph, error);
    ht_npu_constants *shared = like ? like->weights : NULL;
    if (status == HT_OK)
        status = ht_npu_constants_get(shared, ht_ov_graph_bytes(graph), &program->weights, error);
    if (status == HT_OK && !shared)
        status = ht_ov_graph_fill(graph, program->weights->data, error);
    if (status == HT_OK)
        status = compile_text(npu, graph, program, error);
    ht_ov_graph_destroy(graph);
    return finish_program(npu, status, program, out, error);
}

/* The C API writes programs to files only. */
static ht_status save(ht_npu *npu, ht_npu_program *program, ht_text *bytes, ht_error *error) {
    ht_temporary file_name;
    ht_status status = ht_temporary_name("npu/export", &file_name, error);
    if (status != HT_OK)
        return status;
    const char *path = file_name.path;
    status = check(npu->ov, npu->ov->ov_compiled_model_export_model(program->compiled, path), npu->name,
                   "ov_compiled_model_export_model", error);
    ht_mapping file;
    if (status == HT_OK && (status = ht_mapping_open(path, &file, error)) == HT_OK) {
        status = ht_text_append(bytes, (const char *)file.data, file.bytes, error);
        ht_mapping_close(&file);
    }
    ht_temporary_remove(&file_name);
    return status;
}

static ht_status load(ht_npu *npu, const ht_npu_graph *graph, size_t length, const void *data, size_t bytes,
                      ht_npu_program **out, ht_error *error) {
    ht_npu_program *program;
    ht_status status = new_program(graph, length, &program, error);
    if (status != HT_OK)
        return status;
    status = check(npu->ov, npu->ov->ov_core_import_model(npu->core, data, bytes, npu->device, &program->compiled),
                   npu->name, "ov_core_import_model", error);
    return finish_program(npu, status, program, out, error);
}

/* ---- running --------------------------------------------------------------------------------------------------------- */

static ht_status bind(ht_npu *npu, ht_npu_program *program, float *in, float *out, ht_error *error) {
    const ht_ov *ov = npu->ov;
    float *memory[2] = {in, out};
    for (int i = 0; i < 2; i++) {
        if (program->bound[i] == memory[i])
            continue;
        int64_t dims[] = {program->length, i ? program->rows : program->cols};
        ov_tensor_t *tensor = NULL;
        ht_status status =
            check(ov, ov->ov_tensor_create_from_host_ptr(HT_OV_F32, (ov_shape_t){2, dims}, memory[i], &tensor),
                  npu->name, "ov_tensor_create_from_host_ptr", error);
        if (status != HT_OK)
            return status;
        status = check(ov,
                       i ? ov->ov_infer_request_set_output_tensor_by_index(program->request, 0, tensor)
                         : ov->ov_infer_request_set_input_tensor_by_index(program->request, 0, tensor),
                       npu->name, "ov_infer_request_set_tensor", error);
        if (program->tensors[i])
            ov->ov_tensor_free(program->tensors[i]);
        program->tensors[i] = tensor;
        program->bound[i] = status == HT_OK ? memory[i] : NULL;
        if (status != HT_OK)
            return status;
    }
    return HT_OK;
}

/* Synchronous: 4-8 us of overhead, where start_async and wait cost 11-36. The caller computes too, and threads that OpenVINO
 * makes inherit its mask: while this lasts, all of it stays on the device's cores. */
static ht_status start(ht_npu *npu, ht_npu_program *program, ht_error *error) {
    ht_stay stay;
    ht_stay_on(&npu->cores, &stay);
    ht_status status =
        check(npu->ov, npu->ov->ov_infer_request_infer(program->request), npu->name, "ov_infer_request_infer", error);
    ht_leave_cores(&stay);
    return status;
}

static ht_status wait_done(ht_npu *npu, ht_npu_program *program, ht_error *error) {
    return HT_OK;
}

const ht_npu_runtime ht_npu_openvino = {.list = list,
                                        .open = open_npu,
                                        .close = close_npu,
                                        .compile = compile,
                                        .discard = discard,
                                        .save = save,
                                        .load = load,
                                        .bind = bind,
                                        .start = start,
                                        .wait = wait_done};

static ht_status open_device(const ht_device_options *options, ht_device **device, ht_error *error) {
    return ht_npu_open(&ht_device_openvino, &ht_npu_openvino, options, device, error);
}

static const ht_device_node nodes[] = {
    {"/dev/accel/accel*", false}, /* Intel's NPU */
    {"/dev/dri/renderD*", true},
    {"/dev/dxg", true},
    {NULL, false},
};

/* openvino:CPU is the CPU once more, and its GPUs are OpenCL's, where that has any. */
static const ht_device_real real[] = {
    {"openvino:NPU", "npu", false},
    {"openvino:GPU", "gpu", true},
    {NULL, NULL, false},
};

const ht_device_ops ht_device_openvino = {HT_NPU_OPERATIONS, .prefix = "openvino",  .nodes = nodes,
                                          .real = real,      .library = "openvino", .set_path = ht_openvino_set_path,
                                          .list = list,      .open = open_device};
