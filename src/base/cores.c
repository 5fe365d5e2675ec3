#include "base/cores.h"

#include <stdio.h>
#include <stdlib.h>

/* A number and where it ends; -1: none that a set can hold. */
static int take_core(const char **text) {
    char *end;
    if (**text < '0' || **text > '9')
        return -1;
    const unsigned long core = strtoul(*text, &end, 10);
    *text = end;
    return core < HT_MAX_CORES ? (int)core : -1;
}

bool ht_cores_parse(const char *text, ht_cores *set) {
    ht_cores found = {{0}};
    for (;; text++) {
        const int first = take_core(&text);
        int last = first;
        if (first >= 0 && *text == '-') {
            text++;
            last = take_core(&text);
        }
        if (first < 0 || last < first || (*text != ',' && *text != '\0'))
            return false;
        for (int core = first; core <= last; core++)
            ht_cores_add(&found, core);
        if (!*text)
            break;
    }
    *set = found;
    return true;
}

void ht_cores_print(const ht_cores *set, char *out, size_t capacity) {
    size_t at = 0;
    *out = '\0';
    for (int core = ht_cores_next(set, 0), last; core >= 0; core = ht_cores_next(set, last + 1)) {
        char range[32];
        for (last = core; ht_cores_has(set, last + 1);)
            last++;
        const int n = snprintf(range, sizeof range, last > core ? "%s%d-%d" : "%s%d", at ? "," : "", core, last);
        if (at + (size_t)n + sizeof "..." > capacity) {
            snprintf(out + at, capacity - at, "...");
            return;
        }
        memcpy(out + at, range, (size_t)n + 1);
        at += (size_t)n;
    }
}
