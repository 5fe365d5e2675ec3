/* The table of styles. Marks are what models were trained to write; they were read from the templates that the models'
 * makers publish. A row is taken if all its marks stand in the template: the more particular ones come first. */
#include "text/reply/parser.h"

#include <string.h>

#define BAR "\xef\xbd\x9c"   /* DeepSeek's wide | */
#define SPACE "\xe2\x96\x81" /* and its space */
#define DS(words) "<" BAR words BAR ">"
#define DSML "<" BAR "DSML" BAR
#define DSML_END "</" BAR "DSML" BAR
#define DSML_CALLS                                                                                          \
    .call = DSML "invoke name=\"", .call_end = DSML_END "invoke>", .form = HT_CALL_TAGS, .name_end = "\">", \
    .key = DSML "parameter name=\"", .key_end = ">", .value_end = DSML_END "parameter>"

static const ht_reply_style table[] = {
    {.name = "harmony", .marks = {"<|channel|>", "<|message|>"}, .form = HT_CALL_CHANNELS},
    {.name = "gemma4",
     .marks = {"<|tool_call>"},
     .call = "<|tool_call>",
     .call_end = "<tool_call|>",
     .form = HT_CALL_GEMMA},
    {.name = "deepseek-v3.2",
     .marks = {"DSML", "function_calls>"},
     .section = DSML "function_calls>",
     .section_end = DSML_END "function_calls>",
     DSML_CALLS},
    {.name = "deepseek-v4",
     .marks = {"DSML", "tool_calls>"},
     .section = DSML "tool_calls>",
     .section_end = DSML_END "tool_calls>",
     DSML_CALLS},
    {.name = "deepseek-r1",
     .marks = {DS("tool" SPACE "sep"), "```json"},
     .section = DS("tool" SPACE "calls" SPACE "begin"),
     .section_end = DS("tool" SPACE "calls" SPACE "end"),
     .call = DS("tool" SPACE "call" SPACE "begin") "function" DS("tool" SPACE "sep"),
     .call_end = DS("tool" SPACE "call" SPACE "end"),
     .form = HT_CALL_NAMED,
     .name_end = "\n```json\n"},
    {.name = "deepseek-v3.1",
     .marks = {DS("tool" SPACE "sep")},
     .section = DS("tool" SPACE "calls" SPACE "begin"),
     .section_end = DS("tool" SPACE "calls" SPACE "end"),
     .call = DS("tool" SPACE "call" SPACE "begin"),
     .call_end = DS("tool" SPACE "call" SPACE "end"),
     .form = HT_CALL_NAMED,
     .name_end = DS("tool" SPACE "sep")},
    {.name = "kimi",
     .marks = {"<|tool_call_argument_begin|>"},
     .section = "<|tool_calls_section_begin|>",
     .section_end = "<|tool_calls_section_end|>",
     .call = "<|tool_call_begin|>",
     .call_end = "<|tool_call_end|>",
     .form = HT_CALL_NAMED,
     .name_end = "<|tool_call_argument_begin|>"},
    {.name = "minimax",
     .marks = {"<minimax:tool_call>"},
     .section = "<minimax:tool_call>",
     .section_end = "</minimax:tool_call>",
     .call = "<invoke name=\"",
     .call_end = "</invoke>",
     .form = HT_CALL_TAGS,
     .name_end = "\">",
     .key = "<parameter name=\"",
     .key_end = ">",
     .value_end = "</parameter>"},
    {.name = "seed",
     .marks = {"<seed:tool_call>"},
     .section = "<seed:tool_call>",
     .section_end = "</seed:tool_call>",
     .call = "<function=",
     .call_end = "</function>",
     .form = HT_CALL_TAGS,
     .name_end = ">",
     .key = "<parameter=",
     .key_end = ">",
     .value_end = "</parameter>"},
    {.name = "qwen3-coder",
     .marks = {"<tool_call>", "<function=", "<parameter="},
     .section = "<tool_call>",
     .section_end = "</tool_call>",
     .call = "<function=",
     .call_end = "</function>",
     .form = HT_CALL_TAGS,
     .name_end = ">",
     .key = "<parameter=",
     .key_end = ">",
     .value_end = "</parameter>",
     .lines = true},
    {.name = "glm",
     .marks = {"<tool_call>", "<arg_key>"},
     .call = "<tool_call>",
     .call_end = "</tool_call>",
     .form = HT_CALL_TAGS,
     .name_end = "\n",
     .key = "<arg_key>",
     .key_end = "</arg_key>",
     .value = "<arg_value>",
     .value_end = "</arg_value>"},
    {.name = "functionary",
     .marks = {"<function="},
     .call = "<function=",
     .call_end = "</function>",
     .form = HT_CALL_NAMED,
     .name_end = ">"},
    {.name = "nemotron",
     .marks = {"<TOOLCALL>"},
     .call = "<TOOLCALL>",
     .call_end = "</TOOLCALL>",
     .form = HT_CALL_JSON},
    {.name = "command",
     .marks = {"<|START_ACTION|>"},
     .call = "<|START_ACTION|>",
     .call_end = "<|END_ACTION|>",
     .form = HT_CALL_JSON},
    {.name = "mistral-args",
     .marks = {"[TOOL_CALLS]", "[ARGS]"},
     .call = "[TOOL_CALLS]",
     .form = HT_CALL_NAMED,
     .name_end = "[ARGS]"},
    {.name = "mistral", .marks = {"[TOOL_CALLS]"}, .call = "[TOOL_CALLS]", .form = HT_CALL_JSON},
    {.name = "lfm2",
     .marks = {"<|tool_call_start|>"},
     .call = "<|tool_call_start|>",
     .call_end = "<|tool_call_end|>",
     .form = HT_CALL_PYTHON},
    {.name = "lfm2", /* newer templates do not write the marks themselves */
     .marks = {"List of tools: [", "keep_past_thinking"},
     .call = "<|tool_call_start|>",
     .call_end = "<|tool_call_end|>",
     .form = HT_CALL_PYTHON},
    {.name = "hermes",
     .marks = {"<tool_call>"},
     .call = "<tool_call>",
     .call_end = "</tool_call>",
     .form = HT_CALL_JSON},
    {.name = "granite", .marks = {"<|tool_call|>"}, .call = "<|tool_call|>", .form = HT_CALL_JSON},
    {.name = "llama3", .marks = {"<|python_tag|>", "\"parameters\""}, .form = HT_CALL_JSON},
    {.name = "plain", .form = HT_CALL_JSON},
};

static bool has(const char *text, size_t bytes, const char *mark) {
    return ht_find_bytes(text, bytes, mark, strlen(mark)) != NULL;
}

const ht_reply_style *ht_reply_style_of(const char *chat_template, size_t bytes) {
    size_t row = 0;
    for (; row + 1 < HT_COUNT(table); row++) {
        bool all = true;
        for (int i = 0; i < HT_REPLY_MARKS && table[row].marks[i]; i++)
            all &= has(chat_template, bytes, table[row].marks[i]);
        if (all)
            break;
    }
    return &table[row];
}

const ht_reply_style *ht_reply_style_named(const char *name) {
    for (size_t row = 0; row < HT_COUNT(table); row++)
        if (strcmp(table[row].name, name) == 0)
            return &table[row];
    return NULL;
}

const char *ht_reply_style_name(const ht_reply_style *style) {
    return style->name;
}

const ht_thinking *ht_thinking_of(const char *chat_template, size_t bytes) {
    static const ht_thinking known[] = {
        {"<think>", "</think>"}, /* which is what models without marks in their templates write, too */
        {"[THINK]", "[/THINK]"},
        {"<seed:think>", "</seed:think>"},
        {"<|START_THINKING|>", "<|END_THINKING|>"},
        {"<|channel>thought\n", "<channel|>"},
        {"<|inner_prefix|>", "<|inner_suffix|>"},
    };
    for (size_t i = 1; chat_template && i < HT_COUNT(known); i++)
        if (has(chat_template, bytes, known[i].close))
            return &known[i];
    return &known[0];
}
