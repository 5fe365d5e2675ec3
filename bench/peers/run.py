#!/usr/bin/env python3
"""Speed of hetero side by side with a peer (llama.cpp, openvino-genai): same files, same threads, runs taken in turn.

Every round runs each engine once, as a process of its own with its own warm-up, and the order changes from round to
round, so that a machine that slows down or is shared does it to both alike. The figure to look at is the ratio: the
median over the rounds of hetero's speed by the peer's in the same round.
"""
import argparse
import datetime
import json
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys

import genai
import llama_cpp

from llama_cpp import PeerError, call

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"
DEFAULT_MODELS = ["smollm2", "1B-Q4_0", "1B-Q4_K_M", "1B-Q8_0"]
PEERS = {"llama.cpp": llama_cpp, "openvino-genai": genai}
PHASES = {"prefill": "prompt", "decode": "gen"}


# ---- models ------------------------------------------------------------------------------------------------------

def python_with_gguf(scratch):
    """A Python that can write GGUF: this one, the tests' .venv, or one made under scratch."""
    own = scratch / "venv" / "bin" / "python"
    for python in (pathlib.Path(sys.executable), ROOT / ".venv" / "bin" / "python", own):
        test = [python, "-c", "import gguf, numpy"]
        if python.exists() and subprocess.run(test, capture_output=True).returncode == 0:
            return python
    print("Making a Python environment with numpy and gguf", file=sys.stderr)
    call([sys.executable, "-m", "venv", own.parent.parent])
    pins = [line for line in (ROOT / "tests/requirements.txt").read_text().split() if re.match("numpy|gguf", line)]
    call([own, "-m", "pip", "install", "-q", *pins])
    return own


def synthetic_model(name, folder, scratch, binaries):
    """SHAPE-TYPE, such as 1B-Q4_0: written in F16 once, quantised by llama-quantize."""
    shape, _, kind = name.partition("-")
    target, source = folder / f"{name}.gguf", folder / f"{shape}-F16.gguf"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    if not source.exists():
        print(f"Writing {source.name} (random weights)", file=sys.stderr)
        call([python_with_gguf(scratch), pathlib.Path(__file__).with_name("synthetic.py"), source, "--shape", shape,
              "--donor", find_model("smollm2", folder, scratch, binaries)])
    if kind != "F16":
        print(f"Quantising {target.name}", file=sys.stderr)
        llama_cpp.quantize(binaries, source, target, kind)
    return target


def find_model(name, folder, scratch, binaries):
    """Path of a model named as a file, as smollm2, or as a synthetic SHAPE-TYPE."""
    if name == "smollm2":
        call([sys.executable, ROOT / "tools/fetch_models.py", "smollm2"])
        return ROOT / "models" / SMOLLM2
    if pathlib.Path(name).is_file():
        return pathlib.Path(name)
    if re.fullmatch(r"(1B|tiny)-[A-Z0-9_]+", name):
        return synthetic_model(name, folder, scratch, binaries)
    raise PeerError(f"model '{name}' is no file, not smollm2, and no synthetic one (1B-TYPE)")


# ---- one run -----------------------------------------------------------------------------------------------------

def hetero_command(args, model, phase, tokens, threads):
    other = "--gen" if phase == "prompt" else "--prompt"
    command = [args.hetero, "bench", model, f"--{phase}", tokens, other, 0, "-r", 3, "--threads", threads,
               "--devices", args.devices, "--precision", args.precision, "--json", "--quiet"]
    return [str(word) for word in command]


def hetero_run(args, model, phase, tokens, threads):
    """Tokens per second and the peak memory of one run."""
    row = json.loads(call(hetero_command(args, model, phase, tokens, threads)))["rows"][0]
    return float(row["tps_median"]), int(row["peak_rss_bytes"])


def measure(args, binaries, name, model, phase_name, threads):
    """All rounds of one line of the table, as the dictionary that goes into the results file."""
    phase = PHASES[phase_name]
    tokens = args.prompt if phase == "prompt" else args.gen
    ours, theirs, peaks = [], [], []

    def run_hetero():
        speed, peak = hetero_run(args, model, phase, tokens, threads)
        ours.append(speed)
        peaks.append(peak)

    def run_peer():
        theirs.append(PEERS[args.peer].bench(binaries, model, phase, tokens, threads))

    for i in range(args.rounds):
        for run in (run_peer, run_hetero) if i % 2 == 0 else (run_hetero, run_peer):
            run()
        print(f"  {name} {phase_name} {threads}t round {i + 1}/{args.rounds}: "
              f"hetero {ours[-1]:.1f}, {args.peer} {theirs[-1]:.1f}", file=sys.stderr)
    return {"model": name, "file_bytes": os.path.getsize(model), "phase": phase_name, "tokens": tokens,
            "threads": threads, "hetero_tps": ours, "peer_tps": theirs,
            "ratio": statistics.median(a / b for a, b in zip(ours, theirs)), "hetero_peak_rss_bytes": max(peaks),
            "commands": {"hetero": public(hetero_command(args, model, phase, tokens, threads)),
                         args.peer: public(PEERS[args.peer].bench_command(binaries, model, phase, tokens, threads))}}


def public(command):
    """A command without this machine's folders."""
    return " ".join(os.path.basename(word) if os.sep in word else word for word in map(str, command))


# ---- the report --------------------------------------------------------------------------------------------------

def machine():
    """What a reader needs to judge the figures; nothing that names the machine."""
    cpu, flags = platform.processor(), ""
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            cpu = value.strip()
        if key.strip() == "flags":
            flags = value
    seen = [flag for flag in ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8") if flag in flags.split()]
    memory = re.search(r"MemTotal:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text())
    return {"cpu": cpu, "cores": os.cpu_count(), "isa": seen, "memory_gib": round(int(memory[1]) / 2**20, 1),
            "kernel": platform.release().split("-")[0]}


def spread(values):
    return f"{statistics.median(values):.1f} ({min(values):.1f}-{max(values):.1f})"


def markdown(rows, peer):
    """The table, tokens per second: median (lowest-highest)."""
    lines = [f"| model | phase | threads | hetero, tokens/s | {peer}, tokens/s | ratio | peak RSS / file |",
             "|---|---|--:|--:|--:|--:|--:|"]
    for row in rows:
        lines.append(f"| {row['model']} | {row['phase']} {row['tokens']} | {row['threads']} "
                     f"| {spread(row['hetero_tps'])} | {spread(row['peer_tps'])} | {row['ratio']:.2f} "
                     f"| {row['hetero_peak_rss_bytes'] / row['file_bytes']:.2f} |")
    return "\n".join(lines)


def hetero_commit(binary):
    """The commit that the binary was built from, which need not be the one checked out."""
    found = re.search(r"commit ([0-9a-z-]+)", call([binary, "--version"]))
    return found[1] if found else "unknown"


def peer_version(args, binaries):
    if args.peer == "openvino-genai":
        return genai.PACKAGES[0]
    package = f"{llama_cpp.PACKAGE}=={llama_cpp.VERSION}" if not args.llama_bin else "given"
    return f"{package}, commit {llama_cpp.commit(binaries)}"


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hetero", type=pathlib.Path, default=ROOT / "build" / "hetero")
    parser.add_argument("--llama-bin", metavar="DIR", help="llama.cpp's tools, built already (default: build them)")
    parser.add_argument("--peer", default="llama.cpp", choices=PEERS, help="(default: %(default)s)")
    parser.add_argument("--genai-python", metavar="PYTHON", help="one that has openvino-genai (default: make it)")
    parser.add_argument("--scratch", type=pathlib.Path, default=ROOT / ".scratch",
                        help="where things are built and kept (default: .scratch)")
    parser.add_argument("--model-dir", type=pathlib.Path, help="where synthetic models are (default: SCRATCH/models)")
    parser.add_argument("--models", default=",".join(DEFAULT_MODELS),
                        help="smollm2, 1B-TYPE, files (default: %(default)s)")
    parser.add_argument("--threads", default="1,2", help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--phases", default="prefill,decode", help="(default: %(default)s)")
    parser.add_argument("--prompt", type=int, default=256, help="tokens of prefill (default: %(default)s)")
    parser.add_argument("--gen", type=int, default=64, help="tokens of decode (default: %(default)s)")
    parser.add_argument("--devices", default="cpu", help="hetero's devices (default: %(default)s)")
    parser.add_argument("--precision", default="fast", choices=["fast", "exact"])
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "bench" / "results", help="folder for results")
    parser.add_argument("--prepare", action="store_true", help="build and fetch everything, measure nothing")
    args = parser.parse_args()
    args.scratch = args.scratch.resolve()
    for phase in args.phases.split(","):
        if phase not in PHASES:
            parser.error(f"no phase '{phase}' (there are: {', '.join(PHASES)})")
    if not re.fullmatch(r"\d+(,\d+)*", args.threads):
        parser.error(f"--threads: '{args.threads}' is no list of numbers")
    if args.rounds < 1:
        parser.error("--rounds: at least 1")
    return args


def run(args):
    llama = args.peer == "llama.cpp" or any(name != "smollm2" and not pathlib.Path(name).is_file()
                                            for name in args.models.split(","))
    binaries = tools = llama_cpp.find(args.scratch, args.llama_bin) if llama else None # it makes the models, too
    if args.peer == "openvino-genai":
        binaries = genai.find(args.scratch, args.genai_python)
    folder = args.model_dir or args.scratch / "models"
    models = [(name, find_model(name, folder, args.scratch, tools)) for name in args.models.split(",")]
    if args.prepare:
        return
    if not args.hetero.exists():
        raise PeerError(f"{args.hetero} is not there: build it first (make build)")
    began = datetime.datetime.now(datetime.timezone.utc)
    rows = [measure(args, binaries, pathlib.Path(name).name, model, phase, int(threads))
            for name, model in models for phase in args.phases.split(",") for threads in args.threads.split(",")]
    result = {"date": began.isoformat(timespec="seconds"), "machine": machine(), "commit": hetero_commit(args.hetero),
              "peer": args.peer, "peer_version": peer_version(args, binaries),
              "precision": args.precision, "devices": args.devices, "rounds": args.rounds,
              "command": public([sys.executable, *sys.argv]), "rows": rows}
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / began.strftime("peers-%Y%m%d-%H%M%S.json")
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"hetero {result['commit']} ({args.precision}, {args.devices}) and {args.peer} {result['peer_version']}, "
          f"{result['machine']['cpu']}, {result['machine']['cores']} cores, {args.rounds} rounds in turn; "
          "median (lowest-highest), ratio: median over the rounds\n")
    print(markdown(rows, args.peer))
    print(f"\nwritten: {os.path.relpath(path)}", file=sys.stderr)


def main():
    try:
        run(parse())
    except (PeerError, OSError) as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
