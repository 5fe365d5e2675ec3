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

enum { ROPE_TABLES = 4, ROPE_BLOCK = 64 };

typedef struct rope_table {
    float *data; /* [reserved][pairs][2] */
    size_t pairs;
    size_t filled;              /* rows that are there */
    double *frequency;          /* [pairs] radians a position */
    double *longer;             /* the same for contexts past the original one (longrope), or NULL */
    double magnitude;           /* of the rotated pairs */
    double growth, every, from; /* ht_rope_kind's */
    size_t still;               /* pairs in front that are not turned */
} rope_table;

struct ht_rope {
    rope_table tables[ROPE_TABLES];
    int n_tables;
    size_t reserved; /* rows there is room for */
    size_t original; /* longrope: longer contexts have frequencies of their own; 0: they have not */
    enum { UNDECIDED, SHORT, LONG } contexts; /* longrope: of the engines that there are */
    pthread_mutex_t mutex;                    /* over filled and the rows past it */
};

/* Rows [begin, end), begin a multiple of ROPE_BLOCK. One cos and sin a block and pair, the rest by the addition
 * theorem: in double its error over a block stays near 1e-14, far below a float's, and it is much faster. */
static void fill_rows(const rope_table *table, size_t begin, size_t end) {
    for (size_t block = begin; block < end; block += ROPE_BLOCK) {
        const size_t stop = ht_min_size(block + ROPE_BLOCK, end);
        double lengths[ROPE_BLOCK];
        for (size_t row = block; row < stop; row++)
            lengths[row - block] =
                table->growth != 0.0
                    ? 1.0 + table->growth * log(1.0 + floor(((double)row + table->from) / table->every))
                    : 1.0;
        for (size_t pair = 0; pair < table->pairs; pair++) {
            const double f = table->frequency[pair], step_cos = cos(f), step_sin = sin(f);
            double c = cos((double)block * f), s = sin((double)block * f);
            for (size_t row = block; row < stop; row++) {
                const double magnitude = lengths[row - block] * (pair < table->still ? 1.0 : table->magnitude);
                float *out = table->data + (row * table->pairs + pair) * 2;
                out[0] = (float)(c * magnitude);
                out[1] = (float)(s * magnitude);
                const double next = c * step_cos - s * step_sin;
                s = s * step_cos + c * step_sin;
                c = next;
            }
        }
    }
}

ht_status ht_rope_fill(ht_model *model, size_t positions, ht_error *error) {
    struct ht_rope *rope = model->rope;
    if (positions > (size_t)model->hparams.context_length)
        return ht_fail(error, HT_ERROR_ARGUMENT, "%s: a context of %zu tokens is past the model's %d", model->info.path,
                       positions, model->hparams.context_length);
    if (!rope) /* nothing is rotated */
        return HT_OK;
    if (positions > HT_MAX_POSITIONS)
        return ht_fail(error, HT_ERROR_UNSUPPORTED, "%s: a context of %zu tokens is past the %d supported",
                       model->info.path, positions, HT_MAX_POSITIONS);
    pthread_mutex_lock(&rope->mutex);
    const size_t end = ht_min_size(ht_round_up(positions, ROPE_BLOCK), rope->reserved);
    for (int i = 0; i < rope->n_tables; i++) {
        rope_table *table = &rope->tables[i];
        if (end > table->filled) {
            fill_rows(table, table->filled, end);
            table->filled = end;
        }
    }
    pthread_mutex_unlock(&rope->mutex);
    return HT_OK;
}

/* Contexts up to the original length and past it rotate by other frequencies (Ding et al., "LongRoPE", 2024): whoever
 * asks first decides for the model. */
static ht_status decide_length(ht_model *model, size_t positions, ht_error *error) {
    struct ht_rope *rope = model->rope;
    ht_status status = HT_OK;
    pthread_mutex_lock(&rope->mutex);
    const int wanted = positions > rope->original ? LONG : SHORT;
    if (rope->contexts != UNDECIDED && (int)rope->contexts != wanted)
        status = ht_fail(
            error, HT_ERROR_UNSUPPORTED,
            "%s: contexts up to %zu tokens and longer ones rotate by other frequencies, and this model was opened "
            "for %s: open it once more",
            model->info.path, rope->original, wanted == LONG ? "the former" : "the latter");
    else if (rope->contexts == UNDECIDED && wanted == LONG)
        for (int i = 0; i < rope->n_tables; i++)
            if (rope->tables[i].longer)
                rope->tables[i].frequency = rope->tables[i].longer, rope->tables[i].filled = 0;
    if (!status)
        rope->contexts = wanted;
    pthread_mutex_unlock(&rope->mutex);
    return status;
}

ht_status ht_model_extend_rope(ht_model *model, size_t positions, ht_error *error) {
    const bool decides = model->rope && model->rope->original && positions <= (size_t)model->hparams.context_length;
    const ht_status status = decides ? decide_length(model, positions, error) : HT_OK;
    return status ? status : ht_rope_fill(model, positions, error);
}

void ht_rope_destroy(struct ht_rope *rope) {
    if (!rope)
        return;
    for (int i = 0; i < rope->n_tables; i++)
        ht_pages_free(rope->tables[i].data, rope->reserved * rope->tables[i].pairs * 2 * sizeof(float));
    pthread_mutex_destroy(&rope->mutex); /* the struct itself lives in the model's arena */
}

/* ---- frequencies ---- */

typedef enum rope_scaling_kind {
    SCALING_NONE,
    SCALING_LINEAR,
    SCALING_LLAMA3,
    SCALING_YARN,
    SCALING_LONGROPE
} rope_scaling_kind;

typedef struct rope_scaling {
    rope_scaling_kind kind;
    double factor;   /* context / original context */
    double original; /* context the model was first trained with */
    double attn_factor;
    double low, high; /* llama3: wavelengths per original context between which frequencies are mixed */
    double beta_fast, beta_slow, log_multiplier, extrapolation; /* yarn */
    const float *divisors; /* rope_freqs.weight or rope_factors_short.weight, [rope_dim/2], or NULL */
    const float *longer;   /* rope_factors_long.weight, or NULL */
} rope_scaling;

static rope_scaling_kind read_kind(ht_builder *b) {
    static const struct {
        const char *name;
        rope_scaling_kind kind;
    } kinds[] = {{"none", SCALING_NONE},
                 {"linear", SCALING_LINEAR},
                 {"llama3", SCALING_LLAMA3},
                 {"yarn", SCALING_YARN},
                 {"longrope", SCALING_LONGROPE}};
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
    ht_build_fail(b, HT_ERROR_UNSUPPORTED, "%s is \"%.*s\"; supported: none, linear, llama3, yarn, longrope", key,
                  (int)ht_min_size(name.bytes, 40), name.data);
    return SCALING_NONE;
}

static double positive(ht_builder *b, const char *key, float absent) {
    return (double)ht_build_float_in(b, key, 1e-6f, 1e6f, absent);
}

/* What frequencies are divided by. */
static const float *read_divisors(ht_builder *b, const char *name, size_t rope_dim) {
    const int layer = b->layer;
    b->layer = -1;
    const float *divisors = ht_build_vector(b, name, rope_dim / 2, false, 1.0f);
    b->layer = layer;
    for (size_t i = 0; divisors && i < rope_dim / 2 && b->status == HT_OK; i++)
        if (!(divisors[i] > 0.0f && isfinite(divisors[i])))
            ht_build_fail(b, HT_ERROR_FORMAT, "tensor %s holds %g, not a positive number", name, (double)divisors[i]);
    return divisors;
}

static rope_scaling read_scaling(ht_builder *b, const ht_rope_kind *kind, size_t rope_dim) {
    rope_scaling s = {.kind = read_kind(b)};
    const float old_factor = ht_build_factor(b, "rope.scale_linear", 0.0f); /* the older name */
    s.factor = (double)ht_build_factor(b, "rope.scaling.factor", old_factor);
    s.factor = s.factor == 0.0 ? (s.kind == SCALING_LLAMA3 ? 8.0 : 1.0) : s.factor;
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
        s.log_multiplier = (double)ht_build_float_in(b, "rope.scaling.yarn_log_multiplier", 0.0f, 1000.0f, 0.0f);
        s.extrapolation = (double)ht_build_float_in(b, "rope.scaling.yarn_ext_factor", -1.0f, 1000.0f, 1.0f);
        s.extrapolation = s.extrapolation < 0.0 ? 1.0 : s.extrapolation; /* -1 is how files say "the default" */
    }
    if (!kind->plain)
        s.divisors = read_divisors(b, "rope_freqs.weight", rope_dim);
    if (!s.divisors && (kind->factors || s.kind == SCALING_LONGROPE)) {
        s.divisors = read_divisors(b, "rope_factors_short.weight", rope_dim);
        s.longer = read_divisors(b, "rope_factors_long.weight", rope_dim);
        if (!s.divisors != !s.longer)
            ht_build_fail(b, HT_ERROR_FORMAT, "tensor rope_factors_%s.weight is missing",
                          s.divisors ? "long" : "short");
    }
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
    case SCALING_LONGROPE:
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
    rope->reserved = ht_min_size((size_t)model->hparams.context_length, HT_MAX_POSITIONS);
    rope->reserved = ht_round_up(rope->reserved, ROPE_BLOCK);
    pthread_mutex_init(&rope->mutex, NULL);
    model->rope = rope;
    return rope;
}

int ht_rope_dim(const ht_model *model, const float *table) {
    for (int i = 0; model->rope && i < model->rope->n_tables; i++)
        if (model->rope->tables[i].data == table)
            return (int)model->rope->tables[i].pairs * 2;
    return 0;
}

/* Room for a table of rows of rope_dim floats; NULL after an error. */
static rope_table *add_table(ht_builder *b, size_t rope_dim) {
    struct ht_rope *rope = rope_of(b);
    if (!rope || b->status != HT_OK)
        return NULL;
    if (rope->n_tables == ROPE_TABLES) {
        ht_build_fail(b, HT_ERROR_UNSUPPORTED, "a model has %d rope tables at most", ROPE_TABLES);
        return NULL;
    }
    rope_table *table = &rope->tables[rope->n_tables];
    table->pairs = rope_dim / 2;
    table->frequency = ht_arena_alloc(&b->model->arena, table->pairs * sizeof(double));
    table->data = table->frequency ? ht_pages_alloc(rope->reserved * rope_dim * sizeof(float)) : NULL;
    if (!table->data) {
        ht_build_fail(b, HT_ERROR_MEMORY, "out of memory for the rope tables");
        return NULL;
    }
    rope->n_tables++;
    return table;
}

/* The frequencies of contexts past the original one. */
static void add_longer(ht_builder *b, rope_table *table, rope_scaling scaling, size_t rope_dim, double base) {
    table->longer = ht_arena_alloc(&b->model->arena, table->pairs * sizeof(double));
    if (!table->longer) {
        ht_build_fail(b, HT_ERROR_MEMORY, "out of memory for the rope tables");
        return;
    }
    b->model->rope->original = (size_t)scaling.original;
    scaling.divisors = scaling.longer;
    for (size_t i = 0; i < table->pairs; i++)
        table->longer[i] = table->frequency[i]; /* of pairs that are not turned */
    for (size_t pair = 0; pair < rope_dim / 2; pair++)
        table->longer[table->still + pair] =
            scaled_frequency(&scaling, pow(base, -2.0 * (double)pair / (double)rope_dim), pair, rope_dim, base);
}

const float *ht_build_rope_table_of(ht_builder *b, const ht_rope_kind *kind) {
    const int head_dim = b->model->hparams.head_dim;
    const float base = kind->freq_base;
    const int dim = kind->dim ? kind->dim : (int)ht_build_int(b, "rope.dimension_count", 2, head_dim, head_dim);
    if (dim % 2 != 0)
        ht_build_fail(b, HT_ERROR_FORMAT, "rope.dimension_count is odd");
    if (base != 0.0f && !(base > 1.0f && isfinite(base)))
        ht_build_fail(b, HT_ERROR_FORMAT, "the rope frequency base is %g, not above 1", (double)base);
    const size_t rope_dim = (size_t)dim, still = (size_t)kind->still / 2;
    const rope_scaling scaling =
        kind->scaled ? read_scaling(b, kind, rope_dim) : (rope_scaling){.kind = SCALING_NONE, .attn_factor = 1.0};
    rope_table *table = b->status == HT_OK ? add_table(b, rope_dim + 2 * still) : NULL;
    if (!table)
        return NULL;
    table->magnitude = kind->unit ? scaling.attn_factor : scaled_magnitude(&scaling);
    table->growth = (double)kind->growth, table->every = kind->every ? (double)kind->every : 1.0,
    table->from = kind->from;
    table->still = still;
    for (size_t pair = 0; pair < still; pair++)
        table->frequency[pair] = 0.0;
    for (size_t pair = 0; pair < rope_dim / 2; pair++) {
        const double f = base != 0.0f ? pow((double)base, -2.0 * (double)pair / (double)rope_dim) : 0.0;
        table->frequency[still + pair] =
            base != 0.0f ? scaled_frequency(&scaling, f, pair, rope_dim, (double)base) : 0.0;
    }
    if (scaling.longer)
        add_longer(b, table, scaling, rope_dim, (double)base);
    return table->data;
}

const float *ht_build_rope_table(ht_builder *b, float freq_base, bool scaled) {
    return ht_build_rope_table_of(b, &(ht_rope_kind){.freq_base = freq_base ? freq_base : NAN, .scaled = scaled});
}
