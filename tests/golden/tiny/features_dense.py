"""What the tiny models of tools/tiny_dense.py are there for: rows as in features.py."""
import numpy as np

NO_WINDOW, OTHER_BASE = {"attention.sliding_window": 0}, {"rope.freq_base": 1000.0}


def halves_swapped(rows):
    return np.concatenate(np.split(rows, 2)[::-1])


def neighbours_swapped(rows):
    return np.roll(rows, 16, 0)


def removed(case, *names):
    return [(case, name, {f"blk: {name}": None}) for name in names]


def other_pairs(case, halves):
    return [(case, "pairs that are turned", {"trait: halves": not halves})]


BIASES = ("attn_q.bias", "attn_k.bias", "attn_v.bias")
HEAD_NORMS = ("attn_q_norm.weight", "attn_k_norm.weight")
POST_NORMS = ("post_attention_norm.weight", "post_ffw_norm.weight")

ROWS = [
    *removed("qwen2vl", *BIASES), ("qwen2vl", "base", OTHER_BASE), *other_pairs("qwen2vl", True),
    *removed("qwen3vl", *HEAD_NORMS), ("qwen3vl", "base", OTHER_BASE), *other_pairs("qwen3vl", True),
    ("gemma", "GELU", {"trait: activation": "silu"}), ("gemma", "embedding's factor", {"trait: embedding_root": False}),
    ("gemma", "base", OTHER_BASE), *other_pairs("gemma", True),
    ("gemma2", "window", NO_WINDOW), ("gemma2", "window of 16", {"attention.sliding_window": 17}),
    ("gemma2", "wide layers", {"attention.sliding_window_pattern": 0}), ("gemma2", "scores' cap", {"attn_logit_softcapping": 0.0}),
    ("gemma2", "logits' cap", {"final_logit_softcapping": 0.0}), ("gemma2", "base", OTHER_BASE), *removed("gemma2", *POST_NORMS),
    ("phi_3", "order of gate and up", {"blk: ffn_up.weight": halves_swapped}), ("phi_3", "base", OTHER_BASE),
    ("phi_3", "order of queries, keys, values", {"blk: attn_qkv.weight": neighbours_swapped}),
    ("phi_3", "longer context", {"rope.scaling.original_context_length": 256}),
    ("phi_3", "factor", {"rope.scaling.attn_factor": 1.0}), *other_pairs("phi_3", True),
    ("phi_3-short", "shorter context", {"rope.scaling.original_context_length": 32}),
    ("phi_3-window", "window", NO_WINDOW), ("phi_3-window", "window of 16", {"attention.sliding_window": 17}),
    *[(case, what, {key: value}) for case in ("granite", "minicpm") for what, key, value in (
        ("embedding's multiplier", "embedding_scale", 1.0), ("residual multiplier", "residual_scale", 1.0),
        ("logits' divisor", "logit_scale", 1.0))],
    ("granite", "attention's multiplier", {"attention.scale": 0.25}), ("granite", "positions", {"rope.scaling.finetuned": False}),
    *other_pairs("granite", False), ("granite", "base", OTHER_BASE),
    ("minicpm", "longer context", {"rope.scaling.original_context_length": 256}), *other_pairs("minicpm", False),
    ("mistral3", "growth", {"attention.temperature_scale": 0.0}), ("mistral3", "yarn", {"rope.scaling.type": "none"}),
    ("mistral3", "multiplier", {"rope.scaling.yarn_log_multiplier": 0.0}), *other_pairs("mistral3", False),
    ("mistral3", "base", OTHER_BASE),
    ("smollm3", "layer without positions", {"trait: still_every": 0}), ("smollm3", "base", OTHER_BASE),
    *other_pairs("smollm3", False),
    *removed("glm4", *BIASES, *POST_NORMS), ("glm4", "part of the head turned", {"rope.dimension_count": 16}),
    ("glm4", "order of gate and up", {"blk: ffn_up.weight": halves_swapped}), *other_pairs("glm4", False),
    ("hunyuan-dense", "norm behind the rotation", {"trait: norm_after": False}), ("hunyuan-dense", "alpha", {"rope.scaling.alpha": 0.0}),
    *removed("hunyuan-dense", *HEAD_NORMS), *other_pairs("hunyuan-dense", True),
    *other_pairs("ernie4_5", False), ("ernie4_5", "base", OTHER_BASE),
    *removed("exaone4-small", *HEAD_NORMS, *POST_NORMS), ("exaone4", "window", NO_WINDOW), ("exaone4", "base", OTHER_BASE),
    ("exaone4", "window of 16", {"attention.sliding_window": 17}), ("exaone4", "wide layers", {"attention.sliding_window_pattern": 0}),
    ("exaone4", "positions of wide layers", {"trait: still_wide": False}),
    ("exaone4-small", "window of larger models alone", {"trait: window_layers": 0}), *other_pairs("exaone4-small", True),
    *removed("seed_oss", *BIASES), ("seed_oss", "base", OTHER_BASE), *other_pairs("seed_oss", True),
    ("cohere2", "window", NO_WINDOW), ("cohere2", "window of 16", {"attention.sliding_window": 17}), ("cohere2", "base", OTHER_BASE),
    ("cohere2", "wide layers", {"attention.sliding_window_pattern": 0}), ("cohere2", "blocks at once", {"trait: parallel": False}),
    ("cohere2", "positions of wide layers", {"trait: still_wide": False}), ("cohere2", "logits' multiplier", {"logit_scale": 0.0}),
    *other_pairs("cohere2", False),
    ("nanbeige", "loops", {"num_loops": 2}), ("nanbeige", "norm between loops", {"skip_loop_final_norm": True}),
    ("nanbeige", "base", OTHER_BASE), *other_pairs("nanbeige", False),
    ("nanbeige-plain", "norm between loops", {"skip_loop_final_norm": False}), ("nanbeige-plain", "loops", {"num_loops": 1}),
]
