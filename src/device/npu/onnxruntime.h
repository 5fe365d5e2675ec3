/* Inside the ONNX Runtime runtime, for its tests too. */
#ifndef HT_ONNXRUNTIME_H
#define HT_ONNXRUNTIME_H

#include "device/npu/onnxruntime_graph.h"
#include "device/npu/onnxruntime_provider.h"

/* Gives a new program (of compile's: its graph's shape is set) the session of a model with input HT_ORT_INPUT and output
 * HT_ORT_OUTPUT of this shape. HT_ERROR_DEVICE names the operator that a plugin does not take. */
ht_status ht_ort_compile_model(ht_npu *npu, const OrtModel *model, ht_npu_program *program, ht_error *error);

#endif
