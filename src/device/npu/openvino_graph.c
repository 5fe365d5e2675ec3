/* Weights stay compressed: Const i4 or i8 [rows, groups, size] -> Convert -> Multiply(scale) -> Reshape -> Convert ->
 * MatMul is the pattern that OpenVINO's plugins fuse. Offsets are a second, 32 times smaller MatMul of the activations'
 * group sums. Gate and up of an FFN are two MatMuls of one input: quicker than one whose result is split.
 *
 * Experts have MatMuls each, between a Split of the rows and a Concat: plugins fuse compressed weights of two
 * dimensions only, and as floats, which one batched MatMul would need, they are eight times as large. A Split says
 * nowhere how many rows each has: constants, which all lengths share, must not depend on the length. */
#include "device/npu/openvino_graph.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum constant_kind { NO_CONSTANT, CODES, SCALES, OFFSETS, BIAS, FLOATS, INTEGERS, NUMBER } constant_kind;

typedef struct node {
    const char *type, *opset; /* operator; "opset1" unless said. NULL: it only stands for one of its input's results */
    const char *element;      /* its result's type, "f32" */
    size_t dims[3];
    int n_dims;
    int inputs[HT_NPU_EXPERTS], n_inputs; /* other nodes */
    int n_results, result;                /* of a Split: how many; of what stands for one: which. Others: 0 */
    const char *attributes;               /* of <data>, or NULL */
    constant_kind constant;
    const ht_npu_matrix *matrix; /* whose constant it is */
    int64_t integers[3];
    float number;
    size_t offset, bytes; /* a constant's place in the blob */
} node;

#define SET_NODES 80 /* more than one set of matrices has: three parts with offsets and biases */
struct ht_ov_graph {
    const ht_npu_graph *of;
    size_t length, bytes; /* length: rows that one set of matrices computes */
    bool half;
    ht_npu_matrix *matrices; /* [sets][n_parts] */
    char num_splits[24];     /* the Split's attribute */
    int n;
    node nodes[]; /* [SET_NODES] for each set */
};

/* ---- nodes
 * --------------------------------------------------------------------------------------------------------------- */

static int add(ht_ov_graph *g, node n) {
    if (n.constant) {
        n.type = "Const";
        n.offset = g->bytes;
        g->bytes = ht_round_up(g->bytes + n.bytes, 64);
    }
    g->nodes[g->n] = n;
    return g->n++;
}

#define DIMS(...) .dims = {__VA_ARGS__}, .n_dims = (int)HT_COUNT(((size_t[]){__VA_ARGS__}))
#define INPUTS(...) .inputs = {__VA_ARGS__}, .n_inputs = (int)HT_COUNT(((int[]){__VA_ARGS__}))
#define NUMPY "auto_broadcast=\"numpy\""
#define AS_IT_SAYS "special_zero=\"false\""

static int add_integers(ht_ov_graph *g, int n, int64_t a, int64_t b, int64_t c) {
    return add(g, (node){.constant = INTEGERS,
                         .element = "i64",
                         DIMS((size_t)n),
                         .integers = {a, b, c},
                         .bytes = (size_t)n * sizeof a});
}

static int add_scalar(ht_ov_graph *g, int64_t integer) {
    return add(g, (node){.constant = INTEGERS, .element = "i64", .integers = {integer}, .bytes = sizeof integer});
}

static int add_number(ht_ov_graph *g, double number) {
    return add(
        g, (node){.constant = NUMBER, .element = "f32", DIMS(1, 1), .number = (float)number, .bytes = sizeof(float)});
}

static int convert(ht_ov_graph *g, int from, const char *element, const char *attributes) {
    node n = g->nodes[from];
    return add(g, (node){.type = "Convert",
                         .element = element,
                         .attributes = attributes,
                         .dims = {n.dims[0], n.dims[1], n.dims[2]},
                         .n_dims = n.n_dims,
                         INPUTS(from)});
}

/* A scale that fp16 holds exactly may be kept in it; K formats' products of two levels are not. */
static bool half_scales(const ht_ov_graph *g, const ht_npu_matrix *m) {
    for (int i = 0; i < m->op->n_parts && g->half; i++) {
        const ht_type type = m->op->parts[i].type->type;
        if (type != HT_TYPE_Q4_0 && type != HT_TYPE_Q4_1 && type != HT_TYPE_Q8_0 && type != HT_TYPE_Q5_0 &&
            type != HT_TYPE_Q5_1 && type != HT_TYPE_IQ4_NL)
            return false;
    }
    return g->half;
}

#define TO_F16 "destination_type=\"f16\""
#define TO_F32 "destination_type=\"f32\""

/* The matrix as float32 [rows, cols]. */
static int weights(ht_ov_graph *g, const ht_npu_matrix *m) {
    const size_t rows = m->rows, cols = m->cols;
    if (!m->group) {
        static const char *const elements[] = {"", "", "f16", "bf16", "f32"};
        const int floats = add(g, (node){.constant = FLOATS,
                                         .matrix = m,
                                         .element = elements[m->element],
                                         DIMS(rows, cols),
                                         .bytes = rows * cols * ht_npu_bits(m->element) / 8});
        return m->element == HT_NPU_F32 ? floats : convert(g, floats, "f32", TO_F32);
    }
    const size_t groups = cols / m->group;
    const bool half = half_scales(g, m);
    const char *element = half ? "f16" : "f32";
    const int codes = add(g, (node){.constant = CODES,
                                    .matrix = m,
                                    .element = m->element == HT_NPU_I4 ? "i4" : "i8",
                                    DIMS(rows, groups, m->group),
                                    .bytes = rows * cols * ht_npu_bits(m->element) / 8});
    const int wide = convert(g, codes, element, half ? TO_F16 : TO_F32);
    const int scales = add(g, (node){.constant = SCALES,
                                     .matrix = m,
                                     .element = element,
                                     DIMS(rows, groups, 1),
                                     .bytes = rows * groups * (half ? 2 : 4)});
    const int product = add(g, (node){.type = "Multiply",
                                      .element = element,
                                      .attributes = NUMPY,
                                      DIMS(rows, groups, m->group),
                                      INPUTS(wide, scales)});
    const int shape = add_integers(g, 2, (int64_t)rows, (int64_t)cols, 0);
    const int flat = add(
        g,
        (node){
            .type = "Reshape", .element = element, .attributes = AS_IT_SAYS, DIMS(rows, cols), INPUTS(product, shape)});
    return half ? convert(g, flat, "f32", TO_F32) : flat;
}

#define ROWS_BY_COLS "transpose_a=\"false\" transpose_b=\"true\""

/* x [length, cols] by w [rows, cols] -> [length, rows], in the graph's operand order. */
static int multiply(ht_ov_graph *g, int x, int w) {
    const size_t rows = g->nodes[w].dims[0];
    if (!g->of->weights_first)
        return add(
            g,
            (node){
                .type = "MatMul", .element = "f32", .attributes = ROWS_BY_COLS, DIMS(g->length, rows), INPUTS(x, w)});
    const int turned = add(
        g, (node){.type = "MatMul", .element = "f32", .attributes = ROWS_BY_COLS, DIMS(rows, g->length), INPUTS(w, x)});
    const int order = add_integers(g, 2, 1, 0, 0);
    return add(g, (node){.type = "Transpose", .element = "f32", DIMS(g->length, rows), INPUTS(turned, order)});
}

/* Of two values of a's shape, or which b is stretched to. */
static int two(ht_ov_graph *g, const char *type, int a, int b) {
    return add(
        g,
        (node){
            .type = type, .element = "f32", .attributes = NUMPY, DIMS(g->length, g->nodes[a].dims[1]), INPUTS(a, b)});
}

static int plus(ht_ov_graph *g, int a, int b) {
    return two(g, "Add", a, b);
}

/* Of one, with attributes and opset, or NULL. */
static int one(ht_ov_graph *g, const char *type, const char *opset, const char *attributes, int a) {
    return add(g, (node){.type = type,
                         .opset = opset,
                         .element = "f32",
                         .attributes = attributes,
                         DIMS(g->length, g->nodes[a].dims[1]),
                         INPUTS(a)});
}

/* x [length, cols] by one matrix -> [length, rows]. all_sums: x's group sums for groups of 32 and of 16, made when first
 * needed (-1: not yet) and shared by the matrices that multiply x. */
static int product(ht_ov_graph *g, int x, const ht_npu_matrix *m, int all_sums[2]) {
    int *sums = &all_sums[m->group == 16];
    int y = multiply(g, x, weights(g, m));
    if (m->offset) {
        const size_t groups = m->cols / m->group;
        if (*sums < 0) {
            const int shape = add_integers(g, 3, -1, (int64_t)groups, (int64_t)m->group);
            const int cut = add(g, (node){.type = "Reshape",
                                          .element = "f32",
                                          .attributes = AS_IT_SAYS,
                                          DIMS(g->length, groups, m->group),
                                          INPUTS(x, shape)});
            const int axis = add_integers(g, 1, 2, 0, 0);
            *sums = add(g, (node){.type = "ReduceSum",
                                  .element = "f32",
                                  .attributes = "keep_dims=\"false\"",
                                  DIMS(g->length, groups),
                                  INPUTS(cut, axis)});
        }
        const int offsets = add(g, (node){.constant = OFFSETS,
                                          .matrix = m,
                                          .element = "f32",
                                          DIMS(m->rows, groups),
                                          .bytes = m->rows * groups * sizeof(float)});
        y = plus(g, y, multiply(g, *sums, offsets));
    }
    if (m->bias)
        y = plus(g, y,
                 add(g, (node){.constant = BIAS,
                               .matrix = m,
                               .element = "f32",
                               DIMS(1, m->rows),
                               .bytes = m->rows * sizeof(float)}));
    return y;
}

static int activate(ht_ov_graph *g, int gate) {
    int act;
    switch (g->of->op->activation) {
    case HT_ACT_RELU2:
        act = one(g, "ReLU", NULL, NULL, gate);
        return two(g, "Multiply", act, act);
    case HT_ACT_CLAMPED:
        gate = two(g, "Minimum", gate, add_number(g, 7));
        act = one(g, "Sigmoid", NULL, NULL, two(g, "Multiply", gate, add_number(g, 1.702)));
        return two(g, "Multiply", gate, act);
    case HT_ACT_GELU_TANH:
        return one(g, "Gelu", "opset7", "approximation_mode=\"TANH\"", gate);
    default:
        return one(g, "Swish", "opset4", NULL, gate);
    }
}

/* An FFN, or an expert, of these matrices. */
static int block(ht_ov_graph *g, int x, const ht_npu_matrix *matrices) {
    int sums[2] = {-1, -1}, hidden_sums[2] = {-1, -1};
    const int last = g->of->n_parts - 1, gate = product(g, x, &matrices[0], sums);
    int hidden, up = -1;
    if (last > 1)
        up = product(g, x, &matrices[1], sums);
    hidden = activate(g, gate);
    if (last > 1 && g->of->op->activation == HT_ACT_CLAMPED)
        up = plus(g, one(g, "Clamp", NULL, "min=\"-7\" max=\"7\"", up), add_number(g, 1));
    if (last > 1)
        hidden = two(g, "Multiply", hidden, up);
    return product(g, hidden, &matrices[last], hidden_sums);
}

/* x into as many runs of rows as there are experts. */
static int split(ht_ov_graph *g, int x) {
    const int axis = add_scalar(g, 0);
    snprintf(g->num_splits, sizeof g->num_splits, "num_splits=\"%zu\"", g->of->experts);
    return add(g, (node){.type = "Split",
                         .element = "f32",
                         .attributes = g->num_splits,
                         DIMS(g->length, g->of->cols),
                         INPUTS(x, axis),
                         .n_results = (int)g->of->experts});
}

static int experts(ht_ov_graph *g, int x) {
    const ht_npu_graph *of = g->of;
    if (of->experts == 1)
        return block(g, x, g->matrices);
    node all = {
        .type = "Concat", .element = "f32", .attributes = "axis=\"0\"", DIMS(of->experts * g->length, of->rows)};
    const int runs = split(g, x);
    for (int i = 0; i < (int)of->experts; i++) {
        const int own = add(g, (node){.element = "f32", DIMS(g->length, of->cols), INPUTS(runs), .result = i});
        all.inputs[all.n_inputs++] = block(g, own, g->matrices + i * of->n_parts);
    }
    return add(g, all);
}

static int stack(ht_ov_graph *g, int x) { /* MATMUL */
    const ht_npu_graph *of = g->of;
    int sums[2] = {-1, -1};
    node all = {.type = "Concat", .element = "f32", .attributes = "axis=\"1\"", DIMS(g->length, of->rows)};
    for (int i = 0; i < of->n_parts; i++)
        all.inputs[all.n_inputs++] = product(g, x, &g->matrices[i], sums);
    return of->n_parts == 1 ? all.inputs[0] : add(g, all);
}

ht_status ht_ov_graph_create(const ht_npu_graph *graph, size_t length, bool half, ht_ov_graph **out, ht_error *error) {
    const size_t sets = ht_npu_sets(graph), rows = ht_npu_rows(graph, length);
    ht_ov_graph *g;
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
    g->half = half;
    const int x = add(g, (node){.type = "Parameter", .element = "f32", DIMS(rows, graph->cols)});
    const int y = graph->experts                 ? experts(g, x)
                  : graph->op->kind == HT_OP_FFN ? block(g, x, g->matrices)
                                                 : stack(g, x);
    add(g, (node){.type = "Result", .element = "f32", DIMS(rows, graph->rows), INPUTS(y)});
    *out = g;
    return HT_OK;
}

void ht_ov_graph_destroy(ht_ov_graph *graph) {
    if (graph)
        free(graph->matrices);
    free(graph);
}

size_t ht_ov_graph_bytes(const ht_ov_graph *graph) {
    return graph->bytes;
}

/* ---- the blob
 * --------------------------------------------------------------------------------------------------------------- */

/* Codes, scales and offsets of rows [row, row + n) go to their constants, whose places are given (NULL: none). */
typedef struct coded {
    const ht_npu_matrix *matrix;
    uint8_t *codes;
    void *scales;
    float *offsets;
    bool half;
} coded;

static void put_rows(const void *place, size_t row, size_t n, const int8_t *codes, const float *scales,
                     const float *offsets) {
    const coded *to = place;
    const ht_npu_matrix *m = to->matrix;
    const size_t groups = m->cols / m->group;
    if (m->element == HT_NPU_I8)
        memcpy(to->codes + row * m->cols, codes, n * m->cols);
    else /* neighbours share a byte, the first one low */
        for (size_t i = 0; i < n * m->cols / 2; i++)
            to->codes[row * m->cols / 2 + i] = (uint8_t)((codes[2 * i] & 15) | (codes[2 * i + 1] & 15) << 4);
    if (!to->half)
        memcpy((float *)to->scales + row * groups, scales, n * groups * sizeof *scales);
    else
        for (size_t i = 0; i < n * groups; i++)
            ((uint16_t *)to->scales)[row * groups + i] = ht_f32_to_f16(scales[i]);
    if (offsets && to->offsets)
        memcpy(to->offsets + row * groups, offsets, n * groups * sizeof *offsets);
}

/* The file's own 16-bit floats would do, but for column ranges and made-up weights; both round trips are exact. */
static ht_status fill_floats(const ht_npu_matrix *m, uint8_t *out, ht_error *error) {
    float *line;
    ht_status status = ht_alloc((void **)&line, m->cols, sizeof *line, m->op->name, error);
    const ht_type types[] = {HT_TYPE_F32, HT_TYPE_F32, HT_TYPE_F16, HT_TYPE_BF16, HT_TYPE_F32};
    for (size_t row = 0; row < m->rows && status == HT_OK; row++) {
        status = ht_npu_floats(m, row, 1, line, error);
        if (status == HT_OK)
            ht_encode_row(types[m->element], line, NULL, m->cols, out + row * m->cols * ht_npu_bits(m->element) / 8);
    }
    free(line);
    return status;
}

ht_status ht_ov_graph_fill(const ht_ov_graph *g, uint8_t *out, ht_error *error) {
    ht_status status = HT_OK;
    for (int i = 0; i < g->n && status == HT_OK; i++) {
        const node *n = &g->nodes[i];
        coded to = {.matrix = n->matrix, .codes = out + n->offset, .scales = out}; /* scales are always found */
        switch (n->constant) {
        case CODES: /* its scales and offsets come with it, and follow it */
            for (int j = i + 1; j < g->n; j++) {
                if (g->nodes[j].matrix != n->matrix)
                    continue;
                if (g->nodes[j].constant == SCALES)
                    to.scales = out + g->nodes[j].offset, to.half = strcmp(g->nodes[j].element, "f16") == 0;
                else if (g->nodes[j].constant == OFFSETS)
                    to.offsets = (float *)(void *)(out + g->nodes[j].offset);
            }
            status = ht_npu_put_codes(n->matrix, put_rows, &to, error);
            break;
        case FLOATS:
            status = fill_floats(n->matrix, out + n->offset, error);
            break;
        case BIAS:
            ht_npu_bias(n->matrix, (float *)(void *)(out + n->offset));
            break;
        case INTEGERS:
            memcpy(out + n->offset, n->integers, n->bytes);
            break;
        case NUMBER:
            memcpy(out + n->offset, &n->number, n->bytes);
            break;
        default:
            break;
        }
    }
    return status;
}

/* ---- the text
 * --------------------------------------------------------------------------------------------------------------- */

static ht_status write_port(ht_text *xml, int id, const node *n, bool output, ht_error *error) {
    static const char *const precisions[][2] = {{"f32", "FP32"}, {"f16", "FP16"}, {"bf16", "BF16"},
                                                {"i4", "I4"},    {"i8", "I8"},    {"i64", "I64"}};
    const char *precision = "";
    for (size_t i = 0; i < HT_COUNT(precisions); i++)
        if (strcmp(precisions[i][0], n->element) == 0)
            precision = precisions[i][1];
    ht_status status =
        ht_text_printf(xml, error, output ? "<port id=\"%d\" precision=\"%s\">" : "<port id=\"%d\">", id, precision);
    for (int i = 0; i < n->n_dims && status == HT_OK; i++)
        status = ht_text_printf(xml, error, "<dim>%zu</dim>", n->dims[i]);
    return status == HT_OK ? ht_text_printf(xml, error, "</port>") : status;
}

static ht_status write_data(ht_text *xml, const node *n, ht_error *error) {
    if (!n->constant && strcmp(n->type, "Parameter") != 0)
        return n->attributes ? ht_text_printf(xml, error, "<data %s/>", n->attributes) : HT_OK;
    char shape[80] = "";
    for (int i = 0, at = 0; i < n->n_dims; i++)
        at += snprintf(shape + at, sizeof shape - (size_t)at, "%s%zu", i ? "," : "", n->dims[i]);
    ht_status status = ht_text_printf(xml, error, "<data element_type=\"%s\" shape=\"%s\"", n->element, shape);
    if (status == HT_OK && n->constant)
        status = ht_text_printf(xml, error, " offset=\"%zu\" size=\"%zu\"", n->offset, n->bytes);
    return status == HT_OK ? ht_text_printf(xml, error, "/>") : status;
}

static ht_status write_node(ht_text *xml, const node *nodes, int id, ht_error *error) {
    const node *n = &nodes[id];
    ht_status status = ht_text_printf(xml, error, "<layer id=\"%d\" name=\"%s%d\" type=\"%s\" version=\"%s\">", id,
                                      n->type, id, n->type, n->opset ? n->opset : "opset1");
    if (status == HT_OK)
        status = write_data(xml, n, error);
    if (status == HT_OK && n->n_inputs)
        status = ht_text_printf(xml, error, "<input>");
    for (int i = 0; i < n->n_inputs && status == HT_OK; i++)
        status = write_port(xml, i, &nodes[n->inputs[i]], false, error);
    if (status == HT_OK && n->n_inputs)
        status = ht_text_printf(xml, error, "</input>");
    if (status == HT_OK && strcmp(n->type, "Result") != 0) {
        status = ht_text_printf(xml, error, "<output>");
        for (int i = 0; i < (n->n_results ? n->n_results : 1) && status == HT_OK; i++)
            status = write_port(xml, n->n_inputs + i, n, true, error);
        if (status == HT_OK)
            status = ht_text_printf(xml, error, "</output>");
    }
    return status == HT_OK ? ht_text_printf(xml, error, "</layer>") : status;
}

/* From whichever node has the result that `from` is or stands for. */
static ht_status write_edge(ht_text *xml, const node *nodes, int from, int to, int to_port, ht_error *error) {
    const int layer = nodes[from].type ? from : nodes[from].inputs[0];
    return ht_text_printf(xml, error, "<edge from-layer=\"%d\" from-port=\"%d\" to-layer=\"%d\" to-port=\"%d\"/>",
                          layer, nodes[layer].n_inputs + nodes[from].result, to, to_port);
}

ht_status ht_ov_graph_write(const ht_ov_graph *g, ht_text *xml, ht_error *error) {
    ht_status status =
        ht_text_printf(xml, error, "<?xml version=\"1.0\"?><net name=\"hetero\" version=\"11\"><layers>");
    for (int i = 0; i < g->n && status == HT_OK; i++)
        if (g->nodes[i].type)
            status = write_node(xml, g->nodes, i, error);
    if (status == HT_OK)
        status = ht_text_printf(xml, error, "</layers><edges>");
    for (int i = 0; i < g->n; i++)
        for (int j = 0; j < g->nodes[i].n_inputs && g->nodes[i].type && status == HT_OK; j++)
            status = write_edge(xml, g->nodes, g->nodes[i].inputs[j], i, j, error);
    return status == HT_OK ? ht_text_printf(xml, error, "</edges></net>") : status;
}
