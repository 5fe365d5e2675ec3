/* One table of options: parsing, checking and --help all come from it. */
#include "cli.h"

#include "base/base.h"
#include "base/os.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum option_kind {
    OPTION_FLAG,    /* bool */
    OPTION_NUMBER,  /* int64_t */
    OPTION_NUMBERS, /* cli_numbers, separated by commas */
    OPTION_SIZE,    /* int64_t: bytes with K, M, G */
    OPTION_REAL,    /* double */
    OPTION_TEXT,    /* cli_words: every one given */
    OPTION_SOC,     /* the same, and it must be one name */
    OPTION_PATH,    /* the same, and it must exist */
    OPTION_CHOICE,  /* the same, and it must be one of the words of "a|b|c" in `value` */
    OPTION_CHOICES, /* the same, separated by commas */
    OPTION_SET      /* such words with commas, kept as one text */
} option_kind;

typedef struct option_row {
    const char *name;
    char letter;
    option_kind kind;
    unsigned commands;
    size_t offset;
    const char *value; /* placeholder in --help */
    double min, max;   /* of numbers */
    const char *help;
} option_row;

#define AT(field) offsetof(cli_options, field)
enum {
    TEXT_IN = CLI_TOKENIZE | CLI_RUN | CLI_SCORE,
    GENERATES = CLI_RUN | CLI_CHAT,
    COMPUTES = CLI_RUN | CLI_SCORE | CLI_CHAT | CLI_PERPLEXITY | CLI_BENCH | CLI_PLAN,
    HAS_MODEL = COMPUTES | CLI_INSPECT | CLI_TOKENIZE | CLI_TEMPLATE,
    TALKS = CLI_RUN | CLI_CHAT | CLI_TEMPLATE,
    ONE_SETTING = (HAS_MODEL | CLI_PROFILE) & ~CLI_BENCH /* bench takes several values where the others take one */
};
#define MANY_MAX 2147483647.0
#define CUTS "row|sequence|hybrid|feature|head|query|expert|channel|causal|layer"

static const option_row rows[] = {
    /* a row without a name is a heading */
    {NULL, 0, OPTION_FLAG, CLI_ALL & ~CLI_INSPECT, 0, NULL, 0, 0, "Options:"},
    {"prompt", 'p', OPTION_TEXT, TEXT_IN, AT(prompt), "TEXT", 0, 0, "the text"},
    {"file", 'f', OPTION_TEXT, TEXT_IN | CLI_PERPLEXITY | CLI_IMATRIX, AT(file), "FILE", 0, 0,
     "read the text from FILE ('-': standard input)"},
    {"file", 'f', OPTION_TEXT, CLI_TEMPLATE, AT(file), "FILE.json", 0, 0,
     "the messages: a list, or an object with messages, tools, kwargs ('-': standard input)"},
    {"tools", 0, OPTION_TEXT, CLI_TEMPLATE, AT(tools), "FILE.json", 0, 0, "a list of tools"},
    {"no-generation-prompt", 0, OPTION_FLAG, CLI_TEMPLATE, AT(no_generation_prompt), NULL, 0, 0,
     "end with the last message, not where the assistant is to speak"},
    {"max-tokens", 'n', OPTION_NUMBER, CLI_RUN, AT(max_tokens), "N", 0, MANY_MAX,
     "generate at most N tokens; 0: no limit but the context (default 256)"},
    {"max-tokens", 'n', OPTION_NUMBER, CLI_CHAT, AT(max_tokens), "N", 0, MANY_MAX,
     "generate at most N tokens per answer; 0: no limit but the context (default 0)"},
    {"raw", 0, OPTION_FLAG, CLI_RUN, AT(raw), NULL, 0, 0, "send the prompt without a chat template"},
    {"system", 0, OPTION_TEXT, GENERATES, AT(system), "TEXT", 0, 0, "system message"},
    {"chat-template", 0, OPTION_TEXT, TALKS, AT(chat_template), "FILE", 0, 0,
     "use this chat template (Jinja) in place of the model's own"},
    {"chat-template-kwargs", 0, OPTION_TEXT, TALKS, AT(chat_template_kwargs), "JSON", 0, 0,
     "variables of the chat template, such as '{\"enable_thinking\": false}'"},
    {"no-special", 0, OPTION_FLAG, TEXT_IN | CLI_TEMPLATE, AT(no_special), NULL, 0, 0,
     "add no BOS (tokenize: read no special tokens, either)"},
    {"parse-special", 0, OPTION_FLAG, TEXT_IN | TALKS, AT(parse_special), NULL, 0, 0,
     "read the text of special tokens as those tokens, not as text"},
    {"ids", 0, OPTION_NUMBERS, CLI_SCORE, AT(ids), "N,N,...", 0, MANY_MAX, "token ids"},
    {"top", 0, OPTION_NUMBER, CLI_SCORE, AT(top), "K", 0, 1000,
     "also show the K most probable tokens at each position"},
    {"chunk", 0, OPTION_NUMBER, CLI_SCORE, AT(chunk), "N", 0, MANY_MAX,
     "compute N tokens at a time; 1: as in decode, 0: as in prefill (default 0)"},
    {"temp", 0, OPTION_REAL, GENERATES, AT(temperature), "T", 0, 1000,
     "temperature; 0: always the most probable token (default 0.8)"},
    {"top-k", 0, OPTION_NUMBER, GENERATES, AT(top_k), "K", 0, MANY_MAX,
     "sample from the K most probable tokens; 0: off (default 40)"},
    {"top-p", 0, OPTION_REAL, GENERATES, AT(top_p), "P", 0, 1,
     "sample from the most probable tokens that add up to P; 0 or 1: off (default 0.95)"},
    {"min-p", 0, OPTION_REAL, GENERATES, AT(min_p), "P", 0, 1,
     "drop tokens less probable than P times the best; 0: off (default 0.05)"},
    {"repeat-penalty", 0, OPTION_REAL, GENERATES, AT(repeat_penalty), "X", 0, 1000,
     "make the last 64 tokens less probable; 0 or 1: off (default 1)"},
    {"seed", 0, OPTION_NUMBER, GENERATES, AT(seed), "N", 0, 9.3e18, "seed of the sampler (default: random)"},
    {"stop", 0, OPTION_TEXT, GENERATES, AT(stop), "TEXT", 0, 0, "stop before TEXT; can be repeated"},
    {"logprobs", 0, OPTION_NUMBER, CLI_RUN, AT(logprobs), "K", 0, 1000,
     "with --json: also the K most probable tokens at each step"},
    {"reference", 0, OPTION_CHOICE, CLI_PERPLEXITY, AT(reference), "exact", 0, 0,
     "also compare with the same model at this precision"},
    {"imatrix", 0, OPTION_PATH, CLI_QUANTIZE, AT(imatrix), "FILE", 0, 0,
     "weight errors by the importance of columns in FILE, from 'hetero imatrix' or llama-imatrix"},
    {"prompt", 0, OPTION_NUMBERS, CLI_BENCH, AT(bench_prompt), "N,N,...", 0, MANY_MAX,
     "prompt lengths (default 64,256,1024)"},
    {"gen", 0, OPTION_NUMBERS, CLI_BENCH, AT(bench_gen), "N,N,...", 0, MANY_MAX, "tokens to decode (default 64)"},
    {"sequences", 0, OPTION_NUMBERS, CLI_BENCH, AT(bench_sequences), "N,N,...", 1, 64,
     "sequences decoded together, one row each (default 1)"},
    {"all", 0, OPTION_FLAG, CLI_DEVICES, AT(all), NULL, 0, 0, "simulated devices, too (sim:SOC/gpu, ...)"},
    {"quick", 0, OPTION_FLAG, CLI_PROFILE, AT(quick), NULL, 0, 0,
     "measure fewer lengths with shorter runs: seconds instead of minutes"},
    {"report", 0, OPTION_TEXT, CLI_PROFILE, AT(report), "FILE.html", 0, 0, "also write the profile as one HTML file"},
    {"stored", 0, OPTION_FLAG, CLI_PROFILE, AT(stored), NULL, 0, 0,
     "use the newest saved profile (of --devices, or of real ones); measure nothing"},
    {"repetitions", 'r', OPTION_NUMBER, CLI_BENCH, AT(repetitions), "N", 1, 10000,
     "measure each row N times (default 5)"},
    {"rounds", 0, OPTION_NUMBER, CLI_BENCH, AT(rounds), "N", 1, 10000,
     "open all settings at once and measure their rows in turn, N times, for ratios (default 1)"},
    {"length", 0, OPTION_NUMBER, CLI_PLAN, AT(length), "N", 1, MANY_MAX, "plan a prompt of N tokens (default 256)"},
    {"decode", 0, OPTION_FLAG, CLI_PLAN, AT(decode), NULL, 0, 0, "plan one token of decode"},
    {"trace", 0, OPTION_TEXT, CLI_PLAN, AT(trace), "FILE.json", 0, 0,
     "write the predicted timeline as trace events (for ui.perfetto.dev)"},
    {"run", 0, OPTION_FLAG, CLI_PLAN, AT(run), NULL, 0, 0,
     "with --trace: also run the pass and add the measured timeline"},
    {"save", 0, OPTION_TEXT, CLI_PLAN, AT(save), "FILE.json", 0, 0, "save the plan as --json prints it"},
    {"load", 0, OPTION_TEXT, CLI_PLAN, AT(load), "FILE.json", 0, 0, "show a saved plan (without MODEL)"},
    {"soc", 0, OPTION_TEXT, CLI_REPRODUCE, AT(soc), "NAME", 0, 0,
     "simulated SoC: a name or FILE.json (default: all, compared; repeat the option to compare some)"},
    {"out", 0, OPTION_TEXT, CLI_REPRODUCE, AT(out), "DIR", 0, 0,
     "folder for report.html and tables.json (default reproduction; --validate: none)"},
    {"validate", 0, OPTION_FLAG, CLI_REPRODUCE, AT(validate), NULL, 0, 0,
     "predict what other engines were measured to do on real chips, instead"},
    {"out", 0, OPTION_TEXT, CLI_REPORT, AT(out), "FILE.json", 0, 0,
     "write the report to FILE.json (default: a new hetero-report-DATE.json; none with --json)"},
    {"list", 0, OPTION_FLAG, CLI_PULL, AT(list), NULL, 0, 0, "list the repository's GGUF files, fetch nothing"},
    {"retries", 0, OPTION_NUMBER, CLI_PULL, AT(retries), "N", 0, 1000, "give up after N failures in a row (default 5)"},
    {"ctx", 0, OPTION_NUMBER, COMPUTES, AT(context), "N", 1, MANY_MAX,
     "context size in tokens (default: the model's own, at most 4096)"},

    {NULL, 0, OPTION_FLAG, COMPUTES | CLI_DEVICES | CLI_PROFILE | CLI_REPORT, 0, NULL, 0, 0, "Device options:"},
    {NULL, 0, OPTION_FLAG, HAS_MODEL & ~COMPUTES, 0, NULL, 0, 0, "Device options (checked, but without effect here):"},
    {"devices", 0, OPTION_TEXT, (ONE_SETTING & ~CLI_PROFILE) | CLI_REPORT, AT(devices), "A,B,...", 0, 0,
     "devices to use: 'gpu', 'opencl:0', 'cpu:cpus=0-1', ... (default: CPU, GPUs and NPUs found)"},
    {"devices", 0, OPTION_TEXT, CLI_PROFILE, AT(devices), "A,B,...", 0, 0, "devices to measure (default: all)"},
    {"devices", 0, OPTION_TEXT, CLI_BENCH, AT(devices), "A,B,...", 0, 0,
     "devices to use; repeat the option for several rows"},
    {"soc", 0, OPTION_SOC, ONE_SETTING | CLI_BENCH | CLI_REPORT, AT(soc), "NAME", 0, 0,
     "simulate a SoC (a name or FILE.json); in --devices 'gpu', 'npu', 'cpu' are then its own"},
    {"strategy", 0, OPTION_CHOICE, ONE_SETTING & ~CLI_PROFILE, AT(strategy), "single|layer|tensor|auto", 0, 0,
     "how devices share the work (default auto)"},
    {"strategy", 0, OPTION_CHOICES, CLI_BENCH, AT(strategy), "single|layer|tensor|auto", 0, 0,
     "how devices share the work (default auto)"},
    {"cuts", 0, OPTION_SET, ONE_SETTING & ~CLI_PROFILE, AT(cuts), CUTS, 0, 0,
     "cuts that strategy tensor may use, separated by commas (default: all)"},
    {"cuts", 0, OPTION_SET, CLI_BENCH, AT(cuts), CUTS, 0, 0,
     "cuts that strategy tensor may use, separated by commas; repeat the option for several rows"},
    {"measure", 0, OPTION_FLAG, COMPUTES, AT(measure), NULL, 0, 0,
     "measure the devices again (default: use saved measurements)"},
    {"whole-weights", 0, OPTION_FLAG, COMPUTES, AT(whole_weights), NULL, 0, 0,
     "strategy auto: all weights on every device (default: those that plans use)"},
    {"precision", 0, OPTION_CHOICE, ONE_SETTING, AT(precision), "fast|exact", 0, 0,
     "fast: 8-bit activations for quantised weights; exact: float activations (default fast)"},
    {"precision", 0, OPTION_CHOICES, CLI_BENCH, AT(precision), "fast|exact", 0, 0,
     "fast: 8-bit activations for quantised weights; exact: float activations (default fast)"},
    {"kv", 0, OPTION_CHOICE, ONE_SETTING & ~CLI_PROFILE, AT(kv), "f16|f32", 0, 0, "type of the KV cache (default f16)"},
    {"sync", 0, OPTION_CHOICE, ONE_SETTING & ~CLI_PROFILE, AT(sync), "finish|event|callback|flag|auto", 0, 0,
     "how to wait for devices with a queue of their own (default auto)"},
    {"sync", 0, OPTION_CHOICES, CLI_BENCH, AT(sync), "finish|event|callback|flag|auto", 0, 0,
     "how to wait for devices with a queue of their own (default auto)"},
    {"npu-memory", 0, OPTION_SIZE, HAS_MODEL, AT(npu_memory), "SIZE", 0, 9e18,
     "memory limit of NPU graphs, such as 512M (default: half of the device's memory)"},
    {"place", 0, OPTION_TEXT, HAS_MODEL & ~CLI_PROFILE, AT(place), "TEXT=DEVICE,...", 0, 0,
     "compute operators with TEXT in the name that plan shows on DEVICE; the first TEXT counts"},
    {"openvino", 0, OPTION_PATH, HAS_MODEL | CLI_DEVICES | CLI_PROFILE | CLI_REPORT, AT(openvino), "PATH", 0, 0,
     "path of the OpenVINO runtime (default: searched)"},
    {"onnxruntime", 0, OPTION_PATH, HAS_MODEL | CLI_DEVICES | CLI_PROFILE | CLI_REPORT, AT(onnxruntime), "PATH", 0, 0,
     "path of ONNX Runtime (default: searched)"},

    {NULL, 0, OPTION_FLAG, CLI_ALL, 0, NULL, 0, 0, "Common options:"},
    {"offline", 0, OPTION_FLAG, CLI_ALL & ~CLI_DEVICES, AT(offline), NULL, 0, 0,
     "fetch nothing: use hf: models of the cache only"},
    {"threads", 0, OPTION_NUMBER, CLI_ALL & ~CLI_BENCH, AT(threads), "N", 0, HT_MAX_THREADS,
     "threads of the CPU device; 0: one per core (default 0)"},
    {"threads", 0, OPTION_NUMBERS, CLI_BENCH, AT(bench_threads), "N,N,...", 0, HT_MAX_THREADS,
     "threads of the CPU device; 0: one per core (default 0)"},
    {"json", 0, OPTION_FLAG, CLI_ALL & ~CLI_CHAT, AT(json), NULL, 0, 0, "print one JSON object on standard output"},
    {"quiet", 0, OPTION_FLAG, CLI_ALL, AT(quiet), NULL, 0, 0, "no progress, timings or warnings"},
    {"log-level", 0, OPTION_CHOICE, CLI_ALL, AT(log_level), "error|warn|info|debug", 0, 0,
     "what to log (default warn)"},
    {"help", 'h', OPTION_FLAG, CLI_ALL, AT(help), NULL, 0, 0, "show this"},
};
enum { N_ROWS = sizeof rows / sizeof *rows, LONG_BASE = 256, ARGUMENT = 1 /* as getopt calls one */ };

/* ---- values ---------------------------------------------------------------------------------------------------- */

static bool push_number(cli_numbers *numbers, int64_t value) {
    if (!(numbers->n & (numbers->n - 1))) { /* grows at powers of two */
        int64_t *grown = realloc(numbers->at, (numbers->n ? numbers->n * 2 : 1) * sizeof *grown);
        if (!grown)
            return false;
        numbers->at = grown;
    }
    numbers->at[numbers->n++] = value;
    return true;
}

static bool push_word(cli_words *words, const char *text, size_t bytes) {
    char **grown = realloc(words->at, (words->n + 1) * sizeof *grown);
    if (!grown)
        return false;
    words->at = grown;
    words->at[words->n] = ht_copy_text(text, bytes);
    return words->at[words->n++] != NULL;
}

static void clear_words(cli_words *words) {
    while (words->n)
        free(words->at[--words->n]);
    free(words->at);
    *words = (cli_words){0};
}

/* Is text[0..bytes) one of the words of "a|b|c"? */
static bool is_choice(const char *choices, const char *text, size_t bytes) {
    for (const char *word = choices;; word++) {
        size_t length = strcspn(word, "|");
        if (length == bytes && !memcmp(word, text, bytes))
            return true;
        word += length;
        if (!*word)
            return false;
    }
}

/* "a|b|c" as "a, b or c". */
static const char *list_choices(const char *choices, char text[128]) {
    int used = 0;
    for (const char *word = choices;; word++) {
        const int length = (int)strcspn(word, "|");
        const char *between = word == choices ? "" : word[length] ? ", " : " or ";
        used += snprintf(text + used, 128 - (size_t)used, "%s%.*s", between, length, word);
        word += length;
        if (!*word || used >= 128)
            return text;
    }
}

static int bad_value(const cli_command *command, const option_row *row, const char *value) {
    char expected[160], choices[128];
    int length = (int)strlen(value);
    if (row->kind == OPTION_PATH)
        return cli_wrong(command, "--%s: '%s': %s", row->name, value, strerror(errno));
    for (bool good = row->kind == OPTION_SET; good;) { /* the first wrong word */
        length = (int)strcspn(value, ",");
        good = value[length] && is_choice(row->value, value, (size_t)length);
        value += good ? length + 1 : 0;
    }
    if (row->kind >= OPTION_CHOICE)
        snprintf(expected, sizeof expected, "%s", list_choices(row->value, choices));
    else if (row->kind == OPTION_SOC)
        snprintf(expected, sizeof expected, "the name of a SoC or a JSON file");
    else if (row->kind == OPTION_SIZE)
        snprintf(expected, sizeof expected, "a size such as 512M or 2G");
    else
        snprintf(expected, sizeof expected, "%s from %.15g to %.15g%s",
                 row->kind == OPTION_REAL ? "a number" : "a whole number", row->min, row->max,
                 row->kind == OPTION_NUMBERS ? ", or several with commas" : "");
    return cli_wrong(command, "--%s: invalid value '%.*s' (expected %s)", row->name, length, value, expected);
}

/* Reads a whole number at *text and moves past it. */
static bool read_number(const option_row *row, const char **text, int64_t *value) {
    char *end;
    errno = 0;
    long long number = strtoll(*text, &end, 10);
    if (end == *text || errno || (double)number < row->min || (double)number > row->max)
        return false;
    *text = end;
    *value = number;
    return true;
}

static bool set_numbers(const option_row *row, const char *text, cli_numbers *numbers) {
    for (;; text++) {
        int64_t value;
        if (!read_number(row, &text, &value) || !push_number(numbers, value))
            return false;
        if (*text != ',')
            return !*text;
    }
}

static bool set_size(const option_row *row, const char *text, int64_t *size) {
    uint64_t bytes;
    if (!ht_parse_size(text, &bytes) || (double)bytes < row->min || (double)bytes > row->max)
        return false;
    *size = (int64_t)bytes;
    return true;
}

static bool set_choices(const option_row *row, const char *text, cli_words *words) {
    for (;; text++) {
        size_t bytes = row->kind == OPTION_CHOICES ? strcspn(text, ",") : strlen(text);
        if (!is_choice(row->value, text, bytes) || !push_word(words, text, bytes))
            return false;
        text += bytes;
        if (!*text)
            return true;
    }
}

static bool set_words(const option_row *row, const char *text, cli_words *words) {
    for (const char *word = text;; word++) {
        const size_t bytes = strcspn(word, ",");
        if (!is_choice(row->value, word, bytes))
            return false;
        word += bytes;
        if (!*word)
            return push_word(words, text, strlen(text));
    }
}

static bool set_value(const option_row *row, const char *text, void *field) {
    switch (row->kind) {
    case OPTION_FLAG:
        *(bool *)field = true;
        return true;
    case OPTION_NUMBER:
        return read_number(row, &text, field) && !*text;
    case OPTION_NUMBERS:
        return set_numbers(row, text, field);
    case OPTION_SIZE:
        return set_size(row, text, field);
    case OPTION_REAL: {
        char *end;
        double value = strtod(text, &end);
        *(double *)field = value;
        return end != text && !*end && isfinite(value) && value >= row->min && value <= row->max;
    }
    case OPTION_PATH:
        return ht_os_exists(text) && push_word(field, text, strlen(text));
    case OPTION_TEXT:
        return push_word(field, text, strlen(text));
    case OPTION_SOC:
        return *text && !strchr(text, ',') && push_word(field, text, strlen(text));
    case OPTION_CHOICE:
    case OPTION_CHOICES:
        return set_choices(row, text, field);
    case OPTION_SET:
        return set_words(row, text, field);
    }
    return false;
}

/* ---- parsing --------------------------------------------------------------------------------------------------- */

static const option_row *row_of(const cli_command *command, int code) {
    for (int i = 0; i < N_ROWS; i++)
        if (rows[i].name && rows[i].commands & command->bit && code &&
            (code == LONG_BASE + i || code == rows[i].letter))
            return &rows[i];
    return NULL;
}

/* The table as getopt_long wants it. '-': arguments come in turn with the options, whatever POSIXLY_CORRECT says; ':': a
 * missing value is told apart from an unknown option. */
static void build_getopt(const cli_command *command, struct option *longs, char *letters) {
    *letters++ = '-';
    *letters++ = ':';
    for (int i = 0; i < N_ROWS; i++) {
        const option_row *row = &rows[i];
        if (!row->name || !(row->commands & command->bit))
            continue;
        int takes = row->kind == OPTION_FLAG ? no_argument : required_argument;
        *longs++ = (struct option){row->name, takes, NULL, LONG_BASE + i};
        if (row->letter) {
            *letters++ = row->letter;
            if (takes == required_argument)
                *letters++ = ':';
        }
    }
    *longs = (struct option){0};
    *letters = 0;
}

static int misuse(const cli_command *command, int code, char **argv) {
    const option_row *row = row_of(command, optopt);
    const char *see = command->name;
    if (code == ':')
        return cli_wrong(command, "--%s needs a value: %s", row->name, row->value);
    if (row)
        return cli_wrong(command, "--%s takes no value", row->name);
    if (optopt)
        return cli_wrong(command, "unknown option '-%c'; see 'hetero %s --help'", optopt, see);
    return cli_wrong(command, "unknown or ambiguous option '%s'; see 'hetero %s --help'", argv[optind - 1], see);
}

static int take_arguments(const cli_command *command, int argc, char **argv, cli_options *options) {
    int n = 0;
    for (const char *name = command->arguments; *name; n++) {
        int length = (int)strcspn(name, " ");
        if (n >= argc && *name == '[') /* may be left out */
            break;
        if (n >= argc)
            return cli_wrong(command, "%.*s is missing; see 'hetero %s --help'", length, name, command->name);
        options->arguments[n] = argv[n];
        name += length + (name[length] == ' ');
    }
    if (argc > n)
        return cli_wrong(command, "unexpected argument '%s'; see 'hetero %s --help'", argv[n], command->name);
    return CLI_DONE;
}

/* Is text[0..bytes) "gpu" or "cpu:cpus=0-1" rather than "opencl:0" or "openvino:CPU:cpus=1"? */
static bool is_processor(const char *text, size_t bytes) {
    const char *colon = memchr(text, ':', bytes);
    return !colon || (strcspn(colon + 1, "=") < strcspn(colon + 1, ":,") && strncmp(text, "sim:", 4) != 0);
}

/* "gpu,npu:lengths=64,opencl:0" of SoC NAME is "sim:NAME/gpu,sim:NAME/npu:lengths=64,opencl:0", "" is "sim:NAME". The text
 * comes from malloc. */
static char *processors_of(const char *soc, const char *devices) {
    size_t n = 1, used = 0;
    for (const char *comma = devices; (comma = strchr(comma, ',')); comma++)
        n++;
    const size_t space = strlen(devices) + n * (strlen(soc) + strlen("sim:/")) + 1;
    char *text = malloc(space);
    if (text && !*devices)
        snprintf(text, space, "sim:%s", soc);
    for (const char *device = devices; text && *device; device += *device == ',') {
        const size_t bytes = strcspn(device, ",");
        if (bytes && is_processor(device, bytes))
            used += (size_t)snprintf(text + used, space - used, "sim:%s/", soc);
        used += (size_t)snprintf(text + used, space - used, "%.*s", (int)bytes + (device[bytes] == ','), device);
        device += bytes;
    }
    return text;
}

/* --soc NAME makes the devices that SoC's: all of them where --devices names none. Several of both, as bench takes them, are
 * combined. */
static int simulate(const cli_command *command, cli_options *options) {
    cli_words devices = {0};
    bool good = true;
    if (!options->soc.n)
        return CLI_DONE;
    for (size_t i = 0; i < options->soc.n; i++)
        for (size_t k = 0; k < (options->devices.n ? options->devices.n : 1) && good; k++) {
            char *text = processors_of(options->soc.at[i], options->devices.n ? options->devices.at[k] : "");
            good = text && push_word(&devices, text, strlen(text));
            free(text);
        }
    clear_words(&options->devices);
    options->devices = devices;
    return good ? CLI_DONE : cli_no_memory(command);
}

int cli_options_parse(const cli_command *command, int argc, char **argv, cli_options *options) {
    struct option longs[N_ROWS + 1];
    char letters[2 * N_ROWS + 3];
    int n_arguments = 0; /* they move to the front of argv, over what has been read */
    build_getopt(command, longs, letters);
    *options = (cli_options){.command = command,
                             .max_tokens = command->bit == CLI_RUN ? 256 : 0,
                             .top_k = 40,
                             .seed = -1,
                             .repetitions = 5,
                             .rounds = 1,
                             .length = 256,
                             .retries = 5,
                             .temperature = 0.8,
                             .top_p = 0.95,
                             .min_p = 0.05,
                             .repeat_penalty = 1};
    opterr = 0;
    optind = 0; /* from the start */
    for (int code; (code = getopt_long(argc, argv, letters, longs, NULL)) != -1;) {
        if (code == ARGUMENT) {
            argv[n_arguments++] = optarg;
            continue;
        }
        if (code == ':' || code == '?')
            return misuse(command, code, argv);
        const option_row *row = row_of(command, code);
        if (!set_value(row, optarg, (char *)options + row->offset))
            return bad_value(command, row, optarg);
    }
    while (optind < argc) /* behind "--" */
        argv[n_arguments++] = argv[optind++];
    if (options->help)
        return CLI_DONE;
    int status = take_arguments(command, n_arguments, argv, options);
    return status == CLI_DONE && command->bit != CLI_REPRODUCE ? simulate(command, options) : status;
}

void cli_options_clear(cli_options *options) {
    for (int i = 0; i < N_ROWS; i++) {
        void *field = (char *)options + rows[i].offset;
        if (!rows[i].name)
            continue;
        if (rows[i].kind == OPTION_NUMBERS) {
            free(((cli_numbers *)field)->at);
            *(cli_numbers *)field = (cli_numbers){0};
        } else if (rows[i].kind >= OPTION_TEXT) {
            clear_words(field);
        }
    }
}

void cli_options_help(const cli_command *command) {
    enum { COLUMN = 30 };
    printf("Usage: hetero %s %s%s[OPTION...]\n\n%c%s.\n", command->name, command->usage, *command->usage ? " " : "",
           command->summary[0] & ~0x20, command->summary + 1);
    if (command->notes)
        printf("%s\n", command->notes);
    for (int i = 0; i < N_ROWS; i++) {
        const option_row *row = &rows[i];
        if (!(row->commands & command->bit))
            continue;
        if (!row->name) {
            printf("\n%s\n", row->help);
            continue;
        }
        int width = row->letter ? printf("  -%c, --%s", row->letter, row->name) : printf("      --%s", row->name);
        if (row->value)
            width += printf(" %s", row->value);
        if (width >= COLUMN)
            width = printf("\n") - 1;
        printf("%*s%s\n", COLUMN - width, "", row->help);
    }
}
