/* What the planner knows of a layer: its operators, in order, and the segments that it can be cut into. */
#include "plan/plan.h"

const ht_class ht_layer_classes[HT_AT_END] = {HT_CLASS_NORM,      HT_CLASS_QKV, HT_CLASS_ROPE,
                                              HT_CLASS_ATTENTION, HT_CLASS_OUT, HT_CLASS_NORM,
                                              HT_CLASS_GATE_UP,   HT_CLASS_GLU, HT_CLASS_DOWN};

const ht_segment_span ht_segment_spans[HT_SEGMENTS] = {
    [HT_SEGMENT_HEADS] = {HT_AT_NORM, HT_AT_NORM2, HT_CUT_HEADS},
    [HT_SEGMENT_TOKENS] = {HT_AT_NORM, HT_AT_NORM2, HT_CUT_CAUSAL},
    [HT_SEGMENT_QKV_ROWS] = {HT_AT_NORM, HT_AT_ROPE, HT_CUT_ROWS},
    [HT_SEGMENT_ATTENTION] = {HT_AT_ROPE, HT_AT_OUT, HT_CUT_ROWS | HT_CUT_HEADS},
    [HT_SEGMENT_ATTENTION_OUT] = {HT_AT_ROPE, HT_AT_NORM2, HT_CUT_HEADS},
    [HT_SEGMENT_OUT_ROWS] = {HT_AT_OUT, HT_AT_NORM2, HT_CUT_ROWS},
    [HT_SEGMENT_FEATURES] = {HT_AT_NORM2, HT_AT_END, HT_CUT_FEATURES},
    [HT_SEGMENT_GATE_UP] = {HT_AT_NORM2, HT_AT_DOWN, HT_CUT_ROWS},
    [HT_SEGMENT_DOWN_ROWS] = {HT_AT_DOWN, HT_AT_END, HT_CUT_ROWS},
    [HT_SEGMENT_LM_ROWS] = {-1, -1, HT_CUT_ROWS | HT_CUT_HEADS | HT_CUT_FEATURES},
};

/* Where operator number i of a model is expected to be: EMBED, layers of HT_AT_END operators, the head. */
static ht_class class_at(const ht_model *model, size_t i) {
    static const ht_class head[] = {HT_CLASS_NORM, HT_CLASS_LM_HEAD, HT_CLASS_ARGMAX};
    const size_t end = 1 + (size_t)model->hparams.layers * HT_AT_END;
    return i == 0        ? HT_CLASS_EMBED
           : i < end     ? ht_layer_classes[(i - 1) % HT_AT_END]
           : i - end < 3 ? head[i - end]
                         : HT_CLASSES;
}

const ht_op *ht_plan_misfit(const ht_model *model) {
    for (size_t i = 0; i < model->n_ops; i++)
        if (ht_class_of(&model->ops[i]) != class_at(model, i))
            return &model->ops[i];
    return class_at(model, model->n_ops) == HT_CLASSES ? NULL : &model->ops[model->n_ops - 1];
}
