/* Planning: what operators cost on lanes, and how a pass is best divided among them. The only place that compares devices.
 *
 * A lane's cost table holds measured times of its operators by class, tokens and position (cost.c). From these the solver
 * (solve.c) finds the cheapest way to compute a pass: on one lane, or shared by several in one of three regimes.
 *
 *   TOKENS  the causal cut: each lane takes a range of tokens through all layers; keys and values flow one way.
 *   SHARES  every lane computes the residual stream itself (norms are cheap) and a share of the matrices: heads, features,
 *           rows. A join ends each segment; what segments a layer is cut into is found by an exact dynamic programme.
 *   OWNER   as in the paper: one lane computes what is no matrix multiplication; each matrix is computed by it, by
 *           another lane, or cut between them by rows, by tokens, or both; a join before and after.
 */
#ifndef HT_PLAN_H
#define HT_PLAN_H

#include "base/cores.h"
#include "model/model.h"

#define HT_MAX_LANES 8  /* of an engine */
#define HT_MAX_SUMS 4   /* lanes whose partial sums one norm adds */
#define HT_MAX_SHARES 4 /* different cuts of one matrix that a static lane has graphs for: each holds its weights */
#define HT_MAX_POINTS 16

/* ---- cost ----------------------------------------------------------------------------------------------------------------- */

/* Operators of a layer that are alike, and those around the layers. */
typedef enum ht_class {
    HT_CLASS_EMBED,
    HT_CLASS_NORM, /* of a layer: both take the same */
    HT_CLASS_QKV,
    HT_CLASS_ROPE,
    HT_CLASS_ATTENTION,
    HT_CLASS_OUT,
    HT_CLASS_GATE_UP,
    HT_CLASS_GLU,
    HT_CLASS_DOWN,
    HT_CLASS_FFN, /* the last three as one, where a device takes them so */
    HT_CLASS_LM_HEAD,
    HT_CLASS_ARGMAX,
    HT_CLASSES
} ht_class;
ht_class ht_class_of(const ht_op *op);
const char *ht_class_name(ht_class c);

typedef struct ht_cost_point {
    size_t tokens;
    double seconds;
} ht_cost_point;

typedef struct ht_class_cost {
    /* By tokens, times not falling; the first is of one token; none: not computed. */
    ht_cost_point points[HT_MAX_POINTS];
    size_t n_points;
    bool stepped; /* static lengths: nothing between the points, and nothing behind one of one token */
    /* Of each, what a part of it takes however small it is; less than the lane's launch: that. */
    double fixed;
} ht_class_cost;

typedef struct ht_lane_cost {
    uint32_t devices; /* of the lane, when it was measured */
    /* Tokens of matrices, where lengths are not static, cost as much as the next multiple; 0: any number. */
    size_t granule;
    ht_class_cost classes[HT_CLASSES]; /* one operator, queue not empty */
    double per_key;                    /* attention of a layer: more for each token and position before the pass */
    double launch;                     /* of an operator that has next to nothing to do */
    double join;  /* from an empty queue's next submit to knowing that it is done, less what the work takes */
    ht_sync sync; /* the way of waiting that was found quickest, on the lane's own cores */
    double joins[HT_SYNC_FLAG + 1]; /* what a join takes by each of them; 0: not measured */
    /* What everything takes while other lanes compute, too, over what it takes alone, and what norms take while the others
     * compute norms: [beside one other lane, or more][one token, many]. 0: not measured, as 1. */
    double together[2][2], norms[2][2];
} ht_lane_cost;

/* What a part of an operator takes however small it is. */
double ht_class_fixed(const ht_lane_cost *cost, ht_class c);
/* Seconds of a share (0..1] of an operator for n tokens from `position` on; infinite where the lane does not compute it. */
double ht_class_seconds(const ht_lane_cost *cost, ht_class c, size_t n, double share, size_t position);

/* How many times as long as alone a lane takes in a set of n_lanes that compute at the same time, passes or norms of so many
 * tokens. */
double ht_together(const ht_lane_cost *cost, size_t n_lanes, size_t tokens);
double ht_norms_together(const ht_lane_cost *cost, size_t n_lanes, size_t tokens);

/* ---- what the solver is asked ------------------------------------------------------------------------------------------- */

/* Cuts that a plan may use, as bits: for ablations, and for strategies. */
typedef enum ht_cuts {
    HT_CUT_NONE = 0,
    HT_CUT_LAYER = 1,     /* whole matrices to another lane */
    HT_CUT_ROWS = 2,      /* output features of one matrix */
    HT_CUT_SEQUENCE = 4,  /* tokens of one matrix */
    HT_CUT_HYBRID = 8,    /* both */
    HT_CUT_FEATURES = 16, /* of a whole feed-forward block */
    HT_CUT_HEADS = 32,    /* of a whole attention block */
    HT_CUT_CAUSAL = 64,   /* tokens of the whole pass */
    HT_CUT_ALL = 127
} ht_cuts;

typedef enum ht_regime { HT_REGIME_SOLO, HT_REGIME_TOKENS, HT_REGIME_SHARES, HT_REGIME_OWNER, HT_REGIMES } ht_regime;
const char *ht_regime_name(ht_regime r); /* "single", "causal", "shares", "owner" */

/* What one segment of a layer divides: operators up to a join. */
typedef enum ht_segment {
    HT_SEGMENT_HEADS,         /* NORM, QKV, ROPE, ATTENTION, OUT by heads: partial sums */
    HT_SEGMENT_TOKENS,        /* NORM of all tokens; QKV, ROPE, ATTENTION, OUT by tokens: the causal cut of one block */
    HT_SEGMENT_QKV_ROWS,      /* NORM, QKV by rows */
    HT_SEGMENT_ATTENTION,     /* ROPE, ATTENTION by heads */
    HT_SEGMENT_ATTENTION_OUT, /* and OUT by the same heads: partial sums */
    HT_SEGMENT_OUT_ROWS,      /* OUT by rows */
    HT_SEGMENT_FEATURES,      /* NORM, FFN by features: partial sums */
    HT_SEGMENT_GATE_UP,       /* NORM, GATE_UP, GLU by features */
    HT_SEGMENT_DOWN_ROWS,     /* DOWN by rows */
    HT_SEGMENT_LM_ROWS,       /* final NORM, LM_HEAD by rows */
    HT_SEGMENTS
} ht_segment;
const char *ht_segment_name(ht_segment s);
/* A layer's operators in order; HT_AT_END: behind the last. */
enum {
    HT_AT_NORM,
    HT_AT_QKV,
    HT_AT_ROPE,
    HT_AT_ATTENTION,
    HT_AT_OUT,
    HT_AT_NORM2,
    HT_AT_GATE_UP,
    HT_AT_GLU,
    HT_AT_DOWN,
    HT_AT_END
};
extern const ht_class ht_layer_classes[HT_AT_END];
/* The first operator of the model that is not where the solver expects it, for it knows layers of these nine operators only;
 * NULL: all are. */
const ht_op *ht_plan_misfit(const ht_model *model);
typedef struct ht_segment_span {
    int from, to;   /* operators of a layer: [from, to); the head's: -1 */
    unsigned needs; /* any of these ht_cuts */
} ht_segment_span;
extern const ht_segment_span ht_segment_spans[HT_SEGMENTS];
bool ht_segment_is_partial(ht_segment s); /* its results are sums to be added up */

/* A lane as the solver sees it. */
typedef struct ht_solver_lane {
    const ht_lane_cost *cost;   /* of whole operators, at lengths whose graphs are there */
    const ht_lane_cost *shares; /* of shares of them, whatever is there; NULL: cost */
    double drift[HT_REGIMES];   /* what it takes lately in a regime, over what was predicted: multiplies every time */
    ht_cores cores;             /* lanes that share some are never used together */
    bool lost;                  /* takes no part */
    bool built_only;     /* static graphs: with more than one token it computes shares that were built, and no others */
    bool built_only_one; /* and with one token, too */
    bool may_build;      /* but a few more may be, where that pays */
    bool no_room;        /* but no more: there is no memory for them */
    size_t built[HT_SEGMENTS][HT_MAX_SHARES]; /* units of the shares that were; 0: no more */
    const int *lengths;                       /* static ones, ascending; NULL: any */
    size_t n_lengths;
} ht_solver_lane;

typedef struct ht_problem {
    int layers;
    const ht_solver_lane *lanes; /* in the order in which they take tokens */
    size_t n_lanes;
    unsigned cuts;                   /* ht_cuts; none: a lane alone */
    size_t tokens, wanted, position; /* of the pass; the last `wanted` tokens go through the end of the last layer */
    bool by_operator;                /* OWNER or a lane alone: nothing is planned over a whole layer */
    bool forced;                     /* several lanes, even where one alone would be quicker */
    double stall[HT_REGIMES]; /* what passes in a regime take lately over what their lanes are busy, and over what was
                               * predicted of that: multiplies the whole; 0: 1 */
    double head;              /* likewise of the head; 0: 1 */
    double join;              /* seconds from one lane's having told to another's going on */
    double exchange;          /* and for each byte that one lane writes and another reads: lines go from core to core */
    size_t embedding, qkv, attention, feed_forward; /* widths of what is exchanged, in floats a token */
    /* Does static lane `lane` have graphs for units [0, units) of a segment with so many tokens? NULL: yes. */
    bool (*ready)(const void *context, size_t lane, ht_segment segment, size_t units, size_t tokens);
    const void *ready_context;
    size_t of[HT_SEGMENTS]; /* units that a segment can be divided into; 0: not at all */
    bool tokens_divide;     /* whether several lanes may take tokens of their own and all are wanted (TOKENS) */
} ht_problem;

/* ---- its answer ------------------------------------------------------------------------------------------------------------ */

/* OWNER: what it may cut, and the segments whose units these are. A feed-forward block is cut as one, or its matrices are. */
typedef struct ht_owner_matrix {
    ht_class class;
    ht_segment segment;
} ht_owner_matrix;
#define HT_OWNER_MATRICES 5
extern const ht_owner_matrix ht_owner_matrices[HT_OWNER_MATRICES];

/* OWNER: the other lane computes units [0, units) of `of` for tokens [0, tokens); all else is the owner's. */
typedef struct ht_matrix_cut {
    size_t tokens, units, of;
} ht_matrix_cut;

typedef struct ht_choice {
    ht_regime regime;
    size_t n_lanes;
    size_t lanes[HT_MAX_LANES];  /* by index, ascending; OWNER: the owner, then the other */
    double seconds, head;        /* predicted, the head of one token included; the head of that */
    double alone[HT_MAX_LANES];  /* what each of the problem's lanes alone would take; infinite: it cannot */
    size_t tokens[HT_MAX_LANES]; /* TOKENS: of lanes[i] */
    /* SHARES: segments of a layer, in order; [1]: of the last one, where only `wanted` tokens go to the end */
    ht_segment segments[2][8];
    size_t n_segments[2];
    size_t units[2][HT_SEGMENTS][HT_MAX_LANES]; /* of lanes[i], one lane's behind the other's */
    ht_matrix_cut cuts[2][HT_CLASSES];          /* OWNER: of ht_owner_matrices; [1] as above */
    size_t lookups;                             /* times of operators that were looked up in tables to find it */
} ht_choice;

/* The cheapest way that the cuts allow, by exact search: over lanes, over regimes, over the segments of a layer (a dynamic
 * programme: a join saved between neighbours counts), over where each is divided. n_lanes 0: every lane is lost. */
void ht_solve(const ht_problem *problem, ht_choice *choice);
/* What lane number i of the choice is busy for, without waiting for others. */
double ht_choice_busy(const ht_problem *problem, const ht_choice *choice, size_t i);

#endif
