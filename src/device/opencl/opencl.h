/* The device, its memory and its tasks, as all files of the OpenCL device see them; what a file does for others is in a
 * header of its name (program.c's and launch.c's in kernel.h, candidates.c's in matmul.h, tune.c's in tiles.h). From the top
 * to the bottom of who calls whom: opencl.c, queue.c, ops.c, tune.c, matmul.c and attention.c, tiles.c, candidates.c, the rest.
 *
 *   opencl.c    finding, describing and opening devices; the tables of variants and quirks
 *   program.c   programs: sources, build options, binaries on disk
 *   memory.c    buffers of the pool and the KV cache on the device, transfers, shared weights
 *   slice.c     which rows and columns a slice means
 *   launch.c    launches of kernels
 *   weights.c   packing of matrices
 *   candidates.c  the table of MATMUL kernels and the rule
 *   tiles.c     what measurements found
 *   matmul.c    MATMUL: segments, kernel choice, launches
 *   attention.c ATTENTION
 *   experts.c   ROUTE and EXPERTS
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

#define HT_CL_IN_FLIGHT 64     /* submits whose events are kept; a further one waits for the oldest */
#define HT_CL_BLOCK 16         /* rows interleaved in packed weights */
#define HT_CL_MAX_SEGMENTS 32  /* of one MATMUL task */
#define HT_CL_MAX_ARGUMENTS 32 /* of a kernel, bits of a word */
#define HT_CL_CHOICES 8        /* of kernels, that a segment remembers */

typedef struct ht_cl_device ht_cl_device;

/* ---- what a device can do, and how kernels are built for it ------------------------------------------------------ */

typedef enum ht_cl_feature {
    HT_CL_VECTOR = 1,    /* wide explicit vectors, one work-item a group: drivers for CPUs */
    HT_CL_SIMT = 2,      /* many work-items a group that share local memory: GPUs */
    HT_CL_FP16 = 4,      /* arithmetic in half (cl_khr_fp16) */
    HT_CL_SUBGROUPS = 8, /* sub_group_reduce_* (cl_khr_subgroups, OpenCL C 2.0 or later) */
    HT_CL_DOT = 16,      /* dot products of four int8 (cl_khr_integer_dot_product, or what a vendor has) */
} ht_cl_feature;

/* ---- programs --------------------------------------------------------------------------------------------------- */

typedef struct ht_cl_program {
    char key[512]; /* "source options" */
    cl_program program;
    struct ht_cl_named_kernel {
        char name[32];
        cl_kernel kernel;
    } kernels[8];
    size_t n_kernels;
} ht_cl_program;

/* ---- memory ------------------------------------------------------------------------------------------------------ */

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

enum {
    HT_CL_SCRATCH_ACTS,
    HT_CL_SCRATCH_SPLITS,
    HT_CL_SCRATCH_PARTS,
    HT_CL_SCRATCH_WARM,
    HT_CL_SCRATCH_PLAN,
    HT_CL_SCRATCH_HIDDEN,
    HT_CL_SCRATCH_GIVEN,
    HT_CL_SCRATCHES
};

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
    /* The model's figures with the operator's own heads and widths: layers may differ. */
    ht_hparams shape;
    ht_cl_segment *segments;
    size_t n_segments, cap_segments;
    cl_kernel kernels[5];   /* those of kinds that need no choice at submit */
    struct ht_cl_launched { /* its copies of kernels, and the arguments they were given last */
        cl_kernel of, copy;
        uint64_t arguments[HT_CL_MAX_ARGUMENTS];
        uint32_t known;    /* bit i: argument i */
        unsigned of_drops; /* ht_cl_device.dropped when they were set */
    } * launched;
    size_t n_launched;
    cl_mem tables
        [6]; /* NORM: weight, post_norm, bias; ROPE: rope, q_norm, k_norm, rope_queries; ATTENTION: sinks, slopes */
    size_t bytes;
};

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
    /* The most that any layer has. What an operator has is in its task, or ht_op_shape says it. */
    ht_hparams hparams;
    size_t max_tokens, max_context;
    ht_kv_type kv_type;
    const ht_progress *progress; /* may be NULL */
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
    bool unread; /* values may still be on their way to the host */
};

#endif
#endif
