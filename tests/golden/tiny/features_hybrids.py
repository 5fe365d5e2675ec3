"""Rows of features.py for the models of tiny_hybrids.py."""
import numpy as np


def nothing(x): return x * 0
def ones(x): return x * 0 + 1
def half(x): return x * 0.5
def next_row(rows): return np.roll(rows, 1, 0)
def last_tap(kernel): return kernel * np.eye(kernel.shape[1])[-1]


def without(case, *names):
    return [(case, f"without {name}", {f"blk: {name}.weight": None}) for name in names]


def deltas(case):
    return [
        (case, "repeated keys", {"reference_mixers.repeated": lambda x, times: np.tile(x, (1, times, 1))}),
        (case, "convolution", {"blk: ssm_conv1d.weight": last_tap}), (case, "decay", {"blk: ssm_a": nothing}),
        (case, "beta and alpha by key heads", {"blk: ssm_ba.weight": next_row}), (case, "norm", {"blk: ssm_norm.weight": ones}),
        (case, "renormalised", {"reference_experts.RENORMALISED": ()}),
        (case, "shared expert", {"blk: ffn_up_shexp.weight": None}),
        (case, "shared expert's gate", {"blk: ffn_gate_inp_shexp.weight": None}),
        (case, "part of the head turned", {"rope.dimension_count": 32}), *without(case, "attn_q_norm", "attn_k_norm")]


def mambas(case):
    return [
        (case, "convolution", {"blk: ssm_conv1d.weight": last_tap}), (case, "D", {"blk: ssm_d": nothing}),
        (case, "groups", {"reference_mixers.repeated": lambda x, times: np.tile(x, (1, times, 1))}),
        (case, "norm by groups", {"blk: ssm_norm.weight": ones}),
        (case, "squared ReLU of a block alone", {"blk: ffn_up.weight": next_row} if case == "nemotron_h" else
         {"blk: ffn_up_exps.weight": half})]


def gemmas(case):
    return [
        (case, "window", {"attention.sliding_window": 1000}), (case, "window of 16", {"attention.sliding_window": 17}),
        (case, "base of local layers", {"rope.freq_base_swa": 100.0}), (case, "base", {"rope.freq_base": 1000.0}),
        (case, "cap", {"final_logit_softcapping": 2.0}), (case, "norm of values", {"reference_streams.plain_rms": lambda x, eps: x}),
        *without(case, "attn_q_norm", "attn_k_norm", "post_attention_norm", "post_ffw_norm")]


def side(case):
    return [
        (case, "per-layer embedding", {"blk: inp_gate.weight": nothing}), *without(case, "post_norm"),
        (case, "what is made of the ordinary embedding", {"reference_streams.per_layer_inputs": own_alone}),
        (case, "order of layers", {"reference_streams.of_side": of_another_layer})]


def own_alone(m, ids, x):
    width = m.tensors["per_layer_proj_norm.weight"].shape[0]
    own = m.tensors["per_layer_token_embd.weight"][np.asarray(ids)].astype(np.float64) * np.sqrt(width / 2)
    return own.reshape(len(ids), m.layers, width).transpose(1, 0, 2)


def of_another_layer(m, layer, x, inputs):
    y = m.matmul(layer, x, "inp_gate")
    y = 0.5 * y * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y ** 3)))
    return m.norm(layer, m.matmul(layer, y * inputs[layer - 1], "proj"), "post_norm")


ROWS = [
    *deltas("qwen3next"), *deltas("qwen3next-old"), *mambas("nemotron_h"), *mambas("nemotron_h_moe"),
    ("nemotron_h", "bias", {"blk: ffn_up.bias": None}), ("nemotron_h_moe", "router's bias", {"blk: exp_probs_b.bias": None}),
    ("nemotron_h_moe", "renormalised", {"expert_weights_norm": False}), ("nemotron_h_moe", "scale", {"expert_weights_scale": 1.0}),
    ("nemotron_h_moe", "shared expert", {"blk: ffn_up_shexp.weight": None}), ("nemotron_h_moe", "sigmoid", {"expert_gating_func": 1}),
    ("muse-glimmer", "gate of attention", {"blk: attn_gate.weight": None}), ("muse-glimmer", "window", {"attention.sliding_window": 0}),
    ("muse-glimmer", "window of 16", {"attention.sliding_window": 17}), ("muse-glimmer", "base", {"rope.freq_base": 1000.0}),
    ("muse-glimmer", "logits' multiplier", {"logit_scale": 1.0}), ("muse-glimmer", "cap", {"final_logit_softcapping": 0.0}),
    ("muse-glimmer", "norm of embeddings", {"reference.plain_rms": lambda x, eps: x * 0.5}),
    *without("muse-glimmer", "attn_q_norm", "attn_k_norm", "post_attention_norm", "post_ffw_norm"),
    *gemmas("gemma4"), *side("gemma4"), ("gemma4", "layers' scale", {"blk: layer_output_scale.weight": None}),
    ("gemma4", "proportional rotation", {"reference_streams.PROPORTIONAL": False}),
    ("gemma4", "values of their own", {"blk: attn_v.weight": None}),
    *gemmas("gemma4-moe"), *without("gemma4-moe", "post_ffw_norm_1", "post_ffw_norm_2", "pre_ffw_norm_2"),
    ("gemma4-moe", "router's scale", {"blk: ffn_gate_inp.scale": ones}), ("gemma4-moe", "experts' scale", {"blk: ffn_down_exps.scale": None}),
    ("gemma4-moe", "dense block beside experts", {"blk: ffn_up.weight": nothing}),
    *gemmas("gemma3n"), *side("gemma3n"),
    ("gemma3n", "prediction", {"blk: altup_predict_coef.weight": nothing}), ("gemma3n", "correction", {"blk: altup_correct_coef.weight": nothing}),
    ("gemma3n", "scale of the corrected stream", {"blk: altup_correct_scale.weight": ones}),
    ("gemma3n", "router's norm", {"blk: altup_router_norm.weight": ones}), ("gemma3n", "low-rank path", {"blk: laurel_r.weight": next_row}),
    ("gemma3n", "sparse gates", {"reference_streams.SPARSE_LAYERS": 0}), ("gemma3n", "how sparse", {"reference_streams.SPARSITY": 1.5}),
    ("gemma3n", "which layers are sparse", {"reference_streams.SPARSE_LAYERS": 11}),
    ("gemma3n", "shared keys and values", {"reference_streams.KEEPING_LAYERS": 25}), *without("gemma3n", "laurel_post_norm"),
]
