/* Scales and codes for groups of weights: what encoders of block formats share.
 *
 * The task is a weighted least-squares fit. Given codes, the best scale (and offset) of a group follows in closed form;
 * given a scale, the best codes are roundings. So scales around the one that just covers the group are tried, each with
 * the fit of its own roundings, and then others around the best of these (the idea of ggml's k-quants; fits and
 * roundings in turn are Lloyd's algorithm). All tries of a group are computed side by side, one in each lane of a
 * vector. */
#ifndef HT_SEARCH_H
#define HT_SEARCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What codes stand for: themselves, low..high, or 16 levels, ascending, of which codes are the places. */
typedef struct ht_grid {
    float low, high;      /* the least and the greatest value */
    const int8_t *levels; /* NULL: every whole number between them */
} ht_grid;

/* weight = scale * value + offset */
typedef struct ht_line {
    float scale, offset;
} ht_line;

/* The line of n weights x that has the least sum of w * error^2; n at most 256, a multiple of 16.
 * scale: without an offset. line: with one, which is never above zero if `below`, and a scale that is not below zero. */
float ht_search_scale(const ht_grid *grid, const float *x, const float *w, size_t n);
ht_line ht_search_line(const ht_grid *grid, const float *x, const float *w, size_t n, bool below);
/* The whole number e in [low, high] for which 2^e is the best scale. */
int ht_search_power(const ht_grid *grid, const float *x, const float *w, size_t n, int low, int high);
/* Codes nearest to the weights: values, or places of levels. */
void ht_search_codes(const ht_grid *grid, ht_line line, const float *x, size_t n, int8_t *codes);

/* A block of 256 weights in groups, whose scales are d * sub and whose offsets are -dmin * sub_min. */
typedef struct ht_levelled {
    ht_grid grid;
    size_t group;          /* weights a group: 16 or 32 */
    int sub_low, sub_high; /* the least and the greatest sub */
    bool offset;           /* has dmin and sub_min, 0..sub_high */
} ht_levelled;
typedef struct ht_levels_fit {
    uint16_t d, dmin; /* fp16 */
    int8_t sub[16], sub_min[16];
    int8_t codes[256];
} ht_levels_fit;
void ht_search_levels(const ht_levelled *form, const float *x, const float *w, ht_levels_fit *fit);

#endif
