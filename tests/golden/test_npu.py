"""Real models with their matrix multiplications on a static-graph runtime (OpenVINO's CPU plugin stands in for an NPU), the rest
on the CPU device, within the bounds that hold for the CPU alone.

Decode leaves such a device unless it is good at single tokens; `decode=on` keeps it there."""
import pytest
import test_golden as golden
import test_tiny as tiny
from test_golden import path # noqa: F401 (a fixture)
from test_tiny import case # noqa: F401 (a fixture)

BOTH = [golden.SMOLLM2, golden.GEMMA3]


@pytest.mark.check
@pytest.mark.parametrize("name", [golden.SMOLLM2])
def test_short_exact_quick(score, path, name, npu): # noqa: F811
    golden.check_short_exact(score, path, name, npu)


@pytest.mark.parametrize("name", [golden.GEMMA3])
def test_short_exact(score, path, name, npu): # noqa: F811
    golden.check_short_exact(score, path, name, npu)


@pytest.mark.parametrize("name", BOTH)
def test_short_fast(score, path, name, npu): # noqa: F811
    golden.check_short_fast(score, path, name, npu)


@pytest.mark.parametrize("others", ["", ",opencl:0:memory=copied,cpu"])
@pytest.mark.parametrize("name", [golden.SMOLLM2])
def test_last_token(score, command_json, path, name, npu, others): # noqa: F811
    golden.check_last_token(score, command_json, path, f"{npu}:lengths=1+32+512{others}")


@golden.long((golden.SMOLLM2, 0), (golden.SMOLLM2, 1), (golden.GEMMA3, 64))
def test_long_exact(score, path, name, npu, chunk): # noqa: F811
    golden.check_long_exact(score, path, name, f"{npu}:decode=on", chunk, golden.FEWER if chunk == 1 else None)


@pytest.mark.parametrize("name", [golden.SMOLLM2])
def test_other_order(score, path, name, npu): # noqa: F811
    golden.check_short_exact(score, path, name, f"{npu}:order=weights:lengths=32")


@tiny.rotated(tiny.make_tiny.CASES, first=2)
def test_tiny(score, case, name, npu, chunk): # noqa: F811
    tiny.check_engine(score, case(name), name, f"{npu}:decode=on", chunk)


@pytest.mark.parametrize("name", [golden.SMOLLM2])
def test_small_budget(score, path, name, npu): # noqa: F811
    """Some operators on the device, some beside it: the same answers."""
    golden.check_short_exact(lambda *a, **k: score(*a, **k, more=("--npu-memory", "30M")), path, name, npu)
