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
 *
 * Structs that grow. A struct that the caller fills, or has filled, begins with struct_size. Make it with HT_INIT,
 * which sets that and lets every other field be zero, and zero always means the default:
 *
 *     const ht_engine_options options = HT_INIT(ht_engine_options, .devices = "cpu");
 *
 * A library that is newer than the program then knows which fields the program has, and one that is older refuses what
 * it does not know instead of ignoring it. A struct_size of 0 is HT_ERROR_ARGUMENT. Structs that the library hands out
 * by pointer may grow at their end.
 *
 * Callbacks. Each function that takes one says on which thread it is called. None is called after the function that it
 * was given to has returned, except the log's, which stays until it is replaced, and a batch request's on_logits, which
 * steps call until that has ended.
 *
 * The process. The library sets no environment variable, installs no signal handler, changes no file descriptor, starts
 * no other program and ends nothing but its own work. Threads of the caller's keep their cores: where cpus= asks for
 * cores, a thread that calls in stays on these while it computes and is put back. Libraries of runtimes are opened by
 * their full path or the system's search, never relative to the current folder, and stay open. What these do is theirs;
 * two things are for a program to decide:
 *   - PoCL keeps a thread on each core if POCL_AFFINITY is 1 in the environment, which it needs for cpus=. Only then are
 *     those threads, PoCL's own, moved to cores that are in use; without it nothing of PoCL's is touched.
 *   - Qualcomm's emulator (x86-64) writes a line to standard output now and then.
 *
 * Tools that measure, explain or convert are in hetero_tools.h.
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
#define HT_VERSION_MINOR 2
#define HT_VERSION_PATCH 0
#define HT_STRLEN ((size_t)-1)
/* A struct with its struct_size, the fields that follow, and zero in all others. */
#ifdef __cplusplus /* C++20 */
#define HT_INIT(type, ...) (type{.struct_size = sizeof(type), __VA_ARGS__})
#else
#define HT_INIT(type, ...) ((type){.struct_size = sizeof(type), __VA_ARGS__})
#endif

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

/* "0.2.0" */
const char *ht_version(void);
/* Of the source tree: "1a2b3c4", "1a2b3c4-dirty", "unknown". */
const char *ht_commit(void);
/* "ok", "argument", ... */
const char *ht_status_name(ht_status status);
/* Releases what a function of this library allocated for the caller. NULL is allowed. */
void ht_free(void *memory);

typedef enum ht_log_level { HT_LOG_ERROR, HT_LOG_WARN, HT_LOG_INFO, HT_LOG_DEBUG } ht_log_level;
/* Called on whichever thread has something to say, one line at a time; `line` is valid during the call. It must not call
 * ht_log_set. */
typedef void (*ht_log_function)(ht_log_level level, const char *line, void *user);
/* Process-wide. The default prints warnings and errors to standard error; NULL restores it. When this returns, the function
 * set before is not running and will not be called again. */
void ht_log_set(ht_log_function function, void *user, ht_log_level most_detailed);

/* Long work reports itself through this: done of total units of `what`. Returning false asks to stop. */
typedef bool (*ht_progress_function)(const char *what, double done, double total, void *user);

/* ---- model ---------------------------------------------------------------------------------------------------- */
typedef struct ht_model ht_model;
typedef struct ht_type_count {
    const char *type; /* "Q4_0", "F32", ... */
    uint64_t tensors, parameters, bytes;
} ht_type_count;

/* Lives as long as the model. */
typedef struct ht_model_info {
    /* name may be "" */
    const char *path, *architecture, *name;
    /* type of most weight bytes, "Q4_1" */
    const char *quantisation;
    uint64_t parameters, file_bytes;
    int layers, embedding, heads, kv_heads, head_dim, feed_forward, vocabulary, context_length;
    /* tokens; 0: none */
    int sliding_window;
    const ht_type_count *types;
    size_t n_types;
    /* the file's model and pre-tokenizer: "gpt2/smollm", "llama/default" */
    const char *tokenizer;
    /* name of its chat template (ht_chat_template_info), or NULL */
    const char *chat_template;
    /* token ids, -1: none */
    int bos, eos;
    bool adds_bos;
    /* opened by ht_model_open_vocabulary: what is said of layers is 0 */
    bool vocabulary_alone;
} ht_model_info;

/* PATH is a GGUF file (any part of a split one). HT_ERROR_UNSUPPORTED: an architecture that is not known, or no weights. */
ht_status ht_model_open(const char *path, ht_model **model, ht_error *error);
/* The same of a file that is open for reading, as systems hand it over that give a program no path: all of it, wherever
 * the descriptor's position is. The descriptor stays the caller's and need not outlive the call. name (NULL: "the
 * model"): for errors, and ht_model_info.path. A part of a split file is HT_ERROR_UNSUPPORTED. */
ht_status ht_model_open_descriptor(int descriptor, const char *name, ht_model **model, ht_error *error);
/* A GGUF file for its tokenizer and chat template alone, whatever its architecture and whether it holds weights: text
 * becomes tokens and back, an engine cannot be made of it. HT_ERROR_UNSUPPORTED: it has no tokenizer, or one that is
 * not known. */
ht_status ht_model_open_vocabulary(const char *path, ht_model **model, ht_error *error);
void ht_model_close(ht_model *model); /* NULL is allowed; engines on it must be gone */
const ht_model_info *ht_model_get_info(const ht_model *model);

/* ---- text ------------------------------------------------------------------------------------------------------ */
/* Bits of `flags` of ht_tokenize, ht_chat_render and ht_chat_tokenize. Text from outside (a user, a file, the network)
 * is to be read without PARSE_SPECIAL: with it, whoever wrote the text can end their turn and speak as another role. */
typedef enum ht_tokenize_flag {
    /* The tokens that the model wants round every text: the BOS, where there is one. A text that begins with the BOS
     * already (PARSE_SPECIAL) gets no second one. */
    HT_TOKENIZE_ADD_SPECIAL = 1,
    /* The text of a special token ("<|im_end|>") becomes that token. Without it, it is text like any other. */
    HT_TOKENIZE_PARSE_SPECIAL = 2
} ht_tokenize_flag;

/* flags: HT_TOKENIZE_*, 0 for none; HT_ERROR_ARGUMENT for any other bit. *ids: [n], from malloc (ht_free), never NULL. */
ht_status ht_tokenize(const ht_model *model, const char *text, size_t bytes, unsigned flags, int32_t **ids, size_t *n,
                      ht_error *error);
/* Bytes a token stands for, not NUL-terminated; control tokens give their text only when `special`. NULL: bad id. */
const char *ht_token_text(const ht_model *model, int32_t id, bool special, size_t *bytes);
bool ht_token_ends_generation(const ht_model *model, int32_t id);
/* Text of many tokens; invalid UTF-8 is kept as it is. *text from malloc, NUL-terminated. */
ht_status ht_detokenize(const ht_model *model, const int32_t *ids, size_t n, bool special, char **text, size_t *bytes,
                        ht_error *error);

/* Bytes [begin, end) of a text. */
typedef struct ht_stretch {
    size_t begin, end;
} ht_stretch;

typedef struct ht_message {
    const char *role; /* "system", "user", "assistant" */
    const char *content;
} ht_message;

/* A conversation as a chat template gets it: simple messages, or JSON. Make it with HT_INIT. */
typedef struct ht_conversation {
    size_t struct_size;
    /* [n_messages], if json is NULL */
    const ht_message *messages;
    size_t n_messages;
    /* an array of messages in OpenAI's form: role; content, which is a text, null or a list of parts ({"type": "text",
     * "text": ...}); tool_calls, tool_call_id, name, reasoning_content, and whatever else the template reads. Or an object
     * with such "messages" and, if it has them, "tools" and "kwargs". NUL-terminated, as the two below */
    const char *json;
    /* an array of tools in OpenAI's form; NULL: none, or json's */
    const char *tools;
    /* an object, more variables of the template, such as {"enable_thinking": false}; they come before json's "kwargs" */
    const char *kwargs;
    /* the text ends with the last message; otherwise where the assistant is to speak */
    bool no_generation_prompt;
    /* the last message, the assistant's, is the beginning of an answer that goes on: the text ends with its content */
    bool continue_last;
    /* what a template that asks for the date is told, in seconds since 1970; 0: the clock's */
    int64_t now;
} ht_conversation;

/* What the model sees. Make it with HT_INIT before the call; ht_rendering_clear releases what is in it. */
typedef struct ht_rendering {
    size_t struct_size;
    /* NUL-terminated, as the template writes it, its BOS included */
    char *text;
    size_t text_bytes;
    /* [n_foreign] of the text what came from the conversation, whatever the template did to it: in order, none touching
     * another */
    ht_stretch *foreign;
    size_t n_foreign;
    /* [n] */
    int32_t *ids;
    size_t n;
} ht_rendering;

/* Renders a conversation by the model's chat template (Jinja, as Hugging Face's transformers sets it up) into text and
 * tokens. Messages go to the template as they are, but for two things: a list of parts of text becomes one text, with
 * newlines between, where the template takes no lists (and a text a list, where it takes no texts), and a call's
 * arguments, which OpenAI's form has as JSON in a text, become an object where the template would garble the text.
 * The template's own marks are always special tokens. What came from the conversation, names, arguments and tools
 * included, is plain text, so that nobody can speak as another role from within a message, unless flags (HT_TOKENIZE_*)
 * has PARSE_SPECIAL. ADD_SPECIAL: the BOS, once, where the tokenizer or the template wants one; without it, none at the
 * start.
 * Two renderings of a conversation that grows begin alike as far as the template lets them: ht_session_prefill computes
 * only what is new.
 * A file's template named "tool_use" is for conversations with tools, its other one for the rest. A file without any gets
 * ChatML, if its vocabulary has <|im_start|> and <|im_end|>.
 * HT_ERROR_UNSUPPORTED: the model has no template, or one with something that is not supported. HT_ERROR_ARGUMENT: the
 * template does not take these messages, and raised an exception: its text is the error's. HT_ERROR_FORMAT: the JSON is
 * wrong, or the template does what Jinja refuses. */
ht_status ht_chat_render(const ht_model *model, const ht_conversation *conversation, unsigned flags,
                         ht_rendering *rendering, ht_error *error);
void ht_rendering_clear(ht_rendering *rendering);
/* The text alone, of simple messages: ends where the assistant is to speak if add_assistant. *text from malloc, to be
 * looked at. Errors as above. */
ht_status ht_chat_format(const ht_model *model, const ht_message *messages, size_t n, bool add_assistant, char **text,
                         ht_error *error);
/* The tokens alone. *ids: [n_ids], from malloc (ht_free). */
ht_status ht_chat_tokenize(const ht_model *model, const ht_message *messages, size_t n, bool add_assistant,
                           unsigned flags, int32_t **ids, size_t *n_ids, ht_error *error);

/* What a chat template is and takes. Make it with HT_INIT before the call. Texts live as long as the model, or until it
 * gets another template. */
typedef struct ht_chat_template_info {
    size_t struct_size;
    /* "default", "tool_use": the file's; "given": ht_model_set_chat_template; "chatml": ours, for files without one;
     * NULL: there is none */
    const char *name;
    const char *source;
    size_t bytes;
    /* why it cannot be used; NULL: it can */
    const char *why;
    /* it shows a system message, descriptions of tools, calls of tools; takes lists of parts as content */
    bool system, tools, tool_calls, parts;
    /* the member of an assistant's message whose text it shows as thoughts ("reasoning_content"), and the variable that
     * turns thinking on, off, up or down ("enable_thinking"); NULL: none */
    const char *reasoning, *thinking;
} ht_chat_template_info;
/* Of conversations with tools, or without. It is found out by rendering small conversations, once. */
ht_status ht_chat_template(const ht_model *model, bool with_tools, ht_chat_template_info *info, ht_error *error);
/* Replaces the model's templates by this one; bytes may be HT_STRLEN. No other thread may use the model meanwhile. An error
 * leaves what was there. */
ht_status ht_model_set_chat_template(ht_model *model, const char *source, size_t bytes, ht_error *error);

/* ---- devices ----------------------------------------------------------------------------------------------------- */
/* An element of ht_devices_list. */
typedef struct ht_device_info {
    /* "cpu", "opencl:0", ... */
    char name[64];
    /* "cpu", "gpu", "npu" */
    char kind[8];
    /* "hetero avx512-vnni", "OpenCL 3.0 PoCL", ...; its version, "": none of its own */
    char runtime[64], driver[64];
    /* the processor's own name */
    char description[160];
    /* weight forms, comma-separated: "int4,int8,f16,f32" */
    char dtypes[96];
    /* "" for a device that takes any length */
    char static_lengths[96];
    /* what bounds it, for a person: "2 compute units, 11.7 GiB in one buffer, ..." */
    char limits[160];
    uint64_t memory_bytes;
    /* emulated: numbers are real, timings are not meaningful */
    bool unified_memory, usable, simulated, emulated;
    /* if not usable or limited: why */
    char why[256];
} ht_device_info;

/* Where a runtime that is opened at run time lies: runtime "openvino" or "onnxruntime", path of its library or of a folder
 * that holds it. Process-wide, before the first device of that runtime; NULL: search as usual. */
ht_status ht_runtime_path(const char *runtime, const char *path, ht_error *error);

/* Everything found and everything looked for and not found (usable false). *list from malloc. */
ht_status ht_devices_list(ht_device_info **list, size_t *n, ht_error *error);

/* ---- engine -------------------------------------------------------------------------------------------------------- */
typedef struct ht_engine ht_engine;
typedef enum ht_kv_type { HT_KV_F16, HT_KV_F32 } ht_kv_type;
typedef enum ht_precision { HT_PRECISION_FAST, HT_PRECISION_EXACT } ht_precision;
/* How the end of work on a device is waited for: draining its queue, asking an event again and again, an event's callback,
 * sleeping for the time it took before and then watching a flag that the device writes. AUTO: what suits the device. */
typedef enum ht_sync { HT_SYNC_AUTO, HT_SYNC_FINISH, HT_SYNC_EVENT, HT_SYNC_CALLBACK, HT_SYNC_FLAG } ht_sync;
/* "auto", "finish", "event", "callback", "flag" */
const char *ht_sync_name(ht_sync sync);

/* How devices share the work. SINGLE: each operator whole on the first device named that takes it. LAYER: whole matrices on
 * one device, all else on another. TENSOR: every cut there is, between devices that share no cores. AUTO: whichever of these
 * the planner predicts to be quickest, one device alone included. */
typedef enum ht_strategy { HT_STRATEGY_AUTO, HT_STRATEGY_SINGLE, HT_STRATEGY_LAYER, HT_STRATEGY_TENSOR } ht_strategy;

/* Make it with HT_INIT; every zero means the default. */
typedef struct ht_engine_options {
    size_t struct_size;
    /* "cpu", "cpu:cpus=0-1:isa=avx2", ...; NULL: all real ones */
    const char *devices;
    /* of the CPU device; 0: one per core that this process may use */
    int threads;
    ht_precision precision;
    /* tokens a session can hold; 0: the model's own, at most 4096 */
    int context;
    /* of the KV cache; F32 doubles its memory and takes away its rounding */
    ht_kv_type kv_type;
    /* tokens computed at once in prefill; 0: 512, or all of the context where a model makes embeddings only */
    int chunk;
    ht_sync sync;
    ht_strategy strategy;
    /* of TENSOR: only these of "row,sequence,hybrid,feature,head,query,expert,channel,causal,layer", between several
     * devices; NULL: all */
    const char *cuts;
    /* measure the devices anew, even where an earlier measurement is kept */
    bool measure;
    /* most bytes of NPU graphs; 0: half of the device's memory */
    uint64_t npu_memory;
    /* [n_prompts] tokens of the prompts to come, where they are known: NPU graphs are built for these before the engine is
     * there, and for no others until they are needed. None: for a middle length at first, then in the background for all. */
    const int *prompts;
    size_t n_prompts;
    /* called on the thread that calls ht_engine_create, and not after that has returned */
    ht_progress_function progress;
    void *progress_user;
    /* of AUTO and SINGLE: "TEXT=DEVICE,...": operators with this text in their names ("ffn_experts", "blk.3.") are
     * computed on that device of `devices`, named as there, options left out or not; the first text that fits counts.
     * Others where they are quickest. NULL, "": all of them so */
    const char *place;
    /* of AUTO: each device holds all weights, not only those that its plans use and a margin around them */
    bool whole_weights;
} ht_engine_options;

/* Lives as long as the engine. */
typedef struct ht_engine_info {
    /* [n_devices] names of the devices in use */
    const char *const *devices;
    size_t n_devices;
    int threads, context, chunk;
    ht_precision precision;
    ht_kv_type kv_type;
    uint64_t weight_bytes, buffer_bytes, kv_bytes_per_session;
    /* a device is emulated: numbers are real, timings are not meaningful, and shares of several devices follow a rule */
    bool emulated;
    /* the devices are a described SoC's: numbers are real, times are predicted */
    bool simulated;
    /* [n_dropped] devices that were named, or found, and are not used: "NAME: why" */
    const char *const *dropped;
    size_t n_dropped;
} ht_engine_info;

/* The model must outlive the engine. options may be NULL: all defaults. */
ht_status ht_engine_create(ht_model *model, const ht_engine_options *options, ht_engine **engine, ht_error *error);
void ht_engine_destroy(ht_engine *engine); /* sessions on it must be gone */
const ht_engine_info *ht_engine_get_info(const ht_engine *engine);
ht_model *ht_engine_model(const ht_engine *engine);

/* ---- session ------------------------------------------------------------------------------------------------------- */
typedef struct ht_session ht_session;
ht_status ht_session_create(ht_engine *engine, ht_session **session, ht_error *error);
void ht_session_destroy(ht_session *session);
/* Tokens whose keys and values the session holds. */
const int32_t *ht_session_tokens(const ht_session *session, size_t *n);
/* Makes the next call in progress, or the next one, return HT_ERROR_CANCELLED soon (the session stays usable). */
void ht_session_cancel(ht_session *session);

/* Makes ids[0..n) the session's tokens: the longest common prefix with what it holds is reused (models with states: as
 * far as there is a copy of these), the rest computed in chunks. *logits: [vocabulary] float32 that follow the last
 * token, the session's, valid until the next call. *reused (may be NULL): tokens not computed again. HT_ERROR_CONTEXT
 * if n exceeds the context: nothing has changed. */
ht_status ht_session_prefill(ht_session *session, const int32_t *ids, size_t n, const float **logits, size_t *reused,
                             ht_error *error);
/* Appends one token. HT_ERROR_CONTEXT when the context is full. */
ht_status ht_session_decode(ht_session *session, int32_t id, const float **logits, ht_error *error);

/* Make it with HT_INIT; zero means greedy. */
typedef struct ht_sampling {
    size_t struct_size;
    /* <= 0: greedy */
    float temperature;
    /* 0: off, for each of these; repeat_penalty: 1 is off, too */
    int top_k;
    float top_p, min_p;
    float repeat_penalty;
    /* last tokens that the penalty looks at; 0: 64 */
    int repeat_window;
    /* the same one draws the same tokens every time; 0 is one like any other */
    uint64_t seed;
    /* draw a seed instead; ht_generate_result.seed tells which */
    bool random_seed;
} ht_sampling;

/* Chooses tokens from logits, for programs that do so themselves; `sampling` below has generation make one. One
 * thread's at a time. */
typedef struct ht_sampler ht_sampler;
/* For logits [vocabulary]. sampling may be NULL: greedy. */
ht_status ht_sampler_create(const ht_sampling *sampling, size_t vocabulary, ht_sampler **sampler, ht_error *error);
void ht_sampler_destroy(ht_sampler *sampler); /* NULL is allowed */
/* The id of a token, by logits [vocabulary], which are left as they are, and history[0..n), the tokens so far, the
 * newest last (for the repeat penalty). A NaN is never chosen. */
int32_t ht_sampler_pick(ht_sampler *sampler, const float *logits, const int32_t *history, size_t n);
/* What it draws with: the one asked for, or the random one. */
uint64_t ht_sampler_seed(const ht_sampler *sampler);

typedef struct ht_token_logprob {
    int32_t id;
    /* natural logarithm */
    float logprob;
} ht_token_logprob;

/* What a token callback sees; valid during the call. */
typedef struct ht_generation {
    /* token just sampled; -1: none, what was held back follows at the end */
    int32_t id;
    /* whole UTF-8 characters that can be shown by now, may be "" */
    const char *text;
    size_t text_bytes;
    /* [n_top] alternatives by the model's own (temperature 1) probabilities */
    const ht_token_logprob *top;
    size_t n_top;
} ht_generation;
/* Called on the thread that generates. False: stop here. */
typedef bool (*ht_token_function)(const ht_generation *step, void *user);

/* Sees the logits [n] before a token is chosen from them, and may change them: -INFINITY rules a token out. tokens:
 * [n_tokens] all so far, the prompt included. Called on the thread that generates or steps; log-probabilities that are
 * reported are the model's own. Of a batch it may call what may be called from any thread. If none is left, token 0 is
 * chosen. */
typedef void (*ht_logits_function)(float *logits, size_t n, const int32_t *tokens, size_t n_tokens, void *user);

/* Make it with HT_INIT. */
typedef struct ht_generate_options {
    size_t struct_size;
    /* 0: until an end token or the context is full */
    int max_tokens;
    /* NULL: greedy */
    const ht_sampling *sampling;
    /* [n_stop] strings that end the text and are not part of it; a control token's text stands for that token */
    const char *const *stop;
    size_t n_stop;
    /* alternatives reported for each token */
    int top_logprobs;
    ht_token_function on_token;
    void *user;
    /* may be NULL */
    ht_logits_function on_logits;
    void *logits_user;
    /* the caller's own, instead of `sampling`, and in use until the answer has ended: the next answer goes on drawing
     * where this one has stopped */
    ht_sampler *sampler;
} ht_generate_options;

typedef enum ht_stop {
    HT_STOP_LIMIT,
    HT_STOP_END,
    HT_STOP_STRING,
    HT_STOP_CONTEXT,
    HT_STOP_CALLER,
    HT_STOP_CANCELLED
} ht_stop;
/* "limit", "end", "string", "context", "caller", "cancelled" */
const char *ht_stop_name(ht_stop stop);

/* Make it with HT_INIT before the call; ht_generate_result_clear releases what is in it. */
typedef struct ht_generate_result {
    size_t struct_size;
    /* [n] tokens, an end token not included */
    int32_t *ids;
    size_t n;
    /* NUL-terminated; a character that the last token leaves unfinished is not in it */
    char *text;
    size_t text_bytes;
    /* [n][n_top]; NULL if none were asked for */
    ht_token_logprob *top;
    size_t n_top;
    ht_stop stop;
    size_t prompt_tokens, prompt_reused;
    /* decode: from the first token to the last */
    double prefill_ms, decode_ms;
    /* that the tokens were drawn with */
    uint64_t seed;
} ht_generate_result;

/* Writes the session's tokens, their keys, values and states to a file, and where the generator of `sampler` stands, if
 * that is not NULL. Load makes them the session's and the sampler's, whatever these held: of the same model, precision
 * and kv_type, a context that has room for the tokens, and a host of the same byte order; devices with memory of their
 * own compute them again. A sampler that stands as another did draws as that would, if it was made with the same
 * ht_sampling. HT_ERROR_FORMAT: no saved session, or damaged; HT_ERROR_UNSUPPORTED: of another version;
 * HT_ERROR_ARGUMENT: of another model, precision or kv_type, or without a sampler's generator where one is wanted, or
 * (save) a path that is no file; HT_ERROR_IO: it cannot be read or written; HT_ERROR_CONTEXT: too long. Session and
 * sampler are as they were then. */
ht_status ht_session_save(ht_session *session, const ht_sampler *sampler, const char *path, ht_error *error);
ht_status ht_session_load(ht_session *session, ht_sampler *sampler, const char *path, ht_error *error);

/* Prefills ids and generates. Cancellation is a result (HT_STOP_CANCELLED), not an error. */
ht_status ht_session_generate(ht_session *session, const int32_t *ids, size_t n, const ht_generate_options *options,
                              ht_generate_result *result, ht_error *error);
void ht_generate_result_clear(ht_generate_result *result);

/* ---- batch --------------------------------------------------------------------------------------------------------- */
/* Requests that are answered together: a pass takes a token of every answer under way and pieces of the prompts behind
 * them, so that weights are read once for all. One thread steps; add, fork, cancel, take and pending may be called from
 * any, too. */
typedef struct ht_batch ht_batch;

/* Make it with HT_INIT; every zero means the default. */
typedef struct ht_batch_options {
    size_t struct_size;
    /* that are computed at once, each with keys and values of its own (ht_engine_info.kv_bytes_per_session); who comes
     * later waits for one to end; 0: 8, or as many as a pass has tokens (chunk) if that is less; at most 64, and that */
    int sequences;
    /* tokens, of all these together, whose keys and values are held: where they do not suffice, the request that came
     * last waits, and is computed again from where its tokens begin to differ; an answer that needs more by itself ends
     * (HT_STOP_CONTEXT); 0: any number */
    size_t tokens;
    /* seconds that pieces of prompts may make answers under way wait; 0: 0.25 */
    double pass_seconds;
} ht_batch_options;

/* What a step has brought for one request. */
typedef struct ht_batch_event {
    uint64_t request;
    /* id -1 and no text: nothing new. Valid until the next step, and until the request is taken */
    ht_generation piece;
    /* nothing follows: ht_batch_take has the result */
    bool ended;
} ht_batch_event;

/* The engine must outlive the batch; sessions on it go on as ever, pass by pass in turn. options may be NULL. */
ht_status ht_batch_create(ht_engine *engine, const ht_batch_options *options, ht_batch **batch, ht_error *error);
void ht_batch_destroy(ht_batch *batch); /* NULL is allowed; requests that have not ended go with it */
/* Adds a request, which *request names from then on; nothing is computed yet. What ids and options point to is copied.
 * Tokens that an earlier or another request has begun with are not computed again where their keys and values are held.
 * options as of ht_session_generate, but for on_token: events stand for it. HT_ERROR_CONTEXT: longer than the context,
 * or than `tokens` above. */
ht_status ht_batch_add(ht_batch *batch, const int32_t *ids, size_t n, const ht_generate_options *options,
                       uint64_t *request, ht_error *error);
/* The same with all tokens that another request has by now, its prompt and the beginning of its answer, as the prompt. */
ht_status ht_batch_fork(ht_batch *batch, uint64_t of, const ht_generate_options *options, uint64_t *request,
                        ht_error *error);
/* One pass. *events: [*n], valid until the next step; none where no request is pending. After an error nothing is lost:
 * what the pass was to compute, the next step tries again; events are set then, too, for requests that were cancelled
 * end. */
ht_status ht_batch_step(ht_batch *batch, const ht_batch_event **events, size_t *n, ht_error *error);
/* Requests that have not ended. */
size_t ht_batch_pending(ht_batch *batch);
/* The request ends in the next step (HT_STOP_CANCELLED), with what there is by then. One that is unknown or has ended:
 * nothing happens. */
void ht_batch_cancel(ht_batch *batch, uint64_t request);
/* The result of a request that has ended, which is forgotten then, or the error that it ended with. HT_ERROR_ARGUMENT:
 * it has not, or there is none of this name. prefill_ms counts from when the request's turn came. */
ht_status ht_batch_take(ht_batch *batch, uint64_t request, ht_generate_result *result, ht_error *error);

/* ---- measuring ------------------------------------------------------------------------------------------------------ */
/* Teacher forcing: logprobs[i] = log p(ids[i] | ids[0..i)), logprobs[0] = NAN. top (may be NULL): [n][n_top], row i is
 * what follows token i, best first. chunk: tokens fed at a time; 0: the engine's own. Replaces the session's tokens. */
ht_status ht_session_score(ht_session *session, const int32_t *ids, size_t n, int chunk, float *logprobs, size_t n_top,
                           ht_token_logprob *top, ht_error *error);

/* Called on the calling thread with the logits [vocabulary] that follow token `position`; valid during the call. The
 * engine is held meanwhile: it must call nothing that is of the same engine or of its sessions and batches. False:
 * stop. */
typedef bool (*ht_position_function)(size_t position, const float *logits, size_t vocabulary, void *user);
/* Logits of any position: makes ids[0..n) the session's tokens, all computed, and calls `visit` for tokens first, first
 * + 1, ..., n - 1. HT_ERROR_CANCELLED if it returns false. */
ht_status ht_session_logits(ht_session *session, const int32_t *ids, size_t n, size_t first, ht_position_function visit,
                            void *user, ht_error *error);

/* What of a text's tokens makes up its embedding. DEFAULT: what the file's key "pooling_type" says; without one, LAST. */
typedef enum ht_pooling {
    HT_POOLING_DEFAULT,
    HT_POOLING_NONE,
    HT_POOLING_MEAN,
    HT_POOLING_FIRST,
    HT_POOLING_LAST
} ht_pooling;
/* "default", "none", "mean", "first", "last" */
const char *ht_pooling_name(ht_pooling pooling);
/* The pooling that DEFAULT stands for; DEFAULT: one that is not known here (a ranking head). */
ht_pooling ht_model_pooling(const ht_model *model);
/* What the model makes of ids[0..n): the hidden states behind its last norm, pooled. *vectors: [*count][embedding]
 * (ht_model_info), from malloc (ht_free); *count is n for NONE, else 1. normalise: each vector over its length.
 * Replaces the session's tokens. HT_ERROR_UNSUPPORTED: DEFAULT, and the file's is none of these.
 *
 * Of some families (docs/models.md) tokens see later ones, too, and a text is one pass: HT_ERROR_CONTEXT where it has more
 * tokens than `chunk` of ht_engine_info. Sessions of these models do nothing else: calls for logits or text are
 * HT_ERROR_UNSUPPORTED. The matrices that a file has behind the pooling are applied to every vector. */
ht_status ht_session_embed(ht_session *session, const int32_t *ids, size_t n, ht_pooling pooling, bool normalise,
                           float **vectors, size_t *count, ht_error *error);

#ifdef __cplusplus
}
#endif
#endif
