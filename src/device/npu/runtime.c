/* What is alike whatever the runtime. */
#include "device/npu/npu.h"

#include <stdio.h>

void *ht_npu_pages_alloc(const ht_npu_runtime *runtime, ht_npu *npu, size_t bytes) {
    void *pages = runtime->alloc_shared ? runtime->alloc_shared(npu, bytes) : NULL;
    return pages ? pages : ht_pages_alloc(bytes);
}

void ht_npu_pages_free(const ht_npu_runtime *runtime, void *pages, size_t bytes) {
    if (!runtime->free_shared || !runtime->free_shared(pages))
        ht_pages_free(pages, bytes);
}
