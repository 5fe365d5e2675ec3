"""What the tiny models of tools/tiny_experts.py are there for, as in features.py."""
import numpy as np


def nothing(x): return x * 0
def ones(x): return x * 0 + 1
def next_expert(rows): return np.roll(rows, 1, 0)


NOT_RENORMALISED = {"reference_experts.RENORMALISED": ()}
OTHER_BASE = {"rope.freq_base": 1000.0}
NO_SHARED = {"blk: ffn_up_shexp.weight": None}


def routed(case, used=2):
    return [(case, "last expert", {"expert_used_count": used}), (case, "experts' own weights", {"blk: ffn_up_exps.weight": next_expert})]


def norms(case):
    return [(case, f"norm of {what}", {f"blk: attn_{which}_norm.weight": ones}) for what, which in (("queries", "q"), ("keys", "k"))]


def biases(case, *names):
    return [(case, f"bias of {name}", {f"blk: {name}.bias": None}) for name in names]


ROWS = [
    *routed("llama-moe"), ("llama-moe", "renormalised", NOT_RENORMALISED),
    ("llama4", "shared expert", NO_SHARED), ("llama4", "base", OTHER_BASE),
    ("llama4", "layers without rotation", {"trait: still_every": 0}),
    ("llama4", "weights of what is read", {"trait: weighs_input": False}), ("llama4", "sigmoid", {"expert_gating_func": 1}),
    ("llama4", "norms without weights", {"trait: norm_after": False}),
    ("llama4-chunks", "chunks", {"attention.chunk_size": 1000}), ("llama4-chunks", "chunks of 16", {"attention.chunk_size": 17}),
    ("llama4-chunks", "queries that grow", {"attention.temperature_scale": 0.0}),
    ("llama4-chunks", "their growth", {"attention.temperature_length": 9}),
    ("llama4-chunks", "chunks, not windows", {"trait: chunk": 0, "attention.sliding_window": 16}),
    *routed("qwen2moe"), ("qwen2moe", "shared expert", NO_SHARED), ("qwen2moe", "its gate", {"blk: ffn_gate_inp_shexp.weight": None}),
    ("qwen2moe", "not renormalised", {"reference_experts.RENORMALISED": ("qwen2moe",)}), *biases("qwen2moe", "attn_q", "attn_k", "attn_v"),
    *routed("qwen3vlmoe"), *norms("qwen3vlmoe"), ("qwen3vlmoe", "renormalised", NOT_RENORMALISED),
    ("qwen3vlmoe", "base", OTHER_BASE),
    *routed("phimoe"), ("phimoe", "renormalised", NOT_RENORMALISED),
    *biases("phimoe", "attn_norm", "ffn_norm", "attn_q", "attn_k", "attn_v", "attn_output"),
    ("phimoe", "longrope", {"rope.scaling.original_context_length": 256}),
    ("phimoe", "its length", {"rope.scaling.attn_factor": 1.0}),
    ("phimoe-short", "longrope", {"rope.scaling.original_context_length": 32}),
    *routed("granitemoe"), ("granitemoe", "renormalised", NOT_RENORMALISED), ("granitemoe", "shared expert", NO_SHARED),
    ("granitemoe", "embedding's multiplier", {"embedding_scale": 1.0}), ("granitemoe", "residual multiplier", {"residual_scale": 1.0}),
    ("granitemoe", "attention's multiplier", {"attention.scale": 0.25}), ("granitemoe", "logits' divisor", {"logit_scale": 1.0}),
    *routed("olmoe"), *norms("olmoe"), ("olmoe", "not renormalised", {"reference_experts.RENORMALISED": ("olmoe",)}),
    *routed("glm4moe"), *norms("glm4moe"), ("glm4moe", "shared expert", NO_SHARED), ("glm4moe", "sigmoid", {"expert_gating_func": 1}),
    ("glm4moe", "router's bias", {"blk: exp_probs_b.bias": None}), ("glm4moe", "renormalised", {"expert_weights_norm": False}),
    ("glm4moe", "scale", {"expert_weights_scale": 1.0}), ("glm4moe", "part of the head turned", {"rope.dimension_count": 16}),
    ("glm4moe", "base", OTHER_BASE), *biases("glm4moe", "attn_q", "attn_k", "attn_v"),
    *routed("hunyuan-moe"), *norms("hunyuan-moe"), ("hunyuan-moe", "norms after the rotation", {"trait: norm_after": False}),
    ("hunyuan-moe", "shared expert", NO_SHARED), ("hunyuan-moe", "renormalised", NOT_RENORMALISED),
    *routed("ernie4_5-moe"), ("ernie4_5-moe", "shared expert", NO_SHARED), ("ernie4_5-moe", "renormalised", NOT_RENORMALISED),
    ("ernie4_5-moe", "router's bias", {"blk: exp_probs_b.bias": None}),
    *routed("mistral4"), ("mistral4", "queries that grow", {"attention.temperature_scale": 0.0}),
    ("mistral4", "their growth", {"attention.temperature_length": 17}), ("mistral4", "yarn", {"rope.scaling.type": "none"}),
    ("mistral4", "shared expert", NO_SHARED), ("mistral4", "scale", {"expert_weights_scale": 1.0}),
]
