#include "plan/estimate.h"

#include <string.h>

static void count_op(side *to, int signature, size_t count) {
    size_t i = 0;
    while (i < to->n_ops && to->ops[i].signature != signature)
        i++;
    if (i == to->n_ops)
        to->ops[to->n_ops++].signature = signature, to->ops[i].count = 0;
    to->ops[i].count += count;
}

static void count_ops(solver *s) {
    for (size_t k = 0; k < s->model->n_groups; k++) {
        const ht_group *g = &s->model->groups[k];
        const ht_block *block = block_of(s, g);
        for (size_t i = 0; i < block->n && !g->head; i++) {
            side *to = &s->sides[i >= g->tail];
            if (block->fused && i == block->fused_from && (i >= g->tail) == (block->fused_to > g->tail)) {
                to->fused[to->n_fused].block = block;
                to->fused[to->n_fused++].count = g->count;
                i = block->fused_to - 1;
                continue;
            }
            count_op(to, signature_of(s, block, i), g->count);
        }
    }
}

void ht_estimate_start(solver *s, const ht_problem *p, ht_choice *best) {
    size_t n = REMEMBERED;
    s->p = p;
    s->model = p->model;
    s->best = best;
    s->bound = INFINITY;
    s->n_lanes = 1;
    s->lookups = 0;
    for (int i = 0; i < 2; i++)
        s->sides[i].n_ops = s->sides[i].n_fused = 0;
    count_ops(s);
    for (s->shift = 24; n * p->model->n_signatures > POOL; n /= 2)
        s->shift++;
    for (size_t i = 0; i < n; i++)
        s->kept[i].cost = NULL;
}

/* Lanes that compute at the same time slow each other down: they share memory, if no cores. */
void ht_estimate_set(solver *s, const size_t *lanes, size_t n_lanes) {
    s->lanes = lanes;
    s->n_lanes = n_lanes;
    for (size_t i = 0; i < n_lanes; i++)
        for (size_t many = 0; many < 2; many++) {
            const ht_lane_cost *cost = s->p->lanes[lanes[i]].cost;
            s->slower[lanes[i]][many] = ht_factor(cost->together, lanes[i], lanes, n_lanes, many + 1);
            s->slower_norms[lanes[i]][many] = ht_factor(cost->norms, lanes[i], lanes, n_lanes, many + 1);
        }
}

/* What the block can have as one operator: as that, and in its parts. */
static void fused_ways(const solver *s, const ht_block *block, const times *t, ht_estimate ways[2]) {
    ways[0] = of_signature(t, block->fused->signature);
    ways[1] = (ht_estimate){0};
    for (size_t i = block->fused_from; i < block->fused_to; i++)
        add(&ways[1], 1, of_signature(t, signature_of(s, block, i)));
}

void ht_estimate_ways(const solver *s, const ht_block *block, const times *t, size_t from, size_t to,
                      ht_estimate ways[2]) {
    const bool fused = has_fused(block, from, to);
    ways[0] = ways[1] = (ht_estimate){0};
    if (fused)
        fused_ways(s, block, t, ways);
    for (size_t i = from; i < to; i++)
        for (int way = 0; way < 2 && !(fused && i >= block->fused_from && i < block->fused_to); way++)
            add(&ways[way], 1, of_signature(t, signature_of(s, block, i)));
}

static ht_estimate of_side(const solver *s, const side *x, const times *t) {
    ht_estimate sum = {0}, ways[2];
    for (size_t i = 0; i < x->n_ops; i++)
        add(&sum, (double)x->ops[i].count, of_signature(t, x->ops[i].signature));
    for (size_t i = 0; i < x->n_fused; i++) {
        fused_ways(s, x->fused[i].block, t, ways);
        add(&sum, (double)x->fused[i].count, ways[seconds_of(ways[1]) <= seconds_of(ways[0])]);
    }
    return sum;
}

void ht_estimate_fill(solver *s, const ht_lane_cost *cost, size_t n, size_t place) {
    const size_t n_signatures = s->model->n_signatures;
    double *of = &s->pool[2 * place * n_signatures], *wait = of + n_signatures;
    times *t = &s->kept[place];
    *t = (times){.cost = cost, .n = n, .of = of, .wait = wait};
    for (size_t i = 0; i < n_signatures; i++) {
        const bool known = n == 1 || !s->model->signatures[i].head; /* the head is of one token */
        of[i] = known ? ht_op_seconds(cost, (int)i, n, 1, 0) : INFINITY;
        wait[i] = cost->ops[i].start < of[i] ? cost->ops[i].start : of[i];
        s->lookups += known;
    }
    t->begin = of_side(s, &s->sides[0], t);
    t->end = of_side(s, &s->sides[1], t);
}

double ht_estimate_every(solver *s, size_t lane, int signature, size_t n) {
    const double alone = whole(s, lane, n)->of[signature], factor = s->slower_norms[lane][n > 1];
    double first = INFINITY;
    if (factor == 1 || alone == INFINITY)
        return alone;
    for (size_t i = 0; i < s->n_lanes; i++) {
        const size_t l = s->lanes[i];
        first = fmin(first, whole(s, l, n)->of[signature] * s->slower_norms[l][n > 1]);
    }
    return alone + first * (1 - 1 / factor);
}

double ht_estimate_head(solver *s, size_t lane) {
    const ht_block *head = block_of(s, head_group(s));
    return seconds_of(of_range(s, head, whole(s, lane, 1), 0, head->n)) * head_pace(s->p);
}

ht_estimate ht_estimate_embedding(solver *s, size_t lane, size_t n) {
    ht_estimate sum = {0};
    for (size_t i = 0; i < s->model->blocks[0].first; i++)
        add(&sum, 1, of_signature(whole(s, lane, n), s->model->ops[i].signature));
    return sum;
}

/* What keys of earlier positions add, on one side of the tail. */
static double side_keys(const side *x, const ht_lane_cost *cost, size_t n, size_t position) {
    double sum = 0;
    for (size_t i = 0; i < x->n_ops; i++)
        sum += (double)x->ops[i].count * keys_seconds(cost, x->ops[i].signature, n, position);
    return sum;
}

ht_estimate ht_estimate_pass(solver *s, size_t lane, size_t n, size_t w, size_t position) {
    const ht_lane_cost *cost = s->p->lanes[lane].cost;
    ht_estimate sum = whole(s, lane, w)->end;
    sum.busy += side_keys(&s->sides[0], cost, n, position) + side_keys(&s->sides[1], cost, w, position + n - w);
    add(&sum, 1, ht_estimate_embedding(s, lane, n));
    add(&sum, 1, whole(s, lane, n)->begin);
    return sum;
}

double ht_estimate_alone(solver *s, size_t lane) {
    const ht_problem *p = s->p;
    const ht_estimate e = ht_estimate_pass(s, lane, p->tokens, p->wanted, p->position);
    return (e.busy + e.wait + ht_estimate_head(s, lane) + join_seconds(p, lane)) * drift(p, lane, HT_REGIME_SOLO);
}

void ht_estimate_propose(solver *s, ht_choice *c, const size_t *lanes) {
    if (!(c->seconds < s->bound))
        return;
    memcpy(c->lanes, lanes, c->n_lanes * sizeof *lanes);
    *s->best = *c;
    s->bound = fmin(s->bound, c->seconds);
}

size_t ht_estimate_same_group(const solver *s, size_t group) {
    const ht_group *groups = s->model->groups;
    size_t k = s->p->wanted == s->p->tokens ? 0 : group;
    while (k < group && block_of(s, &groups[k])->signature != block_of(s, &groups[group])->signature)
        k++;
    return k;
}
