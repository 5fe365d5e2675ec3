/* Tools of the family files. Private to src/model.
 *
 * A builder carries the first error with it: after one, every call does nothing and gives back zeros, so that a family
 * lists its operators from top to bottom without a test on each line, and asks once, in ht_build_head.
 */
#ifndef HT_BUILD_H
#define HT_BUILD_H

#include "model/model.h"

#define HT_MAX_LAYERS 1024 /* model.c lets no more through */

/* A shape: model: hyperparameters of a real one, weights made up. */
typedef struct ht_shape {
    const char *name, *arch;
    ht_hparams hparams;
    float freq_base;
    bool tied; /* no output.weight: the head is the embedding */
} ht_shape;
typedef struct ht_shape_mixture {
    const char *name;
    int experts, used, features, shared, dense; /* features of all shared experts; layers in front that have none */
} ht_shape_mixture;
const ht_shape_mixture *ht_shape_experts(const ht_shape *shape); /* NULL: it has none */
/* "shape:NAME[:TYPE]" -> row and type (Q4_0 unless said). Errors name the shapes or the type. */
ht_status ht_shape_find(const char *spec, const ht_shape **shape, const ht_type_traits **type, ht_error *error);

enum { HT_BUILD_SUMS = 4 };
/* What a block gave, in a slot of sums: the next norm of the stream is to add it. */
typedef struct ht_given {
    bool waits;
    ht_slot stream;
    const float *post_norm; /* of it and what is added with it; or NULL */
    const float *each_norm; /* of it alone; or NULL */
} ht_given;
/* What a norm does to its stream besides; the fields are those of ht_op. */
typedef struct ht_norming {
    bool looks; /* what blocks gave goes on waiting: the stream is read as it is */
    bool replaces, adds_normed;
    const float *weight; /* in place of the file's tensor of its name */
} ht_norming;

typedef struct ht_builder {
    ht_model *model;
    ht_error *error;
    ht_status status;
    int layer;               /* -1: outside the layers */
    int period;              /* not 0: layer number i has the tensors of number i % period: a looped model */
    int caches;              /* that have been written so far */
    const ht_hparams *shape; /* of what follows; NULL: the model's */
    const char *stream;      /* that what follows reads and adds to; NULL: "x" */
    ht_norm norm;            /* what ht_build_norm lists */
    bool unweighted;         /* norms have no weights */
    bool few_biases;         /* only queries, keys and values have biases, whatever the file has */
    bool no_output_bias;     /* nor has the head */
    bool biased;             /* every matrix of a layer has a bias, also of those whose bias is optional */
    size_t normed;           /* values of what was normed last */
    const char *output_norm; /* tensor of the final norm; NULL: "output_norm" */
    float output_scale;      /* what its weights are multiplied by: logits are then, too; 0: nothing */
    float output_cap;        /* soft cap of logits; 0: none */
    float stream_eps;        /* of the streams' norms; 0: the model's */
    /* Matrices whose tensor NAME.scale is the family's own, and no second scale of NVFP4; ends with NULL. NULL: none are. */
    const char *const *own_scales;
    float post_eps;     /* of norms of what blocks gave; 0: the same */
    bool stream_anew;   /* the next norm that adds leaves nothing of what its stream was */
    float stream_scale; /* what the next norm that adds multiplies its stream by; 0: nothing */
    ht_given given[HT_BUILD_SUMS];
} ht_builder;

ht_builder ht_build_begin(ht_model *model, ht_error *error);
/* Keeps the first error. The text gets the model's path in front. */
ht_status ht_build_fail(ht_builder *b, ht_status status, const char *format, ...) HT_PRINTF(3, 4);

/* ---- keys: "<arch>.<key>" of the file; the default when it is absent (always so for shape: models) ---- */
int64_t ht_build_int(ht_builder *b, const char *key, int64_t min, int64_t max, int64_t absent);
/* The same of one layer, where the file may have a number for each, and no more; and the largest of the layers'. */
int64_t ht_build_int_at(ht_builder *b, const char *key, int layer, int64_t min, int64_t max, int64_t absent);
int64_t ht_build_most(ht_builder *b, const char *key, int64_t min, int64_t max, int64_t absent);
bool ht_build_bool(ht_builder *b, const char *key, bool absent);
/* The first of a list. */
int64_t ht_build_first_int(ht_builder *b, const char *key, int64_t min, int64_t max, int64_t absent);
float ht_build_float(ht_builder *b, const char *key, float absent);
/* The same from `least` to `most`. And what something is multiplied or divided by: from 1e-6 to 1e6, and 0 as if it
 * were absent, which llama.cpp writes for what a family does not have. */
float ht_build_float_in(ht_builder *b, const char *key, float least, float most, float absent);
float ht_build_factor(ht_builder *b, const char *key, float absent);
bool ht_build_has(const ht_builder *b, const char *key);

/* ---- tensors ---- */
/* `name`.weight, [rows, cols]; of layer b->layer if that is not -1. */
ht_matrix ht_build_matrix(ht_builder *b, const char *name, size_t rows, size_t cols);
/* Some rows of `name`.weight, `rows` in all: of every `stride` rows of the tensor the `run` from row `first` on. */
ht_matrix ht_build_rows(ht_builder *b, const char *name, size_t rows, size_t cols, size_t first, size_t run,
                        size_t stride);
/* The same of a matrix; of a tensor's rows of all `n` matrices, if it is one of ht_build_matrices. */
ht_matrix ht_build_rows_of(ht_builder *b, ht_matrix m, size_t first, size_t run, size_t stride);
/* Has the file `name`.weight? Never for shape: models. */
bool ht_build_has_matrix(const ht_builder *b, const char *name);
/* `n` matrices of [rows, cols] in one tensor, one after another: rows * n of the matrix. */
ht_matrix ht_build_matrices(ht_builder *b, const char *name, size_t rows, size_t cols, size_t n);
/* `name` (suffix included), [n] floats in the model's arena, 64-byte aligned; if it is absent: an error if required,
 * else NULL. shape: models: `made_up` n times if required, else NULL. */
const float *ht_build_vector(ht_builder *b, const char *name, size_t n, bool required, float made_up);
/* `value` n times, as such a vector. */
const float *ht_build_constant(ht_builder *b, size_t n, float value);
/* `count` of them in one tensor, [count, each]. */
const float *ht_build_vectors(ht_builder *b, const char *name, size_t each, size_t count, bool required, float made_up);
/* The weights of a convolution, which files have channel by channel, [taps][channels]. shape: models: of either sign, others
 * for each channel. */
const float *ht_build_taps(ht_builder *b, const char *name, int taps, size_t channels);

/* local[layer] for each of the model's layers, by attention.sliding_window_pattern: a flag for each layer, or a period,
 * whose last layer is not local; 0: all are. `absent`: the period where the file says nothing. */
void ht_build_pattern(ht_builder *b, bool *local, int absent);

/* ---- rope ---- */
/* rope.freq_base; 10000 if absent, with a warning unless `known` says that real files mean that. */
float ht_build_freq_base(ht_builder *b, bool known);
/* A cos/sin table for the file's rope.dimension_count; four at most, each with rows of its own dimension. scaled: its
 * rope.scaling keys and rope_freqs.weight apply. */
const float *ht_build_rope_table(ht_builder *b, float freq_base, bool scaled);
typedef struct ht_rope_kind {
    float freq_base; /* 0: nothing is rotated: a table of lengths alone, for queries that grow with their position */
    bool scaled;
    bool unit; /* rows are as long as 1 whatever rope.scaling says: scores have its factor instead */
    int dim;   /* 0: the file's */
    /* Not 0: rows are as long as 1 + growth * log(1 + floor(position / every)): position-scaled queries (Llama 4). */
    float growth;
    int every;
    int from;     /* positions are counted from it on: floor((position + from) / every) */
    bool factors; /* rope_factors_long and rope_factors_short apply, whatever rope.scaling.type says */
    bool plain;   /* rope_freqs.weight does not */
    int still;    /* so many dimensions in front of `dim` are not turned: rows are as long as both */
} ht_rope_kind;
const float *ht_build_rope_table_of(ht_builder *b, const ht_rope_kind *kind);

/* ---- slots ---- */
/* The slot of this name: the one that was declared, else a new one. It gets as wide as the widest of its
 * declarations; roles do not differ. HT_SLOT_NONE after an error. The caller keeps *name. */
ht_slot ht_build_slot(ht_builder *b, const char *name, ht_slot_role role, size_t width);

/* ---- operators, in the order of a forward pass ---- */
/* token_embd, to the stream. More of them may follow for other streams and side inputs: rows of another matrix
 * `name`, of `width` values, to the slot of that name, which every lane has. The caller keeps *name. */
void ht_build_embed(ht_builder *b, float scale);
void ht_build_side(ht_builder *b, const char *name, size_t width, float scale);
/* Learned positions: rows of `name`, one for each position of the model's context, are added to the stream. */
void ht_build_positions(ht_builder *b, const char *name);
void ht_build_layer(ht_builder *b, int layer); /* what follows belongs to it */
/* What follows has these heads and features, no more than the model's hparams, which say the most; NULL: as many as
 * these. The caller keeps *shape. */
void ht_build_shape(ht_builder *b, const ht_hparams *shape);
/* The shape of a layer by what keys say of each: heads, key-value heads (0: it has no attention), features. */
ht_hparams ht_build_layer_shape(ht_builder *b, int layer);
/* A block of this kind begins, of so many key-value heads or hidden features: what follows, up to the next block or the
 * head. */
void ht_build_block(ht_builder *b, ht_block_kind kind, int units);
/* A block that begins without it stands beside the one before: it reads what that one's norm left. Norms add what
 * blocks gave to their stream since its last norm: HT_MAX_ADDED of them at most. */
/* Of kind b->norm: an RMS norm unless a family says otherwise; `name`.bias is taken where a LayerNorm has it. NULL: a
 * copy, for families that norm only what a block gave. */
void ht_build_norm(ht_builder *b, const char *name);
void ht_build_norm_of(ht_builder *b, const char *name, const ht_norming *norming);
/* The same of a stream as it was when the layer's other block read it: what that one gave waits for the next
 * ht_build_norm. */
void ht_build_norm_beside(ht_builder *b, const char *name);
/* What follows reads and adds to the residual stream of this name, no wider than the embedding; NULL: to the first,
 * which ht_build_embed wrote. The caller keeps *name. */
void ht_build_stream(ht_builder *b, const char *name);
/* A block that is a norm of the stream, to another stream, which is the one at hand from then on. NULL: the first. The
 * caller keeps *to. */
void ht_build_normed_stream(ht_builder *b, const char *name, const char *to);
/* The next norm of the stream adds what the block gave first, after an RMS norm of its own (post_norm; NULL: none).
 * Of blocks beside each other the last one may have that: it is of what they gave together. */
void ht_build_add(ht_builder *b, const char *post_norm);
/* The same behind an RMS norm of its own (each_norm; NULL: none), and then of all that the next norm adds (post_norm). */
void ht_build_add_each(ht_builder *b, const char *each_norm, const char *post_norm);
/* An RMS norm's weights, [n], times a factor, in the arena. */
const float *ht_build_scaled_vector(ht_builder *b, const char *name, size_t n, float factor);

typedef enum ht_bias { HT_BIAS_OPTIONAL, HT_BIAS_REQUIRED, HT_BIAS_IGNORED } ht_bias;
/* A matrix of a MATMUL: tensor `name`.weight, of `rows` rows, with `name`.bias; stride not 0: some rows, as in
 * ht_build_rows. */
typedef struct ht_build_part {
    const char *name;
    size_t rows, first, run, stride;
} ht_build_part;
/* From `cols` values of one slot to another, by `n` matrices, HT_MAX_PARTS at most. `name` is the operator's. */
void ht_build_matmul(ht_builder *b, const char *name, ht_slot in, ht_slot out, size_t cols, const ht_build_part *parts,
                     int n, ht_bias bias);
/* The block's last matrix `name`, from `cols` values of a slot to what the next norm of the stream adds. */
void ht_build_give(ht_builder *b, const char *name, ht_slot in, size_t cols);
/* For functions that list operators: a zeroed one at the end, NULL after an error; the slot that norms leave their rows
 * in, and one for what the block at hand adds to the stream; that stream's width; the shape of the layer at hand. */
ht_op *ht_build_op(ht_builder *b, ht_op_kind kind, const char *name, ht_slot in, ht_slot out);
ht_slot ht_build_normed(ht_builder *b);
ht_slot ht_build_sums(ht_builder *b);
size_t ht_build_stream_width(ht_builder *b);
const ht_hparams *ht_build_shape_of(const ht_builder *b);
/* attn_q, attn_k and attn_v, or the three in one: attn_qkv. */
void ht_build_qkv(ht_builder *b, ht_bias bias);
/* Queries alone, of a block that reads an earlier layer's keys and values. */
void ht_build_queries(ht_builder *b, ht_bias bias);
/* The same of other matrices than attn_q, attn_k and attn_v: [3], of all query heads' rows, keys', values'. */
void ht_build_qkv_of(ht_builder *b, const ht_build_part *parts, ht_bias bias);

/* What ROPE does; the fields are those of ht_op. */
typedef struct ht_rotation {
    const float *table, *queries; /* NULL: no rotation; queries as keys */
    bool halves;
    const char *q_norm, *k_norm; /* NULL: none */
    ht_norm norm;                /* of these */
    bool unit;                   /* they are normed without weights instead */
    bool norm_whole, norm_heads, norm_after, v_norm;
    bool shared; /* of queries alone */
    int norm_dim, first, value_dim;
} ht_rotation;
void ht_build_rope(ht_builder *b, const ht_rotation *rotation);
void ht_build_attention(ht_builder *b, float scale, int window); /* scale 0: 1/sqrt(head_dim) */
/* What ATTENTION does to scores; the fields are those of ht_op. */
typedef struct ht_attending {
    float scale, soft_cap; /* scale 0: 1/sqrt(head_dim) */
    int window, chunk, value_dim;
    int cache; /* shared: an earlier layer's; else the newest */
    bool shared;
    bool both_ways;    /* window: that many tokens and itself, half of them to either side */
    const char *sinks; /* a tensor of a logit for each head; NULL: none */
    float
        alibi; /* ALiBi's largest bias: slopes 2^(-8 (head + 1) / heads) of it, where heads are a power of two; 0: none */
} ht_attending;
void ht_build_attention_of(ht_builder *b, const ht_attending *attending);
void ht_build_attention_output(ht_builder *b);
void ht_build_attention_output_of(ht_builder *b, ht_bias bias);
/* The end of a gated attention block: what heads give times sigmoid(gate), the gate made from what was normed by a
 * matrix of as many rows; then the output matrix. */
void ht_build_attention_gate(ht_builder *b, const ht_build_part *gate);
void ht_build_gated_output(ht_builder *b);
void ht_build_gate_up(ht_builder *b);
void ht_build_fused_gate_up(ht_builder *b); /* both in ffn_up, gate first */
void ht_build_glu(ht_builder *b, ht_activation activation);
/* A feed-forward block without a gate: ffn_up alone, and act(up). */
void ht_build_up(ht_builder *b);
void ht_build_activation(ht_builder *b, ht_activation activation);
void ht_build_down(ht_builder *b);
/* A whole feed-forward block behind a norm of its own, as many features as the layer's shape says. */
void ht_build_feed_forward(ht_builder *b, const char *norm, ht_activation activation, const char *post_norm);
/* A feed-forward block whose other factor is a side input, from its value `first` on: matrix `inp_gate`, act(gate) *
 * side, matrix `proj`. */
void ht_build_side_gate(ht_builder *b);
void ht_build_side_glu(ht_builder *b, ht_activation activation, const char *side, size_t first);
void ht_build_side_output(ht_builder *b);

/* ---- streams and side inputs (streams.c) ---- */
/* token_embd to a slot of its own, and normed from there to the stream: by `name`, or NULL: an RMS norm without weights. */
void ht_build_normed_embed(ht_builder *b, float scale, const char *name);
/* Per-layer embeddings: rows of `width` values for each layer. Slot "per_layer_token_embd" becomes (rows * sqrt(width)
 * + norm of what per_layer_model_proj makes of the stream) / sqrt(2). Behind ht_build_embed. */
void ht_build_side_inputs(ht_builder *b, size_t width);
/* AltUp: `streams` of which the stream at hand is the first. In front of the blocks; at the beginning of a block of
 * kind MIXED_ATTENTION, and of kind MIXED_FEED_FORWARD, which then reads normed rows as others do; and behind all, a
 * whole block. */
void ht_build_streams(ht_builder *b, int streams);
void ht_build_predict(ht_builder *b, int streams);
void ht_build_correct(ht_builder *b, int streams);
void ht_build_one_stream(ht_builder *b, int streams);
/* A whole block beside the one before: what two matrices make of what was normed. */
void ht_build_low_rank(ht_builder *b, int rank, const char *down, const char *up);

/* ---- latent attention (latent.c) ---- */
typedef struct ht_latent {
    int latent;         /* values of what keys and values are made from */
    int plain, rotated; /* of a head's query: what has no position, then what has */
    int values;         /* of a head */
    int query_rank;     /* of the latent row that queries are made from; 0: there is none */
    bool old;           /* attn_kv_b for attn_k_b and attn_v_b */
} ht_latent;
/* A whole block but for ht_build_add, norm first. The shape's heads: one for keys, latent + rotated wide. Of the
 * rotation the tables count, rows `rotated` long; where queries have one of their own, rows of both are as long as a
 * key, the latent part in front still. */
void ht_build_latent_attention(ht_builder *b, const ht_latent *latent, const ht_rotation *rotation, float scale);

/* ---- mixtures of experts (experts.c) ---- */
/* What the file says of its experts; a family changes what its files do not say. */
typedef struct ht_mixture {
    int experts;         /* 0: there are none */
    int features;        /* of each */
    int shared_features; /* of the expert that every token has; 0: there is none */
    int dense_layers;    /* the first layers, which have an ordinary feed-forward block */
    ht_route route;      /* the bias is each layer's own: exp_probs_b */
    ht_activation activation;
    bool ungated;
    bool weighs_input; /* weights are of what experts read */
    int step;          /* every so manieth layer has experts, the last of each `step`; 0, 1: all from dense_layers on */
    /* The family's files always have a bias for choosing; a gate of the shared expert. Others take what there is: of
     * deepseek2's not all with a sigmoid have the bias. */
    bool always_biased, always_gated;
    bool factored; /* what experts give may be scaled: ffn_down_exps.scale */
} ht_mixture;
/* From expert_count, expert_used_count and what else the file has; `function`: where it says nothing of it;
 * `renormalise`: weights add up to one, without it only where the file says so. SiLU. Call it before anything is
 * listed: the model's hparams may have fewer features than a shared expert. */
ht_mixture ht_build_mixture(ht_builder *b, int function, bool renormalise);
/* The same where experts have so many features whatever the file says; 0: as it says. */
ht_mixture ht_build_mixture_of(ht_builder *b, int function, bool renormalise, int features);
/* Has the layer at hand experts, and not an ordinary feed-forward block? */
bool ht_build_is_mixed(const ht_builder *b, const ht_mixture *m);
/* A whole block: norm (NULL: it stands beside the one before), router, choice, experts; then the shared expert beside it,
 * where there is one, by the same norm, with a gate (ffn_gate_inp_shexp) where the file has one. What they gave is added
 * behind post_norm, or NULL. Biases are taken where there are any, and must be there where b->biased says so. */
void ht_build_experts(ht_builder *b, const ht_mixture *m, const char *norm, const char *post_norm);
/* The same of the layer at hand, or where it has no experts a feed-forward block (SiLU). */
void ht_build_mixed(ht_builder *b, const ht_mixture *m, const char *norm);
/* The operators of it, behind ht_build_block(b, HT_BLOCK_EXPERTS, m->features) and a norm. */
void ht_build_router(ht_builder *b, const ht_mixture *m);
void ht_build_chosen(ht_builder *b, const ht_mixture *m);

/* ---- recurrent mixers (mixers.c): a block's operators from its norm to the matrix that gives to the stream ---- */
/* Short convolution of as many channels as the stream is wide: "shortconv". Of a block of so many channels. */
void ht_build_convolution(ht_builder *b, int taps);
/* What keys say of a mixer: "ssm.conv_kernel", "ssm.inner_size", "ssm.state_size", "ssm.time_step_rank" (heads),
 * "ssm.group_count". Zeros after an error. */
typedef struct ht_mixer {
    int taps, inner, state, heads, groups;
} ht_mixer;
ht_mixer ht_build_read_mixer(ht_builder *b);
/* Gated delta net of `groups` key heads and `heads` value heads, which are the block's units; its kind is
 * HT_BLOCK_DELTA_NET where these are as many, else HT_BLOCK_GROUPED_DELTA_NET. Mamba-2: of `groups` groups, its units. */
void ht_build_delta_net(ht_builder *b, const ht_mixer *mixer);
void ht_build_scan(ht_builder *b, const ht_mixer *mixer);
/* Final norm and the matrix to logits (the embedding again where the file has no output.weight). Returns b->status. */
ht_status ht_build_head(ht_builder *b);

/* ---- blocks.c, for operators.c ---- */
/* Makes blocks, axes, groups and signatures of the operators, which are all there, and checks them. */
ht_status ht_build_blocks(ht_builder *b);
/* The first part of ht_model_check: all that can be said without axes. */
ht_status ht_model_check_blocks(const ht_model *model, ht_error *error);

/* ---- rope.c, for operators.c and model.c ---- */
/* Fills rows as ht_model_extend_rope does, and decides nothing. */
ht_status ht_rope_fill(ht_model *model, size_t positions, ht_error *error);
void ht_rope_destroy(struct ht_rope *rope);
int ht_rope_dim(const ht_model *model, const float *table); /* of a row of it; 0: the model has no such table */

#endif
