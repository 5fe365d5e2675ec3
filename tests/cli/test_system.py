"""What the command does to the system: the files that it writes, the cores that it takes, the libraries that it opens."""
import json
import os
import pathlib
import shutil
import signal
import stat
import subprocess
import time

import pytest

B = "shape:tiny"  # a model


def quiet_environment(**more):
    """No runtime that the user, or the checkout, has made known."""
    left_out = ("VIRTUAL_ENV", "CONDA_PREFIX", "HETERO_OPENVINO", "HETERO_ONNXRUNTIME")
    return {**{key: value for key, value in os.environ.items() if key not in left_out}, **more}


# ---- libraries

HOSTILE = """
#include <stdio.h>
__attribute__((constructor)) static void hostile(void) {
    FILE *file = fopen("%s", "w");
    if (file)
        fclose(file);
}
"""


@pytest.fixture
def hostile(tmp_path):
    """A folder with a .venv, libraries and programs that leave a mark when anything of them runs; (folder, mark)."""
    if not shutil.which("cc"):
        pytest.skip("no C compiler")
    mark, folder = tmp_path / "was here", tmp_path / "folder"
    packages = folder / ".venv" / "lib" / "python3.11" / "site-packages"
    for place, name in ((packages / "openvino" / "libs", "libopenvino_c.so"), (packages / "onnxruntime" / "capi", "libonnxruntime.so"),
                        (folder, "libopenvino_c.so"), (folder, "libonnxruntime.so"), (folder, "libOpenCL.so.1")):
        place.mkdir(parents=True, exist_ok=True)
        source = tmp_path / "hostile.c"
        source.write_text(HOSTILE % mark, encoding="utf-8")
        subprocess.run(["cc", "-shared", "-fPIC", "-o", str(place / name), str(source)], check=True)
    for place in (folder, folder / ".venv" / "bin"):
        place.mkdir(exist_ok=True)
        program = place / "python3"
        program.write_text(f"#!/bin/sh\n: >'{mark}'\n", encoding="utf-8")
        program.chmod(0o755)
    return folder, mark


@pytest.mark.parametrize("more", [{}, {"VIRTUAL_ENV": ".venv"}, {"CONDA_PREFIX": ".venv"}, {"HOME": "."}])
def test_nothing_of_the_current_folder_runs(binary, hostile, more):
    folder, mark = hostile
    environment = quiet_environment(**more)
    environment["PATH"] = f"{folder}:{environment['PATH']}"  # python3 is not asked either
    done = subprocess.run([binary, "devices"], cwd=folder, env=environment, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert not mark.exists()


def test_what_the_user_names_is_opened(binary, hostile):
    folder, mark = hostile
    for arguments, more in ((["--openvino", ".venv"], {}), ([], {"HETERO_OPENVINO": ".venv"}),
                            ([], {"VIRTUAL_ENV": str(folder / ".venv")})):
        subprocess.run([binary, "devices", *arguments], cwd=folder, env=quiet_environment(**more), capture_output=True,
                       timeout=120, check=True)
        assert mark.exists(), (arguments, more)
        mark.unlink()


# ---- cores

def threads_of(binary, *before):
    done = subprocess.run([*before, binary, "bench", B, "--prompt", "4", "--gen", "0", "-r", "1", "--devices", "cpu", "--json",
                           "--quiet"], capture_output=True, timeout=120, check=True)
    return json.loads(done.stdout)["rows"][0]["threads"]


@pytest.mark.skipif(not shutil.which("taskset") or len(os.sched_getaffinity(0)) < 2, reason="needs taskset and two cores")
def test_affinity_counts(binary):
    cores = sorted(os.sched_getaffinity(0))
    assert threads_of(binary, "taskset", "-c", str(cores[1])) == 1
    assert threads_of(binary) <= len(cores)
    done = subprocess.run(["taskset", "-c", str(cores[0]), binary, "plan", B, "--devices", f"cpu:cpus={cores[1]}"],
                          capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2 and f"may use {cores[0]} only" in done.stderr


def test_threads_have_one_limit(hetero):
    hetero("plan", B, "--threads", 1025).refuses("1024")


# ---- files that are written

def writers(model, folder):
    """(name, arguments that write FILE)."""
    profile = ["profile", B, "--quick", "--devices", "cpu", "--report"]
    return {"quantize": ["quantize", model, None, "q8_0"], "report": ["report", B, "--devices", "cpu", "--out", None],
            "save": ["plan", B, "--devices", "cpu", "--save", None], "trace": ["plan", B, "--devices", "cpu", "--run", "--trace", None],
            "profile": [*profile, None]}


@pytest.fixture(params=["quantize", "report", "save", "trace", "profile"])
def writer(request, hetero, model, tmp_path):
    arguments = writers(model, tmp_path)[request.param]
    return lambda path, **more: hetero(*[path if a is None else a for a in arguments], **more)


def test_links_modes_and_devices(writer, tmp_path):
    target, link, pipe = tmp_path / "target", tmp_path / "link", tmp_path / "pipe"
    link.symlink_to("target")
    os.mkfifo(pipe)
    for path in (pipe, tmp_path, "/dev/null", "/dev/full"):
        done = writer(path)
        assert done.code == 2 and str(path) in done.err and "cannot be written" in done.err, (path, done.err)
    assert stat.S_ISFIFO(pipe.stat().st_mode) and stat.S_ISCHR(os.stat("/dev/null").st_mode)
    before = os.umask(0o027)
    try:
        done = writer(link)
    finally:
        os.umask(before)
    assert done.code == 0, done.err
    assert link.is_symlink() and target.stat().st_size > 0 and stat.S_IMODE(target.stat().st_mode) == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "pipe", "target"]


def test_full_disk_keeps_the_older_plan(binary, tmp_path):
    """A limit on the size of files is what a full disk is to a program."""
    plan = tmp_path / "plan.json"
    plan.write_text("older", encoding="utf-8")
    done = subprocess.run(["sh", "-c", 'trap "" XFSZ; ulimit -f 1; exec "$@"', "sh", binary, "plan", "shape:smollm2-135m", "--devices", "cpu",
                           "--save", str(plan)], capture_output=True, text=True, timeout=120, check=False,
                          env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")})
    assert done.returncode == 1 and "plan.json" in done.stderr, done.stderr
    assert plan.read_text(encoding="utf-8") == "older"
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["plan.json"]


def start_quantize(binary, model, out):
    child = subprocess.Popen([binary, "quantize", model, str(out), "q4_1", "--quiet"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    end = time.monotonic() + 60
    while not any(path.name.startswith(".hetero-") for path in out.parent.iterdir()):
        assert child.poll() is None and time.monotonic() < end, child.stderr.read()
        time.sleep(0.002)
    return child


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing(binary, model, tmp_path, number):
    out, users = tmp_path / "out.gguf", tmp_path / "out.gguf.tmp"
    out.write_text("older", encoding="utf-8")
    users.write_text("the user's", encoding="utf-8")
    child = start_quantize(binary, model, out)
    child.send_signal(number)
    assert child.wait(60) == -number
    assert out.read_text(encoding="utf-8") == "older" and users.read_text(encoding="utf-8") == "the user's"
    assert len(list(tmp_path.iterdir())) == 2


def test_two_write_one_file(binary, model, tmp_path, hetero):
    out, alone = tmp_path / "out.gguf", tmp_path / "alone.gguf"
    children = [start_quantize(binary, model, out) for _ in range(2)]
    assert [child.wait(120) for child in children] == [0, 0]
    assert hetero("quantize", model, alone, "q4_1").code == 0
    assert out.read_bytes() == alone.read_bytes()


# ---- standard output

def test_what_is_asked_for_alone_is_on_standard_output(binary, model, tmp_path):
    """A driver that writes to descriptor 1 when it is opened: not among the answer's text."""
    if not shutil.which("cc"):
        pytest.skip("no C compiler")
    source = tmp_path / "chatty.c"
    source.write_text('#include <stdio.h>\n__attribute__((constructor)) static void f(void) { puts("chatter"); }\n', encoding="utf-8")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(tmp_path / "libopenvino_c.so"), str(source)], check=True)
    for command in (["devices"], ["run", model, "-p", "Hi", "-n", "2", "--devices", "openvino:CPU,cpu"]):
        done = subprocess.run([binary, *command, "--openvino", str(tmp_path), "--quiet"], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0 and done.stdout and "chatter" not in done.stdout and "chatter" in done.stderr, done
