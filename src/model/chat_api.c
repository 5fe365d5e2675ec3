/* The public calls on conversations: a model's chat template. */
#include "model/model.h"

#include <stdlib.h>
#include <string.h>

static const char *path_of(const ht_model *model) {
    return model->info.path ? model->info.path : "this model";
}

static ht_status need_template(const ht_model *model, ht_error *error) {
    ht_status status = ht_model_need_tokenizer(model, error);
    if (status == HT_OK && !model->chat.n)
        return ht_fail(error, HT_ERROR_UNSUPPORTED, "%s has no chat template", path_of(model));
    return status;
}

/* A BOS that the template begins with, where none is wanted. One that it does not call so is a mark like others: some models
 * use one token for both. */
static void drop_bos(const ht_model *model, const ht_script *script, int32_t *ids, size_t *n) {
    if (script->bos == HT_BOS_NAMED && *n > 0 && ids[0] == ht_tokenizer_bos(model->tokenizer))
        memmove(ids, ids + 1, --*n * sizeof *ids);
}

static ht_status encode(const ht_model *model, const ht_script *script, unsigned flags, int32_t **ids, size_t *n,
                        ht_error *error) {
    ht_status status = ht_tokenizer_encode_script(model->tokenizer, script, flags, ids, n, error);
    if (status == HT_OK && !(flags & HT_TOKENIZE_ADD_SPECIAL))
        drop_bos(model, script, *ids, n);
    return status;
}

ht_status ht_chat_render(const ht_model *model, const ht_conversation *conversation, unsigned flags,
                         ht_rendering *rendering, ht_error *error) {
    ht_conversation full;
    ht_rendering made = {.struct_size = sizeof made};
    ht_script script = {.n_foreign = 0};
    ht_status status = ht_struct_read(&full, sizeof full, conversation, "ht_conversation", error);
    if (status == HT_OK)
        status = ht_struct_check(rendering, "ht_rendering", error);
    if (status == HT_OK)
        status = need_template(model, error);
    if (status == HT_OK)
        status = ht_chat_write(&model->chat, &full, &script, error);
    if (status == HT_OK)
        status = encode(model, &script, flags, &made.ids, &made.n, error);
    if (status != HT_OK) {
        ht_script_free(&script);
        return status;
    }
    made.text = script.text.data;
    made.text_bytes = script.text.bytes;
    made.foreign = script.foreign;
    made.n_foreign = script.n_foreign;
    ht_struct_write(rendering, &made, sizeof made);
    return HT_OK;
}

void ht_rendering_clear(ht_rendering *rendering) {
    ht_rendering full;
    if (!rendering || ht_struct_read(&full, sizeof full, rendering, "ht_rendering", NULL) != HT_OK)
        return;
    free(full.text);
    free(full.foreign);
    free(full.ids);
    ht_struct_write(rendering, &(ht_rendering){.struct_size = 0}, sizeof full);
}

ht_status ht_chat_format(const ht_model *model, const ht_message *messages, size_t n, bool add_assistant, char **text,
                         ht_error *error) {
    const ht_conversation conversation =
        HT_INIT(ht_conversation, .messages = messages, .n_messages = n, .no_generation_prompt = !add_assistant);
    ht_script script = {.n_foreign = 0};
    ht_status status = need_template(model, error);
    if (status == HT_OK)
        status = ht_chat_write(&model->chat, &conversation, &script, error);
    if (status != HT_OK)
        return status;
    *text = script.text.data;
    script.text = (ht_text){0};
    ht_script_free(&script);
    return HT_OK;
}

ht_status ht_chat_tokenize(const ht_model *model, const ht_message *messages, size_t n, bool add_assistant,
                           unsigned flags, int32_t **ids, size_t *n_ids, ht_error *error) {
    const ht_conversation conversation =
        HT_INIT(ht_conversation, .messages = messages, .n_messages = n, .no_generation_prompt = !add_assistant);
    ht_rendering made = HT_INIT(ht_rendering);
    ht_status status = ht_chat_render(model, &conversation, flags, &made, error);
    if (status != HT_OK)
        return status;
    *ids = made.ids;
    *n_ids = made.n;
    made.ids = NULL;
    ht_rendering_clear(&made);
    return HT_OK;
}

ht_status ht_chat_template(const ht_model *model, bool with_tools, ht_chat_template_info *info, ht_error *error) {
    ht_chat_template_info full = {.struct_size = sizeof full};
    ht_status status = ht_struct_check(info, "ht_chat_template_info", error);
    if (status != HT_OK)
        return status;
    const size_t which = with_tools && model->chat.n == 2 ? 1 : 0;
    if (model->chat.n) {
        const ht_chat_template_text *t = &model->chat.at[which];
        full.name = t->name;
        full.source = t->source;
        full.bytes = t->bytes;
        full.why = t->why;
        if (t->parsed) {
            const unsigned traits = ht_chat_traits(&model->chat, which, HT_CHAT_ALL);
            full.system = traits & HT_CHAT_SYSTEM;
            full.tools = traits & HT_CHAT_TOOLS;
            full.tool_calls = traits & (HT_CHAT_WRITTEN | HT_CHAT_ARGUMENTS);
            full.parts = traits & HT_CHAT_PARTS;
            ht_chat_thinking(&model->chat, which, &full.reasoning, &full.thinking);
        }
    }
    ht_struct_write(info, &full, sizeof full);
    return HT_OK;
}

ht_status ht_model_set_chat_template(ht_model *model, const char *source, size_t bytes, ht_error *error) {
    ht_chat chat;
    ht_status status = ht_model_need_tokenizer(model, error);
    if (status != HT_OK)
        return status;
    status = ht_chat_open_text(source, bytes == HT_STRLEN ? strlen(source) : bytes, model->tokenizer, &chat, error);
    if (status != HT_OK) {
        ht_chat_close(&chat);
        return status;
    }
    ht_chat_close(&model->chat);
    model->chat = chat;
    model->info.chat_template = chat.at[0].name;
    return HT_OK;
}
