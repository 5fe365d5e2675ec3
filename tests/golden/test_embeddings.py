"""Models that make embeddings, whose tokens see each other in both directions, against reference.py and llama.cpp's recorded values."""
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from conftest import BINARY

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "tools")]
import make_tiny # noqa: E402
import reference # noqa: E402

RECORDED = json.loads((HERE / "tiny" / "embeddings.json").read_text(encoding="utf-8"))["cases"]
BETWEEN = 96 # features between the matrices behind the pooling


def dense(random, dim):
    return {"dense_2.weight": random.floats((BETWEEN, dim), 1 / np.sqrt(dim)), "dense_3.weight": random.floats((dim, BETWEEN), 1 / np.sqrt(BETWEEN))}


CASES = {
    "gemma-embedding": dict(keys={"pooling_type": 1}),
    "gemma-embedding-dense": dict(keys={"pooling_type": 1, "dense_2_feat_in": 64, "dense_2_feat_out": BETWEEN, "dense_3_feat_in": BETWEEN,
                                        "dense_3_feat_out": 64}, extra=dense(make_tiny.Random("dense"), 64)),
}
TOKENS = make_tiny.ids("gemma3")
TEXTS = [TOKENS, TOKENS[:1], TOKENS[:33]] # longer than a window and half of one, and shorter


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    def make(name, pooling=1, **changes):
        path, case = tmp_path_factory.mktemp("embedding") / "model.gguf", {**CASES[name], **changes}
        make_tiny.write("gemma3", path, arch="gemma-embedding", **{**case, "keys": {**case["keys"], "pooling_type": pooling}})
        return path

    return make


def embed(path, texts, device="cpu", cuts="", chunk=0):
    program = pathlib.Path(BINARY).resolve().parent / "tests" / "embed_values"
    if not program.exists():
        pytest.skip("embed_values was not built")
    run = subprocess.run([program, path, device, cuts, str(chunk), *(",".join(map(str, ids)) for ids in texts)], capture_output=True, text=True, timeout=60)
    return run.returncode, run.stderr, [np.array(line.split(), dtype=float) for line in run.stdout.splitlines()]


def check(path, name, device):
    tensors, meta = reference.load(path)
    code, errors, vectors = embed(path, TEXTS, device)
    assert code == 0 and len(vectors) == len(TEXTS), errors
    for i, (ids, vector) in enumerate(zip(TEXTS, vectors)):
        assert np.abs(vector - reference.embedding(tensors, meta, ids)).max() <= 2e-5
        # llama.cpp's GELU is a table of fp16
        assert np.abs(vector - RECORDED[name][i]).max() <= 1e-3


@pytest.mark.check
@pytest.mark.parametrize("name", CASES)
def test_embeddings(model, name, device):
    check(model(name), name, device)


@pytest.mark.check
@pytest.mark.parametrize("cuts", ["", "causal", "head,feature", "query", "row"])
@pytest.mark.parametrize("last", [False, True])
def test_two_lanes(model, cuts, last):
    """Heads and rows are divided, tokens are not: where no other cut is allowed, one lane computes the text."""
    path = model("gemma-embedding-dense", pooling=3 if last else 1)
    tensors, meta = reference.load(path)
    code, errors, vectors = embed(path, TEXTS, "cpu:cpus=0,cpu:cpus=1", cuts)
    assert code == 0 and len(vectors) == len(TEXTS), errors
    for ids, vector in zip(TEXTS, vectors):
        assert np.abs(vector - reference.embedding(tensors, meta, ids, last=last)).max() <= 2e-5


@pytest.mark.check
def test_both_directions_show(model):
    """A pass that saw earlier tokens only, or whole windows to either side, would be seen."""
    tensors, meta = reference.load(model("gemma-embedding"))
    exact = reference.embedding(tensors, meta, TOKENS)
    wider = {**meta, "gemma-embedding.attention.sliding_window": 2 * meta["gemma-embedding.attention.sliding_window"]}
    causal = {key.replace("gemma-embedding", "gemma3"): value for key, value in meta.items()} | {"general.architecture": "gemma3"}
    for other in (wider, causal):
        assert np.abs(reference.embedding(tensors, other, TOKENS) - exact).max() > 2e-2


@pytest.mark.check
def test_one_pass(model):
    path = model("gemma-embedding")
    code, errors, vectors = embed(path, [TOKENS[:64], TOKENS], chunk=64)
    assert code == 1 and len(vectors) == 1
    assert "80 tokens exceeds a pass of 64 tokens (chunk)" in errors and "gemma-embedding" in errors


@pytest.mark.check
@pytest.mark.parametrize("command", [["run", "--raw", "-p", "a"], ["score", "--ids", "1,2,3"], ["bench"]], ids=lambda c: c[0])
def test_no_text(model, command):
    run = subprocess.run([BINARY, command[0], model("gemma-embedding"), *command[1:]], capture_output=True, text=True, timeout=60)
    assert run.returncode != 0 and "gemma-embedding make embeddings" in run.stderr, run.stderr


@pytest.mark.check
def test_half_of_the_matrices(model):
    extra = {"dense_2.weight": np.ones((BETWEEN, 64), np.float32)}
    path = model("gemma-embedding", extra=extra)
    code, errors, _ = embed(path, TEXTS)
    assert code == 1 and "dense_" in errors, errors
