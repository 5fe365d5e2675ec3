"""The families of make_tiny.py that are more than attention and a feed-forward block: cases, keys and tensors."""
import numpy as np

EXPERTS, USED, TOKENS = 8, 3, 80
# How much more often experts are chosen than others: what the router's scores differ by beside what a token makes of them.
SKEW = np.linspace(1.2, -1.2, EXPERTS)[[3, 0, 6, 2, 5, 1, 7, 4]]
EMBEDDED = 0.5 # mean of embeddings, so that a router without a bias can be skewed: rows with a mean of their own

SIX = dict(layers=4, embedding=96, heads=6, kv_heads=2, head_dim=16, feed_forward=128, context=256, tokens=TOKENS)
NARROW = dict(SIX, embedding=64)
ROUTED = {"expert_count": EXPERTS, "expert_used_count": USED}
YARN = dict(type="yarn", factor=8.0, original_context_length=32)

LFM2 = dict(SIX, arch="lfm2", layers=5, kv_heads=[0, 0, 2, 0, 2], tied=True, base=1e6, keys={"shortconv.l_cache": 3})

DELTA = {"ssm.conv_kernel": 4, "ssm.state_size": 16, "ssm.group_count": 2, "ssm.time_step_rank": 4, "ssm.inner_size": 64,
         "rope.dimension_sections": [3, 3, 2, 0], "full_attention_interval": 4}
QWEN35 = dict(NARROW, arch="qwen35", head_dim=32, rope_dim=16, base=1e7, keys=DELTA)

MAMBA = {"ssm.conv_kernel": 4, "ssm.state_size": 16, "ssm.group_count": 1, "ssm.time_step_rank": 8, "ssm.inner_size": 128,
         "rope.scaling.finetuned": False, "embedding_scale": 6.0, "residual_scale": 0.6, "attention.scale": 0.125,
         "logit_scale": 1.5}
GRANITE = dict(NARROW, arch="granitehybrid", kv_heads=[0, 0, 2, 0], tied=True, keys=MAMBA)

# Keys of the cached latent and of what heads see in it: 24 = 16 without rotation, 8 with. Real files have one head_count_kv.
LATENT = {"attention.key_length_mla": 24, "attention.value_length_mla": 16, "attention.kv_lora_rank": 32,
          "attention.q_lora_rank": 40, "leading_dense_block_count": 1, "expert_feed_forward_length": 48,
          "expert_shared_count": 1, "expert_weights_scale": 1.5, **ROUTED}
DEEPSEEK2 = dict(NARROW, arch="deepseek2", heads=4, kv_heads=1, head_dim=40, value_dim=32, rope_dim=8)

FAMILIES = {
    "qwen3moe": dict(NARROW, arch="qwen3moe", seed=" 4", base=1e6, keys={**ROUTED, "expert_feed_forward_length": 48}),
    "gpt-oss": dict(NARROW, arch="gpt-oss", window=16, base=150000.0, scaling=YARN,
                    keys={**ROUTED, "expert_feed_forward_length": 64}),
    "lfm2": LFM2,
    "lfm2moe": dict(LFM2, arch="lfm2moe", seed=" 8", keys={
        **ROUTED, "shortconv.l_cache": 3, "leading_dense_block_count": 2, "expert_feed_forward_length": 48,
        "expert_gating_func": 2, "expert_weights_norm": False}), # as llama.cpp writes what a family has no key for
    "qwen35": dict(QWEN35, layers=5),
    "qwen35-even": dict(QWEN35, tied=True, keys={**DELTA, "ssm.group_count": 4}), # as many key heads as value heads
    "qwen35moe": dict(QWEN35, arch="qwen35moe", seed=" 5", keys={
        **DELTA, **ROUTED, "expert_feed_forward_length": 32, "expert_shared_feed_forward_length": 48}),
    # newer files have the experts' gate and up in one, and may say by layer which are delta nets
    "qwen35moe-merged": dict(QWEN35, arch="qwen35moe", merged=True, keys={
        **DELTA, **ROUTED, "expert_feed_forward_length": 32, "expert_shared_feed_forward_length": 48,
        "attention.recurrent_layers": [True, True, False, True], "full_attention_interval": 3}),
    "granitehybrid": dict(GRANITE),
    "granitehybrid-moe": dict(GRANITE, feed_forward=48, keys={
        **MAMBA, **ROUTED, "ssm.group_count": 2, "expert_shared_feed_forward_length": 40}),
    # V3: sigmoid with a bias, groups, renormalised; V2: softmax, not renormalised
    "deepseek2": dict(DEEPSEEK2, scaling={**YARN, "yarn_log_multiplier": 0.1}, keys={
        **LATENT, "expert_gating_func": 2, "expert_weights_norm": True, "expert_group_count": 4, "expert_group_used_count": 2}),
    "deepseek2-v2": dict(DEEPSEEK2, scaling={**YARN, "yarn_log_multiplier": 0.0707}, keys={
        **LATENT, "expert_gating_func": 1, "expert_shared_feed_forward_length": 0}), # the same
    # No query latent: files of V2 Lite lack the key, 0 says the same and llama.cpp then takes any number of layers.
    "deepseek2-lite": dict(DEEPSEEK2, seed=" 1", keys={
        **LATENT, "attention.q_lora_rank": 0, "expert_weights_scale": 1.0, "expert_shared_count": 2}),
    # Files from before llama.cpp split attn_kv_b in two
    "deepseek2-old": dict(DEEPSEEK2, seed=" 1", kv_heads=4, head_dim=24, value_dim=16, scaling=YARN, without=(
        "attention.key_length_mla", "attention.value_length_mla"), keys=LATENT),
    "command-r": dict(SIX, arch="command-r", tied=True, base=8e6, eps=None, keys={
        "attention.layer_norm_epsilon": 1e-5, "logit_scale": 0.1}),
    # Command R+: norms of queries and keys, each head with weights of its own; llama.cpp looks for them from 64 layers on
    "command-r-plus": dict(SIX, arch="command-r", layers=64, embedding=48, head_dim=8, feed_forward=32, tokens=48, tied=True,
                           row_norms=True, base=8e6, eps=None, keys={
                               "attention.layer_norm_epsilon": 1e-5, "logit_scale": 0.14}),
    "olmo2": dict(SIX, arch="olmo2", base=5e5),
    "olmo2-window": dict(SIX, arch="olmo2", base=5e5, window=16, scaling=YARN, # OLMo 3
                         keys={"attention.sliding_window_pattern": [True, True, True, False]}),
}


def matrix(name, rows, cols, gain=1.0):
    return f"{name}.weight", (rows, cols), gain / np.sqrt(cols), 0.0


def norm(name, n, mean=1.0):
    return f"{name}.weight", (n,), 0.2, mean


def bias(name, n, deviation=0.3, mean=0.0):
    return f"{name}.bias", (n,) if isinstance(n, int) else n, deviation, mean


def attention(arch, o, layer):
    """self-attention: the families differ in norms, biases, sinks and Qwen3.5's gate"""
    kv_heads = o["kv_heads"][layer] if isinstance(o["kv_heads"], list) else o["kv_heads"]
    dim, q, kv = o["embedding"], o["heads"] * o["head_dim"], kv_heads * o["head_dim"]
    yield matrix("attn_q", q * (2 if arch.startswith("qwen35") else 1), dim, 1.5)
    yield matrix("attn_k", kv, dim, 1.5)
    yield matrix("attn_v", kv, dim)
    yield matrix("attn_output", dim, q, 0.3 if o.get("row_norms") else 1.0) # sixty-four layers add up what a cache rounds
    if arch == "gpt-oss":
        for name, n in (("attn_q", q), ("attn_k", kv), ("attn_v", kv), ("attn_output", dim)):
            yield bias(name, n)
        yield "attn_sinks.weight", (o["heads"],), 1.0, 1.0
    elif arch == "command-r" and o.get("row_norms"):
        yield "attn_q_norm.weight", (o["heads"], o["head_dim"]), 0.2, 0.5
        yield "attn_k_norm.weight", (kv_heads, o["head_dim"]), 0.2, 0.5
    elif arch == "olmo2":
        yield norm("attn_q_norm", q)
        yield norm("attn_k_norm", kv)
    elif arch in ("qwen3moe", "lfm2", "lfm2moe", "qwen35", "qwen35moe"):
        yield norm("attn_q_norm", o["head_dim"])
        yield norm("attn_k_norm", o["head_dim"])


def latent_attention(o):
    k, dim, heads = o["keys"], o["embedding"], o["heads"]
    rank, width = k["attention.kv_lora_rank"], k["attention.key_length_mla"]
    value, plain = k["attention.value_length_mla"], width - o["rope_dim"]
    if q_rank := k["attention.q_lora_rank"]:
        yield matrix("attn_q_a", q_rank, dim)
        yield norm("attn_q_a_norm", q_rank)
        yield matrix("attn_q_b", heads * width, q_rank)
    else:
        yield matrix("attn_q", heads * width, dim, 1.5)
    yield matrix("attn_kv_a_mqa", rank + o["rope_dim"], dim)
    yield norm("attn_kv_a_norm", rank)
    if "attention.key_length_mla" in o.get("without", ()):
        yield matrix("attn_kv_b", heads * (plain + value), rank)
    else:
        yield "attn_k_b.weight", (heads, rank, plain), 1 / np.sqrt(rank), 0.0
        yield "attn_v_b.weight", (heads, value, rank), 1 / np.sqrt(rank), 0.0
    yield matrix("attn_output", dim, heads * value)


def short_convolution(o):
    dim = o["embedding"]
    yield matrix("shortconv.in_proj", 3 * dim, dim)
    yield "shortconv.conv.weight", (dim, o["keys"]["shortconv.l_cache"]), 0.7, 0.0
    yield matrix("shortconv.out_proj", dim, dim)


def delta_net(o):
    """Decays lie between 0.5 and 0.99, so that states remember tens of tokens."""
    k, dim = o["keys"], o["embedding"]
    size, key_heads, heads = k["ssm.state_size"], k["ssm.group_count"], k["ssm.time_step_rank"]
    channels = (2 * key_heads + heads) * size
    yield matrix("attn_qkv", channels, dim, 1.5)
    yield matrix("attn_gate", heads * size, dim)
    yield "ssm_conv1d.weight", (channels, k["ssm.conv_kernel"]), 0.6, 0.0
    yield bias("ssm_dt", heads, 0.5, -0.5)
    yield "ssm_a", (heads,), 0.25, -0.5
    yield matrix("ssm_beta", heads, dim, 1.5)
    yield matrix("ssm_alpha", heads, dim)
    yield norm("ssm_norm", size)
    yield matrix("ssm_out", dim, heads * size)


def mamba2(o):
    k, dim = o["keys"], o["embedding"]
    size, groups, heads, inner = (k[f"ssm.{key}"] for key in ("state_size", "group_count", "time_step_rank", "inner_size"))
    channels = inner + 2 * groups * size
    yield matrix("ssm_in", inner + channels + heads, dim)
    yield "ssm_conv1d.weight", (channels, k["ssm.conv_kernel"]), 0.6, 0.0
    yield bias("ssm_conv1d", channels)
    yield bias("ssm_dt", heads, 0.5, -0.5)
    yield "ssm_a", (heads, 1), 0.25, -0.5
    yield "ssm_d", (heads, 1), 0.5, 1.0
    yield "ssm_norm.weight", (groups, inner // groups), 0.2, 1.0
    yield matrix("ssm_out", dim, inner)


def glu(name, dim, features, count=(), merged=False):
    """gate, up and down of one block (count: (), or how many experts)"""
    for which, rows in (("gate_up", 2 * features),) if merged else (("gate", features), ("up", features)):
        yield f"ffn_{which}{name}.weight", (*count, rows, dim), 1 / np.sqrt(dim), 0.0
    yield f"ffn_down{name}.weight", (*count, dim, features), 1.5 / np.sqrt(features), 0.0


def experts(arch, o, layer):
    k, dim = o["keys"], o["embedding"]
    n = o.get("experts", EXPERTS)
    skew = SKEW if n == EXPERTS else np.zeros(n) # other numbers are for measuring
    features = k.get("expert_feed_forward_length") or o["feed_forward"]
    by_bias = arch in ("gpt-oss", "lfm2moe") or k.get("expert_gating_func") == 2
    skewed = 0.0 if by_bias else (1 + 0.4 * layer) * skew[:, None] / (EMBEDDED * dim) # its embedding fades in the stream
    yield "ffn_gate_inp.weight", (n, dim), 1.5 / np.sqrt(dim), skewed
    if arch == "gpt-oss":
        yield bias("ffn_gate_inp", n, 0.1, skew)
        # wide enough that the clamp at 7 bites now and then
        for name, gain in (("gate", 3.0), ("up", 3.0), ("down", 0.15)):
            rows, cols = (dim, features) if name == "down" else (features, dim)
            yield f"ffn_{name}_exps.weight", (n, rows, cols), gain / np.sqrt(cols), 0.0
            yield bias(f"ffn_{name}_exps", (n, rows))
        return
    if by_bias:
        yield bias("exp_probs_b", n, 0.05, skew / 4)
    yield from glu("_exps", dim, features, (n,), o.get("merged", False))
    shared = k.get("expert_shared_feed_forward_length") or k.get("expert_shared_count", 0) * features
    if shared:
        yield from glu("_shexp", dim, shared)
    if arch == "qwen35moe":
        yield "ffn_gate_inp_shexp.weight", (dim,), 1.5 / np.sqrt(dim), 0.0


def mixer(arch, o, layer):
    """what a layer has in attention's place"""
    kv_heads = o["kv_heads"]
    if arch.startswith("lfm2") and kv_heads[layer] == 0:
        return short_convolution(o)
    if arch == "granitehybrid" and kv_heads[layer] == 0:
        return mamba2(o)
    if arch.startswith("qwen35"):
        recurrent = o["keys"].get("attention.recurrent_layers", [(i + 1) % 4 for i in range(o["layers"])])
        return delta_net(o) if recurrent[layer] else attention(arch, o, layer)
    return latent_attention(o) if arch == "deepseek2" else attention(arch, o, layer)


def block_norms(arch, dim):
    """(name, mean): olmo2 has norms of what blocks add and none of what they read, command-r one for both blocks"""
    if arch == "olmo2":
        return norm("post_attention_norm", dim, 0.5), norm("post_ffw_norm", dim, 0.5)
    if arch == "command-r":
        return (norm("attn_norm", dim),)
    own = "post_attention_norm" if arch in ("gpt-oss", "qwen35", "qwen35moe") else "ffn_norm"
    return norm("attn_norm", dim), norm(own, dim)


def tensors(arch, o, vocabulary):
    """(name, shape, deviation, mean) of every tensor, in the file's order"""
    dim, k = o["embedding"], o.get("keys", {})
    routed = "expert_count" in k
    narrow, mean = 1 / np.sqrt(dim), EMBEDDED if routed else 0.0
    gain = 1.0 / k.get("embedding_scale", 1.0)
    yield "token_embd.weight", (vocabulary, dim), gain, mean * gain
    for layer in range(o["layers"]):
        parts = [*block_norms(arch, dim), *mixer(arch, o, layer)]
        if routed and layer >= k.get("leading_dense_block_count", 0):
            parts += experts(arch, o, layer)
        else:
            parts += glu("", dim, o["feed_forward"])
        for name, shape, deviation, middle in parts:
            yield f"blk.{layer}.{name}", shape, deviation, middle
    own_scale = "logit_scale" in k # what the embeddings are too wide for as an output matrix
    scale = narrow if o.get("tied") and not own_scale else 1.0
    yield ("token_embd_norm" if arch.startswith("lfm2") else "output_norm") + ".weight", (dim,), 0.2 * scale, scale
    if not o.get("tied"):
        yield "output.weight", (vocabulary, dim), narrow, 0.0
