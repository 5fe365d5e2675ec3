"""What devices may hold: limit=SIZE, --place, and models that are too large."""
import os

import numpy as np
import pytest

GPU = "opencl:0"
MIB = 1 << 20
TINY, CHIP = "shape:tiny", "snapdragon-8-gen-3"
NO_ROOM = "there is no room for it, by limit= or in the device's own memory"


def plan(hetero, model, devices, *more):
    return hetero("plan", model, "--devices", devices, "--json", "--ctx", 256, "--decode", *more).json


def users_of(planned, text):
    return {s["device"] for o in planned["operators"] if text in o["name"] for s in o["slices"]}


def left_of(planned, device=GPU):
    """Why the device leaves which operators."""
    return {row["why"]: row["operators"] for row in planned["left"] if row["device"] == device}


@pytest.mark.parametrize("value", ["0", "x", "-1", "5X", "", " 1M", "+1M"])
def test_bad_limits(hetero, model, value):
    hetero("plan", model, "--devices", f"cpu:limit={value}").refuses(f"limit={value} is not a size")


@pytest.mark.parametrize("device, error", [
    (f"{GPU}:limit=1M:limit=2M", f"device {GPU}: limit= is given twice"),
    (f"{GPU}:limit", f"device {GPU}: option 'limit' needs a value"),
    ("cpu:limit:cpus=0", "device cpu: option 'limit' needs a value"),
    ("cpu:limits=1M", "unknown option 'limits' (known: cpus, isa, fail, limit)")])
def test_bad_options(hetero, device, error):
    hetero("plan", TINY, "--devices", device).refuses(error)


def test_too_little(hetero):
    """Sizes in units that tell them apart, and a hint at what was said."""
    refused = hetero("plan", TINY, "--devices", "cpu:limit=1K")
    refused.refuses("cpu: it may hold 1.0 KiB", "MiB with a context of 1024 tokens", "no other device in use has room",
                    "see --ctx and limit= of --devices", code=1)
    assert "npu-memory" not in refused.err


def test_another_device_does_the_rest(hetero):
    """Beside a CPU without room as beside any other."""
    planned = plan(hetero, TINY, f"cpu:limit=1K,{GPU}")
    assert {name for name, held in planned["memory"].items() if held["bytes"]} == {GPU} # what has no weights may be the CPU's
    planned = plan(hetero, TINY, f"{GPU}:limit=1K,{GPU}:limit=1K,cpu", "--strategy", "single")
    assert "cpu" in planned["memory"]


@pytest.mark.parametrize("first", ["cpu:isa=scalar:cpus=0", "ort:qnn:cpus=0"])
def test_limit_stays_with_its_device(hetero, devices_of, lacks, first):
    """Whatever device before it is closed, or set aside for being emulated."""
    emulated = first.startswith("ort")
    if emulated and "ort:qnn" not in devices_of("ort"):
        lacks("qnn", "onnxruntime-qnn is not in .venv")
    planned = plan(hetero, TINY, f"{first},{GPU}:cpus=1:limit=100K")
    assert not emulated or planned["dropped"][0].startswith("ort:qnn: emulated")
    assert planned["memory"].get(GPU, {"held": 0})["held"] <= 100 << 10


@pytest.mark.parametrize("limit", [1 << 10, 1 << 20, 3 << 20, 4 << 20, 5 << 20])
def test_every_limit_is_possible(hetero, limit):
    """Also just below what the model takes: the CPU does the rest, and a device that is left with nothing is told of."""
    done = hetero("plan", TINY, "--devices", f"{GPU}:limit={limit}", "--json", "--decode")
    held = done.json["memory"].get(GPU)
    if held:
        assert held["held"] <= limit
    else:
        assert f"{GPU} is idle: it may hold {limit >> 10}.0 KiB" in done.err or "MiB, and nothing that fits" in done.err


@pytest.mark.parametrize("devices", ["cpu,gpu:limit=200M", "gpu:limit=200M", "npu:limit=200M,gpu:limit=300M"])
def test_simulated(hetero, devices):
    """The chip's own CPU does the rest."""
    planned = hetero("plan", "shape:llama-3.2-1b", "--soc", CHIP, "--devices", devices, "--json", "--length", 256).json
    gpu, cpu = planned["memory"][f"sim:{CHIP}/gpu"], planned["memory"][f"sim:{CHIP}/cpu"]
    assert 0 < gpu["held"] <= (300 if "300M" in devices else 200) * MIB and cpu["bytes"] > 0
    reasons = left_of(planned, f"sim:{CHIP}/gpu")
    assert set(reasons) == {NO_ROOM, f"quicker on sim:{CHIP}/cpu"}
    assert "argmax" in reasons[f"quicker on sim:{CHIP}/cpu"] and "ffn_down" in reasons[NO_ROOM]


def test_reason_is_place(hetero):
    planned = plan(hetero, TINY, f"{GPU},cpu", "--place", "ffn_down=cpu")
    assert left_of(planned) == {"placed elsewhere by --place": ["ffn_down"]}


@pytest.mark.parametrize("options, name", [
    (("--devices", "gpu,cpu"), "gpu"), (("--devices", f"{GPU},cpu"), GPU), (("--devices", f"{GPU}:cpus=0,cpu"), GPU),
    (("--devices", f"{GPU}:cpus=0,cpu"), f"{GPU}:cpus=0"), (("--soc", CHIP, "--devices", "cpu,gpu"), "gpu"),
    (("--soc", CHIP, "--devices", "cpu,gpu"), f"sim:{CHIP}/gpu")])
def test_names_in_place(hetero, options, name):
    """As --devices takes them; blanks are no matter, and several --place are one."""
    done = hetero("plan", TINY, *options, "--json", "--decode", "--place", f" ffn = {name} , output=cpu", "--place", "blk=cpu")
    gpu = next(device for device in done.json["memory"] if device != "cpu" and not device.endswith("/cpu"))
    assert users_of(done.json, "ffn_gate_up") == users_of(done.json, "ffn_down") == {gpu}
    assert gpu not in users_of(done.json, "attn")


def test_two_of_a_name(hetero):
    two = ("plan", TINY, "--devices", "cpu:cpus=0,cpu:cpus=1", "--decode", "--json")
    hetero(*two, "--place", "ffn=cpu").refuses("place: cpu is more than one device: cpu:cpus=0, cpu:cpus=1")
    assert hetero(*two, "--place", "ffn=cpu:cpus=1").json["left"][0]["why"] == "placed elsewhere by --place"


@pytest.mark.parametrize("rules, error", [
    ("attn", "is not TEXT=DEVICE"), ("=cpu", "is not TEXT=DEVICE"), ("attn=", "is not TEXT=DEVICE"),
    (" = cpu", "is not TEXT=DEVICE"), ("attn=cpu,,ffn=cpu", "is not TEXT=DEVICE"),
    ("attn=gpu7", "gpu7 is none of the devices in use (cpu)"), ("nothing=cpu", 'no operator has "nothing" in its name')])
def test_bad_places(hetero, model, rules, error):
    hetero("plan", model, "--devices", "cpu", "--place", rules).refuses(error)
    hetero("plan", model, "--devices", f"{GPU}:cpus=0,cpu:cpus=1", "--strategy", "tensor", "--place", "attn=cpu").refuses(
        "place: operators are placed where strategy is auto or single")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_held(hetero, model, share):
    """Whatever is placed there, a device holds no more than its limit."""
    limit = int(share * 120)
    planned = plan(hetero, model, f"{GPU}:limit={limit}M")
    memory = planned["memory"].get(GPU, {"held": 0, "bytes": 0})
    assert memory["bytes"] <= memory["held"] <= 1.02 * limit * MIB


def test_held_by_hand(hetero, model):
    """The same where the device is told to compute something: as much of it as fits, and no more."""
    memory = plan(hetero, model, f"{GPU}:limit=40M,cpu", "--place", f"attn={GPU},ffn_down={GPU}")["memory"][GPU]
    assert 20 * MIB < memory["held"] <= 40 * 1.02 * MIB


def test_place_is_followed(hetero, model):
    planned = plan(hetero, model, f"{GPU},cpu", "--place", f"attn_qkv={GPU},attn=cpu,ffn_down=cpu,ffn={GPU}")
    assert users_of(planned, "attn_qkv") == {GPU} == users_of(planned, "ffn_gate_up")
    assert users_of(planned, "ffn_down") == {"cpu"} == users_of(planned, "attn_output")


def test_same_values(score, model):
    """An operator gives the same wherever it is placed, but for rounding."""
    ids = [1, 504, 3575, 282, 4649, 314]
    alone, _ = score(model, ids, "exact", top=1, chunk=0, device="cpu")
    for device in (f"{GPU}:limit=30M", f"{GPU}:limit=70M"):
        divided, _ = score(model, ids, "exact", top=1, chunk=0, device=device)
        assert np.abs(np.array(divided[1:]) - alone[1:]).max() < 1e-3


def test_too_large(hetero):
    if os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") > 29 << 30:
        pytest.skip("this machine has room for it")
    hetero("bench", "shape:llama-3.1-8b:F32", "--devices", "cpu").refuses("more than this machine's memory", code=1)
