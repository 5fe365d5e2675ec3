/* NEON with dot products of unsigned by signed bytes (USDOT, of the extension I8MM): Cortex-A510, A710, X2, Neoverse
 * V1, N2 and later. Primitives: isa_neon.h.
 *
 * The extension's matrix products (USMMLA: 2 rows x 8 columns by 8 columns x 2 tokens, twice the products an
 * instruction) are not used. Codes would fit after one zip of two registers a step; but activations would have to be
 * packed by pairs of tokens, and sums in pairs of rows and tokens need loops of their own. Per vector of sums and step
 * three of eleven instructions of the vector units are for scales, so what could be gained is (8 + 3) / (4 + 3) = 1.57
 * at most. Left until there is a machine to measure it on. */
#include "device/cpu/kernels.h"

#if defined(__aarch64__)
#include "device/cpu/isa_neon.h"

#define KERNELS ht_kernels_neon_i8mm
#define ISA_NAME "neon-i8mm"

#define DOT_QUADS
PRIM void dot_quads(int vectors, vi *acc, vi (*quads)[8], const int8_t *x, int from, int to, int bits) {
    for (int j = from; j < to; j += 4) {
        const int8x16_t four = vld1q_s8(x + 4 * j); /* quads j to j + 3, a lane each */
        for (int r = 0; r < vectors; r++) {
            acc[r] = vusdotq_laneq_s32(acc[r], vreinterpretq_u8_s32(quads[r][j + 0]), four, 0);
            acc[r] = vusdotq_laneq_s32(acc[r], vreinterpretq_u8_s32(quads[r][j + 1]), four, 1);
            acc[r] = vusdotq_laneq_s32(acc[r], vreinterpretq_u8_s32(quads[r][j + 2]), four, 2);
            acc[r] = vusdotq_laneq_s32(acc[r], vreinterpretq_u8_s32(quads[r][j + 3]), four, 3);
        }
    }
}

#include "device/cpu/kernels_impl.h"
#endif
