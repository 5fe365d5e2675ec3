/* Mixtures of experts: their keys and tensors, and the operators of their blocks. Shazeer et al., "Outrageously Large
 * Neural Networks" (2017); shared experts, groups and the bias for choosing: DeepSeek-AI, "DeepSeek-V3 Technical
 * Report" (2024). */
#include "model/build.h"

/* llama.cpp's numbers of the functions that make weights of what a router says; 0: the family's. */
static int function_of(ht_builder *b, int absent) {
    static const int functions[] = {HT_ROUTE_SOFTMAX, HT_ROUTE_SIGMOID, HT_ROUTE_SOFTMAX_CHOSEN};
    const int64_t number = ht_build_int(b, "expert_gating_func", 0, INT32_MAX, 0);
    if (number > (int64_t)HT_COUNT(functions))
        ht_build_fail(b, HT_ERROR_UNSUPPORTED,
                      "%s.expert_gating_func %lld is not known (1: softmax, 2: sigmoid, 3: "
                      "softmax of the chosen)",
                      b->model->info.architecture, (long long)number);
    return number && b->status == HT_OK ? functions[number - 1] : absent;
}

static void read_groups(ht_builder *b, int experts, ht_route *route) {
    const char *arch = b->model->info.architecture;
    const int groups = (int)ht_build_int(b, "expert_group_count", 0, HT_MAX_EXPERTS, 0);
    if (groups < 2)
        return;
    route->groups = groups;
    route->groups_used = (int)ht_build_int(b, "expert_group_used_count", 0, HT_MAX_EXPERTS, 0);
    if (experts % groups != 0)
        ht_build_fail(b, HT_ERROR_FORMAT, "%s.expert_count %d is not a multiple of expert_group_count %d", arch,
                      experts, groups);
    else if (route->groups_used < 1 || route->groups_used > groups ||
             route->used > route->groups_used * (experts / groups))
        ht_build_fail(b, HT_ERROR_FORMAT, "%s: %d experts are used of %d in %d of %d groups: there are not as many",
                      arch, route->used, experts, route->groups_used, groups);
}

static void check_mixture(ht_builder *b, const ht_mixture *m) {
    const char *arch = b->model->info.architecture;
    if (m->route.used < 1 || m->route.used > m->experts)
        ht_build_fail(b, HT_ERROR_FORMAT, "%s.expert_used_count %d is not from 1 to expert_count %d", arch,
                      m->route.used, m->experts);
    else if (m->features < 1)
        ht_build_fail(b, HT_ERROR_FORMAT, "%s.expert_feed_forward_length is missing, or 0", arch);
}

ht_mixture ht_build_mixture(ht_builder *b, int function, bool renormalise) {
    return ht_build_mixture_of(b, function, renormalise, 0);
}

ht_mixture ht_build_mixture_of(ht_builder *b, int function, bool renormalise, int features) {
    ht_mixture m = {.activation = HT_ACT_SILU};
    ht_hparams *h = &b->model->hparams;
    const ht_shape *shape = b->model->shape;
    m.route.function = function;
    m.route.renormalise = renormalise;
    m.route.scale = 1;
    if (shape) {
        const ht_shape_mixture *own = ht_shape_experts(shape);
        if (own) {
            m.experts = own->experts, m.route.used = own->used, m.features = own->features;
            m.shared_features = own->shared, m.dense_layers = own->dense;
        }
        return m;
    }
    m.experts = (int)ht_build_int(b, "expert_count", 0, HT_MAX_EXPERTS, 0);
    if (m.experts == 0 || b->status != HT_OK)
        return m;
    m.route.used = (int)ht_build_int(b, "expert_used_count", 0, INT32_MAX, 0);
    const int shared = (int)ht_build_int(b, "expert_shared_count", 0, HT_MAX_EXPERTS, 0);
    /* llama.cpp writes a key of value 0 for what a family does not have, so 0 is no answer. */
    const int said = (int)ht_build_int(b, "expert_feed_forward_length", 0, 1 << 20, 0);
    m.features = features ? features : said ? said : m.route.used ? h->feed_forward / m.route.used : 0;
    m.shared_features = (int)ht_build_int(b, "expert_shared_feed_forward_length", 0, 1 << 20, 0);
    if (m.shared_features == 0)
        m.shared_features = shared * m.features;
    m.dense_layers = (int)ht_build_int(b, "leading_dense_block_count", 0, h->layers, 0);
    m.step = (int)ht_build_int(b, "interleave_moe_layer_step", 0, HT_MAX_LAYERS, 0);
    m.route.function = function_of(b, function);
    m.route.renormalise = renormalise || ht_build_bool(b, "expert_weights_norm", false); /* nor is false, as above */
    m.route.scale = ht_build_factor(b, "expert_weights_scale", 1);
    if (b->status == HT_OK)
        check_mixture(b, &m);
    if (b->status == HT_OK)
        read_groups(b, m.experts, &m.route);
    if (m.shared_features > h->feed_forward) /* which is the most that any layer has */
        h->feed_forward = m.shared_features;
    return m;
}

bool ht_build_is_mixed(const ht_builder *b, const ht_mixture *m) {
    return m->experts > 0 && b->layer >= m->dense_layers && (m->step < 2 || (b->layer + 1) % m->step == 0);
}

/* ---- operators ---- */

typedef struct names { /* of a mixture's operators, slots and tensors */
    const char *route, *experts, *said, *routed, *router, *both, *gate, *up, *down, *gate_bias, *up_bias, *down_bias;
} names;

static const names chosen = {"ffn_route",     "ffn_experts",        "router",           "route",
                             "ffn_gate_inp",  "ffn_gate_up_exps",   "ffn_gate_exps",    "ffn_up_exps",
                             "ffn_down_exps", "ffn_gate_exps.bias", "ffn_up_exps.bias", "ffn_down_exps.bias"},
                   /* slots of its own: whoever times operators fills them as a router would */
    shared = {"ffn_route_shexp",     "ffn_shexp",          "router_shexp",
              "route_shexp",         "ffn_gate_inp_shexp", NULL,
              "ffn_gate_shexp",      "ffn_up_shexp",       "ffn_down_shexp",
              "ffn_gate_shexp.bias", "ffn_up_shexp.bias",  "ffn_down_shexp.bias"};

/* What a router says, and what is made of that: every lane has all of it. */
static ht_slot said(ht_builder *b, const names *n, size_t experts) {
    return ht_build_slot(b, n->said, HT_ROLE_PRIVATE, experts);
}
static ht_slot routed(ht_builder *b, const names *n, size_t experts) {
    return ht_build_slot(b, n->routed, HT_ROLE_PRIVATE, experts);
}

static void route(ht_builder *b, const names *own, int experts, const ht_route *how) {
    const size_t n = (size_t)experts;
    ht_build_matmul(b, own->router, ht_build_normed(b), said(b, own, n), b->normed,
                    (ht_build_part[]){{.name = own->router, .rows = n}}, 1, HT_BIAS_OPTIONAL);
    ht_op *op = ht_build_op(b, HT_OP_ROUTE, own->route, said(b, own, n), routed(b, own, n));
    if (op)
        op->route = *how, op->experts = experts;
}

void ht_build_router(ht_builder *b, const ht_mixture *m) {
    ht_route how = m->route;
    how.bias = ht_build_vector(b, "exp_probs_b.bias", (size_t)m->experts, false, 0);
    if (!how.bias)
        how.bias = ht_build_vector(b, "exp_probs_b", (size_t)m->experts, false, 0); /* as some files call it */
    if (!how.bias && m->always_biased)
        how.bias = ht_build_vector(b, "exp_probs_b.bias", (size_t)m->experts, true, 0);
    if (m->factored)
        how.factors = ht_build_vector(b, "ffn_down_exps.scale", (size_t)m->experts, false, 1.0f);
    route(b, &chosen, m->experts, &how);
}

/* What computes experts of `features` each, from slot `route` and what was normed last. */
static void experts(ht_builder *b, const names *n, size_t count, size_t features, const ht_mixture *m,
                    const ht_route *how) {
    const size_t cols = b->normed, width = ht_build_stream_width(b);
    ht_op *op = ht_build_op(b, HT_OP_EXPERTS, n->experts, ht_build_normed(b), ht_build_sums(b));
    int part = 0;
    if (!op)
        return;
    op->route = *how;
    op->experts = (int)count, op->width = (int)features;
    op->activation = m->activation, op->ungated = m->ungated, op->weighs_input = m->weighs_input;
    op->n_more = 1, op->more[0] = routed(b, n, count);
    op->n_parts = m->ungated ? 2 : 3;
    const bool bias = b->biased;
    if (n->both && ht_build_has_matrix(b, n->both)) {
        if (ht_build_has_matrix(b, n->gate) || ht_build_has_matrix(b, n->up))
            ht_build_fail(b, HT_ERROR_FORMAT, "layer %d has both %s and %s: which one counts?", b->layer, n->both,
                          ht_build_has_matrix(b, n->gate) ? n->gate : n->up);
        const ht_matrix both = ht_build_matrices(b, n->both, 2 * features, cols, count);
        for (size_t i = 0; i < 2; i++)
            op->parts[part++] = ht_build_rows_of(b, both, i * features, features, 2 * features);
    } else {
        if (!m->ungated) {
            op->bias[part] = ht_build_vectors(b, n->gate_bias, features, count, bias, 0);
            op->parts[part++] = ht_build_matrices(b, n->gate, features, cols, count);
        }
        op->bias[part] = ht_build_vectors(b, n->up_bias, features, count, bias, 0);
        op->parts[part++] = ht_build_matrices(b, n->up, features, cols, count);
    }
    op->bias[part] = ht_build_vectors(b, n->down_bias, width, count, bias, 0);
    op->parts[part] = ht_build_matrices(b, n->down, width, features, count);
    if (op->weighs_input && (op->bias[0] || op->bias[1] || op->bias[part]))
        ht_build_fail(b, HT_ERROR_UNSUPPORTED, "%s: biases of experts whose input is weighed", op->name);
}

void ht_build_chosen(ht_builder *b, const ht_mixture *m) {
    if (m->ungated && ht_build_has_matrix(b, chosen.gate))
        ht_build_fail(b, HT_ERROR_FORMAT, "layer %d: its experts have gates, which this family's have not", b->layer);
    experts(b, &chosen, (size_t)m->experts, (size_t)m->features, m, &m->route);
}

/* The expert that every token has, weighted by a router of its own: a mixture of one. */
static void gated_shared(ht_builder *b, const ht_mixture *m) {
    const ht_route how = {.function = HT_ROUTE_SIGMOID, .used = 1, .scale = 1};
    ht_build_block(b, HT_BLOCK_EXPERTS, m->shared_features);
    route(b, &shared, 1, &how);
    experts(b, &shared, 1, (size_t)m->shared_features, m, &how);
}

static void plain_shared(ht_builder *b, const ht_mixture *m) {
    const size_t features = (size_t)m->shared_features, parts = m->ungated ? 1 : 2;
    const ht_build_part gate_up[] = {{.name = shared.gate, .rows = features}, {.name = shared.up, .rows = features}};
    const ht_slot hidden = ht_build_slot(b, "ffn", HT_ROLE_BETWEEN, parts * features),
                  act = ht_build_slot(b, "act", HT_ROLE_BETWEEN, features);
    ht_build_block(b, HT_BLOCK_FEED_FORWARD, m->shared_features);
    ht_build_matmul(b, "ffn_gate_up_shexp", ht_build_normed(b), hidden, b->normed, &gate_up[m->ungated], (int)parts,
                    HT_BIAS_OPTIONAL);
    ht_op *op = ht_build_op(b, HT_OP_GLU, "ffn_act_shexp", hidden, act);
    if (op)
        op->activation = m->activation, op->ungated = m->ungated, op->width = m->shared_features;
    ht_build_give(b, shared.down, act, features);
}

void ht_build_experts(ht_builder *b, const ht_mixture *m, const char *norm, const char *post_norm) {
    const bool more = m->shared_features > 0;
    ht_build_block(b, HT_BLOCK_EXPERTS, m->features);
    if (norm)
        ht_build_norm(b, norm);
    ht_build_router(b, m);
    ht_build_chosen(b, m);
    ht_build_add(b, more ? NULL : post_norm);
    if (!more)
        return;
    if (m->always_gated || ht_build_has_matrix(b, shared.router))
        gated_shared(b, m);
    else
        plain_shared(b, m);
    ht_build_add(b, post_norm);
}

void ht_build_mixed(ht_builder *b, const ht_mixture *m, const char *norm) {
    if (ht_build_is_mixed(b, m))
        ht_build_experts(b, m, norm, NULL);
    else
        ht_build_feed_forward(b, norm, HT_ACT_SILU, NULL);
}
