/* Predicted against measured: how far off, and the tables of it. */
#include "reproduce/validate.h"

#include "reproduce/reproduce.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- how far off -------------------------------------------------------------------------------------------------------------- */

static double ratio_of(const ht_validated *v) {
    return v->predicted / v->row->tps;
}

static int by_size(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

ht_status ht_quality_of(const ht_validated *rows, size_t n, bool test, ht_phase_filter phase, ht_quality *quality,
                        ht_error *error) {
    double *errors = NULL;
    ht_quality q = {.median = NAN, .within = NAN, .worst = NAN};
    size_t near = 0;
    ht_status status = ht_alloc((void **)&errors, n + 1, sizeof *errors, "errors", error);
    for (size_t i = 0; i < n && !status; i++) {
        const ht_measured_row *row = rows[i].row;
        const double ratio = ratio_of(&rows[i]);
        if (row->test != test || (phase != HT_PHASE_BOTH && row->decode != (phase == HT_PHASE_DECODE)))
            continue;
        q.rows++;
        if (!isfinite(ratio))
            continue;
        errors[q.predicted++] = fabs(ratio - 1);
        near += fabs(ratio - 1) <= HT_VALIDATE_NEAR;
        if (q.predicted == 1 || fabs(log(ratio)) > fabs(log(q.worst)))
            q.worst = ratio;
    }
    if (q.predicted) {
        qsort(errors, q.predicted, sizeof *errors, by_size);
        q.median = (errors[(q.predicted - 1) / 2] + errors[q.predicted / 2]) / 2;
        q.within = (double)near / (double)q.predicted;
    }
    free(errors);
    *quality = q;
    return status;
}

/* Of one source: another one is another build of the engine, and these differ by more than sizes do. */
static bool is_alike(const ht_measured_row *a, const ht_measured_row *b) {
    return !strcmp(a->source, b->source) && a->engine == b->engine && a->decode == b->decode &&
           a->prompt == b->prompt && !strcmp(a->chip, b->chip) && !strcmp(a->weights, b->weights);
}

bool ht_size_ratio_of(const ht_validated *rows, size_t n, size_t first, ht_size_ratio *ratio) {
    const ht_validated *small = &rows[first], *large = small;
    if (small->row->decode)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (!is_alike(rows[i].row, rows[first].row))
            continue;
        if (i < first)
            return false;
        small = rows[i].parameters < small->parameters ? &rows[i] : small;
        large = rows[i].parameters > large->parameters ? &rows[i] : large;
    }
    const double sizes = large->parameters / small->parameters;
    *ratio = (ht_size_ratio){small, large, sizes * large->row->tps / small->row->tps,
                             sizes * large->predicted / small->predicted};
    return large != small;
}

/* ---- sheets ------------------------------------------------------------------------------------------------------------------- */

static const char *const kinds[] = {[HT_DEVICE_CPU] = "cpu", [HT_DEVICE_GPU] = "gpu", [HT_DEVICE_NPU] = "npu"};

static const char *phase_of(const ht_measured_row *row) {
    return row->decode ? "decode" : "prefill";
}

static const char *use_of(const ht_measured_row *row) {
    return row->test ? "test" : "fit";
}

static ht_status put_rows(ht_reproduction *r, const ht_validated *rows, size_t n) {
    ht_sheet *sheet = ht_sheet_add(r, "validate-rows", "Every row",
                                   "chip,processor,engine,model,phase,prompt,measured,predicted,ratio,use,source",
                                   HT_CHART_NONE, "", "");
    ht_status status = sheet ? HT_OK : HT_ERROR_MEMORY;
    if (sheet)
        sheet->folded = true;
    for (size_t i = 0; i < n && !status; i++) {
        const ht_measured_row *row = rows[i].row;
        char source[192];
        snprintf(source, sizeof source, "%s%s%s%s%s", row->source, *row->weights ? "; " : "", row->weights,
                 *row->note ? "; " : "", row->note);
        status = ht_sheet_row(r, sheet, "sssssddddss", row->chip, kinds[row->engine->kind], row->engine->name,
                              row->model, phase_of(row), (double)row->prompt, row->tps, rows[i].predicted,
                              ratio_of(&rows[i]), use_of(row), source);
    }
    return status;
}

static ht_status put_dots(ht_reproduction *r, const ht_validated *rows, size_t n, bool decode) {
    ht_sheet *sheet = ht_sheet_add(
        r, decode ? "validate-decode" : "validate-prefill",
        decode ? "Decode: predicted against measured" : "Prefill: predicted against measured",
        "measured,fit (rings),test (squares),row", HT_CHART_DOTS, "measured, tokens a second", "predicted");
    ht_status status = sheet ? HT_OK : HT_ERROR_MEMORY;
    for (size_t i = 0; i < n && !status; i++) {
        const ht_measured_row *row = rows[i].row;
        char name[192];
        if (row->decode != decode || !isfinite(rows[i].predicted))
            continue;
        snprintf(name, sizeof name, "%s %s, %s, %s, %zu tokens", row->chip, kinds[row->engine->kind], row->engine->name,
                 row->model, row->prompt);
        status = ht_sheet_row(r, sheet, "ddds", row->tps, row->test ? NAN : rows[i].predicted,
                              row->test ? rows[i].predicted : NAN, name);
    }
    return status;
}

static ht_status put_summary(ht_reproduction *r, const ht_validated *rows, size_t n) {
    static const char *const phases[] = {"prefill", "decode", "both"};
    ht_sheet *sheet =
        ht_sheet_add(r, "validate-summary", "How far off",
                     "use,phase,rows,predicted,median error (%),within 40% (%),worst", HT_CHART_NONE, "", "");
    ht_status status = HT_OK;
    for (int i = 0; i < 6 && !status; i++) {
        ht_quality q;
        const bool test = i >= 3;
        status = ht_quality_of(rows, n, test, (ht_phase_filter)(i % 3), &q, r->error);
        if (!status)
            status = ht_sheet_row(r, sheet, "ssddddd", test ? "test" : "fit", phases[i % 3], (double)q.rows,
                                  (double)q.predicted, 100 * q.median, 100 * q.within, q.worst);
        if (!status && i == 5 && q.predicted && !r->soc) {
            ht_headline_add(r, "median error of rows that nothing was fitted to", "%.0f%%", 100 * q.median);
            ht_headline_add(r, "of them within 40%", "%.1f%%", 100 * q.within);
        }
    }
    return status;
}

static ht_status put_sizes(ht_reproduction *r, const ht_validated *rows, size_t n) {
    ht_sheet *sheet = ht_sheet_add(r, "validate-sizes", "Prefill TFLOPS of the largest model to the smallest's",
                                   "chip,processor,engine,prompt,smallest,largest,measured,predicted,quotient,use",
                                   HT_CHART_NONE, "", "");
    ht_status status = sheet ? HT_OK : HT_ERROR_MEMORY;
    for (size_t i = 0; i < n && !status; i++) {
        ht_size_ratio ratio;
        const ht_measured_row *row = rows[i].row;
        if (ht_size_ratio_of(rows, n, i, &ratio))
            status = ht_sheet_row(r, sheet, "sssdssddds", row->chip, kinds[row->engine->kind], row->engine->name,
                                  (double)row->prompt, ratio.smallest->row->model, ratio.largest->row->model,
                                  ratio.measured, ratio.predicted, ratio.predicted / ratio.measured, use_of(row));
    }
    return status;
}

/* Energies of the chip, or of all. */
static ht_status put_energies(ht_reproduction *r, const ht_measurements *m) {
    ht_range *predicted = NULL;
    ht_status status = ht_alloc((void **)&predicted, m->n_energies + 1, sizeof *predicted, "energies", r->error);
    if (!status)
        status = ht_validate_energies(m, r->soc, predicted, r->error);
    ht_sheet *sheet = status ? NULL
                             : ht_sheet_add(r, "validate-energy", "Energy: the rail's watts are an input",
                                            "chip,processor,engine,model,rail W,what,measured,predicted,from,to,ratio,"
                                            "use,source",
                                            HT_CHART_NONE, "", "");
    for (size_t i = 0; i < m->n_energies && !status; i++) {
        const ht_measured_energy *e = &m->energies[i];
        const double measured = e->total > 0 ? e->total : e->joules;
        char source[192];
        if (!isfinite(predicted[i].value))
            continue;
        snprintf(source, sizeof source, "%s%s%s", e->row.source, *e->row.note ? "; " : "", e->row.note);
        status =
            ht_sheet_row(r, sheet, "ssssdsdddddss", e->row.chip, kinds[e->kind],
                         e->row.engine ? e->row.engine->name : "", e->row.model ? e->row.model : "", e->rail,
                         e->total > 0 ? "all processors, W" : "J a token", measured, predicted[i].value,
                         predicted[i].low, predicted[i].high, predicted[i].value / measured, use_of(&e->row), source);
    }
    free(predicted);
    return status;
}

/* ---- free parameters ---------------------------------------------------------------------------------------------------------- */

static ht_status put_chip_parameters(ht_reproduction *r, ht_sheet *sheet, const ht_soc *soc, size_t *count) {
    ht_status status = HT_OK;
    for (size_t p = 0; p <= soc->n_processors; p++) { /* the last one: memory and host */
        const bool own = p == soc->n_processors;
        const ht_figure *figures = own ? soc->figures : soc->processors[p].figures;
        for (int key = 0; key < HT_SOC_KEYS && !status; key++) {
            if (!figures[key].fitted)
                continue;
            ++*count;
            status = ht_sheet_row(r, sheet, "sssds", soc->name, own ? "" : soc->processors[p].name,
                                  ht_soc_key_name((ht_soc_key)key),
                                  figures[key].value / ht_soc_key_unit((ht_soc_key)key), figures[key].source);
        }
    }
    return status;
}

static ht_status put_engine_parameters(ht_reproduction *r, ht_sheet *sheet, const ht_measured_engine *e,
                                       size_t *count) {
    ht_status status = HT_OK;
    for (int key = 0; key < HT_ENGINE_KEYS && !status; key++) {
        if (!e->figures[key].fitted)
            continue;
        ++*count;
        status = ht_sheet_row(r, sheet, "sssds", e->name, kinds[e->kind], ht_engine_key_name((ht_engine_key)key),
                              e->figures[key].value / ht_engine_key_unit((ht_engine_key)key), e->figures[key].source);
    }
    return status;
}

static ht_status put_parameters(ht_reproduction *r, const ht_measurements *m) {
    ht_sheet *sheet = ht_sheet_add(r, "validate-parameters", "Free parameters", "of,processor,figure,value,source",
                                   HT_CHART_NONE, "", "");
    ht_status status = sheet ? HT_OK : HT_ERROR_MEMORY;
    size_t count = 0, fit = 0;
    for (size_t i = 0; ht_soc_name(i) && !status; i++) {
        ht_soc *soc = NULL;
        status = ht_soc_load(ht_soc_name(i), &soc, r->error);
        if (!status)
            status = put_chip_parameters(r, sheet, soc, &count);
        ht_soc_free(soc);
    }
    for (size_t i = 0; i < m->n_engines && !status; i++)
        status = put_engine_parameters(r, sheet, &m->engines[i], &count);
    for (size_t i = 0; i < m->n_rows; i++)
        fit += !m->rows[i].test;
    char text[96];
    snprintf(text, sizeof text, "for %zu rows to fit to: at most one for four", fit);
    return status ? status : ht_sheet_row(r, sheet, "sssds", "all", "", "parameters", (double)count, text);
}

static ht_status put_left_out(ht_reproduction *r, const ht_measurements *m) {
    ht_sheet *sheet = ht_sheet_add(r, "validate-left-out", "Left out", "what,why", HT_CHART_NONE, "", "");
    ht_status status = sheet ? HT_OK : HT_ERROR_MEMORY;
    if (sheet)
        sheet->folded = true;
    for (size_t i = 0; i < m->n_left_out && !status; i++)
        status = ht_sheet_row(r, sheet, "ss", m->left_out[i].what, m->left_out[i].why);
    return status;
}

/* ---- the experiment ------------------------------------------------------------------------------------------------------------ */

ht_status ht_reproduce_validate(ht_reproduction *r) {
    ht_measurements *m = NULL;
    ht_validated *rows = NULL;
    size_t n = 0;
    ht_status status = ht_measurements_load(&m, r->error);
    if (!status)
        status = ht_validate_rows(m, r->soc, &rows, &n, r->error);
    if (!status && n) {
        status = put_dots(r, rows, n, false);
        if (!status)
            status = put_dots(r, rows, n, true);
        if (!status)
            status = put_summary(r, rows, n);
        if (!status)
            status = put_sizes(r, rows, n);
        if (!status)
            status = put_rows(r, rows, n);
    }
    if (!status)
        status = put_energies(r, m);
    if (!status && !r->soc)
        status = put_parameters(r, m);
    if (!status && !r->soc)
        status = put_left_out(r, m);
    free(rows);
    ht_measurements_free(m);
    return status;
}
