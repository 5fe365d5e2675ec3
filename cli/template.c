/* hetero template: what a model sees of a conversation. */
#include "cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int print_json(const ht_rendering *made) {
    json_t *foreign = json_array();
    for (size_t i = 0; i < made->n_foreign; i++)
        json_array_append_new(
            foreign, json_pack("[I, I]", (json_int_t)made->foreign[i].begin, (json_int_t)made->foreign[i].end));
    return cli_print_json(json_pack("{s:o, s:o, s:o}", "text", cli_json_text(made->text, made->text_bytes), "ids",
                                    cli_json_ids(made->ids, made->n), "foreign", foreign));
}

static int show(const cli_options *options, const ht_model *model, const cli_text *messages, const cli_text *tools) {
    ht_error error;
    const ht_conversation conversation = HT_INIT(ht_conversation, .json = messages->bytes, .tools = tools->bytes,
                                                 .kwargs = cli_last(&options->chat_template_kwargs),
                                                 .no_generation_prompt = options->no_generation_prompt);
    ht_rendering made = HT_INIT(ht_rendering);
    int status = CLI_DONE;
    if (ht_chat_render(model, &conversation, cli_text_flags(options), &made, &error))
        return cli_fail_chat(options, model, &error);
    if (options->json)
        status = print_json(&made);
    else
        fwrite(made.text, 1, made.text_bytes, stdout);
    ht_rendering_clear(&made);
    return status;
}

/* A file's JSON has no zero byte: the text would end there. */
static int read_json(const cli_options *options, const char *path, cli_text *text) {
    const int status = cli_read_file(options, path, text);
    if (status == CLI_DONE && strlen(text->bytes) != text->n)
        return cli_wrong(options->command, "%s: zero byte at byte %zu", text->source, strlen(text->bytes));
    return status;
}

int cli_template(const cli_options *options) {
    cli_text messages = {0}, tools = {0};
    ht_model *model;
    const char *path = cli_last(&options->file), *tools_path = cli_last(&options->tools);
    if (!path)
        return cli_wrong(options->command, "no messages: give -f FILE.json ('-': standard input)");
    if (tools_path && strcmp(path, "-") == 0 && strcmp(tools_path, "-") == 0)
        return cli_wrong(options->command, "-f and --tools cannot both be standard input");
    int status = read_json(options, path, &messages);
    if (status == CLI_DONE && tools_path)
        status = read_json(options, tools_path, &tools);
    if (status == CLI_DONE)
        status = cli_open_chat_model(options, &model);
    if (status == CLI_DONE) {
        status = show(options, model, &messages, &tools);
        ht_model_close(model);
    }
    free(messages.bytes);
    free(tools.bytes);
    return status;
}
