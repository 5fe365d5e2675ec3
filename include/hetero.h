/* hetero: runs GGUF language models on every processor of a machine.
 *
 * The objects, in the order a program meets them:
 *   ht_model    a GGUF file, mapped and checked: hyperparameters, weights, tokenizer, chat template
 *   ht_engine   a model prepared on devices: weights packed, buffers allocated, plan made
 *   ht_session  one conversation on an engine: the tokens seen so far and their KV cache
 *
 * Conventions. Every function that can fail returns ht_status and, if `error` is not NULL, writes one line there that
 * names the file, tensor or option at fault. Output pointers are set on success only. What a function allocates for the
 * caller is released with ht_free unless the comment names another function. Strings are UTF-8; a length of
 * HT_STRLEN means "up to the NUL". A model and an engine may be used by several threads at once, a session by one at a
 * time (ht_session_cancel alone may come from any thread, signal handlers included).
 */
#ifndef HETERO_H
#define HETERO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HT_VERSION_MAJOR 0
#define HT_VERSION_MINOR 1
#define HT_VERSION_PATCH 0
#define HT_STRLEN ((size_t)-1)
#define HT_MAX_THREADS 1024

/* ---- errors -------------------------------------------------------------------------------------------------- */
typedef enum ht_status {
    HT_OK = 0,
    HT_ERROR_ARGUMENT,    /* an argument or option is wrong */
    HT_ERROR_FORMAT,      /* a file's content is wrong */
    HT_ERROR_UNSUPPORTED, /* right, but not something this build can do */
    HT_ERROR_IO,          /* a file could not be read or written */
    HT_ERROR_MEMORY,      /* memory ran out */
    HT_ERROR_DEVICE,      /* a device is missing or failed */
    HT_ERROR_CONTEXT,     /* the context is full */
    HT_ERROR_CANCELLED    /* ht_session_cancel was called */
} ht_status;

typedef struct ht_error {
    ht_status status;
    char text[512]; /* one line, NUL-terminated, no newline at its end */
} ht_error;

const char *ht_version(void);                 /* "0.1.0" */
const char *ht_commit(void);                  /* of the source tree: "1a2b3c4", "1a2b3c4-dirty", "unknown" */
const char *ht_status_name(ht_status status); /* "ok", "argument", ... */
void ht_free(void *memory);                   /* NULL is allowed */
typedef enum ht_log_level { HT_LOG_ERROR, HT_LOG_WARN, HT_LOG_INFO, HT_LOG_DEBUG } ht_log_level;
typedef void (*ht_log_function)(ht_log_level level, const char *line, void *user);
/* Process-wide; the default prints warnings and errors to standard error. NULL restores the default. */
void ht_log_set(ht_log_function function, void *user, ht_log_level most_detailed);

/* Long work reports itself through this: done of total units of `what`. Returning false asks to stop. */
typedef bool (*ht_progress_function)(const char *what, double done, double total, void *user);

/* ---- model ---------------------------------------------------------------------------------------------------- */
typedef struct ht_model ht_model;
typedef struct ht_type_count {
    const char *type; /* "Q4_0", "F32", ... */
    uint64_t tensors, parameters, bytes;
} ht_type_count;

typedef struct ht_model_info {
    const char *path, *architecture, *name; /* name may be "" */
    const char *quantisation;               /* type of most weight bytes, "Q4_1" */
    uint64_t parameters, file_bytes;
    int layers, embedding, heads, kv_heads, head_dim, feed_forward, vocabulary, context_length;
    int sliding_window; /* tokens; 0: none */
    const ht_type_count *types;
    size_t n_types;
    const char *tokenizer;     /* "gpt2/smollm", "llama/default": the file's model and pre-tokenizer */
    const char *chat_template; /* name of the recognised template ("chatml", "gemma", ...), or NULL */
    int bos, eos;              /* token ids, -1: none */
    bool adds_bos;
} ht_model_info;

/* PATH is a GGUF file (any part of a split one). */
ht_status ht_model_open(const char *path, ht_model **model, ht_error *error);
void ht_model_close(ht_model *model); /* NULL is allowed; engines on it must be gone */
const ht_model_info *ht_model_get_info(const ht_model *model);
/* Writes TYPE ("q4_0", "q4_1", "q8_0", "f16") of every matrix of IN that is wide enough; norms stay F32. */
typedef struct ht_quantize_result {
    uint64_t in_bytes, out_bytes;
} ht_quantize_result;
ht_status ht_quantize(const char *in, const char *out, const char *type, ht_progress_function progress, void *user,
                      ht_quantize_result *result, ht_error *error);

/* ---- text ------------------------------------------------------------------------------------------------------ */
/* special: add the BOS the model asks for and read special tokens' text as those tokens. *ids from malloc (ht_free). */
ht_status ht_tokenize(const ht_model *model, const char *text, size_t bytes, bool special, int32_t **ids, size_t *n,
                      ht_error *error);
/* Bytes a token stands for, not NUL-terminated; control tokens give their text only when `special`. NULL: bad id. */
const char *ht_token_text(const ht_model *model, int32_t id, bool special, size_t *bytes);
bool ht_token_ends_generation(const ht_model *model, int32_t id);
/* Text of many tokens; invalid UTF-8 is kept as it is. *text from malloc, NUL-terminated. */
ht_status ht_detokenize(const ht_model *model, const int32_t *ids, size_t n, bool special, char **text, size_t *bytes,
                        ht_error *error);

typedef struct ht_message {
    const char *role; /* "system", "user", "assistant" */
    const char *content;
} ht_message;
/* The conversation in the model's chat template, ending where the assistant is to speak if add_assistant.
 * HT_ERROR_UNSUPPORTED names a template that is not recognised. *text from malloc, to be tokenized with special. */
ht_status ht_chat_format(const ht_model *model, const ht_message *messages, size_t n, bool add_assistant, char **text,
                         ht_error *error);

/* ---- devices ----------------------------------------------------------------------------------------------------- */
typedef struct ht_device_info {
    char name[64];                /* "cpu", "opencl:0", ... */
    char kind[8];                 /* "cpu", "gpu", "npu" */
    char runtime[64], driver[64]; /* "hetero avx512-vnni", "OpenCL 3.0 PoCL", ...; version, "": none of its own */
    char description[160];        /* processor's own name */
    char dtypes[96];              /* weight forms, comma-separated: "int4,int8,f16,f32" */
    char static_lengths[96];      /* "" for a device that takes any length */
    char limits[160];             /* what bounds it, for a person: "2 compute units, 11.7 GiB in one buffer, ..." */
    uint64_t memory_bytes;
    bool unified_memory, usable, simulated, emulated; /* emulated: numbers are real, times say nothing */
    char why[256];                                    /* if not usable or limited: why */
} ht_device_info;

/* Where a runtime that is opened at run time lies: runtime "openvino" or "onnxruntime", path of its library or of a folder
 * that holds it. Process-wide, before the first device of that runtime; NULL: search as usual. */
ht_status ht_runtime_path(const char *runtime, const char *path, ht_error *error);

/* Everything found and everything looked for and not found (usable false). *list from malloc. */
ht_status ht_devices_list(ht_device_info **list, size_t *n, ht_error *error);
ht_status ht_devices_json(const ht_device_info *list, size_t n, char **json, ht_error *error); /* *json from malloc */
void ht_host_describe(char *text, size_t capacity); /* "Processor's name, 2 cores, Linux 6.1.0 x86_64" */

/* ---- engine -------------------------------------------------------------------------------------------------------- */
typedef struct ht_engine ht_engine;
typedef enum ht_kv_type { HT_KV_F16, HT_KV_F32 } ht_kv_type;
typedef enum ht_precision { HT_PRECISION_FAST, HT_PRECISION_EXACT } ht_precision;
/* How the end of work on a device is waited for: draining its queue, asking an event again and again, an event's callback,
 * sleeping for the time it took before and then watching a flag that the device writes. AUTO: what suits the device. */
typedef enum ht_sync { HT_SYNC_AUTO, HT_SYNC_FINISH, HT_SYNC_EVENT, HT_SYNC_CALLBACK, HT_SYNC_FLAG } ht_sync;
const char *ht_sync_name(ht_sync sync); /* "auto", "finish", "event", "callback", "flag" */

/* How devices share the work. SINGLE: each operator whole on the first device named that takes it. LAYER: whole matrices on
 * one device, all else on another. TENSOR: every cut there is, between devices that share no cores. AUTO: whichever of these
 * the planner predicts to be quickest, one device alone included. */
typedef enum ht_strategy { HT_STRATEGY_AUTO, HT_STRATEGY_SINGLE, HT_STRATEGY_LAYER, HT_STRATEGY_TENSOR } ht_strategy;

typedef struct ht_engine_options { /* zero-initialise: every zero means the default */
    const char *devices;           /* "cpu", "cpu:cpus=0-1:isa=avx2", ...; NULL: all real ones */
    int threads;                   /* of the CPU device, at most HT_MAX_THREADS; 0: one per core that may be used */
    ht_precision precision;
    int context;        /* tokens a session can hold; 0: the model's own, at most 4096 */
    ht_kv_type kv_type; /* of the KV cache; F32 doubles its memory and takes away its rounding */
    int chunk;          /* tokens computed at once in prefill; 0: 512 */
    ht_sync sync;
    ht_strategy strategy;
    const char *cuts;    /* of TENSOR: only these of "row,sequence,hybrid,feature,head,causal,layer"; several devices */
    bool measure;        /* measure the devices anew, even where an earlier measurement is kept */
    uint64_t npu_memory; /* most bytes of NPU graphs; 0: half of the device's memory */
    /* Tokens of the prompts to come, where they are known: NPU graphs are built for these before the engine is there, and
     * for no others until they are needed. None: for a middle length at first, then in the background for all. */
    const int *prompts;
    size_t n_prompts;
    ht_progress_function progress;
    void *progress_user;
} ht_engine_options;

typedef struct ht_engine_info {
    const char *const *devices; /* names of the devices in use */
    size_t n_devices;
    int threads, context, chunk;
    ht_precision precision;
    ht_kv_type kv_type;
    uint64_t weight_bytes, buffer_bytes, kv_bytes_per_session;
    bool emulated; /* a device is: numbers are real, times say nothing, and shares of several devices follow a rule */
} ht_engine_info;

ht_status ht_engine_create(ht_model *model, const ht_engine_options *options, ht_engine **engine, ht_error *error);
void ht_engine_destroy(ht_engine *engine); /* sessions on it must be gone */
const ht_engine_info *ht_engine_get_info(const ht_engine *engine);
ht_model *ht_engine_model(const ht_engine *engine);

typedef struct ht_plan_row { /* what one device computes of one operator */
    const char *op, *device;
    const char *cut; /* "single", "row", "feature", "head", "sequence", "hybrid", "causal", "layer", "every" device */
    size_t number, rows, cols; /* in the model; of its weights, 0: none (a feed-forward block: features, embedding) */
    size_t row_begin, row_end; /* the device's share of rows, */
    size_t reduction_begin, reduction_end; /* and of columns */
    size_t head_begin, head_end;           /* of key-value heads, and the queries' with them; 0, 0: not cut so */
    size_t token_begin, token_end;         /* and of the pass's tokens */
    double seconds;                        /* predicted; 0: not measured */
    bool joins;                            /* the other devices are told when this is done */
    uint64_t bytes;                        /* what the device holds for it: packed weights, or graphs of all lengths */
} ht_plan_row;
typedef struct ht_plan_times {      /* predicted, of a pass with the head of one token; 0: nothing was measured */
    double seconds, prompt_seconds; /* of this pass; of all passes of the prompt */
    const char *strategy;           /* "single", "causal", "shares", "owner" */
    size_t tokens, lanes, joins;    /* of this pass; sets of devices that compute whole models; of a layer */
    size_t n_alone, n_devices;      /* of alone: what the pass would take on one lane; of devices: those in the rows */
    struct {
        const char *device; /* the lane's first */
        double seconds;
    } alone[8];
    struct {
        const char *name;
        uint64_t bytes, limit; /* that it holds in all; most bytes of graphs, 0: it has none */
        bool emulated;         /* its times say nothing */
    } devices[8];
} ht_plan_times;
/* The plan for the first pass of a prompt of `tokens` tokens, in order (one device's part after the other's, where they run
 * side by side). *rows from malloc; its strings, and those of times (may be NULL), live as long as the engine. */
ht_status ht_engine_plan(ht_engine *engine, int tokens, ht_plan_row **rows, size_t *n, ht_plan_times *times,
                         ht_error *error);
ht_status ht_plan_json(const ht_plan_row *rows, size_t n, const ht_plan_times *times, char **json, ht_error *error);
/* The same pass as a timeline in Chrome's trace-event format, a track for each lane: predicted (pid 1) and, if `run`,
 * measured with made-up tokens, each operator waited for (pid 2). *json from malloc. */
ht_status ht_engine_trace(ht_engine *engine, int tokens, bool run, char **json, ht_error *error);

/* ---- session ------------------------------------------------------------------------------------------------------- */
typedef struct ht_session ht_session;
ht_status ht_session_create(ht_engine *engine, ht_session **session, ht_error *error);
void ht_session_destroy(ht_session *session);
/* Tokens whose keys and values the session holds. */
const int32_t *ht_session_tokens(const ht_session *session, size_t *n);
/* Makes the next call in progress, or the next one, return HT_ERROR_CANCELLED soon (the session stays usable). */
void ht_session_cancel(ht_session *session);

/* Makes ids[0..n) the session's tokens: the longest common prefix with what it holds is reused, the rest computed in
 * chunks. *logits: [vocabulary] float32 that follow the last token, owned by the session, valid until the next call.
 * *reused (may be NULL): tokens not computed again. HT_ERROR_CONTEXT if n exceeds the context: nothing has changed. */
ht_status ht_session_prefill(ht_session *session, const int32_t *ids, size_t n, const float **logits, size_t *reused,
                             ht_error *error);
/* Appends one token. HT_ERROR_CONTEXT when the context is full. */
ht_status ht_session_decode(ht_session *session, int32_t id, const float **logits, ht_error *error);

typedef struct ht_sampling { /* zero-initialised: greedy */
    float temperature;       /* <= 0: greedy */
    int top_k;               /* 0: off */
    float top_p, min_p;      /* 0: off */
    float repeat_penalty;    /* 0 or 1: off */
    int repeat_window;       /* last tokens the penalty looks at; 0: 64 */
    uint64_t seed;           /* 0: a random one; any other draws the same tokens every time */
} ht_sampling;

typedef struct ht_token_logprob {
    int32_t id;
    float logprob; /* natural logarithm */
} ht_token_logprob;

typedef struct ht_generation { /* what a token callback sees */
    int32_t id;                /* token just sampled; -1: none, what was held back follows at the end */
    const char *text;          /* whole UTF-8 characters that can be shown by now, may be "" */
    size_t text_bytes;
    const ht_token_logprob *top; /* n_top alternatives by the model's own (temperature 1) probabilities */
    size_t n_top;
} ht_generation;
typedef bool (*ht_token_function)(const ht_generation *step, void *user); /* false: stop here */

typedef struct ht_generate_options { /* zero-initialise */
    int max_tokens;                  /* 0: until an end token or the context is full */
    ht_sampling sampling;
    const char *const *stop; /* strings that end the text; not part of it */
    size_t n_stop;
    int top_logprobs; /* alternatives reported for each token */
    ht_token_function on_token;
    void *user;
} ht_generate_options;

typedef enum ht_stop {
    HT_STOP_LIMIT,
    HT_STOP_END,
    HT_STOP_STRING,
    HT_STOP_CONTEXT,
    HT_STOP_CALLER,
    HT_STOP_CANCELLED
} ht_stop;
const char *ht_stop_name(ht_stop stop); /* "limit", "end", "string", "context", "caller", "cancelled" */

typedef struct ht_generate_result {
    int32_t *ids; /* n tokens (end token not included), from malloc */
    size_t n;
    char *text; /* NUL-terminated, from malloc */
    size_t text_bytes;
    ht_token_logprob *top; /* [n][n_top], from malloc; NULL if none were asked for */
    size_t n_top;
    ht_stop stop;
    size_t prompt_tokens, prompt_reused;
    double prefill_ms, decode_ms; /* decode: from the first token to the last */
} ht_generate_result;

/* Prefills ids and generates. Cancellation is a result (HT_STOP_CANCELLED), not an error. */
ht_status ht_session_generate(ht_session *session, const int32_t *ids, size_t n, const ht_generate_options *options,
                              ht_generate_result *result, ht_error *error);
void ht_generate_result_clear(ht_generate_result *result);

/* ---- measuring ------------------------------------------------------------------------------------------------------ */
/* Teacher forcing: logprobs[i] = log p(ids[i] | ids[0..i)), logprobs[0] = NAN. top (may be NULL): [n][n_top], row i is
 * what follows token i, best first. chunk: tokens fed at a time; 0: the engine's own. Replaces the session's tokens. */
ht_status ht_session_score(ht_session *session, const int32_t *ids, size_t n, int chunk, float *logprobs, size_t n_top,
                           ht_token_logprob *top, ht_error *error);

typedef struct ht_perplexity_result {
    double perplexity;
    uint64_t tokens; /* counted ones */
    bool has_reference;
    double reference_perplexity, kl_mean, kl_max, top1_agreement; /* against `reference`; nats; agreement in 0..1 */
} ht_perplexity_result;
/* Windows of 512 tokens (or the context, if smaller), each begun with BOS where the model has one; the second half of
 * each is counted. reference (may be NULL): a session of the same model whose probabilities are the yardstick. */
ht_status ht_perplexity(ht_session *session, ht_session *reference, const char *text, size_t bytes,
                        ht_progress_function progress, void *user, ht_perplexity_result *result, ht_error *error);

typedef struct ht_bench_options { /* zero-initialise */
    int prompt, gen; /* exactly one is positive: prefill of `prompt` tokens, or `gen` tokens decoded after one */
    int repetitions; /* 0: 5; one warm-up run besides */
} ht_bench_options;
typedef struct ht_bench_result {
    double tps_median, tps_min, tps_max; /* tokens per second */
    uint64_t peak_rss_bytes;             /* of the process so far */
    int repetitions;
} ht_bench_result;
ht_status ht_bench(ht_session *session, const ht_bench_options *options, ht_bench_result *result, ht_error *error);

/* ---- profile ------------------------------------------------------------------------------------------------------- */
typedef struct ht_profile_options { /* zero-initialise */
    const char *devices;            /* as of ht_engine_options; NULL or "": every device found */
    ht_precision precision;
    bool quick; /* fewer numbers of tokens, shorter runs */
    ht_progress_function progress;
    void *progress_user;
} ht_profile_options;
typedef struct ht_profile_row { /* the search for kernels: one matrix shape with one number of tokens on one device */
    char device[64], op[64];    /* op: the first of this shape */
    size_t rows, cols, tokens;
    char kernel[160];        /* found quickest: what engines use from now on */
    double seconds, by_rule; /* of one run: the kernel's, and of the one that would be chosen without measuring */
    int tried;
} ht_profile_row;
typedef enum ht_profile_table {
    HT_PROFILE_CURVE,     /* the largest matrix of a layer, by number of tokens */
    HT_PROFILE_ORDER,     /* static graphs: the same with either operand first */
    HT_PROFILE_SHAPE,     /* about as many weights in other proportions, and parts of the rows */
    HT_PROFILE_JOINS,     /* a tiny task from submit to the end of the wait for it */
    HT_PROFILE_BANDWIDTH, /* one-token products of matrices larger than caches: bytes of weights (a file's) in seconds */
    HT_PROFILE_GRAPHS,    /* static graphs: seconds to build one, and its bytes */
    HT_PROFILE_TABLES
} ht_profile_table;
typedef struct ht_profile_point {
    ht_profile_table table;
    int device, with; /* of devices[]; with: BANDWIDTH, the one that ran at the same time; -1: none */
    char what[32];    /* ORDER "weights", SHAPE "1:4" or "3/4 of rows", JOINS "flag, alone"; else "" */
    size_t rows, cols, tokens;
    double seconds, p99, bytes; /* seconds: the median; p99: JOINS */
} ht_profile_point;
typedef struct ht_profile_device { /* what times depend on */
    char spec[256], name[64], runtime[64], description[160];
    uint64_t cores;     /* bits */
    bool static_graphs; /* its times are a staircase */
    char stale[400];    /* of a result that was loaded: what is not so any more, in one line; "": all is */
} ht_profile_device;
typedef struct ht_profile_result {
    ht_profile_row *rows;
    size_t n, n_points, n_devices;
    ht_profile_point *points;
    ht_profile_device *devices;
    char model[256], machine[256], date[32], version[16]; /* date: "2025-11-25T10:25:01Z" */
    ht_precision precision;
    bool quick;
    char path[1024]; /* the file in the cache folder that holds all this; "": it could not be kept */
} ht_profile_result;
/* Measures what single devices, and pairs that share no core, do with matrices like those of `model`, and keeps it in the
 * cache folder; a device's best kernels are kept for engines, too. A device that fails is left out with a warning. On an
 * error the kernels found so far are kept. Clear the result, then too. */
ht_status ht_profile(const ht_model *model, const ht_profile_options *options, ht_profile_result *result,
                     ht_error *error);
/* The newest result that is kept. HT_ERROR_IO: there is none. */
ht_status ht_profile_load(ht_profile_result *result, ht_error *error);
ht_status ht_profile_json(const ht_profile_result *result, char **text, ht_error *error); /* *text from malloc */
/* One HTML file of figures and tables that needs nothing else. */
ht_status ht_profile_report(const ht_profile_result *result, const char *path, ht_error *error);
void ht_profile_result_clear(ht_profile_result *result);
/* Runs the paper's experiments on a simulated SoC (a name, or a file's path): FOLDER/report.html and FOLDER/tables.json. */
ht_status ht_reproduce(const char *soc, const char *folder, ht_progress_function progress, void *user, ht_error *error);

/* For a bug report, as JSON (*json from malloc): versions, machine, devices, the profile kept, plans and a short bench of
 * `model` (NULL: shape:smollm2-135m). Of the options: devices, threads, progress. Names of people, hosts and files are
 * taken out. Each part that fails is an entry with its error. program: a command line (its first word a path, NULL at the
 * end) that starts a process for each part, for drivers crash and hang: more arguments follow, and main() hands these to
 * ht_report_part. NULL: the parts run in this process, and what crashes there ends it. */
ht_status ht_report(const char *model, const ht_engine_options *options, const char *const *program, char **json,
                    ht_error *error);
/* Does one part and ends the process. Takes standard output. arguments: those that follow the program's own, NULL at the end. */
int ht_report_part(const char *const *arguments);
/* path NULL: a new hetero-report-DATE.json in this folder, nothing is replaced. written: the file's path. */
ht_status ht_report_save(const char *json, const char *path, char *written, size_t capacity, ht_error *error);

#ifdef __cplusplus
}
#endif
#endif
