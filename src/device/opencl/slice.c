/* Which rows and columns of an operator a slice or a part means. */
#include "device/opencl/slice.h"

#if HT_HAVE_OPENCL
size_t ht_cl_units_of(const ht_cl_device *d, const ht_op *op) {
    const ht_hparams own = ht_op_shape(op, &d->hparams);
    return op->kind == HT_OP_ROPE || op->kind == HT_OP_ATTENTION || op->kind == HT_OP_HEADS ? (size_t)own.kv_heads
           : op->kind == HT_OP_GLU                                                          ? (size_t)own.feed_forward
           : op->kind == HT_OP_EXPERTS                                                      ? (size_t)op->experts
                                       : ht_op_state_units(op, &d->hparams);
}

ht_slice ht_cl_resolve(const ht_cl_device *d, const ht_op *op, const ht_slice *slice) {
    ht_slice s = *slice;
    if ((op->kind == HT_OP_MATMUL || op->kind == HT_OP_EXPERTS) && s.reduction_end == 0)
        s.reduction_end = ht_op_summed(op);
    if (op->kind != HT_OP_MATMUL) {
        if (!s.of)
            s.row_end = s.of = ht_cl_units_of(d, op);
        return s;
    }
    if (s.of && s.row_begin == 0 && s.row_end == s.of)
        s.of = s.group = 0, s.row_end = ht_op_rows(op);
    return s;
}

bool ht_cl_is_whole(const ht_cl_device *d, const ht_op *op, const ht_slice *slice) {
    const ht_slice s = ht_cl_resolve(d, op, slice);
    if (op->kind == HT_OP_MATMUL)
        return !s.of && s.row_end - s.row_begin == ht_op_rows(op) &&
               s.reduction_end - s.reduction_begin == ht_op_cols(op);
    if (op->kind == HT_OP_EXPERTS && s.reduction_end - s.reduction_begin != ht_op_summed(op))
        return false;
    return s.row_end - s.row_begin == s.of;
}

void ht_cl_add_run(ht_cl_run runs[HT_MAX_PARTS], size_t *n, size_t first, size_t width) {
    if (width == 0)
        return;
    if (*n && runs[*n - 1].first + runs[*n - 1].width == first)
        runs[*n - 1].width += width;
    else
        runs[(*n)++] = (ht_cl_run){first, width};
}

size_t ht_cl_matmul_runs(const ht_op *op, const ht_slice *slice, ht_cl_run runs[HT_MAX_PARTS]) {
    size_t n = 0, base = 0;
    if (!slice->of)
        ht_cl_add_run(runs, &n, slice->row_begin, slice->row_end - slice->row_begin);
    for (int p = 0; p < op->n_parts && slice->of; base += op->parts[p++].rows) {
        size_t begin, end;
        ht_share_rows(slice, p, op->parts[p].rows, &begin, &end);
        ht_cl_add_run(runs, &n, base + begin, end - begin);
    }
    return n;
}

#else
typedef int ht_cl_slice_is_empty; /* ISO C wants something in every file */
#endif
