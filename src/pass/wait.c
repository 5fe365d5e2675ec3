/* Waiting between the lanes of a pass: the paper's fast synchronisation between hosts. Sleep until shortly before the
 * others are expected, by how long the same wait took in the passes before, then poll; layers repeat, so the guess is
 * good. */
#include "pass/crew.h"

#include <math.h>

#define SLEEP_FROM 250e-6   /* waits expected to be shorter are polled through: timers are late by 50-80 us */
#define SLEEP_MARGIN 120e-6 /* a sleep ends this much before the expected end */
#define LONGEST_SLEEP 0.05
#define NAP_AFTER 5e-3 /* polling for longer than this only burns: look every HT_NAP */

typedef struct look { /* what a waiting lane looks for */
    const ht_run *run;
    const ht_step *step;
    bool busy; /* its own devices' end, too */
} look;

static bool reached(const ht_crew *crew, const ht_step *step) {
    for (size_t i = 0; i < crew->n_parts; i++)
        if (step->waits >> i & 1 && atomic_load_explicit(&crew->parts[i].points, memory_order_acquire) < step->need)
            return false;
    return true;
}

static bool may_go_on(const void *context) {
    const look *l = context;
    const atomic_bool *cancel = l->run->cancel;
    return reached(l->run->crew, l->step) || atomic_load_explicit(&l->run->crew->failed, memory_order_acquire) ||
           (cancel && atomic_load_explicit(cancel, memory_order_relaxed));
}

/* Has all ended that the lane gave its devices? */
static bool is_idle(const ht_run *run) {
    bool idle = true;
    for (size_t d = 0; d < run->passes->set->n_devices; d++) {
        ht_device *device = run->passes->set->devices[d];
        const ht_ticket newest = run->lane->front.newest[d];
        idle &= newest == 0 || device->ops->completed(device) >= newest;
    }
    return idle;
}

static bool may_look(const void *context) {
    const look *l = context;
    return may_go_on(l) || (l->busy && is_idle(l->run));
}

/* Which waits take as long as the one before this operator: those before the same place of blocks that are alike. */
static size_t wait_of(const ht_op *op) {
    return (size_t)op->site % HT_CREW_SITES;
}

/* The predictor: what this part of the crew may sleep through of a wait, in seconds; 0: nothing. */
static double may_sleep(double expected) {
    return expected > SLEEP_FROM ? fmin(expected - SLEEP_MARGIN, LONGEST_SLEEP) : 0;
}

/* Who slept past the end knows only that it was sooner: taking the sleep for the wait would keep it for ever, and the other
 * lane's with it. */
static double next_wait(double expected, double took, bool overslept) {
    return overslept ? 0.5 * expected : ht_next_wait(expected, took);
}

/* The meter: what counts as waiting begins when the lane's own devices are done. A queue that still computes is at work, and
 * the others' being early only keeps it full. */
typedef struct meter {
    look look;
    double start, idle; /* since when the lane waits, and since when with nothing of its own under way */
} meter;

static meter start_meter(const ht_run *run, const ht_step *step) {
    meter m = {.look = {.run = run, .step = step, .busy = !is_idle(run)}};
    m.start = m.idle = ht_clock_now(run->passes->set->time);
    return m;
}

static void read_meter(meter *m) {
    if (m->look.busy && is_idle(m->look.run)) {
        m->look.busy = false;
        m->idle = ht_clock_now(m->look.run->passes->set->time);
    }
}

/* The waiter: polls until the others have told what the step needs. */
static ht_status await_others(meter *m, ht_error *error) {
    const ht_run *run = m->look.run;
    ht_clock *clock = run->passes->set->time;
    for (unsigned i = 0; !reached(run->crew, m->look.step); i++) {
        const bool failed = atomic_load_explicit(&run->crew->failed, memory_order_acquire);
        if (run->cancel && atomic_load_explicit(run->cancel, memory_order_relaxed)) /* which the other saw first */
            return ht_fail(error, HT_ERROR_CANCELLED, "cancelled");
        if (failed)
            return ht_fail(error, HT_ERROR_CANCELLED, "another lane of this pass failed");
        if (!ht_clock_poll(clock, may_look, &m->look, m->start + NAP_AFTER, HT_NAP))
            return ht_fail(error, HT_ERROR_DEVICE, "internal error: deadlock between lanes");
        if (i % 64 != 63 && !clock)
            continue;
        read_meter(m);
        if (!clock && ht_seconds() - m->start > NAP_AFTER)
            ht_clock_sleep(clock, HT_NAP);
    }
    return HT_OK;
}

ht_status ht_crew_before(const ht_run *run, const ht_step *step, ht_error *error) {
    const ht_crew *crew = run->crew;
    ht_crew_part *own = &run->crew->parts[run->index];
    if (!step->waits)
        return HT_OK;
    ht_clock *clock = run->passes->set->time;
    double *expected = &own->expected[wait_of(step->op)];
    const double sleep = may_sleep(*expected);
    ht_status status = HT_OK;
    /* crowded: polling would take the core from what is under way; a long wait: others end later, so it costs nothing */
    if ((run->lane->crowded || sleep > 0) && !reached(crew, step))
        status =
            ht_lane_join(run->passes->set, run->lane, run->lane->crowded ? own->binding.sync : HT_SYNC_EVENT, error);
    if (status)
        return status;
    meter m = start_meter(run, step);
    bool overslept = false;
    if (sleep > 0 && !reached(crew, step)) {
        ht_clock_sleep(clock, sleep);
        overslept = reached(crew, step);
    }
    status = await_others(&m, error);
    if (status)
        return status;
    const double took = m.look.busy ? 0 : ht_clock_now(clock) - m.idle;
    own->waited += took;
    *expected = next_wait(*expected, took, overslept);
    return HT_OK;
}

ht_status ht_crew_after(const ht_run *run, const ht_step *step, ht_sync sync, ht_error *error) {
    if (!step->publishes)
        return HT_OK;
    ht_status status = ht_lane_join(run->passes->set, run->lane, sync, error);
    if (status)
        return status;
    atomic_store_explicit(&run->crew->parts[run->index].points, step->publishes, memory_order_release);
    return HT_OK;
}
