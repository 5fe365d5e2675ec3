/* Mixtures of experts around their products, which are the MATMUL kernels built with EXPERTS: who is chosen, which tokens an expert
 * has, the activation, and the sum over a token's experts. */

#define MOST 1024 /* experts */
#define NONE 0xffffffffu

/* ---- ROUTE -------------------------------------------------------------------------------------------------------------- */

/* Where the largest of the group's numbers stands, the lowest place of equals; INT_MAX: all are -INFINITY or NaN. A key has the
 * number's order above the place's, so that one maximum finds both. */
ALWAYS_INLINE int best_of_group(__local const float *x, uint n, __local ulong *keys) {
    uint lid = get_local_id(0);
    ulong best = 0;
    for (uint i = lid; i < n; i += ITEMS) {
        uint bits = as_uint(x[i] + 0.0f); /* one zero */
        ulong key = ((ulong)(bits >> 31 ? ~bits : bits | 0x80000000u) << 32) + (INT_MAX - i);
        best = x[i] > -INFINITY ? max(best, key) : best;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    keys[lid] = best;
    for (uint half_count = ITEMS / 2; half_count > 0; half_count /= 2) {
        barrier(CLK_LOCAL_MEM_FENCE);
        if (lid < half_count) keys[lid] = max(keys[lid], keys[lid + half_count]);
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    return keys[0] ? INT_MAX - (int)(uint)keys[0] : INT_MAX;
}

ALWAYS_INLINE float sum_of_group(float value, __local float *shared) {
    uint lid = get_local_id(0);
    barrier(CLK_LOCAL_MEM_FENCE);
    shared[lid] = value;
    for (uint half_count = ITEMS / 2; half_count > 0; half_count /= 2) {
        barrier(CLK_LOCAL_MEM_FENCE);
        if (lid < half_count) shared[lid] += shared[lid + half_count];
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    return shared[0];
}

/* function 0: softmax, 1: sigmoid, 2: softmax of those that are chosen. One group of ITEMS work-items a token. */
__kernel void route(__global const float *in, ulong in_offset, uint in_stride, __global float *out, ulong out_offset,
                    uint out_stride, __global const float *bias, uint has_bias, uint n, uint function, uint used,
                    uint groups, uint groups_used, uint renormalise, float scale,
                    __global const float *factors, uint has_factors) {
    __local float p[MOST], score[MOST], worth[MOST], sums[ITEMS];
    __local ulong keys[ITEMS];
    __local int kept[MOST];
    uint lid = get_local_id(0), t = get_group_id(0);
    in += in_offset + (ulong)t * in_stride;
    out += out_offset + (ulong)t * out_stride;
    for (uint i = lid; i < n; i += ITEMS) p[i] = function == 1 ? 1.0f / (1.0f + exp(-in[i])) : in[i];
    barrier(CLK_LOCAL_MEM_FENCE);
    int top = best_of_group(p, n, keys);
    float most = top == INT_MAX ? 0.0f : p[top], sum = 0.0f;
    barrier(CLK_LOCAL_MEM_FENCE);
    if (function == 0)
        for (uint i = lid; i < n; i += ITEMS) sum += p[i] = exp(p[i] - most);
    sum = sum_of_group(sum, sums);
    for (uint i = lid; i < n; i += ITEMS) {
        if (function == 0) p[i] /= sum;
        score[i] = has_bias ? p[i] + bias[i] : p[i];
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    uint each = groups > 1 ? n / groups : n, rounds = groups > 1 ? groups_used : 0;
    for (uint g = lid; g < groups; g += ITEMS) {
        float first = -INFINITY, second = -INFINITY;
        for (uint i = g * each; i < (g + 1) * each; i++) {
            second = score[i] > first ? first : score[i] > second ? score[i] : second;
            first = score[i] > first ? score[i] : first;
        }
        worth[g] = each > 1 ? first + second : first;
        kept[g] = 0;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint k = 0; k < rounds; k++) {
        int best = best_of_group(worth, groups, keys);
        for (uint g = lid; g < groups; g += ITEMS)
            if ((int)g == best) {
                worth[g] = -INFINITY;
                kept[g] = 1;
            }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    for (uint i = lid; i < n; i += ITEMS) {
        if (rounds && !kept[i / each]) score[i] = -INFINITY;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint i = lid; i < n; i += ITEMS) worth[i] = -INFINITY; /* from here on: p of those that are chosen */
    for (uint k = 0; k < used; k++) {
        int best = best_of_group(score, n, keys);
        for (uint i = lid; i < n; i += ITEMS) /* each its own */
            if ((int)i == best) {
                score[i] = -INFINITY;
                worth[i] = p[i];
            }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    int first = best_of_group(worth, n, keys);
    float largest = first == INT_MAX ? 0.0f : worth[first], total = 0.0f;
    for (uint i = lid; i < n; i += ITEMS)
        if (worth[i] > -INFINITY) total += function == 2 ? exp(worth[i] - largest) : worth[i];
    total = sum_of_group(total, sums);
    float factor = scale / (function == 2 ? total : 1.0f) / (renormalise ? fmax(function == 2 ? 1.0f : total, 0x1p-14f) : 1.0f);
    for (uint i = lid; i < n; i += ITEMS) {
        float value = function == 2 ? exp(worth[i] - largest) : worth[i];
        out[i] = worth[i] > -INFINITY ? value * factor * (has_factors ? factors[i] : 1.0f) : 0.0f;
    }
}

/* ---- the plan ------------------------------------------------------------------------------------------------------------- */

/* Sorts tokens by the experts [first, end) that they have chosen, `used` each at most. A tile has `tile` places, all of one expert.
 *   plan[4 * i ..]           tile i: its expert, how many places are taken (0: none), its number among the expert's, how many of
 *                            these are left from it on
 *   plan[rows_at + p]        the token of place p; 0 where there is none
 *   plan[weights_at + p]     the weight of place p; nothing where there is none
 *   plan[pairs_at + 2 * ..]  [tokens][used]: the place of each of a token's experts, in their order, and its weight; NONE
 * One group of SORTERS work-items. */
__kernel void experts_plan(__global const float *route, ulong route_offset, uint route_stride, __global uint *plan,
                           uint tokens, uint first, uint end, uint used, uint tile, uint max_tiles, uint rows_at,
                           uint weights_at, uint pairs_at) {
    __local uint count[MOST], base[MOST], total;
    uint lid = get_local_id(0), n = end - first;
    __global uint *rows = plan + rows_at, *pairs = plan + pairs_at;
    for (uint e = lid; e < n; e += SORTERS) count[e] = 0;
    for (uint i = lid; i < max_tiles * tile; i += SORTERS) rows[i] = 0;
    barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
    for (uint t = lid; t < tokens; t += SORTERS) {
        __global const float *weights = route + route_offset + (ulong)t * route_stride + first;
        __global uint *own = pairs + (ulong)t * used * 2;
        uint k = 0;
        for (uint e = 0; e < n; e++) {
            float weight = weights[e];
            if (weight == 0.0f || k == used) continue;
            own[2 * k] = e;
            own[2 * k + 1] = as_uint(weight);
            atomic_inc(&count[e]);
            k++;
        }
        for (; k < used; k++) own[2 * k] = NONE;
    }
    barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
    if (lid == 0) {
        uint tiles = 0;
        for (uint e = 0; e < n; e++) {
            base[e] = tiles;
            tiles += (count[e] + tile - 1) / tile;
        }
        total = tiles;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint e = lid; e < n; e += SORTERS) {
        uint tiles = (count[e] + tile - 1) / tile;
        for (uint i = 0; i < tiles; i++)
            vstore4((uint4)(first + e, min(tile, count[e] - i * tile), i, tiles - i), base[e] + i, plan);
        count[e] = 0;
    }
    for (uint i = total + lid; i < max_tiles; i += SORTERS) vstore4((uint4)(0, 0, 0, 0), i, plan);
    barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
    for (uint t = lid; t < tokens; t += SORTERS)
        for (uint k = 0; k < used; k++) {
            __global uint *own = pairs + ((ulong)t * used + k) * 2;
            uint e = own[0];
            if (e == NONE) continue;
            uint place = base[e] * tile + atomic_inc(&count[e]);
            own[0] = place;
            rows[place] = t;
            plan[weights_at + place] = own[1];
        }
}

/* ---- around the products --------------------------------------------------------------------------------------------------- */

/* ACT: ht_activation's number. */
static inline floatv activated(floatv g) {
#if ACT == 3
    g = fmax(g, 0.0f);
    return g * g;
#elif ACT == 5
    g = fmin(g, 7.0f);
    return g / (1.0f + expv(-1.702f * g));
#elif ACT == 1
    return g / (1.0f + expv(-2.0f * 0.7978845608028654f * (g + 0.044715f * g * g * g)));
#else
    return g / (1.0f + expv(-g));
#endif
}

/* In place: the first n of the gates * n values of each place that is taken. WEIGHED: of the place's weight times these. Global
 * size: (runs of RUN vectors, places). */
__kernel void experts_act(__global float *hidden, __global const uint *plan, uint weights_at, uint tile, uint n) {
    uint place = get_global_id(1);
    if (place % tile >= plan[place / tile * 4 + 1]) return;
    float weight = WEIGHED ? as_float(plan[weights_at + place]) : 1.0f;
    for (uint k = 0, i = get_global_id(0) * (RUN * VEC); k < RUN && i < n; k++, i += VEC) {
        __global float *gate = hidden + (ulong)place * (GATES * n) + i;
        floatv v = activated(vloadv(0, gate) * weight);
#if GATES == 2
        floatv up = vloadv(0, gate + n) * weight;
        v *= ACT == 5 ? clamp(up, -7.0f, 7.0f) + 1.0f : up;
#endif
        vstorev(v, 0, gate);
    }
}

/* out[t] = sum over the token's experts of weight * given, of what is given alone where it is WEIGHED. Global size: (runs of RUN vectors, tokens). */
__kernel void experts_sum(__global const float *given, __global const uint *plan, uint pairs_at, uint used,
                          __global float *out, ulong out_offset, uint out_stride, uint n) {
    uint t = get_global_id(1);
    __global const uint *pairs = plan + pairs_at + (ulong)t * used * 2;
    for (uint run = 0, i = get_global_id(0) * (RUN * VEC); run < RUN && i < n; run++, i += VEC) {
        floatv sum = (floatv)(0.0f);
        for (uint k = 0; k < used; k++)
            if (pairs[2 * k] != NONE)
                sum += (WEIGHED ? 1.0f : as_float(pairs[2 * k + 1])) * vloadv(0, given + (ulong)pairs[2 * k] * n + i);
        vstorev(sum, 0, out + out_offset + (ulong)t * out_stride + i);
    }
}
