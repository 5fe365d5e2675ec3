/* Sessions, generation and measuring on a fake engine and a fake tokenizer. */
#include "unit/fake_engine.h"

/* ---- prefill and decode ------------------------------------------------------------------------------------------ */

static void test_prefill(void **state) {
    fixture *x = *state;
    const float *logits = NULL;
    size_t reused = 99;
    for (size_t n = 1; n <= N_PROMPT; n++) {
        x->f->tokens_computed = 0;
        x->f->heads = 0;
        assert_int_equal(ht_session_prefill(x->session, PROMPT, n, &logits, &reused, NULL), HT_OK);
        check_logits(x->f, logits, PROMPT, n);
        check_tokens(x->session, PROMPT, n);
        assert_int_equal(reused, n - 1); /* each prompt extends the one before */
        assert_int_equal(x->f->tokens_computed, 1);
        assert_int_equal(x->f->heads, 1);
    }
}

static void test_prefix_reuse(void **state) {
    fixture *x = *state;
    const float *logits = NULL;
    size_t reused = 99;
    assert_int_equal(ht_session_prefill(x->session, PROMPT, N_PROMPT, &logits, &reused, NULL), HT_OK);
    assert_int_equal(reused, 0);
    assert_int_equal(x->f->forwards, 3); /* 4 + 4 + 2 */
    assert_int_equal(x->f->heads, 1);
    assert_int_equal(ht_session_prefill(x->session, PROMPT, N_PROMPT, &logits, &reused, NULL), HT_OK);
    assert_int_equal(reused, N_PROMPT - 1); /* the same again: its last token only, for the logits */
    check_logits(x->f, logits, PROMPT, N_PROMPT);
    int32_t other[N_PROMPT];
    memcpy(other, PROMPT, sizeof other);
    other[3] = 40;
    assert_int_equal(ht_session_prefill(x->session, other, N_PROMPT, &logits, &reused, NULL), HT_OK);
    assert_int_equal(reused, 3);
    check_logits(x->f, logits, other, N_PROMPT);
    check_tokens(x->session, other, N_PROMPT);
    assert_int_equal(ht_session_prefill(x->session, other, 5, &logits, &reused, NULL), HT_OK); /* a shorter one */
    assert_int_equal(reused, 4);
    check_tokens(x->session, other, 5);
    check_logits(x->f, logits, other, 5);
    size_t held;
    const int32_t *own = ht_session_tokens(x->session, &held);
    /* The session's own array. */
    assert_int_equal(ht_session_prefill(x->session, own, held, &logits, NULL, NULL), HT_OK);
    check_logits(x->f, logits, other, 5);
}

static void test_bad_prompts(void **state) {
    fixture *x = *state;
    const float *logits = NULL;
    ht_error error = {0};
    assert_int_equal(ht_session_prefill(x->session, PROMPT, 5, &logits, NULL, NULL), HT_OK);
    const int forwards = x->f->forwards;
    assert_int_equal(ht_session_prefill(x->session, PROMPT, 0, &logits, NULL, &error), HT_ERROR_ARGUMENT);
    assert_non_null(strstr(error.text, "empty prompt"));
    int32_t ids[CONTEXT + 1] = {0};
    assert_int_equal(ht_session_prefill(x->session, ids, CONTEXT + 1, &logits, NULL, &error), HT_ERROR_CONTEXT);
    assert_non_null(strstr(error.text, "49"));
    assert_non_null(strstr(error.text, "48"));
    const int32_t bad[] = {VOCABULARY, -1, INT32_MIN, INT32_MAX};
    for (size_t i = 0; i < HT_COUNT(bad); i++) {
        char id[16];
        snprintf(id, sizeof id, "%d", bad[i]);
        ids[7] = bad[i];
        assert_int_equal(ht_session_prefill(x->session, ids, 10, &logits, NULL, &error), HT_ERROR_ARGUMENT);
        assert_non_null(strstr(error.text, "ids[7]"));
        assert_non_null(strstr(error.text, id));
        assert_int_equal(ht_session_decode(x->session, bad[i], &logits, &error), HT_ERROR_ARGUMENT);
        assert_non_null(strstr(error.text, id));
    }
    check_tokens(x->session, PROMPT, 5); /* nothing has changed */
    assert_int_equal(x->f->forwards, forwards);
    ids[7] = 0;
    assert_int_equal(ht_session_prefill(x->session, ids, CONTEXT, &logits, NULL, NULL), HT_OK); /* exactly full */
    check_logits(x->f, logits, ids, CONTEXT);
}

static void test_failed_prefill(void **state) {
    fixture *x = *state;
    const float *logits = NULL;
    size_t reused;
    ht_error error = {0};
    x->f->fail_at = 3;
    assert_int_equal(ht_session_prefill(x->session, PROMPT, N_PROMPT, &logits, NULL, &error), HT_ERROR_DEVICE);
    assert_string_equal(error.text, "made up");
    check_tokens(x->session, PROMPT, 8); /* the chunks that were done */
    assert_false(x->f->held);
    assert_int_equal(ht_session_prefill(x->session, PROMPT, N_PROMPT, &logits, &reused, NULL), HT_OK);
    assert_int_equal(reused, 8);
    check_logits(x->f, logits, PROMPT, N_PROMPT);
}

static void test_decode(void **state) {
    fixture *x = *state;
    const float *logits = NULL;
    int32_t ids[CONTEXT];
    ht_error error = {0};
    assert_int_equal(ht_session_prefill(x->session, PROMPT, 2, &logits, NULL, NULL), HT_OK);
    memcpy(ids, PROMPT, 2 * sizeof *ids);
    const uint64_t allocations = ht_alloc_count();
    for (size_t n = 2; n < CONTEXT; n++) {
        ids[n] = (int32_t)(n * 7 % VOCABULARY);
        assert_int_equal(ht_session_decode(x->session, ids[n], &logits, NULL), HT_OK);
        check_logits(x->f, logits, ids, n + 1);
    }
    assert_int_equal(ht_alloc_count(), allocations);
    assert_int_equal(ht_session_decode(x->session, 3, &logits, &error), HT_ERROR_CONTEXT);
    assert_non_null(strstr(error.text, "48"));
    check_tokens(x->session, ids, CONTEXT);
}

/* ---- cancellation ------------------------------------------------------------------------------------------------ */

static void test_cancel(void **state) {
    fixture *x = *state;
    const float *logits = NULL;
    ht_session_cancel(x->session); /* between calls: the next one, and only that, gives up */
    ht_session_cancel(x->session);
    assert_int_equal(ht_session_prefill(x->session, PROMPT, N_PROMPT, &logits, NULL, NULL), HT_ERROR_CANCELLED);
    check_tokens(x->session, NULL, 0);
    x->f->cancel_at = 2; /* within a chunk */
    assert_int_equal(ht_session_prefill(x->session, PROMPT, N_PROMPT, &logits, NULL, NULL), HT_ERROR_CANCELLED);
    check_tokens(x->session, PROMPT, 4);
    assert_int_equal(ht_session_prefill(x->session, PROMPT, N_PROMPT, &logits, NULL, NULL), HT_OK);
    check_logits(x->f, logits, PROMPT, N_PROMPT);
    ht_session_cancel(x->session);
    assert_int_equal(ht_session_decode(x->session, 3, &logits, NULL), HT_ERROR_CANCELLED);
    check_tokens(x->session, PROMPT, N_PROMPT);
    assert_int_equal(ht_session_decode(x->session, 3, &logits, NULL), HT_OK);
}

static void *cancel_from_thread(void *user) {
    fixture *x = user;
    while (!atomic_load(&x->f->waiting))
        usleep(100);
    ht_session_cancel(x->session);
    return NULL;
}

static void test_cancel_from_thread(void **state) {
    fixture *x = *state;
    const float *logits = NULL;
    pthread_t thread;
    x->f->wait_for_cancel = true;
    assert_int_equal(pthread_create(&thread, NULL, cancel_from_thread, x), 0);
    assert_int_equal(ht_session_prefill(x->session, PROMPT, N_PROMPT, &logits, NULL, NULL), HT_ERROR_CANCELLED);
    pthread_join(thread, NULL);
    x->f->wait_for_cancel = false;
    assert_int_equal(ht_session_prefill(x->session, PROMPT, N_PROMPT, &logits, NULL, NULL), HT_OK);
}

/* ---- generation -------------------------------------------------------------------------------------------------- */

/* What the callback saw. */
typedef struct listener {
    char pieces[32][64];
    int32_t ids[32];
    size_t n, n_top;
    char text[1024];
    size_t stop_after;  /* returns false at this call; 0: never */
    ht_session *cancel; /* cancelled at call cancel_after */
    size_t cancel_after;
    uint64_t allocations[32];
} listener;

static bool listen(const ht_generation *step, void *user) {
    listener *l = user;
    assert_true(l->n < HT_COUNT(l->ids));
    assert_true(step->text_bytes < sizeof l->pieces[0]);
    memcpy(l->pieces[l->n], step->text, step->text_bytes);
    strncat(l->text, step->text, step->text_bytes);
    l->ids[l->n] = step->id;
    l->allocations[l->n] = ht_alloc_count();
    l->n_top = step->n_top;
    l->n++;
    if (l->cancel != NULL && l->n == l->cancel_after)
        ht_session_cancel(l->cancel);
    return l->n != l->stop_after;
}

/* Generates after a prompt of three with `script` winning; everything common is checked here. */
static ht_generate_result play(fixture *x, const int32_t *script, size_t n_script, ht_generate_options options,
                               listener *l) {
    ht_generate_result result = HT_INIT(ht_generate_result);
    ht_error error = {0};
    x->f->script = script;
    x->f->n_script = n_script;
    x->f->script_from = 3;
    options.on_token = listen;
    options.user = l;
    if (ht_session_generate(x->session, PROMPT, 3, &options, &result, &error) != HT_OK)
        fail_msg("%s", error.text);
    assert_int_equal(result.prompt_tokens, 3);
    assert_memory_equal(result.ids, script, ht_min_size(result.n, n_script) * sizeof *script);
    assert_int_equal(strlen(result.text), result.text_bytes);
    if (result.stop != HT_STOP_CALLER)
        assert_string_equal(l->text, result.text);
    assert_true(result.prefill_ms >= 0 && result.decode_ms >= 0);
    return result;
}

static void test_generate_greedy(void **state) {
    fixture *x = *state;
    ht_generate_result result = HT_INIT(ht_generate_result);
    int32_t ids[CONTEXT + 1];
    size_t n = 3;
    memcpy(ids, PROMPT, sizeof PROMPT);
    while (n < 13 && (ids[n] = oracle_best(x->f, ids, n)) != END)
        n++;
    const ht_generate_options options = HT_INIT(ht_generate_options, .max_tokens = 10);
    assert_int_equal(ht_session_generate(x->session, PROMPT, 3, &options, &result, NULL), HT_OK);
    assert_int_equal(result.n, n - 3);
    assert_memory_equal(result.ids, ids + 3, result.n * sizeof *ids);
    assert_int_equal(result.stop, n == 13 ? HT_STOP_LIMIT : HT_STOP_END);
    assert_int_equal(result.prompt_reused, 0);
    assert_null(result.top);
    ht_generate_result_clear(&result);
    assert_null(result.ids);
    assert_int_equal(ht_session_generate(x->session, PROMPT, 3, &options, &result, NULL), HT_OK);
    assert_int_equal(result.prompt_reused, 2);
    ht_generate_result_clear(&result);
}

typedef struct stop_case {
    const char *what;
    int32_t script[6];
    size_t n_script;
    const char *stop[2];
    int max_tokens;
    ht_stop expected;
    size_t n;         /* tokens of the result */
    const char *text; /* of the result */
    const char *pieces[7];
    int32_t last_id; /* of the last callback */
} stop_case;

static const stop_case STOPS[] = {
    {"end token", {2, 3, END}, 3, {0}, 0, HT_STOP_END, 2, "ab", {"a", "b"}, 3},
    {"end token at once", {END}, 1, {0}, 0, HT_STOP_END, 0, "", {0}, 0},
    {"limit", {2, 3, 4}, 3, {0}, 2, HT_STOP_LIMIT, 2, "ab", {"a", "b"}, 3},
    {"string in one token", {2, 5, 3}, 3, {"END"}, 6, HT_STOP_STRING, 2, "a", {"a", ""}, 5},
    {"string over three tokens", {2, 6, 7}, 3, {"aEND"}, 6, HT_STOP_STRING, 3, "", {"", "", ""}, 7},
    {"not that string after all", {6, 2, 3}, 3, {"END"}, 3, HT_STOP_LIMIT, 3, "ENab", {"", "ENa", "b"}, 3},
    {"held until the limit", {2, 6}, 2, {"END"}, 2, HT_STOP_LIMIT, 2, "aEN", {"a", "EN"}, 6},
    {"held until the end token", {2, 6, END}, 3, {"END"}, 0, HT_STOP_END, 2, "aEN", {"a", "", "EN"}, -1},
    {"begins again inside", {13, 6, 7}, 3, {"END"}, 6, HT_STOP_STRING, 3, "E", {"", "E", ""}, 7},
    {"the first of two", {14}, 1, {"STOP", "END"}, 6, HT_STOP_STRING, 1, "one ", {"one "}, 14},
    {"the first of two, named first", {14}, 1, {"END", "STOP"}, 6, HT_STOP_STRING, 1, "one ", {"one "}, 14},
    {"inside a token", {11, 12}, 2, {"\nUser:"}, 6, HT_STOP_STRING, 2, "x", {"x", ""}, 12},
    {"character over two tokens",
     {8, 9, 2},
     3,
     {0},
     3,
     HT_STOP_LIMIT,
     3,
     "\xF0\x9F\x98\x80"
     "a",
     {"", "\xF0\x9F\x98\x80", "a"},
     2},
    {"half a character at the end", {2, 8, END}, 3, {0}, 0, HT_STOP_END, 2, "a", {"a", ""}, 8},
    {"a control token as stop string",
     {2, CONTROL + 1, CONTROL, 3},
     4,
     {"b", "<control>"},
     0,
     HT_STOP_STRING,
     2,
     "a",
     {"a", ""},
     CONTROL + 1},
    {"half a character at the limit", {2, 10}, 2, {0}, 2, HT_STOP_LIMIT, 2, "a", {"a", ""}, 10},
    {"an invalid byte is not waited for",
     {15, 2},
     2,
     {0},
     2,
     HT_STOP_LIMIT,
     2,
     "\xFF"
     "a",
     {"\xFF", "a"},
     2},
    {"half a character, then another",
     {10, 2},
     2,
     {0},
     2,
     HT_STOP_LIMIT,
     2,
     "\xC3"
     "a",
     {"", "\xC3"
          "a"},
     2},
};

static void test_generate_stops(void **state) {
    fixture *x = *state;
    for (size_t i = 0; i < HT_COUNT(STOPS); i++) {
        const stop_case *c = &STOPS[i];
        listener l = {0};
        size_t n_stop = 0, n_pieces = 0;
        while (n_stop < HT_COUNT(c->stop) && c->stop[n_stop] != NULL)
            n_stop++;
        while (n_pieces < HT_COUNT(c->pieces) && c->pieces[n_pieces] != NULL)
            n_pieces++;
        const ht_generate_options options =
            HT_INIT(ht_generate_options, .max_tokens = c->max_tokens, .stop = c->stop, .n_stop = n_stop);
        ht_generate_result result = play(x, c->script, c->n_script, options, &l);
        if (result.stop != c->expected)
            fail_msg("%s: stop is %s, not %s", c->what, ht_stop_name(result.stop), ht_stop_name(c->expected));
        if (strcmp(result.text, c->text) != 0)
            fail_msg("%s: \"%s\", not \"%s\"", c->what, result.text, c->text);
        if (result.n != c->n)
            fail_msg("%s: %zu tokens, not %zu", c->what, result.n, c->n);
        if (l.n != n_pieces)
            fail_msg("%s: %zu pieces, not %zu", c->what, l.n, n_pieces);
        for (size_t p = 0; p < n_pieces; p++)
            if (strcmp(l.pieces[p], c->pieces[p]) != 0)
                fail_msg("%s: piece %zu is \"%s\", not \"%s\"", c->what, p, l.pieces[p], c->pieces[p]);
        if (l.n > 0 && l.ids[l.n - 1] != c->last_id)
            fail_msg("%s: last callback has %d", c->what, l.ids[l.n - 1]);
        ht_generate_result_clear(&result);
    }
}

static void test_generate_to_the_context(void **state) {
    fixture *x = *state;
    int32_t script[CONTEXT];
    for (size_t i = 0; i < CONTEXT; i++)
        script[i] = 2;
    x->f->script = script;
    x->f->n_script = CONTEXT;
    ht_generate_result result = HT_INIT(ht_generate_result);
    const ht_generate_options unlimited = HT_INIT(ht_generate_options);
    int32_t ids[CONTEXT + 1] = {0};
    const size_t prompts[] = {CONTEXT - 5, CONTEXT}; /* 6 tokens follow the first: 5 have a place, one needs none */
    for (size_t i = 0; i < HT_COUNT(prompts); i++) {
        x->f->script_from = prompts[i];
        assert_int_equal(ht_session_generate(x->session, ids, prompts[i], &unlimited, &result, NULL), HT_OK);
        assert_int_equal(result.stop, HT_STOP_CONTEXT);
        assert_int_equal(result.n, CONTEXT - prompts[i] + 1);
        assert_int_equal(result.text_bytes, result.n);
        ht_generate_result_clear(&result);
    }
    const ht_generate_options one =
        HT_INIT(ht_generate_options, .max_tokens = 1); /* both at once: the caller's limit */
    assert_int_equal(ht_session_generate(x->session, ids, CONTEXT, &one, &result, NULL), HT_OK);
    assert_int_equal(result.stop, HT_STOP_LIMIT);
    ht_generate_result_clear(&result);
    ht_error error = {0};
    size_t held;
    assert_int_equal(ht_session_generate(x->session, ids, CONTEXT + 1, &unlimited, &result, &error), HT_ERROR_CONTEXT);
    ht_session_tokens(x->session, &held);
    assert_int_equal(held, CONTEXT);
}

static void test_generate_stopped_from_outside(void **state) {
    fixture *x = *state;
    const int32_t script[] = {2, 3, 6, 4, 2};
    const char *const stop[] = {"END"};
    listener l = {.stop_after = 2};
    ht_generate_result result = play(x, script, 5, HT_INIT(ht_generate_options, .max_tokens = 5), &l);
    assert_int_equal(result.stop, HT_STOP_CALLER);
    assert_int_equal(result.n, 2);
    ht_generate_result_clear(&result);

    l = (listener){.cancel = x->session, .cancel_after = 3}; /* the held-back text follows */
    result = play(x, script, 5, HT_INIT(ht_generate_options, .max_tokens = 5, .stop = stop, .n_stop = 1), &l);
    assert_int_equal(result.stop, HT_STOP_CANCELLED);
    assert_int_equal(result.n, 3);
    assert_string_equal(result.text, "abEN");
    assert_int_equal(l.ids[l.n - 1], -1);
    ht_generate_result_clear(&result);

    ht_session_cancel(x->session); /* before it began */
    l = (listener){0};
    result = play(x, script, 5, HT_INIT(ht_generate_options, .max_tokens = 5), &l);
    assert_int_equal(result.stop, HT_STOP_CANCELLED);
    assert_int_equal(result.n, 0);
    assert_string_equal(result.text, "");
    ht_generate_result_clear(&result);

    x->f->cancel_at = 3; /* inside a decode: prefill reuses two of three tokens and is the first forward */
    l = (listener){0};
    result = play(x, script, 5, HT_INIT(ht_generate_options, .max_tokens = 5), &l);
    assert_int_equal(result.stop, HT_STOP_CANCELLED);
    assert_int_equal(result.n, 2);
    ht_generate_result_clear(&result);

    x->f->fail_at = 3; /* a failing device is an error */
    ht_error error = {0};
    const ht_generate_options options = HT_INIT(ht_generate_options, .max_tokens = 5);
    assert_int_equal(ht_session_generate(x->session, PROMPT, 3, &options, &result, &error), HT_ERROR_DEVICE);
    l = (listener){0};
    result = play(x, script, 5, options, &l); /* and the session works on */
    assert_string_equal(result.text, "abENca");
    ht_generate_result_clear(&result);
}

static void test_generate_top_logprobs(void **state) {
    fixture *x = *state;
    ht_generate_result result = HT_INIT(ht_generate_result);
    const ht_generate_options options =
        HT_INIT(ht_generate_options, .max_tokens = 6, .top_logprobs = 4,
                .sampling = &HT_INIT(ht_sampling, .temperature = 5, .top_k = 20, .repeat_penalty = 1.3f, .seed = 9), );
    const int32_t script[] = {2}; /* so that the first, at least, is no end token */
    x->f->script = script;
    x->f->n_script = 1;
    x->f->script_from = 3;
    assert_int_equal(ht_session_generate(x->session, PROMPT, 3, &options, &result, NULL), HT_OK);
    assert_int_equal(result.n_top, 4);
    assert_true(result.n >= 1);
    int32_t ids[16];
    memcpy(ids, PROMPT, 3 * sizeof *ids);
    for (size_t i = 0; i < result.n; i++) { /* the model's own, whatever the sampling */
        float logits[VOCABULARY];
        ht_token_logprob expected[4];
        oracle(x->f, ids, 3 + i, logits);
        ht_top_logprobs(logits, VOCABULARY, 4, expected);
        for (size_t k = 0; k < 4; k++) {
            assert_int_equal(result.top[i * 4 + k].id, expected[k].id);
            assert_true(result.top[i * 4 + k].logprob == expected[k].logprob);
        }
        ids[3 + i] = result.ids[i];
    }
    ht_generate_result_clear(&result);
}

static void test_generate_seed(void **state) {
    fixture *x = *state;
    ht_generate_result results[3];
    for (size_t i = 0; i < 3; i++)
        results[i] = HT_INIT(ht_generate_result);
    const uint64_t seeds[] = {0, 0, 12};
    for (size_t i = 0; i < 3; i++) {
        const ht_generate_options options =
            HT_INIT(ht_generate_options, .max_tokens = 20,
                    .sampling = &HT_INIT(ht_sampling, .temperature = 3, .seed = seeds[i]));
        assert_int_equal(ht_session_generate(x->session, PROMPT, 3, &options, &results[i], NULL), HT_OK);
    }
    assert_int_equal(results[0].n, results[1].n);
    assert_memory_equal(results[0].ids, results[1].ids, results[0].n * sizeof(int32_t));
    assert_true(results[2].n != results[0].n ||
                memcmp(results[2].ids, results[0].ids, results[0].n * sizeof(int32_t)) != 0);
    assert_int_equal(results[2].seed, 12);
    for (size_t i = 0; i < 3; i++)
        ht_generate_result_clear(&results[i]);
    /* A random seed is told, and gives the same tokens when it is given. */
    ht_generate_options options = HT_INIT(ht_generate_options, .max_tokens = 20,
                                          .sampling = &HT_INIT(ht_sampling, .temperature = 3, .random_seed = true));
    assert_int_equal(ht_session_generate(x->session, PROMPT, 3, &options, &results[0], NULL), HT_OK);
    options.sampling = &HT_INIT(ht_sampling, .temperature = 3, .seed = results[0].seed);
    assert_int_equal(ht_session_generate(x->session, PROMPT, 3, &options, &results[1], NULL), HT_OK);
    assert_int_equal(results[0].n, results[1].n);
    assert_memory_equal(results[0].ids, results[1].ids, results[0].n * sizeof(int32_t));
    for (size_t i = 0; i < 2; i++)
        ht_generate_result_clear(&results[i]);
}

static void test_generate_steadily(void **state) {
    fixture *x = *state;
    const int32_t script[] = {2, 14, 4, 14, 6, 7, 8, 9, 2, 3, 14, 2};
    listener l = {0};
    const ht_generate_options options =
        HT_INIT(ht_generate_options, .max_tokens = 12, .top_logprobs = 3,
                .sampling = &HT_INIT(ht_sampling, .temperature = 0.1f, .top_p = 0.9f, .repeat_penalty = 1.1f));
    ht_generate_result result = play(x, script, 12, options, &l);
    assert_int_equal(result.n, 12);
    assert_int_equal(l.allocations[11], l.allocations[0]);
    ht_generate_result_clear(&result);
}

static void test_generate_without_tokenizer(void **state) {
    fixture *x = *state;
    x->f->model.tokenizer = NULL;
    ht_generate_result result = HT_INIT(ht_generate_result);
    const ht_generate_options options = HT_INIT(ht_generate_options, .max_tokens = 5);
    assert_int_equal(ht_session_generate(x->session, PROMPT, 3, &options, &result, NULL), HT_OK);
    assert_int_equal(result.n, 5);
    assert_string_equal(result.text, "");
    ht_generate_result_clear(&result);
}

static void test_generate_bad_options(void **state) {
    fixture *x = *state;
    const char *const empty[] = {"x", ""}, *const null[] = {NULL};
    const struct {
        ht_generate_options options;
        const char *name;
    } rows[] = {
        {{.max_tokens = -1}, "max_tokens"},
        {{.top_logprobs = -1}, "top_logprobs"},
        {{.top_logprobs = VOCABULARY + 1}, "top_logprobs"},
        {{.stop = empty, .n_stop = 2}, "stop[1]"},
        {{.stop = null, .n_stop = 1}, "stop[0]"},
        {{.sampling = &HT_INIT(ht_sampling, .top_p = -1)}, "top_p"},
    };
    for (size_t i = 0; i < HT_COUNT(rows); i++) {
        ht_generate_result result = HT_INIT(ht_generate_result);
        ht_error error = {0};
        ht_generate_options options = rows[i].options;
        options.struct_size = sizeof options;
        assert_int_equal(ht_session_generate(x->session, PROMPT, 3, &options, &result, &error), HT_ERROR_ARGUMENT);
        assert_non_null(strstr(error.text, rows[i].name));
        assert_null(result.ids);
    }
    ht_generate_result result = HT_INIT(ht_generate_result);
    assert_int_equal(ht_session_generate(x->session, PROMPT, 0, NULL, &result, NULL), HT_ERROR_ARGUMENT);
    assert_int_equal(x->f->forwards, 0);
    assert_string_equal(ht_stop_name(HT_STOP_CONTEXT), "context");
    assert_string_equal(ht_stop_name(HT_STOP_CANCELLED), "cancelled");
}

/* ---- measuring --------------------------------------------------------------------------------------------------- */

static void test_score(void **state) {
    fake *f = fake_create(256, 80); /* more than HT_HEAD_TOKENS a chunk */
    ht_session *session = NULL;
    assert_int_equal(ht_session_create(&f->engine, &session, NULL), HT_OK);
    enum { N = 200, TOP = 3 };
    int32_t ids[N];
    float logprobs[N], expected_logits[VOCABULARY];
    ht_token_logprob top[N * TOP], expected[TOP];
    for (size_t i = 0; i < N; i++)
        ids[i] = (int32_t)(i * i % VOCABULARY);
    const int chunks[] = {0, 1, 3, 64, 80, 1000};
    for (size_t c = 0; c < HT_COUNT(chunks); c++) {
        memset(logprobs, 0, sizeof logprobs);
        memset(top, 0, sizeof top);
        f->forwards = 0;
        assert_int_equal(ht_session_score(session, ids, N, chunks[c], logprobs, TOP, top, NULL), HT_OK);
        const int chunk = chunks[c] == 0 || chunks[c] > 80 ? 80 : chunks[c];
        assert_int_equal(f->forwards, (N + chunk - 1) / chunk);
        assert_true(isnan(logprobs[0]));
        for (size_t i = 0; i < N; i++) {
            if (i > 0)
                assert_true(fabs(logprobs[i] - oracle_logprob(f, ids, i, ids[i])) < 1e-5);
            oracle(f, ids, i + 1, expected_logits);
            ht_top_logprobs(expected_logits, VOCABULARY, TOP, expected);
            assert_int_equal(top[i * TOP + 2].id, expected[2].id);
            assert_true(top[i * TOP].logprob == expected[0].logprob);
        }
        check_tokens(session, ids, N);
    }
    f->heads = 0; /* without alternatives the last token's logits are not needed */
    assert_int_equal(ht_session_score(session, ids, N, 0, logprobs, 0, NULL, NULL), HT_OK);
    assert_int_equal(f->heads, N - 1);
    assert_int_equal(ht_session_score(session, ids, 1, 0, logprobs, 0, NULL, NULL), HT_OK);
    assert_true(isnan(logprobs[0]));
    ht_session_destroy(session);
    free(f);
}

static void test_score_errors(void **state) {
    fixture *x = *state;
    float logprobs[CONTEXT + 1];
    ht_token_logprob top[1];
    int32_t ids[CONTEXT + 1] = {0};
    ht_error error = {0};
    assert_int_equal(ht_session_score(x->session, ids, 0, 0, logprobs, 0, NULL, &error), HT_ERROR_ARGUMENT);
    assert_int_equal(ht_session_score(x->session, ids, CONTEXT + 1, 0, logprobs, 0, NULL, &error), HT_ERROR_CONTEXT);
    assert_non_null(strstr(error.text, "49"));
    assert_int_equal(ht_session_score(x->session, ids, 5, -1, logprobs, 0, NULL, &error), HT_ERROR_ARGUMENT);
    assert_non_null(strstr(error.text, "chunk"));
    assert_int_equal(ht_session_score(x->session, ids, 5, 0, logprobs, VOCABULARY + 1, top, &error), HT_ERROR_ARGUMENT);
    ids[4] = VOCABULARY;
    assert_int_equal(ht_session_score(x->session, ids, 5, 0, logprobs, 0, NULL, &error), HT_ERROR_ARGUMENT);
    assert_non_null(strstr(error.text, "ids[4]"));
    assert_int_equal(x->f->forwards, 0);
    ids[4] = 0;
    x->f->cancel_at = 3;
    assert_int_equal(ht_session_score(x->session, ids, 20, 0, logprobs, 0, NULL, &error), HT_ERROR_CANCELLED);
    check_tokens(x->session, ids, 8);
    assert_false(x->f->held);
    assert_int_equal(ht_session_score(x->session, ids, 20, 0, logprobs, 0, NULL, &error), HT_OK);
}

static bool stop_after_two(const char *what, double done, double total, void *user) {
    *(double *)user = total;
    return done < 2;
}

/* The definition, from the oracles alone. */
static void expected_perplexity(const fake *f, const fake *reference, const char *text, size_t n, size_t window,
                                int bos, ht_perplexity_result *result) {
    int32_t ids[512];
    const size_t skip = bos >= 0, stride = window - skip;
    double loss = 0, reference_loss = 0, kl_sum = 0;
    *result = (ht_perplexity_result){.has_reference = true};
    for (size_t begin = 0; begin + stride <= n || begin == 0; begin += stride) {
        const size_t tokens = skip + ht_min_size(stride, n - begin);
        ids[0] = bos;
        for (size_t i = skip; i < tokens; i++)
            ids[i] = (uint8_t)text[begin + i - skip] % VOCABULARY;
        for (size_t i = tokens / 2; i < tokens; i++) {
            double kl = 0;
            loss -= oracle_logprob(f, ids, i, ids[i]);
            reference_loss -= oracle_logprob(reference, ids, i, ids[i]);
            for (int32_t id = 0; id < VOCABULARY; id++) {
                const double p = oracle_logprob(reference, ids, i, id);
                kl += exp(p) * (p - oracle_logprob(f, ids, i, id));
            }
            kl_sum += kl;
            result->kl_max = fmax(result->kl_max, kl);
            result->top1_agreement += oracle_best(f, ids, i) == oracle_best(reference, ids, i);
            result->tokens++;
        }
    }
    const double counted = (double)result->tokens;
    result->perplexity = exp(loss / counted);
    result->reference_perplexity = exp(reference_loss / counted);
    result->kl_mean = kl_sum / counted;
    result->top1_agreement /= counted;
}

static void test_perplexity(void **state) {
    enum { TEXT = 200 };
    char text[TEXT];
    for (size_t i = 0; i < TEXT; i++)
        text[i] = (char)(i * i * 7 % 251);
    const struct {
        int context, chunk, bos;
        size_t bytes;
        uint64_t counted;
    } rows[] = {
        {48, 5, BOS, 200, 4 * 24}, /* 4 windows of 47, 12 tokens dropped */
        {48, 48, -1, 200, 4 * 24}, {48, 7, BOS, 47, 24}, {48, 7, BOS, 32, 17}, {1000, 100, -1, 199, 100},
    };
    for (size_t i = 0; i < HT_COUNT(rows); i++) {
        fake *f = fake_create(rows[i].context, rows[i].chunk), *reference = fake_create(rows[i].context, 64);
        ht_session *session = NULL, *other = NULL;
        f->noise = 3;
        f->tokenizer.bos = rows[i].bos;
        assert_int_equal(ht_session_create(&f->engine, &session, NULL), HT_OK);
        assert_int_equal(ht_session_create(&reference->engine, &other, NULL), HT_OK);
        ht_perplexity_result result, alone, expected;
        const size_t window = ht_min_size((size_t)rows[i].context, 512);
        expected_perplexity(f, reference, text, rows[i].bytes, window, rows[i].bos, &expected);
        assert_int_equal(ht_perplexity(session, other, text, rows[i].bytes, NULL, NULL, &result, NULL), HT_OK);
        assert_int_equal(ht_perplexity(session, NULL, text, rows[i].bytes, NULL, NULL, &alone, NULL), HT_OK);
        assert_int_equal(expected.tokens, rows[i].counted);
        assert_int_equal(result.tokens, rows[i].counted);
        assert_true(result.has_reference);
        assert_true(fabs(result.perplexity / expected.perplexity - 1) < 1e-6);
        assert_true(fabs(result.reference_perplexity / expected.reference_perplexity - 1) < 1e-6);
        assert_true(fabs(result.kl_mean - expected.kl_mean) < 1e-6);
        assert_true(fabs(result.kl_max - expected.kl_max) < 1e-6);
        assert_true(result.kl_mean > 0.01 && result.kl_max > result.kl_mean);
        assert_true(fabs(result.top1_agreement - expected.top1_agreement) < 1e-9);
        assert_true(result.top1_agreement < 1);
        assert_false(alone.has_reference);
        assert_true(fabs(alone.perplexity / expected.perplexity - 1) < 1e-6);
        f->noise = 0; /* the same model: no divergence */
        assert_int_equal(ht_perplexity(session, other, text, rows[i].bytes, NULL, NULL, &result, NULL), HT_OK);
        assert_true(result.kl_max < 1e-12 && result.top1_agreement == 1);
        ht_session_destroy(session);
        ht_session_destroy(other);
        free(f);
        free(reference);
    }
}

static void test_perplexity_errors(void **state) {
    fixture *x = *state;
    char text[300] = {0};
    ht_perplexity_result result;
    ht_error error = {0};
    ht_session *twin = NULL;
    assert_int_equal(ht_perplexity(x->session, NULL, text, 31, NULL, NULL, &result, &error), HT_ERROR_ARGUMENT);
    assert_non_null(strstr(error.text, "text too short: 31 tokens"));
    assert_int_equal(ht_session_create(&x->f->engine, &twin, NULL), HT_OK);
    assert_int_equal(ht_perplexity(x->session, twin, text, 300, NULL, NULL, &result, &error), HT_ERROR_ARGUMENT);
    assert_non_null(strstr(error.text, "reference"));
    ht_session_destroy(twin);
    double total = 0;
    assert_int_equal(ht_perplexity(x->session, NULL, text, 300, stop_after_two, &total, &result, &error),
                     HT_ERROR_CANCELLED);
    assert_true(total == 6); /* 300 / 47 */
    x->f->model.tokenizer = NULL;
    assert_int_equal(ht_perplexity(x->session, NULL, text, 300, NULL, NULL, &result, &error), HT_ERROR_UNSUPPORTED);
}

static void test_bench(void **state) {
    fixture *x = *state;
    ht_bench_result result;
    ht_bench_options options = {.prompt = 10, .repetitions = 3};
    for (int round = 0; round < 2; round++) { /* the second finds the session as the first left it */
        x->f->tokens_computed = 0;
        assert_int_equal(ht_bench(x->session, &options, &result, NULL), HT_OK);
        assert_int_equal(x->f->tokens_computed, 4 * 10);
        assert_int_equal(result.repetitions, 3);
        assert_true(result.tps_min > 0 && result.tps_min <= result.tps_median && result.tps_median <= result.tps_max);
        assert_true(result.peak_rss_bytes > 1000);
    }
    options = (ht_bench_options){.gen = 7};
    x->f->tokens_computed = 0;
    x->f->heads = 0;
    assert_int_equal(ht_bench(x->session, &options, &result, NULL), HT_OK);
    assert_int_equal(x->f->tokens_computed, 6 * 8);
    assert_int_equal(x->f->heads, 6 * 8);
    assert_int_equal(result.repetitions, 5);
    options = (ht_bench_options){.gen = CONTEXT - 1, .repetitions = 1};
    x->f->tokens_computed = 0;
    assert_int_equal(ht_bench(x->session, &options, &result, NULL), HT_OK);
    int distinct = 0;
    for (size_t i = 0; i < CONTEXT; i++) {
        assert_in_range(x->f->fed[i], BOS + 1, CONTROL - 1); /* no control tokens */
        distinct += x->f->fed[i] != x->f->fed[0];
    }
    assert_true(distinct > CONTEXT / 2);
    x->f->model.tokenizer = NULL;
    assert_int_equal(ht_bench(x->session, &options, &result, NULL), HT_OK);
}

static void test_bench_errors(void **state) {
    fixture *x = *state;
    const struct {
        ht_bench_options options;
        ht_status status;
        const char *name;
    } rows[] = {
        {{0}, HT_ERROR_ARGUMENT, "exactly one"},
        {{.prompt = 3, .gen = 3}, HT_ERROR_ARGUMENT, "exactly one"},
        {{.prompt = -3}, HT_ERROR_ARGUMENT, "prompt"},
        {{.gen = -3}, HT_ERROR_ARGUMENT, "gen"},
        {{.gen = 3, .repetitions = -1}, HT_ERROR_ARGUMENT, "repetitions"},
        {{.prompt = CONTEXT + 1}, HT_ERROR_CONTEXT, "49"},
        {{.gen = CONTEXT}, HT_ERROR_CONTEXT, "49"},
    };
    for (size_t i = 0; i < HT_COUNT(rows); i++) {
        ht_bench_result result;
        ht_error error = {0};
        assert_int_equal(ht_bench(x->session, &rows[i].options, &result, &error), rows[i].status);
        assert_non_null(strstr(error.text, rows[i].name));
    }
    ht_bench_result result;
    const ht_bench_options options = {.prompt = 20};
    x->f->cancel_at = 8;
    assert_int_equal(ht_bench(x->session, &options, &result, NULL), HT_ERROR_CANCELLED);
}

#define WITH_SESSION(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_SESSION(test_prefill),
        WITH_SESSION(test_prefix_reuse),
        WITH_SESSION(test_bad_prompts),
        WITH_SESSION(test_failed_prefill),
        WITH_SESSION(test_decode),
        WITH_SESSION(test_cancel),
        WITH_SESSION(test_cancel_from_thread),
        WITH_SESSION(test_generate_greedy),
        WITH_SESSION(test_generate_stops),
        WITH_SESSION(test_generate_to_the_context),
        WITH_SESSION(test_generate_stopped_from_outside),
        WITH_SESSION(test_generate_top_logprobs),
        WITH_SESSION(test_generate_seed),
        WITH_SESSION(test_generate_steadily),
        WITH_SESSION(test_generate_without_tokenizer),
        WITH_SESSION(test_generate_bad_options),
        cmocka_unit_test(test_score),
        WITH_SESSION(test_score_errors),
        cmocka_unit_test(test_perplexity),
        WITH_SESSION(test_perplexity_errors),
        WITH_SESSION(test_bench),
        WITH_SESSION(test_bench_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
