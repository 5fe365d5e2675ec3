/* What families do to streams beside adding and norming: special NORMs, sparse GLUs, MIX. One group a token; streams.h of the
 * CPU says the same in plain loops. */
#if LOCAL > 1
#define SHARED __local float shared[LOCAL];
#define TOGETHER barrier(CLK_GLOBAL_MEM_FENCE);
#else
#define SHARED __local float *shared = 0;
#define TOGETHER
#endif
#define EACH(i, n) for (uint i = get_local_id(0); i < (n); i += LOCAL)

static inline float squares_of(__global const float *x, uint n, __local float *shared) {
    float sum = 0.0f;
    EACH(i, n) sum += x[i] * x[i];
    return group_sum(sum, shared);
}

/* ---- NORM --------------------------------------------------------------------------------------------------------------- */

#define FIRST 1       /* aux is added */
#define SECOND 2      /* pieces from number `own` on are another block's */
#define FIRST_NORMED 4
#define SECOND_NORMED 8
#define SUM_NORMED 16
#define REPLACES 32
#define ADDS_NORMED 64
#define IS_LAYER 128
#define IS_COPY 256
#define HAS_BIAS 512

#define ADDENDS                                                                                                   \
    __global const float *aux, __global const float *p0, __global const float *p1, __global const float *p2,      \
        uint pieces, uint own, uint mode
#define GIVEN aux, p0, p1, p2, pieces, own, mode

static inline float first_of(ADDENDS, uint i) {
    float v = mode & FIRST ? aux[i] : 0.0f;
    if (own > 0) v += p0[i];
    if (own > 1) v += p1[i];
    if (own > 2) v += p2[i];
    return v;
}

static inline float second_of(ADDENDS, uint i) {
    float v = 0.0f;
    if (pieces > 0 && own < 1) v += p0[i];
    if (pieces > 1 && own < 2) v += p1[i];
    if (pieces > 2 && own < 3) v += p2[i];
    return v;
}

/* Sum of the squares of the first, the second, or both as they are added. */
static inline float squares_added(ADDENDS, uint which, float s0, float s1, __global const float *w0,
                                  __global const float *w1, uint n, __local float *shared) {
    float sum = 0.0f;
    EACH(i, n) {
        float v = which & 1 ? first_of(GIVEN, i) * s0 * (mode & FIRST_NORMED && which == 3 ? w0[i] : 1.0f) : 0.0f;
        v += which & 2 ? second_of(GIVEN, i) * s1 * (mode & SECOND_NORMED && which == 3 ? w1[i] : 1.0f) : 0.0f;
        sum += v * v;
    }
    return group_sum(sum, shared);
}

__kernel void norm_special(__global float *x, ulong x_offset, uint x_stride, __global const float *aux,
                           ulong aux_offset, uint aux_stride, __global const float *w0, __global const float *w1,
                           __global const float *post, __global const float *weight, __global const float *bias,
                           __global float *out, ulong out_offset, uint out_stride, uint n, float eps, float post_eps,
                           float stream_scale, uint mode, __global const float *p0, ulong offset0, uint stride0,
                           __global const float *p1, ulong offset1, uint stride1, __global const float *p2,
                           ulong offset2, uint stride2, uint pieces, uint own) {
    SHARED
    uint t = get_group_id(0);
    x += x_offset + (ulong)t * x_stride;
    aux += aux_offset + (ulong)t * aux_stride;
    out += out_offset + (ulong)t * out_stride;
    p0 += offset0 + (ulong)t * stride0;
    p1 += offset1 + (ulong)t * stride1;
    p2 += offset2 + (ulong)t * stride2;
    float s0 = 1.0f, s1 = 1.0f, s = 1.0f;
    if (mode & FIRST_NORMED)
        s0 = 1.0f / sqrt(squares_added(GIVEN, 1, 1.0f, 1.0f, w0, w1, n, shared) / (float)n + post_eps);
    if (mode & SECOND_NORMED)
        s1 = 1.0f / sqrt(squares_added(GIVEN, 2, 1.0f, 1.0f, w0, w1, n, shared) / (float)n + post_eps);
    if (mode & SUM_NORMED)
        s = 1.0f / sqrt(squares_added(GIVEN, 3, s0, s1, w0, w1, n, shared) / (float)n + post_eps);
    float total = 0.0f, sum = 0.0f;
    EACH(i, n) {
        float v = first_of(GIVEN, i) * s0 * (mode & FIRST_NORMED ? w0[i] : 1.0f);
        v += second_of(GIVEN, i) * s1 * (mode & SECOND_NORMED ? w1[i] : 1.0f);
        v = v * s * (mode & SUM_NORMED ? post[i] : 1.0f) + (mode & REPLACES ? 0.0f : x[i]);
        if (mode & ADDS_NORMED) v += out[i];
        v *= stream_scale;
        x[i] = v;
        total += v;
        if (mode & IS_COPY) out[i] = v;
    }
    if (mode & IS_COPY) return;
    float mean = mode & IS_LAYER ? group_sum(total, shared) / (float)n : 0.0f;
    EACH(i, n) sum += (x[i] - mean) * (x[i] - mean); /* what it wrote itself */
    float scale = 1.0f / sqrt(group_sum(sum, shared) / (float)n + eps);
    EACH(i, n) out[i] = (x[i] - mean) * scale * weight[i] + (mode & HAS_BIAS ? bias[i] : 0.0f);
}

/* ---- GLU ---------------------------------------------------------------------------------------------------------------- */

/* The gates that go on, less what they are cut by; 0 for the others. In place. */
__kernel void sparse_gates(__global float *in, ulong in_offset, uint in_stride, __global float *out, ulong out_offset,
                           uint out_stride, uint n, float sparsity) {
    SHARED
    uint t = get_group_id(0);
    in += in_offset + (ulong)t * in_stride;
    out += out_offset + (ulong)t * out_stride;
    float sum = 0.0f, square = 0.0f;
    EACH(i, n) sum += in[i];
    float mean = group_sum(sum, shared) / (float)n;
    EACH(i, n) square += (in[i] - mean) * (in[i] - mean);
    float cut = mean + sparsity * sqrt(group_sum(square, shared) / (float)(n > 1 ? n - 1 : 1));
    EACH(i, n) out[i] = fmax(in[i] - cut, 0.0f);
}

/* ---- MIX ---------------------------------------------------------------------------------------------------------------- */

#define MOST 8 /* streams */

/* says[k] = tanh(router[k] . (rms(x) * norm) / n) */
static inline void ask(__global const float *x, __global const float *norm, __global const float *router, uint n,
                       uint streams, float eps, float *says, __local float *shared) {
    float scale = 1.0f / sqrt(squares_of(x, n, shared) / (float)n + eps);
    for (uint k = 0; k < streams; k++) {
        float sum = 0.0f;
        EACH(i, n) sum += x[i] * scale * norm[i] * router[k * n + i];
        says[k] = tanh(group_sum(sum, shared) / (float)n);
    }
}

static inline float as_far_as(__global const float *x, float target, uint n, __local float *shared) {
    float own = squares_of(x, n, shared);
    return own > 0.0f ? sqrt(target / own) : 0.0f;
}

#define ROWS                                                                                                        \
    __global float *in, ulong in_offset, uint in_stride, __global float *more, ulong more_offset, uint more_stride, \
        __global float *out, ulong out_offset, uint out_stride, uint n, uint streams, float eps
#define TOKEN                                   \
    SHARED                                      \
    uint t = get_group_id(0);                   \
    in += in_offset + (ulong)t * in_stride;     \
    more += more_offset + (ulong)t * more_stride; \
    out += out_offset + (ulong)t * out_stride;

__kernel void mix_side(ROWS, __global const float *weight) {
    TOKEN
    for (uint k = 0; k < streams; k++) {
        float scale = 1.0f / sqrt(squares_of(in + k * n, n, shared) / (float)n + eps);
        EACH(i, n) out[k * n + i] += in[k * n + i] * scale * weight[i];
    }
}

__kernel void mix_begin(ROWS) {
    TOKEN
    float target = squares_of(in, n, shared);
    EACH(i, n) out[i] = in[i];
    for (uint k = 1; k < streams; k++) {
        __global const float *from = more + (k - 1) * n;
        float scale = as_far_as(from, target, n, shared);
        EACH(i, n) out[k * n + i] = from[i] * scale;
    }
}

__kernel void mix_predict(ROWS, __global const float *norm, __global const float *router, __global const float *coefs) {
    TOKEN
    float says[MOST], factors[MOST * MOST];
    ask(more, norm, router, n, streams, eps, says, shared);
    for (uint k = 0; k < streams * streams; k++) {
        factors[k] = 0.0f;
        for (uint j = 0; j < streams; j++) factors[k] += coefs[k * streams + j] * says[j];
    }
    EACH(i, n) {
        float before[MOST];
        for (uint k = 0; k < streams; k++) before[k] = more[k * n + i] + (k ? in[i] : 0.0f);
        for (uint k = 0; k < streams; k++) {
            float sum = before[k];
            for (uint j = 0; j < streams; j++) sum += factors[k * streams + j] * before[j];
            more[k * n + i] = sum;
            if (k == 0) out[i] = sum;
        }
    }
}

/* `in` may be `out`. */
__kernel void mix_correct(ROWS, __global const float *norm, __global const float *router, __global const float *coefs,
                          __global const float *scale) {
    TOKEN
    float says[MOST];
    ask(in, norm, router, n, streams, eps, says, shared);
    EACH(i, n) {
        float change = in[i] - more[i];
        for (uint k = 0; k < streams; k++) {
            float factor = 1.0f;
            for (uint j = 0; j < streams; j++) factor += coefs[k * streams + j] * says[j];
            more[k * n + i] += change * factor;
        }
        out[i] = more[i] * scale[i];
    }
}

__kernel void mix_gather(ROWS) {
    TOKEN
    for (uint k = 1; k < streams; k++) EACH(i, n) out[(k - 1) * n + i] = more[k * n + i] + in[i];
}

__kernel void mix_end(ROWS) {
    TOKEN
    float target = squares_of(more, n, shared), scales[MOST];
    for (uint k = 1; k < streams; k++) scales[k] = as_far_as(in + (k - 1) * n, target, n, shared);
    EACH(i, n) {
        float sum = more[i];
        for (uint k = 1; k < streams; k++) sum += in[(k - 1) * n + i] * scales[k];
        out[i] = sum / (float)streams;
    }
}
