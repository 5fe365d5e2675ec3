#!/usr/bin/env python3
"""Is this build slower than that one? Paired ratios, in turn.

    python3 bench/ratio.py OLD/build/hetero NEW/build/hetero [--rounds 9] [--models FILE,shape:...] [--devices cpu@1 --devices P ...] [--out FILE.json]

In every round each setting is measured with OLD, NEW, and OLD again, each in a process of its own, in an order that turns
from round to round. NEW/OLD says whether NEW is slower; OLD/OLD says what the machine does to equal things. A cell is the
median of its rounds' ratios with an exact interval of at least 95% (order statistics: a sign test turned round). A cell
fails if its interval lies below 0.98; all fail if the geometric mean of the cells is below 0.99. Exit status 1 then.
"""
import argparse
import json
import math
import os
import statistics
import subprocess
import sys

P = "opencl:0:cpus=0,openvino:CPU:cpus=1"
SETTINGS = (("cpu", 1), ("cpu", 2), (P, 0))  # devices, threads (0: does not apply)


def setting(text):
    """"cpu@1": ("cpu", 1); "P": the pair; without a number of threads the program chooses it."""
    devices, _, threads = text.partition("@")
    if not devices or (_ and not threads.isdecimal()):
        raise argparse.ArgumentTypeError(f"'{text}' is not LIST or LIST@THREADS")
    return P if devices == "P" else devices, int(threads or 0)


def rates(binary, model, devices, threads, options):
    """Tokens a second of each phase, of one process: {"64": 123.4, "decode": 56.7}."""
    command = [binary, "bench", model, "--devices", devices, "--prompt", options.prompt, "--gen", str(options.gen),
               "-r", str(options.repeat), "--json", "--quiet", "--precision", options.precision]
    if threads:
        command += ["--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr.strip()}")
    return {str(row["prompt"]) if row.get("prompt") else "decode": row["tps_median"]
            for row in json.loads(done.stdout)["rows"]}


def interval(values):
    """The narrowest pair of order statistics that holds the median with a probability of at least 95%."""
    values = sorted(values)
    n = len(values)
    for k in range((n - 1) // 2, -1, -1):
        missed = 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2 ** n
        if missed <= 0.05:
            return values[k], values[n - 1 - k]
    return values[0], values[-1]


def measure(options):
    rounds = {}
    for number in range(options.rounds):
        for model in options.models.split(","):
            for devices, threads in options.settings:
                turns = [("old", options.old), ("new", options.new), ("again", options.old)]
                turns = turns[number % 3:] + turns[:number % 3]
                for name, binary in turns:
                    for phase, rate in rates(binary, model, devices, threads, options).items():
                        cell = (os.path.basename(model), devices, threads, phase)
                        rounds.setdefault(cell, {}).setdefault(name, []).append(rate)
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
    return rounds


def judge(rounds):
    cells, failed = [], 0
    print(f"{'model':28} {'devices':8} {'phase':>7} {'old':>9} {'new':>9} {'new/old':>8}  {'95% interval':15} {'old/old':>8}")
    for (model, devices, threads, phase), got in rounds.items():
        ratios = [n / o for n, o in zip(got["new"], got["old"])]
        control = [n / o for n, o in zip(got["again"], got["old"])]
        low, high = interval(ratios)
        bad = high < 0.98
        failed += bad
        cells.append(statistics.median(ratios))
        where = ("P" if devices == P else devices[:5 if threads else 8]) + (f" {threads}t" if threads else "")
        print(f"{model:28} {where:8} {phase:>7} {statistics.median(got['old']):9.1f} {statistics.median(got['new']):9.1f} "
              f"{cells[-1]:8.3f}  {low:.3f}-{high:.3f}     {statistics.median(control):8.3f}{'  SLOWER' if bad else ''}")
    mean = math.exp(statistics.fmean(map(math.log, cells)))
    print(f"{failed} of {len(cells)} cells slower; geometric mean {mean:.3f}")
    return failed == 0 and mean >= 0.99


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--models", default="models/SmolLM2-135M-Instruct.Q4_1.gguf,shape:llama-3.2-1b")
    parser.add_argument("--devices", action="append", type=setting, metavar="LIST[@THREADS]",
                        help="only this list of devices, with so many threads, in place of cpu@1, cpu@2 and P; may be repeated")
    parser.add_argument("--prompt", default="64,256,1024")
    parser.add_argument("--gen", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=3, help="runs of each phase in a process, whose median counts")
    parser.add_argument("--precision", default="fast")
    parser.add_argument("--out", help="every rate, as JSON")
    options = parser.parse_args()
    options.settings = options.devices or SETTINGS
    rounds = measure(options)
    if options.out:
        with open(options.out, "w", encoding="utf-8") as file:
            json.dump([{"cell": cell, **got} for cell, got in rounds.items()], file)
    sys.exit(0 if judge(rounds) else 1)


if __name__ == "__main__":
    main()
