/* The second phase: lanes made of the devices, operators placed on them, and the memory that passes need. */
#include "base/os.h"
#include "engine/engine.h"

/* ---- which lanes
 * --------------------------------------------------------------------------------------------------------- */

/* Does a device that takes some operators only compute on these cores, as a processor in an NPU's place? */
static bool stands_in(const ht_engine *engine, const ht_cores *cores) {
    for (size_t d = 0; d < engine->set.n_devices; d++)
        if (!ht_lanes_take_all(&engine->set, 1u << d) && ht_cores_meet(&ht_lanes_caps(&engine->set, d)->cores, cores))
            return true;
    return false;
}

enum { NOBODY = HT_MAX_DEVICES };

/* Another device that has room for all that this one has none for, or NOBODY. */
static size_t find_roomy(const ht_engine *engine, size_t d) {
    const ht_lanes *set = &engine->set;
    for (size_t other = 0; other < set->n_devices; other++)
        if (other != d && ht_lanes_take_all(set, 1u << other) && ht_lanes_fits(set, other))
            return other;
    return NOBODY;
}

/* The device that does beside device d what d does not take, or has no room for: the CPU, and beside a CPU any other;
 * NOBODY: it needs none, or none is there. */
static ht_status find_beside(ht_engine *engine, const ht_engine_options *options, size_t d, size_t *beside,
                             ht_error *error) {
    const ht_lanes *set = &engine->set;
    const bool takes_all = ht_lanes_take_all(set, 1u << d);
    *beside = NOBODY;
    if (takes_all && ht_lanes_fits(set, d))
        return HT_OK;
    if (!takes_all || !ht_engine_does_rest(engine, d))
        return ht_engine_companion(engine, options, d, beside, error);
    *beside = find_roomy(engine, d);
    return HT_OK;
}

/* A lane of each whole device and of each partial one with its companion; static lengths first, for they take the pieces
 * that fill them and leave the rest to others. A CPU that is only there as a companion is a lane of its own beside a device
 * that computes on its very cores: with few tokens it may be the quicker one (which nobody knows of emulated ones). */
static ht_status find_lanes(ht_engine *engine, const ht_engine_options *options, ht_error *error) {
    size_t beside[HT_MAX_DEVICES];
    for (int whole = 0; whole < 2; whole++)
        for (size_t d = 0; d < engine->set.n_devices; d++) {
            ht_lane lane = {.devices = 1u << d, .cores = ht_lanes_caps(&engine->set, d)->cores};
            ht_status status = whole ? HT_OK : find_beside(engine, options, d, &beside[d], error);
            if (status)
                return status;
            if ((beside[d] == NOBODY) != (whole == 1))
                continue;
            if (!whole) {
                lane.devices |= 1u << beside[d];
                ht_cores_join(&lane.cores, &ht_lanes_caps(&engine->set, beside[d])->cores);
            } else if (d >= engine->n_named &&
                       (engine->info.emulated || !stands_in(engine, &ht_lanes_caps(&engine->set, d)->cores))) {
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

static void find_crowded(ht_lanes *set) {
    for (size_t l = 0; l < set->n_lanes; l++)
        set->lanes[l].crowded = ht_lanes_facts(set, set->lanes[l].devices).own_threads;
}

/* A model that the planner's tables are too small for has one lane: an error only where several were asked for. */
static ht_status fit(const ht_engine *engine, bool asked, bool *fits, ht_error *error) {
    const ht_model *model = engine->model;
    const char *misfit = ht_plan_misfit(model);
    *fits = !misfit;
    if (!misfit)
        return HT_OK;
    if (asked)
        return ht_fail(error, HT_ERROR_UNSUPPORTED,
                       "%s: several devices cannot share a model of so many different %s (%zu blocks)",
                       model->info.path, misfit, model->n_blocks);
    ht_log(HT_LOG_WARN,
           "%s: several devices cannot share a model of so many different %s: each operator goes to the first device "
           "that takes it",
           model->info.path, misfit);
    return HT_OK;
}

bool ht_engine_may_hold_some(const ht_engine *engine, const ht_engine_options *options) {
    const ht_lanes *set = &engine->set;
    uint32_t seen = 0;
    if (set->n_lanes < 2 || options->strategy != HT_STRATEGY_AUTO || options->whole_weights || options->cuts ||
        set->time || set->left || engine->info.emulated)
        return false;
    for (size_t l = 0; l < set->n_lanes; l++) {
        const uint32_t devices = set->lanes[l].devices;
        if (devices & seen || ht_lanes_facts(set, devices).static_caps) /* graphs of shares hold shares anyway */
            return false;
        seen |= devices;
    }
    return true;
}

/* Does the machine's memory hold the weights of every lane, by what the file takes? Devices keep them in forms of their
 * own; a device that lanes share holds them once, and one with memory of its own elsewhere. */
static uint64_t needed(const ht_engine *engine, size_t *copies) {
    const ht_lanes *set = &engine->set;
    uint32_t holders = 0;
    for (size_t l = 0; l < set->n_lanes; l++)
        for (size_t d = 0; d < set->n_devices; d++)
            if (set->lanes[l].devices >> d & 1 && ht_lanes_caps(set, d)->unified_memory) {
                holders |= 1u << d; /* the others of a lane do what this one does not */
                break;
            }
    *copies = (size_t)__builtin_popcount(holders);
    return *copies * ht_lanes_matrix_bytes(set->model) + ht_kv_bytes(set);
}

/* The same where lanes hold their shares of what can be divided. */
static uint64_t needed_in_shares(const ht_engine *engine, size_t copies) {
    const ht_model *model = engine->model;
    uint64_t undivided = 0;
    for (size_t i = model->blocks[0].first; i < model->n_ops; i++)
        for (int p = 0; p < model->ops[i].n_parts && model->ops[i].kind != HT_OP_MATMUL; p++)
            undivided += (uint64_t)model->ops[i].parts[p].rows * model->ops[i].parts[p].row_bytes;
    const double divided = (double)(ht_lanes_file_bytes(model) - undivided);
    return copies * undivided + (uint64_t)(HT_HELD_OF_FILE * divided) + ht_kv_bytes(&engine->set);
}

bool ht_engine_has_room(const ht_engine *engine) {
    size_t copies;
    const uint64_t there = ht_os_memory_bytes();
    return !there || needed(engine, &copies) <= there;
}

/* Made-up weights of simulated devices are computed with by nobody. */
static ht_status check_memory(ht_engine *engine, const ht_engine_options *options, ht_error *error) {
    const uint64_t there = ht_os_memory_bytes();
    char needs[32], has[32];
    size_t copies;
    uint64_t need = needed(engine, &copies);
    if (engine->set.time || !there || need <= there)
        return HT_OK;
    if (ht_engine_may_hold_some(engine, options) && needed_in_shares(engine, copies) <= there)
        return HT_OK;
    if (copies > 1 && options->strategy == HT_STRATEGY_AUTO) {
        ht_log(HT_LOG_WARN,
               "%zu devices would each hold the model, %s of this machine's %s in all: each operator goes to the "
               "first device that takes it",
               copies, ht_size_text(need, needs), ht_size_text(there, has));
        engine->set.n_lanes = 1;
        engine->set.lanes[0] = (ht_lane){.devices = (1u << engine->set.n_devices) - 1};
        need = needed(engine, &copies);
    }
    if (need <= there)
        return HT_OK;
    return ht_fail(error, HT_ERROR_MEMORY,
                   "%s: its weights and a context of %zu tokens take %s%s, more than this machine's memory of %s",
                   engine->model->info.path, engine->set.context, ht_size_text(need, needs),
                   copies > 1 ? ", for each device holds some" : "", ht_size_text(there, has));
}

/* One lane with every device where nothing is to be shared or chosen. */
static ht_status group(ht_engine *engine, const ht_engine_options *options, ht_error *error) {
    const bool shares = options->strategy == HT_STRATEGY_TENSOR || options->strategy == HT_STRATEGY_LAYER;
    const bool places = options->place && *options->place;
    bool fits = true;
    ht_status status = HT_OK;
    if (shares || (options->strategy == HT_STRATEGY_AUTO && engine->n_named > 1 && !places)) {
        status = fit(engine, shares, &fits, error);
        if (!status && fits)
            status = find_lanes(engine, options, error);
    }
    if (status)
        return status;
    if (shares && places)
        return ht_fail(error, HT_ERROR_ARGUMENT, "place: operators are placed where strategy is auto or single");
    if (shares && !can_share(engine))
        return ht_fail(
            error, HT_ERROR_ARGUMENT, "strategy %s needs at least two devices that share no cores; in use: %s",
            options->strategy == HT_STRATEGY_LAYER ? "layer" : "tensor", ht_lanes_caps(&engine->set, 0)->name);
    if (engine->set.n_lanes < 2) {
        const uint32_t all = (1u << engine->set.n_devices) - 1;
        const ht_cores cores = ht_lanes_facts(&engine->set, all).cores;
        engine->set.n_lanes = 1;
        engine->set.lanes[0] = (ht_lane){.devices = all};
        if (!ht_cores_same(&cores, ht_all_cores())) /* cpus= is for our thread, too */
            engine->set.lanes[0].cores = cores;
    }
    return HT_OK;
}

/* ---- what they need
 * ------------------------------------------------------------------------------------------------------ */

static ht_status prepare_sharing(ht_engine *engine, ht_error *error) {
    ht_status status = ht_lanes_make_buffers(&engine->set, error);
    if (!status)
        status = ht_passes_prepare(&engine->passes, error);
    return status ? status : ht_crew_create(engine->set.n_lanes, &engine->passes.crew, error);
}

ht_status ht_engine_make_lanes(ht_engine *engine, const ht_engine_options *options, ht_error *error) {
    ht_status status = group(engine, options, error);
    if (!status)
        status = check_memory(engine, options, error);
    if (status)
        return status;
    find_crowded(&engine->set);
    status = ht_lanes_make_slots(&engine->set, error);
    if (!status)
        status = ht_engine_fit(engine, options, error);
    engine->set.late = !status && ht_engine_may_hold_some(engine, options);
    if (!status)
        status = ht_lanes_place(&engine->set, options, error);
    if (status)
        return status;
    engine->info.weight_bytes = ht_lanes_task_bytes(&engine->set);
    ht_lanes_plan_transfers(&engine->set, NULL);
    return engine->set.n_lanes > 1 ? prepare_sharing(engine, error) : HT_OK;
}
