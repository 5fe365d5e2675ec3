/* Expressions: recursive descent, in Jinja's order of operators. */
#include "text/template/tree.h"

#include <string.h>

tpl_node *tpl_parse_fail(tpl_parser *p, ht_status status, const char *format, ...) {
    if (p->status == HT_OK) {
        char text[256];
        va_list list;
        va_start(list, format);
        vsnprintf(text, sizeof text, format, list);
        va_end(list);
        p->status = ht_fail(p->error, status, "line %u: %s", p->at->line, text);
    }
    return NULL;
}

tpl_node *tpl_new_node(tpl_parser *p, tpl_node_kind kind) {
    if (p->status != HT_OK)
        return NULL;
    tpl_node *node = ht_arena_alloc(p->arena, sizeof *node);
    if (!node)
        return tpl_parse_fail(p, HT_ERROR_MEMORY, "no memory for a template");
    node->kind = kind;
    node->line = p->at->line;
    node->text = "";
    return node;
}

static tpl_node *node_of(tpl_parser *p, tpl_node_kind kind, const char *text, tpl_node *a, tpl_node *b) {
    tpl_node *node = tpl_new_node(p, kind);
    if (node) {
        node->text = text;
        node->bytes = strlen(text);
        node->a = a;
        node->b = b;
        node->line = a ? a->line : node->line;
    }
    return node;
}

bool tpl_is(const tpl_parser *p, tpl_token_kind kind, const char *text) {
    return p->status == HT_OK && p->at->kind == kind && (!text || strcmp(p->at->text, text) == 0);
}

bool tpl_take(tpl_parser *p, tpl_token_kind kind, const char *text) {
    const bool is = tpl_is(p, kind, text) && kind != TOKEN_END;
    p->at += is;
    return is;
}

static const char *found(const tpl_parser *p) {
    switch (p->at->kind) {
    case TOKEN_TEXT:
        return "text";
    case TOKEN_PRINT:
        return "{{";
    case TOKEN_PRINT_END:
        return "}}";
    case TOKEN_BLOCK:
        return "{%";
    case TOKEN_BLOCK_END:
        return "%}";
    case TOKEN_END:
        return "the end";
    default:
        return p->at->text;
    }
}

void tpl_expect(tpl_parser *p, tpl_token_kind kind, const char *text) {
    if (!tpl_take(p, kind, text))
        tpl_parse_fail(p, HT_ERROR_FORMAT, "expected %s, found %.40s",
                       text                      ? text
                       : kind == TOKEN_BLOCK_END ? "%}"
                                                 : "}}",
                       found(p));
}

const char *tpl_take_name(tpl_parser *p) {
    if (!tpl_is(p, TOKEN_NAME, NULL)) {
        tpl_parse_fail(p, HT_ERROR_FORMAT, "expected a name, found %.40s", found(p));
        return "";
    }
    return p->at++->text;
}

bool tpl_enter(tpl_parser *p) {
    if (++p->nested > TPL_MOST_NESTED)
        tpl_parse_fail(p, HT_ERROR_UNSUPPORTED, "more than %d levels inside each other", TPL_MOST_NESTED);
    return p->status == HT_OK;
}

static bool operator_is(const tpl_parser *p, const char *text) {
    return tpl_is(p, TOKEN_OPERATOR, text);
}

static bool take_operator(tpl_parser *p, const char *text) {
    return tpl_take(p, TOKEN_OPERATOR, text);
}

static bool word_is(const tpl_parser *p, const char *text) {
    return tpl_is(p, TOKEN_NAME, text);
}

static tpl_node *constant(tpl_parser *p) {
    static const struct {
        const char *name;
        tpl_node_kind kind;
    } words[] = {{"true", NODE_TRUE},   {"True", NODE_TRUE}, {"false", NODE_FALSE},
                 {"False", NODE_FALSE}, {"none", NODE_NONE}, {"None", NODE_NONE}};
    const tpl_token *token = p->at;
    tpl_node *node = tpl_new_node(p, NODE_NAME);
    if (!node)
        return NULL;
    p->at++;
    node->text = token->text;
    node->bytes = token->bytes;
    if (token->kind == TOKEN_INT) {
        node->kind = NODE_INT;
        node->integer = token->number.integer;
    } else if (token->kind == TOKEN_FLOAT) {
        node->kind = NODE_FLOAT;
        node->real = token->number.real;
    } else {
        for (size_t i = 0; i < HT_COUNT(words); i++)
            if (strcmp(token->text, words[i].name) == 0)
                node->kind = words[i].kind;
    }
    return node;
}

/* Strings beside each other are one. */
static tpl_node *string(tpl_parser *p) {
    tpl_node *node = tpl_new_node(p, NODE_STRING);
    if (!node)
        return NULL;
    const tpl_token *first = p->at;
    size_t bytes = 0;
    for (; p->at->kind == TOKEN_STRING; p->at++)
        bytes += p->at->bytes;
    char *text = ht_arena_alloc(p->arena, bytes + 1);
    if (!text)
        return tpl_parse_fail(p, HT_ERROR_MEMORY, "no memory for a template");
    node->text = text;
    node->bytes = bytes;
    for (; first < p->at; first++) {
        memcpy(text, first->text, first->bytes);
        text += first->bytes;
    }
    return node;
}

/* "a, b" up to `close`, with a comma at the end allowed; of a dictionary: "a: b". */
static tpl_node *items(tpl_parser *p, tpl_node_kind kind, const char *close) {
    tpl_node *node = tpl_new_node(p, kind);
    if (!node)
        return NULL;
    tpl_node **end = &node->a;
    p->at++;
    while (p->status == HT_OK && !take_operator(p, close)) {
        if (node->a)
            tpl_expect(p, TOKEN_OPERATOR, ",");
        if (take_operator(p, close))
            break;
        for (int i = 0; i < 1 + (kind == NODE_DICT) && p->status == HT_OK; i++) {
            if (i)
                tpl_expect(p, TOKEN_OPERATOR, ":");
            *end = tpl_parse_expression(p, true);
            if (*end)
                end = &(*end)->next;
        }
    }
    return p->status == HT_OK ? node : NULL;
}

static tpl_node *parentheses(tpl_parser *p) {
    p->at++;
    if (take_operator(p, ")"))
        return node_of(p, NODE_TUPLE, "", NULL, NULL);
    tpl_node *node = tpl_parse_tuple(p, true);
    tpl_expect(p, TOKEN_OPERATOR, ")");
    return node;
}

tpl_node *tpl_parse_primary(tpl_parser *p) {
    if (p->status != HT_OK)
        return NULL;
    switch (p->at->kind) {
    case TOKEN_NAME:
    case TOKEN_INT:
    case TOKEN_FLOAT:
        return constant(p);
    case TOKEN_STRING:
        return string(p);
    default:
        break;
    }
    if (!tpl_enter(p))
        return NULL;
    tpl_node *node = NULL;
    if (operator_is(p, "("))
        node = parentheses(p);
    else if (operator_is(p, "["))
        node = items(p, NODE_LIST, "]");
    else if (operator_is(p, "{"))
        node = items(p, NODE_DICT, "}");
    else
        tpl_parse_fail(p, HT_ERROR_FORMAT, "an expression is missing before %.40s", found(p));
    p->nested--;
    return node;
}

/* "(a, b=c)" */
static tpl_node *arguments(tpl_parser *p) {
    tpl_node *first = NULL, **end = &first;
    bool named = false;
    p->at++;
    while (p->status == HT_OK && !take_operator(p, ")")) {
        if (first)
            tpl_expect(p, TOKEN_OPERATOR, ",");
        if (first && take_operator(p, ")"))
            break;
        tpl_node *argument = tpl_new_node(p, NODE_ARGUMENT);
        if (!argument)
            return NULL;
        if (p->at->kind == TOKEN_NAME && p->at[1].kind == TOKEN_OPERATOR && strcmp(p->at[1].text, "=") == 0) {
            argument->text = p->at->text;
            argument->bytes = p->at->bytes;
            p->at += 2;
            named = true;
        } else if (named) {
            return tpl_parse_fail(p, HT_ERROR_FORMAT, "an argument without a name follows one that has a name");
        }
        argument->a = tpl_parse_expression(p, true);
        *end = argument;
        end = &argument->next;
    }
    return p->status == HT_OK ? first : NULL;
}

/* "[b]" or "[b:c:d]" */
static tpl_node *subscript(tpl_parser *p, tpl_node *of) {
    tpl_node *parts[3] = {0};
    int colons = 0;
    p->at++;
    while (p->status == HT_OK && !operator_is(p, "]") && colons < 3) {
        if (take_operator(p, ":"))
            colons++;
        else if (parts[colons])
            return tpl_parse_fail(p, HT_ERROR_FORMAT, "expected ], found %.40s", found(p));
        else
            parts[colons] = tpl_parse_expression(p, true);
    }
    tpl_expect(p, TOKEN_OPERATOR, "]");
    if (p->status == HT_OK && (colons > 2 || (!colons && !parts[0])))
        return tpl_parse_fail(p, HT_ERROR_FORMAT, "no valid subscript");
    tpl_node *node = node_of(p, colons ? NODE_SLICE : NODE_ITEM, "", of, parts[0]);
    if (node) {
        node->c = parts[1];
        node->d = parts[2];
    }
    return node;
}

tpl_node *tpl_parse_postfix(tpl_parser *p, tpl_node *node) {
    while (p->status == HT_OK) {
        if (take_operator(p, ".")) {
            if (p->at->kind == TOKEN_INT) {
                tpl_node *index = constant(p);
                node = node_of(p, NODE_ITEM, "", node, index);
            } else {
                node = node_of(p, NODE_ATTRIBUTE, tpl_take_name(p), node, NULL);
            }
        } else if (operator_is(p, "[")) {
            node = subscript(p, node);
        } else if (operator_is(p, "(")) {
            tpl_node *given = arguments(p);
            node = node_of(p, NODE_CALL, "", node, given);
        } else {
            break;
        }
    }
    return p->status == HT_OK ? node : NULL;
}

static tpl_node *one_filter(tpl_parser *p, tpl_node *of) {
    const char *name = tpl_take_name(p);
    tpl_node *given = operator_is(p, "(") ? arguments(p) : NULL;
    return node_of(p, NODE_FILTER, name, of, given);
}

tpl_node *tpl_parse_filters(tpl_parser *p, tpl_node *of) {
    tpl_node *node = one_filter(p, of);
    while (p->status == HT_OK && take_operator(p, "|"))
        node = one_filter(p, node);
    return node;
}

/* Behind "is". */
static tpl_node *test(tpl_parser *p, tpl_node *of) {
    const bool negated = tpl_take(p, TOKEN_NAME, "not");
    const char *name = tpl_take_name(p);
    tpl_node *given = NULL;
    if (operator_is(p, "(")) {
        given = arguments(p);
    } else if (p->status == HT_OK && (p->at->kind == TOKEN_STRING || p->at->kind == TOKEN_INT ||
                                      p->at->kind == TOKEN_FLOAT || operator_is(p, "[") || operator_is(p, "{") ||
                                      (p->at->kind == TOKEN_NAME && !word_is(p, "else") && !word_is(p, "or") &&
                                       !word_is(p, "and") && !word_is(p, "if")))) {
        if (word_is(p, "is"))
            return tpl_parse_fail(p, HT_ERROR_FORMAT, "tests cannot be chained");
        tpl_node *value = tpl_parse_postfix(p, tpl_parse_primary(p));
        given = tpl_new_node(p, NODE_ARGUMENT);
        if (given)
            given->a = value;
    }
    tpl_node *node = node_of(p, NODE_TEST, name, of, given);
    return negated ? node_of(p, NODE_NOT, "", node, NULL) : node;
}

static tpl_node *filters_and_tests(tpl_parser *p, tpl_node *node) {
    while (p->status == HT_OK) {
        if (take_operator(p, "|")) {
            node = one_filter(p, node);
        } else if (tpl_take(p, TOKEN_NAME, "is")) {
            node = test(p, node);
        } else if (operator_is(p, "(")) {
            tpl_node *given = arguments(p);
            node = node_of(p, NODE_CALL, "", node, given);
        } else {
            break;
        }
    }
    return node;
}

static tpl_node *unary(tpl_parser *p, bool with_filter) {
    if (!tpl_enter(p)) {
        p->nested--;
        return NULL;
    }
    tpl_node *node;
    if (take_operator(p, "-"))
        node = node_of(p, NODE_NEGATIVE, "", unary(p, false), NULL);
    else if (take_operator(p, "+"))
        node = node_of(p, NODE_POSITIVE, "", unary(p, false), NULL);
    else
        node = tpl_parse_primary(p);
    node = tpl_parse_postfix(p, node);
    if (with_filter)
        node = filters_and_tests(p, node);
    p->nested--;
    return node;
}

/* One of two operators for every level; the deeper the level, the tighter they bind. */
static tpl_node *binary(tpl_parser *p, int level) {
    static const char *const operators[][4] = {{"+", "-"}, {"~"}, {"*", "/", "//", "%"}, {"**"}};
    if (level == (int)HT_COUNT(operators))
        return unary(p, true);
    tpl_node *node = binary(p, level + 1);
    while (p->status == HT_OK) {
        const char *operator= NULL;
        for (size_t i = 0; i < 4 && !operator; i++)
            if (operators[level][i] && take_operator(p, operators[level][i]))
                operator= operators[level][i];
        if (!operator)
            break;
        tpl_node *other = binary(p, level + 1);
        if (level == 1) { /* all of a chain in one node */
            if (node && node->kind == NODE_CONCAT && node->integer == 1) {
                node->e->next = other;
            } else {
                tpl_node *whole = node_of(p, NODE_CONCAT, "", node, NULL);
                if (!whole)
                    return NULL;
                whole->integer = 1;
                node->next = other;
                node = whole;
            }
            if (node)
                node->e = other;
        } else {
            node = node_of(p, NODE_BINARY, operator, node, other);
        }
    }
    if (node && node->kind == NODE_CONCAT)
        node->integer = 0; /* complete: one in parentheses is an item of another */
    return p->status == HT_OK ? node : NULL;
}

static const char *comparison(tpl_parser *p) {
    static const char *const operators[] = {"==", "!=", "<", "<=", ">", ">="};
    for (size_t i = 0; i < HT_COUNT(operators); i++)
        if (take_operator(p, operators[i]))
            return operators[i];
    if (tpl_take(p, TOKEN_NAME, "in"))
        return "in";
    if (word_is(p, "not") && p->at[1].kind == TOKEN_NAME && strcmp(p->at[1].text, "in") == 0) {
        p->at += 2;
        return "not in";
    }
    return NULL;
}

static tpl_node *compare(tpl_parser *p) {
    tpl_node *node = binary(p, 0), *whole = NULL, **end = NULL;
    for (const char *operator; p->status == HT_OK && (operator= comparison(p));) {
        if (!whole) {
            whole = node_of(p, NODE_COMPARE, "", node, NULL);
            if (!whole)
                return NULL;
            end = &whole->b;
        }
        *end = node_of(p, NODE_OPERAND, operator, binary(p, 0), NULL);
        if (*end)
            end = &(*end)->next;
    }
    return whole ? whole : node;
}

static tpl_node *negation(tpl_parser *p) {
    if (!word_is(p, "not"))
        return compare(p);
    p->at++;
    tpl_node *node = NULL;
    if (tpl_enter(p))
        node = node_of(p, NODE_NOT, "", negation(p), NULL);
    p->nested--;
    return node;
}

static tpl_node *conjunction(tpl_parser *p) {
    tpl_node *node = negation(p);
    while (tpl_take(p, TOKEN_NAME, "and")) {
        tpl_node *other = negation(p);
        node = node_of(p, NODE_AND, "", node, other);
    }
    return node;
}

static tpl_node *disjunction(tpl_parser *p) {
    tpl_node *node = conjunction(p);
    while (tpl_take(p, TOKEN_NAME, "or")) {
        tpl_node *other = conjunction(p);
        node = node_of(p, NODE_OR, "", node, other);
    }
    return node;
}

tpl_node *tpl_parse_expression(tpl_parser *p, bool with_condition) {
    tpl_node *node = NULL;
    if (tpl_enter(p)) {
        node = disjunction(p);
        while (with_condition && tpl_take(p, TOKEN_NAME, "if")) {
            tpl_node *condition = disjunction(p);
            tpl_node *otherwise = tpl_take(p, TOKEN_NAME, "else") ? tpl_parse_expression(p, true) : NULL;
            node = node_of(p, NODE_CONDITIONAL, "", node, condition);
            if (node)
                node->c = otherwise;
        }
    }
    p->nested--;
    return p->status == HT_OK ? node : NULL;
}

static bool tuple_ends(const tpl_parser *p) {
    return p->at->kind == TOKEN_PRINT_END || p->at->kind == TOKEN_BLOCK_END || operator_is(p, ")") ||
           word_is(p, "in") || operator_is(p, "=");
}

tpl_node *tpl_parse_tuple(tpl_parser *p, bool with_condition) {
    tpl_node *first = tpl_parse_expression(p, with_condition), *last = first;
    if (!operator_is(p, ","))
        return first;
    tpl_node *tuple = node_of(p, NODE_TUPLE, "", first, NULL);
    while (take_operator(p, ",") && !tuple_ends(p)) {
        last->next = tpl_parse_expression(p, with_condition);
        if (last->next)
            last = last->next;
    }
    return p->status == HT_OK ? tuple : NULL;
}

tpl_node *tpl_parse_target(tpl_parser *p, bool with_attribute) {
    tpl_node *tuple = NULL, *first = NULL, **end = &first;
    const bool enclosed = take_operator(p, "(");
    do {
        if (tuple_ends(p))
            break;
        const char *name = tpl_take_name(p);
        tpl_node *node = node_of(p, NODE_NAME, name, NULL, NULL);
        if (with_attribute && !enclosed && !first && take_operator(p, "."))
            return node_of(p, NODE_ATTRIBUTE, tpl_take_name(p), node, NULL);
        if (!node)
            return NULL;
        *end = node;
        end = &node->next;
        if (operator_is(p, ",") && !tuple)
            tuple = tpl_new_node(p, NODE_TUPLE);
    } while (p->status == HT_OK && take_operator(p, ","));
    if (enclosed)
        tpl_expect(p, TOKEN_OPERATOR, ")");
    if (!first)
        tpl_parse_fail(p, HT_ERROR_FORMAT, "expected a name, found %.40s", found(p));
    if (tuple)
        tuple->a = first;
    return p->status != HT_OK ? NULL : tuple ? tuple : first;
}
