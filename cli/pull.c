/* hetero pull: fetches a model of a hub. Every command that takes a MODEL goes through here, too. */
#include "cli.h"

#include "base/os.h"

#include <stdio.h>
#include <string.h>

static atomic_bool interrupted;

static void on_interrupt(void) {
    atomic_store(&interrupted, true);
}

static bool on_progress(const char *what, double done, double total, void *user) {
    return cli_progress(what, done, total, user) && !atomic_load(&interrupted);
}

typedef ht_status pull_function(const char *name, const ht_pull_options *options, ht_pull_result *result,
                                ht_error *error);

/* The first Ctrl-C ends the pull in order, the second the program. */
static int pull(const cli_options *options, pull_function *function, const char *name, bool cached,
                ht_pull_result *result) {
    ht_error error;
    const ht_pull_options wanted = {.cached = cached,
                                    .offline = options->offline,
                                    .retries = options->retries ? (int)options->retries : -1,
                                    .progress = on_progress,
                                    .progress_user = (void *)options};
    ht_os_program_on_interrupt(on_interrupt);
    const ht_status status = function(name, &wanted, result, &error);
    ht_os_program_on_interrupt(NULL);
    cli_progress_clear();
    return status ? cli_fail(options, &error) : CLI_DONE;
}

int cli_model_path(const cli_options *options, char **path) {
    const char *name = options->arguments[0] ? options->arguments[0] : "shape:llama-3.2-1b";
    ht_pull_result result;
    if (!ht_pull_is_name(name)) {
        *path = ht_copy_text(name, strlen(name));
        return *path ? CLI_DONE : cli_no_memory(options->command);
    }
    const int status = pull(options, ht_pull, name, true, &result);
    if (status != CLI_DONE)
        return status;
    *path = result.files[0].path;
    result.files[0].path = NULL;
    ht_pull_result_clear(&result);
    return CLI_DONE;
}

static json_t *texts_or_null(const char *text) {
    return text && *text ? cli_json_text(text, strlen(text)) : json_null();
}

static int print_json(const ht_pull_result *result, bool list) {
    json_t *files = json_array();
    for (size_t i = 0; i < result->n; i++) {
        const ht_pull_file *file = &result->files[i];
        json_array_append_new(files, json_pack("{s:o, s:o, s:I, s:o}", "name", texts_or_null(file->name), "path",
                                               texts_or_null(file->path), "bytes", (json_int_t)file->bytes, "sha256",
                                               texts_or_null(file->sha256)));
    }
    if (list)
        return cli_print_json(json_pack("{s:s, s:o}", "commit", result->commit, "files", files));
    return cli_print_json(json_pack("{s:o, s:I, s:o, s:I, s:s, s:o}", "path", texts_or_null(result->files[0].path),
                                    "bytes", (json_int_t)result->bytes, "sha256",
                                    texts_or_null(result->files[0].sha256), "fetched_bytes",
                                    (json_int_t)result->fetched_bytes, "commit", result->commit, "files", files));
}

static void print_list(const ht_pull_result *result) {
    char size[32];
    for (size_t i = 0; i < result->n; i++) {
        char name[1100];
        snprintf(name, sizeof name, "%s", result->files[i].name);
        ht_make_printable(name);
        printf("%11s  %s%s\n", ht_size_text(result->files[i].bytes, size), name,
               result->files[i].path ? "  (in the cache)" : "");
    }
    if (!result->n)
        fputs("no GGUF files\n", stderr);
}

int cli_pull(const cli_options *options) {
    ht_pull_result result;
    const char *name = options->arguments[0];
    if (!ht_pull_is_name(name))
        return cli_wrong(options->command, "'%s' is no hf:OWNER/REPO[:TYPE]", name);
    int status = pull(options, options->list ? ht_pull_list : ht_pull, name, false, &result);
    if (status != CLI_DONE)
        return status;
    if (options->json)
        status = print_json(&result, options->list);
    else if (options->list)
        print_list(&result);
    for (size_t i = 0; i < result.n && !options->json && !options->list; i++)
        printf("%s\n", result.files[i].path);
    ht_pull_result_clear(&result);
    return status;
}
