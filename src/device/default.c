/* The devices of an engine whose user names none: every processor besides the CPU that is really there, and the CPU. */
#include "base/os.h"
#include "device/device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const ht_device_ops *runtime_of(const ht_device_ops *const *runtimes, const char *name) {
    for (; *runtimes; runtimes++) {
        const size_t n = strlen((*runtimes)->prefix);
        if (strncmp((*runtimes)->prefix, name, n) == 0 && (name[n] == ':' || !name[n]))
            return *runtimes;
    }
    return NULL;
}

static bool is_real(const ht_device_ops *const *runtimes, const ht_device_info *row, bool gpu) {
    const ht_device_ops *runtime = runtime_of(runtimes, row->name);
    for (const ht_device_real *r = runtime ? runtime->real : NULL; r && r->name; r++)
        if (strncmp(row->name, r->name, strlen(r->name)) == 0 && strcmp(row->kind, r->kind) == 0)
            return row->usable && !row->simulated && !row->emulated && !(r->spare && gpu);
    return false;
}

/* A GPU that is no spare one's. */
static bool has_gpu(const ht_device_ops *const *runtimes, const ht_device_info *rows, size_t n) {
    bool gpu = false;
    for (size_t i = 0; i < n && !gpu; i++)
        gpu = is_real(runtimes, &rows[i], true) && strcmp(rows[i].kind, "gpu") == 0;
    return gpu;
}

static void choose(const ht_device_ops *const *runtimes, const ht_device_info *rows, size_t n, bool *chosen) {
    const bool gpu = has_gpu(runtimes, rows, n);
    for (size_t i = 0; i < n; i++)
        chosen[i] = is_real(runtimes, &rows[i], gpu);
}

void ht_device_choose(const ht_device_info *rows, size_t n, bool *chosen) {
    choose(ht_device_runtimes, rows, n, chosen);
}

const char *ht_device_node_at(size_t i) {
    for (const ht_device_ops *const *runtime = ht_device_runtimes; *runtime; runtime++)
        for (const ht_device_node *node = (*runtime)->nodes; node && node->pattern; node++)
            if (i-- == 0)
                return node->pattern;
    return NULL;
}

/* Without opening the folder where the name is whole, which Android forbids. */
bool ht_device_node_exists(const char *root, const char *pattern) {
    char path[512];
    snprintf(path, sizeof path, "%s%s", root, pattern);
    if (!strpbrk(pattern, "*["))
        return ht_os_exists(path);
    char *name = strrchr(path, '/');
    *name++ = '\0';
    ht_os_folder *folder = ht_os_folder_open(path);
    bool found = false;
    for (const char *entry; folder && !found && (entry = ht_os_folder_next(folder));)
        found = ht_name_matches(name, entry);
    ht_os_folder_close(folder);
    return found;
}

static bool shows(const ht_device_ops *runtime, const char *root, bool gpu) {
    for (const ht_device_node *node = runtime->nodes; node && node->pattern; node++)
        if (!(node->spare && gpu) && ht_device_node_exists(root, node->pattern))
            return true;
    return false;
}

/* Rows of every runtime that has something to drive, in the order of the list: a runtime which finds the same GPU again is
 * not even opened. That takes time, and where Python has to be asked for it, tens of milliseconds. */
static ht_status list_present(const ht_device_ops *const *runtimes, const char *root, ht_device_info **rows, size_t *n,
                              ht_error *error) {
    ht_status status = HT_OK;
    for (size_t i = 0; runtimes[i] && !status; i++)
        if (shows(runtimes[i], root, has_gpu(runtimes, *rows, *n)))
            status = runtimes[i]->list(rows, n, error);
    return status;
}

ht_status ht_device_defaults_of(const ht_device_ops *const *runtimes, const char *root, size_t most, ht_text *list,
                                ht_error *error) {
    ht_device_info *rows = NULL;
    bool *chosen = NULL;
    size_t n = 0;
    ht_status status = list_present(runtimes, root, &rows, &n, error);
    if (!status)
        status = ht_alloc((void **)&chosen, n + 1, sizeof *chosen, "the list of devices", error);
    if (!status)
        choose(runtimes, rows, n, chosen);
    for (size_t i = 0; i < n && !status && most > 1; i++) {
        if (!chosen[i])
            continue;
        status = ht_text_printf(list, error, "%s,", rows[i].name);
        most--;
    }
    free(chosen);
    free(rows);
    char companion[256];
    ht_device_companion(&(ht_cores){{0}}, companion);
    return status ? status : ht_text_printf(list, error, "%s", companion);
}

ht_status ht_device_defaults(size_t most, ht_text *list, ht_error *error) {
    return ht_device_defaults_of(ht_device_runtimes, "", most, list, error);
}
