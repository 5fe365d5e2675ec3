/* A plan as JSON. */
#include "engine/engine.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static json_t *slice_json(const ht_plan_row *row) {
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:I}", "device", row->device, "row_begin",
                     (json_int_t)row->row_begin, "row_end", (json_int_t)row->row_end, "reduction_begin",
                     (json_int_t)row->reduction_begin, "reduction_end", (json_int_t)row->reduction_end, "head_begin",
                     (json_int_t)row->head_begin, "head_end", (json_int_t)row->head_end, "token_begin",
                     (json_int_t)row->token_begin, "token_end", (json_int_t)row->token_end, "predicted_us",
                     row->seconds > 0 ? json_real(row->seconds * 1e6) : json_null(), "bytes", (json_int_t)row->bytes);
}

static int compare(const void *a, const void *b) {
    const ht_plan_row *x = *(const ht_plan_row *const *)a, *y = *(const ht_plan_row *const *)b;
    return x->number != y->number ? (x->number > y->number) - (x->number < y->number) : (x > y) - (x < y);
}

/* The operator of this name, made at the end if there is none. */
static json_t *operator_of(json_t *operators, const ht_plan_row *row) {
    for (size_t i = json_array_size(operators); i-- > 0;) {
        json_t *one = json_array_get(operators, i);
        if (!strcmp(json_string_value(json_object_get(one, "name")), row->op))
            return one;
    }
    json_array_append_new(operators,
                          json_pack("{s:s, s:I, s:I, s:s, s:[]}", "name", row->op, "rows", (json_int_t)row->rows,
                                    "cols", (json_int_t)row->cols, "strategy", row->cut, "slices"));
    return json_array_get(operators, json_array_size(operators) - 1);
}

/* Devices come one behind the other in the rows; here each operator has its slices, in the model's order. */
static json_t *operators_json(const ht_plan_row *rows, size_t n) {
    json_t *operators = json_array();
    const ht_plan_row **order = malloc(n * sizeof *order);
    for (size_t i = 0; i < n && order; i++)
        order[i] = &rows[i];
    if (order)
        qsort(order, n, sizeof *order, compare);
    for (size_t i = 0; i < n && order; i++)
        json_array_append_new(json_object_get(operator_of(operators, order[i]), "slices"), slice_json(order[i]));
    free(order);
    return operators;
}

static json_t *plan_json(const ht_plan_row *rows, size_t n, const ht_plan_times *times) {
    json_t *memory = json_object(), *alone = json_object();
    for (size_t i = 0; i < times->n_devices; i++)
        json_object_set_new(
            memory, times->devices[i].name,
            json_pack("{s:I, s:o, s:b}", "bytes", (json_int_t)times->devices[i].bytes, "graph_limit",
                      times->devices[i].limit ? json_integer((json_int_t)times->devices[i].limit) : json_null(),
                      "emulated", times->devices[i].emulated));
    for (size_t i = 0; i < times->n_alone; i++)
        json_object_set_new(alone, times->alone[i].device, json_real(times->alone[i].seconds * 1e3));
    return json_pack("{s:o, s:o, s:I, s:s, s:I, s:o, s:o}", "operators", operators_json(rows, n), "memory", memory,
                     "tokens", (json_int_t)times->tokens, "regime", times->regime, "joins_per_layer",
                     (json_int_t)times->joins, "predicted_ms",
                     times->seconds > 0 ? json_real(times->seconds * 1e3) : json_null(), "single_device_ms", alone);
}

ht_status ht_plan_json(const ht_plan_row *rows, size_t n, const ht_plan_times *times, char **json, ht_error *error) {
    json_t *plan = plan_json(rows, n, times);
    char *text = plan ? json_dumps(plan, JSON_COMPACT) : NULL;
    json_decref(plan);
    if (!text)
        return ht_fail(error, HT_ERROR_MEMORY, "no memory for the plan's text");
    *json = text;
    return HT_OK;
}
