/* hetero pull: fetches a model of a hub. */
#include "cli.h"

#include "base/base.h"

#include <stdio.h>
#include <string.h>

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
    int status = cli_pull_files(options, options->list ? ht_pull_list : ht_pull, name, false, &result);
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
