/* AVX-512 (F, BW, VL, DQ, VNNI) primitives. This file's list is the contract for the other isa_*.c. */
#include "device/cpu/kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define VW 16
#define RV 2
#define TILE 12
#define PREFETCH_BYTES 2048
#define PICK
#define KERNELS ht_kernels_avx512
#define ISA_NAME "avx512-vnni"

typedef __m512 vf;
typedef __m512i vi;
#define PRIM static inline __attribute__((always_inline))

/* float32 */
PRIM vf vf_zero(void) {
    return _mm512_setzero_ps();
}
PRIM vf vf_bcast(float x) {
    return _mm512_set1_ps(x);
}
PRIM vf vf_load(const float *p) {
    return _mm512_loadu_ps(p);
}
PRIM void vf_store(float *p, vf v) {
    _mm512_storeu_ps(p, v);
}
PRIM vf vf_half(const uint16_t *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)p));
}
PRIM void vf_store_half(uint16_t *p, vf v) {
    _mm256_storeu_si256((void *)p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
PRIM vf vf_bf16(const uint16_t *p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)p)), 16));
}
PRIM vf vf_i8(const int8_t *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)p)));
}
PRIM vf vf_add(vf a, vf b) {
    return _mm512_add_ps(a, b);
}
PRIM vf vf_sub(vf a, vf b) {
    return _mm512_sub_ps(a, b);
}
PRIM vf vf_mul(vf a, vf b) {
    return _mm512_mul_ps(a, b);
}
PRIM vf vf_div(vf a, vf b) {
    return _mm512_div_ps(a, b);
}
PRIM vf vf_fma(vf a, vf b, vf c) {
    return _mm512_fmadd_ps(a, b, c);
}
PRIM vf vf_max(vf a, vf b) {
    return _mm512_max_ps(a, b);
}
PRIM vf vf_min(vf a, vf b) {
    return _mm512_min_ps(a, b);
}
PRIM vf vf_abs(vf a) {
    return _mm512_abs_ps(a);
}
/* Rows become columns. */
PRIM void vf_transpose(vf x[VW]) {
    vf y[VW];
    UNROLL
    for (int i = 0; i < VW; i += 2) {
        y[i] = _mm512_unpacklo_ps(x[i], x[i + 1]);
        y[i + 1] = _mm512_unpackhi_ps(x[i], x[i + 1]);
    }
    UNROLL
    for (int i = 0; i < VW; i += 4)
        for (int k = 0; k < 2; k++) { /* within 128 bits: columns 2k and 2k + 1 of four rows */
            const __m512d a = _mm512_castps_pd(y[i + k]), b = _mm512_castps_pd(y[i + k + 2]);
            x[i + 2 * k] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
            x[i + 2 * k + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
        }
    UNROLL
    for (int k = 0; k < 4; k++) { /* four by four of these quarters */
        y[k] = _mm512_shuffle_f32x4(x[k], x[k + 4], 0x88);
        y[k + 4] = _mm512_shuffle_f32x4(x[k], x[k + 4], 0xDD);
        y[k + 8] = _mm512_shuffle_f32x4(x[k + 8], x[k + 12], 0x88);
        y[k + 12] = _mm512_shuffle_f32x4(x[k + 8], x[k + 12], 0xDD);
    }
    UNROLL
    for (int k = 0; k < 8; k++) {
        x[k] = _mm512_shuffle_f32x4(y[k], y[k + 8], 0x88);
        x[k + 8] = _mm512_shuffle_f32x4(y[k], y[k + 8], 0xDD);
    }
}
/* Lane i: table[the low four bits of lane i]. */
PRIM vf vf_pick(vi at, vf table) {
    return _mm512_permutexvar_ps(at, table);
}
PRIM float vf_hsum(vf a) {
    return _mm512_reduce_add_ps(a);
}
PRIM float vf_hmax(vf a) {
    return _mm512_reduce_max_ps(a);
}
PRIM vf vf_from_vi(vi a) {
    return _mm512_cvtepi32_ps(a);
}
PRIM vi vf_bits(vf a) {
    return _mm512_castps_si512(a);
}
/* a * 2^n, n the low bits of `n` as an integer */
PRIM vf vf_scale2(vf a, vi n) {
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a), _mm512_slli_epi32(n, 23)));
}
/* e where x > -infinity, else 0 */
PRIM vf vf_exp_masked(vf e, vf x) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, _mm512_set1_ps(-3e38f), _CMP_GT_OQ), e);
}

/* int32, and bytes within lanes */
PRIM vi vi_load(const void *p) {
    return _mm512_loadu_si512(p);
}
PRIM vi vi_bcast(int32_t x) {
    return _mm512_set1_epi32(x);
}
PRIM vi vi_bcast_4(const int8_t *p) {
    int32_t x;
    __builtin_memcpy(&x, p, 4);
    return _mm512_set1_epi32(x);
}
PRIM vi vi_and(vi a, vi b) {
    return _mm512_and_si512(a, b);
}
PRIM vi vi_or(vi a, vi b) {
    return _mm512_or_si512(a, b);
}
/* Each byte, 0 to 15, becomes the table's. */
PRIM vi vi_pick(vi a, const uint8_t table[16]) {
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128((const void *)table)), a);
}
PRIM vi vi_add(vi a, vi b) {
    return _mm512_add_epi32(a, b);
}
PRIM vi vi_not(vi a) {
    return _mm512_xor_si512(a, _mm512_set1_epi32(-1));
}
PRIM void vi_store(void *p, vi a) {
    _mm512_storeu_si512(p, a);
}
PRIM vi vi_u8(const uint8_t *p) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)p));
}
/* 32 bits from entry `index` on: the entry in the low ones */
PRIM vi vi_look(const uint16_t *table, vi index) {
    return _mm512_i32gather_epi32(index, table, 2);
}
PRIM vi vi_srl(vi a, int n) {
    return _mm512_srli_epi32(a, (unsigned)n);
}
PRIM vi vi_sll(vi a, int n) {
    return _mm512_slli_epi32(a, (unsigned)n);
}
PRIM vi vi_round(vf a) {
    return _mm512_cvtps_epi32(a);
} /* to nearest even */
PRIM void vi_store_i8(int8_t *p, vi a) {
    _mm_storeu_si128((void *)p, _mm512_cvtepi32_epi8(a));
}
PRIM int32_t vi_hsum(vi a) {
    return _mm512_reduce_add_epi32(a);
}
/* acc + sum of four products, w unsigned bytes (at most 63 unless wide), x signed bytes in -127..127 */
PRIM vi vi_dot(vi acc, vi w, vi x, bool wide) {
    return _mm512_dpbusd_epi32(acc, w, x);
}

#include "device/cpu/kernels_impl.h"
#endif
