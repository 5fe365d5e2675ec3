"""Mixtures of experts in the exact forward pass: which experts a token goes to, with what weights, and what they give."""
import numpy as np
from reference_ops import relu2, sigmoid, silu, softmax

SOFTMAX, SIGMOID = 1, 2 # expert_gating_func
RENORMALISED = {"gemma4", "qwen3next", "qwen3moe", "qwen35moe", "lfm2moe", "granitehybrid", "llama", "qwen3vlmoe",
                "phimoe", "hunyuan-moe", "ernie4_5-moe", "granitemoe"} # weights add up to one; deepseek2's files say
SCALED = {"nemotron_h_moe", "deepseek2", "mistral4", "glm4moe"} # weights are times expert_weights_scale
LIMIT, STEEPNESS = 7.0, 1.702 # of gpt-oss's clamped GLU


def clamped_glu(gate, up):
    """gpt-oss: the gate at most LIMIT, the other within it and one more"""
    gate = np.minimum(gate, LIMIT)
    return gate * sigmoid(STEEPNESS * gate) * (np.clip(up, -LIMIT, LIMIT) + 1)


def leave_best_groups(m, scores):
    """DeepSeek-V3: experts stand in groups, a group is worth its two best, and only the best groups may be chosen from"""
    groups, used = m.get("expert_group_count", 0), m.get("expert_group_used_count", 0)
    if groups <= 1:
        return scores, np.inf
    members = scores.reshape(len(scores), groups, -1)
    worth = np.sort(members, -1)[..., -2:].sum(-1)
    order = np.sort(worth, -1)
    kept = worth >= order[:, [-used]]
    return np.where(kept[..., None], members, -np.inf).reshape(scores.shape), (order[:, -used] - order[:, -used - 1]).min()


def routes(m, layer, h):
    """(experts, weights), [tokens, used] each, best first. m.margin learns how near the nearest choice was."""
    logits, used = m.matmul(layer, h, "ffn_gate_inp"), m.get("expert_used_count")
    late = m.arch == "gpt-oss" # softmax over the chosen ones only
    kind = m.get("expert_gating_func", 0) or m.traits.gating
    probabilities = logits if late else sigmoid(logits) if kind == SIGMOID else softmax(logits)
    scores, margin = leave_best_groups(m, probabilities + m.bias(layer, "exp_probs_b"))
    order = np.argsort(-scores, -1, kind="stable")
    biased = f"blk.{layer}.exp_probs_b.bias" in m.tensors
    ranked = logits if kind == SOFTMAX and not biased else scores # the same order, and in units in which the router's noise is
    if used < scores.shape[1]:
        last, next_ = (np.take_along_axis(ranked, order[:, [i]], -1) for i in (used - 1, used))
        m.margin = min(m.margin, margin, (last - next_).min())
    chosen = order[:, :used]
    weights = np.take_along_axis(probabilities, chosen, -1)
    if late:
        weights = softmax(weights)
    elif m.arch in RENORMALISED or m.get("expert_weights_norm", False):
        weights = weights / np.maximum(weights.sum(-1, keepdims=True), 2.0 ** -14)
    scale = m.get("expert_weights_scale", 0.0) if m.arch in SCALED else 0.0
    return chosen, weights * (scale or 1.0)


def experts(m, layer, h):
    """The sum of what each token's experts give, and of the shared expert where there is one"""
    chosen, weights = routes(m, layer, h)
    m.chosen[layer] = chosen
    out = np.zeros(h.shape)
    glu = clamped_glu if m.arch == "gpt-oss" else lambda gate, up: silu(gate) * up
    for expert in range(m.get("expert_count")):
        tokens, rank = np.nonzero(chosen == expert)
        mul = lambda x, name: m.matmul_of(layer, x, f"ffn_{name}_exps", expert)
        if f"blk.{layer}.ffn_gate_up_exps.weight" in m.tensors: # both in one, the gate's rows first
            gate, up = np.split(mul(h[tokens], "gate_up"), 2, -1)
        elif f"blk.{layer}.ffn_gate_exps.weight" in m.tensors:
            gate, up = mul(h[tokens], "gate"), mul(h[tokens], "up")
        else: # Nemotron-H
            gate, up = relu2(mul(h[tokens], "up")), None
        weight = weights[tokens, rank][:, None]
        if m.traits.weighs_input: # what gate and up are linear in
            gate, up, weight = weight * gate, weight * up, 1.0
        out[tokens] += mul(gate if up is None else glu(gate, up), "down") * weight
    if f"blk.{layer}.ffn_up_shexp.weight" in m.tensors:
        shared = m.matmul(layer, h, "ffn_up_shexp")
        gated = f"blk.{layer}.ffn_gate_shexp.weight" in m.tensors
        shared = silu(m.matmul(layer, h, "ffn_gate_shexp")) * shared if gated else relu2(shared)
        shared = m.matmul(layer, shared, "ffn_down_shexp")
        if f"blk.{layer}.ffn_gate_inp_shexp.weight" in m.tensors:
            shared = shared * sigmoid(h @ m.weight(layer, "ffn_gate_inp_shexp"))[:, None]
        out = out + shared
    return out
