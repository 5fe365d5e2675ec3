/* Kernels of recurrent mixers, over the vector primitives of kernels_impl.h, which includes this. */

/* ---- convolution
 * -------------------------------------------------------------------------------------------------------- */

enum { CONV_CHANNELS = 256 }; /* of a block: its rows of all taps stay in L1 */

/* Where values of one token's channels come from: each tap's, and the factor of what is added up (NULL: SiLU of it). */
typedef struct conv_rows {
    const float *taps[HT_MAX_TAPS], *gate;
} conv_rows;

INLINE vf conv_value(const ht_convolution_job *j, const conv_rows *rows, int taps, size_t c0, size_t i) {
    vf sum = j->bias ? vf_load(j->bias + c0 + i) : vf_zero();
    for (int k = 0; k < taps; k++)
        sum = vf_fma(vf_load(j->weights + (size_t)k * j->weights_stride + c0 + i), vf_load(rows->taps[k] + i), sum);
    return rows->gate ? vf_mul(sum, vf_load(rows->gate + i)) : activate(HT_ACT_SILU, sum);
}

/* One channel by itself. */
static float conv_single(const ht_convolution_job *j, const conv_rows *rows, size_t c0, size_t i) {
    float all[VW] = {j->bias ? j->bias[c0 + i] : 0};
    for (int k = 0; k < j->taps; k++)
        all[0] += j->weights[(size_t)k * j->weights_stride + c0 + i] * rows->taps[k][i];
    if (rows->gate)
        return all[0] * rows->gate[i];
    vf_store(all, activate(HT_ACT_SILU, vf_load(all)));
    return all[0];
}

INLINE void conv_token(const ht_convolution_job *j, const conv_rows *rows, int taps, size_t c0, size_t n, float *out) {
    size_t i = 0;
    for (; i + VW <= n; i += VW)
        vf_store(out + i, conv_value(j, rows, taps, c0, i));
    for (; i < n; i++)
        out[i] = conv_single(j, rows, c0, i);
}

/* What channels from c0 on were at token s, which may lie before the first one. Products lie in a ring of as many rows
 * as there are taps. */
static const float *conv_row(const ht_convolution_job *j, float (*ring)[CONV_CHANNELS], size_t c0, ptrdiff_t s) {
    if (s < 0)
        return j->state + (size_t)(s + j->taps - 1) * j->state_stride + c0;
    return j->factor ? ring[s % j->taps] : j->in + (size_t)s * j->in_stride + c0;
}

/* Channels [c0, c0 + n) of all tokens. */
static void convolve_block(const ht_convolution_job *j, size_t c0, size_t n) {
    _Alignas(64) float ring[HT_MAX_TAPS][CONV_CHANNELS];
    const ptrdiff_t before = j->taps - 1;
    conv_rows rows = {0};
    for (ptrdiff_t t = 0; t < (ptrdiff_t)j->tokens; t++) {
        const size_t at = (size_t)t * j->in_stride + c0;
        for (size_t i = 0; i < n && j->factor; i++)
            ring[t % j->taps][i] = j->in[at + i] * j->factor[at + i];
        for (ptrdiff_t k = 0; k <= before; k++)
            rows.taps[k] = conv_row(j, ring, c0, t - before + k);
        rows.gate = j->gate ? j->gate + at : NULL;
        float *out = j->out + (size_t)t * j->out_stride + c0;
        if (j->taps == 4)
            conv_token(j, &rows, 4, c0, n, out);
        else if (j->taps == 3)
            conv_token(j, &rows, 3, c0, n, out);
        else
            conv_token(j, &rows, j->taps, c0, n, out);
    }
    for (ptrdiff_t k = 0; k < before; k++) /* upward: a row that stays comes from a later one */
        memmove(j->state + (size_t)k * j->state_stride + c0, conv_row(j, ring, c0, (ptrdiff_t)j->tokens - before + k),
                n * sizeof(float));
}

static void convolve(const ht_convolution_job *j) {
    for (size_t c = 0; c < j->channels; c += CONV_CHANNELS)
        convolve_block(j, c, ht_min_size(CONV_CHANNELS, j->channels - c));
}

static void over_length(float *x, size_t n, float eps, float scale) {
    const float by = scale * inverse_rms(x, 0, n, eps / (float)n) / sqrtf((float)n);
    for (size_t i = 0; i < n; i++)
        x[i] *= by;
}

/* ---- recurrence
 * --------------------------------------------------------------------------------------------------------- */

/* Columns of S are independent of each other: n vectors of them at a time, whose key_dim rows stay in L1 while all tokens
 * pass by. */
#define RECUR_VECTORS 4

static float dot(const float *a, const float *b, size_t n) {
    vf sum = vf_zero();
    size_t i = 0;
    for (; i + VW <= n; i += VW)
        sum = vf_fma(vf_load(a + i), vf_load(b + i), sum);
    float all = vf_hsum(sum);
    for (; i < n; i++)
        all += a[i] * b[i];
    return all;
}

/* S = decay S + k u^T, out = q S. Rows in turn to two sums: additions to one would wait for each other. */
INLINE void recur_plain(const ht_recurrence_job *j, size_t t, float *state, int n, const vf u[RECUR_VECTORS],
                        float *out) {
    const float *q = j->q + t * j->key_stride, *k = j->k + t * j->key_stride;
    const vf decay = vf_bcast(j->decay[t]);
    vf sum[2][RECUR_VECTORS];
    for (int i = 0; i < n; i++)
        sum[0][i] = sum[1][i] = vf_zero();
    size_t r = 0;
    for (; r + 2 <= j->key_dim; r += 2)
        for (int odd = 0; odd < 2; odd++) {
            const vf kr = vf_bcast(k[r + (size_t)odd]), qr = vf_bcast(q[r + (size_t)odd]);
            float *row = state + (r + (size_t)odd) * j->head_dim;
            for (int i = 0; i < n; i++) {
                const vf s = vf_fma(kr, u[i], vf_mul(decay, vf_load(row + i * VW)));
                vf_store(row + i * VW, s);
                sum[odd][i] = vf_fma(qr, s, sum[odd][i]);
            }
        }
    for (int i = 0; i < n && r < j->key_dim; i++) {
        float *at = state + r * j->head_dim + i * VW;
        const vf s = vf_fma(vf_bcast(k[r]), u[i], vf_mul(decay, vf_load(at)));
        vf_store(at, s);
        sum[0][i] = vf_fma(vf_bcast(q[r]), s, sum[0][i]);
    }
    for (int i = 0; i < n; i++)
        vf_store(out + i * VW, vf_add(sum[0][i], sum[1][i]));
}

/* The same where u is what S does not say of k yet: k S and q S of S as it was by one reading of its rows, for q (decay S +
 * k u^T) = decay q S + (q k) u, then S. */
INLINE void recur_delta(const ht_recurrence_job *j, size_t t, float *state, int n, const vf v[RECUR_VECTORS],
                        float *out) {
    const float *q = j->q + t * j->key_stride, *k = j->k + t * j->key_stride;
    const vf decay = vf_bcast(j->decay[t]), rate = vf_bcast(j->rate[t]), both = vf_bcast(dot(q, k, j->key_dim));
    vf said[RECUR_VECTORS], sum[RECUR_VECTORS], u[RECUR_VECTORS];
    for (int i = 0; i < n; i++)
        said[i] = sum[i] = vf_zero();
    for (size_t r = 0; r < j->key_dim; r++) {
        const vf kr = vf_bcast(k[r]), qr = vf_bcast(q[r]);
        for (int i = 0; i < n; i++) {
            const vf s = vf_load(state + r * j->head_dim + i * VW);
            said[i] = vf_fma(kr, s, said[i]);
            sum[i] = vf_fma(qr, s, sum[i]);
        }
    }
    for (int i = 0; i < n; i++) {
        u[i] = vf_mul(rate, vf_sub(v[i], vf_mul(decay, said[i])));
        vf_store(out + i * VW, vf_fma(both, u[i], vf_mul(decay, sum[i])));
    }
    for (size_t r = 0; r < j->key_dim; r++) {
        const vf kr = vf_bcast(k[r]);
        float *row = state + r * j->head_dim;
        for (int i = 0; i < n; i++)
            vf_store(row + i * VW, vf_fma(kr, u[i], vf_mul(decay, vf_load(row + i * VW))));
    }
}

INLINE void recur_columns(const ht_recurrence_job *j, size_t c0, int n, bool corrects) {
    for (size_t t = 0; t < j->tokens; t++) {
        vf v[RECUR_VECTORS];
        for (int i = 0; i < n; i++)
            v[i] = vf_load(j->v + t * j->value_stride + c0 + (size_t)i * VW);
        if (corrects)
            recur_delta(j, t, j->state + c0, n, v, j->out + t * j->out_stride + c0);
        else
            recur_plain(j, t, j->state + c0, n, v, j->out + t * j->out_stride + c0);
    }
}

/* One column: what is left where head_dim is no whole number of vectors. */
static void recur_column(const ht_recurrence_job *j, size_t c) {
    const size_t ld = j->head_dim;
    float *s = j->state + c;
    for (size_t t = 0; t < j->tokens; t++) {
        const float *q = j->q + t * j->key_stride, *k = j->k + t * j->key_stride;
        float u = j->v[t * j->value_stride + c], said = 0, sum = 0;
        for (size_t r = 0; r < j->key_dim && j->rate; r++)
            said += k[r] * s[r * ld];
        if (j->rate)
            u = j->rate[t] * (u - j->decay[t] * said);
        for (size_t r = 0; r < j->key_dim; r++) {
            s[r * ld] = j->decay[t] * s[r * ld] + k[r] * u;
            sum += q[r] * s[r * ld];
        }
        j->out[t * j->out_stride + c] = sum;
    }
}

static void recur(const ht_recurrence_job *j) {
    size_t c = 0;
    for (; c + RECUR_VECTORS * VW <= j->head_dim; c += RECUR_VECTORS * VW)
        if (j->rate)
            recur_columns(j, c, RECUR_VECTORS, true);
        else
            recur_columns(j, c, RECUR_VECTORS, false);
    for (; c + VW <= j->head_dim; c += VW)
        if (j->rate)
            recur_columns(j, c, 1, true);
        else
            recur_columns(j, c, 1, false);
    for (; c < j->head_dim; c++)
        recur_column(j, c);
}
