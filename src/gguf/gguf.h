/* GGUF v2 and v3 files: read (memory-mapped, nothing in the file trusted) and written. */
#ifndef HT_GGUF_H
#define HT_GGUF_H

#include "gguf/types.h"

/* Value types as the files carry them. */
typedef enum ht_gguf_kind {
    HT_GGUF_U8,
    HT_GGUF_I8,
    HT_GGUF_U16,
    HT_GGUF_I16,
    HT_GGUF_U32,
    HT_GGUF_I32,
    HT_GGUF_F32,
    HT_GGUF_BOOL,
    HT_GGUF_STRING,
    HT_GGUF_ARRAY,
    HT_GGUF_U64,
    HT_GGUF_I64,
    HT_GGUF_F64
} ht_gguf_kind;

typedef struct ht_string { /* not NUL-terminated; points into the mapping */
    const char *data;
    size_t bytes;
} ht_string;

typedef struct ht_gguf_value {
    ht_string key;
    ht_gguf_kind kind;      /* scalar's kind, or HT_GGUF_ARRAY */
    ht_gguf_kind item_kind; /* of an array: kind of its items (never ARRAY) */
    uint64_t count;         /* of an array */
    /* Scalar or first item, unaligned, checked to lie inside the file; a string's length word first. */
    const uint8_t *data;
    ht_string *strings; /* of a string array: [count] */
} ht_gguf_value;

#define HT_GGUF_MAX_DIMS 4
typedef struct ht_tensor {
    const char *name; /* NUL-terminated, owned by the file */
    ht_type type;
    int n_dims;
    uint64_t dims[HT_GGUF_MAX_DIMS]; /* innermost first, ones beyond n_dims: dims[0] columns, dims[1] rows */
    const uint8_t *data;             /* inside the mapping, `bytes` long; only 1-byte alignment may be assumed */
    size_t bytes;
} ht_tensor;

typedef struct ht_gguf ht_gguf;

/* Opens every part of a split file when PATH names one of them. Checks: magic, version, counts and lengths against the
 * file's size, known types, whole blocks, offsets aligned, inside the file and not overlapping, no key or tensor twice. */
ht_status ht_gguf_open(const char *path, ht_gguf **file, ht_error *error);
/* The same of a file that is open for reading, which is no part of a split one; the descriptor stays the caller's. */
ht_status ht_gguf_open_descriptor(int descriptor, const char *name, ht_gguf **file, ht_error *error);
void ht_gguf_close(ht_gguf *file);
const char *ht_gguf_path(const ht_gguf *file);
uint64_t ht_gguf_file_bytes(const ht_gguf *file); /* all parts */
/* Whether PATH, by whatever name, is one of the files that are open: what must not be written over. */
bool ht_gguf_holds(const ht_gguf *file, const char *path);
size_t ht_gguf_value_count(const ht_gguf *file);
const ht_gguf_value *ht_gguf_value_at(const ht_gguf *file, size_t index);
size_t ht_gguf_tensor_count(const ht_gguf *file);
const ht_tensor *ht_gguf_tensor_at(const ht_gguf *file, size_t index);
const ht_gguf_value *ht_gguf_find(const ht_gguf *file, const char *key); /* NULL: absent. Hashed. */
const ht_tensor *ht_gguf_tensor(const ht_gguf *file, const char *name);  /* NULL: absent. Hashed. */

/* Typed reads; any integer kind converts if it fits, to a float too. An array of numbers that are all alike (some converters
 * write one a layer) is that number; HT_ERROR_UNSUPPORTED if they differ. `required` makes absence an error, else *out keeps its value.
 * A key of the wrong kind or out of [min, max] is always an error that names file and key. */
ht_status ht_gguf_int(const ht_gguf *file, const char *key, bool required, int64_t min, int64_t max, int64_t *out,
                      ht_error *error);
/* The same of item `index` of an array (of flags: 0 or 1), or of what one number says for all; *out stays where the key is absent. */
ht_status ht_gguf_int_at(const ht_gguf *file, const char *key, uint64_t index, int64_t min, int64_t max, int64_t *out,
                         ht_error *error);
ht_status ht_gguf_float(const ht_gguf *file, const char *key, bool required, float *out, ht_error *error);
ht_status ht_gguf_bool(const ht_gguf *file, const char *key, bool required, bool *out, ht_error *error);
ht_status ht_gguf_string(const ht_gguf *file, const char *key, bool required, ht_string *out, ht_error *error);
/* Item i of a numeric array (or scalar with i = 0), converted. The caller has checked kind and count. */
double ht_gguf_item(const ht_gguf_value *value, uint64_t index);
int64_t ht_gguf_item_int(const ht_gguf_value *value, uint64_t index);

/* Writing, v3: values and tensor headers first, then data in the same order as the headers. An
 * ht_output: the file is there once finish has worked, and a failure leaves what was there. */
typedef struct ht_gguf_writer ht_gguf_writer;
ht_status ht_gguf_create(const char *path, ht_gguf_writer **writer, ht_error *error);
ht_status ht_gguf_copy_value(ht_gguf_writer *writer, const ht_gguf_value *value, ht_error *error);
ht_status ht_gguf_put_u32(ht_gguf_writer *writer, const char *key, uint32_t number, ht_error *error);
ht_status ht_gguf_put_tensor(ht_gguf_writer *writer, const char *name, ht_type type, int n_dims, const uint64_t *dims,
                             ht_error *error);
/* The next piece of the current tensor. */
ht_status ht_gguf_write_data(ht_gguf_writer *writer, const void *data, size_t bytes, ht_error *error);
ht_status ht_gguf_finish(ht_gguf_writer *writer, ht_error *error); /* checks that every tensor is whole */
void ht_gguf_abandon(ht_gguf_writer *writer);                      /* also after finish: frees */

#endif
