/* Rows of measurements predicted: the laws of a chip summed over a model's operators, with an engine's own costs. */
#include "reproduce/validate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- one row ---------------------------------------------------------------------------------------------------------------- */

static double engine_figure(const ht_measured_row *row, ht_engine_key key) {
    return row->engine->figures[key].value;
}

/* From the host to the processor and back, with nothing to do there. */
static double crossing_seconds(const ht_soc_processor *p) {
    return p->figures[HT_SOC_LAUNCH].value + p->figures[HT_SOC_EMPTY].value + p->figures[HT_SOC_FINISH].value;
}

typedef struct pass { /* of a model through a processor */
    const ht_measured_row *row;
    const ht_model *model;
    const ht_soc_processor *cpu; /* computes the head in some engines */
    ht_law law;                  /* of matrices in the layers, */
    double head_bits;            /* and what the head's weights have */
} pass;

/* The final norm and the head, for one token. */
static double behind_seconds(const pass *p, const ht_op *op, size_t position) {
    const ht_slice whole = {0};
    ht_law law = p->law;
    law.weight_bits = p->head_bits;
    law.few = 0;
    if (engine_figure(p->row, HT_ENGINE_HEAD_ON_CPU) > 0 && p->cpu) {
        law.processor = p->cpu;
        law.matrix_share = law.bandwidth_share = 1;
        law.whole = false;
    }
    return ht_law_work(&law, op, &whole, 1, position).seconds;
}

/* An operator of a layer. Where a program of its own expands weights, it reads them and writes them to memory before
 * the product that reads them there. */
static double inside_seconds(const pass *p, const ht_op *op, size_t tokens, size_t position) {
    const ht_slice whole = {0};
    const double written = tokens > 1 ? engine_figure(p->row, HT_ENGINE_WRITTEN_BITS) : 0;
    double weights, bytes;
    ht_law law = p->law;
    ht_law_weights(op, &whole, &weights, &bytes);
    if (written > 0)
        law.weight_bits = written;
    const double moved = written > 0 ? weights * (p->law.weight_bits + written) / 8 : 0;
    return ht_law_work(&law, op, &whole, tokens, position).seconds +
           moved / (law.processor->figures[HT_SOC_BANDWIDTH].value * law.bandwidth_share);
}

/* One pass of `tokens` tokens from `position` on. Only the last one of a prompt needs the head, for one token. */
static double pass_seconds(const pass *p, size_t tokens, size_t position, bool last) {
    double seconds = 0;
    for (size_t i = 0; i < p->model->n_ops; i++) {
        const ht_op *op = &p->model->ops[i];
        const bool behind = op->layer < 0; /* the final norm and the head */
        if (op->kind == HT_OP_EMBED || op->kind == HT_OP_ARGMAX || (behind && !last))
            continue;
        seconds += behind ? behind_seconds(p, op, position) : inside_seconds(p, op, tokens, position);
    }
    /* Kernels are submitted while others run; each takes a little besides, the law counts one an operator. */
    const ht_figure *figures = p->law.processor->figures;
    const double layers = p->model->hparams.layers;
    const double launches = engine_figure(p->row, HT_ENGINE_LAUNCHES) * layers;
    const double submits = launches * figures[HT_SOC_LAUNCH].value;
    const double calls =
        engine_figure(p->row, HT_ENGINE_CROSSINGS) + layers * engine_figure(p->row, HT_ENGINE_LAYER_CALLS);
    seconds += fmax(launches - (double)p->model->n_ops, 0) * figures[HT_SOC_OPERATOR].value;
    seconds += tokens > 1 ? layers * engine_figure(p->row, HT_ENGINE_LAYER_PREFILL) : 0;
    return fmax(seconds, submits) + calls * crossing_seconds(p->law.processor) + engine_figure(p->row, HT_ENGINE_PASS);
}

double ht_predict_row(const ht_measured_row *row, const ht_soc *soc, const ht_model *model) {
    const ht_soc_processor *processor = ht_soc_first(soc, row->engine->kind);
    if (!processor)
        return NAN;
    const double *bits = row->bits;
    const pass p = {.row = row,
                    .model = model,
                    .cpu = ht_soc_first(soc, HT_DEVICE_CPU),
                    .head_bits = bits[1] > 0 ? bits[1] : engine_figure(row, HT_ENGINE_HEAD_BITS),
                    .law = {.soc = soc,
                            .processor = processor,
                            .hparams = &model->hparams,
                            .order = HT_SIM_BEST,
                            .activations = row->engine->activations,
                            .weight_bits = bits[0] > 0 ? bits[0] : engine_figure(row, HT_ENGINE_WEIGHT_BITS),
                            .kv_bytes = engine_figure(row, HT_ENGINE_KV_BYTES),
                            .context = (size_t)engine_figure(row, HT_ENGINE_CONTEXT),
                            .matrix_share = engine_figure(row, HT_ENGINE_MATRIX_SHARE),
                            .bandwidth_share = engine_figure(row, HT_ENGINE_BANDWIDTH_SHARE),
                            .expand = engine_figure(row, HT_ENGINE_EXPAND),
                            .few = (size_t)engine_figure(row, HT_ENGINE_FEW),
                            .few_rate = engine_figure(row, HT_ENGINE_FEW_RATE),
                            .whole = engine_figure(row, HT_ENGINE_LAUNCHES) == 0}};
    if (row->decode)
        return 1 / pass_seconds(&p, 1, row->prompt, true);
    const size_t pad = (size_t)engine_figure(row, HT_ENGINE_PAD), all = row->prompt;
    const bool head = engine_figure(row, HT_ENGINE_NO_PROMPT_HEAD) == 0;
    size_t chunk = (size_t)engine_figure(row, HT_ENGINE_CHUNK);
    double seconds = 0;
    chunk = chunk ? chunk : all;
    for (size_t done = 0; done < all; done += chunk)
        seconds +=
            pass_seconds(&p, ht_round_up(ht_min_size(chunk, all - done), pad), done, head && done + chunk >= all);
    return (double)all / seconds;
}

ht_range ht_predict_energy(const ht_measured_energy *e, const ht_soc *soc, const ht_model *model) {
    const ht_soc_processor *processor = ht_soc_first(soc, e->kind);
    if (!processor)
        return (ht_range){NAN, NAN, NAN};
    if (!(e->total > 0)) {
        const double joules = e->rail / ht_predict_row(&e->row, soc, model);
        return (ht_range){joules, joules, joules};
    }
    ht_range watts = {e->rail, e->rail, e->rail};
    for (size_t i = 0; i < soc->n_processors; i++) {
        const ht_figure *idle = &soc->processors[i].figures[HT_SOC_IDLE_WATTS];
        if (&soc->processors[i] == processor)
            continue;
        watts.value += idle->value;
        watts.low += idle->low;
        watts.high += idle->high;
    }
    return watts;
}

/* ---- all rows --------------------------------------------------------------------------------------------------------------- */

typedef struct opened { /* models and chips that rows name, each once; later rows name the same */
    ht_model *models[64];
    ht_soc *socs[32];
    size_t n_models, n_socs;
} opened;

static ht_status model_named(opened *o, const char *name, ht_model **model, ht_error *error) {
    char path[96];
    snprintf(path, sizeof path, "shape:%s", name);
    for (size_t i = 0; i < o->n_models; i++)
        if (!strcmp(ht_model_get_info(o->models[i])->path, path)) {
            *model = o->models[i];
            return HT_OK;
        }
    if (o->n_models == HT_COUNT(o->models))
        return ht_fail(error, HT_ERROR_UNSUPPORTED, "more than %zu models are measured", HT_COUNT(o->models));
    ht_status status = ht_model_open(path, model, error);
    if (!status)
        o->models[o->n_models++] = *model;
    return status;
}

/* *soc stays NULL for a chip that is not described. */
static ht_status soc_named(opened *o, const char *name, const ht_soc **soc, ht_error *error) {
    for (size_t i = 0; i < o->n_socs; i++)
        if (!strcmp(o->socs[i]->name, name)) {
            *soc = o->socs[i];
            return HT_OK;
        }
    for (size_t i = 0; ht_soc_name(i) && o->n_socs < HT_COUNT(o->socs); i++)
        if (!strcmp(ht_soc_name(i), name)) {
            ht_status status = ht_soc_load(name, &o->socs[o->n_socs], error);
            *soc = status ? NULL : o->socs[o->n_socs++];
            return status;
        }
    return HT_OK;
}

static ht_status predict_one(opened *o, const ht_soc *given, ht_validated *v, ht_error *error) {
    ht_model *model = NULL;
    const ht_soc *soc = given;
    ht_status status = model_named(o, v->row->model, &model, error);
    if (!status && !given)
        status = soc_named(o, v->row->chip, &soc, error);
    if (status)
        return ht_error_prefix(error, status, "a row of rows.json");
    v->parameters = (double)ht_model_get_info(model)->parameters;
    v->predicted = soc ? ht_predict_row(v->row, soc, model) : NAN;
    return HT_OK;
}

static void close_all(opened *o) {
    for (size_t i = 0; i < o->n_models; i++)
        ht_model_close(o->models[i]);
    for (size_t i = 0; i < o->n_socs; i++)
        ht_soc_free(o->socs[i]);
}

static ht_status predict_energy(opened *o, const ht_soc *given, const ht_measured_energy *e, ht_range *predicted,
                                ht_error *error) {
    ht_model *model = NULL;
    const ht_soc *soc = given;
    ht_status status = e->total > 0 ? HT_OK : model_named(o, e->row.model, &model, error);
    if (!status && !given)
        status = soc_named(o, e->row.chip, &soc, error);
    if (status)
        return ht_error_prefix(error, status, "an energy of rows.json");
    *predicted = soc ? ht_predict_energy(e, soc, model) : (ht_range){NAN, NAN, NAN};
    return HT_OK;
}

ht_status ht_validate_energies(const ht_measurements *m, const ht_soc *soc, ht_range *predicted, ht_error *error) {
    opened o = {.n_models = 0};
    ht_status status = HT_OK;
    for (size_t i = 0; i < m->n_energies && !status; i++) {
        predicted[i] = (ht_range){NAN, NAN, NAN};
        if (!soc || !strcmp(soc->name, m->energies[i].row.chip))
            status = predict_energy(&o, soc, &m->energies[i], &predicted[i], error);
    }
    close_all(&o);
    return status;
}

ht_status ht_validate_rows(const ht_measurements *m, const ht_soc *soc, ht_validated **rows, size_t *n,
                           ht_error *error) {
    opened o = {.n_models = 0};
    *rows = NULL;
    *n = 0;
    ht_status status = ht_alloc((void **)rows, m->n_rows + 1, sizeof **rows, "rows", error);
    for (size_t i = 0; i < m->n_rows && !status; i++) {
        if (soc && strcmp(soc->name, m->rows[i].chip) != 0)
            continue;
        (*rows)[*n] = (ht_validated){.row = &m->rows[i], .predicted = NAN};
        status = predict_one(&o, soc, &(*rows)[(*n)++], error);
    }
    close_all(&o);
    if (status) {
        free(*rows);
        *rows = NULL;
    }
    return status;
}
