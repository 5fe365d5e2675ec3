/* Files that we keep for ourselves: where they lie, and how one is written whole. */
#define _GNU_SOURCE /* mkostemp */
#include "base/base.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool write_all(int descriptor, const char *data, size_t bytes) {
    while (bytes > 0) {
        const ssize_t n = write(descriptor, data, bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        data += n;
        bytes -= (size_t)n;
    }
    return true;
}

ht_status ht_file_write(const char *path, const void *data, size_t bytes, ht_error *error) {
    ht_text beside = {0};
    ht_status status = ht_text_printf(&beside, error, "%s.XXXXXX", path);
    if (status != HT_OK)
        return status;
    /* in the same folder, for a rename moves nothing from one file system to another */
    const int descriptor = mkostemp(beside.data, O_CLOEXEC);
    bool done = descriptor >= 0 && write_all(descriptor, data, bytes);
    int reason = errno;
    if (descriptor >= 0 && close(descriptor) && done) /* some file systems find out only now */
        done = false, reason = errno;
    if (done && rename(beside.data, path))
        done = false, reason = errno;
    if (descriptor >= 0 && !done)
        unlink(beside.data);
    ht_text_free(&beside);
    return done ? HT_OK : ht_fail(error, HT_ERROR_IO, "%s: cannot be written: %s", path, strerror(reason));
}

/* Makes every folder on the way to `path`, which is absolute. */
static ht_status make_folders(char *path, ht_error *error) {
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        const int reason = mkdir(path, 0700) ? errno : 0;
        struct stat info; /* it may have been there, or come in the meantime; a file of that name is no folder */
        if (reason && (stat(path, &info) || !S_ISDIR(info.st_mode)))
            return ht_fail(error, HT_ERROR_IO, "%s: cannot create this folder: %s", path, strerror(reason));
        *slash = '/';
    }
    return HT_OK;
}

ht_status ht_cache_path(const char *file, char *out, size_t capacity, ht_error *error) {
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int length;
    if (cache && *cache == '/') /* by the XDG rules a relative path is ignored */
        length = snprintf(out, capacity, "%s/hetero/%s", cache, file);
    else if (home && *home == '/')
        length = snprintf(out, capacity, "%s/.cache/hetero/%s", home, file);
    else
        return ht_fail(error, HT_ERROR_IO, "no folder for %s: neither XDG_CACHE_HOME nor HOME names one", file);
    if (length < 0 || (size_t)length >= capacity)
        return ht_fail(error, HT_ERROR_IO, "no folder for %s: the path of the cache folder is too long", file);
    return make_folders(out, error);
}
