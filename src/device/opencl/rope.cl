/* ROPE: queries and keys of a token normalised (QK-norm) and rotated in place, keys and values to the cache.
 *
 * Built with DIM, ROPE_DIM (of a head, that are rotated), ROPE_FIRST (from which one on), NORM_DIM (of its first values, that
 * are normalised), NORM_AFTER (the rotation), HALVES (pairs (i, i + ROPE_DIM/2), else neighbours), KV_F32 and ITEMS (work-items of a group).
 * One group a (head, token): query heads [first, first + n), then key heads, then value heads [kv_first, kv_first + kv_n).
 */
#if VEC == 16
#define HV 8
#else
#define HV 2
#endif
#define halfv CONCAT(float, HV)
#define vloadh CONCAT(vload, HV)
#define vstoreh CONCAT(vstore, HV)

#if KV_F32
#define kv_t float
#define kv_store(v, i, to) (to)[i] = (v)
#define kv_storev(v, to) vstorev(v, 0, to)
#else
#define kv_t half
#define kv_store(v, i, to) vstore_half_rte(v, i, to)
#define kv_storev(v, to) CONCAT(CONCAT(vstore_half, VEC), _rte)(v, 0, to)
#endif

/* Rotates VEC / 2 pairs from pair i on, or one. */
static inline void rotate_some(__global float *head, __global const float *table, uint i) {
    floatv angles = vloadv(0, table + 2 * i);
    halfv c = angles.even, s = angles.odd;
#if HALVES
    uint p = i, q = i + ROPE_DIM / 2;
    halfv x = vloadh(0, head + p), y = vloadh(0, head + q);
    vstoreh(x * c - y * s, 0, head + p);
    vstoreh(x * s + y * c, 0, head + q);
#else
    floatv v = vloadv(0, head + 2 * i);
    halfv x = v.even, y = v.odd;
    v.even = x * c - y * s;
    v.odd = x * s + y * c;
    vstorev(v, 0, head + 2 * i);
#endif
}

static inline void rotate_one(__global float *head, __global const float *table, uint i) {
    float c = table[2 * i], s = table[2 * i + 1];
#if HALVES
    uint p = i, q = i + ROPE_DIM / 2;
#else
    uint p = 2 * i, q = 2 * i + 1;
#endif
    float x = head[p], y = head[q];
    head[p] = x * c - y * s;
    head[q] = x * s + y * c;
}

/* Sum of squares of a head less `off` each, or its sum. Every work-item sums the whole head: they are short. */
static inline float head_sum(__global const float *head, float off, bool squared) {
    floatv sums = (floatv)(0.0f);
    for (uint i = 0; i + VEC <= NORM_DIM; i += VEC) {
        floatv v = vloadv(0, head + i) - off;
        sums += squared ? v * v : v;
    }
    float sum = lanes_sum(sums);
    for (uint i = NORM_DIM / VEC * VEC; i < NORM_DIM; i++) sum += (head[i] - off) * (squared ? head[i] - off : 1.0f);
    return sum;
}

#if ITEMS > 1
#define TOGETHER barrier(CLK_GLOBAL_MEM_FENCE);
#else
#define TOGETHER
#endif

/* Which heads are normalised: queries, keys, values (these without weights); with weights of each head's own; less their
 * mean. */
#define QUERIES_NORMED 1
#define KEYS_NORMED 2
#define VALUES_NORMED 4
#define OWN_WEIGHTS 8
#define IS_LAYER 16

static inline void norm_head(__global float *head, __global const float *weight, bool layer, bool is_value, float eps) {
    uint lid = get_local_id(0);
    float mean = layer ? head_sum(head, 0.0f, false) / (float)NORM_DIM : 0.0f;
    float scale = 1.0f / sqrt(head_sum(head, mean, true) / (float)NORM_DIM + eps);
    TOGETHER /* all sums before any store */
    for (uint i = lid * VEC; i + VEC <= NORM_DIM; i += ITEMS * VEC) {
        floatv v = (vloadv(0, head + i) - mean) * scale;
        if (!is_value) v *= vloadv(0, weight + i);
        vstorev(v, 0, head + i);
    }
    for (uint i = NORM_DIM / VEC * VEC + lid; i < NORM_DIM; i += ITEMS)
        head[i] = (head[i] - mean) * scale * (is_value ? 1.0f : weight[i]);
    TOGETHER
}

__kernel void rope(__global float *qkv, ulong offset, uint stride, __global const float *angles,
                   __global const float *query_angles, __global const float *q_norm, __global const float *k_norm,
                   __global kv_t *keys, ulong keys_offset, __global kv_t *values, ulong values_offset, uint heads,
                   uint kv_heads, uint positions, uint position, float eps, uint norms, uint first, uint n,
                   uint kv_first, uint kv_n) {
    uint of_part = get_group_id(0), t = get_group_id(1), lid = get_local_id(0);
    uint head_index = of_part < n          ? first + of_part
                      : of_part < n + kv_n ? heads + kv_first + (of_part - n)
                                           : heads + kv_heads + kv_first + (of_part - n - kv_n);
    __global float *head = qkv + offset + (ulong)t * stride + head_index * DIM;
    bool is_query = head_index < heads, is_value = head_index >= heads + kv_heads;
    uint kv = is_query ? 0 : (head_index - heads) % kv_heads;
    bool normed = norms & (is_query ? QUERIES_NORMED : is_value ? VALUES_NORMED : KEYS_NORMED);
    __global const float *weight = is_query ? q_norm : k_norm;
    if (norms & OWN_WEIGHTS) weight += (is_query ? head_index : kv) * NORM_DIM;
    if (normed && !NORM_AFTER) norm_head(head, weight, norms & IS_LAYER && !is_value, is_value, eps);
#if ROPE_DIM > 0
    __global const float *table = (is_query ? query_angles : angles) + (ulong)(position + t) * ROPE_DIM;
    __global float *rotated = head + ROPE_FIRST;
    const uint pairs = is_value ? 0 : ROPE_DIM / 2, whole = pairs / HV;
    for (uint i = lid; i < whole; i += ITEMS) rotate_some(rotated, table, i * HV);
    for (uint i = whole * HV + lid; i < pairs; i += ITEMS) rotate_one(rotated, table, i);
    TOGETHER
#endif
    if (normed && NORM_AFTER) norm_head(head, weight, norms & IS_LAYER && !is_value, is_value, eps);
    if (is_query) return;
    ulong at = ((ulong)kv * positions + position + t) * DIM;
    __global kv_t *to = is_value ? values + values_offset + at : keys + keys_offset + at;
    for (uint i = lid * VEC; i + VEC <= DIM; i += ITEMS * VEC) kv_storev(vloadv(0, head + i), to + i);
    for (uint i = DIM / VEC * VEC + lid; i < DIM; i += ITEMS) kv_store(head[i], i, to);
}
