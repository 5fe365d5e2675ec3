/* The CPU device's kernels: one skeleton (kernels_impl.h) compiled once per instruction set over a small layer of vector
 * primitives (isa_*.c); the device picks one table at start. Packed weights have one layout for all of them.
 *
 * Packed matrix: strips of 32 rows; a strip is one sequential stream, cut into steps of 32 columns (a "group"):
 *     half forms:   step  = scales f16 [32 rows], offsets f16 [32 rows] if any, codes
 *     super forms:  every 8 steps a head: d f16 [32], dmin f16 [32] if offset; then per step: scales i8 [halves][32 rows],
 *                   mins i8 [32] if offset, codes
 *     float forms:  f16/bf16/f32 [32 columns][32 rows]
 * Codes are unsigned (u = code + bias) in chunks of 64 bytes = 16 rows x 4 consecutive columns, the row's 4 bytes together,
 * so that one lane of a dot product of 4 bytes belongs to one row:
 *     8 bits: block b of 16 rows, column quad j (0..7): chunk b*8 + j
 *     4 bits: chunk b*4 + i holds quad i in its low and quad i+4 in its high nibbles
 *     6 bits: the low 4 bits as above, then chunk 8 + b*2 + h: bits 2f..2f+1 are the high bits of quad 4h + f
 */
#ifndef HT_CPU_KERNELS_H
#define HT_CPU_KERNELS_H

#include "base/cores.h"
#include "base/base.h"
#include "base/pool.h"
#include "model/model.h"

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
    HT_FORM_6,    /* 6 bits, f16 scale: Q5_0 */
    HT_FORM_6O,   /* Q5_1 */
    HT_FORM_6SO,  /* Q5_K */
    HT_FORM_6S16, /* 6 bits, two-level scale of 16 columns: Q6_K */
    HT_FORM_8,    /* 8 bits, f16 scale: Q8_0, IQ4_NL */
    HT_FORM_F16,
    HT_FORM_BF16,
    HT_FORM_F32,
    HT_FORM_COUNT
} ht_pack_form;

/* Sums of a step's int8 activations times -bias, ready to start an int32 accumulator: one array for each bias in use. */
typedef enum ht_sums { HT_SUMS_8, HT_SUMS_32, HT_SUMS_128, HT_SUMS_32H, HT_SUMS_COUNT } ht_sums;

typedef struct ht_form_traits {
    int bits;     /* of a code; 0: float form */
    int bias;     /* u = code + bias; w = scale * (u - bias) + ... */
    bool offset;  /* w = scale * u + offset, bias 0 */
    bool super;   /* two-level scales */
    int halves;   /* scales a step: 1, or 2 (groups of 16) */
    ht_sums sums; /* which sums take the bias back, if there is one */
    int step_bytes, head_bytes;
} ht_form_traits;
/* In the header, so that every kernel folds its row into constants. */
__attribute__((unused)) static const ht_form_traits ht_forms[HT_FORM_COUNT] = {
    /* bits, bias, offset, super, halves, sums, step_bytes, head_bytes */
    [HT_FORM_4] = {4, 8, false, false, 1, HT_SUMS_8, 64 + 512, 0},
    [HT_FORM_4O] = {4, 0, true, false, 1, HT_SUMS_8, 128 + 512, 0},
    [HT_FORM_4SO] = {4, 0, true, true, 1, HT_SUMS_8, 64 + 512, 128},
    [HT_FORM_4X] = {4, 32, false, false, 1, HT_SUMS_32, 64 + 512, 0},
    [HT_FORM_6] = {6, 32, false, false, 1, HT_SUMS_32, 64 + 768, 0},
    [HT_FORM_6O] = {6, 0, true, false, 1, HT_SUMS_8, 128 + 768, 0},
    [HT_FORM_6SO] = {6, 0, true, true, 1, HT_SUMS_8, 64 + 768, 128},
    [HT_FORM_6S16] = {6, 32, false, true, 2, HT_SUMS_32H, 64 + 768, 64},
    [HT_FORM_8] = {8, 128, false, false, 1, HT_SUMS_128, 64 + 1024, 0},
    [HT_FORM_F16] = {0, 0, false, false, 0, HT_SUMS_8, 2 * (HT_STRIP * HT_STEP), 0},
    [HT_FORM_BF16] = {0, 0, false, false, 0, HT_SUMS_8, 2 * (HT_STRIP * HT_STEP), 0},
    [HT_FORM_F32] = {0, 0, false, false, 0, HT_SUMS_8, 4 * (HT_STRIP * HT_STEP), 0},
};

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
    atomic_size_t bad; /* one more than a row of the matrix with a weight that is no number; 0: none */
} ht_packed;

/* Activations of one matmul, in the layouts the kernels read. `tokens` is the stride of the arrays below. */
typedef struct ht_acts {
    size_t tokens, cols; /* cols: multiple of 32 */
    /* int8, groups of 32 (fast): */
    int8_t *codes;                /* [cols/32][tokens][32] */
    float *scales;                /* [cols/32][tokens] */
    float *scaled_sums;           /* [cols/32][tokens]: scale * sum of codes */
    int32_t *sums[HT_SUMS_COUNT]; /* [cols/32][tokens]; 32H: [cols/32][2][tokens]; NULL: not wanted */
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

#endif
