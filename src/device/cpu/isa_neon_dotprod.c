/* NEON with dot products of four bytes (SDOT): Cortex-A55, A75 and later. Primitives: isa_neon.h. */
#include "device/cpu/kernels.h"

#if defined(__aarch64__)
#include "device/cpu/isa_neon.h"

#define KERNELS ht_kernels_neon_dotprod
#define ISA_NAME "neon-dotprod"

/* SDOT takes signed bytes. Codes of 4 and 6 bits are such as they are; of an 8-bit code the bias is taken off by turning its
 * highest bit over, so that its sum needs no start. */
#define DOT_QUADS
#define DOT_BIAS 128

PRIM void dot_quads(int vectors, vi *acc, vi (*quads)[8], const int8_t *x, int from, int to, int bits) {
    for (int j = from; j < to; j += 4) {
        const int8x16_t four = vld1q_s8(x + 4 * j); /* quads j to j + 3, a lane each */
        for (int r = 0; r < vectors; r++) {
            int8x16_t w[4];
            for (int k = 0; k < 4; k++) {
                w[k] = vreinterpretq_s8_s32(quads[r][j + k]);
                if (bits == 8)
                    w[k] = veorq_s8(w[k], vdupq_n_s8(-128));
            }
            acc[r] = vdotq_laneq_s32(acc[r], w[0], four, 0);
            acc[r] = vdotq_laneq_s32(acc[r], w[1], four, 1);
            acc[r] = vdotq_laneq_s32(acc[r], w[2], four, 2);
            acc[r] = vdotq_laneq_s32(acc[r], w[3], four, 3);
        }
    }
}

#include "device/cpu/kernels_impl.h"
#endif
