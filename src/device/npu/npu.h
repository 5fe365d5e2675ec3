/* Static-graph devices: npu.c is the ht_device, store.c builds graphs and keeps them, one file a runtime implements the
 * interface below.
 *
 * A runtime compiles a described graph for one length (tokens), runs it on dense buffers of exactly that length, and
 * knows nothing of slots, strides, padding or tickets. */
#ifndef HT_NPU_H
#define HT_NPU_H

#include "device/common.h"

#include <stdatomic.h>

/* ---- graphs (graph.c) ---------------------------------------------------------------------------------------------- */

typedef enum ht_npu_element { HT_NPU_I4, HT_NPU_I8, HT_NPU_F16, HT_NPU_BF16, HT_NPU_F32 } ht_npu_element;

/* One constant matrix of a graph: rows [row, row + rows) of a MATMUL, columns [col, col + cols), in one form. */
typedef struct ht_npu_matrix {
    const ht_op *op;
    size_t row, rows, col, cols;
    ht_npu_element element;
    size_t group; /* columns a scale covers; 0 for floats */
    bool offset, bias;
} ht_npu_matrix;

/* Rows of a graph's output that lie together in the slot, too: [from, from + rows) go to columns [to, to + rows). */
typedef struct ht_npu_run {
    size_t from, to, rows;
} ht_npu_run;

#define HT_NPU_PARTS 3
#define HT_NPU_EXPERTS 16 /* most experts of one graph */
/* x [length][cols] -> out [length][rows], float32. A MATMUL's slice: parts are its rows, one run after another; a share
 * has a run of each matrix, and they follow each other without the gaps between them (runs says where they belong). A
 * share of an FFN's features: parts are gate, up [features][cols] and down [rows][features], out = down(act(gate x) *
 * up x).
 *
 * A group of an EXPERTS' experts: parts are those of the first of them (ht_npu_of_expert: of the others); up, down
 * where there is no gate. Each expert has `capacity` rows of x and of out, one expert's behind another's: x [experts *
 * capacity][cols]. `length` is the number of tokens that all of the operator's experts share (ht_npu_capacity). */
typedef struct ht_npu_graph {
    const ht_op *op;
    size_t expert, experts; /* EXPERTS: [expert, expert + experts); others: 0 */
    ht_slice slice;
    size_t cols, rows;
    ht_npu_matrix parts[HT_NPU_PARTS];
    int n_parts;
    ht_npu_run runs[HT_MAX_PARTS];
    int n_runs;
    bool weights_first; /* out^T = W x^T: the weights stream past what is held; else out = x W^T */
} ht_npu_graph;

/* NULL and *graph filled, or why not, for a person. Of EXPERTS the graph has as many of the slice's experts, from the
 * first on, as one graph may have: who wants the others describes what is left of the slice. */
const char *ht_npu_describe(const ht_op *op, const ht_slice *slice, bool weights_first, ht_npu_graph *graph);
/* Matrix number `part` of the graph's expert number i, counted from 0; of graphs without experts i is 0. */
ht_npu_matrix ht_npu_of_expert(const ht_npu_graph *graph, int part, size_t i);
/* All of them: *matrices [sets][n_parts], from malloc. */
ht_status ht_npu_matrices(const ht_npu_graph *graph, ht_npu_matrix **matrices, ht_error *error);
/* Sets of matrices that compute rows of their own: experts, else 1. */
static inline size_t ht_npu_sets(const ht_npu_graph *graph) {
    return graph->experts ? graph->experts : 1;
}
/* Rows that one set of matrices computes at a length: an expert's capacity, else all. As NPUMoE (arXiv 2604.18788) has
 * it: half as many again as each expert gets where all are chosen equally often, for a graph must know the number. What
 * is past it is somebody else's. */
size_t ht_npu_capacity(const ht_npu_graph *graph, size_t length);
/* Rows of x and of out at a length. */
static inline size_t ht_npu_rows(const ht_npu_graph *graph, size_t length) {
    return ht_npu_sets(graph) * ht_npu_capacity(graph, length);
}
size_t ht_npu_bits(ht_npu_element element);
/* Rows [row, row + n) of a matrix (from its own first), canonical (quant.h): codes [n][cols], scales and offsets
 * [n][cols/group]; offsets may be NULL where the matrix has none. */
ht_status ht_npu_codes(const ht_npu_matrix *matrix, size_t row, size_t n, int8_t *codes, float *scales, float *offsets,
                       ht_error *error);
/* The same rows as float32 [n][cols]. */
ht_status ht_npu_floats(const ht_npu_matrix *matrix, size_t row, size_t n, float *out, ht_error *error);
/* All rows of a matrix in turn, some at once: put is given rows [row, row + n), as ht_npu_codes gives them; offsets are NULL
 * where the matrix has none. */
typedef void (*ht_npu_put)(const void *to, size_t row, size_t n, const int8_t *codes, const float *scales,
                           const float *offsets);
ht_status ht_npu_put_codes(const ht_npu_matrix *matrix, ht_npu_put put, const void *to, ht_error *error);
/* Biases of all rows, 0 where a part has none: out [rows]. */
void ht_npu_bias(const ht_npu_matrix *matrix, float *out);
/* Says all that a built graph depends on but the runtime: shapes, forms, and a hash of the weights themselves. */
ht_status ht_npu_key(const ht_npu_graph *graph, ht_text *key, ht_error *error);
/* What a graph will hold: weights as they are handed to a runtime, shared by all lengths, and at each length packed weights
 * and what is computed in between. As measured for OpenVINO's CPU plugin (docs/numbers.md). */
uint64_t ht_npu_estimate_shared(const ht_npu_graph *graph);
uint64_t ht_npu_estimate(const ht_npu_graph *graph, size_t length);

/* ---- runtimes -------------------------------------------------------------------------------------------------------- */

typedef struct ht_npu ht_npu;                 /* a runtime's device */
typedef struct ht_npu_program ht_npu_program; /* a graph compiled for one length */

typedef struct ht_npu_config {
    const char *name; /* "openvino:CPU": all of it, for errors */
    ht_cores cores;   /* where cpus= was given: compute on these cores only; none: anywhere */
    int threads;      /* of a CPU-backed device; 0: the runtime's choice */
    ht_precision precision;
    const char *hint;    /* "bf16", ...: the runtime's word for the arithmetic of `fast`; "": its usual one */
    const char *options; /* of the device, all of them: a runtime reads its own */
    bool saves;          /* compiled programs will be saved; known once the device is open */
} ht_npu_config;

typedef struct ht_npu_facts { /* about an opened device */
    ht_device_info info;      /* as list says */
    const int *lengths;       /* the standard ones, ascending, */
    size_t n_lengths;         /* this many */
    bool single;              /* good at one token: decode may stay here */
    bool reloads;             /* loading a saved program is much quicker than compiling: worth a cache on disk */
    double step;              /* rounding of its arithmetic, relative: 2^-24 float32, 2^-11 fp16, 2^-8 bf16 */
    double code_step;         /* of activations in groups of 32, relative to a group's largest; 0: they stay floats */
    /* Bytes that it holds besides ht_npu_estimate: of a graph, of each of its weights. */
    double more_graph, more_weight;
    char identity[160]; /* what saved programs depend on besides info and config, as text */
} ht_npu_facts;

/* Programs are compiled, and different ones run, from several threads at once; one program is used by one at a time. */
typedef struct ht_npu_runtime {
    const char *options[5]; /* keys of its own, besides those that every runtime has; then NULL */
    ht_status (*list)(ht_device_info **list, size_t *n, ht_error *error);
    ht_status (*open)(const ht_npu_config *config, ht_npu **npu, ht_npu_facts *facts, ht_error *error);
    void (*close)(ht_npu *npu);
    /* like (NULL: none): a program of the same graph at another length, to share what can be shared. Its input is
     * [ht_npu_rows][cols], its output [ht_npu_rows][rows]. */
    ht_status (*compile)(ht_npu *npu, const ht_npu_graph *graph, size_t length, const ht_npu_program *like,
                         ht_npu_program **program, ht_error *error);
    void (*discard)(ht_npu *npu, ht_npu_program *program);
    /* A program as bytes (appended), and back. Optional. */
    ht_status (*save)(ht_npu *npu, ht_npu_program *program, ht_text *bytes, ht_error *error);
    ht_status (*load)(ht_npu *npu, const ht_npu_graph *graph, size_t length, const void *data, size_t bytes,
                      ht_npu_program **program, ht_error *error);
    /* Both dense, kept until bound again; cheap when they are the ones bound already. */
    ht_status (*bind)(ht_npu *npu, ht_npu_program *program, float *in, float *out, ht_error *error);
    ht_status (*start)(ht_npu *npu, ht_npu_program *program, ht_error *error); /* may compute before it returns */
    ht_status (*wait)(ht_npu *npu, ht_npu_program *program, ht_error *error);
    /* Zeroed pages that programs read and write in place, where they copy others; NULL: there are none (left).
     * free_shared, which may come after close: false: not from here. Optional, both or none. */
    void *(*alloc_shared)(ht_npu *npu, size_t bytes);
    bool (*free_shared)(void *pages);
} ht_npu_runtime;

extern const ht_npu_runtime ht_npu_openvino, ht_npu_onnxruntime;

/* ---- what is alike in all of them (runtime.c) ------------------------------------------------------------------------- */

/* The runtime's pages, else ordinary ones; and back. */
void *ht_npu_pages_alloc(const ht_npu_runtime *runtime, ht_npu *npu, size_t bytes);
void ht_npu_pages_free(const ht_npu_runtime *runtime, void *pages, size_t bytes);

/* The lengths that graphs are built at where nobody says which: in facts, and with their limit in info. */
void ht_npu_standard_lengths(ht_npu_facts *facts);
void ht_npu_describe_lengths(ht_device_info *info);

/* The constants of a graph, which compiled programs go on pointing to: one copy for all lengths. Any thread. */
typedef struct ht_npu_constants {
    atomic_int users;
    size_t bytes;
    uint8_t *data;
} ht_npu_constants;
/* One more user of `shared`, or new ones of so many bytes (zeroed, to be filled) where that is NULL. */
ht_status ht_npu_constants_get(ht_npu_constants *shared, size_t bytes, ht_npu_constants **out, ht_error *error);
/* The last user's ends them; NULL is allowed. */
void ht_npu_constants_drop(ht_npu_constants *constants);

/* ---- the device (npu.c) ---------------------------------------------------------------------------------------------- */

/* An ht_device over a runtime: what a runtime's row of ht_device_ops calls, and tests with a runtime of their own. No
 * import: tensors lie over any host memory. */
ht_status ht_npu_open(const ht_device_ops *ops, const ht_npu_runtime *runtime, const ht_device_options *options,
                      ht_device **device, ht_error *error);

#define HT_NPU_OPERATIONS                                                                                       \
    .partial = true, .stands_in = "npu", .close = ht_npu_close, .caps = ht_npu_caps, .refuses = ht_npu_refuses, \
    .prepare = ht_npu_prepare, .release = ht_npu_release, .task_bytes = ht_npu_task_bytes, .warm = ht_npu_warm, \
    .settle = ht_npu_settle, .ready = ht_npu_ready, .submit = ht_npu_submit, .completed = ht_npu_completed,     \
    .wait = ht_npu_wait, .alloc_shared = ht_npu_alloc_shared
void ht_npu_close(ht_device *device);
const ht_device_caps *ht_npu_caps(const ht_device *device);
const char *ht_npu_refuses(const ht_device *device, const ht_op *op, const ht_slice *slice);
ht_status ht_npu_prepare(ht_device *device, const ht_op *op, const ht_slice *slice, ht_task **out, ht_error *error);
void ht_npu_release(ht_device *device, ht_task *task);
size_t ht_npu_task_bytes(const ht_task *task);
ht_status ht_npu_warm(ht_device *device, ht_task *task, size_t tokens, ht_error *error);
ht_status ht_npu_settle(ht_device *device, ht_task *task, size_t tokens, ht_error *error);
bool ht_npu_ready(ht_device *device, ht_task *task, size_t tokens);
ht_status ht_npu_submit(ht_device *device, ht_task *task, const ht_binding *binding, const ht_dependency *after,
                        size_t n_after, ht_ticket *ticket, ht_error *error);
ht_ticket ht_npu_completed(ht_device *device);
ht_status ht_npu_wait(ht_device *device, ht_ticket ticket, ht_sync sync, ht_error *error);
void *ht_npu_alloc_shared(ht_device *device, size_t bytes);

/* ---- mixtures of experts (experts.c) --------------------------------------------------------------------------------- */

typedef struct ht_npu_place { /* whose row of an expert's it is */
    uint32_t token;
    float weight; /* 0: nobody's */
} ht_npu_place;

/* Where a piece of a submit's tokens lies: what they are, the weights of all experts, and where those are put that are
 * left. */
typedef struct ht_npu_crowd {
    ht_view x, weights, left;
    size_t tokens;
} ht_npu_crowd;

/* Of each of the graph's experts the first `capacity` tokens that have chosen it: their rows of x to `in`, zeros behind
 * them, and whose they are to places [experts][capacity]; their weights in `left` become 0. Returns how many there are
 * in all. */
size_t ht_npu_gather(const ht_npu_graph *graph, size_t capacity, const ht_npu_crowd *crowd, float *in,
                     ht_npu_place *places);
/* Adds what came of them, times the weights, to the tokens' rows of `to`: in the order of experts. */
void ht_npu_scatter(const ht_npu_graph *graph, size_t capacity, const float *out, const ht_npu_place *places,
                    const ht_view *to);

/* ---- the store (store.c) --------------------------------------------------------------------------------------------- */

typedef struct ht_npu_store ht_npu_store;
typedef struct ht_npu_entry ht_npu_entry; /* one graph at all lengths */

typedef struct ht_npu_store_options {
    const ht_npu_runtime *runtime;
    ht_npu *npu;
    const ht_npu_facts *facts;
    const ht_npu_config *config;
    const int *lengths;
    size_t n_lengths;
    uint64_t budget;             /* bytes of all graphs together */
    int builders;                /* threads */
    bool cache;                  /* on disk */
    const ht_progress *progress; /* may be NULL */
} ht_npu_store_options;

ht_status ht_npu_store_create(const ht_npu_store_options *options, ht_npu_store **store, ht_error *error);
void ht_npu_store_destroy(ht_npu_store *store); /* entries must be gone */
ht_status ht_npu_entry_create(ht_npu_store *store, const ht_npu_graph *graph, ht_npu_entry **entry, ht_error *error);
void ht_npu_entry_destroy(ht_npu_entry *entry); /* waits for a build under way */
/* Begins to build the graph of lengths[i] unless that was begun before; again, where it found no memory and some was freed
 * since. A refusal is what await says. */
void ht_npu_entry_want(ht_npu_entry *entry, size_t i);
/* Waits for it, and puts it before all others. HT_ERROR_MEMORY: the budget; HT_ERROR_DEVICE: it does not compile, or its
 * numbers are wrong; HT_ERROR_CANCELLED by the progress function. */
ht_status ht_npu_entry_await(ht_npu_entry *entry, size_t i, ht_error *error);
ht_npu_program *ht_npu_entry_program(const ht_npu_entry *entry, size_t i); /* NULL: not there (yet); never blocks */
uint64_t ht_npu_entry_bytes(const ht_npu_entry *entry);                    /* of its graphs that are there */

/* ---- the check of a built graph (probe.c) ---------------------------------------------------------------------------- */

typedef struct ht_npu_probe ht_npu_probe; /* inputs and the scalar answers of one graph, made once for all lengths */
void ht_npu_probe_free(ht_npu_probe *probe);
/* Runs the program on a probe input and compares sampled tokens and rows, first and last among them, with sums in double
 * precision over the canonical weights. *probe is NULL at first, and kept by the caller. HT_ERROR_DEVICE if one is further
 * off than the arithmetic explains. */
ht_status ht_npu_probe_check(ht_npu_probe **probe, const ht_npu_store_options *store, const ht_npu_graph *graph,
                             ht_npu_program *program, size_t length, ht_error *error);

#endif
