/* The profile: what devices do best, measured. So far the choice among a device's kernels, shape by shape. */
#include "device/device.h"
#include "model/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_TASKS 64             /* of one shape */
#define ENOUGH_BYTES (256u << 20) /* of weights of one shape: more than caches hold */

static const size_t all_lengths[] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512};
static const size_t quick_lengths[] = {1, 64, 256};

typedef struct profiler {
    const ht_model *model;
    const ht_profile_options *options;
    ht_profile_result *result;
    size_t capacity; /* of result->rows */
    const size_t *lengths;
    size_t n_lengths, done, total;
    ht_device *device;
} profiler;

static bool alike(const ht_op *a, const ht_op *b) {
    if (a->kind != HT_OP_MATMUL || b->kind != HT_OP_MATMUL || a->n_parts != b->n_parts)
        return false;
    for (int p = 0; p < a->n_parts; p++)
        if (a->parts[p].type != b->parts[p].type || a->parts[p].rows != b->parts[p].rows ||
            a->parts[p].cols != b->parts[p].cols || !a->bias[p] != !b->bias[p])
            return false;
    return true;
}

/* Whether ops[i] is the first MATMUL of its shape. */
static bool is_first(const ht_model *model, size_t i) {
    if (model->ops[i].kind != HT_OP_MATMUL)
        return false;
    for (size_t j = 0; j < i; j++)
        if (alike(&model->ops[j], &model->ops[i]))
            return false;
    return true;
}

/* The head computes one token at a time. */
static size_t lengths_of(const profiler *p, const ht_op *op) {
    return op->out == HT_SLOT_LOGITS ? 1 : p->n_lengths;
}

static ht_status add_row(profiler *p, const ht_op *op, size_t tokens, const ht_tuned *found, ht_error *error) {
    ht_profile_result *result = p->result;
    ht_status status =
        ht_grow((void **)&result->rows, &p->capacity, result->n + 1, sizeof *result->rows, "the profile", error);
    if (status)
        return status;
    ht_profile_row *row = &result->rows[result->n++];
    *row = (ht_profile_row){.rows = ht_op_rows(op),
                            .cols = ht_op_cols(op),
                            .tokens = tokens,
                            .seconds = found->seconds,
                            .by_rule = found->by_rule,
                            .tried = found->tried};
    snprintf(row->device, sizeof row->device, "%s", p->device->ops->caps(p->device)->name);
    snprintf(row->op, sizeof row->op, "%s", op->name);
    snprintf(row->kernel, sizeof row->kernel, "%s", found->kernel);
    snprintf(result->path, sizeof result->path, "%s", found->path);
    return HT_OK;
}

static ht_status profile_shape(profiler *p, size_t first, ht_error *error) {
    const ht_device_ops *ops = p->device->ops;
    const ht_op *op = &p->model->ops[first];
    const ht_slice whole = {.row_end = ht_op_rows(op), .reduction_end = ht_op_cols(op)};
    ht_task *tasks[MOST_TASKS];
    size_t n = 0, bytes = 0;
    ht_status status = HT_OK;
    if (ops->refuses && ops->refuses(p->device, op, &whole)) {
        p->done += lengths_of(p, op);
        return HT_OK;
    }
    for (size_t i = first; i < p->model->n_ops && n < MOST_TASKS && bytes < ENOUGH_BYTES && !status; i++) {
        if (!alike(op, &p->model->ops[i]))
            continue;
        status = ops->prepare(p->device, &p->model->ops[i], &whole, &tasks[n], error);
        if (!status)
            bytes += ops->task_bytes(tasks[n++]);
    }
    for (size_t i = 0; i < lengths_of(p, op) && !status; i++) {
        ht_tuned found;
        status = ops->tune(p->device, tasks, n, p->lengths[i], &found, error);
        if (!status && found.tried)
            status = add_row(p, op, p->lengths[i], &found, error);
        p->done++;
        if (!status && p->options->progress &&
            !p->options->progress("profiling", (double)p->done, (double)p->total, p->options->progress_user))
            status = ht_fail(error, HT_ERROR_CANCELLED, "profiling was stopped");
    }
    while (n)
        ops->release(p->device, tasks[--n]);
    return status;
}

static ht_status profile_device(profiler *p, const char *spec, bool asked, ht_error *error) {
    const ht_device_options options = {.precision = p->options->precision,
                                       .hparams = &p->model->hparams,
                                       .max_tokens = p->lengths[p->n_lengths - 1],
                                       .max_context = 64,
                                       .progress = p->options->progress,
                                       .progress_user = p->options->progress_user};
    ht_status status = ht_device_open(spec, &options, &p->device, error);
    if (status)
        return status;
    if (p->device->ops->tune) {
        for (size_t i = 0; i < p->model->n_ops; i++)
            p->total += is_first(p->model, i) ? lengths_of(p, &p->model->ops[i]) : 0;
        for (size_t i = 0; i < p->model->n_ops && !status; i++)
            if (is_first(p->model, i))
                status = profile_shape(p, i, error);
    } else if (asked)
        ht_log(HT_LOG_WARN, "%s: nothing to measure: it does everything in one way", spec);
    p->device->ops->close(p->device);
    return status;
}

ht_status ht_profile(const ht_model *model, const ht_profile_options *options, ht_profile_result *result,
                     ht_error *error) {
    *result = (ht_profile_result){0};
    profiler p = {.model = model,
                  .options = options,
                  .result = result,
                  .lengths = options->quick ? quick_lengths : all_lengths,
                  .n_lengths = options->quick ? HT_COUNT(quick_lengths) : HT_COUNT(all_lengths)};
    ht_status status = HT_OK;
    if (options->devices && *options->devices) {
        const char *list = options->devices;
        char spec[256];
        while (!status && ht_device_next(&list, spec))
            status = profile_device(&p, spec, true, error);
        return status;
    }
    ht_device_info *found;
    size_t n;
    if ((status = ht_devices_list(&found, &n, error)))
        return status;
    for (size_t i = 0; i < n && !status; i++)
        if (found[i].usable)
            status = profile_device(&p, found[i].name, false, error);
    ht_free(found);
    return status;
}

void ht_profile_result_clear(ht_profile_result *result) {
    free(result->rows);
    *result = (ht_profile_result){0};
}
