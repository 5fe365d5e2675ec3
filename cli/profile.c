/* hetero profile: measures the devices, keeps what they do, and draws it. */
#include "cli.h"

#include "base/base.h"

#include <stdio.h>
#include <string.h>

static int print_json(const cli_options *options, const ht_profile_result *result) {
    char *text;
    ht_error error;
    if (ht_profile_json(result, &text, &error))
        return cli_fail(options, &error);
    json_t *all = json_loads(text, 0, NULL), *stale = json_array();
    ht_free(text);
    for (size_t i = 0; i < result->n_devices; i++)
        if (*result->devices[i].stale)
            json_array_append_new(stale, json_string(result->devices[i].stale));
    json_object_set_new(all, "path", *result->path ? json_string(result->path) : json_null());
    json_object_set_new(all, "stale", stale);
    return cli_print_json(all);
}

static void print_kernels(const ht_profile_result *result) {
    if (!result->n)
        return;
    printf("%-10s  %-22s  %7s %7s %6s  %11s  %8s  %s\n", "DEVICE", "OPERATOR", "ROWS", "COLS", "TOKENS", "TIME us",
           "SPEED-UP", "KERNEL");
    for (size_t i = 0; i < result->n; i++) {
        const ht_profile_row *row = &result->rows[i];
        printf("%-10s  %-22s  %7zu %7zu %6zu  %11.1f  %7.2fx  %s\n", row->device, row->op, row->rows, row->cols,
               row->tokens, row->seconds * 1e6, row->by_rule / row->seconds, row->kernel);
    }
    putchar('\n');
}

/* The last column: what the table's points have besides a time. */
static void print_more(const ht_profile_point *point) {
    if (point->table == HT_PROFILE_JOINS)
        printf("p99 %.1f us\n", point->p99 * 1e6);
    else if (point->table == HT_PROFILE_GRAPHS)
        printf("%.2f MiB\n", point->bytes / 1048576);
    else if (point->table == HT_PROFILE_BANDWIDTH)
        printf("%.2f GB/s\n", point->bytes / point->seconds * 1e-9);
    else
        printf("%.1f GFLOP/s\n", 2e-9 * (double)(point->rows * point->cols * point->tokens) / point->seconds);
}

static void print_tables(const ht_profile_result *result) {
    static const char *const titles[HT_PROFILE_TABLES] = {"by tokens", "order", "shape", "join", "bandwidth", "graph"};
    int width = 6; /* of the devices' column */
    for (size_t i = 0; i < result->n_devices; i++)
        if ((int)strlen(result->devices[i].spec) > width)
            width = (int)strlen(result->devices[i].spec);
    print_kernels(result);
    printf("%-9s  %-*s  %-22s  %6s %6s %6s  %11s\n", "TABLE", width, "DEVICE", "WHAT", "ROWS", "COLS", "TOKENS",
           "TIME us");
    for (size_t i = 0; i < result->n_points; i++) {
        const ht_profile_point *point = &result->points[i];
        char what[300];
        snprintf(what, sizeof what, "%s%s", point->with >= 0 ? "with " : point->what,
                 point->with >= 0 ? result->devices[point->with].spec : "");
        printf("%-9s  %-*s  %-22s  %6zu %6zu %6zu  %11.1f  ", titles[point->table], width,
               result->devices[point->device].spec, what, point->rows, point->cols, point->tokens,
               point->seconds * 1e6);
        print_more(point);
    }
    if (*result->path)
        printf("saved in %s\n", result->path);
}

/* Measures, or takes what was measured before. */
static int get_result(const cli_options *options, ht_profile_result *result) {
    ht_error error;
    ht_model *model;
    if (options->stored) {
        if (ht_profile_load(cli_setting_of(options).devices, result, &error))
            return cli_fail(options, &error);
        for (size_t i = 0; i < result->n_devices && !options->quiet; i++)
            if (*result->devices[i].stale)
                fprintf(stderr, "hetero: stale: %s\n", result->devices[i].stale);
        return CLI_DONE;
    }
    int status = cli_open_model(options, &model);
    if (status != CLI_DONE)
        return status;
    const cli_setting setting = cli_setting_of(options);
    const ht_profile_options wanted = {.devices = setting.devices,
                                       .precision = cli_precision(&setting),
                                       .quick = options->quick,
                                       .progress = cli_progress,
                                       .progress_user = (void *)options};
    cli_hold_output();
    const bool failed = ht_profile(model, &wanted, result, &error) != HT_OK;
    cli_release_output();
    cli_progress_clear();
    if (failed) {
        status = cli_fail(options, &error);
        ht_profile_result_clear(result);
    }
    ht_model_close(model);
    return status;
}

int cli_profile(const cli_options *options) {
    const char *report = cli_last(&options->report);
    ht_error error;
    ht_profile_result result;
    if (report && ht_output_check(report, &error)) /* before minutes of work */
        return cli_fail(options, &error);
    int status = get_result(options, &result);
    if (status != CLI_DONE)
        return status;
    if (report && ht_profile_report(&result, report, &error))
        status = cli_fail(options, &error);
    else if (options->json)
        status = print_json(options, &result);
    else {
        print_tables(&result);
        if (report)
            printf("report in %s\n", report);
    }
    ht_profile_result_clear(&result);
    return status;
}
