/* Chat templates: a table of the families' templates, recognised by what the file's Jinja source says; one renderer.
 *
 * Running Jinja would need an interpreter for a language that model files supply; a row per template is enough for the
 * families, and a template without a row is refused rather than guessed. A row leaves out the BOS at the very start,
 * since tokenizing adds it (ht_chat_format adds its text where the tokenizer does not).
 */
#include "text/text.h"

#include <string.h>

enum {                         /* flags */
       TRIM = 1,               /* white space round each message goes */
       TRIM_TURN = 2,          /* ... after a system message was put in front of it */
       TRIM_REPLY = 4,         /* ... of the assistant's messages only */
       DROP_THINKING = 8,      /* of earlier replies only what follows </think> is repeated, */
       DROP_LINES = 16,        /* less the empty lines between */
       SYSTEM_FIRST_USER = 32, /* a system message has no turn of its own: it goes into the first user message, */
       SYSTEM_LAST_USER = 64   /* or into the last */
};

enum { SYSTEM, USER, ASSISTANT, ROLES };
static const char *const roles[ROLES] = {"system", "user", "assistant"};

struct ht_chat_template {
    const char *name;
    const char *has[3], *lacks[3]; /* substrings of the source; the first row that fits is taken */
    const char *default_system;    /* where the conversation begins without a system message; NULL: none */
    struct {
        const char *before, *after;
    } turn[ROLES];
    const char *between;  /* before each user turn but the first, NULL: nothing */
    const char *generate; /* opens the assistant's turn */
    int flags;
};

#define CHATML_TURN(role) \
    { "<|im_start|>" role "\n", "<|im_end|>\n" }
#define CHATML_TURNS {CHATML_TURN("system"), CHATML_TURN("user"), CHATML_TURN("assistant")}, NULL,
#define CHATML CHATML_TURNS "<|im_start|>assistant\n"
#define LLAMA3_HEADER(role) "<|start_header_id|>" role "<|end_header_id|>\n\n"
#define LLAMA3_TURN(role, more) \
    { LLAMA3_HEADER(role) more, "<|eot_id|>" }
/* The date is the template's own default, not today's: the same conversation is the same text every day. */
#define LLAMA3_DATES "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"

static const ht_chat_template table[] = {
    {"smollm",
     {"<|im_start|>", "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>"},
     {0},
     "You are a helpful AI assistant named SmolLM, trained by Hugging Face",
     CHATML,
     0},
    {"qwen2.5",
     {"<|im_start|>", "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>"},
     {0},
     "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
     CHATML,
     0},
    {"qwen2",
     {"<|im_start|>", "You are a helpful assistant.<|im_end|>"},
     {0},
     "You are a helpful assistant.",
     CHATML,
     0},
    {"qwen1.5",
     {"<|im_start|>", "You are a helpful assistant<|im_end|>"},
     {0},
     "You are a helpful assistant",
     CHATML,
     0},
    {"qwen3-thinking",
     {"ns.last_query_index", "</think>", "assistant\\n<think>\\n'"},
     {"|trim"},
     NULL,
     CHATML_TURNS "<|im_start|>assistant\n<think>\n",
     DROP_THINKING | DROP_LINES},
    {"qwen3",
     {"<|im_start|>", "ns.last_query_index", "split('</think>')[-1].lstrip('\\n')"},
     {"|trim", "assistant\\n<think>\\n'"},
     NULL,
     CHATML,
     DROP_THINKING | DROP_LINES},
    {"qwen2.5-math",
     {"<|im_start|>", "Please reason step by step, and put your final answer within"},
     {0},
     "Please reason step by step, and put your final answer within \\boxed{}.",
     CHATML,
     0},
    {"internlm2", {"{{ bos_token }}{% for message in messages %}{{'<|im_start|>'"}, {0}, NULL, CHATML, 0},
    {"chatml", {"<|im_start|>", "<|im_end|>"}, {"<|im_sep|>", "</think>", "You are "}, NULL, CHATML, 0},
    {"llama3.1",
     {"<|start_header_id|>", "<|eot_id|>", "\"Today Date: \" + date_string"},
     {0},
     "",
     {LLAMA3_TURN("system", LLAMA3_DATES), LLAMA3_TURN("user", ""), LLAMA3_TURN("assistant", "")},
     NULL,
     LLAMA3_HEADER("assistant"),
     TRIM},
    {"llama3",
     {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"},
     {"Cutting Knowledge Date", "function"},
     NULL,
     {LLAMA3_TURN("system", ""), LLAMA3_TURN("user", ""), LLAMA3_TURN("assistant", "")},
     NULL,
     LLAMA3_HEADER("assistant"),
     TRIM},
    {"gemma",
     {"<start_of_turn>", "<end_of_turn>", "model"},
     {0},
     NULL,
     {{"", "\n\n"}, {"<start_of_turn>user\n", "<end_of_turn>\n"}, {"<start_of_turn>model\n", "<end_of_turn>\n"}},
     NULL,
     "<start_of_turn>model\n",
     TRIM | SYSTEM_FIRST_USER},
    {"mistral-tekken",
     {"\"[INST]\"", "[AVAILABLE_TOOLS]"},
     {"[SYSTEM_PROMPT]"},
     NULL,
     {{"", "\n\n"}, {"[INST]", "[/INST]"}, {"", "</s>"}},
     NULL,
     "",
     SYSTEM_LAST_USER},
    {"mistral-v3",
     {"\"[INST] \"", "[AVAILABLE_TOOLS]"},
     {"[SYSTEM_PROMPT]"},
     NULL,
     {{"", "\n\n"}, {"[INST] ", "[/INST]"}, {" ", "</s>"}},
     NULL,
     "",
     SYSTEM_LAST_USER | TRIM_REPLY},
    {"mistral-v1",
     {"' [INST] ' + system_message", "' [/INST]'"},
     {"[SYSTEM_PROMPT]"},
     NULL,
     {{"", "\n\n"}, {" [INST] ", " [/INST]"}, {" ", "</s>"}},
     NULL,
     "",
     SYSTEM_FIRST_USER},
    {"llama2",
     {"bos_token + '[INST] ' + content.strip()", "<<SYS>>"},
     {"[SYSTEM_PROMPT]"},
     NULL,
     {{"<<SYS>>\n", "\n<</SYS>>\n\n"}, {"[INST] ", " [/INST]"}, {" ", " </s>"}},
     "<s>",
     "",
     TRIM_TURN | TRIM_REPLY | SYSTEM_FIRST_USER},
    {"mistral",
     {"'[INST] ' + message['content'] + ' [/INST]'", "message['content'] + eos_token"},
     {"<<SYS>>"},
     NULL,
     {{"", "\n\n"}, {"[INST] ", " [/INST]"}, {"", "</s>"}},
     NULL,
     "",
     SYSTEM_FIRST_USER},
    {"deepseek-r1",
     {"'<｜User｜>' + message['content']", "'<｜Assistant｜><think>\\n'"},
     {"message['content'] + '<｜end▁of▁sentence｜>' -}}"},
     NULL,
     {{"", ""}, {"<｜User｜>", ""}, {"<｜Assistant｜>", "<｜end▁of▁sentence｜>"}},
     NULL,
     "<｜Assistant｜><think>\n",
     DROP_THINKING},
};

/* ---- recognising --------------------------------------------------------------------------------------------- */

static bool contains(ht_string source, const char *what) {
    return ht_find_bytes(source.data, source.bytes, what, strlen(what)) != NULL;
}

static bool fits(const ht_chat_template *row, ht_string source) {
    for (size_t i = 0; i < HT_COUNT(row->has) && row->has[i]; i++)
        if (!contains(source, row->has[i]))
            return false;
    for (size_t i = 0; i < HT_COUNT(row->lacks) && row->lacks[i]; i++)
        if (contains(source, row->lacks[i]))
            return false;
    return true;
}

const ht_chat_template *ht_chat_recognise(const ht_gguf *file) {
    ht_string source = {0};
    if (ht_gguf_string(file, "tokenizer.chat_template", true, &source, NULL) != HT_OK)
        return NULL;
    for (size_t row = 0; row < HT_COUNT(table); row++)
        if (fits(&table[row], source))
            return &table[row];
    return NULL;
}

const char *ht_chat_name(const ht_chat_template *chat) {
    return chat ? chat->name : NULL;
}

/* ---- rendering ----------------------------------------------------------------------------------------------- */

static ht_string string_of(const char *text) {
    return (ht_string){text, strlen(text)};
}

static bool is_space(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static ht_string trimmed(ht_string s, bool start) {
    while (s.bytes && is_space(s.data[s.bytes - 1]))
        s.bytes--;
    while (start && s.bytes && is_space(s.data[0]))
        s = (ht_string){s.data + 1, s.bytes - 1};
    return s;
}

static ht_string after_thinking(ht_string s, bool drop_lines) {
    static const char mark[] = "</think>";
    const char *found;
    while ((found = ht_find_bytes(s.data, s.bytes, mark, sizeof mark - 1))) {
        size_t skipped = (size_t)(found - s.data) + sizeof mark - 1;
        s = (ht_string){s.data + skipped, s.bytes - skipped};
        while (drop_lines && s.bytes && s.data[0] == '\n')
            s = (ht_string){s.data + 1, s.bytes - 1};
    }
    return s;
}

static ht_status ours(ht_script *out, const char *text, ht_error *error) {
    return ht_script_append(out, text, strlen(text), false, error);
}

static ht_status theirs(ht_script *out, ht_string text, ht_error *error) {
    return ht_script_append(out, text.data, text.bytes, true, error);
}

/* One turn: what the row puts before, the content (behind `system`, if that is not NULL), what it puts after. */
static ht_status render_turn(const ht_chat_template *chat, int role, const char *content, const char *system,
                             ht_script *out, ht_error *error) {
    ht_string text = string_of(content);
    if (role == ASSISTANT && chat->flags & DROP_THINKING)
        text = after_thinking(text, chat->flags & DROP_LINES);
    bool trim_turn = role == USER && chat->flags & TRIM_TURN;
    if (chat->flags & TRIM || (role == ASSISTANT && chat->flags & TRIM_REPLY))
        text = trimmed(text, true);
    if (trim_turn)
        text = trimmed(text, !system); /* the system's marks begin the turn: nothing to trim there */
    ht_status status = ours(out, chat->turn[role].before, error);
    if (status == HT_OK && system) {
        status = ours(out, chat->turn[SYSTEM].before, error);
        if (status == HT_OK)
            status = theirs(out, string_of(system), error);
        if (status == HT_OK)
            status = ours(out, chat->turn[SYSTEM].after, error);
    }
    if (status == HT_OK)
        status = theirs(out, text, error);
    return status ? status : ours(out, chat->turn[role].after, error);
}

/* Checks the messages. *host: the user message that is to carry the system message, n: none is. */
static ht_status check(const ht_chat_template *chat, const ht_message *messages, size_t n, size_t *host,
                       ht_error *error) {
    bool merges = chat->flags & (SYSTEM_FIRST_USER | SYSTEM_LAST_USER);
    *host = n;
    for (size_t i = 0; i < n; i++) {
        const char *role = messages[i].role;
        if (!role || !messages[i].content)
            return ht_fail(error, HT_ERROR_ARGUMENT, "message %zu has no %s", i + 1, role ? "content" : "role");
        bool system = strcmp(role, "system") == 0, user = strcmp(role, "user") == 0;
        if (!system && !user && strcmp(role, "assistant") != 0)
            return ht_fail(error, HT_ERROR_ARGUMENT, "message %zu: role \"%.40s\" is not system, user or assistant",
                           i + 1, role);
        if (merges && system && i > 0)
            return ht_fail(error, HT_ERROR_ARGUMENT,
                           "message %zu: in the chat template \"%s\" a system message can only be the first", i + 1,
                           chat->name);
        if (user && (*host == n || chat->flags & SYSTEM_LAST_USER))
            *host = i;
    }
    if (!merges || n == 0 || strcmp(messages[0].role, "system") != 0) {
        *host = n;
        return HT_OK;
    }
    if (*host == n)
        return ht_fail(error, HT_ERROR_ARGUMENT,
                       "the chat template \"%s\" puts a system message into a user message, and there is none",
                       chat->name);
    return HT_OK;
}

ht_status ht_chat_render(const ht_chat_template *chat, const ht_message *messages, size_t n, bool add_assistant,
                         ht_script *out, ht_error *error) {
    size_t host;
    ht_status status = check(chat, messages, n, &host, error);
    if (status == HT_OK && chat->default_system && (n == 0 || strcmp(messages[0].role, "system") != 0))
        status = render_turn(chat, SYSTEM, chat->default_system, NULL, out, error);
    bool spoken = false; /* a user turn is in the text */
    for (size_t i = 0; i < n && status == HT_OK; i++) {
        int role = SYSTEM;
        while (role < ASSISTANT && strcmp(roles[role], messages[i].role) != 0) /* check() let no other role through */
            role++;
        if (role == SYSTEM && host < n)
            continue; /* comes with messages[host] */
        if (role == USER && spoken && chat->between)
            status = ours(out, chat->between, error);
        if (role == USER)
            spoken = true;
        if (status == HT_OK)
            status = render_turn(chat, role, messages[i].content, i == host ? messages[0].content : NULL, out, error);
    }
    if (status == HT_OK && add_assistant)
        status = ours(out, chat->generate, error);
    return status ? status : ours(out, "", error); /* nothing to say is an empty string, not none */
}
