#include "device/npu/library.h"
#include "base/base.h"

#include <dlfcn.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REASON 256

/* The first library of ours that lies in `folder`/`below` and opens. */
static void *open_in(const ht_library *l, const char *folder, const char *below, char *reason) {
    char pattern[1400];
    snprintf(pattern, sizeof pattern, "%s/%s%s%s", folder, below, *below ? "/" : "", l->files);
    glob_t found;
    void *library = NULL;
    if (glob(pattern, 0, NULL, &found) != 0)
        return NULL;
    for (size_t i = 0; i < found.gl_pathc && !library; i++) {
        library = dlopen(found.gl_pathv[i], RTLD_NOW | RTLD_LOCAL);
        if (!library)
            snprintf(reason, REASON, "%.250s", dlerror());
    }
    globfree(&found);
    return library;
}

static void *open_in_environment(const ht_library *l, const char *root, char *reason) {
    char below[256];
    snprintf(below, sizeof below, "lib/python3*/site-packages/%s", l->wheel);
    return open_in(l, root, below, reason);
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
    if (!library && strstr(path, ".so")) { /* dlopen of a folder says nothing useful */
        library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (!library)
            snprintf(reason, REASON, "%.250s", dlerror());
    }
    return library;
}

/* The last resort: Python knows where its packages are. */
static void *ask_python(const ht_library *l, char *reason) {
    FILE *pipe = popen("python3 -c 'import sys; print(*sys.path, sep=chr(10))' 2>/dev/null", "r");
    if (!pipe)
        return NULL;
    char line[1024];
    void *library = NULL;
    while (fgets(line, sizeof line, pipe)) { /* to the end, or python3 meets a closed pipe */
        line[strcspn(line, "\n")] = '\0';
        if (line[0] && !library)
            library = open_in(l, line, l->wheel, reason);
    }
    pclose(pipe);
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
    const char *const roots[] = {getenv("VIRTUAL_ENV"), ".venv"};
    void *library = NULL;
    for (size_t i = 0; i < HT_COUNT(roots) && !library; i++)
        if (roots[i])
            library = open_in_environment(l, roots[i], reason);
    for (size_t i = 0; l->system[i] && !library; i++)
        library = dlopen(l->system[i], RTLD_NOW | RTLD_LOCAL);
    if (!library)
        library = ask_python(l, reason);
    if (!library && !reason[0])
        snprintf(reason, REASON, "%s not found (pip install %s, or %s=PATH in the environment)", l->name, l->package,
                 l->variable);
    return library;
}
