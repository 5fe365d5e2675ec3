/* A graph that Qualcomm's compiler gets wrong, in a form that we never make: 4-bit weights with a scale a row and no
 * zero-point tensor, which means zero in ONNX and something else to it. The check of a built graph refuses it, and takes
 * the same graph with the zeros written down. And an operator that it does not have, which the error names. */
#include "unit/test.h"
#include "slots.h"

#include "device/npu/onnxruntime.h"

#include <math.h>

#define ROWS 64
#define COLS 128
enum { U16 = 4, I4 = 22 }; /* ONNXTensorElementDataType */

static ht_op op = {.kind = HT_OP_MATMUL, .name = "rows", .in = SLOT_NORMED, .out = SLOT_QKV, .n_parts = 1};
static uint8_t blocks[ROWS][COLS / 32][18], codes[COLS * ROWS / 2], zeros[ROWS / 2];
static float scales[ROWS], steps[2] = {6.5f / 32768, 8.0f / 32768};
static uint16_t middle = 32768;
static bool with_zeros, with_hardmax;
static const ht_ort *ort;

/* A Q4_0 matrix whose blocks have one scale a row, and its codes as columns of rows. */
static void make_weights(void) {
    uint32_t state = 1;
    for (size_t r = 0; r < ROWS; r++) {
        const uint16_t half = ht_f32_to_f16(0.005f + 0.0001f * (float)r);
        scales[r] = ht_f16_to_f32(half);
        for (size_t c = 0; c < COLS; c++) {
            state = state * 1664525 + 1013904223;
            const unsigned q = state >> 28, at = (unsigned)(c % 32);
            memcpy(blocks[r][c / 32], &half, 2);
            blocks[r][c / 32][2 + at % 16] |= (uint8_t)(q << (at / 16 * 4));
            codes[(c * ROWS + r) / 2] |= (uint8_t)(((q - 8) & 15) << (r % 2 * 4));
        }
    }
    op.parts[0] = (ht_matrix){.name = "w",
                              .type = ht_type_by_name("Q4_0"),
                              .rows = ROWS,
                              .cols = COLS,
                              .data = blocks[0][0],
                              .row_bytes = sizeof blocks[0]};
}

static void good(OrtStatus *status) {
    ht_error error = {0};
    check(ht_ort_check(ort, status, "test", "a call", &error), &error);
}

static void add_tensor(OrtGraph *graph, const char *name, const void *data, size_t bytes, int type, int rank,
                       const int64_t *dims) {
    OrtValue *value;
    void *to;
    good(ort->CreateTensorAsOrtValue(ort->allocator, dims, (size_t)rank, (unsigned)type, &value));
    good(ort->GetTensorMutableData(value, &to));
    memcpy(to, data, bytes);
    good(ort->AddInitializerToGraph(graph, name, value, false));
}

static void add_node(OrtGraph *graph, const char *type, const char *const *inputs, size_t n, const char *output,
                     int64_t axis) {
    OrtOpAttr *attribute = NULL;
    OrtNode *node;
    if (axis)
        good(ort->CreateOpAttr("axis", &axis, 1, HT_ORT_ATTRIBUTE_INT, &attribute));
    good(ort->CreateNode(type, "", output, inputs, n, &output, 1, &attribute, axis ? 1 : 0, &node));
    good(ort->AddNodeToGraph(graph, node));
}

static void add_port(OrtGraph *graph, bool output, size_t length) {
    const int64_t dims[] = {1, (int64_t)length, output ? ROWS : COLS};
    OrtTensorTypeAndShapeInfo *shape;
    OrtTypeInfo *type;
    OrtValueInfo *value;
    good(ort->CreateTensorTypeAndShapeInfo(&shape));
    good(ort->SetTensorElementType(shape, HT_ORT_F32));
    good(ort->SetDimensions(shape, dims, 3));
    good(ort->CreateTensorTypeInfo(shape, &type));
    good(ort->CreateValueInfo(output ? HT_ORT_OUTPUT : HT_ORT_INPUT, type, &value));
    good(output ? ort->SetGraphOutputs(graph, &value, 1) : ort->SetGraphInputs(graph, &value, 1));
    ort->ReleaseTypeInfo(type);
    ort->ReleaseTensorTypeAndShapeInfo(shape);
}

/* 16-bit activations, 4-bit weights that have a scale a row. */
static void add_product(OrtGraph *graph) {
    const int64_t matrix[] = {COLS, ROWS}, rows[] = {ROWS};
    add_tensor(graph, "w", codes, sizeof codes, I4, 2, matrix);
    add_tensor(graph, "s", scales, sizeof scales, HT_ORT_F32, 1, rows);
    add_tensor(graph, "z", zeros, sizeof zeros, I4, 1, rows);
    add_tensor(graph, "xs", &steps[0], sizeof steps[0], HT_ORT_F32, 0, NULL);
    add_tensor(graph, "ys", &steps[1], sizeof steps[1], HT_ORT_F32, 0, NULL);
    add_tensor(graph, "m", &middle, sizeof middle, U16, 0, NULL);
    add_node(graph, "QuantizeLinear", (const char *[]){HT_ORT_INPUT, "xs", "m"}, 3, "xq", 0);
    add_node(graph, "DequantizeLinear", (const char *[]){"xq", "xs", "m"}, 3, "xd", 0);
    add_node(graph, "DequantizeLinear", (const char *[]){"w", "s", "z"}, with_zeros ? 3 : 2, "wd", 1);
    add_node(graph, "MatMul", (const char *[]){"xd", "wd"}, 2, "p", 0);
    add_node(graph, "QuantizeLinear", (const char *[]){"p", "ys", "m"}, 3, "pq", 0);
    add_node(graph, "DequantizeLinear", (const char *[]){"pq", "ys", "m"}, 3, HT_ORT_OUTPUT, 0);
}

static void add_hardmax(OrtGraph *graph) {
    static const float floats[COLS][ROWS];
    const int64_t matrix[] = {COLS, ROWS};
    add_tensor(graph, "f", floats, sizeof floats, HT_ORT_F32, 2, matrix);
    add_node(graph, "MatMul", (const char *[]){HT_ORT_INPUT, "f"}, 2, "p", 0);
    add_node(graph, "Hardmax", (const char *[]){"p"}, 1, HT_ORT_OUTPUT, 0);
}

static ht_status compile(ht_npu *npu, const ht_npu_graph *described, size_t length, const ht_npu_program *like,
                         ht_npu_program **program, ht_error *error) {
    static const char *const domain = "";
    static const int version = 21;
    OrtGraph *graph;
    OrtModel *model;
    good(ort->CreateGraph(&graph));
    add_port(graph, false, length), add_port(graph, true, length);
    (with_hardmax ? add_hardmax : add_product)(graph);
    good(ort->CreateModel(&domain, &version, 1, &model));
    good(ort->AddGraphToModel(model, graph));
    ht_status status = ht_ort_compile_model(npu, described, length, model, program, error);
    ort->ReleaseModel(model);
    return status;
}

static void test_refused_graphs(void **state) {
    ht_npu_runtime runtime = ht_npu_onnxruntime;
    runtime.compile = compile;
    const ht_device_options options = {
        .name = "ort:qnn", .options = "cache=off:lengths=32", .max_tokens = 64, .precision = HT_PRECISION_EXACT};
    const ht_slice whole = {.row_end = ROWS, .reduction_end = COLS};
    const char *why;
    ht_error error = {0};
    ht_device *d = NULL;
    ort = ht_ort_get(&why);
    if (!ort || ht_npu_open(&ht_device_onnxruntime, &runtime, &options, &d, &error)) {
        if (must_have(ort ? "qnn" : "ort", ort ? error.text : why))
            fail();
        skip();
    }
    make_weights();
    static const struct {
        bool zeros, hardmax;
        const char *error;
    } rows[] = {{true, false, NULL},
                {false, false, "rows at length 32: computes wrong numbers"},
                {true, true, "does not take the operator Hardmax"}};
    for (size_t i = 0; i < HT_COUNT(rows); i++) {
        ht_task *task;
        with_zeros = rows[i].zeros, with_hardmax = rows[i].hardmax;
        check(d->ops->prepare(d, &op, &whole, &task, &error), &error);
        const ht_status status = d->ops->settle(d, task, 32, &error);
        if (!rows[i].error)
            check(status, &error);
        else
            fails(status, HT_ERROR_DEVICE, &error, rows[i].error);
        d->ops->release(d, task);
    }
    d->ops->close(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_refused_graphs)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
