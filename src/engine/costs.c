/* The third phase: what operators cost on each of several lanes. Measured (measure.c), or by a rule (nominal.c), or
 * found in the cache folder again by what the times depend on: processor, devices and their versions, options,
 * precision, shapes and types. */
#include "base/json.h"
#include "engine/engine.h"

#include <stdlib.h>
#include <string.h>

#define VERSION 14
#define PACES (HT_MAX_DEVICES * HT_REGIMES + HT_REGIMES + 1) /* numbers of a pace in the file */

/* ---- keeping
 * ------------------------------------------------------------------------------------------------------------- */

/* All that the times of the lanes depend on. */
static ht_status describe(const ht_engine *engine, ht_text *key, ht_error *error) {
    const ht_model *m = engine->model;
    const ht_hparams *h = &m->hparams;
    ht_status status = ht_text_printf(
        key, error, "%s %d %d/%d/%d %d %d; %s %d; chunk %d context %d kv %d sync %d;", ht_version(), h->layers,
        h->heads, h->kv_heads, h->head_dim, h->feed_forward, h->embedding, m->info.architecture, h->vocabulary,
        engine->info.chunk, engine->info.context < HT_LATER_POSITION ? engine->info.context : HT_LATER_POSITION,
        (int)engine->info.kv_type, (int)engine->set.sync);
    for (size_t i = 0; i < m->n_signatures && !status; i++)
        status = ht_text_printf(key, error, "%s;", m->signatures[i].name);
    for (size_t i = 0; i < m->n_ops && !status; i++) /* which layers have which */
        status = ht_text_printf(key, error, "%d,", m->ops[i].signature);
    for (size_t l = 0; l < engine->set.n_lanes && !status; l++) {
        status = ht_text_printf(key, error, ";");
        for (size_t d = 0; d < engine->set.n_devices && !status; d++) {
            const ht_device_caps *caps = engine->set.devices[d]->ops->caps(engine->set.devices[d]);
            char cores[HT_MAX_CORES];
            ht_cores_print(&caps->cores, cores, sizeof cores);
            if (engine->set.lanes[l].devices >> d & 1)
                status = ht_text_printf(key, error, " %s (%s, %s) cores %s lengths %zu precision %d threads %d,",
                                        caps->name, caps->runtime, caps->description, cores, caps->n_lengths,
                                        (int)engine->info.precision, engine->info.threads);
        }
    }
    if (!status)
        ht_make_printable(key->data); /* drivers' own texts: what is no UTF-8 could not be kept as JSON */
    return status;
}

/* What the lane does not compute is left out. */
static json_t *cost_json(const ht_model *model, const ht_lane_cost *cost) {
    json_t *operators = json_object();
    for (size_t s = 0; s < model->n_signatures; s++) {
        const ht_op_cost *op = &cost->ops[s];
        json_t *points = json_array();
        for (size_t i = 0; i < op->n_points; i++)
            ht_json_add(&points, json_pack("[I, f]", (json_int_t)op->points[i].tokens, op->points[i].seconds * 1e6));
        if (op->n_points)
            ht_json_set(&operators, model->signatures[s].name,
                        json_pack("{s:b, s:I, s:f, s:f, s:O}", "stepped", op->stepped, "granule",
                                  (json_int_t)op->granule, "start_us", op->start * 1e6, "us_per_token_and_key",
                                  op->per_key * 1e6, "tokens_us", points));
        json_decref(points);
    }
    json_t *together = json_array(), *norms = json_array();
    for (size_t i = 0; i < 2 * HT_MAX_LANES; i++) {
        ht_json_add(&together, json_real(cost->together[i / 2][i % 2]));
        ht_json_add(&norms, json_real(cost->norms[i / 2][i % 2]));
    }
    return json_pack("{s:o, s:f, s:f, s:o, s:o, s:s, s:[f, f, f, f]}", "operators", operators, "launch_us",
                     cost->launch * 1e6, "join_us", cost->join * 1e6, "together", together, "norms", norms, "sync",
                     ht_sync_name(cost->sync), "joins_us", cost->joins[1] * 1e6, cost->joins[2] * 1e6,
                     cost->joins[3] * 1e6, cost->joins[4] * 1e6);
}

/* A number of the cache: there, and within what a measurement can give. A file may be damaged, or hostile: what the solver
 * gets is finite and not negative. */
static bool read_number(const json_t *json, double least, double most, double *out) {
    const double value = json_number_value(json);
    *out = value;
    return json_is_number(json) && value >= least && value <= most; /* false for NaN */
}

static bool read_seconds(const json_t *microseconds, double *seconds) {
    const bool good = read_number(microseconds, 0, 1e12, seconds);
    *seconds *= 1e-6;
    return good;
}

static bool read_op(const json_t *json, ht_op_cost *cost) {
    const json_t *points = json_object_get(json, "tokens_us");
    double granule;
    if (!json) /* the lane does not compute it */
        return true;
    cost->stepped = json_is_true(json_object_get(json, "stepped"));
    if (!read_number(json_object_get(json, "granule"), 0, 1024, &granule) ||
        !read_seconds(json_object_get(json, "start_us"), &cost->start) ||
        !read_seconds(json_object_get(json, "us_per_token_and_key"), &cost->per_key) || !json_is_array(points) ||
        json_array_size(points) > HT_MAX_POINTS)
        return false;
    cost->granule = (size_t)granule;
    for (size_t i = 0; i < json_array_size(points); i++) {
        const json_t *p = json_array_get(points, i);
        ht_cost_point *point = &cost->points[cost->n_points++];
        double tokens;
        if (!read_number(json_array_get(p, 0), 1, INT32_MAX, &tokens) ||
            !read_seconds(json_array_get(p, 1), &point->seconds))
            return false;
        point->tokens = (size_t)tokens;
        if (i && (point->tokens <= point[-1].tokens || point->seconds < point[-1].seconds)) /* more never cost less */
            return false;
    }
    return true;
}

static bool read_sync(const json_t *json, ht_sync *sync) {
    const char *name = json_string_value(json);
    for (int i = HT_SYNC_AUTO; name && i <= HT_SYNC_FLAG; i++)
        if (!strcmp(name, ht_sync_name((ht_sync)i)))
            return *sync = (ht_sync)i, true;
    return false;
}

/* How many times as long beside other lanes: at least as long; 0: not measured. */
static bool read_factors(const json_t *json, double factors[HT_MAX_LANES][2]) {
    bool good = json_array_size(json) == 2 * HT_MAX_LANES;
    for (size_t i = 0; i < 2 * HT_MAX_LANES && good; i++) {
        double *factor = &factors[i / 2][i % 2];
        good = read_number(json_array_get(json, i), 0, 100, factor) && (*factor == 0 || *factor >= 1);
    }
    return good;
}

/* False: something is missing, or is no number that could have been measured. */
static bool read_cost(const ht_model *model, const json_t *json, ht_lane_cost *cost) {
    const json_t *operators = json_object_get(json, "operators"), *joins = json_object_get(json, "joins_us");
    *cost = (ht_lane_cost){0};
    bool good = json_array_size(joins) == HT_SYNC_FLAG &&
                read_seconds(json_object_get(json, "launch_us"), &cost->launch) &&
                read_seconds(json_object_get(json, "join_us"), &cost->join) &&
                read_sync(json_object_get(json, "sync"), &cost->sync) &&
                read_factors(json_object_get(json, "together"), cost->together) &&
                read_factors(json_object_get(json, "norms"), cost->norms);
    for (size_t s = 0; s < model->n_signatures && good; s++)
        good = read_op(json_object_get(operators, model->signatures[s].name), &cost->ops[s]);
    for (size_t i = 0; i < HT_SYNC_FLAG && good; i++)
        good = read_seconds(json_array_get(joins, i), &cost->joins[i + 1]);
    for (size_t k = 0; k < model->n_blocks && good; k++) { /* norms, with which blocks begin, every lane computes */
        const ht_op *first = &model->ops[model->blocks[k].first];
        good = first->kind != HT_OP_NORM || cost->ops[first->signature].n_points > 0;
    }
    return good;
}

static bool table_path(const ht_text *key, char *path, size_t capacity) {
    char name[64];
    snprintf(name, sizeof name, "plan/%016llx.json", (unsigned long long)ht_hash(HT_HASH_START, key->data, key->bytes));
    return ht_cache_path(name, path, capacity, NULL) == HT_OK;
}

/* Number i of a pace, in the file's order. */
static double *pace_number(ht_pace *pace, size_t i) {
    const size_t lanes = (size_t)HT_MAX_DEVICES * HT_REGIMES;
    if (i < lanes)
        return &pace->lanes[i / HT_REGIMES][i % HT_REGIMES];
    return i < lanes + HT_REGIMES ? &pace->stall[i - lanes] : &pace->head;
}

static json_t *learnt_json(const ht_engine *engine) {
    json_t *list = json_array();
    for (size_t i = 0; i < HT_SCHEDULES; i++) {
        const ht_schedule *s = &engine->passes.schedules[i];
        ht_pace usual = s->usual;
        json_t *pace = json_array();
        for (size_t k = 0; k < PACES; k++)
            ht_json_add(&pace, json_real(*pace_number(&usual, k)));
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
            double value;
            good = read_number(json_array_get(pace, k), 0.2, 10, &value);
        }
        if (!good)
            continue;
        ht_schedule *s = ht_passes_find_schedule(&engine->passes, (size_t)n, (size_t)position, (size_t)wanted, 0);
        s->tried = true;
        for (size_t k = 0; k < PACES; k++)
            *pace_number(&s->usual, k) = json_number_value(json_array_get(pace, k));
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
        good = read_cost(engine->model, json_array_get(json_object_get(root, "lanes"), l), &engine->set.lanes[l].cost);
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
        ht_json_add(&lanes, cost_json(engine->model, &engine->set.lanes[l].cost));
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

/* ---- the phase
 * ----------------------------------------------------------------------------------------------------------- */

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
    ht_lanes_clear_ids(&engine->set);
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
    ht_lanes_settle(&engine->set);
    ht_lanes_release_late(&engine->set);
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
