/* Two equal sessions on one engine: what each gets of it.
 *
 *   fair MODEL [SECONDS] [DEVICES]    tokens of each, the difference, passes, and the longest gap between two tokens of one
 *                                     session in passes of its own
 *
 * Build: see bench/README.md.
 */
#include <hetero.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { MOST = 100000 };

typedef struct speaker {
    ht_session *session;
    atomic_bool *over;
    size_t n;
    double at[MOST]; /* seconds, of each token */
    ht_error error;
} speaker;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *speak(void *argument) {
    speaker *s = argument;
    const float *logits;
    const int32_t first = 1;
    while (!atomic_load(s->over) && s->n < MOST) {
        ht_status status = s->n % 256 ? ht_session_decode(s->session, 7, &logits, &s->error)
                                      : ht_session_prefill(s->session, &first, 1, &logits, NULL, &s->error);
        if (status)
            break;
        s->at[s->n++] = now();
    }
    return NULL;
}

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    static speaker speakers[2];
    static double gaps[MOST];
    ht_error error = {HT_OK, "usage: fair MODEL [SECONDS] [DEVICES]"};
    const ht_engine_options options = HT_INIT(ht_engine_options, .devices = argc > 3 ? argv[3] : "cpu", .context = 512);
    ht_model *model = NULL;
    ht_engine *engine = NULL;
    pthread_t threads[2];
    atomic_bool over = false;
    const double seconds = argc > 2 ? atof(argv[2]) : 4;
    if (argc < 2 || ht_model_open(argv[1], &model, &error) || ht_engine_create(model, &options, &engine, &error) ||
        ht_session_create(engine, &speakers[0].session, &error) ||
        ht_session_create(engine, &speakers[1].session, &error)) {
        fprintf(stderr, "%s\n", error.text);
        return 1;
    }
    for (int i = 0; i < 2; i++) {
        speakers[i].over = &over;
        pthread_create(&threads[i], NULL, speak, &speakers[i]);
    }
    const double start = now();
    while (now() - start < seconds)
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    atomic_store(&over, true);
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
        const speaker *s = &speakers[i];
        if (s->error.status)
            fprintf(stderr, "%s\n", s->error.text);
        for (size_t k = 1; k < s->n; k++)
            gaps[k - 1] = s->at[k] - s->at[k - 1];
        qsort(gaps, s->n ? s->n - 1 : 0, sizeof *gaps, by_value);
        printf("session %d: %zu tokens; from token to token: median %.2f ms, 99%% %.2f ms, longest %.2f ms\n", i, s->n,
               s->n > 2 ? gaps[s->n / 2] * 1e3 : 0, s->n > 2 ? gaps[(s->n - 2) * 99 / 100] * 1e3 : 0,
               s->n > 2 ? gaps[s->n - 2] * 1e3 : 0);
        ht_session_destroy(s->session);
    }
    ht_engine_destroy(engine);
    ht_model_close(model);
}
