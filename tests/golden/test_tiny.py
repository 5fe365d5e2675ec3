"""Every family, feature and weight type on tiny models with random weights (tools/make_tiny.py), in all ways of feeding
tokens and on every instruction set.

Three yardsticks:
- reference.py with keys and values rounded to fp16, as the engine's cache holds them. What is left is float32's noise, and
  now and then a value that it tips over a rounding boundary of fp16: 5e-4 at most was seen, 1e-3 is allowed.
- llama.cpp's values, recorded with a float32 cache (tiny/README.md). The cost of our fp16 cache, known for every value from
  reference.py, is taken off first; 1e-3 is allowed.
- the same without taking anything off, to know that the cache's cost itself stays small: 3.3e-3 was seen, 4e-3 is allowed.
With a float32 cache 1e-4 of llama.cpp's values is allowed, and 1e-3 for Gemma, whose GELU llama.cpp looks up in a table.
"""
import functools
import importlib
import json
import pathlib
import sys

import numpy as np
import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "tools"), str(HERE / "tiny")]
import features # noqa: E402
import features_experts # noqa: E402
import make_tiny # noqa: E402
import record # noqa: E402
import reference # noqa: E402

RECORDED = json.loads((HERE / "tiny" / "recorded.json").read_text(encoding="utf-8"))["cases"]
BOUND, BOUND_WITH_CACHE, BOUND_WITHOUT_CACHE = 1e-3, 4e-3, 1e-4
TOP = 64


def bound_of(name):
    """with a float32 cache on both sides"""
    return BOUND if make_tiny.CASES[name].get("arch") == "gemma3" else BOUND_WITHOUT_CACHE


class Case:
    """A model's file, and what the exact reference says of it, which costs a tenth of a second and not every test asks for."""

    def __init__(self, name, folder):
        self.ids, self.path, self.trace, self.cached_trace = make_tiny.ids(name), folder / f"{name}.gguf", {}, {}
        make_tiny.write(name, self.path)

    @functools.cached_property
    def model(self):
        return reference.load(self.path)

    @functools.cached_property
    def exact(self):
        return reference.log_probabilities(*self.model, self.ids, trace=self.trace)

    @functools.cached_property
    def cached(self):
        return reference.log_probabilities(*self.model, self.ids, np.float16, self.cached_trace)


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
    check_llama_cpp(score, case(name), name, device, chunk)

def check_llama_cpp(score, c, name, device, chunk):
    known, bound = RECORDED[name], bound_of(name)
    logprobs, top = score(c.path, c.ids, "exact", top=TOP, chunk=chunk, device=device, kv="f32")
    assert np.abs(np.array(logprobs[1:]) - known["path"]).max() <= bound
    for position, best in known["top"].items():
        for token, value in best:
            assert abs(top[int(position)][token] - value) <= bound

@pytest.mark.check
@pytest.mark.parametrize("name", RECORDED)
def test_reference(case, name):
    """The oracle itself against llama.cpp, both without rounding of keys and values."""
    c, known = case(name), RECORDED[name]
    assert known["weights"] == record.fingerprint(c.path), "the file is not the one that was recorded: see tiny/README.md"
    assert known["ids"] == c.ids
    assert np.abs(c.exact[np.arange(len(c.ids) - 1), c.ids[1:]] - known["path"]).max() <= bound_of(name)
    for position, best in known["top"].items():
        for token, value in best:
            assert abs(c.exact[int(position), token] - value) <= bound_of(name)

@pytest.mark.check
def test_llama3_keys_are_the_tensor(case):
    """Llama 3.1's scaling by keys and by rope_freqs.weight is the same model."""
    assert np.abs(case("llama-llama3").exact - case("llama-freqs").exact).max() < 1e-5

@pytest.mark.check
@pytest.mark.parametrize("name", [name for name, case in make_tiny.CASES.items() if "expert_count" in case.get("keys", {})])
def test_choices_are_clear(case, name):
    """No choice of experts hangs on a rounding, and experts differ in how often they are chosen."""
    c = case(name)
    assert len(c.exact) == len(c.cached) and min(c.trace["margin"], c.cached_trace["margin"]) > 8e-4
    for chosen in c.trace["chosen"].values():
        times = np.bincount(chosen.ravel(), minlength=8)
        assert times.max() > 3 * times.min()

@pytest.mark.check
@pytest.mark.parametrize("name,what,changes", [pytest.param(*row, id=f"{row[0]}: {row[1]}") for row in features.ROWS + features_experts.ROWS])
def test_features_show(case, monkeypatch, name, what, changes):
    """A model without the feature is so far off that the bounds above would catch it: else the case tests nothing."""
    c = case(name)
    tensors, meta, elsewhere = features.changed(*c.model, changes)
    exact = c.exact # before the reference changes
    for where, value in elsewhere.items():
        module, known = where.split(".")
        monkeypatch.setattr(importlib.import_module(module), known, value)
    assert np.abs(reference.log_probabilities(tensors, meta, c.ids) - exact).max() > 20 * BOUND, what
