/* Formats of few bits whose codes are plain numbers or levels: Q2_K, Q3_K, IQ4_XS, NVFP4, TQ1_0, TQ2_0, Q1_0, Q2_0. */
#include "quant/unpack.h"

#include <math.h>

const int8_t ht_levels_iq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
const int8_t ht_levels_fp4[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/* Two bits of 32 columns stand in one byte column: byte l of a half's 32 has columns l, l + 32, l + 64, l + 96. */
static inline void two_bits(const uint8_t *restrict q, int bias, int8_t *restrict codes) {
    for (int quarter = 0; quarter < 4; quarter++, codes += 32)
        for (int l = 0; l < 32; l++)
            codes[l] = (int8_t)((q[l] >> 2 * quarter & 3) - bias);
}

/* Sixteen groups, each a byte with its scale (low) and its minimum (high); codes; d, dmin. */
void ht_unpack_q2_k(const uint8_t *restrict in, size_t blocks, int8_t *restrict codes, float *restrict scales,
                    float *restrict minima) {
    for (size_t b = 0; b < blocks; b++, in += 84, codes += 256, scales += 16, minima += 16) {
        const float d = ht_load_half(in + 80), dmin = ht_load_half(in + 82);
        for (int g = 0; g < 16; g++) {
            scales[g] = d * (float)(in[g] & 15);
            minima[g] = -(dmin * (float)(in[g] >> 4));
        }
        two_bits(in + 16, 2, codes);
        two_bits(in + 48, 2, codes + 128);
    }
}

/* The low four bits of groups 0-7 and 8-15 are the low and high nibbles of bytes 0-7; the top two of group g are bits
 * 2 (g / 4) of byte 8 + g % 4. */
void ht_sub_scales_q3_k(const uint8_t *block, int8_t sub[16]) {
    const uint8_t *q = block + 96;
    for (int g = 0; g < 16; g++)
        sub[g] = (int8_t)(((q[g % 8] >> (g < 8 ? 0 : 4) & 15) | (q[8 + g % 4] >> 2 * (g / 4) & 3) << 4) - 32);
}

/* The third bit, set where nothing is taken off; two bits; scales; d. */
void ht_unpack_q3_k(const uint8_t *restrict in, size_t blocks, int8_t *restrict codes, float *restrict scales,
                    float *restrict minima) {
    for (size_t b = 0; b < blocks; b++, in += 110, codes += 256, scales += 16) {
        const float d = ht_load_half(in + 108);
        int8_t sub[16];
        ht_sub_scales_q3_k(in, sub);
        for (int g = 0; g < 16; g++)
            scales[g] = d * (float)sub[g];
        two_bits(in + 32, 4, codes);
        two_bits(in + 64, 4, codes + 128);
        for (int i = 0; i < 8; i++) /* bit i of byte l: column 32 i + l */
            for (int l = 0; l < 32; l++)
                codes[32 * i + l] = (int8_t)(codes[32 * i + l] + ((in[l] >> i & 1) << 2));
    }
}

void ht_sub_scales_iq4_xs(const uint8_t *block, int8_t sub[8]) {
    const unsigned high = ht_load16(block + 2);
    for (int g = 0; g < 8; g++)
        sub[g] = (int8_t)(((block[4 + g / 2] >> 4 * (g % 2) & 15) | (high >> 2 * g & 3) << 4) - 32);
}

void ht_unpack_iq4_xs(const uint8_t *restrict in, size_t blocks, int8_t *restrict codes, float *restrict scales,
                      float *restrict minima) {
    for (size_t b = 0; b < blocks; b++, in += 136, scales += 8) {
        const float d = ht_load_half(in);
        int8_t sub[8];
        ht_sub_scales_iq4_xs(in, sub);
        for (int g = 0; g < 8; g++, codes += 32) {
            const uint8_t *q = in + 8 + 16 * g;
            scales[g] = d * (float)sub[g];
            for (int j = 0; j < 16; j++) {
                codes[j] = ht_levels_iq4[q[j] & 15];
                codes[j + 16] = ht_levels_iq4[q[j] >> 4];
            }
        }
    }
}

/* Half of an E4M3 number without sign, as the codes are twice the values. 0x7F, which is no number, is 0 to ggml. */
static inline float e4m3_half(unsigned byte) {
    const int exponent = (int)(byte >> 3 & 15), mantissa = (int)(byte & 7);
    if (byte == 0x7F)
        return 0;
    return exponent ? ldexpf((float)(8 + mantissa), exponent - 11) : ldexpf((float)mantissa, -10);
}

/* Four scales, then codes of four groups of 16: byte j of eight has columns j and j + 8. */
void ht_unpack_nvfp4(const uint8_t *restrict in, size_t blocks, int8_t *restrict codes, float *restrict scales,
                     float *restrict minima) {
    for (size_t b = 0; b < blocks; b++, in += 36, scales += 4)
        for (int g = 0; g < 4; g++, codes += 16) {
            scales[g] = e4m3_half(in[g]);
            for (int j = 0; j < 8; j++) {
                codes[j] = ht_levels_fp4[in[4 + 8 * g + j] & 15];
                codes[j + 8] = ht_levels_fp4[in[4 + 8 * g + j] >> 4];
            }
        }
}

/* A byte is a fraction of 256 whose digits to base 3 are codes + 1; column n * i + l has digit i of byte l of n. Any
 * byte has digits of 0 to 2. */
static inline void five_digits(const uint8_t *restrict q, int n, int digits, int8_t *restrict codes) {
    for (int l = 0; l < n; l++)
        for (int i = 0, rest = q[l]; i < digits; i++, rest &= 255) {
            rest *= 3;
            codes[n * i + l] = (int8_t)((rest >> 8) - 1);
        }
}

static inline void same_scale(float d, int n, float *restrict scales) {
    for (int g = 0; g < n; g++)
        scales[g] = d;
}

void ht_unpack_tq1_0(const uint8_t *restrict in, size_t blocks, int8_t *restrict codes, float *restrict scales,
                     float *restrict minima) {
    for (size_t b = 0; b < blocks; b++, in += 54, codes += 256, scales += 8) {
        same_scale(ht_load_half(in + 52), 8, scales);
        five_digits(in, 32, 5, codes);
        five_digits(in + 32, 16, 5, codes + 160);
        five_digits(in + 48, 4, 4, codes + 240);
    }
}

void ht_unpack_tq2_0(const uint8_t *restrict in, size_t blocks, int8_t *restrict codes, float *restrict scales,
                     float *restrict minima) {
    for (size_t b = 0; b < blocks; b++, in += 66, codes += 256, scales += 8) {
        same_scale(ht_load_half(in + 64), 8, scales);
        two_bits(in, 1, codes);
        two_bits(in + 32, 1, codes + 128);
    }
}

void ht_unpack_q1_0(const uint8_t *restrict in, size_t blocks, int8_t *restrict codes, float *restrict scales,
                    float *restrict minima) {
    for (size_t b = 0; b < blocks; b++, in += 18, codes += 128, scales += 4) {
        same_scale(ht_load_half(in), 4, scales);
        for (int j = 0; j < 128; j++)
            codes[j] = (int8_t)(2 * (in[2 + j / 8] >> j % 8 & 1) - 1);
    }
}

void ht_unpack_q2_0(const uint8_t *restrict in, size_t blocks, int8_t *restrict codes, float *restrict scales,
                    float *restrict minima) {
    for (size_t b = 0; b < blocks; b++, in += 18, codes += 64, scales += 2) {
        same_scale(ht_load_half(in), 2, scales);
        for (int j = 0; j < 64; j++)
            codes[j] = (int8_t)((in[2 + j / 4] >> 2 * (j % 4) & 3) - 1);
    }
}
