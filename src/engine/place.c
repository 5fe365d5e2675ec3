/* Who computes what, as a person says it: "TEXT=DEVICE,...". */
#include "engine/engine.h"

#include <stdlib.h>
#include <string.h>

/* One "TEXT=DEVICE", without blanks around either. */
typedef struct rule {
    const char *text, *device;
    size_t text_bytes, device_bytes;
} rule;

static void trim(const char **text, size_t *bytes) {
    for (; *bytes && **text == ' '; (*bytes)--)
        (*text)++;
    while (*bytes && (*text)[*bytes - 1] == ' ')
        (*bytes)--;
}

/* The device may have options, "cpu:cpus=0": the first '=' counts. */
static bool next_rule(const char **list, rule *r) {
    if (!**list)
        return false;
    const size_t n = strcspn(*list, ",");
    const char *equals = memchr(*list, '=', n);
    r->text = *list;
    r->text_bytes = equals ? (size_t)(equals - *list) : n;
    r->device = equals ? equals + 1 : *list + n;
    r->device_bytes = (size_t)(*list + n - r->device);
    trim(&r->text, &r->text_bytes);
    trim(&r->device, &r->device_bytes);
    *list += n + ((*list)[n] == ',');
    return true;
}

/* ---- which device
 * -------------------------------------------------------------------------------------------------------- */

static bool is_name(const rule *r, const char *name, size_t bytes) {
    return bytes == r->device_bytes && !memcmp(name, r->device, bytes);
}

/* By its own name, or as it was asked for without options; of a simulated one also its processor's name alone. */
static bool is_called(const ht_engine *engine, size_t d, const rule *r) {
    const char *own = ht_lanes_caps(&engine->set, d)->name, *asked = engine->asked[d];
    const size_t bytes = ht_device_name_bytes(asked);
    size_t processor = bytes;
    while (processor && asked[processor - 1] != '/')
        processor--;
    return is_name(r, own, strlen(own)) || is_name(r, asked, bytes) ||
           (processor && is_name(r, asked + processor, bytes - processor));
}

/* The names of devices (bits), as they were asked for, with their own where that is another. */
static void list_names(const ht_engine *engine, uint32_t devices, ht_text *list) {
    for (size_t d = 0; d < engine->set.n_devices; d++) {
        const char *own = ht_lanes_caps(&engine->set, d)->name, *asked = engine->asked[d];
        const bool same = !strncmp(asked, own, strlen(own));
        if (devices >> d & 1)
            ht_text_printf(list, NULL, "%s%s%s%s%s", list->bytes ? ", " : "", asked, same ? "" : " (", same ? "" : own,
                           same ? "" : ")");
    }
}

static ht_status find_device(const ht_engine *engine, const rule *r, size_t *found, ht_error *error) {
    const size_t n = engine->set.n_devices;
    const int bytes = (int)r->device_bytes;
    uint32_t called = 0, exactly = 0;
    ht_text list = {0};
    for (size_t d = 0; d < n; d++) {
        exactly |= (uint32_t)is_name(r, engine->asked[d], strlen(engine->asked[d])) << d;
        called |= (uint32_t)is_called(engine, d, r) << d;
    }
    if (exactly && !(exactly & (exactly - 1))) /* options and all: no other is meant */
        called = exactly;
    called |= exactly;
    if (called && !(called & (called - 1))) {
        *found = (size_t)__builtin_ctz(called);
        return HT_OK;
    }
    list_names(engine, called ? called : (1u << n) - 1, &list);
    const char *names = list.data ? list.data : "";
    ht_status status =
        called ? ht_fail(error, HT_ERROR_ARGUMENT, "place: %.*s is more than one device: %s", bytes, r->device, names)
               : ht_fail(error, HT_ERROR_ARGUMENT, "place: %.*s is none of the devices in use (%s)", bytes, r->device,
                         names);
    ht_text_free(&list);
    return status;
}

/* ---- which operators
 * ----------------------------------------------------------------------------------------------------- */

/* The operators of one rule are left by every other device of the lanes that have this one. */
static ht_status follow(ht_engine *engine, const rule *r, bool *ruled, ht_error *error) {
    ht_lanes *set = &engine->set;
    size_t d = 0, found = 0;
    if (!r->text_bytes || !r->device_bytes)
        return ht_fail(error, HT_ERROR_ARGUMENT, "place: \"%.*s\" is not TEXT=DEVICE",
                       (int)(r->device + r->device_bytes - r->text), r->text);
    ht_status status = find_device(engine, r, &d, error);
    for (size_t i = 0; i < set->model->n_ops && !status; i++) {
        const char *name = set->model->ops[i].name;
        if (!ht_find_bytes(name, strlen(name), r->text, r->text_bytes))
            continue;
        found++;
        if (ruled[i])
            continue;
        const char *why = ht_device_refuses_whole(set->devices[d], &set->model->ops[i]);
        if (why)
            return ht_fail(error, HT_ERROR_UNSUPPORTED, "place: %s does not compute %s: %s",
                           ht_lanes_caps(set, d)->name, name, why);
        for (size_t l = 0; l < set->n_lanes; l++)
            if (set->lanes[l].devices >> d & 1)
                set->left[i].placed |= set->lanes[l].devices & ~(1u << d);
        ruled[i] = true;
    }
    if (!status && !found)
        status = ht_fail(error, HT_ERROR_ARGUMENT, "place: no operator has \"%.*s\" in its name", (int)r->text_bytes,
                         r->text);
    return status;
}

ht_status ht_engine_place(ht_engine *engine, const char *rules, ht_error *error) {
    ht_lanes *set = &engine->set;
    bool *ruled = NULL;
    rule r;
    ht_status status = ht_alloc((void **)&ruled, set->model->n_ops, sizeof *ruled, "placing operators", error);
    if (!status)
        status = ht_alloc((void **)&set->left, set->model->n_ops, sizeof *set->left, "placing operators", error);
    while (!status && next_rule(&rules, &r))
        status = follow(engine, &r, ruled, error);
    free(ruled);
    return status;
}
