/* What passes take, against what was predicted: the planner's knowledge after its tables of times. Another program on a
 * device, or heat, slow a lane in whatever it does; what exchange and waiting cost is a matter of the regime, and shows in
 * the passes before the first request. */
#include "pass/pass.h"

#include <math.h>

#define FORGET 0.01 /* of what was learnt of lanes that a pass does not use */
#define MOVED 0.04  /* a lane's speed has changed so much that ratios are worth moving */

#define WORSE 1.02 /* than the best choice so far, as measured: what is predicted to be quicker was not */
#define HOLD 128   /* passes by the best choice, before others are tried again; twice as many each time */

#define EVEN \
    { 1, 1, 1, 1 }
_Static_assert(HT_REGIMES == 4 && HT_MAX_LANES == 8, "ht_even_pace lists them");
const ht_pace ht_even_pace = {.lanes = {EVEN, EVEN, EVEN, EVEN, EVEN, EVEN, EVEN, EVEN}, .stall = EVEN, .head = 1};

/* Of a ratio and the one before it in the same way of computing; 0: there was none (`again` false). Another program that
 * takes the cores for one pass must not move the plan. */
static double lesser_of_two(bool again, double *before, double now) {
    const double lesser = again ? fmin(*before, now) : 0;
    *before = now;
    return lesser;
}

static void move(double *value, double rate, double to) {
    *value += rate * (fmin(fmax(to, 0.25), 8) - *value);
}

/* A lane of the pass was busy `ratio` times as long as predicted. While ways to compute are tried out that is of this
 * regime; later it is the lane's, for what distinguishes regimes is known. */
static void learn_lane(const ht_passes *passes, ht_schedule *s, size_t lane, double ratio, double rate) {
    const ht_regime regime = s->choice.regime;
    double *pace = s->pace.lanes[lane];
    const double before = pace[regime];
    if (ratio <= 0)
        return;
    move(&pace[regime], rate, s->solved.lanes[lane][regime] * ratio);
    for (size_t r = 0; r < HT_REGIMES && passes->stage != HT_STAGE_TRYING; r++)
        if (r != regime)
            move(&pace[r], 1, pace[r] * pace[regime] / before);
}

/* Of a choice, all in all. The first two passes may meet another program's burst: the lesser of them counts. */
static void learn_whole(ht_schedule *s, double seconds) {
    if (s->runs < 2)
        s->took = s->runs ? fmin(s->took, seconds) : seconds;
    else
        s->took += 0.25 * (seconds - s->took);
}

void ht_passes_learn(ht_passes *passes, ht_schedule *schedule, double seconds, const double *busy) {
    ht_log(HT_LOG_DEBUG, "%zu tokens: %.3f ms of %.3f; busy %.3f of %.3f, %.3f of %.3f", schedule->tokens,
           seconds * 1e3, schedule->choice.seconds * 1e3, busy[0] * 1e3, schedule->lanes_take[0].busy * 1e3,
           schedule->n_lanes > 1 ? busy[1] * 1e3 : 0, schedule->lanes_take[1].busy * 1e3);
    if (passes->policy.frozen)
        return;
    learn_whole(schedule, seconds);
    if (schedule->held) { /* it is compared with itself only */
        schedule->runs++;
        return;
    }
    const double rate = schedule->tokens > 1 ? 0.8 : 0.25; /* single tokens come often, and are noisy */
    const ht_regime regime = schedule->choice.regime;
    double busier = 0; /* than predicted: the lane that is most */
    for (size_t l = 0; l < passes->set->n_lanes; l++) {
        size_t i = 0;
        while (i < schedule->n_lanes && schedule->lanes[i] != &passes->set->lanes[l])
            i++;
        if (i < schedule->n_lanes && schedule->lanes_take[i].busy > 0 && isfinite(schedule->lanes_take[i].busy)) {
            const double ratio =
                lesser_of_two(schedule->runs > 0, &schedule->ratios[i], busy[i] / schedule->lanes_take[i].busy);
            busier = fmax(busier, ratio);
            learn_lane(passes, schedule, l, ratio, rate);
        }
        for (size_t r = 0; r < HT_REGIMES && i == schedule->n_lanes; r++) /* not used: believe in it more and more */
            move(&schedule->pace.lanes[l][r], FORGET, schedule->usual.lanes[l][r]);
    }
    double *stall = schedule->pace.stall;
    const double body = schedule->choice.seconds - schedule->choice.head * schedule->solved.stall[regime];
    const double whole =
        body > 0 && isfinite(body) ? lesser_of_two(schedule->runs > 0, &schedule->whole, seconds / body) : 0;
    for (size_t r = 0; r < HT_REGIMES; r++)
        if (r != regime)
            move(&stall[r], FORGET, schedule->usual.stall[r]);
        else if (schedule->n_lanes > 1 && whole > 0 && busier > 0)
            move(&stall[r], rate, fmax(schedule->solved.stall[r] * whole / busier, 0.5));
    schedule->runs++;
}

void ht_passes_learn_head(ht_passes *passes, double seconds) {
    ht_schedule *schedule = passes->current;
    if (passes->policy.frozen || !schedule || !(schedule->choice.head > 0) || !isfinite(schedule->choice.head))
        return;
    const double ratio = lesser_of_two(schedule->heads, &schedule->head, seconds / schedule->choice.head);
    schedule->heads = true;
    if (ratio > 0)
        move(&schedule->pace.head, 0.25, schedule->solved.head * ratio);
}

bool ht_passes_is_worse(const ht_schedule *s) {
    return !s->held && s->best_took > 0 && s->runs >= 3 && s->took > WORSE * s->best_took;
}

/* A choice but for how much each lane computes: regime and lanes, the owner first. */
static uint64_t way_of(const ht_choice *c) {
    uint64_t way = c->regime + (c->apart ? HT_REGIMES : 0);
    for (size_t i = 0; i < c->n_lanes; i++)
        way = way * (HT_MAX_LANES + 1) + c->lanes[i] + 1;
    return way;
}

bool ht_passes_same_way(const ht_choice *a, const ht_choice *b) {
    return way_of(a) == way_of(b);
}

void ht_passes_leave(ht_schedule *s) {
    const uint64_t way = way_of(&s->choice);
    size_t i = 0;
    while (i < s->n_left && s->left[i].way != way)
        i++;
    if (s->held || s->runs < 2 || i == HT_LEFT)
        return;
    s->left[i] = (ht_left){way, s->took};
    s->n_left = i < s->n_left ? s->n_left : i + 1;
    if (s->best_took <= 0 || s->took < s->best_took)
        s->best = s->choice, s->best_took = s->took;
}

/* What is learnt of a lane in one way says little of it in another: of a CPU that owned a pass and was slower than
 * predicted, and then was the other lane and quicker. So each of two ways can be predicted to be the quicker one
 * while the other one is under way. */
bool ht_passes_was_left(const ht_schedule *s, const ht_choice *choice) {
    const uint64_t way = way_of(choice);
    const double body = choice->seconds - choice->head * s->pace.stall[choice->regime];
    bool left = false;
    for (size_t i = 0; i < s->n_left; i++)
        left |= s->left[i].way == way && s->left[i].took > body;
    return left || s->n_left == HT_LEFT;
}

void ht_passes_forget_left(ht_schedule *s) {
    s->patience = s->held && s->runs >= s->patience ? 2 * s->patience : HOLD;
    s->best_took = 0;
    s->n_left = 0;
    s->held = false;
}

bool ht_passes_have_moved(const ht_passes *passes, const ht_schedule *s) {
    if (s->held)
        return s->runs >= s->patience || (s->runs >= 2 && fabs(s->took / s->best_took - 1) > MOVED);
    if (ht_passes_is_worse(s))
        return true;
    for (size_t l = 0; l < passes->set->n_lanes && s->runs >= 2; l++)
        for (size_t r = 0; r < HT_REGIMES; r++)
            if (fabs(s->pace.lanes[l][r] / s->solved.lanes[l][r] - 1) > MOVED)
                return true;
    const ht_regime regime = s->choice.regime;
    return s->runs >= 2 && fabs(s->pace.stall[regime] / s->solved.stall[regime] - 1) > MOVED;
}
