/* Values of a render and what Python makes of them. All of them live in the render's arena and go with it.
 *
 * A failure sticks: the first one is kept in the run, every function below then does nothing, and gives undefined.
 * Loops look at it (tpl_step), all else need not. */
#ifndef HT_TEMPLATE_VALUE_H
#define HT_TEMPLATE_VALUE_H

#include "text/template/tree.h"

#define TPL_MOST_DEPTH 400           /* evaluations inside each other */
#define TPL_MOST_STEPS 20000000      /* about a second */
#define TPL_MOST_MEMORY (512u << 20) /* bytes that one render takes in all */
#define TPL_MOST_TEXT (64u << 20)    /* bytes of one string, and of the output */
#define TPL_MOST_RANGE 100000        /* as jinja2's sandbox has it */
#define TPL_MOST_ARGUMENTS 16

typedef enum tpl_kind {
    TPL_UNDEFINED,
    TPL_NONE,
    TPL_BOOL,
    TPL_INT,
    TPL_FLOAT,
    TPL_STRING,
    TPL_LIST,
    TPL_TUPLE,
    TPL_ITERATOR, /* a list that can be gone through once and has no length */
    TPL_DICT,
    TPL_NAMESPACE,
    TPL_LOOP,
    TPL_MACRO,
    TPL_FUNCTION, /* of the environment: range, namespace, ... */
    TPL_METHOD    /* of a value */
} tpl_kind;

struct tpl_run;
struct tpl_arguments;
struct tpl_macro;

typedef struct tpl_string {
    const char *data;
    const uint8_t *marks; /* [bytes] 1: came from the variables; NULL: `marked` holds for all */
    size_t bytes;
    bool marked;
    bool safe; /* of the filters safe and escape: what is added to it is escaped (Python's Markup) */
} tpl_string;

typedef struct tpl_value {
    tpl_kind kind;
    union {
        bool truth;
        int64_t integer;
        double real;
        const char *name; /* undefined: of what; may be NULL */
        const tpl_string *string;
        struct tpl_list *list;
        struct tpl_dict *dict; /* of a namespace, too */
        struct tpl_loop *loop;
        struct tpl_macro *macro;
        const struct tpl_function *function;
        struct tpl_method *method;
    } as;
} tpl_value;

typedef struct tpl_list {
    tpl_value *at;
    size_t n, capacity;
} tpl_list;

typedef struct tpl_pair {
    tpl_value key, value;
} tpl_pair;

typedef struct tpl_dict { /* in the order of insertion */
    tpl_pair *at;
    size_t n, capacity;
} tpl_dict;

typedef struct tpl_loop {
    const tpl_list *items;
    size_t index;
    tpl_value changed;
} tpl_loop;

typedef struct tpl_buffer {
    char *data;
    uint8_t *marks;
    size_t bytes, capacity;
} tpl_buffer;

typedef struct tpl_frame { /* variables of a scope */
    struct tpl_frame *up;
    struct tpl_variable {
        const char *name;
        tpl_value value;
    } * at;
    size_t n, capacity;
} tpl_frame;

typedef struct tpl_macro {
    const tpl_node *node;
    tpl_frame *frame; /* where it was defined */
    tpl_value (*call)(struct tpl_run *run, const struct tpl_macro *macro, const struct tpl_arguments *given);
} tpl_macro;

typedef enum tpl_flow { TPL_ONWARD, TPL_BREAK, TPL_CONTINUE } tpl_flow;

typedef struct tpl_run {
    ht_arena arena;
    size_t memory;
    uint64_t steps, most_steps;
    unsigned depth, line;
    ht_status status;
    ht_error *error;
    tpl_buffer *out; /* what is printed goes there */
    tpl_frame *frame;
    tpl_flow flow;
    const struct tm *now;
} tpl_run;

typedef struct tpl_arguments {
    tpl_value at[TPL_MOST_ARGUMENTS];
    const char *name[TPL_MOST_ARGUMENTS]; /* NULL: by position; these come first */
    size_t n, positional;
} tpl_arguments;

typedef struct tpl_function {
    const char *name;
    tpl_value (*call)(tpl_run *run, const tpl_arguments *given);
} tpl_function;

typedef struct tpl_method {
    tpl_value of;
    tpl_value (*call)(tpl_run *run, tpl_value of, const tpl_arguments *given);
} tpl_method;

/* ---- value.c ---- */

/* The first failure is kept; undefined. */
tpl_value tpl_fail(tpl_run *run, ht_status status, const char *format, ...) HT_PRINTF(3, 4);
bool tpl_step(tpl_run *run, size_t steps);            /* false: the run has failed, or now fails */
void *tpl_alloc(tpl_run *run, size_t n, size_t size); /* zeroed; NULL: failed */
tpl_value tpl_undefined(const char *name);
tpl_value tpl_none(void);
tpl_value tpl_bool(bool truth);
tpl_value tpl_int(int64_t integer);
tpl_value tpl_float(double real);
tpl_value tpl_own_text(tpl_run *run, const char *text, size_t bytes);            /* of the template; kept, not copied */
tpl_value tpl_slice(tpl_run *run, const tpl_string *of, size_t from, size_t to); /* bytes */
bool tpl_marked(const tpl_string *string, size_t at);

void tpl_put(tpl_run *run, tpl_buffer *out, const char *text, size_t bytes, bool marked);
void tpl_put_string(tpl_run *run, tpl_buffer *out, const tpl_string *string, size_t from, size_t to);
void tpl_put_character(tpl_run *run, tpl_buffer *out, int32_t c, bool marked);
tpl_value tpl_finish(tpl_run *run, const tpl_buffer *out);

tpl_value tpl_new_list(tpl_run *run, tpl_kind kind);
void tpl_append(tpl_run *run, tpl_value list, tpl_value item);
tpl_value tpl_pair_of(tpl_run *run, tpl_value a, tpl_value b); /* a tuple */
tpl_value tpl_new_dict(tpl_run *run, tpl_kind kind);
void tpl_dict_set(tpl_run *run, tpl_dict *dict, tpl_value key, tpl_value value);
tpl_value *tpl_dict_get(tpl_run *run, const tpl_dict *dict, tpl_value key); /* NULL: none */
tpl_value *tpl_dict_named(tpl_run *run, const tpl_dict *dict, const char *name);

bool tpl_is_list(tpl_value value);   /* a list or a tuple */
bool tpl_is_number(tpl_value value); /* a bool is one */
double tpl_real(tpl_value value);
bool tpl_true(tpl_value value);
bool tpl_equal(tpl_run *run, tpl_value a, tpl_value b);
int tpl_order(tpl_run *run, tpl_value a, tpl_value b); /* below, at or above 0 */
bool tpl_contains(tpl_run *run, tpl_value whole, tpl_value part);
const char *tpl_kind_name(tpl_value value);
/* What iterating gives; an iterator is used up by it. NULL: failed. */
const tpl_list *tpl_items(tpl_run *run, tpl_value value);
size_t tpl_length(tpl_run *run, tpl_value value);
/* The tree as a value; all texts in it are marked, or none. */
tpl_value tpl_from_json(tpl_run *run, const json_t *tree, bool marked, unsigned depth);

/* The argument at this position or of this name; `otherwise` if it is not given. */
tpl_value tpl_argument(const tpl_arguments *given, size_t at, const char *name, tpl_value otherwise);
bool tpl_has_argument(const tpl_arguments *given, size_t at, const char *name);

/* ---- print.c ---- */

void tpl_put_value(tpl_run *run, tpl_buffer *out, tpl_value value);            /* str() */
const tpl_string *tpl_text(tpl_run *run, tpl_value value);                     /* str(); never NULL */
void tpl_put_escaped(tpl_run *run, tpl_buffer *out, const tpl_string *string); /* for HTML, unless it is safe */
tpl_value tpl_finish_safe(tpl_run *run, const tpl_buffer *out);
typedef struct tpl_json_style {
    const tpl_string *indent; /* NULL: in one line */
    const tpl_string *item, *key;
    bool ascii, sorted;
} tpl_json_style;
void tpl_put_json(tpl_run *run, tpl_buffer *out, tpl_value value, const tpl_json_style *style, unsigned level);

/* ---- methods.c ---- */

/* The method of this name; undefined: none. */
tpl_value tpl_find_method(tpl_run *run, tpl_value of, const char *name);

/* ---- text_methods.c: of strings, which filters of the same names are, too ---- */

typedef tpl_value (*tpl_method_call)(tpl_run *run, tpl_value of, const tpl_arguments *given);
tpl_method_call tpl_text_method(const char *name); /* NULL: none */
tpl_value tpl_text_map(tpl_run *run, const tpl_string *of, int32_t (*map)(int32_t));
/* sides: 1 left, 2 right */
tpl_value tpl_strip(tpl_run *run, const tpl_string *of, const tpl_string *set, int sides);
tpl_value tpl_split_lines(tpl_run *run, const tpl_string *of, bool keep_ends);
tpl_value tpl_replace(tpl_run *run, const tpl_string *of, const tpl_string *from, const tpl_string *to, int64_t most);
tpl_value tpl_join(tpl_run *run, const tpl_string *between, tpl_value items);
tpl_value tpl_percent(tpl_run *run, const tpl_string *format, const tpl_value *values, size_t n);
tpl_value tpl_capitalize(tpl_run *run, const tpl_string *of);

/* ---- filters.c, functions.c ---- */

tpl_value tpl_filter(tpl_run *run, const char *name, tpl_value of, const tpl_arguments *given);
bool tpl_test(tpl_run *run, const char *name, tpl_value of, const tpl_arguments *given);
const tpl_function *tpl_find_function(const tpl_run *run, const char *name);

/* ---- access.c ---- */

tpl_value tpl_attribute(tpl_run *run, tpl_value of, const char *name);
tpl_value tpl_item(tpl_run *run, tpl_value of, tpl_value key);
tpl_value tpl_path(tpl_run *run, tpl_value of, tpl_value path);                /* "a.b.0", or an int */
tpl_value tpl_slice_of(tpl_run *run, tpl_value of, const tpl_value bounds[3]); /* start, stop, step: none or int */
tpl_value tpl_arithmetic(tpl_run *run, const char *operator, tpl_value a, tpl_value b);

/* ---- evaluate.c ---- */

tpl_value tpl_evaluate(tpl_run *run, const tpl_node *node);
tpl_value tpl_apply_filters(tpl_run *run, const tpl_node *filters, tpl_value to); /* of a block */
tpl_value tpl_call(tpl_run *run, tpl_value callee, const tpl_arguments *given);
void tpl_evaluate_arguments(tpl_run *run, const tpl_node *nodes, tpl_arguments *given);
void tpl_assign(tpl_run *run, const char *name, tpl_value value); /* in the innermost scope */
tpl_frame *tpl_push_frame(tpl_run *run, tpl_frame *up);           /* the run's own from now on; NULL: failed */

/* ---- execute.c ---- */

void tpl_execute(tpl_run *run, const tpl_node *body);

#endif
