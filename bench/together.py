#!/usr/bin/env python3
"""Decode of several sequences in one pass, side by side with llama.cpp's llama-batched-bench, in turn.

usage: together.py MODEL --llama-bin DIR [--hetero FILE] [--rounds N] [--precision fast|exact] [--sequences N,N,...]

Every round runs each engine once, as a process of its own; the figure is the median of the rounds' own ratios. Both decode 32 tokens
of every sequence behind a prompt of 8, hetero's behind none.
"""
import argparse
import json
import pathlib
import re
import statistics
import subprocess


def run(command):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True).stdout


def hetero(args):
    rows = json.loads(run([args.hetero, "bench", args.model, "--prompt", 0, "--gen", 32, "--sequences", args.sequences, "--devices",
                           "cpu", "--threads", args.threads, "--precision", args.precision, "-r", 1, "--quiet", "--json"]))["rows"]
    return [row["tps_median"] for row in rows]


def llama(args):
    table = run([args.llama_bin / "llama-batched-bench", "-m", args.model, "-c", 8192, "-npp", 8, "-ntg", 32, "-npl", args.sequences,
                 "-t", args.threads, "-tb", args.threads, "-fa", "on"])
    return [float(line.split("|")[8]) for line in table.splitlines() if re.match(r"\|\s+8 \|", line)]


def spread(values):
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--llama-bin", type=pathlib.Path, required=True)
    parser.add_argument("--hetero", default="build/hetero")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", default="fast")
    parser.add_argument("--sequences", default="1,4,8")
    args = parser.parse_args()
    taken = {hetero: [], llama: []}
    for k in range(args.rounds):
        for engine in (hetero, llama) if k % 2 else (llama, hetero):
            taken[engine].append(engine(args))
    print(f"{'sequences':>9}  {'hetero, tokens/s':>22}  {'of one':>18}  {'llama.cpp, tokens/s':>22}  {'ratio':>18}")
    for i, n in enumerate(args.sequences.split(",")):
        ours, theirs = ([row[i] for row in taken[engine]] for engine in (hetero, llama))
        print(f"{n:>9}  {spread(ours):>22}  {spread([row[i] / row[0] for row in taken[hetero]]):>18}  {spread(theirs):>22}  "
              f"{spread([a / b for a, b in zip(ours, theirs)]):>18}")


if __name__ == "__main__":
    main()
