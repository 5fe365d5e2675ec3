/* hetero report: one file for a bug report. */
#include "cli.h"

#include <stdio.h>

int cli_report(const cli_options *options) {
    const char *out = cli_last(&options->out);
    const ht_engine_options wanted =
        HT_INIT(ht_engine_options, .devices = cli_last(&options->devices), .threads = (int)options->threads,
                .progress = cli_progress, .progress_user = (void *)options);
    ht_error error;
    char *json, path[1024];
    const bool failed = ht_report(options->arguments[0], &wanted, &json, &error) != HT_OK;
    cli_progress_clear();
    if (failed) {
        int status = cli_fail(options, &error);
        return error.status == HT_ERROR_IO ? CLI_WRONG : status; /* a model that is not there is wrong input */
    }
    int status = CLI_DONE;
    if ((out || !options->json) && ht_report_save(json, out, path, sizeof path, &error))
        status = cli_fail(options, &error);
    else if (!options->json)
        printf("%s\n", path);
    if (status == CLI_DONE && options->json)
        return cli_print_text(json);
    ht_free(json);
    return status;
}
