/* Attention over the vector primitives of kernels_impl.h, which includes this.
 *
 * What a token and a head give depends on nothing else: keys are taken in blocks that begin at multiples of KEYS,
 * whoever asks, and a key that is not visible weighs exactly nothing. So a token has the same values alone and in a
 * prompt, to the bit. */

/* Online softmax (Milakov and Gimelshein 2018; tiled as in FlashAttention, Dao 2022). */

INLINE size_t first_visible(const ht_attention_job *j, size_t position) {
    if (j->end)
        return j->window && position > j->window / 2 ? position - j->window / 2 : 0;
    const size_t first = j->window && position + 1 > j->window ? position + 1 - j->window : 0;
    return j->chunk ? ht_max_size(first, position / j->chunk * j->chunk) : first;
}

/* One past the last. */
INLINE size_t visible_end(const ht_attention_job *j, size_t position) {
    if (!j->end)
        return position + 1;
    return j->window ? ht_min_size(j->end, position + j->window / 2 + 1) : j->end;
}

/* Caps the scores of keys [p0, p0 + n), and adds what their distance from the query costs. n: whole vectors. */
INLINE void bend_scores(const ht_attention_job *j, size_t head, float *score, size_t p0, size_t n, size_t position) {
    static const float lanes[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const float away = (float)((double)p0 - (double)position);
    for (size_t i = 0; i < n; i += VW) {
        vf s = vf_load(score + i);
        if (j->soft_cap > 0)
            s = capped(s, j->soft_cap);
        if (j->slopes)
            s = vf_fma(vf_add(vf_load(lanes), vf_bcast(away + (float)i)), vf_bcast(j->slopes[head]), s);
        vf_store(score + i, s);
    }
}

INLINE vf kv_load(const void *cache, size_t at, bool wide) {
    return wide ? vf_load((const float *)cache + at) : vf_half((const uint16_t *)cache + at);
}

INLINE float kv_value(const void *cache, size_t at, bool wide) {
    return wide ? ((const float *)cache)[at] : ht_f16_to_f32(((const uint16_t *)cache)[at]);
}

INLINE vf key_dot(const float *q, const void *keys, size_t at, size_t dim, bool wide) {
    vf sum[2] = {vf_zero(), vf_zero()};
    size_t d = 0;
    for (; d + 2 * VW <= dim; d += 2 * VW)
        for (int i = 0; i < 2; i++)
            sum[i] = vf_fma(vf_load(q + d + i * VW), kv_load(keys, at + d + i * VW, wide), sum[i]);
    vf total = vf_add(sum[0], sum[1]);
    for (; d + VW <= dim; d += VW)
        total = vf_fma(vf_load(q + d), kv_load(keys, at + d, wide), total);
    return total;
}

/* One token, one head: scores of a block of positions, then its values. Where head_dim is no multiple of PASS_ROWS. */
INLINE void attend_one(const ht_attention_job *j, size_t head, const float *q, size_t position, float *out, bool wide) {
    enum { BLOCK = 64 };
    const size_t dim = j->head_dim, whole = dim / VW * VW, end = visible_end(j, position);
    const bool bends = j->soft_cap > 0 || j->slopes;
    /* a sink is one more score, of a key without values */
    float most = j->sinks ? j->sinks[head] : -INFINITY, total = j->sinks ? 1 : 0;
    _Alignas(64) float score[BLOCK];
    memset(out, 0, dim * sizeof(float));
    for (size_t p0 = first_visible(j, position); p0 < end; p0 += BLOCK) {
        const size_t n = ht_min_size(BLOCK, end - p0);
        float block_most = most;
        for (size_t i = 0; i < n; i++) {
            float s = vf_hsum(key_dot(q, j->keys, (p0 + i) * dim, dim, wide));
            for (size_t d = whole; d < dim; d++)
                s += q[d] * kv_value(j->keys, (p0 + i) * dim + d, wide);
            score[i] = s * j->scale;
            if (score[i] > block_most && !bends)
                block_most = score[i];
        }
        if (bends) {
            for (size_t i = n; i < BLOCK; i++)
                score[i] = 0;
            bend_scores(j, head, score, p0, BLOCK, position);
            for (size_t i = 0; i < n; i++)
                block_most = score[i] > block_most ? score[i] : block_most;
        }
        for (size_t i = n; i < BLOCK; i++)
            score[i] = -INFINITY;
        vf sum = vf_zero();
        for (size_t i = 0; i < BLOCK; i += VW) {
            vf x = vf_load(score + i);
            vf e = vf_exp_masked(vf_exp(vf_sub(x, vf_bcast(block_most))), x);
            vf_store(score + i, e);
            sum = vf_add(sum, e);
        }
        const float fade = most == -INFINITY ? 0 : expf(most - block_most);
        total = total * fade + vf_hsum(sum);
        most = block_most;
        for (size_t d = 0; d < whole; d += VW) {
            vf acc = vf_mul(vf_load(out + d), vf_bcast(fade));
            for (size_t i = 0; i < n; i++)
                acc = vf_fma(kv_load(j->values, (p0 + i) * dim + d, wide), vf_bcast(score[i]), acc);
            vf_store(out + d, acc);
        }
        for (size_t d = whole; d < dim; d++) {
            out[d] *= fade;
            for (size_t i = 0; i < n; i++)
                out[d] += kv_value(j->values, (p0 + i) * dim + d, wide) * score[i];
        }
    }
    for (size_t d = 0; d < dim; d++)
        out[d] /= total;
}

/* Queries in tiles: rows are (token, head) pairs, a token's heads beside each other, so that those of a few tokens
 * share what is made of keys and values, too: K^T and V of a block of positions become float panels that all tiles of
 * the group use. head_dim must be a multiple of PASS_ROWS. */
#define KEYS 32 /* of a block: a multiple of PASS_ROWS */

typedef struct tile_state {
    float *queries;      /* [head_dim][TILE], scaled */
    float *out;          /* [TILE][head_dim] */
    float *most, *total; /* [TILE] */
} tile_state;

static tile_state tile_at(float *base, size_t index, size_t dim) {
    float *at = base + index * (2 * TILE * dim + 2 * 16);
    return (tile_state){at, at + TILE * dim, at + 2 * TILE * dim, at + 2 * TILE * dim + 16};
}

typedef struct key_block {
    size_t first, n;     /* positions */
    const float *keys;   /* [KEYS / PASS_ROWS][head_dim][PASS_ROWS] */
    const float *values; /* [n][head_dim] */
} key_block;

/* Weights of a row's keys from their scores, in place, whose sums go to the row's state. */
INLINE void weigh_keys(const ht_attention_job *j, size_t head, size_t position, const key_block *b, float *row,
                       tile_state s, size_t i) {
    const size_t dim = j->head_dim, first = first_visible(j, position), end = visible_end(j, position), p0 = b->first;
    const bool whole = b->n == KEYS && p0 + KEYS <= end && p0 >= first;
    bool any = whole;
    if (j->soft_cap > 0 || j->slopes)
        bend_scores(j, head, row, p0, KEYS, position);
    for (size_t k = 0; k < KEYS && !whole; k++) {
        const bool visible = p0 + k < end && p0 + k >= first;
        if (!visible)
            row[k] = -INFINITY;
        any |= visible;
    }
    if (!any) {
        memset(row, 0, KEYS * sizeof *row);
        return;
    }
    vf top = vf_load(row);
    for (size_t k = VW; k < KEYS; k += VW)
        top = vf_max(top, vf_load(row + k));
    const float most = fmaxf(s.most[i], vf_hmax(top));
    const float fade = s.most[i] == most ? 1 : s.most[i] == -INFINITY ? 0 : expf(s.most[i] - most);
    vf sum = vf_zero();
    for (size_t k = 0; k < KEYS; k += VW) {
        const vf x = vf_load(row + k), e = vf_exp_masked(vf_exp(vf_sub(x, vf_bcast(most))), x);
        sum = vf_add(sum, e);
        vf_store(row + k, e);
    }
    s.total[i] = s.total[i] * fade + vf_hsum(sum);
    s.most[i] = most;
    for (size_t d = 0; d < dim && fade != 1; d += VW)
        vf_store(s.out + i * dim + d, vf_mul(vf_load(s.out + i * dim + d), vf_bcast(fade)));
}

/* Rows [first, first + rows) of all: row r is token r / heads and head r % heads of the job. */
static void tile_block(const ht_attention_job *j, tile_state s, size_t first, size_t rows, const key_block *b) {
    const size_t dim = j->head_dim, last = j->position + (first + rows - 1) / j->heads,
                 n = ht_min_size(b->n, visible_end(j, last) - b->first);
    _Alignas(64) float score[TILE * KEYS];
    memset(score, 0, sizeof score);
    for (size_t k = 0; k < n; k += PASS_ROWS)
        panel_product(rows, b->keys + k * dim, PASS_ROWS, (factor){s.queries, TILE, 1}, dim, score + k, KEYS);
    for (size_t i = 0; i < rows; i++)
        weigh_keys(j, (first + i) % j->heads, j->position + (first + i) / j->heads, b, score + i * KEYS, s, i);
    for (size_t d = 0; d < dim; d += PASS_ROWS)
        panel_product(rows, b->values + d, dim, (factor){score, 1, KEYS}, n, s.out + d, dim);
}

/* Positions [p0, p0 + n) of the cache as panels. */
INLINE void load_block(const ht_attention_job *j, bool wide, size_t p0, size_t n, float *keys, float *values,
                       key_block *b) {
    const size_t dim = j->head_dim;
    for (size_t k = 0; k < ht_round_up(n, PASS_ROWS); k += VW)
        for (size_t d = 0; d < dim; d += VW) {
            vf x[VW];
            UNROLL
            for (size_t i = 0; i < VW; i++)
                x[i] = k + i < n ? kv_load(j->keys, (p0 + k + i) * dim + d, wide) : vf_zero();
            vf_transpose(x);
            float *to = keys + k / PASS_ROWS * PASS_ROWS * dim + k % PASS_ROWS;
            UNROLL
            for (size_t i = 0; i < VW; i++)
                vf_store(to + (d + i) * PASS_ROWS, x[i]);
        }
    for (size_t i = 0; i < n * dim && !wide; i += VW)
        vf_store(values + i, kv_load(j->values, p0 * dim + i, false));
    *b = (key_block){p0, n, keys, wide ? (const float *)j->values + p0 * dim : values};
}

INLINE void attend_tiles(const ht_attention_job *j, bool wide) {
    const size_t dim = j->head_dim, all = j->tokens * j->heads, end = visible_end(j, j->position + j->tokens - 1);
    float *keys = j->scratch, *values = keys + KEYS * dim, *states = values + KEYS * dim;
    for (size_t r = 0; r < ht_round_up(all, TILE); r++) {
        const tile_state s = tile_at(states, r / TILE, dim);
        const size_t i = r % TILE, h = r % j->heads;
        const float *q = j->queries + r / j->heads * j->query_stride + h * dim;
        for (size_t d = 0; d < dim; d++)
            s.queries[d * TILE + i] = r < all ? q[d] * j->scale : 0;
        s.most[i] = j->sinks ? j->sinks[h] : -INFINITY, s.total[i] = j->sinks ? 1 : 0;
        memset(s.out + i * dim, 0, dim * sizeof(float));
    }
    for (size_t p0 = first_visible(j, j->position) / KEYS * KEYS; p0 < end; p0 += KEYS) {
        key_block b;
        load_block(j, wide, p0, ht_min_size(KEYS, end - p0), keys, values, &b);
        for (size_t r = 0; r < all; r += TILE) {
            const size_t rows = ht_min_size(TILE, all - r);
            if (p0 < visible_end(j, j->position + (r + rows - 1) / j->heads) &&
                p0 + b.n > first_visible(j, j->position + r / j->heads))
                tile_block(j, tile_at(states, r / TILE, dim), r, rows, &b);
        }
    }
    for (size_t r = 0; r < all; r++) {
        const tile_state s = tile_at(states, r / TILE, dim);
        const float *in = s.out + r % TILE * dim, inverse = 1 / s.total[r % TILE];
        float *out = j->out + r / j->heads * j->out_stride + r % j->heads * dim;
        for (size_t d = 0; d < dim; d++)
            out[d] = in[d] * inverse;
    }
}

INLINE void attend(const ht_attention_job *j, bool wide) {
    if (j->head_dim % PASS_ROWS == 0) {
        attend_tiles(j, wide);
        return;
    }
    for (size_t t = 0; t < j->tokens; t++)
        for (size_t h = 0; h < j->heads; h++)
            attend_one(j, h, j->queries + t * j->query_stride + h * j->head_dim, j->position + t,
                       j->out + t * j->out_stride + h * j->head_dim, wide);
}

static void attention(const ht_attention_job *j) {
    if (j->kv_type == HT_KV_F32)
        attend(j, true);
    else
        attend(j, false);
}

static size_t attention_scratch(size_t dim, size_t heads, size_t tokens) {
    return 2 * KEYS * dim + (heads * tokens + TILE - 1) / TILE * (2 * TILE * dim + 2 * 16);
}
