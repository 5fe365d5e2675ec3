/* Kernels by the value: norms, activations, rotation. Part of kernels_impl.h, compiled once per instruction set. */

static float mean_of(const float *x, size_t n) {
    vf sum = vf_zero();
    size_t i = 0;
    for (; i + VW <= n; i += VW)
        sum = vf_add(sum, vf_load(x + i));
    double total = (double)vf_hsum(sum);
    for (; i < n; i++)
        total += (double)x[i];
    return (float)(total / (double)n);
}

/* One over the root of the mean square of x - mean. */
static float inverse_rms(const float *x, float mean, size_t n, float eps) {
    vf sum[2] = {vf_zero(), vf_zero()};
    const vf off = vf_bcast(mean);
    size_t i = 0;
    for (; i + 2 * VW <= n; i += 2 * VW)
        for (int j = 0; j < 2; j++) {
            const vf v = vf_sub(vf_load(x + i + j * VW), off);
            sum[j] = vf_fma(v, v, sum[j]);
        }
    double total = (double)vf_hsum(vf_add(sum[0], sum[1]));
    for (; i < n; i++)
        total += ((double)x[i] - (double)mean) * ((double)x[i] - (double)mean);
    return (float)(1 / sqrt(total / (double)n + (double)eps));
}

static void norm(const ht_norm_job *job) {
    float *x = job->x, *out = job->out;
    const float *delta = job->delta, *post = job->post, *weight = job->weight, *bias = job->bias;
    const size_t n = job->n;
    if (delta) {
        const float scale = post ? inverse_rms(delta, 0, n, job->eps) : 1;
        for (size_t i = 0; i < n; i++)
            x[i] += delta[i] * scale * (post ? post[i] : 1);
    }
    if (job->kind == HT_NORM_NONE) {
        memcpy(out, x, n * sizeof *out);
        return;
    }
    const float mean = job->kind == HT_NORM_LAYER ? mean_of(x, n) : 0;
    const float scale = inverse_rms(x, mean, n, job->eps);
    for (size_t i = 0; i < n; i++)
        out[i] = (x[i] - mean) * scale * (weight ? weight[i] : 1);
    for (size_t i = 0; i < n && bias; i++)
        out[i] += bias[i];
}

/* exp(x) by 2^n * p(r), |r| <= ln2/2, degree 6 (Cephes' scheme; coefficients are 1/k!): relative error below 2e-7. */
INLINE vf vf_exp(vf x) {
    x = vf_max(vf_min(x, vf_bcast(88.0f)), vf_bcast(-87.0f));
    const vf magic = vf_bcast(12582912.0f); /* adding 1.5 * 2^23 rounds to an integer in the low bits */
    vf shifted = vf_fma(x, vf_bcast(1.44269504f), magic), n = vf_sub(shifted, magic);
    vf r = vf_fma(n, vf_bcast(-0.693359375f), x);
    r = vf_fma(n, vf_bcast(2.12194440e-4f), r);
    vf p = vf_bcast(1.0f / 720);
    p = vf_fma(p, r, vf_bcast(1.0f / 120));
    p = vf_fma(p, r, vf_bcast(1.0f / 24));
    p = vf_fma(p, r, vf_bcast(1.0f / 6));
    p = vf_fma(p, r, vf_bcast(0.5f));
    p = vf_fma(p, r, vf_bcast(1.0f));
    p = vf_fma(p, r, vf_bcast(1.0f));
    return vf_scale2(p, vf_bits(shifted)); /* adds n (low bits of `shifted`) to the exponent */
}

/* erfc(z) / 2 of z >= 0, to 1.2e-7 of itself: a fit by Chebyshev polynomials in 1 / (1 + z / 2) (Press et al., "Numerical
 * Recipes", section 6.2). */
INLINE vf half_erfc(vf z) {
    static const float terms[] = {-0.82215223f, 1.48851587f, -1.13520398f, 0.27886807f, -0.18628806f,
                                  0.09678418f,  0.37409196f, 1.00002368f,  -1.26551223f};
    const vf t = vf_div(vf_bcast(1), vf_fma(z, vf_bcast(0.5f), vf_bcast(1)));
    vf sum = vf_bcast(0.17087277f);
    for (size_t i = 0; i < HT_COUNT(terms); i++)
        sum = vf_fma(sum, t, vf_bcast(terms[i]));
    return vf_mul(vf_mul(t, vf_bcast(0.5f)), vf_exp(vf_sub(sum, vf_mul(z, z))));
}

INLINE vf sigmoid_of(vf x) {
    return vf_div(vf_bcast(1), vf_add(vf_bcast(1), vf_exp(vf_sub(vf_zero(), x))));
}

INLINE vf activate(ht_activation kind, vf x) {
    const vf one = vf_bcast(1), zero = vf_zero();
    switch (kind) {
    case HT_ACT_SILU:
        return vf_div(x, vf_add(one, vf_exp(vf_sub(zero, x))));
    case HT_ACT_GELU_TANH: {
        /* 0.5 x (1 + tanh(u)) = x / (1 + exp(-2u)), u = sqrt(2/pi) (x + 0.044715 x^3) */
        vf u2 = vf_mul(vf_mul(x, vf_bcast(1.5957691216f)), vf_fma(vf_mul(x, x), vf_bcast(0.044715f), one));
        return vf_div(x, vf_add(one, vf_exp(vf_sub(zero, u2))));
    }
    case HT_ACT_GELU: { /* x times the share of a normal distribution below it: no cancellation in either tail */
        const vf size = vf_abs(x);
        return vf_sub(vf_max(x, zero), vf_mul(size, half_erfc(vf_mul(size, vf_bcast(0.70710678f)))));
    }
    case HT_ACT_RELU2:
        x = vf_max(x, zero);
        return vf_mul(x, x);
    case HT_ACT_SIGMOID:
        return sigmoid_of(x);
    case HT_ACT_CLAMPED:
        x = vf_min(x, vf_bcast(7));
        return vf_mul(x, sigmoid_of(vf_mul(x, vf_bcast(1.702f))));
    }
    return x;
}

/* What the activated gate is multiplied by. */
INLINE vf factor_of(ht_activation kind, vf up) {
    if (kind != HT_ACT_CLAMPED)
        return up;
    return vf_add(vf_max(vf_min(up, vf_bcast(7)), vf_bcast(-7)), vf_bcast(1));
}

INLINE void glu_of(ht_activation kind, bool gated, const float *gate, const float *up, size_t n, float *out) {
    size_t i = 0;
    for (; i + VW <= n; i += VW) {
        const vf a = activate(kind, vf_load(gate + i));
        vf_store(out + i, gated ? vf_mul(a, factor_of(kind, vf_load(up + i))) : a);
    }
    if (i < n) {
        float g[VW] = {0}, u[VW] = {0};
        memcpy(g, gate + i, (n - i) * sizeof(float));
        if (gated)
            memcpy(u, up + i, (n - i) * sizeof(float));
        const vf a = activate(kind, vf_load(g));
        vf_store(g, gated ? vf_mul(a, factor_of(kind, vf_load(u))) : a);
        memcpy(out + i, g, (n - i) * sizeof(float));
    }
}

/* One loop for each activation, with and without a factor. */
static void glu(ht_activation kind, const float *gate, const float *up, size_t n, float *out) {
    switch (kind) {
#define GLU_CASE(KIND)                               \
    case KIND:                                       \
        if (up)                                      \
            glu_of(KIND, true, gate, up, n, out);    \
        else                                         \
            glu_of(KIND, false, gate, gate, n, out); \
        return;
        GLU_CASE(HT_ACT_SILU)
        GLU_CASE(HT_ACT_GELU_TANH)
        GLU_CASE(HT_ACT_GELU)
        GLU_CASE(HT_ACT_RELU2)
        GLU_CASE(HT_ACT_SIGMOID)
        GLU_CASE(HT_ACT_CLAMPED)
#undef GLU_CASE
    }
}

/* cap * tanh(x / cap); tanh(u) = 1 - 2 / (1 + exp(2u)) */
INLINE vf capped(vf x, float cap) {
    const vf e = vf_exp(vf_mul(x, vf_bcast(2 / cap)));
    const vf fall = vf_div(vf_bcast(2 * cap), vf_add(vf_bcast(1), e));
    return vf_sub(vf_bcast(cap), fall);
}

static void soft_cap(float *x, float cap, size_t n) {
    size_t i = 0;
    for (; i + VW <= n; i += VW)
        vf_store(x + i, capped(vf_load(x + i), cap));
    if (i < n) {
        float rest[VW] = {0};
        memcpy(rest, x + i, (n - i) * sizeof *x);
        vf_store(rest, capped(vf_load(rest), cap));
        memcpy(x + i, rest, (n - i) * sizeof *x);
    }
}

static void to_half(const float *in, size_t n, uint16_t *out) {
    size_t i = 0;
    for (; i + VW <= n; i += VW)
        vf_store_half(out + i, vf_load(in + i));
    for (; i < n; i++)
        out[i] = ht_f32_to_f16(in[i]);
}

static void rope(float *head, const float *table, size_t rope_dim, bool halves) {
    const size_t pairs = rope_dim / 2;
    for (size_t i = 0; i < pairs; i++) {
        float *a = halves ? head + i : head + 2 * i, *b = halves ? head + pairs + i : head + 2 * i + 1;
        float x = *a, y = *b, c = table[2 * i], s = table[2 * i + 1];
        *a = x * c - y * s;
        *b = x * s + y * c;
    }
}
