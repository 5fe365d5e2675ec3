"""Cases of make_tiny.py for the dense families of src/model/families/llama.c that are named in docs/models.md: keys and tensors.
A row of KINDS says what tensors a family has."""
import numpy as np
from tiny_families import SIX, YARN, bias, matrix, norm

NARROW = dict(SIX, layers=3, embedding=64, heads=4, tokens=64)
DEEP = dict(NARROW, layers=64, embedding=48, heads=6, head_dim=8, feed_forward=32, tokens=40)
SECTIONS = {"rope.dimension_sections": [3, 3, 2, 0]}
QKV = ("attn_q", "attn_k", "attn_v")
LAYER_NORM = {"attention.layer_norm_epsilon": 1e-5}

CASES = {
    "qwen2vl": dict(NARROW, arch="qwen2vl", base=1e6, tied=True, keys=SECTIONS),
    "qwen3vl": dict(NARROW, arch="qwen3vl", base=1e6, keys={**SECTIONS, "n_deepstack_layers": 2}),
    "gemma": dict(NARROW, arch="gemma", head_dim=32, tied=True),
    "gemma2": dict(NARROW, arch="gemma2", layers=4, head_dim=32, tied=True, window=16, keys={
        "attn_logit_softcapping": 2.0, "final_logit_softcapping": 1.5}),
    # past the original context, and within it: other divisors of frequencies. (llama.cpp looks for certain tokens in a vocabulary
    # whose name has "phi3" in it.)
    "phi_3": dict(NARROW, arch="phi3", scaling=dict(original_context_length=32, attn_factor=1.2), factors=True),
    "phi_3-short": dict(NARROW, arch="phi3", scaling=dict(original_context_length=256, attn_factor=1.2), factors=True),
    # llama.cpp leaves the window out, with a warning
    "phi_3-window": dict(NARROW, arch="phi3", window=16, recorded=False),
    "granite": dict(NARROW, arch="granite", tied=True, base=1e6, keys={
        "embedding_scale": 6.0, "residual_scale": 0.6, "attention.scale": 0.125, "logit_scale": 1.5}),
    "mistral3": dict(NARROW, arch="mistral3", base=1e6, scaling=dict(YARN, original_context_length=16, yarn_log_multiplier=1.0),
                     keys={"attention.temperature_scale": 0.3}),
    "smollm3": dict(NARROW, arch="smollm3", layers=4, tied=True, base=5e6),
    "minicpm": dict(NARROW, arch="minicpm", tied=True, factors=True, scaling=dict(type="longrope", original_context_length=32), keys={
        "embedding_scale": 6.0, "residual_scale": 0.7, "logit_scale": 1.4}),
    "glm4": dict(NARROW, arch="glm4", rope_dim=8),
    "hunyuan-dense": dict(NARROW, arch="hunyuan-dense", tied=True, keys={"rope.scaling.alpha": 50.0}),
    "ernie4_5": dict(NARROW, arch="ernie4_5", tied=True, base=5e5),
    # only the model of 64 layers has windows
    "exaone4": dict(DEEP, arch="exaone4", tied=True, base=1e6, window=16),
    "exaone4-small": dict(NARROW, arch="exaone4", layers=4, tied=True, base=1e6, window=16),
    "seed_oss": dict(NARROW, arch="seed_oss", head_dim=32, base=1e7),
    "cohere2": dict(NARROW, arch="cohere2", layers=4, tied=True, base=5e4, window=16, eps=None, keys={**LAYER_NORM, "logit_scale": 0.15}),
    "nanbeige": dict(NARROW, arch="nanbeige", layers=1, base=7e7, keys={"num_loops": 3}),
    "nanbeige-plain": dict(NARROW, arch="nanbeige", layers=2, base=7e7, keys={"num_loops": 2, "skip_loop_final_norm": True}),
}

# biases, norms of heads, one matrix of queries, keys and values, one of gate and up, norms of blocks
KINDS = {
    "qwen2vl": dict(biases=QKV), "seed_oss": dict(biases=QKV, norms=("attn_norm", "post_attention_norm")),
    "qwen3vl": dict(head_norms=True), "hunyuan-dense": dict(head_norms=True),
    "exaone4": dict(head_norms=True, norms=("post_attention_norm", "post_ffw_norm")),
    "gemma2": dict(norms=("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")),
    "glm4": dict(biases=QKV, fused_up=True, norms=("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")),
    "phi3": dict(fused_qkv=True, fused_up=True), "cohere2": dict(norms=("attn_norm",)),
}


def layer_tensors(arch, o):
    kind, dim, features = KINDS.get(arch, {}), o["embedding"], o["feed_forward"]
    deep = o["layers"] > 32 # so many layers add up what a cache rounds
    q, kv = o["heads"] * o["head_dim"], o["kv_heads"] * o["head_dim"]
    rows = dict(attn_qkv=q + 2 * kv) if kind.get("fused_qkv") else dict(attn_q=q, attn_k=kv, attn_v=kv)
    for name, n in rows.items():
        yield matrix(name, n, dim, 1.0 if name == "attn_v" else 1.5)
        if name in kind.get("biases", ()):
            yield bias(name, n)
    if kind.get("head_norms"):
        yield norm("attn_q_norm", o["head_dim"], 0.6 if deep else 1.0)
        yield norm("attn_k_norm", o["head_dim"], 0.6 if deep else 1.0)
    yield matrix("attn_output", dim, q)
    for name in kind.get("norms", ("attn_norm", "ffn_norm")):
        yield norm(name, dim, 1.0 if name.startswith(("attn", "ffn")) or arch == "seed_oss" else 0.1 if deep else 0.5)
    for name, n in dict(ffn_up=2 * features).items() if kind.get("fused_up") else dict(ffn_gate=features, ffn_up=features).items():
        yield matrix(name, n, dim)
    yield matrix("ffn_down", dim, features, 1.5)


def tensors(arch, o, vocabulary):
    """(name, shape, deviation, mean) of every tensor, in the file's order"""
    dim, k = o["embedding"], o.get("keys", {})
    narrow = 1 / np.sqrt(dim)
    gain = narrow if arch.startswith("gemma") else 1.0 / k.get("embedding_scale", 1.0)
    yield "token_embd.weight", (vocabulary, dim), gain, 0.0
    if o.get("factors"):
        yield "rope_factors_short.weight", (o["head_dim"] // 2,), 0.2, 1.5
        yield "rope_factors_long.weight", (o["head_dim"] // 2,), 1.0, 4.0
    for layer in range(o["layers"]):
        for name, shape, deviation, mean in layer_tensors(arch, o):
            yield f"blk.{layer}.{name}", shape, deviation, mean
    own_scale = "logit_scale" in k # what the embeddings are too wide for as an output matrix
    scale = narrow if o.get("tied") and not own_scale and not arch.startswith("gemma") else 1.0
    yield "output_norm.weight", (dim,), 0.2 * scale, scale
    if not o.get("tied"):
        yield "output.weight", (vocabulary, dim), narrow, 0.0
