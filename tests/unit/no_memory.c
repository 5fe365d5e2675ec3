/* Memory ends: the n-th allocation fails, n from 1 until all goes well, over everything a program does with the
 * library. Each time there is a clean error or the right result, nothing is left behind, and the same works afterwards.
 *
 * Allocations are counted where they are made: in this program's malloc, which the libraries we use call, too (pcre2,
 * jansson, the C library), and in anonymous mmap. Sanitizers bring a malloc of their own: there the linker puts ours
 * before it for our own code, and the leak check is theirs. */
#define _GNU_SOURCE
#include "engine/engine.h"
#include "text/template/template.h"
#include "unit/tiny_file.h"

#include <errno.h>
#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>

#if SANITIZED
#define OURS(name) __wrap_##name
#define REAL(name) __real_##name
#include <sanitizer/lsan_interface.h>
#else
#define OURS(name) name
#define REAL(name) __libc_##name
#endif

/* ---- the n-th fails -------------------------------------------------------------------------------------------------- */

static atomic_long left = -1; /* allocations until the one that fails; negative: none will */
static atomic_bool for_good;  /* and all after it */
static atomic_long alive;     /* allocations minus frees */

static bool refused(void) {
    if (atomic_load_explicit(&left, memory_order_relaxed) < 0)
        return false;
    const long before = atomic_load(&for_good) && atomic_load(&left) == 0 ? 0 : atomic_fetch_sub(&left, 1);
    return before == 0;
}

static void *kept(void *memory) {
    if (memory)
        atomic_fetch_add_explicit(&alive, 1, memory_order_relaxed);
    return memory;
}

static void *no_memory(void) {
    errno = ENOMEM;
    return NULL;
}

void *REAL(malloc)(size_t bytes);
void *REAL(calloc)(size_t n, size_t bytes);
void *REAL(realloc)(void *old, size_t bytes);
void REAL(free)(void *memory);
void *OURS(malloc)(size_t bytes);
void *OURS(calloc)(size_t n, size_t bytes);
void *OURS(realloc)(void *old, size_t bytes);
void OURS(free)(void *memory);
void *OURS(aligned_alloc)(size_t alignment, size_t bytes);
int OURS(posix_memalign)(void **out, size_t alignment, size_t bytes);
void *__real_mmap(void *address, size_t bytes, int protection, int flags, int file, off_t offset);
void *__wrap_mmap(void *address, size_t bytes, int protection, int flags, int file, off_t offset);
#if SANITIZED
void *__real_aligned_alloc(size_t alignment, size_t bytes);
#define ALIGNED(alignment, bytes) __real_aligned_alloc(alignment, ht_round_up(bytes, alignment))
#else
void *__libc_memalign(size_t alignment, size_t bytes);
#define ALIGNED(alignment, bytes) __libc_memalign(alignment, bytes)
#endif

void *OURS(malloc)(size_t bytes) {
    return refused() ? no_memory() : kept(REAL(malloc)(bytes));
}
void *OURS(calloc)(size_t n, size_t bytes) {
    return refused() ? no_memory() : kept(REAL(calloc)(n, bytes));
}
void *OURS(realloc)(void *old, size_t bytes) {
    if (refused())
        return no_memory();
    void *memory = REAL(realloc)(old, bytes);
    return old ? memory : kept(memory);
}
void OURS(free)(void *memory) {
    if (memory)
        atomic_fetch_sub_explicit(&alive, 1, memory_order_relaxed);
    REAL(free)(memory);
}
void *OURS(aligned_alloc)(size_t alignment, size_t bytes) {
    return refused() ? no_memory() : kept(ALIGNED(alignment, bytes));
}
int OURS(posix_memalign)(void **out, size_t alignment, size_t bytes) {
    if (refused())
        return ENOMEM;
    *out = kept(ALIGNED(alignment, bytes));
    return *out ? 0 : ENOMEM;
}
void *__wrap_mmap(void *address, size_t bytes, int protection, int flags, int file, off_t offset) {
    if (flags & MAP_ANONYMOUS && refused()) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    return __real_mmap(address, bytes, protection, flags, file, offset);
}

/* jansson's reader ends the program in an assertion of its own when memory does, so the cases that read JSON give it memory
 * that does not end. */
static void *endless(size_t bytes) {
    return kept(REAL(malloc)(bytes));
}
static void give_back(void *memory) {
    OURS(free)(memory);
}

/* ---- what a program does ---------------------------------------------------------------------------------------------- */

static char *path, *copy; /* a little model; where a quantised copy goes */
static ht_model *model;   /* the same, open */
static ht_engine *engine, *pair;
static ht_session *session;
static const int32_t prompt[] = {256, 72, 101, 108, 108, 111, 44, 32, 119, 111};
static int32_t expected[8]; /* what it goes on with */
static const void *running_case;
static bool wrong_text;
static const char two[] = "cpu:cpus=0,cpu:cpus=1";

static ht_status open_model(ht_error *error) {
    ht_model *opened = NULL;
    const ht_status status = ht_model_open(path, &opened, error);
    ht_model_close(opened);
    return status;
}

static ht_status open_shape(ht_error *error) {
    ht_model *opened = NULL;
    const ht_status status = ht_model_open("shape:tiny", &opened, error);
    ht_model_close(opened);
    return status;
}

static ht_status open_engine(const char *devices, ht_strategy strategy, ht_error *error) {
    ht_engine *made = NULL;
    const int prompts[] = {8};
    const ht_engine_options options =
        HT_INIT(ht_engine_options, .devices = devices, .strategy = strategy, .threads = strchr(devices, ',') ? 0 : 2,
                .context = 64, .chunk = 16, .prompts = prompts, .n_prompts = HT_COUNT(prompts));
    const ht_status status = ht_engine_create(model, &options, &made, error);
    ht_engine_destroy(made);
    return status;
}

static ht_status one_device(ht_error *error) {
    return open_engine("cpu", HT_STRATEGY_AUTO, error);
}
static ht_status two_devices(ht_error *error) {
    return open_engine(two, HT_STRATEGY_TENSOR, error);
}
static ht_status simulated(ht_error *error) {
    return open_engine("sim:snapdragon-8-gen-3/npu", HT_STRATEGY_AUTO, error);
}

static ht_status open_session(ht_error *error) {
    ht_session *made = NULL;
    const ht_status status = ht_session_create(engine, &made, error);
    ht_session_destroy(made);
    return status;
}

static ht_status generate(ht_session *from, ht_sampling sampling, ht_error *error) {
    ht_generate_result result = HT_INIT(ht_generate_result);
    const ht_generate_options options = HT_INIT(ht_generate_options, .max_tokens = 8, .sampling = &sampling,
                                                .stop = (const char *[]){"\x01\x02"}, .n_stop = 1, .top_logprobs = 2);
    const ht_status status = ht_session_generate(from, prompt, HT_COUNT(prompt), &options, &result, error);
    if (!status && sampling.temperature <= 0)
        assert_memory_equal(result.ids, expected, result.n * sizeof *expected);
    ht_generate_result_clear(&result);
    return status;
}

static ht_status greedy(ht_error *error) {
    return generate(session, HT_INIT(ht_sampling), error);
}
static ht_status sampled(ht_error *error) {
    return generate(session, HT_INIT(ht_sampling, .temperature = 1, .top_p = 0.9f, .repeat_penalty = 1.1f, .seed = 1),
                    error);
}

static ht_status shared(ht_error *error) {
    ht_session *made = NULL;
    ht_status status = ht_session_create(pair, &made, error);
    if (!status)
        status = generate(made, HT_INIT(ht_sampling), error);
    ht_session_destroy(made);
    return status;
}

static ht_status score(ht_error *error) {
    float logprobs[HT_COUNT(prompt)];
    ht_token_logprob top[HT_COUNT(prompt)];
    return ht_session_score(session, prompt, HT_COUNT(prompt), 0, logprobs, 1, top, error);
}

static ht_status perplexity(ht_error *error) {
    static const char text[] = "Memory ends, and what then? A clean error each, nothing left behind, nothing broken.";
    ht_perplexity_result result = {0};
    return ht_perplexity(session, NULL, text, HT_STRLEN, NULL, NULL, &result, error);
}

static ht_status bench(ht_error *error) {
    ht_bench_result result = {0};
    return ht_bench(session, &(ht_bench_options){.gen = 2, .repetitions = 1}, &result, error);
}

static ht_status tokenize(ht_error *error) {
    int32_t *tokens = NULL;
    size_t n = 0, bytes;
    char *text = NULL;
    ht_status status = ht_tokenize(model, "Hello, world 123 times!", HT_STRLEN, true, &tokens, &n, error);
    if (!status)
        status = ht_detokenize(model, tokens, n, false, &text, &bytes, error);
    if (!status)
        assert_string_equal(text, "Hello, world 123 times!");
    ht_free(tokens);
    ht_free(text);
    return status;
}

static ht_status chat(ht_error *error) {
    char *text = NULL;
    const ht_message messages[] = {{"user", "Hello"}, {"assistant", "Hi"}, {"user", "Bye"}};
    const ht_status status = ht_chat_format(model, messages, HT_COUNT(messages), true, &text, error);
    if (!status)
        assert_non_null(strstr(text, "Bye"));
    ht_free(text);
    return status;
}

static ht_status quantize(ht_error *error) {
    ht_quantize_result result = {0};
    return ht_quantize(path, copy, "q4_0", NULL, &result, error);
}

/* A text for which memory ran out is none, never a part of it. */
static void same_text(const char *text) {
    static char first[1 << 18];
    static const void *of;
    if (of != running_case)
        assert_in_range(snprintf(first, sizeof first, "%s", text), 1, sizeof first - 1);
    of = running_case;
    wrong_text |= strcmp(first, text) != 0;
}

static ht_status list_devices(ht_error *error) {
    const ht_device_info one = {.name = "cpu", .kind = "cpu", .usable = true};
    char *json = NULL;
    const ht_status status = ht_devices_json(&one, 1, &json, error);
    if (!status)
        same_text(json);
    ht_free(json);
    return status;
}

static ht_status plan(ht_error *error) {
    ht_plan_row *rows = NULL;
    size_t n = 0;
    char *json = NULL;
    ht_plan_times times = {0};
    ht_status status = ht_engine_plan(engine, 8, &rows, &n, &times, error);
    if (!status)
        status = ht_plan_json(rows, n, &times, &json, error);
    if (!status)
        same_text(json);
    ht_free(rows);
    ht_free(json);
    return status;
}

static ht_status trace(ht_error *error) {
    char *json = NULL;
    const ht_status status = ht_engine_trace(pair, 8, false, &json, error);
    if (!status)
        same_text(json);
    ht_free(json);
    return status;
}

static ht_status measured_trace(ht_error *error) {
    char *json = NULL;
    const ht_status status = ht_engine_trace(engine, 8, true, &json, error);
    ht_free(json);
    return status;
}

static ht_status profile_text(ht_error *error) {
    ht_profile_row row = {.device = "cpu", .op = "op", .kernel = "kernel"};
    ht_profile_point point = {.table = HT_PROFILE_CURVE, .with = -1, .tokens = 1, .seconds = 1};
    ht_profile_device device = {.spec = "cpu", .name = "cpu"};
    ht_profile_result result = {
        .rows = &row, .n = 1, .points = &point, .n_points = 1, .devices = &device, .n_devices = 1};
    char *json = NULL;
    const ht_status status = ht_profile_json(&result, &json, error);
    if (!status)
        same_text(json);
    ht_free(json);
    return status;
}

static ht_status template_text(ht_error *error) {
    static const char source[] =
        "{% macro m(a, b=[1, 'x']) %}{{ a | upper }}{{ b | join(s) }}{{ b | sort(attribute='y') | list if z }}{% "
        "endmacro %}"
        "{% for c in s %}{{ m(c) ~ loop.index }}{% set d = {'k': c} %}{{ d | tojson(indent=2) }}{{ d }}{% endfor %}";
    static json_t *variables; /* made before anything fails */
    if (!variables)
        variables = json_pack("{s:s}", "s", "a long text with many words in it");
    ht_template *t;
    ht_script out;
    ht_status status = ht_template_parse(source, sizeof source - 1, &t, error);
    if (status)
        return status;
    status = ht_template_render(t, variables, NULL, &out, error);
    if (!status)
        same_text(out.text.data);
    ht_script_free(&out);
    ht_template_destroy(t);
    return status;
}

/* ---- the steps -------------------------------------------------------------------------------------------------------- */

static void quiet(ht_log_level level, const char *line, void *user) {}

static void refuse_from(long n, bool all) {
    atomic_store(&for_good, all);
    atomic_store(&left, n);
}

static int
    wrong; /* steps that did not end as they should: all are shown, for one says little of where the others lie */

/* Of the n-th on: one fails, or all from there. True: it was not reached. */
static bool step(const char *name, ht_status (*run)(ht_error *error), long n, bool all) {
    ht_error error = {0};
    const long before = atomic_load(&alive);
    wrong_text = false;
    refuse_from(n, all);
    const ht_status status = run(&error);
    const bool over = atomic_load(&left) > 0;
    refuse_from(-1, false);
    const long left_behind = atomic_load(&alive) - before;
    /* where the C library opens a file, it is an error of that file, which says why */
    const bool told = status == HT_ERROR_MEMORY || (status == HT_ERROR_IO && strstr(error.text, strerror(ENOMEM)));
    const bool unclean = wrong_text || (status && (!told || error.status != status || !error.text[0]));
    if (unclean || (!SANITIZED && left_behind > 0)) {
        print_error("%s, allocation %ld%s: %s%s (%s: %s), %ld allocations left behind\n", name, n,
                    all ? " and all after" : "", ht_status_name(status), wrong_text ? ", another text" : "",
                    ht_status_name(error.status), error.text, SANITIZED ? 0 : left_behind);
        wrong++;
    }
    return over;
}

typedef struct memory_case {
    const char *name;
    ht_status (*run)(ht_error *error);
    bool reads_json;
    long from,
        every; /* from there on not each one, but one of so many: what it takes is many times the same; 0: each */
} memory_case;

static void every_allocation(const memory_case *c) {
    ht_error error = {0};
    running_case = c;
    json_set_alloc_funcs(c->reads_json ? endless : OURS(malloc), c->reads_json ? give_back : OURS(free));
    const double began = ht_seconds();
    for (int warm = 0; warm < 2; warm++) /* what is made once for the process, and results to compare with */
        check(c->run(&error), &error);
    long n = 0;
    for (int all = 0; all < 2; all++) {
        for (n = 0; !step(c->name, c->run, n, all); n += c->every && n > c->from ? c->every : 1)
            ;
        check(c->run(&error), &error); /* nothing is broken */
    }
    print_message("%s: %ld allocations, %.1f s\n", c->name, n, ht_seconds() - began);
}

static void test_every_allocation(void **state) {
#define EACH(name, run) \
    { name, run, false, 0, 0 }
#define SOME(name, run) \
    { name, run, true, 100, 7 }
    static const memory_case cases[] = {
        EACH("open a model", open_model),
        EACH("open a shape", open_shape),
        EACH("one device", one_device),
        SOME("two devices", two_devices),
        SOME("simulated", simulated),
        EACH("session", open_session),
        EACH("greedy", greedy),
        EACH("sampled", sampled),
        EACH("shared", shared),
        EACH("score", score),
        EACH("perplexity", perplexity),
        EACH("bench", bench),
        EACH("tokenize", tokenize),
        EACH("chat", chat),
        EACH("template", template_text),
        EACH("quantize", quantize),
        EACH("devices", list_devices),
        EACH("plan", plan),
        EACH("trace", trace),
        EACH("measured", measured_trace),
        EACH("profile", profile_text),
    };
    const char *only = getenv("HETERO_CASE");
    for (size_t i = 0; i < HT_COUNT(cases); i++)
        if (!only || !strcmp(only, cases[i].name))
            every_allocation(&cases[i]);
    assert_int_equal(wrong, 0);
}

static int start(void **state) {
    ht_error error = {0};
    if (make_folder(state))
        return -1;
    setenv("XDG_CACHE_HOME", test_folder, 1);
    path = tiny_save("tiny.gguf", NULL);
    copy = temporary_path("copy.gguf");
    ht_log_set(quiet, NULL, HT_LOG_WARN);
    check(ht_model_open(path, &model, &error), &error);
    check(ht_engine_create(model, &HT_INIT(ht_engine_options, .devices = "cpu:cpus=0"), &engine, &error), &error);
    const ht_engine_options options = HT_INIT(ht_engine_options, .devices = two, .strategy = HT_STRATEGY_TENSOR,
                                              .context = 64, .chunk = 16, .prompts = &(int){8}, .n_prompts = 1);
    check(ht_engine_create(model, &options, &pair, &error), &error);
    check(ht_session_create(engine, &session, &error), &error);
    ht_generate_result result = HT_INIT(ht_generate_result);
    check(ht_session_generate(session, prompt, HT_COUNT(prompt), &HT_INIT(ht_generate_options, .max_tokens = 8),
                              &result, &error),
          &error);
    memcpy(expected, result.ids, result.n * sizeof *expected);
    ht_generate_result_clear(&result);
    return 0;
}

static int end(void **state) {
    ht_session_destroy(session);
    ht_engine_destroy(pair);
    ht_engine_destroy(engine);
    ht_model_close(model);
    free(path);
    free(copy);
    return remove_folder(state);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_allocation)};
    return cmocka_run_group_tests(tests, start, end);
}
