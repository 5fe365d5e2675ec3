/* libFuzzer: the input is a GGUF file. It is opened, all of it is read, and its tokenizer is built and used.
 *
 * A seed worth having is any small model: tests/golden/quant_fixture.gguf has every weight type. */
#define _GNU_SOURCE /* memfd_create */
#include "gguf/gguf.h"
#include "quant/quant.h"
#include "text/chat.h"

#include "fuzz/fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static volatile double sink; /* what is read must not be optimised away */

static void read_values(const ht_gguf *file) {
    for (size_t i = 0; i < ht_gguf_value_count(file); i++) {
        const ht_gguf_value *value = ht_gguf_value_at(file, i);
        bool array = value->kind == HT_GGUF_ARRAY;
        ht_gguf_kind kind = array ? value->item_kind : value->kind;
        for (uint64_t k = 0; k < (array ? value->count : 1); k++) {
            if (kind != HT_GGUF_STRING) {
                sink = sink + ht_gguf_item(value, k) + (double)ht_gguf_item_int(value, k);
            } else if (array && value->strings[k].bytes) {
                sink = sink + value->strings[k].data[0] + value->strings[k].data[value->strings[k].bytes - 1];
            }
        }
    }
}

static void read_tensors(const ht_gguf *file) {
    for (size_t i = 0; i < ht_gguf_tensor_count(file); i++) {
        const ht_tensor *tensor = ht_gguf_tensor_at(file, i);
        const ht_type_traits *type = ht_type_get(tensor->type);
        if (type->bits == 0)
            continue;
        size_t cols = (size_t)tensor->dims[0];
        const ht_matrix matrix = ht_matrix_of(tensor);
        float *floats = malloc(cols * sizeof *floats), *scales = malloc(cols * sizeof *scales);
        float *offsets = malloc(cols * sizeof *offsets);
        int8_t *codes = malloc(cols);
        for (size_t row = 0; row < matrix.rows && floats && scales && offsets && codes; row++) {
            ht_matrix_floats(&matrix, row, 1, floats);
            if (type->group)
                ht_matrix_codes(&matrix, row, 1, codes, scales, offsets);
            sink = sink + (double)floats[cols - 1];
        }
        free(codes);
        free(offsets);
        free(scales);
        free(floats);
    }
}

static void use_tokenizer(const ht_gguf *file) {
    static const char text[] = "Hello, w\xc3\xb6rld  123\n\xff <|im_end|>";
    ht_tokenizer *tokenizer;
    int32_t *ids;
    size_t n;
    ht_chat chat;
    if (ht_tokenizer_create(file, &tokenizer, NULL))
        return;
    ht_chat_open(file, tokenizer, &chat, NULL);
    ht_chat_close(&chat);
    if (!ht_tokenizer_encode(tokenizer, text, sizeof text - 1, HT_TOKENIZE_ADD_SPECIAL | HT_TOKENIZE_PARSE_SPECIAL,
                             &ids, &n, NULL)) {
        ht_text out = {0};
        ht_tokenizer_decode(tokenizer, ids, n, true, &out, NULL);
        ht_text_free(&out);
        ht_free(ids);
    }
    ht_tokenizer_destroy(tokenizer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static int memory = -1; /* one file in memory for all inputs */
    if (memory < 0)
        memory = memfd_create("fuzz.gguf", MFD_CLOEXEC);
    if (memory < 0 || ftruncate(memory, 0) || pwrite(memory, data, bytes, 0) != (ssize_t)bytes)
        abort();
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", memory);
    ht_error error;
    ht_gguf *file;
    if (ht_gguf_open(path, &file, &error))
        return 0;
    read_values(file);
    read_tensors(file);
    use_tokenizer(file);
    ht_gguf_close(file);
    return 0;
}
