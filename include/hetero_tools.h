/* hetero_tools: what the `hetero` command does besides generating text. It measures, explains, converts and reports.
 *
 * Conventions are those of hetero.h. One is added: structs of this header have no struct_size and may change with every
 * minor version. Build a program that uses this header against the version that it runs with; the library's file name
 * says which that is.
 */
#ifndef HETERO_TOOLS_H
#define HETERO_TOOLS_H

#include <hetero.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- the machine ----------------------------------------------------------------------------------------------- */

/* What ht_devices_list gave, as one JSON object {"devices", "missing"}. *json from malloc. */
ht_status ht_devices_json(const ht_device_info *list, size_t n, char **json, ht_error *error);
/* "Processor's name, 2 cores, Linux 6.1.0 x86_64", cut to capacity bytes. */
void ht_host_describe(char *text, size_t capacity);

/* ---- files ------------------------------------------------------------------------------------------------------ */

typedef struct ht_quantize_result {
    /* sizes of both files */
    uint64_t in_bytes, out_bytes;
} ht_quantize_result;
/* Zero-initialise. imatrix: path of an importance matrix (GGUF, as ht_imatrix and llama.cpp's llama-imatrix write it),
 * which says what the square of an error in each column is worth; NULL: all columns the same. threads: 0: one for each
 * core. progress (may be NULL) is called on the calling thread. */
typedef struct ht_quantize_options {
    const char *imatrix;
    int threads;
    ht_progress_function progress;
    void *progress_user;
} ht_quantize_options;
/* Writes IN with other types of weights. TYPE is one for every matrix ("q2_k", "q3_k", "q4_k", "q5_k", "q6_k",
 * "iq4_nl", "iq4_xs", "mxfp4", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "f16", "bf16"), or one of llama.cpp's recipes
 * ("q3_k_s", "q3_k_m", "q4_k_s", "q4_k_m", "q5_k_s", "q5_k_m"), which give some more bits. Rows that are no whole
 * blocks get a type that fits; norms stay F32, routers and small convolutions what they are. Matrices of experts have
 * importance by expert. OUT is replaced when all of it is written, and kept as it was otherwise. options may be NULL,
 * result, too. HT_ERROR_FORMAT: weights that are no numbers, an imatrix that is none or another model's (the error
 * names file and tensor). */
ht_status ht_quantize(const char *in, const char *out, const char *type, const ht_quantize_options *options,
                      ht_quantize_result *result, ht_error *error);

/* Zero-initialise. name: of the text, for the file; NULL: "". threads: 0: one for each core. progress (may be NULL) is
 * called on the calling thread. */
typedef struct ht_imatrix_options {
    const char *name;
    int threads;
    ht_progress_function progress;
    void *progress_user;
} ht_imatrix_options;
typedef struct ht_imatrix_result {
    /* matrices with an entry, those of all experts of a layer one; tokens that were computed */
    size_t entries;
    uint64_t tokens;
} ht_imatrix_result;
/* Computes a text with the model on the CPU, in exact precision, in pieces of 512 tokens (or the context, if smaller)
 * that each begin with BOS where the tokenizer adds one; what is no whole piece counts only where there is none. Writes
 * to OUT, for each matrix of a layer, the sums of squares of what its columns were multiplied by and the number of rows
 * summed, by expert where each token chooses some. The table of tokens and the output matrix have no entry. OUT is
 * replaced when all is written. HT_ERROR_UNSUPPORTED: no tokenizer, or a column without a finite sum. */
ht_status ht_imatrix_collect(ht_model *model, const char *text, size_t bytes, const char *out,
                             const ht_imatrix_options *options, ht_imatrix_result *result, ht_error *error);

/* ---- models of a hub ---------------------------------------------------------------------------------------------- */

/* A name "hf:OWNER/REPO", with ":TYPE" ("Q4_K_M") or "/PATH/FILE.gguf" behind it, and "@REVISION" behind REPO or at the end,
 * means a model that is fetched from https://huggingface.co, or from what HF_ENDPOINT says, into the cache folder of
 * Hugging Face's tools. Without a type it is Q4_K_M, else Q8_0, else the only model there is. */
bool ht_pull_is_name(const char *text); /* begins with "hf:" */

/* Zero-initialise. */
typedef struct ht_pull_options {
    /* a model that the cache has is taken as it is, whatever the hub has by now: nobody is asked */
    bool cached;
    /* nobody is asked at all, as if HF_HUB_OFFLINE were set */
    bool offline;
    /* give up after so many failures in a row that could be passing; 0: 5; below 0: at the first */
    int retries;
    /* may be NULL; called on the calling thread, ten times a second at least; returning false ends the pull, and the next
     * one goes on where it ended */
    ht_progress_function progress;
    void *progress_user;
} ht_pull_options;

typedef struct ht_pull_file {
    /* in the repository, and on this machine; of ht_pull_list: NULL where the cache does not have it */
    char *name, *path;
    uint64_t bytes;
    /* hexadecimal; "": not known */
    char sha256[65];
} ht_pull_file;
typedef struct ht_pull_result {
    /* a split model's parts in order; files[0].path opens all of it */
    ht_pull_file *files;
    size_t n;
    /* of all files; of these, what was not in the cache */
    uint64_t bytes, fetched_bytes;
    /* hexadecimal */
    char commit[65];
} ht_pull_result;

/* Sees to it that the cache has the model, and says where. What is fetched has its SHA-256 checked before it gets its name;
 * a download that broke off is gone on with, by this or a later call; two processes do not fetch the same.
 * HT_ERROR_ARGUMENT: the name is wrong, there is no such model, or it is not for this user; the line says what there is.
 * HT_ERROR_UNSUPPORTED: the build, or the machine, has no libcurl. HT_ERROR_CANCELLED. Clear the result. */
ht_status ht_pull(const char *name, const ht_pull_options *options, ht_pull_result *result, ht_error *error);
/* All models and parts of models of the repository, whatever type or file the name says. */
ht_status ht_pull_list(const char *name, const ht_pull_options *options, ht_pull_result *result, ht_error *error);
void ht_pull_result_clear(ht_pull_result *result);

/* ---- plans ------------------------------------------------------------------------------------------------------ */

/* What one device computes of one operator. Ranges are [begin, end). */
typedef struct ht_plan_row {
    const char *op, *device;
    /* "single", "row", "feature", "head", "query", "expert", "channel", "sequence", "hybrid", "causal", "layer",
     * "every" device */
    const char *cut;
    /* the operator's number in the model */
    size_t number;
    /* of its weights; 0: none; of a feed-forward block: features, embedding; of experts: 0, and the features of each */
    size_t rows, cols;
    /* the device's share of rows, and of columns; of experts, and of their features */
    size_t row_begin, row_end, reduction_begin, reduction_end;
    /* of key-value heads and the query heads that use them; cut "query": of query heads; 0, 0: not cut so */
    size_t head_begin, head_end;
    /* of the pass's tokens */
    size_t token_begin, token_end;
    /* predicted; 0: not measured */
    double seconds;
    /* the other devices are told when this is done */
    bool joins;
    /* held by the device for it: packed weights, or graphs of all lengths */
    uint64_t bytes;
    /* multiplications of weights by values of these tokens; of experts, as many as if all were chosen equally often */
    double products;
    /* only what another device of its lane has no room for, if anything: tokens of experts that are chosen too often */
    bool rest;
    /* the device named before it that does not compute this, and why; NULL: there is none */
    const char *left_by, *why;
} ht_plan_row;

/* What a pass with the head of one token is predicted to take; all 0: nothing was measured. */
typedef struct ht_plan_times {
    /* of this pass, and of all passes of the prompt */
    double seconds, prompt_seconds;
    /* the regime: "single", "causal", "shares", "owner" */
    const char *regime;
    /* tokens of this pass; lanes: sets of devices that compute whole models; joins of a layer */
    size_t tokens, lanes, joins;
    size_t n_alone, n_devices;
    /* [n_alone] what the pass would take on one lane, named by its first device; 0: that cannot compute it alone */
    struct {
        const char *device;
        double seconds;
    } alone[8];
    /* [n_devices] the devices of the rows: bytes held in all, and the most bytes of graphs (0: it has none) */
    struct {
        const char *name;
        uint64_t bytes, limit;
        /* with one session's caches, and where it has memory of its own the buffers; what it may hold, 0: any number */
        uint64_t held, room;
        /* timings are not meaningful */
        bool emulated;
    } devices[8];
    /* [n_busy] lanes of this pass, named as above: seconds with their own part, and waiting for other lanes */
    struct {
        const char *device;
        double busy, wait;
    } busy[8];
    size_t n_busy;
} ht_plan_times;

/* The plan for the first pass of a prompt of `tokens` tokens, in order; where devices run side by side, one device's part
 * follows the other's. *rows from malloc; its strings, and those of times (may be NULL), live as long as the engine. */
ht_status ht_engine_plan(ht_engine *engine, int tokens, ht_plan_row **rows, size_t *n, ht_plan_times *times,
                         ht_error *error);
/* The same as one JSON object. times may be NULL. *json from malloc. */
ht_status ht_plan_json(const ht_plan_row *rows, size_t n, const ht_plan_times *times, char **json, ht_error *error);
/* The same pass as a timeline in Chrome's trace-event format, a track for each lane: predicted (pid 1) and, if `run`,
 * measured with made-up tokens, each operator waited for (pid 2). *json from malloc. */
ht_status ht_engine_trace(ht_engine *engine, int tokens, bool run, char **json, ht_error *error);

/* ---- measuring ---------------------------------------------------------------------------------------------------- */

typedef struct ht_perplexity_result {
    double perplexity;
    /* counted ones */
    uint64_t tokens;
    /* the rest is there if a reference was given: divergence in nats, agreement in 0..1 */
    bool has_reference;
    double reference_perplexity, kl_mean, kl_max, top1_agreement;
} ht_perplexity_result;
/* Windows of 512 tokens (or the context, if smaller), each begun with BOS where the model has one; the second half of
 * each is counted. reference (may be NULL): a session of the same model whose probabilities are the yardstick. */
ht_status ht_perplexity(ht_session *session, ht_session *reference, const char *text, size_t bytes,
                        ht_progress_function progress, void *user, ht_perplexity_result *result, ht_error *error);

/* Zero-initialise. Exactly one of prompt and gen is positive: prefill of `prompt` tokens, or `gen` tokens decoded after
 * one. repetitions 0: 5. One warm-up run comes before them. sequences: so many are decoded together, each of them `gen`
 * tokens, and speeds are those of all; 0: 1. */
typedef struct ht_bench_options {
    int prompt, gen;
    int repetitions;
    int sequences;
} ht_bench_options;
typedef struct ht_bench_result {
    /* tokens per second */
    double tps_median, tps_min, tps_max;
    /* of the process so far */
    uint64_t peak_rss_bytes;
    int repetitions;
} ht_bench_result;
ht_status ht_bench(ht_session *session, const ht_bench_options *options, ht_bench_result *result, ht_error *error);

/* ---- profile ------------------------------------------------------------------------------------------------------- */

/* Zero-initialise. devices: as of ht_engine_options; NULL or "": every device found. quick: fewer numbers of tokens and
 * shorter runs. progress (may be NULL) is called on the calling thread, and not after ht_profile has returned. */
typedef struct ht_profile_options {
    const char *devices;
    ht_precision precision;
    bool quick;
    ht_progress_function progress;
    void *progress_user;
} ht_profile_options;

/* The search for kernels: one matrix shape with one number of tokens on one device. */
typedef struct ht_profile_row {
    /* op: the model's first of this shape */
    char device[64], op[64];
    size_t rows, cols, tokens;
    /* found quickest: engines use it from now on */
    char kernel[160];
    /* of one run: the kernel's, and those of the one that would be chosen without measuring */
    double seconds, by_rule;
    int tried;
} ht_profile_row;

/* CURVE      the largest matrix of a layer, by number of tokens
 * ORDER      static graphs: the same with either operand first
 * SHAPE      about as many weights in other proportions, and parts of the rows
 * JOINS      a tiny task from submit to the end of the wait for it
 * BANDWIDTH  one-token products of matrices larger than caches: a file's bytes of weights in so many seconds
 * GRAPHS     static graphs: seconds to build one, and its bytes */
typedef enum ht_profile_table {
    HT_PROFILE_CURVE,
    HT_PROFILE_ORDER,
    HT_PROFILE_SHAPE,
    HT_PROFILE_JOINS,
    HT_PROFILE_BANDWIDTH,
    HT_PROFILE_GRAPHS,
    HT_PROFILE_TABLES
} ht_profile_table;

typedef struct ht_profile_point {
    ht_profile_table table;
    /* of devices[]; with: of BANDWIDTH, the one that ran at the same time; -1: none */
    int device, with;
    /* ORDER "weights", SHAPE "1:4" or "3/4 of rows", JOINS "flag, alone"; else "" */
    char what[32];
    size_t rows, cols, tokens;
    /* seconds: the median; p99: of JOINS */
    double seconds, p99, bytes;
} ht_profile_point;

/* What a device's times depend on. */
typedef struct ht_profile_device {
    char spec[256], name[64], runtime[64], description[160];
    /* a list such as "0-3,6"; "": none of this machine's */
    char cores[128];
    /* its times are a staircase */
    bool static_graphs;
    /* of a result that was loaded: what has changed since, in one line; "": nothing */
    char stale[400];
} ht_profile_device;

typedef struct ht_profile_result {
    ht_profile_row *rows;
    size_t n, n_points, n_devices;
    ht_profile_point *points;
    ht_profile_device *devices;
    /* date: "2025-11-25T10:25:01Z" */
    char model[256], machine[256], date[32], version[16];
    ht_precision precision;
    bool quick;
    /* the file in the cache folder that holds all this; "": it could not be kept */
    char path[1024];
} ht_profile_result;

/* Measures what single devices, and pairs that share no core, do with matrices like those of `model`, and keeps it in the
 * cache folder; a device's best kernels are kept for engines, too. A device that fails is left out with a warning. On an
 * error the kernels found so far are kept. Clear the result, then too. */
ht_status ht_profile(const ht_model *model, const ht_profile_options *options, ht_profile_result *result,
                     ht_error *error);
/* The newest result that is kept and has all of these devices: "cpu", "sim:NAME/gpu", "sim:NAME" for any of that
 * chip's, with commas; NULL: the newest of no simulated device. HT_ERROR_IO: there is none. */
ht_status ht_profile_load(const char *devices, ht_profile_result *result, ht_error *error);
/* The result as one JSON object. *text from malloc. */
ht_status ht_profile_json(const ht_profile_result *result, char **text, ht_error *error);
/* One HTML file of figures and tables that needs nothing else. */
ht_status ht_profile_report(const ht_profile_result *result, const char *path, ht_error *error);
void ht_profile_result_clear(ht_profile_result *result);
/* ---- reports -------------------------------------------------------------------------------------------------------- */

/* Runs the paper's experiments on a simulated SoC (a name, or a file's path): FOLDER/report.html and FOLDER/tables.json. */
ht_status ht_reproduce(const char *soc, const char *folder, ht_progress_function progress, void *user, ht_error *error);

/* Chips compared: for each of the SoCs (names or paths; n_socs 0: all that are embedded) and each model (a path or
 * shape:NAME; NULL: four of 1 to 8 billion weights) the best plan, its speed and energy in both phases, what limits it,
 * and what each term of the planner brings over one that cuts single operators. Minutes. Writes FOLDER/report.html and
 * FOLDER/tables.json; *json, from malloc, is the latter's text. */
ht_status ht_compare_chips(const char *const *socs, size_t n_socs, const char *model, const char *folder,
                           ht_progress_function progress, void *user, char **json, ht_error *error);

/* What public measurements of other engines on real chips say, and what the simulated chips predict for them: *json,
 * from malloc, has the tables as in FOLDER/tables.json. soc: the rows of this chip alone; NULL: of all. folder: also
 * FOLDER/report.html and FOLDER/tables.json; NULL: no files. */
ht_status ht_validate(const char *soc, const char *folder, char **json, ht_error *error);

/* For a bug report, as JSON (*json from malloc): versions, machine, devices, the profile kept, plans and a short bench of
 * `model` (NULL: shape:smollm2-135m). Of the options: devices, threads, progress. Names of people, hosts and files are
 * taken out. A part that fails is an entry with its error. program: a command line (its first word a path, NULL at the end)
 * that starts a process for each part, for drivers crash and hang: more arguments follow, and main() hands those to
 * ht_report_part. NULL: the parts run in this process, and what crashes there ends it. */
ht_status ht_report(const char *model, const ht_engine_options *options, const char *const *program, char **json,
                    ht_error *error);
/* For main() of a program that ht_report starts: does one part, writes it to standard output and ends the process. Returns,
 * with an exit status, only if it cannot. arguments: those behind the program's own, NULL at the end. */
int ht_report_part(const char *const *arguments);
/* path NULL: a new hetero-report-DATE.json in this folder, nothing is replaced. written: the file's path. */
ht_status ht_report_save(const char *json, const char *path, char *written, size_t capacity, ht_error *error);

#ifdef __cplusplus
}
#endif
#endif
