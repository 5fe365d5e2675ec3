/* Reading the files in measurements/. Tables say which figures an engine has and which texts a row has; loops read them. */
#include "reproduce/measurements.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* Made by cmake/embed.cmake from measurements/. */
struct ht_measurement_source {
    const char *name, *text;
};
extern const struct ht_measurement_source ht_measurement_sources[];

static const struct {
    const char *name;
    double unit, least, most; /* of the file's number */
    bool optional;            /* 0 where the file leaves it out */
} figures[HT_ENGINE_KEYS] = {
    [HT_ENGINE_WEIGHT_BITS] = {"weight_bits", 1, 1, 32},
    [HT_ENGINE_HEAD_BITS] = {"head_bits", 1, 1, 32},
    [HT_ENGINE_KV_BYTES] = {"kv_bytes", 1, 0.25, 4},
    [HT_ENGINE_CHUNK] = {"chunk", 1, 0, 65536},
    [HT_ENGINE_PAD] = {"pad", 1, 1, 65536},
    [HT_ENGINE_CONTEXT] = {"context", 1, 0, 1048576},
    [HT_ENGINE_CROSSINGS] = {"crossings", 1, 0, 1e5},
    [HT_ENGINE_LAUNCHES] = {"launches", 1, 0, 1000},
    [HT_ENGINE_PASS] = {"pass_us", 1e-6, 0, 1e7},
    [HT_ENGINE_MATRIX_SHARE] = {"matrix_share", 1, 0.01, 4},
    [HT_ENGINE_BANDWIDTH_SHARE] = {"bandwidth_share", 1, 0.01, 4},
    [HT_ENGINE_EXPAND] = {"expand_Gweights", 1e9, 0, 1e5},
    [HT_ENGINE_NO_PROMPT_HEAD] = {"no_prompt_head", 1, 0, 1, true},
    [HT_ENGINE_HEAD_ON_CPU] = {"head_on_cpu", 1, 0, 1, true},
    [HT_ENGINE_WRITTEN_BITS] = {"written_bits", 1, 0, 32, true},
    [HT_ENGINE_LAYER_PREFILL] = {"layer_prefill_us", 1e-6, 0, 1e6, true},
    [HT_ENGINE_LAYER_CALLS] = {"layer_calls", 1, 0, 1000, true},
    [HT_ENGINE_FEW] = {"few", 1, 0, 65536, true},
    [HT_ENGINE_FEW_RATE] = {"few_TFLOPS", 1e12, 0, 1e4, true},
};

const char *ht_engine_key_name(ht_engine_key key) {
    return figures[key].name;
}

double ht_engine_key_unit(ht_engine_key key) {
    return figures[key].unit;
}

typedef ht_json_place place;

typedef struct loader {
    ht_json_source source;
    ht_measurements *to;
} loader;

/* ---- texts ------------------------------------------------------------------------------------------------------------------ */

/* object[key], in the arena; "" where it may be absent and is. */
static ht_status read_text(const loader *l, const json_t *object, const place *here, const char *key, bool required,
                           const char **out) {
    char text[512];
    ht_status status = ht_json_read_text(&l->source, object, here, key, required, text, sizeof text);
    if (status)
        return status;
    *out = ht_arena_strndup(&l->to->strings, text, strlen(text));
    return *out ? HT_OK : ht_fail(l->source.error, HT_ERROR_MEMORY, "%s: out of memory", l->source.file);
}

/* object[key] is one of `names`, n of them: *out is which. */
static ht_status read_choice(const loader *l, const json_t *object, const place *here, const char *key,
                             const char *const *names, size_t n, size_t *out) {
    const place at = {here, key, 0};
    char text[32], all[160] = "";
    ht_status status = ht_json_read_text(&l->source, object, here, key, true, text, sizeof text);
    for (size_t i = 0; i < n && !status; i++)
        if (!strcmp(names[i], text)) {
            *out = i;
            return HT_OK;
        }
    for (size_t i = 0, used = 0; i < n && used < sizeof all; i++)
        used += (size_t)snprintf(all + used, sizeof all - used, "%s%s", i ? ", " : "", names[i]);
    return status ? status : ht_json_bad(&l->source, &at, "\"%s\" is not one of %s", text, all);
}

static ht_status read_kind(const loader *l, const json_t *object, const place *here, ht_device_kind *kind) {
    static const char *const names[] = {"cpu", "gpu", "npu"};
    static const ht_device_kind kinds[] = {HT_DEVICE_CPU, HT_DEVICE_GPU, HT_DEVICE_NPU};
    size_t which = 0;
    ht_status status = read_choice(l, object, here, "processor", names, HT_COUNT(names), &which);
    *kind = kinds[which];
    return status;
}

/* ---- engines ---------------------------------------------------------------------------------------------------------------- */

static const ht_measured_engine *find_engine(const ht_measurements *m, const char *name, ht_device_kind kind) {
    for (size_t i = 0; i < m->n_engines; i++)
        if (m->engines[i].kind == kind && !strcmp(m->engines[i].name, name))
            return &m->engines[i];
    return NULL;
}

/* {"value": "fp16", "source": text} */
static ht_status read_activations(const loader *l, const json_t *engine, const place *here, ht_sim_activations *out) {
    static const char *const keys[] = {"value", "source", NULL}, *const names[] = {"fp16", "bf16", "int16", "int8"};
    static const ht_sim_activations meant[] = {HT_SIM_FP16, HT_SIM_FP16, HT_SIM_INT16, HT_SIM_INT8};
    const place at = {here, "activations", 0};
    const json_t *object = json_object_get(engine, "activations");
    const char *source;
    size_t which = 0;
    ht_status status =
        object ? ht_json_known(&l->source, object, &at, keys) : ht_json_bad(&l->source, &at, "is missing");
    if (!status)
        status = read_choice(l, object, &at, "value", names, HT_COUNT(names), &which);
    if (!status)
        status = read_text(l, object, &at, "source", true, &source);
    *out = meant[which];
    return status;
}

static ht_status read_engine_figure(const loader *l, const json_t *engine, const place *here, ht_engine_key key,
                                    ht_json_figure *out) {
    const place at = {here, figures[key].name, 0};
    const json_t *figure = json_object_get(engine, figures[key].name);
    if (!figure && figures[key].optional) {
        *out = (ht_json_figure){.source = "not of this engine"};
        return HT_OK;
    }
    if (!figure)
        return ht_json_bad(&l->source, &at, "is missing");
    ht_status status = ht_json_read_figure(&l->source, figure, &at, figures[key].least, figures[key].most, out);
    if (status)
        return status;
    out->value *= figures[key].unit;
    out->source = ht_arena_strndup(&l->to->strings, out->source, strlen(out->source));
    return out->source ? HT_OK : ht_fail(l->source.error, HT_ERROR_MEMORY, "%s: out of memory", l->source.file);
}

static ht_status read_engine(const loader *l, const json_t *json, const place *here) {
    const char *keys[HT_ENGINE_KEYS + 5] = {"name", "processor", "about", "activations"};
    ht_measurements *m = l->to;
    ht_measured_engine e = {0};
    for (size_t i = 0; i < HT_ENGINE_KEYS; i++)
        keys[i + 4] = figures[i].name;
    ht_status status = ht_json_known(&l->source, json, here, keys);
    if (!status)
        status = read_text(l, json, here, "name", true, &e.name);
    if (!status)
        status = read_text(l, json, here, "about", true, &e.about);
    if (!status)
        status = read_kind(l, json, here, &e.kind);
    const place at_name = {here, "name", 0};
    if (!status && find_engine(m, e.name, e.kind))
        status = ht_json_bad(&l->source, &at_name, "\"%s\" occurs twice for this processor", e.name);
    if (!status)
        status = read_activations(l, json, here, &e.activations);
    for (int i = 0; i < HT_ENGINE_KEYS && !status; i++)
        status = read_engine_figure(l, json, here, (ht_engine_key)i, &e.figures[i]);
    if (!status)
        status = ht_grow((void **)&m->engines, &m->cap_engines, m->n_engines + 1, sizeof *m->engines, "an engine",
                         l->source.error);
    if (!status)
        m->engines[m->n_engines++] = e;
    return status;
}

/* ---- rows ------------------------------------------------------------------------------------------------------------------- */

static ht_status read_engine_of(const loader *l, const json_t *json, const place *here, ht_measured_row *row) {
    const place at = {here, "engine", 0};
    const char *name = NULL;
    ht_device_kind kind = HT_DEVICE_CPU;
    ht_status status = read_text(l, json, here, "engine", true, &name);
    if (!status)
        status = read_kind(l, json, here, &kind);
    if (!status && !(row->engine = find_engine(l->to, name, kind)))
        status = ht_json_bad(&l->source, &at, "\"%s\" is not in engines.json for this processor", name);
    return status;
}

static ht_status read_range(const loader *l, const json_t *json, const place *here, ht_measured_row *row) {
    const place at = {here, "range", 0};
    const json_t *range = json_object_get(json, "range");
    if (!range)
        return HT_OK;
    for (size_t i = 0; i < 2; i++)
        row->range[i] = json_number_value(json_array_get(range, i));
    if (json_array_size(range) != 2 || !(0 < row->range[0] && row->range[0] <= row->tps && row->tps <= row->range[1]))
        return ht_json_bad(&l->source, &at, "must be two numbers around tps");
    return HT_OK;
}

static ht_status read_numbers(const loader *l, const json_t *json, const place *here, ht_measured_row *row) {
    static const char *const bits[] = {"weight_bits", "head_bits"};
    const place at_prompt = {here, "prompt", 0};
    double prompt = 0;
    ht_status status = ht_json_read_number(&l->source, json, here, "prompt", 1, 1048576, &prompt);
    if (!status && !json_is_integer(json_object_get(json, "prompt")))
        status = ht_json_bad(&l->source, &at_prompt, "must be a whole number");
    row->prompt = (size_t)prompt;
    if (!status)
        status = ht_json_read_number(&l->source, json, here, "tps", 0.01, 1e7, &row->tps);
    for (size_t i = 0; i < 2 && !status; i++)
        if (json_object_get(json, bits[i]))
            status = ht_json_read_number(&l->source, json, here, bits[i], 1, 32, &row->bits[i]);
    return status ? status : read_range(l, json, here, row);
}

static ht_status read_row(const loader *l, const json_t *json, const place *here) {
    static const char *const keys[] = {"chip",        "processor", "engine", "model",  "phase",
                                       "prompt",      "tps",       "use",    "range",  "weights",
                                       "weight_bits", "head_bits", "note",   "source", NULL};
    static const char *const phases[] = {"prefill", "decode"}, *const uses[] = {"fit", "test"};
    static const struct {
        const char *key;
        size_t at;
        bool required;
    } texts[] = {{"chip", offsetof(ht_measured_row, chip), true},
                 {"model", offsetof(ht_measured_row, model), true},
                 {"source", offsetof(ht_measured_row, source), true},
                 {"note", offsetof(ht_measured_row, note), false},
                 {"weights", offsetof(ht_measured_row, weights), false}};
    ht_measurements *m = l->to;
    ht_measured_row row = {0};
    size_t phase = 0, use = 0;
    ht_status status = ht_json_known(&l->source, json, here, keys);
    for (size_t i = 0; i < HT_COUNT(texts) && !status; i++)
        status = read_text(l, json, here, texts[i].key, texts[i].required, (const char **)((char *)&row + texts[i].at));
    if (!status)
        status = read_engine_of(l, json, here, &row);
    if (!status)
        status = read_choice(l, json, here, "phase", phases, 2, &phase);
    if (!status)
        status = read_choice(l, json, here, "use", uses, 2, &use);
    row.decode = phase == 1;
    row.test = use == 1;
    if (!status)
        status = read_numbers(l, json, here, &row);
    if (!status)
        status = ht_grow((void **)&m->rows, &m->cap_rows, m->n_rows + 1, sizeof *m->rows, "a row", l->source.error);
    if (!status)
        m->rows[m->n_rows++] = row;
    return status;
}

/* What of an energy is as in a row of speeds. */
static ht_status read_energy_of(const loader *l, const json_t *json, const place *here, ht_measured_energy *e) {
    const place at = {here, "prompt", 0};
    double prompt = 0;
    ht_status status = read_engine_of(l, json, here, &e->row);
    if (!status)
        status = read_text(l, json, here, "model", true, &e->row.model);
    if (!status)
        status = ht_json_read_number(&l->source, json, here, "prompt", 1, 1048576, &prompt);
    if (!status && !json_is_integer(json_object_get(json, "prompt")))
        status = ht_json_bad(&l->source, &at, "must be a whole number");
    e->row.prompt = (size_t)prompt;
    e->row.decode = true;
    return status;
}

static ht_status read_energy(const loader *l, const json_t *json, const place *here) {
    static const char *const keys[] = {"chip",   "processor", "engine", "model", "prompt", "rail_W",
                                       "joules", "total_W",   "use",    "note",  "source", NULL},
                             *const uses[] = {"fit", "test"};
    ht_measurements *m = l->to;
    ht_measured_energy e = {.kind = HT_DEVICE_CPU};
    size_t use = 0;
    ht_status status = ht_json_known(&l->source, json, here, keys);
    const bool of_token = json_object_get(json, "joules");
    if (!status && of_token == !!json_object_get(json, "total_W"))
        status = ht_json_bad(&l->source, here, "must have one of joules and total_W");
    if (!status)
        status = read_text(l, json, here, "chip", true, &e.row.chip);
    if (!status)
        status = read_text(l, json, here, "source", true, &e.row.source);
    if (!status)
        status = read_text(l, json, here, "note", false, &e.row.note);
    if (!status)
        status = read_kind(l, json, here, &e.kind);
    if (!status)
        status = read_choice(l, json, here, "use", uses, 2, &use);
    e.row.test = use == 1;
    if (!status)
        status = ht_json_read_number(&l->source, json, here, "rail_W", 0.001, 1e4, &e.rail);
    if (!status && of_token)
        status = read_energy_of(l, json, here, &e);
    if (!status)
        status = of_token ? ht_json_read_number(&l->source, json, here, "joules", 1e-6, 1e4, &e.joules)
                          : ht_json_read_number(&l->source, json, here, "total_W", 0.001, 1e4, &e.total);
    if (!status)
        status = ht_grow((void **)&m->energies, &m->cap_energies, m->n_energies + 1, sizeof *m->energies, "a row",
                         l->source.error);
    if (!status)
        m->energies[m->n_energies++] = e;
    return status;
}

static ht_status read_left_out(const loader *l, const json_t *json, const place *here) {
    static const char *const keys[] = {"what", "why", NULL};
    ht_measurements *m = l->to;
    struct ht_left_out one = {0};
    ht_status status = ht_json_known(&l->source, json, here, keys);
    if (!status)
        status = read_text(l, json, here, "what", true, &one.what);
    if (!status)
        status = read_text(l, json, here, "why", true, &one.why);
    if (!status)
        status = ht_grow((void **)&m->left_out, &m->cap_left_out, m->n_left_out + 1, sizeof *m->left_out, "a row",
                         l->source.error);
    if (!status)
        m->left_out[m->n_left_out++] = one;
    return status;
}

/* ---- files ------------------------------------------------------------------------------------------------------------------ */

static ht_status read_list(const loader *l, const char *key,
                           ht_status (*read)(const loader *l, const json_t *json, const place *here)) {
    const place top = {0}, list = {&top, key, 0};
    const json_t *all = json_object_get(l->source.root, key);
    ht_status status = HT_OK;
    if (!json_is_array(all))
        return ht_json_bad(&l->source, &list, all ? "must be a list" : "is missing");
    for (size_t i = 0; i < json_array_size(all) && !status; i++) {
        const place here = {&list, NULL, i};
        status = read(l, json_array_get(all, i), &here);
    }
    return status;
}

static ht_status read_file(const char *file, const char *text, bool of_rows, ht_measurements *m, ht_error *error) {
    static const char *const keys[2][5] = {{"about", "engines", NULL}, {"about", "rows", "energy", "left_out", NULL}};
    const place top = {0};
    loader l = {.to = m};
    ht_status status = ht_json_open(file, text, strlen(text), &l.source, error);
    if (!status)
        status = ht_json_known(&l.source, l.source.root, &top, keys[of_rows]);
    if (!status)
        status = of_rows ? read_list(&l, "rows", read_row) : read_list(&l, "engines", read_engine);
    if (!status && of_rows && json_object_get(l.source.root, "energy"))
        status = read_list(&l, "energy", read_energy);
    if (!status && of_rows)
        status = read_list(&l, "left_out", read_left_out);
    ht_json_close(&l.source);
    return status;
}

ht_status ht_measurements_parse(const char *engines, const char *rows, ht_measurements **out, ht_error *error) {
    ht_measurements *m;
    ht_status status = ht_alloc((void **)&m, 1, sizeof *m, "measurements", error);
    if (status)
        return status;
    status = read_file("engines.json", engines, false, m, error);
    if (!status) /* rows point at engines */
        status = read_file("rows.json", rows, true, m, error);
    if (status)
        ht_measurements_free(m);
    else
        *out = m;
    return status;
}

static const char *embedded(const char *name) {
    size_t i = 0;
    while (strcmp(ht_measurement_sources[i].name, name) != 0)
        i++;
    return ht_measurement_sources[i].text;
}

ht_status ht_measurements_load(ht_measurements **out, ht_error *error) {
    return ht_measurements_parse(embedded("engines.json"), embedded("rows.json"), out, error);
}

void ht_measurements_free(ht_measurements *m) {
    if (!m)
        return;
    free(m->engines);
    free(m->rows);
    free(m->energies);
    free(m->left_out);
    ht_arena_free(&m->strings);
    free(m);
}
