/* Models: operator lists, slot widths, rope tables, errors, on shape: models, which need no file. What a model computes is
 * tested in tests/golden, and what is wrong with files in tests/golden/test_broken.py. */
#include "test.h"

#include "model/build.h"

#include <math.h>

static ht_model *open_model(const char *spec) {
    ht_error error;
    ht_model *model = NULL;
    check(ht_model_open(spec, &model, &error), &error);
    return model;
}

static const struct {
    const char *spec;
    double billions; /* of parameters in matrices, a tied head once: the real models' own figures less their norms */
    int window, tied;
} shapes[] = {
    {"shape:llama-3-8b", 8.03, 0, 0},     {"shape:llama-2-7b", 6.74, 0, 0},        {"shape:llama-3.2-3b", 3.21, 0, 1},
    {"shape:llama-3.2-1b", 1.24, 0, 1},   {"shape:internlm2-1.8b", 1.89, 0, 0},    {"shape:qwen2.5-1.5b", 1.54, 0, 1},
    {"shape:qwen3-0.6b", 0.60, 0, 1},     {"shape:gemma-3-1b:q8_0", 1.00, 512, 1}, {"shape:smollm2-135m", 0.135, 0, 1},
    {"shape:llama-3.1-8b", 8.03, 0, 0},   {"shape:mistral-7b", 7.25, 0, 0},        {"shape:falcon3-7b", 7.46, 0, 0},
    {"shape:granite-3.1-8b", 8.17, 0, 1}, {"shape:granite-3.3-2b", 2.53, 0, 1},    {"shape:phi-3.5-mini", 3.82, 0, 0},
    {"shape:phi-4-mini", 3.84, 0, 1},     {"shape:internlm3-8b", 8.80, 0, 0},      {"shape:qwen2.5-0.5b", 0.494, 0, 1},
    {"shape:qwen2.5-3b", 3.09, 0, 1},     {"shape:qwen2.5-7b", 7.62, 0, 0},        {"shape:qwen2.5-14b", 14.77, 0, 0},
    {"shape:qwen3-1.7b", 1.72, 0, 1},     {"shape:qwen3-4b", 4.02, 0, 1},          {"shape:qwen3-8b", 8.19, 0, 0},
    {"shape:qwen3-14b", 14.77, 0, 0},     {"shape:gemma-3-4b", 3.88, 1024, 1},
};

/* Every matmul's parts fit the slots it reads and writes, and the list is whole and in order. */
static void check_operators(const ht_model *model) {
    const ht_hparams *h = &model->hparams;
    assert_int_equal(model->n_ops, 9 * (size_t)h->layers + 4);
    assert_int_equal(model->ops[0].kind, HT_OP_EMBED);
    assert_int_equal(model->ops[0].parts[0].rows, h->vocabulary);
    assert_int_equal(model->ops[model->n_ops - 3].kind, HT_OP_NORM);
    assert_int_equal(model->slots[model->ops[model->n_ops - 2].out].role, HT_ROLE_LOGITS);
    assert_int_equal(model->slots[model->ops[model->n_ops - 1].out].role, HT_ROLE_PICK);
    int layer = -1, windows = 0;
    for (size_t i = 0; i < model->n_ops; i++) {
        const ht_op *op = &model->ops[i];
        assert_true(op->layer == layer || op->layer == layer + 1 || op->layer == -1);
        layer = op->layer >= 0 ? op->layer : layer;
        windows += op->window > 0;
        if (op->kind == HT_OP_MATMUL) {
            assert_int_equal(ht_op_cols(op), model->slots[op->in].width);
            assert_int_equal(ht_op_rows(op), model->slots[op->out].width);
        }
        if (op->kind == HT_OP_NORM)
            assert_true(op->weight && op->weight[0] == 1.0f && (uintptr_t)op->weight % 64 == 0);
        if (op->kind == HT_OP_NORM && i > 1)
            assert_int_equal(model->slots[op->aux].role,
                             HT_ROLE_SUMS); /* every block's result is added, the last one's too */
        if (op->kind == HT_OP_ROPE)
            assert_true(op->rope && op->rope_dim == h->head_dim);
    }
    assert_int_equal(layer, h->layers - 1);
    assert_int_equal(model->ops[1].aux, HT_SLOT_NONE);
    assert_int_equal(windows, h->sliding_window ? h->layers - h->layers / 6 : 0);
}

/* Blocks tile the operators, alike ones share a signature, and the tail begins behind the last keys and values. */
static void check_blocks(const ht_model *model) {
    const size_t layers = (size_t)model->hparams.layers;
    size_t in_groups = 0;
    ht_error error;
    assert_int_equal(model->n_blocks, 2 * layers + 1);
    assert_int_equal(model->n_caches, layers);
    assert_int_equal(model->ops[model->tail].kind, HT_OP_ATTENTION);
    assert_int_equal(model->ops[model->tail].layer, layers - 1);
    for (size_t i = 1; i < model->n_ops; i++) {
        const ht_op *op = &model->ops[i];
        const ht_block *block = ht_op_block(model, op);
        assert_non_null(block);
        assert_true(i == block->first + ht_op_place(model, op) && ht_op_place(model, op) < block->n);
        assert_int_equal(op->layer, block->layer);
        assert_in_range(op->site, 0, model->n_sites - 1);
        assert_in_range(op->signature, 0, model->n_signatures - 1);
        assert_int_equal(model->signatures[op->signature].op->kind, op->kind);
    }
    for (size_t k = 0; k < model->n_blocks; k++) {
        const ht_block *block = &model->blocks[k];
        const ht_group *group = &model->groups[block->group];
        assert_int_equal(block->signature, model->blocks[group->block].signature);
        assert_int_equal(block->first_axis, model->blocks[group->block].first_axis);
        assert_true(!block->fused == (block->kind != HT_BLOCK_FEED_FORWARD));
    }
    for (size_t g = 0; g < model->n_groups; g++)
        in_groups += model->groups[g].count;
    assert_int_equal(in_groups, model->n_blocks);
    assert_true(model->groups[model->n_groups - 1].head);
    /* windows make an attention block another; the last layer's have fewer tokens */
    const size_t attention = model->hparams.sliding_window ? 2 : 1;
    assert_int_equal(model->n_block_kinds, attention + 2);
    assert_int_equal(model->n_groups, attention + 4);
    check(ht_model_check(model, &error), &error);
}

/* What one mistake of a family's file would do. */
static void refuses(const ht_model *model, const char *what) {
    ht_error error = {0};
    assert_int_equal(ht_model_check(model, &error), HT_ERROR_FORMAT);
    if (!strstr(error.text, what))
        fail_msg("\"%s\" does not say \"%s\"", error.text, what);
}

#define PLANT(place, member, value, what)                      \
    do {                                                       \
        const __typeof__((place).member) was = (place).member; \
        (place).member = value;                                \
        refuses(model, what);                                  \
        (place).member = was;                                  \
        check(ht_model_check(model, &error), &error);          \
    } while (0)

static void test_planted_faults(void **state) {
    ht_model *model = open_model("shape:tiny");
    ht_error error;
    ht_op *ops = model->ops, kept;
    ht_block *blocks = model->blocks;
    PLANT(blocks[1], first, blocks[1].first + 1, "block 1 (feed-forward, layer 0) begins at operator 7, not 6");
    PLANT(blocks[1], kind, HT_BLOCK_ATTENTION, "ffn_act has no place in a block of kind attention");
    PLANT(blocks[0], n, 4, "attn_output has no place");
    PLANT(ops[3], kind, HT_OP_GLU, "rope has no place");
    PLANT(ops[3], norm_whole, true, "rope norms whole rows in a block of kind attention");
    PLANT(*model, n_blocks, model->n_blocks - 1, "its blocks end at operator");
    PLANT(*model, n_ops, model->n_ops - 1, "its blocks end at operator 22 of 21");
    PLANT(ops[7], out, ops[8].out, "ffn_gate_up writes 512 values a token of slot act, which has 256");
    PLANT(ops[5], out, ops[8].out, "ffn_norm reads slot delta, which nothing has written");
    PLANT(ops[2], in, ops[7].out, "attn_qkv reads slot ffn, which nothing has written");
    PLANT(ops[2], in, model->n_slots, "attn_qkv names slot 10 of 10");
    PLANT(ops[1], in, ops[0].in, "attn_norm has slot ids, which is of another type");
    PLANT(ops[2].parts[1], rows, ops[2].parts[1].rows + 1,
          "attn_qkv writes 257 values a token of slot qkv, which has 256");
    PLANT(ops[9].parts[0], rows, ops[9].parts[0].rows - 32,
          "attn_norm reads 128 values a token of slot delta, which has 96");
    PLANT(ops[7].parts[0], cols, ops[7].parts[0].cols - 32,
          "ffn_gate_up reads 96 values a token of slot normed, which has");
    PLANT(model->slots[ops[5].out], role, HT_ROLE_BETWEEN, "ffn_norm adds slot delta, which is not for sums");
    PLANT(model->slots[ops[1].out], role, HT_ROLE_BETWEEN, "attn_norm writes slot normed, which every lane computes");
    PLANT(model->slots[ops[8].out], role, HT_ROLE_OWN, "ffn_act writes slot act, which every lane has of its own");
    PLANT(model->slots[ops[8].out], role, HT_ROLE_PICK, "it has no slot, or several, of token ids, logits or picks");
    PLANT(ops[6], aux, HT_SLOT_NONE, "ffn_down writes slot delta, which no norm has added yet");
    PLANT(ops[model->n_ops - 3], aux, HT_SLOT_NONE, "no norm adds slot delta at the end");
    PLANT(ops[1], aux, ops[5].out, "attn_norm reads slot delta, which nothing has written");
    PLANT(ops[7], in, ops[5].out, "ffn_gate_up reads slot delta, which is for sums");
    PLANT(ops[4], cache, 1, "attn reads cache 1, of which 1 are written by then");
    PLANT(ops[4], cache, -1, "attn reads cache -1");
    PLANT(ops[3], cache, 1, "rope writes cache 1, not 0");
    PLANT(ops[2].parts[1], rows, ops[2].parts[1].rows - 1, "rope reads 256 values a token of slot qkv, which has 255");
    PLANT(ops[5].parts[0], cols, ops[5].parts[0].cols - 1, "attn_output reads 127 values");
    PLANT(ops[9].parts[0], cols, ops[9].parts[0].cols + 1, "ffn_down reads");
    PLANT(model->axes[0], extent, model->axes[0].extent + 1, "does not divide");
    PLANT(model->axes[0], maps[4], HT_MAP_EVERY,
          "attn_output does not divide"); /* sums that nobody computes a part of */
    PLANT(model->axes[0], maps[3], HT_MAP_REPLICATED, "attn needs all of slot qkv, of which there is a share");
    ht_axis *queries = &model->axes[6]; /* four query heads over two key-value heads */
    assert_int_equal(queries->kind, HT_AXIS_QUERIES);
    assert_int_equal(queries->extent, 4);
    assert_int_equal(queries->group, 2);
    PLANT(*queries, group, 4, "rope does not divide"); /* and the second key-value head is nobody's */
    PLANT(*queries, maps[2], HT_MAP_SHARE, "rope and the cache that query heads share");
    PLANT(*queries, maps[3], HT_MAP_REPLICATED, "attn needs all of slot qkv, of which there is a share");
    PLANT(*queries, ready, 2, "rope and the cache that query heads share");
    PLANT(*queries, ready, 4, "attn and the cache that query heads share");
    kept = ops[4]; /* two operators in the wrong order */
    ops[4] = ops[3];
    ops[3] = kept;
    refuses(model, "has no place");
    ht_model_close(model);
}

/* A block of experts: who has what of it, and what may go wrong. */
static void test_experts(void **state) {
    ht_model *model = open_model("shape:tiny-experts");
    const ht_block *block = &model->blocks[1];
    const ht_op *ops = &model->ops[block->first];
    ht_axis *by_experts = &model->axes[block->first_axis], *by_features = by_experts + 1;
    ht_error error;
    assert_int_equal(block->kind, HT_BLOCK_EXPERTS);
    assert_int_equal(ops[3].kind, HT_OP_EXPERTS);
    assert_int_equal(ops[3].parts[2].rows, 8 * 128);
    assert_int_equal(ops[3].parts[2].cols, 64);
    assert_int_equal(by_experts->extent, 8);
    assert_int_equal(by_features->extent, 64);
    assert_int_equal(by_experts->hand_from, 3); /* the router is not handed over: what it says is */
    assert_int_equal(by_experts->handed, 128 + 8 + 128);
    PLANT(model->slots[ops[1].out], role, HT_ROLE_BETWEEN,
          "ffn_gate_inp writes slot router for itself on every lane, which have one");
    PLANT(model->slots[ops[3].out], role, HT_ROLE_BETWEEN, "which is not for sums");
    PLANT(*by_experts, extent, 9, "ffn_experts does not divide");
    PLANT(*by_experts, maps[3], HT_MAP_REPLICATED, "ffn_experts does not divide");
    PLANT(model->ops[block->first + 2], experts, 7, "ffn_route reads 7 values a token of slot router, which has 8");
    ht_model_close(model);
}

/* What a function that lists operators may get wrong about slots. */
static void test_slots(void **state) {
    char names[HT_MAX_SLOTS + 1][8];
    for (int two_roles = 0; two_roles < 2; two_roles++) {
        ht_model *model = open_model("shape:tiny");
        ht_error error = {0};
        ht_builder b = ht_build_begin(model, &error);
        const int own = ht_build_slot(&b, "x", HT_ROLE_OWN, 64); /* is there, and wider */
        assert_int_equal(own, model->ops[0].out);
        assert_int_equal(model->slots[own].width, model->hparams.embedding);
        if (two_roles)
            assert_int_equal(ht_build_slot(&b, "x", HT_ROLE_SUMS, 64), own);
        for (int i = 0; i <= HT_MAX_SLOTS && !two_roles; i++) {
            snprintf(names[i], sizeof names[i], "s%d", i);
            ht_build_slot(&b, names[i], HT_ROLE_BETWEEN, 1);
        }
        assert_int_equal(b.status, two_roles ? HT_ERROR_FORMAT : HT_ERROR_UNSUPPORTED);
        if (!strstr(error.text,
                    two_roles ? "slot x is declared for two roles" : "slot s21: a model has 31 slots at most"))
            fail_msg("%s", error.text);
        ht_model_close(model);
    }
}

static void feed_forward(ht_builder *b, const char *norm, const char *post_norm) {
    ht_build_block(b, HT_BLOCK_FEED_FORWARD, b->model->hparams.feed_forward);
    if (norm)
        ht_build_norm(b, norm);
    ht_build_gate_up(b);
    ht_build_glu(b, HT_ACT_SILU);
    ht_build_down(b);
    ht_build_add(b, post_norm);
}

static void attention(ht_builder *b) {
    const ht_rotation rotation = {0};
    ht_build_block(b, HT_BLOCK_ATTENTION, b->model->hparams.kv_heads);
    ht_build_norm(b, "attn_norm");
    ht_build_qkv(b, HT_BIAS_OPTIONAL);
    ht_build_rope(b, &rotation);
    ht_build_attention(b, 0, 0);
    ht_build_attention_output(b);
    ht_build_add(b, NULL);
}

/* A block that reads a stream which nobody has given anything to, and gives to the first. */
static void from_second(ht_builder *b) {
    ht_build_stream(b, "second");
    ht_build_block(b, HT_BLOCK_FEED_FORWARD, b->model->hparams.feed_forward);
    ht_build_norm(b, "second_norm");
    ht_build_gate_up(b);
    ht_build_glu(b, HT_ACT_SILU);
    ht_build_stream(b, NULL);
    ht_build_down(b);
    ht_build_add(b, NULL);
}

/* Blocks beside each other, streams and side inputs: what the builder makes of them, and what it refuses. */
static void test_groups(void **state) {
    static const char *const refused[] = {
        NULL,
        "attn_norm: more than two blocks give what it adds",
        "what is normed by itself is added with another block's",
        "stream wide is 256 values wide, more than the embedding's 128",
        "inp_act reads 288 values a token of slot side, which has 256",
        "no norm adds slot delta3 at the end",
        "ffn_gate_up reads slot normed, which nothing has written",
        "4 blocks gave what no norm has added yet",
    };
    for (int i = 0; i < (int)HT_COUNT(refused); i++) {
        ht_model *model = open_model("shape:tiny");
        ht_error error = {0};
        free(model->fused);
        model->fused = NULL;
        model->n_ops = model->n_blocks = model->n_axes = model->n_groups = model->n_signatures = 0;
        model->n_block_kinds = model->n_sites = model->n_caches = model->tail = 0;
        model->n_slots = 0;
        ht_builder b = ht_build_begin(model, &error);
        ht_build_embed(&b, 1);
        ht_build_side(&b, "side", 256, 1);
        ht_build_side(&b, "second", 64, 1);
        ht_build_layer(&b, 0);
        if (i == 6)
            feed_forward(&b, NULL, NULL);
        attention(&b);
        for (int k = 0; k < 1 + (i == 1) + 3 * (i == 7); k++)
            feed_forward(&b, NULL, i == 2 && k == 0 ? "post_norm" : NULL);
        if (i == 2)
            feed_forward(&b, NULL, NULL);
        if (i == 3)
            ht_build_side(&b, "wide", 256, 1), ht_build_stream(&b, "wide");
        if (i == 5)
            ht_build_stream(&b, "second"), feed_forward(&b, "ffn_norm", NULL), ht_build_stream(&b, NULL);
        attention(&b);
        ht_build_block(&b, HT_BLOCK_FEED_FORWARD, model->hparams.feed_forward);
        ht_build_norm(&b, "inp_norm");
        ht_build_side_gate(&b);
        ht_build_side_glu(&b, HT_ACT_SILU, "side", i == 4 ? 32 : 0);
        ht_build_side_output(&b);
        ht_build_add(&b, NULL);
        if (i == 0)
            from_second(&b);
        const ht_status status = ht_build_head(&b);
        if (refused[i] ? !status || !strstr(error.text, refused[i]) : status)
            fail_msg("model %d: \"%s\"", i, error.text);
        if (i == 0) {
            const ht_block *beside = &model->blocks[1];
            const ht_op *next = &model->ops[model->blocks[2].first];
            assert_int_equal(model->blocks[0].first, 3);
            assert_true(beside->n == 3 && beside->n_axes == 3 && beside->fused && beside->fused_from == 0);
            assert_int_equal(model->axes[beside->first_axis + 2].from, 2);
            assert_true(ht_op_added(next) == 2 && next->aux != next->more[0]);
            assert_string_equal(model->signatures[next->signature].name, "norm 128 of 2");
            assert_int_equal(model->most_added, 2);
            const ht_op *narrow = &model->ops[model->blocks[4].first];
            assert_string_equal(model->signatures[narrow->signature].name, "norm 64");
        }
        ht_model_close(model);
    }
}

static void test_shapes(void **state) {
    for (size_t i = 0; i < HT_COUNT(shapes); i++) {
        ht_model *model = open_model(shapes[i].spec);
        const ht_model_info *info = ht_model_get_info(model);
        check_operators(model);
        check_blocks(model);
        assert_true(fabs((double)info->parameters / 1e9 - shapes[i].billions) < 0.006);
        assert_int_equal(info->sliding_window, shapes[i].window);
        assert_string_equal(info->quantisation, i == 7 ? "Q8_0" : "Q4_0");
        const ht_op *head = &model->ops[model->n_ops - 2];
        assert_string_equal(head->parts[0].name, shapes[i].tied ? "token_embd.weight" : "output.weight");
        assert_null(head->parts[0].data);
        ht_model_close(model);
    }
}

static void test_families(void **state) {
    ht_model *gemma = open_model("shape:gemma-3-1b"), *qwen2 = open_model("shape:qwen2.5-1.5b");
    ht_model *qwen3 = open_model("shape:qwen3-0.6b"), *llama = open_model("shape:smollm2-135m");
    const ht_op *rope = &gemma->ops[3];
    assert_int_equal(rope->kind, HT_OP_ROPE);
    assert_true(rope->rope_halves && rope->q_norm && rope->k_norm);
    assert_ptr_not_equal(rope->rope, gemma->ops[3 + 9 * 5].rope); /* layer 5 is global and has a table of its own */
    assert_ptr_equal(rope->rope, gemma->ops[3 + 9 * 6].rope);
    assert_int_equal(gemma->ops[4].window, 512);
    assert_int_equal(gemma->ops[4 + 9 * 5].window, 0);
    assert_true(gemma->ops[6].post_norm && gemma->ops[gemma->n_ops - 3].post_norm && !gemma->ops[1].post_norm);
    assert_true(gemma->ops[0].scale == sqrtf(1152.0f) && gemma->ops[4].scale == 1.0f / 16.0f);
    assert_int_equal(gemma->ops[8].activation, HT_ACT_GELU_TANH);
    assert_true(qwen2->ops[2].bias[0] && qwen2->ops[2].bias[2] && !qwen2->ops[5].bias[0] && qwen2->ops[3].rope_halves);
    assert_true(qwen3->ops[3].q_norm && qwen3->ops[3].rope_halves && !qwen3->ops[2].bias[0]);
    assert_true(!llama->ops[3].rope_halves && !llama->ops[3].q_norm && !llama->ops[6].post_norm);
    assert_true(llama->ops[4].scale == 0.125f && llama->ops[0].scale == 1.0f);
    ht_model_close(gemma);
    ht_model_close(qwen2);
    ht_model_close(qwen3);
    ht_model_close(llama);
}

/* Rows of the table against cos and sin taken afresh. */
static void check_rows(const ht_op *op, size_t head_dim, double base, size_t begin, size_t end) {
    for (size_t row = begin; row < end; row += row % 3 ? 1 : 61) {
        for (size_t pair = 0; pair < head_dim / 2; pair++) {
            const double angle = (double)row * pow(base, -2.0 * (double)pair / (double)head_dim);
            const float *at = op->rope + (row * head_dim / 2 + pair) * 2;
            assert_true(fabs(at[0] - cos(angle)) < 1e-7 && fabs(at[1] - sin(angle)) < 1e-7);
        }
    }
}

static void test_rope(void **state) {
    ht_error error;
    ht_model *model = open_model("shape:qwen3-0.6b");
    const ht_op *op = &model->ops[3];
    check_rows(op, 128, 1e6, 0, HT_ROPE_POSITIONS);
    check(ht_model_extend_rope(model, 5001, &error), &error); /* not a whole block */
    check_rows(op, 128, 1e6, HT_ROPE_POSITIONS - 1, 5001);
    check(ht_model_extend_rope(model, 100, &error), &error); /* less than there is: nothing to do */
    check(ht_model_extend_rope(model, 40960, &error), &error);
    check_rows(op, 128, 1e6, 4990, 40960);
    fails(ht_model_extend_rope(model, 40961, &error), HT_ERROR_ARGUMENT, &error, "40960");
    ht_model_close(model);
}

/* Rows of a table are as long as what is rotated: shorter heads have one of their own, and there is no fifth. */
static void test_rope_limits(void **state) {
    ht_model *model = open_model("shape:tiny");
    ht_error error = {0};
    ht_builder b = ht_build_begin(model, &error);
    ht_hparams few = model->hparams;
    ht_rotation rotation = {.table = ht_build_rope_table_of(&b, &(ht_rope_kind){.freq_base = 500, .dim = 16})};
    few.head_dim = 16;
    ht_build_shape(&b, &few);
    ht_build_rope(&b, &rotation);
    const ht_op *rope = &model->ops[model->n_ops - 1];
    assert_int_equal(rope->rope_dim, 16);
    check(ht_model_extend_rope(model, 65, &error), &error);
    for (size_t i = 0; i < 8; i++) {
        const double angle = 64 * pow(500, -2.0 * (double)i / 16);
        assert_true(fabs((double)rope->rope[64 * 16 + 2 * i] - cos(angle)) < 1e-6);
        assert_true(fabs((double)rope->rope[64 * 16 + 2 * i + 1] - sin(angle)) < 1e-6);
    }
    /* lengths that grow with the position, of which half is not rotated */
    rotation.queries = ht_build_rope_table_of(&b, &(ht_rope_kind){.dim = 16, .growth = 0.5f, .every = 8});
    ht_build_rope(&b, &rotation);
    check(ht_model_extend_rope(model, 65, &error), &error);
    rope = &model->ops[model->n_ops - 1];
    assert_true(fabs((double)rope->rope_queries[64 * 16] - (1 + 0.5 * log(9))) < 1e-6);
    assert_true(rope->rope_queries[64 * 16 + 1] == 0);
    assert_non_null(ht_build_rope_table(&b, 500, false));
    assert_null(ht_build_rope_table(&b, 500, false));
    fails(b.status, HT_ERROR_UNSUPPORTED, &error, "a model has 4 rope tables at most");
    b.status = HT_OK;
    ht_build_rope(&b, &(ht_rotation){.table = model->ops[3].rope});
    fails(b.status, HT_ERROR_FORMAT, &error, "32 of the 16 dimensions");
    ht_model_close(model);
}

static void test_errors(void **state) {
    static const struct {
        const char *path, *culprit;
        ht_status status;
    } cases[] = {
        {"", "no model", HT_ERROR_ARGUMENT},
        {"shape:", "llama-3-8b", HT_ERROR_ARGUMENT},
        {"shape:llama-3-8", "llama-3-8b", HT_ERROR_ARGUMENT}, /* the beginning of a name is not a name */
        {"shape:llama-3-8b:q9", "q9", HT_ERROR_ARGUMENT},
        {"shape:smollm2-135m:q4_k", "576", HT_ERROR_UNSUPPORTED},
        {"/nonexistent/model.gguf", "/nonexistent/model.gguf", HT_ERROR_IO},
    };
    for (size_t i = 0; i < HT_COUNT(cases); i++) {
        ht_error error;
        ht_model *model = NULL;
        fails(ht_model_open(cases[i].path, &model, &error), cases[i].status, &error, cases[i].culprit);
        assert_null(model);
    }
    ht_model_close(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),   cmocka_unit_test(test_planted_faults), cmocka_unit_test(test_experts),
        cmocka_unit_test(test_families), cmocka_unit_test(test_slots),          cmocka_unit_test(test_groups),
        cmocka_unit_test(test_rope),     cmocka_unit_test(test_errors),         cmocka_unit_test(test_rope_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
