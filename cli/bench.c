/* hetero bench: speed of prefill and decode, a row for each combination of what was asked for. */
#include "cli.h"

#include "base/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MANY = 64 }; /* most rows of one setting */

typedef struct bench_row {
    int prompt, gen;  /* one is 0 */
    int sequences;    /* decoded together */
    double predicted; /* tokens per second; 0: not predicted */
    size_t joins;     /* of one sequence */
    double *medians;  /* [2][rounds]: of each round, in turn; room to sort them */
    ht_bench_result result;
} bench_row;

typedef struct bench_case { /* one setting */
    cli_setting setting;
    cli_session session;
    bench_row rows[MANY];
} bench_case;

typedef struct bench_run {
    const cli_options *options;
    ht_model *model;
    bench_row wanted[MANY];
    size_t n_rows;
    json_t *rows; /* NULL: print a table */
    bool heading; /* printed already */
    char machine[768];
} bench_run;

/* ---- rows --------------------------------------------------------------------------------------------------------------- */

static void add_json(bench_run *bench, const bench_case *one, const bench_row *row, const char *devices, int threads) {
    const cli_setting *setting = &one->setting;
    const ht_bench_result *result = &row->result;
    json_t *rounds = json_array(); /* in the order they were run, for paired tests of rows */
    for (long i = 0; i < bench->options->rounds; i++)
        json_array_append_new(rounds, cli_json_real(row->medians[i]));
    json_array_append_new(
        bench->rows,
        json_pack("{s:i, s:i, s:s, s:s?, s:i, s:s, s:s?, s:o, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:I, s:b}",
                  row->gen ? "gen" : "prompt", row->gen ? row->gen : row->prompt, "sequences", row->sequences,
                  "devices", devices, "spec", setting->devices, "threads", threads, "strategy",
                  setting->strategy ? setting->strategy : "auto", "cuts", setting->cuts, "joins",
                  row->sequences > 1 ? json_null() : json_integer((json_int_t)row->joins), "precision",
                  cli_precision(setting) == HT_PRECISION_EXACT ? "exact" : "fast", "sync",
                  setting->sync ? setting->sync : "auto", "tps_median", cli_json_real(result->tps_median), "tps_min",
                  cli_json_real(result->tps_min), "tps_max", cli_json_real(result->tps_max), "tps_rounds", rounds,
                  "predicted_tps", row->predicted > 0 ? json_real(row->predicted) : json_null(), "peak_rss_bytes",
                  (json_int_t)result->peak_rss_bytes, "emulated",
                  (int)ht_engine_get_info(one->session.engine)->emulated));
}

/* Once, with the first row: where nothing can be measured there is nothing but the error. */
static void print_heading(bench_run *bench) {
    if (bench->heading)
        return;
    bench->heading = true;
    printf("%s; hetero %s, commit %s\n", bench->machine, ht_version(), ht_commit());
    printf("%-6s %6s  %-16s %7s %-8s %-12s %5s %-9s %-8s %10s %10s %10s %10s %10s\n", "phase", "tokens", "devices",
           "threads", "strategy", "cuts", "joins", "precision", "sync", "tokens/s", "min", "max", "predicted",
           "peak RSS");
}

static void print_row(bench_run *bench, const bench_case *one, const bench_row *row) {
    const cli_setting *setting = &one->setting;
    const ht_bench_result *result = &row->result;
    const ht_engine_info *info = ht_engine_get_info(one->session.engine);
    char devices[256] = "", shown[256], memory[32], predicted[32] = "-", joins[24], tokens[32];
    for (size_t i = 0, used = 0; i < info->n_devices && used < sizeof devices; i++)
        used += (size_t)snprintf(devices + used, sizeof devices - used, "%s%s", i ? "," : "", info->devices[i]);
    snprintf(shown, sizeof shown, "%s", devices);
    if (bench->options->devices.n > 1) /* rows are told apart by what was typed, options included */
        snprintf(shown, sizeof shown, "%s", setting->devices);
    if (bench->rows) {
        add_json(bench, one, row, devices, info->threads);
        return;
    }
    cli_progress_clear();
    print_heading(bench);
    if (row->predicted > 0)
        snprintf(predicted, sizeof predicted, "%.1f", row->predicted);
    snprintf(joins, sizeof joins, row->sequences > 1 ? "-" : "%zu", row->joins);
    snprintf(tokens, sizeof tokens, row->sequences > 1 ? "%dx%d" : "%d", row->gen ? row->gen : row->prompt,
             row->sequences);
    printf("%-6s %6s  %-16s %7d %-8s %-12s %5s %-9s %-8s %10.1f %10.1f %10.1f %10s %10s%s\n",
           row->gen ? "gen" : "prompt", tokens, shown, info->threads, setting->strategy ? setting->strategy : "auto",
           setting->cuts ? setting->cuts : "-", joins, cli_precision(setting) == HT_PRECISION_EXACT ? "exact" : "fast",
           setting->sync ? setting->sync : "auto", result->tps_median, result->tps_min, result->tps_max, predicted,
           ht_size_text(result->peak_rss_bytes, memory),
           info->emulated ? "  emulated: timings are not meaningful" : "");
    fflush(stdout);
}

/* ---- measuring ---------------------------------------------------------------------------------------------------------- */

/* What the planner says before anything is run. */
static int predict_row(const bench_run *bench, const bench_case *one, bench_row *row) {
    ht_plan_row *rows;
    ht_plan_times times;
    ht_error error;
    size_t n;
    const int tokens = row->gen ? 1 : row->prompt;
    if (row->sequences > 1) /* plans are of one */
        return CLI_DONE;
    if (ht_engine_plan(one->session.engine, tokens, &rows, &n, &times, &error))
        return cli_fail(bench->options, &error);
    ht_free(rows);
    row->predicted = times.prompt_seconds > 0 ? tokens / times.prompt_seconds : 0;
    row->joins = times.joins;
    return CLI_DONE;
}

static int measure_row(const bench_run *bench, bench_case *one, bench_row *row, size_t round) {
    const ht_bench_options wanted = {.prompt = row->prompt,
                                     .gen = row->gen,
                                     .repetitions = (int)bench->options->repetitions,
                                     .sequences = row->sequences};
    ht_bench_result result;
    ht_error error;
    if (ht_bench(one->session.session, &wanted, &result, &error))
        return cli_fail(bench->options, &error);
    row->medians[round] = result.tps_median;
    if (round && row->result.tps_min < result.tps_min)
        result.tps_min = row->result.tps_min;
    if (round && row->result.tps_max > result.tps_max)
        result.tps_max = row->result.tps_max;
    row->result = result;
    return CLI_DONE;
}

static int compare(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void close_case(const bench_run *bench, bench_case *one) {
    for (size_t i = 0; i < bench->n_rows; i++)
        free(one->rows[i].medians);
    cli_close_session(&one->session);
}

static int open_case(const bench_run *bench, bench_case *one) {
    int status = cli_open_session(bench->options, &one->setting, bench->model, &one->session);
    memcpy(one->rows, bench->wanted, sizeof one->rows);
    for (size_t i = 0; i < bench->n_rows && status == CLI_DONE; i++) {
        one->rows[i].medians = calloc(2 * (size_t)bench->options->rounds, sizeof *one->rows[i].medians);
        status = one->rows[i].medians ? predict_row(bench, one, &one->rows[i]) : cli_no_memory(bench->options->command);
    }
    return status;
}

/* Median of the rounds' medians. */
static void finish_row(bench_run *bench, const bench_case *one, bench_row *row) {
    const size_t n = (size_t)bench->options->rounds;
    double *sorted = row->medians + n;
    memcpy(sorted, row->medians, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, compare);
    row->result.tps_median = 0.5 * (sorted[(n - 1) / 2] + sorted[n / 2]);
    print_row(bench, one, row);
}

/* One setting after the other, each row as soon as it is known. */
static int measure_apart(bench_run *bench, bench_case *cases, size_t n) {
    int status = CLI_DONE;
    for (size_t i = 0; i < n && status == CLI_DONE; i++) {
        if (bench->rows)
            cli_progress("bench", (double)i, (double)n, (void *)bench->options);
        status = open_case(bench, &cases[i]);
        for (size_t k = 0; k < bench->n_rows && status == CLI_DONE; k++) {
            status = measure_row(bench, &cases[i], &cases[i].rows[k], 0);
            if (status == CLI_DONE)
                finish_row(bench, &cases[i], &cases[i].rows[k]);
        }
        close_case(bench, &cases[i]);
    }
    return status;
}

/* All settings at once: what is to be compared is measured one right after the other, so that what the machine does besides
 * meets them all. */
static int measure_in_turn(bench_run *bench, bench_case *cases, size_t n) {
    const size_t rounds = (size_t)bench->options->rounds;
    int status = CLI_DONE;
    for (size_t i = 0; i < n && status == CLI_DONE; i++)
        status = open_case(bench, &cases[i]);
    for (size_t round = 0; round < rounds && status == CLI_DONE; round++) {
        cli_progress("bench", (double)round, (double)rounds, (void *)bench->options);
        for (size_t k = 0; k < bench->n_rows && status == CLI_DONE; k++)
            for (size_t i = 0; i < n && status == CLI_DONE; i++)
                status = measure_row(bench, &cases[i], &cases[i].rows[k], round);
    }
    cli_progress_clear();
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < bench->n_rows && status == CLI_DONE; k++)
            finish_row(bench, &cases[i], &cases[i].rows[k]);
        close_case(bench, &cases[i]);
    }
    return status;
}

/* ---- settings ----------------------------------------------------------------------------------------------------------- */

static const char *word(const cli_words *words, size_t i) {
    return words->n ? words->at[i] : NULL;
}

static size_t at_least_one(size_t n) {
    return n ? n : 1;
}

/* Every combination, as digits of one counter: the last option varies fastest. */
static int measure_all(bench_run *bench, const cli_setting *common) {
    enum { DIGITS = 6 };
    const cli_options *options = bench->options;
    const size_t counts[DIGITS] = {at_least_one(options->devices.n),   at_least_one(options->bench_threads.n),
                                   at_least_one(options->strategy.n),  at_least_one(options->cuts.n),
                                   at_least_one(options->precision.n), at_least_one(options->sync.n)};
    size_t total = 1;
    for (int d = 0; d < DIGITS; d++)
        total *= counts[d];
    bench_case *cases = calloc(total, sizeof *cases);
    if (!cases)
        return cli_no_memory(options->command);
    for (size_t i = 0; i < total; i++) {
        size_t digits[DIGITS], rest = i;
        cli_setting *setting = &cases[i].setting;
        for (int d = DIGITS - 1; d >= 0; d--) {
            digits[d] = rest % counts[d];
            rest /= counts[d];
        }
        *setting = *common;
        setting->devices = word(&options->devices, digits[0]);
        setting->threads = options->bench_threads.n ? (int)options->bench_threads.at[digits[1]] : 0;
        setting->strategy = word(&options->strategy, digits[2]);
        setting->cuts = word(&options->cuts, digits[3]);
        setting->precision = word(&options->precision, digits[4]);
        setting->sync = word(&options->sync, digits[5]);
    }
    int status = options->rounds > 1 ? measure_in_turn(bench, cases, total) : measure_apart(bench, cases, total);
    cli_progress_clear();
    free(cases);
    return status;
}

/* The rows of every setting: prompts, and what is decoded by each number of sequences. A length of 0 leaves its phase
 * out. */
static int want_rows(bench_run *bench, const cli_numbers *prompts, const cli_numbers *gens) {
    const cli_numbers *together = &bench->options->bench_sequences;
    const size_t each = at_least_one(together->n);
    for (size_t i = 0; i < prompts->n + gens->n * each; i++) {
        const bool gen = i >= prompts->n;
        const size_t k = gen ? i - prompts->n : 0;
        const int tokens = (int)(gen ? gens->at[k / each] : prompts->at[i]);
        if (!tokens)
            continue;
        if (bench->n_rows == MANY)
            return cli_wrong(bench->options->command, "--prompt and --gen: at most %d rows (got more)", MANY);
        bench->wanted[bench->n_rows++] = (bench_row){.prompt = gen ? 0 : tokens,
                                                     .gen = gen ? tokens : 0,
                                                     .sequences = gen && together->n ? (int)together->at[k % each] : 1};
    }
    if (!bench->n_rows)
        return cli_wrong(bench->options->command, "--prompt 0 and --gen 0 leave nothing to measure");
    return CLI_DONE;
}

/* Leaves out what nobody asked for where it is longer than `most`; if nothing is left, one as long as that. */
static void fit_default(cli_numbers *lengths, int64_t most) {
    if (lengths->at[0] > most)
        lengths->at[0] = most, lengths->n = 1;
    while (lengths->n > 1 && lengths->at[lengths->n - 1] > most)
        lengths->n--;
}

int cli_bench(const cli_options *options) {
    int64_t default_prompts[] = {64, 256, 1024}, default_gens[] = {64};
    cli_numbers prompts = options->bench_prompt.n ? options->bench_prompt : (cli_numbers){default_prompts, 3};
    cli_numbers gens = options->bench_gen.n ? options->bench_gen : (cli_numbers){default_gens, 1};
    bench_run bench = {.options = options};
    cli_setting common = {.context = (int)options->context};
    int status = want_rows(&bench, &prompts, &gens); /* wrong options are told without a model, too */
    if (status == CLI_DONE)
        status = cli_open_model(options, &bench.model);
    if (status != CLI_DONE)
        return status;
    const int64_t most = options->context ? options->context : ht_model_get_info(bench.model)->context_length;
    if (!options->bench_prompt.n)
        fit_default(&prompts, most);
    if (!options->bench_gen.n)
        fit_default(&gens, most - 1); /* behind a token to start from */
    bench.n_rows = 0;
    status = want_rows(&bench, &prompts, &gens);
    if (status != CLI_DONE) {
        ht_model_close(bench.model);
        return status;
    }
    for (size_t i = 0; !options->context && i < prompts.n + gens.n; i++) { /* no more than the rows need */
        int64_t needed = i < prompts.n ? prompts.at[i] : gens.at[i - prompts.n] + 1;
        if (needed > common.context)
            common.context = needed < INT32_MAX ? (int)needed : INT32_MAX;
    }
    ht_host_describe(bench.machine, sizeof bench.machine);
    bench.rows = options->json ? json_array() : NULL;
    cli_expect(&common, 1); /* what decoding starts from */
    for (size_t i = 0; i < prompts.n; i++)
        cli_expect(&common, prompts.at[i]);
    status = measure_all(&bench, &common);
    ht_model_close(bench.model);
    if (!options->json || status != CLI_DONE) {
        json_decref(bench.rows);
        return status;
    }
    return cli_print_json(json_pack("{s:o, s:o, s:s, s:s}", "rows", bench.rows, "machine",
                                    cli_json_text(bench.machine, strlen(bench.machine)), "commit", ht_commit(),
                                    "version", ht_version()));
}
