/* A plan as JSON. */
#include "base/json.h"
#include "engine/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static json_t *slice_json(const ht_plan_row *row) {
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:I, s:I, s:b}", "device", row->device,
                     "row_begin", (json_int_t)row->row_begin, "row_end", (json_int_t)row->row_end, "reduction_begin",
                     (json_int_t)row->reduction_begin, "reduction_end", (json_int_t)row->reduction_end, "head_begin",
                     (json_int_t)row->head_begin, "head_end", (json_int_t)row->head_end, "token_begin",
                     (json_int_t)row->token_begin, "token_end", (json_int_t)row->token_end, "predicted_us",
                     row->seconds > 0 ? json_real(row->seconds * 1e6) : json_null(), "bytes", (json_int_t)row->bytes,
                     "products", (json_int_t)row->products, "rest", row->rest);
}

static int compare(const void *a, const void *b) {
    const ht_plan_row *x = *(const ht_plan_row *const *)a, *y = *(const ht_plan_row *const *)b;
    return x->number != y->number ? (x->number > y->number) - (x->number < y->number) : (x > y) - (x < y);
}

/* Is this row the first one of its operator? Rows of one operator have the same number. */
static bool is_first(const ht_plan_row *const *order, size_t i) {
    for (size_t k = i; k-- > 0 && order[k]->number == order[i]->number;)
        if (!strcmp(order[k]->op, order[i]->op))
            return false;
    return true;
}

/* The operator of order[0], whose slices are all rows of its name in order[0..n). */
static json_t *operator_json(const ht_plan_row *const *order, size_t n) {
    json_t *slices = json_array();
    for (size_t i = 0; i < n && order[i]->number == order[0]->number; i++)
        if (!strcmp(order[i]->op, order[0]->op))
            ht_json_add(&slices, slice_json(order[i]));
    return json_pack("{s:s, s:I, s:I, s:s, s:o}", "name", order[0]->op, "rows", (json_int_t)order[0]->rows, "cols",
                     (json_int_t)order[0]->cols, "strategy", order[0]->cut, "slices", slices);
}

/* Devices come one behind the other in the rows; here each operator has its slices, in the model's order. */
static json_t *operators_json(const ht_plan_row *rows, size_t n) {
    const ht_plan_row **order;
    if (ht_alloc((void **)&order, n, sizeof *order, "the plan", NULL))
        return NULL;
    json_t *operators = json_array();
    for (size_t i = 0; i < n; i++)
        order[i] = &rows[i];
    qsort(order, n, sizeof *order, compare);
    for (size_t i = 0; i < n; i++)
        if (is_first(order, i))
            ht_json_add(&operators, operator_json(order + i, n - i));
    free(order);
    return operators;
}

/* An operator's name without its layer. */
static const char *short_name(const char *name) {
    int used = 0;
    if (sscanf(name, "blk.%*d.%n", &used) < 0 || !used)
        return name;
    return name + used;
}

static bool same_reason(const ht_plan_row *a, const ht_plan_row *b) {
    return a->left_by && b->left_by && !strcmp(a->left_by, b->left_by) && !strcmp(a->why, b->why);
}

/* Is rows[at] the first of rows[from..] with this reason, and (`named`) this operator? */
static bool is_new(const ht_plan_row *rows, size_t from, size_t at, bool named) {
    for (size_t i = from; i < at; i++)
        if (same_reason(&rows[i], &rows[at]) && (!named || !strcmp(short_name(rows[i].op), short_name(rows[at].op))))
            return false;
    return true;
}

/* What devices leave to those named behind them: for each of them and each reason the operators. */
static json_t *left_json(const ht_plan_row *rows, size_t n) {
    json_t *all = json_array();
    for (size_t i = 0; i < n; i++) {
        if (!rows[i].left_by || !is_new(rows, 0, i, false))
            continue;
        json_t *operators = json_array();
        for (size_t k = i; k < n; k++)
            if (same_reason(&rows[i], &rows[k]) && is_new(rows, i, k, true))
                ht_json_add(&operators, json_string(short_name(rows[k].op)));
        ht_json_add(
            &all, json_pack("{s:s, s:s, s:o}", "device", rows[i].left_by, "why", rows[i].why, "operators", operators));
    }
    return all;
}

/* Multiplications of weights that a device computes. */
static double products_on(const ht_plan_row *rows, size_t n, const char *device) {
    double products = 0;
    for (size_t i = 0; i < n; i++)
        products += strcmp(rows[i].device, device) ? 0 : rows[i].products;
    return products;
}

static json_t *plan_json(const ht_plan_row *rows, size_t n, const ht_plan_times *times) {
    json_t *memory = json_object(), *alone = json_object(), *busy = json_object();
    for (size_t i = 0; i < times->n_devices; i++)
        ht_json_set(&memory, times->devices[i].name,
                    json_pack("{s:I, s:I, s:o, s:o, s:b, s:I}", "bytes", (json_int_t)times->devices[i].bytes, "held",
                              (json_int_t)times->devices[i].held, "limit",
                              times->devices[i].room ? json_integer((json_int_t)times->devices[i].room) : json_null(),
                              "graph_limit",
                              times->devices[i].limit ? json_integer((json_int_t)times->devices[i].limit) : json_null(),
                              "emulated", times->devices[i].emulated, "products",
                              (json_int_t)products_on(rows, n, times->devices[i].name)));
    for (size_t i = 0; i < times->n_alone; i++)
        ht_json_set(&alone, times->alone[i].device,
                    times->alone[i].seconds > 0 ? json_real(times->alone[i].seconds * 1e3) : json_null());
    for (size_t i = 0; i < times->n_busy; i++)
        ht_json_set(
            &busy, times->busy[i].device,
            json_pack("{s:f, s:f}", "busy_ms", times->busy[i].busy * 1e3, "wait_ms", times->busy[i].wait * 1e3));
    return json_pack("{s:o, s:o, s:o, s:I, s:s, s:I, s:o, s:o, s:o}", "operators", operators_json(rows, n), "left",
                     left_json(rows, n), "memory", memory, "tokens", (json_int_t)times->tokens, "regime", times->regime,
                     "joins_per_layer", (json_int_t)times->joins, "predicted_ms",
                     times->seconds > 0 ? json_real(times->seconds * 1e3) : json_null(), "single_device_ms", alone,
                     "lanes", busy);
}

ht_status ht_plan_json(const ht_plan_row *rows, size_t n, const ht_plan_times *times, char **json, ht_error *error) {
    return ht_json_text(plan_json(rows, n, times), JSON_COMPACT, "a plan", json, error);
}
