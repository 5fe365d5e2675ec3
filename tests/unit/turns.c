/* Who waits for an engine gets it in the order in which they came, and two equal sessions get equal shares of it. What is
 * counted are turns and passes, not seconds: a busy machine changes nothing. */
#include "session/session.h"
#include "unit/test.h"

#include "base/turns.h"

#include <sched.h>
#include <stdatomic.h>

enum { WAITERS = 6, ROUNDS = 300, PASSES = 400 };

/* ---- the lock -------------------------------------------------------------------------------------------------------- */

typedef struct waiter {
    ht_turns *turns;
    atomic_int *order;
    int place; /* when it had its turn */
} waiter;

static void *wait_once(void *argument) {
    waiter *w = argument;
    ht_turns_take(w->turns);
    w->place = atomic_fetch_add(w->order, 1);
    ht_turns_give(w->turns);
    return NULL;
}

static void until(ht_turns *turns, size_t n) {
    while (ht_turns_count(turns) < n)
        sched_yield();
}

static void test_first_come_first_served(void **state) {
    ht_turns turns;
    pthread_t threads[WAITERS];
    waiter waiters[WAITERS];
    atomic_int order = 0;
    ht_turns_init(&turns);
    for (int round = 0; round < 20; round++) {
        atomic_store(&order, 0);
        ht_turns_take(&turns);
        for (size_t i = 0; i < WAITERS; i++) {
            waiters[i] = (waiter){&turns, &order, -1};
            assert_int_equal(pthread_create(&threads[i], NULL, wait_once, &waiters[i]), 0);
            until(&turns, i + 2); /* it is in the queue, before the next one comes */
        }
        ht_turns_give(&turns);
        for (size_t i = 0; i < WAITERS; i++)
            pthread_join(threads[i], NULL);
        for (int i = 0; i < WAITERS; i++)
            assert_int_equal(waiters[i].place, i);
    }
    assert_int_equal(ht_turns_count(&turns), 0);
    ht_turns_destroy(&turns);
}

static void *wait_again_and_again(void *argument) {
    waiter *w = argument;
    for (int i = 0; i < ROUNDS; i++) {
        ht_turns_take(w->turns);
        atomic_fetch_add(w->order, 1);
        until(w->turns, 2); /* the other one waits again */
        ht_turns_give(w->turns);
    }
    return NULL;
}

/* Who gives it back and takes it at once is not quicker than who sleeps for it. */
static void test_nobody_overtakes(void **state) {
    ht_turns turns;
    pthread_t thread;
    atomic_int order = 0;
    waiter other = {&turns, &order, -1};
    ht_turns_init(&turns);
    ht_turns_take(&turns);
    assert_int_equal(pthread_create(&thread, NULL, wait_again_and_again, &other), 0);
    for (int i = 0; i < ROUNDS; i++) {
        until(&turns, 2);
        ht_turns_give(&turns);
        ht_turns_take(&turns);
        assert_int_equal(atomic_load(&order), i + 1); /* the other had its turn, and one only */
    }
    ht_turns_give(&turns);
    pthread_join(thread, NULL);
    ht_turns_destroy(&turns);
}

/* ---- sessions --------------------------------------------------------------------------------------------------------- */

typedef struct speaker {
    ht_session *session;
    atomic_int *mine, *others;
    atomic_bool *over;
    int worst; /* most passes that one was ahead of the other */
    ht_status status;
} speaker;

static void *speak(void *argument) {
    speaker *s = argument;
    for (int i = 0; i < PASSES && !s->status && !atomic_load(s->over); i++) {
        /* the other one is on its way to the engine, or has it: else there is nothing to share */
        while (ht_turns_count(&s->session->engine->set.turns) == 0 && atomic_load(s->others) < atomic_load(s->mine) &&
               !atomic_load(s->over))
            sched_yield();
        s->status = ht_session_decode(s->session, 7, NULL, NULL);
        const int ahead = atomic_fetch_add(s->mine, 1) + 1 - atomic_load(s->others);
        s->worst = ahead > s->worst ? ahead : s->worst;
    }
    atomic_store(s->over, true);
    return NULL;
}

static void two_sessions(const char *devices) {
    ht_model *model = NULL;
    ht_engine *engine = NULL;
    ht_error error = {0};
    pthread_t threads[2];
    speaker speakers[2] = {0};
    atomic_int passes[2] = {0};
    atomic_bool over = false;
    const ht_engine_options options = HT_INIT(ht_engine_options, .devices = devices);
    check(ht_model_open("shape:tiny", &model, &error), &error);
    check(ht_engine_create(model, &options, &engine, &error), &error);
    for (size_t i = 0; i < 2; i++) {
        speakers[i] = (speaker){.mine = &passes[i], .others = &passes[1 - i], .over = &over};
        check(ht_session_create(engine, &speakers[i].session, &error), &error);
    }
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, speak, &speakers[i]), 0);
    for (size_t i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(speakers[i].status, HT_OK);
        assert_in_range(speakers[i].worst, 0, 2); /* in turns: one pass, and one whose count is not there yet */
        assert_in_range(passes[i], PASSES - PASSES / 20, PASSES);
        ht_session_destroy(speakers[i].session);
    }
    ht_engine_destroy(engine);
    ht_model_close(model);
}

static void test_equal_sessions(void **state) {
    two_sessions("cpu:cpus=0");
}

static void test_equal_sessions_of_a_simulated_engine(void **state) {
    two_sessions("sim:snapdragon-8-gen-3/gpu");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_come_first_served),
        cmocka_unit_test(test_nobody_overtakes),
        cmocka_unit_test(test_equal_sessions),
        cmocka_unit_test(test_equal_sessions_of_a_simulated_engine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
