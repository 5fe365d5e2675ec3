/* The seam between the executor and a processor.
 *
 * A device is an in-order queue with a timeline: submit returns a ticket (1, 2, 3, ...), completed tells the newest one
 * that has finished, so a join of several devices is a comparison of numbers, whatever the way of waiting. Only the
 * executor calls this, from one thread at a time; a device's own threads are its own business.
 *
 * An operator's slice is prepared once as a task (weights packed, kernel chosen or graph built) and submitted again and
 * again. Buffers of the pool are host memory that every device sees; what moves for it (explicit transfers on a discrete
 * GPU, a copy where strided output is impossible) is the device's business and counted in its task's cost.
 */
#ifndef HT_DEVICE_H
#define HT_DEVICE_H

#include "base/clock.h"
#include "base/cores.h"
#include "model/model.h"

typedef struct ht_device ht_device;
typedef struct ht_task ht_task;
typedef uint64_t ht_ticket; /* 0: nothing, always complete */

typedef enum ht_device_kind { HT_DEVICE_CPU, HT_DEVICE_GPU, HT_DEVICE_NPU } ht_device_kind;

/* Which part of an operator a task computes. Rows are output features of a MATMUL; the reduction range is a range of
 * its columns (a partial sum unless it is all of them; a bias belongs to the one that begins at 0). Rows of an FFN are
 * features of its hidden layer: what it gives is whole rows of the output, a partial sum unless it has all features. A
 * slice of another operator is whole: all zeros. Tokens are chosen at submit.
 *
 * `of` not 0: rows are a share, parts [row_begin, row_end) of `of` equal ones. MATMUL: that share of each of its
 * matrices' rows, at their own places in the output (of QKV with of = kv_heads: whole heads with their keys and values;
 * of gate and up with of = feed_forward: features); each matrix must have a whole number of rows for one part. ROPE,
 * ATTENTION: key-value heads and the query heads that use them, of = kv_heads. GLU: `of` equal parts of its features,
 * whatever `of` divides these. CONV: channels, of = width. DELTA_NET: value heads, of = heads. SCAN: groups with their
 * heads, of = kv_heads.
 *
 * `group` more than 1: the share is of query heads, of = heads, of which so many use one key-value head. MATMUL: that
 * share of the first matrix's rows; of the others' (keys, values: a group'th as many) the key-value heads whose first
 * query head is in it. ROPE: its query heads, and those key-value heads. ATTENTION: its query heads; keys and values of
 * a key-value head whose first query head another has are in the cache when it is submitted. */
typedef struct ht_slice {
    size_t row_begin, row_end;
    size_t reduction_begin, reduction_end;
    size_t of;
    size_t group;
} ht_slice;

/* Of the `rows` rows of an operator's matrix number `part` a share (of not 0) has [*begin, *end), which may be none. */
static inline void ht_share_rows(const ht_slice *s, int part, size_t rows, size_t *begin, size_t *end) {
    const bool common = s->group > 1 && part > 0;
    const size_t each = rows / (common ? s->of / s->group : s->of);
    *begin = each * (common ? ht_groups_before(s->group, s->row_begin) : s->row_begin);
    *end = each * (common ? ht_groups_before(s->group, s->row_end) : s->row_end);
}
/* Of a MATMUL: rows [*begin, *end) of its matrix number `part`, counted in that matrix, are in the slice, whichever way that
 * says it. False: none. */
bool ht_slice_rows(const ht_op *op, const ht_slice *s, int part, size_t *begin, size_t *end);
/* Of a MATMUL: are all rows and columns of `part` among those of `held`? */
bool ht_slice_lies_in(const ht_op *op, const ht_slice *part, const ht_slice *held);
/* Has every matrix of the operator a whole number of rows for one part of the share? */
bool ht_share_fits(const ht_op *op, const ht_slice *s);
/* Of EXPERTS: zeros that stand for all experts or features as what they stand for: experts are rows, features the reduction
 * range. And why a slice is none of them; NULL: it is. */
ht_slice ht_spell_out_experts(const ht_op *op, const ht_slice *slice);
const char *ht_refuse_experts(const ht_op *op, const ht_slice *slice);

/* Heads of a slice of ROPE or ATTENTION: query heads [queries, queries_end), which use key-value heads [used,
 * used_end), of which it makes [own, used_end). */
typedef struct ht_heads {
    size_t queries, queries_end, used, own, used_end;
} ht_heads;
ht_heads ht_slice_heads(const ht_slice *s, const ht_hparams *shape);
/* Is the slice whole, or a share that is counted in key-value or in query heads? */
bool ht_counts_heads(const ht_slice *s, const ht_hparams *shape);

/* Where one slot lies for one submit: token t's values start at data + t * stride (in elements of 4 bytes). The columns of
 * a slice lie at their own place: output row r of a MATMUL task goes to data[t * stride + r]. */
typedef struct ht_view {
    void *data;
    size_t stride;
} ht_view;

/* Keys and values of one layer: [kv_head][position][head_dim] each, fp16 or float32 as `type` says; `positions` is the
 * allocated length. Of an operator that keeps a state, nothing but that: ht_op_state floats, which stand for all tokens
 * before `position` of a submit, and behind it for its tokens, too. A submit at position 0 begins with zeros, whatever
 * is there. */
typedef struct ht_kv_layer {
    void *keys, *values;
    size_t positions;
    ht_kv_type type;
    float *state;
} ht_kv_layer;

/* Tokens of a pass that are one sequence's, which follow each other from its position `position` on. */
typedef struct ht_segment {
    const ht_kv_layer *kv; /* the sequence's: [caches of the model] */
    const int32_t *ids;    /* [n] */
    size_t n, position;
} ht_segment;

/* Who is told what matrices are multiplied with (session/imatrix.c), by the CPU device, on the thread that submits.
 * rows: n of them, of as many values as the matrices have columns, `stride` apart, that meet the operator's parts
 * [first, end); `matrix`: which of these parts' matrices, an expert's or a head's; 0 of MATMUL. */
typedef struct ht_observer {
    void (*look)(void *user, const ht_op *op, int first, int end, size_t matrix, const float *rows, size_t n,
                 size_t stride);
    void *user;
} ht_observer;

/* What a submitted task works on. All tokens of a submit follow each other: token t is at position `position` + t. */
typedef struct ht_binding {
    const ht_view *slots;  /* [slots of the model] */
    const ht_kv_layer *kv; /* [caches of the model] */
    size_t position;
    size_t tokens;
    /* Of a pass over several sequences, instead of kv and position: whose its tokens are, one sequence's behind the
     * other's, and how many of the pass come before this binding's first. src/pass gives what looks at caches or
     * positions to devices once for each sequence, with these set to NULL and 0. */
    const ht_segment *segments;
    size_t n_segments, skipped;
    /* Rows of the slots, from their data on, that are this submit's to read, and to write where it computes whole rows: for
     * padding. Less than tokens: none beyond them. */
    size_t room;
    /* Cache rows of earlier positions are on the device already: the others' results of position `cached` on are to be
     * brought in. 0: all of them. */
    size_t cached;
    ht_sync sync; /* for waits on other devices that the submit does itself */
    /* NORM with aux: what is added is slot aux and these besides, in this order (partial sums of several devices). */
    const ht_view *pieces;
    size_t n_pieces;     /* at most HT_MAX_PIECES */
    size_t first_pieces; /* so many of them are of the same block as aux, the others of another */
    /* Only this of the operator; NULL: all of the task's slice. For devices that say `divisible`, on tasks that are
     * whole, or of a MATMUL on those whose slice it lies in (ht_slice_lies_in); refuses_part() says which slices those
     * are. So a ratio moves from submit to submit, and weights are there once. */
    const ht_slice *part;
    /* For devices with memory of their own; bit s is slot s, HT_BIT_KV the cache rows of these tokens, or a state. Zero
     * is always right, what is set saves transfers. */
    uint32_t resident; /* the newest values are this device's own: nothing to bring in */
    uint32_t kept;     /* nobody else reads them before they are written again: nothing to hand out */
    /* EXPERTS, for devices that say `leaves`: where they put the weights of what they did not compute, a row of all
     * experts for each token, as in slot more[0]; 0: it is in slot out, or was not chosen. */
    const ht_view *left;
    /* EXPERTS, for devices that say `adds`: what is computed is added to slot out, which is left alone where nothing is
     * chosen. */
    bool adds;
    bool yields; /* another device computes on the same cores next: threads that would wait for more should sleep */
    bool joined; /* somebody will wait for this very ticket: make that cheap */
    const ht_observer *observer; /* NULL: nobody looks */
} ht_binding;
#define HT_MAX_PIECES 3

typedef struct ht_device_caps {
    ht_device_kind kind;
    char name[64], runtime[64], description[160], dtypes[96];
    uint64_t memory_bytes;
    bool unified_memory;
    bool emulated;       /* numbers count, times do not */
    bool runs_in_caller; /* submit computes before it returns: submit it last in a step */
    bool divisible;      /* takes binding.part */
    bool leaves;         /* EXPERTS: computes as many tokens of an expert as its graph has room for, see binding.left */
    bool adds;           /* takes binding.adds */
    size_t granule; /* tokens that are multiplied together: more take as long as the next multiple; 0: any number */
    bool
        many_only; /* slow with one token: decode belongs elsewhere if another device takes the operator; who `leaves` is so
                         * with EXPERTS, whatever this says */
    const int *lengths; /* static lengths, ascending; NULL: any length */
    size_t n_lengths;
    uint64_t graph_bytes; /* of graphs that it may hold (static lengths) */
    ht_cores cores;       /* of the machine, that it occupies */
    /* Name of the device that computes beside it what it does not take; NULL: the companion on its cores. */
    const char *companion;
} ht_device_caps;

typedef struct ht_device_options {
    const char *name;    /* "cpu", "opencl:0", "openvino:CPU": without options */
    const char *options; /* "cpus=0-1:isa=avx2", may be "" */
    int threads;         /* 0: one per core */
    ht_precision precision;
    const ht_hparams *hparams; /* of the model to run */
    size_t max_tokens;         /* most tokens of one submit */
    size_t max_context;
    ht_kv_type kv_type;
    uint64_t graph_memory;       /* most bytes of static graphs; 0: half of the device's memory */
    struct ht_machine **machine; /* simulated devices opened with the same are of one machine; NULL: each of its own */
    bool made_up; /* the model has no weights worth computing with: simulated devices only tell the time */
    /* Of long work of opening and preparing, such as compiling kernels; outlives the device. NULL: nobody is told. */
    const ht_progress *progress;
} ht_device_options;

typedef struct ht_dependency { /* a point on another device's timeline */
    ht_device *device;
    ht_ticket ticket;
} ht_dependency;

typedef struct ht_tuned {    /* what a search among a device's ways to run a task found */
    char kernel[160];        /* the quickest, for a person; of a task that several kernels run, the last one's */
    double seconds, by_rule; /* of one run: the quickest's, and what would have been chosen without a search */
    int tried;               /* 0: there was nothing to choose */
    char path[1024];         /* where it is kept */
} ht_tuned;

/* What the kernel shows of a processor that a runtime drives: "/dev/dri/renderD*". */
typedef struct ht_device_node {
    const char *pattern;
    bool spare; /* looked at only if nothing has found a GPU yet */
} ht_device_node;

/* Devices that are a processor of their own, and no other runtime's once more: they are used where nobody names any. */
typedef struct ht_device_real {
    const char *name, *kind; /* what its name begins with: "opencl:"; "gpu" */
    bool spare;              /* only if no other is a GPU */
} ht_device_real;

/* A runtime: what there is to know of it before a device is opened, and what its devices do. */
typedef struct ht_device_ops {
    const char *prefix; /* "cpu", "opencl", "openvino", "ort", "sim": what DEVICE names begin with */
    bool partial;       /* takes some operators only: the companion is always beside it */
    /* Takes every operator and computes on the cores that cpus= names: the device beside those that do not. One has it. */
    bool companion;
    bool slashes;          /* a name's last slash is the name's own, and so is whatever stands before it */
    const char *stands_in; /* "gpu", "npu": what its devices are taken for where there is no real one; NULL: nothing */
    const ht_device_node *nodes; /* ends with pattern NULL; NULL: none tells */
    const ht_device_real *real;  /* ends with name NULL; NULL: none of them */
    /* What ht_runtime_path calls it, and takes its path there; NULL: there is none to take. */
    const char *library;
    void (*set_path)(const char *path);
    /* Appends a row for every device of this runtime, and one unusable row that says why when there is none. */
    ht_status (*list)(ht_device_info **list, size_t *n, ht_error *error);
    /* Appends the devices, with commas, that a name stands for which is none of a device; optional (NULL: there are
     * none). */
    ht_status (*members)(const char *name, ht_text *list, ht_error *error);
    ht_status (*open)(const ht_device_options *options, ht_device **device, ht_error *error);
    void (*close)(ht_device *device);
    const ht_device_caps *(*caps)(const ht_device *device);
    /* The clock that its times are of; optional (NULL: the machine's own). Devices of one engine have the same. */
    ht_clock *(*clock)(ht_device *device);
    /* NULL: yes; else why not, for a person. */
    const char *(*refuses)(const ht_device *device, const ht_op *op, const ht_slice *slice);
    /* The same of a part (binding.part) of the whole operator's task; optional (NULL: as refuses). */
    const char *(*refuses_part)(const ht_device *device, const ht_op *op, const ht_slice *part);
    /* Memory of the pool or of a KV cache becomes visible to the device; optional (NULL: host memory needs nothing). The
     * memory must outlive the device or be forgotten. */
    ht_status (*import)(ht_device *device, void *host, size_t bytes, ht_error *error);
    /* Takes an import back, once everything submitted is complete; optional. */
    void (*forget)(ht_device *device, void *host);
    /* Zeroed pages of the host's that the device uses in place where it copies others, for slots of the pool; NULL: it
     * has no need of them, or none left. Given back by free_shared of the same runtime, which may come after close;
     * false: not from here. Optional; a runtime that never gives any needs no free_shared. */
    void *(*alloc_shared)(ht_device *device, size_t bytes);
    bool (*free_shared)(void *pages);
    /* The operator outlives the task. Reads weights from op->parts, keeps its own copy of what the slice needs. */
    ht_status (*prepare)(ht_device *device, const ht_op *op, const ht_slice *slice, ht_task **task, ht_error *error);
    void (*release)(ht_device *device, ht_task *task);
    size_t (*task_bytes)(const ht_task *task); /* memory its weights hold; for the account */
    /* Does what the first submit of `tokens` tokens would have to do: builds graphs, compiles kernels. May leave it under
     * way in the background, and then settle waits for it and says what came of it. Both optional. */
    ht_status (*warm)(ht_device *device, ht_task *task, size_t tokens, ht_error *error);
    ht_status (*settle)(ht_device *device, ht_task *task, size_t tokens, ht_error *error);
    /* Would a submit of `tokens` tokens start at once? Optional (NULL: always). */
    bool (*ready)(ht_device *device, ht_task *task, size_t tokens);
    /* Measures the device's ways to run tasks[0..n), operators that are alike but for their weights and are run in turn,
     * so that weights come from where they do in a model; keeps the quickest for `tokens` tokens of this shape, on disk
     * too: a device that is opened later uses it. Nothing else may be submitted meanwhile. Optional. */
    ht_status (*tune)(ht_device *device, ht_task *const *tasks, size_t n, size_t tokens, ht_tuned *result,
                      ht_error *error);
    /* Starts once every dependency is complete. */
    ht_status (*submit)(ht_device *device, ht_task *task, const ht_binding *binding, const ht_dependency *after,
                        size_t n_after, ht_ticket *ticket, ht_error *error);
    /* Never blocks, and cannot report failure: a command that failed counts as complete, and every later wait says so. Who
     * joins by polling calls wait once more. */
    ht_ticket (*completed)(ht_device *device);
    /* HT_SYNC_FINISH may drain the whole queue, the others wait for no more than the ticket; HT_SYNC_AUTO is the device's
     * choice. */
    ht_status (*wait)(ht_device *device, ht_ticket ticket, ht_sync sync, ht_error *error);
} ht_device_ops;

struct ht_device { /* first member of every device's own struct */
    const ht_device_ops *ops;
};

extern const ht_device_ops ht_device_cpu, ht_device_opencl, ht_device_openvino, ht_device_onnxruntime, ht_device_sim;
extern const ht_device_ops *const ht_device_runtimes[]; /* all of the above, NULL-terminated (runtimes.c) */

/* Pages for the pool of these devices: those of the first that has its own, else ordinary ones. NULL: no memory. */
void *ht_device_pages_alloc(ht_device *const *devices, size_t n, size_t bytes);
void ht_device_pages_free(void *pages, size_t bytes); /* devices may be closed by now */
/* Takes the next name from a list with commas: *list moves behind it, spec[0..256) is it. False at the list's end; an empty
 * or overlong name is "" in spec, for ht_device_open to refuse. */
bool ht_device_next(const char **list, char spec[256]);
/* The list with every name that stands for several devices ("sim:SOC") replaced by theirs. An empty or overlong name
 * is an error. Free *expanded, whatever comes of it. */
ht_status ht_device_expand(const char *list, ht_text *expanded, ht_error *error);
/* What is used where nothing is named, with commas (default.c): every processor besides the CPU that is really there,
 * none of them twice and no stand-in or simulation, then the companion; at most `most` in all. A runtime is opened only
 * if there is a device node of what it drives. Free *list. */
ht_status ht_device_defaults(size_t most, ht_text *list, ht_error *error);
/* The same of these runtimes, with nodes below `root`; and the rule alone: which of the rows are used. For tests. */
ht_status ht_device_defaults_of(const ht_device_ops *const *runtimes, const char *root, size_t most, ht_text *list,
                                ht_error *error);
void ht_device_choose(const ht_device_info *rows, size_t n, bool *chosen);
/* Pattern number i of all runtimes' nodes ("/dev/dri/renderD*"), some more than once; NULL: there are no more. */
const char *ht_device_node_at(size_t i);
bool ht_device_node_exists(const char *root, const char *pattern);
/* The clock that a device's times are of; NULL: the machine's own. */
static inline ht_clock *ht_device_clock(ht_device *device) {
    return device->ops->clock ? device->ops->clock(device) : NULL;
}
/* Opens "name:option=value:..." (docs/devices.md). Fills runtime-independent defaults in *options from `spec`. */
ht_status ht_device_open(const char *spec, const ht_device_options *options, ht_device **device, ht_error *error);
/* Name of the companion on these cores: "cpu:cpus=0-1,4"; on any where there are none: "cpu". */
void ht_device_companion(const ht_cores *cores, char spec[256]);
/* What the companion is on this machine: its processor and memory. */
ht_status ht_device_host(ht_device_info *info, ht_error *error);
/* Does a device of this name take some operators only, whether it is there or not? */
bool ht_device_is_partial(const char *spec);
/* Bytes of the name at the beginning of "name:option=value:...". */
size_t ht_device_name_bytes(const char *spec);
/* Takes "limit=SIZE" out of a device's name with options: *limit is what it may hold, in bytes; 0: it has none. */
ht_status ht_device_take_limit(char spec[256], uint64_t *limit, ht_error *error);
/* Value of `key` in "a=1:b=2"; false if absent. An option whose key is not in the NULL-terminated `known` is an error. */
bool ht_device_option(const char *options, const char *key, char *value, size_t capacity);
/* The place of the option's value among the NULL-terminated words; *choice stays where the option is not given. */
ht_status ht_device_word(const ht_device_options *options, const char *key, const char *const *words, int *choice,
                         ht_error *error);
ht_status ht_device_check_options(const char *name, const char *options, const char *const *known, ht_error *error);
/* "0-1,4": the value of cpus=, of cores that this process may use */
ht_status ht_parse_cpus(const char *name, const char *text, ht_cores *cores, ht_error *error);

#endif
