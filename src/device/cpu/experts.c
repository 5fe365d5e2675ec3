#include "device/cpu/experts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ENOUGH_PAIRS \
    1024 /* tokens of experts that are computed together: long loops, and memory that stays in caches */

/* ---- who is chosen
 * ------------------------------------------------------------------------------------------------------ */

static float sigmoid(float x) {
    return 1 / (1 + expf(-x));
}

/* In place: softmax of x[0..n), of which those that are NAN count for nothing. */
static void softmax(float *x, size_t n) {
    float most = -INFINITY, sum = 0;
    for (size_t i = 0; i < n; i++)
        most = x[i] > most ? x[i] : most;
    for (size_t i = 0; i < n; i++)
        sum += x[i] = most > -INFINITY ? expf(x[i] - most) : x[i];
    for (size_t i = 0; i < n; i++)
        x[i] /= sum;
}

/* The lowest number of the largest; n: all are -INFINITY or no numbers. */
static size_t largest(const float *x, size_t n) {
    size_t best = n;
    for (size_t i = 0; i < n; i++)
        if (x[i] > (best < n ? x[best] : -INFINITY))
            best = i;
    return best;
}

/* Experts of groups that are not chosen get -INFINITY. */
static void keep_groups(const ht_route *route, float *score, size_t experts) {
    const size_t groups = (size_t)route->groups, each = experts / groups;
    float sums[HT_MAX_EXPERTS];
    bool kept[HT_MAX_EXPERTS] = {false};
    for (size_t g = 0; g < groups; g++) {
        float first = -INFINITY, second = -INFINITY;
        for (size_t i = g * each; i < (g + 1) * each; i++) {
            const float x = score[i];
            second = x > first ? first : x > second ? x : second;
            first = x > first ? x : first;
        }
        sums[g] = each > 1 ? first + second : first;
    }
    for (int k = 0; k < route->groups_used; k++) {
        const size_t best = largest(sums, groups);
        if (best < groups)
            kept[best] = true, sums[best] = -INFINITY;
    }
    for (size_t i = 0; i < experts && each; i++)
        score[i] = kept[i / each] ? score[i] : -INFINITY;
}

void ht_route_token(const ht_op *op, const float *in, float *out) {
    const ht_route *route = &op->route;
    const size_t n = (size_t)op->experts;
    float p[HT_MAX_EXPERTS], score[HT_MAX_EXPERTS] = {0}, weights[HT_MAX_EXPERTS], sum = 0;
    size_t chosen[HT_MAX_EXPERTS], used = 0;
    for (size_t i = 0; i < n; i++)
        p[i] = route->function == HT_ROUTE_SIGMOID ? sigmoid(in[i]) : in[i];
    if (route->function == HT_ROUTE_SOFTMAX)
        softmax(p, n);
    for (size_t i = 0; i < n; i++)
        score[i] = route->bias ? p[i] + route->bias[i] : p[i];
    if (route->groups > 1)
        keep_groups(route, score, n);
    for (int k = 0; k < route->used; k++) {
        const size_t best = largest(score, n);
        if (best == n)
            break;
        chosen[used] = best;
        weights[used++] = p[best];
        score[best] = -INFINITY;
    }
    if (route->function == HT_ROUTE_SOFTMAX_CHOSEN)
        softmax(weights, used);
    for (size_t k = 0; k < used; k++)
        sum += weights[k];
    const float scale = route->scale / (route->renormalise ? fmaxf(sum, 0x1p-14f) : 1);
    memset(out, 0, n * sizeof *out);
    for (size_t k = 0; k < used; k++)
        out[chosen[k]] = weights[k] * scale * (route->factors ? route->factors[chosen[k]] : 1.0f);
}

/* ---- slices
 * -------------------------------------------------------------------------------------------------------------- */

/* Features that are packed together in the last matrix. */
static size_t feature_grain(const ht_op *op) {
    return ht_max_size(HT_STEP, ht_form_grain(ht_form_of(&op->parts[op->n_parts - 1])));
}

const char *ht_experts_refuse(const ht_op *op, const ht_slice *slice) {
    const size_t features = ht_op_summed(op), grain = feature_grain(op);
    const char *why = ht_refuse_experts(op, slice);
    if (why)
        return why;
    const ht_slice s = ht_spell_out_experts(op, slice);
    if (s.reduction_begin % grain || (s.reduction_end != features && s.reduction_end % grain))
        return "the range of features does not end on whole groups";
    return NULL;
}

/* ---- preparing
 * ------------------------------------------------------------------------------------------------------------ */

typedef struct packed_part {
    ht_packed packed; /* every expert's strips behind the last one's; its bias likewise */
    size_t strips;    /* of one expert */
    size_t rows;      /* of one expert's matrix, in the file */
    const ht_matrix *matrix;
    size_t first; /* its expert that is packed first */
} packed_part;

struct ht_experts {
    const ht_op *op;
    ht_slice slice; /* spelt out */
    packed_part parts[HT_MAX_PARTS];
};

typedef struct pack_job {
    const ht_matrix *matrix;
    packed_part *part;
    size_t expert, row, rows, col; /* the first expert; of each: rows [row, row + rows), columns from col on */
    uint8_t *scratch;
    size_t scratch_bytes;
    atomic_size_t bad;
} pack_job;

/* One expert's matrix as a packed one. */
static ht_packed of_expert(const packed_part *part, size_t expert, size_t rows) {
    ht_packed p = part->packed;
    p.data += expert * part->strips * p.strip_bytes;
    p.bias = p.bias ? p.bias + expert * part->strips * HT_STRIP : NULL;
    p.factor = ht_matrix_factor(part->matrix, (part->first + expert) * part->rows);
    p.rows = rows;
    p.strips = (rows + HT_STRIP - 1) / HT_STRIP;
    return p;
}

static void pack_item(void *context, size_t item, int thread) {
    pack_job *job = context;
    const size_t expert = item / job->part->strips;
    ht_packed p = of_expert(job->part, expert, job->rows);
    ht_pack_strip(job->matrix, (job->expert + expert) * job->part->rows + job->row, job->col, &p,
                  item % job->part->strips, job->scratch + (size_t)thread * job->scratch_bytes);
    const size_t bad = atomic_load(&p.bad);
    if (bad)
        atomic_store(&job->bad, bad);
}

/* Biases of the rows, in strips as they are. */
static ht_status pack_bias(const pack_job *job, const float *bias, size_t experts, ht_error *error) {
    packed_part *part = job->part;
    ht_status status = ht_alloc((void **)&part->packed.bias, experts * part->strips * HT_STRIP, sizeof(float),
                                job->matrix->name, error);
    for (size_t e = 0; e < experts && !status; e++)
        memcpy(part->packed.bias + e * part->strips * HT_STRIP, bias + (job->expert + e) * part->rows + job->row,
               job->rows * sizeof *bias);
    return status;
}

static ht_status pack_part(const ht_cpu_tools *tools, ht_experts *experts, int number, ht_error *error) {
    const ht_op *op = experts->op;
    const ht_matrix *m = &op->parts[number];
    const ht_slice *s = &experts->slice;
    const bool last = number + 1 == op->n_parts;
    packed_part *part = &experts->parts[number];
    const size_t n = s->row_end - s->row_begin;
    part->rows = m->rows / (size_t)op->experts;
    part->matrix = m, part->first = s->row_begin;
    pack_job job = {.matrix = m,
                    .part = part,
                    .expert = s->row_begin,
                    .row = last ? 0 : s->reduction_begin,
                    .rows = last ? part->rows : s->reduction_end - s->reduction_begin,
                    .col = last ? s->reduction_begin : 0,
                    .scratch_bytes = ht_round_up(ht_pack_scratch(m), 64)};
    part->strips = (job.rows + HT_STRIP - 1) / HT_STRIP;
    ht_status status = ht_packed_create(m, 0, n * part->strips * HT_STRIP, job.col, last ? s->reduction_end : m->cols,
                                        NULL, &part->packed, error);
    if (!status && op->bias[number] && !(last && s->reduction_begin))
        status = pack_bias(&job, op->bias[number], n, error);
    if (!status)
        status = ht_alloc((void **)&job.scratch, (size_t)tools->threads, job.scratch_bytes, "packing", error);
    if (status)
        return status;
    ht_pool_run(tools->pool, pack_item, &job, n * part->strips, 1);
    free(job.scratch);
    const size_t bad = atomic_load(&job.bad);
    return bad ? ht_matrix_refuse(m, bad - 1, error) : HT_OK;
}

void ht_experts_release(ht_experts *experts) {
    for (int i = 0; experts && i < HT_MAX_PARTS; i++)
        ht_packed_free(&experts->parts[i].packed);
    free(experts);
}

size_t ht_experts_bytes(const ht_experts *experts) {
    size_t bytes = 0;
    for (int i = 0; experts && i < HT_MAX_PARTS; i++)
        bytes += experts->parts[i].packed.bytes;
    return bytes;
}

/* ---- memory of a run
 * -------------------------------------------------------------------------------------------------------- */

/* Activations of a batch, one expert's behind another's: of `pairs` rows and `tiles` tiles. */
typedef struct batch_acts {
    bool floats, codes, sums[HT_SUMS_COUNT];
    ht_acts all;
} batch_acts;

/* A run's arrays, laid out in the room. A pair is a token and an expert that it has chosen; pairs are sorted by expert. */
typedef struct run {
    const ht_cpu_tools *tools;
    const ht_experts *experts;
    const ht_binding *binding;
    ht_slice slice;   /* spelt out, within the experts' */
    size_t features;  /* of the slice */
    size_t n_gates;   /* matrices in front: 1 or 2 */
    uint32_t *chosen; /* experts that somebody has chosen, counted from the packed ones' first, ascending */
    uint32_t *first;  /* [chosen + 1]: their first pair */
    uint32_t *tile;   /* [chosen + 1]: their first tile */
    uint32_t *token;  /* of each pair */
    float *weight;    /* of each pair */
    size_t n_chosen;
    size_t begin, end; /* chosen ones of the batch at hand */
    bool same;         /* one token: every expert reads the same row */
    batch_acts in, hidden_acts;
    float *hidden;      /* [pairs of the batch][n_gates * features] */
    size_t gate_strips; /* of one of these matrices */
} run;

typedef struct arena {
    uint8_t *base; /* NULL: only counts */
    size_t used;
} arena;

static void *take(arena *at, size_t bytes) {
    void *here = at->base ? at->base + at->used : NULL;
    at->used += ht_round_up(bytes, 64);
    return here;
}

static void lay_out_acts(batch_acts *a, const ht_cpu_kernels *kernels, size_t cols, size_t pairs, size_t tiles,
                         arena *at) {
    const size_t steps = (a->all.cols = ht_round_up(cols, HT_STEP)) / HT_STEP;
    if (a->floats)
        a->all.floats = take(at, tiles * kernels->tile * a->all.cols * sizeof(float));
    if (!a->codes)
        return;
    a->all.codes = take(at, pairs * a->all.cols);
    a->all.scales = take(at, pairs * steps * sizeof(float));
    a->all.scaled_sums = take(at, pairs * steps * sizeof(float));
    for (int k = HT_SUMS_NONE + 1; k < HT_SUMS_COUNT; k++)
        if (a->sums[k])
            a->all.sums[k] = take(at, pairs * steps * sizeof(int32_t) * ht_sums_halves(k));
}

static bool is_exact(const ht_cpu_tools *tools, ht_pack_form form) {
    return tools->precision == HT_PRECISION_EXACT || !ht_forms[form].bits;
}

/* Which activations the matrices [from, to) want. */
static void choose_acts(const ht_cpu_tools *tools, const ht_op *op, int from, int to, batch_acts *a) {
    for (int i = from; i < to; i++) {
        const ht_pack_form form = ht_form_of(&op->parts[i]);
        const bool exact = is_exact(tools, form);
        a->floats |= exact, a->codes |= !exact;
        a->sums[ht_forms[form].sums] |= !exact;
    }
}

static size_t most_pairs(const ht_cpu_tools *tools) {
    return ht_max_size(tools->max_tokens, ENOUGH_PAIRS);
}

/* Tiles of so many pairs of at most so many experts. */
static size_t most_tiles(const ht_cpu_tools *tools, const ht_op *op, size_t pairs) {
    return pairs / tools->kernels->tile + ht_min_size(pairs, (size_t)op->experts) + 1;
}

/* Lays the run's arrays out from *at on. */
static void lay_out(run *r, const ht_op *op, arena *at) {
    const size_t experts = (size_t)op->experts, every = r->tools->max_tokens * experts;
    const size_t pairs = ht_min_size(most_pairs(r->tools), every), tiles = most_tiles(r->tools, op, pairs);
    const int gates = op->n_parts - 1;
    r->chosen = take(at, experts * sizeof *r->chosen);
    r->first = take(at, (experts + 1) * sizeof *r->first);
    r->tile = take(at, (experts + 1) * sizeof *r->tile);
    r->token = take(at, every * sizeof *r->token);
    r->weight = take(at, every * sizeof *r->weight);
    choose_acts(r->tools, op, 0, gates, &r->in);
    choose_acts(r->tools, op, gates, gates + 1, &r->hidden_acts);
    lay_out_acts(&r->in, r->tools->kernels, ht_op_cols(op), pairs, tiles, at);
    lay_out_acts(&r->hidden_acts, r->tools->kernels, r->features, pairs, tiles, at);
    r->hidden = take(at, pairs * (size_t)gates * r->features * sizeof(float));
}

static ht_status reserve(const ht_cpu_tools *tools, const ht_op *op, ht_error *error) {
    run r = {.tools = tools, .features = ht_op_summed(op)};
    arena at = {0};
    lay_out(&r, op, &at);
    const size_t bytes = at.used + 4096; /* kernels may load a little more than they use */
    if (bytes <= tools->room->bytes)
        return HT_OK;
    uint8_t *pages = ht_pages_alloc(bytes);
    if (!pages)
        return ht_fail(error, HT_ERROR_MEMORY, "cpu: no memory for experts of %zu tokens", tools->max_tokens);
    if (tools->room->pages)
        ht_pages_free(tools->room->pages, tools->room->bytes);
    *tools->room = (ht_experts_room){pages, bytes};
    return HT_OK;
}

ht_status ht_experts_prepare(const ht_cpu_tools *tools, const ht_op *op, const ht_slice *slice, ht_experts **out,
                             ht_error *error) {
    ht_experts *experts;
    ht_status status = reserve(tools, op, error);
    if (!status)
        status = ht_alloc((void **)&experts, 1, sizeof *experts, op->name, error);
    if (status)
        return status;
    experts->op = op;
    experts->slice = *slice;
    for (int i = 0; i < op->n_parts && !status; i++)
        status = pack_part(tools, experts, i, error);
    if (status) {
        ht_experts_release(experts);
        return status;
    }
    *out = experts;
    return HT_OK;
}

/* ---- sorting
 * ---------------------------------------------------------------------------------------------------------------- */

static const float *weights_of(const run *r, size_t t) {
    const ht_op *op = r->experts->op;
    const ht_view *view = &r->binding->slots[op->more[0]];
    return (const float *)view->data + t * view->stride + op->more_first;
}

/* Pairs by expert, of each the tokens in their order. */
static void sort_tokens(run *r) {
    const size_t n = r->slice.row_end - r->slice.row_begin, tile = r->tools->kernels->tile;
    const size_t packed = r->slice.row_begin - r->experts->slice.row_begin;
    uint32_t count[HT_MAX_EXPERTS] = {0}, at[HT_MAX_EXPERTS], pairs = 0, tiles = 0;
    for (size_t t = 0; t < r->binding->tokens; t++) {
        const float *weights = weights_of(r, t) + r->slice.row_begin;
        for (size_t e = 0; e < n; e++)
            count[e] += weights[e] != 0.0f;
    }
    for (size_t e = 0; e < n; e++) {
        at[e] = pairs;
        if (!count[e])
            continue;
        r->chosen[r->n_chosen] = (uint32_t)(packed + e);
        r->first[r->n_chosen] = pairs;
        r->tile[r->n_chosen++] = tiles;
        pairs += count[e];
        tiles += (count[e] + (uint32_t)tile - 1) / (uint32_t)tile;
    }
    r->first[r->n_chosen] = pairs;
    r->tile[r->n_chosen] = tiles;
    for (size_t t = 0; t < r->binding->tokens; t++) {
        const float *weights = weights_of(r, t) + r->slice.row_begin;
        for (size_t e = 0; e < n; e++)
            if (weights[e] != 0.0f) {
                r->token[at[e]] = (uint32_t)t;
                r->weight[at[e]++] = weights[e];
            }
    }
}

/* ---- running
 * ----------------------------------------------------------------------------------------------------------------- */

/* Activations of chosen expert number k. */
static ht_acts acts_of(const run *r, const batch_acts *a, size_t k) {
    const bool one = r->same && a == &r->in; /* all read those of the batch's first */
    const size_t steps = a->all.cols / HT_STEP, first = one ? 0 : r->first[k] - r->first[r->begin];
    ht_acts acts = a->all;
    acts.tokens = r->first[k + 1] - r->first[k];
    if (a->floats)
        acts.floats += one ? 0 : (r->tile[k] - r->tile[r->begin]) * r->tools->kernels->tile * a->all.cols;
    if (!a->codes)
        return acts;
    acts.codes += first * a->all.cols;
    acts.scales += first * steps;
    acts.scaled_sums += first * steps;
    for (int i = HT_SUMS_NONE + 1; i < HT_SUMS_COUNT; i++)
        if (a->sums[i])
            acts.sums[i] += first * steps * ht_sums_halves(i);
    return acts;
}

/* The chosen expert that has this tile of the batch. */
static size_t expert_of_tile(const run *r, size_t tile) {
    size_t low = r->begin, high = r->end;
    tile += r->tile[r->begin];
    while (high - low > 1) {
        const size_t middle = (low + high) / 2;
        *(r->tile[middle] <= tile ? &low : &high) = middle;
    }
    return low;
}

/* What an expert's tokens bring, of one tile. */
static void gather_item(void *context, size_t item, int thread) {
    const run *r = context;
    const ht_op *op = r->experts->op;
    const ht_view *view = &r->binding->slots[op->in];
    const size_t k = expert_of_tile(r, item), tile = r->tile[r->begin] + item - r->tile[k];
    const size_t width = r->tools->kernels->tile, from = tile * width;
    const ht_acts acts = acts_of(r, &r->in, k);
    const size_t n = ht_min_size(width, acts.tokens - from);
    const float *rows[HT_MAX_TILE];
    for (size_t i = 0; i < n; i++) {
        rows[i] = (const float *)view->data + r->token[r->first[k] + from + i] * view->stride;
        if (r->in.codes)
            r->tools->kernels->quantize(rows[i], 0, ht_op_cols(op), from + i, 1, &acts);
    }
    if (r->in.floats)
        r->tools->kernels->pack_floats(rows, ht_op_cols(op), tile, &acts);
}

static float *thread_scratch(const run *r, int thread) {
    return r->tools->scratch + (size_t)thread * r->tools->scratch_floats;
}

static void product(const run *r, const ht_packed *p, size_t strip, const ht_acts *acts, float *y, size_t stride,
                    int thread) {
    (is_exact(r->tools, p->form) ? r->tools->kernels->strip_exact
                                 : r->tools->kernels->strip_fast)(p, strip, acts, y, stride, thread_scratch(r, thread));
}

/* A strip of an expert's gate or up, the slice's features of it. */
static void gate_item(void *context, size_t item, int thread) {
    const run *r = context;
    const size_t each = r->n_gates * r->gate_strips, k = r->begin + item / each, part = item % each / r->gate_strips;
    const ht_experts *x = r->experts;
    const size_t before = r->slice.reduction_begin - x->slice.reduction_begin;
    ht_packed p = of_expert(&x->parts[part], r->chosen[k], r->features);
    p.data += before / HT_STRIP * p.strip_bytes;
    p.bias = p.bias ? p.bias + before : NULL;
    const ht_acts acts = acts_of(r, &r->in, k);
    const size_t stride = r->n_gates * r->features;
    float *y = r->hidden + (r->first[k] - r->first[r->begin]) * stride + part * r->features;
    product(r, &p, item % r->gate_strips, &acts, y, stride, thread);
}

/* The activation of a tile of an expert's tokens, and what the last matrix reads of it. */
static void act_item(void *context, size_t item, int thread) {
    const run *r = context;
    const ht_op *op = r->experts->op;
    const ht_cpu_kernels *kernels = r->tools->kernels;
    const size_t k = expert_of_tile(r, item), tile = r->tile[r->begin] + item - r->tile[k];
    const ht_acts acts = acts_of(r, &r->hidden_acts, k);
    const size_t from = tile * kernels->tile, n = ht_min_size(kernels->tile, acts.tokens - from),
                 stride = r->n_gates * r->features;
    float *all = r->hidden + (r->first[k] - r->first[r->begin]) * stride;
    const float *rows[HT_MAX_TILE];
    for (size_t i = 0; i < n; i++) {
        float *row = all + (from + i) * stride;
        rows[i] = row;
        for (size_t c = 0; op->weighs_input && c < stride; c++)
            row[c] *= r->weight[r->first[k] + from + i];
        kernels->glu(op->activation, row, op->ungated ? NULL : row + r->features, r->features, row);
    }
    if (r->hidden_acts.codes)
        kernels->quantize(all, stride, r->features, from, n, &acts);
    if (r->hidden_acts.floats)
        kernels->pack_floats(rows, r->features, tile, &acts);
}

/* Of one expert's last matrix a strip of rows, the slice's columns. */
static ht_packed down_of(const run *r, size_t expert, size_t strip) {
    const ht_experts *x = r->experts;
    const packed_part *part = &x->parts[r->n_gates];
    ht_packed p = of_expert(part, expert, part->rows);
    const size_t steps = (r->slice.reduction_begin - x->slice.reduction_begin) / HT_STEP;
    p.data += strip * p.strip_bytes + ht_form_bytes(p.form, steps);
    p.cols = ht_round_up(r->features, HT_STEP);
    p.bias = p.bias && r->slice.reduction_begin == 0 ? p.bias + strip * HT_STRIP : NULL;
    p.rows -= strip * HT_STRIP;
    p.strips = 1;
    return p;
}

/* A strip of the result's rows: every expert's own is added up here, in their order. */
static void down_item(void *context, size_t strip, int thread) {
    const run *r = context;
    const ht_view *view = &r->binding->slots[r->experts->op->out];
    const size_t row = strip * HT_STRIP, rows = ht_min_size(HT_STRIP, r->experts->parts[r->n_gates].rows - row);
    float *out = (float *)view->data + row, *aside = thread_scratch(r, thread) + r->tools->aside;
    const bool weighs_output = !r->experts->op->weighs_input;
    for (size_t t = 0; t < r->binding->tokens && r->begin == 0 && !r->binding->adds; t++)
        memset(out + t * view->stride, 0, rows * sizeof *out);
    for (size_t k = r->begin; k < r->end; k++) {
        const ht_packed p = down_of(r, r->chosen[k], strip);
        const ht_acts acts = acts_of(r, &r->hidden_acts, k);
        product(r, &p, 0, &acts, aside, HT_STRIP, thread);
        for (size_t i = 0; i < acts.tokens; i++) {
            const float weight = weighs_output ? r->weight[r->first[k] + i] : 1, *from = aside + i * HT_STRIP;
            float *to = out + r->token[r->first[k] + i] * view->stride;
            for (size_t c = 0; c < rows; c++)
                to[c] += weight * from[c];
        }
    }
}

/* What the chosen experts' first matrices read, and their last ones. */
static void show_inputs(const run *r) {
    const ht_op *op = r->experts->op;
    const ht_observer *observer = r->binding->observer;
    const ht_view *in = &r->binding->slots[op->in];
    for (size_t k = r->begin; k < r->end; k++)
        for (size_t i = r->first[k]; i < r->first[k + 1]; i++)
            observer->look(observer->user, op, 0, op->n_parts - 1, r->experts->slice.row_begin + r->chosen[k],
                           (const float *)in->data + r->token[i] * in->stride, 1, in->stride);
}

static void show_hidden(const run *r) {
    const ht_op *op = r->experts->op;
    const ht_observer *observer = r->binding->observer;
    const size_t stride = r->n_gates * r->features;
    for (size_t k = r->begin; k < r->end; k++)
        observer->look(observer->user, op, op->n_parts - 1, op->n_parts, r->experts->slice.row_begin + r->chosen[k],
                       r->hidden + (r->first[k] - r->first[r->begin]) * stride, r->first[k + 1] - r->first[k], stride);
}

/* A few tokens' strips are microseconds long: runs of them are handed out, so that the streams stay long. */
static size_t grain_of(const run *r, size_t items) {
    const size_t share = items / ((size_t)r->tools->threads * 8);
    return r->binding->tokens <= HT_FEW && share > 1 ? share : 1;
}

/* Chosen experts from r->begin on that fit the room together. */
static size_t end_of_batch(const run *r) {
    size_t end = r->begin + 1;
    while (end < r->n_chosen && r->first[end + 1] - r->first[r->begin] <= most_pairs(r->tools))
        end++;
    return end;
}

void ht_experts_run(const ht_cpu_tools *tools, const ht_experts *experts, const ht_slice *slice,
                    const ht_binding *binding) {
    const ht_op *op = experts->op;
    run r = {.tools = tools,
             .experts = experts,
             .binding = binding,
             .slice = *slice,
             .features = slice->reduction_end - slice->reduction_begin,
             .n_gates = (size_t)op->n_parts - 1,
             .same = binding->tokens == 1};
    arena at = {tools->room->pages, 0};
    lay_out(&r, op, &at);
    sort_tokens(&r);
    r.gate_strips = (r.features + HT_STRIP - 1) / HT_STRIP;
    const size_t strips = experts->parts[r.n_gates].strips;
    for (r.end = 0; r.end < r.n_chosen; r.begin = r.end) {
        r.end = end_of_batch(&r);
        const size_t tiles = r.tile[r.end] - r.tile[r.begin], gates = (r.end - r.begin) * r.n_gates * r.gate_strips;
        if (HT_UNLIKELY(binding->observer != NULL))
            show_inputs(&r);
        ht_pool_run(tools->pool, gather_item, &r, r.same ? 1 : tiles, 1);
        ht_pool_run(tools->pool, gate_item, &r, gates, grain_of(&r, gates));
        ht_pool_run(tools->pool, act_item, &r, tiles, 1);
        if (HT_UNLIKELY(binding->observer != NULL))
            show_hidden(&r);
        ht_pool_run(tools->pool, down_item, &r, strips, grain_of(&r, strips));
    }
    if (r.n_chosen == 0 && !binding->adds) { /* nobody has chosen one of these: their sum is nothing */
        const ht_view *view = &binding->slots[op->out];
        for (size_t t = 0; t < binding->tokens; t++)
            memset((float *)view->data + t * view->stride, 0, experts->parts[r.n_gates].rows * sizeof(float));
    }
}
