#include "profile/page.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LEFT 52 /* of the area of a plot */
#define RIGHT 408
#define BASE 208 /* y of a plot's axis */
#define TOP 12
#define BELOW 42   /* of a plot: its axis' marks and label */
#define LABELS 128 /* width of the labels before bars */
#define ROW 19     /* height of a bar with its gap */
#define GAP 7      /* more before a group of bars */

void ht_page_text(ht_page *p, const char *text) {
    for (; *text; text++)
        if (*text == '<' || *text == '>' || *text == '&' || *text == '"')
            HT_PUT(p, "&#%d;", *text);
        else
            HT_PUT(p, "%c", *text);
}

/* Three significant digits, without an exponent. */
const char *ht_page_number(double value, char out[32]) {
    const double size = fabs(value);
    snprintf(out, 32, "%.*f", size >= 99.95 ? 0 : size >= 9.995 ? 1 : size >= 0.9995 ? 2 : size > 0 ? 3 : 0, value);
    return out;
}

void ht_page_key(ht_page *p, int colour, const char *name) {
    HT_PUT(p, "<span><i class=\"b%d\"></i>", colour);
    ht_page_text(p, name);
    HT_PUT(p, "</span> ");
}

static void begin_figure(ht_page *p, const char *title, int height) {
    HT_PUT(p, "<figure>\n<figcaption>");
    ht_page_text(p, title);
    HT_PUT(p, "</figcaption>\n<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"", HT_PAGE_WIDTH, height);
    ht_page_text(p, title);
    HT_PUT(p, "\">\n");
}

void ht_page_end_figure(ht_page *p) {
    HT_PUT(p, "</svg>\n</figure>\n");
}

static void put_label(ht_page *p, double x, double y, const char *anchor, const char *text) {
    HT_PUT(p, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", x, y, anchor);
    ht_page_text(p, text);
    HT_PUT(p, "</text>\n");
}

/* The step between marks of an axis from 0 to `most`: 1, 2 or 5 times a power of ten, four or so of them. */
static double step_of(double most) {
    const double raw = most / 4, power = pow(10, floor(log10(raw))), lead = raw / power;
    return power * (lead < 1.5 ? 1 : lead < 3.5 ? 2 : lead < 7.5 ? 5 : 10);
}

/* ---- plots ---- */

static double x_of(const ht_axes *a, double x) {
    const double share =
        a->log_x ? log2(x / a->x_least) / log2(a->x_most / a->x_least) : (x - a->x_least) / (a->x_most - a->x_least);
    return LEFT + share * (RIGHT - LEFT);
}

/* y of the axis below. */
static int base_of(const ht_axes *a) {
    return a->square ? TOP + RIGHT - LEFT : BASE;
}

static double y_of(const ht_axes *a, double value) {
    const double share = a->square ? (x_of(a, value) - LEFT) / (RIGHT - LEFT) : value / a->y_most;
    return base_of(a) - share * (base_of(a) - TOP);
}

/* Marks at powers of two, or at whole steps; on square axes at powers of ten. */
static double mark_of(const ht_axes *a, int i) {
    return a->square ? pow(10, i) : a->log_x ? ldexp(1, i) : i * step_of(a->x_most - a->x_least);
}

static int first_mark(const ht_axes *a) {
    const double first = a->square  ? log10(a->x_least)
                         : a->log_x ? log2(a->x_least)
                                    : a->x_least / step_of(a->x_most - a->x_least);
    return (int)ceil(first - 1e-9);
}

static void put_y_mark(ht_page *p, const ht_axes *a, double y) {
    char text[32];
    HT_PUT(p, "<path class=\"grid\" d=\"M%d %.1fH%d\"/>\n", LEFT, y_of(a, y), RIGHT);
    snprintf(text, sizeof text, "%.6g", y);
    put_label(p, LEFT - 5, y_of(a, y) + 4, "end", text);
}

static void put_y_axis(ht_page *p, ht_axes *a) {
    const double step = step_of(a->y_most);
    if (!a->square) {
        a->y_most = ceil(a->y_most / step - 1e-9) * step;
        for (int i = 0; i * step <= a->y_most + step / 2; i++)
            put_y_mark(p, a, i * step);
    }
    for (int i = first_mark(a); a->square && mark_of(a, i) <= a->x_most * 1.0001; i++)
        put_y_mark(p, a, mark_of(a, i));
    HT_PUT(p, "<text transform=\"translate(12 %d) rotate(-90)\" text-anchor=\"middle\">%s</text>\n",
           (base_of(a) + TOP) / 2, a->y_label);
}

static void put_x_axis(ht_page *p, const ht_axes *a) {
    char text[32];
    const int base = base_of(a);
    for (int i = first_mark(a); mark_of(a, i) <= a->x_most * 1.0001; i++) {
        const double x = mark_of(a, i);
        HT_PUT(p, "<path class=\"axis\" d=\"M%.1f %dv4\"/>\n", x_of(a, x), base);
        snprintf(text, sizeof text, "%.6g", x);
        const bool ends = x_of(a, x) > RIGHT - 12; /* a long label would be cut off */
        put_label(p, ends ? HT_PAGE_WIDTH - 2 : x_of(a, x), base + 16, ends ? "end" : "middle", text);
    }
    HT_PUT(p, "<path class=\"axis\" d=\"M%d %dV%dH%d\"/>\n", LEFT, TOP, base, RIGHT);
    put_label(p, (LEFT + RIGHT) / 2.0, base + 33, "middle", a->x_label);
}

void ht_page_begin_plot(ht_page *p, const char *title, ht_axes *axes) {
    begin_figure(p, title, base_of(axes) + BELOW);
    put_y_axis(p, axes);
    put_x_axis(p, axes);
}

void ht_page_curve(ht_page *p, const ht_axes *a, const double *x, const double *y, size_t n, int colour, bool stairs,
                   const char *unit) {
    HT_PUT(p, "<path class=\"line s%d\" d=\"", colour);
    for (size_t i = 0; i < n; i++)
        if (i == 0 || !stairs)
            HT_PUT(p, "%c%.1f %.1f", i ? 'L' : 'M', x_of(a, x[i]), y_of(a, y[i]));
        else
            HT_PUT(p, "V%.1fH%.1f", y_of(a, y[i]), x_of(a, x[i]));
    HT_PUT(p, "\"/>\n");
    for (size_t i = 0; i < n; i++)
        HT_PUT(p, "<circle class=\"f%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"2.8\"><title>%.6g: %.4g %s</title></circle>\n",
               colour, x_of(a, x[i]), y_of(a, y[i]), x[i], y[i], unit);
}

void ht_page_dot(ht_page *p, const ht_axes *a, double x, double y, int colour, bool ring, const char *name) {
    const double at_x = x_of(a, x), at_y = y_of(a, y);
    if (ring)
        HT_PUT(p, "<circle class=\"line s%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"3\"><title>", colour, at_x, at_y);
    else
        HT_PUT(p, "<rect class=\"f%d\" x=\"%.1f\" y=\"%.1f\" width=\"5\" height=\"5\"><title>", colour, at_x - 2.5,
               at_y - 2.5);
    ht_page_text(p, name);
    HT_PUT(p, ": %.4g, %.4g</title></%s>\n", x, y, ring ? "circle" : "rect");
}

void ht_page_rule(ht_page *p, const ht_axes *a, double factor) {
    const double from = fmax(a->x_least, a->x_least / factor), to = fmin(a->x_most, a->x_most / factor);
    HT_PUT(p, "<path class=\"rule\" d=\"M%.1f %.1fL%.1f %.1f\"/>\n", x_of(a, from), y_of(a, factor * from), x_of(a, to),
           y_of(a, factor * to));
}

/* ---- bars ------------------------------------------------------------------------------------------------------------------- */

ht_bar *ht_page_add_bar(ht_page *p, ht_bars *all, const char *label, double value, int colour) {
    static ht_bar nowhere; /* what is written there is never read */
    char text[32];
    if (!p->status)
        p->status = ht_grow((void **)&all->at, &all->capacity, all->n + 1, sizeof *all->at, "the report", p->error);
    if (p->status)
        return &nowhere;
    ht_bar *made = &all->at[all->n++];
    *made = (ht_bar){.to = value, .colour = colour};
    snprintf(made->label, sizeof made->label, "%s", label);
    snprintf(made->value, sizeof made->value, "%s", ht_page_number(value, text));
    return made;
}

static double bar_x(const ht_bars *all, double value, double least, double most) {
    const double space = RIGHT - 40 - LABELS; /* the value stands behind the longest */
    return LABELS + space * (all->dots ? log10(fmax(value, least) / least) / log10(most / least) : value / most);
}

static void put_bar_axis(ht_page *p, const ht_bars *all, double least, double most, int height) {
    char text[32];
    const double step = all->dots ? 0 : step_of(most);
    for (int i = 0; (all->dots ? least * pow(10, i) : i * step) <= most * 1.0001; i++) {
        const double x = all->dots ? least * pow(10, i) : i * step;
        HT_PUT(p, "<path class=\"grid\" d=\"M%.1f 4V%d\"/>\n", bar_x(all, x, least, most), height - 36);
        snprintf(text, sizeof text, "%.6g", x);
        put_label(p, bar_x(all, x, least, most), height - 22, "middle", text);
    }
    HT_PUT(p, "<path class=\"axis\" d=\"M%d 4V%d\"/>\n", LABELS, height - 36);
    put_label(p, (LABELS + RIGHT - 40) / 2.0, height - 6, "middle", all->unit);
}

void ht_page_bars(ht_page *p, ht_bars *all) {
    double most = 0, least = 1e30;
    for (size_t i = 0; i < all->n; i++) {
        most = fmax(most, fmax(all->at[i].to, all->at[i].mark));
        least = fmin(least, fmax(all->at[i].to, 1e-3));
    }
    if (all->dots) { /* whole decades */
        least = pow(10, floor(log10(least)));
        most = fmax(10 * least, pow(10, ceil(log10(most))));
    }
    int height = (int)all->n * ROW + 44;
    for (size_t i = 1; i < all->n; i++)
        height += all->at[i].begins ? GAP : 0;
    if (all->n && most > 0) {
        begin_figure(p, all->title, height);
        put_bar_axis(p, all, least, most, height);
    }
    double y = 6;
    for (size_t i = 0; i < all->n && most > 0; i++, y += ROW) {
        const ht_bar *b = &all->at[i];
        y += i && b->begins ? GAP : 0;
        const double from = bar_x(all, b->from, least, most);
        const double to = bar_x(all, b->to, least, most), end = b->mark > 0 ? bar_x(all, b->mark, least, most) : to;
        if (*b->label)
            put_label(p, LABELS - 6, y + 11, "end", b->label);
        if (all->dots)
            HT_PUT(
                p,
                "<path class=\"line s%d\" d=\"M%.1f %.1fH%.1fm0 -4v8\"/><circle class=\"f%d\" cx=\"%.1f\" cy=\"%.1f\" "
                "r=\"4\"/>\n",
                b->colour, to, y + 7, end, b->colour, to, y + 7);
        else
            HT_PUT(p, "<rect class=\"f%d\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"13\"/>\n", b->colour, from, y,
                   fmax(to - from, 0.5));
        put_label(p, end + 6, y + 11, "start", b->value);
    }
    if (all->n && most > 0)
        ht_page_end_figure(p);
    free(all->at);
    all->at = NULL;
    all->n = all->capacity = 0;
}

/* ---- the page ---- */

/* clang-format off: a rule a line */
static const char style[] =
    ":root{color-scheme:light dark;--paper:#fff;--ink:#1c2024;--soft:#5c666f;--grid:#e3e7ea;--card:#f5f7f8;\n"
    "--s0:#0069b4;--s1:#c2410c;--s2:#00785a;--s3:#a8327e;--s4:#8a6a00;--s5:#5b4bc4;--s6:#0e7c8c;--s7:#5c666f}\n"
    "@media "
    "(prefers-color-scheme:dark){:root{--paper:#15181b;--ink:#e8eaec;--soft:#a0a9b1;--grid:#2f353a;--card:#1d2125;\n"
    "--s0:#58b1f0;--s1:#f68a5a;--s2:#3fc9a0;--s3:#e58cc6;--s4:#d9b84a;--s5:#a99cf5;--s6:#6fd6e6;--s7:#a0a9b1}}\n"
    "body{background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif;margin:0 "
    "auto;padding:1rem;max-width:72rem}\n"
    "h1{font-size:1.5rem;margin:.5rem 0}\n"
    "h2{font-size:1.2rem;margin:2rem 0 .3rem}\n"
    "h3{font-size:1rem;margin:.8rem 0 .3rem}\n"
    "p{margin:.3rem 0;max-width:44rem}\n"
    "a{color:var(--s0)}\n"
    "nav{display:flex;flex-wrap:wrap;gap:.4rem;margin:1rem 0}\n"
    "nav a{background:var(--card);border-radius:1rem;padding:.1rem .7rem;text-decoration:none;font-size:.85rem}\n"
    ".cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,13rem),1fr));gap:.7rem;margin:1rem 0}\n"
    ".cards div{background:var(--card);border-radius:.5rem;padding:.6rem .8rem;font-size:.85rem;color:var(--soft)}\n"
    ".cards b{display:block;font-size:1.4rem;line-height:1.3;color:var(--ink)}\n"
    ".figures{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,25rem),1fr));gap:1rem 2rem}\n"
    ".sheet{min-width:0}\n"
    ".wide{grid-column:1/-1}\n"
    "figure{margin:.5rem 0;max-width:35rem}\n"
    "figcaption{font-weight:600;overflow-wrap:anywhere}\n"
    "svg{width:100%;height:auto;display:block}\n"
    "svg text{font:11px system-ui,sans-serif;fill:var(--soft)}\n"
    ".grid{stroke:var(--grid);fill:none}\n"
    ".axis{stroke:var(--soft);fill:none}\n"
    ".rule{stroke:var(--soft);fill:none;stroke-dasharray:4 3}\n"
    ".line{fill:none;stroke-width:1.6}\n"
    ".scroll{overflow-x:auto}\n"
    "table{border-collapse:collapse;font-size:.85rem;white-space:nowrap}\n"
    "th,td{padding:.2rem .45rem;border-bottom:1px solid "
    "var(--grid);text-align:right;font-variant-numeric:tabular-nums}\n"
    "th{color:var(--soft);font-weight:600;white-space:normal;vertical-align:bottom}\n"
    "th:first-child,td:first-child,.text td,.text th,.left{text-align:left}\n"
    "td.long{white-space:normal;min-width:9rem}\n"
    "summary{cursor:pointer;color:var(--soft)}\n"
    ".soft{color:var(--soft)}\n"
    ".stale{color:var(--s1);font-weight:600}\n"
    ".legend span{display:inline-block;margin-right:1em}\n"
    ".legend i{display:inline-block;width:.8em;height:.8em;margin-right:.35em;border-radius:2px}\n";
/* clang-format on */

static void put_style(ht_page *p) {
    HT_PUT(p, "<style>\n%s", style);
    for (int i = 0; i <= HT_PAGE_COLOURS; i++)
        HT_PUT(p, ".s%d{stroke:var(--s%d)}.f%d{fill:var(--s%d)}.legend .b%d{background:var(--s%d)}\n", i, i, i, i, i,
               i);
    HT_PUT(p, "</style>\n");
}

void ht_page_begin(ht_page *p, const char *title) {
    HT_PUT(p, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n<meta name=\"viewport\" "
              "content=\"width=device-width, initial-scale=1\"/>\n<title>");
    ht_page_text(p, title);
    HT_PUT(p, "</title>\n");
    put_style(p);
    HT_PUT(p, "</head>\n<body>\n<h1>");
    ht_page_text(p, title);
    HT_PUT(p, "</h1>\n");
}

ht_status ht_page_end(ht_page *p, const char *path) {
    HT_PUT(p, "</body>\n</html>\n");
    ht_status status = p->status ? p->status : ht_file_write(path, p->text.data, p->text.bytes, p->error);
    ht_text_free(&p->text);
    return status;
}
