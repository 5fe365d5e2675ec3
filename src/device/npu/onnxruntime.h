/* Inside the ONNX Runtime runtime, for its tests too. */
#ifndef HT_ONNXRUNTIME_H
#define HT_ONNXRUNTIME_H

#include "device/npu/onnxruntime_graph.h"
#include "device/npu/onnxruntime_provider.h"

/* The program of a model with input HT_ORT_INPUT and output HT_ORT_OUTPUT of the graph's shape at this length; what the
 * model lies over must outlive it. HT_ERROR_DEVICE names the operator that a plugin does not take. */
ht_status ht_ort_compile_model(ht_npu *npu, const ht_npu_graph *graph, size_t length, const OrtModel *model,
                               ht_npu_program **program, ht_error *error);

#endif
