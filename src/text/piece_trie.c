/* Pieces by their bytes, for the kinds of vocabulary that ask which pieces begin at a place of a text. The edges are
 * one hash table: a node with many children costs no more than one with few, and a crafted file cannot choose
 * collisions. */
#include "text/vocab.h"

#include <stdlib.h>
#include <string.h>

#define NODE_BITS 28
#define MAX_NODES ((size_t)1 << NODE_BITS)

static uint64_t edge_of(int32_t node, uint8_t byte) {
    return (uint64_t)(uint32_t)node << 8 | byte;
}

/* Where the edge is or would go. A child is never the root, so 0 is free. */
static uint64_t *slot_of(const ht_piece_trie *trie, uint64_t edge) {
    const unsigned __int128 product =
        (unsigned __int128)(edge ^ trie->seed ^ 0x9e3779b97f4a7c15u) * (trie->seed | 0xd6e8feb86659fd93u);
    uint64_t i = ((uint64_t)product ^ (uint64_t)(product >> 64)) & trie->mask;
    while (trie->edges[i] != 0 && trie->edges[i] >> NODE_BITS != edge)
        i = (i + 1) & trie->mask;
    return &trie->edges[i];
}

int32_t ht_piece_trie_step(const ht_piece_trie *trie, int32_t node, uint8_t byte) {
    const uint64_t slot = *slot_of(trie, edge_of(node, byte));
    return slot ? (int32_t)(slot & (MAX_NODES - 1)) : -1;
}

static ht_status resize(ht_piece_trie *trie, uint64_t slots, ht_error *error) {
    uint64_t *old = trie->edges;
    const uint64_t n_old = old ? trie->mask + 1 : 0;
    trie->edges = NULL;
    ht_status status = ht_alloc((void **)&trie->edges, slots, sizeof *trie->edges, "the vocabulary", error);
    if (status) {
        trie->edges = old;
        return status;
    }
    trie->mask = slots - 1;
    for (uint64_t i = 0; i < n_old; i++)
        if (old[i])
            *slot_of(trie, old[i] >> NODE_BITS) = old[i];
    free(old);
    return HT_OK;
}

static ht_status new_node(ht_piece_trie *trie, ht_error *error) {
    if (trie->n == MAX_NODES)
        return ht_fail(error, HT_ERROR_FORMAT, "the pieces of the vocabulary hold too much text");
    ht_status status =
        ht_grow((void **)&trie->ids, &trie->cap_ids, trie->n + 1, sizeof *trie->ids, "the vocabulary", error);
    if (status == HT_OK)
        trie->ids[trie->n++] = -1;
    return status;
}

static ht_status add(ht_piece_trie *trie, const char *text, size_t bytes, int32_t id, ht_error *error) {
    int32_t node = 0;
    for (size_t i = 0; i < bytes; i++) {
        const uint64_t edge = edge_of(node, (uint8_t)text[i]);
        uint64_t *slot = slot_of(trie, edge);
        if (!*slot) {
            ht_status status = new_node(trie, error);
            if (status)
                return status;
            *slot = edge << NODE_BITS | (trie->n - 1);
            if (trie->n * 2 > trie->mask) {
                status = resize(trie, (trie->mask + 1) * 2, error);
                if (status)
                    return status;
                slot = slot_of(trie, edge);
            }
        }
        node = (int32_t)(*slot & (MAX_NODES - 1));
    }
    if (trie->ids[node] < 0) /* of equal pieces the first counts */
        trie->ids[node] = id;
    return HT_OK;
}

ht_status ht_piece_trie_build(ht_tokenizer *t, bool decoded, ht_error *error) {
    ht_piece_trie *trie = &t->pieces_trie;
    trie->seed = t->seed;
    ht_status status = resize(trie, 1024, error);
    if (status == HT_OK)
        status = new_node(trie, error);
    for (int32_t id = 0; status == HT_OK && id < t->size; id++) {
        const char *text = decoded ? t->texts[id].data : t->pieces[id].data;
        const size_t bytes = decoded ? t->texts[id].bytes : t->pieces[id].bytes;
        if (ht_vocab_is_text(t, id) && bytes > 0 && bytes <= HT_MAX_WALK)
            status = add(trie, text, bytes, id, error);
    }
    return status;
}
