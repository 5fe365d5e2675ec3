/* Python's methods of strings. Whatever is cut or replaced keeps its marks. */
#include "text/template/value.h"

#include "text/template/characters.h"

#include <string.h>

static const tpl_string no_text = {.data = ""};

/* An argument that must be a string; NULL (failed, unless it may be absent or none). */
static const tpl_string *string_argument(tpl_run *run, const tpl_arguments *given, size_t at, const char *name,
                                         bool needed) {
    const tpl_value value = tpl_argument(given, at, name, tpl_none());
    if (value.kind == TPL_STRING)
        return value.as.string;
    if (needed || value.kind != TPL_NONE)
        tpl_fail(run, HT_ERROR_FORMAT, "a string is expected, not %s", tpl_kind_name(value));
    return needed ? &no_text : NULL;
}

static int64_t count_argument(tpl_run *run, const tpl_arguments *given, size_t at, const char *name) {
    const tpl_value value = tpl_argument(given, at, name, tpl_int(-1));
    if (value.kind != TPL_INT)
        tpl_fail(run, HT_ERROR_FORMAT, "an integer is expected, not %s", tpl_kind_name(value));
    return value.kind == TPL_INT ? value.as.integer : 0;
}

/* Does a sigma at `at` end a word, so that its lower case is another letter? */
static bool final_sigma(const tpl_string *of, size_t at) {
    size_t used, next = at + 2;
    const size_t before = at ? tpl_character_before(of->data, at) : 0;
    return at && tpl_is_letter(ht_utf8_next(of->data + before, at - before, &used)) &&
           !(next < of->bytes && tpl_is_letter(ht_utf8_next(of->data + next, of->bytes - next, &used)));
}

tpl_value tpl_text_map(tpl_run *run, const tpl_string *of, int32_t (*map)(int32_t)) {
    tpl_buffer out = {0};
    for (size_t at = 0, used; at < of->bytes && run->status == HT_OK; at += used) {
        const int32_t c = ht_utf8_next(of->data + at, of->bytes - at, &used);
        if (c == 0xdf && map != tpl_lower)
            tpl_put(run, &out, map == tpl_title ? "Ss" : "SS", 2, tpl_marked(of, at));
        else if (c == 0x130 && map == tpl_lower) /* with a dot of its own */
            tpl_put(run, &out, "i\xcc\x87", 3, tpl_marked(of, at));
        else if (c == 0x3a3 && map == tpl_lower && final_sigma(of, at))
            tpl_put_character(run, &out, 0x3c2, tpl_marked(of, at));
        else if (c < 0 || map(c) == c)
            tpl_put_string(run, &out, of, at, at + used);
        else
            tpl_put_character(run, &out, map(c), tpl_marked(of, at));
    }
    return tpl_finish(run, &out);
}

static void put_all(tpl_run *run, tpl_buffer *out, tpl_value text) {
    if (text.kind == TPL_STRING)
        tpl_put_string(run, out, text.as.string, 0, text.as.string->bytes);
}

tpl_value tpl_capitalize(tpl_run *run, const tpl_string *of) {
    size_t used = 0;
    tpl_buffer out = {0};
    if (of->bytes)
        (void)ht_utf8_next(of->data, of->bytes, &used);
    const tpl_value first = tpl_slice(run, of, 0, used), rest = tpl_slice(run, of, used, of->bytes);
    if (run->status == HT_OK) {
        put_all(run, &out, tpl_text_map(run, first.as.string, tpl_title));
        put_all(run, &out, tpl_text_map(run, rest.as.string, tpl_lower));
    }
    return tpl_finish(run, &out);
}

static tpl_value title(tpl_run *run, const tpl_string *of) {
    tpl_buffer out = {0};
    bool inside = false;
    for (size_t at = 0, used; at < of->bytes && run->status == HT_OK; at += used) {
        const int32_t c = ht_utf8_next(of->data + at, of->bytes - at, &used);
        const int32_t mapped = inside ? tpl_lower(c) : tpl_title(c);
        inside = tpl_is_letter(c);
        if (mapped == c)
            tpl_put_string(run, &out, of, at, at + used);
        else
            tpl_put_character(run, &out, mapped, tpl_marked(of, at));
    }
    return tpl_finish(run, &out);
}

static bool in_set(const tpl_string *set, const char *text, size_t bytes) {
    size_t used;
    if (!set)
        return tpl_is_space(ht_utf8_next(text, bytes, &used));
    for (size_t at = 0; at < set->bytes; at += used) {
        (void)ht_utf8_next(set->data + at, set->bytes - at, &used);
        if (used == bytes && memcmp(set->data + at, text, bytes) == 0)
            return true;
    }
    return false;
}

tpl_value tpl_strip(tpl_run *run, const tpl_string *of, const tpl_string *set, int sides) {
    size_t from = 0, to = of->bytes, used;
    while ((sides & 1) && from < to && tpl_step(run, set ? 1 + set->bytes / 8 : 1)) {
        (void)ht_utf8_next(of->data + from, to - from, &used);
        if (!in_set(set, of->data + from, used))
            break;
        from += used;
    }
    while ((sides & 2) && to > from && tpl_step(run, set ? 1 + set->bytes / 8 : 1)) {
        const size_t last = tpl_character_before(of->data, to);
        if (last < from || !in_set(set, of->data + last, to - last))
            break;
        to = last;
    }
    return tpl_slice(run, of, from, to);
}

static const char *find(tpl_run *run, const tpl_string *in, size_t from, const tpl_string *what) {
    const char *found = ht_find_bytes(in->data + from, in->bytes - from, what->data, what->bytes);
    tpl_step(run, 1 + (found ? (size_t)(found - in->data) - from : in->bytes - from) / 16);
    return found;
}

tpl_value tpl_replace(tpl_run *run, const tpl_string *of, const tpl_string *from, const tpl_string *to, int64_t most) {
    tpl_buffer out = {0};
    size_t at = 0;
    if (!from->bytes) { /* before every character and at the end */
        for (size_t used; run->status == HT_OK && most-- != 0; at += used) {
            tpl_put_string(run, &out, to, 0, to->bytes);
            if (at >= of->bytes)
                break;
            (void)ht_utf8_next(of->data + at, of->bytes - at, &used);
            tpl_put_string(run, &out, of, at, at + used);
        }
    } else {
        for (const char *found; most-- != 0 && run->status == HT_OK && (found = find(run, of, at, from));) {
            const size_t place = (size_t)(found - of->data);
            tpl_put_string(run, &out, of, at, place);
            tpl_put_string(run, &out, to, 0, to->bytes);
            at = place + from->bytes;
        }
    }
    tpl_put_string(run, &out, of, at, of->bytes);
    return tpl_finish(run, &out);
}

static tpl_value split_space(tpl_run *run, const tpl_string *of, int64_t most) {
    const tpl_value list = tpl_new_list(run, TPL_LIST);
    size_t at = tpl_space_before(of->data, of->bytes);
    while (at < of->bytes && run->status == HT_OK) {
        size_t end = at, used;
        if (most-- == 0) {
            tpl_append(run, list, tpl_slice(run, of, at, of->bytes)); /* with the space at its end, as Python has it */
            break;
        }
        while (end < of->bytes && !tpl_is_space(ht_utf8_next(of->data + end, of->bytes - end, &used)))
            end += used;
        tpl_append(run, list, tpl_slice(run, of, at, end));
        at = end + tpl_space_before(of->data + end, of->bytes - end);
    }
    return list;
}

static tpl_value split_by(tpl_run *run, const tpl_string *of, const tpl_string *by, int64_t most) {
    const tpl_value list = tpl_new_list(run, TPL_LIST);
    size_t at = 0;
    if (!by->bytes)
        return tpl_fail(run, HT_ERROR_FORMAT, "a string is split at an empty one");
    for (const char *found; most-- != 0 && run->status == HT_OK && (found = find(run, of, at, by));
         at = (size_t)(found - of->data) + by->bytes)
        tpl_append(run, list, tpl_slice(run, of, at, (size_t)(found - of->data)));
    if (run->status == HT_OK)
        tpl_append(run, list, tpl_slice(run, of, at, of->bytes));
    return list;
}

static tpl_value split(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    const tpl_string *by = string_argument(run, given, 0, "sep", false);
    const int64_t most = count_argument(run, given, 1, "maxsplit");
    return by ? split_by(run, of.as.string, by, most) : split_space(run, of.as.string, most);
}

static void reverse(tpl_list *list) {
    for (size_t i = 0; i < list->n / 2; i++) {
        const tpl_value item = list->at[i];
        list->at[i] = list->at[list->n - 1 - i];
        list->at[list->n - 1 - i] = item;
    }
}

/* Where `what` last begins in text[0..bytes); bytes + 1: nowhere. */
static size_t find_last(tpl_run *run, const tpl_string *in, size_t bytes, const tpl_string *what) {
    if (what->bytes > bytes)
        return bytes + 1;
    for (size_t at = bytes - what->bytes + 1; at-- > 0 && tpl_step(run, 1);)
        if (memcmp(in->data + at, what->data, what->bytes) == 0)
            return at;
    return bytes + 1;
}

static tpl_value rsplit(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    const tpl_string *by = string_argument(run, given, 0, "sep", false), *text = of.as.string;
    int64_t most = count_argument(run, given, 1, "maxsplit");
    if (most < 0 || run->status != HT_OK)
        return split(run, of, given);
    const tpl_value list = tpl_new_list(run, TPL_LIST);
    size_t end = by ? text->bytes : tpl_without_space_after(text->data, text->bytes);
    if (by && !by->bytes)
        return tpl_fail(run, HT_ERROR_FORMAT, "a string is split at an empty one");
    while (most-- != 0 && run->status == HT_OK && (by || end > 0)) {
        size_t from, before;
        if (by) {
            before = find_last(run, text, end, by);
            if (before > end)
                break;
            from = before + by->bytes;
        } else {
            for (from = end; from > 0;) {
                size_t used;
                const size_t last = tpl_character_before(text->data, from);
                if (tpl_is_space(ht_utf8_next(text->data + last, from - last, &used)))
                    break;
                from = last;
            }
            before = tpl_without_space_after(text->data, from);
        }
        tpl_append(run, list, tpl_slice(run, text, from, end));
        end = before;
    }
    if ((by || end > 0) && run->status == HT_OK)
        tpl_append(run, list, tpl_slice(run, text, 0, end));
    if (run->status == HT_OK)
        reverse(list.as.list);
    return list;
}

static bool line_end(int32_t c) {
    return (c >= 10 && c <= 13) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

tpl_value tpl_split_lines(tpl_run *run, const tpl_string *of, bool keep_ends) {
    const tpl_value list = tpl_new_list(run, TPL_LIST);
    size_t from = 0;
    for (size_t at = 0, used; at < of->bytes && tpl_step(run, 1); at += used) {
        const int32_t c = ht_utf8_next(of->data + at, of->bytes - at, &used);
        if (!line_end(c))
            continue;
        used += c == '\r' && at + 1 < of->bytes && of->data[at + 1] == '\n';
        tpl_append(run, list, tpl_slice(run, of, from, keep_ends ? at + used : at));
        from = at + used;
    }
    if (from < of->bytes)
        tpl_append(run, list, tpl_slice(run, of, from, of->bytes));
    return list;
}

tpl_value tpl_join(tpl_run *run, const tpl_string *between, tpl_value items) {
    tpl_buffer out = {0};
    const tpl_list *list = tpl_items(run, items);
    for (size_t i = 0; list && i < list->n && run->status == HT_OK; i++) {
        if (i)
            tpl_put_string(run, &out, between, 0, between->bytes);
        tpl_put_value(run, &out, list->at[i]);
    }
    return tpl_finish(run, &out);
}

tpl_value tpl_percent(tpl_run *run, const tpl_string *format, const tpl_value *values, size_t n) {
    tpl_buffer out = {0};
    size_t used = 0;
    for (size_t at = 0; at < format->bytes && run->status == HT_OK; at++) {
        const char kind = format->data[at] == '%' && at + 1 < format->bytes ? format->data[at + 1] : 0;
        if (format->data[at] != '%') {
            tpl_put_string(run, &out, format, at, at + 1);
            continue;
        }
        at++;
        if (kind == '%')
            tpl_put_string(run, &out, format, at, at + 1);
        else if (kind != 's' && kind != 'd' && kind != 'i')
            tpl_fail(run, HT_ERROR_UNSUPPORTED, "only %%s and %%d are supported in a format");
        else if (used == n)
            tpl_fail(run, HT_ERROR_FORMAT, "a format has more places than values");
        else if (kind != 's' && values[used].kind != TPL_INT && values[used].kind != TPL_BOOL)
            tpl_fail(run, HT_ERROR_FORMAT, "%%d is for integers");
        else if (kind != 's' && values[used].kind == TPL_BOOL)
            tpl_put_value(run, &out, tpl_int(values[used++].as.truth));
        else
            tpl_put_value(run, &out, values[used++]);
    }
    if (run->status == HT_OK && used < n)
        tpl_fail(run, HT_ERROR_FORMAT, "a format has fewer places than values");
    return tpl_finish(run, &out);
}

/* "{}", "{0}", "{name}", "{{" and "}}" */
static tpl_value format(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    const tpl_string *text = of.as.string;
    tpl_buffer out = {0};
    size_t next = 0;
    for (size_t at = 0; at < text->bytes && run->status == HT_OK; at++) {
        const char c = text->data[at], following = at + 1 < text->bytes ? text->data[at + 1] : 0;
        if ((c != '{' && c != '}') || c == following) {
            tpl_put_string(run, &out, text, at, at + 1);
            at += c == following && (c == '{' || c == '}');
            continue;
        }
        char name[64];
        size_t n = 0;
        for (at++; at < text->bytes && text->data[at] != '}' && n + 1 < sizeof name; at++)
            name[n++] = text->data[at];
        name[n] = '\0';
        const size_t index = n == 0 ? next++ : name[0] >= '0' && name[0] <= '9' ? (size_t)(name[0] - '0') : SIZE_MAX;
        if (c == '}' || at >= text->bytes || n > 60 || strpbrk(name, "!:.[") || (index != SIZE_MAX && n > 1))
            return tpl_fail(run, HT_ERROR_UNSUPPORTED, "a format other than {}, {0} or {name}");
        if (index != SIZE_MAX ? index >= given->positional : !tpl_has_argument(given, SIZE_MAX, name))
            return tpl_fail(run, HT_ERROR_FORMAT, "a format has more places than values");
        tpl_put_value(run, &out, tpl_argument(given, index, name, tpl_none()));
    }
    return tpl_finish(run, &out);
}

static bool affix(tpl_run *run, const tpl_string *of, const tpl_value what, bool at_end) {
    if (what.kind == TPL_TUPLE) {
        for (size_t i = 0; i < what.as.list->n; i++)
            if (what.as.list->at[i].kind == TPL_STRING && affix(run, of, what.as.list->at[i], at_end))
                return true;
        return false;
    }
    if (what.kind != TPL_STRING) {
        tpl_fail(run, HT_ERROR_FORMAT, "a string is expected, not %s", tpl_kind_name(what));
        return false;
    }
    const size_t n = what.as.string->bytes;
    return tpl_step(run, 1 + n / 64) && n <= of->bytes &&
           (!n || memcmp(of->data + (at_end ? of->bytes - n : 0), what.as.string->data, n) == 0);
}

static tpl_value starts_with(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    return tpl_bool(affix(run, of.as.string, tpl_argument(given, 0, NULL, tpl_none()), false));
}

static tpl_value ends_with(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    return tpl_bool(affix(run, of.as.string, tpl_argument(given, 0, NULL, tpl_none()), true));
}

static tpl_value remove_prefix(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    const tpl_string *what = string_argument(run, given, 0, NULL, true);
    const bool there = starts_with(run, of, given).as.truth;
    return tpl_slice(run, of.as.string, there && run->status == HT_OK ? what->bytes : 0, of.as.string->bytes);
}

static tpl_value remove_suffix(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    const tpl_string *what = string_argument(run, given, 0, NULL, true);
    const bool there = ends_with(run, of, given).as.truth;
    return tpl_slice(run, of.as.string, 0, of.as.string->bytes - (there && run->status == HT_OK ? what->bytes : 0));
}

static tpl_value strip(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    return tpl_strip(run, of.as.string, string_argument(run, given, 0, "chars", false), 3);
}

static tpl_value lstrip(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    return tpl_strip(run, of.as.string, string_argument(run, given, 0, NULL, false), 1);
}

static tpl_value rstrip(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    return tpl_strip(run, of.as.string, string_argument(run, given, 0, NULL, false), 2);
}

static tpl_value replace(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    const tpl_string *from = string_argument(run, given, 0, NULL, true),
                     *to = string_argument(run, given, 1, NULL, true);
    return tpl_replace(run, of.as.string, from, to, count_argument(run, given, 2, "count"));
}

static tpl_value upper(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    return tpl_text_map(run, of.as.string, tpl_upper);
}

static tpl_value lower(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    return tpl_text_map(run, of.as.string, tpl_lower);
}

static tpl_value title_method(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    return title(run, of.as.string);
}

static tpl_value capitalize(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    return tpl_capitalize(run, of.as.string);
}

static tpl_value split_lines(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    return tpl_split_lines(run, of.as.string, tpl_true(tpl_argument(given, 0, "keepends", tpl_bool(false))));
}

static tpl_value join(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    const tpl_value items = tpl_argument(given, 0, NULL, tpl_none());
    for (size_t i = 0; tpl_is_list(items) && i < items.as.list->n; i++)
        if (items.as.list->at[i].kind != TPL_STRING)
            return tpl_fail(run, HT_ERROR_FORMAT, "strings are joined, not %s", tpl_kind_name(items.as.list->at[i]));
    return tpl_join(run, of.as.string, items);
}

static tpl_value position(tpl_run *run, const tpl_string *of, size_t at) {
    tpl_step(run, at / 16);
    return tpl_int((int64_t)tpl_count_characters(of->data, at));
}

static tpl_value find_method(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    const tpl_string *what = string_argument(run, given, 0, NULL, true);
    const char *found = what->bytes ? find(run, of.as.string, 0, what) : of.as.string->data;
    return found ? position(run, of.as.string, (size_t)(found - of.as.string->data)) : tpl_int(-1);
}

static tpl_value rfind(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    const tpl_string *what = string_argument(run, given, 0, NULL, true);
    const size_t at = what->bytes ? find_last(run, of.as.string, of.as.string->bytes, what) : of.as.string->bytes;
    return at > of.as.string->bytes ? tpl_int(-1) : position(run, of.as.string, at);
}

static tpl_value index_of(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    const tpl_value at = find_method(run, of, given);
    return at.as.integer < 0 ? tpl_fail(run, HT_ERROR_FORMAT, "substring not found") : at;
}

static tpl_value count(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    const tpl_string *what = string_argument(run, given, 0, NULL, true), *text = of.as.string;
    int64_t n = 0;
    if (!what->bytes)
        return tpl_int((int64_t)tpl_length(run, of) + 1);
    size_t at = 0;
    for (const char *found; run->status == HT_OK && (found = find(run, text, at, what)); n++)
        at = (size_t)(found - text->data) + what->bytes;
    return tpl_int(n);
}

static tpl_value all_are(tpl_run *run, const tpl_string *of, bool (*is)(int32_t)) {
    size_t at = 0;
    for (size_t used; at < of->bytes && tpl_step(run, 1); at += used)
        if (!is(ht_utf8_next(of->data + at, of->bytes - at, &used)))
            return tpl_bool(false);
    return tpl_bool(at > 0);
}

static tpl_value is_digit(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    return all_are(run, of.as.string, tpl_is_digit);
}

static tpl_value is_letter(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    return all_are(run, of.as.string, tpl_is_letter);
}

static bool letter_or_digit(int32_t c) {
    return tpl_is_letter(c) || tpl_is_digit(c);
}

static tpl_value is_alnum(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    return all_are(run, of.as.string, letter_or_digit);
}

static tpl_value is_space(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    return all_are(run, of.as.string, tpl_is_space);
}

/* Some letter is of this case, and none of the other. */
static tpl_value has_case(tpl_run *run, const tpl_string *of, bool (*is)(int32_t), bool (*other)(int32_t)) {
    bool some = false;
    for (size_t at = 0, used; at < of->bytes && tpl_step(run, 1); at += used) {
        const int32_t c = ht_utf8_next(of->data + at, of->bytes - at, &used);
        if (other(c))
            return tpl_bool(false);
        some = some || is(c);
    }
    return tpl_bool(some);
}

static tpl_value is_upper(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    return has_case(run, of.as.string, tpl_is_upper, tpl_is_lower);
}

static tpl_value is_lower(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    return has_case(run, of.as.string, tpl_is_lower, tpl_is_upper);
}

static tpl_value partition(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    const tpl_string *by = string_argument(run, given, 0, NULL, true), *text = of.as.string;
    const char *found = by->bytes ? find(run, text, 0, by) : NULL;
    const size_t at = found ? (size_t)(found - text->data) : text->bytes, end = found ? at + by->bytes : text->bytes;
    const tpl_value parts = tpl_pair_of(run, tpl_slice(run, text, 0, at), tpl_slice(run, text, at, end));
    if (run->status == HT_OK)
        tpl_append(run, parts, tpl_slice(run, text, end, text->bytes));
    return parts;
}

tpl_method_call tpl_text_method(const char *name) {
    static const struct {
        const char *name;
        tpl_method_call call;
    } methods[] = {{"strip", strip},
                   {"lstrip", lstrip},
                   {"rstrip", rstrip},
                   {"split", split},
                   {"rsplit", rsplit},
                   {"splitlines", split_lines},
                   {"startswith", starts_with},
                   {"endswith", ends_with},
                   {"removeprefix", remove_prefix},
                   {"removesuffix", remove_suffix},
                   {"replace", replace},
                   {"upper", upper},
                   {"lower", lower},
                   {"title", title_method},
                   {"capitalize", capitalize},
                   {"join", join},
                   {"format", format},
                   {"find", find_method},
                   {"rfind", rfind},
                   {"index", index_of},
                   {"count", count},
                   {"isdigit", is_digit},
                   {"isnumeric", is_digit},
                   {"isdecimal", is_digit},
                   {"isalpha", is_letter},
                   {"isalnum", is_alnum},
                   {"isspace", is_space},
                   {"isupper", is_upper},
                   {"islower", is_lower},
                   {"partition", partition}};
    for (size_t i = 0; i < HT_COUNT(methods); i++)
        if (strcmp(methods[i].name, name) == 0)
            return methods[i].call;
    return NULL;
}
