/* Time as an engine sees it: the machine's own, or a virtual one that moves only when everybody waits.
 *
 * Every function takes NULL for the machine's own clock; those that hot loops call cost one branch more than without.
 *
 * A virtual clock is a conservative discrete-event simulation. Of the threads that take part exactly one runs at a time: it
 * has the baton. A thread gives it away when it sleeps, is charged time or waits; it goes to the first thread, in order of
 * number, that can go on at the present time. If none can, time moves to the nearest deadline or event of the source, the
 * simulated hardware. So what happens, and when, depends on nothing but the program: two runs agree to the last digit. */
#ifndef HT_CLOCK_H
#define HT_CLOCK_H

#include "base/base.h"

#define HT_CLOCK_THREADS 8

typedef struct ht_clock ht_clock;

/* What else happens in virtual time. Called by one thread at a time; must not call the clock. */
typedef struct ht_clock_source {
    void *context;
    double (*next)(void *context); /* when something will happen that somebody may wait for; INFINITY: nothing will */
    void (*advance)(void *context, double to); /* it is `to` now; never later than next() */
} ht_clock_source;

/* What the simulated host's own waiting costs, in seconds. */
typedef struct ht_clock_host {
    double poll; /* from a flag's change to a polling thread's seeing it */
    double late; /* a sleep ends so much later than asked for */
    double wake; /* one thread wakes another that sleeps */
} ht_clock_host;

typedef bool (*ht_clock_predicate)(const void *context);

ht_status ht_clock_create(const ht_clock_host *host, const ht_clock_source *source, ht_clock **clock, ht_error *error);
void ht_clock_destroy(ht_clock *clock); /* NULL is allowed; no thread but the caller's takes part */

double ht_clock_virtual_now(ht_clock *clock);
static inline double ht_clock_now(ht_clock *clock) { /* seconds */
    return HT_UNLIKELY(clock != NULL) ? ht_clock_virtual_now(clock) : ht_seconds();
}

/* The calling thread sleeps; timers are late. */
void ht_clock_sleep(ht_clock *clock, double seconds);
/* The calling thread is busy for so long. Nothing on the machine's own clock: there it was busy. */
void ht_clock_charge(ht_clock *clock, double seconds);
/* Virtual clocks only. Waits until `wanted` is true or it is `deadline`; true at once costs nothing. `wanted` is asked by
 * whichever thread has the baton. False: the deadline has come, or nobody could ever have gone on. */
bool ht_clock_await(ht_clock *clock, ht_clock_predicate wanted, const void *context, double deadline);
/* Once more round a loop that polls: a pause on the machine's own clock. On a virtual one until `wanted`, and until the loop
 * would see it: it polls up to time `from`, and later sleeps `nap` between two looks. False: nobody can ever go on, the loop
 * must end with an error. */
bool ht_clock_virtual_poll(ht_clock *clock, ht_clock_predicate wanted, const void *context, double from, double nap);
static inline bool ht_clock_poll(ht_clock *clock, ht_clock_predicate wanted, const void *context, double from,
                                 double nap) {
    if (HT_UNLIKELY(clock != NULL))
        return ht_clock_virtual_poll(clock, wanted, context, from, nap);
    ht_relax();
    return true;
}

/* How long a wait is expected to take next that took so long now and was expected to take `before`. Down at once, up slowly:
 * sleeping too long costs whoever waits, polling too long only this core. */
static inline double ht_next_wait(double before, double took) {
    return took < before ? took : 0.75 * before + 0.25 * took;
}

/* n threads take part from now on: the caller's, number 0, which has the baton, and those that will call ht_clock_enter with
 * numbers 1 to n - 1. These begin a poll from now where they polled for this, i.e. for `spin` seconds after they left last,
 * else once they are woken. Nothing on the machine's own clock, as the other two. */
void ht_clock_begin(ht_clock *clock, size_t n, double spin);
void ht_clock_enter(ht_clock *clock, size_t number);
/* Thread `number` takes no part any more. Number 0 never leaves: it waits for the others. */
void ht_clock_leave(ht_clock *clock, size_t number);

#endif
