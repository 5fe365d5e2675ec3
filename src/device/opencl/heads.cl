/* HEADS: each head's own matrix, `each` rows of a packed one, times the head's first `cols` values; heads lie `width` apart in the input,
 * each + rest in the output. Built with the weights' form and TOKENS, which one work-item computes, a row each. */

/* Rows [begin, end) of the segment, which holds rows of the operator from `first` on. */
__kernel void heads(__global const uchar *codes, __global const uchar *scales, __global const uchar *mins,
                    __global const float *in, ulong in_offset, uint in_stride, __global float *out, ulong out_offset,
                    uint out_stride, uint first, uint begin, uint end, uint cols, uint each, uint width, uint rest,
                    uint tokens) {
    uint row = begin + get_global_id(0), t0 = get_global_id(1) * TOKENS, n = min(tokens - t0, (uint)TOKENS);
    if (row >= end) return;
    uint head = (first + row) / each;
    __global const float *from = in + in_offset + (ulong)t0 * in_stride + head * width;
    float sums[TOKENS];
    for (uint t = 0; t < TOKENS; t++) sums[t] = 0.0f;
    for (uint c = 0; c < cols; c++) {
        float w = weight_at(codes, scales, mins, (cols + 31) / 32, row, c);
        for (uint t = 0; t < n; t++) sums[t] += w * from[(ulong)t * in_stride + c];
    }
    __global float *to = out + out_offset + (ulong)t0 * out_stride + (first + row) + head * rest;
    for (uint t = 0; t < n; t++) to[(ulong)t * out_stride] = sums[t];
}

/* What is handed on as it is: `rest` values of n heads from number `head` on, behind their `each` rows; then `copied` values to `last` of
 * the row. */
__kernel void copy_rest(__global const float *in, ulong in_offset, uint in_stride, __global const float *more,
                        ulong more_offset, uint more_stride, __global float *out, ulong out_offset, uint out_stride,
                        uint head, uint n, uint rest, uint each, uint width, uint cols, uint copied, uint last) {
    uint i = get_global_id(0), t = get_global_id(1);
    __global float *to = out + out_offset + (ulong)t * out_stride;
    if (i < n * rest) {
        uint h = head + i / rest, k = i % rest;
        to[h * (each + rest) + each + k] = in[in_offset + (ulong)t * in_stride + h * width + cols + k];
    } else if (i - n * rest < copied)
        to[last + i - n * rest] = more[more_offset + (ulong)t * more_stride + i - n * rest];
}
