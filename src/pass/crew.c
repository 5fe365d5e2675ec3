/* Several lanes in one pass. Each runs a program of its own (program.c) and tells the others how far it is: `points` counts
 * what it has published, and a step that needs others' results waits until theirs have reached a number. All cuts are
 * that: the causal cut waits one way, for the keys and values of earlier tokens; shares wait for each other at the end of
 * every axis.
 *
 * The first lane runs in the caller's thread, the others in threads of their own: devices that compute in their caller's
 * thread would else stand in each other's way. Every thread stays on its lane's cores meanwhile.
 */
#include "pass/crew.h"

#include <math.h>
#include <string.h>

#define SPIN_SECONDS 300e-6 /* polling for the next pass, before a thread sleeps */

/* ---- threads
 * ----------------------------------------------------------------------------------------------------------- */

static void run_part(ht_crew *crew, ht_crew_part *p) {
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
    const ht_crew_worker *w = argument;
    ht_crew *crew = w->crew;
    ht_cores cores = {{0}};
    ht_stay stay = {0};
    for (unsigned seen = 0;;) {
        seen = await_pass(crew, seen);
        if (atomic_load(&crew->closing))
            return NULL;
        ht_crew_part *p = &crew->parts[w->index];
        if (!atomic_exchange(&p->todo, false))
            continue; /* not needed in this pass, or done: this thread was late */
        if (!ht_cores_same(&p->run.lane->cores, &cores)) {
            ht_leave_cores(&stay); /* first: a lane without cores of its own is not to stay on the last one's */
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
        crew->workers[i] = (ht_crew_worker){.crew = crew, .index = i + 1};
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

/* ---- a pass
 * ------------------------------------------------------------------------------------------------------------ */

static void assign(ht_crew *crew, ht_passes *passes, const ht_crew_work *work) {
    const ht_schedule *schedule = work->schedule;
    const ht_binding *binding = work->binding;
    crew->n_parts = schedule->n_lanes;
    atomic_store(&crew->failed, false);
    for (size_t i = 0; i < crew->n_parts; i++) {
        ht_crew_part *p = &crew->parts[i];
        p->run = (ht_run){.passes = passes,
                          .lane = schedule->lanes[i],
                          .program = &schedule->programs[i],
                          .cancel = work->cancel,
                          .crew = crew,
                          .index = i,
                          .offset = work->offset,
                          .counts = ht_passes_do_count(passes)};
        p->binding = *binding;
        p->binding.joined = true;
        p->binding.sync = ht_lane_sync(passes->set, schedule->lanes[i]);
        p->binding.cached = 0; /* the others write what this one has not seen */
        p->first = work->first[i];
        p->end = work->end[i];
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

ht_status ht_crew_run(ht_passes *passes, const ht_crew_work *work, double *busy, ht_error *error) {
    ht_crew *crew = passes->crew;
    ht_stay stay;
    assign(crew, passes, work);
    atomic_fetch_add(&crew->pass, 1);
    wake(crew);
    ht_stay_on_cores(passes->set, work->schedule->lanes[0], &stay);
    run_part(crew, &crew->parts[0]);
    ht_leave_cores(&stay);
    for (unsigned i = 1; !all_ended(crew); i++) {
        ht_clock_poll(passes->set->time, all_ended, crew, INFINITY, HT_NAP);
        if (i % 4096 == 0)
            ht_clock_sleep(passes->set->time, HT_NAP);
    }
    const ht_crew_part *failed = NULL;
    for (size_t i = 0; i < crew->n_parts; i++) {
        const ht_crew_part *p = &crew->parts[i];
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
