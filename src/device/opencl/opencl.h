/* What the files of the OpenCL device share.
 *
 *   opencl.c    finding, describing and opening devices; the tables of variants and quirks
 *   program.c   programs: sources, build options, binaries on disk
 *   memory.c    buffers of the pool and the KV cache on the device, transfers, shared weights
 *   slice.c     which rows and columns a slice means
 *   launch.c    launches of kernels
 *   weights.c   packing of matrices
 *   candidates.c the table of MATMUL kernels and the rule; tiles.c what measurements found
 *   matmul.c    MATMUL: segments, kernel choice, launches
 *   attention.c ATTENTION
 *   ops.c       the other operators, and the table of all
 *   tune.c      the search for tiles
 *   queue.c     submits, tickets and the four ways to join
 *   *.clh, *.cl kernels, embedded at build; common.clh says what every one of them may rely on
 */
#ifndef HT_OPENCL_H
#define HT_OPENCL_H

#include "device/common.h"
#include "device/opencl/cl_loader.h"

#if HT_HAVE_OPENCL

#define HT_CL_IN_FLIGHT 64    /* submits whose events are kept; a further one waits for the oldest */
#define HT_CL_BLOCK 16        /* rows interleaved in packed weights */
#define HT_CL_MAX_SEGMENTS 32 /* of one MATMUL task */
#define HT_CL_MAX_ARGUMENTS 24
#define HT_CL_CHOICES 8 /* of kernels, that a segment remembers */

typedef struct ht_cl_device ht_cl_device;

/* ---- what a device can do, and how kernels are built for it ------------------------------------------------------ */

typedef enum ht_cl_feature {
    HT_CL_VECTOR = 1,    /* wide explicit vectors, one work-item a group: drivers for CPUs */
    HT_CL_SIMT = 2,      /* many work-items a group that share local memory: GPUs */
    HT_CL_FP16 = 4,      /* arithmetic in half (cl_khr_fp16) */
    HT_CL_SUBGROUPS = 8, /* sub_group_reduce_* (cl_khr_subgroups, OpenCL C 2.0 or later) */
    HT_CL_DOT = 16,      /* dot products of four int8 (cl_khr_integer_dot_product, or what a vendor has) */
} ht_cl_feature;

/* ---- programs (program.c) ------------------------------------------------------------------------------------------ */

typedef struct ht_cl_program {
    char key[512]; /* "source options" */
    cl_program program;
    struct ht_cl_named_kernel {
        char name[32];
        cl_kernel kernel;
    } kernels[8];
    size_t n_kernels;
} ht_cl_program;

/* The kernel `name` of source file `source` (without ".cl"), built with the device's own options and `options`
 * ("-DBITS=4 -DMINS=1"). Built, or read from the disk, at the first call for (source, options) and kept; a build is
 * reported through the device's progress. The kernel belongs to the device. HT_ERROR_DEVICE with the kernel, the device
 * and the first line of the build log (all of it goes to the log). */
ht_status ht_cl_kernel(ht_cl_device *d, const char *source, const char *name, const char *options, cl_kernel *kernel,
                       ht_error *error);
/* Another object of the same kernel, with arguments of its own; the caller releases it. */
ht_status ht_cl_kernel_copy(ht_cl_device *d, cl_kernel kernel, cl_kernel *copy, ht_error *error);
void ht_cl_programs_release(ht_cl_device *d);

/* ---- memory (memory.c) ---------------------------------------------------------------------------------------------- */

typedef struct ht_cl_region { /* imported host memory */
    char *host;
    size_t bytes;
    cl_mem memory;
    bool mirrored; /* a copy of its own; else the same pages */
} ht_cl_region;

typedef struct ht_cl_run { /* of columns, or of an operator's rows */
    size_t first, width;
} ht_cl_run;

/* Where a slot lies, and which of its columns a submit reads or writes. */
typedef struct ht_cl_place {
    const ht_cl_region *region; /* NULL: the task does not use this slot */
    cl_ulong offset;            /* of token 0's column 0, in elements of 4 bytes */
    size_t stride;              /* elements from a token to the next */
    ht_cl_run runs[HT_MAX_PARTS];
    size_t n_runs;
} ht_cl_place;

/* A buffer that this device made and that several tasks may share (weights of a tied head, rope tables). */
typedef struct ht_cl_shared {
    const void *host; /* what it was made from: the key, with `kind` */
    uint64_t kind;    /* rows, layout, ...: whatever else tells two apart */
    cl_mem memory;
    size_t bytes;
    int users;
} ht_cl_shared;

/* A device buffer; HT_ERROR_DEVICE with both sizes when it is larger than the device's largest allocation. */
ht_status ht_cl_buffer(ht_cl_device *d, size_t bytes, cl_mem_flags flags, const char *what, cl_mem *memory,
                       ht_error *error);
/* The same, filled with data[0..bytes) before it returns. */
ht_status ht_cl_upload(ht_cl_device *d, const void *data, size_t bytes, const char *what, cl_mem *memory,
                       ht_error *error);
/* Releases a buffer. Its handle may come again for another: arguments that were set before are no longer known. */
void ht_cl_drop(ht_cl_device *d, cl_mem memory);
/* The device's scratch buffer number `which`, at least `bytes` large; contents do not survive a submit. */
enum { HT_CL_SCRATCH_ACTS, HT_CL_SCRATCH_SPLITS, HT_CL_SCRATCH_PARTS, HT_CL_SCRATCH_WARM, HT_CL_SCRATCHES };
ht_status ht_cl_scratch(ht_cl_device *d, int which, size_t bytes, ht_error *error);

/* Places of everything op reads and writes in this submit. */
typedef struct ht_cl_call {
    const ht_binding *binding;
    cl_uint tokens;
    size_t shape_tokens; /* kernels are chosen for this many: `tokens` but when a task is warmed */
    ht_slice part;       /* what to compute, as ht_cl_resolve says it */
    ht_cl_place in, aux, out, pieces[HT_MAX_PIECES];
    size_t n_pieces;
    const ht_cl_region *keys, *values;   /* ROPE, ATTENTION */
    cl_ulong keys_offset, values_offset; /* in bytes, from the region's beginning to the layer's */
} ht_cl_call;

/* ---- launches ------------------------------------------------------------------------------------------------------ */

typedef struct ht_cl_argument {
    size_t bytes;
    const void *value; /* NULL: local memory of `bytes` */
} ht_cl_argument;
#define HT_CL_ARGUMENT(x) \
    { sizeof(x), &(x) }

typedef struct ht_cl_grid {
    cl_uint dims;
    const size_t *global; /* work-items */
    const size_t *local;  /* of a group; NULL: the driver's choice */
} ht_cl_grid;

/* Enqueues kernel with arguments[0..n) over the grid's work-items. A task launches copies of its
 * own, of which only the arguments that changed are set again: half of what a launch costs the host is that. `task` NULL:
 * the kernel itself. */
ht_status ht_cl_launch(ht_cl_device *d, ht_task *task, cl_kernel kernel, const ht_cl_argument *arguments, size_t n,
                       const ht_cl_grid *grid, ht_error *error);

/* ---- tasks ---------------------------------------------------------------------------------------------------------- */

/* How the weights of a segment are stored: build options of every kernel that reads them follow from it (weights.c). */
typedef struct ht_cl_form {
    int bits;         /* of a code: 4, 8; 16: F16, 17: BF16, 32: F32 */
    int group;        /* columns a scale covers: 32 or 16; 0 for floats */
    bool half_scales; /* scales (and minimums) are fp16, because that holds them exactly; else float */
    bool mins;        /* w = scale * code + min */
} ht_cl_form;

/* One run of rows of one form in a MATMUL (all of an EMBED): its packed weights. Several parts of an operator that have
 * the same form are one segment; one that would exceed the device's largest buffer is several. */
typedef struct ht_cl_weights {
    ht_cl_form form;
    cl_uint rows, cols;         /* cols as the activations have them; packed up to a multiple of 32 with zeros */
    cl_mem codes, scales, mins; /* scales NULL for floats, mins NULL without */
    cl_mem bias;                /* float [rows padded to 16], or NULL */
    size_t bytes;
} ht_cl_weights;

typedef struct ht_cl_segment {
    size_t first_row; /* of the operator */
    ht_cl_weights weights;
    uint64_t built; /* bit i: row i of the table of kernels is ready; parts are multiplied with these alone */
    struct ht_cl_choice {
        size_t tokens, rows, cols; /* what it is for; tokens 0: nothing */
        const struct ht_cl_matmul_row *row;
        cl_kernel kernel, pack, add; /* pack_acts and add_parts, where the row wants them */
    } choices[HT_CL_CHOICES];        /* the newest, in no order */
    size_t n_chosen;                 /* so far */
} ht_cl_segment;

struct ht_task {
    const ht_op *op;
    ht_slice slice;
    ht_cl_segment *segments;
    size_t n_segments, cap_segments;
    cl_kernel kernels[2];   /* those of kinds that need no choice at submit */
    struct ht_cl_launched { /* its copies of kernels, and the arguments they were given last */
        cl_kernel of, copy;
        uint64_t arguments[HT_CL_MAX_ARGUMENTS];
        uint32_t known;    /* bit i: argument i */
        unsigned of_drops; /* ht_cl_device.dropped when they were set */
    } * launched;
    size_t n_launched;
    cl_mem tables[4]; /* NORM: weight, post_norm; ROPE: rope, q_norm, k_norm */
    size_t bytes;
};

/* Rows [row, row + n) of an operator's parts, columns [col, col + cols), packed for this device. Parts must be of one
 * form. */
ht_status ht_cl_weights_create(ht_cl_device *d, const ht_op *op, size_t row, size_t n, size_t col, size_t cols,
                               ht_cl_weights *weights, ht_error *error);
void ht_cl_weights_release(ht_cl_device *d, ht_cl_weights *weights);
ht_cl_form ht_cl_form_of(const ht_type_traits *type);
/* "-DBITS=4 -DGROUP=32 -DHALF_SCALES=1 -DMINS=0": what codec.clh wants. */
void ht_cl_form_options(const ht_cl_form *form, char *out, size_t capacity);
bool ht_cl_same_form(const ht_cl_form *a, const ht_cl_form *b);

/* What the device does for a kind of operator: one row a kind (ops.c, matmul.c). prepare fills task's own fields and has
 * every kernel built that a submit of up to max_tokens may use. */
typedef struct ht_cl_op_row {
    const char *(*refuses)(const ht_cl_device *d, const ht_op *op, const ht_slice *slice);
    ht_status (*prepare)(ht_cl_device *d, ht_task *task, ht_error *error);
    ht_status (*enqueue)(ht_cl_device *d, ht_task *task, const ht_cl_call *call, ht_error *error);
} ht_cl_op_row;
extern const ht_cl_op_row ht_cl_ops[HT_OP_KINDS];

/* What a share of an operator is counted in; 0: it has none. */
size_t ht_cl_units_of(const ht_cl_device *d, const ht_op *op);
/* A slice in one form, whichever way it was said. MATMUL: of 0 where that says the same, columns always a range. ROPE,
 * ATTENTION, GLU: rows are key-value heads or features, all of them where the slice is whole. Others: zeros. */
ht_slice ht_cl_resolve(const ht_cl_device *d, const ht_op *op, const ht_slice *slice);
/* Is it the whole operator? */
bool ht_cl_is_whole(const ht_cl_device *d, const ht_op *op, const ht_slice *slice);
/* Appends columns to a place, to its last run where they follow on it. */
void ht_cl_add_run(ht_cl_run runs[HT_MAX_PARTS], size_t *n, size_t first, size_t width);
/* The operator's rows in a resolved slice of a MATMUL, ascending; returns how many runs. */
size_t ht_cl_matmul_runs(const ht_op *op, const ht_slice *slice, ht_cl_run runs[HT_MAX_PARTS]);
const char *ht_cl_matmul_refuses(const ht_cl_device *d, const ht_op *op, const ht_slice *slice);
const char *ht_cl_matmul_refuses_part(const ht_cl_device *d, const ht_op *op, const ht_slice *part);
const char *ht_cl_refuses(const ht_device *device, const ht_op *op, const ht_slice *slice);
const char *ht_cl_refuses_part(const ht_device *device, const ht_op *op, const ht_slice *part);
/* The segments of the task's slice, packed; no kernel is built. */
ht_status ht_cl_matmul_segments(ht_cl_device *d, ht_task *task, ht_error *error);
ht_status ht_cl_matmul_prepare(ht_cl_device *d, ht_task *task, ht_error *error);
ht_status ht_cl_matmul_enqueue(ht_cl_device *d, ht_task *task, const ht_cl_call *call, ht_error *error);
ht_status ht_cl_attention_prepare(ht_cl_device *d, ht_task *task, ht_error *error);
ht_status ht_cl_attention_enqueue(ht_cl_device *d, ht_task *task, const ht_cl_call *call, ht_error *error);

/* ---- the device ------------------------------------------------------------------------------------------------------ */

struct ht_cl_device {
    ht_device base;
    ht_device_caps caps;
    const ht_cl *cl;
    cl_device_id id;
    ht_cores used_cores; /* that ht_cl_use_cores knows of */
    bool is_sub_device, mirrored;
    unsigned features;             /* ht_cl_feature bits in use */
    unsigned vector;               /* lanes of explicit vectors in pointwise kernels: VEC */
    size_t local;                  /* work-items of a group in pointwise and reducing kernels: LOCAL (1 on CPUs) */
    cl_uint units;                 /* compute units */
    size_t largest_group;          /* work-items */
    cl_ulong largest, local_bytes; /* largest allocation; local memory of a group */
    char build_options[256];       /* of every program */
    char fingerprint[256];         /* device, driver, platform: keys of what is kept on disk */
    int forced_kernel;             /* for tests: this one of the candidates for a matmul; -1: the best */
    ht_precision precision;
    ht_hparams hparams;
    size_t max_tokens, max_context;
    ht_kv_type kv_type;
    ht_progress_function progress;
    void *progress_user;
    cl_context context;
    cl_command_queue queue;

    ht_cl_program *programs;
    size_t n_programs, cap_programs, n_built;
    ht_cl_region *regions; /* by host address */
    size_t n_regions, cap_regions;
    ht_cl_shared *shared;
    size_t n_shared, cap_shared;
    cl_mem scratch[HT_CL_SCRATCHES];
    size_t scratch_bytes[HT_CL_SCRATCHES];
    unsigned dropped;                /* buffers released so far */
    struct ht_cl_tiles *tiles;       /* kernels that measurements found best (tiles.c); NULL: none was made */
    struct ht_cl_queue_state *state; /* tickets and events (queue.c) */
    bool want_event;                 /* the launch under way is the submit's last: keep its event in last_event */
    cl_event last_event;
};

/* memory.c */
ht_status ht_cl_import(ht_device *device, void *host, size_t bytes, ht_error *error);
void ht_cl_forget(ht_device *device, void *host);
ht_status ht_cl_find_places(ht_cl_device *d, const ht_task *task, const ht_binding *binding, ht_cl_call *call,
                            ht_error *error);
/* Before the kernels: what other processors wrote since. After them: what others read. Nothing on unified memory. */
ht_status ht_cl_bring_in(ht_cl_device *d, const ht_task *task, const ht_cl_call *call, ht_error *error);
ht_status ht_cl_hand_out(ht_cl_device *d, const ht_task *task, const ht_cl_call *call, ht_error *error);
/* The shared buffer of (host, kind), made from data[0..bytes) if it is not there; released by as many calls of unshare. */
ht_status ht_cl_share(ht_cl_device *d, const void *host, uint64_t kind, const void *data, size_t bytes,
                      const char *what, cl_mem *memory, ht_error *error);
void ht_cl_unshare(ht_cl_device *d, cl_mem memory);
void ht_cl_memory_release(ht_cl_device *d);

/* tune.c */
ht_status ht_cl_tune(ht_device *device, ht_task *const *tasks, size_t n, size_t tokens, ht_tuned *result,
                     ht_error *error);

/* queue.c */
/* `limit`: seconds without progress after which a wait gives up. */
ht_status ht_cl_queue_create(ht_cl_device *d, double limit, ht_error *error);
void ht_cl_queue_release(ht_cl_device *d);
ht_status ht_cl_submit(ht_device *device, ht_task *task, const ht_binding *binding, const ht_dependency *after,
                       size_t n_after, ht_ticket *ticket, ht_error *error);
ht_status ht_cl_warm(ht_device *device, ht_task *task, size_t tokens, ht_error *error);
ht_ticket ht_cl_completed(ht_device *device);
ht_status ht_cl_wait(ht_device *device, ht_ticket ticket, ht_sync sync, ht_error *error);

#endif
#endif
