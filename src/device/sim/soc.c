/* Reading descriptions of systems on a chip. One table says what figures there are, one loop reads them. */
#include "device/sim/soc.h"

#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Made by cmake/embed.cmake from socs/. */
struct ht_soc_source {
    const char *name, *text;
};
extern const struct ht_soc_source ht_soc_sources[];

/* ---- what figures there are --------------------------------------------------------------------------------------------------- */

enum { MEMORY = 1, HOST = 2, CPU = 4, GPU = 8, NPU = 16, ALL = CPU | GPU | NPU };
static const char *const section_names[] = {"memory", "host", "cpu", "gpu", "npu"}; /* of the bits above */

typedef struct row {
    ht_soc_key key;
    unsigned sections;
    const char *name;
    double unit, least, most; /* of the file's number; unit: its SI value */
    double fallback;          /* in the file's unit; NAN: it must be given */
    int of; /* the fallback is a multiple of this figure, of the section's own or of memory; -1: of none */
} row;

static const row rows[] = {
    {HT_SOC_PEAK_BANDWIDTH, MEMORY, "peak_GBps", 1e9, 0.1, 1e5, NAN, -1},
    {HT_SOC_TOGETHER, MEMORY, "together_GBps", 1e9, 0.1, 1e5, 0.87, HT_SOC_PEAK_BANDWIDTH},
    {HT_SOC_REACHED_MEMORY, MEMORY, "reached_GBps", 1e9, 0.1, 1e5, 0.91, HT_SOC_PEAK_BANDWIDTH},
    {HT_SOC_ACTIVATION_BYTES, MEMORY, "activation_bytes", 1, 1, 4, 2, -1},
    {HT_SOC_BASE_WATTS, MEMORY, "base_W", 1, 0, 1e4, 0, -1},
    {HT_SOC_POLL, HOST, "poll_us", 1e-6, 0.01, 1000, 0.5, -1},
    {HT_SOC_SLEEP_LATE, HOST, "sleep_late_us", 1e-6, 0, 1e4, 60, -1},
    {HT_SOC_SWITCH, HOST, "switch_us", 1e-6, 0, 1e4, 15, -1},
    {HT_SOC_REACHED, ALL, "reached_TFLOPS", 1e12, 1e-4, 1e5, NAN, -1},
    {HT_SOC_PEAK, ALL, "peak_TFLOPS", 1e12, 1e-4, 1e5, 1.7, HT_SOC_REACHED},
    {HT_SOC_BANDWIDTH, ALL, "bandwidth_GBps", 1e9, 0.1, 1e5, 0.62, HT_SOC_PEAK_BANDWIDTH},
    {HT_SOC_PRIORITY, GPU, "priority", 1, 0, 9, 1, -1},
    {HT_SOC_PRIORITY, CPU | NPU, "priority", 1, 0, 9, 0, -1},
    {HT_SOC_OVERLAP, CPU | GPU, "overlap", 1, 0, 1, 1, -1},
    {HT_SOC_OVERLAP, NPU, "overlap", 1, 0, 1, 0.5, -1},
    {HT_SOC_LAUNCH, CPU, "launch_us", 1e-6, 0, 1e6, 3, -1},
    {HT_SOC_LAUNCH, GPU, "launch_us", 1e-6, 0, 1e6, 15, -1},
    {HT_SOC_LAUNCH, NPU, "launch_us", 1e-6, 0, 1e6, 20, -1},
    {HT_SOC_EMPTY, CPU, "empty_us", 1e-6, 0, 1e6, 5, -1},
    {HT_SOC_EMPTY, GPU, "empty_us", 1e-6, 0, 1e6, 75, -1},
    {HT_SOC_EMPTY, NPU, "empty_us", 1e-6, 0, 1e6, 30, -1},
    {HT_SOC_FINISH, CPU, "finish_us", 1e-6, 0, 1e6, 5, -1},
    {HT_SOC_FINISH, GPU, "finish_us", 1e-6, 0, 1e6, 400, -1},
    {HT_SOC_FINISH, NPU, "finish_us", 1e-6, 0, 1e6, 100, -1},
    {HT_SOC_EVENT, CPU, "event_us", 1e-6, 0, 1e6, 2, -1},
    {HT_SOC_EVENT, GPU, "event_us", 1e-6, 0, 1e6, 120, -1},
    {HT_SOC_EVENT, NPU, "event_us", 1e-6, 0, 1e6, 40, -1},
    {HT_SOC_CALLBACK, CPU, "callback_us", 1e-6, 0, 1e6, 20, -1},
    {HT_SOC_CALLBACK, GPU | NPU, "callback_us", 1e-6, 0, 1e6, 180, -1},
    {HT_SOC_FLAG, CPU, "flag_us", 1e-6, 0, 1e6, 1, -1},
    {HT_SOC_FLAG, GPU | NPU, "flag_us", 1e-6, 0, 1e6, 3, -1},
    {HT_SOC_COPY, CPU, "copy_us", 1e-6, 0, 1e6, 5, -1},
    {HT_SOC_COPY, GPU | NPU, "copy_us", 1e-6, 0, 1e6, 400, -1},
    {HT_SOC_MEMORY, ALL, "memory_GB", 1e9, 0.01, 1e5, 16, -1},
    {HT_SOC_WATTS, ALL, "busy_W", 1, 0, 1e4, 0, -1},
    {HT_SOC_IDLE_WATTS, ALL, "idle_W", 1, 0, 1e4, 0, -1},
    {HT_SOC_ARRAY, NPU, "array", 1, 1, 1024, 32, -1},
    {HT_SOC_ARRAYS, NPU, "arrays", 1, 1, 1024, 8, -1},
    {HT_SOC_TILE_LOAD, NPU, "tile_load_rows", 1, 0, 1e5, 320, -1},
    {HT_SOC_ONCHIP, NPU, "onchip_MiB", 1048576, 0.01, 1e5, 8, -1},
    {HT_SOC_SPILL, NPU, "spill_columns", 1, 1, 1e6, 128, -1},
    {HT_SOC_REACHED_INTEGER, NPU, "int16_TFLOPS", 1e12, 1e-4, 1e5, 2, HT_SOC_REACHED},
    {HT_SOC_INTEGER_GRAPHS, NPU, "int16_graphs", 1, 0, 1, 0, -1},
    {HT_SOC_VECTOR, NPU, "vector_Gvalues", 1e9, 1e-3, 1e6, 5, -1},
    {HT_SOC_SCORES, NPU, "scores_Gvalues", 1e9, 1e-3, 1e6, 30, -1},
    {HT_SOC_EXPAND, NPU, "expand_Gweights", 1e9, 1e-3, 1e6, 50, -1},
    {HT_SOC_OPERATOR, CPU, "operator_us", 1e-6, 0, 1e6, 0, -1},
    {HT_SOC_OPERATOR, GPU, "operator_us", 1e-6, 0, 1e6, 8, -1},
    {HT_SOC_OPERATOR, NPU, "operator_us", 1e-6, 0, 1e6, 15, -1},
    {HT_SOC_GRAPH, NPU, "graph_us", 1e-6, 0, 1e6, 90, -1},
    {HT_SOC_SESSION, NPU, "session_GiB", 1073741824, 0.01, 1e5, 3.5, -1},
    {HT_SOC_SESSIONS, NPU, "sessions", 1, 1, 64, 4, -1},
    {HT_SOC_BUILD, NPU, "build_ms", 1e-3, 0, 1e6, 3, -1},
    {HT_SOC_BUILD_PER_WEIGHT, NPU, "build_ns_per_weight", 1e-9, 0, 1e6, 4, -1},
};

static const row *find_row(const char *name, unsigned section) {
    for (size_t i = 0; i < HT_COUNT(rows); i++)
        if (rows[i].sections & section && !strcmp(rows[i].name, name))
            return &rows[i];
    return NULL;
}

static const row *row_of(ht_soc_key key) {
    for (size_t i = 0; i < HT_COUNT(rows); i++)
        if (rows[i].key == key)
            return &rows[i];
    return NULL;
}

const char *ht_soc_key_name(ht_soc_key key) {
    return row_of(key)->name;
}

double ht_soc_key_unit(ht_soc_key key) {
    return row_of(key)->unit;
}

bool ht_soc_key_is_of(ht_soc_key key, const char *section) {
    for (size_t i = 0; i < HT_COUNT(rows); i++)
        for (size_t bit = 0; bit < HT_COUNT(section_names); bit++)
            if (rows[i].key == key && rows[i].sections >> bit & 1 && !strcmp(section_names[bit], section))
                return true;
    return false;
}

/* Figures that count or switch something: half an array or 1.5 sessions mean nothing. */
static bool is_whole(ht_soc_key key) {
    return key == HT_SOC_ARRAY || key == HT_SOC_ARRAYS || key == HT_SOC_INTEGER_GRAPHS || key == HT_SOC_SESSIONS;
}

static unsigned section_of(ht_device_kind kind) {
    return kind == HT_DEVICE_CPU ? CPU : kind == HT_DEVICE_GPU ? GPU : NPU;
}

/* ---- reading ------------------------------------------------------------------------------------------------------------------------ */

typedef ht_json_place place;

typedef struct loader {
    ht_json_source source;
    ht_soc *soc;
} loader;

#define bad(l, ...) ht_json_bad(&(l)->source, __VA_ARGS__)

static ht_status read_text(const loader *l, const json_t *object, const place *up, const char *key, bool required,
                           char *out, size_t capacity) {
    return ht_json_read_text(&l->source, object, up, key, required, out, capacity);
}

static ht_status read_figure(const loader *l, const json_t *json, const place *here, const row *r, ht_figure *figure) {
    ht_json_figure read;
    ht_status status = ht_json_read_figure(&l->source, json, here, r->least, r->most, &read);
    if (status)
        return status;
    const place at_value = {here, "value", 0};
    if (is_whole(r->key) && floor(read.value) != read.value)
        return bad(l, &at_value, "must be a whole number");
    *figure = (ht_figure){.value = read.value * r->unit,
                          .low = read.low * r->unit,
                          .high = read.high * r->unit,
                          .source = ht_arena_strndup(&l->soc->strings, read.source, strlen(read.source)),
                          .given = true,
                          .fitted = read.fitted};
    return figure->source ? HT_OK : ht_fail(l->source.error, HT_ERROR_MEMORY, "%s: out of memory", l->source.file);
}

/* All figures of a section. Keys in `others` (NULL-terminated) are somebody else's. */
static ht_status read_figures(const loader *l, const json_t *object, const place *here, unsigned section,
                              const char *const *others, ht_figure *figures) {
    const char *key;
    json_t *value;
    ht_status status = HT_OK;
    json_object_foreach((json_t *)object, key, value) {
        const place inner = {here, key, 0};
        bool known = false;
        for (size_t i = 0; others && others[i]; i++)
            known |= !strcmp(others[i], key);
        const row *r = find_row(key, section);
        if (!known && !r)
            return bad(l, &inner, "unknown key");
        if (r)
            status = read_figure(l, value, &inner, r, &figures[r->key]);
        if (status)
            return status;
    }
    for (size_t i = 0; i < HT_COUNT(rows); i++) {
        const row *r = &rows[i];
        const place inner = {here, r->name, 0};
        if (!(r->sections & section) || figures[r->key].given)
            continue;
        if (isnan(r->fallback))
            return bad(l, &inner, "is missing");
        const ht_figure *base = r->of < 0 ? NULL : &figures[r->of];
        if (base && !base->source)
            base = &l->soc->figures[r->of];
        const double usual = r->fallback * (base ? base->value : r->unit);
        figures[r->key] = (ht_figure){.value = usual, .low = usual, .high = usual, .source = "estimated"};
    }
    return HT_OK;
}

static ht_status read_lengths(const loader *l, const json_t *json, const place *here, ht_soc_processor *p) {
    static const int standard[] = {1, 64, 128, 256, 512, 1024};
    p->n_lengths = json ? json_array_size(json) : HT_COUNT(standard);
    if (!json)
        memcpy(p->lengths, standard, sizeof standard);
    if (json && (!json_is_array(json) || p->n_lengths == 0 || p->n_lengths > HT_SOC_MAX_LENGTHS))
        return bad(l, here, "must be a list of 1 to %d lengths", HT_SOC_MAX_LENGTHS);
    for (size_t i = 0; json && i < p->n_lengths; i++) {
        const place one = {here, NULL, i};
        const json_t *value = json_array_get(json, i);
        const json_int_t length = json_integer_value(value);
        if (!json_is_integer(value) || length < 1 || length > 65536)
            return bad(l, &one, "must be a whole number from 1 to 65536");
        if (i && length <= p->lengths[i - 1])
            return bad(l, &one, "lengths must ascend");
        p->lengths[i] = (int)length;
    }
    return HT_OK;
}

static ht_status read_kind(const loader *l, const json_t *json, const place *here, ht_device_kind *kind) {
    static const ht_device_kind kinds[] = {HT_DEVICE_CPU, HT_DEVICE_GPU, HT_DEVICE_NPU};
    char name[8];
    const place at = {here, "kind", 0};
    ht_status status = read_text(l, json, here, "kind", true, name, sizeof name);
    for (size_t i = 0; i < HT_COUNT(kinds) && !status; i++)
        if (!strcmp(name, section_names[i + 2])) {
            *kind = kinds[i];
            return HT_OK;
        }
    return status ? status : bad(l, &at, "\"%s\" is not one of cpu, gpu, npu", name);
}

static ht_status read_processor(const loader *l, const json_t *json, const place *here, ht_soc_processor *p) {
    static const char *const others[] = {"name", "kind", "description", "companion", "cores", "lengths", NULL};
    static const struct {
        const char *key;
        unsigned sections;
    } only[] = {{"companion", NPU}, {"lengths", NPU}, {"cores", CPU}};
    char cores[64];
    if (!json_is_object(json))
        return bad(l, here, "must be an object");
    ht_status status = read_text(l, json, here, "name", true, p->name, sizeof p->name);
    if (!status)
        status = read_kind(l, json, here, &p->kind);
    if (!status)
        status = read_text(l, json, here, "description", false, p->description, sizeof p->description);
    if (!status)
        status = read_text(l, json, here, "companion", false, p->companion, sizeof p->companion);
    if (!status)
        status = read_text(l, json, here, "cores", false, cores, sizeof cores);
    const place at_name = {here, "name", 0}, at_cores = {here, "cores", 0}, at_lengths = {here, "lengths", 0};
    if (!status && strspn(p->name, "abcdefghijklmnopqrstuvwxyz0123456789-") != strlen(p->name))
        return bad(l, &at_name, "must be of small letters, digits and hyphens");
    if (!status && (!strcmp(p->name, section_names[0]) || !strcmp(p->name, section_names[1])))
        return bad(l, &at_name, "\"%s\" is the name of a section",
                   p->name); /* whose figures overrides could not reach */
    for (size_t i = 0; i < HT_COUNT(only) && !status; i++) {
        const place at = {here, only[i].key, 0};
        if (json_object_get(json, only[i].key) && !(only[i].sections & section_of(p->kind)))
            return bad(l, &at, "is not of a %s",
                       section_names[p->kind == HT_DEVICE_GPU   ? 3
                                     : p->kind == HT_DEVICE_CPU ? 2
                                                                : 4]);
    }
    if (!status && *cores && !ht_cores_parse(cores, &p->cores))
        return bad(l, &at_cores, "\"%s\" is not a list of cores such as 0-1,4", cores);
    if (!status && p->kind == HT_DEVICE_NPU)
        status = read_lengths(l, json_object_get(json, "lengths"), &at_lengths, p);
    return status ? status : read_figures(l, json, here, section_of(p->kind), others, p->figures);
}

/* What one processor says of another. */
static ht_status check_processors(const loader *l, const place *list) {
    ht_soc *soc = l->soc;
    ht_cores taken = {{0}};
    bool cpu = false;
    for (size_t i = 0; i < soc->n_processors; i++)
        cpu |= soc->processors[i].kind == HT_DEVICE_CPU;
    for (size_t i = 0; i < soc->n_processors; i++) {
        ht_soc_processor *p = &soc->processors[i];
        const place here = {list, NULL, i}, at_name = {&here, "name", 0}, at_companion = {&here, "companion", 0},
                    at_cores = {&here, "cores", 0};
        if (ht_soc_find(soc, p->name) != p)
            return bad(l, &at_name, "\"%s\" occurs twice", p->name);
        if (ht_cores_meet(&p->cores, &taken))
            return bad(l, &at_cores, "some are another processor's");
        ht_cores_join(&taken, &p->cores);
        const ht_soc_processor *companion = *p->companion ? ht_soc_find(soc, p->companion) : NULL;
        if (*p->companion && (!companion || companion->kind != HT_DEVICE_CPU))
            return bad(l, &at_companion, "\"%s\" is not a CPU of this file", p->companion);
        if (p->kind == HT_DEVICE_NPU && !cpu)
            return bad(l, &here, "an NPU needs a processor of kind \"cpu\" beside it, for what it does not compute");
    }
    return HT_OK;
}

static ht_status read_soc(const loader *l, const json_t *root) {
    static const char *const keys[] = {"name", "description", "memory", "host", "processors", NULL};
    const place top = {0}, memory = {&top, "memory", 0}, host = {&top, "host", 0}, list = {&top, "processors", 0};
    ht_soc *soc = l->soc;
    ht_status status = ht_json_known(&l->source, root, &top, keys);
    if (!status)
        status = read_text(l, root, &top, "name", true, soc->name, sizeof soc->name);
    if (!status)
        status = read_text(l, root, &top, "description", false, soc->description, sizeof soc->description);
    const json_t *of_memory = json_object_get(root, "memory"), *of_host = json_object_get(root, "host"),
                 *processors = json_object_get(root, "processors");
    if (!status && !json_is_object(of_memory))
        status = bad(l, &memory, of_memory ? "must be an object" : "is missing");
    if (!status && of_host && !json_is_object(of_host))
        status = bad(l, &host, "must be an object");
    if (!status)
        status = read_figures(l, of_memory, &memory, MEMORY, NULL, soc->figures);
    if (!status)
        status = read_figures(l, of_host, &host, HOST, NULL, soc->figures);
    soc->n_processors = json_array_size(processors);
    if (!status && (soc->n_processors == 0 || soc->n_processors > HT_SOC_MAX_PROCESSORS))
        status = bad(l, &list, processors ? "must be a list of 1 to %d processors" : "is missing (1 to %d processors)",
                     HT_SOC_MAX_PROCESSORS);
    for (size_t i = 0; i < soc->n_processors && !status; i++) {
        const place here = {&list, NULL, i};
        status = read_processor(l, json_array_get(processors, i), &here, &soc->processors[i]);
    }
    return status ? status : check_processors(l, &list);
}

ht_status ht_soc_parse(const char *file, const char *text, size_t bytes, ht_soc **out, ht_error *error) {
    ht_soc *soc;
    loader l;
    ht_status status = ht_alloc((void **)&soc, 1, sizeof *soc, file, error);
    if (status)
        return status;
    l.soc = soc;
    status = ht_json_open(file, text, bytes, &l.source, error);
    if (!status)
        status = read_soc(&l, l.source.root);
    ht_json_close(&l.source);
    soc->hash = ht_hash(HT_HASH_START, text, bytes);
    snprintf(soc->spec, sizeof soc->spec, "%s", soc->name);
    if (status)
        ht_soc_free(soc);
    else
        *out = soc;
    return status;
}

/* ---- overrides, names --------------------------------------------------------------------------------------------------------------- */

/* "gpu.finish_us=100" */
static ht_status override(ht_soc *soc, const char *spec, const char *text, ht_error *error) {
    char section[64], key[64], *end;
    double number;
    const char *dot = strchr(text, '.'), *equals = strchr(text, '=');
    if (!dot || !equals || dot > equals || dot - text >= (long)sizeof section || equals - dot >= (long)sizeof key)
        return ht_fail(error, HT_ERROR_ARGUMENT, "%s: \"%s\" is not of the form processor.key=number", spec, text);
    snprintf(section, sizeof section, "%.*s", (int)(dot - text), text);
    snprintf(key, sizeof key, "%.*s", (int)(equals - dot - 1), dot + 1);
    number = strtod(equals + 1, &end);
    const ht_soc_processor *p = ht_soc_find(soc, section);
    const unsigned bits = p                            ? section_of(p->kind)
                          : !strcmp(section, "memory") ? MEMORY
                          : !strcmp(section, "host")   ? HOST
                                                       : 0;
    const row *r = find_row(key, bits);
    if (!bits || !r)
        return ht_fail(error, HT_ERROR_ARGUMENT, "%s: %s has no %s%s%s", spec, bits ? section : soc->name,
                       bits ? key : "processor \"", bits ? "" : section, bits ? "" : "\"");
    if (end == equals + 1 || *end || !(number >= r->least && number <= r->most))
        return ht_fail(error, HT_ERROR_ARGUMENT, "%s: %s.%s: \"%s\" is not a number from %.9g to %.9g", spec, section,
                       key, equals + 1, r->least, r->most);
    if (is_whole(r->key) && floor(number) != number)
        return ht_fail(error, HT_ERROR_ARGUMENT, "%s: %s.%s: \"%s\" is not a whole number", spec, section, key,
                       equals + 1);
    ht_figure *figures = p ? (ht_figure *)p->figures : soc->figures;
    figures[r->key] = (ht_figure){.value = number * r->unit,
                                  .low = number * r->unit,
                                  .high = number * r->unit,
                                  .source = "as asked for",
                                  .given = true};
    return HT_OK;
}

static ht_status override_all(ht_soc *soc, const char *spec, const char *text, ht_error *error) {
    ht_status status = HT_OK;
    while (*text == '@' && !status) {
        char one[sizeof soc->spec]; /* never cut off: that would be another number */
        const size_t n = strcspn(text + 1, "@");
        snprintf(one, sizeof one, "%.*s", (int)ht_min_size(n, sizeof one - 1), text + 1);
        status = override(soc, spec, one, error);
        text += 1 + n;
    }
    soc->hash = ht_hash(soc->hash, spec, strlen(spec));
    snprintf(soc->spec, sizeof soc->spec, "%s", spec);
    return status;
}

const char *ht_soc_name(size_t index) {
    static char names[16][64]; /* file names without ".json"; the same whoever asks */
    for (size_t i = 0; i <= index && i < HT_COUNT(names); i++)
        if (!ht_soc_sources[i].name)
            return NULL;
    if (index >= HT_COUNT(names))
        return NULL;
    const char *file = ht_soc_sources[index].name;
    snprintf(names[index], sizeof names[index], "%.*s", (int)(strlen(file) - strlen(".json")), file);
    return names[index];
}

static ht_status load_named(const char *name, ht_soc **soc, ht_error *error) {
    const size_t bytes = strlen(name);
    for (size_t i = 0; ht_soc_sources[i].name; i++)
        if (strlen(ht_soc_sources[i].name) == bytes + 5 && !strncmp(ht_soc_sources[i].name, name, bytes))
            return ht_soc_parse(ht_soc_sources[i].name, ht_soc_sources[i].text, strlen(ht_soc_sources[i].text), soc,
                                error);
    char names[300] = "";
    for (size_t i = 0, at = 0; ht_soc_name(i) && at < sizeof names; i++)
        at += (size_t)snprintf(names + at, sizeof names - at, "%s%s", i ? ", " : "", ht_soc_name(i));
    return ht_fail(error, HT_ERROR_ARGUMENT, "%s: unknown SoC (known: %s, and paths of JSON files)", name, names);
}

ht_status ht_soc_load(const char *spec, ht_soc **out, ht_error *error) {
    char path[1024];
    const size_t n = strcspn(spec, "@");
    ht_soc *soc = NULL;
    if (n == 0 || n >= sizeof path || strlen(spec) >= sizeof soc->spec)
        return ht_fail(error, HT_ERROR_ARGUMENT, "\"%s\" is not the name of a SoC", spec);
    snprintf(path, sizeof path, "%.*s", (int)n, spec);
    ht_status status;
    if (strchr(path, '/') || (n > 5 && !strcmp(path + n - 5, ".json"))) {
        ht_mapping mapping;
        status = ht_mapping_open(path, &mapping, error);
        if (status)
            return status;
        status = ht_soc_parse(path, (const char *)mapping.data, mapping.bytes, &soc, error);
        ht_mapping_close(&mapping);
    } else {
        status = load_named(path, &soc, error);
    }
    if (!status)
        status = override_all(soc, spec, spec + n, error);
    if (status)
        ht_soc_free(soc);
    else
        *out = soc;
    return status;
}

void ht_soc_free(ht_soc *soc) {
    if (!soc)
        return;
    ht_arena_free(&soc->strings);
    free(soc);
}

const ht_soc_processor *ht_soc_find(const ht_soc *soc, const char *name) {
    for (size_t i = 0; i < soc->n_processors; i++)
        if (!strcmp(soc->processors[i].name, name))
            return &soc->processors[i];
    return NULL;
}

bool ht_soc_is_companion(const ht_soc *soc, const ht_soc_processor *processor) {
    for (size_t i = 0; i < soc->n_processors; i++)
        if (!strcmp(soc->processors[i].companion, processor->name))
            return true;
    return false;
}

const ht_soc_processor *ht_soc_first(const ht_soc *soc, ht_device_kind kind) {
    for (size_t i = 0; i < soc->n_processors; i++)
        if (soc->processors[i].kind == kind && !ht_soc_is_companion(soc, &soc->processors[i]))
            return &soc->processors[i];
    return NULL;
}
