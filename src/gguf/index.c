#include "gguf/index.h"
#include "base/os.h"

#include <stdlib.h>
#include <string.h>

ht_status ht_index_create(ht_index *index, size_t names, ht_error *error) {
    if (names >= HT_INDEX_NONE / 4)
        return ht_fail(error, HT_ERROR_UNSUPPORTED, "%zu names in one file are too many", names);
    size_t slots = 8;
    while (slots < 2 * names)
        slots *= 2;
    ht_status status = ht_alloc((void **)&index->slots, slots, sizeof *index->slots, "index of names", error);
    if (status)
        return status;
    index->mask = slots - 1;
    if (!ht_os_random(&index->seed, sizeof index->seed))
        index->seed = ht_nanoseconds();
    return HT_OK;
}

void ht_index_free(ht_index *index) {
    free(index->slots);
    *index = (ht_index){0};
}

/* The slot that holds the name, or the free one where it belongs. */
static ht_index_slot *slot_of(const ht_index *index, const char *name, size_t bytes) {
    size_t at = ht_hash_seeded(index->seed, name, bytes) & index->mask;
    for (;; at = (at + 1) & index->mask) {
        ht_index_slot *slot = &index->slots[at];
        if (!slot->name || (slot->bytes == bytes && !memcmp(slot->name, name, bytes)))
            return slot;
    }
}

bool ht_index_add(ht_index *index, const char *name, size_t bytes, uint32_t value) {
    ht_index_slot *slot = slot_of(index, name, bytes);
    if (slot->name)
        return false;
    *slot = (ht_index_slot){name, (uint32_t)bytes, value};
    return true;
}

uint32_t ht_index_find(const ht_index *index, const char *name, size_t bytes) {
    const ht_index_slot *slot = slot_of(index, name, bytes);
    return slot->name ? slot->value : HT_INDEX_NONE;
}
