/* What models, caches and devices take of memory. */
#include "lane/lane.h"

size_t ht_lanes_slot_tokens(const ht_lanes *set, ht_slot slot) {
    const ht_slot_role role = set->model->slots[slot].role;
    return role == HT_ROLE_LOGITS || role == HT_ROLE_PICK ? ht_min_size(HT_HEAD_TOKENS, set->chunk) : set->chunk;
}

/* Rows begin on cache lines of their own, so that devices writing neighbours do not share one; logits go to callers, who are
 * promised [count][vocabulary]. */
size_t ht_lanes_slot_stride(const ht_lanes *set, ht_slot slot) {
    const ht_slot_info *info = &set->model->slots[slot];
    const bool packed = info->type == HT_SLOT_INT32 || info->role == HT_ROLE_LOGITS;
    return packed ? info->width : ht_round_up(info->width, 16);
}

size_t ht_lanes_slot_bytes(const ht_lanes *set, ht_slot slot) {
    return ht_round_up(ht_lanes_slot_stride(set, slot) * ht_lanes_slot_tokens(set, slot) * 4, 4096);
}

uint64_t ht_lanes_pool_bytes(const ht_lanes *set) {
    uint64_t bytes = 0;
    for (ht_slot slot = 0; slot < set->model->n_slots; slot++)
        bytes += ht_lanes_slot_bytes(set, slot);
    return bytes;
}

ht_cache_bytes ht_lanes_cache(const ht_lanes *set, size_t cache) {
    const ht_model *model = set->model;
    const ht_op *writer = NULL;
    for (size_t i = 0; i < model->n_ops && !writer; i++)
        if (model->ops[i].cache == (int)cache && ht_op_writes(&model->ops[i]) & HT_BIT_KV)
            writer = &model->ops[i];
    if (!writer)
        return (ht_cache_bytes){0};
    const size_t state = ht_op_state(writer, &model->hparams) * sizeof(float);
    if (state)
        return (ht_cache_bytes){.state = state};
    const ht_hparams h = ht_op_shape(writer, &model->hparams);
    const size_t size = set->kv_type == HT_KV_F32 ? sizeof(float) : sizeof(uint16_t);
    const size_t keys = (size_t)h.kv_heads * set->context * (size_t)h.head_dim * size;
    /* values may be some of the keys */
    return (ht_cache_bytes){.keys = keys, .values = writer->value_dim ? 0 : keys, .kv_heads = (size_t)h.kv_heads};
}

uint64_t ht_lanes_cache_bytes(const ht_lanes *set, size_t cache) {
    const ht_cache_bytes bytes = ht_lanes_cache(set, cache);
    return (uint64_t)bytes.keys + bytes.values + bytes.state;
}

uint64_t ht_kv_bytes(const ht_lanes *set) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < set->model->n_caches; i++)
        bytes += ht_lanes_cache_bytes(set, i);
    return bytes;
}

uint64_t ht_lanes_matrix_bytes(const ht_model *model) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < model->n_ops; i++)
        for (int p = 0; p < model->ops[i].n_parts; p++)
            bytes += (uint64_t)model->ops[i].parts[p].rows * model->ops[i].parts[p].row_bytes;
    return bytes;
}

/* Where the matrix lies in the file; made-up ones: what they follow from. */
static const void *origin(const ht_matrix *m) {
    return m->data ? (const void *)m->data : m->name;
}

bool ht_op_is_table(const ht_model *model, const ht_op *op) {
    bool table = false;
    for (size_t i = 0; i < model->blocks[0].first; i++)
        table |= op->n_parts == 1 && &model->ops[i] != op && origin(op->parts) == origin(model->ops[i].parts);
    return table;
}

uint64_t ht_lanes_file_bytes(const ht_model *model) {
    uint64_t bytes = ht_lanes_matrix_bytes(model);
    for (size_t i = model->blocks[0].first; i < model->n_ops; i++)
        if (ht_op_is_table(model, &model->ops[i]))
            bytes -= (uint64_t)model->ops[i].parts->rows * model->ops[i].parts->row_bytes;
    return bytes;
}

uint64_t ht_lanes_weight_bytes(const ht_lanes *set, size_t device) {
    uint64_t bytes = 0;
    const ht_device_ops *ops = set->devices[device]->ops;
    for (size_t i = 0; i < set->n_tasks; i++)
        if (set->tasks[i].device == (int)device && set->tasks[i].task && ops->task_bytes)
            bytes += ops->task_bytes(set->tasks[i].task);
    return bytes;
}

uint64_t ht_lanes_device_bytes(const ht_lanes *set, size_t device) {
    const uint64_t bytes = ht_lanes_weight_bytes(set, device);
    uint64_t caches = 0;
    for (size_t c = 0; c < set->model->n_caches; c++) {
        bool used = false;
        for (size_t i = 0; i < set->n_tasks && !used; i++)
            used = set->tasks[i].device == (int)device && set->tasks[i].task && set->tasks[i].op->cache == (int)c;
        caches += used ? ht_lanes_cache_bytes(set, c) : 0;
    }
    return bytes + caches + (ht_lanes_caps(set, device)->unified_memory ? 0 : set->buffer_bytes);
}

uint64_t ht_lanes_model_bytes(const ht_lanes *set) {
    return ht_kv_bytes(set) + ht_lanes_pool_bytes(set) + ht_lanes_matrix_bytes(set->model);
}

bool ht_lanes_fits(const ht_lanes *set, size_t d) {
    return !set->limits[d] || set->limits[d] / 4 * 3 >= ht_lanes_model_bytes(set);
}
