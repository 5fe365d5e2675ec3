/* hetero reproduce: the paper's experiments on a simulated chip; simulated chips against real ones. */
#include "cli.h"

#include <stdio.h>
#include <string.h>

/* ---- tables --------------------------------------------------------------------------------------------------------- */

static const char *cell_text(const json_t *cell, char buffer[32]) {
    if (json_is_string(cell))
        return json_string_value(cell);
    if (json_is_number(cell))
        snprintf(buffer, 32, "%.5g", json_number_value(cell));
    else
        snprintf(buffer, 32, "-");
    return buffer;
}

/* Numbers to the right; the last column, often a long text, has no width. */
static void print_column(const json_t *cell, int width, bool last) {
    char buffer[32];
    const char *text = cell_text(cell, buffer);
    if (last)
        printf("%s\n", text);
    else
        printf("%*s  ", json_is_string(cell) ? -width : width, text);
}

static void print_table(const json_t *table) {
    const json_t *columns = json_object_get(table, "columns"), *rows = json_object_get(table, "rows");
    const size_t n = json_array_size(columns);
    int widths[16] = {0};
    char buffer[32];
    for (size_t c = 0; c < n && c < 16; c++) {
        widths[c] = (int)strlen(cell_text(json_array_get(columns, c), buffer));
        for (size_t i = 0; i < json_array_size(rows); i++) {
            const int width = (int)strlen(cell_text(json_array_get(json_array_get(rows, i), c), buffer));
            widths[c] = width > widths[c] ? width : widths[c];
        }
    }
    printf("%s\n", json_string_value(json_object_get(table, "title")));
    for (size_t c = 0; c < n && c < 16; c++)
        print_column(json_array_get(columns, c), widths[c], c + 1 == n);
    for (size_t i = 0; i < json_array_size(rows); i++)
        for (size_t c = 0; c < n && c < 16; c++)
            print_column(json_array_get(json_array_get(rows, i), c), widths[c], c + 1 == n);
    putchar('\n');
}

/* ---- the command ------------------------------------------------------------------------------------------------------ */

static void print_written(const char *out) {
    printf("%s/report.html\n%s/tables.json\n", out, out);
}

/* What a terminal shows of --validate; JSON and report have all. */
static int validate(const cli_options *options, const char *soc, const char *out) {
    static const char *const shown[] = {"validate-rows", "validate-sizes", "validate-energy", "validate-parameters",
                                        "validate-summary"};
    ht_error error;
    char *text;
    if (ht_validate(soc, out, &text, &error))
        return cli_fail(options, &error);
    if (options->json)
        return cli_print_text(text);
    json_t *all = json_loads(text, 0, NULL);
    ht_free(text);
    const json_t *tables = json_object_get(json_object_get(json_object_get(all, "experiments"), "validate"), "tables");
    for (size_t i = 0; i < sizeof shown / sizeof *shown; i++)
        if (json_object_get(tables, shown[i]))
            print_table(json_object_get(tables, shown[i]));
    if (out)
        print_written(out);
    json_decref(all);
    return all ? CLI_DONE : cli_no_memory(options->command);
}

/* Several chips, or all: a terminal shows the tables of speeds and of planners. */
static int compare(const cli_options *options, const char *out) {
    static const char *const shown[] = {"chips-", "planners-"};
    ht_error error;
    char *text, *model = NULL;
    const int found = options->arguments[0] ? cli_model_path(options, &model) : CLI_DONE;
    if (found != CLI_DONE)
        return found;
    const bool failed = ht_compare_chips((const char *const *)options->soc.at, options->soc.n, model, out, cli_progress,
                                         (void *)options, &text, &error) != HT_OK;
    ht_free(model);
    cli_progress_clear();
    if (failed)
        return cli_fail(options, &error);
    if (options->json)
        return cli_print_text(text);
    json_t *all = json_loads(text, 0, NULL);
    ht_free(text);
    const char *section, *id;
    json_t *experiment, *table;
    json_object_foreach(json_object_get(all, "experiments"), section, experiment)
        json_object_foreach(json_object_get(experiment, "tables"), id,
                            table) for (size_t i = 0; i < sizeof shown / sizeof *shown;
                                        i++) if (!strncmp(id, shown[i], strlen(shown[i]))) print_table(table);
    print_written(out);
    json_decref(all);
    return all ? CLI_DONE : cli_no_memory(options->command);
}

int cli_reproduce(const cli_options *options) {
    const char *soc = cli_last(&options->soc), *out = cli_last(&options->out);
    ht_error error;
    if (options->validate && options->arguments[0])
        return cli_wrong(options->command, "--validate takes no MODEL");
    if (options->validate)
        return validate(options, soc, out);
    out = out ? out : "reproduction";
    if (options->soc.n != 1 || options->arguments[0])
        return compare(options, out);
    const bool failed = ht_reproduce(soc, out, cli_progress, (void *)options, &error) != HT_OK;
    cli_progress_clear();
    if (failed)
        return cli_fail(options, &error);
    if (options->json)
        return cli_print_json(json_pack("{s:s, s:s}", "soc", soc, "out", out));
    print_written(out);
    return CLI_DONE;
}
