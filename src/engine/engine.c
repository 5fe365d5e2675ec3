/* An engine: devices opened, operators placed on them (placement.c), one pool of buffers, KV caches. */
#include "engine/engine.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_CONTEXT 4096
#define DEFAULT_CHUNK 512

/* ---- devices ---------------------------------------------------------------------------------------------------------- */

static ht_status open_device(ht_engine *engine, const ht_engine_options *options, const char *spec, ht_error *error) {
    if (engine->set.n_devices == HT_MAX_DEVICES)
        return ht_fail(error, HT_ERROR_ARGUMENT, "devices: more than %d", HT_MAX_DEVICES);
    const ht_device_options device = {.threads = options->threads,
                                      .precision = options->precision,
                                      .hparams = &engine->model->hparams,
                                      .max_tokens = (size_t)engine->info.chunk,
                                      .max_context = (size_t)engine->info.context,
                                      .kv_type = engine->info.kv_type,
                                      .graph_memory = options->npu_memory,
                                      .machine = &engine->set.machine,
                                      .made_up = engine->model->shape != NULL,
                                      .progress = options->progress,
                                      .progress_user = options->progress_user};
    ht_status status = ht_device_open(spec, &device, &engine->set.devices[engine->set.n_devices], error);
    if (status)
        return status;
    ht_clock *clock = ht_device_clock(engine->set.devices[engine->set.n_devices++]);
    if (engine->set.n_devices > 1 && clock != engine->set.time)
        return ht_fail(error, HT_ERROR_ARGUMENT, "devices: simulated and real ones cannot share an engine (%s)", spec);
    engine->set.time = clock;
    return HT_OK;
}

/* The name of the CPU device on these cores: "cpu:cpus=0-1,4"; on any where there are none: "cpu". */
static void cpu_spec(const ht_cores *cores, char spec[256]) {
    const int at = snprintf(spec, 256, ht_cores_any(cores) ? "cpu:cpus=" : "cpu");
    ht_cores_print(cores, spec + at, 256 - (size_t)at);
}

/* The CPU beside devices that compute some operators only: on the cores of the first one, if that is a CPU itself. */
static ht_status open_companion(ht_engine *engine, const ht_engine_options *options, ht_error *error) {
    char spec[256] = "cpu";
    const ht_device_caps *first =
        engine->set.n_devices ? engine->set.devices[0]->ops->caps(engine->set.devices[0]) : NULL;
    for (size_t d = 0; d < engine->set.n_devices; d++) /* it refused something: another would do so, too */
        if (engine->set.devices[d]->ops == &ht_device_cpu)
            return HT_OK;
    if (first && first->companion)
        return open_device(engine, options, first->companion, error);
    if (first && first->kind == HT_DEVICE_CPU && !ht_cores_same(&first->cores, ht_all_cores()))
        cpu_spec(&first->cores, spec);
    return open_device(engine, options, spec, error);
}

/* ---- lanes ------------------------------------------------------------------------------------------------------------- */

static const ht_cores *cores_of(const ht_engine *engine, size_t d) {
    return &engine->set.devices[d]->ops->caps(engine->set.devices[d])->cores;
}

/* The device that is open by this name, whatever its options; n_devices: there is none. */
static size_t find_device(const ht_engine *engine, const char *spec) {
    for (size_t d = 0; d < engine->set.n_devices; d++) {
        const char *name = engine->set.devices[d]->ops->caps(engine->set.devices[d])->name;
        const size_t n = strlen(name);
        if (!strncmp(name, spec, n) && (!spec[n] || spec[n] == ':'))
            return d;
    }
    return engine->set.n_devices;
}

/* The CPU device that computes on cores of device d, what d does not take: one that is open, or a new one. */
static ht_status find_companion(ht_engine *engine, const ht_engine_options *options, size_t d, size_t *companion,
                                ht_error *error) {
    const ht_device_caps *caps = engine->set.devices[d]->ops->caps(engine->set.devices[d]);
    const ht_cores *cores = &caps->cores;
    if (caps->companion) {
        const size_t i = find_device(engine, caps->companion);
        *companion = i;
        return i < engine->set.n_devices ? HT_OK : open_device(engine, options, caps->companion, error);
    }
    for (size_t i = 0; i < engine->set.n_devices; i++)
        if (engine->set.devices[i]->ops == &ht_device_cpu &&
            (!ht_cores_any(cores) || ht_cores_within(cores_of(engine, i), cores)))
            return *companion = i, HT_OK;
    char spec[256] = "cpu";
    cpu_spec(cores, spec);
    *companion = engine->set.n_devices;
    return open_device(engine, options, spec, error);
}

/* Does a device that takes some operators only compute on these cores, as a processor in an NPU's place? */
static bool stands_in(const ht_engine *engine, const ht_cores *cores) {
    for (size_t d = 0; d < engine->set.n_devices; d++)
        if (!ht_lanes_take_all(&engine->set, 1u << d) && ht_cores_meet(cores_of(engine, d), cores))
            return true;
    return false;
}

/* A lane of each whole device and of each partial one with its companion; static lengths first, for they take the pieces
 * that fill them and leave the rest to others. A CPU that is only there as a companion is a lane of its own beside a device
 * that computes on its very cores: with few tokens it may be the quicker one (which nobody knows of emulated ones). */
static ht_status find_lanes(ht_engine *engine, const ht_engine_options *options, ht_error *error) {
    for (int whole = 0; whole < 2; whole++)
        for (size_t d = 0; d < engine->set.n_devices; d++) {
            ht_lane lane = {.devices = 1u << d, .cores = *cores_of(engine, d)};
            if (ht_lanes_take_all(&engine->set, 1u << d) != (whole == 1))
                continue;
            if (!whole) {
                size_t companion;
                ht_status status = find_companion(engine, options, d, &companion, error);
                if (status)
                    return status;
                lane.devices |= 1u << companion;
                ht_cores_join(&lane.cores, cores_of(engine, companion));
            } else if (d >= engine->n_named && (engine->by_rule || !stands_in(engine, cores_of(engine, d)))) {
                continue;
            }
            engine->set.lanes[engine->set.n_lanes++] = lane;
        }
    return HT_OK;
}

/* Do any two lanes share no cores? */
static bool can_share(const ht_engine *engine) {
    for (size_t a = 0; a < engine->set.n_lanes; a++)
        for (size_t b = a + 1; b < engine->set.n_lanes; b++)
            if (!ht_cores_meet(&engine->set.lanes[a].cores, &engine->set.lanes[b].cores))
                return true;
    return false;
}

/* Names of cuts, separated by commas, as bits. */
static ht_status parse_cuts(const char *text, unsigned *cuts, ht_error *error) {
    static const char *const names[] = {"layer", "row", "sequence", "hybrid", "feature", "head", "causal"};
    *cuts = 0;
    while (*text) {
        const size_t n = strcspn(text, ",");
        size_t i = 0;
        while (i < HT_COUNT(names) && (strlen(names[i]) != n || strncmp(names[i], text, n) != 0))
            i++;
        if (i == HT_COUNT(names))
            return ht_fail(error, HT_ERROR_ARGUMENT,
                           "cuts: \"%.*s\" is none of layer, row, sequence, hybrid, feature, head, causal", (int)n,
                           text);
        *cuts |= 1u << i;
        text += n + (text[n] == ',');
    }
    return HT_OK;
}

static ht_status read_cuts(ht_engine *engine, const char *text, ht_error *error) {
    engine->passes.forced = text != NULL;
    engine->passes.cuts = HT_CUT_ALL;
    return text ? parse_cuts(text, &engine->passes.cuts, error) : HT_OK;
}

static void find_crowded(ht_engine *engine) {
    for (size_t l = 0; l < engine->set.n_lanes; l++)
        for (size_t d = 0; d < engine->set.n_devices; d++) {
            const ht_device_caps *caps = engine->set.devices[d]->ops->caps(engine->set.devices[d]);
            if (engine->set.lanes[l].devices >> d & 1 && !caps->runs_in_caller && ht_cores_any(&caps->cores))
                engine->set.lanes[l].crowded = true;
        }
}

/* One lane with every device where nothing is to be shared or chosen. */
static ht_status make_lanes(ht_engine *engine, const ht_engine_options *options, ht_error *error) {
    const bool shares = options->strategy == HT_STRATEGY_TENSOR || options->strategy == HT_STRATEGY_LAYER;
    ht_status status = HT_OK;
    if (shares || (options->strategy == HT_STRATEGY_AUTO && engine->n_named > 1))
        status = find_lanes(engine, options, error);
    if (!status && shares && !can_share(engine))
        return ht_fail(error, HT_ERROR_ARGUMENT,
                       "strategy %s needs at least two devices that share no cores; in use: %s",
                       options->strategy == HT_STRATEGY_LAYER ? "layer" : "tensor",
                       engine->set.devices[0]->ops->caps(engine->set.devices[0])->name);
    if (status)
        return status;
    if (engine->set.n_lanes < 2) {
        ht_lane *all = &engine->set.lanes[0];
        engine->set.n_lanes = 1;
        *all = (ht_lane){.devices = (1u << engine->set.n_devices) - 1};
        for (size_t d = 0; d < engine->set.n_devices; d++) /* cpus= is for our thread, too */
            ht_cores_join(&all->cores, cores_of(engine, d));
        if (ht_cores_same(&all->cores, ht_all_cores()))
            all->cores = (ht_cores){{0}};
        find_crowded(engine);
        return HT_OK;
    }
    find_crowded(engine);
    status = read_cuts(engine, options->strategy == HT_STRATEGY_LAYER ? "layer" : options->cuts, error);
    engine->set.apart =
        options->cuts && options->strategy == HT_STRATEGY_TENSOR && !(engine->passes.cuts & HT_CUT_FEATURES);
    return status ? status : ht_crew_create(engine->set.n_lanes, &engine->passes.crew, error);
}

/* A device that is not there is done without if others are, or if the CPU would be beside it anyway; so is one that nobody
 * named, whatever is wrong with it. */
static ht_status open_list(ht_engine *engine, const ht_engine_options *options, const char *list, ht_error *error) {
    char spec[256];
    ht_error missing = {0}; /* the last one */
    bool partial = false;
    while (ht_device_next(&list, spec)) {
        if (!*spec)
            return ht_fail(error, HT_ERROR_ARGUMENT, "devices: an empty or overlong name in \"%s\"", options->devices);
        ht_error failure = {0};
        ht_status status = open_device(engine, options, spec, &failure);
        if (status == HT_ERROR_DEVICE || (status && status != HT_ERROR_CANCELLED && engine->found && *list)) {
            if (missing.status)
                ht_log(HT_LOG_WARN, "going on without %s", missing.text);
            missing = failure;
            partial |= ht_device_is_partial(spec);
        } else if (status) {
            if (error)
                *error = failure;
            return status;
        }
    }
    if (missing.status && engine->set.n_devices == 0 && !partial) {
        if (error)
            *error = missing;
        return missing.status;
    }
    if (missing.status)
        ht_log(HT_LOG_WARN, "going on without %s", missing.text);
    return HT_OK;
}

static bool is_emulated(const ht_engine *engine, size_t d) {
    return engine->set.devices[d]->ops->caps(engine->set.devices[d])->emulated;
}

/* Nobody knows whether an emulated device is worth its share: where the choice is ours, real ones are used without it. */
static void set_aside_emulated(ht_engine *engine, const ht_engine_options *options) {
    size_t real = 0, kept = 0;
    for (size_t d = 0; d < engine->set.n_devices; d++)
        real += !is_emulated(engine, d);
    if (options->strategy != HT_STRATEGY_AUTO || real == 0)
        return;
    for (size_t d = 0; d < engine->set.n_devices; d++) {
        ht_device *device = engine->set.devices[d];
        if (!is_emulated(engine, d)) {
            engine->set.devices[kept++] = device;
            continue;
        }
        ht_log(HT_LOG_WARN, "%s is emulated: strategy auto does without it (tensor and layer use it)",
               device->ops->caps(device)->name);
        device->ops->close(device);
    }
    engine->set.n_devices = kept;
}

static ht_status open_devices(ht_engine *engine, const ht_engine_options *options, ht_error *error) {
    ht_text expanded = {0};
    ht_status status = ht_device_expand(options->devices, &expanded, error);
    if (!status)
        status = open_list(engine, options, expanded.data, error);
    ht_text_free(&expanded);
    if (status)
        return status;
    set_aside_emulated(engine, options);
    engine->n_named = engine->set.n_devices;
    for (size_t d = 0; d < engine->set.n_devices; d++)
        engine->info.emulated |= is_emulated(engine, d);
    engine->by_rule = engine->passes.fixed = engine->info.emulated;
    const bool lanes = options->strategy != HT_STRATEGY_SINGLE && engine->n_named > 1;
    if (lanes || options->strategy == HT_STRATEGY_TENSOR || options->strategy == HT_STRATEGY_LAYER ||
        ht_lanes_take_all(&engine->set, (1u << engine->set.n_devices) - 1))
        return HT_OK;
    return open_companion(engine, options, error);
}

/* ---- create, destroy -------------------------------------------------------------------------------------------------------- */

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

static ht_status read_options(ht_engine *engine, const ht_engine_options *options, ht_error *error) {
    const int own = engine->model->hparams.context_length;
    ht_status status = check_options(options, error);
    if (status)
        return status;
    if (options->context > own)
        return ht_fail(error, HT_ERROR_ARGUMENT, "context: %d tokens are more than the model's own %d",
                       options->context, own);
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
    return HT_OK;
}

/* info.devices: those that have something to compute. */
static void name_devices(ht_engine *engine) {
    for (size_t d = 0; d < engine->set.n_devices; d++) {
        const char *name = engine->set.devices[d]->ops->caps(engine->set.devices[d])->name;
        if (ht_lanes_use(&engine->set, d, false))
            engine->names[engine->info.n_devices++] = name;
        else if (!engine->found && d < engine->n_named)
            ht_log(HT_LOG_WARN, "%s has nothing to compute: other devices have every operator", name);
    }
    engine->info.devices = engine->names;
}

/* found: nobody named options->devices. */
static ht_status create_engine(ht_model *model, const ht_engine_options *options, bool found, ht_engine **out,
                               ht_error *error) {
    ht_engine *engine;
    ht_status status = ht_alloc((void **)&engine, 1, sizeof *engine, "an engine", error);
    if (status)
        return status;
    engine->model = model;
    engine->found = found;
    atomic_flag_clear(&engine->set.busy);
    status = read_options(engine, options, error);
    if (!status)
        status = ht_model_extend_rope(model, (size_t)engine->info.context, error);
    if (!status)
        status = open_devices(engine, options, error);
    if (!status)
        status = make_lanes(engine, options, error);
    if (!status)
        status = ht_lanes_make_slots(&engine->set, error);
    if (!status)
        status = ht_lanes_place(&engine->set, options, error);
    if (status) {
        ht_engine_destroy(engine);
        return status;
    }
    engine->info.weight_bytes = ht_lanes_task_bytes(&engine->set);
    ht_lanes_plan_transfers(&engine->set);
    if (engine->set.n_lanes > 1) {
        status = ht_lanes_make_buffers(&engine->set, error);
        bool reduced = false;
        if (!status)
            status = ht_passes_prepare(&engine->passes, error);
        if (!status)
            status = ht_engine_measure_lanes(engine, options, error);
        if (!status && options->strategy == HT_STRATEGY_AUTO)
            status = ht_engine_reduce(engine, options, &reduced, error);
        if (!status && reduced)
            ht_lanes_plan_transfers(&engine->set);
        else if (!status)
            status = ht_engine_expect(engine, options, error);
        if (status) {
            ht_engine_destroy(engine);
            return status;
        }
    }
    name_devices(engine);
    engine->info.buffer_bytes = engine->set.buffer_bytes;
    for (size_t d = 0; d < engine->set.n_devices; d++) {
        const ht_device_caps *caps = engine->set.devices[d]->ops->caps(engine->set.devices[d]);
        if (caps->kind == HT_DEVICE_CPU)
            engine->info.threads = options->threads   ? options->threads
                                   : engine->set.time ? ht_cores_count(&caps->cores)
                                                      : ht_default_threads(&caps->cores);
    }
    *out = engine;
    return HT_OK;
}

/* What was only found must not keep from working what the CPU can do alone. */
ht_status ht_engine_create_found(ht_model *model, const ht_engine_options *options, const char *found, ht_engine **out,
                                 ht_error *error) {
    ht_engine_options all = *options;
    ht_error failure = {0};
    all.devices = found;
    ht_status status = create_engine(model, &all, true, out, &failure);
    if ((status == HT_ERROR_DEVICE || status == HT_ERROR_MEMORY) && strcmp(found, "cpu") != 0) {
        ht_log(HT_LOG_WARN, "going on with the CPU alone: %s", failure.text);
        all.devices = "cpu";
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
    free(engine);
}

const ht_engine_info *ht_engine_get_info(const ht_engine *engine) {
    return &engine->info;
}
ht_model *ht_engine_model(const ht_engine *engine) {
    return engine->model;
}
