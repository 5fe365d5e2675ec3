/* AVX2 + FMA + F16C primitives; the contract is in isa_avx512.c. */
#include "device/cpu/kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define VW 8
#define RV 1
#define TILE 6
#define PREFETCH_BYTES 2048
#define SUMS 8
#define FAST_FEW HT_FEW
#define KERNELS ht_kernels_avx2
#define ISA_NAME "avx2"

typedef __m256 vf;
typedef __m256i vi;
#define PRIM static inline __attribute__((always_inline))

PRIM vf vf_zero(void) {
    return _mm256_setzero_ps();
}
PRIM vf vf_bcast(float x) {
    return _mm256_set1_ps(x);
}
PRIM vf vf_load(const float *p) {
    return _mm256_loadu_ps(p);
}
PRIM void vf_store(float *p, vf v) {
    _mm256_storeu_ps(p, v);
}
PRIM vf vf_half(const uint16_t *p) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const void *)p));
}
PRIM void vf_store_half(uint16_t *p, vf v) {
    _mm_storeu_si128((void *)p, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
PRIM vf vf_bf16(const uint16_t *p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)p)), 16));
}
PRIM vf vf_i8(const int8_t *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)p)));
}
PRIM vf vf_add(vf a, vf b) {
    return _mm256_add_ps(a, b);
}
PRIM vf vf_sub(vf a, vf b) {
    return _mm256_sub_ps(a, b);
}
PRIM vf vf_mul(vf a, vf b) {
    return _mm256_mul_ps(a, b);
}
PRIM vf vf_div(vf a, vf b) {
    return _mm256_div_ps(a, b);
}
PRIM vf vf_fma(vf a, vf b, vf c) {
    return _mm256_fmadd_ps(a, b, c);
}
PRIM vf vf_max(vf a, vf b) {
    return _mm256_max_ps(a, b);
}
PRIM vf vf_min(vf a, vf b) {
    return _mm256_min_ps(a, b);
}
PRIM vf vf_abs(vf a) {
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a);
}
PRIM void vf_transpose(vf x[VW]) {
    vf y[VW];
    UNROLL
    for (int i = 0; i < VW; i += 2) {
        y[i] = _mm256_unpacklo_ps(x[i], x[i + 1]);
        y[i + 1] = _mm256_unpackhi_ps(x[i], x[i + 1]);
    }
    UNROLL
    for (int i = 0; i < VW; i += 4)
        for (int k = 0; k < 2; k++) { /* within 128 bits: columns 2k and 2k + 1 of four rows */
            x[i + 2 * k] = _mm256_shuffle_ps(y[i + k], y[i + k + 2], 0x44);
            x[i + 2 * k + 1] = _mm256_shuffle_ps(y[i + k], y[i + k + 2], 0xEE);
        }
    UNROLL
    for (int k = 0; k < 4; k++) {
        const vf low = x[k], high = x[k + 4];
        x[k] = _mm256_permute2f128_ps(low, high, 0x20);
        x[k + 4] = _mm256_permute2f128_ps(low, high, 0x31);
    }
}
PRIM float vf_hsum(vf a) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
PRIM float vf_hmax(vf a) {
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
PRIM vf vf_from_vi(vi a) {
    return _mm256_cvtepi32_ps(a);
}
PRIM vi vf_bits(vf a) {
    return _mm256_castps_si256(a);
}
PRIM vf vf_scale2(vf a, vi n) {
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), _mm256_slli_epi32(n, 23)));
}
PRIM vf vf_exp_masked(vf e, vf x) {
    return _mm256_and_ps(e, _mm256_cmp_ps(x, _mm256_set1_ps(-3e38f), _CMP_GT_OQ));
}

PRIM vi vi_load(const void *p) {
    return _mm256_loadu_si256(p);
}
PRIM vi vi_bcast(int32_t x) {
    return _mm256_set1_epi32(x);
}
PRIM vi vi_bcast_4(const int8_t *p) {
    int32_t x;
    __builtin_memcpy(&x, p, 4);
    return _mm256_set1_epi32(x);
}
PRIM vi vi_and(vi a, vi b) {
    return _mm256_and_si256(a, b);
}
PRIM vi vi_or(vi a, vi b) {
    return _mm256_or_si256(a, b);
}
PRIM vi vi_pick(vi a, const uint8_t table[16]) {
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)table)), a);
}
PRIM vi vi_add(vi a, vi b) {
    return _mm256_add_epi32(a, b);
}
PRIM vi vi_not(vi a) {
    return _mm256_xor_si256(a, _mm256_set1_epi32(-1));
}
PRIM void vi_store(void *p, vi a) {
    _mm256_storeu_si256(p, a);
}
PRIM vi vi_u8(const uint8_t *p) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)p));
}
PRIM vi vi_look(const uint16_t *table, vi index) {
    return _mm256_i32gather_epi32((const int *)(const void *)table, index, 2);
}
PRIM vi vi_srl(vi a, int n) {
    return _mm256_srli_epi32(a, n);
}
PRIM vi vi_sll(vi a, int n) {
    return _mm256_slli_epi32(a, n);
}
PRIM vi vi_round(vf a) {
    return _mm256_cvtps_epi32(a);
}
PRIM void vi_store_i8(int8_t *p, vi a) {
    __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    _mm_storel_epi64((void *)p, _mm_packs_epi16(words, words));
}
PRIM int32_t vi_hsum(vi a) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4E));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xB1)));
}

/* Products of two neighbours are added in 16 bits, where 32767 is the most: sums of eight quads of a 4-bit code (30480)
 * and of two of a 6-bit code (32004) are, too, before they become 32 bits. Those of an 8-bit code do not fit: even and
 * odd bytes apart. */
#define DOT_QUADS
PRIM void dot_quads(int vectors, vi *acc, vi (*quads)[8], const int8_t *x, int from, int to, int bits) {
    const int run = bits == 4 ? 8 : 2;
    const vi one = _mm256_set1_epi16(1);
    for (int r = 0; r < vectors; r++) {
        vi sum = _mm256_setzero_si256();
        for (int j = from; j < to; j++) {
            const vi w = quads[r][j], quad = vi_bcast_4(x + 4 * j);
            if (bits == 8) {
                const vi even = _mm256_madd_epi16(_mm256_and_si256(w, _mm256_set1_epi16(0xFF)),
                                                  _mm256_srai_epi16(_mm256_slli_epi16(quad, 8), 8)),
                         odd = _mm256_madd_epi16(_mm256_srli_epi16(w, 8), _mm256_srai_epi16(quad, 8));
                acc[r] = _mm256_add_epi32(acc[r], _mm256_add_epi32(even, odd));
                continue;
            }
            const vi two = _mm256_maddubs_epi16(w, quad);
            sum = (j - from) % run ? _mm256_add_epi16(sum, two) : two;
            if ((j - from) % run == run - 1 || j == to - 1)
                acc[r] = _mm256_add_epi32(acc[r], _mm256_madd_epi16(sum, one));
        }
    }
}

#include "device/cpu/kernels_impl.h"
#endif
