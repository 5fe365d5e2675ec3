/* Statements: what stands between {% and %}, and the blocks that it encloses. */
#include "text/template/tree.h"

#include <stdlib.h>
#include <string.h>

static tpl_node *body(tpl_parser *p, const char *const *ends);

/* At "{% word", one of the words? */
static bool at_end(const tpl_parser *p, const char *const *ends) {
    if (p->at->kind != TOKEN_BLOCK || p->at[1].kind != TOKEN_NAME)
        return false;
    for (; ends && *ends; ends++)
        if (strcmp(p->at[1].text, *ends) == 0)
            return true;
    return false;
}

/* The body that ends with the tag `end`, which is taken. Before it stands what closes the tag that opens. */
static tpl_node *enclosed(tpl_parser *p, const char *end) {
    const char *const ends[] = {end, NULL};
    tpl_expect(p, TOKEN_BLOCK_END, NULL);
    tpl_node *inside = body(p, ends);
    if (p->status == HT_OK) {
        p->at += 2;
        tpl_take(p, TOKEN_NAME, NULL); /* "endmacro name" */
        tpl_expect(p, TOKEN_BLOCK_END, NULL);
    }
    return inside;
}

static tpl_node *parse_if(tpl_parser *p) {
    static const char *const ends[] = {"elif", "else", "endif", NULL}, *const last[] = {"endif", NULL};
    tpl_node *first = NULL, **here = &first;
    for (;;) {
        tpl_node *node = tpl_new_node(p, NODE_IF);
        if (!node)
            return NULL;
        node->integer = first != NULL;
        *here = node;
        here = &node->c;
        node->a = tpl_parse_tuple(p, false);
        tpl_expect(p, TOKEN_BLOCK_END, NULL);
        node->b = body(p, ends);
        if (p->status != HT_OK)
            return NULL;
        const char *word = p->at[1].text;
        p->at += 2;
        if (strcmp(word, "elif") == 0)
            continue;
        if (strcmp(word, "else") == 0) {
            tpl_expect(p, TOKEN_BLOCK_END, NULL);
            node->c = body(p, last);
            if (p->status != HT_OK)
                return NULL;
            p->at += 2;
        }
        tpl_expect(p, TOKEN_BLOCK_END, NULL);
        return first;
    }
}

static tpl_node *parse_for(tpl_parser *p) {
    static const char *const ends[] = {"else", "endfor", NULL}, *const last[] = {"endfor", NULL};
    tpl_node *node = tpl_new_node(p, NODE_FOR);
    if (!node)
        return NULL;
    node->a = tpl_parse_target(p, false);
    tpl_expect(p, TOKEN_NAME, "in");
    node->b = tpl_parse_tuple(p, false);
    if (tpl_take(p, TOKEN_NAME, "if"))
        node->c = tpl_parse_expression(p, true);
    if (tpl_is(p, TOKEN_NAME, "recursive"))
        return tpl_parse_fail(p, HT_ERROR_UNSUPPORTED, "recursive loops are not supported");
    tpl_expect(p, TOKEN_BLOCK_END, NULL);
    p->loops++;
    node->d = body(p, ends);
    p->loops--;
    if (p->status == HT_OK && strcmp(p->at[1].text, "else") == 0) {
        p->at += 2;
        tpl_expect(p, TOKEN_BLOCK_END, NULL);
        node->e = body(p, last);
    }
    if (p->status != HT_OK)
        return NULL;
    p->at += 2;
    tpl_expect(p, TOKEN_BLOCK_END, NULL);
    return node;
}

static tpl_node *parse_set(tpl_parser *p) {
    tpl_node *node = tpl_new_node(p, NODE_SET);
    if (!node)
        return NULL;
    node->a = tpl_parse_target(p, true);
    if (tpl_take(p, TOKEN_OPERATOR, "=")) {
        node->b = tpl_parse_tuple(p, true);
        tpl_expect(p, TOKEN_BLOCK_END, NULL);
        return node;
    }
    node->kind = NODE_SET_BLOCK;
    if (tpl_take(p, TOKEN_OPERATOR, "|"))
        node->b = tpl_parse_filters(p, NULL);
    node->d = enclosed(p, "endset");
    return node;
}

/* "(a, b=1)": NODE_ARGUMENT with a default or none. */
static tpl_node *parameters(tpl_parser *p) {
    tpl_node *first = NULL, **end = &first;
    tpl_expect(p, TOKEN_OPERATOR, "(");
    while (p->status == HT_OK && !tpl_take(p, TOKEN_OPERATOR, ")")) {
        if (first)
            tpl_expect(p, TOKEN_OPERATOR, ",");
        tpl_node *node = tpl_new_node(p, NODE_ARGUMENT);
        if (!node)
            return NULL;
        node->text = tpl_take_name(p);
        if (tpl_take(p, TOKEN_OPERATOR, "="))
            node->a = tpl_parse_expression(p, true);
        *end = node;
        end = &node->next;
    }
    return first;
}

/* The body of a macro is no part of the loop around it. */
static tpl_node *macro_body(tpl_parser *p, const char *end) {
    const unsigned loops = p->loops;
    p->loops = 0;
    tpl_node *inside = enclosed(p, end);
    p->loops = loops;
    return inside;
}

static tpl_node *parse_macro(tpl_parser *p) {
    tpl_node *node = tpl_new_node(p, NODE_MACRO);
    if (!node)
        return NULL;
    node->text = tpl_take_name(p);
    node->a = parameters(p);
    node->d = macro_body(p, "endmacro");
    return node;
}

static tpl_node *parse_call(tpl_parser *p) {
    tpl_node *node = tpl_new_node(p, NODE_CALL_BLOCK), *caller = tpl_new_node(p, NODE_MACRO);
    if (!caller)
        return NULL;
    caller->text = "caller";
    node->c = caller;
    if (tpl_is(p, TOKEN_OPERATOR, "("))
        caller->a = parameters(p);
    node->b = tpl_parse_expression(p, true);
    if (p->status == HT_OK && node->b->kind != NODE_CALL)
        return tpl_parse_fail(p, HT_ERROR_FORMAT, "a call block calls nothing");
    caller->d = macro_body(p, "endcall");
    return node;
}

static tpl_node *parse_filter(tpl_parser *p) {
    tpl_node *node = tpl_new_node(p, NODE_FILTERED);
    if (!node)
        return NULL;
    node->b = tpl_parse_filters(p, NULL);
    node->d = enclosed(p, "endfilter");
    return node;
}

static tpl_node *parse_with(tpl_parser *p) {
    tpl_node *node = tpl_new_node(p, NODE_WITH);
    if (!node)
        return NULL;
    tpl_node **end = &node->a;
    while (p->status == HT_OK && !tpl_is(p, TOKEN_BLOCK_END, NULL)) {
        if (node->a)
            tpl_expect(p, TOKEN_OPERATOR, ",");
        *end = tpl_parse_target(p, false);
        tpl_expect(p, TOKEN_OPERATOR, "=");
        tpl_node *value = tpl_parse_expression(p, true);
        if (!value)
            return NULL;
        (*end)->next = value;
        end = &value->next;
    }
    node->d = enclosed(p, "endwith");
    return node;
}

static tpl_node *parse_jump(tpl_parser *p, tpl_node_kind kind) {
    if (!p->loops)
        return tpl_parse_fail(p, HT_ERROR_FORMAT, "break or continue outside of a loop");
    tpl_node *node = tpl_new_node(p, kind);
    tpl_expect(p, TOKEN_BLOCK_END, NULL);
    return node;
}

/* It encloses what the assistant says, for training; here it is a scope and nothing else. */
static tpl_node *parse_generation(tpl_parser *p) {
    tpl_node *node = tpl_new_node(p, NODE_WITH);
    if (node)
        node->d = enclosed(p, "endgeneration");
    return node;
}

static tpl_node *tag(tpl_parser *p) {
    static const char *const unsupported[] = {"include", "import", "from", "extends", "block", "autoescape", "trans"};
    p->at++;
    const tpl_token *word = p->at;
    const char *name = tpl_take_name(p);
    if (p->status != HT_OK)
        return NULL;
    if (strcmp(name, "if") == 0)
        return parse_if(p);
    if (strcmp(name, "for") == 0)
        return parse_for(p);
    if (strcmp(name, "set") == 0)
        return parse_set(p);
    if (strcmp(name, "macro") == 0)
        return parse_macro(p);
    if (strcmp(name, "call") == 0)
        return parse_call(p);
    if (strcmp(name, "filter") == 0)
        return parse_filter(p);
    if (strcmp(name, "with") == 0)
        return parse_with(p);
    if (strcmp(name, "generation") == 0)
        return parse_generation(p);
    if (strcmp(name, "break") == 0)
        return parse_jump(p, NODE_BREAK);
    if (strcmp(name, "continue") == 0)
        return parse_jump(p, NODE_CONTINUE);
    p->at = word;
    for (size_t i = 0; i < HT_COUNT(unsupported); i++)
        if (strcmp(name, unsupported[i]) == 0)
            return tpl_parse_fail(p, HT_ERROR_UNSUPPORTED, "the tag %s is not supported", name);
    return tpl_parse_fail(p, HT_ERROR_FORMAT, "unexpected tag %.40s", name);
}

/* Up to a tag with one of these words (NULL: to the end), which is not taken. */
static tpl_node *body(tpl_parser *p, const char *const *ends) {
    tpl_node *first = NULL, **end = &first;
    if (!tpl_enter(p)) {
        p->nested--;
        return NULL;
    }
    while (p->status == HT_OK && p->at->kind != TOKEN_END && !at_end(p, ends)) {
        tpl_node *node;
        if (p->at->kind == TOKEN_TEXT) {
            node = tpl_new_node(p, NODE_TEXT);
            if (node) {
                node->text = p->at->text;
                node->bytes = p->at->bytes;
            }
            p->at++;
        } else if (tpl_take(p, TOKEN_PRINT, NULL)) {
            node = tpl_new_node(p, NODE_PRINT);
            tpl_node *value = tpl_parse_tuple(p, true);
            if (node)
                node->a = value;
            tpl_expect(p, TOKEN_PRINT_END, NULL);
        } else {
            node = tag(p);
        }
        if (node) {
            *end = node;
            end = &node->next;
        }
    }
    if (p->at->kind == TOKEN_END && ends) {
        while (ends[1])
            ends++; /* the last of them closes the block */
        tpl_parse_fail(p, HT_ERROR_FORMAT, "the template ends where %s is missing", *ends);
    }
    p->nested--;
    return first;
}

tpl_node *tpl_parse_template(tpl_parser *p) {
    return body(p, NULL);
}

ht_status ht_template_parse(const char *source, size_t bytes, ht_template **out, ht_error *error) {
    *out = NULL;
    ht_template *t;
    ht_status status = ht_alloc((void **)&t, 1, sizeof *t, "a template", error);
    if (status != HT_OK)
        return status;
    tpl_tokens tokens = {0};
    status = tpl_lex(&t->arena, source, bytes, &tokens, error);
    if (status == HT_OK) {
        tpl_parser p = {.arena = &t->arena, .at = tokens.at, .error = error};
        t->body = tpl_parse_template(&p);
        status = p.status;
    }
    free(tokens.at);
    if (status != HT_OK) {
        ht_template_destroy(t);
        return ht_error_prefix(error, status, "chat template");
    }
    *out = t;
    return HT_OK;
}

void ht_template_destroy(ht_template *t) {
    if (!t)
        return;
    ht_arena_free(&t->arena);
    free(t);
}
