/* An engine comes to be in phases, and goes. */
#include "engine/engine.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_CONTEXT 4096
#define DEFAULT_CHUNK 512

/* ---- options
 * ------------------------------------------------------------------------------------------------------------- */

/* Names of cuts, separated by commas, as bits. */
static ht_status parse_cuts(const char *text, unsigned *cuts, ht_error *error) {
    static const char *const names[] = {"layer", "row",    "sequence", "hybrid", "feature",
                                        "head",  "causal", "query",    "expert", "channel"};
    *cuts = 0;
    while (*text) {
        const size_t n = strcspn(text, ",");
        size_t i = 0;
        while (i < HT_COUNT(names) && (strlen(names[i]) != n || strncmp(names[i], text, n) != 0))
            i++;
        if (i == HT_COUNT(names))
            return ht_fail(
                error, HT_ERROR_ARGUMENT,
                "cuts: invalid value \"%.*s\" (expected layer, row, sequence, hybrid, feature, head, causal, "
                "query, expert or channel)",
                (int)n, text);
        *cuts |= 1u << i;
        text += n + (text[n] == ',');
    }
    return HT_OK;
}

/* What a caller can set wrongly without the compiler's noticing, whatever devices there will be. */
static ht_status check_options(const ht_engine_options *options, ht_error *error) {
    const struct {
        const char *name;
        long long value;
        int least, most;
    } ranges[] = {
        {"context", options->context, 0, INT_MAX},
        {"chunk", options->chunk, 0, INT_MAX},
        {"threads", options->threads, 0, HT_MAX_THREADS},
        {"precision", (int)options->precision, 0, HT_PRECISION_EXACT},
        {"kv_type", (int)options->kv_type, 0, HT_KV_F32},
        {"sync", (int)options->sync, 0, HT_SYNC_FLAG},
        {"strategy", (int)options->strategy, 0, HT_STRATEGY_TENSOR},
    };
    for (size_t i = 0; i < HT_COUNT(ranges); i++) {
        if (ranges[i].value < ranges[i].least)
            return ht_fail(error, HT_ERROR_ARGUMENT, "%s: must not be negative (got %lld)", ranges[i].name,
                           ranges[i].value);
        if (ranges[i].value > ranges[i].most)
            return ht_fail(error, HT_ERROR_ARGUMENT, "%s: must be at most %d (got %lld)", ranges[i].name,
                           ranges[i].most, ranges[i].value);
    }
    if (options->n_prompts > 0 && !options->prompts)
        return ht_fail(error, HT_ERROR_ARGUMENT, "prompts: %zu lengths, but no list of them", options->n_prompts);
    for (size_t i = 0; i < options->n_prompts; i++)
        if (options->prompts[i] < 0)
            return ht_fail(error, HT_ERROR_ARGUMENT, "prompts: must not be negative (got %d tokens)",
                           options->prompts[i]);
    unsigned cuts; /* even where they will not matter: a typo is to be seen */
    return options->cuts ? parse_cuts(options->cuts, &cuts, error) : HT_OK;
}

/* Which cuts were asked for. Strategy layer is one of them: whole matrices to another lane. */
static ht_status read_policy(ht_engine *engine, const ht_engine_options *options, ht_error *error) {
    const char *text = options->strategy == HT_STRATEGY_LAYER ? "layer" : options->cuts;
    ht_policy *policy = &engine->passes.policy;
    *policy = (ht_policy){.cuts = HT_CUT_ALL, .must_share = text != NULL};
    ht_status status = text ? parse_cuts(text, &policy->cuts, error) : HT_OK;
    engine->set.ffn_apart =
        options->cuts && options->strategy == HT_STRATEGY_TENSOR && !(policy->cuts & HT_CUT_FEATURES);
    return status;
}

/* A longer prompt will be refused: what is expected is that long a pass at most. */
static ht_status keep_prompts(ht_engine *engine, const ht_engine_options *options, ht_error *error) {
    if (!options->n_prompts)
        return HT_OK;
    ht_status status =
        ht_alloc((void **)&engine->prompts, options->n_prompts, sizeof *engine->prompts, "expected prompts", error);
    for (size_t i = 0; i < options->n_prompts && !status; i++)
        engine->prompts[engine->n_prompts++] =
            options->prompts[i] < engine->info.context ? options->prompts[i] : engine->info.context;
    return status;
}

static ht_status read_options(ht_engine *engine, const ht_engine_options *options, ht_error *error) {
    const int own = engine->model->hparams.context_length;
    ht_status status = check_options(options, error);
    if (status)
        return status;
    if (options->context > own)
        return ht_fail(error, HT_ERROR_ARGUMENT, "context: %d tokens exceed the model's own %d", options->context, own);
    engine->info.context = options->context ? options->context : (int)ht_min_size((size_t)own, DEFAULT_CONTEXT);
    engine->info.chunk = options->chunk ? options->chunk : DEFAULT_CHUNK;
    if (engine->info.chunk > engine->info.context)
        engine->info.chunk = engine->info.context;
    engine->info.precision = options->precision;
    engine->info.kv_type = options->kv_type;
    engine->set.model = engine->model;
    engine->set.chunk = (size_t)engine->info.chunk;
    engine->set.context = (size_t)engine->info.context;
    engine->set.kv_type = options->kv_type;
    engine->set.sync = options->sync;
    engine->passes.set = &engine->set;
    engine->info.kv_bytes_per_session = ht_kv_bytes(&engine->set);
    status = read_policy(engine, options, error);
    if (!status)
        status = keep_prompts(engine, options, error);
    return status ? status : ht_model_extend_rope(engine->model, (size_t)engine->info.context, error);
}

/* info.devices: those that have something to compute. */
static void name_devices(ht_engine *engine) {
    for (size_t d = 0; d < engine->set.n_devices; d++) {
        const char *name = ht_lanes_caps(&engine->set, d)->name;
        if (ht_lanes_use(&engine->set, d, false))
            engine->names[engine->info.n_devices++] = name;
        else if (d < engine->n_named) {
            char room[32], why[128] = "other devices handle every operator";
            if (ht_engine_is_bounded(engine, d))
                snprintf(why, sizeof why, "it may hold %s, and nothing that fits is quicker there",
                         ht_size_text(engine->set.limits[d], room));
            ht_engine_drop(engine, "%s: idle, %s", name, why);
            if (!engine->found)
                ht_log(HT_LOG_WARN, "%s is idle: %s", name, why);
        }
    }
    engine->info.devices = engine->names;
}

static void fill_info(ht_engine *engine, const ht_engine_options *options) {
    name_devices(engine);
    engine->info.buffer_bytes = engine->set.buffer_bytes;
    for (size_t d = 0; d < engine->set.n_devices; d++) {
        const ht_device_caps *caps = ht_lanes_caps(&engine->set, d);
        if (caps->kind == HT_DEVICE_CPU)
            engine->info.threads = options->threads   ? options->threads
                                   : engine->set.time ? ht_cores_count(&caps->cores)
                                                      : ht_default_threads(&caps->cores);
    }
}

/* found: nobody named options->devices. */
static ht_status create_engine(ht_model *model, const ht_engine_options *options, bool found, ht_engine **out,
                               ht_error *error) {
    static ht_status (*const phases[])(ht_engine *, const ht_engine_options *, ht_error *) = {
        read_options,           ht_engine_open_devices, ht_engine_make_lanes, ht_engine_measure,
        ht_engine_choose_lanes, ht_engine_hold,         ht_engine_expect};
    ht_engine *engine;
    ht_status status = ht_alloc((void **)&engine, 1, sizeof *engine, "an engine", error);
    if (status)
        return status;
    engine->model = model;
    engine->found = found;
    engine->progress = (ht_progress){options->progress, options->progress_user};
    ht_turns_init(&engine->set.turns);
    for (size_t i = 0; i < HT_COUNT(phases) && !status; i++)
        status = phases[i](engine, options, error);
    if (status) {
        ht_engine_destroy(engine);
        return status;
    }
    fill_info(engine, options);
    engine->progress.function = NULL; /* from now on `user` may be gone, whatever devices still have to do */
    *out = engine;
    return HT_OK;
}

/* What was only found must not keep from working what the CPU can do alone. */
ht_status ht_engine_create_found(ht_model *model, const ht_engine_options *options, const char *found, ht_engine **out,
                                 ht_error *error) {
    ht_engine_options all = *options;
    ht_error failure = {0};
    char companion[256];
    ht_device_companion(&(ht_cores){{0}}, companion);
    all.devices = found;
    ht_status status = create_engine(model, &all, true, out, &failure);
    if ((status == HT_ERROR_DEVICE || status == HT_ERROR_MEMORY) && strcmp(found, companion) != 0) {
        ht_log(HT_LOG_WARN, "continuing with the CPU alone: %s", failure.text);
        all.devices = companion;
        status = create_engine(model, &all, true, out, &failure);
    }
    if (status && error)
        *error = failure;
    return status;
}

ht_status ht_engine_create(ht_model *model, const ht_engine_options *options, ht_engine **out, ht_error *error) {
    ht_engine_options read;
    ht_error own = {0}; /* the log says why a device is done without, even if the caller does not want to know */
    if (!error)
        error = &own;
    ht_status status = ht_struct_read(&read, sizeof read, options, "ht_engine_options", error);
    if (status)
        return status;
    if (ht_model_get_info(model)->vocabulary_alone)
        return ht_fail(error, HT_ERROR_ARGUMENT, "%s was opened for its vocabulary alone",
                       ht_model_get_info(model)->path);
    options = &read;
    if (options->devices && *options->devices)
        return create_engine(model, options, false, out, error);
    ht_text found = {0};
    status = ht_device_defaults(HT_MAX_DEVICES, &found, error);
    if (!status)
        status = ht_engine_create_found(model, options, found.data, out, error);
    ht_text_free(&found);
    return status;
}

void ht_engine_destroy(ht_engine *engine) {
    if (!engine)
        return;
    ht_lanes_settle(&engine->set);
    ht_passes_clear(&engine->passes);
    ht_lanes_close(&engine->set);
    ht_turns_destroy(&engine->set.turns);
    free(engine->wish.program.steps);
    free(engine->prompts);
    free(engine);
}

const ht_engine_info *ht_engine_get_info(const ht_engine *engine) {
    return &engine->info;
}
ht_model *ht_engine_model(const ht_engine *engine) {
    return engine->model;
}
