/* Sheets as one HTML page: a figure of each that has a chart, and its table. */
#include "profile/page.h"
#include "reproduce/reproduce.h"
#include "reproduce/validate.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define SHORT_TABLE 12 /* rows that are shown at once; longer tables are unfolded */

/* Colour i of a figure's columns. */
static int colour_of(size_t i) {
    return (int)(i % (HT_PAGE_COLOURS + 1));
}

static bool is_number(const ht_sheet *s, size_t column) {
    for (size_t i = 0; i < s->n_rows; i++)
        if (*s->rows[i][column].text)
            return false;
    return s->n_rows > 0;
}

/* Does the chart show this column? */
static bool is_drawn(const ht_sheet *s, size_t column) {
    return column > 0 && is_number(s, column) && (s->n_drawn == 0 || column <= s->n_drawn);
}

static void put_lines(ht_page *p, const ht_sheet *s) {
    double x[64], y[64];
    ht_axes a = {.x_least = INFINITY, .y_most = 1e-9, .log_x = s->log_x, .x_label = s->x_label, .y_label = s->y_label};
    for (size_t i = 0; i < s->n_rows; i++) {
        a.x_least = fmin(a.x_least, s->rows[i][0].number);
        a.x_most = fmax(a.x_most, s->rows[i][0].number);
        for (size_t c = 1; c < s->n_columns; c++)
            a.y_most = fmax(a.y_most, s->rows[i][c].number); /* fmax passes by what is no number */
    }
    if (!s->log_x && a.x_least < a.x_most / 4)
        a.x_least = 0;
    if (!(a.x_least < a.x_most)) /* a single point, or none that is a number: there is nothing to draw */
        return;
    ht_page_begin_plot(p, s->title, &a);
    for (size_t c = 1; c < s->n_columns; c++) {
        size_t n = 0;
        for (size_t i = 0; i < s->n_rows && n < HT_COUNT(x); i++)
            if (isfinite(s->rows[i][c].number)) {
                x[n] = s->rows[i][0].number;
                y[n++] = s->rows[i][c].number;
            }
        if (n)
            ht_page_curve(p, &a, x, y, n, colour_of(c - 1), s->chart == HT_CHART_STAIRS, s->y_label);
    }
    ht_page_end_figure(p);
}

/* Each number over the first column, with the rows' names, which the last column has. Axes are whole decades. */
static void put_dots(ht_page *p, const ht_sheet *s) {
    ht_axes a = {.x_least = INFINITY, .log_x = true, .square = true, .x_label = s->x_label, .y_label = s->y_label};
    for (size_t i = 0; i < s->n_rows; i++)
        for (size_t c = 0; c + 1 < s->n_columns; c++) {
            a.x_least = fmin(a.x_least, s->rows[i][c].number); /* fmin and fmax pass by what is no number */
            a.x_most = fmax(a.x_most, s->rows[i][c].number);
        }
    a.x_least = pow(10, floor(log10(a.x_least)));
    a.x_most = fmax(10 * a.x_least, pow(10, ceil(log10(a.x_most))));
    if (!(a.x_least > 0 && a.x_most < INFINITY))
        return;
    ht_page_begin_plot(p, s->title, &a);
    for (int i = -1; i <= 1; i++)
        ht_page_rule(p, &a, 1 + i * HT_VALIDATE_NEAR);
    for (size_t i = 0; i < s->n_rows; i++)
        for (size_t c = 1; c + 1 < s->n_columns; c++)
            if (isfinite(s->rows[i][c].number))
                ht_page_dot(p, &a, s->rows[i][0].number, s->rows[i][c].number, colour_of(c - 1), c == 1,
                            s->rows[i][s->n_columns - 1].text);
    ht_page_end_figure(p);
}

static size_t count_drawn(const ht_sheet *s) {
    size_t n = 0;
    for (size_t c = 1; c < s->n_columns; c++)
        n += is_drawn(s, c);
    return n;
}

/* Rows one under the other; of several columns the row's name stands at the first bar of each group. */
static void put_bars(ht_page *p, const ht_sheet *s) {
    ht_bars bars = {.title = s->title, .unit = s->y_label};
    for (size_t i = 0; i < s->n_rows; i++) {
        char label[96];
        if (*s->rows[i][0].text)
            snprintf(label, sizeof label, "%.90s", s->rows[i][0].text);
        else
            snprintf(label, sizeof label, "%.6g %s", s->rows[i][0].number, s->x_label);
        for (size_t c = 1; c < s->n_columns; c++) {
            if (!is_drawn(s, c) || !isfinite(s->rows[i][c].number))
                continue;
            ht_bar *bar = ht_page_add_bar(p, &bars, label, s->rows[i][c].number, colour_of(c - 1));
            bar->to = fmax(bar->to, 0);
            bar->begins = *label && count_drawn(s) > 1;
            *label = 0;
        }
    }
    ht_page_bars(p, &bars);
}

/* What the colours mean; a single one means nothing. */
static void put_keys(ht_page *p, const ht_sheet *s) {
    if (count_drawn(s) < 2)
        return;
    HT_PUT(p, "<p class=\"legend\">");
    for (size_t c = 1; c < s->n_columns; c++)
        if (is_drawn(s, c))
            ht_page_key(p, colour_of(c - 1), s->columns[c]);
    HT_PUT(p, "</p>\n");
}

static void put_cell(ht_page *p, const ht_cell *cell, bool left) {
    char text[32];
    HT_PUT(p, "<td%s>", strlen(cell->text) > 24 ? " class=\"left long\"" : left ? " class=\"left\"" : "");
    if (*cell->text)
        ht_page_text(p, cell->text);
    else if (!isfinite(cell->number))
        HT_PUT(p, "–");
    else if (cell->number == floor(cell->number) && fabs(cell->number) < 1e6)
        HT_PUT(p, "%.0f", cell->number);
    else
        HT_PUT(p, "%s", ht_page_number(cell->number, text));
    HT_PUT(p, "</td>");
}

static void put_table(ht_page *p, const ht_sheet *s) {
    const bool folds = s->n_rows > SHORT_TABLE && (s->folded || s->chart != HT_CHART_NONE);
    if (folds)
        HT_PUT(p, "<details><summary>The values</summary>");
    HT_PUT(p, "<div class=\"scroll\"><table>\n<tr>");
    for (size_t c = 0; c < s->n_columns; c++) {
        HT_PUT(p, is_number(s, c) ? "<th>" : "<th class=\"left\">");
        ht_page_text(p, s->columns[c]);
        HT_PUT(p, "</th>");
    }
    HT_PUT(p, "</tr>\n");
    for (size_t i = 0; i < s->n_rows; i++) {
        HT_PUT(p, "<tr>");
        for (size_t c = 0; c < s->n_columns; c++)
            put_cell(p, &s->rows[i][c], !is_number(s, c));
        HT_PUT(p, "</tr>\n");
    }
    HT_PUT(p, "</table></div>%s\n", folds ? "</details>" : "");
}

static void put_sheet(ht_page *p, const ht_sheet *s) {
    if (s->n_rows == 0)
        return;
    HT_PUT(p, "<div class=\"sheet%s\" id=\"%s\">\n", s->chart == HT_CHART_NONE ? " wide" : "", s->id);
    if (s->chart == HT_CHART_NONE) {
        HT_PUT(p, "<h3>");
        ht_page_text(p, s->title);
        HT_PUT(p, "</h3>\n");
    } else {
        if (s->chart == HT_CHART_BARS)
            put_bars(p, s);
        else if (s->chart == HT_CHART_DOTS)
            put_dots(p, s);
        else
            put_lines(p, s);
        put_keys(p, s);
    }
    put_table(p, s);
    HT_PUT(p, "</div>\n");
}

static void put_contents(ht_page *p, const ht_section *sections, size_t n) {
    HT_PUT(p, "<nav>");
    for (size_t i = 0; i < n; i++)
        if (sections[i].n)
            HT_PUT(p, "<a href=\"#%s\">%s</a> ", sections[i].id, sections[i].title);
    HT_PUT(p, "</nav>\n");
}

static void put_beginning(ht_page *p, const ht_reproduction *r) {
    const ht_soc *soc = r->soc;
    ht_page_begin(p, r->title && !soc ? r->title : *soc->description ? soc->description : soc->name);
    if (!soc) {
        HT_PUT(p, "<p>%s</p>\n", r->about);
        return;
    }
    HT_PUT(p, "<p>The experiments of HeteroLLM (arXiv 2501.14794) on a simulated <code>");
    ht_page_text(p, soc->spec);
    HT_PUT(p, "</code>: hetero's own planner and executor, in virtual time. Results are predictions of a model whose "
              "every figure is listed at the end; nothing here was measured on the chip.</p>\n");
}

ht_status ht_reproduce_page(const ht_reproduction *r, const ht_section *sections, size_t n, const char *path) {
    ht_page page = {.error = r->error}, *p = &page;
    put_beginning(p, r);
    HT_PUT(p, "<div class=\"cards\">\n");
    for (size_t i = 0; i < r->n_headlines; i++) {
        HT_PUT(p, "<div><b>");
        ht_page_text(p, r->headlines[i].value);
        HT_PUT(p, "</b>");
        ht_page_text(p, r->headlines[i].text);
        HT_PUT(p, "</div>\n");
    }
    HT_PUT(p, "</div>\n");
    put_contents(p, sections, n);
    for (size_t i = 0; i < n; i++) {
        if (!sections[i].n)
            continue;
        HT_PUT(p, "<section id=\"%s\">\n<h2>%s</h2>\n<p>%s</p>\n<div class=\"figures\">\n", sections[i].id,
               sections[i].title, sections[i].about);
        for (size_t k = 0; k < sections[i].n; k++)
            put_sheet(p, &sections[i].sheets[k]);
        HT_PUT(p, "</div>\n</section>\n");
    }
    return ht_page_end(p, path);
}
