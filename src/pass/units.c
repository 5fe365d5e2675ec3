/* How finely operators divide on every lane. */
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

/* Part [begin, end) of units of `grain` rows, columns or heads of an operator of a segment. */
static ht_slice try_part(const ht_lanes *set, ht_segment segment, const ht_op *op, size_t grain, size_t begin,
                         size_t end) {
    const ht_hparams *h = &set->model->hparams;
    ht_slice s = ht_whole_slice(op);
    const size_t of = segment == HT_SEGMENT_HEADS ? (size_t)h->kv_heads : (size_t)h->feed_forward;
    const size_t cols = segment == HT_SEGMENT_HEADS ? (size_t)(h->heads / h->kv_heads * h->head_dim) : grain;
    if (segment != HT_SEGMENT_HEADS && segment != HT_SEGMENT_FEATURES)
        s.row_begin = begin * grain, s.row_end = ht_min_size(end * grain, s.row_end);
    else if (ht_class_of(op) == HT_CLASS_OUT || ht_class_of(op) == HT_CLASS_DOWN)
        s.reduction_begin = begin * cols, s.reduction_end = end * cols;
    else
        s.row_begin = begin * grain, s.row_end = end * grain, s.of = of;
    return s;
}

/* Can every operator of these classes be cut at a few places of `of` units? */
static bool divides(const ht_lanes *set, ht_segment segment, unsigned classes, size_t grain, size_t of) {
    const ht_model *model = set->model;
    for (size_t i = 0; i < model->n_ops; i++) {
        const ht_op *op = &model->ops[i];
        if (!(classes >> ht_class_of(op) & 1) || (op->kind == HT_OP_NORM))
            continue;
        const size_t at[] = {1, of / 3, of / 2, of - 1};
        for (size_t k = 0; k < HT_COUNT(at) && of > 1; k++) {
            const size_t u = at[k] ? at[k] : 1;
            const ht_slice low = try_part(set, segment, op, grain, 0, u),
                           high = try_part(set, segment, op, grain, u, of);
            if (!all_take(set, op, &low) || !all_take(set, op, &high))
                return false;
        }
    }
    return true;
}

static void set_grain(ht_passes *passes, ht_segment segment, unsigned classes, size_t rows, const size_t *grains,
                      size_t n) {
    for (size_t i = 0; i < n && rows; i++) {
        const size_t of = (rows + grains[i] - 1) / grains[i];
        if (!divides(passes->set, segment, classes, grains[i], of))
            continue;
        passes->segment_grain[segment] = grains[i];
        passes->segment_of[segment] = of;
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
    set_grain(passes, HT_SEGMENT_QKV_ROWS, qkv, rows[HT_CLASS_QKV], fine, HT_COUNT(fine));
    set_grain(passes, HT_SEGMENT_OUT_ROWS, out, rows[HT_CLASS_OUT], fine, HT_COUNT(fine));
    set_grain(passes, HT_SEGMENT_DOWN_ROWS, down, rows[HT_CLASS_DOWN], fine, HT_COUNT(fine));
    set_grain(passes, HT_SEGMENT_LM_ROWS, 1u << HT_CLASS_LM_HEAD, rows[HT_CLASS_LM_HEAD], coarse, 1);
    if (h->feed_forward % 32 == 0)
        set_grain(passes, HT_SEGMENT_FEATURES, gate_up | glu | down, (size_t)h->feed_forward, fine, HT_COUNT(fine));
    set_grain(passes, HT_SEGMENT_HEADS, qkv | out | attention, (size_t)h->kv_heads, one, 1);
    const ht_segment like[][2] = {{HT_SEGMENT_GATE_UP, HT_SEGMENT_FEATURES},
                                  {HT_SEGMENT_ATTENTION, HT_SEGMENT_HEADS},
                                  {HT_SEGMENT_ATTENTION_OUT, HT_SEGMENT_HEADS}};
    for (size_t i = 0; i < HT_COUNT(like); i++) {
        passes->segment_grain[like[i][0]] = passes->segment_grain[like[i][1]];
        passes->segment_of[like[i][0]] = passes->segment_of[like[i][1]];
    }
}
