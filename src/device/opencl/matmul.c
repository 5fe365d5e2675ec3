/* MATMUL on OpenCL: kernels built, weights packed as matmul.cl wants them, launches. */
#include "device/opencl/opencl.h"

#if HT_HAVE_OPENCL
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 16 /* rows interleaved by the kernels */

extern const char ht_cl_source_matmul[]; /* embedded */

static ht_status build(ht_cl_device *d, int bits, bool several, ht_error *error) {
    ht_cl_kernels *k = &d->kernels[bits == 8][several];
    const ht_cl *cl = d->cl;
    if (k->group_sums)
        return HT_OK; /* what is made last */
    const char *name = d->caps.name, *source = ht_cl_source_matmul;
    cl_int code = CL_SUCCESS;
    if (!k->program)
        k->program = cl->CreateProgramWithSource(d->context, 1, &source, NULL, &code);
    ht_status status = ht_cl_check(code, name, "clCreateProgramWithSource", error);
    if (status != HT_OK)
        return status;
    char options[96];
    snprintf(options, sizeof options, "-cl-std=CL1.2 -cl-mad-enable -DBITS=%d -DTILE=%u", bits,
             several ? d->variant->tile : 1);
    code = cl->BuildProgram(k->program, 1, &d->id, options, NULL, NULL);
    if (code != CL_SUCCESS) {
        char log[4096] = "";
        cl->GetProgramBuildInfo(k->program, d->id, CL_PROGRAM_BUILD_LOG, sizeof log - 1, log, NULL);
        ht_log(HT_LOG_ERROR, "%s: matmul.cl (%s) does not build:\n%s", name, options, log);
        return ht_fail(error, HT_ERROR_DEVICE, "%s: clBuildProgram(matmul.cl, %s) failed: %s (%d): %.*s", name, options,
                       ht_cl_error_name(code), (int)code, (int)strcspn(log, "\n"), log);
    }
    if (!k->matmul)
        k->matmul = cl->CreateKernel(k->program, "matmul", &code);
    status = ht_cl_check(code, name, "clCreateKernel(matmul)", error);
    if (status != HT_OK)
        return status;
    k->group_sums = cl->CreateKernel(k->program, "group_sums", &code);
    return ht_cl_check(code, name, "clCreateKernel(group_sums)", error);
}

/* Codes [BLOCK][cols] to the kernels' order (matmul.cl): one block of rows. */
static void pack_block(const int8_t *codes, size_t cols, int bits, uint8_t *out) {
    for (size_t c = 0; c < cols; c += HT_GROUP)
        for (size_t j = 0; j < (bits == 4 ? 16 : 32); j++)
            for (size_t r = 0; r < BLOCK; r++) {
                const int8_t *code = codes + r * cols + c + j;
                *out++ = bits == 4 ? (uint8_t)((code[0] + 8) | (code[16] + 8) << 4) : (uint8_t)code[0];
            }
}

/* [BLOCK][groups] to [groups][BLOCK] */
static void pack_scales(const float *in, size_t groups, float *out) {
    for (size_t g = 0; g < groups; g++)
        for (size_t r = 0; r < BLOCK; r++)
            out[g * BLOCK + r] = in[r * groups + g];
}

/* The weights of the task into mapped[]: codes, scales, offsets or NULL, bias. */
static ht_status pack(const ht_task *task, void *const mapped[4], ht_error *error) {
    size_t groups = task->groups, cols = groups * HT_GROUP;
    size_t block_bytes = BLOCK * cols * (size_t)task->form.bits / 8;
    int8_t *codes;
    ht_status status = ht_alloc((void **)&codes, BLOCK * (cols + 2 * groups * sizeof(float)), 1, task->op->name, error);
    if (status != HT_OK)
        return status;
    float *scales = (float *)(codes + BLOCK * cols), *offsets = scales + BLOCK * groups;
    for (size_t row = 0; row < task->rows; row += BLOCK) {
        size_t n = ht_min_size(BLOCK, task->rows - row), block = row / BLOCK;
        ht_op_codes(task->op, task->slice.row_begin + row, n, codes, scales, offsets);
        if (n < BLOCK) { /* rows past the slice: zero */
            memset(codes + n * cols, 0, (BLOCK - n) * cols);
            memset(scales + n * groups, 0, (BLOCK - n) * groups * sizeof(float));
            memset(offsets + n * groups, 0, (BLOCK - n) * groups * sizeof(float));
        }
        pack_block(codes, cols, task->form.bits, (uint8_t *)mapped[0] + block * block_bytes);
        pack_scales(scales, groups, (float *)mapped[1] + block * BLOCK * groups);
        if (mapped[2])
            pack_scales(offsets, groups, (float *)mapped[2] + block * BLOCK * groups);
    }
    memset(mapped[3], 0, ht_round_up(task->rows, BLOCK) * sizeof(float));
    ht_op_bias(task->op, task->slice.row_begin, task->rows, mapped[3]);
    free(codes);
    return HT_OK;
}

/* Makes the task's buffers and fills them in place. */
static ht_status upload(ht_cl_device *d, ht_task *task, ht_error *error) {
    size_t rows = ht_round_up(task->rows, BLOCK), scale_bytes = rows * task->groups * sizeof(float);
    const struct {
        cl_mem *memory;
        size_t bytes;
    } buffers[4] = {{&task->codes, rows * task->groups * HT_GROUP * (size_t)task->form.bits / 8},
                    {&task->scales, scale_bytes},
                    {&task->offsets, task->form.offset ? scale_bytes : 0},
                    {&task->bias, rows * sizeof(float)}};
    void *mapped[4] = {NULL};
    ht_status status = HT_OK;
    for (size_t i = 0; i < 4 && status == HT_OK; i++) {
        if (!buffers[i].bytes)
            continue;
        cl_int code;
        *buffers[i].memory = d->cl->CreateBuffer(d->context, CL_MEM_READ_ONLY, buffers[i].bytes, NULL, &code);
        status = ht_cl_check(code, d->caps.name, "clCreateBuffer", error);
        if (status != HT_OK)
            break;
        mapped[i] = d->cl->EnqueueMapBuffer(d->queue, *buffers[i].memory, CL_TRUE, CL_MAP_WRITE_INVALIDATE_REGION, 0,
                                            buffers[i].bytes, 0, NULL, NULL, &code);
        status = ht_cl_check(code, d->caps.name, "clEnqueueMapBuffer", error);
        task->bytes += buffers[i].bytes;
    }
    if (status == HT_OK)
        status = pack(task, mapped, error);
    for (size_t i = 0; i < 4; i++) {
        if (!mapped[i])
            continue;
        cl_int code = d->cl->EnqueueUnmapMemObject(d->queue, *buffers[i].memory, mapped[i], 0, NULL, NULL);
        if (status == HT_OK)
            status = ht_cl_check(code, d->caps.name, "clEnqueueUnmapMemObject", error);
    }
    return status;
}

void ht_cl_matmul_release(ht_device *device, ht_task *task) {
    ht_cl_device *d = (ht_cl_device *)device;
    if (!task)
        return;
    cl_mem memory[] = {task->codes, task->scales, task->offsets, task->bias};
    for (size_t i = 0; i < HT_COUNT(memory); i++)
        if (memory[i])
            d->cl->ReleaseMemObject(memory[i]);
    free(task);
}

ht_status ht_cl_matmul_prepare(ht_device *device, const ht_op *op, const ht_slice *slice, ht_task **out,
                               ht_error *error) {
    ht_cl_device *d = (ht_cl_device *)device;
    ht_form form;
    const char *why = ht_slice_form(op, slice, &form);
    if (why)
        return ht_fail(error, HT_ERROR_UNSUPPORTED, "%s: %s: %s", d->caps.name, op->name, why);
    ht_status status = build(d, form.bits, false, error);
    if (status == HT_OK && d->max_tokens > 1)
        status = build(d, form.bits, true, error);
    ht_task *task = NULL;
    if (status == HT_OK)
        status = ht_alloc((void **)&task, 1, sizeof *task, op->name, error);
    if (status != HT_OK)
        return status;
    *task = (ht_task){.op = op,
                      .slice = *slice,
                      .form = form,
                      .rows = (cl_uint)(slice->row_end - slice->row_begin),
                      .groups = (cl_uint)(op->parts[0].cols / HT_GROUP)};
    size_t sums_bytes = d->max_tokens * task->groups * sizeof(float);
    if (form.offset && sums_bytes > d->sums_bytes) {
        cl_int code;
        cl_mem grown = d->cl->CreateBuffer(d->context, CL_MEM_READ_WRITE, sums_bytes, NULL, &code);
        status = ht_cl_check(code, d->caps.name, "clCreateBuffer", error);
        if (status == HT_OK) {
            if (d->sums)
                d->cl->ReleaseMemObject(d->sums); /* commands in flight hold their own reference */
            d->sums = grown;
            d->sums_bytes = sums_bytes;
        }
    }
    if (status == HT_OK)
        status = upload(d, task, error);
    if (status != HT_OK)
        ht_cl_matmul_release(device, task);
    else
        *out = task;
    return status;
}

typedef struct argument {
    size_t bytes;
    const void *value;
} argument;

static ht_status launch(ht_cl_device *d, cl_kernel kernel, const char *what, const argument *arguments, size_t n,
                        const size_t global[2], const size_t *local, cl_event *event, ht_error *error) {
    cl_int code = CL_SUCCESS;
    for (size_t i = 0; i < n && code == CL_SUCCESS; i++)
        code = d->cl->SetKernelArg(kernel, (cl_uint)i, arguments[i].bytes, arguments[i].value);
    ht_status status = ht_cl_check(code, d->caps.name, "clSetKernelArg", error);
    if (status != HT_OK)
        return status;
    code = d->cl->EnqueueNDRangeKernel(d->queue, kernel, 2, NULL, global, local, 0, NULL, event);
    status = ht_cl_check(code, d->caps.name, "clEnqueueNDRangeKernel", error);
    return status == HT_OK ? HT_OK : ht_error_prefix(error, "%s", what);
}

#define ARGUMENT(x) \
    { sizeof(x), &(x) }
ht_status ht_cl_matmul_enqueue(ht_cl_device *d, ht_task *task, const ht_cl_place *in, const ht_cl_place *out,
                               cl_uint tokens, cl_event *event, ht_error *error) {
    const ht_cl_kernels *k = &d->kernels[task->form.bits == 8][tokens > 1];
    cl_uint in_stride = (cl_uint)in->stride, out_stride = (cl_uint)out->stride, has_offset = task->form.offset;
    cl_mem offsets = has_offset ? task->offsets : task->scales,
           sums = has_offset ? d->sums : task->scales; /* not read */
    if (has_offset) {
        const argument arguments[] = {ARGUMENT(in->region->memory), ARGUMENT(in->offset), ARGUMENT(in_stride),
                                      ARGUMENT(sums), ARGUMENT(task->groups)};
        size_t global[2] = {task->groups, tokens};
        ht_status status =
            launch(d, k->group_sums, task->op->name, arguments, HT_COUNT(arguments), global, NULL, NULL, error);
        if (status != HT_OK)
            return status;
    }
    const argument arguments[] = {
        ARGUMENT(task->codes),         ARGUMENT(task->scales), ARGUMENT(offsets),    ARGUMENT(task->bias),
        ARGUMENT(in->region->memory),  ARGUMENT(in->offset),   ARGUMENT(in_stride),  ARGUMENT(sums),
        ARGUMENT(out->region->memory), ARGUMENT(out->offset),  ARGUMENT(out_stride), ARGUMENT(task->rows),
        ARGUMENT(task->groups),        ARGUMENT(tokens),       ARGUMENT(has_offset)};
    size_t tile = tokens > 1 ? d->variant->tile : 1, local[2] = {d->variant->local_rows, 1};
    size_t global[2] = {ht_round_up(ht_round_up(task->rows, BLOCK) / BLOCK, local[0]), (tokens + tile - 1) / tile};
    return launch(d, k->matmul, task->op->name, arguments, HT_COUNT(arguments), global, local, event, error);
}

#else
typedef int ht_cl_matmul_is_empty; /* ISO C wants something in every file */
#endif
