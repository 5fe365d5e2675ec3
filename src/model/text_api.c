/* The public calls on text: a model's tokenizer. */
#include "model/model.h"

#include <stdlib.h>

ht_status ht_model_need_tokenizer(const ht_model *model, ht_error *error) {
    if (model->tokenizer)
        return HT_OK;
    if (model->no_tokenizer)
        return ht_fail(error, HT_ERROR_UNSUPPORTED, "%s; it takes token ids only", model->no_tokenizer);
    return ht_fail(error, HT_ERROR_UNSUPPORTED, "%s has no tokenizer and takes token ids only",
                   model->info.path ? model->info.path : "this model");
}

ht_status ht_tokenize(const ht_model *model, const char *text, size_t bytes, unsigned flags, int32_t **ids, size_t *n,
                      ht_error *error) {
    ht_status status = ht_model_need_tokenizer(model, error);
    return status ? status : ht_tokenizer_encode(model->tokenizer, text, bytes, flags, ids, n, error);
}

const char *ht_token_text(const ht_model *model, int32_t id, bool special, size_t *bytes) {
    if (model->tokenizer)
        return ht_tokenizer_text(model->tokenizer, id, special, bytes);
    *bytes = 0;
    return NULL;
}

bool ht_token_ends_generation(const ht_model *model, int32_t id) {
    return model->tokenizer && ht_tokenizer_ends(model->tokenizer, id);
}

ht_status ht_detokenize(const ht_model *model, const int32_t *ids, size_t n, bool special, char **text, size_t *bytes,
                        ht_error *error) {
    ht_text out = {0};
    ht_status status = ht_model_need_tokenizer(model, error);
    if (status == HT_OK)
        status = ht_tokenizer_decode(model->tokenizer, ids, n, special, &out, error);
    if (status) {
        ht_text_free(&out);
        return status;
    }
    *text = out.data;
    *bytes = out.bytes;
    return HT_OK;
}
