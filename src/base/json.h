/* JSON trees that are whole or not there. A tree that something could not be added to, for want of memory, is freed and
 * becomes NULL; adding to NULL does nothing; and a NULL child makes its parent NULL (json_pack does so by itself). So nobody
 * checks on the way, and ht_json_text sees at the end whether anything is missing. */
#ifndef HT_JSON_H
#define HT_JSON_H

#include "base/base.h"

#include <jansson.h>

/* *object[key] = value, *array[n] = value. The value's reference is taken in any case. */
void ht_json_set(json_t **object, const char *key, json_t *value);
void ht_json_add(json_t **array, json_t *value);
/* The tree as text, from malloc; its reference is taken in any case. HT_ERROR_MEMORY names `what`. */
ht_status ht_json_text(json_t *tree, size_t flags, const char *what, char **text, ht_error *error);

/* ---- json_place.c: files that people write ---- */

/* A place in a file: a key of an object, or an element of an array (key NULL). The root has no `up`. */
typedef struct ht_json_place {
    const struct ht_json_place *up;
    const char *key;
    size_t index;
} ht_json_place;

typedef struct ht_json_source {
    const char *file; /* what errors call it */
    const char *text; /* a copy that ends with NUL */
    json_t *root;
    ht_error *error;
} ht_json_source;

/* Parses `bytes` of a text; a key that occurs twice is an error, as broken syntax is. `file` must outlive the source. */
ht_status ht_json_open(const char *file, const char *text, size_t bytes, ht_json_source *source, ht_error *error);
void ht_json_close(ht_json_source *source);

/* Fails with HT_ERROR_FORMAT and "FILE: line 12: processors[1].launch_us: ..." */
ht_status ht_json_bad(const ht_json_source *source, const ht_json_place *place, const char *format, ...)
    HT_PRINTF(3, 4);
/* An object whose keys are all among `keys` (NULL-terminated). */
ht_status ht_json_known(const ht_json_source *source, const json_t *object, const ht_json_place *here,
                        const char *const *keys);
/* object[key], a text of at most capacity - 1 bytes; one that is not required may be absent or empty: "". */
ht_status ht_json_read_text(const ht_json_source *source, const json_t *object, const ht_json_place *up,
                            const char *key, bool required, char *out, size_t capacity);
/* object[key], a number from least to most. */
ht_status ht_json_read_number(const ht_json_source *source, const json_t *object, const ht_json_place *up,
                              const char *key, double least, double most, double *out);

typedef struct ht_json_figure { /* {"value": number, "low": number, "high": number, "source": text, "fit": true} */
    double value;
    double low, high;   /* what it may be; both the value where the file gives none of them */
    const char *source; /* the tree's */
    bool fitted;        /* a free parameter */
} ht_json_figure;
ht_status ht_json_read_figure(const ht_json_source *source, const json_t *figure, const ht_json_place *here,
                              double least, double most, ht_json_figure *out);

#endif
