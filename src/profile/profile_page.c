/* The profile as one HTML file: figures, and the numbers under each as a table. */
#include "profile/characterise.h"
#include "profile/page.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct report {
    ht_page page;
    const ht_profile_result *result;
} report;

#define PUT(p, ...) HT_PUT(&(p)->page, __VA_ARGS__)

static const char *device_name(const report *p, int device) {
    return p->result->devices[device].spec;
}

static size_t count(const report *p, ht_profile_table table, int device) {
    size_t n = 0;
    for (size_t i = 0; i < p->result->n_points; i++)
        n += p->result->points[i].table == table && (device < 0 || p->result->points[i].device == device);
    return n;
}

/* ---- figures ---------------------------------------------------------------------------------------------------------------- */

/* A device's points of CURVE. */
static void put_curve(report *p, const ht_axes *a, int device, bool rates, bool stairs) {
    double x[64], y[64];
    size_t n = 0;
    for (size_t i = 0; i < p->result->n_points && n < HT_COUNT(x); i++) {
        const ht_profile_point *point = &p->result->points[i];
        if (point->table != HT_PROFILE_CURVE || point->device != device)
            continue;
        x[n] = (double)point->tokens;
        y[n++] = rates ? ht_profile_rate(point) : point->seconds * 1e3;
    }
    ht_page_curve(&p->page, a, x, y, n, device % HT_PAGE_COLOURS, stairs, rates ? "GFLOP/s" : "ms");
}

/* Limits of the points of a device; -1: of all. */
static ht_axes limits(const report *p, int device, bool rates) {
    ht_axes a = {.x_least = rates ? 1 : 0,
                 .x_most = 2,
                 .y_most = 1e-6,
                 .log_x = rates,
                 .x_label = rates ? "tokens (logarithmic)" : "tokens",
                 .y_label = rates ? "GFLOP/s" : "time, ms"};
    for (size_t i = 0; i < p->result->n_points; i++) {
        const ht_profile_point *point = &p->result->points[i];
        if (point->table != HT_PROFILE_CURVE || (device >= 0 && point->device != device))
            continue;
        a.x_most = fmax(a.x_most, (double)point->tokens);
        a.y_most = fmax(a.y_most, rates ? ht_profile_rate(point) : point->seconds * 1e3);
    }
    return a;
}

static void put_legend(report *p, ht_profile_table table) {
    PUT(p, "<p class=\"legend\">");
    for (size_t i = 0; i < p->result->n_devices; i++)
        if (count(p, table, (int)i))
            ht_page_key(&p->page, (int)i % HT_PAGE_COLOURS, device_name(p, (int)i));
    PUT(p, "</p>\n");
}

/* ---- tables ----------------------------------------------------------------------------------------------------------------- */

static void put_table(report *p, ht_profile_table table) {
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
        ht_page_text(&p->page, device_name(p, point->device));
        PUT(p, "</td>");
        if (what || with) {
            PUT(p, "<td>");
            ht_page_text(&p->page, what ? point->what : point->with < 0 ? "nothing" : device_name(p, point->with));
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
            PUT(p, "<td>%s</td>", ht_page_number(ht_profile_rate(point), text));
        PUT(p, "</tr>\n");
    }
    PUT(p, "</table></div></details>\n");
}

static bool begin_section(report *p, ht_profile_table table, const char *title, const char *about) {
    if (!count(p, table, -1))
        return false;
    PUT(p, "<section id=\"%s\">\n<h2>%s</h2>\n<p>%s</p>\n", ht_profile_table_name(table), title, about);
    return true;
}

static void end_section(report *p, ht_profile_table table) {
    put_table(p, table);
    PUT(p, "</section>\n");
}

static void put_curves(report *p) {
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
        ht_axes a = limits(p, i, false);
        snprintf(title, sizeof title, "%s%s", device->spec, device->static_graphs ? ", static graphs" : "");
        ht_page_begin_plot(&p->page, title, &a);
        put_curve(p, &a, i, false, device->static_graphs);
        ht_page_end_figure(&p->page);
    }
    ht_axes a = limits(p, -1, true);
    ht_page_begin_plot(&p->page, "All devices: arithmetic a second", &a);
    for (int i = 0; i < (int)p->result->n_devices; i++)
        if (count(p, HT_PROFILE_CURVE, i))
            put_curve(p, &a, i, true, false);
    ht_page_end_figure(&p->page);
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
static void put_device_bars(report *p, ht_profile_table table, measure which) {
    static const char *const units[] = {"GFLOP/s", "µs (logarithmic)", "ms to build", "MiB of memory"};
    for (int d = 0; d < (int)p->result->n_devices; d++) {
        ht_bars all = {.title = device_name(p, d), .unit = units[which], .dots = which == MICROSECONDS};
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
            ht_bar *made = ht_page_add_bar(&p->page, &all, label, value_of(point, which),
                                           other ? HT_PAGE_COLOURS : d % HT_PAGE_COLOURS);
            made->mark = which == MICROSECONDS ? point->p99 * 1e6 : 0;
        }
        ht_page_bars(&p->page, &all);
    }
}

static void put_figures(report *p, ht_profile_table table, measure first, measure last) {
    PUT(p, "<div class=\"figures\">\n");
    for (measure which = first; which <= last; which++)
        put_device_bars(p, table, which);
    PUT(p, "</div>\n");
    end_section(p, table);
}

static void put_orders(report *p) {
    if (!begin_section(
            p, HT_PROFILE_ORDER, "Order of operands",
            "The same product on static graphs with either operand first: activations times weights, and weights "
            "times activations; behind the name the number of tokens."))
        return;
    put_figures(p, HT_PROFILE_ORDER, RATE, RATE);
}

static void put_shapes(report *p) {
    if (!begin_section(
            p, HT_PROFILE_SHAPE, "Shape",
            "About as many weights in other proportions of rows to columns, then parts of the rows of the largest "
            "matrix, as a cut between devices makes them; all with the same number of tokens."))
        return;
    put_figures(p, HT_PROFILE_SHAPE, RATE, RATE);
}

static void put_joins(report *p) {
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
static double bandwidth(const report *p, int device, int with) {
    for (size_t i = 0; i < p->result->n_points; i++) {
        const ht_profile_point *point = &p->result->points[i];
        if (point->table == HT_PROFILE_BANDWIDTH && point->device == device && point->with == with)
            return ht_profile_rate(point);
    }
    return 0;
}

/* As much of a device's name as fits before a bar. */
static const char *short_name(const report *p, int device, char out[48]) {
    const char *name = device_name(p, device);
    const bool fits = strlen(name) < 20;
    snprintf(out, 48, "%.*s%s", fits ? 19 : (int)ht_utf8_whole(name, 18), name, fits ? "" : "…");
    return out;
}

/* Alone and together, one behind the other. */
static void put_pair(report *p, int a, int b) {
    const double alone[2] = {bandwidth(p, a, -1), bandwidth(p, b, -1)};
    const double both[2] = {bandwidth(p, a, b), bandwidth(p, b, a)};
    char title[560], label[48], text[32];
    if (!(both[0] > 0) || !(both[1] > 0))
        return;
    snprintf(title, sizeof title, "%s and %s", device_name(p, a), device_name(p, b));
    ht_bars all = {.title = title, .unit = "GB/s"};
    ht_page_add_bar(&p->page, &all, short_name(p, a, label), alone[0], a % HT_PAGE_COLOURS);
    ht_page_add_bar(&p->page, &all, short_name(p, b, label), alone[1], b % HT_PAGE_COLOURS);
    ht_page_add_bar(&p->page, &all, "both: first", both[0], a % HT_PAGE_COLOURS);
    ht_bar *second = ht_page_add_bar(&p->page, &all, "both: second", both[0] + both[1], b % HT_PAGE_COLOURS);
    second->from = both[0];
    snprintf(second->value, sizeof second->value, "%s", ht_page_number(both[1], text));
    ht_page_add_bar(&p->page, &all, "both: sum", both[0] + both[1], HT_PAGE_COLOURS);
    ht_page_bars(&p->page, &all);
}

static void put_bandwidths(report *p) {
    const int n = (int)p->result->n_devices;
    if (!begin_section(
            p, HT_PROFILE_BANDWIDTH, "Bandwidth",
            "Bytes of weights a second, as the file counts them, in products with one token that no cache can help: "
            "each device alone, and both of pairs that share no core at the same time."))
        return;
    PUT(p, "<div class=\"figures\">\n");
    ht_bars all = {.title = "Each alone", .unit = "GB/s"};
    char label[48];
    for (int i = 0; i < n; i++)
        if (bandwidth(p, i, -1) > 0)
            ht_page_add_bar(&p->page, &all, short_name(p, i, label), bandwidth(p, i, -1), i % HT_PAGE_COLOURS);
    ht_page_bars(&p->page, &all);
    for (int i = 0; i < n; i++)
        for (int k = i + 1; k < n; k++)
            put_pair(p, i, k);
    PUT(p, "</div>\n");
    put_legend(p, HT_PROFILE_BANDWIDTH);
    end_section(p, HT_PROFILE_BANDWIDTH);
}

static void put_graphs(report *p) {
    if (!begin_section(
            p, HT_PROFILE_GRAPHS, "Static graphs",
            "What building one takes, in time and in memory, by rows and columns of the matrix and number of "
            "tokens."))
        return;
    put_figures(p, HT_PROFILE_GRAPHS, MILLISECONDS, MEBIBYTES);
}

/* ---- the page --------------------------------------------------------------------------------------------------------------- */

static void put_head(report *p) {
    const ht_profile_result *result = p->result;
    ht_page_begin(&p->page, "What the processors do");
    PUT(p, "<p class=\"soft\">");
    ht_page_text(&p->page, result->machine);
    PUT(p, "; matrices of ");
    ht_page_text(&p->page, result->model);
    PUT(p, "; precision %s; %s; measured %s with hetero ", result->precision == HT_PRECISION_EXACT ? "exact" : "fast",
        result->quick ? "quick" : "all points", result->date);
    ht_page_text(&p->page, result->version);
    PUT(p, "</p>\n<div class=\"scroll\"><table class=\"text\">\n<tr><th>device</th><th>runtime</th><th>processor</th>"
           "<th>lengths</th><th>cores</th></tr>\n");
    for (size_t i = 0; i < result->n_devices; i++) {
        const ht_profile_device *device = &result->devices[i];
        const char *const cells[] = {device->spec, device->runtime, device->description,
                                     device->static_graphs ? "static" : "any", device->cores};
        PUT(p, "<tr>");
        for (size_t k = 0; k < HT_COUNT(cells); k++) {
            PUT(p, "<td>");
            ht_page_text(&p->page, cells[k]);
            PUT(p, "</td>");
        }
        PUT(p, "</tr>\n");
    }
    PUT(p, "</table></div>\n");
    for (size_t i = 0; i < result->n_devices; i++)
        if (*result->devices[i].stale) {
            PUT(p, "<p class=\"stale\">Not so any more: ");
            ht_page_text(&p->page, result->devices[i].stale);
            PUT(p, "</p>\n");
        }
}

/* What the search for kernels found. */
static void put_kernels(report *p) {
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
        ht_page_text(&p->page, row->device);
        PUT(p, "</td><td>");
        ht_page_text(&p->page, row->op);
        PUT(p, "</td><td>%zu</td><td>%zu</td><td>%zu</td><td>%.1f</td><td>%.1f</td><td>%d</td><td>", row->rows,
            row->cols, row->tokens, row->seconds * 1e6, row->by_rule * 1e6, row->tried);
        ht_page_text(&p->page, row->kernel);
        PUT(p, "</td></tr>\n");
    }
    PUT(p, "</table></div></details>\n</section>\n");
}

ht_status ht_profile_report(const ht_profile_result *result, const char *path, ht_error *error) {
    report p = {.page = {.error = error}, .result = result};
    put_head(&p);
    put_curves(&p);
    put_orders(&p);
    put_shapes(&p);
    put_joins(&p);
    put_bandwidths(&p);
    put_graphs(&p);
    put_kernels(&p);
    return ht_page_end(&p.page, path);
}
