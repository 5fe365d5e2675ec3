/* The static-graph device over a made-up runtime that computes with loops, counts what is asked of it, and fails or lies on
 * demand: what the graph store does, without any NPU and under every sanitizer. */
#include "unit/test.h"
#include "slots.h"

#include "device/npu/npu.h"
#include "device/npu/onnxruntime_graph.h"
#include "device/npu/openvino_api.h"
#include "device/npu/openvino_graph.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#define ROWS 96
#define COLS 128
#define TOKENS 512

/* ---- the runtime --------------------------------------------------------------------------------------------------------- */

struct ht_npu_program {
    const ht_npu_graph *graph;
    size_t length;
    float *in, *out;
    atomic_bool gone; /* discarded: memory stays until the test's end, so that a use of it shows */
    ht_npu_program *next;
};

static struct {
    atomic_int compiled, loaded, saved, runs;
    atomic_int length; /* of the newest run */
    atomic_int late;   /* compilations that were given a program which went meanwhile */
    _Atomic(ht_npu_program *) gone;
    size_t refuses;  /* a length that does not compile; 0: none */
    bool unloadable; /* load fails */
    int slow_ms;
    int pages_left;          /* how often it hands out pages of its own */
    atomic_int own, foreign; /* memory that was bound: its own pages, others */
    void *pages[8];
    void (*lie)(float *out, size_t length, size_t rows); /* spoils a result */
} fake;

static ht_status fake_list(ht_device_info **list, size_t *n, ht_error *error) {
    return HT_OK;
}

static ht_status fake_open(const ht_npu_config *config, ht_npu **npu, ht_npu_facts *facts, ht_error *error) {
    static const int lengths[] = {1, 32, 64, 128, 256, 512, 1024};
    static int nothing;
    *npu = (ht_npu *)&nothing;
    *facts =
        (ht_npu_facts){.info = {.name = "openvino:FAKE", .kind = "npu", .runtime = "fake 1", .memory_bytes = 1 << 30},
                       .lengths = lengths,
                       .n_lengths = HT_COUNT(lengths),
                       .step = 0x1p-24};
    return HT_OK;
}

static void fake_close(ht_npu *npu) {}

static ht_status make_program(const ht_npu_graph *graph, size_t length, ht_npu_program **program, ht_error *error) {
    ht_status status = ht_alloc((void **)program, 1, sizeof **program, "a fake program", error);
    if (!status)
        **program = (ht_npu_program){.graph = graph, .length = length};
    return status;
}

static ht_status fake_compile(ht_npu *npu, const ht_npu_graph *graph, size_t length, const ht_npu_program *like,
                              ht_npu_program **program, ht_error *error) {
    atomic_fetch_add(&fake.compiled, 1);
    nanosleep(&(struct timespec){.tv_nsec = fake.slow_ms * 1000000L}, NULL);
    if (like && atomic_load(&like->gone))
        atomic_fetch_add(&fake.late, 1);
    if (length == fake.refuses)
        return ht_fail(error, HT_ERROR_DEVICE, "the compiler says no");
    return make_program(graph, length, program, error);
}

static void fake_discard(ht_npu *npu, ht_npu_program *program) {
    atomic_store(&program->gone, true);
    program->next = atomic_load(&fake.gone);
    while (!atomic_compare_exchange_weak(&fake.gone, &program->next, program)) {}
}

static ht_status fake_save(ht_npu *npu, ht_npu_program *program, ht_text *bytes, ht_error *error) {
    atomic_fetch_add(&fake.saved, 1);
    return ht_text_printf(bytes, error, "program of %zu", program->length);
}

static ht_status fake_load(ht_npu *npu, const ht_npu_graph *graph, size_t length, const void *data, size_t bytes,
                           ht_npu_program **program, ht_error *error) {
    atomic_fetch_add(&fake.loaded, 1);
    if (fake.unloadable)
        return ht_fail(error, HT_ERROR_DEVICE, "cannot be loaded");
    assert_true(bytes > 11 && memcmp(data, "program of ", 11) == 0);
    return make_program(graph, length, program, error);
}

static void *fake_alloc_shared(ht_npu *npu, size_t bytes) {
    for (size_t i = 0; i < HT_COUNT(fake.pages) && fake.pages_left > 0; i++)
        if (!fake.pages[i]) {
            fake.pages_left--;
            return fake.pages[i] = calloc(1, bytes);
        }
    return NULL;
}

static bool fake_free_shared(void *pages) {
    for (size_t i = 0; i < HT_COUNT(fake.pages); i++)
        if (pages && fake.pages[i] == pages) {
            free(pages);
            fake.pages[i] = NULL;
            return true;
        }
    return false;
}

static void count_memory(const void *memory) {
    bool own = false;
    for (size_t i = 0; i < HT_COUNT(fake.pages); i++)
        own |= fake.pages[i] == memory;
    atomic_fetch_add(own ? &fake.own : &fake.foreign, 1);
}

static ht_status fake_bind(ht_npu *npu, ht_npu_program *program, float *in, float *out, ht_error *error) {
    program->in = in, program->out = out;
    count_memory(in);
    count_memory(out);
    return HT_OK;
}

static ht_status fake_start(ht_npu *npu, ht_npu_program *p, ht_error *error) {
    const ht_npu_graph *g = p->graph;
    float w[COLS];
    size_t row = 0;
    for (int part = 0; part < g->n_parts; part++)
        for (size_t r = 0; r < g->parts[part].rows; r++, row++) {
            assert_int_equal(ht_npu_floats(&g->parts[part], r, 1, w, error), HT_OK);
            for (size_t t = 0; t < p->length; t++) {
                double sum = 0;
                for (size_t c = 0; c < g->cols; c++)
                    sum += (double)w[c] * (double)p->in[t * g->cols + c];
                p->out[t * g->rows + row] = (float)sum;
            }
        }
    if (fake.lie)
        fake.lie(p->out, p->length, g->rows);
    atomic_fetch_add(&fake.runs, 1);
    atomic_store(&fake.length, (int)p->length);
    return HT_OK;
}

static ht_status fake_wait(ht_npu *npu, ht_npu_program *program, ht_error *error) {
    return HT_OK;
}

static const ht_npu_runtime runtime = {.list = fake_list,
                                       .open = fake_open,
                                       .close = fake_close,
                                       .compile = fake_compile,
                                       .discard = fake_discard,
                                       .save = fake_save,
                                       .load = fake_load,
                                       .bind = fake_bind,
                                       .start = fake_start,
                                       .wait = fake_wait,
                                       .alloc_shared = fake_alloc_shared,
                                       .free_shared = fake_free_shared};

/* ---- a device and a matrix ----------------------------------------------------------------------------------------------- */

static ht_op op = {.kind = HT_OP_MATMUL, .name = "blk.3.attn_qkv", .in = SLOT_NORMED, .out = SLOT_QKV, .n_parts = 1};
static const ht_slice whole = {.row_end = ROWS, .reduction_end = COLS};
static float x[TOKENS * COLS], y[TOKENS * ROWS];
static char log_text[2048];

static void keep_log(ht_log_level level, const char *line, void *user) {
    snprintf(log_text + strlen(log_text), sizeof log_text - strlen(log_text), "%s\n", line);
}

static int set_up(void **state) {
    if (make_folder(state))
        return -1;
    setenv("XDG_CACHE_HOME", test_folder, 1);
    memset(&fake, 0, sizeof fake);
    log_text[0] = '\0';
    ht_log_set(keep_log, NULL, HT_LOG_WARN);
    op.parts[0] = (ht_matrix){.name = "w", .type = ht_type_by_name("Q4_0"), .rows = ROWS, .cols = COLS}; /* made up */
    for (size_t i = 0; i < TOKENS * COLS; i++)
        x[i] = (float)((i * 7919) % 1000) / 500 - 1;
    return 0;
}

static int tear_down(void **state) {
    ht_log_set(NULL, NULL, HT_LOG_WARN);
    for (ht_npu_program *next, *p = atomic_load(&fake.gone); p; p = next) {
        next = p->next;
        free(p);
    }
    return remove_folder(state);
}

static ht_progress progress;

static ht_device *open_with(const char *options, uint64_t memory, ht_progress_function told) {
    progress.function = told;
    const ht_device_options wanted = {.name = "openvino:FAKE",
                                      .options = options,
                                      .max_tokens = TOKENS,
                                      .graph_memory = memory,
                                      .precision = HT_PRECISION_EXACT,
                                      .progress = &progress};
    ht_device *device = NULL;
    ht_error error = {0};
    check(ht_npu_open(&ht_device_openvino, &runtime, &wanted, &device, &error), &error);
    return device;
}

static ht_task *prepare(ht_device *d) {
    ht_task *task = NULL;
    ht_error error = {0};
    check(d->ops->prepare(d, &op, &whole, &task, &error), &error);
    return task;
}

/* One submit of `tokens` tokens, and every number of it. */
static ht_status submit(ht_device *d, ht_task *task, size_t tokens, ht_error *error) {
    const ht_view slots[HT_MAX_SLOTS] = {[SLOT_NORMED] = {x, COLS}, [SLOT_QKV] = {y, ROWS}};
    const ht_binding binding = {.slots = slots, .tokens = tokens, .room = TOKENS};
    ht_ticket ticket;
    memset(y, 0xff, sizeof y);
    ht_status status = d->ops->submit(d, task, &binding, NULL, 0, &ticket, error);
    float w[COLS];
    for (size_t r = 0; r < ROWS && !status; r++) {
        ht_matrix_floats(&op.parts[0], r, 1, w);
        for (size_t t = 0; t < tokens; t++) {
            double sum = 0;
            for (size_t c = 0; c < COLS; c++)
                sum += (double)w[c] * (double)x[t * COLS + c];
            assert_true(fabs((double)y[t * ROWS + r] - sum) <= 1e-6 * (1 + fabs(sum)));
        }
    }
    return status;
}

static ht_status settle(ht_device *d, ht_task *task, size_t tokens, ht_error *error) {
    check(d->ops->warm(d, task, tokens, error), error);
    return d->ops->settle(d, task, tokens, error);
}

static void close_all(ht_device *d, ht_task *task) {
    d->ops->release(d, task);
    d->ops->close(d);
}

/* ---- lengths --------------------------------------------------------------------------------------------------------------- */

/* Every graph is built once, whoever asks how often; other lengths are not built. */
static void test_once(void **state) {
    ht_device *d = open_with("", 0, NULL);
    ht_task *task = prepare(d);
    ht_error error = {0};
    fake.slow_ms = 5;
    for (int i = 0; i < 3; i++)
        check(d->ops->warm(d, task, 60, &error), &error);
    check(settle(d, task, 60, &error), &error);
    check(submit(d, task, 64, &error), &error);
    check(submit(d, task, 33, &error), &error);
    assert_int_equal(fake.compiled, 1);
    assert_int_equal(fake.length, 64);
    assert_true(d->ops->task_bytes(task) >= ROWS * COLS / 2);
    close_all(d, task);
}

/* Padded up to what is there, cut into pieces not much shorter, else built. */
static void test_what_is_there(void **state) {
    static const struct {
        size_t there, tokens;
        int runs, length, compiled;
    } cases[] = {{64, 40, 1, 64, 0},    {64, 1, 1, 64, 0},    {64, 128, 2, 64, 0}, {64, 256, 4, 64, 0},
                 {128, 512, 4, 128, 0}, {32, 512, 1, 512, 1}, {1, 40, 1, 64, 1}};
    for (size_t i = 0; i < HT_COUNT(cases); i++) {
        ht_device *d = open_with("", 0, NULL);
        ht_task *task = prepare(d);
        ht_error error = {0};
        check(settle(d, task, cases[i].there, &error), &error);
        const int compiled = fake.compiled, runs = fake.runs;
        check(submit(d, task, cases[i].tokens, &error), &error);
        assert_int_equal(fake.compiled - compiled, cases[i].compiled);
        assert_int_equal(fake.runs - runs - cases[i].compiled, cases[i].runs); /* a built one is checked first */
        assert_int_equal(fake.length, cases[i].length);
        close_all(d, task);
    }
}

static void test_any_count(void **state) {
    ht_device *d = open_with("lengths=1+48+100", 0, NULL);
    ht_task *task = prepare(d);
    ht_error error = {0};
    static const size_t counts[] = {1, 2, 47, 48, 49, 99, 100, 101, 148, 149, 201, 512};
    for (size_t i = 0; i < HT_COUNT(counts); i++)
        check(submit(d, task, counts[i], &error), &error);
    assert_int_equal(fake.compiled, 2); /* 100 is never needed: 48 twice is not much more */
    close_all(d, task);
}

/* ---- shares --------------------------------------------------------------------------------------------------------------- */

/* Queries, keys and values of four heads, all in one form. */
static ht_op fused_op(void) {
    ht_op fused = {.kind = HT_OP_MATMUL, .name = "blk.5.attn_qkv", .in = SLOT_NORMED, .out = SLOT_QKV, .n_parts = 3};
    static const size_t rows[] = {64, 16, 16};
    static const char *const names[] = {"q", "k", "v"};
    for (int i = 0; i < 3; i++)
        fused.parts[i] = (ht_matrix){.name = names[i], .type = ht_type_by_name("Q4_0"), .rows = rows[i], .cols = COLS};
    return fused;
}

/* Rows that are apart in the slot are together in the graph, and come to their places whatever the length and the room. */
static void test_share(void **state) {
    const ht_op fused = fused_op();
    const ht_slice share = {.row_begin = 1, .row_end = 3, .reduction_end = COLS, .of = 4};
    ht_device *d = open_with("", 0, NULL);
    ht_task *task = NULL;
    ht_error error = {0};
    assert_null(d->ops->refuses(d, &fused, &share));
    check(d->ops->prepare(d, &fused, &share, &task, &error), &error);
    static const size_t counts[] = {1, 2, 33, 64};
    for (size_t i = 0; i < 2 * HT_COUNT(counts); i++) {
        const size_t tokens = counts[i / 2], room = i % 2 ? TOKENS : tokens;
        const ht_view slots[HT_MAX_SLOTS] = {[SLOT_NORMED] = {x, COLS}, [SLOT_QKV] = {y, ROWS}};
        const ht_binding binding = {.slots = slots, .tokens = tokens, .room = room};
        ht_ticket ticket;
        for (size_t k = 0; k < TOKENS * ROWS; k++)
            y[k] = 12345;
        check(d->ops->submit(d, task, &binding, NULL, 0, &ticket, &error), &error);
        float w[COLS];
        for (size_t r = 0; r < ROWS; r++) {
            size_t local;
            const ht_matrix *m = &fused.parts[ht_op_part(&fused, r, &local)];
            const bool mine = local * 4 >= m->rows && local * 4 < 3 * m->rows;
            ht_matrix_floats(m, local, 1, w);
            for (size_t t = 0; t < tokens; t++) {
                double sum = 0;
                for (size_t c = 0; c < COLS; c++)
                    sum += (double)w[c] * (double)x[t * COLS + c];
                assert_true(fabs((double)y[t * ROWS + r] - (mine ? sum : 12345)) <=
                            (mine ? 1e-6 * (1 + fabs(sum)) : 0));
            }
        }
        for (size_t k = tokens * ROWS; k < TOKENS * ROWS; k++)
            assert_true(y[k] == 12345); /* padding is nobody's result */
    }
    const ht_binding part = {.tokens = 1, .part = &share};
    ht_ticket ticket;
    fails(d->ops->submit(d, task, &part, NULL, 0, &ticket, &error), HT_ERROR_ARGUMENT, &error, "blk.5.attn_qkv");
    close_all(d, task);
}

static char *key_of(const ht_op *of, ht_slice slice, int runs) {
    ht_npu_graph graph;
    ht_text key = {0};
    ht_error error = {0};
    slice.reduction_end = COLS;
    assert_null(ht_npu_describe(of, &slice, false, &graph));
    assert_int_equal(graph.n_runs, runs);
    check(ht_npu_key(&graph, &key, &error), &error);
    return key.data;
}

/* A share that is one run of rows is the graph of these rows, and shares of other rows are other graphs. */
static void test_share_keys(void **state) {
    const ht_op fused = fused_op();
    char *const keys[] = {key_of(&op, (ht_slice){.row_begin = 24, .row_end = 72}, 1),
                          key_of(&op, (ht_slice){.row_begin = 1, .row_end = 3, .of = 4}, 1),
                          key_of(&fused, (ht_slice){.row_end = ROWS}, 1),
                          key_of(&fused, (ht_slice){.row_end = 4, .of = 4}, 1),
                          key_of(&fused, (ht_slice){.row_begin = 1, .row_end = 3, .of = 4}, 3),
                          key_of(&fused, (ht_slice){.row_begin = 2, .row_end = 4, .of = 4}, 3)};
    for (size_t i = 0; i < HT_COUNT(keys); i++)
        for (size_t k = 0; k < i; k++)
            assert_int_equal(strcmp(keys[i], keys[k]) == 0, i < 4 && i == k + 1 && i % 2 == 1);
    for (size_t i = 0; i < HT_COUNT(keys); i++)
        free(keys[i]);
}

static void test_share_refusals(void **state) {
    static const ht_slice bad[] = {{.row_end = 5, .reduction_end = COLS, .of = 4},
                                   {.row_begin = 2, .row_end = 2, .reduction_end = COLS, .of = 4},
                                   {.row_end = 1, .reduction_end = COLS, .of = 32}, /* of 16 rows */
                                   {.row_end = 1, .reduction_end = COLS - 16, .of = 4}};
    const ht_op fused = fused_op();
    ht_npu_graph graph;
    for (size_t i = 0; i < HT_COUNT(bad); i++)
        assert_non_null(ht_npu_describe(&fused, &bad[i], false, &graph));
}

/* ---- memory, failures -------------------------------------------------------------------------------------------------------- */

/* Feed-forward blocks and experts whose activation no graph has are somebody else's: they are not computed with another one. */
static void test_activations(void **state) {
    const ht_matrix square = {.name = "w", .type = ht_type_by_name("Q4_0"), .rows = 64, .cols = 64},
                    wide = {.name = "w", .type = square.type, .rows = 128, .cols = 64};
    const ht_slice features = {.row_end = 64}, all = {0};
    ht_npu_graph graph;
    for (ht_activation kind = HT_ACT_SILU; kind <= HT_ACT_CLAMPED; kind++) {
        ht_op ffn,
            members[3] = {
                {.kind = HT_OP_MATMUL, .in = SLOT_NORMED, .out = SLOT_FFN, .n_parts = 2, .parts = {square, square}},
                {.kind = HT_OP_GLU, .in = SLOT_FFN, .out = SLOT_ACT, .activation = kind},
                {.kind = HT_OP_MATMUL, .in = SLOT_ACT, .out = SLOT_DELTA, .n_parts = 1, .parts = {square}}};
        const ht_op experts = {.kind = HT_OP_EXPERTS,
                               .n_parts = 3,
                               .parts = {wide, wide, square},
                               .experts = 2,
                               .route = {.used = 1},
                               .activation = kind};
        const bool has = kind != HT_ACT_GELU && kind != HT_ACT_SIGMOID;
        assert_true(ht_op_ffn(members, 3, &ffn));
        assert_true((ht_npu_describe(&ffn, &features, false, &graph) == NULL) == has);
        assert_true((ht_npu_describe(&experts, &all, false, &graph) == NULL) == has);
    }
}

/* An expert's capacity is half as much again as its mean, in eights, and no more than there are tokens. */
static void test_capacity(void **state) {
    const ht_op experts = {.kind = HT_OP_EXPERTS, .experts = 128, .route = {.used = 8}};
    const ht_npu_graph graph = {.op = &experts, .experts = 16};
    static const size_t rows[][2] = {{1, 1}, {4, 4}, {32, 8}, {64, 8}, {256, 24}, {512, 48}, {1024, 96}};
    for (size_t i = 0; i < HT_COUNT(rows); i++) {
        assert_int_equal(ht_npu_capacity(&graph, rows[i][0]), rows[i][1]);
        assert_int_equal(ht_npu_rows(&graph, rows[i][0]), 16 * rows[i][1]);
    }
}

/* Constants of a graph at one length: from malloc. */
static uint8_t *blob_of(const ht_npu_graph *graph, size_t length, bool onnx, size_t *bytes) {
    ht_error error = {0};
    ht_ov_graph *ov = NULL;
    ht_ort_graph *ort = NULL;
    check(onnx ? ht_ort_graph_create(graph, length, 0, &ort, &error)
               : ht_ov_graph_create(graph, length, false, &ov, &error),
          &error);
    *bytes = onnx ? ht_ort_graph_bytes(ort) : ht_ov_graph_bytes(ov);
    uint8_t *blob = calloc(1, *bytes);
    assert_non_null(blob);
    check(onnx ? ht_ort_graph_fill(ort, blob, &error) : ht_ov_graph_fill(ov, blob, &error), &error);
    ht_ort_graph_destroy(ort), ht_ov_graph_destroy(ov);
    return blob;
}

/* All lengths share one blob of constants, in either form: it is that of any of them. */
static void test_blobs(void **state) {
    const ht_matrix wide = {.name = "w", .type = ht_type_by_name("Q4_1"), .rows = 256, .cols = 64};
    const ht_op experts = {.kind = HT_OP_EXPERTS,
                           .n_parts = 3,
                           .parts = {wide, wide, wide},
                           .experts = 4,
                           .route = {.used = 1},
                           .activation = HT_ACT_CLAMPED};
    static const size_t lengths[] = {1, 32, 64, 256};
    for (int form = 0; form < 6; form++) { /* of runtimes; a matrix, or experts with either order of operands */
        const bool onnx = form % 2, weights_first = form / 2 == 2;
        const ht_slice all = form / 2 ? (ht_slice){0} : whole;
        size_t bytes, others;
        ht_npu_graph graph;
        assert_null(ht_npu_describe(form / 2 ? &experts : &op, &all, weights_first, &graph));
        uint8_t *first = blob_of(&graph, lengths[0], onnx, &bytes);
        for (size_t i = 1; i < HT_COUNT(lengths); i++) {
            uint8_t *other = blob_of(&graph, lengths[i], onnx, &others);
            assert_int_equal(others, bytes);
            assert_memory_equal(other, first, bytes);
            free(other);
        }
        free(first);
    }
}

static void test_budget(void **state) {
    const uint64_t one = 2 * (ROWS * COLS / 2 + ROWS * COLS / 32 * 4); /* a graph of 64: as handed over, as packed */
    ht_device *d = open_with("", one, NULL);
    ht_task *task = prepare(d), *other = prepare(d);
    ht_error error = {0};
    assert_int_equal(d->ops->caps(d)->graph_bytes, one);
    check(settle(d, task, 64, &error), &error);
    assert_int_equal(d->ops->task_bytes(task), one);
    fails(settle(d, task, 128, &error), HT_ERROR_MEMORY, &error, "MiB for graphs are left");
    fails(settle(d, other, 64, &error), HT_ERROR_MEMORY, &error, "blk.3.attn_qkv at length 64");
    assert_int_equal(fake.compiled, 1);
    check(submit(d, task, 512, &error), &error); /* with what there is */
    assert_int_equal(fake.length, 64);
    fails(submit(d, other, 64, &error), HT_ERROR_MEMORY, &error, "blk.3.attn_qkv");
    d->ops->release(d, task); /* what it held is free again */
    ht_task *third = prepare(d);
    check(settle(d, third, 64, &error), &error);
    fails(settle(d, other, 64, &error), HT_ERROR_MEMORY, &error, "blk.3.attn_qkv at length 64");
    d->ops->release(d, third); /* and so is that: who was refused is not refused for ever */
    check(settle(d, other, 64, &error), &error);
    check(submit(d, other, 64, &error), &error);
    close_all(d, other);
}

static void test_compiler_fails(void **state) {
    ht_device *d = open_with("", 0, NULL);
    ht_task *task = prepare(d);
    ht_error error = {0};
    fake.refuses = 64;
    fails(settle(d, task, 64, &error), HT_ERROR_DEVICE, &error, "blk.3.attn_qkv at length 64: the compiler says no");
    fails(settle(d, task, 64, &error), HT_ERROR_DEVICE, &error, "at length 64");
    assert_int_equal(fake.compiled, 1); /* asked once */
    assert_int_equal(d->ops->task_bytes(task), 0);
    fails(submit(d, task, 64, &error), HT_ERROR_DEVICE, &error, "at length 64");
    check(settle(d, task, 32, &error), &error);
    check(submit(d, task, 64, &error), &error); /* two of 32 */
    assert_int_equal(fake.length, 32);
    close_all(d, task);
}

static void first_number(float *out, size_t length, size_t rows) {
    out[0] += 0.01f;
}
static void last_number(float *out, size_t length, size_t rows) {
    out[length * rows - 1] += 0.01f;
}
static void middle_token(float *out, size_t length, size_t rows) {
    for (size_t r = 0; r < rows; r++)
        out[length / 2 * rows + r] *= 1.001f;
}
static void last_token_unwritten(float *out, size_t length, size_t rows) {
    memset(out + (length - 1) * rows, 0xff, rows * sizeof *out);
}
static void neighbours_swapped(float *out, size_t length, size_t rows) {
    for (size_t i = 0; i + 1 < length * rows; i += 2) {
        const float first = out[i];
        out[i] = out[i + 1], out[i + 1] = first;
    }
}
static void tokens_mixed(float *out, size_t length, size_t rows) { /* every token gets the first one's answer */
    for (size_t t = 1; t < length; t++)
        memcpy(out + t * rows, out, rows * sizeof *out);
}
static void rounded_to_bf16(float *out, size_t length, size_t rows) {
    for (size_t i = 0; i < length * rows; i++) {
        uint32_t bits;
        memcpy(&bits, &out[i], 4);
        bits &= 0xffff0000u;
        memcpy(&out[i], &bits, 4);
    }
}

/* A graph that computes wrongly is refused by name, whatever is wrong with it. */
static void test_wrong_numbers(void **state) {
    static void (*const lies[])(float *, size_t, size_t) = {first_number,         last_number,        middle_token,
                                                            last_token_unwritten, neighbours_swapped, tokens_mixed,
                                                            rounded_to_bf16};
    for (size_t i = 0; i < HT_COUNT(lies); i++)
        for (size_t length = 1; length <= 64; length = length == 1 ? 32 : 2 * length) {
            if (length == 1 && lies[i] == tokens_mixed)
                continue;
            ht_device *d = open_with("", 0, NULL);
            ht_task *task = prepare(d);
            ht_error error = {0};
            fake.lie = lies[i];
            fails(settle(d, task, length, &error), HT_ERROR_DEVICE, &error, "computes wrong numbers");
            assert_non_null(strstr(error.text, "blk.3.attn_qkv at length"));
            close_all(d, task);
        }
}

/* A graph that fails is said: by who waits, else in one warning of the device, whatever stands in for it. */
static void test_failures_are_told(void **state) {
    ht_device *d = open_with("", 0, NULL);
    ht_task *tasks[] = {prepare(d), prepare(d)};
    ht_error error = {0};
    fake.refuses = 64;
    fails(d->ops->settle(d, tasks[0], 64, &error), HT_ERROR_DEVICE, &error, "the compiler says no");
    d->ops->release(d, tasks[0]);
    assert_string_equal(log_text, "");
    tasks[0] = prepare(d);
    for (size_t i = 0; i < HT_COUNT(tasks); i++)
        check(d->ops->warm(d, tasks[i], 64, &error), &error);
    while (fake.compiled < 3)
        nanosleep(&(struct timespec){.tv_nsec = 1000000L}, NULL);
    d->ops->release(d, tasks[0]);
    d->ops->release(d, tasks[1]); /* waits for what is under way */
    tasks[0] = prepare(d);
    fake.refuses = 256;
    check(settle(d, tasks[0], 32, &error), &error);
    for (int i = 0; i < 2; i++)
        check(submit(d, tasks[0], 256, &error), &error);
    close_all(d, tasks[0]);
    assert_string_equal(log_text,
                        "openvino:FAKE: continuing without a graph: blk.3.attn_qkv at length 64: the compiler "
                        "says no\nopenvino:FAKE: continuing with graphs of 32 tokens: blk.3.attn_qkv at length "
                        "256: the compiler says no\n");
}

/* Somebody stops waiting; the build goes on and is there later. */
static bool stop_at_once(const char *what, double done, double total, void *user) {
    assert_string_equal(what, "building graphs");
    return false;
}
static void test_cancel(void **state) {
    ht_device *d = open_with("", 0, stop_at_once);
    ht_task *task = prepare(d);
    ht_error error = {0};
    fake.slow_ms = 300;
    fails(settle(d, task, 64, &error), HT_ERROR_CANCELLED, &error, "stopped");
    close_all(d, task); /* waits for what is under way */
    assert_int_equal(fake.compiled, 1);
}

/* Nobody is told after the owner took the function out, as an engine does when its creation ends. */
static void test_progress_ends(void **state) {
    ht_device *d = open_with("", 0, stop_at_once);
    ht_task *task = prepare(d);
    ht_error error = {0};
    fake.slow_ms = 150;
    progress.function = NULL;
    check(submit(d, task, 64, &error), &error); /* builds its graph now */
    assert_int_equal(fake.compiled, 1);
    close_all(d, task);
}

/* Tasks come and go while others are being built. */
static void test_release_while_building(void **state) {
    ht_device *d = open_with("", 0, NULL);
    ht_error error = {0};
    fake.slow_ms = 3;
    for (int i = 0; i < 10; i++) {
        ht_task *tasks[4];
        for (int k = 0; k < 4; k++) {
            tasks[k] = prepare(d);
            for (size_t n = 1; n <= 512; n *= 2)
                check(d->ops->warm(d, tasks[k], n, &error), &error);
        }
        if (i & 1) /* tasks[0]: has a graph now, and the next one is being built like it */
            check(submit(d, tasks[i & 2 ? 3 : 0], 70, &error), &error);
        for (int k = 0; k < 4; k++)
            d->ops->release(d, tasks[k]);
    }
    d->ops->close(d);
    assert_int_equal(atomic_load(&fake.late), 0);
}

/* ---- the disk ------------------------------------------------------------------------------------------------------------------ */

static void use_once(size_t tokens) {
    ht_device *d = open_with("cache=on", 0, NULL);
    ht_task *task = prepare(d);
    ht_error error = {0};
    check(settle(d, task, tokens, &error), &error);
    check(submit(d, task, tokens, &error), &error);
    close_all(d, task);
}

/* The one file of the cache folder, or the newest of two: its path, to be freed. */
static char *cache_file(void) {
    ht_text folder = {0};
    ht_text_printf(&folder, NULL, "%s/hetero/npu", test_folder);
    DIR *open = opendir(folder.data);
    assert_non_null(open);
    ht_text path = {0};
    for (struct dirent *entry; (entry = readdir(open));)
        if (strstr(entry->d_name, ".bin") && !path.data)
            ht_text_printf(&path, NULL, "%s/%s", folder.data, entry->d_name);
    closedir(open);
    ht_text_free(&folder);
    assert_non_null(path.data);
    return path.data;
}

static void expect(int compiled, int loaded, const char *said) {
    assert_int_equal(fake.compiled, compiled);
    assert_int_equal(fake.loaded, loaded);
    if (said ? !strstr(log_text, said) : log_text[0] != 0)
        fail_msg("log: %s", log_text);
    log_text[0] = '\0';
    fake.compiled = fake.loaded = 0;
}

static void test_disk(void **state) {
    use_once(64);
    expect(1, 0, NULL);
    use_once(64);
    expect(0, 1, NULL);
    use_once(32); /* another length */
    expect(1, 0, NULL);
    op.parts[0].name = "v"; /* other weights */
    use_once(64);
    expect(1, 0, NULL);
}

static void test_bad_files(void **state) {
    use_once(64);
    expect(1, 0, NULL);
    char *path = cache_file();
    ht_mapping file;
    ht_error error = {0};
    check(ht_mapping_open(path, &file, &error), &error);
    const size_t bytes = file.bytes;
    uint8_t *good = malloc(bytes), *bad = malloc(bytes + 1);
    memcpy(good, file.data, bytes);
    ht_mapping_close(&file);
    for (size_t n = 1; n < bytes; n++) { /* every way to be cut short */
        check(ht_file_write(path, good, n, &error), &error);
        if (n % 50 && n + 20 < bytes)
            continue;
        use_once(64);
        expect(1, 0, "rebuilding");
    }
    for (size_t i = 0; i < bytes; i += 37) { /* damaged anywhere */
        memcpy(bad, good, bytes);
        bad[i] ^= 1;
        check(ht_file_write(path, bad, bytes, &error), &error);
        use_once(64);
        expect(1, 0, "ignored");
    }
    memcpy(bad, good, bytes), bad[bytes] = 'x'; /* longer than it says */
    check(ht_file_write(path, bad, bytes + 1, &error), &error);
    use_once(64);
    expect(1, 0, "cut short");
    use_once(64); /* and each time the file was made anew */
    expect(0, 1, NULL);

    fake.unloadable = true;
    use_once(64);
    expect(1, 1, "cannot be loaded");
    fake.unloadable = false;

    op.parts[0].name = "v"; /* another model's file in its place */
    use_once(64);
    expect(1, 0, NULL);
    unlink(path);
    char *other = cache_file();
    check(ht_mapping_open(other, &file, &error), &error);
    check(ht_file_write(path, file.data, file.bytes, &error), &error);
    ht_mapping_close(&file);
    op.parts[0].name = "w";
    use_once(64);
    expect(1, 0, "it holds another graph");
    free(good), free(bad), free(path), free(other);
}

static void test_options(void **state) {
    static const char *const bad[] = {"lengths=64+1", "lengths=0", "lengths=", "cache=maybe", "order=x",
                                      "decode=1",     "hint=int8", "cpus=0",   "speed=1"};
    for (size_t i = 0; i < HT_COUNT(bad); i++) {
        const ht_device_options wanted = {.name = "openvino:FAKE", .options = bad[i], .max_tokens = 64};
        ht_device *device = NULL;
        ht_error error = {0};
        fails(ht_npu_open(&ht_device_openvino, &runtime, &wanted, &device, &error), HT_ERROR_ARGUMENT, &error,
              "openvino:FAKE");
    }
}

/* A runtime that copies any memory but its own gets its own: for staging, for the check of a graph, for the pool. */
static void test_own_pages(void **state) {
    ht_error error = {0};
    fake.pages_left = 1000;
    ht_device *d = open_with("lengths=32:cache=off", 0, NULL);
    ht_task *task = prepare(d);
    check(settle(d, task, 32, &error), &error);
    assert_int_equal(atomic_load(&fake.own), 2);
    check(submit(d, task, 20, &error), &error); /* room in the slots: these are bound as they are */
    assert_int_equal(atomic_load(&fake.foreign), 2);
    float *pool = ht_device_pages_alloc(&d, 1, 4096);
    const ht_view slots[HT_MAX_SLOTS] = {[SLOT_NORMED] = {x, COLS + 1}, [SLOT_QKV] = {y, ROWS + 1}};
    const ht_binding binding = {.slots = slots, .tokens = 20};
    ht_ticket ticket;
    check(d->ops->submit(d, task, &binding, NULL, 0, &ticket, &error), &error);
    assert_int_equal(atomic_load(&fake.own), 4);
    fake.pages_left = 0; /* used up */
    float *ordinary = ht_device_pages_alloc(&d, 1, 4096);
    assert_non_null(ordinary);
    ordinary[1023] = 1;
    d->ops->release(d, task);
    d->ops->close(d);
    assert_false(fake_free_shared(ordinary));
    assert_true(fake_free_shared(pool));
    for (size_t i = 0; i < HT_COUNT(fake.pages); i++)
        assert_null(fake.pages[i]);
    ht_device_pages_free(ordinary, 4096);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

static void test_first_sentence(void **state) {
    static const char *const rows[][2] = {
        {"Exception from src/core.cpp:107:\nException from src/plugin.cpp:53:\nCheck '!d.empty()' failed at "
         "src/p.cpp:9:\n[GPU] no supported devices found.\n[GPU] Please check the documentation.\n",
         "[GPU] no supported devices found."},
        {"Device with \"XPU\" name is not registered", "Device with \"XPU\" name is not registered"},
        {"Exception from a:1:\n\nlast\n", "last"},
        {"Exception from a:1:\n", "Exception from a:1:"},
        {"", ""}};
    for (size_t i = 0; i < HT_COUNT(rows); i++) {
        char out[64];
        ht_ov_first_sentence(rows[i][0], out, sizeof out);
        assert_string_equal(out, rows[i][1]);
    }
}

/* Constants of a graph are refused as other devices refuse what they pack. */
static void test_bad_weights(void **state) {
    static const char *const types[] = {"Q4_0", "F16"};
    for (size_t i = 0; i < HT_COUNT(types); i++) {
        const ht_type_traits *type = ht_type_by_name(types[i]);
        uint8_t data[2 * 64] = {0};
        const size_t bytes = 32 / (size_t)type->block * (size_t)type->block_bytes;
        const ht_op bad = {
            .kind = HT_OP_MATMUL,
            .n_parts = 1,
            .parts = {{.name = "w", .type = type, .rows = 2, .cols = 32, .data = data, .row_bytes = bytes}}};
        const ht_slice slice = {.row_end = 2, .reduction_end = 32};
        ht_npu_graph g;
        int8_t codes[32];
        float values[32], scales[1];
        ht_error error = {0};
        data[bytes + 1] = 0x7c; /* the second row begins with an infinity */
        assert_null(ht_npu_describe(&bad, &slice, false, &g));
        for (size_t row = 0; row < 2; row++) {
            const ht_status status = type->group ? ht_npu_codes(&g.parts[0], row, 1, codes, scales, NULL, &error)
                                                 : ht_npu_floats(&g.parts[0], row, 1, values, &error);
            assert_int_equal(status, row ? HT_ERROR_FORMAT : HT_OK);
        }
        assert_non_null(strstr(error.text, "weights of w, row 1, are not numbers"));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {TEST(test_first_sentence),
                                       TEST(test_own_pages),
                                       TEST(test_once),
                                       TEST(test_what_is_there),
                                       TEST(test_any_count),
                                       TEST(test_budget),
                                       TEST(test_blobs),
                                       TEST(test_compiler_fails),
                                       TEST(test_failures_are_told),
                                       TEST(test_wrong_numbers),
                                       TEST(test_progress_ends),
                                       TEST(test_cancel),
                                       TEST(test_release_while_building),
                                       TEST(test_disk),
                                       TEST(test_bad_files),
                                       TEST(test_options),
                                       TEST(test_share),
                                       TEST(test_share_keys),
                                       TEST(test_share_refusals),
                                       TEST(test_activations),
                                       TEST(test_capacity),
                                       TEST(test_bad_weights)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
