/* Parts of values, and arithmetic. */
#include "text/template/value.h"

#include "text/template/characters.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static tpl_value loop_attribute(tpl_run *run, const tpl_loop *loop, const char *name) {
    const int64_t n = (int64_t)loop->items->n, at = (int64_t)loop->index;
    const struct {
        const char *name;
        int64_t value;
    } counts[] = {{"index", at + 1}, {"index0", at}, {"length", n}, {"revindex", n - at}, {"revindex0", n - at - 1},
                  {"depth", 1}, /* of recursive loops, which are not supported */
                  {"depth0", 0}};
    for (size_t i = 0; i < HT_COUNT(counts); i++)
        if (strcmp(name, counts[i].name) == 0)
            return tpl_int(counts[i].value);
    if (strcmp(name, "first") == 0)
        return tpl_bool(at == 0);
    if (strcmp(name, "last") == 0)
        return tpl_bool(at == n - 1);
    if (strcmp(name, "previtem") == 0)
        return at > 0 ? loop->items->at[at - 1] : tpl_undefined("previtem");
    if (strcmp(name, "nextitem") == 0)
        return at + 1 < n ? loop->items->at[at + 1] : tpl_undefined("nextitem");
    return tpl_find_method(run, (tpl_value){.kind = TPL_LOOP, .as.loop = (tpl_loop *)loop}, name);
}

static tpl_value no_part(tpl_run *run, tpl_value of) {
    return of.as.name ? tpl_fail(run, HT_ERROR_FORMAT, "'%.80s' is undefined", of.as.name)
                      : tpl_fail(run, HT_ERROR_FORMAT, "a part of what is undefined");
}

tpl_value tpl_attribute(tpl_run *run, tpl_value of, const char *name) {
    if (!tpl_step(run, 1))
        return tpl_undefined(NULL);
    tpl_value *there = NULL;
    switch (of.kind) {
    case TPL_UNDEFINED:
        return no_part(run, of);
    case TPL_LOOP:
        return loop_attribute(run, of.as.loop, name);
    case TPL_NAMESPACE:
        there = tpl_dict_named(run, of.as.dict, name);
        return there ? *there : tpl_undefined(name);
    case TPL_MACRO:
        return strcmp(name, "name") == 0 ? tpl_own_text(run, of.as.macro->node->text, strlen(of.as.macro->node->text))
                                         : tpl_undefined(name);
    default:
        break;
    }
    const tpl_value method = tpl_find_method(run, of, name); /* before the keys, as Python's getattr */
    if (method.kind != TPL_UNDEFINED)
        return method;
    if (of.kind == TPL_DICT)
        there = tpl_dict_named(run, of.as.dict, name);
    return there ? *there : tpl_undefined(name);
}

/* Where the character number `index` begins; bytes: behind the last. */
static size_t offset_of(tpl_run *run, const tpl_string *string, int64_t index) {
    size_t at = 0, used;
    for (; index > 0 && at < string->bytes; index--, at += used)
        (void)ht_utf8_next(string->data + at, string->bytes - at, &used);
    tpl_step(run, at / 16);
    return at;
}

tpl_value tpl_item(tpl_run *run, tpl_value of, tpl_value key) {
    if (!tpl_step(run, 1))
        return tpl_undefined(NULL);
    if (of.kind == TPL_UNDEFINED)
        return no_part(run, of);
    if (of.kind == TPL_DICT) {
        tpl_value *there = key.kind == TPL_LIST || key.kind == TPL_DICT ? NULL : tpl_dict_get(run, of.as.dict, key);
        if (there)
            return *there;
    }
    if ((key.kind == TPL_INT || key.kind == TPL_BOOL) && (tpl_is_list(of) || of.kind == TPL_STRING)) {
        const int64_t n = (int64_t)tpl_length(run, of);
        int64_t at = key.kind == TPL_INT ? key.as.integer : key.as.truth;
        at += at < 0 ? n : 0;
        if (at < 0 || at >= n)
            return tpl_undefined(NULL);
        if (of.kind != TPL_STRING)
            return of.as.list->at[at];
        const size_t from = offset_of(run, of.as.string, at);
        size_t used;
        (void)ht_utf8_next(of.as.string->data + from, of.as.string->bytes - from, &used);
        return tpl_slice(run, of.as.string, from, from + used);
    }
    if (key.kind != TPL_STRING)
        return tpl_undefined(NULL);
    const size_t bytes = ht_min_size(key.as.string->bytes, 127);
    char *name = tpl_alloc(run, bytes + 1, 1); /* kept by what is undefined */
    if (!name)
        return tpl_undefined(NULL);
    memcpy(name, key.as.string->data, bytes);
    if (of.kind == TPL_DICT) /* the keys have been looked through */
        return tpl_find_method(run, of, name);
    return tpl_attribute(run, of, name);
}

tpl_value tpl_path(tpl_run *run, tpl_value of, tpl_value path) {
    if (path.kind != TPL_STRING)
        return tpl_item(run, of, path);
    const tpl_string *string = path.as.string;
    for (size_t from = 0, to; from <= string->bytes && run->status == HT_OK; from = to + 1) {
        bool digits = true;
        int64_t index = 0;
        for (to = from; to < string->bytes && string->data[to] != '.'; to++) {
            digits = digits && string->data[to] >= '0' && string->data[to] <= '9' && index < INT32_MAX;
            index = digits ? index * 10 + (string->data[to] - '0') : 0;
        }
        of = tpl_item(run, of, digits && to > from ? tpl_int(index) : tpl_slice(run, string, from, to));
    }
    return of;
}

/* The indices of a slice, as Python's slice.indices: start, stop and step for n items. False: no integers. */
static bool slice_indices(tpl_run *run, const tpl_value bounds[3], int64_t n, int64_t out[3]) {
    for (int i = 0; i < 3; i++)
        if (bounds[i].kind != TPL_NONE && bounds[i].kind != TPL_INT && bounds[i].kind != TPL_BOOL) {
            tpl_fail(run, HT_ERROR_FORMAT, "a slice by %s", tpl_kind_name(bounds[i]));
            return false;
        }
    const int64_t step = bounds[2].kind == TPL_NONE   ? 1
                         : bounds[2].kind == TPL_BOOL ? bounds[2].as.truth
                                                      : bounds[2].as.integer;
    if (step == 0 || step == INT64_MIN) {
        tpl_fail(run, HT_ERROR_FORMAT, "a slice in steps of 0");
        return false;
    }
    out[2] = step;
    for (int i = 0; i < 2; i++) {
        const int64_t least = step < 0 ? -1 : 0, most = step < 0 ? n - 1 : n;
        if (bounds[i].kind == TPL_NONE) {
            out[i] = (i == 0) == (step > 0) ? least : most;
            continue;
        }
        int64_t at = bounds[i].kind == TPL_BOOL ? bounds[i].as.truth : bounds[i].as.integer;
        at += at < 0 ? n : 0;
        out[i] = at < least ? least : at > most ? most : at;
    }
    return true;
}

tpl_value tpl_slice_of(tpl_run *run, tpl_value of, const tpl_value bounds[3]) {
    if (of.kind == TPL_UNDEFINED && run->status == HT_OK)
        return no_part(run, of);
    if (!tpl_is_list(of) && of.kind != TPL_STRING)
        return tpl_fail(run, HT_ERROR_FORMAT, "a slice of %s", tpl_kind_name(of));
    int64_t at[3];
    const int64_t n = (int64_t)tpl_length(run, of);
    if (!slice_indices(run, bounds, n, at))
        return tpl_undefined(NULL);
    if (of.kind == TPL_STRING && at[2] == 1) {
        const size_t from = offset_of(run, of.as.string, at[0]);
        return at[1] <= at[0] ? tpl_slice(run, of.as.string, from, from)
                              : tpl_slice(run, of.as.string, from, offset_of(run, of.as.string, at[1]));
    }
    const tpl_list *items = tpl_items(run, of);
    tpl_buffer text = {0};
    const tpl_value list = tpl_new_list(run, of.kind == TPL_TUPLE ? TPL_TUPLE : TPL_LIST);
    for (int64_t i = at[0]; (at[2] > 0 ? i < at[1] : i > at[1]) && tpl_step(run, 1);) {
        if (of.kind == TPL_STRING)
            tpl_put_string(run, &text, items->at[i].as.string, 0, items->at[i].as.string->bytes);
        else
            tpl_append(run, list, items->at[i]);
        if (at[2] > 0 ? at[2] > at[1] - i : at[2] < at[1] - i)
            break;
        i += at[2];
    }
    return of.kind == TPL_STRING ? tpl_finish(run, &text) : list;
}

/* ---- arithmetic ---- */

static tpl_value repeat(tpl_run *run, tpl_value of, int64_t times) {
    if (of.kind == TPL_STRING) {
        tpl_buffer out = {0};
        if (of.as.string->bytes)
            for (int64_t i = 0; i < times && tpl_step(run, 1); i++)
                tpl_put_string(run, &out, of.as.string, 0, of.as.string->bytes);
        return tpl_finish(run, &out);
    }
    const tpl_value list = tpl_new_list(run, of.kind);
    if (of.as.list->n)
        for (int64_t i = 0; i < times && run->status == HT_OK; i++)
            for (size_t j = 0, n = of.as.list->n; j < n && run->status == HT_OK; j++)
                tpl_append(run, list, of.as.list->at[j]);
    return list;
}

static tpl_value add(tpl_run *run, tpl_value a, tpl_value b) {
    if (a.kind == TPL_STRING) {
        tpl_buffer out = {0};
        if (a.as.string->safe || b.as.string->safe) {
            tpl_put_escaped(run, &out, a.as.string);
            tpl_put_escaped(run, &out, b.as.string);
            return tpl_finish_safe(run, &out);
        }
        tpl_put_string(run, &out, a.as.string, 0, a.as.string->bytes);
        tpl_put_string(run, &out, b.as.string, 0, b.as.string->bytes);
        return tpl_finish(run, &out);
    }
    const tpl_value list = tpl_new_list(run, a.kind);
    for (size_t i = 0; i < a.as.list->n && run->status == HT_OK; i++)
        tpl_append(run, list, a.as.list->at[i]);
    for (size_t i = 0; i < b.as.list->n && run->status == HT_OK; i++)
        tpl_append(run, list, b.as.list->at[i]);
    return list;
}

static tpl_value power(tpl_run *run, int64_t base, int64_t exponent) {
    if (exponent < 0)
        return tpl_float(pow((double)base, (double)exponent));
    int64_t result = 1;
    if (base == 0 || base == 1 || base == -1)
        return tpl_int(exponent == 0 || base == 1 ? 1 : base == 0 ? 0 : exponent % 2 ? -1 : 1);
    for (; exponent > 0; exponent--)
        if (__builtin_mul_overflow(result, base, &result))
            return tpl_fail(run, HT_ERROR_UNSUPPORTED, "an integer of more than 64 bits");
    return tpl_int(result);
}

static tpl_value integers(tpl_run *run, const char *operator, int64_t a, int64_t b) {
    int64_t result = 0;
    bool over = false;
    if (strcmp(operator, "**") == 0)
        return power(run, a, b);
    if (*operator== '+') {
        over = __builtin_add_overflow(a, b, &result);
    } else if (*operator== '-') {
        over = __builtin_sub_overflow(a, b, &result);
    } else if (*operator== '*') {
        over = __builtin_mul_overflow(a, b, &result);
    } else if (b == 0) {
        return tpl_fail(run, HT_ERROR_FORMAT, "division by zero");
    } else if (strcmp(operator, "/") == 0) {
        return tpl_float((double)a / (double)b);
    } else if (b == -1) {
        over = *operator== '/' && __builtin_sub_overflow(0, a, &result);
    } else { /* towards minus infinity */
        const int64_t rest = a % b, off = rest != 0 && (rest < 0) != (b < 0);
        result = *operator== '/' ? a / b - off : rest +(off ? b : 0);
    }
    return over ? tpl_fail(run, HT_ERROR_UNSUPPORTED, "an integer of more than 64 bits") : tpl_int(result);
}

static tpl_value reals(tpl_run *run, const char *operator, double a, double b) {
    if (strcmp(operator, "**") == 0)
        return tpl_float(pow(a, b));
    switch (*operator) {
    case '+':
        return tpl_float(a + b);
    case '-':
        return tpl_float(a - b);
    case '*':
        return tpl_float(a * b);
    default:
        break;
    }
    if (b == 0)
        return tpl_fail(run, HT_ERROR_FORMAT, "division by zero");
    if (strcmp(operator, "/") == 0)
        return tpl_float(a / b);
    double rest = fmod(a, b); /* a / b is rounded, and may reach the next integer */
    rest = rest == 0 ? copysign(0, b) : (rest < 0) != (b < 0) ? rest + b : rest;
    if (*operator== '%')
        return tpl_float(rest);
    const double whole = round((a - rest) / b);
    return tpl_float(whole == 0 ? copysign(0, a / b) : whole);
}

static int64_t integer_of(tpl_value value) {
    return value.kind == TPL_BOOL ? value.as.truth : value.as.integer;
}

tpl_value tpl_arithmetic(tpl_run *run, const char *operator, tpl_value a, tpl_value b) {
    if (!tpl_step(run, 1))
        return tpl_undefined(NULL);
    if (tpl_is_number(a) && tpl_is_number(b))
        return a.kind == TPL_FLOAT || b.kind == TPL_FLOAT ? reals(run, operator, tpl_real(a), tpl_real(b))
                                                          : integers(run, operator, integer_of(a), integer_of(b));
    if (*operator== '+' && a.kind == b.kind &&(a.kind == TPL_STRING || tpl_is_list(a)))
        return add(run, a, b);
    if (strcmp(operator, "*") == 0 && (a.kind == TPL_STRING || tpl_is_list(a)) &&
        (b.kind == TPL_INT || b.kind == TPL_BOOL))
        return repeat(run, a, integer_of(b));
    if (strcmp(operator, "*") == 0 && (b.kind == TPL_STRING || tpl_is_list(b)) &&
        (a.kind == TPL_INT || a.kind == TPL_BOOL))
        return repeat(run, b, integer_of(a));
    if (strcmp(operator, "%") == 0 && a.kind == TPL_STRING)
        return b.kind == TPL_TUPLE ? tpl_percent(run, a.as.string, b.as.list->at, b.as.list->n)
                                   : tpl_percent(run, a.as.string, &b, 1);
    if (a.kind == TPL_UNDEFINED || b.kind == TPL_UNDEFINED)
        return no_part(run, a.kind == TPL_UNDEFINED ? a : b);
    return tpl_fail(run, HT_ERROR_FORMAT, "%s %s %s", tpl_kind_name(a), operator, tpl_kind_name(b));
}
