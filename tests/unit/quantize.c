/* Fitted types and ht_quantize with them: errors of fits against bounds and against plain rounding, the same bytes from
 * every instruction set, recipes, importance matrices good and bad. Layouts are checked by reading back what was
 * written, which tests/unit/quant.c compares with the package gguf. */
#include "quant/imatrix.h"
#include "quant/quant.h"
#include "quant/recipe.h"
#include "quant/tries.h"
#include "unit/test.h"

#include <math.h>
#include <string.h>

enum { COLS = 512, ROWS = 8 };

static uint64_t seed = 1;

static double uniform(void) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return ((double)(seed >> 11) + 0.5) / 9007199254740992.0;
}

static float gaussian(void) {
    return (float)(sqrt(-2 * log(uniform())) * cos(6.283185307179586 * uniform()));
}

/* Root of the mean of w * error^2 of rows that are written and read back, over the root of that of w * x^2. */
static double error_of(ht_type type, const float *x, const float *encode_w, const float *w, size_t cols) {
    const ht_type_traits *traits = ht_type_get(type);
    uint8_t blocks[COLS * 4];
    float back[COLS];
    double sum = 0, all = 0;
    ht_encode_row(type, x, encode_w, cols, blocks);
    const ht_matrix m = {.name = "row",
                         .type = traits,
                         .rows = 1,
                         .cols = cols,
                         .data = blocks,
                         .row_bytes = cols / (size_t)traits->block * (size_t)traits->block_bytes};
    ht_matrix_floats(&m, 0, 1, back);
    for (size_t i = 0; i < cols; i++) {
        const double worth = w ? (double)w[i] : 1, off = (double)back[i] - (double)x[i];
        sum += worth * off * off;
        all += worth * (double)x[i] * (double)x[i];
    }
    return all > 0 ? sqrt(sum / all) : sqrt(sum);
}

/* Of gaussian weights, 2% above what it is (docs/numbers.md compares with llama.cpp's). */
static const struct {
    ht_type type;
    double plain, weighted; /* with importance of a log-normal distribution */
} fits[] = {
    {HT_TYPE_Q2_K, 0.2760, 0.1965},   {HT_TYPE_Q3_K, 0.1508, 0.1170},  {HT_TYPE_Q4_K, 0.0738, 0.0609},
    {HT_TYPE_Q5_K, 0.0359, 0.0295},   {HT_TYPE_Q6_K, 0.0168, 0.0136},  {HT_TYPE_IQ4_NL, 0.0770, 0.0651},
    {HT_TYPE_IQ4_XS, 0.0771, 0.0621}, {HT_TYPE_MXFP4, 0.1142, 0.1104}, {HT_TYPE_Q4_0, 0.0863, 0.0711},
    {HT_TYPE_Q4_1, 0.0795, 0.0575},   {HT_TYPE_Q5_0, 0.0438, 0.0347},  {HT_TYPE_Q5_1, 0.0386, 0.0279},
};

static void test_errors(void **state) {
    for (size_t f = 0; f < HT_COUNT(fits); f++) {
        double plain = 0, weighted = 0, unaware = 0;
        for (int r = 0; r < ROWS; r++) {
            float x[COLS], w[COLS];
            for (int i = 0; i < COLS; i++) {
                x[i] = 0.02f * gaussian();
                w[i] = expf(1.5f * gaussian());
            }
            plain += error_of(fits[f].type, x, NULL, NULL, COLS) / ROWS;
            weighted += error_of(fits[f].type, x, w, w, COLS) / ROWS;
            unaware += error_of(fits[f].type, x, NULL, w, COLS) / ROWS;
        }
        const char *name = ht_type_get(fits[f].type)->name;
        if (getenv("HETERO_SHOW"))
            print_message("%s: %.4f, %.4f with importance\n", name, plain, weighted);
        if (plain > fits[f].plain || weighted > fits[f].weighted ||
            (fits[f].type != HT_TYPE_MXFP4 && weighted >= unaware))
            fail_msg("%s: error %.4f; with importance %.4f, without %.4f", name, plain, weighted, unaware);
    }
}

/* Rows that are not gaussian: read back finite, and not worse than nothing at all; a row of zeros is zeros. */
static void test_odd_rows(void **state) {
    for (size_t f = 0; f < HT_COUNT(fits); f++) {
        for (int kind = 0; kind < 9; kind++) {
            float x[COLS], w[COLS];
            for (int i = 0; i < COLS; i++) {
                const float odd[] = {0,
                                     3.25f,
                                     -3.25f,
                                     i == 77 ? 100 : 1e-3f,
                                     gaussian() * 1e-30f,
                                     gaussian() * 500,
                                     (float)(i % 3),
                                     -fabsf(gaussian()),
                                     gaussian() + 4};
                x[i] = odd[kind];
                w[i] = i % 7 ? 1e-4f : 100;
            }
            const double error = error_of(fits[f].type, x, NULL, NULL, COLS),
                         fitted = error_of(fits[f].type, x, w, w, COLS);
            const double most = kind == 0 ? 0 : kind == 4 ? 1 : 0.5;
            if (!(error <= most) || !(fitted <= most))
                fail_msg("%s, rows of kind %d: error %g, %g with importance", ht_type_get(fits[f].type)->name, kind,
                         error, fitted);
        }
    }
}

/* The same bits from each set of instructions: what a file holds does not depend on who wrote it. */
static void test_tries(void **state) {
    static const int8_t levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
    static const ht_grid grids[] = {{0, 3, NULL}, {-4, 3, NULL}, {-32, 31, NULL}, {-127, 113, levels}};
    for (int round = 0; round < 200; round++) {
        const size_t n = round % 2 ? 16 : 32;
        float x[32], w[32];
        ht_tries from, generic;
        for (size_t i = 0; i < n; i++) {
            x[i] = gaussian();
            w[i] = expf(gaussian());
        }
        for (int t = 0; t < HT_TRIES; t++) {
            from.inverse[t] = 10 * gaussian();
            from.shift[t] = gaussian();
            from.scale[t] = gaussian();
            from.offset[t] = gaussian();
            from.gain[t] = 0;
        }
        const ht_moments m = {gaussian() + 20, gaussian()};
        const ht_judge judge = (ht_judge)(round % 4);
        const ht_grid *grid = &grids[round / 4 % 4];
        generic = from;
        ht_tries_generic(grid, x, w, n, &m, judge, &generic);
#if defined(__x86_64__)
        ht_tries other = from;
        if (__builtin_cpu_supports("avx2")) {
            ht_tries_avx2(grid, x, w, n, &m, judge, &other);
            assert_memory_equal(&other, &generic, sizeof other);
        }
        other = from;
        if (__builtin_cpu_supports("avx512f")) {
            ht_tries_avx512(grid, x, w, n, &m, judge, &other);
            assert_memory_equal(&other, &generic, sizeof other);
        }
#endif
    }
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

typedef struct made {
    const char *name;
    ht_type type;
    int n_dims;
    uint64_t dims[3];
} made;

/* A file of tensors of gaussian values (of F32), zeros (others). */
static void write_file(const char *path, const made *tensors, size_t n, uint32_t layers) {
    ht_error error = {0};
    ht_gguf_writer *writer;
    check(ht_gguf_create(path, &writer, &error), &error);
    const char arch[] = "\5\0\0\0\0\0\0\0llama";
    const ht_gguf_value name = {
        .key = {"general.architecture", 20}, .kind = HT_GGUF_STRING, .data = (const uint8_t *)arch};
    check(ht_gguf_copy_value(writer, &name, &error), &error);
    check(ht_gguf_put_u32(writer, "llama.block_count", layers, &error), &error);
    for (size_t i = 0; i < n; i++)
        check(ht_gguf_put_tensor(writer, tensors[i].name, tensors[i].type, tensors[i].n_dims, tensors[i].dims, &error),
              &error);
    for (size_t i = 0; i < n; i++) {
        uint64_t elements = 1;
        for (int d = 0; d < tensors[i].n_dims; d++)
            elements *= tensors[i].dims[d];
        for (uint64_t k = 0; k < elements; k++) {
            const float value = gaussian();
            check(ht_gguf_write_data(writer, &value, sizeof value, &error), &error);
        }
    }
    check(ht_gguf_finish(writer, &error), &error);
    ht_gguf_abandon(writer);
}

static void expect_types(const char *recipe, const ht_gguf *file, const char *const *names, const ht_type *expected,
                         size_t n) {
    ht_error error = {0};
    ht_type *targets = NULL, *wanted = NULL;
    check(ht_recipe_apply(ht_recipe_find(recipe), file, &targets, &wanted, &error), &error);
    for (size_t i = 0; i < n; i++)
        for (size_t t = 0; t < ht_gguf_tensor_count(file); t++)
            if (!strcmp(ht_gguf_tensor_at(file, t)->name, names[i]) && targets[t] != expected[i])
                fail_msg("%s: %s becomes %s, not %s", recipe, names[i], ht_type_get(targets[t])->name,
                         ht_type_get(expected[i])->name);
    free(targets);
    free(wanted);
}

/* Types that llama-quantize gives a model of 16 layers. */
static void test_recipes(void **state) {
    enum { LAYERS = 16 };
    char names[LAYERS * 3][64], *path = temporary_path("recipe.gguf");
    made tensors[LAYERS * 3 + 4] = {{"token_embd.weight", HT_TYPE_F32, 2, {256, 4}},
                                    {"output.weight", HT_TYPE_F32, 2, {256, 4}},
                                    {"blk.0.ffn_gate_inp.weight", HT_TYPE_F32, 2, {256, 4}},
                                    {"blk.0.odd.weight", HT_TYPE_F32, 2, {32, 4}}};
    for (int i = 0; i < LAYERS * 3; i++) {
        static const char *const kinds[] = {"attn_v", "ffn_down", "attn_output"};
        snprintf(names[i], sizeof names[i], "blk.%d.%s.weight", i / 3, kinds[i % 3]);
        tensors[4 + i] = (made){names[i], HT_TYPE_F32, 2, {256, 1}};
    }
    write_file(path, tensors, HT_COUNT(tensors), LAYERS);
    ht_gguf *file;
    ht_error error = {0};
    check(ht_gguf_open(path, &file, &error), &error);
    static const char *const looked[] = {
        "token_embd.weight",       "output.weight",         "blk.0.ffn_gate_inp.weight", "blk.0.odd.weight",
        "blk.0.attn_v.weight",     "blk.2.attn_v.weight",   "blk.4.attn_v.weight",       "blk.15.attn_v.weight",
        "blk.0.ffn_down.weight",   "blk.1.ffn_down.weight", "blk.5.ffn_down.weight",     "blk.7.ffn_down.weight",
        "blk.3.attn_output.weight"};
    enum { N = HT_COUNT(looked) };
#define T(name) HT_TYPE_##name
    static const struct {
        const char *name;
        ht_type types[N];
    } cases[] = {
        {"q4_k",
         {T(Q4_K), T(Q4_K), T(F32), T(Q5_0), T(Q4_K), T(Q4_K), T(Q4_K), T(Q4_K), T(Q4_K), T(Q4_K), T(Q4_K), T(Q4_K),
          T(Q4_K)}},
        {"q4_K_M",
         {T(Q4_K), T(Q6_K), T(F32), T(Q5_0), T(Q6_K), T(Q4_K), T(Q6_K), T(Q6_K), T(Q6_K), T(Q6_K), T(Q4_K), T(Q6_K),
          T(Q4_K)}},
        {"q5_k_m",
         {T(Q5_K), T(Q6_K), T(F32), T(Q5_1), T(Q6_K), T(Q5_K), T(Q6_K), T(Q6_K), T(Q6_K), T(Q6_K), T(Q5_K), T(Q6_K),
          T(Q5_K)}},
        {"q4_k_s",
         {T(Q4_K), T(Q6_K), T(F32), T(Q5_0), T(Q5_K), T(Q5_K), T(Q4_K), T(Q4_K), T(Q5_K), T(Q5_K), T(Q4_K), T(Q4_K),
          T(Q4_K)}},
        {"q3_k_m",
         {T(Q3_K), T(Q6_K), T(F32), T(Q4_0), T(Q5_K), T(Q4_K), T(Q4_K), T(Q4_K), T(Q5_K), T(Q4_K), T(Q4_K), T(Q4_K),
          T(Q4_K)}},
        {"f16",
         {T(F16), T(F16), T(F16), T(F16), T(F16), T(F16), T(F16), T(F16), T(F16), T(F16), T(F16), T(F16), T(F16)}},
    };
#undef T
    for (size_t i = 0; i < HT_COUNT(cases); i++)
        expect_types(cases[i].name, file, looked, cases[i].types, N);
    ht_gguf_close(file);
    free(path);
}

/* An importance matrix for tensor "blk.0.ffn_up_exps.weight" of two experts, of which the second was met by nobody. */
static void write_importance(const char *path, float first, uint64_t met) {
    ht_error error = {0};
    double sums[2 * 256] = {0};
    uint64_t counts[2] = {met, 0};
    for (int i = 0; i < 256; i++)
        sums[i] = i % 4 == 1 ? 1000 : 1;
    sums[0] = (double)first;
    const ht_imatrix_entry entry = {"blk.0.ffn_up_exps.weight", 256, 2, sums, counts};
    check(ht_imatrix_write(path, &entry, 1, "text", 3, 512, &error), &error);
}

static const made experts[] = {{"blk.0.ffn_up_exps.weight", HT_TYPE_F32, 3, {256, 3, 2}},
                               {"blk.0.ffn_down.weight", HT_TYPE_F32, 2, {256, 3}},
                               {"output.weight", HT_TYPE_F32, 2, {256, 3}}};

static void test_importance_by_expert(void **state) {
    char *in = temporary_path("in.gguf"), *out = temporary_path("out.gguf"), *plain = temporary_path("plain.gguf"),
         *imatrix = temporary_path("imatrix.gguf");
    ht_error error = {0};
    write_file(in, experts, HT_COUNT(experts), 1);
    write_importance(imatrix, 7, 5);
    const ht_quantize_options options = {.imatrix = imatrix, .threads = 2};
    check(ht_quantize(in, out, "q4_k", &options, NULL, &error), &error);
    check(ht_quantize(in, plain, "q4_k", NULL, NULL, &error), &error);
    ht_gguf *with, *without, *source;
    check(ht_gguf_open(out, &with, &error), &error);
    check(ht_gguf_open(plain, &without, &error), &error);
    check(ht_gguf_open(in, &source, &error), &error);
    const ht_tensor *a = ht_gguf_tensor(with, experts[0].name), *b = ht_gguf_tensor(without, experts[0].name);
    float ones[256], was[256];
    for (int i = 0; i < 256; i++)
        ones[i] = 1;
    for (size_t row = 0; row < 6; row++) { /* the second expert's columns count the same */
        uint8_t block[144];
        const ht_matrix original = ht_matrix_of(ht_gguf_tensor(source, experts[0].name));
        ht_matrix_floats(&original, row, 1, was);
        ht_encode_row(HT_TYPE_Q4_K, was, ones, 256, block);
        assert_int_equal(memcmp(a->data + row * 144, block, 144) == 0, row >= 3);
    }
    for (size_t i = 1; i < HT_COUNT(experts); i++)
        assert_memory_equal(ht_gguf_tensor(with, experts[i].name)->data, ht_gguf_tensor(without, experts[i].name)->data,
                            3 * 144);
    /* Columns that matter are nearer to what they were. */
    double near[2] = {0};
    for (int k = 0; k < 2; k++) {
        ht_matrix m = ht_matrix_of(k ? b : a), original = ht_matrix_of(ht_gguf_tensor(source, experts[0].name));
        float row[256];
        for (size_t r = 0; r < 3; r++) {
            ht_matrix_floats(&m, r, 1, row);
            ht_matrix_floats(&original, r, 1, was);
            for (int i = 1; i < 256; i += 4)
                near[k] += (double)((row[i] - was[i]) * (row[i] - was[i]));
        }
    }
    if (!(near[0] < 0.8 * near[1]))
        fail_msg("errors where it matters: %g with importance, %g without", near[0], near[1]);
    ht_gguf_close(with);
    ht_gguf_close(without);
    ht_gguf_close(source);
    free(imatrix), free(plain), free(out), free(in);
}

/* One number of a file's data, as a float, becomes another. */
static void spoil(const char *path, const char *tensor, size_t index, float value) {
    ht_error error = {0};
    ht_gguf *file;
    check(ht_gguf_open(path, &file, &error), &error);
    const ht_tensor *t = ht_gguf_tensor(file, tensor);
    float all[2 * 256];
    memcpy(all, t->data, t->bytes < sizeof all ? t->bytes : sizeof all);
    size_t size = ht_gguf_file_bytes(file);
    FILE *stream = fopen(path, "r+b");
    uint8_t *bytes = test_malloc(size);
    assert_int_equal(fread(bytes, 1, size, stream), size);
    for (size_t at = 0; at + t->bytes <= size; at += 4)
        if (!memcmp(bytes + at, t->data, t->bytes)) {
            assert_int_equal(fseek(stream, (long)(at + 4 * index), SEEK_SET), 0);
            assert_int_equal(fwrite(&value, sizeof value, 1, stream), 1);
        }
    assert_int_equal(fclose(stream), 0);
    test_free(bytes);
    ht_gguf_close(file);
}

static void test_bad_importance(void **state) {
    static const char sums[] = "blk.0.ffn_up_exps.weight.in_sum2", counts[] = "blk.0.ffn_up_exps.weight.counts";
    char *in = temporary_path("in.gguf"), *out = temporary_path("out.gguf"), *bad = temporary_path("bad.gguf");
    const ht_quantize_options options = {.imatrix = bad};
    ht_error error = {0};
    write_file(in, experts, HT_COUNT(experts), 1);
    static const struct {
        const char *tensor;
        float value;
        const char *says;
    } numbers[] = {{sums, NAN, "nan"},   {sums, INFINITY, "inf"},  {sums, -1, "-1"},
                   {counts, NAN, "nan"}, {counts, 1e30f, "1e+30"}, {counts, -3, "-3"}};
    for (size_t i = 0; i < HT_COUNT(numbers); i++) {
        write_importance(bad, 7.5f, 5);
        spoil(bad, numbers[i].tensor, 0, numbers[i].value);
        fails(ht_quantize(in, out, "q4_k", &options, NULL, &error), HT_ERROR_FORMAT, &error, numbers[i].tensor);
        assert_non_null(strstr(error.text, numbers[i].says));
        assert_non_null(strstr(error.text, "bad.gguf"));
    }
    static const struct {
        made tensors[2];
        size_t n;
        const char *says;
    } files[] = {
        {{{"blk.0.ffn_up_exps.weight.in_sum2", HT_TYPE_F32, 2, {256, 2}}}, 1, "has no blk.0.ffn_up_exps.weight.counts"},
        {{{"blk.0.ffn_up_exps.weight.counts", HT_TYPE_F32, 2, {1, 2}}}, 1, "has no blk.0.ffn_up_exps.weight.in_sum2"},
        {{{"blk.0.ffn_up_exps.weight", HT_TYPE_F32, 2, {1, 2}}}, 1, "no importance matrix"},
    };
    for (size_t i = 0; i < HT_COUNT(files); i++) {
        write_file(bad, files[i].tensors, files[i].n, 1);
        fails(ht_quantize(in, out, "q4_k", &options, NULL, &error), HT_ERROR_FORMAT, &error, files[i].says);
    }
    double one[512] = {1, 2, 3};
    uint64_t met[3] = {1, 1, 1};
    const ht_imatrix_entry shapes[] = {{"blk.0.ffn_up_exps.weight", 128, 2, one, met},
                                       {"blk.0.ffn_up_exps.weight", 128, 3, one, met}};
    for (size_t i = 0; i < HT_COUNT(shapes); i++) {
        check(ht_imatrix_write(bad, &shapes[i], 1, "", 1, 1, &error), &error);
        fails(ht_quantize(in, out, "q4_k", &options, NULL, &error), HT_ERROR_FORMAT, &error, "of another model?");
    }
    const ht_imatrix_entry other = {"blk.7.attn_q.weight", 128, 2, one, met};
    check(ht_imatrix_write(bad, &other, 1, "", 1, 1, &error), &error);
    fails(ht_quantize(in, out, "q4_k", &options, NULL, &error), HT_ERROR_ARGUMENT, &error,
          "has no importance of any matrix");
    fails(ht_quantize(in, out, "q4_k", &(ht_quantize_options){.imatrix = "no/such.gguf"}, NULL, &error), HT_ERROR_IO,
          &error, "no/such.gguf");
    assert_int_equal(access(out, F_OK), -1); /* nothing was left */
    free(bad), free(out), free(in);
}

/* Weights that are no numbers have no fit. */
static void test_bad_weights(void **state) {
    char *in = temporary_path("in.gguf"), *out = temporary_path("out.gguf");
    ht_error error = {0};
    write_file(in, experts + 1, 2, 1);
    spoil(in, "output.weight", 2 * 256 + 9, NAN);
    fails(ht_quantize(in, out, "q4_k", NULL, NULL, &error), HT_ERROR_FORMAT, &error, "output.weight, row 2");
    assert_int_equal(access(out, F_OK), -1);
    free(out), free(in);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_odd_rows),
        cmocka_unit_test(test_tries),
        cmocka_unit_test_setup_teardown(test_recipes, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_importance_by_expert, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_bad_importance, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_bad_weights, make_folder, remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
