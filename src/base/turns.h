/* Whose turn it is: a lock that is given to those who wait for it in the order in which they came. Who gives it back and
 * takes it again at once comes behind all who wait, so that two equal users get equal shares; a plain lock goes to whoever is
 * awake, which is the one that just had it. Who waits sleeps. */
#ifndef HT_TURNS_H
#define HT_TURNS_H

#include "base/base.h"

#include <pthread.h>

typedef struct ht_turns {
    pthread_mutex_t mutex;
    bool taken;
    size_t n_waiting;
    struct ht_waiter *first, *last; /* who waits, in order */
} ht_turns;

void ht_turns_init(ht_turns *turns);
void ht_turns_destroy(ht_turns *turns); /* nobody has it or waits for it */
void ht_turns_take(ht_turns *turns);
void ht_turns_give(ht_turns *turns);
/* Threads that have it or wait for it now, the caller's included. For tests. */
size_t ht_turns_count(ht_turns *turns);

#endif
