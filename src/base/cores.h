/* Sets of processor cores, of any machine: bit i is core i, as the system counts them. */
#ifndef HT_CORES_H
#define HT_CORES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define HT_CORE_WORDS 16
#define HT_MAX_CORES (64 * HT_CORE_WORDS) /* what Linux's own sets hold */

typedef struct ht_cores {
    uint64_t words[HT_CORE_WORDS];
} ht_cores;

static inline bool ht_cores_has(const ht_cores *set, int core) {
    return core >= 0 && core < HT_MAX_CORES && (set->words[core / 64] >> (core % 64) & 1);
}
/* A core that no set can hold is left out. */
static inline void ht_cores_add(ht_cores *set, int core) {
    if (core >= 0 && core < HT_MAX_CORES)
        set->words[core / 64] |= UINT64_C(1) << (core % 64);
}
static inline void ht_cores_remove(ht_cores *set, int core) {
    if (core >= 0 && core < HT_MAX_CORES)
        set->words[core / 64] &= ~(UINT64_C(1) << (core % 64));
}
static inline ht_cores ht_cores_one(int core) {
    ht_cores set = {{0}};
    ht_cores_add(&set, core);
    return set;
}
static inline void ht_cores_join(ht_cores *set, const ht_cores *other) {
    for (size_t i = 0; i < HT_CORE_WORDS; i++)
        set->words[i] |= other->words[i];
}
/* Is any core in both? */
static inline bool ht_cores_meet(const ht_cores *a, const ht_cores *b) {
    uint64_t both = 0;
    for (size_t i = 0; i < HT_CORE_WORDS; i++)
        both |= a->words[i] & b->words[i];
    return both != 0;
}
/* Are all of `a` in `b`? */
static inline bool ht_cores_within(const ht_cores *a, const ht_cores *b) {
    uint64_t outside = 0;
    for (size_t i = 0; i < HT_CORE_WORDS; i++)
        outside |= a->words[i] & ~b->words[i];
    return outside == 0;
}
static inline bool ht_cores_any(const ht_cores *set) {
    return ht_cores_meet(set, set);
}
static inline bool ht_cores_same(const ht_cores *a, const ht_cores *b) {
    return memcmp(a, b, sizeof *a) == 0;
}
static inline int ht_cores_count(const ht_cores *set) {
    int n = 0;
    for (size_t i = 0; i < HT_CORE_WORDS; i++)
        n += __builtin_popcountll(set->words[i]);
    return n;
}
/* The first core from `from` on, -1: none. `for (int c = ht_cores_next(s, 0); c >= 0; c = ht_cores_next(s, c + 1))` */
static inline int ht_cores_next(const ht_cores *set, int from) {
    while (from < HT_MAX_CORES && !ht_cores_has(set, from))
        from++;
    return from < HT_MAX_CORES ? from : -1;
}

/* "0-1,4" (unchanged when it is no such list, or names a core past HT_MAX_CORES), and back: at most `capacity` bytes, ended
 * with "..." where a list is longer. An empty set is "". */
bool ht_cores_parse(const char *text, ht_cores *set);
void ht_cores_print(const ht_cores *set, char *out, size_t capacity);

#endif
