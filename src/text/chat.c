/* Chat templates: a table of the families' templates, recognised word for word, and one renderer.
 *
 * Running Jinja would need an interpreter for a language that model files supply; a row per template is enough for the
 * families. A template is taken for a row's if it has the same form (chat_form.c): one that only resembles it is refused
 * rather than guessed. What a template raises an error for is refused, too. A row leaves out the BOS at the very start, since
 * tokenizing adds it (text_api.c adds it where the tokenizer does not).
 */
#include "text/text.h"

#include <inttypes.h>
#include <string.h>

enum {                         /* flags */
       TRIM = 1,               /* white space round each message goes */
       TRIM_TURN = 2,          /* ... after a system message was put in front of it */
       TRIM_REPLY = 4,         /* ... of the assistant's messages only */
       DROP_THINKING = 8,      /* of earlier replies only what follows </think> is repeated, */
       DROP_LINES = 16,        /* less the empty lines between; the newest reply would be shown with its thoughts */
       SYSTEM_FIRST_USER = 32, /* a system message has no turn of its own: it goes into the first user message, */
       SYSTEM_LAST_USER = 64,  /* or into the last message, if that is the user's */
       NO_SYSTEM = 128,        /* system messages are refused, */
       ONE_SYSTEM = 256,       /* or allowed at the start only */
       ALTERNATES = 512,       /* user and assistant take turns */
       ALWAYS_OPEN = 1024      /* the assistant's turn is opened, whether that is asked for or not */
};

enum { SYSTEM, USER, ASSISTANT, ROLES };
static const char *const roles[ROLES] = {"system", "user", "assistant"};

struct ht_chat_template {
    const char *name;
    uint64_t form;              /* tests/data/chat/NAME.jinja has the template */
    const char *default_system; /* where the conversation begins without a system message; NULL: none */
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

#define SMOLLM "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
#define QWEN25 "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
#define MATH "Please reason step by step, and put your final answer within \\boxed{}."
#define LLAMA3_TURNS \
    { LLAMA3_TURN("system", ""), LLAMA3_TURN("user", ""), LLAMA3_TURN("assistant", "") }
#define LLAMA31_TURNS \
    { LLAMA3_TURN("system", LLAMA3_DATES), LLAMA3_TURN("user", ""), LLAMA3_TURN("assistant", "") }
#define GEMMA_TURNS                                                   \
    {                                                                 \
        {"", "\n\n"}, {"<start_of_turn>user\n", "<end_of_turn>\n"}, { \
            "<start_of_turn>model\n", "<end_of_turn>\n"               \
        }                                                             \
    }
#define LLAMA2_TURNS                                                \
    {                                                               \
        {"<<SYS>>\n", "\n<</SYS>>\n\n"}, {"[INST] ", " [/INST]"}, { \
            " ", " </s>"                                            \
        }                                                           \
    }
#define DEEPSEEK_TURNS                                      \
    {                                                       \
        {"", ""}, {"<\xef\xbd\x9cUser\xef\xbd\x9c>", ""}, { \
            DEEPSEEK_SPEAKS, DEEPSEEK_END                   \
        }                                                   \
    }
#define DEEPSEEK_SPEAKS \
    "<\xef\xbd\x9c"     \
    "Assistant\xef\xbd\x9c>"
#define DEEPSEEK_END \
    "<\xef\xbd\x9c"  \
    "end\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>"

static const ht_chat_template table[] = {
    {"smollm", 0x9acf4748d208c6be, SMOLLM, CHATML, 0},
    {"qwen2.5", 0xf017fb9b6d2effd7, QWEN25, CHATML, 0},
    {"qwen2.5-math", 0x869c91db9ba8aa8d, MATH, CHATML, 0},
    {"qwen2", 0x11c18663b004d932, "You are a helpful assistant.", CHATML, 0},
    {"qwen1.5", 0x7026645e17802d75, "You are a helpful assistant", CHATML, 0},
    {"qwen3", 0x4cf93373f20e6f7a, NULL, CHATML, DROP_THINKING | DROP_LINES},
    {"qwen3", 0xc2aab3f9b0925d88, NULL, CHATML, DROP_THINKING | DROP_LINES},
    {"qwen3-thinking", 0x8ebe746e7a809128, NULL, CHATML_TURNS "<|im_start|>assistant\n<think>\n",
     DROP_THINKING | DROP_LINES},
    {"internlm2", 0xce97e0b0f0689baa, NULL, CHATML, 0},
    {"chatml", 0x58e1fa6f6a2494e5, NULL, CHATML, 0},
    {"llama3.1", 0x975d373dae225e83, "", LLAMA31_TURNS, NULL, LLAMA3_HEADER("assistant"), TRIM | ONE_SYSTEM},
    {"llama3", 0x9abbdfa6a6ff2057, NULL, LLAMA3_TURNS, NULL, LLAMA3_HEADER("assistant"), TRIM},
    {"llama3", 0x4d7af3a5bb0e0622, NULL, LLAMA3_TURNS, NULL, LLAMA3_HEADER("assistant"), TRIM | ALWAYS_OPEN},
    {"gemma", 0x5ce77eb807e7448f, NULL, GEMMA_TURNS, NULL, "<start_of_turn>model\n", TRIM | NO_SYSTEM | ALTERNATES},
    {"gemma3", 0x4a2f25d88e0261f2, NULL, GEMMA_TURNS, NULL, "<start_of_turn>model\n",
     TRIM | SYSTEM_FIRST_USER | ALTERNATES},
    {"mistral-tekken",
     0x32555acdb8412c89,
     NULL,
     {{"", "\n\n"}, {"[INST]", "[/INST]"}, {"", "</s>"}},
     NULL,
     "",
     SYSTEM_LAST_USER | ALTERNATES},
    {"mistral-v3",
     0xf96a3cc9504785e9,
     NULL,
     {{"", "\n\n"}, {"[INST] ", "[/INST]"}, {" ", "</s>"}},
     NULL,
     "",
     SYSTEM_LAST_USER | TRIM_REPLY | ALTERNATES},
    {"mistral-v1",
     0xfca9bb41a01b8f9d,
     NULL,
     {{"", "\n\n"}, {" [INST] ", " [/INST]"}, {" ", "</s>"}},
     NULL,
     "",
     SYSTEM_FIRST_USER | ALTERNATES},
    {"mistral",
     0x740968831371ccb0,
     NULL,
     {{"", ""}, {"[INST] ", " [/INST]"}, {"", "</s>"}},
     NULL,
     "",
     NO_SYSTEM | ALTERNATES},
    {"llama2", 0x4329b2af0ee150be, NULL, LLAMA2_TURNS, "<s>", "",
     TRIM_TURN | TRIM_REPLY | SYSTEM_FIRST_USER | ALTERNATES},
    {"deepseek-r1", 0x84d2f60028010269, NULL, DEEPSEEK_TURNS, NULL, DEEPSEEK_SPEAKS "<think>\n",
     DROP_THINKING | ONE_SYSTEM},
    {"deepseek-r1-open", 0xf7d8d9e417bbd109, NULL, DEEPSEEK_TURNS, NULL, DEEPSEEK_SPEAKS, DROP_THINKING | ONE_SYSTEM},
};

/* ---- recognising --------------------------------------------------------------------------------------------- */

const ht_chat_template *ht_chat_recognise(const ht_gguf *file) {
    ht_string source = {0};
    if (ht_gguf_string(file, "tokenizer.chat_template", true, &source, NULL) != HT_OK)
        return NULL;
    const uint64_t form = ht_chat_form(source);
    for (size_t row = 0; row < HT_COUNT(table); row++)
        if (form && table[row].form == form)
            return &table[row];
    ht_log(HT_LOG_DEBUG, "%s: a chat template of form %016" PRIx64 " is not known", ht_gguf_path(file), form);
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

static bool is_role(const ht_message *message, int role) {
    return strcmp(message->role, roles[role]) == 0;
}

/* What the template raises an error for, or what its row cannot say. */
static ht_status check_message(const ht_chat_template *chat, const ht_message *messages, size_t i, ht_error *error) {
    const ht_message *m = &messages[i];
    if (!m->role || !m->content)
        return ht_fail(error, HT_ERROR_ARGUMENT, "message %zu has no %s", i + 1, m->role ? "content" : "role");
    if (!is_role(m, SYSTEM) && !is_role(m, USER) && !is_role(m, ASSISTANT))
        return ht_fail(error, HT_ERROR_ARGUMENT, "message %zu: role \"%.40s\" is not system, user or assistant", i + 1,
                       m->role);
    if (is_role(m, SYSTEM) && i > 0 && chat->flags & (ONE_SYSTEM | ALTERNATES))
        return ht_fail(error, HT_ERROR_UNSUPPORTED,
                       "message %zu: in the chat template \"%s\" a system message can only be the first", i + 1,
                       chat->name);
    if (is_role(m, SYSTEM) && chat->flags & NO_SYSTEM)
        return ht_fail(error, HT_ERROR_ARGUMENT, "message %zu: the chat template \"%s\" takes no system message", i + 1,
                       chat->name);
    const size_t turn = i - (is_role(&messages[0], SYSTEM) ? 1 : 0); /* not used where the first is a system message */
    if (chat->flags & ALTERNATES && !is_role(m, SYSTEM) && is_role(m, USER) != (turn % 2 == 0))
        return ht_fail(error, HT_ERROR_ARGUMENT,
                       "message %zu: in the chat template \"%s\" user and assistant take turns, the user first", i + 1,
                       chat->name);
    return HT_OK;
}

/* Qwen3 shows the thoughts of a reply to the newest question, and takes some user messages for tools' answers. */
static ht_status check_thoughts(const ht_chat_template *chat, const ht_message *messages, size_t n, ht_error *error) {
    static const char begin[] = "<tool_response>", end[] = "</tool_response>";
    size_t newest = n; /* question */
    for (size_t i = 0; i < n && chat->flags & DROP_LINES; i++) {
        const ht_message *m = &messages[i];
        const size_t bytes = strlen(m->content);
        if (is_role(m, USER) && bytes >= sizeof end - 1 && strncmp(m->content, begin, sizeof begin - 1) == 0 &&
            strcmp(m->content + bytes - (sizeof end - 1), end) == 0)
            return ht_fail(error, HT_ERROR_UNSUPPORTED,
                           "message %zu: a tool's response in a user message is not supported", i + 1);
        if (is_role(m, USER))
            newest = i;
    }
    for (size_t i = newest; i < n; i++)
        if (is_role(&messages[i], ASSISTANT))
            return ht_fail(error, HT_ERROR_UNSUPPORTED,
                           "message %zu: a reply to the newest question is not supported in the chat template \"%s\"",
                           i + 1, chat->name);
    return HT_OK;
}

/* Checks the messages. *host: the user message that is to carry the system message, n: none is. */
static ht_status check(const ht_chat_template *chat, const ht_message *messages, size_t n, size_t *host,
                       ht_error *error) {
    ht_status status = HT_OK;
    *host = n;
    for (size_t i = 0; i < n && status == HT_OK; i++)
        status = check_message(chat, messages, i, error);
    if (status == HT_OK)
        status = check_thoughts(chat, messages, n, error);
    if (status != HT_OK || !(chat->flags & (SYSTEM_FIRST_USER | SYSTEM_LAST_USER)) || n == 0 ||
        !is_role(&messages[0], SYSTEM))
        return status;
    if (n == 1)
        return ht_fail(error, HT_ERROR_UNSUPPORTED,
                       "the chat template \"%s\" puts the system message into a user message, but there is none",
                       chat->name);
    if (chat->flags & SYSTEM_FIRST_USER)
        *host = 1; /* turns are taken, the user first */
    else if (is_role(&messages[n - 1], USER))
        *host = n - 1;
    return HT_OK;
}

ht_status ht_chat_render(const ht_chat_template *chat, const ht_message *messages, size_t n, bool add_assistant,
                         ht_script *out, ht_error *error) {
    size_t host;
    ht_status status = check(chat, messages, n, &host, error);
    if (status == HT_OK && chat->default_system && n > 0 && !is_role(&messages[0], SYSTEM))
        status = render_turn(chat, SYSTEM, chat->default_system, NULL, out, error);
    bool spoken = false; /* a user turn is in the text */
    for (size_t i = 0; i < n && status == HT_OK; i++) {
        int role = SYSTEM;
        while (role < ASSISTANT && !is_role(&messages[i], role)) /* check() let no other role through */
            role++;
        if (role == SYSTEM && chat->flags & (SYSTEM_FIRST_USER | SYSTEM_LAST_USER))
            continue; /* comes with messages[host], if anywhere */
        if (role == USER && spoken && chat->between)
            status = ours(out, chat->between, error);
        if (role == USER)
            spoken = true;
        if (status == HT_OK)
            status = render_turn(chat, role, messages[i].content, i == host ? messages[0].content : NULL, out, error);
    }
    if (status == HT_OK && (add_assistant || chat->flags & ALWAYS_OPEN))
        status = ours(out, chat->generate, error);
    return status ? status : ours(out, "", error); /* nothing to say is an empty string, not none */
}
