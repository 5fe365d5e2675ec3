/* ATTENTION for GPUs. Online softmax over blocks of keys (Milakov and Gimelshein, 2018; FlashAttention's tiles, Dao et al.,
 * 2022; splits of a long cache as in Flash-Decoding, 2023).
 *
 * Built with DIM (of a head), KV_F32, ITEMS (work-items of a group), and for attention_tiles QUERIES and KEYS of a tile.
 */
#if KV_F32
#define kv_t float
#define kv_load(i, from) (from)[i]
#else
#define kv_t half
#define kv_load(i, from) vload_half(i, from)
#endif

#ifdef QUERIES
/* ---- many tokens: QUERIES x KEYS tiles in local memory ------------------------------------------------------------------
 *
 * Work-item i has queries 4 * (i % Q4) ..+3, and of these KEYS_EACH keys in the scores, DIMS_EACH columns of the output. */
#define Q4 (QUERIES / 4)
#define SIDES (ITEMS / Q4)
#define KEYS_EACH (KEYS / SIDES)
#define DIMS_EACH ((DIM + SIDES - 1) / SIDES)

__kernel __attribute__((reqd_work_group_size(ITEMS, 1, 1))) void attention_tiles(
    __global const float *qkv, ulong offset, uint stride, __global const kv_t *keys, ulong keys_offset,
    __global const kv_t *values, ulong values_offset, __global float *out, ulong out_offset, uint out_stride, uint heads,
    uint group, uint lead, uint positions, uint position, uint tokens, uint window, float scale, BENDS) {
    __local float q[DIM * QUERIES];      /* [column][query] */
    __local float block[DIM * KEYS];     /* keys [column][key], then values [key][column] */
    __local float scores[KEYS * QUERIES]; /* [key][query] */
    __local float most[QUERIES], sum[QUERIES], shrink[QUERIES];

    uint blocks = (tokens + QUERIES - 1) / QUERIES, lid = get_local_id(0);
    uint head = get_group_id(0), first = (blocks - 1 - get_group_id(1)) * QUERIES, n = min(tokens - first, (uint)QUERIES);
    ulong cache = (ulong)((lead + head) / group) * positions * DIM;
    __global const kv_t *ks = keys + keys_offset + cache, *vs = values + values_offset + cache;
    __global const float *from = qkv + offset + (ulong)first * stride + head * DIM;
    for (uint i = lid; i < DIM * QUERIES; i += ITEMS) {
        uint t = i / DIM, d = i % DIM;
        q[d * QUERIES + t] = t < n ? from[(ulong)t * stride + d] * scale : 0.0f;
    }
    for (uint i = lid; i < QUERIES; i += ITEMS) {
        most[i] = MOST_BEFORE;
        sum[i] = SUM_BEFORE;
    }
    float4 o[DIMS_EACH];
#pragma unroll
    for (uint i = 0; i < DIMS_EACH; i++) o[i] = (float4)(0.0f);

    uint mine = lid % Q4 * 4, side = lid / Q4;
    uint last = position + first + n - 1;
    for (uint k = first_seen(position + first, window, chunk); k <= last; k += KEYS) {
        barrier(CLK_LOCAL_MEM_FENCE);
        for (uint i = lid; i < DIM * KEYS; i += ITEMS) {
            uint j = i / DIM, d = i % DIM;
            block[d * KEYS + j] = k + j <= last ? kv_load((ulong)(k + j) * DIM + d, ks) : 0.0f;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        float4 s[KEYS_EACH];
#pragma unroll
        for (uint j = 0; j < KEYS_EACH; j++) s[j] = (float4)(0.0f);
        for (uint d = 0; d < DIM; d++) {
            float4 v = vload4(0, q + d * QUERIES + mine);
#pragma unroll
            for (uint j = 0; j < KEYS_EACH; j++) s[j] += v * block[d * KEYS + side * KEYS_EACH + j];
        }
#pragma unroll
        for (uint j = 0; j < KEYS_EACH; j++) {
            int key = (int)(k + side * KEYS_EACH + j);
            int4 at = (int)(position + first + mine) + (int4)(0, 1, 2, 3), seen = (int4)(key) <= at;
            if (window) seen = seen & ((int4)(key) > at - (int)window);
#if CHUNKED
            seen = seen & ((int4)(key) >= at - at % (int)chunk);
#endif
#if BENT
            s[j] = BEND_SCORE(s[j], convert_float4((int4)(key) - at), exp);
#endif
            vstore4(select((float4)(NOTHING), s[j], seen), 0, scores + (side * KEYS_EACH + j) * QUERIES + mine);
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        /* the values come while some work-items do the softmax, a query each */
        for (uint i = lid; i < DIM * KEYS; i += ITEMS)
            block[i] = k + i / DIM <= last ? kv_load((ulong)k * DIM + i, vs) : 0.0f;
        for (uint t = lid; t < QUERIES; t += ITEMS) {
            float larger = most[t], total = 0.0f;
            for (uint j = 0; j < KEYS; j++) larger = fmax(larger, scores[j * QUERIES + t]);
            for (uint j = 0; j < KEYS; j++) {
                float score = scores[j * QUERIES + t], p = score > NOTHING ? exp(score - larger) : 0.0f;
                scores[j * QUERIES + t] = p;
                total += p;
            }
            shrink[t] = exp(most[t] - larger);
            sum[t] = sum[t] * shrink[t] + total;
            most[t] = larger;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        float4 less = vload4(0, shrink + mine);
#pragma unroll
        for (uint i = 0; i < DIMS_EACH; i++) o[i] *= less;
        for (uint j = 0; j < KEYS; j++) {
            float4 p = vload4(0, scores + j * QUERIES + mine);
            __local const float *row = block + j * DIM + side * DIMS_EACH;
#pragma unroll
            for (uint i = 0; i < DIMS_EACH; i++)
                if (DIM % SIDES == 0 || side * DIMS_EACH + i < DIM) o[i] += p * row[i];
        }
    }
    float4 share = 1.0f / vload4(0, sum + mine);
    for (uint i = 0; i < DIMS_EACH; i++) {
        uint d = side * DIMS_EACH + i;
        float4 v = o[i] * share;
        float values_of[4] = {v.x, v.y, v.z, v.w};
        for (uint t = 0; t < 4; t++)
            if (d < DIM && mine + t < n)
                out[out_offset + (ulong)(first + mine + t) * out_stride + head * DIM + d] = values_of[t];
    }
}
#else
/* ---- few tokens: a group a (head, token, share of the keys) -------------------------------------------------------------- */

#define KEYS 256 /* scores at a time */
#define PARTS (ITEMS / DIM > 0 ? ITEMS / DIM : 1) /* work-items that share a column of the output */

/* With one split the result goes to out; else (output, largest score, sum) of each goes to partials, for attention_merge. */
__kernel __attribute__((reqd_work_group_size(ITEMS, 1, 1))) void attention_split(
    __global const float *qkv, ulong offset, uint stride, __global const kv_t *keys, ulong keys_offset,
    __global const kv_t *values, ulong values_offset, __global float *out, ulong out_offset, uint out_stride, uint heads,
    uint group, uint lead, uint positions, uint position, uint tokens, uint window, float scale, BENDS, __global float *partials,
    uint splits) {
    __local float q[DIM], scores[KEYS], shared[ITEMS], o[PARTS * DIM];
    uint head = get_group_id(0), t = get_group_id(1), split = get_group_id(2), lid = get_local_id(0);
    uint end = position + t + 1, begin = first_seen(position + t, window, chunk);
    uint each = (end - begin + splits - 1) / splits;
    begin = min(begin + split * each, end);
    end = min(begin + each, end);
    ulong cache = (ulong)((lead + head) / group) * positions * DIM;
    __global const kv_t *ks = keys + keys_offset + cache, *vs = values + values_offset + cache;
    __global const float *from = qkv + offset + (ulong)t * stride + head * DIM;
    for (uint d = lid; d < DIM; d += ITEMS) q[d] = from[d] * scale;
    for (uint d = lid; d < PARTS * DIM; d += ITEMS) o[d] = 0.0f;
    float most = split ? NOTHING : MOST_BEFORE, sum = split ? 0.0f : SUM_BEFORE;
    for (uint k = begin; k < end; k += KEYS) {
        uint n = min(end - k, (uint)KEYS);
        barrier(CLK_LOCAL_MEM_FENCE);
        float larger = most;
        for (uint j = lid; j < n; j += ITEMS) {
            __global const kv_t *row = ks + (ulong)(k + j) * DIM;
            float4 products = (float4)(0.0f);
            uint d = 0;
#if KV_F32
            for (; d + 4 <= DIM; d += 4) products += vload4(0, q + d) * vload4(0, row + d);
#else
            for (; d + 4 <= DIM; d += 4) products += vload4(0, q + d) * vload_half4(0, row + d);
#endif
            float score = lanes_sum4(products);
            for (; d < DIM; d++) score += q[d] * kv_load(d, row);
#if BENT
            score = BEND_SCORE(score, (float)(k + j) - (float)(position + t), exp);
#endif
            scores[j] = score;
            larger = fmax(larger, score);
        }
        larger = items_max(larger, shared, ITEMS);
        float total = 0.0f;
        for (uint j = lid; j < n; j += ITEMS) {
            scores[j] = exp(scores[j] - larger);
            total += scores[j];
        }
        total = items_sum(total, shared, ITEMS);
        float shrink = exp(most - larger);
        most = larger;
        sum = sum * shrink + total;
        for (uint i = lid; i < PARTS * DIM; i += ITEMS) {
            uint d = i % DIM, part = i / DIM;
            float v = o[i] * shrink;
            for (uint j = part; j < n; j += PARTS) v += scores[j] * kv_load((ulong)(k + j) * DIM + d, vs);
            o[i] = v;
        }
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    __global float *to = splits == 1 ? out + out_offset + (ulong)t * out_stride + head * DIM
                                     : partials + (((ulong)t * heads + head) * splits + split) * (DIM + 2);
    float share = splits == 1 ? 1.0f / sum : 1.0f;
    for (uint d = lid; d < DIM; d += ITEMS) {
        float v = 0.0f;
        for (uint part = 0; part < PARTS; part++) v += o[part * DIM + d];
        to[d] = v * share;
    }
    if (splits > 1 && lid == 0) {
        to[DIM] = most;
        to[DIM + 1] = sum;
    }
}

__kernel __attribute__((reqd_work_group_size(ITEMS, 1, 1))) void attention_merge(__global const float *partials,
                                                                                uint splits, __global float *out,
                                                                                ulong out_offset, uint out_stride,
                                                                                uint heads) {
    uint head = get_group_id(0), t = get_group_id(1);
    __global const float *from = partials + ((ulong)t * heads + head) * splits * (DIM + 2);
    float most = NOTHING, sum = 0.0f;
    for (uint i = 0; i < splits; i++) most = fmax(most, from[i * (DIM + 2) + DIM]);
    for (uint i = 0; i < splits; i++) sum += from[i * (DIM + 2) + DIM + 1] * exp(from[i * (DIM + 2) + DIM] - most);
    for (uint d = get_local_id(0); d < DIM; d += ITEMS) {
        float v = 0.0f;
        for (uint i = 0; i < splits; i++) v += from[i * (DIM + 2) + d] * exp(from[i * (DIM + 2) + DIM] - most);
        out[out_offset + (ulong)t * out_stride + head * DIM + d] = v / sum;
    }
}
#endif
