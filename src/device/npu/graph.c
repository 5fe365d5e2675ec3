/* What a static graph computes, and its weights: from an operator's slice to a list of constant matrices. */
#include "device/npu/npu.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MARGIN 1.5                       /* of an expert's capacity, over what it gets on average */
#define CAPACITY_STEP 8                  /* processors compute so many rows together */
#define MOST_BYTES (UINT64_C(256) << 20) /* of the weights of one graph of experts */

/* ---- describing
 * -------------------------------------------------------------------------------------------------------- */

/* How part `i` appears in a graph that reads columns [col, col + cols) of it; false if it cannot. */
static bool form_of(const ht_op *op, int i, size_t col, size_t cols, ht_npu_matrix *m) {
    const ht_type_traits *type = op->parts[i].type;
    *m = (ht_npu_matrix){.op = op, .col = col, .cols = cols, .group = (size_t)type->group, .offset = type->offset};
    m->bias = op->bias[i] && col == 0;
    if (type->group)
        m->element = type->bits == 4 ? HT_NPU_I4 : HT_NPU_I8;
    else
        m->element = type->type == HT_TYPE_F16 ? HT_NPU_F16 : type->type == HT_TYPE_BF16 ? HT_NPU_BF16 : HT_NPU_F32;
    return !type->group || (col % m->group == 0 && cols % m->group == 0);
}

static bool same_form(const ht_npu_matrix *a, const ht_npu_matrix *b) {
    return a->element == b->element && a->group == b->group && a->offset == b->offset && a->bias == b->bias;
}

/* Appends rows [row, end) x columns [col, col + cols) of a MATMUL: one matrix for each run of one form. */
static const char *add_rows(ht_npu_graph *g, const ht_op *op, size_t row, size_t end, size_t col, size_t cols) {
    const int first = g->n_parts;
    while (row < end) {
        size_t local;
        const int part = ht_op_part(op, row, &local);
        ht_npu_matrix m;
        if (!form_of(op, part, col, cols, &m))
            return "the columns are not whole groups";
        m.row = row;
        m.rows = ht_min_size(op->parts[part].rows - local, end - row);
        row += m.rows;
        ht_npu_matrix *last = g->n_parts > first ? &g->parts[g->n_parts - 1] : NULL;
        if (last && same_form(last, &m))
            last->rows += m.rows;
        else if (g->n_parts < HT_NPU_PARTS)
            g->parts[g->n_parts++] = m;
        else
            return "too many forms of weights in one operator";
    }
    return NULL;
}

/* Rows [row, end) of the operator are the next of the graph's; they lengthen the last run if they follow it. */
static void add_run(ht_npu_graph *g, size_t row, size_t end) {
    ht_npu_run *last = g->n_runs ? &g->runs[g->n_runs - 1] : NULL;
    if (last && last->to + last->rows == row)
        last->rows += end - row;
    else
        g->runs[g->n_runs++] = (ht_npu_run){.from = g->rows, .to = row, .rows = end - row};
    g->rows += end - row;
}

static const char *describe_runs(const ht_op *op, const ht_slice *s, ht_npu_graph *g) {
    if (!s->of) {
        if (s->row_begin >= s->row_end || s->row_end > ht_op_rows(op))
            return "the slice's rows are not in the matrix";
        add_run(g, s->row_begin, s->row_end);
        return NULL;
    }
    if (s->group > 1)
        return "shares of query heads are not built";
    if (s->row_begin >= s->row_end || s->row_end > s->of)
        return "the share is empty or more than all";
    size_t base = 0;
    for (int i = 0; i < op->n_parts; base += op->parts[i++].rows) {
        const size_t each = op->parts[i].rows / s->of;
        if (op->parts[i].rows % s->of)
            return "a matrix's rows are not whole parts of the share";
        if (each)
            add_run(g, base + s->row_begin * each, base + s->row_end * each);
    }
    return NULL;
}

static const char *describe_matmul(const ht_op *op, const ht_slice *s, ht_npu_graph *g) {
    const char *why = describe_runs(op, s, g);
    if (why)
        return why;
    if (s->reduction_begin >= s->reduction_end || s->reduction_end > ht_op_cols(op))
        return "the slice's columns are not in the matrix";
    g->cols = s->reduction_end - s->reduction_begin;
    for (int i = 0; i < g->n_runs && !why; i++)
        why = add_rows(g, op, g->runs[i].to, g->runs[i].to + g->runs[i].rows, s->reduction_begin, g->cols);
    return why;
}

/* Runtimes have these, and the check of a built graph knows them. */
static bool is_built(ht_activation activation) {
    return activation == HT_ACT_SILU || activation == HT_ACT_GELU_TANH || activation == HT_ACT_RELU2 ||
           activation == HT_ACT_CLAMPED;
}
#define NOT_BUILT "no graph has its activation"

static const char *describe_ffn(const ht_op *op, const ht_slice *s, ht_npu_graph *g) {
    const ht_op *gate_up = &op->members[0], *down = &op->members[2];
    const size_t features = gate_up->parts[0].rows, n = s->row_end - s->row_begin;
    if (s->of)
        return "shares are of matrix multiplications";
    if (!is_built(op->activation))
        return NOT_BUILT;
    if (s->row_begin >= s->row_end || s->row_end > features || ht_op_cols(down) != features)
        return "the slice's features are not in the block";
    add_run(g, 0, ht_op_rows(down));
    g->cols = ht_op_cols(gate_up);
    const char *why = NULL;
    for (int i = 0; i < 2 && !why; i++)
        why = add_rows(g, gate_up, (size_t)i * features + s->row_begin, (size_t)i * features + s->row_end, 0, g->cols);
    return why ? why : add_rows(g, down, 0, g->rows, s->row_begin, n);
}

static uint64_t coded_bytes(const ht_npu_matrix *m);

/* Experts of one graph: compilers take long for large ones. */
static size_t most_experts(const ht_npu_graph *g) {
    uint64_t bytes = 1;
    for (int i = 0; i < g->n_parts; i++)
        bytes += coded_bytes(&g->parts[i]);
    return ht_min_size(HT_NPU_EXPERTS, ht_max_size((size_t)(MOST_BYTES / bytes), 1));
}

static const char *describe_experts(const ht_op *op, const ht_slice *slice, ht_npu_graph *g) {
    const size_t experts = (size_t)op->experts;
    const char *why = ht_refuse_experts(op, slice);
    if (why)
        return why;
    const ht_slice s = ht_spell_out_experts(op, slice);
    if (!is_built(op->activation))
        return NOT_BUILT;
    if (op->weighs_input)
        return "no graph weighs what experts read";
    size_t base = 0;
    for (int i = 0; i < op->n_parts; base += op->parts[i++].rows) {
        const bool last = i + 1 == op->n_parts;
        const size_t each = op->parts[i].rows / experts, cols = s.reduction_end - s.reduction_begin;
        ht_npu_matrix *m = &g->parts[g->n_parts++];
        if (!form_of(op, i, last ? s.reduction_begin : 0, last ? cols : op->parts[i].cols, m))
            return "the columns are not whole groups";
        m->row = base + s.row_begin * each + (last ? 0 : s.reduction_begin);
        m->rows = last ? each : cols;
    }
    g->expert = s.row_begin;
    g->experts = ht_min_size(s.row_end - s.row_begin, most_experts(g));
    g->cols = ht_op_cols(op);
    add_run(g, 0, g->parts[g->n_parts - 1].rows);
    return NULL;
}

ht_npu_matrix ht_npu_of_expert(const ht_npu_graph *g, int part, size_t i) {
    ht_npu_matrix m = g->parts[part];
    m.row += i ? i * (g->op->parts[part].rows / (size_t)g->op->experts) : 0;
    return m;
}

ht_status ht_npu_matrices(const ht_npu_graph *g, ht_npu_matrix **matrices, ht_error *error) {
    const size_t parts = (size_t)g->n_parts, n = ht_npu_sets(g) * parts;
    const ht_status status = ht_alloc((void **)matrices, n, sizeof **matrices, g->op->name, error);
    for (size_t i = 0; i < n && status == HT_OK; i++)
        (*matrices)[i] = ht_npu_of_expert(g, (int)(i % parts), i / parts);
    return status;
}

size_t ht_npu_capacity(const ht_npu_graph *g, size_t length) {
    if (!g->experts)
        return length;
    const double mean = (double)length * g->op->route.used / g->op->experts;
    const size_t wanted = ht_round_up((size_t)ceil(mean * MARGIN), CAPACITY_STEP);
    return ht_max_size(ht_min_size(wanted, length), 1);
}

const char *ht_npu_describe(const ht_op *op, const ht_slice *slice, bool weights_first, ht_npu_graph *graph) {
    *graph = (ht_npu_graph){.op = op, .slice = *slice, .weights_first = weights_first};
    if (op->kind == HT_OP_MATMUL)
        return describe_matmul(op, slice, graph);
    if (op->kind == HT_OP_FFN)
        return describe_ffn(op, slice, graph);
    if (op->kind == HT_OP_EXPERTS)
        return describe_experts(op, slice, graph);
    return "only matrix multiplications";
}

size_t ht_npu_bits(ht_npu_element element) {
    static const size_t bits[] = {4, 8, 16, 16, 32};
    return bits[element];
}

/* ---- weights
 * ----------------------------------------------------------------------------------------------------------- */

ht_status ht_npu_codes(const ht_npu_matrix *m, size_t row, size_t n, int8_t *codes, float *scales, float *offsets,
                       ht_error *error) {
    size_t first_row;
    const size_t all = m->op->parts[ht_op_part(m->op, m->row, &first_row)].cols, groups = all / m->group,
                 first = m->col / m->group, want = m->cols / m->group;
    void *line; /* one whole row: codes, scales, offsets */
    ht_status status = ht_alloc(&line, all + 2 * groups * sizeof(float), 1, m->op->name, error);
    if (status != HT_OK)
        return status;
    float *row_scales = line, *row_offsets = row_scales + groups;
    int8_t *row_codes = (int8_t *)(row_offsets + groups);
    for (size_t r = 0; r < n && status == HT_OK; r++) {
        size_t local;
        const ht_matrix *part = &m->op->parts[ht_op_part(m->op, m->row + row + r, &local)];
        ht_matrix_codes(part, local, 1, row_codes, row_scales, row_offsets);
        if (ht_matrix_is_bad(part, local, row_scales, row_offsets))
            status = ht_matrix_refuse(part, local, error);
        memcpy(codes + r * m->cols, row_codes + m->col, m->cols);
        memcpy(scales + r * want, row_scales + first, want * sizeof *scales);
        if (offsets)
            memcpy(offsets + r * want, row_offsets + first, want * sizeof *offsets);
    }
    free(line);
    return status;
}

#define CHUNK 16 /* rows at once */

ht_status ht_npu_put_codes(const ht_npu_matrix *m, ht_npu_put put, const void *to, ht_error *error) {
    const size_t groups = m->cols / m->group;
    float *scales;
    ht_status status =
        ht_alloc((void **)&scales, CHUNK * (2 * groups * sizeof(float) + m->cols), 1, m->op->name, error);
    if (status != HT_OK)
        return status;
    float *offsets = scales + CHUNK * groups;
    int8_t *codes = (int8_t *)(offsets + CHUNK * groups);
    for (size_t row = 0; row < m->rows && status == HT_OK; row += CHUNK) {
        const size_t n = ht_min_size(CHUNK, m->rows - row);
        status = ht_npu_codes(m, row, n, codes, scales, m->offset ? offsets : NULL, error);
        if (status == HT_OK)
            put(to, row, n, codes, scales, m->offset ? offsets : NULL);
    }
    free(scales);
    return status;
}

ht_status ht_npu_floats(const ht_npu_matrix *m, size_t row, size_t n, float *out, ht_error *error) {
    float *line;
    size_t first_row;
    const size_t all = m->op->parts[ht_op_part(m->op, m->row, &first_row)].cols;
    ht_status status = ht_alloc((void **)&line, all, sizeof *line, m->op->name, error);
    if (status != HT_OK)
        return status;
    for (size_t r = 0; r < n && status == HT_OK; r++) {
        size_t local;
        const ht_matrix *part = &m->op->parts[ht_op_part(m->op, m->row + row + r, &local)];
        ht_matrix_floats(part, local, 1, line);
        memcpy(out + r * m->cols, line + m->col, m->cols * sizeof *out);
        if (!part->type->group && ht_matrix_is_bad(part, local, NULL, NULL))
            status = ht_matrix_refuse(part, local, error);
    }
    free(line);
    return status;
}

void ht_npu_bias(const ht_npu_matrix *m, float *out) {
    for (size_t r = 0; r < m->rows; r++) {
        size_t local;
        const float *bias = m->op->bias[ht_op_part(m->op, m->row + r, &local)];
        out[r] = bias && m->bias ? bias[local] : 0;
    }
}

/* ---- identity and size
 * --------------------------------------------------------------------------------------------------- */

/* The bytes of a matrix's rows as the file has them: all columns, for a range of columns is none of bytes. */
static uint64_t hash_rows(const ht_npu_matrix *m, uint64_t hash) {
    for (size_t row = m->row; row < m->row + m->rows;) {
        size_t local;
        const int i = ht_op_part(m->op, row, &local);
        const ht_matrix *part = &m->op->parts[i];
        const size_t n = ht_min_size(part->rows - local, m->row + m->rows - row);
        for (size_t r = local; part->data && r < local + n; r += part->run ? 1 : n)
            hash = ht_hash(hash, ht_matrix_row(part, r), (part->run ? 1 : n) * part->row_bytes);
        if (!part->data) /* made-up weights follow from the name */
            hash = ht_hash(ht_hash(hash, part->name, strlen(part->name)), &local, sizeof local);
        if (m->bias && m->op->bias[i])
            hash = ht_hash(hash, m->op->bias[i] + local, n * sizeof(float));
        row += n;
    }
    return hash;
}

ht_status ht_npu_key(const ht_npu_graph *g, ht_text *key, ht_error *error) {
    ht_status status = ht_text_printf(key, error, "%s %zux%zu act %d order %d;",
                                      g->experts                 ? "experts"
                                      : g->op->kind == HT_OP_FFN ? "ffn"
                                                                 : "matmul",
                                      g->rows, g->cols, (int)g->op->activation, (int)g->weights_first);
    if (g->experts && status == HT_OK)
        status = ht_text_printf(key, error, " %zu, %d of %d;", g->experts, g->op->route.used, g->op->experts);
    for (int i = 0; i < g->n_parts && status == HT_OK; i++) {
        const ht_npu_matrix *m = &g->parts[i];
        uint64_t hash = HT_HASH_START;
        for (size_t e = 0; e < ht_npu_sets(g); e++) {
            const ht_npu_matrix one = ht_npu_of_expert(g, i, e);
            hash = hash_rows(&one, hash);
        }
        status = ht_text_printf(key, error, " %zux%zu+%zu form %d/%zu/%d/%d %016llx;", m->rows, m->cols, m->col,
                                (int)m->element, m->group, (int)m->offset, (int)m->bias, (unsigned long long)hash);
    }
    return status;
}

/* Codes with float scales and offsets. */
static uint64_t coded_bytes(const ht_npu_matrix *m) {
    const uint64_t scales = m->group ? m->rows * (m->cols / m->group) * sizeof(float) : 0;
    return m->rows * m->cols * ht_npu_bits(m->element) / 8 + scales * (m->offset ? 2 : 1);
}

uint64_t ht_npu_estimate_shared(const ht_npu_graph *g) {
    uint64_t bytes = 0;
    for (int i = 0; i < g->n_parts; i++)
        bytes += coded_bytes(&g->parts[i]);
    return bytes * ht_npu_sets(g);
}

uint64_t ht_npu_estimate(const ht_npu_graph *g, size_t length) {
    uint64_t bytes = 0, values = 0;
    for (int i = 0; i < g->n_parts; i++) {
        const ht_npu_matrix *m = &g->parts[i];
        /* floats of 16 bits are multiplied out and packed in 32 */
        bytes += m->group ? coded_bytes(m) : m->rows * m->cols * 2 * sizeof(float);
        const bool inner = g->op->kind == HT_OP_MATMUL ? g->n_parts > 1 : i + 1 < g->n_parts || g->experts;
        values += m->rows * (inner + m->offset);
    }
    values += g->experts ? g->cols : 0; /* each expert's rows of x */
    return ht_npu_sets(g) * (bytes + ht_npu_capacity(g, length) * values * sizeof(float));
}
