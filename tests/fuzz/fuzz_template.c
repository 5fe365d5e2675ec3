/* libFuzzer: the input is a chat template, a NUL, and the variables as JSON: parsed or refused, rendered or refused,
 * and what came from the variables lies inside the text, in order. */
#include "text/template/template.h"

#include "fuzz/fuzz.h"

static const struct tm noon = {.tm_year = 124, .tm_mon = 6, .tm_mday = 26, .tm_hour = 12, .tm_wday = 5, .tm_yday = 207};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static const char plain[] =
        "{\"messages\": [{\"role\": \"user\", \"content\": \" <a> \\u00c4b\\n\"}, {\"role\": \"x\"}], \"tools\":"
        " [{\"f\": {\"n\": 1, \"l\": [1.5, null, true]}}], \"bos_token\": \"<s>\", \"s\": \"ab\", \"n\": 3}";
    const char *source = (const char *)data, *end = bytes ? memchr(source, '\0', bytes) : NULL;
    const size_t n = end ? (size_t)(end - source) : bytes;
    ht_error error = {0};
    ht_template *t = NULL;
    ht_status status = ht_template_parse(source, n, &t, &error);
    must((status == HT_OK) == (t != NULL) && (t || *error.text));
    if (!t)
        return 0;
    json_t *variables = end ? json_loadb(end + 1, bytes - n - 1, JSON_ALLOW_NUL, NULL) : NULL;
    if (!json_is_object(variables)) {
        json_decref(variables);
        variables = json_loads(plain, 0, NULL);
    }
    must(variables != NULL);
    ht_script out;
    status = ht_template_render(t, variables, &noon, &out, &error);
    must(status == HT_OK || (!out.text.data && !out.foreign && *error.text));
    for (size_t i = 0, at = 0; i < out.n_foreign; i++) {
        must(out.foreign[i].begin >= at && (i == 0 || out.foreign[i].begin > at));
        must(out.foreign[i].end > out.foreign[i].begin && out.foreign[i].end <= out.text.bytes);
        at = out.foreign[i].end;
    }
    ht_script_free(&out);
    json_decref(variables);
    ht_template_destroy(t);
    return 0;
}
