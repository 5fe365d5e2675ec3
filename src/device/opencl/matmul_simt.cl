/* MATMUL for GPUs: matvec_simt for a token or a few, matmul_simt for many.
 *
 * Weights of one row's 32 columns are read as words, expanded to floats, and a work-item's neighbours read the words of
 * neighbouring rows. Built with INT8, weights stay bytes and activations are made bytes before (pack_acts): four products
 * are one instruction then where the device has it.
 */

/* 128 bits at once: every buffer and chunk begins on a multiple of 16 bytes. */
#define WORDS(codes, byte) (*(__global const uint4 *)((codes) + (byte)))

/* Integers become floats without a conversion, of which GPUs do few at a time: in the last places of a float with the
 * exponent of 2^23, bits count ones, so one bitwise operation and one multiply-add make any field of up to 8 bits that
 * lies below bit 23 a number. FIELD(w, mask, unit, zero): bits `mask`, whose lowest counts `unit`, less `zero`. */
#define FIELD(w, mask, unit, zero) \
    fma(as_float(((w) & (mask)) | 0x4b000000u), 1.0f / (unit), -(8388608.0f / (unit) + (zero)))
/* Four signed bytes. */
static inline float4 signed_bytes(uint w) {
    w ^= 0x80808080u;
    return (float4)(FIELD(w, 0xffu, 1, 128), FIELD(w, 0xff00u, 256, 128), FIELD(w >> 16, 0xffu, 1, 128),
                    FIELD(w >> 16, 0xff00u, 256, 128));
}
/* The low or the high nibbles of four bytes: as they are for forms with minimums, else less 8. */
#define NIBBLE_ZERO (MINS ? 0.0f : 8.0f)
static inline float4 low_nibbles(uint w) {
    return (float4)(FIELD(w, 0xfu, 1, NIBBLE_ZERO), FIELD(w, 0xf00u, 256, NIBBLE_ZERO),
                    FIELD(w >> 16, 0xfu, 1, NIBBLE_ZERO), FIELD(w >> 16, 0xf00u, 256, NIBBLE_ZERO));
}
static inline float4 high_nibbles(uint w) {
    return (float4)(FIELD(w, 0xf0u, 16, NIBBLE_ZERO), FIELD(w, 0xf000u, 4096, NIBBLE_ZERO),
                    FIELD(w >> 16, 0xf0u, 16, NIBBLE_ZERO), FIELD(w >> 16, 0xf000u, 4096, NIBBLE_ZERO));
}
static inline float4 halves(uint a, uint b) {
#if BITS == 17
    return as_float4((uint4)(a << 16, a & 0xffff0000u, b << 16, b & 0xffff0000u));
#else
    uint pair[2] = {a, b};
    return vload_half4(0, (const half *)pair);
#endif
}

/* The low or the high nibbles of four bytes as signed bytes: 0x78 + q with its top bit turned over is q - 8. */
static inline int nibble_bytes(uint w, uint high) {
    w = (high ? w >> 4 : w) & 0x0f0f0f0fu;
    return as_int(MINS ? w : (w + 0x78787878u) ^ 0x80808080u);
}

#if INT8
#define PARTS (32 / GROUP)
/* 32 columns of a token: their values as bytes, 127 for the largest, and a scale: 48 bytes, [token][groups of columns]. */
typedef struct record {
    int words[8];
    float scale, totals[2], unused; /* totals: of the values that are left, for forms with minimums: 16 columns each */
} record;

/* x of one token and group as a record, written for every token. Global size: (groups of columns, tokens). */
__kernel void pack_acts(__global const float *x, ulong x_offset, uint x_stride, __global record *acts, uint cols,
                        uint tokens PACK_ARGUMENTS) {
    uint g = get_global_id(0), t = get_global_id(1), n_groups = (cols + 31) / 32;
    if (g >= n_groups) return;
    x += x_offset + (ulong)t * x_stride + g * 32;
    float4 v[8], most = (float4)(0.0f);
    for (uint i = 0; i < 8; i++) {
        v[i] = vload4(i, x);
        most = fmax(most, fabs(v[i]));
    }
    float largest = fmax(fmax(most.x, most.y), fmax(most.z, most.w));
    float inverse = largest > 0.0f ? 127.0f / largest : 0.0f, scale = largest / 127.0f;
    __global record *to = acts + (ulong)t * n_groups + g;
    float totals[2] = {0.0f, 0.0f};
    for (uint i = 0; i < 8; i++) {
        char4 q = convert_char4_sat_rte(v[i] * inverse);
        to->words[i] = as_int(q);
        totals[i / 4] += (float)(q.x + q.y + q.z + q.w);
    }
    to->scale = scale;
    to->totals[0] = totals[0] * scale;
    to->totals[1] = totals[1] * scale;
    to->unused = 0.0f;
}
#endif

/* Four floats of x; `aligned`: x lies on a multiple of 16 bytes. */
static inline float4 read4(__global const float *x, bool aligned) {
    return aligned ? *(__global const float4 *)x : vload4(0, x);
}

#ifdef TOKENS
/* ---- few tokens ---------------------------------------------------------------------------------------------------------
 *
 * A group has BLOCKS blocks of 16 rows, LANES work-items a row of each: lane l takes every LANES-th group of 32 columns, of
 * all its blocks, so that what is read of x serves BLOCKS rows (to a warp, reading the same 16 bytes of x costs as much as
 * reading 512 different ones). Built with TOKENS, LANES, BLOCKS. */

#ifndef UNROLL /* groups of columns whose weights are on their way at once */
#define UNROLL (TOKENS == 1 ? 4 : 2)
#endif
#define PRAGMA_(x) _Pragma(#x)
#define PRAGMA(x) PRAGMA_(x)
#define EACH_TOKEN _Pragma("unroll") for (uint t = 0; t < TOKENS; t++)
#define EACH_BLOCK _Pragma("unroll") for (uint b = 0; b < BLOCKS; b++)
#define EACH EACH_BLOCK EACH_TOKEN

/* Columns 4i .. 4i + 3 of a row's group. `words`: the row's 16 bytes, for BITS 4. */
static inline float4 four_weights(__global const uchar *from, uint4 words, uint row, uint i) {
#if BITS == 4
    uint w = i % 4 == 0 ? words.x : i % 4 == 1 ? words.y : i % 4 == 2 ? words.z : words.w;
    return i < 4 ? low_nibbles(w) : high_nibbles(w);
#elif BITS == 8
    return signed_bytes(*(__global const uint *)(from + (i / 4 * 16 + row) * 16 + i % 4 * 4));
#elif BITS == 32
    return *(__global const float4 *)(from + (i * 16 + row) * 16);
#else
    uint2 pair = *(__global const uint2 *)(from + (i / 2 * 16 + row) * 16 + i % 2 * 8);
    return halves(pair.x, pair.y);
#endif
}

__kernel __attribute__((reqd_work_group_size(16, LANES, 1))) void matvec_simt(
    __global const uchar *codes, __global const uchar *scales, __global const uchar *mins, __global const float *bias,
    __global const float *x, ulong x_offset, uint x_stride, __global float *out, ulong out_offset, uint out_stride,
    uint rows, uint cols, uint tokens, uint has_bias, uint first_block, uint first_group,
    uint row_groups EXPERT_ARGUMENTS) {
    __local float shared[BLOCKS * TOKENS * LANES * 16];
    uint row = get_local_id(0), lane = get_local_id(1), first = get_group_id(1) * TOKENS, last = (rows - 1) / 16;
#if EXPERTS
    BEGIN_TILE((uint)get_group_id(1), TOKENS)
    first = 0;
    cols = tokens ? cols : 0; /* barriers are for all: a tile that nobody needs sums up nothing */
#endif
    uint n_groups = (cols + 31) / 32, whole = cols / 32;
    BEGIN_PART
    bool aligned = ((x_offset | x_stride) & 3) == 0;
    __global const float *xs[TOKENS];
    ulong block[BLOCKS];
    float sums[BLOCKS][TOKENS];
    /* surplus tokens and blocks repeat the last one and are not stored */
    EACH_TOKEN xs[t] = x + x_offset + (ulong)ROW_OF(min(first + t, tokens - 1)) * x_stride;
    EACH_BLOCK block[b] = (ulong)min((uint)get_group_id(0) * BLOCKS + b, last) * row_groups;
    EACH sums[b][t] = 0.0f;
#if INT8
    __global const record *acts = (__global const record *)x;
    for (uint g = lane; g < whole; g += LANES) {
        EACH_BLOCK {
            __global const uchar *from = codes + (block[b] + g) * GROUP_BYTES;
            int w[8];
#if BITS == 4
            uint4 words = WORDS(from, row * 16);
            uint pairs[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
            for (uint i = 0; i < 4; i++) {
                w[i] = nibble_bytes(pairs[i], 0);
                w[i + 4] = nibble_bytes(pairs[i], 1);
            }
#else
            int4 half0 = as_int4(WORDS(from, row * 16)), half1 = as_int4(WORDS(from, (16 + row) * 16));
            vstore4(half0, 0, w);
            vstore4(half1, 1, w);
#endif
#pragma unroll
            for (uint part = 0; part < PARTS; part++) {
                ulong factor = ((block[b] + g) * PARTS + part) * 16 + row;
                float scale = factor_at(scales, factor), low = MINS ? factor_at(mins, factor) : 0.0f;
                EACH_TOKEN {
                    __global const record *r = acts + (ulong)ROW_OF(min(first + t, tokens - 1)) * n_groups + g;
                    int sum = 0;
#pragma unroll
                    for (uint i = part * (8 / PARTS); i < (part + 1) * (8 / PARTS); i++)
                        sum = dot4(w[i], r->words[i], sum);
                    sums[b][t] += scale * r->scale * (float)sum;
                    if (MINS) sums[b][t] += low * (PARTS == 1 ? r->totals[0] + r->totals[1] : r->totals[part]);
                }
            }
        }
    }
#else
    PRAGMA(unroll UNROLL)
    for (uint g = lane; g < whole; g += LANES) {
        uint4 words[BLOCKS];
        float part[BLOCKS][TOKENS], total[TOKENS];
        EACH_BLOCK words[b] =
            BITS == 4 ? WORDS(codes, (block[b] + g) * GROUP_BYTES + row * 16) : (uint4)(0u, 0u, 0u, 0u);
        EACH part[b][t] = 0.0f;
        EACH_TOKEN total[t] = 0.0f;
#pragma unroll
        for (uint i = 0; i < 8; i++) {
            float4 v[TOKENS];
            EACH_TOKEN v[t] = read4(xs[t] + g * 32 + i * 4, aligned);
            EACH_BLOCK {
                float4 w = four_weights(codes + (block[b] + g) * GROUP_BYTES, words[b], row, i);
                EACH_TOKEN part[b][t] += w.x * v[t].x + w.y * v[t].y + w.z * v[t].z + w.w * v[t].w;
            }
            if (MINS) {
                EACH_TOKEN total[t] += (v[t].x + v[t].y) + (v[t].z + v[t].w);
            }
            if (CODED && (GROUP == 16 ? i % 4 == 3 : i == 7)) { /* the columns of a scale are done */
                EACH_BLOCK {
                    ulong factor = ((block[b] + g) * (32 / GROUP) + (GROUP == 16 ? i / 4 : 0)) * 16 + row;
                    float scale = factor_at(scales, factor), low = MINS ? factor_at(mins, factor) : 0.0f;
                    EACH_TOKEN {
                        sums[b][t] += scale * part[b][t] + low * total[t];
                        part[b][t] = 0.0f;
                    }
                }
                EACH_TOKEN total[t] = 0.0f;
            }
        }
        if (!CODED) EACH sums[b][t] += part[b][t];
    }
#endif
    if (whole < n_groups && lane == 0) /* columns that fill no group: x ends before the padding does */
        for (uint c = whole * 32; c < cols; c++) EACH_BLOCK {
                uint r = min((uint)get_group_id(0) * BLOCKS + b, last) * 16 + row;
                float w = weight_at(codes, scales, mins, row_groups, r, c);
                EACH_TOKEN sums[b][t] += w * xs[t][c];
            }
    EACH shared[((b * TOKENS + t) * LANES + lane) * 16 + row] = sums[b][t];
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint i = lane; i < BLOCKS * TOKENS; i += LANES) {
        uint r = (get_group_id(0) * BLOCKS + i / TOKENS) * 16 + row, t = first + i % TOKENS;
        if (r >= rows || t >= tokens) continue;
        float sum = has_bias ? bias[r] : 0.0f;
        for (uint l = 0; l < LANES; l++) sum += shared[(i * LANES + l) * 16 + row];
        out[out_offset + (ulong)t * out_stride + r] = sum;
    }
}

#else
/* ---- many tokens ----------------------------------------------------------------------------------------------------------
 *
 * A group computes TILE_ROWS x TILE_TOKENS sums, 32 columns at a time: both sides' slices lie in local memory, columns
 * outermost, and each work-item multiplies ITEM_ROWS x ITEM_TOKENS of them in registers, in blocks of four that lie apart
 * so that neighbours read neighbouring words. The next slice travels to registers while this one is multiplied.
 * Activations are stored turned about by their column's number, so that transposing them meets no bank twice.
 *
 * With several groups along the third dimension each takes its part of the columns and writes sums [part][token][row] to
 * out, for add_parts: so a small matrix fills a large device.
 */
#define ROW_SIDE (TILE_ROWS / ITEM_ROWS)     /* work-items along the rows */
#define TOKEN_SIDE (TILE_TOKENS / ITEM_TOKENS)
#define ITEMS (ROW_SIDE * TOKEN_SIDE)
#define ROW_FOURS (ITEM_ROWS / 4)
#define TOKEN_FOURS (ITEM_TOKENS / 4)
#define W_UNITS (TILE_ROWS * 2 / ITEMS)      /* (row, 16 columns) that a work-item expands */
#if INT8
#define X_ALL (TILE_TOKENS * 2)              /* (token, 16 columns) */
#else
#define X_ALL (TILE_TOKENS * 8)              /* (token, 4 columns) */
#endif
#define X_UNITS ((X_ALL + ITEMS - 1) / ITEMS) /* of them that it brings */
#define W_WORDS (BITS == 4 ? 2 : BITS == 8 ? 4 : BITS == 32 ? 16 : 8)
#define TURN(token, k) ((token) ^ ((((k) >> 2) & (TILE_TOKENS / 4 < 8 ? TILE_TOKENS / 4 - 1 : 7)) << 2))
#if W_UNITS * ITEMS != TILE_ROWS * 2 || ITEM_ROWS % 4 || ITEM_TOKENS % 4 || TILE_TOKENS > ITEMS || \
    (X_UNITS * ITEMS != X_ALL && !INT8)
#error "these tiles do not share out"
#endif

#if INT8
#define real int /* four columns of a row or token */
#define real4 int4
#define STEPS 8
#elif FP16
#define real half
#define real4 half4
#define to_real(v) convert_half(v)
#define STEPS 32
#else
#define real float
#define real4 float4
#define to_real(v) (v)
#define STEPS 32
#endif

typedef struct raw { /* 16 columns of a row, as stored */
    uint words[W_WORDS];
    float scale, low;
} raw;

static inline raw fetch_weights(__global const uchar *codes, __global const uchar *scales, __global const uchar *mins,
                                uint row, uint blocks, uint row_groups, uint g, uint piece) {
    raw w;
    uint block = row / 16, r = row % 16;
    if (block >= blocks) {
        for (uint i = 0; i < W_WORDS; i++) w.words[i] = 0;
        w.scale = w.low = 0.0f;
        return w;
    }
    ulong group = (ulong)block * row_groups + g;
    __global const uchar *from = codes + group * GROUP_BYTES;
#if BITS == 4
    uint2 v = *(__global const uint2 *)(from + r * 16 + piece * 8);
    w.words[0] = v.x;
    w.words[1] = v.y;
#else
#pragma unroll
    for (uint i = 0; i < W_WORDS / 4; i++) {
        uint4 v = WORDS(from, ((piece * (W_WORDS / 4) + i) * 16 + r) * 16);
        w.words[4 * i] = v.x;
        w.words[4 * i + 1] = v.y;
        w.words[4 * i + 2] = v.z;
        w.words[4 * i + 3] = v.w;
    }
#endif
    ulong factor = (group * (32 / GROUP) + (GROUP == 16 ? piece : 0)) * 16 + r;
    w.scale = CODED ? factor_at(scales, factor) : 1.0f;
    w.low = MINS ? factor_at(mins, factor) : 0.0f;
    return w;
}

#if INT8
static inline void expand(const raw *w, __local int *to, uint row, uint piece) {
#pragma unroll
    for (uint i = 0; i < (BITS == 4 ? 2 : 4); i++) {
#if BITS == 4
        to[(piece * 2 + i) * TILE_ROWS + row] = nibble_bytes(w->words[i], 0);
        to[(piece * 2 + i + 4) * TILE_ROWS + row] = nibble_bytes(w->words[i], 1);
#else
        to[(piece * 4 + i) * TILE_ROWS + row] = as_int(w->words[i]);
#endif
    }
}
#else
static inline void put4(__local real *to, uint k, uint row, float4 v) {
    to[k * TILE_ROWS + row] = to_real(v.x);
    to[(k + 1) * TILE_ROWS + row] = to_real(v.y);
    to[(k + 2) * TILE_ROWS + row] = to_real(v.z);
    to[(k + 3) * TILE_ROWS + row] = to_real(v.w);
}

static inline void expand(const raw *w, __local real *to, uint row, uint piece) {
#if BITS == 4
#pragma unroll
    for (uint i = 0; i < 2; i++) {
        put4(to, piece * 8 + i * 4, row, w->scale * low_nibbles(w->words[i]) + w->low);
        put4(to, piece * 8 + i * 4 + 16, row, w->scale * high_nibbles(w->words[i]) + w->low);
    }
#else
#pragma unroll
    for (uint i = 0; i < 4; i++) {
#if BITS == 8
        float4 v = w->scale * signed_bytes(w->words[i]) + w->low;
#elif BITS == 32
        float4 v = as_float4((uint4)(w->words[4 * i], w->words[4 * i + 1], w->words[4 * i + 2], w->words[4 * i + 3]));
#else
        float4 v = halves(w->words[2 * i], w->words[2 * i + 1]);
#endif
        put4(to, piece * 16 + i * 4, row, v);
    }
#endif
}
#endif

/* Columns col .. col + 3 of a token; 0 where there are none. */
static inline float4 fetch_x(__global const float *x, uint col, uint cols, bool aligned) {
    if (col >= cols) return (float4)(0.0f);
    __global const float *from = x + col;
    if (col + 4 <= cols) return read4(from, aligned);
    float4 v = (float4)(0.0f);
    v.x = from[0];
    if (col + 1 < cols) v.y = from[1];
    if (col + 2 < cols) v.z = from[2];
    return v;
}

__kernel __attribute__((reqd_work_group_size(ITEMS, 1, 1))) void matmul_simt(
    __global const uchar *codes, __global const uchar *scales, __global const uchar *mins, __global const float *bias,
    __global const float *x, ulong x_offset, uint x_stride, __global float *out, ulong out_offset, uint out_stride,
    uint rows, uint cols, uint tokens, uint has_bias, uint first_block, uint first_group,
    uint row_groups EXPERT_ARGUMENTS) {
    __local real ws[STEPS * TILE_ROWS] __attribute__((aligned(16)));
    __local real xs[STEPS * TILE_TOKENS] __attribute__((aligned(16)));
#if INT8
    __local float row_scale[PARTS * TILE_ROWS] __attribute__((aligned(16)));
    __local float row_low[PARTS * TILE_ROWS] __attribute__((aligned(16)));
    __local float token_scale[TILE_TOKENS], token_total[PARTS * TILE_TOKENS];
    __global const record *acts = (__global const record *)x;
    float4 factors;
#endif
    uint lid = get_local_id(0), row0 = get_group_id(0) * TILE_ROWS, token0 = get_group_id(1) * TILE_TOKENS;
    uint n_groups = (cols + 31) / 32, blocks = (rows + 15) / 16;
#if EXPERTS
    BEGIN_TILE((uint)get_group_id(1), TILE_TOKENS)
    token0 = 0;
#endif
    BEGIN_PART
    uint part_of = get_group_id(2), parts = get_num_groups(2);
    uint begin = n_groups * part_of / parts, end = n_groups * (part_of + 1) / parts;
#if EXPERTS
    end = tokens ? end : begin;
#endif
    uint my_row = lid % ROW_SIDE * 4, my_token = lid / ROW_SIDE * 4;
    bool aligned = ((x_offset | x_stride) & 3) == 0;
    x += x_offset;

    float4 sums[ITEM_TOKENS][ROW_FOURS];
#pragma unroll
    for (uint t = 0; t < ITEM_TOKENS; t++)
#pragma unroll
        for (uint r = 0; r < ROW_FOURS; r++) sums[t][r] = (float4)(0.0f);
    raw w[W_UNITS];
#if INT8
    int4 v[X_UNITS];
#define FETCH_X(g) \
    _Pragma("unroll") for (uint i = 0; i < X_UNITS; i++) { \
        uint unit = lid + i * ITEMS, token = token0 + unit % TILE_TOKENS; \
        if (unit < X_ALL) v[i] = vload4(unit / TILE_TOKENS, acts[(ulong)ROW_OF(min(token, tokens - 1)) * n_groups + (g)].words); \
    } \
    if (lid < TILE_TOKENS) factors = vload4(0, &acts[(ulong)ROW_OF(min(token0 + lid, tokens - 1)) * n_groups + (g)].scale);
#else
    float4 v[X_UNITS];
#define FETCH_X(g) \
    _Pragma("unroll") for (uint i = 0; i < X_UNITS; i++) { \
        uint unit = lid + i * ITEMS; \
        v[i] = token0 + unit / 8 < tokens ? fetch_x(x + (ulong)ROW_OF(token0 + unit / 8) * x_stride, \
                                                    (g) * 32 + unit % 8 * 4, cols, aligned) \
                                          : (float4)(0.0f); \
    }
#endif
#define FETCH(g) \
    _Pragma("unroll") for (uint i = 0; i < W_UNITS; i++) { \
        uint unit = lid + i * ITEMS; \
        w[i] = fetch_weights(codes, scales, mins, row0 + unit % TILE_ROWS, blocks, row_groups, g, unit / TILE_ROWS); \
    } \
    FETCH_X(g)
    FETCH(begin)
    for (uint g = begin; g < end; g++) {
        barrier(CLK_LOCAL_MEM_FENCE);
#pragma unroll
        for (uint i = 0; i < W_UNITS; i++) {
            uint unit = lid + i * ITEMS;
            expand(&w[i], ws, unit % TILE_ROWS, unit / TILE_ROWS);
#if INT8
            if (unit < PARTS * TILE_ROWS) {
                row_scale[unit] = w[i].scale;
                row_low[unit] = w[i].low;
            }
#endif
        }
#if INT8
#pragma unroll
        for (uint i = 0; i < X_UNITS; i++) {
            uint unit = lid + i * ITEMS, at = unit / TILE_TOKENS * 4 * TILE_TOKENS + unit % TILE_TOKENS;
            if (unit >= X_ALL) continue;
            xs[at] = v[i].x;
            xs[at + TILE_TOKENS] = v[i].y;
            xs[at + 2 * TILE_TOKENS] = v[i].z;
            xs[at + 3 * TILE_TOKENS] = v[i].w;
        }
        if (lid < TILE_TOKENS) {
            token_scale[lid] = factors.x;
            token_total[lid] = PARTS == 1 ? factors.y + factors.z : factors.y;
            if (PARTS == 2) token_total[(PARTS - 1) * TILE_TOKENS + lid] = factors.z;
        }
#else
#pragma unroll
        for (uint i = 0; i < X_UNITS; i++) {
            uint unit = lid + i * ITEMS, k = unit % 8 * 4, at = TURN(unit / 8, k);
            xs[k * TILE_TOKENS + at] = to_real(v[i].x);
            xs[(k + 1) * TILE_TOKENS + at] = to_real(v[i].y);
            xs[(k + 2) * TILE_TOKENS + at] = to_real(v[i].z);
            xs[(k + 3) * TILE_TOKENS + at] = to_real(v[i].w);
        }
#endif
        barrier(CLK_LOCAL_MEM_FENCE);
        if (g + 1 < end) {
            FETCH(g + 1)
        }
#if INT8
#pragma unroll
        for (uint p = 0; p < PARTS; p++) {
            /* Counts begin at the integer of 1.5 * 2^23: as floats they are that much too large, and no conversion is
             * needed. */
            int4 part[ITEM_TOKENS][ROW_FOURS];
#pragma unroll
            for (uint t = 0; t < ITEM_TOKENS; t++)
#pragma unroll
                for (uint r = 0; r < ROW_FOURS; r++) part[t][r] = (int4)(0x4b400000);
#pragma unroll
            for (uint k = p * (8 / PARTS); k < (p + 1) * (8 / PARTS); k++) {
                int4 a[ROW_FOURS], b[TOKEN_FOURS];
#pragma unroll
                for (uint r = 0; r < ROW_FOURS; r++)
                    a[r] = *(__local const int4 *)(ws + k * TILE_ROWS + r * (ROW_SIDE * 4) + my_row);
#pragma unroll
                for (uint t = 0; t < TOKEN_FOURS; t++)
                    b[t] = *(__local const int4 *)(xs + k * TILE_TOKENS + t * (TOKEN_SIDE * 4) + my_token);
#define DOT_ROW(sum, a, b) \
    sum = (int4)(dot4(a.x, b, sum.x), dot4(a.y, b, sum.y), dot4(a.z, b, sum.z), dot4(a.w, b, sum.w))
#pragma unroll
                for (uint t = 0; t < TOKEN_FOURS; t++)
#pragma unroll
                    for (uint r = 0; r < ROW_FOURS; r++) {
                        DOT_ROW(part[4 * t][r], a[r], b[t].x);
                        DOT_ROW(part[4 * t + 1][r], a[r], b[t].y);
                        DOT_ROW(part[4 * t + 2][r], a[r], b[t].z);
                        DOT_ROW(part[4 * t + 3][r], a[r], b[t].w);
                    }
            }
#pragma unroll
            for (uint r = 0; r < ROW_FOURS; r++) {
                uint at = p * TILE_ROWS + r * (ROW_SIDE * 4) + my_row;
                float4 scale = *(__local const float4 *)(row_scale + at), low = *(__local const float4 *)(row_low + at);
#pragma unroll
                for (uint t = 0; t < ITEM_TOKENS; t++) {
                    uint token = t / 4 * (TOKEN_SIDE * 4) + my_token + t % 4;
                    sums[t][r] += (as_float4(part[t][r]) - 12582912.0f) * (scale * token_scale[token]);
                    if (MINS) sums[t][r] += low * token_total[p * TILE_TOKENS + token];
                }
            }
        }
#else
#if FP16 /* products of a slice are added in half, slices in float */
        real4 part[ITEM_TOKENS][ROW_FOURS];
        for (uint t = 0; t < ITEM_TOKENS; t++)
            for (uint r = 0; r < ROW_FOURS; r++) part[t][r] = (real4)(0.0h);
#else
#define part sums
#endif
#pragma unroll 8
        for (uint k = 0; k < 32; k++) {
            real4 a[ROW_FOURS], b[TOKEN_FOURS];
#pragma unroll
            for (uint r = 0; r < ROW_FOURS; r++)
                a[r] = *(__local const real4 *)(ws + k * TILE_ROWS + r * (ROW_SIDE * 4) + my_row);
#pragma unroll
            for (uint t = 0; t < TOKEN_FOURS; t++)
                b[t] = *(__local const real4 *)(xs + k * TILE_TOKENS + TURN(t * (TOKEN_SIDE * 4) + my_token, k));
#pragma unroll
            for (uint t = 0; t < TOKEN_FOURS; t++)
#pragma unroll
                for (uint r = 0; r < ROW_FOURS; r++) {
                    part[4 * t][r] += a[r] * b[t].x;
                    part[4 * t + 1][r] += a[r] * b[t].y;
                    part[4 * t + 2][r] += a[r] * b[t].z;
                    part[4 * t + 3][r] += a[r] * b[t].w;
                }
        }
#if FP16
        for (uint t = 0; t < ITEM_TOKENS; t++)
            for (uint r = 0; r < ROW_FOURS; r++) sums[t][r] += convert_float4(part[t][r]);
#endif
#endif
    }
    bool aligned_out = ((out_offset | out_stride) & 3) == 0;
    out_offset += (ulong)part_of * tokens * out_stride;
#pragma unroll
    for (uint t = 0; t < ITEM_TOKENS; t++) {
        uint token = token0 + t / 4 * (TOKEN_SIDE * 4) + my_token + t % 4;
        if (token >= tokens) continue;
#pragma unroll
        for (uint r = 0; r < ROW_FOURS; r++) {
            uint row = row0 + r * (ROW_SIDE * 4) + my_row;
            __global float *to = out + out_offset + (ulong)token * out_stride + row;
            float4 sum = sums[t][r];
            if (row + 4 <= rows) {
                if (has_bias) sum += vload4(0, bias + row);
                if (aligned_out) *(__global float4 *)to = sum;
                else vstore4(sum, 0, to);
                continue;
            }
            float lanes[4] = {sum.x, sum.y, sum.z, sum.w};
            for (uint i = 0; i < 4 && row + i < rows; i++) to[i] = has_bias ? lanes[i] + bias[row + i] : lanes[i];
        }
    }
}

/* out[t][r] = sum over parts of sums[part][t][r] (+ bias, whose first row here is first_row). Global size (rows, tokens). */
__kernel void add_parts(__global const float *sums, uint parts, uint stride, __global const float *bias,
                        __global float *out, ulong out_offset, uint out_stride, uint rows, uint tokens, uint has_bias,
                        uint first_row) {
    uint r = get_global_id(0), t = get_global_id(1);
    if (r >= rows) return;
    float sum = has_bias ? bias[first_row + r] : 0.0f;
    for (uint i = 0; i < parts; i++) sum += sums[((ulong)i * tokens + t) * stride + r];
    out[out_offset + (ulong)t * out_stride + r] = sum;
}
#endif
