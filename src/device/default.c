/* The devices of an engine whose user names none: every processor besides the CPU that is really there, and the CPU. */
#include "base/os.h"
#include "device/device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the kernel shows of a processor, and the runtime that drives it. In this order, so that a runtime which finds the same
 * GPU again is not even opened: that takes time. */
static const struct node {
    const char *pattern, *runtime;
    bool spare; /* only if there is no GPU yet */
} nodes[] = {
    {"/dev/dri/renderD*", "opencl", false},   /* every GPU with a driver in Linux */
    {"/dev/nvidia[0-9]*", "opencl", false},   /* NVIDIA's own driver */
    {"/dev/kgsl-3d0", "opencl", false},       /* Qualcomm Adreno, on Android */
    {"/dev/mali[0-9]*", "opencl", false},     /* ARM Mali */
    {"/dev/dxg", "opencl", false},            /* Windows' GPUs, in WSL */
    {"/dev/accel/accel*", "openvino", false}, /* Intel's NPU */
    {"/dev/dri/renderD*", "openvino", true},
    {"/dev/dxg", "openvino", true},
    {"/dev/fastrpc-*", "ort", false},  /* Qualcomm Hexagon: Linux, */
    {"/dev/adsprpc-smd", "ort", false} /* and Android */
};

/* Devices that are a processor of their own. PoCL, openvino:CPU and ort:cpu are the CPU once more, other providers of ONNX
 * Runtime are devices that another runtime has, too. */
static const struct real {
    const char *name, *kind; /* what its name begins with */
    bool spare;
} real[] = {{"opencl:", "gpu", false},
            {"openvino:NPU", "npu", false},
            {"openvino:GPU", "gpu", true},
            {"ort:qnn", "npu", false}};

static bool is_real(const ht_device_info *row, bool gpu) {
    for (size_t i = 0; i < HT_COUNT(real); i++)
        if (strncmp(row->name, real[i].name, strlen(real[i].name)) == 0 && strcmp(row->kind, real[i].kind) == 0)
            return row->usable && !row->simulated && !row->emulated && !(real[i].spare && gpu);
    return false;
}

void ht_device_choose(const ht_device_info *rows, size_t n, bool *chosen) {
    bool gpu = false;
    for (size_t i = 0; i < n; i++)
        gpu |= is_real(&rows[i], true) && strcmp(rows[i].kind, "gpu") == 0;
    for (size_t i = 0; i < n; i++)
        chosen[i] = is_real(&rows[i], gpu);
}

const char *ht_device_node(size_t i) {
    return i < HT_COUNT(nodes) ? nodes[i].pattern : NULL;
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

static const ht_device_ops *runtime_of(const ht_device_ops *const *runtimes, const char *prefix) {
    for (; *runtimes; runtimes++)
        if (strcmp((*runtimes)->prefix, prefix) == 0)
            return *runtimes;
    return NULL; /* not in this build */
}

/* Rows of every runtime that has something to drive. */
static ht_status list_present(const ht_device_ops *const *runtimes, const char *root, ht_device_info **rows, size_t *n,
                              ht_error *error) {
    const ht_device_ops *asked[HT_COUNT(nodes)];
    size_t n_asked = 0;
    ht_status status = HT_OK;
    for (size_t i = 0; i < HT_COUNT(nodes) && !status; i++) {
        const ht_device_ops *runtime = runtime_of(runtimes, nodes[i].runtime);
        bool again = !runtime || !ht_device_node_exists(root, nodes[i].pattern);
        for (size_t k = 0; k < n_asked && !again; k++)
            again = asked[k] == runtime;
        for (size_t k = 0; k < *n && !again && nodes[i].spare; k++)
            again = is_real(&(*rows)[k], true) && strcmp((*rows)[k].kind, "gpu") == 0;
        if (again)
            continue;
        asked[n_asked++] = runtime;
        status = runtime->list(rows, n, error);
    }
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
        ht_device_choose(rows, n, chosen);
    for (size_t i = 0; i < n && !status && most > 1; i++) {
        if (!chosen[i])
            continue;
        status = ht_text_printf(list, error, "%s,", rows[i].name);
        most--;
    }
    free(chosen);
    free(rows);
    return status ? status : ht_text_printf(list, error, "cpu");
}

ht_status ht_device_defaults(size_t most, ht_text *list, ht_error *error) {
    return ht_device_defaults_of(ht_device_runtimes, "", most, list, error);
}
