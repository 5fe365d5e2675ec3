"""SmolLM2 with its matrix multiplications on ONNX Runtime: on its CPU provider within the bounds that hold for the CPU device, on
Qualcomm's emulator of Hexagon (fp16 arithmetic) within 0.03 nats of the exact values along the golden path.

The emulator takes a minute for the whole model's graphs: only a few of them are built here by `make test`, and the CPU
provider's other ways (fast, one token at a time) are for `make soak` too."""
import pytest
import test_golden as golden
from test_golden import path # noqa: F401 (a fixture)

QNN = "ort:qnn:lengths=64:decode=off:cache=off"
TOKENS, BOUND = 64, 0.03


@pytest.fixture(scope="module")
def ort(devices_of):
    """Names of ONNX Runtime's devices on this machine."""
    return devices_of("ort")


@pytest.fixture
def qnn(ort, lacks):
    if "ort:qnn" not in ort:
        lacks("qnn", "ONNX Runtime has no QNN provider (pip install onnxruntime-qnn)")
    return QNN


def check_along(score, path, device, more): # noqa: F811
    run = golden.GOLDEN[golden.SMOLLM2]["long"]
    ids, exact = run["ids"][:TOKENS], run["exact_path_logprobs"][1:TOKENS]
    logprobs, _ = score(path, ids, "exact", device=device, more=more)
    errors = [abs(a - b) for a, b in zip(logprobs[1:], exact, strict=True)]
    print(f"{device} {' '.join(more)}: max {max(errors):.4f}, mean {sum(errors) / len(errors):.5f}")
    assert max(errors) <= BOUND
    assert max(errors) > 0.001 # fp16: it was not the CPU that computed


@pytest.mark.check
@pytest.mark.parametrize("name", [golden.SMOLLM2])
def test_cpu_exact(score, path, name, ort): # noqa: F811
    golden.check_short_exact(score, path, name, "ort:cpu")


@pytest.mark.soak
@pytest.mark.parametrize("name", [golden.SMOLLM2])
def test_cpu_fast(score, path, name, ort): # noqa: F811
    golden.check_short_fast(score, path, name, "ort:cpu")


@pytest.mark.soak
@pytest.mark.parametrize("name", [golden.SMOLLM2])
def test_cpu_decode(score, path, name, ort): # noqa: F811
    golden.check_short_exact(lambda *a, **k: score(*a, **k, chunk=1), path, name, "ort:cpu:decode=on")


@pytest.mark.parametrize("name", [golden.SMOLLM2])
def test_hexagon_some(score, path, name, qnn): # noqa: F811
    check_along(score, path, qnn, ("--npu-memory", "130M"))


@pytest.mark.soak
@pytest.mark.parametrize("name", [golden.SMOLLM2])
def test_hexagon(score, path, name, qnn): # noqa: F811
    check_along(score, path, qnn.replace(":decode=off", ""), ()) # the head, too


@pytest.mark.soak
@pytest.mark.parametrize("name", [golden.SMOLLM2])
def test_hexagon_beside_opencl(score, path, name, qnn, gpu): # noqa: F811
    check_along(score, path, f"{gpu}:cpus=0,{qnn}:cpus=1", ("--strategy", "tensor"))
