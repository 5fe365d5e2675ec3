/* Answers taken apart: for every style what it makes of one, however the answer is cut; and that nothing is lost of
 * what looks like a call and is none. `test_reply TEMPLATE` prints the style of a chat template in a file. */
#include "text/reply/reply.h"
#include "unit/test.h"

#define BAR "\xef\xbd\x9c"
#define SPACE "\xe2\x96\x81"
#define TOOL(words) "<" BAR "tool" SPACE words BAR ">"
#define DSML "<" BAR "DSML" BAR
#define DSML_END "</" BAR "DSML" BAR

static const char tools_text[] =
    "[{\"type\": \"function\", \"function\": {\"name\": \"f\", \"parameters\": {\"type\": \"object\", \"properties\": {"
    "\"s\": {\"type\": \"string\"}, \"n\": {\"type\": \"integer\"}}}}}, {\"name\": \"g\", \"input_schema\": "
    "{\"properties\":"
    " {\"s\": {\"type\": \"string\"}}}}]";

/* Events as a line: content as it is, <r:...> reasoning, <c0:NAME#ID ARGUMENTS> calls. */
typedef struct record {
    ht_text line, arguments;
    ht_reply_kind last;
    bool any;
} record;

static void put(ht_text *text, const char *data, size_t bytes) {
    assert_int_equal(ht_text_append(text, data, bytes, NULL), HT_OK);
}

static ht_status listen(void *user, const ht_reply_event *event) {
    record *const r = user;
    if (r->any && r->last == HT_REPLY_REASONING && event->kind != HT_REPLY_REASONING)
        put(&r->line, ">", 1);
    if (event->kind == HT_REPLY_REASONING && (!r->any || r->last != HT_REPLY_REASONING))
        put(&r->line, "<r:", 3);
    if (event->kind == HT_REPLY_CALL) {
        r->arguments.bytes = 0;
        assert_int_equal(ht_text_printf(&r->line, NULL, "<c%zu:", event->call), HT_OK);
    }
    put(&r->line, event->text, event->bytes);
    if (event->kind == HT_REPLY_CALL) {
        if (event->id)
            assert_int_equal(ht_text_printf(&r->line, NULL, "#%s", event->id), HT_OK);
        put(&r->line, " ", 1);
    }
    if (event->kind == HT_REPLY_ARGUMENTS)
        put(&r->arguments, event->text, event->bytes);
    if (event->kind == HT_REPLY_CALL_END)
        put(&r->line, ">", 1);
    r->last = event->kind;
    r->any = true;
    return HT_OK;
}

static json_t *tools;

/* The line that an answer gives, fed in pieces of `piece` bytes (0: of random ones). */
static ht_text parse(const char *style, const char *chat_template, const char *prompt, const char *answer,
                     size_t piece) {
    record r = {.any = false};
    ht_error error = {0};
    ht_reply *reply;
    const ht_reply_config config = {.style = ht_reply_style_named(style),
                                    .chat_template = chat_template,
                                    .template_bytes = strlen(chat_template),
                                    .prompt = prompt,
                                    .prompt_bytes = strlen(prompt),
                                    .tools = tools,
                                    .function = listen,
                                    .user = &r};
    assert_non_null(config.style);
    check(ht_reply_create(&config, &reply, &error), &error);
    for (size_t at = 0, n, bytes = strlen(answer); at < bytes; at += n) {
        n = ht_min_size(piece ? piece : 1 + (size_t)rand() % 7, bytes - at);
        check(ht_reply_feed(reply, answer + at, n, &error), &error);
    }
    check(ht_reply_finish(reply, &error), &error);
    ht_reply_destroy(reply);
    if (r.any && r.last == HT_REPLY_REASONING)
        put(&r.line, ">", 1);
    put(&r.line, "", 0);
    ht_text_free(&r.arguments);
    return r.line;
}

static const struct sample {
    const char *style, *chat_template, *prompt, *answer, *want;
} samples[] = {
    {"plain", "", "", "Hello, <b>world</b>.\n", "Hello, <b>world</b>.\n"},
    {"plain", "", "", "<think>\nHm.\n</think>\n\nYes.", "<r:Hm.>Yes."},
    {"plain", "", "<|assistant|><think>\n", "Hm.\n</think>\n\nYes.", "<r:Hm.>Yes."},
    {"plain", "[THINK] [/THINK]", "", "[THINK]Hm.[/THINK]Yes.", "<r:Hm.>Yes."},
    {"plain", "<|channel>thought\\n <channel|>", "", "<|channel>thought\nHm.\n<channel|>Yes.", "<r:Hm.>Yes."},
    {"plain", "", "", "It is <think> that I mean.", "It is <think> that I mean."}, /* not at the beginning */
    {"plain", "", "", "<think>cut off", "<r:cut off>"},
    {"plain", "", "", "{\"name\": \"f\", \"parameters\": {\"s\": \"a}\\\"b\", \"n\": [1, {}]}}",
     "<c0:f {\"s\": \"a}\\\"b\", \"n\": [1, {}]}>"},
    {"plain", "", "", "{\"name\": \"unknown\", \"parameters\": {\"n\": 1}} is JSON",
     "{\"name\": \"unknown\", \"parameters\": {\"n\": 1}} is JSON"},
    {"plain", "", "", "{\"a\": 1}", "{\"a\": 1}"},
    {"plain", "", "", "{not JSON]", "{not JSON]"},
    {"plain", "", "", "[1, 2]", "[1, 2]"},
    {"llama3", "", "",
     "<|python_tag|>{\"type\": \"function\", \"function\": {\"name\": \"f\", \"arguments\": \"{\\\"n\\\": 2}\"}}",
     "<c0:f {\"n\": 2}>"},
    {"llama3", "", "", "{\"name\": \"f\", \"parameters\": {}}; {\"parameters\": {\"s\": \"x\"}, \"name\": \"g\"}",
     "<c0:f {}><c1:g {\"s\": \"x\"}>"},
    {"hermes", "<think>", "",
     "<think>\nA tool.\n</think>\n\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"n\": 1}}\n</tool_call>\n"
     "<tool_call>\n{\"name\": \"g\"}\n</tool_call>",
     "<r:A tool.><c0:f {\"n\": 1}><c1:g {}>"},
    {"hermes", "", "",
     "Look: <tool_call>\n{\"name\": \"f\", \"arguments\": {\"s\": \"</tool_call>\"}}</tool_call> done",
     "Look:<c0:f {\"s\": \"</tool_call>\"}>done"},
    {"hermes", "", "", "A <tool_call> is no call.", "A <tool_call> is no call."},
    {"hermes", "", "", "<tool_call>{\"name\": \"f\", \"arguments\": {\"n\": 1",
     "<c0:f {\"n\": 1>"}, /* cut off: the name is known */
    {"hermes", "", "", "<tool_call>{\"nam", "<tool_call>{\"nam"},
    {"qwen3-coder", "", "",
     "I do.\n\n<tool_call>\n<function=f>\n<parameter=s>\na \"b\"\n  "
     "c\n\n</parameter>\n<parameter=n>\n42\n</parameter>\n"
     "<parameter=other>\n{\"k\": [true]}\n</parameter>\n</function>\n</tool_call>",
     "I do.<c0:f {\"s\": \"a \\\"b\\\"\\n  c\\n\", \"n\": 42, \"other\": {\"k\": [true]}}>"},
    {"qwen3-coder", "", "",
     "<tool_call>\n<function=f>\n</function>\n<function=g>\n<parameter=s>\n1\n</parameter>\n</function>\n</"
     "tool_call>\n",
     "<c0:f {}><c1:g {\"s\": \"1\"}>"},
    {"qwen3-coder", "", "", "<tool_call>\n<function=f>\n<parameter=s>\ncut", "<c0:f {\"s\": \"cut\"}>"},
    {"glm", "", "",
     "\n<tool_call>f\n<arg_key>s</arg_key>\n<arg_value>12</arg_value>\n<arg_key>n</arg_key>\n<arg_value>12</"
     "arg_value>\n"
     "</tool_call>\n<tool_call>g</tool_call>",
     "<c0:f {\"s\": \"12\", \"n\": 12}><c1:g {}>"},
    {"minimax", "", "",
     "<minimax:tool_call>\n<invoke name=\"f\">\n<parameter name=\"s\">x y</parameter>\n</invoke>\n</minimax:tool_call>",
     "<c0:f {\"s\": \"x y\"}>"},
    {"seed", "", "", "<seed:tool_call>\n<function=f>\n<parameter=n>1</parameter>\n</function>\n</seed:tool_call>",
     "<c0:f {\"n\": 1}>"},
    {"deepseek-v3.2", "", "",
     "Well.\n\n" DSML "function_calls>\n" DSML "invoke name=\"f\">\n" DSML
     "parameter name=\"any\" string=\"true\">7" DSML_END "parameter>\n" DSML
     "parameter name=\"n\" string=\"false\">7" DSML_END "parameter>\n" DSML_END "invoke>\n" DSML_END "function_calls>",
     "Well.<c0:f {\"any\": \"7\", \"n\": 7}>"},
    {"deepseek-v4", "", "", DSML "tool_calls>" DSML "invoke name=\"g\">" DSML_END "invoke>" DSML_END "tool_calls>",
     "<c0:g {}>"},
    {"deepseek-v3.1", "", "",
     "x" TOOL("calls" SPACE "begin") TOOL("call" SPACE "begin") "f" TOOL("sep") "{\"n\": 1}" TOOL("call" SPACE "end")
         TOOL("call" SPACE "begin") "g" TOOL("sep") "{}" TOOL("call" SPACE "end") TOOL("calls" SPACE "end"),
     "x<c0:f {\"n\": 1}><c1:g {}>"},
    {"deepseek-r1", "", "<think>\n",
     "Hm.</think>" TOOL("calls" SPACE "begin") TOOL("call" SPACE "begin") "function" TOOL(
         "sep") "f\n```json\n{\"n\": 1}\n```" TOOL("call" SPACE "end") TOOL("calls" SPACE "end"),
     "<r:Hm.><c0:f {\"n\": 1}>"},
    {"kimi", "", "",
     "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{\"n\": "
     "1}<|tool_call_end|>"
     "<|tool_calls_section_end|>",
     "<c0:f#functions.f:0 {\"n\": 1}>"},
    {"functionary", "", "", "<function=f>{\"n\": 1}</function>", "<c0:f {\"n\": 1}>"},
    {"nemotron", "", "",
     "<TOOLCALL>[{\"name\": \"f\", \"arguments\": {}}, {\"name\": \"g\", \"arguments\": {\"s\": \"]\"}}]</TOOLCALL>",
     "<c0:f {}><c1:g {\"s\": \"]\"}>"},
    {"command", "<|START_THINKING|><|END_THINKING|>", "",
     "<|START_THINKING|>Plan.<|END_THINKING|><|START_ACTION|>[\n    {\"tool_call_id\": \"0\","
     " \"tool_name\": \"f\", \"parameters\": {\"n\": 1}}\n]<|END_ACTION|>",
     "<r:Plan.><c0:f#0 {\"n\": 1}>"},
    {"command", "<|END_THINKING|>", "", "<|START_RESPONSE|>Yes.<|END_RESPONSE|>", "Yes."},
    {"mistral", "", "", "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"n\": 1}, \"id\": \"abc123xyz\"}]",
     "<c0:f {\"n\": 1}>"},
    {"mistral-args", "[THINK] [/THINK]", "",
     "[THINK]Hm.[/THINK][TOOL_CALLS]f[ARGS]{\"n\": 1}[TOOL_CALLS]g[CALL_ID]9[ARGS]{}",
     "<r:Hm.><c0:f {\"n\": 1}><c1:g#9 {}>"},
    {"granite", "", "", "<|tool_call|>[{\"name\": \"f\", \"arguments\": {\"s\": \"\"}}]", "<c0:f {\"s\": \"\"}>"},
    {"lfm2", "", "",
     "<|tool_call_start|>[f(s=\"a, b)\", n=-1.5e+2), g(s='it\\'s', l=[1, True, None, {\"k\": "
     "'v'}])]<|tool_call_end|>Now.",
     "<c0:f {\"s\": \"a, b)\", \"n\": -150.0}><c1:g {\"s\": \"it's\", \"l\": [1, true, null, {\"k\": \"v\"}]}>Now."},
    {"lfm2", "", "", "<|tool_call_start|>nothing of the kind<|tool_call_end|>",
     "<|tool_call_start|>nothing of the kind<|tool_call_end|>"},
    {"gemma4", "<|channel>thought\\n<channel|>", "",
     "<|channel>thought\nHm.\n<channel|><|tool_call>call:f{n:1,s:<|\"|>a \"b\", {c}<|\"|>,"
     "o:{<|\"|>k<|\"|>:[true,<|\"|>x<|\"|>]}}<tool_call|>",
     "<r:Hm.><c0:f {\"n\": 1, \"s\": \"a \\\"b\\\", {c}\", \"o\": {\"k\": [true, \"x\"]}}>"},
    {"harmony", "", "",
     "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json"
     "<|message|>{\"n\": 1}<|call|>",
     "<r:Hm.><c0:f {\"n\": 1}>"},
    {"harmony", "", "",
     "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes, 1 < 2.<|return|>",
     "<r:Hm.>Yes, 1 < 2."},
    {"harmony", "", "", " to=functions.g<|channel|>commentary json<|message|>{}<|call|>", "<c0:g {}>"},
    {"harmony", "", "", "No header at all.", "No header at all."},
};

static void answers(void **state) {
    for (size_t i = 0; i < HT_COUNT(samples); i++)
        for (size_t piece = 0; piece < 300; piece += 1 + piece / 4) {
            const struct sample *const s = &samples[i];
            ht_text line = parse(s->style, s->chat_template, s->prompt, s->answer, piece);
            if (strcmp(line.data, s->want) != 0)
                fail_msg("%s, pieces of %zu: %s\ngave   %s\nwanted %s", s->style, piece, s->answer, line.data, s->want);
            ht_text_free(&line);
        }
}

/* Any cut of any prefix gives the same. */
static void prefixes(void **state) {
    for (size_t i = 0; i < HT_COUNT(samples); i++)
        for (size_t bytes = 0; bytes < strlen(samples[i].answer); bytes++) {
            const struct sample *const s = &samples[i];
            char *const part = ht_copy_text(s->answer, bytes);
            ht_text whole = parse(s->style, s->chat_template, s->prompt, part, 4096),
                    single = parse(s->style, s->chat_template, s->prompt, part, 1);
            if (strcmp(whole.data, single.data) != 0)
                fail_msg("%s: %s\nwhole  %s\nsingle %s", s->style, part, whole.data, single.data);
            ht_text_free(&whole);
            ht_text_free(&single);
            free(part);
        }
}

static void styles(void **state) {
    static const char *const known[][2] = {{"{{ '<|channel|>analysis<|message|>' }}", "harmony"},
                                           {"<tool_call>\n{\"name\"", "hermes"},
                                           {"<tool_call> <function=x> <parameter=y>", "qwen3-coder"},
                                           {"<tool_call> <arg_key>", "glm"},
                                           {"[TOOL_CALLS]", "mistral"},
                                           {"[TOOL_CALLS]x[ARGS]", "mistral-args"},
                                           {"", "plain"}};
    for (size_t i = 0; i < HT_COUNT(known); i++)
        assert_string_equal(ht_reply_style_name(ht_reply_style_of(known[i][0], strlen(known[i][0]))), known[i][1]);
    assert_null(ht_reply_style_named("nothing"));
}

/* A megabyte of one call, byte by byte, is no more work than its bytes. */
static void large(void **state) {
    static const char *const calls[][3] = {
        {"hermes", "<tool_call>{\"name\": \"f\", \"arguments\": {\"s\": \"", "\"}}</tool_call>"},
        {"qwen3-coder", "<tool_call><function=f><parameter=s>", "</parameter></function></tool_call>"},
        {"lfm2", "<|tool_call_start|>[f(s=\"", "\")]<|tool_call_end|>"}};
    enum { MANY = 1000000 };
    static char answer[MANY + 128];
    for (size_t i = 0; i < HT_COUNT(calls); i++) {
        const size_t head = (size_t)sprintf(answer, "%s", calls[i][1]);
        memset(answer + head, 'x', MANY);
        strcpy(answer + head + MANY, calls[i][2]);
        const double start = ht_seconds();
        ht_text line = parse(calls[i][0], "", "", answer, 1);
        assert_int_equal(line.bytes, MANY + strlen("<c0:f {\"s\": \"\"}>"));
        ht_text_free(&line);
        if (TIMED && ht_seconds() - start > 2)
            fail_msg("%s: %.1f s for a megabyte", calls[i][0], ht_seconds() - start);
    }
}

static ht_status refuse(void *user, const ht_reply_event *event) {
    return event->kind == HT_REPLY_CALL ? HT_ERROR_CANCELLED : HT_OK;
}

static void stopped(void **state) {
    ht_error error = {0};
    ht_reply *reply;
    check(ht_reply_create(&(ht_reply_config){.style = ht_reply_style_named("hermes"), .function = refuse}, &reply,
                          &error),
          &error);
    static const char answer[] = "a <tool_call>{\"name\": \"f\"}";
    assert_int_equal(ht_reply_feed(reply, answer, sizeof answer - 1, &error), HT_ERROR_CANCELLED);
    assert_int_equal(ht_reply_finish(reply, &error), HT_ERROR_CANCELLED);
    ht_reply_destroy(reply);
    ht_reply_destroy(NULL);
}

int main(int argc, char **argv) {
    if (argc == 2) {
        ht_mapping file;
        ht_error error;
        if (ht_mapping_open(argv[1], &file, &error) != HT_OK) {
            fprintf(stderr, "%s\n", error.text);
            return 1;
        }
        printf("%s\n", ht_reply_style_name(ht_reply_style_of((const char *)file.data, file.bytes)));
        ht_mapping_close(&file);
        return 0;
    }
    tools = json_loads(tools_text, 0, NULL);
    const struct CMUnitTest tests[] = {cmocka_unit_test(answers), cmocka_unit_test(prefixes), cmocka_unit_test(styles),
                                       cmocka_unit_test(large), cmocka_unit_test(stopped)};
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    json_decref(tools);
    return failed;
}
