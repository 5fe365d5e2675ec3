/* Cos/sin tables of rotary position embeddings (Su et al., "RoFormer", 2021) and the ways of stretching them: linear
 * (Chen et al., "Extending Context Window of Large Language Models via Positional Interpolation", 2023), YaRN (Peng et
 * al., 2023) and Llama 3.1's. A way of stretching changes only each pair's frequency and, for YaRN, the length of the
 * rotated vectors, so a table is frequencies in double and rows filled from them on demand: a model of 131,072
 * positions that runs with 4,096 never touches the other pages.
 */
#include "model/build.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum { ROPE_TABLES = 2, ROPE_BLOCK = 64 };

typedef struct rope_table {
    float *data;       /* [reserved][head_dim/2][2] */
    double *frequency; /* [head_dim/2] radians a position; 0 past rope_dim: not rotated */
    double magnitude;  /* of the rotated pairs */
} rope_table;

struct ht_rope {
    rope_table tables[ROPE_TABLES];
    int n_tables;
    size_t pairs;          /* head_dim / 2 */
    size_t rotated;        /* rope_dim / 2 */
    size_t reserved;       /* rows there is room for */
    size_t filled;         /* rows that are there, in every table */
    pthread_mutex_t mutex; /* over filled and the rows past it */
};

/* Rows [begin, end), begin a multiple of ROPE_BLOCK. One cos and sin a block and pair, the rest by the addition
 * theorem: in double its error over a block stays near 1e-14, far below a float's, and it is much faster. */
static void fill_rows(const struct ht_rope *rope, const rope_table *table, size_t begin, size_t end) {
    for (size_t block = begin; block < end; block += ROPE_BLOCK) {
        const size_t stop = ht_min_size(block + ROPE_BLOCK, end);
        for (size_t pair = 0; pair < rope->pairs; pair++) {
            const double f = table->frequency[pair], step_cos = cos(f), step_sin = sin(f);
            const double magnitude = pair < rope->rotated ? table->magnitude : 1.0;
            double c = cos((double)block * f), s = sin((double)block * f);
            for (size_t row = block; row < stop; row++) {
                float *out = table->data + (row * rope->pairs + pair) * 2;
                out[0] = (float)(c * magnitude);
                out[1] = (float)(s * magnitude);
                const double next = c * step_cos - s * step_sin;
                s = s * step_cos + c * step_sin;
                c = next;
            }
        }
    }
}

ht_status ht_model_extend_rope(ht_model *model, size_t positions, ht_error *error) {
    struct ht_rope *rope = model->rope;
    if (positions > (size_t)model->hparams.context_length)
        return ht_fail(error, HT_ERROR_ARGUMENT, "%s: a context of %zu tokens is past the model's %d", model->info.path,
                       positions, model->hparams.context_length);
    if (positions > HT_MAX_POSITIONS)
        return ht_fail(error, HT_ERROR_UNSUPPORTED, "%s: a context of %zu tokens is past the %d supported",
                       model->info.path, positions, HT_MAX_POSITIONS);
    pthread_mutex_lock(&rope->mutex);
    const size_t end = ht_min_size(ht_round_up(positions, ROPE_BLOCK), rope->reserved);
    if (end > rope->filled) {
        for (int i = 0; i < rope->n_tables; i++)
            fill_rows(rope, &rope->tables[i], rope->filled, end);
        rope->filled = end;
    }
    pthread_mutex_unlock(&rope->mutex);
    return HT_OK;
}

void ht_rope_destroy(struct ht_rope *rope) {
    if (!rope)
        return;
    for (int i = 0; i < rope->n_tables; i++)
        ht_pages_free(rope->tables[i].data, rope->reserved * rope->pairs * 2 * sizeof(float));
    pthread_mutex_destroy(&rope->mutex); /* the struct itself lives in the model's arena */
}

/* ---- frequencies ---- */

typedef enum rope_scaling_kind { SCALING_NONE, SCALING_LINEAR, SCALING_LLAMA3, SCALING_YARN } rope_scaling_kind;

typedef struct rope_scaling {
    rope_scaling_kind kind;
    double factor;   /* context / original context */
    double original; /* context the model was first trained with */
    double attn_factor;
    double low, high; /* llama3: wavelengths per original context between which frequencies are mixed */
    double beta_fast, beta_slow, log_multiplier, extrapolation; /* yarn */
    const float *divisors;                                      /* rope_freqs.weight, [rope_dim/2], or NULL */
} rope_scaling;

static rope_scaling_kind read_kind(ht_builder *b) {
    static const struct {
        const char *name;
        rope_scaling_kind kind;
    } kinds[] = {
        {"none", SCALING_NONE}, {"linear", SCALING_LINEAR}, {"llama3", SCALING_LLAMA3}, {"yarn", SCALING_YARN}};
    const ht_gguf *file = b->model->file;
    char key[96];
    snprintf(key, sizeof key, "%s.rope.scaling.type", b->model->info.architecture);
    ht_string name = {NULL, 0};
    if (file && b->status == HT_OK)
        b->status = ht_gguf_string(file, key, false, &name, b->error);
    if (!name.data)
        return SCALING_LINEAR; /* older files have only a factor and mean this; without one it is the identity */
    for (size_t i = 0; i < HT_COUNT(kinds); i++)
        if (strlen(kinds[i].name) == name.bytes && memcmp(kinds[i].name, name.data, name.bytes) == 0)
            return kinds[i].kind;
    ht_build_fail(b, HT_ERROR_UNSUPPORTED, "%s is \"%.*s\"; supported: none, linear, llama3, yarn", key,
                  (int)ht_min_size(name.bytes, 40), name.data);
    return SCALING_NONE;
}

static double positive(ht_builder *b, const char *key, double absent) {
    const double value = ht_build_float(b, key, (float)absent);
    if (b->status == HT_OK && !(value > 0.0 && value < 1e9)) /* also false for NaN */
        ht_build_fail(b, HT_ERROR_FORMAT, "%s.%s is %g, not a positive number", b->model->info.architecture, key,
                      value);
    return value;
}

static rope_scaling read_scaling(ht_builder *b, size_t rope_dim) {
    rope_scaling s = {.kind = read_kind(b)};
    const double old_factor = ht_build_float(b, "rope.scale_linear", 0.0f); /* the older name; 0 means none */
    s.factor = ht_build_float(b, "rope.scaling.factor", (float)old_factor);
    s.factor = s.factor == 0.0 ? (s.kind == SCALING_LLAMA3 ? 8.0 : 1.0) : s.factor;
    if (b->status == HT_OK && !(s.factor > 0.0 && s.factor < 1e6))
        ht_build_fail(b, HT_ERROR_FORMAT, "%s.rope.scaling.factor is %g, not a positive number",
                      b->model->info.architecture, s.factor);
    s.original = (double)ht_build_int(b, "rope.scaling.original_context_length", 1, INT32_MAX,
                                      s.kind == SCALING_LLAMA3 ? 8192 : b->model->hparams.context_length);
    s.attn_factor = positive(b, "rope.scaling.attn_factor", 1.0);
    if (s.kind == SCALING_LLAMA3) {
        s.low = positive(b, "rope.scaling.low_freq_factor", 1.0);
        s.high = positive(b, "rope.scaling.high_freq_factor", 4.0);
        if (b->status == HT_OK && s.high <= s.low)
            ht_build_fail(b, HT_ERROR_FORMAT, "rope.scaling.high_freq_factor is not above low_freq_factor");
    }
    if (s.kind == SCALING_YARN) {
        s.beta_fast = positive(b, "rope.scaling.yarn_beta_fast", 32.0);
        s.beta_slow = positive(b, "rope.scaling.yarn_beta_slow", 1.0);
        s.log_multiplier = ht_build_float(b, "rope.scaling.yarn_log_multiplier", 0.0f);
        s.extrapolation = ht_build_float(b, "rope.scaling.yarn_ext_factor", 1.0f);
        s.extrapolation = s.extrapolation < 0.0 ? 1.0 : s.extrapolation; /* -1 is how files say "the default" */
        if (b->status == HT_OK && !(isfinite(s.log_multiplier) && isfinite(s.extrapolation)))
            ht_build_fail(b, HT_ERROR_FORMAT,
                          "rope.scaling.yarn_log_multiplier or yarn_ext_factor is not a finite number");
    }
    const int layer = b->layer;
    b->layer = -1;
    s.divisors = ht_build_vector(b, "rope_freqs.weight", rope_dim / 2, false, 1.0f);
    b->layer = layer;
    for (size_t i = 0; s.divisors && i < rope_dim / 2 && b->status == HT_OK; i++)
        if (!(s.divisors[i] > 0.0f && isfinite(s.divisors[i])))
            ht_build_fail(b, HT_ERROR_FORMAT, "tensor rope_freqs.weight holds %g, not a positive number",
                          (double)s.divisors[i]);
    return s;
}

/* Llama 3.1: what turns slowly over the original context is slowed by the factor, what turns fast is left as it is,
 * with a mixture between. */
static double llama3_frequency(const rope_scaling *s, double f) {
    const double turns = s->original * f / (2.0 * M_PI);
    const double keep = fmin(fmax((turns - s->low) / (s->high - s->low), 0.0), 1.0);
    return f * (keep + (1.0 - keep) / s->factor);
}

/* YaRN: as above, but mixed along the pairs' indices, between those that make beta_fast and beta_slow turns. The bounds
 * are rounded as the paper's code and llama.cpp do. */
static double yarn_frequency(const rope_scaling *s, double f, size_t pair, size_t rope_dim, double base) {
    const double per_turn = (double)rope_dim / (2.0 * log(base));
    double low = floor(per_turn * log(s->original / (s->beta_fast * 2.0 * M_PI)));
    double high = ceil(per_turn * log(s->original / (s->beta_slow * 2.0 * M_PI)));
    low = fmax(low, 0.0);
    high = fmin(high, (double)rope_dim - 1.0);
    const double ramp = ((double)pair - low) / fmax(high - low, 0.001);
    const double keep = (1.0 - fmin(fmax(ramp, 0.0), 1.0)) * s->extrapolation;
    return f * (keep + (1.0 - keep) / s->factor);
}

static double scaled_frequency(const rope_scaling *s, double f, size_t pair, size_t rope_dim, double base) {
    if (s->divisors) /* made from the same rule as llama3's keys: never both */
        f /= s->divisors[pair];
    switch (s->kind) {
    case SCALING_LINEAR:
        return f / s->factor;
    case SCALING_LLAMA3:
        return s->divisors ? f : llama3_frequency(s, f);
    case SCALING_YARN:
        return yarn_frequency(s, f, pair, rope_dim, base);
    default:
        return f;
    }
}

/* YaRN lengthens the rotated vectors ("attention temperature") by 0.1 ln(factor) + 1. With a log multiplier (DeepSeek's
 * mscale_all_dim) that is divided by the same with the multiplier in it. */
static double scaled_magnitude(const rope_scaling *s) {
    double magnitude = s->attn_factor;
    if (s->kind == SCALING_YARN && s->extrapolation != 0.0 && s->factor > 1.0) {
        magnitude *= 0.1 * log(s->factor) + 1.0;
        magnitude /= 0.1 * s->log_multiplier * log(s->factor) + 1.0;
    }
    return magnitude;
}

static struct ht_rope *rope_of(ht_builder *b) {
    ht_model *model = b->model;
    if (model->rope)
        return model->rope;
    struct ht_rope *rope = ht_arena_alloc(&model->arena, sizeof *rope);
    if (!rope) {
        ht_build_fail(b, HT_ERROR_MEMORY, "out of memory for the rope tables");
        return NULL;
    }
    const int head_dim = model->hparams.head_dim;
    rope->pairs = (size_t)head_dim / 2;
    const int64_t rope_dim = ht_build_int(b, "rope.dimension_count", 2, head_dim, head_dim);
    if (rope_dim % 2 != 0)
        ht_build_fail(b, HT_ERROR_FORMAT, "rope.dimension_count is odd");
    rope->rotated = (size_t)rope_dim / 2;
    rope->reserved = ht_min_size((size_t)model->hparams.context_length, HT_MAX_POSITIONS);
    rope->reserved = ht_round_up(rope->reserved, ROPE_BLOCK);
    pthread_mutex_init(&rope->mutex, NULL);
    model->rope = rope;
    return rope;
}

int ht_rope_dim(const ht_model *model) {
    return model->rope ? (int)model->rope->rotated * 2 : 0;
}

const float *ht_build_rope_table(ht_builder *b, float freq_base, bool scaled) {
    struct ht_rope *rope = b->status == HT_OK ? rope_of(b) : NULL;
    if (!rope || b->status != HT_OK)
        return NULL;
    if (!(freq_base > 1.0f && isfinite(freq_base))) {
        ht_build_fail(b, HT_ERROR_FORMAT, "the rope frequency base is %g, not above 1", (double)freq_base);
        return NULL;
    }
    if (rope->n_tables == ROPE_TABLES) {
        ht_build_fail(b, HT_ERROR_UNSUPPORTED, "a model has %d rope tables at most", ROPE_TABLES);
        return NULL;
    }
    const size_t rope_dim = rope->rotated * 2;
    const rope_scaling scaling =
        scaled ? read_scaling(b, rope_dim) : (rope_scaling){.kind = SCALING_NONE, .attn_factor = 1.0};
    rope_table *table = &rope->tables[rope->n_tables];
    table->frequency = ht_arena_alloc(&b->model->arena, rope->pairs * sizeof(double));
    table->data = b->status == HT_OK && table->frequency
                      ? ht_pages_alloc(rope->reserved * rope->pairs * 2 * sizeof(float))
                      : NULL;
    if (!table->data) {
        ht_build_fail(b, HT_ERROR_MEMORY, "out of memory for the rope tables");
        return NULL;
    }
    rope->n_tables++;
    table->magnitude = scaled_magnitude(&scaling);
    for (size_t pair = 0; pair < rope->rotated; pair++) {
        const double f = pow(freq_base, -2.0 * (double)pair / (double)rope_dim);
        table->frequency[pair] = scaled_frequency(&scaling, f, pair, rope_dim, freq_base);
    }
    return table->data;
}
