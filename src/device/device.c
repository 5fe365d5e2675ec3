/* The table of runtimes, DEVICE names and their options, and what devices share. */
#include "device/common.h"
#include "base/os.h"
#include "device/npu/npu.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const ht_device_ops *const ht_device_runtimes[] = {&ht_device_cpu,         &ht_device_opencl, &ht_device_openvino,
                                                   &ht_device_onnxruntime, &ht_device_sim,    NULL};

/* ---- options: "key=value:key=value" ---------------------------------------------------------------------------- */

/* The next "key=value" of *cursor, which moves past it; false at the end. A piece without '=' has value NULL. */
static bool next_option(const char **cursor, const char **key, size_t *key_bytes, const char **value, size_t *bytes) {
    const char *start = *cursor;
    if (!start || !*start)
        return false;
    size_t length = strcspn(start, ":");
    const char *equals = memchr(start, '=', length);
    *key = start;
    *key_bytes = equals ? (size_t)(equals - start) : length;
    *value = equals ? equals + 1 : NULL;
    *bytes = equals ? length - *key_bytes - 1 : 0;
    *cursor = start + length + (start[length] == ':');
    return true;
}

bool ht_device_option(const char *options, const char *key, char *value, size_t capacity) {
    const char *cursor = options, *name, *text;
    size_t name_bytes, bytes;
    while (next_option(&cursor, &name, &name_bytes, &text, &bytes)) {
        if (!text || name_bytes != strlen(key) || memcmp(name, key, name_bytes) != 0)
            continue;
        size_t n = capacity ? ht_min_size(bytes, capacity - 1) : 0;
        memcpy(value, text, n);
        if (capacity)
            value[n] = '\0';
        return true;
    }
    return false;
}

ht_status ht_device_check_options(const char *name, const char *options, const char *const *known, ht_error *error) {
    const char *cursor = options, *key, *value;
    size_t key_bytes, bytes;
    while (next_option(&cursor, &key, &key_bytes, &value, &bytes)) {
        if (!value || bytes == 0)
            return ht_fail(error, HT_ERROR_ARGUMENT, "device %s: option '%.*s' needs a value (KEY=VALUE)", name,
                           (int)key_bytes, key);
        bool found = false;
        for (size_t i = 0; known[i] && !found; i++)
            found = strlen(known[i]) == key_bytes && memcmp(known[i], key, key_bytes) == 0;
        if (found)
            continue;
        char list[128] = "none";
        for (size_t i = 0, at = 0; known[i] && at < sizeof list; i++)
            at += (size_t)snprintf(list + at, sizeof list - at, "%s%s", i ? ", " : "", known[i]);
        return ht_fail(error, HT_ERROR_ARGUMENT, "device %s: unknown option '%.*s' (known: %s)", name, (int)key_bytes,
                       key, list);
    }
    return HT_OK;
}

/* ---- cores ------------------------------------------------------------------------------------------------------- */

const ht_cores *ht_all_cores(void) {
    return ht_os_allowed_cores();
}

static double quota; /* of cores' time; 0: none */

static void find_quota(void) {
    quota = ht_os_cpu_quota("");
}

int ht_default_threads(const ht_cores *cores) {
    const int n = ht_cores_count(cores);
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, find_quota);
    return quota > 0 && quota < n ? (int)ceil(quota) : n;
}

void ht_stay_on(const ht_cores *cores, ht_stay *stay) {
    stay->moved = false;
    if (cores && ht_cores_any(cores) && ht_os_get_affinity(&stay->before) && !ht_cores_same(cores, &stay->before))
        stay->moved = ht_os_set_affinity(cores);
}

void ht_stay_here(ht_stay *stay) {
    const ht_cores core = ht_cores_one(ht_os_current_core());
    ht_stay_on(&core, stay);
}

void ht_leave_cores(ht_stay *stay) {
    if (stay->moved)
        ht_os_set_affinity(&stay->before);
    stay->moved = false;
}

ht_status ht_parse_cpus(const char *name, const char *text, ht_cores *cores, ht_error *error) {
    ht_cores wanted;
    if (!ht_cores_parse(text, &wanted))
        return ht_fail(error, HT_ERROR_ARGUMENT, "device %s: cpus=%s is no list of cores such as 0-1,3", name, text);
    if (!ht_cores_within(&wanted, ht_all_cores())) {
        char list[128];
        ht_cores_print(ht_all_cores(), list, sizeof list);
        return ht_fail(error, HT_ERROR_ARGUMENT, "device %s: cpus=%s: this process may use %d cores: %s", name, text,
                       ht_cores_count(ht_all_cores()), list);
    }
    *cores = wanted;
    return HT_OK;
}

/* ---- listing and opening ----------------------------------------------------------------------------------------- */

ht_status ht_device_list_add(ht_device_info **list, size_t *n, const ht_device_info *info, ht_error *error) {
    ht_device_info *grown = realloc(*list, (*n + 1) * sizeof *grown);
    if (!grown)
        return ht_fail(error, HT_ERROR_MEMORY, "no memory for the list of devices");
    grown[(*n)++] = *info;
    *list = grown;
    return HT_OK;
}

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

/* "gpu": the first OpenCL device of type GPU, else any OpenCL device. "npu": the first real NPU, else any device with
 * static lengths, an emulated one last. Other names stay. */
static ht_status resolve_kind(char *name, size_t capacity, ht_error *error) {
    bool gpu = strcmp(name, "gpu") == 0;
    if (!gpu && strcmp(name, "npu") != 0)
        return HT_OK;
    ht_device_info *list;
    size_t n;
    ht_status status = ht_devices_list(&list, &n, error);
    if (status != HT_OK)
        return status;
    const ht_device_info *best = NULL;
    int best_rank = 0;
    for (size_t i = 0; i < n; i++) {
        if (!list[i].usable || list[i].simulated)
            continue;
        bool stands_in = gpu ? strncmp(list[i].name, "opencl:", 7) == 0 : list[i].static_lengths[0] != '\0';
        const int rank = !list[i].emulated && strcmp(list[i].kind, name) == 0 && (stands_in || !gpu) ? 3
                         : !stands_in                                                                ? 0
                         : list[i].emulated                                                          ? 1
                                                                                                     : 2;
        if (rank > best_rank)
            best = &list[i], best_rank = rank;
    }
    const char *why = NULL; /* of what was looked for */
    for (size_t i = 0; i < n && !best && !why; i++)
        if (!list[i].usable && ht_device_is_partial(list[i].name) == !gpu)
            why = list[i].why;
    if (!best)
        status = ht_fail(error, HT_ERROR_DEVICE, "device %s: none found: %s", name,
                         why ? why : "'hetero devices' says what there is");
    else
        snprintf(name, capacity, "%s", best->name);
    free(list);
    return status;
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

/* Bytes of the name of "openvino:CPU:cpus=1": every piece before the first with a '='. Of a simulated device, what is before
 * the last slash is the name's own, a SoC's changes ("sim:SOC@memory.peak_GBps=80/gpu") included. */
static size_t name_bytes(const char *spec) {
    const char *slash = strncmp(spec, "sim:", 4) ? NULL : strrchr(spec, '/');
    const char *equals = strchr(slash ? slash : spec, '=');
    const char *end = equals ? equals : spec + strlen(spec);
    while (equals && end > spec && *end != ':')
        end--;
    return (size_t)(end - spec);
}

ht_status ht_device_open(const char *spec, const ht_device_options *options, ht_device **device, ht_error *error) {
    const size_t bytes = name_bytes(spec);
    char name[256];
    if (bytes == 0 && *spec)
        return ht_fail(error, HT_ERROR_ARGUMENT, "device '%s': a name comes before options", spec);
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

bool ht_device_is_partial(const char *spec) {
    const ht_device_ops *runtime = find_runtime(spec);
    return runtime ? runtime->partial : strcspn(spec, ":") == 3 && memcmp(spec, "npu", 3) == 0;
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
    ht_status status = HT_OK;
    for (int i = 0; !status && ht_device_next(&list, spec); i++) {
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

const char *ht_sync_name(ht_sync sync) {
    static const char *const names[] = {"auto", "finish", "event", "callback", "flag"};
    return (size_t)sync < HT_COUNT(names) ? names[sync] : "unknown";
}

ht_status ht_wait_all(const ht_device *self, const ht_dependency *after, size_t n_after, ht_sync sync,
                      ht_error *error) {
    for (size_t i = 0; i < n_after; i++) {
        ht_device *other = after[i].device;
        if (other == self || other->ops->completed(other) >= after[i].ticket)
            continue;
        ht_status status = other->ops->wait(other, after[i].ticket, sync, error);
        if (status != HT_OK)
            return status;
    }
    return HT_OK;
}

ht_status ht_runtime_path(const char *runtime, const char *path, ht_error *error) {
    static const struct {
        const char *runtime;
        void (*set_path)(const char *path);
    } rows[] = {{"openvino", ht_openvino_set_path}, {"onnxruntime", ht_onnxruntime_set_path}};
    for (size_t i = 0; i < HT_COUNT(rows); i++)
        if (strcmp(runtime, rows[i].runtime) == 0) {
            rows[i].set_path(path);
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
