/* Tries of the search for scales with vectors of sixteen (tries.h). */
#if defined(__AVX512F__)
#include "quant/tries.h"

#include <immintrin.h>
#include <string.h>

#define LANES 16
#define FUNCTION ht_tries_avx512
#define vf_max _mm512_max_ps
#define vf_min _mm512_min_ps
#include "quant/tries_impl.h"
#endif
