/* The knapsack of operators on a device with bounded memory (fit.h). */
#include "plan/fit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS = 2048, SIDES = 2 };

/* Seconds of the operators so far, by steps of bytes used and by the device of the last of them; and for each operator,
 * the same way, the device of the one before. */
typedef struct search {
    const ht_fit *fit;
    double step; /* bytes */
    size_t steps;
    double (*now)[SIDES], (*next)[SIDES];
    uint8_t *from; /* [operators][steps + 1][SIDES] */
} search;

static size_t steps_of(const search *s, size_t i) {
    const uint64_t bytes = s->fit->ops[i].bytes;
    return s->step > 0 ? (size_t)llround((double)bytes / s->step) : bytes > 0;
}

static uint8_t *from_at(const search *s, size_t i, size_t used, size_t side) {
    return &s->from[(i * (s->steps + 1) + used) * SIDES + side];
}

/* Side 1 is the bounded device. */
static void take(search *s, size_t i) {
    const ht_fit_op *op = &s->fit->ops[i];
    const size_t more = steps_of(s, i);
    for (size_t used = 0; used <= s->steps; used++)
        for (size_t side = 0; side < SIDES; side++) {
            const size_t before = side && more <= used ? used - more : used;
            const double own = side ? (op->bytes && more > used ? INFINITY : op->here) : op->there;
            const double stays = s->now[before][side], changes = s->now[before][!side] + (i ? s->fit->change : 0);
            s->next[used][side] = own + fmin(stays, changes);
            *from_at(s, i, used, side) = (uint8_t)(stays <= changes ? side : !side);
        }
    void *swap = s->now;
    s->now = s->next;
    s->next = swap;
}

/* The best division, and the bytes that it takes. */
static uint64_t read_back(const search *s, bool *here, double *seconds) {
    size_t used = s->steps, side = s->now[used][1] < s->now[used][0];
    uint64_t bytes = 0;
    *seconds = s->now[used][side];
    for (size_t i = s->fit->n; i-- > 0;) {
        const size_t before = *from_at(s, i, used, side);
        here[i] = side == 1;
        if (side) {
            bytes += s->fit->ops[i].bytes;
            used -= ht_min_size(used, steps_of(s, i));
        }
        side = before;
    }
    return bytes;
}

static uint64_t solve_within(search *s, uint64_t limit, bool *here, double *seconds) {
    s->step = (double)limit / STEPS;
    s->steps = limit ? STEPS : 0;
    memset(s->now, 0, (STEPS + 1) * sizeof *s->now);
    for (size_t i = 0; i < s->fit->n; i++)
        take(s, i);
    return read_back(s, here, seconds);
}

ht_status ht_fit_solve(const ht_fit *fit, bool *here, double *seconds, ht_error *error) {
    search s = {.fit = fit, .steps = STEPS};
    void *tables = NULL, *from = NULL;
    ht_status status = ht_alloc(&tables, 2 * (STEPS + 1), sizeof *s.now, "placing operators", error);
    if (!status)
        status = ht_alloc(&from, fit->n + 1, (STEPS + 1) * SIDES, "placing operators", error);
    if (!status) {
        s.now = tables;
        s.next = s.now + STEPS + 1;
        s.from = from;
        uint64_t room = fit->limit;
        uint64_t bytes = solve_within(&s, room, here, seconds);
        while (bytes > fit->limit && room) { /* rounding let too much through */
            const uint64_t over = bytes - fit->limit;
            room -= over < room ? over : room;
            bytes = solve_within(&s, room, here, seconds);
        }
    }
    free(tables);
    free(from);
    return status;
}
