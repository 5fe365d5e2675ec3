/* Packing of matrices for the kernels: codec.clh tells the layouts. Rows are unpacked from the file a few blocks at a time
 * and written to the device piece by piece, so that no second copy of a matrix ever exists on the host. */
#include "device/opencl/memory.h"
#include "device/opencl/weights.h"

#if HT_HAVE_OPENCL
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PIECE_BYTES ((size_t)4 << 20) /* of codes written at once, or one block of rows where that is more */

/* ---- forms ----------------------------------------------------------------------------------------------------------- */

/* Whether a format's scale, and its minimum where it has one, is an fp16 number of the file. Then fp16 gives the file's
 * own number back: scales come through unchanged. The minimum of Q4_1 went through offset = min + 8 scale, rounded to
 * float32 (quant.h), and is found again by rounding offset - 8 scale to fp16, unless |min| < |scale| / 512 and then it
 * errs by less than 2^-21 |scale|, as the float32 offset itself may. */
static bool has_half_scales(ht_type type) {
    return type == HT_TYPE_Q4_0 || type == HT_TYPE_Q4_1 || type == HT_TYPE_Q5_0 || type == HT_TYPE_Q8_0 ||
           type == HT_TYPE_IQ4_NL || type == HT_TYPE_TQ1_0 || type == HT_TYPE_TQ2_0 || type == HT_TYPE_Q1_0 ||
           type == HT_TYPE_Q2_0;
}

ht_cl_form ht_cl_form_of(const ht_type_traits *type) {
    if (type->group) /* four bits with scales of 16 columns would have two scales in a byte */
        return (ht_cl_form){type->bits == 4 && type->group == 32 ? 4 : 8, type->group, has_half_scales(type->type),
                            type->offset};
    return (ht_cl_form){type->type == HT_TYPE_BF16 ? 17 : type->bits, 0, false, false};
}

bool ht_cl_same_form(const ht_cl_form *a, const ht_cl_form *b) {
    return a->bits == b->bits && a->group == b->group && a->half_scales == b->half_scales && a->mins == b->mins;
}

void ht_cl_form_options(const ht_cl_form *form, char *out, size_t capacity) {
    snprintf(out, capacity, "-DBITS=%d -DGROUP=%d -DHALF_SCALES=%d -DMINS=%d", form->bits,
             form->group ? form->group : 32, form->half_scales, form->mins);
}

/* Bytes of the codes of 32 columns of a row: ROW_BYTES of codec.clh. */
static size_t row_bytes(const ht_cl_form *form) {
    return form->bits == 4 ? 16 : form->bits == 8 ? 32 : form->bits == 32 ? 128 : 64;
}

/* ---- shared buffers -------------------------------------------------------------------------------------------------- */

/* The buffer of (host, kind) with one more user, or NULL. */
static cl_mem find_shared(ht_cl_device *d, const void *host, uint64_t kind) {
    for (size_t i = 0; i < d->n_shared; i++)
        if (d->shared[i].host == host && d->shared[i].kind == kind) {
            d->shared[i].users++;
            return d->shared[i].memory;
        }
    return NULL;
}

/* Hands `memory` to the list, with one user. On failure it still belongs to the caller. */
static ht_status add_shared(ht_cl_device *d, const void *host, uint64_t kind, cl_mem memory, size_t bytes,
                            ht_error *error) {
    ht_status status =
        ht_grow((void **)&d->shared, &d->cap_shared, d->n_shared + 1, sizeof *d->shared, "shared buffers", error);
    if (status == HT_OK)
        d->shared[d->n_shared++] = (ht_cl_shared){host, kind, memory, bytes, 1};
    return status;
}

ht_status ht_cl_share(ht_cl_device *d, const void *host, uint64_t kind, const void *data, size_t bytes,
                      const char *what, cl_mem *memory, ht_error *error) {
    cl_mem made = find_shared(d, host, kind);
    if (!made) {
        ht_status status = ht_cl_upload(d, data, bytes, what, &made, error);
        if (status != HT_OK)
            return status;
        if ((status = add_shared(d, host, kind, made, bytes, error)) != HT_OK) {
            ht_cl_drop(d, made);
            return status;
        }
    }
    *memory = made;
    return HT_OK;
}

void ht_cl_unshare(ht_cl_device *d, cl_mem memory) {
    if (!memory)
        return;
    for (size_t i = 0; i < d->n_shared; i++)
        if (d->shared[i].memory == memory) {
            if (--d->shared[i].users > 0)
                return;
            d->shared[i] = d->shared[--d->n_shared];
            break;
        }
    ht_cl_drop(d, memory);
}

/* ---- packing --------------------------------------------------------------------------------------------------------- */

enum { CODES, SCALES, MINS, BUFFERS };

typedef struct packer {
    const ht_op *op;
    ht_cl_form form;
    bool vector;                 /* the layout */
    size_t row, n, col, cols;    /* what is packed, of the operator's rows and columns */
    size_t groups, factors;      /* of a row: groups of 32 columns, scales */
    size_t block_bytes[BUFFERS]; /* of one block of rows */
    void *space;                 /* one allocation, that holds all of these: */
    uint8_t *lines;              /* [HT_CL_BLOCK][groups * row_bytes]: codes, row after row */
    float *floats;               /* canonical: a row's scales and offsets; floats of a made-up row */
    int8_t *codes;               /* canonical, a row's */
    const ht_matrix *bad;        /* of a row that nothing is computed with; NULL: none yet */
    size_t bad_row;
    uint8_t *pieces[BUFFERS]; /* as the device gets them */
} packer;

static void put_factor(const packer *k, uint8_t *block, size_t factor, size_t r, float value) {
    const size_t at = factor * HT_CL_BLOCK + r;
    if (k->form.half_scales) {
        const uint16_t half = ht_f32_to_f16(value);
        memcpy(block + at * 2, &half, 2);
    } else
        memcpy(block + at * 4, &value, 4);
}

static void note_bad(packer *k, const ht_matrix *m, size_t row, const float *scales, const float *offsets) {
    if (!k->bad && ht_matrix_is_bad(m, row, scales, offsets))
        k->bad = m, k->bad_row = row;
}

/* Codes of one quantised row to line[], its scales and minimums to lane r of factors[]. */
static void pack_coded_row(packer *k, const ht_matrix *m, size_t row, size_t r, uint8_t *line,
                           uint8_t *const factors[BUFFERS]) {
    const size_t group = (size_t)k->form.group, all = m->cols / group, first = k->col / group;
    float *scales = k->floats, *offsets = k->floats + all;
    ht_matrix_codes(m, row, 1, k->codes, scales, k->form.mins ? offsets : NULL);
    note_bad(k, m, row, scales, k->form.mins ? offsets : NULL);
    const int8_t *codes = k->codes + k->col;
    if (k->form.bits == 4)
        for (size_t g = 0; g < k->groups; g++, codes += 32, line += 16)
            for (size_t j = 0; j < 16; j++)
                line[j] = (uint8_t)((codes[j] + 8) | (codes[j + 16] + 8) << 4);
    else
        memcpy(line, codes, k->cols);
    const float bias = k->form.bits == 4 ? 8 : 0; /* what stored codes have more than canonical ones */
    for (size_t f = 0; f < k->factors; f++) {
        put_factor(k, factors[SCALES], f, r, scales[first + f]);
        if (k->form.mins)
            put_factor(k, factors[MINS], f, r, offsets[first + f] - bias * scales[first + f]);
    }
}

static void pack_float_row(packer *k, const ht_matrix *m, size_t row, uint8_t *line) {
    const size_t size = k->form.bits == 32 ? 4 : 2;
    note_bad(k, m, row, NULL, NULL);
    if (m->data) {
        memcpy(line, ht_matrix_row(m, row) + k->col * size, k->cols * size);
        return;
    }
    ht_matrix_floats(m, row, 1, k->floats);
    for (size_t c = 0; c < k->cols; c++) {
        const float value = k->floats[k->col + c];
        uint32_t bits;
        memcpy(&bits, &value, 4);
        const uint16_t half = k->form.bits == 16 ? ht_f32_to_f16(value) : (uint16_t)(bits >> 16); /* both exact */
        memcpy(line + c * size, size == 4 ? (const void *)&bits : &half, size);
    }
}

/* out[unit][r] = lines[r][unit], units of `size` bytes. A constant size lets the compiler do without calls. */
static inline void interleave(const uint8_t *restrict lines, size_t line_bytes, size_t size, uint8_t *restrict out) {
    for (size_t at = 0; at < line_bytes; at += size)
        for (size_t r = 0; r < HT_CL_BLOCK; r++, out += size)
            memcpy(out, lines + r * line_bytes + at, size);
}

/* Block number `block` of the packed rows to its place in the pieces. */
static void pack_block(packer *k, size_t block, size_t place) {
    uint8_t *to[BUFFERS];
    for (int i = 0; i < BUFFERS; i++) {
        to[i] = k->pieces[i] + place * k->block_bytes[i];
        memset(to[i], 0, k->block_bytes[i]);
    }
    const size_t line_bytes = k->groups * row_bytes(&k->form);
    memset(k->lines, 0, HT_CL_BLOCK * line_bytes);
    for (size_t r = 0; r < HT_CL_BLOCK && block * HT_CL_BLOCK + r < k->n; r++) {
        size_t row;
        const ht_matrix *m = &k->op->parts[ht_op_part(k->op, k->row + block * HT_CL_BLOCK + r, &row)];
        if (k->form.group)
            pack_coded_row(k, m, row, r, k->lines + r * line_bytes, to);
        else
            pack_float_row(k, m, row, k->lines + r * line_bytes);
    }
    if (!k->vector)
        interleave(k->lines, line_bytes, 16, to[CODES]);
    else if (k->form.bits == 32)
        interleave(k->lines, line_bytes, 4, to[CODES]);
    else if (k->form.bits >= 16)
        interleave(k->lines, line_bytes, 2, to[CODES]);
    else
        interleave(k->lines, line_bytes, 1, to[CODES]);
}

static ht_status packer_open(packer *k, size_t blocks_at_once, ht_error *error) {
    size_t all = 0;
    for (int p = 0; p < k->op->n_parts; p++)
        all = ht_max_size(all, k->op->parts[p].cols);
    const size_t lines = HT_CL_BLOCK * k->groups * row_bytes(&k->form), floats = 2 * all * sizeof(float);
    size_t bytes = lines + floats + ht_round_up(all, 16);
    for (int i = 0; i < BUFFERS; i++)
        bytes += blocks_at_once * k->block_bytes[i];
    ht_status status = ht_alloc(&k->space, bytes, 1, k->op->name, error);
    if (status != HT_OK)
        return status;
    k->lines = k->space;
    k->floats = (float *)(void *)(k->lines + lines);
    k->codes = (int8_t *)k->lines + lines + floats;
    k->pieces[0] = k->lines + lines + floats + ht_round_up(all, 16);
    for (int i = 1; i < BUFFERS; i++)
        k->pieces[i] = k->pieces[i - 1] + blocks_at_once * k->block_bytes[i - 1];
    return HT_OK;
}

/* Packs everything and writes it to memory[]; buffers of no bytes are not there. */
static ht_status pack(ht_cl_device *d, packer *k, const cl_mem memory[BUFFERS], ht_error *error) {
    const size_t blocks = (k->n + HT_CL_BLOCK - 1) / HT_CL_BLOCK;
    const size_t at_once = ht_min_size(blocks, ht_max_size(1, PIECE_BYTES / k->block_bytes[CODES]));
    ht_status status = packer_open(k, at_once, error);
    for (size_t block = 0; block < blocks && status == HT_OK; block += at_once) {
        const size_t n = ht_min_size(at_once, blocks - block);
        for (size_t i = 0; i < n; i++)
            pack_block(k, block + i, i);
        if (k->bad)
            status = ht_matrix_refuse(k->bad, k->bad_row, error);
        for (int i = 0; i < BUFFERS && status == HT_OK; i++) {
            const size_t bytes = k->block_bytes[i];
            if (!bytes)
                continue;
            cl_int code = d->cl->EnqueueWriteBuffer(d->queue, memory[i], CL_TRUE, block * bytes, n * bytes,
                                                    k->pieces[i], 0, NULL, NULL);
            status = ht_cl_check(code, d->caps.name, "clEnqueueWriteBuffer", error);
        }
    }
    free(k->space);
    return status;
}

/* ---- a task's weights ------------------------------------------------------------------------------------------------ */

/* What tells two packings of one matrix apart. 64 bits: no two of a few thousand are ever equal. */
static uint64_t kind_of(const packer *k, size_t row, int which) {
    const uint64_t words[] = {row, k->n, k->col, k->cols, (uint64_t)which + 1};
    return ht_hash(HT_HASH_START, words, sizeof words);
}

/* Buffers of one matrix's rows are shared by the tasks that read the same (a tied head and its embedding). `shared`: all
 * were there already. */
static ht_status make_buffers(ht_cl_device *d, const packer *k, cl_mem memory[BUFFERS], bool *shared, size_t *bytes,
                              ht_error *error) {
    static const char *const what[] = {"weights", "scales", "minimums"};
    const size_t blocks = (k->n + HT_CL_BLOCK - 1) / HT_CL_BLOCK;
    size_t row, end;
    const int part = ht_op_part(k->op, k->row, &row);
    const ht_matrix *m = &k->op->parts[part];
    const void *host = m->data ? (const void *)m->data : m->name; /* made-up weights follow from the name */
    const bool one_part = part == ht_op_part(k->op, k->row + k->n - 1, &end);
    *shared = one_part;
    ht_status status = HT_OK;
    for (int i = 0; i < BUFFERS && status == HT_OK; i++) {
        const size_t size = blocks * k->block_bytes[i];
        if (!size)
            continue;
        if (one_part && (memory[i] = find_shared(d, host, kind_of(k, row, i))))
            continue;
        *shared = false;
        status = ht_cl_buffer(d, size, CL_MEM_READ_ONLY, what[i], &memory[i], error);
        if (status == HT_OK && one_part)
            status = add_shared(d, host, kind_of(k, row, i), memory[i], size, error);
        *bytes += size;
    }
    return status == HT_OK ? HT_OK : ht_error_prefix(error, status, "%s", k->op->name);
}

static ht_status make_bias(ht_cl_device *d, const packer *k, cl_mem *memory, size_t *bytes, ht_error *error) {
    float *bias = NULL;
    const size_t padded = ht_round_up(k->n, HT_CL_BLOCK);
    for (size_t r = 0; r < k->n; r++) {
        size_t row;
        const int part = ht_op_part(k->op, k->row + r, &row);
        if (!k->op->bias[part])
            continue;
        if (!bias) {
            ht_status status = ht_alloc((void **)&bias, padded, sizeof *bias, k->op->name, error);
            if (status != HT_OK)
                return status;
        }
        bias[r] = k->op->bias[part][row];
    }
    if (!bias)
        return HT_OK;
    ht_status status = ht_cl_upload(d, bias, padded * sizeof *bias, "bias", memory, error);
    free(bias);
    *bytes += padded * sizeof *bias;
    return status;
}

ht_status ht_cl_weights_create(ht_cl_device *d, const ht_op *op, size_t row, size_t n, size_t col, size_t cols,
                               ht_cl_weights *weights, ht_error *error) {
    size_t local;
    packer k = {.op = op, .row = row, .n = n, .col = col, .cols = cols, .vector = d->features & HT_CL_VECTOR};
    k.form = ht_cl_form_of(op->parts[ht_op_part(op, row, &local)].type);
    k.groups = (cols + 31) / 32;
    k.block_bytes[CODES] = HT_CL_BLOCK * k.groups * row_bytes(&k.form);
    if (k.form.group) {
        k.factors = k.groups * 32 / (size_t)k.form.group;
        k.block_bytes[SCALES] = HT_CL_BLOCK * k.factors * (k.form.half_scales ? 2 : 4);
        k.block_bytes[MINS] = k.form.mins ? k.block_bytes[SCALES] : 0;
    }
    *weights = (ht_cl_weights){.form = k.form, .rows = (cl_uint)n, .cols = (cl_uint)cols};
    cl_mem memory[BUFFERS] = {NULL};
    bool shared = false;
    ht_status status = make_buffers(d, &k, memory, &shared, &weights->bytes, error);
    weights->codes = memory[CODES], weights->scales = memory[SCALES], weights->mins = memory[MINS];
    if (status == HT_OK && !shared)
        status = pack(d, &k, memory, error);
    if (status == HT_OK && col == 0)
        status = make_bias(d, &k, &weights->bias, &weights->bytes, error);
    if (status != HT_OK)
        ht_cl_weights_release(d, weights);
    return status;
}

void ht_cl_weights_release(ht_cl_device *d, ht_cl_weights *weights) {
    ht_cl_unshare(d, weights->codes);
    ht_cl_unshare(d, weights->scales);
    ht_cl_unshare(d, weights->mins);
    ht_cl_unshare(d, weights->bias);
    *weights = (ht_cl_weights){0};
}

#define SHARED_TABLE 1 /* `kind` of buffers made from plain arrays of floats */

ht_status ht_cl_table(ht_cl_device *d, ht_task *task, size_t which, const float *values, size_t n, ht_error *error) {
    return values ? ht_cl_share(d, values, SHARED_TABLE + n * 256, values, n * sizeof *values, task->op->name,
                                &task->tables[which], error)
                  : HT_OK;
}

#else
typedef int ht_cl_weights_is_empty; /* ISO C wants something in every file */
#endif
