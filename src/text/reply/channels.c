/* Harmony, the notation of gpt-oss: an answer is a row of messages, <|start|>assistant<|channel|>NAME
 * to=WHOM<|message|>TEXT<|end|>, of which the prompt has the first <|start|>assistant. What is for a function is a
 * call. */
#include "text/reply/parser.h"

#include <string.h>

static const char channel[] = "<|channel|>", message[] = "<|message|>", start[] = "<|start|>", to[] = "to=functions.";

/* The word behind a mark; its bytes. */
static size_t word_behind(const char *text, size_t bytes, const char *mark, const char **word) {
    const char *const found = ht_find_bytes(text, bytes, mark, strlen(mark));
    size_t n = 0;
    if (!found)
        return 0;
    *word = found + strlen(mark);
    while (*word + n < text + bytes && !ht_is_blank((*word)[n]) && (*word)[n] != '<')
        n++;
    return n;
}

/* Where an answer, or what follows a message, is no header, it is text. */
static bool may_be_header(const ht_reply *r, bool end) {
    static const char *const begins[] = {
        channel, start, message, " to=", "to=", "assistant", "commentary", "analysis", "final"};
    for (size_t i = 0; i < HT_COUNT(begins); i++)
        if (ht_reply_next(r, begins[i], end))
            return true;
    return false;
}

bool ht_reply_header_step(ht_reply *r, bool end) {
    const char *const marks[] = {message}, *name = NULL, *whom = NULL;
    size_t which, safe;
    const size_t at = ht_reply_find(r, marks, 1, end, &which, &safe);
    if (at == HT_REPLY_NONE && !end && may_be_header(r, end) && ht_reply_left(r) <= 2 * HT_REPLY_NAME)
        return false;
    if (at == HT_REPLY_NONE || !may_be_header(r, end) || at > 2 * HT_REPLY_NAME) {
        if (end && !ht_reply_left(r))
            return false;
        if (ht_reply_next(r, start, end) > 0)
            ht_reply_take(r, strlen(start), false);
        r->mode = HT_MODE_BODY;
        r->body = HT_REPLY_CONTENT;
        return true;
    }
    const char *const text = ht_reply_rest(r);
    const size_t channel_bytes = word_behind(text, at, channel, &name), whom_bytes = word_behind(text, at, to, &whom);
    r->mode = HT_MODE_BODY;
    r->body = channel_bytes == 8 && memcmp(name, "analysis", 8) == 0 ? HT_REPLY_REASONING : HT_REPLY_CONTENT;
    if (whom_bytes && whom_bytes <= HT_REPLY_NAME) {
        r->body = HT_REPLY_ARGUMENTS;
        r->name.bytes = r->id.bytes = r->arguments.bytes = 0;
        r->any_arguments = false;
        ht_reply_append(r, &r->name, whom, whom_bytes);
        ht_reply_call(r);
    }
    ht_reply_take(r, at + strlen(message), false);
    return true;
}

bool ht_reply_body_step(ht_reply *r, bool end) {
    static const char *const ends[] = {"<|end|>", "<|call|>", "<|return|>", start};
    size_t which, safe;
    const size_t at = ht_reply_find(r, ends, HT_COUNT(ends), end, &which, &safe);
    if (r->body == HT_REPLY_ARGUMENTS)
        ht_reply_give_arguments(r, ht_reply_rest(r), safe);
    else
        ht_reply_emit(r, r->body, ht_reply_rest(r), safe);
    ht_reply_take(r, safe, false);
    if (at == HT_REPLY_NONE)
        return false;
    if (r->body == HT_REPLY_ARGUMENTS)
        ht_reply_call_end(r);
    if (ends[which] != start)
        ht_reply_take(r, strlen(ends[which]), false);
    r->mode = HT_MODE_HEADER;
    return true;
}
