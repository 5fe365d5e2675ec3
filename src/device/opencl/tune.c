/* The search for tiles: every row of the table of kernels that can multiply a matrix is timed, the quickest kept for
 * matrices of its form and shape (tiles.c). */
#include "device/opencl/matmul.h"
#include "device/opencl/tiles.h"
#include "device/opencl/weights.h"

#if HT_HAVE_OPENCL
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROUNDS 5
#define ROUND_SECONDS 0.01
#define MARGIN 0.97 /* of the rule's time: what is closer is noise, and the rule stays */

typedef struct trial {
    const ht_cl_matmul_row *row;
    struct ht_cl_choice choice;
    double times[ROUNDS], median;
    size_t repeats;
    bool out; /* so much slower than another that it is measured no more */
} trial;

typedef struct bench {
    ht_cl_device *d;
    ht_task *const *tasks;
    size_t n_tasks, segment, next; /* segment `segment` of each task in turn */
    cl_uint tokens;
    ht_cl_region in_region, out_region;
    ht_cl_place in, out;
} bench;

/* Seconds a launch, of `repeats`. */
static ht_status time_launches(bench *b, const trial *t, size_t repeats, double *seconds, ht_error *error) {
    const double start = ht_seconds();
    ht_status status = HT_OK;
    for (size_t i = 0; i < repeats && !status; i++) {
        ht_task *task = b->tasks[b->next++ % b->n_tasks];
        const ht_cl_weights *w = &task->segments[b->segment].weights;
        const ht_cl_product product = {.choice = &t->choice,
                                       .weights = w,
                                       .window = {.rows = w->rows, .cols = w->cols},
                                       .in = &b->in,
                                       .out = &b->out,
                                       .tokens = b->tokens};
        status = ht_cl_matmul_launch(b->d, task, &product, error);
    }
    if (!status)
        status = ht_cl_check(b->d->cl->Finish(b->d->queue), b->d->caps.name, "clFinish", error);
    *seconds = (ht_seconds() - start) / (double)repeats;
    return status;
}

/* Rounds in which every row has its turn, so that a device that slows down slows all of them. */
static ht_status time_trials(bench *b, trial *trials, int n, ht_error *error) {
    ht_status status = HT_OK;
    double best = 1e9;
    for (int i = 0; i < n && !status; i++) { /* twice, for the first may load the kernel */
        double seconds = 0;
        status = time_launches(b, &trials[i], 1, &seconds, error);
        if (!status)
            status = time_launches(b, &trials[i], 2, &seconds, error);
        trials[i].median = seconds;
        trials[i].repeats = ht_max_size(1, ht_min_size((size_t)(ROUND_SECONDS / seconds), 200));
        best = seconds < best ? seconds : best;
    }
    for (int i = 0; i < n; i++)
        trials[i].out = trials[i].median > 3 * best;
    for (int round = 0; round < ROUNDS && !status; round++)
        for (int i = 0; i < n && !status; i++)
            if (!trials[i].out)
                status = time_launches(b, &trials[i], trials[i].repeats, &trials[i].times[round], error);
    for (int i = 0; i < n && !status; i++)
        if (!trials[i].out) {
            ht_sort_doubles(trials[i].times, ROUNDS);
            trials[i].median = trials[i].times[ROUNDS / 2];
        }
    return status;
}

static ht_status make_places(bench *b, const ht_cl_weights *w, ht_error *error) {
    const size_t in_bytes = (size_t)w->cols * b->tokens * 4, out_bytes = (size_t)w->rows * b->tokens * 4;
    float *x = malloc(in_bytes);
    if (!x)
        return ht_fail(error, HT_ERROR_MEMORY, "%s: no memory for %zu bytes", b->d->caps.name, in_bytes);
    for (size_t i = 0; i < in_bytes / 4; i++)
        x[i] = (float)(i * 2654435761u % 65536) / 32768 - 1;
    ht_status status = ht_cl_upload(b->d, x, in_bytes, "activations", &b->in_region.memory, error);
    free(x);
    if (!status)
        status = ht_cl_buffer(b->d, out_bytes, CL_MEM_READ_WRITE, "sums", &b->out_region.memory, error);
    b->in = (ht_cl_place){.region = &b->in_region, .stride = w->cols};
    b->out = (ht_cl_place){.region = &b->out_region, .stride = w->rows};
    return status;
}

static ht_status tune_segment(bench *b, ht_tuned *result, ht_error *error) {
    ht_cl_device *d = b->d;
    const ht_cl_weights *w = &b->tasks[0]->segments[b->segment].weights;
    const ht_cl_matmul_row *rows[HT_CL_MATMUL_ROWS],
        *by_rule = ht_cl_matmul_by_rule(d, &w->form, w->rows, w->cols, b->tokens);
    const int n = ht_cl_matmul_candidates(d, &w->form, w->rows, w->cols, b->tokens, rows, HT_CL_MATMUL_ROWS);
    trial trials[HT_CL_MATMUL_ROWS];
    memset(trials, 0, sizeof trials);
    ht_status status = make_places(b, w, error);
    for (int i = 0; i < n && !status; i++) {
        trials[i].row = trials[i].choice.row = rows[i];
        status = ht_cl_matmul_kernels(d, &w->form, w->rows, w->cols, b->tokens, &trials[i].choice, error);
    }
    if (!status)
        status = time_trials(b, trials, n, error);
    const trial *best = NULL, *rule = NULL;
    for (int i = 0; i < n && !status; i++) {
        char kernel[256];
        ht_cl_matmul_text(trials[i].row, kernel, sizeof kernel);
        ht_log(HT_LOG_INFO, "%s: %s: %u x %u, %u tokens: %9.1f us %s%s", d->caps.name, b->tasks[0]->op->name, w->rows,
               w->cols, b->tokens, trials[i].median * 1e6, kernel, rows[i] == by_rule ? " (by rule)" : "");
        if (rows[i] == by_rule)
            rule = &trials[i];
        if (!best || trials[i].median < best->median)
            best = &trials[i];
    }
    if (best && rule && best->median > MARGIN * rule->median)
        best = rule;
    if (!status && best) {
        const ht_cl_tile t = {w->form, w->rows, w->cols, b->tokens, best->row, best->median};
        status = ht_cl_tiles_put(d, &t, error);
        result->seconds += best->median;
        result->by_rule += rule ? rule->median : best->median;
        result->tried += n;
        ht_cl_matmul_text(best->row, result->kernel, sizeof result->kernel);
    }
    if (b->in_region.memory)
        ht_cl_drop(d, b->in_region.memory);
    if (b->out_region.memory)
        ht_cl_drop(d, b->out_region.memory);
    b->in_region.memory = b->out_region.memory = NULL;
    return status;
}

ht_status ht_cl_tune(ht_device *device, ht_task *const *tasks, size_t n, size_t tokens, ht_tuned *result,
                     ht_error *error) {
    bench b = {.d = (ht_cl_device *)device, .tasks = tasks, .n_tasks = n, .tokens = (cl_uint)tokens};
    *result = (ht_tuned){0};
    ht_status status = HT_OK;
    for (; b.segment < tasks[0]->n_segments && !status; b.segment++)
        status = tune_segment(&b, result, error);
    if (!status && result->tried)
        status = ht_cl_tiles_save(b.d, error);
    if (!status)
        status = ht_cl_tiles_path(b.d, result->path, sizeof result->path, error);
    return status;
}

#else
typedef int ht_cl_tune_is_empty; /* ISO C wants something in every file */
#endif
