/* Proves the seam (src/device/device.h) with devices as unlike as can be: a pool of threads, a GPU queue with imported
 * memory, static graphs that compute in the caller. Each does one layer's fused matrix multiplication alone; then its
 * rows are cut over two and three of them into one buffer of the pool. Devices that this machine lacks are skipped,
 * with the reason printed. */
#include "device/common.h"
#include "needs.h"
#include "slots.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COLS 576
#define ROWS 1536
#define SPLIT 700 /* rows of the first part; neither it nor the cuts below are whole blocks of any layout */
#define TOKENS 300
#define STRIDE_IN (COLS + 64)
#define STRIDE_OUT (ROWS + 48)
#define SENTINEL 0x7fc0deadu /* a NaN no arithmetic makes */

static const size_t token_counts[] = {1, 2, 31, 33, 64, 300};

typedef struct layer { /* a fused operator, its input and the exact answer */
    ht_op op;
    uint8_t *weights[2];
    float bias[ROWS - SPLIT];
    double *expected, *bound; /* [TOKENS][ROWS]: x.W + bias, and how far float32 sums may be from it */
} layer;

static ht_view slots[HT_MAX_SLOTS];
static double worst; /* largest error seen so far, as a part of its bound */
static const size_t in_bytes = TOKENS * STRIDE_IN * sizeof(float), out_bytes = TOKENS * STRIDE_OUT * sizeof(float);
static const ht_hparams hparams = {.layers = 1,
                                   .embedding = COLS,
                                   .heads = 9,
                                   .kv_heads = 3,
                                   .head_dim = 64,
                                   .feed_forward = ROWS / 2,
                                   .vocabulary = 1000,
                                   .context_length = 512,
                                   .eps = 1e-5f};

static uint32_t random_state = 1;
static float random_float(void) { /* roughly normal */
    float sum = 0;
    for (int i = 0; i < 4; i++) {
        random_state = random_state * 1664525u + 1013904223u;
        sum += (float)(random_state >> 8) / (1 << 24) - 0.5f;
    }
    return sum * 1.7f;
}

static ht_matrix make_matrix(const char *type, size_t rows, uint8_t **memory) {
    ht_matrix m = {.name = type, .type = ht_type_by_name(type), .rows = rows, .cols = COLS};
    m.row_bytes = COLS / (size_t)m.type->block * (size_t)m.type->block_bytes;
    m.data = *memory = malloc(rows * m.row_bytes);
    float row[COLS];
    for (size_t r = 0; r < rows; r++) {
        float shift = 0.1f * random_float(), size = 0.02f + 0.01f * fabsf(random_float());
        for (size_t c = 0; c < COLS; c++)
            row[c] = shift * size + size * random_float();
        ht_encode_row(m.type->type, row, NULL, COLS, *memory + r * m.row_bytes);
    }
    return m;
}

static layer make_layer(const char *first, const char *second, bool bias) {
    layer l = {.op = {.kind = HT_OP_MATMUL,
                      .layer = 0,
                      .name = "blk.0.ffn_gate_up",
                      .in = SLOT_NORMED,
                      .aux = HT_SLOT_NONE,
                      .out = SLOT_FFN,
                      .n_parts = 2}};
    l.op.parts[0] = make_matrix(first, SPLIT, &l.weights[0]);
    l.op.parts[1] = make_matrix(second, ROWS - SPLIT, &l.weights[1]);
    for (size_t i = 0; i < ROWS - SPLIT; i++)
        l.bias[i] = bias ? random_float() : 0;
    l.expected = calloc(TOKENS * ROWS, sizeof *l.expected);
    l.bound = calloc(TOKENS * ROWS, sizeof *l.bound);
    const float *x = slots[SLOT_NORMED].data;
    float w[COLS];
    for (size_t r = 0; r < ROWS; r++) {
        bool second_part = r >= SPLIT;
        ht_matrix_floats(&l.op.parts[second_part], second_part ? r - SPLIT : r, 1, w);
        for (size_t t = 0; t < TOKENS; t++) {
            double sum = second_part ? (double)l.bias[r - SPLIT] : 0, size = fabs(sum);
            for (size_t c = 0; c < COLS; c++) {
                double product = (double)x[t * STRIDE_IN + c] * (double)w[c];
                sum += product;
                size += fabs(product);
            }
            l.expected[t * ROWS + r] = sum;
            /* Rounding errors of a sum of n terms grow as sqrt(n). */
            l.bound[t * ROWS + r] = sqrt(COLS) * (double)FLT_EPSILON * size;
        }
    }
    return l;
}

static void free_layer(layer *l) {
    free(l->weights[0]);
    free(l->weights[1]);
    free(l->expected);
    free(l->bound);
}

/* `l` must stay where it is: the operator points into it. */
static void use_bias(layer *l) {
    l->op.bias[1] = l->bias;
}

/* NULL, with the reason printed, if this machine has no such device. */
static ht_device *open_device(const char *spec, ht_precision precision) {
    ht_device_options options = {.precision = precision, .hparams = &hparams, .max_tokens = TOKENS, .max_context = 512};
    ht_device *device = NULL;
    ht_error error = {0};
    ht_status status = ht_device_open(spec, &options, &device, &error);
    if (status == HT_ERROR_ARGUMENT && strstr(error.text, "cpus= requires an OpenCL device that is a CPU"))
        status = ht_device_open("opencl:0", &options, &device, &error); /* a real GPU: all of it */
    if (status != HT_OK) {
        if (strncmp(spec, "cpu", 3) == 0 || status != HT_ERROR_DEVICE)
            fail_msg("%s", error.text);
        if (must_have(runtime_of(spec), error.text))
            fail_msg("no %s", spec);
        return NULL;
    }
    if (device->ops->import) {
        assert_int_equal(device->ops->import(device, slots[SLOT_NORMED].data, in_bytes, &error), HT_OK);
        assert_int_equal(device->ops->import(device, slots[SLOT_FFN].data, out_bytes, &error), HT_OK);
    }
    return device;
}

static ht_task *prepare(ht_device *device, const ht_op *op, size_t row_begin, size_t row_end) {
    ht_slice slice = {.row_begin = row_begin, .row_end = row_end, .reduction_end = COLS};
    assert_null(device->ops->refuses(device, op, &slice));
    ht_error error = {0};
    ht_task *task = NULL;
    if (device->ops->prepare(device, op, &slice, &task, &error) != HT_OK)
        fail_msg("%s", error.text);
    return task;
}

static void fill_output(void) {
    uint32_t *words = slots[SLOT_FFN].data;
    for (size_t i = 0; i < out_bytes / sizeof *words; i++)
        words[i] = SENTINEL;
}

/* Rows [begin, end) of `tokens` tokens are right, every other word is untouched. */
static void check_output(const layer *l, size_t tokens, size_t begin, size_t end, const char *who) {
    const ht_view *out = &slots[SLOT_FFN];
    const uint32_t *words = out->data;
    for (size_t i = 0; i < out_bytes / sizeof *words; i++) {
        size_t t = i / out->stride, r = i % out->stride;
        bool inside = t < tokens && r >= begin && r < end;
        if (!inside) {
            if (words[i] != SENTINEL)
                fail_msg("%s, %zu tokens: token %zu row %zu is not its own", who, tokens, t, r);
            continue;
        }
        double got = (double)((const float *)out->data)[i], error = fabs(got - l->expected[t * ROWS + r]);
        double part = error / l->bound[t * ROWS + r];
        if (!(part <= 1))
            fail_msg("%s, %zu tokens: token %zu row %zu: %.9g, not %.9g (bound %.2g)", who, tokens, t, r, got,
                     l->expected[t * ROWS + r], l->bound[t * ROWS + r]);
        if (part > worst)
            worst = part;
    }
}

static void submit(ht_device *device, ht_task *task, const ht_binding *binding, const ht_dependency *after,
                   size_t n_after, ht_ticket *ticket) {
    ht_error error = {0};
    ht_ticket before = *ticket;
    if (device->ops->submit(device, task, binding, after, n_after, ticket, &error) != HT_OK)
        fail_msg("%s", error.text);
    assert_true(*ticket > before);
}

static void join(ht_device *device, ht_ticket ticket, ht_sync sync) {
    ht_error error = {0};
    if (device->ops->wait(device, ticket, sync, &error) != HT_OK)
        fail_msg("%s", error.text);
    assert_true(device->ops->completed(device) >= ticket);
}

/* Every token count, dense and strided, every way of waiting. */
static void run_alone(ht_device *device, const layer *l, size_t begin, size_t end, const char *who) {
    ht_task *task = prepare(device, &l->op, begin, end);
    ht_ticket ticket = 0;
    for (size_t i = 0; i < HT_COUNT(token_counts); i++)
        for (int strided = 0; strided < 2; strided++) {
            slots[SLOT_FFN].stride = strided ? STRIDE_OUT : ROWS;
            ht_binding binding = {.slots = slots, .tokens = token_counts[i]};
            ht_error warm_error = {0};
            if (device->ops->warm && device->ops->warm(device, task, token_counts[i], &warm_error) != HT_OK)
                fail_msg("%s", warm_error.text);
            if (device->ops->settle && device->ops->settle(device, task, token_counts[i], &warm_error) != HT_OK)
                fail_msg("%s", warm_error.text);
            const size_t warm_bytes = device->ops->task_bytes(task);
            fill_output();
            submit(device, task, &binding, NULL, 0, &ticket);
            join(device, ticket, (ht_sync)((2 * i + (size_t)strided) % 4));
            check_output(l, token_counts[i], begin, end, who);
            assert_int_equal(device->ops->task_bytes(task), warm_bytes); /* the submit built nothing more */
        }
    assert_true(device->ops->task_bytes(task) >= (end - begin) * COLS / 2);
    device->ops->release(device, task);
}

static layer layers[4]; /* made once: the reference takes longest */

static void test_alone(void **state) {
    static const char *const specs[] = {"cpu",
                                        "opencl:0",
                                        "opencl:0:memory=copied",
                                        "opencl:0:cpus=1",
                                        "openvino:CPU",
                                        "openvino:CPU:cpus=1:lengths=1+48"};
    for (size_t i = 0; i < HT_COUNT(specs); i++) {
        ht_device *device = open_device(specs[i], HT_PRECISION_EXACT);
        if (!device)
            continue;
        worst = 0;
        for (size_t j = 0; j < HT_COUNT(layers); j++) {
            run_alone(device, &layers[j], 0, ROWS, specs[i]);
            run_alone(device, &layers[j], 37, 1219, specs[i]);
        }
        run_alone(device, &layers[0], SPLIT - 1, SPLIT, specs[i]); /* one row */
        print_message("%-34s largest error %.2f of the bound\n", specs[i], worst);
        device->ops->close(device);
    }
}

/* One layer's rows over several devices at once: the one that computes in the caller comes last. */
static void run_cut(const char *const *specs, const size_t *cuts, size_t n) {
    ht_device *devices[3];
    for (size_t i = 0; i < n; i++)
        devices[i] = open_device(specs[i], HT_PRECISION_EXACT);
    bool all = true;
    for (size_t i = 0; i < n; i++)
        all &= devices[i] != NULL;
    for (size_t j = 0; j < HT_COUNT(layers) && all; j++) {
        ht_task *tasks[3];
        ht_ticket tickets[3] = {0};
        for (size_t i = 0; i < n; i++)
            tasks[i] = prepare(devices[i], &layers[j].op, cuts[i], cuts[i + 1]);
        for (size_t k = 0; k < HT_COUNT(token_counts); k++) {
            slots[SLOT_FFN].stride = STRIDE_OUT;
            ht_binding binding = {.slots = slots, .tokens = token_counts[k]};
            fill_output();
            for (int last = 0; last < 2; last++)
                for (size_t i = 0; i < n; i++)
                    if (devices[i]->ops->caps(devices[i])->runs_in_caller == last)
                        submit(devices[i], tasks[i], &binding, NULL, 0, &tickets[i]);
            for (size_t i = 0; i < n; i++)
                join(devices[i], tickets[i], HT_SYNC_EVENT);
            check_output(&layers[j], token_counts[k], cuts[0], cuts[n], n == 2 ? "cut in two" : "cut in three");
        }
        for (size_t i = 0; i < n; i++)
            devices[i]->ops->release(devices[i], tasks[i]);
    }
    for (size_t i = 0; i < n; i++)
        if (devices[i])
            devices[i]->ops->close(devices[i]);
    if (!all)
        skip();
}

static void test_cut_in_two(void **state) {
    run_cut((const char *const[]){"openvino:CPU:cpus=1", "opencl:0:cpus=0"}, (const size_t[]){0, 777, ROWS}, 2);
}

static void test_cut_in_three(void **state) {
    run_cut((const char *const[]){"cpu", "opencl:0", "openvino:CPU"}, (const size_t[]){0, 521, 1100, ROWS}, 3);
}

/* out (COLS columns of FFN) . W of rows [0, 64), from the exact first product. */
static void check_second(const layer *l, size_t tokens, const char *who) {
    float w[COLS];
    const ht_view *out = &slots[SLOT_LOGITS];
    for (size_t r = 0; r < 64; r++) {
        ht_matrix_floats(&l->op.parts[0], r, 1, w);
        for (size_t t = 0; t < tokens; t++) {
            double sum = 0, size = 0;
            for (size_t c = 0; c < COLS; c++) {
                sum += l->expected[t * ROWS + c] * (double)w[c];
                size += fabs(l->expected[t * ROWS + c] * (double)w[c]);
            }
            double got = (double)((const float *)out->data)[t * out->stride + r];
            if (!(fabs(got - sum) <= 1e-5 * size))
                fail_msg("%s: token %zu row %zu: %g, not %g", who, t, r, got, sum);
        }
    }
}

/* A second multiplication reads what a first one on another device wrote: the dependency alone orders them. The first
 * device is given other work before, so that one who does not wait reads sentinels. */
static void test_dependency(void **state) {
    static const char *const pairs[][2] = {{"opencl:0:cpus=0", "opencl:0:cpus=1"},
                                           {"opencl:0", "openvino:CPU"},
                                           {"openvino:CPU", "opencl:0"},
                                           {"opencl:0:memory=copied", "cpu"},
                                           {"cpu", "opencl:0"}};
    const layer *l = &layers[0];
    const size_t tokens = 64;
    ht_op back = l->op; /* NORMED -> FFN's first columns -> NORMED's own spare columns, as another slot */
    back.in = SLOT_FFN;
    back.out = SLOT_LOGITS;
    slots[SLOT_FFN].stride = STRIDE_OUT;
    slots[SLOT_LOGITS] = (ht_view){(float *)slots[SLOT_NORMED].data + COLS, STRIDE_IN};
    for (size_t p = 0; p < HT_COUNT(pairs); p++) {
        ht_device *first = open_device(pairs[p][0], HT_PRECISION_EXACT);
        ht_device *second = first ? open_device(pairs[p][1], HT_PRECISION_EXACT) : NULL;
        if (second) {
            ht_task *other = prepare(first, &l->op, COLS, ROWS), *there = prepare(first, &l->op, 0, COLS);
            ht_task *on = prepare(second, &back, 0, 64);
            ht_binding binding = {.slots = slots, .tokens = tokens}, more = {.slots = slots, .tokens = TOKENS};
            ht_ticket one = 0, two = 0;
            submit(second, on, &binding, NULL, 0, &two); /* builds what the first submit of a task builds */
            join(second, two, HT_SYNC_EVENT);
            fill_output();
            for (int i = 0; i < 8; i++)
                submit(first, other, &more, NULL, 0, &one);
            submit(first, there, &binding, NULL, 0, &one);
            submit(second, on, &binding, &(ht_dependency){first, one}, 1, &two);
            join(second, two, HT_SYNC_EVENT);
            assert_true(first->ops->completed(first) >= one);
            check_second(l, tokens, pairs[p][1]);
            first->ops->release(first, other);
            first->ops->release(first, there);
            second->ops->release(second, on);
            second->ops->close(second);
        }
        if (first)
            first->ops->close(first);
    }
}

/* Many submits in flight: tickets ascend, completed never runs ahead or back, the last wait covers all. */
static void test_tickets(void **state) {
    ht_device *device = open_device("opencl:0", HT_PRECISION_EXACT);
    if (!device)
        skip();
    ht_task *task = prepare(device, &layers[0].op, 0, 64);
    slots[SLOT_FFN].stride = STRIDE_OUT;
    ht_binding binding = {.slots = slots, .tokens = 1};
    ht_ticket ticket = 0, seen = 0;
    fill_output();
    for (int i = 0; i < 600; i++) { /* more than the events it keeps */
        submit(device, task, &binding, NULL, 0, &ticket);
        ht_ticket now = device->ops->completed(device);
        assert_true(now >= seen && now <= ticket);
        seen = now;
    }
    join(device, ticket, HT_SYNC_EVENT);
    assert_int_equal(device->ops->completed(device), ticket);
    check_output(&layers[0], 1, 0, 64, "opencl:0");
    ht_error error = {0};
    assert_int_equal(device->ops->wait(device, ticket + 1, HT_SYNC_EVENT, &error), HT_ERROR_ARGUMENT);
    device->ops->release(device, task);
    device->ops->close(device);
}

/* The runtimes' fast modes: quantised activations, so a bound on the whole instead of each number. */
static void test_fast(void **state) {
    static const char *const specs[] = {"cpu", "opencl:0", "openvino:CPU"};
    for (size_t i = 0; i < HT_COUNT(specs); i++) {
        ht_device *device = open_device(specs[i], HT_PRECISION_FAST);
        if (!device)
            continue;
        ht_task *task = prepare(device, &layers[1].op, 0, ROWS);
        slots[SLOT_FFN].stride = ROWS;
        ht_binding binding = {.slots = slots, .tokens = 64};
        ht_ticket ticket = 0;
        submit(device, task, &binding, NULL, 0, &ticket);
        join(device, ticket, HT_SYNC_FINISH);
        double error = 0, size = 0;
        for (size_t j = 0; j < 64 * ROWS; j++) {
            double expected = layers[1].expected[j], got = (double)((float *)slots[SLOT_FFN].data)[j];
            error += (got - expected) * (got - expected);
            size += expected * expected;
        }
        print_message("%s fast: relative error %.1e\n", specs[i], sqrt(error / size));
        assert_true(sqrt(error / size) < 0.02);
        device->ops->release(device, task);
        device->ops->close(device);
    }
}

static void expect_refusal(ht_device *device, const ht_op *op, ht_slice slice) {
    ht_error error = {0};
    ht_task *task = NULL;
    const char *why = device->ops->refuses(device, op, &slice);
    assert_non_null(why);
    assert_int_equal(device->ops->prepare(device, op, &slice, &task, &error), HT_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.text, why));
    assert_null(task);
}

static void test_refusals(void **state) {
    static const char *const specs[] = {"opencl:0", "openvino:CPU"};
    for (size_t i = 0; i < HT_COUNT(specs); i++) {
        ht_device *device = open_device(specs[i], HT_PRECISION_EXACT);
        if (!device)
            continue;
        ht_op op = layers[0].op;
        expect_refusal(device, &op, (ht_slice){.reduction_end = COLS});
        expect_refusal(device, &op, (ht_slice){.row_end = ROWS + 1, .reduction_end = COLS});
        expect_refusal(device, &op,
                       (ht_slice){.row_end = ROWS, .reduction_end = COLS - 16}); /* in the middle of a group */
        if (strncmp(specs[i], "openvino", 8) == 0) {                             /* matrix multiplications only */
            op.kind = HT_OP_GLU;
            expect_refusal(device, &op, (ht_slice){0});
            op.kind = HT_OP_MATMUL;
        }
        assert_null(device->ops->refuses(
            device, &op, &(ht_slice){.row_end = SPLIT, .reduction_end = COLS})); /* its rows are of another part */
        if (device->ops->import) {                                               /* memory that was never imported */
            ht_task *task = prepare(device, &layers[0].op, 0, 64);
            float strange[COLS] = {0};
            ht_view views[HT_MAX_SLOTS];
            memcpy(views, slots, sizeof views);
            views[SLOT_NORMED].data = strange;
            ht_error error = {0};
            ht_ticket ticket = 0;
            assert_int_equal(
                device->ops->submit(device, task, &(ht_binding){.slots = views, .tokens = 1}, NULL, 0, &ticket, &error),
                HT_ERROR_ARGUMENT);
            assert_non_null(strstr(error.text, "not in imported memory"));
            views[SLOT_NORMED] = slots[SLOT_NORMED];
            views[SLOT_FFN].data =
                (char *)slots[SLOT_FFN].data + out_bytes - 32 * sizeof(float); /* runs over its end */
            assert_int_equal(
                device->ops->submit(device, task, &(ht_binding){.slots = views, .tokens = 1}, NULL, 0, &ticket, &error),
                HT_ERROR_ARGUMENT);
            assert_int_equal(ticket, 0);
            device->ops->release(device, task);
        }
        device->ops->close(device);
    }
}

static void expect_bad(const char *spec, const char *culprit) {
    ht_device_options options = {.hparams = &hparams, .max_tokens = TOKENS};
    ht_device *device = NULL;
    ht_error error = {0};
    ht_status status = ht_device_open(spec, &options, &device, &error);
    assert_int_not_equal(status, HT_OK);
    assert_null(device);
    if (status == HT_ERROR_DEVICE)
        return; /* not on this machine: never came to its options */
    assert_int_equal(status, HT_ERROR_ARGUMENT);
    if (!strstr(error.text, culprit))
        fail_msg("'%s' does not name '%s'", error.text, culprit);
}

static void test_names(void **state) {
    expect_bad("", "''");
    expect_bad("tpu", "tpu");
    expect_bad("cpus=0", "cpus=0");
    expect_bad("opencl:0:colour=red", "colour");
    expect_bad("opencl:0:cpus=", "cpus");
    expect_bad("opencl:0:cpus=99", "cpus=99");
    expect_bad("opencl:0:cpus=1-0", "cpus=1-0");
    expect_bad("opencl:0:memory=stolen", "stolen");
    expect_bad("opencl:x", "opencl:x");
    expect_bad("openvino:CPU:lengths=64+1", "lengths=64+1");
    expect_bad("openvino:CPU:lengths=0", "lengths=0");
    expect_bad("openvino:CPU:cpus=x", "cpus=x");

    ht_cores cores = {{0}};
    ht_error error = {0};
    assert_int_equal(ht_parse_cpus("d", "0", &cores, &error), HT_OK);
    assert_int_equal(cores.words[0], 1);
    static const char *const bad[] = {"", "-1", "0-", "0,", "a", "0-1-2", "1024", "99999999999999999999"};
    for (size_t i = 0; i < HT_COUNT(bad); i++)
        assert_int_equal(ht_parse_cpus("d", bad[i], &cores, &error), HT_ERROR_ARGUMENT);
    assert_int_equal(cores.words[0], 1);

    char value[4];
    assert_true(ht_device_option("ab=1:b=23456", "b", value, sizeof value));
    assert_string_equal(value, "234");
    assert_false(ht_device_option("ab=1:b=2", "a", value, sizeof value));
    assert_false(ht_device_option("", "a", value, sizeof value));
}

static void test_list(void **state) {
    ht_device_info *list = NULL;
    size_t n = 0;
    ht_error error = {0};
    assert_int_equal(ht_devices_list(&list, &n, &error), HT_OK);
    bool seen[3] = {false};
    for (size_t i = 0; i < n; i++) {
        static const char *const prefixes[] = {"cpu", "opencl", "openvino"};
        for (size_t j = 0; j < 3; j++)
            seen[j] |= strncmp(list[i].name, prefixes[j], strlen(prefixes[j])) == 0;
        assert_true(list[i].usable || list[i].why[0]);
        print_message("%-12s %s %s, %s: %s\n", list[i].name, list[i].kind, list[i].runtime, list[i].description,
                      list[i].usable ? "usable" : list[i].why);
    }
    assert_true(seen[0] && seen[1] && seen[2]); /* found, or said to be missing */
    ht_free(list);
}

static int set_up(void **state) {
    slots[SLOT_NORMED] = (ht_view){ht_pages_alloc(in_bytes), STRIDE_IN};
    slots[SLOT_FFN] = (ht_view){ht_pages_alloc(out_bytes), STRIDE_OUT};
    if (!slots[SLOT_NORMED].data || !slots[SLOT_FFN].data)
        return -1;
    float *x = slots[SLOT_NORMED].data;
    for (size_t i = 0; i < TOKENS * STRIDE_IN; i++)
        x[i] = random_float();
    layers[0] = make_layer("Q4_0", "Q4_0", false);
    layers[1] = make_layer("Q4_1", "Q4_1", false);
    layers[2] = make_layer("Q8_0", "Q8_0", false);
    layers[3] = make_layer("Q4_1", "Q8_0", true); /* parts of different forms, one with a bias */
    use_bias(&layers[3]);
    return 0;
}

static int tear_down(void **state) {
    for (size_t i = 0; i < HT_COUNT(layers); i++)
        free_layer(&layers[i]);
    ht_pages_free(slots[SLOT_NORMED].data, in_bytes);
    ht_pages_free(slots[SLOT_FFN].data, out_bytes);
    return 0;
}

/* What sanitizers are told: the drivers and runtimes are not ours and not instrumented. */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void) {
    return "race:libtbb.so\nrace:libtbbbind\nrace:libhwloc\nrace:libopenvino\nrace:libpocl\n";
}

int main(void) {
    setenv("TBB_ENABLE_SANITIZERS", "1", 0); /* or OpenVINO's TBB opens libraries in a way that AddressSanitizer ends */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_list),       cmocka_unit_test(test_names),      cmocka_unit_test(test_alone),
        cmocka_unit_test(test_fast),       cmocka_unit_test(test_cut_in_two), cmocka_unit_test(test_cut_in_three),
        cmocka_unit_test(test_dependency), cmocka_unit_test(test_tickets),    cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
