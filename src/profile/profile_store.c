/* The profile on disk: one JSON file for each set of devices, model and precision, in folder profile/ of the cache.
 *
 *   {"version", "model", "machine", "date", "precision", "quick", "devices": ["cpu:cpus=1", ...],
 *    "fingerprints": [{"device", "name", "runtime", "description", "cores", "static_graphs"}, ...],
 *    "tables": {"matmul": [...], "curve": [{"device", "rows", "cols", "tokens", "us", "gflops"}, ...], "order", "shape",
 *               "joins": [{"device", "what", "us", "us_p99"}, ...], "bandwidth": [{"device", "with", "gbps", ...}, ...],
 *               "graphs": [{"device", ..., "us", "bytes"}, ...]}}
 *
 * The newest by its time of change is read: of real devices, unless others are named. A fingerprint says what times depend on; it is compared with the device as it
 * opens now. Nothing in a file is trusted: what has the wrong type or names no device of the file is an error. */
#include "base/json.h"
#include "profile/characterise.h"
#include "base/os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FOLDER "profile/"

static const char *const tables[HT_PROFILE_TABLES] = {"curve", "order", "shape", "joins", "bandwidth", "graphs"};

const char *ht_profile_table_name(ht_profile_table table) {
    return tables[table];
}

double ht_profile_rate(const ht_profile_point *point) {
    if (point->table == HT_PROFILE_JOINS || point->table == HT_PROFILE_GRAPHS || !(point->seconds > 0))
        return 0;
    if (point->table == HT_PROFILE_BANDWIDTH)
        return point->bytes / point->seconds * 1e-9;
    return 2e-9 * (double)point->rows * (double)point->cols * (double)point->tokens / point->seconds;
}

/* ---- what a result says of itself ------------------------------------------------------------------------------------------ */

static void copy_text(char *out, size_t capacity, const char *text) {
    snprintf(out, capacity, "%.*s", (int)capacity - 1, text);
    ht_make_printable(out);
}

void ht_profile_describe(ht_profile_result *result, const ht_model *model, const ht_profile_options *options) {
    const char *slash = strrchr(model->info.path, '/');
    ht_device_info cpu;
    copy_text(result->model, sizeof result->model, slash ? slash + 1 : model->info.path);
    snprintf(result->version, sizeof result->version, "%s", ht_version());
    ht_os_date("%Y-%m-%dT%H:%M:%SZ", result->date, sizeof result->date);
    if (!ht_device_host(&cpu, NULL)) {
        char text[sizeof result->machine];
        snprintf(text, sizeof text, "%s, %.1f GiB", cpu.description, (double)cpu.memory_bytes / (1u << 30));
        copy_text(result->machine, sizeof result->machine, text);
    }
    result->precision = options->precision;
    result->quick = options->quick;
}

void ht_profile_fingerprint(const char *spec, const ht_device *device, ht_profile_device *out) {
    const ht_device_caps *caps = device->ops->caps(device);
    const char *equals = strchr(spec, '='), *options = equals;
    while (options && options > spec && *options != ':')
        options--;
    char full[sizeof out->spec + sizeof caps->name];
    snprintf(full, sizeof full, "%s%s", caps->name, options ? options : ""); /* "gpu" is no name to keep */
    *out = (ht_profile_device){.static_graphs = caps->n_lengths > 0};
    ht_cores_print(&caps->cores, out->cores, sizeof out->cores);
    copy_text(out->spec, sizeof out->spec, full);
    copy_text(out->name, sizeof out->name, caps->name);
    copy_text(out->runtime, sizeof out->runtime, caps->runtime);
    copy_text(out->description, sizeof out->description, caps->description);
}

/* ---- as JSON --------------------------------------------------------------------------------------------------------------- */

static json_t *point_json(const ht_profile_result *result, const ht_profile_point *point) {
    json_t *row = json_pack("{s:s, s:I, s:I, s:I, s:f}", "device", result->devices[point->device].spec, "rows",
                            (json_int_t)point->rows, "cols", (json_int_t)point->cols, "tokens",
                            (json_int_t)point->tokens, "us", point->seconds * 1e6);
    const double rate = ht_profile_rate(point);
    if (*point->what)
        ht_json_set(&row, "what", json_string(point->what));
    if (point->table == HT_PROFILE_BANDWIDTH)
        ht_json_set(&row, "with", point->with < 0 ? json_null() : json_string(result->devices[point->with].spec));
    if (point->table == HT_PROFILE_JOINS)
        ht_json_set(&row, "us_p99", json_real(point->p99 * 1e6));
    if (point->table == HT_PROFILE_BANDWIDTH || point->table == HT_PROFILE_GRAPHS)
        ht_json_set(&row, "bytes", json_real(point->bytes));
    if (rate > 0)
        ht_json_set(&row, point->table == HT_PROFILE_BANDWIDTH ? "gbps" : "gflops", json_real(rate));
    return row;
}

static json_t *tables_json(const ht_profile_result *result) {
    json_t *all = json_object(), *matmul = json_array();
    for (size_t i = 0; i < result->n; i++) {
        const ht_profile_row *row = &result->rows[i];
        ht_json_add(&matmul, json_pack("{s:s, s:s, s:I, s:I, s:I, s:s, s:f, s:f, s:i}", "device", row->device, "op",
                                       row->op, "rows", (json_int_t)row->rows, "cols", (json_int_t)row->cols, "tokens",
                                       (json_int_t)row->tokens, "kernel", row->kernel, "us", row->seconds * 1e6,
                                       "us_by_rule", row->by_rule * 1e6, "tried", row->tried));
    }
    ht_json_set(&all, "matmul", matmul);
    for (int t = 0; t < HT_PROFILE_TABLES; t++) {
        json_t *rows = json_array();
        for (size_t i = 0; i < result->n_points; i++)
            if ((int)result->points[i].table == t)
                ht_json_add(&rows, point_json(result, &result->points[i]));
        ht_json_set(&all, tables[t], rows);
    }
    return all;
}

static json_t *result_json(const ht_profile_result *result) {
    json_t *devices = json_array(), *fingerprints = json_array();
    for (size_t i = 0; i < result->n_devices; i++) {
        const ht_profile_device *device = &result->devices[i];
        ht_json_add(&devices, json_string(device->spec));
        ht_json_add(&fingerprints,
                    json_pack("{s:s, s:s, s:s, s:s, s:s, s:b}", "device", device->spec, "name", device->name, "runtime",
                              device->runtime, "description", device->description, "cores", device->cores,
                              "static_graphs", (int)device->static_graphs));
    }
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:b, s:o, s:o, s:o}", "version", result->version, "model",
                     result->model, "machine", result->machine, "date", result->date, "precision",
                     result->precision == HT_PRECISION_EXACT ? "exact" : "fast", "quick", (int)result->quick, "devices",
                     devices, "fingerprints", fingerprints, "tables", tables_json(result));
}

ht_status ht_profile_json(const ht_profile_result *result, char **text, ht_error *error) {
    return ht_json_text(result_json(result), JSON_INDENT(1) | JSON_REAL_PRECISION(6), "the profile", text, error);
}

/* ---- kept ------------------------------------------------------------------------------------------------------------------ */

ht_status ht_profile_save(ht_profile_result *result, ht_error *error) {
    char name[64], path[sizeof result->path];
    uint64_t hash = ht_hash(HT_HASH_START, result->model, strlen(result->model) + 1);
    hash = ht_hash(hash, result->precision == HT_PRECISION_EXACT ? "e" : "f", 1);
    for (size_t i = 0; i < result->n_devices; i++)
        hash = ht_hash(hash, result->devices[i].spec, strlen(result->devices[i].spec) + 1);
    snprintf(name, sizeof name, FOLDER "%016llx.json", (unsigned long long)hash);
    char *text = NULL;
    ht_status status = ht_cache_path(name, path, sizeof path, error);
    if (!status)
        status = ht_profile_json(result, &text, error);
    if (!status)
        status = ht_file_write(path, text, strlen(text), error);
    if (!status)
        memcpy(result->path, path, sizeof path);
    free(text);
    return status;
}

/* Is the next name of a list ("a,b") that of a device of the file, or of the chip that it is of ("sim:chip")? */
static bool has_device(const json_t *list, const char *name, size_t n) {
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *spec = json_string_value(json_array_get(list, i));
        if (spec && strncmp(spec, name, n) == 0 && (!spec[n] || spec[n] == '/' || spec[n] == ':'))
            return true;
    }
    return false;
}

/* Is the file a profile of these devices (NULL: of any but simulated ones)? A damaged one counts: whoever reads it says so. */
static bool is_of(const char *path, const char *devices) {
    json_t *all = json_load_file(path, 0, NULL);
    const json_t *list = json_object_get(all, "devices");
    bool good = true;
    for (size_t i = 0; i < json_array_size(list) && !devices; i++) {
        const char *spec = json_string_value(json_array_get(list, i));
        good &= !spec || strncmp(spec, "sim:", 4) != 0;
    }
    for (const char *name = devices; name && *name && good; name += strcspn(name, ","), name += *name == ',')
        good = has_device(list, name, strcspn(name, ","));
    json_decref(all);
    return good;
}

/* The file of the folder that was changed last, of those of these devices. */
static ht_status newest(const char *devices, char *path, size_t capacity, ht_error *error) {
    char folder[1024];
    uint64_t latest = 0;
    *path = '\0';
    ht_status status = ht_cache_path(FOLDER, folder, sizeof folder, error);
    if (status)
        return status;
    ht_os_folder *all = ht_os_folder_open(folder);
    for (const char *name; all && (name = ht_os_folder_next(all));) {
        const char *dot = strrchr(name, '.');
        char candidate[sizeof folder + 256];
        ht_os_info info;
        if (!dot || strcmp(dot, ".json") != 0 ||
            (size_t)snprintf(candidate, sizeof candidate, "%s%s", folder, name) >=
                ht_min_size(sizeof candidate, capacity) ||
            ht_os_look(candidate, &info) || !is_of(candidate, devices))
            continue;
        if (!*path || info.changed > latest) {
            latest = info.changed;
            memcpy(path, candidate, strlen(candidate) + 1);
        }
    }
    ht_os_folder_close(all);
    return *path ? HT_OK
                 : ht_fail(error, HT_ERROR_IO, "%s: no profile is kept here yet of %s: 'hetero profile' makes one",
                           folder, devices ? devices : "this machine's devices");
}

static int device_named(const ht_profile_result *result, const char *spec) {
    for (size_t i = 0; spec && i < result->n_devices; i++)
        if (strcmp(result->devices[i].spec, spec) == 0)
            return (int)i;
    return -1;
}

static bool read_devices(const json_t *all, ht_profile_result *result) {
    const json_t *list = json_object_get(all, "fingerprints");
    for (size_t i = 0; i < json_array_size(list); i++) {
        ht_profile_device *device = &result->devices[result->n_devices++];
        const char *spec, *name, *runtime, *description, *cores;
        int static_graphs;
        if (json_unpack(json_array_get(list, i), "{s:s, s:s, s:s, s:s, s:s, s:b}", "device", &spec, "name", &name,
                        "runtime", &runtime, "description", &description, "cores", &cores, "static_graphs",
                        &static_graphs))
            return false;
        copy_text(device->spec, sizeof device->spec, spec);
        copy_text(device->name, sizeof device->name, name);
        copy_text(device->runtime, sizeof device->runtime, runtime);
        copy_text(device->description, sizeof device->description, description);
        copy_text(device->cores, sizeof device->cores, cores);
        device->static_graphs = static_graphs;
    }
    return result->n_devices > 0;
}

static bool read_matmul(const json_t *list, ht_profile_result *result) {
    for (size_t i = 0; i < json_array_size(list); i++) {
        ht_profile_row *row = &result->rows[result->n++];
        const char *device, *op, *kernel;
        json_int_t rows, cols, tokens;
        if (json_unpack(json_array_get(list, i), "{s:s, s:s, s:I, s:I, s:I, s:s, s:F, s:F, s:i}", "device", &device,
                        "op", &op, "rows", &rows, "cols", &cols, "tokens", &tokens, "kernel", &kernel, "us",
                        &row->seconds, "us_by_rule", &row->by_rule, "tried", &row->tried) ||
            rows < 1 || cols < 1 || tokens < 1)
            return false;
        row->rows = (size_t)rows, row->cols = (size_t)cols, row->tokens = (size_t)tokens;
        row->seconds *= 1e-6, row->by_rule *= 1e-6;
        copy_text(row->device, sizeof row->device, device);
        copy_text(row->op, sizeof row->op, op);
        copy_text(row->kernel, sizeof row->kernel, kernel);
    }
    return true;
}

static bool read_point(const json_t *row, ht_profile_table table, ht_profile_result *result) {
    const char *device, *what = "", *with = NULL;
    json_int_t rows, cols, tokens;
    ht_profile_point *point = &result->points[result->n_points++];
    *point = (ht_profile_point){.table = table};
    if (json_unpack((json_t *)(uintptr_t)row, "{s:s, s:I, s:I, s:I, s:F, s?s, s?F, s?F}", "device", &device, "rows",
                    &rows, "cols", &cols, "tokens", &tokens, "us", &point->seconds, "what", &what, "us_p99",
                    &point->p99, "bytes", &point->bytes) ||
        rows < 1 || cols < 1 || tokens < 1 || rows > INT32_MAX || cols > INT32_MAX || tokens > INT32_MAX ||
        !(point->seconds >= 0 && point->seconds < 1e15) || !(point->p99 >= 0 && point->p99 < 1e15) ||
        !(point->bytes >= 0 && point->bytes < 1e18))
        return false;
    with = json_string_value(json_object_get(row, "with"));
    point->rows = (size_t)rows, point->cols = (size_t)cols, point->tokens = (size_t)tokens;
    point->seconds *= 1e-6, point->p99 *= 1e-6;
    point->device = device_named(result, device);
    point->with = device_named(result, with);
    copy_text(point->what, sizeof point->what, what);
    return point->device >= 0 && (!with || point->with >= 0);
}

static bool read_all(const json_t *all, ht_profile_result *result) {
    const char *version, *model, *machine, *date, *precision;
    int quick;
    json_t *kept;
    if (json_unpack((json_t *)(uintptr_t)all, "{s:s, s:s, s:s, s:s, s:s, s:b, s:o}", "version", &version, "model",
                    &model, "machine", &machine, "date", &date, "precision", &precision, "quick", &quick, "tables",
                    &kept))
        return false;
    copy_text(result->version, sizeof result->version, version);
    copy_text(result->model, sizeof result->model, model);
    copy_text(result->machine, sizeof result->machine, machine);
    copy_text(result->date, sizeof result->date, date);
    result->precision = strcmp(precision, "exact") == 0 ? HT_PRECISION_EXACT : HT_PRECISION_FAST;
    result->quick = quick;
    if (!read_devices(all, result) || !read_matmul(json_object_get(kept, "matmul"), result))
        return false;
    for (int t = 0; t < HT_PROFILE_TABLES; t++) {
        const json_t *rows = json_object_get(kept, tables[t]);
        for (size_t i = 0; i < json_array_size(rows); i++)
            if (!read_point(json_array_get(rows, i), (ht_profile_table)t, result))
                return false;
    }
    return true;
}

/* Arrays for all that the file holds. */
static ht_status make_room(const json_t *all, ht_profile_result *result, ht_error *error) {
    const json_t *kept = json_object_get(all, "tables");
    size_t n = 0;
    for (int t = 0; t < HT_PROFILE_TABLES; t++)
        n += json_array_size(json_object_get(kept, tables[t]));
    ht_status status = ht_alloc((void **)&result->points, n + 1, sizeof *result->points, "the profile", error);
    if (!status)
        status = ht_alloc((void **)&result->rows, json_array_size(json_object_get(kept, "matmul")) + 1,
                          sizeof *result->rows, "the profile", error);
    if (!status)
        status = ht_alloc((void **)&result->devices, json_array_size(json_object_get(all, "fingerprints")) + 1,
                          sizeof *result->devices, "the profile", error);
    return status;
}

/* Opens the device as it was opened then, and says what is different now. */
static void check_device(ht_profile_device *kept, ht_precision precision) {
    static const ht_hparams small = {
        .layers = 1, .embedding = 64, .heads = 1, .kv_heads = 1, .head_dim = 64, .feed_forward = 64, .vocabulary = 64};
    const ht_device_options options = {.precision = precision, .hparams = &small, .max_tokens = 1, .max_context = 64};
    ht_profile_device now;
    ht_device *device;
    ht_error error = {0};
    if (ht_device_open(kept->spec, &options, &device, &error)) {
        snprintf(kept->stale, sizeof kept->stale, "%.100s: it cannot be opened now: %.200s", kept->spec, error.text);
        return;
    }
    ht_profile_fingerprint(kept->spec, device, &now);
    device->ops->close(device);
    const struct {
        const char *what, *was, *is;
    } texts[] = {{"name", kept->name, now.name},
                 {"runtime", kept->runtime, now.runtime},
                 {"processor", kept->description, now.description}};
    for (size_t i = 0; i < HT_COUNT(texts) && !*kept->stale; i++)
        if (strcmp(texts[i].was, texts[i].is) != 0)
            snprintf(kept->stale, sizeof kept->stale, "%.100s: its %s was %.100s and is %.100s now", kept->spec,
                     texts[i].what, texts[i].was, texts[i].is);
    if (!*kept->stale && strcmp(kept->cores, now.cores) != 0)
        snprintf(kept->stale, sizeof kept->stale, "%.100s: its cores were %.100s and are %.100s now", kept->spec,
                 kept->cores, now.cores);
}

ht_status ht_profile_load(const char *devices, ht_profile_result *result, ht_error *error) {
    ht_profile_result read = {0};
    json_error_t where = {0};
    ht_status status = newest(devices, read.path, sizeof read.path, error);
    if (status)
        return status;
    json_t *all = json_load_file(read.path, 0, &where);
    if (!all)
        return ht_fail(error, HT_ERROR_FORMAT, "%s: line %d: %s", read.path, where.line, where.text);
    status = make_room(all, &read, error);
    if (!status && !read_all(all, &read))
        status = ht_fail(error, HT_ERROR_FORMAT, "%s: not a profile", read.path);
    json_decref(all);
    for (size_t i = 0; i < read.n_devices && !status; i++)
        check_device(&read.devices[i], read.precision);
    if (status)
        ht_profile_result_clear(&read);
    else
        *result = read;
    return status;
}

void ht_profile_result_clear(ht_profile_result *result) {
    free(result->rows);
    free(result->points);
    free(result->devices);
    *result = (ht_profile_result){0};
}
