/* Tables and headlines as experiments fill them. */
#include "reproduce/reproduce.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

ht_sheet *ht_sheet_add(ht_reproduction *r, const char *id, const char *title, const char *columns, ht_chart chart,
                       const char *x_label, const char *y_label) {
    ht_section *s = r->section;
    if (ht_grow((void **)&s->sheets, &s->capacity, s->n + 1, sizeof *s->sheets, "a sheet", r->error))
        return NULL;
    ht_sheet *sheet = &s->sheets[s->n++];
    *sheet = (ht_sheet){.chart = chart, .x_label = x_label, .y_label = y_label};
    snprintf(sheet->id, sizeof sheet->id, "%s", id);
    snprintf(sheet->title, sizeof sheet->title, "%s", title);
    while (*columns && sheet->n_columns < HT_SHEET_COLUMNS) {
        const size_t n = strcspn(columns, ",");
        snprintf(sheet->columns[sheet->n_columns++], sizeof *sheet->columns, "%.*s", (int)n, columns);
        columns += n + (columns[n] == ',');
    }
    return sheet;
}

ht_status ht_sheet_row(ht_reproduction *r, ht_sheet *sheet, const char *format, ...) {
    if (!sheet) /* as ht_sheet_add said */
        return HT_ERROR_MEMORY;
    ht_status status =
        ht_grow((void **)&sheet->rows, &sheet->capacity, sheet->n_rows + 1, sizeof *sheet->rows, "a sheet", r->error);
    if (status)
        return status;
    ht_cell *row = sheet->rows[sheet->n_rows++];
    va_list list;
    va_start(list, format);
    for (size_t i = 0; i < HT_SHEET_COLUMNS; i++) {
        row[i] = (ht_cell){.number = NAN};
        if (i < strlen(format) && format[i] == 's')
            snprintf(row[i].text, sizeof row[i].text, "%s", va_arg(list, const char *));
        else if (i < strlen(format))
            row[i].number = va_arg(list, double);
    }
    va_end(list);
    return HT_OK;
}

void ht_headline_add(ht_reproduction *r, const char *text, const char *format, ...) {
    if (r->n_headlines == HT_COUNT(r->headlines))
        return;
    ht_headline *h = &r->headlines[r->n_headlines++];
    va_list list;
    va_start(list, format);
    vsnprintf(h->value, sizeof h->value, format, list);
    va_end(list);
    snprintf(h->text, sizeof h->text, "%s", text);
}
