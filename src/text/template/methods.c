/* Methods of lists, dictionaries and loops, and which method a name means. */
#include "text/template/value.h"

#include <string.h>

/* ---- lists ---- */

static tpl_value append(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    tpl_append(run, of, tpl_argument(given, 0, NULL, tpl_none()));
    return tpl_none();
}

static tpl_value extend(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    const tpl_list *items = tpl_items(run, tpl_argument(given, 0, NULL, tpl_none()));
    for (size_t i = 0, n = items ? items->n : 0; i < n && run->status == HT_OK; i++)
        tpl_append(run, of, items->at[i]);
    return tpl_none();
}

static tpl_value pop(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    tpl_list *list = of.as.list;
    const tpl_value index = tpl_argument(given, 0, NULL, tpl_int(-1));
    int64_t at = index.kind == TPL_INT ? index.as.integer : INT64_MIN / 2;
    at += at < 0 ? (int64_t)list->n : 0;
    if (at < 0 || at >= (int64_t)list->n)
        return tpl_fail(run, HT_ERROR_FORMAT, "pop of an item that is not there");
    const tpl_value item = list->at[at];
    tpl_step(run, list->n - (size_t)at);
    memmove(list->at + at, list->at + at + 1, (--list->n - (size_t)at) * sizeof item);
    return item;
}

static tpl_value index_of(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    const tpl_value item = tpl_argument(given, 0, NULL, tpl_none());
    for (size_t i = 0; i < of.as.list->n; i++)
        if (tpl_equal(run, of.as.list->at[i], item))
            return tpl_int((int64_t)i);
    return tpl_fail(run, HT_ERROR_FORMAT, "index of an item that is not there");
}

static tpl_value count(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    const tpl_value item = tpl_argument(given, 0, NULL, tpl_none());
    int64_t n = 0;
    for (size_t i = 0; i < of.as.list->n; i++)
        n += tpl_equal(run, of.as.list->at[i], item);
    return tpl_int(n);
}

/* ---- dictionaries ---- */

static tpl_value parts(tpl_run *run, const tpl_dict *dict, bool keys, bool values) {
    const tpl_value list = tpl_new_list(run, TPL_LIST);
    for (size_t i = 0; i < dict->n && run->status == HT_OK; i++) {
        const tpl_pair *pair = &dict->at[i];
        tpl_append(run, list,
                   keys && values ? tpl_pair_of(run, pair->key, pair->value)
                   : keys         ? pair->key
                                  : pair->value);
    }
    return list;
}

static tpl_value items(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    return parts(run, of.as.dict, true, true);
}

static tpl_value keys(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    return parts(run, of.as.dict, true, false);
}

static tpl_value values(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    return parts(run, of.as.dict, false, true);
}

static tpl_value get(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    const tpl_value *there = tpl_dict_get(run, of.as.dict, tpl_argument(given, 0, NULL, tpl_none()));
    return there ? *there : tpl_argument(given, 1, NULL, tpl_none());
}

static void merge(tpl_run *run, tpl_dict *into, const tpl_dict *from) {
    for (size_t i = 0, n = from->n; i < n && run->status == HT_OK; i++)
        tpl_dict_set(run, into, from->at[i].key, from->at[i].value);
}

static tpl_value update(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    const tpl_value other = tpl_argument(given, 0, NULL, tpl_none());
    if (given->positional && other.kind != TPL_DICT)
        return tpl_fail(run, HT_ERROR_FORMAT, "update with %s", tpl_kind_name(other));
    if (given->positional)
        merge(run, of.as.dict, other.as.dict);
    for (size_t i = given->positional; i < given->n && run->status == HT_OK; i++)
        tpl_dict_set(run, of.as.dict, tpl_own_text(run, given->name[i], strlen(given->name[i])), given->at[i]);
    return tpl_none();
}

static tpl_value pop_key(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    tpl_dict *dict = of.as.dict;
    const tpl_value *there = tpl_dict_get(run, dict, tpl_argument(given, 0, NULL, tpl_none()));
    if (!there)
        return given->n > 1 ? given->at[1] : tpl_fail(run, HT_ERROR_FORMAT, "pop of a key that is not there");
    const tpl_value value = *there;
    for (size_t i = 0; i < dict->n; i++)
        if (&dict->at[i].value == there) {
            memmove(dict->at + i, dict->at + i + 1, (--dict->n - i) * sizeof *dict->at);
            break;
        }
    return value;
}

static tpl_value copy(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    const tpl_value dict = tpl_new_dict(run, TPL_DICT);
    if (run->status == HT_OK)
        merge(run, dict.as.dict, of.as.dict);
    return dict;
}

static tpl_value copy_list(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    const tpl_value list = tpl_new_list(run, TPL_LIST);
    for (size_t i = 0; i < of.as.list->n && run->status == HT_OK; i++)
        tpl_append(run, list, of.as.list->at[i]);
    return list;
}

/* ---- loops ---- */

static tpl_value cycle(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    return given->positional ? given->at[of.as.loop->index % given->positional]
                             : tpl_fail(run, HT_ERROR_FORMAT, "a cycle of nothing");
}

static tpl_value changed(tpl_run *run, tpl_value of, const tpl_arguments *given) {
    const tpl_value now = tpl_new_list(run, TPL_LIST);
    for (size_t i = 0; i < given->positional && run->status == HT_OK; i++)
        tpl_append(run, now, given->at[i]);
    const bool differs = !tpl_equal(run, now, of.as.loop->changed);
    of.as.loop->changed = now;
    return tpl_bool(differs);
}

typedef struct named {
    const char *name;
    tpl_method_call call;
} named;

static tpl_method_call look_up(const named *table, size_t n, const char *name) {
    for (size_t i = 0; i < n; i++)
        if (strcmp(table[i].name, name) == 0)
            return table[i].call;
    return NULL;
}

tpl_value tpl_find_method(tpl_run *run, tpl_value of, const char *name) {
    static const named lists[] = {{"append", append},  {"extend", extend}, {"pop", pop},
                                  {"index", index_of}, {"count", count},   {"copy", copy_list}},
                       tuples[] = {{"index", index_of}, {"count", count}},
                       dicts[] = {{"items", items},   {"keys", keys},   {"values", values}, {"get", get},
                                  {"update", update}, {"pop", pop_key}, {"copy", copy}},
                       loops[] = {{"cycle", cycle}, {"changed", changed}};
    const tpl_method_call call = of.kind == TPL_STRING  ? tpl_text_method(name)
                                 : of.kind == TPL_LIST  ? look_up(lists, HT_COUNT(lists), name)
                                 : of.kind == TPL_TUPLE ? look_up(tuples, HT_COUNT(tuples), name)
                                 : of.kind == TPL_DICT  ? look_up(dicts, HT_COUNT(dicts), name)
                                 : of.kind == TPL_LOOP  ? look_up(loops, HT_COUNT(loops), name)
                                                        : NULL;
    tpl_method *method = call ? tpl_alloc(run, 1, sizeof *method) : NULL;
    if (!method)
        return tpl_undefined(name);
    *method = (tpl_method){of, call};
    return (tpl_value){.kind = TPL_METHOD, .as.method = method};
}
