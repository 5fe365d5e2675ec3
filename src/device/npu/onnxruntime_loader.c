/* Finding ONNX Runtime's C library and its tables of functions, at run time. */
#include "base/os.h"
#include "device/npu/library.h"
#include "device/npu/npu.h"
#include "device/npu/onnxruntime_api.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Process-wide, written once (under `once`) but for the path, which is set before. */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static char wanted[1024], reason[256];
static ht_ort ort;
static bool loaded;

void ht_onnxruntime_set_path(const char *path) {
    snprintf(wanted, sizeof wanted, "%s", path ? path : "");
}

static const ht_library onnxruntime = {.name = "ONNX Runtime",
                                       .files = HT_OS_LIBRARY_FILES("onnxruntime"),
                                       .wheel = "onnxruntime/capi",
                                       .variable = "HETERO_ONNXRUNTIME",
                                       .package = "onnxruntime",
                                       .system = {HT_OS_LIBRARY("onnxruntime"), "libonnxruntime.so.1"},
                                       .places = {"/opt/onnxruntime*/lib"}};

/* Copies the rows' functions out of a table of pointers into our own. */
typedef struct row {
    int position;
    size_t offset;
} row;

static void copy_functions(const void *table, const row *rows, size_t n) {
    for (size_t i = 0; i < n; i++) /* POSIX: function and object pointers are alike */
        *(void **)((char *)&ort + rows[i].offset) = ((void *const *)table)[rows[i].position];
}

/* True when nothing failed; else the reason is the runtime's. */
static bool worked(OrtStatus *status) {
    if (!status)
        return true;
    snprintf(reason, sizeof reason, "ONNX Runtime does not start: %.200s", ort.GetErrorMessage(status));
    ort.ReleaseStatus(status);
    return false;
}

static void load(void) {
#define ROW(position, result, name, parameters) {position, offsetof(ht_ort, name)},
    static const row functions[] = {HT_ORT_FUNCTIONS(ROW)}, editor[] = {HT_ORT_EDITOR_FUNCTIONS(ROW)};
#undef ROW
    void *library = ht_library_open(&onnxruntime, wanted, reason);
    if (!library)
        return;
    const OrtApiBase *(*get_base)(void);
    *(void **)&get_base = ht_os_library_symbol(library, "OrtGetApiBase");
    const OrtApiBase *base = get_base ? get_base() : NULL;
    if (!base) {
        snprintf(reason, sizeof reason, HT_OS_LIBRARY("onnxruntime") " has no OrtGetApiBase: is it another library?");
        return;
    }
    snprintf(ort.version, sizeof ort.version, "%s", base->GetVersionString());
    const void *api = base->GetApi(HT_ORT_VERSION);
    if (!api) {
        snprintf(reason, sizeof reason,
                 "ONNX Runtime %.30s is too old: 1.%d or newer is needed (pip install onnxruntime)", ort.version,
                 HT_ORT_VERSION);
        return;
    }
    copy_functions(api, functions, HT_COUNT(functions));
    const void *models = ort.GetModelEditorApi();
    if (!models) {
        snprintf(reason, sizeof reason, "this ONNX Runtime %.30s cannot build models: a minimal build?", ort.version);
        return;
    }
    copy_functions(models, editor, HT_COUNT(editor));
    /* providers lie beside the library */
    ht_os_library_folder(*(void **)&get_base, ort.folder, sizeof ort.folder);
    /* What goes wrong is returned to us; its own log would only repeat it. */
    loaded = worked(ort.CreateEnv(HT_ORT_LOG_FATAL, "hetero", &ort.env)) &&
             worked(ort.CreateCpuMemoryInfo(HT_ORT_DEVICE_ALLOCATOR, HT_ORT_MEMORY_DEFAULT, &ort.host)) &&
             worked(ort.GetAllocatorWithDefaultOptions(&ort.allocator));
}

const ht_ort *ht_ort_get(const char **why) {
    pthread_once(&once, load);
    *why = loaded ? NULL : reason;
    return loaded ? &ort : NULL;
}
