/* The loop of tries.h for one instruction set: the including file has set LANES (tries in a vector), FUNCTION, and the
 * vector functions vf_max and vf_min, whose first argument may be NaN and then is not what comes out. */

#define INLINE static inline __attribute__((always_inline))

typedef float vf __attribute__((vector_size(4 * LANES)));
typedef int32_t vi __attribute__((vector_size(4 * LANES)));

INLINE vf vf_all(float value) {
    return value - (vf){0};
}

INLINE vf vf_load(const float *from) {
    vf v;
    memcpy(&v, from, sizeof v);
    return v;
}

/* Nearest whole number, halves to even: 1.5 * 2^23 leaves no bits for a fraction. */
INLINE vf vf_nearest(vf value) {
    const vf shift = vf_all(12582912.0f);
    return (value + shift) - shift;
}

/* Levels below `at`, each a step above the one before. */
INLINE vf vf_level(const float *bounds, const float *steps, float first, vf at) {
    vf value = vf_all(first);
    for (int k = 0; k < 15; k++)
        value += (vf)((vi)vf_all(steps[k]) & (at > vf_all(bounds[k])));
    return value;
}

INLINE void vf_store(float *to, vf v) {
    memcpy(to, &v, sizeof v);
}

INLINE vf vf_select(vi mask, vf a, vf b) {
    return (vf)(((vi)a & mask) | ((vi)b & ~mask));
}

/* a / b, 0 where b is not above zero. */
INLINE vf vf_ratio(vf a, vf b) {
    const vi mask = b > vf_all(0);
    return (vf)((vi)(a / vf_select(mask, b, vf_all(1))) & mask);
}

INLINE void judge_tries(vf q, vf qq, vf xq, const ht_moments *m, ht_judge judge, int first, ht_tries *t) {
    if (judge == HT_JUDGE_AS_IT_IS) {
        const vf a = vf_load(t->scale + first), b = vf_load(t->offset + first);
        const vf two = vf_all(2);
        vf_store(t->gain + first, a * (two * xq - a * qq) + b * (vf_all(2 * m->x) - vf_all(m->w) * b - two * a * q));
        return;
    }
    vf scale = vf_ratio(xq, qq), offset = {0}, gain = xq * scale;
    if (judge != HT_JUDGE_SCALE) {
        const float mean = m->w > 0 ? m->x / m->w : 0, inverse = m->w > 0 ? 1 / m->w : 0;
        const vf mean_q = q * vf_all(inverse), both = xq - vf_all(mean) * q, spread = qq - mean_q * q;
        const vf slope = vf_ratio(both, spread), rest = vf_all(mean) - slope * mean_q;
        vi line = (slope > vf_all(0)) & (spread > vf_all(1e-6f) * qq);
        if (judge == HT_JUDGE_LINE_BELOW)
            line &= rest <= vf_all(0);
        scale = vf_select(line, slope, scale);
        offset = (vf)((vi)rest & line);
        gain = vf_select(line, both * slope, gain - vf_all(m->x * mean));
    }
    vf_store(t->scale + first, scale);
    vf_store(t->offset + first, offset);
    vf_store(t->gain + first, gain);
}

INLINE void vector_of_tries(const ht_grid *grid, const float *bounds, const float *steps, const float *restrict x,
                            const float *restrict w, size_t n, const ht_moments *moments, ht_judge judge, int first,
                            ht_tries *t) {
    const vf low = vf_all(grid->low), high = vf_all(grid->high);
    const vf inverse = vf_load(t->inverse + first), shift = vf_load(t->shift + first);
    vf sum_q = {0}, sum_qq = {0}, sum_xq = {0};
    for (size_t i = 0; i < n; i++) {
        const vf at = vf_all(x[i]) * inverse + shift;
        const vf q = bounds ? vf_level(bounds, steps, grid->low, at) : vf_nearest(vf_min(vf_max(at, low), high));
        const vf wq = vf_all(w[i]) * q;
        sum_q += wq;
        sum_qq += wq * q;
        sum_xq += vf_all(x[i]) * wq;
    }
    judge_tries(sum_q, sum_qq, sum_xq, moments, judge, first, t);
}

void FUNCTION(const ht_grid *grid, const float *x, const float *w, size_t n, const ht_moments *moments, ht_judge judge,
              ht_tries *tries) {
    if (!grid->levels) {
        for (int first = 0; first < HT_TRIES; first += LANES)
            vector_of_tries(grid, NULL, NULL, x, w, n, moments, judge, first, tries);
        return;
    }
    float bounds[15], steps[15];
    for (int k = 0; k < 15; k++) {
        bounds[k] = 0.5f * (float)(grid->levels[k] + grid->levels[k + 1]);
        steps[k] = (float)(grid->levels[k + 1] - grid->levels[k]);
    }
    for (int first = 0; first < HT_TRIES; first += LANES)
        vector_of_tries(grid, bounds, steps, x, w, n, moments, judge, first, tries);
}
