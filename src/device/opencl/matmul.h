/* The table of MATMUL kernels (candidates.c) and their launches (matmul.c), for those who choose: matmul.c by rule, tune.c
 * by measurement. */
#ifndef HT_OPENCL_MATMUL_H
#define HT_OPENCL_MATMUL_H

#include "device/opencl/memory.h"

#if HT_HAVE_OPENCL

/* One way to launch a kernel. It is launched over (rows / tile_rows, tokens / (tile_tokens * run)) groups, rounded up, of
 * local[0] x local[1] work-items; it must be right for any number of rows and tokens up to max_tokens. */
typedef struct ht_cl_matmul_row {
    const char *source, *kernel;
    const char *options;             /* besides the form's */
    unsigned features;               /* ht_cl_feature bits it needs */
    unsigned min_tokens, max_tokens; /* of a submit that it may serve */
    unsigned tile_rows, tile_tokens; /* what a group computes at once */
    unsigned run;                    /* most tiles of tokens that a group computes in turn */
    unsigned speed;                  /* of a device that is full, relative to the table's other rows */
    /* Not 0: reads activations that pack_acts of the same source laid out, in groups of so many work-items; 1: a tile
     * each, else a token's 32 columns each. */
    unsigned packed;
    unsigned parts; /* most parts that the columns may be cut into, each a group's; add_parts adds them */
    size_t local[2];
    size_t local_bytes; /* local memory of a group */
} ht_cl_matmul_row;

/* What one launch multiplies of packed weights: rows from a block's first on, columns from a group's. */
typedef struct ht_cl_window {
    cl_uint row, rows, col, cols;
} ht_cl_window;

/* Rows that can multiply weights [rows, cols] of a form with this many tokens on this device, in the table's order:
 * out[0 .. returned), at most max. */
int ht_cl_matmul_candidates(const ht_cl_device *d, const ht_cl_form *form, size_t rows, size_t cols, size_t tokens,
                            const ht_cl_matmul_row *out[], int max);
/* The cheapest candidate by rule; NULL: the device has none. */
const ht_cl_matmul_row *ht_cl_matmul_by_rule(const ht_cl_device *d, const ht_cl_form *form, size_t rows, size_t cols,
                                             size_t tokens);
#define HT_CL_MATMUL_ROWS 64                            /* the table has no more */
const ht_cl_matmul_row *ht_cl_matmul_row_at(size_t i);  /* NULL: there are no more */
uint64_t ht_cl_matmul_bit(const ht_cl_matmul_row *row); /* one of ht_cl_segment.built */
/* Parts of the columns that fill the device, and what the row costs then, in no unit. */
size_t ht_cl_matmul_parts(const ht_cl_device *d, const ht_cl_matmul_row *row, size_t rows, size_t cols, size_t tokens);
double ht_cl_matmul_cost(const ht_cl_device *d, const ht_cl_matmul_row *row, size_t rows, size_t cols, size_t tokens);
/* Floats that its parts leave to be added, at most, whatever piece of the matrix is multiplied. */
size_t ht_cl_matmul_most_sums(const ht_cl_device *d, const ht_cl_matmul_row *row, size_t rows, size_t cols,
                              size_t tokens);

/* A window of weights times the `tokens` rows of in, by the kernels of `choice` (ht_cl_matmul_kernels); in and out are
 * offset to the window's first column and row. */
typedef struct ht_cl_product {
    const struct ht_cl_choice *choice;
    const ht_cl_weights *weights;
    ht_cl_window window;
    const ht_cl_place *in, *out;
    cl_uint tokens;
} ht_cl_product;
ht_status ht_cl_matmul_launch(ht_cl_device *d, ht_task *task, const ht_cl_product *product, ht_error *error);
/* Builds kernel `name` of the row's source for weights of this form; more: of the compiler's options, "" or " -D...". */
ht_status ht_cl_matmul_kernel(ht_cl_device *d, const ht_cl_matmul_row *row, const ht_cl_form *form, const char *name,
                              const char *more, cl_kernel *kernel, ht_error *error);
/* Fills the kernels of choice for choice->row, building them, and makes room for what they need for rows x cols weights
 * with up to `tokens`. */
ht_status ht_cl_matmul_kernels(ht_cl_device *d, const ht_cl_form *form, size_t rows, size_t cols, size_t tokens,
                               struct ht_cl_choice *choice, ht_error *error);

/* ---- of the table of operators (ops.h) ---- */
const char *ht_cl_matmul_refuses(const ht_cl_device *d, const ht_op *op, const ht_slice *slice);
const char *ht_cl_matmul_refuses_part(const ht_cl_device *d, const ht_op *op, const ht_slice *part);
/* The segments of the task's slice, packed; no kernel is built. */
ht_status ht_cl_matmul_segments(ht_cl_device *d, ht_task *task, ht_error *error);
ht_status ht_cl_matmul_prepare(ht_cl_device *d, ht_task *task, ht_error *error);
ht_status ht_cl_matmul_enqueue(ht_cl_device *d, ht_task *task, const ht_cl_call *call, ht_error *error);

#endif
#endif
