/* `hetero reproduce`: a table of experiments and one loop; what they filled as a page and as JSON.
 *
 * Nothing here reads a clock or the machine's state, so that two runs write the same bytes. */
#include "base/json.h"
#include "reproduce/compare.h"

#include "base/os.h"
#include "device/common.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- sheets --------------------------------------------------------------------------------------------------------------- */

static void free_sections(ht_section *sections, size_t n) {
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < sections[i].n; k++)
            free(sections[i].sheets[k].rows);
        free(sections[i].sheets);
    }
}

/* ---- as JSON ---------------------------------------------------------------------------------------------------------------- */

static json_t *sheet_json(const ht_sheet *sheet) {
    json_t *columns = json_array(), *rows = json_array();
    for (size_t c = 0; c < sheet->n_columns; c++)
        ht_json_add(&columns, json_string(sheet->columns[c]));
    for (size_t i = 0; i < sheet->n_rows; i++) {
        json_t *row = json_array();
        for (size_t c = 0; c < sheet->n_columns; c++) {
            const ht_cell *cell = &sheet->rows[i][c];
            ht_json_add(&row, *cell->text              ? json_string(cell->text)
                              : isfinite(cell->number) ? json_real(cell->number)
                                                       : json_null());
        }
        ht_json_add(&rows, row);
    }
    return json_pack("{s:s, s:o, s:o}", "title", sheet->title, "columns", columns, "rows", rows);
}

/* *text from malloc. */
static ht_status tables_text(const ht_reproduction *r, const ht_section *sections, size_t n, char **text) {
    json_t *all = json_object();
    for (size_t i = 0; i < n; i++) {
        json_t *sheets = json_object();
        for (size_t k = 0; k < sections[i].n; k++)
            ht_json_set(&sheets, sections[i].sheets[k].id, sheet_json(&sections[i].sheets[k]));
        ht_json_set(&all, sections[i].id, json_pack("{s:s, s:o}", "title", sections[i].title, "tables", sheets));
    }
    json_t *root =
        json_pack("{s:s*, s:s, s:o}", "soc", r->soc ? r->soc->spec : NULL, "version", ht_version(), "experiments", all);
    return ht_json_text(root, JSON_INDENT(1) | JSON_REAL_PRECISION(9), "the tables", text, r->error);
}

/* ---- experiments -------------------------------------------------------------------------------------------------------------- */

typedef struct experiment {
    const char *id, *title, *about;
    ht_status (*run)(ht_reproduction *);
} experiment;

static const experiment experiments[] = {
    {"paper", "Paper against simulation",
     "Every figure of the paper's characterisation, measured on the simulated chip by the profiler. Those that the "
     "description was made from (inputs) agree because they were put in; the others count.",
     ht_reproduce_paper},
    {"decisions", "Decisions",
     "What the planner decides where the paper says what it decided, with the cuts that the paper has.",
     ht_reproduce_decisions},
    {"curves", "Time by number of tokens",
     "The GPU's speed grows with the work and then stays (GPU-1); the NPU pads to its array, so time is a staircase "
     "(NPU-1).",
     ht_reproduce_curves},
    {"order", "Order of operands",
     "The same product with either operand held in the NPU's arrays (NPU-2): the weights as the model has it, or the "
     "activations.",
     ht_reproduce_order},
    {"shape", "Shape", "As many weights in other proportions (NPU-3), and FFN-down against the GPU.",
     ht_reproduce_shape},
    {"bandwidth", "Bandwidth",
     "Bytes of weights a second in products with one token: each processor alone, and two at once.",
     ht_reproduce_bandwidth},
    {"joins", "Joins",
     "A tiny task from its submit to knowing that it is done, by the way of waiting (GPU-2): again and again, after "
     "the "
     "queue was empty, and behind 20 others.",
     ht_reproduce_joins},
    {"graphs", "Building graphs", "What building a static graph takes: never on a request's path.",
     ht_reproduce_graphs},
    {"prefill", "Prefill",
     "Tokens a second at the NPU's standard lengths. NPU: matrices there, all else on the CPU. Layer: all else on the "
     "GPU. Tensor: the paper's cuts of single matrices. hetero: every cut, exact over a layer.",
     ht_reproduce_prefill},
    {"odd", "Odd lengths",
     "Prompts that fit no graph: padded to the next standard length, with a graph built for them, as a row of standard "
     "lengths, or cut between NPU and GPU.",
     ht_reproduce_odd},
    {"decode", "Decode", "Tokens a second, one at a time.", ht_reproduce_decode},
    {"sync", "Fast synchronisation",
     "Sleeping for the predicted time and then watching a flag, against draining the queue at each join.",
     ht_reproduce_sync},
    {"ablation", "What each step brings",
     "From a plain NPU engine to the paper's, and on to ours. Each row has all that the rows above it have.",
     ht_reproduce_ablation},
    {"gains", "Past the paper",
     "The same experiments for a planner that decides operator by operator, as the paper's, and for ours, a term at a "
     "time.",
     ht_reproduce_gains},
    {"sweeps", "Which change would help",
     "The same model on other chips: memory, the cost of joins and the NPU's array, each changed alone.",
     ht_reproduce_sweeps},
    {"game", "Beside a game",
     "A game draws 60 frames a second, each for a part of the GPU's time. Learning: plans follow what passes took "
     "lately; fixed: they stay as they were made without the game.",
     ht_reproduce_game},
    {"energy", "Energy",
     "What a token costs: power of the package and of each processor, busy or idle, times how long. Watts that nobody "
     "measured are assumed, within a range, and in brackets is what follows from it. Ratios are surer than joules: "
     "both "
     "sides have the same watts. Hosts that wait are counted as idle.",
     ht_reproduce_energy},
    {"validate", "Against real chips",
     "What other engines were measured to do on this chip, and what its description and the laws predict for them. "
     "Rows "
     "to test were never fitted to; each source is public.",
     ht_reproduce_validate},
    {"figures", "The chip",
     "Every figure of the description and where it is from. 'default' marks those that the file leaves out.",
     ht_reproduce_figures},
};

static const experiment validation = {"validate", "Predicted against measured",
                                      "A dot is a row: tokens a second that an engine was measured to have on a real "
                                      "chip, and what the chip's description "
                                      "and the laws predict for it. The lines are equality and 40% to both sides. Fit: "
                                      "free parameters of laws, chips and "
                                      "engines were fitted to these rows. Test: nothing was.",
                                      ht_reproduce_validate};

static const experiment comparison[] = {
    {"chips", "Chips compared",
     "The fastest of what hetero can do on each chip: its planner's choice or one processor alone. Times alone: decode "
     "over the fastest processor alone. What limits: the largest part of the time; where several processors compute, "
     "each "
     "has its part of it. Joules are of package and DRAM in decode, most likely and what they may be: watts of phones "
     "are "
     "assumptions. In the plans, shares are of the bytes read in decode and of the operations in prefill.",
     ht_reproduce_chips},
    {"planners", "Our planner and the paper's",
     "Tokens a second of a planner that cuts single operators as the paper's does, with fast joins, and of ours on all "
     "devices. Each term's gain is over the columns to its left; fast joins are in both.",
     ht_reproduce_planners},
};

static const char *const compared_models[] = {"llama-3.2-1b", "llama-3.2-3b", "qwen3-4b", "llama-3.1-8b"};

static const char *const model_names[] = {"llama-3-8b", "llama-2-7b", "llama-3.2-3b", "internlm2-1.8b"};

static ht_status open_models(ht_reproduction *r, const char *const names[HT_COUNT(model_names)]) {
    ht_status status = HT_OK;
    for (size_t i = 0; i < HT_COUNT(model_names) && !status; i++) {
        char path[64];
        snprintf(path, sizeof path, "shape:%s", names[i]);
        status = ht_model_open(path, &r->models[i], r->error);
    }
    return status;
}

static ht_status run_experiments(ht_reproduction *r, const experiment *run, size_t n, ht_section *sections,
                                 ht_progress_function progress, void *user) {
    ht_status status = HT_OK;
    for (size_t i = 0; i < n && !status; i++) {
        sections[i] = (ht_section){run[i].id, run[i].title, run[i].about, NULL, 0, 0};
        r->section = &sections[i];
        if (progress && !progress(run[i].title, (double)i, (double)n, user))
            return ht_fail(r->error, HT_ERROR_CANCELLED, "cancelled");
        status = run[i].run(r);
    }
    return status;
}

/* *text, from malloc, has the tables; folder: they and the page are written there, too; NULL: not. */
static ht_status put_out(ht_reproduction *r, const ht_section *sections, size_t n, const char *folder, char **text) {
    char path[1024];
    ht_status status = tables_text(r, sections, n, text);
    if (status || !folder)
        return status;
    const int reason = ht_os_make_folder(folder, true);
    if (reason)
        return ht_fail(r->error, HT_ERROR_IO, "%s: cannot be made: %s", folder, strerror(reason));
    snprintf(path, sizeof path, "%s/tables.json", folder);
    status = ht_file_write(path, *text, strlen(*text), r->error);
    snprintf(path, sizeof path, "%s/report.html", folder);
    return status ? status : ht_reproduce_page(r, sections, n, path);
}

ht_status ht_reproduce(const char *name, const char *folder, ht_progress_function progress, void *user,
                       ht_error *error) {
    ht_section sections[HT_COUNT(experiments)] = {{0}};
    ht_error own;
    ht_soc *soc = NULL;
    ht_reproduction r = {.error = error ? error : &own};
    char *text = NULL;
    ht_stay stay;
    if (strlen(folder) > 1000)
        return ht_fail(error, HT_ERROR_ARGUMENT, "%.60s...: too long a path", folder);
    ht_stay_here(&stay); /* waking threads on another core took three quarters of the time */
    ht_status status = ht_soc_load(name, &soc, error);
    if (!status) {
        ht_reproduction_of(&r, soc);
        status = open_models(&r, model_names);
    }
    if (!status)
        status = run_experiments(&r, experiments, HT_COUNT(experiments), sections, progress, user);
    if (!status)
        status = put_out(&r, sections, HT_COUNT(experiments), folder, &text);
    free(text);
    ht_leave_cores(&stay);
    free_sections(sections, HT_COUNT(experiments));
    for (size_t i = 0; i < HT_COUNT(r.models); i++)
        ht_model_close(r.models[i]);
    ht_soc_free(soc);
    return status;
}

static ht_status compare_all(ht_reproduction *r, ht_comparison *c, const char *const *socs, size_t n,
                             ht_progress_function progress, void *user) {
    ht_status status = HT_OK;
    size_t all = n;
    while (!n && ht_soc_name(all))
        all++;
    for (size_t i = 0; i < all && !status; i++)
        status = ht_compare_chip(r, c, n ? socs[i] : ht_soc_name(i), i, all, progress, user);
    return status;
}

ht_status ht_compare_chips(const char *const *socs, size_t n_socs, const char *model, const char *folder,
                           ht_progress_function progress, void *user, char **json, ht_error *error) {
    ht_section sections[HT_COUNT(comparison)] = {{0}};
    ht_error own;
    ht_comparison c = {.n_socs = 0};
    ht_reproduction r = {.error = error ? error : &own,
                         .title = "Language models on simulated chips",
                         .about =
                             "How fast each of these chips would run a model with hetero, what that costs in energy "
                             "and what is in the way. Every number is a prediction from public figures of the "
                             "chips and from laws that were checked against public measurements of other engines; "
                             "nothing here was measured on a chip."};
    char *text = NULL;
    ht_stay stay;
    if (strlen(folder) > 1000)
        return ht_fail(error, HT_ERROR_ARGUMENT, "%.60s...: too long a path", folder);
    ht_stay_here(&stay);
    ht_status status = model ? ht_model_open(model, &r.models[0], error) : open_models(&r, compared_models);
    if (!status)
        status = compare_all(&r, &c, socs, n_socs, progress, user);
    r.soc = NULL;
    r.comparison = &c;
    if (!status)
        status = run_experiments(&r, comparison, HT_COUNT(comparison), sections, NULL, NULL);
    if (!status)
        status = put_out(&r, sections, HT_COUNT(comparison), folder, &text);
    ht_leave_cores(&stay);
    if (!status) {
        *json = text;
        text = NULL;
    }
    free(text);
    free_sections(sections, HT_COUNT(comparison));
    ht_comparison_clear(&c);
    for (size_t i = 0; i < HT_COUNT(r.models); i++)
        ht_model_close(r.models[i]);
    return status;
}

ht_status ht_validate(const char *name, const char *folder, char **json, ht_error *error) {
    ht_section section = {0};
    ht_error own;
    ht_soc *soc = NULL;
    ht_reproduction r = {.error = error ? error : &own,
                         .title = "The simulated chips against real ones",
                         .about = "Public measurements of other engines, and what hetero's simulated chips predict for "
                                  "them. Nothing here was measured by us."};
    char *text = NULL;
    if (folder && strlen(folder) > 1000)
        return ht_fail(error, HT_ERROR_ARGUMENT, "%.60s...: too long a path", folder);
    ht_status status = name ? ht_soc_load(name, &soc, error) : HT_OK;
    r.soc = soc;
    if (!status)
        status = run_experiments(&r, &validation, 1, &section, NULL, NULL);
    if (!status)
        status = put_out(&r, &section, 1, folder, &text);
    if (!status) {
        *json = text;
        text = NULL;
    }
    free(text);
    free_sections(&section, 1);
    ht_soc_free(soc);
    return status;
}
