/* EMBED: rows of a packed matrix by token id, times `scale`; or, `by_position`, added to what is there, by the tokens' positions. A segment holds rows [first, first + rows): ids elsewhere are
 * another launch's. RUN columns a work-item. */
__kernel void embed(__global const uchar *codes, __global const uchar *scales, __global const uchar *mins,
                    __global const int *ids, ulong ids_offset, uint ids_stride, __global float *out, ulong out_offset,
                    uint out_stride, uint first, uint rows, uint cols, float scale, uint by_position, uint position) {
    uint t = get_global_id(1), id = (by_position ? position + t : (uint)ids[ids_offset + (ulong)t * ids_stride]) - first;
    if (id >= rows) return;
    __global float *to = out + out_offset + (ulong)t * out_stride;
    uint begin = get_global_id(0) * RUN, end = min(begin + RUN, cols);
    for (uint c = begin; c < end; c++)
        to[c] = (by_position ? to[c] : 0.0f) + scale * weight_at(codes, scales, mins, (cols + 31) / 32, id, c);
}
