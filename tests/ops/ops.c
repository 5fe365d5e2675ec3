/* Every operator on every device against a scalar reference in double precision: op x type x shape x tokens x device.
 *
 * usage: test_ops [--small] [DEVICE ...]   default: the CPU once for each instruction set, the first OpenCL device
 *   --small: few and small shapes, in memory that ends where the values do: for emulators that check every access
 */
#include "ops/attention.h"
#include "ops/pointwise.h"
#include "ops/streams.h"

/* ---- matmul
 * ----------------------------------------------------------------------------------------------------------------------- */

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
    for (size_t k = FIRST_FLOAT; k < FLOATS_END; k++) {
        ht_op odd = {.kind = HT_OP_MATMUL, .name = "odd", .in = SLOT_NORMED, .out = SLOT_QKV, .n_parts = 1};
        odd.parts[0] = make_matrix("odd", k, 37, 50);
        check_matmul(b, &odd, (ht_slice){.row_end = 37, .reduction_end = 50}, 1);
        check_matmul(b, &odd, (ht_slice){.row_end = 37, .reduction_end = 50}, 13);
        free((void *)(uintptr_t)odd.parts[0].data);
    }
}

/* ---- parts and shares of matmuls
 * ----------------------------------------------------------------------------------------- */

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
    for (size_t k = FIRST_FLOAT; k < FLOATS_END; k++) { /* columns that are no whole group */
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

/* ---- feed-forward blocks
 * ------------------------------------------------------------------------------------------------- */

static void test_ffn(bench *b) {
    static const size_t token_counts[] = {1, 33, 300};
    static const size_t kinds[][3] = {
        {0, 0, 0}, {1, 1, 1}, {5, 5, 7}, {4, 4, 4}, {FIRST_FLOAT, FIRST_FLOAT, FIRST_FLOAT}}; /* Q4_K_M: down in Q6_K */
    for (size_t k = 0; k < HT_COUNT(kinds); k++) {
        ht_op members[3] = {{.kind = HT_OP_MATMUL, .name = "gate_up", .in = SLOT_NORMED, .out = SLOT_FFN, .n_parts = 2},
                            {.kind = HT_OP_GLU, .name = "glu", .in = SLOT_FFN, .out = SLOT_ACT, .activation = k & 1},
                            {.kind = HT_OP_MATMUL, .name = "down", .in = SLOT_ACT, .out = SLOT_DELTA, .n_parts = 1}};
        members[0].parts[0] = make_matrix("gate", kinds[k][0], 512, 256);
        members[0].parts[1] = make_matrix("up", kinds[k][1], 512, 256);
        members[2].parts[0] = make_matrix("down", kinds[k][2], 70, 512);
        ht_op op;
        assert_true(ht_op_ffn(members, 3, &op));
        op.activation = HT_ACT_GELU; /* no graph has it: it must not be computed as another */
        assert_true(refused(b, &op, &(ht_slice){.row_end = 512}));
        op.activation = members[1].activation;
        each_count(b, &op, (ht_slice){.row_end = 512}, token_counts, k < 2 ? HT_COUNT(token_counts) : 1, check_ffn);
        check_ffn(b, &op, (ht_slice){.row_end = 192}, 31); /* shares: partial sums of all rows */
        check_ffn(b, &op, (ht_slice){.row_begin = 192, .row_end = 512}, 31);
        for (int p = 0; p < 3; p++)
            free((void *)(uintptr_t)members[p / 2 * 2].parts[p % 2].data);
    }
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
        for (size_t each = 1; each <= 32; each *= 32)
            if (h->feed_forward % (int)each == 0)
                test_glu_shares(b, h, each == 1 ? BEHIND : SIDE, each, tokens[i]);
    }
    static const ht_op_kind kinds[] = {HT_OP_EMBED, HT_OP_NORM, HT_OP_ARGMAX, HT_OP_ROPE, HT_OP_ATTENTION, HT_OP_GLU};
    for (size_t k = 0; k < HT_COUNT(kinds); k++) {
        const ht_op op = shaped(b, (ht_op){.kind = kinds[k], .name = "whole", .aux = HT_SLOT_NONE}, h);
        const size_t wrong = (size_t)(h->kv_heads + h->feed_forward);
        assert_true(refused(b, &op, &(ht_slice){.row_end = 1, .of = wrong}));
        if (kinds[k] != HT_OP_GLU) /* whose parts are features, whatever they are counted in */
            assert_true(refused(b, &op, &(ht_slice){.row_end = 1, .of = (size_t)h->heads, .group = 5}));
        assert_true(refused(b, &op, &(ht_slice){.row_begin = 1, .row_end = 2}));
        ht_op rows = op;
        rows.norm_whole = true;
        if (op.kind == HT_OP_ROPE)
            assert_true(refused(b, &rows, &(ht_slice){.row_end = 1, .of = (size_t)h->kv_heads}));
    }
}

/* ---- devices
 * ----------------------------------------------------------------------------------------------------------------------- */

static const char *specs[16] = {HT_TEST_ISAS};
static size_t n_specs;

/* The last but one is for shares alone, the last for many query heads of one key. */
static const ht_hparams shapes[] = {
    {.layers = 1, .embedding = 96, .heads = 6, .kv_heads = 2, .head_dim = 64, .feed_forward = 200, .vocabulary = 19},
    {.layers = 1, .embedding = 577, .heads = 4, .kv_heads = 1, .head_dim = 256, .feed_forward = 64, .vocabulary = 35},
    {.layers = 1, .embedding = 64, .heads = 2, .kv_heads = 2, .head_dim = 20, .feed_forward = 33, .vocabulary = 19},
    {.layers = 1, .embedding = 32, .heads = 8, .kv_heads = 4, .head_dim = 32, .feed_forward = 256, .vocabulary = 19},
    {.layers = 1, .embedding = 32, .heads = 35, .kv_heads = 1, .head_dim = 32, .feed_forward = 32, .vocabulary = 19}};
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
    if (i == SHAPES - 1) {
        if (!small || b->own_shape) /* each is some programs, which drivers take their time to compile */
            test_families(b, h, FAMILIES_TOGETHER);
        test_head_shares(b, h, 35, 7, 33, HT_KV_F32);
        return;
    }
    test_other_shares(b, h);
    if (i == SHAPES - 2)
        return;
    test_norm(b, h);
    test_glu(b, h);
    if (i == 0)
        test_streams(b, h);
    test_argmax(b, h, 0), test_argmax(b, h, 12);
    if (i == 0 ? !small || !b->own_shape : i == 2 && !small)
        test_families(b, h, i ? FAMILIES_TOGETHER : 0);
    test_both_ways(b, h);
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
    test_matmuls(b), test_shares(b), test_ffn(b), test_embed(b), test_head_matrices(b);
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
