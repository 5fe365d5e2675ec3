/* Running one operator on a device, and a row of a matrix in double precision with what a device may err by.
 *
 * Bounds. A float32 dot product of n terms errs by about eps * sqrt(n) * |x|.|w| when errors are independent; eight
 * times that is allowed. int8 activations round each x by up to half a step of its group (max/127): standard deviation
 * step / sqrt(12), times the weights, added in quadrature; six of these are allowed.
 */
#ifndef HT_TEST_RUN_H
#define HT_TEST_RUN_H

#include "needs.h"
#include "ops/matrices.h"
#include "slots.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EPS 0x1p-24

/* Not fmax: vectorised as a reduction it crashes GCC 12 for 64-bit ARM ("in vect_transform_reduction"). */
static double larger(double a, double b) {
    return a > b ? a : b;
}

static bool small;
static int failures;
static struct {
    double error, share, largest;
} worst; /* of all checks so far: absolute, of its bound; and the largest value */
static void check(double got, double want, double bound, const char *what, const char *device, size_t t, size_t r) {
    const double error = fabs(got - want);
    if (bound > 0) {
        worst.error = fmax(worst.error, error);
        worst.share = fmax(worst.share, error / bound);
        worst.largest = fmax(worst.largest, fabs(want));
    }
    if (error <= bound)
        return;
    if (failures++ < 20)
        fprintf(stderr, "%s on %s: token %zu, row %zu: %.9g, want %.9g, bound %.3g\n", what, device, t, r, got, want,
                bound);
}

/* ---- running one operator
 * ------------------------------------------------------------------------------------------------------ */

typedef struct bench {
    ht_device *device;
    const char *name;
    bool fast;
    bool own_shape; /* operators say their heads and widths, else they have the model's */
    double step;    /* rounding of its arithmetic, of both factors of a product; 0: float32 */
    ht_view slots[HT_MAX_SLOTS];
    size_t bytes[HT_MAX_SLOTS];
    ht_kv_layer kv;
    ht_task *task;     /* prepared for several runs; NULL: each run prepares its own */
    bool divided;      /* tasks are whole, and a slice is chosen at submit */
    ht_device *beside; /* computes what the device leaves */
    size_t n_left;     /* values that it left of the newest run */
    ht_view pieces[HT_MAX_PIECES];
    size_t n_pieces, first_pieces;
} bench;

/* Pages that the device sees, and their end. */
static void *make_pages(bench *b, size_t bytes) {
    void *pages = ht_pages_alloc(bytes);
    ht_error error = {0};
    if (b->device->ops->import && b->device->ops->import(b->device, pages, bytes, &error))
        fail_msg("%s", error.text);
    return pages;
}

static void free_pages(bench *b, void *pages, size_t bytes) {
    if (b->device->ops->forget)
        b->device->ops->forget(b->device, pages);
    ht_pages_free(pages, bytes);
}

static float *make_slot(bench *b, ht_slot slot, size_t tokens, size_t width) {
    const size_t stride = width + 5; /* not the width: strides must be honoured */
    b->bytes[slot] = small ? ((tokens - 1) * stride + width) * 4 : ht_round_up(tokens * stride * 4 + 64, 4096);
    b->slots[slot] = (ht_view){make_pages(b, b->bytes[slot]), stride};
    return b->slots[slot].data;
}

static void free_slots(bench *b) {
    for (int s = 0; s < HT_MAX_SLOTS; s++)
        if (b->slots[s].data)
            free_pages(b, b->slots[s].data, b->bytes[s]);
    memset(b->slots, 0, sizeof b->slots);
}

static ht_slice whole_slice(const ht_op *op) {
    if (op->kind == HT_OP_MATMUL)
        return (ht_slice){.row_end = ht_op_rows(op), .reduction_end = ht_op_cols(op)};
    return (ht_slice){0};
}

static bool refused(const bench *b, const ht_op *op, const ht_slice *slice) {
    const ht_device_ops *ops = b->device->ops;
    return b->divided && ops->refuses_part ? ops->refuses_part(b->device, op, slice) != NULL
                                           : ops->refuses && ops->refuses(b->device, op, slice);
}

static bool divisible(const bench *b) {
    return b->device->ops->caps(b->device)->divisible;
}

static inline bool leaves(const bench *b, const ht_op *op) {
    return op->kind == HT_OP_EXPERTS && b->device->ops->caps(b->device)->leaves;
}

/* What the device left in `left` is computed by the one beside it. */
static inline void run_rest(bench *b, const ht_op *op, const ht_slice *slice, const ht_binding *all) {
    ht_error error = {0};
    ht_task *task;
    ht_ticket ticket;
    ht_view slots[HT_MAX_SLOTS];
    ht_binding rest = *all;
    memcpy(slots, b->slots, sizeof slots);
    slots[op->more[0]] = *all->left;
    rest.slots = slots, rest.left = NULL, rest.adds = true;
    b->n_left = 0;
    for (size_t i = 0; i < all->tokens * all->left->stride; i++)
        b->n_left += ((float *)all->left->data)[i] != 0.0f;
    if (b->beside->ops->prepare(b->beside, op, slice, &task, &error) ||
        b->beside->ops->submit(b->beside, task, &rest, NULL, 0, &ticket, &error))
        fail_msg("the rest of %s: %s", op->name, error.text);
    b->beside->ops->release(b->beside, task);
}

/* False: the device refuses this operator (counted by the caller as a skip). Who takes parts takes every whole
 * operator. */
static bool run_op(bench *b, const ht_op *op, const ht_slice *slice, size_t tokens, size_t position) {
    ht_error error = {0};
    const ht_device_ops *ops = b->device->ops;
    if (refused(b, op, slice)) {
        if ((divisible(b) || leaves(b, op)) && !slice->of && !slice->row_end && !slice->reduction_end)
            fail_msg("%s refuses %s: %s", b->name, op->name, ops->refuses(b->device, op, slice));
        return false;
    }
    const ht_slice whole = whole_slice(op);
    ht_task *task = b->task;
    if (!task && ops->prepare(b->device, op, b->divided ? &whole : slice, &task, &error))
        fail_msg("prepare %s: %s", op->name, error.text);
    float *rows = leaves(b, op) ? malloc(tokens * (size_t)op->experts * sizeof *rows) : NULL;
    const ht_view left = {rows, (size_t)op->experts};
    const ht_binding binding = {.slots = b->slots,
                                .kv = &b->kv,
                                .position = position,
                                .tokens = tokens,
                                .sync = HT_SYNC_EVENT,
                                .part = b->divided ? slice : NULL,
                                .left = rows ? &left : NULL,
                                .pieces = b->pieces,
                                .n_pieces = b->n_pieces,
                                .first_pieces = b->first_pieces};
    ht_ticket ticket;
    if (ops->submit(b->device, task, &binding, NULL, 0, &ticket, &error))
        fail_msg("submit %s: %s", op->name, error.text);
    if (ops->wait(b->device, ticket, HT_SYNC_FINISH, &error))
        fail_msg("wait %s: %s", op->name, error.text);
    assert_true(ops->completed(b->device) >= ticket);
    if (rows)
        run_rest(b, op, slice, &binding);
    free(rows);
    if (!b->task)
        ops->release(b->device, task);
    return true;
}

/* ---- rows of matrices
 * ---------------------------------------------------------------------------------------------------------- */

/* fp16: a scale and a code, and an activation, are rounded; so is each sum that leaves an operator, and the offsets' product
 * is one of its own. squares and sum: of row `r` of m by x, columns [begin, end). */
static inline double half_bound(const bench *b, const ht_matrix *m, size_t r, size_t begin, size_t end, const double *x,
                                double squares, double sum) {
    if (b->step <= 0)
        return 0;
    double added = 0, rounded = 0;
    if (m->type->offset) {
        const size_t group = (size_t)m->type->group, groups = m->cols / group;
        float *scales = malloc(2 * groups * sizeof *scales + m->cols);
        ht_matrix_codes(m, r, 1, (int8_t *)(scales + 2 * groups), scales, scales + groups);
        for (size_t g = begin / group; g < end / group; g++) {
            double part = 0;
            for (size_t c = 0; c < group; c++)
                part += x[g * group + c - begin];
            part *= (double)scales[groups + g];
            added += part, rounded += part * part;
        }
        free(scales);
    }
    return 6 * b->step * sqrt(squares + 4 * rounded) + 4 * b->step * (fabs(sum - added) + fabs(added));
}

typedef struct row_sum {
    double sum, error; /* standard deviation of what the device adds */
} row_sum;

/* w.x (+ bias), x with errors of its own (NULL: none), by the same assumptions as check_matmul. */
static inline row_sum matvec_row(const bench *b, const ht_matrix *m, size_t row, size_t col, size_t n, const double *x,
                                 const double *error) {
    float *w = malloc(m->cols * sizeof *w);
    ht_matrix_floats(m, row, 1, w);
    double sum = 0, square = 0, other = 0;
    for (size_t g = 0; g < n; g += 32) {
        double most = 0;
        for (size_t c = g; c < g + 32 && c < n; c++)
            most = larger(most, fabs(x[c]));
        for (size_t c = g; c < g + 32 && c < n; c++) {
            const double weight = (double)w[col + c], product = weight * x[c];
            sum += product, square += product * product;
            if (b->fast && m->type->group)
                other += weight * weight * (most / 127) * (most / 127) / 12;
            if (error)
                other += weight * weight * error[c] * error[c];
        }
    }
    free(w);
    const double float_sum =
        8.0 / 6 * (EPS * sqrt((double)n) * sqrt(square) + EPS * (fabs(sum) + 1)) + 0x1p-20 / 6 * sqrt(square);
    const double half = half_bound(b, m, row, col, col + n, x, square, sum) / 6;
    return (row_sum){sum, sqrt(other + float_sum * float_sum + half * half)};
}

#endif
