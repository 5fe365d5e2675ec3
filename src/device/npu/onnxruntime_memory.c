#include "device/npu/onnxruntime_memory.h"

#include "device/npu/onnxruntime_graph.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

enum { MOST_REGIONS = 128, PAGE = 4096 };

typedef struct region {
    uint8_t *pages;
    void *raw; /* as the allocator gave it: not on a page's boundary */
    size_t bytes;
} region;

/* Of the process, as the provider's library is: memory may be let go after the device that asked for it. */
static struct {
    pthread_mutex_t lock;
    const ht_ort *ort;
    OrtMemoryInfo *info;
    OrtAllocator *allocator; /* of the session that is kept for it */
    region regions[MOST_REGIONS];
    atomic_size_t n;
} memory = {.lock = PTHREAD_MUTEX_INITIALIZER};

ht_status ht_ort_memory_offer(const ht_ort *ort, const char *device, const OrtSession *session, const char *name,
                              ht_error *error) {
    OrtMemoryInfo *info = NULL;
    OrtAllocator *allocator = NULL;
    ht_status status =
        ht_ort_check(ort, ort->CreateMemoryInfo(name, HT_ORT_DEVICE_ALLOCATOR, 0, HT_ORT_MEMORY_DEFAULT, &info), device,
                     "CreateMemoryInfo", error);
    if (status == HT_OK)
        status = ht_ort_check(ort, ort->CreateAllocator(session, info, &allocator), device, "CreateAllocator", error);
    pthread_mutex_lock(&memory.lock);
    if (status == HT_OK && !memory.allocator) {
        memory.ort = ort;
        memory.info = info;
        memory.allocator = allocator;
        info = NULL;
        allocator = NULL;
    }
    pthread_mutex_unlock(&memory.lock);
    if (allocator)
        ort->ReleaseAllocator(allocator);
    if (info)
        ort->ReleaseMemoryInfo(info);
    return status;
}

void *ht_ort_memory_alloc(size_t bytes) {
    void *raw = NULL;
    uint8_t *pages = NULL;
    const size_t whole = ht_round_up(bytes, PAGE);
    pthread_mutex_lock(&memory.lock);
    const size_t n = atomic_load(&memory.n);
    if (memory.allocator && n < MOST_REGIONS) {
        OrtStatus *failed = memory.ort->AllocatorAlloc(memory.allocator, whole + PAGE, &raw);
        if (failed)
            memory.ort->ReleaseStatus(failed);
        else if (raw) {
            pages = (uint8_t *)ht_round_up((size_t)(uintptr_t)raw, PAGE);
            memory.regions[n] = (region){pages, raw, whole};
            atomic_store(&memory.n, n + 1);
        }
    }
    pthread_mutex_unlock(&memory.lock);
    if (pages)
        memset(pages, 0, whole);
    return pages;
}

bool ht_ort_memory_free(void *pages) {
    void *raw = NULL;
    if (atomic_load(&memory.n) == 0)
        return false;
    pthread_mutex_lock(&memory.lock);
    const size_t n = atomic_load(&memory.n);
    for (size_t i = 0; i < n && !raw; i++)
        if (memory.regions[i].pages == pages) {
            raw = memory.regions[i].raw;
            memory.regions[i] = memory.regions[n - 1];
            atomic_store(&memory.n, n - 1);
        }
    if (raw) {
        OrtStatus *failed = memory.ort->AllocatorFree(memory.allocator, raw);
        if (failed)
            memory.ort->ReleaseStatus(failed);
    }
    pthread_mutex_unlock(&memory.lock);
    return raw != NULL;
}

const OrtMemoryInfo *ht_ort_memory_of(const ht_ort *ort, const void *at) {
    const OrtMemoryInfo *info = ort->host;
    if (atomic_load(&memory.n) == 0)
        return info;
    pthread_mutex_lock(&memory.lock);
    for (size_t i = 0; i < atomic_load(&memory.n); i++)
        if ((const uint8_t *)at >= memory.regions[i].pages &&
            (size_t)((const uint8_t *)at - memory.regions[i].pages) < memory.regions[i].bytes)
            info = memory.info;
    pthread_mutex_unlock(&memory.lock);
    return info;
}
