/* What the commands share: options, errors, input, a model made ready, output. A command reads its options, calls the
 * library and prints; everything else belongs in the library. */
#ifndef HETERO_CLI_H
#define HETERO_CLI_H

#include "base/base.h"
#include "hetero_tools.h"

#include <jansson.h>

enum { CLI_DONE = 0, CLI_FAILED = 1, CLI_WRONG = 2 }; /* exit statuses: done, failed, wrong usage or input */

/* One bit a command: which options it takes. */
enum {
    CLI_DEVICES = 1 << 0,
    CLI_INSPECT = 1 << 1,
    CLI_TOKENIZE = 1 << 2,
    CLI_RUN = 1 << 3,
    CLI_SCORE = 1 << 4,
    CLI_CHAT = 1 << 5,
    CLI_PERPLEXITY = 1 << 6,
    CLI_QUANTIZE = 1 << 7,
    CLI_BENCH = 1 << 8,
    CLI_PROFILE = 1 << 9,
    CLI_PLAN = 1 << 10,
    CLI_REPRODUCE = 1 << 11,
    CLI_REPORT = 1 << 12,
    CLI_PULL = 1 << 13,
    CLI_TEMPLATE = 1 << 14,
    CLI_IMATRIX = 1 << 15,
    CLI_ALL = (1 << 16) - 1
};

typedef struct cli_numbers {
    int64_t *at;
    size_t n;
} cli_numbers;

typedef struct cli_words {
    char **at;
    size_t n;
} cli_words;

typedef struct cli_options {
    const struct cli_command *command;
    const char *arguments[3]; /* MODEL, or IN OUT TYPE; NULL: one that may be left out was */
    bool help, quiet, json, raw, no_special, parse_special, quick, decode, measure, whole_weights, all, stored, run,
        validate, no_generation_prompt, offline, list;
    cli_words log_level, devices, strategy, cuts, precision, sync, kv, openvino, onnxruntime;
    cli_words prompt, file, system, stop, reference, report, save, load, trace, soc, out, place, imatrix;
    cli_words chat_template, chat_template_kwargs, tools;
    cli_numbers ids, bench_prompt, bench_gen, bench_sequences, bench_threads;
    int64_t threads, npu_memory, max_tokens, context, top_k, seed, logprobs, top, chunk, repetitions, rounds, length,
        retries;
    double temperature, top_p, min_p, repeat_penalty;
} cli_options;

typedef struct cli_command {
    const char *name, *arguments, *usage, *summary; /* arguments: "[MODEL]" may be left out */
    unsigned bit;
    int (*run)(const cli_options *options);
    const char *notes; /* more for --help, or NULL */
} cli_command;

int cli_devices(const cli_options *options);
int cli_inspect(const cli_options *options);
int cli_tokenize(const cli_options *options);
int cli_run(const cli_options *options);
int cli_score(const cli_options *options);
int cli_chat(const cli_options *options);
int cli_perplexity(const cli_options *options);
int cli_quantize(const cli_options *options);
int cli_imatrix(const cli_options *options);
int cli_bench(const cli_options *options);
int cli_profile(const cli_options *options);
int cli_plan(const cli_options *options);
int cli_reproduce(const cli_options *options);
int cli_report(const cli_options *options);
int cli_template(const cli_options *options);
int cli_pull(const cli_options *options);

/* ---- options.c ---- */

/* Reads argv[1..) of `command` (argv[0] is its name) over the defaults. Returns an exit status, having said what is
 * wrong. Release with cli_options_clear, after a failure too. */
int cli_options_parse(const cli_command *command, int argc, char **argv, cli_options *options);
void cli_options_clear(cli_options *options);
void cli_options_help(const cli_command *command);

/* ---- common.c: errors and input ---- */

/* The newest value of an option, NULL if it was not given. */
const char *cli_last(const cli_words *words);

/* Both print one line, "hetero COMMAND: text", on standard error; command may be NULL. */
int cli_wrong(const cli_command *command, const char *format, ...) HT_PRINTF(2, 3);
/* Says so. Returns CLI_FAILED. */
int cli_no_memory(const cli_command *command);
/* Prints the error's text. Returns the exit status that belongs to error->status. */
int cli_fail(const cli_options *options, const ht_error *error);
/* The same, with what the user can do: the library knows no options of the command line. */
int cli_fail_hint(const cli_options *options, const ht_error *error, const char *hint);

typedef struct cli_text {
    char *bytes; /* NUL-terminated, from malloc */
    size_t n;
    const char *source; /* "-p" or the file's name, for errors */
} cli_text;

/* The text of -p or -f ("-": standard input), checked to be UTF-8. `run` without either reads standard input unless that is
 * a terminal. `required`: an empty text is an error too. */
int cli_read_text(const cli_options *options, bool required, cli_text *text);
/* A file's text; "-": standard input. */
int cli_read_file(const cli_options *options, const char *path, cli_text *text);
/* Its tokens as they are, *ids from the library; an error if there are none: an empty text is one where a BOS is added. */
int cli_tokens_of(const cli_options *options, const ht_model *model, const cli_text *text, int32_t **ids, size_t *n);
unsigned cli_text_flags(const cli_options *options); /* HT_TOKENIZE_*, by --no-special and --parse-special */

/* ---- common.c: models of a hub ---- */

typedef ht_status cli_pull_function(const char *name, const ht_pull_options *options, ht_pull_result *result,
                                    ht_error *error);
/* ht_pull or ht_pull_list with the options' settings. The first Ctrl-C ends it in order, the second the program. Returns an
 * exit status, having said what is wrong. */
int cli_pull_files(const cli_options *options, cli_pull_function *function, const char *name, bool cached,
                   ht_pull_result *result);

/* ---- common.c: a model made ready ---- */

typedef struct cli_setting { /* the part of the options that bench varies */
    const char *devices, *strategy, *cuts, *precision, *sync;
    int threads, context;
    int prompts[64]; /* tokens of the prompts to come, where the command knows them */
    size_t n_prompts;
} cli_setting;

typedef struct cli_session {
    ht_engine *engine;
    ht_session *session;
} cli_session;

cli_setting cli_setting_of(const cli_options *options);
void cli_expect(cli_setting *setting, int64_t tokens); /* one more prompt to come; what does not fit is not named */
ht_precision cli_precision(const cli_setting *setting);
int cli_open_model(const cli_options *options, ht_model **model); /* MODEL left out: a shape of 1B */
/* The same for those that talk: with --chat-template in place of the model's own. */
int cli_open_chat_model(const cli_options *options, ht_model **model);
/* Reports an error of a conversation, with what else can be done where the model's template is at fault. */
int cli_fail_chat(const cli_options *options, const ht_model *model, const ht_error *error);
/* The path of MODEL, from malloc; what is on a hub and not in the cache is fetched. Returns an exit status. */
int cli_model_path(const cli_options *options, char **path);
/* The same for its text alone, where no weights are needed. */
int cli_open_vocabulary(const cli_options *options, ht_model **model);
int cli_open_session(const cli_options *options, const cli_setting *setting, ht_model *model, cli_session *session);
void cli_close_session(cli_session *session);

/* While between these two, the first SIGINT cancels the session's work and the second ends the program. A SIGINT that was
 * ignored before stays ignored; the action of before is back afterwards. */
void cli_interrupt_begin(ht_session *session);
void cli_interrupt_end(void);

uint64_t cli_seed(const cli_options *options); /* --seed, or a random one */
/* Generates by the options' sampling; writes the text to standard output as it comes if `stream`. Clear the result with
 * ht_generate_result_clear. */
ht_status cli_generate(const cli_options *options, ht_session *session, const int32_t *ids, size_t n, uint64_t seed,
                       bool stream, ht_generate_result *result, ht_error *error);
double cli_prefill_tps(const ht_generate_result *result); /* NAN where nothing was measured */
double cli_decode_tps(const ht_generate_result *result);
void cli_print_timings(const cli_options *options, const ht_generate_result *result, const ht_engine_info *info);

/* ---- output.c ---- */

/* Between these two, which nest, standard output is standard error, but for what cli_print_json prints: drivers and runtimes
 * write lines of their own to standard output, where results go. */
void cli_hold_output(void);
void cli_release_output(void);
int cli_print_json(json_t *object);                    /* takes the reference; returns an exit status */
int cli_print_text(char *json);                        /* the same of the library's text, which it frees */
json_t *cli_json_real(double value);                   /* null if not finite */
json_t *cli_json_text(const char *text, size_t bytes); /* bytes that are no UTF-8 become U+FFFD */
json_t *cli_json_ids(const int32_t *ids, size_t n);
json_t *cli_json_top(const ht_token_logprob *top, size_t rows, size_t n_top);
json_t *cli_json_devices(const ht_engine_info *info);
/* A token's bytes on one line: control characters and quotes escaped, in double quotes. */
void cli_print_piece(const ht_model *model, int32_t id);
/* First byte of `text` that does not belong to a UTF-8 character; `bytes` if all do. */
size_t cli_utf8_valid_up_to(const char *text, size_t bytes);

/* ---- plan_table.c ---- */

/* Is what was read from `path` a plan, as `hetero plan --json` writes it? Returns an exit status, having named the key. */
int cli_plan_check(const cli_options *options, const char *path, json_t *plan);
void cli_plan_print(const json_t *plan);

/* ---- progress.c ---- */

/* Draws a bar on standard error if that is a terminal. `user` is the cli_options. */
bool cli_progress(const char *what, double done, double total, void *user);
void cli_progress_clear(void);

/* ---- lines.c ---- */

typedef struct cli_lines cli_lines;

cli_lines *cli_lines_open(void); /* of standard input; NULL: memory ran out */
void cli_lines_close(cli_lines *lines);
/* For a signal that ends the program at the prompt: the terminal must not stay as it is while lines are read. */
void cli_lines_restore(void);
/* The next line without its end (LF, CR LF), NUL-terminated, from malloc; NULL at the end of input. *bytes: its length,
 * which tells whether a NUL is inside. Text pasted on a terminal may hold line feeds. more: the line goes on with a message
 * that has begun, as the prompt shows. */
char *cli_lines_read(cli_lines *lines, bool more, size_t *bytes);
bool cli_lines_interactive(const cli_lines *lines); /* is it a terminal? */

#endif
