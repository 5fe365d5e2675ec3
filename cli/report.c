/* hetero report: one file for a bug report. */
#include "cli.h"

#include "base/os.h"

#include <stdio.h>

int cli_report(const cli_options *options) {
    const char *out = cli_last(&options->out);
    const ht_engine_options wanted =
        HT_INIT(ht_engine_options, .devices = cli_last(&options->devices), .threads = (int)options->threads,
                .progress = cli_progress, .progress_user = (void *)options);
    static const char *const names[] = {"openvino", "onnxruntime"};
    const char *const values[] = {cli_last(&options->openvino), cli_last(&options->onnxruntime)};
    const char *program[5] = {NULL, "report-part"};
    ht_text paths[2] = {{0}};
    ht_error error;
    char *json, *model = NULL, path[1024], self[HT_PATH_BYTES];
    if (out && ht_output_check(out, &error)) /* before minutes of work */
        return cli_fail(options, &error);
    const int found = options->arguments[0] ? cli_model_path(options, &model) : CLI_DONE;
    if (found != CLI_DONE)
        return found;
    for (size_t i = 0, n = 2; i < 2; i++)
        if (values[i] && !ht_text_printf(&paths[i], NULL, "%s=%s", names[i], values[i]))
            program[n++] = paths[i].data;
    if (ht_os_program_path(self, sizeof self))
        program[0] = self;
    const bool failed = ht_report(model, &wanted, program[0] ? program : NULL, &json, &error) != HT_OK;
    for (size_t i = 0; i < 2; i++)
        ht_text_free(&paths[i]);
    ht_free(model);
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
