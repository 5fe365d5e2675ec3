/* What several devices share: reading a MATMUL's slice across its parts, names and cores. Not part of the seam. */
#ifndef HT_DEVICE_COMMON_H
#define HT_DEVICE_COMMON_H

#include "device/device.h"

#define HT_GROUP 32 /* columns a scale covers in every form a queue or graph device takes so far */

/* What the rows of a MATMUL slice need of a kernel or graph. Parts of one operator may differ (in Q4_K_M files the V of
 * QKV has more bits than Q and K): a form is wide enough for all of them. */
typedef struct ht_form {
    int bits;    /* of a code: 4 or 8 */
    bool offset; /* some part is asymmetric: w = scale * code + offset */
    bool bias;   /* some part has a bias */
} ht_form;

/* NULL and *form set if every row of the slice has 4- or 8-bit codes in groups of 32 and the slice reduces over all
 * columns; else why not, for a person. `form` may be NULL. */
const char *ht_slice_form(const ht_op *op, const ht_slice *slice, ht_form *form);

/* Rows [row, row + n) of a MATMUL's parts laid one after another, canonical (quant.h): codes [n][cols], scales and
 * offsets [n][cols/HT_GROUP], offsets 0 where a part has none; offsets may be NULL when the slice's form has none. */
void ht_op_codes(const ht_op *op, size_t row, size_t n, int8_t *codes, float *scales, float *offsets);
/* Their biases, 0 where a part has none: out [n]. */
void ht_op_bias(const ht_op *op, size_t row, size_t n, float *out);

/* Appends a copy of *info to a list grown with realloc: what ht_device_ops.list fills. */
ht_status ht_device_list_add(ht_device_info **list, size_t *n, const ht_device_info *info, ht_error *error);

uint64_t ht_all_cores(void);       /* bits of the machine's online cores */
int ht_core_count(uint64_t cores); /* bits set */

/* Blocks until every dependency on another device than `self` is complete (an in-order queue keeps its own order). For
 * devices that cannot wait in their own queue. */
ht_status ht_wait_all(const ht_device *self, const ht_dependency *after, size_t n_after, ht_sync sync, ht_error *error);

#endif
