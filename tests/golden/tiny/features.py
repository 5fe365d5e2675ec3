"""What each tiny model is there for, and the same model without it: (case, what, changes).

Changes, by key: "rope.freq_base" of the metadata; "blk: NAME" tensors of all layers: None takes them away, a function gives others;
"trait: parallel" of its row in reference_traits.py; "reference_experts.LIMIT" something of a module of the reference.
"""
import sys
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / "tools"), str(Path(__file__).parent)]
import reference_traits # noqa: E402
import features_hybrids # noqa: E402
from features_dense import ROWS as DENSE # noqa: E402
from reference_ops import rms_norm # noqa: E402


def last_tap(kernel):
    """a convolution that sees no token but its own"""
    return kernel * np.eye(kernel.shape[1])[-1]


def nothing(x): return x * 0
def ones(x): return x * 0 + 1
def as_it_is(x, eps): return x
def next_head(rows): return np.roll(rows, len(rows) // 4, 0)
def next_third(rows): return np.roll(rows, len(rows) // 3, 0)


def without_gate(rows):
    """attn_q of Qwen3.5, six heads of 32 rows of queries and 32 of a gate, which then is the same everywhere"""
    rows = rows.reshape(6, 2, 32, -1).copy()
    rows[:, 1] = 0
    return rows.reshape(6 * 2 * 32, -1)


NO_YARN, NO_WINDOW = {"rope.scaling.type": "none"}, {"attention.sliding_window": 0}
ALL_LOCAL = {"attention.sliding_window_pattern": [True] * 8}
NOT_RENORMALISED = {"reference_experts.RENORMALISED": ()}
OTHER_BASE = {"rope.freq_base": 1000.0}


def row_norms(case):
    return [(case, "norm of queries", {"blk: attn_q_norm.weight": None}), (case, "norm of keys", {"blk: attn_k_norm.weight": None})]


def deltas(case):
    return [
        (case, "convolution", {"blk: ssm_conv1d.weight": last_tap}), (case, "decay", {"blk: ssm_a": nothing}),
        (case, "decay's bias", {"blk: ssm_dt.bias": None}), (case, "beta", {"blk: ssm_beta.weight": nothing}),
        (case, "gate of its own head", {"blk: attn_gate.weight": next_head}), (case, "norm", {"blk: ssm_norm.weight": ones}),
        (case, "unit length", {"reference_mixers.unit": as_it_is}),
        (case, "gate of attention", {"blk: attn_q.weight": without_gate}),
        (case, "part of the head turned", {"rope.dimension_count": 32}), (case, "base", OTHER_BASE), *row_norms(case)]


def mambas(case):
    return [
        (case, "convolution", {"blk: ssm_conv1d.weight": last_tap}), (case, "convolution's bias", {"blk: ssm_conv1d.bias": None}),
        (case, "decay", {"blk: ssm_a": nothing}), (case, "step's bias", {"blk: ssm_dt.bias": None}),
        (case, "D", {"blk: ssm_d": nothing}), (case, "norm", {"blk: ssm_norm.weight": ones}),
        (case, "embedding's multiplier", {"embedding_scale": 1.0}), (case, "residual multiplier", {"residual_scale": 1.0}),
        (case, "attention's multiplier", {"attention.scale": 0.25}), (case, "logits' divisor", {"logit_scale": 1.0}),
        (case, "no positions", {"rope.scaling.finetuned": True})]


ROWS = [
    ("llama-linear", "scaling", {"rope.scaling.factor": 1.0}), ("llama-llama3", "scaling", {"rope.scaling.type": "none"}),
    ("llama-yarn", "yarn", {"rope.scaling.type": "linear"}), ("qwen2-yarn", "factor", {"rope.scaling.attn_factor": 1.0}),
    ("gemma3", "window", {"attention.sliding_window": 17}), ("gemma3-linear", "scaling", {"rope.scaling.factor": 1.0}),
    ("gemma3-global", "base", {"rope.freq_base": 10000.0}), ("internlm2", "base", {"rope.freq_base": 10000.0}),
    ("qwen3moe", "renormalised", NOT_RENORMALISED), ("qwen3moe", "third expert", {"expert_used_count": 2}),
    ("qwen3moe", "base", OTHER_BASE), *row_norms("qwen3moe"),
    ("gpt-oss", "sinks", {"blk: attn_sinks.weight": None}), ("gpt-oss", "window", NO_WINDOW),
    ("gpt-oss", "window of 16", {"attention.sliding_window": 17}), ("gpt-oss", "wide layers", ALL_LOCAL),
    ("gpt-oss", "yarn", NO_YARN), ("gpt-oss", "base", OTHER_BASE), ("gpt-oss", "limit", {"reference_experts.LIMIT": 1e9}),
    ("gpt-oss", "steepness", {"reference_experts.STEEPNESS": 1.0}),
    *[("gpt-oss", f"bias of {name}", {f"blk: {name}.bias": None}) for name in (
        "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate_inp", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps")],
    ("lfm2", "convolution", {"blk: shortconv.conv.weight": last_tap}),
    ("lfm2", "order of gates", {"blk: shortconv.in_proj.weight": next_third}), ("lfm2", "base", OTHER_BASE), *row_norms("lfm2"),
    ("lfm2moe", "router's bias", {"blk: exp_probs_b.bias": None}), ("lfm2moe", "renormalised", NOT_RENORMALISED),
    ("lfm2moe", "sigmoid", {"expert_gating_func": 1}), ("lfm2moe", "convolution", {"blk: shortconv.conv.weight": last_tap}),
    *deltas("qwen35"), ("qwen35", "tiled keys", {"reference_mixers.tiled": lambda x, times: np.repeat(x, times, 1)}),
    ("qwen35-even", "norm", {"blk: ssm_norm.weight": ones}),
    ("qwen35moe", "shared expert", {"blk: ffn_up_shexp.weight": None}),
    ("qwen35moe", "shared expert's gate", {"blk: ffn_gate_inp_shexp.weight": None}),
    ("qwen35moe", "renormalised", NOT_RENORMALISED),
    *mambas("granitehybrid"),
    ("granitehybrid-moe", "groups", {"reference_mixers.repeated": lambda x, times: np.tile(x, (1, times, 1))}),
    ("granitehybrid-moe", "shared expert", {"blk: ffn_up_shexp.weight": None}),
    ("granitehybrid-moe", "renormalised", NOT_RENORMALISED),
    ("deepseek2", "norm of the latent", {"blk: attn_kv_a_norm.weight": None}), ("deepseek2", "base", OTHER_BASE),
    ("deepseek2", "shared expert", {"blk: ffn_up_shexp.weight": None}), ("deepseek2", "groups", {"expert_group_count": 0}),
    ("deepseek2", "yarn", NO_YARN),
    ("deepseek2", "router's bias", {"blk: exp_probs_b.bias": None}), ("deepseek2", "sigmoid", {"expert_gating_func": 1}),
    ("deepseek2", "renormalised", {"expert_weights_norm": False}), ("deepseek2", "scale", {"expert_weights_scale": 1.0}),
    ("deepseek2", "multiplier", {"rope.scaling.yarn_log_multiplier": 0.0}),
    ("deepseek2", "norm of the query's latent", {"blk: attn_q_a_norm.weight": None}),
    ("deepseek2-v2", "softmax", {"expert_gating_func": 2}),
    ("deepseek2-v2", "multiplier", {"rope.scaling.yarn_log_multiplier": 0.1}),
    ("deepseek2-v2", "scale", {"expert_weights_scale": 1.0}), ("deepseek2-v2", "not renormalised", {"expert_weights_norm": True}),
    ("deepseek2-lite", "shared experts", {"blk: ffn_up_shexp.weight": None}), ("deepseek2-old", "yarn", NO_YARN),
    ("command-r", "logits' multiplier", {"logit_scale": 0.0}), ("command-r", "mean", {"reference.layer_norm": rms_norm}),
    ("command-r", "blocks at once", {"trait: parallel": False}), ("command-r", "base", OTHER_BASE),
    *row_norms("command-r-plus"),
    *[(case, f"norm after {name}", {f"blk: {name}.weight": None}) for case in ("olmo2", "olmo2-window")
      for name in ("post_attention_norm", "post_ffw_norm")],
    *row_norms("olmo2"), *row_norms("olmo2-window"), ("olmo2", "base", OTHER_BASE), ("olmo2-window", "window", NO_WINDOW),
    ("olmo2-window", "window of 16", {"attention.sliding_window": 17}), ("olmo2-window", "wide layers", ALL_LOCAL),
    ("olmo2-window", "yarn", NO_YARN),
    *features_hybrids.ROWS,
    *DENSE,
]


def changed(tensors, meta, changes):
    """(tensors, meta, {name in a module: value}) of the model without a feature"""
    tensors, meta, elsewhere = dict(tensors), dict(meta), {}
    for key, value in changes.items():
        if key.startswith("reference"):
            elsewhere[key] = value
        elif key.startswith("trait: "):
            arch = meta["general.architecture"]
            own = {**reference_traits.FAMILIES[arch], key.removeprefix("trait: "): value}
            elsewhere["reference_traits.FAMILIES"] = {**reference_traits.FAMILIES, arch: own}
        elif not key.startswith("blk: "):
            meta[f"{meta['general.architecture']}.{key}"] = value
        else:
            found = [name for name in tensors if name.startswith("blk.") and name.split(".", 2)[2] == key.removeprefix("blk: ")]
            assert found, key
            for name in found:
                old = tensors.pop(name)
                if value is not None:
                    tensors[name] = value(old)
    return tensors, meta, elsewhere
