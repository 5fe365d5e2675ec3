"""Whole models on the GPU alone (any OpenCL device stands in), within the bounds that hold for the CPU.

Option `memory=copied` keeps copies of everything on the device, as a GPU with memory of its own does: there, whatever is not
moved when it should be shows as wrong numbers."""
import os

import pytest
import test_golden as golden
import test_tiny as tiny
from test_golden import path # noqa: F401 (a fixture)
from test_tiny import case # noqa: F401 (a fixture)

BOTH = [golden.SMOLLM2, golden.GEMMA3]


@pytest.mark.check
@pytest.mark.parametrize("name", [golden.SMOLLM2])
def test_short_exact_quick(score, path, name, gpu): # noqa: F811
    golden.check_short_exact(score, path, name, gpu)


@pytest.mark.parametrize("name", [golden.GEMMA3])
def test_short_exact(score, path, name, gpu): # noqa: F811
    golden.check_short_exact(score, path, name, gpu)


@pytest.mark.parametrize("name", BOTH)
def test_short_copied(score, path, name, gpu): # noqa: F811
    golden.check_short_exact(score, path, name, f"{gpu}:memory=copied")


@pytest.mark.parametrize("name", BOTH)
def test_short_fast(score, path, name, gpu): # noqa: F811
    golden.check_short_fast(score, path, name, gpu)


@pytest.mark.parametrize("options", ["", ":memory=copied"])
@pytest.mark.parametrize("name", [golden.SMOLLM2])
def test_last_token(score, command_json, path, name, gpu, options): # noqa: F811
    golden.check_last_token(score, command_json, path, gpu + options)


@golden.long((golden.SMOLLM2, 0), (golden.SMOLLM2, 1), (golden.GEMMA3, 64))
def test_long_exact(score, path, name, gpu, chunk): # noqa: F811
    golden.check_long_exact(score, path, name, gpu, chunk, golden.FEWER if chunk == 1 else None)


@pytest.fixture
def unoptimised(monkeypatch):
    """PoCL compiles a kernel in an eighth of the time: for models so small that compiling is most of the work (as in
    tests/CMakeLists.txt). The key of its cache does not know this, nor does ours, so these have a folder of their own."""
    cache = os.environ["XDG_CACHE_HOME"] + "-unoptimised"
    monkeypatch.setenv("XDG_CACHE_HOME", cache)
    monkeypatch.setenv("POCL_CACHE_DIR", cache + "/pocl/kcache")
    monkeypatch.setenv("POCL_EXTRA_BUILD_FLAGS", "-cl-opt-disable")


@tiny.rotated(tiny.make_tiny.CASES, first=1)
def test_tiny(score, case, name, gpu, chunk, unoptimised): # noqa: F811
    tiny.check_engine(score, case(name), name, gpu, chunk)


@pytest.mark.parametrize("name", tiny.RECORDED)
def test_tiny_simt(score, case, name, gpu, unoptimised): # noqa: F811
    """The kernels for real GPUs, which are slow here, on small models."""
    tiny.check_llama_cpp(score, case(name), name, f"{gpu}:variant=simt", 16)


@pytest.mark.parametrize("name", [name for name in tiny.RECORDED
                                  if name.startswith(("qwen3moe", "gpt-oss", "lfm2", "qwen35", "granite", "deepseek2"))])
@pytest.mark.parametrize("chunk,options", [(1, ""), (0, ":memory=copied")])
def test_tiny_simt_kinds(score, case, name, gpu, chunk, options, unoptimised): # noqa: F811
    """Experts, states, latent rows: a token and the whole of it take other kernels, and copies must move."""
    tiny.check_llama_cpp(score, case(name), name, f"{gpu}:variant=simt{options}", chunk)


@pytest.mark.parametrize("sync", ["finish", "event", "callback", "flag"])
def test_joins(score, case, gpu, sync): # noqa: F811
    name = sorted(tiny.RECORDED)[0]
    for chunk in 0, 1:
        logprobs, _ = score(case(name).path, case(name).ids, "exact", chunk=chunk, device=gpu, more=["--sync", sync])
        plain, _ = score(case(name).path, case(name).ids, "exact", chunk=chunk, device=gpu)
        assert logprobs == plain


@pytest.mark.check
def test_greedy_is_the_largest(command_json, model_file, gpu):
    """The token that the device finds is the one that sampling from the logits finds."""
    path = model_file(golden.FILES[golden.SMOLLM2])
    answers = [command_json("run", path, "-p", "Count to ten.", "-n", 24, "--temp", 0, "--devices", gpu, *more)
               for more in ((), ("--logprobs", 1))]
    assert answers[0]["ids"] == answers[1]["ids"] and answers[0]["devices_used"] == ["opencl:0"]
