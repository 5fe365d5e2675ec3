"""Importance matrices: sums of squares of what each matrix reads against reference.py, and quantize with them."""
import subprocess

import numpy as np
import pytest

from test_tiny import make_tiny, reference # which know where the tools are

gguf = make_tiny.gguf
pytestmark = pytest.mark.check
TEXT = "the quick brown fox jumps over the lazy dog. " * 3
# dense ones, with fused rows, experts with and without a shared one, latent attention with matrices by head, mixers
CASES = ["llama", "qwen3", "gemma3", "qwen3moe", "gpt-oss", "deepseek2", "lfm2moe", "qwen35moe", "granitehybrid"]


class Recorder(reference.Pass):
    """Keeps {name: {matrix: [sums, rows]}} of all that is multiplied."""
    seen = {}

    def record(self, layer, x, name, matrix):
        sums = Recorder.seen.setdefault(f"blk.{layer}.{name}.weight", {}).setdefault(matrix, [0, 0])
        sums[0] = sums[0] + np.square(x).reshape(-1, x.shape[-1]).sum(0)
        sums[1] += x.size // x.shape[-1]

    def matmul(self, layer, x, name):
        self.record(layer, x, name, 0)
        return super().matmul(layer, x, name)

    def matmul_of(self, layer, x, name, expert):
        self.record(layer, x, name, expert)
        return super().matmul_of(layer, x, name, expert)


def collect(command_json, path, out, text):
    text.write_text(TEXT, encoding="utf-8")
    return command_json("imatrix", path, "-f", text, out)


def entries(path):
    tensors = {t.name: t.data for t in gguf.GGUFReader(path).tensors}
    names = {name.removesuffix(".in_sum2") for name in tensors if name.endswith(".in_sum2")}
    assert len(tensors) == 2 * len(names)
    return {name: (tensors[name + ".in_sum2"], tensors[name + ".counts"]) for name in names}


@pytest.mark.parametrize("name", CASES)
def test_sums_against_reference(command_json, monkeypatch, tmp_path, name):
    path, out = tmp_path / "model.gguf", tmp_path / "imatrix.gguf"
    make_tiny.write(name, path)
    result = collect(command_json, path, out, tmp_path / "text")
    ids = command_json("tokenize", path, "-f", tmp_path / "text")["ids"]
    monkeypatch.setattr(reference, "Pass", Recorder)
    monkeypatch.setattr(Recorder, "seen", {})
    reference.log_probabilities(*reference.load(path), ids)
    ours, seen = entries(out), Recorder.seen
    assert result == {"entries": len(ours), "tokens": len(ids)}
    assert len(set(ours) & set(seen)) >= 5
    for tensor, matrices in seen.items():
        if tensor not in ours:
            continue
        sums, counts = ours[tensor]
        for matrix, (expected, rows) in matrices.items():
            assert counts.reshape(-1)[matrix] == rows, (tensor, matrix)
            np.testing.assert_allclose(sums.reshape(counts.size, -1)[matrix], expected, 1e-4, 1e-4 * np.mean(expected), str(tensor))
        for matrix in set(range(counts.size)) - set(matrices):
            assert not sums.reshape(counts.size, -1)[matrix].any() or counts.size != len(matrices)
    missing = {t for t in seen if t not in ours}
    assert not missing, missing


def test_quantize_with_it(binary, command_json, tmp_path):
    path, out, imatrix, plain = (tmp_path / f"{name}.gguf" for name in ("in", "out", "imatrix", "plain"))
    make_tiny.write("qwen3moe", path)
    collect(command_json, path, imatrix, tmp_path / "text")
    for to, extra in ((out, ["--imatrix", imatrix]), (plain, [])):
        done = subprocess.run([binary, "quantize", path, to, "q4_0", *extra], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0 and "importance" not in done.stderr, done.stderr
    weights = entries(imatrix)
    source, fitted, rounded = ({t.name: gguf.dequantize(t.data, t.tensor_type) for t in gguf.GGUFReader(f).tensors}
                               for f in (path, out, plain))
    better = 0
    for name, (sums, counts) in weights.items():
        worth = sums.reshape(counts.size, 1, -1)
        error = [np.sum(worth * np.square(x[name] - source[name]).reshape(counts.size, -1, sums.shape[-1])) for x in (fitted, rounded)]
        assert error[0] <= error[1]
        better += error[0] < 0.98 * error[1]
    assert better > len(weights) // 3


@pytest.mark.parametrize("data,says", [(b"", "empty"), (b"no gguf at all, but long enough to be one" * 10, "GGUF")])
def test_files_that_are_none(binary, tmp_path, data, says):
    make_tiny.write("llama", tmp_path / "in.gguf")
    (tmp_path / "bad.gguf").write_bytes(data)
    done = subprocess.run([binary, "quantize", tmp_path / "in.gguf", tmp_path / "out.gguf", "q4_0", "--imatrix", tmp_path / "bad.gguf"],
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and says in done.stderr and "bad.gguf" in done.stderr
    assert not (tmp_path / "out.gguf").exists()
