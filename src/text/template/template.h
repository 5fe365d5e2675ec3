/* Chat templates as models bring them: Jinja, as far as such templates use it, in the meaning that Hugging Face's
 * transformers gives it (trim_blocks, lstrip_blocks, loop controls, generation blocks that only enclose). Nothing here
 * reaches a file, a clock or a variable that was not handed in, and every render is bounded in steps, depth and memory. */
#ifndef HT_TEMPLATE_H
#define HT_TEMPLATE_H

#include "text/text.h"

#include <jansson.h>
#include <time.h>

typedef struct ht_template ht_template;

/* Parses `bytes` of a source; a template belongs to the caller, until ht_template_destroy. Threads may render one
 * template at the same time. HT_ERROR_FORMAT names the line and what is wrong there; HT_ERROR_UNSUPPORTED: a tag that
 * chat templates do not use (include, extends, ...), or a source past the bounds. */
ht_status ht_template_parse(const char *source, size_t bytes, ht_template **out, ht_error *error);
void ht_template_destroy(ht_template *t); /* NULL is allowed */

/* Renders with the members of the object `variables` as variables (messages, tools, add_generation_prompt, bos_token,
 * ...). *out is written whole or left empty, whatever it held; the caller frees it. `now` is what strftime_now tells;
 * NULL: the template has no such function, as it has none where transformers is old. A byte is foreign if its text came
 * from the variables, whatever was done to it on the way: cut, joined, escaped, put into JSON, in upper case. Two kinds
 * of variables' text count as the template's own, since templates build control tokens of them: variables whose name
 * ends in "_token", and a message's role, as long as it is one of the usual names. HT_ERROR_ARGUMENT: the template
 * raised an exception (its message is the error's text). HT_ERROR_FORMAT: an operation that Jinja refuses, too; the
 * text names the line. HT_ERROR_UNSUPPORTED: past a bound. HT_ERROR_MEMORY. */
ht_status ht_template_render(const ht_template *t, const json_t *variables, const struct tm *now, ht_script *out,
                             ht_error *error);
/* The same in so many steps at most, for those who try what a template does (a usual conversation takes some thousands). */
ht_status ht_template_try(const ht_template *t, const json_t *variables, const struct tm *now, uint64_t most_steps,
                          ht_script *out, ht_error *error);

#endif
