"""A static-graph runtime that is missing, old, broken or short of memory: a clear line, and the request is answered all the same."""
import os
import pathlib
import shutil
import subprocess

import pytest

# A library that has all of OpenVINO's functions, but for those that it spoils (the rest comes from the real one behind it).
WRAPPER = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
typedef struct { int64_t rank; int64_t *dims; } shape;
static int compiled;
static float *last;
int ov_core_compile_model_props(void *core, void *model, const char *device, size_t n, void *properties, void **out) {
    int (*real)(void *, void *, const char *, size_t, void *, void **) = dlsym(RTLD_NEXT, "ov_core_compile_model_props");
    const char *fail = getenv("FAIL_COMPILE");
    return fail && ++compiled % atoi(fail) == 0 ? -1 : real(core, model, device, n, properties, out);
}
int ov_tensor_create_from_host_ptr(unsigned type, shape s, void *memory, void **out) {
    int (*real)(unsigned, shape, void *, void **) = dlsym(RTLD_NEXT, "ov_tensor_create_from_host_ptr");
    last = memory;
    return real(type, s, memory, out);
}
int ov_infer_request_infer(void *request) {
    int (*real)(void *) = dlsym(RTLD_NEXT, "ov_infer_request_infer");
    int status = real(request);
    if (getenv("WRONG_NUMBERS"))
        last[0] += 1;
    return status;
}
"""


@pytest.fixture(scope="session")
def real_library(lacks):
    found = sorted(pathlib.Path(root) / name for root, _, names in os.walk(pathlib.Path(__file__).parents[2] / ".venv")
                   for name in names if name.startswith("libopenvino_c.so"))
    if not found:
        lacks("openvino", "openvino is not in .venv")
    return found[0]


@pytest.fixture(scope="session")
def wrapper(real_library, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wrapper")
    (folder / "wrapper.c").write_text(WRAPPER)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", folder / "libopenvino_c.so.9", folder / "wrapper.c",
                    f"-Wl,--no-as-needed,-rpath,{real_library.parent}", real_library], check=True)
    return folder


@pytest.fixture
def ask(hetero, model):
    """Runs a prompt on the NPU; (answer, warnings)."""

    def run(*options, device="openvino:CPU", **environment):
        done = hetero("run", model, "-p", "Name three colours.", "-n", 8, "--temp", 0, "--json", "--precision", "exact",
                      "--devices", device, *options, env=environment)
        return done.json, done.err

    return run


@pytest.fixture(scope="session")
def plain(hetero, model):
    return hetero("run", model, "-p", "Name three colours.", "-n", 8, "--temp", 0, "--json", "--precision", "exact").json


def same(answer, plain, devices):
    assert answer["ids"] == plain["ids"] and answer["devices_used"] == devices


def test_works(ask, plain, wrapper):
    answer, said = ask("--openvino", wrapper)
    same(answer, plain, ["openvino:CPU", "cpu"])
    assert "warning" not in said


@pytest.mark.check
@pytest.mark.parametrize("device", ["npu", "openvino:CPU", "openvino:CPU,cpu"])
def test_missing(ask, plain, hetero, tmp_path, device):
    answer, said = ask("--openvino", tmp_path, "--onnxruntime", tmp_path, device=device)
    same(answer, plain, ["cpu"])
    assert "continuing without" in said and "pip install openvino" in said
    missing = hetero("devices", "--json", "--openvino", tmp_path).json["missing"]
    assert any(d["name"] == "openvino" and "pip install openvino" in d["why"] for d in missing)


def test_no_such_device(ask, plain, wrapper):
    answer, said = ask("--openvino", wrapper, device="openvino:XPU")
    same(answer, plain, ["cpu"])
    assert "continuing without openvino:XPU" in said and "not registered" in said


def test_another_version(ask, plain, tmp_path):
    (tmp_path / "old.c").write_text("int ov_core_create(void **core) { return -1; }")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "libopenvino_c.so.2020", tmp_path / "old.c"], check=True)
    answer, said = ask("--openvino", tmp_path)
    same(answer, plain, ["cpu"])
    assert "another version?" in said
    (tmp_path / "libopenvino_c.so.2020").write_bytes(b"no library")
    answer, said = ask("--openvino", tmp_path)
    same(answer, plain, ["cpu"])
    assert "libopenvino_c.so.2020" in said


def test_does_not_compile(ask, plain, wrapper):
    answer, said = ask("--openvino", wrapper, FAIL_COMPILE="7")
    same(answer, plain, ["openvino:CPU", "cpu"])
    assert "moved to another device: blk." in said and "ov_core_compile_model_props failed" in said
    answer, said = ask("--openvino", wrapper, FAIL_COMPILE="1")
    same(answer, plain, ["cpu"])
    assert "openvino:CPU is idle" in said


def test_computes_wrongly(ask, plain, wrapper):
    answer, said = ask("--openvino", wrapper, "--threads", 1, WRONG_NUMBERS="1")
    same(answer, plain, ["cpu"])
    assert "computes wrong numbers: token 0, row 0" in said


@pytest.mark.parametrize("size,devices", [("1K", ["cpu"]), ("20M", ["openvino:CPU", "cpu"])])
def test_small_memory(ask, plain, wrapper, size, devices):
    answer, said = ask("--openvino", wrapper, "--npu-memory", size)
    same(answer, plain, devices)
    assert "MiB for graphs are left" in said and "moved to another device" in said


def test_cache(ask, plain, wrapper, tmp_path):
    """Kept on disk when asked for; a file that is cut short or another model's is named and made again."""
    def run(warns):
        answer, said = ask("--openvino", wrapper, device="openvino:CPU:cache=on", XDG_CACHE_HOME=str(tmp_path))
        same(answer, plain, ["openvino:CPU", "cpu"])
        assert (warns in said) if warns else "warning" not in said, said

    run("")
    files = sorted((tmp_path / "hetero" / "npu").glob("*.bin"))
    assert len(files) == 90 # layers x (QKV, output, FFN)
    before = [f.stat().st_mtime_ns for f in files]
    run("")
    assert [f.stat().st_mtime_ns for f in files] == before # loaded, not written anew
    os.truncate(files[0], files[0].stat().st_size // 2)
    shutil.copy(files[2], files[1])
    run("it is cut short")
    assert [f.stat().st_mtime_ns != b for f, b in zip(files, before)] == [True, True] + [False] * 88
    run("")
    assert not list((tmp_path / "hetero" / "npu").glob("export.*"))


def test_plan(hetero, model, lacks, npu_device="openvino:CPU"):
    """Prefill on the NPU, decode beside it; memory by device, within the budget."""
    if not any(d["name"] == npu_device for d in hetero("devices", "--json").json["devices"]):
        lacks("openvino", f"no {npu_device}")
    plan = hetero("plan", model, "--devices", npu_device, "--length", 64, "--json").json
    by_name = {o["name"]: o for o in plan["operators"]}
    assert by_name["blk.28.ffn"]["slices"] == [{
        "device": npu_device, "row_begin": 0, "row_end": 1536, "reduction_begin": 0, "reduction_end": 576,
        "head_begin": 0, "head_end": 0, "token_begin": 0, "token_end": 64, "predicted_us": None,
        "bytes": by_name["blk.0.ffn"]["slices"][0]["bytes"], "products": 64 * 3 * 576 * 1536, "rest": False}]
    assert by_name["blk.0.attn"]["slices"][0]["device"] == "cpu" and "blk.0.ffn_down" not in by_name
    # only the last token goes through the end of the last layer: alone, so not as a graph
    last = by_name["blk.29.ffn_down"]["slices"][0]
    assert (last["device"], last["token_begin"], last["token_end"]) == ("cpu", 63, 64) and "blk.29.ffn" not in by_name
    memory = plan["memory"][npu_device]
    listed = [o for o in plan["operators"] if o["slices"][0]["device"] == npu_device]
    beside = ("blk.0.attn_output", "blk.0.ffn") # the last layer's graphs are there all the same
    assert memory["bytes"] == sum(o["slices"][0]["bytes"] for o in listed) + sum(
        by_name[name]["slices"][0]["bytes"] for name in beside)
    assert 0 < memory["bytes"] <= memory["graph_limit"] and memory["emulated"] is False
    limited = hetero("plan", model, "--devices", npu_device, "--length", 64, "--json", "--npu-memory", "50M")
    assert 0 < limited.json["memory"][npu_device]["bytes"] <= 50 << 20 == limited.json["memory"][npu_device]["graph_limit"]
    assert "moved to another device" in limited.err
    decode = hetero("plan", model, "--devices", npu_device, "--decode", "--json").json
    assert list(decode["memory"]) == ["cpu"]
    table = hetero("plan", model, "--devices", npu_device, "--length", 64)
    assert "graphs: at most" in table.out and "blk.0-28.ffn " in table.out
