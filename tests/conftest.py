"""What all tests of the command share: where it is, where models are, which instruction sets this machine has.

The binary is $HETERO, or build/hetero of this checkout; models come from models/ (`make models`)."""
import json
import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
BINARY = os.environ.get("HETERO", str(ROOT / "build" / "hetero"))
MODELS = ROOT / "models"
# As for ctest: what drivers compile for the tests stays with the build.
os.environ["XDG_CACHE_HOME"] = str(pathlib.Path(BINARY).parent.resolve() / "cache")
# PoCL's own place there, for tests that have another folder: else they have the same kernels compiled at every run.
os.environ.setdefault("POCL_CACHE_DIR", os.environ["XDG_CACHE_HOME"] + "/pocl/kcache")
# The command looks for runtimes in the environment that is active, and nowhere below the current folder.
if (ROOT / ".venv").is_dir():
    os.environ.setdefault("VIRTUAL_ENV", str(ROOT / ".venv"))

# What the CPU device asks of the processor before it takes an instruction set, as /proc/cpuinfo spells it.
ISAS = {"scalar": set(), "avx2": {"avx2", "fma", "f16c"},
        "avx512": {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni"},
        "neon": {"asimd"}, "neon-dotprod": {"asimddp"}, "neon-i8mm": {"i8mm"}}


def processor_flags():
    """Of this machine, or $HETERO_FLAGS, for a binary that runs under an emulator."""
    if "HETERO_FLAGS" in os.environ:
        return set(os.environ["HETERO_FLAGS"].split())
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return set()
    return next((set(line.split(":", 1)[1].split()) for line in lines if line.startswith(("flags", "Features"))), set())


# Cases of instruction sets that this processor lacks are not collected; the head of the report names them.
HERE = [isa for isa, flags in ISAS.items() if flags <= processor_flags()]
if "asimd" not in os.environ.get("HETERO_FLAGS", ""): # no emulator: make cross-test
    collect_ignore = ["cli/test_aarch64.py"]


def pytest_report_header(config):
    others = [isa for isa in ISAS if isa not in HERE]
    return [f"instruction sets: {', '.join(HERE)}; not of this processor: {', '.join(others)}",
            f"required: {os.environ.get('HETERO_REQUIRE') or 'nothing (HETERO_REQUIRE)'}"]


@pytest.fixture(params=HERE)
def device(request):
    """The CPU, once for each instruction set."""
    return f"cpu:isa={request.param}"


@pytest.fixture(scope="session")
def lacks():
    """Skips for want of a thing, `lacks("opencl", why)`; fails where HETERO_REQUIRE (a list: opencl, openvino, ort, qnn, chromium,
    models) names it, so that a CI which lost a driver does not stay green. tests/needs.h does the same for C."""

    def lacks_it(what, why):
        if what in os.environ.get("HETERO_REQUIRE", "").split(","):
            pytest.fail(f"{why}; HETERO_REQUIRE names {what}")
        pytest.skip(why)

    return lacks_it


@pytest.fixture(scope="session")
def model_file(lacks):
    def find(name):
        path = MODELS / name
        if not path.exists():
            lacks("models", f"{path} is missing: make models")
        return path

    return find


@pytest.fixture(scope="session")
def binary():
    assert os.access(BINARY, os.X_OK), f"{BINARY}: not built; set HETERO to the binary"
    return BINARY


@pytest.fixture(scope="session")
def devices_of(command_json, lacks):
    """Names of a runtime's devices; skips with its reason where there is none."""

    def find(runtime):
        found = command_json("devices")
        names = [d["name"] for d in found["devices"] if d["name"].startswith(runtime + ":")]
        if not names:
            lacks(runtime, "; ".join(f"{d['name']}: {d['why']}" for d in found["missing"] if d["name"].startswith(runtime)))
        return names

    return find


@pytest.fixture(scope="session")
def gpu(devices_of):
    """What 'gpu' means on this machine: a GPU, else any OpenCL device."""
    devices_of("opencl")
    return "gpu"


@pytest.fixture(scope="session")
def npu(command_json, lacks):
    """What 'npu' means on this machine, by its full name, which may take options."""
    found = command_json("devices")
    names = [d["name"] for d in found["devices"] if d["static_lengths"]]
    if not names:
        lacks("openvino", "; ".join(f"{d['name']}: {d['why']}" for d in found["missing"] if d["name"].startswith("openvino")))
    return names[0]


@pytest.fixture(scope="session")
def command_json(binary):
    """Runs the command with --json and returns its object."""

    def run(*arguments, timeout=600):
        done = subprocess.run([binary, *map(str, arguments), "--json", "--quiet"], capture_output=True, timeout=timeout,
                              check=False)
        assert done.returncode == 0, (done.returncode, done.stderr.decode("utf-8", "replace"))
        return json.loads(done.stdout)

    return run


@pytest.fixture(scope="session")
def score(command_json):
    """(logprobs, top): log-probability of each id given those before it; {id: logprob} of what follows each."""

    def run(path, ids, precision, top=0, chunk=0, device="cpu", kv="f16", more=()):
        options = ["--ids", ",".join(map(str, ids)), "--precision", precision, "--chunk", chunk, "--kv", kv,
                   "--devices", device, *more]
        answer = command_json("score", path, *options, *(["--top", top] if top else []))
        assert answer["ids"] == list(ids)
        assert len(answer["logprobs"]) == len(ids) and answer["logprobs"][0] is None
        rows = [{e["id"]: e["logprob"] for e in row} for row in answer.get("top", [])] if top else []
        assert not top or [len(row) for row in rows] == [top] * len(ids)
        return answer["logprobs"], rows

    return run
