/* GGUF v3, written. Headers gather in memory; the first piece of data (or finish) writes them out. */
#include "gguf/gguf.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct planned_tensor { /* what has been promised and not yet written */
    char name[72];
    uint64_t bytes;
} planned_tensor;

struct ht_gguf_writer {
    char *path;
    ht_output *output; /* NULL once finished */
    ht_text values, tensors;
    uint64_t n_values, alignment;
    planned_tensor *planned;
    size_t n_planned, cap_planned;
    uint64_t data_bytes; /* of the tensors planned so far, padding included: the next one's offset */
    bool header_written;
    size_t current;         /* tensor being written */
    uint64_t current_bytes; /* of it, so far */
};

static ht_status io_error(const ht_gguf_writer *writer, ht_error *error) {
    return ht_fail(error, HT_ERROR_IO, "%s: cannot be written: %s", writer->path, strerror(errno));
}

static ht_status put(ht_text *text, const void *data, size_t bytes, ht_error *error) {
    return ht_text_append(text, data, bytes, error);
}

static ht_status put_u32_word(ht_text *text, uint32_t number, ht_error *error) {
    return put(text, &number, sizeof number, error);
}

static ht_status put_u64_word(ht_text *text, uint64_t number, ht_error *error) {
    return put(text, &number, sizeof number, error);
}

static ht_status put_string(ht_text *text, const char *data, size_t bytes, ht_error *error) {
    ht_status status = put_u64_word(text, bytes, error);
    return status ? status : put(text, data, bytes, error);
}

ht_status ht_gguf_create(const char *path, ht_gguf_writer **out, ht_error *error) {
    ht_gguf_writer *writer = NULL;
    ht_status status = ht_alloc((void **)&writer, 1, sizeof *writer, "model writer", error);
    if (status)
        return status;
    writer->path = ht_copy_text(path, strlen(path));
    writer->alignment = 32;
    if (!writer->path)
        status = ht_fail(error, HT_ERROR_MEMORY, "%s: out of memory", path);
    if (!status)
        status = ht_output_open(path, &writer->output, error);
    if (status)
        ht_gguf_abandon(writer);
    else
        *out = writer;
    return status;
}

/* Bytes of a value as the file holds them, from `data` on. */
static uint64_t value_bytes(const ht_gguf_value *value) {
    static const uint8_t bytes_of[] = {
        [HT_GGUF_U8] = 1,  [HT_GGUF_I8] = 1,  [HT_GGUF_U16] = 2, [HT_GGUF_I16] = 2,
        [HT_GGUF_U32] = 4, [HT_GGUF_I32] = 4, [HT_GGUF_F32] = 4, [HT_GGUF_BOOL] = 1,
        [HT_GGUF_U64] = 8, [HT_GGUF_I64] = 8, [HT_GGUF_F64] = 8,
    };
    bool array = value->kind == HT_GGUF_ARRAY;
    ht_gguf_kind kind = array ? value->item_kind : value->kind;
    uint64_t count = array ? value->count : 1;
    if (kind != HT_GGUF_STRING)
        return count * bytes_of[kind];
    if (!array) {
        uint64_t length;
        memcpy(&length, value->data, sizeof length);
        return sizeof length + length;
    }
    uint64_t bytes = 8 * count;
    for (uint64_t i = 0; i < count; i++)
        bytes += value->strings[i].bytes;
    return bytes;
}

ht_status ht_gguf_copy_value(ht_gguf_writer *writer, const ht_gguf_value *value, ht_error *error) {
    if (writer->header_written) {
        return ht_fail(error, HT_ERROR_ARGUMENT, "%s: a key after the first data", writer->path);
    }
    static const char alignment_key[] = "general.alignment";
    if (value->key.bytes == sizeof alignment_key - 1 && !memcmp(value->key.data, alignment_key, value->key.bytes)) {
        int64_t alignment = ht_gguf_item_int(value, 0);
        if (value->kind != HT_GGUF_U32 || alignment < 1 || (alignment & (alignment - 1)) || writer->n_planned) {
            return ht_fail(error, HT_ERROR_ARGUMENT,
                           "%s: general.alignment is not a power of two or comes after a tensor", writer->path);
        }
        writer->alignment = (uint64_t)alignment;
    }
    ht_status status = put_string(&writer->values, value->key.data, value->key.bytes, error);
    if (!status)
        status = put_u32_word(&writer->values, value->kind, error);
    if (!status && value->kind == HT_GGUF_ARRAY) {
        status = put_u32_word(&writer->values, value->item_kind, error);
        if (!status)
            status = put_u64_word(&writer->values, value->count, error);
    }
    /* The reader leaves `data` at the value as it lies in the file, strings' lengths included. */
    if (!status)
        status = put(&writer->values, value->data, (size_t)value_bytes(value), error);
    if (!status)
        writer->n_values++;
    return status;
}

ht_status ht_gguf_put_u32(ht_gguf_writer *writer, const char *key, uint32_t number, ht_error *error) {
    ht_gguf_value value = {
        .key = {key, strlen(key)},
        .kind = HT_GGUF_U32,
        .data = (const uint8_t *)&number,
    };
    return ht_gguf_copy_value(writer, &value, error);
}

ht_status ht_gguf_put_tensor(ht_gguf_writer *writer, const char *name, ht_type type, int n_dims, const uint64_t *dims,
                             ht_error *error) {
    const ht_type_traits *traits = ht_type_get(type);
    size_t length = strlen(name);
    bool right = traits && !writer->header_written && length && length < sizeof writer->planned->name && n_dims >= 1 &&
                 n_dims <= HT_GGUF_MAX_DIMS && dims[0] % (uint64_t)traits->block == 0;
    uint64_t elements = 1, bytes = 0;
    for (int i = 0; right && i < n_dims; i++)
        right = !__builtin_mul_overflow(elements, dims[i], &elements) && elements;
    if (right)
        right = !__builtin_mul_overflow(elements / (uint64_t)traits->block, (uint64_t)traits->block_bytes, &bytes);
    if (!right || bytes > INT64_MAX) {
        return ht_fail(error, HT_ERROR_ARGUMENT, "%s: tensor \"%s\" cannot be written in this type, shape or place",
                       writer->path, name);
    }
    ht_status status = ht_grow((void **)&writer->planned, &writer->cap_planned, writer->n_planned + 1,
                               sizeof *writer->planned, "tensors", error);
    if (!status)
        status = put_string(&writer->tensors, name, length, error);
    if (!status)
        status = put_u32_word(&writer->tensors, (uint32_t)n_dims, error);
    if (!status)
        status = put(&writer->tensors, dims, (size_t)n_dims * sizeof *dims, error);
    if (!status)
        status = put_u32_word(&writer->tensors, type, error);
    if (!status)
        status = put_u64_word(&writer->tensors, writer->data_bytes, error);
    if (status)
        return status;
    planned_tensor *planned = &writer->planned[writer->n_planned++];
    memcpy(planned->name, name, length + 1);
    planned->bytes = bytes;
    writer->data_bytes = ht_round_up(writer->data_bytes + bytes, writer->alignment);
    return HT_OK;
}

static ht_status write_all(ht_gguf_writer *writer, const void *data, size_t bytes, ht_error *error) {
    if (bytes && fwrite(data, 1, bytes, ht_output_file(writer->output)) != bytes)
        return io_error(writer, error);
    return HT_OK;
}

static ht_status write_padding(ht_gguf_writer *writer, uint64_t written, ht_error *error) {
    static const uint8_t zeros[4096];
    uint64_t left = -written & (writer->alignment - 1);
    ht_status status = HT_OK;
    while (left && !status) {
        size_t piece = ht_min_size((size_t)left, sizeof zeros);
        status = write_all(writer, zeros, piece, error);
        left -= piece;
    }
    return status;
}

static ht_status write_header(ht_gguf_writer *writer, ht_error *error) {
    if (writer->header_written)
        return HT_OK;
    writer->header_written = true;
    ht_text head = {0};
    ht_status status = put(&head, "GGUF", 4, error);
    if (!status)
        status = put_u32_word(&head, 3, error);
    if (!status)
        status = put_u64_word(&head, writer->n_planned, error);
    if (!status)
        status = put_u64_word(&head, writer->n_values, error);
    if (!status)
        status = write_all(writer, head.data, head.bytes, error);
    if (!status)
        status = write_all(writer, writer->values.data, writer->values.bytes, error);
    if (!status)
        status = write_all(writer, writer->tensors.data, writer->tensors.bytes, error);
    if (!status)
        status = write_padding(writer, head.bytes + writer->values.bytes + writer->tensors.bytes, error);
    ht_text_free(&head);
    return status;
}

ht_status ht_gguf_write_data(ht_gguf_writer *writer, const void *data, size_t bytes, ht_error *error) {
    ht_status status = write_header(writer, error);
    if (status)
        return status;
    if (writer->current == writer->n_planned) {
        return ht_fail(error, HT_ERROR_ARGUMENT, "%s: data after the last tensor", writer->path);
    }
    const planned_tensor *tensor = &writer->planned[writer->current];
    if (bytes > tensor->bytes - writer->current_bytes) {
        return ht_fail(error, HT_ERROR_ARGUMENT, "%s: more data than tensor \"%s\" holds", writer->path, tensor->name);
    }
    status = write_all(writer, data, bytes, error);
    writer->current_bytes += bytes;
    if (!status && writer->current_bytes == tensor->bytes) {
        status = write_padding(writer, tensor->bytes, error);
        writer->current++;
        writer->current_bytes = 0;
    }
    return status;
}

ht_status ht_gguf_finish(ht_gguf_writer *writer, ht_error *error) {
    ht_status status = write_header(writer, error);
    if (status)
        return status;
    if (writer->current < writer->n_planned) {
        return ht_fail(error, HT_ERROR_ARGUMENT, "%s: data of tensor \"%s\" is missing", writer->path,
                       writer->planned[writer->current].name);
    }
    ht_output *output = writer->output;
    writer->output = NULL;
    return ht_output_finish(output, error);
}

void ht_gguf_abandon(ht_gguf_writer *writer) {
    if (!writer)
        return;
    ht_output_abandon(writer->output);
    ht_text_free(&writer->values);
    ht_text_free(&writer->tensors);
    free(writer->planned);
    free(writer->path);
    free(writer);
}
