/* out[t][row_begin + r] = sum_c x[t][c] * W[r][c] + bias[r], group-quantised W, float32 activations and sums.
 *
 * Rows are interleaved by 16, one row a vector lane, so that weights are read as they lie and nothing is reduced across
 * lanes. Explicit vectors suit CPU drivers (PoCL does not vectorise across work-items here); a GPU runs the same code,
 * slowly: its own variant is a later row of the host's table.
 *
 * Of one block of 16 rows, one group of 32 columns after another:
 *     scales, offsets   float [16]
 *     codes, BITS 4     uchar [16][16]: byte j holds columns j (low nibble) and j + 16 (high), each code + 8
 *     codes, BITS 8     char  [32][16]
 * Built with BITS and TILE (tokens a work-item computes at once: each weight is unpacked once a tile).
 */
#if BITS == 4
#define GROUP_BYTES 256
#else
#define GROUP_BYTES 512
#endif

/* Sum of every group of 32 activations, [tokens][groups]: what an offset is multiplied by. */
__kernel void group_sums(__global const float *x, ulong x_offset, uint x_stride, __global float *sums, uint groups) {
    uint g = get_global_id(0), t = get_global_id(1);
    __global const float *from = x + x_offset + (ulong)t * x_stride + g * 32;
    float16 v = vload16(0, from) + vload16(1, from);
    float8 a = v.lo + v.hi;
    float4 b = a.lo + a.hi;
    sums[(ulong)t * groups + g] = (b.x + b.y) + (b.z + b.w);
}

__kernel void matmul(__global const uchar *codes, __global const float *scales, __global const float *offsets,
                     __global const float *bias, __global const float *x, ulong x_offset, uint x_stride,
                     __global const float *sums, __global float *out, ulong out_offset, uint out_stride,
                     uint rows, uint groups, uint tokens, uint has_offset) {
    uint block = get_global_id(0), first = get_global_id(1) * TILE;
    if (block * 16 >= rows) return; /* the grid may be rounded up */

    /* The last tile may be short: its surplus tokens repeat the last one and are not stored. */
    __global const float *xs[TILE];
    float16 even[TILE], odd[TILE]; /* two sums a token: additions do not wait for each other */
#pragma unroll
    for (uint i = 0; i < TILE; i++) {
        xs[i] = x + x_offset + (ulong)min(first + i, tokens - 1) * x_stride;
        even[i] = vload16(block, bias);
        odd[i] = (float16)(0.0f);
    }
    for (uint g = 0; g < groups; g++) {
        ulong group = (ulong)block * groups + g;
        float16 scale = vload16(group, scales);
#if BITS == 4
        __global const uchar *from = codes + group * GROUP_BYTES;
        for (uint j = 0; j < 16; j++) {
            uchar16 pair = vload16(j, from);
            float16 low = (convert_float16(pair & (uchar16)(15)) - 8.0f) * scale;
            float16 high = (convert_float16(pair >> (uchar16)(4)) - 8.0f) * scale;
            uint c = g * 32 + j, d = c + 16;
#else
        __global const char *from = (__global const char *)(codes + group * GROUP_BYTES);
        for (uint j = 0; j < 32; j += 2) {
            float16 low = convert_float16(vload16(j, from)) * scale;
            float16 high = convert_float16(vload16(j + 1, from)) * scale;
            uint c = g * 32 + j, d = c + 1;
#endif
#pragma unroll
            for (uint i = 0; i < TILE; i++) {
                even[i] += xs[i][c] * low;
                odd[i] += xs[i][d] * high;
            }
        }
        if (has_offset) {
            float16 offset = vload16(group, offsets);
#pragma unroll
            for (uint i = 0; i < TILE; i++) even[i] += sums[(ulong)min(first + i, tokens - 1) * groups + g] * offset;
        }
    }
#pragma unroll
    for (uint i = 0; i < TILE; i++) {
        if (first + i >= tokens) continue;
        __global float *to = out + out_offset + (ulong)(first + i) * out_stride + block * 16;
        float16 sum = even[i] + odd[i];
        if (block * 16 + 16 <= rows) {
            vstore16(sum, 0, to);
        } else { /* the slice's last rows: what lies behind them belongs to another device */
            float lanes[16];
            vstore16(sum, 0, lanes);
            for (uint r = 0; r < rows - block * 16; r++) to[r] = lanes[r];
        }
    }
}
