/* The third phase: what operators cost on each of several lanes. Measured (measure.c), or by a rule (nominal.c), or found in the
 * cache folder again by what the times depend on: processor, devices and their versions, options, precision, shapes and
 * types. */
#include "base/json.h"
#include "engine/engine.h"

#include <stdlib.h>
#include <string.h>

#define VERSION 12
#define PACES (sizeof(ht_pace) / sizeof(double))

/* ---- keeping ------------------------------------------------------------------------------------------------------------- */

/* All that the times of the lanes depend on. */
static ht_status describe(const ht_engine *engine, ht_text *key, ht_error *error) {
    const ht_model *m = engine->model;
    const ht_hparams *h = &m->hparams;
    ht_status status = ht_text_printf(
        key, error, "%s %d %d/%d/%d %d %d; %s %d; chunk %d context %d kv %d sync %d;", ht_version(), h->layers,
        h->heads, h->kv_heads, h->head_dim, h->feed_forward, h->embedding, m->info.architecture, h->vocabulary,
        engine->info.chunk, engine->info.context < HT_LATER_POSITION ? engine->info.context : HT_LATER_POSITION,
        (int)engine->info.kv_type, (int)engine->set.sync);
    for (size_t i = 0; i < m->n_ops && !status; i++)
        for (int p = 0; p < m->ops[i].n_parts && !status; p++)
            status = ht_text_printf(key, error, "%d", (int)m->ops[i].parts[p].type->type);
    for (size_t l = 0; l < engine->set.n_lanes && !status; l++) {
        status = ht_text_printf(key, error, ";");
        for (size_t d = 0; d < engine->set.n_devices && !status; d++) {
            const ht_device_caps *caps = engine->set.devices[d]->ops->caps(engine->set.devices[d]);
            if (engine->set.lanes[l].devices >> d & 1)
                status = ht_text_printf(key, error, " %s (%s, %s) cores %llx lengths %zu precision %d threads %d,",
                                        caps->name, caps->runtime, caps->description, (unsigned long long)caps->cores,
                                        caps->n_lengths, (int)engine->info.precision, engine->info.threads);
        }
    }
    return status;
}

static json_t *cost_json(const ht_lane_cost *cost) {
    json_t *classes = json_object();
    for (int c = 0; c < HT_CLASSES; c++) {
        json_t *points = json_array();
        for (size_t i = 0; i < cost->classes[c].n_points; i++)
            ht_json_add(&points, json_pack("[I, f]", (json_int_t)cost->classes[c].points[i].tokens,
                                           cost->classes[c].points[i].seconds * 1e6));
        ht_json_set(&classes, ht_class_name((ht_class)c),
                    json_pack("{s:b, s:o}", "stepped", cost->classes[c].stepped, "tokens_us", points));
    }
    json_t *together = json_array(), *norms = json_array();
    for (size_t i = 0; i < 4; i++) {
        json_array_append_new(together, json_real(cost->together[i / 2][i % 2]));
        json_array_append_new(norms, json_real(cost->norms[i / 2][i % 2]));
    }
    return json_pack("{s:o, s:I, s:f, s:f, s:f, s:o, s:o, s:s, s:[f, f, f, f]}", "classes", classes, "granule",
                     (json_int_t)cost->granule, "attention_us_per_token_and_key", cost->per_key * 1e6, "launch_us",
                     cost->launch * 1e6, "join_us", cost->join * 1e6, "together", together, "norms", norms, "sync",
                     ht_sync_name(cost->sync), "joins_us", cost->joins[1] * 1e6, cost->joins[2] * 1e6,
                     cost->joins[3] * 1e6, cost->joins[4] * 1e6);
}

static bool read_cost(const json_t *json, ht_lane_cost *cost) {
    *cost = (ht_lane_cost){0};
    const json_t *classes = json_object_get(json, "classes");
    for (int c = 0; c < HT_CLASSES; c++) {
        const json_t *one = json_object_get(classes, ht_class_name((ht_class)c));
        const json_t *points = json_object_get(one, "tokens_us");
        cost->classes[c].stepped = json_is_true(json_object_get(one, "stepped"));
        for (size_t i = 0; i < json_array_size(points) && i < HT_MAX_POINTS; i++) {
            const json_t *p = json_array_get(points, i);
            const json_int_t tokens = json_integer_value(json_array_get(p, 0));
            const double us = json_number_value(json_array_get(p, 1));
            if (tokens < 1 || !(us >= 0) || (i && (size_t)tokens <= cost->classes[c].points[i - 1].tokens))
                return false;
            cost->classes[c].points[cost->classes[c].n_points++] = (ht_cost_point){(size_t)tokens, us * 1e-6};
        }
    }
    const json_int_t granule = json_integer_value(json_object_get(json, "granule"));
    cost->granule = granule > 0 && granule <= 1024 ? (size_t)granule : 0;
    cost->per_key = json_number_value(json_object_get(json, "attention_us_per_token_and_key")) * 1e-6;
    cost->launch = json_number_value(json_object_get(json, "launch_us")) * 1e-6;
    cost->join = json_number_value(json_object_get(json, "join_us")) * 1e-6;
    const char *sync = json_string_value(json_object_get(json, "sync"));
    for (int i = HT_SYNC_AUTO; sync && i <= HT_SYNC_FLAG; i++)
        if (!strcmp(sync, ht_sync_name((ht_sync)i)))
            cost->sync = (ht_sync)i;
    for (size_t i = 0; i < HT_SYNC_FLAG; i++)
        cost->joins[i + 1] = json_number_value(json_array_get(json_object_get(json, "joins_us"), i)) * 1e-6;
    for (size_t i = 0; i < 4; i++) {
        cost->together[i / 2][i % 2] = json_number_value(json_array_get(json_object_get(json, "together"), i));
        cost->norms[i / 2][i % 2] = json_number_value(json_array_get(json_object_get(json, "norms"), i));
    }
    return cost->classes[HT_CLASS_NORM].n_points > 0 && cost->classes[HT_CLASS_LM_HEAD].n_points > 0;
}

static bool table_path(const ht_text *key, char *path, size_t capacity) {
    char name[64];
    snprintf(name, sizeof name, "plan/%016llx.json", (unsigned long long)ht_hash(HT_HASH_START, key->data, key->bytes));
    return ht_cache_path(name, path, capacity, NULL) == HT_OK;
}

static json_t *learnt_json(const ht_engine *engine) {
    json_t *list = json_array();
    for (size_t i = 0; i < HT_SCHEDULES; i++) {
        const ht_schedule *s = &engine->passes.schedules[i];
        json_t *pace = json_array();
        for (size_t k = 0; k < PACES; k++)
            ht_json_add(&pace, json_real(((const double *)&s->usual)[k]));
        if (s->tokens && s->tried)
            ht_json_add(&list, json_pack("{s:I, s:I, s:I, s:O}", "tokens", (json_int_t)s->tokens, "position",
                                         (json_int_t)s->position, "wanted", (json_int_t)s->wanted, "pace", pace));
        json_decref(pace);
    }
    return list;
}

/* What an earlier process learnt; what makes no sense is left out. */
static void read_learnt(ht_engine *engine, const json_t *list) {
    for (size_t i = 0; i < json_array_size(list) && i < HT_SCHEDULES; i++) {
        const json_t *one = json_array_get(list, i), *pace = json_object_get(one, "pace");
        const json_int_t n = json_integer_value(json_object_get(one, "tokens")),
                         position = json_integer_value(json_object_get(one, "position")),
                         wanted = json_integer_value(json_object_get(one, "wanted"));
        bool good = n > 0 && n <= engine->info.chunk && position >= 0 && wanted >= 0 && wanted <= n &&
                    json_array_size(pace) == PACES;
        for (size_t k = 0; k < PACES && good; k++) {
            const double value = json_number_value(json_array_get(pace, k));
            good = value >= 0.2 && value <= 10;
        }
        if (!good)
            continue;
        ht_schedule *s = ht_passes_find_schedule(&engine->passes, (size_t)n, (size_t)position, (size_t)wanted);
        s->tried = true;
        for (size_t k = 0; k < PACES; k++)
            ((double *)&s->usual)[k] = json_number_value(json_array_get(pace, k));
        s->pace = s->usual;
    }
}

/* True: every lane has its table. A file that is not of this key, or is damaged, is as good as none. */
static bool load_tables(ht_engine *engine, const ht_text *key) {
    char path[1024];
    if (!table_path(key, path, sizeof path))
        return false;
    json_t *root = json_load_file(path, 0, NULL);
    const char *own = json_string_value(json_object_get(root, "key"));
    bool good = own && !strcmp(own, key->data) && json_integer_value(json_object_get(root, "version")) == VERSION;
    for (size_t l = 0; l < engine->set.n_lanes && good; l++) {
        good = read_cost(json_array_get(json_object_get(root, "lanes"), l), &engine->set.lanes[l].cost);
        engine->set.lanes[l].cost.devices = engine->set.lanes[l].devices;
    }
    if (good)
        read_learnt(engine, json_object_get(root, "learnt"));
    if (root && !good)
        ht_log(HT_LOG_INFO, "%s: damaged or from another version: measuring again", path);
    json_decref(root);
    return good;
}

static void save_tables(const ht_engine *engine, const ht_text *key) {
    char path[1024];
    json_t *lanes = json_array();
    for (size_t l = 0; l < engine->set.n_lanes; l++)
        ht_json_add(&lanes, cost_json(&engine->set.lanes[l].cost));
    json_t *root = json_pack("{s:i, s:s, s:o, s:o}", "version", VERSION, "key", key->data, "lanes", lanes, "learnt",
                             learnt_json(engine));
    char *text = NULL;
    ht_error error;
    ht_status status = HT_OK;
    if (table_path(key, path, sizeof path))
        status = ht_json_text(root, JSON_INDENT(1) | JSON_REAL_PRECISION(9), "what was measured", &text, &error);
    else
        json_decref(root);
    if (text)
        status = ht_file_write(path, text, strlen(text), &error);
    if (status)
        ht_log(HT_LOG_WARN, "%s", error.text);
    free(text);
}

/* ---- the phase ----------------------------------------------------------------------------------------------------------- */

ht_status ht_engine_measure(ht_engine *engine, const ht_engine_options *options, ht_error *error) {
    ht_text key = {0};
    ht_kv_layer *kv = NULL;
    bool whole = true; /* every device of every lane was measured: worth keeping */
    if (engine->set.n_lanes < 2)
        return HT_OK;
    for (size_t l = 0; l < engine->set.n_lanes && engine->info.emulated; l++)
        ht_lane_cost_by_rule(&engine->set, &engine->set.lanes[l]);
    if (engine->info.emulated)
        return HT_OK;
    ht_status status = describe(engine, &key, error);
    const bool kept = !engine->set.time; /* virtual time costs none: simulated lanes are measured anew */
    if (!status && kept && !options->measure && load_tables(engine, &key)) {
        ht_text_free(&key);
        return HT_OK;
    }
    if (!status)
        status = ht_kv_create(&engine->set, &kv, error);
    memset(engine->set.slots[HT_SLOT_IDS].data, 0, engine->set.slot_bytes[HT_SLOT_IDS]);
    for (size_t l = 0; l < engine->set.n_lanes && !status; l++) {
        if (options->progress &&
            !options->progress("measuring devices", (double)l, (double)engine->set.n_lanes + 1, options->progress_user))
            status = ht_fail(error, HT_ERROR_CANCELLED, "measuring was stopped");
        else
            status = ht_engine_time_lane(engine, &engine->set.lanes[l], kv, error);
        if (status == HT_ERROR_DEVICE || status == HT_ERROR_MEMORY) { /* graphs that do not compile, or find no room */
            const int device = ht_lanes_facts(&engine->set, engine->set.lanes[l].devices).static_device;
            if (device >= 0)
                atomic_fetch_or(&engine->set.failed, 1u << device);
            ht_log(HT_LOG_WARN, "%s", error ? error->text : "a device could not be measured");
            whole = false;
            if (ht_engine_recover(engine)) /* measures what is left of the lane */
                status = HT_OK;
        }
    }
    while (!status && (status = ht_engine_time_together(engine, kv, error)) == HT_ERROR_DEVICE &&
           ht_engine_recover(engine)) {
        whole = false;
        status = HT_OK; /* once more, with those that are left */
    }
    if (kv)
        ht_kv_destroy(&engine->set, kv);
    if (!status && whole && kept)
        save_tables(engine, &key);
    ht_text_free(&key);
    return status;
}

void ht_engine_keep_learnt(const ht_engine *engine) {
    ht_text key = {0};
    bool all = !engine->set.time && !engine->info.emulated; /* as the tables; a lane that was lost is in none */
    for (size_t l = 0; l < engine->set.n_lanes; l++)
        all &= !engine->set.lanes[l].lost && engine->set.lanes[l].cost.devices == engine->set.lanes[l].devices;
    if (all && describe(engine, &key, NULL) == HT_OK)
        save_tables(engine, &key);
    ht_text_free(&key);
}
