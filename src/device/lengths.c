#include "device/lengths.h"

#include <stdlib.h>

#define MAX_LENGTH 65536

ht_status ht_parse_lengths(const char *name, const char *text, int *lengths, size_t *n, ht_error *error) {
    *n = 0;
    for (const char *p = text; p;) {
        char *end;
        long length = *p >= '0' && *p <= '9' ? strtol(p, &end, 10) : 0;
        if (length < 1 || length > MAX_LENGTH || (*end && *end != '+') || *n == HT_MOST_LENGTHS ||
            (*n && length <= lengths[*n - 1]))
            return ht_fail(error, HT_ERROR_ARGUMENT,
                           "device %s: lengths=%s: up to %d ascending lengths such as 1+64+256", name, text,
                           HT_MOST_LENGTHS);
        lengths[(*n)++] = (int)length;
        p = *end ? end + 1 : NULL;
    }
    return HT_OK;
}

/* *cost, in tokens: of all pieces. */
static size_t choose_piece(const ht_lengths *l, size_t tokens, size_t *cost) {
    size_t holds = 0, rest;
    while (holds + 1 < l->n && (size_t)l->at[holds] < tokens)
        holds++;
    const size_t length = (size_t)l->at[holds];
    *cost = length + l->piece;
    if (length == tokens || tokens == 0)
        return holds;
    if (length < tokens) { /* not even the longest */
        choose_piece(l, tokens - length, &rest);
        *cost += rest;
        return holds;
    }
    if (holds == 0 || l->at[holds - 1] == 1)
        return holds;
    choose_piece(l, ht_max_size(tokens - (size_t)l->at[holds - 1], 2), &rest); /* not the graph for one token */
    rest += (size_t)l->at[holds - 1] + l->piece;
    if (rest >= *cost)
        return holds;
    *cost = rest;
    return holds - 1;
}

size_t ht_choose_length(const ht_lengths *lengths, size_t tokens) {
    size_t cost;
    return choose_piece(lengths, tokens, &cost);
}

bool ht_find_length(const ht_lengths *lengths, size_t tokens, bool (*there)(const void *context, size_t i),
                    const void *context, size_t *found) {
    const size_t best = *found = ht_choose_length(lengths, tokens);
    for (size_t i = best; i < lengths->n; i++)
        if (there(context, i))
            return *found = i, true;
    for (size_t i = best; i-- > 0 && 4 * lengths->at[i] >= lengths->at[best];)
        if (there(context, i))
            return *found = i, true;
    return false;
}
