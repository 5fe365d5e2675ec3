/* NEON as every armv8-a processor has it (Cortex-A53, A72, ...), without dot products. Primitives: isa_neon.h. */
#include "device/cpu/kernels.h"

#if defined(__aarch64__)
#include "device/cpu/isa_neon.h"

#define KERNELS ht_kernels_neon
#define ISA_NAME "neon"

/* Products are 16 bits wide and signed; of an 8-bit code the bias is taken off by turning its highest bit over, so that
 * its sum needs no start. */
#define DOT_QUADS
#define DOT_BIAS 128

/* What can be added in 16 bits, at most 32767: 16 products of a 4-bit code (1905 each), 4 of a 6-bit code (8001), 2 of
 * an 8-bit code (16256). Two quads and the sum of neighbours are 4 products; the eight quads of a 4-bit code are 16. */
PRIM void dot_quads(int vectors, vi *acc, vi (*quads)[8], const int8_t *x, int from, int to, int bits) {
    const int run = bits == 4 ? 8 : bits == 6 ? 2 : 1; /* quads added before their neighbours are */
    int16x8_t low[RV], high[RV];                       /* products of rows 0, 1 and of rows 2, 3 */
    for (int j = from; j < to; j++) {
        const int32x4_t four = vreinterpretq_s32_s8(vld1q_s8(x + j / 4 * 16)); /* four quads, a lane each */
        const int8x16_t quad = vreinterpretq_s8_s32(j % 4 == 0   ? vdupq_laneq_s32(four, 0)
                                                    : j % 4 == 1 ? vdupq_laneq_s32(four, 1)
                                                    : j % 4 == 2 ? vdupq_laneq_s32(four, 2)
                                                                 : vdupq_laneq_s32(four, 3));
        for (int r = 0; r < vectors; r++) {
            int8x16_t w = vreinterpretq_s8_s32(quads[r][j]);
            if (bits == 8)
                w = veorq_s8(w, vdupq_n_s8(-128));
            if ((j - from) % run == 0) {
                low[r] = vmull_s8(vget_low_s8(w), vget_low_s8(quad));
                high[r] = vmull_high_s8(w, quad);
            } else {
                low[r] = vmlal_s8(low[r], vget_low_s8(w), vget_low_s8(quad));
                high[r] = vmlal_high_s8(high[r], w, quad);
            }
            if ((j - from) % run == run - 1 || j == to - 1)
                acc[r] = vpadalq_s16(acc[r], vpaddq_s16(low[r], high[r]));
        }
    }
}

#include "device/cpu/kernels_impl.h"
#endif
