/* Finding OpenVINO's C library and its functions, at run time. */
#include "device/npu/npu.h"
#include "device/npu/openvino_api.h"

#include <dlfcn.h>
#include <glob.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Process-wide, written once (under `once`) but for the path, which is set before. The library is never closed: its
 * threads would outlive it. */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static char wanted[1024], reason[256];
static ht_ov ov;
static bool loaded;

void ht_openvino_set_path(const char *path) {
    snprintf(wanted, sizeof wanted, "%s", path ? path : "");
}

/* The first library that `pattern` (with a %s for `folder`) names and that opens. */
static void *open_pattern(const char *pattern, const char *folder) {
    char text[1200];
    snprintf(text, sizeof text, pattern, folder);
    glob_t found;
    void *library = NULL;
    if (glob(text, 0, NULL, &found) != 0)
        return NULL;
    for (size_t i = 0; i < found.gl_pathc && !library; i++) {
        library = dlopen(found.gl_pathv[i], RTLD_NOW | RTLD_LOCAL);
        if (!library)
            snprintf(reason, sizeof reason, "%.250s", dlerror());
    }
    globfree(&found);
    return library;
}

#define FILES "libopenvino_c.so*"
/* A path from the user: the library, or a folder that holds it as wheels do. */
static void *open_path(const char *path) {
    static const char *const patterns[] = {"%s/" FILES, "%s/libs/" FILES, "%s/openvino/libs/" FILES,
                                           "%s/lib/python3*/site-packages/openvino/libs/" FILES, "%s"};
    for (size_t i = 0; i < HT_COUNT(patterns); i++) {
        if (i + 1 == HT_COUNT(patterns) && !strstr(path, ".so"))
            break; /* dlopen of a folder says nothing useful */
        void *library = open_pattern(patterns[i], path);
        if (library)
            return library;
    }
    return NULL;
}

/* The last resort: Python knows where its packages are. */
static void *ask_python(void) {
    FILE *pipe = popen("python3 -c 'import sys; print(*sys.path, sep=chr(10))' 2>/dev/null", "r");
    if (!pipe)
        return NULL;
    char line[1024];
    void *library = NULL;
    while (fgets(line, sizeof line, pipe)) { /* to the end, or python3 meets a closed pipe */
        line[strcspn(line, "\n")] = '\0';
        if (line[0] && !library)
            library = open_pattern("%s/openvino/libs/" FILES, line);
    }
    pclose(pipe);
    return library;
}

static void *find_library(void) {
    const char *path = wanted[0] ? wanted : getenv("HETERO_OPENVINO");
    if (path && *path) { /* named: no other will do */
        void *library = open_path(path);
        if (!library && !reason[0])
            snprintf(reason, sizeof reason, "no libopenvino_c.so in %.180s (pip install openvino)", path);
        return library;
    }
    const char *roots[] = {getenv("VIRTUAL_ENV"), ".venv"};
    void *library = NULL;
    for (size_t i = 0; i < HT_COUNT(roots) && !library; i++)
        if (roots[i])
            library = open_pattern("%s/lib/python3*/site-packages/openvino/libs/" FILES, roots[i]);
    if (!library)
        library = dlopen("libopenvino_c.so", RTLD_NOW | RTLD_LOCAL);
    if (!library)
        library = ask_python();
    if (!library && !reason[0])
        snprintf(reason, sizeof reason, "OpenVINO not found (pip install openvino, or --openvino PATH)");
    return library;
}

static void load(void) {
    void *library = find_library();
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
        void *symbol = dlsym(library, table[i].name);
        if (!symbol) {
            snprintf(reason, sizeof reason, "this libopenvino_c.so has no %s: another version? (pip install openvino)",
                     table[i].name);
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
