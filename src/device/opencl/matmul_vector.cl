/* MATMUL for drivers of CPUs: explicit vectors of 16 lanes, one work-item a group. A lane is a row, so that weights are
 * read as they lie and nothing is reduced across lanes.
 *
 * Every core of a CPU has few registers and a small first-level cache, and that decides the shape (Goto and van de Geijn,
 * "Anatomy of high-performance matrix multiplication", 2008): a panel of DEPTH columns of 32 rows is expanded to floats
 * once a run of tokens and stays in the first-level cache; tiles of TILE tokens x 32 rows are multiplied with all their
 * sums in registers. Activations are packed so that a tile reads one stream.
 */

/* ---- weights as vectors ---------------------------------------------------------------------------------------------- */

/* Vector i of a block's scales or minimums. */
static inline float16 factors_of(__global const uchar *factors, ulong i) {
#if HALF_SCALES
    return vload_half16(i, (__global const half *)factors);
#else
    return vload16(i, (__global const float *)factors);
#endif
}

#if BITS == 4
/* Nibbles as floats, less 8 where the form has no minimums; high ones 16 times too large. In the last place of a float
 * with the exponent of 2^23 counts ones: a nibble put there with one bitwise operation needs no conversion. */
#define ONES 0x4b000000u /* 8388608.0f */
static inline float16 low_codes(uint16 pair) { return as_float16((pair & 15u) | ONES) - (MINS ? 8388608.0f : 8388616.0f); }
static inline float16 high_codes(uint16 pair) {
    return as_float16((pair & 240u) | ONES) - (MINS ? 8388608.0f : 8388736.0f);
}
#define HIGH_SCALE 0.0625f
#elif BITS == 8
static inline float16 code_vector(__global const uchar *from, uint j) {
    return convert_float16(vload16(j, (__global const char *)from));
}
#else
/* Column j of a block. */
static inline float16 weight_vector(__global const uchar *from, ulong j) {
#if BITS == 32
    return vload16(j, (__global const float *)from);
#elif BITS == 17
    return as_float16(convert_uint16(vload16(j, (__global const ushort *)from)) << 16);
#else
    return vload_half16(j, (__global const half *)from);
#endif
}
#endif

/* Stores 16 rows of one token, fewer at the end: what lies behind them belongs to another device. */
static inline void store_rows(float16 sum, uint block, uint rows, __global const float *bias, uint has_bias,
                              __global float *to) {
    if (has_bias) sum += vload16(block, bias);
    if (block * 16 + 16 <= rows) {
        vstore16(sum, block, to);
    } else {
        float lanes[16];
        vstore16(sum, 0, lanes);
        for (uint r = block * 16; r < rows; r++) to[r] = lanes[r - block * 16];
    }
}

#ifdef TOKENS
/* ---- few tokens: weights stream by ------------------------------------------------------------------------------------ */

#ifndef BLOCKS /* that a work-item computes: reads in flight, against registers */
#define BLOCKS (TOKENS > 2 ? 1 : 2)
#endif
#define EACH_BLOCK _Pragma("unroll") for (uint b = 0; b < BLOCKS; b++)
#define EACH_TOKEN _Pragma("unroll") for (uint t = 0; t < TOKENS; t++)
#define EACH EACH_BLOCK EACH_TOKEN

/* Sums stay unscaled within a group: one multiplication a group instead of one a weight. Quantised matrices have whole
 * groups of columns; others are read to `cols`. Past the last block or token the last one is computed again and not
 * stored. */
WIDE __kernel void matvec_vector(__global const uchar *codes, __global const uchar *scales, __global const uchar *mins,
                                 __global const float *bias, __global const float *x, ulong x_offset, uint x_stride,
                                 __global float *out, ulong out_offset, uint out_stride, uint rows, uint cols,
                                 uint tokens, uint has_bias, uint first_block, uint first_group,
                                 uint row_groups EXPERT_ARGUMENTS) {
#if EXPERTS
    BEGIN_TILE((uint)get_global_id(1), TOKENS)
    if (!tokens) return;
#endif
    BEGIN_PART
    uint first = get_global_id(0) * BLOCKS, last = (rows - 1) / 16, n_groups = (cols + 31) / 32;
    if (first > last) return;
    __global const float *xs[TOKENS];
    __global const uchar *from[BLOCKS];
    float16 sums[BLOCKS][TOKENS];
    EACH_TOKEN xs[t] = x + x_offset + (ulong)ROW_OF(min(t, tokens - 1)) * x_stride;
    EACH_BLOCK from[b] = codes + (ulong)min(first + b, last) * row_groups * GROUP_BYTES;
    EACH sums[b][t] = 0.0f;
#if CODED
    ulong group[BLOCKS];
    EACH_BLOCK group[b] = (ulong)min(first + b, last) * row_groups * (32 / GROUP);
    for (uint g = 0; g < n_groups; g++) {
#if BITS == 4
        float16 low[BLOCKS][TOKENS], high[BLOCKS][TOKENS];
        EACH low[b][t] = high[b][t] = 0.0f;
#pragma unroll 4
        for (uint j = 0; j < 16; j++) {
            EACH_BLOCK {
                uint16 pair = convert_uint16(vload16(j, from[b]));
                float16 w = low_codes(pair), v = high_codes(pair);
                EACH_TOKEN {
                    low[b][t] += w * xs[t][j];
                    high[b][t] += v * xs[t][j + 16];
                }
            }
        }
        EACH sums[b][t] += (low[b][t] + high[b][t] * HIGH_SCALE) * factors_of(scales, group[b] + g);
#else
        for (uint part = 0; part < 32 / GROUP; part++) {
            float16 even[BLOCKS][TOKENS], odd[BLOCKS][TOKENS];
            EACH even[b][t] = odd[b][t] = 0.0f;
#pragma unroll 4
            for (uint j = part * GROUP; j < part * GROUP + GROUP; j += 2) {
                EACH_BLOCK {
                    float16 w = code_vector(from[b], j), v = code_vector(from[b], j + 1);
                    EACH_TOKEN {
                        even[b][t] += w * xs[t][j];
                        odd[b][t] += v * xs[t][j + 1];
                    }
                }
            }
            EACH sums[b][t] += (even[b][t] + odd[b][t]) * factors_of(scales, group[b] + g * (32 / GROUP) + part);
        }
#endif
#if MINS
#if GROUP == 32
        EACH_TOKEN {
            float total = lanes_sum16(vload16(0, xs[t]) + vload16(1, xs[t]));
            EACH_BLOCK sums[b][t] += total * factors_of(mins, group[b] + g);
        }
#else
        for (uint part = 0; part < 2; part++) EACH_TOKEN {
                float total = lanes_sum16(vload16(part, xs[t]));
                EACH_BLOCK sums[b][t] += total * factors_of(mins, group[b] + 2 * g + part);
            }
#endif
#endif
        EACH_BLOCK from[b] += GROUP_BYTES;
        EACH_TOKEN xs[t] += 32;
    }
#else
    float16 odd[BLOCKS][TOKENS];
    EACH odd[b][t] = 0.0f;
    uint c = 0;
#pragma unroll 4
    for (; c + 1 < cols; c += 2) {
        EACH_BLOCK {
            float16 w = weight_vector(from[b], c), v = weight_vector(from[b], c + 1);
            EACH_TOKEN {
                sums[b][t] += w * xs[t][c];
                odd[b][t] += v * xs[t][c + 1];
            }
        }
    }
    if (c < cols) EACH sums[b][t] += weight_vector(from[b], c) * xs[t][c];
    EACH sums[b][t] += odd[b][t];
#endif
    EACH if (first + b <= last && t < tokens)
        store_rows(sums[b][t], first + b, rows, bias, has_bias, out + out_offset + (ulong)t * out_stride);
}

#else
/* ---- many tokens: panels and tiles ------------------------------------------------------------------------------------ */

/* Built with TILE, tokens multiplied at once (12: 24 sums, two weights and an activation in 32 registers), and RUN, tiles a
 * panel is used for at most (8: 12 KiB of sums that wait between panels). */
#define DEPTH 128 /* columns of a panel: 16 KiB */

/* Activations as the tiles want them: [tile][padded columns][TILE], zeros past the columns and tokens. Global size:
 * (groups of columns, tiles). */
__kernel void pack_acts(__global const float *x, ulong x_offset, uint x_stride, __global float *acts, uint cols,
                        uint tokens PACK_ARGUMENTS) {
    uint first = get_global_id(0) * 32, tile = get_global_id(1), n_groups = get_global_size(0);
    __global float *to = acts + ((ulong)tile * n_groups * 32 + first) * TILE;
#if EXPERTS
    uint n = min(cols - first, 32u), m = plan[4 * tile + 1], place0 = tile * TILE;
    x += x_offset + first;
    for (uint t = 0; t < TILE && m; t++) {
        __global const float *row = x + (ulong)ROW_OF(min(t, m - 1)) * x_stride;
        for (uint c = 0; c < 32; c++) to[c * TILE + t] = c < n && t < m ? row[c] : 0.0f;
    }
#else
    uint n = min(cols - first, 32u), m = min(tokens - tile * TILE, (uint)TILE);
    x += x_offset + (ulong)tile * TILE * x_stride + first;
    if (n == 32 && m == TILE) {
        for (uint c = 0; c < 32; c++)
            for (uint t = 0; t < TILE; t++) to[c * TILE + t] = x[(ulong)t * x_stride + c];
    } else {
        for (uint c = 0; c < 32; c++)
            for (uint t = 0; t < TILE; t++) to[c * TILE + t] = c < n && t < m ? x[(ulong)t * x_stride + c] : 0.0f;
    }
#endif
}

/* One group of a block as floats: column j to to[2 * j]. */
static inline void expand_group(__global const uchar *codes, __global const uchar *scales, __global const uchar *mins,
                                ulong group, float16 *to) {
    __global const uchar *from = codes + group * GROUP_BYTES;
#if !CODED
    for (uint j = 0; j < 32; j++) to[2 * j] = weight_vector(from, j);
#else
    for (uint part = 0; part < 32 / GROUP; part++) {
        float16 scale = factors_of(scales, group * (32 / GROUP) + part);
#if MINS
        float16 minimum = factors_of(mins, group * (32 / GROUP) + part);
#define WEIGHT(code, s) ((code) * (s) + minimum)
#else
#define WEIGHT(code, s) ((code) * (s))
#endif
#if BITS == 4
        for (uint j = 0; j < 16; j++) {
            uint16 pair = convert_uint16(vload16(j, from));
            to[2 * j] = WEIGHT(low_codes(pair), scale);
            to[2 * j + 32] = WEIGHT(high_codes(pair), scale * HIGH_SCALE);
        }
#else
        for (uint j = part * GROUP; j < part * GROUP + GROUP; j++) to[2 * j] = WEIGHT(code_vector(from, j), scale);
#endif
    }
#endif
}

/* sums[token][2] (+)= acts[depth][TILE] * panel[depth][2] for the first n tokens of a tile. A panel is summed by itself
 * first: its rounding errors do not meet those of all others. */
#define DEFINE_TILE(n)                                                                                             \
    static inline void tile_##n(__global const float *acts, const float16 *panel, uint depth, float16 *sums,       \
                                uint more) {                                                                       \
        float16 a[n], b[n];                                                                                        \
        _Pragma("unroll") for (uint t = 0; t < n; t++) a[t] = b[t] = 0.0f;                                         \
        for (uint k = 0; k < depth; k++) {                                                                         \
            float16 u = panel[2 * k], v = panel[2 * k + 1];                                                        \
            _Pragma("unroll") for (uint t = 0; t < n; t++) {                                                       \
                float16 s = acts[k * TILE + t];                                                                    \
                a[t] += s * u;                                                                                     \
                b[t] += s * v;                                                                                     \
            }                                                                                                      \
        }                                                                                                          \
        _Pragma("unroll") for (uint t = 0; t < n; t++) {                                                           \
            sums[2 * t] = more ? sums[2 * t] + a[t] : a[t];                                                        \
            sums[2 * t + 1] = more ? sums[2 * t + 1] + b[t] : b[t];                                                \
        }                                                                                                          \
    }
DEFINE_TILE(4)
DEFINE_TILE(8)
DEFINE_TILE(12)

/* x holds packed activations. Global size: (pairs of blocks, runs of tiles; at least tiles / RUN). */
WIDE __kernel void matmul_vector(__global const uchar *codes, __global const uchar *scales, __global const uchar *mins,
                                 __global const float *bias, __global const float *x, ulong x_offset, uint x_stride,
                                 __global float *out, ulong out_offset, uint out_stride, uint rows, uint cols,
                                 uint tokens, uint has_bias, uint first_block, uint first_group,
                                 uint row_groups EXPERT_ARGUMENTS) {
#if EXPERTS
    /* the first tile of a run of an expert's does all of it */
    uint begin = get_global_id(1);
    if (!plan[4 * begin + 1] || plan[4 * begin + 2] % RUN) return;
    uint end = begin + min(plan[4 * begin + 3], (uint)RUN);
    first_block += plan[4 * begin] * expert_blocks;
    tokens = (end - 1) * TILE + plan[4 * end - 3];
#endif
    BEGIN_PART
    uint first = get_global_id(0) * 2, last = (rows - 1) / 16, n_groups = (cols + 31) / 32;
#if !EXPERTS
    uint n_tiles = (tokens + TILE - 1) / TILE, n_runs = get_global_size(1), run = get_global_id(1);
    uint begin = n_tiles * run / n_runs, end = n_tiles * (run + 1) / n_runs;
#endif
    uint second = min(first + 1, last);
    float16 panel[DEPTH * 2], sums[RUN * TILE * 2];
    for (uint g = 0; g < n_groups; g += DEPTH / 32) {
        uint n = min(n_groups - g, (uint)(DEPTH / 32));
        for (uint i = 0; i < n; i++) {
            expand_group(codes, scales, mins, (ulong)first * row_groups + g + i, panel + i * 64);
            expand_group(codes, scales, mins, (ulong)second * row_groups + g + i, panel + i * 64 + 1);
        }
        for (uint tile = begin; tile < end; tile++) {
            __global const float *acts = x + x_offset + ((ulong)tile * n_groups + g) * 32 * TILE;
            float16 *to = sums + (tile - begin) * TILE * 2;
            uint left = tokens - tile * TILE;
            if (left > 8)
                tile_12(acts, panel, n * 32, to, g);
            else if (left > 4)
                tile_8(acts, panel, n * 32, to, g);
            else
                tile_4(acts, panel, n * 32, to, g);
        }
    }
    for (uint t = begin * TILE; t < min(end * TILE, tokens); t++) {
        __global float *to = out + out_offset + (ulong)t * out_stride;
        store_rows(sums[(t - begin * TILE) * 2], first, rows, bias, has_bias, to);
        if (second != first) store_rows(sums[(t - begin * TILE) * 2 + 1], second, rows, bias, has_bias, to);
    }
}
#endif
