/* GGUF files byte by byte, independent of src/gguf/write.c: what no writer would write can be written too. */
#ifndef HT_UNIT_GGUF_BYTES_H
#define HT_UNIT_GGUF_BYTES_H

#include "gguf/gguf.h"
#include "unit/test.h"

static inline void put_bytes(ht_text *file, const void *data, size_t bytes) {
    assert_int_equal(ht_text_append(file, data, bytes, NULL), HT_OK);
}

static inline void put_u32(ht_text *file, uint32_t number) {
    put_bytes(file, &number, sizeof number);
}

static inline void put_u64(ht_text *file, uint64_t number) {
    put_bytes(file, &number, sizeof number);
}

static inline void put_string(ht_text *file, const char *text, size_t bytes) {
    put_u64(file, bytes);
    put_bytes(file, text, bytes);
}

static inline void put_header(ht_text *file, uint32_t version, uint64_t tensors, uint64_t keys) {
    put_bytes(file, "GGUF", 4);
    put_u32(file, version);
    put_u64(file, tensors);
    put_u64(file, keys);
}

/* Key and kind; the value follows. */
static inline void put_key(ht_text *file, const char *key, uint32_t kind) {
    put_string(file, key, strlen(key));
    put_u32(file, kind);
}

/* A two-dimensional tensor's header. */
static inline void put_tensor(ht_text *file, const char *name, uint32_t type, uint64_t cols, uint64_t rows,
                              uint64_t offset) {
    put_string(file, name, strlen(name));
    put_u32(file, 2);
    put_u64(file, cols);
    put_u64(file, rows);
    put_u32(file, type);
    put_u64(file, offset);
}

static inline void put_padding(ht_text *file, size_t alignment) {
    while (file->bytes % alignment)
        put_bytes(file, "", 1);
}

/* Saves the first `bytes` of a file in the test's folder; the path, to be freed. */
static inline char *save_bytes(const void *data, size_t bytes, const char *name) {
    char *path = temporary_path(name);
    remove(path); /* some file systems flush a file to the disk when it is overwritten */
    FILE *out = fopen(path, "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(data, 1, bytes, out), bytes);
    assert_int_equal(fclose(out), 0);
    return path;
}

/* All of it, and the text is freed. */
static inline char *save(ht_text *file, const char *name) {
    char *path = save_bytes(file->data, file->bytes, name);
    ht_text_free(file);
    return path;
}

#endif
