/* An answer beside a long prompt, in one batch: how long each token of it is waited for.
 *
 *   gap MODEL [PROMPT-TOKENS] [DEVICES] [SECONDS]    tokens of the answer while the prompt is computed, the median and the longest
 *                                                    time between two of them, and that over the time that passes may take
 *
 * Build: see bench/README.md.
 */
#include <hetero.h>

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { MOST = 100000 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Steps until request `until` ends, or for `tokens` of the answer if that is not 0; times between them go to gaps. */
static ht_status follow(ht_batch *batch, uint64_t answer, uint64_t until, size_t tokens, double *gaps, size_t *n,
                        ht_error *error) {
    double last = now();
    for (bool over = false; !over && *n < MOST;) {
        const ht_batch_event *events;
        size_t n_events;
        ht_status status = ht_batch_step(batch, &events, &n_events, error);
        if (status)
            return status;
        const double at = now();
        for (size_t i = 0; i < n_events; i++) {
            if (events[i].request == answer && events[i].piece.id >= 0) {
                gaps[(*n)++] = at - last;
                last = at;
            }
            over |= events[i].request == until && (events[i].piece.id >= 0 || events[i].ended);
        }
        over |= tokens && *n >= tokens;
    }
    return HT_OK;
}

int main(int argc, char **argv) {
    static double gaps[MOST];
    ht_error error = {HT_OK, "usage: gap MODEL [PROMPT-TOKENS] [DEVICES] [SECONDS]"};
    const size_t prompt = argc > 2 ? strtoul(argv[2], NULL, 10) : 4000;
    const double seconds = argc > 4 ? atof(argv[4]) : 0.25;
    const ht_engine_options options =
        HT_INIT(ht_engine_options, .devices = argc > 3 ? argv[3] : "cpu", .context = (int)prompt + 4096);
    const ht_batch_options budget = HT_INIT(ht_batch_options, .pass_seconds = seconds);
    const ht_generate_options endless = HT_INIT(ht_generate_options, .max_tokens = 3000),
                              one = HT_INIT(ht_generate_options, .max_tokens = 1);
    ht_model *model = NULL;
    ht_engine *engine = NULL;
    ht_batch *batch = NULL;
    uint64_t answer, added;
    size_t n = 0;
    int32_t *ids = malloc((prompt + 1) * sizeof *ids);
    for (size_t i = 0; ids && i < prompt + 1; i++)
        ids[i] = (int32_t)(100 + i * 7919 % 4000);
    if (!ids || argc < 2 || ht_model_open(argv[1], &model, &error) ||
        ht_engine_create(model, &options, &engine, &error) || ht_batch_create(engine, &budget, &batch, &error) ||
        ht_batch_add(batch, ids, 16, &endless, &answer, &error) || follow(batch, answer, 0, 32, gaps, &n, &error)) {
        fprintf(stderr, "%s\n", error.text);
        return 1;
    }
    n = 0;
    const double start = now();
    if (ht_batch_add(batch, ids + 1, prompt, &one, &added, &error) ||
        follow(batch, answer, added, 0, gaps, &n, &error)) {
        fprintf(stderr, "%s\n", error.text);
        return 1;
    }
    const double took = now() - start;
    qsort(gaps, n, sizeof *gaps, by_value);
    if (n)
        printf("%zu tokens of a prompt in %.2f s (%.0f tokens/s), beside them %zu of an answer: from token to token "
               "median %.0f ms, "
               "longest %.0f ms, %.2f of the %.0f ms that passes may take\n",
               prompt, took, (double)prompt / took, n, gaps[n / 2] * 1e3, gaps[n - 1] * 1e3, gaps[n - 1] / seconds,
               seconds * 1e3);
    ht_batch_destroy(batch);
    ht_engine_destroy(engine);
    ht_model_close(model);
    free(ids);
}
