/* What this processor can do at most: int8 and fp32 arithmetic in registers, and reading memory. The denominators of the
 * shares in docs/numbers.md.
 *
 *   cc -O2 -march=native -pthread bench/limits.c -o limits && ./limits [THREADS]
 *
 * Needs AVX-512 VNNI. Prints the best of five runs; an operation is a multiply or an add.
 */
#include <immintrin.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CHAINS = 12, ROUNDS = 20000000, BYTES = 512 << 20, MAX_THREADS = 64 };

typedef struct job {
    int kind; /* 0: int8, 1: fp32, 2: reading */
    const uint8_t *memory;
    double seconds;
    int sink;
} job;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *run(void *argument) {
    job *j = argument;
    const double start = now();
    if (j->kind == 0) {
        __m512i sum[CHAINS], x = _mm512_set1_epi8(3);
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++)
            sum[i] = _mm512_set1_epi32(i);
        for (int r = 0; r < ROUNDS; r++)
#pragma GCC unroll 12 /* sums in registers */
            for (int i = 0; i < CHAINS; i++) {
                sum[i] = _mm512_dpbusd_epi32(sum[i], x, x);
                __asm__ volatile("" : "+v"(sum[i]));
            }
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++)
            j->sink += _mm512_reduce_add_epi32(sum[i]);
    } else if (j->kind == 1) {
        __m512 sum[CHAINS], x = _mm512_set1_ps(0.5f);
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++)
            sum[i] = _mm512_set1_ps((float)i);
        for (int r = 0; r < ROUNDS; r++)
#pragma GCC unroll 12 /* sums in registers */
            for (int i = 0; i < CHAINS; i++) {
                sum[i] = _mm512_fmadd_ps(sum[i], x, x);
                __asm__ volatile("" : "+v"(sum[i]));
            }
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++)
            j->sink += (int)_mm512_reduce_add_ps(sum[i]);
    } else {
        __m512i sum[8] = {0};
        for (size_t i = 0; i < BYTES; i += 8 * 64)
            for (int k = 0; k < 8; k++) {
                _mm_prefetch((const char *)j->memory + i + 4096 + k * 64, _MM_HINT_T0);
                sum[k] = _mm512_add_epi32(sum[k], _mm512_load_si512(j->memory + i + k * 64));
            }
        for (int k = 0; k < 8; k++)
            j->sink += _mm512_reduce_add_epi32(sum[k]);
    }
    j->seconds = now() - start;
    return NULL;
}

int main(int argc, char **argv) {
    static const char *const names[] = {"int8 GOP/s", "fp32 GFLOP/s", "memory GB/s"};
    static const double work[] = {128.0 * CHAINS * ROUNDS, 32.0 * CHAINS * ROUNDS, BYTES};
    const int threads = argc > 1 ? atoi(argv[1]) : 1;
    if (threads < 1 || threads > MAX_THREADS)
        return 2;
    job jobs[MAX_THREADS];
    uint8_t *memory[MAX_THREADS];
    for (int t = 0; t < threads; t++) {
        memory[t] = aligned_alloc(2 << 20, BYTES + (2 << 20));
        memset(memory[t], 1, BYTES + (2 << 20));
    }
    for (int kind = 0; kind < 3; kind++) {
        double best = 0;
        for (int round = 0; round < 5; round++) {
            pthread_t ids[MAX_THREADS];
            const double start = now();
            for (int t = 0; t < threads; t++) {
                jobs[t] = (job){kind, memory[t], 0, 0};
                pthread_create(&ids[t], NULL, run, &jobs[t]);
            }
            for (int t = 0; t < threads; t++)
                pthread_join(ids[t], NULL);
            const double rate = work[kind] * threads / (now() - start) / 1e9;
            best = rate > best ? rate : best;
        }
        printf("%d threads: %s %.1f\n", threads, names[kind], best);
    }
    return 0;
}
