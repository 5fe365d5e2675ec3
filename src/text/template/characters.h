/* Characters as Python's str has them, in UTF-8. */
#ifndef HT_TEMPLATE_CHARACTERS_H
#define HT_TEMPLATE_CHARACTERS_H

#include "base/base.h"

bool tpl_is_space(int32_t c);
bool tpl_is_printable(int32_t c); /* does repr leave it as it is? */
bool tpl_is_upper(int32_t c);
bool tpl_is_lower(int32_t c);
bool tpl_is_letter(int32_t c);
bool tpl_is_digit(int32_t c);
int32_t tpl_upper(int32_t c);
int32_t tpl_lower(int32_t c);
int32_t tpl_title(int32_t c);
/* Bytes of white space at the start of text, and of text without that at its end. */
size_t tpl_space_before(const char *text, size_t bytes);
size_t tpl_without_space_after(const char *text, size_t bytes);
/* UTF-8 of c, 1 to 4 bytes. */
size_t tpl_write_character(char out[4], int32_t c);
/* Where the character begins that ends before text[at], at > 0. */
size_t tpl_character_before(const char *text, size_t at);
size_t tpl_count_characters(const char *text, size_t bytes);

#endif
