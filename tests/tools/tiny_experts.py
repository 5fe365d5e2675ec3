"""The families of make_tiny.py whose layers are attention and a mixture of experts: cases, keys and tensors. What they share with those
of tiny_families.py comes from there."""
import numpy as np
from tiny_families import (EMBEDDED, EXPERTS, GRANITE, LATENT, ROUTED, SIX, SKEW, YARN, bias, glu, latent_attention, matrix, norm)
from tiny_families import experts as routed_experts

LLAMA3 = dict(type="llama3", factor=8.0, original_context_length=32, low_freq_factor=1.0, high_freq_factor=4.0)
# feed_forward_length is what experts have where there is no expert_feed_forward_length
WIDE = dict(SIX, feed_forward=48)
LLAMA4 = dict(SIX, arch="llama4", base=5e5, freqs=LLAMA3, shared=48, keys={
    **ROUTED, "expert_used_count": 1, "expert_feed_forward_length": 48, "interleave_moe_layer_step": 2})
LONG = dict(WIDE, arch="phimoe", norm_biases=True, head_bias=True, biases=("attn_q", "attn_k", "attn_v", "attn_output"),
            long=True, keys=ROUTED)
MULTIPLIERS = {key: GRANITE["keys"][key] for key in ("embedding_scale", "residual_scale", "attention.scale", "logit_scale")}

FAMILIES = {
    "llama-moe": dict(WIDE, seed=" 1", arch="llama", keys=ROUTED), # Mixtral
    "llama4": dict(LLAMA4, seed=" 1"),
    # what shows in real models from 8,192 tokens on, which llama.cpp knows as a number of its own
    "llama4-chunks": dict(LLAMA4, seed=" 1", recorded=False, keys={**LLAMA4["keys"], "attention.chunk_size": 16,
                                                        "attention.temperature_length": 8, "attention.temperature_scale": 0.3}),
    "qwen2moe": dict(SIX, arch="qwen2moe", base=1e6, biases=("attn_q", "attn_k", "attn_v"), shared=40, shared_gate=True, keys={
        **ROUTED, "expert_feed_forward_length": 48, "expert_shared_feed_forward_length": 40}),
    "qwen3vlmoe": dict(SIX, seed=" 2", arch="qwen3vlmoe", base=5e6, head_norms=True, keys={
        **ROUTED, "expert_feed_forward_length": 48, "rope.dimension_sections": [3, 3, 2, 0]}),
    "phimoe": dict(LONG, scaling=dict(type="longrope", original_context_length=32, attn_factor=1.2)),
    "phimoe-short": dict(LONG, scaling=dict(type="longrope", original_context_length=256, attn_factor=1.2)),
    "granitemoe": dict(WIDE, arch="granitemoe", tied=True, shared=40, keys={
        **ROUTED, **MULTIPLIERS, "expert_shared_feed_forward_length": 40}),
    "olmoe": dict(WIDE, arch="olmoe", seed=" 1", kv_heads=6, row_norms=True, keys=ROUTED),
    "glm4moe": dict(SIX, arch="glm4moe", layers=5, rope_dim=8, base=1e6, head_norms=True, biases=("attn_q", "attn_k", "attn_v"),
                    shared=48, keys={**ROUTED, "expert_feed_forward_length": 48, "expert_shared_count": 1, "expert_gating_func": 2,
                                     "expert_weights_norm": True, "expert_weights_scale": 2.5, "leading_dense_block_count": 1,
                                     "nextn_predict_layers": 1}), # the last layer guesses: it has no tensors here
    "hunyuan-moe": dict(WIDE, arch="hunyuan-moe", base=1e5, head_norms=True, shared=40, keys={
        **ROUTED, "expert_feed_forward_length": 48, "expert_shared_feed_forward_length": 40}),
    "ernie4_5-moe": dict(SIX, arch="ernie4_5-moe", seed=" 6", layers=3, tokens=40, base=5e5, choosing_bias=True, shared=40, keys={
        **ROUTED, "expert_feed_forward_length": 48, "expert_shared_feed_forward_length": 40, "leading_dense_block_count": 1,
        "interleave_moe_layer_step": 1}),
    "mistral4": dict(SIX, seed=" 2", arch="mistral4", embedding=64, heads=4, kv_heads=1, head_dim=40, value_dim=32, rope_dim=8, shared=48,
                     scaling={**YARN, "yarn_log_multiplier": 0.1}, keys={
                         **LATENT, "attention.temperature_length": 16, "attention.temperature_scale": 0.3}),
}
ARCHS = {case["arch"] for case in FAMILIES.values()} | {"deepseek32"} # for test_broken.py


def attention(o):
    dim, q, kv = o["embedding"], o["heads"] * o["head_dim"], o["kv_heads"] * o["head_dim"]
    for name, rows, cols, gain in (("attn_q", q, dim, 1.5), ("attn_k", kv, dim, 1.5), ("attn_v", kv, dim, 1.0),
                                   ("attn_output", dim, q, 1.0)):
        yield matrix(name, rows, cols, gain)
        if name in o.get("biases", ()):
            yield bias(name, rows)
    if o.get("head_norms"):
        yield norm("attn_q_norm", o["head_dim"])
        yield norm("attn_k_norm", o["head_dim"])
    if o.get("row_norms"):
        yield norm("attn_q_norm", q)
        yield norm("attn_k_norm", kv)


def experts(arch, o, layer):
    own = {**o["keys"], "expert_shared_count": 0, "expert_shared_feed_forward_length": 0} # they are listed below
    yield from routed_experts(arch, {**o, "keys": own}, layer)
    if o.get("choosing_bias"):
        yield bias("exp_probs_b", EXPERTS, 0.05, SKEW / 40)
    if o.get("shared"):
        yield from glu("_shexp", o["embedding"], o["shared"])
    if o.get("shared_gate"):
        yield "ffn_gate_inp_shexp.weight", (o["embedding"],), 1.5 / np.sqrt(o["embedding"]), 0.0


def layer_tensors(arch, o, layer):
    dim, k = o["embedding"], o["keys"]
    step = k.get("interleave_moe_layer_step", 1)
    for name in ("attn_norm", "post_attention_norm" if arch == "glm4moe" else "ffn_norm"):
        yield norm(name, dim)
        if o.get("norm_biases"):
            yield bias(name, dim)
    yield from latent_attention(o) if "attention.kv_lora_rank" in k else attention(o)
    if layer >= k.get("leading_dense_block_count", 0) and (layer + 1) % step == 0:
        yield from experts(arch, o, layer)
    else:
        yield from glu("", dim, o["feed_forward"])


def tensors(arch, o, vocabulary):
    """(name, shape, deviation, mean) of every tensor, in the file's order"""
    dim, k = o["embedding"], o["keys"]
    narrow, gain = 1 / np.sqrt(dim), 1.0 / k.get("embedding_scale", 1.0)
    yield "token_embd.weight", (vocabulary, dim), gain, EMBEDDED * gain
    if o.get("long"):
        yield "rope_factors_long.weight", (o["head_dim"] // 2,), 1.0, 4.0
        yield "rope_factors_short.weight", (o["head_dim"] // 2,), 0.3, 1.5
    for layer in range(o["layers"] - k.get("nextn_predict_layers", 0)):
        for name, shape, deviation, middle in layer_tensors(arch, o, layer):
            yield f"blk.{layer}.{name}", shape, deviation, middle
    scale = narrow if o.get("tied") and "logit_scale" not in k else 1.0
    yield "output_norm.weight", (dim,), 0.2 * scale, scale
    if o.get("norm_biases"):
        yield "output_norm.bias", (dim,), 0.3, 0.0
    if not o.get("tied"):
        yield "output.weight", (vocabulary, dim), narrow, 0.0
    if o.get("head_bias"):
        yield "output.bias", (vocabulary,), 0.3, 0.0
