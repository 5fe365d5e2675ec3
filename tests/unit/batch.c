/* Batches on a fake engine: which tokens go into which pass, and that every answer is what it is alone. */
#include "unit/fake_engine.h"

enum { MOST_REQUESTS = 12, SCHEDULES = 500, MOST_PROMPT = 24 };

static uint32_t random_state;
static size_t pick(size_t n) {
    random_state = random_state * 1664525u + 1013904223u;
    return (random_state >> 8) % n;
}

typedef struct wish {
    uint64_t request;
    int32_t prompt[CONTEXT];
    size_t n;
    ht_sampling sampling;
    ht_generate_options options;
    bool cancelled, ended, taken;
    int32_t ids[MOST_PROMPT + 2 * CONTEXT]; /* of the prompt and the answer so far */
    size_t n_ids;
    char text[1024]; /* pieces so far */
    size_t text_bytes;
} wish;

static const char *const STOPS[] = {"END", "er:"};

/* Prompts begin alike, so that sequences have something to take over. */
static void make_wish(wish *w) {
    *w = (wish){.n = 1 + pick(MOST_PROMPT)};
    for (size_t i = 0; i < w->n; i++)
        w->prompt[i] = i < 10 ? PROMPT[i % N_PROMPT] + (pick(8) == 0) : (int32_t)(2 + pick(50));
    w->sampling = HT_INIT(ht_sampling, .temperature = pick(2) ? 0.7f : 0, .top_k = 5, .seed = pick(100));
    w->options = HT_INIT(ht_generate_options, .max_tokens = (int)pick(12), .sampling = &w->sampling, .stop = STOPS,
                         .n_stop = pick(3), .top_logprobs = (int)pick(3));
}

static void note_events(wish *wishes, size_t n, const ht_batch_event *events, size_t n_events) {
    for (size_t i = 0; i < n_events; i++) {
        wish *w = NULL;
        for (size_t k = 0; k < n; k++)
            if (wishes[k].request == events[i].request)
                w = &wishes[k];
        assert_non_null(w);
        memcpy(w->text + w->text_bytes, events[i].piece.text ? events[i].piece.text : "", events[i].piece.text_bytes);
        w->text_bytes += events[i].piece.text_bytes;
        w->ended |= events[i].ended;
        if (events[i].piece.id >= 0)
            w->ids[w->n_ids++] = events[i].piece.id;
    }
}

/* What the answer is alone. */
static void check_answer(fake *f, wish *w, const ht_generate_result *got) {
    ht_error error = {0};
    ht_session *session;
    ht_generate_result alone = HT_INIT(ht_generate_result);
    assert_int_equal(ht_session_create(&f->engine, &session, &error), HT_OK);
    assert_int_equal(ht_session_generate(session, w->prompt, w->n, &w->options, &alone, &error), HT_OK);
    assert_int_equal(got->prompt_tokens, w->n);
    assert_int_equal(got->text_bytes, w->text_bytes);
    assert_memory_equal(got->text, w->text, w->text_bytes);
    if (w->cancelled && got->stop == HT_STOP_CANCELLED) {
        assert_true(got->n <= alone.n);
    } else {
        assert_int_equal(got->stop, alone.stop);
        assert_int_equal(got->n, alone.n);
        assert_int_equal(got->n_top, alone.n_top);
        if (alone.n && alone.n_top)
            assert_memory_equal(got->top, alone.top, alone.n * alone.n_top * sizeof *alone.top);
    }
    if (got->n)
        assert_memory_equal(got->ids, alone.ids, got->n * sizeof *got->ids);
    ht_generate_result_clear(&alone);
    ht_session_destroy(session);
}

static void take(fake *f, ht_batch *batch, wish *w) {
    ht_error error = {0};
    ht_generate_result result = HT_INIT(ht_generate_result);
    assert_int_equal(ht_batch_take(batch, w->request, &result, &error), HT_OK);
    check_answer(f, w, &result);
    ht_generate_result_clear(&result);
    w->taken = true;
    assert_int_equal(ht_batch_take(batch, w->request, &result, &error), HT_ERROR_ARGUMENT);
}

/* The tokens that a request has by now, as the prompt of another one. */
static void fork_wish(ht_batch *batch, const wish *of, wish *w) {
    ht_error error = {0};
    make_wish(w);
    memcpy(w->prompt, of->ids, of->n_ids * sizeof *w->prompt);
    w->n = of->n_ids;
    assert_int_equal(ht_batch_fork(batch, of->request, &w->options, &w->request, &error), HT_OK);
}

static void run_schedule(uint32_t seed) {
    random_state = seed * 2654435761u + 1;
    fake *f = fake_create(CONTEXT, 8 + (int)pick(24));
    const ht_batch_options options =
        HT_INIT(ht_batch_options, .sequences = 1 + (int)pick(8), .tokens = pick(2) ? 60 + pick(150) : 0);
    wish wishes[MOST_REQUESTS];
    ht_batch *batch;
    ht_error error = {0};
    size_t n = 0, n_events = 0, steps = 0;
    assert_int_equal(ht_batch_create(&f->engine, &options, &batch, &error), HT_OK);
    const ht_batch_event *events = NULL;
    while (n < MOST_REQUESTS || ht_batch_pending(batch)) {
        if (n < MOST_REQUESTS && pick(3) == 0) {
            wish *w = &wishes[n];
            const wish *of = &wishes[n ? pick(n) : 0];
            if (n && pick(3) == 0 && !of->ended) {
                fork_wish(batch, of, w);
            } else {
                make_wish(w);
                assert_int_equal(ht_batch_add(batch, w->prompt, w->n, &w->options, &w->request, &error), HT_OK);
            }
            memcpy(w->ids, w->prompt, w->n * sizeof *w->ids);
            w->n_ids = w->n;
            n++;
        }
        if (n && pick(20) == 0) {
            wish *w = &wishes[pick(n)];
            w->cancelled = true;
            ht_batch_cancel(batch, w->request);
        }
        const int failing = pick(15) == 0;
        f->fail_at = failing;
        const ht_status status = ht_batch_step(batch, &events, &n_events, &error);
        f->fail_at = 0;
        assert_true(status == HT_OK || (failing && status == HT_ERROR_DEVICE));
        note_events(wishes, n, events, n_events);
        for (size_t i = 0; i < n_events; i++)
            for (size_t k = 0; k < n && events[i].ended; k++)
                if (wishes[k].request == events[i].request && !wishes[k].taken && pick(2))
                    take(f, batch, &wishes[k]);
        assert_true(++steps < 10000);
    }
    for (size_t k = 0; k < n; k++)
        if (!wishes[k].taken)
            take(f, batch, &wishes[k]);
    ht_batch_destroy(batch);
    free(f);
}

static void test_schedules(void **state) {
    for (uint32_t seed = 0; seed < SCHEDULES; seed++)
        run_schedule(seed);
}

/* A fork goes on from all that the other has, and computes none of it again. */
static void test_fork(void **state) {
    fake *f = fake_create(CONTEXT, 16);
    ht_batch *batch;
    ht_error error = {0};
    const ht_batch_event *events;
    size_t n;
    uint64_t one, two;
    int32_t seen[CONTEXT];
    const ht_generate_options options = HT_INIT(ht_generate_options, .max_tokens = 8);
    assert_int_equal(ht_batch_create(&f->engine, NULL, &batch, &error), HT_OK);
    assert_int_equal(ht_batch_add(batch, PROMPT, N_PROMPT, &options, &one, &error), HT_OK);
    memcpy(seen, PROMPT, sizeof PROMPT);
    size_t n_seen = N_PROMPT;
    for (int i = 0; i < 4; i++) {
        assert_int_equal(ht_batch_step(batch, &events, &n, &error), HT_OK);
        assert_int_equal(n, 1);
        seen[n_seen++] = events->piece.id;
    }
    assert_int_equal(ht_batch_fork(batch, one, &options, &two, &error), HT_OK);
    f->tokens_computed = 0;
    assert_int_equal(ht_batch_step(batch, &events, &n, &error), HT_OK);
    assert_int_equal(n, 2);
    assert_int_equal(f->tokens_computed, 2); /* the newest token of each */
    assert_int_equal(f->forwards, 5);
    while (ht_batch_pending(batch))
        assert_int_equal(ht_batch_step(batch, &events, &n, &error), HT_OK);
    ht_generate_result result = HT_INIT(ht_generate_result);
    assert_int_equal(ht_batch_take(batch, two, &result, &error), HT_OK);
    assert_int_equal(result.prompt_tokens, n_seen);
    assert_int_equal(result.prompt_reused, n_seen - 1);
    for (size_t i = 0; i < result.n; i++) {
        assert_int_equal(result.ids[i], oracle_best(f, seen, n_seen));
        seen[n_seen++] = result.ids[i];
    }
    ht_generate_result_clear(&result);
    ht_batch_destroy(batch);
    free(f);
}

/* Eight sequences, tokens for five: who came first is never pushed back, and all are answered. */
static void test_too_few_tokens(void **state) {
    fake *f = fake_create(CONTEXT, 16);
    const ht_batch_options few = HT_INIT(ht_batch_options, .sequences = 8, .tokens = 5 * 30);
    const ht_generate_options options = HT_INIT(ht_generate_options, .max_tokens = 20);
    ht_batch *batch;
    ht_error error = {0};
    wish wishes[8] = {{0}};
    size_t n, steps = 0, ended = 0;
    const ht_batch_event *events;
    int32_t script[CONTEXT];
    for (size_t i = 0; i < CONTEXT; i++)
        script[i] = 20 + (int32_t)i % 8;
    f->script = script, f->script_from = 10, f->n_script = CONTEXT; /* no answer ends early */
    assert_int_equal(ht_batch_create(&f->engine, &few, &batch, &error), HT_OK);
    for (size_t k = 0; k < 8; k++) {
        wish *w = &wishes[k];
        w->n = 10, w->options = options;
        for (size_t i = 0; i < w->n; i++)
            w->prompt[i] = (int32_t)(2 + (k * 7 + i * 3) % 50);
        assert_int_equal(ht_batch_add(batch, w->prompt, w->n, &options, &w->request, &error), HT_OK);
    }
    for (; ht_batch_pending(batch); steps++) {
        assert_int_equal(ht_batch_step(batch, &events, &n, &error), HT_OK);
        note_events(wishes, 8, events, n);
        for (size_t i = 0; i < n; i++)
            if (events[i].ended)
                assert_int_equal(events[i].request, wishes[ended++].request); /* in the order in which they came */
        assert_true(steps < 200);
    }
    for (size_t k = 0; k < 8; k++)
        take(f, batch, &wishes[k]);
    /* one alone has all of the tokens, and no more */
    int32_t longest[CONTEXT] = {0};
    uint64_t request;
    const ht_batch_options tiny = HT_INIT(ht_batch_options, .tokens = 12);
    ht_batch_destroy(batch);
    assert_int_equal(ht_batch_create(&f->engine, &tiny, &batch, &error), HT_OK);
    assert_int_equal(ht_batch_add(batch, longest, 13, &options, &request, &error), HT_ERROR_CONTEXT);
    assert_int_equal(ht_batch_add(batch, PROMPT, N_PROMPT, &options, &request, &error), HT_OK);
    while (ht_batch_pending(batch))
        assert_int_equal(ht_batch_step(batch, &events, &n, &error), HT_OK);
    ht_generate_result result = HT_INIT(ht_generate_result);
    assert_int_equal(ht_batch_take(batch, request, &result, &error), HT_OK);
    assert_int_equal(result.stop, HT_STOP_CONTEXT);
    assert_int_equal(result.n, 3);
    ht_generate_result_clear(&result);
    ht_batch_destroy(batch);
    free(f);
}

/* An answer under way gets a token in every pass, whatever prompt comes beside it. */
static void test_prompt_beside_an_answer(void **state) {
    fake *f = fake_create(CONTEXT, 32);
    ht_batch *batch;
    ht_error error = {0};
    const ht_batch_event *events;
    size_t n;
    uint64_t one, two;
    int32_t script[CONTEXT], prompt[40];
    for (size_t i = 0; i < CONTEXT; i++)
        script[i] = 20;
    for (size_t i = 0; i < HT_COUNT(prompt); i++)
        prompt[i] = 30;
    f->script = script, f->script_from = 1, f->n_script = CONTEXT;
    assert_int_equal(ht_batch_create(&f->engine, NULL, &batch, &error), HT_OK);
    assert_int_equal(ht_batch_add(batch, PROMPT, 4, NULL, &one, &error), HT_OK);
    assert_int_equal(ht_batch_step(batch, &events, &n, &error), HT_OK);
    assert_int_equal(ht_batch_add(batch, prompt, HT_COUNT(prompt), NULL, &two, &error), HT_OK);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(ht_batch_step(batch, &events, &n, &error), HT_OK);
        assert_true(n >= 1);
        bool found = false;
        for (size_t k = 0; k < n; k++)
            found |= events[k].request == one && events[k].piece.id == 20;
        assert_true(found);
    }
    ht_batch_destroy(batch); /* with both under way */
    free(f);
}

static void test_bad_arguments(void **state) {
    fake *f = fake_create(CONTEXT, 16);
    ht_batch *batch = NULL;
    ht_error error = {0};
    uint64_t request;
    const ht_batch_options rows[] = {HT_INIT(ht_batch_options, .sequences = -1),
                                     HT_INIT(ht_batch_options, .sequences = 65),
                                     HT_INIT(ht_batch_options, .sequences = 17), /* a pass has 16 tokens */
                                     HT_INIT(ht_batch_options, .pass_seconds = -1),
                                     {0}};
    for (size_t i = 0; i < HT_COUNT(rows); i++)
        assert_int_equal(ht_batch_create(&f->engine, &rows[i], &batch, &error), HT_ERROR_ARGUMENT);
    assert_int_equal(ht_batch_create(&f->engine, NULL, &batch, &error), HT_OK);
    const int32_t bad[] = {3, VOCABULARY}, many[CONTEXT + 1] = {0};
    const char *empty[] = {"x", ""};
    const ht_generate_options wrong = HT_INIT(ht_generate_options, .stop = empty, .n_stop = 2);
    assert_int_equal(ht_batch_add(batch, bad, 0, NULL, &request, &error), HT_ERROR_ARGUMENT);
    assert_int_equal(ht_batch_add(batch, bad, 2, NULL, &request, &error), HT_ERROR_ARGUMENT);
    assert_int_equal(ht_batch_add(batch, many, CONTEXT + 1, NULL, &request, &error), HT_ERROR_CONTEXT);
    assert_int_equal(ht_batch_add(batch, bad, 1, &wrong, &request, &error), HT_ERROR_ARGUMENT);
    assert_int_equal(ht_batch_fork(batch, 7, NULL, &request, &error), HT_ERROR_ARGUMENT);
    ht_batch_cancel(batch, 7);
    assert_int_equal(ht_batch_add(batch, bad, 1, NULL, &request, &error), HT_OK);
    ht_generate_result result = HT_INIT(ht_generate_result);
    assert_int_equal(ht_batch_take(batch, request, &result, &error), HT_ERROR_ARGUMENT);
    assert_non_null(strstr(error.text, "not ended"));
    ht_batch_destroy(batch);
    free(f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_schedules),      cmocka_unit_test(test_fork),
        cmocka_unit_test(test_too_few_tokens), cmocka_unit_test(test_prompt_beside_an_answer),
        cmocka_unit_test(test_bad_arguments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
