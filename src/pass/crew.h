/* A crew from inside: for its threads (crew.c) and for who waits in them (wait.c). */
#ifndef HT_CREW_H
#define HT_CREW_H

#include "pass/pass.h"

#include <pthread.h>

#define HT_CREW_SITES 256 /* a model of more has some together */
#define HT_NAP 50e-6      /* seconds between two looks of who has polled for long */

/* One lane's part of the pass that is under way. */
typedef struct ht_crew_part {
    ht_run run;
    ht_binding binding;
    size_t first, end; /* steps */
    ht_status status;
    ht_error error;
    double waited, busy;
    double expected[HT_CREW_SITES]; /* seconds of the wait before the operator at a site, lately (wait_of) */
    _Alignas(64) atomic_uint points;
    atomic_bool todo; /* handed out, and nobody has begun */
} ht_crew_part;

typedef struct ht_crew_worker {
    struct ht_crew *crew;
    pthread_t thread;
    size_t index; /* of its part */
} ht_crew_worker;

struct ht_crew {
    pthread_mutex_t mutex;
    pthread_cond_t work; /* a pass has begun, for threads that sleep */
    ht_crew_worker workers[HT_MAX_LANES];
    size_t n_workers;
    ht_crew_part parts[HT_MAX_LANES];
    size_t n_parts;
    size_t tokens;                 /* of the newest pass */
    _Alignas(64) atomic_uint pass; /* counts them; low bits first */
    atomic_uint running;           /* under way in workers */
    atomic_int sleepers;
    atomic_bool failed, closing;
};

#endif
