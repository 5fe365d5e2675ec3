#!/usr/bin/env python3
"""Exact forward pass of a GGUF model, teacher-forced: the yardstick for every device and precision.

usage: reference.py MODEL.gguf IDS [TOP]     IDS: comma-separated token ids; prints JSON: per position the TOP ids with
                                             log-probabilities
Needs the PyPI packages gguf and numpy. Families: llama, qwen2, qwen3, gemma3, internlm2. Weights are dequantised as the
file says; everything after them is computed in double. Written from the papers' formulas, not from the engine's code.
"""
import json
import sys

import numpy as np
from gguf import GGUFReader, dequantize

HALVES = {"llama": False, "internlm2": False, "qwen2": True, "qwen3": True, "gemma3": True}


def load(path):
    """tensors {name: [rows, cols] float32} and metadata of a GGUF file"""
    reader = GGUFReader(path)
    tensors = {t.name: dequantize(t.data, t.tensor_type).astype(np.float32).reshape(tuple(int(n) for n in t.shape[::-1]))
               for t in reader.tensors}
    return tensors, {k: f.contents() for k, f in reader.fields.items() if not k.startswith("tokenizer")}


def rms_norm(x, weight, eps):
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
        if kind == "linear":
            freq = freq / factor
        elif kind == "yarn":
            freq = yarn_frequencies(freq, dim, base, original, factor, get("rope.scaling.yarn_beta_fast", 32.0),
                                    get("rope.scaling.yarn_beta_slow", 1.0))
            magnitude *= 1 + 0.1 * np.log(factor)
    angle = positions[:, None] * freq
    return np.cos(angle)[:, None] * magnitude, np.sin(angle)[:, None] * magnitude


def rope(x, table, halves):
    """rotate the first dimensions of [tokens, heads, head_dim]; halves: pairs (i, i + dim/2), else neighbours (2i, 2i+1)"""
    cos, sin = table
    dim = 2 * cos.shape[-1]
    out = x.copy()
    first, second = (slice(0, dim // 2), slice(dim // 2, dim)) if halves else (slice(0, dim, 2), slice(1, dim, 2))
    a, b = x[..., first], x[..., second]
    out[..., first], out[..., second] = a * cos - b * sin, a * sin + b * cos
    return out


def attention(q, k, v, mask, scale):
    """[tokens, heads, dim] each, keys and values of fewer heads; returns [tokens, heads * dim]"""
    k, v = (np.repeat(t, q.shape[1] // k.shape[1], 1) for t in (k, v))
    w = np.einsum("qhd,khd->hqk", q, k) * scale + mask
    w = np.exp(w - w.max(-1, keepdims=True))
    return np.einsum("hqk,khd->qhd", w / w.sum(-1, keepdims=True), v).reshape(q.shape[0], -1)


def silu(x): return x / (1 + np.exp(-x))
def gelu(x): return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x ** 3)))


def local_layers(get, layers):
    """which layers see only the sliding window"""
    pattern = get("attention.sliding_window_pattern", 6)
    if isinstance(pattern, (list, tuple, np.ndarray)):
        return [bool(flag) for flag in pattern[:layers]]
    return [layer % pattern < pattern - 1 for layer in range(layers)]


def log_probabilities(tensors, meta, ids, kv_type=np.float64):
    """[tokens, vocabulary] log-probabilities of the next token at every position.
    kv_type: what keys and values are rounded to on their way into the cache."""
    arch = meta["general.architecture"]
    gemma, halves = arch == "gemma3", HALVES[arch]
    get = lambda key, default=None: meta.get(f"{arch}.{key}", default)
    heads, eps = get("attention.head_count"), get("attention.layer_norm_rms_epsilon")
    kv_heads, layers, window = get("attention.head_count_kv", heads), get("block_count"), get("attention.sliding_window", 0)
    x = tensors["token_embd.weight"][np.asarray(ids)].astype(np.float64)
    n, dim = x.shape
    head_dim, pos = get("attention.key_length", dim // heads), np.arange(n)
    if gemma:
        x = x * np.float32(np.sqrt(dim))
    scale = 1 / np.sqrt(dim // heads if gemma and layers == 62 else head_dim)
    rope_dim = get("rope.dimension_count", head_dim)
    wide = rope_table(get, pos, rope_dim, get("rope.freq_base", 10000.0), True, tensors.get("rope_freqs.weight"))
    local = rope_table(get, pos, rope_dim, get("rope.freq_base_swa", 10000.0), False, None)
    is_local = local_layers(get, layers) if gemma and window else [False] * layers
    for layer in range(layers):
        weight = lambda name: tensors[f"blk.{layer}.{name}.weight"]
        matmul = lambda x, name: x @ weight(name).T + tensors.get(f"blk.{layer}.{name}.bias", 0.0)
        post = lambda y, name: rms_norm(y, weight(name), eps) if gemma else y
        hidden = (pos[None] > pos[:, None]) | (is_local[layer] & (pos[:, None] - pos[None] >= window))
        h = rms_norm(x, weight("attn_norm"), eps)
        q, k, v = (matmul(h, f"attn_{t}").reshape(n, c, head_dim)
                   for t, c in (("q", heads), ("k", kv_heads), ("v", kv_heads)))
        if arch in ("qwen3", "gemma3"):
            q, k = rms_norm(q, weight("attn_q_norm"), eps), rms_norm(k, weight("attn_k_norm"), eps)
        table = local if is_local[layer] else wide
        k, v = (t.astype(kv_type).astype(np.float64) for t in (rope(k, table, halves), v))
        y = attention(rope(q, table, halves), k, v, np.where(hidden, -np.inf, 0.0), scale)
        x = x + post(matmul(y, "attn_output"), "post_attention_norm")
        h = rms_norm(x, weight("ffn_norm"), eps)
        y = matmul((gelu if gemma else silu)(matmul(h, "ffn_gate")) * matmul(h, "ffn_up"), "ffn_down")
        x = x + post(y, "post_ffw_norm")
    z = rms_norm(x, tensors["output_norm.weight"], eps) @ tensors.get("output.weight", tensors["token_embd.weight"]).T
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


if __name__ == "__main__":
    tensors, meta = load(sys.argv[1])
    top = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    rows = log_probabilities(tensors, meta, [int(i) for i in sys.argv[2].split(",")])
    print(json.dumps([[[int(i), round(float(row[i]), 5)] for i in np.argsort(-row)[:top]] for row in rows]))
