/* Weights stay compressed: Const i4 or i8 [rows, groups, 32] -> Convert -> Multiply(scale f16) -> Reshape -> Convert ->
 * MatMul is the pattern that OpenVINO's plugins fuse. Offsets are a second, 32 times smaller MatMul of the activations'
 * group sums. */
#include "device/npu/openvino_graph.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the graph's blob -------------------------------------------------------------------------------------------- */

/* Integer constants at `shapes`: {rows, cols}, {length, groups, 32}, {2}. */
#define SHAPES_BYTES (6 * sizeof(int64_t))

ht_ov_blob ht_ov_lay_out(const ht_npu_graph *graph) {
    size_t groups = graph->cols / HT_GROUP, at = 0;
    ht_ov_blob b = {.codes_bytes = graph->rows * graph->cols * (size_t)graph->form.bits / 8,
                    .scales_bytes = graph->rows * groups * sizeof(uint16_t),
                    .offsets_bytes = graph->form.offset ? graph->rows * groups * sizeof(float) : 0,
                    .bias_bytes = graph->form.bias ? graph->rows * sizeof(float) : 0};
    const struct {
        size_t *place, bytes;
    } pieces[] = {{&b.codes, b.codes_bytes},
                  {&b.scales, b.scales_bytes},
                  {&b.offsets, b.offsets_bytes},
                  {&b.bias, b.bias_bytes},
                  {&b.shapes, SHAPES_BYTES}};
    for (size_t i = 0; i < HT_COUNT(pieces); i++) {
        *pieces[i].place = at;
        at = ht_round_up(at + pieces[i].bytes, 64);
    }
    b.bytes = at;
    return b;
}

#define CHUNK 16 /* rows converted at once */

ht_status ht_ov_fill(const ht_npu_graph *graph, size_t length, const ht_ov_blob *b, uint8_t *out, ht_error *error) {
    size_t cols = graph->cols, groups = cols / HT_GROUP;
    int8_t *codes;
    ht_status status = ht_alloc((void **)&codes, CHUNK * (cols + groups * sizeof(float)), 1, graph->op->name, error);
    if (status != HT_OK)
        return status;
    float *scales = (float *)(codes + CHUNK * cols), *offsets = b->offsets_bytes ? (float *)(out + b->offsets) : NULL;
    for (size_t row = 0; row < graph->rows && status == HT_OK; row += CHUNK) {
        size_t n = ht_min_size(CHUNK, graph->rows - row);
        ht_op_codes(graph->op, graph->row_begin + row, n, codes, scales, offsets ? offsets + row * groups : NULL);
        if (graph->form.bits == 8)
            memcpy(out + b->codes + row * cols, codes, n * cols);
        else /* neighbours share a byte, the first one low */
            for (size_t i = 0; i < n * cols / 2; i++)
                out[b->codes + row * cols / 2 + i] = (uint8_t)((codes[2 * i] & 15) | (codes[2 * i + 1] & 15) << 4);
        uint16_t *to = (uint16_t *)(out + b->scales) + row * groups;
        for (size_t i = 0; i < n * groups; i++) {
            if (!(fabsf(scales[i]) <= 65504))
                status = ht_fail(error, HT_ERROR_UNSUPPORTED, "%s: a scale of %g does not fit fp16", graph->op->name,
                                 (double)scales[i]);
            to[i] = ht_f32_to_f16(scales[i]);
        }
    }
    if (b->bias_bytes)
        ht_op_bias(graph->op, graph->row_begin, graph->rows, (float *)(out + b->bias));
    const int64_t shapes[] = {(int64_t)graph->rows, (int64_t)cols, (int64_t)length, (int64_t)groups, HT_GROUP, 2};
    memcpy(out + b->shapes, shapes, sizeof shapes);
    free(codes);
    return status;
}

/* ---- the graph's text -------------------------------------------------------------------------------------------- */

typedef struct node {
    const char *type, *element; /* operator; its result's type, "f32" */
    size_t dims[3];
    int n_dims;
    int inputs[2], n_inputs; /* other nodes */
    const char *attributes;  /* of <data>, or NULL */
    size_t offset, bytes;    /* a constant's place in the blob; bytes 0: none */
} node;

static ht_status write_port(ht_text *xml, int id, const node *n, bool output, ht_error *error) {
    static const char *const precisions[][2] = {
        {"f32", "FP32"}, {"f16", "FP16"}, {"i4", "I4"}, {"i8", "I8"}, {"i64", "I64"}};
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

static ht_status write_node(ht_text *xml, const node *nodes, int id, ht_error *error) {
    const node *n = &nodes[id];
    ht_status status = ht_text_printf(xml, error, "<layer id=\"%d\" name=\"%s%d\" type=\"%s\" version=\"opset1\">", id,
                                      n->type, id, n->type);
    if (status == HT_OK && (n->bytes || strcmp(n->type, "Parameter") == 0)) {
        char shape[80] = "";
        for (int i = 0, at = 0; i < n->n_dims; i++)
            at += snprintf(shape + at, sizeof shape - (size_t)at, "%s%zu", i ? "," : "", n->dims[i]);
        status = ht_text_printf(xml, error, "<data element_type=\"%s\" shape=\"%s\"", n->element, shape);
        if (status == HT_OK && n->bytes)
            status = ht_text_printf(xml, error, " offset=\"%zu\" size=\"%zu\"", n->offset, n->bytes);
        if (status == HT_OK)
            status = ht_text_printf(xml, error, "/>");
    } else if (status == HT_OK && n->attributes) {
        status = ht_text_printf(xml, error, "<data %s/>", n->attributes);
    }
    if (status == HT_OK && n->n_inputs)
        status = ht_text_printf(xml, error, "<input>");
    for (int i = 0; i < n->n_inputs && status == HT_OK; i++)
        status = write_port(xml, i, &nodes[n->inputs[i]], false, error);
    if (status == HT_OK && n->n_inputs)
        status = ht_text_printf(xml, error, "</input>");
    if (status == HT_OK && strcmp(n->type, "Result") != 0) {
        status = ht_text_printf(xml, error, "<output>");
        if (status == HT_OK)
            status = write_port(xml, n->n_inputs, n, true, error);
        if (status == HT_OK)
            status = ht_text_printf(xml, error, "</output>");
    }
    return status == HT_OK ? ht_text_printf(xml, error, "</layer>") : status;
}

#define DIMS(...) .dims = {__VA_ARGS__}, .n_dims = (int)HT_COUNT(((size_t[]){__VA_ARGS__}))
#define CONSTANT(element_, offset_, bytes_, ...) \
    { .type = "Const", .element = element_, .offset = offset_, .bytes = bytes_, DIMS(__VA_ARGS__) }
#define UNARY(type_, element_, a, attributes_, ...) \
    { .type = type_, .element = element_, .inputs = {a}, .n_inputs = 1, .attributes = attributes_, DIMS(__VA_ARGS__) }
#define BINARY(type_, element_, a, b, attributes_, ...)                                                 \
    {                                                                                                   \
        .type = type_, .element = element_, .inputs = {a, b}, .n_inputs = 2, .attributes = attributes_, \
        DIMS(__VA_ARGS__)                                                                               \
    }
#define NUMPY "auto_broadcast=\"numpy\""
#define AS_IT_SAYS "special_zero=\"false\""
#define ROWS_BY_COLS "transpose_a=\"false\" transpose_b=\"true\""
#define MAX_NODES 20

/* The nodes of a graph at one length; returns how many. */
static int describe_graph(const ht_npu_graph *graph, size_t length, const ht_ov_blob *b, node *nodes) {
    const size_t rows = graph->rows, cols = graph->cols, groups = cols / HT_GROUP, word = sizeof(int64_t);
    const node weights[] = {
        /* 0 */ {.type = "Parameter", .element = "f32", DIMS(length, cols)},
        /* 1 */ CONSTANT(graph->form.bits == 4 ? "i4" : "i8", b->codes, b->codes_bytes, rows, groups, HT_GROUP),
        /* 2 */ UNARY("Convert", "f16", 1, "destination_type=\"f16\"", rows, groups, HT_GROUP),
        /* 3 */ CONSTANT("f16", b->scales, b->scales_bytes, rows, groups, 1),
        /* 4 */ BINARY("Multiply", "f16", 2, 3, NUMPY, rows, groups, HT_GROUP),
        /* 5 */ CONSTANT("i64", b->shapes, 2 * word, 2),
        /* 6 */ BINARY("Reshape", "f16", 4, 5, AS_IT_SAYS, rows, cols),
        /* 7 */ UNARY("Convert", "f32", 6, "destination_type=\"f32\"", rows, cols),
        /* 8 */ BINARY("MatMul", "f32", 0, 7, ROWS_BY_COLS, length, rows)};
    const node offsets[] = {/* 9 */ CONSTANT("i64", b->shapes + 2 * word, 3 * word, 3),
                            /* 10 */ BINARY("Reshape", "f32", 0, 9, AS_IT_SAYS, length, groups, HT_GROUP),
                            /* 11 */ CONSTANT("i64", b->shapes + 5 * word, word, 1),
                            /* 12 */ BINARY("ReduceSum", "f32", 10, 11, "keep_dims=\"false\"", length, groups),
                            /* 13 */ CONSTANT("f32", b->offsets, b->offsets_bytes, rows, groups),
                            /* 14 */ BINARY("MatMul", "f32", 12, 13, ROWS_BY_COLS, length, rows),
                            /* 15 */ BINARY("Add", "f32", 8, 14, NUMPY, length, rows)};
    int n = (int)HT_COUNT(weights);
    memcpy(nodes, weights, sizeof weights);
    if (graph->form.offset) {
        memcpy(nodes + n, offsets, sizeof offsets);
        n += (int)HT_COUNT(offsets);
    }
    if (graph->form.bias) {
        nodes[n] = (node)CONSTANT("f32", b->bias, b->bias_bytes, 1, rows);
        nodes[n + 1] = (node)BINARY("Add", "f32", n - 1, n, NUMPY, length, rows);
        n += 2;
    }
    nodes[n] = (node)UNARY("Result", "f32", n - 1, NULL, length, rows);
    return n + 1;
}

ht_status ht_ov_write(const ht_npu_graph *graph, size_t length, const ht_ov_blob *b, ht_text *xml, ht_error *error) {
    node nodes[MAX_NODES];
    int n = describe_graph(graph, length, b, nodes);
    ht_status status =
        ht_text_printf(xml, error, "<?xml version=\"1.0\"?><net name=\"hetero\" version=\"11\"><layers>");
    for (int i = 0; i < n && status == HT_OK; i++)
        status = write_node(xml, nodes, i, error);
    if (status == HT_OK)
        status = ht_text_printf(xml, error, "</layers><edges>");
    for (int i = 0; i < n; i++)
        for (int j = 0; j < nodes[i].n_inputs && status == HT_OK; j++)
            status =
                ht_text_printf(xml, error, "<edge from-layer=\"%d\" from-port=\"%d\" to-layer=\"%d\" to-port=\"%d\"/>",
                               nodes[i].inputs[j], nodes[nodes[i].inputs[j]].n_inputs, i, j);
    return status == HT_OK ? ht_text_printf(xml, error, "</edges></net>") : status;
}
