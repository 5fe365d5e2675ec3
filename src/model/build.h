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
/* "shape:NAME[:TYPE]" -> row and type (Q4_0 unless said). Errors name the shapes or the type. */
ht_status ht_shape_find(const char *spec, const ht_shape **shape, const ht_type_traits **type, ht_error *error);

enum { HT_BUILD_SUMS = 4 };
/* What a block gave, in a slot of sums: the next norm of the stream is to add it. */
typedef struct ht_given {
    bool waits;
    ht_slot stream;
    const float *post_norm; /* or NULL */
} ht_given;

typedef struct ht_builder {
    ht_model *model;
    ht_error *error;
    ht_status status;
    int layer;               /* -1: outside the layers */
    int caches;              /* that have been written so far */
    const ht_hparams *shape; /* of what follows; NULL: the model's */
    const char *stream;      /* that what follows reads and adds to; NULL: "x" */
    size_t normed;           /* values of what was normed last */
    ht_given given[HT_BUILD_SUMS];
} ht_builder;

ht_builder ht_build_begin(ht_model *model, ht_error *error);
/* Keeps the first error. The text gets the model's path in front. */
ht_status ht_build_fail(ht_builder *b, ht_status status, const char *format, ...) HT_PRINTF(3, 4);

/* ---- keys: "<arch>.<key>" of the file; the default when it is absent (always so for shape: models) ---- */
int64_t ht_build_int(ht_builder *b, const char *key, int64_t min, int64_t max, int64_t absent);
float ht_build_float(ht_builder *b, const char *key, float absent);
bool ht_build_has(const ht_builder *b, const char *key);

/* ---- tensors ---- */
/* `name`.weight, [rows, cols]; of layer b->layer if that is not -1. */
ht_matrix ht_build_matrix(ht_builder *b, const char *name, size_t rows, size_t cols);
/* `name` (suffix included), [n] floats in the model's arena, 64-byte aligned; if it is absent: an error if required,
 * else NULL. shape: models: `made_up` n times if required, else NULL. */
const float *ht_build_vector(ht_builder *b, const char *name, size_t n, bool required, float made_up);

/* ---- rope ---- */
/* rope.freq_base; 10000 if absent, with a warning unless `known` says that real files mean that. */
float ht_build_freq_base(ht_builder *b, bool known);
/* A cos/sin table for the file's rope.dimension_count; two at most. scaled: its rope.scaling keys and
 * rope_freqs.weight apply. Its rows are as long as the model's head_dim says: layers with other heads have none yet. */
const float *ht_build_rope_table(ht_builder *b, float freq_base, bool scaled);

/* ---- slots ---- */
/* The slot of this name: the one that was declared, else a new one. It gets as wide as the widest of its
 * declarations; roles do not differ. HT_SLOT_NONE after an error. The caller keeps *name. */
ht_slot ht_build_slot(ht_builder *b, const char *name, ht_slot_role role, size_t width);

/* ---- operators, in the order of a forward pass ---- */
/* token_embd, to the stream. More of them may follow for other streams and side inputs: rows of another matrix
 * `name`, of `width` values, to the slot of that name, which every lane has. The caller keeps *name. */
void ht_build_embed(ht_builder *b, float scale);
void ht_build_side(ht_builder *b, const char *name, size_t width, float scale);
void ht_build_layer(ht_builder *b, int layer); /* what follows belongs to it */
/* What follows has these heads and features, no more than the model's hparams, which say the most; NULL: as many as these. The
 * caller keeps *shape. */
void ht_build_shape(ht_builder *b, const ht_hparams *shape);
/* A block of this kind begins, of so many key-value heads or hidden features: what follows, up to the next block or the head. */
void ht_build_block(ht_builder *b, ht_block_kind kind, int units);
/* A block that begins without it stands beside the one before: it reads what that one's norm left. Norms add what
 * blocks gave to their stream since its last norm: HT_MAX_ADDED of them at most. */
void ht_build_norm(ht_builder *b, const char *name);
/* What follows reads and adds to the residual stream of this name, no wider than the embedding; NULL: to the first,
 * which ht_build_embed wrote. The caller keeps *name. */
void ht_build_stream(ht_builder *b, const char *name);
/* The next norm of the stream adds what the block gave first, after an RMS norm of its own (post_norm; NULL: none).
 * Of blocks beside each other the last one may have that: it is of what they gave together. */
void ht_build_add(ht_builder *b, const char *post_norm);

typedef enum ht_bias { HT_BIAS_OPTIONAL, HT_BIAS_REQUIRED } ht_bias;
void ht_build_qkv(ht_builder *b, ht_bias bias);

typedef struct ht_rotation {
    const float *table;
    bool halves;                 /* as in ht_op */
    const char *q_norm, *k_norm; /* NULL: none */
} ht_rotation;
void ht_build_rope(ht_builder *b, const ht_rotation *rotation);
void ht_build_attention(ht_builder *b, float scale, int window); /* scale 0: 1/sqrt(head_dim) */
void ht_build_attention_output(ht_builder *b);
void ht_build_gate_up(ht_builder *b);
void ht_build_glu(ht_builder *b, ht_activation activation);
void ht_build_down(ht_builder *b);
/* A feed-forward block whose other factor is a side input, from its value `first` on: matrix `inp_gate`, act(gate) *
 * side, matrix `proj`. */
void ht_build_side_gate(ht_builder *b);
void ht_build_side_glu(ht_builder *b, ht_activation activation, const char *side, size_t first);
void ht_build_side_output(ht_builder *b);
/* Final norm and the matrix to logits (the embedding again where the file has no output.weight). Returns b->status. */
ht_status ht_build_head(ht_builder *b);

/* ---- blocks.c, for operators.c ---- */
/* Makes blocks, axes, groups and signatures of the operators, which are all there, and checks them. */
ht_status ht_build_blocks(ht_builder *b);
/* The first part of ht_model_check: all that can be said without axes. */
ht_status ht_model_check_blocks(const ht_model *model, ht_error *error);

/* ---- rope.c, for operators.c and model.c ---- */
void ht_rope_destroy(struct ht_rope *rope);
int ht_rope_dim(const ht_model *model); /* 0: no table yet */

#endif
