/* Linux and Android: files and folders. */
#define _GNU_SOURCE /* O_CLOEXEC */
#include "base/os.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define MOST_LINKS 40 /* as the kernel has it */

int ht_os_look(const char *path, ht_os_info *info) {
    struct stat s;
    *info = (ht_os_info){HT_OS_NOTHING, 0, 0, {0, 0}};
    if (stat(path, &s))
        return errno;
    info->kind = S_ISREG(s.st_mode) ? HT_OS_FILE : S_ISDIR(s.st_mode) ? HT_OS_FOLDER : HT_OS_OTHER;
    info->bytes = s.st_size > 0 ? (uint64_t)s.st_size : 0;
    info->changed = (uint64_t)s.st_mtim.tv_sec * 1000000000u + (uint64_t)s.st_mtim.tv_nsec;
    info->identity[0] = (uint64_t)s.st_dev;
    info->identity[1] = (uint64_t)s.st_ino;
    return 0;
}

bool ht_os_exists(const char *path) {
    return access(path, F_OK) == 0;
}

int ht_os_may_read(const char *path) {
    return access(path, R_OK) ? errno : 0;
}

int ht_os_may_write(const char *path) {
    return access(path, W_OK) ? errno : 0;
}

FILE *ht_os_open(const char *path, const char *mode) {
    char own[8];
    snprintf(own, sizeof own, "%.6se", mode);
    return fopen(path, own);
}

FILE *ht_os_open_unlinked(const char *path, const char *mode) {
    const int flags = *mode == 'r' ? O_RDONLY : O_WRONLY | O_CREAT | (*mode == 'a' ? O_APPEND : O_TRUNC);
    const int descriptor = open(path, flags | O_NOFOLLOW | O_CLOEXEC, 0666);
    FILE *file = descriptor < 0 ? NULL : fdopen(descriptor, mode);
    if (descriptor >= 0 && !file)
        close(descriptor);
    return file;
}

FILE *ht_os_create(const char *path, bool own) {
    const int descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, own ? 0600 : 0666);
    FILE *file = descriptor < 0 ? NULL : fdopen(descriptor, "wb");
    if (descriptor >= 0 && !file) {
        const int reason = errno;
        close(descriptor);
        unlink(path);
        errno = reason;
    }
    return file;
}

void ht_os_copy_mode(FILE *file, const char *path) {
    struct stat s;
    if (stat(path, &s) == 0)
        (void)fchmod(fileno(file), s.st_mode & 0777);
}

int ht_os_follow(const char *path, char target[HT_PATH_BYTES]) {
    if ((size_t)snprintf(target, HT_PATH_BYTES, "%s", path) >= HT_PATH_BYTES)
        return ENAMETOOLONG;
    for (int links = 0; links < MOST_LINKS; links++) {
        char next[HT_PATH_BYTES];
        const ssize_t n = readlink(target, next, sizeof next - 1);
        if (n < 0) /* no link, or nothing there */
            return errno == EINVAL || errno == ENOENT ? 0 : errno;
        next[n] = '\0';
        char *slash = strrchr(target, '/');
        const size_t folder = *next != '/' && slash ? (size_t)(slash - target) + 1 : 0;
        if (folder + (size_t)n >= HT_PATH_BYTES)
            return ENAMETOOLONG;
        memcpy(target + folder, next, (size_t)n + 1);
    }
    return ELOOP;
}

bool ht_os_absolute(const char *path, char *out, size_t capacity) {
    char *real = realpath(path, NULL);
    const bool fits = real && strlen(real) < capacity;
    if (fits)
        memcpy(out, real, strlen(real) + 1);
    free(real);
    return fits;
}

bool ht_os_is_absolute(const char *path) {
    return *path == '/';
}

int ht_os_replace(const char *from, const char *to) {
    return rename(from, to) ? errno : 0;
}

int ht_os_remove(const char *path) {
    return unlink(path) ? errno : 0;
}

int ht_os_remove_folder(const char *path) {
    return rmdir(path) ? errno : 0;
}

int ht_os_link(const char *target, const char *path) {
    static atomic_uint counter;
    char beside[HT_PATH_BYTES];
    if ((size_t)snprintf(beside, sizeof beside, "%s.%ld-%u.link", path, (long)getpid(),
                         atomic_fetch_add(&counter, 1)) >= sizeof beside)
        return ENAMETOOLONG;
    unlink(beside); /* of a process of this number that was killed */
    int reason = symlink(target, beside) ? errno : 0;
    if (!reason && rename(beside, path)) {
        reason = errno;
        unlink(beside);
    }
    return reason;
}

int ht_os_flush(FILE *file) {
    if (fflush(file) || (fsync(fileno(file)) && errno != EINVAL && errno != ENOTSUP)) /* not every file system can */
        return errno;
    return 0;
}

uint64_t ht_os_free_bytes(const char *folder) {
    struct statvfs s;
    return statvfs(folder, &s) ? UINT64_MAX : (uint64_t)s.f_bavail * s.f_frsize;
}

struct ht_os_lock {
    int descriptor;
};

int ht_os_lock_try(const char *path, ht_os_lock **lock) {
    struct stat held, there;
    int reason = 0;
    const int descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (descriptor < 0)
        return errno;
    if (flock(descriptor, LOCK_EX | LOCK_NB))
        reason = errno == EWOULDBLOCK || errno == EINTR ? EAGAIN : errno;
    /* whoever had it may have removed the file, and another one may be locked by now */
    else if (fstat(descriptor, &held) || stat(path, &there) || held.st_dev != there.st_dev ||
             held.st_ino != there.st_ino)
        reason = EAGAIN;
    if (!reason && !(*lock = malloc(sizeof **lock)))
        reason = ENOMEM;
    if (reason)
        close(descriptor);
    else
        (*lock)->descriptor = descriptor;
    return reason;
}

void ht_os_unlock(ht_os_lock *lock) {
    if (!lock)
        return;
    close(lock->descriptor);
    free(lock);
}

int ht_os_make_folder(const char *path, bool for_all) {
    const int reason = mkdir(path, for_all ? 0777 : 0700) ? errno : 0;
    ht_os_info info; /* it may have been there, or come in the meantime; a file of that name is no folder */
    return reason && (ht_os_look(path, &info) || info.kind != HT_OS_FOLDER) ? reason : 0;
}

bool ht_os_current_folder(char *out, size_t capacity) {
    return getcwd(out, capacity) != NULL;
}

struct ht_os_folder {
    DIR *folder;
};

ht_os_folder *ht_os_folder_open(const char *path) {
    ht_os_folder *made = malloc(sizeof *made);
    if (!made)
        return NULL;
    made->folder = opendir(path);
    if (made->folder)
        return made;
    free(made);
    return NULL;
}

const char *ht_os_folder_next(ht_os_folder *folder) {
    for (const struct dirent *entry; (entry = readdir(folder->folder));)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            return entry->d_name;
    return NULL;
}

void ht_os_folder_close(ht_os_folder *folder) {
    if (!folder)
        return;
    closedir(folder->folder);
    free(folder);
}
