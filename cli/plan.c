/* hetero plan: which device computes what, how long that is predicted to take, and the memory it needs. */
#include "cli.h"

#include "base/base.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- files -------------------------------------------------------------------------------------------------------------- */

static int write_text(const cli_options *options, const char *path, const char *text) {
    ht_error error;
    return ht_file_write(path, text, strlen(text), &error) ? cli_fail(options, &error) : CLI_DONE;
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
        return cli_wrong(options->command, "--load cannot be combined with MODEL, --save or --trace");
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
    cli_progress_clear();
    if (ht_engine_plan(engine, tokens, &rows, &n, &times, &error))
        return cli_fail(options, &error);
    char *json;
    const bool failed = ht_plan_json(rows, n, &times, &json, &error) != HT_OK;
    ht_free(rows);
    if (failed)
        return cli_fail(options, &error);
    json_t *plan = json_loads(json, 0, NULL), *dropped = json_array();
    const ht_engine_info *info = ht_engine_get_info(engine);
    for (size_t i = 0; i < info->n_dropped; i++)
        json_array_append_new(dropped, cli_json_text(info->dropped[i], strlen(info->dropped[i])));
    json_object_set_new(plan, "dropped", dropped);
    int status = CLI_DONE;
    ht_free(json);
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
        return cli_wrong(options->command, "--run requires --trace FILE");
    if (options->load.n)
        return load(options, cli_last(&options->load));
    if (!options->arguments[0])
        return cli_wrong(options->command, "MODEL is missing; see 'hetero plan --help'");
    const char *const outputs[] = {cli_last(&options->save), cli_last(&options->trace)};
    for (size_t i = 0; i < 2; i++) { /* before the model is measured */
        ht_error error;
        if (outputs[i] && ht_output_check(outputs[i], &error))
            return cli_fail(options, &error);
    }
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
