/* Files that are written whole, names by patterns, and where we keep what we keep for ourselves. */
#include "base/os.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- what is half written ------------------------------------------------------------------------------------------- */

/* A signal handler reads these: a path is whole before its state says so. */
enum { FREE, TAKEN, WRITTEN };
static struct {
    atomic_int state;
    char path[HT_PATH_BYTES];
} slots[32];

/* -1: none is free; the file is not removed by a signal then. */
static int remember(const char *path) {
    for (size_t i = 0; i < HT_COUNT(slots); i++) {
        int free_one = FREE;
        if (!atomic_compare_exchange_strong(&slots[i].state, &free_one, TAKEN))
            continue;
        snprintf(slots[i].path, sizeof slots[i].path, "%s", path);
        atomic_store(&slots[i].state, WRITTEN);
        return (int)i;
    }
    return -1;
}

static void forget(int slot) {
    if (slot >= 0)
        atomic_store(&slots[slot].state, FREE);
}

void ht_outputs_remove(void) {
    for (int round = 0; round < 2; round++) /* a folder is empty only when its file is gone */
        for (size_t i = 0; i < HT_COUNT(slots); i++)
            if (atomic_load(&slots[i].state) == WRITTEN && ht_os_remove(slots[i].path) != 0)
                ht_os_remove_folder(slots[i].path);
}

/* Sixteen digits that nobody else has. */
static unsigned long long unique(void) {
    static atomic_uint_fast64_t counter;
    uint64_t number;
    if (!ht_os_random(&number, sizeof number))
        number = ht_hash(HT_HASH_START, &(uint64_t){ht_nanoseconds()}, 8) + atomic_fetch_add(&counter, 1);
    return (unsigned long long)number;
}

/* ---- a file written whole ------------------------------------------------------------------------------------------- */

struct ht_output {
    FILE *file;
    char *path;                                           /* as the caller named it */
    char target[HT_PATH_BYTES], temporary[HT_PATH_BYTES]; /* where that leads; what is written */
    int slot;
};

static ht_status cannot(const char *path, int reason, ht_error *error) {
    return ht_fail(error, HT_ERROR_IO, "%s: cannot be written: %s", path, strerror(reason));
}

/* Follows the path and looks at what is there. */
static ht_status find_target(ht_output *output, const char *path, ht_os_info *there, ht_error *error) {
    int reason = ht_os_follow(path, output->target);
    if (reason)
        return cannot(path, reason, error);
    /* by the path itself: what leads to a pipe through /proc has no name that could be followed */
    reason = ht_os_look(path, there);
    if (!reason && there->kind != HT_OS_FILE)
        return ht_fail(error, HT_ERROR_ARGUMENT, "%s: cannot be written: it is %s", path,
                       there->kind == HT_OS_FOLDER ? "a folder" : "a device or a pipe, not a regular file");
    if (!reason) /* who may not write it is not to replace it either */
        reason = ht_os_may_write(path);
    else if (reason == ENOENT)
        reason = 0;
    return reason ? cannot(path, reason, error) : HT_OK;
}

ht_status ht_output_open(const char *path, ht_output **out, ht_error *error) {
    ht_output *output;
    ht_os_info there;
    ht_status status = ht_alloc((void **)&output, 1, sizeof *output, path, error);
    if (status)
        return status;
    output->slot = -1;
    output->path = ht_copy_text(path, strlen(path));
    if (!output->path)
        status = ht_fail(error, HT_ERROR_MEMORY, "%s: out of memory", path);
    if (!status)
        status = find_target(output, path, &there, error);
    /* in the same folder, for a rename moves nothing from one file system to another */
    const char *slash = strrchr(output->target, '/');
    const int folder = slash ? (int)(slash - output->target) + 1 : 0;
    if (!status && snprintf(output->temporary, HT_PATH_BYTES, "%.*s.hetero-%016llx.tmp", folder, output->target,
                            unique()) >= HT_PATH_BYTES)
        status = cannot(path, ENAMETOOLONG, error);
    if (!status) {
        output->slot = remember(output->temporary);
        /* nobody may open what replaces a private file, not even before it has that one's mode */
        output->file = ht_os_create(output->temporary, there.kind == HT_OS_FILE);
        if (!output->file)
            status = cannot(path, errno, error);
        else if (there.kind == HT_OS_FILE)
            ht_os_copy_mode(output->file, path);
    }
    if (status)
        ht_output_abandon(output);
    else
        *out = output;
    return status;
}

ht_status ht_output_check(const char *path, ht_error *error) {
    ht_output *output;
    ht_status status = ht_output_open(path, &output, error);
    if (!status)
        ht_output_abandon(output);
    return status;
}

FILE *ht_output_file(ht_output *output) {
    return output->file;
}

ht_status ht_output_finish(ht_output *output, ht_error *error) {
    errno = 0;
    int reason = fflush(output->file) || ferror(output->file) ? errno ? errno : EIO : 0;
    if (fclose(output->file) && !reason) /* some file systems find out only now */
        reason = errno;
    output->file = NULL;
    if (!reason)
        reason = ht_os_replace(output->temporary, output->target);
    ht_status status = reason ? cannot(output->path, reason, error) : HT_OK;
    if (reason)
        ht_os_remove(output->temporary);
    ht_output_abandon(output);
    return status;
}

void ht_output_abandon(ht_output *output) {
    if (!output)
        return;
    if (output->file) {
        fclose(output->file);
        ht_os_remove(output->temporary);
    }
    forget(output->slot);
    free(output->path);
    free(output);
}

ht_status ht_file_write(const char *path, const void *data, size_t bytes, ht_error *error) {
    ht_output *output;
    ht_status status = ht_output_open(path, &output, error);
    if (status)
        return status;
    errno = 0;
    if (bytes && fwrite(data, 1, bytes, ht_output_file(output)) != bytes) {
        status = cannot(path, errno ? errno : EIO, error);
        ht_output_abandon(output);
        return status;
    }
    return ht_output_finish(output, error);
}

/* ---- names by patterns ---------------------------------------------------------------------------------------------- */

/* After '[': is c in the set? *pattern moves behind its ']'. */
static bool in_set(const char **pattern, char c) {
    const char *p = *pattern;
    const bool negated = *p == '!' || *p == '^';
    bool found = false;
    p += negated;
    do {
        const bool range = p[0] && p[1] == '-' && p[2] && p[2] != ']';
        found |= range ? c >= p[0] && c <= p[2] : c == *p;
        p += range ? 3 : *p != '\0';
    } while (*p && *p != ']');
    *pattern = p + (*p == ']');
    return found != negated;
}

static bool matches(const char *pattern, const char *name) {
    for (; *pattern; name++) {
        if (*pattern == '*') {
            while (*pattern == '*')
                pattern++;
            for (; !matches(pattern, name); name++)
                if (!*name)
                    return false;
            return true;
        }
        if (!*name)
            return false;
        if (*pattern == '[') {
            pattern++;
            if (!in_set(&pattern, *name))
                return false;
        } else if (*pattern == '?' || *pattern == *name) {
            pattern++;
        } else {
            return false;
        }
    }
    return !*name;
}

bool ht_name_matches(const char *pattern, const char *name) {
    return (*name != '.' || *pattern == '.') && matches(pattern, name);
}

static ht_status add_path(ht_paths *paths, const char *path, ht_error *error) {
    ht_status status =
        ht_grow((void **)&paths->at, &paths->capacity, paths->n + 1, sizeof *paths->at, "names of files", error);
    char *copy = status ? NULL : ht_copy_text(path, strlen(path));
    if (!status && !copy)
        status = ht_fail(error, HT_ERROR_MEMORY, "out of memory: names of files");
    if (!status)
        paths->at[paths->n++] = copy;
    return status;
}

/* `found` is the path so far, `rest` the pattern behind it. */
static ht_status find_below(const char *found, const char *rest, ht_paths *paths, ht_error *error) {
    char path[HT_PATH_BYTES], part[256];
    ht_status status = HT_OK;
    const size_t bytes = strcspn(rest, "/");
    const char *behind = rest + bytes + strspn(rest + bytes, "/");
    if (bytes >= sizeof part)
        return HT_OK;
    snprintf(part, sizeof part, "%.*s", (int)bytes, rest);
    if (!strpbrk(part, "*?[")) {
        if ((size_t)snprintf(path, sizeof path, "%s%s%s", found, part, *behind ? "/" : "") >= sizeof path)
            return HT_OK;
        return *behind              ? find_below(path, behind, paths, error)
               : ht_os_exists(path) ? add_path(paths, path, error)
                                    : HT_OK;
    }
    ht_os_folder *folder = ht_os_folder_open(found);
    for (const char *name; folder && !status && (name = ht_os_folder_next(folder));) {
        if (!ht_name_matches(part, name) ||
            (size_t)snprintf(path, sizeof path, "%s%s%s", found, name, *behind ? "/" : "") >= sizeof path)
            continue;
        status = *behind ? find_below(path, behind, paths, error) : add_path(paths, path, error);
    }
    ht_os_folder_close(folder);
    return status;
}

static int by_name(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

ht_status ht_paths_find(const char *folder, const char *pattern, ht_paths *paths, ht_error *error) {
    char begin[HT_PATH_BYTES];
    const size_t before = paths->n;
    if (!*folder || (size_t)snprintf(begin, sizeof begin, "%s/", folder) >= sizeof begin)
        return HT_OK;
    ht_status status = find_below(begin, pattern + strspn(pattern, "/"), paths, error);
    if (paths->n > before)
        qsort(paths->at + before, paths->n - before, sizeof *paths->at, by_name);
    return status;
}

void ht_paths_free(ht_paths *paths) {
    while (paths->n)
        free(paths->at[--paths->n]);
    free(paths->at);
    *paths = (ht_paths){0};
}

/* ---- our own folder ------------------------------------------------------------------------------------------------- */

ht_status ht_make_folders(const char *path, bool for_all, ht_error *error) {
    char folder[HT_PATH_BYTES];
    if ((size_t)snprintf(folder, sizeof folder, "%s", path) >= sizeof folder)
        return ht_fail(error, HT_ERROR_IO, "%s: the path is too long", path);
    for (char *slash = *folder ? strchr(folder + 1, '/') : NULL; slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        const int reason = ht_os_make_folder(folder, for_all);
        ht_os_info info; /* "exists" alone would puzzle */
        const bool gone = reason == EEXIST && ht_os_look(folder, &info) == ENOENT;
        if (reason)
            return ht_fail(error, HT_ERROR_IO, "%s: cannot create this folder: %s", folder,
                           gone               ? "it is a link to what is not there"
                           : reason == EEXIST ? "it is no folder"
                                              : strerror(reason));
        *slash = '/';
    }
    return HT_OK;
}

ht_status ht_cache_path(const char *file, char *out, size_t capacity, ht_error *error) {
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int length;
    if (cache && ht_os_is_absolute(cache)) /* by the XDG rules a relative path is ignored */
        length = snprintf(out, capacity, "%s/hetero/%s", cache, file);
    else if (home && ht_os_is_absolute(home))
        length = snprintf(out, capacity, "%s/.cache/hetero/%s", home, file);
    else
        return ht_fail(error, HT_ERROR_IO, "no folder for %s: neither XDG_CACHE_HOME nor HOME names one", file);
    if (length < 0 || (size_t)length >= capacity)
        return ht_fail(error, HT_ERROR_IO, "no folder for %s: the path of the cache folder is too long", file);
    return ht_make_folders(out, false, error);
}

ht_status ht_temporary_name(const char *file, ht_temporary *temporary, ht_error *error) {
    char name[128];
    snprintf(name, sizeof name, "%s.%016llx.tmp", file, unique());
    temporary->slot = -1;
    ht_status status = ht_cache_path(name, temporary->path, sizeof temporary->path, error);
    if (!status)
        temporary->slot = remember(temporary->path);
    return status;
}

void ht_temporary_remove(ht_temporary *temporary) {
    if (ht_os_remove(temporary->path) != 0)
        ht_os_remove_folder(temporary->path);
    forget(temporary->slot);
    temporary->slot = -1;
}

#define ABANDONED (3600 * (uint64_t)1000000000) /* nobody writes for so many nanoseconds */

/* A file, or a folder with the files in it. */
static void remove_abandoned(const char *path) {
    char inner[HT_PATH_BYTES];
    ht_os_folder *folder = ht_os_folder_open(path);
    for (const char *name; folder && (name = ht_os_folder_next(folder));)
        if ((size_t)snprintf(inner, sizeof inner, "%s/%s", path, name) < sizeof inner)
            ht_os_remove(inner);
    if (folder)
        ht_os_folder_close(folder);
    if (ht_os_remove(path) != 0)
        ht_os_remove_folder(path);
}

void ht_temporary_sweep(const ht_temporary *temporary) {
    char folder[sizeof temporary->path], path[HT_PATH_BYTES];
    ht_os_info own, other;
    snprintf(folder, sizeof folder, "%s", temporary->path);
    char *slash = strrchr(folder, '/');
    if (!slash || ht_os_look(temporary->path, &own) != 0)
        return;
    const char *base = slash + 1;
    const size_t bytes = strlen(base), kind = strcspn(base, ".") + 1;
    *slash = '\0';
    ht_os_folder *list = ht_os_folder_open(folder);
    for (const char *name; list && (name = ht_os_folder_next(list));) {
        if (strlen(name) != bytes || strncmp(name, base, kind) != 0 || strcmp(name + bytes - 4, ".tmp") != 0)
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, name);
        if (ht_os_look(path, &other) == 0 && other.changed + ABANDONED < own.changed)
            remove_abandoned(path);
    }
    if (list)
        ht_os_folder_close(list);
}
