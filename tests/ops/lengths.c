/* Long graphs and wide slices, on the devices of ONNX Runtime: slices of 200 and of 1376 rows of one matrix, and of as many
 * features of a feed-forward block, at 128, 300, 512 and 1024 tokens. All forms of weights at 128; without and with
 * offsets elsewhere. Prints the errors of each.
 *
 * usage: test_lengths [DEVICE ...]   default: ort:cpu. `make soak` has ort:qnn, whose emulator takes minutes.
 */
#include "ops/products.h"

#define ROWS 1576
#define COLS 256

static const ht_slice slices[] = {{.row_end = 200, .reduction_end = COLS},
                                  {.row_begin = 200, .row_end = ROWS, .reduction_end = COLS}};
static const size_t token_counts[] = {128, 300, 512, 1024};
static const char *specs[8] = {"ort:cpu"};
static size_t n_specs = 1;

static void report(const bench *b, const char *what, const char *type, size_t rows, size_t tokens) {
    printf("%s: %s %s, %zu rows, %zu tokens: error %.2g of %.2g (%.2g), %.0f%% of its bound\n", b->name, what, type,
           rows, tokens, worst.error, worst.largest, worst.error / worst.largest, 100 * worst.share);
    fflush(stdout);
    memset(&worst, 0, sizeof worst);
}

static void test_matmuls(bench *b, size_t kind, size_t tokens) {
    ht_op op = {.kind = HT_OP_MATMUL, .name = "matmul", .in = SLOT_NORMED, .out = SLOT_QKV, .n_parts = 1};
    op.parts[0] = make_matrix("w", kind, ROWS, COLS);
    for (size_t i = 0; i < HT_COUNT(slices); i++) {
        assert_false(refused(b, &op, &slices[i]));
        check_matmul(b, &op, slices[i], tokens);
        report(b, "matmul", op.parts[0].type->name, slices[i].row_end - slices[i].row_begin, tokens);
    }
    free((void *)(uintptr_t)op.parts[0].data);
}

static void test_ffn(bench *b, size_t kind, size_t tokens) {
    ht_op op, members[3] = {{.kind = HT_OP_MATMUL, .name = "gate_up", .in = SLOT_NORMED, .out = SLOT_FFN, .n_parts = 2},
                            {.kind = HT_OP_GLU, .name = "glu", .in = SLOT_FFN, .out = SLOT_ACT},
                            {.kind = HT_OP_MATMUL, .name = "down", .in = SLOT_ACT, .out = SLOT_DELTA, .n_parts = 1}};
    members[0].parts[0] = make_matrix("gate", kind, 1792, COLS); /* 1376 and 416 features: whole blocks of 32 */
    members[0].parts[1] = make_matrix("up", kind, 1792, COLS);
    members[2].parts[0] = make_matrix("down", kind, 200, 1792);
    assert_true(ht_op_ffn(members, 3, &op));
    check_ffn(b, &op, (ht_slice){.row_begin = 416, .row_end = 1792}, tokens);
    report(b, "ffn", members[0].parts[0].type->name, 1376, tokens);
    for (int p = 0; p < 3; p++)
        free((void *)(uintptr_t)members[p / 2 * 2].parts[p % 2].data);
}

static void test_device(const char *spec) {
    static const ht_hparams shape = {.layers = 1, .embedding = 64, .heads = 1, .kv_heads = 1, .head_dim = 64};
    const ht_device_options options = {
        .threads = 2, .precision = HT_PRECISION_EXACT, .hparams = &shape, .max_tokens = 1024, .max_context = 64};
    bench b = {.name = spec, .step = strncmp(spec, "ort:qnn", 7) == 0 ? 0x1p-11 : 0};
    ht_error error = {0};
    if (ht_device_open(spec, &options, &b.device, &error)) {
        if (error.status != HT_ERROR_DEVICE)
            fail_msg("%s", error.text);
        if (must_have(runtime_of(spec), error.text))
            fail_msg("no %s", spec);
        return;
    }
    for (size_t i = 0; i < HT_COUNT(token_counts); i++)
        for (size_t k = 0; k < (i ? 2 : HT_COUNT(block_types)); k++) {
            test_matmuls(&b, k, token_counts[i]);
            if (k == i % 2)
                test_ffn(&b, k, token_counts[i]);
        }
    b.device->ops->close(b.device);
}

static void test_lengths(void **state) {
    for (size_t i = 0; i < n_specs; i++)
        test_device(specs[i]);
    assert_int_equal(failures, 0);
}

int main(int argc, char **argv) {
    if (argc > 1)
        n_specs = 0;
    for (int i = 1; i < argc && n_specs < HT_COUNT(specs); i++)
        specs[n_specs++] = argv[i];
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_lengths)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
