/* Finding OpenVINO's C library and its functions, at run time. */
#include "base/os.h"
#include "device/npu/library.h"
#include "device/npu/npu.h"
#include "device/npu/openvino_api.h"

#include <pthread.h>
#include <stdio.h>

/* Process-wide, written once (under `once`) but for the path, which is set before. The library is never closed: its
 * threads would outlive it. */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static char wanted[1024], reason[256];
static ht_ov ov;
static bool loaded;

void ht_openvino_set_path(const char *path) {
    snprintf(wanted, sizeof wanted, "%s", path ? path : "");
}

static const ht_library openvino = {.name = "OpenVINO",
                                    .files = HT_OS_LIBRARY_FILES("openvino_c"),
                                    .wheel = "openvino/libs",
                                    .variable = "HETERO_OPENVINO",
                                    .package = "openvino",
                                    .system = {HT_OS_LIBRARY("openvino_c")},
                                    .places = {"/opt/intel/openvino*/runtime/lib/*"}};

static void load(void) {
    void *library = ht_library_open(&openvino, wanted, reason);
    if (!library)
        return;
    static const struct row {
        const char *name;
        size_t offset;
    } table[] = {
#define ROW(result, name, parameters) {#name, offsetof(ht_ov, name)},
        HT_OV_FUNCTIONS(ROW)
#undef ROW
    };
    for (size_t i = 0; i < HT_COUNT(table); i++) {
        void *symbol = ht_os_library_symbol(library, table[i].name);
        if (!symbol) {
            snprintf(reason, sizeof reason,
                     HT_OS_LIBRARY("openvino_c") " has no %s: another version? (pip install openvino)", table[i].name);
            return;
        }
        *(void **)((char *)&ov + table[i].offset) = symbol; /* POSIX: function and object pointers are alike */
    }
    loaded = true;
}

const ht_ov *ht_ov_get(const char **why) {
    pthread_once(&once, load);
    *why = loaded ? NULL : reason;
    return loaded ? &ov : NULL;
}

void ht_ov_first_sentence(const char *text, char *out, size_t capacity) {
    static const char *const noise[] = {"Exception from ", "Check '"};
    const char *found = text;
    for (const char *line = text; *line;) {
        const size_t bytes = strcspn(line, "\n");
        bool says = bytes > 0;
        for (size_t i = 0; i < HT_COUNT(noise); i++)
            says = says && strncmp(line, noise[i], strlen(noise[i])) != 0;
        found = line;
        if (says)
            break;
        line += bytes + (line[bytes] == '\n');
    }
    snprintf(out, capacity, "%.*s", (int)strcspn(found, "\n"), found);
}
