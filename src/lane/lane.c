/* Who has the lanes, and waiting for what they were given. */
#include "base/os.h"
#include "lane/lane.h"

#include <string.h>

void ht_lanes_lock(ht_lanes *set) {
    ht_turns_take(&set->turns);
}

void ht_lanes_unlock(ht_lanes *set) {
    ht_turns_give(&set->turns);
}

/* After a failure the others are still waited for: nobody may use the buffers before they are done with them. */
ht_status ht_lanes_wait(ht_lanes *set, const ht_ticket *tickets, ht_sync sync, ht_error *error) {
    ht_status status = HT_OK;
    for (size_t d = 0; d < set->n_devices; d++) {
        ht_device *device = set->devices[d];
        if (tickets[d] == 0)
            continue;
        const ht_status one = device->ops->wait(device, tickets[d], sync, status ? NULL : error);
        if (one == HT_ERROR_DEVICE)
            atomic_fetch_or(&set->failed, 1u << d);
        status = status ? status : one;
    }
    return status;
}

ht_status ht_lane_join(ht_lanes *set, ht_lane *lane, ht_sync sync, ht_error *error) {
    const ht_status status = ht_lanes_wait(set, lane->front.newest, sync, error);
    memset(&lane->front, 0, sizeof lane->front);
    return status;
}

ht_status ht_lanes_join(ht_lanes *set, ht_sync sync, ht_error *error) {
    ht_status status = HT_OK;
    for (size_t l = 0; l < set->n_lanes; l++) {
        const ht_status one = ht_lane_join(set, &set->lanes[l], sync, status ? NULL : error);
        status = status ? status : one;
    }
    return status;
}

void ht_lanes_settle(ht_lanes *set) {
    (void)ht_lanes_join(set, HT_SYNC_AUTO, NULL);
}

ht_device_facts ht_lanes_facts(const ht_lanes *set, uint32_t devices) {
    ht_device_facts facts = {.static_device = -1};
    for (size_t d = 0; d < set->n_devices; d++) {
        const ht_device_caps *caps = ht_lanes_caps(set, d);
        if (!(devices >> d & 1))
            continue;
        ht_cores_join(&facts.cores, &caps->cores);
        facts.granule = ht_max_size(facts.granule, caps->granule);
        facts.many_only |= caps->many_only;
        facts.copies |= set->devices[d]->ops->import && !caps->unified_memory;
        facts.own_threads |= !caps->runs_in_caller && ht_cores_any(&caps->cores);
        if (caps->n_lengths && !facts.static_caps) {
            facts.static_device = (int)d;
            facts.static_caps = caps;
        }
    }
    return facts;
}

void ht_stay_on_cores(const ht_lanes *set, const ht_lane *lane, ht_stay *stay) {
    ht_stay_on(set->time ? NULL : &lane->cores, stay);
}
