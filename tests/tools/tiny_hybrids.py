"""The families of make_tiny.py whose layers differ, or are more than two blocks: cases, keys and tensors."""
import numpy as np
from tiny_families import DELTA, EMBEDDED, NARROW, ROUTED, SIX, SKEW, attention, bias, delta_net, experts, glu, mamba2, matrix, norm

Q3NEXT = dict(NARROW, arch="qwen3next", head_dim=32, rope_dim=16, base=1e7)
NEMOTRON_KEYS = {"attention.layer_norm_epsilon": 1e-6, "ssm.conv_kernel": 4, "ssm.state_size": 16, "ssm.group_count": 2, "ssm.time_step_rank": 8, "ssm.inner_size": 128}
NEMOTRON = dict(NARROW, arch="nemotron_h", layers=5, kv_heads=[0, 2, 0, 0, 2], feed_forward=[0, 0, 128, 0, 0], keys=NEMOTRON_KEYS)

# A window of 16 and wide layers in turn; the last two share keys and values with the layers 3 and 4.
GEMMA4_KEYS = {"attention.key_length_swa": 16, "attention.value_length_swa": 16, "rope.dimension_count_swa": 16,
               "rope.freq_base_swa": 10000.0, "final_logit_softcapping": 30.0}
GEMMA4 = dict(SIX, arch="gemma4", layers=7, embedding=64, heads=4, kv_heads=[2, 2, 1, 2, 1, 2, 1], head_dim=32, rope_dim=32,
              feed_forward=[128, 128, 128, 128, 160, 160, 96], tied=True, tokenizer="llama", window=16, base=1e6, side=16,
              keys={**GEMMA4_KEYS, "attention.shared_kv_layers": 2, "embedding_length_per_layer_input": 16,
                    "attention.sliding_window_pattern": [True, True, False, True, False, True, False]})

HYBRIDS = {
    "qwen3next": dict(Q3NEXT, seed=" 3", keys={**DELTA, **ROUTED, "expert_feed_forward_length": 32,
                                               "expert_shared_feed_forward_length": 48}),
    # the first files have queries, keys, values and gates by key heads in one matrix
    "qwen3next-old": dict(Q3NEXT, seed=" 7", old=True, tied=True, keys={**DELTA, **ROUTED, "expert_feed_forward_length": 32,
                                                            "expert_shared_feed_forward_length": 48}),
    "nemotron_h": NEMOTRON,
    "nemotron_h_moe": dict(NEMOTRON, arch="nemotron_h_moe", seed=" 4", keys={
        **NEMOTRON_KEYS, **ROUTED, "expert_feed_forward_length": 48, "expert_shared_feed_forward_length": 40,
        "expert_weights_norm": True, "expert_weights_scale": 1.5, "expert_gating_func": 2}),
    "muse-glimmer": dict(SIX, arch="muse-glimmer", window=16, base=1e5, keys={
        "logit_scale": 0.5, "final_logit_softcapping": 2.0}),
    "gemma4": GEMMA4,
    # keys that are values, too; an ordinary block and experts side by side
    "gemma4-moe": dict(GEMMA4, seed=" 4", layers=4, kv_heads=[2, 2, 1, 1], feed_forward=[96, 96, 96, 96], side=0, merged=True,
                       keys={**GEMMA4_KEYS, **ROUTED, "embedding_length_per_layer_input": 0, "expert_feed_forward_length": 48,
                             "attention.sliding_window_pattern": [True, True, False, False]}),
    # llama.cpp takes for granted that 10 layers are sparse and that the first 20 make keys and values of their own
    "gemma3n": dict(SIX, arch="gemma3n", layers=25, embedding=64, heads=4, kv_heads=2, head_dim=16, feed_forward=256, tied=True,
                    tokenizer="llama", window=16, base=1e6, side=256, tokens=48, keys={
                        "final_logit_softcapping": 30.0, "rope.freq_base_swa": 10000.0,
                        "embedding_length_per_layer_input": 256}),
}
ARCHS = {case["arch"] for case in HYBRIDS.values()}


def of_layer(value, layer):
    return value[layer] if isinstance(value, list) else value


def interleaved_delta_net(o):
    """Qwen3-Next's: beta and alpha in one matrix by key heads, in its first files the other matrices likewise"""
    k, dim = o["keys"], o["embedding"]
    heads, size = k["ssm.time_step_rank"], k["ssm.state_size"]
    for name, shape, deviation, mean in delta_net(o):
        if name == "ssm_beta.weight":
            yield matrix("ssm_ba", 2 * heads, dim, 1.5)
        elif name == "attn_qkv.weight" and o.get("old"):
            yield matrix("ssm_in", shape[0] + heads * size, dim, 1.5)
        elif name not in ("ssm_alpha.weight", "attn_gate.weight") or name == "attn_gate.weight" and not o.get("old"):
            yield name, shape, deviation, mean


def qwen3next(o, layer):
    dim = o["embedding"]
    yield norm("attn_norm", dim)
    yield from interleaved_delta_net(o) if (layer + 1) % 4 else attention("qwen35", o, layer)
    yield norm("post_attention_norm", dim)
    yield from experts("qwen35moe", o, layer)


def nemotron_h(o, layer):
    dim = o["embedding"]
    yield norm("attn_norm", dim)
    if o["kv_heads"][layer]:
        yield from attention("nemotron_h", o, layer)
    elif not o["feed_forward"][layer]:
        yield from mamba2(o)
    elif "expert_count" in o["keys"]:
        n, features, shared = (o["keys"][f"expert_{key}"] for key in ("count", "feed_forward_length", "shared_feed_forward_length"))
        yield "ffn_gate_inp.weight", (n, dim), 1.5 / np.sqrt(dim), 0.0
        yield bias("exp_probs_b", n, 0.05, SKEW / 4)
        for name, count, width in ("_exps", (n,), features), ("_shexp", (), shared):
            yield f"ffn_up{name}.weight", (*count, width, dim), 1 / np.sqrt(dim), 0.0
            yield f"ffn_down{name}.weight", (*count, dim, width), 1.5 / np.sqrt(width), 0.0
    else:
        features = o["feed_forward"][layer]
        yield matrix("ffn_up", features, dim)
        yield bias("ffn_up", features)
        yield matrix("ffn_down", dim, features, 1.5)


def muse_glimmer(o, layer):
    dim, q = o["embedding"], o["heads"] * o["head_dim"]
    yield norm("attn_norm", dim)
    yield from attention("qwen3moe", o, layer)
    yield matrix("attn_gate", q, dim, 1.5)
    yield norm("post_attention_norm", dim, 0.3)
    yield norm("ffn_norm", dim)
    yield from glu("", dim, o["feed_forward"])
    yield norm("post_ffw_norm", dim, 0.3)


def side(o):
    dim = o["embedding"]
    yield matrix("inp_gate", o["side"], dim)
    yield matrix("proj", dim, o["side"])
    yield norm("post_norm", dim, 0.3)


def gemma4(o, layer):
    dim, heads, kv_heads, k = o["embedding"], o["heads"], o["kv_heads"][layer], o["keys"]
    head_dim = 16 if k["attention.sliding_window_pattern"][layer] else o["head_dim"]
    routed, features = "expert_count" in k, o["feed_forward"][layer]
    yield norm("attn_norm", dim)
    yield matrix("attn_q", heads * head_dim, dim)
    yield norm("attn_q_norm", head_dim, 0.5)
    if layer < o["layers"] - k.get("attention.shared_kv_layers", 0):
        yield matrix("attn_k", kv_heads * head_dim, dim)
        yield norm("attn_k_norm", head_dim, 0.5)
        if not routed or k["attention.sliding_window_pattern"][layer]:
            yield matrix("attn_v", kv_heads * head_dim, dim)
    yield matrix("attn_output", dim, heads * head_dim)
    yield norm("post_attention_norm", dim, 0.15)
    yield norm("ffn_norm", dim)
    yield from glu("", dim, features)
    yield norm("post_ffw_norm", dim, 0.3)
    if routed:
        n = k["expert_count"]
        yield "ffn_gate_inp.weight", (n, dim), 12 / np.sqrt(dim), (1 + 0.4 * layer) * 8 * SKEW[:, None] / (EMBEDDED * dim)
        yield "ffn_gate_inp.scale", (dim,), 0.2, 1.0
        yield norm("pre_ffw_norm_2", dim)
        yield norm("post_ffw_norm_1", dim)
        yield norm("post_ffw_norm_2", dim)
        yield from glu("_exps", dim, k["expert_feed_forward_length"], (n,), o.get("merged", False))
        yield "ffn_down_exps.scale", (n,), 0.3, 1.0
    if o["side"]:
        yield from side(o)
    yield "layer_output_scale.weight", (1,), 0.2, 0.8


def gemma3n(o, layer):
    dim = o["embedding"]
    yield norm("attn_norm", dim)
    for name, shape, deviation, mean in attention("qwen3moe", o, layer): # scores are not scaled
        yield name, shape, deviation, 0.5 if name.endswith("_norm.weight") else mean
    yield norm("post_attention_norm", dim, 0.15)
    yield norm("ffn_norm", dim)
    yield from glu("", dim, o["feed_forward"])
    yield norm("post_ffw_norm", dim, 0.3)
    yield from side(o)
    yield "altup_correct_coef.weight", (4, 4), 0.3, 0.0
    yield "altup_correct_scale.weight", (dim,), 0.2, 1.0
    yield "altup_predict_coef.weight", (16, 4), 0.1, 0.0
    yield "altup_router.weight", (4, dim), 8.0 / np.sqrt(dim) * 8, 0.0
    yield norm("altup_router_norm", dim)
    yield matrix("laurel_l", 64, dim)
    yield matrix("laurel_r", dim, 64)
    yield norm("laurel_post_norm", dim, 0.3)


LAYERS = {"qwen3next": qwen3next, "nemotron_h": nemotron_h, "nemotron_h_moe": nemotron_h, "muse-glimmer": muse_glimmer,
          "gemma4": gemma4, "gemma3n": gemma3n}


def outer(arch, o, vocabulary):
    """what stands in front of the layers besides embeddings"""
    dim, layers = o["embedding"], o["layers"]
    if o.get("side"):
        yield "per_layer_token_embd.weight", (vocabulary, layers * o["side"]), 1 / np.sqrt(o["side"]), 0.0
        yield "per_layer_model_proj.weight", (layers * o["side"], dim), 1.0, 0.0
        yield norm("per_layer_proj_norm", o["side"])
    if arch == "gemma4": # a quarter of the pairs turns
        half = o["head_dim"] // 2
        yield "rope_freqs.weight", (half,), 0.0, np.where(np.arange(half) < half // 4, 1.0, 1e30)
    if arch == "gemma3n":
        yield "altup_proj.weight", (3, dim, dim), 1 / np.sqrt(dim), 0.0
        yield "altup_unembd_proj.weight", (3, dim, dim), 1 / np.sqrt(dim), 0.0


def tensors(arch, o, vocabulary):
    """(name, shape, deviation, mean) of every tensor, in the file's order"""
    dim, gemma = o["embedding"], arch.startswith("gemma")
    narrow, mean = 1 / np.sqrt(dim), EMBEDDED if "expert_count" in o.get("keys", {}) else 0.0
    gain = narrow if gemma else 1.0
    yield "token_embd.weight", (vocabulary, dim), gain, mean * gain
    yield from outer(arch, o, vocabulary)
    for layer in range(o["layers"]):
        for name, shape, deviation, middle in LAYERS[arch](o, layer):
            yield f"blk.{layer}.{name}", shape, deviation, middle
    scale = 2.0 if arch == "muse-glimmer" else narrow if o.get("tied") and not gemma else 1.0
    yield "output_norm.weight", (dim,), 0.2 * scale, scale
    if not o.get("tied"):
        yield "output.weight", (vocabulary, dim), narrow, 0.0
