/* The kernels, written once over the vector primitives that the including isa_*.c defines:
 *   VW           lanes of 4 bytes (4, 8 or 16);   RV  vectors of rows a pass works on (RV * VW divides 32)
 *   TILE         tokens of an exact tile, at most 16: RV * TILE float accumulators fit the registers
 *   vf, vi       float32 and int32 vectors
 *   vf_* vi_*    loads, stores and arithmetic, see the list in isa_avx512.c
 *   KERNELS      name of the table;   ISA_NAME  its name for people
 * and, where they are to be other than those below:
 *   DOT_QUADS    defined: the file has a dot_quads; vi_dot, vi_bcast_4 are then not needed. DOT_BIAS: what it takes off 8-bit codes
 *   PANEL_STEP   defined: the file has a panel_step
 *   PICK         defined: the file has vf_pick: each lane's low four bits choose one of 16 floats
 *   SUMS         accumulators that fit the registers beside what a step's weights are made in
 *   FEW          the most tokens that have kernels of their own; of int8 activations, whose codes fill registers, FAST_FEW
 * Everything is static and forced inline with constant arguments, so that a codec costs nothing where it is not used.
 */
#include <math.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define PASS_ROWS (RV * VW)
#define PASSES (HT_STRIP / PASS_ROWS)
#define FAST_TILE 64 /* tokens whose accumulators (PASS_ROWS * FAST_TILE floats) stay in L1 beside a step of weights */
#define DEPTH 128    /* columns of an exact weight panel: PASS_ROWS * DEPTH floats stay in L1 */
#define VECTORS (HT_STRIP / VW)

#ifndef DOT_BIAS
#define DOT_BIAS 0
#endif
#ifndef SUMS
#define SUMS 16
#endif
#ifndef FEW
#define FEW HT_FEW
#endif
#ifndef FAST_FEW
#define FAST_FEW FEW
#endif
#define FAST_GROUP 4 /* tokens with int8 activations whose accumulators fit registers beside the codes */

/* ---- codecs: one step of a strip -> unsigned codes by column quads, scales, offsets --------------------------------- */

typedef struct step_view { /* where the pieces of one step lie, for one pass of rows */
    const uint8_t *head;   /* super forms */
    const uint8_t *scales, *offsets, *codes;
} step_view;

INLINE const uint8_t *step_address(ht_pack_form form, const uint8_t *strip, size_t step) {
    const ht_form_traits t = ht_forms[form];
    if (!t.span)
        return strip + step * (size_t)t.step_bytes;
    const size_t span = (size_t)t.span;
    return strip + (step / span) * ((size_t)t.head_bytes + span * (size_t)t.step_bytes) + (size_t)t.head_bytes +
           (step % span) * (size_t)t.step_bytes;
}
/* The head of the span that a step, at `here`, belongs to. */
INLINE const uint8_t *head_of(ht_pack_form form, const uint8_t *here, size_t step) {
    const ht_form_traits t = ht_forms[form];
    return here - (step % (size_t)t.span) * (size_t)t.step_bytes - (size_t)t.head_bytes;
}

INLINE bool is_bytes(ht_pack_form form) {
    return form == HT_FORM_B6 || form == HT_FORM_B6O || form == HT_FORM_B8;
}
/* Bits of a code as it is multiplied: of what names stand for, or of what is in a byte. */
INLINE int code_bits(ht_pack_form form) {
    return form == HT_FORM_4X || form == HT_FORM_B6 || form == HT_FORM_B6O || ht_forms[form].bits == 5
               ? 6
               : ht_forms[form].bits;
}

/* Byte offset of row vector `v` (0 .. 32/VW - 1) within a chunk, and its 16-row block. */
INLINE size_t lane_offset(int v) {
    return (size_t)(v * VW % 16) * 4;
}
INLINE int block_of(int v) {
    return v * VW / 16;
}

/* Codes of a column quad for row vector v, four unsigned bytes a lane: quad i of the first or the second four. */
INLINE vi quad_of(int bits, const uint8_t *codes, int v, int half, int i) {
    const uint8_t *base = codes + lane_offset(v);
    const int block = block_of(v);
    if (bits == 8)
        return vi_load(base + (block * 8 + 4 * half + i) * 64);
    const vi chunk = vi_load(base + (block * 4 + i) * 64);
    return vi_and(half ? vi_srl(chunk, 4) : chunk, vi_bcast(0x0F0F0F0F));
}

/* The high bits of four quads: quad i's are the lowest of each byte once all are shifted down i times as many. */
INLINE vi high_bits(int bits, const uint8_t *codes, int v, int half) {
    if (bits == 6)
        return vi_load(codes + lane_offset(v) + (8 + block_of(v) * 2 + half) * 64);
    const vi high = vi_load(codes + lane_offset(v) + (8 + block_of(v)) * 64);
    return half ? vi_srl(high, 4) : high;
}
INLINE vi with_high(int bits, vi quad, vi high) {
    return vi_or(quad, vi_and(vi_sll(high, 4), vi_bcast(bits == 6 ? 0x30303030 : 0x10101010)));
}

/* All eight. */
INLINE void load_codes(int bits, const uint8_t *codes, int v, vi *quads) {
    UNROLL
    for (int half = 0; half < 2; half++) {
        vi high = bits == 5 || bits == 6 ? high_bits(bits, codes, v, half) : vi_bcast(0);
        UNROLL
        for (int i = 0; i < 4; i++) {
            const vi quad = quad_of(bits, codes, v, half, i);
            quads[4 * half + i] = bits == 5 || bits == 6 ? with_high(bits, quad, high) : quad;
            high = vi_srl(high, bits - 4);
        }
    }
}

/* One column of a quad as floats: byte `k` of each lane. */
INLINE vf code_column(vi quad, int k) {
    const vi byte = k ? vi_srl(quad, 8 * k) : quad;
    return vf_from_vi(k == 3 ? byte : vi_and(byte, vi_bcast(255)));
}

/* Scales and offsets (one or two a step) of row vector v. */
INLINE void load_scales(ht_pack_form form, const uint8_t *strip, size_t step, int v, vf scale[2], vf offset[2]) {
    const uint8_t *here = step_address(form, strip, step);
    const int row = v * VW;
    if (is_bytes(form)) {
        const float *of = (const float *)(const void *)here + row;
        for (int h = 0; h < 2; h++) {
            scale[h] = vf_load(of + h * HT_STRIP);
            if (form == HT_FORM_B6O)
                offset[h] = vf_load(of + (2 + h) * HT_STRIP);
        }
        return;
    }
    if (form == HT_FORM_4SO || form == HT_FORM_5SO || form == HT_FORM_6S16) {
        const uint8_t *head = head_of(form, here, step);
        vf d = vf_half((const uint16_t *)(const void *)head + row);
        const int halves = form == HT_FORM_6S16 ? 2 : 1;
        scale[0] = vf_mul(d, vf_i8((const int8_t *)here + row));
        if (halves == 2)
            scale[1] = vf_mul(d, vf_i8((const int8_t *)here + HT_STRIP + row));
        if (form != HT_FORM_6S16) {
            vf dmin = vf_half((const uint16_t *)(const void *)(head + 64) + row);
            offset[0] = vf_mul(dmin, vf_i8((const int8_t *)here + HT_STRIP + row));
        }
        return;
    }
    scale[0] = vf_half((const uint16_t *)(const void *)here + row);
    if (form == HT_FORM_4O || form == HT_FORM_5O)
        offset[0] = vf_half((const uint16_t *)(const void *)(here + 64) + row);
}

INLINE size_t
form_codes_at(ht_pack_form form) { /* bytes before the codes of a step: fp16 rows, two rows of int8, floats */
    if (is_bytes(form))
        return form == HT_FORM_B6O ? 512 : 256;
    return ht_forms[form].offset && !ht_forms[form].span ? 128 : 64;
}
INLINE const int32_t *form_sums(ht_pack_form form, const ht_acts *acts) {
    if (form == HT_FORM_B6O)
        return acts->sums[ht_forms[form].sums];
    const int left = ht_forms[form].bias - (code_bits(form) == 8 ? DOT_BIAS : 0);
    return left ? acts->sums[ht_forms[form].sums] : NULL;
}
/* Where the sums of a step begin, of `tokens` tokens. */
INLINE const int32_t *sums_of(ht_pack_form form, const int32_t *sums, size_t step, size_t tokens) {
    return sums ? sums + step * tokens * (size_t)ht_forms[form].halves : NULL;
}

/* ---- activations ------------------------------------------------------------------------------------------------------ */

/* One group of 32 floats -> int8 with scale = max|x| / 127 (the groups llama.cpp calls Q8_0; a group of zeros has scale
 * 0). */
static void quantize_group(const float *x, size_t step, size_t t, const ht_acts *acts) {
    vf v[HT_STEP / VW], most = vf_zero();
    for (int i = 0; i < HT_STEP / VW; i++) {
        v[i] = vf_load(x + i * VW);
        most = vf_max(most, vf_abs(v[i]));
    }
    float largest = vf_hmax(most);
    float scale = largest / 127, inverse = largest > 0 ? 127 / largest : 0;
    if (!(inverse <= 3e38f))
        scale = inverse = 0; /* denormal group */
    int8_t *codes = acts->codes + (step * acts->tokens + t) * HT_STEP;
    int32_t sum[2] = {0, 0};
    for (int i = 0; i < HT_STEP / VW; i++) {
        vi q = vi_round(vf_mul(v[i], vf_bcast(inverse)));
        vi_store_i8(codes + i * VW, q);
        sum[i * VW / 16] += vi_hsum(q);
    }
    size_t at = step * acts->tokens + t;
    acts->scales[at] = scale;
    acts->scaled_sums[at] = scale * (float)(sum[0] + sum[1]);
    static const int whole[][2] = {{HT_SUMS_8, -8}, {HT_SUMS_16, -16}, {HT_SUMS_32, -32}, {HT_SUMS_128, -128}},
                     halves[][2] = {{HT_SUMS_32H, -32}, {HT_SUMS_128H, -128}};
    for (size_t i = 0; i < HT_COUNT(whole); i++)
        if (acts->sums[whole[i][0]])
            acts->sums[whole[i][0]][at] = whole[i][1] * (sum[0] + sum[1]);
    for (size_t i = 0; i < HT_COUNT(halves); i++)
        if (acts->sums[halves[i][0]]) {
            int32_t *to = acts->sums[halves[i][0]] + 2 * step * acts->tokens + t;
            to[0] = halves[i][1] * sum[0];
            to[acts->tokens] = halves[i][1] * sum[1];
        }
}

static void quantize(const float *x, size_t stride, size_t cols, size_t t0, size_t n, const ht_acts *acts) {
    for (size_t t = t0; t < t0 + n; t++) {
        size_t c = 0;
        for (; c + HT_STEP <= cols; c += HT_STEP)
            quantize_group(x + t * stride + c, c / HT_STEP, t, acts);
        if (c < cols) {
            float tail[HT_STEP] = {0};
            memcpy(tail, x + t * stride + c, (cols - c) * sizeof(float));
            quantize_group(tail, c / HT_STEP, t, acts);
        }
    }
}

/* Tokens that so few are computed as: kernels are compiled for these numbers. 0: not few. */
INLINE size_t few_of(size_t tokens) {
    static const unsigned char as[HT_FEW + 1] = {0, 1, 2, 3, 4, 6, 6, 8, 8};
    return tokens <= FEW ? as[tokens] : 0;
}

static void pack_floats(const float *const *rows, size_t cols, size_t tile, const ht_acts *acts) {
    const size_t few = few_of(acts->tokens), ld = few ? few : TILE, before = tile * TILE,
                 n = ht_min_size(TILE, acts->tokens - before);
    const bool last = before + n == acts->tokens;
    float *out = few ? acts->floats + before : acts->floats + before * acts->cols; /* the few have one tile for all */
    const size_t lanes = !last ? n : few ? few - before : TILE;
    if (ld == 1) {
        memcpy(out, rows[0], cols * sizeof(float));
        memset(out + cols, 0, (acts->cols - cols) * sizeof(float));
        return;
    }
    /* Columns: of every row a cache line is read, and each of the lines written is complete soon. */
    enum { BLOCK = 16 };
    for (size_t c = 0; c < acts->cols; c += BLOCK)
        for (size_t i = 0; i < lanes; i++) {
            const size_t end = c + BLOCK, filled = i < n ? ht_min_size(end, ht_max_size(c, cols)) : c;
            for (size_t k = c; k < filled; k++)
                out[k * ld + i] = rows[i][k];
            for (size_t k = filled; k < end; k++)
                out[k * ld + i] = 0;
        }
}

/* ---- int8 activations: strip times tokens
 * -------------------------------------------------------------------------------- */

INLINE void store_rows(const ht_packed *p, size_t strip, int v, vf value, float *y) {
    size_t row = strip * HT_STRIP + (size_t)v * VW;
    if (row + VW <= p->rows) {
        vf_store(y + row, value);
    } else if (row < p->rows) {
        float all[VW];
        vf_store(all, value);
        memcpy(y + row, all, (p->rows - row) * sizeof(float));
    }
}

INLINE vf row_bias(const ht_packed *p, size_t strip, int v) {
    return p->bias ? vf_load(p->bias + strip * HT_STRIP + (size_t)v * VW) : vf_zero();
}

/* acc[r] += sum over quads [from, to) of code * activation for r < vectors; all of the 32 columns, or one half of them. The
 * codes have `bits` bits, and DOT_BIAS is taken off those that have 8. */
#ifndef DOT_QUADS
INLINE void dot_quads(int vectors, vi *acc, vi (*quads)[8], const int8_t *x, int from, int to, int bits) {
    for (int j = from; j < to; j++) {
        vi quad = vi_bcast_4(x + 4 * j);
        for (int r = 0; r < vectors; r++)
            acc[r] = vi_dot(acc[r], quads[r][j], quad, bits == 8);
    }
}
#endif

/* sum over 32 columns of code * activation, as float, scale applied: what one step adds before the activation's own scale.
 * codes of one token's step: [32] int8; sums: this step's, stride `tokens` between halves. */
INLINE void step_dot(ht_pack_form form, int vectors, vi (*quads)[8], vf (*scale)[2], const int8_t *x,
                     const int32_t *sums, size_t half_stride, vf *out) {
    const bool halves = ht_forms[form].halves == 2, start = sums && ht_forms[form].bias;
    vi acc[RV], high[RV];
    for (int r = 0; r < vectors; r++) {
        acc[r] = start ? vi_bcast(sums[0]) : vi_bcast(0);
        high[r] = start && halves ? vi_bcast(sums[half_stride]) : vi_bcast(0);
    }
    const int bits = code_bits(form);
    dot_quads(vectors, acc, quads, x, 0, halves ? 4 : 8, bits);
    if (halves)
        dot_quads(vectors, high, quads, x, 4, 8, bits);
    for (int r = 0; r < vectors; r++) {
        out[r] = vf_mul(vf_from_vi(acc[r]), scale[r][0]);
        if (halves)
            out[r] = vf_fma(vf_from_vi(high[r]), scale[r][1], out[r]);
    }
}

/* What the offsets of one token's step add to the sum of a row vector: `at` is the step's place of this token in the
 * activations' scales. */
INLINE vf add_offsets(ht_pack_form form, const vf offset[2], const ht_acts *a, size_t at, const int32_t *sums,
                      size_t half_stride, vf sum) {
    if (!ht_forms[form].offset)
        return sum;
    if (form != HT_FORM_B6O)
        return vf_fma(offset[0], vf_bcast(a->scaled_sums[at]), sum);
    const float unit = a->scales[at] * -0x1p-5f; /* the sums are of -32 times the activations */
    sum = vf_fma(offset[0], vf_bcast(unit * (float)sums[0]), sum);
    return vf_fma(offset[1], vf_bcast(unit * (float)sums[half_stride]), sum);
}

INLINE void load_step(ht_pack_form form, int vectors, const uint8_t *strip, size_t step, int v0, vi (*quads)[8],
                      vf (*scale)[2], vf (*offset)[2]) {
    const uint8_t *codes = step_address(form, strip, step) + form_codes_at(form);
    for (int r = 0; r < vectors; r++) {
        offset[r][0] = offset[r][1] = vf_zero();
        load_scales(form, strip, step, v0 + r, scale[r], offset[r]);
        load_codes(ht_forms[form].bits, codes, v0 + r, quads[r]);
        for (int j = 0; j < 8 && form == HT_FORM_4X; j++)
            quads[r][j] = vi_pick(quads[r][j], ht_named_codes);
    }
}

INLINE void fetch_ahead(ht_pack_form form, const uint8_t *strip, size_t step) {
    const uint8_t *ahead = step_address(form, strip, step) + PREFETCH_BYTES;
    for (int line = 0; line < (ht_forms[form].step_bytes + 63) / 64; line++)
        __builtin_prefetch(ahead + line * 64);
}

#include "device/cpu/unpack_impl.h"

/* One token: accumulators in registers, weights fetched ahead; bound by memory. */
INLINE void fast_one(ht_pack_form form, const ht_packed *p, size_t strip, const ht_acts *a, float *y, uint8_t *window) {
    const uint8_t *data = is_bytes(form) ? window : p->data + strip * p->strip_bytes;
    const size_t steps = p->cols / HT_STEP;
    const int32_t *sums = form_sums(form, a);
    vf acc[32 / VW];
    for (int v = 0; v < 32 / VW; v++)
        acc[v] = row_bias(p, strip, v);
    for (size_t s = 0; s < steps; s++) {
        if (!is_bytes(form))
            fetch_ahead(form, data, s);
        else if (s % RUN_STEPS == 0)
            unpack_steps(p, strip, s, ht_min_size(s + RUN_STEPS, steps), 0, VECTORS, window);
        const vf x_scale = vf_bcast(a->scales[s]);
        const int32_t *step_sums = sums_of(form, sums, s, 1);
        for (int pass = 0; pass < PASSES; pass++) {
            vi quads[RV][8];
            vf scale[RV][2], offset[RV][2], dot[RV];
            load_step(form, RV, data, place_of(form, s), pass * RV, quads, scale, offset);
            step_dot(form, RV, quads, scale, a->codes + s * HT_STEP, step_sums, 1, dot);
            for (int r = 0; r < RV; r++) {
                vf *sum = &acc[pass * RV + r];
                *sum = vf_fma(dot[r], x_scale, *sum);
                *sum = add_offsets(form, offset[r], a, s, step_sums, 1, *sum);
            }
        }
    }
    for (int v = 0; v < 32 / VW; v++)
        store_rows(p, strip, v, acc[v], y);
}

/* Sums of a few tokens before the first step and behind the last: [tokens][HT_STRIP]. Not loops over registers: these would
 * become memory with them. */
static void begin_few(const ht_packed *p, size_t strip, size_t tokens, float *rows) {
    for (size_t t = 0; t < tokens; t++)
        for (int v = 0; v < VECTORS; v++)
            vf_store(rows + t * HT_STRIP + v * VW, row_bias(p, strip, v));
}
static void end_few(const ht_packed *p, size_t strip, size_t tokens, const float *rows, float *y, size_t stride) {
    for (size_t t = 0; t < tokens; t++)
        for (int v = 0; v < VECTORS; v++)
            store_rows(p, strip, v, vf_load(rows + t * HT_STRIP + v * VW), y + t * stride);
}

/* Where the registers do not hold all accumulators of a few tokens, some go over a run of steps at a time, whose
 * weights stay in L1, and then the others. Each such pass fetches its part of the run behind, so that memory is never
 * idle. */
typedef struct few_pass {
    const uint8_t *data; /* of the strip */
    size_t begin, end;   /* steps */
    size_t part, parts;  /* this pass of those over the run; one: the run is the strip */
    int v0;              /* row vectors from this one on, */
    size_t t0;           /* and tokens */
    float *rows;         /* [tokens][HT_STRIP] */
} few_pass;

INLINE void fetch_part(ht_pack_form form, const few_pass *pass, size_t step) {
    if (is_bytes(form))
        return; /* unpack_steps does */
    if (pass->parts == 1) {
        fetch_ahead(form, pass->data, step);
        return;
    }
    const size_t lines = (size_t)(ht_forms[form].step_bytes + 63) / 64, share = (lines + pass->parts - 1) / pass->parts;
    const uint8_t *ahead = step_address(form, pass->data, step + RUN_STEPS) + pass->part * share * 64;
    for (size_t line = 0; line < share; line++) /* always as many: a branch that is foreseen */
        __builtin_prefetch(ahead + line * 64);
}

/* Accumulator k is row vector k % vectors of token k / vectors. */
INLINE float *few_at(const few_pass *pass, int k, int vectors) {
    return pass->rows + (pass->t0 + (size_t)(k / vectors)) * HT_STRIP + (pass->v0 + k % vectors) * VW;
}

/* n tokens, n a constant: as one token, with accumulators of RV row vectors of each token in registers. */
INLINE void fast_pass(ht_pack_form form, int n, const ht_acts *a, const few_pass *pass) {
    const size_t tokens = a->tokens;
    const int32_t *sums = form_sums(form, a);
    vf sum[FAST_GROUP * RV];
    UNROLL
    for (int k = 0; k < n * RV; k++)
        sum[k] = vf_load(few_at(pass, k, RV));
    for (size_t s = pass->begin; s < pass->end; s++) {
        vi quads[RV][8];
        vf scale[RV][2], offset[RV][2];
        fetch_part(form, pass, s);
        load_step(form, RV, pass->data, place_of(form, s), pass->v0, quads, scale, offset);
        const int32_t *step_sums = sums ? sums_of(form, sums, s, tokens) + pass->t0 : NULL;
        UNROLL
        for (int t = 0; t < n; t++) {
            const size_t at = s * tokens + pass->t0 + (size_t)t;
            vf dot[RV];
            step_dot(form, RV, quads, scale, a->codes + at * HT_STEP, step_sums ? step_sums + t : NULL, tokens, dot);
            for (int r = 0; r < RV; r++) {
                vf *to = &sum[t * RV + r];
                *to = vf_fma(dot[r], vf_bcast(a->scales[at]), *to);
                *to = add_offsets(form, offset[r], a, at, step_sums ? step_sums + t : NULL, tokens, *to);
            }
        }
    }
    UNROLL
    for (int k = 0; k < n * RV; k++)
        vf_store(few_at(pass, k, RV), sum[k]);
}

INLINE void fast_few(ht_pack_form form, const ht_packed *p, size_t strip, const ht_acts *a, float *y, size_t stride,
                     uint8_t *window) {
    _Alignas(64) float rows[HT_FEW * HT_STRIP];
    const size_t steps = p->cols / HT_STEP, tokens = a->tokens, groups = (tokens + FAST_GROUP - 1) / FAST_GROUP;
    few_pass pass = {
        .data = is_bytes(form) ? window : p->data + strip * p->strip_bytes, .parts = groups * PASSES, .rows = rows};
    const size_t run = pass.parts > 1 || is_bytes(form) ? RUN_STEPS : steps;
    begin_few(p, strip, tokens, rows);
    for (; pass.begin < steps; pass.begin = pass.end) {
        pass.end = ht_min_size(pass.begin + run, steps);
        if (is_bytes(form))
            unpack_steps(p, strip, pass.begin, pass.end, 0, VECTORS, window);
        for (pass.part = 0; pass.part < pass.parts; pass.part++) {
            pass.v0 = (int)(pass.part / groups) * RV, pass.t0 = pass.part % groups * FAST_GROUP;
            switch (ht_min_size(tokens - pass.t0, FAST_GROUP)) {
            case 1:
                fast_pass(form, 1, a, &pass);
                break;
            case 2:
                fast_pass(form, 2, a, &pass);
                break;
            case 3:
                fast_pass(form, 3, a, &pass);
                break;
            default:
                fast_pass(form, FAST_GROUP, a, &pass);
            }
        }
    }
    end_few(p, strip, tokens, rows, y, stride);
}

/* Many tokens: a step's codes stay in registers while FAST_TILE tokens pass by; accumulators wait in L1. */
INLINE void fast_many(ht_pack_form form, const ht_packed *p, size_t strip, const ht_acts *a, float *y, size_t stride,
                      float *acc, uint8_t *window) {
    const uint8_t *data = is_bytes(form) ? window : p->data + strip * p->strip_bytes;
    const size_t steps = p->cols / HT_STEP, tokens = a->tokens;
    const int32_t *sums = form_sums(form, a);
    for (size_t t0 = 0; t0 < tokens; t0 += FAST_TILE) {
        const size_t n = ht_min_size(FAST_TILE, tokens - t0);
        for (int pass = 0; pass < PASSES; pass++) {
            for (int r = 0; r < RV; r++)
                for (size_t t = 0; t < n; t++)
                    vf_store(acc + t * PASS_ROWS + r * VW, row_bias(p, strip, pass * RV + r));
            for (size_t s = 0; s < steps; s++) {
                vi quads[RV][8];
                vf scale[RV][2], offset[RV][2];
                if (is_bytes(form) && s % RUN_STEPS == 0)
                    unpack_steps(p, strip, s, ht_min_size(s + RUN_STEPS, steps), pass * RV, pass * RV + RV, window);
                load_step(form, RV, data, place_of(form, s), pass * RV, quads, scale, offset);
                const size_t at = s * tokens + t0;
                const int32_t *step_sums = sums ? sums_of(form, sums, s, tokens) + t0 : NULL;
                for (size_t t = 0; t < n; t++) {
                    vf dot[RV];
                    step_dot(form, RV, quads, scale, a->codes + (at + t) * HT_STEP, step_sums ? step_sums + t : NULL,
                             tokens, dot);
                    for (int r = 0; r < RV; r++) {
                        float *sum = acc + t * PASS_ROWS + r * VW;
                        vf value = vf_fma(dot[r], vf_bcast(a->scales[at + t]), vf_load(sum));
                        value =
                            add_offsets(form, offset[r], a, at + t, step_sums ? step_sums + t : NULL, tokens, value);
                        vf_store(sum, value);
                    }
                }
            }
            for (size_t t = 0; t < n; t++)
                for (int r = 0; r < RV; r++)
                    store_rows(p, strip, pass * RV + r, vf_load(acc + t * PASS_ROWS + r * VW), y + (t0 + t) * stride);
        }
    }
}

#define FORMS(X)   \
    X(HT_FORM_4)   \
    X(HT_FORM_4O)  \
    X(HT_FORM_4SO) \
    X(HT_FORM_4X)  \
    X(HT_FORM_5) X(HT_FORM_5O) X(HT_FORM_5SO) X(HT_FORM_6S16) X(HT_FORM_8) X(HT_FORM_B6) X(HT_FORM_B6O) X(HT_FORM_B8)

/* A function a form keeps the compiler's work and the code's size in hand; that of one token stays by itself,
 * undisturbed. */
#define FAST_FUNCTIONS(FORM)                                                                                          \
    static __attribute__((noinline)) void fast_one_##FORM(const ht_packed *p, size_t s, const ht_acts *a, float *y) { \
        _Alignas(64) uint8_t window[WINDOW(FORM)];                                                                    \
        fast_one(FORM, p, s, a, y, window);                                                                           \
    }                                                                                                                 \
    static void fast_##FORM(const ht_packed *p, size_t s, const ht_acts *a, float *y, size_t stride, float *acc) {    \
        _Alignas(64) uint8_t window[WINDOW(FORM)];                                                                    \
        if (a->tokens <= FAST_FEW)                                                                                    \
            fast_few(FORM, p, s, a, y, stride, window);                                                               \
        else                                                                                                          \
            fast_many(FORM, p, s, a, y, stride, acc, window);                                                         \
    }
FORMS(FAST_FUNCTIONS)

static void strip_fast(const ht_packed *p, size_t strip, const ht_acts *a, float *y, size_t stride, float *scratch) {
    switch (ht_forms[p->form].via) {
#define FAST_CASE(FORM)                                   \
    case FORM:                                            \
        if (a->tokens == 1)                               \
            fast_one_##FORM(p, strip, a, y);              \
        else                                              \
            fast_##FORM(p, strip, a, y, stride, scratch); \
        return;
        FORMS(FAST_CASE)
    default:
        return; /* float forms have no int8 activations: the device calls strip_exact */
    }
}

/* ---- float activations
 * -------------------------------------------------------------------------------------------------------- */

/* A sum is its bias and then, column by column, fma(weight, activation, sum), however many tokens are multiplied
 * together and by which of the functions below: so it is the same to the bit. */

/* sum[i][r] += w[r] * x[i * row] for i < n, r < vectors. One loop: of nested ones the compiler would leave sums in
 * memory. */
#ifndef PANEL_STEP
INLINE void panel_step(int n, int vectors, vf *sum, const vf *w, const float *x, size_t row) {
    UNROLL
    for (int k = 0; k < n * vectors; k++)
        sum[k] = vf_fma(w[k % vectors], vf_bcast(x[(size_t)(k / vectors) * row]), sum[k]);
}
#endif

/* Of step k and tile row i: at[k * step + i * row]. */
typedef struct factor {
    const float *at;
    size_t step, row;
} factor;

/* acc[n][ld] += panel[depth][panel_ld]^T x, for PASS_ROWS columns of the panel. Both matmul and attention. */
INLINE void panel_rows(int n, const float *panel, size_t panel_ld, factor x, size_t depth, float *acc, size_t ld) {
    vf sum[TILE * RV];
    UNROLL
    for (int i = 0; i < n * RV; i++)
        sum[i] = vf_load(acc + (size_t)(i / RV) * ld + i % RV * VW);
    for (size_t k = 0; k < depth; k++) {
        vf w[RV];
        for (int r = 0; r < RV; r++)
            w[r] = vf_load(panel + k * panel_ld + r * VW);
        panel_step(n, RV, sum, w, x.at + k * x.step, x.row);
    }
    UNROLL
    for (int i = 0; i < n * RV; i++)
        vf_store(acc + (size_t)(i / RV) * ld + i % RV * VW, sum[i]);
}

/* The same for the first `rows` rows of a tile at least: the last tile of a prompt is seldom full, and with few tokens a
 * lane's share is two or three tiles. */
#define THIRD (TILE < 6 ? 1 : TILE / 3)
INLINE void panel_product(size_t rows, const float *panel, size_t panel_ld, factor x, size_t depth, float *acc,
                          size_t ld) {
    if (rows > 2 * THIRD)
        panel_rows(TILE, panel, panel_ld, x, depth, acc, ld);
    else if (rows > THIRD)
        panel_rows(2 * THIRD, panel, panel_ld, x, depth, acc, ld);
    else
        panel_rows(THIRD, panel, panel_ld, x, depth, acc, ld);
}

/* One function for all forms: a panel is floats whatever it was made of. */
static __attribute__((noinline)) void panel_tile(size_t rows, const float *panel, const float *x, size_t depth,
                                                 float *acc) {
    panel_product(rows, panel, PASS_ROWS, (factor){x, TILE, 1}, depth, acc, PASS_ROWS);
}

/* What makes weights of one step's codes, of one row vector: w = scale * code + zero, scale and zero of each half. */
typedef struct decoder {
    const uint8_t *codes;
    vf scale[2], zero[2];
    vi high; /* see high_bits */
} decoder;

INLINE decoder decoder_of(ht_pack_form form, const uint8_t *strip, size_t step, int v) {
    const ht_form_traits t = ht_forms[form];
    decoder d = {.codes = step_address(form, strip, step)};
    if (!t.bits)
        return d;
    vf offset[2] = {vf_zero(), vf_zero()};
    d.codes += form_codes_at(form);
    load_scales(form, strip, step, v, d.scale, offset);
    for (int h = 0; h < t.halves; h++)
        d.zero[h] = t.offset ? offset[h] : vf_mul(d.scale[h], vf_bcast((float)-t.bias));
    return d;
}

/* Codes of quad i of a half; quads are asked for in their order. With vf_pick a chunk as it is does for four bits. */
INLINE vi next_quad(ht_pack_form form, decoder *d, int v, int half, int i) {
    const int bits = ht_forms[form].bits;
    if (!bits)
        return vi_bcast(0);
#ifdef PICK
    if (bits == 4)
        return vi_load(d->codes + lane_offset(v) + (block_of(v) * 4 + i) * 64);
#endif
    const vi quad = quad_of(bits, d->codes, v, half, i);
    if (form == HT_FORM_4X)
        return vi_pick(quad, ht_named_codes);
    if (bits != 5 && bits != 6)
        return quad;
    d->high = i ? vi_srl(d->high, bits - 4) : high_bits(bits, d->codes, v, half);
    return with_high(bits, quad, d->high);
}

/* Column b of quad i of a half. */
INLINE vf weight_of(ht_pack_form form, const decoder *d, vi quad, int v, int half, int i, int b) {
    const ht_form_traits t = ht_forms[form];
    const size_t at = (size_t)(16 * half + 4 * i + b) * HT_STRIP + (size_t)v * VW; /* of float forms */
    if (form == HT_FORM_F32)
        return vf_load((const float *)(const void *)d->codes + at);
    if (form == HT_FORM_F16)
        return vf_half((const uint16_t *)(const void *)d->codes + at);
    if (form == HT_FORM_BF16)
        return vf_bf16((const uint16_t *)(const void *)d->codes + at);
#ifdef PICK
    if (t.bits == 4) {
        static const float plain[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
                           centred[16] = {-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7},
                           named[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
        const int shift = 8 * b + 4 * half;
        const vf code = vf_pick(shift ? vi_srl(quad, shift) : quad, vf_load(t.offset      ? plain
                                                                            : t.bias == 8 ? centred
                                                                                          : named));
        return t.offset ? vf_fma(code, d->scale[0], d->zero[0]) : vf_mul(code, d->scale[0]);
    }
#endif
    const int h = t.halves == 2 ? half : 0;
    return vf_fma(code_column(quad, b), d->scale[h], d->zero[h]);
}

/* Calls EMIT(k, w) for the columns k of one step in their order: w[vectors] are weights of the row vectors from v0 on. */
#define FOR_STEP_WEIGHTS(form, vectors, data, step, v0, EMIT) \
    do {                                                      \
        decoder of[VECTORS];                                  \
        UNROLL                                                \
        for (int r = 0; r < (vectors); r++)                   \
            of[r] = decoder_of(form, data, step, (v0) + r);   \
        FOR_HALF_WEIGHTS(form, vectors, v0, 0, EMIT);         \
        FOR_HALF_WEIGHTS(form, vectors, v0, 1, EMIT);         \
    } while (0)
#define FOR_HALF_WEIGHTS(form, vectors, v0, half, EMIT)                        \
    AS_A_LOOP                                                                  \
    for (int i = 0; i < 4; i++) {                                              \
        vi quad[VECTORS];                                                      \
        UNROLL                                                                 \
        for (int r = 0; r < (vectors); r++)                                    \
            quad[r] = next_quad(form, &of[r], (v0) + r, half, i);              \
        UNROLL                                                                 \
        for (int b = 0; b < 4; b++) {                                          \
            vf w[VECTORS];                                                     \
            UNROLL                                                             \
            for (int r = 0; r < (vectors); r++)                                \
                w[r] = weight_of(form, &of[r], quad[r], (v0) + r, half, i, b); \
            EMIT(16 * half + 4 * i + b, w);                                    \
        }                                                                      \
    }

/* n tokens, n a constant of few_of: each weight is multiplied as it is decoded, with accumulators in registers. */
INLINE void exact_few(ht_pack_form form, int n, const ht_packed *p, size_t strip, const ht_acts *a, float *y,
                      size_t stride, uint8_t *window) {
    const size_t steps = p->cols / HT_STEP, ld = (size_t)n;
    /* scales and offsets of each vector want registers, too: no more than a quarter of the accumulators */
    const int most = n <= 4 ? SUMS / 4 : SUMS / 8, vectors = most < VECTORS ? most : VECTORS;
    _Alignas(64) float rows[HT_FEW * HT_STRIP];
    few_pass pass = {.data = is_bytes(form) ? window : p->data + strip * p->strip_bytes,
                     .parts = (size_t)(VECTORS / vectors),
                     .t0 = 0,
                     .rows = rows};
    const size_t run = pass.parts > 1 || is_bytes(form) ? RUN_STEPS : steps;
    if (n > FEW)
        return;
    begin_few(p, strip, (size_t)n, rows);
    for (; pass.begin < steps; pass.begin = pass.end) {
        pass.end = ht_min_size(pass.begin + run, steps);
        if (is_bytes(form))
            unpack_steps(p, strip, pass.begin, pass.end, 0, VECTORS, window);
        for (pass.part = 0; pass.part < pass.parts; pass.part++) {
            pass.v0 = (int)pass.part * vectors;
            vf sum[HT_FEW * VECTORS];
            UNROLL
            for (int k = 0; k < n * vectors; k++)
                sum[k] = vf_load(few_at(&pass, k, vectors));
            for (size_t s = pass.begin; s < pass.end; s++) {
                const float *x = a->floats + s * HT_STEP * ld;
                fetch_part(form, &pass, s);
#define MULTIPLY(k, w) panel_step(n, vectors, sum, w, x + (size_t)(k)*ld, 1)
                FOR_STEP_WEIGHTS(form, vectors, pass.data, place_of(form, s), pass.v0, MULTIPLY);
#undef MULTIPLY
            }
            UNROLL
            for (int k = 0; k < n * vectors; k++)
                vf_store(few_at(&pass, k, vectors), sum[k]);
        }
    }
    end_few(p, strip, a->tokens, rows, y, stride);
}

INLINE void exact_many(ht_pack_form form, const ht_packed *p, size_t strip, const ht_acts *a, float *y, size_t stride,
                       float *acc, uint8_t *window) {
    const uint8_t *data = is_bytes(form) ? window : p->data + strip * p->strip_bytes;
    const size_t tiles = (a->tokens + TILE - 1) / TILE;
    _Alignas(64) float panel[DEPTH * PASS_ROWS];
    for (int pass = 0; pass < PASSES; pass++) {
        for (size_t t = 0; t < tiles * TILE; t++)
            for (int r = 0; r < RV; r++)
                vf_store(acc + t * PASS_ROWS + r * VW, row_bias(p, strip, pass * RV + r));
        for (size_t c = 0; c < p->cols; c += DEPTH) {
            const size_t depth = ht_min_size(DEPTH, p->cols - c);
            for (size_t s = 0; s < depth / HT_STEP; s++) {
                float *out = panel + s * HT_STEP * PASS_ROWS;
                const size_t step = c / HT_STEP + s;
                if (is_bytes(form) && step % RUN_STEPS == 0)
                    unpack_steps(p, strip, step, ht_min_size(step + RUN_STEPS, p->cols / HT_STEP), pass * RV,
                                 pass * RV + RV, window);
#define PUT_PANEL(k, w)          \
    for (int r = 0; r < RV; r++) \
    vf_store(out + (k)*PASS_ROWS + r * VW, (w)[r])
                FOR_STEP_WEIGHTS(form, RV, data, place_of(form, step), pass * RV, PUT_PANEL);
#undef PUT_PANEL
            }
            for (size_t tile = 0; tile < tiles; tile++)
                panel_tile(ht_min_size(TILE, a->tokens - tile * TILE), panel,
                           a->floats + tile * TILE * a->cols + c * TILE, depth, acc + tile * TILE * PASS_ROWS);
        }
        for (size_t t = 0; t < a->tokens; t++)
            for (int r = 0; r < RV; r++)
                store_rows(p, strip, pass * RV + r, vf_load(acc + t * PASS_ROWS + r * VW), y + t * stride);
    }
}

#define EXACT_FEW_CASE(FORM, N)                         \
    case N:                                             \
        exact_few(FORM, N, p, s, a, y, stride, window); \
        return;
#define EXACT_FUNCTIONS(FORM)                                                                                       \
    static void exact_##FORM(const ht_packed *p, size_t s, const ht_acts *a, float *y, size_t stride, float *acc) { \
        _Alignas(64) uint8_t window[WINDOW(FORM)];                                                                  \
        switch (few_of(a->tokens)) {                                                                                \
            EXACT_FEW_CASE(FORM, 1)                                                                                 \
            EXACT_FEW_CASE(FORM, 2)                                                                                 \
            EXACT_FEW_CASE(FORM, 3)                                                                                 \
            EXACT_FEW_CASE(FORM, 4)                                                                                 \
            EXACT_FEW_CASE(FORM, 6)                                                                                 \
            EXACT_FEW_CASE(FORM, 8) default : exact_many(FORM, p, s, a, y, stride, acc, window);                    \
        }                                                                                                           \
    }
#define ALL_FORMS(X) FORMS(X) X(HT_FORM_F16) X(HT_FORM_BF16) X(HT_FORM_F32)
ALL_FORMS(EXACT_FUNCTIONS)

static void strip_exact(const ht_packed *p, size_t strip, const ht_acts *a, float *y, size_t stride, float *scratch) {
    switch (ht_forms[p->form].via) {
#define EXACT_CASE(FORM)                               \
    case FORM:                                         \
        exact_##FORM(p, strip, a, y, stride, scratch); \
        return;
        ALL_FORMS(EXACT_CASE)
    default:
        return;
    }
}

static size_t strip_scratch(size_t tokens) {
    return PASS_ROWS * ht_max_size(FAST_TILE, (tokens + TILE - 1) / TILE * TILE);
}

#include "device/cpu/pointwise_impl.h"
#include "device/cpu/attention_impl.h"
#include "device/cpu/mixers_impl.h"

const ht_cpu_kernels KERNELS = {
    .name = ISA_NAME,
    .tile = TILE,
    .granule = THIRD,
    .quantize = quantize,
    .pack_floats = pack_floats,
    .strip_fast = strip_fast,
    .strip_exact = strip_exact,
    .strip_scratch = strip_scratch,
    .norm = norm,
    .glu = glu,
    .attention = attention,
    .attention_scratch = attention_scratch,
    .to_half = to_half,
    .rope = rope,
    .soft_cap = soft_cap,
    .convolve = convolve,
    .recur = recur,
    .over_length = over_length,
};
