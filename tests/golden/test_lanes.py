"""Real models cut among lanes (strategy tensor): one device computes the first tokens of a pass, another the rest, within the
bounds that hold for the CPU alone."""
import os

import pytest
import test_golden as golden
from test_golden import path # noqa: F401 (a fixture)

pytestmark = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="two lanes need two cores")


@pytest.fixture(params=["graphs", "cpu", "copied"])
def lanes(request):
    """Device names: a static-graph device before an OpenCL one, the CPU before it, the CPU before a GPU with memory of its own."""
    gpu = request.getfixturevalue("gpu")
    if request.param == "graphs":
        return f"{gpu}:cpus=0,{request.getfixturevalue('npu')}:cpus=1"
    return f"cpu:cpus=1,{gpu}:cpus=0" + (":memory=copied" if request.param == "copied" else "")


def tensor(score):
    return lambda *a, **k: score(*a, **k, more=("--strategy", "tensor"))


@pytest.mark.parametrize("name", [golden.SMOLLM2])
@pytest.mark.parametrize("chunk", [0, 64])
def test_long_exact(score, path, name, lanes, chunk): # noqa: F811
    golden.check_long_exact(tensor(score), path, name, lanes, chunk)


@pytest.mark.parametrize("name", [golden.GEMMA3])
def test_other_family(score, path, name, gpu): # noqa: F811
    golden.check_long_exact(tensor(score), path, name, f"cpu:cpus=1,{gpu}:cpus=0", 0)


@pytest.mark.parametrize("name", [golden.SMOLLM2])
@pytest.mark.parametrize("lanes", ["cpu", "copied"], indirect=True)
def test_last_token(score, command_json, path, name, lanes): # noqa: F811
    """What generation uses: logits of the last token only, which the last lane alone carries through the last layer."""
    golden.check_last_token(score, command_json, path, lanes, ("--strategy", "tensor"))


@pytest.mark.parametrize("name", [golden.SMOLLM2])
@pytest.mark.parametrize("chunk", [0, 1])
@pytest.mark.parametrize("cuts", ["head,feature", "query,feature", "feature,layer", "hybrid,feature,row"])
def test_memory_of_its_own(score, path, name, gpu, cuts, chunk): # noqa: F811
    """A GPU with memory of its own beside the CPU, cut in every way, prompt and single tokens: what must move does."""
    ids = [(i * 7919) % 49000 + 5 for i in range(24)]
    want, _ = score(path, ids, "exact", chunk=chunk, kv="f32", more=("--strategy", "single"))
    got, _ = score(path, ids, "exact", chunk=chunk, kv="f32", device=f"{gpu}:cpus=0:memory=copied,cpu:cpus=1",
                   more=("--strategy", "tensor", "--cuts", cuts))
    assert max(abs(a - b) for a, b in zip(want[1:], got[1:], strict=True)) < 1e-3


@pytest.mark.parametrize("name", [golden.SMOLLM2])
@pytest.mark.parametrize("memory", ["shared", "copied"])
def test_query_heads(score, path, name, gpu, memory): # noqa: F811
    """Query heads of one key-value head on both: the GPU's wait for keys and values that the CPU, before it, has made."""
    ids = [(i * 7919) % 49000 + 5 for i in range(24)]
    gpu += ":cpus=0" + (":memory=copied" if memory == "copied" else "")
    want, _ = score(path, ids, "exact", chunk=0, kv="f32", more=("--strategy", "single"))
    got, _ = score(path, ids, "exact", chunk=0, kv="f32", device=f"cpu:cpus=1,{gpu}",
                   more=("--strategy", "tensor", "--cuts", "query,feature"))
    assert max(abs(a - b) for a, b in zip(want[1:], got[1:], strict=True)) < 1e-3


@pytest.mark.parametrize("name", [golden.SMOLLM2])
def test_weights_are_not_held_twice(score, command_json, path, name, gpu): # noqa: F811
    """Strategy auto: both devices hold the rows that plans use and a margin, at most 1.3 times the file's in all. Right it is
    with prompts of other lengths than those were made for, too."""
    lanes = f"cpu:cpus=1,{gpu}:cpus=0"

    def held(*options):
        plan = command_json("plan", path, "--length", 64, *options)
        return sum(device["bytes"] for device in plan["memory"].values())

    once = held("--devices", "cpu", "--strategy", "single")
    assert held("--devices", lanes) <= 1.3 * once
    assert held("--devices", lanes, "--strategy", "tensor") > 1.9 * once
    for chunk in (0, 1, 7):
        golden.check_long_exact(score, path, name, lanes, chunk)
