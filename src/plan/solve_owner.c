/* OWNER, the solver of HeteroLLM (arXiv 2501.14794): min over strategies of max(T) + T_sync for one operator at a time.
 * One lane computes what is no matrix multiplication; each matrix, or some operators as one, is its own, another
 * lane's, or cut between them by rows, by tokens, or both. */
#include "plan/estimate.h"

#include <string.h>

/* What an axis can hand over, a matrix or some operators as one, of the cut's tokens on two lanes: seconds by the share
 * that each computes. */
typedef struct matrix {
    span span;
    size_t owner, other, n; /* lanes, tokens */
    bool whole;             /* the owner's alone: the head goes on from what its device wrote itself */
    unsigned cuts;
    double least; /* seconds of the best way so far */
    ht_matrix_cut best;
} matrix;

static ht_estimate matrix_of(solver *s, size_t lane, const span *x, size_t n) {
    return of_range(s, x->block, whole(s, lane, n), x->axis->hand_from, x->axis->hand_to);
}

/* All of n tokens beside the other lane. */
static double matrix_beside(solver *s, size_t lane, const span *x, size_t n) {
    ht_estimate ways[2];
    ht_estimate_ways(s, x->block, whole(s, lane, n), x->axis->hand_from, x->axis->hand_to, ways);
    return fmin(beside(s, lane, HT_REGIME_OWNER, ways[0]), beside(s, lane, HT_REGIME_OWNER, ways[1]));
}

/* While the other lane waits. */
static double matrix_alone(solver *s, size_t lane, const span *x, size_t n) {
    return seconds_of(matrix_of(s, lane, x, n)) * drift(s->p, lane, HT_REGIME_OWNER);
}

/* A part of one, beside the other lane: all of it in `at` and `slope`. */
static void matrix_lines(solver *s, size_t lane, const span *x, size_t n, line lines[2]) {
    const ht_lane_cost *cost = part_cost(s->p, lane);
    const double *of = parts(s, lane, n)->of, factor = drift(s->p, lane, HT_REGIME_OWNER),
                 slower = together(s, lane, s->p->tokens);
    const bool fused = has_fused(x->block, x->axis->hand_from, x->axis->hand_to);
    lines[0] = (line){0};
    lines[1] = fused ? (line){0} : (line){0, INFINITY, 0};
    if (fused)
        ht_line_add_fused(s, lines, cost, x->block, of);
    for (size_t i = x->axis->hand_from; i < x->axis->hand_to; i++)
        for (int way = 0; way < 1 + fused && !(fused && i >= x->block->fused_from && i < x->block->fused_to); way++)
            ht_line_add(&lines[way], cost, signature_of(s, x->block, i), of[signature_of(s, x->block, i)]);
    for (int i = 0; i < 2; i++)
        lines[i] = (line){0, factor * (lines[i].wait + slower * lines[i].at), factor * slower * lines[i].slope};
}

/* The other lane's part of a matrix and the owner's, for tokens [0, tokens), beside what takes the same however it is
 * cut. */
typedef struct halves {
    double joins, others_join, rest; /* rest: the owner's other tokens */
    line other[2], own[2];
    size_t tokens, of;
} halves;

static halves halve(solver *s, const matrix *m, size_t tokens) {
    const ht_problem *p = s->p;
    const double own_drift = drift(p, m->owner, HT_REGIME_OWNER), other_drift = drift(p, m->other, HT_REGIME_OWNER);
    halves h = {/* the other lane begins once the owner has told, so that its join comes before, not beside */
                .joins = 2 * p->join + join_seconds(p, m->owner) * own_drift +
                         p->exchange * 4 * (double)(tokens * m->span.axis->handed),
                .others_join = join_seconds(p, m->other) * other_drift,
                .rest = matrix_beside(s, m->owner, &m->span, m->n - tokens),
                .tokens = tokens,
                .of = p->of[m->span.number]};
    matrix_lines(s, m->other, &m->span, tokens, h.other);
    matrix_lines(s, m->owner, &m->span, tokens, h.own);
    return h;
}

/* The other lane takes `units`, not all. */
static void try_units(matrix *m, const halves *h, size_t units) {
    const double share = (double)units / (double)h->of, others = h->others_join + on_lines(h->other, share).busy,
                 own = h->rest + on_lines(h->own, 1 - share).busy, seconds = h->joins + fmax(others, own);
    if (seconds < m->least)
        m->least = seconds, m->best = (ht_matrix_cut){h->tokens, units, h->of};
}

/* And all of them. */
static void try_all(solver *s, matrix *m, size_t tokens) {
    const ht_problem *p = s->p;
    const double joins = 2 * p->join + join_seconds(p, m->owner) * drift(p, m->owner, HT_REGIME_OWNER) +
                         p->exchange * 4 * (double)(tokens * m->span.axis->handed);
    const double others_join = join_seconds(p, m->other) * drift(p, m->other, HT_REGIME_OWNER);
    /* nothing is beside it where it takes all tokens */
    const double others = others_join + (tokens < m->n ? matrix_beside(s, m->other, &m->span, tokens)
                                                       : matrix_alone(s, m->other, &m->span, tokens));
    const double own = matrix_beside(s, m->owner, &m->span, m->n - tokens);
    const size_t of = p->of[m->span.number];
    if (joins + fmax(others, own) < m->least)
        m->least = joins + fmax(others, own), m->best = (ht_matrix_cut){tokens, of, of};
}

/* Any number of units: the more of them, the later the other lane ends and the sooner the owner, so that the best is
 * where they meet. Each is the lesser of two lines; the other lane is behind once both of its lines are behind one of
 * the owner's. */
static void try_any(matrix *m, const halves *h) {
    double meet = 0;
    if (h->of < 2 || !(h->joins + fmax(h->rest, h->others_join) < m->least))
        return;
    for (int i = 0; i < 2; i++) {
        double behind = INFINITY;
        for (int k = 0; k < 2 && h->other[i].at < INFINITY; k++) {
            const double ahead = h->rest + h->own[k].at + h->own[k].slope - h->others_join - h->other[i].at,
                         slope = h->own[k].slope + h->other[i].slope;
            if (ahead < INFINITY)
                behind = fmin(behind, ahead <= 0 ? 0 : slope > 0 ? ahead / slope : 1);
        }
        if (h->other[i].at < INFINITY)
            meet = fmax(meet, behind);
    }
    const size_t units = (size_t)(fmin(meet, 1) * (double)h->of), last = h->of - 1;
    try_units(m, h, ht_min_size(ht_max_size(units, 1), last));
    try_units(m, h, ht_min_size(units + 1, last));
}

/* So many tokens to the other lane. Static graphs are built for some numbers of units, and for the other lane's shares
 * only. */
static void try_length(solver *s, matrix *m, size_t tokens) {
    const ht_problem *p = s->p;
    const ht_solver_lane *other = &p->lanes[m->other];
    const bool all = tokens == m->n;
    const unsigned rows = m->span.axis->result == HT_RESULT_SUMS ? HT_CUT_FEATURES : HT_CUT_ROWS;
    if (m->cuts & (all ? HT_CUT_LAYER : HT_CUT_SEQUENCE))
        try_all(s, m, tokens);
    if (!(m->cuts & (all ? rows : HT_CUT_HYBRID)) || is_built_only(&p->lanes[m->owner], m->n))
        return;
    const halves h = halve(s, m, tokens);
    if (all ? !is_built_only(other, m->n) : !other->built_only) {
        try_any(m, &h);
        return;
    }
    for (size_t i = 0; i < HT_MAX_SHARES; i++) {
        const size_t units = other->built[m->span.number][i];
        if (units && units < h.of && is_ready(p, m->other, m->span.number, units, tokens))
            try_units(m, &h, units);
    }
    if (has_room(other, m->span.number))
        try_any(m, &h);
}

/* The cheapest way to compute some matrices of as many tokens: every number of tokens that the other lane is built for,
 * every number of units. */
static void solve_matrices(solver *s, matrix *matrices, size_t n_matrices) {
    const ht_problem *p = s->p;
    const ht_solver_lane *other = &p->lanes[matrices[0].other];
    const size_t n = matrices[0].n;
    for (size_t i = 0; i < n_matrices; i++) {
        matrix *m = &matrices[i];
        m->cuts = p->of[m->span.number] && !m->whole && n ? p->cuts : 0;
        m->least = matrix_alone(s, m->owner, &m->span, n);
        m->best = (ht_matrix_cut){0};
        try_length(s, m, n);
    }
    for (size_t i = 0; i < (other->lengths ? other->n_lengths : 64) && n > 1; i++) {
        const size_t length = other->lengths ? (size_t)other->lengths[i] : n * (i + 1) / 64;
        if (length < 2 || length >= n || (i && !other->lengths && length == n * i / 64))
            continue;
        for (size_t k = 0; k < n_matrices; k++) /* one length for all of them: their times are at hand */
            try_length(s, &matrices[k], length);
    }
}

/* An operator that nobody else may compute. */
static double owner_seconds(solver *s, const ht_group *g, size_t place, size_t owner) {
    const int signature = signature_of(s, block_of(s, g), place);
    const size_t n = tokens_of(s, g, place);
    return whole(s, owner, n)->of[signature] +
           keys_seconds(s->p->lanes[owner].cost, signature, n, s->p->position + s->p->tokens - n);
}

/* What is never handed over, of all blocks. */
static double owner_rest(solver *s, size_t owner) {
    double sum = 0;
    for (size_t k = 0; k + 1 < s->model->n_groups; k++) {
        const ht_group *g = &s->model->groups[k];
        const ht_block *block = block_of(s, g);
        bool handed[HT_MAX_BLOCK_OPS] = {false};
        for (size_t a = 0; a < block->n_axes; a++) {
            const ht_axis *axis = &s->model->axes[block->first_axis + a];
            for (size_t i = axis->hand_from; i < axis->hand_to; i++)
                handed[i] = true;
        }
        for (size_t i = 0; i < block->n; i++)
            sum += handed[i] ? 0 : (double)g->count * owner_seconds(s, g, i, owner);
    }
    return sum;
}

typedef matrix handed[HT_MAX_BLOCK_AXES]; /* of a group's blocks, by their axes */

/* What an earlier group has found for the same matrix and as many tokens; NULL: nothing. */
static const matrix *find_handed(const solver *s, const handed *of, const matrix *m, size_t axis) {
    for (const ht_group *g = s->model->groups; g < m->span.group; g++) {
        const matrix *found = &of[g - s->model->groups][axis];
        if (block_of(s, g)->signature == m->span.block->signature && found->n == m->n && found->whole == m->whole)
            return found;
    }
    return NULL;
}

/* The matrices of a block, solved: those of as many tokens together. */
static void solve_handed(solver *s, const ht_group *g, handed *of, size_t owner, size_t other) {
    const ht_block *block = block_of(s, g);
    matrix some[HT_MAX_BLOCK_AXES], *own = of[g - s->model->groups];
    size_t from[HT_MAX_BLOCK_AXES], n = 0;
    for (size_t a = 0; a <= block->n_axes; a++) {
        matrix m = {.owner = owner, .other = other};
        if (a < block->n_axes) {
            m.span = span_of(s, g, a);
            m.n = tokens_of(s, g, m.span.axis->hand_from);
            m.whole = g->last && m.span.axis->hand_to == block->n;
            const matrix *found = find_handed(s, of, &m, a);
            if (found)
                own[a] = *found;
            if (found || m.span.axis->hand_from == m.span.axis->hand_to)
                continue;
        }
        if (n && (a == block->n_axes || some[0].n != m.n)) {
            solve_matrices(s, some, n);
            for (size_t i = 0; i < n; i++)
                own[from[i]] = some[i];
            n = 0;
        }
        if (a < block->n_axes)
            some[n] = m, from[n++] = a;
    }
}

/* The shortest path over a block's operators: each is the owner's, or of something that is handed over. */
static double owner_block(solver *s, const ht_group *g, const matrix *of, size_t owner, ht_group_choice *c) {
    const ht_block *block = block_of(s, g);
    const double own_pace = drift(s->p, owner, HT_REGIME_OWNER);
    double at[HT_MAX_BLOCK_OPS + 1];
    size_t via[HT_MAX_BLOCK_OPS + 1] = {0}, from[HT_MAX_BLOCK_OPS + 1] = {0};
    at[0] = 0;
    for (size_t i = 1; i <= block->n; i++)
        at[i] = INFINITY;
    for (size_t i = 0; i < block->n; i++) {
        for (size_t a = 0; a < block->n_axes; a++) {
            const ht_axis *axis = &s->model->axes[block->first_axis + a];
            if (axis->hand_from == axis->hand_to || axis->hand_from != i || !(at[i] + of[a].least < at[axis->hand_to]))
                continue;
            at[axis->hand_to] = at[i] + of[a].least;
            via[axis->hand_to] = a;
            from[axis->hand_to] = i;
        }
        if (block->fused && block->fused_from == i) {
            const times *t = whole(s, owner, tokens_of(s, g, i));
            const double one = at[i] + own_pace * seconds_of(of_range(s, block, t, i, block->fused_to));
            if (one < at[block->fused_to])
                at[block->fused_to] = one, via[block->fused_to] = HT_MAX_BLOCK_AXES, from[block->fused_to] = i;
        }
        const double own = at[i] + owner_seconds(s, g, i, owner) * own_pace;
        if (own < at[i + 1])
            at[i + 1] = own, via[i + 1] = HT_MAX_BLOCK_AXES, from[i + 1] = i;
    }
    memset(c->cuts, 0, sizeof c->cuts);
    for (size_t i = at[block->n] < INFINITY ? block->n : 0; i > 0; i = from[i])
        if (via[i] < HT_MAX_BLOCK_AXES)
            c->cuts[via[i]] = of[via[i]].best;
    return at[block->n];
}

void ht_solve_owner(solver *s, size_t owner, size_t other) {
    const ht_problem *p = s->p;
    const double own_pace = drift(p, owner, HT_REGIME_OWNER), factor = stall(p, HT_REGIME_OWNER);
    const size_t lanes[2] = {owner, other};
    ht_choice c = {.regime = HT_REGIME_OWNER, .n_lanes = 2, .head = ht_estimate_head(s, owner) * own_pace};
    bool any = false;
    handed of[HT_MAX_GROUPS];
    c.seconds = seconds_of(ht_estimate_embedding(s, owner, p->tokens)) * own_pace + c.head;
    if (!((c.seconds + owner_rest(s, owner) * own_pace) * factor < s->bound)) /* even if matrices took no time */
        return;
    for (size_t k = 0; k + 1 < s->model->n_groups; k++) {
        const ht_group *g = &s->model->groups[k];
        memset(of[k], 0, sizeof of[k]);
        solve_handed(s, g, of, owner, other);
        c.seconds += (double)g->count * owner_block(s, g, of[k], owner, &c.groups[k]);
        for (size_t a = 0; a < block_of(s, g)->n_axes; a++)
            any |= c.groups[k].cuts[a].tokens > 0;
    }
    c.seconds *= factor;
    if (any)
        ht_estimate_propose(s, &c, lanes);
}

/* What one lane computes of a matrix. */
static double matrix_busy(solver *s, const ht_choice *c, size_t i, const span *x, const ht_matrix_cut *cut) {
    const ht_problem *p = s->p;
    const size_t lane = c->lanes[i], tokens = cut->of ? cut->tokens : 0, n = tokens_of(s, x->group, x->axis->hand_from);
    const bool all = cut->units == cut->of;
    const double share = (double)cut->units / (double)cut->of;
    line lines[2];
    if (tokens == 0)
        return i ? 0 : matrix_alone(s, lane, x, n);
    double sum =
        p->exchange * 4 * (double)(tokens * x->axis->handed) + join_seconds(p, lane) * drift(p, lane, HT_REGIME_OWNER);
    sum += i ? 0 : matrix_beside(s, lane, x, n - tokens);
    if (all)
        return sum + (i == 0 ? 0 : tokens < n ? matrix_beside(s, lane, x, tokens) : matrix_alone(s, lane, x, tokens));
    matrix_lines(s, lane, x, tokens, lines);
    return sum + on_lines(lines, i ? share : 1 - share).busy;
}

const ht_axis *ht_choice_handed(const ht_model *model, const ht_block *block, const ht_group_choice *c, size_t place,
                                size_t *number) {
    for (size_t a = 0; a < block->n_axes; a++) {
        const ht_axis *axis = &model->axes[block->first_axis + a];
        if (c->cuts[a].tokens && axis->hand_from <= place && place < axis->hand_to)
            return *number = a, axis;
    }
    return NULL;
}

/* Operators of one block on lane number i of the choice. */
static double owner_block_busy(solver *s, const ht_choice *c, size_t i, size_t group) {
    const ht_group *g = &s->model->groups[group];
    const ht_block *block = block_of(s, g);
    size_t a;
    double sum = 0;
    for (size_t place = 0; place < block->n;) {
        const ht_axis *axis = ht_choice_handed(s->model, block, &c->groups[group], place, &a);
        bool fused = place == block->fused_from && block->fused && !axis;
        for (size_t k = place; k < block->fused_to && fused; k++)
            fused = !ht_choice_handed(s->model, block, &c->groups[group], k, &a);
        if (axis) {
            const span x = span_of(s, g, a);
            sum += matrix_busy(s, c, i, &x, &c->groups[group].cuts[a]);
        } else if (i == 0) {
            const times *t = whole(s, c->lanes[0], tokens_of(s, g, place));
            sum += drift(s->p, c->lanes[0], HT_REGIME_OWNER) *
                   (fused ? seconds_of(of_range(s, block, t, place, block->fused_to))
                          : owner_seconds(s, g, place, c->lanes[0]));
        }
        place = axis ? axis->hand_to : fused ? block->fused_to : place + 1;
    }
    return sum;
}

double ht_owner_busy(solver *s, const ht_choice *c, size_t i) {
    double sum =
        i ? 0
          : seconds_of(ht_estimate_embedding(s, c->lanes[0], s->p->tokens)) * drift(s->p, c->lanes[0], HT_REGIME_OWNER);
    for (size_t k = 0; k + 1 < s->model->n_groups; k++)
        sum += (double)s->model->groups[k].count * owner_block_busy(s, c, i, k);
    return sum;
}
