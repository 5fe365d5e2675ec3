/* What is alike whatever the runtime. */
#include "device/npu/npu.h"

#include <stdio.h>
#include <stdlib.h>

void *ht_npu_pages_alloc(const ht_npu_runtime *runtime, ht_npu *npu, size_t bytes) {
    void *pages = runtime->alloc_shared ? runtime->alloc_shared(npu, bytes) : NULL;
    return pages ? pages : ht_pages_alloc(bytes);
}

void ht_npu_pages_free(const ht_npu_runtime *runtime, void *pages, size_t bytes) {
    if (!runtime->free_shared || !runtime->free_shared(pages))
        ht_pages_free(pages, bytes);
}

static const int standard_lengths[] = {1, 32, 64, 128, 256, 512, 1024};

void ht_npu_standard_lengths(ht_npu_facts *facts) {
    facts->lengths = standard_lengths;
    facts->n_lengths = HT_COUNT(standard_lengths);
}

void ht_npu_describe_lengths(ht_device_info *info) {
    for (size_t i = 0, at = 0; i < HT_COUNT(standard_lengths); i++)
        at += (size_t)snprintf(info->static_lengths + at, sizeof info->static_lengths - at, "%s%d", i ? "," : "",
                               standard_lengths[i]);
    snprintf(info->limits, sizeof info->limits,
             "graphs of all lengths: half of the memory unless another limit is given");
}

ht_status ht_npu_constants_get(ht_npu_constants *shared, size_t bytes, ht_npu_constants **out, ht_error *error) {
    if (shared) {
        atomic_fetch_add(&shared->users, 1);
        *out = shared;
        return HT_OK;
    }
    ht_npu_constants *made;
    ht_status status = ht_alloc((void **)&made, 1, sizeof *made, "a graph's constants", error);
    if (status != HT_OK)
        return status;
    atomic_init(&made->users, 1);
    made->bytes = ht_max_size(bytes, 1);
    made->data = ht_pages_alloc(made->bytes);
    if (!made->data) {
        free(made);
        return ht_fail(error, HT_ERROR_MEMORY, "no memory for a graph's %zu bytes of constants", bytes);
    }
    *out = made;
    return HT_OK;
}

void ht_npu_constants_drop(ht_npu_constants *constants) {
    if (!constants || atomic_fetch_sub(&constants->users, 1) > 1)
        return;
    ht_pages_free(constants->data, constants->bytes);
    free(constants);
}
