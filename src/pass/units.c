/* How finely operators divide on every lane, and which slice so many units are. */
#include "pass/pass.h"

#define COARSE_ROWS 256 /* of the head: a finer cut of the vocabulary gains nothing */

/* Does every lane that computes `op` take this part of it? */
static bool all_take(const ht_lanes *set, const ht_op *op, const ht_slice *part) {
    for (size_t l = 0; l < set->n_lanes; l++) {
        bool any = false;
        for (size_t d = 0; d < set->n_devices; d++) {
            const ht_device *device = set->devices[d];
            if (!(set->lanes[l].devices >> d & 1) || ht_device_refuses_whole(device, op))
                continue;
            const bool divides = device->ops->caps(device)->divisible && device->ops->refuses_part;
            const char *why = divides                ? device->ops->refuses_part(device, op, part)
                              : device->ops->refuses ? device->ops->refuses(device, op, part)
                                                     : NULL;
            if (why)
                return false;
            any = true;
        }
        if (!any)
            return false;
    }
    return true;
}

ht_slice ht_units_slice(const ht_model *model, ht_segment segment, const ht_units *units, const ht_op *op, size_t begin,
                        size_t end) {
    const ht_hparams *h = &model->hparams;
    const size_t query_columns = (size_t)(h->heads / h->kv_heads) * (size_t)h->head_dim; /* of one key-value head */
    ht_slice s = ht_whole_slice(op);
    switch (segment) {
    case HT_SEGMENT_HEADS:
    case HT_SEGMENT_ATTENTION:
    case HT_SEGMENT_ATTENTION_OUT:
        if (ht_class_of(op) == HT_CLASS_OUT)
            s.reduction_begin = begin * query_columns, s.reduction_end = end * query_columns;
        else
            s.row_begin = begin, s.row_end = end, s.of = units->of;
        return s;
    case HT_SEGMENT_FEATURES:
    case HT_SEGMENT_GATE_UP:
        if (ht_class_of(op) == HT_CLASS_DOWN) {
            s.reduction_begin = begin * units->grain, s.reduction_end = end * units->grain;
            return s;
        }
        s.row_begin = begin * units->grain, s.row_end = end * units->grain;
        s.of = op->kind == HT_OP_FFN ? 0 : (size_t)h->feed_forward;
        return s;
    default: /* the last unit may be shorter */
        s.row_begin = begin * units->grain, s.row_end = ht_min_size(end * units->grain, s.row_end);
        return s;
    }
}

/* Can every operator of these classes be cut at a few places of `of` units? */
static bool divides(const ht_lanes *set, ht_segment segment, unsigned classes, const ht_units *units) {
    const size_t of = units->of;
    const ht_model *model = set->model;
    for (size_t i = 0; i < model->n_ops; i++) {
        const ht_op *op = &model->ops[i];
        if (!(classes >> ht_class_of(op) & 1) || (op->kind == HT_OP_NORM))
            continue;
        const size_t at[] = {1, of / 3, of / 2, of - 1};
        for (size_t k = 0; k < HT_COUNT(at) && of > 1; k++) {
            const size_t u = at[k] ? at[k] : 1;
            const ht_slice low = ht_units_slice(model, segment, units, op, 0, u),
                           high = ht_units_slice(model, segment, units, op, u, of);
            if (!all_take(set, op, &low) || !all_take(set, op, &high))
                return false;
        }
    }
    return true;
}

/* The finest of these grains by which all lanes divide `rows`. */
static void choose_grain(ht_passes *passes, ht_segment segment, unsigned classes, size_t rows, const size_t *grains,
                         size_t n) {
    for (size_t i = 0; i < n && rows; i++) {
        const ht_units units = {grains[i], (rows + grains[i] - 1) / grains[i]};
        if (!divides(passes->set, segment, classes, &units))
            continue;
        passes->units[segment] = units;
        return;
    }
}

void ht_passes_find_units(ht_passes *passes) {
    static const size_t fine[] = {32, 64, 128, 256}, coarse[] = {COARSE_ROWS}, one[] = {1};
    const ht_model *model = passes->set->model;
    const ht_hparams *h = &model->hparams;
    size_t rows[HT_CLASSES] = {0};
    for (size_t i = 0; i < model->n_ops; i++)
        if (model->ops[i].kind == HT_OP_MATMUL)
            rows[ht_class_of(&model->ops[i])] = ht_op_rows(&model->ops[i]);
    const unsigned qkv = 1u << HT_CLASS_QKV, out = 1u << HT_CLASS_OUT, gate_up = 1u << HT_CLASS_GATE_UP,
                   down = 1u << HT_CLASS_DOWN, glu = 1u << HT_CLASS_GLU,
                   attention = 1u << HT_CLASS_ROPE | 1u << HT_CLASS_ATTENTION;
    choose_grain(passes, HT_SEGMENT_QKV_ROWS, qkv, rows[HT_CLASS_QKV], fine, HT_COUNT(fine));
    choose_grain(passes, HT_SEGMENT_OUT_ROWS, out, rows[HT_CLASS_OUT], fine, HT_COUNT(fine));
    choose_grain(passes, HT_SEGMENT_DOWN_ROWS, down, rows[HT_CLASS_DOWN], fine, HT_COUNT(fine));
    choose_grain(passes, HT_SEGMENT_LM_ROWS, 1u << HT_CLASS_LM_HEAD, rows[HT_CLASS_LM_HEAD], coarse, 1);
    if (h->feed_forward % 32 == 0)
        choose_grain(passes, HT_SEGMENT_FEATURES, gate_up | glu | down, (size_t)h->feed_forward, fine, HT_COUNT(fine));
    choose_grain(passes, HT_SEGMENT_HEADS, qkv | out | attention, (size_t)h->kv_heads, one, 1);
    const ht_segment like[][2] = {{HT_SEGMENT_GATE_UP, HT_SEGMENT_FEATURES},
                                  {HT_SEGMENT_ATTENTION, HT_SEGMENT_HEADS},
                                  {HT_SEGMENT_ATTENTION_OUT, HT_SEGMENT_HEADS}};
    for (size_t i = 0; i < HT_COUNT(like); i++)
        passes->units[like[i][0]] = passes->units[like[i][1]];
}
