"""Exact forward passes of families whose layers are more than two blocks on one stream: Gemma 3n and Gemma 4, from their papers and
model cards. They take a reference.Pass and the embedded tokens [tokens, width], and return what the final norm reads."""
import numpy as np
from reference_experts import routes
from reference_ops import attention, gelu, rms_norm, rope, rope_table

SPARSE_LAYERS, SPARSITY = 10, 1.6448533535003662 # of Gemma 3n: a normal distribution's 0.95 is below that
KEEPING_LAYERS = 20 # of Gemma 3n: those behind read keys and values of the last layers of their own kind
PROPORTIONAL = True # Gemma 4's rope_freqs


def per_layer_inputs(m, ids, x):
    """[layers, tokens, values]: each layer's embedding of the token, and what is made of the ordinary one"""
    width = m.tensors["per_layer_proj_norm.weight"].shape[0]
    own = m.tensors["per_layer_token_embd.weight"][np.asarray(ids)].astype(np.float64) * np.sqrt(width)
    made = (x @ m.tensors["per_layer_model_proj.weight"].T / np.sqrt(m.dim)).reshape(len(ids), m.layers, width)
    made = rms_norm(made, m.tensors["per_layer_proj_norm.weight"], m.eps)
    return ((made + own.reshape(made.shape)) / np.sqrt(2)).transpose(1, 0, 2)


def plain_rms(x, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps)


def shared_attention(m, layer, h, kept, first_shared, head_dim, kv_heads, table):
    """Values are normed, scores are not scaled; from first_shared on keys and values are those of the last layer like this one"""
    n = len(h)
    split = lambda x: x.reshape(n, -1, head_dim)
    q = rope(m.norm(layer, split(m.matmul(layer, h, "attn_q")), "attn_q_norm"), table, True)
    if layer < first_shared:
        key = m.matmul(layer, h, "attn_k")
        value = m.matmul(layer, h, "attn_v") if f"blk.{layer}.attn_v.weight" in m.tensors else key
        k = m.cached(rope(m.norm(layer, split(key), "attn_k_norm"), table, True))
        kept[m.is_local[layer]] = k, m.cached(plain_rms(split(value), m.eps))
    k, v = kept[m.is_local[layer]]
    assert k.shape[1] == kv_heads
    return m.matmul(layer, attention(q, k, v, m.mask(layer), 1.0), "attn_output")


def feed_forward(m, layer, h, gates=lambda x: x):
    return m.matmul(layer, gelu(gates(m.matmul(layer, h, "ffn_gate"))) * m.matmul(layer, h, "ffn_up"), "ffn_down")


def of_side(m, layer, x, side):
    """what a layer makes of its own embedding"""
    y = m.matmul(layer, gelu(m.matmul(layer, x, "inp_gate")) * side[layer], "proj")
    return m.norm(layer, y, "post_norm")


# ---- Gemma 4

def tables(m):
    """of layers that see all tokens, and of those with a window"""
    wide, local = (m.get(f"rope.dimension_count{kind}") for kind in ("", "_swa"))
    freqs = m.tensors.get("rope_freqs.weight") if PROPORTIONAL else None
    return {False: rope_table(m.get, m.pos, wide, m.get("rope.freq_base"), True, freqs),
            True: rope_table(m.get, m.pos, local, m.get("rope.freq_base_swa"), False, None)}


def both(m, layer, x):
    """an ordinary block and experts side by side"""
    dense = m.norm(layer, feed_forward(m, layer, m.norm(layer, x, "ffn_norm")), "post_ffw_norm_1")
    scores = plain_rms(x, m.eps) / np.sqrt(m.dim) * m.tensors[f"blk.{layer}.ffn_gate_inp.scale"]
    chosen, weights = routes(m, layer, scores)
    m.chosen[layer] = chosen
    h, out = m.norm(layer, x, "pre_ffw_norm_2"), np.zeros(x.shape)
    scale = m.tensors.get(f"blk.{layer}.ffn_down_exps.scale", np.ones(m.get("expert_count")))
    for expert in range(m.get("expert_count")):
        tokens, rank = np.nonzero(chosen == expert)
        if f"blk.{layer}.ffn_gate_up_exps.weight" in m.tensors:
            gate, up = np.split(m.matmul_of(layer, h[tokens], "ffn_gate_up_exps", expert), 2, -1)
        else:
            gate, up = (m.matmul_of(layer, h[tokens], f"ffn_{name}_exps", expert) for name in ("gate", "up"))
        y = m.matmul_of(layer, gelu(gate) * up, "ffn_down_exps", expert)
        out[tokens] += y * weights[tokens, rank][:, None] * scale[expert]
    return dense + m.norm(layer, out, "post_ffw_norm_2")


def gemma4(m, ids, x):
    side = per_layer_inputs(m, ids, x) if "per_layer_token_embd.weight" in m.tensors else None
    first_shared, turns, kept = m.layers - m.get("attention.shared_kv_layers", 0), tables(m), {}
    heads = m.get("attention.head_count_kv")
    for layer in range(m.layers):
        local = m.is_local[layer]
        head_dim = m.get("attention.key_length_swa") if local else m.head_dim
        y = shared_attention(m, layer, m.norm(layer, x, "attn_norm"), kept, first_shared, head_dim,
                             heads if isinstance(heads, int) else heads[layer], turns[local])
        x = x + m.norm(layer, y, "post_attention_norm")
        if f"blk.{layer}.ffn_gate_inp.weight" in m.tensors:
            y = both(m, layer, x)
        else:
            y = feed_forward(m, layer, m.norm(layer, x, "ffn_norm"))
        x = x + m.norm(layer, y, "post_ffw_norm")
        if side is not None:
            x = x + of_side(m, layer, x, side)
        x = x * m.tensors.get(f"blk.{layer}.layer_output_scale.weight", 1.0)
    return x


# ---- Gemma 3n

def length(x):
    return np.sqrt((x * x).sum(-1, keepdims=True))


def modalities(m, layer, x):
    """what AltUp's router says of a row"""
    return np.tanh(m.norm(layer, x, "altup_router_norm") / m.dim @ m.weight(layer, "altup_router").T)


def predict(m, layer, streams):
    n = len(streams)
    coefs = modalities(m, layer, streams[0]) @ m.weight(layer, "altup_predict_coef").T
    return streams + np.einsum("tij,jtd->itd", coefs.reshape(-1, n, n), streams)


def correct(m, layer, predictions, active):
    coefs = modalities(m, layer, active) @ m.weight(layer, "altup_correct_coef").T + 1
    return predictions + (active - predictions[0])[None] * coefs.T[..., None]


def sparse(gates):
    """of each row what is above its mean by so many deviations"""
    return np.maximum(gates - gates.mean(-1, keepdims=True) - SPARSITY * gates.std(-1, ddof=1, keepdims=True), 0)


def gemma3n(m, ids, x):
    side, kept = per_layer_inputs(m, ids, x), {}
    others = np.stack([x @ w.T for w in m.tensors["altup_proj.weight"]])
    streams = np.concatenate([x[None], others * (length(x) / length(others))])
    heads = m.get("attention.head_count_kv")
    for layer in range(m.layers):
        predictions = predict(m, layer, streams)
        active = predictions[0]
        h = m.norm(layer, active, "attn_norm")
        laurel = h + m.norm(layer, m.matmul(layer, m.matmul(layer, h, "laurel_l"), "laurel_r"), "laurel_post_norm")
        table = m.local if m.is_local[layer] else m.wide
        y = shared_attention(m, layer, h, kept, KEEPING_LAYERS, m.head_dim, heads, table)
        mixed = (active + m.norm(layer, y, "post_attention_norm") + laurel) / np.sqrt(2)
        gates = sparse if layer < SPARSE_LAYERS else lambda x: x
        y = feed_forward(m, layer, m.norm(layer, mixed, "ffn_norm"), gates)
        streams = correct(m, layer, predictions, mixed + m.norm(layer, y, "post_ffw_norm"))
        first = of_side(m, layer, streams[0] * m.weight(layer, "altup_correct_scale"), side)
        streams = np.concatenate([streams[:1], streams[1:] + first])
    others = np.stack([s @ w.T for s, w in zip(streams[1:], m.tensors["altup_unembd_proj.weight"])])
    return (streams[0] + (others * (length(streams[0]) / length(others))).sum(0)) / len(streams)


BODIES = {"gemma4": gemma4, "gemma3n": gemma3n}
