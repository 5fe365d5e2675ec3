/* CONV, DELTA_NET and SCAN. Tokens come in blocks, so that what a block's operators hand on stays in a cache near the core;
 * within a block heads, or channels, go to the threads. A state is where the binding has it, and stays there between
 * blocks: each thread changes what belongs to its own unit. Float32, whatever the precision. */
#include "device/cpu/mixers.h"

#include <math.h>
#include <string.h>

#define BLOCK 64          /* tokens */
#define CHANNELS 256      /* of an item of a convolution; */
#define CHANNELS_ONE 2048 /* the same of one token, not worth waking many */

/* One block, as the pool's items see it. */
typedef struct mix_run {
    const ht_mixer_job *job;
    size_t first, tokens;                  /* of the submit */
    size_t begin, end;                     /* units of the slice */
    size_t heads;                          /* of a unit */
    size_t key_dim, head_dim, inner, keys; /* inner: channels of all heads; keys: of all key heads or groups */
    size_t rows, unit;                     /* floats of a unit's rows of the convolution, one token; of its state */
    size_t channels;                       /* of an item of a convolution */
    float *mixed;                          /* SCAN: [BLOCK][units * rows], x of all heads, then B, then C */
} mix_run;

static size_t padded(size_t n) {
    return ht_round_up(n, 16);
}

/* Floats that one thread has for itself: q, k and v of a block, decays and rates; x times its step. */
static size_t thread_floats(const ht_op *op, const ht_hparams *shape) {
    const size_t key_dim = padded((size_t)op->recurrence.key_dim), head_dim = padded((size_t)shape->head_dim);
    return op->kind == HT_OP_CONV ? 0 : BLOCK * (2 * key_dim + head_dim + 2);
}

static size_t mixed_floats(const ht_op *op, const ht_hparams *shape) {
    const size_t inner = (size_t)shape->heads * (size_t)shape->head_dim,
                 keys = (size_t)shape->kv_heads * (size_t)op->recurrence.key_dim;
    return op->kind == HT_OP_SCAN ? BLOCK * padded(inner + 2 * keys) : 0;
}

size_t ht_mixer_scratch(const ht_op *op, const ht_hparams *shape, int threads) {
    return mixed_floats(op, shape) + (size_t)threads * thread_floats(op, shape);
}

static float *thread_scratch(const ht_mixer_job *job, int thread) {
    return job->scratch + mixed_floats(job->op, &job->shape) + (size_t)thread * thread_floats(job->op, &job->shape);
}

static float *state_of(const mix_run *r, size_t unit) {
    const ht_op *op = r->job->op;
    return r->job->binding->kv[op->cache].state + unit * r->unit;
}

static float *row_of(const mix_run *r, ht_slot slot, size_t t) {
    const ht_view *view = &r->job->binding->slots[slot];
    return (float *)view->data + (r->first + t) * view->stride;
}

static float softplus(float x) {
    return x > 20 ? x : log1pf(expf(x));
}

/* ---- CONV
 * ------------------------------------------------------------------------------------------------------------------ */

static void conv_item(void *context, size_t item, int thread) {
    const mix_run *r = context;
    const ht_op *op = r->job->op;
    const size_t width = (size_t)r->job->shape.feed_forward, first = r->begin + item * r->channels;
    const float *b = row_of(r, op->in, 0) + first;
    const ht_convolution_job job = {.in = b,
                                    .factor = b + 2 * width,
                                    .in_stride = r->job->binding->slots[op->in].stride,
                                    .weights = op->weight + first,
                                    .weights_stride = width,
                                    .state = r->job->binding->kv[op->cache].state + first,
                                    .state_stride = width,
                                    .out = row_of(r, op->out, 0) + first,
                                    .out_stride = r->job->binding->slots[op->out].stride,
                                    .gate = b + width,
                                    .channels = ht_min_size(r->channels, r->end - first),
                                    .tokens = r->tokens,
                                    .taps = op->taps};
    for (int k = 0; k + 1 < op->taps && r->job->binding->position + r->first == 0; k++)
        memset(job.state + (size_t)k * width, 0, job.channels * sizeof(float));
    r->job->kernels->convolve(&job);
}

static void run_conv(mix_run *r) {
    const size_t n = r->end - r->begin;
    r->first = 0;
    r->tokens = r->job->binding->tokens;
    r->channels = r->tokens == 1 ? CHANNELS_ONE : CHANNELS;
    ht_pool_run(r->job->pool, conv_item, r, (n + r->channels - 1) / r->channels, 1);
}

/* ---- DELTA_NET
 * ------------------------------------------------------------------------------------------------------------- */

/* `n` channels of the convolution, from number `channel` on, whose values begin at `in`; number `at` of the unit's. */
static void mix_channels(const mix_run *r, const float *in, size_t in_stride, size_t channel, float *state, size_t at,
                         size_t n, float *out, size_t out_stride) {
    const ht_recurrence *c = &r->job->op->recurrence;
    const ht_convolution_job job = {.in = in,
                                    .in_stride = in_stride,
                                    .weights = c->conv + channel,
                                    .weights_stride = r->inner + 2 * r->keys,
                                    .bias = c->conv_bias ? c->conv_bias + channel : NULL,
                                    .state = state + at,
                                    .state_stride = r->rows,
                                    .out = out,
                                    .out_stride = out_stride,
                                    .channels = n,
                                    .tokens = r->tokens,
                                    .taps = c->taps};
    r->job->kernels->convolve(&job);
}

/* One value head. */
static void delta_item(void *context, size_t item, int thread) {
    const mix_run *r = context;
    const ht_op *op = r->job->op;
    const ht_recurrence *c = &op->recurrence;
    const ht_cpu_kernels *kernels = r->job->kernels;
    const size_t head = r->begin + item, heads = (size_t)r->job->shape.heads, groups = (size_t)r->job->shape.kv_heads,
                 key_head = c->repeated ? head / (heads / groups) : head % groups, K = r->key_dim, V = r->head_dim,
                 kp = padded(K), vp = padded(V);
    float *q = thread_scratch(r->job, thread), *k = q + BLOCK * kp, *v = k + BLOCK * kp, *decay = v + BLOCK * vp,
          *rate = decay + BLOCK, *state = state_of(r, head);
    const float *in = row_of(r, op->in, 0), *more = row_of(r, op->more[0], 0);
    const size_t in_stride = r->job->binding->slots[op->in].stride,
                 more_stride = r->job->binding->slots[op->more[0]].stride,
                 out_stride = r->job->binding->slots[op->out].stride;
    if (r->job->binding->position + r->first == 0)
        memset(state, 0, r->unit * sizeof *state);
    mix_channels(r, in + key_head * K, in_stride, key_head * K, state, 0, K, q, kp);
    mix_channels(r, in + r->keys + key_head * K, in_stride, r->keys + key_head * K, state, K, K, k, kp);
    mix_channels(r, more + head * V, more_stride, 2 * r->keys + head * V, state, 2 * K, V, v, vp);
    for (size_t t = 0; t < r->tokens; t++) {
        const float *scalars = more + t * more_stride + 2 * r->inner;
        kernels->over_length(q + t * kp, K, op->eps, 1 / sqrtf((float)K));
        kernels->over_length(k + t * kp, K, op->eps, 1);
        rate[t] = 1 / (1 + expf(-scalars[head]));
        decay[t] = expf(c->a[head] * softplus(scalars[heads + head] + c->dt_bias[head]));
    }
    float *out = row_of(r, op->out, 0) + head * V;
    const ht_recurrence_job job = {.state = state + (size_t)(c->taps - 1) * r->rows,
                                   .q = q,
                                   .k = k,
                                   .v = v,
                                   .decay = decay,
                                   .rate = rate,
                                   .out = out,
                                   .key_dim = K,
                                   .head_dim = V,
                                   .key_stride = kp,
                                   .value_stride = vp,
                                   .out_stride = out_stride,
                                   .tokens = r->tokens};
    kernels->recur(&job);
    for (size_t t = 0; t < r->tokens; t++) {
        float *o = out + t * out_stride;
        kernels->norm(&(ht_norm_job){.x = o, .weight = c->norm, .eps = op->eps, .n = V, .out = o});
        kernels->glu(HT_ACT_SILU, more + t * more_stride + r->inner + head * V, o, V, o);
    }
}

/* ---- SCAN
 * ------------------------------------------------------------------------------------------------------------------ */

/* A run of one group's channels through the convolution: of x, B or C. Items of a group: so many of x, then B, C. */
static void scan_channels_item(void *context, size_t item, int thread) {
    const mix_run *r = context;
    const ht_op *op = r->job->op;
    const size_t own = r->heads * r->head_dim, of_x = (own + r->channels - 1) / r->channels,
                 group = r->begin + item / (of_x + 2), part = item % (of_x + 2), all = padded(r->inner + 2 * r->keys);
    const bool is_x = part < of_x;
    const size_t first = is_x ? part * r->channels : 0, n = is_x ? ht_min_size(r->channels, own - first) : r->key_dim;
    const size_t common = (part - of_x) * r->keys + group * r->key_dim; /* of B or C: in their slot */
    const size_t channel = is_x ? group * own + first : r->inner + common;
    const ht_slot slot = is_x ? op->in : op->more[0];
    const float *in = row_of(r, slot, 0) + (is_x ? r->inner + channel : common);
    float *state = state_of(r, group);
    const size_t at = is_x ? first : own + (part - of_x) * r->key_dim;
    for (int k = 0; k + 1 < op->recurrence.taps && r->job->binding->position + r->first == 0; k++)
        memset(state + (size_t)k * r->rows + at, 0, n * sizeof *state);
    mix_channels(r, in, r->job->binding->slots[slot].stride, channel, state, at, n, r->mixed + channel, all);
}

static void scan_head_item(void *context, size_t item, int thread) {
    const mix_run *r = context;
    const ht_op *op = r->job->op;
    const ht_recurrence *c = &op->recurrence;
    const size_t head = r->begin * r->heads + item, group = head / r->heads, V = r->head_dim, vp = padded(V),
                 all = padded(r->inner + 2 * r->keys), out_stride = r->job->binding->slots[op->out].stride;
    float *scaled = thread_scratch(r->job, thread), *decay = scaled + BLOCK * vp;
    const float *x = r->mixed + head * V;
    float *state = state_of(r, group) + (size_t)(c->taps - 1) * r->rows + head % r->heads * r->key_dim * V,
          *out = row_of(r, op->out, 0) + head * V;
    if (r->job->binding->position + r->first == 0)
        memset(state, 0, r->key_dim * V * sizeof *state);
    for (size_t t = 0; t < r->tokens; t++) {
        const float step = softplus(row_of(r, op->in, t)[2 * r->inner + head] + c->dt_bias[head]);
        decay[t] = expf(c->a[head] * step);
        for (size_t i = 0; i < V; i++)
            scaled[t * vp + i] = step * x[t * all + i];
    }
    const ht_recurrence_job job = {.state = state,
                                   .q = r->mixed + r->inner + r->keys + group * r->key_dim,
                                   .k = r->mixed + r->inner + group * r->key_dim,
                                   .v = scaled,
                                   .decay = decay,
                                   .out = out,
                                   .key_dim = r->key_dim,
                                   .head_dim = V,
                                   .key_stride = all,
                                   .value_stride = vp,
                                   .out_stride = out_stride,
                                   .tokens = r->tokens};
    r->job->kernels->recur(&job);
    for (size_t t = 0; t < r->tokens; t++)
        for (size_t i = 0; i < V; i++)
            out[t * out_stride + i] += c->skip[head] * x[t * all + i];
}

/* A token's groups: y * SiLU(z), normed. */
static void scan_norm_item(void *context, size_t t, int thread) {
    const mix_run *r = context;
    const ht_op *op = r->job->op;
    const size_t own = r->heads * r->head_dim;
    for (size_t group = r->begin; group < r->end; group++) {
        float *y = row_of(r, op->out, t) + group * own;
        r->job->kernels->glu(HT_ACT_SILU, row_of(r, op->in, t) + group * own, y, own, y);
        r->job->kernels->norm(
            &(ht_norm_job){.x = y, .weight = op->recurrence.norm + group * own, .eps = op->eps, .n = own, .out = y});
    }
}

/* ---- submits
 * ---------------------------------------------------------------------------------------------------------------- */

static void run_block(mix_run *r) {
    ht_pool *pool = r->job->pool;
    const size_t units = r->end - r->begin;
    if (r->job->op->kind == HT_OP_DELTA_NET) {
        ht_pool_run(pool, delta_item, r, units, 1);
        return;
    }
    r->channels = r->tokens == 1 ? CHANNELS_ONE : CHANNELS;
    const size_t of_x = (r->heads * r->head_dim + r->channels - 1) / r->channels;
    ht_pool_run(pool, scan_channels_item, r, units * (of_x + 2), r->tokens == 1 ? 2 : 1);
    ht_pool_run(pool, scan_head_item, r, units * r->heads, 1);
    ht_pool_run(pool, scan_norm_item, r, r->tokens, r->tokens < 8 ? r->tokens : 4);
}

void ht_mixer_run(const ht_mixer_job *job) {
    const ht_op *op = job->op;
    const ht_hparams *h = &job->shape;
    const size_t all = op->kind == HT_OP_CONV   ? (size_t)h->feed_forward
                       : op->kind == HT_OP_SCAN ? (size_t)h->kv_heads
                                                : (size_t)h->heads;
    mix_run r = {.job = job, .begin = job->slice.of ? job->slice.row_begin : 0};
    r.end = job->slice.of ? job->slice.row_end : all;
    if (op->kind == HT_OP_CONV) {
        run_conv(&r);
        return;
    }
    r.key_dim = (size_t)op->recurrence.key_dim, r.head_dim = (size_t)h->head_dim;
    r.inner = (size_t)h->heads * r.head_dim, r.keys = (size_t)h->kv_heads * r.key_dim;
    r.heads = (size_t)h->heads / all;
    r.rows = 2 * r.key_dim + r.heads * r.head_dim;
    r.unit = (size_t)(op->recurrence.taps - 1) * r.rows + r.heads * r.head_dim * r.key_dim;
    r.mixed = job->scratch;
    for (; r.first < job->binding->tokens; r.first += BLOCK) {
        r.tokens = ht_min_size(BLOCK, job->binding->tokens - r.first);
        run_block(&r);
    }
}
