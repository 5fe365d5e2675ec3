/* GGUF reader and writer on good files: round trips, typed reads, split files, alignment. Bad files: hostile.c. */
#include "gguf/gguf.h"
#include "quant/quant.h"
#include "unit/gguf_bytes.h"
#include "unit/test.h"

#include <math.h>
#include <sys/stat.h>

/* A file with every kind of value, as the format's specification puts them, written without our writer. */
static void put_every_kind(ht_text *file) {
    put_key(file, "a.u8", HT_GGUF_U8);
    put_bytes(file, "\xff", 1);
    put_key(file, "a.i8", HT_GGUF_I8);
    put_bytes(file, "\xff", 1);
    put_key(file, "a.u16", HT_GGUF_U16);
    put_bytes(file, "\xfe\xff", 2);
    put_key(file, "a.i16", HT_GGUF_I16);
    put_bytes(file, "\xfe\xff", 2);
    put_key(file, "a.u32", HT_GGUF_U32);
    put_u32(file, 4000000000u);
    put_key(file, "a.i32", HT_GGUF_I32);
    put_u32(file, (uint32_t)-5);
    put_key(file, "a.f32", HT_GGUF_F32);
    put_bytes(file, &(float){0.5f}, 4);
    put_key(file, "a.bool", HT_GGUF_BOOL);
    put_bytes(file, "\1", 1);
    put_key(file, "a.string", HT_GGUF_STRING);
    put_string(file, "text", 4);
    put_key(file, "a.u64", HT_GGUF_U64);
    put_u64(file, (uint64_t)1 << 63);
    put_key(file, "a.i64", HT_GGUF_I64);
    put_u64(file, (uint64_t)-7);
    put_key(file, "a.f64", HT_GGUF_F64);
    put_bytes(file, &(double){1e300}, 8);
    put_key(file, "a.numbers", HT_GGUF_ARRAY);
    put_u32(file, HT_GGUF_I16);
    put_u64(file, 3);
    put_bytes(file, "\1\0\xff\xff\0\x80", 6);
    put_key(file, "a.strings", HT_GGUF_ARRAY);
    put_u32(file, HT_GGUF_STRING);
    put_u64(file, 3);
    put_string(file, "", 0);
    put_string(file, "b\0c", 3);
    put_string(file, "def", 3);
    put_key(file, "a.nan", HT_GGUF_F32);
    put_bytes(file, &(float){NAN}, 4);
    put_key(file, "a.alike", HT_GGUF_ARRAY);
    put_u32(file, HT_GGUF_I8);
    put_u64(file, 3);
    put_bytes(file, "\xfd\xfd\xfd", 3);
    put_key(file, "a.nothing", HT_GGUF_ARRAY);
    put_u32(file, HT_GGUF_F32);
    put_u64(file, 0);
}
#define EVERY_KIND 17

static ht_gguf *open_every_kind(uint32_t version) {
    ht_text file = {0};
    ht_error error = {0};
    put_header(&file, version, 0, EVERY_KIND);
    put_every_kind(&file);
    char *path = save(&file, "kinds.gguf");
    ht_gguf *gguf = NULL;
    check(ht_gguf_open(path, &gguf, &error), &error);
    free(path);
    return gguf;
}

static void test_integers(void **state) {
    static const struct {
        const char *key;
        int64_t expected;
    } cases[] = {{"a.u8", 255},         {"a.i8", -1},  {"a.u16", 65534}, {"a.i16", -2},
                 {"a.u32", 4000000000}, {"a.i32", -5}, {"a.i64", -7}};
    for (uint32_t version = 2; version <= 3; version++) {
        ht_gguf *file = open_every_kind(version);
        ht_error error = {0};
        assert_int_equal(ht_gguf_value_count(file), EVERY_KIND);
        for (size_t i = 0; i < HT_COUNT(cases); i++) {
            int64_t number = 0, expected = cases[i].expected;
            check(ht_gguf_int(file, cases[i].key, true, expected, expected, &number, &error), &error);
            assert_int_equal(number, expected);
            number = 77;
            fails(ht_gguf_int(file, cases[i].key, false, expected + 1, INT64_MAX, &number, &error), HT_ERROR_FORMAT,
                  &error, cases[i].key);
            fails(ht_gguf_int(file, cases[i].key, false, INT64_MIN, expected - 1, &number, &error), HT_ERROR_FORMAT,
                  &error, "kinds.gguf");
            assert_int_equal(number, 77);
        }
        int64_t number = 77;
        fails(ht_gguf_int(file, "a.u64", false, 0, INT64_MAX, &number, &error), HT_ERROR_FORMAT, &error, "a.u64");
        fails(ht_gguf_int(file, "a.bool", false, 0, 1, &number, &error), HT_ERROR_FORMAT, &error, "a bool");
        fails(ht_gguf_int(file, "a.f32", false, 0, 1, &number, &error), HT_ERROR_FORMAT, &error, "a float");
        fails(ht_gguf_int(file, "a.numbers", false, 0, 1, &number, &error), HT_ERROR_UNSUPPORTED, &error,
              "differs between layers");
        fails(ht_gguf_int(file, "a.strings", false, 0, 1, &number, &error), HT_ERROR_FORMAT, &error, "an array");
        fails(ht_gguf_int(file, "a.nothing", false, 0, 1, &number, &error), HT_ERROR_FORMAT, &error, "an array");
        fails(ht_gguf_int(file, "a.alike", false, 0, 1, &number, &error), HT_ERROR_FORMAT, &error, "-3");
        check(ht_gguf_int(file, "a.alike", false, -3, -3, &number, &error), &error);
        assert_int_equal(number, -3);
        number = 77;
        fails(ht_gguf_int(file, "a.none", true, 0, 1, &number, &error), HT_ERROR_FORMAT, &error,
              "\"a.none\" is missing");
        check(ht_gguf_int(file, "a.none", false, 0, 1, &number, &error), &error);
        assert_int_equal(number, 77);
        ht_gguf_close(file);
    }
}

static void test_other_kinds(void **state) {
    ht_gguf *file = open_every_kind(3);
    ht_error error = {0};
    float f = 9;
    check(ht_gguf_float(file, "a.f32", true, &f, &error), &error);
    assert_true(f == 0.5f);
    fails(ht_gguf_float(file, "a.f64", true, &f, &error), HT_ERROR_FORMAT, &error, "a.f64"); /* no float32 */
    fails(ht_gguf_float(file, "a.nan", true, &f, &error), HT_ERROR_FORMAT, &error, "a.nan");
    fails(ht_gguf_float(file, "a.string", true, &f, &error), HT_ERROR_FORMAT, &error, "a string");
    fails(ht_gguf_float(file, "a.bool", true, &f, &error), HT_ERROR_FORMAT, &error, "a bool");
    fails(ht_gguf_float(file, "a.nothing", true, &f, &error), HT_ERROR_FORMAT, &error, "an array");
    assert_true(f == 0.5f);
    check(ht_gguf_float(file, "a.u32", true, &f, &error), &error);
    assert_true(f == 4e9f);
    check(ht_gguf_float(file, "a.alike", true, &f, &error), &error);
    assert_true(f == -3);
    bool yes = false;
    check(ht_gguf_bool(file, "a.bool", true, &yes, &error), &error);
    assert_true(yes);
    fails(ht_gguf_bool(file, "a.u8", false, &yes, &error), HT_ERROR_FORMAT, &error, "a.u8");
    fails(ht_gguf_bool(file, "b", true, &yes, &error), HT_ERROR_FORMAT, &error, "\"b\" is missing");
    ht_string text = {0};
    check(ht_gguf_string(file, "a.string", true, &text, &error), &error);
    assert_int_equal(text.bytes, 4);
    assert_memory_equal(text.data, "text", 4);
    fails(ht_gguf_string(file, "a.strings", true, &text, &error), HT_ERROR_FORMAT, &error, "a.strings");
    ht_gguf_close(file);
}

static void test_arrays(void **state) {
    ht_gguf *file = open_every_kind(3);
    const ht_gguf_value *numbers = ht_gguf_find(file, "a.numbers"), *strings = ht_gguf_find(file, "a.strings");
    assert_int_equal(numbers->kind, HT_GGUF_ARRAY);
    assert_int_equal(numbers->item_kind, HT_GGUF_I16);
    assert_int_equal(numbers->count, 3);
    const int expected[] = {1, -1, -32768};
    for (uint64_t i = 0; i < 3; i++) {
        assert_int_equal(ht_gguf_item_int(numbers, i), expected[i]);
        assert_true(ht_gguf_item(numbers, i) == expected[i]);
    }
    assert_int_equal(strings->item_kind, HT_GGUF_STRING);
    assert_int_equal(strings->count, 3);
    assert_int_equal(strings->strings[0].bytes, 0);
    assert_int_equal(strings->strings[1].bytes, 3);
    assert_memory_equal(strings->strings[1].data, "b\0c", 3);
    assert_memory_equal(strings->strings[2].data, "def", 3);
    assert_int_equal(ht_gguf_find(file, "a.nothing")->count, 0);
    /* Conversions out of range saturate; they must not be undefined. */
    assert_true(ht_gguf_item(ht_gguf_find(file, "a.u64"), 0) == 0x1p63);
    assert_int_equal(ht_gguf_item_int(ht_gguf_find(file, "a.u64"), 0), INT64_MAX);
    assert_int_equal(ht_gguf_item_int(ht_gguf_find(file, "a.f64"), 0), INT64_MAX);
    assert_int_equal(ht_gguf_item_int(ht_gguf_find(file, "a.nan"), 0), 0);
    assert_int_equal(ht_gguf_item_int(ht_gguf_find(file, "a.bool"), 0), 1);
    ht_gguf_close(file);
}

static void test_find(void **state) {
    ht_gguf *file = open_every_kind(3);
    for (size_t i = 0; i < ht_gguf_value_count(file); i++) {
        const ht_gguf_value *value = ht_gguf_value_at(file, i);
        char key[32] = {0};
        memcpy(key, value->key.data, value->key.bytes);
        assert_ptr_equal(ht_gguf_find(file, key), value);
    }
    assert_null(ht_gguf_find(file, ""));
    assert_null(ht_gguf_find(file, "a.u"));
    assert_null(ht_gguf_find(file, "a.u88"));
    assert_null(ht_gguf_tensor(file, "a.u8"));
    ht_gguf_close(file);
}

/* Everything read is written again and read once more: nothing changes, alignment included. */
static void test_round_trip(void **state) {
    ht_error error = {0};
    for (uint32_t alignment = 1; alignment <= 4096; alignment *= 64) {
        ht_gguf *kinds = open_every_kind(3), *back = NULL;
        ht_gguf_writer *writer;
        char *path = temporary_path("back.gguf");
        check(ht_gguf_create(path, &writer, &error), &error);
        check(ht_gguf_put_u32(writer, "general.alignment", alignment, &error), &error);
        for (size_t i = 0; i < EVERY_KIND; i++) {
            check(ht_gguf_copy_value(writer, ht_gguf_value_at(kinds, i), &error), &error);
        }
        check(ht_gguf_put_tensor(writer, "first", HT_TYPE_F32, 3, (uint64_t[]){5, 1, 2}, &error), &error);
        check(ht_gguf_put_tensor(writer, "second", HT_TYPE_Q8_0, 2, (uint64_t[]){64, 3}, &error), &error);
        uint8_t data[64 / 32 * 34 * 3];
        for (size_t i = 0; i < sizeof data; i++)
            data[i] = (uint8_t)(i * 7);
        for (size_t i = 0; i < 40; i++)
            check(ht_gguf_write_data(writer, data + i, 1, &error), &error);
        check(ht_gguf_write_data(writer, data, sizeof data, &error), &error);
        check(ht_gguf_finish(writer, &error), &error);
        ht_gguf_abandon(writer);
        check(ht_gguf_open(path, &back, &error), &error);
        assert_int_equal(ht_gguf_value_count(back), EVERY_KIND + 1);
        for (size_t i = 0; i < EVERY_KIND; i++) {
            const ht_gguf_value *a = ht_gguf_value_at(kinds, i), *b = ht_gguf_value_at(back, i + 1);
            assert_int_equal(a->key.bytes, b->key.bytes);
            assert_memory_equal(a->key.data, b->key.data, a->key.bytes);
            assert_int_equal(a->kind, b->kind);
            assert_int_equal(a->count, b->count);
            if (a->kind < HT_GGUF_STRING)
                assert_true(!memcmp(a->data, b->data, 1));
        }
        assert_memory_equal(ht_gguf_find(back, "a.strings")->strings[2].data, "def", 3);
        const ht_tensor *first = ht_gguf_tensor(back, "first"), *second = ht_gguf_tensor(back, "second");
        assert_int_equal(ht_gguf_tensor_count(back), 2);
        assert_int_equal(first->n_dims, 3);
        assert_int_equal(first->dims[0], 5);
        assert_int_equal(first->dims[2], 2);
        assert_int_equal(first->dims[3], 1);
        assert_int_equal(first->bytes, 40);
        assert_memory_equal(first->data, data, 40);
        assert_int_equal(second->type, HT_TYPE_Q8_0);
        assert_int_equal(second->bytes, sizeof data);
        assert_memory_equal(second->data, data, sizeof data);
        assert_int_equal((uintptr_t)second->data % alignment, 0);
        ht_gguf_close(back);
        ht_gguf_close(kinds);
        free(path);
    }
}

static void test_writer_refuses(void **state) {
    ht_error error = {0};
    ht_gguf_writer *writer;
    char *path = temporary_path("new.gguf");
    fails(ht_gguf_create("no/such/folder.gguf", &writer, &error), HT_ERROR_IO, &error, "no/such/folder.gguf");
    check(ht_gguf_create(path, &writer, &error), &error);
    uint64_t dims[5] = {32, 2, 1, 1, 1};
    check(ht_gguf_put_tensor(writer, "a", HT_TYPE_Q4_0, 2, dims, &error), &error);
    fails(ht_gguf_put_tensor(writer, "b", HT_TYPE_Q4_0, 5, dims, &error), HT_ERROR_ARGUMENT, &error, "\"b\"");
    fails(ht_gguf_put_tensor(writer, "b", HT_TYPE_Q4_0, 0, dims, &error), HT_ERROR_ARGUMENT, &error, "\"b\"");
    fails(ht_gguf_put_tensor(writer, "b", HT_TYPE_Q4_K, 2, dims, &error), HT_ERROR_ARGUMENT, &error, "\"b\"");
    fails(ht_gguf_put_tensor(writer, "b", (ht_type)10, 2, dims, &error), HT_ERROR_ARGUMENT, &error, "\"b\"");
    fails(ht_gguf_put_tensor(writer, "b", HT_TYPE_F32, 2, (uint64_t[]){(uint64_t)1 << 40, (uint64_t)1 << 40}, &error),
          HT_ERROR_ARGUMENT, &error, "\"b\"");
    uint8_t data[40] = {0};
    fails(ht_gguf_write_data(writer, data, 37, &error), HT_ERROR_ARGUMENT, &error, "\"a\"");
    check(ht_gguf_write_data(writer, data, 35, &error), &error);
    fails(ht_gguf_finish(writer, &error), HT_ERROR_ARGUMENT, &error, "\"a\"");
    fails(ht_gguf_put_u32(writer, "late", 1, &error), HT_ERROR_ARGUMENT, &error, "new.gguf");
    fails(ht_gguf_put_tensor(writer, "late", HT_TYPE_F32, 1, dims, &error), HT_ERROR_ARGUMENT, &error, "late");
    check(ht_gguf_write_data(writer, data, 1, &error), &error);
    fails(ht_gguf_write_data(writer, data, 1, &error), HT_ERROR_ARGUMENT, &error, "new.gguf");
    assert_int_equal(count_files(), 1);
    ht_gguf_abandon(writer); /* not finished: nothing is left */
    assert_int_equal(count_files(), 0);
    ht_gguf_abandon(NULL);
    free(path);
}

/* ---- split files ---- */

static void put_count(ht_text *file, const char *key, uint16_t number) {
    put_key(file, key, HT_GGUF_U16);
    put_bytes(file, &number, 2);
}

/* One part with one tensor of 8 floats, all of them `number`. */
static void save_part(const char *name, uint16_t number, uint16_t count, const char *tensor) {
    ht_text file = {0};
    put_header(&file, 3, 1, 4);
    put_count(&file, "split.no", number);
    put_count(&file, "split.count", count);
    put_key(&file, "split.tensors.count", HT_GGUF_I32);
    put_u32(&file, count);
    put_key(&file, "only.here", HT_GGUF_U32);
    put_u32(&file, number);
    put_tensor(&file, tensor, HT_TYPE_F32, 8, 1, 0);
    put_padding(&file, 32);
    float value = number;
    for (int i = 0; i < 8; i++)
        put_bytes(&file, &value, 4);
    free(save(&file, name));
}

static const char *const parts[] = {"m-00001-of-00003.gguf", "m-00002-of-00003.gguf", "m-00003-of-00003.gguf"};

static void save_parts(void) {
    static const char *const tensors[] = {"zero", "one", "two"};
    for (uint16_t i = 0; i < 3; i++)
        save_part(parts[i], i, 3, tensors[i]);
}

static void test_split(void **state) {
    save_parts();
    for (size_t opened = 0; opened < 3; opened++) { /* by the name of any part */
        ht_error error = {0};
        ht_gguf *file;
        char *path = temporary_path(parts[opened]);
        check(ht_gguf_open(path, &file, &error), &error);
        assert_int_equal(ht_gguf_tensor_count(file), 3);
        assert_true(strstr(ht_gguf_path(file), parts[0]));
        float value;
        memcpy(&value, ht_gguf_tensor(file, "two")->data, 4);
        assert_true(value == 2);
        memcpy(&value, ht_gguf_tensor(file, "zero")->data, 4);
        assert_true(value == 0);
        int64_t number = 9;
        check(ht_gguf_int(file, "only.here", true, 0, 9, &number, &error), &error);
        assert_int_equal(number, 0); /* metadata are the first part's */
        uint64_t bytes = 0;
        for (size_t i = 0; i < 3; i++) {
            char *part = temporary_path(parts[i]);
            FILE *f = fopen(part, "rb");
            fseek(f, 0, SEEK_END);
            bytes += (uint64_t)ftell(f);
            fclose(f);
            assert_true(ht_gguf_holds(file, part));
            free(part);
        }
        assert_int_equal(ht_gguf_file_bytes(file), bytes);
        assert_false(ht_gguf_holds(file, test_folder));
        assert_false(ht_gguf_holds(file, "no/such/file"));
        ht_gguf_close(file);
        free(path);
    }
}

/* An ending in capitals, and a link of another name from another folder. */
static void test_split_names(void **state) {
    ht_error error = {0};
    ht_gguf *file;
    save_part("M-00001-of-00002.GGUF", 0, 2, "zero");
    save_part("M-00002-of-00002.GGUF", 1, 2, "one");
    char *first = temporary_path("M-00001-of-00002.GGUF"), *folder = temporary_path("links");
    char *link = temporary_path("links/model.gguf");
    check(ht_gguf_open(first, &file, &error), &error);
    assert_int_equal(ht_gguf_tensor_count(file), 2);
    ht_gguf_close(file);
    assert_int_equal(mkdir(folder, 0700), 0);
    assert_int_equal(symlink(first, link), 0);
    check(ht_gguf_open(link, &file, &error), &error);
    assert_int_equal(ht_gguf_tensor_count(file), 2);
    ht_gguf_close(file);
    unlink(link);
    rmdir(folder);
    free(link);
    free(folder);
    free(first);
}

/* What is no weights is carried along. */
static void test_carried_types(void **state) {
    static const uint32_t types[] = {HT_TYPE_I8, HT_TYPE_I16, HT_TYPE_I32, HT_TYPE_I64, HT_TYPE_F64};
    static const size_t bytes[] = {3, 6, 12, 24, 24};
    ht_text text = {0};
    put_header(&text, 3, HT_COUNT(types), 0);
    for (size_t i = 0; i < HT_COUNT(types); i++)
        put_tensor(&text, ht_type_foreign_name(types[i]), types[i], 3, 1, 32 * i);
    put_padding(&text, 32);
    for (int i = 0; i < 160; i++)
        put_bytes(&text, "x", 1);
    char *path = save(&text, "carried.gguf");
    ht_error error = {0};
    ht_gguf *file;
    check(ht_gguf_open(path, &file, &error), &error);
    for (size_t i = 0; i < HT_COUNT(types); i++) {
        assert_int_equal(ht_gguf_tensor_at(file, i)->bytes, bytes[i]);
        assert_int_equal(ht_type_get((ht_type)types[i])->bits, 0);
        assert_null(ht_type_by_name(ht_type_foreign_name(types[i])));
    }
    ht_gguf_close(file);
    free(path);
}

static void test_split_errors(void **state) {
    ht_error error = {0};
    ht_gguf *file;
    char *first = temporary_path(parts[0]), *second = temporary_path(parts[1]), *odd = temporary_path("odd.gguf");
    save_parts();
    save_part("odd.gguf", 0, 3, "zero");
    fails(ht_gguf_open(odd, &file, &error), HT_ERROR_FORMAT, &error, "odd.gguf");
    unlink(second);
    fails(ht_gguf_open(first, &file, &error), HT_ERROR_IO, &error, parts[1]); /* the missing part is named */
    save_part(parts[1], 2, 3, "one");
    fails(ht_gguf_open(first, &file, &error), HT_ERROR_FORMAT, &error, parts[1]); /* wrong number */
    save_part(parts[1], 1, 4, "one");
    fails(ht_gguf_open(first, &file, &error), HT_ERROR_FORMAT, &error, parts[1]); /* wrong count */
    save_part(parts[1], 1, 3, "zero");
    fails(ht_gguf_open(first, &file, &error), HT_ERROR_FORMAT, &error, "\"zero\" occurs twice");
    FILE *damaged = fopen(second, "wb");
    fputs("GGUFnonsense", damaged);
    fclose(damaged);
    fails(ht_gguf_open(first, &file, &error), HT_ERROR_UNSUPPORTED, &error, parts[1]);
    free(odd);
    free(second);
    free(first);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_integers, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_other_kinds, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_arrays, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_find, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_round_trip, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_writer_refuses, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_split, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_split_names, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_carried_types, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_split_errors, make_folder, remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
