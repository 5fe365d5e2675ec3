/* Launches of kernels, with the arguments that a copy of a kernel was given last. */
#include "device/opencl/kernel.h"

#if HT_HAVE_OPENCL
#include <stdlib.h>
#include <string.h>

/* The task's copy of a kernel. */
static ht_status find_copy(ht_cl_device *d, ht_task *task, cl_kernel kernel, struct ht_cl_launched **out,
                           ht_error *error) {
    for (size_t i = 0; i < task->n_launched; i++)
        if (task->launched[i].of == kernel) {
            *out = &task->launched[i];
            return HT_OK;
        }
    struct ht_cl_launched *grown = realloc(task->launched, (task->n_launched + 1) * sizeof *grown);
    if (!grown)
        return ht_fail(error, HT_ERROR_MEMORY, "%s: no memory for a kernel", task->op->name);
    task->launched = grown;
    *out = &grown[task->n_launched];
    **out = (struct ht_cl_launched){.of = kernel};
    ht_status status = ht_cl_kernel_copy(d, kernel, &(*out)->copy, error);
    task->n_launched += status == HT_OK;
    return status;
}

/* Sets those of arguments[0..n) that the kernel does not have yet. */
static ht_status set_arguments(ht_cl_device *d, cl_kernel kernel, struct ht_cl_launched *last, const char *what,
                               const ht_cl_argument *arguments, size_t n, ht_error *error) {
    if (last && last->of_drops != d->dropped)
        last->known = 0, last->of_drops = d->dropped;
    for (size_t i = 0; i < n; i++) {
        uint64_t value = 0;
        const bool keeps = last && i < HT_CL_MAX_ARGUMENTS && arguments[i].value && arguments[i].bytes <= sizeof value;
        if (keeps) {
            memcpy(&value, arguments[i].value, arguments[i].bytes);
            if (last->known >> i & 1 && last->arguments[i] == value)
                continue;
            last->known &= ~(UINT32_C(1) << i);
        }
        const cl_int code = d->cl->SetKernelArg(kernel, (cl_uint)i, arguments[i].bytes, arguments[i].value);
        if (code != CL_SUCCESS)
            return ht_fail(error, HT_ERROR_DEVICE, "%s: %s: argument %zu of its kernel: %s (%d)", d->caps.name, what, i,
                           ht_cl_error_name(code), (int)code);
        if (keeps) {
            last->arguments[i] = value;
            last->known |= UINT32_C(1) << i;
        }
    }
    return HT_OK;
}

ht_status ht_cl_launch(ht_cl_device *d, ht_task *task, cl_kernel kernel, const ht_cl_argument *arguments, size_t n,
                       const ht_cl_grid *grid, ht_error *error) {
    const char *what = task ? task->op->name : "flag";
    struct ht_cl_launched *last = NULL;
    ht_status status = task ? find_copy(d, task, kernel, &last, error) : HT_OK;
    if (last && !status)
        kernel = last->copy;
    if (!status)
        status = set_arguments(d, kernel, last, what, arguments, n, error);
    if (status)
        return status;
    cl_int code;
    cl_event event = NULL;
    code = d->cl->EnqueueNDRangeKernel(d->queue, kernel, grid->dims, NULL, grid->global, grid->local, 0, NULL,
                                       d->want_event ? &event : NULL);
    if (event) {
        if (d->last_event)
            d->cl->ReleaseEvent(d->last_event);
        d->last_event = event;
    }
    status = ht_cl_check(code, d->caps.name, "clEnqueueNDRangeKernel", error);
    return status ? ht_error_prefix(error, status, "%s", what) : HT_OK;
}

#else
typedef int ht_cl_launch_is_empty; /* ISO C wants something in every file */
#endif
