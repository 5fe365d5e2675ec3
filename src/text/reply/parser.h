/* Inside src/text/reply: what its files share. */
#ifndef HT_REPLY_PARSER_H
#define HT_REPLY_PARSER_H

#include "text/reply/reply.h"

enum {
    HT_REPLY_MARKS = 3,      /* of a template */
    HT_REPLY_NAME = 256,     /* bytes of a name, at most */
    HT_REPLY_DEPTH = 64,     /* of JSON */
    HT_REPLY_HELD = 1 << 20, /* bytes that a call without deltas may have */
};

/* How a call is written. */
typedef enum ht_call_form {
    HT_CALL_JSON,     /* an object with a name and arguments, or an array of such */
    HT_CALL_NAMED,    /* NAME, name_end, arguments as JSON */
    HT_CALL_TAGS,     /* NAME, name_end, then for each argument key, KEY, key_end, value (or NULL), VALUE, value_end */
    HT_CALL_PYTHON,   /* [name(key="value", other=1)] */
    HT_CALL_GEMMA,    /* call:NAME{key:<|"|>value<|"|>,other:1} */
    HT_CALL_CHANNELS, /* messages with a header each, which names a channel and whom it is for */
} ht_call_form;

struct ht_reply_style {
    const char *name;
    const char *marks[HT_REPLY_MARKS]; /* all of them stand in its templates */
    const char *section, *section_end; /* round all calls; NULL: nothing is */
    const char *call,
        *call_end; /* round each; call NULL: an answer that begins as JSON is one; call_end NULL: JSON ends */
    ht_call_form form;
    const char *name_end, *key, *key_end, *value, *value_end;
    bool lines; /* a value stands between line breaks that are not its own */
};

/* What opens and closes thinking. */
typedef struct ht_thinking {
    const char *open, *close;
} ht_thinking;

/* A scan of JSON, byte by byte. */
typedef struct ht_json_scan {
    size_t calls; /* that had been told before it */
    int depth;
    int call;     /* depth of the object that is a call; 0: we are in none */
    int passed;   /* depth that the arguments' value stands at */
    bool passing; /* what comes belongs to the arguments */
    bool in_string, escaped, colon, begun;
    uint64_t arrays; /* bit d: what opened at depth d is an array */
    enum { HT_KEY_OTHER, HT_KEY_NAME, HT_KEY_ARGUMENTS, HT_KEY_ID, HT_KEY_FUNCTION } key;
    enum { HT_TOKEN_NONE, HT_TOKEN_KEY, HT_TOKEN_VALUE } keeping;
    ht_text token; /* a string, quotes included */
} ht_json_scan;

typedef enum ht_reply_mode {
    HT_MODE_TEXT,
    HT_MODE_THINKING,
    HT_MODE_SECTION, /* between calls */
    HT_MODE_NAME,    /* of a call */
    HT_MODE_JSON,
    HT_MODE_BETWEEN, /* arguments of tags */
    HT_MODE_KEY,
    HT_MODE_VALUE_OPEN,
    HT_MODE_VALUE,
    HT_MODE_WHOLE, /* of a call that is read once it is all there */
    HT_MODE_TAIL,  /* behind a call: its end */
    HT_MODE_HEADER,
    HT_MODE_BODY,
} ht_reply_mode;

struct ht_reply {
    const ht_reply_style *style;
    const ht_thinking *thinking;
    const json_t *tools;
    ht_reply_function function;
    void *user;
    ht_error *error;
    ht_status status;

    ht_reply_mode mode;
    ht_reply_kind body; /* of HT_MODE_BODY */
    ht_text held;       /* bytes from `at` on are not yet decided */
    size_t at;
    ht_text spaces; /* before what comes next, if that is more text of the same kind */
    bool started;   /* there was text other than white space, so that nothing is thinking any more */
    bool trims;     /* white space before the next text goes */
    bool plain;     /* no call begins any more: an answer of JSON that was none */

    size_t calls;
    bool called;        /* the call at hand has been told */
    ht_text raw;        /* all of a call until it is told */
    ht_text name, id;   /* of the call at hand */
    ht_text arguments;  /* that came before the name */
    bool any_arguments; /* of the call at hand, told or kept */
    ht_text key;
    bool is_text;         /* of a value of tags: it is a string */
    bool line, held_line; /* the next byte is the value's first; a line break waits for more */
    ht_text value;
    size_t searched; /* bytes of what is held that have no end of a call that is read whole */
    ht_json_scan json;
};

/* ---- pieces.c ---- */
static inline const char *ht_reply_rest(const ht_reply *r) {
    return r->held.data ? r->held.data + r->at : "";
}
static inline size_t ht_reply_left(const ht_reply *r) {
    return r->held.bytes - r->at;
}
void ht_reply_emit(ht_reply *r, ht_reply_kind kind, const char *text, size_t bytes);
void ht_reply_append(ht_reply *r, ht_text *text, const char *data, size_t bytes);
/* Text of one kind; white space at its end waits for more. And: what follows is text of a new paragraph. */
void ht_reply_text(ht_reply *r, ht_reply_kind kind, const char *text, size_t bytes);
void ht_reply_begin_text(ht_reply *r);
/* Takes `bytes` of what is held; those of a call that has not been told yet are kept. */
void ht_reply_take(ht_reply *r, size_t bytes, bool of_call);
/* Where the first of `n` marks (NULL ones left out) stands in what is held, and which; HT_REPLY_NONE: none does, and
 * the first *safe bytes cannot be a part of one that is to come (all of them at the end). */
#define HT_REPLY_NONE SIZE_MAX
size_t ht_reply_find(const ht_reply *r, const char *const *marks, size_t n, bool end, size_t *which, size_t *safe);
/* Is the mark next? 1: yes, 0: no, -1: it may be, what is held is too short. */
int ht_reply_next(const ht_reply *r, const char *mark, bool end);
/* The call is told, ends, or was none: what was kept of it is content then. */
void ht_reply_call(ht_reply *r);
void ht_reply_call_end(ht_reply *r);
void ht_reply_no_call(ht_reply *r);
void ht_reply_give_arguments(ht_reply *r, const char *text, size_t bytes);
bool ht_reply_knows(const ht_reply *r, const char *name); /* is it a tool's? */
/* Behind a call, or before the mark of its end, where there is one, unless it is closed. */
void ht_reply_after(ht_reply *r, bool closed);
void ht_reply_skip_blanks(ht_reply *r); /* of a call */

/* ---- calls.c: a step of a mode; false: it needs more bytes ---- */
void ht_reply_begin_call(ht_reply *r);
bool ht_reply_name_step(ht_reply *r, bool end);
bool ht_reply_json_step(ht_reply *r, bool end);

/* ---- tags.c ---- */
bool ht_reply_between_step(ht_reply *r, bool end);
bool ht_reply_key_step(ht_reply *r, bool end);
bool ht_reply_value_open_step(ht_reply *r, bool end);
bool ht_reply_value_step(ht_reply *r, bool end);

/* ---- whole.c ---- */
bool ht_reply_whole_step(ht_reply *r, bool end);

/* ---- channels.c ---- */
bool ht_reply_header_step(ht_reply *r, bool end);
bool ht_reply_body_step(ht_reply *r, bool end);

/* ---- styles.c ---- */
const ht_thinking *ht_thinking_of(const char *chat_template, size_t bytes);

static inline bool ht_is_blank(char c) {
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

#endif
