/* sim:SOC/PROCESSOR: a processor of a described SoC. Numbers are real, where the model has weights: the CPU device computes
 * them when a command is submitted. Time is the machine's (machine.h), by the laws of soc.h, and moves on the engine's virtual
 * clock only.
 *
 * A dependency on another device is waited for by the host: no SoC that is described has a fence between its processors.
 */
#include "device/sim/sim.h"

#include "device/common.h"
#include "device/lengths.h"
#include "device/sim/law.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct sim_device {
    ht_device base;
    ht_device_caps caps;
    char companion[sizeof((ht_soc *)0)->spec + 48];
    ht_machine *machine;
    size_t index; /* of the processor */
    ht_law law;
    ht_hparams hparams;
    ht_device *inner; /* computes, and knows what can be computed */
    bool computes;
    bool copied; /* exchanges with the host by copies */
    size_t max_tokens;
    float *hidden; /* FFN: [max_tokens][2 feed_forward] gate and up, [max_tokens][feed_forward] */
    size_t hidden_bytes;
    int lengths[HT_MOST_LENGTHS]; /* static ones, ascending */
    bool online;                  /* a number of tokens that is none of these has its graph built at every submit */
    double builder;               /* when what builds graphs is free */
    uint64_t graph_bytes;         /* of all graphs */
} sim_device;

#define MEMBERS 3 /* of a feed-forward block */

struct ht_task {
    const ht_op *op;
    ht_slice slice;
    ht_task *inner[MEMBERS]; /* one, or a feed-forward block's three */
    size_t n_inner;
    double weights, weight_bytes;
    ht_lengths lengths;
    double ready[HT_MOST_LENGTHS]; /* when the graph of a length is there; 0: nobody asked for it */
    uint64_t graph_bytes;
    sim_device *device;
};

static bool is_static(const sim_device *d) {
    return d->caps.n_lengths > 0;
}

static double figure(const sim_device *d, ht_soc_key key) {
    return d->law.processor->figures[key].value;
}

/* ---- opening -------------------------------------------------------------------------------------------------------- */

static ht_status read_number(const ht_device_options *options, const char *key, double low, double high, double *value,
                             ht_error *error) {
    char text[32], *end;
    if (!ht_device_option(options->options, key, text, sizeof text))
        return HT_OK;
    *value = strtod(text, &end);
    if (end != text && !*end && *value >= low && *value <= high)
        return HT_OK;
    return ht_fail(error, HT_ERROR_ARGUMENT, "device %s: %s=%s: expected a number from %g to %g", options->name, key,
                   text, low, high);
}

static ht_status read_lengths(sim_device *d, const ht_device_options *options, ht_error *error) {
    char text[128];
    if (ht_device_option(options->options, "lengths", text, sizeof text))
        return ht_parse_lengths(options->name, text, d->lengths, &d->caps.n_lengths, error);
    const ht_soc_processor *p = d->law.processor;
    for (size_t i = 0; i < p->n_lengths; i++) { /* as far as a submit can fill them */
        if (i > 0 && (size_t)p->lengths[i - 1] >= options->max_tokens)
            break;
        d->lengths[d->caps.n_lengths++] = p->lengths[i];
    }
    return HT_OK;
}

/* lengths=, order=, online=, activations= are for NPUs; game= (percent of the processor's time) and fps= for any. */
static ht_status read_options(sim_device *d, const ht_device_options *options, ht_error *error) {
    static const char *const known[] = {"lengths", "order", "online",  "activations", "memory",
                                        "game",    "fps",   "numbers", NULL};
    static const char *const orders[] = {"best", "activations", "weights", NULL},
                             *const activations[] = {[HT_SIM_FP16] = "fp16", [HT_SIM_INT16] = "int16", NULL},
                             *const switches[] = {"off", "on", NULL}, *const memories[] = {"shared", "copied", NULL};
    const bool npu = d->law.processor->kind == HT_DEVICE_NPU;
    int values = npu && figure(d, HT_SOC_INTEGER_GRAPHS) > 0 ? HT_SIM_INT16 : HT_SIM_FP16;
    int order = HT_SIM_BEST, online = 0, copied = 0, numbers = !options->made_up;
    double game = 0, frames = 60;
    char text[128];
    for (int i = 0; i < 4; i++)
        if (!npu && ht_device_option(options->options, known[i], text, sizeof text))
            return ht_fail(error, HT_ERROR_ARGUMENT, "device %s: %s= is for NPUs", options->name, known[i]);
    ht_status status = ht_device_check_options(options->name, options->options, known, error);
    if (!status)
        status = ht_device_word(options, "order", orders, &order, error);
    if (!status)
        status = ht_device_word(options, "online", switches, &online, error);
    if (!status)
        status = ht_device_word(options, "activations", activations, &values, error);
    if (!status)
        status = ht_device_word(options, "memory", memories, &copied, error);
    if (!status)
        status = ht_device_word(options, "numbers", switches, &numbers, error);
    if (!status)
        status = read_number(options, "game", 0, 95, &game, error);
    if (!status)
        status = read_number(options, "fps", 1, 1000, &frames, error);
    if (!status && npu)
        status = read_lengths(d, options, error);
    if (status)
        return status;
    d->law.order = (ht_sim_order)order;
    d->law.activations = (ht_sim_activations)values;
    d->online = online;
    d->copied = copied;
    d->computes = numbers;
    if (game > 0)
        ht_machine_load(d->machine, d->index, game / 100, frames);
    return HT_OK;
}

/* The chip's own CPU: an NPU's own companion, else the last one; beside a GPU, which may lack room, the first that is not there
 * for an NPU. A CPU has none. */
static void state_companion(sim_device *d, const ht_device_options *options) {
    const ht_soc *soc = d->law.soc;
    const ht_soc_processor *p = d->law.processor,
                           *first = p->kind == HT_DEVICE_GPU ? ht_soc_first(soc, HT_DEVICE_CPU) : NULL;
    const char *name = first ? first->name : p->companion;
    char numbers[8];
    for (size_t i = 0; i < soc->n_processors && !first && !*p->companion; i++)
        if (soc->processors[i].kind == HT_DEVICE_CPU)
            name = soc->processors[i].name;
    if (p->kind == HT_DEVICE_CPU || !*name)
        return;
    const bool said = ht_device_option(options->options, "numbers", numbers, sizeof numbers);
    snprintf(d->companion, sizeof d->companion, "sim:%s/%s%s%s", soc->spec, name, said ? ":numbers=" : "",
             said ? numbers : "");
    d->caps.companion = d->companion;
}

static void state_caps(sim_device *d, const ht_device_options *options) {
    const ht_soc *soc = d->law.soc;
    const ht_soc_processor *p = d->law.processor;
    ht_device_caps *caps = &d->caps;
    caps->kind = p->kind;
    snprintf(caps->name, sizeof caps->name, "sim:%.40s/%s", soc->name, p->name);
    snprintf(caps->runtime, sizeof caps->runtime, "simulated");
    snprintf(caps->description, sizeof caps->description, "%s", p->description);
    memcpy(caps->dtypes, d->inner->ops->caps(d->inner)->dtypes, sizeof caps->dtypes);
    caps->memory_bytes = (uint64_t)figure(d, HT_SOC_MEMORY);
    caps->unified_memory = !d->copied;
    caps->runs_in_caller = p->kind == HT_DEVICE_CPU;
    caps->divisible = p->kind != HT_DEVICE_NPU;
    caps->cores = p->cores;
    caps->lengths = is_static(d) ? d->lengths : NULL;
    caps->many_only = is_static(d) && d->lengths[0] > 1;
    state_companion(d, options);
    if (!is_static(d))
        return;
    const double half = caps->memory_bytes / 2.0, sessions = figure(d, HT_SOC_SESSION) * figure(d, HT_SOC_SESSIONS);
    const bool known = p->figures[HT_SOC_SESSION].given; /* what sessions hold, the NPU's memory is all for graphs */
    caps->graph_bytes = options->graph_memory ? options->graph_memory
                        : known               ? (uint64_t)fmin((double)caps->memory_bytes, sessions)
                                              : (uint64_t)half;
}

static void sim_close(ht_device *device) {
    sim_device *d = (sim_device *)device;
    if (d->inner)
        d->inner->ops->close(d->inner);
    if (d->hidden)
        ht_pages_free(d->hidden, d->hidden_bytes);
    ht_machine_leave(d->machine);
    free(d);
}

static ht_status find_processor(sim_device *d, const char *name, const char *processor, ht_error *error) {
    const ht_soc *soc = ht_machine_soc(d->machine);
    const ht_soc_processor *found = ht_soc_find(soc, processor);
    char list[128] = "none";
    if (found) {
        d->index = (size_t)(found - soc->processors);
        d->law = (ht_law){.soc = soc, .processor = found, .hparams = &d->hparams};
        return HT_OK;
    }
    for (size_t i = 0, at = 0; i < soc->n_processors && at < sizeof list; i++)
        at += (size_t)snprintf(list + at, sizeof list - at, "%s%s", i ? ", " : "", soc->processors[i].name);
    return ht_fail(error, HT_ERROR_ARGUMENT, "device %s: no such processor (it has: %s)", name, list);
}

static ht_status open_inner(sim_device *d, const ht_device_options *options, ht_error *error) {
    ht_device_options inner = *options;
    inner.name = "cpu";
    inner.options = "";
    return ht_device_cpu.open(&inner, &d->inner, error);
}

/* The SoC is all between "sim:" and the last slash: its name, or a path. */
static ht_status sim_open(const ht_device_options *options, ht_device **device, ht_error *error) {
    const char *spec = options->name + strlen("sim:"), *slash = strrchr(spec, '/');
    char soc[sizeof((ht_soc *)0)->spec];
    if (strncmp(options->name, "sim:", 4) != 0 || !slash || slash == spec || !slash[1] ||
        (size_t)(slash - spec) >= sizeof soc)
        return ht_fail(error, HT_ERROR_ARGUMENT,
                       "device %s: expected sim:SOC/PROCESSOR, such as sim:snapdragon-8-gen-3/gpu", options->name);
    memcpy(soc, spec, (size_t)(slash - spec));
    soc[slash - spec] = '\0';
    sim_device *d;
    ht_status status = ht_alloc((void **)&d, 1, sizeof *d, options->name, error);
    if (status)
        return status;
    d->base.ops = &ht_device_sim;
    d->hparams = options->hparams ? *options->hparams : (ht_hparams){0};
    d->max_tokens = options->max_tokens;
    status = ht_machine_join(options->machine, soc, &d->machine, error);
    if (!status)
        status = find_processor(d, options->name, slash + 1, error);
    d->law.kv_type = options->kv_type;
    if (!status)
        status = read_options(d, options, error);
    if (!status)
        status = open_inner(d, options, error);
    if (status) {
        sim_close(&d->base);
        return status;
    }
    state_caps(d, options);
    *device = &d->base;
    return HT_OK;
}

static const ht_device_caps *sim_caps(const ht_device *device) {
    return &((const sim_device *)device)->caps;
}

static ht_clock *sim_clock(ht_device *device) {
    return ht_machine_clock(((sim_device *)device)->machine);
}

ht_machine *ht_sim_machine(const ht_device *device, size_t *processor) {
    const sim_device *d = (const sim_device *)device;
    if (device->ops != &ht_device_sim)
        return NULL;
    *processor = d->index;
    return d->machine;
}

/* ---- listing -------------------------------------------------------------------------------------------------------- */

static void list_lengths(const ht_soc_processor *p, char *text, size_t size) {
    for (size_t i = 0, at = 0; i < p->n_lengths && at < size; i++)
        at += (size_t)snprintf(text + at, size - at, "%s%d", i ? "," : "", p->lengths[i]);
}

static ht_status list_soc(const ht_soc *soc, ht_device_info **list, size_t *n, ht_error *error) {
    static const char *const kinds[] = {[HT_DEVICE_CPU] = "cpu", [HT_DEVICE_GPU] = "gpu", [HT_DEVICE_NPU] = "npu"};
    ht_status status = HT_OK;
    for (size_t i = 0; i < soc->n_processors && !status; i++) {
        const ht_soc_processor *p = &soc->processors[i];
        ht_device_info info = {.memory_bytes = (uint64_t)p->figures[HT_SOC_MEMORY].value,
                               .unified_memory = true,
                               .usable = true,
                               .simulated = true};
        snprintf(info.name, sizeof info.name, "sim:%.40s/%s", soc->name, p->name);
        snprintf(info.kind, sizeof info.kind, "%s", kinds[p->kind]);
        snprintf(info.runtime, sizeof info.runtime, "simulated");
        snprintf(info.description, sizeof info.description, "%s", p->description);
        snprintf(info.dtypes, sizeof info.dtypes, "int4,int6,int8,f16,bf16,f32");
        snprintf(info.limits, sizeof info.limits, "%.3g TFLOPS, %.3g GB/s, in virtual time%s",
                 p->figures[HT_SOC_REACHED].value * 1e-12, p->figures[HT_SOC_BANDWIDTH].value * 1e-9,
                 p->kind == HT_DEVICE_NPU ? "; graphs of all lengths: what its sessions hold, or half of the memory"
                                          : "");
        list_lengths(p, info.static_lengths, sizeof info.static_lengths);
        status = ht_device_list_add(list, n, &info, error);
    }
    return status;
}

static ht_status sim_list(ht_device_info **list, size_t *n, ht_error *error) {
    ht_status status = HT_OK;
    for (size_t i = 0; ht_soc_name(i) && !status; i++) {
        ht_soc *soc;
        status = ht_soc_load(ht_soc_name(i), &soc, error);
        if (status)
            return status;
        status = list_soc(soc, list, n, error);
        ht_soc_free(soc);
    }
    return status;
}

/* "sim:SOC": all that the SoC has, but for CPUs that only stand beside an NPU. */
static ht_status sim_members(const char *name, ht_text *list, ht_error *error) {
    const char *spec = name + strlen("sim:"), *slash = strrchr(spec, '/');
    ht_soc *soc;
    if (strncmp(name, "sim:", 4) != 0 || (slash && !strstr(slash, ".json"))) /* names a processor */
        return HT_OK;
    ht_status status = ht_soc_load(spec, &soc, error);
    if (status)
        return status;
    for (size_t i = 0; i < soc->n_processors && !status; i++)
        if (!ht_soc_is_companion(soc, &soc->processors[i]))
            status = ht_text_printf(list, error, "%s%s/%s", list->bytes ? "," : "", name, soc->processors[i].name);
    ht_soc_free(soc);
    return status;
}

/* ---- tasks ---------------------------------------------------------------------------------------------------------- */

typedef struct members { /* the operators that compute a task, and their slices */
    const ht_op *ops[MEMBERS];
    ht_slice slices[MEMBERS];
    size_t n;
} members;

static members members_of(const ht_op *op, const ht_slice *slice) {
    if (op->kind != HT_OP_FFN)
        return (members){{op}, {*slice}, 1};
    const size_t features = op->members[0].parts[0].rows;
    const ht_slice share = {
        .row_begin = slice->row_begin, .row_end = slice->row_end ? slice->row_end : features, .of = features};
    return (members){{&op->members[0], &op->members[1], &op->members[2]},
                     {share, share, {.reduction_begin = share.row_begin, .reduction_end = share.row_end}},
                     MEMBERS};
}

static const char *sim_refuses(const ht_device *device, const ht_op *op, const ht_slice *slice) {
    const sim_device *d = (const sim_device *)device;
    if (is_static(d) && op->kind != HT_OP_MATMUL && op->kind != HT_OP_FFN)
        return "graphs are of matrices";
    if (is_static(d) && slice->group > 1)
        return "shares of query heads are not built";
    if (!is_static(d) && op->kind == HT_OP_FFN)
        return "unknown operator";
    const members m = members_of(op, slice);
    const char *why = NULL;
    for (size_t i = 0; i < m.n && !why; i++)
        why = d->inner->ops->refuses(d->inner, m.ops[i], &m.slices[i]);
    return why;
}

static void sim_release(ht_device *device, ht_task *task) {
    sim_device *d = (sim_device *)device;
    if (!task)
        return;
    while (task->n_inner)
        d->inner->ops->release(d->inner, task->inner[--task->n_inner]);
    d->graph_bytes -= task->graph_bytes;
    free(task);
}

static ht_status reserve_hidden(sim_device *d, ht_error *error) {
    if (d->hidden)
        return HT_OK;
    d->hidden_bytes = ht_round_up(d->max_tokens * 3 * (size_t)d->hparams.feed_forward * sizeof(float), 4096);
    d->hidden = ht_pages_alloc(d->hidden_bytes);
    return d->hidden ? HT_OK : ht_fail(error, HT_ERROR_MEMORY, "%s: no memory for hidden values", d->caps.name);
}

static ht_status prepare_inner(sim_device *d, ht_task *task, ht_error *error) {
    const members m = members_of(task->op, &task->slice);
    ht_status status = task->op->kind == HT_OP_FFN ? reserve_hidden(d, error) : HT_OK;
    while (task->n_inner < m.n && !status) {
        status = d->inner->ops->prepare(d->inner, m.ops[task->n_inner], &m.slices[task->n_inner],
                                        &task->inner[task->n_inner], error);
        task->n_inner += !status;
    }
    return status;
}

/* What one more piece costs is what a graph for next to nothing takes, in tokens of a long one. */
static void know_lengths(const sim_device *d, ht_task *task) {
    const size_t few = 1, many = 1024;
    const double least = ht_law_work(&d->law, task->op, &task->slice, few, 0).seconds,
                 most = ht_law_work(&d->law, task->op, &task->slice, many, 0).seconds;
    task->lengths = (ht_lengths){.at = d->lengths, .n = d->caps.n_lengths};
    if (most > least)
        task->lengths.piece = (size_t)(least * (double)(many - few) / (most - least));
}

static ht_status sim_prepare(ht_device *device, const ht_op *op, const ht_slice *slice, ht_task **out,
                             ht_error *error) {
    sim_device *d = (sim_device *)device;
    const char *why = sim_refuses(device, op, slice);
    if (why)
        return ht_fail(error, HT_ERROR_UNSUPPORTED, "%s: %s: %s", d->caps.name, op->name, why);
    ht_task *task;
    ht_status status = ht_alloc((void **)&task, 1, sizeof *task, op->name, error);
    if (status)
        return status;
    task->device = d;
    task->op = op;
    task->slice = *slice;
    ht_law_weights(op, slice, &task->weights, &task->weight_bytes);
    if (is_static(d))
        know_lengths(d, task);
    if (d->computes)
        status = prepare_inner(d, task, error);
    if (status)
        sim_release(device, task);
    else
        *out = task;
    return status;
}

/* What the SoC would hold, not this machine. */
static size_t sim_task_bytes(const ht_task *task) {
    return is_static(task->device) ? task->graph_bytes : (size_t)task->weight_bytes;
}

/* ---- graphs --------------------------------------------------------------------------------------------------------- */

static double build_seconds(const sim_device *d, const ht_task *task) {
    return figure(d, HT_SOC_BUILD) + task->weights * figure(d, HT_SOC_BUILD_PER_WEIGHT);
}

/* Graphs are built one after the other, whoever asked for them. The weights are there once for all lengths, and activations are
 * the pool's, which all graphs share. */
static ht_status want_graph(sim_device *d, ht_task *task, size_t i, ht_error *error) {
    if (task->ready[i] > 0)
        return HT_OK;
    const uint64_t bytes = task->graph_bytes ? 0 : (uint64_t)task->weight_bytes;
    if (d->graph_bytes + bytes > d->caps.graph_bytes)
        return ht_fail(error, HT_ERROR_MEMORY, "%s: %s: no room for a graph of %d tokens: %llu MiB are in use of %llu",
                       d->caps.name, task->op->name, d->lengths[i], (unsigned long long)d->graph_bytes >> 20,
                       (unsigned long long)d->caps.graph_bytes >> 20);
    d->builder = fmax(d->builder, ht_clock_now(sim_clock(&d->base))) + build_seconds(d, task);
    task->ready[i] = d->builder;
    task->graph_bytes += bytes;
    d->graph_bytes += bytes;
    return HT_OK;
}

static bool is_there(const void *context, size_t i) {
    const ht_task *task = context;
    return task->ready[i] > 0 && task->ready[i] <= ht_clock_now(ht_machine_clock(task->device->machine));
}

static ht_status await_graph(sim_device *d, ht_task *task, size_t i, ht_error *error) {
    ht_clock *clock = ht_machine_clock(d->machine);
    ht_status status = want_graph(d, task, i, error);
    if (!status)
        ht_clock_charge(clock, task->ready[i] - ht_clock_now(clock));
    return status;
}

/* Each of the pieces that a submit cuts `tokens` into. */
static ht_status for_pieces(sim_device *d, ht_task *task, size_t tokens,
                            ht_status (*f)(sim_device *, ht_task *, size_t, ht_error *), ht_error *error) {
    ht_status status = HT_OK;
    while (tokens > 0 && is_static(d) && !status) {
        const size_t i = ht_choose_length(&task->lengths, tokens);
        status = f(d, task, i, error);
        tokens -= ht_min_size(tokens, (size_t)d->lengths[i]);
    }
    return status;
}

static ht_status sim_warm(ht_device *device, ht_task *task, size_t tokens, ht_error *error) {
    sim_device *d = (sim_device *)device;
    return d->online ? HT_OK : for_pieces(d, task, tokens, want_graph, error);
}

static ht_status sim_settle(ht_device *device, ht_task *task, size_t tokens, ht_error *error) {
    sim_device *d = (sim_device *)device;
    return d->online ? HT_OK : for_pieces(d, task, tokens, await_graph, error);
}

static ht_status need_graph(sim_device *d, ht_task *task, size_t i, ht_error *error) {
    return is_there(task, i) ? HT_OK : HT_ERROR_UNSUPPORTED;
}

static bool sim_ready(ht_device *device, ht_task *task, size_t tokens) {
    sim_device *d = (sim_device *)device;
    return d->online || for_pieces(d, task, tokens, need_graph, NULL) == HT_OK;
}

/* ---- submitting ----------------------------------------------------------------------------------------------------- */

/* All numbers, at once: what a device of this SoC computes later it computes from the same values. */
static ht_status compute(sim_device *d, ht_task *task, const ht_binding *binding, ht_error *error) {
    ht_view slots[HT_MAX_SLOTS];
    ht_binding own = *binding;
    ht_ticket ticket;
    ht_status status = HT_OK;
    if (task->n_inner > 1) {
        const size_t features = (size_t)d->hparams.feed_forward;
        const ht_op *inner = task->op->members;
        slots[task->op->in] = binding->slots[task->op->in];
        slots[task->op->out] = binding->slots[task->op->out];
        slots[inner[0].out] = (ht_view){d->hidden, 2 * features};
        slots[inner[1].out] = (ht_view){d->hidden + d->max_tokens * 2 * features, features};
        own.slots = slots;
    }
    for (size_t i = 0; i < task->n_inner && !status; i++)
        status = d->inner->ops->submit(d->inner, task->inner[i], &own, NULL, 0, &ticket, error);
    return status;
}

static ht_status add_command(sim_device *d, const ht_work *work, ht_ticket *ticket, ht_error *error) {
    *ticket = ht_machine_submit(d->machine, d->index, work);
    return *ticket ? HT_OK : ht_fail(error, HT_ERROR_MEMORY, "%s: no memory for its queue", d->caps.name);
}

/* A graph for each piece; padding is computed, too. */
static ht_status add_graphs(sim_device *d, ht_task *task, const ht_binding *binding, ht_ticket *ticket,
                            ht_error *error) {
    ht_status status = HT_OK;
    for (size_t done = 0; done < binding->tokens && !status;) {
        const size_t left = binding->tokens - done;
        size_t i, length;
        if (d->online) {
            ht_clock_charge(ht_machine_clock(d->machine), build_seconds(d, task));
            length = left;
        } else {
            if (!ht_find_length(&task->lengths, left, is_there, task, &i))
                status = await_graph(d, task, i, error);
            length = (size_t)d->lengths[i];
        }
        const ht_work work = ht_law_work(&d->law, task->op, &task->slice, length, binding->position + done);
        if (!status)
            status = add_command(d, &work, ticket, error);
        done += ht_min_size(left, length);
    }
    return status;
}

/* What the host copies to a processor that shares no memory with it: each slot a copy's fixed time. */
static void copy_in(sim_device *d, const ht_op *op, const ht_binding *b) {
    const ht_slot in[] = {op->in, op->kind == HT_OP_NORM ? op->aux : HT_SLOT_NONE};
    for (size_t i = 0; i < HT_COUNT(in) && d->copied; i++)
        if (in[i] != HT_SLOT_NONE && !(b->resident >> in[i] & 1))
            ht_clock_charge(ht_machine_clock(d->machine), figure(d, HT_SOC_COPY));
    for (int i = 0; i < op->n_more && d->copied; i++) /* others' by nature */
        ht_clock_charge(ht_machine_clock(d->machine), figure(d, HT_SOC_COPY));
}

/* And from it, once the command has ended. */
static ht_status copy_out(sim_device *d, const ht_op *op, const ht_binding *b, ht_ticket ticket, ht_error *error) {
    if (!d->copied || b->kept >> op->out & 1)
        return HT_OK;
    ht_status status = ht_machine_wait(d->machine, d->index, ticket, HT_SYNC_AUTO, error);
    ht_clock_charge(ht_machine_clock(d->machine), figure(d, HT_SOC_COPY));
    return status;
}

static ht_status sim_submit(ht_device *device, ht_task *task, const ht_binding *binding, const ht_dependency *after,
                            size_t n_after, ht_ticket *ticket, ht_error *error) {
    sim_device *d = (sim_device *)device;
    if (binding->tokens > d->max_tokens)
        return ht_fail(error, HT_ERROR_ARGUMENT, "%s: %zu tokens at once, opened for %zu", d->caps.name,
                       binding->tokens, d->max_tokens);
    if (binding->part && is_static(d))
        return ht_fail(error, HT_ERROR_ARGUMENT, "%s: %s: a graph computes its whole slice, not a part", d->caps.name,
                       task->op->name);
    const char *why = binding->part ? sim_refuses(device, task->op, binding->part) : NULL;
    if (why)
        return ht_fail(error, HT_ERROR_ARGUMENT, "%s: part of %s: %s", d->caps.name, task->op->name, why);
    ht_status status = ht_wait_all(device, after, n_after, binding->sync, error);
    if (!status)
        status = compute(d, task, binding, error);
    if (status)
        return status;
    copy_in(d, task->op, binding);
    if (is_static(d)) {
        status = add_graphs(d, task, binding, ticket, error);
    } else {
        const ht_work work = ht_law_work(&d->law, task->op, binding->part ? binding->part : &task->slice,
                                         binding->tokens, binding->position);
        status = add_command(d, &work, ticket, error);
    }
    if (!status && d->caps.runs_in_caller)
        status = ht_machine_wait(d->machine, d->index, *ticket, HT_SYNC_AUTO, error);
    return status ? status : copy_out(d, task->op, binding, *ticket, error);
}

static ht_ticket sim_completed(ht_device *device) {
    const sim_device *d = (sim_device *)device;
    return ht_machine_completed(d->machine, d->index);
}

static ht_status sim_wait(ht_device *device, ht_ticket ticket, ht_sync sync, ht_error *error) {
    sim_device *d = (sim_device *)device;
    return ht_machine_wait(d->machine, d->index, ticket, sync, error);
}

static ht_status sim_import(ht_device *device, void *host, size_t bytes, ht_error *error) {
    return HT_OK;
}

const ht_device_ops ht_device_sim = {
    .prefix = "sim",
    .slashes = true,
    .list = sim_list,
    .members = sim_members,
    .open = sim_open,
    .close = sim_close,
    .caps = sim_caps,
    .clock = sim_clock,
    .refuses = sim_refuses,
    .refuses_part = sim_refuses,
    .import = sim_import,
    .prepare = sim_prepare,
    .release = sim_release,
    .task_bytes = sim_task_bytes,
    .warm = sim_warm,
    .settle = sim_settle,
    .ready = sim_ready,
    .submit = sim_submit,
    .completed = sim_completed,
    .wait = sim_wait,
};
