#!/usr/bin/env python3
"""Write GGUF files with the layers of mixtures of experts and hybrids, random Q4_0 weights and a small vocabulary.

usage: families.py FOLDER [NAME ...]     writes FOLDER/NAME.gguf, all of SHAPES unless named

Shapes and tensors are those of the tests' tiny models (tests/tools/tiny_families.py), larger. Codes are drawn from a
fixed seed; the router's rows are random, too, so experts are chosen about evenly.
"""
import argparse
import pathlib
import sys

import gguf
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tests" / "tools"))
import make_tiny  # noqa: E402
import tiny_families  # noqa: E402

SMALL = dict(layers=30, embedding=576, heads=9, kv_heads=3, head_dim=64, feed_forward=1536, context=8192, base=1e6, tied=True,
             tokenizer="gpt2")
SHAPES = {
    # Qwen3-30B-A3B's layers; eight of its 48
    "qwen3-30b-a3b": dict(SMALL, arch="qwen3moe", layers=8, embedding=2048, heads=32, kv_heads=4, head_dim=128, feed_forward=6144,
                          tied=False, experts=128,
                          keys={"expert_count": 128, "expert_used_count": 8, "expert_feed_forward_length": 768}),
    # as large as SmolLM2: a convolution in three layers of four
    "lfm2": dict(SMALL, arch="lfm2", kv_heads=[3 if i % 4 == 3 else 0 for i in range(30)], keys={"shortconv.l_cache": 3}),
    "qwen35": dict(SMALL, arch="qwen35", heads=8, kv_heads=2, rope_dim=32, layers=32,
                   keys={"ssm.conv_kernel": 4, "ssm.state_size": 64, "ssm.group_count": 8, "ssm.time_step_rank": 16,
                         "ssm.inner_size": 1024, "rope.dimension_sections": [11, 11, 10, 0], "full_attention_interval": 4}),
}


def q4_0(rng, shape, deviation):
    """Random blocks: codes uniform over -8..7, one scale."""
    blocks = int(np.prod(shape)) // 32
    data = np.empty((blocks, 18), dtype=np.uint8)
    data[:, :2] = np.array([deviation / 4.6], dtype=np.float16).view(np.uint8)
    data[:, 2:] = np.frombuffer(rng.bytes(blocks * 16), dtype=np.uint8).reshape(blocks, 16)
    return data.reshape(*shape[:-1], shape[-1] // 32 * 18)


def write(name, path, seed=1):
    o = SHAPES[name]
    rng, arch = np.random.default_rng(seed), o["arch"]
    writer = gguf.GGUFWriter(path, arch)
    writer.add_name(f"{name} layers, random weights")
    make_tiny.add_hyperparameters(writer, arch, o, ())
    vocabulary = len(make_tiny.add_tokenizer(writer, o["tokenizer"], arch))
    for full, shape, deviation, mean in tiny_families.tensors(arch, o, vocabulary):
        if len(shape) > 1 and shape[-1] % 32 == 0 and "conv" not in full.split(".")[-2]:
            writer.add_tensor(full, q4_0(rng, shape, deviation), raw_dtype=gguf.GGMLQuantizationType.Q4_0)
        else:
            values = (mean + deviation * rng.standard_normal(shape)).astype(np.float32)
            writer.add_tensor(full, -np.abs(values) if full.endswith("ssm_a") else values) # states decay
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("names", nargs="*", choices=[[], *SHAPES], default=[])
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    for name in args.names or SHAPES:
        write(name, args.folder / f"{name}.gguf")


if __name__ == "__main__":
    main()
