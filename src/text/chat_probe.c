/* What a chat template does with a conversation is found out by giving it small ones and looking for what they say. */
#include "text/chat.h"

#include "base/json.h"

#include <string.h>

#define MOST_STEPS 1000000 /* of one trial; a template that takes more is a hostile one */
#define WORD "zqword"      /* no template says these by itself */
#define OTHER "zqother"
#define NAME "zqname"
#define VALUE "zqvalue"

static const struct tm some_day = {.tm_year = 124, .tm_mon = 6, .tm_mday = 26, .tm_hour = 12};

/* What the template makes of the messages, which it takes over, and of one more variable; NULL: it refuses them. The text is
 * the caller's, from malloc. */
static char *try(const ht_chat *chat, size_t which, json_t *messages, json_t *tools, const char *name, json_t *value) {
    json_t *variables = NULL;
    ht_script out = {.n_foreign = 0};
    if (ht_chat_variables(chat, &variables, NULL) != HT_OK)
        variables = NULL;
    ht_json_set(&variables, "messages", messages);
    if (tools)
        ht_json_set(&variables, "tools", tools);
    if (name)
        ht_json_set(&variables, name, value);
    if (variables && chat->at[which].parsed)
        ht_template_try(chat->at[which].parsed, variables, &some_day, MOST_STEPS, &out, NULL);
    json_decref(variables);
    char *text = out.text.data;
    out.text = (ht_text){0};
    ht_script_free(&out);
    return text;
}

static bool says(const char *text, const char *word) {
    return text && strstr(text, word);
}

static json_t *asked(void) {
    return json_pack("{s:s, s:s}", "role", "user", "content", OTHER);
}

static json_t *described(void) {
    return json_pack("[{s:s, s:{s:s, s:s, s:{s:s, s:{s:{s:s, s:s}}, s:[s]}}}]", "type", "function", "function", "name",
                     NAME, "description", "x", "parameters", "type", "object", "properties", "zqkey", "type", "string",
                     "description", "x", "required", "zqkey");
}

static bool shows_text(const ht_chat *chat, size_t which) {
    char *text = try(chat, which, json_pack("[{s:s, s:s}]", "role", "user", "content", WORD), NULL, NULL, NULL);
    const bool shown = !text || says(text, WORD); /* one that refuses so little says nothing of content */
    ht_free(text);
    return shown;
}

static bool shows_parts(const ht_chat *chat, size_t which) {
    char *text =
        try(chat, which, json_pack("[{s:s, s:[{s:s, s:s}]}]", "role", "user", "content", "type", "text", "text", WORD),
            NULL, NULL, NULL);
    const bool shown = says(text, WORD) && !says(text, "'type'") && !says(text, "\"type\"");
    ht_free(text);
    return shown;
}

static bool shows_system(const ht_chat *chat, size_t which) {
    char *text =
        try(chat, which, json_pack("[{s:s, s:s}, o]", "role", "system", "content", WORD, asked()), NULL, NULL, NULL);
    const bool shown = says(text, WORD);
    ht_free(text);
    return shown;
}

static bool shows_tools(const ht_chat *chat, size_t which) {
    char *text = try(chat, which, json_pack("[o]", asked()), described(), NULL, NULL);
    const bool shown = says(text, NAME);
    ht_free(text);
    return shown;
}

/* A conversation in which a tool was called: `content` is the assistant's, `arguments` the call's. */
static json_t *called(json_t *content, json_t *arguments) {
    return json_pack("[o, {s:s, s:o, s:[{s:s, s:s, s:{s:s, s:o}}]}, {s:s, s:s, s:s, s:s}]", asked(), "role",
                     "assistant", "content", content, "tool_calls", "id", "abcdefghi", "type", "function", "function",
                     "name", NAME, "arguments", arguments, "role", "tool", "tool_call_id", "abcdefghi", "name", NAME,
                     "content", "x");
}

static bool shows_call(const ht_chat *chat, size_t which, bool written) {
    bool shown = false;
    for (int empty = 0; empty < 2 && !shown; empty++) { /* what is beside a call is an empty text, or nothing */
        json_t *arguments = written ? json_string("{\"zqkey\": \"" VALUE "\"}") : json_pack("{s:s}", "zqkey", VALUE);
        char *text =
            try(chat, which, called(empty ? json_string("") : json_null(), arguments), described(), NULL, NULL);
        const char *at = text ? strstr(text, VALUE) : NULL;
        /* in Python's quotes, or in JSON's twice, it is no JSON any more */
        shown = at && !(at > text && at[-1] == '\'') && !(at - text >= 2 && at[-1] == '"' && at[-2] == '\\');
        ht_free(text);
    }
    return shown;
}

static bool has_trait(const ht_chat *chat, size_t which, ht_chat_trait trait) {
    switch (trait) {
    case HT_CHAT_TEXTS:
        return shows_text(chat, which);
    case HT_CHAT_PARTS:
        return shows_parts(chat, which);
    case HT_CHAT_SYSTEM:
        return shows_system(chat, which);
    case HT_CHAT_TOOLS:
        return shows_tools(chat, which);
    default:
        return shows_call(chat, which, trait == HT_CHAT_WRITTEN);
    }
}

unsigned ht_chat_traits(const ht_chat *chat, size_t which, unsigned asked_for) {
    pthread_mutex_lock(&chat->findings->mutex);
    for (unsigned trait = 1; trait & HT_CHAT_ALL; trait <<= 1) {
        if (!(trait & asked_for) || chat->findings->of[which].tried & trait)
            continue;
        chat->findings->of[which].tried |= trait;
        if (has_trait(chat, which, (ht_chat_trait)trait))
            chat->findings->of[which].traits |= trait;
    }
    const unsigned traits = chat->findings->of[which].traits & asked_for;
    pthread_mutex_unlock(&chat->findings->mutex);
    return traits;
}

/* ---- thoughts -------------------------------------------------------------------------------------------------- */

static bool shows_thoughts(const ht_chat *chat, size_t which, const char *member) {
    json_t *messages = called(json_string(""), json_pack("{s:s}", "zqkey", VALUE));
    json_object_set_new(json_array_get(messages, 1), member, json_string(WORD));
    char *text = try(chat, which, messages, described(), NULL, NULL);
    if (!text) { /* it does not take calls */
        messages = json_pack("[o, {s:s, s:s, s:s}]", asked(), "role", "assistant", "content", "x", member, WORD);
        text = try(chat, which, messages, NULL, NULL, NULL);
    }
    const bool shown = says(text, WORD);
    ht_free(text);
    return shown;
}

static bool is_switch(const ht_chat *chat, size_t which, const char *name) {
    const bool level = strcmp(name, "reasoning_effort") == 0;
    char *less = try(chat, which, json_pack("[o]", asked()), NULL, name, level ? json_string("low") : json_false());
    char *more = try(chat, which, json_pack("[o]", asked()), NULL, name, level ? json_string("high") : json_true());
    const bool differ = less && more && strcmp(less, more) != 0;
    ht_free(less);
    ht_free(more);
    return differ;
}

void ht_chat_thinking(const ht_chat *chat, size_t which, const char **reasoning, const char **thinking) {
    static const char *const members[] = {"reasoning_content", "reasoning", "thinking"}, *const switches[] = {
                                                                                             "enable_thinking",
                                                                                             "thinking",
                                                                                             "reasoning_effort"};
    pthread_mutex_lock(&chat->findings->mutex);
    if (!chat->findings->of[which].talked) {
        for (size_t i = HT_COUNT(members); i-- > 0;) {
            if (shows_thoughts(chat, which, members[i]))
                chat->findings->of[which].reasoning = members[i];
            if (is_switch(chat, which, switches[i]))
                chat->findings->of[which].thinking = switches[i];
        }
        chat->findings->of[which].talked = true;
    }
    *reasoning = chat->findings->of[which].reasoning;
    *thinking = chat->findings->of[which].thinking;
    pthread_mutex_unlock(&chat->findings->mutex);
}
