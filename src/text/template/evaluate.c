/* The value of an expression. */
#include "text/template/value.h"

#include <string.h>

/* ---- variables ---- */

tpl_frame *tpl_push_frame(tpl_run *run, tpl_frame *up) {
    tpl_frame *frame = tpl_alloc(run, 1, sizeof *frame);
    if (frame) {
        frame->up = up;
        run->frame = frame;
    }
    return frame;
}

void tpl_assign(tpl_run *run, const char *name, tpl_value value) {
    tpl_frame *frame = run->frame;
    for (size_t i = 0; i < frame->n && tpl_step(run, 1); i++)
        if (strcmp(frame->at[i].name, name) == 0) {
            frame->at[i].value = value;
            return;
        }
    if (run->status != HT_OK)
        return;
    if (frame->n == frame->capacity) {
        const size_t capacity = frame->n ? frame->n * 2 : 4;
        struct tpl_variable *at = tpl_alloc(run, capacity, sizeof *at);
        if (!at)
            return;
        if (frame->n)
            memcpy(at, frame->at, frame->n * sizeof *at);
        frame->at = at;
        frame->capacity = capacity;
    }
    frame->at[frame->n++] = (struct tpl_variable){name, value};
}

static tpl_value variable(tpl_run *run, const char *name) {
    for (const tpl_frame *frame = run->frame; frame; frame = frame->up)
        for (size_t i = 0; i < frame->n && tpl_step(run, 1); i++)
            if (strcmp(frame->at[i].name, name) == 0)
                return frame->at[i].value;
    const tpl_function *function = tpl_find_function(run, name);
    return function ? (tpl_value){.kind = TPL_FUNCTION, .as.function = function} : tpl_undefined(name);
}

/* ---- calls ---- */

void tpl_evaluate_arguments(tpl_run *run, const tpl_node *nodes, tpl_arguments *given) {
    *given = (tpl_arguments){.n = 0};
    for (; nodes && run->status == HT_OK; nodes = nodes->next) {
        if (given->n == TPL_MOST_ARGUMENTS) {
            tpl_fail(run, HT_ERROR_UNSUPPORTED, "more than %d arguments", TPL_MOST_ARGUMENTS);
            return;
        }
        const tpl_value value = tpl_evaluate(run, nodes->a);
        given->name[given->n] = *nodes->text ? nodes->text : NULL;
        given->positional += !*nodes->text;
        given->at[given->n++] = value;
    }
}

tpl_value tpl_call(tpl_run *run, tpl_value callee, const tpl_arguments *given) {
    if (!tpl_step(run, 1))
        return tpl_undefined(NULL);
    switch (callee.kind) {
    case TPL_MACRO:
        return callee.as.macro->call(run, callee.as.macro, given);
    case TPL_FUNCTION:
        return callee.as.function->call(run, given);
    case TPL_METHOD:
        return callee.as.method->call(run, callee.as.method->of, given);
    case TPL_UNDEFINED:
        return tpl_fail(run, HT_ERROR_FORMAT, "'%.80s' is undefined and cannot be called",
                        callee.as.name ? callee.as.name : "?");
    default:
        return tpl_fail(run, HT_ERROR_FORMAT, "a %s cannot be called", tpl_kind_name(callee));
    }
}

static tpl_value call_of(tpl_run *run, const tpl_node *node) {
    const tpl_value callee = tpl_evaluate(run, node->a);
    tpl_arguments given;
    tpl_evaluate_arguments(run, node->b, &given);
    run->line = node->line;
    return tpl_call(run, callee, &given);
}

static tpl_value filtered(tpl_run *run, const tpl_node *node, tpl_value of) {
    tpl_arguments given;
    tpl_evaluate_arguments(run, node->b, &given);
    run->line = node->line;
    return run->status == HT_OK ? tpl_filter(run, node->text, of, &given) : tpl_undefined(NULL);
}

tpl_value tpl_apply_filters(tpl_run *run, const tpl_node *filters, tpl_value to) {
    if (!filters || ++run->depth > TPL_MOST_DEPTH)
        return filters ? tpl_fail(run, HT_ERROR_UNSUPPORTED, "more than %d levels deep", TPL_MOST_DEPTH) : to;
    const tpl_value of = tpl_apply_filters(run, filters->a, to);
    run->depth--;
    return filtered(run, filters, of);
}

/* ---- operators ---- */

static tpl_value collection(tpl_run *run, const tpl_node *node) {
    const tpl_value list = tpl_new_list(run, node->kind == NODE_TUPLE ? TPL_TUPLE : TPL_LIST);
    for (const tpl_node *item = node->a; item && run->status == HT_OK; item = item->next)
        tpl_append(run, list, tpl_evaluate(run, item));
    return list;
}

static tpl_value dictionary(tpl_run *run, const tpl_node *node) {
    const tpl_value dict = tpl_new_dict(run, TPL_DICT);
    for (const tpl_node *key = node->a; key && run->status == HT_OK; key = key->next->next) {
        const tpl_value name = tpl_evaluate(run, key);
        tpl_dict_set(run, dict.as.dict, name, tpl_evaluate(run, key->next));
    }
    return dict;
}

static tpl_value concatenation(tpl_run *run, const tpl_node *node) {
    tpl_buffer out = {0};
    for (const tpl_node *item = node->a; item && run->status == HT_OK; item = item->next)
        tpl_put_value(run, &out, tpl_evaluate(run, item));
    return tpl_finish(run, &out);
}

static bool holds(tpl_run *run, const char *operator, tpl_value a, tpl_value b) {
    if (strcmp(operator, "in") == 0)
        return tpl_contains(run, b, a);
    if (strcmp(operator, "not in") == 0)
        return !tpl_contains(run, b, a);
    if (*operator== '=')
        return tpl_equal(run, a, b);
    if (*operator== '!')
        return !tpl_equal(run, a, b);
    const int order = tpl_order(run, a, b);
    const bool equal = operator[1] == '=';
    return *operator== '<' ? order < 0 || (equal && order == 0) : order> 0 ||(equal &&order == 0);
}

static tpl_value comparison(tpl_run *run, const tpl_node *node) {
    tpl_value left = tpl_evaluate(run, node->a);
    bool all = true;
    for (const tpl_node *operand = node->b; operand && all && run->status == HT_OK; operand = operand->next) {
        const tpl_value right = tpl_evaluate(run, operand->a);
        run->line = node->line;
        all = run->status == HT_OK && holds(run, operand->text, left, right);
        left = right;
    }
    return tpl_bool(all);
}

static tpl_value slice(tpl_run *run, const tpl_node *node) {
    const tpl_value of = tpl_evaluate(run, node->a);
    const tpl_value bounds[3] = {node->b ? tpl_evaluate(run, node->b) : tpl_none(),
                                 node->c ? tpl_evaluate(run, node->c) : tpl_none(),
                                 node->d ? tpl_evaluate(run, node->d) : tpl_none()};
    return run->status == HT_OK ? tpl_slice_of(run, of, bounds) : tpl_undefined(NULL);
}

static tpl_value sign(tpl_run *run, const tpl_node *node) {
    const tpl_value value = tpl_evaluate(run, node->a);
    if (run->status == HT_OK && !tpl_is_number(value))
        return tpl_fail(run, HT_ERROR_FORMAT, "a sign before %s", tpl_kind_name(value));
    if (value.kind == TPL_FLOAT) /* 0 - 0.0 were 0.0 */
        return tpl_float(node->kind == NODE_NEGATIVE ? -value.as.real : value.as.real);
    return tpl_arithmetic(run, node->kind == NODE_NEGATIVE ? "-" : "+", tpl_int(0), value);
}

static tpl_value test(tpl_run *run, const tpl_node *node) {
    const tpl_value of = tpl_evaluate(run, node->a);
    tpl_arguments given;
    tpl_evaluate_arguments(run, node->b, &given);
    run->line = node->line;
    return tpl_bool(run->status == HT_OK && tpl_test(run, node->text, of, &given));
}

static tpl_value logical(tpl_run *run, const tpl_node *node) {
    const tpl_value a = tpl_evaluate(run, node->kind == NODE_CONDITIONAL ? node->b : node->a);
    if (node->kind == NODE_NOT)
        return tpl_bool(!tpl_true(a));
    if (node->kind == NODE_AND)
        return tpl_true(a) ? tpl_evaluate(run, node->b) : a;
    if (node->kind == NODE_OR)
        return tpl_true(a) ? a : tpl_evaluate(run, node->b);
    if (tpl_true(a))
        return tpl_evaluate(run, node->a);
    return node->c ? tpl_evaluate(run, node->c) : tpl_undefined(NULL);
}

static tpl_value binary(tpl_run *run, const tpl_node *node) {
    const tpl_value a = tpl_evaluate(run, node->a), b = tpl_evaluate(run, node->b);
    run->line = node->line;
    return tpl_arithmetic(run, node->text, a, b);
}

static tpl_value item(tpl_run *run, const tpl_node *node) {
    const tpl_value a = tpl_evaluate(run, node->a), b = tpl_evaluate(run, node->b);
    run->line = node->line;
    return tpl_item(run, a, b);
}

static tpl_value compound(tpl_run *run, const tpl_node *node) {
    switch (node->kind) {
    case NODE_LIST:
    case NODE_TUPLE:
        return collection(run, node);
    case NODE_DICT:
        return dictionary(run, node);
    case NODE_ATTRIBUTE: {
        const tpl_value of = tpl_evaluate(run, node->a);
        run->line = node->line;
        return tpl_attribute(run, of, node->text);
    }
    case NODE_ITEM:
        return item(run, node);
    case NODE_SLICE:
        return slice(run, node);
    case NODE_CALL:
        return call_of(run, node);
    case NODE_FILTER:
        return filtered(run, node, tpl_evaluate(run, node->a));
    case NODE_TEST:
        return test(run, node);
    case NODE_NEGATIVE:
    case NODE_POSITIVE:
        return sign(run, node);
    case NODE_BINARY:
        return binary(run, node);
    case NODE_CONCAT:
        return concatenation(run, node);
    case NODE_COMPARE:
        return comparison(run, node);
    default:
        return logical(run, node);
    }
}

tpl_value tpl_evaluate(tpl_run *run, const tpl_node *node) {
    if (!tpl_step(run, 1))
        return tpl_undefined(NULL);
    run->line = node->line;
    switch (node->kind) {
    case NODE_STRING:
        return tpl_own_text(run, node->text, node->bytes);
    case NODE_INT:
        return tpl_int(node->integer);
    case NODE_FLOAT:
        return tpl_float(node->real);
    case NODE_TRUE:
    case NODE_FALSE:
        return tpl_bool(node->kind == NODE_TRUE);
    case NODE_NONE:
        return tpl_none();
    case NODE_NAME:
        return variable(run, node->text);
    default:
        break;
    }
    if (run->depth >= TPL_MOST_DEPTH)
        return tpl_fail(run, HT_ERROR_UNSUPPORTED, "more than %d levels deep", TPL_MOST_DEPTH);
    run->depth++;
    const tpl_value value = compound(run, node);
    run->depth--;
    return value;
}
