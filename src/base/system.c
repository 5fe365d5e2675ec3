/* The operating system: clock, resident memory, files mapped read-only. */
#include "base/base.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

uint64_t ht_nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

double ht_seconds(void) {
    return (double)ht_nanoseconds() * 1e-9;
}

uint64_t ht_peak_rss_bytes(void) {
    /* VmHWM first: ru_maxrss survives exec, so it may be the peak of the program that started this one. */
    unsigned long long kib = 0;
    FILE *status = fopen("/proc/self/status", "re");
    if (status) {
        char line[256];
        while (!kib && fgets(line, sizeof line, status)) {
            if (sscanf(line, "VmHWM: %llu kB", &kib) != 1)
                kib = 0;
        }
        fclose(status);
    }
    struct rusage usage;
    if (!kib && getrusage(RUSAGE_SELF, &usage) == 0)
        kib = (unsigned long long)usage.ru_maxrss;
    return kib * 1024;
}

static ht_status map_descriptor(int descriptor, const char *path, ht_mapping *mapping, ht_error *error) {
    struct stat info;
    if (fstat(descriptor, &info))
        return ht_fail(error, HT_ERROR_IO, "%s: %s", path, strerror(errno));
    if (S_ISDIR(info.st_mode))
        return ht_fail(error, HT_ERROR_IO, "%s: is a directory, not a file", path);
    if (!S_ISREG(info.st_mode))
        return ht_fail(error, HT_ERROR_IO, "%s: is not a regular file", path);
    if (info.st_size <= 0)
        return ht_fail(error, HT_ERROR_FORMAT, "%s: the file is empty", path);
    void *data = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_SHARED, descriptor, 0);
    if (data == MAP_FAILED)
        return ht_fail(error, HT_ERROR_IO, "%s: cannot be mapped: %s", path, strerror(errno));
    *mapping = (ht_mapping){data, (size_t)info.st_size};
    return HT_OK;
}

ht_status ht_mapping_open(const char *path, ht_mapping *mapping, ht_error *error) {
    /* O_NONBLOCK: opening a FIFO must not wait for a writer. */
    int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0)
        return ht_fail(error, HT_ERROR_IO, "%s: %s", path, strerror(errno));
    ht_status status = map_descriptor(descriptor, path, mapping, error);
    close(descriptor);
    return status;
}

void ht_mapping_close(ht_mapping *mapping) {
    if (mapping->data)
        munmap((void *)(uintptr_t)mapping->data, mapping->bytes);
    *mapping = (ht_mapping){0};
}

void ht_mapping_drop(const void *data, size_t bytes) {
    /* Whole pages inside only: the pages at the ends hold bytes of neighbours that may be in use. */
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t begin = ((uintptr_t)data + page - 1) / page * page, end = ((uintptr_t)data + bytes) / page * page;
    if (begin < end)
        madvise((void *)begin, end - begin, MADV_DONTNEED);
}

void ht_mapping_want(const void *data, size_t bytes) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t begin = (uintptr_t)data / page * page, end = (uintptr_t)data + bytes;
    if (begin < end)
        madvise((void *)begin, end - begin, MADV_WILLNEED);
}

static int compare_doubles(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void ht_sort_doubles(double *values, size_t n) {
    qsort(values, n, sizeof *values, compare_doubles);
}
