"""llama.cpp as a peer: built from the sources inside a PyPI package at a fixed version, and called."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile

PACKAGE = "llama-cpp-python"
VERSION = "0.3.36"
TOOLS = ["llama-bench", "llama-batched-bench", "llama-quantize", "llama-perplexity", "llama-tokenize"]
# Tuned for the machine it runs on (GGML_NATIVE): the peer at its best. The rest only leaves out what is not measured.
OPTIONS = ["-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DLLAMA_CURL=OFF", "-DLLAMA_OPENSSL=OFF",
           "-DLLAMA_BUILD_SERVER=OFF", "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF"]


class PeerError(Exception):
    """Says in one line what failed."""


def call(command, **keywords):
    """Run a command; PeerError with the end of what it said if it fails. Returns its standard output."""
    command = [str(word) for word in command]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", **keywords)
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-5:]
        raise PeerError(f"{' '.join(command)}\n  ended with {done.returncode}: " + "\n  ".join(said))
    return done.stdout


def fetch_sources(scratch):
    """Unpack the package's llama.cpp under scratch; return its folder."""
    folder = scratch / f"llama_cpp_python-{VERSION}"
    sources = folder / "vendor" / "llama.cpp"
    if (sources / "CMakeLists.txt").exists():
        return sources
    print(f"Fetching {PACKAGE} {VERSION} (sources, 77 MB)", file=sys.stderr)
    scratch.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:", "--progress-bar", "on",
           "--disable-pip-version-check", "-d", str(scratch), f"{PACKAGE}=={VERSION}"]
    if subprocess.run(pip, stdout=sys.stderr).returncode != 0:
        raise PeerError(f"pip could not download {PACKAGE}=={VERSION}")
    # Unpacked aside and renamed: a folder under this name is a whole one.
    aside = scratch / "unpacking"
    shutil.rmtree(aside, ignore_errors=True)
    with tarfile.open(scratch / f"llama_cpp_python-{VERSION}.tar.gz") as archive:
        archive.extractall(aside, filter="data") if hasattr(tarfile, "data_filter") else archive.extractall(aside)
    shutil.rmtree(folder, ignore_errors=True)
    (aside / folder.name).rename(folder)
    aside.rmdir()
    return sources


def build(scratch):
    """Build the tools under scratch unless they are there; return the folder they lie in."""
    binaries = scratch / "llama-build" / "bin"
    if all((binaries / tool).exists() for tool in TOOLS):
        return binaries
    for tool in ("cmake", "c++"):
        if shutil.which(tool) is None:
            raise PeerError(f"building llama.cpp needs {tool} (Debian: apt-get install cmake g++)")
    sources = fetch_sources(scratch)
    print("Building llama.cpp (about ten minutes on two cores)", file=sys.stderr)
    call(["cmake", "-S", sources, "-B", binaries.parent, *OPTIONS])
    call(["cmake", "--build", binaries.parent, "-j", os.cpu_count() or 1, "--target", *TOOLS])
    return binaries


def find(scratch, given=None):
    """The folder of the tools: the given one, checked, or one built under scratch."""
    if given is None:
        return build(scratch)
    given = pathlib.Path(given).resolve()
    missing = [tool for tool in TOOLS if not (given / tool).exists()]
    if missing:
        raise PeerError(f"{given} lacks {', '.join(missing)}")
    return given


def commit(binaries):
    """The commit the tools say they were built from, with the package's version."""
    done = subprocess.run([binaries / "llama-bench", "--version"], capture_output=True, text=True, errors="replace")
    found = re.search(r"commit ([0-9a-f]+)|\(([0-9a-f]{7,})\)", done.stdout + done.stderr)
    return (found[1] or found[2]) if found else "unknown"


def bench_command(binaries, model, phase, tokens, threads):
    """llama-bench for one measured run of one phase; it warms up by itself before."""
    lengths = ["-p", tokens, "-n", 0] if phase == "prompt" else ["-p", 0, "-n", tokens]
    command = [binaries / "llama-bench", "-m", model, *lengths, "-t", threads, "-r", 1, "-o", "json"]
    return [str(word) for word in command]


def bench(binaries, model, phase, tokens, threads):
    """Tokens per second of one run."""
    rows = json.loads(call(bench_command(binaries, model, phase, tokens, threads)))
    return float(rows[0]["avg_ts"])


def quantize(binaries, source, out, kind):
    """Write source's weights as kind; the file appears under its name only when it is whole."""
    partial = out.with_name(out.name + ".partial")
    call([binaries / "llama-quantize", source, partial, kind, os.cpu_count() or 1])
    os.replace(partial, out)
