/* What devices share: options, cores, lists, waiting. */
#define _GNU_SOURCE /* cpu_set_t */
#include "device/common.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_CORES 64 /* bits of ht_device_caps.cores */

/* ---- options: "key=value:key=value" ---------------------------------------------------------------------------- */

/* The next "key=value" of *cursor, which moves past it; false at the end. A piece without '=' has value NULL. */
static bool next_option(const char **cursor, const char **key, size_t *key_bytes, const char **value, size_t *bytes) {
    const char *start = *cursor;
    if (!start || !*start)
        return false;
    size_t length = strcspn(start, ":");
    const char *equals = memchr(start, '=', length);
    *key = start;
    *key_bytes = equals ? (size_t)(equals - start) : length;
    *value = equals ? equals + 1 : NULL;
    *bytes = equals ? length - *key_bytes - 1 : 0;
    *cursor = start + length + (start[length] == ':');
    return true;
}

bool ht_device_option(const char *options, const char *key, char *value, size_t capacity) {
    const char *cursor = options, *name, *text;
    size_t name_bytes, bytes;
    while (next_option(&cursor, &name, &name_bytes, &text, &bytes)) {
        if (!text || name_bytes != strlen(key) || memcmp(name, key, name_bytes) != 0)
            continue;
        size_t n = capacity ? ht_min_size(bytes, capacity - 1) : 0;
        memcpy(value, text, n);
        if (capacity)
            value[n] = '\0';
        return true;
    }
    return false;
}

ht_status ht_device_word(const ht_device_options *options, const char *key, const char *const *words, int *choice,
                         ht_error *error) {
    char text[64];
    if (!ht_device_option(options->options, key, text, sizeof text))
        return HT_OK;
    for (int n = 0; words[n]; n++)
        if (strcmp(words[n], text) == 0) {
            *choice = n;
            return HT_OK;
        }
    char list[128] = "";
    for (size_t i = 0, at = 0; words[i] && at < sizeof list; i++)
        at += (size_t)snprintf(list + at, sizeof list - at, "%s%s",
                               i == 0         ? ""
                               : words[i + 1] ? ", "
                                              : " or ",
                               words[i]);
    return ht_fail(error, HT_ERROR_ARGUMENT, "device %s: %s=%s: expected %s", options->name, key, text, list);
}

ht_status ht_device_check_options(const char *name, const char *options, const char *const *known, ht_error *error) {
    const char *cursor = options, *key, *value;
    size_t key_bytes, bytes;
    while (next_option(&cursor, &key, &key_bytes, &value, &bytes)) {
        if (!value || bytes == 0)
            return ht_fail(error, HT_ERROR_ARGUMENT, "device %s: option '%.*s' needs a value (KEY=VALUE)", name,
                           (int)key_bytes, key);
        bool found = false;
        for (size_t i = 0; known[i] && !found; i++)
            found = strlen(known[i]) == key_bytes && memcmp(known[i], key, key_bytes) == 0;
        if (found)
            continue;
        char list[128] = "none";
        for (size_t i = 0, at = 0; known[i] && at < sizeof list; i++)
            at += (size_t)snprintf(list + at, sizeof list - at, "%s%s", i ? ", " : "", known[i]);
        return ht_fail(error, HT_ERROR_ARGUMENT, "device %s: unknown option '%.*s' (known: %s)", name, (int)key_bytes,
                       key, list);
    }
    return HT_OK;
}

uint64_t ht_all_cores(void) {
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    if (n < 1)
        n = 1;
    return n >= MAX_CORES ? ~UINT64_C(0) : (UINT64_C(1) << n) - 1;
}

int ht_core_count(uint64_t cores) {
    return __builtin_popcountll(cores);
}

void ht_core_set(uint64_t cores, cpu_set_t *set) {
    CPU_ZERO(set);
    for (int i = 0; i < MAX_CORES; i++)
        if (cores >> i & 1)
            CPU_SET(i, set);
}

void ht_stay_on(uint64_t cores, ht_stay *stay) {
    cpu_set_t own, before;
    stay->moved = false;
    if (!cores || sched_getaffinity(0, sizeof before, &before) != 0)
        return;
    ht_core_set(cores, &own);
    if (CPU_EQUAL(&own, &before))
        return;
    _Static_assert(sizeof before <= sizeof stay->before, "ht_stay holds a cpu_set_t");
    memcpy(stay->before, &before, sizeof before);
    stay->moved = sched_setaffinity(0, sizeof own, &own) == 0;
}

void ht_stay_here(ht_stay *stay) {
    const int core = sched_getcpu();
    ht_stay_on(core >= 0 && core < MAX_CORES ? UINT64_C(1) << core : 0, stay);
}

void ht_leave_cores(ht_stay *stay) {
    cpu_set_t before;
    memcpy(&before, stay->before, sizeof before);
    if (stay->moved)
        sched_setaffinity(0, sizeof before, &before);
    stay->moved = false;
}

ht_status ht_parse_cpus(const char *name, const char *text, uint64_t *cores, ht_error *error) {
    uint64_t bits = 0;
    const char *p = text;
    do {
        char *end;
        if (*p < '0' || *p > '9')
            goto bad;
        unsigned long first = strtoul(p, &end, 10), last = first;
        if (*end == '-') {
            p = end + 1;
            if (*p < '0' || *p > '9')
                goto bad;
            last = strtoul(p, &end, 10);
        }
        if (first > last || last >= MAX_CORES)
            goto bad;
        for (unsigned long i = first; i <= last; i++)
            bits |= UINT64_C(1) << i;
        if (*end != ',' && *end != '\0')
            goto bad;
        p = *end ? end + 1 : NULL;
    } while (p);
    if (bits & ~ht_all_cores())
        return ht_fail(error, HT_ERROR_ARGUMENT, "device %s: cpus=%s: this machine has %d cores", name, text,
                       ht_core_count(ht_all_cores()));
    *cores = bits;
    return HT_OK;
bad:
    return ht_fail(error, HT_ERROR_ARGUMENT, "device %s: cpus=%s is not a list of cores such as 0-1,3", name, text);
}

/* ---- lists, waiting ----------------------------------------------------------------------------------------- */

ht_status ht_device_list_add(ht_device_info **list, size_t *n, const ht_device_info *info, ht_error *error) {
    ht_device_info *grown = realloc(*list, (*n + 1) * sizeof *grown);
    if (!grown)
        return ht_fail(error, HT_ERROR_MEMORY, "no memory for the list of devices");
    grown[(*n)++] = *info;
    *list = grown;
    return HT_OK;
}

const char *ht_sync_name(ht_sync sync) {
    static const char *const names[] = {"auto", "finish", "event", "callback", "flag"};
    return (size_t)sync < HT_COUNT(names) ? names[sync] : "unknown";
}

ht_status ht_wait_all(const ht_device *self, const ht_dependency *after, size_t n_after, ht_sync sync,
                      ht_error *error) {
    for (size_t i = 0; i < n_after; i++) {
        ht_device *other = after[i].device;
        if (other == self || other->ops->completed(other) >= after[i].ticket)
            continue;
        ht_status status = other->ops->wait(other, after[i].ticket, sync, error);
        if (status != HT_OK)
            return status;
    }
    return HT_OK;
}
