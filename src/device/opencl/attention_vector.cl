/* ATTENTION for drivers of CPUs: explicit vectors of 16, one work-item a group.
 *
 * Built with DIM (of a head), KV_F32 and with what attention.clh wants. Online softmax (Milakov and Gimelshein, 2018; blocks of keys as in
 * FlashAttention): largest score, sum and output so far, rescaled when a larger score comes.
 */
#if KV_F32
#define kv_t float
#define kv_load16(i, from) vload16(0, (from) + (i))
#define kv_load(i, from) (from)[i]
#else
#define kv_t half
#define kv_load16(i, from) vload_half16(0, (from) + (i))
#define kv_load(i, from) vload_half(i, from)
#endif
#define WHOLE (DIM / 16 * 16)

/* One row of the cache as floats. */
static inline void read_row(__global const kv_t *from, float *to) {
    for (uint d = 0; d < WHOLE; d += 16) vstore16(kv_load16(d, from), 0, to + d);
    for (uint d = WHOLE; d < DIM; d++) to[d] = kv_load(d, from);
}

/* Many tokens: lanes are 16 queries of one head, so that nothing is summed across lanes; 16 keys at a time. */
#define KEYS 16
#define FOR_KEYS _Pragma("unroll") for (uint j = 0; j < KEYS; j++)

WIDE __kernel void attention_many(__global const float *qkv, ulong offset, uint stride, __global const kv_t *keys,
                                  ulong keys_offset, __global const kv_t *values, ulong values_offset,
                                  __global float *out, ulong out_offset, uint out_stride, uint heads, uint group, uint lead,
                                  uint positions, uint position, uint tokens, uint window, float scale, BENDS) {
    uint blocks = (tokens + 15) / 16;
    /* the last tokens see the most keys: they go first, so that the units end together */
    uint head = get_group_id(0), first = (blocks - 1 - get_group_id(1)) * 16, n = min(tokens - first, 16u);
    ulong cache = (ulong)((lead + head) / group) * positions * DIM;
    __global const kv_t *ks = keys + keys_offset + cache, *vs = values + values_offset + cache;

    float16 q[DIM], o[DIM];
    for (uint lane = 0; lane < 16; lane++) {
        __global const float *from = qkv + offset + (ulong)(first + min(lane, n - 1)) * stride + head * DIM;
        for (uint d = 0; d < DIM; d++) ((float *)q)[d * 16 + lane] = from[d] * scale;
    }
    for (uint d = 0; d < DIM; d++) o[d] = (float16)(0.0f);
    float16 most = (float16)(MOST_BEFORE), sum = (float16)(SUM_BEFORE);
    int16 at = (int)(position + first) + (int16)(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    uint last = position + first + n - 1;

    for (uint k = first_seen(position + first, window, chunk); k <= last; k += KEYS) {
        float block[KEYS * DIM];
        float16 s[KEYS];
        FOR_KEYS read_row(ks + (ulong)min(k + j, last) * DIM, block + j * DIM);
        FOR_KEYS s[j] = (float16)(0.0f);
        for (uint d = 0; d < DIM; d++) {
            float16 v = q[d];
            FOR_KEYS s[j] += v * block[j * DIM + d];
        }
        float16 larger = most;
        FOR_KEYS {
            int key = (int)(k + j);
            int16 seen = (int16)(key) <= at; /* a key past the last one is past every query's own */
            if (window) seen = seen & ((int16)(key) > at - (int)window);
#if CHUNKED
            seen = seen & ((int16)(key) >= at - at % (int)chunk);
#endif
#if BENT
            s[j] = BEND_SCORE(s[j], convert_float16((int16)(key) - at), exp16);
#endif
            s[j] = select((float16)(NOTHING), s[j], seen);
            larger = fmax(larger, s[j]);
        }
        float16 shrink = exp16(most - larger);
        most = larger;
        sum *= shrink;
        FOR_KEYS {
            s[j] = select((float16)(0.0f), exp16(s[j] - larger), s[j] > (float16)(NOTHING));
            sum += s[j];
        }
        FOR_KEYS read_row(vs + (ulong)min(k + j, last) * DIM, block + j * DIM);
        for (uint d = 0; d < DIM; d++) {
            float16 v = o[d] * shrink;
            FOR_KEYS v += s[j] * block[j * DIM + d];
            o[d] = v;
        }
    }
    float16 share = 1.0f / sum;
    for (uint d = 0; d < DIM; d++) o[d] *= share;
    for (uint lane = 0; lane < n; lane++) {
        __global float *to = out + out_offset + (ulong)(first + lane) * out_stride + head * DIM;
        for (uint d = 0; d < DIM; d++) to[d] = ((float *)o)[d * 16 + lane];
    }
}

/* Few tokens: one (head, token) a work-item, lanes along the head; 16 scores at a time. */
WIDE __kernel void attention_few(__global const float *qkv, ulong offset, uint stride, __global const kv_t *keys,
                                 ulong keys_offset, __global const kv_t *values, ulong values_offset,
                                 __global float *out, ulong out_offset, uint out_stride, uint heads, uint group, uint lead,
                                 uint positions, uint position, uint tokens, uint window, float scale, BENDS) {
    uint head = get_group_id(0), t = get_group_id(1), last = position + t;
    ulong cache = (ulong)((lead + head) / group) * positions * DIM;
    __global const kv_t *ks = keys + keys_offset + cache, *vs = values + values_offset + cache;
    __global const float *from = qkv + offset + (ulong)t * stride + head * DIM;
    float q[DIM], o[DIM];
    for (uint d = 0; d < DIM; d++) {
        q[d] = from[d] * scale;
        o[d] = 0.0f;
    }
    float most = MOST_BEFORE, sum = SUM_BEFORE;
    for (uint k = first_seen(last, window, chunk); k <= last; k += 16) {
        float scores[16];
        uint n = min(last + 1 - k, 16u);
        for (uint j = 0; j < 16; j++) {
            __global const kv_t *row = ks + (ulong)min(k + j, last) * DIM;
            float16 products = (float16)(0.0f);
            for (uint d = 0; d < WHOLE; d += 16) products += vload16(0, q + d) * kv_load16(d, row);
            float score = lanes_sum16(products);
            for (uint d = WHOLE; d < DIM; d++) score += q[d] * kv_load(d, row);
#if BENT
            score = BEND_SCORE(score, (float)(k + j) - (float)last, exp);
#endif
            scores[j] = j < n ? score : NOTHING;
        }
        float larger = most;
        for (uint j = 0; j < n; j++) larger = fmax(larger, scores[j]);
        float shrink = exp(most - larger);
        most = larger;
        vstore16(exp16(vload16(0, scores) - larger), 0, scores);
        sum *= shrink;
        for (uint j = 0; j < n; j++) sum += scores[j];
        for (uint d = 0; d < WHOLE; d += 16) {
            float16 v = vload16(0, o + d) * shrink;
            for (uint j = 0; j < n; j++) v += scores[j] * kv_load16(d, vs + (ulong)(k + j) * DIM);
            vstore16(v, 0, o + d);
        }
        for (uint d = WHOLE; d < DIM; d++) {
            float v = o[d] * shrink;
            for (uint j = 0; j < n; j++) v += scores[j] * kv_load(d, vs + (ulong)(k + j) * DIM);
            o[d] = v;
        }
    }
    __global float *to = out + out_offset + (ulong)t * out_stride + head * DIM;
    for (uint d = 0; d < DIM; d++) to[d] = o[d] / sum;
}
