/* The list of tokens that an encoding makes. */
#include "text/encoder.h"

ht_status ht_encoder_push(ht_encoder *e, int32_t id, ht_error *error) {
    if (e->n_ids == e->cap_ids) {
        ht_status status = ht_grow((void **)&e->ids, &e->cap_ids, e->n_ids + 1, sizeof *e->ids, "token ids", error);
        if (status)
            return status;
    }
    e->ids[e->n_ids++] = id;
    return HT_OK;
}

ht_status ht_encoder_push_bytes(ht_encoder *e, const char *text, size_t bytes, ht_error *error) {
    ht_status status = HT_OK;
    for (size_t i = 0; i < bytes && status == HT_OK; i++) {
        const uint8_t byte = (uint8_t)text[i];
        int32_t id = e->tokenizer->byte_ids[byte];
        if (id < 0)
            return ht_fail(error, HT_ERROR_FORMAT,
                           "the vocabulary has no token <0x%02X> and no unknown token for a byte of the text", byte);
        const bool again = id == e->tokenizer->unknown && e->n_ids > e->n_before && e->ids[e->n_ids - 1] == id;
        if (!again || e->tokenizer->kind != HT_VOCAB_SENTENCEPIECE)
            status = ht_encoder_push(e, id, error);
    }
    return status;
}
