/* Several lanes in one pass: two CPU devices on cores of their own against one, with every cut, and continuing without a
 * device that failed. Costs of operators are made up at random, so that the planner comes to divide in all sorts of ways;
 * what it predicts is of no interest here. */
#include "unit/recurrent_model.h"
#include "unit/scalar.h"
#include "unit/test.h"
#include "unit/varied_model.h"

#include "base/os.h"
#include "device/common.h"
#include "engine/engine.h"
#include "model/build.h"
#include "session/session.h"

#include <float.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

enum { VOCABULARY = 512, CONTEXT = 256, CHUNK = 64, MOST = 100, DECODED = 20, SCORED = 255 };
#define BOTH "cpu:cpus=0,cpu:cpus=1"

static const size_t lengths[] = {1, 2, 3, 5, 31, 33, 64, 100};
enum { LENGTHS = HT_COUNT(lengths) };
static int32_t ids[CONTEXT];
static ht_model *model;
static size_t invented, n_invented; /* which of the models of no family this is, from 1; and how many there were */
static float expected[LENGTHS][DECODED + 1][VOCABULARY]; /* logits behind ids[0..lengths[i] + k) on one lane */
static float expected_score[SCORED];
static float bound;          /* how far logits may be from these */
static float worst;          /* the largest difference so far */
static atomic_uint warnings; /* that a device has failed */

static uint32_t random_state = 1;
static unsigned pick(unsigned n) {
    random_state = random_state * 1664525u + 1013904223u;
    return (random_state >> 8) % n;
}
static double uniform(double low, double high) {
    return low + (high - low) * pick(1u << 16) / 65536.0;
}

/* ---- engines
 * ------------------------------------------------------------------------------------------------------------------ */

static ht_session *open_session(const char *devices, ht_strategy strategy, const char *cuts, ht_engine **engine) {
    const ht_engine_options options =
        HT_INIT(ht_engine_options, .devices = devices, .strategy = strategy, .cuts = cuts,
                .precision = HT_PRECISION_EXACT, .kv_type = HT_KV_F32, .context = CONTEXT, .chunk = CHUNK);
    ht_error error = {0};
    ht_session *session = NULL;
    check(ht_engine_create(model, &options, engine, &error), &error);
    check(ht_session_create(*engine, &session, &error), &error);
    return session;
}

static void close_session(ht_session *session, ht_engine *engine) {
    ht_session_destroy(session);
    ht_engine_destroy(engine);
}

static ht_session *new_session(ht_engine *engine) {
    ht_error error = {0};
    ht_session *session = NULL;
    check(ht_session_create(engine, &session, &error), &error);
    return session;
}

static ht_op_cost make_op(double one) {
    return (ht_op_cost){.points = {{1, one}, {512, one * 200}}, .n_points = 2};
}

/* Costs so much larger than the real ones that what is learned from passes moves all lanes alike. `owned`: one lane does
 * nothing but matrices, and these so quickly that it gets whole ones, too. */
static void pretend(ht_engine *engine, bool owned) {
    const size_t servant = owned ? pick(2) : 2;
    for (size_t l = 0; l < engine->set.n_lanes; l++) {
        ht_lane_cost *cost = &engine->set.lanes[l].cost;
        const double speed = l == servant ? uniform(0.02, 1) : 1;
        *cost = (ht_lane_cost){.devices = engine->set.lanes[l].devices};
        for (size_t k = 0; k < model->n_signatures; k++) {
            const ht_op *op = model->signatures[k].op;
            if (op->kind != HT_OP_FFN)
                cost->ops[k] = make_op(op->kind == HT_OP_MATMUL || op->kind == HT_OP_EXPERTS
                                           ? speed * uniform(0.2, 3)
                                           : uniform(0.01, op->kind == HT_OP_ATTENTION ? 1 : 0.05));
        }
        if (l == servant)
            cost->ops[model->ops[model->blocks[0].first].signature].n_points = 0;
    }
    ht_lanes_keep_ready(&engine->set);
    ht_passes_forget_schedules(&engine->passes);
}

/* Both lanes take the same: everything is halved, and stays so whatever the machine does. */
static void pretend_equal(ht_engine *engine) {
    engine->passes.policy.frozen = true;
    for (size_t l = 0; l < engine->set.n_lanes; l++) {
        ht_lane_cost *cost = &engine->set.lanes[l].cost;
        *cost = (ht_lane_cost){.devices = engine->set.lanes[l].devices};
        for (size_t k = 0; k < model->n_signatures; k++)
            if (model->signatures[k].op->kind != HT_OP_FFN)
                cost->ops[k] = make_op(model->signatures[k].op->kind == HT_OP_NORM ? 0.01 : 1);
    }
    ht_lanes_keep_ready(&engine->set);
    ht_passes_forget_schedules(&engine->passes);
}

/* ---- comparing
 * -------------------------------------------------------------------------------------------------------------- */

static size_t best_of(const float *logits) {
    size_t best = 0;
    for (size_t i = 1; i < VOCABULARY; i++)
        best = logits[i] > logits[best] ? i : best;
    return best;
}

static void same_logits(const float *got, const float *want, const char *what, size_t length, size_t step) {
    for (size_t i = 0; i < VOCABULARY; i++) {
        const float off = fabsf(got[i] - want[i]);
        worst = off > worst ? off : worst;
        if (!(off <= bound))
            fail_msg("%s, %zu tokens, %zu decoded: logit %zu is %g, not %g (bound %g)", what, length, step, i,
                     (double)got[i], (double)want[i], (double)bound);
    }
    const size_t a = best_of(got), b = best_of(want); /* another id only where the two are as good */
    assert_true(a == b || want[b] - want[a] <= 2 * bound);
}

static void same_pick(int32_t got, const float *want, const char *what, size_t length, size_t step) {
    assert_in_range(got, 0, VOCABULARY - 1);
    const size_t best = best_of(want);
    if ((size_t)got != best && want[best] - want[got] > 2 * bound)
        fail_msg("%s, %zu tokens, %zu decoded: picks %d, not %zu", what, length, step, (int)got, best);
}

/* Prompt number i and the tokens behind it, against what one lane gives. Every second token is asked for as a pick. */
static ht_status try_prompt(ht_session *session, size_t i, const char *what, ht_error *error) {
    const size_t n = lengths[i];
    const float *logits = NULL;
    int32_t next = 0;
    ht_status status = ht_session_prefill(session, ids, n, &logits, NULL, error);
    if (!status)
        same_logits(logits, expected[i][0], what, n, 0);
    for (size_t k = 1; k <= DECODED && !status; k++) {
        if (k % 2) {
            status = ht_session_decode_greedy(session, ids[n + k - 1], &next, error);
            if (!status)
                same_pick(next, expected[i][k], what, n, k);
            continue;
        }
        status = ht_session_decode(session, ids[n + k - 1], &logits, error);
        if (!status)
            same_logits(logits, expected[i][k], what, n, k);
    }
    return status;
}

static void run_prompt(ht_engine *engine, size_t i, const char *what) {
    ht_error error = {0};
    ht_session *session = new_session(engine);
    check(try_prompt(session, i, what, &error), &error);
    ht_session_destroy(session);
}

static void same_score(ht_session *session, int chunk, const char *what) {
    float got[SCORED];
    ht_error error = {0};
    check(ht_session_score(session, ids, SCORED, chunk, got, 0, NULL, &error), &error);
    for (size_t i = 1; i < SCORED; i++)
        if (!(fabsf(got[i] - expected_score[i]) <= 2 * bound))
            fail_msg("%s, chunks of %d: token %zu scores %g, not %g", what, chunk, i, (double)got[i],
                     (double)expected_score[i]);
}

static void count_warnings(ht_log_level level, const char *line, void *user) {
    if (level == HT_LOG_WARN && strstr(line, "failed: continuing without it"))
        atomic_fetch_add(&warnings, 1);
}

/* What follows each prompt on one lane. Only the order of additions differs elsewhere: sums of at most 256 products
 * (each error grows as the root of that), so many matrices one behind another, and no more than that in norms, which
 * divide by the size of the whole. */
static void expect_logits(int matrices) {
    ht_error error = {0};
    ht_engine *engine;
    ht_session *session = open_session("cpu:cpus=0", HT_STRATEGY_SINGLE, NULL, &engine);
    float largest = 0;
    for (size_t i = 0; i < LENGTHS; i++) {
        const float *logits;
        check(ht_session_prefill(session, ids, lengths[i], &logits, NULL, &error), &error);
        for (size_t k = 0; k <= DECODED; k++) {
            memcpy(expected[i][k], logits, sizeof expected[i][k]);
            for (size_t v = 0; v < VOCABULARY; v++)
                largest = fmaxf(largest, fabsf(logits[v]));
            if (k < DECODED)
                check(ht_session_decode(session, ids[lengths[i] + k], &logits, &error), &error);
        }
    }
    check(ht_session_score(session, ids, SCORED, 0, expected_score, 0, NULL, &error), &error);
    close_session(session, engine);
    bound = (float)matrices * 16 * FLT_EPSILON / 2 * largest;
    session = open_session(BOTH, HT_STRATEGY_TENSOR, NULL, &engine); /* measures: later engines find it */
    close_session(session, engine);
}

static int open_model(void **state) {
    ht_error error = {0};
    /* measured once, for this program only; PoCL's compiler keeps the folder that it began with */
    if (!*test_folder && (make_folder(state) || setenv("XDG_CACHE_HOME", test_folder, 1)))
        return -1;
    ht_log_set(count_warnings, NULL, HT_LOG_WARN);
    for (int i = 0; i < CONTEXT; i++)
        ids[i] = (i * i * 7 + i * 37 + 11) % VOCABULARY;
    invented = 0;
    if (ht_model_open("shape:tiny", &model, &error)) {
        print_error("%s\n", error.text);
        return -1;
    }
    expect_logits(9); /* two layers of four, and the head */
    return 0;
}

static void attention(ht_builder *b, int layer, const ht_rotation *rotation, int window) {
    ht_build_layer(b, layer);
    ht_build_block(b, HT_BLOCK_ATTENTION, b->shape ? b->shape->kv_heads : model->hparams.kv_heads);
    ht_build_norm(b, "attn_norm");
    ht_build_qkv(b, HT_BIAS_OPTIONAL);
    ht_build_rope(b, rotation);
    ht_build_attention(b, 0, window);
    ht_build_attention_output(b);
    ht_build_add(b, NULL);
}

static void feed_forward(ht_builder *b, int layer) {
    ht_build_layer(b, layer);
    ht_build_feed_forward(b, "ffn_norm", HT_ACT_SILU, NULL);
}

/* Three of eight experts; with `shared`, one that every token has beside them, weighted by a router of its own. */
static void experts(ht_builder *b, int layer, bool shared) {
    static const ht_mixture of_eight = {.experts = 8,
                                        .features = 96,
                                        .route = {HT_ROUTE_SOFTMAX, .used = 3, .renormalise = true, .scale = 1}},
                            one = {.experts = 1, .features = 64, .route = {HT_ROUTE_SIGMOID, .used = 1, .scale = 1}};
    ht_build_layer(b, layer);
    ht_build_experts(b, &of_eight, "ffn_norm", NULL);
    if (!shared)
        return;
    ht_build_block(b, HT_BLOCK_EXPERTS, one.features);
    ht_build_router(b, &one);
    ht_build_chosen(b, &one);
    ht_build_add(b, NULL);
}

/* The operators of shape:tiny are taken away; others are to be listed with *b, and rotated by the same table. */
static int begin_other(void **state, ht_builder *b, ht_rotation *rotation, ht_error *error) {
    if (open_model(state))
        return -1;
    invented = ++n_invented;
    *rotation = recurrent_anew(model, b, error);
    return 0;
}

/* A model of no family: blocks in another order, of one kind behind each other, one with a window and shorter heads,
 * of which two at least go to one lane, one whose heads divide otherwise, one that comes again with a cache of its
 * own, and two behind the last that writes one; mixtures of experts before and behind that. */
static int open_mixed(void **state) {
    ht_error error = {0};
    ht_builder b;
    ht_rotation rotation;
    if (begin_other(state, &b, &rotation, &error))
        return -1;
    ht_hparams few = model->hparams, wide = few;
    few.kv_heads = 1, few.head_dim = 16, few.feed_forward = 128;
    wide.kv_heads = 1;
    const ht_rotation shorter = {.table = ht_build_rope_table_of(&b, &(ht_rope_kind){.freq_base = 500, .dim = 16})};
    model->hparams.group = 4;
    feed_forward(&b, 1);
    attention(&b, 0, &rotation, 0);
    ht_build_shape(&b, &few);
    attention(&b, 1, &shorter, 16);
    feed_forward(&b, 0);
    ht_build_shape(&b, NULL);
    experts(&b, 0, true);
    attention(&b, 0, &rotation, 0);
    ht_build_shape(&b, &wide);
    attention(&b, 1, &rotation, 0);
    ht_build_shape(&b, NULL);
    feed_forward(&b, 1);
    experts(&b, 1, false);
    feed_forward(&b, 0);
    check(ht_build_head(&b), &error);
    check(ht_model_extend_rope(model, CONTEXT, &error), &error);
    assert_int_equal(model->n_caches, 4);
    assert_int_equal(model->n_block_kinds, 9); /* an attention whose norm adds two blocks' is one by itself */
    assert_int_equal(model->blocks[8].first, model->tail + 2); /* the last attention's own end is of the tail, too */
    expect_logits(17 + 3 * 3);
    return 0;
}

/* As in Command R: both read one norm, and the next adds both. */
static void attention_and_feed_forward(ht_builder *b, int layer, const ht_rotation *rotation, const char *post_norm) {
    attention(b, layer, rotation, 0);
    ht_build_block(b, HT_BLOCK_FEED_FORWARD, model->hparams.feed_forward);
    ht_build_gate_up(b);
    ht_build_glu(b, HT_ACT_SILU);
    ht_build_down(b);
    ht_build_add(b, post_norm);
}

/* As in Gemma 3n: a factor made of the token's id alone, another for each layer. */
static void side_block(ht_builder *b, int layer) {
    ht_hparams few = model->hparams;
    few.feed_forward = 64;
    ht_build_layer(b, layer);
    ht_build_shape(b, &few);
    ht_build_block(b, HT_BLOCK_FEED_FORWARD, 64);
    ht_build_norm(b, "inp_norm");
    ht_build_side_gate(b);
    ht_build_side_glu(b, HT_ACT_SILU, "per_layer", 64 * (size_t)layer);
    ht_build_side_output(b);
    ht_build_add(b, NULL);
    ht_build_shape(b, NULL);
}

static void attend(ht_builder *b, const ht_rotation *rotation) {
    ht_build_qkv(b, HT_BIAS_OPTIONAL);
    ht_build_rope(b, rotation);
    ht_build_attention(b, 0, 0);
}

/* A model of no family: blocks beside each other, one pair with a norm behind the join, one with attention behind,
 * so that both of them end before the head; a side input; and a second stream, to which attention gives what a
 * feed-forward block reads, while blocks of the first stream come between. */
static int open_groups(void **state) {
    ht_error error = {0};
    ht_builder b;
    ht_rotation rotation;
    if (begin_other(state, &b, &rotation, &error))
        return -1;
    ht_build_side(&b, "per_layer", 128, 20);
    ht_build_side(&b, "second", 96, 0.5f);
    attention_and_feed_forward(&b, 0, &rotation, NULL);
    side_block(&b, 0);
    ht_build_layer(&b, 1);
    ht_build_block(&b, HT_BLOCK_ATTENTION, model->hparams.kv_heads);
    ht_build_norm(&b, "attn_norm");
    attend(&b, &rotation);
    ht_build_stream(&b, "second");
    ht_build_attention_output(&b);
    ht_build_add(&b, NULL);
    ht_build_stream(&b, NULL);
    attention_and_feed_forward(&b, 0, &rotation, "post_norm");
    side_block(&b, 1);
    ht_build_stream(&b, "second");
    ht_build_block(&b, HT_BLOCK_FEED_FORWARD, model->hparams.feed_forward);
    ht_build_norm(&b, "ffn_norm");
    ht_build_gate_up(&b);
    ht_build_glu(&b, HT_ACT_SILU);
    ht_build_stream(&b, NULL);
    ht_build_down(&b);
    ht_build_add(&b, NULL);
    feed_forward(&b, 1);
    ht_build_block(&b, HT_BLOCK_ATTENTION, model->hparams.kv_heads);
    attend(&b, &rotation);
    ht_build_attention_output(&b);
    ht_build_add(&b, NULL);
    check(ht_build_head(&b), &error);
    size_t last = 0;
    for (size_t g = 0; g < model->n_groups; g++)
        last += model->groups[g].last ? model->groups[g].count : 0;
    assert_int_equal(last, 2);
    assert_int_equal(model->n_caches, 4);
    assert_int_equal(model->most_added, 2);
    expect_logits(28);
    return 0;
}

/* States in place of keys and values: who has a part of a pass needs those of the part before. */
static int open_recurrent(void **state) {
    ht_error error = {0};
    ht_builder b;
    ht_rotation rotation;
    if (begin_other(state, &b, &rotation, &error))
        return -1;
    check(recurrent_list(&b, &rotation), &error);
    assert_int_equal(model->n_caches, RECURRENT_CACHES);
    expect_logits(RECURRENT_MATRICES);
    return 0;
}

/* What families do to norms, heads, scores and logits. */
static int open_varied(void **state) {
    ht_error error = {0};
    ht_builder b;
    ht_rotation rotation;
    if (begin_other(state, &b, &rotation, &error))
        return -1;
    model->shape_type = ht_type_by_name("F16"); /* of latent rows no column has whole blocks */
    check(varied_list(&b, rotation.table), &error);
    check(ht_model_extend_rope(model, CONTEXT, &error), &error);
    assert_int_equal(model->n_caches, VARIED_CACHES);
    expect_logits(VARIED_MATRICES);
    return 0;
}

/* One lane against operators computed one by one. */
static void test_scalar(void **state) {
    for (size_t i = 0; i < LENGTHS && lengths[i] < 64; i++) {
        float logits[VOCABULARY];
        scalar_logits(model, ids, lengths[i], logits);
        same_logits(expected[i][0], logits, "one lane against the scalar reference", lengths[i], 0);
    }
}

static int close_model(void **state) {
    print_message("largest difference of a logit: %g of %g allowed\n", (double)worst, (double)bound);
    ht_model_close(model);
    return 0;
}

static int close_all(void **state) {
    return close_model(state) || remove_folder(state);
}

static bool has_axis(ht_axis_kind kind) {
    for (size_t a = 0; a < model->n_axes; a++)
        if (model->axes[a].kind == kind && model->axes[a].extent > 1)
            return true;
    return false;
}

/* Experts have no rows to cut. */
static const char *by_rows(void) {
    return has_axis(HT_AXIS_EXPERTS) ? "row,feature" : "row";
}

/* Does a lane of the schedule begin within the query heads of a key-value head in some block? */
static bool cuts_a_group(const ht_engine *engine, const ht_schedule *s) {
    for (size_t k = 0; k < model->n_blocks && s->tokens && s->choice.regime == HT_REGIME_SHARES; k++) {
        const ht_group_choice *c = &s->choice.groups[model->blocks[k].group];
        for (size_t a = 0; a < c->n_axes; a++) {
            const size_t number = model->blocks[k].first_axis + c->axes[a];
            const ht_axis *axis = &model->axes[number];
            if (axis->group && c->units[c->axes[a]][0] * engine->passes.units[number].grain % axis->group)
                return true;
        }
    }
    return false;
}

/* Have both lanes of the schedule experts of some block? */
static bool cuts_experts(const ht_schedule *s) {
    for (size_t k = 0; k < model->n_blocks && s->tokens && s->choice.regime == HT_REGIME_SHARES; k++) {
        const ht_group_choice *c = &s->choice.groups[model->blocks[k].group];
        for (size_t a = 0; a < c->n_axes; a++)
            if (model->axes[model->blocks[k].first_axis + c->axes[a]].kind == HT_AXIS_EXPERTS &&
                c->units[c->axes[a]][0] && c->units[c->axes[a]][1])
                return true;
    }
    return false;
}

/* ---- every cut
 * ---------------------------------------------------------------------------------------------------------------- */

static void test_every_cut(void **state) {
    static const struct {
        const char *cuts;
        bool owned; /* one lane has the rest, so that the other serves it */
        ht_regime regime;
    } rows[] = {{"causal", false, HT_REGIME_TOKENS},
                {"row", false, HT_REGIME_SHARES},
                {"head,feature", false, HT_REGIME_SHARES},
                {"head,feature,row", false, HT_REGIME_SHARES},
                {"query,feature", false, HT_REGIME_SHARES},
                {"expert,head,row", false, HT_REGIME_SHARES}, /* where there are experts */
                {"row", true, HT_REGIME_OWNER},
                {"feature", true, HT_REGIME_OWNER},
                {"layer", true, HT_REGIME_OWNER},
                {"sequence,row", true, HT_REGIME_OWNER},
                {"sequence", true, HT_REGIME_OWNER},
                {"hybrid", true, HT_REGIME_OWNER},
                {"hybrid,row,feature,sequence", true, HT_REGIME_OWNER},
                {"causal,row,head,feature,layer,sequence,hybrid", false, HT_REGIME_SHARES}};
    const bool recurs = ht_model_has_state(model);
    const size_t turns = SANITIZED || is_quick() || recurs ? 2 : 8, least = LENGTHS * turns / 8; /* of each */
    /* A sanitizer sees a third of the rows with each model, and all of them with some. */
    for (size_t r = SANITIZED ? (invented + 1) % 3 : 0; r < HT_COUNT(rows); r += SANITIZED ? 3 : 1) {
        ht_engine *engine;
        char cuts[80]; /* blocks with states have cuts of their own */
        const char *own = strcmp(rows[r].cuts, "row") == 0 && !rows[r].owned ? by_rows() : rows[r].cuts;
        snprintf(cuts, sizeof cuts, "%s%s", own, r && recurs ? ",channel" : "");
        const bool experts = strstr(cuts, "expert");
        if (experts && !has_axis(HT_AXIS_EXPERTS))
            continue;
        ht_session *session = open_session(BOTH, HT_STRATEGY_TENSOR, cuts, &engine);
        size_t seen = 0, groups = 0, divided = 0;
        assert_int_equal(engine->set.n_lanes, 2);
        for (size_t turn = 0; turn < turns; turn++)
            for (size_t i = 0; i < LENGTHS; i++) {
                random_state = (uint32_t)(r * 1000 + turn * 10 + i) * 2654435761u + 1;
                pretend(engine, rows[r].owned);
                run_prompt(engine, i, cuts);
                for (size_t k = 0; k < HT_SCHEDULES; k++) {
                    seen += engine->passes.schedules[k].tokens &&
                            engine->passes.schedules[k].choice.regime == rows[r].regime;
                    groups += cuts_a_group(engine, &engine->passes.schedules[k]);
                    divided += cuts_experts(&engine->passes.schedules[k]);
                }
            }
        if (strstr(cuts, "query,") ? groups < (recurs ? 1 : least) : groups > 0) /* it has one block of attention */
            fail_msg("%s: query heads of one key-value head went to both lanes %zu times", cuts, groups);
        if (experts && !rows[r].owned && divided < least)
            fail_msg("%s: experts went to both lanes %zu times only", cuts, divided);
        if (seen < least)
            fail_msg("%s: %s was used %zu times only", cuts, ht_regime_name(rows[r].regime), seen);
        static const int chunks[] = {0, 1, 33};
        for (size_t k = 0; k < HT_COUNT(chunks); k++) {
            pretend(engine, rows[r].owned);
            same_score(session, chunks[k], cuts);
        }
        close_session(session, engine);
    }
}

/* Whole rows of heads are cut by rows and heads, latent rows by query heads: all of these at once, or layers apart. */
static void test_varied_cuts(void **state) {
    static const struct {
        const char *cuts;
        bool owned;
        ht_regime regime;
    } rows[] = {{"causal", false, HT_REGIME_TOKENS},
                {"query,head,row,feature", false, HT_REGIME_SHARES},
                {"row,layer,sequence,hybrid", true, HT_REGIME_OWNER}};
    for (size_t r = 0; r < HT_COUNT(rows); r++) {
        ht_engine *engine;
        size_t seen = 0;
        ht_session *session = open_session(BOTH, HT_STRATEGY_TENSOR, rows[r].cuts, &engine);
        for (size_t i = 0; i < LENGTHS; i++) {
            random_state = (uint32_t)(r * 1000 + i) * 2654435761u + 1;
            pretend(engine, rows[r].owned);
            run_prompt(engine, i, rows[r].cuts);
            for (size_t k = 0; k < HT_SCHEDULES; k++)
                seen +=
                    engine->passes.schedules[k].tokens && engine->passes.schedules[k].choice.regime == rows[r].regime;
        }
        if (seen < LENGTHS / 2)
            fail_msg("%s: %s was used %zu times only", rows[r].cuts, ht_regime_name(rows[r].regime), seen);
        same_score(session, 33, rows[r].cuts);
        close_session(session, engine);
    }
}

/* CPU devices divide whatever a block says can be divided: else one that is never cut passes every other test. */
static void test_every_axis_divides(void **state) {
    ht_engine *engine;
    ht_session *session = open_session(BOTH, HT_STRATEGY_TENSOR, NULL, &engine);
    for (size_t a = 0; a < model->n_axes; a++)
        if (model->axes[a].extent > model->axes[a].least && engine->passes.units[a].of < 2)
            fail_msg("axis %zu, of %zu, is not divided", a, model->axes[a].extent);
    close_session(session, engine);
}

/* Every length to 130 and some to the end of the context, in chunks of 64 from there on: what follows each is what teacher
 * forcing on one lane says. */
typedef void (*change_function)(ht_engine *engine);
static void every_length(ht_engine *engine, const char *cuts, change_function change) {
    ht_error error = {0};
    const float *logits;
    for (size_t n = 1; n < CONTEXT - 1; n += SANITIZED ? 23 : n >= 130 ? 6 : is_quick() ? 13 : 1) {
        change(engine);
        ht_session *fresh = new_session(engine);
        check(ht_session_prefill(fresh, ids, n, &logits, NULL, &error), &error);
        const float score = (float)(logits[ids[n]] - ht_log_sum_exp(logits, VOCABULARY));
        if (n < SCORED && !(fabsf(score - expected_score[n]) <= 2 * bound))
            fail_msg("%s, %zu tokens: the next scores %g, not %g", cuts, n, (double)score, (double)expected_score[n]);
        ht_session_destroy(fresh);
    }
}

static void pretend_any(ht_engine *engine) {
    pretend(engine, false);
}

static void pretend_owned(ht_engine *engine) {
    pretend(engine, true);
}

static void test_every_length(void **state) {
    static const char *const cuts[] = {"causal",         "head,feature",  "row",
                                       "causal,feature", "query,feature", "layer,sequence,hybrid,row,feature"};
    for (size_t c = 0; c < HT_COUNT(cuts); c++) {
        ht_engine *engine;
        ht_session *session = open_session(BOTH, HT_STRATEGY_TENSOR, cuts[c], &engine);
        every_length(engine, cuts[c], c == 5 ? pretend_owned : pretend_any);
        close_session(session, engine);
    }
}

static ht_lane_cost measured[HT_MAX_DEVICES];

static void remember(ht_engine *engine) {
    for (size_t l = 0; l < engine->set.n_lanes; l++)
        measured[l] = engine->set.lanes[l].cost;
}

/* Every operator takes up to three times as long or as short as was measured, at the lengths that were measured: whatever a
 * device has graphs for is used now and then. */
static void disturb(ht_engine *engine) {
    for (size_t l = 0; l < engine->set.n_lanes; l++) {
        ht_lane_cost *cost = &engine->set.lanes[l].cost;
        *cost = measured[l];
        for (size_t k = 0; k < model->n_signatures; k++) {
            const double factor = exp(uniform(-1.1, 1.1));
            for (size_t i = 0; i < cost->ops[k].n_points; i++)
                cost->ops[k].points[i].seconds *= factor;
        }
    }
    ht_lanes_keep_ready(&engine->set);
    ht_passes_forget_schedules(&engine->passes);
}

/* The same with a GPU's and an NPU's runtime, where they are there, each on one core: as they are, and with other times. */
static void test_every_length_on_a_pair(void **state) {
    static const char *const cuts[] = {NULL, "causal", "row,feature", "layer,sequence,hybrid,row,feature"};
    const bool quick = is_quick();
    for (size_t c = 0; c < (quick ? 1 : HT_COUNT(cuts)) && !SANITIZED && !is_unit(); c++) {
        const ht_engine_options options =
            HT_INIT(ht_engine_options, .devices = "opencl:0:cpus=0,openvino:CPU:cpus=1", .strategy = HT_STRATEGY_TENSOR,
                    .cuts = cuts[c], .precision = HT_PRECISION_EXACT, .kv_type = HT_KV_F32, .context = CONTEXT);
        ht_engine *engine;
        ht_error error = {0};
        if (ht_engine_create(model, &options, &engine, &error)) {
            if (must_have("opencl", error.text))
                fail();
            return;
        }
        if (engine->set.n_devices < 3) { /* each with a companion: a runtime that is missing is no error */
            if (must_have(is_required("opencl") ? "opencl" : "openvino", "OpenCL or OpenVINO is not there"))
                fail();
        } else
            for (int i = 0; i < (quick ? 1 : 2); i++)
                every_length(engine, cuts[c] ? cuts[c] : "all cuts", i ? disturb : remember);
        ht_engine_destroy(engine);
    }
}

/* The CPU and a GPU's runtime, either of which makes keys and values that the other waits for. */
static void test_query_heads_on_a_pair(void **state) {
    static const char *const devices[] = {"opencl:0:cpus=0,cpu:cpus=1", "cpu:cpus=1,opencl:0:cpus=0"};
    for (size_t d = 0; d < HT_COUNT(devices) && !SANITIZED && !is_unit(); d++) {
        const ht_engine_options options =
            HT_INIT(ht_engine_options, .devices = devices[d], .strategy = HT_STRATEGY_TENSOR, .cuts = "query,feature",
                    .precision = HT_PRECISION_EXACT, .kv_type = HT_KV_F32, .context = CONTEXT, .chunk = CHUNK);
        ht_engine *engine = NULL;
        ht_error error = {0};
        size_t groups = 0;
        if (ht_engine_create(model, &options, &engine, &error) || engine->set.n_devices < 2) {
            ht_engine_destroy(engine);
            if (must_have("opencl", "OpenCL is not there"))
                fail();
            return;
        }
        for (size_t i = 0; i < LENGTHS; i++) {
            pretend_equal(engine); /* but one lane takes three times as long for attention: one head of four is its */
            for (size_t k = 1; k < model->blocks[0].n; k++)
                engine->set.lanes[i % 2].cost.ops[model->ops[model->blocks[0].first + k].signature] = make_op(3);
            ht_lanes_keep_ready(&engine->set);
            ht_passes_forget_schedules(&engine->passes);
            run_prompt(engine, i, "query,feature");
            for (size_t k = 0; k < HT_SCHEDULES; k++)
                groups += cuts_a_group(engine, &engine->passes.schedules[k]);
        }
        assert_true(groups >= LENGTHS);
        ht_engine_destroy(engine);
    }
}

/* A GPU by itself takes every operator of layers that differ, with memory that it shares with the host and with its
 * own: no companion computes any of them, and what passes come to is what one CPU says. tests/ops has both ways to
 * write kernels. */
static void test_differing_layers_on_a_gpu(void **state) {
    static const char *const devices[] = {"opencl:0", "opencl:0:memory=copied"};
    for (size_t d = 0; d < HT_COUNT(devices) && !is_unit(); d++) {
        const ht_engine_options options =
            HT_INIT(ht_engine_options, .devices = devices[d], .strategy = HT_STRATEGY_SINGLE,
                    .precision = HT_PRECISION_EXACT, .kv_type = HT_KV_F32, .context = CONTEXT, .chunk = CHUNK);
        ht_engine *engine;
        ht_error error = {0};
        if (ht_engine_create(model, &options, &engine, &error)) {
            if (must_have("opencl", error.text))
                fail();
            return;
        }
        ht_plan_row *rows;
        size_t n;
        check(ht_engine_plan(engine, 33, &rows, &n, NULL, &error), &error);
        assert_true(n >= model->n_ops - 1);
        for (size_t i = 0; i < n; i++)
            if (strncmp(rows[i].device, "opencl:0", 8) != 0)
                fail_msg("%s: %s is on %s", devices[d], rows[i].op, rows[i].device);
        ht_free(rows);
        for (size_t i = 0; i < LENGTHS; i += 3)
            run_prompt(engine, i, devices[d]);
        ht_engine_destroy(engine);
    }
}

/* A lane without a share of a sum of parts writes none: what its buffer held before must not be added. */
static void test_lanes_without_a_share(void **state) {
    ht_engine *engine;
    ht_error error = {0};
    ht_session *session = open_session(BOTH, HT_STRATEGY_TENSOR, "head,feature", &engine);
    for (size_t slow = 0; slow < 2; slow++) {
        pretend_equal(engine);
        run_prompt(engine, 3, "halves"); /* leaves sums in both lanes' buffers */
        for (size_t i = 1; i < model->blocks[0].n; i++)
            engine->set.lanes[slow].cost.ops[model->ops[model->blocks[0].first + i].signature] = make_op(1000);
        ht_lanes_keep_ready(&engine->set);
        ht_passes_forget_schedules(&engine->passes);
        const float *logits; /* the first pass: what it took may lead to another choice */
        check(ht_session_prefill(session, ids, lengths[3], &logits, NULL, &error), &error);
        same_logits(logits, expected[3][0], "no heads on one lane", lengths[3], 0);
        assert_int_equal(engine->passes.current->choice.regime, HT_REGIME_SHARES);
        assert_int_equal(engine->passes.current->choice.groups[0].units[0][slow], 0);
        assert_int_not_equal(engine->passes.current->choice.groups[1].units[0][slow], 0);
        same_score(session, 0, "no heads on one lane");
    }
    close_session(session, engine);
}

/* What was measured, and what passes teach: no made-up costs. */
static void test_measured_costs(void **state) {
    static const char *const cuts[] = {NULL, "causal", "row", "head,feature"};
    for (size_t c = 0; c < HT_COUNT(cuts); c++) {
        ht_engine *engine;
        ht_session *session = open_session(BOTH, HT_STRATEGY_TENSOR, cuts[c], &engine);
        for (size_t i = 0; i < LENGTHS; i++)
            run_prompt(engine, i, cuts[c] ? cuts[c] : "all cuts");
        same_score(session, 0, cuts[c] ? cuts[c] : "all cuts");
        close_session(session, engine);
    }
}

static void test_steady_decode_allocates_nothing(void **state) {
    static const char *const cuts[] = {"causal", "row", "head,feature", "feature,layer", NULL};
    for (size_t c = 0; c < HT_COUNT(cuts); c++) {
        ht_engine *engine;
        ht_error error = {0};
        const float *logits;
        int32_t next;
        ht_session *session = open_session(BOTH, HT_STRATEGY_TENSOR, cuts[c], &engine);
        pretend(engine, c == 3);
        /* What is learned may lead to another plan, which is new: it has settled when 100 tokens were the same to it. A
         * noisy machine takes longer. */
        uint64_t made = 1;
        for (int round = 0; round < 8 && made; round++) {
            check(ht_session_prefill(session, ids, 20, &logits, NULL, &error), &error);
            for (int i = 20; i < 80; i++)
                check(ht_session_decode(session, ids[i], &logits, &error), &error);
            made = ht_alloc_count();
            for (int i = 80; i < 180; i++)
                check(i % 2 ? ht_session_decode(session, ids[i], &logits, &error)
                            : ht_session_decode_greedy(session, ids[i], &next, &error),
                      &error);
            made = ht_alloc_count() - made;
        }
        assert_int_equal(made, 0);
        close_session(session, engine);
    }
}

/* ---- several threads
 * ---------------------------------------------------------------------------------------------------------- */

typedef struct runner {
    ht_session *session;
    float logprobs[SCORED];
    ht_status status;
} runner;

static void *run_score(void *argument) {
    runner *r = argument;
    ht_error error;
    r->status = ht_session_score(r->session, ids, SCORED, 16, r->logprobs, 0, NULL, &error);
    return NULL;
}

static void test_two_sessions_take_turns(void **state) {
    static const char *const cuts[] = {"causal", "head,feature", "hybrid,row,feature,sequence"};
    for (size_t c = 0; c < HT_COUNT(cuts); c++) {
        ht_engine *engine;
        ht_session *session = open_session(BOTH, HT_STRATEGY_TENSOR, cuts[c], &engine);
        runner both[2];
        pthread_t threads[2];
        pretend(engine, c == 2);
        for (int i = 0; i < 2; i++) {
            both[i].session = new_session(engine);
            assert_int_equal(pthread_create(&threads[i], NULL, run_score, &both[i]), 0);
        }
        for (int i = 0; i < 2; i++) {
            pthread_join(threads[i], NULL);
            assert_int_equal(both[i].status, HT_OK);
            for (size_t k = 1; k < SCORED; k++)
                assert_true(fabsf(both[i].logprobs[k] - expected_score[k]) <= 2 * bound);
            ht_session_destroy(both[i].session);
        }
        close_session(session, engine);
    }
}

static ht_status (*submit_of_cpu)(ht_device *, ht_task *, const ht_binding *, const ht_dependency *, size_t,
                                  ht_ticket *, ht_error *);
static pthread_t caller;
static ht_cores worker_cores; /* where the second lane's thread stood when it submitted last */

static ht_status submit_and_look(ht_device *device, ht_task *task, const ht_binding *binding,
                                 const ht_dependency *after, size_t n_after, ht_ticket *ticket, ht_error *error) {
    if (!pthread_equal(pthread_self(), caller)) /* whose thread runs what follows the layers */
        (void)ht_os_get_affinity(&worker_cores);
    return submit_of_cpu(device, task, binding, after, n_after, ticket, error);
}

/* A worker is pinned to its lane's cores; when its lane has others, or none of its own as a GPU's, it leaves the old
 * ones. */
static void test_workers_leave_old_cores(void **state) {
    const ht_cores none = {{0}}, sets[] = {ht_cores_one(1), none, ht_cores_one(0), none, ht_cores_one(1)};
    ht_engine *engine;
    ht_cores mine;
    caller = pthread_self();
    assert_true(ht_os_get_affinity(&mine));
    ht_session *session = open_session(BOTH, HT_STRATEGY_TENSOR, "head,feature", &engine);
    ht_device *device = engine->set.devices[1];
    const ht_device_ops *real = device->ops;
    ht_device_ops ops = *real;
    submit_of_cpu = real->submit;
    ops.submit = submit_and_look;
    device->ops = &ops;
    for (size_t i = 0; i < HT_COUNT(sets); i++) {
        pretend_equal(engine);
        engine->set.lanes[0].cores = ht_cores_one(i == 2); /* lanes that share cores would not work side by side */
        engine->set.lanes[1].cores = sets[i];
        worker_cores = none;
        run_prompt(engine, 3, "other cores");
        const ht_cores *right = ht_cores_any(&sets[i]) ? &sets[i] : &mine;
        if (!ht_cores_same(&worker_cores, right))
            fail_msg("change %zu: the worker is on cores %llx, not %llx", i, (unsigned long long)worker_cores.words[0],
                     (unsigned long long)right->words[0]);
    }
    device->ops = real;
    close_session(session, engine);
}

static size_t forgotten;

static void count_forgotten(ht_device *device, void *pages) {
    forgotten++;
}

/* One lane is kept: its devices forget the pages that go, and the engine says what is left. */
static void test_kept_devices_forget(void **state) {
    ht_engine *engine;
    ht_error error = {0};
    ht_session *session = open_session(BOTH, HT_STRATEGY_TENSOR, NULL, &engine);
    ht_session_destroy(session);
    size_t own = 0, slots = 0;
    for (size_t l = 0; l < engine->set.n_lanes; l++)
        own += engine->set.lanes[l].own[ht_model_slot(model, HT_ROLE_OWN)].data != NULL;
    for (int slot = 0; slot < HT_MAX_SLOTS; slot++)
        slots += engine->set.slot_bytes[slot];
    assert_int_equal(own, 2);
    ht_device *device = engine->set.devices[0];
    const ht_device_ops *real = device->ops;
    ht_device_ops ops = *real;
    ops.forget = count_forgotten;
    device->ops = &ops;
    const ht_engine_options options = HT_INIT(ht_engine_options);
    check(ht_engine_keep_lane(engine, 0, &options, &error), &error);
    assert_int_equal(forgotten, own * (2 + HT_LANE_SUMS));
    assert_int_equal(engine->info.buffer_bytes, slots);
    device->ops = real;
    ht_engine_destroy(engine);
}

static void *cancel_soon(void *session) {
    nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    ht_session_cancel(session);
    return NULL;
}

static void test_cancel_from_another_thread(void **state) {
    static const char *const cuts[] = {"causal", "row", "head,feature", "hybrid,sequence"};
    for (size_t c = 0; c < HT_COUNT(cuts); c++) {
        ht_engine *engine;
        ht_error error = {0};
        ht_session *session = open_session(BOTH, HT_STRATEGY_TENSOR, cuts[c], &engine);
        pretend(engine, c == 3);
        for (int turn = 0; turn < 5; turn++) {
            pthread_t thread;
            int32_t prompt[MOST];
            const float *logits;
            ht_status status = HT_OK;
            memcpy(prompt, ids, sizeof prompt);
            assert_int_equal(pthread_create(&thread, NULL, cancel_soon, session), 0);
            const double start = ht_seconds();
            while (!status && ht_seconds() - start < 30) { /* prefills that share nothing, until one is stopped */
                prompt[0] = (prompt[0] + 1) % VOCABULARY;
                status = ht_session_prefill(session, prompt, MOST, &logits, NULL, &error);
            }
            pthread_join(thread, NULL);
            fails(status, HT_ERROR_CANCELLED, &error, "cancelled");
            check(try_prompt(session, LENGTHS - 1, cuts[c], &error), &error); /* still usable, and right */
        }
        close_session(session, engine);
    }
}

/* ---- devices that fail
 * ---------------------------------------------------------------------------------------------------------- */

static ht_session *open_failing(unsigned first, unsigned second, const char *cuts, ht_engine **engine) {
    char devices[128], one[32] = "", other[32] = "";
    if (first)
        snprintf(one, sizeof one, ":fail=%u", first);
    if (second)
        snprintf(other, sizeof other, ":fail=%u", second);
    snprintf(devices, sizeof devices, "cpu:cpus=0%s,cpu:cpus=1%s", one, other);
    ht_session *session = open_session(devices, HT_STRATEGY_TENSOR, cuts, engine);
    atomic_store(&warnings, 0);
    return session;
}

/* Steps of the first prefill of prompt number 3 and of its head, for each lane. */
static void count_steps(const char *cuts, size_t body[2], size_t all[2]) {
    ht_engine *engine;
    ht_error error = {0};
    ht_session *session = open_session(BOTH, HT_STRATEGY_TENSOR, cuts, &engine);
    pretend_equal(engine);
    check(ht_session_prefill(session, ids, lengths[3], NULL, NULL, &error), &error);
    assert_int_equal(engine->passes.current->n_lanes, 2);
    for (size_t l = 0; l < 2; l++) {
        const ht_program *program = &engine->passes.current->programs[l];
        body[l] = program->head;
        all[l] =
            program->n_steps - (l == 0 && program->n_steps > program->head); /* logits are asked for, not the pick */
    }
    close_session(session, engine);
}

/* The device of `lane` fails at its submit number `at`; where that is: 0 in prefill, 1 in its head, 2 later. */
static void fail_once(const char *cuts, size_t lane, size_t at, int where) {
    ht_engine *engine;
    ht_error error = {0};
    const float *logits;
    ht_session *session = open_failing(lane ? 0 : (unsigned)at, lane ? (unsigned)at : 0, cuts, &engine);
    pretend_equal(engine);
    check(ht_session_prefill(session, ids, lengths[3], &logits, NULL, &error), &error);
    same_logits(logits, expected[3][0], "a lane failed", lengths[3], 0);
    assert_int_equal(engine->set.lanes[lane].lost, where < 2);
    for (size_t k = 1; k <= DECODED; k++) {
        check(ht_session_decode(session, ids[lengths[3] + k - 1], &logits, &error), &error);
        same_logits(logits, expected[3][k], "a lane failed", lengths[3], k);
    }
    assert_true(engine->set.lanes[lane].lost);
    assert_false(engine->set.lanes[1 - lane].lost);
    assert_int_equal(atomic_load(&warnings), 1);
    same_score(session, 0, "a lane failed");
    close_session(session, engine);
}

static void test_failure_anywhere(void **state) {
    const char *const cuts[] = {"head,feature", by_rows(), "causal"};
    for (size_t c = 0; c < HT_COUNT(cuts); c++)
        for (size_t lane = SANITIZED && invented ? c % 2 : 0; lane < 2; lane += SANITIZED && invented ? 2 : 1) {
            size_t body[2], all[2];
            count_steps(cuts[c], body, all);
            for (size_t at = 1; at <= body[lane]; at += SANITIZED ? 29 : 3)
                fail_once(cuts[c], lane, at, 0);
            for (size_t at = body[lane] + 1; at <= all[lane]; at += SANITIZED ? 3 : 1)
                fail_once(cuts[c], lane, at, 1);
            for (size_t at = all[lane] + 1; at <= 3 * all[lane] && c < 2; at += SANITIZED ? 37 : 4)
                fail_once(cuts[c], lane, at, 2);
        }
}

/* Where all tokens are wanted the head runs again and again: the chunk is computed anew by who is left. */
static void test_failure_while_scoring(void **state) {
    for (size_t lane = 0; lane < 2; lane++)
        for (unsigned at = 1; at < 60; at += 3) { /* a lane gets more than 60 steps */
            ht_engine *engine;
            ht_session *session = open_failing(lane ? 0 : at, lane ? at : 0, "head,feature", &engine);
            pretend_equal(engine);
            same_score(session, 0, "a lane failed");
            assert_true(engine->set.lanes[lane].lost);
            assert_int_equal(atomic_load(&warnings), 1);
            close_session(session, engine);
        }
}

static void test_both_fail(void **state) {
    static const unsigned rows[][2] = {{1, 1}, {10, 10}, {30, 31}, {5, 60}, {70, 12}, {25, 25}};
    for (size_t r = 0; r < HT_COUNT(rows); r++) {
        ht_engine *engine;
        ht_error error = {0};
        ht_session *session = open_failing(rows[r][0], rows[r][1], "head,feature", &engine);
        pretend_equal(engine);
        fails(try_prompt(session, 3, "both lanes fail", &error), HT_ERROR_DEVICE, &error, "fail=");
        assert_true(engine->set.lanes[0].lost && engine->set.lanes[1].lost);
        assert_int_equal(atomic_load(&warnings), 2);
        /* and from then on there is nothing to compute on */
        fails(try_prompt(session, 3, "both lanes failed", &error), HT_ERROR_DEVICE, &error,
              "no device left can compute this model");
        assert_int_equal(atomic_load(&warnings), 2);
        close_session(session, engine);
    }
}

static void test_bad_fail_option(void **state) {
    static const char *const devices[] = {"cpu:fail=0", "cpu:fail=x", "cpu:fail="};
    for (size_t i = 0; i < HT_COUNT(devices); i++) {
        ht_engine *engine;
        ht_error error = {0};
        ht_status status = ht_engine_create(model, &HT_INIT(ht_engine_options, .devices = devices[i]), &engine, &error);
        assert_int_equal(status, HT_ERROR_ARGUMENT);
    }
}

static size_t resident_pages(void) {
    size_t all = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file || fscanf(file, "%zu %zu", &all, &resident) != 2)
        resident = 0;
    if (file)
        fclose(file);
    return resident;
}

/* Generations of random lengths on lanes that fail now and then, with a new engine whenever one has lost a lane.
 * HETERO_SOAK: how many. */
static void test_soak(void **state) {
    static const char *const cuts[] = {"head,feature", "row", "causal", "hybrid,row,feature,sequence", NULL};
    const char *asked = getenv("HETERO_SOAK");
    const int turns = asked ? atoi(asked) : SANITIZED || is_quick() ? 40 : 200;
    size_t early = 0, lost = 0;
    ht_engine *engine = NULL;
    ht_session *session = NULL;
    random_state = seed_of(3);
    for (int turn = 0; turn < turns; turn++) {
        ht_error error = {0};
        if (!engine) {
            const unsigned at = 50 + pick(2500);
            const bool second = pick(2);
            session = open_failing(second ? 0 : at, second ? at : 0, cuts[pick(HT_COUNT(cuts))], &engine);
            pretend(engine, pick(4) == 0);
        }
        check(try_prompt(session, pick(LENGTHS), "soak", &error), &error);
        if (engine->set.lanes[0].lost || engine->set.lanes[1].lost) {
            assert_int_equal(atomic_load(&warnings), 1);
            lost++;
            close_session(session, engine);
            engine = NULL;
        }
        if (turn == turns / 2)
            early = resident_pages();
    }
    if (engine)
        close_session(session, engine);
    const size_t late = resident_pages();
    print_message("soak: %d generations, %zu engines lost a lane, %zu pages at half time, %zu at the end\n", turns,
                  lost, early, late);
    assert_true(lost > 0);
    if (!SANITIZED) /* 2 MiB: what malloc keeps varies; an engine that leaks is as much */
        assert_true(late <= early + 512);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_axis_divides),
        cmocka_unit_test(test_every_cut),
        cmocka_unit_test(test_every_length),
        cmocka_unit_test(test_every_length_on_a_pair),
        cmocka_unit_test(test_query_heads_on_a_pair),
        cmocka_unit_test(test_lanes_without_a_share),
        cmocka_unit_test(test_measured_costs),
        cmocka_unit_test(test_steady_decode_allocates_nothing),
        cmocka_unit_test(test_two_sessions_take_turns),
        cmocka_unit_test(test_workers_leave_old_cores),
        cmocka_unit_test(test_kept_devices_forget),
        cmocka_unit_test(test_cancel_from_another_thread),
        cmocka_unit_test(test_failure_anywhere),
        cmocka_unit_test(test_failure_while_scoring),
        cmocka_unit_test(test_both_fail),
        cmocka_unit_test(test_bad_fail_option),
        cmocka_unit_test(test_soak),
    };
    const struct CMUnitTest groups[] = {
        cmocka_unit_test(test_scalar),
        cmocka_unit_test(test_every_axis_divides),
        cmocka_unit_test(test_every_cut),
        cmocka_unit_test(test_every_length),
        cmocka_unit_test(test_differing_layers_on_a_gpu),
    };
    const struct CMUnitTest mixed[] = {
        cmocka_unit_test(test_scalar),
        cmocka_unit_test(test_every_axis_divides),
        cmocka_unit_test(test_every_cut),
        cmocka_unit_test(test_every_length),
        cmocka_unit_test(test_every_length_on_a_pair),
        cmocka_unit_test(test_failure_anywhere),
        cmocka_unit_test(test_differing_layers_on_a_gpu),
    };
    const struct CMUnitTest varied[] = {
        cmocka_unit_test(test_scalar),
        cmocka_unit_test(test_every_axis_divides),
        cmocka_unit_test(test_varied_cuts),
        cmocka_unit_test(test_differing_layers_on_a_gpu),
    };
    if ((ht_all_cores()->words[0] & 3) != 3) {
        printf("skipped: two lanes need cores 0 and 1\n");
        return 77;
    }
    const struct CMUnitTest states[] = {
        cmocka_unit_test(test_scalar),
        cmocka_unit_test(test_every_axis_divides),
        cmocka_unit_test(test_every_cut),
        cmocka_unit_test(test_differing_layers_on_a_gpu),
    };
    const int failed = cmocka_run_group_tests(varied, open_varied, close_model) +
                       cmocka_run_group_tests(tests, open_model, close_model) +
                       cmocka_run_group_tests(groups, open_groups, close_model) +
                       cmocka_run_group_tests(states, open_recurrent, close_model);
    return failed + cmocka_run_group_tests(mixed, open_mixed, close_all);
}
