/* hetero COMMAND [arguments]: finds the command and runs it. */
#include "cli.h"

#include "base/os.h"

#include <errno.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const cli_command commands[] = {
    {"devices", "", "", "list the devices, and why others were not found", CLI_DEVICES, cli_devices, NULL},
    {"inspect", "MODEL", "MODEL", "show a model's metadata, sizes, tokenizer and template", CLI_INSPECT, cli_inspect,
     NULL},
    {"tokenize", "MODEL", "MODEL -p TEXT | -f FILE", "show the token ids and pieces of a text", CLI_TOKENIZE,
     cli_tokenize, NULL},
    {"run", "MODEL", "MODEL [-p TEXT | -f FILE] [-n N]", "generate text", CLI_RUN, cli_run,
     "The prompt is sent as one user message in the model's chat template unless --raw is given. Without -p and -f "
     "the\n"
     "prompt is read from standard input.\n"
     "Ctrl-C ends the generation and prints the timings; a second Ctrl-C ends the program."},
    {"score", "MODEL", "MODEL --ids N,N,... | -p TEXT | -f FILE", "show the log-probabilities of given tokens",
     CLI_SCORE, cli_score, NULL},
    {"chat", "MODEL", "MODEL", "talk to a model", CLI_CHAT, cli_chat,
     "A terminal has line editing and history; other input is read line by line. /help lists the chat's commands.\n"
     "Ctrl-C ends the current answer; at the prompt it ends the program."},
    {"template", "MODEL", "MODEL -f FILE.json", "show what a model sees of a conversation", CLI_TEMPLATE, cli_template,
     "The messages, in OpenAI's form, as the model's chat template puts them. --json also has the token ids."},
    {"perplexity", "MODEL", "MODEL -f FILE", "measure a model's perplexity on a text", CLI_PERPLEXITY, cli_perplexity,
     "The text is cut into windows of 512 tokens, each with a BOS if the model has one. The second half of each "
     "window\n"
     "counts."},
    {"quantize", "IN OUT TYPE", "IN OUT TYPE", "write a model in another type: q4_0, q4_k_m, f16, ...", CLI_QUANTIZE,
     cli_quantize,
     "TYPE is one for all matrices (q2_k, q3_k, q4_k, q5_k, q6_k, iq4_nl, iq4_xs, mxfp4, q4_0, q4_1, q5_0, q5_1, "
     "q8_0,\n"
     "f16, bf16), or a recipe of llama.cpp's that gives some more bits (q3_k_s, q3_k_m, q4_k_s, q4_k_m, q5_k_s, "
     "q5_k_m)."},
    {"imatrix", "MODEL OUT", "MODEL -f FILE OUT", "measure which columns of matrices matter, for quantize --imatrix",
     CLI_IMATRIX, cli_imatrix,
     "Computes the text with the model in pieces of 512 tokens and writes the sums of squares of what each matrix\n"
     "reads, by expert where there are such, as llama.cpp's llama-imatrix does. The CPU computes, in exact precision."},
    {"bench", "MODEL", "MODEL [--prompt N,...] [--gen N,...] [-r N]", "measure the speed of prefill and decode",
     CLI_BENCH, cli_bench,
     "Several values of --devices and --cuts (repeat the option), --threads, --strategy, --precision and --sync make "
     "one\n"
     "row per combination. --prompt 0 or --gen 0 leaves that phase out."},
    {"profile", "[MODEL]", "[MODEL]", "measure the devices and save their fastest kernels", CLI_PROFILE, cli_profile,
     "Times every kernel of each device on the matrices of MODEL (default: a model of 1B) and saves the fastest in "
     "the\n"
     "cache folder. All commands use them from then on."},
    {"plan", "[MODEL]", "MODEL [--length N | --decode] | --load FILE", "show which device computes what", CLI_PLAN,
     cli_plan,
     "Prepares the model as other commands do. Shows each operator's cut, and each device's share of it with the\n"
     "predicted time and the memory it takes there. Equal layers share a line."},
    {"reproduce", "[MODEL]", "[MODEL] [--soc NAME]... [--out DIR] [--validate]",
     "compare simulated SoCs, or run the paper's experiments on one", CLI_REPRODUCE, cli_reproduce,
     "With one --soc: runs every experiment on it in virtual time, in half a minute to a few.\n"
     "Without --soc, with several or with MODEL: compares the SoCs (without --soc all) in a few minutes: the best "
     "plan,\n"
     "speed, energy, what limits it. MODEL: this model alone, not four of 1 to 8 billion weights.\n"
     "Writes DIR/report.html and DIR/tables.json.\n"
     "A figure of the SoC can be changed for one run: --soc snapdragon-8-gen-3@memory.together_GBps=80.\n"
     "--validate shows public measurements beside what the simulated SoCs predict for them, which of them were fitted "
     "to,\nevery parameter that was, and how far off the others are."},
    {"pull", "NAME", "hf:OWNER/REPO[@REVISION][:TYPE]", "fetch a model", CLI_PULL, cli_pull,
     "NAME may also be hf:OWNER/REPO/PATH/FILE.gguf. Without TYPE: Q4_K_M, else Q8_0, else the only model there is.\n"
     "Every command takes such a name as MODEL: one that is in the cache is used as it is, another is fetched; pull "
     "itself\n"
     "looks for a newer one. The cache is that of Hugging Face's tools (HF_HUB_CACHE, HF_HOME). HF_TOKEN is sent to\n"
     "HF_ENDPOINT (default https://huggingface.co) and to nobody else. Prints the path; Ctrl-C keeps what has come."},
    {"report", "[MODEL]", "[MODEL] [--devices A,B,...] [--out FILE]", "collect the facts for a bug report in one file",
     CLI_REPORT, cli_report,
     "Writes versions, machine, devices, the newest profile, plans and a short bench of MODEL (default:\n"
     "shape:smollm2-135m) as JSON. The file holds no names of people, hosts, files or folders, no environment, no\n"
     "addresses and no serial numbers; of MODEL it holds architecture, sizes and types. Failures are part of it."},
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

static void print_usage(FILE *file) {
    fputs("Usage: hetero COMMAND [ARGUMENT...] [OPTION...]\n\n"
          "Runs GGUF language models on the processors of this machine.\n\nCommands:\n",
          file);
    for (size_t i = 0; i < N_COMMANDS; i++)
        fprintf(file, "  %-11s %s\n", commands[i].name, commands[i].summary);
    fputs("\n'hetero COMMAND --help' shows the options of a command; 'hetero --version' the version.\n"
          "Exit status: 0 done, 1 failed, 2 wrong usage or input.\n",
          file);
}

static const cli_command *find_command(const char *name) {
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (!strcmp(commands[i].name, name))
            return &commands[i];
    return NULL;
}

static int run_command(const cli_command *command, int argc, char **argv) {
    static const char *const levels[] = {"error", "warn", "info", "debug"}; /* as ht_log_level counts */
    cli_options options;
    int status = cli_options_parse(command, argc, argv, &options);
    if (status == CLI_DONE && options.help) {
        cli_options_help(command);
    } else if (status == CLI_DONE) {
        const char *name = cli_last(&options.log_level);
        ht_log_level level = options.quiet ? HT_LOG_ERROR : HT_LOG_WARN;
        for (int i = 0; name && i < 4; i++)
            if (!strcmp(name, levels[i]))
                level = (ht_log_level)i;
        ht_log_set(NULL, NULL, level);
        const char *openvino = cli_last(&options.openvino), *onnxruntime = cli_last(&options.onnxruntime);
        if (openvino)
            ht_runtime_path("openvino", openvino, NULL);
        if (onnxruntime)
            ht_runtime_path("onnxruntime", onnxruntime, NULL);
        if (options.json)
            cli_hold_output();
        status = command->run(&options);
    }
    cli_options_clear(&options);
    return status;
}

/* In a signal handler. */
static void clean_up(void) {
    cli_lines_restore();
    ht_outputs_remove();
}

int main(int argc, char **argv) {
    /* PoCL reads this when it is first asked for its devices, and then keeps worker i on core i, so that a sub-device made
     * for cpus= stays on its cores. Other drivers do not know it. */
    ht_os_program_environment("POCL_AFFINITY", "1");
    ht_os_program_on_end(clean_up);
    if (argc > 2 && !strcmp(argv[1], "report-part")) /* what `hetero report` starts */
        return ht_report_part((const char *const *)argv + 2);
    /* Characters wider than a byte in line editing; numbers keep the C locale's point. */
    if (!setlocale(LC_CTYPE, "") || MB_CUR_MAX == 1)
        setlocale(LC_CTYPE, "C.UTF-8");
    if (argc < 2) {
        print_usage(stderr);
        return CLI_WRONG;
    }
    int status = CLI_DONE;
    const cli_command *command = find_command(argv[1]);
    if (command)
        status = run_command(command, argc - 1, argv + 1);
    else if (!strcmp(argv[1], "--version"))
        printf("hetero %s (commit %s)\n", ht_version(), ht_commit());
    else if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help"))
        print_usage(stdout);
    else
        status = cli_wrong(NULL, "unknown %s '%s'; 'hetero --help' lists the commands",
                           argv[1][0] == '-' ? "option" : "command", argv[1]);
    if ((fflush(stdout) || ferror(stdout)) && status == CLI_DONE) { /* a full disk must not look like success */
        fprintf(stderr, "hetero%s%s: standard output: %s\n", command ? " " : "", command ? command->name : "",
                strerror(errno));
        status = CLI_FAILED;
    }
    return status;
}
