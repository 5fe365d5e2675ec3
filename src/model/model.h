/* A model without a device: hyperparameters, weights, and the list of operators that makes one forward pass.
 *
 * A family (families/llama.c has a table of those that are alike) is one function that reads its keys and appends
 * operators; nothing after it knows which family it was. Slots are buffers of the executor's pool, [tokens, width]
 * each: the model says which there are.
 */
#ifndef HT_MODEL_H
#define HT_MODEL_H

#include "gguf/gguf.h"
#include "quant/quant.h"
#include "text/chat.h"
#include "text/text.h"

typedef int ht_slot;                           /* its number in ht_model.slots */
enum { HT_SLOT_NONE = -1, HT_MAX_SLOTS = 31 }; /* sets of slots are bits of a word, and one more is for caches */

/* What the executor has to know of a slot. */
typedef enum ht_slot_role {
    HT_ROLE_BETWEEN, /* nothing: values on their way from one operator to the next */
    HT_ROLE_OWN,  /* every lane that computes the pass has all of it: a residual stream, what is normed, a side input */
    HT_ROLE_SUMS, /* what a block adds to a stream; where lanes divide it, each has partial sums of its own */
    /* Each lane that divides an axis computes it for itself (HT_MAP_REPLICATED): what a router says. */
    HT_ROLE_PRIVATE,
    HT_ROLE_IDS,    /* of the pass's tokens */
    HT_ROLE_LOGITS, /* of the head's tokens */
    HT_ROLE_PICK,   /* the id of each one's largest logit */
    HT_ROLES
} ht_slot_role;

typedef enum ht_slot_type { HT_SLOT_FLOAT32, HT_SLOT_INT32 } ht_slot_type;

typedef struct ht_slot_info {
    const char *name; /* "qkv": for errors */
    size_t width;     /* values a token: the most that any operator reads or writes */
    ht_slot_type type;
    ht_slot_role role;
} ht_slot_info;

typedef enum ht_op_kind {
    HT_OP_EMBED, /* in (ids) -> out: rows of the matrix, times `scale`; positions: out += the rows of the tokens' positions */
    HT_OP_NORM,   /* if `aux` is a slot: in += aux + more[..] (their sum RMS-normalised by post_norm first, if there is
                   * one); then out = norm(in) * weight (+ norm_bias): see ht_norm */
    HT_OP_MATMUL, /* in -> out: the parts' rows in turn; out[t][r] = sum_c in[t][c] * W[r][c] (+ bias[r]) */
    HT_OP_ROPE, /* queries, keys, values in place: norm of queries and keys (if q_norm, k_norm), rotation; keys and values to
                      * the KV cache */
    HT_OP_ATTENTION, /* the queries of such a slot and the KV cache -> out, every head's values */
    HT_OP_GLU, /* in (gate, then up) -> out: act(gate) * up; with more[0]: in (gate), up from there; ungated: act(in) */
    HT_OP_ARGMAX, /* logits -> int32: id of the largest, the lowest of equals; NaN is never it (-1 if all are) */
    HT_OP_ROUTE, /* in (a value for each expert) -> out: the weight of each expert that is chosen, 0 of all others (route) */
    /* in (normed), more[0] (weights, as ROUTE leaves them) -> out: sum over experts e of weight[e] * (down_e(act(gate_e x) *
     * up_e x)). parts: gate, up, down, or where there is no gate up, down; each has the experts' rows one expert after
     * another, rows / experts of each. Biases likewise, or NULL. weighs_input: sum over e of down_e(act(weight[e] * gate_e
     * x) * weight[e] * up_e x), which has no biases. */
    HT_OP_EXPERTS,
    /* in (b, c, x of `width` channels each), state -> out: c * conv(b * x): out[t][i] = c[t][i] * sum_k weight[k *
     * width + i] * (b * x)[t - taps + 1 + k][i]. Liquid AI's short convolution, which has no bias. State: (b * x) of
     * the last taps - 1 tokens, the oldest first: [taps - 1][width]. */
    HT_OP_CONV,
    HT_OP_DELTA_NET, /* gated delta rule; see ht_recurrence */
    HT_OP_SCAN,      /* Mamba-2's selective state space; see ht_recurrence */
    /* in [heads][head_dim] -> out [heads][rows + rest]: head h's own matrix (its rows / heads rows of parts[0]) times
     * its first `cols` values; its next `rest` values are copied behind. n_copied values are copied behind the last
     * head: those of more[0] from more_first on, or without it those behind the heads of `in`. */
    HT_OP_HEADS,
    HT_OP_MIX, /* streams and side inputs of a token, of each other: see ht_mix */
    HT_OP_FFN, /* in -> out: MATMUL gate and up, GLU, MATMUL down (`members`) as one. No model lists it: ht_op_ffn
                      * makes it for devices that take it, whole or a share of its features */
    HT_OP_KINDS
} ht_op_kind;

typedef enum ht_activation {
    HT_ACT_SILU,
    HT_ACT_GELU_TANH,
    HT_ACT_GELU,  /* with the error function */
    HT_ACT_RELU2, /* max(x, 0)^2 */
    HT_ACT_SIGMOID,
    /* gpt-oss: g = min(gate, 7), u = clamp(up, -7, 7): g * sigmoid(1.702 g) * (u + 1) */
    HT_ACT_CLAMPED
} ht_activation;

/* What a NORM does to a row. */
typedef enum ht_norm {
    HT_NORM_RMS,
    HT_NORM_LAYER, /* mean taken off, divided by the standard deviation; times weight, plus norm_bias */
    HT_NORM_NONE   /* a copy: families that norm only what a block gave */
} ht_norm;

#define HT_MAX_EXPERTS 1024
/* ROUTE: who is chosen, and with what weight. p = the function of each expert's value; the `used` experts with the
 * largest p + bias are chosen (the lowest number of equals; a NaN never), among those of the `groups_used` groups of
 * experts in which the two largest of these sum up to most; their weights are p, over their sum (2^-14 at least) where
 * `renormalise` is set, times `scale`. */
typedef struct ht_route {
    enum {
        HT_ROUTE_SOFTMAX,
        HT_ROUTE_SIGMOID,
        HT_ROUTE_SOFTMAX_CHOSEN /* softmax over the values of those that are chosen */
    } function;
    int used;
    int groups, groups_used; /* 0: no groups */
    const float *bias;       /* [experts] or NULL: for choosing only */
    bool renormalise;
    float scale;
    const float *factors; /* [experts] or NULL: what each one's weight is multiplied by at the end */
} ht_route;

/* DELTA_NET and SCAN: what a recurrent mixer does between its matrices. heads, kv_heads: value heads, and key heads
 * (groups, of SCAN).
 *
 * State: of each unit (value head of DELTA_NET, group of SCAN), one behind another: what its channels of the convolution
 * were at the last taps - 1 tokens, the oldest first, [taps - 1][channels of the unit]; then of each of its heads S^T,
 * [key_dim][head_dim]. Channels of a unit: q, k, v; x, B, C. Value heads that use one key head have q and k each for
 * itself: so a share of heads has nothing in common with another.
 *
 * DELTA_NET (Yang et al., "Gated Delta Networks", 2024): in q, k [kv_heads][key_dim] each; more[0] v, z
 * [heads][head_dim] each, beta, alpha [heads] each. q, k, v through a causal convolution over the last `taps` tokens
 * (no bias) and SiLU; q and k of each head over their length (x / sqrt(sum x^2 + eps)), q times 1 / sqrt(key_dim).
 * Value head h uses key head h % kv_heads (repeated: h / (heads / kv_heads)). g = exp(a[h] * softplus(alpha +
 * dt_bias[h])), b = sigmoid(beta): S = g S; S += b (v - S k) k^T; o = S q. Out: RMS norm of o over its head, times
 * norm, times SiLU(z).
 *
 * SCAN (Dao and Gu, "Transformers are SSMs", 2024): in z, x [heads][head_dim] each, dt [heads]; more[0] B, C
 * [kv_heads][key_dim] each. x, B, C through the convolution (with conv_bias, where there is one) and SiLU. Head h uses
 * group h / (heads / kv_heads). d = softplus(dt + dt_bias[h]): S = exp(a[h] d) S + d x B^T; y = S C + skip[h] x. Out: y
 * * SiLU(z), RMS-normed over each of kv_heads equal parts of all channels, times norm. */
typedef struct ht_recurrence {
    int key_dim, taps;
    bool repeated; /* DELTA_NET */
    /* [taps][channels], channels as they lie in the file: q, k, v; x, B, C */
    const float *conv, *conv_bias;   /* conv_bias: SCAN; or NULL */
    const float *a, *dt_bias, *skip; /* [heads] */
    const float *norm;               /* DELTA_NET: [head_dim]; SCAN: [heads * head_dim] */
} ht_recurrence;

/* MIX, of rows `width` values wide. AltUp (Baykal et al., "Alternating Updates for Efficient Transformers", 2023) keeps
 * S, some `streams`, of which layers see number 0 only. For a row v the router says r = tanh(router (rms(v) *
 * router_norm) / width).
 *
 * SIDE: in, streams rows; out, streams rows: each row of out += rms(row of in) * weight.
 * BEGIN: in x; more[0], the other rows: S = x and these, made as long as x.
 * PREDICT: in f; more[0] S, in place: f is added to all rows but S[0]; r of S[0]; S[i] += sum_j coefs[i][j] . r * S[j];
 *   out: S[0].
 * CORRECT: in a; more[0] S, in place: r of a; S[i] += (a - S_0) * (1 + coefs[i] . r), of S_0 as it was; out: S[0] *
 * scale. GATHER: in f; more[0] S: out, all rows but the first, plus f. END: in, streams - 1 rows; more[0] S: out, the
 * mean of S[0] and these, made as long as S[0]. */
typedef struct ht_mix {
    enum { HT_MIX_SIDE, HT_MIX_BEGIN, HT_MIX_PREDICT, HT_MIX_CORRECT, HT_MIX_GATHER, HT_MIX_END } function;
    int streams;
    const float *router_norm, *router; /* [width]; [streams][width] */
    const float *coefs;                /* PREDICT: [streams][streams][streams]; CORRECT: [streams][streams] */
    const float *scale;                /* CORRECT: [width] */
} ht_mix;
enum { HT_MAX_MIXED = 8 }; /* streams; SIDE has any number */

#define HT_MAX_PARTS 4
#define HT_MAX_MORE 1
#define HT_MAX_ADDED (1 + HT_MAX_MORE) /* slots of sums that one NORM adds */
typedef struct ht_op {
    ht_op_kind kind;
    int layer;     /* -1: outside the layers */
    int block;     /* of the model, that it belongs to; -1: of none (EMBED) */
    int signature; /* of the model's: operators of one signature take the same time */
    int site;      /* the same place of blocks that are alike (ht_model.n_sites of them) */
    int cache; /* ROPE: the cache that it writes; ATTENTION: that it reads; what keeps a state: its own; others: -1 */
    char name[40]; /* "blk.3.attn_qkv", for plans, traces, errors */
    ht_slot in, aux, out;
    int n_more;
    /* NORM: of sums, besides `aux`; GLU, HEADS: a side input, from its value `more_first` on; EXPERTS, DELTA_NET, SCAN: what
     * they read besides */
    ht_slot more[HT_MAX_MORE];
    size_t more_first, n_copied;
    int n_parts;
    ht_matrix parts[HT_MAX_PARTS];   /* EMBED: 1; MATMUL: 1..3 with equal cols */
    const float *bias[HT_MAX_PARTS]; /* MATMUL: [parts[i].rows] or NULL */
    const float *weight;             /* NORM: [width of the stream]; CONV: [taps][width] */
    const float *norm_bias;          /* NORM: [width of the stream] or NULL */
    ht_norm norm;                    /* NORM; ROPE, of queries and keys, which have no bias */
    ht_route route;           /* ROUTE; EXPERTS: what made its weights, of which `used` says most (0: any number) */
    ht_recurrence recurrence; /* DELTA_NET, SCAN */
    int experts;              /* ROUTE, EXPERTS */
    int taps;                 /* CONV */
    int rest;                 /* HEADS */
    const float *post_norm;   /* NORM: the same, or NULL */
    /* NORM: of slot number k of those that it adds, an RMS norm of its own, before post_norm of their sum; or NULL */
    const float *each_norm[HT_MAX_ADDED];
    float post_eps;               /* NORM: of these and of post_norm; 0: eps */
    float stream_scale;           /* NORM: what the stream is multiplied by once all is added; 0: nothing */
    bool replaces;                /* NORM: the stream is what is added and nothing of what it was */
    bool adds_normed;             /* NORM: adds what slot `out` holds, too, as it is */
    ht_mix mix;                   /* MIX */
    const float *q_norm, *k_norm; /* ROPE: [head_dim] or NULL; norm_heads, norm_whole: [heads][head_dim] */
    /* ROPE. norm_whole: of all heads as one row (HT_BLOCK_WHOLE_ROW_ATTENTION); norm_heads: each head has weights of
     * its own; norm_dim: of the first values of a head only, with so many weights; 0: of all. v_norm: an RMS norm
     * without weights of each head's values, too. */
    bool norm_whole, norm_heads, v_norm;
    bool norm_after; /* ROPE: norms of heads follow the rotation (Hunyuan) */
    int norm_dim;
    /* ROPE: [context][rope_dim/2][2] cos, sin, scaling and magnitude included; shared by layers; rows below what
     * ht_model_extend_rope was asked for are there */
    const float *rope;
    bool rope_halves; /* pairs (i, i + rope_dim/2), else neighbours (2i, 2i+1) */
    int rope_dim;     /* dimensions of a head that are rotated, from rope_first on; 0: none, and no table */
    int rope_first;
    const float *rope_queries; /* ROPE: of queries, where these have a table of their own; NULL: `rope` */
    /* ROPE, ATTENTION: values are the first value_dim values of a key, and kept with it: no values in the slot, none in
     * the cache. 0: they are others. What ATTENTION gives for each head is head_dim wide all the same. */
    int value_dim;
    const float *sinks; /* ATTENTION: [heads] logits that take part in each softmax, and have no value; or NULL */
    const float *
        slopes; /* ATTENTION: [heads]: slope * (key's position - query's) is added to a score that is capped; or NULL */
    float soft_cap; /* ATTENTION (of scaled scores), ARGMAX (of the logits, in place): cap * tanh(x / cap); 0: none */
    int attention_chunk; /* ATTENTION: a query sees keys of its own run of so many positions; 0: of all. No window, then */
    float eps;           /* NORM, ROPE */
    float scale;         /* EMBED; ATTENTION: of query.key */
    int heads, kv_heads, head_dim; /* ROPE, ATTENTION; 0: the model's */
    int width;  /* NORM: of the stream; GLU, EXPERTS: features; CONV: channels; ARGMAX: logits; 0: the model's */
    int window; /* ATTENTION: a query sees the `window` last keys, its own included; 0: all */
    /* ATTENTION: a query sees later keys, too: all up to the last token of the submit, or those `window` / 2 to either
     * side. The submit's tokens are the last of their text. No chunk and no slopes, then. */
    bool both_ways;
    ht_activation activation; /* GLU, FFN, EXPERTS */
    bool positions;           /* EMBED: learned positions */
    bool ungated;             /* GLU, EXPERTS: out = act(in): there is no other factor */
    /* GLU: of a row of gates only what is above mean + sparsity * deviation (by n - 1) goes on: act(max(0, gate -
     * that)). 0: all. Li et al., "Spark Transformer" (2025). */
    float sparsity;
    /* ROPE, ATTENTION: keys and values are an earlier layer's, in `cache`: the slot has queries only, and ROPE keeps
     * nothing. */
    bool shared;
    bool weighs_input;           /* EXPERTS: weights are of what experts read, not of what they give (Llama 4) */
    const struct ht_op *members; /* FFN: [3], in the model */
} ht_op;

/* ---- blocks
 * ------------------------------------------------------------------------------------------------------------- */

/* A model is EMBED (of side inputs, too), blocks and a head, which is a block, too. A block is some operators that
 * follow each other, from the norm of what it reads to what it adds to a residual stream, and says how it can be
 * divided: along which axes. One that stands beside another has no norm: it reads what the other's norm left, and
 * the next norm adds what both gave. Who divides work knows blocks, axes and what operators of a signature cost, and
 * nothing else of a model. Kinds are rows of a table (blocks.c). */
typedef enum ht_block_kind {
    HT_BLOCK_ATTENTION,
    HT_BLOCK_FEED_FORWARD,
    HT_BLOCK_SPARSE_FEED_FORWARD, /* which gates go on depends on all of them (ht_op.sparsity) */
    HT_BLOCK_LOW_RANK,            /* two matrices */
    HT_BLOCK_MIXED_ATTENTION,     /* streams are mixed in front of it */
    HT_BLOCK_MIXED_FEED_FORWARD,
    HT_BLOCK_MIXED_END,           /* streams become one */
    HT_BLOCK_BOTH_WAYS_ATTENTION, /* tokens see later ones: all keys and values are there first (ht_op.both_ways) */
    HT_BLOCK_WHOLE_ROW_ATTENTION, /* queries and keys are normed as whole rows (ht_op.norm_whole) */
    HT_BLOCK_GATED_ATTENTION,     /* what heads give times act(gate) */
    HT_BLOCK_LATENT_ATTENTION,    /* multi-head latent attention: keys and values in one latent row */
    HT_BLOCK_LOW_RANK_ATTENTION,  /* the same; its queries come from a latent row, too */
    HT_BLOCK_EXPERTS,
    HT_BLOCK_NORMED_EXPERTS, /* the router has a norm of its own */
    HT_BLOCK_CONVOLUTION,
    HT_BLOCK_DELTA_NET,         /* as many key heads as value heads */
    HT_BLOCK_GROUPED_DELTA_NET, /* fewer */
    HT_BLOCK_SCAN,
    HT_BLOCK_STREAM_NORM, /* a stream normed to another */
    HT_BLOCK_HEAD,        /* final norm, output matrix, the greedy choice */
    HT_BLOCK_KINDS
} ht_block_kind;

enum { HT_MAX_BLOCK_OPS = 12 };

/* What an axis divides. */
typedef enum ht_axis_kind {
    HT_AXIS_TOKENS,   /* of a pass */
    HT_AXIS_HEADS,    /* key-value heads, each with its query heads */
    HT_AXIS_FEATURES, /* hidden features of a feed-forward block */
    HT_AXIS_ROWS,     /* of one matrix */
    HT_AXIS_QUERIES,  /* query heads, of which some use one key-value head */
    HT_AXIS_EXPERTS,
    HT_AXIS_CHANNELS, /* of a recurrent mixer */
    HT_AXIS_KINDS
} ht_axis_kind;

/* What one part leaves at the end of the axis. */
typedef enum ht_axis_result {
    HT_RESULT_ROWS,    /* whole rows of its tokens */
    HT_RESULT_SUMS,    /* for every token a sum of its own, to be added to the others' */
    HT_RESULT_COLUMNS, /* its columns of every token's row */
} ht_axis_result;

/* What one part has to do with an operator of the axis. */
typedef enum ht_map {
    HT_MAP_EVERY,      /* whoever computes the pass does all of it, part or no part: norms of the residual stream */
    HT_MAP_REPLICATED, /* whoever has a part of the axis computes all of it, for itself */
    HT_MAP_SHARE,      /* the same share of the rows of each of its matrices, or of its heads or features */
    HT_MAP_COLUMNS,    /* that share of the columns of its matrix: of what is summed over */
    HT_MAP_ROWS,       /* rows of its matrices, taken as one list */
    HT_MAP_TERMS,      /* that share of what it adds up, each term whole: experts */
    /* The same share of the first matrix's rows, or of its heads. What a group of units has in common (the other
     * matrices' rows, keys, values) belongs to whoever has the group's first unit. Who has others of the group needs
     * them of that part. */
    HT_MAP_GROUPS
} ht_map;

typedef struct ht_axis {
    ht_axis_kind kind;
    ht_axis_result result;
    size_t from, to; /* operators of the block: [from, to) */
    bool ordered;    /* a later part needs the keys and values, or the state, that an earlier one writes */
    ht_map maps[HT_MAX_BLOCK_OPS]; /* of the block's operators, by their numbers in it */
    size_t extent;                 /* heads, features, rows; TOKENS: 0; 0 else: it cannot be divided */
    size_t least, most;            /* parts are multiples of a power of two times `least`, `most` at the most */
    bool exact;                    /* of that and no remainder */
    size_t widths;                 /* axes of one block with the same number are divided alike: the first of them */
    size_t statistics;             /* floats a token that parts exchange inside; 0: none */
    /* QUERIES: elements of a group, in the order of their heads; others: 0. What groups have in common is there once
     * operators [from, ready) are done; `lent`: floats a token of one group that another part reads from then on. Of
     * the time of operator number i of the block the share common[i] goes with groups, the rest with elements. */
    size_t group, ready, lent;
    double common[HT_MAX_BLOCK_OPS];
    size_t leaves; /* floats a token that others read behind its end */
    /* What of it one device may compute for another, which does the rest of the block: operators of the block [hand_from,
     * hand_to); none: nothing. `handed`: floats a token that move for that. */
    size_t hand_from, hand_to, handed;
} ht_axis;

typedef struct ht_block {
    ht_block_kind kind;
    int layer;       /* -1: outside the layers */
    size_t first, n; /* operators of the model: [first, first + n) */
    size_t units;    /* key-value heads; hidden features; rows of the output matrix */
    /* The model's axes [first_axis, first_axis + n_axes); blocks of one signature have the same. */
    size_t first_axis, n_axes;
    int signature; /* blocks of one signature are alike: so are their operators, one by one */
    int group;     /* of the model's */
    /* Operators [fused_from, fused_to) of the block as one, for devices that take them so; NULL: there is no such
     * operator. */
    const ht_op *fused;
    size_t fused_from, fused_to;
} ht_block;

/* Blocks of one signature for which a pass does the same. */
typedef struct ht_group {
    size_t block; /* the first of them */
    size_t count;
    size_t tail; /* operators [tail, n) of each are for wanted tokens only */
    bool last;   /* what it leaves the head's norm adds */
    bool head;
} ht_group;

/* Operators of one signature take the same time, wherever they stand. */
typedef struct ht_signature {
    const char *name; /* "matmul 576: 1536 q4_1, 1536 q4_1": kind, shape, types, window */
    const ht_op *op;  /* the first of them */
    size_t count;     /* of them, those of the tail left out unless all are there */
    bool head;        /* all are in the head, of few tokens */
} ht_signature;

/* Layers may differ in heads and features: these are the most that any has, and ht_op_shape tells an operator's own. */
typedef struct ht_hparams {
    int layers, embedding, heads, kv_heads, head_dim, feed_forward, vocabulary;
    int context_length; /* the model's own */
    int sliding_window;
    float eps;
    int group; /* most query heads of a key-value head; 0: heads / kv_heads */
} ht_hparams;

struct ht_model {
    ht_arena arena;
    ht_gguf *file;            /* NULL for shape: models */
    ht_tokenizer *tokenizer;  /* NULL: it takes token ids only */
    const char *no_tokenizer; /* why a file's has none; NULL: it has, or there is no file */
    ht_chat chat;             /* none of a model without a file */
    ht_hparams hparams;
    ht_pooling pooling; /* DEFAULT: one that is not known */
    /* Tokens see later ones: a text is one pass, and nothing can follow it. It makes embeddings and no text. */
    bool both_ways;
    /* What an embedding goes through once it is pooled, one behind the other: [n][embedding], [embedding][n]. */
    ht_matrix dense[2];
    bool has_dense;
    float
        hidden_scale; /* what the final norm leaves is that many times the hidden state: the scale of logits; 0: once */
    ht_model_info info;
    /* The whole forward pass in order: what every lane computes of ids alone (EMBEDs, and what is made of them), layers,
     * final NORM, lm_head MATMUL, ARGMAX. */
    ht_op *ops;
    size_t n_ops, cap_ops;
    ht_slot_info slots[HT_MAX_SLOTS]; /* in the order in which operators name them */
    int n_slots;
    /* What follows is made of the operators once they are all there (blocks.c). */
    ht_block *blocks; /* they tile the operators behind those of ids alone; the head is the last one */
    size_t n_blocks, cap_blocks;
    ht_axis *axes;
    size_t n_axes, cap_axes;
    ht_group *groups; /* in the order of their first blocks; the head's is the last */
    size_t n_groups, cap_groups;
    ht_signature *signatures;
    size_t n_signatures, cap_signatures;
    ht_op *fused;                  /* [n_blocks]: what ht_block.fused points to */
    size_t n_block_kinds, n_sites; /* different signatures of blocks, and places in them */
    size_t n_caches;
    size_t most_added; /* slots of sums that a norm adds */
    size_t
        tail; /* first operator behind the last one that writes keys and values or a state: from here on, wanted tokens */
    struct ht_rope *rope;             /* the tables that ROPE operators point into (rope.c) */
    const struct ht_shape *shape;     /* of shape: models, else NULL (shape.c) */
    const ht_type_traits *shape_type; /* of their matrices */
};

/* Checks what the builder has made: blocks tile the operators; a slot is written before it is read, and so is a cache;
 * the parts of every axis cover each row, column and head exactly once. HT_ERROR_FORMAT names the operator or block at
 * fault. */
ht_status ht_model_check(const ht_model *model, ht_error *error);
/* Slots that an operator reads and writes, as bits; bit HT_MAX_SLOTS: a cache. */
uint32_t ht_op_reads(const ht_op *op);
uint32_t ht_op_writes(const ht_op *op);
/* Slot number k of those of sums that a NORM adds, which are ht_op_added. */
static inline ht_slot ht_op_addend(const ht_op *op, size_t k) {
    return k ? op->more[k - 1] : op->aux;
}
static inline size_t ht_op_added(const ht_op *op) {
    return op->kind == HT_OP_NORM && op->aux != HT_SLOT_NONE ? 1 + (size_t)op->n_more : 0;
}
/* Of a NORM: does it write its stream? And does it more than adding, and norming the sum? */
static inline bool ht_norm_writes_stream(const ht_op *op) {
    return op->aux != HT_SLOT_NONE || op->replaces || op->adds_normed || op->stream_scale != 0.0f;
}
static inline bool ht_norm_is_special(const ht_op *op) {
    return op->each_norm[0] || op->each_norm[1] || op->post_eps != 0.0f || op->stream_scale != 0.0f || op->replaces ||
           op->adds_normed;
}
/* Does a MIX write the streams that it reads? */
static inline bool ht_mix_in_place(const ht_op *op) {
    return op->kind == HT_OP_MIX && (op->mix.function == HT_MIX_PREDICT || op->mix.function == HT_MIX_CORRECT);
}
#define HT_BIT_KV (1u << HT_MAX_SLOTS)
/* Does it matter to the operator which sequence a token is of, and where in it? */
static inline bool ht_op_sees_sequences(const ht_op *op) {
    return ((ht_op_reads(op) | ht_op_writes(op)) & HT_BIT_KV) || op->positions || op->kind == HT_OP_ROPE;
}
/* The slots of a role, as bits; and the first of them, HT_SLOT_NONE where there is none. */
uint32_t ht_model_slots(const ht_model *model, ht_slot_role role);
ht_slot ht_model_slot(const ht_model *model, ht_slot_role role);
/* The block of an operator of the model, its own or (fused) one that stands for some; NULL: it is in none. */
static inline const ht_block *ht_op_block(const ht_model *model, const ht_op *op) {
    return op->block < 0 ? NULL : &model->blocks[op->block];
}
/* Its number in the block: of a fused one, of the first that it stands for. */
static inline size_t ht_op_place(const ht_model *model, const ht_op *op) {
    return (size_t)((op->kind == HT_OP_FFN ? op->members : op) - model->ops) - model->blocks[op->block].first;
}
/* A piece of an axis: which rows or columns of a matrix, or which heads or features, its elements [begin, end) are. */
typedef struct ht_axis_piece {
    int part; /* of the operator's matrices; it has none: -1, of several things that heads have -1, -2, ... */
    bool columns;
    size_t begin, end, of;
} ht_axis_piece;
/* Fills pieces[HT_MAX_PARTS] for operator number `place` of the block; returns how many there are: 0 where the axis does not
 * divide it. */
size_t ht_axis_pieces(const ht_model *model, const ht_block *block, const ht_axis *axis, size_t place, size_t begin,
                      size_t end, ht_axis_piece *pieces);
/* Of groups of `group` elements each, how many begin before element `at`. */
static inline size_t ht_groups_before(size_t group, size_t at) {
    return (at + group - 1) / group;
}
/* Does another part than the one that has elements [begin, at) and no more begin within a group whose first element
 * that is? */
static inline bool ht_group_goes_on(size_t group, size_t begin, size_t at) {
    return group && at % group != 0 && at / group * group >= begin;
}
/* The share of the time of operator number `place` of the block that n of `of` units from `begin` on take, `of`
 * units being all elements of the axis. */
double ht_axis_share(const ht_axis *axis, size_t place, size_t of, size_t begin, size_t n);

/* The model's figures with the operator's own in place of the most. */
ht_hparams ht_op_shape(const ht_op *op, const ht_hparams *model);
/* Values a token that it reads from slot `in` (a NORM from `aux`, too), and writes to `out`. */
size_t ht_op_in_width(const ht_op *op, const ht_hparams *model);
size_t ht_op_out_width(const ht_op *op, const ht_hparams *model);
/* Values a token that it reads from slot more[0], where that is not one of sums; else 0. */
size_t ht_op_more_width(const ht_op *op, const ht_hparams *model);
/* Floats of the state that it keeps from one pass to the next, besides keys and values; 0: none. A pass that begins at
 * position 0 begins with zeros. */
size_t ht_op_state(const ht_op *op, const ht_hparams *model);
/* Units of the state: channels of CONV, value heads of DELTA_NET, groups of SCAN. Shares are counted in these. */
size_t ht_op_state_units(const ht_op *op, const ht_hparams *model);
/* Does any operator keep a state? Then what a session has computed cannot be cut back. */
bool ht_model_has_state(const ht_model *model);
size_t ht_op_rows(const ht_op *op); /* MATMUL: rows of all parts */
size_t ht_op_cols(const ht_op *op);
/* Multiplications of its weights for one token; of EXPERTS by those that are used. 0: it has no matrices, or reads rows
 * (EMBED). */
double ht_op_products(const ht_op *op);
/* Columns of what it sums over: MATMUL: of its matrices; EXPERTS: of each expert's last one, its features. */
size_t ht_op_summed(const ht_op *op);
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
 * HT_ERROR_UNSUPPORTED past HT_MAX_POSITIONS, and of
 * a model that rotates longer contexts by other frequencies, where an earlier call was for those on the other side. */
ht_status ht_model_extend_rope(ht_model *model, size_t positions, ht_error *error);
/* HT_ERROR_UNSUPPORTED, with the reason, of a model that takes token ids only. */
ht_status ht_model_need_tokenizer(const ht_model *model, ht_error *error);

/* --- for the family files --- */
typedef struct ht_family ht_family;
typedef struct ht_traits ht_traits;
struct ht_family {
    /* general.architecture */
    const char *arch;
    bool layer_norm;     /* its epsilon is attention.layer_norm_epsilon */
    bool experts;        /* files may have some */
    bool latent;         /* attention.key_length and value_length are those of what is cached */
    bool heads_differ;   /* layers may have other numbers of key-value heads, or none */
    bool attention_free; /* no layer has heads or a feed-forward block, whatever the file says of these */
    /* hparams read -> ops appended */
    ht_status (*build)(const ht_family *family, ht_model *model, ht_error *error);
    bool halves;             /* of families/mixtures.c: rotates halves of a head, not neighbours */
    const ht_traits *traits; /* of the table in families/llama.c */
};
extern const ht_family ht_families_like_llama[], ht_families_latent[4], ht_family_llama4, ht_family_gpt_oss,
    ht_families_granite[2], ht_families_lfm2[2], ht_families_qwen35[3], ht_family_gemma4, ht_family_gemma3n,
    ht_families_nemotron_h[2], ht_family_muse_glimmer, ht_family_mamba2;
extern const size_t ht_n_families_like_llama;
const ht_family *ht_family_with_experts(size_t i); /* number i of families/mixtures.c; NULL: there are fewer */

#endif
