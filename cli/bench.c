/* hetero bench: speed of prefill and decode, a row for each combination of what was asked for. */
#include "cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

typedef struct bench_case {
    const cli_options *options;
    ht_model *model;
    cli_setting setting;
    json_t *rows; /* NULL: print a table */
    bool heading; /* printed already */
} bench_case;

/* "Processor name, 2 cores, Linux 6.1.0 x86_64" */
static void describe_machine(char *text, size_t size) {
    char line[512], processor[256] = "unknown processor";
    FILE *file = fopen("/proc/cpuinfo", "r");
    while (file && fgets(line, sizeof line, file)) {
        char *value = strchr(line, ':');
        if (!strncmp(line, "model name", 10) && value) {
            snprintf(processor, sizeof processor, "%.*s", (int)strcspn(value + 2, "\n"), value + 2);
            break;
        }
    }
    if (file)
        fclose(file);
    struct utsname system = {0};
    uname(&system);
    snprintf(text, size, "%s, %ld cores, %s %s %s", processor, sysconf(_SC_NPROCESSORS_ONLN), system.sysname,
             system.release, system.machine);
}

static void print_row(bench_case *bench, const char *phase, int tokens, const char *devices, const ht_engine_info *info,
                      const ht_bench_result *result) {
    const cli_setting *setting = &bench->setting;
    const char *strategy = setting->strategy ? setting->strategy : "auto",
               *sync = setting->sync ? setting->sync : "auto";
    const char *precision = info->precision == HT_PRECISION_EXACT ? "exact" : "fast";
    if (bench->rows) {
        json_array_append_new(
            bench->rows, json_pack("{s:i, s:s, s:i, s:s, s:s, s:s, s:o, s:o, s:o, s:n, s:I}", phase, tokens, "devices",
                                   devices, "threads", info->threads, "strategy", strategy, "precision", precision,
                                   "sync", sync, "tps_median", cli_json_real(result->tps_median), "tps_min",
                                   cli_json_real(result->tps_min), "tps_max", cli_json_real(result->tps_max),
                                   "predicted_tps", "peak_rss_bytes", (json_int_t)result->peak_rss_bytes));
        return;
    }
    char memory[32];
    cli_progress_clear();
    if (!bench->heading)
        printf("%-6s %6s  %-16s %7s %-8s %-9s %-8s %10s %10s %10s %10s\n", "phase", "tokens", "devices", "threads",
               "strategy", "precision", "sync", "tokens/s", "min", "max", "peak RSS");
    bench->heading = true;
    printf("%-6s %6d  %-16s %7d %-8s %-9s %-8s %10.1f %10.1f %10.1f %10s\n", phase, tokens, devices, info->threads,
           strategy, precision, sync, result->tps_median, result->tps_min, result->tps_max,
           cli_bytes(result->peak_rss_bytes, memory));
    fflush(stdout);
}

static int measure_phase(bench_case *bench, const cli_session *session, const char *phase, const cli_numbers *lengths) {
    const ht_engine_info *info = ht_engine_get_info(session->engine);
    char devices[256] = "";
    for (size_t i = 0, used = 0; i < info->n_devices && used < sizeof devices; i++)
        used += (size_t)snprintf(devices + used, sizeof devices - used, "%s%s", i ? "," : "", info->devices[i]);
    for (size_t i = 0; i < lengths->n; i++) {
        int tokens = (int)lengths->at[i];
        ht_bench_options wanted = {.repetitions = (int)bench->options->repetitions};
        ht_bench_result result;
        ht_error error;
        *(!strcmp(phase, "gen") ? &wanted.gen : &wanted.prompt) = tokens;
        if (!tokens) /* leaves the phase out */
            continue;
        if (ht_bench(session->session, &wanted, &result, &error))
            return cli_fail(bench->options, &error);
        print_row(bench, phase, tokens, devices, info, &result);
    }
    return CLI_DONE;
}

static int measure_setting(bench_case *bench, const cli_numbers *prompts, const cli_numbers *gens) {
    cli_session session;
    int status = cli_open_session(bench->options, &bench->setting, bench->model, &session);
    if (status != CLI_DONE)
        return status;
    status = measure_phase(bench, &session, "prompt", prompts);
    if (status == CLI_DONE)
        status = measure_phase(bench, &session, "gen", gens);
    cli_close_session(&session);
    return status;
}

static const char *word(const cli_words *words, size_t i) {
    return words->n ? words->at[i] : NULL;
}

static size_t at_least_one(size_t n) {
    return n ? n : 1;
}

/* Every combination, as digits of one counter: the last option varies fastest. */
static int measure_all(bench_case *bench, const cli_numbers *prompts, const cli_numbers *gens) {
    const cli_options *options = bench->options;
    const size_t counts[] = {at_least_one(options->devices.n), at_least_one(options->bench_threads.n),
                             at_least_one(options->strategy.n), at_least_one(options->precision.n),
                             at_least_one(options->sync.n)};
    size_t total = counts[0] * counts[1] * counts[2] * counts[3] * counts[4];
    int status = CLI_DONE;
    for (size_t i = 0; i < total && status == CLI_DONE; i++) {
        size_t digits[5], rest = i;
        for (int d = 4; d >= 0; d--) {
            digits[d] = rest % counts[d];
            rest /= counts[d];
        }
        bench->setting.devices = word(&options->devices, digits[0]);
        bench->setting.threads = options->bench_threads.n ? (int)options->bench_threads.at[digits[1]] : 0;
        bench->setting.strategy = word(&options->strategy, digits[2]);
        bench->setting.precision = word(&options->precision, digits[3]);
        bench->setting.sync = word(&options->sync, digits[4]);
        if (bench->rows)
            cli_progress("bench", (double)i, (double)total, (void *)options);
        status = measure_setting(bench, prompts, gens);
    }
    cli_progress_clear();
    return status;
}

int cli_bench(const cli_options *options) {
    static int64_t default_prompts[] = {64, 256, 1024}, default_gens[] = {64};
    cli_numbers prompts = options->bench_prompt.n ? options->bench_prompt : (cli_numbers){default_prompts, 3};
    cli_numbers gens = options->bench_gen.n ? options->bench_gen : (cli_numbers){default_gens, 1};
    bench_case bench = {.options = options};
    char machine[768];
    int status = cli_open_model(options, &bench.model);
    if (status != CLI_DONE)
        return status;
    bench.setting.context = (int)options->context;
    for (size_t i = 0; !options->context && i < prompts.n + gens.n; i++) { /* no more than the rows need */
        int64_t needed = i < prompts.n ? prompts.at[i] : gens.at[i - prompts.n] + 1;
        if (needed > bench.setting.context)
            bench.setting.context = needed < INT32_MAX ? (int)needed : INT32_MAX;
    }
    describe_machine(machine, sizeof machine);
    bench.rows = options->json ? json_array() : NULL;
    if (!options->json)
        printf("%s; hetero %s, commit %s\n", machine, ht_version(), HETERO_COMMIT);
    cli_expect(&bench.setting, 1); /* what decoding starts from */
    for (size_t i = 0; i < prompts.n; i++)
        cli_expect(&bench.setting, prompts.at[i]);
    status = measure_all(&bench, &prompts, &gens);
    ht_model_close(bench.model);
    if (!options->json || status != CLI_DONE) {
        json_decref(bench.rows);
        return status;
    }
    return cli_print_json(json_pack("{s:o, s:o, s:s, s:s}", "rows", bench.rows, "machine",
                                    cli_json_text(machine, strlen(machine)), "commit", HETERO_COMMIT, "version",
                                    ht_version()));
}
