/* Functions of one number or one row in double precision, as the comments at ht_activation and ht_norm say them. */
#ifndef TEST_REFERENCE_H
#define TEST_REFERENCE_H

#include "model/model.h"

#include <math.h>

static inline double reference_sigmoid(double x) {
    return 1 / (1 + exp(-x));
}

/* act(g) times what the other factor, u, becomes; ungated: act(g). */
static inline double reference_glu(ht_activation kind, bool gated, double g, double u) {
    switch (kind) {
    case HT_ACT_SILU:
        g *= reference_sigmoid(g);
        break;
    case HT_ACT_GELU_TANH:
        g *= 0.5 * (1 + tanh(0.7978845608028654 * (g + 0.044715 * g * g * g)));
        break;
    case HT_ACT_GELU:
        g *= 0.5 * erfc(-g / sqrt(2));
        break;
    case HT_ACT_RELU2:
        g = g > 0 ? g * g : 0;
        break;
    case HT_ACT_SIGMOID:
        g = reference_sigmoid(g);
        break;
    case HT_ACT_CLAMPED:
        g = fmin(g, 7);
        g *= reference_sigmoid(1.702 * g);
        u = fmin(fmax(u, -7), 7) + 1;
        break;
    }
    return gated ? g * u : g;
}

/* A row normed; weight and bias may be NULL. In place or not. */
static inline void reference_norm(ht_norm kind, const double *x, const float *weight, const float *bias, double eps,
                                  size_t n, double *out) {
    double mean = 0, sum = 0;
    for (size_t i = 0; i < n && kind == HT_NORM_LAYER; i++)
        mean += x[i] / (double)n;
    for (size_t i = 0; i < n; i++)
        sum += (x[i] - mean) * (x[i] - mean);
    const double scale = kind == HT_NORM_NONE ? 1 : 1 / sqrt(sum / (double)n + eps);
    for (size_t i = 0; i < n; i++)
        out[i] = (x[i] - mean) * scale * (weight ? (double)weight[i] : 1) + (bias ? (double)bias[i] : 0);
}

#endif
