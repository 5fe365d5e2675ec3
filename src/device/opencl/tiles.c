/* Which kernels measurements found best, by the form and shape of a matrix and the number of tokens.
 *
 * What was found lies in the cache folder, one JSON file for each device, driver and set of features:
 *   {"device": "...", "tiles": [{"form": "-DBITS=4 ...", "rows", "cols", "tokens", "kernel": "matmul_simt -D...", "us"}]}
 * It is read when the device is opened. A row that the table of kernels no longer has is left out: the rule chooses there. */
#include "base/json.h"
#include "device/opencl/tiles.h"
#include "device/opencl/weights.h"

#if HT_HAVE_OPENCL
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct ht_cl_tiles {
    size_t n, capacity;
    ht_cl_tile *tiles;
};

static ht_cl_tile *find_tile(const ht_cl_device *d, const ht_cl_form *form, size_t rows, size_t cols, size_t tokens) {
    for (size_t i = 0; d->tiles && i < d->tiles->n; i++) {
        ht_cl_tile *t = &d->tiles->tiles[i];
        if (t->rows == rows && t->cols == cols && t->tokens == tokens && ht_cl_same_form(&t->form, form))
            return t;
    }
    return NULL;
}

ht_status ht_cl_tiles_put(ht_cl_device *d, const ht_cl_tile *new, ht_error *error) {
    ht_cl_tile *old = find_tile(d, &new->form, new->rows, new->cols, new->tokens);
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

/* The nearest number of tokens, by ratio, that was measured; its row, if that takes this number, too. */
const ht_cl_matmul_row *ht_cl_tuned(const ht_cl_device *d, const ht_cl_form *form, size_t rows, size_t cols,
                                    size_t tokens) {
    const ht_cl_tile *best = NULL;
    double nearest = 2; /* farther is no measurement of this */
    for (size_t i = 0; d->tiles && i < d->tiles->n; i++) {
        const ht_cl_tile *t = &d->tiles->tiles[i];
        if (t->rows != rows || t->cols != cols || tokens < t->row->min_tokens || tokens > t->row->max_tokens ||
            !ht_cl_same_form(&t->form, form))
            continue;
        const double a = (double)tokens, b = (double)t->tokens, ratio = a > b ? a / b : b / a;
        if (ratio < nearest)
            best = t, nearest = ratio;
    }
    return best ? best->row : NULL;
}

ht_status ht_cl_tiles_path(const ht_cl_device *d, char *path, size_t capacity, ht_error *error) {
    char name[512];
    snprintf(name, sizeof name, "%s|%x|%u", d->fingerprint, d->features, d->units); /* what the times depend on */
    const uint64_t hash = ht_hash(HT_HASH_START, name, strlen(name));
    snprintf(name, sizeof name, "opencl/tiles-%016llx.json", (unsigned long long)hash);
    return ht_cache_path(name, path, capacity, error);
}

void ht_cl_matmul_text(const ht_cl_matmul_row *row, char *out, size_t capacity) {
    snprintf(out, capacity, "%s %s", row->kernel, row->options);
}

ht_status ht_cl_tiles_save(const ht_cl_device *d, ht_error *error) {
    char path[4096], form[256], kernel[256];
    ht_status status = ht_cl_tiles_path(d, path, sizeof path, error);
    if (status)
        return status;
    json_t *list = json_array();
    for (size_t i = 0; i < d->tiles->n; i++) {
        const ht_cl_tile *t = &d->tiles->tiles[i];
        ht_cl_form_options(&t->form, form, sizeof form);
        ht_cl_matmul_text(t->row, kernel, sizeof kernel);
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
                                         const ht_cl_tile *t) {
    const ht_cl_matmul_row *rows[HT_CL_MATMUL_ROWS];
    const int n = ht_cl_matmul_candidates(d, form, t->rows, t->cols, t->tokens, rows, HT_CL_MATMUL_ROWS);
    char name[256];
    for (int i = 0; i < n; i++) {
        ht_cl_matmul_text(rows[i], name, sizeof name);
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
    if (ht_cl_tiles_path(d, path, sizeof path, &error))
        return;
    json_error_t where;
    json_t *all = json_load_file(path, 0, &where);
    const char *device = json_string_value(json_object_get(all, "device"));
    if (all && (!device || strcmp(device, d->fingerprint) != 0))
        ht_log(HT_LOG_INFO, "%s: %s is for another device: ignored", d->caps.name, path);
    else if (!all && json_error_code(&where) != json_error_cannot_open_file)
        ht_log(HT_LOG_WARN, "%s: %s is ignored: line %d: %s", d->caps.name, path, where.line, where.text);
    else
        for (size_t i = 0; i < json_array_size(json_object_get(all, "tiles")); i++) {
            const char *form, *kernel;
            json_int_t rows, cols, tokens;
            ht_cl_tile t = {0};
            if (json_unpack(json_array_get(json_object_get(all, "tiles"), i), "{s:s, s:I, s:I, s:I, s:s, s:F}", "form",
                            &form, "rows", &rows, "cols", &cols, "tokens", &tokens, "kernel", &kernel, "us",
                            &t.seconds) ||
                rows < 1 || cols < 1 || tokens < 1 || !parse_form(form, &t.form))
                continue;
            t.rows = (size_t)rows, t.cols = (size_t)cols, t.tokens = (size_t)tokens;
            t.seconds *= 1e-6;
            if ((t.row = row_named(d, kernel, &t.form, &t)) && ht_cl_tiles_put(d, &t, &error))
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

#else
typedef int ht_cl_tiles_is_empty; /* ISO C wants something in every file */
#endif
