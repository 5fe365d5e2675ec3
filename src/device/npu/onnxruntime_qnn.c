/* Qualcomm's provider: which Hexagon it compiles for, what it is told, and what its libraries say of themselves.
 *
 * On x86-64 its libQnnHtp.so is Qualcomm's emulator: it compiles the real graphs and computes their real numbers, and takes
 * any time for it. On a phone nothing here was tried. */
#include "device/npu/onnxruntime_provider.h"

#include "base/os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the chip ---------------------------------------------------------------------------------------------------- */

/* Linux's number of a chip (include/dt-bindings/arm/qcom,ids.h), QNN's (QnnTypes.h), and its Hexagon's version. */
static const struct chip {
    int soc_id, soc_model, arch;
    const char *name;
} chips[] = {{557, 57, 75, "Snapdragon 8 Gen 3"},  {577, 57, 75, "Snapdragon 8 Gen 3"},
             {439, 30, 68, "Snapdragon 888"},      {457, 36, 69, "Snapdragon 8 Gen 1"},
             {530, 42, 69, "Snapdragon 8+ Gen 1"}, {519, 43, 73, "Snapdragon 8 Gen 2"},
             {618, 69, 79, "Snapdragon 8 Elite"},  {660, 87, 81, "Snapdragon 8 Elite Gen 5"}};

static int machines_soc_id(void) {
    int id = 0;
    FILE *file = ht_os_open("/sys/devices/soc0/soc_id", "r");
    if (file && fscanf(file, "%d", &id) != 1)
        id = 0;
    if (file)
        fclose(file);
    return id;
}

static ht_status read_number(const char *options, const char *key, int most, int *number, ht_error *error) {
    char text[16], *end;
    if (!ht_device_option(options, key, text, sizeof text))
        return HT_OK;
    const long value = strtol(text, &end, 10);
    if (*end || end == text || value < 1 || value > most)
        return ht_fail(error, HT_ERROR_ARGUMENT, "device ort:qnn: %s=%s: expected a number from 1 to %d", key, text,
                       most);
    *number = (int)value;
    return HT_OK;
}

/* The options' chip, else this machine's, else the first. One number alone brings the other along if the chip is known. */
static ht_status choose_chip(const char *options, struct chip *out, ht_error *error) {
    struct chip wanted = {0};
    ht_status status = read_number(options, "soc", 1000, &wanted.soc_model, error);
    if (status == HT_OK)
        status = read_number(options, "arch", 200, &wanted.arch, error);
    const int soc_id = wanted.soc_model || wanted.arch ? 0 : machines_soc_id();
    const struct chip *known = NULL;
    for (size_t i = 0; i < HT_COUNT(chips) && !known; i++)
        if (wanted.soc_model ? chips[i].soc_model == wanted.soc_model && (!wanted.arch || chips[i].arch == wanted.arch)
            : wanted.arch    ? false
                             : !soc_id || chips[i].soc_id == soc_id)
            known = &chips[i];
    *out = known ? *known : wanted; /* 0: the provider finds out */
    if (!known)
        out->name = "SoC";
    return status;
}

/* ---- the library ------------------------------------------------------------------------------------------------- */

#ifdef _WIN32
#define QNN_BACKEND "QnnHtp.dll"
#else
#define QNN_BACKEND "libQnnHtp.so"
#endif

/* The beginning of QNN's QnnInterface_t: its API's version, and its backend's. */
typedef struct qnn_interface {
    uint32_t backend;
    const char *provider;
    uint32_t core[3], own[3];
} qnn_interface;

/* "QNN 2.40.0/5.51.0". */
static ht_status read_version(void *library, const char *path, char version[32], ht_error *error) {
    uint64_t (*get_providers)(const qnn_interface *const **list, uint32_t *n);
    *(void **)&get_providers = ht_os_library_symbol(library, "QnnInterface_getProviders");
    const qnn_interface *const *list = NULL;
    uint32_t n = 0;
    if (!get_providers || get_providers(&list, &n) != 0 || n == 0 || !list || !list[0])
        return ht_fail(error, HT_ERROR_DEVICE, "device ort:qnn: %s is not QNN's: it has no interface to offer", path);
    snprintf(version, 32, "QNN %u.%u.%u/%u.%u.%u", list[0]->core[0], list[0]->core[1], list[0]->core[2],
             list[0]->own[0], list[0]->own[1], list[0]->own[2]);
    return HT_OK;
}

static uint64_t file_bytes(const char *path) {
    ht_os_info file;
    return ht_os_look(path, &file) == 0 ? file.bytes : 0;
}

/* ---- the settings ------------------------------------------------------------------------------------------------ */

static void set(ht_ort_provider *p, const char *key, const char *value) {
    p->keys[p->n_settings] = key;
    p->values[p->n_settings++] = value;
}

/* Graphs read and write memory of FastRPC's in place; any other is copied into some. Its library is the phone's own
 * (https://onnxruntime.ai/docs/execution-providers/QNN-ExecutionProvider.html, enable_htp_shared_memory_allocator). Phones:
 * untested; here with a library of ours that hands out ordinary memory. */
#define RPC_MEMORY HT_OS_LIBRARY("cdsprpc")

static ht_status choose_memory(const char *options, ht_ort_provider *p, ht_error *error) {
    char text[32], reason[200];
    const bool asked = ht_device_option(options, "memory", text, sizeof text);
    if (asked && strcmp(text, "shared") != 0 && strcmp(text, "copied") != 0)
        return ht_fail(error, HT_ERROR_ARGUMENT, "device ort:qnn: memory=%s: expected shared or copied", text);
    if (asked && strcmp(text, "copied") == 0)
        return HT_OK;
    if (!ht_os_library_open(RPC_MEMORY, reason,
                            sizeof reason)) /* stays open: the provider opens it for every session */
        return asked ? ht_fail(error, HT_ERROR_DEVICE, "device ort:qnn: memory=shared: %s", reason) : HT_OK;
    set(p, "enable_htp_shared_memory_allocator", "1");
    p->memory = "QnnHtpShared";
    return HT_OK;
}

ht_status ht_ort_qnn_configure(const char *options, ht_ort_provider *p, ht_error *error) {
    struct chip chip;
    char reason[250];
    ht_status status = choose_chip(options, &chip, error);
    if (status != HT_OK)
        return status;
    const char *slash = strrchr(p->library, '/');
    char *path = p->text, *soc = path + 1100, *arch = soc + 16;
    snprintf(path, 1100, "%.*s/" QNN_BACKEND, slash ? (int)(slash - p->library) : 0, p->library);
    snprintf(soc, 16, "%d", chip.soc_model);
    snprintf(arch, 16, "%d", chip.arch);
    /* The emulator writes a line to standard output when it is loaded. That is for the program to keep apart (hetero.h). */
    void *library = ht_os_library_open(path, reason, sizeof reason);
    if (!library)
        return ht_fail(error, HT_ERROR_DEVICE, "device ort:qnn: %s", reason);
    status = read_version(library, path, p->version, error);
    p->n_settings = 0;
    set(p, "backend_path", path);
    if (chip.soc_model)
        set(p, "soc_model", soc);
    if (chip.arch)
        set(p, "htp_arch", arch);
#ifdef __x86_64__
    p->emulated = true;
#endif
    if (!p->emulated) { /* it takes them, but has no power to manage, and says so on standard output now and then */
        set(p, "htp_performance_mode", "burst");
        set(p, "rpc_control_latency", "100"); /* microseconds: as Qualcomm's own examples have it */
    }
    if (status == HT_OK)
        status = choose_memory(options, p, error);
    p->contexts = true;
    snprintf(p->kind, sizeof p->kind, "npu");
    snprintf(p->description, sizeof p->description, "Hexagon v%d, %s (%d)%s", chip.arch, chip.name, chip.soc_model,
             p->emulated ? ", emulated" : "");
    snprintf(p->identity, sizeof p->identity, "soc %d arch %d, libraries of %llu and %llu bytes", chip.soc_model,
             chip.arch, (unsigned long long)file_bytes(p->library), (unsigned long long)file_bytes(path));
    return status;
}
