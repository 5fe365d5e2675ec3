/* hetero inspect: what a model file says of itself. */
#include "cli.h"

#include "base/base.h"

#include <stdio.h>
#include <string.h>

static json_t *template_json(const ht_chat_template_info *chat) {
    json_t *made =
        json_pack("{s:s, s:I, s:o, s:b, s:b, s:b, s:b}", "name", chat->name, "bytes", (json_int_t)chat->bytes, "error",
                  chat->why ? cli_json_text(chat->why, strlen(chat->why)) : json_null(), "system", chat->system,
                  "tools", chat->tools, "tool_calls", chat->tool_calls, "parts", chat->parts);
    if (made) {
        json_object_set_new(made, "thinking", chat->thinking ? json_string(chat->thinking) : json_null());
        json_object_set_new(made, "reasoning", chat->reasoning ? json_string(chat->reasoning) : json_null());
    }
    return made;
}

static int print_json(const ht_model_info *info, const ht_chat_template_info chat[2]) {
    json_t *counts = json_object(), *types = json_array();
    for (size_t i = 0; i < info->n_types; i++) {
        const ht_type_count *type = &info->types[i];
        json_object_set_new(counts, type->type, json_integer((json_int_t)type->tensors));
        json_array_append_new(types, json_pack("{s:s, s:I, s:I, s:I}", "type", type->type, "tensors",
                                               (json_int_t)type->tensors, "parameters", (json_int_t)type->parameters,
                                               "bytes", (json_int_t)type->bytes));
    }
    json_t *object = json_pack("{s:o, s:o, s:I, s:s, s:I, s:o, s:o}", "arch",
                               cli_json_text(info->architecture, strlen(info->architecture)), "name",
                               cli_json_text(info->name, strlen(info->name)), "parameters",
                               (json_int_t)info->parameters, "quantisation", info->quantisation, "file_bytes",
                               (json_int_t)info->file_bytes, "tensors_by_type", counts, "types", types);
    const struct {
        const char *name;
        int value;
    } numbers[] = {
        {"layers", info->layers},
        {"context_length", info->context_length},
        {"embedding", info->embedding},
        {"heads", info->heads},
        {"kv_heads", info->kv_heads},
        {"head_dim", info->head_dim},
        {"feed_forward", info->feed_forward},
        {"vocabulary", info->vocabulary},
        {"sliding_window", info->sliding_window},
        {"bos", info->bos},
        {"eos", info->eos},
    };
    for (size_t i = 0; object && i < sizeof numbers / sizeof *numbers; i++)
        json_object_set_new(object, numbers[i].name, json_integer(numbers[i].value));
    if (object) {
        if (info->vocabulary_alone)
            json_object_set_new(object, "vocabulary_alone", json_true());
        json_object_set_new(object, "adds_bos", json_boolean(info->adds_bos));
        json_object_set_new(object, "tokenizer", cli_json_text(info->tokenizer, strlen(info->tokenizer)));
        json_object_set_new(object, "chat_template", chat[0].name ? template_json(&chat[0]) : json_null());
        if (chat[1].name != chat[0].name)
            json_object_set_new(object, "chat_template_tool_use", template_json(&chat[1]));
    }
    return cli_print_json(object);
}

static void print_template(const char *label, const ht_chat_template_info *chat) {
    if (!chat->name) {
        printf("%-15s none (run --raw, or --chat-template FILE)\n", label);
        return;
    }
    printf("%-15s %s, %zu bytes", label, strcmp(chat->name, "chatml") ? chat->name : "none of its own: ChatML",
           chat->bytes);
    if (chat->why)
        printf("; it cannot be used: %s\n", chat->why);
    else
        printf("; system %s, tools %s, calls %s, lists of parts %s, thoughts %s%s%s\n", chat->system ? "yes" : "no",
               chat->tools ? "yes" : "no", chat->tool_calls ? "yes" : "no", chat->parts ? "yes" : "no",
               chat->reasoning ? chat->reasoning : "no", chat->thinking ? ", switch " : "",
               chat->thinking ? chat->thinking : "");
}

static void print_vocabulary(const ht_model_info *info, const ht_chat_template_info chat[2]) {
    if (!*info->tokenizer)
        printf("tokenizer       none: token ids only, of %d\n", info->vocabulary);
    else
        printf("tokenizer       %s, %d tokens, BOS %d%s, EOS %d\n", info->tokenizer, info->vocabulary, info->bos,
               info->adds_bos ? " (added)" : "", info->eos);
    print_template("chat template", &chat[0]);
    if (chat[1].name != chat[0].name)
        print_template("with tools", &chat[1]);
}

static void print_text(const ht_model_info *info, const ht_chat_template_info chat[2]) {
    char bytes[32];
    if (!strncmp(info->path, "shape:", 6))
        printf("shape           %s: no file; made-up weights of %s, for timing\n", info->path + 6,
               ht_size_text(info->file_bytes, bytes));
    else
        printf("file            %s, %s\n", info->path, ht_size_text(info->file_bytes, bytes));
    printf("name            %s\n", *info->name ? info->name : "(none)");
    if (info->vocabulary_alone) {
        printf("architecture    %s: %s\n", *info->architecture ? info->architecture : "(none)",
               info->n_types ? "not supported, but its vocabulary is" : "no weights, a vocabulary alone");
        print_vocabulary(info, chat);
        return;
    }
    printf("architecture    %s, %.1f million parameters, mostly %s\n", info->architecture,
           (double)info->parameters / 1e6, info->quantisation);
    printf("layers          %d of %d features, feed-forward %d\n", info->layers, info->embedding, info->feed_forward);
    printf("attention       %d heads of %d, %d for keys and values", info->heads, info->head_dim, info->kv_heads);
    if (info->sliding_window)
        printf(", sliding window %d", info->sliding_window);
    printf("\ncontext         %d tokens\n", info->context_length);
    print_vocabulary(info, chat);
    for (size_t i = 0; i < info->n_types; i++)
        printf("%-15s %-6s %6llu tensors %14llu parameters %11s\n", i ? "" : "tensors", info->types[i].type,
               (unsigned long long)info->types[i].tensors, (unsigned long long)info->types[i].parameters,
               ht_size_text(info->types[i].bytes, bytes));
}

/* A file that holds a vocabulary alone is shown, too. So is the vocabulary of one whose weights are not supported:
 * *model is not NULL then, but the status is the error's. */
static int open_any(const cli_options *options, ht_model **model) {
    ht_error error, other;
    char *path;
    int status = cli_model_path(options, &path);
    *model = NULL;
    if (status != CLI_DONE)
        return status;
    const bool good = !ht_model_open(path, model, &error);
    if (!good && (error.status != HT_ERROR_UNSUPPORTED || ht_model_open_vocabulary(path, model, &other)))
        *model = NULL;
    ht_free(path);
    if (good || (*model && !ht_model_get_info(*model)->n_types))
        return CLI_DONE;
    status = cli_fail(options, &error);
    return error.status == HT_ERROR_IO ? CLI_WRONG : status;
}

int cli_inspect(const cli_options *options) {
    ht_model *model;
    const int opened = open_any(options, &model);
    if (!model)
        return opened;
    int status = CLI_DONE;
    ht_error error;
    ht_chat_template_info chat[2] = {HT_INIT(ht_chat_template_info), HT_INIT(ht_chat_template_info)};
    if (ht_chat_template(model, false, &chat[0], &error) || ht_chat_template(model, true, &chat[1], &error))
        status = cli_fail(options, &error);
    else if (options->json)
        status = print_json(ht_model_get_info(model), chat);
    else
        print_text(ht_model_get_info(model), chat);
    ht_model_close(model);
    return status == CLI_DONE ? opened : status;
}
