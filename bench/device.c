/* One device, one matrix multiplication or one join, measured through the seam.
 *
 *   device matmul DEVICE TYPE ROWS COLS TOKENS[,TOKENS...]   median of 9 after 2: GFLOP/s, and GB/s of packed weights. Copies
 *                                                            of the matrix take turns, 256 MiB of them at least, so that
 *                                                            weights come from memory.
 *   device join DEVICE                                       each way to wait, p50 and p99 of 2,000: a tiny kernel alone
 *                                                            (queue empty before), and behind 20 others
 *
 * Build: see bench/README.md. Exact precision unless FAST is the last argument.
 */
#include "device/device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SLOT_NORMED, SLOT_QKV, SLOT_FFN, SLOT_ACT }; /* there is no model */

enum { MOST_COPIES = 64, RUNS = 9, JOINS = 2000 };

static ht_device *device;
static const ht_device_ops *ops;
static ht_view slots[HT_MAX_SLOTS];

static void must(ht_status status, const ht_error *error) {
    if (status == HT_OK)
        return;
    fprintf(stderr, "%s\n", error->text);
    exit(1);
}

static void make_slot(ht_slot slot, size_t tokens, size_t width) {
    ht_error error;
    const size_t stride = ht_round_up(width, 16), bytes = ht_round_up(tokens * stride * 4, 4096);
    slots[slot] = (ht_view){ht_pages_alloc(bytes), stride};
    for (size_t i = 0; i < tokens * stride; i++)
        ((float *)slots[slot].data)[i] = (float)((double)(i * 2654435761u % 65536) / 32768 - 1);
    if (ops->import)
        must(ops->import(device, slots[slot].data, bytes, &error), &error);
}

static double run(ht_task *const *tasks, size_t n, size_t repeats, size_t tokens) {
    ht_error error;
    ht_ticket ticket = 0;
    const double start = ht_seconds();
    for (size_t i = 0; i < repeats; i++) {
        const ht_binding binding = {.slots = slots,
                                    .tokens = tokens,
                                    .resident = ~0u,
                                    .kept = ~0u,
                                    .joined = i + 1 == repeats,
                                    .sync = HT_SYNC_EVENT};
        must(ops->submit(device, tasks[i % n], &binding, NULL, 0, &ticket, &error), &error);
    }
    must(ops->wait(device, ticket, HT_SYNC_EVENT, &error), &error);
    return ht_seconds() - start;
}

static void matmul(const char *type, size_t rows, size_t cols, const char *lengths) {
    ht_error error;
    ht_op op = {.kind = HT_OP_MATMUL, .name = "matmul", .in = SLOT_NORMED, .out = SLOT_QKV, .n_parts = 1};
    op.aux = HT_SLOT_NONE;
    const ht_type_traits *traits = ht_type_by_name(type);
    if (!traits) {
        fprintf(stderr, "%s: no such type\n", type);
        exit(2);
    }
    op.parts[0] = (ht_matrix){.name = "w",
                              .type = traits,
                              .rows = rows,
                              .cols = cols,
                              .row_bytes = cols / (size_t)traits->block * (size_t)traits->block_bytes};
    const ht_slice whole = {.row_end = rows, .reduction_end = cols};
    ht_task *tasks[MOST_COPIES];
    size_t n = 0, bytes = 0, one = 0;
    for (; n < MOST_COPIES && bytes < (size_t)256 << 20; n++) {
        char *name = malloc(8); /* made-up weights are told apart by their names */
        snprintf(name, 8, "w%zu", n);
        op.parts[0].name = name;
        ht_op *own = malloc(sizeof op); /* operators outlive tasks */
        *own = op;
        must(ops->prepare(device, own, &whole, &tasks[n], &error), &error);
        one = ops->task_bytes(tasks[n]); /* nothing yet on devices that build graphs for a length */
        bytes += one = one ? one : rows * op.parts[0].row_bytes;
    }
    for (const char *at = lengths; *at; at += *at == ',') {
        const size_t tokens = strtoul(at, (char **)&at, 10);
        const double flop = 2.0 * (double)rows * (double)cols * (double)tokens;
        double times[RUNS];
        run(tasks, n, n, tokens);
        const double first = run(tasks, n, 1, tokens);
        const size_t repeats = ht_max_size((size_t)(0.05 / first), n > 1 && tokens == 1 ? n : 1);
        for (int i = 0; i < RUNS; i++)
            times[i] = run(tasks, n, repeats, tokens) / (double)repeats;
        ht_sort_doubles(times, RUNS);
        printf("%s %zux%zu tokens %4zu: %9.1f us (%.1f-%.1f), %8.1f GFLOP/s, %7.2f GB/s\n", type, rows, cols, tokens,
               times[RUNS / 2] * 1e6, times[0] * 1e6, times[RUNS - 1] * 1e6, flop / times[RUNS / 2] * 1e-9,
               (double)one / times[RUNS / 2] * 1e-9);
    }
}

static void join(void) {
    static double times[JOINS];
    ht_error error;
    ht_op op = {.kind = HT_OP_GLU, .name = "glu", .in = SLOT_FFN, .out = SLOT_ACT, .aux = HT_SLOT_NONE};
    ht_task *task;
    must(ops->prepare(device, &op, &(ht_slice){0}, &task, &error), &error);
    for (int behind = 0; behind <= 20; behind += 20)
        for (int sync = HT_SYNC_FINISH; sync <= HT_SYNC_FLAG; sync++) {
            for (int i = -200; i < JOINS; i++) {
                ht_ticket ticket = 0;
                const double start = ht_seconds();
                for (int k = 0; k <= behind; k++) {
                    const ht_binding binding = {.slots = slots,
                                                .tokens = 1,
                                                .resident = ~0u,
                                                .kept = ~0u,
                                                .joined = k == behind,
                                                .sync = (ht_sync)sync};
                    must(ops->submit(device, task, &binding, NULL, 0, &ticket, &error), &error);
                }
                must(ops->wait(device, ticket, (ht_sync)sync, &error), &error);
                if (i >= 0)
                    times[i] = ht_seconds() - start;
            }
            ht_sort_doubles(times, JOINS);
            printf("%-8s behind %2d others: p50 %7.1f us, p99 %7.1f us\n", ht_sync_name((ht_sync)sync), behind,
                   times[JOINS / 2] * 1e6, times[JOINS * 99 / 100] * 1e6);
        }
}

int main(int argc, char **argv) {
    const bool fast = argc > 2 && !strcmp(argv[argc - 1], "FAST");
    argc -= fast;
    const bool is_matmul = argc == 7 && !strcmp(argv[1], "matmul"), is_join = argc == 3 && !strcmp(argv[1], "join");
    if (!is_matmul && !is_join) {
        fprintf(stderr, "usage: %s matmul DEVICE TYPE ROWS COLS TOKENS[,...] [FAST]\n       %s join DEVICE\n", argv[0],
                argv[0]);
        return 2;
    }
    ht_error error;
    const size_t rows = is_matmul ? strtoul(argv[4], NULL, 10) : 0, cols = is_matmul ? strtoul(argv[5], NULL, 10) : 0;
    const ht_hparams small = {
        .layers = 1, .embedding = 64, .heads = 1, .kv_heads = 1, .head_dim = 64, .feed_forward = 64, .vocabulary = 64};
    const ht_device_options options = {.threads = 1,
                                       .precision = fast ? HT_PRECISION_FAST : HT_PRECISION_EXACT,
                                       .hparams = &small,
                                       .max_tokens = 1024,
                                       .max_context = 64};
    must(ht_device_open(argv[2], &options, &device, &error), &error);
    ops = device->ops;
    if (is_matmul) {
        make_slot(SLOT_NORMED, 1024, cols);
        make_slot(SLOT_QKV, 1024, rows);
        matmul(argv[3], rows, cols, argv[6]);
    } else {
        make_slot(SLOT_FFN, 1, 128);
        make_slot(SLOT_ACT, 1, 64);
        join();
    }
    return 0;
}
