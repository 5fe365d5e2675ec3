#!/usr/bin/env python3
"""Writes tests/golden/quant_fixture.gguf: blocks of every weight type with what the PyPI package gguf makes of them.

For each type T: tensor "T" of random bits as blocks (scales kept finite and moderate) and "T.floats", its dequantisation;
for each type that can be written also "T.encoded", the blocks of tensor "encode.in". Needs numpy and gguf.
Usage: make_quant_fixture.py OUT.gguf
"""
import sys

import gguf
import numpy as np

ROWS, COLS = 2, 512
# Type -> byte offsets of the fp16 scales in a block: random bits there would be NaN or huge now and then.
SCALES = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
    "IQ4_NL": [0], "MXFP4": [], "F16": None, "BF16": None, "Q2_K": [80, 82], "Q3_K": [108], "IQ4_XS": [0], "NVFP4": [],
    "IQ1_S": [0], "IQ1_M": [], "IQ2_XXS": [0], "IQ2_XS": [0], "IQ2_S": [0], "IQ3_XXS": [0], "IQ3_S": [0], "TQ1_0": [52],
    "TQ2_0": [64], "Q1_0": [0], "Q2_0": [0],
}
NUMBERS = {"Q1_0": (41, 128, 18), "Q2_0": (42, 64, 18)} # types that the package does not dequantise, or does not know
ENCODED = ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]


def sizes(name):
    return NUMBERS[name][1:] if name in NUMBERS else gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]


def few_bits(data, name):
    """Q1_0 and Q2_0 as llama.cpp describes them: a scale, then bits (-1, 1) or pairs of bits (-1, 0, 1, 2), the first lowest."""
    _, block, size = NUMBERS[name]
    data = data.reshape(-1, size)
    scale = data[:, :2].copy().view("<f2").astype(np.float32)
    bits = np.unpackbits(data[:, 2:], axis=-1, bitorder="little").astype(np.float32)
    codes = bits * 2 - 1 if name == "Q1_0" else bits[:, 0::2] + 2 * bits[:, 1::2] - 1
    assert codes.shape[1] == block
    return scale * codes


def random_blocks(rng, name, scales):
    block, size = sizes(name)
    if name == "F16":  # every kind of number: subnormals, zeros, infinities; no NaN (it does not compare)
        bits = rng.integers(0, 0x7c01, (ROWS, COLS), dtype=np.uint16) | (rng.integers(0, 2, (ROWS, COLS), dtype=np.uint16) << 15)
        bits[0, :4] = [0x0001, 0x83ff, 0x7c00, 0xfc00]
        return bits.astype("<u2").view(np.uint8)
    if name == "BF16":
        return (rng.standard_normal((ROWS, COLS)).astype("<f4").view("<u4") >> 16).astype("<u2").view(np.uint8)
    data = rng.integers(0, 256, (ROWS, COLS // block, size), dtype=np.uint8)
    for at in scales:
        half = rng.uniform(-0.5, 0.5, (ROWS, COLS // block, 1)).astype("<f2")
        data[:, :, at:at + 2] = half.view(np.uint8)
    if name == "MXFP4":  # a power of two: every kind of it, the format's NaN (255) left out
        data[:, :, 0] = rng.integers(90, 150, (ROWS, COLS // block))
        data[0, 0, 0], data[0, 1, 0], data[0, 2, 0], data[0, 3, 0] = 0, 1, 2, 200
    if name == "IQ1_M":  # the scale's four nibbles in the tops of four words: of a moderate number, as above
        half = rng.uniform(-0.5, 0.5, (ROWS, COLS // block, 1)).astype("<f2").view("<u2")
        for i in range(4):
            data[:, :, 49 + 2 * i] = data[:, :, 49 + 2 * i] & 15 | ((half[:, :, 0] >> 4 * i & 15) << 4).astype(np.uint8)
    if name == "NVFP4":  # any byte is a scale; the highest bit is none of it, but the package does not take it off before it compares
        data[:, :, :4] &= 0x7f
        data[0, 0, :4] = [0, 1, 0x7e, 0x7f]
    return data.reshape(ROWS, -1)


def encode_input(rng):
    x = rng.standard_normal((ROWS, COLS)).astype(np.float32)
    x[0, :32] = 0  # a block without a scale
    x[0, 32:64] = np.arange(32) - 16  # many ties
    x[0, 64:96] = 3.25  # no spread
    x[0, 96:128] *= 1e-6  # subnormal scale
    return x


def main():
    rng = np.random.default_rng(20240607)
    writer = gguf.GGUFWriter(sys.argv[1], "fixture")
    for name, scales in SCALES.items():
        data = random_blocks(rng, name, scales)
        if name in NUMBERS:  # the package's writer takes no type that it has no name for: the number is set afterwards
            writer.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType.I8)
            writer.tensors[-1][name].dtype = NUMBERS[name][0]
            writer.tensors[-1][name].shape = (ROWS, COLS)
            writer.add_tensor(name + ".floats", few_bits(data, name).reshape(ROWS, COLS))
            continue
        kind = gguf.GGMLQuantizationType[name]
        if name == "F16":
            floats = data.view("<f2").astype(np.float32)
        else:
            floats = gguf.dequantize(data, kind)
        writer.add_tensor(name, data, raw_dtype=kind)
        writer.add_tensor(name + ".floats", floats.reshape(ROWS, COLS))
    x = encode_input(rng)
    writer.add_tensor("encode.in", x)
    for name in ENCODED:
        kind = gguf.GGMLQuantizationType[name]
        writer.add_tensor(name + ".encoded", gguf.quantize(x, kind).view(np.uint8).reshape(ROWS, -1), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


main()
