/* Memory that a provider hands out, which its graphs read and write in place: other memory is copied first. */
#ifndef HT_ONNXRUNTIME_MEMORY_H
#define HT_ONNXRUNTIME_MEMORY_H

#include "device/npu/onnxruntime_api.h"
#include "device/npu/npu.h"

/* From now on ht_ort_memory_alloc hands out the memory of this name ("QnnHtpShared") that the session's provider has;
 * the first that works is kept for good, and so must its session be. device: for errors. */
ht_status ht_ort_memory_offer(const ht_ort *ort, const char *device, const OrtSession *session, const char *name,
                              ht_error *error);
/* Zeroed whole pages; NULL: there is no such memory, or none left. Any thread. */
void *ht_ort_memory_alloc(size_t bytes);
bool ht_ort_memory_free(void *pages); /* false: these are not from here */
/* What the bytes at `at` are, for a tensor that lies over them. */
const OrtMemoryInfo *ht_ort_memory_of(const ht_ort *ort, const void *at);

#endif
