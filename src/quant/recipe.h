/* Which type quantize gives each tensor. */
#ifndef HT_RECIPE_H
#define HT_RECIPE_H

#include "gguf/gguf.h"

typedef struct ht_recipe ht_recipe;
/* By the name that quantize takes ("q4_0", "q4_k_m"), in any case; NULL: there is none. */
const ht_recipe *ht_recipe_find(const char *name);
/* All names, with commas, for errors. */
const char *ht_recipe_names(char *text, size_t capacity);
uint32_t ht_recipe_file_type(const ht_recipe *recipe); /* general.file_type, in llama.cpp's numbering */

/* targets[i]: the type of tensor number i of the file; wanted[i]: the same, if only its rows were whole blocks of that.
 * Both from ht_alloc, [tensors]. */
ht_status ht_recipe_apply(const ht_recipe *recipe, const ht_gguf *file, ht_type **targets, ht_type **wanted,
                          ht_error *error);

#endif
