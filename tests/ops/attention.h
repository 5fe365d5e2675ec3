/* ROPE and ATTENTION against the same in double precision, whole and in shares of heads. */
#ifndef HT_TEST_ATTENTION_H
#define HT_TEST_ATTENTION_H

#include "ops/shares.h"

#define MAX_CONTEXT 512

/* What differs between families. All zeros: halves of whole heads are not rotated. */
typedef struct attending {
    int window, chunk;
    bool both_ways;
    bool halves, norms; /* of queries and keys, by the fields below */
    ht_norm norm;
    bool norm_whole, norm_heads, norm_after, v_norm;
    int norm_dim;
    int rope_dim, rope_first; /* 0: the whole head; -1: none */
    bool own_angles;          /* queries have a table of their own */
    int value_dim;
    float soft_cap;
    bool sinks, slopes;
} attending;

static float *make_rope_table(size_t rope_dim, double growth) {
    float *table = malloc((MAX_CONTEXT * rope_dim + 1) * sizeof *table);
    for (size_t p = 0; p < MAX_CONTEXT; p++) /* a device may copy it whole */
        for (size_t i = 0; i < rope_dim / 2; i++) {
            double angle = (double)p * pow(10000, -2.0 * (double)i / (double)rope_dim);
            const double length = 1 + growth * (double)(p / 8);
            table[p * rope_dim + 2 * i] = (float)(length * cos(angle));
            table[p * rope_dim + 2 * i + 1] = (float)(length * sin(angle));
        }
    return table;
}

/* An operator pair, its tables and the values that go through it. */
typedef struct attention_bench {
    ht_op rope, attention;
    float *angles, *query_angles, *weights, *sinks, *slopes;
    size_t dim, heads, kvs, width, tokens, position, total;
    ht_kv_type type;
} attention_bench;

static attention_bench make_attention(const bench *b, const ht_hparams *h, const attending *a, size_t position,
                                      size_t tokens, ht_kv_type type) {
    attention_bench x = {.dim = (size_t)h->head_dim,
                         .heads = (size_t)h->heads,
                         .kvs = (size_t)h->kv_heads,
                         .tokens = tokens,
                         .position = position,
                         .total = position + tokens,
                         .type = type};
    const size_t rope_dim = a->rope_dim < 0 ? 0 : a->rope_dim ? (size_t)a->rope_dim : x.dim, all = x.heads * x.dim;
    x.width = (x.heads + (a->value_dim ? 1 : 2) * x.kvs) * x.dim;
    x.angles = make_rope_table(rope_dim, 0), x.query_angles = make_rope_table(rope_dim, 0.25);
    x.weights = malloc(2 * all * sizeof(float));
    x.sinks = malloc(2 * x.heads * sizeof(float)), x.slopes = x.sinks + x.heads;
    fill(x.weights, 2 * all), fill(x.sinks, x.heads);
    for (size_t i = 0; i < x.heads; i++)
        x.slopes[i] = exp2f(-8.0f * (float)(i + 1) / (float)x.heads);
    x.rope = (ht_op){.kind = HT_OP_ROPE,
                     .name = "rope",
                     .in = SLOT_QKV,
                     .out = SLOT_QKV,
                     .rope = rope_dim ? x.angles : NULL,
                     .rope_queries = a->own_angles ? x.query_angles : NULL,
                     .rope_dim = (int)rope_dim,
                     .rope_first = a->rope_first,
                     .rope_halves = a->halves,
                     .q_norm = a->norms ? x.weights : NULL,
                     .k_norm = a->norms ? x.weights + all : NULL,
                     .norm = a->norm,
                     .norm_whole = a->norm_whole,
                     .norm_heads = a->norm_heads,
                     .norm_after = a->norm_after,
                     .v_norm = a->v_norm,
                     .norm_dim = a->norm_dim,
                     .value_dim = a->value_dim,
                     .eps = 1e-6f};
    x.attention = (ht_op){.kind = HT_OP_ATTENTION,
                          .name = "attention",
                          .in = SLOT_QKV,
                          .out = SLOT_ATTN,
                          .scale = 1 / sqrtf((float)x.dim),
                          .window = a->window,
                          .attention_chunk = a->chunk,
                          .both_ways = a->both_ways,
                          .soft_cap = a->soft_cap,
                          .sinks = a->sinks ? x.sinks : NULL,
                          .slopes = a->slopes ? x.slopes : NULL,
                          .value_dim = a->value_dim};
    x.rope = shaped(b, x.rope, h), x.attention = shaped(b, x.attention, h);
    return x;
}

static void free_attention(attention_bench *x) {
    free(x->angles), free(x->query_angles), free(x->weights), free(x->sinks);
}

/* Queries, keys and values of a token, [width], as ROPE leaves them. */
static void reference_rope(const attention_bench *x, const float *in, size_t t, double *to) {
    const ht_op *op = &x->rope;
    const size_t dim = x->dim, rope_dim = (size_t)op->rope_dim, n = op->norm_dim ? (size_t)op->norm_dim : dim;
    for (size_t i = 0; i < x->width; i++)
        to[i] = (double)in[i];
    for (size_t head = 0; head < x->width / dim; head++) {
        double *at = to + head * dim;
        const bool query = head < x->heads, value = head >= x->heads + x->kvs;
        const size_t own = query ? head : head - x->heads, row = query ? x->heads * dim : x->kvs * dim;
        const float *weight = query ? op->q_norm : op->k_norm;
        if (value && op->v_norm)
            reference_norm(HT_NORM_RMS, at, NULL, NULL, 1e-6, dim, at);
        if (!value && weight && op->norm_whole && own == 0)
            reference_norm(op->norm, at, weight, NULL, 1e-6, row, at);
        if (!value && weight && !op->norm_whole && !op->norm_after)
            reference_norm(op->norm, at, weight + (op->norm_heads ? own * n : 0), NULL, 1e-6, n, at);
        const float *table = (query && op->rope_queries ? op->rope_queries : op->rope) + t * rope_dim;
        for (size_t i = 0; i < rope_dim / 2 && !value; i++) {
            const size_t p = (size_t)op->rope_first + (op->rope_halves ? i : 2 * i),
                         q = op->rope_halves ? p + rope_dim / 2 : p + 1;
            const double u = at[p], v = at[q], c = (double)table[2 * i], s = (double)table[2 * i + 1];
            at[p] = u * c - v * s, at[q] = u * s + v * c;
        }
        if (!value && weight && op->norm_after)
            reference_norm(op->norm, at, weight + (op->norm_heads ? own * n : 0), NULL, 1e-6, n, at);
    }
}

/* The cache against it; what is kept is what attention reads. */
static void check_kept(bench *b, const attention_bench *x, size_t t, double *row) {
    const size_t dim = x->dim, positions = x->total + 3;
    for (size_t head = x->heads; head < x->width / dim; head++)
        for (size_t i = 0; i < dim; i++) {
            const bool value = head >= x->heads + x->kvs;
            const size_t at = (((head - x->heads) % x->kvs) * positions + t) * dim + i;
            const void *cache = value ? b->kv.values : b->kv.keys;
            const double kept =
                (double)(x->type ? ((const float *)cache)[at] : ht_f16_to_f32(((const uint16_t *)cache)[at]));
            double *to = &row[head * dim + i];
            check(kept, *to, fabs(*to) * (x->type ? 0x1p-20 : 0x1p-10) + 1e-6,
                  value ? "values in the cache" : "keys in the cache", b->name, t, i);
            *to = kept;
        }
}

/* One head of one token; rows: of all tokens, as kept. */
static void check_attended(const bench *b, const attention_bench *x, const double *rows, size_t t, size_t head) {
    const ht_op *op = &x->attention;
    const size_t dim = x->dim, at = x->position + t, kv = head / (x->heads / x->kvs), window = (size_t)op->window,
                 first = op->both_ways               ? window && at > window / 2 ? at - window / 2 : 0
                         : op->attention_chunk       ? at / (size_t)op->attention_chunk * (size_t)op->attention_chunk
                         : window && at + 1 > window ? at + 1 - window
                                                     : 0,
                 last = !op->both_ways ? at
                        : window       ? ht_min_size(at + window / 2, x->total - 1)
                                       : x->total - 1,
                 values = op->value_dim ? 0 : x->kvs * dim, used = op->value_dim ? (size_t)op->value_dim : dim;
    const double *query = rows + at * x->width + head * dim, *keys = rows + (x->heads + kv) * dim;
    const float *out = (const float *)b->slots[SLOT_ATTN].data + t * b->slots[SLOT_ATTN].stride + head * dim;
    double most = op->sinks ? (double)op->sinks[head] : -1e300, sum = 0, size_of = 0, *p = calloc(last + 1, sizeof *p);
    for (size_t k = first; k <= last; k++) {
        for (size_t i = 0; i < dim; i++)
            p[k] += query[i] * keys[k * x->width + i];
        p[k] *= (double)op->scale;
        size_of = fmax(size_of, fabs(p[k]));
        if (op->soft_cap > 0)
            p[k] = (double)op->soft_cap * tanh(p[k] / (double)op->soft_cap);
        if (op->slopes)
            p[k] -= (double)op->slopes[head] * (double)(at - k);
        most = fmax(most, p[k]);
    }
    for (size_t k = first; k <= last; k++)
        sum += p[k] = exp(p[k] - most);
    if (op->sinks)
        sum += exp((double)op->sinks[head] - most);
    for (size_t i = 0; i < used; i++) {
        double want = 0, size = 0;
        for (size_t k = first; k <= last; k++) {
            const double term = p[k] / sum * keys[k * x->width + values + i];
            want += term, size += fabs(term);
        }
        /* an error e of a score changes its weight by e: eps * sqrt(dim) * |score| with scores up to a few hundred */
        check((double)out[i], want,
              size * (EPS * 8 * sqrt((double)dim) * (fabs(most) + (op->soft_cap > 0 ? size_of : 0) + 8)), "attention",
              b->name, t, head * dim + i);
    }
    free(p);
}

/* Rope writes the cache, attention reads it: checked together on what the cache must hold (fp16 of the rotated keys). */
static void test_attending(bench *b, const ht_hparams *h, const attending *a, size_t position, size_t tokens,
                           ht_kv_type type) {
    if (small && position + tokens > 40)
        return;
    attention_bench x = make_attention(b, h, a, position, tokens, type);
    const size_t kv_bytes = ht_round_up(x.kvs * (x.total + 3) * x.dim * (type ? 4 : 2), small ? 1 : 4096);
    b->kv = (ht_kv_layer){.keys = make_pages(b, kv_bytes),
                          .values = a->value_dim ? NULL : make_pages(b, kv_bytes),
                          .positions = x.total + 3,
                          .type = type};
    float *qkv = make_slot(b, SLOT_QKV, x.total, x.width);
    make_slot(b, SLOT_ATTN, x.total, x.heads * x.dim);
    const size_t stride = b->slots[SLOT_QKV].stride;
    fill(qkv, (x.total - 1) * stride + x.width);
    float *all = malloc(b->bytes[SLOT_QKV]);
    memcpy(all, qkv, b->bytes[SLOT_QKV]);
    bool ran = true;
    if (position) { /* earlier tokens first, as an earlier chunk would */
        ran = run_op(b, &x.rope, &(ht_slice){0}, position, 0);
        memcpy(qkv, all + position * stride, ((tokens - 1) * stride + x.width) * sizeof *all);
    }
    ran = ran && run_op(b, &x.rope, &(ht_slice){0}, tokens, position) &&
          run_op(b, &x.attention, &(ht_slice){0}, tokens, position);
    double *rows = calloc(x.total * x.width, sizeof *rows);
    for (size_t t = 0; t < x.total && ran; t++) {
        reference_rope(&x, all + t * stride, t, rows + t * x.width);
        check_kept(b, &x, t, rows + t * x.width);
    }
    for (size_t t = 0; t < tokens && ran; t++)
        for (size_t head = 0; head < x.heads; head++)
            check_attended(b, &x, rows, t, head);
    free(rows), free(all);
    free_pages(b, b->kv.keys, kv_bytes);
    if (b->kv.values)
        free_pages(b, b->kv.values, kv_bytes);
    free_attention(&x);
    free_slots(b);
}

static inline void test_attention(bench *b, const ht_hparams *h, int window, bool halves, bool norms, size_t position,
                                  size_t tokens, ht_kv_type type) {
    const attending a = {
        .window = window, .halves = halves, .norms = norms, .rope_dim = norms && halves ? h->head_dim / 2 : 0};
    test_attending(b, h, &a, position, tokens, type);
}

/* What families do besides, each by itself and, last, some together; those from row `first` on. */
enum { FAMILIES_TOGETHER = 8 };
static inline void test_families(bench *b, const ht_hparams *h, size_t first) {
    const int dim = h->head_dim, part = dim / 4 * 2;
    const attending rows[] = {
        {.norms = true, .norm = HT_NORM_LAYER, .norm_heads = true}, /* Command R+ */
        {.norms = true, .norm_whole = true, .halves = true},        /* OLMo 2 */
        {.norms = true, .norm_heads = true, .v_norm = true, .rope_dim = -1},
        {.norms = true, .norm_after = true, .halves = true}, /* Hunyuan */
        {.rope_dim = -1, .slopes = true},
        {.halves = true, .sinks = true, .window = 9}, /* gpt-oss */
        {.soft_cap = 5, .window = 12},
        {.chunk = 8, .own_angles = true}, /* Llama 4 */
        {.norms = true, .norm_dim = part, .rope_first = part, .rope_dim = dim - part, .value_dim = part},
        {.soft_cap = 20, .sinks = true, .slopes = true, .chunk = 16, .rope_first = 2, .rope_dim = part, .halves = true},
    };
    for (size_t i = first; i < HT_COUNT(rows); i++) {
        const ht_kv_type type = i % 2 ? HT_KV_F32 : HT_KV_F16;
        test_attending(b, h, &rows[i], 21, 12, type);
        test_attending(b, h, &rows[i], 30, 1, type);
        if (!small)
            test_attending(b, h, &rows[i], 70, 66, type);
    }
}

/* Keys in both directions, of all tokens or within windows, one of them wider than the text. OpenCL has no kernel of it: the
 * device beside it computes it. */
static inline void test_both_ways(bench *b, const ht_hparams *h) {
    const ht_op both_ways = {.kind = HT_OP_ATTENTION, .both_ways = true};
    if (refused(b, &both_ways, &(ht_slice){0})) {
        assert_true(!divisible(b) || strncmp(b->name, "opencl", 6) == 0);
        return;
    }
    static const int windows[] = {0, 1, 9, 32, 300};
    static const size_t counts[] = {1, 2, 13, 33, 66, 131};
    for (size_t w = 0; w < HT_COUNT(windows); w++)
        for (size_t n = 0; n < HT_COUNT(counts); n++) {
            const attending a = {
                .both_ways = true, .window = windows[w], .halves = true, .soft_cap = n == 2 ? 5 : 0, .sinks = n == 3};
            test_attending(b, h, &a, 0, counts[n], (w + n) % 2 ? HT_KV_F32 : HT_KV_F16);
        }
    const attending behind = {.both_ways = true, .window = 10};
    test_attending(b, h, &behind, 21, 12, HT_KV_F16);
}

static void check_cache(const bench *b, const char *what, const snapshot *s, size_t head_bytes, size_t kvs,
                        size_t done) {
    for (size_t i = 0; i < kvs; i++) {
        const char *want = i < done ? s->after : s->before;
        check(memcmp((char *)s->data + i * head_bytes, want + i * head_bytes, head_bytes) != 0, 0, 0, what, b->name, 0,
              i);
    }
}

/* Keys and values of earlier tokens are made up. */
static void make_cache(bench *b, size_t values, size_t positions, ht_kv_type type) {
    const size_t bytes = ht_round_up(values * (type ? 4 : 2), 4096);
    b->kv = (ht_kv_layer){
        .keys = make_pages(b, bytes), .values = make_pages(b, bytes), .positions = positions, .type = type};
    for (size_t i = 0; i < 2 * values; i++) {
        void *to = i < values ? b->kv.keys : b->kv.values;
        const float value = (float)uniform();
        if (type)
            ((float *)to)[i % values] = value;
        else
            ((uint16_t *)to)[i % values] = ht_f32_to_f16(value);
    }
}

/* ROPE and ATTENTION, one share after the other, each with one head or all but one: key-value heads, or query heads
 * of which so many use one of them. */
static inline void test_head_shares(bench *b, const ht_hparams *h, size_t group, size_t position, size_t tokens,
                                    ht_kv_type type) {
    const size_t dim = (size_t)h->head_dim, heads = (size_t)h->heads, kvs = (size_t)h->kv_heads,
                 of = group > 1 ? heads : kvs, each = heads / of, positions = position + tokens + 3,
                 head_bytes = positions * dim * (type ? 4 : 2);
    const attending how = {.halves = type == HT_KV_F16,
                           .norms = type == HT_KV_F32,
                           .norm_heads = type == HT_KV_F32,
                           .v_norm = position > 10,
                           .sinks = position > 10,
                           .slopes = position > 10,
                           .soft_cap = position > 10 ? 3 : 0};
    attention_bench x = make_attention(b, h, &how, position, tokens, type);
    const ht_op rope = x.rope, attention = x.attention;
    make_cache(b, kvs * positions * dim, positions, type);
    float *qkv = make_slot(b, SLOT_QKV, tokens, (heads + 2 * kvs) * dim),
          *out = make_slot(b, SLOT_ATTN, tokens, heads * dim);
    fill(qkv, b->bytes[SLOT_QKV] / 4), fill(out, b->bytes[SLOT_ATTN] / 4);
    snapshot kept[] = {snapshot_of(qkv, b->bytes[SLOT_QKV]), snapshot_of(out, b->bytes[SLOT_ATTN]),
                       snapshot_of(b->kv.keys, kvs * head_bytes), snapshot_of(b->kv.values, kvs * head_bytes)};
    const ht_slice whole = {0};
    const bool ran = run_op(b, &rope, &whole, tokens, position) && run_op(b, &attention, &whole, tokens, position);
    for (int i = 0; i < 4; i++)
        take_back(&kept[i]);
    for (int divided = 0; divided <= divisible(b) && ran; divided++) {
        b->divided = divided;
        const size_t ends[] = {1, ht_max_size(of - 1, 1), of};
        size_t begin = 0, shares = 0;
        for (size_t i = 0; i < HT_COUNT(ends); i++) {
            const ht_slice share = {.row_begin = begin, .row_end = ends[i], .of = of, .group = group};
            const size_t done = ends[i] * each, made = (done * kvs + heads - 1) / heads;
            if (begin == ends[i] || !run_op(b, &rope, &share, tokens, position))
                continue;
            begin = ends[i], shares++;
            check_done(b, "rope's share", &kept[0], SLOT_QKV, tokens, dim, heads, kvs, 2, done);
            check_cache(b, "a share's keys", &kept[2], head_bytes, kvs, made);
            check_cache(b, "a share's values", &kept[3], head_bytes, kvs, made);
            if (run_op(b, &attention, &share, tokens, position))
                check_done(b, "attention's share", &kept[1], SLOT_ATTN, tokens, dim, heads, kvs, 0, done);
        }
        assert_true(!divided || of < 4 || shares == 3);
        for (int i = 0; i < 4; i++)
            memcpy(kept[i].data, kept[i].before, kept[i].bytes);
    }
    b->divided = false;
    for (int i = 0; i < 4; i++)
        free_snapshot(&kept[i]);
    const size_t bytes = ht_round_up(kvs * head_bytes, 4096);
    free_pages(b, b->kv.keys, bytes), free_pages(b, b->kv.values, bytes);
    free_attention(&x);
    free_slots(b);
}

/* ---- HEADS
 * ------------------------------------------------------------------------------------------------------------------- */

/* Latent attention's two: into the latent space with what follows each head copied, and a key behind the last, from
 * another slot or its own; and out of it. */
static void test_heads(bench *b, size_t kind, size_t cols, size_t rows, size_t rest, size_t copied, bool side,
                       size_t tokens) {
    enum { HEADS = 4 };
    const size_t width = cols + rest + 3, each = rows + rest, more_first = 5,
                 in_width = HEADS * width + (side ? 0 : copied), out_width = HEADS * each + copied;
    ht_op op = {.kind = HT_OP_HEADS,
                .name = "heads",
                .in = SLOT_QKV,
                .out = SLOT_ATTN,
                .n_parts = 1,
                .heads = HEADS,
                .kv_heads = 1,
                .head_dim = (int)width,
                .rest = (int)rest,
                .n_copied = copied,
                .n_more = side,
                .more = {SLOT_FFN},
                .more_first = side ? more_first : 0};
    op.parts[0] = make_matrix("heads", kind, HEADS * rows, cols);
    float *in = make_slot(b, SLOT_QKV, tokens, in_width), *more = make_slot(b, SLOT_FFN, tokens, more_first + copied),
          *out = make_slot(b, SLOT_ATTN, tokens, out_width);
    const size_t is = b->slots[SLOT_QKV].stride, ms = b->slots[SLOT_FFN].stride, os = b->slots[SLOT_ATTN].stride;
    fill(in, b->bytes[SLOT_QKV] / 4), fill(more, b->bytes[SLOT_FFN] / 4), fill(out, b->bytes[SLOT_ATTN] / 4);
    snapshot kept = snapshot_of(out, b->bytes[SLOT_ATTN]);
    const bool ran = run_op(b, &op, &(ht_slice){0}, tokens, 0);
    double *x = malloc(cols * sizeof *x);
    for (size_t t = 0; t < tokens && ran; t++)
        for (size_t i = 0; i < out_width; i++) {
            const size_t head = i / each, row = i % each;
            const float *from = in + t * is + head * width, got = out[t * os + i];
            if (head == HEADS) {
                const size_t k = i - HEADS * each;
                check((double)got, (double)(side ? more[t * ms + more_first + k] : in[t * is + HEADS * width + k]), 0,
                      "copied", b->name, t, i);
            } else if (row >= rows) {
                check((double)got, (double)from[cols + row - rows], 0, "rest of a head", b->name, t, i);
            } else {
                for (size_t c = 0; c < cols; c++)
                    x[c] = (double)from[c];
                const row_sum want = matvec_row(b, &op.parts[0], head * rows + row, 0, cols, x, NULL);
                check((double)got, want.sum, 6 * want.error, "heads", b->name, t, i);
            }
        }
    take_back(&kept);
    static const size_t ends[] = {1, 3, HEADS};
    b->divided = divisible(b);
    for (size_t k = 0, begin = 0; k < HT_COUNT(ends) && ran && b->divided; begin = ends[k++]) {
        const ht_slice share = {.row_begin = begin, .row_end = ends[k], .of = HEADS, .group = HEADS};
        if (!run_op(b, &op, &share, tokens, 0))
            fail_msg("%s does not divide %s", b->name, op.name);
        for (size_t t = 0; t < tokens; t++)
            for (size_t i = 0; i < out_width; i++) /* the key is the first head's to copy */
                check((double)out[t * os + i],
                      (double)((const float *)(i / each < ends[k] || i >= HEADS * each ? kept.after
                                                                                       : kept.before))[t * os + i],
                      0, "a share of heads", b->name, t, i);
    }
    b->divided = false;
    free_snapshot(&kept);
    free(x), free((void *)(uintptr_t)op.parts[0].data);
    free_slots(b);
}

static inline void test_head_matrices(bench *b) {
    for (size_t kind = 0; kind < HT_COUNT(block_types); kind += small ? 5 : 1) {
        const bool odd = kind >= FIRST_FLOAT && kind < FLOATS_END;
        const size_t cols = odd ? 20 : ht_type_get(block_types[kind].type)->block > 32 ? 256 : 64;
        test_heads(b, kind, cols, 33, 8, 41, kind % 2, 1);
        test_heads(b, kind, cols, 64, 0, 0, false, 13);
        test_heads(b, kind, cols, 17, 4, 9, kind % 2 == 0, 35);
    }
}

#endif
