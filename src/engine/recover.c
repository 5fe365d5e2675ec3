/* Going on without a device that failed. */
#include "engine/engine.h"

#include <string.h>

/* Has the device, in memory of its own, keys and values that were never handed out? */
static bool keeps_cache(const ht_lanes *set, size_t d) {
    if (!ht_lanes_facts(set, 1u << d).copies)
        return false;
    for (size_t p = 0; p < set->n_lanes * HT_FORMS; p++) {
        const ht_program *program = &set->lanes[p / HT_FORMS].programs[p % HT_FORMS];
        for (size_t i = 0; i < program->n_steps; i++)
            if (program->steps[i].device == (int)d && program->steps[i].kept & HT_BIT_KV)
                return true;
    }
    return false;
}

/* Devices that are left get all weights again, from the file. False: they have them. */
static bool hold_all(ht_engine *engine, uint32_t failed) {
    if (!ht_passes_hold_partly(&engine->passes))
        return false;
    ht_lanes_hold_all(&engine->set, ~failed);
    memset(engine->passes.holds, 0, sizeof engine->passes.holds);
    return true;
}

bool ht_engine_recover(ht_engine *engine) {
    const uint32_t failed = atomic_exchange(&engine->set.failed, 0);
    const ht_engine_options plain = HT_INIT(ht_engine_options);
    bool any = false;
    if (!failed)
        return false;
    ht_lanes_settle(&engine->set);
    memset(engine->passes.graphs.built, 0, sizeof engine->passes.graphs.built);
    engine->wish.checks = 0;
    for (size_t d = 0; d < engine->set.n_devices; d++)
        if (failed >> d & 1) {
            ht_log(HT_LOG_WARN, "%s failed: continuing without it", ht_lanes_caps(&engine->set, d)->name);
            engine->caches_lost += keeps_cache(&engine->set, d);
        }
    const bool some = hold_all(engine, failed);
    for (size_t l = 0; l < engine->set.n_lanes; l++) {
        ht_lane *lane = &engine->set.lanes[l];
        if ((lane->devices & failed || some) && !lane->lost) {
            ht_error error;
            lane->devices &= ~failed;
            lane->lost = !ht_lanes_take_all(&engine->set, lane->devices) ||
                         ht_lanes_place_lane(&engine->set, lane, &plain, &error);
        }
        any |= !lane->lost;
    }
    ht_passes_forget_schedules(&engine->passes); /* even if nothing is left: later passes are to say so */
    if (!any)
        return false;
    ht_lanes_plan_transfers(&engine->set, NULL);
    /* a lane that lost its static graphs takes other times than were measured */
    for (size_t l = 0; l < engine->set.n_lanes && engine->set.n_lanes > 1; l++)
        if (!engine->set.lanes[l].lost && engine->set.lanes[l].cost.devices != engine->set.lanes[l].devices)
            engine->set.lanes[l].lost = ht_engine_measure_lane(engine, &engine->set.lanes[l], NULL) != HT_OK;
    ht_lanes_keep_ready(&engine->set);
    return true;
}

ht_status ht_engine_settle(ht_engine *engine, ht_error *error) {
    ht_status status;
    do
        status = ht_lanes_join(&engine->set, HT_SYNC_EVENT, error);
    while (status == HT_ERROR_DEVICE && ht_engine_recover(engine));
    return status;
}
