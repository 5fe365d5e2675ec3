"""The tiny models cut among lanes of the CPU, two or as many as this machine has cores for up to three, by each cut alone: the
same values as recorded from llama.cpp."""
import os

import pytest
import test_tiny as tiny
from test_tiny import case # noqa: F401 (a fixture)

CORES = min(os.cpu_count() or 1, 3)
LANES = ",".join(f"cpu:cpus={core}" for core in range(CORES))
CUTS = ["causal", "head", "query", "feature", "row", "sequence", "hybrid", "layer", "expert", "channel"]

pytestmark = pytest.mark.skipif(CORES < 2, reason="two lanes need two cores")


@pytest.mark.parametrize("name,cut", [
    pytest.param(name, cut, marks=() if i % len(CUTS) == k else pytest.mark.soak)
    for i, name in enumerate(tiny.RECORDED) for k, cut in enumerate(CUTS)])
@pytest.mark.parametrize("chunk", [16, 1])
def test_cut(score, case, name, cut, chunk): # noqa: F811
    by = lambda *a, **k: score(*a, **k, more=("--strategy", "tensor", "--cuts", cut))
    tiny.check_llama_cpp(by, case(name), name, LANES, chunk)
