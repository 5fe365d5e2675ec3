/* Matrix products and feed-forward blocks checked against sums in double precision; run.h says by which bounds. */
#ifndef HT_TEST_PRODUCTS_H
#define HT_TEST_PRODUCTS_H

#include "ops/run.h"
#include "reference.h"

/* ---- matmul ----------------------------------------------------------------------------------------------------------------------- */

/* Is row r of part p, whose first row is `base` of the operator, in the slice? Of query heads, a key-value head goes
 * with the first of its `group`. */
static bool has_row(const ht_op *op, const ht_slice *s, int p, size_t base, size_t r) {
    const size_t group = s->group > 1 && p ? s->group : 1;
    const size_t each = s->of ? op->parts[p].rows / (s->of / group) : 1, row = s->of ? r : base + r;
    return row / each * group >= s->row_begin && row / each * group < s->row_end;
}

static inline void check_matmul(bench *b, const ht_op *op, ht_slice s, size_t tokens) {
    const size_t cols = op->parts[0].cols, rows = ht_op_rows(op), end = s.reduction_end ? s.reduction_end : cols;
    float *x = make_slot(b, SLOT_NORMED, tokens, cols), *y = make_slot(b, SLOT_QKV, tokens, rows);
    const size_t xs = b->slots[SLOT_NORMED].stride, ys = b->slots[SLOT_QKV].stride;
    fill(x, (tokens - 1) * xs + cols);
    for (size_t i = 0; i < (tokens - 1) * ys + rows; i++)
        y[i] = 12345;
    if (run_op(b, op, &s, tokens, 0)) {
        float *w = malloc(cols * sizeof *w);
        double *wide = malloc(cols * sizeof *wide);
        size_t base = 0;
        for (int p = 0; p < op->n_parts; base += op->parts[p++].rows)
            for (size_t r = 0; r < op->parts[p].rows; r++) {
                const bool mine = has_row(op, &s, p, base, r);
                ht_matrix_floats(&op->parts[p], r, 1, w);
                const bool coded = b->fast && op->parts[p].type->group;
                for (size_t t = 0; t < tokens; t++) {
                    const float *xt = x + t * xs;
                    const float got = y[t * ys + base + r];
                    if (!mine) {
                        check(got, 12345, 0, "row outside the slice", b->name, t, base + r);
                        continue;
                    }
                    const bool biased = op->bias[p] && s.reduction_begin == 0; /* one of the partial sums has it */
                    double sum = biased ? (double)op->bias[p][r] : 0, square = 0, rounding = 0;
                    for (size_t g = s.reduction_begin; g < end; g += 32) {
                        double most = 0;
                        for (size_t c = g; c < g + 32 && c < end; c++)
                            most = larger(most, fabs((double)xt[c]));
                        for (size_t c = g; c < g + 32 && c < end; c++) {
                            const double product = (double)xt[c] * (double)w[c];
                            sum += product, square += product * product;
                            rounding += (double)w[c] * (double)w[c] * (most / 127) * (most / 127) / 12;
                        }
                    }
                    /* a large bias stays in the accumulator while all terms are added: each addition rounds at its size;
                     * fp16 rounding of an offset that the file keeps in two levels, 2^-11 relative, is inside the first term */
                    double bound = 8 * EPS * sqrt((double)cols) * sqrt(square) + 8 * EPS * (fabs(sum) + 1) +
                                   0x1p-20 * sqrt(square);
                    if (biased)
                        bound += 2 * EPS * sqrt((double)cols) * fabs((double)op->bias[p][r]);
                    if (coded)
                        bound += 6 * sqrt(rounding);
                    for (size_t c = s.reduction_begin; c < end && b->step > 0; c++)
                        wide[c - s.reduction_begin] = (double)xt[c];
                    const double bias = biased ? (double)op->bias[p][r] : 0;
                    bound += half_bound(b, &op->parts[p], r, s.reduction_begin, end, wide, square, sum - bias) +
                             4 * b->step * (fabs(bias) + fabs(sum));
                    check((double)got, sum, bound, op->parts[p].type->name, b->name, t, base + r);
                }
            }
        free(w), free(wide);
    }
    free_slots(b);
}

/* ---- feed-forward blocks ------------------------------------------------------------------------------------------------- */

/* A share of the features: slice.row_begin .. row_end. */
static inline void check_ffn(bench *b, const ht_op *op, ht_slice s, size_t tokens) {
    const ht_matrix *gate = &op->members[0].parts[0], *up = &op->members[0].parts[1], *down = &op->members[2].parts[0];
    const size_t cols = gate->cols, rows = down->rows, n = s.row_end - s.row_begin;
    float *x = make_slot(b, SLOT_NORMED, tokens, cols), *y = make_slot(b, SLOT_DELTA, tokens, rows);
    const size_t xs = b->slots[SLOT_NORMED].stride, ys = b->slots[SLOT_DELTA].stride;
    fill(x, (tokens - 1) * xs + cols);
    for (size_t i = 0; i < (tokens - 1) * xs + cols && b->step > 0; i++)
        x[i] *= 0.1f; /* products of products stay in fp16's range */
    if (run_op(b, op, &s, tokens, 0)) {
        double *xt = malloc(cols * sizeof *xt), *hidden = malloc(2 * n * sizeof *hidden), *error = hidden + n;
        const size_t sampled[] = {0, tokens / 2, tokens - 1};
        for (size_t k = 0; k < HT_COUNT(sampled); k++) {
            const size_t t = sampled[k];
            for (size_t c = 0; c < cols; c++)
                xt[c] = (double)x[t * xs + c];
            for (size_t i = 0; i < n; i++) {
                const row_sum g = matvec_row(b, gate, s.row_begin + i, 0, cols, xt, NULL),
                              u = matvec_row(b, up, s.row_begin + i, 0, cols, xt, NULL);
                const double a = reference_glu(op->activation, false, g.sum, 1);
                hidden[i] = a * u.sum;
                error[i] =
                    hypot(1.13 * g.error * hypot(u.sum, u.error), hypot(a * u.error, (1e-6 + 4 * b->step) * hidden[i]));
            }
            for (size_t r = 0; r < rows; r++) {
                const row_sum want = matvec_row(b, down, r, s.row_begin, n, hidden, error);
                check((double)y[t * ys + r], want.sum, 6 * want.error, "ffn", b->name, t, r);
            }
        }
        free(xt), free(hidden);
    }
    free_slots(b);
}

#endif
