/* A whole little model in a GGUF file: two layers of llama, a byte-level vocabulary, a chat template. It says nothing
 * sensible, but everything is there that a real file has. */
#ifndef HT_TINY_FILE_H
#define HT_TINY_FILE_H

#include "quant/quant.h"
#include "text/vocab.h"
#include "unit/gguf_bytes.h"

#include <math.h>

enum { TINY_LAYERS = 2, TINY_WIDTH = 64, TINY_KV = 32, TINY_FFN = 128, TINY_TOKENS = 258, TINY_CONTEXT = 128 };

/* NaN among the weights: one value of this tensor, in this row. NULL: none. pooling: 0, or the key pooling_type plus one. */
typedef struct tiny_fault {
    const char *tensor;
    size_t row;
    int pooling;
} tiny_fault;

typedef struct tiny_tensor {
    char name[48];
    size_t rows, cols; /* rows 0: a vector of cols floats */
    size_t bytes;
} tiny_tensor;

static inline void tiny_text(ht_text *f, const char *key, const char *text) {
    put_key(f, key, HT_GGUF_STRING);
    put_string(f, text, strlen(text));
}

static inline void tiny_number(ht_text *f, const char *key, uint32_t number) {
    put_key(f, key, HT_GGUF_U32);
    put_u32(f, number);
}

static inline void tiny_array(ht_text *f, const char *key, uint32_t kind, uint64_t n) {
    put_key(f, key, HT_GGUF_ARRAY);
    put_u32(f, kind);
    put_u64(f, n);
}

static inline uint64_t tiny_keys(ht_text *f, int pooling) {
    static const struct {
        const char *key;
        uint32_t value;
    } numbers[] = {{"llama.block_count", TINY_LAYERS},
                   {"llama.embedding_length", TINY_WIDTH},
                   {"llama.feed_forward_length", TINY_FFN},
                   {"llama.attention.head_count", TINY_WIDTH / 32},
                   {"llama.attention.head_count_kv", TINY_KV / 32},
                   {"llama.context_length", TINY_CONTEXT},
                   {"tokenizer.ggml.bos_token_id", 256},
                   {"tokenizer.ggml.eos_token_id", 257}};
    const float eps = 1e-5f;
    tiny_text(f, "general.architecture", "llama");
    tiny_text(f, "general.name", "tiny");
    tiny_text(f, "tokenizer.ggml.model", "gpt2");
    tiny_text(f, "tokenizer.ggml.pre", "gpt-2");
    tiny_text(
        f, "tokenizer.chat_template",
        "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + "
        "'<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}");
    for (size_t i = 0; i < HT_COUNT(numbers); i++)
        tiny_number(f, numbers[i].key, numbers[i].value);
    put_key(f, "llama.attention.layer_norm_rms_epsilon", HT_GGUF_F32);
    put_bytes(f, &eps, sizeof eps);
    tiny_array(f, "tokenizer.ggml.tokens", HT_GGUF_STRING, TINY_TOKENS);
    for (int b = 0; b < 256; b++) {
        char text[4];
        put_string(f, text, ht_byte_to_char((uint8_t)b, text));
    }
    put_string(f, "<s>", 3);
    put_string(f, "</s>", 4);
    tiny_array(f, "tokenizer.ggml.token_type", HT_GGUF_I32, TINY_TOKENS);
    for (uint32_t i = 0; i < TINY_TOKENS; i++)
        put_u32(f, i < 256 ? 1 : 3);
    tiny_array(f, "tokenizer.ggml.merges", HT_GGUF_STRING, 0);
    if (pooling)
        tiny_number(f, "llama.pooling_type", (uint32_t)pooling - 1);
    return 5 + HT_COUNT(numbers) + 1 + 3 + (pooling != 0);
}

static inline size_t tiny_list(tiny_tensor *list) {
    static const struct {
        const char *name;
        size_t rows, cols;
    } inside[] = {{"attn_norm", 0, TINY_WIDTH},
                  {"attn_q", TINY_WIDTH, TINY_WIDTH},
                  {"attn_k", TINY_KV, TINY_WIDTH},
                  {"attn_v", TINY_KV, TINY_WIDTH},
                  {"attn_output", TINY_WIDTH, TINY_WIDTH},
                  {"ffn_norm", 0, TINY_WIDTH},
                  {"ffn_gate", TINY_FFN, TINY_WIDTH},
                  {"ffn_up", TINY_FFN, TINY_WIDTH},
                  {"ffn_down", TINY_WIDTH, TINY_FFN}};
    size_t n = 0;
    list[n++] = (tiny_tensor){"token_embd.weight", TINY_TOKENS, TINY_WIDTH, 0};
    for (int layer = 0; layer < TINY_LAYERS; layer++)
        for (size_t i = 0; i < HT_COUNT(inside); i++, n++) {
            list[n] = (tiny_tensor){"", inside[i].rows, inside[i].cols, 0};
            snprintf(list[n].name, sizeof list[n].name, "blk.%d.%s.weight", layer, inside[i].name);
        }
    list[n++] = (tiny_tensor){"output_norm.weight", 0, TINY_WIDTH, 0};
    for (size_t i = 0; i < n; i++)
        list[i].bytes = list[i].rows ? list[i].rows * list[i].cols / 32 * 34 : list[i].cols * sizeof(float);
    return n;
}

static inline void tiny_data(ht_text *f, const tiny_tensor *tensor, const tiny_fault *fault) {
    float row[TINY_FFN];
    uint8_t blocks[TINY_FFN / 32 * 34];
    const bool faulty = fault && fault->tensor && !strcmp(fault->tensor, tensor->name);
    for (size_t r = 0; r < (tensor->rows ? tensor->rows : 1); r++) {
        for (size_t c = 0; c < tensor->cols; c++)
            row[c] = tensor->rows ? (float)((r * 31 + c * 17 + strlen(tensor->name) * 7) % 61) / 150.0f - 0.2f : 1.0f;
        if (!tensor->rows) {
            row[5] = faulty ? NAN : row[5];
            put_bytes(f, row, tensor->bytes);
            continue;
        }
        ht_encode_row(HT_TYPE_Q8_0, row, NULL, tensor->cols, blocks);
        if (faulty && r == fault->row)
            memcpy(blocks, &(uint16_t){0x7e00}, 2); /* the first block's scale */
        put_bytes(f, blocks, tensor->bytes / tensor->rows);
    }
}

/* The file's path, in the test's folder; to be freed. */
static inline char *tiny_save(const char *name, const tiny_fault *fault) {
    tiny_tensor list[2 + TINY_LAYERS * 9];
    const size_t n = tiny_list(list);
    uint64_t offset = 0;
    ht_text keys = {0}, file = {0};
    put_header(&file, 3, n, tiny_keys(&keys, fault ? fault->pooling : 0));
    put_bytes(&file, keys.data, keys.bytes);
    ht_text_free(&keys);
    for (size_t i = 0; i < n; i++) {
        if (list[i].rows) {
            put_tensor(&file, list[i].name, HT_TYPE_Q8_0, list[i].cols, list[i].rows, offset);
        } else {
            put_string(&file, list[i].name, strlen(list[i].name));
            put_u32(&file, 1);
            put_u64(&file, list[i].cols);
            put_u32(&file, HT_TYPE_F32);
            put_u64(&file, offset);
        }
        offset += ht_round_up(list[i].bytes, 32);
    }
    for (size_t i = 0; i < n; i++) {
        put_padding(&file, 32);
        tiny_data(&file, &list[i], fault);
    }
    return save(&file, name);
}

#endif
