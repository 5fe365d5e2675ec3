/* Operators that are a few loads and stores a value: NORM, GLU, ARGMAX. */

/* ---- NORM --------------------------------------------------------------------------------------------------------------- */

/* Sum of squares of x[0..n), by all work-items of the group. */
static inline float sum_of_squares(__global const float *x, uint n, __local float *shared) {
    floatv squares = (floatv)(0.0f);
    uint whole = n / VEC * VEC;
    for (uint i = get_local_id(0) * VEC; i < whole; i += LOCAL * VEC) {
        floatv v = vloadv(0, x + i);
        squares += v * v;
    }
    float sum = lanes_sum(squares);
    for (uint i = whole + get_local_id(0); i < n; i += LOCAL) sum += x[i] * x[i];
    return group_sum(sum, shared);
}

/* One group a token. mode 1: x += aux; 2: x += rms(aux) * post; then out = rms(x) * weight. */
__kernel void norm(__global float *x, ulong x_offset, uint x_stride, __global const float *aux, ulong aux_offset,
                   uint aux_stride, __global const float *post, __global const float *weight, __global float *out,
                   ulong out_offset, uint out_stride, uint n, float eps, uint mode) {
#if LOCAL > 1
    __local float shared[LOCAL];
#else
    __local float *shared = 0;
#endif
    uint t = get_group_id(0), lid = get_local_id(0), whole = n / VEC * VEC;
    __global float *xs = x + x_offset + (ulong)t * x_stride;
    __global const float *as = aux + aux_offset + (ulong)t * aux_stride;
    __global float *to = out + out_offset + (ulong)t * out_stride;
    if (mode) {
        float scale = mode == 2 ? 1.0f / sqrt(sum_of_squares(as, n, shared) / (float)n + eps) : 1.0f;
        for (uint i = lid * VEC; i < whole; i += LOCAL * VEC) {
            floatv v = vloadv(0, as + i) * scale;
            if (mode == 2) v *= vloadv(0, post + i);
            vstorev(vloadv(0, xs + i) + v, 0, xs + i);
        }
        for (uint i = whole + lid; i < n; i += LOCAL) xs[i] += as[i] * scale * (mode == 2 ? post[i] : 1.0f);
        /* every work-item reads back what it wrote itself */
    }
    float scale = 1.0f / sqrt(sum_of_squares(xs, n, shared) / (float)n + eps);
    for (uint i = lid * VEC; i < whole; i += LOCAL * VEC)
        vstorev(vloadv(0, xs + i) * scale * vloadv(0, weight + i), 0, to + i);
    for (uint i = whole + lid; i < n; i += LOCAL) to[i] = xs[i] * scale * weight[i];
}

/* ---- GLU ---------------------------------------------------------------------------------------------------------------- */

static inline floatv activate(floatv g, uint gelu) {
    if (!gelu) return g / (1.0f + expv(-g));
    floatv u = 0.7978845608028654f * (g + 0.044715f * g * g * g);
    /* (1 + tanh u) / 2 = 1 / (1 + exp(-2u)): no cancellation in either tail */
    return g / (1.0f + expv(-2.0f * u));
}

static inline float activate_one(float g, uint gelu) {
    float u = gelu ? 2.0f * 0.7978845608028654f * (g + 0.044715f * g * g * g) : g;
    return g / (1.0f + exp(-u));
}

/* act(gate) * up for RUN vectors of a token: n of them, ups `apart` from their gates. */
__kernel void glu(__global const float *in, ulong in_offset, uint in_stride, __global float *out, ulong out_offset,
                  uint out_stride, uint n, uint gelu, uint apart) {
    uint t = get_global_id(1);
    __global const float *gate = in + in_offset + (ulong)t * in_stride, *up = gate + apart;
    __global float *to = out + out_offset + (ulong)t * out_stride;
    for (uint k = 0, i = get_global_id(0) * (RUN * VEC); k < RUN && i < n; k++, i += VEC) {
        if (i + VEC <= n)
            vstorev(activate(vloadv(0, gate + i), gelu) * vloadv(0, up + i), 0, to + i);
        else
            for (uint j = i; j < n; j++) to[j] = activate_one(gate[j], gelu) * up[j];
    }
}

/* ---- ARGMAX ------------------------------------------------------------------------------------------------------------- */

static inline void better(float v, int i, float *best, int *at) {
    if (v > *best || (v == *best && i < *at)) { /* false for NaN */
        *best = v;
        *at = i;
    }
}

/* One group of PICKERS work-items a token. Lowest id of the largest; 0 if all are NaN. */
__kernel void argmax(__global const float *in, ulong in_offset, uint in_stride, __global int *out, ulong out_offset,
                     uint out_stride, uint n) {
    uint t = get_group_id(0), lid = get_local_id(0);
    __global const float *from = in + in_offset + (ulong)t * in_stride;
    float best = -INFINITY;
    int at = INT_MAX;
#if PICKERS == 1 /* 16 winners at once */
    float16 most = (float16)(-INFINITY);
    int16 where = (int16)(INT_MAX), index = (int16)(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    uint whole = n / 16 * 16;
    for (uint i = 0; i < whole; i += 16, index += 16) {
        float16 v = vload16(0, from + i);
        int16 wins = v > most | (v == most & index < where);
        most = select(most, v, wins);
        where = select(where, index, wins);
    }
    float winners[16];
    int places[16];
    vstore16(most, 0, winners);
    vstore16(where, 0, places);
    for (uint i = 0; i < 16; i++) better(winners[i], places[i], &best, &at);
    for (uint i = whole; i < n; i++) better(from[i], i, &best, &at);
#else
    __local float bests[PICKERS];
    __local int ats[PICKERS];
    for (uint i = lid; i < n; i += PICKERS) better(from[i], i, &best, &at);
    for (uint half_count = PICKERS / 2; half_count > 0; half_count /= 2) {
        bests[lid] = best;
        ats[lid] = at;
        barrier(CLK_LOCAL_MEM_FENCE);
        if (lid < half_count) better(bests[lid + half_count], ats[lid + half_count], &best, &at);
        barrier(CLK_LOCAL_MEM_FENCE);
    }
#endif
    if (lid == 0) out[out_offset + (ulong)t * out_stride] = at == INT_MAX ? 0 : at;
}
