/* A described graph in OpenVINO's own form: IR version 11, XML text and one blob of constants. */
#ifndef HT_OPENVINO_GRAPH_H
#define HT_OPENVINO_GRAPH_H

#include "device/npu/npu.h"

typedef struct ht_ov_blob { /* where each constant lies, 64-byte aligned; sizes are 0 for what a graph lacks */
    size_t codes, codes_bytes, scales, scales_bytes, offsets, offsets_bytes, bias, bias_bytes, shapes, bytes;
} ht_ov_blob;

ht_ov_blob ht_ov_lay_out(const ht_npu_graph *graph);
/* Constants into out [blob->bytes]. HT_ERROR_UNSUPPORTED if a scale does not fit fp16. */
ht_status ht_ov_fill(const ht_npu_graph *graph, size_t length, const ht_ov_blob *blob, uint8_t *out, ht_error *error);
/* Appends the graph at one length: parameter [length][cols] -> result [length][rows], both f32. */
ht_status ht_ov_write(const ht_npu_graph *graph, size_t length, const ht_ov_blob *blob, ht_text *xml, ht_error *error);

#endif
