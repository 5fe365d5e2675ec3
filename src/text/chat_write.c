/* A conversation made into text: read, put as the template takes it, rendered. Which of a file's two templates it gets
 * is decided as llama.cpp does: the one for tools where tools are given. */
#include "text/chat.h"

#include "base/json.h"
#include "base/os.h"

#include <stdlib.h>
#include <string.h>

/* ---- what the caller gives ------------------------------------------------------------------------------------ */

/* A string of JSON, whatever the bytes are: what is no UTF-8, as an answer may have it, becomes U+FFFD. */
static json_t *json_of(const char *text) {
    const size_t bytes = strlen(text);
    json_t *made = json_stringn(text, bytes);
    if (made)
        return made;
    ht_text fixed = {0};
    ht_status status = ht_text_append(&fixed, "", 0, NULL);
    for (size_t at = 0, used; at < bytes && status == HT_OK; at += used)
        status = ht_utf8_next(text + at, bytes - at, &used) < 0 ? ht_text_append(&fixed, "\xef\xbf\xbd", 3, NULL)
                                                                : ht_text_append(&fixed, text + at, used, NULL);
    if (status == HT_OK)
        made = json_stringn(fixed.data, fixed.bytes);
    ht_text_free(&fixed);
    return made;
}

static ht_status simple_messages(const ht_conversation *c, json_t **messages, ht_error *error) {
    json_t *made = json_array();
    for (size_t i = 0; i < c->n_messages; i++) {
        const ht_message *m = &c->messages[i];
        if (!m->role || !m->content) {
            json_decref(made);
            return ht_fail(error, HT_ERROR_ARGUMENT, "message %zu has no %s", i + 1, m->role ? "content" : "role");
        }
        json_t *message = json_object();
        ht_json_set(&message, "role", json_of(m->role));
        ht_json_set(&message, "content", json_of(m->content));
        ht_json_add(&made, message);
    }
    *messages = made;
    return made ? HT_OK : ht_fail(error, HT_ERROR_MEMORY, "out of memory for a conversation");
}

/* *tree: the JSON of `text`, of this kind; stays NULL where text is NULL. */
static ht_status read_json(const char *what, const char *text, json_type kind, json_t **tree, ht_error *error) {
    ht_json_source source;
    if (!text)
        return HT_OK;
    ht_status status = ht_json_open(what, text, strlen(text), &source, error);
    if (status != HT_OK)
        return status;
    if (json_typeof(source.root) != kind)
        status = ht_fail(error, HT_ERROR_FORMAT, "%s must be %s", what,
                         kind == JSON_ARRAY ? "a list ([...])" : "an object ({...})");
    else
        *tree = json_incref(source.root);
    ht_json_close(&source);
    return status;
}

static ht_status take_member(json_t *all, const char *name, json_type kind, json_t **out, ht_error *error) {
    json_t *member = json_object_get(all, name);
    if (!member || json_is_null(member))
        return HT_OK;
    if (json_typeof(member) != kind)
        return ht_fail(error, HT_ERROR_FORMAT, "messages: \"%s\" must be %s", name,
                       kind == JSON_ARRAY ? "a list" : "an object");
    if (!*out) /* the caller's own come first */
        *out = json_incref(member);
    return HT_OK;
}

typedef struct given { /* by the caller, as trees of our own; NULL: not given */
    json_t *messages, *tools, *kwargs, *more;
} given;

static void drop(given *g) {
    json_decref(g->messages);
    json_decref(g->tools);
    json_decref(g->kwargs);
    json_decref(g->more);
}

/* The conversation's JSON: a list of messages, or an object that has one. */
static ht_status read_messages(const char *text, given *g, ht_error *error) {
    ht_json_source source;
    ht_status status = ht_json_open("messages", text, strlen(text), &source, error);
    if (status != HT_OK)
        return status;
    json_t *root = source.root;
    const char *key;
    json_t *member;
    if (json_is_array(root))
        g->messages = json_incref(root);
    else if (!json_is_object(root) || !json_is_array(json_object_get(root, "messages")))
        status = ht_fail(error, HT_ERROR_FORMAT, "messages must be a list, or an object with a list \"messages\"");
    else
        status = take_member(root, "messages", JSON_ARRAY, &g->messages, error);
    if (status == HT_OK && json_is_object(root)) {
        status = take_member(root, "tools", JSON_ARRAY, &g->tools, error);
        if (status == HT_OK && json_object_get(root, "kwargs") && json_object_get(root, "chat_template_kwargs"))
            status = ht_fail(error, HT_ERROR_FORMAT,
                             "messages: \"kwargs\" and \"chat_template_kwargs\" are the same: only one can be given");
        if (status == HT_OK)
            status = take_member(root, "kwargs", JSON_OBJECT, &g->more, error);
        if (status == HT_OK)
            status = take_member(root, "chat_template_kwargs", JSON_OBJECT, &g->more, error);
        json_object_foreach(root, key, member) if (strcmp(key, "messages") != 0 && strcmp(key, "tools") != 0 &&
                                                   strcmp(key, "kwargs") != 0 &&
                                                   strcmp(key, "chat_template_kwargs") != 0)
            ht_log(HT_LOG_INFO, "messages: \"%.80s\" is not used", key);
    }
    ht_json_close(&source);
    return status;
}

static ht_status check_messages(const json_t *messages, ht_error *error) {
    for (size_t i = 0; i < json_array_size(messages); i++) {
        const json_t *message = json_array_get(messages, i);
        if (!json_is_object(message))
            return ht_fail(error, HT_ERROR_FORMAT, "message %zu is no object", i + 1);
        if (!json_is_string(json_object_get(message, "role")))
            return ht_fail(error, HT_ERROR_FORMAT, "message %zu has no role that is a text", i + 1);
    }
    return HT_OK;
}

static ht_status read_given(const ht_conversation *c, given *g, ht_error *error) {
    if (c->json && c->messages)
        return ht_fail(error, HT_ERROR_ARGUMENT, "a conversation has messages or json, not both");
    ht_status status = read_json("tools", c->tools, JSON_ARRAY, &g->tools, error);
    if (status == HT_OK)
        status = read_json("kwargs", c->kwargs, JSON_OBJECT, &g->kwargs, error);
    if (status == HT_OK)
        status = c->json ? read_messages(c->json, g, error) : simple_messages(c, &g->messages, error);
    return status == HT_OK ? check_messages(g->messages, error) : status;
}

/* Variables that count as the template's own, or make up the conversation, are not for callers to set. */
static ht_status add_kwargs(const json_t *kwargs, json_t **variables, ht_error *error) {
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)kwargs, name, value) {
        const size_t bytes = strlen(name);
        if (strcmp(name, "messages") == 0 || strcmp(name, "tools") == 0 ||
            (bytes >= 6 && strcmp(name + bytes - 6, "_token") == 0))
            return ht_fail(error, HT_ERROR_ARGUMENT, "kwargs: \"%.80s\" cannot be set this way", name);
        ht_json_set(variables, name, json_incref(value));
    }
    return *variables ? HT_OK : ht_fail(error, HT_ERROR_MEMORY, "out of memory for a conversation");
}

/* ---- messages as the template takes them ---------------------------------------------------------------------- */

static const char *type_of(const json_t *part) {
    const char *type = json_string_value(json_object_get(part, "type"));
    return type ? type : "text";
}

static bool is_media(const char *type) {
    static const char *const kinds[] = {"image", "audio", "video", "file", "document"};
    for (size_t i = 0; i < HT_COUNT(kinds); i++)
        if (strstr(type, kinds[i]))
            return true;
    return false;
}

/* A list of parts as one text. */
static ht_status join_parts(json_t **message, const json_t *parts, size_t index, ht_error *error) {
    ht_text text = {0};
    ht_status status = ht_text_append(&text, "", 0, error);
    for (size_t i = 0; i < json_array_size(parts) && status == HT_OK; i++) {
        const json_t *part = json_array_get(parts, i);
        const json_t *words = json_is_string(part) ? part : json_object_get(part, "text");
        if (!json_is_string(words)) {
            status = strcmp(type_of(part), "text") == 0
                         ? ht_fail(error, HT_ERROR_FORMAT, "message %zu: part %zu of its content has no text",
                                   index + 1, i + 1)
                         : ht_fail(error, HT_ERROR_UNSUPPORTED,
                                   "message %zu: the chat template takes content that is text only, not \"%.40s\"",
                                   index + 1, type_of(part));
            break;
        }
        if (i)
            status = ht_text_append(&text, "\n", 1, error);
        if (status == HT_OK)
            status = ht_text_append(&text, json_string_value(words), json_string_length(words), error);
    }
    if (status == HT_OK)
        ht_json_set(message, "content", json_stringn_nocheck(text.data, text.bytes));
    ht_text_free(&text);
    return status;
}

static ht_status fit_content(const ht_chat *chat, size_t which, json_t *message, size_t index, ht_error *error) {
    const json_t *content = json_object_get(message, "content");
    json_t *kept = message;
    ht_status status = HT_OK;
    for (size_t i = 0; json_is_array(content) && i < json_array_size(content); i++)
        if (is_media(type_of(json_array_get(content, i))))
            return ht_fail(error, HT_ERROR_UNSUPPORTED, "message %zu: content of type \"%.40s\" is not supported",
                           index + 1, type_of(json_array_get(content, i)));
    if (json_is_array(content) && !ht_chat_traits(chat, which, HT_CHAT_PARTS))
        status = join_parts(&kept, content, index, error);
    else if (json_is_string(content) && !ht_chat_traits(chat, which, HT_CHAT_TEXTS) &&
             ht_chat_traits(chat, which, HT_CHAT_PARTS))
        ht_json_set(&kept, "content", json_pack("[{s:s, s:O}]", "type", "text", "text", content));
    return kept || status != HT_OK ? status : ht_fail(error, HT_ERROR_MEMORY, "out of memory for a conversation");
}

/* OpenAI's form has arguments as JSON in a text. Where the template would garble that, they become an object. */
static ht_status fit_calls(const ht_chat *chat, size_t which, json_t *message, ht_error *error) {
    json_t *calls = json_object_get(message, "tool_calls");
    for (size_t i = 0; i < json_array_size(calls); i++) {
        json_t *call = json_array_get(calls, i), *function = json_object_get(call, "function");
        if (!function)
            function = call;
        const json_t *written = json_object_get(function, "arguments");
        if (!json_is_string(written) || ht_chat_traits(chat, which, HT_CHAT_WRITTEN) ||
            !ht_chat_traits(chat, which, HT_CHAT_ARGUMENTS))
            continue;
        json_t *object = json_loadb(json_string_value(written), json_string_length(written), 0, NULL);
        if (json_is_object(object) && json_object_set(function, "arguments", object)) {
            json_decref(object);
            return ht_fail(error, HT_ERROR_MEMORY, "out of memory for a conversation");
        }
        json_decref(object);
    }
    return HT_OK;
}

static ht_status fit(const ht_chat *chat, size_t which, json_t *messages, ht_error *error) {
    ht_status status = HT_OK;
    for (size_t i = 0; i < json_array_size(messages) && status == HT_OK; i++) {
        json_t *message = json_array_get(messages, i);
        status = fit_content(chat, which, message, i, error);
        if (status == HT_OK)
            status = fit_calls(chat, which, message, error);
    }
    return status;
}

/* ---- the text ------------------------------------------------------------------------------------------------- */

/* Cuts off what follows the last message's content. */
static ht_status cut_behind(const json_t *messages, ht_script *out, ht_error *error) {
    const json_t *last = json_array_get(messages, json_array_size(messages) - 1), *content = NULL;
    const char *role = last ? json_string_value(json_object_get(last, "role")) : NULL;
    if (role && strcmp(role, "assistant") == 0)
        content = json_object_get(last, "content");
    size_t n = json_is_string(content) ? json_string_length(content) : 0;
    const char *text = n ? json_string_value(content) : "";
    while (n && strchr(" \t\r\n", text[n - 1]))
        n--; /* the template may trim it */
    while (n && strchr(" \t\r\n", *text))
        text++, n--;
    if (!n)
        return ht_fail(error, HT_ERROR_ARGUMENT, "the last message is not an assistant's text that could go on");
    for (size_t i = out->n_foreign; i-- > 0;) {
        ht_stretch *s = &out->foreign[i];
        for (size_t end = s->end; end - s->begin >= n; end--)
            if (memcmp(out->text.data + end - n, text, n) == 0) {
                out->text.bytes = s->end = end;
                out->text.data[end] = '\0';
                out->n_foreign = i + 1;
                return HT_OK;
            }
    }
    return ht_fail(error, HT_ERROR_UNSUPPORTED, "the chat template does not show the last message as it is");
}

static bool begins_with_bos(const ht_tokenizer *tokenizer, const ht_script *script) {
    size_t bytes = 0;
    const char *bos = ht_tokenizer_text(tokenizer, ht_tokenizer_bos(tokenizer), true, &bytes);
    const size_t own = script->n_foreign ? script->foreign[0].begin : script->text.bytes;
    return bos && bytes && bytes <= own && memcmp(script->text.data, bos, bytes) == 0;
}

static ht_status write_given(const ht_chat *chat, const ht_conversation *c, given *g, ht_script *out, ht_error *error) {
    const size_t which = chat->n == 2 && json_array_size(g->tools) ? 1 : 0;
    const ht_chat_template_text *t = &chat->at[which];
    json_t *variables = NULL;
    struct tm now;
    if (t->status != HT_OK)
        return ht_fail(error, t->status, "%s", t->why);
    ht_status status = fit(chat, which, g->messages, error);
    if (status == HT_OK)
        status = ht_chat_variables(chat, &variables, error);
    ht_json_set(&variables, "messages", json_incref(g->messages));
    if (g->tools && json_array_size(g->tools))
        ht_json_set(&variables, "tools", json_incref(g->tools));
    ht_json_set(&variables, "add_generation_prompt", json_boolean(!c->no_generation_prompt && !c->continue_last));
    if (status == HT_OK)
        status = add_kwargs(g->more, &variables, error);
    if (status == HT_OK)
        status = add_kwargs(g->kwargs, &variables, error);
    if (status == HT_OK)
        status = ht_template_render(t->parsed, variables, ht_os_local_time(c->now, &now) ? &now : NULL, out, error);
    json_decref(variables);
    if (status == HT_OK && c->continue_last)
        status = cut_behind(g->messages, out, error);
    out->marks = t->marks;
    if (status == HT_OK && chat->tokenizer && begins_with_bos(chat->tokenizer, out))
        out->bos = ht_find_bytes(t->source, t->bytes, "bos_token", 9) ? HT_BOS_NAMED : HT_BOS_WRITTEN;
    return status;
}

ht_status ht_chat_write(const ht_chat *chat, const ht_conversation *conversation, ht_script *out, ht_error *error) {
    given g = {NULL, NULL, NULL, NULL};
    *out = (ht_script){.n_foreign = 0};
    ht_status status = read_given(conversation, &g, error);
    if (status == HT_OK)
        status = write_given(chat, conversation, &g, out, error);
    drop(&g);
    if (status != HT_OK)
        ht_script_free(out);
    return status;
}
