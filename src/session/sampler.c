/* From logits to a token, and to log-probabilities.
 *
 * The chain, in the order users of llama.cpp expect: repeat penalty, top-k, top-p, min-p, temperature, draw. Top-p and
 * min-p look at probabilities at temperature 1; top-p at those that top-k left, renormalised.
 *
 * Vocabularies are wide (262,144 for Gemma 3) and most of an answer's tokens need a few dozen candidates: nothing is
 * ever sorted but the best k, which a bounded heap picks in one pass over the logits.
 */
#include "base/os.h"
#include "session/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct ht_sampler {
    ht_sampling options;
    size_t vocabulary;
    size_t window;                /* of the repeat penalty; 0: off */
    uint64_t state[4];            /* of the generator */
    float *penalised;             /* [vocabulary]; NULL without repeat penalty */
    ht_token_logprob *candidates; /* [vocabulary or top_k]; NULL if greedy. `logprob` holds a logit, later a weight */
};

/* ---- random numbers: xoshiro256** seeded by splitmix64 (Blackman and Vigna, 2018) ------------------------------- */

static uint64_t splitmix64(uint64_t *state) {
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static uint64_t rotate_left(uint64_t x, int bits) {
    return (x << bits) | (x >> (64 - bits));
}

static uint64_t next_random(uint64_t state[4]) {
    const uint64_t result = rotate_left(state[1] * 5, 7) * 9;
    const uint64_t shifted = state[1] << 17;
    state[2] ^= state[0];
    state[3] ^= state[1];
    state[1] ^= state[2];
    state[0] ^= state[3];
    state[2] ^= shifted;
    state[3] = rotate_left(state[3], 45);
    return result;
}

static double next_unit(uint64_t state[4]) { /* in [0, 1), 53 bits */
    return (double)(next_random(state) >> 11) * 0x1p-53;
}

static void seed_random(uint64_t state[4], uint64_t seed) {
    for (size_t i = 0; i < 4; i++)
        state[i] = splitmix64(&seed);
}

/* ---- the best of many ------------------------------------------------------------------------------------------- */

static bool is_worse(ht_token_logprob a, ht_token_logprob b) {
    return a.logprob < b.logprob || (a.logprob == b.logprob && a.id > b.id);
}

/* Restores a heap whose root is its worst entry, after heap[i] has changed for the better. */
static void sift_down(ht_token_logprob *heap, size_t n, size_t i) {
    const ht_token_logprob moved = heap[i];
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && is_worse(heap[child + 1], heap[child]))
            child++;
        if (!is_worse(heap[child], moved))
            break;
        heap[i] = heap[child];
    }
    heap[i] = moved;
}

/* A NaN is no candidate: it must not win, and must not break comparisons. */
static float usable(float logit) {
    return isnan(logit) ? -INFINITY : logit;
}

/* best[0..k): the k largest of values[0..n), k <= n, largest first, equal ones by id. */
static void select_best(const float *values, size_t n, size_t k, ht_token_logprob *best) {
    if (k == 0)
        return;
    for (size_t i = 0; i < k; i++)
        best[i] = (ht_token_logprob){(int32_t)i, usable(values[i])};
    for (size_t i = k / 2; i-- > 0;)
        sift_down(best, k, i);
    for (size_t i = k; i < n; i++) {
        if (!(values[i] > best[0].logprob))
            continue; /* an equal one has the higher id: worse */
        best[0] = (ht_token_logprob){(int32_t)i, values[i]};
        sift_down(best, k, 0);
    }
    for (size_t left = k; left > 1; left--) { /* the worst of what is left goes to its end */
        const ht_token_logprob worst = best[0];
        best[0] = best[left - 1];
        best[left - 1] = worst;
        sift_down(best, left - 1, 0);
    }
}

size_t ht_best_index(const float *values, size_t n) {
    size_t best = 0;
    while (best < n && isnan(values[best]))
        best++;
    if (best == n)
        return 0;
    for (size_t i = best + 1; i < n; i++)
        if (values[i] > values[best])
            best = i;
    return best;
}

double ht_log_sum_exp(const float *logits, size_t vocabulary) {
    const double most = logits[ht_best_index(logits, vocabulary)];
    if (!isfinite(most))
        return most;
    double sum = 0;
    for (size_t i = 0; i < vocabulary; i++)
        sum += exp(logits[i] - most);
    return most + log(sum);
}

void ht_top_logprobs(const float *logits, size_t vocabulary, size_t n_top, ht_token_logprob *top) {
    const double log_sum = ht_log_sum_exp(logits, vocabulary);
    select_best(logits, vocabulary, n_top, top);
    for (size_t i = 0; i < n_top; i++)
        top[i].logprob = (float)(top[i].logprob - log_sum);
}

/* ---- creation --------------------------------------------------------------------------------------------------- */

static ht_status check_options(const ht_sampling *options, ht_error *error) {
    const struct {
        const char *name;
        double value, least, most;
    } rules[] = {
        {"temperature", options->temperature, -HUGE_VAL, 1e6},
        {"top_k", options->top_k, 0, INT32_MAX},
        {"top_p", options->top_p, 0, 1},
        {"min_p", options->min_p, 0, 1},
        {"repeat_penalty", options->repeat_penalty, 0, 1e6},
        {"repeat_window", options->repeat_window, 0, INT32_MAX},
    };
    for (size_t i = 0; i < HT_COUNT(rules); i++) {
        if (rules[i].value >= rules[i].least && rules[i].value <= rules[i].most)
            continue; /* false for NaN */
        if (rules[i].most == 1)
            return ht_fail(error, HT_ERROR_ARGUMENT, "%s: %g is not between 0 and 1", rules[i].name, rules[i].value);
        return ht_fail(error, HT_ERROR_ARGUMENT, "%s: %g is %s", rules[i].name, rules[i].value,
                       rules[i].value < 0 ? "negative" : "not a usable number");
    }
    return HT_OK;
}

static bool limits_count(const ht_sampler *sampler) {
    return sampler->options.top_k > 0 && (size_t)sampler->options.top_k < sampler->vocabulary;
}

ht_status ht_sampler_create(const ht_sampling *given, size_t vocabulary, ht_sampler **sampler, ht_error *error) {
    ht_sampling read;
    const ht_sampling *options = &read;
    ht_status status = ht_struct_read(&read, sizeof read, given, "ht_sampling", error);
    if (status == HT_OK)
        status = check_options(options, error);
    if (status != HT_OK)
        return status;
    if (vocabulary == 0)
        return ht_fail(error, HT_ERROR_ARGUMENT, "vocabulary: there is no token to choose from");
    ht_sampler *made = NULL;
    status = ht_alloc((void **)&made, 1, sizeof *made, "sampler", error);
    if (status != HT_OK)
        return status;
    made->options = *options;
    made->vocabulary = vocabulary;
    if (options->random_seed && !ht_os_random(&made->options.seed, sizeof made->options.seed))
        made->options.seed = ht_nanoseconds();
    seed_random(made->state, made->options.seed);
    if (options->repeat_penalty != 0 && options->repeat_penalty != 1) {
        made->window = options->repeat_window > 0 ? (size_t)options->repeat_window : 64;
        status = ht_alloc((void **)&made->penalised, vocabulary, sizeof *made->penalised, "repeat penalty", error);
    }
    if (status == HT_OK && options->temperature > 0)
        status = ht_alloc((void **)&made->candidates, limits_count(made) ? (size_t)options->top_k : vocabulary,
                          sizeof *made->candidates, "sampler's candidates", error);
    if (status != HT_OK) {
        ht_sampler_destroy(made);
        return status;
    }
    *sampler = made;
    return HT_OK;
}

uint64_t ht_sampler_seed(const ht_sampler *sampler) {
    return sampler->options.seed;
}

size_t ht_sampler_vocabulary(const ht_sampler *sampler) {
    return sampler->vocabulary;
}

ht_sampler_place ht_sampler_tell(const ht_sampler *sampler) {
    ht_sampler_place place = {.seed = sampler->options.seed};
    memcpy(place.state, sampler->state, sizeof place.state);
    return place;
}

void ht_sampler_seek(ht_sampler *sampler, const ht_sampler_place *place) {
    memcpy(sampler->state, place->state, sizeof sampler->state);
    sampler->options.seed = place->seed;
}

void ht_sampler_destroy(ht_sampler *sampler) {
    if (sampler == NULL)
        return;
    free(sampler->penalised);
    free(sampler->candidates);
    free(sampler);
}

/* ---- the chain -------------------------------------------------------------------------------------------------- */

static const float *penalise(ht_sampler *sampler, const float *logits, const int32_t *history, size_t n_history) {
    if (sampler->penalised == NULL)
        return logits;
    memcpy(sampler->penalised, logits, sampler->vocabulary * sizeof *logits);
    const float penalty = sampler->options.repeat_penalty;
    for (size_t i = n_history - ht_min_size(n_history, sampler->window); i < n_history; i++) {
        const int32_t id = history[i];
        if (id < 0 || (size_t)id >= sampler->vocabulary)
            continue;
        /* From the original, not in place: a token seen twice is penalised once. */
        sampler->penalised[id] = logits[id] > 0 ? logits[id] / penalty : logits[id] * penalty;
    }
    return sampler->penalised;
}

/* How many of candidates[0..n), best first, reach `target` together; 0 if all of them do not. */
static size_t nucleus(const ht_token_logprob *candidates, size_t n, float most, double target) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += expf(candidates[i].logprob - most);
        if (sum >= target)
            return i + 1;
    }
    return 0;
}

/* Top-p over the whole vocabulary. The nucleus is small most of the time, so the best 64 are tried first, then eight
 * times as many, ...: sorting everything only when the distribution is that flat. */
static size_t select_nucleus(const ht_sampler *sampler, const float *values, float most) {
    double total = 0;
    for (size_t i = 0; i < sampler->vocabulary; i++)
        total += expf(usable(values[i]) - most);
    for (size_t k = 64;; k *= 8) {
        k = ht_min_size(k, sampler->vocabulary);
        select_best(values, sampler->vocabulary, k, sampler->candidates);
        const size_t n = nucleus(sampler->candidates, k, most, sampler->options.top_p * total);
        if (n > 0)
            return n;
        if (k == sampler->vocabulary)
            return k; /* rounding left the sum just short of its target */
    }
}

/* Top-k and top-p: fills sampler->candidates and returns how many there are. */
static size_t select_candidates(const ht_sampler *sampler, const float *values, float most) {
    ht_token_logprob *candidates = sampler->candidates;
    const bool wants_nucleus = sampler->options.top_p > 0 && sampler->options.top_p < 1;
    if (limits_count(sampler)) {
        const size_t k = (size_t)sampler->options.top_k;
        select_best(values, sampler->vocabulary, k, candidates);
        if (!wants_nucleus)
            return k;
        double total = 0;
        for (size_t i = 0; i < k; i++)
            total += expf(candidates[i].logprob - most);
        const size_t n = nucleus(candidates, k, most, sampler->options.top_p * total);
        return n > 0 ? n : k;
    }
    if (wants_nucleus)
        return select_nucleus(sampler, values, most);
    for (size_t i = 0; i < sampler->vocabulary; i++)
        candidates[i] = (ht_token_logprob){(int32_t)i, usable(values[i])};
    return sampler->vocabulary;
}

/* Keeps candidates at least min_p as probable as the best one, which is therefore always kept. */
static size_t keep_probable(const ht_sampler *sampler, size_t n, float most) {
    if (sampler->options.min_p <= 0)
        return n;
    const float least = most + logf(sampler->options.min_p);
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (sampler->candidates[i].logprob >= least)
            sampler->candidates[kept++] = sampler->candidates[i];
    return kept;
}

static int32_t draw(ht_sampler *sampler, size_t n, float most) {
    ht_token_logprob *candidates = sampler->candidates;
    double total = 0;
    for (size_t i = 0; i < n; i++) {
        candidates[i].logprob = expf((candidates[i].logprob - most) / sampler->options.temperature);
        total += candidates[i].logprob;
    }
    double left = next_unit(sampler->state) * total;
    int32_t last = candidates[0].id; /* what rounding at the very end falls back to */
    for (size_t i = 0; i < n; i++) {
        if (candidates[i].logprob <= 0)
            continue;
        last = candidates[i].id;
        left -= candidates[i].logprob;
        if (left < 0)
            break;
    }
    return last;
}

bool ht_sampler_is_greedy(const ht_sampler *sampler) {
    return sampler->candidates == NULL && sampler->penalised == NULL;
}

int32_t ht_sampler_pick(ht_sampler *sampler, const float *logits, const int32_t *history, size_t n_history) {
    const float *values = penalise(sampler, logits, history, n_history);
    const size_t best = ht_best_index(values, sampler->vocabulary);
    const float most = values[best];
    /* Nothing can be drawn from infinities (or from NaNs only): the best there is, as if greedy. */
    if (sampler->candidates == NULL || !isfinite(most))
        return (int32_t)best;
    size_t n = select_candidates(sampler, values, most);
    n = keep_probable(sampler, n, most);
    return draw(sampler, n, most);
}
