/* The CPU as a device: computes in the caller's thread and its pool, so that a submit has finished when it returns. */
#include "base/os.h"
#include "device/common.h"
#include "device/cpu/experts.h"
#include "device/cpu/heads.h"
#include "device/cpu/isa.h"
#include "device/cpu/kernels.h"
#include "device/cpu/mixers.h"
#include "device/cpu/streams.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ATTENTION_TOKENS 48 /* tokens of one prefill attention item: their states stay in L2 */
#define ATTENTION_HEADS 16  /* query heads of one, at most: a key-value head of latent attention has up to 128 */

typedef struct cpu_device {
    ht_device base;
    ht_device_caps caps;
    const ht_cpu_kernels *kernels;
    ht_pool *pool;
    int threads;
    ht_precision precision;
    ht_hparams hparams;
    size_t max_tokens, max_cols;
    ht_acts acts; /* pointers into acts_pages, laid out anew for each matmul */
    uint8_t *acts_pages;
    size_t acts_bytes;
    float *scratch; /* [threads][scratch_floats] */
    size_t scratch_floats;
    size_t aside; /* where in a thread's scratch a strip of max_tokens tokens is kept that is not wholly wanted */
    ht_experts_room room, heads_room; /* of EXPERTS, of HEADS */
    float *mixing;                    /* of recurrent mixers */
    size_t mixing_bytes;
    ht_ticket last;
    unsigned long fail, submits; /* every fail-th submit fails; 0: none */
} cpu_device;

struct ht_task {
    const ht_op *op;
    ht_slice slice; /* spelt out */
    bool whole;     /* can be divided at submit */
    size_t n_parts;
    ht_packed parts[HT_MAX_PARTS];  /* those with rows in the slice */
    size_t first_row[HT_MAX_PARTS]; /* of the operator, where parts[i] begins */
    int matrix[HT_MAX_PARTS];       /* of which parts[i] has rows, from row skipped[i] on */
    size_t skipped[HT_MAX_PARTS];
    ht_experts *experts;     /* EXPERTS */
    ht_head_matrices *heads; /* HEADS */
};

static const ht_device_caps *cpu_caps(const ht_device *device) {
    return &((const cpu_device *)device)->caps;
}

/* ---- opening
 * ---------------------------------------------------------------------------------------------------------------- */

static void cpu_close(ht_device *device) {
    cpu_device *cpu = (cpu_device *)device;
    ht_pool_destroy(cpu->pool);
    if (cpu->acts_pages)
        ht_pages_free(cpu->acts_pages, cpu->acts_bytes);
    if (cpu->mixing)
        ht_pages_free(cpu->mixing, cpu->mixing_bytes);
    if (cpu->scratch)
        ht_pages_free(cpu->scratch, (size_t)cpu->threads * cpu->scratch_floats * sizeof(float));
    if (cpu->room.pages)
        ht_pages_free(cpu->room.pages, cpu->room.bytes);
    if (cpu->heads_room.pages)
        ht_pages_free(cpu->heads_room.pages, cpu->heads_room.bytes);
    free(cpu);
}

/* Options: cpus=0-1,4 the cores to compute on; isa=NAME the kernels, see `isas`; fail=N for tests: every Nth submit
 * fails, as a lost device does. */
static ht_status read_options(cpu_device *cpu, const ht_device_options *options, ht_cores *pin, ht_error *error) {
    static const char *const known[] = {"cpus", "isa", "fail", NULL};
    char text[64];
    *pin = (ht_cores){{0}};
    ht_status status = ht_device_check_options("cpu", options->options, known, error);
    if (status)
        return status;
    bool isa = ht_device_option(options->options, "isa", text, sizeof text);
    if ((status = ht_cpu_choose(isa ? text : NULL, &cpu->kernels, error)))
        return status;
    ht_cpu_describe(&cpu->caps, cpu->kernels);
    if (ht_device_option(options->options, "cpus", text, sizeof text)) {
        if ((status = ht_parse_cpus("cpu", text, pin, error)))
            return status;
        cpu->caps.cores = *pin;
    }
    if (ht_device_option(options->options, "fail", text, sizeof text)) {
        char *end;
        cpu->fail = strtoul(text, &end, 10);
        if (*end || end == text || cpu->fail == 0)
            return ht_fail(error, HT_ERROR_ARGUMENT, "cpu: fail=%s is not a number from 1 on", text);
    }
    cpu->caps.granule = cpu->precision == HT_PRECISION_EXACT ? cpu->kernels->granule : 0;
    cpu->threads = options->threads > 0 ? options->threads : ht_default_threads(&cpu->caps.cores);
    return HT_OK;
}

static ht_status cpu_open(const ht_device_options *options, ht_device **device, ht_error *error) {
    cpu_device *cpu;
    ht_status status = ht_alloc((void **)&cpu, 1, sizeof *cpu, "the cpu device", error);
    if (status)
        return status;
    ht_cores pin;
    cpu->base.ops = &ht_device_cpu;
    cpu->precision = options->precision;
    cpu->max_tokens = ht_max_size(options->max_tokens, 1);
    if (options->hparams)
        cpu->hparams = *options->hparams;
    status = read_options(cpu, options, &pin, error);
    if (!status)
        status = ht_pool_create(cpu->threads, &pin, &cpu->pool, error);
    if (!status) {
        const ht_hparams *h = &cpu->hparams;
        size_t group = h->group ? (size_t)h->group : h->kv_heads ? (size_t)(h->heads / h->kv_heads) : 1;
        cpu->aside = ht_round_up(cpu->kernels->strip_scratch(cpu->max_tokens), 16);
        size_t floats = ht_max_size(cpu->aside + cpu->max_tokens * HT_STRIP,
                                    cpu->kernels->attention_scratch(
                                        (size_t)h->head_dim, ht_min_size(group, ATTENTION_HEADS), ATTENTION_TOKENS));
        floats = ht_max_size(floats, ht_streams_scratch((size_t)h->embedding));
        cpu->scratch_floats = ht_round_up(floats, 1024);
        cpu->scratch = ht_pages_alloc((size_t)cpu->threads * cpu->scratch_floats * sizeof(float));
        if (!cpu->scratch)
            status = ht_fail(error, HT_ERROR_MEMORY, "cpu: no memory for scratch");
    }
    if (status) {
        cpu_close(&cpu->base);
        return status;
    }
    *device = &cpu->base;
    return HT_OK;
}

/* ---- slices
 * ------------------------------------------------------------------------------------------------------------------- */

/* Columns of a MATMUL that are packed together: a range begins with one, and ends with one or with the matrix. */
static size_t reduction_grain(const ht_op *op) {
    size_t grain = HT_STEP;
    for (int i = 0; i < op->n_parts; i++)
        grain = ht_max_size(grain, ht_form_grain(ht_form_of(&op->parts[i])));
    return grain;
}

static const char *refuse_share(const ht_hparams *model, const ht_op *op, const ht_slice *s) {
    const ht_hparams own = ht_op_shape(op, model), *h = &own;
    if (s->row_begin >= s->row_end || s->row_end > s->of)
        return "the share is empty or more than all";
    if (op->norm_whole)
        return "whole rows of heads are normed";
    switch (op->kind) {
    case HT_OP_MATMUL:
        return ht_share_fits(op, s) ? NULL : "a matrix's rows are not whole parts of the share";
    case HT_OP_ROPE:
    case HT_OP_ATTENTION:
    case HT_OP_HEADS:
        return ht_counts_heads(s, h) ? NULL : "shares are of key-value heads or of query heads";
    case HT_OP_GLU:
        if (op->sparsity > 0 && s->row_end - s->row_begin < s->of)
            return "gates are compared with what all of them are";
        return (size_t)h->feed_forward % s->of == 0 ? NULL : "shares are of equal parts of the features";
    case HT_OP_CONV:
    case HT_OP_DELTA_NET:
    case HT_OP_SCAN:
        return s->of == ht_op_state_units(op, model) ? NULL : "shares are of channels, value heads or groups";
    case HT_OP_EMBED:
    case HT_OP_NORM:
    case HT_OP_ARGMAX:
    case HT_OP_ROUTE:
    case HT_OP_EXPERTS:
    case HT_OP_MIX:
    case HT_OP_FFN:
    case HT_OP_KINDS:
        break;
    }
    return "this operator is not divided";
}

/* What computes one token of an operator by itself; the others are cases of cpu_submit. */
static const ht_pool_function per_token[HT_OP_KINDS];

static bool is_known(const ht_op *op) {
    return op->kind < HT_OP_KINDS &&
           (op->kind == HT_OP_MATMUL || op->kind == HT_OP_ATTENTION || op->kind == HT_OP_EXPERTS ||
            op->kind == HT_OP_HEADS || ht_is_mixer(op) || per_token[op->kind]);
}

/* Rows may begin and end anywhere; beginning inside a strip costs the strip twice, once here and once where it is shared. */
static const char *cpu_refuses(const ht_device *device, const ht_op *op, const ht_slice *s) {
    if (!is_known(op))
        return "unknown operator";
    if (op->kind == HT_OP_EXPERTS)
        return ht_experts_refuse(op, s);
    if (s->of) {
        const char *why = refuse_share(&((const cpu_device *)device)->hparams, op, s);
        if (why)
            return why;
    }
    if (op->kind != HT_OP_MATMUL)
        return s->reduction_begin || s->reduction_end || (!s->of && (s->row_begin || s->row_end))
                   ? "ranges of rows or columns are for matrix multiplications"
                   : NULL;
    if (!s->of && (s->row_begin || s->row_end) && (s->row_begin >= s->row_end || s->row_end > ht_op_rows(op)))
        return "the slice's rows are not in the matrix";
    if (!s->reduction_begin && !s->reduction_end)
        return NULL;
    const size_t cols = ht_op_cols(op), grain = reduction_grain(op);
    if (s->reduction_begin >= s->reduction_end || s->reduction_end > cols)
        return "the slice's columns are not in the matrix";
    if (s->reduction_begin % grain || (s->reduction_end != cols && s->reduction_end % grain))
        return "the reduction range does not end on whole groups";
    return NULL;
}

/* Zeros that stand for all rows or columns as what they stand for, and a share that is all as none. */
static ht_slice spell_out(const ht_op *op, const ht_slice *slice) {
    ht_slice s = *slice;
    if (op->kind == HT_OP_EXPERTS)
        return ht_spell_out_experts(op, slice);
    if (s.of && s.row_begin == 0 && s.row_end == s.of)
        s.row_end = s.of = s.group = 0;
    if (op->kind != HT_OP_MATMUL)
        return s;
    if (!s.row_end)
        s.row_end = ht_op_rows(op);
    if (!s.reduction_end)
        s.reduction_end = ht_op_cols(op);
    return s;
}

static bool is_whole(const ht_op *op, const ht_slice *s) { /* spelt out */
    if (op->kind == HT_OP_EXPERTS)
        return s->row_begin == 0 && s->row_end == s->of && s->reduction_begin == 0 &&
               s->reduction_end == ht_op_summed(op);
    if (s->of)
        return false;
    return op->kind != HT_OP_MATMUL || (s->row_begin == 0 && s->row_end == ht_op_rows(op) && s->reduction_begin == 0 &&
                                        s->reduction_end == ht_op_cols(op));
}

/* ---- preparing
 * ---------------------------------------------------------------------------------------------------------------- */

typedef struct pack_job {
    const ht_matrix *matrix;
    ht_packed *packed;
    size_t row_begin, col_begin;
    uint8_t *scratch;
    size_t scratch_bytes;
} pack_job;

static void pack_item(void *context, size_t item, int thread) {
    const pack_job *job = context;
    ht_pack_strip(job->matrix, job->row_begin, job->col_begin, job->packed, item,
                  job->scratch + (size_t)thread * job->scratch_bytes);
}

static ht_status pack_part(cpu_device *cpu, const ht_op *op, int part, size_t begin, size_t end, const ht_slice *s,
                           ht_packed *packed, ht_error *error) {
    const ht_matrix *m = &op->parts[part];
    ht_status status = ht_packed_create(m, begin, end, s->reduction_begin, s->reduction_end,
                                        s->reduction_begin ? NULL : op->bias[part], packed, error);
    if (status)
        return status;
    pack_job job = {m, packed, begin, s->reduction_begin, NULL, ht_round_up(ht_pack_scratch(m), 64)};
    status = ht_alloc((void **)&job.scratch, (size_t)cpu->threads, job.scratch_bytes, "packing", error);
    if (status) {
        ht_packed_free(packed);
        return status;
    }
    ht_pool_run(cpu->pool, pack_item, &job, packed->strips, 1);
    free(job.scratch);
    const size_t bad = atomic_load(&packed->bad);
    if (!bad)
        return HT_OK;
    ht_packed_free(packed);
    return ht_matrix_refuse(m, bad - 1, error);
}

/* Room for the activations of max_tokens tokens of `cols` columns, both kinds. */
static ht_status reserve_acts(cpu_device *cpu, size_t cols, ht_error *error) {
    if (cols <= cpu->max_cols)
        return HT_OK;
    const size_t padded = ht_round_up(cols, HT_STEP), steps = padded / HT_STEP, tokens = cpu->max_tokens;
    size_t coded = steps * tokens * (HT_STEP + 2 * sizeof(float) + 8 * sizeof(int32_t)) + 16 * 64;
    size_t floats = padded * ht_round_up(tokens, cpu->kernels->tile) * sizeof(float);
    size_t bytes = coded + floats + 4096;
    uint8_t *pages = ht_pages_alloc(bytes);
    if (!pages)
        return ht_fail(error, HT_ERROR_MEMORY, "cpu: no memory for activations of %zu tokens", tokens);
    if (cpu->acts_pages)
        ht_pages_free(cpu->acts_pages, cpu->acts_bytes);
    cpu->acts_pages = pages;
    cpu->acts_bytes = bytes;
    cpu->max_cols = cols;
    return HT_OK;
}

/* What mixers need beside their slots and states, at least as much as this one does. */
static ht_status reserve_mixing(cpu_device *cpu, const ht_op *op, ht_error *error) {
    const ht_hparams shape = ht_op_shape(op, &cpu->hparams);
    const size_t bytes = ht_mixer_scratch(op, &shape, cpu->threads) * sizeof(float);
    if (bytes <= cpu->mixing_bytes)
        return HT_OK;
    float *pages = ht_pages_alloc(bytes);
    if (!pages)
        return ht_fail(error, HT_ERROR_MEMORY, "cpu: no memory for %s", op->name);
    if (cpu->mixing)
        ht_pages_free(cpu->mixing, cpu->mixing_bytes);
    cpu->mixing = pages;
    cpu->mixing_bytes = bytes;
    return HT_OK;
}

static void cpu_release(ht_device *device, ht_task *task) {
    if (!task)
        return;
    for (size_t i = 0; i < task->n_parts; i++)
        ht_packed_free(&task->parts[i]);
    ht_experts_release(task->experts);
    ht_heads_release(task->heads);
    free(task);
}

static ht_status pack_parts(cpu_device *cpu, ht_task *task, ht_error *error) {
    const ht_op *op = task->op;
    const ht_slice *s = &task->slice;
    ht_status status = reserve_acts(cpu, s->reduction_end - s->reduction_begin, error);
    size_t base = 0, begin, end;
    for (int i = 0; i < op->n_parts && !status; base += op->parts[i++].rows) {
        if (!ht_slice_rows(op, s, i, &begin, &end))
            continue;
        status = pack_part(cpu, op, i, begin, end, s, &task->parts[task->n_parts], error);
        if (status)
            break;
        task->matrix[task->n_parts] = i;
        task->skipped[task->n_parts] = begin;
        task->first_row[task->n_parts++] = base + begin;
    }
    return status;
}

static ht_cpu_tools tools_of(cpu_device *cpu) {
    return (ht_cpu_tools){.kernels = cpu->kernels,
                          .pool = cpu->pool,
                          .threads = cpu->threads,
                          .precision = cpu->precision,
                          .max_tokens = cpu->max_tokens,
                          .scratch = cpu->scratch,
                          .scratch_floats = cpu->scratch_floats,
                          .aside = cpu->aside,
                          .room = &cpu->room};
}

/* The same with the memory of HEADS. */
static ht_cpu_tools heads_tools_of(cpu_device *cpu) {
    ht_cpu_tools tools = tools_of(cpu);
    tools.room = &cpu->heads_room;
    return tools;
}

static ht_status cpu_prepare(ht_device *device, const ht_op *op, const ht_slice *slice, ht_task **out,
                             ht_error *error) {
    cpu_device *cpu = (cpu_device *)device;
    const char *why = cpu_refuses(device, op, slice);
    if (why)
        return ht_fail(error, HT_ERROR_UNSUPPORTED, "cpu: %s: %s", op->name, why);
    ht_task *task;
    ht_status status = ht_alloc((void **)&task, 1, sizeof *task, op->name, error);
    if (status)
        return status;
    task->op = op;
    task->slice = spell_out(op, slice);
    task->whole = is_whole(op, &task->slice);
    if (op->kind == HT_OP_MATMUL)
        status = pack_parts(cpu, task, error);
    const ht_cpu_tools tools = tools_of(cpu), heads_tools = heads_tools_of(cpu);
    if (op->kind == HT_OP_EXPERTS)
        status = ht_experts_prepare(&tools, op, &task->slice, &task->experts, error);
    else if (op->kind == HT_OP_HEADS)
        status = ht_heads_prepare(&heads_tools, op, &task->heads, error);
    else if (ht_is_mixer(op))
        status = reserve_mixing(cpu, op, error);
    if (status) {
        cpu_release(device, task);
        return status;
    }
    *out = task;
    return HT_OK;
}

static size_t cpu_task_bytes(const ht_task *task) {
    size_t bytes = ht_experts_bytes(task->experts) + ht_heads_bytes(task->heads);
    for (size_t i = 0; i < task->n_parts; i++)
        bytes += task->parts[i].bytes;
    return bytes;
}

/* ---- running
 * ---------------------------------------------------------------------------------------------------------------------- */

typedef struct part_view { /* what one submit computes of a packed part */
    ht_packed packed;      /* from the strip on that has its first row, up to its last row; its columns only */
    size_t skip;           /* rows of the first strip that are not its own */
    size_t first_row;      /* of the operator, where the first strip begins */
} part_view;

typedef struct run_job { /* one submit, as the pool's items see it */
    cpu_device *cpu;
    const ht_task *task;
    const ht_binding *binding;
    ht_slice slice; /* the task's, or the part of it that the binding chose; spelt out */
    size_t n_views; /* MATMUL */
    part_view views[HT_MAX_PARTS];
    bool floats, codes; /* MATMUL: which activations to make */
    size_t block, run;  /* ATTENTION: tokens and query heads of an item */
} run_job;

static float *slot_row(const ht_binding *b, ht_slot slot, size_t t) {
    return (float *)b->slots[slot].data + t * b->slots[slot].stride;
}
static float *thread_scratch(const cpu_device *cpu, int thread) {
    return cpu->scratch + (size_t)thread * cpu->scratch_floats;
}

/* Of `all` features the range that a share has. */
static void share_range(const ht_slice *s, size_t all, size_t *begin, size_t *end) {
    const size_t each = s->of ? all / s->of : 1;
    *begin = s->of ? s->row_begin * each : 0;
    *end = s->of ? s->row_end * each : all;
}

static void acts_item(void *context, size_t item, int thread) {
    const run_job *job = context;
    const cpu_device *cpu = job->cpu;
    const ht_slice *s = &job->slice;
    const float *x = slot_row(job->binding, job->task->op->in, 0) + s->reduction_begin;
    const size_t stride = job->binding->slots[job->task->op->in].stride, tokens = job->binding->tokens;
    const size_t cols = s->reduction_end - s->reduction_begin, tile = cpu->kernels->tile, first = item * tile,
                 n = ht_min_size(tile, tokens - first);
    if (job->codes)
        cpu->kernels->quantize(x, stride, cols, first, n, &cpu->acts);
    if (!job->floats)
        return;
    const float *rows[HT_MAX_TILE];
    for (size_t i = 0; i < n; i++)
        rows[i] = x + (first + i) * stride;
    cpu->kernels->pack_floats(rows, cols, item, &cpu->acts);
}

static void *take(uint8_t **at, size_t bytes) {
    void *here = *at;
    *at += ht_round_up(bytes, 64);
    return here;
}

static void lay_out_acts(run_job *job) {
    cpu_device *cpu = job->cpu;
    ht_acts *a = &cpu->acts;
    const size_t tokens = job->binding->tokens,
                 cols = ht_round_up(job->slice.reduction_end - job->slice.reduction_begin, HT_STEP);
    const size_t steps = cols / HT_STEP;
    uint8_t *at = cpu->acts_pages;
    *a = (ht_acts){.tokens = tokens, .cols = cols};
    job->codes = job->floats = false;
    bool sums[HT_SUMS_COUNT] = {false};
    for (size_t i = 0; i < job->n_views; i++) {
        const ht_pack_form form = job->views[i].packed.form;
        if (cpu->precision == HT_PRECISION_EXACT || !ht_forms[form].bits) {
            job->floats = true;
            continue;
        }
        job->codes = true;
        sums[ht_forms[form].sums] = true;
    }
    if (job->floats)
        a->floats = take(&at, ht_round_up(tokens, cpu->kernels->tile) * cols * sizeof(float));
    if (job->codes) {
        a->codes = take(&at, steps * tokens * HT_STEP);
        a->scales = take(&at, steps * tokens * sizeof(float));
        a->scaled_sums = take(&at, steps * tokens * sizeof(float));
        for (int k = HT_SUMS_NONE + 1; k < HT_SUMS_COUNT; k++)
            if (sums[k])
                a->sums[k] = take(&at, steps * tokens * sizeof(int32_t) * ht_sums_halves(k));
    }
}

/* Rows [begin, end) of a packed part, and the columns of a slice, which the part has from column `col` on. Strips and steps
 * (eight of them where they share a head) follow each other, so that a range of them is a packed part too. */
static part_view view_of(ht_packed p, size_t first_row, size_t begin, size_t end, size_t col, const ht_slice *s) {
    const size_t strip = begin / HT_STRIP, steps = (s->reduction_begin - col) / HT_STEP;
    p.data += strip * p.strip_bytes + ht_form_bytes(p.form, steps);
    p.rows = end - strip * HT_STRIP;
    p.strips = (p.rows + HT_STRIP - 1) / HT_STRIP;
    p.cols = ht_round_up(s->reduction_end - s->reduction_begin, HT_STEP);
    p.bias = p.bias && s->reduction_begin == 0 ? p.bias + strip * HT_STRIP : NULL;
    return (part_view){.packed = p, .skip = begin % HT_STRIP, .first_row = first_row + strip * HT_STRIP};
}

static void view_parts(run_job *job) {
    const ht_task *task = job->task;
    for (size_t i = 0; i < task->n_parts; i++) {
        const ht_packed *p = &task->parts[i];
        const size_t skipped = task->skipped[i];
        size_t begin, end;
        if (!job->binding->part)
            job->views[job->n_views++] = (part_view){.packed = *p, .first_row = task->first_row[i]};
        else if (ht_slice_rows(task->op, &job->slice, task->matrix[i], &begin, &end))
            job->views[job->n_views++] = view_of(*p, task->first_row[i], begin - skipped, end - skipped,
                                                 task->slice.reduction_begin, &job->slice);
    }
}

static void matmul_item(void *context, size_t item, int thread) {
    const run_job *job = context;
    const cpu_device *cpu = job->cpu;
    const part_view *view = job->views;
    while (item >= view->packed.strips)
        item -= view++->packed.strips;
    const ht_packed *p = &view->packed;
    const size_t stride = job->binding->slots[job->task->op->out].stride, skip = view->skip;
    float *y = slot_row(job->binding, job->task->op->out, 0) + view->first_row, *scratch = thread_scratch(cpu, thread);
    const bool exact = cpu->precision == HT_PRECISION_EXACT || !ht_forms[p->form].bits;
    void (*const strip)(const ht_packed *, size_t, const ht_acts *, float *, size_t, float *) =
        exact ? cpu->kernels->strip_exact : cpu->kernels->strip_fast;
    if (item > 0 || skip == 0) {
        strip(p, item, &cpu->acts, y, stride, scratch);
        return;
    }
    float *aside = scratch + cpu->aside; /* its first rows are somebody else's to write */
    strip(p, item, &cpu->acts, aside, HT_STRIP, scratch);
    for (size_t t = 0; t < job->binding->tokens; t++)
        memcpy(y + t * stride + skip, aside + t * HT_STRIP + skip, (ht_min_size(p->rows, HT_STRIP) - skip) * sizeof *y);
}

static void run_matmul(run_job *job) {
    cpu_device *cpu = job->cpu;
    const size_t tokens = job->binding->tokens, tile = cpu->kernels->tile;
    view_parts(job);
    size_t strips = 0;
    for (size_t i = 0; i < job->n_views; i++)
        strips += job->views[i].packed.strips;
    lay_out_acts(job);
    const size_t tiles = (tokens + tile - 1) / tile;
    ht_pool_run(cpu->pool, acts_item, job, tiles, 1);
    /* A few tokens' strips are microseconds long: hand out runs of them, so that the streams stay long and the counter
     * cool. */
    const size_t share = strips / ((size_t)cpu->threads * 8);
    ht_pool_run(cpu->pool, matmul_item, job, strips, tokens <= HT_FEW && share > 1 ? share : 1);
}

static void embed_item(void *context, size_t t, int thread) {
    const run_job *job = context;
    const ht_op *op = job->task->op;
    const int32_t *ids = job->binding->slots[op->in].data;
    const size_t cols = op->parts[0].cols, row = op->positions ? job->binding->position + t : (size_t)ids[t];
    float *out = slot_row(job->binding, op->out, t), *to = op->positions ? thread_scratch(job->cpu, thread) : out;
    ht_matrix_floats(&op->parts[0], row, 1, to);
    for (size_t i = 0; i < cols && op->scale != 1; i++)
        to[i] *= op->scale;
    for (size_t i = 0; i < cols && op->positions; i++)
        out[i] += to[i];
}

static void norm_item(void *context, size_t t, int thread) {
    const run_job *job = context;
    const ht_op *op = job->task->op;
    const ht_binding *b = job->binding;
    const size_t n = (size_t)ht_op_shape(op, &job->cpu->hparams).embedding;
    if (ht_norm_is_special(op)) {
        ht_norm_special(job->cpu->kernels, op, n, b, t, thread_scratch(job->cpu, thread));
        return;
    }
    const float *delta = op->aux == HT_SLOT_NONE ? NULL : slot_row(b, op->aux, t);
    if (delta && b->n_pieces) {
        float *sum = thread_scratch(job->cpu, thread);
        memcpy(sum, delta, n * sizeof *sum);
        for (size_t k = 0; k < b->n_pieces; k++) {
            const float *piece = (const float *)b->pieces[k].data + t * b->pieces[k].stride;
            for (size_t i = 0; i < n; i++)
                sum[i] += piece[i];
        }
        delta = sum;
    }
    job->cpu->kernels->norm(&(ht_norm_job){.kind = op->norm,
                                           .x = slot_row(b, op->in, t),
                                           .delta = delta,
                                           .post = op->post_norm,
                                           .weight = op->weight,
                                           .bias = op->norm_bias,
                                           .eps = op->eps,
                                           .n = n,
                                           .out = slot_row(b, op->out, t)});
}

static void mix_item(void *context, size_t t, int thread) {
    const run_job *job = context;
    const ht_op *op = job->task->op;
    ht_mix_token(op, (size_t)ht_op_shape(op, &job->cpu->hparams).embedding, job->binding, t,
                 thread_scratch(job->cpu, thread));
}

static void glu_item(void *context, size_t t, int thread) {
    const run_job *job = context;
    const ht_op *op = job->task->op;
    const size_t n = (size_t)ht_op_shape(op, &job->cpu->hparams).feed_forward;
    size_t begin, end;
    share_range(&job->slice, n, &begin, &end);
    const float *gate = slot_row(job->binding, op->in, t) + begin;
    const float *up = op->ungated  ? NULL
                      : op->n_more ? slot_row(job->binding, op->more[0], t) + op->more_first + begin
                                   : gate + n;
    if (op->sparsity > 0) {
        float *out = slot_row(job->binding, op->out, t);
        ht_sparse_gates(op->sparsity, gate, n, out);
        gate = out;
    }
    job->cpu->kernels->glu(op->activation, gate, up, end - begin, slot_row(job->binding, op->out, t) + begin);
}

static void route_item(void *context, size_t t, int thread) {
    const run_job *job = context;
    const ht_op *op = job->task->op;
    ht_route_token(op, slot_row(job->binding, op->in, t), slot_row(job->binding, op->out, t));
}

/* Blocks of ids each find their largest by plain loops that the compiler turns into vectors; a NaN is never larger. */
static void argmax_item(void *context, size_t t, int thread) {
    const run_job *job = context;
    float *logits = slot_row(job->binding, job->task->op->in, t);
    const size_t n = (size_t)ht_op_shape(job->task->op, &job->cpu->hparams).vocabulary;
    if (job->task->op->soft_cap > 0)
        job->cpu->kernels->soft_cap(logits, job->task->op->soft_cap, n);
    enum { BLOCK = 1024 };
    float most = -INFINITY;
    size_t block = 0;
    for (size_t i = 0; i < n; i += BLOCK) {
        float here = -INFINITY;
        for (size_t k = i; k < i + BLOCK && k < n; k++)
            here = logits[k] > here ? logits[k] : here;
        if (here > most)
            most = here, block = i;
    }
    size_t best = block;
    while (best < n && !(logits[best] == most))
        best++;
    *((int32_t *)job->binding->slots[job->task->op->out].data + t * job->binding->slots[job->task->op->out].stride) =
        best < n ? (int32_t)best : -1;
}

/* Normalises heads [begin, end) of queries or keys, which begin at `row`. */
static void norm_heads(const run_job *job, float *row, size_t begin, size_t end, const float *weight, size_t dim) {
    const ht_op *op = job->task->op;
    const size_t n = op->norm_dim ? (size_t)op->norm_dim : dim;
    ht_norm_job norm = {.kind = op->norm, .weight = weight, .eps = op->eps, .n = op->norm_whole ? end * dim : n};
    if (!weight || begin == end)
        return;
    for (size_t i = begin; i < (op->norm_whole ? begin + 1 : end); i++) {
        norm.x = norm.out = row + i * dim;
        norm.weight = op->norm_heads ? weight + i * n : weight;
        job->cpu->kernels->norm(&norm);
    }
}

static void norm_values(const run_job *job, float *row, size_t begin, size_t end, size_t dim) {
    for (size_t i = begin; i < end; i++)
        job->cpu->kernels->norm(
            &(ht_norm_job){.x = row + i * dim, .eps = job->task->op->eps, .n = dim, .out = row + i * dim});
}

static void rotate_heads(const run_job *job, float *row, size_t begin, size_t end, const float *table, size_t dim) {
    const ht_op *op = job->task->op;
    for (size_t i = begin; i < end && op->rope_dim; i++)
        job->cpu->kernels->rope(row + i * dim + op->rope_first, table, (size_t)op->rope_dim, op->rope_halves);
}

/* Heads [begin, end) of keys or values, which begin at `row`, to rows `position` of the cache. */
static void keep_heads(const run_job *job, const float *row, size_t begin, size_t end, void *cache, size_t position,
                       size_t dim) {
    const ht_kv_layer *kv = &job->binding->kv[job->task->op->cache];
    for (size_t i = begin; i < end; i++) {
        const size_t at = (i * kv->positions + position) * dim;
        if (kv->type == HT_KV_F32)
            memcpy((float *)cache + at, row + i * dim, dim * sizeof *row);
        else
            job->cpu->kernels->to_half(row + i * dim, dim, (uint16_t *)cache + at);
    }
}

static void rope_item(void *context, size_t t, int thread) {
    const run_job *job = context;
    const ht_op *op = job->task->op;
    const ht_hparams h = ht_op_shape(op, &job->cpu->hparams);
    const size_t dim = (size_t)h.head_dim, position = job->binding->position + t, row = position * (size_t)op->rope_dim;
    const ht_heads own = ht_slice_heads(&job->slice, &h);
    float *queries = slot_row(job->binding, op->in, t), *keys = queries + (size_t)h.heads * dim,
          *values = keys + (size_t)h.kv_heads * dim;
    const float *angles = op->rope_dim ? op->rope + row : NULL;
    for (int step = 0; step < 2; step++)
        if (step == op->norm_after) {
            norm_heads(job, queries, own.queries, own.queries_end, op->q_norm, dim);
            if (!op->shared)
                norm_heads(job, keys, own.own, own.used_end, op->k_norm, dim);
        } else {
            rotate_heads(job, queries, own.queries, own.queries_end, op->rope_queries ? op->rope_queries + row : angles,
                         dim);
            if (!op->shared)
                rotate_heads(job, keys, own.own, own.used_end, angles, dim);
        }
    if (op->shared)
        return;
    const ht_kv_layer *kv = &job->binding->kv[op->cache];
    keep_heads(job, keys, own.own, own.used_end, kv->keys, position, dim);
    if (op->value_dim) /* they are in the keys */
        return;
    if (op->v_norm)
        norm_values(job, values, own.own, own.used_end, dim);
    keep_heads(job, values, own.own, own.used_end, kv->values, position, dim);
}

/* Items: (kv head, run of its query heads, block of tokens). */
static void attention_item(void *context, size_t item, int thread) {
    const run_job *job = context;
    const ht_op *op = job->task->op;
    const ht_hparams own = ht_op_shape(op, &job->cpu->hparams), *h = &own;
    const ht_binding *b = job->binding;
    const ht_kv_layer *kv = &b->kv[op->cache];
    const size_t dim = (size_t)h->head_dim, group = (size_t)(h->heads / h->kv_heads);
    const size_t kv_size = kv->type == HT_KV_F32 ? sizeof(float) : sizeof(uint16_t);
    const ht_heads heads = ht_slice_heads(&job->slice, h);
    const size_t blocks = (b->tokens + job->block - 1) / job->block, runs = (group + job->run - 1) / job->run;
    /* the last blocks see the most keys: hand them out first */
    const size_t first = (blocks - 1 - item % blocks) * job->block, kv_head = heads.used + item / blocks / runs,
                 run = kv_head * group + item / blocks % runs * job->run;
    const size_t head = ht_max_size(run, heads.queries),
                 end = ht_min_size(ht_min_size(run + job->run, (kv_head + 1) * group), heads.queries_end);
    if (head >= end) /* another share's */
        return;
    ht_attention_job a = {.queries = slot_row(b, op->in, first) + head * dim,
                          .query_stride = b->slots[op->in].stride,
                          .out = slot_row(b, op->out, first) + head * dim,
                          .out_stride = b->slots[op->out].stride,
                          .keys = (const char *)kv->keys + kv_head * kv->positions * dim * kv_size,
                          .values = (const char *)(op->value_dim ? kv->keys : kv->values) +
                                    kv_head * kv->positions * dim * kv_size,
                          .kv_type = kv->type,
                          .head_dim = dim,
                          .heads = end - head,
                          .position = b->position + first,
                          .tokens = ht_min_size(job->block, b->tokens - first),
                          .window = (size_t)op->window,
                          .chunk = (size_t)op->attention_chunk,
                          .end = op->both_ways ? b->position + b->tokens : 0,
                          .scale = op->scale,
                          .soft_cap = op->soft_cap,
                          .sinks = op->sinks ? op->sinks + head : NULL,
                          .slopes = op->slopes ? op->slopes + head : NULL,
                          .scratch = thread_scratch(job->cpu, thread)};
    job->cpu->kernels->attention(&a);
}

/* Query heads of an item: what is made of keys and values is made once for all of them, which costs as much as RUN_COST
 * heads; but all threads are to have as much to do. */
#define RUN_COST 2
static size_t choose_run(size_t kv_heads, size_t group, size_t blocks, size_t threads) {
    size_t best = 1, least = SIZE_MAX;
    for (size_t run = 1; run <= ht_min_size(group, ATTENTION_HEADS); run++) {
        const size_t items = kv_heads * ((group + run - 1) / run) * blocks,
                     cost = (items + threads - 1) / threads * (run + RUN_COST);
        if (cost <= least)
            best = run, least = cost;
    }
    return best;
}

static void run_attention(run_job *job) {
    const ht_hparams own = ht_op_shape(job->task->op, &job->cpu->hparams), *h = &own;
    const size_t tokens = job->binding->tokens;
    job->block = ht_min_size(ATTENTION_TOKENS, tokens);
    const ht_heads heads = ht_slice_heads(&job->slice, h);
    const size_t group = (size_t)(h->heads / h->kv_heads), kv_heads = heads.used_end - heads.used,
                 blocks = (tokens + job->block - 1) / job->block;
    job->run = choose_run(kv_heads, group, blocks, (size_t)job->cpu->threads);
    const size_t runs = (group + job->run - 1) / job->run;
    ht_pool_run(job->cpu->pool, attention_item, job, kv_heads * runs * blocks, 1);
}

static void run_mixer(const run_job *job) {
    const cpu_device *cpu = job->cpu;
    const ht_mixer_job mixer = {.kernels = cpu->kernels,
                                .pool = cpu->pool,
                                .op = job->task->op,
                                .binding = job->binding,
                                .slice = job->slice,
                                .shape = ht_op_shape(job->task->op, &cpu->hparams),
                                .scratch = cpu->mixing};
    ht_mixer_run(&mixer);
}

/* Cheap operators of a token or two are not worth waking anybody. */
static size_t token_grain(size_t tokens) {
    return tokens < 8 ? tokens : 4;
}

/* What of the task this submit is to compute. */
static ht_status choose_slice(run_job *job, ht_error *error) {
    const ht_op *op = job->task->op;
    const ht_binding *b = job->binding;
    job->slice = job->task->slice;
    if (b->n_pieces > HT_MAX_PIECES)
        return ht_fail(error, HT_ERROR_ARGUMENT, "cpu: %s: %zu pieces to add", op->name, b->n_pieces);
    if (!b->part)
        return HT_OK;
    const bool has = job->task->whole || (op->kind == HT_OP_MATMUL && ht_slice_lies_in(op, b->part, &job->task->slice));
    const char *why = has ? cpu_refuses(&job->cpu->base, op, b->part) : "it was prepared as a slice without that part";
    if (why)
        return ht_fail(error, HT_ERROR_ARGUMENT, "cpu: part of %s: %s", op->name, why);
    job->slice = spell_out(op, b->part);
    return HT_OK;
}

static const ht_pool_function per_token[HT_OP_KINDS] = {
    [HT_OP_EMBED] = embed_item, [HT_OP_NORM] = norm_item,     [HT_OP_ROPE] = rope_item, [HT_OP_GLU] = glu_item,
    [HT_OP_ROUTE] = route_item, [HT_OP_ARGMAX] = argmax_item, [HT_OP_MIX] = mix_item};

/* EXPERTS show their rows while they run. */
static void show_rows(const run_job *job) {
    const ht_op *op = job->task->op;
    const ht_binding *binding = job->binding;
    const ht_observer *observer = binding->observer;
    const size_t matrices = op->kind == HT_OP_HEADS ? (size_t)op->heads : 1;
    if (op->kind != HT_OP_MATMUL && op->kind != HT_OP_HEADS)
        return;
    const ht_view *in = &binding->slots[op->in];
    for (size_t m = 0; m < matrices; m++)
        observer->look(observer->user, op, 0, op->n_parts, m, (const float *)in->data + m * (size_t)op->head_dim,
                       binding->tokens, in->stride);
}

static ht_status cpu_submit(ht_device *device, ht_task *task, const ht_binding *binding, const ht_dependency *after,
                            size_t n_after, ht_ticket *ticket, ht_error *error) {
    cpu_device *cpu = (cpu_device *)device;
    if (binding->tokens > cpu->max_tokens)
        return ht_fail(error, HT_ERROR_ARGUMENT, "cpu: %zu tokens at once, opened for %zu", binding->tokens,
                       cpu->max_tokens);
    if (cpu->fail && ++cpu->submits % cpu->fail == 0)
        return ht_fail(error, HT_ERROR_DEVICE, "cpu: submit %lu fails, as fail=%lu asks for", cpu->submits, cpu->fail);
    run_job job = {.cpu = cpu, .task = task, .binding = binding};
    ht_status status = choose_slice(&job, error);
    if (!status)
        status = ht_wait_all(device, after, n_after, binding->sync, error);
    if (status)
        return status;
    ht_pool_yield(cpu->pool, binding->yields);
    if (HT_UNLIKELY(binding->observer != NULL))
        show_rows(&job);
    switch (task->op->kind) {
    case HT_OP_MATMUL:
        run_matmul(&job);
        break;
    case HT_OP_ATTENTION:
        run_attention(&job);
        break;
    case HT_OP_EXPERTS: {
        const ht_cpu_tools tools = tools_of(cpu);
        ht_experts_run(&tools, task->experts, &job.slice, binding);
        break;
    }
    case HT_OP_HEADS: {
        const ht_cpu_tools tools = heads_tools_of(cpu);
        const ht_hparams shape = ht_op_shape(task->op, &cpu->hparams);
        const ht_heads own = ht_slice_heads(&job.slice, &shape);
        ht_heads_run(&tools, task->heads, &own, binding);
        break;
    }
    case HT_OP_CONV:
    case HT_OP_DELTA_NET:
    case HT_OP_SCAN:
        run_mixer(&job);
        break;
    default:
        ht_pool_run(cpu->pool, per_token[task->op->kind], &job, binding->tokens, token_grain(binding->tokens));
    }
    *ticket = ++cpu->last;
    return HT_OK;
}

static ht_ticket cpu_completed(ht_device *device) {
    return ((cpu_device *)device)->last;
}
static ht_status cpu_wait(ht_device *device, ht_ticket ticket, ht_sync sync, ht_error *error) {
    return HT_OK;
}

const ht_device_ops ht_device_cpu = {
    .prefix = "cpu",
    .companion = true,
    .list = ht_cpu_list,
    .open = cpu_open,
    .close = cpu_close,
    .caps = cpu_caps,
    .refuses = cpu_refuses,
    .prepare = cpu_prepare,
    .release = cpu_release,
    .task_bytes = cpu_task_bytes,
    .submit = cpu_submit,
    .completed = cpu_completed,
    .wait = cpu_wait,
};
