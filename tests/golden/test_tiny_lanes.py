"""The tiny models cut among lanes, each cut by itself as far as a model's blocks allow it: the same values as recorded from llama.cpp.
Two lanes are cores of this machine; three are simulated (tiny/three-cores.json), and compute the same numbers wherever."""
import os

import pytest
import test_tiny as tiny
from test_tiny import case # noqa: F401 (a fixture)

CORES = min(os.cpu_count() or 1, 3)
LANES = ",".join(f"cpu:cpus={core}" for core in range(CORES))
THREE = ("--soc", tiny.HERE / "tiny" / "three-cores.json")
# A cut, and those by which the blocks go that have it not: where one block is cut by nothing, lanes share no pass.
CUTS = {"causal": "", "head": "feature,channel", "query": "feature,channel", "feature": "head,channel", "row": "expert",
        "sequence": "", "hybrid": "", "layer": "", "expert": "head,channel,row", "channel": "head,feature"}

by_cut = pytest.mark.parametrize("name,cut", [
    pytest.param(name, cut, marks=() if i % len(CUTS) == k else pytest.mark.soak)
    for i, name in enumerate(tiny.RECORDED) for k, cut in enumerate(CUTS)])


def options(name, cut):
    cuts = [cut, *filter(None, CUTS[cut].split(","))]
    if name.startswith(("deepseek2", "mistral4")) and len(cuts) > 1: # latent attention has no key-value heads
        cuts = [cut] + ["query"] * (cut != "query") + [other for other in cuts[1:] if other != "head"]
    return "--strategy", "tensor", "--cuts", ",".join(cuts)


def check(score, case, name, cut, device, chunk, more=()): # noqa: F811
    by = lambda *a, **k: score(*a, **k, more=(*options(name, cut), *more))
    tiny.check_llama_cpp(by, case(name), name, device, chunk)


@pytest.mark.skipif(CORES < 2, reason="two lanes need two cores")
@by_cut
@pytest.mark.parametrize("chunk", [16, 1])
def test_cut(score, case, name, cut, chunk): # noqa: F811
    check(score, case, name, cut, LANES, chunk)


@by_cut
@pytest.mark.parametrize("chunk", [16, pytest.param(0, marks=pytest.mark.soak), pytest.param(1, marks=pytest.mark.soak)])
def test_three(score, case, name, cut, chunk): # noqa: F811
    check(score, case, name, cut, "one,two,three", chunk, THREE)


@pytest.mark.parametrize("name,cut", [("llama-linear", "causal"), ("gemma3-linear", "query"), ("qwen35", "query"), ("qwen35-even", "row"),
                                      ("qwen35", "channel"), ("qwen35moe", "expert"), ("deepseek2-lite", "expert"),
                                      ("lfm2", "feature"), ("llama", "head"), ("olmo2", "row")])
@pytest.mark.parametrize("chunk", [0, 1])
def test_three_used(score, command_json, case, name, cut, chunk): # noqa: F811
    """Where a model is known to be cut so, it is: all at once, and token by token."""
    plan = command_json("plan", case(name).path, *THREE, "--devices", "one,two,three", *options(name, cut),
                        *(["--decode"] if chunk and cut != "causal" else ["--length", 16]))
    lanes = [len({part["device"] for part in row["slices"]}) for row in plan["operators"] if row["strategy"] == cut]
    assert lanes and max(lanes) >= (3 if (name, cut) in [
        ("llama-linear", "causal"), ("gemma3-linear", "query"), ("qwen35", "query")] else 2)
    check(score, case, name, cut, "one,two,three", chunk, THREE)
