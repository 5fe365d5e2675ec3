/* The sampler chain, step by step, against what each step is defined to be. */
#include "session/sampler.h"

#include "base/base.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static ht_sampler *make(const ht_sampling *options, size_t vocabulary) {
    ht_sampler *sampler = NULL;
    ht_error error = {0};
    if (ht_sampler_create(options, vocabulary, &sampler, &error) != HT_OK)
        fail_msg("%s", error.text);
    return sampler;
}

/* counts[id] of `draws` picks. */
static void count_picks(const ht_sampling *options, const float *logits, size_t n, int draws, int *counts) {
    ht_sampler *sampler = make(options, n);
    memset(counts, 0, n * sizeof *counts);
    for (int i = 0; i < draws; i++) {
        const int32_t id = ht_sampler_pick(sampler, logits, NULL, 0);
        assert_in_range(id, 0, n - 1);
        counts[id]++;
    }
    ht_sampler_destroy(sampler);
}

/* Within five standard deviations of the expected share; exactly zero where nothing is expected. */
static void check_shares(const int *counts, const double *shares, size_t n, int draws) {
    for (size_t i = 0; i < n; i++) {
        const double expected = shares[i] * draws, sigma = sqrt(expected * (1 - shares[i]));
        if (shares[i] == 0)
            assert_int_equal(counts[i], 0);
        if (fabs(counts[i] - expected) > 5 * sigma + 1e-9)
            fail_msg("token %zu: %d picks, %.1f expected", i, counts[i], expected);
    }
}

enum { DRAWS = 40000 };
static const float FIVE[] = {0.5f, 2.0f, -1.0f, 1.0f, 0.0f}; /* by probability: 1, 3, 0, 4, 2 */

/* Softmax at a temperature over the tokens of `kept`. */
static void softmax(const float *logits, size_t n, double temperature, const bool *kept, double *shares) {
    double total = 0;
    for (size_t i = 0; i < n; i++)
        total += shares[i] = kept[i] ? exp(logits[i] / temperature) : 0;
    for (size_t i = 0; i < n; i++)
        shares[i] /= total;
}

static void test_greedy(void **state) {
    const ht_sampling greedy = HT_INIT(ht_sampling), negative = HT_INIT(ht_sampling, .temperature = -1);
    const float ties[] = {1, 3, 3, 2}, odd[] = {NAN, -INFINITY, -2, NAN}, infinite[] = {0, INFINITY, INFINITY};
    ht_sampler *sampler = make(&greedy, 4);
    assert_int_equal(ht_sampler_pick(sampler, ties, NULL, 0), 1); /* ties: the lower id */
    assert_int_equal(ht_sampler_pick(sampler, odd, NULL, 0), 2);  /* a NaN does not win */
    ht_sampler_destroy(sampler);
    sampler = make(&negative, 3);
    assert_int_equal(ht_sampler_pick(sampler, infinite, NULL, 0), 1);
    ht_sampler_destroy(sampler);
    const ht_sampling warm = HT_INIT(ht_sampling, .temperature = 1, .seed = 1);
    sampler = make(&warm, 3);
    assert_int_equal(ht_sampler_pick(sampler, infinite, NULL, 0), 1); /* nothing to draw from */
    const float nothing[] = {NAN, NAN, -INFINITY};
    assert_in_range(ht_sampler_pick(sampler, nothing, NULL, 0), 0, 2);
    ht_sampler_destroy(sampler);
}

static void test_filters(void **state) {
    const struct {
        ht_sampling options;
        bool kept[5];
    } rows[] = {
        /* probabilities: 0.563 (1), 0.207 (3), 0.126 (0), 0.076 (4), 0.028 (2) */
        {{.temperature = 1}, {1, 1, 1, 1, 1}},
        {{.temperature = 0.5f}, {1, 1, 1, 1, 1}},
        {{.temperature = 2}, {1, 1, 1, 1, 1}},
        {{.temperature = 1, .top_k = 1}, {0, 1, 0, 0, 0}},
        {{.temperature = 1, .top_k = 2}, {0, 1, 0, 1, 0}},
        {{.temperature = 1, .top_k = 9}, {1, 1, 1, 1, 1}},
        {{.temperature = 1, .top_p = 0.5f}, {0, 1, 0, 0, 0}},
        {{.temperature = 1, .top_p = 0.7f}, {0, 1, 0, 1, 0}},
        {{.temperature = 1, .top_p = 0.8f}, {1, 1, 0, 1, 0}},
        {{.temperature = 1, .top_p = 1}, {1, 1, 1, 1, 1}},
        {{.temperature = 1, .min_p = 0.2f}, {1, 1, 0, 1, 0}},
        {{.temperature = 1, .min_p = 1}, {0, 1, 0, 0, 0}},
        /* renormalised after top-k: 0.628, 0.231, 0.140: two of them make 0.860 */
        {{.temperature = 1, .top_k = 3, .top_p = 0.85f}, {0, 1, 0, 1, 0}},
        {{.temperature = 1, .top_k = 3, .top_p = 0.87f}, {1, 1, 0, 1, 0}},
        /* filters look at temperature 1, whatever the temperature is */
        {{.temperature = 2, .top_p = 0.7f}, {0, 1, 0, 1, 0}},
        {{.temperature = 2, .min_p = 0.2f}, {1, 1, 0, 1, 0}},
        {{.temperature = 2, .top_k = 4, .top_p = 0.9f, .min_p = 0.3f}, {0, 1, 0, 1, 0}},
    };
    for (size_t i = 0; i < HT_COUNT(rows); i++) {
        ht_sampling options = rows[i].options;
        options.struct_size = sizeof options;
        options.seed = 7 + i;
        int counts[5];
        double shares[5];
        count_picks(&options, FIVE, 5, DRAWS, counts);
        softmax(FIVE, 5, options.temperature, rows[i].kept, shares);
        check_shares(counts, shares, 5, DRAWS);
    }
}

static void test_repeat_penalty(void **state) {
    const float logits[] = {2.0f, 3.0f, -1.0f, -1.5f};
    ht_sampling options = HT_INIT(ht_sampling, .repeat_penalty = 2);
    ht_sampler *sampler = make(&options, 4);
    const int32_t once[] = {1}, twice[] = {1, 1, 1}, all[] = {0, 1, 2, 0, 1}, odd[] = {1, -5, 77};
    assert_int_equal(ht_sampler_pick(sampler, logits, NULL, 0), 1);
    assert_int_equal(ht_sampler_pick(sampler, logits, once, 1), 0); /* 1.5 */
    assert_int_equal(ht_sampler_pick(sampler, logits, odd, 3), 0);  /* ids that are none are passed over */
    assert_int_equal(ht_sampler_pick(sampler, logits, all, 5), 1);  /* 1, 1.5, -2, -1.5 */
    const float close[] = {1.0f, 2.6f, -9.0f, -9.0f};
    assert_int_equal(ht_sampler_pick(sampler, close, twice, 3), 1); /* once, not three times */
    const float negative[] = {-2.0f, -1.5f, -9.0f, -9.0f};
    assert_int_equal(ht_sampler_pick(sampler, negative, once, 1), 0); /* multiplied: -3 */
    ht_sampler_destroy(sampler);

    options.repeat_window = 2;
    sampler = make(&options, 4);
    const int32_t history[] = {1, 2, 3};
    assert_int_equal(ht_sampler_pick(sampler, logits, history, 3), 1); /* outside the window */
    assert_int_equal(ht_sampler_pick(sampler, logits, history, 2), 0);
    ht_sampler_destroy(sampler);

    int32_t longer[65] = {1}; /* then zeros: the default window of 64 does not reach the first */
    options.repeat_window = 0;
    sampler = make(&options, 4);
    const float closer[] = {1.0f, 3.0f, 2.0f, -9.0f};
    assert_int_equal(ht_sampler_pick(sampler, closer, longer, 65), 1);
    assert_int_equal(ht_sampler_pick(sampler, closer, longer, 64), 2); /* penalised: 1.5 */
    ht_sampler_destroy(sampler);
}

static void test_seed(void **state) {
    enum { N = 64 };
    float logits[N] = {0}; /* all alike: every draw shows the generator */
    int32_t first[N], second[N], other[N];
    const ht_sampling options = HT_INIT(ht_sampling, .temperature = 1, .seed = 42),
                      different = HT_INIT(ht_sampling, .temperature = 1, .seed = 43);
    const ht_sampling *const all[] = {&options, &options, &different};
    int32_t *const out[] = {first, second, other};
    for (size_t s = 0; s < 3; s++) {
        ht_sampler *sampler = make(all[s], N);
        for (size_t i = 0; i < N; i++)
            out[s][i] = ht_sampler_pick(sampler, logits, NULL, 0);
        ht_sampler_destroy(sampler);
    }
    assert_memory_equal(first, second, sizeof first);
    assert_memory_not_equal(first, other, sizeof first);
    const ht_sampling zero = HT_INIT(ht_sampling, .temperature = 1); /* seed 0 is one like any other */
    for (size_t s = 0; s < 2; s++) {
        ht_sampler *sampler = make(&zero, N);
        assert_int_equal(ht_sampler_seed(sampler), 0);
        for (size_t i = 0; i < N; i++)
            out[s][i] = ht_sampler_pick(sampler, logits, NULL, 0);
        ht_sampler_destroy(sampler);
    }
    assert_memory_equal(first, second, sizeof first);
    const ht_sampling random = HT_INIT(ht_sampling, .temperature = 1, .random_seed = true);
    for (size_t s = 0; s < 2; s++) {
        ht_sampler *sampler = make(&random, N);
        for (size_t i = 0; i < N; i++)
            out[s][i] = ht_sampler_pick(sampler, logits, NULL, 0);
        ht_sampler_destroy(sampler);
    }
    assert_memory_not_equal(first, second, sizeof first);
}

static void test_bad_options(void **state) {
    const struct {
        ht_sampling options;
        const char *name;
    } rows[] = {
        {{.temperature = NAN}, "temperature"},
        {{.temperature = INFINITY}, "temperature"},
        {{.top_k = -1}, "top_k"},
        {{.top_p = -0.1f}, "top_p"},
        {{.top_p = 1.5f}, "top_p"},
        {{.top_p = NAN}, "top_p"},
        {{.min_p = -1}, "min_p"},
        {{.min_p = 2}, "min_p"},
        {{.min_p = NAN}, "min_p"},
        {{.repeat_penalty = -1}, "repeat_penalty"},
        {{.repeat_penalty = NAN}, "repeat_penalty"},
        {{.repeat_window = -64}, "repeat_window"},
    };
    for (size_t i = 0; i < HT_COUNT(rows); i++) {
        ht_sampler *sampler = NULL;
        ht_error error = {0};
        ht_sampling options = rows[i].options;
        options.struct_size = sizeof options;
        assert_int_equal(ht_sampler_create(&options, 8, &sampler, &error), HT_ERROR_ARGUMENT);
        assert_null(sampler);
        if (strncmp(error.text, rows[i].name, strlen(rows[i].name)) != 0)
            fail_msg("%s: %s", rows[i].name, error.text);
    }
    const ht_sampling none = HT_INIT(ht_sampling);
    ht_sampler *sampler = NULL;
    assert_int_equal(ht_sampler_create(&none, 0, &sampler, NULL), HT_ERROR_ARGUMENT);
    ht_sampler_destroy(NULL);
}

static uint32_t lcg(uint32_t *state) {
    return *state = *state * 1664525u + 1013904223u;
}

static const float *sorted_by;
static int by_logit(const void *a, const void *b) {
    const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    if (sorted_by[x] != sorted_by[y])
        return sorted_by[x] > sorted_by[y] ? -1 : 1;
    return (x > y) - (x < y);
}

static void test_top_logprobs(void **state) {
    enum { N = 1000 };
    float logits[N];
    int32_t order[N];
    ht_token_logprob top[N];
    uint32_t random = 5;
    for (int round = 0; round < 20; round++) {
        double sum = 0;
        for (int i = 0; i < N; i++) {
            logits[i] = (float)(lcg(&random) >> 24) / 16 - 8; /* 256 values: many ties */
            order[i] = i;
            sum += exp(logits[i]);
        }
        sorted_by = logits;
        qsort(order, N, sizeof *order, by_logit);
        const size_t sizes[] = {0, 1, 2, 5, 40, N - 1, N};
        for (size_t s = 0; s < HT_COUNT(sizes); s++) {
            ht_top_logprobs(logits, N, sizes[s], top);
            for (size_t i = 0; i < sizes[s]; i++) {
                assert_int_equal(top[i].id, order[i]);
                assert_true(fabs(top[i].logprob - (logits[order[i]] - log(sum))) < 1e-5);
            }
        }
        assert_true(fabs(ht_log_sum_exp(logits, N) - log(sum)) < 1e-10);
    }
    const float large[] = {10000, 10000, -10000}; /* would overflow without the maximum taken out */
    assert_true(fabs(ht_log_sum_exp(large, 3) - (10000 + log(2))) < 1e-9);
    const float none[] = {-INFINITY, -INFINITY};
    assert_true(ht_log_sum_exp(none, 2) == -INFINITY);
}

/* A flat distribution: the nucleus is most of the vocabulary, found after the small selections fall short. */
static void test_wide_nucleus(void **state) {
    enum { N = 5000, KEPT = 4500 };
    float *logits = calloc(N, sizeof *logits);
    int *counts = calloc(N, sizeof *counts);
    for (int i = 0; i < N; i++)
        logits[i] = -1e-5f * (float)i; /* ids by probability */
    const ht_sampling options = HT_INIT(ht_sampling, .temperature = 1, .top_p = 0.9f, .seed = 3);
    count_picks(&options, logits, N, 2000, counts);
    int highest = 0;
    for (int i = 0; i < N; i++)
        if (counts[i] > 0)
            highest = i;
    assert_in_range(highest, KEPT - 200, KEPT);
    free(counts);
    free(logits);
}

static void test_logits_are_left(void **state) {
    float logits[5];
    memcpy(logits, FIVE, sizeof logits);
    const ht_sampling options =
        HT_INIT(ht_sampling, .temperature = 0.7f, .top_k = 3, .top_p = 0.9f, .repeat_penalty = 1.5f, .seed = 1);
    const int32_t history[] = {1, 3};
    ht_sampler *sampler = make(&options, 5);
    const uint64_t allocations = ht_alloc_count();
    for (int i = 0; i < 100; i++)
        ht_sampler_pick(sampler, logits, history, 2);
    assert_int_equal(ht_alloc_count(), allocations);
    assert_memory_equal(logits, FIVE, sizeof logits);
    ht_sampler_destroy(sampler);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greedy),         cmocka_unit_test(test_filters),
        cmocka_unit_test(test_repeat_penalty), cmocka_unit_test(test_seed),
        cmocka_unit_test(test_bad_options),    cmocka_unit_test(test_top_logprobs),
        cmocka_unit_test(test_wide_nucleus),   cmocka_unit_test(test_logits_are_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
