/* GGUF v2 and v3, read. Every length is checked against what is left of the file before it is used, so a hostile file
 * cannot ask for more memory than its headers, byte for byte, pay for: some twenty times their size at the very worst
 * (nothing but minimal keys), about twice for a real vocabulary. The file is mapped and must not shrink while open. */
#include "base/os.h"
#include "gguf/gguf.h"
#include "gguf/index.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define MAX_KEY 65535      /* bytes, by the format's specification */
#define MAX_TENSOR_NAME 64 /* likewise */
#define MAX_ALIGNMENT (1u << 20)
#define SHOWN 80 /* bytes of a name from a file that an error quotes */

typedef struct part { /* one file */
    char *path;
    ht_mapping mapping;
    ht_gguf_value *values;
    size_t n_values, cap_values;
    size_t first_tensor, n_tensors;
    size_t alignment;
    ht_os_info file; /* which one it is, by whatever name */
} part;

struct ht_gguf {
    ht_arena arena;
    part *parts;
    size_t n_parts, cap_parts;
    uint64_t file_bytes;
    ht_tensor *tensors;
    size_t n_tensors, cap_tensors;
    ht_index values, names;
};

/* Where the reading of one part has got to. */
typedef struct cursor {
    const char *path;
    const uint8_t *data;
    size_t bytes, at;
    ht_error *error;
} cursor;

static const uint8_t kind_bytes[] = {
    /* a string: its length word; an array has a header of its own */
    [HT_GGUF_U8] = 1,  [HT_GGUF_I8] = 1,  [HT_GGUF_U16] = 2,  [HT_GGUF_I16] = 2,    [HT_GGUF_U32] = 4,
    [HT_GGUF_I32] = 4, [HT_GGUF_F32] = 4, [HT_GGUF_BOOL] = 1, [HT_GGUF_STRING] = 8, [HT_GGUF_ARRAY] = 12,
    [HT_GGUF_U64] = 8, [HT_GGUF_I64] = 8, [HT_GGUF_F64] = 8,
};

static const char *const kind_names[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                         "bool", "string", "array", "u64", "i64", "f64"};

static int shown(size_t bytes) {
    return (int)ht_min_size(bytes, SHOWN);
}

/* ---- pieces ---- */

static ht_status take(cursor *c, uint64_t bytes, const char *what, const uint8_t **out) {
    if (bytes > c->bytes - c->at) {
        return ht_fail(c->error, HT_ERROR_FORMAT,
                       "%s: truncated: %s at byte %zu needs %llu bytes, the file has %zu left", c->path, what, c->at,
                       (unsigned long long)bytes, c->bytes - c->at);
    }
    *out = c->data + c->at;
    c->at += (size_t)bytes;
    return HT_OK;
}

static ht_status take_u32(cursor *c, const char *what, uint32_t *out) {
    const uint8_t *data;
    ht_status status = take(c, sizeof *out, what, &data);
    if (!status)
        memcpy(out, data, sizeof *out);
    return status;
}

static ht_status take_u64(cursor *c, const char *what, uint64_t *out) {
    const uint8_t *data;
    ht_status status = take(c, sizeof *out, what, &data);
    if (!status)
        memcpy(out, data, sizeof *out);
    return status;
}

static ht_status take_string(cursor *c, const char *what, ht_string *out) {
    uint64_t bytes;
    const uint8_t *data;
    ht_status status = take_u64(c, what, &bytes);
    if (!status)
        status = take(c, bytes, what, &data);
    if (!status)
        *out = (ht_string){(const char *)data, (size_t)bytes};
    return status;
}

/* A key or a tensor's name: not empty, not overlong, no NUL inside (it would compare equal to a shorter one). */
static ht_status take_name(cursor *c, const char *what, size_t most, ht_string *out) {
    ht_status status = take_string(c, what, out);
    if (status)
        return status;
    if (!out->bytes)
        return ht_fail(c->error, HT_ERROR_FORMAT, "%s: an empty %s", c->path, what);
    if (out->bytes > most) {
        return ht_fail(c->error, HT_ERROR_FORMAT, "%s: %s \"%.*s...\" has %zu bytes, at most %zu are allowed", c->path,
                       what, (int)ht_min_size(most, 40), out->data, out->bytes, most);
    }
    if (memchr(out->data, 0, out->bytes)) {
        return ht_fail(c->error, HT_ERROR_FORMAT, "%s: %s \"%.*s\" holds a NUL byte", c->path, what, shown(out->bytes),
                       out->data);
    }
    return HT_OK;
}

/* ---- keys and values ---- */

static ht_status take_strings(cursor *c, ht_arena *arena, ht_gguf_value *value) {
    /* count was checked against 8 bytes a string, so this is at most twice what the file itself takes. */
    value->strings = ht_arena_alloc(arena, (size_t)value->count * sizeof *value->strings);
    if (!value->strings)
        return ht_fail(c->error, HT_ERROR_MEMORY, "%s: out of memory: array of strings", c->path);
    for (uint64_t i = 0; i < value->count; i++) {
        ht_status status = take_string(c, "string of an array", &value->strings[i]);
        if (status)
            return ht_error_prefix(c->error, status, "key \"%.*s\"", shown(value->key.bytes), value->key.data);
    }
    return HT_OK;
}

static ht_status take_array(cursor *c, ht_arena *arena, ht_gguf_value *value) {
    uint32_t kind;
    ht_status status = take_u32(c, "kind of an array", &kind);
    if (!status)
        status = take_u64(c, "count of an array", &value->count);
    if (status)
        return status;
    int n = shown(value->key.bytes);
    if (kind == HT_GGUF_ARRAY) {
        return ht_fail(c->error, HT_ERROR_UNSUPPORTED, "%s: key \"%.*s\" is an array of arrays, which is not supported",
                       c->path, n, value->key.data);
    }
    if (kind >= HT_COUNT(kind_bytes)) {
        return ht_fail(c->error, HT_ERROR_FORMAT, "%s: key \"%.*s\" is an array of unknown kind %u", c->path, n,
                       value->key.data, kind);
    }
    value->item_kind = (ht_gguf_kind)kind;
    size_t left = c->bytes - c->at;
    if (value->count > left / kind_bytes[kind]) {
        return ht_fail(c->error, HT_ERROR_FORMAT,
                       "%s: truncated: key \"%.*s\" is an array of %llu %s, the file has %zu bytes left", c->path, n,
                       value->key.data, (unsigned long long)value->count, kind_names[kind], left);
    }
    value->data = c->data + c->at;
    if (kind == HT_GGUF_STRING)
        return take_strings(c, arena, value);
    c->at += (size_t)value->count * kind_bytes[kind];
    return HT_OK;
}

static ht_status take_value(cursor *c, ht_arena *arena, ht_gguf_value *value) {
    uint32_t kind;
    ht_status status = take_name(c, "key", MAX_KEY, &value->key);
    if (!status)
        status = take_u32(c, "kind of a value", &kind);
    if (status)
        return status;
    if (kind >= HT_COUNT(kind_bytes)) {
        return ht_fail(c->error, HT_ERROR_FORMAT, "%s: key \"%.*s\" is of unknown kind %u", c->path,
                       shown(value->key.bytes), value->key.data, kind);
    }
    value->kind = (ht_gguf_kind)kind;
    if (kind == HT_GGUF_ARRAY)
        return take_array(c, arena, value);
    value->data = c->data + c->at;
    if (kind == HT_GGUF_STRING) {
        ht_string ignored;
        return take_string(c, "string", &ignored);
    }
    const uint8_t *ignored;
    return take(c, kind_bytes[kind], "value", &ignored);
}

/* ---- tensors ---- */

static ht_status tensor_type(cursor *c, const char *name, uint32_t number, const ht_type_traits **out) {
    *out = ht_type_get((ht_type)number);
    if (*out)
        return HT_OK;
    const char *foreign = ht_type_foreign_name(number);
    if (foreign) {
        return ht_fail(c->error, HT_ERROR_UNSUPPORTED, "%s: tensor \"%s\" is of type %s, which is not supported",
                       c->path, name, foreign);
    }
    return ht_fail(c->error, HT_ERROR_UNSUPPORTED, "%s: tensor \"%s\" is of unknown type %u", c->path, name, number);
}

/* Reads the dimensions and works out the tensor's size in bytes. */
static ht_status take_shape(cursor *c, ht_tensor *tensor, uint64_t *elements) {
    uint32_t n_dims;
    ht_status status = take_u32(c, "number of dimensions", &n_dims);
    if (status)
        return status;
    if (n_dims < 1 || n_dims > HT_GGUF_MAX_DIMS) {
        return ht_fail(c->error, HT_ERROR_FORMAT, "%s: tensor \"%s\" has %u dimensions, 1 to %d are allowed", c->path,
                       tensor->name, n_dims, HT_GGUF_MAX_DIMS);
    }
    tensor->n_dims = (int)n_dims;
    *elements = 1;
    for (uint32_t i = 0; i < HT_GGUF_MAX_DIMS; i++) {
        tensor->dims[i] = 1;
        if (i < n_dims)
            status = take_u64(c, "dimension", &tensor->dims[i]);
        if (status)
            return status;
        if (!tensor->dims[i] || __builtin_mul_overflow(*elements, tensor->dims[i], elements)) {
            return ht_fail(c->error, HT_ERROR_FORMAT, "%s: tensor \"%s\" has an impossible dimension %llu", c->path,
                           tensor->name, (unsigned long long)tensor->dims[i]);
        }
    }
    return HT_OK;
}

/* Fills *tensor but for data; *offset counts from the data section's begin. */
static ht_status take_tensor(cursor *c, ht_arena *arena, ht_tensor *tensor, uint64_t *offset) {
    ht_string name;
    uint64_t elements;
    uint32_t number;
    const ht_type_traits *type;
    ht_status status = take_name(c, "tensor name", MAX_TENSOR_NAME, &name);
    if (status)
        return status;
    tensor->name = ht_arena_strndup(arena, name.data, name.bytes);
    if (!tensor->name)
        return ht_fail(c->error, HT_ERROR_MEMORY, "%s: out of memory: tensor name", c->path);
    status = take_shape(c, tensor, &elements);
    if (!status)
        status = take_u32(c, "type of a tensor", &number);
    if (!status)
        status = tensor_type(c, tensor->name, number, &type);
    if (!status)
        status = take_u64(c, "offset of a tensor", offset);
    if (status)
        return status;
    tensor->type = type->type;
    if (tensor->dims[0] % (uint64_t)type->block) {
        return ht_fail(c->error, HT_ERROR_FORMAT,
                       "%s: tensor \"%s\": %llu columns are not a whole number of %s blocks of %d", c->path,
                       tensor->name, (unsigned long long)tensor->dims[0], type->name, type->block);
    }
    if (__builtin_mul_overflow(elements / (uint64_t)type->block, (uint64_t)type->block_bytes, &tensor->bytes)) {
        return ht_fail(c->error, HT_ERROR_FORMAT, "%s: tensor \"%s\" is larger than any file", c->path, tensor->name);
    }
    return HT_OK;
}

/* Offset -> address, checked to lie inside the file. `begin` is where the data section begins. */
static ht_status place_tensor(cursor *c, const part *piece, ht_tensor *tensor, uint64_t offset, size_t begin) {
    if (offset % piece->alignment) {
        return ht_fail(c->error, HT_ERROR_FORMAT,
                       "%s: tensor \"%s\": offset %llu is not a multiple of the alignment %zu", c->path, tensor->name,
                       (unsigned long long)offset, piece->alignment);
    }
    size_t room = c->bytes > begin ? c->bytes - begin : 0;
    if (offset > room || tensor->bytes > room - offset) {
        return ht_fail(c->error, HT_ERROR_FORMAT,
                       "%s: tensor \"%s\" lies outside the file: %zu bytes at %llu + %zu of %zu (truncated?)", c->path,
                       tensor->name, tensor->bytes, (unsigned long long)offset, begin, c->bytes);
    }
    tensor->data = c->data + begin + offset;
    return HT_OK;
}

static int by_address(const void *a, const void *b) {
    const uint8_t *x = (*(const ht_tensor *const *)a)->data, *y = (*(const ht_tensor *const *)b)->data;
    return (x > y) - (x < y);
}

static ht_status check_overlaps(const ht_gguf *file, ht_error *error) {
    const ht_tensor **order = NULL;
    ht_status status = ht_alloc((void **)&order, file->n_tensors, sizeof *order, "order of tensors", error);
    if (status)
        return status;
    for (size_t i = 0; i < file->n_tensors; i++)
        order[i] = &file->tensors[i];
    qsort(order, file->n_tensors, sizeof *order, by_address);
    for (size_t i = 1; i < file->n_tensors && !status; i++) {
        if (order[i]->data < order[i - 1]->data + order[i - 1]->bytes) {
            status = ht_fail(error, HT_ERROR_FORMAT, "%s: tensors \"%s\" and \"%s\" overlap", ht_gguf_path(file),
                             order[i - 1]->name, order[i]->name);
        }
    }
    free(order);
    return status;
}

/* ---- one part ---- */

static const ht_gguf_value *part_value(const part *piece, const char *key) {
    for (size_t i = 0; i < piece->n_values; i++) {
        const ht_gguf_value *value = &piece->values[i];
        if (value->key.bytes == strlen(key) && !memcmp(value->key.data, key, value->key.bytes))
            return value;
    }
    return NULL;
}

/* Magic, version, and the two counts, checked against the least that a tensor and a key take. */
static ht_status take_header(cursor *c, uint64_t *n_tensors, uint64_t *n_values) {
    const uint8_t *magic;
    uint32_t version;
    ht_status status = take(c, 4, "magic", &magic);
    if (status)
        return status;
    if (memcmp(magic, "GGUF", 4))
        return ht_fail(c->error, HT_ERROR_FORMAT, "%s: is not a GGUF file (wrong magic)", c->path);
    status = take_u32(c, "version", &version);
    if (status)
        return status;
    if (version && !(version & 0xffff)) {
        return ht_fail(c->error, HT_ERROR_UNSUPPORTED, "%s: is a big-endian GGUF file, which is not supported",
                       c->path);
    }
    if (version != 2 && version != 3) {
        return ht_fail(c->error, HT_ERROR_UNSUPPORTED, "%s: GGUF version %u is not supported (2 and 3 are)", c->path,
                       version);
    }
    status = take_u64(c, "number of tensors", n_tensors);
    if (!status)
        status = take_u64(c, "number of keys", n_values);
    if (status)
        return status;
    size_t left = c->bytes - c->at, least_value = 8 + 1 + 4 + 1, least_tensor = 8 + 1 + 4 + 8 + 4 + 8;
    if (*n_values > left / least_value || *n_tensors > left / least_tensor) {
        return ht_fail(c->error, HT_ERROR_FORMAT, "%s: truncated: %llu keys and %llu tensors cannot lie in %zu bytes",
                       c->path, (unsigned long long)*n_values, (unsigned long long)*n_tensors, c->bytes);
    }
    return HT_OK;
}

static ht_status read_alignment(cursor *c, part *piece) {
    piece->alignment = 32;
    const ht_gguf_value *value = part_value(piece, "general.alignment");
    if (!value)
        return HT_OK;
    int64_t alignment = value->kind == HT_GGUF_U32 ? ht_gguf_item_int(value, 0) : 0;
    if (alignment < 1 || alignment > MAX_ALIGNMENT || (alignment & (alignment - 1))) {
        return ht_fail(c->error, HT_ERROR_FORMAT, "%s: general.alignment must be a u32, a power of two, and at most %u",
                       c->path, MAX_ALIGNMENT);
    }
    piece->alignment = (size_t)alignment;
    return HT_OK;
}

static ht_status read_tensors(ht_gguf *file, part *piece, cursor *c, uint64_t n) {
    uint64_t *offsets = NULL;
    piece->first_tensor = file->n_tensors;
    ht_status status = ht_alloc((void **)&offsets, (size_t)n, sizeof *offsets, "tensor offsets", c->error);
    for (uint64_t i = 0; i < n && !status; i++) {
        status = ht_grow((void **)&file->tensors, &file->cap_tensors, file->n_tensors + 1, sizeof *file->tensors,
                         "tensors", c->error);
        if (status)
            break;
        status = take_tensor(c, &file->arena, &file->tensors[file->n_tensors], &offsets[i]);
        if (!status)
            file->n_tensors++;
    }
    size_t begin = ht_round_up(c->at, piece->alignment);
    for (uint64_t i = 0; i < n && !status; i++) {
        status = place_tensor(c, piece, &file->tensors[piece->first_tensor + i], offsets[i], begin);
    }
    piece->n_tensors = (size_t)n;
    free(offsets);
    return status;
}

#define BY_PATH (-1) /* no descriptor: the file is opened here */

/* Maps PATH, or what is open as `descriptor`, as one more part and reads all of it. What is half done when it fails is released
 * with the file. */
static ht_status read_part(ht_gguf *file, const char *path, int descriptor, ht_error *error) {
    ht_status status =
        ht_grow((void **)&file->parts, &file->cap_parts, file->n_parts + 1, sizeof *file->parts, "parts", error);
    if (status)
        return status;
    part *piece = &file->parts[file->n_parts++];
    *piece = (part){.path = ht_arena_strndup(&file->arena, path, strlen(path))};
    if (!piece->path)
        return ht_fail(error, HT_ERROR_MEMORY, "%s: out of memory", path);
    status = descriptor == BY_PATH ? ht_mapping_open(path, &piece->mapping, error)
                                   : ht_mapping_of(descriptor, path, &piece->mapping, error);
    if (status)
        return status;
    if (descriptor == BY_PATH)
        ht_os_look(path, &piece->file);
    file->file_bytes += piece->mapping.bytes;
    cursor c = {piece->path, piece->mapping.data, piece->mapping.bytes, 0, error};
    uint64_t n_tensors, n_values;
    status = take_header(&c, &n_tensors, &n_values);
    for (uint64_t i = 0; !status && i < n_values; i++) {
        status = ht_grow((void **)&piece->values, &piece->cap_values, piece->n_values + 1, sizeof *piece->values,
                         "keys", error);
        if (status)
            break;
        piece->values[piece->n_values] = (ht_gguf_value){0};
        status = take_value(&c, &file->arena, &piece->values[piece->n_values]);
        if (!status)
            piece->n_values++;
    }
    if (!status)
        status = read_alignment(&c, piece);
    if (!status)
        status = read_tensors(file, piece, &c, n_tensors);
    return status;
}

static void release_parts(ht_gguf *file) {
    for (size_t i = 0; i < file->n_parts; i++) {
        ht_mapping_close(&file->parts[i].mapping);
        free(file->parts[i].values);
    }
    ht_arena_free(&file->arena);
    free(file->parts);
    free(file->tensors);
    *file = (ht_gguf){0};
}

/* ---- split files: NAME-00001-of-0000N.gguf ---- */

#define SPLIT_NUMBERS "-%05d-of-%05d"
#define SPLIT_ENDING ".gguf" /* in any case */
#define SPLIT_SUFFIX_BYTES (sizeof "-00001-of-00001.gguf" - 1)

/* Bytes of PATH before its split suffix; SIZE_MAX: it has none, or one of another number of parts. */
static size_t split_stem(const char *path, int64_t count) {
    const size_t bytes = strlen(path), ending = sizeof SPLIT_ENDING - 1;
    int number = 0, named = 0, end = 0;
    if (bytes < SPLIT_SUFFIX_BYTES || strcasecmp(path + bytes - ending, SPLIT_ENDING) != 0)
        return SIZE_MAX;
    const size_t stem = bytes - SPLIT_SUFFIX_BYTES;
    if (sscanf(path + stem, "-%5d-of-%5d%n", &number, &named, &end) != 2 ||
        (size_t)end != SPLIT_SUFFIX_BYTES - ending || named != count)
        return SIZE_MAX;
    return stem;
}

static ht_status split_number(const part *piece, const char *key, int64_t fallback, int64_t *out, ht_error *error) {
    const ht_gguf_value *value = part_value(piece, key);
    *out = fallback;
    if (!value)
        return HT_OK;
    bool number = value->kind <= HT_GGUF_I32 || value->kind == HT_GGUF_U64 || value->kind == HT_GGUF_I64;
    if (number)
        *out = ht_gguf_item_int(value, 0);
    if (number && *out >= 0)
        return HT_OK;
    return ht_fail(error, HT_ERROR_FORMAT, "%s: key \"%s\" is not a count", piece->path, key);
}

static ht_status check_split(const ht_gguf *file, int64_t count, ht_error *error) {
    int64_t tensors;
    for (size_t i = 0; i < file->n_parts; i++) {
        const part *piece = &file->parts[i];
        int64_t own_count, number;
        ht_status status = split_number(piece, "split.count", 0, &own_count, error);
        if (!status)
            status = split_number(piece, "split.no", -1, &number, error);
        if (status)
            return status;
        if (own_count != count || number != (int64_t)i) {
            return ht_fail(error, HT_ERROR_FORMAT,
                           "%s: is not part %zu of %lld of a split file, whatever its name says", piece->path, i + 1,
                           (long long)count);
        }
    }
    ht_status status = split_number(&file->parts[0], "split.tensors.count", (int64_t)file->n_tensors, &tensors, error);
    if (!status && tensors != (int64_t)file->n_tensors) {
        return ht_fail(error, HT_ERROR_FORMAT, "%s: the parts hold %zu tensors, split.tensors.count says %lld",
                       file->parts[0].path, file->n_tensors, (long long)tensors);
    }
    return status;
}

/* The file so far is one part of `count`: starts again and reads all of them in order. */
static ht_status read_split(ht_gguf *file, const char *path, int64_t count, ht_error *error) {
    /* A link of another name leads to the parts; one of a part's own name (as in the cache of Hugging Face) may be the only
     * place where the parts stand side by side. */
    char real[HT_PATH_BYTES] = "";
    size_t stem = split_stem(path, count);
    if (stem == SIZE_MAX && ht_os_absolute(path, real, sizeof real))
        stem = split_stem(real, count);
    if (stem == SIZE_MAX)
        return ht_fail(error, HT_ERROR_FORMAT,
                       "%s: is one part of a file split in %lld, but is not named ...-0000K-of-%05lld.gguf", path,
                       (long long)count, (long long)count);
    const char *any = *real ? real : path;
    ht_status status = HT_OK;
    release_parts(file);
    for (int i = 1; i <= (int)count && status == HT_OK; i++) {
        ht_text name = {0};
        status = ht_text_printf(&name, error, "%.*s" SPLIT_NUMBERS "%s", (int)stem, any, i, (int)count,
                                any + strlen(any) - (sizeof SPLIT_ENDING - 1));
        if (!status)
            status = read_part(file, name.data, BY_PATH, error);
        ht_text_free(&name);
        if (status)
            ht_error_prefix(error, status, "part %d of %d of a split model", i, (int)count);
    }
    return status ? status : check_split(file, count, error);
}

/* ---- open, close ---- */

static ht_status build_indices(ht_gguf *file, ht_error *error) {
    part *first = &file->parts[0];
    ht_status status = ht_index_create(&file->values, first->n_values, error);
    if (!status)
        status = ht_index_create(&file->names, file->n_tensors, error);
    if (status)
        return status;
    for (size_t i = 0; i < first->n_values; i++) {
        ht_string key = first->values[i].key;
        if (!ht_index_add(&file->values, key.data, key.bytes, (uint32_t)i)) {
            return ht_fail(error, HT_ERROR_FORMAT, "%s: key \"%.*s\" occurs twice", first->path, shown(key.bytes),
                           key.data);
        }
    }
    for (size_t i = 0; i < file->n_tensors; i++) {
        const char *name = file->tensors[i].name;
        if (!ht_index_add(&file->names, name, strlen(name), (uint32_t)i)) {
            return ht_fail(error, HT_ERROR_FORMAT, "%s: tensor \"%s\" occurs twice", first->path, name);
        }
    }
    return HT_OK;
}

static ht_status open_file(const char *path, int descriptor, ht_gguf **out, ht_error *error) {
    ht_gguf *file = NULL;
    ht_status status = ht_alloc((void **)&file, 1, sizeof *file, "model file", error);
    if (status)
        return status;
    int64_t count = 0;
    status = read_part(file, path, descriptor, error);
    if (!status)
        status = split_number(&file->parts[0], "split.count", 1, &count, error);
    if (!status && count > 1)
        status = descriptor == BY_PATH
                     ? read_split(file, path, count, error)
                     : ht_fail(error, HT_ERROR_UNSUPPORTED, "%s: is one part of a file split in %lld: give its path",
                               path, (long long)count);
    if (!status)
        status = build_indices(file, error);
    if (!status)
        status = check_overlaps(file, error);
    if (status)
        ht_gguf_close(file);
    else
        *out = file;
    return status;
}

ht_status ht_gguf_open(const char *path, ht_gguf **out, ht_error *error) {
    return open_file(path, BY_PATH, out, error);
}

ht_status ht_gguf_open_descriptor(int descriptor, const char *name, ht_gguf **out, ht_error *error) {
    return open_file(name, descriptor, out, error);
}

void ht_gguf_close(ht_gguf *file) {
    if (!file)
        return;
    ht_index_free(&file->values);
    ht_index_free(&file->names);
    release_parts(file);
    free(file);
}

/* ---- reading what was opened ---- */

const char *ht_gguf_path(const ht_gguf *file) {
    return file->parts[0].path;
}
uint64_t ht_gguf_file_bytes(const ht_gguf *file) {
    return file->file_bytes;
}
size_t ht_gguf_value_count(const ht_gguf *file) {
    return file->parts[0].n_values;
}
const ht_gguf_value *ht_gguf_value_at(const ht_gguf *file, size_t index) {
    return &file->parts[0].values[index];
}
size_t ht_gguf_tensor_count(const ht_gguf *file) {
    return file->n_tensors;
}
const ht_tensor *ht_gguf_tensor_at(const ht_gguf *file, size_t index) {
    return &file->tensors[index];
}

bool ht_gguf_holds(const ht_gguf *file, const char *path) {
    ht_os_info info;
    ht_os_look(path, &info);
    for (size_t i = 0; i < file->n_parts; i++) {
        if (ht_os_same_file(&file->parts[i].file, &info))
            return true;
    }
    return false;
}

const ht_gguf_value *ht_gguf_find(const ht_gguf *file, const char *key) {
    uint32_t at = ht_index_find(&file->values, key, strlen(key));
    return at == HT_INDEX_NONE ? NULL : &file->parts[0].values[at];
}

const ht_tensor *ht_gguf_tensor(const ht_gguf *file, const char *name) {
    uint32_t at = ht_index_find(&file->names, name, strlen(name));
    return at == HT_INDEX_NONE ? NULL : &file->tensors[at];
}
