/* Memory that devices work on: the pool of slots, lanes' own buffers, caches of keys and values. */
#include "lane/lane.h"

#include <stdlib.h>
#include <string.h>

/* ---- pool ------------------------------------------------------------------------------------------------------------ */

size_t ht_lanes_slot_tokens(const ht_lanes *set, ht_slot slot) {
    const ht_slot_role role = set->model->slots[slot].role;
    return role == HT_ROLE_LOGITS || role == HT_ROLE_PICK ? ht_min_size(HT_HEAD_TOKENS, set->chunk) : set->chunk;
}

/* Pages for a buffer that every device of the set sees. */
static ht_status make_view(ht_lanes *set, size_t bytes, size_t stride, ht_view *view, ht_error *error) {
    *view = (ht_view){ht_device_pages_alloc(set->devices, set->n_devices, bytes), stride};
    if (!view->data)
        return ht_fail(error, HT_ERROR_MEMORY, "no memory for a buffer of %zu bytes", bytes);
    set->buffer_bytes += bytes;
    for (size_t d = 0; d < set->n_devices; d++) {
        const ht_device_ops *ops = set->devices[d]->ops;
        ht_status status = ops->import ? ops->import(set->devices[d], view->data, bytes, error) : HT_OK;
        if (status)
            return status;
    }
    return HT_OK;
}

ht_status ht_lanes_make_slots(ht_lanes *set, ht_error *error) {
    ht_status status = HT_OK;
    for (ht_slot slot = 0; slot < set->model->n_slots && !status; slot++) {
        const ht_slot_info *info = &set->model->slots[slot];
        /* rows begin on cache lines of their own, so that devices writing neighbours do not share one; logits go to
         * callers, who are promised [count][vocabulary] */
        const bool packed = info->type == HT_SLOT_INT32 || info->role == HT_ROLE_LOGITS;
        const size_t stride = packed ? info->width : ht_round_up(info->width, 16);
        set->slot_bytes[slot] = ht_round_up(stride * ht_lanes_slot_tokens(set, slot) * 4, 4096);
        status = make_view(set, set->slot_bytes[slot], stride, &set->slots[slot], error);
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

/* ---- lanes' own ---------------------------------------------------------------------------------------------------------- */

static ht_status make_like(ht_lanes *set, ht_slot slot, ht_view *view, ht_error *error) {
    return make_view(set, set->slot_bytes[slot], set->slots[slot].stride, view, error);
}

ht_status ht_lanes_make_buffers(ht_lanes *set, ht_error *error) {
    ht_status status = HT_OK;
    for (size_t l = 0; l < set->n_lanes && !status; l++) {
        ht_lane *lane = &set->lanes[l];
        for (ht_slot slot = 0; slot < set->model->n_slots && !status; slot++) {
            const ht_slot_role role = set->model->slots[slot].role;
            if (role == HT_ROLE_OWN)
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

/* ---- KV cache ------------------------------------------------------------------------------------------------------------------- */

/* Of keys, or of values, of one cache: as large as who writes it needs. */
static size_t cache_bytes(const ht_lanes *set, size_t cache) {
    const ht_model *model = set->model;
    ht_hparams h = model->hparams;
    for (size_t i = 0; i < model->n_ops; i++)
        if (model->ops[i].cache == (int)cache && ht_op_writes(&model->ops[i]) & HT_BIT_KV)
            h = ht_op_shape(&model->ops[i], &model->hparams);
    const size_t size = set->kv_type == HT_KV_F32 ? sizeof(float) : sizeof(uint16_t);
    return (size_t)h.kv_heads * set->context * (size_t)h.head_dim * size;
}

uint64_t ht_kv_bytes(const ht_lanes *set) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < set->model->n_caches; i++)
        bytes += 2 * (uint64_t)cache_bytes(set, i);
    return bytes;
}

/* Devices that read or write the cache see it; the others need not. */
static ht_status import_cache(ht_lanes *set, void *pages, size_t bytes, ht_error *error) {
    for (size_t d = 0; d < set->n_devices; d++) {
        const ht_device_ops *ops = set->devices[d]->ops;
        ht_status status =
            ops->import && ht_lanes_use(set, d, true) ? ops->import(set->devices[d], pages, bytes, error) : HT_OK;
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
        const size_t bytes = cache_bytes(set, i);
        kv[i] = (ht_kv_layer){ht_pages_alloc(bytes), ht_pages_alloc(bytes), set->context, set->kv_type};
        if (!kv[i].keys || !kv[i].values)
            status = ht_fail(error, HT_ERROR_MEMORY, "no memory for a KV cache of %zu MiB (context %zu)",
                             (size_t)(ht_kv_bytes(set) >> 20), set->context);
        if (!status)
            status = import_cache(set, kv[i].keys, bytes, error);
        if (!status)
            status = import_cache(set, kv[i].values, bytes, error);
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
        const size_t bytes = cache_bytes(set, i);
        free_cache(set, kv[i].keys, bytes);
        free_cache(set, kv[i].values, bytes);
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

/* ---- all of it ------------------------------------------------------------------------------------------------------------- */

void ht_lanes_close(ht_lanes *set) {
    ht_lanes_unplace(set);
    for (size_t d = 0; d < set->n_devices; d++)
        set->devices[d]->ops->close(set->devices[d]);
    set->n_devices = 0; /* nobody has to forget anything */
    for (size_t l = 0; l < set->n_lanes; l++)
        ht_lane_free_buffers(set, &set->lanes[l]);
    ht_lanes_free_slots(set);
}
