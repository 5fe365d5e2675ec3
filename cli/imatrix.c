/* hetero imatrix: which columns of a model's matrices matter over a text. */
#include "cli.h"

#include <stdio.h>
#include <stdlib.h>

int cli_imatrix(const cli_options *options) {
    ht_error error;
    cli_text text;
    ht_model *model;
    ht_imatrix_result result;
    int status = cli_read_text(options, true, &text);
    if (status != CLI_DONE)
        return status;
    status = cli_open_model(options, &model);
    if (status == CLI_DONE) {
        const ht_imatrix_options how = {.threads = (int)options->threads,
                                        .name = text.source,
                                        .progress = cli_progress,
                                        .progress_user = (void *)options};
        ht_status measured =
            ht_imatrix_collect(model, text.bytes, text.n, options->arguments[1], &how, &result, &error);
        cli_progress_clear();
        ht_model_close(model);
        if (measured)
            status = cli_fail(options, &error);
        else if (options->json)
            status = cli_print_json(
                json_pack("{s:I, s:I}", "entries", (json_int_t)result.entries, "tokens", (json_int_t)result.tokens));
        else
            printf("%zu entries from %llu tokens -> %s\n", result.entries, (unsigned long long)result.tokens,
                   options->arguments[1]);
    }
    free(text.bytes);
    return status;
}
