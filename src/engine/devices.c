/* The first phase: devices opened by name, and the CPU beside those that compute some operators only. */
#include "engine/engine.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- one device
 * ---------------------------------------------------------------------------------------------------------- */

static ht_status open_device(ht_engine *engine, const ht_engine_options *options, const char *named, ht_error *error) {
    char spec[256];
    uint64_t limit;
    if (engine->set.n_devices == HT_MAX_DEVICES)
        return ht_fail(error, HT_ERROR_ARGUMENT, "devices: more than %d", HT_MAX_DEVICES);
    snprintf(spec, sizeof spec, "%s", named);
    ht_status status = ht_device_take_limit(spec, &limit, error);
    if (status)
        return status;
    const ht_device_options device = {.threads = options->threads,
                                      .precision = options->precision,
                                      .hparams = &engine->model->hparams,
                                      .max_tokens = (size_t)engine->info.chunk,
                                      .max_context = (size_t)engine->info.context,
                                      .kv_type = engine->info.kv_type,
                                      .graph_memory = limit ? limit : options->npu_memory,
                                      .machine = &engine->set.machine,
                                      .made_up = engine->model->shape != NULL,
                                      .progress = &engine->progress};
    status = ht_device_open(spec, &device, &engine->set.devices[engine->set.n_devices], error);
    if (status)
        return status;
    const ht_device_caps *caps = ht_lanes_caps(&engine->set, engine->set.n_devices);
    if (!caps->n_lengths) /* graphs have a limit of their own */
        engine->set.limits[engine->set.n_devices] = limit                  ? limit
                                                    : caps->unified_memory ? 0
                                                                           : caps->memory_bytes / 100 * HT_OF_MEMORY;
    memcpy(engine->asked[engine->set.n_devices], spec, sizeof spec);
    ht_clock *clock = ht_device_clock(engine->set.devices[engine->set.n_devices++]);
    if (engine->set.n_devices > 1 && clock != engine->set.time)
        return ht_fail(error, HT_ERROR_ARGUMENT, "devices: simulated and real ones cannot share an engine (%s)", spec);
    engine->set.time = clock;
    return HT_OK;
}

/* The device that is open by this name, whatever its options; n_devices: there is none. */
static size_t find_device(const ht_engine *engine, const char *spec) {
    const ht_lanes *set = &engine->set;
    for (size_t d = 0; d < set->n_devices; d++) {
        const char *const names[] = {ht_lanes_caps(set, d)->name, engine->asked[d]}; /* with a chip's changes, too */
        for (size_t i = 0; i < HT_COUNT(names); i++) {
            const size_t n = i ? ht_device_name_bytes(names[i]) : strlen(names[i]);
            if (!strncmp(names[i], spec, n) && (!spec[n] || spec[n] == ':'))
                return d;
        }
    }
    return set->n_devices;
}

bool ht_engine_does_rest(const ht_engine *engine, size_t d) {
    return engine->set.devices[d]->ops->companion ||
           (engine->set.time && ht_lanes_caps(&engine->set, d)->kind == HT_DEVICE_CPU);
}

/* A CPU device that computes on no other cores than these (none: on any); n_devices: there is none. */
static size_t find_cpu(const ht_engine *engine, const ht_cores *cores) {
    const ht_lanes *set = &engine->set;
    for (size_t d = 0; d < set->n_devices; d++)
        if (ht_engine_does_rest(engine, d) &&
            (!ht_cores_any(cores) || ht_cores_within(&ht_lanes_caps(set, d)->cores, cores)))
            return d;
    return set->n_devices;
}

/* The device of this name, or where there is no name a CPU on these cores: one that is open, or a new one. */
static ht_status find_or_open(ht_engine *engine, const ht_engine_options *options, const char *name,
                              const ht_cores *cores, size_t *found, ht_error *error) {
    char spec[256];
    *found = name ? find_device(engine, name) : find_cpu(engine, cores);
    if (*found < engine->set.n_devices)
        return HT_OK;
    ht_device_companion(cores, spec);
    return open_device(engine, options, name ? name : spec, error);
}

ht_status ht_engine_companion(ht_engine *engine, const ht_engine_options *options, size_t d, size_t *companion,
                              ht_error *error) {
    const ht_device_caps *caps = ht_lanes_caps(&engine->set, d);
    return find_or_open(engine, options, caps->companion, &caps->cores, companion, error);
}

/* The CPU beside devices that compute some operators only: on the cores of the first one, if that is a CPU itself. */
static ht_status open_companion(ht_engine *engine, const ht_engine_options *options, ht_error *error) {
    const ht_lanes *set = &engine->set;
    const ht_device_caps *first = set->n_devices ? ht_lanes_caps(set, 0) : NULL;
    const bool divided = first && first->kind == HT_DEVICE_CPU && !ht_cores_same(&first->cores, ht_all_cores());
    const ht_cores any = {{0}};
    size_t found;
    if (find_cpu(engine, &any) < set->n_devices) /* it refused something: another would do so, too */
        return HT_OK;
    return find_or_open(engine, options, first ? first->companion : NULL, divided ? &first->cores : &any, &found,
                        error);
}

void ht_engine_drop(ht_engine *engine, const char *format, ...) {
    const size_t n = engine->info.n_dropped;
    va_list list;
    if (n == HT_COUNT(engine->dropped))
        return;
    va_start(list, format);
    vsnprintf(engine->dropped_texts[n], sizeof engine->dropped_texts[n], format, list);
    va_end(list);
    ht_make_printable(engine->dropped_texts[n]);
    engine->dropped[n] = engine->dropped_texts[n];
    engine->info.dropped = engine->dropped;
    engine->info.n_dropped++;
}

/* ---- fewer of them
 * ------------------------------------------------------------------------------------------------------- */

/* Tasks of devices that stay; place[d]: the new number of device d, -1: it goes. */
static void keep_tasks(ht_lanes *set, const int *place) {
    size_t n = 0;
    for (size_t t = 0; t < set->n_tasks; t++) {
        ht_slice_task task = set->tasks[t];
        ht_device *device = set->devices[task.device];
        if (place[task.device] < 0) {
            if (task.task)
                device->ops->release(device, task.task);
            continue;
        }
        task.device = place[task.device];
        set->tasks[n++] = task;
    }
    set->n_tasks = n;
    set->next_task = 0;
}

static void move_bits(uint32_t *bits, const int *place, size_t n) {
    uint32_t moved = 0;
    for (size_t d = 0; d < n; d++)
        if (place[d] >= 0)
            moved |= (*bits >> d & 1) << place[d];
    *bits = moved;
}

void ht_engine_keep_devices(ht_engine *engine, uint32_t kept) {
    ht_lanes *set = &engine->set;
    const size_t n_before = set->n_devices, n_named = engine->n_named;
    int place[HT_MAX_DEVICES] = {0};
    size_t n = 0;
    for (size_t d = 0; d < n_before; d++)
        place[d] = kept >> d & 1 ? (int)n++ : -1;
    keep_tasks(set, place);
    for (size_t i = 0; set->left && i < set->model->n_ops; i++) {
        move_bits(&set->left[i].placed, place, n_before);
        move_bits(&set->left[i].slow, place, n_before);
        move_bits(&set->left[i].full, place, n_before);
    }
    uint32_t failed = atomic_load(&set->failed);
    move_bits(&failed, place, n_before);
    atomic_store(&set->failed, failed);
    engine->n_named = 0;
    for (size_t d = 0; d < n_before; d++) {
        if (place[d] < 0) {
            set->devices[d]->ops->close(set->devices[d]);
            continue;
        }
        const size_t to = (size_t)place[d]; /* never behind where it was */
        set->devices[to] = set->devices[d];
        set->limits[to] = set->limits[d];
        memmove(set->quicker[to], set->quicker[d], sizeof set->quicker[d]);
        memmove(engine->asked[to], engine->asked[d], sizeof engine->asked[d]);
        engine->n_named += d < n_named;
    }
    set->n_devices = n;
}

/* ---- the list
 * ------------------------------------------------------------------------------------------------------------ */

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
                ht_log(HT_LOG_WARN, "continuing without %s", missing.text);
            missing = failure;
            ht_engine_drop(engine, "%s", failure.text);
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
        ht_log(HT_LOG_WARN, "continuing without %s", missing.text);
    return HT_OK;
}

/* Nobody knows whether an emulated device is worth its share: where the choice is ours, real ones are used without it. */
static void set_aside_emulated(ht_engine *engine, const ht_engine_options *options) {
    uint32_t real = 0;
    for (size_t d = 0; d < engine->set.n_devices; d++)
        real |= (uint32_t)!ht_lanes_caps(&engine->set, d)->emulated << d;
    if (options->strategy != HT_STRATEGY_AUTO || real == 0)
        return;
    for (size_t d = 0; d < engine->set.n_devices; d++) {
        const char *name = ht_lanes_caps(&engine->set, d)->name;
        if (real >> d & 1)
            continue;
        ht_log(HT_LOG_WARN, "%s is emulated: strategy auto does not use it (tensor and layer do)", name);
        ht_engine_drop(engine, "%s: emulated, so strategy auto does not use it", name);
    }
    ht_engine_keep_devices(engine, real);
}

ht_status ht_engine_open_devices(ht_engine *engine, const ht_engine_options *options, ht_error *error) {
    ht_text expanded = {0};
    ht_status status = ht_device_expand(options->devices, &expanded, error);
    if (!status)
        status = open_list(engine, options, expanded.data, error);
    ht_text_free(&expanded);
    if (status)
        return status;
    set_aside_emulated(engine, options);
    engine->n_named = engine->set.n_devices;
    engine->info.simulated = engine->set.time != NULL;
    const int cores = ht_cores_count(ht_all_cores());
    if (options->threads > cores && !engine->info.simulated)
        ht_log(HT_LOG_WARN, "%d threads are more than the %d cores that this process may use: this is slower",
               options->threads, cores);
    for (size_t d = 0; d < engine->set.n_devices; d++)
        engine->info.emulated |= ht_lanes_caps(&engine->set, d)->emulated;
    const bool lanes = options->strategy != HT_STRATEGY_SINGLE && engine->n_named > 1 && !ht_plan_misfit(engine->model);
    /* a single device that has no room for all of it */
    const bool full = engine->set.n_devices == 1 && !ht_engine_does_rest(engine, 0) && !ht_lanes_fits(&engine->set, 0);
    if (!full && (lanes || options->strategy == HT_STRATEGY_TENSOR || options->strategy == HT_STRATEGY_LAYER ||
                  ht_lanes_take_all(&engine->set, (1u << engine->set.n_devices) - 1)))
        return HT_OK;
    return open_companion(engine, options, error);
}
