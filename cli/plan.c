/* hetero plan: which device computes what, how long that is predicted to take, and the memory it needs. */
#include "cli.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- as JSON ------------------------------------------------------------------------------------------------------------ */

static json_t *slice_json(const ht_plan_row *row) {
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:I}", "device", row->device, "row_begin",
                     (json_int_t)row->row_begin, "row_end", (json_int_t)row->row_end, "reduction_begin",
                     (json_int_t)row->reduction_begin, "reduction_end", (json_int_t)row->reduction_end, "head_begin",
                     (json_int_t)row->head_begin, "head_end", (json_int_t)row->head_end, "token_begin",
                     (json_int_t)row->token_begin, "token_end", (json_int_t)row->token_end, "predicted_us",
                     row->seconds > 0 ? json_real(row->seconds * 1e6) : json_null(), "bytes", (json_int_t)row->bytes);
}

static int compare(const void *a, const void *b) {
    const ht_plan_row *x = *(const ht_plan_row *const *)a, *y = *(const ht_plan_row *const *)b;
    return x->number != y->number ? (x->number > y->number) - (x->number < y->number) : (x > y) - (x < y);
}

/* The operator of this name, made at the end if there is none. */
static json_t *operator_of(json_t *operators, const ht_plan_row *row) {
    for (size_t i = json_array_size(operators); i-- > 0;) {
        json_t *one = json_array_get(operators, i);
        if (!strcmp(json_string_value(json_object_get(one, "name")), row->op))
            return one;
    }
    json_array_append_new(operators,
                          json_pack("{s:s, s:I, s:I, s:s, s:[]}", "name", row->op, "rows", (json_int_t)row->rows,
                                    "cols", (json_int_t)row->cols, "strategy", row->cut, "slices"));
    return json_array_get(operators, json_array_size(operators) - 1);
}

/* Devices come one behind the other in the rows; here each operator has its slices, in the model's order. */
static json_t *operators_json(const ht_plan_row *rows, size_t n) {
    json_t *operators = json_array();
    const ht_plan_row **order = malloc(n * sizeof *order);
    for (size_t i = 0; i < n && order; i++)
        order[i] = &rows[i];
    if (order)
        qsort(order, n, sizeof *order, compare);
    for (size_t i = 0; i < n && order; i++)
        json_array_append_new(json_object_get(operator_of(operators, order[i]), "slices"), slice_json(order[i]));
    free(order);
    return operators;
}

static json_t *plan_json(const ht_plan_row *rows, size_t n, int tokens, const ht_plan_times *times) {
    json_t *memory = json_object(), *alone = json_object();
    for (size_t i = 0; i < times->n_devices; i++)
        json_object_set_new(
            memory, times->devices[i].name,
            json_pack("{s:I, s:o, s:b}", "bytes", (json_int_t)times->devices[i].bytes, "graph_limit",
                      times->devices[i].limit ? json_integer((json_int_t)times->devices[i].limit) : json_null(),
                      "emulated", times->devices[i].emulated));
    for (size_t i = 0; i < times->n_alone; i++)
        json_object_set_new(alone, times->alone[i].device, json_real(times->alone[i].seconds * 1e3));
    return json_pack("{s:o, s:o, s:i, s:s, s:I, s:o, s:o}", "operators", operators_json(rows, n), "memory", memory,
                     "tokens", tokens, "strategy", times->strategy, "joins_per_layer", (json_int_t)times->joins,
                     "predicted_ms", times->seconds > 0 ? json_real(times->seconds * 1e3) : json_null(),
                     "single_device_ms", alone);
}

/* ---- files -------------------------------------------------------------------------------------------------------------- */

static int write_text(const cli_options *options, const char *path, const char *text) {
    FILE *file = fopen(path, "w");
    bool good = file && fputs(text, file) >= 0;
    if (file)
        good = fclose(file) == 0 && good;
    if (good)
        return CLI_DONE;
    cli_wrong(options->command, "%s: %s", path, strerror(errno));
    return CLI_FAILED;
}

static int save(const cli_options *options, const char *path, const json_t *plan) {
    char *text = json_dumps(plan, JSON_INDENT(1));
    int status = text ? write_text(options, path, text) : CLI_FAILED;
    free(text);
    return status;
}

static int show(const cli_options *options, json_t *plan) { /* takes the reference */
    if (options->json)
        return cli_print_json(plan);
    cli_plan_print(plan);
    json_decref(plan);
    return CLI_DONE;
}

static int load(const cli_options *options, const char *path) {
    json_error_t where;
    if (options->arguments[0] || options->save.n || options->trace.n)
        return cli_wrong(options->command,
                         "--load prints a plan that was saved: MODEL, --save and --trace do not go with it");
    json_t *plan = json_load_file(path, 0, &where);
    if (!plan && json_error_code(&where) == json_error_cannot_open_file)
        return cli_wrong(options->command, "%s: %s", path, strerror(errno));
    if (!plan)
        return cli_wrong(options->command, "%s: line %d: %s", path, where.line, where.text);
    int status = cli_plan_check(options, path, plan);
    if (status == CLI_DONE)
        return show(options, plan);
    json_decref(plan);
    return status;
}

/* ---- the command -------------------------------------------------------------------------------------------------------- */

static int write_trace(const cli_options *options, ht_engine *engine, int tokens) {
    ht_error error;
    char *text;
    if (ht_engine_trace(engine, tokens, options->run, &text, &error))
        return cli_fail(options, &error);
    int status = write_text(options, cli_last(&options->trace), text);
    ht_free(text);
    return status;
}

static int plan_on(const cli_options *options, ht_engine *engine, int tokens) {
    ht_error error;
    ht_plan_row *rows;
    ht_plan_times times;
    size_t n;
    const int chunk = ht_engine_get_info(engine)->chunk;
    cli_progress_clear();
    if (ht_engine_plan(engine, tokens, &rows, &n, &times, &error))
        return cli_fail(options, &error);
    json_t *plan = plan_json(rows, n, tokens < chunk ? tokens : chunk, &times);
    int status = CLI_DONE;
    ht_free(rows);
    if (options->trace.n)
        status = write_trace(options, engine, tokens);
    if (status == CLI_DONE && options->save.n)
        status = save(options, cli_last(&options->save), plan);
    if (status == CLI_DONE)
        return show(options, plan);
    json_decref(plan);
    return status;
}

int cli_plan(const cli_options *options) {
    ht_model *model;
    cli_session session;
    cli_setting setting = cli_setting_of(options);
    const int tokens = options->decode ? 1 : (int)options->length;
    if (options->run && !options->trace.n)
        return cli_wrong(options->command, "--run measures what --trace FILE is to show: give that, too");
    if (options->load.n)
        return load(options, cli_last(&options->load));
    if (!options->arguments[0])
        return cli_wrong(options->command, "MODEL is missing; see 'hetero plan --help'");
    cli_expect(&setting, tokens);
    int status = cli_open_model(options, &model);
    if (status != CLI_DONE)
        return status;
    status = cli_open_session(options, &setting, model, &session);
    if (status == CLI_DONE) {
        status = plan_on(options, session.engine, tokens);
        cli_close_session(&session);
    }
    ht_model_close(model);
    return status;
}
