/* The profile as one HTML file: figures as inline SVG, the numbers under each as a table, nothing to fetch and nothing to
 * run. Figures are 420 units wide, so that a phone shows their text about as large as its own. */
#include "plan/characterise.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WIDTH 420
#define LEFT 52 /* of the area of a plot */
#define RIGHT 408
#define HEIGHT 250 /* of a plot's figure */
#define BASE 208   /* y of a plot's axis */
#define TOP 12
#define LABELS 128 /* width of the labels before bars */
#define ROW 19     /* height of a bar with its gap */
#define COLOURS 6

typedef struct page {
    const ht_profile_result *result;
    ht_text text;
    ht_status status; /* the first failure; nothing is written after it */
    ht_error *error;
} page;

#define PUT(p, ...) ((p)->status = (p)->status ? (p)->status : ht_text_printf(&(p)->text, (p)->error, __VA_ARGS__))

static void put_text(page *p, const char *text) {
    for (; *text; text++)
        if (*text == '<' || *text == '>' || *text == '&' || *text == '"')
            PUT(p, "&#%d;", *text);
        else
            PUT(p, "%c", *text);
}

static const char *device_name(const page *p, int device) {
    return p->result->devices[device].spec;
}

static size_t count(const page *p, ht_profile_table table, int device) {
    size_t n = 0;
    for (size_t i = 0; i < p->result->n_points; i++)
        n += p->result->points[i].table == table && (device < 0 || p->result->points[i].device == device);
    return n;
}

/* Three significant digits, without an exponent. */
static const char *number(double value, char out[32]) {
    const double size = fabs(value);
    snprintf(out, 32, "%.*f", size >= 99.95 ? 0 : size >= 9.995 ? 1 : size >= 0.9995 ? 2 : size > 0 ? 3 : 0, value);
    return out;
}

/* ---- figures ---------------------------------------------------------------------------------------------------------------- */

static void begin_figure(page *p, const char *title, int height) {
    PUT(p, "<figure>\n<figcaption>");
    put_text(p, title);
    PUT(p, "</figcaption>\n<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"", WIDTH, height);
    put_text(p, title);
    PUT(p, "\">\n");
}

static void end_figure(page *p) {
    PUT(p, "</svg>\n</figure>\n");
}

static void put_label(page *p, double x, double y, const char *anchor, const char *text) {
    PUT(p, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", x, y, anchor);
    put_text(p, text);
    PUT(p, "</text>\n");
}

/* The step between marks of an axis from 0 to `most`: 1, 2 or 5 times a power of ten, four or so of them. */
static double step_of(double most) {
    const double raw = most / 4, power = pow(10, floor(log10(raw))), lead = raw / power;
    return power * (lead < 1.5 ? 1 : lead < 3.5 ? 2 : lead < 7.5 ? 5 : 10);
}

typedef struct axes { /* of a plot: x in tokens, y from 0 */
    double x_most, y_most;
    bool log_x;
} axes;

static double x_of(const axes *a, double tokens) {
    const double share = a->log_x ? log2(tokens) / log2(a->x_most) : tokens / a->x_most;
    return LEFT + share * (RIGHT - LEFT);
}

static double y_of(const axes *a, double value) {
    return BASE - value / a->y_most * (BASE - TOP);
}

static void put_axes(page *p, axes *a, const char *y_label) {
    char text[32];
    const double step = step_of(a->y_most);
    a->y_most = ceil(a->y_most / step - 1e-9) * step;
    for (int i = 0; i * step <= a->y_most + step / 2; i++) {
        const double y = i * step;
        PUT(p, "<path class=\"grid\" d=\"M%d %.1fH%d\"/>\n", LEFT, y_of(a, y), RIGHT);
        snprintf(text, sizeof text, "%.6g", y);
        put_label(p, LEFT - 5, y_of(a, y) + 4, "end", text);
    }
    const double x_step = a->log_x ? 0 : step_of(a->x_most);
    for (int i = 0; (a->log_x ? ldexp(1, i) : i * x_step) <= a->x_most * 1.0001; i++) {
        const double x = a->log_x ? ldexp(1, i) : i * x_step;
        PUT(p, "<path class=\"axis\" d=\"M%.1f %dv4\"/>\n", x_of(a, x), BASE);
        snprintf(text, sizeof text, "%.0f", x);
        put_label(p, x_of(a, x), BASE + 16, "middle", text);
    }
    PUT(p, "<path class=\"axis\" d=\"M%d %dV%dH%d\"/>\n", LEFT, TOP, BASE, RIGHT);
    put_label(p, (LEFT + RIGHT) / 2.0, BASE + 33, "middle", a->log_x ? "tokens (logarithmic)" : "tokens");
    PUT(p, "<text transform=\"translate(12 %d) rotate(-90)\" text-anchor=\"middle\">%s</text>\n", (BASE + TOP) / 2,
        y_label);
}

/* One device's points, joined: by a staircase where a value holds back to the number of tokens before. */
static void put_curve(page *p, const axes *a, int device, bool rates, bool stairs) {
    const ht_profile_result *result = p->result;
    const int colour = device % COLOURS;
    bool first = true;
    PUT(p, "<path class=\"line s%d\" d=\"", colour);
    for (size_t i = 0; i < result->n_points; i++) {
        const ht_profile_point *point = &result->points[i];
        if (point->table != HT_PROFILE_CURVE || point->device != device)
            continue;
        const double x = x_of(a, (double)point->tokens);
        const double y = y_of(a, rates ? ht_profile_rate(point) : point->seconds * 1e3);
        if (first || !stairs)
            PUT(p, "%c%.1f %.1f", first ? 'M' : 'L', x, y);
        else
            PUT(p, "V%.1fH%.1f", y, x);
        first = false;
    }
    PUT(p, "\"/>\n");
    for (size_t i = 0; i < result->n_points; i++) {
        const ht_profile_point *point = &result->points[i];
        if (point->table != HT_PROFILE_CURVE || point->device != device)
            continue;
        const double value = rates ? ht_profile_rate(point) : point->seconds * 1e3;
        PUT(p, "<circle class=\"f%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"2.8\"><title>%zu tokens: %.4g %s</title></circle>\n",
            colour, x_of(a, (double)point->tokens), y_of(a, value), point->tokens, value, rates ? "GFLOP/s" : "ms");
    }
}

/* Limits of the points of a device; -1: of all. */
static axes limits(const page *p, int device, bool rates) {
    axes a = {.x_most = 2, .y_most = 1e-6, .log_x = rates};
    for (size_t i = 0; i < p->result->n_points; i++) {
        const ht_profile_point *point = &p->result->points[i];
        if (point->table != HT_PROFILE_CURVE || (device >= 0 && point->device != device))
            continue;
        a.x_most = fmax(a.x_most, (double)point->tokens);
        a.y_most = fmax(a.y_most, rates ? ht_profile_rate(point) : point->seconds * 1e3);
    }
    return a;
}

static void put_legend(page *p, ht_profile_table table) {
    PUT(p, "<p class=\"legend\">");
    for (size_t i = 0; i < p->result->n_devices; i++)
        if (count(p, table, (int)i)) {
            PUT(p, "<span><i class=\"b%d\"></i>", (int)i % COLOURS);
            put_text(p, device_name(p, (int)i));
            PUT(p, "</span> ");
        }
    PUT(p, "</p>\n");
}

/* ---- bars ------------------------------------------------------------------------------------------------------------------- */

typedef struct bar {
    char label[48], value[48];
    double from, to, mark; /* ends; mark: a second value behind it, 0: none */
    int colour;
} bar;

typedef struct bars { /* a figure of them */
    const char *title, *unit;
    bool dots; /* on a logarithmic axis: a dot, and a line to the mark */
    bar *at;
    size_t n, capacity;
} bars;

static bar *add_bar(page *p, bars *all, const char *label, double value, int colour) {
    static bar nowhere; /* what is written there is never read */
    char text[32];
    if (!p->status)
        p->status = ht_grow((void **)&all->at, &all->capacity, all->n + 1, sizeof *all->at, "the report", p->error);
    if (p->status)
        return &nowhere;
    bar *made = &all->at[all->n++];
    *made = (bar){.to = value, .colour = colour};
    snprintf(made->label, sizeof made->label, "%s", label);
    snprintf(made->value, sizeof made->value, "%s", number(value, text));
    return made;
}

static double bar_x(const bars *all, double value, double least, double most) {
    const double space = RIGHT - 40 - LABELS; /* the value stands behind the longest */
    return LABELS + space * (all->dots ? log10(fmax(value, least) / least) / log10(most / least) : value / most);
}

static void put_bar_axis(page *p, const bars *all, double least, double most, int height) {
    char text[32];
    const double step = all->dots ? 0 : step_of(most);
    for (int i = 0; (all->dots ? least * pow(10, i) : i * step) <= most * 1.0001; i++) {
        const double x = all->dots ? least * pow(10, i) : i * step;
        PUT(p, "<path class=\"grid\" d=\"M%.1f 4V%d\"/>\n", bar_x(all, x, least, most), height - 36);
        snprintf(text, sizeof text, "%.6g", x);
        put_label(p, bar_x(all, x, least, most), height - 22, "middle", text);
    }
    PUT(p, "<path class=\"axis\" d=\"M%d 4V%d\"/>\n", LABELS, height - 36);
    put_label(p, (LABELS + RIGHT - 40) / 2.0, height - 6, "middle", all->unit);
}

static void put_bars(page *p, bars *all) {
    double most = 0, least = 1e30;
    for (size_t i = 0; i < all->n; i++) {
        most = fmax(most, fmax(all->at[i].to, all->at[i].mark));
        least = fmin(least, fmax(all->at[i].to, 1e-3));
    }
    if (all->dots) { /* whole decades */
        least = pow(10, floor(log10(least)));
        most = fmax(10 * least, pow(10, ceil(log10(most))));
    }
    const int height = (int)all->n * ROW + 44;
    if (all->n && most > 0) {
        begin_figure(p, all->title, height);
        put_bar_axis(p, all, least, most, height);
    }
    for (size_t i = 0; i < all->n && most > 0; i++) {
        const bar *b = &all->at[i];
        const double y = (double)i * ROW + 6, from = bar_x(all, b->from, least, most);
        const double to = bar_x(all, b->to, least, most), end = b->mark > 0 ? bar_x(all, b->mark, least, most) : to;
        if (*b->label)
            put_label(p, LABELS - 6, y + 11, "end", b->label);
        if (all->dots)
            PUT(p,
                "<path class=\"line s%d\" d=\"M%.1f %.1fH%.1fm0 -4v8\"/><circle class=\"f%d\" cx=\"%.1f\" cy=\"%.1f\" "
                "r=\"4\"/>\n",
                b->colour, to, y + 7, end, b->colour, to, y + 7);
        else
            PUT(p, "<rect class=\"f%d\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"13\"/>\n", b->colour, from, y,
                fmax(to - from, 0.5));
        put_label(p, end + 6, y + 11, "start", b->value);
    }
    if (all->n && most > 0)
        end_figure(p);
    free(all->at);
    all->at = NULL;
    all->n = all->capacity = 0;
}

/* ---- tables ----------------------------------------------------------------------------------------------------------------- */

static void put_table(page *p, ht_profile_table table) {
    const bool rate = table != HT_PROFILE_JOINS && table != HT_PROFILE_GRAPHS;
    const bool sized = table != HT_PROFILE_JOINS, with = table == HT_PROFILE_BANDWIDTH;
    const bool what = table == HT_PROFILE_ORDER || table == HT_PROFILE_SHAPE || table == HT_PROFILE_JOINS;
    char text[32];
    PUT(p, "<details><summary>The values</summary><div class=\"scroll\"><table>\n<tr><th>device</th>%s%s%s%s%s</tr>\n",
        what   ? "<th>of what</th>"
        : with ? "<th>beside it</th>"
               : "",
        sized ? "<th>rows</th><th>columns</th><th>tokens</th>" : "",
        with                         ? ""
        : table == HT_PROFILE_GRAPHS ? "<th>ms to build</th><th>MiB</th>"
                                     : "<th>µs</th>",
        table == HT_PROFILE_JOINS ? "<th>µs, 99th percentile</th>" : "",
        !rate  ? ""
        : with ? "<th>GB/s</th>"
               : "<th>GFLOP/s</th>");
    for (size_t i = 0; i < p->result->n_points; i++) {
        const ht_profile_point *point = &p->result->points[i];
        if (point->table != table)
            continue;
        PUT(p, "<tr><td>");
        put_text(p, device_name(p, point->device));
        PUT(p, "</td>");
        if (what || with) {
            PUT(p, "<td>");
            put_text(p, what ? point->what : point->with < 0 ? "nothing" : device_name(p, point->with));
            PUT(p, "</td>");
        }
        if (sized)
            PUT(p, "<td>%zu</td><td>%zu</td><td>%zu</td>", point->rows, point->cols, point->tokens);
        if (table == HT_PROFILE_GRAPHS)
            PUT(p, "<td>%.1f</td><td>%.2f</td>", point->seconds * 1e3, point->bytes / 1048576);
        else if (!with)
            PUT(p, "<td>%.1f</td>", point->seconds * 1e6);
        if (table == HT_PROFILE_JOINS)
            PUT(p, "<td>%.1f</td>", point->p99 * 1e6);
        if (rate)
            PUT(p, "<td>%s</td>", number(ht_profile_rate(point), text));
        PUT(p, "</tr>\n");
    }
    PUT(p, "</table></div></details>\n");
}

static bool begin_section(page *p, ht_profile_table table, const char *title, const char *about) {
    if (!count(p, table, -1))
        return false;
    PUT(p, "<section id=\"%s\">\n<h2>%s</h2>\n<p>%s</p>\n", ht_profile_table_name(table), title, about);
    return true;
}

static void end_section(page *p, ht_profile_table table) {
    put_table(p, table);
    PUT(p, "</section>\n");
}

static void put_curves(page *p) {
    char title[320];
    if (!begin_section(
            p, HT_PROFILE_CURVE, "Time by number of tokens",
            "The largest matrix of a layer. A device that takes any length goes up in a line; one with static "
            "graphs pads to the next length, or puts several together: a staircase. Every dot was measured."))
        return;
    PUT(p, "<div class=\"figures\">\n");
    for (int i = 0; i < (int)p->result->n_devices; i++) {
        const ht_profile_device *device = &p->result->devices[i];
        if (!count(p, HT_PROFILE_CURVE, i))
            continue;
        axes a = limits(p, i, false);
        snprintf(title, sizeof title, "%s%s", device->spec, device->static_graphs ? ", static graphs" : "");
        begin_figure(p, title, HEIGHT);
        put_axes(p, &a, "time, ms");
        put_curve(p, &a, i, false, device->static_graphs);
        end_figure(p);
    }
    axes a = limits(p, -1, true);
    begin_figure(p, "All devices: arithmetic a second", HEIGHT);
    put_axes(p, &a, "GFLOP/s");
    for (int i = 0; i < (int)p->result->n_devices; i++)
        if (count(p, HT_PROFILE_CURVE, i))
            put_curve(p, &a, i, true, false);
    end_figure(p);
    PUT(p, "</div>\n");
    put_legend(p, HT_PROFILE_CURVE);
    end_section(p, HT_PROFILE_CURVE);
}

typedef enum measure { RATE, MICROSECONDS, MILLISECONDS, MEBIBYTES } measure;

static double value_of(const ht_profile_point *point, measure which) {
    return which == RATE           ? ht_profile_rate(point)
           : which == MICROSECONDS ? point->seconds * 1e6
           : which == MILLISECONDS ? point->seconds * 1e3
                                   : point->bytes / 1048576;
}

/* A figure of bars for each device that has points of the table. */
static void put_device_bars(page *p, ht_profile_table table, measure which) {
    static const char *const units[] = {"GFLOP/s", "µs (logarithmic)", "ms to build", "MiB of memory"};
    for (int d = 0; d < (int)p->result->n_devices; d++) {
        bars all = {.title = device_name(p, d), .unit = units[which], .dots = which == MICROSECONDS};
        for (size_t i = 0; i < p->result->n_points; i++) {
            const ht_profile_point *point = &p->result->points[i];
            char label[64];
            if (point->table != table || point->device != d)
                continue;
            snprintf(label, sizeof label, "%s", point->what);
            if (table == HT_PROFILE_ORDER)
                snprintf(label, sizeof label, "%.14s, %zu", point->what, point->tokens);
            if (table == HT_PROFILE_GRAPHS)
                snprintf(label, sizeof label, "%zu × %zu, %zu", point->rows, point->cols, point->tokens);
            const bool other = table == HT_PROFILE_ORDER && strcmp(point->what, "weights") == 0;
            bar *made = add_bar(p, &all, label, value_of(point, which), other ? COLOURS : d % COLOURS);
            made->mark = which == MICROSECONDS ? point->p99 * 1e6 : 0;
        }
        put_bars(p, &all);
    }
}

static void put_figures(page *p, ht_profile_table table, measure first, measure last) {
    PUT(p, "<div class=\"figures\">\n");
    for (measure which = first; which <= last; which++)
        put_device_bars(p, table, which);
    PUT(p, "</div>\n");
    end_section(p, table);
}

static void put_orders(page *p) {
    if (!begin_section(
            p, HT_PROFILE_ORDER, "Order of operands",
            "The same product on static graphs with either operand first: activations times weights, and weights "
            "times activations; behind the name the number of tokens."))
        return;
    put_figures(p, HT_PROFILE_ORDER, RATE, RATE);
}

static void put_shapes(page *p) {
    if (!begin_section(
            p, HT_PROFILE_SHAPE, "Shape",
            "About as many weights in other proportions of rows to columns, then parts of the rows of the largest "
            "matrix, as a cut between devices makes them; all with the same number of tokens."))
        return;
    put_figures(p, HT_PROFILE_SHAPE, RATE, RATE);
}

static void put_joins(page *p) {
    if (!begin_section(
            p, HT_PROFILE_JOINS, "Joins",
            "A tiny task from its submit to the end of the wait for it, by the way of waiting: again and again, "
            "after the queue was empty for 5 ms, and behind 20 others. The dot and the number are the median, the line "
            "goes to "
            "the 99th percentile. A device that computes in its caller has only one way."))
        return;
    put_figures(p, HT_PROFILE_JOINS, MICROSECONDS, MICROSECONDS);
}

/* The rate of a device, beside another or alone (-1); 0: not measured. */
static double bandwidth(const page *p, int device, int with) {
    for (size_t i = 0; i < p->result->n_points; i++) {
        const ht_profile_point *point = &p->result->points[i];
        if (point->table == HT_PROFILE_BANDWIDTH && point->device == device && point->with == with)
            return ht_profile_rate(point);
    }
    return 0;
}

/* As much of a device's name as fits before a bar. */
static const char *short_name(const page *p, int device, char out[48]) {
    const char *name = device_name(p, device);
    const bool fits = strlen(name) < 20;
    snprintf(out, 48, "%.*s%s", fits ? 19 : (int)ht_utf8_whole(name, 18), name, fits ? "" : "…");
    return out;
}

/* Alone and together, one behind the other. */
static void put_pair(page *p, int a, int b) {
    const double alone[2] = {bandwidth(p, a, -1), bandwidth(p, b, -1)};
    const double both[2] = {bandwidth(p, a, b), bandwidth(p, b, a)};
    char title[560], label[48], text[32];
    if (!(both[0] > 0) || !(both[1] > 0))
        return;
    snprintf(title, sizeof title, "%s and %s", device_name(p, a), device_name(p, b));
    bars all = {.title = title, .unit = "GB/s"};
    add_bar(p, &all, short_name(p, a, label), alone[0], a % COLOURS);
    add_bar(p, &all, short_name(p, b, label), alone[1], b % COLOURS);
    add_bar(p, &all, "both: first", both[0], a % COLOURS);
    bar *second = add_bar(p, &all, "both: second", both[0] + both[1], b % COLOURS);
    second->from = both[0];
    snprintf(second->value, sizeof second->value, "%s", number(both[1], text));
    add_bar(p, &all, "both: sum", both[0] + both[1], COLOURS);
    put_bars(p, &all);
}

static void put_bandwidths(page *p) {
    const int n = (int)p->result->n_devices;
    if (!begin_section(
            p, HT_PROFILE_BANDWIDTH, "Bandwidth",
            "Bytes of weights a second, as the file counts them, in products with one token that no cache can help: "
            "each device alone, and both of pairs that share no core at the same time."))
        return;
    PUT(p, "<div class=\"figures\">\n");
    bars all = {.title = "Each alone", .unit = "GB/s"};
    char label[48];
    for (int i = 0; i < n; i++)
        if (bandwidth(p, i, -1) > 0)
            add_bar(p, &all, short_name(p, i, label), bandwidth(p, i, -1), i % COLOURS);
    put_bars(p, &all);
    for (int i = 0; i < n; i++)
        for (int k = i + 1; k < n; k++)
            put_pair(p, i, k);
    PUT(p, "</div>\n");
    put_legend(p, HT_PROFILE_BANDWIDTH);
    end_section(p, HT_PROFILE_BANDWIDTH);
}

static void put_graphs(page *p) {
    if (!begin_section(
            p, HT_PROFILE_GRAPHS, "Static graphs",
            "What building one takes, in time and in memory, by rows and columns of the matrix and number of "
            "tokens."))
        return;
    put_figures(p, HT_PROFILE_GRAPHS, MILLISECONDS, MEBIBYTES);
}

/* ---- the page --------------------------------------------------------------------------------------------------------------- */

static const char style[] =
    ":root{color-scheme:light dark;--paper:#fff;--ink:#1c2024;--soft:#5c666f;--grid:#e3e7ea;--s0:#0069b4;--s1:#c2410c;"
    "--s2:#00785a;--s3:#a8327e;--s4:#8a6a00;--s5:#5b4bc4;--s6:#5c666f}\n"
    "@media (prefers-color-scheme:dark){:root{--paper:#15181b;--ink:#e8eaec;--soft:#a0a9b1;--grid:#2f353a;--s0:#58b1f0;"
    "--s1:#f68a5a;--s2:#3fc9a0;--s3:#e58cc6;--s4:#d9b84a;--s5:#a99cf5;--s6:#a0a9b1}}\n"
    "body{background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif;margin:0 auto;padding:1rem;"
    "max-width:72rem}\n"
    "h1{font-size:1.5rem;margin:.5rem 0}h2{font-size:1.2rem;margin:2rem 0 .3rem}p{margin:.3rem 0;max-width:44rem}\n"
    ".figures{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,25rem),1fr));gap:1rem 2rem}\n"
    "figure{margin:.5rem "
    "0;max-width:35rem}figcaption{font-weight:600;overflow-wrap:anywhere}svg{width:100%;height:auto;"
    "display:block}\n"
    "svg text{font:11px "
    "system-ui,sans-serif;fill:var(--soft)}.grid{stroke:var(--grid);fill:none}.axis{stroke:var(--soft);"
    "fill:none}.line{fill:none;stroke-width:1.6}\n"
    ".scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.85rem;white-space:nowrap}th,td{padding:.2rem "
    ".6rem;"
    "border-bottom:1px solid "
    "var(--grid);text-align:right;font-variant-numeric:tabular-nums}th:first-child,td:first-child"
    "{text-align:left}\n"
    ".text td,.text th{text-align:left}summary{cursor:pointer;color:var(--soft)}.soft{color:var(--soft)}.stale{color:"
    "var(--s1);font-weight:600}\n"
    ".legend span{display:inline-block;margin-right:1em}.legend i{display:inline-block;width:.8em;height:.8em;"
    "margin-right:.35em;border-radius:2px}\n";

static void put_style(page *p) {
    PUT(p, "<style>\n%s", style);
    for (int i = 0; i <= COLOURS; i++)
        PUT(p, ".s%d{stroke:var(--s%d)}.f%d{fill:var(--s%d)}.legend .b%d{background:var(--s%d)}\n", i, i, i, i, i, i);
    PUT(p, "</style>\n");
}

static void put_head(page *p) {
    const ht_profile_result *result = p->result;
    PUT(p, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n<meta name=\"viewport\" "
           "content=\"width=device-width, initial-scale=1\"/>\n<title>What the processors do</title>\n");
    put_style(p);
    PUT(p, "</head>\n<body>\n<h1>What the processors do</h1>\n<p class=\"soft\">");
    put_text(p, result->machine);
    PUT(p, "; matrices of ");
    put_text(p, result->model);
    PUT(p, "; precision %s; %s; measured %s with hetero ", result->precision == HT_PRECISION_EXACT ? "exact" : "fast",
        result->quick ? "quick" : "all points", result->date);
    put_text(p, result->version);
    PUT(p, "</p>\n<div class=\"scroll\"><table class=\"text\">\n<tr><th>device</th><th>runtime</th><th>processor</th>"
           "<th>lengths</th><th>cores</th></tr>\n");
    for (size_t i = 0; i < result->n_devices; i++) {
        const ht_profile_device *device = &result->devices[i];
        const char *const cells[] = {device->spec, device->runtime, device->description,
                                     device->static_graphs ? "static" : "any"};
        PUT(p, "<tr>");
        for (size_t k = 0; k < HT_COUNT(cells); k++) {
            PUT(p, "<td>");
            put_text(p, cells[k]);
            PUT(p, "</td>");
        }
        PUT(p, "<td>%d</td></tr>\n", __builtin_popcountll(device->cores));
    }
    PUT(p, "</table></div>\n");
    for (size_t i = 0; i < result->n_devices; i++)
        if (*result->devices[i].stale) {
            PUT(p, "<p class=\"stale\">Not so any more: ");
            put_text(p, result->devices[i].stale);
            PUT(p, "</p>\n");
        }
}

/* What the search for kernels found. */
static void put_kernels(page *p) {
    const ht_profile_result *result = p->result;
    if (!result->n)
        return;
    PUT(p,
        "<section id=\"matmul\">\n<h2>Kernels</h2>\n<p>The quickest of each device that has several, which engines use "
        "from now on, and the time of the one that a rule would choose.</p>\n<details><summary>The "
        "values</summary><div "
        "class=\"scroll\"><table>\n<tr><th>device</th><th>operator</th><th>rows</th><th>columns</th><th>tokens</th>"
        "<th>µs</th><th>by rule, µs</th><th>tried</th><th>kernel</th></tr>\n");
    for (size_t i = 0; i < result->n; i++) {
        const ht_profile_row *row = &result->rows[i];
        PUT(p, "<tr><td>");
        put_text(p, row->device);
        PUT(p, "</td><td>");
        put_text(p, row->op);
        PUT(p, "</td><td>%zu</td><td>%zu</td><td>%zu</td><td>%.1f</td><td>%.1f</td><td>%d</td><td>", row->rows,
            row->cols, row->tokens, row->seconds * 1e6, row->by_rule * 1e6, row->tried);
        put_text(p, row->kernel);
        PUT(p, "</td></tr>\n");
    }
    PUT(p, "</table></div></details>\n</section>\n");
}

/* A file like any other, not one of ours: it may be /dev/stdout, and others may read it. */
static ht_status write_page(const page *p, const char *path, ht_error *error) {
    FILE *file = fopen(path, "wb");
    if (!file)
        return ht_fail(error, HT_ERROR_IO, "%s: cannot be written: %s", path, strerror(errno));
    const bool whole = fwrite(p->text.data, 1, p->text.bytes, file) == p->text.bytes;
    const bool closed = fclose(file) == 0;
    return whole && closed ? HT_OK : ht_fail(error, HT_ERROR_IO, "%s: cannot be written: %s", path, strerror(errno));
}

ht_status ht_profile_report(const ht_profile_result *result, const char *path, ht_error *error) {
    page p = {.result = result, .error = error};
    put_head(&p);
    put_curves(&p);
    put_orders(&p);
    put_shapes(&p);
    put_joins(&p);
    put_bandwidths(&p);
    put_graphs(&p);
    put_kernels(&p);
    PUT(&p, "</body>\n</html>\n");
    ht_status status = p.status ? p.status : write_page(&p, path, error);
    ht_text_free(&p.text);
    return status;
}
