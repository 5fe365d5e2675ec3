/* Placing operators on a device with bounded memory, against every way there is. */
#include "unit/test.h"

#include "plan/fit.h"

#include <math.h>

enum { MOST = 12 };

static unsigned long long state = 1;

static unsigned pick(unsigned n) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    return (unsigned)(state >> 33) % n;
}

/* Seconds of one way, as bits; infinite: it does not fit. */
static double seconds_of(const ht_fit *fit, unsigned way) {
    double seconds = 0;
    uint64_t bytes = 0;
    for (size_t i = 0; i < fit->n; i++) {
        const bool here = way >> i & 1;
        seconds += here ? fit->ops[i].here : fit->ops[i].there;
        seconds += i && here != (way >> (i - 1) & 1) ? fit->change : 0;
        bytes += here ? fit->ops[i].bytes : 0;
    }
    return bytes <= fit->limit ? seconds : INFINITY;
}

static void compare(const ht_fit *fit) {
    bool here[MOST];
    double seconds, best = INFINITY, looser = INFINITY;
    unsigned way = 0;
    ht_fit within = *fit;
    for (unsigned w = 0; w < 1u << fit->n; w++)
        best = fmin(best, seconds_of(fit, w));
    /* bytes are counted in steps of a 2048th: with that much less for each operator the search must do as well */
    within.limit -= within.limit / 2048 * fit->n;
    for (unsigned w = 0; w < 1u << fit->n; w++)
        looser = fmin(looser, seconds_of(&within, w));
    assert_int_equal(ht_fit_solve(fit, here, &seconds, NULL), HT_OK);
    for (size_t i = 0; i < fit->n; i++)
        way |= (unsigned)here[i] << i;
    if (isinf(best)) {
        assert_true(isinf(seconds));
        return;
    }
    const double own = seconds_of(fit, way);
    assert_true(own >= best && own <= looser);
    assert_true(isinf(own) || fabs(own - seconds) < 1e-9);
}

static void test_against_every_way(void **unused) {
    for (int round = 0; round < 400; round++) {
        ht_fit_op ops[MOST];
        uint64_t all = 0;
        const size_t n = 1 + pick(MOST);
        for (size_t i = 0; i < n; i++) {
            ops[i] = (ht_fit_op){pick(9) ? 1 + pick(100) : INFINITY, pick(9) ? 1 + pick(100) : INFINITY,
                                 pick(3) ? pick(1000000) : 0};
            all += ops[i].bytes;
        }
        compare(&(ht_fit){
            .ops = ops, .n = n, .limit = pick(4) ? (uint64_t)((double)all * pick(100) / 100) : 0, .change = pick(30)});
    }
}

/* A mixture of experts with room for half: attention and dense matrices stay, as many experts as fit, too. */
static void test_experts_go(void **unused) {
    enum { LAYERS = 40 };
    ht_fit_op ops[LAYERS * 2];
    bool here[LAYERS * 2];
    double seconds;
    size_t experts = 0;
    for (size_t i = 0; i < LAYERS; i++) {
        ops[2 * i] = (ht_fit_op){1, 8, 10};
        ops[2 * i + 1] = (ht_fit_op){2, 4, 300};
    }
    const ht_fit fit = {.ops = ops, .n = LAYERS * 2, .limit = LAYERS * 155, .change = 0.1};
    assert_int_equal(ht_fit_solve(&fit, here, &seconds, NULL), HT_OK);
    for (size_t i = 0; i < LAYERS; i++) {
        assert_true(here[2 * i]);
        experts += here[2 * i + 1];
    }
    assert_int_equal(experts, (LAYERS * 155 - LAYERS * 10) / 300);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_against_every_way), cmocka_unit_test(test_experts_go)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
