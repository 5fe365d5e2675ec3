/* A model without a device: hyperparameters, weights, and the list of operators that makes one forward pass.
 *
 * A family (families/llama.c has four, gemma3.c one) is one function that reads its keys and appends operators; nothing after it knows
 * which family it was. Slots name buffers of the executor's pool, each [tokens, width] float32.
 */
#ifndef HT_MODEL_H
#define HT_MODEL_H

#include "gguf/gguf.h"
#include "quant/quant.h"
#include "text/text.h"

typedef enum ht_slot {
    HT_SLOT_NONE = -1,
    HT_SLOT_IDS,    /* int32 [tokens] */
    HT_SLOT_X,      /* residual stream [embedding] */
    HT_SLOT_NORMED, /* [embedding] */
    HT_SLOT_QKV,    /* [(heads + 2 kv_heads) * head_dim]: queries, keys, values */
    HT_SLOT_ATTN,   /* [heads * head_dim] */
    HT_SLOT_DELTA,  /* [embedding]: what a block adds to X */
    HT_SLOT_FFN,    /* [2 * feed_forward]: gate, up */
    HT_SLOT_ACT,    /* [feed_forward] */
    HT_SLOT_LOGITS, /* [vocabulary] */
    HT_SLOT_PICK,   /* int32 [tokens] */
    HT_SLOT_COUNT
} ht_slot;

typedef enum ht_op_kind {
    HT_OP_EMBED,     /* IDS -> X: rows of the embedding matrix, times `scale` */
    HT_OP_NORM,      /* if `aux` is a slot: X += aux (RMS-normalised by post_norm first, if there is one);
                      * then out = rms(X) * weight */
    HT_OP_MATMUL,    /* in -> out: the parts' rows in turn; out[t][r] = sum_c in[t][c] * W[r][c] (+ bias[r]) */
    HT_OP_ROPE,      /* QKV in place: RMS norm of each query and key head (if q_norm), rotation; keys and values
                      * to the KV cache */
    HT_OP_ATTENTION, /* QKV's queries and the KV cache -> ATTN */
    HT_OP_GLU,       /* FFN -> ACT: act(gate) * up */
    HT_OP_ARGMAX,    /* LOGITS -> PICK: id of the largest, the lowest of equals; NaN is never it (-1 if all are) */
    HT_OP_FFN,       /* in -> out: MATMUL gate and up, GLU, MATMUL down (`members`) as one. No model lists it: ht_op_ffn
                      * makes it for devices that take it, whole or a share of its features */
    HT_OP_KINDS
} ht_op_kind;

typedef enum ht_activation { HT_ACT_SILU, HT_ACT_GELU_TANH } ht_activation;

#define HT_MAX_PARTS 3
typedef struct ht_op {
    ht_op_kind kind;
    int layer;     /* -1: outside the layers */
    char name[40]; /* "blk.3.attn_qkv", for plans, traces, errors */
    ht_slot in, aux, out;
    int n_parts;
    ht_matrix parts[HT_MAX_PARTS];   /* EMBED: 1; MATMUL: 1..3 with equal cols */
    const float *bias[HT_MAX_PARTS]; /* MATMUL: [parts[i].rows] or NULL */
    const float *weight;             /* NORM: [embedding] */
    const float *post_norm;          /* NORM: [embedding] or NULL */
    const float *q_norm, *k_norm;    /* ROPE: [head_dim] or NULL */
    const float *rope;               /* ROPE: [context][head_dim/2][2] cos, sin, scaling and magnitude included; shared
                                      * by layers; rows below what ht_model_extend_rope was asked for are there */
    bool rope_halves;                /* pairs (i, i + rope_dim/2), else neighbours (2i, 2i+1) */
    int rope_dim;                    /* first dimensions of a head that are rotated */
    float eps;                       /* NORM, ROPE */
    float scale;                     /* EMBED; ATTENTION: of query.key */
    int window;                      /* ATTENTION: a query sees the `window` last keys, its own included; 0: all */
    ht_activation activation;        /* GLU, FFN */
    const struct ht_op *members;     /* FFN: [3], in the model */
} ht_op;

typedef struct ht_hparams {
    int layers, embedding, heads, kv_heads, head_dim, feed_forward, vocabulary;
    int context_length; /* the model's own */
    int sliding_window;
    float eps;
} ht_hparams;

struct ht_model {
    ht_arena arena;
    ht_gguf *file; /* NULL for shape: models */
    ht_tokenizer *tokenizer;
    const ht_chat_template *chat;
    ht_hparams hparams;
    ht_model_info info;
    ht_op *ops; /* the whole forward pass in order: EMBED, layers, final NORM, lm_head MATMUL, ARGMAX */
    size_t n_ops, cap_ops;
    struct ht_rope *rope;             /* the tables that ROPE operators point into (rope.c) */
    const struct ht_shape *shape;     /* of shape: models, else NULL (shape.c) */
    const ht_type_traits *shape_type; /* of their matrices */
};

size_t ht_slot_width(const ht_hparams *hparams, ht_slot slot); /* floats a token */
size_t ht_op_rows(const ht_op *op);                            /* MATMUL: rows of all parts */
size_t ht_op_cols(const ht_op *op);
int ht_op_part(const ht_op *op, size_t row, size_t *local); /* the part that holds `row`, and its row there */
/* The file's pages of the matrices of a MATMUL or FFN leave memory; they come back when read again. Nothing for other kinds
 * (an EMBED reads its rows where they lie) and for matrices that are in no file. */
void ht_op_drop_pages(const ht_op *op);
/* Fills *ffn if a feed-forward block begins at ops[0] and lies inside ops[0..n): its gate and up are the two parts of one
 * MATMUL, whose FFN slot only the GLU reads, whose ACT slot only the next MATMUL reads. */
bool ht_op_ffn(const ht_op *ops, size_t n, ht_op *ffn);

#define HT_MAX_POSITIONS 131072 /* most positions a rope table holds */
#define HT_ROPE_POSITIONS 4096  /* rows of every rope table that are there once the model is open */
/* Fills the rope tables up to `positions` rows: an engine whose context is past HT_ROPE_POSITIONS calls it once. Any
 * thread, also while others read the rows that were there. HT_ERROR_ARGUMENT past the model's context_length,
 * HT_ERROR_UNSUPPORTED past HT_MAX_POSITIONS. */
ht_status ht_model_extend_rope(ht_model *model, size_t positions, ht_error *error);

/* --- for the family files --- */
typedef struct ht_family ht_family;
struct ht_family {
    /* general.architecture */
    const char *arch;
    /* hparams read -> ops appended */
    ht_status (*build)(const ht_family *family, ht_model *model, ht_error *error);
    bool halves;          /* rotates halves of a head, not neighbours */
    bool head_norms;      /* of queries and keys */
    bool qkv_bias;        /* files must have it */
    bool freq_base_known; /* a file without rope.freq_base is one of its models and means 10000 */
};
enum { HT_FAMILIES_LIKE_LLAMA = 4 };
extern const ht_family ht_families_like_llama[HT_FAMILIES_LIKE_LLAMA], ht_family_gemma3;

#endif
