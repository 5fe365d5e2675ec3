/* One graph for every provider. Weights in groups are MatMulNBits (com.microsoft): codes without sign [rows, groups, bytes],
 * a scale each, rows by columns as they come; CPU and Hexagon both have it for 4 and 8 bits in groups of 16 and 32. It
 * takes one integer zero point, so offsets are a second, 32 times smaller MatMul of the activations' group sums. Values
 * have three dimensions, for QNN takes MatMulNBits in no other. Experts have a Slice of the rows and products each, for
 * MatMulNBits knows no batches. */
#include "device/npu/onnxruntime_graph.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum constant_kind { NO_CONSTANT, CODES, SCALES, OFFSETS, BIAS, FLOATS, INTEGERS, NUMBER } constant_kind;

typedef struct attribute { /* of an operator */
    const char *name;
    int64_t integer;
} attribute;

#define MAX_INPUTS 4
#define MAX_ATTRIBUTES 5
typedef struct node { /* an operator or a constant; its value is named for its place in the list */
    const char *type, *domain;
    int inputs[MAX_INPUTS], n_inputs; /* other nodes */
    attribute attributes[MAX_ATTRIBUTES];
    int n_attributes;
    constant_kind constant;
    int element; /* HT_ORT_ type of a constant */
    int64_t dims[4];
    int n_dims;
    const ht_npu_matrix *matrix; /* whose constant it is */
    int64_t integers[4];
    float number;
    size_t offset, bytes; /* a constant's place in the blob (in_blob) */
} node;

#define SET_NODES 64 /* more than one set of matrices has: three parts with offsets and biases */
struct ht_ort_graph {
    const ht_npu_graph *of;
    size_t length, rows, bytes; /* length: rows that one set of matrices computes; rows: all of them */
    int accuracy;
    ht_npu_matrix *matrices; /* [sets][n_parts] */
    int n;
    node nodes[]; /* [SET_NODES] for each set; the first is the input, the last the output */
};

/* ---- nodes ------------------------------------------------------------------------------------------------------- */

#define INPUTS(...) .inputs = {__VA_ARGS__}, .n_inputs = (int)HT_COUNT(((int[]){__VA_ARGS__}))
#define DIMS(...) .dims = {__VA_ARGS__}, .n_dims = (int)HT_COUNT(((int64_t[]){__VA_ARGS__}))
#define ATTRIBUTES(...) .attributes = {__VA_ARGS__}, .n_attributes = (int)HT_COUNT(((attribute[]){__VA_ARGS__}))
#define INTEGER(key, value) \
    { .name = (key), .integer = (int64_t)(value) }
#define MICROSOFT "com.microsoft"

/* Integers and numbers have no place there: some depend on the length, and all lengths have one blob. */
static bool in_blob(const node *n) {
    return n->constant && n->constant != INTEGERS && n->constant != NUMBER;
}

static int add(ht_ort_graph *g, node n) {
    if (in_blob(&n)) {
        n.offset = g->bytes;
        g->bytes = ht_round_up(g->bytes + n.bytes, 64);
    }
    g->nodes[g->n] = n;
    return g->n++;
}

static int add_constant(ht_ort_graph *g, constant_kind kind, const ht_npu_matrix *m, int64_t rows, int64_t cols) {
    node n = {.constant = kind, .matrix = m, .element = HT_ORT_F32, DIMS(rows, cols)};
    n.n_dims = cols ? 2 : 1; /* a vector has no columns */
    n.bytes = (size_t)rows * (size_t)(cols ? cols : 1) * sizeof(float);
    return add(g, n);
}

static int add_integers(ht_ort_graph *g, int n, const int64_t values[4]) {
    node c = {.constant = INTEGERS, .element = HT_ORT_I64, DIMS(n), .bytes = (size_t)n * sizeof values[0]};
    memcpy(c.integers, values, c.bytes);
    return add(g, c);
}

static int add_number(ht_ort_graph *g, double value) {
    return add(
        g, (node){.constant = NUMBER, .element = HT_ORT_F32, DIMS(1), .number = (float)value, .bytes = sizeof(float)});
}

static int add_two(ht_ort_graph *g, const char *type, int a, int b) {
    return add(g, (node){.type = type, INPUTS(a, b)});
}

/* x [1, length, cols] by the codes and scales, or the floats, of one matrix -> [1, length, rows]. */
static int multiply(ht_ort_graph *g, int x, const ht_npu_matrix *m) {
    const int64_t rows = (int64_t)m->rows, cols = (int64_t)m->cols;
    if (!m->group) /* MatMul wants its second factor with columns first */
        return add_two(g, "MatMul", x, add_constant(g, FLOATS, m, cols, rows));
    const int64_t groups = cols / (int64_t)m->group, bits = (int64_t)ht_npu_bits(m->element);
    const int64_t each = (int64_t)m->group * bits / 8;
    const int codes = add(g, (node){.constant = CODES,
                                    .matrix = m,
                                    .element = HT_ORT_U8,
                                    DIMS(rows, groups, each),
                                    .bytes = (size_t)(rows * groups * each)});
    const int scales = add_constant(g, SCALES, m, rows * groups, 0);
    return add(g, (node){.type = "MatMulNBits",
                         .domain = MICROSOFT,
                         INPUTS(x, codes, scales),
                         ATTRIBUTES(INTEGER("K", cols), INTEGER("N", rows), INTEGER("bits", bits),
                                    INTEGER("block_size", m->group), INTEGER("accuracy_level", g->accuracy))});
}

/* Sums of x's groups: [1, length, groups]. */
static int group_sums(ht_ort_graph *g, int x, const ht_npu_matrix *m) {
    const int64_t shape[] = {1, -1, (int64_t)(m->cols / m->group), (int64_t)m->group}, axis[4] = {3};
    const int cut = add_two(g, "Reshape", x, add_integers(g, 4, shape));
    const int last = add_integers(g, 1, axis);
    return add(g, (node){.type = "ReduceSum", INPUTS(cut, last), ATTRIBUTES(INTEGER("keepdims", 0))});
}

/* x by one matrix -> [1, length, rows]. sums: x's group sums for groups of 32 and of 16, made when first needed (-1: not
 * yet) and shared by the matrices that multiply x. */
static int product(ht_ort_graph *g, int x, const ht_npu_matrix *m, int sums[2]) {
    const int64_t rows = (int64_t)m->rows;
    int y = multiply(g, x, m);
    if (m->offset) {
        int *of_group = &sums[m->group == 16];
        if (*of_group < 0)
            *of_group = group_sums(g, x, m);
        const int offsets = add_constant(g, OFFSETS, m, (int64_t)(m->cols / m->group), rows);
        y = add_two(g, "Add", y, add_two(g, "MatMul", *of_group, offsets));
    }
    return m->bias ? add_two(g, "Add", y, add_constant(g, BIAS, m, rows, 0)) : y;
}

/* Those that are smooth are z + z * tanh(t) with z half the gate, t that of SiLU, 0.79788 g + 0.03568 g^3 of GELU.
 * Hexagon's tanh is right to a rounding or two; its sigmoid errs by 2^-9, and so do ONNX's own Gelu and QuickGelu
 * there. */
static int activate(ht_ort_graph *g, int gate, ht_activation kind) {
    const double root = 0.7978845608028654; /* of 2 / pi */
    if (kind == HT_ACT_RELU2) {
        const int positive = add(g, (node){.type = "Relu", INPUTS(gate)});
        return add_two(g, "Mul", positive, positive);
    }
    if (kind == HT_ACT_CLAMPED)
        gate = add_two(g, "Min", gate, add_number(g, 7));
    const int z = add_two(g, "Mul", gate, add_number(g, 0.5));
    int t = z;
    if (kind == HT_ACT_GELU_TANH) {
        const int cubic = add_two(g, "Mul", add_two(g, "Mul", gate, gate), add_number(g, 0.044715 * root));
        t = add_two(g, "Mul", add_two(g, "Add", cubic, add_number(g, root)), gate);
    }
    if (kind == HT_ACT_CLAMPED)
        t = add_two(g, "Mul", gate, add_number(g, 0.5 * 1.702));
    const int tanh = add(g, (node){.type = "Tanh", INPUTS(t)});
    return add_two(g, "Add", z, add_two(g, "Mul", z, tanh));
}

/* An FFN, or an expert, of these matrices. */
static int block(ht_ort_graph *g, int x, const ht_npu_matrix *matrices) {
    const ht_activation kind = g->of->op->activation;
    const int last = g->of->n_parts - 1;
    int sums[2] = {-1, -1}, hidden_sums[2] = {-1, -1}, up = -1;
    const int gate = product(g, x, &matrices[0], sums);
    if (last > 1)
        up = product(g, x, &matrices[1], sums);
    int hidden = activate(g, gate, kind);
    if (last > 1 && kind == HT_ACT_CLAMPED) {
        const int below = add_two(g, "Min", up, add_number(g, 7));
        up = add_two(g, "Add", add_two(g, "Max", below, add_number(g, -7)), add_number(g, 1));
    }
    if (last > 1)
        hidden = add_two(g, "Mul", hidden, up);
    return product(g, hidden, &matrices[last], hidden_sums);
}

/* Rows [first, first + g->length) of x. */
static int rows_from(ht_ort_graph *g, int x, size_t first) {
    const int64_t begin[4] = {(int64_t)first}, end[4] = {(int64_t)(first + g->length)}, axis[4] = {1};
    const int from = add_integers(g, 1, begin), to = add_integers(g, 1, end), along = add_integers(g, 1, axis);
    return add(g, (node){.type = "Slice", INPUTS(x, from, to, along)});
}

static int concat(ht_ort_graph *g, int a, int b, int axis) {
    return add(g, (node){.type = "Concat", INPUTS(a, b), ATTRIBUTES(INTEGER("axis", axis))});
}

/* Their results are put together two at a time, as in stack: in rounds, so that no row is copied more often than there
 * are of these. */
static int experts(ht_ort_graph *g, int x) {
    const ht_npu_graph *of = g->of;
    int parts[HT_NPU_EXPERTS];
    size_t n = of->experts;
    for (size_t i = 0; i < n; i++) {
        const int own = n == 1 ? x : rows_from(g, x, i * g->length);
        parts[i] = block(g, own, g->matrices + i * (size_t)of->n_parts);
    }
    for (; n > 1; n = (n + 1) / 2)
        for (size_t i = 0; i < n; i += 2)
            parts[i / 2] = i + 1 < n ? concat(g, parts[i], parts[i + 1], 1) : parts[i];
    return parts[0];
}

static int stack(ht_ort_graph *g, int x) { /* MATMUL */
    int sums[2] = {-1, -1}, all = product(g, x, &g->matrices[0], sums);
    for (int i = 1; i < g->of->n_parts; i++) { /* two at a time: QNN's compiler fails on a Concat of three products */
        const int next = product(g, x, &g->matrices[i], sums);
        all = concat(g, all, next, 2);
    }
    return all;
}

ht_status ht_ort_graph_create(const ht_npu_graph *graph, size_t length, int accuracy, ht_ort_graph **out,
                              ht_error *error) {
    const size_t sets = ht_npu_sets(graph);
    ht_ort_graph *g;
    ht_status status =
        ht_alloc((void **)&g, 1, sizeof *g + sets * SET_NODES * sizeof *g->nodes, graph->op->name, error);
    if (status == HT_OK)
        status = ht_npu_matrices(graph, &g->matrices, error);
    if (status != HT_OK) {
        free(g);
        return status;
    }
    g->of = graph;
    g->length = ht_npu_capacity(graph, length);
    g->rows = ht_npu_rows(graph, length);
    g->accuracy = accuracy;
    const int x = add(g, (node){.type = NULL});
    if (graph->experts) /* what they add last is the result */
        experts(g, x);
    else
        graph->op->kind == HT_OP_FFN ? block(g, x, g->matrices) : stack(g, x);
    *out = g;
    return HT_OK;
}

void ht_ort_graph_destroy(ht_ort_graph *graph) {
    if (graph)
        free(graph->matrices);
    free(graph);
}

size_t ht_ort_graph_bytes(const ht_ort_graph *graph) {
    return graph->bytes;
}

/* ---- the blob ---------------------------------------------------------------------------------------------------- */

#define CHUNK 16 /* rows converted at once */

/* Where a matrix's constants lie in the blob; offsets NULL: it has none. */
typedef struct coded {
    const ht_npu_matrix *matrix;
    uint8_t *codes;
    float *scales, *offsets; /* [rows][groups], [groups][rows] */
} coded;

/* Rows [row, row + n): codes lose their sign, neighbours share a byte with the first one low. */
static void put_rows(const void *place, size_t row, size_t n, const int8_t *codes, const float *scales,
                     const float *offsets) {
    const coded *to = place;
    const ht_npu_matrix *m = to->matrix;
    const size_t groups = m->cols / m->group;
    uint8_t *out = to->codes + row * m->cols * ht_npu_bits(m->element) / 8;
    if (m->element == HT_NPU_I8)
        for (size_t i = 0; i < n * m->cols; i++)
            out[i] = (uint8_t)(codes[i] + 128);
    else
        for (size_t i = 0; i < n * m->cols / 2; i++)
            out[i] = (uint8_t)((codes[2 * i] + 8) | (codes[2 * i + 1] + 8) << 4);
    memcpy(to->scales + row * groups, scales, n * groups * sizeof *scales);
    for (size_t i = 0; i < n && offsets && to->offsets; i++)
        for (size_t k = 0; k < groups; k++)
            to->offsets[k * m->rows + row + i] = offsets[i * groups + k];
}

/* Transposed: out [cols][rows]. */
static ht_status fill_floats(const ht_npu_matrix *m, float *out, ht_error *error) {
    float *lines;
    ht_status status = ht_alloc((void **)&lines, CHUNK * m->cols, sizeof *lines, m->op->name, error);
    for (size_t row = 0; row < m->rows && status == HT_OK; row += CHUNK) {
        const size_t n = ht_min_size(CHUNK, m->rows - row);
        status = ht_npu_floats(m, row, n, lines, error);
        for (size_t c = 0; c < m->cols && status == HT_OK; c++)
            for (size_t i = 0; i < n; i++)
                out[c * m->rows + row + i] = lines[i * m->cols + c];
    }
    free(lines);
    return status;
}

/* Codes of node i, with its scales and offsets, which follow it. */
static ht_status fill_matrix(const ht_ort_graph *g, int i, uint8_t *out, ht_error *error) {
    coded to = {.matrix = g->nodes[i].matrix, .codes = out + g->nodes[i].offset};
    for (int j = i + 1; j < g->n; j++) {
        float *at = (float *)(void *)(out + g->nodes[j].offset);
        if (g->nodes[j].matrix == to.matrix && g->nodes[j].constant == SCALES)
            to.scales = at;
        else if (g->nodes[j].matrix == to.matrix && g->nodes[j].constant == OFFSETS)
            to.offsets = at;
    }
    return ht_npu_put_codes(to.matrix, put_rows, &to, error);
}

ht_status ht_ort_graph_fill(const ht_ort_graph *g, uint8_t *out, ht_error *error) {
    ht_status status = HT_OK;
    for (int i = 0; i < g->n && status == HT_OK; i++) {
        const node *n = &g->nodes[i];
        uint8_t *at = out + n->offset;
        if (n->constant == CODES)
            status = fill_matrix(g, i, out, error);
        else if (n->constant == FLOATS)
            status = fill_floats(n->matrix, (float *)(void *)at, error);
        else if (n->constant == BIAS)
            ht_npu_bias(n->matrix, (float *)(void *)at);
    }
    return status;
}

/* ---- the model --------------------------------------------------------------------------------------------------- */

ht_status ht_ort_check(const ht_ort *ort, OrtStatus *failed, const char *device, const char *call, ht_error *error) {
    if (!failed)
        return HT_OK;
    char text[400];
    snprintf(text, sizeof text, "%s", ort->GetErrorMessage(failed));
    ort->ReleaseStatus(failed);
    for (char *p = text; *p; p++)
        if (*p == '\n')
            *p = ' ';
    return ht_fail(error, HT_ERROR_DEVICE, "%s: %s failed: %s", device, call, text);
}

/* What is being made; who owns each piece once it is handed over is ONNX Runtime. */
typedef struct maker {
    const ht_ort *ort;
    const ht_ort_graph *g;
    const char *name; /* for errors */
    OrtGraph *graph;
    uint8_t *blob;
    ht_error *error;
} maker;

#define TRY(m, call, ...) ht_ort_check((m)->ort, (m)->ort->call(__VA_ARGS__), (m)->name, #call, (m)->error)

static void value_name(const ht_ort_graph *g, int i, char name[16]) {
    snprintf(name, 16, i == 0 ? HT_ORT_INPUT : i == g->n - 1 ? HT_ORT_OUTPUT : "v%d", i);
}

/* Declares the graph's input or output. */
static ht_status add_port(const maker *m, bool output) {
    const int64_t dims[] = {1, (int64_t)m->g->rows, (int64_t)(output ? m->g->of->rows : m->g->of->cols)};
    OrtTensorTypeAndShapeInfo *shape = NULL;
    OrtTypeInfo *type = NULL;
    OrtValueInfo *value = NULL;
    ht_status status = TRY(m, CreateTensorTypeAndShapeInfo, &shape);
    if (status == HT_OK)
        status = TRY(m, SetTensorElementType, shape, HT_ORT_F32);
    if (status == HT_OK)
        status = TRY(m, SetDimensions, shape, dims, HT_COUNT(dims));
    if (status == HT_OK)
        status = TRY(m, CreateTensorTypeInfo, shape, &type);
    if (status == HT_OK)
        status = TRY(m, CreateValueInfo, output ? HT_ORT_OUTPUT : HT_ORT_INPUT, type, &value);
    if (status == HT_OK) /* takes the value */
        status = output ? TRY(m, SetGraphOutputs, m->graph, &value, 1) : TRY(m, SetGraphInputs, m->graph, &value, 1);
    if (type)
        m->ort->ReleaseTypeInfo(type);
    if (shape)
        m->ort->ReleaseTensorTypeAndShapeInfo(shape);
    return status;
}

#define LEAST_EXTERNAL 128 /* bytes: smaller tensors must be ONNX Runtime's own, and integers and numbers are */

static ht_status add_initializer(const maker *m, int i) {
    const node *n = &m->g->nodes[i];
    const bool external = n->bytes >= LEAST_EXTERNAL;
    const void *from = in_blob(n)              ? (const void *)(m->blob + n->offset)
                       : n->constant == NUMBER ? (const void *)&n->number
                                               : n->integers;
    char name[16];
    OrtValue *value = NULL;
    void *data;
    ht_status status = external ? TRY(m, CreateTensorWithDataAsOrtValue, m->ort->host, m->blob + n->offset, n->bytes,
                                      n->dims, (size_t)n->n_dims, (ONNXTensorElementDataType)n->element, &value)
                                : TRY(m, CreateTensorAsOrtValue, m->ort->allocator, n->dims, (size_t)n->n_dims,
                                      (ONNXTensorElementDataType)n->element, &value);
    if (status == HT_OK && !external) {
        status = TRY(m, GetTensorMutableData, value, &data);
        if (status == HT_OK)
            memcpy(data, from, n->bytes);
    }
    value_name(m->g, i, name);
    if (status == HT_OK) /* takes the value */
        return TRY(m, AddInitializerToGraph, m->graph, name, value, external);
    if (value)
        m->ort->ReleaseValue(value);
    return status;
}

static ht_status add_operator(const maker *m, int i) {
    const node *n = &m->g->nodes[i];
    OrtOpAttr *attributes[MAX_ATTRIBUTES] = {NULL};
    ht_status status = HT_OK;
    for (int k = 0; k < n->n_attributes && status == HT_OK; k++) {
        const attribute *a = &n->attributes[k];
        status = TRY(m, CreateOpAttr, a->name, &a->integer, 1, HT_ORT_ATTRIBUTE_INT, &attributes[k]);
    }
    char names[MAX_INPUTS][16], name[16];
    const char *inputs[MAX_INPUTS], *output = name;
    value_name(m->g, i, name);
    for (int k = 0; k < n->n_inputs; k++)
        value_name(m->g, n->inputs[k], names[k]), inputs[k] = names[k];
    OrtNode *made = NULL;
    if (status == HT_OK) /* takes the attributes: each is NULL afterwards */
        status = TRY(m, CreateNode, n->type, n->domain ? n->domain : "", name, inputs, (size_t)n->n_inputs, &output, 1,
                     attributes, (size_t)n->n_attributes, &made);
    for (int k = 0; k < n->n_attributes; k++)
        if (attributes[k])
            m->ort->ReleaseOpAttr(attributes[k]);
    return status == HT_OK ? TRY(m, AddNodeToGraph, m->graph, made) : status;
}

ht_status ht_ort_graph_model(const ht_ort_graph *g, const ht_ort *ort, uint8_t *blob, OrtModel **model,
                             ht_error *error) {
    static const char *const domains[] = {"", MICROSOFT};
    static const int versions[] = {21, 1};
    maker m = {.ort = ort, .g = g, .name = g->of->op->name, .blob = blob, .error = error};
    *model = NULL;
    ht_status status = TRY(&m, CreateGraph, &m.graph);
    for (int output = 0; output < 2 && status == HT_OK; output++)
        status = add_port(&m, output);
    for (int i = 1; i < g->n && status == HT_OK; i++)
        status = g->nodes[i].constant ? add_initializer(&m, i) : add_operator(&m, i);
    if (status == HT_OK)
        status = TRY(&m, CreateModel, domains, versions, HT_COUNT(domains), model);
    if (status == HT_OK) {
        status = TRY(&m, AddGraphToModel, *model, m.graph); /* takes the graph */
        m.graph = NULL;
    }
    if (m.graph)
        ort->ReleaseGraph(m.graph);
    if (status != HT_OK && *model) {
        ort->ReleaseModel(*model);
        *model = NULL;
    }
    return status;
}
