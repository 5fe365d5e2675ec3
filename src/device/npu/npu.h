/* Static-graph devices: npu.c is the ht_device, one file a runtime implements the interface below.
 *
 * A runtime compiles a described graph for one length (tokens), runs it on dense buffers of exactly that length, and
 * knows nothing of slots, strides, padding or tickets. */
#ifndef HT_NPU_H
#define HT_NPU_H

#include "device/common.h"

typedef struct ht_npu ht_npu;                 /* a runtime's device */
typedef struct ht_npu_program ht_npu_program; /* a graph compiled for one length */

/* One MATMUL's slice: x [length][cols] -> out [length][rows], float32. Weights are read from op at compile. */
typedef struct ht_npu_graph {
    const ht_op *op;
    size_t row_begin, rows, cols;
    ht_form form;
} ht_npu_graph;

typedef struct ht_npu_config {
    const char *name; /* "openvino:CPU": all of it, for errors */
    uint64_t cores;   /* where cpus= was given: compute on these cores only; 0: anywhere */
    int threads;      /* of a CPU-backed device; 0: the runtime's choice */
    ht_precision precision;
} ht_npu_config;

typedef struct ht_npu_runtime {
    ht_status (*list)(ht_device_info **list, size_t *n, ht_error *error);
    /* *info describes the device as list does. */
    ht_status (*open)(const ht_npu_config *config, ht_npu **npu, ht_device_info *info, ht_error *error);
    void (*close)(ht_npu *npu);
    /* *bytes: memory the program holds, as good an estimate as the runtime allows. */
    ht_status (*compile)(ht_npu *npu, const ht_npu_graph *graph, size_t length, ht_npu_program **program, size_t *bytes,
                         ht_error *error);
    void (*discard)(ht_npu *npu, ht_npu_program *program);
    /* Both dense, kept until bound again; cheap when they are the ones bound already. */
    ht_status (*bind)(ht_npu *npu, ht_npu_program *program, float *in, float *out, ht_error *error);
    ht_status (*start)(ht_npu *npu, ht_npu_program *program, ht_error *error); /* may compute before it returns */
    ht_status (*wait)(ht_npu *npu, ht_npu_program *program, ht_error *error);
} ht_npu_runtime;

extern const ht_npu_runtime ht_npu_openvino;

/* Where OpenVINO's C library is looked for: a file, a wheel's folder, or NULL for the search (HETERO_OPENVINO, Python
 * environments, the system's libraries). Process-wide; to be called before the first device is listed or opened. */
void ht_openvino_set_path(const char *path);

#endif
