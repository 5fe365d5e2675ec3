/* How often a model's experts are chosen. Plans cut experts where the work is halved, which is not where their number
 * is: routers like some better than others, and those of every layer others. What tokens choose is counted where a
 * router's choice lies in the host's memory, kept as an average that forgets, and goes into plans when it has moved. */
#include "pass/pass.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define REMEMBERED 1024 /* tokens that the average stands for: older ones are forgotten */
#define AT_ONCE 8       /* so many are put into it together */
#define MOVED 0.05      /* of all that is chosen, on one side of some unit: plans are worth making anew */
/* Standard deviations or so of what chance does to as many choices: one layer in a thousand has more (Kolmogorov's
 * limit). */
#define CHANCE 2.0

/* The operators of a block's axis of experts: the one that chooses, and how finely the axis divides. */
static const ht_op *router_of(const ht_model *model, const ht_block *block) {
    for (size_t i = 0; i < block->n; i++)
        if (model->ops[block->first + i].kind == HT_OP_ROUTE)
            return &model->ops[block->first + i];
    return NULL;
}

/* The number among the model's axes of the one that divides the block's experts; n_axes: nothing does. */
static size_t axis_of(const ht_passes *passes, const ht_block *block) {
    const ht_model *model = passes->set->model;
    for (size_t a = block->first_axis; a < block->first_axis + block->n_axes; a++)
        if (model->axes[a].kind == HT_AXIS_EXPERTS && passes->units[a].of > 1)
            return a;
    return model->n_axes;
}

/* What units [0, u) of `of` have if all experts have as much. */
static void share_evenly(ht_load *load) {
    for (size_t e = 0; e < load->experts; e++)
        load->share[e] = 1 / (float)load->experts;
    for (size_t u = 0; u <= load->units; u++)
        load->before[u] = (float)ht_min_size(u * load->grain, load->experts) / (float)load->experts;
}

static ht_status make_load(ht_passes *passes, size_t block, size_t axis, const ht_op *router, ht_error *error) {
    ht_loads *loads = &passes->loads;
    ht_load *load = &loads->each[loads->n];
    const size_t lanes = passes->set->n_lanes, experts = (size_t)router->experts, units = passes->units[axis].of;
    *load = (ht_load){.router = router, .experts = experts, .units = units, .grain = passes->units[axis].grain};
    ht_status status = ht_alloc((void **)&load->share, experts + 2 * (units + 1), sizeof *load->share, "loads", error);
    if (!status)
        status = ht_alloc((void **)&load->counts, lanes * experts, sizeof *load->counts, "loads", error);
    if (status) {
        free(load->share);
        return status;
    }
    load->before = load->share + experts;
    load->now = load->before + units + 1;
    loads->plans[loads->n] = (ht_block_load){block, load->before};
    loads->of[block] = load;
    loads->n++;
    share_evenly(load);
    return HT_OK;
}

ht_status ht_passes_make_loads(ht_passes *passes, ht_error *error) {
    const ht_model *model = passes->set->model;
    ht_status status = ht_alloc((void **)&passes->loads.of, model->n_blocks, sizeof *passes->loads.of, "loads", error);
    for (size_t k = 0; k < model->n_blocks && !status && passes->loads.n < HT_MAX_LOADS; k++) {
        const ht_op *router = router_of(model, &model->blocks[k]);
        const size_t axis = axis_of(passes, &model->blocks[k]);
        if (router && axis < model->n_axes)
            status = make_load(passes, k, axis, router, error);
    }
    return status;
}

void ht_passes_free_loads(ht_passes *passes) {
    ht_loads *loads = &passes->loads;
    for (size_t k = 0; k < loads->n; k++) {
        free(loads->each[k].share);
        free(loads->each[k].counts);
    }
    free(loads->of);
    *loads = (ht_loads){0};
}

size_t ht_passes_block_load(const ht_passes *passes, size_t block) {
    const ht_load *load = passes->loads.of ? passes->loads.of[block] : NULL;
    return load ? (size_t)(load - passes->loads.each) : HT_MAX_LOADS;
}

double ht_passes_load_share(const ht_passes *passes, size_t block, size_t begin, size_t end, size_t of) {
    const size_t number = ht_passes_block_load(passes, block);
    if (number == HT_MAX_LOADS)
        return (double)(end - begin) / (double)of;
    const ht_load *load = &passes->loads.each[number];
    return (double)(load->before[(end + load->grain - 1) / load->grain] - load->before[begin / load->grain]);
}

/* ---- counting
 * ------------------------------------------------------------------------------------------------------------ */

void ht_passes_count(ht_passes *passes, const ht_lane *lane, const ht_step *step, const ht_binding *binding) {
    const ht_load *load = step->op->kind == HT_OP_ROUTE ? passes->loads.of[step->op->block] : NULL;
    if (!load || !ht_lanes_caps(passes->set, (size_t)step->device)->runs_in_caller)
        return;
    const ht_view *chosen = &binding->slots[step->op->out];
    uint32_t *counts = load->counts + (size_t)(lane - passes->set->lanes) * load->experts;
    for (size_t t = 0; t < binding->tokens; t++) {
        const float *weights = (const float *)chosen->data + t * chosen->stride;
        for (size_t e = 0; e < load->experts; e++)
            counts[e] += weights[e] != 0;
    }
}

/* ---- learning
 * ------------------------------------------------------------------------------------------------------------ */

/* Puts what lanes have counted of so many tokens into the average: `weight` of it is new. */
static void take_counts(ht_load *load, size_t n_lanes, double weight) {
    double all = 0;
    for (size_t i = 0; i < n_lanes * load->experts; i++)
        all += load->counts[i];
    for (size_t e = 0; e < load->experts && all > 0; e++) {
        double count = 0;
        for (size_t l = 0; l < n_lanes; l++)
            count += load->counts[l * load->experts + e];
        load->share[e] += (float)(weight * (count / all - load->share[e]));
    }
    memset(load->counts, 0, n_lanes * load->experts * sizeof *load->counts);
}

/* How much more or less lies on one side of some unit than plans believe. */
static double distance(ht_load *load) {
    double sum = 0, most = 0;
    for (size_t e = 0, u = 0; u <= load->units; u++) {
        load->now[u] = (float)fmin(sum, 1);
        most = fmax(most, fabs((double)load->now[u] - load->before[u]));
        for (; e < load->experts && e < (u + 1) * load->grain; e++)
            sum += load->share[e];
    }
    load->now[load->units] = 1;
    return most;
}

void ht_passes_learn_loads(ht_passes *passes, size_t tokens) {
    ht_loads *loads = &passes->loads;
    bool moved = false;
    loads->counted += tokens;
    if (loads->counted < AT_ONCE)
        return;
    loads->seen = fmin(loads->seen + (double)loads->counted, REMEMBERED);
    const double weight = fmin((double)loads->counted / loads->seen, 1);
    for (size_t k = 0; k < loads->n; k++) {
        ht_load *load = &loads->each[k];
        take_counts(load, passes->set->n_lanes, weight);
        const double used = load->router->route.used ? load->router->route.used : 1;
        load->chance = CHANCE / sqrt(loads->seen * used);
        load->away = distance(load);
        moved |= load->away > fmax(MOVED, load->chance);
    }
    loads->counted = 0;
    if (!moved)
        return;
    for (size_t k = 0; k < loads->n; k++) { /* of the others, too, all that is more than chance */
        ht_load *load = &loads->each[k];
        if (load->away > load->chance)
            memcpy(load->before, load->now, (load->units + 1) * sizeof *load->before);
    }
    loads->moves++;
    ht_log(HT_LOG_DEBUG, "experts are chosen otherwise than plans have it: %zu", loads->moves);
}
