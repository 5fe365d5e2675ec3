/* libFuzzer: the first byte names a style, the rest is an answer: whole and byte by byte it gives the same, and calls
 * begin, have arguments, and end, in this order. */
#include "text/reply/reply.h"

#include "fuzz/fuzz.h"

static const char *const styles[] = {"plain",         "harmony",     "gemma4",   "deepseek-v3.2", "deepseek-r1",
                                     "deepseek-v3.1", "kimi",        "minimax",  "seed",          "glm",
                                     "qwen3-coder",   "functionary", "nemotron", "command",       "mistral-args",
                                     "mistral",       "lfm2",        "hermes",   "granite",       "llama3"};

typedef struct record {
    ht_text all; /* kind, text; a byte that says where a kind begins */
    ht_reply_kind last;
    bool any, in_call;
    size_t calls;
} record;

static ht_status listen(void *user, const ht_reply_event *event) {
    record *const r = user;
    const char kind = (char)('0' + event->kind);
    must(event->kind == HT_REPLY_CALL_END || event->bytes > 0);
    must(r->in_call == (event->kind == HT_REPLY_ARGUMENTS || event->kind == HT_REPLY_CALL_END));
    must(event->kind < HT_REPLY_CALL || event->call == r->calls);
    r->in_call = event->kind >= HT_REPLY_CALL && event->kind != HT_REPLY_CALL_END;
    r->calls += event->kind == HT_REPLY_CALL_END;
    if (!r->any || r->last != event->kind || event->kind >= HT_REPLY_CALL_END)
        must(ht_text_append(&r->all, &kind, 1, NULL) == HT_OK);
    must(ht_text_append(&r->all, event->text, event->bytes, NULL) == HT_OK);
    r->last = event->kind;
    r->any = true;
    return HT_OK;
}

static record parse(const char *style, const json_t *tools, const char *text, size_t bytes, size_t piece) {
    record r = {.any = false};
    ht_error error;
    ht_reply *reply;
    must(ht_reply_create(
             &(ht_reply_config){.style = ht_reply_style_named(style), .tools = tools, .function = listen, .user = &r},
             &reply, &error) == HT_OK);
    for (size_t at = 0, n; at < bytes; at += n) {
        n = piece < bytes - at ? piece : bytes - at;
        must(ht_reply_feed(reply, text + at, n, &error) == HT_OK);
    }
    must(ht_reply_finish(reply, &error) == HT_OK);
    must(!r.in_call);
    ht_reply_destroy(reply);
    return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static json_t *tools;
    if (!tools)
        tools = json_loads("[{\"name\": \"f\", \"parameters\": {\"properties\": {\"s\": {\"type\": \"string\"}}}}]", 0,
                           NULL);
    must(tools != NULL);
    if (bytes < 1 || bytes > 4096)
        return 0;
    const char *const style = styles[data[0] % HT_COUNT(styles)], *const text = (const char *)data + 1;
    record whole = parse(style, tools, text, bytes - 1, bytes), single = parse(style, tools, text, bytes - 1, 1);
    must(whole.all.bytes == single.all.bytes);
    must(!whole.all.bytes || memcmp(whole.all.data, single.all.data, whole.all.bytes) == 0);
    ht_text_free(&whole.all);
    ht_text_free(&single.all);
    return 0;
}
