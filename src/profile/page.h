/* What reports draw with: one HTML page of text, tables and inline SVG that needs nothing else, in light and dark. Figures are
 * HT_PAGE_WIDTH units wide, so that a phone shows their text about as large as its own. */
#ifndef HT_PLAN_PAGE_H
#define HT_PLAN_PAGE_H

#include "base/base.h"

#define HT_PAGE_WIDTH 420
#define HT_PAGE_COLOURS 7 /* that tell things apart; one more, grey, for what is beside the point */

typedef struct ht_page {
    ht_text text;
    ht_status status; /* the first failure; nothing is written after it */
    ht_error *error;
} ht_page;

#define HT_PUT(p, ...) ((p)->status = (p)->status ? (p)->status : ht_text_printf(&(p)->text, (p)->error, __VA_ARGS__))

void ht_page_begin(ht_page *page, const char *title); /* up to the heading */
void ht_page_text(ht_page *page, const char *text);   /* what HTML would read otherwise is escaped */
/* The end of the page, then writes it to a path, which may be /dev/stdout, and frees the text, whatever became of it. */
ht_status ht_page_end(ht_page *page, const char *path);

/* Three significant digits, without an exponent. */
const char *ht_page_number(double value, char out[32]);
/* One mark of colour with what it stands for; between <p class="legend"> and </p>. */
void ht_page_key(ht_page *page, int colour, const char *name);

/* ---- plots: lines over an area --------------------------------------------------------------------------------------------- */

typedef struct ht_axes {
    double x_least, x_most, y_most; /* y begins at 0; x_least must be positive on a logarithmic axis */
    bool log_x;
    bool square; /* y is as x, from x_least to x_most, in a square area, and so is its scale */
    const char *x_label, *y_label;
} ht_axes;

void ht_page_begin_plot(ht_page *page, const char *title, ht_axes *axes); /* y_most grows to a whole mark */
void ht_page_end_figure(ht_page *page);
/* n points joined: by a line, or by stairs where a value holds back to the x before. `unit` is for who points at a dot. */
void ht_page_curve(ht_page *page, const ht_axes *axes, const double *x, const double *y, size_t n, int colour,
                   bool stairs, const char *unit);
/* A dot: a ring, or a square. `name` is for who points at it. */
void ht_page_dot(ht_page *page, const ht_axes *axes, double x, double y, int colour, bool ring, const char *name);
/* y = factor * x, on square axes. */
void ht_page_rule(ht_page *page, const ht_axes *axes, double factor);

/* ---- bars -------------------------------------------------------------------------------------------------------------------- */

typedef struct ht_bar {
    char label[48], value[48];
    double from, to, mark; /* ends; mark: a second value behind it, 0: none */
    int colour;
    bool begins; /* a group */
} ht_bar;

typedef struct ht_bars { /* a figure of them */
    const char *title, *unit;
    bool dots; /* on a logarithmic axis: a dot, and a line to the mark */
    ht_bar *at;
    size_t n, capacity;
} ht_bars;

/* Never NULL: after a failure what is written there is not read. */
ht_bar *ht_page_add_bar(ht_page *page, ht_bars *bars, const char *label, double value, int colour);
void ht_page_bars(ht_page *page, ht_bars *bars); /* draws and frees them; nothing if none is above 0 */

#endif
