/* Several lanes in one pass. Each runs a program of its own (program.c) and tells the others how far it is: `points` counts
 * what it has published, and a step that needs others' results waits until theirs have reached a number. All cuts are
 * that: the causal cut waits one way, for the keys and values of earlier tokens; shares wait for each other at the end of
 * every segment.
 *
 * The first lane runs in the caller's thread, the others in threads of their own: devices that compute in their caller's
 * thread would else stand in each other's way. Every thread stays on its lane's cores meanwhile.
 *
 * Waiting is the paper's fast synchronisation between hosts: sleep until shortly before the others are expected, by how
 * long the same wait took in the passes before, then poll; layers repeat, so the guess is good.
 */
#include "pass/pass.h"

#include <math.h>
#include <pthread.h>
#include <string.h>

#define SPIN_SECONDS 300e-6 /* polling for the next pass, before a thread sleeps */
#define SLEEP_FROM 250e-6   /* waits expected to be shorter are polled through: timers are late by 50-80 us */
#define SLEEP_MARGIN 120e-6 /* a sleep ends this much before the expected end */
#define NAP_AFTER 5e-3      /* polling for longer than this only burns: look every NAP */
#define NAP 50e-6

typedef struct part {
    ht_run run;
    ht_binding binding;
    size_t first, end; /* steps */
    ht_status status;
    ht_error error;
    double waited, busy;
    double expected[HT_CLASSES + 1]; /* seconds of the wait before an operator of a class, lately (wait_of) */
    _Alignas(64) atomic_uint points;
    atomic_bool todo; /* handed out, and nobody has begun */
} part;

typedef struct worker {
    struct ht_crew *crew;
    pthread_t thread;
    size_t index; /* of its part */
} worker;

struct ht_crew {
    pthread_mutex_t mutex;
    pthread_cond_t work; /* a pass has begun, for threads that sleep */
    worker workers[HT_MAX_LANES];
    size_t n_workers;
    part parts[HT_MAX_LANES];
    size_t n_parts;
    size_t tokens;                 /* of the newest pass */
    _Alignas(64) atomic_uint pass; /* counts them; low bits first */
    atomic_uint running;           /* under way in workers */
    atomic_int sleepers;
    atomic_bool failed, closing;
};

/* ---- between lanes ------------------------------------------------------------------------------------------------------ */

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

/* Which waits take as long as the one before this operator. A layer's second norm waits for less than its first: in the regime
 * OWNER for the attention block's output, where the first waits for a whole feed-forward block. */
static size_t wait_of(const ht_op *op) {
    return op->kind == HT_OP_NORM && ht_class_of(op - 1) == HT_CLASS_OUT ? HT_CLASSES : ht_class_of(op);
}

/* Waits for other lanes. What counts as waiting begins when the lane's own devices are done: a queue that still computes is at
 * work, and the others' being early only keeps it full. */
ht_status ht_crew_before(const ht_run *run, const ht_step *step, ht_error *error) {
    ht_crew *crew = run->crew;
    part *own = &crew->parts[run->index];
    if (!step->waits)
        return HT_OK;
    ht_clock *clock = run->passes->set->time;
    double *expected = &own->expected[wait_of(step->op)];
    /* crowded: polling would take the core from what is under way; a long wait: others end later, so it costs nothing */
    if ((run->lane->crowded || *expected > SLEEP_FROM) && !reached(crew, step)) {
        ht_status status =
            ht_lane_join(run->passes->set, run->lane, run->lane->crowded ? own->binding.sync : HT_SYNC_EVENT, error);
        if (status)
            return status;
    }
    look l = {.run = run, .step = step, .busy = !is_idle(run)};
    const double start = ht_clock_now(clock);
    double idle = start; /* since when */
    bool overslept = false;
    if (!reached(crew, step) && *expected > SLEEP_FROM) {
        ht_clock_sleep(clock, *expected - SLEEP_MARGIN < 0.05 ? *expected - SLEEP_MARGIN : 0.05);
        overslept = reached(crew, step);
    }
    for (unsigned i = 0; !reached(crew, step); i++) {
        const bool failed = atomic_load_explicit(&crew->failed, memory_order_acquire);
        if (run->cancel && atomic_load_explicit(run->cancel, memory_order_relaxed)) /* which the other saw first */
            return ht_fail(error, HT_ERROR_CANCELLED, "cancelled");
        if (failed)
            return ht_fail(error, HT_ERROR_CANCELLED, "another lane of this pass failed");
        if (!ht_clock_poll(clock, may_look, &l, start + NAP_AFTER, NAP))
            return ht_fail(error, HT_ERROR_DEVICE, "waits for ever: no lane will tell what it needs");
        if (i % 64 != 63 && !clock)
            continue;
        if (l.busy && is_idle(run)) {
            l.busy = false;
            idle = ht_clock_now(clock);
        }
        if (!clock && ht_seconds() - start > NAP_AFTER)
            ht_clock_sleep(clock, NAP);
    }
    const double now = ht_clock_now(clock), took = l.busy ? 0 : now - idle;
    own->waited += took;
    /* Down at once, up slowly: sleeping too long costs the pass, polling too long only this core. Who slept past the end knows
     * only that it was sooner: taking the sleep for the wait would keep it for ever, and the other lane's with it. */
    if (overslept)
        *expected *= 0.5;
    else
        *expected = took < *expected ? took : 0.75 * *expected + 0.25 * took;
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

/* ---- threads ----------------------------------------------------------------------------------------------------------- */

static void run_part(ht_crew *crew, part *p) {
    ht_clock *clock = p->run.passes->set->time;
    const double start = ht_clock_now(clock);
    p->status = ht_run_steps(&p->run, p->first, p->end, &p->binding, &p->error);
    p->busy = ht_clock_now(clock) - start - p->waited;
    if (p->status)
        atomic_store(&crew->failed, true);
}

/* Returns once a pass after `seen` has begun: polls first, then sleeps. */
static unsigned await_pass(ht_crew *crew, unsigned seen) {
    double start = 0;
    for (unsigned i = 1;; i++) {
        unsigned now = atomic_load_explicit(&crew->pass, memory_order_acquire);
        if (now != seen || atomic_load_explicit(&crew->closing, memory_order_relaxed))
            return now;
        ht_relax();
        if (i % 64)
            continue;
        const double time = ht_seconds();
        start = start > 0 ? start : time;
        if (time - start < SPIN_SECONDS)
            continue;
        pthread_mutex_lock(&crew->mutex);
        atomic_fetch_add(&crew->sleepers, 1);
        while (atomic_load(&crew->pass) == seen && !atomic_load(&crew->closing))
            pthread_cond_wait(&crew->work, &crew->mutex);
        atomic_fetch_sub(&crew->sleepers, 1);
        pthread_mutex_unlock(&crew->mutex);
        start = 0;
    }
}

static void *work(void *argument) {
    const worker *w = argument;
    ht_crew *crew = w->crew;
    ht_cores cores = {{0}};
    for (unsigned seen = 0;;) {
        seen = await_pass(crew, seen);
        if (atomic_load(&crew->closing))
            return NULL;
        part *p = &crew->parts[w->index];
        if (!atomic_exchange(&p->todo, false))
            continue; /* not needed in this pass, or done: this thread was late */
        if (!ht_cores_same(&p->run.lane->cores, &cores)) {
            ht_stay stay;
            cores = p->run.lane->cores;
            ht_stay_on_cores(p->run.passes->set, p->run.lane, &stay);
        }
        ht_clock *clock = p->run.passes->set->time;
        ht_clock_enter(clock, w->index);
        run_part(crew, p);
        atomic_fetch_sub_explicit(&crew->running, 1, memory_order_release);
        ht_clock_leave(clock, w->index);
    }
}

ht_status ht_crew_create(size_t lanes, ht_crew **out, ht_error *error) {
    *out = NULL;
    ht_crew *crew = ht_pages_alloc(sizeof *crew); /* its counters have cache lines of their own */
    if (!crew)
        return ht_fail(error, HT_ERROR_MEMORY, "no memory for the lanes' threads");
    pthread_mutex_init(&crew->mutex, NULL);
    pthread_cond_init(&crew->work, NULL);
    ht_status status = HT_OK;
    for (size_t i = 0; i + 1 < lanes && !status; i++) {
        crew->workers[i] = (worker){.crew = crew, .index = i + 1};
        if (pthread_create(&crew->workers[i].thread, NULL, work, &crew->workers[i]) != 0)
            status = ht_fail(error, HT_ERROR_MEMORY, "no thread for a lane");
        else
            crew->n_workers++;
    }
    if (status)
        ht_crew_destroy(crew);
    else
        *out = crew;
    return status;
}

static void wake(ht_crew *crew) {
    if (!atomic_load(&crew->sleepers))
        return;
    pthread_mutex_lock(&crew->mutex);
    pthread_cond_broadcast(&crew->work);
    pthread_mutex_unlock(&crew->mutex);
}

void ht_crew_destroy(ht_crew *crew) {
    if (!crew)
        return;
    atomic_store(&crew->closing, true);
    pthread_mutex_lock(&crew->mutex);
    pthread_cond_broadcast(&crew->work);
    pthread_mutex_unlock(&crew->mutex);
    for (size_t i = 0; i < crew->n_workers; i++)
        pthread_join(crew->workers[i].thread, NULL);
    pthread_cond_destroy(&crew->work);
    pthread_mutex_destroy(&crew->mutex);
    ht_pages_free(crew, sizeof *crew);
}

/* ---- a pass ------------------------------------------------------------------------------------------------------------ */

static void assign(ht_crew *crew, ht_passes *passes, const ht_schedule *schedule, const size_t *first,
                   const size_t *end, const ht_binding *binding, size_t offset, const atomic_bool *cancel) {
    crew->n_parts = schedule->n_lanes;
    atomic_store(&crew->failed, false);
    for (size_t i = 0; i < crew->n_parts; i++) {
        part *p = &crew->parts[i];
        p->run = (ht_run){.passes = passes,
                          .lane = schedule->lanes[i],
                          .program = &schedule->programs[i],
                          .cancel = cancel,
                          .crew = crew,
                          .index = i,
                          .offset = offset};
        p->binding = *binding;
        p->binding.joined = true;
        p->binding.sync = ht_lane_sync(passes->set, schedule->lanes[i]);
        p->binding.cached = 0; /* the others write what this one has not seen */
        p->first = first[i];
        p->end = end[i];
        p->waited = 0;
        atomic_store_explicit(&p->points, 0, memory_order_relaxed);
    }
    for (size_t i = 0; i < HT_MAX_LANES && binding->tokens != crew->tokens; i++)
        memset(crew->parts[i].expected, 0, sizeof crew->parts[i].expected); /* a prompt's waits are no token's */
    crew->tokens = binding->tokens;
    atomic_store_explicit(&crew->running, (unsigned)crew->n_parts - 1, memory_order_relaxed);
    ht_clock_begin(passes->set->time, crew->n_parts, SPIN_SECONDS);
    for (size_t i = 1; i < crew->n_parts; i++) /* from here on a thread may begin */
        atomic_store_explicit(&crew->parts[i].todo, true, memory_order_release);
}

static bool all_ended(const void *crew) {
    return !atomic_load_explicit(&((const ht_crew *)crew)->running, memory_order_acquire);
}

ht_status ht_crew_run(ht_crew *crew, ht_passes *passes, const ht_schedule *schedule, const size_t *first,
                      const size_t *end, const ht_binding *binding, size_t offset, const atomic_bool *cancel,
                      double *busy, ht_error *error) {
    ht_stay stay;
    assign(crew, passes, schedule, first, end, binding, offset, cancel);
    atomic_fetch_add(&crew->pass, 1);
    wake(crew);
    ht_stay_on_cores(passes->set, schedule->lanes[0], &stay);
    run_part(crew, &crew->parts[0]);
    ht_leave_cores(&stay);
    for (unsigned i = 1; !all_ended(crew); i++) {
        ht_clock_poll(passes->set->time, all_ended, crew, INFINITY, NAP);
        if (i % 4096 == 0)
            ht_clock_sleep(passes->set->time, NAP);
    }
    const part *failed = NULL;
    for (size_t i = 0; i < crew->n_parts; i++) {
        const part *p = &crew->parts[i];
        if (busy)
            busy[i] = p->busy;
        if (p->status && (!failed || failed->status == HT_ERROR_CANCELLED)) /* who only gave up is not the reason */
            failed = p;
    }
    if (!failed)
        return HT_OK;
    ht_lanes_settle(passes->set);
    if (error)
        *error = failed->error;
    return failed->status;
}
