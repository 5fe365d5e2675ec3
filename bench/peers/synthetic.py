"""Write a GGUF with the layers of a known model, random weights and a borrowed vocabulary.

A speed test needs the shapes of a model, not its knowledge. The tokenizer comes from a small real file, so that both
engines load the result like any other model. Weights are normal with deviation 0.02, in F16, from a fixed seed; they
are drawn and written one tensor at a time, so memory stays at one tensor however large the model.
"""
import argparse
import os
import pathlib
import sys

import gguf
import numpy as np

# Layers as published for each model; the vocabulary is the donor's. heads * head_dim need not equal width.
SHAPES = {
    "1B": dict(name="Llama-3.2-1B layers", layers=16, width=2048, heads=32, kv_heads=8, head_dim=64, ffn=8192,
               rope_base=500000.0, eps=1e-5, context=8192),
    # Small enough for a test of this script.
    "tiny": dict(name="tiny", layers=2, width=256, heads=4, kv_heads=2, head_dim=64, ffn=512,
                 rope_base=10000.0, eps=1e-5, context=2048),
}


def tensors(shape, vocab):
    """Yield (name, shape as numpy sees it: rows first) in file order; one-dimensional ones are norms."""
    width, ffn = shape["width"], shape["ffn"]
    q, kv = shape["heads"] * shape["head_dim"], shape["kv_heads"] * shape["head_dim"]
    yield "token_embd.weight", (vocab, width)
    for i in range(shape["layers"]):
        yield f"blk.{i}.attn_norm.weight", (width,)
        yield f"blk.{i}.attn_q.weight", (q, width)
        yield f"blk.{i}.attn_k.weight", (kv, width)
        yield f"blk.{i}.attn_v.weight", (kv, width)
        yield f"blk.{i}.attn_output.weight", (width, q)
        yield f"blk.{i}.ffn_norm.weight", (width,)
        yield f"blk.{i}.ffn_gate.weight", (ffn, width)
        yield f"blk.{i}.ffn_up.weight", (ffn, width)
        yield f"blk.{i}.ffn_down.weight", (width, ffn)
    yield "output_norm.weight", (width,)


def copy_tokenizer(writer, donor):
    """Copy every tokenizer key of the donor as it is; return the size of its vocabulary."""
    for key, field in donor.fields.items():
        if key.startswith("tokenizer."):
            kind = field.types[0]
            item = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(key, field.contents(), kind, sub_type=item)
    return len(donor.fields["tokenizer.ggml.tokens"].data)


def values(rng, dims):
    """Norm weights are ones in F32 (as converters write them), matrices are F16."""
    if len(dims) == 1:
        return np.ones(dims, dtype=np.float32)
    data = rng.standard_normal(dims, dtype=np.float32)
    data *= np.float32(0.02)
    return data.astype(np.float16)


def write_model(out, shape, donor_path, seed=1):
    """Write one model; the file appears under its name only when it is whole."""
    donor = gguf.GGUFReader(donor_path)
    partial = out.with_name(out.name + ".partial")
    writer = gguf.GGUFWriter(partial, "llama")
    writer.add_name(shape["name"] + ", random weights")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_block_count(shape["layers"])
    writer.add_context_length(shape["context"])
    writer.add_embedding_length(shape["width"])
    writer.add_feed_forward_length(shape["ffn"])
    writer.add_head_count(shape["heads"])
    writer.add_head_count_kv(shape["kv_heads"])
    writer.add_key_length(shape["head_dim"])
    writer.add_value_length(shape["head_dim"])
    writer.add_rope_dimension_count(shape["head_dim"])
    writer.add_rope_freq_base(shape["rope_base"])
    writer.add_layer_norm_rms_eps(shape["eps"])
    vocab = copy_tokenizer(writer, donor)
    writer.add_vocab_size(vocab)

    todo = list(tensors(shape, vocab))
    for name, dims in todo:
        dtype = np.dtype(np.float32 if len(dims) == 1 else np.float16)
        writer.add_tensor_info(name, dims, dtype, int(np.prod(dims)) * dtype.itemsize)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    rng = np.random.default_rng(seed)
    for done, (name, dims) in enumerate(todo, 1):
        writer.write_tensor_data(values(rng, dims))
        if sys.stderr.isatty():
            print(f"\r{out.name}: {done}/{len(todo)} tensors", end="", file=sys.stderr)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    writer.close()
    os.replace(partial, out)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="1B")
    parser.add_argument("--donor", type=pathlib.Path, default=pathlib.Path("models/SmolLM2-135M-Instruct.Q4_1.gguf"),
                        help="GGUF whose vocabulary and tokenizer are copied")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_model(args.out, SHAPES[args.shape], args.donor, args.seed)


if __name__ == "__main__":
    main()
