/* What a parser of answers is made of: bytes that are held, marks among them, and what is told of them. Bytes are held
 * back only while they may be a part of a mark, or white space before one. */
#include "text/reply/parser.h"

#include <string.h>

void ht_reply_append(ht_reply *r, ht_text *text, const char *data, size_t bytes) {
    if (r->status == HT_OK && bytes)
        r->status = ht_text_append(text, data, bytes, r->error);
}

void ht_reply_emit(ht_reply *r, ht_reply_kind kind, const char *text, size_t bytes) {
    const ht_reply_event event = {.kind = kind,
                                  .text = text,
                                  .bytes = bytes,
                                  .call = r->calls,
                                  .id = kind == HT_REPLY_CALL && r->id.bytes ? r->id.data : NULL};
    if (r->status == HT_OK && (bytes || kind == HT_REPLY_CALL_END))
        r->status = r->function(r->user, &event);
}

void ht_reply_take(ht_reply *r, size_t bytes, bool of_call) {
    if (of_call && !r->called)
        ht_reply_append(r, &r->raw, ht_reply_rest(r), bytes);
    r->at += bytes;
}

size_t ht_reply_find(const ht_reply *r, const char *const *marks, size_t n, bool end, size_t *which, size_t *safe) {
    const char *const text = ht_reply_rest(r);
    const size_t bytes = ht_reply_left(r);
    *safe = bytes;
    for (size_t at = 0; at < bytes; at++)
        for (size_t i = 0; i < n; i++) {
            if (!marks[i] || text[at] != marks[i][0])
                continue;
            const size_t length = strlen(marks[i]);
            if (length <= bytes - at && memcmp(text + at, marks[i], length) == 0) {
                *which = i;
                return *safe = at;
            }
            /* a longer mark that may begin here keeps a shorter one behind it waiting */
            if (!end && length > bytes - at && memcmp(text + at, marks[i], bytes - at) == 0 && at < *safe)
                *safe = at;
        }
    return HT_REPLY_NONE;
}

int ht_reply_next(const ht_reply *r, const char *mark, bool end) {
    const size_t length = mark ? strlen(mark) : 0, have = ht_min_size(length, ht_reply_left(r));
    if (!mark || memcmp(ht_reply_rest(r), mark, have) != 0)
        return 0;
    return have == length ? 1 : end ? 0 : -1;
}

void ht_reply_text(ht_reply *r, ht_reply_kind kind, const char *text, size_t bytes) {
    size_t begin = 0, end = bytes;
    while (r->trims && begin < bytes && ht_is_blank(text[begin]))
        begin++;
    if (begin == bytes)
        return;
    r->trims = false;
    while (end > begin && ht_is_blank(text[end - 1]))
        end--;
    if (end > begin) {
        r->started |= kind == HT_REPLY_CONTENT;
        ht_reply_emit(r, kind, r->spaces.data, r->spaces.bytes);
        r->spaces.bytes = 0;
        ht_reply_emit(r, kind, text + begin, end - begin);
    }
    ht_reply_append(r, &r->spaces, text + end, bytes - end);
}

void ht_reply_begin_text(ht_reply *r) {
    r->mode = HT_MODE_TEXT;
    r->spaces.bytes = 0;
    r->trims = true;
}

void ht_reply_after(ht_reply *r, bool closed) {
    r->raw.bytes = 0;
    if (r->style->call_end && !closed)
        r->mode = HT_MODE_TAIL;
    else if (r->style->section)
        r->mode = HT_MODE_SECTION;
    else
        ht_reply_begin_text(r);
}

void ht_reply_call(ht_reply *r) {
    r->called = true;
    r->raw.bytes = 0;
    ht_reply_emit(r, HT_REPLY_CALL, r->name.data, r->name.bytes);
    if (r->arguments.bytes)
        ht_reply_emit(r, HT_REPLY_ARGUMENTS, r->arguments.data, r->arguments.bytes);
    r->arguments.bytes = 0;
}

void ht_reply_give_arguments(ht_reply *r, const char *text, size_t bytes) {
    r->any_arguments |= bytes > 0;
    if (r->called)
        ht_reply_emit(r, HT_REPLY_ARGUMENTS, text, bytes);
    else
        ht_reply_append(r, &r->arguments, text, bytes);
}

void ht_reply_call_end(ht_reply *r) {
    if (!r->any_arguments)
        ht_reply_emit(r, HT_REPLY_ARGUMENTS, "{}", 2);
    ht_reply_emit(r, HT_REPLY_CALL_END, "", 0);
    r->calls++;
    r->called = false;
    r->raw.bytes = 0;
}

void ht_reply_no_call(ht_reply *r) {
    r->mode = HT_MODE_TEXT;
    r->plain |= !r->style->call;
    r->started = true;
    ht_reply_emit(r, HT_REPLY_CONTENT, r->spaces.data, r->spaces.bytes);
    r->spaces.bytes = 0;
    r->trims = false;
    if (r->raw.bytes)
        ht_reply_text(r, HT_REPLY_CONTENT, r->raw.data, r->raw.bytes);
    r->raw.bytes = r->arguments.bytes = 0;
}

bool ht_reply_knows(const ht_reply *r, const char *name) {
    size_t i;
    json_t *tool;
    json_array_foreach((json_t *)r->tools, i, tool) {
        const json_t *const inner = json_object_get(tool, "function");
        const char *const own = json_string_value(json_object_get(inner ? inner : tool, "name"));
        if (own && strcmp(own, name) == 0)
            return true;
    }
    return false;
}

void ht_reply_skip_blanks(ht_reply *r) {
    size_t n = 0;
    while (n < ht_reply_left(r) && ht_is_blank(ht_reply_rest(r)[n]))
        n++;
    ht_reply_take(r, n, true);
}
