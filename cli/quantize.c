/* hetero quantize: a model in another type. */
#include "cli.h"

#include "base/base.h"

#include <stdio.h>

int cli_quantize(const cli_options *options) {
    ht_error error;
    ht_model *model;
    ht_quantize_result result;
    char in[32], out[32], *path;
    /* Opening it first tells a wrong input (exit 2) from a failed output (exit 1). */
    int status = cli_open_model(options, &model);
    if (status != CLI_DONE)
        return status;
    ht_model_close(model);
    status = cli_model_path(options, &path);
    if (status != CLI_DONE)
        return status;
    const ht_quantize_options how = {.imatrix = cli_last(&options->imatrix),
                                     .threads = (int)options->threads,
                                     .progress = cli_progress,
                                     .progress_user = (void *)options};
    ht_status written = ht_quantize(path, options->arguments[1], options->arguments[2], &how, &result, &error);
    cli_progress_clear();
    ht_free(path);
    if (written)
        return cli_fail(options, &error);
    if (options->json)
        return cli_print_json(json_pack("{s:I, s:I}", "in_bytes", (json_int_t)result.in_bytes, "out_bytes",
                                        (json_int_t)result.out_bytes));
    printf("%s -> %s (%s)\n", ht_size_text(result.in_bytes, in), ht_size_text(result.out_bytes, out),
           options->arguments[2]);
    return CLI_DONE;
}
