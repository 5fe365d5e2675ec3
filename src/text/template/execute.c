/* What statements do, and a whole render. */
#include "text/template/value.h"

#include <stdlib.h>
#include <string.h>

/* What a body prints, as a value. */
static tpl_value printed(tpl_run *run, const tpl_node *body) {
    tpl_buffer text = {0}, *out = run->out;
    run->out = &text;
    tpl_execute(run, body);
    run->out = out;
    return tpl_finish(run, &text);
}

static void assign_to(tpl_run *run, const tpl_node *target, tpl_value value) {
    if (run->status != HT_OK)
        return;
    if (target->kind == NODE_NAME) {
        tpl_assign(run, target->text, value);
    } else if (target->kind == NODE_ATTRIBUTE) {
        const tpl_value space = tpl_evaluate(run, target->a);
        if (run->status == HT_OK && space.kind != TPL_NAMESPACE)
            tpl_fail(run, HT_ERROR_FORMAT, "an attribute is set of %s, which is no namespace", tpl_kind_name(space));
        else if (run->status == HT_OK)
            tpl_dict_set(run, space.as.dict, tpl_own_text(run, target->text, strlen(target->text)), value);
    } else {
        const tpl_list *items = tpl_items(run, value);
        size_t i = 0, n = 0;
        for (const tpl_node *name = target->a; name; name = name->next)
            n++;
        if (items && items->n != n)
            tpl_fail(run, HT_ERROR_FORMAT, "%zu names for %zu values", n, items->n);
        for (const tpl_node *name = target->a; name && items && run->status == HT_OK; name = name->next)
            tpl_assign(run, name->text, items->at[i++]);
    }
}

static const tpl_list *loop_items(tpl_run *run, const tpl_node *node) {
    const tpl_list *all = tpl_items(run, tpl_evaluate(run, node->b));
    if (!all)
        return NULL;
    const tpl_value kept = tpl_new_list(run, TPL_LIST); /* a copy: the list may change in the loop */
    tpl_frame *outside = run->frame;
    for (size_t i = 0; i < all->n && run->status == HT_OK; i++) {
        if (node->c) {
            if (!tpl_push_frame(run, outside))
                break;
            assign_to(run, node->a, all->at[i]);
            if (!tpl_true(tpl_evaluate(run, node->c)))
                continue;
        }
        tpl_append(run, kept, all->at[i]);
    }
    run->frame = outside;
    return run->status == HT_OK ? kept.as.list : NULL;
}

static void execute_for(tpl_run *run, const tpl_node *node) {
    tpl_loop *loop = tpl_alloc(run, 1, sizeof *loop);
    const tpl_list *items = loop_items(run, node);
    if (!loop || !items)
        return;
    tpl_frame *outside = run->frame;
    *loop = (tpl_loop){.items = items};
    bool finished = false; /* a body, up to its end */
    for (; loop->index < items->n && run->status == HT_OK && run->flow != TPL_BREAK; loop->index++) {
        run->flow = TPL_ONWARD;
        if (!tpl_push_frame(run, outside))
            break;
        tpl_assign(run, "loop", (tpl_value){.kind = TPL_LOOP, .as.loop = loop});
        assign_to(run, node->a, items->at[loop->index]);
        tpl_execute(run, node->d);
        finished = finished || run->flow == TPL_ONWARD;
    }
    run->flow = TPL_ONWARD;
    run->frame = outside;
    if (!finished && run->status == HT_OK) { /* Jinja does so after a break or continue in the first, too */
        if (tpl_push_frame(run, outside))
            tpl_execute(run, node->e);
        run->frame = outside;
    }
}

static void execute_if(tpl_run *run, const tpl_node *node) {
    for (;;) {
        if (tpl_true(tpl_evaluate(run, node->a))) {
            tpl_execute(run, node->b);
            return;
        }
        if (run->status != HT_OK)
            return;
        node = node->c;
        if (!node || node->kind != NODE_IF || node->next || !node->integer) {
            tpl_execute(run, node);
            return;
        }
    }
}

static void execute_with(tpl_run *run, const tpl_node *node) {
    tpl_frame *outside = run->frame, *inside = tpl_push_frame(run, outside);
    for (const tpl_node *target = node->a; target && inside && run->status == HT_OK; target = target->next->next) {
        run->frame = outside;
        const tpl_value value = tpl_evaluate(run, target->next);
        run->frame = inside;
        assign_to(run, target, value);
    }
    if (inside)
        tpl_execute(run, node->d);
    run->frame = outside;
}

/* ---- macros ---- */

static void bind(tpl_run *run, const tpl_macro *macro, const tpl_arguments *given) {
    size_t at = 0, used = 0;
    for (const tpl_node *parameter = macro->node->a; parameter && run->status == HT_OK;
         parameter = parameter->next, at++) {
        if (tpl_has_argument(given, at, parameter->text)) {
            tpl_assign(run, parameter->text, tpl_argument(given, at, parameter->text, tpl_undefined(NULL)));
            used++;
        } else {
            tpl_assign(run, parameter->text,
                       parameter->a ? tpl_evaluate(run, parameter->a) : tpl_undefined(parameter->text));
        }
    }
    for (size_t i = given->positional; i < given->n; i++)
        if (strcmp(given->name[i], "caller") == 0) {
            tpl_assign(run, "caller", given->at[i]);
            used++;
        }
    if (run->status == HT_OK && used < given->n)
        tpl_fail(run, HT_ERROR_FORMAT, "the macro %.80s takes no such arguments", macro->node->text);
}

static tpl_value call_macro(tpl_run *run, const tpl_macro *macro, const tpl_arguments *given) {
    tpl_frame *outside = run->frame;
    const tpl_flow flow = run->flow;
    tpl_value text = tpl_undefined(NULL);
    run->flow = TPL_ONWARD;
    if (tpl_push_frame(run, macro->frame)) {
        bind(run, macro, given);
        text = printed(run, macro->node->d);
    }
    run->frame = outside;
    run->flow = flow;
    return text;
}

static tpl_value new_macro(tpl_run *run, const tpl_node *node) {
    tpl_macro *macro = tpl_alloc(run, 1, sizeof *macro);
    if (!macro)
        return tpl_undefined(NULL);
    *macro = (tpl_macro){node, run->frame, call_macro};
    return (tpl_value){.kind = TPL_MACRO, .as.macro = macro};
}

/* ---- statements that print ---- */

static void execute_call(tpl_run *run, const tpl_node *node) {
    const tpl_value callee = tpl_evaluate(run, node->b->a);
    tpl_arguments given;
    tpl_evaluate_arguments(run, node->b->b, &given);
    if (run->status == HT_OK && given.n < TPL_MOST_ARGUMENTS) {
        given.name[given.n] = "caller";
        given.at[given.n++] = new_macro(run, node->c);
    }
    tpl_put_value(run, run->out, tpl_call(run, callee, &given));
}

/* What a body prints in a scope of its own, through filters. */
static tpl_value enclosed(tpl_run *run, const tpl_node *node) {
    tpl_frame *outside = run->frame;
    tpl_value text = tpl_undefined(NULL);
    if (tpl_push_frame(run, outside))
        text = printed(run, node->d);
    run->frame = outside;
    return tpl_apply_filters(run, node->b, text);
}

static void execute_one(tpl_run *run, const tpl_node *node) {
    switch (node->kind) {
    case NODE_TEXT:
        tpl_put(run, run->out, node->text, node->bytes, false);
        break;
    case NODE_PRINT:
        tpl_put_value(run, run->out, tpl_evaluate(run, node->a));
        break;
    case NODE_IF:
        execute_if(run, node);
        break;
    case NODE_FOR:
        execute_for(run, node);
        break;
    case NODE_SET:
        assign_to(run, node->a, tpl_evaluate(run, node->b));
        break;
    case NODE_SET_BLOCK:
        assign_to(run, node->a, enclosed(run, node));
        break;
    case NODE_MACRO:
        tpl_assign(run, node->text, new_macro(run, node));
        break;
    case NODE_CALL_BLOCK:
        execute_call(run, node);
        break;
    case NODE_FILTERED:
        tpl_put_value(run, run->out, enclosed(run, node));
        break;
    case NODE_WITH:
        execute_with(run, node);
        break;
    default:
        run->flow = node->kind == NODE_BREAK ? TPL_BREAK : TPL_CONTINUE;
    }
}

void tpl_execute(tpl_run *run, const tpl_node *body) {
    if (++run->depth > TPL_MOST_DEPTH)
        tpl_fail(run, HT_ERROR_UNSUPPORTED, "more than %d levels deep", TPL_MOST_DEPTH);
    for (; body && run->flow == TPL_ONWARD && tpl_step(run, 1); body = body->next) {
        run->line = body->line;
        execute_one(run, body);
    }
    run->depth--;
}

/* ---- the whole ---- */

static bool is_own_role(const tpl_value role) {
    static const char *const roles[] = {
        "system", "user", "assistant", "tool",     "developer", "function",      "ipython",     "model",  "observation",
        "human",  "gpt",  "chatbot",   "document", "documents", "tool_response", "environment", "control"};
    for (size_t i = 0; i < HT_COUNT(roles) && role.kind == TPL_STRING; i++)
        if (strlen(roles[i]) == role.as.string->bytes &&
            memcmp(roles[i], role.as.string->data, role.as.string->bytes) == 0)
            return true;
    return false;
}

static void own_roles(tpl_run *run, tpl_value messages) {
    for (size_t i = 0; messages.kind == TPL_LIST && i < messages.as.list->n && run->status == HT_OK; i++) {
        const tpl_value message = messages.as.list->at[i];
        tpl_value *role = message.kind == TPL_DICT ? tpl_dict_named(run, message.as.dict, "role") : NULL;
        if (role && is_own_role(*role))
            *role = tpl_own_text(run, role->as.string->data, role->as.string->bytes);
    }
}

static void define(tpl_run *run, const json_t *variables) {
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)variables, name, value) {
        const size_t bytes = strlen(name);
        const bool own = bytes >= 6 && strcmp(name + bytes - 6, "_token") == 0 && json_is_string(value);
        const tpl_value made = tpl_from_json(run, value, !own, 0);
        if (run->status != HT_OK)
            return;
        if (strcmp(name, "messages") == 0)
            own_roles(run, made);
        tpl_assign(run, name, made);
    }
}

static ht_status hand_out(const tpl_buffer *text, ht_script *out, ht_error *error) {
    ht_status status = ht_text_append(&out->text, "", 0, error); /* no text is one, too */
    for (size_t at = 0, end; at < text->bytes && status == HT_OK; at = end) {
        for (end = at + 1; end < text->bytes && text->marks[end] == text->marks[at];)
            end++;
        status = ht_script_append(out, text->data + at, end - at, text->marks[at], error);
    }
    return status;
}

ht_status ht_template_render(const ht_template *t, const json_t *variables, const struct tm *now, ht_script *out,
                             ht_error *error) {
    return ht_template_try(t, variables, now, TPL_MOST_STEPS, out, error);
}

ht_status ht_template_try(const ht_template *t, const json_t *variables, const struct tm *now, uint64_t most_steps,
                          ht_script *out, ht_error *error) {
    tpl_buffer text = {0};
    tpl_run run = {.error = error, .out = &text, .now = now, .line = 1, .most_steps = most_steps};
    *out = (ht_script){.n_foreign = 0};
    if (tpl_push_frame(&run, NULL)) {
        define(&run, variables);
        tpl_execute(&run, t->body);
    }
    ht_status status = run.status;
    if (status == HT_OK)
        status = hand_out(&text, out, error);
    if (status != HT_OK)
        ht_script_free(out);
    ht_arena_free(&run.arena);
    return status;
}
