"""ONNX Runtime that is missing, old or without a provider, QNN of another version, compiled graphs that are not what they should
be: a clear line, and the request is answered all the same. And: the emulator's times are told to nobody."""
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tools"))
import make_tiny # noqa: E402

OLD = """
#include <stddef.h>
#include <stdint.h>
static const void *get(uint32_t version) { return NULL; }
static const char *name(void) { return "1.17.3"; }
static const struct { const void *(*get)(uint32_t); const char *(*name)(void); } base = {get, name};
const void *OrtGetApiBase(void) { return &base; }
"""
# QNN's interface of another major version, and nothing behind it
OTHER_QNN = """
#include <stdint.h>
struct { uint32_t id; const char *name; uint32_t versions[6]; void *functions[128]; } qnn = {6, "HTP", {1, 0, 0, 1, 0, 0}};
void *list[] = {&qnn};
uint64_t QnnInterface_getProviders(void ***providers, uint32_t *n) { *providers = list; *n = 1; return 0; }
"""
# FastRPC's memory, as a phone has it, of ordinary pages: what the emulator cannot use
RPC = """
#include <stdint.h>
#include <stdlib.h>
void *rpcmem_alloc(int heap, uint32_t flags, int bytes) { return calloc(1, bytes); }
void rpcmem_free(void *memory) { free(memory); }
int rpcmem_to_fd(void *memory) { return 1; }
void remote_register_buf_attr2(void *memory, size_t bytes, int file, int attributes) {}
"""
FEW = "ort:qnn:lengths=32:decode=off" # with little memory: a few graphs
LITTLE = ("--npu-memory", "60M")


def compile_library(folder, name, text):
    (folder / "library.c").write_text(text)
    subprocess.run(["cc", "-shared", "-fPIC", "-w", "-o", folder / name, folder / "library.c"], check=True)


@pytest.fixture(scope="session")
def wheels(lacks):
    """site-packages that holds onnxruntime and onnxruntime_qnn."""
    named = os.environ.get("HETERO_ONNXRUNTIME")
    venv = pathlib.Path(__file__).resolve().parents[2] / ".venv"
    for folder in [pathlib.Path(named)] if named else sorted(venv.glob("lib/python3*/site-packages")):
        if list(folder.glob("onnxruntime/capi/libonnxruntime.so*")):
            return folder
    return lacks("ort", "onnxruntime is not in .venv")


@pytest.fixture(scope="session")
def qnn(wheels, lacks):
    if not (wheels / "onnxruntime_qnn" / "libQnnHtp.so").exists():
        lacks("qnn", "onnxruntime-qnn is not in .venv")
    return wheels


@pytest.fixture
def ask(hetero, model):
    """Runs a prompt; (answer, warnings)."""

    def run(device, *options, **environment):
        done = hetero("run", model, "-p", "Name three colours.", "-n", 4, "--temp", 0, "--json", "--precision", "exact",
                      "--devices", device, *options, env=environment)
        return done.json, done.err

    return run


@pytest.fixture(scope="module")
def plain(hetero, model):
    return hetero("run", model, "-p", "Name three colours.", "-n", 4, "--temp", 0, "--json", "--precision", "exact").json


def on_cpu(answer, plain):
    assert answer["ids"] == plain["ids"] and answer["devices_used"] == ["cpu"]


def warnings(said):
    return [line for line in said.splitlines() if "warning" in line]


@pytest.mark.check
def test_missing(ask, plain, hetero, tmp_path):
    answer, said = ask("ort:cpu", "--onnxruntime", tmp_path)
    on_cpu(answer, plain)
    assert len(warnings(said)) == 1 and "continuing without" in said and "pip install onnxruntime" in said
    missing = hetero("devices", "--json", "--onnxruntime", tmp_path).json["missing"]
    assert any(d["name"] == "ort" and "pip install onnxruntime" in d["why"] for d in missing)


@pytest.mark.check
def test_too_old(ask, plain, tmp_path):
    compile_library(tmp_path, "libonnxruntime.so.1.17.3", OLD)
    answer, said = ask("ort:cpu", "--onnxruntime", tmp_path)
    on_cpu(answer, plain)
    assert len(warnings(said)) == 1 and "ONNX Runtime 1.17.3 is too old: 1.24 or newer is needed" in said


def test_no_library(ask, plain, tmp_path):
    (tmp_path / "libonnxruntime.so.1").write_bytes(b"no library")
    answer, said = ask("ort:cpu", "--onnxruntime", tmp_path)
    on_cpu(answer, plain)
    assert len(warnings(said)) == 1 and "libonnxruntime.so.1" in said


def test_without_provider(ask, plain, hetero, wheels, tmp_path):
    """A runtime in a folder of its own has no plugins beside it."""
    library = next((wheels / "onnxruntime" / "capi").glob("libonnxruntime.so*"))
    shutil.copy(library, tmp_path)
    answer, said = ask("ort:qnn", "--onnxruntime", tmp_path)
    on_cpu(answer, plain)
    assert len(warnings(said)) == 1 and "has no such provider (pip install onnxruntime-qnn)" in said
    found = hetero("devices", "--json", "--onnxruntime", tmp_path).json
    assert "ort:cpu" in [d["name"] for d in found["devices"]]
    assert any(d["name"] == "ort:qnn" and "pip install onnxruntime-qnn" in d["why"] for d in found["missing"])
    answer, said = ask("ort:tpu", "--onnxruntime", tmp_path)
    on_cpu(answer, plain)
    assert "has no such provider" in said


def test_qnn_of_another_version(ask, plain, qnn, tmp_path):
    shutil.copy(qnn / "onnxruntime_qnn" / "libonnxruntime_providers_qnn.so", tmp_path)
    for libraries in qnn.glob("onnxruntime_qnn.libs"): # the wheel's own C++ library
        shutil.copytree(libraries, tmp_path.parent / libraries.name, dirs_exist_ok=True)
    plugin = tmp_path / "libonnxruntime_providers_qnn.so"
    answer, said = ask(f"ort:qnn:library={plugin}", "--onnxruntime", qnn)
    on_cpu(answer, plain)
    assert len(warnings(said)) == 1 and "libQnnHtp.so" in said # it is not there at all
    compile_library(tmp_path, "libQnnHtp.so", OTHER_QNN)
    answer, said = ask(f"ort:qnn:library={plugin}", "--onnxruntime", qnn)
    on_cpu(answer, plain)
    assert len(warnings(said)) == 1 and "continuing without" in said
    (tmp_path / "libQnnHtp.so").unlink()
    compile_library(tmp_path, "libQnnHtp.so", "int nothing;")
    answer, said = ask(f"ort:qnn:library={plugin}", "--onnxruntime", qnn)
    on_cpu(answer, plain)
    assert len(warnings(said)) == 1 and "it has no interface to offer" in said


def test_options(hetero, model, qnn):
    for device, text in (("ort:qnn:soc=x", "soc="), ("ort:qnn:arch=0", "arch="), ("ort:cpu:soc=57", "for ort:qnn"),
                         ("ort:cpu:memory=copied", "for ort:qnn"), ("ort:qnn:memory=x", "shared or copied"),
                         ("ort:cpu:hint=bf16", "hint="),
                         ("ort:cpu:order=weights", "order=weights is for OpenVINO"), ("openvino:CPU:soc=57", "unknown option"),
                         ("ort:qnn:library=/nothing/libX.so,cpu", "no such file")):
        done = hetero("run", model, "-p", "x", "-n", 1, "--devices", device, "--onnxruntime", qnn)
        assert text in done.err and (done.code == 2 or device.endswith(",cpu")), (device, done.err)


def test_kept_graphs(ask, qnn, tmp_path):
    """Compiled graphs are found again, but not those of another chip, and none that is damaged."""
    folder = tmp_path / "hetero" / "npu"

    def run(device, log="warn"):
        answer, said = ask(device, "--onnxruntime", qnn, "--log-level", log, *LITTLE, XDG_CACHE_HOME=str(tmp_path))
        assert answer["devices_used"] == ["ort:qnn", "cpu"]
        return answer["ids"], said

    ids, _ = run(FEW)
    files = sorted(folder.glob("*.bin"))
    assert files and not list(folder.glob("export.*"))
    again, said = run(FEW, "debug")
    assert again == ids and said.count("loaded in") == len(files) and "built in" not in said
    _, said = run(FEW + ":soc=43", "debug") # Snapdragon 8 Gen 2
    assert said.count("built in") == len(files) and "loaded in" not in said
    others = sorted(set(folder.glob("*.bin")) - set(files))
    assert len(others) == len(files)
    files[0].write_bytes(files[0].read_bytes()[:-100]) # cut short
    if len(files) > 1:
        shutil.copy(others[0], files[1]) # another chip's in its place
    again, said = run(FEW)
    assert again == ids and "cut short" in said and ("it holds another graph" in said or len(files) == 1)


def test_shared_memory(ask, plain, qnn, tmp_path):
    """Where the provider has memory of its own, it is tried; it does not work with the emulator: one line, and copies."""
    compile_library(tmp_path, "libcdsprpc.so", RPC)
    usual, budget = ask(FEW, "--onnxruntime", qnn, *LITTLE)
    assert usual["devices_used"] == ["ort:qnn", "cpu"]
    answer, said = ask(FEW, "--onnxruntime", qnn, *LITTLE, LD_LIBRARY_PATH=str(tmp_path))
    assert answer["ids"] == usual["ids"] and answer["devices_used"] == ["ort:qnn", "cpu"]
    more = [line for line in warnings(said) if line not in warnings(budget)]
    assert len(more) == 1 and "no shared memory, copying inputs and outputs: " in more[0], said
    answer, said = ask(FEW + ":memory=copied", "--onnxruntime", qnn, *LITTLE, LD_LIBRARY_PATH=str(tmp_path))
    assert answer["ids"] == usual["ids"] and warnings(said) == warnings(budget)
    answer, said = ask(FEW + ":memory=shared", "--onnxruntime", qnn, *LITTLE)
    on_cpu(answer, plain)
    assert len(warnings(said)) == 1 and "memory=shared: libcdsprpc.so" in said, said


def test_emulated(hetero, model, qnn, tmp_path):
    def run(*arguments):
        return hetero(*arguments, "--onnxruntime", qnn, env={"XDG_CACHE_HOME": str(tmp_path)})

    rows = {d["name"]: d for d in run("devices", "--json").json["devices"]}
    assert rows["ort:qnn"]["emulated"] is True and rows["ort:qnn"]["kind"] == "npu" and not rows["ort:cpu"]["emulated"]
    alone = ("--devices", FEW, *LITTLE)
    shown = run("plan", model, "--length", 32, *alone)
    assert "emulated: timings are not meaningful" in shown.out
    bench = run("bench", model, "--prompt", 32, "--gen", 0, "-r", 1, "--json", *alone).json
    assert [row["emulated"] for row in bench["rows"]] == [True]
    assert "emulated" in run("bench", model, "--prompt", 32, "--gen", 0, "-r", 1, *alone).out
    auto = run("run", model, "-p", "x", "-n", 1, "--json", "--devices", f"cpu:cpus=0,{FEW}:cpus=1")
    assert auto.json["devices_used"] == ["cpu"] and "strategy auto does not use it" in auto.err


def test_twice_in_one_process(hetero, model, qnn):
    bench = hetero("bench", model, "--prompt", 32, "--gen", 0, "-r", 1, "--json", "--onnxruntime", qnn, *LITTLE,
                   "--devices", FEW + ":cache=off", "--devices", FEW + ":cache=off").json
    assert [row["emulated"] for row in bench["rows"]] == [True, True]


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="two lanes need two cores")
@pytest.mark.parametrize("cuts", ["causal", "feature,row", "layer"])
def test_shares_by_rule(hetero, qnn, tmp_path, cuts):
    """Equal shares whatever it takes, nothing predicted, nothing kept; and the numbers are right."""
    make_tiny.write("llama", tmp_path / "tiny.gguf")

    def run(*arguments):
        return hetero(*arguments, "--json", "--onnxruntime", qnn, env={"XDG_CACHE_HOME": str(tmp_path)}).json

    lanes = ("--devices", "cpu:cpus=0,ort:qnn:lengths=32:decode=off:cpus=1", "--strategy", "tensor", "--cuts", cuts)
    plan = run("plan", tmp_path / "tiny.gguf", "--length", 64, *lanes)
    assert plan["predicted_ms"] is None and plan["single_device_ms"] == {}
    assert plan["memory"]["ort:qnn"]["emulated"] is True
    if cuts == "causal": # of 64 tokens in graphs for 32, each lane takes half
        shares = [s for o in plan["operators"] if o["strategy"] == "causal" and o["rows"] for s in o["slices"]]
        assert all(30 <= s["token_end"] - s["token_begin"] <= 34 for s in shares if s["token_end"] - s["token_begin"] > 1)
    assert not list((tmp_path / "hetero").glob("plan/*"))
    ids = ("score", tmp_path / "tiny.gguf", "--ids", ",".join(map(str, range(1, 65))), "--precision", "exact")
    want, got = run(*ids)["logprobs"], run(*ids, *lanes)["logprobs"]
    assert max(abs(a - b) for a, b in zip(want[1:], got[1:], strict=True)) < 0.03
    assert want != got
