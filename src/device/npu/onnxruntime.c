/* ONNX Runtime behind npu.h, through its C API opened at run time (onnxruntime_api.h).
 *
 * A device is an execution provider: the CPU's own, or a plugin such as Qualcomm's (onnxruntime_provider.h). Tested are the
 * CPU's, and Qualcomm's on its emulator of Hexagon; phones and other plugins should do with the same calls, untried.
 */
#include "device/npu/onnxruntime.h"

#include "base/os.h"
#include "device/npu/onnxruntime_memory.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct ht_npu {
    const ht_ort *ort;
    const ht_npu_config *config;
    char name[64]; /* "ort:qnn" */
    ht_ort_provider provider;
    bool plugin;
    ht_cores cores; /* computes on these; none: anywhere */
};

struct ht_npu_program {
    ht_npu_constants *weights; /* NULL: it was loaded */
    OrtSession *session;
    int64_t dims[2][3];  /* of in, out */
    OrtValue *values[2]; /* over the caller's memory */
    float *bound[2];
    const OrtMemoryInfo *kinds[2]; /* of what is bound */
    ht_text context;               /* compiled, to be saved; empty: not kept */
};

enum { TRIAL = 32 }; /* rows and columns of a first graph */

/* ---- what there is ----------------------------------------------------------------------------------------------- */

static void describe(const ht_ort *ort, const ht_ort_provider *p, ht_device_info *info) {
    *info = (ht_device_info){.usable = p->device != NULL, .emulated = p->emulated, .unified_memory = true};
    snprintf(info->name, sizeof info->name, "ort:%.31s", p->name);
    snprintf(info->kind, sizeof info->kind, "%s", p->kind);
    snprintf(info->runtime, sizeof info->runtime, "ONNX Runtime %.16s%s%s", ort->version, *p->version ? ", " : "",
             p->version);
    snprintf(info->description, sizeof info->description, "%s", p->description);
    snprintf(info->why, sizeof info->why, "%s", p->why);
    snprintf(info->dtypes, sizeof info->dtypes, "int4,int8,f16,bf16,f32");
    ht_npu_describe_lengths(info);
    info->memory_bytes = ht_os_memory_bytes();
}

static ht_status list(ht_device_info **rows, size_t *n, ht_error *error) {
    ht_device_info info = {.name = "ort", .kind = "npu"};
    const char *why;
    const ht_ort *ort = ht_ort_get(&why);
    ht_ort_provider *providers = NULL;
    size_t count = 0;
    ht_error failure = {0};
    if (ort && ht_ort_providers(ort, &providers, &count, &failure))
        why = failure.text;
    ht_status status = HT_OK;
    if (why) { /* a broken runtime is a row that says so, not a failed listing */
        snprintf(info.why, sizeof info.why, "%.250s", why);
        status = ht_device_list_add(rows, n, &info, error);
    }
    bool qualcomm = false;
    for (size_t i = 0; i < count && !why && status == HT_OK; i++) {
        describe(ort, &providers[i], &info);
        qualcomm |= strcmp(providers[i].name, "qnn") == 0;
        status = ht_device_list_add(rows, n, &info, error);
    }
    if (!why && !qualcomm && status == HT_OK) {
        info = (ht_device_info){.name = "ort:qnn", .kind = "npu", .why = "not found (pip install onnxruntime-qnn)"};
        status = ht_device_list_add(rows, n, &info, error);
    }
    free(providers);
    return status;
}

/* Does it round activations to 8 bits, in groups of 32? The CPU's provider can (MatMulNBits, accuracy_level 4). Its
 * kernels for 64-bit ARM do something coarser: under qemu log-probabilities were off by up to 0.4, so there `fast`
 * computes floats, too. */
static bool rounds_activations(const ht_npu *npu) {
#ifdef __aarch64__
    return false;
#else
    return !npu->plugin && npu->config->precision != HT_PRECISION_EXACT;
#endif
}

/* ---- sessions ---------------------------------------------------------------------------------------------------- */

/* Which cores its threads run on: "1,2;1,2" for two besides the caller, cores counted from 1. The kernel places them among
 * the device's; the caller is pinned by start. */
static ht_status write_affinities(const ht_npu *npu, ht_text *text, ht_error *error) {
    ht_status status = HT_OK;
    for (int i = 1; i < npu->config->threads && status == HT_OK; i++) {
        bool first = true;
        for (int core = ht_cores_next(&npu->cores, 0); core >= 0 && status == HT_OK;
             core = ht_cores_next(&npu->cores, core + 1)) {
            status = ht_text_printf(text, error, "%s%d", !first ? "," : i > 1 ? ";" : "", core + 1);
            first = false;
        }
    }
    return status;
}

#define TRY(npu, call, ...) ht_ort_check((npu)->ort, (npu)->ort->call(__VA_ARGS__), (npu)->name, #call, error)

typedef struct entry {
    const char *key, *value;
    bool wanted;
} entry;

static ht_status add_entries(const ht_npu *npu, OrtSessionOptions *options, const entry *entries, size_t n,
                             ht_error *error) {
    ht_status status = HT_OK;
    for (size_t i = 0; i < n && status == HT_OK; i++)
        if (entries[i].wanted)
            status = TRY(npu, AddSessionConfigEntry, options, entries[i].key, entries[i].value);
    return status;
}

/* context: where a plugin is to leave the compiled graph; NULL: nowhere. fallback: what a plugin does not take may go to the
 * CPU: only to find out what that is. */
static ht_status make_options(const ht_npu *npu, const char *context, bool fallback, OrtSessionOptions **out,
                              ht_error *error) {
    const int cores = ht_default_threads(ht_all_cores());
    const int threads = npu->plugin ? 1 : npu->config->threads ? npu->config->threads : cores;
    ht_text affinities = {0};
    OrtSessionOptions *options = NULL;
    ht_status status = TRY(npu, CreateSessionOptions, &options);
    if (status == HT_OK && ht_cores_any(&npu->cores) && !npu->plugin)
        status = write_affinities(npu, &affinities, error);
    const entry entries[] = {{"session.intra_op_thread_affinities", affinities.data, affinities.bytes > 0},
                             {"session.force_spinning_stop", "1",
                              true}, /* each graph has threads of its own: those of others must not spin */
                             {"session.record_ep_graph_assignment_info", "1", npu->plugin},
                             {"session.disable_cpu_ep_fallback", "1", npu->plugin && !fallback},
                             {"ep.context_enable", "1", context != NULL},
                             {"ep.context_file_path", context, context != NULL},
                             {"ep.context_embed_mode", "1", context != NULL}};
    if (status == HT_OK)
        status = TRY(npu, SetIntraOpNumThreads, options, threads);
    if (status == HT_OK)
        status = TRY(npu, SetInterOpNumThreads, options, 1);
    if (status == HT_OK) /* an arena for each of hundreds of graphs would hold what only one of them needs at a time */
        status = TRY(npu, DisableCpuMemArena, options);
    if (status == HT_OK)
        status = add_entries(npu, options, entries, HT_COUNT(entries), error);
    if (status == HT_OK && npu->plugin)
        status = TRY(npu, SessionOptionsAppendExecutionProvider_V2, options, npu->ort->env, &npu->provider.device, 1,
                     npu->provider.keys, npu->provider.values, npu->provider.n_settings);
    ht_text_free(&affinities);
    if (status == HT_OK)
        *out = options;
    else if (options)
        npu->ort->ReleaseSessionOptions(options);
    return status;
}

/* HT_ERROR_DEVICE with its name if an operator was left to another provider. */
static ht_status check_assignment(const ht_npu *npu, const OrtSession *session, ht_error *error) {
    const char *wanted = npu->ort->EpDevice_EpName(npu->provider.device), *provider, *type;
    const OrtEpAssignedSubgraph *const *graphs;
    const OrtEpAssignedNode *const *nodes;
    size_t n = 0, n_nodes;
    ht_status status = TRY(npu, Session_GetEpGraphAssignmentInfo, session, &graphs, &n);
    for (size_t i = 0; i < n && status == HT_OK; i++) {
        status = TRY(npu, EpAssignedSubgraph_GetEpName, graphs[i], &provider);
        if (status == HT_OK && strcmp(provider, wanted) != 0) {
            status = TRY(npu, EpAssignedSubgraph_GetNodes, graphs[i], &nodes, &n_nodes);
            if (status == HT_OK && n_nodes)
                status = TRY(npu, EpAssignedNode_GetOperatorType, nodes[0], &type);
            if (status == HT_OK)
                status = ht_fail(error, HT_ERROR_DEVICE, "%s: %s does not take the operator %s", npu->name, wanted,
                                 n_nodes ? type : "?");
        }
    }
    return status;
}

/* A model, or bytes that a plugin has made of one, to a session. */
typedef struct source {
    const OrtModel *model;
    const void *bytes;
    size_t n;
} source;

static ht_status create_session(const ht_npu *npu, const source *from, const OrtSessionOptions *options,
                                OrtSession **session, ht_error *error) {
    return from->model ? TRY(npu, CreateSessionFromModel, npu->ort->env, from->model, options, session)
                       : TRY(npu, CreateSessionFromArray, npu->ort->env, from->bytes, from->n, options, session);
}

static ht_status make_session(const ht_npu *npu, const source *from, const char *context, bool fallback,
                              OrtSession **session, ht_error *error) {
    OrtSessionOptions *options = NULL;
    ht_status status = make_options(npu, context, fallback, &options, error);
    if (status == HT_OK)
        status = create_session(npu, from, options, session, error);
    if (status == HT_OK && npu->plugin)
        status = check_assignment(npu, *session, error);
    if (options)
        npu->ort->ReleaseSessionOptions(options);
    return status;
}

/* ---- programs ---------------------------------------------------------------------------------------------------- */

static void discard(ht_npu *npu, ht_npu_program *program) {
    for (int i = 0; i < 2; i++)
        if (program->values[i])
            npu->ort->ReleaseValue(program->values[i]);
    if (program->session)
        npu->ort->ReleaseSession(program->session);
    ht_npu_constants_drop(program->weights);
    ht_text_free(&program->context);
    free(program);
}

static ht_status new_program(const ht_npu_graph *graph, size_t length, ht_npu_program **program, ht_error *error) {
    ht_status status = ht_alloc((void **)program, 1, sizeof **program, graph->op->name, error);
    for (int i = 0; i < 2 && status == HT_OK; i++) {
        (*program)->dims[i][0] = 1;
        (*program)->dims[i][1] = (int64_t)ht_npu_rows(graph, length);
        (*program)->dims[i][2] = (int64_t)(i ? graph->rows : graph->cols);
    }
    return status;
}

/* The compiled graph as bytes, by way of a file, for nothing else is offered; doing without is no failure. */
static void keep_context(const char *path, ht_npu_program *program) {
    ht_mapping file;
    if (ht_mapping_open(path, &file, NULL) != HT_OK)
        return;
    if (ht_text_append(&program->context, (const char *)file.data, file.bytes, NULL) != HT_OK)
        ht_text_free(&program->context);
    ht_mapping_close(&file);
}

/* A folder for one compiled graph; false: none is to be kept, or can be. */
static bool make_folder(const ht_npu *npu, ht_temporary *folder) {
    if (!npu->config->saves || !npu->provider.contexts || ht_temporary_name("npu/export", folder, NULL) != HT_OK)
        return false;
    const bool made = ht_os_make_folder(folder->path, false) == 0;
    if (made)
        ht_temporary_sweep(folder); /* a compile that was killed has left its own */
    else
        ht_temporary_remove(folder);
    return made;
}

ht_status ht_ort_compile_model(ht_npu *npu, const ht_npu_graph *graph, size_t length, const OrtModel *model,
                               ht_npu_program **out, ht_error *error) {
    char path[1040] = "";
    ht_temporary folder;
    const source from = {.model = model};
    ht_npu_program *program;
    ht_status status = new_program(graph, length, &program, error);
    if (status != HT_OK)
        return status;
    const bool keeps = make_folder(npu, &folder);
    if (keeps)
        snprintf(path, sizeof path, "%s/graph.onnx", folder.path);
    status = make_session(npu, &from, keeps ? path : NULL, false, &program->session, error);
    if (status == HT_OK && keeps)
        keep_context(path, program);
    if (keeps) {
        ht_os_remove(path);
        ht_temporary_remove(&folder);
    }
    OrtSession *other = NULL;
    ht_error reason = {0};
    if (status != HT_OK && npu->plugin && !program->session && /* which operator was it? */
        make_session(npu, &from, NULL, true, &other, &reason) != HT_OK && other && error)
        *error = reason;
    if (other)
        npu->ort->ReleaseSession(other);
    if (status == HT_OK)
        *out = program;
    else
        discard(npu, program);
    return status;
}

static ht_status compile(ht_npu *npu, const ht_npu_graph *described, size_t length, const ht_npu_program *like,
                         ht_npu_program **out, ht_error *error) {
    ht_ort_graph *graph = NULL;
    OrtModel *model = NULL;
    ht_npu_constants *weights = NULL, *shared = like ? like->weights : NULL;
    ht_status status = ht_ort_graph_create(described, length, rounds_activations(npu) ? 4 : 0, &graph, error);
    if (status == HT_OK)
        status = ht_npu_constants_get(shared, ht_ort_graph_bytes(graph), &weights, error);
    if (status == HT_OK && !shared)
        status = ht_ort_graph_fill(graph, weights->data, error);
    if (status == HT_OK)
        status = ht_ort_graph_model(graph, npu->ort, weights->data, &model, error);
    if (status == HT_OK)
        status = ht_ort_compile_model(npu, described, length, model, out, error);
    if (model)
        npu->ort->ReleaseModel(model);
    ht_ort_graph_destroy(graph);
    if (status == HT_OK)
        (*out)->weights = weights;
    else
        ht_npu_constants_drop(weights);
    return status;
}

static ht_status save(ht_npu *npu, ht_npu_program *program, ht_text *bytes, ht_error *error) {
    if (!program->context.bytes)
        return ht_fail(error, HT_ERROR_UNSUPPORTED, "%s hands out no compiled graph", npu->name);
    ht_status status = ht_text_append(bytes, program->context.data, program->context.bytes, error);
    ht_text_free(&program->context);
    return status;
}

static ht_status load(ht_npu *npu, const ht_npu_graph *graph, size_t length, const void *data, size_t bytes,
                      ht_npu_program **out, ht_error *error) {
    ht_npu_program *program;
    const source from = {.bytes = data, .n = bytes};
    ht_status status = new_program(graph, length, &program, error);
    if (status != HT_OK)
        return status;
    status = make_session(npu, &from, NULL, false, &program->session, error);
    if (status == HT_OK)
        *out = program;
    else
        discard(npu, program);
    return status;
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

static ht_status bind(ht_npu *npu, ht_npu_program *program, float *in, float *out, ht_error *error) {
    float *memory[2] = {in, out};
    for (int i = 0; i < 2; i++) {
        const OrtMemoryInfo *info = ht_ort_memory_of(npu->ort, memory[i]);
        if (program->bound[i] == memory[i] && program->kinds[i] == info)
            continue;
        const int64_t *dims = program->dims[i];
        OrtValue *value = NULL;
        ht_status status = TRY(npu, CreateTensorWithDataAsOrtValue, info, memory[i],
                               (size_t)(dims[1] * dims[2]) * sizeof(float), dims, 3, HT_ORT_F32, &value);
        if (status != HT_OK)
            return status;
        if (program->values[i])
            npu->ort->ReleaseValue(program->values[i]);
        program->values[i] = value;
        program->bound[i] = memory[i];
        program->kinds[i] = info;
    }
    return HT_OK;
}

/* The caller computes too: while this lasts, it stays on the device's cores. */
static ht_status start(ht_npu *npu, ht_npu_program *program, ht_error *error) {
    static const char *const in = HT_ORT_INPUT, *const out = HT_ORT_OUTPUT;
    ht_stay stay;
    ht_stay_on(&npu->cores, &stay);
    ht_status status = TRY(npu, Run, program->session, NULL, &in, (const OrtValue *const *)&program->values[0], 1, &out,
                           1, &program->values[1]);
    ht_leave_cores(&stay);
    return status;
}

static ht_status wait_done(ht_npu *npu, ht_npu_program *program, ht_error *error) {
    return HT_OK;
}

static void *own_pages(ht_npu *npu, size_t bytes) {
    return npu->provider.memory ? ht_ort_memory_alloc(bytes) : NULL;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

/* The trial on the provider's own memory: two products of zeros, written over what is no zero. */
static ht_status try_memory(ht_npu *npu, ht_npu_program *program, ht_error *error) {
    ht_status status = ht_ort_memory_offer(npu->ort, npu->name, program->session, npu->provider.memory, error);
    float *in = status == HT_OK ? ht_ort_memory_alloc(TRIAL * sizeof *in) : NULL,
          *out = status == HT_OK ? ht_ort_memory_alloc(TRIAL * sizeof *out) : NULL;
    if (status == HT_OK && (!in || !out))
        status = ht_fail(error, HT_ERROR_DEVICE, "none is handed out");
    for (size_t i = 0; i < TRIAL && status == HT_OK; i++)
        out[i] = 1;
    if (status == HT_OK)
        status = bind(npu, program, in, out, error);
    if (status == HT_OK)
        status = start(npu, program, error);
    for (size_t i = 0; i < TRIAL && status == HT_OK; i++)
        if (out[i] != 0)
            status = ht_fail(error, HT_ERROR_DEVICE, "what is computed does not arrive there");
    if (in)
        ht_ort_memory_free(in);
    if (out)
        ht_ort_memory_free(out);
    return status;
}

static ht_status compile_trial(ht_npu *npu, ht_npu_program **program, ht_error *error) {
    ht_op op = {.kind = HT_OP_MATMUL, .name = "a trial", .n_parts = 1};
    op.parts[0] = (ht_matrix){.name = "trial", .type = ht_type_by_name("F32"), .rows = TRIAL, .cols = TRIAL};
    const ht_slice whole = {.row_end = TRIAL, .reduction_end = TRIAL};
    ht_npu_graph graph;
    ht_npu_describe(&op, &whole, false, &graph);
    return compile(npu, &graph, 1, NULL, program, error);
}

/* Does a plugin compile anything at all? Its library may be of another version than its provider was made for, and one line
 * now says more than one for each graph later. Memory of its own that does not work is done without. The first such program
 * is never let go, nor is the one whose session hands out memory: with the last one Qualcomm's library shuts down, and
 * complains on standard output when it starts again. */
static ht_status try_out(ht_npu *npu, ht_error *error) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static ht_npu_program *kept[2]; /* of copied memory, of the provider's */
    static bool failed;             /* the provider's memory: once is enough */
    ht_npu_program *program = NULL;
    ht_error reason = {0};
    ht_status status = HT_OK;
    pthread_mutex_lock(&lock);
    if (npu->provider.memory && !kept[1] && !failed) {
        failed = compile_trial(npu, &program, &reason) != HT_OK || try_memory(npu, program, &reason) != HT_OK;
        if (!failed) {
            kept[1] = program;
        } else {
            ht_log(HT_LOG_WARN, "%s: no shared memory, copying inputs and outputs: %s", npu->name, reason.text);
            if (program)
                discard(npu, program);
        }
    }
    if (npu->provider.memory && failed) {
        npu->provider.memory = NULL;
        npu->provider.n_settings--;
    }
    if (!npu->provider.memory) {
        status = compile_trial(npu, &program, error);
        if (status == HT_OK && kept[0])
            discard(npu, program);
        else if (status == HT_OK)
            kept[0] = program;
    }
    pthread_mutex_unlock(&lock);
    return status;
}

static void close_npu(ht_npu *npu) {
    free(npu);
}

static void state_facts(const ht_npu *npu, ht_npu_facts *facts) {
    ht_npu_standard_lengths(facts);
    facts->single = npu->plugin; /* the CPU's matvec is slower than our own */
    facts->reloads = npu->provider.contexts;
    facts->step = npu->plugin ? 0x1p-11 : 0x1p-24; /* plugins compute in fp16 */
    facts->code_step = rounds_activations(npu) ? 1.0 / 127 : 0;
    facts->more_graph = npu->provider.emulated ? 16.0 * 1048576 : 0; /* of what its compiler leaves behind */
    facts->more_weight = npu->provider.emulated ? 2.3 : 0;
    snprintf(facts->identity, sizeof facts->identity, "form %d%s, %.130s", HT_ORT_FORM,
             npu->provider.memory ? ", shared memory" : "", npu->provider.identity);
}

static ht_status open_npu(const ht_npu_config *config, ht_npu **out, ht_npu_facts *facts, ht_error *error) {
    const char *why, *colon = strchr(config->name, ':');
    char order[32];
    const ht_ort *ort = ht_ort_get(&why);
    if (!ort)
        return ht_fail(error, HT_ERROR_DEVICE, "device %s: %s", config->name, why);
    if (config->hint[0])
        return ht_fail(error, HT_ERROR_ARGUMENT, "device %s: hint= is for OpenVINO; providers have one arithmetic",
                       config->name);
    if (ht_device_option(config->options, "order", order, sizeof order) && strcmp(order, "weights") == 0)
        return ht_fail(error, HT_ERROR_ARGUMENT,
                       "device %s: order=weights is for OpenVINO; MatMulNBits takes the activations first",
                       config->name);
    ht_npu *npu;
    ht_status status = ht_alloc((void **)&npu, 1, sizeof *npu, config->name, error);
    if (status != HT_OK)
        return status;
    npu->ort = ort;
    npu->config = config;
    snprintf(npu->name, sizeof npu->name, "ort:%.40s", colon ? colon + 1 : "cpu");
    npu->cores = config->cores;
    status = ht_ort_provider_find(ort, strchr(npu->name, ':') + 1, config->options, &npu->provider, error);
    if (status == HT_OK) {
        npu->plugin = npu->provider.library[0] != '\0';
        status = npu->plugin ? try_out(npu, error) : HT_OK;
    }
    if (status == HT_OK) {
        describe(ort, &npu->provider, &facts->info);
        state_facts(npu, facts);
    }
    if (status == HT_OK)
        *out = npu;
    else
        close_npu(npu);
    return status;
}

const ht_npu_runtime ht_npu_onnxruntime = {.options = {"library", "soc", "arch", "memory"},
                                           .list = list,
                                           .open = open_npu,
                                           .close = close_npu,
                                           .compile = compile,
                                           .discard = discard,
                                           .save = save,
                                           .load = load,
                                           .bind = bind,
                                           .start = start,
                                           .wait = wait_done,
                                           .alloc_shared = own_pages,
                                           .free_shared = ht_ort_memory_free};

static ht_status open_device(const ht_device_options *options, ht_device **device, ht_error *error) {
    return ht_npu_open(&ht_device_onnxruntime, &ht_npu_onnxruntime, options, device, error);
}

static const ht_device_node nodes[] = {
    {"/dev/fastrpc-*", false},   /* Qualcomm Hexagon: Linux, */
    {"/dev/adsprpc-smd", false}, /* and Android */
    {NULL, false},
};

/* ort:cpu is the CPU once more, and other providers are devices that another runtime has, too. */
static const ht_device_real real[] = {{"ort:qnn", "npu", false}, {NULL, NULL, false}};

const ht_device_ops ht_device_onnxruntime = {
    HT_NPU_OPERATIONS, .prefix = "ort",          .nodes = nodes,
    .real = real,      .library = "onnxruntime", .set_path = ht_onnxruntime_set_path,
    .list = list,      .open = open_device,      .free_shared = ht_ort_memory_free};
