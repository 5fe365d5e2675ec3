/* The fourth phase: whether several lanes are worth having at all. */
#include "engine/engine.h"

#include <stdlib.h>
#include <string.h>

const int *ht_engine_prompts(const ht_engine *engine, int usual[2], size_t *n) {
    usual[0] = engine->info.chunk < 64 ? engine->info.chunk : 64;
    usual[1] = engine->info.chunk;
    *n = engine->n_prompts ? engine->n_prompts : 2;
    return engine->n_prompts ? engine->prompts : usual;
}

/* The only lane that is as good as the best for passes of n tokens, as bits of lanes; 0: several together are better. */
static uint32_t good_lanes(ht_engine *engine, size_t n, size_t position) {
    ht_question question;
    ht_choice choice;
    const ht_problem p = ht_passes_problem(&engine->passes, n, position, 1, 0, &ht_even_pace, &question);
    ht_solve(&p, &choice);
    double best = choice.alone[0];
    uint32_t good = 0;
    for (size_t l = 1; l < engine->set.n_lanes; l++)
        best = choice.alone[l] < best ? choice.alone[l] : best;
    if (choice.n_lanes > 1 && choice.seconds < HT_WORTH_SHARING * best)
        return 0;
    for (size_t l = 0; l < engine->set.n_lanes; l++)
        good |= (uint32_t)(HT_WORTH_SHARING * choice.alone[l] <= best) << l;
    return good;
}

static void tell_dropped(ht_engine *engine, size_t d) {
    const char *name = ht_lanes_caps(&engine->set, d)->name;
    char room[32];
    if (!ht_engine_is_bounded(engine, d)) {
        ht_engine_drop(engine, "%s: the rest is predicted to be as quick without it", name);
        return;
    }
    ht_size_text(engine->set.limits[d], room);
    ht_engine_drop(engine, "%s: it may hold %s, and the rest is predicted to be as quick without it", name, room);
    if (d < engine->n_named && !engine->found)
        ht_log(HT_LOG_WARN, "%s is not used: it may hold %s, and the rest is predicted to be as quick without it", name,
               room);
}

/* Keeps the devices of one lane and closes the others: nothing is there yet but tasks and the pool. */
static void keep_devices(ht_engine *engine, size_t keep) {
    const uint32_t kept = engine->set.lanes[keep].devices;
    ht_lanes_settle(&engine->set);
    for (size_t d = 0; d < engine->set.n_devices; d++)
        if (!(kept >> d & 1))
            tell_dropped(engine, d);
    ht_engine_keep_devices(engine, kept);
    for (size_t l = 0; l < engine->set.n_lanes; l++) {
        ht_lane_free_buffers(&engine->set, &engine->set.lanes[l]);
        ht_lane_free_left(&engine->set, &engine->set.lanes[l]);
        for (size_t p = 0; p < HT_FORMS; p++)
            free(engine->set.lanes[l].programs[p].steps);
    }
    memset(engine->set.lanes, 0, sizeof engine->set.lanes);
    engine->set.lanes[0].devices = (1u << engine->set.n_devices) - 1;
    engine->set.n_lanes = 1;
    ht_crew_destroy(engine->passes.crew);
    engine->passes.crew = NULL;
    ht_passes_forget_schedules(&engine->passes);
}

ht_status ht_engine_keep_lane(ht_engine *engine, size_t lane, const ht_engine_options *options, ht_error *error) {
    keep_devices(engine, lane);
    engine->set.late = false;
    ht_lanes_hold_all(&engine->set, ~0u);
    memset(engine->passes.holds, 0, sizeof engine->passes.holds);
    ht_status status = ht_lanes_place(&engine->set, options, error);
    engine->info.weight_bytes = ht_lanes_task_bytes(&engine->set);
    engine->info.buffer_bytes = engine->set.buffer_bytes;
    if (!status)
        ht_lanes_plan_transfers(&engine->set, NULL);
    return status;
}

ht_status ht_engine_choose_lanes(ht_engine *engine, const ht_engine_options *options, ht_error *error) {
    const size_t chunk = engine->set.chunk;
    int usual[2];
    size_t n_prompts;
    const int *prompts = ht_engine_prompts(engine, usual, &n_prompts);
    engine->passes.policy.frozen = engine->info.emulated; /* times mean nothing: there is nothing to learn */
    if (engine->set.n_lanes < 2 || options->strategy != HT_STRATEGY_AUTO)
        return HT_OK;
    engine->passes.stage = HT_STAGE_WEIGHING; /* before graphs are there, decode is judged as if they were, too */
    uint32_t good = good_lanes(engine, 1, ht_min_size(128, engine->set.context - 1));
    for (size_t i = 0; i < n_prompts && good; i++)
        for (size_t begin = 0; begin < (size_t)prompts[i]; begin += chunk)
            good &= good_lanes(engine, ht_min_size(chunk, (size_t)prompts[i] - begin), begin);
    engine->passes.stage = HT_STAGE_SERVING;
    return good ? ht_engine_keep_lane(engine, (size_t)__builtin_ctz(good), options, error) : HT_OK;
}
