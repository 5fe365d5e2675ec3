/* Scales and codes by weighted least squares (search.h). */
#include "quant/search.h"
#include "base/base.h"
#include "quant/tries.h"

#include <math.h>
#include <string.h>

enum { MOST = 256, STRIDE = 16 };

static void run(const ht_grid *grid, const float *x, const float *w, size_t n, const ht_moments *moments,
                ht_judge judge, ht_tries *tries) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f"))
        ht_tries_avx512(grid, x, w, n, moments, judge, tries);
    else if (__builtin_cpu_supports("avx2"))
        ht_tries_avx2(grid, x, w, n, moments, judge, tries);
    else
#endif
        ht_tries_generic(grid, x, w, n, moments, judge, tries);
}

/* The best of them, if it is better than *gain; else -1. */
static int take_best(const ht_tries *tries, float *gain) {
    float most[HT_TRIES];
    memcpy(most, tries->gain, sizeof most);
    for (int half = HT_TRIES / 2; half; half /= 2) {
        for (int i = 0; i < half; i++)
            most[i] = most[i] > most[i + half] ? most[i] : most[i + half];
    }
    if (!(most[0] > *gain))
        return -1;
    int best = 0;
    while (best < HT_TRIES - 1 && tries->gain[best] != most[0])
        best++;
    *gain = most[0];
    return best;
}

static double sum_of(const float partial[STRIDE]) {
    double sum = 0;
    for (int i = 0; i < STRIDE; i++)
        sum += (double)partial[i];
    return sum;
}

static ht_moments moments_of(const float *x, const float *w, size_t n) {
    float s[STRIDE] = {0}, sx[STRIDE] = {0};
    for (size_t i = 0; i < n; i += STRIDE) {
        for (size_t j = 0; j < STRIDE; j++) {
            s[j] += w[i + j];
            sx[j] += w[i + j] * x[i + j];
        }
    }
    return (ht_moments){(float)sum_of(s), (float)sum_of(sx)};
}

static void range_of(const float *x, size_t n, float *least, float *greatest) {
    float low[STRIDE], high[STRIDE];
    memcpy(low, x, sizeof low);
    memcpy(high, x, sizeof high);
    for (size_t i = STRIDE; i < n; i += STRIDE) {
        for (size_t j = 0; j < STRIDE; j++) {
            low[j] = x[i + j] < low[j] ? x[i + j] : low[j];
            high[j] = x[i + j] > high[j] ? x[i + j] : high[j];
        }
    }
    *least = low[0];
    *greatest = high[0];
    for (int j = 1; j < STRIDE; j++) {
        *least = low[j] < *least ? low[j] : *least;
        *greatest = high[j] > *greatest ? high[j] : *greatest;
    }
}

/* ---- one group ---- */

float ht_search_scale(const ht_grid *grid, const float *x, const float *w, size_t n) {
    float least, greatest;
    range_of(x, n, &least, &greatest);
    const float extreme = -least > greatest ? least : greatest;
    if (!(fabsf(extreme) > 1e-15f) || !isfinite(extreme))
        return 0;
    float gain = 0;
    ht_tries t;
    memset(t.shift, 0, sizeof t.shift);
    /* The weight of greatest size meets the end of the grid that goes further, or the other end, or is cut off there: 0.8 to
     * 1.25 of the first, 0.8 to 1.05 of the other. */
    for (int i = 0; i < HT_TRIES; i++) {
        const float end = i < 10 ? grid->low : grid->high;
        t.inverse[i] = end * (0.8f + 0.05f * (float)(i < 10 ? i : i - 10)) / extreme;
    }
    run(grid, x, w, n, NULL, HT_JUDGE_SCALE, &t);
    int best = take_best(&t, &gain);
    const float scale = best < 0 ? 0 : t.scale[best];
    if (scale == 0)
        return 0;
    for (int i = 0; i < HT_TRIES; i++) /* around the best one */
        t.inverse[i] = (1 + 0.015f * (float)(i - 8)) / scale;
    run(grid, x, w, n, NULL, HT_JUDGE_SCALE, &t);
    best = take_best(&t, &gain);
    return best < 0 ? scale : t.scale[best];
}

ht_line ht_search_line(const ht_grid *grid, const float *x, const float *w, size_t n, bool below) {
    float least, greatest;
    range_of(x, n, &least, &greatest);
    if (below && least > 0)
        least = 0;
    const float range = greatest - least;
    if (!isfinite(range))
        return (ht_line){0, 0};
    ht_line line = {0, least};
    if (!(range > 1e-15f))
        return line;
    const ht_moments m = moments_of(x, w, n);
    const ht_judge judge = below ? HT_JUDGE_LINE_BELOW : HT_JUDGE_LINE;
    float gain = -INFINITY;
    ht_tries t;
    for (int i = 0; i < HT_TRIES; i++) {
        t.inverse[i] = (grid->high - 1 + 0.125f * (float)i) / range;
        t.shift[i] = -least * t.inverse[i];
    }
    run(grid, x, w, n, &m, judge, &t);
    int best = take_best(&t, &gain);
    line = best < 0 ? line : (ht_line){t.scale[best], t.offset[best]};
    if (!(line.scale > 0))
        return line;
    for (int i = 0; i < HT_TRIES;
         i++) { /* around the best one: four scales, four offsets, parts of a code at the ends */
        const int step = i / 4;
        const float scale = line.scale * (1 + 0.4f * ((float)step - 1.5f) / grid->high);
        const float offset = line.offset + 0.2f * ((float)(i % 4) - 1.5f) * line.scale;
        t.inverse[i] = 1 / scale;
        t.shift[i] = -(below && offset > 0 ? 0 : offset) * t.inverse[i];
    }
    run(grid, x, w, n, &m, judge, &t);
    best = take_best(&t, &gain);
    return best < 0 ? line : (ht_line){t.scale[best], t.offset[best]};
}

int ht_search_power(const ht_grid *grid, const float *x, const float *w, size_t n, int low, int high) {
    float least, greatest, gain = -INFINITY;
    int exponent;
    range_of(x, n, &least, &greatest);
    const float size = -least > greatest ? -least : greatest;
    if (!(size > 0) || !isfinite(size))
        return low;
    frexpf(size / grid->high, &exponent); /* up to 2^exponent times the end of the grid */
    const ht_moments m = moments_of(x, w, n);
    ht_tries t;
    for (int i = 0; i < HT_TRIES; i++) {
        int e = exponent - 8 + i;
        e = e < low ? low : e > high ? high : e;
        t.scale[i] = ldexpf(1, e);
        t.offset[i] = 0;
        t.inverse[i] = ldexpf(1, -e);
        t.shift[i] = 0;
    }
    run(grid, x, w, n, &m, HT_JUDGE_AS_IT_IS, &t);
    const int best = take_best(&t, &gain);
    if (best >= 0)
        frexpf(t.scale[best], &exponent); /* 0.5 * 2^exponent */
    return best < 0 ? low : exponent - 1;
}

static inline float clamp(float value, float low, float high) {
    value = value > low ? value : low; /* a NaN becomes low */
    return value < high ? value : high;
}

/* Nearest whole number, halves to even: 1.5 * 2^23 leaves no bits for a fraction. Between -2^22 and 2^22. */
static inline float nearest(float value) {
    const float shift = 12582912.0f;
    return (value + shift) - shift;
}

void ht_search_codes(const ht_grid *grid, ht_line line, const float *x, size_t n, int8_t *codes) {
    const float inverse = line.scale != 0 ? 1 / line.scale : 0;
    if (!grid->levels) {
        for (size_t i = 0; i < n; i++)
            codes[i] = (int8_t)nearest(clamp((x[i] - line.offset) * inverse, grid->low, grid->high));
        return;
    }
    float bounds[15];
    for (int k = 0; k < 15; k++)
        bounds[k] = 0.5f * (float)(grid->levels[k] + grid->levels[k + 1]);
    memset(codes, 0, n);
    for (int k = 0; k < 15; k++) {
        for (size_t i = 0; i < n; i++)
            codes[i] += (x[i] - line.offset) * inverse > bounds[k];
    }
}

/* ---- blocks with two levels of scales ---- */

static float to_sub(float value, float d, int low, int high) {
    return nearest(clamp(d != 0 ? value / d : 0, (float)low, (float)high));
}

/* Of subs near those of the group's own fit the ones with the least error, d and dmin being what they are. */
static void choose_subs(const ht_levelled *form, const float *x, const float *w, const ht_moments *m, ht_line fit,
                        float d, float dmin, int8_t *sub, int8_t *sub_min) {
    const int mins = form->offset ? 4 : 1, half = HT_TRIES / mins / 2, half_min = mins / 2;
    const float low = (float)form->sub_low, high = (float)form->sub_high;
    const float first = to_sub(fit.scale, d, form->sub_low, form->sub_high) - (float)half;
    const float first_min = to_sub(-fit.offset, dmin, 0, form->sub_high) - (float)half_min;
    float its[HT_TRIES], its_min[HT_TRIES], gain = -INFINITY;
    ht_tries t;
    for (int i = 0; i < HT_TRIES; i++) {
        const int step = i / mins;
        its[i] = clamp(first + (float)step, low, high);
        its_min[i] = form->offset ? clamp(first_min + (float)(i % mins), 0, high) : 0;
        t.scale[i] = d * its[i];
        t.offset[i] = -dmin * its_min[i];
        t.inverse[i] = t.scale[i] != 0 ? 1 / t.scale[i] : 0;
        t.shift[i] = -t.offset[i] * t.inverse[i];
    }
    run(&form->grid, x, w, form->group, m, HT_JUDGE_AS_IT_IS, &t);
    const int best = take_best(&t, &gain);
    *sub = best < 0 ? 0 : (int8_t)its[best];
    *sub_min = best < 0 ? 0 : (int8_t)its_min[best];
}

static float as_half(float value, uint16_t *half) {
    *half = ht_f32_to_f16(value);
    return ht_f16_to_f32(*half);
}

/* d and dmin that fit the block best, given all the rest: x = d * a - dmin * b, a and b being what sub and sub_min give. */
static void refit(const ht_levelled *form, const float *x, const float *w, const ht_moments *m,
                  const ht_levels_fit *fit, float *d, float *dmin) {
    double aa = 0, ab = 0, bb = 0, ax = 0, bx = 0;
    for (size_t g = 0; g < MOST / form->group; g++) {
        float q[STRIDE] = {0}, qq[STRIDE] = {0}, xq[STRIDE] = {0};
        for (size_t i = g * form->group; i < (g + 1) * form->group; i += STRIDE) {
            float value[STRIDE];
            for (size_t j = 0; j < STRIDE; j++)
                value[j] = form->grid.levels ? form->grid.levels[fit->codes[i + j]] : fit->codes[i + j];
            for (size_t j = 0; j < STRIDE; j++) {
                q[j] += w[i + j] * value[j];
                qq[j] += w[i + j] * value[j] * value[j];
                xq[j] += w[i + j] * x[i + j] * value[j];
            }
        }
        const double sub = fit->sub[g], sub_min = fit->sub_min[g];
        aa += sub * sub * sum_of(qq);
        ab += sub * sub_min * sum_of(q);
        bb += sub_min * sub_min * (double)m[g].w;
        ax += sub * sum_of(xq);
        bx += sub_min * (double)m[g].x;
    }
    const double determinant = aa * bb - ab * ab;
    if (bb == 0 && aa > 0) {
        *d = (float)(ax / aa);
    } else if (determinant > 1e-6 * aa * bb) {
        const double new_d = (bb * ax - ab * bx) / determinant, new_min = (ab * ax - aa * bx) / determinant;
        if (new_d > 0 && new_min >= 0) {
            *d = (float)new_d;
            *dmin = (float)new_min;
        }
    }
}

static void codes_of_groups(const ht_levelled *form, const float *x, float d, float dmin, ht_levels_fit *fit) {
    for (size_t g = 0; g < MOST / form->group; g++) {
        const ht_line line = {d * (float)fit->sub[g], -dmin * (float)fit->sub_min[g]};
        ht_search_codes(&form->grid, line, x + g * form->group, form->group, fit->codes + g * form->group);
    }
}

void ht_search_levels(const ht_levelled *form, const float *x, const float *w, ht_levels_fit *fit) {
    const size_t groups = MOST / form->group;
    ht_line lines[16];
    ht_moments m[16];
    float most = 0, most_min = 0;
    for (size_t g = 0; g < groups; g++) {
        const float *gx = x + g * form->group, *gw = w + g * form->group;
        m[g] = moments_of(gx, gw, form->group);
        lines[g] = form->offset ? ht_search_line(&form->grid, gx, gw, form->group, true)
                                : (ht_line){ht_search_scale(&form->grid, gx, gw, form->group), 0};
        most = fabsf(lines[g].scale) > fabsf(most) ? lines[g].scale : most;
        most_min = -lines[g].offset > most_min ? -lines[g].offset : most_min;
    }
    /* The greatest scale gets the sub of greatest size, which may be a negative one. */
    float d = as_half(most / (float)(form->sub_low < 0 ? form->sub_low : form->sub_high), &fit->d);
    float dmin = as_half(form->offset ? most_min / (float)form->sub_high : 0, &fit->dmin);
    for (size_t g = 0; g < groups; g++) {
        const size_t at = g * form->group;
        choose_subs(form, x + at, w + at, &m[g], lines[g], d, dmin, &fit->sub[g], &fit->sub_min[g]);
    }
    codes_of_groups(form, x, d, dmin, fit);
    refit(form, x, w, m, fit, &d, &dmin);
    d = as_half(d, &fit->d);
    dmin = as_half(dmin, &fit->dmin);
    codes_of_groups(form, x, d, dmin, fit);
}
