/* The paper's experiments on a simulated SoC: what the files of `hetero reproduce` share.
 *
 * An experiment fills sheets: tables of text and numbers that know how they are to be drawn. The report and tables.json are
 * made of them and know nothing of experiments. */
#ifndef HT_PLAN_REPRODUCE_H
#define HT_PLAN_REPRODUCE_H

#include "device/sim/soc.h"
#include "engine/engine.h"
#include "profile/characterise.h"

#define HT_SHEET_COLUMNS 12

typedef enum ht_chart {
    HT_CHART_NONE,
    HT_CHART_BARS,   /* a group of bars for each row: its number columns side by side */
    HT_CHART_LINES,  /* a line for each column after the first, over the first */
    HT_CHART_STAIRS, /* the same, holding back to the x before */
    HT_CHART_DOTS /* a dot for each number, over the first column, on logarithmic axes: where they should be as large as the
                     * first column, or within 40% */
} ht_chart;

typedef struct ht_cell {
    char text[192];
    double number; /* drawn and written where text is empty; NAN: nothing */
} ht_cell;

typedef struct ht_sheet {
    char id[40], title[120];
    const char *x_label, *y_label; /* of the chart */
    ht_chart chart;
    bool log_x, folded; /* folded: the table is shown on demand */
    size_t n_drawn;     /* columns behind the first that the chart shows; 0: all numbers */
    size_t n_columns, n_rows, capacity;
    char columns[HT_SHEET_COLUMNS][40];
    ht_cell (*rows)[HT_SHEET_COLUMNS];
} ht_sheet;

typedef struct ht_section { /* an experiment and its sheets */
    const char *id, *title, *about;
    ht_sheet *sheets;
    size_t n, capacity;
} ht_section;

typedef struct ht_headline { /* what the report says first */
    char value[40], text[160];
} ht_headline;

typedef struct ht_reproduction {
    const ht_soc *soc;           /* NULL: of no single chip (--validate) */
    const char *gpu, *npu, *cpu; /* names of its processors; NULL: it has none */
    ht_model *models[4];         /* the paper's */
    ht_section *section;         /* that is being filled */
    ht_headline headlines[8];
    size_t n_headlines;
    ht_error *error;
} ht_reproduction;

/* Starts a sheet of the section; `columns` with commas. NULL: memory ran out, as the error says. */
ht_sheet *ht_sheet_add(ht_reproduction *r, const char *id, const char *title, const char *columns, ht_chart chart,
                       const char *x_label, const char *y_label);
/* Adds a row as the format says, a letter for each column: s a text (const char *), d a number (double). A NAN is left out. */
ht_status ht_sheet_row(ht_reproduction *r, ht_sheet *sheet, const char *format, ...);

/* Adds a headline; the format is of its value. */
void ht_headline_add(ht_reproduction *r, const char *text, const char *format, ...) HT_PRINTF(3, 4);

/* ---- runs of whole models (reproduce_runs.c) ------------------------------------------------------------------------------ */

typedef struct ht_setup { /* how a model is run */
    const char *name;
    const char *gpu, *npu, *cpu; /* options of these devices ("": none); NULL: it is not used */
    ht_strategy strategy;
    const char *cuts;
    ht_sync sync;
    bool padded;     /* the only static length is the next standard one */
    const char *soc; /* another description than the reproduction's; NULL: that */
    double game;     /* share of the GPU that a game of 60 frames a second takes, once the devices have been measured */
    bool blind;      /* the planner thinks that lanes do not slow each other down */
    bool by_operator; /* nothing is planned over a whole layer */
    bool fixed;       /* plans stay as they were made: nothing is learnt from passes */
} ht_setup;

typedef struct ht_outcome {
    double tps, predicted; /* tokens a second; NAN: it cannot be run so */
    double joules;         /* a token; NAN: the file has no power */
    double frames, due;    /* of the game, a second */
    char plan[64];         /* the regime */
} ht_outcome;

/* Prefill of `prompt` tokens, or `gen` tokens decoded. What cannot be run (a device is missing, no memory) is an outcome, not
 * an error. */
ht_status ht_reproduce_run(ht_reproduction *r, const ht_setup *setup, ht_model *model, int prompt, int gen,
                           ht_outcome *outcome);

uint64_t ht_reproduce_graph_memory(const ht_reproduction *r);

/* Experiments. */
ht_status ht_reproduce_paper(ht_reproduction *r);
ht_status ht_reproduce_decisions(ht_reproduction *r);
ht_status ht_reproduce_curves(ht_reproduction *r);
ht_status ht_reproduce_order(ht_reproduction *r);
ht_status ht_reproduce_shape(ht_reproduction *r);
ht_status ht_reproduce_bandwidth(ht_reproduction *r);
ht_status ht_reproduce_joins(ht_reproduction *r);
ht_status ht_reproduce_graphs(ht_reproduction *r);
ht_status ht_reproduce_prefill(ht_reproduction *r);
ht_status ht_reproduce_odd(ht_reproduction *r);
ht_status ht_reproduce_decode(ht_reproduction *r);
ht_status ht_reproduce_sync(ht_reproduction *r);
ht_status ht_reproduce_ablation(ht_reproduction *r);
ht_status ht_reproduce_gains(ht_reproduction *r);
ht_status ht_reproduce_sweeps(ht_reproduction *r);
ht_status ht_reproduce_game(ht_reproduction *r);
ht_status ht_reproduce_energy(ht_reproduction *r);
ht_status ht_reproduce_validate(ht_reproduction *r);
ht_status ht_reproduce_figures(ht_reproduction *r);

/* ---- the report (reproduce_page.c) ------------------------------------------------------------------------------------------ */

ht_status ht_reproduce_page(const ht_reproduction *r, const ht_section *sections, size_t n, const char *path);

#endif
