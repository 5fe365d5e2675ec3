/* Filters. */
#include "text/template/value.h"

#include "text/template/characters.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct filter {
    const char *name;
    tpl_method_call call;
} filter;

static tpl_value text_value(tpl_run *run, tpl_value of) {
    return (tpl_value){.kind = TPL_STRING, .as.string = tpl_text(run, of)};
}

/* An argument, none or absent as `otherwise`. */
static tpl_value optional(const tpl_arguments *given, size_t at, const char *name, tpl_value otherwise) {
    const tpl_value value = tpl_argument(given, at, name, otherwise);
    return value.kind == TPL_NONE ? otherwise : value;
}

/* ---- of texts ---- */

static tpl_value trim(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    const tpl_value set = tpl_argument(given, 0, "chars", tpl_none());
    return tpl_strip(run, tpl_text(run, of), set.kind == TPL_STRING ? set.as.string : NULL, 3);
}

static tpl_value upper(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    return tpl_text_map(run, tpl_text(run, of), tpl_upper);
}

static tpl_value lower(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    return tpl_text_map(run, tpl_text(run, of), tpl_lower);
}

static tpl_value capitalize(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    return tpl_capitalize(run, tpl_text(run, of));
}

/* Words as Jinja has them: they end at spaces, dashes and opening brackets, and nowhere else. */
static tpl_value title(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    const tpl_string *text = tpl_text(run, of);
    tpl_buffer out = {0};
    bool inside = false;
    for (size_t at = 0, used; at < text->bytes && run->status == HT_OK; at += used) {
        const int32_t c = ht_utf8_next(text->data + at, text->bytes - at, &used);
        const int32_t mapped = inside ? tpl_lower(c) : tpl_upper(c);
        inside = !(tpl_is_space(c) || (c > 0 && c < 0x80 && strchr("-({[<", c)));
        if (mapped == c)
            tpl_put_string(run, &out, text, at, at + used);
        else
            tpl_put_character(run, &out, mapped, tpl_marked(text, at));
    }
    return tpl_finish(run, &out);
}

static tpl_value replace(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    const tpl_value most = optional(given, 2, "count", tpl_int(-1));
    if (!tpl_has_argument(given, 0, "old") || !tpl_has_argument(given, 1, "new") || most.kind != TPL_INT)
        return tpl_fail(run, HT_ERROR_FORMAT, "replace takes two strings and a count");
    return tpl_replace(run, tpl_text(run, of), tpl_text(run, tpl_argument(given, 0, "old", tpl_none())),
                       tpl_text(run, tpl_argument(given, 1, "new", tpl_none())), most.as.integer);
}

static tpl_value to_string(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    return text_value(run, of);
}

static tpl_value escape(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    tpl_buffer out = {0};
    tpl_put_escaped(run, &out, tpl_text(run, of));
    return tpl_finish_safe(run, &out);
}

static tpl_value spaces(tpl_run *run, int64_t n) {
    tpl_buffer out = {0};
    for (; n > 0 && tpl_step(run, 1); n--)
        tpl_put(run, &out, " ", 1, false);
    return tpl_finish(run, &out);
}

/* A text of spaces, or the text that was given. */
static tpl_value indentation(tpl_run *run, tpl_value width) {
    if (width.kind == TPL_STRING)
        return width;
    return width.kind == TPL_INT ? spaces(run, width.as.integer)
                                 : tpl_fail(run, HT_ERROR_FORMAT, "an indentation of %s", tpl_kind_name(width));
}

static tpl_value indent(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    const tpl_value by = indentation(run, tpl_argument(given, 0, "width", tpl_int(4)));
    const bool first = tpl_true(tpl_argument(given, 1, "first", tpl_bool(false))),
               blank = tpl_true(tpl_argument(given, 2, "blank", tpl_bool(false)));
    const tpl_string *text = tpl_text(run, of);
    tpl_buffer ended = {0}, out = {0};
    tpl_put_string(run, &ended, text, 0, text->bytes);
    tpl_put(run, &ended, "\n", 1, false); /* as Jinja does: an empty line at the end is one */
    const tpl_value whole = tpl_finish(run, &ended);
    if (run->status != HT_OK)
        return tpl_undefined(NULL);
    const tpl_value lines = tpl_split_lines(run, whole.as.string, false);
    if (run->status != HT_OK)
        return tpl_undefined(NULL);
    for (size_t i = 0; i < lines.as.list->n && run->status == HT_OK; i++) {
        const tpl_string *line = lines.as.list->at[i].as.string;
        if (i)
            tpl_put(run, &out, "\n", 1, false);
        if (i ? blank || line->bytes : first)
            tpl_put_string(run, &out, by.as.string, 0, by.as.string->bytes);
        tpl_put_string(run, &out, line, 0, line->bytes);
    }
    return tpl_finish(run, &out);
}

static tpl_value format(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    return tpl_percent(run, tpl_text(run, of), given->at, given->positional);
}

static tpl_value to_json(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    const tpl_value width = tpl_argument(given, 1, "indent", tpl_none()),
                    separators = tpl_argument(given, 2, "separators", tpl_none());
    static const tpl_string spaced = {.data = ", ", .bytes = 2}, comma = {.data = ",", .bytes = 1},
                            colon = {.data = ": ", .bytes = 2};
    tpl_json_style style = {.item = width.kind == TPL_NONE ? &spaced : &comma,
                            .key = &colon,
                            .ascii = tpl_true(tpl_argument(given, 0, "ensure_ascii", tpl_bool(false))),
                            .sorted = tpl_true(tpl_argument(given, 3, "sort_keys", tpl_bool(false)))};
    if (width.kind != TPL_NONE) {
        const tpl_value by = width.kind == TPL_BOOL ? spaces(run, width.as.truth) : indentation(run, width);
        if (run->status != HT_OK)
            return by;
        style.indent = by.as.string;
    }
    if (separators.kind != TPL_NONE) {
        const tpl_list *both = tpl_items(run, separators);
        if (!both || both->n != 2 || both->at[0].kind != TPL_STRING || both->at[1].kind != TPL_STRING)
            return tpl_fail(run, HT_ERROR_FORMAT, "separators are two strings");
        style.item = both->at[0].as.string;
        style.key = both->at[1].as.string;
    }
    tpl_buffer out = {0};
    tpl_put_json(run, &out, of, &style, 0);
    return tpl_finish(run, &out);
}

/* ---- of numbers ---- */

/* What Python's float() reads from a text; false: nothing. */
static bool read_real(tpl_run *run, const tpl_string *text, double *value) {
    size_t from = tpl_space_before(text->data, text->bytes), to = tpl_without_space_after(text->data, text->bytes);
    const bool negative = from < to && text->data[from] == '-';
    from += from < to && (text->data[from] == '-' || text->data[from] == '+');
    while (from + 1 < to && text->data[from] == '0' && text->data[from + 1] >= '0' && text->data[from + 1] <= '9')
        from++;
    const ht_status status = from < to ? tpl_read_real(text->data + from, to - from, value) : HT_ERROR_FORMAT;
    if (status == HT_ERROR_MEMORY)
        tpl_fail(run, status, "no memory for a number");
    *value = status != HT_OK ? 0 : negative ? -*value : *value;
    return status == HT_OK;
}

static tpl_value to_float(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    double value;
    if (tpl_is_number(of))
        return tpl_float(tpl_real(of));
    if (of.kind == TPL_UNDEFINED)
        return tpl_fail(run, HT_ERROR_FORMAT, "a number of what is undefined");
    return of.kind == TPL_STRING && read_real(run, of.as.string, &value)
               ? tpl_float(value)
               : tpl_argument(given, 0, "default", tpl_float(0));
}

static tpl_value to_int(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    double value = 0;
    if (of.kind == TPL_INT)
        return of;
    if (of.kind == TPL_UNDEFINED)
        return tpl_fail(run, HT_ERROR_FORMAT, "a number of what is undefined");
    if (!tpl_is_number(of) && !(of.kind == TPL_STRING && read_real(run, of.as.string, &value)))
        return tpl_argument(given, 0, "default", tpl_int(0));
    value = tpl_is_number(of) ? tpl_real(of) : value;
    if (of.kind == TPL_STRING && of.as.string->bytes < 40 && fabs(value) >= 9007199254740992.0 &&
        fabs(value) < 9e18) { /* all digits count */
        char text[40] = {0};
        memcpy(text, of.as.string->data, of.as.string->bytes);
        if (!strpbrk(text, ".eE"))
            return tpl_int(strtoll(text, NULL, 10));
    }
    return fabs(value) < 9e18 ? tpl_int((int64_t)value)
                              : tpl_fail(run, HT_ERROR_UNSUPPORTED, "an integer of more than 64 bits");
}

static tpl_value absolute(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    if (!tpl_is_number(of))
        return tpl_fail(run, HT_ERROR_FORMAT, "abs of %s", tpl_kind_name(of));
    if (of.kind == TPL_FLOAT)
        return tpl_float(fabs(of.as.real));
    return tpl_arithmetic(run, tpl_real(of) < 0 ? "-" : "+", tpl_int(0), of);
}

static tpl_value rounded(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    const tpl_value digits = tpl_argument(given, 0, "precision", tpl_int(0)),
                    method = tpl_argument(given, 1, "method", tpl_none());
    if (!tpl_is_number(of) || digits.kind != TPL_INT || llabs(digits.as.integer) > 300)
        return tpl_fail(run, HT_ERROR_FORMAT, "round of %s", tpl_kind_name(of));
    const double scale = pow(10, (double)digits.as.integer), value = tpl_real(of);
    if (method.kind == TPL_STRING && strcmp(method.as.string->data, "common") != 0)
        return tpl_float((*method.as.string->data == 'c' ? ceil(value * scale) : floor(value * scale)) / scale);
    if (of.kind != TPL_FLOAT && digits.as.integer >= 0)
        return of.kind == TPL_INT ? of : tpl_int(of.as.truth);
    if (digits.as.integer < 0 || !isfinite(value)) {
        const tpl_value whole = tpl_float(rint(value * scale) / scale);
        return of.kind == TPL_FLOAT ? whole : to_int(run, whole, given);
    }
    char text[640]; /* the C library rounds what the number really is, as Python does */
    snprintf(text, sizeof text, "%.*f", (int)digits.as.integer, value);
    return tpl_float(strtod(text, NULL));
}

/* ---- of lists ---- */

static tpl_value length(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    return tpl_int((int64_t)tpl_length(run, of));
}

static tpl_value first(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    if (of.kind == TPL_STRING)
        return tpl_item(run, of, tpl_int(0));
    const tpl_list *items = tpl_items(run, of);
    return items && items->n ? items->at[0] : tpl_undefined(NULL);
}

static tpl_value last(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    if (of.kind == TPL_STRING)
        return tpl_item(run, of, tpl_int(-1));
    if (of.kind == TPL_ITERATOR)
        return tpl_fail(run, HT_ERROR_FORMAT, "an iterator has no end to begin at");
    const tpl_list *items = tpl_items(run, of);
    return items && items->n ? items->at[items->n - 1] : tpl_undefined(NULL);
}

/* A list of its own, or an iterator. */
static tpl_value copied(tpl_run *run, tpl_value of, tpl_kind kind) {
    const tpl_list *items = tpl_items(run, of);
    const tpl_value list = tpl_new_list(run, kind);
    for (size_t i = 0; items && i < items->n && run->status == HT_OK; i++)
        tpl_append(run, list, items->at[i]);
    return list;
}

static tpl_value list(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    return copied(run, of, TPL_LIST);
}

static tpl_value reversed(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    const tpl_value back = copied(run, of, TPL_ITERATOR);
    if (run->status != HT_OK)
        return back;
    for (size_t i = 0, n = back.as.list->n; i < n / 2; i++) {
        const tpl_value item = back.as.list->at[i];
        back.as.list->at[i] = back.as.list->at[n - 1 - i];
        back.as.list->at[n - 1 - i] = item;
    }
    static const tpl_string nothing = {.data = ""};
    return of.kind == TPL_STRING ? tpl_join(run, &nothing, back) : back;
}

static tpl_value attribute_of(tpl_run *run, tpl_value item, tpl_value path) {
    return path.kind == TPL_NONE ? item : tpl_path(run, item, path);
}

static tpl_value join(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    const tpl_string *between = tpl_text(run, tpl_argument(given, 0, "d", tpl_undefined(NULL)));
    const tpl_value path = tpl_argument(given, 1, "attribute", tpl_none());
    if (path.kind == TPL_NONE)
        return tpl_join(run, between, of);
    const tpl_value parts = tpl_new_list(run, TPL_LIST);
    const tpl_list *items = tpl_items(run, of);
    for (size_t i = 0; items && i < items->n && run->status == HT_OK; i++)
        tpl_append(run, parts, tpl_path(run, items->at[i], path));
    return tpl_join(run, between, parts);
}

static tpl_value map(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    const tpl_value mapped = tpl_new_list(run, TPL_ITERATOR),
                    path = tpl_argument(given, SIZE_MAX, "attribute", tpl_none()),
                    otherwise = tpl_argument(given, SIZE_MAX, "default", tpl_undefined(NULL));
    tpl_arguments rest = *given;
    char name[64] = "";
    if (!tpl_true(of)) /* None, too */
        return mapped;
    if (path.kind == TPL_NONE) {
        if (!given->positional || given->at[0].kind != TPL_STRING || given->at[0].as.string->bytes >= sizeof name)
            return tpl_fail(run, HT_ERROR_FORMAT, "map takes the name of a filter, or attribute=");
        memcpy(name, given->at[0].as.string->data, given->at[0].as.string->bytes);
        rest.n--;
        rest.positional--;
        memmove(rest.at, rest.at + 1, rest.n * sizeof *rest.at);
        memmove(rest.name, rest.name + 1, rest.n * sizeof *rest.name);
    }
    const tpl_list *items = tpl_items(run, of);
    for (size_t i = 0; items && i < items->n && run->status == HT_OK; i++) {
        tpl_value item =
            path.kind == TPL_NONE ? tpl_filter(run, name, items->at[i], &rest) : tpl_path(run, items->at[i], path);
        tpl_append(run, mapped, item.kind == TPL_UNDEFINED && path.kind != TPL_NONE ? otherwise : item);
    }
    return mapped;
}

/* select, reject (no attribute) and selectattr, rejectattr (the first argument). */
static tpl_value chosen(tpl_run *run, tpl_value of, const tpl_arguments *given, bool attribute, bool wanted) {
    const tpl_value kept = tpl_new_list(run, TPL_ITERATOR);
    const size_t skip = attribute;
    char name[64] = "";
    tpl_arguments rest = {.n = 0};
    if (!tpl_true(of)) /* None, too */
        return kept;
    if (given->positional < skip)
        return tpl_fail(run, HT_ERROR_FORMAT, "the name of an attribute is missing");
    if (given->positional > skip) {
        const tpl_value test = given->at[skip];
        if (test.kind != TPL_STRING || test.as.string->bytes >= sizeof name)
            return tpl_fail(run, HT_ERROR_FORMAT, "a test has a name");
        memcpy(name, test.as.string->data, test.as.string->bytes);
        for (size_t i = skip + 1; i < given->n; i++) {
            rest.name[rest.n] = given->name[i];
            rest.at[rest.n++] = given->at[i];
        }
        rest.positional = given->positional - skip - 1;
    }
    const tpl_list *items = tpl_items(run, of);
    for (size_t i = 0; items && i < items->n && run->status == HT_OK; i++) {
        const tpl_value value = attribute ? tpl_path(run, items->at[i], given->at[0]) : items->at[i];
        if ((*name ? tpl_test(run, name, value, &rest) : tpl_true(value)) == wanted)
            tpl_append(run, kept, items->at[i]);
    }
    return kept;
}

static tpl_value select_those(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    return chosen(run, of, given, false, true);
}

static tpl_value reject_those(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    return chosen(run, of, given, false, false);
}

static tpl_value select_attribute(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    return chosen(run, of, given, true, true);
}

static tpl_value reject_attribute(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    return chosen(run, of, given, true, false);
}

/* What items are compared by: a part of them, texts in lower case unless case counts. */
static tpl_value key_of(tpl_run *run, tpl_value item, tpl_value path, bool with_case) {
    const tpl_value key = attribute_of(run, item, path);
    return key.kind == TPL_STRING && !with_case ? tpl_text_map(run, key.as.string, tpl_lower) : key;
}

/* Merges of runs of 1, 2, 4, ...: equal items keep their order, in reverse, too. */
static void sort_by_keys(tpl_run *run, tpl_pair *at, size_t n, bool back) {
    tpl_pair *other = tpl_alloc(run, n, sizeof *other);
    for (size_t width = 1; other && width < n && run->status == HT_OK; width *= 2) {
        for (size_t from = 0; from < n; from += 2 * width) {
            size_t a = from, b = ht_min_size(from + width, n);
            const size_t end_a = b, end_b = ht_min_size(from + 2 * width, n);
            for (size_t to = from; to < end_b; to++) {
                const int order = a < end_a && b < end_b ? tpl_order(run, at[b].key, at[a].key) : 0;
                const bool take_b = a == end_a || (b < end_b && (back ? order > 0 : order < 0));
                other[to] = take_b ? at[b++] : at[a++];
            }
        }
        memcpy(at, other, n * sizeof *at);
    }
}

static tpl_value sorted_items(tpl_run *run, const tpl_list *items, tpl_value path, bool with_case, bool back) {
    const tpl_value out = tpl_new_list(run, TPL_LIST);
    tpl_pair *pairs = items ? tpl_alloc(run, items->n, sizeof *pairs) : NULL;
    if (!pairs)
        return out;
    for (size_t i = 0; i < items->n && run->status == HT_OK; i++)
        pairs[i] = (tpl_pair){key_of(run, items->at[i], path, with_case), items->at[i]};
    sort_by_keys(run, pairs, items->n, back);
    for (size_t i = 0; i < items->n && run->status == HT_OK; i++)
        tpl_append(run, out, pairs[i].value);
    return out;
}

static tpl_value sort(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    return sorted_items(run, tpl_items(run, of), tpl_argument(given, 2, "attribute", tpl_none()),
                        tpl_true(tpl_argument(given, 1, "case_sensitive", tpl_bool(false))),
                        tpl_true(tpl_argument(given, 0, "reverse", tpl_bool(false))));
}

static tpl_value pairs_of(tpl_run *run, tpl_value of) {
    const tpl_value list_of = tpl_new_list(run, TPL_ITERATOR);
    if (of.kind == TPL_DICT)
        for (size_t i = 0; i < of.as.dict->n && run->status == HT_OK; i++)
            tpl_append(run, list_of, tpl_pair_of(run, of.as.dict->at[i].key, of.as.dict->at[i].value));
    else if (of.kind != TPL_UNDEFINED)
        return tpl_fail(run, HT_ERROR_FORMAT, "a mapping is expected, not %s", tpl_kind_name(of));
    return list_of;
}

static tpl_value dictsort(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    const tpl_value by = tpl_argument(given, 1, "by", tpl_none());
    const bool by_value = by.kind == TPL_STRING && by.as.string->bytes == 5;
    if (of.kind == TPL_UNDEFINED)
        return tpl_fail(run, HT_ERROR_FORMAT, "a mapping is expected, not undefined");
    return sorted_items(run, tpl_items(run, pairs_of(run, of)), tpl_int(by_value),
                        tpl_true(tpl_argument(given, 0, "case_sensitive", tpl_bool(false))),
                        tpl_true(tpl_argument(given, 2, "reverse", tpl_bool(false))));
}

static tpl_value items_of(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    return pairs_of(run, of);
}

static tpl_value unique(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    const bool with_case = tpl_true(tpl_argument(given, 0, "case_sensitive", tpl_bool(false)));
    const tpl_value path = tpl_argument(given, 1, "attribute", tpl_none()), kept = tpl_new_list(run, TPL_ITERATOR),
                    seen = tpl_new_list(run, TPL_LIST);
    const tpl_list *items = tpl_items(run, of);
    for (size_t i = 0; items && i < items->n && run->status == HT_OK; i++) {
        const tpl_value key = key_of(run, items->at[i], path, with_case);
        if (tpl_contains(run, seen, key))
            continue;
        tpl_append(run, seen, key);
        tpl_append(run, kept, items->at[i]);
    }
    return kept;
}

static tpl_value extreme(tpl_run *run, tpl_value of, const tpl_arguments *given, bool most) {
    const bool with_case = tpl_true(tpl_argument(given, 0, "case_sensitive", tpl_bool(false)));
    const tpl_value path = tpl_argument(given, 1, "attribute", tpl_none());
    const tpl_list *items = tpl_items(run, of);
    tpl_value best = tpl_undefined(NULL), best_key = best;
    for (size_t i = 0; items && i < items->n && run->status == HT_OK; i++) {
        const tpl_value key = key_of(run, items->at[i], path, with_case);
        const int order = i ? tpl_order(run, key, best_key) : 0;
        if (i == 0 || (most ? order > 0 : order < 0)) {
            best = items->at[i];
            best_key = key;
        }
    }
    return best;
}

static tpl_value maximum(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    return extreme(run, of, given, true);
}

static tpl_value minimum(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    return extreme(run, of, given, false);
}

static tpl_value sum(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    const tpl_value path = tpl_argument(given, 0, "attribute", tpl_none());
    tpl_value total = tpl_argument(given, 1, "start", tpl_int(0));
    const tpl_list *items = tpl_items(run, of);
    for (size_t i = 0; items && i < items->n && run->status == HT_OK; i++)
        total = tpl_arithmetic(run, "+", total, attribute_of(run, items->at[i], path));
    return total;
}

static tpl_value batch(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    const tpl_value size = tpl_argument(given, 0, "linecount", tpl_none()),
                    fill = tpl_argument(given, 1, "fill_with", tpl_none());
    const tpl_value out = tpl_new_list(run, TPL_ITERATOR);
    if (size.kind != TPL_INT || size.as.integer < 1 || size.as.integer > TPL_MOST_RANGE)
        return tpl_fail(run, HT_ERROR_FORMAT, "batches of no size");
    const tpl_list *items = tpl_items(run, of);
    tpl_value row = tpl_undefined(NULL);
    for (size_t i = 0; items && i < items->n && run->status == HT_OK; i++) {
        if (i % (size_t)size.as.integer == 0) {
            row = tpl_new_list(run, TPL_LIST);
            tpl_append(run, out, row);
        }
        tpl_append(run, row, items->at[i]);
    }
    while (row.kind == TPL_LIST && fill.kind != TPL_NONE && (int64_t)row.as.list->n < size.as.integer &&
           run->status == HT_OK)
        tpl_append(run, row, fill);
    return out;
}

/* ---- of anything ---- */

static tpl_value otherwise(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    tpl_value value = tpl_argument(given, 0, "default_value", tpl_undefined(NULL));
    if (value.kind == TPL_UNDEFINED && !tpl_has_argument(given, 0, "default_value"))
        value = tpl_own_text(run, "", 0);
    const bool any = tpl_true(tpl_argument(given, 1, "boolean", tpl_bool(false)));
    return of.kind == TPL_UNDEFINED || (any && !tpl_true(of)) ? value : of;
}

static tpl_value safe(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    tpl_buffer out = {0};
    tpl_put_value(run, &out, of);
    return tpl_finish_safe(run, &out);
}

static tpl_value attr(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    const tpl_value name = tpl_argument(given, 0, "name", tpl_none());
    return name.kind == TPL_STRING && of.kind != TPL_DICT ? tpl_item(run, of, name) : tpl_undefined(NULL);
}

tpl_value tpl_filter(tpl_run *run, const char *name, tpl_value of, const tpl_arguments *given) {
    static const filter filters[] = {{"trim", trim},
                                     {"upper", upper},
                                     {"lower", lower},
                                     {"capitalize", capitalize},
                                     {"title", title},
                                     {"replace", replace},
                                     {"string", to_string},
                                     {"escape", escape},
                                     {"e", escape},
                                     {"indent", indent},
                                     {"format", format},
                                     {"tojson", to_json},
                                     {"float", to_float},
                                     {"int", to_int},
                                     {"abs", absolute},
                                     {"round", rounded},
                                     {"length", length},
                                     {"count", length},
                                     {"first", first},
                                     {"last", last},
                                     {"list", list},
                                     {"reverse", reversed},
                                     {"join", join},
                                     {"map", map},
                                     {"select", select_those},
                                     {"reject", reject_those},
                                     {"selectattr", select_attribute},
                                     {"rejectattr", reject_attribute},
                                     {"sort", sort},
                                     {"dictsort", dictsort},
                                     {"items", items_of},
                                     {"unique", unique},
                                     {"max", maximum},
                                     {"min", minimum},
                                     {"sum", sum},
                                     {"batch", batch},
                                     {"default", otherwise},
                                     {"d", otherwise},
                                     {"safe", safe},
                                     {"attr", attr}};
    if (!tpl_step(run, 1))
        return tpl_undefined(NULL);
    if (run->depth >= TPL_MOST_DEPTH)
        return tpl_fail(run, HT_ERROR_UNSUPPORTED, "more than %d levels deep", TPL_MOST_DEPTH);
    for (size_t i = 0; i < HT_COUNT(filters); i++) {
        if (strcmp(filters[i].name, name) != 0)
            continue;
        run->depth++;
        const tpl_value value = filters[i].call(run, of, given);
        run->depth--;
        return value;
    }
    return tpl_fail(run, HT_ERROR_UNSUPPORTED, "there is no filter %.80s", name);
}
