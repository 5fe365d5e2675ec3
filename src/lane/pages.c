/* Pages that every device of the lanes sees, and what one device of a lane leaves to another. */
#include "lane/lane.h"

ht_status ht_lanes_make_view(ht_lanes *set, size_t bytes, size_t stride, ht_view *view, ht_error *error) {
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

ht_status ht_lane_make_left(ht_lanes *set, ht_lane *lane, ht_error *error) {
    size_t experts = 1;
    for (size_t i = 0; i < set->model->n_ops; i++)
        experts = ht_max_size(experts, (size_t)set->model->ops[i].experts);
    if (lane->left.data)
        return HT_OK;
    lane->left_bytes = ht_round_up(experts * set->chunk * sizeof(float), 4096);
    return ht_lanes_make_view(set, lane->left_bytes, experts, &lane->left, error);
}

void ht_lane_free_left(ht_lanes *set, ht_lane *lane) {
    if (!lane->left.data)
        return;
    for (size_t d = 0; d < set->n_devices; d++)
        if (set->devices[d]->ops->forget)
            set->devices[d]->ops->forget(set->devices[d], lane->left.data);
    ht_device_pages_free(lane->left.data, lane->left_bytes);
    set->buffer_bytes -= lane->left_bytes;
    lane->left.data = NULL;
}
