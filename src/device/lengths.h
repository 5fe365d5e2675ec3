/* Static lengths: which of them a number of tokens runs at, for devices whose graphs are built for a length each. */
#ifndef HT_LENGTHS_H
#define HT_LENGTHS_H

#include "device/device.h"

#define HT_MOST_LENGTHS 16

/* "1+64+256", ascending, into lengths[HT_MOST_LENGTHS]; `name` is the device's, for errors. */
ht_status ht_parse_lengths(const char *name, const char *text, int *lengths, size_t *n, ht_error *error);

typedef struct ht_lengths {
    const int *at; /* [n], ascending */
    size_t n;
    size_t piece; /* what one more piece costs, in tokens: its weights are read again */
} ht_lengths;

/* Index of the first of the pieces that `tokens` are best cut into: the shortest length that holds them all, or the longest
 * that they fill and pieces for the rest, whichever costs less. */
size_t ht_choose_length(const ht_lengths *lengths, size_t tokens);

/* The same among graphs that are there: the right one, else a longer one (padding more), else pieces not much shorter.
 * False: nothing of the kind is there, the right one must be built (*found is it). */
bool ht_find_length(const ht_lengths *lengths, size_t tokens, bool (*there)(const void *context, size_t i),
                    const void *context, size_t *found);

#endif
