/* NORM, GLU, ARGMAX and EMBED against the same in double precision. */
#ifndef HT_TEST_POINTWISE_H
#define HT_TEST_POINTWISE_H

#include "ops/shares.h"
#include "reference.h"

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
    double *sum = malloc(2 * n * sizeof *sum), *delta = sum + n;
    const bool ran = run_op(b, op, &(ht_slice){0}, tokens, 0);
    for (size_t t = 0; t < tokens && ran; t++) {
        for (size_t i = 0; i < n; i++)
            delta[i] = op->aux == HT_SLOT_NONE ? 0 : norm_delta(b, t, i);
        if (op->post_norm)
            reference_norm(HT_NORM_RMS, delta, op->post_norm, NULL, 1e-5, n, delta);
        for (size_t i = 0; i < n; i++)
            sum[i] = (double)before[t * stride + i] + delta[i];
        reference_norm(op->norm, sum, op->weight, op->norm_bias, 1e-5, n, delta);
        for (size_t i = 0; i < n; i++) {
            check((double)x[t * stride + i], sum[i], 16 * EPS * 10 * (double)(1 + n_pieces), "norm's residual", b->name,
                  t, i);
            check((double)y[t * stride + i], delta[i], 64 * EPS * (double)(1 + n_pieces) * (fabs(delta[i]) + 1), "norm",
                  b->name, t, i);
        }
    }
    b->n_pieces = 0;
    free(before), free(sum);
    free_slots(b);
}

static void test_norm(bench *b, const ht_hparams *h) {
    static const struct {
        ht_norm norm;
        bool adds, post, bias;
    } rows[] = {{HT_NORM_RMS, false, false, false},  {HT_NORM_RMS, true, false, false},
                {HT_NORM_RMS, true, true, false},    {HT_NORM_LAYER, false, false, true},
                {HT_NORM_LAYER, true, false, false}, {HT_NORM_LAYER, true, false, true},
                {HT_NORM_NONE, false, false, false}, {HT_NORM_NONE, true, true, false}};
    const size_t n = (size_t)h->embedding;
    float *weight = malloc(3 * n * sizeof *weight);
    fill(weight, 3 * n);
    for (size_t r = 0; r < HT_COUNT(rows); r++)
        for (size_t pieces = 0; pieces <= (rows[r].adds ? HT_MAX_PIECES : 0); pieces += r < 3 ? 1 : HT_MAX_PIECES) {
            const ht_op norm = {.kind = HT_OP_NORM,
                                .name = "norm",
                                .in = SLOT_X,
                                .aux = rows[r].adds ? SLOT_DELTA : HT_SLOT_NONE,
                                .out = SLOT_NORMED,
                                .norm = rows[r].norm,
                                .weight = rows[r].norm == HT_NORM_NONE ? NULL : weight,
                                .norm_bias = rows[r].bias ? weight + 2 * n : NULL,
                                .post_norm = rows[r].post ? weight + n : NULL,
                                .eps = 1e-5f},
                        op = shaped(b, norm, h);
            check_norm(b, &op, n, 33, pieces);
            if (pieces)
                check_norm(b, &op, n, 1, pieces);
        }
    free(weight);
}

/* Where the other factor of a GLU is. */
typedef enum factor { BEHIND, SIDE, UNGATED, FACTORS } factor;

static ht_op glu_of(const bench *b, const ht_hparams *h, ht_activation activation, factor where) {
    const ht_op op = {.kind = HT_OP_GLU,
                      .name = "glu",
                      .in = SLOT_FFN,
                      .out = SLOT_ACT,
                      .activation = activation,
                      .n_more = where == SIDE,
                      .more = {SLOT_QKV},
                      .more_first = 21,
                      .ungated = where == UNGATED};
    return shaped(b, op, h);
}

static void check_glu(bench *b, const ht_hparams *h, ht_activation activation, factor where) {
    static const char *const names[] = {"silu", "gelu, tanh", "gelu", "relu2", "sigmoid", "clamped"};
    const size_t n = (size_t)h->feed_forward, tokens = 9;
    const ht_op op = glu_of(b, h, activation, where);
    float *in = make_slot(b, SLOT_FFN, tokens, where == BEHIND ? 2 * n : n),
          *side = make_slot(b, SLOT_QKV, tokens, 21 + n), *out = make_slot(b, SLOT_ACT, tokens, n);
    const size_t is = b->slots[SLOT_FFN].stride, ss = b->slots[SLOT_QKV].stride, os = b->slots[SLOT_ACT].stride;
    fill(in, b->bytes[SLOT_FFN] / 4), fill(side, b->bytes[SLOT_QKV] / 4);
    for (size_t i = 0; i < n; i++)
        in[i] = ((float)i - (float)n / 2) * 16 / (float)(n < 16 ? 16 : n); /* both tails */
    in[0] = -(float)n / 2, in[n - 1] = (float)n / 2;                       /* and far out */
    if (run_op(b, &op, &(ht_slice){0}, tokens, 0))
        for (size_t t = 0; t < tokens; t++)
            for (size_t i = 0; i < n; i++) {
                const double g = (double)in[t * is + i],
                             u = (double)(where == SIDE ? side[t * ss + 21 + i]
                                          : where       ? 1
                                                        : in[t * is + n + i]),
                             want = reference_glu(activation, where != UNGATED, g, u),
                             scale = where == UNGATED ? 1 : fabs(reference_glu(activation, true, 1e9, u) / 1e9);
                check((double)out[t * os + i], want,
                      1e-6 * fabs(want) + 1e-8 * (activation == HT_ACT_RELU2 ? fabs(u) : scale + 1e-9 * fabs(u)),
                      names[activation], b->name, t, i);
            }
    free_slots(b);
}

static void test_glu(bench *b, const ht_hparams *h) {
    for (int activation = HT_ACT_SILU; activation <= HT_ACT_CLAMPED; activation++)
        for (int where = 0; where < FACTORS; where++)
            check_glu(b, h, (ht_activation)activation, (factor)where);
}

/* Shares counted in features, and in parts of some each, as heads are. */
static void test_glu_shares(bench *b, const ht_hparams *h, factor where, size_t each, size_t tokens) {
    const size_t n = (size_t)h->feed_forward, of = n / each, ends[] = {of / 4, of / 3, of / 2, of - 1, of};
    const ht_op op = glu_of(b, h, HT_ACT_SIGMOID, where);
    float *in = make_slot(b, SLOT_FFN, tokens, 2 * n), *side = make_slot(b, SLOT_QKV, tokens, 21 + n),
          *out = make_slot(b, SLOT_ACT, tokens, n);
    fill(in, b->bytes[SLOT_FFN] / 4), fill(side, b->bytes[SLOT_QKV] / 4), fill(out, b->bytes[SLOT_ACT] / 4);
    snapshot kept = snapshot_of(out, b->bytes[SLOT_ACT]);
    const bool ran = run_op(b, &op, &(ht_slice){0}, tokens, 0);
    take_back(&kept);
    for (int divided = 0; divided <= divisible(b) && ran; divided++) {
        b->divided = divided;
        size_t begin = 0, shares = 0;
        for (size_t i = 0; i < HT_COUNT(ends); i++) {
            if (!run_op(b, &op, &(ht_slice){.row_begin = begin, .row_end = ends[i], .of = of}, tokens, 0))
                continue; /* the next share is larger */
            begin = ends[i], shares++;
            check_done(b, "glu's share", &kept, SLOT_ACT, tokens, 1, n, n, 0, begin * each);
        }
        assert_true(!divided || n < 256 || shares >= 3);
        memcpy(kept.data, kept.before, kept.bytes);
    }
    b->divided = false;
    free_snapshot(&kept);
    free_slots(b);
}

/* The largest stands behind another that is as large, and one of another token's is larger than both. Capped logits are capped
 * where they stand, and nothing beyond them. */
static void test_argmax(bench *b, const ht_hparams *h, float cap) {
    const size_t n = (size_t)h->vocabulary, tokens = 2;
    const ht_op argmax = {.kind = HT_OP_ARGMAX, .name = "argmax", .in = SLOT_LOGITS, .out = SLOT_PICK, .soft_cap = cap},
                op = shaped(b, argmax, h);
    float *logits = make_slot(b, SLOT_LOGITS, tokens, n);
    int32_t *picks = (int32_t *)(void *)make_slot(b, SLOT_PICK, tokens, 1);
    const size_t stride = b->slots[SLOT_LOGITS].stride;
    fill(logits, (tokens - 1) * stride + n);
    for (size_t i = n; i < stride; i++)
        logits[i] = 1e9f; /* beyond the row */
    logits[n - 1] = logits[n - 2] = cap > 0 ? 9 : 1e6f, logits[stride] = cap > 0 ? 10 : 1e7f;
    float *before = malloc(b->bytes[SLOT_LOGITS]);
    memcpy(before, logits, b->bytes[SLOT_LOGITS]);
    if (run_op(b, &op, &(ht_slice){0}, tokens, 0)) {
        check(picks[0], (double)(n - 2), 0, "argmax", b->name, 0, 0);
        check(picks[b->slots[SLOT_PICK].stride], 0, 0, "argmax", b->name, 1, 0);
        for (size_t i = 0; i < (tokens - 1) * stride + n; i++) {
            const double was = (double)before[i], limit = (double)cap;
            const bool capped = cap > 0 && i % stride < n;
            check((double)logits[i], capped ? limit * tanh(was / limit) : was, capped ? 8 * EPS * limit : 0, "a logit",
                  b->name, i / stride, i % stride);
        }
    }
    free(before);
    free_slots(b);
}

/* Rows by token ids; or by positions, added to what is there. */
static void check_embed(bench *b, size_t kind, bool positions) {
    ht_op op = {.kind = HT_OP_EMBED,
                .name = "embed",
                .in = SLOT_IDS,
                .out = SLOT_X,
                .n_parts = 1,
                .scale = 2.5f,
                .positions = positions};
    op.parts[0] = make_matrix("embedding", kind, 19, 512);
    int32_t *ids = (int32_t *)(void *)make_slot(b, SLOT_IDS, 3, 1);
    b->slots[SLOT_IDS].stride = 1;
    ids[0] = 18, ids[1] = 0, ids[2] = 7;
    float *x = make_slot(b, SLOT_X, 3, 512), want[512];
    const size_t stride = b->slots[SLOT_X].stride;
    fill(x, 2 * stride + 512);
    float *before = malloc(b->bytes[SLOT_X]);
    memcpy(before, x, b->bytes[SLOT_X]);
    if (run_op(b, &op, &(ht_slice){0}, 3, 16))
        for (size_t t = 0; t < 3; t++) {
            ht_matrix_floats(&op.parts[0], positions ? 16 + t : (size_t)ids[t], 1, want);
            for (size_t i = 0; i < 512; i++) {
                const double was = positions ? (double)before[t * stride + i] : 0;
                check((double)x[t * stride + i], was + 2.5 * (double)want[i],
                      4 * EPS * (fabs(was) + 2.5 * fabs((double)want[i])), "embed", b->name, t, i);
            }
        }
    free(before);
    free_slots(b);
    free((void *)(uintptr_t)op.parts[0].data);
}

static void test_embed(bench *b) {
    for (size_t k = 0; k < HT_COUNT(block_types); k++)
        for (int positions = 0; positions < 2; positions++)
            check_embed(b, k, positions);
}

#endif
