/* A described graph in OpenVINO's own form: IR version 11, XML text and one blob of constants. */
#ifndef HT_OPENVINO_GRAPH_H
#define HT_OPENVINO_GRAPH_H

#include "device/npu/npu.h"

typedef struct ht_ov_graph ht_ov_graph; /* nodes, and where each constant lies in the blob */

/* The graph at one length: parameter [length][cols] -> result [length][rows], both f32. The blob is the same at all
 * lengths, which share one: no constant depends on the length. half: scales that fp16 holds exactly are written in it, as
 * plugins that compute in fp16 expect; a plugin that computes in float32 may multiply weights out in the type that it is
 * given, and then fp16 would round them. */
ht_status ht_ov_graph_create(const ht_npu_graph *graph, size_t length, bool half, ht_ov_graph **out, ht_error *error);
void ht_ov_graph_destroy(ht_ov_graph *graph);
size_t ht_ov_graph_bytes(const ht_ov_graph *graph); /* of the blob */
/* Constants into out [bytes]. */
ht_status ht_ov_graph_fill(const ht_ov_graph *graph, uint8_t *out, ht_error *error);
/* Appends the XML text. */
ht_status ht_ov_graph_write(const ht_ov_graph *graph, ht_text *xml, ht_error *error);

#endif
