/* Special NORMs, sparse GLUs and MIX against the same in double precision. Bounds: sums of n squares or products err by
 * EPS sqrt(n) of what they are, rows of S by some roundings of what is added up. */
#ifndef HT_TEST_STREAMS_H
#define HT_TEST_STREAMS_H

#include "ops/pointwise.h"

enum { STREAMS = 4 };

/* Token t of a slot in double. */
static void take_row(const bench *b, ht_slot slot, size_t t, size_t n, double *out) {
    for (size_t i = 0; i < n; i++)
        out[i] = (double)((const float *)b->slots[slot].data)[t * b->slots[slot].stride + i];
}

static float *fill_slot(bench *b, ht_slot slot, size_t tokens, size_t n) {
    float *x = make_slot(b, slot, tokens, n);
    fill(x, (tokens - 1) * b->slots[slot].stride + n);
    return x;
}

/* Two slots, of `first` + 1 and of the other pieces. */
static void check_norm_special(bench *b, const ht_op *op, size_t n, size_t tokens, size_t pieces, size_t first) {
    static const ht_slot lent[HT_MAX_PIECES] = {SLOT_QKV, SLOT_FFN, SLOT_ACT};
    fill_slot(b, SLOT_X, tokens, n), fill_slot(b, SLOT_DELTA, tokens, n), fill_slot(b, SLOT_NORMED, tokens, n);
    for (size_t k = 0; k < pieces; k++)
        fill_slot(b, lent[k], tokens, n), b->pieces[k] = b->slots[lent[k]];
    b->n_pieces = pieces, b->first_pieces = first;
    double *all = malloc(tokens * 2 * n * sizeof *all), *row = malloc(3 * n * sizeof *row);
    for (size_t t = 0; t < tokens; t++) {
        double *x = all + t * 2 * n, *normed = x + n, *sum = row, *one = row + n, *piece = one + n;
        take_row(b, SLOT_X, t, n, x), take_row(b, SLOT_NORMED, t, n, normed);
        memset(sum, 0, n * sizeof *sum);
        for (size_t k = 0; k < ht_op_added(op); k++) {
            memset(one, 0, n * sizeof *one);
            for (size_t p = 0; p <= pieces; p++) {
                if ((p <= first) == (k == 0)) {
                    take_row(b, p ? lent[p - 1] : SLOT_DELTA, t, n, piece);
                    for (size_t i = 0; i < n; i++)
                        one[i] += piece[i];
                }
            }
            if (op->each_norm[k])
                reference_norm(HT_NORM_RMS, one, op->each_norm[k], NULL, (double)op->post_eps, n, one);
            for (size_t i = 0; i < n; i++)
                sum[i] += one[i];
        }
        if (op->post_norm && ht_op_added(op))
            reference_norm(HT_NORM_RMS, sum, op->post_norm, NULL, (double)op->post_eps, n, sum);
        for (size_t i = 0; i < n; i++)
            x[i] = ((op->replaces ? 0 : x[i]) + sum[i] + (op->adds_normed ? normed[i] : 0)) * (double)op->stream_scale;
        reference_norm(op->norm, x, op->weight, NULL, (double)op->eps, n, normed);
    }
    if (run_op(b, op, &(ht_slice){0}, tokens, 0))
        for (size_t t = 0; t < tokens; t++)
            for (size_t i = 0; i < n; i++) {
                const double *x = all + t * 2 * n, *normed = x + n;
                const float *got = (const float *)b->slots[SLOT_X].data + t * b->slots[SLOT_X].stride,
                            *out = (const float *)b->slots[SLOT_NORMED].data + t * b->slots[SLOT_NORMED].stride;
                check((double)got[i], x[i], 128 * EPS * (4 + fabs(x[i])), "a special norm's stream", b->name, t, i);
                check((double)out[i], normed[i], 512 * EPS * (2 + fabs(normed[i])), "a special norm", b->name, t, i);
            }
    b->n_pieces = b->first_pieces = 0;
    free(all), free(row);
    free_slots(b);
}

static void test_norm_special(bench *b, const ht_hparams *h) {
    const size_t n = (size_t)h->embedding;
    float *weight = malloc(4 * n * sizeof *weight);
    fill(weight, 4 * n);
    for (int way = 0; way < 16; way++) {
        const bool adds = way != 3, two = adds && way & 1;
        ht_op norm = {.kind = HT_OP_NORM,
                      .name = "special",
                      .in = SLOT_X,
                      .aux = adds ? SLOT_DELTA : HT_SLOT_NONE,
                      .out = SLOT_NORMED,
                      .norm = way % 5 == 2 ? HT_NORM_NONE : HT_NORM_RMS,
                      .weight = way % 5 == 2 ? NULL : weight,
                      .post_norm = adds && way & 2 ? weight + n : NULL,
                      .each_norm = {adds && way & 4 ? weight + 2 * n : NULL, two && way & 8 ? weight + 3 * n : NULL},
                      .n_more = two,
                      .more = {SLOT_QKV},
                      .replaces = way % 3 == 0,
                      .adds_normed = way % 4 == 1,
                      .stream_scale = way & 1 ? 0.5f : 1.0f,
                      .post_eps = 1e-3f,
                      .eps = 1e-5f};
        const ht_op op = shaped(b, norm, h);
        for (size_t pieces = two; pieces <= (adds ? HT_MAX_PIECES : 0); pieces++)
            check_norm_special(b, &op, n, pieces == 1 ? 33 : 1, pieces, two ? pieces - 1 : pieces);
    }
    free(weight);
}

static void test_sparse(bench *b, const ht_hparams *h) {
    const size_t n = (size_t)h->feed_forward, tokens = 9;
    ht_op op = glu_of(b, h, HT_ACT_GELU_TANH, BEHIND);
    op.sparsity = 0.8f;
    const float *in = fill_slot(b, SLOT_FFN, tokens, 2 * n), *out = fill_slot(b, SLOT_ACT, tokens, n);
    const size_t is = b->slots[SLOT_FFN].stride, os = b->slots[SLOT_ACT].stride;
    assert_true(refused(b, &op, &(ht_slice){.row_end = 1, .of = 2}) || n < 2);
    if (run_op(b, &op, &(ht_slice){0}, tokens, 0))
        for (size_t t = 0; t < tokens; t++) {
            double mean = 0, sum = 0;
            for (size_t i = 0; i < n; i++)
                mean += (double)in[t * is + i] / (double)n;
            for (size_t i = 0; i < n; i++)
                sum += pow((double)in[t * is + i] - mean, 2);
            const double cut = mean + (double)op.sparsity * sqrt(sum / (double)(n > 1 ? n - 1 : 1));
            for (size_t i = 0; i < n; i++) {
                const double u = (double)in[t * is + n + i],
                             want = reference_glu(HT_ACT_GELU_TANH, true, fmax((double)in[t * is + i] - cut, 0), u);
                check((double)out[t * os + i], want, (128 * EPS + 1e-6) * (1 + fabs(u)), "sparse", b->name, t, i);
            }
        }
    free_slots(b);
}

static double row_squares(const double *x, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    return sum;
}

/* What the operator makes of a token; s: more[0], or for SIDE what slot out held. */
static void want_mix(const ht_op *op, size_t n, const double *in, double *s, double *out) {
    const ht_mix *m = &op->mix;
    const double *asked = m->function == HT_MIX_PREDICT ? s : in;
    double says[STREAMS] = {0}, *before = malloc(STREAMS * n * sizeof *before);
    for (size_t k = 1; k < STREAMS && m->function == HT_MIX_PREDICT; k++)
        for (size_t i = 0; i < n; i++)
            s[k * n + i] += in[i];
    for (size_t k = 0; k < STREAMS && m->router; k++) {
        const double scale = 1 / sqrt(row_squares(asked, n) / (double)n + (double)op->eps);
        for (size_t i = 0; i < n; i++)
            says[k] += asked[i] * scale * (double)m->router_norm[i] * (double)m->router[k * n + i] / (double)n;
        says[k] = tanh(says[k]);
    }
    memcpy(before, s, (m->function == HT_MIX_BEGIN ? 1 : STREAMS) * n * sizeof *before);
    for (size_t k = 0; k < STREAMS; k++)
        for (size_t i = 0; i < n; i++) {
            const size_t at = k * n + i;
            double sum = 0;
            if (m->function == HT_MIX_SIDE)
                out[at] = s[at] + in[at] / sqrt(row_squares(in + k * n, n) / (double)n + (double)op->eps) *
                                      (double)op->weight[i];
            if (m->function == HT_MIX_BEGIN)
                out[at] = k ? s[at - n] * sqrt(row_squares(in, n) / row_squares(s + (k - 1) * n, n)) : in[i];
            if (m->function == HT_MIX_GATHER && k)
                out[at - n] = s[at] + in[i];
            if (m->function == HT_MIX_END && !k) {
                for (size_t j = 1; j < STREAMS; j++)
                    sum += in[(j - 1) * n + i] * sqrt(row_squares(s, n) / row_squares(in + (j - 1) * n, n));
                out[i] = (s[i] + sum) / STREAMS;
            }
            for (size_t j = 0; j < STREAMS && m->function == HT_MIX_PREDICT; j++)
                for (size_t r = 0; r < STREAMS; r++)
                    sum += (double)m->coefs[(k * STREAMS + j) * STREAMS + r] * says[r] * before[j * n + i];
            for (size_t r = 0; r < STREAMS && m->function == HT_MIX_CORRECT; r++)
                sum += (double)m->coefs[k * STREAMS + r] * says[r] * (in[i] - before[i]);
            if (ht_mix_in_place(op))
                s[at] += sum + (m->function == HT_MIX_CORRECT ? in[i] - before[i] : 0);
            if (ht_mix_in_place(op) && !k)
                out[i] = s[i] * (m->scale ? (double)m->scale[i] : 1);
        }
    free(before);
}

static void check_mix(bench *b, const ht_op *op, size_t n, size_t tokens) {
    const ht_hparams h = {.embedding = (int)n};
    const size_t in = ht_op_in_width(op, &h), more = ht_op_more_width(op, &h), out = ht_op_out_width(op, &h);
    fill_slot(b, SLOT_X, tokens, in), fill_slot(b, SLOT_ATTN, tokens, out), fill_slot(b, SLOT_QKV, tokens, STREAMS * n);
    double *want = malloc(tokens * 3 * STREAMS * n * sizeof *want);
    for (size_t t = 0; t < tokens; t++) {
        double *x = want + t * 3 * STREAMS * n, *s = x + STREAMS * n, *y = s + STREAMS * n;
        take_row(b, SLOT_X, t, in, x);
        take_row(b, op->n_more ? SLOT_QKV : SLOT_ATTN, t, op->n_more ? more : out, s);
        want_mix(op, n, x, s, y);
    }
    if (run_op(b, op, &(ht_slice){0}, tokens, 0))
        for (size_t t = 0; t < tokens; t++) {
            const double *s = want + (t * 3 + 1) * STREAMS * n, *y = s + STREAMS * n;
            const float *got = (const float *)b->slots[SLOT_ATTN].data + t * b->slots[SLOT_ATTN].stride,
                        *kept = (const float *)b->slots[SLOT_QKV].data + t * b->slots[SLOT_QKV].stride;
            for (size_t i = 0; i < out; i++)
                check((double)got[i], y[i], 256 * EPS * (4 + fabs(y[i])), "mix", b->name, t, i);
            for (size_t i = 0; i < more && ht_mix_in_place(op); i++)
                check((double)kept[i], s[i], 256 * EPS * (4 + fabs(s[i])), "mixed streams", b->name, t, i);
        }
    free(want);
    free_slots(b);
}

static void test_mix(bench *b, const ht_hparams *h) {
    const size_t n = (size_t)h->embedding, coefs = STREAMS * STREAMS * STREAMS;
    float *values = malloc((coefs + (3 + STREAMS) * n) * sizeof *values), *weight = values + coefs;
    fill(values, coefs + (3 + STREAMS) * n);
    for (int function = HT_MIX_SIDE; function <= HT_MIX_END; function++) {
        const bool routes = function == HT_MIX_PREDICT || function == HT_MIX_CORRECT;
        ht_op op = {.kind = HT_OP_MIX,
                    .name = "mix",
                    .in = SLOT_X,
                    .aux = HT_SLOT_NONE,
                    .out = SLOT_ATTN,
                    .n_more = function != HT_MIX_SIDE,
                    .more = {SLOT_QKV},
                    .weight = weight,
                    .width = (int)n,
                    .eps = 1e-5f};
        op.mix.function = function, op.mix.streams = STREAMS;
        op.mix.router_norm = routes ? weight + n : NULL, op.mix.router = routes ? weight + 3 * n : NULL;
        op.mix.coefs = routes ? values : NULL;
        op.mix.scale = function == HT_MIX_CORRECT ? weight + 2 * n : NULL;
        check_mix(b, &op, n, 1), check_mix(b, &op, n, 33);
    }
    free(values);
}

static void test_streams(bench *b, const ht_hparams *h) {
    test_norm_special(b, h);
    test_sparse(b, h);
    test_mix(b, h);
}

#endif
