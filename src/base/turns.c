#include "base/turns.h"

typedef struct ht_waiter { /* on the stack of its thread */
    struct ht_waiter *next;
    pthread_cond_t go;
    bool turn;
} ht_waiter;

void ht_turns_init(ht_turns *turns) {
    *turns = (ht_turns){0};
    pthread_mutex_init(&turns->mutex, NULL);
}

void ht_turns_destroy(ht_turns *turns) {
    pthread_mutex_destroy(&turns->mutex);
}

void ht_turns_take(ht_turns *turns) {
    pthread_mutex_lock(&turns->mutex);
    if (turns->taken) {
        ht_waiter own = {.go = PTHREAD_COND_INITIALIZER};
        if (turns->last)
            turns->last->next = &own;
        else
            turns->first = &own;
        turns->last = &own;
        turns->n_waiting++;
        while (!own.turn)
            pthread_cond_wait(&own.go, &turns->mutex);
        pthread_cond_destroy(&own.go);
    }
    turns->taken = true;
    pthread_mutex_unlock(&turns->mutex);
}

/* Handed over, never free in between: nobody who comes now can be quicker than who waits. */
void ht_turns_give(ht_turns *turns) {
    pthread_mutex_lock(&turns->mutex);
    ht_waiter *next = turns->first;
    if (next) {
        turns->first = next->next;
        turns->last = turns->first ? turns->last : NULL;
        turns->n_waiting--;
        next->turn = true;
        pthread_cond_signal(&next->go); /* under the mutex: the waiter's stack is still there */
    } else {
        turns->taken = false;
    }
    pthread_mutex_unlock(&turns->mutex);
}

size_t ht_turns_count(ht_turns *turns) {
    pthread_mutex_lock(&turns->mutex);
    const size_t n = turns->taken + turns->n_waiting;
    pthread_mutex_unlock(&turns->mutex);
    return n;
}
