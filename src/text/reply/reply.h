/* What a model answers, taken apart as it comes: thinking, text, calls of tools. Models write the last two in a dozen
 * ways, each trained on its own chat template: the style is found by what stands in the template. */
#ifndef HT_REPLY_H
#define HT_REPLY_H

#include "base/base.h"

#include <jansson.h>

typedef enum ht_reply_kind {
    HT_REPLY_CONTENT,   /* text for whoever asked */
    HT_REPLY_REASONING, /* what the model thinks before */
    HT_REPLY_CALL,      /* a call begins: text is the tool's name */
    HT_REPLY_ARGUMENTS, /* more of its arguments: all of them joined are a JSON object, if the model wrote one */
    HT_REPLY_CALL_END
} ht_reply_kind;

/* A piece of the answer. Texts are valid during the call of the function that gets it; they may end within a character,
 * which the next piece of the same kind then goes on with. */
typedef struct ht_reply_event {
    ht_reply_kind kind;
    const char *text;
    size_t bytes;
    size_t call;    /* of calls: its number, from 0 */
    const char *id; /* HT_REPLY_CALL: what the model calls it; NULL: it does not */
} ht_reply_event;
/* Anything but HT_OK ends the parse with that status. */
typedef ht_status (*ht_reply_function)(void *user, const ht_reply_event *event);

typedef struct ht_reply_style ht_reply_style;
/* Never NULL: "plain", where the template has nothing that is known. */
const ht_reply_style *ht_reply_style_of(const char *chat_template, size_t bytes);
const ht_reply_style *ht_reply_style_named(const char *name); /* NULL: there is none */
const char *ht_reply_style_name(const ht_reply_style *style);

typedef struct ht_reply_config {
    const ht_reply_style *style;
    const char *chat_template; /* its source: which marks it has for thinking; NULL: <think> */
    size_t template_bytes;
    const char *prompt; /* what was rendered: an answer may begin in the midst of thinking; NULL: it does not */
    size_t prompt_bytes;
    const json_t
        *tools; /* as OpenAI's API has them, or Anthropic's: says which arguments are strings; NULL: there are none */
    ht_reply_function function;
    void *user;
} ht_reply_config;

/* One answer's parser: one thread at a time. The config's texts need not outlive the call; the tools do. */
typedef struct ht_reply ht_reply;
ht_status ht_reply_create(const ht_reply_config *config, ht_reply **reply, ht_error *error);
/* More of the answer's text, control tokens written out. However it is cut, the pieces joined are the same. Nothing is lost:
 * what looked like a call and is none is given as content. */
ht_status ht_reply_feed(ht_reply *reply, const char *text, size_t bytes, ht_error *error);
ht_status ht_reply_finish(ht_reply *reply, ht_error *error); /* the answer is at its end */
void ht_reply_destroy(ht_reply *reply);                      /* NULL is allowed */

#endif
