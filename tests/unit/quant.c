/* Weight types: every format against the package gguf (tests/golden/quant_fixture.gguf, made by
 * tests/tools/make_quant_fixture.py), canonical form against floats, made-up weights, encoders, ht_quantize. */
#include "quant/quant.h"
#include "unit/test.h"

#include <math.h>
#include <string.h>

#define FIXTURE "tests/golden/quant_fixture.gguf"

static const ht_type types[] = {
    HT_TYPE_F32,   HT_TYPE_F16,     HT_TYPE_BF16,  HT_TYPE_Q4_0,  HT_TYPE_Q4_1,   HT_TYPE_Q5_0,    HT_TYPE_Q5_1,
    HT_TYPE_Q8_0,  HT_TYPE_Q4_K,    HT_TYPE_Q5_K,  HT_TYPE_Q6_K,  HT_TYPE_IQ4_NL, HT_TYPE_MXFP4,   HT_TYPE_Q2_K,
    HT_TYPE_Q3_K,  HT_TYPE_IQ4_XS,  HT_TYPE_NVFP4, HT_TYPE_IQ1_S, HT_TYPE_IQ1_M,  HT_TYPE_IQ2_XXS, HT_TYPE_IQ2_XS,
    HT_TYPE_IQ2_S, HT_TYPE_IQ3_XXS, HT_TYPE_IQ3_S, HT_TYPE_TQ1_0, HT_TYPE_TQ2_0,  HT_TYPE_Q1_0,    HT_TYPE_Q2_0};

static ht_gguf *fixture;

static int open_fixture(void **state) {
    ht_error error = {0};
    if (ht_gguf_open(FIXTURE, &fixture, &error)) {
        print_error("%s\n", error.text);
        return -1;
    }
    return 0;
}

static int close_fixture(void **state) {
    ht_gguf_close(fixture);
    return 0;
}

static ht_matrix matrix_of(const ht_tensor *tensor) {
    const ht_type_traits *type = ht_type_get(tensor->type);
    size_t cols = (size_t)tensor->dims[0];
    return (ht_matrix){.name = tensor->name,
                       .type = type,
                       .rows = (size_t)tensor->dims[1],
                       .cols = cols,
                       .data = tensor->data,
                       .row_bytes = cols / (size_t)type->block * (size_t)type->block_bytes};
}

static const ht_tensor *fixture_tensor(const char *name, const char *suffix) {
    char full[64];
    snprintf(full, sizeof full, "%s%s", name, suffix);
    const ht_tensor *tensor = ht_gguf_tensor(fixture, full);
    assert_non_null(tensor);
    return tensor;
}

static void test_traits(void **state) {
    for (size_t i = 0; i < HT_COUNT(types); i++) {
        const ht_type_traits *type = ht_type_get(types[i]);
        assert_non_null(type);
        assert_int_equal(type->type, types[i]);
        assert_string_equal(type->name, ht_type_foreign_name(types[i]));
        assert_ptr_equal(type, ht_type_by_name(type->name));
        assert_true(type->group == 0 || type->block % type->group == 0);
        assert_int_equal(type->group == 0, type->bits >= 16);
    }
    assert_ptr_equal(ht_type_by_name("q4_k"), ht_type_get(HT_TYPE_Q4_K));
    assert_null(ht_type_by_name("Q4"));
    assert_null(ht_type_get((ht_type)15)); /* Q8_K, which no file has */
    assert_string_equal(ht_type_foreign_name(15), "Q8_K");
    assert_string_equal(ht_type_foreign_name(39), "MXFP4");
    assert_null(ht_type_foreign_name(77));
    assert_null(ht_type_foreign_name(UINT32_MAX));
}

/* Equal, not just close (but for the sign of a zero), and from an address of any alignment. */
static void test_floats(void **state) {
    for (size_t i = 1; i < HT_COUNT(types); i++) {
        const char *name = ht_type_get(types[i])->name;
        ht_matrix matrix = matrix_of(fixture_tensor(name, ""));
        const ht_tensor *expected = fixture_tensor(name, ".floats");
        size_t cols = matrix.cols, n = matrix.rows * cols;
        float *out = test_malloc(n * sizeof *out), *want = test_malloc(n * sizeof *want);
        uint8_t *moved = test_malloc(matrix.rows * matrix.row_bytes + 1);
        memcpy(want, expected->data, n * sizeof *want);
        memcpy(moved + 1, matrix.data, matrix.rows * matrix.row_bytes);
        matrix.data = moved + 1;
        ht_matrix_floats(&matrix, 0, matrix.rows, out);
        for (size_t at = 0; at < n; at++) {
            if (out[at] != want[at])
                fail_msg("%s: weight %zu is %.9g, not %.9g", name, at, out[at], want[at]);
        }
        ht_matrix_floats(&matrix, 1, 1, want); /* a row of its own is the same row */
        assert_memory_equal(want, out + cols, cols * sizeof *out);
        test_free(moved);
        test_free(want);
        test_free(out);
    }
}

static void check_codes(const ht_matrix *matrix) {
    const ht_type_traits *type = matrix->type;
    size_t n = matrix->rows * matrix->cols, group = (size_t)type->group, groups = n / group;
    int8_t *codes = test_malloc(n);
    float *floats = test_malloc(n * sizeof *floats), *scales = test_malloc(groups * sizeof *scales);
    float *offsets = test_malloc(groups * sizeof *offsets);
    memset(offsets, 0xff, groups * sizeof *offsets); /* NaNs, unless they are written */
    ht_matrix_floats(matrix, 0, matrix->rows, floats);
    ht_matrix_codes(matrix, 0, matrix->rows, codes, scales, offsets);
    int low = -(1 << (type->bits - 1)), high = -low - 1, least = high, greatest = low;
    for (size_t at = 0; at < n; at++) {
        float scale = scales[at / group], offset = offsets[at / group];
        double weight = (double)scale * codes[at] + (double)offset;
        double size = fabs((double)scale) * fabs((double)low) + fabs((double)offset);
        if (!(fabs(weight - (double)floats[at]) <= 4e-7 * size)) {
            fail_msg("%s: weight %zu is %.9g as codes, %.9g as float", type->name, at, weight, (double)floats[at]);
        }
        if (!type->offset)
            assert_true(offset == 0);
        least = codes[at] < least ? codes[at] : least;
        greatest = codes[at] > greatest ? codes[at] : greatest;
    }
    assert_in_range(least - low, 0, 255);
    assert_in_range(high - greatest, 0, 255);
    assert_true(least < 0 && greatest > 0);
    if (!type->offset) { /* offsets need not be asked for */
        ht_matrix_codes(matrix, 1, 1, codes, scales, NULL);
        assert_true((double)scales[0] * codes[0] + 0.0 == (double)floats[matrix->cols] ||
                    fabs((double)scales[0] * codes[0] - (double)floats[matrix->cols]) < 1e-6);
    }
    test_free(offsets);
    test_free(scales);
    test_free(floats);
    test_free(codes);
}

static void test_codes(void **state) {
    for (size_t i = 0; i < HT_COUNT(types); i++) {
        const ht_type_traits *type = ht_type_get(types[i]);
        if (!type->group)
            continue;
        ht_matrix matrix = matrix_of(fixture_tensor(type->name, ""));
        check_codes(&matrix);
    }
}

/* d * sub is the scale and dmin * sub_min the minimum, exactly as ht_matrix_codes multiplies them out. */
static void test_levels(void **state) {
    static const ht_type k_types[] = {HT_TYPE_Q4_K, HT_TYPE_Q5_K, HT_TYPE_Q6_K};
    for (size_t i = 0; i < HT_COUNT(k_types); i++) {
        ht_matrix matrix = matrix_of(fixture_tensor(ht_type_get(k_types[i])->name, ""));
        assert_true(ht_matrix_has_levels(&matrix));
        int8_t codes[512], sub[32], sub_min[32];
        float scales[32], offsets[32];
        uint16_t d[2], dmin[2];
        assert_int_equal(matrix.cols, sizeof codes);
        ht_matrix_codes(&matrix, 1, 1, codes, scales, offsets);
        ht_matrix_levels(&matrix, 1, 1, d, dmin, sub, sub_min);
        size_t groups = matrix.cols / (size_t)matrix.type->group;
        float bias = matrix.type->bits == 4 ? 8 : 16;
        for (size_t g = 0; g < groups; g++) {
            size_t block = g / (groups / 2);
            assert_true(scales[g] == ht_f16_to_f32(d[block]) * sub[g]);
            if (!matrix.type->offset)
                continue;
            assert_true(fabsf(offsets[g] - (ht_f16_to_f32(dmin[block]) * sub_min[g] + bias * scales[g])) < 1e-5f);
        }
    }
    ht_matrix plain = matrix_of(fixture_tensor("Q4_0", ""));
    assert_false(ht_matrix_has_levels(&plain));
}

static void test_encode(void **state) {
    const ht_tensor *in = fixture_tensor("encode.in", "");
    size_t cols = (size_t)in->dims[0];
    float *floats = test_malloc(in->bytes);
    memcpy(floats, in->data, in->bytes);
    for (size_t i = 0; i < HT_COUNT(types); i++) {
        const ht_type_traits *type = ht_type_get(types[i]);
        if (types[i] == HT_TYPE_F32 || (type->group && type->type != HT_TYPE_Q8_0 && type->type > HT_TYPE_Q5_1))
            continue; /* the others are fits: tests/unit/quantize.c */
        assert_true(ht_type_can_encode(types[i]));
        const ht_tensor *expected = fixture_tensor(type->name, ".encoded");
        uint8_t *out = test_malloc(expected->bytes);
        size_t row = expected->bytes / (size_t)in->dims[1];
        for (size_t r = 0; r < in->dims[1]; r++)
            ht_encode_row(types[i], floats + r * cols, NULL, cols, out + r * row);
        for (size_t at = 0; at < expected->bytes; at++) {
            if (out[at] != expected->data[at]) {
                fail_msg("%s: byte %zu is %02x, not %02x", type->name, at, out[at], expected->data[at]);
            }
        }
        test_free(out);
    }
    uint8_t same[4];
    ht_encode_row(HT_TYPE_F32, floats + 40, NULL, 1, same);
    assert_memory_equal(same, floats + 40, 4);
    test_free(floats);
}

/* What no weight should be, but a file may hold: no undefined conversion (UBSan watches), codes in range. */
static void test_encode_not_finite(void **state) {
    float bad[] = {NAN, INFINITY, -INFINITY, 3e38f, -3e38f};
    for (size_t b = 0; b < HT_COUNT(bad); b++) {
        float in[256], importance[256];
        uint8_t out[1024];
        for (int j = 0; j < 256; j++) {
            in[j] = j % 3 ? (float)j : bad[b];
            importance[j] = j % 5 ? 1 : 1e30f;
        }
        for (size_t i = 0; i < HT_COUNT(types); i++) {
            if (!ht_type_can_encode(types[i]))
                continue;
            ht_encode_row(types[i], in, NULL, 256, out);
            ht_encode_row(types[i], in, importance, 256, out);
        }
    }
    float nan = NAN;
    uint16_t half;
    ht_encode_row(HT_TYPE_BF16, &nan, NULL, 1, (uint8_t *)&half);
    assert_true(isnan(ht_bf16_to_f32(half)));
}

/* Matrices without data: the same at every call and for any part of them, sizes as promised, no two rows alike. */
static void test_synthetic(void **state) {
    for (size_t i = 0; i < HT_COUNT(types); i++) {
        const ht_type_traits *type = ht_type_get(types[i]);
        ht_matrix matrix = {.name = "blk.0.ffn_up.weight", .type = type, .rows = 8, .cols = 1024};
        static float all[8 * 1024], one[1024];
        ht_matrix_floats(&matrix, 0, 8, all);
        ht_matrix_floats(&matrix, 5, 1, one);
        assert_memory_equal(one, all + 5 * 1024, sizeof one);
        assert_memory_not_equal(all, all + 1024, sizeof one);
        double sum = 0, squares = 0;
        for (size_t at = 0; at < HT_COUNT(all); at++) {
            sum += (double)all[at];
            squares += (double)all[at] * (double)all[at];
        }
        double rms = sqrt(squares / HT_COUNT(all)), expected = 1 / sqrt(1024.0);
        if (!(rms > expected / 2.5 && rms < expected * 2.5))
            fail_msg("%s: rms %g, not about %g", type->name, rms, expected);
        if (!(fabs(sum / HT_COUNT(all)) < expected / 4))
            fail_msg("%s: mean %g, not about 0", type->name, sum / HT_COUNT(all));
        if (type->group)
            check_codes(&matrix);
        if (type->type == HT_TYPE_F16 || type->type == HT_TYPE_BF16) { /* values that the type can hold */
            uint8_t stored[2 * 1024];
            ht_encode_row(type->type, one, NULL, 1024, stored);
            matrix.data = stored;
            matrix.row_bytes = sizeof stored;
            float back[1024];
            ht_matrix_floats(&matrix, 0, 1, back);
            assert_memory_equal(back, one, sizeof one);
        }
        ht_matrix other = {.name = "blk.0.ffn_gate.weight", .type = type, .rows = 8, .cols = 1024};
        ht_matrix_floats(&other, 5, 1, one);
        assert_memory_not_equal(one, all + 5 * 1024, sizeof one);
    }
}

/* ---- ht_quantize ---- */

#define WIDE 96
#define ROWS 5

static float weight_at(size_t i) {
    return (float)((int)(i * 37 % 101) - 50) / 64;
}

/* A model of one matrix, one narrow matrix and one norm, in a folder of its own. */
static void write_source(const char *path) {
    ht_error error = {0};
    ht_gguf_writer *writer;
    float floats[ROWS * WIDE];
    for (size_t i = 0; i < HT_COUNT(floats); i++)
        floats[i] = weight_at(i);
    check(ht_gguf_create(path, &writer, &error), &error);
    check(ht_gguf_put_u32(writer, "general.file_type", 0, &error), &error);
    check(ht_gguf_put_u32(writer, "fixture.number", 42, &error), &error);
    check(ht_gguf_put_u32(writer, "split.count", 1, &error), &error);
    check(ht_gguf_put_tensor(writer, "wide", HT_TYPE_F32, 2, (uint64_t[]){WIDE, ROWS}, &error), &error);
    check(ht_gguf_put_tensor(writer, "narrow", HT_TYPE_F32, 2, (uint64_t[]){8, 3}, &error), &error);
    check(ht_gguf_put_tensor(writer, "norm", HT_TYPE_F32, 1, (uint64_t[]){64}, &error), &error);
    check(ht_gguf_write_data(writer, floats, sizeof floats, &error), &error);
    check(ht_gguf_write_data(writer, floats, 8 * 3 * sizeof *floats, &error), &error);
    check(ht_gguf_write_data(writer, floats, 64 * sizeof *floats, &error), &error);
    check(ht_gguf_finish(writer, &error), &error);
    ht_gguf_abandon(writer);
}

static bool count_calls(const char *what, double done, double total, void *user) {
    int *calls = user;
    assert_true(done <= total);
    return --*calls > 0;
}

static void test_quantize(void **state) {
    char *in = temporary_path("in.gguf"), *out = temporary_path("out.gguf");
    write_source(in);
    static const struct {
        const char *name;
        ht_type type;
        int file_type;
    } cases[] = {
        {"q4_0", HT_TYPE_Q4_0, 2}, {"q4_1", HT_TYPE_Q4_1, 3}, {"q8_0", HT_TYPE_Q8_0, 7}, {"f16", HT_TYPE_F16, 1}};
    for (size_t i = 0; i < HT_COUNT(cases); i++) {
        ht_error error = {0};
        ht_quantize_result result = {0};
        int calls = 100;
        const ht_quantize_options options = {.threads = 2, .progress = count_calls, .progress_user = &calls};
        check(ht_quantize(in, out, cases[i].name, &options, &result, &error), &error);
        assert_true(calls < 100);
        ht_gguf *file;
        check(ht_gguf_open(out, &file, &error), &error);
        assert_int_equal(result.out_bytes, ht_gguf_file_bytes(file));
        assert_true(result.in_bytes > 0);
        int64_t number = 0;
        check(ht_gguf_int(file, "general.file_type", true, 0, 99, &number, &error), &error);
        assert_int_equal(number, cases[i].file_type);
        check(ht_gguf_int(file, "fixture.number", true, 0, 99, &number, &error), &error);
        assert_int_equal(number, 42);
        assert_null(ht_gguf_find(file, "split.count"));
        assert_int_equal(ht_gguf_tensor(file, "wide")->type, cases[i].type);
        assert_int_equal(ht_gguf_tensor(file, "narrow")->type,
                         cases[i].type == HT_TYPE_F16 ? HT_TYPE_F16 : HT_TYPE_F32);
        assert_int_equal(ht_gguf_tensor(file, "norm")->type, HT_TYPE_F32);
        uint8_t encoded[ROWS * WIDE * 4];
        float floats[ROWS * WIDE];
        for (size_t k = 0; k < HT_COUNT(floats); k++)
            floats[k] = weight_at(k);
        ht_encode_row(cases[i].type, floats, NULL, HT_COUNT(floats), encoded);
        assert_memory_equal(ht_gguf_tensor(file, "wide")->data, encoded, ht_gguf_tensor(file, "wide")->bytes);
        ht_gguf_close(file);
    }
    free(out);
    free(in);
}

static void test_quantize_refuses(void **state) {
    char *in = temporary_path("in.gguf"), *out = temporary_path("fresh.gguf"), *link = temporary_path("link.gguf");
    write_source(in);
    ht_error error = {0};
    ht_quantize_result result;
    fails(ht_quantize(in, in, "q8_0", NULL, &result, &error), HT_ERROR_ARGUMENT, &error, "in.gguf");
    assert_int_equal(symlink(in, link), 0);
    fails(ht_quantize(in, link, "q8_0", NULL, &result, &error), HT_ERROR_ARGUMENT, &error, "link.gguf");
    fails(ht_quantize(in, out, "q9_k", NULL, &result, &error), HT_ERROR_ARGUMENT, &error, "\"q9_k\"");
    fails(ht_quantize("no/such.gguf", out, "q8_0", NULL, &result, &error), HT_ERROR_IO, &error, "no/such.gguf");
    fails(ht_quantize(in, "no/such/out.gguf", "q8_0", NULL, &result, &error), HT_ERROR_IO, &error, "no/such/out");
    int calls = 2;
    const ht_quantize_options options = {
        .progress = count_calls, .progress_user = &calls}; /* stop after the second call: nothing may be left behind */
    fails(ht_quantize(in, out, "q8_0", &options, &result, &error), HT_ERROR_CANCELLED, &error, "in.gguf");
    assert_int_equal(access(out, F_OK), -1);
    assert_int_equal(count_files(), 2); /* the source and the link to it */
    ht_gguf *file;                      /* the source is what it was */
    check(ht_gguf_open(in, &file, &error), &error);
    assert_int_equal(ht_gguf_tensor(file, "wide")->type, HT_TYPE_F32);
    ht_gguf_close(file);
    free(link);
    free(out);
    free(in);
}

/* NVFP4's second scale, one for each of two matrices in a tensor, also where rows are taken in runs. */
static void test_factors(void **state) {
    ht_matrix m = matrix_of(fixture_tensor("NVFP4", ""));
    static const float factors[] = {0.5f, 3.0f};
    static float plain[2 * 512], times[2 * 512], scales[2 * 32];
    static int8_t codes[2 * 512];
    ht_matrix_floats(&m, 0, 2, plain);
    m.factors = factors, m.factor_rows = 1;
    ht_matrix_floats(&m, 0, 2, times);
    ht_matrix_codes(&m, 0, 2, codes, scales, NULL);
    for (size_t i = 0; i < HT_COUNT(plain); i++) {
        assert_true(times[i] == plain[i] * factors[i / 512]);
        assert_true(scales[i / 16] * codes[i] == times[i]);
    }
    m.factor_rows = 2; /* both rows are of the first */
    ht_matrix_floats(&m, 1, 1, times);
    assert_true(times[0] == plain[512] * 0.5f);
    m.factor_rows = 1, m.rows = 1, m.run = 1, m.stride = 1;
    ht_matrix_floats(&m, 1, 1, times);
    assert_true(times[0] == plain[512] * 3.0f);
}

/* What every device that packs a row refuses, and in which words. */
static void test_bad_rows(void **state) {
    static const struct {
        uint8_t scale;
        const char *says; /* NULL: nothing */
    } scales[] = {
        {0, NULL}, {143, NULL}, {144, "a scale of 2^17, above 2^16"}, {254, "2^127, above"}, {255, "not numbers"}};
    static const float values[] = {NAN, INFINITY, -INFINITY, 65504, 0};
    uint8_t blocks[2 * 17] = {127, [17] = 127};
    int8_t codes[64];
    float two[2];
    ht_error error = {0};
    ht_matrix m = {"tensor", ht_type_get(HT_TYPE_MXFP4), 1, 64, blocks, sizeof blocks, 0, 0, false, NULL, 0};
    for (size_t i = 0; i < HT_COUNT(scales); i++) {
        blocks[17] = scales[i].scale;
        ht_matrix_codes(&m, 0, 1, codes, two, NULL);
        assert_int_equal(ht_matrix_is_bad(&m, 0, two, NULL), scales[i].says != NULL);
        if (scales[i].says)
            fails(ht_matrix_refuse(&m, 0, &error), HT_ERROR_FORMAT, &error, scales[i].says);
    }
    for (size_t i = 0; i < HT_COUNT(values); i++) {
        static const ht_type floats[] = {HT_TYPE_F32, HT_TYPE_F16, HT_TYPE_BF16};
        for (size_t t = 0; t < HT_COUNT(floats); t++) {
            uint8_t row[8 * sizeof(float)] = {0};
            const float one[8] = {[5] = values[i]};
            ht_encode_row(floats[t], one, NULL, 8, row);
            m = (ht_matrix){"tensor", ht_type_get(floats[t]), 1, 8, row, sizeof row, 0, 0, false, NULL, 0};
            assert_int_equal(ht_matrix_is_bad(&m, 0, NULL, NULL), i < 3);
        }
    }
    fails(ht_matrix_refuse(&m, 0, &error), HT_ERROR_FORMAT, &error, "weights of tensor, row 0, are not numbers");
    m = (ht_matrix){"tensor", ht_type_get(HT_TYPE_F16), 1, 8, NULL, 16, 0, 0, false, NULL, 0};
    assert_false(ht_matrix_is_bad(&m, 0, NULL, NULL)); /* made up */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_traits),
        cmocka_unit_test(test_floats),
        cmocka_unit_test(test_codes),
        cmocka_unit_test(test_levels),
        cmocka_unit_test(test_encode),
        cmocka_unit_test(test_encode_not_finite),
        cmocka_unit_test(test_synthetic),
        cmocka_unit_test(test_factors),
        cmocka_unit_test(test_bad_rows),
        cmocka_unit_test_setup_teardown(test_quantize, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_quantize_refuses, make_folder, remove_folder),
    };
    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}
