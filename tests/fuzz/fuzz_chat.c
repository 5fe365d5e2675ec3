/* libFuzzer: the input is a chat template, a NUL, a conversation as JSON, a NUL, tools, a NUL, variables: rendered or
 * refused, and no control token comes from the conversation. Without a NUL it is a conversation for a template of ours. */
#include "model/model.h"

#include "fuzz/tiny_vocabulary.h"

static const char plain[] = "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content is string "
                            "%}{{ m.content }}{% else %}"
                            "{% for p in m.content %}{{ p.text }}{% endfor %}{% endif %}{% for c in m.tool_calls %}{{ "
                            "c.function.arguments | tojson "
                            "}}{% endfor %}<|im_end|>\n{% endfor %}{{ tools | tojson if tools }}{{ x }}{% if "
                            "add_generation_prompt %}<|im_start|>{% "
                            "endif %}";

/* The next of the texts that a NUL ends; NULL: there is none. */
static const char *next(const char **at, const char *end) {
    const char *text = *at < end ? *at : NULL;
    *at = text ? text + strlen(text) + 1 : end;
    return text;
}

/* Control tokens stand for bytes of the template's own; the text is that of the tokens. */
static void check(const ht_model *model, const ht_rendering *made) {
    size_t own = 0, foreign = 0, controls = 0;
    for (size_t i = 0, at = 0; i <= made->n_foreign; i++) {
        const size_t begin = i < made->n_foreign ? made->foreign[i].begin : made->text_bytes;
        must(begin >= at && begin <= made->text_bytes);
        own += begin - at;
        at = i < made->n_foreign ? made->foreign[i].end : begin;
        must(i == made->n_foreign || (at > begin && at <= made->text_bytes));
        foreign += at - begin;
    }
    must(own + foreign == made->text_bytes && made->text && made->ids && strlen(made->text) <= made->text_bytes);
    for (size_t i = 0; i < made->n; i++) {
        size_t bytes;
        ht_tokenizer_text(model->tokenizer, made->ids[i], true, &bytes);
        controls += model->tokenizer->types[made->ids[i]] == HT_TOKEN_CONTROL ? bytes : 0;
    }
    must(controls <= own);
}

static void render(ht_model *model, const char *json, const char *tools, const char *kwargs) {
    ht_error error = {0};
    for (unsigned flags = 0; flags < 8; flags++) {
        ht_rendering made = HT_INIT(ht_rendering);
        const ht_conversation c = HT_INIT(ht_conversation, .json = json, .tools = tools, .kwargs = kwargs, .now = 1,
                                          .no_generation_prompt = flags & 1, .continue_last = (flags & 3) == 3);
        /* a BOS that is added is no byte of the text */
        const ht_status status = ht_chat_render(model, &c, flags & 4 ? HT_TOKENIZE_PARSE_SPECIAL : 0, &made, &error);
        must(status == HT_OK || (*error.text && !made.text));
        if (status == HT_OK && !(flags & 4))
            check(model, &made);
        ht_rendering_clear(&made);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static ht_tokenizer *tokenizer;
    if (!tokenizer)
        tokenizer = make_tokenizer("gpt-2");
    ht_error error = {0};
    char *text = malloc(bytes + 1);
    must(text != NULL);
    if (bytes)
        memcpy(text, data, bytes);
    text[bytes] = '\0';
    const bool whole = strlen(text) == bytes;
    const char *at = text, *end = text + bytes, *source = whole ? plain : next(&at, end);
    const char *json = next(&at, end), *tools = next(&at, end), *kwargs = next(&at, end);
    ht_model model = {.tokenizer = tokenizer};
    ht_chat_template_info info = HT_INIT(ht_chat_template_info);
    if (ht_model_set_chat_template(&model, source, HT_STRLEN, &error) == HT_OK) {
        render(&model, json ? json : "[]", tools, kwargs);
        must(ht_chat_template(&model, true, &info, &error) == HT_OK && info.name && !info.why);
    } else {
        must(*error.text && !model.chat.n);
    }
    ht_chat_close(&model.chat);
    free(text);
    return 0;
}
