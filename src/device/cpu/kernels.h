/* The CPU device's kernels: one skeleton (kernels_impl.h) compiled once per instruction set over a small layer of vector
 * primitives (isa_*.c); the device picks one table at start. Packed weights have one layout for all of them.
 *
 * Packed matrix: strips of 32 rows; a strip is one sequential stream, cut into steps of 32 columns (a "group"):
 *     half forms:   step  = scales f16 [32 rows], offsets f16 [32 rows] if any, codes
 *     super forms:  every 8 steps a head: d f16 [32], dmin f16 [32] if offset; then per step: scales i8 [halves][32 rows],
 *                   mins i8 [32] if offset, codes
 *     float forms:  f16/bf16/f32 [32 columns][32 rows]
 *     small forms:  of rarer types, see HT_FORM_2SO and on. No product is compiled for them: some steps at a time are unpacked
 *                   into one of the three forms of bytes, which lie in no memory but a thread's own
 *     byte forms:   step  = scales f32 [2 halves][32 rows], offsets f32 [2][32] if any, codes
 * Codes are unsigned (u = code + bias) in chunks of 64 bytes = 16 rows x 4 consecutive columns, the row's 4 bytes
 * together, so that one lane of a dot product of 4 bytes belongs to one row:
 *     8 bits: block b of 16 rows, column quad j (0..7): chunk b*8 + j
 *     4 bits: chunk b*4 + i holds quad i in its low and quad i+4 in its high nibbles
 *     5 bits: the low 4 bits as above, then chunk 8 + b: bit j is the high bit of quad j
 *     6 bits: the low 4 bits as above, then chunk 8 + b*2 + h: bits 2f..2f+1 are the high bits of quad 4h + f
 *     2 bits: chunk b*2 + h: bits 2f..2f+1 are quad 4h + f;  1 bit: chunk b: bit j is quad j;  3 bits: 2, then 1 more
 *     digits: of the 64 quads of 8 steps, chunk b*13 + c holds quads 5c .. 5c+4, each byte five digits to base 3 as a fraction of
 *             256, the first quad's leading
 */
#ifndef HT_CPU_KERNELS_H
#define HT_CPU_KERNELS_H

#include "base/cores.h"
#include "base/base.h"
#include "base/pool.h"
#include "model/model.h"
#include "quant/grids.h"

#include <stdatomic.h>

/* Before loops over vectors that are to stay in registers: the compiler would else leave some in memory. */
#ifdef __clang__ /* which unrolls such loops by itself */
#define UNROLL
#define AS_A_LOOP
#else
#define UNROLL _Pragma("GCC unroll 32")
#define AS_A_LOOP _Pragma("GCC unroll 1") /* before one that is long enough, to keep code small */
#endif

#define HT_STRIP 32 /* rows of a strip */
#define HT_STEP 32  /* columns of a step: the group of the activations' int8 scales, too */
#define HT_FEW 8    /* tokens that each weight is multiplied by as soon as it is decoded, at most */
#define HT_MAX_TILE 16

typedef enum ht_pack_form {
    HT_FORM_4,    /* 4 bits, f16 scale: Q4_0 */
    HT_FORM_4O,   /* 4 bits, f16 scale and offset: Q4_1 */
    HT_FORM_4SO,  /* 4 bits, two-level scale and offset: Q4_K */
    HT_FORM_4X,   /* 4 bits that name one of 16 codes (ht_named_codes), f16 scale: MXFP4 */
    HT_FORM_5,    /* 5 bits, f16 scale: Q5_0 */
    HT_FORM_5O,   /* Q5_1 */
    HT_FORM_5SO,  /* Q5_K */
    HT_FORM_6S16, /* 6 bits, two-level scale of 16 columns: Q6_K */
    HT_FORM_8,    /* 8 bits, f16 scale: Q8_0 */
    HT_FORM_B6,   /* bytes: codes of 6 bits, two scales */
    HT_FORM_B6O,  /* bytes: codes of 6 bits, two scales and offsets */
    HT_FORM_B8,   /* bytes: codes of 8 bits, two scales */
    HT_FORM_F16,
    HT_FORM_BF16,
    HT_FORM_F32,
    HT_FORM_2SO,    /* 2 bits, two-level scale and offset of 16 columns, a byte for both: Q2_K */
    HT_FORM_3S,     /* 3 bits, two-level scale of 16 columns: Q3_K */
    HT_FORM_4N,     /* 4 bits that name a level of IQ4, f16 scale: IQ4_NL */
    HT_FORM_4NS,    /* the same, two-level scale: IQ4_XS */
    HT_FORM_4X16,   /* as HT_FORM_4X, f16 scale of 16 columns: NVFP4 */
    HT_FORM_1R,     /* 1 bit, f16 scale of 128 columns in a head: Q1_0 */
    HT_FORM_2H,     /* 2 bits, f16 scale: Q2_0 */
    HT_FORM_2R,     /* 2 bits, f16 scale of 256 columns in a head: TQ2_0 */
    HT_FORM_DIGITS, /* digits to base 3, all of 256 columns in a head: TQ1_0 */
    HT_FORM_IQ1_S, /* The file's own places in codebooks, which are of 8 columns, or of 4 (IQ3): a byte of each in chunks, four */
    HT_FORM_IQ1_M, /* of a row together; their other bits and the scales in bytes [rows] before; signs, a bit a column, in chunks */
    HT_FORM_IQ2_XXS, /* behind. d f16 in a head of 8 steps. */
    HT_FORM_IQ2_XS,
    HT_FORM_IQ2_S,
    HT_FORM_IQ3_XXS,
    HT_FORM_IQ3_S,
    HT_FORM_COUNT
} ht_pack_form;

/* Sums of a step's int8 activations times -bias, ready to start an int32 accumulator: one array for each bias in use.
 * H: of each half of a step. */
typedef enum ht_sums {
    HT_SUMS_NONE,
    HT_SUMS_8,
    HT_SUMS_16,
    HT_SUMS_32,
    HT_SUMS_128,
    HT_SUMS_32H,
    HT_SUMS_128H,
    HT_SUMS_COUNT
} ht_sums;

typedef struct ht_form_traits {
    int bits;     /* of a code as it lies; 0: float form */
    int bias;     /* u = code + bias; w = scale * (u - bias) + ... */
    bool offset;  /* w = scale * u + offset, bias 0 */
    int span;     /* steps that share a head; 0: no heads */
    int halves;   /* scales a step: 1, or 2 (groups of 16) */
    ht_sums sums; /* which sums take the bias back, or are multiplied by offsets of halves */
    int step_bytes, head_bytes;
    ht_pack_form via; /* the form that products are compiled for: a form of bytes for small ones, else itself */
} ht_form_traits;
/* In the header, so that every kernel folds its row into constants. */
__attribute__((unused)) static const ht_form_traits ht_forms[HT_FORM_COUNT] = {
    /* bits, bias, offset, span, halves, sums, step_bytes, head_bytes, via */
    [HT_FORM_4] = {4, 8, false, 0, 1, HT_SUMS_8, 64 + 512, 0, HT_FORM_4},
    [HT_FORM_4O] = {4, 0, true, 0, 1, HT_SUMS_NONE, 128 + 512, 0, HT_FORM_4O},
    [HT_FORM_4SO] = {4, 0, true, 8, 1, HT_SUMS_NONE, 64 + 512, 128, HT_FORM_4SO},
    [HT_FORM_4X] = {4, 32, false, 0, 1, HT_SUMS_32, 64 + 512, 0, HT_FORM_4X},
    [HT_FORM_5] = {5, 16, false, 0, 1, HT_SUMS_16, 64 + 640, 0, HT_FORM_5},
    [HT_FORM_5O] = {5, 0, true, 0, 1, HT_SUMS_NONE, 128 + 640, 0, HT_FORM_5O},
    [HT_FORM_5SO] = {5, 0, true, 8, 1, HT_SUMS_NONE, 64 + 640, 128, HT_FORM_5SO},
    [HT_FORM_6S16] = {6, 32, false, 8, 2, HT_SUMS_32H, 64 + 768, 64, HT_FORM_6S16},
    [HT_FORM_8] = {8, 128, false, 0, 1, HT_SUMS_128, 64 + 1024, 0, HT_FORM_8},
    [HT_FORM_B6] = {8, 32, false, 0, 2, HT_SUMS_32H, 256 + 1024, 0, HT_FORM_B6},
    [HT_FORM_B6O] = {8, 0, true, 0, 2, HT_SUMS_32H, 512 + 1024, 0, HT_FORM_B6O},
    [HT_FORM_B8] = {8, 128, false, 0, 2, HT_SUMS_128H, 256 + 1024, 0, HT_FORM_B8},
    [HT_FORM_F16] = {0, 0, false, 0, 0, HT_SUMS_NONE, 2 * (HT_STRIP * HT_STEP), 0, HT_FORM_F16},
    [HT_FORM_BF16] = {0, 0, false, 0, 0, HT_SUMS_NONE, 2 * (HT_STRIP * HT_STEP), 0, HT_FORM_BF16},
    [HT_FORM_F32] = {0, 0, false, 0, 0, HT_SUMS_NONE, 4 * (HT_STRIP * HT_STEP), 0, HT_FORM_F32},
    [HT_FORM_2SO] = {2, 0, true, 8, 2, HT_SUMS_32H, 64 + 256, 128, HT_FORM_B6O},
    [HT_FORM_3S] = {3, 32, false, 8, 2, HT_SUMS_32H, 64 + 384, 64, HT_FORM_B6},
    [HT_FORM_4N] = {4, 128, false, 0, 1, HT_SUMS_128H, 64 + 512, 0, HT_FORM_B8},
    [HT_FORM_4NS] = {4, 128, false, 8, 1, HT_SUMS_128H, 32 + 512, 64, HT_FORM_B8},
    [HT_FORM_4X16] = {4, 32, false, 0, 2, HT_SUMS_32H, 128 + 512, 0, HT_FORM_B6},
    [HT_FORM_1R] = {1, 32, false, 4, 1, HT_SUMS_32H, 128, 64, HT_FORM_B6},
    [HT_FORM_2H] = {2, 32, false, 0, 1, HT_SUMS_32H, 64 + 256, 0, HT_FORM_B6},
    [HT_FORM_2R] = {2, 32, false, 8, 1, HT_SUMS_32H, 256, 64, HT_FORM_B6},
    [HT_FORM_DIGITS] = {2, 32, false, 8, 1, HT_SUMS_32H, 0, 64 + 2 * 13 * 64, HT_FORM_B6},
    [HT_FORM_IQ1_S] = {8, 32, false, 8, 1, HT_SUMS_32H, 64 + 128, 64, HT_FORM_B6},
    [HT_FORM_IQ1_M] = {8, 32, false, 8, 2, HT_SUMS_32H, 96 + 128, 64, HT_FORM_B6},
    [HT_FORM_IQ2_XXS] = {8, 128, false, 8, 1, HT_SUMS_128H, 32 + 256, 64, HT_FORM_B8},
    [HT_FORM_IQ2_XS] = {8, 128, false, 8, 2, HT_SUMS_128H, 64 + 256, 64, HT_FORM_B8},
    [HT_FORM_IQ2_S] = {8, 128, false, 8, 2, HT_SUMS_128H, 64 + 256, 64, HT_FORM_B8},
    [HT_FORM_IQ3_XXS] = {8, 32, false, 8, 1, HT_SUMS_32H, 32 + 384, 64, HT_FORM_B6},
    [HT_FORM_IQ3_S] = {8, 32, false, 8, 1, HT_SUMS_32H, 64 + 384, 64, HT_FORM_B6},
};

/* Columns that are packed together, but for the matrix's last. */
static inline size_t ht_form_grain(ht_pack_form form) {
    const ht_form_traits t = ht_forms[form];
    return t.span ? (size_t)t.span * HT_STEP : t.bits ? HT_STEP : 1;
}
/* Bytes of so many steps of a strip, whole spans where there are heads. */
static inline size_t ht_form_bytes(ht_pack_form form, size_t steps) {
    const ht_form_traits t = ht_forms[form];
    return steps * (size_t)t.step_bytes + (t.span ? steps / (size_t)t.span * (size_t)t.head_bytes : 0);
}
static inline size_t ht_sums_halves(int sums) {
    return sums == HT_SUMS_32H || sums == HT_SUMS_128H ? 2 : 1;
}

/* Codes of HT_FORM_4X with their bias: twice the values of E2M1. */
__attribute__((unused)) static const uint8_t ht_named_codes[16] = {32, 33, 34, 35, 36, 38, 40, 44,
                                                                   32, 31, 30, 29, 28, 26, 24, 20};

typedef struct ht_packed {
    ht_pack_form form;
    size_t rows, cols; /* of this slice; cols is a multiple of 32 (padded with zero weights) */
    size_t strips, strip_bytes;
    uint8_t *data;
    size_t bytes;
    float *bias;       /* [strips * 32] or NULL */
    float factor;      /* of all scales of HT_FORM_4X16: ht_matrix.factors' */
    atomic_size_t bad; /* one more than a row of the matrix with a weight that is no number; 0: none */
} ht_packed;

/* Activations of one matmul, in the layouts the kernels read. `tokens` is the stride of the arrays below. */
typedef struct ht_acts {
    size_t tokens, cols; /* cols: multiple of 32 */
    /* int8, groups of 32 (fast): */
    int8_t *codes;                /* [cols/32][tokens][32] */
    float *scales;                /* [cols/32][tokens] */
    float *scaled_sums;           /* [cols/32][tokens]: scale * sum of codes */
    int32_t *sums[HT_SUMS_COUNT]; /* [cols/32][tokens]; of halves: [cols/32][2][tokens]; NULL: not wanted */
    /* float32 (exact): tiles of `tile` tokens, zero-padded: [tokens/tile][cols][tile]; of a few tokens one narrower tile */
    float *floats;
} ht_acts;

/* HT_OP_NORM of one token, and the norms of ROPE. */
typedef struct ht_norm_job {
    ht_norm kind;
    float *x;
    const float *delta, *post, *weight, *bias; /* each may be NULL; x is written only where there is a delta */
    float eps;
    size_t n;
    float *out; /* may be x */
} ht_norm_job;

/* Fast softmax attention state of one thread, see attention in kernels_impl.h */
typedef struct ht_attention_job {
    const float *queries; /* token t, head h at queries + t * stride + h * head_dim */
    size_t query_stride;
    float *out; /* token t, head h at out + t * out_stride + h * head_dim */
    size_t out_stride;
    const void *keys, *values; /* of one kv head: [position][head_dim], fp16 or float32 */
    ht_kv_type kv_type;
    size_t head_dim, heads;  /* heads: query heads that share this kv head, following each other */
    size_t position, tokens; /* first token's position, and how many tokens */
    size_t window, chunk;    /* 0: all */
    size_t
        end; /* not 0: tokens see keys in both directions up to this one, `window` / 2 to either side; there is no chunk */
    float scale, soft_cap;
    const float *sinks, *slopes; /* of these heads; NULL: none */
    float *scratch;              /* attention_scratch(...) floats, 64-byte aligned */
} ht_attention_job;

/* Some channels of a causal convolution over tokens that follow each other. */
typedef struct ht_convolution_job {
    const float *in,
        *factor; /* token t, channel i at in + t * in_stride + i; times `factor`, which lies alike; or NULL */
    size_t in_stride;
    const float *weights; /* tap k of channel i, the last for the token itself, at weights + k * weights_stride + i */
    size_t weights_stride;
    const float *bias; /* [channels] or NULL */
    float
        *state; /* of the last taps - 1 tokens, the oldest first: at state + k * state_stride + i; read, then written */
    size_t state_stride;
    float *out; /* as `in`; with `gate`: times gate, which lies alike, else silu of it */
    size_t out_stride;
    const float *gate; /* with in_stride */
    size_t channels, tokens;
    int taps; /* HT_MAX_TAPS at most */
} ht_convolution_job;
#define HT_MAX_TAPS 8

/* One head of a linear recurrence over tokens that follow each other: S = decay S + k u^T, out = q S, where u is v, or with
 * `rate` the error of what S says of k: u = rate (v - k (decay S)). */
typedef struct ht_recurrence_job {
    float *state;       /* S: [key_dim][head_dim]; read, then written */
    const float *q, *k; /* of token t [key_dim], at t * key_stride */
    const float *v;     /* [head_dim], at t * value_stride */
    const float *decay; /* [tokens] */
    const float *rate;  /* [tokens] or NULL */
    float *out;         /* [head_dim], at t * out_stride */
    size_t key_dim, head_dim, key_stride, value_stride, out_stride, tokens;
} ht_recurrence_job;

typedef struct ht_cpu_kernels {
    const char *name;
    size_t tile;    /* tokens of a tile of exact activations, */
    size_t granule; /* and of the least part of one that is computed */
    /* Tokens [t0, t0 + n) of x (token t at x + t*stride, `cols` valid columns) into acts. */
    void (*quantize)(const float *x, size_t stride, size_t cols, size_t t0, size_t n, const ht_acts *acts);
    /* One tile's tokens, whose `cols` valid columns begin at rows[0], rows[1], ... */
    void (*pack_floats)(const float *const *rows, size_t cols, size_t tile_index, const ht_acts *acts);
    /* One strip times all tokens: y[t*stride + r] for the strip's valid rows. scratch: strip_scratch(tokens) floats. A
     * token's values are the same to the bit whatever other tokens there are. */
    void (*strip_fast)(const ht_packed *packed, size_t strip, const ht_acts *acts, float *y, size_t stride,
                       float *scratch);
    void (*strip_exact)(const ht_packed *packed, size_t strip, const ht_acts *acts, float *y, size_t stride,
                        float *scratch);
    size_t (*strip_scratch)(size_t tokens);
    void (*norm)(const ht_norm_job *job);
    /* up NULL: ungated. `out` may be one of the others. */
    void (*glu)(ht_activation activation, const float *gate, const float *up, size_t n, float *out);
    void (*attention)(
        const ht_attention_job *job); /* a token's values: the same whatever other tokens and heads there are */
    size_t (*attention_scratch)(size_t head_dim, size_t heads, size_t tokens);
    void (*to_half)(const float *in, size_t n, uint16_t *out);
    void (*convolve)(const ht_convolution_job *job);
    void (*recur)(const ht_recurrence_job *job);
    void (*over_length)(float *x, size_t n, float eps, float scale);             /* x *= scale / sqrt(sum x^2 + eps) */
    void (*rope)(float *head, const float *table, size_t rope_dim, bool halves); /* table [rope_dim/2][2] cos, sin */
    void (*soft_cap)(float *x, float cap, size_t n);                             /* in place: cap * tanh(x / cap) */
} ht_cpu_kernels;

extern const ht_cpu_kernels ht_kernels_generic;
#if defined(__x86_64__)
extern const ht_cpu_kernels ht_kernels_avx2, ht_kernels_avx512;
#elif defined(__aarch64__)
extern const ht_cpu_kernels ht_kernels_neon, ht_kernels_neon_dotprod, ht_kernels_neon_i8mm;
#endif

/* pack.c */
ht_pack_form ht_form_of(const ht_matrix *matrix);
/* Strips [begin, end) of rows [row_begin, ...) of a matrix, columns [col_begin, col_begin + packed->cols); scratch from
 * ht_pack_scratch. Thread-safe for disjoint strips. */
ht_status ht_packed_create(const ht_matrix *matrix, size_t row_begin, size_t row_end, size_t col_begin, size_t col_end,
                           const float *bias, ht_packed *packed, ht_error *error);
size_t ht_pack_scratch(const ht_matrix *matrix); /* bytes */
void ht_pack_strip(const ht_matrix *matrix, size_t row_begin, size_t col_begin, ht_packed *packed, size_t strip,
                   void *scratch);
void ht_packed_free(ht_packed *packed);
/* pack_small.c: a row of a small form to lane `lane` of its strip; scratch as ht_pack_strip's. */
void ht_pack_small_row(const ht_matrix *matrix, size_t row, size_t col_begin, ht_packed *packed, uint8_t *strip,
                       size_t lane, void *scratch);
/* Keeps a row that has weights which nothing is computed with: rounding activations to int8 would lose a NaN, and with
 * it what it says of the file. */
static inline void ht_packed_note(ht_packed *packed, const ht_matrix *matrix, size_t row, const float *scales,
                                  const float *offsets) {
    if (ht_matrix_is_bad(matrix, row, scales, offsets))
        atomic_store_explicit(&packed->bad, row + 1, memory_order_relaxed);
}

#endif
