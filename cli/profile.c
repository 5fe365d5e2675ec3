/* hetero profile: measures the devices and keeps what they do best. */
#include "cli.h"

#include <stdio.h>
#include <string.h>

static json_t *result_json(const ht_profile_result *result) {
    json_t *devices = json_array(), *matmul = json_array();
    const char *last = "";
    for (size_t i = 0; i < result->n; i++) {
        const ht_profile_row *row = &result->rows[i];
        if (strcmp(last, row->device) != 0)
            json_array_append_new(devices, json_string(row->device));
        last = row->device;
        json_array_append_new(matmul,
                              json_pack("{s:s, s:s, s:I, s:I, s:I, s:s, s:f, s:f, s:i}", "device", row->device, "op",
                                        row->op, "rows", (json_int_t)row->rows, "cols", (json_int_t)row->cols, "tokens",
                                        (json_int_t)row->tokens, "kernel", row->kernel, "us", row->seconds * 1e6,
                                        "us_by_rule", row->by_rule * 1e6, "tried", row->tried));
    }
    return json_pack("{s:o, s:o, s:{s:o}}", "path", result->n ? json_string(result->path) : json_null(), "devices",
                     devices, "tables", "matmul", matmul);
}

static void print_table(const ht_profile_result *result) {
    if (!result->n) {
        printf("nothing to measure: these devices do everything in one way\n");
        return;
    }
    printf("%-10s  %-22s  %7s %7s %6s  %11s  %8s  %s\n", "DEVICE", "OPERATOR", "ROWS", "COLS", "TOKENS", "TIME us",
           "BY RULE", "KERNEL");
    for (size_t i = 0; i < result->n; i++) {
        const ht_profile_row *row = &result->rows[i];
        printf("%-10s  %-22s  %7zu %7zu %6zu  %11.1f  %7.2fx  %s\n", row->device, row->op, row->rows, row->cols,
               row->tokens, row->seconds * 1e6, row->by_rule / row->seconds, row->kernel);
    }
    printf("kept in %s\n", result->path);
}

int cli_profile(const cli_options *options) {
    ht_error error;
    ht_model *model;
    int status = cli_open_model(options, &model);
    if (status != CLI_DONE)
        return status;
    const cli_setting setting = cli_setting_of(options);
    const ht_profile_options wanted = {.devices = setting.devices,
                                       .precision = cli_precision(&setting),
                                       .quick = options->quick,
                                       .progress = cli_progress,
                                       .progress_user = (void *)options};
    ht_profile_result result;
    const bool failed = ht_profile(model, &wanted, &result, &error) != HT_OK;
    cli_progress_clear();
    if (failed)
        status = cli_fail(options, &error);
    else if (options->json)
        status = cli_print_json(result_json(&result));
    else
        print_table(&result);
    ht_profile_result_clear(&result);
    ht_model_close(model);
    return status;
}
