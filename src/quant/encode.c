/* Float32 to blocks, with the rounding of ggml's reference, so that files compare byte for byte. */
#include "quant/quant.h"

#include <math.h>
#include <string.h>

static void store_half(uint8_t *out, float f) {
    uint16_t h = ht_f32_to_f16(f);
    memcpy(out, &h, sizeof h);
}

/* Truncates to 0..15. Comparisons come first: a NaN or an overflow must not reach the conversion, which C leaves
 * undefined for them. */
static uint8_t four_bits(float f) {
    return f >= 15.0f ? 15 : f > 0.0f ? (uint8_t)f : 0;
}

static void pack_nibbles(const float *in, float subtract, float inverse, float half, uint8_t *out) {
    for (int j = 0; j < 16; j++) {
        uint8_t low = four_bits((in[j] - subtract) * inverse + half);
        uint8_t high = four_bits((in[j + 16] - subtract) * inverse + half);
        out[j] = (uint8_t)(low | high << 4);
    }
}

static void encode_q4_0(const float *in, uint8_t *out) {
    /* The value of greatest magnitude becomes code -8, which has no positive twin: its sign goes to the scale. */
    float greatest = 0, extreme = 0;
    for (int j = 0; j < 32; j++) {
        if (fabsf(in[j]) > greatest) {
            greatest = fabsf(in[j]);
            extreme = in[j];
        }
    }
    float scale = extreme / -8;
    store_half(out, scale);
    pack_nibbles(in, 0, scale != 0 ? 1.0f / scale : 0, 8.5f, out + 2);
}

static void encode_q4_1(const float *in, uint8_t *out) {
    float low = in[0], high = in[0];
    for (int j = 1; j < 32; j++) {
        if (in[j] < low)
            low = in[j];
        if (in[j] > high)
            high = in[j];
    }
    float scale = (high - low) / 15;
    store_half(out, scale);
    store_half(out + 2, low);
    pack_nibbles(in, low, scale != 0 ? 1.0f / scale : 0, 0.5f, out + 4);
}

static void encode_q8_0(const float *in, uint8_t *out) {
    float greatest = 0;
    for (int j = 0; j < 32; j++) {
        if (fabsf(in[j]) > greatest)
            greatest = fabsf(in[j]);
    }
    float scale = greatest / 127, inverse = scale != 0 ? 1.0f / scale : 0;
    store_half(out, scale);
    for (int j = 0; j < 32; j++) {
        float q = roundf(in[j] * inverse);
        out[2 + j] = (uint8_t)(int8_t)(q >= -127.0f ? q <= 127.0f ? q : 127.0f : q < 0 ? -127.0f : 0.0f);
    }
}

static void encode_f32(const float *in, uint8_t *out) {
    memcpy(out, in, sizeof *in);
}
static void encode_f16(const float *in, uint8_t *out) {
    store_half(out, *in);
}

static void encode_bf16(const float *in, uint8_t *out) {
    uint32_t bits;
    memcpy(&bits, in, sizeof bits);
    bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
    uint16_t h = nan ? (uint16_t)(bits >> 16 | 0x40) : (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
    memcpy(out, &h, sizeof h);
}

typedef void encode_block(const float *in, uint8_t *out);

static encode_block *encoder_of(ht_type type) {
    switch (type) {
    case HT_TYPE_F32:
        return encode_f32;
    case HT_TYPE_F16:
        return encode_f16;
    case HT_TYPE_BF16:
        return encode_bf16;
    case HT_TYPE_Q4_0:
        return encode_q4_0;
    case HT_TYPE_Q4_1:
        return encode_q4_1;
    case HT_TYPE_Q8_0:
        return encode_q8_0;
    default:
        return NULL;
    }
}

bool ht_type_can_encode(ht_type type) {
    return encoder_of(type) != NULL;
}

void ht_encode_row(ht_type type, const float *in, size_t cols, uint8_t *out) {
    const ht_type_traits *traits = ht_type_get(type);
    encode_block *encode = encoder_of(type);
    for (size_t c = 0; c < cols; c += (size_t)traits->block, in += traits->block, out += traits->block_bytes) {
        encode(in, out);
    }
}
