/* Whole models on the simulated SoC, through the engine as any program would: an engine for each setup, ht_bench. */
#include "reproduce/reproduce.h"

#include "device/sim/sim.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define LONGEST 1024 /* prompt, computed at once */
#define DECODED 16   /* tokens of a decode rate */
#define FRAMES 60    /* a second, of a game */
#define OWN_CUTS NULL
#define PAPER_CUTS "row,sequence,hybrid,layer"
#define LAYER_CUTS "layer"

/* All that the NPU can hold: the model's weights are there more than once, and nothing else is. */
uint64_t ht_reproduce_graph_memory(const ht_reproduction *r) {
    const ht_soc_processor *npu = r->npu ? ht_soc_find(r->soc, r->npu) : NULL;
    return npu ? (uint64_t)npu->figures[HT_SOC_MEMORY].value : 0;
}

void ht_reproduction_of(ht_reproduction *r, const ht_soc *soc) {
    const ht_soc_processor *gpu = ht_soc_first(soc, HT_DEVICE_GPU), *npu = ht_soc_first(soc, HT_DEVICE_NPU),
                           *cpu = ht_soc_first(soc, HT_DEVICE_CPU);
    r->soc = soc;
    r->gpu = gpu ? gpu->name : NULL;
    r->npu = npu ? npu->name : NULL;
    r->cpu = cpu ? cpu->name : NULL;
}

/* ---- one run -------------------------------------------------------------------------------------------------------------- */

typedef struct account { /* of all processors so far */
    const ht_soc *soc;
    ht_machine_use use[HT_SOC_MAX_PROCESSORS];
    size_t frames, due;
} account;

static account take_account(const ht_engine *engine, const char *gpu) {
    size_t index;
    ht_machine *machine = ht_sim_machine(engine->set.devices[0], &index);
    account a = {.soc = ht_machine_soc(machine)};
    for (size_t i = 0; i < a.soc->n_processors; i++) {
        ht_machine_use_of(machine, i, &a.use[i]);
        if (gpu && !strcmp(a.soc->processors[i].name, gpu))
            a.frames = a.use[i].frames, a.due = a.use[i].frames_due;
    }
    return a;
}

/* What happened between two accounts, in which so many tokens were computed. */
static void settle(const account *before, const account *after, double tokens, bool decode, ht_outcome *outcome) {
    const double seconds = after->use[0].seconds - before->use[0].seconds;
    double work = 0;
    outcome->energy.seconds = seconds / tokens;
    outcome->spent.waiting = 1;
    for (size_t i = 0; i < after->soc->n_processors; i++) {
        const ht_machine_use *a = &before->use[i], *b = &after->use[i];
        outcome->energy.busy[i] = (b->busy - a->busy) / tokens;
        outcome->shares[i] = decode ? b->bytes - a->bytes : b->flops - a->flops;
        work += outcome->shares[i];
        for (int part = 0; part < HT_WORK_PARTS; part++) {
            outcome->spent.parts[i][part] = (b->parts[part] - a->parts[part]) / seconds;
            outcome->spent.waiting -= outcome->spent.parts[i][part];
        }
    }
    for (size_t i = 0; i < after->soc->n_processors && work > 0; i++)
        outcome->shares[i] /= work;
    outcome->joules = ht_energy_joules(after->soc, &outcome->energy);
    outcome->frames = (double)(after->frames - before->frames) / seconds;
    outcome->due = (double)(after->due - before->due) / seconds;
}

/* The cuts of a layer in the middle, each once. */
static ht_status name_cuts(ht_engine *engine, size_t tokens, ht_outcome *outcome, ht_error *error) {
    ht_plan_row *rows;
    ht_plan_times times;
    size_t n, at = 0;
    ht_status status = ht_engine_plan(engine, (int)tokens, &rows, &n, &times, error);
    for (size_t i = 0; i < n && !status; i++) {
        const char *cut = rows[i].cut;
        if (strncmp(rows[i].op, "blk.1.", 6) != 0 || !strcmp(cut, "single") || !strcmp(cut, "every") ||
            strstr(outcome->cuts, cut) || at + strlen(cut) + 3 > sizeof outcome->cuts)
            continue;
        at += (size_t)snprintf(outcome->cuts + at, sizeof outcome->cuts - at, "%s%s", at ? ", " : "", cut);
    }
    if (!status) {
        outcome->joins = times.joins;
        outcome->lanes = times.lanes;
        ht_free(rows);
    }
    return status;
}

static void start_game(const ht_engine *engine, const char *gpu, double share) {
    for (size_t d = 0; d < engine->set.n_devices; d++) {
        size_t index;
        ht_machine *machine = ht_sim_machine(engine->set.devices[d], &index);
        if (!strcmp(ht_machine_soc(machine)->processors[index].name, gpu))
            ht_machine_load(machine, index, share, FRAMES);
    }
}

/* The devices' list; false: the SoC lacks one, or no standard length is long enough. The NPU comes first: where nothing is
 * shared the first device that takes an operator computes it. */
static bool name_devices(const ht_reproduction *r, const ht_setup *s, int prompt, char list[800]) {
    const struct { const char *name, *options; } devices[] = {{r->npu, s->npu}, {r->gpu, s->gpu}, {r->cpu, s->cpu}};
    size_t at = 0;
    for (size_t i = 0; i < HT_COUNT(devices); i++) {
        char length[32] = "";
        if (!devices[i].options)
            continue;
        if (!devices[i].name && s->strategy == HT_STRATEGY_AUTO)
            continue; /* it takes what there is */
        if (!devices[i].name)
            return false;
        if (i == 0 && s->padded) {
            const ht_soc_processor *npu = ht_soc_find(r->soc, r->npu);
            size_t k = 0;
            while (k < npu->n_lengths && npu->lengths[k] < prompt)
                k++;
            if (k == npu->n_lengths)
                return false;
            snprintf(length, sizeof length, ":lengths=%d", npu->lengths[k]);
        }
        /* times alone are wanted, of a real file's model, too */
        at += (size_t)snprintf(list + at, 800 - at, "%ssim:%s/%s:numbers=off%s%s%s", at ? "," : "",
                               s->soc ? s->soc : r->soc->spec, devices[i].name, *devices[i].options ? ":" : "",
                               devices[i].options, length);
        if (at >= 800)
            return false;
    }
    return at > 0;
}

/* A planner that knows less than ours makes the plans. */
static ht_status plan_anew(const ht_setup *s, ht_engine *engine, const ht_engine_options *options, ht_error *error) {
    if ((!s->blind && !s->by_operator && !s->may_stay) || engine->set.n_lanes < 2)
        return HT_OK;
    engine->passes.policy.by_operator = s->by_operator;
    engine->passes.policy.must_share &= !s->may_stay;
    for (size_t l = 0; l < engine->set.n_lanes && s->blind; l++) {
        ht_lane_cost *cost = &engine->set.lanes[l].cost;
        memset(cost->together, 0, sizeof cost->together);
        memset(cost->norms, 0, sizeof cost->norms);
    }
    ht_passes_forget_schedules(&engine->passes);
    return ht_engine_expect(engine, options, error);
}

static ht_status run_engine(ht_reproduction *r, const ht_setup *s, ht_engine *engine, int prompt, int gen,
                            ht_outcome *outcome) {
    ht_session *session;
    ht_bench_result result;
    ht_status status = ht_session_create(engine, &session, r->error);
    if (status)
        return status;
    /* with a game the first passes are not like the later ones, to which plans have adapted */
    const ht_bench_options bench = {.prompt = prompt, .gen = gen, .repetitions = s->game > 0 ? 9 : 3};
    engine->passes.policy.frozen = s->fixed;
    if (s->game > 0)
        start_game(engine, r->gpu, s->game);
    const account before = take_account(engine, r->gpu);
    status = ht_bench(session, &bench, &result, r->error);
    const account after = take_account(engine, r->gpu);
    ht_session_destroy(session);
    if (status)
        return status;
    const double tokens = (bench.repetitions + 1) * (double)(prompt ? prompt : gen + 1);
    const ht_schedule *schedule = engine->passes.current;
    outcome->tps = result.tps_median;
    settle(&before, &after, tokens, prompt == 0, outcome);
    snprintf(outcome->plan, sizeof outcome->plan, "%s",
             schedule ? ht_regime_name(schedule->choice.regime) : ht_regime_name(HT_REGIME_SOLO));
    return s->explain ? name_cuts(engine, prompt ? (size_t)prompt : 1, outcome, r->error) : HT_OK;
}

ht_status ht_reproduce_run(ht_reproduction *r, const ht_setup *s, ht_model *model, int prompt, int gen,
                           ht_outcome *outcome) {
    char devices[800];
    const ht_engine_options options =
        HT_INIT(ht_engine_options, .devices = devices, .precision = HT_PRECISION_EXACT, /* W4A16, as the paper */
                .context = 2 * LONGEST, .chunk = LONGEST, .sync = s->sync, .strategy = s->strategy,
                .cuts = s->strategy == HT_STRATEGY_TENSOR ? s->cuts : NULL, .prompts = &prompt, .n_prompts = prompt > 0,
                .npu_memory = s->own_memory ? 0 : ht_reproduce_graph_memory(r));
    ht_engine *engine;
    *outcome = (ht_outcome){.tps = NAN, .joules = {NAN, NAN, NAN}, .frames = NAN, .due = NAN};
    if (!name_devices(r, s, prompt ? prompt : 1, devices))
        return HT_OK;
    ht_status status = ht_engine_create(model, &options, &engine, r->error);
    if (status == HT_ERROR_MEMORY || status == HT_ERROR_DEVICE)
        return HT_OK;
    if (status)
        return status;
    status = plan_anew(s, engine, &options, r->error);
    if (!status)
        status = run_engine(r, s, engine, prompt, gen, outcome);
    ht_engine_destroy(engine);
    return status;
}

/* ---- tables of setups --------------------------------------------------------------------------------------------------------- */

static const ht_setup setups[] = {
    {.name = "GPU", .gpu = "", .strategy = HT_STRATEGY_SINGLE},
    {.name = "NPU padded", .npu = "", .cpu = "", .strategy = HT_STRATEGY_SINGLE, .padded = true},
    {.name = "NPU online", .npu = "online=on", .cpu = "", .strategy = HT_STRATEGY_SINGLE},
    {.name = "NPU pipeline", .npu = "", .cpu = "", .strategy = HT_STRATEGY_SINGLE},
    {.name = "layer", .gpu = "", .npu = "", .strategy = HT_STRATEGY_TENSOR, .cuts = LAYER_CUTS},
    {.name = "tensor", .gpu = "", .npu = "", .strategy = HT_STRATEGY_TENSOR, .cuts = PAPER_CUTS},
    {.name = "hetero", .gpu = "", .npu = "", .strategy = HT_STRATEGY_AUTO},
    {.name = "hetero + CPU", .gpu = "", .npu = "", .cpu = "", .strategy = HT_STRATEGY_AUTO},
};
enum { GPU, NPU_PADDED, NPU_ONLINE, NPU_PIPELINE, LAYER, TENSOR, OURS, OURS_CPU };

static const char *model_title(const ht_model *model) {
    const char *path = ht_model_get_info(model)->path, *colon = strchr(path, ':');
    return colon ? colon + 1 : path;
}

static void add_rate_headline(ht_reproduction *r, int prompt, double gpu, double ours) {
    char text[160];
    snprintf(text, sizeof text, "%s of llama-3-8b; %.3g on the GPU alone", prompt ? "prefill of 256 tokens" : "decode",
             gpu);
    ht_headline_add(r, text, "%.3g tokens/s", ours);
}

/* A row of rates: setups first to last, with prompts of one length or in decode. */
static ht_status rate_row(ht_reproduction *r, ht_sheet *sheet, const char *name, ht_model *model, int prompt, int gen,
                          const ht_setup *const *run, size_t n) {
    double rates[HT_SHEET_COLUMNS] = {0};
    char format[HT_SHEET_COLUMNS + 1] = "s";
    for (size_t i = 0; i < n; i++) {
        ht_outcome outcome;
        ht_status status = ht_reproduce_run(r, run[i], model, prompt, gen, &outcome);
        if (status)
            return status;
        rates[i] = outcome.tps;
        format[i + 1] = 'd';
    }
    if (model == r->models[0] && prompt != 64 && prompt != 1024 && isfinite(rates[0]))
        add_rate_headline(r, prompt, rates[0], rates[prompt ? OURS : 4]);
    return ht_sheet_row(r, sheet, format, name, rates[0], rates[1], rates[2], rates[3], rates[4], rates[5], rates[6],
                        rates[7]);
}

ht_status ht_reproduce_prefill(ht_reproduction *r) {
    static const int lengths[] = {64, 256, 1024};
    const ht_setup *all[HT_COUNT(setups)];
    ht_status status = HT_OK;
    for (size_t i = 0; i < HT_COUNT(setups); i++)
        all[i] = &setups[i];
    for (size_t m = 0; m < HT_COUNT(r->models) && !status; m++) {
        char id[64], title[120];
        snprintf(id, sizeof id, "prefill-%s", model_title(r->models[m]));
        snprintf(title, sizeof title, "Prefill, %s", model_title(r->models[m]));
        ht_sheet *sheet =
            ht_sheet_add(r, id, title, "tokens,GPU,NPU padded,NPU online,NPU pipeline,layer,tensor,hetero,hetero + CPU",
                         HT_CHART_BARS, "tokens", "tokens a second");
        for (size_t i = 0; i < HT_COUNT(lengths) && !status; i++) {
            char name[32];
            snprintf(name, sizeof name, "%d tokens", lengths[i]);
            status = rate_row(r, sheet, name, r->models[m], lengths[i], 0, all, HT_COUNT(all));
        }
    }
    return status;
}

ht_status ht_reproduce_odd(ht_reproduction *r) {
    static const int lengths[] = {40, 65, 135, 200, 300, 320, 400, 525, 600, 800, 900, 1000};
    static const ht_setup layers[] = {
        {.gpu = "", .npu = "", .strategy = HT_STRATEGY_TENSOR, .cuts = LAYER_CUTS, .padded = true},
        {.gpu = "", .npu = "online=on", .strategy = HT_STRATEGY_TENSOR, .cuts = LAYER_CUTS},
    };
    const ht_setup *run[] = {&layers[0], &layers[1], &setups[LAYER], &setups[TENSOR], &setups[OURS]};
    ht_sheet *sheet =
        ht_sheet_add(r, "odd-lengths", "Prefill at odd lengths, llama-3-8b",
                     "tokens,padding,online build,pipeline,tensor,hetero", HT_CHART_LINES, "tokens", "tokens a second");
    ht_status status = HT_OK;
    for (size_t i = 0; i < HT_COUNT(lengths) && !status; i++) {
        double rates[HT_COUNT(run)];
        for (size_t k = 0; k < HT_COUNT(run) && !status; k++) {
            ht_outcome outcome;
            status = ht_reproduce_run(r, run[k], r->models[0], lengths[i], 0, &outcome);
            rates[k] = outcome.tps;
        }
        if (!status)
            status =
                ht_sheet_row(r, sheet, "dddddd", (double)lengths[i], rates[0], rates[1], rates[2], rates[3], rates[4]);
    }
    return status;
}

ht_status ht_reproduce_decode(ht_reproduction *r) {
    const ht_setup *run[] = {&setups[GPU],    &setups[NPU_PIPELINE], &setups[LAYER],
                             &setups[TENSOR], &setups[OURS],         &setups[OURS_CPU]};
    ht_sheet *sheet = ht_sheet_add(r, "decode-rates", "Decode", "model,GPU,NPU + CPU,layer,tensor,hetero,hetero + CPU",
                                   HT_CHART_BARS, "", "tokens a second");
    ht_status status = HT_OK;
    for (size_t m = 0; m < HT_COUNT(r->models) && !status; m++)
        status = rate_row(r, sheet, model_title(r->models[m]), r->models[m], 0, DECODED, run, HT_COUNT(run));
    return status;
}

ht_status ht_reproduce_sync(ht_reproduction *r) {
    static const struct {
        const char *name;
        size_t setup;
        int prompt, gen;
    } cases[] = {{"layer, prefill 256", LAYER, 256, 0},  {"tensor, prefill 256", TENSOR, 256, 0},
                 {"hetero, prefill 256", OURS, 256, 0},  {"layer, decode", LAYER, 0, DECODED},
                 {"tensor, decode", TENSOR, 0, DECODED}, {"hetero, decode", OURS, 0, DECODED}};
    ht_status status = HT_OK;
    for (size_t m = 0; m < HT_COUNT(r->models) && !status;
         m += HT_COUNT(r->models) - 1) { /* the largest, the smallest */
        char id[64], title[120];
        snprintf(id, sizeof id, "sync-%s", model_title(r->models[m]));
        snprintf(title, sizeof title, "Joins, %s", model_title(r->models[m]));
        ht_sheet *sheet = ht_sheet_add(r, id, title, "case,finish,flag,gain %", HT_CHART_BARS, "", "tokens a second");
        if (sheet)
            sheet->n_drawn = 2;
        for (size_t i = 0; i < HT_COUNT(cases) && !status; i++) {
            double rates[2];
            for (int fast = 0; fast < 2 && !status; fast++) {
                ht_setup s = setups[cases[i].setup];
                ht_outcome outcome;
                s.sync = fast ? HT_SYNC_FLAG : HT_SYNC_FINISH;
                if (s.strategy == HT_STRATEGY_AUTO) /* the same way with both, where one device alone would be chosen */
                    s.strategy = HT_STRATEGY_TENSOR;
                status = ht_reproduce_run(r, &s, r->models[m], cases[i].prompt, cases[i].gen, &outcome);
                rates[fast] = outcome.tps;
            }
            if (!status)
                status =
                    ht_sheet_row(r, sheet, "sddd", cases[i].name, rates[0], rates[1], 100 * (rates[1] / rates[0] - 1));
        }
    }
    return status;
}

/* Setups one after the other, each with all that those before it have; the last columns say what the step brought. */
static ht_status chain(ht_reproduction *r, const char *id, const char *title, const ht_setup *steps, size_t n,
                       ht_model *model, int prompt, int gen) {
    ht_sheet *sheet = ht_sheet_add(r, id, title, "step,tokens a second,over the step before,regime", HT_CHART_BARS, "",
                                   "tokens a second");
    ht_status status = HT_OK;
    double before = NAN;
    for (size_t i = 0; i < n && !status; i++) {
        char gain[32] = "–";
        ht_outcome outcome;
        status = ht_reproduce_run(r, &steps[i], model, prompt, gen, &outcome);
        if (!status && isfinite(before))
            snprintf(gain, sizeof gain, "%+.1f%%", 100 * (outcome.tps / before - 1));
        if (!status)
            status = ht_sheet_row(r, sheet, "sdss", steps[i].name, outcome.tps, gain, outcome.plan);
        before = outcome.tps;
    }
    return status;
}

#define BOTH .gpu = "", .strategy = HT_STRATEGY_TENSOR

ht_status ht_reproduce_ablation(ht_reproduction *r) {
    static const ht_setup steps[] = {
        {.name = "naive NPU",
         BOTH,
         .npu = "order=activations",
         .cuts = "layer",
         .sync = HT_SYNC_FINISH,
         .padded = true},
        {.name = "+ sequence cut", BOTH, .npu = "order=activations", .cuts = "layer,sequence", .sync = HT_SYNC_FINISH},
        {.name = "+ operand order", BOTH, .npu = "", .cuts = "layer,sequence", .sync = HT_SYNC_FINISH},
        {.name = "+ row cut", BOTH, .npu = "", .cuts = PAPER_CUTS, .sync = HT_SYNC_FINISH},
        {.name = "+ fast joins", BOTH, .npu = "", .cuts = PAPER_CUTS, .sync = HT_SYNC_FLAG},
        {.name = "+ feature cut", BOTH, .npu = "", .cuts = PAPER_CUTS ",feature", .sync = HT_SYNC_FLAG},
        {.name = "+ head cut", BOTH, .npu = "", .cuts = PAPER_CUTS ",feature,head", .sync = HT_SYNC_FLAG},
        {.name = "+ causal cut", BOTH, .npu = "", .cuts = PAPER_CUTS ",feature,head,causal", .sync = HT_SYNC_FLAG},
    };
    static const struct {
        size_t model;
        int prompt;
    } cases[] = {{0, 256}, {0, 300}, {0, 64}, {3, 300}};
    ht_status status = HT_OK;
    for (size_t i = 0; i < HT_COUNT(cases) && !status; i++) {
        char id[64], title[120];
        const char *model = model_title(r->models[cases[i].model]);
        snprintf(id, sizeof id, "ablation-%s-%d", model, cases[i].prompt);
        snprintf(title, sizeof title, "%s, %d tokens", model, cases[i].prompt);
        status = chain(r, id, title, steps, HT_COUNT(steps), r->models[cases[i].model], cases[i].prompt, 0);
    }
    return status;
}

ht_status ht_reproduce_gains(ht_reproduction *r) {
    static const ht_setup steps[] = {
        {.name = "as the paper, slow joins",
         BOTH,
         .npu = "",
         .cuts = PAPER_CUTS,
         .sync = HT_SYNC_FINISH,
         .blind = true,
         .by_operator = true},
        {.name = "fast joins", BOTH, .npu = "", .cuts = PAPER_CUTS, .blind = true, .by_operator = true},
        {.name = "bandwidth-aware", BOTH, .npu = "", .cuts = PAPER_CUTS, .by_operator = true},
        {.name = "exact over the layer", BOTH, .npu = "", .cuts = PAPER_CUTS},
        {.name = "feature cut", BOTH, .npu = "", .cuts = PAPER_CUTS ",feature"},
        {.name = "head cut", BOTH, .npu = "", .cuts = PAPER_CUTS ",feature,head"},
        {.name = "causal cut", BOTH, .npu = "", .cuts = PAPER_CUTS ",feature,head,causal"},
        {.name = "CPU as a third device", BOTH, .npu = "", .cpu = "", .cuts = PAPER_CUTS ",feature,head,causal"},
    };
    static const struct {
        const char *name;
        size_t model;
        int prompt, gen;
    } cases[] = {{"8B 64", 0, 64, 0},          {"8B 256", 0, 256, 0},         {"8B 300", 0, 300, 0},
                 {"8B decode", 0, 0, DECODED}, {"3B 256", 2, 256, 0},         {"3B decode", 2, 0, DECODED},
                 {"1.8B 64", 3, 64, 0},        {"1.8B decode", 3, 0, DECODED}};
    ht_sheet *sheet =
        ht_sheet_add(r, "gains-by-term", "Tokens a second, a term more in each row",
                     "term,8B 64,8B 256,8B 300,8B decode,3B 256,3B decode,1.8B 64,1.8B decode", HT_CHART_NONE, "", "");
    double first[HT_COUNT(cases)], rates[HT_COUNT(cases)] = {0};
    ht_status status = HT_OK;
    for (size_t i = 0; i < HT_COUNT(steps) && !status; i++) {
        for (size_t k = 0; k < HT_COUNT(cases) && !status; k++) {
            ht_outcome outcome;
            status = ht_reproduce_run(r, &steps[i], r->models[cases[k].model], cases[k].prompt, cases[k].gen, &outcome);
            rates[k] = outcome.tps;
            if (i < 2) /* what is compared with: the paper's planner, its joins fast */
                first[k] = outcome.tps;
        }
        if (!status)
            status = ht_sheet_row(r, sheet, "sdddddddd", steps[i].name, rates[0], rates[1], rates[2], rates[3],
                                  rates[4], rates[5], rates[6], rates[7]);
    }
    if (status)
        return status;
    ht_sheet *gain = ht_sheet_add(r, "gains-over-paper", "Ours over a planner as the paper's, fast joins in both",
                                  "case,gain %", HT_CHART_BARS, "", "percent");
    for (size_t k = 0; k < HT_COUNT(cases) && !status; k++)
        status = ht_sheet_row(r, gain, "sd", cases[k].name, 100 * (rates[k] / first[k] - 1));
    ht_headline_add(r,
                    "decode of llama-3-8b with every cut and the CPU, over cutting single operators as the paper does",
                    "%+.0f%%", 100 * (rates[3] / first[3] - 1));
    return status;
}

/* ---- other chips -------------------------------------------------------------------------------------------------------------- */

typedef struct sweep { /* figures of some sections, all multiplied by the same; the first one is the x axis */
    const char *id, *title, *x_label;
    const struct {
        char section; /* m: memory, g: GPU, n: NPU, c: CPU */
        ht_soc_key key;
    } figures[6];
    size_t n_figures;
    double factors[8];
} sweep;

static const sweep sweeps[] = {
    {"sweep-bandwidth",
     "Memory bandwidth",
     "GB/s, two processors at once",
     {{'m', HT_SOC_TOGETHER},
      {'m', HT_SOC_REACHED_MEMORY},
      {'g', HT_SOC_BANDWIDTH},
      {'n', HT_SOC_BANDWIDTH},
      {'c', HT_SOC_BANDWIDTH}},
     5,
     {0.5, 0.75, 1, 1.25, 1.5, 2, 3}},
    {"sweep-joins",
     "Cost of a join",
     "µs by the GPU's flag",
     {{'g', HT_SOC_FLAG}, {'n', HT_SOC_FLAG}},
     2,
     {1.0 / 3, 1, 4, 10, 25, 50, 100, 150}},
    {"sweep-array",
     "Side of the NPU's arrays",
     "side, as many operations a second",
     {{'n', HT_SOC_ARRAY}},
     1,
     {0.25, 0.5, 1, 2, 4, 8}},
    {"sweep-onchip", "The NPU's on-chip memory", "MiB", {{'n', HT_SOC_ONCHIP}}, 1, {0.5, 1, 1.5, 2, 4}},
};

static const char *section_name(const ht_reproduction *r, char section) {
    return section == 'm' ? "memory" : section == 'g' ? r->gpu : section == 'n' ? r->npu : r->cpu;
}

/* The description with the sweep's figures multiplied. Returns the first one's value; NAN: the name would be too long. */
static double changed_soc(const ht_reproduction *r, const sweep *s, double factor, char spec[256]) {
    double shown = NAN;
    size_t at = (size_t)snprintf(spec, 256, "%s", r->soc->spec);
    for (size_t i = 0; i < s->n_figures && at < 256; i++) {
        const ht_soc_key key = s->figures[i].key;
        const char *name = section_name(r, s->figures[i].section);
        if (!name)
            continue;
        const ht_figure *figures = s->figures[i].section == 'm' ? r->soc->figures : ht_soc_find(r->soc, name)->figures;
        const double value = factor * figures[key].value / ht_soc_key_unit(key);
        shown = i ? shown : value;
        at += (size_t)snprintf(spec + at, 256 - at, "@%s.%s=%.6g", name, ht_soc_key_name(key), value);
    }
    return at < 256 - 32 ? shown : NAN; /* names and options of devices follow */
}

/* One sweep in one phase. */
static ht_status run_sweep(ht_reproduction *r, const sweep *s, int prompt, int gen) {
    const size_t run[] = {GPU, TENSOR, OURS};
    ht_status status = HT_OK;
    char id[64], title[120], spec[256];
    if (!section_name(r, s->figures[0].section) || !isfinite(changed_soc(r, s, s->factors[0], spec)))
        return HT_OK;
    snprintf(id, sizeof id, "%s-%s", s->id, gen ? "decode" : "prefill");
    snprintf(title, sizeof title, "%s: llama-3-8b, %s", s->title, gen ? "decode" : "prefill 256");
    ht_sheet *sheet = ht_sheet_add(r, id, title, "x,GPU,tensor,hetero", HT_CHART_LINES, s->x_label, "tokens a second");
    if (sheet) /* the label has commas */
        snprintf(sheet->columns[0], sizeof *sheet->columns, "%s", s->x_label);
    for (size_t k = 0; k < HT_COUNT(s->factors) && s->factors[k] > 0 && !status; k++) {
        double rates[HT_COUNT(run)] = {0};
        const double x = changed_soc(r, s, s->factors[k], spec);
        for (size_t m = 0; m < HT_COUNT(run) && !status; m++) {
            ht_setup setup = setups[run[m]];
            ht_outcome outcome;
            setup.soc = spec;
            if (s->figures[0].key == HT_SOC_FLAG && run[m] != GPU)
                setup.sync = HT_SYNC_FLAG;
            status = ht_reproduce_run(r, &setup, r->models[0], prompt, gen, &outcome);
            rates[m] = outcome.tps;
        }
        if (!status)
            status = ht_sheet_row(r, sheet, "dddd", x, rates[0], rates[1], rates[2]);
    }
    return status;
}

ht_status ht_reproduce_sweeps(ht_reproduction *r) {
    ht_status status = HT_OK;
    for (size_t i = 0; i < 2 * HT_COUNT(sweeps) && !status; i++)
        status = run_sweep(r, &sweeps[i / 2], i % 2 ? 0 : 256, i % 2 ? DECODED : 0);
    return status;
}

/* ---- a game, energy ------------------------------------------------------------------------------------------------------------ */

ht_status ht_reproduce_game(ht_reproduction *r) {
    static const double shares[] = {0, 0.3, 0.45, 0.6};
    static const struct {
        const char *name;
        size_t setup;
        bool fixed;
    } ways[] = {{"GPU", GPU, false}, {"hetero, fixed", OURS, true}, {"hetero, learning", OURS, false}};
    static const struct {
        const char *name;
        int prompt, gen;
    } phases[] = {{"prefill 256", 256, 0}, {"decode", 0, 2 * DECODED}};
    ht_status status = HT_OK;
    if (!r->gpu)
        return HT_OK;
    for (size_t i = 0; i < HT_COUNT(phases) && !status; i++) {
        double rates[HT_COUNT(shares)][HT_COUNT(ways)], frames[HT_COUNT(shares)][HT_COUNT(ways)];
        char id[64], title[120];
        for (size_t k = 0; k < HT_COUNT(shares); k++)
            for (size_t w = 0; w < HT_COUNT(ways) && !status; w++) {
                ht_setup s = setups[ways[w].setup];
                ht_outcome outcome;
                s.fixed = ways[w].fixed;
                s.game = shares[k];
                status = ht_reproduce_run(r, &s, r->models[0], phases[i].prompt, phases[i].gen, &outcome);
                rates[k][w] = outcome.tps;
                frames[k][w] = outcome.frames;
            }
        for (int what = 0; what < 2 && !status; what++) {
            snprintf(id, sizeof id, "game-%s-%s", what ? "frames" : "speed", i ? "decode" : "prefill");
            snprintf(title, sizeof title, "%s: llama-3-8b, %s", what ? "Frames a second" : "Our speed", phases[i].name);
            ht_sheet *sheet = ht_sheet_add(r, id, title, "game takes,GPU,hetero fixed,hetero learning", HT_CHART_BARS,
                                           "", what ? "frames a second" : "tokens a second");
            for (size_t k = what ? 1 : 0; k < HT_COUNT(shares) && !status; k++) {
                const double *row = what ? frames[k] : rates[k];
                char name[32];
                snprintf(name, sizeof name, "%.0f%% of the GPU", 100 * shares[k]);
                status = ht_sheet_row(r, sheet, "sddd", shares[k] > 0 ? name : "no game", row[0], row[1], row[2]);
            }
        }
    }
    return status;
}

/* Energies of one model, a row for each setup: over the first one's that is known, and in joules. */
static ht_status put_energies(ht_reproduction *r, ht_sheet *sheet, const ht_model *model, const size_t *run,
                              const ht_outcome *outcomes, size_t n, double ratios[]) {
    const ht_energy *first = NULL;
    ht_status status = HT_OK;
    for (size_t k = 0; k < n && !status; k++) {
        const ht_outcome *o = &outcomes[k];
        ratios[k] = NAN;
        if (!isfinite(o->joules.value))
            continue;
        first = first ? first : &o->energy;
        const ht_range times = ht_energy_ratio(r->soc, &o->energy, first);
        ratios[k] = times.value;
        status = ht_sheet_row(r, sheet, "ssddddddd", model_title(model), setups[run[k]].name, times.value, times.low,
                              times.high, o->joules.value, o->joules.low, o->joules.high, o->tps);
    }
    return status;
}

/* One phase: every setup with every model. */
static ht_status energy_phase(ht_reproduction *r, int prompt, int gen) {
    static const size_t run[] = {GPU, NPU_PIPELINE, LAYER, TENSOR, OURS, OURS_CPU};
    const char *phase = gen ? "decode" : "prefill";
    double ratios[HT_COUNT(r->models)][HT_COUNT(run)];
    ht_status status = HT_OK;
    char id[64], title[120], columns[200] = "setup";
    snprintf(id, sizeof id, "energy-ratios-%s", phase);
    snprintf(title, sizeof title, "Energy of a token over the GPU's alone, %s", gen ? phase : "prefill 256");
    for (size_t m = 0; m < HT_COUNT(r->models); m++)
        snprintf(columns + strlen(columns), sizeof columns - strlen(columns), ",%s", model_title(r->models[m]));
    ht_sheet *sheet = NULL;
    if (!ht_sheet_add(r, id, title, columns, HT_CHART_BARS, "", "times the GPU's"))
        return HT_ERROR_MEMORY;
    snprintf(id, sizeof id, "energy-%s", phase);
    snprintf(title, sizeof title, "Energy, %s: most likely, and what it may be", gen ? phase : "prefill 256");
    if (!ht_sheet_add(r, id, title,
                      "model,setup,times the GPU's,times from,times to,J a token,J from,J to,tokens a second",
                      HT_CHART_NONE, "", ""))
        return HT_ERROR_MEMORY;
    for (size_t m = 0; m < HT_COUNT(r->models) && !status; m++) {
        ht_outcome outcomes[HT_COUNT(run)];
        for (size_t k = 0; k < HT_COUNT(run) && !status; k++)
            status = ht_reproduce_run(r, &setups[run[k]], r->models[m], prompt, gen, &outcomes[k]);
        sheet = &r->section->sheets[r->section->n - 1];
        if (!status)
            status = put_energies(r, sheet, r->models[m], run, outcomes, HT_COUNT(run), ratios[m]);
    }
    sheet = &r->section->sheets[r->section->n - 2];
    for (size_t k = 0; k < HT_COUNT(run) && !status; k++)
        if (isfinite(ratios[0][k]))
            status = ht_sheet_row(r, sheet, "sdddd", setups[run[k]].name, ratios[0][k], ratios[1][k], ratios[2][k],
                                  ratios[3][k]);
    return status;
}

ht_status ht_reproduce_energy(ht_reproduction *r) {
    ht_status status = energy_phase(r, 256, 0);
    return status ? status : energy_phase(r, 0, DECODED);
}
