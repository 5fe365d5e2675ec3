"""Parts of the exact forward pass that families share: norms, rotations and their scaling, attention, activations."""
import numpy as np


def rms_norm(x, weight, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def layer_norm(x, weight, eps):
    """LayerNorm without a bias (Ba et al. 2016)"""
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def llama3_divisors(freq, original, factor, low, high):
    """what Llama 3.1 divides each frequency by; GGUF files may carry it as rope_freqs.weight"""
    wavelength = 2 * np.pi / freq
    smooth = (original / wavelength - low) / (high - low)
    middle = 1 / ((1 - smooth) / factor + smooth)
    return np.where(wavelength < original / high, 1.0, np.where(wavelength > original / low, factor, middle))


def yarn_frequencies(freq, dim, base, original, factor, beta_fast, beta_slow):
    """YaRN: pairs that turn often over the original context keep their frequency, slow ones are divided by the factor"""
    index_of = lambda turns: dim * np.log(original / (turns * 2 * np.pi)) / (2 * np.log(base))
    low, high = max(np.floor(index_of(beta_fast)), 0), min(np.ceil(index_of(beta_slow)), dim - 1)
    interpolate = np.clip((np.arange(dim // 2) - low) / max(high - low, 0.001), 0, 1)
    return freq / factor * interpolate + freq * (1 - interpolate)


def yarn_log_multiplier(get):
    """DeepSeek's mscale_all_dim. Its files carry a tenth of it."""
    return get("rope.scaling.yarn_log_multiplier", 0.0) / 0.1


def rope_table(get, positions, dim, base, scaled, freq_divisors):
    """cos and sin [tokens, 1, dim/2] of the rotations, times the magnitude the scaling gives them"""
    freq, magnitude = base ** (-np.arange(0, dim, 2) / dim), 1.0
    if scaled:
        kind, factor = get("rope.scaling.type", "linear"), get("rope.scaling.factor", get("rope.scale_linear", 1.0)) or 1.0
        original = get("rope.scaling.original_context_length", get("context_length"))
        magnitude = get("rope.scaling.attn_factor", 1.0)
        if freq_divisors is not None:
            freq = freq / freq_divisors
        elif kind == "llama3":
            freq = freq / llama3_divisors(freq, original, factor, get("rope.scaling.low_freq_factor", 1.0),
                                          get("rope.scaling.high_freq_factor", 4.0))
        if kind in ("linear", "longrope"): # LongRoPE: besides divisors of its own
            freq = freq / factor
        elif kind == "yarn":
            freq = yarn_frequencies(freq, dim, base, original, factor, get("rope.scaling.yarn_beta_fast", 32.0),
                                    get("rope.scaling.yarn_beta_slow", 1.0))
            if not yarn_log_multiplier(get): # DeepSeek's scale is in the softmax instead: see latent_attention
                magnitude *= 1 + 0.1 * np.log(factor)
    angle = positions[:, None] * freq
    return np.cos(angle)[:, None] * magnitude, np.sin(angle)[:, None] * magnitude


def rope(x, table, halves):
    """rotate the first dimensions of [tokens, heads, head_dim]; halves: pairs (i, i + dim/2), else neighbours (2i, 2i+1)"""
    if table is None:
        return x
    cos, sin = table
    dim = 2 * cos.shape[-1]
    out = x.copy()
    first, second = (slice(0, dim // 2), slice(dim // 2, dim)) if halves else (slice(0, dim, 2), slice(1, dim, 2))
    a, b = x[..., first], x[..., second]
    out[..., first], out[..., second] = a * cos - b * sin, a * sin + b * cos
    return out


def attention(q, k, v, mask, scale, sinks=None, cap=0.0):
    """[tokens, heads, dim] each, keys and values of fewer heads; returns [tokens, heads * dim of values].
    cap: scores go no further than this (Gemma 2). sinks: a score for each head that takes its share of the softmax and has no value (Xiao et al. 2023; gpt-oss)."""
    k, v = (np.repeat(t, q.shape[1] // k.shape[1], 1) for t in (k, v))
    w = np.einsum("qhd,khd->hqk", q, k) * scale
    w = (cap * np.tanh(w / cap) if cap else w) + mask
    most = w.max(-1, keepdims=True)
    if sinks is not None:
        most = np.maximum(most, sinks[:, None, None])
    w = np.exp(w - most)
    total = w.sum(-1, keepdims=True)
    if sinks is not None:
        total = total + np.exp(sinks[:, None, None] - most)
    return np.einsum("hqk,khd->qhd", w / total, v).reshape(q.shape[0], -1)


def sigmoid(x): return 1 / (1 + np.exp(-x))
def silu(x): return x / (1 + np.exp(-x))
def softplus(x): return np.log1p(np.exp(x))
def softmax(x): return (e := np.exp(x - x.max(-1, keepdims=True))) / e.sum(-1, keepdims=True)
def relu2(x): return np.maximum(x, 0) ** 2
def gelu(x): return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x ** 3)))
