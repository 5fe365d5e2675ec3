#!/usr/bin/env python3
"""Tiny GGUF models with random weights, one for each thing that can go wrong: families, features, weight types.

usage: make_tiny.py FOLDER [NAME ...]     writes FOLDER/NAME.gguf, all of CASES unless named
       make_tiny.py --ids NAME            prints the ids the tests feed it
Needs the PyPI packages gguf and numpy. The same bytes everywhere: weights come from a counter-based generator of our own
(splitmix64, Steele et al. 2014), not from a library that may change.
"""
import sys
from pathlib import Path

import gguf
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import tiny_dense # noqa: E402
import tiny_experts # noqa: E402
import tiny_families # noqa: E402
import tiny_hybrids # noqa: E402
from reference_ops import llama3_divisors # noqa: E402

Type = gguf.GGMLQuantizationType

SMALL = dict(layers=2, embedding=64, heads=4, kv_heads=2, head_dim=16, feed_forward=128, context=256, tokens=48)
WIDE = dict(SMALL, embedding=256, heads=4, kv_heads=2, head_dim=64, feed_forward=512) # K-quants have blocks of 256
GEMMA = dict(SMALL, arch="gemma3", layers=7, head_dim=32, tied=True, tokenizer="llama", window=16, base=1e6, tokens=80)
SCALED = dict(SMALL, head_dim=32, heads=4, tokens=80) # 80 tokens go past an original context of 32
LLAMA3 = dict(type="llama3", factor=8.0, original_context_length=32, low_freq_factor=1.0, high_freq_factor=4.0)

# What no quantiser touches: routers, kernels of convolutions, norms with weights for each head or group.
ALWAYS_F32 = {"ffn_gate_inp", "altup_router", "altup_correct_coef", "altup_predict_coef", "conv", "ssm_conv1d", "ssm_norm", "attn_q_norm", "attn_k_norm"}

# name -> options. "weights": draws the same weights as that case. "seed": others than without. recorded=False: llama.cpp cannot
# read it.
CASES = {
    "llama": dict(SMALL),
    "llama-tied": dict(SMALL, kv_heads=4, tied=True, tokenizer="llama"),
    "llama-bias": dict(SMALL, biases=("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")),
    "llama-odd": dict(SMALL, layers=3, embedding=72, heads=6, kv_heads=3, head_dim=12, feed_forward=100),
    "llama-linear": dict(SCALED, scaling=dict(type="linear", factor=4.0, original_context_length=32)),
    "llama-freqs": dict(SCALED, base=500000.0, freqs=LLAMA3),
    "llama-llama3": dict(SCALED, base=500000.0, scaling=LLAMA3, weights="llama-freqs", recorded=False),
    "llama-yarn": dict(SCALED, scaling=dict(type="yarn", factor=4.0, original_context_length=32)),
    "qwen2": dict(SMALL, arch="qwen2", biases=("attn_q", "attn_k", "attn_v"), base=1e6),
    "qwen2-yarn": dict(SCALED, arch="qwen2", tied=True, biases=("attn_q", "attn_k", "attn_v"), embedding=128,
                       scaling=dict(type="yarn", factor=8.0, original_context_length=16, attn_factor=1.1)),
    "qwen3": dict(SMALL, arch="qwen3", head_dim=32, tied=True, base=1e6), # heads * head_dim is not the embedding
    "qwen3-untied": dict(SMALL, arch="qwen3", embedding=96, heads=6, kv_heads=2, base=1e6),
    "gemma3": dict(GEMMA),
    "gemma3-linear": dict(GEMMA, layers=8, pattern=3, kv_heads=1, scaling=dict(type="linear", factor=8.0)),
    "gemma3-global": dict(GEMMA, layers=2, window=0),
    "internlm2": dict(SMALL, arch="internlm2", tokenizer="llama", base=1e6),
    **{f"llama-{t.name.lower()}": dict(WIDE, type=t, recorded=False) for t in (
        Type.F16, Type.BF16, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0, Type.Q4_K, Type.Q5_K, Type.Q6_K,
        Type.IQ4_NL)},
    # one matmul's parts in different types, as mixtures like Q4_K_M have them
    "llama-mixed": dict(WIDE, type=Type.Q4_0, recorded=False, types=dict(
        attn_q=Type.Q4_K, attn_k=Type.Q5_0, attn_v=Type.Q6_K, attn_output=Type.F16, ffn_up=Type.Q8_0, ffn_down=Type.Q6_K,
        token_embd=Type.Q8_0, output=Type.BF16)),
    "gemma3-mixed": dict(GEMMA, embedding=256, head_dim=64, feed_forward=256, type=Type.Q4_K, recorded=False, types=dict(
        attn_v=Type.Q5_0, ffn_gate=Type.IQ4_NL, ffn_down=Type.Q6_K, token_embd=Type.Q8_0)),
    **tiny_families.FAMILIES,
    **tiny_hybrids.HYBRIDS,
    **tiny_dense.CASES,
    **tiny_experts.FAMILIES,
    # as real files are; llama.cpp rounds what it multiplies with such blocks to 8 bits
    "gpt-oss-mxfp4": dict(tiny_families.FAMILIES["gpt-oss"], seed=" 1", recorded=False, types=dict.fromkeys(
        ("ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"), Type.MXFP4)),
}


class Random:
    """uniform numbers that depend on nothing but the seed and how many were drawn"""

    def __init__(self, name):
        self.state = np.uint64(int.from_bytes(name.encode()[:8].ljust(8), "little") * 31 + len(name) & (1 << 64) - 1)
        for c in name.encode():
            self.bits(c + 1)

    def bits(self, n):
        with np.errstate(over="ignore"):
            z = self.state + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
            self.state = z[-1]
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            return z ^ (z >> np.uint64(31))

    def floats(self, shape, deviation, mean=0.0):
        uniform = (self.bits(int(np.prod(shape))) >> np.uint64(40)).astype(np.float64).reshape(shape) / 2 ** 24 - 0.5
        return (mean + deviation * np.sqrt(12) * uniform).astype(np.float32)

    def bytes(self, n, limit=256):
        return (self.bits(n) >> np.uint64(33)).astype(np.int64) % limit


def random_blocks(random, kind, rows, cols, deviation):
    """valid blocks of a type that the gguf package reads but does not write; codes uniform, scales positive"""
    fields = { # bytes of the block before and after the fp16 factors, and the factors for weights of deviation 1
        Type.Q4_K: (0, 140, (0.0042, 0.0315)), Type.Q5_K: (0, 172, (0.0020, 0.0315)),
        Type.Q6_K: (208, 0, (0.0031,)), Type.IQ4_NL: (0, 16, (0.0145,))}
    before, after, factors = fields[kind]
    n = rows * cols // gguf.GGML_QUANT_SIZES[kind][0]
    codes = random.bytes(n * (before + after)).astype(np.uint8).reshape(n, before + after)
    if kind == Type.Q6_K: # int8 scales: keep them small enough that the fp16 factor is a normal number
        codes[:, 192:208] = (random.bytes(n * 16, 63) - 31).astype(np.int8).view(np.uint8).reshape(n, 16)
    jitter = random.floats((n, len(factors)), 0.2, 1.0)
    scale = (np.array(factors) * deviation * jitter).astype("<f2").view(np.uint8)
    return np.concatenate([codes[:, :before], scale, codes[:, before:]], 1).reshape(rows, -1)


def byte_characters():
    """the printable character GPT-2's byte-level BPE writes for each byte"""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in plain]
    return [chr(b) if b in plain else chr(256 + rest.index(b)) for b in range(256)]


MERGES = ["t h", "th e", "Ġ the", "i n", "a n", "an d", "Ġ and", "o u", "e r", "Ġ a", "r e", "o n", "Ġ i", "Ġi n", "l l",
          "e n", "Ġ w", "i s", "a t", "o r", "e s", "Ġ o", "Ġo f", "i t", "Ġ c", "in g", "e d", "a l", "Ġ m", "Ġ p"]


def add_tokenizer(writer, kind, arch):
    """A small but whole tokenizer; returns its tokens. Kind None writes none of it, kind "t5" one that the engine does not know."""
    if kind == "gpt2":
        tokens = byte_characters() + [m.replace(" ", "") for m in MERGES] + ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
        special = len(tokens) - 3
        types = [gguf.TokenType.NORMAL] * special + [gguf.TokenType.CONTROL] * 3
        writer.add_tokenizer_pre("qwen2" if arch.startswith("qwen") else "llama-bpe")
        writer.add_token_merges(MERGES)
        bos, eos = special, special + 2
    else:
        pieces = ["▁", "e", "t", "a", "o", "▁t", "he", "▁the", "in", "▁a", "h", "n", "i", "s", "r", "re", "on", "nd", "d", "▁and",
                  "and", "an", "l", "u", "c", "m", "f", "w", "p", "g", "y", "b", "▁w"]
        tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)] + pieces
        types = [gguf.TokenType.UNKNOWN] + [gguf.TokenType.CONTROL] * 2 + [gguf.TokenType.BYTE] * 256
        types += [gguf.TokenType.NORMAL] * len(pieces)
        if kind is not None:
            writer.add_token_scores([0.0] * 259 + [float(-i) for i in range(len(pieces))])
            writer.add_unk_token_id(0)
        bos, eos = 1, 2
    if kind is None:
        return tokens
    writer.add_tokenizer_model(kind)
    writer.add_token_list(tokens)
    writer.add_token_types([int(t) for t in types])
    writer.add_bos_token_id(bos)
    writer.add_eos_token_id(eos)
    writer.add_add_bos_token(kind == "llama")
    return tokens


def add_hyperparameters(writer, arch, o, changed):
    writer.add_block_count(o["layers"])
    writer.add_context_length(o["context"])
    writer.add_embedding_length(o["embedding"])
    writer.add_feed_forward_length(o["feed_forward"])
    writer.add_head_count(o["heads"])
    writer.add_head_count_kv(o["kv_heads"])
    writer.add_key_length(o["head_dim"])
    writer.add_value_length(o.get("value_dim", o["head_dim"]))
    writer.add_rope_dimension_count(o.get("rope_dim", o["head_dim"]))
    if o.get("eps", 1e-6) is not None:
        writer.add_layer_norm_rms_eps(o.get("eps", 1e-6))
    writer.add_rope_freq_base(o.get("base", 10000.0))
    if o.get("window"):
        writer.add_sliding_window(o["window"])
    if o.get("pattern"):
        writer.add_uint32(f"{arch}.attention.sliding_window_pattern", o["pattern"])
    for key in o.get("without", ()):
        writer.kv_data[0].pop(f"{arch}.{key}", None)
    more = {f"rope.scaling.{key}": value for key, value in o.get("scaling", {}).items()} | o.get("keys", {})
    adders = {str: writer.add_string, bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32,
              list: writer.add_array}
    for key, value in more.items():
        if key in changed or key not in o.get("without", ()):
            adders[type(value)](f"{arch}.{key}", value)


def tensor_shapes(arch, o, vocabulary):
    """(name, shape, deviation, mean): [rows, cols] matrices, [n] norms and biases"""
    if "expert_count" in o.get("keys", {}) and arch in tiny_experts.ARCHS:
        yield from tiny_experts.tensors(arch, o, vocabulary)
        return
    if arch in {case["arch"] for case in tiny_families.FAMILIES.values()}:
        yield from tiny_families.tensors(arch, o, vocabulary)
        return
    if arch in tiny_hybrids.ARCHS:
        yield from tiny_hybrids.tensors(arch, o, vocabulary)
        return
    if arch in {case["arch"] for case in tiny_dense.CASES.values()}:
        yield from tiny_dense.tensors(arch, o, vocabulary)
        return
    dim, q, kv, ff = o["embedding"], o["heads"] * o["head_dim"], o["kv_heads"] * o["head_dim"], o["feed_forward"]
    gemma = arch in ("gemma3", "gemma-embedding")
    matrices = dict(attn_q=(q, dim), attn_k=(kv, dim), attn_v=(kv, dim), attn_output=(dim, q), ffn_gate=(ff, dim),
                    ffn_up=(ff, dim), ffn_down=(dim, ff))
    norms = dict(attn_norm=dim, ffn_norm=dim)
    if arch == "qwen3" or gemma:
        norms.update(attn_q_norm=o["head_dim"], attn_k_norm=o["head_dim"])
    if gemma:
        norms.update(post_attention_norm=dim, post_ffw_norm=dim)
    # The residual stream starts with a spread of 1 and ends in logits of 1: about as steep as a real model, and no steeper,
    # because an error of the fp16 KV cache grows with it and recorded values are compared within 1e-3.
    narrow = 1.0 / np.sqrt(dim)
    yield "token_embd.weight", (vocabulary, dim), narrow if gemma else 1.0, 0.0
    for layer in range(o["layers"]):
        for name, shape in matrices.items():
            gain = 1.5 if name in ("attn_q", "attn_k") else 1.0
            yield f"blk.{layer}.{name}.weight", shape, gain / np.sqrt(max(shape[1], 1)), 0.0
            if name in o.get("biases", ()):
                yield f"blk.{layer}.{name}.bias", shape[:1], 0.3, 0.0
        for name, n in norms.items():
            yield f"blk.{layer}.{name}.weight", (n,), 0.2, 0.3 if name == "post_ffw_norm" else 1.0
    scale = narrow if o.get("tied") and not gemma else 1.0
    yield "output_norm.weight", (dim,), 0.2 * scale, scale
    if not o.get("tied"):
        yield "output.weight", (vocabulary, dim), narrow, 0.0


def write(name, path, arch=None, shapes=(), **changes):
    """Writes the file of case `name`. For broken ones: another architecture's name, {tensor: shape or None for none},
    and changed options: among them edits, {tensor: what changes its values or blocks in place}."""
    o, shapes = {**CASES[name], **changes}, dict(shapes)
    arch, random = arch or o.get("arch", "llama"), Random(o.get("weights", name) + o.get("seed", ""))
    writer = gguf.GGUFWriter(path, arch)
    writer.add_name(f"tiny {name}")
    add_hyperparameters(writer, arch, o, changes.get("keys", ()))
    vocabulary = len(add_tokenizer(writer, o.get("tokenizer", "gpt2"), arch))
    for full, shape, deviation, mean in tensor_shapes(arch, o, vocabulary):
        shape = shapes.get(full, shape)
        if shape is None:
            continue
        short = full.removesuffix(".weight").split(".")[-1]
        blocks = len(shape) > 1 and full.endswith(".weight") and short not in ALWAYS_F32
        kind = o.get("types", {}).get(short, o.get("type", Type.F32)) if blocks else Type.F32
        if kind in (Type.Q4_K, Type.Q5_K, Type.Q6_K, Type.IQ4_NL):
            writer.add_tensor(full, random_blocks(random, kind, *shape, deviation), raw_dtype=kind)
            continue
        values = gguf.quantize(random.floats(shape, deviation, mean), kind)
        if full in o.get("edits", {}):
            o["edits"][full](values)
        writer.add_tensor(full, values, raw_dtype=kind)
    if "freqs" in o:
        freq = o["base"] ** (-np.arange(0, o["head_dim"], 2) / o["head_dim"])
        rule = [o["freqs"][k] for k in ("original_context_length", "factor", "low_freq_factor", "high_freq_factor")]
        writer.add_tensor("rope_freqs.weight", llama3_divisors(freq, *rule).astype(np.float32))
    for full, values in o.get("extra", {}).items(): # tensors that no operator reads
        writer.add_tensor(full, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def ids(name):
    """the token ids the tests feed to case `name`: ordinary tokens, some of them several times"""
    return [int(i) for i in Random(CASES[name].get("weights", name) + " ids").bytes(CASES[name]["tokens"], 250)]


def main():
    if sys.argv[1:2] == ["--ids"]:
        print(",".join(map(str, ids(sys.argv[2]))))
        return
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[2:] or CASES:
        write(name, folder / f"{name}.gguf")


if __name__ == "__main__":
    main()
