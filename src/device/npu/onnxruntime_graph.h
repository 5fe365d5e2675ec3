/* A described graph in ONNX Runtime's form: a model built in memory, over constants that lie in one blob. */
#ifndef HT_ONNXRUNTIME_GRAPH_H
#define HT_ONNXRUNTIME_GRAPH_H

#include "device/npu/npu.h"
#include "device/npu/onnxruntime_api.h"

#define HT_ORT_FORM 3    /* counts the ways in which graphs were made: kept ones of another are of no use */
#define HT_ORT_INPUT "x" /* names of a graph's one input [1, length, cols] and one output [1, length, rows], float32 */
#define HT_ORT_OUTPUT "y"

/* HT_OK and the status freed, or HT_ERROR_DEVICE with ONNX Runtime's own words in one line. */
ht_status ht_ort_check(const ht_ort *ort, OrtStatus *status, const char *device, const char *call, ht_error *error);

typedef struct ht_ort_graph ht_ort_graph; /* operators, and where each constant lies in the blob */

/* The graph at one length. The blob is the same at all lengths, which share one. accuracy: MatMulNBits' accuracy_level, 0
 * float activations, 4 int8 ones. HT_ERROR_UNSUPPORTED where ONNX has no such form. */
ht_status ht_ort_graph_create(const ht_npu_graph *graph, size_t length, int accuracy, ht_ort_graph **out,
                              ht_error *error);
void ht_ort_graph_destroy(ht_ort_graph *graph);
size_t ht_ort_graph_bytes(const ht_ort_graph *graph); /* of the blob */
/* Constants into out [bytes]. */
ht_status ht_ort_graph_fill(const ht_ort_graph *graph, uint8_t *out, ht_error *error);
/* The model over a filled blob, which must outlive its sessions. To be released by the caller. */
ht_status ht_ort_graph_model(const ht_ort_graph *graph, const ht_ort *ort, uint8_t *blob, OrtModel **model,
                             ht_error *error);

#endif
