/* hetero run: one prompt, one answer. */
#include "cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The prompt's tokens: *ids from the library. */
static int prompt_ids(const cli_options *options, const ht_model *model, const cli_text *text, int32_t **ids,
                      size_t *n) {
    ht_error error;
    if (options->raw)
        return cli_tokens_of(options, model, text, ids, n);
    const char *system = cli_last(&options->system);
    const ht_message messages[] = {{"system", system}, {"user", text->bytes}};
    const ht_conversation conversation =
        HT_INIT(ht_conversation, .messages = system ? messages : messages + 1, .n_messages = system ? 2 : 1,
                .kwargs = cli_last(&options->chat_template_kwargs));
    ht_rendering prompt = HT_INIT(ht_rendering);
    if (strlen(text->bytes) != text->n)
        return cli_wrong(options->command, "%s: zero byte at byte %zu: a chat message cannot contain it (use --raw)",
                         text->source, strlen(text->bytes));
    if (ht_chat_render(model, &conversation, cli_text_flags(options), &prompt, &error))
        return cli_fail_chat(options, model, &error);
    *ids = prompt.ids;
    *n = prompt.n;
    prompt.ids = NULL;
    ht_rendering_clear(&prompt);
    return CLI_DONE;
}

static int print_json(const ht_generate_result *result, const ht_engine_info *info, const int32_t *ids, size_t n,
                      uint64_t seed) {
    json_t *object = json_pack(
        "{s:o, s:o, s:o, s:s, s:o, s:o, s:o, s:o, s:o, s:I}", "prompt_ids", cli_json_ids(ids, n), "ids",
        cli_json_ids(result->ids, result->n), "text", cli_json_text(result->text, result->text_bytes), "stop",
        ht_stop_name(result->stop), "prefill_ms", cli_json_real(result->prefill_ms), "decode_ms",
        cli_json_real(result->decode_ms), "prefill_tps", cli_json_real(cli_prefill_tps(result)), "decode_tps",
        cli_json_real(cli_decode_tps(result)), "devices_used", cli_json_devices(info), "seed", (json_int_t)seed);
    if (object && result->top)
        json_object_set_new(object, "top", cli_json_top(result->top, result->n, result->n_top));
    return cli_print_json(object);
}

static int generate(const cli_options *options, ht_model *model, const int32_t *ids, size_t n) {
    ht_error error;
    cli_session session;
    cli_setting setting = cli_setting_of(options);
    cli_expect(&setting, (int64_t)n);
    int status = cli_open_session(options, &setting, model, &session);
    if (status != CLI_DONE)
        return status;
    ht_generate_result result = HT_INIT(ht_generate_result);
    uint64_t seed = cli_seed(options);
    if (cli_generate(options, session.session, ids, n, seed, !options->json, &result, &error)) {
        status = cli_fail(options, &error);
    } else {
        const ht_engine_info *info = ht_engine_get_info(session.engine);
        if (options->json)
            status = print_json(&result, info, ids, n, seed);
        cli_print_timings(options, &result, info);
        ht_generate_result_clear(&result);
    }
    cli_close_session(&session);
    return status;
}

int cli_run(const cli_options *options) {
    cli_text text;
    ht_model *model;
    if (options->raw && (options->system.n || options->chat_template.n || options->chat_template_kwargs.n))
        return cli_wrong(options->command, "--%s requires the chat template and cannot be combined with --raw",
                         options->system.n          ? "system"
                         : options->chat_template.n ? "chat-template"
                                                    : "chat-template-kwargs");
    if (options->logprobs && !options->json)
        return cli_wrong(options->command, "--logprobs requires --json");
    int status = cli_read_text(options, !options->raw, &text);
    if (status != CLI_DONE)
        return status;
    status = cli_open_chat_model(options, &model);
    if (status == CLI_DONE) {
        int32_t *ids = NULL;
        size_t n = 0;
        status = prompt_ids(options, model, &text, &ids, &n);
        if (status == CLI_DONE) {
            status = generate(options, model, ids, n);
            ht_free(ids);
        }
        ht_model_close(model);
    }
    free(text.bytes);
    return status;
}
