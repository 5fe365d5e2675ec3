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

#endif
