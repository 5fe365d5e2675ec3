/* Memory that devices work on: the pool of slots, lanes' own buffers, caches of keys and values, states. */
#include "lane/lane.h"

#include <stdlib.h>
#include <string.h>

/* ---- pool ------------------------------------------------------------------------------------------------------------ */

ht_status ht_lanes_make_slots(ht_lanes *set, ht_error *error) {
    ht_status status = HT_OK;
    for (ht_slot slot = 0; slot < set->model->n_slots && !status; slot++) {
        set->slot_bytes[slot] = ht_lanes_slot_bytes(set, slot);
        status =
            ht_lanes_make_view(set, set->slot_bytes[slot], ht_lanes_slot_stride(set, slot), &set->slots[slot], error);
    }
    return status;
}

void ht_lanes_free_slots(ht_lanes *set) {
    for (int slot = 0; slot < HT_MAX_SLOTS; slot++)
        if (set->slots[slot].data)
            ht_device_pages_free(set->slots[slot].data, set->slot_bytes[slot]);
}

void ht_lanes_clear_ids(ht_lanes *set) {
    const ht_slot ids = ht_model_slot(set->model, HT_ROLE_IDS);
    memset(set->slots[ids].data, 0, set->slot_bytes[ids]);
}

/* ---- lanes' own
 * ---------------------------------------------------------------------------------------------------------- */

static ht_status make_like(ht_lanes *set, ht_slot slot, ht_view *view, ht_error *error) {
    return ht_lanes_make_view(set, set->slot_bytes[slot], set->slots[slot].stride, view, error);
}

ht_status ht_lanes_make_buffers(ht_lanes *set, ht_error *error) {
    ht_status status = HT_OK;
    for (size_t l = 0; l < set->n_lanes && !status; l++) {
        ht_lane *lane = &set->lanes[l];
        for (ht_slot slot = 0; slot < set->model->n_slots && !status; slot++) {
            const ht_slot_role role = set->model->slots[slot].role;
            if (role == HT_ROLE_OWN || role == HT_ROLE_PRIVATE)
                status = make_like(set, slot, &lane->own[slot], error);
            for (size_t i = 0; i < HT_LANE_SUMS && role == HT_ROLE_SUMS && !status; i++)
                status = make_like(set, slot, &lane->sums[i][slot], error);
        }
    }
    return status;
}

/* Devices that stay open must forget the pages first: others may come to lie at the same address. */
static void free_view(ht_lanes *set, ht_slot slot, ht_view *view) {
    if (!view->data)
        return;
    for (size_t d = 0; d < set->n_devices; d++)
        if (set->devices[d]->ops->forget)
            set->devices[d]->ops->forget(set->devices[d], view->data);
    ht_device_pages_free(view->data, set->slot_bytes[slot]);
    set->buffer_bytes -= set->slot_bytes[slot];
    view->data = NULL;
}

void ht_lane_free_buffers(ht_lanes *set, ht_lane *lane) {
    for (ht_slot slot = 0; slot < HT_MAX_SLOTS; slot++) {
        free_view(set, slot, &lane->own[slot]);
        for (size_t i = 0; i < HT_LANE_SUMS; i++)
            free_view(set, slot, &lane->sums[i][slot]);
    }
}

/* ---- KV cache
 * ------------------------------------------------------------------------------------------------------------------- */

/* Pages of a cache, zeroed. Devices that read or write it see them; the others need not. */
static ht_status make_cache(ht_lanes *set, size_t bytes, void **pages, ht_error *error) {
    if (!bytes)
        return HT_OK;
    *pages = ht_pages_alloc(bytes);
    if (!*pages)
        return ht_fail(error, HT_ERROR_MEMORY, "no memory for a KV cache of %zu MiB (context %zu)",
                       (size_t)(ht_kv_bytes(set) >> 20), set->context);
    for (size_t d = 0; d < set->n_devices; d++) {
        const ht_device_ops *ops = set->devices[d]->ops;
        ht_status status =
            ops->import && ht_lanes_use(set, d, true) ? ops->import(set->devices[d], *pages, bytes, error) : HT_OK;
        if (status)
            return status;
    }
    return HT_OK;
}

ht_status ht_kv_create_locked(ht_lanes *set, ht_kv_layer **out, ht_error *error) {
    const size_t caches = set->model->n_caches;
    ht_kv_layer *kv;
    ht_status status = ht_alloc((void **)&kv, caches, sizeof *kv, "the KV cache", error);
    if (status)
        return status;
    for (size_t i = 0; i < caches && !status; i++) {
        const ht_cache_bytes bytes = ht_lanes_cache(set, i);
        void *state = NULL;
        kv[i] = (ht_kv_layer){.positions = set->context, .type = set->kv_type};
        status = make_cache(set, bytes.keys, &kv[i].keys, error);
        if (!status)
            status = make_cache(set, bytes.values, &kv[i].values, error);
        if (!status)
            status = make_cache(set, bytes.state, &state, error);
        kv[i].state = state;
    }
    if (status) {
        ht_kv_destroy_locked(set, kv);
        return status == HT_ERROR_DEVICE ? ht_error_prefix(error, status, "KV cache (context %zu)", set->context)
                                         : status;
    }
    *out = kv;
    return HT_OK;
}

static void free_cache(ht_lanes *set, void *pages, size_t bytes) {
    if (!pages)
        return;
    for (size_t d = 0; d < set->n_devices; d++)
        if (set->devices[d]->ops->forget)
            set->devices[d]->ops->forget(set->devices[d], pages);
    ht_pages_free(pages, bytes);
}

void ht_kv_destroy_locked(ht_lanes *set, ht_kv_layer *kv) {
    if (!kv)
        return;
    for (size_t i = 0; i < set->model->n_caches; i++) {
        const ht_cache_bytes bytes = ht_lanes_cache(set, i);
        free_cache(set, kv[i].keys, bytes.keys);
        free_cache(set, kv[i].values, bytes.values);
        free_cache(set, kv[i].state, bytes.state);
    }
    free(kv);
}

ht_status ht_kv_create(ht_lanes *set, ht_kv_layer **out, ht_error *error) {
    ht_lanes_lock(set);
    ht_status status = ht_kv_create_locked(set, out, error);
    ht_lanes_unlock(set);
    return status;
}

void ht_kv_destroy(ht_lanes *set, ht_kv_layer *kv) {
    ht_lanes_lock(set);
    ht_kv_destroy_locked(set, kv);
    ht_lanes_unlock(set);
}

typedef struct ht_kv_rows {
    void *data, *twin;
    size_t bytes, heads, positions;
} ht_kv_rows;

bool ht_kv_is_hosts(const ht_lanes *set) {
    for (size_t d = 0; d < set->n_devices; d++)
        if (ht_lanes_facts(set, 1u << d).copies)
            return false;
    return true;
}

/* What is kept of one cache's tokens [from, to), head by head: a row of bytes for each position. */
static bool each_row(const ht_kv_rows *rows, size_t from, size_t to, ht_kv_function call, void *user) {
    const size_t pitch = rows->heads ? rows->bytes / rows->heads : 0, row = pitch / rows->positions;
    bool good = true;
    for (size_t h = 0; h < rows->heads && rows->bytes && good; h++) {
        const size_t at = h * pitch + from * row;
        good = call((char *)rows->data + at, rows->twin ? (char *)rows->twin + at : NULL, (to - from) * row, user);
    }
    return good;
}

bool ht_kv_each(const ht_lanes *set, const ht_kv_layer *kv, const ht_kv_layer *twin, size_t from, size_t to,
                ht_kv_function call, void *user) {
    bool good = true;
    for (size_t i = 0; i < set->model->n_caches && good; i++) {
        const ht_cache_bytes bytes = ht_lanes_cache(set, i);
        const ht_kv_rows keys = {kv[i].keys, twin ? twin[i].keys : NULL, bytes.keys, bytes.kv_heads, set->context};
        const ht_kv_rows values = {kv[i].values, twin ? twin[i].values : NULL, bytes.values, bytes.kv_heads,
                                   set->context};
        good = each_row(&keys, from, to, call, user) && each_row(&values, from, to, call, user);
        if (good && bytes.state && from == 0)
            good = call(kv[i].state, twin ? twin[i].state : NULL, bytes.state, user);
    }
    return good;
}

static bool copy(void *data, void *twin, size_t bytes, void *user) {
    memcpy(twin, data, bytes);
    return true;
}

void ht_kv_copy(const ht_lanes *set, ht_kv_layer *to, const ht_kv_layer *from, size_t n) {
    ht_kv_each(set, from, to, 0, n, copy, NULL);
}

static bool drop(void *data, void *twin, size_t bytes, void *user) {
    ht_mapping_drop(data, bytes);
    return true;
}

bool ht_kv_drop(const ht_lanes *set, ht_kv_layer *kv, size_t n) {
    for (size_t d = 0; d < set->n_devices; d++)
        if (set->devices[d]->ops->import)
            return false;
    return ht_kv_each(set, kv, NULL, n, set->context, drop, NULL);
}

/* ---- all of it
 * ------------------------------------------------------------------------------------------------------------- */

void ht_lanes_close(ht_lanes *set) {
    ht_lanes_unplace(set);
    for (size_t d = 0; d < set->n_devices; d++)
        set->devices[d]->ops->close(set->devices[d]);
    set->n_devices = 0; /* nobody has to forget anything */
    for (size_t l = 0; l < set->n_lanes; l++)
        ht_lane_free_buffers(set, &set->lanes[l]);
    ht_lanes_free_slots(set);
}
