/* Blocks of a model: along which axes each kind can be divided, which are alike, and what that makes of a pass. A new
 * kind is a row of the table. */
#include "model/build.h"

#include <stdio.h>
#include <string.h>

/* ---- kinds
 * --------------------------------------------------------------------------------------------------------------- */

enum { MAX_KIND_AXES = 7 };

typedef struct axis_row {
    ht_axis_kind kind;
    ht_axis_result result;
    size_t from, to;
    size_t least, most;
    const char *
        maps; /* a letter for each of the operators: (e)very, (r)eplicated, (s)hare, (c)olumns, ro(w)s, (g)roups, (t)erms, (o)ne
                * lane's */
} axis_row;

typedef struct kind_row {
    const char *name;
    size_t n;
    ht_op_kind ops[HT_MAX_BLOCK_OPS];
    size_t n_axes;
    axis_row axes[MAX_KIND_AXES];
    size_t fused; /* the operator at which three can be one; 0: none */
} kind_row;

#define BLOCK_OF_TYPE 32    /* features and rows: no codes of a quantised type are cut in two */
#define COARSE 256          /* rows of a matrix that nobody cuts finer, for no more than this is gained */
#define HEADS_OF_TYPE 8     /* heads of a mixer that are cut off together at the most, where one is no whole block */
#define VOCABULARY_ROWS 256 /* a finer cut of the vocabulary gains nothing */

static const kind_row kinds[HT_BLOCK_KINDS] = {
    [HT_BLOCK_ATTENTION] = {.name = "attention",
                            .n = 5,
                            .ops = {HT_OP_NORM, HT_OP_MATMUL, HT_OP_ROPE, HT_OP_ATTENTION, HT_OP_MATMUL},
                            .n_axes = 7,
                            .axes = {{HT_AXIS_HEADS, HT_RESULT_SUMS, 0, 5, 1, 1, "esssc"},
                                     {HT_AXIS_TOKENS, HT_RESULT_ROWS, 0, 5, 0, 0, "errrr"},
                                     {HT_AXIS_ROWS, HT_RESULT_COLUMNS, 0, 2, BLOCK_OF_TYPE, COARSE, "ew"},
                                     {HT_AXIS_HEADS, HT_RESULT_COLUMNS, 2, 4, 1, 1, "ss"},
                                     {HT_AXIS_HEADS, HT_RESULT_SUMS, 2, 5, 1, 1, "ssc"},
                                     {HT_AXIS_ROWS, HT_RESULT_COLUMNS, 4, 5, BLOCK_OF_TYPE, COARSE, "w"},
                                     {HT_AXIS_QUERIES, HT_RESULT_SUMS, 0, 5, 1, 0, "egggc"}}},
    [HT_BLOCK_FEED_FORWARD] = {.name = "feed-forward",
                               .n = 4,
                               .ops = {HT_OP_NORM, HT_OP_MATMUL, HT_OP_GLU, HT_OP_MATMUL},
                               .n_axes = 3,
                               .axes = {{HT_AXIS_FEATURES, HT_RESULT_SUMS, 0, 4, BLOCK_OF_TYPE, COARSE, "essc"},
                                        {HT_AXIS_FEATURES, HT_RESULT_COLUMNS, 0, 3, BLOCK_OF_TYPE, COARSE, "ess"},
                                        {HT_AXIS_ROWS, HT_RESULT_COLUMNS, 3, 4, BLOCK_OF_TYPE, COARSE, "w"}},
                               .fused = 1},
    /* Gates are compared with what all of them are: by one lane. */
    [HT_BLOCK_SPARSE_FEED_FORWARD] = {.name = "sparse feed-forward",
                                      .n = 4,
                                      .ops = {HT_OP_NORM, HT_OP_MATMUL, HT_OP_GLU, HT_OP_MATMUL},
                                      .n_axes = 4,
                                      .axes = {{HT_AXIS_TOKENS, HT_RESULT_ROWS, 0, 4, 0, 0, "errr"},
                                               {HT_AXIS_ROWS, HT_RESULT_COLUMNS, 0, 2, BLOCK_OF_TYPE, COARSE, "ew"},
                                               {HT_AXIS_FEATURES, HT_RESULT_COLUMNS, 2, 3, 1, 1, "o"},
                                               {HT_AXIS_ROWS, HT_RESULT_COLUMNS, 3, 4, BLOCK_OF_TYPE, COARSE, "w"}}},
    [HT_BLOCK_LOW_RANK] = {.name = "low rank",
                           .n = 3,
                           .ops = {HT_OP_NORM, HT_OP_MATMUL, HT_OP_MATMUL},
                           .n_axes = 3,
                           .axes = {{HT_AXIS_FEATURES, HT_RESULT_SUMS, 0, 3, BLOCK_OF_TYPE, COARSE, "esc"},
                                    {HT_AXIS_FEATURES, HT_RESULT_COLUMNS, 0, 2, BLOCK_OF_TYPE, COARSE, "es"},
                                    {HT_AXIS_ROWS, HT_RESULT_COLUMNS, 2, 3, BLOCK_OF_TYPE, COARSE, "w"}}},
    [HT_BLOCK_MIXED_ATTENTION] = {.name = "attention behind mixed streams",
                                  .n = 7,
                                  .ops = {HT_OP_NORM, HT_OP_MIX, HT_OP_NORM, HT_OP_MATMUL, HT_OP_ROPE, HT_OP_ATTENTION,
                                          HT_OP_MATMUL},
                                  .n_axes = 7,
                                  .axes = {{HT_AXIS_HEADS, HT_RESULT_SUMS, 0, 7, 1, 1, "eeesssc"},
                                           {HT_AXIS_TOKENS, HT_RESULT_ROWS, 0, 7, 0, 0, "eeerrrr"},
                                           {HT_AXIS_ROWS, HT_RESULT_COLUMNS, 0, 4, BLOCK_OF_TYPE, COARSE, "eeew"},
                                           {HT_AXIS_HEADS, HT_RESULT_COLUMNS, 4, 6, 1, 1, "ss"},
                                           {HT_AXIS_HEADS, HT_RESULT_SUMS, 4, 7, 1, 1, "ssc"},
                                           {HT_AXIS_ROWS, HT_RESULT_COLUMNS, 6, 7, BLOCK_OF_TYPE, COARSE, "w"},
                                           {HT_AXIS_QUERIES, HT_RESULT_SUMS, 0, 7, 1, 0, "eeegggc"}}},
    [HT_BLOCK_MIXED_FEED_FORWARD] = {.name = "feed-forward behind mixed streams",
                                     .n = 5,
                                     .ops = {HT_OP_NORM, HT_OP_MIX, HT_OP_MATMUL, HT_OP_GLU, HT_OP_MATMUL},
                                     .n_axes = 3,
                                     .axes = {{HT_AXIS_FEATURES, HT_RESULT_SUMS, 0, 5, BLOCK_OF_TYPE, COARSE, "eessc"},
                                              {HT_AXIS_FEATURES, HT_RESULT_COLUMNS, 0, 4, BLOCK_OF_TYPE, COARSE,
                                               "eess"},
                                              {HT_AXIS_ROWS, HT_RESULT_COLUMNS, 4, 5, BLOCK_OF_TYPE, COARSE, "w"}}},
    /* Streams are made as long as another: lengths are of whole rows. */
    [HT_BLOCK_MIXED_END] = {.name = "end of streams",
                            .n = 4,
                            .ops = {HT_OP_NORM, HT_OP_MIX, HT_OP_HEADS, HT_OP_MIX},
                            .n_axes = 1,
                            .axes = {{HT_AXIS_TOKENS, HT_RESULT_ROWS, 0, 4, 0, 0, "eerr"}}},
    [HT_BLOCK_GATED_ATTENTION] = {.name = "gated attention",
                                  .n = 7,
                                  .ops = {HT_OP_NORM, HT_OP_MATMUL, HT_OP_ROPE, HT_OP_ATTENTION, HT_OP_MATMUL,
                                          HT_OP_GLU, HT_OP_MATMUL},
                                  .n_axes = 7,
                                  .axes = {{HT_AXIS_HEADS, HT_RESULT_SUMS, 0, 7, 1, 1, "esssssc"},
                                           {HT_AXIS_TOKENS, HT_RESULT_ROWS, 0, 7, 0, 0, "errrrrr"},
                                           {HT_AXIS_ROWS, HT_RESULT_COLUMNS, 0, 2, BLOCK_OF_TYPE, COARSE, "ew"},
                                           {HT_AXIS_HEADS, HT_RESULT_COLUMNS, 2, 6, 1, 1, "ssss"},
                                           {HT_AXIS_HEADS, HT_RESULT_SUMS, 2, 7, 1, 1, "ssssc"},
                                           {HT_AXIS_ROWS, HT_RESULT_COLUMNS, 6, 7, BLOCK_OF_TYPE, COARSE, "w"},
                                           {HT_AXIS_QUERIES, HT_RESULT_SUMS, 0, 7, 1, 0, "egggssc"}}},
    /* No range of tokens is computed before another: each needs the keys and values of all. */
    [HT_BLOCK_BOTH_WAYS_ATTENTION] = {.name = "attention in both directions",
                                      .n = 5,
                                      .ops = {HT_OP_NORM, HT_OP_MATMUL, HT_OP_ROPE, HT_OP_ATTENTION, HT_OP_MATMUL},
                                      .n_axes = 6,
                                      .axes = {{HT_AXIS_HEADS, HT_RESULT_SUMS, 0, 5, 1, 1, "esssc"},
                                               {HT_AXIS_ROWS, HT_RESULT_COLUMNS, 0, 2, BLOCK_OF_TYPE, COARSE, "ew"},
                                               {HT_AXIS_HEADS, HT_RESULT_COLUMNS, 2, 4, 1, 1, "ss"},
                                               {HT_AXIS_HEADS, HT_RESULT_SUMS, 2, 5, 1, 1, "ssc"},
                                               {HT_AXIS_ROWS, HT_RESULT_COLUMNS, 4, 5, BLOCK_OF_TYPE, COARSE, "w"},
                                               {HT_AXIS_QUERIES, HT_RESULT_SUMS, 0, 5, 1, 0, "egggc"}}},
    /* Queries and keys are normed as whole rows, of all heads: by one lane, between the others' matrices and attention. */
    [HT_BLOCK_WHOLE_ROW_ATTENTION] = {.name = "attention with whole rows normed",
                                      .n = 5,
                                      .ops = {HT_OP_NORM, HT_OP_MATMUL, HT_OP_ROPE, HT_OP_ATTENTION, HT_OP_MATMUL},
                                      .n_axes = 6,
                                      .axes = {{HT_AXIS_TOKENS, HT_RESULT_ROWS, 0, 5, 0, 0, "errrr"},
                                               {HT_AXIS_ROWS, HT_RESULT_COLUMNS, 0, 2, BLOCK_OF_TYPE, COARSE, "ew"},
                                               {HT_AXIS_FEATURES, HT_RESULT_COLUMNS, 2, 3, 1, 1, "o"},
                                               {HT_AXIS_HEADS, HT_RESULT_SUMS, 3, 5, 1, 1, "sc"},
                                               {HT_AXIS_HEADS, HT_RESULT_COLUMNS, 3, 4, 1, 1, "s"},
                                               {HT_AXIS_ROWS, HT_RESULT_COLUMNS, 4, 5, BLOCK_OF_TYPE, COARSE, "w"}}},
    [HT_BLOCK_LATENT_ATTENTION] = {.name = "latent attention",
                                   .n = 7,
                                   .ops = {HT_OP_NORM, HT_OP_MATMUL, HT_OP_HEADS, HT_OP_ROPE, HT_OP_ATTENTION,
                                           HT_OP_HEADS, HT_OP_MATMUL},
                                   .n_axes = 2,
                                   .axes = {{HT_AXIS_QUERIES, HT_RESULT_SUMS, 0, 7, 1, 0, "egggggc"},
                                            {HT_AXIS_TOKENS, HT_RESULT_ROWS, 0, 7, 0, 0, "errrrrr"}}},
    [HT_BLOCK_LOW_RANK_ATTENTION] = {.name = "latent attention with latent queries",
                                     .n = 9,
                                     .ops = {HT_OP_NORM, HT_OP_MATMUL, HT_OP_NORM, HT_OP_MATMUL, HT_OP_HEADS,
                                             HT_OP_ROPE, HT_OP_ATTENTION, HT_OP_HEADS, HT_OP_MATMUL},
                                     .n_axes = 2,
                                     .axes = {{HT_AXIS_QUERIES, HT_RESULT_SUMS, 0, 9, 1, 0, "errgggggc"},
                                              {HT_AXIS_TOKENS, HT_RESULT_ROWS, 0, 9, 0, 0, "errrrrrrr"}}},
    [HT_BLOCK_EXPERTS] = {.name = "experts",
                          .n = 4,
                          .ops = {HT_OP_NORM, HT_OP_MATMUL, HT_OP_ROUTE, HT_OP_EXPERTS},
                          .n_axes = 3,
                          .axes = {{HT_AXIS_EXPERTS, HT_RESULT_SUMS, 0, 4, 1, 1, "errt"},
                                   {HT_AXIS_FEATURES, HT_RESULT_SUMS, 0, 4, BLOCK_OF_TYPE, COARSE, "errc"},
                                   {HT_AXIS_TOKENS, HT_RESULT_ROWS, 0, 4, 0, 0, "errr"}}},
    [HT_BLOCK_NORMED_EXPERTS] = {.name = "experts behind a norm of their own",
                                 .n = 5,
                                 .ops = {HT_OP_NORM, HT_OP_MATMUL, HT_OP_ROUTE, HT_OP_NORM, HT_OP_EXPERTS},
                                 .n_axes = 3,
                                 .axes = {{HT_AXIS_EXPERTS, HT_RESULT_SUMS, 0, 5, 1, 1, "erret"},
                                          {HT_AXIS_FEATURES, HT_RESULT_SUMS, 0, 5, BLOCK_OF_TYPE, COARSE, "errec"},
                                          {HT_AXIS_TOKENS, HT_RESULT_ROWS, 0, 5, 0, 0, "errer"}}},
    [HT_BLOCK_CONVOLUTION] = {.name = "convolution",
                              .n = 4,
                              .ops = {HT_OP_NORM, HT_OP_MATMUL, HT_OP_CONV, HT_OP_MATMUL},
                              .n_axes = 4,
                              .axes = {{HT_AXIS_CHANNELS, HT_RESULT_SUMS, 0, 4, BLOCK_OF_TYPE, COARSE, "essc"},
                                       {HT_AXIS_TOKENS, HT_RESULT_ROWS, 0, 4, 0, 0, "errr"},
                                       {HT_AXIS_CHANNELS, HT_RESULT_COLUMNS, 0, 3, BLOCK_OF_TYPE, COARSE, "ess"},
                                       {HT_AXIS_ROWS, HT_RESULT_COLUMNS, 3, 4, BLOCK_OF_TYPE, COARSE, "w"}}},
    [HT_BLOCK_DELTA_NET] = {.name = "delta net",
                            .n = 5,
                            .ops = {HT_OP_NORM, HT_OP_MATMUL, HT_OP_MATMUL, HT_OP_DELTA_NET, HT_OP_MATMUL},
                            .n_axes = 4,
                            .axes = {{HT_AXIS_CHANNELS, HT_RESULT_SUMS, 0, 5, 1, HEADS_OF_TYPE, "esssc"},
                                     {HT_AXIS_TOKENS, HT_RESULT_ROWS, 0, 5, 0, 0, "errrr"},
                                     {HT_AXIS_CHANNELS, HT_RESULT_COLUMNS, 0, 4, 1, HEADS_OF_TYPE, "esss"},
                                     {HT_AXIS_ROWS, HT_RESULT_COLUMNS, 4, 5, BLOCK_OF_TYPE, COARSE, "w"}}},
    /* A share of value heads needs key heads from everywhere: every lane has all of these. */
    [HT_BLOCK_GROUPED_DELTA_NET] = {.name = "grouped delta net",
                                    .n = 5,
                                    .ops = {HT_OP_NORM, HT_OP_MATMUL, HT_OP_MATMUL, HT_OP_DELTA_NET, HT_OP_MATMUL},
                                    .n_axes = 4,
                                    .axes = {{HT_AXIS_CHANNELS, HT_RESULT_SUMS, 0, 5, 1, HEADS_OF_TYPE, "erssc"},
                                             {HT_AXIS_TOKENS, HT_RESULT_ROWS, 0, 5, 0, 0, "errrr"},
                                             {HT_AXIS_CHANNELS, HT_RESULT_COLUMNS, 0, 4, 1, HEADS_OF_TYPE, "erss"},
                                             {HT_AXIS_ROWS, HT_RESULT_COLUMNS, 4, 5, BLOCK_OF_TYPE, COARSE, "w"}}},
    /* Its norm is over a group's channels: the groups are what can be divided without exchanging its sums. */
    [HT_BLOCK_SCAN] = {.name = "selective scan",
                       .n = 5,
                       .ops = {HT_OP_NORM, HT_OP_MATMUL, HT_OP_MATMUL, HT_OP_SCAN, HT_OP_MATMUL},
                       .n_axes = 4,
                       .axes = {{HT_AXIS_CHANNELS, HT_RESULT_SUMS, 0, 5, 1, HEADS_OF_TYPE, "esssc"},
                                {HT_AXIS_TOKENS, HT_RESULT_ROWS, 0, 5, 0, 0, "errrr"},
                                {HT_AXIS_CHANNELS, HT_RESULT_COLUMNS, 0, 4, 1, HEADS_OF_TYPE, "esss"},
                                {HT_AXIS_ROWS, HT_RESULT_COLUMNS, 4, 5, BLOCK_OF_TYPE, COARSE, "w"}}},
    [HT_BLOCK_STREAM_NORM] = {.name = "norm of the stream",
                              .n = 1,
                              .ops = {HT_OP_NORM},
                              .n_axes = 1,
                              .axes = {{HT_AXIS_TOKENS, HT_RESULT_ROWS, 0, 1, 0, 0, "e"}}},
    [HT_BLOCK_HEAD] = {.name = "head",
                       .n = 3,
                       .ops = {HT_OP_NORM, HT_OP_MATMUL, HT_OP_ARGMAX},
                       .n_axes = 1,
                       .axes = {{HT_AXIS_ROWS, HT_RESULT_COLUMNS, 0, 2, VOCABULARY_ROWS, VOCABULARY_ROWS, "ew"}}},
};

void ht_build_block(ht_builder *b, ht_block_kind kind, int units) {
    ht_model *model = b->model;
    if (b->status != HT_OK)
        return;
    b->status = ht_grow((void **)&model->blocks, &model->cap_blocks, model->n_blocks + 1, sizeof *model->blocks,
                        "blocks", b->error);
    if (b->status == HT_OK)
        model->blocks[model->n_blocks++] =
            (ht_block){.kind = kind, .layer = b->layer, .first = model->n_ops, .units = (size_t)units};
}

/* Operators of the kind's row that the block has not, in front: the norm, where it stands beside another block. */
static size_t lacks(const ht_model *model, const ht_block *block) {
    const kind_row *kind = &kinds[block->kind];
    return block->kind != HT_BLOCK_HEAD && kind->ops[0] == HT_OP_NORM && block->n < kind->n &&
           model->ops[block->first].kind != HT_OP_NORM;
}

/* The operator's place in the kind's row as that in the block. */
static size_t place_of(size_t row, size_t lacking) {
    return row > lacking ? row - lacking : 0;
}

/* ---- what is divided
 * ------------------------------------------------------------------------------------------------------- */

static ht_map map_of(char letter) {
    switch (letter) {
    case 'e':
        return HT_MAP_EVERY;
    case 'r':
        return HT_MAP_REPLICATED;
    case 's':
    case 'o': /* of one unit */
        return HT_MAP_SHARE;
    case 'c':
        return HT_MAP_COLUMNS;
    case 'g':
        return HT_MAP_GROUPS;
    case 't':
        return HT_MAP_TERMS;
    default:
        return HT_MAP_ROWS;
    }
}

/* Elements [begin, end) of the first matrix or of heads, and what the groups have in common that begin there. */
static size_t group_pieces(const ht_model *model, const ht_op *op, const ht_axis *axis, size_t begin, size_t end,
                           ht_axis_piece *pieces) {
    const bool matrices = op->kind == HT_OP_MATMUL;
    const ht_hparams h = ht_op_shape(op, &model->hparams);
    const int cached = op->value_dim ? 2 : 3; /* queries, keys, values */
    const int n = matrices ? op->n_parts : ht_op_writes(op) & HT_BIT_KV ? cached : 1;
    for (int i = 0; i < n; i++) {
        const size_t of = i ? axis->extent / axis->group : axis->extent, each = matrices ? op->parts[i].rows / of : 1;
        const size_t first = i ? ht_groups_before(axis->group, begin) : begin,
                     last = i ? ht_groups_before(axis->group, end) : end;
        pieces[i] = (ht_axis_piece){matrices ? i : -1 - i, false, first * each, last * each,
                                    matrices ? op->parts[i].rows : (size_t)(i ? h.kv_heads : h.heads)};
    }
    return (size_t)n;
}

size_t ht_axis_pieces(const ht_model *model, const ht_block *block, const ht_axis *axis, size_t place, size_t begin,
                      size_t end, ht_axis_piece *pieces) {
    const ht_op *op = &model->ops[block->first + place];
    const bool matrices = op->kind == HT_OP_MATMUL;
    switch (axis->maps[place]) {
    case HT_MAP_TERMS:
        pieces[0] = (ht_axis_piece){-1, false, begin, end, (size_t)op->experts};
        return 1;
    case HT_MAP_SHARE:
        for (int i = 0; i < op->n_parts && matrices; i++) {
            const size_t each = op->parts[i].rows / axis->extent;
            pieces[i] = (ht_axis_piece){i, false, begin * each, end * each, op->parts[i].rows};
        }
        if (!matrices)
            pieces[0] = (ht_axis_piece){-1, false, begin, end, axis->extent};
        return matrices ? (size_t)op->n_parts : 1;
    case HT_MAP_COLUMNS: {
        const size_t cols = ht_op_summed(op), each = cols / axis->extent;
        pieces[0] = (ht_axis_piece){0, true, begin * each, end * each, cols};
        return 1;
    }
    case HT_MAP_ROWS:
        pieces[0] = (ht_axis_piece){-1, false, begin, end, ht_op_rows(op)};
        return 1;
    case HT_MAP_GROUPS:
        return group_pieces(model, op, axis, begin, end, pieces);
    default:
        return 0;
    }
}

double ht_axis_share(const ht_axis *axis, size_t place, size_t of, size_t begin, size_t n) {
    const double loose = (double)n / (double)of, common = axis->common[place];
    if (!axis->group)
        return loose;
    const size_t group = axis->group * of / axis->extent;
    const size_t groups = ht_groups_before(group, begin + n) - ht_groups_before(group, begin);
    return (1 - common) * loose + common * (double)(groups * group) / (double)of;
}

/* Query heads of the block: of its operator that reads a cache. */
static size_t queries_of(const ht_model *model, const ht_block *block) {
    for (size_t i = 0; i < block->n; i++)
        if (ht_op_reads(&model->ops[block->first + i]) & HT_BIT_KV)
            return (size_t)ht_op_shape(&model->ops[block->first + i], &model->hparams).heads;
    return 0;
}

/* How many there are of what the axis divides. Where each key-value head has one query head, dividing these is
 * dividing those. */
static size_t extent_of(const ht_model *model, const ht_block *block, const axis_row *row) {
    const size_t lacking = lacks(model, block);
    if (row->kind == HT_AXIS_TOKENS)
        return 0;
    if (row->maps[0] == 'o')
        return 1;
    if (row->kind == HT_AXIS_EXPERTS)
        return (size_t)model->ops[block->first + block->n - 1].experts;
    if (row->kind == HT_AXIS_QUERIES) {
        const size_t queries = queries_of(model, block);
        return queries % block->units == 0 && queries > block->units ? queries : 0;
    }
    if (row->kind != HT_AXIS_ROWS)
        return block->units % row->least == 0 ? block->units
                                              : 0; /* of one, too: whoever has it computes the rest of the path */
    for (size_t i = row->from; i < row->to; i++)
        if (row->maps[i - row->from] == 'w')
            return ht_op_rows(&model->ops[block->first + i - lacking]);
    return 0;
}

/* May what is handed over begin with this operator? What a part does for itself the owner has done. */
static bool may_hand(const ht_op *op, ht_map map) {
    return (op->kind == HT_OP_MATMUL || op->kind == HT_OP_EXPERTS) && map != HT_MAP_REPLICATED;
}

/* Some of an axis that one device may compute for another: matrices, and what stands between them. Whoever has the rest
 * of the block has its cache, too. */
static void find_handed(const ht_model *model, const ht_block *block, ht_axis *axis) {
    const ht_op *ops = &model->ops[block->first];
    if (axis->kind == HT_AXIS_TOKENS || block->kind == HT_BLOCK_HEAD)
        return;
    for (size_t i = axis->from; i < axis->to; i++)
        if ((ht_op_reads(&ops[i]) | ht_op_writes(&ops[i])) & HT_BIT_KV)
            return;
    axis->hand_from = axis->from;
    while (axis->hand_from < axis->to && !may_hand(&ops[axis->hand_from], axis->maps[axis->hand_from]))
        axis->hand_from++;
    if (axis->hand_from == axis->to) {
        axis->hand_from = 0;
        return;
    }
    axis->hand_to = axis->result == HT_RESULT_SUMS ? axis->to : axis->hand_from + 1;
    axis->handed = ht_op_in_width(&ops[axis->hand_from], &model->hparams) +
                   ht_op_more_width(&ops[axis->hand_from], &model->hparams) +
                   ht_op_out_width(&ops[axis->hand_to - 1], &model->hparams);
}

/* What an axis of query heads has to say of groups: when their keys and values are there, and what goes with them. */
static void find_groups(const ht_model *model, const ht_block *block, ht_axis *axis) {
    axis->group = axis->extent / block->units;
    axis->most = axis->group / 2;
    for (size_t i = axis->from; i < axis->to; i++) {
        const ht_op *op = &model->ops[block->first + i];
        ht_axis_piece pieces[HT_MAX_PARTS];
        size_t all = 0, common = 0;
        if (axis->maps[i] != HT_MAP_GROUPS)
            continue;
        const size_t n = group_pieces(model, op, axis, 0, axis->extent, pieces);
        for (size_t p = 0; p < n; p++)
            all += pieces[p].of, common += p ? pieces[p].of : 0;
        axis->common[i] = (double)common / (double)all;
        if (ht_op_writes(op) & HT_BIT_KV) {
            axis->ready = i + 1;
            axis->lent = (op->value_dim ? 1 : 2) * (size_t)ht_op_shape(op, &model->hparams).head_dim;
        }
    }
}

static ht_axis make_axis(const ht_model *model, const ht_block *block, const axis_row *row) {
    const ht_op *ops = &model->ops[block->first];
    const size_t lacking = lacks(model, block);
    ht_axis axis = {.kind = row->kind,
                    .result = row->result,
                    .from = place_of(row->from, lacking),
                    .to = place_of(row->to, lacking),
                    .extent = extent_of(model, block, row),
                    .least = row->least,
                    .most = row->most,
                    .exact = row->kind != HT_AXIS_ROWS,
                    .leaves = block->kind == HT_BLOCK_HEAD
                                  ? 0
                                  : ht_op_out_width(&ops[place_of(row->to, lacking) - 1], &model->hparams)};
    for (size_t i = axis.from; i < axis.to; i++) {
        axis.maps[i] = map_of(row->maps[i + lacking - row->from]);
        axis.ordered |= row->kind == HT_AXIS_TOKENS && ht_op_writes(&ops[i]) & HT_BIT_KV;
    }
    find_handed(model, block, &axis);
    if (row->kind == HT_AXIS_QUERIES && axis.extent)
        find_groups(model, block, &axis);
    return axis;
}

static ht_status add_axes(ht_builder *b, ht_block *block) {
    ht_model *model = b->model;
    const kind_row *kind = &kinds[block->kind];
    b->status = ht_grow((void **)&model->axes, &model->cap_axes, model->n_axes + kind->n_axes, sizeof *model->axes,
                        "axes", b->error);
    if (b->status != HT_OK)
        return b->status;
    block->first_axis = model->n_axes;
    block->n_axes = kind->n_axes;
    for (size_t a = 0; a < kind->n_axes; a++) {
        ht_axis *axis = &model->axes[model->n_axes];
        *axis = make_axis(model, block, &kind->axes[a]);
        axis->widths = model->n_axes++;
        for (size_t k = block->first_axis; k < axis->widths && axis->exact; k++)
            if (model->axes[k].kind == axis->kind)
                axis->widths = k;
    }
    return HT_OK;
}

/* ---- what is alike
 * --------------------------------------------------------------------------------------------------------- */

/* ROPE and ATTENTION. */
static void describe_heads(const ht_op *op, const ht_hparams *h, ht_text *text) {
    ht_text_printf(text, NULL, " %d/%d x %d", h->heads, h->kv_heads, h->head_dim);
    if (op->window || op->attention_chunk)
        ht_text_printf(text, NULL, " %s %d", op->window ? "window" : "chunk",
                       op->window ? op->window : op->attention_chunk);
    if (op->q_norm || op->k_norm || op->v_norm)
        ht_text_printf(text, NULL, " norms%s", op->norm_whole ? " whole" : "");
    if (op->value_dim)
        ht_text_printf(text, NULL, " values %d", op->value_dim);
    if (op->shared)
        ht_text_printf(text, NULL, " shared");
    if (op->both_ways)
        ht_text_printf(text, NULL, " both ways");
    if (op->soft_cap != 0.0f)
        ht_text_printf(text, NULL, " capped");
    if (op->slopes)
        ht_text_printf(text, NULL, " slopes");
}

/* All that an operator's time depends on. A stream's first norm has nothing to add as yet: it counts as that
 * stream's next one, for else the first layer would be unlike all others. */
static void describe(const ht_model *model, const ht_op *op, ht_text *text) {
    static const char *const names[HT_OP_KINDS] = {[HT_OP_EMBED] = "embed",
                                                   [HT_OP_NORM] = "norm",
                                                   [HT_OP_MATMUL] = "matmul",
                                                   [HT_OP_ROPE] = "rope",
                                                   [HT_OP_ATTENTION] = "attention",
                                                   [HT_OP_GLU] = "glu",
                                                   [HT_OP_ARGMAX] = "argmax",
                                                   [HT_OP_FFN] = "ffn",
                                                   [HT_OP_ROUTE] = "route",
                                                   [HT_OP_EXPERTS] = "experts",
                                                   [HT_OP_CONV] = "convolution",
                                                   [HT_OP_DELTA_NET] = "delta net",
                                                   [HT_OP_SCAN] = "scan",
                                                   [HT_OP_HEADS] = "heads",
                                                   [HT_OP_MIX] = "mix"};
    const ht_op *end = model->ops + model->n_ops, *next = op;
    while (op->kind == HT_OP_NORM && next < end &&
           (next->kind != HT_OP_NORM || next->aux == HT_SLOT_NONE || next->in != op->in))
        next++;
    op = next < end ? next : op;
    const ht_hparams own = ht_op_shape(op, &model->hparams), *h = &own;
    ht_text_printf(text, NULL, "%s", names[op->kind]);
    switch (op->kind) {
    case HT_OP_MATMUL:
    case HT_OP_EMBED:
        ht_text_printf(text, NULL, " %zu", ht_op_cols(op));
        for (int i = 0; i < op->n_parts; i++)
            ht_text_printf(text, NULL, "%s %zu %s%s", i ? "," : ":", op->parts[i].rows, op->parts[i].type->name,
                           op->bias[i] ? " bias" : "");
        if (op->positions)
            ht_text_printf(text, NULL, " positions");
        break;
    case HT_OP_FFN:
        for (int i = 0; i < 3; i++) {
            ht_text_printf(text, NULL, i ? " + " : " ");
            describe(model, &op->members[i], text);
        }
        break;
    case HT_OP_ROPE:
    case HT_OP_ATTENTION:
        describe_heads(op, h, text);
        break;
    case HT_OP_ROUTE:
        ht_text_printf(text, NULL, " %d of %d", op->route.used, op->experts);
        break;
    case HT_OP_EXPERTS:
        ht_text_printf(text, NULL, " %d of %d: %zu", op->route.used, op->experts, ht_op_cols(op));
        for (int i = 0; i < op->n_parts; i++)
            ht_text_printf(text, NULL, "%s %zu %s%s", i ? "," : " x", op->parts[i].rows / (size_t)op->experts,
                           op->parts[i].type->name, op->bias[i] ? " bias" : "");
        break;
    case HT_OP_CONV:
        ht_text_printf(text, NULL, " %d x %d", op->width, op->taps);
        break;
    case HT_OP_DELTA_NET:
    case HT_OP_SCAN:
        ht_text_printf(text, NULL, " %d/%d x %d, %d; %d", h->heads, h->kv_heads, h->head_dim, op->recurrence.key_dim,
                       op->recurrence.taps);
        break;
    case HT_OP_HEADS:
        ht_text_printf(text, NULL, " %d x %zu: %zu %s", h->heads, ht_op_cols(op), ht_op_rows(op),
                       op->parts[0].type->name);
        break;
    case HT_OP_NORM:
    case HT_OP_ARGMAX:
        ht_text_printf(text, NULL, " %zu%s%s", ht_op_in_width(op, h), op->post_norm ? " post" : "",
                       op->norm == HT_NORM_LAYER  ? " layer"
                       : op->norm == HT_NORM_NONE ? " none"
                                                  : "");
        if (op->n_more)
            ht_text_printf(text, NULL, " of %zu", ht_op_added(op));
        if (ht_norm_is_special(op))
            ht_text_printf(text, NULL, " special%s%s", op->each_norm[0] ? " each" : "", op->replaces ? " anew" : "");
        break;
    case HT_OP_MIX:
        ht_text_printf(text, NULL, " %d: %d x %zu", (int)op->mix.function, op->mix.streams, (size_t)h->embedding);
        break;
    case HT_OP_GLU:
        ht_text_printf(text, NULL, " %zu%s", ht_op_out_width(op, h),
                       op->n_more         ? " side"
                       : op->ungated      ? " ungated"
                       : op->sparsity > 0 ? " sparse"
                                          : "");
        break;
    case HT_OP_KINDS:
        break;
    }
}

/* The number of the operator's signature, which may be new. */
static int sign(ht_builder *b, const ht_op *op) {
    ht_model *model = b->model;
    ht_text text = {0};
    if (b->status != HT_OK)
        return 0;
    describe(model, op, &text);
    size_t i = 0;
    while (text.data && i < model->n_signatures && strcmp(model->signatures[i].name, text.data) != 0)
        i++;
    if (text.data && i == model->n_signatures) {
        b->status = ht_grow((void **)&model->signatures, &model->cap_signatures, i + 1, sizeof *model->signatures,
                            "signatures", b->error);
        const char *name = ht_arena_strndup(&model->arena, text.data, text.bytes);
        if (b->status == HT_OK && name)
            model->signatures[model->n_signatures++] = (ht_signature){.name = name, .op = op, .head = true};
        else
            text.bytes = 0;
    }
    if (!text.data || !text.bytes)
        ht_build_fail(b, HT_ERROR_MEMORY, "out of memory for its operators");
    ht_text_free(&text);
    return (int)i;
}

static bool are_alike(const ht_model *model, const ht_block *x, const ht_block *y) {
    if (x->kind != y->kind || x->n != y->n || x->units != y->units || !x->fused != !y->fused)
        return false;
    for (size_t i = 0; i < x->n; i++)
        if (model->ops[x->first + i].signature != model->ops[y->first + i].signature)
            return false;
    return true;
}

/* Signatures, sites and axes: those of an earlier block that is alike, or new ones. */
static void sign_block(ht_builder *b, size_t number) {
    ht_model *model = b->model;
    ht_block *block = &model->blocks[number];
    for (size_t i = 0; i < block->n; i++) {
        ht_op *op = &model->ops[block->first + i];
        op->signature = sign(b, op);
        if (b->status == HT_OK)
            model->signatures[op->signature].head &= block->kind == HT_BLOCK_HEAD;
    }
    if (block->fused) {
        ht_op *fused = &model->fused[number];
        fused->block = (int)number;
        fused->signature = sign(b, fused);
        if (b->status == HT_OK)
            model->signatures[fused->signature].head = false;
    }
    const ht_block *same = NULL;
    for (size_t k = 0; k < number && !same && b->status == HT_OK; k++)
        if (are_alike(model, &model->blocks[k], block))
            same = &model->blocks[k];
    block->signature = same ? same->signature : (int)model->n_block_kinds++;
    for (size_t i = 0; i < block->n; i++)
        model->ops[block->first + i].site = same ? model->ops[same->first + i].site : (int)model->n_sites++;
    if (block->fused)
        model->fused[number].site = model->ops[block->first + block->fused_from].site;
    if (same)
        block->first_axis = same->first_axis, block->n_axes = same->n_axes;
    else if (b->status == HT_OK)
        add_axes(b, block);
}

/* Does the head's norm add what the block leaves? */
static bool is_last(const ht_model *model, size_t number) {
    const ht_block *block = &model->blocks[number], *head = &model->blocks[model->n_blocks - 1];
    const ht_slot out = model->ops[block->first + block->n - 1].out;
    for (const ht_block *later = block + 1; later < head; later++)
        if (model->ops[later->first + later->n - 1].out == out)
            return false;
    return block < head && ht_op_reads(&model->ops[head->first]) >> out & 1;
}

/* Blocks that a pass treats alike: of one signature, on one side of the tail. */
static void group_block(ht_builder *b, size_t number) {
    ht_model *model = b->model;
    ht_block *block = &model->blocks[number];
    const bool head = block->kind == HT_BLOCK_HEAD, last = is_last(model, number);
    const size_t before = model->tail <= block->first ? 0 : ht_min_size(model->tail - block->first, block->n);
    size_t g = 0;
    while (g < model->n_groups && !(model->blocks[model->groups[g].block].signature == block->signature &&
                                    model->groups[g].tail == before && model->groups[g].last == last && !head))
        g++;
    if (b->status == HT_OK && g == model->n_groups) {
        b->status = ht_grow((void **)&model->groups, &model->cap_groups, g + 1, sizeof *model->groups,
                            "groups of blocks", b->error);
        if (b->status == HT_OK)
            model->groups[model->n_groups++] = (ht_group){.block = number, .tail = before, .last = last, .head = head};
    }
    if (b->status == HT_OK)
        model->groups[g].count++;
    block->group = (int)g;
}

/* ---- all of it
 * ------------------------------------------------------------------------------------------------------------- */

/* The blocks' lengths, their operators' numbers, caches, what can be one operator. */
static void tile(ht_builder *b) {
    ht_model *model = b->model;
    for (size_t k = 0; k < model->n_blocks; k++) {
        ht_block *block = &model->blocks[k];
        block->n = (k + 1 < model->n_blocks ? model->blocks[k + 1].first : model->n_ops) - block->first;
        for (size_t i = 0; i < block->n; i++)
            model->ops[block->first + i].block = (int)k;
        const bool may = kinds[block->kind].fused > 0;
        const size_t fused = place_of(kinds[block->kind].fused, lacks(model, block));
        if (may && fused < block->n &&
            ht_op_ffn(&model->ops[block->first + fused], block->n - fused, &model->fused[k])) {
            block->fused = &model->fused[k];
            block->fused_from = fused;
            block->fused_to = fused + 3;
        }
    }
    for (size_t i = 0; i < model->n_ops; i++) {
        const ht_op *op = &model->ops[i];
        model->most_added = ht_max_size(model->most_added, ht_op_added(op));
        if (!(ht_op_writes(op) & HT_BIT_KV))
            continue;
        model->tail = i + 1;
        model->n_caches = ht_max_size(model->n_caches, (size_t)op->cache + 1);
    }
}

ht_status ht_build_blocks(ht_builder *b) {
    ht_model *model = b->model;
    if (b->status == HT_OK)
        b->status = ht_alloc((void **)&model->fused, model->n_blocks + 1, sizeof *model->fused, "blocks", b->error);
    if (b->status != HT_OK)
        return b->status;
    tile(b);
    b->status = ht_model_check_blocks(model, b->error);
    if (b->status != HT_OK)
        return b->status;
    for (size_t i = 0; i < model->blocks[0].first && b->status == HT_OK; i++) {
        model->ops[i].signature = sign(b, &model->ops[i]);
        model->ops[i].site = (int)model->n_sites++;
        if (b->status == HT_OK)
            model->signatures[model->ops[i].signature].head = false;
    }
    for (size_t k = 0; k < model->n_blocks && b->status == HT_OK; k++)
        sign_block(b, k);
    for (size_t k = 0; k < model->n_blocks && b->status == HT_OK; k++)
        group_block(b, k);
    for (size_t i = 0; i < model->n_ops && b->status == HT_OK; i++)
        model->signatures[model->ops[i].signature].count += i < model->tail || model->ops[i].layer < 0;
    for (size_t k = 0; k < model->n_blocks && b->status == HT_OK; k++)
        if (model->blocks[k].fused)
            model->signatures[model->fused[k].signature].count += model->blocks[k].first < model->tail;
    return b->status == HT_OK ? b->status = ht_model_check(model, b->error) : b->status;
}

/* ---- checks
 * ---------------------------------------------------------------------------------------------------------------- */

ht_status ht_model_check_blocks(const ht_model *model, ht_error *error) {
    size_t next = 0; /* behind what every lane makes of ids alone */
    const uint32_t own = ht_model_slots(model, HT_ROLE_OWN);
    while (next < model->n_ops && next < (model->n_blocks ? model->blocks[0].first : 0) &&
           !(ht_op_writes(&model->ops[next]) & ~own) && !ht_op_added(&model->ops[next]))
        next++;
    if (next == 0 || model->ops[0].kind != HT_OP_EMBED)
        return ht_fail(error, HT_ERROR_FORMAT, "%s: does not begin with an embedding", model->info.path);
    for (size_t k = 0; k < model->n_blocks; k++) {
        const ht_block *block = &model->blocks[k];
        const kind_row *kind = &kinds[block->kind];
        const size_t lacking = lacks(model, block);
        if (block->first != next || block->n == 0)
            return ht_fail(error, HT_ERROR_FORMAT, "%s: block %zu (%s, layer %d) begins at operator %zu, not %zu",
                           model->info.path, k, kind->name, block->layer, block->first, next);
        for (size_t i = 0; i < block->n || i + lacking < kind->n; i++)
            if (i >= block->n || i + lacking >= kind->n || model->ops[next + i].kind != kind->ops[i + lacking])
                return ht_fail(error, HT_ERROR_FORMAT, "%s: %s has no place in a block of kind %s", model->info.path,
                               next + i < model->n_ops ? model->ops[next + i].name : "the end", kind->name);
        for (size_t i = 0; i < block->n; i++) /* other kinds are cut by heads there */
            if (model->ops[next + i].norm_whole && block->kind != HT_BLOCK_WHOLE_ROW_ATTENTION)
                return ht_fail(error, HT_ERROR_FORMAT, "%s: %s norms whole rows in a block of kind %s",
                               model->info.path, model->ops[next + i].name, kind->name);
        for (size_t i = 0; i < block->n; i++) /* and by tokens */
            if (model->ops[next + i].both_ways && block->kind != HT_BLOCK_BOTH_WAYS_ATTENTION)
                return ht_fail(error, HT_ERROR_FORMAT, "%s: %s sees later tokens in a block of kind %s",
                               model->info.path, model->ops[next + i].name, kind->name);
        next += block->n;
    }
    if (next != model->n_ops || model->n_blocks == 0 || model->blocks[model->n_blocks - 1].kind != HT_BLOCK_HEAD)
        return ht_fail(error, HT_ERROR_FORMAT, "%s: its blocks end at operator %zu of %zu", model->info.path, next,
                       model->n_ops);
    return HT_OK;
}

static const char *slot_name(const ht_model *model, uint32_t bits) {
    return model->slots[__builtin_ctz(bits)].name;
}

/* Are the operator's slots some that the model has? */
static ht_status check_named(const ht_model *model, const ht_op *op, ht_error *error) {
    const ht_slot slots[] = {op->in, op->out, ht_op_added(op) ? op->aux : op->in, op->n_more ? op->more[0] : op->in};
    for (size_t i = 0; i < HT_COUNT(slots); i++)
        if (slots[i] < 0 || slots[i] >= model->n_slots)
            return ht_fail(error, HT_ERROR_FORMAT, "%s: %s names slot %d of %d", model->info.path, op->name, slots[i],
                           model->n_slots);
    return HT_OK;
}

/* Are the operator's slots of such a type, and wide enough? What it reads is as wide as what was written last:
 * `widths`, by slots. */
static ht_status check_widths(const ht_model *model, const ht_op *op, size_t widths[HT_MAX_SLOTS], ht_error *error) {
    const size_t in = ht_op_in_width(op, &model->hparams), out = ht_op_out_width(op, &model->hparams);
    const size_t added = ht_op_added(op);
    const ht_slot slots[] = {op->in, op->out, added ? op->aux : op->in, added > 1 ? op->more[0] : op->in};
    const size_t more = ht_op_more_width(op, &model->hparams);
    if (more && op->more_first + more > widths[op->more[0]])
        return ht_fail(error, HT_ERROR_FORMAT, "%s: %s reads %zu values a token of slot %s, which has %zu",
                       model->info.path, op->name, op->more_first + more, model->slots[op->more[0]].name,
                       widths[op->more[0]]);
    for (size_t i = 0; i < HT_COUNT(slots); i++) {
        const ht_slot_info *slot = &model->slots[slots[i]];
        const bool written = i == 1, whole = op->kind == (written ? HT_OP_ARGMAX : HT_OP_EMBED);
        const size_t width = written ? out : in, most = written ? slot->width : widths[slots[i]];
        /* what lanes have for themselves is normed in part: a latent row, and what stands behind it */
        const bool some = !written && op->kind == HT_OP_NORM && slot->role == HT_ROLE_PRIVATE;
        if ((slot->type == HT_SLOT_INT32) != whole)
            return ht_fail(error, HT_ERROR_FORMAT, "%s: %s has slot %s, which is of another type", model->info.path,
                           op->name, slot->name);
        if (written || some ? width > most : width != most)
            return ht_fail(error, HT_ERROR_FORMAT, "%s: %s %s %zu values a token of slot %s, which has %zu",
                           model->info.path, op->name, written ? "writes" : "reads", width, slot->name, most);
    }
    widths[op->out] = out;
    return HT_OK;
}

/* Is what is given to a stream added once, by a norm? `given`: slots that wait for that. */
static ht_status check_given(const ht_model *model, const ht_op *op, uint32_t *given, ht_error *error) {
    const uint32_t sums = ht_model_slots(model, HT_ROLE_SUMS);
    uint32_t added = 0;
    for (size_t k = 0; k < ht_op_added(op); k++)
        added |= 1u << ht_op_addend(op, k);
    if (added & ~sums)
        return ht_fail(error, HT_ERROR_FORMAT, "%s: %s adds slot %s, which is not for sums", model->info.path, op->name,
                       slot_name(model, added & ~sums));
    const uint32_t wrong = (ht_op_reads(op) & sums & ~added) | (added & ~*given);
    if (wrong)
        return ht_fail(error, HT_ERROR_FORMAT, "%s: %s reads slot %s, which is for sums: a norm adds them, once",
                       model->info.path, op->name, slot_name(model, wrong));
    *given &= ~added;
    if (ht_op_writes(op) & sums & *given)
        return ht_fail(error, HT_ERROR_FORMAT, "%s: %s writes slot %s, which no norm has added yet", model->info.path,
                       op->name, slot_name(model, ht_op_writes(op) & *given));
    *given |= ht_op_writes(op) & sums;
    return HT_OK;
}

/* Is each slot, and each cache, written before it is read? */
static ht_status check_slots(const ht_model *model, ht_error *error) {
    const uint32_t ids = ht_model_slots(model, HT_ROLE_IDS);
    uint32_t written = ids;
    uint32_t given = 0;
    size_t widths[HT_MAX_SLOTS] = {0};
    int caches = 0;
    for (int role = HT_ROLE_IDS; role < HT_ROLES; role++)
        if (__builtin_popcount(ht_model_slots(model, (ht_slot_role)role)) != 1)
            return ht_fail(error, HT_ERROR_FORMAT, "%s: it has no slot, or several, of token ids, logits or picks",
                           model->info.path);
    widths[__builtin_ctz(ids)] = 1;
    for (size_t i = 0; i < model->n_ops; i++) {
        const ht_op *op = &model->ops[i];
        ht_status status = check_named(model, op, error);
        if (status)
            return status;
        const uint32_t missing = ht_op_reads(op) & ~written & ~HT_BIT_KV;
        if (missing)
            return ht_fail(error, HT_ERROR_FORMAT, "%s: %s reads slot %s, which nothing has written", model->info.path,
                           op->name, slot_name(model, missing));
        status = check_widths(model, op, widths, error);
        if (!status)
            status = check_given(model, op, &given, error);
        if (status)
            return status;
        const bool own = ht_op_writes(op) & HT_BIT_KV; /* a state is read by who writes it */
        if (ht_op_reads(op) & HT_BIT_KV && !own && (op->cache < 0 || op->cache >= caches))
            return ht_fail(error, HT_ERROR_FORMAT, "%s: %s reads cache %d, of which %d are written by then",
                           model->info.path, op->name, op->cache, caches);
        if (own && op->cache != caches++)
            return ht_fail(error, HT_ERROR_FORMAT, "%s: %s writes cache %d, not %d", model->info.path, op->name,
                           op->cache, caches - 1);
        written |= ht_op_writes(op);
    }
    if (given)
        return ht_fail(error, HT_ERROR_FORMAT, "%s: no norm adds slot %s at the end", model->info.path,
                       slot_name(model, given));
    return HT_OK;
}

/* Do the parts of the axis cover each row, column or head of one operator exactly once? In parts of every size: a
 * matrix that is no whole number of them leaves a rest. */
static ht_status check_axis(const ht_model *model, const ht_block *block, const ht_axis *axis, size_t place,
                            ht_error *error) {
    ht_axis_piece pieces[HT_MAX_PARTS];
    const ht_op *op = &model->ops[block->first + place];
    size_t reached[HT_MAX_PARTS] = {0}, all[HT_MAX_PARTS] = {0}, n = 0;
    bool good = true;
    const size_t least = ht_max_size(axis->least, 1);
    for (size_t begin = 0; begin < axis->extent && good; begin += least) {
        n = ht_axis_pieces(model, block, axis, place, begin, ht_min_size(begin + least, axis->extent), pieces);
        for (size_t p = 0; p < n; p++) {
            good &= pieces[p].begin == reached[p] &&
                    (pieces[p].end > pieces[p].begin || (axis->group && p)); /* some parts have no group's first */
            reached[p] = pieces[p].end;
            all[p] = pieces[p].of;
        }
    }
    for (size_t p = 0; p < n; p++)
        good &= reached[p] == all[p];
    const bool divided = axis->maps[place] != HT_MAP_EVERY && axis->maps[place] != HT_MAP_REPLICATED;
    const bool adds = axis->result == HT_RESULT_SUMS && place + 1 == axis->to; /* sums are over what was divided */
    const bool summed = axis->maps[place] == HT_MAP_COLUMNS || axis->maps[place] == HT_MAP_TERMS;
    if (good && (n > 0) == divided && (!adds || summed))
        return HT_OK;
    return ht_fail(error, HT_ERROR_FORMAT, "%s: %s does not divide into %zu parts", model->info.path, op->name,
                   axis->extent / least);
}

/* Of a slot that an operator of the axis has computed a share of there is no more: who reads it takes that share,
 * too. Of a cache others may need what groups have in common, once it is ready. */
static ht_status check_readers(const ht_model *model, const ht_block *block, const ht_axis *axis, ht_error *error) {
    uint32_t shares = 0; /* slots that have been divided */
    const uint32_t own = ht_model_slots(model, HT_ROLE_OWN), sums = ht_model_slots(model, HT_ROLE_SUMS);
    const ht_op *last = &model->ops[block->first + axis->to - 1];
    if (axis->result == HT_RESULT_SUMS && !(ht_op_writes(last) & sums))
        return ht_fail(error, HT_ERROR_FORMAT, "%s: %s leaves sums in slot %s, which is not for sums", model->info.path,
                       last->name, slot_name(model, ht_op_writes(last)));
    for (size_t i = axis->from; i < axis->to; i++) {
        const ht_op *op = &model->ops[block->first + i];
        const bool whole = axis->maps[i] == HT_MAP_EVERY || axis->maps[i] == HT_MAP_REPLICATED;
        if (whole && ht_op_reads(op) & shares)
            return ht_fail(error, HT_ERROR_FORMAT, "%s: %s needs all of slot %s, of which there is a share",
                           model->info.path, op->name, slot_name(model, ht_op_reads(op) & shares));
        if ((axis->maps[i] == HT_MAP_EVERY) != !(ht_op_writes(op) & ~own))
            return ht_fail(error, HT_ERROR_FORMAT, "%s: %s writes slot %s, which every lane %s", model->info.path,
                           op->name, slot_name(model, ht_op_writes(op) & ~HT_BIT_KV),
                           axis->maps[i] == HT_MAP_EVERY ? "computes, and has not of its own" : "has of its own");
        const uint32_t alone = ht_op_writes(op) & ~own & ~ht_model_slots(model, HT_ROLE_PRIVATE);
        if (axis->maps[i] == HT_MAP_REPLICATED && axis->kind != HT_AXIS_TOKENS && alone)
            return ht_fail(error, HT_ERROR_FORMAT, "%s: %s writes slot %s for itself on every lane, which have one",
                           model->info.path, op->name, slot_name(model, alone));
        shares = whole ? shares & ~ht_op_writes(op) : shares | ht_op_writes(op);
        const uint32_t early = i < axis->ready ? ht_op_reads(op) : ht_op_writes(op);
        if (axis->group && (early | (axis->maps[i] != HT_MAP_GROUPS ? ht_op_writes(op) : 0)) & HT_BIT_KV)
            return ht_fail(error, HT_ERROR_FORMAT, "%s: %s and the cache that query heads share", model->info.path,
                           op->name);
    }
    return HT_OK;
}

ht_status ht_model_check(const ht_model *model, ht_error *error) {
    ht_status status = ht_model_check_blocks(model, error);
    if (status == HT_OK)
        status = check_slots(model, error);
    for (size_t k = 0; k < model->n_blocks && status == HT_OK; k++) {
        const ht_block *block = &model->blocks[k];
        bool first = true; /* blocks that are alike need one look */
        for (size_t i = 0; i < k && first; i++)
            first = model->blocks[i].signature != block->signature;
        for (size_t a = block->first_axis; a < block->first_axis + block->n_axes && first && status == HT_OK; a++) {
            for (size_t i = model->axes[a].from; i < model->axes[a].to && status == HT_OK; i++)
                if (model->axes[a].extent)
                    status = check_axis(model, block, &model->axes[a], i, error);
            if (status == HT_OK)
                status = check_readers(model, block, &model->axes[a], error);
        }
    }
    return status;
}
