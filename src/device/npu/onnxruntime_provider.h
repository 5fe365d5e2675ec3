/* Execution providers: what ONNX Runtime itself has (cpu), and plugins in libraries of their own (qnn, ...). */
#ifndef HT_ONNXRUNTIME_PROVIDER_H
#define HT_ONNXRUNTIME_PROVIDER_H

#include "device/npu/npu.h"
#include "device/npu/onnxruntime_api.h"

#define HT_ORT_SETTINGS 8
typedef struct ht_ort_provider {
    char name[32]; /* of our device: "cpu", "qnn"; the provider's in lower case without "ExecutionProvider" */
    const OrtEpDevice *device; /* NULL: it is not usable, */
    char why[256];             /* for this reason, else "" */
    char library[1024];        /* of a plugin, absolute; "": built in */
    char kind[8];              /* "cpu", "gpu", "npu" */
    char version[32];          /* its own, "QNN 2.40.0/5.51.0"; may be "" */
    char description[96];
    bool emulated;                                               /* its numbers count, its times do not */
    bool contexts;                                               /* compiled graphs can be kept on disk (EPContext) */
    const char *keys[HT_ORT_SETTINGS], *values[HT_ORT_SETTINGS]; /* of a session; point into `text` and constants */
    size_t n_settings;
    const char *memory; /* name of memory that graphs use in place, offered if the last setting is made; NULL: none */
    char identity[160]; /* what a compiled graph depends on besides, as text */
    char text[1200];
} ht_ort_provider;

/* Every provider found, usable or not: *list from malloc. Registers plugins that lie where the wheels put them. */
ht_status ht_ort_providers(const ht_ort *ort, ht_ort_provider **list, size_t *n, ht_error *error);
/* The one of this name. options: of the device, "" for none: library= (a plugin's file, to be registered first), and those
 * of the provider. HT_ERROR_DEVICE says why it cannot be used. */
ht_status ht_ort_provider_find(const ht_ort *ort, const char *name, const char *options, ht_ort_provider *provider,
                               ht_error *error);

/* Qualcomm's provider (onnxruntime_qnn.c): settings, version, and which Hexagon it compiles for, by options soc= and arch=.
 * The library must be there. */
ht_status ht_ort_qnn_configure(const char *options, ht_ort_provider *provider, ht_error *error);

#endif
