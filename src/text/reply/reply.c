/* The parser's frame: text, thinking, what stands round calls. */
#include "text/reply/parser.h"

#include <stdlib.h>
#include <string.h>

/* Marks round an answer that are nothing by themselves. */
static const char *const silent[] = {"<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>"};

/* An answer that is JSON from its first character on, by a model that marks its calls so, to whom tools were shown. */
static bool json_begins(ht_reply *r, bool *waits) {
    if (r->style->call || r->style->form != HT_CALL_JSON || r->plain || r->started || !json_array_size(r->tools))
        return false;
    size_t at = 0;
    const char *const text = ht_reply_rest(r), *const tag = "<|python_tag|>";
    while (at < ht_reply_left(r) && (ht_is_blank(text[at]) || (r->calls && text[at] == ';')))
        at++;
    const size_t left = ht_reply_left(r) - at, length = strlen(tag);
    *waits = left < length && memcmp(text + at, tag, left) == 0; /* nothing but white space, too */
    if (*waits)
        return false;
    if (left >= length && memcmp(text + at, tag, length) == 0)
        at += length;
    else if (text[at] != '{' && text[at] != '[')
        return false;
    r->called = false;
    r->raw.bytes = 0;
    ht_reply_take(r, at, true);
    return true;
}

static bool text_step(ht_reply *r, bool end) {
    const ht_reply_style *const s = r->style;
    const char *marks[2 + HT_COUNT(silent)] = {r->started ? NULL : r->thinking->open,
                                               s->section ? s->section : s->call};
    const bool quiet = strcmp(s->name, "command") == 0;
    for (size_t i = 0; quiet && i < HT_COUNT(silent); i++)
        marks[2 + i] = silent[i];
    bool waits = false;
    const int thinks = r->started ? 0 : ht_reply_next(r, r->thinking->open, end);
    if (thinks < 0)
        return false;
    if (!thinks && json_begins(r, &waits)) {
        ht_reply_begin_call(r);
        return true;
    }
    if (waits && !end)
        return false;
    size_t which, safe, at = ht_reply_find(r, marks, HT_COUNT(marks), end, &which, &safe);
    /* a mark for thinking counts at the answer's beginning */
    bool blank = true;
    for (size_t i = 0; i < safe; i++)
        blank &= ht_is_blank(ht_reply_rest(r)[i]);
    if (at != HT_REPLY_NONE && which == 0 && !blank)
        which = HT_COUNT(marks), safe = at + strlen(r->thinking->open);
    ht_reply_text(r, HT_REPLY_CONTENT, ht_reply_rest(r), safe);
    ht_reply_take(r, safe, false);
    if (at == HT_REPLY_NONE)
        return false;
    if (which == HT_COUNT(marks))
        return true;
    if (which == 1) {
        r->raw.bytes = 0;
        r->called = false;
        ht_reply_take(r, strlen(marks[1]), true);
        if (s->section)
            r->mode = HT_MODE_SECTION;
        else
            ht_reply_begin_call(r);
        return true;
    }
    ht_reply_take(r, strlen(marks[which]), false);
    r->trims = true;
    if (which == 0) {
        r->mode = HT_MODE_THINKING;
        r->spaces.bytes = 0;
    }
    return true;
}

static bool thinking_step(ht_reply *r, bool end) {
    size_t which, safe;
    const size_t at = ht_reply_find(r, &r->thinking->close, 1, end, &which, &safe);
    ht_reply_text(r, HT_REPLY_REASONING, ht_reply_rest(r), safe);
    ht_reply_take(r, safe, false);
    if (at == HT_REPLY_NONE)
        return false;
    ht_reply_take(r, strlen(r->thinking->close), false);
    ht_reply_begin_text(r);
    return true;
}

static bool section_step(ht_reply *r, bool end) {
    ht_reply_skip_blanks(r);
    const int call = ht_reply_next(r, r->style->call, end), closes = ht_reply_next(r, r->style->section_end, end);
    if (call > 0) {
        ht_reply_take(r, strlen(r->style->call), true);
        ht_reply_begin_call(r);
        return true;
    }
    if (closes > 0) {
        ht_reply_take(r, strlen(r->style->section_end), false);
        r->raw.bytes = 0;
        ht_reply_begin_text(r);
        return true;
    }
    if ((call < 0 || closes < 0 || !ht_reply_left(r)) && !end)
        return false;
    if (!ht_reply_left(r) && r->calls) { /* the end mark is what ended the answer */
        r->raw.bytes = 0;
        r->mode = HT_MODE_TEXT;
        return false;
    }
    ht_reply_no_call(r);
    return ht_reply_left(r) > 0;
}

static bool tail_step(ht_reply *r, bool end) {
    ht_reply_skip_blanks(r);
    /* R1 writes its arguments in a fence */
    const int fence = ht_reply_next(r, "```", end), closes = ht_reply_next(r, r->style->call_end, end);
    if (fence > 0) {
        ht_reply_take(r, 3, true);
        return true;
    }
    if (closes <= 0 && (closes < 0 || fence < 0 || !ht_reply_left(r)) && !end)
        return false;
    if (closes > 0)
        ht_reply_take(r, strlen(r->style->call_end), false);
    ht_reply_after(r, true);
    return ht_reply_left(r) > 0;
}

static bool step(ht_reply *r, bool end) {
    switch (r->mode) {
    case HT_MODE_TEXT:
        return text_step(r, end);
    case HT_MODE_THINKING:
        return thinking_step(r, end);
    case HT_MODE_SECTION:
        return section_step(r, end);
    case HT_MODE_NAME:
        return ht_reply_name_step(r, end);
    case HT_MODE_JSON:
        return ht_reply_json_step(r, end);
    case HT_MODE_BETWEEN:
        return ht_reply_between_step(r, end);
    case HT_MODE_KEY:
        return ht_reply_key_step(r, end);
    case HT_MODE_VALUE_OPEN:
        return ht_reply_value_open_step(r, end);
    case HT_MODE_VALUE:
        return ht_reply_value_step(r, end);
    case HT_MODE_WHOLE:
        return ht_reply_whole_step(r, end);
    case HT_MODE_TAIL:
        return tail_step(r, end);
    case HT_MODE_HEADER:
        return ht_reply_header_step(r, end);
    case HT_MODE_BODY:
        return ht_reply_body_step(r, end);
    }
    return false;
}

static ht_status run(ht_reply *r, bool end) {
    while (r->status == HT_OK && step(r, end))
        ;
    if (r->at) {
        memmove(r->held.data, r->held.data + r->at, r->held.bytes - r->at);
        r->held.bytes -= r->at;
        r->at = 0;
    }
    return r->status;
}

ht_status ht_reply_feed(ht_reply *r, const char *text, size_t bytes, ht_error *error) {
    r->error = error;
    ht_reply_append(r, &r->held, text, bytes);
    return run(r, false);
}

ht_status ht_reply_finish(ht_reply *r, ht_error *error) {
    r->error = error;
    run(r, true);
    if (r->called) /* cut off */
        ht_reply_call_end(r);
    else if (r->raw.bytes)
        ht_reply_no_call(r);
    if (r->mode == HT_MODE_TEXT && !r->calls)
        ht_reply_emit(r, HT_REPLY_CONTENT, r->spaces.data, r->spaces.bytes);
    r->spaces.bytes = 0;
    return r->status;
}

/* Does the prompt end with the mark, white space behind either aside? */
static bool ends_with(const char *text, size_t bytes, const char *mark) {
    size_t length = strlen(mark);
    while (length && ht_is_blank(mark[length - 1]))
        length--;
    while (bytes && ht_is_blank(text[bytes - 1]))
        bytes--;
    return bytes >= length && memcmp(text + bytes - length, mark, length) == 0;
}

ht_status ht_reply_create(const ht_reply_config *config, ht_reply **reply, ht_error *error) {
    void *memory;
    const ht_status status = ht_alloc(&memory, 1, sizeof **reply, "an answer's parser", error);
    *reply = NULL;
    if (status)
        return status;
    ht_reply *const r = *reply = memory;
    r->style = config->style;
    r->thinking = ht_thinking_of(config->chat_template, config->template_bytes);
    r->tools = config->tools;
    r->function = config->function;
    r->user = config->user;
    if (r->style->form == HT_CALL_CHANNELS)
        r->mode = HT_MODE_HEADER;
    else if (config->prompt && ends_with(config->prompt, config->prompt_bytes, r->thinking->open))
        r->mode = HT_MODE_THINKING, r->trims = true;
    return HT_OK;
}

void ht_reply_destroy(ht_reply *r) {
    if (!r)
        return;
    ht_text *const texts[] = {&r->held,      &r->spaces, &r->raw,   &r->name,      &r->id,
                              &r->arguments, &r->key,    &r->value, &r->json.token};
    for (size_t i = 0; i < HT_COUNT(texts); i++)
        ht_text_free(texts[i]);
    free(r);
}
