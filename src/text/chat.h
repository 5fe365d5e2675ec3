/* A model's chat templates: which of them a conversation gets, what it takes, and the text that comes of it. */
#ifndef HT_CHAT_H
#define HT_CHAT_H

#include "text/template/template.h"

#include <pthread.h>

/* What a template does with a conversation, found out by trying (chat_probe.c). */
typedef enum ht_chat_trait {
    HT_CHAT_TEXTS = 1 << 0,     /* shows content that is a text */
    HT_CHAT_PARTS = 1 << 1,     /* shows content that is a list of parts */
    HT_CHAT_SYSTEM = 1 << 2,    /* shows a system message */
    HT_CHAT_TOOLS = 1 << 3,     /* shows descriptions of tools */
    HT_CHAT_WRITTEN = 1 << 4,   /* shows calls whose arguments are JSON in a text */
    HT_CHAT_ARGUMENTS = 1 << 5, /* shows calls whose arguments are an object */
    HT_CHAT_ALL = (1 << 6) - 1
} ht_chat_trait;

typedef struct ht_chat_template_text {
    const char *name; /* as in ht_chat_template_info */
    char *source;     /* [bytes], NUL-terminated */
    size_t bytes;
    ht_template *parsed; /* NULL: it cannot be used */
    ht_status status;    /* and why */
    char *why;
    bool *marks; /* [vocabulary] user-defined tokens that it writes; NULL without a tokenizer */
} ht_chat_template_text;

typedef struct ht_chat_findings {
    pthread_mutex_t mutex;
    struct {
        unsigned tried, traits; /* HT_CHAT_* */
        bool talked;            /* the two below are known */
        const char *reasoning, *thinking;
    } of[2];
} ht_chat_findings;

typedef struct ht_chat {
    const ht_tokenizer *tokenizer; /* may be NULL */
    ht_chat_template_text at[2];   /* [n] for conversations without tools, with tools */
    size_t n;
    ht_chat_findings *findings;
} ht_chat;

/* The templates of the file, or ChatML where it has none and the vocabulary has its marks. One that cannot be parsed is no
 * failure: its `status` and `why` tell. Close it after a failure, too. */
ht_status ht_chat_open(const ht_gguf *file, const ht_tokenizer *tokenizer, ht_chat *chat, ht_error *error);
/* The same with this one template, which has to be right. */
ht_status ht_chat_open_text(const char *source, size_t bytes, const ht_tokenizer *tokenizer, ht_chat *chat,
                            ht_error *error);
void ht_chat_close(ht_chat *chat);

/* Variables that every conversation has, but for the messages. */
ht_status ht_chat_variables(const ht_chat *chat, json_t **variables, ht_error *error);

/* ---- chat_probe.c ---- */

/* Which of these traits (HT_CHAT_*) a template has. */
unsigned ht_chat_traits(const ht_chat *chat, size_t which, unsigned asked);
/* Fills the last two members. */
void ht_chat_thinking(const ht_chat *chat, size_t which, const char **reasoning, const char **thinking);

/* ---- chat_write.c ---- */

/* *out: the text; what came from the conversation are its foreign stretches. out->marks point into `chat`. */
ht_status ht_chat_write(const ht_chat *chat, const ht_conversation *conversation, ht_script *out, ht_error *error);
#endif
