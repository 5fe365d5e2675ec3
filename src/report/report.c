/* `hetero report`: the parts, each in a process of its own, put together and scrubbed.
 *
 *   {"hetero": {version, commit, compiler, flags, target}, "date", "machine": {...}, "devices": [...], "missing": [...],
 *    "runtimes": {name: versions or why not}, "profile": {...}, "model": {...},
 *    "plans": [{"devices": what was asked for, ... as `hetero plan --json`, operators that are alike as one}, ...], "bench": [{"devices", ...}, ...],
 *    "log": [lines]}
 *
 * A part that failed is {"error", "status"} in its place. */
#include "report/report.h"

#include "base/os.h"
#include "engine/engine.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_MODEL "shape:smollm2-135m"
#define PART_SECONDS 300 /* graphs of a whole model take minutes on slow machines */
#define REPETITIONS 3

static const struct {
    int tokens;
    bool gen;
} runs[] = {{64, false}, {256, false}, {16, true}}; /* decode's plan is of one token */

typedef struct report {
    const char *model;
    const char *const *program;
    const ht_engine_options *options;
    json_t *all;    /* the object */
    json_t *listed; /* what `hetero devices --json` lists */
    bool cut_short; /* a runtime's listing failed */
    size_t done, total;
    ht_error *error;
} report;

/* ---- parts: each gives JSON -------------------------------------------------------------------------------------------------- */

/* Takes the reference. */
static ht_status dump(json_t *tree, char **json, ht_error *error) {
    return ht_json_text(tree, JSON_COMPACT | JSON_REAL_PRECISION(6), "the report", json, error);
}

static ht_status list_runtime(const char *const *asked, char **json, ht_error *error) {
    const char *prefix = ht_part_value(asked, "runtime");
    const ht_device_ops *const *runtime = ht_device_runtimes;
    ht_device_info *list = NULL;
    size_t n = 0;
    while (*runtime && (!prefix || strcmp((*runtime)->prefix, prefix) != 0))
        runtime++;
    ht_status status =
        *runtime ? (*runtime)->list(&list, &n, error) : ht_fail(error, HT_ERROR_ARGUMENT, "there is no such runtime");
    if (!status)
        status = ht_devices_json(list, n, json, error);
    free(list);
    return status;
}

static ht_status read_profile(const char *const *asked, char **json, ht_error *error) {
    ht_profile_result result;
    char *text;
    ht_status status = ht_profile_load(NULL, &result, error);
    if (status)
        return status;
    status = ht_profile_json(&result, &text, error);
    json_t *profile = status ? NULL : json_loads(text, 0, NULL), *stale = json_array();
    for (size_t i = 0; i < result.n_devices && !status; i++)
        if (*result.devices[i].stale)
            ht_json_add(&stale, json_string(result.devices[i].stale));
    if (status)
        json_decref(stale);
    if (!status) {
        ht_json_set(&profile, "stale", stale);
        if (strncmp(result.model, "shape:", 6) != 0) /* a file's name */
            ht_json_set(&profile, "model", json_string("FILE"));
        free(text);
        status = dump(profile, json, error);
    }
    ht_profile_result_clear(&result);
    return status;
}

/* What kind of model it is; its path and the name that it gives itself are left out. */
static ht_status describe_model(const char *const *asked, char **json, ht_error *error) {
    const char *path = ht_part_value(asked, "model");
    ht_model *model;
    ht_status status = ht_model_open(path ? path : DEFAULT_MODEL, &model, error);
    if (status)
        return status;
    const ht_model_info *info = ht_model_get_info(model);
    json_t *types = json_object();
    for (size_t i = 0; i < info->n_types; i++)
        ht_json_set(&types, info->types[i].type,
                    json_pack("{s:I, s:I}", "tensors", (json_int_t)info->types[i].tensors, "bytes",
                              (json_int_t)info->types[i].bytes));
    json_t *tree = json_pack(
        "{s:b, s:s, s:s, s:I, s:I, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:s?, s:s?, s:o}", "made_up",
        !path || strncmp(path, "shape:", 6) == 0, "arch", info->architecture, "quantisation", info->quantisation,
        "parameters", (json_int_t)info->parameters, "file_bytes", (json_int_t)info->file_bytes, "layers", info->layers,
        "embedding", info->embedding, "heads", info->heads, "kv_heads", info->kv_heads, "head_dim", info->head_dim,
        "feed_forward", info->feed_forward, "vocabulary", info->vocabulary, "context_length", info->context_length,
        "sliding_window", info->sliding_window, "tokenizer", info->tokenizer, "chat_template", info->chat_template,
        "tensors_by_type", types);
    ht_model_close(model);
    return dump(tree, json, error);
}

/* "blk.3.ffn_down" -> "ffn_down"; a name outside the layers stays. */
static const char *without_layer(const char *name) {
    const char *dot = strncmp(name, "blk.", 4) == 0 ? strchr(name + 4, '.') : NULL;
    return dot ? dot + 1 : name;
}

static bool are_alike(const json_t *a, const json_t *b) {
    static const char *const keys[] = {"rows", "cols", "strategy", "slices"};
    bool alike = strcmp(without_layer(json_string_value(json_object_get(a, "name"))),
                        without_layer(json_string_value(json_object_get(b, "name")))) == 0;
    for (size_t i = 0; i < HT_COUNT(keys) && alike; i++)
        alike = json_equal(json_object_get(a, keys[i]), json_object_get(b, keys[i]));
    return alike;
}

/* Most layers are alike: of operators that are, the first stays, and says of how many layers it is one. */
static void shorten(json_t **plan) {
    json_t *kept = json_array(), *op;
    size_t i;
    json_array_foreach(json_object_get(*plan, "operators"), i, op) {
        json_t *same = NULL;
        for (size_t k = json_array_size(kept); k-- > 0 && !same;)
            if (are_alike(json_array_get(kept, k), op))
                same = json_array_get(kept, k);
        if (!same)
            ht_json_add(&kept, json_incref(op));
        same = same ? same : op;
        if (json_object_set_new_nocheck(same, "layers",
                                        json_integer(1 + json_integer_value(json_object_get(same, "layers")))))
            ht_json_set(plan, "operators", NULL); /* which drops it */
    }
    ht_json_set(plan, "operators", kept);
}

static ht_status add_plan(ht_engine *engine, int tokens, json_t **plans, ht_error *error) {
    ht_plan_row *rows;
    ht_plan_times times;
    size_t n;
    char *text;
    ht_status status = ht_engine_plan(engine, tokens, &rows, &n, &times, error);
    if (status)
        return status;
    status = ht_plan_json(rows, n, &times, &text, error);
    free(rows);
    if (status)
        return status;
    json_t *plan = json_loads(text, 0, NULL);
    shorten(&plan);
    ht_json_add(plans, plan);
    free(text);
    return HT_OK;
}

static ht_status add_bench(ht_session *session, const ht_engine_info *info, size_t run, int tokens, json_t **rows,
                           ht_error *error) {
    const ht_bench_options wanted = {
        .prompt = runs[run].gen ? 0 : tokens, .gen = runs[run].gen ? tokens : 0, .repetitions = REPETITIONS};
    ht_bench_result result;
    ht_status status = ht_bench(session, &wanted, &result, error);
    if (status)
        return status;
    json_t *used = json_array();
    for (size_t i = 0; i < info->n_devices; i++)
        ht_json_add(&used, json_string(info->devices[i]));
    ht_json_add(rows, json_pack("{s:o, s:i, s:i, s:s, s:s, s:f, s:f, s:f, s:I}", "devices_used", used,
                                runs[run].gen ? "gen" : "prompt", tokens, "threads", info->threads, "strategy", "auto",
                                "precision", "fast", "tps_median", result.tps_median, "tps_min", result.tps_min,
                                "tps_max", result.tps_max, "peak_rss_bytes", (json_int_t)result.peak_rss_bytes));
    return HT_OK;
}

/* How long a run is where no more than `context` tokens fit; 0: a longer one than the one before it, which is that long already. */
static int run_tokens(size_t run, int context) {
    const int most = runs[run].gen ? context - 1 : context;
    const bool same = run > 0 && runs[run].gen == runs[run - 1].gen && runs[run - 1].tokens >= most;
    return same ? 0 : runs[run].tokens < most ? runs[run].tokens : most;
}

static ht_status run_model(const char *const *asked, char **json, ht_error *error) {
    const char *path = ht_part_value(asked, "model"), *threads = ht_part_value(asked, "threads");
    int prompts[1 + HT_COUNT(runs)] = {1}, n_prompts = 1, context = 512;
    json_t *plans = json_array(), *rows = json_array();
    ht_model *model = NULL;
    ht_engine *engine = NULL;
    ht_session *session = NULL;
    const double start = ht_seconds();
    ht_status status = ht_model_open(path ? path : DEFAULT_MODEL, &model, error);
    if (!status && ht_model_get_info(model)->context_length < context)
        context = ht_model_get_info(model)->context_length;
    for (size_t i = 0; i < HT_COUNT(runs); i++)
        if (!runs[i].gen && run_tokens(i, context))
            prompts[n_prompts++] = run_tokens(i, context);
    const ht_engine_options options =
        HT_INIT(ht_engine_options, .devices = ht_part_value(asked, "devices"), .threads = threads ? atoi(threads) : 0,
                .context = context, .prompts = prompts, .n_prompts = (size_t)n_prompts);
    if (!status)
        status = ht_engine_create(model, &options, &engine, error);
    if (!status)
        status = ht_session_create(engine, &session, error);
    const double opened = ht_seconds() - start;
    for (size_t i = 0; i < HT_COUNT(runs) && !status; i++) {
        const int tokens = run_tokens(i, context);
        if (!tokens)
            continue;
        status = add_plan(engine, runs[i].gen ? 1 : tokens, &plans, error);
        if (!status)
            status = add_bench(session, ht_engine_get_info(engine), i, tokens, &rows, error);
    }
    const char *apart = ht_part_value(asked, "apart");
    if (!apart ||
        strcmp(apart, "yes") != 0) { /* a process of its own ends now, whatever drivers do when they are closed */
        ht_session_destroy(session);
        ht_engine_destroy(engine);
        ht_model_close(model);
    }
    if (!status)
        return dump(json_pack("{s:o, s:o, s:f}", "plans", plans, "bench", rows, "open_seconds", opened), json, error);
    json_decref(plans);
    json_decref(rows);
    return status;
}

static const ht_part_row parts[] = {
    {"list", list_runtime}, {"profile", read_profile}, {"model", describe_model}, {"run", run_model}, {NULL, NULL}};

int ht_report_part(const char *const *arguments) {
    return ht_part_serve(parts, arguments);
}

/* ---- putting them together --------------------------------------------------------------------------------------------------- */

/* Adds to the report's list of this name, which is there from then on; NULL adds nothing. Takes the reference. */
static void append(report *r, const char *key, json_t *value) {
    if (!json_object_get(r->all, key))
        ht_json_set(&r->all, key, json_array());
    if (value && json_array_append_new(json_object_get(r->all, key), value))
        ht_json_set(&r->all, key, NULL); /* not whole: it goes */
}

static void append_all(report *r, const char *key, const json_t *values) {
    append(r, key, NULL);
    for (size_t i = 0; i < json_array_size(values); i++)
        append(r, key, json_incref(json_array_get(values, i)));
}

/* Runs a part; its log goes into the report's. A new reference, without "log". */
static json_t *run_part(report *r, const char *name, const char *const *asked) {
    if (r->options->progress &&
        !r->options->progress(name, (double)r->done, (double)r->total, r->options->progress_user)) {
        (void)ht_fail(r->error, HT_ERROR_CANCELLED, "the report was stopped");
        return NULL;
    }
    r->done++;
    json_t *answer = ht_part_run(r->program, parts, asked, PART_SECONDS);
    size_t i;
    json_t *line;
    json_array_foreach(json_object_get(answer, "log"), i, line)
        append(r, "log", json_sprintf("%s: %s", name, json_string_value(line)));
    json_object_del(answer, "log");
    return answer;
}

/* The part's result under `key`, or its error. */
static void add_part(report *r, const char *key, const char *const *asked) {
    json_t *answer = run_part(r, key, asked), *result = json_object_get(answer, "result");
    ht_json_set(&r->all, key, json_incref(result ? result : answer));
    json_decref(answer);
}

/* Each runtime by itself, for one that crashes takes no other along. */
static void add_devices(report *r) {
    json_t *runtimes = json_object();
    for (size_t i = 0; ht_device_runtimes[i]; i++) {
        const ht_device_ops *runtime = ht_device_runtimes[i];
        char which[64];
        const char *const asked[] = {"part=list", which, NULL};
        snprintf(which, sizeof which, "runtime=%s", runtime->prefix);
        json_t *answer = run_part(r, runtime->prefix, asked), *result = json_object_get(answer, "result"), *device;
        const char *why = json_string_value(json_object_get(answer, "error"));
        size_t k;
        append_all(r, "devices", json_object_get(result, "devices"));
        append_all(r, "missing", json_object_get(result, "missing"));
        if (why) {
            append(r, "missing", json_pack("{s:s, s:s}", "name", runtime->prefix, "why", why));
            ht_json_set(&runtimes, runtime->prefix, json_string(why));
            r->cut_short = true;
        }
        json_array_foreach(json_object_get(result, "missing"), k, device)
            ht_json_set(&runtimes, runtime->prefix, json_incref(json_object_get(device, "why")));
        json_array_foreach(json_object_get(result, "devices"), k, device) /* the last one's version stays */
            ht_json_set(&runtimes, runtime->prefix, json_incref(json_object_get(device, "runtime")));
        json_decref(answer);
    }
    ht_json_set(&r->all, "runtimes", runtimes);
}

static void add_run(report *r, const char *devices) {
    ht_text model = {0}, named = {0};
    char name[300], threads[32];
    snprintf(threads, sizeof threads, "threads=%d", r->options->threads);
    if (ht_text_printf(&model, r->error, "model=%s", r->model) ||
        ht_text_printf(&named, r->error, "devices=%s", devices ? devices : "")) {
        ht_text_free(&model);
        return;
    }
    const char *const asked[] = {"part=run", r->program ? "apart=yes" : "apart=no", model.data,
                                 threads,    devices ? named.data : NULL,           NULL};
    snprintf(name, sizeof name, "running on %s", devices ? devices : "the default devices");
    json_t *answer = run_part(r, name, asked), *result = json_object_get(answer, "result"), *row;
    json_t *open = json_object_get(result, "open_seconds");
    static const char *const keys[] = {"plans", "bench"};
    size_t i;
    for (size_t k = 0; k < HT_COUNT(keys); k++)
        json_array_foreach(json_object_get(result, keys[k]), i, row) {
            json_t *copy = json_copy(row);
            ht_json_set(&copy, "devices", json_string(devices ? devices : "default"));
            if (k == 1)
                ht_json_set(&copy, "open_seconds", json_incref(open));
            if (copy)
                append(r, keys[k], copy);
            else
                ht_json_set(&r->all, keys[k], NULL); /* no memory */
        }
    if (answer && !result) {
        ht_json_set(&answer, "devices", json_string(devices ? devices : "default"));
        append(r, "bench", json_incref(answer));
        const char *status = json_string_value(json_object_get(answer, "status"));
        if (r->options->devices && status && !strcmp(status, ht_status_name(HT_ERROR_ARGUMENT))) /* a misspelt name */
            ht_fail(r->error, HT_ERROR_ARGUMENT, "%s", json_string_value(json_object_get(answer, "error")));
    }
    json_decref(answer);
    ht_text_free(&model);
    ht_text_free(&named);
}

/* The devices that are run one by one, too, with commas: those that were named, or all real ones. */
static ht_status single_devices(const report *r, ht_text *list, ht_error *error) {
    if (r->options->devices && *r->options->devices)
        return ht_device_expand(r->options->devices, list, error);
    const json_t *devices = json_object_get(r->all, "devices");
    const size_t n = json_array_size(devices);
    ht_device_info *rows;
    bool *chosen = NULL;
    ht_status status = ht_alloc((void **)&rows, n + 1, sizeof *rows, "the list of devices", error);
    if (status)
        return status;
    status = ht_alloc((void **)&chosen, n + 1, sizeof *chosen, "the list of devices", error);
    for (size_t i = 0; i < n && !status; i++) {
        const json_t *device = json_array_get(devices, i);
        const char *name = json_string_value(json_object_get(device, "name"));
        rows[i] = (ht_device_info){.usable = true,
                                   .simulated = !strncmp(name, "sim:", 4),
                                   .emulated = json_is_true(json_object_get(device, "emulated"))};
        snprintf(rows[i].name, sizeof rows[i].name, "%s", name);
        snprintf(rows[i].kind, sizeof rows[i].kind, "%s", json_string_value(json_object_get(device, "kind")));
    }
    if (!status)
        ht_device_choose(rows, n, chosen);
    for (size_t i = 0; i < n && !status; i++)
        if (chosen[i])
            status = ht_text_printf(list, error, "%s,", rows[i].name);
    char companion[256];
    ht_device_companion(&(ht_cores){{0}}, companion);
    if (!status)
        status = ht_text_printf(list, error, "%s", companion);
    free(chosen);
    free(rows);
    return status;
}

static ht_status add_runs(report *r) {
    ht_text singles = {0};
    char spec[256];
    ht_status status = single_devices(r, &singles, r->error);
    if (status) {
        ht_text_free(&singles);
        return status;
    }
    const bool several = strchr(singles.data, ',') != NULL || r->cut_short;
    const char *list = singles.data;
    for (const char *c = list; *c; c++)
        r->total += several && (*c == ',' || !c[1]);
    add_run(r, r->options->devices && *r->options->devices ? r->options->devices : NULL);
    while (several && !r->error->status && ht_device_next(&list, spec))
        add_run(r, spec);
    ht_text_free(&singles);
    return r->error->status;
}

static void add_build(report *r) {
    char date[32];
    ht_os_date("%Y-%m-%dT%H:%M:%SZ", date, sizeof date);
    ht_json_set(&r->all, "hetero",
                json_pack("{s:s, s:s, s:s, s:s, s:s}", "version", ht_version(), "commit", ht_commit(), "compiler",
                          ht_build_compiler(), "flags", ht_build_flags(), "target", ht_build_target()));
    ht_json_set(&r->all, "date", json_string(date));
    ht_json_set(&r->all, "machine", ht_host_json(""));
}

static ht_status fill(report *r) {
    const bool made_up = strncmp(r->model, "shape:", 6) == 0;
    const int reason = made_up ? 0 : ht_os_may_read(r->model);
    if (reason)
        return ht_fail(r->error, HT_ERROR_IO, "%s: %s", r->model, strerror(reason));
    ht_text model = {0};
    if (ht_text_printf(&model, r->error, "model=%s", r->model))
        return r->error->status;
    for (size_t i = 0; ht_device_runtimes[i]; i++)
        r->total++;
    r->total += 3; /* profile, model, all devices at once */
    add_build(r);
    add_devices(r);
    add_part(r, "profile", (const char *const[]){"part=profile", NULL});
    add_part(r, "model", (const char *const[]){"part=model", model.data, NULL});
    ht_text_free(&model);
    const char *failed = json_string_value(json_object_get(json_object_get(r->all, "model"), "error"));
    if (r->error->status)
        return r->error->status;
    if (failed && made_up)
        return ht_fail(r->error, HT_ERROR_ARGUMENT, "%s", failed);
    append(r, "plans", NULL), append(r, "bench", NULL);
    return failed ? HT_OK : add_runs(r);
}

ht_status ht_report(const char *model, const ht_engine_options *options, const char *const *program, char **json,
                    ht_error *error) {
    ht_error why = {0};
    report r = {.model = model ? model : DEFAULT_MODEL,
                .program = program,
                .options = options,
                .all = json_object(),
                .error = &why};
    ht_scrubber *scrubber = NULL;
    ht_status status = fill(&r);
    if (!status)
        status = ht_scrubber_create(r.model, options->devices, &scrubber, &why);
    if (!status)
        status = ht_scrub_json(scrubber, r.all, &why);
    if (!status)
        status = ht_json_text(json_incref(r.all), JSON_INDENT(1) | JSON_REAL_PRECISION(6), "the report", json, &why);
    ht_scrubber_destroy(scrubber);
    json_decref(r.all);
    if (status && error)
        *error = why;
    return status;
}

/* ---- the file ---------------------------------------------------------------------------------------------------------------- */

ht_status ht_report_save(const char *json, const char *path, char *written, size_t capacity, ht_error *error) {
    char name[64];
    ht_os_date("hetero-report-%Y%m%d-%H%M%S.json", name, sizeof name);
    if (!path) { /* taken here and now, if it is free */
        FILE *file = ht_os_create(name, false);
        if (!file)
            return ht_fail(error, errno == EEXIST ? HT_ERROR_ARGUMENT : HT_ERROR_IO, "%s: %s", name, strerror(errno));
        fclose(file);
    }
    ht_status status = ht_file_write(path ? path : name, json, strlen(json), error);
    if (status && !path)
        ht_os_remove(name);
    if (!status)
        snprintf(written, capacity, "%s", path ? path : name);
    return status;
}
