/* Operators that are a few loads and stores a value: NORM, GLU, ARGMAX. */

/* ---- NORM --------------------------------------------------------------------------------------------------------------- */

/* What NORM adds: aux, then up to three pieces. `pieces` is a constant where there are none. */
#define ADDENDS __global const float *aux, __global const float *p0, __global const float *p1, __global const float *p2

static inline floatv added(ADDENDS, uint pieces, uint i) {
    floatv v = vloadv(0, aux + i);
    if (pieces > 0) v += vloadv(0, p0 + i);
    if (pieces > 1) v += vloadv(0, p1 + i);
    if (pieces > 2) v += vloadv(0, p2 + i);
    return v;
}

static inline float added_one(ADDENDS, uint pieces, uint i) {
    float v = aux[i];
    if (pieces > 0) v += p0[i];
    if (pieces > 1) v += p1[i];
    if (pieces > 2) v += p2[i];
    return v;
}

/* Sum of squares of what is added, n values, by all work-items of the group. */
static inline float sum_of_squares(ADDENDS, uint pieces, uint n, __local float *shared) {
    floatv squares = (floatv)(0.0f);
    uint whole = n / VEC * VEC;
    for (uint i = get_local_id(0) * VEC; i < whole; i += LOCAL * VEC) {
        floatv v = added(aux, p0, p1, p2, pieces, i);
        squares += v * v;
    }
    float sum = lanes_sum(squares);
    for (uint i = whole + get_local_id(0); i < n; i += LOCAL) {
        float v = added_one(aux, p0, p1, p2, pieces, i);
        sum += v * v;
    }
    return group_sum(sum, shared);
}

/* A token. mode 1: x += sum; 2: x += rms(sum) * post; then to = rms(x) * weight. */
static inline void norm_token(__global float *xs, ADDENDS, uint pieces, __global const float *post,
                              __global const float *weight, __global float *to, uint n, float eps, uint mode,
                              __local float *shared) {
    uint lid = get_local_id(0), whole = n / VEC * VEC;
    if (mode) {
        float scale =
            mode == 2 ? 1.0f / sqrt(sum_of_squares(aux, p0, p1, p2, pieces, n, shared) / (float)n + eps) : 1.0f;
        for (uint i = lid * VEC; i < whole; i += LOCAL * VEC) {
            floatv v = added(aux, p0, p1, p2, pieces, i) * scale;
            if (mode == 2) v *= vloadv(0, post + i);
            vstorev(vloadv(0, xs + i) + v, 0, xs + i);
        }
        for (uint i = whole + lid; i < n; i += LOCAL)
            xs[i] += added_one(aux, p0, p1, p2, pieces, i) * scale * (mode == 2 ? post[i] : 1.0f);
        /* every work-item reads back what it wrote itself */
    }
    float scale = 1.0f / sqrt(sum_of_squares(xs, xs, xs, xs, 0, n, shared) / (float)n + eps);
    for (uint i = lid * VEC; i < whole; i += LOCAL * VEC)
        vstorev(vloadv(0, xs + i) * scale * vloadv(0, weight + i), 0, to + i);
    for (uint i = whole + lid; i < n; i += LOCAL) to[i] = xs[i] * scale * weight[i];
}

#if LOCAL > 1
#define SHARED __local float shared[LOCAL];
#else
#define SHARED __local float *shared = 0;
#endif

/* One group a token. */
__kernel void norm(__global float *x, ulong x_offset, uint x_stride, __global const float *aux, ulong aux_offset,
                   uint aux_stride, __global const float *post, __global const float *weight, __global float *out,
                   ulong out_offset, uint out_stride, uint n, float eps, uint mode) {
    SHARED
    uint t = get_group_id(0);
    __global const float *from = aux + aux_offset + (ulong)t * aux_stride;
    norm_token(x + x_offset + (ulong)t * x_stride, from, from, from, from, 0, post, weight,
               out + out_offset + (ulong)t * out_stride, n, eps, mode, shared);
}

/* The same with partial sums besides aux. */
__kernel void norm_pieces(__global float *x, ulong x_offset, uint x_stride, __global const float *aux, ulong aux_offset,
                          uint aux_stride, __global const float *post, __global const float *weight,
                          __global float *out, ulong out_offset, uint out_stride, uint n, float eps, uint mode,
                          __global const float *p0, ulong offset0, uint stride0, __global const float *p1,
                          ulong offset1, uint stride1, __global const float *p2, ulong offset2, uint stride2,
                          uint pieces) {
    SHARED
    uint t = get_group_id(0);
    norm_token(x + x_offset + (ulong)t * x_stride, aux + aux_offset + (ulong)t * aux_stride,
               p0 + offset0 + (ulong)t * stride0, p1 + offset1 + (ulong)t * stride1,
               p2 + offset2 + (ulong)t * stride2, pieces, post, weight, out + out_offset + (ulong)t * out_stride, n,
               eps, mode, shared);
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
    if (lid == 0) out[out_offset + (ulong)t * out_stride] = at == INT_MAX ? -1 : at;
}
