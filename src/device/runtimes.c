/* The list of runtimes, and what goes over it: listing, names, opening. Nothing here knows one of them: a runtime says all
 * there is to say of it in its own ht_device_ops. */
#include "device/common.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const ht_device_ops *const ht_device_runtimes[] = {&ht_device_cpu,         &ht_device_opencl, &ht_device_openvino,
                                                   &ht_device_onnxruntime, &ht_device_sim,    NULL};

ht_status ht_devices_list(ht_device_info **list, size_t *n, ht_error *error) {
    ht_device_info *found = NULL;
    size_t count = 0;
    for (size_t i = 0; ht_device_runtimes[i]; i++) {
        ht_status status = ht_device_runtimes[i]->list(&found, &count, error);
        if (status != HT_OK) {
            free(found);
            return status;
        }
    }
    *list = found;
    *n = count;
    return HT_OK;
}

/* The runtime whose prefix the name begins with, or NULL. */
static const ht_device_ops *find_runtime(const char *name) {
    const size_t bytes = strcspn(name, ":");
    for (size_t i = 0; ht_device_runtimes[i]; i++) {
        const char *prefix = ht_device_runtimes[i]->prefix;
        if (strlen(prefix) == bytes && memcmp(prefix, name, bytes) == 0)
            return ht_device_runtimes[i];
    }
    return NULL;
}

/* "gpu", "npu": the first real one, else a device that stands in for one, an emulated one last. Other names stay. A GPU is
 * one of a runtime that is for GPUs. */
static ht_status resolve_kind(char *name, size_t capacity, ht_error *error) {
    const bool gpu = strcmp(name, "gpu") == 0;
    if (!gpu && strcmp(name, "npu") != 0)
        return HT_OK;
    ht_device_info *list;
    size_t n;
    ht_status status = ht_devices_list(&list, &n, error);
    if (status != HT_OK)
        return status;
    const ht_device_info *best = NULL;
    const char *why = NULL; /* of what was looked for */
    int best_rank = 0;
    for (size_t i = 0; i < n; i++) {
        const ht_device_ops *runtime = find_runtime(list[i].name);
        const bool stands_in = runtime && runtime->stands_in && strcmp(runtime->stands_in, name) == 0;
        if (!list[i].usable && stands_in && !why)
            why = list[i].why;
        if (!list[i].usable || list[i].simulated)
            continue;
        const int rank = !list[i].emulated && strcmp(list[i].kind, name) == 0 && (stands_in || !gpu) ? 3
                         : !stands_in                                                                ? 0
                         : list[i].emulated                                                          ? 1
                                                                                                     : 2;
        if (rank > best_rank)
            best = &list[i], best_rank = rank;
    }
    if (!best)
        status = ht_fail(error, HT_ERROR_DEVICE, "device %s: none found%s%s", name, why ? ": " : "", why ? why : "");
    else
        snprintf(name, capacity, "%s", best->name);
    free(list);
    return status;
}

/* Bytes of the name of "openvino:CPU:cpus=1": every piece before the first with a '='. Where slashes are the name's own,
 * what is before the last one is, too, a SoC's changes ("sim:SOC@memory.peak_GBps=80/gpu") included. */
size_t ht_device_name_bytes(const char *spec) {
    const ht_device_ops *runtime = find_runtime(spec);
    const char *slash = runtime && runtime->slashes ? strrchr(spec, '/') : NULL;
    const char *equals = strchr(slash ? slash : spec, '=');
    const char *end = equals ? equals : spec + strlen(spec);
    while (equals && end > spec && *end != ':')
        end--;
    return (size_t)(end - spec);
}

ht_status ht_device_open(const char *spec, const ht_device_options *options, ht_device **device, ht_error *error) {
    const size_t bytes = ht_device_name_bytes(spec);
    char name[256];
    if (bytes == 0 && *spec)
        return ht_fail(error, HT_ERROR_ARGUMENT, "device '%s': a name must come before options", spec);
    if (bytes == 0 || bytes >= sizeof name)
        return ht_fail(error, HT_ERROR_ARGUMENT, "device '%s': no such device", spec);
    memcpy(name, spec, bytes);
    name[bytes] = '\0';
    ht_status status = resolve_kind(name, sizeof name, error);
    if (status != HT_OK)
        return status;

    ht_device_options filled = *options;
    filled.name = name;
    filled.options = spec[bytes] ? spec + bytes + 1 : "";
    const ht_device_ops *runtime = find_runtime(name);
    if (runtime)
        return runtime->open(&filled, device, error);
    char list[128] = "";
    for (size_t i = 0, at = 0; ht_device_runtimes[i] && at < sizeof list; i++)
        at += (size_t)snprintf(list + at, sizeof list - at, "%s, ", ht_device_runtimes[i]->prefix);
    return ht_fail(error, HT_ERROR_ARGUMENT, "device '%s': no such runtime (known: %sgpu, npu)", name, list);
}

static const ht_device_ops *find_companion(void) {
    const ht_device_ops *const *runtime = ht_device_runtimes;
    while (*runtime && !(*runtime)->companion)
        runtime++;
    return *runtime;
}

void ht_device_companion(const ht_cores *cores, char spec[256]) {
    const ht_device_ops *companion = find_companion();
    const char *name = companion ? companion->prefix : "";
    char list[200];
    ht_cores_print(cores, list, sizeof list);
    snprintf(spec, 256, "%s%s%s", name, *list ? ":cpus=" : "", list);
}

ht_status ht_device_host(ht_device_info *info, ht_error *error) {
    const ht_device_ops *companion = find_companion();
    ht_device_info *list = NULL;
    size_t n = 0;
    ht_status status = companion ? companion->list(&list, &n, error) : HT_OK;
    if (!status && n == 0)
        status = ht_fail(error, HT_ERROR_DEVICE, "this machine's processor is not known");
    if (!status)
        *info = list[0];
    free(list);
    return status;
}

bool ht_device_is_partial(const char *spec) {
    const ht_device_ops *runtime = find_runtime(spec);
    const size_t bytes = strcspn(spec, ":"); /* of a kind, perhaps: what stands in for it */
    for (size_t i = 0; !runtime && ht_device_runtimes[i]; i++) {
        const char *kind = ht_device_runtimes[i]->stands_in;
        if (kind && strlen(kind) == bytes && memcmp(kind, spec, bytes) == 0)
            runtime = ht_device_runtimes[i];
    }
    return runtime && runtime->partial;
}

bool ht_device_next(const char **list, char spec[256]) {
    const size_t length = strcspn(*list, ",");
    if (!**list)
        return false;
    const bool fits = length < 256;
    memcpy(spec, *list, fits ? length : 0);
    spec[fits ? length : 0] = '\0';
    *list += length + ((*list)[length] == ',');
    return true;
}

ht_status ht_device_expand(const char *list, ht_text *expanded, ht_error *error) {
    char spec[256];
    const char *rest = list;
    ht_status status = HT_OK;
    for (int i = 0; !status && ht_device_next(&rest, spec); i++) {
        if (!*spec)
            return ht_fail(error, HT_ERROR_ARGUMENT, "devices: an empty or overlong name in \"%s\"", list);
        const ht_device_ops *runtime = find_runtime(spec);
        ht_text members = {0};
        if (runtime && runtime->members)
            status = runtime->members(spec, &members, error);
        if (!status)
            status = ht_text_printf(expanded, error, "%s%s", i ? "," : "", members.bytes ? members.data : spec);
        ht_text_free(&members);
    }
    return status;
}

ht_status ht_runtime_path(const char *runtime, const char *path, ht_error *error) {
    for (size_t i = 0; ht_device_runtimes[i]; i++)
        if (ht_device_runtimes[i]->library && strcmp(runtime, ht_device_runtimes[i]->library) == 0) {
            ht_device_runtimes[i]->set_path(path);
            return HT_OK;
        }
    return ht_fail(error, HT_ERROR_UNSUPPORTED, "no runtime \"%s\" is opened at run time", runtime);
}

/* ---- pages for the pool --------------------------------------------------------------------------------------------------- */

void *ht_device_pages_alloc(ht_device *const *devices, size_t n, size_t bytes) {
    void *pages = NULL;
    for (size_t i = 0; i < n && !pages; i++)
        if (devices[i]->ops->alloc_shared)
            pages = devices[i]->ops->alloc_shared(devices[i], bytes);
    return pages ? pages : ht_pages_alloc(bytes);
}

void ht_device_pages_free(void *pages, size_t bytes) {
    for (const ht_device_ops *const *runtime = ht_device_runtimes; *runtime; runtime++)
        if ((*runtime)->free_shared && (*runtime)->free_shared(pages))
            return;
    ht_pages_free(pages, bytes);
}
