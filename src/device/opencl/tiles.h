/* Kernels that measurements found best (tiles.c): found by tune.c, asked for by matmul.c. */
#ifndef HT_OPENCL_TILES_H
#define HT_OPENCL_TILES_H

#include "device/opencl/matmul.h"

#if HT_HAVE_OPENCL

typedef struct ht_cl_tile {
    ht_cl_form form;
    size_t rows, cols, tokens;
    const ht_cl_matmul_row *row;
    double seconds;
} ht_cl_tile;

/* The row that a measurement of this shape found best; NULL: none was made. */
const ht_cl_matmul_row *ht_cl_tuned(const ht_cl_device *d, const ht_cl_form *form, size_t rows, size_t cols,
                                    size_t tokens);
/* Takes the place of what was known of the same shape. */
ht_status ht_cl_tiles_put(ht_cl_device *d, const ht_cl_tile *tile, ht_error *error);
/* Reads what earlier searches found. The cache is a convenience: a file that cannot be read is a line in the log. */
void ht_cl_tiles_load(ht_cl_device *d);
ht_status ht_cl_tiles_save(const ht_cl_device *d, ht_error *error);
ht_status ht_cl_tiles_path(const ht_cl_device *d, char *path, size_t capacity, ht_error *error);
void ht_cl_tiles_release(ht_cl_device *d);
/* "matmul_simt -DTILE_ROWS=64 ...": a row for a person, and in the file. */
void ht_cl_matmul_text(const ht_cl_matmul_row *row, char *out, size_t capacity);

/* tune.c */
ht_status ht_cl_tune(ht_device *device, ht_task *const *tasks, size_t n, size_t tokens, ht_tuned *result,
                     ht_error *error);

#endif
#endif
