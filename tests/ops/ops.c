/* Every operator on every device against a scalar reference in double precision: op x type x shape x tokens x device.
 *
 * usage: test_ops [--small] [DEVICE ...]   default: the CPU once for each instruction set, the first OpenCL device
 *   --small: few and small shapes, in memory that ends where the values do: for emulators that check every access
 */
#include "ops/products.h"

#define MAX_CONTEXT 512

/* The operator says its heads and widths itself: its layer is not as large as others. */
static ht_op shaped(const bench *b, ht_op op, const ht_hparams *h) {
    if (!b->own_shape)
        return op;
    if (op.kind == HT_OP_ROPE || op.kind == HT_OP_ATTENTION)
        op.heads = h->heads, op.kv_heads = h->kv_heads, op.head_dim = h->head_dim;
    else
        op.width = op.kind == HT_OP_NORM ? h->embedding : op.kind == HT_OP_GLU ? h->feed_forward : h->vocabulary;
    return op;
}

/* ---- matmul ----------------------------------------------------------------------------------------------------------------------- */

/* Devices with static lengths: every length and the numbers of tokens beside it, with one task, so that graphs are built
 * once. Others: the numbers given. */
static void each_count(bench *b, const ht_op *op, ht_slice slice, const size_t *counts, size_t n,
                       void (*check_one)(bench *, const ht_op *, ht_slice, size_t)) {
    const ht_device_caps *caps = b->device->ops->caps(b->device);
    ht_error error = {0};
    if (caps->n_lengths == 0 || refused(b, op, &slice)) {
        for (size_t i = 0; i < n; i++)
            check_one(b, op, slice, counts[i]);
        return;
    }
    if (b->device->ops->prepare(b->device, op, &slice, &b->task, &error))
        fail_msg("prepare %s: %s", op->name, error.text);
    for (size_t i = 0; i < caps->n_lengths; i++) /* or another length would stand in for one that does not compile */
        if (b->device->ops->warm(b->device, b->task, (size_t)caps->lengths[i], &error) ||
            b->device->ops->settle(b->device, b->task, (size_t)caps->lengths[i], &error))
            fail_msg("settle %s: %s", op->name, error.text);
    for (size_t i = 0; i < caps->n_lengths; i++)
        for (int by = -1; by <= 1; by++)
            if (caps->lengths[i] + by > 0)
                check_one(b, op, slice, (size_t)(caps->lengths[i] + by));
    b->device->ops->release(b->device, b->task);
    b->task = NULL;
}

static void test_matmuls(bench *b) {
    static const size_t token_counts[] = {1, 2, 4, 33, 31, 300, 5, 8, 12};
    static const struct { size_t rows, cols; } shapes[] = {{33, 256}, {1, 256}, {100, 768}, {64, 512}};
    const size_t n_shapes = small ? 1 : HT_COUNT(shapes);
    float bias[200];
    fill(bias, HT_COUNT(bias));
    for (size_t k = 0; k < HT_COUNT(block_types); k++)
        for (size_t i = 0; i < n_shapes; i++) {
            const size_t n_counts = small ? 4 - k % 2 : HT_COUNT(token_counts); /* 33 of every second type */
            const size_t cols = small && ht_type_get(block_types[k].type)->block <= 32 ? 96 : shapes[i].cols;
            ht_op op = {.kind = HT_OP_MATMUL, .name = "matmul", .in = SLOT_NORMED, .out = SLOT_QKV, .n_parts = 1};
            op.parts[0] = make_matrix("w", k, shapes[i].rows, cols);
            if (i == 2)
                op.bias[0] = bias;
            if (i == 0)
                each_count(b, &op, (ht_slice){.row_end = shapes[i].rows, .reduction_end = cols}, token_counts, n_counts,
                           check_matmul);
            for (size_t n = 0; n < n_counts && i > 0; n++)
                check_matmul(b, &op, (ht_slice){.row_end = shapes[i].rows, .reduction_end = cols}, token_counts[n]);
            if (cols == 96)
                check_matmul(b, &op,
                             (ht_slice){.row_begin = 3, .row_end = 30, .reduction_begin = 32, .reduction_end = 96}, 5);
            if (i == 2) {
                check_matmul(b, &op, (ht_slice){.row_begin = 17, .row_end = 90, .reduction_end = cols}, 5);
                check_matmul(b, &op, (ht_slice){.row_end = 100, .reduction_begin = 256, .reduction_end = 512}, 13);
            }
            free((void *)(uintptr_t)op.parts[0].data);
        }
    /* parts of different types in one operator, cut in the middle of one; odd columns */
    ht_op op = {.kind = HT_OP_MATMUL, .name = "fused", .in = SLOT_NORMED, .out = SLOT_QKV, .n_parts = 3};
    const size_t kinds[] = {5, 0, 7};
    for (int p = 0; p < 3; p++)
        op.parts[p] = make_matrix("part", kinds[p], 40 + 8 * (size_t)p, 512);
    op.bias[1] = bias;
    for (size_t n = 0; n < (small ? 4 : HT_COUNT(token_counts)); n++)
        check_matmul(b, &op, (ht_slice){.row_begin = 10, .row_end = 130, .reduction_end = 512}, token_counts[n]);
    for (int p = 0; p < 3; p++)
        free((void *)(uintptr_t)op.parts[p].data);
    for (size_t k = 9; k < HT_COUNT(block_types); k++) {
        ht_op odd = {.kind = HT_OP_MATMUL, .name = "odd", .in = SLOT_NORMED, .out = SLOT_QKV, .n_parts = 1};
        odd.parts[0] = make_matrix("odd", k, 37, 50);
        check_matmul(b, &odd, (ht_slice){.row_end = 37, .reduction_end = 50}, 1);
        check_matmul(b, &odd, (ht_slice){.row_end = 37, .reduction_end = 50}, 13);
        free((void *)(uintptr_t)odd.parts[0].data);
    }
}

/* ---- parts and shares of matmuls ----------------------------------------------------------------------------------------- */

static const size_t part_counts[] = {1, 33, 2, 31};

/* Parts of one whole task, one after another; how many of the slices the device takes. */
static size_t each_part(bench *b, const ht_op *op, const ht_slice *slices, size_t n) {
    const ht_slice whole = whole_slice(op);
    ht_error error = {0};
    size_t taken = 0;
    if (b->device->ops->prepare(b->device, op, &whole, &b->task, &error))
        fail_msg("prepare %s: %s", op->name, error.text);
    b->divided = true;
    for (size_t i = 0; i < n; i++) {
        taken += !refused(b, op, &slices[i]);
        /* emulators are slow: one token, and 33 for every fourth */
        for (size_t k = 0; k < (small ? 1 + (i % 4 == 1) : HT_COUNT(part_counts)); k++)
            check_matmul(b, op, slices[i], part_counts[k]);
    }
    b->divided = false;
    b->device->ops->release(b->device, b->task);
    b->task = NULL;
    return taken;
}

/* Ranges of rows, of the reduction, and of both, of one matrix with a bias. */
static void test_ranges(bench *b) {
    static const ht_slice rows[] = {{.row_end = 32},
                                    {.row_begin = 32, .row_end = 100},
                                    {.row_begin = 64, .row_end = 96},
                                    {.row_begin = 96, .row_end = 100},
                                    {.row_begin = 17, .row_end = 90},
                                    {.row_begin = 63, .row_end = 64},
                                    {.row_begin = 40, .row_end = 41},
                                    {.row_end = 100}};
    static const ht_slice reductions[] = {
        {.row_end = 100, .reduction_end = 256},
        {.row_end = 100, .reduction_begin = 256, .reduction_end = 512},
        {.row_end = 100, .reduction_begin = 256, .reduction_end = 768},
        {.row_begin = 32, .row_end = 96, .reduction_begin = 512, .reduction_end = 768},
        {.row_begin = 17, .row_end = 64, .reduction_end = 512},
        {.row_end = 64, .reduction_begin = 32, .reduction_end = 96}, /* not whole blocks of the K formats */
        {.row_begin = 32, .row_end = 100, .reduction_begin = 480, .reduction_end = 768},
        {.row_begin = 64, .row_end = 65, .reduction_begin = 736, .reduction_end = 768}};
    float bias[100];
    fill(bias, HT_COUNT(bias));
    for (size_t k = 0; k < HT_COUNT(block_types); k += small ? 5 : 1) {
        ht_op op = {.kind = HT_OP_MATMUL, .name = "ranges", .in = SLOT_NORMED, .out = SLOT_QKV, .n_parts = 1};
        op.parts[0] = make_matrix("w", k, 100, 768);
        op.bias[0] = bias;
        assert_true(each_part(b, &op, rows, HT_COUNT(rows)) > 0);
        assert_true(each_part(b, &op, reductions, HT_COUNT(reductions)) > 0);
        free((void *)(uintptr_t)op.parts[0].data);
    }
    static const ht_slice odd[] = {{.row_begin = 32, .row_end = 37},
                                   {.row_end = 37, .reduction_end = 32},
                                   {.row_end = 32, .reduction_begin = 32, .reduction_end = 50}};
    for (size_t k = 9; k < HT_COUNT(block_types); k++) { /* columns that are no whole group */
        ht_op op = {.kind = HT_OP_MATMUL, .name = "odd", .in = SLOT_NORMED, .out = SLOT_QKV, .n_parts = 1};
        op.parts[0] = make_matrix("odd", k, 37, 50);
        if (!refused(b, &op, &odd[0]))
            each_part(b, &op, odd, HT_COUNT(odd));
        free((void *)(uintptr_t)op.parts[0].data);
    }
}

/* Shares and row ranges of an operator of several matrices, prepared and, where the device can, chosen at submit. */
static void check_shares(bench *b, const size_t *kinds, const size_t *rows, int n_parts, const ht_slice *slices,
                         size_t n) {
    const size_t cols = 512;
    float bias[256];
    fill(bias, HT_COUNT(bias));
    ht_op op = {.kind = HT_OP_MATMUL, .name = "shares", .in = SLOT_NORMED, .out = SLOT_QKV, .n_parts = n_parts};
    for (int p = 0; p < n_parts; p++) {
        op.parts[p] = make_matrix("part", kinds[p], rows[p], cols);
        op.bias[p] = p == 1 && kinds[0] ? NULL : bias;
    }
    if (divisible(b) && !small)
        assert_true(each_part(b, &op, slices, n) > 0);
    const bool graphs = b->device->ops->caps(b->device)->n_lengths > 0; /* take their time to be built */
    for (size_t i = 0; i < (graphs && kinds[0] != 5 ? 2 : n); i++) {
        ht_slice s = slices[i]; /* a prepared slice says its columns */
        s.reduction_end = s.reduction_end ? s.reduction_end : cols;
        if (i == 1 && kinds[0] == 5) /* every length once */
            each_count(b, &op, s, part_counts, small ? 2 : HT_COUNT(part_counts), check_matmul);
        else
            check_matmul(b, &op, s, i % 2 ? 31 : 1);
    }
    for (int p = 0; p < n_parts; p++)
        free((void *)(uintptr_t)op.parts[p].data);
}

static void test_shares(bench *b) {
    static const ht_slice heads[] = {
        {.row_end = 1, .of = 4},                 /* the first, */
        {.row_begin = 1, .row_end = 3, .of = 4}, /* some between, */
        {.row_begin = 3, .row_end = 4, .of = 4}, /* the last, */
        {.row_end = 4, .of = 4},                 /* and all of them */
        {.row_begin = 1, .row_end = 4, .reduction_begin = 256, .reduction_end = 512, .of = 4},
        {.row_end = 2, .reduction_end = 256, .of = 4},
        {.row_begin = 192, .row_end = 320}}; /* no share: from one matrix into the next */
    static const ht_slice queries[] = {{.row_end = 1, .of = 6, .group = 3},                 /* with a key-value head, */
                                       {.row_begin = 1, .row_end = 3, .of = 6, .group = 3}, /* without one, */
                                       {.row_begin = 2, .row_end = 6, .of = 6, .group = 3}, /* with the last one, */
                                       {.row_end = 4, .of = 6, .group = 3},                 /* with both, */
                                       {.row_end = 6, .of = 6, .group = 3}};                /* and all of them */
    static const ht_slice features[] = {{.row_end = 64, .of = 200},
                                        {.row_begin = 64, .row_end = 200, .of = 200},
                                        {.row_begin = 33, .row_end = 150, .of = 200},
                                        {.row_begin = 199, .row_end = 200, .of = 200},
                                        {.row_begin = 32, .row_end = 96, .reduction_end = 256, .of = 200}};
    const size_t same[] = {4, 4, 4}, mixed[] = {5, 0, 7}, first[] = {0, 0, 0};
    check_shares(b, mixed, (const size_t[]){256, 128, 128}, 3, heads, HT_COUNT(heads));
    if (divisible(b))
        check_shares(b, mixed, (const size_t[]){192, 64, 64}, 3, queries, HT_COUNT(queries));
    if (small)
        return;
    check_shares(b, first, (const size_t[]){192, 96, 96}, 3, heads, HT_COUNT(heads)); /* heads are no whole strips */
    check_shares(b, same, (const size_t[]){256, 64, 64}, 3, heads, HT_COUNT(heads));
    check_shares(b, same, (const size_t[]){200, 200}, 2, features, HT_COUNT(features));
    check_shares(b, mixed, (const size_t[]){200, 200}, 2, features, HT_COUNT(features));
}

/* What no device can compute is refused, and a part of it is an error, not a wrong result. */
static void test_bad_parts(bench *b) {
    static const ht_slice bad[] = {
        {.row_begin = 32, .row_end = 65},        {.row_begin = 32, .row_end = 32},
        {.row_end = 64, .reduction_end = 544},   {.row_end = 64, .reduction_begin = 16, .reduction_end = 512},
        {.row_end = 64, .reduction_end = 48},    {.row_end = 3, .of = 2},
        {.row_begin = 1, .row_end = 1, .of = 2}, {.row_begin = 1, .row_end = 2, .of = 3},
        {.row_end = 3, .of = 4, .group = 3}};
    ht_op op = {.kind = HT_OP_MATMUL, .name = "bad", .in = SLOT_NORMED, .out = SLOT_QKV, .n_parts = 1};
    op.parts[0] = make_matrix("w", 0, 64, 512);
    const ht_slice whole = whole_slice(&op);
    ht_error error = {0};
    ht_task *task;
    ht_ticket ticket;
    if (b->device->ops->prepare(b->device, &op, &whole, &task, &error))
        fail_msg("%s", error.text);
    make_slot(b, SLOT_NORMED, 1, 512), make_slot(b, SLOT_QKV, 1, 64);
    for (size_t i = 0; i < HT_COUNT(bad); i++) {
        const ht_binding binding = {.slots = b->slots, .tokens = 1, .part = &bad[i]};
        assert_true(refused(b, &op, &bad[i]));
        assert_int_equal(b->device->ops->submit(b->device, task, &binding, NULL, 0, &ticket, &error),
                         HT_ERROR_ARGUMENT);
    }
    b->device->ops->release(b->device, task);
    free_slots(b);
    free((void *)(uintptr_t)op.parts[0].data);
}

/* ---- feed-forward blocks ------------------------------------------------------------------------------------------------- */

static void test_ffn(bench *b) {
    static const size_t token_counts[] = {1, 33, 300};
    static const size_t kinds[][3] = {{0, 0, 0}, {1, 1, 1}, {5, 5, 7}, {4, 4, 4}, {9, 9, 9}}; /* Q4_K_M: down in Q6_K */
    for (size_t k = 0; k < HT_COUNT(kinds); k++) {
        ht_op members[3] = {{.kind = HT_OP_MATMUL, .name = "gate_up", .in = SLOT_NORMED, .out = SLOT_FFN, .n_parts = 2},
                            {.kind = HT_OP_GLU, .name = "glu", .in = SLOT_FFN, .out = SLOT_ACT, .activation = k & 1},
                            {.kind = HT_OP_MATMUL, .name = "down", .in = SLOT_ACT, .out = SLOT_DELTA, .n_parts = 1}};
        members[0].parts[0] = make_matrix("gate", kinds[k][0], 512, 256);
        members[0].parts[1] = make_matrix("up", kinds[k][1], 512, 256);
        members[2].parts[0] = make_matrix("down", kinds[k][2], 70, 512);
        ht_op op;
        assert_true(ht_op_ffn(members, 3, &op));
        each_count(b, &op, (ht_slice){.row_end = 512}, token_counts, k < 2 ? HT_COUNT(token_counts) : 1, check_ffn);
        check_ffn(b, &op, (ht_slice){.row_end = 192}, 31); /* shares: partial sums of all rows */
        check_ffn(b, &op, (ht_slice){.row_begin = 192, .row_end = 512}, 31);
        for (int p = 0; p < 3; p++)
            free((void *)(uintptr_t)members[p / 2 * 2].parts[p % 2].data);
    }
}

/* ---- the other operators -------------------------------------------------------------------------------------------------------- */

/* What a norm is to add to token t: DELTA and the pieces. */
static double norm_delta(const bench *b, size_t t, size_t i) {
    const ht_view *d = &b->slots[SLOT_DELTA];
    double sum = (double)((const float *)d->data)[t * d->stride + i];
    for (size_t k = 0; k < b->n_pieces; k++)
        sum += (double)((const float *)b->pieces[k].data)[t * b->pieces[k].stride + i];
    return sum;
}

static void check_norm(bench *b, const ht_op *op, size_t n, size_t tokens, size_t n_pieces) {
    static const ht_slot lent[HT_MAX_PIECES] = {SLOT_QKV, SLOT_FFN, SLOT_ACT}; /* memory for the pieces */
    float *x = make_slot(b, SLOT_X, tokens, n), *d = make_slot(b, SLOT_DELTA, tokens, n),
          *y = make_slot(b, SLOT_NORMED, tokens, n);
    const size_t stride = b->slots[SLOT_X].stride;
    fill(x, (tokens - 1) * stride + n), fill(d, (tokens - 1) * stride + n);
    for (size_t k = 0; k < n_pieces; k++) {
        float *piece = make_slot(b, lent[k], tokens, n + 3 * k);
        fill(piece, (tokens - 1) * b->slots[lent[k]].stride + n);
        b->pieces[k] = b->slots[lent[k]];
    }
    b->n_pieces = n_pieces;
    float *before = malloc(b->bytes[SLOT_X]);
    memcpy(before, x, b->bytes[SLOT_X]);
    double *sum = malloc(n * sizeof *sum);
    const bool ran = run_op(b, op, &(ht_slice){0}, tokens, 0);
    for (size_t t = 0; t < tokens && ran; t++) {
        double ds = 0, xs = 0;
        for (size_t i = 0; i < n; i++)
            ds += norm_delta(b, t, i) * norm_delta(b, t, i);
        const double dscale = op->post_norm ? 1 / sqrt(ds / (double)n + 1e-5) : 1;
        for (size_t i = 0; i < n; i++) {
            const double delta = norm_delta(b, t, i) * dscale * (op->post_norm ? (double)op->post_norm[i] : 1);
            sum[i] = (double)before[t * stride + i] + (op->aux == HT_SLOT_NONE ? 0 : delta);
            xs += sum[i] * sum[i];
        }
        const double scale = 1 / sqrt(xs / (double)n + 1e-5);
        for (size_t i = 0; i < n; i++) {
            check((double)x[t * stride + i], sum[i], 16 * EPS * 10 * (double)(1 + n_pieces), "norm's residual", b->name,
                  t, i);
            check((double)y[t * stride + i], sum[i] * scale * (double)op->weight[i],
                  64 * EPS * (double)(1 + n_pieces) * (fabs(sum[i] * scale * (double)op->weight[i]) + 1), "norm",
                  b->name, t, i);
        }
    }
    b->n_pieces = 0;
    free(before), free(sum);
    free_slots(b);
}

static void test_norm(bench *b, const ht_hparams *h) {
    const size_t n = (size_t)h->embedding;
    float *weight = malloc(2 * n * sizeof *weight), *post = weight + n;
    fill(weight, 2 * n);
    for (int variant = 0; variant < 3; variant++)
        for (size_t pieces = 0; pieces <= (variant ? HT_MAX_PIECES : 0); pieces++) {
            const ht_op norm = {.kind = HT_OP_NORM,
                                .name = "norm",
                                .in = SLOT_X,
                                .aux = variant ? SLOT_DELTA : HT_SLOT_NONE,
                                .out = SLOT_NORMED,
                                .weight = weight,
                                .post_norm = variant == 2 ? post : NULL,
                                .eps = 1e-5f},
                        op = shaped(b, norm, h);
            check_norm(b, &op, n, 33, pieces);
            if (pieces)
                check_norm(b, &op, n, 1, pieces);
        }
    free(weight);
}

static void test_glu(bench *b, const ht_hparams *h) {
    const size_t n = (size_t)h->feed_forward, tokens = 9;
    for (int kind = 0; kind < 2; kind++) {
        const ht_op glu = {.kind = HT_OP_GLU,
                           .name = "glu",
                           .in = SLOT_FFN,
                           .out = SLOT_ACT,
                           .activation = kind ? HT_ACT_GELU_TANH : HT_ACT_SILU},
                    op = shaped(b, glu, h);
        float *in = make_slot(b, SLOT_FFN, tokens, 2 * n), *out = make_slot(b, SLOT_ACT, tokens, n);
        const size_t is = b->slots[SLOT_FFN].stride, os = b->slots[SLOT_ACT].stride;
        fill(in, (tokens - 1) * is + 2 * n);
        for (size_t i = 0; i < n; i++)
            in[i] = (float)i - (float)n / 2; /* far tails: -n/2 .. n/2 */
        if (run_op(b, &op, &(ht_slice){0}, tokens, 0))
            for (size_t t = 0; t < tokens; t++)
                for (size_t i = 0; i < n; i++) {
                    const double g = (double)in[t * is + i], u = (double)in[t * is + n + i];
                    const double a = kind ? 0.5 * g * (1 + tanh(0.7978845608028654 * (g + 0.044715 * g * g * g)))
                                          : g / (1 + exp(-g));
                    check((double)out[t * os + i], a * u, 1e-6 * (fabs(a * u) + 0.01 * fabs(u)), kind ? "gelu" : "silu",
                          b->name, t, i);
                }
        free_slots(b);
    }
}

static float *make_rope_table(size_t dim, size_t rope_dim) {
    float *table = malloc(MAX_CONTEXT * dim * sizeof *table);
    for (size_t p = 0; p < MAX_CONTEXT; p++) /* a device may copy it whole */
        for (size_t i = 0; i < rope_dim / 2; i++) {
            double angle = (double)p * pow(10000, -2.0 * (double)i / (double)rope_dim);
            table[p * dim + 2 * i] = (float)cos(angle), table[p * dim + 2 * i + 1] = (float)sin(angle);
        }
    return table;
}

/* Rope writes the cache, attention reads it: checked together on what the cache must hold (fp16 of the rotated keys). */
static void test_attention(bench *b, const ht_hparams *h, int window, bool halves, bool norms, size_t position,
                           size_t tokens, ht_kv_type type) {
    if (small && position + tokens > 40)
        return;
    const size_t dim = (size_t)h->head_dim, heads = (size_t)h->heads, kvs = (size_t)h->kv_heads, group = heads / kvs,
                 total = position + tokens, width = (heads + 2 * kvs) * dim;
    const size_t rope_dim = norms && halves ? dim / 2 : dim,
                 kv_bytes = ht_round_up(kvs * (total + 3) * dim * (type ? 4 : 2), small ? 1 : 4096);
    float *table = make_rope_table(dim, rope_dim), weight[512];
    fill(weight, dim);
    b->kv = (ht_kv_layer){make_pages(b, kv_bytes), make_pages(b, kv_bytes), total + 3, type};
    ht_op rope = {.kind = HT_OP_ROPE,
                  .name = "rope",
                  .in = SLOT_QKV,
                  .out = SLOT_QKV,
                  .rope = table,
                  .rope_dim = (int)rope_dim,
                  .rope_halves = halves,
                  .q_norm = norms ? weight : NULL,
                  .k_norm = norms ? weight : NULL,
                  .eps = 1e-6f};
    ht_op attention = {.kind = HT_OP_ATTENTION,
                       .name = "attention",
                       .in = SLOT_QKV,
                       .out = SLOT_ATTN,
                       .scale = 1 / sqrtf((float)dim),
                       .window = window};
    rope = shaped(b, rope, h), attention = shaped(b, attention, h);
    float *qkv = make_slot(b, SLOT_QKV, total, width), *out = make_slot(b, SLOT_ATTN, total, heads * dim);
    const size_t stride = b->slots[SLOT_QKV].stride, os = b->slots[SLOT_ATTN].stride;
    fill(qkv, (total - 1) * stride + width);
    float *all = malloc(b->bytes[SLOT_QKV]);
    memcpy(all, qkv, b->bytes[SLOT_QKV]);
    bool ran = true;
    if (position) { /* earlier tokens first, as an earlier chunk would */
        ran = run_op(b, &rope, &(ht_slice){0}, position, 0);
        memcpy(qkv, all + position * stride, ((tokens - 1) * stride + width) * sizeof *all);
    }
    ran = ran && run_op(b, &rope, &(ht_slice){0}, tokens, position) &&
          run_op(b, &attention, &(ht_slice){0}, tokens, position);
    double *rotated = calloc(total * width, sizeof *rotated);
    for (size_t t = 0; t < total && ran; t++)
        for (size_t head = 0; head < heads + 2 * kvs; head++) {
            const float *in = all + t * stride + head * dim;
            double *to = rotated + t * width + head * dim, square = 0;
            for (size_t i = 0; i < dim; i++)
                square += (double)in[i] * (double)in[i];
            const bool value = head >= heads + kvs;
            for (size_t i = 0; i < dim; i++)
                to[i] = (double)in[i] * (norms && !value ? (double)weight[i] / sqrt(square / (double)dim + 1e-6) : 1);
            for (size_t i = 0; i < rope_dim / 2 && !value; i++) {
                const size_t p = halves ? i : 2 * i, q = halves ? i + rope_dim / 2 : 2 * i + 1;
                const double x = to[p], y = to[q], c = (double)table[t * dim + 2 * i],
                             s = (double)table[t * dim + 2 * i + 1];
                to[p] = x * c - y * s, to[q] = x * s + y * c;
            }
            if (head >= heads)
                for (size_t i = 0; i < dim; i++) {
                    const size_t at = (((head - heads) % kvs) * (total + 3) + t) * dim + i;
                    const void *cache = value ? b->kv.values : b->kv.keys;
                    const double kept =
                        (double)(type ? ((const float *)cache)[at] : ht_f16_to_f32(((const uint16_t *)cache)[at]));
                    check(kept, to[i], fabs(to[i]) * (type ? 0x1p-20 : 0x1p-10) + 1e-6,
                          value ? "values in the cache" : "keys in the cache", b->name, t, i);
                    to[i] = kept;
                }
        }
    for (size_t t = 0; t < tokens && ran; t++)
        for (size_t head = 0; head < heads; head++) {
            const size_t at = position + t, first = window && at + 1 > (size_t)window ? at + 1 - (size_t)window : 0,
                         kv = head / group;
            double most = -1e300, sum = 0, *p = calloc(at + 1, sizeof *p);
            for (size_t k = first; k <= at; k++) {
                for (size_t i = 0; i < dim; i++)
                    p[k] += rotated[at * width + head * dim + i] * rotated[k * width + (heads + kv) * dim + i];
                p[k] *= (double)attention.scale;
                most = fmax(most, p[k]);
            }
            for (size_t k = first; k <= at; k++)
                sum += p[k] = exp(p[k] - most);
            for (size_t i = 0; i < dim; i++) {
                double want = 0, size = 0;
                for (size_t k = first; k <= at; k++) {
                    const double term = p[k] / sum * rotated[k * width + (heads + kvs + kv) * dim + i];
                    want += term, size += fabs(term);
                }
                /* an error e of a score changes its weight by e: eps * sqrt(dim) * |score| with scores up to a few hundred */
                check((double)out[t * os + head * dim + i], want,
                      size * (EPS * 8 * sqrt((double)dim) * (fabs(most) + 8)), "attention", b->name, t, head * dim + i);
            }
            free(p);
        }
    free(rotated), free(all), free(table);
    free_pages(b, b->kv.keys, kv_bytes), free_pages(b, b->kv.values, kv_bytes);
    free_slots(b);
}

/* ---- shares of the other operators ----------------------------------------------------------------------------------------- */

/* A slot, or keys or values, as it was and as the whole operator leaves it. */
typedef struct snapshot {
    void *data, *before, *after;
    size_t bytes;
} snapshot;

static snapshot snapshot_of(void *data, size_t bytes) {
    snapshot s = {data, malloc(bytes), malloc(bytes), bytes};
    memcpy(s.before, data, bytes);
    return s;
}

/* What the whole operator made of it is kept, and it is as it was. */
static void take_back(snapshot *s) {
    memcpy(s->after, s->data, s->bytes);
    memcpy(s->data, s->before, s->bytes);
}

static void free_snapshot(snapshot *s) {
    free(s->before), free(s->after);
}

/* Query heads (or features) up to `done`, and key-value heads whose first query head is one, are exactly as the
 * whole operator leaves them, the others as before. The slot has `heads` heads of `dim` values and then any number
 * of `kvs` more. */
static void check_done(const bench *b, const char *what, const snapshot *s, ht_slot slot, size_t tokens, size_t dim,
                       size_t heads, size_t kvs, size_t more, size_t done) {
    const size_t stride = b->slots[slot].stride;
    for (size_t t = 0; t < tokens; t++)
        for (size_t c = 0; c < (heads + more * kvs) * dim; c++) {
            const size_t head = c / dim, query = head < heads ? head : (head - heads) % kvs * (heads / kvs);
            const float *want = query < done ? s->after : s->before;
            check((double)((const float *)s->data)[t * stride + c], (double)want[t * stride + c], 0, what, b->name, t,
                  c);
        }
}

static void check_cache(const bench *b, const char *what, const snapshot *s, size_t head_bytes, size_t kvs,
                        size_t done) {
    for (size_t i = 0; i < kvs; i++) {
        const char *want = i < done ? s->after : s->before;
        check(memcmp((char *)s->data + i * head_bytes, want + i * head_bytes, head_bytes) != 0, 0, 0, what, b->name, 0,
              i);
    }
}

/* Keys and values of earlier tokens are made up. */
static void make_cache(bench *b, size_t values, size_t positions, ht_kv_type type) {
    const size_t bytes = ht_round_up(values * (type ? 4 : 2), 4096);
    b->kv = (ht_kv_layer){make_pages(b, bytes), make_pages(b, bytes), positions, type};
    for (size_t i = 0; i < 2 * values; i++) {
        void *to = i < values ? b->kv.keys : b->kv.values;
        const float value = (float)uniform();
        if (type)
            ((float *)to)[i % values] = value;
        else
            ((uint16_t *)to)[i % values] = ht_f32_to_f16(value);
    }
}

/* ROPE and ATTENTION, one share after the other, each with one head or all but one: key-value heads, or query heads
 * of which so many use one of them. */
static void test_head_shares(bench *b, const ht_hparams *h, size_t group, size_t position, size_t tokens,
                             ht_kv_type type) {
    const size_t dim = (size_t)h->head_dim, heads = (size_t)h->heads, kvs = (size_t)h->kv_heads,
                 of = group > 1 ? heads : kvs, each = heads / of, positions = position + tokens + 3,
                 head_bytes = positions * dim * (type ? 4 : 2);
    float *table = make_rope_table(dim, dim), weight[512];
    fill(weight, dim);
    make_cache(b, kvs * positions * dim, positions, type);
    ht_op rope = {.kind = HT_OP_ROPE,
                  .name = "rope",
                  .in = SLOT_QKV,
                  .out = SLOT_QKV,
                  .rope = table,
                  .rope_dim = (int)dim,
                  .rope_halves = type == HT_KV_F16,
                  .q_norm = type ? weight : NULL,
                  .k_norm = type ? weight : NULL,
                  .eps = 1e-6f};
    ht_op attention = {.kind = HT_OP_ATTENTION, .name = "attention", .in = SLOT_QKV, .out = SLOT_ATTN, .scale = 0.1f};
    rope = shaped(b, rope, h), attention = shaped(b, attention, h);
    float *qkv = make_slot(b, SLOT_QKV, tokens, (heads + 2 * kvs) * dim),
          *out = make_slot(b, SLOT_ATTN, tokens, heads * dim);
    fill(qkv, b->bytes[SLOT_QKV] / 4), fill(out, b->bytes[SLOT_ATTN] / 4);
    snapshot kept[] = {snapshot_of(qkv, b->bytes[SLOT_QKV]), snapshot_of(out, b->bytes[SLOT_ATTN]),
                       snapshot_of(b->kv.keys, kvs * head_bytes), snapshot_of(b->kv.values, kvs * head_bytes)};
    const ht_slice whole = {0};
    const bool ran = run_op(b, &rope, &whole, tokens, position) && run_op(b, &attention, &whole, tokens, position);
    for (int i = 0; i < 4; i++)
        take_back(&kept[i]);
    for (int divided = 0; divided <= divisible(b) && ran; divided++) {
        b->divided = divided;
        const size_t ends[] = {1, ht_max_size(of - 1, 1), of};
        size_t begin = 0, shares = 0;
        for (size_t i = 0; i < HT_COUNT(ends); i++) {
            const ht_slice share = {.row_begin = begin, .row_end = ends[i], .of = of, .group = group};
            const size_t done = ends[i] * each, made = (done * kvs + heads - 1) / heads;
            if (begin == ends[i] || !run_op(b, &rope, &share, tokens, position))
                continue;
            begin = ends[i], shares++;
            check_done(b, "rope's share", &kept[0], SLOT_QKV, tokens, dim, heads, kvs, 2, done);
            check_cache(b, "a share's keys", &kept[2], head_bytes, kvs, made);
            check_cache(b, "a share's values", &kept[3], head_bytes, kvs, made);
            if (run_op(b, &attention, &share, tokens, position))
                check_done(b, "attention's share", &kept[1], SLOT_ATTN, tokens, dim, heads, kvs, 0, done);
        }
        assert_true(!divided || of < 4 || shares == 3);
        for (int i = 0; i < 4; i++)
            memcpy(kept[i].data, kept[i].before, kept[i].bytes);
    }
    b->divided = false;
    for (int i = 0; i < 4; i++)
        free_snapshot(&kept[i]);
    const size_t bytes = ht_round_up(kvs * head_bytes, 4096);
    free_pages(b, b->kv.keys, bytes), free_pages(b, b->kv.values, bytes);
    free(table);
    free_slots(b);
}

static void test_glu_shares(bench *b, const ht_hparams *h, size_t tokens) {
    const size_t n = (size_t)h->feed_forward, ends[] = {n / 4, n / 3, n / 2, n - 1, n};
    const ht_op op = shaped(b, (ht_op){.kind = HT_OP_GLU, .name = "glu", .in = SLOT_FFN, .out = SLOT_ACT}, h);
    float *in = make_slot(b, SLOT_FFN, tokens, 2 * n), *out = make_slot(b, SLOT_ACT, tokens, n);
    fill(in, b->bytes[SLOT_FFN] / 4), fill(out, b->bytes[SLOT_ACT] / 4);
    snapshot kept = snapshot_of(out, b->bytes[SLOT_ACT]);
    const bool ran = run_op(b, &op, &(ht_slice){0}, tokens, 0);
    take_back(&kept);
    for (int divided = 0; divided <= divisible(b) && ran; divided++) {
        b->divided = divided;
        size_t begin = 0, shares = 0;
        for (size_t i = 0; i < HT_COUNT(ends); i++) {
            if (!run_op(b, &op, &(ht_slice){.row_begin = begin, .row_end = ends[i], .of = n}, tokens, 0))
                continue; /* the next share is larger */
            begin = ends[i], shares++;
            check_done(b, "glu's share", &kept, SLOT_ACT, tokens, 1, n, n, 0, begin);
        }
        assert_true(!divided || n < 256 || shares >= 3);
        memcpy(kept.data, kept.before, kept.bytes);
    }
    b->divided = false;
    free_snapshot(&kept);
    free_slots(b);
}

/* Heads and features cut into parts; of operators that are not cut, all other slices are refused. */
static void test_other_shares(bench *b, const ht_hparams *h) {
    static const size_t tokens[] = {1, 2, 33, 31};
    for (size_t i = 0; i < (small ? 2 : HT_COUNT(tokens)); i++) {
        for (size_t group = 0; group < 2 && h->heads > (int)group * h->kv_heads; group++) {
            const size_t queries = group * (size_t)(h->heads / h->kv_heads);
            test_head_shares(b, h, queries, 0, tokens[i], HT_KV_F16);
            test_head_shares(b, h, queries, 7, tokens[i], HT_KV_F32);
            test_head_shares(b, h, queries, 40, tokens[i], HT_KV_F16);
        }
        test_glu_shares(b, h, tokens[i]);
    }
    static const ht_op_kind kinds[] = {HT_OP_EMBED, HT_OP_NORM, HT_OP_ARGMAX, HT_OP_ROPE, HT_OP_ATTENTION, HT_OP_GLU};
    for (size_t k = 0; k < HT_COUNT(kinds); k++) {
        const ht_op op = shaped(b, (ht_op){.kind = kinds[k], .name = "whole", .aux = HT_SLOT_NONE}, h);
        const size_t wrong = (size_t)(h->kv_heads + h->feed_forward);
        assert_true(refused(b, &op, &(ht_slice){.row_end = 1, .of = wrong}));
        assert_true(refused(b, &op, &(ht_slice){.row_end = 1, .of = (size_t)h->heads, .group = 5}));
        assert_true(refused(b, &op, &(ht_slice){.row_begin = 1, .row_end = 2}));
    }
}

/* The largest stands behind another that is as large, and one of another token's is larger than both. */
static void test_argmax(bench *b, const ht_hparams *h) {
    const size_t n = (size_t)h->vocabulary, tokens = 2;
    const ht_op op = shaped(b, (ht_op){.kind = HT_OP_ARGMAX, .name = "argmax", .in = SLOT_LOGITS, .out = SLOT_PICK}, h);
    float *logits = make_slot(b, SLOT_LOGITS, tokens, n);
    int32_t *picks = (int32_t *)(void *)make_slot(b, SLOT_PICK, tokens, 1);
    const size_t stride = b->slots[SLOT_LOGITS].stride;
    fill(logits, (tokens - 1) * stride + n);
    for (size_t i = n; i < stride; i++)
        logits[i] = 1e9f; /* beyond the row */
    logits[n - 1] = logits[n - 2] = 1e6f, logits[stride] = 1e7f;
    if (run_op(b, &op, &(ht_slice){0}, tokens, 0)) {
        check(picks[0], (double)(n - 2), 0, "argmax", b->name, 0, 0);
        check(picks[b->slots[SLOT_PICK].stride], 0, 0, "argmax", b->name, 1, 0);
    }
    free_slots(b);
}

static void test_embed(bench *b) {
    for (size_t k = 0; k < HT_COUNT(block_types); k++) {
        ht_op op = {.kind = HT_OP_EMBED, .name = "embed", .in = SLOT_IDS, .out = SLOT_X, .n_parts = 1, .scale = 2.5f};
        op.parts[0] = make_matrix("embedding", k, 19, 512);
        int32_t *ids = (int32_t *)(void *)make_slot(b, SLOT_IDS, 3, 1);
        b->slots[SLOT_IDS].stride = 1;
        ids[0] = 18, ids[1] = 0, ids[2] = 7;
        float *x = make_slot(b, SLOT_X, 3, 512), want[512];
        if (run_op(b, &op, &(ht_slice){0}, 3, 0))
            for (size_t t = 0; t < 3; t++) {
                ht_matrix_floats(&op.parts[0], (size_t)ids[t], 1, want);
                for (size_t i = 0; i < 512; i++)
                    check((double)x[t * b->slots[SLOT_X].stride + i], 2.5 * (double)want[i],
                          4 * EPS * fabs((double)want[i]), "embed", b->name, t, i);
            }
        free_slots(b);
        free((void *)(uintptr_t)op.parts[0].data);
    }
}

/* ---- devices ----------------------------------------------------------------------------------------------------------------------- */

static const char *specs[16] = {HT_TEST_ISAS};
static size_t n_specs;

/* The last one is for shares alone. */
static const ht_hparams shapes[] = {
    {.layers = 1, .embedding = 96, .heads = 6, .kv_heads = 2, .head_dim = 64, .feed_forward = 200, .vocabulary = 19},
    {.layers = 1, .embedding = 577, .heads = 4, .kv_heads = 1, .head_dim = 256, .feed_forward = 64, .vocabulary = 35},
    {.layers = 1, .embedding = 64, .heads = 2, .kv_heads = 2, .head_dim = 20, .feed_forward = 33, .vocabulary = 19},
    {.layers = 1, .embedding = 32, .heads = 8, .kv_heads = 4, .head_dim = 32, .feed_forward = 256, .vocabulary = 19}};
enum { SHAPES = HT_COUNT(shapes) };

/* A model whose layers have these shapes: it says the most of each. */
static ht_hparams most_of_shapes(void) {
    ht_hparams most = {.layers = SHAPES};
    for (size_t i = 0; i < SHAPES; i++) {
        const ht_hparams *h = &shapes[i];
        most.embedding = h->embedding > most.embedding ? h->embedding : most.embedding;
        most.heads = h->heads > most.heads ? h->heads : most.heads;
        most.kv_heads = h->kv_heads > most.kv_heads ? h->kv_heads : most.kv_heads;
        most.head_dim = h->head_dim > most.head_dim ? h->head_dim : most.head_dim;
        most.feed_forward = h->feed_forward > most.feed_forward ? h->feed_forward : most.feed_forward;
        most.vocabulary = h->vocabulary > most.vocabulary ? h->vocabulary : most.vocabulary;
        most.group = h->heads / h->kv_heads > most.group ? h->heads / h->kv_heads : most.group;
    }
    return most;
}

static void test_shape(bench *b, size_t i) {
    const ht_hparams *h = &shapes[i];
    test_other_shares(b, h);
    if (i == SHAPES - 1)
        return;
    test_norm(b, h);
    test_glu(b, h);
    test_argmax(b, h);
    test_attention(b, h, 0, true, i == 1, 0, 1, HT_KV_F16);
    test_attention(b, h, 0, false, false, 0, 2, HT_KV_F32);
    test_attention(b, h, 0, false, false, 0, 2, HT_KV_F16);
    test_attention(b, h, 17, true, true, 70, 67, HT_KV_F32);
    test_attention(b, h, 0, true, true, 0, 33, HT_KV_F16);
    test_attention(b, h, 0, false, i == 0, 70, 31, HT_KV_F16);
    test_attention(b, h, 17, true, true, 70, 67, HT_KV_F16);
    test_attention(b, h, 17, false, false, 130, 1, HT_KV_F16);
    test_attention(b, h, 512, false, false, 130, 3, HT_KV_F16);
    test_attention(b, h, 7, i == 0, true, 21, 10, HT_KV_F16);
    test_attention(b, h, 5, false, i == 0, 36, 1, HT_KV_F32);
}

/* False: it is not there. */
static bool open_bench(const char *spec, ht_precision precision, const ht_hparams *hparams, bench *b) {
    const bool half = strncmp(spec, "ort:qnn", 7) == 0;
    *b = (bench){.name = spec, .fast = precision == HT_PRECISION_FAST && !half, .step = half ? 0x1p-11 : 0};
    ht_error error = {0};
    const ht_device_options options = {
        .threads = 2, .precision = precision, .hparams = hparams, .max_tokens = 1024, .max_context = MAX_CONTEXT};
    if (half && precision == HT_PRECISION_FAST)
        return false; /* the same arithmetic, and an emulator is slow */
    if (!ht_device_open(spec, &options, &b->device, &error))
        return true;
    if (error.status != HT_ERROR_DEVICE)
        fail_msg("%s", error.text);
    if (must_have(runtime_of(spec), error.text))
        fail_msg("no %s", spec);
    return false;
}

static void test_matrices(bench *b) {
    test_matmuls(b), test_shares(b), test_ffn(b), test_embed(b);
    if (divisible(b))
        test_ranges(b), test_bad_parts(b);
}

/* A model a shape, whose layers are all alike: operators say nothing. */
static void test_alike(const char *spec, ht_precision precision) {
    bench b;
    for (size_t i = 0; i < SHAPES && open_bench(spec, precision, &shapes[i], &b); i++) {
        if (i == 0)
            test_matrices(&b);
        test_shape(&b, i);
        b.device->ops->close(b.device);
    }
}

/* One model with all the shapes: whatever is done for a shape must not be done with another's figures. */
static void test_differing(const char *spec, ht_precision precision) {
    const ht_hparams most = most_of_shapes();
    bench b;
    if (!open_bench(spec, precision, &most, &b))
        return;
    b.own_shape = true;
    test_matrices(&b);
    for (size_t i = 0; i < SHAPES; i++)
        test_shape(&b, i);
    b.device->ops->close(b.device);
}

static void test_exact(void **state) {
    for (size_t i = 0; i < n_specs; i++)
        test_alike(specs[i], HT_PRECISION_EXACT);
    assert_int_equal(failures, 0);
}
static void test_fast(void **state) {
    for (size_t i = 0; i < n_specs; i++)
        test_differing(specs[i], HT_PRECISION_FAST);
    assert_int_equal(failures, 0);
}

int main(int argc, char **argv) {
    int first = 1;
    if (argc > first && strcmp(argv[first], "--small") == 0)
        small = true, first++;
    if (getenv("HETERO_LOG"))
        ht_log_set(NULL, NULL, HT_LOG_DEBUG);
    if (argc > first)
        memset(specs, 0, sizeof specs);
    while (n_specs < HT_COUNT(specs) && specs[n_specs])
        n_specs++;
    for (int i = first; i < argc && n_specs < HT_COUNT(specs); i++)
        specs[n_specs++] = argv[i];
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_exact), cmocka_unit_test(test_fast)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
