"""hetero report: what is in it, that nothing personal is, and that what fails is an entry."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import time

import pytest

KEYS = {"hetero", "date", "machine", "devices", "missing", "runtimes", "profile", "model", "plans", "bench"}
USER, NAME, HOST = "zebediah", "Zebediahs Secret Plan", "quaggabox"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people") / USER
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def on_host():
    """What to put before a command so that it meets another host name, where this user may change it."""
    command = ["unshare", "--uts", "sh", "-c", f'hostname {HOST} && exec "$@"', "sh"]
    allowed = shutil.which("unshare") and subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0
    return command if allowed else []


@pytest.fixture(scope="module")
def report(binary, home, on_host):
    def run(*arguments, code=0, env=None, cwd=home):
        environment = {**os.environ, "HOME": str(home), "USER": USER, "LOGNAME": USER, "HOSTNAME": HOST,
                       "XDG_CACHE_HOME": str(home / "a cache"), **(env or {})}
        done = subprocess.run([*on_host, binary, "report", *map(str, arguments)], capture_output=True, text=True, timeout=120,
                              check=False, env=environment, cwd=cwd)
        assert done.returncode == code, done.stderr
        return done

    return run


def check_private(text, home):
    names = [USER, HOST, NAME, "secret", "a cache", str(home.parent), str(home.parent.parent)]
    for name in names:
        assert name.lower() not in text.lower(), name
    assert not re.search(r'"/[a-z]', text) and "HOME" not in text


def test_default(report, home):
    start = time.monotonic()
    done = report()
    assert time.monotonic() - start < 60  # 3 s on a quiet machine
    assert re.fullmatch(r"hetero-report-\d{8}-\d{6}\.json\n", done.stdout)
    text = (home / done.stdout.strip()).read_text(encoding="utf-8")
    check_private(text, home)
    answer = json.loads(text)
    assert KEYS <= set(answer) <= KEYS | {"log"}
    assert answer["hetero"]["version"] == "0.2.0" and answer["hetero"]["commit"] and answer["hetero"]["compiler"]
    machine = answer["machine"]
    assert machine["kernel"].startswith(f"Linux {os.uname().release}") and machine["memory_bytes"] > 0
    assert sum(group["n"] for group in machine["core_groups"]) >= machine["cores"] > 0
    assert answer["runtimes"]["cpu"].startswith("hetero ") and "openvino" in answer["runtimes"]
    assert answer["model"]["made_up"] and answer["model"]["layers"] == 30
    assert "no profile" in answer["profile"]["error"] and answer["profile"]["status"] == "io"
    assert [plan["tokens"] for plan in answer["plans"][:3]] == [64, 256, 1]
    assert sum(op["layers"] for op in answer["plans"][0]["operators"]) == 30 * 9 + 4
    rows = [(row.get("prompt"), row.get("gen")) for row in answer["bench"][:3]]
    assert rows == [(64, None), (256, None), (None, 16)]
    assert all(row["tps_median"] > 0 and row["devices_used"] and row["devices"] == "default" for row in answer["bench"][:3])


def test_devices_are_those_of_the_command(report, command_json):
    answer = json.loads(report("shape:tiny", "--json", env={"HOME": os.environ.get("HOME", "/")}).stdout)
    listed = command_json("devices", "--all")
    names = [row["name"] for row in answer["devices"]]
    assert names == [row["name"] for row in listed["devices"] if row["name"] in names]
    assert {"cpu"} <= set(names)
    for row in answer["devices"]:
        same = next(other for other in listed["devices"] if other["name"] == row["name"])
        assert row.keys() == same.keys() and row["dtypes"] == same["dtypes"] and row["kind"] == same["kind"]


def test_nothing_personal(report, home, model):
    """Names wherever they can come from: the model's path, the environment, a stored profile, errors of runtimes and devices."""
    folder = home / "secret folder"
    folder.mkdir()
    (folder / f"{NAME}.gguf").symlink_to(model)
    subprocess.run([os.environ.get("HETERO", "build/hetero"), "profile", "shape:tiny", "--quick", "--devices", "cpu:cpus=0"],
                   env={**os.environ, "XDG_CACHE_HOME": str(home / "a cache")}, check=True, capture_output=True,
                   cwd=pathlib.Path(__file__).resolve().parents[2])
    kept = next((home / "a cache" / "hetero" / "profile").glob("*.json"))
    content = json.loads(kept.read_text(encoding="utf-8"))
    content["model"] = f"{NAME}.gguf"
    content["fingerprints"][0]["description"] = f"{USER}'s CPU"
    kept.write_text(json.dumps(content), encoding="utf-8")
    done = report(folder / f"{NAME}.gguf", "--json", "--devices", f"cpu,opencl:99,openvino:{home}/secret",
                  env={"HETERO_OPENVINO": str(home / "secret runtime")})
    check_private(done.stdout, home)
    assert not list(home.glob("*secret*.json"))
    answer = json.loads(done.stdout)
    assert answer["model"]["arch"] == "llama" and not answer["model"]["made_up"]
    assert answer["model"]["tensors_by_type"]["Q4_1"]["tensors"] > 0
    assert answer["profile"]["model"] == "FILE" and answer["profile"]["tables"]["curve"]
    assert any("USER" in stale for stale in answer["profile"]["stale"])
    whys = {row["name"]: row["why"] for row in answer["missing"]}
    assert "~" in whys["openvino"] or "PATH" in whys["openvino"]
    # all, with what is not there left out, and each alone
    assert any("opencl:99" in line for line in answer["log"])
    alone = [row for row in answer["bench"] if row["devices"] == "opencl:99"]
    assert len(alone) == 1 and "opencl:99" in alone[0]["error"] and alone[0]["status"] == "device"
    assert len([row for row in answer["bench"] if row["devices"] == "cpu" and row["tps_median"] > 0]) == 3


def test_out(report, home):
    file = home / "mine.json"
    file.write_text("old", encoding="utf-8")
    assert report("shape:tiny", "--out", file).stdout == f"{file}\n"
    assert json.loads(file.read_text(encoding="utf-8"))["model"]["layers"] == 2
    done = report("shape:tiny", "--out", home / "nowhere" / "r.json", code=1)
    assert "cannot be written" in done.stderr and done.stdout == ""


def test_json_writes_no_file(report, tmp_path):
    assert KEYS <= set(json.loads(report("shape:tiny", "--json", cwd=tmp_path).stdout))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments,says", [(["no/such.gguf"], "no/such.gguf"), (["shape:none"], "unknown shape"),
                                            (["shape:tiny", "--devices", "quantum:0"], "quantum:0")])
def test_wrong_usage(report, tmp_path, arguments, says):
    done = report(*arguments, code=2, cwd=tmp_path)
    assert says in done.stderr and done.stdout == "" and not list(tmp_path.iterdir())


def test_broken_model_is_an_entry(report, home, model):
    file = home / f"{NAME} cut.gguf"
    with open(model, "rb") as whole:
        file.write_bytes(whole.read(100000))
    done = report(file, "--json")
    check_private(done.stdout, home)
    answer = json.loads(done.stdout)
    assert "MODEL" in answer["model"]["error"] and answer["model"]["status"] == "format"
    assert answer["bench"] == [] and answer["devices"]


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
@pytest.mark.parametrize("code,says", [("*(volatile int *)0 = 1;", "it crashed: signal 11"),
                                       ("_exit(0);", "it ended without an answer")])
def test_crash_is_an_entry(report, tmp_path, code, says):
    source = tmp_path / "crash.c"
    source.write_text("#include <unistd.h>\n__attribute__((constructor)) static void f(void) { %s }\n" % code, encoding="utf-8")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(tmp_path / "libopenvino_c.so"), str(source)], check=True)
    answer = json.loads(report("shape:tiny", "--json", "--openvino", tmp_path).stdout)
    assert answer["runtimes"]["openvino"].startswith(says) and answer["runtimes"]["cpu"].startswith("hetero")
    # a runtime that fails like this may take the default devices along: the CPU is run by itself, too
    assert [row["devices"] for row in answer["bench"]] == ["default"] * 3 + ["cpu"] * 3
