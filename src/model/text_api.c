/* The public calls on text: a model's tokenizer and chat template. */
#include "model/model.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static ht_status need_tokenizer(const ht_model *model, ht_error *error) {
    if (model->tokenizer)
        return HT_OK;
    if (model->no_tokenizer)
        return ht_fail(error, HT_ERROR_UNSUPPORTED, "%s; it takes token ids only", model->no_tokenizer);
    return ht_fail(error, HT_ERROR_UNSUPPORTED, "%s has no tokenizer and takes token ids only",
                   model->info.path ? model->info.path : "this model");
}

ht_status ht_tokenize(const ht_model *model, const char *text, size_t bytes, unsigned flags, int32_t **ids, size_t *n,
                      ht_error *error) {
    ht_status status = need_tokenizer(model, error);
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
    ht_status status = need_tokenizer(model, error);
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

/* Why there is no template to render with. */
static ht_status no_template(const ht_model *model, ht_error *error) {
    const char *path = model->info.path ? model->info.path : "this model";
    ht_string source = {0};
    if (!model->file || ht_gguf_string(model->file, "tokenizer.chat_template", true, &source, NULL) != HT_OK)
        return ht_fail(error, HT_ERROR_UNSUPPORTED, "%s has no chat template", path);
    const char *end = memchr(source.data, '\n', source.bytes);
    size_t line = ht_min_size(end ? (size_t)(end - source.data) : source.bytes, 80);
    return ht_fail(error, HT_ERROR_UNSUPPORTED,
                   "%s: its chat template is not one of the known ones (it begins \"%.*s\", form %016" PRIx64 ")", path,
                   (int)line, source.data, ht_chat_form(source));
}

/* The template starts with a BOS that tokenizing will not add: then its text has to be there. */
static bool needs_bos_text(const ht_model *model) {
    static const char name[] = "bos_token";
    ht_string source = {0};
    if (ht_tokenizer_adds_bos(model->tokenizer) || ht_tokenizer_bos(model->tokenizer) < 0 || !model->file)
        return false;
    return ht_gguf_string(model->file, "tokenizer.chat_template", true, &source, NULL) == HT_OK &&
           ht_find_bytes(source.data, source.bytes, name, sizeof name - 1) != NULL;
}

/* with_bos: its text is at the start, where the template wants it and the tokenizer will not add it. */
static ht_status render(const ht_model *model, const ht_message *messages, size_t n, bool add_assistant, bool with_bos,
                        ht_script *out, ht_error *error) {
    ht_status status = need_tokenizer(model, error);
    if (status == HT_OK && !model->chat)
        status = no_template(model, error);
    if (status == HT_OK && with_bos && needs_bos_text(model)) {
        size_t bytes;
        const char *bos = ht_tokenizer_text(model->tokenizer, ht_tokenizer_bos(model->tokenizer), true, &bytes);
        status = ht_script_append(out, bos, bytes, false, error);
    }
    if (status == HT_OK)
        status = ht_chat_render(model->chat, messages, n, add_assistant, out, error);
    if (status)
        ht_script_free(out);
    return status;
}

ht_status ht_chat_format(const ht_model *model, const ht_message *messages, size_t n, bool add_assistant, char **text,
                         ht_error *error) {
    ht_script out = {0};
    ht_status status = render(model, messages, n, add_assistant, true, &out, error);
    if (status)
        return status;
    *text = out.text.data;
    out.text = (ht_text){0};
    ht_script_free(&out);
    return HT_OK;
}

ht_status ht_chat_tokenize(const ht_model *model, const ht_message *messages, size_t n, bool add_assistant,
                           unsigned flags, int32_t **ids, size_t *n_ids, ht_error *error) {
    ht_script out = {0};
    ht_status status = render(model, messages, n, add_assistant, flags & HT_TOKENIZE_ADD_SPECIAL, &out, error);
    if (status)
        return status;
    status = ht_tokenizer_encode_script(model->tokenizer, &out, flags, ids, n_ids, error);
    ht_script_free(&out);
    return status;
}
