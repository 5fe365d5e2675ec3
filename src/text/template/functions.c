/* Functions that every template has, and tests. */
#include "text/template/value.h"

#include <math.h>
#include <string.h>

static tpl_value range(tpl_run *run, const tpl_arguments *given) {
    int64_t bounds[3] = {0, 0, 1};
    if (given->positional != given->n || given->n < 1 || given->n > 3)
        return tpl_fail(run, HT_ERROR_FORMAT, "range takes one to three integers");
    for (size_t i = 0; i < given->n; i++) {
        if (given->at[i].kind != TPL_INT && given->at[i].kind != TPL_BOOL)
            return tpl_fail(run, HT_ERROR_FORMAT, "range of %s", tpl_kind_name(given->at[i]));
        bounds[given->n == 1 ? 1 : i] = given->at[i].kind == TPL_INT ? given->at[i].as.integer : given->at[i].as.truth;
    }
    if (bounds[2] == 0)
        return tpl_fail(run, HT_ERROR_FORMAT, "range in steps of 0");
    const double n = ceil(((double)bounds[1] - (double)bounds[0]) / (double)bounds[2]);
    if (n > TPL_MOST_RANGE)
        return tpl_fail(run, HT_ERROR_UNSUPPORTED, "a range of more than %d", TPL_MOST_RANGE);
    const tpl_value list = tpl_new_list(run, TPL_LIST);
    for (int64_t i = 0; i < (int64_t)n && run->status == HT_OK; i++)
        tpl_append(run, list, tpl_int((int64_t)((uint64_t)bounds[0] + (uint64_t)i * (uint64_t)bounds[2])));
    return list;
}

static tpl_value filled(tpl_run *run, const tpl_arguments *given, tpl_kind kind) {
    const tpl_value dict = tpl_new_dict(run, kind);
    if (run->status != HT_OK)
        return dict;
    if (given->positional) {
        const tpl_value from = given->at[0];
        if (from.kind == TPL_DICT) {
            for (size_t i = 0; i < from.as.dict->n && run->status == HT_OK; i++)
                tpl_dict_set(run, dict.as.dict, from.as.dict->at[i].key, from.as.dict->at[i].value);
        } else {
            const tpl_list *pairs = tpl_items(run, from);
            for (size_t i = 0; pairs && i < pairs->n && run->status == HT_OK; i++) {
                const tpl_list *pair = tpl_items(run, pairs->at[i]);
                if (pair && pair->n != 2)
                    return tpl_fail(run, HT_ERROR_FORMAT, "a dictionary of what are no pairs");
                if (pair)
                    tpl_dict_set(run, dict.as.dict, pair->at[0], pair->at[1]);
            }
        }
    }
    for (size_t i = given->positional; i < given->n && run->status == HT_OK; i++)
        tpl_dict_set(run, dict.as.dict, tpl_own_text(run, given->name[i], strlen(given->name[i])), given->at[i]);
    return dict;
}

static tpl_value dict(tpl_run *run, const tpl_arguments *given) {
    return filled(run, given, TPL_DICT);
}

static tpl_value namespace_of(tpl_run *run, const tpl_arguments *given) {
    return filled(run, given, TPL_NAMESPACE);
}

static tpl_value raise_exception(tpl_run *run, const tpl_arguments *given) {
    const tpl_string *text = tpl_text(run, tpl_argument(given, 0, "message", tpl_undefined(NULL)));
    size_t bytes = ht_min_size(text->bytes, 300);
    while (bytes && bytes < text->bytes && ((unsigned char)text->data[bytes] & 0xc0) == 0x80)
        bytes--; /* no half of a character */
    return tpl_fail(run, HT_ERROR_ARGUMENT, "%.*s", (int)bytes, text->data);
}

static tpl_value strftime_now(tpl_run *run, const tpl_arguments *given) {
    const tpl_string *format = tpl_text(run, tpl_argument(given, 0, "format", tpl_undefined(NULL)));
    char copy[128], text[512];
    if (format->bytes >= sizeof copy || memchr(format->data, '\0', format->bytes))
        return tpl_fail(run, HT_ERROR_UNSUPPORTED, "a format of a time that is too long");
    memcpy(copy, format->data, format->bytes);
    copy[format->bytes] = '\0';
    const size_t n = strftime(text, sizeof text, copy, run->now);
    bool marked = false;
    for (size_t at = 0; at < format->bytes; at++)
        marked = marked || tpl_marked(format, at);
    tpl_buffer out = {0};
    tpl_put(run, &out, text, n, marked);
    return tpl_finish(run, &out);
}

const tpl_function *tpl_find_function(const tpl_run *run, const char *name) {
    static const tpl_function functions[] = {{"range", range},
                                             {"dict", dict},
                                             {"namespace", namespace_of},
                                             {"raise_exception", raise_exception},
                                             {"strftime_now", strftime_now}};
    for (size_t i = 0; i < HT_COUNT(functions) - !run->now; i++)
        if (strcmp(functions[i].name, name) == 0)
            return &functions[i];
    return NULL;
}

/* ---- tests ---- */

static bool same(tpl_value a, tpl_value b) {
    if (a.kind != b.kind)
        return false;
    switch (a.kind) {
    case TPL_NONE:
        return true;
    case TPL_BOOL:
        return a.as.truth == b.as.truth;
    case TPL_INT:
        return a.as.integer == b.as.integer;
    case TPL_FLOAT:
        return a.as.real == b.as.real;
    default:
        return a.as.list == b.as.list; /* all others are pointers */
    }
}

static bool whole_number(tpl_run *run, tpl_value of, int64_t by, int64_t rest) {
    if (of.kind == TPL_FLOAT)
        return fabs(fmod(of.as.real, (double)by)) == (double)rest;
    if (of.kind != TPL_INT && of.kind != TPL_BOOL) {
        tpl_fail(run, HT_ERROR_FORMAT, "%s is no number", tpl_kind_name(of));
        return false;
    }
    const int64_t value = of.kind == TPL_INT ? of.as.integer : of.as.truth;
    return by == 0 || by == -1 ? rest == 0 : (value % by != 0) == (rest != 0);
}

/* -1: it is no test of kinds. */
static int kind_test(const char *name, tpl_value of) {
    const tpl_kind kind = of.kind;
    const bool listed = tpl_is_list(of) || kind == TPL_STRING || kind == TPL_DICT || kind == TPL_UNDEFINED;
    const struct {
        const char *name;
        bool holds;
    } tests[] = {
        {"defined", kind != TPL_UNDEFINED},
        {"undefined", kind == TPL_UNDEFINED},
        {"none", kind == TPL_NONE},
        {"string", kind == TPL_STRING},
        {"mapping", kind == TPL_DICT},
        {"iterable", listed || kind == TPL_ITERATOR || kind == TPL_LOOP},
        {"sequence", listed},
        {"number", tpl_is_number(of)},
        {"integer", kind == TPL_INT},
        {"float", kind == TPL_FLOAT},
        {"boolean", kind == TPL_BOOL},
        {"true", kind == TPL_BOOL && of.as.truth},
        {"false", kind == TPL_BOOL && !of.as.truth},
        {"callable", kind == TPL_MACRO || kind == TPL_FUNCTION || kind == TPL_METHOD || kind == TPL_UNDEFINED}};
    for (size_t i = 0; i < HT_COUNT(tests); i++)
        if (strcmp(tests[i].name, name) == 0)
            return tests[i].holds;
    return -1;
}

/* 0: no comparison, else its first letter: = ! < > and l, g for "or equal". */
static char comparison_of(const char *name) {
    static const char *const names[][2] = {{"==", "="}, {"eq", "="}, {"equalto", "="},     {"!=", "!"},
                                           {"ne", "!"}, {"<", "<"},  {"lt", "<"},          {"lessthan", "<"},
                                           {">", ">"},  {"gt", ">"}, {"greaterthan", ">"}, {"<=", "l"},
                                           {"le", "l"}, {">=", "g"}, {"ge", "g"}};
    for (size_t i = 0; i < HT_COUNT(names); i++)
        if (strcmp(names[i][0], name) == 0)
            return names[i][1][0];
    return 0;
}

static bool compared(tpl_run *run, char how, tpl_value of, tpl_value other) {
    if (how == '=' || how == '!')
        return tpl_equal(run, of, other) == (how == '=');
    const int order = tpl_order(run, of, other);
    return how == '<' ? order < 0 : how == '>' ? order > 0 : how == 'l' ? order <= 0 : order >= 0;
}

bool tpl_test(tpl_run *run, const char *name, tpl_value of, const tpl_arguments *given) {
    if (run->status != HT_OK)
        return false;
    const int kind = kind_test(name, of);
    if (kind >= 0)
        return kind;
    const tpl_value other = tpl_argument(given, 0, NULL, tpl_undefined(NULL));
    const char how = comparison_of(name);
    if (how || strcmp(name, "in") == 0 || strcmp(name, "sameas") == 0 || strcmp(name, "divisibleby") == 0) {
        if (given->n != 1) {
            tpl_fail(run, HT_ERROR_FORMAT, "the test %s compares with one value", name);
            return false;
        }
        if (how)
            return compared(run, how, of, other);
        if (*name == 'i')
            return tpl_contains(run, other, of);
        if (*name == 's')
            return same(of, other);
        if (other.kind != TPL_INT || other.as.integer == 0)
            tpl_fail(run, HT_ERROR_FORMAT, "divisible by what is no number, or zero");
        return run->status == HT_OK && whole_number(run, of, other.as.integer, 0);
    }
    if (strcmp(name, "odd") == 0 || strcmp(name, "even") == 0)
        return whole_number(run, of, 2, *name == 'o');
    if (strcmp(name, "lower") == 0 || strcmp(name, "upper") == 0) {
        const tpl_value text = {.kind = TPL_STRING, .as.string = tpl_text(run, of)};
        return tpl_text_method(*name == 'l' ? "islower" : "isupper")(run, text, given).as.truth;
    }
    tpl_fail(run, HT_ERROR_UNSUPPORTED, "there is no test %.80s", name);
    return false;
}
