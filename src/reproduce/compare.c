#include "reproduce/compare.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DECODED 16   /* tokens of a decode rate */
#define FEW 0.03     /* a share of the work below this is not named */
#define MATTERS 0.02 /* a gain below this is none */

/* ---- what is run ------------------------------------------------------------------------------------------------------------ */

#define ALONE .strategy = HT_STRATEGY_SINGLE, .own_memory = true, .explain = true
#define AUTO .strategy = HT_STRATEGY_AUTO, .own_memory = true, .explain = true

static const ht_setup ways[HT_WAYS] = {
    [HT_WAY_GPU] = {.name = "GPU", .gpu = "", ALONE},
    [HT_WAY_NPU] = {.name = "NPU with CPU", .npu = "", .cpu = "", ALONE},
    [HT_WAY_CPU] = {.name = "CPU", .cpu = "", ALONE},
    [HT_WAY_PAIR] = {.name = "auto, GPU and NPU", .gpu = "", .npu = "", AUTO},
    [HT_WAY_AUTO] = {.name = "auto", .gpu = "", .npu = "", .cpu = "", AUTO},
};

#define TERM(text, c) \
    .name = text, .gpu = "", .npu = "", .strategy = HT_STRATEGY_TENSOR, .cuts = c, .own_memory = true, .may_stay = true
#define PAPER "row,sequence,hybrid,layer"

/* Each has all that those before it have. */
static const ht_setup terms[HT_TERMS] = {
    {TERM("slow joins", PAPER), .sync = HT_SYNC_FINISH, .blind = true, .by_operator = true},
    {TERM("fast joins", PAPER), .blind = true, .by_operator = true, .explain = true},
    {TERM("bandwidth", PAPER), .by_operator = true},
    {TERM("whole layer", PAPER)},
    {TERM("feature cut", PAPER ",feature")},
    {TERM("head cut", PAPER ",feature,head")},
    {TERM("causal cut", PAPER ",feature,head,causal")},
    {TERM("CPU", PAPER ",feature,head,causal"), .cpu = ""},
};
enum { PAPERS = 1 }; /* single operators, fast joins */

static const struct {
    const char *name;
    int prompt, gen;
    bool terms;
} phases[] = {{"prefill 256", 256, 0, true}, {"prefill 1024", 1024, 0, false}, {"decode", 0, DECODED, true}};

static ht_way fastest(const ht_compared *cell, ht_way from, ht_way to) {
    ht_way best = HT_WAYS;
    for (ht_way w = from; w < to; w++)
        if (isfinite(cell->ways[w].tps) && (best == HT_WAYS || cell->ways[w].tps > cell->ways[best].tps))
            best = w;
    return best;
}

static ht_status run_cell(ht_reproduction *r, ht_compared *cell, ht_model *model, bool with_terms) {
    ht_status status = HT_OK;
    for (size_t i = 0; i < HT_WAYS && !status; i++)
        status = ht_reproduce_run(r, &ways[i], model, cell->prompt, cell->gen, &cell->ways[i]);
    for (size_t i = 0; i < HT_TERMS && !status; i++) {
        cell->terms[i].tps = NAN;
        if (with_terms)
            status = ht_reproduce_run(r, &terms[i], model, cell->prompt, cell->gen, &cell->terms[i]);
    }
    cell->roomy = NAN;
    if (!status && r->npu) {
        ht_setup roomy = ways[HT_WAY_AUTO];
        ht_outcome outcome;
        roomy.own_memory = false;
        status = ht_reproduce_run(r, &roomy, model, cell->prompt, cell->gen, &outcome);
        cell->roomy = outcome.tps;
    }
    cell->alone = fastest(cell, HT_WAY_GPU, HT_WAY_PAIR);
    /* several devices only where they are worth it, and all of them rather than two that are as quick */
    cell->best = cell->alone;
    for (ht_way w = HT_WAY_AUTO; w >= HT_WAY_PAIR; w--)
        if (cell->best == HT_WAYS || cell->ways[w].tps > 1.001 * cell->ways[cell->best].tps)
            cell->best = w;
    return status;
}

ht_status ht_compare_chip(ht_reproduction *r, ht_comparison *c, const char *name, size_t done, size_t all,
                          ht_progress_function progress, void *user) {
    ht_status status = HT_OK;
    if (c->n_socs == HT_COUNT(c->socs))
        return ht_fail(r->error, HT_ERROR_ARGUMENT, "more than %zu chips", HT_COUNT(c->socs));
    status = ht_soc_load(name, &c->socs[c->n_socs], r->error);
    if (status)
        return status;
    ht_reproduction_of(r, c->socs[c->n_socs++]);
    const size_t most = HT_COUNT(r->models);
    for (size_t m = 0; m < most && r->models[m] && !status; m++) {
        const double part = (double)m / (double)most;
        if (progress && !progress(r->soc->name, (double)done + part, (double)all, user))
            return ht_fail(r->error, HT_ERROR_CANCELLED, "cancelled");
        for (size_t p = 0; p < HT_COUNT(phases) && !status; p++) {
            status = ht_grow((void **)&c->cells, &c->capacity, c->n_cells + 1, sizeof *c->cells, "the chips", r->error);
            if (status)
                break;
            ht_compared *cell = &c->cells[c->n_cells++];
            *cell =
                (ht_compared){.soc = r->soc, .model = r->models[m], .prompt = phases[p].prompt, .gen = phases[p].gen};
            status = run_cell(r, cell, r->models[m], phases[p].terms);
        }
    }
    return status;
}

void ht_comparison_clear(ht_comparison *c) {
    for (size_t i = 0; i < c->n_socs; i++)
        ht_soc_free(c->socs[i]);
    free(c->cells);
    *c = (ht_comparison){.n_socs = 0};
}

/* ---- in words --------------------------------------------------------------------------------------------------------------- */

/* "NPU"; of others as the description has it. */
static const char *processor_title(const ht_soc_processor *p) {
    static const struct { const char *name, *title; } titles[] = {{"gpu", "GPU"}, {"npu", "NPU"}, {"cpu", "CPU"}};
    for (size_t i = 0; i < HT_COUNT(titles); i++)
        if (!strcmp(titles[i].name, p->name))
            return titles[i].title;
    return p->name;
}

typedef struct named {
    char name[64];
    double share;
} named;

static int by_share(const void *a, const void *b) {
    const double x = ((const named *)a)->share, y = ((const named *)b)->share;
    return (x < y) - (x > y);
}

/* Adds "NAME 62%" of those that are large enough, the largest first, and at most so many. Returns how many it were. */
static size_t join_named(named *list, size_t n, double least, size_t most, char *text, size_t capacity) {
    size_t at = strlen(text), used = 0;
    qsort(list, n, sizeof *list, by_share);
    for (; used < n && used < most && (used == 0 || list[used].share >= least) && at < capacity; used++)
        at += (size_t)snprintf(text + at, capacity - at, "%s%s %.0f%%", used ? ", " : "", list[used].name,
                               100 * list[used].share);
    return used;
}

void ht_limits_text(const ht_soc *soc, const ht_spent *spent, size_t most, char text[160]) {
    named list[3 + 2 * HT_SOC_MAX_PROCESSORS];
    size_t n = 3;
    memset(list, 0, sizeof list);
    snprintf(list[0].name, sizeof list[0].name, "memory");
    snprintf(list[1].name, sizeof list[1].name, "starting operators");
    snprintf(list[2].name, sizeof list[2].name, "joins and launches");
    list[2].share = spent->waiting;
    for (size_t i = 0; i < soc->n_processors; i++) {
        const ht_soc_processor *p = &soc->processors[i];
        const bool npu = p->kind == HT_DEVICE_NPU;
        list[0].share += spent->parts[i][HT_PART_MEMORY];
        list[1].share += spent->parts[i][HT_PART_FIXED];
        snprintf(list[n].name, sizeof list[n].name, "%s's %s", processor_title(p), npu ? "matrix unit" : "arithmetic");
        list[n++].share = spent->parts[i][HT_PART_MATRIX];
        snprintf(list[n].name, sizeof list[n].name, "%s's vector unit", processor_title(p));
        list[n++].share = spent->parts[i][HT_PART_VECTOR];
    }
    *text = 0;
    join_named(list, n, 0.15, most, text, 160);
}

/* Who computes how much, and in which cuts. */
static void plan_text(const ht_soc *soc, const ht_outcome *o, char text[160]) {
    named list[HT_SOC_MAX_PROCESSORS];
    memset(list, 0, sizeof list);
    for (size_t i = 0; i < soc->n_processors; i++) {
        snprintf(list[i].name, sizeof list[i].name, "%s", processor_title(&soc->processors[i]));
        list[i].share = o->shares[i];
    }
    *text = 0;
    const size_t used = join_named(list, soc->n_processors, FEW, HT_SOC_MAX_PROCESSORS, text, 160);
    const size_t at = strlen(text);
    if (used == 1)
        snprintf(text, 160, "%s alone", list[0].name);
    else if (*o->cuts)
        snprintf(text + at, 160 - at, ": %s", o->cuts);
    else if (o->lanes > 1) /* what passes took changed the plan while it ran */
        snprintf(text + at, 160 - at, ": whole passes, by turns");
    else
        snprintf(text + at, 160 - at, ": whole operators, by turns");
}

/* "NPU + GPU": who computes at all, the most first. */
static void devices_text(const ht_soc *soc, const ht_outcome *o, char text[64]) {
    double left[HT_SOC_MAX_PROCESSORS];
    size_t at = 0;
    memcpy(left, o->shares, sizeof left);
    *text = 0;
    for (size_t k = 0; k < soc->n_processors && at < 64; k++) {
        size_t most = 0;
        for (size_t i = 0; i < soc->n_processors; i++)
            if (left[i] > left[most])
                most = i;
        if (left[most] < FEW)
            return;
        at += (size_t)snprintf(text + at, 64 - at, "%s%s", k ? " + " : "", processor_title(&soc->processors[most]));
        left[most] = 0;
    }
}

static const char *model_title(const ht_model *model) {
    const char *path = ht_model_get_info(model)->path, *colon = strchr(path, ':'), *slash = strrchr(path, '/');
    return colon ? colon + 1 : slash ? slash + 1 : path;
}

static const char *phase_title(const ht_compared *cell) {
    for (size_t p = 0; p < HT_COUNT(phases); p++)
        if (phases[p].prompt == cell->prompt)
            return phases[p].name;
    return "";
}

/* What limits the best plan: what its time went to, and graphs for which there is no room. */
static void cell_limits(const ht_compared *cell, size_t most, char text[192]) {
    char spent[160];
    const ht_outcome *best = &cell->ways[cell->best];
    const double more = cell->roomy / best->tps - 1;
    ht_limits_text(cell->soc, &best->spent, most, spent);
    if (more > MATTERS)
        snprintf(text, 192, "graph memory (%+.0f%% with room for all), %.140s", 100 * more, spent);
    else
        snprintf(text, 192, "%s", spent);
}

/* ---- chips, for who buys one -------------------------------------------------------------------------------------------------- */

/* The cells of one chip and model, phase by phase. */
static const ht_compared *cells_of(const ht_comparison *c, size_t soc, const ht_model *model) {
    for (size_t i = 0; i < c->n_cells; i++)
        if (c->cells[i].soc == c->socs[soc] && c->cells[i].model == model)
            return &c->cells[i];
    return NULL;
}

static double best_rate(const ht_compared *cell) {
    return cell->best == HT_WAYS ? NAN : cell->ways[cell->best].tps;
}

static ht_status put_speeds(ht_reproduction *r, const ht_comparison *c, const ht_model *model) {
    char id[40], title[120];
    snprintf(id, sizeof id, "chips-%.30s", model_title(model));
    snprintf(title, sizeof title, "%.60s: tokens a second, and joules of a token in decode", model_title(model));
    ht_sheet *sheet =
        ht_sheet_add(r, id, title,
                     "chip,prefill 256,prefill 1024,decode,times alone,J a token,J from,J to,prefill on,decode on,"
                     "limits prefill,limits decode",
                     HT_CHART_NONE, "", "");
    ht_status status = HT_OK;
    for (size_t s = 0; s < c->n_socs && !status; s++) {
        const ht_compared *prefill = cells_of(c, s, model), *decode = prefill + HT_COUNT(phases) - 1;
        char devices[2][64], limits[2][192];
        if (prefill->best == HT_WAYS || decode->best == HT_WAYS)
            continue;
        const ht_outcome *o = &decode->ways[decode->best];
        devices_text(prefill->soc, &prefill->ways[prefill->best], devices[0]);
        devices_text(decode->soc, o, devices[1]);
        cell_limits(prefill, 2, limits[0]);
        cell_limits(decode, 1, limits[1]);
        status = ht_sheet_row(r, sheet, "sdddddddssss", c->socs[s]->name, best_rate(prefill), best_rate(prefill + 1),
                              o->tps, o->tps / decode->ways[decode->alone].tps, o->joules.value, o->joules.low,
                              o->joules.high, devices[0], devices[1], limits[0], limits[1]);
    }
    return status;
}

static ht_status put_plans(ht_reproduction *r, const ht_comparison *c, const ht_model *model) {
    char id[40], title[120];
    snprintf(id, sizeof id, "plans-%.30s", model_title(model));
    snprintf(title, sizeof title, "%.80s: the plans", model_title(model));
    ht_sheet *sheet =
        ht_sheet_add(r, id, title,
                     "chip,phase,best plan,of,tokens a second,limited by,best alone,its tokens a second,times,J a "
                     "token,J from,J to,remark",
                     HT_CHART_NONE, "", "");
    ht_status status = HT_OK;
    if (sheet)
        sheet->folded = true;
    for (size_t i = 0; i < c->n_cells && !status; i++) {
        const ht_compared *cell = &c->cells[i];
        char plan[160], limits[192], remark[120] = "";
        if (cell->model != model || cell->best == HT_WAYS)
            continue;
        const ht_outcome *o = &cell->ways[cell->best], *chosen = &cell->ways[HT_WAY_AUTO];
        plan_text(cell->soc, o, plan);
        cell_limits(cell, 3, limits);
        if (o->tps > (1 + MATTERS) * chosen->tps)
            snprintf(remark, sizeof remark, "the planner with all devices has %.4g, %.0f%% less", chosen->tps,
                     100 * (1 - chosen->tps / o->tps));
        status =
            ht_sheet_row(r, sheet, "ssssdssddddds", cell->soc->name, phase_title(cell), plan, ways[cell->best].name,
                         o->tps, limits, ways[cell->alone].name, cell->ways[cell->alone].tps,
                         o->tps / cell->ways[cell->alone].tps, o->joules.value, o->joules.low, o->joules.high, remark);
    }
    return status;
}

ht_status ht_reproduce_chips(ht_reproduction *r) {
    const ht_comparison *c = r->comparison;
    ht_status status = HT_OK;
    size_t together = 0, missed = 0, known = 0;
    for (size_t m = 0; m < HT_COUNT(r->models) && r->models[m] && !status; m++)
        status = put_speeds(r, c, r->models[m]);
    for (size_t m = 0; m < HT_COUNT(r->models) && r->models[m] && !status; m++)
        status = put_plans(r, c, r->models[m]);
    for (size_t i = 0; i < c->n_cells; i++) {
        const ht_compared *cell = &c->cells[i];
        if (cell->best == HT_WAYS)
            continue;
        known++;
        together += best_rate(cell) > (1 + MATTERS) * cell->ways[cell->alone].tps;
        missed += best_rate(cell) > (1 + MATTERS) * cell->ways[HT_WAY_AUTO].tps;
    }
    ht_headline_add(r, "chips, models and phases in which several processors beat the best one", "%zu of %zu", together,
                    known);
    ht_headline_add(r, "in which the planner's choice on all devices was not the best", "%zu of %zu", missed, known);
    return status;
}

/* ---- planners ----------------------------------------------------------------------------------------------------------------- */

/* Of a ratio, to a tenth. */
static double percent(double ratio) {
    return round(1000 * (ratio - 1)) / 10 + 0.0; /* no -0 */
}

/* What a term brought over the one before it; the last one, HT_TERMS: what strategy auto makes of all. */
static double term_gain(const ht_compared *cell, size_t term) {
    const double tps = term == HT_TERMS ? cell->ways[HT_WAY_AUTO].tps : cell->terms[term].tps;
    return tps / cell->terms[term - 1].tps - 1;
}

static double step_percent(const ht_compared *cell, size_t term) {
    return percent(1 + term_gain(cell, term));
}

/* The terms behind the paper's that changed something, largest first. */
static void changes_text(const ht_compared *cell, char *text, size_t capacity) {
    double left[HT_TERMS + 1] = {0};
    size_t at = 0;
    for (size_t i = PAPERS + 1; i <= HT_TERMS; i++)
        left[i] = isfinite(term_gain(cell, i)) ? term_gain(cell, i) : 0;
    *text = 0;
    for (size_t k = 0; k < 3; k++) {
        size_t most = 0;
        for (size_t i = PAPERS + 1; i <= HT_TERMS; i++)
            if (fabs(left[i]) > fabs(left[most]))
                most = i;
        if (fabs(left[most]) < MATTERS || at >= capacity)
            return;
        at += (size_t)snprintf(text + at, capacity - at, "%s%s %+.0f%%", at ? ", " : "",
                               most == HT_TERMS ? "auto's choice" : terms[most].name, 100 * left[most]);
        left[most] = 0;
    }
}

/* Where a gain is from; where there is none, why: what the paper's plan waits is all that fewer joins could save, and what
 * memory takes of ours is full already. */
static void why_text(const ht_compared *cell, double gain, char text[192]) {
    const ht_outcome *ours = &cell->ways[HT_WAY_AUTO], *paper = &cell->terms[PAPERS];
    char changes[96], limits[160];
    changes_text(cell, changes, sizeof changes);
    ht_limits_text(cell->soc, &ours->spent, 2, limits);
    if (gain >= MATTERS)
        snprintf(text, 192, "%s", *changes ? changes : "several small ones");
    else if (*changes)
        snprintf(text, 192, "%s%s; time: %.80s", gain <= -MATTERS ? "lost: " : "they cancel: ", changes, limits);
    else if (!*ours->cuts)
        snprintf(text, 192, "one processor is as fast as any cut; time: %.80s", limits);
    else if (!*paper->cuts)
        snprintf(text, 192, "sharing gains no more than it costs (waiting: %.0f%%); time: %.80s",
                 100 * ours->spent.waiting, limits);
    else if (!strcmp(ours->cuts, paper->cuts))
        snprintf(text, 192, "the same cuts (%.60s); time: %.80s", ours->cuts, limits);
    else
        snprintf(text, 192, "%zu joins a layer, not %zu, but the paper's plan waits %.0f%% only; time: %.80s",
                 ours->joins, paper->joins, 100 * paper->spent.waiting, limits);
}

static ht_status put_gains(ht_reproduction *r, const ht_comparison *c, size_t phase, size_t *gains, size_t *all) {
    char id[40], title[120];
    snprintf(id, sizeof id, "planners-%s", phases[phase].gen ? "decode" : "prefill");
    snprintf(title, sizeof title, "Ours over the paper's planner, %s", phases[phase].name);
    ht_sheet *sheet = ht_sheet_add(r, id, title,
                                   "chip,model,the paper's,ours,gain %,fast joins %,bandwidth %,whole layer %,feature "
                                   "cut %,head cut %,causal cut %,CPU %,auto %,from or why not",
                                   HT_CHART_NONE, "", "");
    ht_status status = HT_OK;
    for (size_t i = phase; i < c->n_cells && !status; i += HT_COUNT(phases)) {
        const ht_compared *cell = &c->cells[i];
        const double paper = cell->terms[PAPERS].tps, ours = cell->ways[HT_WAY_AUTO].tps, gain = ours / paper - 1;
        char why[192];
        if (!isfinite(gain))
            continue;
        why_text(cell, gain, why);
        *gains += gain >= MATTERS;
        ++*all;
        status = ht_sheet_row(r, sheet, "ssddddddddddds", cell->soc->name, model_title(cell->model), paper, ours,
                              percent(ours / paper), step_percent(cell, 1), step_percent(cell, 2),
                              step_percent(cell, 3), step_percent(cell, 4), step_percent(cell, 5),
                              step_percent(cell, 6), step_percent(cell, 7), step_percent(cell, HT_TERMS), why);
    }
    return status;
}

ht_status ht_reproduce_planners(ht_reproduction *r) {
    ht_status status = HT_OK;
    for (size_t p = 0; p < HT_COUNT(phases) && !status; p++) {
        size_t gains = 0, all = 0;
        char text[160];
        if (!phases[p].terms)
            continue;
        status = put_gains(r, r->comparison, p, &gains, &all);
        snprintf(text, sizeof text, "chips and models whose %s gains over a planner as the paper's, its joins fast",
                 phases[p].name);
        ht_headline_add(r, text, "%zu of %zu", gains, all);
    }
    return status;
}
