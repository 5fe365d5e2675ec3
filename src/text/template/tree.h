/* What a template's source becomes: tokens, then a tree. */
#ifndef HT_TEMPLATE_TREE_H
#define HT_TEMPLATE_TREE_H

#include "text/template/template.h"

#define TPL_MOST_SOURCE (4u << 20) /* bytes */
#define TPL_MOST_NESTED 120        /* blocks and expressions inside each other */

typedef enum tpl_token_kind {
    TOKEN_TEXT,
    TOKEN_PRINT,     /* {{ */
    TOKEN_PRINT_END, /* }} */
    TOKEN_BLOCK,     /* {% */
    TOKEN_BLOCK_END, /* %} */
    TOKEN_NAME,
    TOKEN_STRING,
    TOKEN_INT,
    TOKEN_FLOAT,
    TOKEN_OPERATOR,
    TOKEN_END
} tpl_token_kind;

typedef struct tpl_token {
    tpl_token_kind kind;
    unsigned line;
    const char *text; /* NUL-terminated; of a string: unescaped */
    size_t bytes;
    union {
        int64_t integer;
        double real;
    } number;
} tpl_token;

typedef struct tpl_tokens {
    tpl_token *at; /* [n], the last is TOKEN_END; from malloc, the texts are the arena's */
    size_t n, capacity;
} tpl_tokens;

/* On failure, too, the caller frees tokens->at. */
ht_status tpl_lex(ht_arena *arena, const char *source, size_t bytes, tpl_tokens *tokens, ht_error *error);

/* Digits, a fraction, an exponent, as JSON writes numbers without a sign. HT_ERROR_FORMAT: it is none, or too large. */
ht_status tpl_read_real(const char *text, size_t bytes, double *value);

typedef enum tpl_node_kind {
    /* expressions */
    NODE_STRING,
    NODE_INT,
    NODE_FLOAT,
    NODE_TRUE,
    NODE_FALSE,
    NODE_NONE,
    NODE_NAME,        /* text */
    NODE_LIST,        /* a: items */
    NODE_TUPLE,       /* a: items */
    NODE_DICT,        /* a: keys and values in turn */
    NODE_ATTRIBUTE,   /* a.text */
    NODE_ITEM,        /* a[b] */
    NODE_SLICE,       /* a[b:c:d], each of the three may be NULL */
    NODE_CALL,        /* a(b) */
    NODE_FILTER,      /* a | text(b); a NULL: of a block */
    NODE_TEST,        /* a is text(b) */
    NODE_NOT,         /* a */
    NODE_NEGATIVE,    /* a */
    NODE_POSITIVE,    /* a */
    NODE_BINARY,      /* a text b: + - * / // % ** */
    NODE_CONCAT,      /* a: items */
    NODE_COMPARE,     /* a, then b: a chain of NODE_OPERAND */
    NODE_OPERAND,     /* text a */
    NODE_AND,         /* a, b */
    NODE_OR,          /* a, b */
    NODE_CONDITIONAL, /* a if b else c (may be NULL) */
    NODE_ARGUMENT,    /* a; text: its name or NULL. of calls, filters, tests */
    /* statements */
    NODE_TEXT,       /* text */
    NODE_PRINT,      /* a */
    NODE_IF,         /* if a: b, else c; integer 1: of an elif, which is the c of another */
    NODE_FOR,        /* for a in b if c: d, else e */
    NODE_SET,        /* a = b */
    NODE_SET_BLOCK,  /* a = what d prints, through the filters b (may be NULL) */
    NODE_MACRO,      /* text(a: NODE_ARGUMENT with defaults): d */
    NODE_CALL_BLOCK, /* b is the call, c a NODE_MACRO: the caller */
    NODE_FILTERED,   /* what d prints through the filters b */
    NODE_WITH,       /* a: targets and values in turn; d */
    NODE_BREAK,
    NODE_CONTINUE
} tpl_node_kind;

typedef struct tpl_node {
    tpl_node_kind kind;
    unsigned line;
    const char *text;
    size_t bytes;
    int64_t integer;
    double real;
    struct tpl_node *a, *b, *c, *d, *e;
    struct tpl_node *next; /* of a list */
} tpl_node;

struct ht_template {
    ht_arena arena;
    tpl_node *body;
};

/* ---- parse.c: expressions ---- */

typedef struct tpl_parser {
    ht_arena *arena;
    const tpl_token *at;
    unsigned nested, loops;
    ht_status status; /* the first failure; nothing is parsed after it */
    ht_error *error;
} tpl_parser;

/* NULL after a failure, as are all that follow. */
tpl_node *tpl_new_node(tpl_parser *p, tpl_node_kind kind);
tpl_node *tpl_parse_fail(tpl_parser *p, ht_status status, const char *format, ...) HT_PRINTF(3, 4);
bool tpl_is(const tpl_parser *p, tpl_token_kind kind, const char *text); /* text NULL: any */
bool tpl_take(tpl_parser *p, tpl_token_kind kind, const char *text);
void tpl_expect(tpl_parser *p, tpl_token_kind kind, const char *text);
const char *tpl_take_name(tpl_parser *p);
bool tpl_enter(tpl_parser *p); /* one deeper; p->nested-- is the way back, when it failed, too */
tpl_node *tpl_parse_expression(tpl_parser *p, bool with_condition);
/* One expression, or a tuple of several without parentheses. */
tpl_node *tpl_parse_tuple(tpl_parser *p, bool with_condition);
/* "name", "a, b", "(a, b)", "namespace.name" */
tpl_node *tpl_parse_target(tpl_parser *p, bool with_attribute);
/* "name(arguments) | name ..." on `of`. */
tpl_node *tpl_parse_filters(tpl_parser *p, tpl_node *of);
tpl_node *tpl_parse_postfix(tpl_parser *p, tpl_node *of);
tpl_node *tpl_parse_primary(tpl_parser *p);

/* ---- statements.c ---- */

tpl_node *tpl_parse_template(tpl_parser *p);

#endif
