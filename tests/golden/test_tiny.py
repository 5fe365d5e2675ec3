"""Every family, feature and weight type on tiny models with random weights (tools/make_tiny.py), in all ways of feeding
tokens and on every instruction set.

Three yardsticks:
- reference.py with keys and values rounded to fp16, as the engine's cache holds them. What is left is float32's noise, and
  now and then a value that it tips over a rounding boundary of fp16: 5e-4 at most was seen, 1e-3 is allowed.
- llama.cpp's values, recorded with a float32 cache (tiny/README.md). The cost of our fp16 cache, known for every value from
  reference.py, is taken off first; 1e-3 is allowed. llama.cpp's own GELU costs Gemma 7e-4 of it.
- the same without taking anything off, to know that the cache's cost itself stays small: 2.6e-3 was seen, 4e-3 is allowed.
"""
import json
import pathlib
import sys

import numpy as np
import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "tools"), str(HERE / "tiny")]
import make_tiny # noqa: E402
import record # noqa: E402
import reference # noqa: E402

RECORDED = json.loads((HERE / "tiny" / "recorded.json").read_text(encoding="utf-8"))["cases"]
BOUND, BOUND_WITH_CACHE = 1e-3, 4e-3
TOP = 64


class Case:
    def __init__(self, name, folder):
        self.ids, self.path = make_tiny.ids(name), folder / f"{name}.gguf"
        make_tiny.write(name, self.path)
        self.tensors, self.meta = reference.load(self.path)
        self.exact = reference.log_probabilities(self.tensors, self.meta, self.ids)
        self.cached = reference.log_probabilities(self.tensors, self.meta, self.ids, kv_type=np.float16)


@pytest.fixture(scope="session")
def case(tmp_path_factory):
    made = {}

    def make(name):
        if name not in made:
            made[name] = Case(name, tmp_path_factory.mktemp("tiny"))
        return made[name]

    return make


def rotated(names, first=0):
    """Parameters "name,chunk": a way of feeding tokens for each name in turn, the others for `make soak`."""
    chunks = [0, 16, 1]
    return pytest.mark.parametrize("name,chunk", [
        pytest.param(name, chunk, marks=() if (i + first) % len(chunks) == k else pytest.mark.soak)
        for i, name in enumerate(names) for k, chunk in enumerate(chunks)])


@pytest.mark.check
@rotated(make_tiny.CASES)
def test_engine(score, case, name, device, chunk):
    check_engine(score, case(name), name, device, chunk)


def check_engine(score, c, name, device, chunk):
    logprobs, top = score(c.path, c.ids, "exact", top=TOP, chunk=chunk, device=device)
    n = len(c.ids)
    along = np.array(logprobs[1:])
    path = (np.arange(n - 1), np.array(c.ids[1:])) # where the given tokens' values lie in [position, token]
    assert np.abs(along - c.cached[path]).max() <= BOUND
    for i, row in enumerate(top):
        tokens = np.array(list(row))
        assert np.abs(np.array(list(row.values())) - c.cached[i, tokens]).max() <= BOUND
        # the best tokens, best first, but for ties nearer than the noise
        assert (np.sort(-c.cached[i])[:TOP] + c.cached[i, tokens]).max() <= 2 * BOUND
    if name not in RECORDED:
        return
    known = RECORDED[name]
    cost = c.cached - c.exact # of the fp16 cache
    assert np.abs(along - cost[path] - known["path"]).max() <= BOUND
    assert np.abs(along - known["path"]).max() <= BOUND_WITH_CACHE
    for position, best in known["top"].items():
        i = int(position)
        for token, value in best:
            assert abs(top[i][token] - cost[i, token] - value) <= BOUND
            assert abs(top[i][token] - value) <= BOUND_WITH_CACHE


@pytest.mark.check
@rotated(RECORDED, first=1)
def test_llama_cpp(case, score, name, device, chunk):
    """With a float32 cache, as llama.cpp's values were recorded: nothing to take off."""
    check_llama_cpp(score, case(name), RECORDED[name], device, chunk)


def check_llama_cpp(score, c, known, device, chunk):
    logprobs, top = score(c.path, c.ids, "exact", top=TOP, chunk=chunk, device=device, kv="f32")
    assert np.abs(np.array(logprobs[1:]) - known["path"]).max() <= BOUND
    for position, best in known["top"].items():
        for token, value in best:
            assert abs(top[int(position)][token] - value) <= BOUND


@pytest.mark.check
@pytest.mark.parametrize("name", RECORDED)
def test_reference(case, name):
    """The oracle itself against llama.cpp, both without rounding of keys and values."""
    c, known = case(name), RECORDED[name]
    assert known["weights"] == record.fingerprint(c.path), "the file is not the one that was recorded: see tiny/README.md"
    assert known["ids"] == c.ids
    assert np.abs(c.exact[np.arange(len(c.ids) - 1), c.ids[1:]] - known["path"]).max() <= BOUND
    for position, best in known["top"].items():
        for token, value in best:
            assert abs(c.exact[int(position), token] - value) <= BOUND


@pytest.mark.check
def test_llama3_keys_are_the_tensor(case):
    """Llama 3.1's scaling by keys and by rope_freqs.weight is the same model."""
    assert np.abs(case("llama-llama3").exact - case("llama-freqs").exact).max() < 1e-5


# What a case is there for, and a model without it.
FEATURES = {
    "llama-linear": {"rope.scaling.factor": 1.0}, "llama-llama3": {"rope.scaling.type": "none"},
    "llama-yarn": {"rope.scaling.type": "linear"}, "qwen2-yarn": {"rope.scaling.attn_factor": 1.0},
    "gemma3": {"attention.sliding_window": 17}, "gemma3-linear": {"rope.scaling.factor": 1.0},
    "gemma3-global": {"rope.freq_base": 10000.0}, "internlm2": {"rope.freq_base": 10000.0}}


@pytest.mark.check
@pytest.mark.parametrize("name", FEATURES)
def test_features_show(case, name):
    """A model without the feature is so far off that the bounds above would catch it: else the case tests nothing."""
    c = case(name)
    arch = c.meta["general.architecture"]
    without = {**c.meta, **{f"{arch}.{key}": value for key, value in FEATURES[name].items()}}
    assert np.abs(reference.log_probabilities(c.tensors, without, c.ids) - c.exact).max() > 20 * BOUND
