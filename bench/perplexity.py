#!/usr/bin/env python3
"""Perplexity of one model on one text: hetero exact, hetero fast and llama.cpp, in one table.

`hetero perplexity` begins each window of 512 tokens with BOS where the model has one. llama-perplexity does so only where
the tokenizer adds it (SmolLM2's does not), takes windows of 512 tokens of the text, drops what is left over, and counts the
predictions of tokens 257 to 511 of each (numbered from 0): 255 of them. So that engines are compared on the same tokens,
hetero also scores llama-perplexity's windows (`hetero score`); those three rows are comparable.
"""
import argparse
import datetime
import json
import math
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "bench" / "peers"))
import llama_cpp  # noqa: E402
from llama_cpp import PeerError, call  # noqa: E402
from run import hetero_commit, machine, public  # noqa: E402

WINDOW = 512
COUNTED = WINDOW - 1 - WINDOW // 2


def llama_perplexity(binaries, model, text, threads):
    """Perplexity, its standard error, and the predictions counted."""
    command = [binaries / "llama-perplexity", "-m", model, "-f", text, "-c", WINDOW, "-b", WINDOW, "-ub", WINDOW,
               "-t", threads]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, errors="replace")
    said = done.stdout + done.stderr
    final = re.search(r"Final estimate: PPL = ([0-9.]+) \+/- ([0-9.]+)", said)
    windows = re.search(r"perplexity over (\d+) chunks", said)
    if done.returncode != 0 or not final or not windows:
        raise PeerError(f"llama-perplexity gave no figure: {' '.join(said.strip().splitlines()[-2:])}")
    return float(final[1]), float(final[2]), int(windows[1]) * COUNTED


def hetero_perplexity(args, precision):
    command = [args.hetero, "perplexity", args.model, "-f", args.text, "--precision", precision, "--devices", "cpu",
               "--threads", args.threads, "--json", "--quiet"]
    return json.loads(call(command + (["--reference", "exact"] if precision == "fast" else [])))


def hetero_on_windows(args, precision):
    """Perplexity of llama-perplexity's own windows and predictions, through `hetero score`; predictions counted."""
    common = ["--json", "--quiet"]
    ids = json.loads(call([args.hetero, "tokenize", args.model, "-f", args.text, *common]))["ids"]
    bare = json.loads(call([args.hetero, "tokenize", args.model, "-f", args.text, "--no-special", *common]))["ids"]
    bos = ids[:1] if len(ids) > len(bare) else [] # the tokenizer adds it
    losses = []
    for start in range(0, len(ids) - WINDOW + 1, WINDOW):
        window = (bos + ids[start + len(bos):start + WINDOW])
        scored = json.loads(call([args.hetero, "score", args.model, "--ids", ",".join(map(str, window)), "--precision",
                                  precision, "--devices", "cpu", "--threads", args.threads, *common]))
        losses += [-value for value in scored["logprobs"][WINDOW // 2 + 1:]]
    return {"perplexity": math.exp(sum(losses) / len(losses)), "tokens": len(losses)}


def table(exact, fast, same, peer):
    lines = ["| engine | perplexity | against exact | predictions | mean KL, nats | same first token |",
             "|---|--:|--:|--:|--:|--:|"]
    change = lambda value: f"{100 * (value / exact['perplexity'] - 1):+.3f}%"  # noqa: E731
    lines.append(f"| hetero exact | {exact['perplexity']:.4f} | | {exact['tokens']} | | |")
    lines.append(f"| hetero fast | {fast['perplexity']:.4f} | {change(fast['perplexity'])} | {fast['tokens']} "
                 f"| {fast['kl_mean']:.5f} | {100 * fast['top1_agreement']:.2f}% |")
    exact = same["exact"]
    for name, row in same.items():
        lines.append(f"| hetero {name}, llama.cpp's windows | {row['perplexity']:.4f} | {change(row['perplexity'])} "
                     f"| {row['tokens']} | | |")
    lines.append(f"| llama.cpp | {peer[0]:.4f} (+/- {peer[1]:.4f}) | {change(peer[0])} | {peer[2]} | | |")
    return "\n".join(lines)


def run(args):
    binaries = llama_cpp.find(args.scratch.resolve(), args.llama_bin)
    exact, fast = hetero_perplexity(args, "exact"), hetero_perplexity(args, "fast")
    peer = llama_perplexity(binaries, args.model, args.text, args.threads)
    same = {precision: hetero_on_windows(args, precision) for precision in ("exact", "fast")}
    change = fast["perplexity"] / exact["perplexity"] - 1
    print(f"{args.model.name}, {args.text.name}; hetero {hetero_commit(args.hetero)}, "
          f"llama.cpp {llama_cpp.commit(binaries)}\n")
    print(table(exact, fast, same, peer))
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        now = datetime.datetime.now(datetime.timezone.utc)
        result = {"date": now.isoformat(timespec="seconds"), "machine": machine(), "commit": hetero_commit(args.hetero),
                  "llama_cpp": llama_cpp.commit(binaries), "command": public([sys.executable, *sys.argv]),
                  "model": args.model.name, "text": args.text.name, "hetero_exact": exact, "hetero_fast": fast, "same_windows": same,
                  "llama_cpp_result": dict(zip(("perplexity", "error", "tokens"), peer)), "fast_change": change}
        (args.out / now.strftime("perplexity-%Y%m%d-%H%M%S.json")).write_text(json.dumps(result, indent=1) + "\n")
    if not same["exact"]["tokens"] == same["fast"]["tokens"] == peer[2]:
        raise PeerError(f"the rows do not compare: hetero made {same['exact']['tokens']} predictions, llama.cpp {peer[2]}")
    if abs(change) > args.tolerance:
        raise PeerError(f"fast is {100 * change:+.3f}% from exact; allowed is {100 * args.tolerance}%")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=pathlib.Path, default=ROOT / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--text", type=pathlib.Path, default=ROOT / "tests" / "data" / "text.txt")
    parser.add_argument("--hetero", type=pathlib.Path, default=ROOT / "build" / "hetero")
    parser.add_argument("--llama-bin", metavar="DIR", help="llama.cpp's tools, built already (default: build them)")
    parser.add_argument("--scratch", type=pathlib.Path, default=ROOT / ".scratch")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--tolerance", type=float, default=0.005, metavar="PART",
                        help="fast against exact, relative (default: %(default)s)")
    parser.add_argument("--out", type=pathlib.Path, help="folder for a results file (default: none)")
    try:
        run(parser.parse_args())
    except (PeerError, OSError) as error:
        sys.exit(f"perplexity: {error}")


if __name__ == "__main__":
    main()
