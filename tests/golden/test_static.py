"""Tiny models whose kinds of block are new, on devices with static graphs: the values of the CPU device, most of the work with
weights there, and what a mixture's graphs have no room for computed beside them."""
import re
import subprocess

import pytest
import test_tiny as tiny
from test_tiny import case # noqa: F401 (a fixture)

MODELS = ["qwen3moe", "lfm2", "qwen35"]
DEVICES = ["openvino:CPU", "ort:cpu"]

pytestmark = pytest.mark.check


@pytest.fixture(params=DEVICES)
def static(request, devices_of, lacks):
    runtime = request.param.split(":")[0]
    if request.param not in devices_of(runtime):
        lacks(runtime, f"no {request.param}")
    return request.param


def work(command_json, path, device):
    """The share of the multiplications with weights that the device has of 256 tokens; that of experts in all; the plan."""
    plan = command_json("plan", path, "--devices", f"{device}:lengths=256", "--length", 256)
    on = {name: sum(s["products"] for o in plan["operators"] for s in o["slices"] if s["device"] == name)
          for name in plan["memory"]}
    assert on == {name: memory["products"] for name, memory in plan["memory"].items()}
    experts = sum(s["products"] for o in plan["operators"] for s in o["slices"] if o["name"].endswith("ffn_experts"))
    return on[device] / sum(on.values()), experts / sum(on.values()), plan


@pytest.mark.parametrize("name", MODELS)
def test_values(score, case, name, static): # noqa: F811
    tiny.check_engine(score, case(name), name, f"{static}:lengths=64", 0)
    tiny.check_llama_cpp(score, case(name), name, f"{static}:lengths=64", 0)


@pytest.mark.parametrize("name", MODELS)
def test_most_work_is_there(command_json, case, name, static): # noqa: F811
    share, _, plan = work(command_json, case(name).path, static)
    assert share >= 0.8
    reasons = {row["why"]: row["operators"] for row in plan["left"] if row["device"] == static}
    assert {"rope", "attn", "argmax"} <= set(reasons["only matrix multiplications"])
    assert "output" in reasons["slow with a single token"]
    assert reasons.get("past the capacity of its graphs") == (["ffn_experts"] if name == "qwen3moe" else None)


def test_lengths(command_json, case, static): # noqa: F811
    """A mixture's graphs are there at every length: the prompt is cut into a piece of each."""
    lengths, tokens = (16, 64, 256), 336
    plan = command_json("plan", case("qwen3moe").path, "--devices", f"{static}:lengths={'+'.join(map(str, lengths))}",
                        "--length", tokens)
    assert sum(lengths) == tokens
    assert not [row for row in plan["left"] if "failed" in row["why"]]


def test_overflow(binary, command_json, case, static): # noqa: F811
    """A skewed router: what is past an expert's capacity is computed elsewhere (test_values says whether rightly), and is
    little."""
    c = case("qwen3moe")
    share, experts, _ = work(command_json, c.path, static)
    done = subprocess.run([binary, "score", c.path, "--ids", ",".join(map(str, c.ids)), "--devices", f"{static}:lengths=64",
                           "--log-level", "info"], capture_output=True, timeout=60, check=True)
    left, pairs = map(int, re.search(rb"(\d+) of (\d+) pairs of a token and an expert", done.stderr).groups())
    assert pairs == 4 * 3 * len(c.ids) # layers; experts of a token: all of them are wanted here
    assert 0 < left
    assert share - experts * left / pairs >= 0.8


@pytest.mark.parametrize("cut", ["causal", "feature", "expert", "layer"])
def test_beside_a_lane(score, case, cut, static): # noqa: F811
    """With the CPU as another lane: shares of tokens, features and experts, and whole operators for it."""
    by = lambda *a, **k: score(*a, **k, more=("--strategy", "tensor", "--cuts", cut))
    tiny.check_llama_cpp(by, case("qwen3moe"), "qwen3moe", f"{static}:cpus=0:lengths=32+64,cpu:cpus=1", 0)
