/* A hash table from names that live elsewhere to positions. Seeded at random, because the names come from hostile
 * files: names chosen to collide would otherwise make opening one take hours. */
#ifndef HT_GGUF_INDEX_H
#define HT_GGUF_INDEX_H

#include "base/base.h"

#define HT_INDEX_NONE UINT32_MAX

typedef struct ht_index_slot {
    const char *name; /* NULL: free */
    uint32_t bytes, value;
} ht_index_slot;

typedef struct ht_index {
    ht_index_slot *slots;
    size_t mask; /* slots - 1; there is always a free one */
    uint64_t seed;
} ht_index;

ht_status ht_index_create(ht_index *index, size_t names, ht_error *error); /* room for that many */
void ht_index_free(ht_index *index);
bool ht_index_add(ht_index *index, const char *name, size_t bytes, uint32_t value); /* false: it is there already */
uint32_t ht_index_find(const ht_index *index, const char *name, size_t bytes);      /* HT_INDEX_NONE: absent */

#endif
