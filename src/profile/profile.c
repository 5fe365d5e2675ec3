/* The profile: what devices do, measured. Here: which devices, and the choice among a device's kernels, shape by shape; the
 * tables of times are characterise.c's. */
#include "profile/characterise.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_TASKS 64             /* of one shape */
#define SLOW_SECONDS 5e-3         /* of one run */
#define ENOUGH_BYTES (256u << 20) /* of weights of one shape: more than caches hold */

static const size_t all_lengths[] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512};
static const size_t quick_lengths[] = {1, 64, 256};

typedef struct search { /* for kernels */
    ht_profiler *p;
    ht_device *device;
    const size_t *lengths;
    size_t n_lengths, done, total;
} search;

/* Whether ops[i] is the first MATMUL of its shape. */
static bool is_first(const ht_model *model, size_t i) {
    if (model->ops[i].kind != HT_OP_MATMUL)
        return false;
    for (size_t j = 0; j < i; j++)
        if (ht_profile_alike(&model->ops[j], &model->ops[i]))
            return false;
    return true;
}

/* The head computes one token at a time. */
static size_t lengths_of(const search *s, const ht_op *op) {
    return s->p->model->slots[op->out].role == HT_ROLE_LOGITS ? 1 : s->n_lengths;
}

static ht_status add_row(search *s, const ht_op *op, size_t tokens, const ht_tuned *found, ht_error *error) {
    ht_profile_result *result = s->p->result;
    ht_status status =
        ht_grow((void **)&result->rows, &s->p->row_capacity, result->n + 1, sizeof *result->rows, "the profile", error);
    if (status)
        return status;
    ht_profile_row *row = &result->rows[result->n++];
    *row = (ht_profile_row){.rows = ht_op_rows(op),
                            .cols = ht_op_cols(op),
                            .tokens = tokens,
                            .seconds = found->seconds,
                            .by_rule = found->by_rule,
                            .tried = found->tried};
    snprintf(row->device, sizeof row->device, "%s", s->device->ops->caps(s->device)->name);
    snprintf(row->op, sizeof row->op, "%s", op->name);
    snprintf(row->kernel, sizeof row->kernel, "%s", found->kernel);
    return HT_OK;
}

static ht_status search_shape(search *s, size_t first, ht_error *error) {
    const ht_device_ops *ops = s->device->ops;
    const ht_profile_options *options = s->p->options;
    const ht_model *model = s->p->model;
    const ht_op *op = &model->ops[first];
    const ht_slice whole = {.row_end = ht_op_rows(op), .reduction_end = ht_op_cols(op)};
    ht_task *tasks[MOST_TASKS];
    size_t n = 0, bytes = 0;
    ht_status status = HT_OK;
    if (ops->refuses && ops->refuses(s->device, op, &whole)) {
        s->done += lengths_of(s, op);
        return HT_OK;
    }
    for (size_t i = first; i < model->n_ops && n < MOST_TASKS && bytes < ENOUGH_BYTES && !status; i++) {
        if (!ht_profile_alike(op, &model->ops[i]))
            continue;
        status = ops->prepare(s->device, &model->ops[i], &whole, &tasks[n], error);
        if (!status)
            bytes += ops->task_bytes(tasks[n++]);
    }
    bool slow = false; /* so many tokens take so long that a quick profile leaves more of them to the rule */
    for (size_t i = 0; i < lengths_of(s, op) && !status; i++) {
        ht_tuned found = {.tried = 0};
        if (!slow)
            status = ops->tune(s->device, tasks, n, s->lengths[i], &found, error);
        if (!status && found.tried)
            status = add_row(s, op, s->lengths[i], &found, error);
        slow |= options->quick && found.tried && found.seconds > SLOW_SECONDS;
        s->done++;
        if (!status && options->progress &&
            !options->progress("trying kernels", (double)s->done, (double)s->total, options->progress_user))
            status = ht_fail(error, HT_ERROR_CANCELLED, "profiling was stopped");
    }
    while (n)
        ops->release(s->device, tasks[--n]);
    return status;
}

/* First, for the tables are to show the kernels that engines will use. */
static ht_status search_kernels(ht_profiler *p, ht_device *device, ht_error *error) {
    const bool quick = p->options->quick;
    search s = {.p = p,
                .device = device,
                .lengths = quick ? quick_lengths : all_lengths,
                .n_lengths = quick ? HT_COUNT(quick_lengths) : HT_COUNT(all_lengths)};
    ht_status status = HT_OK;
    for (size_t i = 0; i < p->model->n_ops; i++)
        s.total += is_first(p->model, i) ? lengths_of(&s, &p->model->ops[i]) : 0;
    for (size_t i = 0; i < p->model->n_ops && !status; i++)
        if (is_first(p->model, i))
            status = search_shape(&s, i, error);
    return status;
}

static ht_status profile_device(ht_profiler *p, const char *spec, ht_error *error) {
    const ht_progress progress = {p->options->progress, p->options->progress_user};
    const ht_device_options options = {.precision = p->options->precision,
                                       .hparams = &p->model->hparams,
                                       .max_tokens = all_lengths[HT_COUNT(all_lengths) - 1],
                                       .max_context = 64,
                                       .progress = &progress};
    ht_profile_result *result = p->result;
    ht_device *device;
    ht_status status = ht_device_open(spec, &options, &device, error);
    if (status)
        return status;
    const bool emulated = device->ops->caps(device)->emulated;
    if (emulated)
        ht_log(HT_LOG_INFO, "%s is emulated: timings are not meaningful", spec);
    else
        status = ht_grow((void **)&result->devices, &p->device_capacity, result->n_devices + 1, sizeof *result->devices,
                         "the profile", error);
    if (!emulated && !status)
        ht_profile_fingerprint(spec, device, &result->devices[result->n_devices++]);
    if (!emulated && !status && device->ops->tune)
        status = search_kernels(p, device, error);
    device->ops->close(device);
    return emulated || status ? status : ht_characterise(p, (int)result->n_devices - 1, error);
}

/* A device that fails is no reason to do without the others; a name that is wrong is. */
static ht_status try_device(ht_profiler *p, const char *spec, ht_error *error) {
    ht_status status = profile_device(p, spec, error);
    if (!status || status == HT_ERROR_CANCELLED || status == HT_ERROR_ARGUMENT)
        return status;
    ht_log(HT_LOG_WARN, "stopped profiling: %s", error->text);
    return HT_OK;
}

static ht_status profile_devices(ht_profiler *p, ht_error *error) {
    ht_status status = HT_OK;
    if (p->options->devices && *p->options->devices) {
        ht_text expanded = {0};
        char spec[256];
        status = ht_device_expand(p->options->devices, &expanded, error);
        for (const char *list = expanded.data; !status && ht_device_next(&list, spec);)
            status = try_device(p, spec, error);
        ht_text_free(&expanded);
        return status;
    }
    ht_device_info *found;
    size_t n;
    if ((status = ht_devices_list(&found, &n, error)))
        return status;
    for (size_t i = 0; i < n && !status; i++)
        if (found[i].usable && !found[i].simulated)
            status = try_device(p, found[i].name, error);
    ht_free(found);
    return status;
}

ht_status ht_profile(const ht_model *model, const ht_profile_options *options, ht_profile_result *result,
                     ht_error *error) {
    *result = (ht_profile_result){0};
    ht_profiler p = {.model = model, .options = options, .result = result};
    ht_error why = {0}; /* the caller may not want it, we do */
    ht_profile_describe(result, model, options);
    ht_status status = profile_devices(&p, &why);
    if (!status && !result->n_devices)
        status = why.status ? why.status
                            : ht_fail(&why, HT_ERROR_DEVICE, "profile: no device with meaningful timings found");
    if (!status)
        status = ht_characterise_bandwidth(&p, &why);
    if (status && error)
        *error = why;
    if (!status && ht_profile_save(result, &why))
        ht_log(HT_LOG_WARN, "the profile was not saved: %s", why.text);
    return status;
}
