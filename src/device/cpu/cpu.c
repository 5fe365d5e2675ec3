/* The CPU as a device: computes in the caller's thread and its pool, so that a submit has finished when it returns. */
#include "device/common.h"
#include "device/cpu/kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ATTENTION_TOKENS 48 /* tokens of one prefill attention item: their states stay in L2 */

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
    ht_ticket last;
} cpu_device;

struct ht_task {
    const ht_op *op;
    ht_slice slice;
    size_t n_parts;
    ht_packed parts[HT_MAX_PARTS];  /* those with rows in the slice */
    size_t first_row[HT_MAX_PARTS]; /* of the operator, where parts[i] begins */
};

/* ---- choosing kernels ------------------------------------------------------------------------------------------------- */

typedef struct isa_row {
    const char *option; /* isa=... */
    const ht_cpu_kernels *kernels;
} isa_row;

#if defined(__x86_64__)
static bool has_f16c(void) { /* no name that both gcc and clang 14 know */
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
#endif

static bool isa_works(const ht_cpu_kernels *kernels) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
    if (kernels == &ht_kernels_avx2)
        return avx2;
    if (kernels == &ht_kernels_avx512)
        return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512vnni");
#endif
    return true;
}

static const isa_row isas[] = {
/* best first */
#if defined(__x86_64__)
    {"avx512", &ht_kernels_avx512},
    {"avx2", &ht_kernels_avx2},
#endif
    {"scalar", &ht_kernels_generic},
};

static ht_status choose_isa(const char *wanted, const ht_cpu_kernels **kernels, ht_error *error) {
    for (size_t i = 0; i < HT_COUNT(isas); i++) {
        if (wanted && strcmp(wanted, isas[i].option) != 0)
            continue;
        if (isa_works(isas[i].kernels)) {
            *kernels = isas[i].kernels;
            return HT_OK;
        }
        if (wanted)
            return ht_fail(error, HT_ERROR_DEVICE, "cpu: this processor has no %s", wanted);
    }
    return ht_fail(error, HT_ERROR_ARGUMENT, "cpu: isa=%s is not one of avx512, avx2, scalar", wanted ? wanted : "");
}

/* ---- description --------------------------------------------------------------------------------------------------------- */

static void processor_name(char *out, size_t capacity) {
    snprintf(out, capacity, "unknown processor");
    FILE *file = fopen("/proc/cpuinfo", "r");
    if (!file)
        return;
    char line[256];
    while (fgets(line, sizeof line, file)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !colon)
            continue;
        colon[strcspn(colon, "\n")] = 0;
        snprintf(out, capacity, "%s", colon + 2);
        break;
    }
    fclose(file);
}

static void describe(ht_device_caps *caps, const ht_cpu_kernels *kernels) {
    *caps = (ht_device_caps){.kind = HT_DEVICE_CPU, .unified_memory = true, .runs_in_caller = true};
    snprintf(caps->name, sizeof caps->name, "cpu");
    snprintf(caps->runtime, sizeof caps->runtime, "hetero %s", kernels->name);
    snprintf(caps->dtypes, sizeof caps->dtypes, "int4,int6,int8,f16,bf16,f32");
    processor_name(caps->description, sizeof caps->description);
    caps->memory_bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    caps->cores = ht_all_cores();
}

static ht_status cpu_list(ht_device_info **list, size_t *n, ht_error *error) {
    const ht_cpu_kernels *kernels;
    ht_status status = choose_isa(NULL, &kernels, error);
    if (status)
        return status;
    ht_device_caps caps;
    describe(&caps, kernels);
    ht_device_info info = {.memory_bytes = caps.memory_bytes, .unified_memory = true, .usable = true};
    snprintf(info.name, sizeof info.name, "%s", caps.name);
    snprintf(info.kind, sizeof info.kind, "cpu");
    snprintf(info.runtime, sizeof info.runtime, "%s", caps.runtime);
    snprintf(info.description, sizeof info.description, "%s", caps.description);
    snprintf(info.dtypes, sizeof info.dtypes, "%s", caps.dtypes);
    return ht_device_list_add(list, n, &info, error);
}

static const ht_device_caps *cpu_caps(const ht_device *device) {
    return &((const cpu_device *)device)->caps;
}

/* ---- opening ---------------------------------------------------------------------------------------------------------------- */

static void cpu_close(ht_device *device) {
    cpu_device *cpu = (cpu_device *)device;
    ht_pool_destroy(cpu->pool);
    if (cpu->acts_pages)
        ht_pages_free(cpu->acts_pages, cpu->acts_bytes);
    if (cpu->scratch)
        ht_pages_free(cpu->scratch, (size_t)cpu->threads * cpu->scratch_floats * sizeof(float));
    free(cpu);
}

static ht_status read_options(cpu_device *cpu, const ht_device_options *options, uint64_t *pin, ht_error *error) {
    static const char *const known[] = {"cpus", "isa", NULL};
    char text[64];
    *pin = 0;
    ht_status status = ht_device_check_options("cpu", options->options, known, error);
    if (status)
        return status;
    bool isa = ht_device_option(options->options, "isa", text, sizeof text);
    if ((status = choose_isa(isa ? text : NULL, &cpu->kernels, error)))
        return status;
    describe(&cpu->caps, cpu->kernels);
    if (ht_device_option(options->options, "cpus", text, sizeof text)) {
        if ((status = ht_parse_cpus("cpu", text, pin, error)))
            return status;
        cpu->caps.cores = *pin;
    }
    cpu->threads = options->threads > 0 ? options->threads : ht_core_count(cpu->caps.cores);
    return HT_OK;
}

static ht_status cpu_open(const ht_device_options *options, ht_device **device, ht_error *error) {
    cpu_device *cpu;
    ht_status status = ht_alloc((void **)&cpu, 1, sizeof *cpu, "the cpu device", error);
    if (status)
        return status;
    uint64_t pin;
    cpu->base.ops = &ht_device_cpu;
    cpu->precision = options->precision;
    cpu->max_tokens = ht_max_size(options->max_tokens, 1);
    if (options->hparams)
        cpu->hparams = *options->hparams;
    status = read_options(cpu, options, &pin, error);
    if (!status)
        status = ht_pool_create(cpu->threads, pin, &cpu->pool, error);
    if (!status) {
        const ht_hparams *h = &cpu->hparams;
        size_t group = h->kv_heads ? (size_t)(h->heads / h->kv_heads) : 1;
        size_t floats = ht_max_size(cpu->kernels->strip_scratch(cpu->max_tokens),
                                    cpu->kernels->attention_scratch((size_t)h->head_dim, group, ATTENTION_TOKENS));
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

/* ---- preparing ---------------------------------------------------------------------------------------------------------------- */

static const char *cpu_refuses(const ht_device *device, const ht_op *op, const ht_slice *slice) {
    if (op->kind >= HT_OP_KINDS || op->kind == HT_OP_FFN)
        return "unknown operator";
    if (slice->reduction_end && op->kind == HT_OP_MATMUL) {
        const size_t grain = ht_forms[ht_form_of(&op->parts[0])].super ? 256 : HT_STEP;
        if (slice->reduction_begin % grain ||
            (slice->reduction_end != op->parts[0].cols && slice->reduction_end % grain))
            return "the reduction range does not end on whole groups";
    }
    return NULL;
}

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
    return HT_OK;
}

/* Room for the activations of max_tokens tokens of `cols` columns, both kinds. */
static ht_status reserve_acts(cpu_device *cpu, size_t cols, ht_error *error) {
    if (cols <= cpu->max_cols)
        return HT_OK;
    const size_t padded = ht_round_up(cols, HT_STEP), steps = padded / HT_STEP, tokens = cpu->max_tokens;
    size_t coded = steps * tokens * (HT_STEP + 2 * sizeof(float) + 5 * sizeof(int32_t)) + 16 * 64;
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

static void cpu_release(ht_device *device, ht_task *task) {
    if (!task)
        return;
    for (size_t i = 0; i < task->n_parts; i++)
        ht_packed_free(&task->parts[i]);
    free(task);
}

static ht_status cpu_prepare(ht_device *device, const ht_op *op, const ht_slice *slice, ht_task **out,
                             ht_error *error) {
    cpu_device *cpu = (cpu_device *)device;
    ht_task *task;
    ht_status status = ht_alloc((void **)&task, 1, sizeof *task, op->name, error);
    if (status)
        return status;
    task->op = op;
    task->slice = *slice;
    if (op->kind == HT_OP_MATMUL) {
        ht_slice *s = &task->slice;
        if (!s->row_end)
            s->row_end = ht_op_rows(op);
        if (!s->reduction_end)
            s->reduction_end = ht_op_cols(op);
        status = reserve_acts(cpu, s->reduction_end - s->reduction_begin, error);
        size_t base = 0;
        for (int i = 0; i < op->n_parts && !status; base += op->parts[i++].rows) {
            size_t begin = ht_max_size(s->row_begin, base), end = ht_min_size(s->row_end, base + op->parts[i].rows);
            if (begin >= end)
                continue;
            status = pack_part(cpu, op, i, begin - base, end - base, s, &task->parts[task->n_parts], error);
            if (!status)
                task->first_row[task->n_parts++] = begin;
        }
    }
    if (status) {
        cpu_release(device, task);
        return status;
    }
    *out = task;
    return HT_OK;
}

static size_t cpu_task_bytes(const ht_task *task) {
    size_t bytes = 0;
    for (size_t i = 0; i < task->n_parts; i++)
        bytes += task->parts[i].bytes;
    return bytes;
}

/* ---- running ---------------------------------------------------------------------------------------------------------------------- */

typedef struct run_job { /* one submit, as the pool's items see it */
    cpu_device *cpu;
    const ht_task *task;
    const ht_binding *binding;
    bool floats, codes; /* MATMUL: which activations to make */
    size_t block;       /* tokens of an item, where items are token blocks */
} run_job;

static float *slot_row(const ht_binding *b, ht_slot slot, size_t t) {
    return (float *)b->slots[slot].data + t * b->slots[slot].stride;
}
static float *thread_scratch(const cpu_device *cpu, int thread) {
    return cpu->scratch + (size_t)thread * cpu->scratch_floats;
}

static void acts_item(void *context, size_t item, int thread) {
    const run_job *job = context;
    const cpu_device *cpu = job->cpu;
    const ht_slice *s = &job->task->slice;
    const float *x = slot_row(job->binding, job->task->op->in, 0) + s->reduction_begin;
    const size_t stride = job->binding->slots[job->task->op->in].stride, tokens = job->binding->tokens;
    const size_t cols = s->reduction_end - s->reduction_begin, tile = cpu->kernels->tile, first = item * tile;
    if (job->codes)
        cpu->kernels->quantize(x, stride, cols, first, ht_min_size(tile, tokens - first), &cpu->acts);
    if (job->floats)
        cpu->kernels->pack_floats(x, stride, cols, tokens, item, &cpu->acts);
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
                 cols = ht_round_up(job->task->slice.reduction_end - job->task->slice.reduction_begin, HT_STEP);
    const size_t steps = cols / HT_STEP;
    uint8_t *at = cpu->acts_pages;
    *a = (ht_acts){.tokens = tokens, .cols = cols};
    job->codes = job->floats = false;
    bool sums[HT_SUMS_COUNT] = {false};
    for (size_t i = 0; i < job->task->n_parts; i++) {
        const ht_pack_form form = job->task->parts[i].form;
        if (cpu->precision == HT_PRECISION_EXACT || !ht_forms[form].bits) {
            job->floats = true;
            continue;
        }
        job->codes = true;
        if (ht_forms[form].bias)
            sums[ht_forms[form].sums] = true;
    }
    if (job->floats)
        a->floats = take(&at, ht_round_up(tokens, cpu->kernels->tile) * cols * sizeof(float));
    if (job->codes) {
        a->codes = take(&at, steps * tokens * HT_STEP);
        a->scales = take(&at, steps * tokens * sizeof(float));
        a->scaled_sums = take(&at, steps * tokens * sizeof(float));
        for (int k = 0; k < HT_SUMS_COUNT; k++)
            if (sums[k])
                a->sums[k] = take(&at, steps * tokens * sizeof(int32_t) * (k == HT_SUMS_32H ? 2 : 1));
    }
}

static void matmul_item(void *context, size_t item, int thread) {
    const run_job *job = context;
    const cpu_device *cpu = job->cpu;
    const ht_task *task = job->task;
    size_t part = 0;
    while (item >= task->parts[part].strips)
        item -= task->parts[part++].strips;
    const ht_packed *p = &task->parts[part];
    float *y = slot_row(job->binding, task->op->out, 0) + task->first_row[part];
    const bool exact = cpu->precision == HT_PRECISION_EXACT || !ht_forms[p->form].bits;
    (exact ? cpu->kernels->strip_exact : cpu->kernels->strip_fast)(
        p, item, &cpu->acts, y, job->binding->slots[task->op->out].stride, thread_scratch(cpu, thread));
}

static void run_matmul(run_job *job) {
    cpu_device *cpu = job->cpu;
    const size_t tokens = job->binding->tokens, tile = cpu->kernels->tile;
    size_t strips = 0;
    for (size_t i = 0; i < job->task->n_parts; i++)
        strips += job->task->parts[i].strips;
    lay_out_acts(job);
    const size_t tiles = (tokens + tile - 1) / tile;
    ht_pool_run(cpu->pool, acts_item, job, tiles, 1);
    /* A token's strips are microseconds long: hand out runs of them, so that the streams stay long and the counter cool. */
    const size_t share = strips / ((size_t)cpu->threads * 8);
    ht_pool_run(cpu->pool, matmul_item, job, strips, tokens == 1 && share > 1 ? share : 1);
}

static void embed_item(void *context, size_t t, int thread) {
    const run_job *job = context;
    const ht_op *op = job->task->op;
    const int32_t *ids = job->binding->slots[HT_SLOT_IDS].data;
    float *out = slot_row(job->binding, op->out, t);
    ht_matrix_floats(&op->parts[0], (size_t)ids[t], 1, out);
    if (op->scale != 1)
        for (size_t i = 0; i < op->parts[0].cols; i++)
            out[i] *= op->scale;
}

static void norm_item(void *context, size_t t, int thread) {
    const run_job *job = context;
    const ht_op *op = job->task->op;
    const ht_binding *b = job->binding;
    job->cpu->kernels->norm(slot_row(b, op->in, t), op->aux == HT_SLOT_NONE ? NULL : slot_row(b, op->aux, t),
                            op->post_norm, op->weight, op->eps, (size_t)job->cpu->hparams.embedding,
                            slot_row(b, op->out, t));
}

static void glu_item(void *context, size_t t, int thread) {
    const run_job *job = context;
    const ht_op *op = job->task->op;
    const size_t n = (size_t)job->cpu->hparams.feed_forward;
    const float *gate = slot_row(job->binding, op->in, t);
    job->cpu->kernels->glu(op->activation, gate, gate + n, n, slot_row(job->binding, op->out, t));
}

/* Blocks of ids each find their largest by plain loops that the compiler turns into vectors; a NaN is never larger. */
static void argmax_item(void *context, size_t t, int thread) {
    const run_job *job = context;
    const float *logits = slot_row(job->binding, job->task->op->in, t);
    const size_t n = (size_t)job->cpu->hparams.vocabulary;
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
        best < n ? (int32_t)best : 0;
}

static void rope_item(void *context, size_t t, int thread) {
    const run_job *job = context;
    const ht_op *op = job->task->op;
    const ht_hparams *h = &job->cpu->hparams;
    const ht_kv_layer *kv = &job->binding->kv[op->layer];
    const size_t dim = (size_t)h->head_dim, position = job->binding->position + t;
    const float *table = op->rope + position * dim;
    float *qkv = slot_row(job->binding, op->in, t);
    for (int i = 0; i < h->heads + h->kv_heads; i++) {
        float *head = qkv + (size_t)i * dim;
        const float *weight = i < h->heads ? op->q_norm : op->k_norm;
        if (weight)
            job->cpu->kernels->norm(head, NULL, NULL, weight, op->eps, dim, head);
        job->cpu->kernels->rope(head, table, (size_t)op->rope_dim, op->rope_halves);
    }
    for (int i = 0; i < h->kv_heads; i++) {
        const size_t at = ((size_t)i * kv->positions + position) * dim;
        const float *key = qkv + (size_t)(h->heads + i) * dim, *value = key + (size_t)h->kv_heads * dim;
        if (kv->type == HT_KV_F32) {
            memcpy((float *)kv->keys + at, key, dim * sizeof *key);
            memcpy((float *)kv->values + at, value, dim * sizeof *value);
        } else {
            job->cpu->kernels->to_half(key, dim, (uint16_t *)kv->keys + at);
            job->cpu->kernels->to_half(value, dim, (uint16_t *)kv->values + at);
        }
    }
}

/* Items: one query head when few tokens come (all threads share a decode step), else (kv head, block of tokens). */
static void attention_item(void *context, size_t item, int thread) {
    const run_job *job = context;
    const ht_op *op = job->task->op;
    const ht_hparams *h = &job->cpu->hparams;
    const ht_binding *b = job->binding;
    const ht_kv_layer *kv = &b->kv[op->layer];
    const size_t dim = (size_t)h->head_dim, group = (size_t)(h->heads / h->kv_heads);
    const size_t kv_size = kv->type == HT_KV_F32 ? sizeof(float) : sizeof(uint16_t);
    const bool few = job->block == 0;
    const size_t blocks = few ? 1 : (b->tokens + job->block - 1) / job->block;
    /* the last blocks see the most keys: hand them out first */
    const size_t first = few ? 0 : (blocks - 1 - item % blocks) * job->block;
    const size_t kv_head = few ? item / group : item / blocks, head = few ? item : kv_head * group;
    ht_attention_job a = {.queries = slot_row(b, op->in, first) + head * dim,
                          .query_stride = b->slots[op->in].stride,
                          .out = slot_row(b, op->out, first) + head * dim,
                          .out_stride = b->slots[op->out].stride,
                          .keys = (const char *)kv->keys + kv_head * kv->positions * dim * kv_size,
                          .values = (const char *)kv->values + kv_head * kv->positions * dim * kv_size,
                          .kv_type = kv->type,
                          .head_dim = dim,
                          .heads = few ? 1 : group,
                          .position = b->position + first,
                          .tokens = few ? b->tokens : ht_min_size(job->block, b->tokens - first),
                          .window = (size_t)op->window,
                          .scale = op->scale,
                          .scratch = thread_scratch(job->cpu, thread)};
    job->cpu->kernels->attention(&a);
}

static void run_attention(run_job *job) {
    const ht_hparams *h = &job->cpu->hparams;
    const size_t tokens = job->binding->tokens;
    job->block = tokens < 4 ? 0 : ht_min_size(ATTENTION_TOKENS, ht_round_up(tokens, job->cpu->kernels->tile));
    size_t items = job->block ? (size_t)h->kv_heads * ((tokens + job->block - 1) / job->block) : (size_t)h->heads;
    ht_pool_run(job->cpu->pool, attention_item, job, items, 1);
}

/* Cheap operators of a token or two are not worth waking anybody. */
static size_t token_grain(size_t tokens) {
    return tokens < 8 ? tokens : 4;
}

static ht_status cpu_submit(ht_device *device, ht_task *task, const ht_binding *binding, const ht_dependency *after,
                            size_t n_after, ht_ticket *ticket, ht_error *error) {
    cpu_device *cpu = (cpu_device *)device;
    static const ht_pool_function per_token[HT_OP_KINDS] = {[HT_OP_EMBED] = embed_item,
                                                            [HT_OP_NORM] = norm_item,
                                                            [HT_OP_ROPE] = rope_item,
                                                            [HT_OP_GLU] = glu_item,
                                                            [HT_OP_ARGMAX] = argmax_item};
    if (binding->tokens > cpu->max_tokens)
        return ht_fail(error, HT_ERROR_ARGUMENT, "cpu: %zu tokens at once, opened for %zu", binding->tokens,
                       cpu->max_tokens);
    ht_status status = ht_wait_all(device, after, n_after, binding->sync, error);
    if (status)
        return status;
    run_job job = {.cpu = cpu, .task = task, .binding = binding};
    ht_pool_yield(cpu->pool, binding->yields);
    switch (task->op->kind) {
    case HT_OP_MATMUL:
        run_matmul(&job);
        break;
    case HT_OP_ATTENTION:
        run_attention(&job);
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
    .list = cpu_list,
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
