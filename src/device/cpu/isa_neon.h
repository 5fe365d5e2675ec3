/* NEON primitives of armv8-a, which the three isa_neon*.c share: they differ in dot_quads only. The contract is in
 * isa_avx512.c. Two vectors of four rows a pass: their codes of a step fill 16 of the 32 registers in fast_many, and 24
 * accumulators, two vectors of weights and 12 tokens' values fill 29 in panel_product. */
#ifndef HT_CPU_ISA_NEON_H
#define HT_CPU_ISA_NEON_H

#include "device/cpu/kernels.h"

#include <arm_neon.h>

#define VW 4
#define RV 2
#define TILE 12
#define PREFETCH_BYTES 1024

typedef float32x4_t vf;
typedef int32x4_t vi;
#define PRIM static inline __attribute__((always_inline))

PRIM vf vf_zero(void) {
    return vdupq_n_f32(0);
}
PRIM vf vf_bcast(float x) {
    return vdupq_n_f32(x);
}
PRIM vf vf_load(const float *p) {
    return vld1q_f32(p);
}
PRIM void vf_store(float *p, vf v) {
    vst1q_f32(p, v);
}
PRIM vf vf_half(const uint16_t *p) {
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}
PRIM void vf_store_half(uint16_t *p, vf v) {
    vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(v)));
}
PRIM vf vf_bf16(const uint16_t *p) {
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16));
}
PRIM vf vf_i8(const int8_t *p) {
    uint32_t four;
    __builtin_memcpy(&four, p, 4);
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u32(vdup_n_u32(four))))));
}
PRIM vf vf_add(vf a, vf b) {
    return vaddq_f32(a, b);
}
PRIM vf vf_sub(vf a, vf b) {
    return vsubq_f32(a, b);
}
PRIM vf vf_mul(vf a, vf b) {
    return vmulq_f32(a, b);
}
PRIM vf vf_div(vf a, vf b) {
    return vdivq_f32(a, b);
}
PRIM vf vf_fma(vf a, vf b, vf c) {
    return vfmaq_f32(c, a, b);
}
PRIM vf vf_max(vf a, vf b) {
    return vmaxq_f32(a, b);
}
PRIM vf vf_min(vf a, vf b) {
    return vminq_f32(a, b);
}
PRIM vf vf_abs(vf a) {
    return vabsq_f32(a);
}
PRIM void vf_transpose(vf x[VW]) {
    const float64x2_t a = vreinterpretq_f64_f32(vtrn1q_f32(x[0], x[1])),
                      b = vreinterpretq_f64_f32(vtrn2q_f32(x[0], x[1])),
                      c = vreinterpretq_f64_f32(vtrn1q_f32(x[2], x[3])),
                      d = vreinterpretq_f64_f32(vtrn2q_f32(x[2], x[3]));
    x[0] = vreinterpretq_f32_f64(vtrn1q_f64(a, c));
    x[1] = vreinterpretq_f32_f64(vtrn1q_f64(b, d));
    x[2] = vreinterpretq_f32_f64(vtrn2q_f64(a, c));
    x[3] = vreinterpretq_f32_f64(vtrn2q_f64(b, d));
}
PRIM float vf_hsum(vf a) {
    return vaddvq_f32(a);
}
PRIM float vf_hmax(vf a) {
    return vmaxvq_f32(a);
}
PRIM vf vf_from_vi(vi a) {
    return vcvtq_f32_s32(a);
}
PRIM vi vf_bits(vf a) {
    return vreinterpretq_s32_f32(a);
}
PRIM vf vf_scale2(vf a, vi n) {
    return vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(a), vshlq_n_s32(n, 23)));
}
PRIM vf vf_exp_masked(vf e, vf x) {
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(e), vcgtq_f32(x, vdupq_n_f32(-3e38f))));
}

PRIM vi vi_load(const void *p) {
    return vreinterpretq_s32_u8(vld1q_u8(p));
}
PRIM vi vi_bcast(int32_t x) {
    return vdupq_n_s32(x);
}
PRIM vi vi_and(vi a, vi b) {
    return vandq_s32(a, b);
}
PRIM vi vi_or(vi a, vi b) {
    return vorrq_s32(a, b);
}
PRIM vi vi_add(vi a, vi b) {
    return vaddq_s32(a, b);
}
PRIM vi vi_not(vi a) {
    return vmvnq_s32(a);
}
PRIM void vi_store(void *p, vi a) {
    vst1q_u8(p, vreinterpretq_u8_s32(a));
}
PRIM vi vi_u8(const uint8_t *p) {
    uint32_t four;
    __builtin_memcpy(&four, p, 4);
    return vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(four))))));
}
PRIM vi vi_look(const uint16_t *table, vi index) {
    vi v = vdupq_n_s32(table[vgetq_lane_s32(index, 0)]);
    v = vsetq_lane_s32(table[vgetq_lane_s32(index, 1)], v, 1);
    v = vsetq_lane_s32(table[vgetq_lane_s32(index, 2)], v, 2);
    return vsetq_lane_s32(table[vgetq_lane_s32(index, 3)], v, 3);
}
/* as operators, because the intrinsics take no shift by 0 */
PRIM vi vi_pick(vi a, const uint8_t table[16]) {
    return vreinterpretq_s32_u8(vqtbl1q_u8(vld1q_u8(table), vreinterpretq_u8_s32(a)));
}
PRIM vi vi_srl(vi a, int n) {
    return vreinterpretq_s32_u32(vreinterpretq_u32_s32(a) >> n);
}
PRIM vi vi_sll(vi a, int n) {
    return vreinterpretq_s32_u32(vreinterpretq_u32_s32(a) << n);
}
PRIM vi vi_round(vf a) {
    return vcvtnq_s32_f32(a);
}
PRIM void vi_store_i8(int8_t *p, vi a) {
    const int16x4_t words = vmovn_s32(a);
    const uint32_t four = vget_lane_u32(vreinterpret_u32_s8(vmovn_s16(vcombine_s16(words, words))), 0);
    __builtin_memcpy(p, &four, 4);
}
PRIM int32_t vi_hsum(vi a) {
    return vaddvq_s32(a);
}

/* Of a row of values four are a vector whose lanes fmla takes as they are; broadcasting loads would keep the vector units of
 * many cores busy besides. Values at a stride (attention) are broadcast, and so are the last one to three. */
#define PANEL_STEP
PRIM void panel_step(int n, int vectors, vf *sum, const vf *w, const float *x, size_t row) {
    const int fours = row == 1 ? n / 4 * 4 : 0;
    UNROLL
    for (int i = 0; i < fours; i += 4) {
        const vf four = vld1q_f32(x + i);
        for (int r = 0; r < vectors; r++) {
            vf *to = sum + i * vectors + r;
            to[0 * vectors] = vfmaq_laneq_f32(to[0 * vectors], w[r], four, 0);
            to[1 * vectors] = vfmaq_laneq_f32(to[1 * vectors], w[r], four, 1);
            to[2 * vectors] = vfmaq_laneq_f32(to[2 * vectors], w[r], four, 2);
            to[3 * vectors] = vfmaq_laneq_f32(to[3 * vectors], w[r], four, 3);
        }
    }
    UNROLL
    for (int i = fours; i < n; i++)
        for (int r = 0; r < vectors; r++)
            sum[i * vectors + r] = vfmaq_n_f32(sum[i * vectors + r], w[r], x[(size_t)i * row]);
}

#endif
