"""What may stand where attention stands, each as its paper writes it, one token after the other: short convolution, gated delta
net, Mamba-2; and attention over a cached latent. They take a reference.Pass, a layer and its normed input [tokens, width]."""
import numpy as np
from reference_ops import attention, rms_norm, rope, sigmoid, silu, softplus, yarn_log_multiplier


def causal_convolution(x, kernel):
    """depthwise: [tokens, channels] by [channels, taps], the last tap on the token itself, zeros before the first token"""
    taps = kernel.shape[1]
    padded = np.concatenate([np.zeros((taps - 1, x.shape[1])), x])
    return sum(padded[i:i + len(x)] * kernel[:, i] for i in range(taps))


def short_convolution(m, layer, h):
    """LFM2: two gates around a convolution of the last few tokens"""
    before, after, x = np.split(m.matmul(layer, h, "shortconv.in_proj"), 3, -1)
    return m.matmul(layer, after * causal_convolution(before * x, m.weight(layer, "shortconv.conv")), "shortconv.out_proj")


def delta_net(m, layer, h):
    """Gated delta net (Yang et al. 2024). Files of Qwen3.5 order value heads so that head i has key head i mod key heads."""
    n, size, key_heads, heads = len(h), m.get("ssm.state_size"), m.get("ssm.group_count"), m.get("ssm.time_step_rank")
    mixed, z, beta, alpha, spread = delta_inputs(m, layer, h, size, key_heads, heads)
    mixed = silu(causal_convolution(mixed, m.weight(layer, "ssm_conv1d")))
    q, k, v = np.split(mixed, [key_heads * size, 2 * key_heads * size], -1)
    q, k = (spread(unit(t.reshape(n, key_heads, size), m.eps), heads // key_heads) for t in (q, k))
    v = v.reshape(n, heads, size)
    beta = sigmoid(beta)
    decay = np.exp(softplus(alpha + m.bias(layer, "ssm_dt")) * m.tensors[f"blk.{layer}.ssm_a"])
    state, out = np.zeros((heads, size, size)), np.empty((n, heads, size)) # state: [head, key, value]
    for t in range(n):
        state = state * decay[t][:, None, None]
        known = np.einsum("hkv,hk->hv", state, k[t]) # what the state says of this key; beta of the error is written
        state = state + np.einsum("hk,hv->hkv", k[t], (v[t] - known) * beta[t][:, None])
        out[t] = np.einsum("hkv,hk->hv", state, q[t]) / np.sqrt(size)
    gate = silu(z.reshape(n, heads, size))
    return m.matmul(layer, (rms_norm(out, m.weight(layer, "ssm_norm"), m.eps) * gate).reshape(n, -1), "ssm_out")


def delta_inputs(m, layer, h, size, key_heads, heads):
    """(queries, keys and values; gates; beta; alpha; how key heads become as many as value heads). Qwen3-Next's files have beta and
    alpha by key heads, whose value heads follow each other, and the first ones also all the rest so."""
    both = f"blk.{layer}.ssm_ba.weight" in m.tensors
    if not both:
        return *(m.matmul(layer, h, name) for name in ("attn_qkv", "attn_gate", "ssm_beta", "ssm_alpha")), tiled
    n, each = len(h), heads // key_heads
    beta, alpha = (t.reshape(n, -1) for t in np.split(m.matmul(layer, h, "ssm_ba").reshape(n, key_heads, -1), 2, -1))
    if f"blk.{layer}.attn_qkv.weight" in m.tensors:
        return m.matmul(layer, h, "attn_qkv"), m.matmul(layer, h, "attn_gate"), beta, alpha, repeated
    by_head = m.matmul(layer, h, "ssm_in").reshape(n, key_heads, -1)
    *qkv, z = (t.reshape(n, -1) for t in np.split(by_head, np.cumsum([size, size, each * size]), -1))
    return np.concatenate(qkv, -1), z, beta, alpha, repeated


def tiled(x, times): return np.tile(x, (1, times, 1)) # heads 0 1 0 1
def repeated(x, times): return np.repeat(x, times, 1) # heads 0 0 1 1


def unit(x, eps):
    """of length one"""
    return x / np.sqrt((x * x).sum(-1, keepdims=True) + eps)


def mamba2(m, layer, h):
    """Mamba-2 (Dao and Gu 2024). Heads share B and C by groups, head i with group i / (heads / groups)."""
    n, size, groups, heads = len(h), m.get("ssm.state_size"), m.get("ssm.group_count"), m.get("ssm.time_step_rank")
    inner = m.get("ssm.inner_size")
    z, mixed, step = np.split(m.matmul(layer, h, "ssm_in"), [inner, 2 * inner + 2 * groups * size], -1)
    mixed = silu(causal_convolution(mixed, m.weight(layer, "ssm_conv1d")) + m.bias(layer, "ssm_conv1d"))
    x, b, c = np.split(mixed, [inner, inner + groups * size], -1)
    x = x.reshape(n, heads, -1)
    b, c = (repeated(t.reshape(n, groups, size), heads // groups) for t in (b, c))
    step = softplus(step + m.bias(layer, "ssm_dt"))
    decay = np.exp(step * m.tensors[f"blk.{layer}.ssm_a"].ravel())
    state, y = np.zeros((heads, x.shape[-1], size)), np.empty(x.shape)
    for t in range(n):
        state = state * decay[t][:, None, None] + np.einsum("hd,hs->hds", x[t] * step[t][:, None], b[t])
        y[t] = np.einsum("hds,hs->hd", state, c[t])
    y = (y + x * m.tensors[f"blk.{layer}.ssm_d"]).reshape(n, -1) * silu(z) # the gate comes before the norm
    norm = m.weight(layer, "ssm_norm").reshape(groups, -1)
    return m.matmul(layer, rms_norm(y.reshape(n, groups, -1), norm, m.eps).reshape(n, -1), "ssm_out")


def latent_attention(m, layer, h):
    """Multi-head latent attention (DeepSeek-V2). Cached are the normed latent and one rotated key that all heads share; keys and
    values of the heads are matrices of the latent."""
    n, heads, rank, turned = len(h), m.get("attention.head_count"), m.get("attention.kv_lora_rank"), m.get("rope.dimension_count")
    head_dim = m.get("attention.key_length_mla", m.get("attention.key_length"))
    plain = head_dim - turned
    if f"blk.{layer}.attn_q_a.weight" in m.tensors:
        q = m.matmul(layer, m.norm(layer, m.matmul(layer, h, "attn_q_a"), "attn_q_a_norm"), "attn_q_b")
    else:
        q = m.matmul(layer, h, "attn_q")
    q = q.reshape(n, heads, head_dim)
    both = m.matmul(layer, h, "attn_kv_a_mqa")
    latent = m.norm(layer, both[:, :rank], "attn_kv_a_norm")
    shared = rope(both[:, None, rank:], m.wide, m.traits.halves)
    latent, shared = m.cached(latent), m.cached(shared)
    if f"blk.{layer}.attn_kv_b.weight" in m.tensors: # older files: both matrices of each head in one
        of_keys, of_values = np.split(m.weight(layer, "attn_kv_b").reshape(heads, -1, rank), [plain], 1)
    else:
        of_keys = m.weight(layer, "attn_k_b").reshape(heads, rank, plain).transpose(0, 2, 1)
        of_values = m.weight(layer, "attn_v_b").reshape(heads, -1, rank)
    k, v = np.einsum("hdr,nr->nhd", of_keys, latent), np.einsum("hdr,nr->nhd", of_values, latent)
    k = np.concatenate([k, np.repeat(shared, heads, 1)], -1)
    q = np.concatenate([q[..., :plain], rope(q[..., plain:], m.wide, m.traits.halves)], -1) * m.growth(0)
    return m.matmul(layer, attention(q, k, v, m.mask(layer), latent_scale(m.get) / np.sqrt(head_dim)), "attn_output")


def latent_scale(get):
    """what YaRN does to DeepSeek's scores, beside the rotations: the square of the magnitude"""
    if get("rope.scaling.type") != "yarn":
        return 1.0
    log = np.log(get("rope.scaling.factor", 1.0))
    multiplier = yarn_log_multiplier(get)
    return (1 + 0.1 * multiplier * log if multiplier else 1 + 0.1 * log) ** 2
