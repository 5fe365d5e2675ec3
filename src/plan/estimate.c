#include "plan/estimate.h"

void ht_estimate_start(solver *s, const ht_problem *p, ht_choice *best) {
    s->p = p;
    s->best = best;
    s->bound = INFINITY;
    s->n_lanes = 1;
    s->lookups = 0;
    for (size_t i = 0; i < REMEMBERED; i++)
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

void ht_estimate_fill(solver *s, const ht_lane_cost *cost, size_t n, times *t) {
    t->cost = cost;
    t->n = n;
    const int known = n > 1 ? HT_CLASS_LM_HEAD : HT_CLASSES; /* the head is of one token */
    for (int c = 0; c < HT_CLASSES; c++)
        t->of[c] = c < known ? ht_class_seconds(cost, (ht_class)c, n, 1, 0) : INFINITY;
    for (int c = 0; c < HT_CLASSES; c++)
        t->wait[c] = cost->classes[c].start < t->of[c] ? cost->classes[c].start : t->of[c];
    t->begin = t->end = (ht_estimate){0};
    for (int op = HT_AT_NORM; op < HT_AT_GATE_UP; op++)
        add(op < HT_AT_ATTENTION ? &t->begin : &t->end, 1, of_class(t, ht_layer_classes[op]));
    add(&t->end, 1, block_of(t));
    s->lookups += (size_t)known;
}

double ht_estimate_norm(solver *s, size_t lane, size_t n) {
    const double alone = whole(s, lane, n)->of[HT_CLASS_NORM], factor = s->slower_norms[lane][n > 1];
    double first = INFINITY;
    if (factor == 1 || alone == INFINITY)
        return alone;
    for (size_t i = 0; i < s->n_lanes; i++) {
        const size_t l = s->lanes[i];
        first = fmin(first, whole(s, l, n)->of[HT_CLASS_NORM] * s->slower_norms[l][n > 1]);
    }
    return alone + first * (1 - 1 / factor);
}

double ht_estimate_head(solver *s, size_t lane) {
    const double *of = whole(s, lane, 1)->of;
    return (of[HT_CLASS_NORM] + of[HT_CLASS_LM_HEAD] + of[HT_CLASS_ARGMAX]) * head_pace(s->p);
}

ht_estimate ht_estimate_pass(solver *s, size_t lane, size_t n, size_t w, size_t position) {
    const ht_problem *p = s->p;
    const ht_lane_cost *cost = p->lanes[lane].cost;
    ht_estimate sum = whole(s, lane, w)->end;
    const times *t = whole(s, lane, n);
    sum.busy += (p->layers - 1) * keys_seconds(cost, n, position) + keys_seconds(cost, w, position + n - w);
    add(&sum, 1, of_class(t, HT_CLASS_EMBED));
    add(&sum, p->layers, t->begin);
    add(&sum, p->layers - 1, t->end);
    return sum;
}

double ht_estimate_alone(solver *s, size_t lane) {
    const ht_problem *p = s->p;
    const ht_estimate e = ht_estimate_pass(s, lane, p->tokens, p->wanted, p->position);
    return (e.busy + e.wait + ht_estimate_head(s, lane) + join_seconds(p, lane)) * drift(p, lane, HT_REGIME_SOLO);
}
