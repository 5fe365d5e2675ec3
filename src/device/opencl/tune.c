/* The search for tiles: every row of matmul.c's table that can multiply a matrix is timed, the quickest kept for matrices
 * of its form and shape.
 *
 * What was found lies in the cache folder, one JSON file for each device, driver and set of features:
 *   {"device": "...", "tiles": [{"form": "-DBITS=4 ...", "rows", "cols", "tokens", "kernel": "matmul_simt -D...", "us"}]}
 * It is read when the device is opened. A row that the table no longer has is left out: the rule chooses there. */
#include "base/json.h"
#include "device/opencl/matmul.h"

#if HT_HAVE_OPENCL
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_ROWS 32
#define ROUNDS 5
#define ROUND_SECONDS 0.01
#define MARGIN 0.97 /* of the rule's time: what is closer is noise, and the rule stays */

typedef struct tile {
    ht_cl_form form;
    size_t rows, cols, tokens;
    const ht_cl_matmul_row *row;
    double seconds;
} tile;

struct ht_cl_tiles {
    size_t n, capacity;
    tile *tiles;
};

/* ---- kept ------------------------------------------------------------------------------------------------------------- */

static tile *find_tile(const ht_cl_device *d, const ht_cl_form *form, size_t rows, size_t cols, size_t tokens) {
    for (size_t i = 0; d->tiles && i < d->tiles->n; i++) {
        tile *t = &d->tiles->tiles[i];
        if (t->rows == rows && t->cols == cols && t->tokens == tokens && ht_cl_same_form(&t->form, form))
            return t;
    }
    return NULL;
}

static ht_status put_tile(ht_cl_device *d, const tile *new, ht_error *error) {
    tile *old = find_tile(d, &new->form, new->rows, new->cols, new->tokens);
    if (old) {
        *old = *new;
        return HT_OK;
    }
    ht_status status = HT_OK;
    if (!d->tiles)
        status = ht_alloc((void **)&d->tiles, 1, sizeof *d->tiles, "tiles", error);
    if (!status)
        status = ht_grow((void **)&d->tiles->tiles, &d->tiles->capacity, d->tiles->n + 1, sizeof *new, "tiles", error);
    if (!status)
        d->tiles->tiles[d->tiles->n++] = *new;
    return status;
}

/* Of the numbers of tokens that were measured the nearest by ratio; its row, if that takes this number too. */
const ht_cl_matmul_row *ht_cl_tuned(const ht_cl_device *d, const ht_cl_form *form, size_t rows, size_t cols,
                                    size_t tokens) {
    const tile *best = NULL;
    double nearest = 2; /* farther is no measurement of this */
    for (size_t i = 0; d->tiles && i < d->tiles->n; i++) {
        const tile *t = &d->tiles->tiles[i];
        if (t->rows != rows || t->cols != cols || tokens < t->row->min_tokens || tokens > t->row->max_tokens ||
            !ht_cl_same_form(&t->form, form))
            continue;
        const double a = (double)tokens, b = (double)t->tokens, ratio = a > b ? a / b : b / a;
        if (ratio < nearest)
            best = t, nearest = ratio;
    }
    return best ? best->row : NULL;
}

static ht_status tiles_path(const ht_cl_device *d, char *path, size_t capacity, ht_error *error) {
    char name[512];
    snprintf(name, sizeof name, "%s|%x|%u", d->fingerprint, d->features, d->units); /* what the times depend on */
    const uint64_t hash = ht_hash(HT_HASH_START, name, strlen(name));
    snprintf(name, sizeof name, "opencl/tiles-%016llx.json", (unsigned long long)hash);
    return ht_cache_path(name, path, capacity, error);
}

static void kernel_text(const ht_cl_matmul_row *row, char *out, size_t capacity) {
    snprintf(out, capacity, "%s %s", row->kernel, row->options);
}

static ht_status save_tiles(const ht_cl_device *d, ht_error *error) {
    char path[4096], form[256], kernel[256];
    ht_status status = tiles_path(d, path, sizeof path, error);
    if (status)
        return status;
    json_t *list = json_array();
    for (size_t i = 0; i < d->tiles->n; i++) {
        const tile *t = &d->tiles->tiles[i];
        ht_cl_form_options(&t->form, form, sizeof form);
        kernel_text(t->row, kernel, sizeof kernel);
        ht_json_add(&list, json_pack("{s:s, s:I, s:I, s:I, s:s, s:f}", "form", form, "rows", (json_int_t)t->rows,
                                     "cols", (json_int_t)t->cols, "tokens", (json_int_t)t->tokens, "kernel", kernel,
                                     "us", t->seconds * 1e6));
    }
    json_t *all = json_pack("{s:s, s:o}", "device", d->fingerprint, "tiles", list);
    char *text = NULL;
    status = ht_json_text(all, JSON_INDENT(1), "the quickest kernels", &text, error);
    if (!status)
        status = ht_file_write(path, text, strlen(text), error);
    free(text);
    return status;
}

static const ht_cl_matmul_row *row_named(const ht_cl_device *d, const char *kernel, const ht_cl_form *form,
                                         const tile *t) {
    const ht_cl_matmul_row *rows[MOST_ROWS];
    const int n = ht_cl_matmul_candidates(d, form, t->rows, t->cols, t->tokens, rows, MOST_ROWS);
    char name[256];
    for (int i = 0; i < n; i++) {
        kernel_text(rows[i], name, sizeof name);
        if (strcmp(name, kernel) == 0)
            return rows[i];
    }
    return NULL;
}

/* "-DBITS=4 -DGROUP=32 ..." as ht_cl_form_options wrote it. */
static bool parse_form(const char *text, ht_cl_form *form) {
    int halves, mins;
    if (sscanf(text, "-DBITS=%d -DGROUP=%d -DHALF_SCALES=%d -DMINS=%d", &form->bits, &form->group, &halves, &mins) != 4)
        return false;
    form->half_scales = halves;
    form->mins = mins;
    form->group = form->bits < 16 ? form->group : 0; /* floats have no scales; the option is a number for them too */
    char again[256];
    ht_cl_form_options(form, again, sizeof again);
    return strcmp(again, text) == 0;
}

/* The cache is a convenience: a file that cannot be read is a line in the log. */
void ht_cl_tiles_load(ht_cl_device *d) {
    char path[4096];
    ht_error error = {0};
    if (tiles_path(d, path, sizeof path, &error))
        return;
    json_error_t where;
    json_t *all = json_load_file(path, 0, &where);
    const char *device = json_string_value(json_object_get(all, "device"));
    if (all && (!device || strcmp(device, d->fingerprint) != 0))
        ht_log(HT_LOG_INFO, "%s: %s is of another device and not used", d->caps.name, path);
    else if (!all && json_error_code(&where) != json_error_cannot_open_file)
        ht_log(HT_LOG_WARN, "%s: %s is not used: line %d: %s", d->caps.name, path, where.line, where.text);
    else
        for (size_t i = 0; i < json_array_size(json_object_get(all, "tiles")); i++) {
            const char *form, *kernel;
            json_int_t rows, cols, tokens;
            tile t = {0};
            if (json_unpack(json_array_get(json_object_get(all, "tiles"), i), "{s:s, s:I, s:I, s:I, s:s, s:F}", "form",
                            &form, "rows", &rows, "cols", &cols, "tokens", &tokens, "kernel", &kernel, "us",
                            &t.seconds) ||
                rows < 1 || cols < 1 || tokens < 1 || !parse_form(form, &t.form))
                continue;
            t.rows = (size_t)rows, t.cols = (size_t)cols, t.tokens = (size_t)tokens;
            t.seconds *= 1e-6;
            if ((t.row = row_named(d, kernel, &t.form, &t)) && put_tile(d, &t, &error))
                break;
        }
    json_decref(all);
}

void ht_cl_tiles_release(ht_cl_device *d) {
    if (d->tiles)
        free(d->tiles->tiles);
    free(d->tiles);
    d->tiles = NULL;
}

/* ---- measured --------------------------------------------------------------------------------------------------------- */

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
        const ht_cl_window all = {.rows = w->rows, .cols = w->cols};
        status =
            ht_cl_matmul_launch(b->d, task, &t->choice, w, &all, &b->in, &b->out, b->tokens, task->op->name, error);
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
    const ht_cl_matmul_row *rows[MOST_ROWS], *by_rule = ht_cl_matmul_by_rule(d, &w->form, w->rows, w->cols, b->tokens);
    const int n = ht_cl_matmul_candidates(d, &w->form, w->rows, w->cols, b->tokens, rows, MOST_ROWS);
    trial trials[MOST_ROWS];
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
        kernel_text(trials[i].row, kernel, sizeof kernel);
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
        const tile t = {w->form, w->rows, w->cols, b->tokens, best->row, best->median};
        status = put_tile(d, &t, error);
        result->seconds += best->median;
        result->by_rule += rule ? rule->median : best->median;
        result->tried += n;
        kernel_text(best->row, result->kernel, sizeof result->kernel);
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
        status = save_tiles(b.d, error);
    if (!status)
        status = tiles_path(b.d, result->path, sizeof result->path, error);
    return status;
}

#else
typedef int ht_cl_tune_is_empty; /* ISO C wants something in every file */
#endif
