/* A static-graph device measured from inside.
 *
 *   npu build DEVICE[,DEVICE...] [MATRIX]
 *                                matrix sizes (rows x columns; MATRIX: those that begin so, "4096x4096 Q4_0") x lengths:
 *                                time to build a graph (median of 3), memory it takes (growth of the process's resident
 *                                memory, averaged over those three) beside our estimate: lines of comma-separated values;
 *                                of devices that keep compiled graphs (ort:qnn), also the time to build one that is kept,
 *                                to load it again, and its size. Emulated devices: one build, and no run
 *   npu overhead DEVICE          our way (submit to a ht_device) next to calling OpenVINO itself on the same graph, in
 *                                turn: 4096 x 4096 at 256, dense, as a row slice and padded, and a tiny graph
 *
 * Build: see bench/README.md. Exact precision unless FAST is the last argument.
 */
#include "device/npu/npu.h"
#include "device/npu/openvino_api.h"
#include "device/npu/openvino_graph.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SLOT_NORMED, SLOT_QKV, SLOT_FFN, SLOT_ACT, SLOT_DELTA }; /* there is no model */

static ht_error error;
static const ht_npu_runtime *runtime;
static void must(ht_status status) {
    if (status == HT_OK)
        return;
    fprintf(stderr, "%s\n", error.text);
    exit(1);
}

static double resident_mib(void) {
    malloc_trim(0);
    long pages = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file || fscanf(file, "%ld %ld", &pages, &resident) != 2)
        exit(1);
    fclose(file);
    return (double)resident * (double)sysconf(_SC_PAGESIZE) / 1048576;
}

static ht_op matmul_op(const char *type, const char *name, size_t rows, size_t cols) {
    const ht_type_traits *t = ht_type_by_name(type);
    ht_op op = {.kind = HT_OP_MATMUL, .in = SLOT_NORMED, .aux = HT_SLOT_NONE, .out = SLOT_QKV, .n_parts = 1};
    snprintf(op.name, sizeof op.name, "%s", name);
    op.parts[0] = (ht_matrix){.name = name,
                              .type = t,
                              .rows = rows,
                              .cols = cols,
                              .row_bytes = cols / (size_t)t->block * (size_t)t->block_bytes};
    return op;
}

/* ---- build
 * ------------------------------------------------------------------------------------------------------------------ */

static const struct build_case {
    const char *name, *type;
    size_t rows, cols, features;
} build_cases[] = {{"1024x1024", "Q4_0", 1024, 1024, 0},        {"2048x2048", "Q4_0", 2048, 2048, 0},
                   {"4096x4096", "Q4_0", 4096, 4096, 0},        {"4096x4096", "Q4_1", 4096, 4096, 0},
                   {"4096x4096", "Q8_0", 4096, 4096, 0},        {"4096x4096", "F16", 4096, 4096, 0},
                   {"14336x4096", "Q4_0", 14336, 4096, 0},      {"4096x14336", "Q4_0", 4096, 14336, 0},
                   {"FFN 2048/8192", "Q4_0", 2048, 2048, 8192}, {"FFN 4096/14336", "Q4_0", 4096, 4096, 14336}};

/* One line of the table, in a process of its own: allocators keep what an earlier line gave back. */
static void build_one(ht_npu_config *config, const struct build_case *c, size_t length) {
    ht_npu *npu;
    ht_npu_facts facts = {0};
    must(runtime->open(config, &npu, &facts, &error));
    ht_op ops[3] = {matmul_op(c->type, "w", c->rows, c->cols)}, block;
    ht_slice slice = {.row_end = c->rows, .reduction_end = c->cols};
    size_t weights = c->rows * c->cols;
    if (c->features) {
        ops[0] = matmul_op(c->type, "gate", c->features, c->cols);
        ops[0].out = SLOT_FFN, ops[0].parts[1] = ops[0].parts[0], ops[0].parts[1].name = "up", ops[0].n_parts = 2;
        ops[1] = (ht_op){.kind = HT_OP_GLU, .in = SLOT_FFN, .out = SLOT_ACT};
        ops[2] = matmul_op(c->type, "down", c->rows, c->features);
        ops[2].in = SLOT_ACT;
        slice = (ht_slice){.row_end = c->features};
        weights = 3 * c->features * c->cols;
        if (!ht_op_ffn(ops, 3, &block))
            exit(1);
    }
    ht_npu_graph graph;
    if (ht_npu_describe(c->features ? &block : &ops[0], &slice, false, &graph))
        exit(1);
    ht_npu_program *program;
    const int repeats = facts.info.emulated ? 1 : 3;
    double times[3], start, before = 0;
    float *in = ht_pages_alloc(length * graph.cols * 4), *out = ht_pages_alloc(length * graph.rows * 4);
    for (int r = -1; r < repeats; r++) { /* the first fills allocators' stores */
        start = ht_seconds();
        must(runtime->compile(npu, &graph, length, NULL, &program, &error));
        if (r >= 0)
            times[r] = ht_seconds() - start;
        must(runtime->bind(npu, program, in, out, &error));
        if (!facts.info.emulated) /* some memory comes with the first run */
            must(runtime->start(npu, program, &error));
        if (r < 0)
            before = resident_mib();
    }
    const double grown = (resident_mib() - before) / repeats;
    ht_sort_doubles(times, (size_t)repeats);
    printf("%s,%s,%s,%zu,%zu,%.1f,%.1f,%.1f", config->name, c->name, c->type, length, weights, times[repeats / 2] * 1e3,
           grown,
           ((double)(ht_npu_estimate_shared(&graph) + ht_npu_estimate(&graph, length)) + facts.more_graph +
            facts.more_weight * (double)weights) /
               1048576);
    ht_text kept = {0};
    config->saves = facts.reloads;
    if (config->saves) {
        start = ht_seconds();
        must(runtime->compile(npu, &graph, length, NULL, &program, &error));
        const double built = ht_seconds() - start;
        must(runtime->save(npu, program, &kept, &error));
        start = ht_seconds();
        must(runtime->load(npu, &graph, length, kept.data, kept.bytes, &program, &error));
        printf(",%.1f,%.1f,%.1f\n", 1e3 * built, 1e3 * (ht_seconds() - start), (double)kept.bytes / 1048576);
    } else {
        printf(",,,\n");
    }
    fflush(stdout);
    _exit(0);
}

static void build(ht_npu_config *config, const char *matrix) {
    static const size_t lengths[] = {1, 64, 256, 1024};
    for (size_t i = 0; i < HT_COUNT(build_cases); i++)
        for (size_t k = 0; k < HT_COUNT(lengths); k++) {
            int status;
            char label[32];
            snprintf(label, sizeof label, "%s %s", build_cases[i].name, build_cases[i].type);
            if (strncmp(label, matrix, strlen(matrix)) != 0)
                continue;
            fflush(stdout);
            const pid_t child = fork();
            if (child == 0)
                build_one(config, &build_cases[i], lengths[k]);
            if (child < 0 || waitpid(child, &status, 0) < 0)
                exit(1);
            if (status) /* out of memory, or its compiler's failure: the next may do */
                fprintf(stderr, "%s: %s at %zu failed\n", config->name, build_cases[i].name, lengths[k]);
        }
}

/* ---- overhead
 * ----------------------------------------------------------------------------------------------------------------- */

/* The same graph by OpenVINO's own calls. */
static ov_infer_request_t *direct_request(const ht_ov *ov, const ht_npu_graph *graph, size_t length,
                                          ht_precision precision, const char *threads, float *in, float *out) {
    ht_ov_graph *text;
    ht_text xml = {0};
    ov_core_t *core;
    ov_tensor_t *weights, *tensors[2];
    ov_model_t *model;
    ov_compiled_model_t *compiled;
    ov_infer_request_t *request;
    must(ht_ov_graph_create(graph, length, false, &text, &error));
    must(ht_ov_graph_write(text, &xml, &error));
    int64_t bytes[] = {(int64_t)ht_ov_graph_bytes(text)},
            shapes[2][2] = {{(int64_t)length, (int64_t)graph->cols}, {(int64_t)length, (int64_t)graph->rows}};
    const bool exact = precision == HT_PRECISION_EXACT;
    const ov_property_t properties[] = {{"PERFORMANCE_HINT", "LATENCY"},
                                        {"INFERENCE_PRECISION_HINT", "f32"},
                                        {"DYNAMIC_QUANTIZATION_GROUP_SIZE", exact ? "0" : "32"},
                                        {"NUM_STREAMS", "1"},
                                        {"ENABLE_CPU_PINNING", "NO"},
                                        {"INFERENCE_NUM_THREADS", threads}};
    void *data = ht_pages_alloc((size_t)bytes[0]); /* the request's, to the end of the process */
    if (!data)
        exit(1);
    must(ht_ov_graph_fill(text, data, &error));
    const bool failed =
        ov->ov_core_create(&core) ||
        ov->ov_tensor_create_from_host_ptr(HT_OV_U8, (ov_shape_t){1, bytes}, data, &weights) ||
        ov->ov_core_read_model_from_memory_buffer(core, xml.data, xml.bytes, weights, &model) ||
        ov->ov_core_compile_model_props(core, model, "CPU", HT_COUNT(properties), properties, &compiled) ||
        ov->ov_compiled_model_create_infer_request(compiled, &request) ||
        ov->ov_tensor_create_from_host_ptr(HT_OV_F32, (ov_shape_t){2, shapes[0]}, in, &tensors[0]) ||
        ov->ov_tensor_create_from_host_ptr(HT_OV_F32, (ov_shape_t){2, shapes[1]}, out, &tensors[1]) ||
        ov->ov_infer_request_set_input_tensor_by_index(request, 0, tensors[0]) ||
        ov->ov_infer_request_set_output_tensor_by_index(request, 0, tensors[1]);
    if (failed) {
        fprintf(stderr, "OpenVINO: %s\n", ov->ov_get_last_err_msg());
        exit(1);
    }
    return request;
}

enum { ROUNDS = 9, MOST = 20000 };

static double medians[2];
static void time_both(const ht_ov *ov, ov_infer_request_t *request, ht_device *device, ht_task *task,
                      const ht_binding *binding, int repeats) {
    static double times[2][ROUNDS];
    for (int round = -2; round < ROUNDS; round++)
        for (int ours = 0; ours < 2; ours++) {
            const double start = ht_seconds();
            for (int i = 0; i < repeats; i++) {
                ht_ticket ticket;
                if (ours) {
                    must(device->ops->submit(device, task, binding, NULL, 0, &ticket, &error));
                    must(device->ops->wait(device, ticket, HT_SYNC_AUTO, &error));
                } else if (ov->ov_infer_request_infer(request)) {
                    exit(1);
                }
            }
            if (round >= 0)
                times[ours][round] = (ht_seconds() - start) / repeats;
        }
    for (int ours = 0; ours < 2; ours++) {
        ht_sort_doubles(times[ours], ROUNDS);
        medians[ours] = times[ours][ROUNDS / 2];
    }
}

static void overhead(const ht_device_options *options) {
    static const struct {
        const char *what;
        size_t rows, cols, first, n, tokens, length;
        int repeats;
    } cases[] = {{"4096x4096, 256 tokens", 4096, 4096, 0, 4096, 256, 256, 5},
                 {"rows 1376..4096 of it (copied out)", 4096, 4096, 1376, 2720, 256, 256, 5},
                 {"250 tokens at length 256", 4096, 4096, 0, 4096, 250, 256, 5},
                 {"32x32, 1 token", 32, 32, 0, 32, 1, 1, 5000}};
    const char *why;
    const ht_ov *ov = ht_ov_get(&why);
    ht_device *device;
    char threads[16];
    snprintf(threads, sizeof threads, "%d", options->threads);
    must(ht_device_open("openvino:CPU", options, &device, &error));
    for (size_t i = 0; i < HT_COUNT(cases); i++) {
        ht_op op = matmul_op("Q4_0", "w", cases[i].rows, cases[i].cols);
        const ht_slice slice = {
            .row_begin = cases[i].first, .row_end = cases[i].first + cases[i].n, .reduction_end = cases[i].cols};
        ht_npu_graph graph;
        ht_task *task;
        if (ht_npu_describe(&op, &slice, false, &graph))
            exit(1);
        float *x = ht_pages_alloc(256 * cases[i].cols * 4), *y = ht_pages_alloc(256 * cases[i].rows * 4);
        for (size_t k = 0; k < 256 * cases[i].cols; k++)
            x[k] = (float)((double)(k * 2654435761u % 65536) / 32768 - 1);
        must(device->ops->prepare(device, &op, &slice, &task, &error));
        must(device->ops->warm(device, task, cases[i].length, &error));
        must(device->ops->settle(device, task, cases[i].length, &error));
        const ht_view slots[HT_MAX_SLOTS] = {[SLOT_NORMED] = {x, cases[i].cols}, [SLOT_QKV] = {y, cases[i].rows}};
        const ht_binding binding = {.slots = slots, .tokens = cases[i].tokens, .room = 256};
        ov_infer_request_t *request = direct_request(ov, &graph, cases[i].length, options->precision, threads, x, y);
        time_both(ov, request, device, task, &binding, cases[i].repeats);
        printf("%s: direct %.2f us, ours %.2f us: %+.2f us, %+.2f%%\n", cases[i].what, medians[0] * 1e6,
               medians[1] * 1e6, (medians[1] - medians[0]) * 1e6, 100 * (medians[1] / medians[0] - 1));
        device->ops->release(device, task);
    }
}

int main(int argc, char **argv) {
    const bool fast = argc > 2 && !strcmp(argv[argc - 1], "FAST");
    argc -= fast;
    const bool is_build = (argc == 3 || argc == 4) && !strcmp(argv[1], "build"),
               is_overhead = argc == 3 && !strcmp(argv[1], "overhead");
    if (!is_build && !is_overhead) {
        fprintf(stderr,
                "usage: %s build openvino:CPU,ort:cpu,ort:qnn [MATRIX] [FAST]; %s overhead openvino:CPU [FAST]\n",
                argv[0], argv[0]);
        return 2;
    }
    ht_npu_config config = {
        .threads = 1, .precision = fast ? HT_PRECISION_FAST : HT_PRECISION_EXACT, .hint = "", .options = ""};
    const ht_hparams small = {.layers = 1, .embedding = 64, .heads = 1, .kv_heads = 1, .head_dim = 64};
    const ht_device_options options = {
        .threads = 1, .precision = config.precision, .hparams = &small, .max_tokens = 1024, .max_context = 64};
    if (is_overhead) {
        overhead(&options);
        return 0;
    }
    printf("device,matrix,type,length,weights,build_ms,mib,estimate_mib,build_kept_ms,load_ms,kept_mib\n");
    for (char *name = strtok(argv[2], ","); name; name = strtok(NULL, ",")) {
        config.name = name;
        runtime = strncmp(name, "ort:", 4) == 0 ? &ht_npu_onnxruntime : &ht_npu_openvino;
        build(&config, argc == 4 ? argv[3] : "");
    }
    return 0;
}
