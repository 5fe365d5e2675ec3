#include "base/clock.h"
#include "base/os.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>

double ht_seconds(void) {
    return (double)ht_nanoseconds() * 1e-9;
}

typedef struct participant {
    pthread_cond_t go;
    bool takes_part, waits;
    ht_clock_predicate wanted; /* NULL: only the deadline counts */
    const void *context;
    double deadline;
    bool stuck;  /* nobody could have gone on, and this one was chosen to say so */
    double left; /* when it took part last */
} participant;

struct ht_clock {
    pthread_mutex_t mutex;
    double now;
    ht_clock_host host;
    ht_clock_source source;
    participant threads[HT_CLOCK_THREADS];
    size_t holder; /* of the baton */
};

ht_status ht_clock_create(const ht_clock_host *host, const ht_clock_source *source, ht_clock **clock, ht_error *error) {
    ht_clock *made;
    ht_status status = ht_alloc((void **)&made, 1, sizeof *made, "a virtual clock", error);
    if (status)
        return status;
    made->host = *host;
    made->source = *source;
    pthread_mutex_init(&made->mutex, NULL);
    for (size_t i = 0; i < HT_CLOCK_THREADS; i++) {
        pthread_cond_init(&made->threads[i].go, NULL);
        made->threads[i].left = -INFINITY;
    }
    made->threads[0].takes_part = true;
    *clock = made;
    return HT_OK;
}

void ht_clock_destroy(ht_clock *clock) {
    if (!clock)
        return;
    for (size_t i = 0; i < HT_CLOCK_THREADS; i++)
        pthread_cond_destroy(&clock->threads[i].go);
    pthread_mutex_destroy(&clock->mutex);
    free(clock);
}

double ht_clock_virtual_now(ht_clock *clock) {
    pthread_mutex_lock(&clock->mutex);
    const double now = clock->now;
    pthread_mutex_unlock(&clock->mutex);
    return now;
}

/* ---- who goes on ---------------------------------------------------------------------------------------------------- */

static bool can_go(const ht_clock *clock, const participant *p) {
    return p->takes_part && (!p->waits || p->deadline <= clock->now || (p->wanted && p->wanted(p->context)));
}

/* The first thread that can go on, time moved as far as that takes. If none ever can, the last one that waits is told so:
 * number 0 answers for the others, and must outlast them. */
static size_t choose(ht_clock *clock) {
    for (;;) {
        double when = clock->source.next ? clock->source.next(clock->source.context) : INFINITY;
        size_t last = 0;
        for (size_t i = 0; i < HT_CLOCK_THREADS; i++) {
            const participant *p = &clock->threads[i];
            if (can_go(clock, p))
                return i;
            if (p->takes_part) {
                last = i;
                when = fmin(when, p->deadline);
            }
        }
        if (when == INFINITY) {
            clock->threads[last].stuck = true;
            return last;
        }
        if (clock->source.advance)
            clock->source.advance(clock->source.context, when);
        clock->now = fmax(clock->now, when);
    }
}

/* Gives the baton to whom it belongs. */
static void pass_on(ht_clock *clock) {
    clock->holder = choose(clock);
    participant *next = &clock->threads[clock->holder];
    next->waits = false;
    pthread_cond_signal(&next->go);
}

/* The holder waits, and goes on once it has the baton again. False: nobody could have gone on. */
static bool wait_in_turn(ht_clock *clock, ht_clock_predicate wanted, const void *context, double deadline) {
    const size_t own = clock->holder;
    participant *p = &clock->threads[own];
    p->waits = true;
    p->wanted = wanted;
    p->context = context;
    p->deadline = deadline;
    p->stuck = false;
    pass_on(clock);
    while (clock->holder != own)
        pthread_cond_wait(&p->go, &clock->mutex);
    return !p->stuck;
}

/* ---- waiting -------------------------------------------------------------------------------------------------------- */

void ht_clock_charge(ht_clock *clock, double seconds) {
    if (!clock || !(seconds > 0))
        return;
    pthread_mutex_lock(&clock->mutex);
    wait_in_turn(clock, NULL, NULL, clock->now + seconds);
    pthread_mutex_unlock(&clock->mutex);
}

void ht_clock_sleep(ht_clock *clock, double seconds) {
    if (clock) {
        ht_clock_charge(clock, fmax(seconds, 0) + clock->host.late);
        return;
    }
    if (seconds > 0)
        ht_os_nap((uint64_t)(seconds * 1e9));
}

bool ht_clock_await(ht_clock *clock, ht_clock_predicate wanted, const void *context, double deadline) {
    pthread_mutex_lock(&clock->mutex);
    bool there = wanted(context);
    if (!there && deadline > clock->now)
        there = wait_in_turn(clock, wanted, context, deadline) && wanted(context);
    pthread_mutex_unlock(&clock->mutex);
    return there;
}

/* When a loop that looks at `from` and every `nap` later, late as timers are, sees what is so at `now`. */
static double next_look(const ht_clock *clock, double from, double nap) {
    const double step = nap + clock->host.late;
    return clock->now <= from || !(step > 0) ? clock->now + clock->host.poll
                                             : from + step * ceil((clock->now - from) / step);
}

bool ht_clock_virtual_poll(ht_clock *clock, ht_clock_predicate wanted, const void *context, double from, double nap) {
    pthread_mutex_lock(&clock->mutex);
    bool alive = true;
    if (!wanted(context)) {
        alive = wait_in_turn(clock, wanted, context, INFINITY);
        const double seen = next_look(clock, from, nap);
        if (alive && seen > clock->now)
            wait_in_turn(clock, NULL, NULL, seen);
    }
    pthread_mutex_unlock(&clock->mutex);
    return alive;
}

/* ---- taking part ---------------------------------------------------------------------------------------------------- */

void ht_clock_begin(ht_clock *clock, size_t n, double spin) {
    if (!clock)
        return;
    pthread_mutex_lock(&clock->mutex);
    clock->holder = 0;
    for (size_t i = 1; i < n; i++) {
        participant *p = &clock->threads[i];
        p->takes_part = p->waits = true;
        p->wanted = NULL;
        p->stuck = false;
        p->deadline = clock->now + (clock->now - p->left <= spin ? clock->host.poll : clock->host.wake);
    }
    pthread_mutex_unlock(&clock->mutex);
}

void ht_clock_enter(ht_clock *clock, size_t number) {
    if (!clock)
        return;
    pthread_mutex_lock(&clock->mutex);
    while (clock->holder != number) /* it may have it already */
        pthread_cond_wait(&clock->threads[number].go, &clock->mutex);
    pthread_mutex_unlock(&clock->mutex);
}

void ht_clock_leave(ht_clock *clock, size_t number) {
    if (!clock)
        return;
    pthread_mutex_lock(&clock->mutex);
    clock->threads[number].takes_part = false;
    clock->threads[number].left = clock->now;
    pass_on(clock);
    pthread_mutex_unlock(&clock->mutex);
}
