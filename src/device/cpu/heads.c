#include "device/cpu/heads.h"

#include <stdlib.h>
#include <string.h>

#define ENOUGH (8u << 20) /* bytes of activations that are worth having at once */

struct ht_head_matrices {
    const ht_op *op;
    size_t heads, bytes;
    ht_packed packed[]; /* [heads] */
};

/* ---- preparing
 * -------------------------------------------------------------------------------------------------------------- */

typedef struct pack_job {
    const ht_head_matrices *matrices;
    uint8_t *scratch;
    size_t scratch_bytes, strips; /* of a head */
} pack_job;

static size_t rows_of(const ht_op *op) { /* of a head's matrix */
    return op->parts[0].rows / (size_t)op->heads;
}

static void pack_item(void *context, size_t item, int thread) {
    const pack_job *job = context;
    const ht_op *op = job->matrices->op;
    const size_t head = item / job->strips;
    ht_packed *packed = (ht_packed *)(uintptr_t)&job->matrices->packed[head];
    ht_pack_strip(&op->parts[0], head * rows_of(op), 0, packed, item % job->strips,
                  job->scratch + (size_t)thread * job->scratch_bytes);
}

static ht_status check_packed(const ht_head_matrices *m, ht_error *error) {
    for (size_t h = 0; h < m->heads; h++) {
        const size_t bad = atomic_load(&m->packed[h].bad);
        if (bad)
            return ht_matrix_refuse(&m->op->parts[0], bad - 1, error);
    }
    return HT_OK;
}

static ht_status pack(const ht_cpu_tools *tools, ht_head_matrices *m, ht_error *error) {
    const ht_matrix *matrix = &m->op->parts[0];
    const size_t rows = rows_of(m->op);
    ht_status status = HT_OK;
    for (size_t n = (size_t)m->op->heads; m->heads < n && !status; m->heads += !status) {
        ht_packed *packed = &m->packed[m->heads];
        status = ht_packed_create(matrix, m->heads * rows, (m->heads + 1) * rows, 0, matrix->cols, NULL, packed, error);
        m->bytes += status ? 0 : packed->bytes;
    }
    pack_job job = {m, NULL, ht_round_up(ht_pack_scratch(matrix), 64), 0};
    if (!status)
        status = ht_alloc((void **)&job.scratch, (size_t)tools->threads, job.scratch_bytes, "packing", error);
    if (status)
        return status;
    job.strips = m->packed[0].strips;
    ht_pool_run(tools->pool, pack_item, &job, m->heads * job.strips, 1);
    free(job.scratch);
    return check_packed(m, error);
}

/* ---- activations
 * -------------------------------------------------------------------------------------------------------- */

static void *take(uint8_t *base, size_t *at, size_t bytes) {
    void *here = base ? base + *at : NULL; /* no base: only the size is of interest */
    *at += ht_round_up(bytes, 64);
    return here;
}

static bool is_exact(const ht_cpu_tools *tools, const ht_head_matrices *m) {
    return tools->precision == HT_PRECISION_EXACT || !ht_forms[m->packed[0].form].bits;
}

/* One head's activations from `base` on; returns their bytes. */
static size_t lay_out(const ht_cpu_tools *tools, const ht_head_matrices *m, size_t tokens, uint8_t *base, ht_acts *a) {
    const ht_form_traits t = ht_forms[m->packed[0].form];
    const size_t cols = m->packed[0].cols, steps = cols / HT_STEP;
    size_t at = 0;
    *a = (ht_acts){.tokens = tokens, .cols = cols};
    if (is_exact(tools, m)) {
        a->floats = take(base, &at, ht_round_up(tokens, tools->kernels->tile) * cols * sizeof(float));
        return at;
    }
    a->codes = take(base, &at, steps * tokens * HT_STEP);
    a->scales = take(base, &at, steps * tokens * sizeof(float));
    a->scaled_sums = take(base, &at, steps * tokens * sizeof(float));
    if (t.sums)
        a->sums[t.sums] = take(base, &at, steps * tokens * sizeof(int32_t) * ht_sums_halves(t.sums));
    return at;
}

static ht_status reserve(const ht_cpu_tools *tools, const ht_head_matrices *m, ht_error *error) {
    ht_acts acts;
    const size_t one = lay_out(tools, m, tools->max_tokens, NULL, &acts), all = one * m->heads,
                 bytes = ht_round_up(ht_max_size(one, ht_min_size(all, ENOUGH)), 4096);
    if (bytes <= tools->room->bytes)
        return HT_OK;
    uint8_t *pages = ht_pages_alloc(bytes);
    if (!pages)
        return ht_fail(error, HT_ERROR_MEMORY, "cpu: no memory for activations of %zu tokens", tools->max_tokens);
    if (tools->room->pages)
        ht_pages_free(tools->room->pages, tools->room->bytes);
    *tools->room = (ht_experts_room){pages, bytes};
    return HT_OK;
}

ht_status ht_heads_prepare(const ht_cpu_tools *tools, const ht_op *op, ht_head_matrices **out, ht_error *error) {
    ht_head_matrices *m;
    ht_status status = ht_alloc((void **)&m, sizeof *m + (size_t)op->heads * sizeof *m->packed, 1, op->name, error);
    if (status)
        return status;
    m->op = op;
    status = pack(tools, m, error);
    if (!status)
        status = reserve(tools, m, error);
    if (status)
        ht_heads_release(m);
    else
        *out = m;
    return status;
}

void ht_heads_release(ht_head_matrices *m) {
    for (size_t h = 0; m && h < m->heads; h++)
        ht_packed_free(&m->packed[h]);
    free(m);
}

size_t ht_heads_bytes(const ht_head_matrices *m) {
    return m ? m->bytes : 0;
}

/* ---- running
 * ---------------------------------------------------------------------------------------------------------------- */

typedef struct run_job {
    const ht_cpu_tools *tools;
    const ht_head_matrices *matrices;
    const ht_binding *binding;
    size_t first, count; /* heads that are computed at once */
    size_t bytes, tiles; /* of a head's activations; of the tokens */
    bool copies;
} run_job;

static float *row_of(const ht_binding *b, ht_slot slot, size_t t) {
    return (float *)b->slots[slot].data + t * b->slots[slot].stride;
}

/* Values that are handed on as they are, of a head or (`behind`) of the row. */
static void copy_rest(const run_job *job, size_t head, size_t t, bool behind) {
    const ht_op *op = job->matrices->op;
    const size_t rows = rows_of(op), rest = (size_t)op->rest, width = (size_t)op->head_dim;
    const float *in = row_of(job->binding, op->in, t);
    float *out = row_of(job->binding, op->out, t);
    memcpy(out + head * (rows + rest) + rows, in + head * width + op->parts[0].cols, rest * sizeof *out);
    if (!behind)
        return;
    const float *from =
        op->n_more ? row_of(job->binding, op->more[0], t) + op->more_first : in + job->matrices->heads * width;
    memcpy(out + job->matrices->heads * (rows + rest), from, op->n_copied * sizeof *out);
}

static void acts_item(void *context, size_t item, int thread) {
    const run_job *job = context;
    const ht_cpu_tools *tools = job->tools;
    const ht_op *op = job->matrices->op;
    const size_t at = item / job->tiles, head = job->first + at, tile = tools->kernels->tile,
                 begin = item % job->tiles * tile, n = ht_min_size(tile, job->binding->tokens - begin),
                 stride = job->binding->slots[op->in].stride;
    const float *x = row_of(job->binding, op->in, 0) + head * (size_t)op->head_dim;
    ht_acts acts;
    lay_out(tools, job->matrices, job->binding->tokens, tools->room->pages + at * job->bytes, &acts);
    const float *rows[HT_MAX_TILE];
    for (size_t i = 0; i < n; i++)
        rows[i] = x + (begin + i) * stride;
    if (acts.floats)
        tools->kernels->pack_floats(rows, op->parts[0].cols, item % job->tiles, &acts);
    else
        tools->kernels->quantize(x, stride, op->parts[0].cols, begin, n, &acts);
    for (size_t t = begin; t < begin + n; t++)
        copy_rest(job, head, t, job->copies && at == 0);
}

static void strip_item(void *context, size_t item, int thread) {
    const run_job *job = context;
    const ht_cpu_tools *tools = job->tools;
    const ht_head_matrices *m = job->matrices;
    const size_t strips = m->packed[0].strips, at = item / strips, head = job->first + at;
    ht_acts acts;
    lay_out(tools, m, job->binding->tokens, tools->room->pages + at * job->bytes, &acts);
    float *y = row_of(job->binding, m->op->out, 0) + head * (rows_of(m->op) + (size_t)m->op->rest);
    void (*const strip)(const ht_packed *, size_t, const ht_acts *, float *, size_t, float *) =
        acts.floats ? tools->kernels->strip_exact : tools->kernels->strip_fast;
    strip(&m->packed[head], item % strips, &acts, y, job->binding->slots[m->op->out].stride,
          tools->scratch + (size_t)thread * tools->scratch_floats);
}

void ht_heads_run(const ht_cpu_tools *tools, const ht_head_matrices *m, const ht_heads *own,
                  const ht_binding *binding) {
    ht_acts acts;
    const size_t tokens = binding->tokens, tile = tools->kernels->tile;
    run_job job = {.tools = tools,
                   .matrices = m,
                   .binding = binding,
                   .first = own->queries,
                   .bytes = lay_out(tools, m, tokens, NULL, &acts),
                   .tiles = (tokens + tile - 1) / tile,
                   .copies = own->own < own->used_end && m->op->n_copied > 0};
    const size_t at_once = ht_max_size(tools->room->bytes / job.bytes, 1);
    for (; job.first < own->queries_end; job.first += job.count, job.copies = false) {
        job.count = ht_min_size(at_once, own->queries_end - job.first);
        ht_pool_run(tools->pool, acts_item, &job, job.count * job.tiles, 1);
        ht_pool_run(tools->pool, strip_item, &job, job.count * m->packed[0].strips, 1);
    }
}
