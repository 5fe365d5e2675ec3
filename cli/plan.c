/* hetero plan: which device computes what, and the memory it takes. */
#include "cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Is this row the first of its device in the list? */
static bool is_first(const ht_plan_row *rows, size_t i) {
    for (size_t k = 0; k < i; k++)
        if (!strcmp(rows[k].device, rows[i].device))
            return false;
    return true;
}

static uint64_t bytes_of(const ht_plan_row *rows, size_t n, const char *device) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < n; i++)
        bytes += strcmp(rows[i].device, device) ? 0 : rows[i].bytes;
    return bytes;
}

static int print_json(const ht_plan_row *rows, size_t n, const ht_plan_times *times) {
    json_t *operators = json_array(), *memory = json_object();
    for (size_t i = 0; i < n; i++) {
        const ht_plan_row *row = &rows[i];
        json_t *slice = json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "device", row->device, "row_begin",
                                  (json_int_t)row->row_begin, "row_end", (json_int_t)row->row_end, "reduction_begin",
                                  (json_int_t)row->reduction_begin, "reduction_end", (json_int_t)row->reduction_end,
                                  "token_begin", (json_int_t)row->token_begin, "token_end", (json_int_t)row->token_end,
                                  "bytes", (json_int_t)row->bytes);
        json_array_append_new(operators, json_pack("{s:s, s:I, s:I, s:s, s:[o]}", "name", row->op, "rows",
                                                   (json_int_t)row->rows, "cols", (json_int_t)row->cols, "strategy",
                                                   times->n_alone ? "causal" : "single", "slices", slice));
        if (is_first(rows, i))
            json_object_set_new(memory, row->device,
                                json_pack("{s:I, s:o}", "bytes", (json_int_t)bytes_of(rows, n, row->device),
                                          "graph_limit",
                                          row->limit ? json_integer((json_int_t)row->limit) : json_null()));
    }
    json_t *alone = json_object();
    for (size_t i = 0; i < times->n_alone; i++)
        json_object_set_new(alone, times->alone[i].device, json_real(times->alone[i].seconds * 1e3));
    return cli_print_json(json_pack("{s:o, s:o, s:o, s:o}", "operators", operators, "memory", memory, "predicted_ms",
                                    times->n_alone ? json_real(times->seconds * 1e3) : json_null(), "single_device_ms",
                                    alone));
}

static void print_table(const ht_plan_row *rows, size_t n, const ht_plan_times *times) {
    char text[32], limit[32];
    printf("%-24s %8s %8s  %9s  %-14s %10s\n", "OPERATOR", "ROWS", "COLUMNS", "TOKENS", "DEVICE", "MEMORY");
    for (size_t i = 0; i < n; i++) {
        char tokens[48];
        snprintf(tokens, sizeof tokens, "%zu-%zu", rows[i].token_begin, rows[i].token_end - 1);
        if (rows[i].rows)
            printf("%-24s %8zu %8zu %9s  %-14s %10s\n", rows[i].op, rows[i].rows, rows[i].cols, tokens, rows[i].device,
                   cli_bytes(rows[i].bytes, text));
        else
            printf("%-24s %8s %8s %9s  %s\n", rows[i].op, "", "", tokens, rows[i].device);
    }
    for (size_t i = 0; i < n; i++) {
        if (!is_first(rows, i))
            continue;
        printf("%s: %s", rows[i].device, cli_bytes(bytes_of(rows, n, rows[i].device), text));
        if (rows[i].limit)
            printf(" of at most %s in graphs (--npu-memory)", cli_bytes(rows[i].limit, limit));
        putchar('\n');
    }
    if (times->n_alone)
        printf("predicted, without the head: %.2f ms", times->seconds * 1e3);
    for (size_t i = 0; i < times->n_alone; i++)
        printf("; %s alone %.2f ms", times->alone[i].device, times->alone[i].seconds * 1e3);
    if (times->n_alone)
        putchar('\n');
}

int cli_plan(const cli_options *options) {
    ht_error error;
    ht_model *model;
    cli_session session;
    cli_setting setting = cli_setting_of(options);
    const int tokens = options->decode ? 1 : (int)options->length;
    cli_expect(&setting, tokens);
    int status = cli_open_model(options, &model);
    if (status != CLI_DONE)
        return status;
    status = cli_open_session(options, &setting, model, &session);
    if (status == CLI_DONE) {
        ht_plan_row *rows;
        size_t n;
        ht_plan_times times;
        cli_progress_clear();
        if (ht_engine_plan(session.engine, tokens, &rows, &n, &times, &error)) {
            status = cli_fail(options, &error);
        } else {
            if (options->json)
                status = print_json(rows, n, &times);
            else
                print_table(rows, n, &times);
            ht_free(rows);
        }
        cli_close_session(&session);
    }
    ht_model_close(model);
    return status;
}
