/* The paper's experiments on a simulated SoC: what the files of `hetero reproduce` share.
 *
 * An experiment fills sheets: tables of text and numbers that know how they are to be drawn. The report and tables.json are
 * made of them and know nothing of experiments. */
#ifndef HT_PLAN_REPRODUCE_H
#define HT_PLAN_REPRODUCE_H

#include "device/sim/machine.h"
#include "engine/engine.h"
#include "profile/characterise.h"
#include "reproduce/energy.h"

#define HT_SHEET_COLUMNS 16

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
    const char *title, *about;   /* of the page; NULL: of the paper's experiments on one chip */
    const ht_soc *soc;           /* NULL: of no single chip */
    const char *gpu, *npu, *cpu; /* names of its processors; NULL: it has none */
    ht_model *models[4];         /* the paper's, or those that chips are compared with; NULL: no more */
    ht_section *section;         /* that is being filled */
    ht_headline headlines[8];
    size_t n_headlines;
    const struct ht_comparison *comparison; /* of chips; NULL: nothing is compared */
    ht_error *error;
} ht_reproduction;

/* Makes r one of this chip. */
void ht_reproduction_of(ht_reproduction *r, const ht_soc *soc);

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
    bool may_stay;    /* one lane alone where that is predicted to be quicker, whatever the strategy */
    bool own_memory;  /* graphs have what the chip's sessions hold, not all of the memory */
    bool explain;     /* the outcome's plan in words, too */
} ht_setup;

/* What the time of a run went to, as shares of it: their sum is 1. */
typedef struct ht_spent {
    double parts[HT_SOC_MAX_PROCESSORS][HT_WORK_PARTS]; /* while processors computed (machine.h) */
    double waiting;                                     /* none did: joins, launches, the host */
} ht_spent;

typedef struct ht_outcome {
    double tps, predicted; /* tokens a second; NAN: it cannot be run so */
    ht_energy energy;      /* of a token */
    ht_range joules;       /* likewise; NAN: the file has no power */
    ht_spent spent;
    double shares[HT_SOC_MAX_PROCESSORS]; /* of the bytes that were moved in decode, of the operations in prefill */
    double frames, due;                   /* of the game, a second */
    char plan[64];                        /* the regime */
    char cuts[64];                        /* of a layer, "feature, head"; "": one lane does all, or nobody asked */
    size_t joins, lanes;                  /* joins of a layer; lanes that the planner could choose from */
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
ht_status ht_reproduce_measured_energy(ht_reproduction *r);
ht_status ht_reproduce_chips(ht_reproduction *r);
ht_status ht_reproduce_planners(ht_reproduction *r);
ht_status ht_reproduce_validate(ht_reproduction *r);
ht_status ht_reproduce_figures(ht_reproduction *r);

/* ---- the report (reproduce_page.c) ------------------------------------------------------------------------------------------ */

ht_status ht_reproduce_page(const ht_reproduction *r, const ht_section *sections, size_t n, const char *path);

#endif
