/* The chat templates of a model, and the variables that a template has besides the messages: those that Hugging Face's
 * transformers gives it. */
#include "text/chat.h"

#include "base/json.h"

#include <stdlib.h>
#include <string.h>

#define KEY "tokenizer.chat_template"

static const char chatml[] =
    "{%- for message in messages -%}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}";

/* ---- a model's templates ------------------------------------------------------------------------------------- */

/* User-defined tokens that the template's source names, but for white space, which is anybody's. */
static ht_status find_marks(ht_chat_template_text *t, const ht_tokenizer *tokenizer, ht_error *error) {
    ht_status status =
        ht_alloc((void **)&t->marks, (size_t)ht_tokenizer_size(tokenizer), sizeof *t->marks, "chat template", error);
    if (status != HT_OK)
        return status;
    ht_tokenizer_find_specials(tokenizer, t->source, t->bytes, t->marks);
    for (int32_t id = 0; id < ht_tokenizer_size(tokenizer); id++) {
        size_t bytes;
        const char *text = t->marks[id] ? ht_tokenizer_text(tokenizer, id, true, &bytes) : NULL;
        if (text)
            t->marks[id] =
                bytes >= 3 && !memchr(text, ' ', bytes) && !memchr(text, '\n', bytes) && !memchr(text, '\t', bytes);
    }
    return HT_OK;
}

/* path: whose it is, for errors; NULL: the caller's. */
static ht_status add_template(ht_chat *chat, const char *name, ht_string source, const char *path, ht_error *error) {
    ht_chat_template_text *t = &chat->at[chat->n];
    ht_text said = {0};
    ht_error why;
    *t =
        (ht_chat_template_text){.name = name, .source = ht_copy_text(source.data, source.bytes), .bytes = source.bytes};
    if (!t->source)
        return ht_fail(error, HT_ERROR_MEMORY, "out of memory for a chat template of %zu bytes", source.bytes);
    chat->n++;
    t->status = ht_template_parse(source.data, source.bytes, &t->parsed, &why);
    if (t->status == HT_ERROR_MEMORY)
        return ht_fail(error, HT_ERROR_MEMORY, "%s", why.text);
    if (t->status != HT_OK) {
        ht_status status = ht_text_printf(&said, error, "%s%s%s", path ? path : "", path ? ": its " : "", why.text);
        t->why = said.data;
        return status;
    }
    return chat->tokenizer ? find_marks(t, chat->tokenizer, error) : HT_OK;
}

static ht_status begin(const ht_tokenizer *tokenizer, ht_chat *chat, ht_error *error) {
    *chat = (ht_chat){.tokenizer = tokenizer};
    ht_status status = ht_alloc((void **)&chat->findings, 1, sizeof *chat->findings, "chat templates", error);
    if (status == HT_OK)
        pthread_mutex_init(&chat->findings->mutex, NULL);
    return status;
}

/* Marks of a text that no vocabulary has by chance. */
static bool speaks_chatml(const ht_tokenizer *tokenizer) {
    return tokenizer && ht_tokenizer_special(tokenizer, "<|im_start|>") >= 0 &&
           ht_tokenizer_special(tokenizer, "<|im_end|>") >= 0;
}

ht_status ht_chat_open(const ht_gguf *file, const ht_tokenizer *tokenizer, ht_chat *chat, ht_error *error) {
    ht_string plain = {0}, tools = {0};
    ht_status status = begin(tokenizer, chat, error);
    if (status == HT_OK)
        status = ht_gguf_string(file, KEY, false, &plain, error);
    if (status == HT_OK && !plain.bytes)
        status = ht_gguf_string(file, KEY ".default", false, &plain, error);
    if (status == HT_OK)
        status = ht_gguf_string(file, KEY ".tool_use", false, &tools, error);
    if (status != HT_OK)
        return status;
    if (plain.bytes)
        status = add_template(chat, "default", plain, ht_gguf_path(file), error);
    if (status == HT_OK && tools.bytes)
        status = add_template(chat, "tool_use", tools, ht_gguf_path(file), error);
    if (status == HT_OK && !chat->n && speaks_chatml(tokenizer))
        status = add_template(chat, "chatml", (ht_string){chatml, sizeof chatml - 1}, NULL, error);
    return status;
}

ht_status ht_chat_open_text(const char *source, size_t bytes, const ht_tokenizer *tokenizer, ht_chat *chat,
                            ht_error *error) {
    ht_status status = begin(tokenizer, chat, error);
    if (status == HT_OK)
        status = add_template(chat, "given", (ht_string){source, bytes}, NULL, error);
    if (status == HT_OK && chat->at[0].status != HT_OK)
        status = ht_fail(error, chat->at[0].status, "%s", chat->at[0].why);
    return status;
}

void ht_chat_close(ht_chat *chat) {
    for (size_t i = 0; i < chat->n; i++) {
        ht_template_destroy(chat->at[i].parsed);
        free(chat->at[i].source);
        free(chat->at[i].why);
        free(chat->at[i].marks);
    }
    if (chat->findings)
        pthread_mutex_destroy(&chat->findings->mutex);
    free(chat->findings);
    *chat = (ht_chat){.n = 0};
}

/* ---- variables ------------------------------------------------------------------------------------------------ */

static void set_token(json_t **variables, const ht_tokenizer *tokenizer, const char *name, int32_t id) {
    size_t bytes = 0;
    const char *text = tokenizer ? ht_tokenizer_text(tokenizer, id, true, &bytes) : NULL;
    if (text) /* or it stays undefined, as in transformers */
        ht_json_set(variables, name, json_stringn_nocheck(text, bytes));
}

ht_status ht_chat_variables(const ht_chat *chat, json_t **variables, ht_error *error) {
    const ht_tokenizer *tokenizer = chat->tokenizer;
    json_t *made = json_object();
    set_token(&made, tokenizer, "bos_token", tokenizer ? ht_tokenizer_bos(tokenizer) : -1);
    set_token(&made, tokenizer, "eos_token", tokenizer ? ht_tokenizer_eos(tokenizer) : -1);
    ht_json_set(&made, "tools", json_null());
    ht_json_set(&made, "documents", json_null());
    ht_json_set(&made, "add_generation_prompt", json_true());
    *variables = made;
    return made ? HT_OK : ht_fail(error, HT_ERROR_MEMORY, "out of memory for a conversation");
}
