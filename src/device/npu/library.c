#include "device/npu/library.h"
#include "base/os.h"

#include <stdlib.h>
#include <string.h>

#define REASON 256

/* The first library of ours that lies in `folder`/`below` and opens. */
static void *open_in(const ht_library *l, const char *folder, const char *below, char *reason) {
    char pattern[512];
    ht_paths found = {0};
    void *library = NULL;
    snprintf(pattern, sizeof pattern, "%s%s%s", below, *below ? "/" : "", l->files);
    if (ht_paths_find(folder, pattern, &found, NULL) == HT_OK)
        for (size_t i = 0; i < found.n && !library; i++)
            library = ht_os_library_open(found.at[i], reason, REASON);
    ht_paths_free(&found);
    return library;
}

/* In a folder that Python has installed packages below. */
static void *open_in_environment(const ht_library *l, const char *root, char *reason) {
    static const char *const packages[] = {HT_OS_SITE_PACKAGES, "lib/python3*/dist-packages" /* Debian's own */};
    void *library = NULL;
    for (size_t i = 0; i < HT_COUNT(packages) && !library; i++) {
        char below[256];
        snprintf(below, sizeof below, "%s/%s", packages[i], l->wheel);
        library = open_in(l, root, below, reason);
    }
    return library;
}

/* A path from the user: the library, or a folder that holds it as wheels do. */
static void *open_path(const ht_library *l, const char *path, char *reason) {
    const char *last = strchr(l->wheel, '/'); /* "libs" of "openvino/libs": of a wheel's own folder */
    const char *const below[] = {"", last ? last + 1 : "", l->wheel};
    void *library = NULL;
    for (size_t i = 0; i < HT_COUNT(below) && !library; i++)
        library = open_in(l, path, below[i], reason);
    if (!library)
        library = open_in_environment(l, path, reason);
    if (!library && strstr(path, HT_OS_LIBRARY_MARK)) /* opening a folder says nothing useful */
        library = ht_os_library_open(path, reason, REASON);
    return library;
}

/* An environment that the user has activated. Its path is absolute: a relative one would be somebody else's in another
 * folder. */
static void *open_active(const ht_library *l, char *reason) {
    static const char *const variables[] = {"VIRTUAL_ENV", "CONDA_PREFIX"};
    void *library = NULL;
    for (size_t i = 0; i < HT_COUNT(variables) && !library; i++) {
        const char *root = getenv(variables[i]);
        if (root && ht_os_is_absolute(root))
            library = open_in_environment(l, root, reason);
    }
    return library;
}

/* What no environment has to be active for. */
static void *open_installed(const ht_library *l, char *reason) {
    static const char *const roots[] = {"/usr/local", "/usr"};
    const char *home = getenv("HOME");
    char own[1024];
    void *library = NULL;
    if (home && ht_os_is_absolute(home) && (size_t)snprintf(own, sizeof own, "%s/.local", home) < sizeof own)
        library = open_in_environment(l, own, reason);
    for (size_t i = 0; i < HT_COUNT(roots) && !library; i++)
        library = open_in_environment(l, roots[i], reason);
    for (size_t i = 0; i < HT_COUNT(l->places) && l->places[i] && !library; i++)
        library = open_in(l, "/", l->places[i] + 1, reason);
    return library;
}

void *ht_library_open(const ht_library *l, const char *path, char *reason) {
    reason[0] = '\0';
    const char *named = *path ? path : getenv(l->variable);
    if (named && *named) {
        void *library = open_path(l, named, reason);
        if (!library && !reason[0])
            snprintf(reason, REASON, "no %.*s in %.150s (pip install %s)", (int)strcspn(l->files, "*"), l->files, named,
                     l->package);
        return library;
    }
    char unused[REASON]; /* that the system does not know it says nothing */
    void *library = open_active(l, reason);
    for (size_t i = 0; l->system[i] && !library; i++)
        library = ht_os_library_open(l->system[i], unused, sizeof unused);
    if (!library)
        library = open_installed(l, reason);
    if (!library && !reason[0])
        snprintf(reason, REASON, "%s not found (pip install %s into an active environment, or %s=PATH)", l->name,
                 l->package, l->variable);
    return library;
}
