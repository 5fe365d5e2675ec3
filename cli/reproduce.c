/* hetero reproduce: the paper's experiments on a simulated chip. */
#include "cli.h"

#include <stdio.h>

int cli_reproduce(const cli_options *options) {
    const char *soc = cli_last(&options->soc), *out = cli_last(&options->out);
    ht_error error;
    soc = soc ? soc : "snapdragon-8-gen-3";
    out = out ? out : "reproduction";
    const bool failed = ht_reproduce(soc, out, cli_progress, (void *)options, &error) != HT_OK;
    cli_progress_clear();
    if (failed)
        return cli_fail(options, &error);
    if (options->json)
        return cli_print_json(json_pack("{s:s, s:s}", "soc", soc, "out", out));
    printf("%s/report.html\n%s/tables.json\n", out, out);
    return CLI_DONE;
}
