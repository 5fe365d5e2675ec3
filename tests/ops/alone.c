/* A token's values are the same to the bit whatever is computed beside it: every operator kind of the CPU, a token
 * alone on one thread, and in company of others at odd places, on one, two and three threads, by shares of rows, for
 * each instruction set and in both precisions.
 *
 * usage: test_alone [DEVICE ...]   default: the CPU once for each instruction set
 */
#include "ops/attention.h"

enum { TOKENS = 41, MAX_THREADS = 3, ROUTER = SLOT_ATTN, ROUTE = SLOT_LOGITS };

static const char *specs[16] = {HT_TEST_ISAS};

/* One operator, all tokens' inputs, and what it makes of each token by itself. */
typedef struct subject {
    ht_op op;
    const char *what;
    size_t first; /* position of the first token */
    struct {
        ht_slot slot;
        size_t width;
        float *x; /* [TOKENS][width] */
    } ins[3];
    int n_ins;
    size_t out; /* width of slot op.out */
    float *alone;
    ht_kv_layer kv;
    size_t state; /* floats of kv.state; 0: it has none */
    float *owned[12];
    int n_owned;
} subject;

static float *vector(subject *s, size_t n, double low, double high) {
    float *v = malloc((n + 16) * sizeof *v);
    for (size_t i = 0; i < n; i++)
        v[i] = (float)(low + (high - low) * (uniform() + 1) / 2);
    return s->owned[s->n_owned++] = v;
}

static void add_input(subject *s, ht_slot slot, size_t width) {
    float *x = vector(s, TOKENS * width, 0, 0);
    fill(x, TOKENS * width);
    s->ins[s->n_ins].slot = slot, s->ins[s->n_ins].width = width, s->ins[s->n_ins++].x = x;
}

static void free_subject(subject *s) {
    for (int i = 0; i < s->n_owned; i++)
        free(s->owned[i]);
    free(s->alone);
}

/* Tokens [from, from + n), computed together. */
static void run_piece(bench *b, const subject *s, const ht_slice *slice, size_t from, size_t n, float *out) {
    for (int i = 0; i < s->n_ins; i++) {
        const size_t width = s->ins[i].width;
        float *x = make_slot(b, s->ins[i].slot, n, width);
        for (size_t t = 0; t < n; t++)
            memcpy(x + t * b->slots[s->ins[i].slot].stride, s->ins[i].x + (from + t) * width, width * sizeof *x);
    }
    if (!b->slots[s->op.out].data)
        make_slot(b, s->op.out, n, s->out);
    b->kv = s->kv;
    if (!run_op(b, &s->op, slice, n, s->first + from))
        fail_msg("%s refuses %s", b->name, s->what);
    const ht_view *y = &b->slots[s->op.out];
    for (size_t t = 0; t < n; t++)
        memcpy(out + t * s->out, (float *)y->data + t * y->stride, s->out * sizeof *out);
    free_slots(b);
}

static void same(const bench *b, const subject *s, const char *how, size_t t, size_t n, size_t first, const float *got,
                 size_t begin, size_t end) {
    const float *want = s->alone + t * s->out;
    for (size_t i = begin; i < end; i++)
        if (memcmp(got + i, want + i, sizeof *got) != 0) {
            if (failures++ < 20)
                fprintf(stderr, "%s on %s%s, %s: token %zu among %zu from %zu on: value %zu is %.9g, alone %.9g\n",
                        s->what, b->name, b->fast ? ", fast" : "", how, t, n, first, i, (double)got[i],
                        (double)want[i]);
            return;
        }
}

/* The tokens in pieces of these lengths, again and again. */
static void run_pieces(bench *b, const subject *s, const char *how, const size_t *pieces, size_t n_pieces) {
    float *out = malloc(TOKENS * s->out * sizeof *out);
    for (size_t from = 0, k = 0; from < TOKENS; k++) {
        const size_t n = ht_min_size(pieces[k % n_pieces], TOKENS - from);
        run_piece(b, s, &(ht_slice){0}, from, n, out);
        for (size_t t = 0; t < n; t++)
            same(b, s, how, from + t, n, from, out + t * s->out, 0, s->out);
        from += n;
    }
    free(out);
}

static void find_alone(bench *b, subject *s) {
    s->alone = malloc(TOKENS * s->out * sizeof *s->alone);
    for (size_t t = 0; t < TOKENS; t++)
        run_piece(b, s, &(ht_slice){0}, t, 1, s->alone + t * s->out);
}

static void compare(bench *lanes, subject *s) {
    static const size_t some[] = {1, 2, 3, 4, 5, 6, 7, 8}, more[] = {9, 1, 12, 13, 6}, whole[] = {TOKENS},
                        odd[] = {25, 3, 8, 5};
    static const char *const how[] = {"one thread", "two threads", "three threads"};
    find_alone(&lanes[0], s);
    for (int i = 0; i < MAX_THREADS; i++) {
        run_pieces(&lanes[i], s, how[i], some, HT_COUNT(some));
        run_pieces(&lanes[i], s, how[i], whole, HT_COUNT(whole));
        if (is_quick() && i == 0)
            continue;
        run_pieces(&lanes[i], s, how[i], more, HT_COUNT(more));
        run_pieces(&lanes[i], s, how[i], odd, HT_COUNT(odd));
    }
}

/* ---- products ---------------------------------------------------------------------------------------------------- */

static subject of_matrices(size_t kind, size_t cols, bool biased) {
    subject s = {
        .what = ht_type_get(block_types[kind].type)->name,
        .op = {.kind = HT_OP_MATMUL, .name = "matmul", .in = SLOT_NORMED, .aux = HT_SLOT_NONE, .out = SLOT_QKV}};
    static const size_t rows[] = {70, 33};
    for (int i = 0; i < 2; i++) {
        s.op.parts[i] = make_matrix("weights", kind, rows[i], cols);
        s.op.bias[i] = biased ? vector(&s, rows[i] + 32, -1, 1) : NULL;
        s.out += rows[i];
    }
    s.op.n_parts = 2;
    add_input(&s, SLOT_NORMED, cols);
    return s;
}

/* Rows in ranges that begin within strips. */
static void compare_ranges(bench *b, const subject *s) {
    static const size_t ends[] = {5, 37, 71, 103}, tokens[] = {1, 2, 7, 13};
    float *out = malloc(TOKENS * s->out * sizeof *out);
    b->divided = true;
    for (size_t k = 0; k < HT_COUNT(tokens); k++)
        for (size_t i = 0, begin = 0; i < HT_COUNT(ends); begin = ends[i++]) {
            const ht_slice slice = {.row_begin = begin, .row_end = ends[i]};
            run_piece(b, s, &slice, 3, tokens[k], out);
            for (size_t t = 0; t < tokens[k]; t++)
                same(b, s, "a range of rows", 3 + t, tokens[k], 3, out + t * s->out, begin, ends[i]);
        }
    b->divided = false;
    free(out);
}

static void test_products(bench *lanes) {
    for (size_t kind = 0; kind < HT_COUNT(block_types); kind++) {
        const ht_type_traits *t = ht_type_get(block_types[kind].type);
        subject s = of_matrices(kind, t->block > 32 ? 512 : t->group ? 160 : 77, kind % 2);
        compare(lanes, &s);
        compare_ranges(&lanes[1], &s);
        for (int i = 0; i < s.op.n_parts; i++)
            free((void *)(uintptr_t)s.op.parts[i].data);
        free_subject(&s);
    }
}

static void test_head_products(bench *lanes) {
    static const size_t kinds[] = {0, 4, 12};
    for (size_t k = 0; k < HT_COUNT(kinds); k++) {
        subject s = {.what = "heads",
                     .op = {.kind = HT_OP_HEADS,
                            .name = "heads",
                            .in = SLOT_QKV,
                            .aux = HT_SLOT_NONE,
                            .out = SLOT_ATTN,
                            .n_parts = 1,
                            .heads = 3,
                            .kv_heads = 3,
                            .head_dim = 96,
                            .rest = 0}};
        s.op.parts[0] = make_matrix("heads", kinds[k], 3 * 40, 96);
        s.out = 3 * 40;
        add_input(&s, SLOT_QKV, 3 * 96);
        compare(lanes, &s);
        free((void *)(uintptr_t)s.op.parts[0].data);
        free_subject(&s);
    }
}

/* ---- experts ----------------------------------------------------------------------------------------------------- */

static void test_experts(bench *lanes) {
    enum { EXPERTS = 5, FEATURES = 64, ROWS = 70 };
    for (size_t kind = 0; kind < HT_COUNT(block_types); kind++) {
        if (ht_type_get(block_types[kind].type)->block > 32)
            continue;
        subject s = {.what = "experts",
                     .op = {.kind = HT_OP_EXPERTS,
                            .name = "experts",
                            .in = SLOT_NORMED,
                            .aux = HT_SLOT_NONE,
                            .out = SLOT_DELTA,
                            .n_more = 1,
                            .more = {ROUTE},
                            .experts = EXPERTS,
                            .width = FEATURES,
                            .n_parts = 3},
                     .out = ROWS};
        for (int i = 0; i < 3; i++)
            s.op.parts[i] = make_matrix("expert", kind, EXPERTS * (i < 2 ? FEATURES : ROWS), i < 2 ? 96 : FEATURES);
        add_input(&s, SLOT_NORMED, 96), add_input(&s, ROUTE, EXPERTS);
        for (size_t t = 0; t < TOKENS; t++)
            for (size_t e = 0; e < EXPERTS; e++) /* two of five, the first more often than others */
                if (e != t % EXPERTS && e != (t % 3 ? 0 : (t * 3 + 1) % EXPERTS))
                    s.ins[1].x[t * EXPERTS + e] = 0;
        compare(lanes, &s);
        for (int i = 0; i < 3; i++)
            free((void *)(uintptr_t)s.op.parts[i].data);
        free_subject(&s);
    }
}

static void test_route(bench *lanes) {
    for (int way = 0; way < 3; way++) {
        subject s = {.what = "route",
                     .op = {.kind = HT_OP_ROUTE,
                            .name = "route",
                            .in = ROUTER,
                            .aux = HT_SLOT_NONE,
                            .out = SLOT_FFN,
                            .experts = 13,
                            .route = {.function = way, .used = 4, .renormalise = way > 0, .scale = 1}},
                     .out = 13};
        add_input(&s, ROUTER, 13);
        compare(lanes, &s);
        free_subject(&s);
    }
}

/* ---- what is computed token by token ----------------------------------------------------------------------------- */

static void test_pointwise(bench *lanes) {
    enum { WIDTH = 77 };
    for (int kind = 0; kind < 6; kind++) {
        subject s = {.what = kind < 2    ? "norm"
                             : kind == 2 ? "norm's residual"
                             : kind < 5  ? "glu"
                                         : "soft cap",
                     .op = {.name = "pointwise", .in = SLOT_X, .aux = HT_SLOT_NONE, .out = SLOT_NORMED, .width = WIDTH},
                     .out = WIDTH};
        s.op.kind = kind < 3 ? HT_OP_NORM : kind < 5 ? HT_OP_GLU : HT_OP_ARGMAX;
        s.op.norm = kind == 1 ? HT_NORM_LAYER : HT_NORM_RMS, s.op.eps = 1e-5f;
        s.op.weight = vector(&s, WIDTH, 0.5, 1.5);
        s.op.activation = kind == 3 ? HT_ACT_SILU : HT_ACT_GELU;
        s.op.soft_cap = kind == 5 ? 12 : 0;
        add_input(&s, SLOT_X, kind == 3 || kind == 4 ? 2 * WIDTH : WIDTH);
        if (kind == 1 || kind == 2)
            s.op.aux = SLOT_DELTA, s.op.post_norm = s.op.weight, add_input(&s, SLOT_DELTA, WIDTH);
        if (kind == 2)
            s.op.out = SLOT_X; /* in place */
        if (kind == 5)
            s.op.out = SLOT_PICK, s.out = 1;
        compare(lanes, &s);
        free_subject(&s);
    }
}

/* ---- attention --------------------------------------------------------------------------------------------------- */

static void attend_alike(bench *lanes, const ht_hparams *h, const attending *how, size_t position, ht_kv_type type) {
    const bench shaped_bench = {.own_shape = true};
    attention_bench x = make_attention(&shaped_bench, h, how, position, TOKENS, type);
    const size_t values = x.kvs * (x.total + 3) * x.dim, bytes = ht_round_up(values * (type ? 4 : 2), 4096);
    make_cache(&lanes[0], values, x.total + 3, type);
    const ht_kv_layer kv = lanes[0].kv;
    subject s = {.what = "attention", .op = x.attention, .first = position, .out = x.heads * x.dim, .kv = kv};
    add_input(&s, SLOT_QKV, x.width);
    compare(lanes, &s);
    free_subject(&s);
    subject r = {.what = "rope", .op = x.rope, .first = position, .out = x.width, .kv = kv};
    add_input(&r, SLOT_QKV, x.width);
    compare(lanes, &r);
    free_subject(&r);
    free_pages(&lanes[0], kv.keys, bytes), free_pages(&lanes[0], kv.values, bytes);
    free_attention(&x);
}

static void test_attentions(bench *lanes) {
    static const ht_hparams shapes[] = {{.heads = 8, .kv_heads = 2, .head_dim = 64},
                                        {.heads = 3, .kv_heads = 3, .head_dim = 128},
                                        {.heads = 5, .kv_heads = 1, .head_dim = 96},
                                        {.heads = 4, .kv_heads = 2, .head_dim = 20},
                                        {.heads = 19, .kv_heads = 1, .head_dim = 32}};
    static const attending ways[] = {{.halves = true},
                                     {.window = 9, .sinks = true},
                                     {.chunk = 16, .norms = true},
                                     {.soft_cap = 5, .slopes = true, .window = 30},
                                     {.window = 47, .soft_cap = 20, .sinks = true, .norms = true, .norm_whole = true}};
    static const size_t positions[] = {0, 31, 70, 157};
    for (size_t i = 0; i < HT_COUNT(shapes); i++)
        for (size_t k = 0; k < HT_COUNT(ways); k++)
            for (size_t p = 0; p < HT_COUNT(positions); p++)
                if (!is_quick() || (i + k + p) % 4 == 0)
                    attend_alike(lanes, &shapes[i], &ways[k], positions[p], (i + k + p) % 2 ? HT_KV_F32 : HT_KV_F16);
}

/* ---- mixers ------------------------------------------------------------------------------------------------------ */

/* heads: of CONV its channels. */
static void mix_alike(bench *lanes, ht_op_kind kind, size_t heads, size_t groups, size_t dim, size_t key_dim,
                      int taps) {
    subject s = {
        .what = kind == HT_OP_CONV   ? "convolution"
                : kind == HT_OP_SCAN ? "scan"
                                     : "delta net",
        .op = {.kind = kind, .name = "mixer", .in = SLOT_FFN, .aux = HT_SLOT_NONE, .out = SLOT_ATTN, .eps = 1e-6f}};
    const ht_hparams shape = {
        .layers = 1, .embedding = 64, .heads = 1, .kv_heads = 1, .head_dim = 16, .feed_forward = 64};
    if (kind == HT_OP_CONV) {
        s.op.width = (int)heads, s.op.taps = taps;
        s.op.weight = vector(&s, (size_t)taps * heads, -1, 1);
    } else {
        const size_t channels = heads * dim + 2 * groups * key_dim;
        const bool scan = kind == HT_OP_SCAN;
        s.op.n_more = 1, s.op.more[0] = SLOT_QKV;
        s.op.heads = (int)heads, s.op.kv_heads = (int)groups, s.op.head_dim = (int)dim;
        s.op.recurrence = (ht_recurrence){.key_dim = (int)key_dim,
                                          .taps = taps,
                                          .conv = vector(&s, (size_t)taps * channels, -1, 1),
                                          .conv_bias = scan ? vector(&s, channels, -0.5, 0.5) : NULL,
                                          .a = vector(&s, heads, -1, -0.02),
                                          .dt_bias = vector(&s, heads, -3, 1),
                                          .skip = scan ? vector(&s, heads, -1, 1) : NULL,
                                          .norm = vector(&s, scan ? heads * dim : dim, 0.5, 1.5)};
    }
    add_input(&s, SLOT_FFN, ht_op_in_width(&s.op, &shape));
    if (s.op.n_more)
        add_input(&s, SLOT_QKV, ht_op_more_width(&s.op, &shape));
    s.out = ht_op_out_width(&s.op, &shape);
    const size_t bytes = ht_round_up(ht_op_state(&s.op, &shape) * sizeof(float), 4096);
    s.kv.state = make_pages(&lanes[0], bytes);
    compare(lanes, &s);
    free_pages(&lanes[0], s.kv.state, bytes);
    free_subject(&s);
}

static void test_mixers(bench *lanes) {
    mix_alike(lanes, HT_OP_CONV, 300, 0, 0, 0, 3);
    mix_alike(lanes, HT_OP_DELTA_NET, 6, 2, 32, 48, 4);
    mix_alike(lanes, HT_OP_DELTA_NET, 3, 1, 20, 12, 2);
    mix_alike(lanes, HT_OP_SCAN, 6, 3, 64, 128, 4);
    mix_alike(lanes, HT_OP_SCAN, 4, 4, 20, 12, 3);
}

/* ---- devices ----------------------------------------------------------------------------------------------------- */

static void test_device(const char *spec, ht_precision precision) {
    static const ht_hparams most = {.layers = 1,
                                    .embedding = 77,
                                    .heads = 19,
                                    .kv_heads = 3,
                                    .group = 19,
                                    .head_dim = 128,
                                    .feed_forward = 256,
                                    .vocabulary = 77};
    bench lanes[MAX_THREADS];
    for (int i = 0; i < MAX_THREADS; i++) {
        ht_error error = {0};
        const ht_device_options options = {.threads = i + 1,
                                           .precision = precision,
                                           .hparams = &most,
                                           .max_tokens = TOKENS,
                                           .max_context = MAX_CONTEXT};
        lanes[i] = (bench){.name = spec, .fast = precision == HT_PRECISION_FAST, .own_shape = true};
        if (!ht_device_open(spec, &options, &lanes[i].device, &error))
            continue;
        if (i || error.status != HT_ERROR_DEVICE || must_have(runtime_of(spec), error.text))
            fail_msg("%s", error.text);
        return;
    }
    test_products(lanes), test_head_products(lanes), test_experts(lanes);
    if (precision == HT_PRECISION_EXACT) /* the others are the same in `fast` */
        test_route(lanes), test_pointwise(lanes), test_attentions(lanes), test_mixers(lanes);
    for (int i = 0; i < MAX_THREADS; i++)
        lanes[i].device->ops->close(lanes[i].device);
}

static void test_exact(void **state) {
    for (size_t i = 0; i < HT_COUNT(specs) && specs[i]; i++)
        test_device(specs[i], HT_PRECISION_EXACT);
    assert_int_equal(failures, 0);
}

static void test_fast(void **state) {
    for (size_t i = 0; i < HT_COUNT(specs) && specs[i]; i++)
        test_device(specs[i], HT_PRECISION_FAST);
    assert_int_equal(failures, 0);
}

int main(int argc, char **argv) {
    if (argc > 1)
        memset(specs, 0, sizeof specs);
    for (int i = 1; i < argc && i <= (int)HT_COUNT(specs); i++)
        specs[i - 1] = argv[i];
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_exact), cmocka_unit_test(test_fast)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
