/* CONV, DELTA_NET and SCAN on every device against a scalar reference in double precision: prompts whole, in pieces and
 * token by token, whole and in shares, from a state that must be forgotten.
 *
 * usage: test_mixers [DEVICE ...]   default: the CPU once for each instruction set
 */
#include "ops/run.h"
#include "recurrent.h"

/* What an operator needs to be prepared, with vectors of its own. */
typedef struct mixer {
    ht_op op;
    ht_hparams shape;
    size_t tokens; /* of the longest prompt */
    size_t in, more, out;
    float *x, *y;         /* [tokens][in], [tokens][more] */
    double *want, *bound; /* [tokens][out] */
    float *vectors[8];
    int n_vectors;
} mixer;

static float *vector(mixer *m, size_t n, double low, double high) {
    float *v = malloc((n + 16) * sizeof *v);
    for (size_t i = 0; i < n; i++)
        v[i] = (float)(low + (high - low) * (uniform() + 1) / 2);
    return m->vectors[m->n_vectors++] = v;
}

static void find_expected(mixer *m) {
    recurrent r = recurrent_begin(&m->op, &m->shape);
    double *in = malloc((m->in + m->more + 1) * sizeof *in), *more = in + m->in;
    for (size_t t = 0; t < m->tokens; t++) {
        for (size_t i = 0; i < m->in; i++)
            in[i] = (double)m->x[t * m->in + i];
        for (size_t i = 0; i < m->more; i++)
            more[i] = (double)m->y[t * m->more + i];
        recurrent_token(&r, in, more, m->want + t * m->out, m->bound + t * m->out);
    }
    free(in);
    recurrent_end(&r);
}

/* heads: of CONV its channels. */
static mixer make_mixer(ht_op_kind kind, size_t heads, size_t groups, size_t dim, size_t key_dim, int taps,
                        size_t tokens) {
    mixer m = {
        .op = {.kind = kind, .name = "mixer", .in = SLOT_FFN, .aux = HT_SLOT_NONE, .out = SLOT_ATTN, .eps = 1e-6f},
        .shape = {.layers = 1,
                  .embedding = 64,
                  .heads = 1,
                  .kv_heads = 1,
                  .head_dim = 16,
                  .feed_forward = 64,
                  .vocabulary = 8},
        .tokens = tokens};
    if (kind == HT_OP_CONV) {
        m.op.width = (int)heads, m.op.taps = taps;
        m.op.weight = vector(&m, (size_t)taps * heads, -1, 1);
    } else {
        const size_t channels = heads * dim + 2 * groups * key_dim;
        const bool scan = kind == HT_OP_SCAN;
        m.op.n_more = 1, m.op.more[0] = SLOT_QKV;
        m.op.heads = (int)heads, m.op.kv_heads = (int)groups, m.op.head_dim = (int)dim;
        m.op.recurrence = (ht_recurrence){.key_dim = (int)key_dim,
                                          .taps = taps,
                                          .conv = vector(&m, (size_t)taps * channels, -1, 1),
                                          .conv_bias = scan ? vector(&m, channels, -0.5, 0.5) : NULL,
                                          .a = vector(&m, heads, -1, -0.02),
                                          .dt_bias = vector(&m, heads, -3, 1),
                                          .skip = scan ? vector(&m, heads, -1, 1) : NULL,
                                          .norm = vector(&m, scan ? heads * dim : dim, 0.5, 1.5),
                                          .repeated = !scan && taps == 5};
    }
    m.in = ht_op_in_width(&m.op, &m.shape), m.more = ht_op_more_width(&m.op, &m.shape);
    m.out = ht_op_out_width(&m.op, &m.shape);
    m.x = vector(&m, tokens * m.in, -2, 2), m.y = vector(&m, tokens * m.more, -2, 2);
    m.want = malloc(2 * tokens * m.out * sizeof *m.want), m.bound = m.want + tokens * m.out;
    find_expected(&m);
    return m;
}

static void free_mixer(mixer *m) {
    for (int i = 0; i < m->n_vectors; i++)
        free(m->vectors[i]);
    free(m->want);
}

/* Tokens [first, first + n) of the prompt by the shares between `ends`, each a submit. */
static void run_piece(bench *b, const mixer *m, size_t first, size_t n, const size_t *ends, size_t shares) {
    float *in = make_slot(b, SLOT_FFN, n, m->in), *out = make_slot(b, SLOT_ATTN, n, m->out);
    float *more = m->more ? make_slot(b, SLOT_QKV, n, m->more) : NULL;
    const size_t is = b->slots[SLOT_FFN].stride, os = b->slots[SLOT_ATTN].stride, of = ends[shares - 1];
    for (size_t t = 0; t < n; t++) {
        memcpy(in + t * is, m->x + (first + t) * m->in, m->in * sizeof *in);
        if (more)
            memcpy(more + t * b->slots[SLOT_QKV].stride, m->y + (first + t) * m->more, m->more * sizeof *in);
    }
    for (size_t i = 0; i < n * os - 5; i++)
        out[i] = 12345;
    for (size_t s = 0, begin = 0; s < shares; begin = ends[s++]) {
        const ht_slice slice = {.row_begin = begin, .row_end = ends[s], .of = of};
        b->divided = shares > 1;
        if (!run_op(b, &m->op, shares > 1 ? &slice : &(ht_slice){0}, n, first))
            fail_msg("%s refuses a share of %s", b->name, m->op.name);
        b->divided = false;
        for (size_t i = ends[s] * (m->out / of); i < m->out; i++) /* what is not its own is left alone */
            check((double)out[i], 12345, 0, "values of others", b->name, first, i);
    }
    for (size_t t = 0; t < n; t++)
        for (size_t i = 0; i < m->out; i++) {
            const size_t at = (first + t) * m->out + i;
            check((double)out[t * os + i], m->want[at], m->bound[at],
                  m->op.kind == HT_OP_CONV   ? "convolution"
                  : m->op.kind == HT_OP_SCAN ? "scan"
                                             : "delta net",
                  b->name, first + t, i);
        }
    free_slots(b);
}

/* The prompt in pieces of these lengths, the last one again and again. */
static void run_prompt(bench *b, const mixer *m, const size_t *pieces, size_t n_pieces, const size_t *ends,
                       size_t shares) {
    size_t first = 0;
    for (size_t i = 0; first < m->tokens; i++) {
        const size_t n = ht_min_size(pieces[ht_min_size(i, n_pieces - 1)], m->tokens - first);
        run_piece(b, m, first, n, ends, shares);
        first += n;
    }
}

static void test_mixer(bench *b, ht_op_kind kind, size_t heads, size_t groups, size_t dim, size_t key_dim, int taps) {
    static const size_t pieces[][3] = {{200, 200, 200}, {1, 1, 1}, {64, 1, 63}, {2, 65, 3}};
    mixer m = make_mixer(kind, heads, groups, dim, key_dim, taps, 131);
    const size_t of = ht_op_state_units(&m.op, &m.shape), floats = ht_op_state(&m.op, &m.shape);
    const size_t ends[] = {ht_max_size(of / 3, 1), ht_max_size(of - 1, 2), of};
    const size_t bytes = ht_round_up(floats * sizeof(float), 4096);
    ht_kv_layer kv = {.state = make_pages(b, bytes)};
    b->kv = kv;
    for (size_t i = 0; i < floats; i++)
        kv.state[i] = NAN; /* of another prompt */
    for (size_t p = 0; p < HT_COUNT(pieces); p++)
        run_prompt(b, &m, pieces[p], 3, &of, 1);
    if (divisible(b) && of >= 3)
        for (size_t p = 2; p < HT_COUNT(pieces); p++)
            run_prompt(b, &m, pieces[p], 3, ends, 3);
    free_pages(b, kv.state, bytes);
    free_mixer(&m);
}

static void test_refusals(bench *b) {
    mixer m = make_mixer(HT_OP_DELTA_NET, 4, 2, 16, 16, 4, 1);
    b->divided = true;
    assert_true(refused(b, &m.op, &(ht_slice){.row_end = 1, .of = 2}));
    assert_true(refused(b, &m.op, &(ht_slice){.row_end = 1}));
    assert_false(refused(b, &m.op, &(ht_slice){.row_end = 1, .of = 4}));
    b->divided = false;
    free_mixer(&m);
}

static const char *specs[16] = {HT_TEST_ISAS};

/* Kernels are compiled for each shape; what others vary is the CPU device's. */
static const struct {
    ht_op_kind kind;
    size_t heads, groups, dim, key_dim;
    int taps;
} more[] = {{HT_OP_CONV, 300, 0, 0, 0, 3},      {HT_OP_DELTA_NET, 4, 4, 64, 64, 4}, {HT_OP_DELTA_NET, 3, 1, 20, 12, 2},
            {HT_OP_DELTA_NET, 6, 2, 20, 12, 5}, /* five taps: value heads of a key head follow each other */
            {HT_OP_SCAN, 6, 1, 20, 16, 4},      {HT_OP_SCAN, 4, 4, 32, 12, 3}};

static void test_all(void **state) {
    for (size_t i = 0; i < HT_COUNT(specs) && specs[i]; i++) {
        const ht_hparams shape = {.layers = 1,
                                  .embedding = 64,
                                  .heads = 1,
                                  .kv_heads = 1,
                                  .head_dim = 16,
                                  .feed_forward = 64,
                                  .vocabulary = 8};
        const ht_device_options options = {.threads = 2, .hparams = &shape, .max_tokens = 256, .max_context = 256};
        bench b = {.name = specs[i]};
        ht_error error = {0};
        if (ht_device_open(specs[i], &options, &b.device, &error)) {
            if (error.status != HT_ERROR_DEVICE || must_have(runtime_of(specs[i]), error.text))
                fail_msg("%s", error.text);
            continue;
        }
        const bool all = !is_quick() || b.device->ops->caps(b.device)->runs_in_caller;
        test_mixer(&b, HT_OP_CONV, 33, 0, 0, 0, 4);
        test_mixer(&b, HT_OP_DELTA_NET, 6, 2, 32, 48, 4);
        test_mixer(&b, HT_OP_DELTA_NET, 6, 2, 32, 48, 5);
        test_mixer(&b, HT_OP_SCAN, 6, 3, 64, 128, 4);
        for (size_t k = 0; k < HT_COUNT(more) && all; k++)
            test_mixer(&b, more[k].kind, more[k].heads, more[k].groups, more[k].dim, more[k].key_dim, more[k].taps);
        test_refusals(&b);
        b.device->ops->close(b.device);
    }
    print_message("largest share of a bound: %g\n", worst.share);
    assert_int_equal(failures, 0);
}

int main(int argc, char **argv) {
    if (argc > 1)
        memset(specs, 0, sizeof specs);
    for (int i = 1; i < argc && i <= (int)HT_COUNT(specs); i++)
        specs[i - 1] = argv[i];
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_all)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
