/* Errors, input and a model made ready, alike for all commands. */
#include "cli.h"

#include "base/os.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *cli_last(const cli_words *words) {
    return words->n ? words->at[words->n - 1] : NULL;
}

/* ---- errors ---------------------------------------------------------------------------------------------------- */

/* One line, whatever a file's name or a user's text holds. */
static void print_error(const cli_command *command, const char *text) {
    cli_progress_clear();
    fprintf(stderr, "hetero%s%s: ", command ? " " : "", command ? command->name : "");
    for (; *text; text++)
        putc((unsigned char)*text < 0x20 ? '?' : *text, stderr);
    putc('\n', stderr);
}

int cli_wrong(const cli_command *command, const char *format, ...) {
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    print_error(command, text);
    return CLI_WRONG;
}

int cli_no_memory(const cli_command *command) {
    print_error(command, "out of memory");
    return CLI_FAILED;
}

int cli_fail(const cli_options *options, const ht_error *error) {
    return cli_fail_hint(options, error, "");
}

int cli_fail_hint(const cli_options *options, const ht_error *error, const char *hint) {
    char text[sizeof error->text + 256];
    snprintf(text, sizeof text, "%s%s%s", error->text, *hint ? "; " : "", hint);
    print_error(options->command, text);
    switch (error->status) {
    case HT_ERROR_ARGUMENT:
    case HT_ERROR_FORMAT:
    case HT_ERROR_UNSUPPORTED:
    case HT_ERROR_CONTEXT:
        return CLI_WRONG;
    default:
        return CLI_FAILED;
    }
}

/* ---- input ------------------------------------------------------------------------------------------------------ */

static bool read_all(FILE *file, cli_text *text) {
    size_t space = 0;
    for (;;) {
        if (text->n + 1 >= space) {
            space = space ? space * 2 : 1 << 16;
            char *grown = realloc(text->bytes, space);
            if (!grown)
                return false;
            text->bytes = grown;
        }
        size_t got = fread(text->bytes + text->n, 1, space - 1 - text->n, file);
        text->n += got;
        text->bytes[text->n] = 0;
        if (feof(file) || ferror(file)) /* not asked again: a terminal would want a second Ctrl-D */
            return !ferror(file);
    }
}

int cli_read_file(const cli_options *options, const char *path, cli_text *text) {
    *text = (cli_text){.source = path};
    bool standard = !strcmp(path, "-");
    text->source = standard ? "standard input" : path;
    FILE *file = standard ? stdin : fopen(path, "rb");
    if (!file)
        return cli_wrong(options->command, "%s: %s", path, strerror(errno));
    int status = CLI_DONE;
    if (!read_all(file, text))
        status = errno == ENOMEM ? cli_no_memory(options->command)
                                 : cli_wrong(options->command, "%s: %s", text->source, strerror(errno));
    if (!standard)
        fclose(file);
    return status;
}

/* Editors of some systems write one in front of a text; no model knows it. */
static void drop_byte_order_mark(const cli_options *options, cli_text *text) {
    static const char mark[] = "\xef\xbb\xbf";
    const size_t bytes = sizeof mark - 1;
    if (text->n < bytes || memcmp(text->bytes, mark, bytes) != 0)
        return;
    text->n -= bytes;
    memmove(text->bytes, text->bytes + bytes, text->n + 1);
    if (!options->quiet)
        fprintf(stderr, "hetero %s: %s: the byte order mark at the start is left out\n", options->command->name,
                text->source);
}

int cli_read_text(const cli_options *options, bool required, cli_text *text) {
    *text = (cli_text){.source = "-p"};
    const char *prompt = cli_last(&options->prompt), *path = cli_last(&options->file);
    const bool piped = !prompt && !path && options->command->bit == CLI_RUN && !ht_os_is_terminal(stdin);
    if (prompt && path)
        return cli_wrong(options->command, "-p and -f cannot be combined");
    if (piped)
        path = "-";
    if (!prompt && !path)
        return cli_wrong(options->command, "no text: give %s-f FILE%s",
                         options->command->bit == CLI_PERPLEXITY ? "" : "-p TEXT or ",
                         options->command->bit == CLI_RUN ? ", or pipe it to standard input" : "");
    int status = CLI_DONE;
    if (path) {
        status = cli_read_file(options, path, text);
        if (status == CLI_DONE)
            drop_byte_order_mark(options, text);
    } else {
        text->bytes = strdup(prompt);
        text->n = strlen(prompt);
        if (!text->bytes)
            status = cli_no_memory(options->command);
    }
    if (status == CLI_DONE) {
        size_t valid = cli_utf8_valid_up_to(text->bytes, text->n);
        if (valid < text->n)
            status = cli_wrong(options->command, "%s: invalid UTF-8 at byte %zu", text->source, valid);
        else if (required && !text->n && piped)
            status = cli_wrong(options->command, "no text: give -p TEXT or -f FILE, or pipe it to standard input");
        else if (required && !text->n)
            status = cli_wrong(options->command, "%s: the text is empty", text->source);
    }
    if (status != CLI_DONE) {
        free(text->bytes);
        text->bytes = NULL;
    }
    return status;
}

unsigned cli_text_flags(const cli_options *options) {
    return (options->no_special ? 0 : HT_TOKENIZE_ADD_SPECIAL) |
           (options->parse_special ? HT_TOKENIZE_PARSE_SPECIAL : 0);
}

int cli_tokens_of(const cli_options *options, const ht_model *model, const cli_text *text, int32_t **ids, size_t *n) {
    ht_error error;
    if (ht_tokenize(model, text->bytes, text->n, cli_text_flags(options), ids, n, &error))
        return cli_fail(options, &error);
    if (*n)
        return CLI_DONE;
    ht_free(*ids);
    *ids = NULL;
    return cli_wrong(options->command, "%s: the text is empty, and no BOS is added to it", text->source);
}

/* ---- models of a hub -------------------------------------------------------------------------------------------- */

static atomic_bool pull_interrupted;

static void on_pull_interrupt(void) {
    atomic_store(&pull_interrupted, true);
}

static bool on_pull_progress(const char *what, double done, double total, void *user) {
    return cli_progress(what, done, total, user) && !atomic_load(&pull_interrupted);
}

int cli_pull_files(const cli_options *options, cli_pull_function *function, const char *name, bool cached,
                   ht_pull_result *result) {
    ht_error error;
    const ht_pull_options wanted = {.cached = cached,
                                    .offline = options->offline,
                                    .retries = options->retries ? (int)options->retries : -1,
                                    .progress = on_pull_progress,
                                    .progress_user = (void *)options};
    ht_os_program_on_interrupt(on_pull_interrupt);
    const ht_status status = function(name, &wanted, result, &error);
    ht_os_program_on_interrupt(NULL);
    cli_progress_clear();
    return status ? cli_fail(options, &error) : CLI_DONE;
}

int cli_model_path(const cli_options *options, char **path) {
    const char *name = options->arguments[0] ? options->arguments[0] : "shape:llama-3.2-1b";
    ht_pull_result result;
    if (!ht_pull_is_name(name)) {
        *path = ht_copy_text(name, strlen(name));
        return *path ? CLI_DONE : cli_no_memory(options->command);
    }
    const int status = cli_pull_files(options, ht_pull, name, true, &result);
    if (status != CLI_DONE)
        return status;
    *path = result.files[0].path;
    result.files[0].path = NULL;
    ht_pull_result_clear(&result);
    return CLI_DONE;
}

/* ---- a model made ready ----------------------------------------------------------------------------------------- */

int cli_open_model(const cli_options *options, ht_model **model) {
    ht_error error;
    char *path;
    int status = cli_model_path(options, &path);
    if (status != CLI_DONE)
        return status;
    const bool good = !ht_model_open(path, model, &error);
    ht_free(path);
    if (good)
        return CLI_DONE;
    status = cli_fail(options, &error);
    return error.status == HT_ERROR_IO ? CLI_WRONG : status; /* a file that is not there is wrong input */
}

int cli_open_vocabulary(const cli_options *options, ht_model **model) {
    ht_error error;
    char *path;
    int status = cli_model_path(options, &path);
    if (status != CLI_DONE)
        return status;
    const bool shape = !strncmp(path, "shape:", 6);
    const bool good = !(shape ? ht_model_open : ht_model_open_vocabulary)(path, model, &error);
    ht_free(path);
    if (good)
        return CLI_DONE;
    status = cli_fail(options, &error);
    return error.status == HT_ERROR_IO ? CLI_WRONG : status;
}

int cli_open_chat_model(const cli_options *options, ht_model **model) {
    ht_error error;
    cli_text source = {0};
    const char *path = cli_last(&options->chat_template);
    int status = cli_open_model(options, model);
    if (status != CLI_DONE || !path)
        return status;
    status = cli_read_file(options, path, &source);
    if (status == CLI_DONE && ht_model_set_chat_template(*model, source.bytes, source.n, &error))
        status = cli_wrong(options->command, "%s: %s", path, error.text);
    free(source.bytes);
    if (status != CLI_DONE)
        ht_model_close(*model);
    return status;
}

int cli_fail_chat(const cli_options *options, const ht_model *model, const ht_error *error) {
    ht_chat_template_info info = HT_INIT(ht_chat_template_info);
    const bool talks = ht_chat_template(model, false, &info, NULL) || (info.name && !info.why);
    const char *hint = "";
    if (*ht_model_get_info(model)->tokenizer && !talks)
        hint = options->command->bit == CLI_TEMPLATE ? "--chat-template FILE gives it another"
               : options->command->bit == CLI_RUN
                   ? "--raw sends the prompt as it is, --chat-template FILE gives it another"
                   : "'hetero run MODEL --raw -p TEXT' continues a text without one, --chat-template FILE gives it "
                     "another";
    return cli_fail_hint(options, error, hint);
}

cli_setting cli_setting_of(const cli_options *options) {
    return (cli_setting){.devices = cli_last(&options->devices),
                         .strategy = cli_last(&options->strategy),
                         .cuts = cli_last(&options->cuts),
                         .precision = cli_last(&options->precision),
                         .sync = cli_last(&options->sync),
                         .threads = (int)options->threads,
                         .context = (int)options->context};
}

void cli_expect(cli_setting *setting, int64_t tokens) {
    if (setting->n_prompts < sizeof setting->prompts / sizeof *setting->prompts && tokens <= INT32_MAX)
        setting->prompts[setting->n_prompts++] = (int)tokens;
}

ht_precision cli_precision(const cli_setting *setting) {
    return setting->precision && !strcmp(setting->precision, "exact") ? HT_PRECISION_EXACT : HT_PRECISION_FAST;
}

/* All that was said with --place, in order. NULL: nothing, or no memory (*good). The text comes from malloc. */
static char *joined_places(const cli_words *places, bool *good) {
    size_t space = 1, used = 0;
    for (size_t i = 0; i < places->n; i++)
        space += strlen(places->at[i]) + 1;
    char *text = places->n ? calloc(space, 1) : NULL;
    *good = text || !places->n;
    for (size_t i = 0; text && i < places->n; i++)
        used += (size_t)snprintf(text + used, space - used, "%s%s", used && *places->at[i] ? "," : "", places->at[i]);
    return text;
}

/* What a person can change where memory does not do. */
static const char *memory_hint(const cli_setting *setting) {
    return setting->devices && strstr(setting->devices, ":limit=") ? "see --ctx and limit= of --devices"
                                                                   : "see --ctx and --npu-memory";
}

int cli_open_session(const cli_options *options, const cli_setting *setting, ht_model *model, cli_session *session) {
    ht_error error;
    ht_engine_options wanted =
        HT_INIT(ht_engine_options, .devices = setting->devices, .threads = setting->threads,
                .precision = cli_precision(setting), .context = setting->context,
                .npu_memory = (uint64_t)options->npu_memory, .prompts = setting->prompts,
                .n_prompts = setting->n_prompts, .progress = cli_progress, .progress_user = (void *)options);
    if (cli_last(&options->kv) && !strcmp(cli_last(&options->kv), "f32"))
        wanted.kv_type = HT_KV_F32;
    for (int sync = HT_SYNC_AUTO; setting->sync && sync <= HT_SYNC_FLAG; sync++)
        if (!strcmp(setting->sync, ht_sync_name((ht_sync)sync)))
            wanted.sync = (ht_sync)sync;
    *session = (cli_session){0};
    static const char *const strategies[] = {"auto", "single", "layer", "tensor"}; /* ht_strategy */
    for (size_t i = 0; i < sizeof strategies / sizeof *strategies && setting->strategy; i++)
        if (!strcmp(setting->strategy, strategies[i]))
            wanted.strategy = (ht_strategy)i;
    wanted.cuts = setting->cuts;
    wanted.measure = options->measure;
    wanted.whole_weights = options->whole_weights;
    bool good;
    char *places = joined_places(&options->place, &good);
    if (!good)
        return cli_no_memory(options->command);
    wanted.place = places;
    cli_hold_output(); /* some drivers write lines of their own there when they open */
    const ht_status created = ht_engine_create(model, &wanted, &session->engine, &error);
    cli_release_output();
    free(places);
    if (created) {
        int status = cli_fail_hint(options, &error, error.status == HT_ERROR_MEMORY ? memory_hint(setting) : "");
        return error.status == HT_ERROR_ARGUMENT ? CLI_WRONG : status;
    }
    int status = CLI_DONE;
    if (ht_session_create(session->engine, &session->session, &error))
        status = cli_fail(options, &error);
    if (status != CLI_DONE)
        cli_close_session(session);
    return status;
}

void cli_close_session(cli_session *session) {
    if (session->session)
        ht_session_destroy(session->session);
    if (session->engine)
        ht_engine_destroy(session->engine);
    *session = (cli_session){0};
}

/* ---- Ctrl-C ----------------------------------------------------------------------------------------------------- */

static ht_session *volatile interrupted; /* what the signal handler may cancel */

static void on_interrupt(void) {
    ht_session *session = interrupted;
    if (session)
        ht_session_cancel(session);
}

void cli_interrupt_begin(ht_session *session) {
    interrupted = session;
    ht_os_program_on_interrupt(on_interrupt);
}

void cli_interrupt_end(void) {
    ht_os_program_on_interrupt(NULL);
    interrupted = NULL;
}

/* ---- generation ------------------------------------------------------------------------------------------------- */

uint64_t cli_seed(const cli_options *options) {
    uint32_t random = 0; /* short enough to be typed again */
    if (options->seed >= 0)
        return (uint64_t)options->seed;
    return ht_os_random(&random, sizeof random) ? random : 0;
}

static bool stream_token(const ht_generation *step, void *user) {
    cli_release_output();
    fwrite(step->text, 1, step->text_bytes, stdout);
    const bool read = !fflush(stdout); /* else nobody reads any more: stop */
    cli_hold_output();
    return read;
}

ht_status cli_generate(const cli_options *options, ht_session *session, const int32_t *ids, size_t n, uint64_t seed,
                       bool stream, ht_generate_result *result, ht_error *error) {
    ht_generate_options wanted = HT_INIT(
        ht_generate_options, .max_tokens = (int)options->max_tokens,
        .sampling = &HT_INIT(ht_sampling, .temperature = (float)options->temperature, .top_k = (int)options->top_k,
                             .top_p = (float)options->top_p, .min_p = (float)options->min_p,
                             .repeat_penalty = (float)options->repeat_penalty, .seed = seed),
        .stop = (const char *const *)options->stop.at, .n_stop = options->stop.n,
        .top_logprobs = (int)options->logprobs, .on_token = stream ? stream_token : NULL, );
    cli_interrupt_begin(session);
    cli_hold_output(); /* graphs may be built now */
    ht_status status = ht_session_generate(session, ids, n, &wanted, result, error);
    cli_release_output();
    cli_interrupt_end();
    if (!status && stream && (!result->text_bytes || result->text[result->text_bytes - 1] != '\n')) {
        putchar('\n');
        fflush(stdout);
    }
    return status;
}

static double rate(double tokens, double ms) {
    return tokens > 0 && ms > 0 ? 1000 * tokens / ms : NAN;
}

double cli_prefill_tps(const ht_generate_result *result) {
    return rate((double)result->prompt_tokens - (double)result->prompt_reused, result->prefill_ms);
}

double cli_decode_tps(const ht_generate_result *result) {
    return rate((double)result->n - 1, result->decode_ms); /* the first token is prefill's */
}

static void print_phase(const char *name, size_t tokens, double tps, double ms) {
    fprintf(stderr, "%s %zu tokens in %.0f ms", name, tokens, ms);
    if (isfinite(tps))
        fprintf(stderr, " (%.1f tokens/s)", tps);
    fputs("; ", stderr);
}

void cli_print_timings(const cli_options *options, const ht_generate_result *result, const ht_engine_info *info) {
    if (options->quiet)
        return;
    print_phase("prefill", result->prompt_tokens - result->prompt_reused, cli_prefill_tps(result), result->prefill_ms);
    print_phase("decode", result->n, cli_decode_tps(result), result->decode_ms);
    fputs("on", stderr);
    for (size_t i = 0; i < info->n_devices; i++)
        fprintf(stderr, "%s %s", i ? "," : "", info->devices[i]);
    fprintf(stderr, "%s; stop: %s\n",
            info->emulated    ? " (emulated: timings are not meaningful)"
            : info->simulated ? " (simulated)"
                              : "",
            ht_stop_name(result->stop));
}
