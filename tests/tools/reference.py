#!/usr/bin/env python3
"""Exact forward pass of a GGUF model, teacher-forced: the yardstick for every device and precision.

usage: reference.py MODEL.gguf IDS [TOP]     IDS: comma-separated token ids; prints JSON: per position the TOP ids with
                                             log-probabilities
Needs the PyPI packages gguf and numpy. Families: those of reference_traits.py. Weights are dequantised as the file says; everything after
them is computed in double. Written from the papers' formulas, not from the engine's code. reference_ops.py has norms, rotations
and attention, reference_mixers.py what stands in attention's place, reference_experts.py the experts.
"""
import json
import sys
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
from gguf import GGUFReader, dequantize

sys.path.insert(0, str(Path(__file__).parent))
from reference_experts import experts # noqa: E402
from reference_mixers import delta_net, latent_attention, mamba2, short_convolution # noqa: E402
from reference_ops import attention, gelu, layer_norm, relu2, rms_norm, rope, rope_table, sigmoid, silu # noqa: E402
from reference_streams import BODIES, plain_rms # noqa: E402
from reference_traits import Traits # noqa: E402

MIXERS = {"shortconv.in_proj": short_convolution, "ssm_alpha": delta_net, "ssm_ba": delta_net, "ssm_in": mamba2, "attn_kv_a_mqa": latent_attention}


def load(path):
    """tensors {name: [rows, cols] float32} and metadata of a GGUF file"""
    reader = GGUFReader(path)
    tensors = {t.name: dequantize(t.data, t.tensor_type).astype(np.float32).reshape(tuple(int(n) for n in t.shape[::-1]))
               for t in reader.tensors}
    return tensors, {k: f.contents() for k, f in reader.fields.items() if not k.startswith("tokenizer")}


def local_layers(get, layers, pattern):
    """which layers see only the sliding window"""
    pattern = get("attention.sliding_window_pattern", pattern)
    if isinstance(pattern, (list, tuple, np.ndarray)):
        return [bool(flag) for flag in pattern[:layers]]
    return [pattern == 0 or layer % pattern < pattern - 1 for layer in range(layers)]


class Pass:
    """One model and one sequence: what the blocks of reference_mixers.py and reference_experts.py look up."""

    def __init__(self, tensors, meta, n, kv_type):
        self.arch = meta["general.architecture"]
        self.get = lambda key, default=None: meta.get(f"{self.arch}.{key}", default)
        get = self.get
        self.traits = traits = Traits(self.arch)
        traits.halves |= traits.mrope_halves and (get("rope.dimension_sections") or [0])[0] > 0
        tensors = self.tensors = {name: t for name, t in tensors.items() if not any(fnmatch(name, kind) for kind in traits.ignores)}
        self.kv_type, self.layers = kv_type, get("block_count") - get("nextn_predict_layers", 0) # those guess further tokens
        self.eps = get("attention.layer_norm_rms_epsilon") or get("attention.layer_norm_epsilon")
        self.plain_norm = layer_norm if get("attention.layer_norm_epsilon") and not traits.alone else rms_norm
        self.dim = get("embedding_length")
        self.head_dim = get("attention.key_length") or self.dim // np.max(get("attention.head_count"))
        rope_dim, base, self.pos = get("rope.dimension_count", self.head_dim), get("rope.freq_base", 10000.0), np.arange(n)
        turns = traits.positions and (not traits.finetuned or get("rope.scaling.finetuned", True))
        if alpha := get("rope.scaling.alpha"):
            base *= alpha ** (self.head_dim / (self.head_dim - 2))
        divisors = tensors.get("rope_freqs.weight")
        if "rope_factors_long.weight" in tensors: # of contexts past the original one, and of others
            longer = get("context_length") > get("rope.scaling.original_context_length", get("context_length"))
            divisors = tensors[f"rope_factors_{'long' if longer else 'short'}.weight"]
        self.wide = rope_table(get, self.pos, rope_dim, base, True, divisors) if turns else None
        self.local = self.wide
        if traits.local_base != "wide":
            own = get("rope.freq_base_swa", base if traits.local_base == "same" else traits.local_base)
            self.local = rope_table(get, self.pos, rope_dim, own, False, None)
        self.window = get("attention.sliding_window", 0)
        self.chunk = traits.chunk and get("attention.chunk_size", traits.chunk)
        known = traits.pattern is not None and (self.window or self.chunk) and traits.window_layers in (0, self.layers)
        self.is_local = local_layers(get, self.layers, traits.pattern) if known else [False] * self.layers
        self.has_windows, self.loops = bool(known), get("num_loops") or 1
        self.margin, self.chosen = np.inf, {} # see reference_experts.routes

    def weight(self, layer, name):
        return self.tensors[f"blk.{layer}.{name}.weight"]

    def bias(self, layer, name):
        return self.tensors.get(f"blk.{layer}.{name}.bias", 0.0)

    def matmul_of(self, layer, x, name, expert):
        return x @ self.weight(layer, name)[expert].T + self.tensors.get(f"blk.{layer}.{name}.bias", {expert: 0.0})[expert]

    def matmul(self, layer, x, name):
        return x @ self.weight(layer, name).T + self.bias(layer, name)

    def norm(self, layer, x, name, eps=None):
        """x as it is where the model has no such norm"""
        weight = self.tensors.get(f"blk.{layer}.{name}.weight")
        return x if weight is None else self.plain_norm(x, weight, eps or self.eps) + self.bias(layer, name)

    def cached(self, x):
        """what keys, values and latents are after they lay in the cache. Recurrent states are never rounded."""
        return x.astype(self.kv_type).astype(np.float64)

    def is_still(self, layer):
        return self.traits.still_every and (layer + 1) % self.traits.still_every == 0

    def table(self, layer):
        """rotations of a layer, None where it knows no positions"""
        if self.is_still(layer) or (self.traits.still_wide and self.has_windows and not self.is_local[layer]):
            return None
        return self.local if self.is_local[layer] else self.wide

    def mask(self, layer):
        distance = self.pos[:, None] - self.pos[None]
        run = self.pos // (self.chunk or 1)
        far = (run[:, None] != run[None]) if self.chunk else distance >= self.window
        return np.where((distance < 0) | (self.is_local[layer] & far), -np.inf, 0.0)

    def growth(self, offset):
        """what queries are multiplied by, by their positions"""
        every = self.get("attention.temperature_length", 0) or 8192
        scale = self.get("attention.temperature_scale", self.traits.growth)
        return (1 + scale * np.log(1 + np.floor((self.pos + offset) / every)))[:, None, None]


def of_layer(value, layer):
    return value[layer] if isinstance(value, (list, tuple, np.ndarray)) else value


def self_attention(m, layer, h):
    """Attention with what families add to it: biases, norms of queries and keys (by head, or of the whole row), windows,
    sinks, a gate"""
    n, head_dim = len(h), m.head_dim
    heads = of_layer(m.get("attention.head_count"), layer)
    kv_heads = of_layer(m.get("attention.head_count_kv", heads), layer)
    if f"blk.{layer}.attn_qkv.weight" in m.tensors:
        q, k, v = np.split(m.matmul(layer, h, "attn_qkv"), np.array([heads, heads + kv_heads]) * head_dim, -1)
    else:
        q, k, v = (m.matmul(layer, h, f"attn_{t}") for t in "qkv")
    gate = None
    if m.traits.query_gate: # each head's rows: its query, then its gate
        q, gate = np.split(q.reshape(n, heads, 2 * head_dim), 2, -1)
    by_head = lambda x, count: x.reshape(n, count, head_dim)
    if m.traits.norm_whole:
        q, k = m.norm(layer, q, "attn_q_norm"), m.norm(layer, k, "attn_k_norm")
    q, k, v = by_head(q, heads), by_head(k, kv_heads), by_head(v, kv_heads)
    table = m.table(layer)
    if not m.traits.norm_whole and not m.traits.norm_after:
        q, k = m.norm(layer, q, "attn_q_norm"), m.norm(layer, k, "attn_k_norm")
    q, k = rope(q, table, m.traits.halves), rope(k, table, m.traits.halves)
    if m.is_still(layer):
        q = q * m.growth(1)
    elif m.traits.norm_after:
        norm = (lambda x, name: rms_norm(x, 1.0, m.eps)) if m.traits.unit_norm else lambda x, name: m.norm(layer, x, name)
        q, k = norm(q, "attn_q_norm"), norm(k, "attn_k_norm")
    if growth := m.get("attention.temperature_scale") if m.traits.query_scale else 0.0:
        original = m.get("rope.scaling.original_context_length")
        q = q * (1 + growth * np.log(1 + np.floor(m.pos / original)))[:, None, None]
    k, v = m.cached(k), m.cached(v)
    default = 1 / np.sqrt(m.dim // heads if m.arch == "gemma3" and m.layers == 62 else head_dim)
    y = attention(q, k, v, m.mask(layer), m.get("attention.scale", 0.0) or default, m.tensors.get(f"blk.{layer}.attn_sinks.weight"),
                  m.get("attn_logit_softcapping") if m.traits.score_cap else 0.0)
    if gate is not None:
        y = y * sigmoid(gate.reshape(n, -1))
    if f"blk.{layer}.attn_gate.weight" in m.tensors:
        y = y * sigmoid(m.matmul(layer, h, "attn_gate"))
    return y @ m.weight(layer, "attn_output").T if m.traits.plain_output else m.matmul(layer, y, "attn_output")


def mix(m, layer, h):
    """The layer's attention or what it has in its place, found by its tensors"""
    for name, mixer in MIXERS.items():
        if f"blk.{layer}.{name}.weight" in m.tensors:
            return mixer(m, layer, h)
    return self_attention(m, layer, h)


def feed_forward(m, layer, h):
    if f"blk.{layer}.ffn_gate_inp.weight" in m.tensors:
        return experts(m, layer, h)
    act = globals()[m.traits.activation] # by its name here, so that it can be changed for a while
    up = m.matmul(layer, h, "ffn_up")
    if f"blk.{layer}.ffn_gate.weight" in m.tensors:
        gate = m.matmul(layer, h, "ffn_gate")
    elif up.shape[-1] == m.weight(layer, "ffn_down").shape[1]: # there is none
        return m.matmul(layer, act(up), "ffn_down")
    else: # both in one matrix
        gate, up = np.split(up, 2, -1)
    return m.matmul(layer, act(gate) * up, "ffn_down")


def embed(m, ids):
    x = m.tensors["token_embd.weight"][np.asarray(ids)].astype(np.float64)
    if m.traits.embedding_normed:
        return plain_rms(x, m.eps)
    return x * (np.float32(np.sqrt(m.dim)) if m.traits.embedding_root else m.get("embedding_scale", 0.0) or 1.0)


def unembed(m, x):
    final = m.traits.final_norm
    x = m.plain_norm(x, m.tensors[f"{final}.weight"], m.eps) + m.tensors.get(f"{final}.bias", 0.0)
    z = x @ m.tensors.get("output.weight", m.tensors["token_embd.weight"]).T + m.tensors.get("output.bias", 0.0)
    scale = m.get("logit_scale", 0.0) or 1.0
    z = z / scale if m.traits.logit_divisor else z * scale
    if cap := m.get("final_logit_softcapping") if m.traits.logit_cap else 0.0:
        z = cap * np.tanh(z / cap)
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def log_probabilities(tensors, meta, ids, kv_type=np.float64, trace=None):
    """[tokens, vocabulary] log-probabilities of the next token at every position.
    kv_type: what keys and values are rounded to on their way into the cache. trace: a dict that gets `margin`, the nearest
    choice of experts in units of their scores, and `chosen`, {layer: [tokens, used]}."""
    m = Pass(tensors, meta, len(ids), kv_type)
    post = m.traits.post_norms
    own_norm = "ffn_norm" if post or "blk.0.ffn_norm.weight" in tensors else "post_attention_norm"
    residual = m.get("residual_scale", 0.0) or 1.0
    x = embed(m, ids)
    body = BODIES.get(m.arch)
    if body:
        x = body(m, ids, x)
    for turn in range(0 if body else m.layers * m.loops):
        layer = turn % m.layers
        if turn and layer == 0 and not m.get("skip_loop_final_norm"):
            x = m.plain_norm(x, tensors["output_norm.weight"], m.eps)
        h = m.norm(layer, x, "attn_norm")
        if m.traits.alone:
            feeds = any(f"blk.{layer}.{name}.weight" in tensors for name in ("ffn_up", "ffn_up_exps"))
            x = x + (feed_forward if feeds else mix)(m, layer, h)
            continue
        y = mix(m, layer, h)
        if m.traits.parallel:
            x = x + y + feed_forward(m, layer, h)
            continue
        x = x + residual * (m.norm(layer, y, "post_attention_norm", m.traits.post_eps) if post else y)
        y = feed_forward(m, layer, m.norm(layer, x, own_norm))
        x = x + residual * (m.norm(layer, y, "post_ffw_norm", m.traits.post_eps) if post else y)
    if trace is not None:
        trace.update(margin=m.margin, chosen=m.chosen)
    return unembed(m, x)


if __name__ == "__main__":
    tensors, meta = load(sys.argv[1])
    top = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    rows = log_probabilities(tensors, meta, [int(i) for i in sys.argv[2].split(",")])
    print(json.dumps([[[int(i), round(float(row[i]), 5)] for i in np.argsort(-row)[:top]] for row in rows]))
