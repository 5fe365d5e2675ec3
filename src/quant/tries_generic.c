/* Tries of the search for scales with vectors of four, which every 64-bit processor has (tries.h). */
#include "quant/tries.h"

#include <string.h>
#if defined(__SSE__)
#include <immintrin.h>
#endif

#define LANES 4
#define FUNCTION ht_tries_generic
typedef float vf4 __attribute__((vector_size(16)));

static inline vf4 vf_max(vf4 a, vf4 b) {
#if defined(__SSE__)
    return _mm_max_ps(a, b);
#else
    for (int i = 0; i < LANES; i++)
        b[i] = a[i] > b[i] ? a[i] : b[i];
    return b;
#endif
}

static inline vf4 vf_min(vf4 a, vf4 b) {
#if defined(__SSE__)
    return _mm_min_ps(a, b);
#else
    for (int i = 0; i < LANES; i++)
        b[i] = a[i] < b[i] ? a[i] : b[i];
    return b;
#endif
}

#include "quant/tries_impl.h"
