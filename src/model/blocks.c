/* Blocks of a model: along which axes each kind can be divided, which are alike, and what that makes of a pass. A new kind is a row
 * of the table. */
#include "model/build.h"

#include <stdio.h>
#include <string.h>

/* ---- kinds --------------------------------------------------------------------------------------------------------------- */

enum { MAX_KIND_AXES = 7 };

typedef struct axis_row {
    ht_axis_kind kind;
    ht_axis_result result;
    size_t from, to;
    size_t least, most;
    const char
        *maps; /* a letter for each of the operators: (e)very, (r)eplicated, (s)hare, (c)olumns, ro(w)s, (g)roups */
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

/* ---- what is divided ------------------------------------------------------------------------------------------------------- */

static ht_map map_of(char letter) {
    switch (letter) {
    case 'e':
        return HT_MAP_EVERY;
    case 'r':
        return HT_MAP_REPLICATED;
    case 's':
        return HT_MAP_SHARE;
    case 'c':
        return HT_MAP_COLUMNS;
    case 'g':
        return HT_MAP_GROUPS;
    default:
        return HT_MAP_ROWS;
    }
}

/* Elements [begin, end) of the first matrix or of heads, and what the groups have in common that begin there. */
static size_t group_pieces(const ht_model *model, const ht_op *op, const ht_axis *axis, size_t begin, size_t end,
                           ht_axis_piece *pieces) {
    const bool matrices = op->kind == HT_OP_MATMUL;
    const ht_hparams h = ht_op_shape(op, &model->hparams);
    const int n = matrices ? op->n_parts : ht_op_writes(op) & HT_BIT_KV ? 3 : 1; /* queries, keys, values */
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
    case HT_MAP_SHARE:
        for (int i = 0; i < op->n_parts && matrices; i++) {
            const size_t each = op->parts[i].rows / axis->extent;
            pieces[i] = (ht_axis_piece){i, false, begin * each, end * each, op->parts[i].rows};
        }
        if (!matrices)
            pieces[0] = (ht_axis_piece){-1, false, begin, end, axis->extent};
        return matrices ? (size_t)op->n_parts : 1;
    case HT_MAP_COLUMNS: {
        const size_t each = ht_op_cols(op) / axis->extent;
        pieces[0] = (ht_axis_piece){0, true, begin * each, end * each, ht_op_cols(op)};
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

/* How many there are of what the axis divides. Where each key-value head has one query head, dividing these is dividing those. */
static size_t extent_of(const ht_model *model, const ht_block *block, const axis_row *row) {
    if (row->kind == HT_AXIS_TOKENS)
        return 0;
    if (row->kind == HT_AXIS_QUERIES) {
        const size_t queries = queries_of(model, block);
        return queries % block->units == 0 && queries > block->units ? queries : 0;
    }
    if (row->kind != HT_AXIS_ROWS)
        return block->units % row->least == 0 ? block->units : 0;
    for (size_t i = row->from; i < row->to; i++)
        if (row->maps[i - row->from] == 'w')
            return ht_op_rows(&model->ops[block->first + i]);
    return 0;
}

/* Floats a token of a slot, as the block has it. */
static size_t width_of(const ht_model *model, const ht_block *block, ht_slot slot) {
    ht_hparams h = model->hparams;
    for (size_t i = 0; i < block->n; i++)
        h = ht_op_shape(&model->ops[block->first + i], &h);
    return ht_slot_width(&h, slot);
}

/* Some of an axis that one device may compute for another: matrices, and what stands between them. Whoever has the rest of the
 * block has its cache, too. */
static void find_handed(const ht_model *model, const ht_block *block, ht_axis *axis) {
    const ht_op *ops = &model->ops[block->first];
    if (axis->kind == HT_AXIS_TOKENS || block->kind == HT_BLOCK_HEAD)
        return;
    for (size_t i = axis->from; i < axis->to; i++)
        if ((ht_op_reads(&ops[i]) | ht_op_writes(&ops[i])) & HT_BIT_KV)
            return;
    axis->hand_from = axis->from;
    while (axis->hand_from < axis->to && ops[axis->hand_from].kind != HT_OP_MATMUL)
        axis->hand_from++;
    if (axis->hand_from == axis->to) {
        axis->hand_from = 0;
        return;
    }
    axis->hand_to = axis->result == HT_RESULT_SUMS ? axis->to : axis->hand_from + 1;
    axis->handed = width_of(model, block, ops[axis->hand_from].in) + width_of(model, block, ops[axis->hand_to - 1].out);
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
            axis->lent = 2 * (size_t)ht_op_shape(op, &model->hparams).head_dim;
        }
    }
}

static ht_axis make_axis(const ht_model *model, const ht_block *block, const axis_row *row) {
    const ht_op *ops = &model->ops[block->first];
    ht_axis axis = {.kind = row->kind,
                    .result = row->result,
                    .from = row->from,
                    .to = row->to,
                    .extent = extent_of(model, block, row),
                    .least = row->least,
                    .most = row->most,
                    .exact = row->kind != HT_AXIS_ROWS,
                    .leaves = block->kind == HT_BLOCK_HEAD ? 0 : width_of(model, block, ops[row->to - 1].out)};
    for (size_t i = row->from; i < row->to; i++) {
        axis.maps[i] = map_of(row->maps[i - row->from]);
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

/* ---- what is alike --------------------------------------------------------------------------------------------------------- */

/* All that an operator's time depends on. The model's first norm has nothing to add as yet: it counts as the next one, for else the
 * first layer would be unlike all others. */
static void describe(const ht_model *model, const ht_op *op, ht_text *text) {
    static const char *const names[HT_OP_KINDS] = {"embed",     "norm", "matmul", "rope",
                                                   "attention", "glu",  "argmax", "ffn"};
    const ht_op *end = model->ops + model->n_ops, *next = op;
    while (op->kind == HT_OP_NORM && next < end && (next->kind != HT_OP_NORM || next->aux == HT_SLOT_NONE))
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
        break;
    case HT_OP_FFN:
        for (int i = 0; i < 3; i++) {
            ht_text_printf(text, NULL, i ? " + " : " ");
            describe(model, &op->members[i], text);
        }
        break;
    case HT_OP_ROPE:
    case HT_OP_ATTENTION:
        ht_text_printf(text, NULL, " %d/%d x %d", h->heads, h->kv_heads, h->head_dim);
        if (op->window)
            ht_text_printf(text, NULL, " window %d", op->window);
        if (op->q_norm)
            ht_text_printf(text, NULL, " norms");
        break;
    default:
        ht_text_printf(text, NULL, " %zu%s", ht_slot_width(h, op->kind == HT_OP_GLU ? op->out : op->in),
                       op->post_norm ? " post" : "");
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

/* Blocks that a pass treats alike: of one signature, on one side of the tail. */
static void group_block(ht_builder *b, size_t number) {
    ht_model *model = b->model;
    ht_block *block = &model->blocks[number];
    const bool head = block->kind == HT_BLOCK_HEAD, last = number + 2 == model->n_blocks;
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

/* ---- all of it ------------------------------------------------------------------------------------------------------------- */

/* The blocks' lengths, their operators' numbers, caches, what can be one operator. */
static void tile(ht_builder *b) {
    ht_model *model = b->model;
    for (size_t k = 0; k < model->n_blocks; k++) {
        ht_block *block = &model->blocks[k];
        block->n = (k + 1 < model->n_blocks ? model->blocks[k + 1].first : model->n_ops) - block->first;
        for (size_t i = 0; i < block->n; i++)
            model->ops[block->first + i].block = (int)k;
        const size_t fused = kinds[block->kind].fused;
        if (fused && fused < block->n &&
            ht_op_ffn(&model->ops[block->first + fused], block->n - fused, &model->fused[k])) {
            block->fused = &model->fused[k];
            block->fused_from = fused;
            block->fused_to = fused + 3;
        }
    }
    for (size_t i = 0; i < model->n_ops; i++) {
        const ht_op *op = &model->ops[i];
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
    model->ops[0].signature = sign(b, &model->ops[0]);
    model->ops[0].site = (int)model->n_sites++;
    if (b->status == HT_OK)
        model->signatures[model->ops[0].signature].head = false;
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

/* ---- checks ---------------------------------------------------------------------------------------------------------------- */

ht_status ht_model_check_blocks(const ht_model *model, ht_error *error) {
    size_t next = 1; /* behind EMBED */
    if (model->n_ops == 0 || model->ops[0].kind != HT_OP_EMBED)
        return ht_fail(error, HT_ERROR_FORMAT, "%s: does not begin with an embedding", model->info.path);
    for (size_t k = 0; k < model->n_blocks; k++) {
        const ht_block *block = &model->blocks[k];
        const kind_row *kind = &kinds[block->kind];
        if (block->first != next || block->n == 0)
            return ht_fail(error, HT_ERROR_FORMAT, "%s: block %zu (%s, layer %d) begins at operator %zu, not %zu",
                           model->info.path, k, kind->name, block->layer, block->first, next);
        for (size_t i = 0; i < block->n || i < kind->n; i++)
            if (i >= block->n || i >= kind->n || model->ops[next + i].kind != kind->ops[i])
                return ht_fail(error, HT_ERROR_FORMAT, "%s: %s has no place in a block of kind %s", model->info.path,
                               next + i < model->n_ops ? model->ops[next + i].name : "the end", kind->name);
        next += block->n;
    }
    if (next != model->n_ops || model->n_blocks == 0 || model->blocks[model->n_blocks - 1].kind != HT_BLOCK_HEAD)
        return ht_fail(error, HT_ERROR_FORMAT, "%s: its blocks end at operator %zu of %zu", model->info.path, next,
                       model->n_ops);
    return HT_OK;
}

/* Is each slot, and each cache, written before it is read? */
static ht_status check_slots(const ht_model *model, ht_error *error) {
    uint32_t written = 1u << HT_SLOT_IDS;
    int caches = 0;
    for (size_t i = 0; i < model->n_ops; i++) {
        const ht_op *op = &model->ops[i];
        const uint32_t missing = ht_op_reads(op) & ~written & ~HT_BIT_KV;
        if (missing)
            return ht_fail(error, HT_ERROR_FORMAT, "%s: %s reads slot %d, which nothing has written", model->info.path,
                           op->name, __builtin_ctz(missing));
        if (ht_op_reads(op) & HT_BIT_KV && (op->cache < 0 || op->cache >= caches))
            return ht_fail(error, HT_ERROR_FORMAT, "%s: %s reads cache %d, of which %d are written by then",
                           model->info.path, op->name, op->cache, caches);
        if (ht_op_writes(op) & HT_BIT_KV && op->cache != caches++)
            return ht_fail(error, HT_ERROR_FORMAT, "%s: %s writes cache %d, not %d", model->info.path, op->name,
                           op->cache, caches - 1);
        written |= ht_op_writes(op);
    }
    return HT_OK;
}

/* Do the parts of the axis cover each row, column or head of one operator exactly once? In parts of every size: a matrix that is
 * no whole number of them leaves a rest. */
static ht_status check_axis(const ht_model *model, const ht_block *block, const ht_axis *axis, size_t place,
                            ht_error *error) {
    ht_axis_piece pieces[HT_MAX_PARTS];
    const ht_op *op = &model->ops[block->first + place];
    size_t reached[HT_MAX_PARTS] = {0}, all[HT_MAX_PARTS] = {0}, n = 0;
    bool good = true;
    for (size_t begin = 0; begin < axis->extent && good; begin += axis->least) {
        n = ht_axis_pieces(model, block, axis, place, begin, ht_min_size(begin + axis->least, axis->extent), pieces);
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
    if (good && (n > 0) == divided && (!adds || axis->maps[place] == HT_MAP_COLUMNS))
        return HT_OK;
    return ht_fail(error, HT_ERROR_FORMAT, "%s: %s does not divide into %zu parts", model->info.path, op->name,
                   axis->extent / axis->least);
}

/* Of a slot that an operator of the axis has computed a share of there is no more: who reads it takes that share, too. Of a cache
 * others may need what groups have in common, once it is ready. */
static ht_status check_readers(const ht_model *model, const ht_block *block, const ht_axis *axis, ht_error *error) {
    uint32_t shares = 0; /* slots that have been divided */
    for (size_t i = axis->from; i < axis->to; i++) {
        const ht_op *op = &model->ops[block->first + i];
        const bool whole = axis->maps[i] == HT_MAP_EVERY || axis->maps[i] == HT_MAP_REPLICATED;
        if (whole && ht_op_reads(op) & shares)
            return ht_fail(error, HT_ERROR_FORMAT, "%s: %s needs all of slot %d, of which there is a share",
                           model->info.path, op->name, __builtin_ctz(ht_op_reads(op) & shares));
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
