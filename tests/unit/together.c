/* Sequences computed together: each one's logits are what they are alone, to the bit on the CPU, whatever is
 * computed beside it, in which pieces, after truncations and from saved files; within rounding over several lanes and
 * on other devices. */
#include "unit/test.h"

#include "session/session.h"
#include "unit/recurrent_model.h"
#include "unit/varied_model.h"

#include <math.h>

#if SANITIZED
enum { SCHEDULES = 1, PASSES = 10 };
#else
enum { SCHEDULES = 12, PASSES = 24 };
#endif
enum { VOCABULARY = 512, SEQUENCES = 8, TOKENS = 80, CONTEXT = 128, CHUNK = 64 };

static int32_t ids[SEQUENCES][TOKENS];
static float alone[SEQUENCES][TOKENS][VOCABULARY]; /* behind each token, computed one by one */
static ht_model *model;
static ht_precision precision = HT_PRECISION_EXACT;

static uint32_t random_state;
static size_t pick(size_t n) {
    random_state = random_state * 1664525u + 1013904223u;
    return (random_state >> 8) % n;
}

static ht_engine *open_engine(const char *devices, ht_strategy strategy, const char *cuts, ht_error *error) {
    const ht_engine_options options =
        HT_INIT(ht_engine_options, .devices = devices, .strategy = strategy, .cuts = cuts, .threads = 2,
                .precision = precision, .kv_type = HT_KV_F32, .context = CONTEXT, .chunk = CHUNK);
    ht_engine *engine = NULL;
    return ht_engine_create(model, &options, &engine, error) ? NULL : engine;
}

static void compute_alone(void) {
    ht_error error = {0};
    ht_session *session;
    ht_engine *engine = open_engine("cpu", HT_STRATEGY_SINGLE, NULL, &error);
    if (!engine)
        fail_msg("%s", error.text);
    check(ht_session_create(engine, &session, &error), &error);
    for (size_t s = 0; s < SEQUENCES; s++) {
        session->n_tokens = 0;
        for (size_t i = 0; i < TOKENS; i++) {
            const float *logits;
            check(ht_session_decode(session, ids[s][i], &logits, &error), &error);
            memcpy(alone[s][i], logits, sizeof alone[s][i]);
        }
    }
    ht_session_destroy(session);
    ht_engine_destroy(engine);
}

static int open_shape(const char *shape) {
    ht_error error = {0};
    for (int s = 0; s < SEQUENCES; s++)
        for (int i = 0; i < TOKENS; i++)
            ids[s][i] = (i * i * 7 + i * 37 + 11 + (i < 9 ? 0 : s * 101)) % VOCABULARY;
    return ht_model_open(shape, &model, &error) ? -1 : 0;
}

static int open_tiny(void **state) {
    return open_shape("shape:tiny");
}

static int open_experts(void **state) {
    return open_shape("shape:tiny-experts");
}

static int open_recurrent(void **state) {
    ht_error error = {0};
    ht_builder b;
    if (open_tiny(state))
        return -1;
    const ht_rotation rotation = recurrent_anew(model, &b, &error);
    check(recurrent_list(&b, &rotation), &error);
    return 0;
}

static int open_varied(void **state) {
    ht_error error = {0};
    ht_builder b;
    if (open_tiny(state))
        return -1;
    const ht_rotation rotation = recurrent_anew(model, &b, &error);
    model->shape_type = ht_type_by_name("F16");
    check(varied_list(&b, rotation.table), &error);
    check(ht_model_extend_rope(model, CONTEXT, &error), &error);
    return 0;
}

static int close_model(void **state) {
    ht_model_close(model);
    return 0;
}

/* ---- schedules --------------------------------------------------------------------------------------------------- */

typedef struct scene {
    ht_engine *engine;
    ht_session *sessions[SEQUENCES];
    float bound; /* 0: to the bit */
    float worst;
    size_t apart; /* passes whose sequences were divided */
    const char *name;
} scene;

static void same_logits(scene *c, const float *logits, size_t s, size_t token) {
    const float *expected = alone[s][token];
    if (c->bound == 0) {
        if (memcmp(logits, expected, sizeof alone[s][token]) != 0)
            fail_msg("%s: sequence %zu, behind token %zu: not the bits that it has alone", c->name, s, token);
        return;
    }
    float most = 0, away = 0;
    for (size_t i = 0; i < VOCABULARY; i++) {
        most = fmaxf(most, fabsf(expected[i]));
        away = fmaxf(away, fabsf(logits[i] - expected[i]));
    }
    c->worst = fmaxf(c->worst, away / most);
    if (!(away <= c->bound * most))
        fail_msg("%s: sequence %zu, behind token %zu: off by %g of %g", c->name, s, token, (double)away, (double)most);
}

/* One pass of pieces of some sequences; logits behind each piece are looked at. */
static void run_pass(scene *c) {
    ht_session_part parts[SEQUENCES];
    size_t n = 0, tokens = 0, of[SEQUENCES], room = CHUNK;
    const size_t same = pick(3) ? 0 : 1 + pick(8); /* pieces alike, which lanes may share out */
    ht_error error = {0};
    for (size_t k = 0, first = pick(SEQUENCES); k < SEQUENCES && room; k++) {
        const size_t s = (first + k) % SEQUENCES;
        ht_session *session = c->sessions[s];
        if (session->n_tokens == TOKENS || pick(3) == 0)
            continue;
        const size_t most = ht_min_size(TOKENS - session->n_tokens, room);
        const size_t piece = same ? same : pick(2) ? 1 : 1 + pick(ht_min_size(most, 40));
        if (piece > most)
            continue;
        parts[n] = (ht_session_part){session, ids[s] + session->n_tokens, piece};
        of[n++] = s;
        room -= piece;
    }
    if (!n)
        return;
    ht_lanes_lock(&c->engine->set);
    check(ht_session_feed_parts(parts, n, parts[0].n - 1, &c->sessions[0]->cancel, &error), &error);
    c->apart += c->engine->passes.current && c->engine->passes.current->choice.apart;
    const float *logits;
    if (same == 1) /* all in one head */
        check(ht_passes_head(&c->engine->passes, 0, n, &logits, &error), &error);
    for (size_t i = 0; i < n; i++) {
        tokens += parts[i].n;
        if (same != 1)
            check(ht_passes_head(&c->engine->passes, tokens - 1, 1, &logits, &error), &error);
        else if (i > 0)
            logits += VOCABULARY;
        same_logits(c, logits, of[i], parts[i].session->n_tokens - 1);
    }
    ht_lanes_unlock(&c->engine->set);
}

/* Sequence s goes on from another one's tokens, as a fork does: what it computes is that one's text from then on, so it
 * has to come back to its own before it is looked at. */
static void fork_and_return(scene *c, size_t s) {
    ht_session *session = c->sessions[s];
    const ht_session *of = c->sessions[(s + 1 + pick(SEQUENCES - 1)) % SEQUENCES];
    size_t common = 0;
    if (!ht_kv_is_hosts(&c->engine->set) || session->recurrent)
        return;
    while (common < of->n_tokens && common < TOKENS && of->tokens[common] == ids[s][common])
        common++;
    ht_lanes_lock(&c->engine->set);
    check(ht_engine_settle(c->engine, NULL), &(ht_error){0});
    ht_kv_copy(&c->engine->set, session->kv, of->kv, of->n_tokens);
    memcpy(session->tokens, of->tokens, common * sizeof *session->tokens);
    session->n_tokens = common;
    ht_lanes_unlock(&c->engine->set);
}

/* What may happen to a sequence between passes. */
static void disturb(scene *c) {
    ht_error error = {0};
    const size_t s = pick(SEQUENCES);
    ht_session *session = c->sessions[s];
    if (pick(4) == 0) { /* truncated */
        session->n_tokens = pick(session->n_tokens + 1);
    } else if (pick(6) == 0) {
        fork_and_return(c, s);
    } else if (pick(6) == 0) { /* cancelled as soon as it begins; the next pass computes the same again */
        const size_t n = session->n_tokens;
        if (n < TOKENS) {
            ht_lanes_lock(&c->engine->set);
            atomic_store(&session->cancel, true);
            assert_int_equal(ht_session_feed(session, ids[s] + n, 1, 0, &session->cancel, &error), HT_ERROR_CANCELLED);
            ht_lanes_unlock(&c->engine->set);
            assert_int_equal(session->n_tokens, n);
        }
    } else if (pick(4) == 0) { /* written, and read by another session */
        char *path = temporary_path("session");
        check(ht_session_save(session, NULL, path, &error), &error);
        check(ht_session_create(c->engine, &c->sessions[s], &error), &error);
        check(ht_session_load(c->sessions[s], NULL, path, &error), &error);
        assert_int_equal(c->sessions[s]->n_tokens, session->n_tokens);
        ht_session_destroy(session);
        free(path);
    }
}

static void run_schedules(const char *devices, ht_strategy strategy, const char *cuts, float bound, size_t schedules) {
    ht_error error = {0};
    scene c = {.engine = open_engine(devices, strategy, cuts, &error), .bound = bound, .name = cuts ? cuts : devices};
    if (!c.engine) {
        if (must_have("opencl", error.text))
            fail();
        return;
    }
    const bool apart = cuts && strcmp(cuts, "sequence") == 0;
    for (size_t l = 0; l < c.engine->set.n_lanes && apart;
         l++) /* whatever was measured: where nobody waits, that is quickest */
        c.engine->set.lanes[l].cost.join = c.engine->set.lanes[l].whole.join = 1;
    ht_passes_solve_anew(&c.engine->passes);
    for (size_t s = 0; s < SEQUENCES; s++)
        check(ht_session_create(c.engine, &c.sessions[s], &error), &error);
    for (size_t k = 0; k < schedules; k++) {
        random_state = (uint32_t)k * 2654435761u + 7;
        for (size_t s = 0; s < SEQUENCES; s++)
            c.sessions[s]->n_tokens = 0;
        for (size_t pass = 0; pass < PASSES; pass++) {
            run_pass(&c);
            disturb(&c);
        }
    }
    if (apart)
        assert_true(c.apart > 2 * schedules);
    for (size_t s = 0; s < SEQUENCES; s++)
        ht_session_destroy(c.sessions[s]);
    ht_engine_destroy(c.engine);
}

static void test_to_the_bit(void **state) {
    const char *more = getenv("HETERO_SCHEDULES");                              /* 500 of each model take two minutes */
    static const ht_precision both[] = {HT_PRECISION_FAST, HT_PRECISION_EXACT}; /* exact: for other tests, too */
    for (size_t i = 0; i < HT_COUNT(both); i++) {
        precision = both[i];
        compute_alone();
        run_schedules("cpu", HT_STRATEGY_SINGLE, NULL, 0, more ? strtoul(more, NULL, 10) : SCHEDULES);
    }
}

static void test_over_lanes(void **state) {
    static const char *const cuts[] = {"causal", "head,feature", "row", "sequence",
                                       "layer,sequence,hybrid,row,feature,channel"};
    if ((ht_all_cores()->words[0] & 3) != 3)
        skip();
    for (size_t i = 0; i < HT_COUNT(cuts); i++)
        run_schedules("cpu:cpus=0,cpu:cpus=1", HT_STRATEGY_TENSOR, cuts[i], 2e-5f, 1 + SCHEDULES / 6);
}

static void test_on_a_gpu(void **state) {
#ifdef __SANITIZE_THREAD__ /* which does not see what a driver's compiler makes */
    skip();
#endif
    if (is_unit())
        skip();
    run_schedules("opencl:0", HT_STRATEGY_SINGLE, NULL, 2e-5f, 1 + SCHEDULES / 6);
    run_schedules("opencl:0:memory=copied", HT_STRATEGY_SINGLE, NULL, 2e-5f, 1 + SCHEDULES / 6);
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

static void test_hostile_files(void **state) {
    ht_error error = {0};
    ht_engine *engine = open_engine("cpu", HT_STRATEGY_SINGLE, NULL, &error);
    ht_session *session, *other;
    char *path = temporary_path("session"), *bad = temporary_path("bad");
    const float *logits;
    check(ht_session_create(engine, &session, &error), &error);
    check(ht_session_create(engine, &other, &error), &error);
    check(ht_session_prefill(session, ids[0], 20, NULL, NULL, &error), &error);
    check(ht_session_prefill(other, ids[1], 30, &logits, NULL, &error), &error);
    check(ht_session_save(session, NULL, path, &error), &error);
    ht_mapping file;
    check(ht_mapping_open(path, &file, &error), &error);
    uint8_t *bytes = malloc(file.bytes);
    assert_non_null(bytes);
    for (size_t at = 0; at < file.bytes; at += at < 400 ? 1 : file.bytes / 40) { /* a byte that is another one */
        memcpy(bytes, file.data, file.bytes);
        bytes[at] ^= 0x40;
        check(ht_file_write(bad, bytes, file.bytes, &error), &error);
        if (!ht_session_load(other, NULL, bad, &error))
            fail_msg("byte %zu is another one, and it is read", at);
        assert_non_null(strstr(error.text, bad));
    }
    for (size_t n = 0; n < file.bytes; n += n < 200 ? 7 : file.bytes / 20) { /* cut off, and longer */
        check(ht_file_write(bad, file.data, n, &error), &error);
        assert_true(ht_session_load(other, NULL, bad, &error));
    }
    check(ht_file_write(bad, bytes, file.bytes, &error), &error);
    assert_true(ht_session_load(other, NULL, "/nowhere/session", &error));
    assert_int_equal(other->n_tokens, 30); /* as it was */
    check(ht_session_decode(other, ids[1][30], &logits, &error), &error);
    scene c = {.name = "after hostile files"};
    same_logits(&c, logits, 1, 30);
    free(bytes);
    ht_mapping_close(&file);
    ht_session_destroy(session);
    ht_session_destroy(other);
    ht_engine_destroy(engine);
    free(path);
    free(bad);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_to_the_bit), cmocka_unit_test(test_over_lanes),
                                       cmocka_unit_test(test_on_a_gpu), cmocka_unit_test(test_hostile_files)};
    int failed = 0;
    if (make_folder(NULL))
        return 1;
    failed += cmocka_run_group_tests(tests, open_tiny, close_model);
    failed += cmocka_run_group_tests(tests, open_experts, close_model);
    failed += cmocka_run_group_tests(tests, open_recurrent, close_model);
    failed += cmocka_run_group_tests(tests, open_varied, close_model);
    remove_folder(NULL);
    return failed;
}
