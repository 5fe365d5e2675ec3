#include "device/npu/onnxruntime_provider.h"
#include "base/os.h"
#include "device/npu/onnxruntime_graph.h"

#include <ctype.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SUFFIX "ExecutionProvider"
#define MAX_PLUGINS 16
#ifdef _WIN32
#define PLUGIN_PREFIX "onnxruntime_providers_"
#define PLUGIN_SUFFIX ".dll"
#else
#define PLUGIN_PREFIX "libonnxruntime_providers_"
#define PLUGIN_SUFFIX ".so"
#endif

/* Libraries that were registered, or refused to be: once a process, for providers are never let go. */
typedef struct plugin {
    char name[32], path[HT_PATH_BYTES], why[256];
} plugin;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static plugin plugins[MAX_PLUGINS]; /* under the lock */
static size_t n_plugins;

/* ---- libraries --------------------------------------------------------------------------------------------------- */

/* "qnn" of ".../libonnxruntime_providers_qnn.so"; false for what is no provider. */
static bool name_of_file(const char *path, char name[32]) {
    static const char prefix[] = PLUGIN_PREFIX;
    const char *slash = strrchr(path, '/'), *file = slash ? slash + 1 : path;
    if (strncmp(file, prefix, sizeof prefix - 1) != 0)
        return false;
    file += sizeof prefix - 1;
    const size_t n = strcspn(file, ".");
    if (n == 0 || n >= 32 || strncmp(file, "shared", n) == 0)
        return false;
    memcpy(name, file, n);
    name[n] = '\0';
    return true;
}

/* Registers the library unless that was tried before. Under the lock. */
static const plugin *add_plugin(const ht_ort *ort, const char *path) {
    char name[32], upper[64], real[HT_PATH_BYTES];
    if (!name_of_file(path, name) || !ht_os_absolute(path, real, sizeof real))
        return NULL;
    for (size_t i = 0; i < n_plugins; i++)
        if (strcmp(plugins[i].name, name) == 0)
            return &plugins[i];
    if (n_plugins == MAX_PLUGINS)
        return NULL;
    plugin *p = &plugins[n_plugins++];
    snprintf(p->name, sizeof p->name, "%s", name);
    memcpy(p->path, real, sizeof real);
    for (size_t i = 0; i <= strlen(name); i++)
        upper[i] = (char)toupper((unsigned char)name[i]);
    memcpy(upper + strlen(name), SUFFIX, sizeof SUFFIX); /* QNN's takes the name that it is registered by */
    ht_error error = {0};
    if (ht_ort_check(ort, ort->RegisterExecutionProviderLibrary(ort->env, upper, real), name, "registering it", &error))
        snprintf(p->why, sizeof p->why, "%.250s", error.text);
    return p;
}

/* Plugins beside the library and in the wheels beside its own. */
static void find_plugins(const ht_ort *ort) {
    static const char *const patterns[] = {PLUGIN_PREFIX "*" PLUGIN_SUFFIX,
                                           "../../onnxruntime_*/" PLUGIN_PREFIX "*" PLUGIN_SUFFIX,
                                           "../../onnxruntime_*/libs/*/" PLUGIN_PREFIX "*" PLUGIN_SUFFIX};
    for (size_t i = 0; i < HT_COUNT(patterns); i++) {
        ht_paths found = {0};
        if (ht_paths_find(ort->folder, patterns[i], &found, NULL) == HT_OK)
            for (size_t k = 0; k < found.n; k++)
                add_plugin(ort, found.at[k]);
        ht_paths_free(&found);
    }
}

/* ---- providers --------------------------------------------------------------------------------------------------- */

static void short_name(const char *full, char name[32]) {
    size_t n = strlen(full);
    if (n > sizeof SUFFIX - 1 && strcmp(full + n - (sizeof SUFFIX - 1), SUFFIX) == 0)
        n -= sizeof SUFFIX - 1;
    n = ht_min_size(n, 31);
    for (size_t i = 0; i < n; i++)
        name[i] = (char)tolower((unsigned char)full[i]);
    name[n] = '\0';
}

static const char *metadata(const ht_ort *ort, const OrtEpDevice *device, const char *key) {
    const char *const *keys, *const *values;
    size_t n = 0;
    const OrtKeyValuePairs *pairs = ort->EpDevice_EpMetadata(device);
    if (pairs)
        ort->GetKeyValuePairs(pairs, &keys, &values, &n);
    for (size_t i = 0; i < n; i++)
        if (strcmp(keys[i], key) == 0)
            return values[i];
    return "";
}

/* Is `device` a better choice for its provider than the one chosen? Of several it is the NPU. */
static bool better(const ht_ort *ort, const OrtEpDevice *device, const OrtEpDevice *chosen) {
    return ort->HardwareDevice_Type(ort->EpDevice_Device(device)) == HT_ORT_HARDWARE_NPU &&
           ort->HardwareDevice_Type(ort->EpDevice_Device(chosen)) != HT_ORT_HARDWARE_NPU;
}

static void describe(const ht_ort *ort, ht_ort_provider *p) {
    static const char *const kinds[] = {"cpu", "gpu", "npu"};
    const OrtHardwareDevice *hardware = ort->EpDevice_Device(p->device);
    const unsigned type = ort->HardwareDevice_Type(hardware);
    snprintf(p->kind, sizeof p->kind, "%s", kinds[type <= HT_ORT_HARDWARE_NPU ? type : HT_ORT_HARDWARE_NPU]);
    snprintf(p->library, sizeof p->library, "%.1000s", metadata(ort, p->device, "library_path"));
    snprintf(p->description, sizeof p->description, "%.40s of %.30s", ort->EpDevice_EpName(p->device),
             ort->HardwareDevice_Vendor(hardware));
}

/* One row for each provider that has a device, one for each plugin that could not be registered. Under the lock. */
static ht_status list_all(const ht_ort *ort, ht_ort_provider **list, size_t *n, ht_error *error) {
    const OrtEpDevice *const *devices = NULL;
    size_t count = 0, capacity;
    ht_status status = ht_ort_check(ort, ort->GetEpDevices(ort->env, &devices, &count), "ort", "GetEpDevices", error);
    capacity = count + n_plugins;
    *n = 0;
    if (status == HT_OK)
        status = ht_alloc((void **)list, capacity ? capacity : 1, sizeof **list, "the list of providers", error);
    for (size_t i = 0; i < count && status == HT_OK; i++) {
        char name[32];
        short_name(ort->EpDevice_EpName(devices[i]), name);
        size_t k = 0;
        while (k < *n && strcmp((*list)[k].name, name) != 0)
            k++;
        ht_ort_provider *p = &(*list)[k];
        if (k < *n && !better(ort, devices[i], p->device))
            continue;
        *n = ht_max_size(*n, k + 1);
        memcpy(p->name, name, sizeof name);
        p->device = devices[i];
        describe(ort, p);
    }
    for (size_t i = 0; i < n_plugins && status == HT_OK; i++)
        if (plugins[i].why[0]) {
            ht_ort_provider *p = &(*list)[(*n)++];
            memcpy(p->name, plugins[i].name, sizeof p->name);
            memcpy(p->why, plugins[i].why, sizeof p->why);
        }
    return status;
}

/* What is known of a provider by its name. */
static ht_status configure(const char *options, ht_ort_provider *p, ht_error *error) {
    char value[16];
    if (strcmp(p->name, "qnn") == 0)
        return ht_ort_qnn_configure(options, p, error);
    if (ht_device_option(options, "soc", value, sizeof value) ||
        ht_device_option(options, "arch", value, sizeof value) ||
        ht_device_option(options, "memory", value, sizeof value))
        return ht_fail(error, HT_ERROR_ARGUMENT, "device ort:%s: soc=, arch= and memory= are for ort:qnn", p->name);
    return HT_OK;
}

ht_status ht_ort_providers(const ht_ort *ort, ht_ort_provider **list, size_t *n, ht_error *error) {
    pthread_mutex_lock(&lock);
    find_plugins(ort);
    ht_status status = list_all(ort, list, n, error);
    pthread_mutex_unlock(&lock);
    for (size_t i = 0; i < *n && status == HT_OK; i++) {
        ht_error failure = {0};
        if ((*list)[i].device && configure("", &(*list)[i], &failure)) { /* a row that says so, no failed listing */
            snprintf((*list)[i].why, sizeof(*list)[i].why, "%.250s", failure.text);
            (*list)[i].device = NULL;
        }
    }
    return status;
}

static const plugin *find_plugin(const char *name) {
    for (size_t i = 0; i < n_plugins; i++)
        if (strcmp(plugins[i].name, name) == 0)
            return &plugins[i];
    return NULL;
}

/* library=PATH: registered, and the one that is registered by this name. Under the lock. */
static ht_status add_library(const ht_ort *ort, const char *name, const char *path, ht_error *error) {
    char real[HT_PATH_BYTES];
    if (!ht_os_absolute(path, real, sizeof real))
        return ht_fail(error, HT_ERROR_DEVICE, "device ort:%s: library=%s: no such file", name, path);
    const plugin *p = add_plugin(ort, path);
    if (!p || strcmp(p->name, name) != 0)
        return ht_fail(error, HT_ERROR_ARGUMENT, "device ort:%s: library=%s: not " PLUGIN_PREFIX "%s" PLUGIN_SUFFIX,
                       name, path, name);
    if (strcmp(p->path, real) != 0)
        return ht_fail(error, HT_ERROR_DEVICE, "device ort:%s: library=%s: %s is in use already", name, path, p->path);
    return HT_OK;
}

ht_status ht_ort_provider_find(const ht_ort *ort, const char *name, const char *options, ht_ort_provider *provider,
                               ht_error *error) {
    char path[1024];
    ht_ort_provider *list = NULL;
    size_t n = 0, i = 0;
    ht_status status = HT_OK;
    pthread_mutex_lock(&lock);
    if (ht_device_option(options, "library", path, sizeof path))
        status = add_library(ort, name, path, error);
    else if (!find_plugin(name))
        find_plugins(ort);
    if (status == HT_OK)
        status = list_all(ort, &list, &n, error);
    pthread_mutex_unlock(&lock);
    while (i < n && strcmp(list[i].name, name) != 0)
        i++;
    if (status == HT_OK && i == n)
        status = ht_fail(error, HT_ERROR_DEVICE, "device ort:%s: ONNX Runtime %s in %s has no such provider%s", name,
                         ort->version, ort->folder, strcmp(name, "qnn") ? "" : " (pip install onnxruntime-qnn)");
    if (status == HT_OK && !list[i].device)
        status = ht_fail(error, HT_ERROR_DEVICE, "device ort:%s: %s", name, list[i].why);
    if (status == HT_OK) {
        *provider = list[i];
        status = configure(options, provider, error);
    }
    free(list);
    return status;
}
