/* Sessions of a model with states, which cannot be cut back: prompts that share a beginning, passes that end within,
 * devices that are lost. */
#include "unit/recurrent_model.h"
#include "unit/test.h"

#include "engine/engine.h"
#include "session/session.h"

#include <float.h>
#include <math.h>
#include <pthread.h>

enum { VOCABULARY = 512, CONTEXT = 128, CHUNK = 16, PROMPT = 40 };
static int32_t ids[CONTEXT];
static ht_model *model;
static float expected[PROMPT + 1][VOCABULARY]; /* behind ids[0..n), in one chunk */

static int open_model(void **state) {
    ht_error error = {0};
    if (make_folder(state) || setenv("XDG_CACHE_HOME", test_folder, 1))
        return -1;
    for (int i = 0; i < CONTEXT; i++)
        ids[i] = (i * i * 7 + i * 37 + 11) % VOCABULARY;
    if (ht_model_open("shape:tiny", &model, &error))
        return -1;
    ht_builder b;
    const ht_rotation rotation = recurrent_anew(model, &b, &error);
    check(recurrent_list(&b, &rotation), &error);
    return 0;
}

static int close_model(void **state) {
    ht_model_close(model);
    return remove_folder(state);
}

static ht_session *open_session(const char *devices, int chunk, ht_engine **engine) {
    const ht_engine_options options = HT_INIT(ht_engine_options, .devices = devices, .precision = HT_PRECISION_EXACT,
                                              .kv_type = HT_KV_F32, .context = CONTEXT, .chunk = chunk);
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

static void same(const float *got, const float *want, const char *what) {
    float largest = 0;
    for (size_t i = 0; i < VOCABULARY; i++)
        largest = fmaxf(largest, fabsf(want[i]));
    for (size_t i = 0; i < VOCABULARY; i++) /* as in lanes.c */
        if (!(fabsf(got[i] - want[i]) <= (float)RECURRENT_MATRICES * 16 * FLT_EPSILON / 2 * largest))
            fail_msg("%s: logit %zu is %g, not %g", what, i, (double)got[i], (double)want[i]);
}

static const float *prefill(ht_session *session, const int32_t *prompt, size_t n, size_t *reused) {
    ht_error error = {0};
    const float *logits = NULL;
    check(ht_session_prefill(session, prompt, n, &logits, reused, &error), &error);
    return logits;
}

static void find_expected(void) {
    ht_engine *engine;
    for (size_t n = 1; n <= PROMPT; n++) {
        ht_session *session = open_session("cpu", CONTEXT, &engine);
        memcpy(expected[n], prefill(session, ids, n, NULL), sizeof expected[n]);
        close_session(session, engine);
    }
}

static void test_pieces(void **state) {
    static const int chunks[] = {1, 3, CHUNK};
    find_expected();
    for (size_t c = 0; c < HT_COUNT(chunks); c++) {
        ht_engine *engine;
        ht_session *session = open_session("cpu", chunks[c], &engine);
        same(prefill(session, ids, PROMPT, NULL), expected[PROMPT], "chunks");
        close_session(session, engine);
    }
    ht_engine *engine;
    ht_error error = {0};
    const float *logits = NULL;
    ht_session *session = open_session("cpu", CHUNK, &engine);
    prefill(session, ids, 5, NULL);
    for (size_t n = 6; n <= PROMPT; n++) {
        check(ht_session_decode(session, ids[n - 1], &logits, &error), &error);
        same(logits, expected[n], "token by token");
    }
    close_session(session, engine);
}

/* What goes on where the session's tokens end continues; what parts from them before, from where an earlier prompt
 * ended, of which there is a copy of the states. */
static void test_prefixes(void **state) {
    ht_engine *engine;
    ht_session *session = open_session("cpu", CHUNK, &engine);
    size_t reused = 99;
    int32_t other[PROMPT];
    memcpy(other, ids, sizeof other);
    other[9] = 3;
    prefill(session, ids, 10, &reused);
    assert_int_equal(reused, 0);
    same(prefill(session, ids, 20, &reused), expected[20], "a longer prompt");
    assert_int_equal(reused, 10);
    same(prefill(session, ids, 20, &reused), expected[20], "the same prompt");
    assert_int_equal(reused, 10);
    same(prefill(session, ids, 12, &reused), expected[12], "a shorter prompt");
    assert_int_equal(reused, 10);
    prefill(session, other, 30, &reused);
    assert_int_equal(reused, 0);
    same(prefill(session, ids, 30, &reused), expected[30],
         "another prompt"); /* the copies are of other tokens, or of more */
    assert_int_equal(reused, 0);
    same(prefill(session, ids, 30, &reused), expected[30], "an earlier prompt"); /* 20, 12 or 10: who was last stays */
    assert_int_equal(reused, 20);
    session->state_tokens = HT_NO_STATE; /* as after a pass that was cancelled */
    same(prefill(session, ids, 40, &reused), expected[40], "after a pass that did not end");
    assert_int_equal(reused, 30);
    close_session(session, engine);
}

/* Another session's pass between two of one's own. */
static void test_two_sessions(void **state) {
    ht_engine *engine;
    ht_error error = {0};
    const float *logits = NULL;
    ht_session *one = open_session("cpu", CHUNK, &engine), *two = NULL;
    check(ht_session_create(engine, &two, &error), &error);
    prefill(one, ids, 10, NULL);
    prefill(two, ids + 50, 20, NULL);
    check(ht_session_decode(one, ids[10], &logits, &error), &error);
    same(logits, expected[11], "with another session");
    ht_session_destroy(two);
    close_session(one, engine);
}

static ht_session *cancelled;
static unsigned submits, cancel_at;
static ht_status (*real_submit)(ht_device *, ht_task *, const ht_binding *, const ht_dependency *, size_t, ht_ticket *,
                                ht_error *);
static ht_status submit_and_cancel(ht_device *device, ht_task *task, const ht_binding *binding,
                                   const ht_dependency *after, size_t n_after, ht_ticket *ticket, ht_error *error) {
    if (++submits == cancel_at)
        ht_session_cancel(cancelled);
    return real_submit(device, task, binding, after, n_after, ticket, error);
}

/* A pass that is stopped anywhere leaves states that stand for nothing. */
static void test_cancel(void **state) {
    ht_engine *engine;
    ht_error error = {0};
    const float *logits = NULL;
    ht_session *session = cancelled = open_session("cpu", CHUNK, &engine);
    ht_device *device = engine->set.devices[0];
    const ht_device_ops *real = device->ops;
    ht_device_ops ops = *real;
    real_submit = real->submit;
    ops.submit = submit_and_cancel;
    device->ops = &ops;
    for (cancel_at = 3; cancel_at < 36; cancel_at += 4) {
        submits = 1000;
        prefill(session, ids, 10, NULL);
        submits = 0;
        fails(ht_session_decode(session, ids[10], &logits, &error), HT_ERROR_CANCELLED, &error, "cancelled");
        check(ht_session_decode(session, ids[10], &logits, &error), &error);
        same(logits, expected[11], "after a decode that was stopped");
        submits = 0;
        fails(ht_session_prefill(session, ids, 14, &logits, NULL, &error), HT_ERROR_CANCELLED, &error, "cancelled");
        same(prefill(session, ids, 14, NULL), expected[14], "after a prefill that was stopped");
    }
    device->ops = real;
    close_session(session, engine);
}

/* A device fails within a pass: the other computes all of it again. */
static void test_recovery(void **state) {
    if ((ht_all_cores()->words[0] & 3) != 3) {
        printf("skipped: two lanes need cores 0 and 1\n");
        return;
    }
    for (unsigned at = 5; at < 200; at += 13) {
        char devices[64];
        ht_engine *engine;
        ht_error error = {0};
        const float *logits = NULL;
        snprintf(devices, sizeof devices, "cpu:cpus=0:fail=%u,cpu:cpus=1", at);
        const ht_engine_options options =
            HT_INIT(ht_engine_options, .devices = devices, .strategy = HT_STRATEGY_TENSOR,
                    .precision = HT_PRECISION_EXACT, .kv_type = HT_KV_F32, .context = CONTEXT, .chunk = CHUNK);
        ht_session *session = NULL;
        check(ht_engine_create(model, &options, &engine, &error), &error);
        check(ht_session_create(engine, &session, &error), &error);
        same(prefill(session, ids, 20, NULL), expected[20], "a device failed");
        for (size_t n = 21; n < 26; n++) {
            check(ht_session_decode(session, ids[n - 1], &logits, &error), &error);
            same(logits, expected[n], "a device failed");
        }
        close_session(session, engine);
    }
}

static void test_memory(void **state) {
    ht_engine *engine;
    ht_session *session = open_session("cpu", CHUNK, &engine);
    size_t states = 0;
    for (size_t i = 0; i < model->n_ops; i++)
        states += ht_op_state(&model->ops[i], &model->hparams) * sizeof(float);
    const size_t keys = 2 * (size_t)model->hparams.kv_heads * CONTEXT * (size_t)model->hparams.head_dim * sizeof(float);
    /* two convolutions; delta nets of 4 heads with 3 rows and 16 or 32 keys of 32 values; 4 groups of 2 heads */
    const size_t floats = 2 * 2 * 128 + 4 * (3 * (2 * 16 + 32) + 16 * 32) + 4 * (3 * (2 * 32 + 32) + 32 * 32) +
                          4 * (3 * (2 * 16 + 64) + 16 * 64);
    assert_int_equal(states, floats * sizeof(float));
    assert_int_equal(engine->info.kv_bytes_per_session, keys + states);
    close_session(session, engine);
}

/* What the planner and programs are told of the blocks; what one mistake in their list would do. */
static void test_blocks(void **state) {
    ht_error error = {0};
    size_t last = 0, mixers = 0;
    for (size_t k = 0; k < model->n_blocks; k++) {
        const ht_block *block = &model->blocks[k];
        ht_op *op = &model->ops[block->first + block->n - 2];
        const size_t units = ht_op_state_units(op, &model->hparams);
        last = units || block->kind == HT_BLOCK_ATTENTION ? block->first + block->n - 2 : last;
        if (!units)
            continue;
        mixers++;
        assert_int_equal(ht_op_state(op, &model->hparams) % units, 0);
        assert_true(ht_op_reads(op) & HT_BIT_KV && ht_op_writes(op) & HT_BIT_KV);
        for (size_t a = block->first_axis; a < block->first_axis + block->n_axes; a++) {
            ht_axis *axis = &model->axes[a];
            assert_int_equal(axis->ordered, axis->kind == HT_AXIS_TOKENS);
            if (axis->kind != HT_AXIS_CHANNELS)
                continue;
            assert_int_equal(axis->extent, units);
            axis->maps[block->n - 2] = HT_MAP_REPLICATED; /* a lane has no more than its share of what it reads */
            fails(ht_model_check(model, &error), HT_ERROR_FORMAT, &error, strrchr(op->name, '.'));
            axis->maps[block->n - 2] = HT_MAP_SHARE;
        }
        op->cache++;
        fails(ht_model_check(model, &error), HT_ERROR_FORMAT, &error, "writes cache");
        op->cache--;
    }
    assert_int_equal(mixers, RECURRENT_CACHES - 1);
    assert_int_equal(model->tail, last + 1);
    check(ht_model_check(model, &error), &error);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pieces), cmocka_unit_test(test_prefixes), cmocka_unit_test(test_two_sessions),
        cmocka_unit_test(test_cancel), cmocka_unit_test(test_recovery), cmocka_unit_test(test_memory),
        cmocka_unit_test(test_blocks),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
