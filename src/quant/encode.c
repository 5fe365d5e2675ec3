/* Float32 to blocks. The floating types, and without importance the blocks of 32 with plain codes, have the rounding of
 * ggml's reference, so that files compare byte for byte; all others are fits (search.h). The layouts are ggml's. */
#include "quant/quant.h"
#include "quant/search.h"

#include <math.h>
#include <string.h>

static void store_half(uint8_t *out, float f) {
    uint16_t h = ht_f32_to_f16(f);
    memcpy(out, &h, sizeof h);
}

/* Truncates to 0..most. Comparisons come first: a NaN or an overflow must not reach the conversion, which C leaves
 * undefined for them. */
static int8_t code_of(float f, int8_t most) {
    return f >= (float)most ? most : f > 0.0f ? (int8_t)f : (int8_t)0;
}

/* The low four bits of 32 codes: the second half's stand above the first half's. */
static void pack_nibbles(const int8_t *codes, uint8_t *out) {
    for (int j = 0; j < 16; j++)
        out[j] = (uint8_t)((codes[j] & 15) | (codes[j + 16] & 15) << 4);
}

static void pack_fifth_bits(const int8_t *codes, uint8_t *out) {
    uint32_t bits = 0;
    for (int j = 0; j < 32; j++)
        bits |= (uint32_t)(codes[j] >> 4 & 1) << j;
    memcpy(out, &bits, sizeof bits);
}

/* The value of greatest magnitude becomes code -8 (or -16), which has no positive twin: its sign goes to the scale. */
static void round_symmetric(const float *in, int8_t low, uint8_t *d, int8_t *codes) {
    float greatest = 0, extreme = 0;
    for (int j = 0; j < 32; j++) {
        if (fabsf(in[j]) > greatest) {
            greatest = fabsf(in[j]);
            extreme = in[j];
        }
    }
    const float scale = extreme / (float)low, inverse = scale != 0 ? 1.0f / scale : 0;
    store_half(d, scale);
    for (int j = 0; j < 32; j++)
        codes[j] = code_of(in[j] * inverse + (0.5f - (float)low), (int8_t)(-2 * low - 1));
}

static void round_asymmetric(const float *in, int8_t most, uint8_t *d, uint8_t *m, int8_t *codes) {
    float low = in[0], high = in[0];
    for (int j = 1; j < 32; j++) {
        if (in[j] < low)
            low = in[j];
        if (in[j] > high)
            high = in[j];
    }
    const float scale = (high - low) / (float)most, inverse = scale != 0 ? 1.0f / scale : 0;
    store_half(d, scale);
    store_half(m, low);
    for (int j = 0; j < 32; j++)
        codes[j] = code_of((in[j] - low) * inverse + 0.5f, most);
}

static float stored_half(uint8_t *out, float f) {
    uint16_t h;
    store_half(out, f);
    memcpy(&h, out, sizeof h);
    return ht_f16_to_f32(h);
}

/* Codes from 0 on, whether they were rounded or fitted. */
static void symmetric(const float *in, const float *w, int8_t low, uint8_t *d, int8_t *codes) {
    if (!w) {
        round_symmetric(in, low, d, codes);
        return;
    }
    const ht_grid grid = {low, (float)(-low - 1), NULL};
    const ht_line line = {stored_half(d, ht_search_scale(&grid, in, w, 32)), 0};
    ht_search_codes(&grid, line, in, 32, codes);
    for (int j = 0; j < 32; j++)
        codes[j] = (int8_t)(codes[j] - low);
}

static void asymmetric(const float *in, const float *w, int8_t most, uint8_t *d, uint8_t *m, int8_t *codes) {
    if (!w) {
        round_asymmetric(in, most, d, m, codes);
        return;
    }
    const ht_grid grid = {0, most, NULL};
    ht_line line = ht_search_line(&grid, in, w, 32, false);
    line.scale = stored_half(d, line.scale);
    line.offset = stored_half(m, line.offset);
    ht_search_codes(&grid, line, in, 32, codes);
}

static void encode_q4_0(const float *in, const float *w, uint8_t *out) {
    int8_t codes[32];
    symmetric(in, w, -8, out, codes);
    pack_nibbles(codes, out + 2);
}

static void encode_q4_1(const float *in, const float *w, uint8_t *out) {
    int8_t codes[32];
    asymmetric(in, w, 15, out, out + 2, codes);
    pack_nibbles(codes, out + 4);
}

static void encode_q5_0(const float *in, const float *w, uint8_t *out) {
    int8_t codes[32];
    symmetric(in, w, -16, out, codes);
    pack_fifth_bits(codes, out + 2);
    pack_nibbles(codes, out + 6);
}

static void encode_q5_1(const float *in, const float *w, uint8_t *out) {
    int8_t codes[32];
    asymmetric(in, w, 31, out, out + 2, codes);
    pack_fifth_bits(codes, out + 4);
    pack_nibbles(codes, out + 8);
}

static void encode_q8_0(const float *in, const float *w, uint8_t *out) {
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

/* ---- fits ---- */

static const int8_t iq4_levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

static void encode_iq4_nl(const float *in, const float *w, uint8_t *out) {
    static const ht_grid grid = {-127, 113, iq4_levels};
    int8_t codes[32];
    const ht_line line = {stored_half(out, ht_search_scale(&grid, in, w, 32)), 0};
    ht_search_codes(&grid, line, in, 32, codes);
    pack_nibbles(codes, out + 2);
}

/* The scale is a power of two, 2^(e - 127), and codes stand for twice the levels 0, 0.5, 1, 1.5, 2, 3, 4, 6 with a sign
 * bit. */
static void encode_mxfp4(const float *in, const float *w, uint8_t *out) {
    static const int8_t levels[16] = {-12, -8, -6, -4, -3, -2, -1, 0, 0, 1, 2, 3, 4, 6, 8, 12};
    static const ht_grid grid = {-12, 12, levels};
    int8_t codes[32];
    const int exponent = ht_search_power(&grid, in, w, 32, -126, 15);
    out[0] = (uint8_t)(exponent + 128);
    ht_search_codes(&grid, (ht_line){ldexpf(1, exponent), 0}, in, 32, codes);
    for (int j = 0; j < 32; j++)
        codes[j] = (int8_t)(codes[j] > 7 ? codes[j] - 8 : codes[j] < 7 ? 15 - codes[j] : 0);
    pack_nibbles(codes, out + 1);
}

static void encode_iq4_xs(const float *in, const float *w, uint8_t *out) {
    static const ht_levelled form = {{-127, 113, iq4_levels}, 32, -32, 31, false};
    ht_levels_fit fit;
    uint16_t high = 0;
    ht_search_levels(&form, in, w, &fit);
    memset(out, 0, 136);
    memcpy(out, &fit.d, 2);
    for (int g = 0; g < 8; g++) { /* scales of six bits: four here, two there */
        const int sub = fit.sub[g] + 32;
        high = (uint16_t)(high | (sub >> 4) << 2 * g);
        out[4 + g / 2] = (uint8_t)(out[4 + g / 2] | (sub & 15) << 4 * (g & 1));
        pack_nibbles(fit.codes + 32 * g, out + 8 + 16 * g);
    }
    memcpy(out + 2, &high, 2);
}

/* Two low bits of 256 codes: in each half byte l has those of codes l, l + 32, l + 64 and l + 96. */
static void pack_pairs(const int8_t *codes, uint8_t *out) {
    for (int half = 0; half < 2; half++, codes += 128, out += 32) {
        for (int l = 0; l < 32; l++)
            out[l] = (uint8_t)((codes[l] & 3) | (codes[l + 32] & 3) << 2 | (codes[l + 64] & 3) << 4 |
                               (codes[l + 96] & 3) << 6);
    }
}

static void encode_q2_k(const float *in, const float *w, uint8_t *out) {
    static const ht_levelled form = {{0, 3, NULL}, 16, 0, 15, true};
    ht_levels_fit fit;
    ht_search_levels(&form, in, w, &fit);
    for (int g = 0; g < 16; g++)
        out[g] = (uint8_t)(fit.sub[g] | fit.sub_min[g] << 4);
    pack_pairs(fit.codes, out + 16);
    memcpy(out + 80, &fit.d, 2);
    memcpy(out + 82, &fit.dmin, 2);
}

static void encode_q3_k(const float *in, const float *w, uint8_t *out) {
    static const ht_levelled form = {{-4, 3, NULL}, 16, -32, 31, false};
    ht_levels_fit fit;
    ht_search_levels(&form, in, w, &fit);
    memset(out, 0, 110);
    for (int i = 0; i < 256; i++) { /* from 0 on; the third bit of code i is bit i / 32 of byte i % 32 */
        fit.codes[i] = (int8_t)(fit.codes[i] + 4);
        out[i % 32] = (uint8_t)(out[i % 32] | (fit.codes[i] >> 2) << i / 32);
    }
    pack_pairs(fit.codes, out + 32);
    for (int g = 0; g < 16; g++) { /* scales of six bits: four low ones in bytes 0-7, two high ones in bytes 8-11 */
        const int sub = fit.sub[g] + 32;
        out[96 + g % 8] = (uint8_t)(out[96 + g % 8] | (sub & 15) << 4 * (g / 8));
        out[104 + g % 4] = (uint8_t)(out[104 + g % 4] | (sub >> 4) << 2 * (g / 4));
    }
    memcpy(out + 108, &fit.d, 2);
}

/* Q4_K and Q5_K: d, dmin, then six bits of each scale and minimum in 12 bytes, as decode.c has it. */
static void pack_k_scales(const ht_levels_fit *fit, uint8_t *out) {
    memcpy(out, &fit->d, 2);
    memcpy(out + 2, &fit->dmin, 2);
    for (int g = 0; g < 4; g++) {
        const unsigned sub = (uint8_t)fit->sub[g + 4], sub_min = (uint8_t)fit->sub_min[g + 4];
        out[4 + g] = (uint8_t)(fit->sub[g] | (sub >> 4) << 6);
        out[8 + g] = (uint8_t)(fit->sub_min[g] | (sub_min >> 4) << 6);
        out[12 + g] = (uint8_t)((sub & 15) | (sub_min & 15) << 4);
    }
}

static void pack_k_nibbles(const int8_t *codes, uint8_t *out) {
    for (int i = 0; i < 4; i++, codes += 64, out += 32) {
        for (int l = 0; l < 32; l++)
            out[l] = (uint8_t)((codes[l] & 15) | (codes[l + 32] & 15) << 4);
    }
}

static void encode_q4_k(const float *in, const float *w, uint8_t *out) {
    static const ht_levelled form = {{0, 15, NULL}, 32, 0, 63, true};
    ht_levels_fit fit;
    ht_search_levels(&form, in, w, &fit);
    pack_k_scales(&fit, out);
    pack_k_nibbles(fit.codes, out + 16);
}

static void encode_q5_k(const float *in, const float *w, uint8_t *out) {
    static const ht_levelled form = {{0, 31, NULL}, 32, 0, 63, true};
    ht_levels_fit fit;
    ht_search_levels(&form, in, w, &fit);
    pack_k_scales(&fit, out);
    memset(out + 16, 0, 32);
    for (int i = 0; i < 256; i++) /* the fifth bit of code i is bit i / 32 of byte i % 32 */
        out[16 + i % 32] = (uint8_t)(out[16 + i % 32] | (fit.codes[i] >> 4) << i / 32);
    pack_k_nibbles(fit.codes, out + 48);
}

static void encode_q6_k(const float *in, const float *w, uint8_t *out) {
    static const ht_levelled form = {{-32, 31, NULL}, 16, -128, 127, false};
    ht_levels_fit fit;
    ht_search_levels(&form, in, w, &fit);
    for (int i = 0; i < 256; i++)
        fit.codes[i] = (int8_t)(fit.codes[i] + 32);
    for (int half = 0; half < 2; half++) {
        const int8_t *q = fit.codes + 128 * half;
        uint8_t *low = out + 64 * half, *high = out + 128 + 32 * half;
        for (int l = 0; l < 64; l++)
            low[l] = (uint8_t)((q[l] & 15) | (q[l + 64] & 15) << 4);
        for (int l = 0; l < 32; l++)
            high[l] = (uint8_t)(q[l] >> 4 | (q[l + 32] >> 4) << 2 | (q[l + 64] >> 4) << 4 | (q[l + 96] >> 4) << 6);
    }
    memcpy(out + 192, fit.sub, 16);
    memcpy(out + 208, &fit.d, 2);
}

/* ---- floats ---- */

static void encode_f32(const float *in, const float *w, uint8_t *out) {
    memcpy(out, in, sizeof *in);
}
static void encode_f16(const float *in, const float *w, uint8_t *out) {
    store_half(out, *in);
}

static void encode_bf16(const float *in, const float *w, uint8_t *out) {
    uint32_t bits;
    memcpy(&bits, in, sizeof bits);
    bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
    uint16_t h = nan ? (uint16_t)(bits >> 16 | 0x40) : (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
    memcpy(out, &h, sizeof h);
}

/* w: what each weight's error is worth; NULL: the block is rounded */
typedef void encode_block(const float *in, const float *w, uint8_t *out);

static const struct {
    ht_type type;
    encode_block *encode;
} encoders[] = {
    {HT_TYPE_F32, encode_f32},     {HT_TYPE_F16, encode_f16},       {HT_TYPE_BF16, encode_bf16},
    {HT_TYPE_Q4_0, encode_q4_0},   {HT_TYPE_Q4_1, encode_q4_1},     {HT_TYPE_Q5_0, encode_q5_0},
    {HT_TYPE_Q5_1, encode_q5_1},   {HT_TYPE_Q8_0, encode_q8_0},     {HT_TYPE_Q2_K, encode_q2_k},
    {HT_TYPE_Q3_K, encode_q3_k},   {HT_TYPE_Q4_K, encode_q4_k},     {HT_TYPE_Q5_K, encode_q5_k},
    {HT_TYPE_Q6_K, encode_q6_k},   {HT_TYPE_IQ4_NL, encode_iq4_nl}, {HT_TYPE_IQ4_XS, encode_iq4_xs},
    {HT_TYPE_MXFP4, encode_mxfp4},
};

static encode_block *encoder_of(ht_type type) {
    for (size_t i = 0; i < HT_COUNT(encoders); i++) {
        if (encoders[i].type == type)
            return encoders[i].encode;
    }
    return NULL;
}

bool ht_type_can_encode(ht_type type) {
    return encoder_of(type) != NULL;
}

/* What each weight's error is worth to a fit: its column's importance, and more where it is large, for what is computed
 * with large weights matters more than their share of the sum of squares says. How much more is from perplexities
 * (docs/numbers.md). */
static void find_worth(const float *in, const float *importance, size_t n, float *w) {
    float square = 0;
    for (size_t i = 0; i < n; i++)
        square += in[i] * in[i];
    square /= (float)n;
    const float inverse = square > 1e-30f && square < 1e30f ? 1 / square : 0;
    for (size_t i = 0; i < n; i++) {
        const float large = 1 + in[i] * in[i] * inverse;
        w[i] = importance ? importance[i] * sqrtf(large) : large;
    }
}

/* Blocks of 32 with plain codes are rounded where there is no importance. */
static bool is_fitted(const ht_type_traits *traits, const float *importance) {
    return traits->group && traits->type != HT_TYPE_Q8_0 && (importance || traits->type > HT_TYPE_Q8_0);
}

void ht_encode_row(ht_type type, const float *in, const float *importance, size_t cols, uint8_t *out) {
    const ht_type_traits *traits = ht_type_get(type);
    encode_block *encode = encoder_of(type);
    const size_t block = (size_t)traits->block, bytes = (size_t)traits->block_bytes;
    const bool fitted = is_fitted(traits, importance);
    float w[256];
    for (size_t c = 0; c < cols; c += block, out += bytes) {
        if (fitted)
            find_worth(in + c, importance ? importance + c : NULL, block, w);
        encode(in + c, fitted ? w : NULL, out);
    }
}
