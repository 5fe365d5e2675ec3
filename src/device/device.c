/* What devices share: options, cores, lists, waiting. */
#include "device/common.h"
#include "base/os.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- options: "key=value:key=value" ---------------------------------------------------------------------------- */

/* The next "key=value" of *cursor, which moves past it; false at the end. A piece without '=' has value NULL. */
static bool next_option(const char **cursor, const char **key, size_t *key_bytes, const char **value, size_t *bytes) {
    const char *start = *cursor;
    if (!start || !*start)
        return false;
    size_t length = strcspn(start, ":");
    const char *equals = memchr(start, '=', length);
    *key = start;
    *key_bytes = equals ? (size_t)(equals - start) : length;
    *value = equals ? equals + 1 : NULL;
    *bytes = equals ? length - *key_bytes - 1 : 0;
    *cursor = start + length + (start[length] == ':');
    return true;
}

bool ht_device_option(const char *options, const char *key, char *value, size_t capacity) {
    const char *cursor = options, *name, *text;
    size_t name_bytes, bytes;
    while (next_option(&cursor, &name, &name_bytes, &text, &bytes)) {
        if (!text || name_bytes != strlen(key) || memcmp(name, key, name_bytes) != 0)
            continue;
        size_t n = capacity ? ht_min_size(bytes, capacity - 1) : 0;
        memcpy(value, text, n);
        if (capacity)
            value[n] = '\0';
        return true;
    }
    return false;
}

ht_status ht_device_take_limit(char spec[256], uint64_t *limit, ht_error *error) {
    static const char key[] = ":limit";
    char *option = spec;
    *limit = 0;
    while ((option = strstr(option, key))) {
        char *value = option + sizeof key - 1, text[64];
        const size_t n = strcspn(value, ":");
        const int name = (int)(option - spec);
        if (n && *value != '=') { /* the beginning of another word */
            option = value;
            continue;
        }
        if (!n)
            return ht_fail(error, HT_ERROR_ARGUMENT, "device %.*s: option 'limit' needs a value, such as limit=512M",
                           name, spec);
        snprintf(text, sizeof text, "%.*s", (int)ht_min_size(n - 1, sizeof text - 1), value + 1);
        if (*limit)
            return ht_fail(error, HT_ERROR_ARGUMENT, "device %.*s: limit= is given twice", name, spec);
        if (*text < '0' || *text > '9' || !ht_parse_size(text, limit) || *limit == 0)
            return ht_fail(error, HT_ERROR_ARGUMENT, "device %.*s: limit=%s is not a size such as 512M or 2G", name,
                           spec, text);
        memmove(option, value + n, strlen(value + n) + 1);
    }
    return HT_OK;
}

ht_status ht_device_word(const ht_device_options *options, const char *key, const char *const *words, int *choice,
                         ht_error *error) {
    char text[64];
    if (!ht_device_option(options->options, key, text, sizeof text))
        return HT_OK;
    for (int n = 0; words[n]; n++)
        if (strcmp(words[n], text) == 0) {
            *choice = n;
            return HT_OK;
        }
    char list[128] = "";
    for (size_t i = 0, at = 0; words[i] && at < sizeof list; i++)
        at += (size_t)snprintf(list + at, sizeof list - at, "%s%s",
                               i == 0         ? ""
                               : words[i + 1] ? ", "
                                              : " or ",
                               words[i]);
    return ht_fail(error, HT_ERROR_ARGUMENT, "device %s: %s=%s: expected %s", options->name, key, text, list);
}

ht_status ht_device_check_options(const char *name, const char *options, const char *const *known, ht_error *error) {
    const char *cursor = options, *key, *value;
    size_t key_bytes, bytes;
    while (next_option(&cursor, &key, &key_bytes, &value, &bytes)) {
        if (!value || bytes == 0)
            return ht_fail(error, HT_ERROR_ARGUMENT, "device %s: option '%.*s' needs a value (KEY=VALUE)", name,
                           (int)key_bytes, key);
        bool found = false;
        for (size_t i = 0; known[i] && !found; i++)
            found = strlen(known[i]) == key_bytes && memcmp(known[i], key, key_bytes) == 0;
        if (found)
            continue;
        char list[192] = "";
        for (size_t i = 0, at = 0; known[i] && at < sizeof list; i++)
            at += (size_t)snprintf(list + at, sizeof list - at, "%s, ", known[i]);
        return ht_fail(error, HT_ERROR_ARGUMENT, "device %s: unknown option '%.*s' (known: %slimit)", name,
                       (int)key_bytes, key, list); /* that one is taken out before: ht_device_take_limit */
    }
    return HT_OK;
}

/* ---- cores ------------------------------------------------------------------------------------------------------- */

const ht_cores *ht_all_cores(void) {
    return ht_os_allowed_cores();
}

void ht_stay_on(const ht_cores *cores, ht_stay *stay) {
    stay->moved = false;
    if (cores && ht_cores_any(cores) && ht_os_get_affinity(&stay->before) && !ht_cores_same(cores, &stay->before))
        stay->moved = ht_os_set_affinity(cores);
}

void ht_stay_here(ht_stay *stay) {
    const ht_cores core = ht_cores_one(ht_os_current_core());
    ht_stay_on(&core, stay);
}

void ht_leave_cores(ht_stay *stay) {
    if (stay->moved)
        ht_os_set_affinity(&stay->before);
    stay->moved = false;
}

ht_status ht_parse_cpus(const char *name, const char *text, ht_cores *cores, ht_error *error) {
    ht_cores wanted;
    if (!ht_cores_parse(text, &wanted))
        return ht_fail(error, HT_ERROR_ARGUMENT, "device %s: cpus=%s is not a list of cores such as 0-1,3", name, text);
    if (!ht_cores_within(&wanted, ht_all_cores())) {
        char list[128];
        ht_cores_print(ht_all_cores(), list, sizeof list);
        return ht_fail(error, HT_ERROR_ARGUMENT,
                       "device %s: cpus=%s: of this machine's cores this process may use %s only", name, text, list);
    }
    *cores = wanted;
    return HT_OK;
}

/* ---- lists, waiting ----------------------------------------------------------------------------------------- */

ht_status ht_device_list_add(ht_device_info **list, size_t *n, const ht_device_info *info, ht_error *error) {
    ht_device_info *grown = realloc(*list, (*n + 1) * sizeof *grown);
    if (!grown)
        return ht_fail(error, HT_ERROR_MEMORY, "no memory for the list of devices");
    grown[(*n)++] = *info;
    *list = grown;
    return HT_OK;
}

const char *ht_sync_name(ht_sync sync) {
    static const char *const names[] = {"auto", "finish", "event", "callback", "flag"};
    return (size_t)sync < HT_COUNT(names) ? names[sync] : "unknown";
}

ht_status ht_wait_all(const ht_device *self, const ht_dependency *after, size_t n_after, ht_sync sync,
                      ht_error *error) {
    for (size_t i = 0; i < n_after; i++) {
        ht_device *other = after[i].device;
        if (other == self || other->ops->completed(other) >= after[i].ticket)
            continue;
        ht_status status = other->ops->wait(other, after[i].ticket, sync, error);
        if (status != HT_OK)
            return status;
    }
    return HT_OK;
}

/* ---- shares
 * ---------------------------------------------------------------------------------------------------------------- */

bool ht_slice_rows(const ht_op *op, const ht_slice *s, int part, size_t *begin, size_t *end) {
    const size_t rows = op->parts[part].rows;
    size_t base = 0;
    if (s->of) {
        ht_share_rows(s, part, rows, begin, end);
        return *begin < *end;
    }
    for (int i = 0; i < part; i++)
        base += op->parts[i].rows;
    const size_t last = s->row_end ? s->row_end : base + rows;
    *begin = s->row_begin - ht_min_size(s->row_begin, base);
    *end = ht_min_size(last - ht_min_size(last, base), rows);
    return *begin < *end;
}

bool ht_slice_lies_in(const ht_op *op, const ht_slice *part, const ht_slice *held) {
    const size_t cols = ht_op_cols(op), end = part->reduction_end ? part->reduction_end : cols,
                 held_end = held->reduction_end ? held->reduction_end : cols;
    if (part->reduction_begin < held->reduction_begin || end > held_end)
        return false;
    for (int i = 0; i < op->n_parts; i++) {
        size_t begin, last, held_begin, held_last;
        if (ht_slice_rows(op, part, i, &begin, &last) &&
            (!ht_slice_rows(op, held, i, &held_begin, &held_last) || begin < held_begin || last > held_last))
            return false;
    }
    return true;
}

bool ht_share_fits(const ht_op *op, const ht_slice *s) {
    if (s->group > 1 && s->of % s->group)
        return false;
    for (int i = 0; i < op->n_parts; i++)
        if (op->parts[i].rows % (s->group > 1 && i > 0 ? s->of / s->group : s->of))
            return false;
    return true;
}

ht_slice ht_spell_out_experts(const ht_op *op, const ht_slice *slice) {
    ht_slice s = *slice;
    if (!s.of)
        s.of = s.row_end = (size_t)op->experts;
    if (!s.reduction_end)
        s.reduction_end = ht_op_summed(op);
    return s;
}

const char *ht_refuse_experts(const ht_op *op, const ht_slice *slice) {
    if (!slice->of && (slice->row_begin || slice->row_end))
        return "ranges of rows are for matrix multiplications";
    const ht_slice s = ht_spell_out_experts(op, slice);
    if (s.of != (size_t)op->experts || s.group > 1)
        return "shares are of experts";
    if (s.row_begin >= s.row_end || s.row_end > s.of)
        return "the share is empty or more than all";
    if (s.reduction_begin >= s.reduction_end || s.reduction_end > ht_op_summed(op))
        return "the slice's features are not in the experts";
    return NULL;
}

bool ht_counts_heads(const ht_slice *s, const ht_hparams *shape) {
    const size_t heads = (size_t)shape->heads, kv_heads = (size_t)shape->kv_heads;
    return s->group > 1 ? s->of == heads && s->group * kv_heads == heads : !s->of || s->of == kv_heads;
}

ht_heads ht_slice_heads(const ht_slice *s, const ht_hparams *shape) {
    const size_t group = (size_t)(shape->heads / shape->kv_heads), begin = s->of ? s->row_begin : 0,
                 end = s->of ? s->row_end : (size_t)shape->kv_heads;
    if (s->of && s->group > 1)
        return (ht_heads){begin, end, begin / group, ht_groups_before(group, begin), ht_groups_before(group, end)};
    return (ht_heads){begin * group, end * group, begin, begin, end};
}
