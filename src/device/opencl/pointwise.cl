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

/* Sum of the squares of what is added, less `off` each, n values, by all work-items of the group. */
static inline float sum_of_squares(ADDENDS, uint pieces, uint n, float off, __local float *shared) {
    floatv squares = (floatv)(0.0f);
    uint whole = n / VEC * VEC;
    for (uint i = get_local_id(0) * VEC; i < whole; i += LOCAL * VEC) {
        floatv v = added(aux, p0, p1, p2, pieces, i) - off;
        squares += v * v;
    }
    float sum = lanes_sum(squares);
    for (uint i = whole + get_local_id(0); i < n; i += LOCAL) {
        float v = added_one(aux, p0, p1, p2, pieces, i) - off;
        sum += v * v;
    }
    return group_sum(sum, shared);
}

static inline float mean_of(__global const float *xs, uint n, __local float *shared) {
    floatv sums = (floatv)(0.0f);
    uint whole = n / VEC * VEC;
    for (uint i = get_local_id(0) * VEC; i < whole; i += LOCAL * VEC) sums += vloadv(0, xs + i);
    float sum = lanes_sum(sums);
    for (uint i = whole + get_local_id(0); i < n; i += LOCAL) sum += xs[i];
    return group_sum(sum, shared) / (float)n;
}

/* What a norm does, besides adding (ADDS_NORMED: what is added is normed first). */
#define ADDS 1
#define ADDS_NORMED 2
#define IS_LAYER 4
#define IS_COPY 8
#define HAS_BIAS 16

/* A token. x += sum, or rms(sum) * post; then to = norm(x) * weight + bias. */
static inline void norm_token(__global float *xs, ADDENDS, uint pieces, __global const float *post,
                              __global const float *weight, __global const float *bias, __global float *to, uint n,
                              float eps, uint mode, __local float *shared) {
    uint lid = get_local_id(0), whole = n / VEC * VEC, normed = mode & ADDS_NORMED;
    if (mode & (ADDS | ADDS_NORMED)) {
        float scale =
            normed ? 1.0f / sqrt(sum_of_squares(aux, p0, p1, p2, pieces, n, 0.0f, shared) / (float)n + eps) : 1.0f;
        for (uint i = lid * VEC; i < whole; i += LOCAL * VEC) {
            floatv v = added(aux, p0, p1, p2, pieces, i) * scale;
            if (normed) v *= vloadv(0, post + i);
            vstorev(vloadv(0, xs + i) + v, 0, xs + i);
        }
        for (uint i = whole + lid; i < n; i += LOCAL)
            xs[i] += added_one(aux, p0, p1, p2, pieces, i) * scale * (normed ? post[i] : 1.0f);
        /* every work-item reads back what it wrote itself */
    }
    if (mode & IS_COPY) {
        for (uint i = lid * VEC; i < whole; i += LOCAL * VEC) vstorev(vloadv(0, xs + i), 0, to + i);
        for (uint i = whole + lid; i < n; i += LOCAL) to[i] = xs[i];
        return;
    }
    float mean = mode & IS_LAYER ? mean_of(xs, n, shared) : 0.0f;
    float scale = 1.0f / sqrt(sum_of_squares(xs, xs, xs, xs, 0, n, mean, shared) / (float)n + eps);
    for (uint i = lid * VEC; i < whole; i += LOCAL * VEC) {
        floatv v = (vloadv(0, xs + i) - mean) * scale * vloadv(0, weight + i);
        if (mode & HAS_BIAS) v += vloadv(0, bias + i);
        vstorev(v, 0, to + i);
    }
    for (uint i = whole + lid; i < n; i += LOCAL)
        to[i] = (xs[i] - mean) * scale * weight[i] + (mode & HAS_BIAS ? bias[i] : 0.0f);
}

#if LOCAL > 1
#define SHARED __local float shared[LOCAL];
#else
#define SHARED __local float *shared = 0;
#endif

/* One group a token. */
__kernel void norm(__global float *x, ulong x_offset, uint x_stride, __global const float *aux, ulong aux_offset,
                   uint aux_stride, __global const float *post, __global const float *weight,
                   __global const float *bias, __global float *out, ulong out_offset, uint out_stride, uint n, float eps,
                   uint mode) {
    SHARED
    uint t = get_group_id(0);
    __global const float *from = aux + aux_offset + (ulong)t * aux_stride;
    norm_token(x + x_offset + (ulong)t * x_stride, from, from, from, from, 0, post, weight, bias,
               out + out_offset + (ulong)t * out_stride, n, eps, mode, shared);
}

/* The same with partial sums besides aux. */
__kernel void norm_pieces(__global float *x, ulong x_offset, uint x_stride, __global const float *aux, ulong aux_offset,
                          uint aux_stride, __global const float *post, __global const float *weight,
                          __global const float *bias, __global float *out, ulong out_offset, uint out_stride, uint n,
                          float eps, uint mode, __global const float *p0, ulong offset0, uint stride0,
                          __global const float *p1, ulong offset1, uint stride1, __global const float *p2, ulong offset2,
                          uint stride2, uint pieces) {
    SHARED
    uint t = get_group_id(0);
    norm_token(x + x_offset + (ulong)t * x_stride, aux + aux_offset + (ulong)t * aux_stride,
               p0 + offset0 + (ulong)t * stride0, p1 + offset1 + (ulong)t * stride1,
               p2 + offset2 + (ulong)t * stride2, pieces, post, weight, bias,
               out + out_offset + (ulong)t * out_stride, n, eps, mode, shared);
}

/* ---- GLU ---------------------------------------------------------------------------------------------------------------- */

/* HT_ACT_...: SILU, GELU_TANH, GELU, RELU2, SIGMOID, CLAMPED, and what the activated gate is multiplied by. GELU is x times
 * the share of a normal distribution below it, by erfc(z) / 2 of z >= 0 to 1.2e-7 of itself: a fit by Chebyshev polynomials in
 * t = 1 / (1 + z / 2) (Press et al., "Numerical Recipes", section 6.2). No cancellation in either tail. */
#define DEFINE_ACTIVATIONS(suffix, type, EXP)                                                                          \
    static inline type activate##suffix(type g, uint kind) {                                                           \
        type z, t, p;                                                                                                  \
        switch (kind) {                                                                                                \
        case 0: return g / (1.0f + EXP(-g));                                                                           \
        case 1: return g / (1.0f + EXP(-2.0f * (0.7978845608028654f * (g + 0.044715f * g * g * g))));                  \
        case 2:                                                                                                        \
            z = fabs(g) * 0.70710678f;                                                                                 \
            t = 1.0f / (1.0f + 0.5f * z);                                                                              \
            p = t * 0.17087277f - 0.82215223f;                                                                         \
            p = p * t + 1.48851587f;                                                                                   \
            p = p * t - 1.13520398f;                                                                                   \
            p = p * t + 0.27886807f;                                                                                   \
            p = p * t - 0.18628806f;                                                                                   \
            p = p * t + 0.09678418f;                                                                                   \
            p = p * t + 0.37409196f;                                                                                   \
            p = p * t + 1.00002368f;                                                                                   \
            p = p * t - 1.26551223f;                                                                                   \
            return fmax(g, 0.0f) - fabs(g) * (0.5f * t * EXP(p - z * z));                                              \
        case 3: g = fmax(g, 0.0f); return g * g;                                                                       \
        case 4: return 1.0f / (1.0f + EXP(-g));                                                                        \
        default: g = fmin(g, 7.0f); return g / (1.0f + EXP(-1.702f * g));                                              \
        }                                                                                                              \
    }                                                                                                                  \
    static inline type factor_of##suffix(type u, uint kind) {                                                          \
        return kind == 5 ? clamp(u, -7.0f, 7.0f) + 1.0f : u;                                                           \
    }
DEFINE_ACTIVATIONS(, floatv, expv)
DEFINE_ACTIVATIONS(_one, float, exp)

/* act(gate) * up for RUN vectors of a token, n values of them; not gated: act(gate). */
__kernel void glu(__global const float *in, ulong in_offset, uint in_stride, __global const float *ups, ulong up_offset,
                  uint up_stride, __global float *out, ulong out_offset, uint out_stride, uint n, uint kind, uint gated) {
    uint t = get_global_id(1);
    __global const float *gate = in + in_offset + (ulong)t * in_stride, *up = ups + up_offset + (ulong)t * up_stride;
    __global float *to = out + out_offset + (ulong)t * out_stride;
    for (uint k = 0, i = get_global_id(0) * (RUN * VEC); k < RUN && i < n; k++, i += VEC) {
        if (i + VEC <= n) {
            floatv a = activate(vloadv(0, gate + i), kind);
            if (gated) a *= factor_of(vloadv(0, up + i), kind);
            vstorev(a, 0, to + i);
        } else
            for (uint j = i; j < n; j++) {
                float a = activate_one(gate[j], kind);
                to[j] = gated ? a * factor_of_one(up[j], kind) : a;
            }
    }
}

/* ---- ARGMAX ------------------------------------------------------------------------------------------------------------- */

static inline void better(float v, int i, float *best, int *at) {
    if (v > *best || (v == *best && i < *at)) { /* false for NaN */
        *best = v;
        *at = i;
    }
}

/* cap * tanh(x / cap) of what each work-item reads itself. */
static inline void cap_some(__global float *x, uint n, float cap, uint lid) {
    uint whole = n / VEC * VEC;
    for (uint i = lid * VEC; i < whole; i += PICKERS * VEC)
        vstorev(cap - 2.0f * cap / (1.0f + expv(vloadv(0, x + i) * (2.0f / cap))), 0, x + i);
    for (uint i = whole + lid; i < n; i += PICKERS) x[i] = cap - 2.0f * cap / (1.0f + exp(x[i] * (2.0f / cap)));
#if PICKERS > 1
    barrier(CLK_GLOBAL_MEM_FENCE);
#endif
}

/* One group of PICKERS work-items a token. Lowest id of the largest; 0 if all are NaN. */
__kernel void argmax(__global float *in, ulong in_offset, uint in_stride, __global int *out, ulong out_offset,
                     uint out_stride, uint n, float cap) {
    uint t = get_group_id(0), lid = get_local_id(0);
    __global float *from = in + in_offset + (ulong)t * in_stride;
    if (cap > 0.0f) cap_some(from, n, cap, lid);
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
