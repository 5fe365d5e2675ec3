/* hetero chat: a conversation on a terminal, or line by line from a script. */
#include "cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct conversation {
    const cli_options *options;
    ht_model *model;
    cli_session session;
    ht_message *messages; /* contents from malloc; roles constant */
    size_t n_messages;
    int64_t began;           /* the date of the whole conversation, so that midnight does not change its beginning */
    uint64_t seed;           /* of the next answer */
    ht_generate_result last; /* of the newest answer: numbers only */
    cli_lines *lines;
    int failed; /* exit status of the newest answer that failed */
    bool quit;
} conversation;

/* ---- messages --------------------------------------------------------------------------------------------------- */

static void pop_message(conversation *chat) {
    free((char *)chat->messages[--chat->n_messages].content);
}

static bool push_message(conversation *chat, const char *role, const char *content) {
    ht_message *grown = realloc(chat->messages, (chat->n_messages + 1) * sizeof *grown);
    char *copy = strdup(content);
    if (grown)
        chat->messages = grown;
    if (!grown || !copy) {
        free(copy);
        chat->failed = cli_no_memory(chat->options->command);
        return false;
    }
    chat->messages[chat->n_messages++] = (ht_message){role, copy};
    return true;
}

static bool has_system(const conversation *chat) {
    return chat->n_messages && !strcmp(chat->messages[0].role, "system");
}

/* The conversation's tokens: *ids from the library. */
static ht_status prompt_ids(const conversation *chat, int32_t **ids, size_t *n, ht_error *error) {
    const ht_conversation talk = HT_INIT(ht_conversation, .messages = chat->messages, .n_messages = chat->n_messages,
                                         .kwargs = cli_last(&chat->options->chat_template_kwargs), .now = chat->began);
    ht_rendering prompt = HT_INIT(ht_rendering);
    ht_status status = ht_chat_render(chat->model, &talk, cli_text_flags(chat->options), &prompt, error);
    if (status)
        return status;
    *ids = prompt.ids;
    *n = prompt.n;
    prompt.ids = NULL;
    ht_rendering_clear(&prompt);
    return status;
}

/* Can this model hold a conversation at all? Tried before anything is loaded, so that it is not said at each message. */
static int check_template(conversation *chat) {
    ht_error error;
    int32_t *ids = NULL;
    size_t n;
    if (!push_message(chat, "user", "x"))
        return chat->failed;
    const ht_status status = prompt_ids(chat, &ids, &n, &error);
    ht_free(ids);
    pop_message(chat);
    if (!status)
        return CLI_DONE;
    return cli_fail_chat(chat->options, chat->model, &error);
}

/* The newest message is the user's; keeps it only if there is an answer to it. */
static void answer(conversation *chat) {
    ht_error error;
    int32_t *ids = NULL;
    size_t n;
    ht_generate_result result = HT_INIT(ht_generate_result);
    ht_status status = prompt_ids(chat, &ids, &n, &error);
    if (!status)
        status = cli_generate(chat->options, chat->session.session, ids, n, chat->seed++, true, &result, &error);
    ht_free(ids);
    if (status) {
        chat->failed = cli_fail(chat->options, &error);
        if (status == HT_ERROR_CONTEXT)
            fprintf(stderr, "The conversation no longer fits in the context: /clear starts a new one.\n");
        pop_message(chat);
        return;
    }
    if (result.stop == HT_STOP_CONTEXT)
        fprintf(stderr, "The context is full and the answer was cut off: /clear starts a new conversation.\n");
    if (!result.n || !push_message(chat, "assistant", result.text))
        pop_message(chat);
    chat->last = result;
    chat->last.ids = NULL;
    chat->last.text = NULL;
    chat->last.top = NULL;
    ht_generate_result_clear(&result);
}

/* ---- commands --------------------------------------------------------------------------------------------------- */

static void do_help(conversation *chat, const char *argument);

static void do_clear(conversation *chat, const char *argument) {
    while (chat->n_messages > (has_system(chat) ? 1u : 0u))
        pop_message(chat);
}

static void do_system(conversation *chat, const char *argument) {
    while (chat->n_messages)
        pop_message(chat);
    if (*argument)
        push_message(chat, "system", argument);
}

static void do_regenerate(conversation *chat, const char *argument) {
    if (!chat->n_messages || strcmp(chat->messages[chat->n_messages - 1].role, "assistant")) {
        fprintf(stderr, "There is no answer to repeat yet.\n");
        return;
    }
    pop_message(chat);
    answer(chat);
}

static void do_stats(conversation *chat, const char *argument) {
    const ht_engine_info *info = ht_engine_get_info(chat->session.engine);
    const ht_generate_result *last = &chat->last;
    size_t held;
    ht_session_tokens(chat->session.session, &held);
    fprintf(stderr, "context: %zu of %d tokens in use\n", held, info->context);
    if (last->prompt_tokens)
        fprintf(stderr, "last answer: %zu prompt tokens, %zu reused\n", last->prompt_tokens, last->prompt_reused);
    if (last->prompt_tokens)
        cli_print_timings(chat->options, last, info);
}

static void do_quit(conversation *chat, const char *argument) {
    chat->quit = true;
}

static const struct {
    const char *name, *argument, *help;
    void (*run)(conversation *chat, const char *argument);
} commands[] = {
    {"/help", "", "show this help", do_help},
    {"/clear", "", "start a new conversation with the same system message", do_clear},
    {"/system", " TEXT", "start a new conversation with this system message (without TEXT: with none)", do_system},
    {"/regenerate", "", "replace the last answer, with another seed", do_regenerate},
    {"/stats", "", "show the tokens in the context and the speed of the last answer", do_stats},
    {"/quit", "", "end the chat (as Ctrl-D does)", do_quit},
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

static void do_help(conversation *chat, const char *argument) {
    for (size_t i = 0; i < N_COMMANDS; i++)
        fprintf(stderr, "  %s%-*s %s\n", commands[i].name, 18 - (int)strlen(commands[i].name), commands[i].argument,
                commands[i].help);
    fprintf(stderr, "  Several lines are one message if they are pasted, if each but the last ends in \\,\n"
                    "  or if \"\"\" begins and ends the message.\n"
                    "  Ctrl-C ends the current answer.\n");
}

/* false: the message is no command but several lines that happen to begin with a slash. */
static bool run_command(conversation *chat, const char *line) {
    size_t length = strcspn(line, " \n");
    const char *argument = line + length + strspn(line + length, " \n");
    for (size_t i = 0; i < N_COMMANDS; i++) {
        if (strlen(commands[i].name) != length || memcmp(commands[i].name, line, length))
            continue;
        commands[i].run(chat, argument);
        return true;
    }
    if (strchr(line, '\n'))
        return false;
    fprintf(stderr, "%.*s: no such command; /help lists the commands\n", (int)length, line);
    return true;
}

/* ---- the conversation ------------------------------------------------------------------------------------------- */

static bool has_quotes(const char *text, size_t bytes) {
    return bytes >= 3 && !memcmp(text, "\"\"\"", 3);
}

/* Reads a line more behind text[0..*bytes). false: input has ended, or memory. */
static bool add_line(cli_lines *lines, char **text, size_t *bytes) {
    size_t n;
    char *line = cli_lines_read(lines, true, &n);
    char *grown = line ? realloc(*text, *bytes + n + 2) : NULL;
    if (grown) {
        grown[*bytes] = '\n';
        memcpy(grown + *bytes + 1, line, n + 1);
        *text = grown;
        *bytes += 1 + n;
    }
    free(line);
    return grown != NULL;
}

/* A message: one line, lines that all but the last end in a backslash, or what stands between """ and """. From malloc;
 * NULL at the end of input. */
static char *read_message(conversation *chat, size_t *bytes) {
    char *text = cli_lines_read(chat->lines, false, bytes);
    const bool quoted = text && has_quotes(text, *bytes);
    if (!text)
        return NULL;
    while (!quoted && *bytes && text[*bytes - 1] == '\\') {
        text[--*bytes] = 0;
        if (!add_line(chat->lines, &text, bytes))
            break;
    }
    if (!quoted)
        return text;
    while (*bytes < 6 || !has_quotes(text + *bytes - 3, 3))
        if (!add_line(chat->lines, &text, bytes)) {
            chat->failed =
                cli_wrong(chat->options->command, "the message that begins with \"\"\" does not end with it");
            free(text);
            return NULL;
        }
    /* The marks may have lines of their own. */
    const size_t begin = text[3] == '\n' ? 4 : 3;
    *bytes -= 3;
    if (*bytes > begin && text[*bytes - 1] == '\n')
        --*bytes;
    *bytes = *bytes > begin ? *bytes - begin : 0;
    memmove(text, text + begin, *bytes);
    text[*bytes] = 0;
    return text;
}

static void take_message(conversation *chat, const char *text, size_t bytes) {
    const size_t valid = cli_utf8_valid_up_to(text, bytes);
    if (valid < bytes)
        chat->failed = cli_wrong(chat->options->command, "invalid UTF-8 at byte %zu of the message", valid);
    else if (strlen(text) < bytes)
        chat->failed = cli_wrong(chat->options->command, "zero byte at byte %zu of the message", strlen(text));
    else if (*text == '/' && run_command(chat, text))
        return;
    else if (text[strspn(text, " \t\r\n")] && push_message(chat, "user", text))
        answer(chat);
}

static void converse(conversation *chat) {
    bool person = cli_lines_interactive(chat->lines);
    if (person && !chat->options->quiet)
        fprintf(stderr, "%s; /help lists the commands, Ctrl-D ends.\n", ht_model_get_info(chat->model)->path);
    size_t bytes;
    for (char *text; !chat->quit && (text = read_message(chat, &bytes)); free(text))
        take_message(chat, text, bytes);
    if (person && !chat->quit)
        putchar('\n'); /* after Ctrl-D the shell's prompt starts a line of its own */
}

int cli_chat(const cli_options *options) {
    conversation chat = {.options = options, .began = (int64_t)time(NULL), .seed = cli_seed(options)};
    int status = cli_open_chat_model(options, &chat.model);
    if (status != CLI_DONE)
        return status;
    cli_setting setting = cli_setting_of(options);
    const char *system = cli_last(&options->system);
    if (system && !push_message(&chat, "system", system))
        status = chat.failed;
    if (status == CLI_DONE)
        status = check_template(&chat);
    if (status == CLI_DONE)
        status = cli_open_session(options, &setting, chat.model, &chat.session);
    if (status == CLI_DONE && !(chat.lines = cli_lines_open()))
        status = cli_no_memory(options->command);
    if (status == CLI_DONE) {
        converse(&chat);
        /* A script learns that an answer failed; a person has seen it. */
        status = cli_lines_interactive(chat.lines) ? CLI_DONE : chat.failed;
    }
    cli_lines_close(chat.lines);
    while (chat.n_messages)
        pop_message(&chat);
    free(chat.messages);
    cli_close_session(&chat.session);
    ht_model_close(chat.model);
    return status;
}
