/* Hostile GGUF files: each gets one clear line that names the culprit, no crash, no hang, little memory. Run under
 * AddressSanitizer and UBSan in CI. What lies above the container (tokenizer, families) has tests of its own. */
#include "gguf/gguf.h"
#include "quant/quant.h"
#include "unit/gguf_bytes.h"
#include "unit/test.h"

#include <time.h>

#define HUGE_COUNT ((uint64_t)1 << 63)
#define MOST_MEMORY ((uint64_t)64 << 20) /* all of these tests together may add this much to the peak */

/* AddressSanitizer keeps freed memory back, 256 MiB of it unless told otherwise, which would drown what is measured. */
const char *__asan_default_options(void);
const char *__asan_default_options(void) {
    return "quarantine_size_mb=4";
}

static uint64_t rss_before;

static int start(void **state) {
    rss_before = ht_peak_rss_bytes();
    return 0;
}

static void test_memory_was_bounded(void **state) {
    assert_in_range(ht_peak_rss_bytes() - rss_before, 0, MOST_MEMORY);
}

/* Touches all that an opened file offers: every number, string and weight. */
static double read_everything(const ht_gguf *file) {
    double sum = 0;
    for (size_t i = 0; i < ht_gguf_value_count(file); i++) {
        const ht_gguf_value *value = ht_gguf_value_at(file, i);
        bool array = value->kind == HT_GGUF_ARRAY;
        ht_gguf_kind kind = array ? value->item_kind : value->kind;
        uint64_t count = array ? value->count : 1;
        for (uint64_t k = 0; k < count; k++) {
            if (kind != HT_GGUF_STRING)
                sum += ht_gguf_item(value, k) + (double)ht_gguf_item_int(value, k);
            else if (array && value->strings[k].bytes)
                sum += value->strings[k].data[value->strings[k].bytes - 1];
        }
    }
    for (size_t i = 0; i < ht_gguf_tensor_count(file); i++) {
        const ht_tensor *tensor = ht_gguf_tensor_at(file, i);
        size_t cols = (size_t)tensor->dims[0];
        const ht_matrix matrix = ht_matrix_of(tensor);
        float *row = malloc(cols * sizeof *row);
        assert_non_null(row);
        for (size_t r = 0; r < matrix.rows; r++) {
            ht_matrix_floats(&matrix, r, 1, row);
            sum += (double)row[cols - 1];
        }
        free(row);
    }
    return sum;
}

/* ---- one thing wrong at a time ---- */

static void wrong_magic(ht_text *f) {
    put_bytes(f, "GGUX", 4);
    put_u32(f, 3);
    put_u64(f, 0);
    put_u64(f, 0);
}

static void old_version(ht_text *f) {
    put_header(f, 1, 0, 0);
}
static void future_version(ht_text *f) {
    put_header(f, 99, 0, 0);
}
static void zero_version(ht_text *f) {
    put_header(f, 0, 0, 0);
}
static void big_endian(ht_text *f) {
    put_header(f, 0x03000000, 0, 0);
}
static void huge_key_count(ht_text *f) {
    put_header(f, 3, 0, HUGE_COUNT);
}
static void huge_tensor_count(ht_text *f) {
    put_header(f, 3, HUGE_COUNT, 0);
}
static void negative_counts(ht_text *f) {
    put_header(f, 3, UINT64_MAX, UINT64_MAX);
}

/* A file of one key; what follows the key is the case's own, and room after it so that the counts pass. */
static void one_key(ht_text *f, const char *key, uint32_t kind) {
    put_header(f, 3, 0, 1);
    put_key(f, key, kind);
}

static void huge_key_length(ht_text *f) {
    put_header(f, 3, 0, 1);
    put_u64(f, HUGE_COUNT);
    put_bytes(f, "key and more of it", 18);
}

static void wrapping_key_length(ht_text *f) { /* at + length == something small */
    put_header(f, 3, 0, 1);
    put_u64(f, UINT64_MAX - 16);
    put_bytes(f, "key and more of it", 18);
}

static void empty_key(ht_text *f) {
    one_key(f, "", HT_GGUF_U32);
    put_u32(f, 1);
}

static void overlong_key(ht_text *f) {
    char key[70001];
    memset(key, 'k', sizeof key - 1);
    key[sizeof key - 1] = 0;
    one_key(f, key, HT_GGUF_U32);
    put_u32(f, 1);
}

static void key_with_nul(ht_text *f) {
    put_header(f, 3, 0, 1);
    put_string(f, "nul\0key", 7);
    put_u32(f, HT_GGUF_U32);
    put_u32(f, 1);
}

static void unknown_kind(ht_text *f) {
    one_key(f, "the.key", 13);
    put_u64(f, 0);
}

static void huge_string(ht_text *f) {
    one_key(f, "the.key", HT_GGUF_STRING);
    put_u64(f, HUGE_COUNT);
}

static void huge_array(ht_text *f) {
    one_key(f, "the.key", HT_GGUF_ARRAY);
    put_u32(f, HT_GGUF_U8);
    put_u64(f, HUGE_COUNT);
}

static void wrapping_array(ht_text *f) { /* 2^61 x 8 bytes is 0 modulo 2^64 */
    one_key(f, "the.key", HT_GGUF_ARRAY);
    put_u32(f, HT_GGUF_U64);
    put_u64(f, (uint64_t)1 << 61);
    put_u64(f, 0);
}

static void huge_string_array(ht_text *f) {
    one_key(f, "the.key", HT_GGUF_ARRAY);
    put_u32(f, HT_GGUF_STRING);
    put_u64(f, (uint64_t)1 << 60);
    put_u64(f, 0);
}

static void huge_string_in_array(ht_text *f) {
    one_key(f, "the.key", HT_GGUF_ARRAY);
    put_u32(f, HT_GGUF_STRING);
    put_u64(f, 2);
    put_string(f, "fine", 4);
    put_u64(f, HUGE_COUNT);
    put_u64(f, 0);
}

static void array_of_arrays(ht_text *f) {
    one_key(f, "the.key", HT_GGUF_ARRAY);
    put_u32(f, HT_GGUF_ARRAY);
    put_u64(f, 1);
    put_u32(f, HT_GGUF_U8);
    put_u64(f, 0);
}

static void array_of_unknown_kind(ht_text *f) {
    one_key(f, "the.key", HT_GGUF_ARRAY);
    put_u32(f, 99);
    put_u64(f, 1);
    put_u64(f, 0);
}

static void key_twice(ht_text *f) {
    put_header(f, 3, 0, 2);
    for (int i = 0; i < 2; i++) {
        put_key(f, "the.key", HT_GGUF_U32);
        put_u32(f, 1);
    }
}

static void unprintable_key(ht_text *f) { /* must not reach a terminal as it is */
    one_key(f, "esc\x1b[2J\nline", 13);
    put_u64(f, 0);
}

static void alignment(ht_text *f, uint32_t bytes) {
    one_key(f, "general.alignment", HT_GGUF_U32);
    put_u32(f, bytes);
}

static void zero_alignment(ht_text *f) {
    alignment(f, 0);
}
static void odd_alignment(ht_text *f) {
    alignment(f, 48);
}
static void huge_alignment(ht_text *f) {
    alignment(f, 1u << 31);
}

static void string_alignment(ht_text *f) {
    one_key(f, "general.alignment", HT_GGUF_STRING);
    put_string(f, "32", 2);
}

/* A file of one tensor with room for 8 x 2 floats. */
static void one_tensor(ht_text *f, const char *name, uint32_t type, uint64_t cols, uint64_t rows, uint64_t offset) {
    put_header(f, 3, 1, 0);
    put_tensor(f, name, type, cols, rows, offset);
    put_padding(f, 32);
    for (int i = 0; i < 16; i++)
        put_u32(f, 0);
}

static void offset_outside(ht_text *f) {
    one_tensor(f, "tn", HT_TYPE_F32, 8, 2, 1 << 20);
}
static void offset_at_end(ht_text *f) {
    one_tensor(f, "tn", HT_TYPE_F32, 8, 2, 32);
}
static void offset_huge(ht_text *f) {
    one_tensor(f, "tn", HT_TYPE_F32, 8, 2, HUGE_COUNT);
}
static void offset_wraps(ht_text *f) {
    one_tensor(f, "tn", HT_TYPE_F32, 8, 2, UINT64_MAX - 31);
}
static void offset_unaligned(ht_text *f) {
    one_tensor(f, "tn", HT_TYPE_F32, 4, 1, 4);
}
static void data_short(ht_text *f) {
    one_tensor(f, "tn", HT_TYPE_F32, 8, 3, 0);
}
static void dimension_zero(ht_text *f) {
    one_tensor(f, "tn", HT_TYPE_F32, 8, 0, 0);
}
static void dimension_huge(ht_text *f) {
    one_tensor(f, "tn", HT_TYPE_F32, HUGE_COUNT, 1, 0);
}
static void dimensions_wrap(ht_text *f) {
    one_tensor(f, "tn", HT_TYPE_F32, (uint64_t)1 << 32, (uint64_t)1 << 32, 0);
}
static void bytes_wrap(ht_text *f) {
    one_tensor(f, "tn", HT_TYPE_F32, (uint64_t)1 << 62, 1, 0);
}
static void half_blocks(ht_text *f) {
    one_tensor(f, "tn", HT_TYPE_Q4_0, 48, 1, 0);
}
static void known_foreign_type(ht_text *f) {
    one_tensor(f, "tn", 15, 256, 1, 0);
}
static void removed_type(ht_text *f) {
    one_tensor(f, "tn", 4, 256, 1, 0);
}
static void unknown_type(ht_text *f) {
    one_tensor(f, "tn", 777, 8, 1, 0);
}
static void negative_type(ht_text *f) {
    one_tensor(f, "tn", UINT32_MAX, 8, 1, 0);
}
static void tensor_without_name(ht_text *f) {
    one_tensor(f, "", HT_TYPE_F32, 8, 2, 0);
}

static void overlong_tensor_name(ht_text *f) {
    one_tensor(f, "a.name.that.goes.on.and.on.and.on.and.on.and.on.and.on.and.on.and.on", HT_TYPE_F32, 8, 2, 0);
}

static void tensor_dims(ht_text *f, uint32_t n) {
    put_header(f, 3, 1, 0);
    put_string(f, "tn", 2);
    put_u32(f, n);
    for (int i = 0; i < 8; i++)
        put_u64(f, 1);
}

static void no_dimensions(ht_text *f) {
    tensor_dims(f, 0);
}
static void five_dimensions(ht_text *f) {
    tensor_dims(f, 5);
}
static void huge_dimensions(ht_text *f) {
    tensor_dims(f, UINT32_MAX);
}

static void two_tensors(ht_text *f, const char *second, uint64_t offset) {
    put_header(f, 3, 2, 0);
    put_tensor(f, "first", HT_TYPE_F32, 16, 1, 0);
    put_tensor(f, second, HT_TYPE_F32, 8, 1, offset);
    put_padding(f, 32);
    for (int i = 0; i < 64; i++)
        put_u32(f, 0);
}

static void overlapping(ht_text *f) {
    two_tensors(f, "second", 32);
}
static void same_place(ht_text *f) {
    two_tensors(f, "second", 0);
}
static void tensor_twice(ht_text *f) {
    two_tensors(f, "first", 64);
}

static void split_count(ht_text *f, uint32_t kind, uint64_t number) {
    one_key(f, "split.count", kind);
    put_u64(f, number);
}

static void split_of_text(ht_text *f) {
    split_count(f, HT_GGUF_STRING, 0);
}
static void split_negative(ht_text *f) {
    split_count(f, HT_GGUF_I64, UINT64_MAX);
}
static void split_huge(ht_text *f) {
    split_count(f, HT_GGUF_U64, UINT64_MAX);
}
static void split_unnamed(ht_text *f) {
    split_count(f, HT_GGUF_U16, 2);
}

#define CASE(function, status, culprit) \
    { #function, function, status, culprit }

static const struct {
    const char *name;
    void (*make)(ht_text *file);
    ht_status status;
    const char *culprit;
} cases[] = {
    CASE(wrong_magic, HT_ERROR_FORMAT, "magic"),
    CASE(old_version, HT_ERROR_UNSUPPORTED, "version 1 "),
    CASE(future_version, HT_ERROR_UNSUPPORTED, "version 99 "),
    CASE(zero_version, HT_ERROR_UNSUPPORTED, "version 0 "),
    CASE(big_endian, HT_ERROR_UNSUPPORTED, "big-endian"),
    CASE(huge_key_count, HT_ERROR_FORMAT, "9223372036854775808 keys"),
    CASE(huge_tensor_count, HT_ERROR_FORMAT, "9223372036854775808 tensors"),
    CASE(negative_counts, HT_ERROR_FORMAT, "18446744073709551615 keys"),
    CASE(huge_key_length, HT_ERROR_FORMAT, "9223372036854775808"),
    CASE(wrapping_key_length, HT_ERROR_FORMAT, "key"),
    CASE(empty_key, HT_ERROR_FORMAT, "empty key"),
    CASE(overlong_key, HT_ERROR_FORMAT, "70000 bytes"),
    CASE(key_with_nul, HT_ERROR_FORMAT, "NUL"),
    CASE(unknown_kind, HT_ERROR_FORMAT, "\"the.key\" is of unknown kind 13"),
    CASE(huge_string, HT_ERROR_FORMAT, "9223372036854775808"),
    CASE(huge_array, HT_ERROR_FORMAT, "\"the.key\" is an array of 9223372036854775808"),
    CASE(wrapping_array, HT_ERROR_FORMAT, "\"the.key\""),
    CASE(huge_string_array, HT_ERROR_FORMAT, "\"the.key\""),
    CASE(huge_string_in_array, HT_ERROR_FORMAT, "\"the.key\""),
    CASE(array_of_arrays, HT_ERROR_UNSUPPORTED, "\"the.key\" is an array of arrays"),
    CASE(array_of_unknown_kind, HT_ERROR_FORMAT, "\"the.key\""),
    CASE(key_twice, HT_ERROR_FORMAT, "\"the.key\" occurs twice"),
    CASE(unprintable_key, HT_ERROR_FORMAT, "esc?[2J?line"),
    CASE(zero_alignment, HT_ERROR_FORMAT, "general.alignment"),
    CASE(odd_alignment, HT_ERROR_FORMAT, "general.alignment"),
    CASE(huge_alignment, HT_ERROR_FORMAT, "general.alignment"),
    CASE(string_alignment, HT_ERROR_FORMAT, "general.alignment"),
    CASE(offset_outside, HT_ERROR_FORMAT, "\"tn\" lies outside"),
    CASE(offset_at_end, HT_ERROR_FORMAT, "\"tn\" lies outside"),
    CASE(offset_huge, HT_ERROR_FORMAT, "\"tn\" lies outside"),
    CASE(offset_wraps, HT_ERROR_FORMAT, "\"tn\" lies outside"),
    CASE(offset_unaligned, HT_ERROR_FORMAT, "\"tn\": offset 4"),
    CASE(data_short, HT_ERROR_FORMAT, "\"tn\" lies outside"),
    CASE(dimension_zero, HT_ERROR_FORMAT, "\"tn\" has an impossible dimension 0"),
    CASE(dimension_huge, HT_ERROR_FORMAT, "\"tn\""),
    CASE(dimensions_wrap, HT_ERROR_FORMAT, "\"tn\" has an impossible dimension"),
    CASE(bytes_wrap, HT_ERROR_FORMAT, "\"tn\" is larger than any file"),
    CASE(half_blocks, HT_ERROR_FORMAT, "\"tn\": 48 columns"),
    CASE(known_foreign_type, HT_ERROR_UNSUPPORTED, "\"tn\" is of type Q8_K"),
    CASE(removed_type, HT_ERROR_UNSUPPORTED, "\"tn\" is of type Q4_2"),
    CASE(unknown_type, HT_ERROR_UNSUPPORTED, "\"tn\" is of unknown type 777"),
    CASE(negative_type, HT_ERROR_UNSUPPORTED, "\"tn\" is of unknown type 4294967295"),
    CASE(tensor_without_name, HT_ERROR_FORMAT, "empty tensor name"),
    CASE(overlong_tensor_name, HT_ERROR_FORMAT, "a.name.that.goes.on"),
    CASE(no_dimensions, HT_ERROR_FORMAT, "\"tn\" has 0 dimensions"),
    CASE(five_dimensions, HT_ERROR_FORMAT, "\"tn\" has 5 dimensions"),
    CASE(huge_dimensions, HT_ERROR_FORMAT, "\"tn\" has 4294967295 dimensions"),
    CASE(overlapping, HT_ERROR_FORMAT, "\"first\" and \"second\" overlap"),
    CASE(same_place, HT_ERROR_FORMAT, "overlap"),
    CASE(tensor_twice, HT_ERROR_FORMAT, "\"first\" occurs twice"),
    CASE(split_of_text, HT_ERROR_FORMAT, "split.count"),
    CASE(split_negative, HT_ERROR_FORMAT, "split.count"),
    CASE(split_huge, HT_ERROR_FORMAT, "one part of a file split"),
    CASE(split_unnamed, HT_ERROR_FORMAT, "split in 2"),
};

static void test_cases(void **state) {
    for (size_t i = 0; i < HT_COUNT(cases); i++) {
        ht_text bytes = {0};
        ht_error error = {0};
        ht_gguf *file = NULL;
        cases[i].make(&bytes);
        char *path = save(&bytes, "hostile.gguf");
        ht_status status = ht_gguf_open(path, &file, &error);
        if (status != cases[i].status || !strstr(error.text, cases[i].culprit) || !strstr(error.text, "hostile.gguf")) {
            fail_msg("%s: %s, \"%s\"; expected %s, \"%s\"", cases[i].name, ht_status_name(status), error.text,
                     ht_status_name(cases[i].status), cases[i].culprit);
        }
        assert_null(strpbrk(error.text, "\n\x1b"));
        assert_null(file);                                         /* set on success only */
        assert_int_equal(ht_gguf_open(path, &file, NULL), status); /* nobody need listen */
        free(path);
    }
}

/* The same builders without the fault open: what fails above fails for its own reason. */
static void test_faultless(void **state) {
    ht_error error = {0};
    ht_gguf *file;
    ht_text bytes = {0};
    one_tensor(&bytes, "tn", HT_TYPE_F32, 8, 2, 0);
    char *path = save(&bytes, "tensor.gguf");
    check(ht_gguf_open(path, &file, &error), &error);
    ht_gguf_close(file);
    free(path);
    two_tensors(&bytes, "second", 64);
    path = save(&bytes, "tensors.gguf");
    check(ht_gguf_open(path, &file, &error), &error);
    ht_gguf_close(file);
    free(path);
    alignment(&bytes, 64);
    path = save(&bytes, "alignment.gguf");
    check(ht_gguf_open(path, &file, &error), &error);
    ht_gguf_close(file);
    free(path);
}

static void test_no_file(void **state) {
    ht_error error = {0};
    ht_gguf *file = NULL;
    char *missing = temporary_path("missing.gguf"), *empty = save_bytes("", 0, "empty.gguf");
    fails(ht_gguf_open(missing, &file, &error), HT_ERROR_IO, &error, "missing.gguf");
    fails(ht_gguf_open(empty, &file, &error), HT_ERROR_FORMAT, &error, "empty.gguf: the file is empty");
    fails(ht_gguf_open(test_folder, &file, &error), HT_ERROR_IO, &error, "is a directory");
    fails(ht_gguf_open("", &file, &error), HT_ERROR_IO, &error, "No such file");
    assert_null(file);
    free(empty);
    free(missing);
}

/* ---- a small model, cut and damaged everywhere ---- */

#define VOCABULARY 24

/* Written by our writer: keys of every shape that a model has, one tensor of every type that can be encoded. */
static ht_text small_model(void) {
    static const ht_type types[] = {HT_TYPE_Q4_0, HT_TYPE_Q4_1, HT_TYPE_Q8_0, HT_TYPE_F16, HT_TYPE_BF16, HT_TYPE_F32};
    ht_error error = {0};
    ht_gguf_writer *writer;
    char *path = temporary_path("small.gguf");
    ht_text tokens = {0}, scores = {0};
    ht_string strings[VOCABULARY];
    for (uint32_t i = 0; i < VOCABULARY; i++) {
        char text[2] = {(char)('a' + i), 0};
        put_string(&tokens, text, 1);
        strings[i] = (ht_string){"a", 1};
        put_u32(&scores, i);
    }
    const ht_gguf_value values[] = {
        {.key = {"tokenizer.ggml.tokens", 21},
         .kind = HT_GGUF_ARRAY,
         .item_kind = HT_GGUF_STRING,
         .count = VOCABULARY,
         .data = (const uint8_t *)tokens.data,
         .strings = strings},
        {.key = {"tokenizer.ggml.token_type", 25},
         .kind = HT_GGUF_ARRAY,
         .item_kind = HT_GGUF_I32,
         .count = VOCABULARY,
         .data = (const uint8_t *)scores.data},
        {.key = {"general.architecture", 20}, .kind = HT_GGUF_STRING, .data = (const uint8_t *)"\5\0\0\0\0\0\0\0llama"},
    };
    check(ht_gguf_create(path, &writer, &error), &error);
    for (size_t i = 0; i < HT_COUNT(values); i++)
        check(ht_gguf_copy_value(writer, &values[i], &error), &error);
    check(ht_gguf_put_u32(writer, "llama.block_count", 1, &error), &error);
    uint64_t dims[] = {64, 2};
    for (size_t i = 0; i < HT_COUNT(types); i++) {
        check(ht_gguf_put_tensor(writer, ht_type_get(types[i])->name, types[i], 2, dims, &error), &error);
    }
    for (size_t i = 0; i < HT_COUNT(types); i++) {
        float floats[128];
        uint8_t blocks[512];
        for (size_t k = 0; k < HT_COUNT(floats); k++)
            floats[k] = (float)k / 32 - 2;
        ht_encode_row(types[i], floats, NULL, HT_COUNT(floats), blocks);
        const ht_type_traits *type = ht_type_get(types[i]);
        check(ht_gguf_write_data(writer, blocks, 128 / (size_t)type->block * (size_t)type->block_bytes, &error),
              &error);
    }
    check(ht_gguf_finish(writer, &error), &error);
    ht_gguf_abandon(writer);
    ht_text_free(&tokens);
    ht_text_free(&scores);
    ht_mapping mapping;
    ht_text bytes = {0};
    check(ht_mapping_open(path, &mapping, &error), &error);
    put_bytes(&bytes, mapping.data, mapping.bytes);
    ht_mapping_close(&mapping);
    free(path);
    return bytes;
}

static void test_truncated(void **state) {
    ht_text model = small_model();
    /* Its last tensor is 64 x 2 floats and ends on a 32-byte boundary, so no cut leaves it whole. */
    for (size_t bytes = 0; bytes < model.bytes; bytes += bytes < 64 ? 1 : 64) {
        ht_error error = {0};
        ht_gguf *file = NULL;
        char *path = save_bytes(model.data, bytes, "cut.gguf");
        ht_status status = ht_gguf_open(path, &file, &error);
        if (status != HT_ERROR_FORMAT || !strstr(error.text, "cut.gguf")) {
            fail_msg("cut to %zu bytes: %s, \"%s\"", bytes, ht_status_name(status), error.text);
        }
        const char *says = !bytes ? "empty" : "truncated";
        if (!strstr(error.text, says))
            fail_msg("cut to %zu bytes: \"%s\" does not say %s", bytes, error.text, says);
        assert_null(file);
        free(path);
    }
    ht_error error = {0};
    ht_gguf *file;
    char *path = save(&model, "whole.gguf");
    check(ht_gguf_open(path, &file, &error), &error);
    assert_int_equal(ht_gguf_tensor_count(file), 6);
    read_everything(file);
    ht_gguf_close(file);
    free(path);
}

/* Every byte of the headers in turn becomes something else. It opens, and then all of it can be read; or it does not,
 * and the error names the file. */
static void test_damaged(void **state) {
    static const uint8_t damage[] = {0x00, 0x01, 0x7f, 0x80, 0xff};
    ht_text model = small_model();
    const size_t header = model.bytes - 4 * 64 * 2; /* all but the last tensor */
    volatile double sink = 0;
    size_t opened = 0, refused = 0;
    for (size_t at = 0; at < header; at++) {
        char kept = model.data[at];
        for (size_t d = 0; d < HT_COUNT(damage); d++) {
            ht_error error = {0};
            ht_gguf *file = NULL;
            model.data[at] = (char)damage[d];
            char *path = save_bytes(model.data, model.bytes, "damaged.gguf");
            if (ht_gguf_open(path, &file, &error) == HT_OK) {
                sink = sink + read_everything(file);
                ht_gguf_close(file);
                opened++;
            } else {
                if (!strstr(error.text, "damaged.gguf"))
                    fail_msg("byte %zu = %02x: \"%s\"", at, damage[d], error.text);
                refused++;
            }
            free(path);
        }
        model.data[at] = kept;
    }
    assert_true(opened > 100 && refused > 100); /* neither the damage nor the check is idle */
    ht_text_free(&model);
}

/* Very many keys that differ in little: opening stays linear. */
static void test_many_keys(void **state) {
    enum { KEYS = 20000 };
    ht_text bytes = {0};
    ht_error error = {0};
    ht_gguf *file;
    put_header(&bytes, 3, 0, KEYS);
    for (uint32_t i = 0; i < KEYS; i++) {
        char key[32];
        snprintf(key, sizeof key, "%08x%08x", i << 12, i * 0x9e3779b1u);
        put_key(&bytes, key, HT_GGUF_U32);
        put_u32(&bytes, i);
    }
    char *path = save(&bytes, "many.gguf");
    clock_t began = clock(); /* of the processor */
    check(ht_gguf_open(path, &file, &error), &error);
    assert_true((double)(clock() - began) / CLOCKS_PER_SEC < 2); /* a quadratic reader takes longer by far */
    for (uint32_t i = 0; i < KEYS; i += 777) {
        int64_t number;
        char key[32];
        snprintf(key, sizeof key, "%08x%08x", i << 12, i * 0x9e3779b1u);
        check(ht_gguf_int(file, key, true, i, i, &number, &error), &error);
    }
    ht_gguf_close(file);
    free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_cases, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_faultless, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_no_file, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_truncated, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_damaged, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_many_keys, make_folder, remove_folder),
        cmocka_unit_test(test_memory_was_bounded),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
