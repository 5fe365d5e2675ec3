/* Tries of the search for scales with vectors of eight (tries.h). */
#if defined(__AVX2__)
#include "quant/tries.h"

#include <immintrin.h>
#include <string.h>

#define LANES 8
#define FUNCTION ht_tries_avx2
#define vf_max _mm256_max_ps
#define vf_min _mm256_min_ps
#include "quant/tries_impl.h"
#endif
