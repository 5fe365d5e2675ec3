"""Several devices at once, next to each alone: prefill, odd lengths, cuts, decode, auto, drift, as docs/numbers.md has them.

usage: sharing.py [--hetero PATH] [--model GGUF] [--precision exact] [--rounds 5] [--out FILE.json] WHAT...
  prefill     tensor and each device alone at 64, 256, 1024, 100, 300, 333, 777, in turn; shares of the sum
  cuts        what each cut alone gives, at 64, 100, 256
  decode      tensor and each device alone; bytes of weights a second, next to both reading at once
  auto        auto over {cpu, P} next to every single device and strategy: 20 lengths and decode
  predicted   predicted and measured times at 40 random lengths and in decode
  drift       a busy loop on one device's core: the rate before, while it runs, and what a fresh measurement gives

Every ratio is of medians of rounds that were measured in turn in one process (`hetero bench --rounds`).
"""
import argparse
import json
import os
import pathlib
import random
import re
import statistics
import subprocess
import sys
import time

PAIR = ("opencl:0:cpus=0", "openvino:CPU:cpus=1")
BOTH = ",".join(PAIR)


def bench(args, *more, rounds=None, r=1):
    """Rows of one `hetero bench`."""
    command = [args.hetero, "bench", args.model, "--json", "--quiet", "--precision", args.precision,
               "--rounds", str(rounds or args.rounds), "-r", str(r), *map(str, more)]
    out = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    return json.loads(out)["rows"]


def joined(numbers):
    return ",".join(map(str, numbers))


def table(title, head, rows):
    print(f"\n## {title}\n\n| " + " | ".join(head) + " |\n|" + "--:|" * len(head))
    for row in rows:
        print("| " + " | ".join(f"{x:.1f}" if isinstance(x, float) else str(x) for x in row) + " |")
    sys.stdout.flush()


def one_device(args, spec, lengths, gen=0):
    return bench(args, "--devices", spec, "--strategy", "single", "--prompt", joined(lengths) if lengths else 0, "--gen", gen)


def prefill(args):
    """Engines of two devices at once would hold three copies of a large model: alone, then together, round after round."""
    lengths = args.lengths or [64, 256, 1024, 100, 300, 333, 777]
    rates = {name: {n: [] for n in lengths} for name in (*PAIR, BOTH)}
    spread, predicted, joins = {n: [] for n in lengths}, {}, {}
    for n in lengths:  # a process for each length and setting, in turn
        for _ in range(args.rounds):
            for spec in PAIR:
                rates[spec][n].append(bench(args, "--devices", spec, "--strategy", "single", "--prompt", n, "--gen", 0, rounds=1, r=args.inner)[0]["tps_median"])
            row = bench(args, "--devices", BOTH, "--strategy", "tensor", "--prompt", n, "--gen", 0, rounds=1, r=args.inner)[0]
            rates[BOTH][n].append(row["tps_median"])
            spread[n] += [row["tps_min"], row["tps_max"]]
            predicted[n], joins[n] = row.get("predicted_tps"), row.get("joins")
    rows = []
    for n in lengths:
        a, b, both = (statistics.median(rates[k][n]) for k in (*PAIR, BOTH))
        ratios = [z / (x + y) for x, y, z in zip(rates[PAIR[0]][n], rates[PAIR[1]][n], rates[BOTH][n])]
        rows.append((n, a, b, f"{both:.1f} ({min(rates[BOTH][n]):.1f}-{max(rates[BOTH][n]):.1f})", f"{100 * statistics.median(ratios):.0f}%",
                     f"{both / max(a, b):.2f}x", predicted[n] or "-", joins[n]))
    table(f"prefill, {args.precision}, {os.path.basename(args.model)}", ["tokens", *PAIR, "tensor", "of the sum", "of the better", "predicted", "joins a layer"], rows)
    return rates


def cuts(args):
    rows = []
    for n in args.lengths or [64, 100, 256]:
        for cut in ("causal", "row", "head,feature", "row,feature", "causal,feature", "layer", "sequence", "hybrid,sequence", "layer,row,sequence,hybrid,feature"):
            row = bench(args, "--devices", BOTH, "--strategy", "tensor", "--cuts", cut, "--prompt", n, "--gen", 0, rounds=1, r=args.rounds)[0]
            rows.append((n, cut, row["tps_median"], f"{row['tps_min']:.1f}-{row['tps_max']:.1f}", row.get("joins"), row.get("predicted_tps") or "-"))
    table("what each cut alone gives", ["tokens", "cuts", "tokens/s", "spread", "joins a layer", "predicted"], rows)
    return rows


def decode(args):
    out = {}
    for spec, strategy in ((PAIR[0], "single"), (PAIR[1], "single"), (BOTH, "tensor")):
        out[spec] = bench(args, "--devices", spec, "--strategy", strategy, "--prompt", 0, "--gen", 64, rounds=1, r=args.rounds)[0]
    a, b, both = (out[k]["tps_median"] for k in (*PAIR, BOTH))
    table("decode", [*PAIR, "tensor", "of the sum"], [(a, b, both, f"{100 * both / (a + b):.0f}%")])
    return out


def auto(args):
    random.seed(1)
    lengths = args.lengths or sorted(random.sample(range(8, 512), 20))
    settings = [("cpu", "single"), (PAIR[0], "single"), (PAIR[1], "single"), (BOTH, "tensor"), (f"cpu,{BOTH}", "auto")]
    rates, rows = {}, []
    for n in [*lengths, 0]:
        found = {s: [] for s in settings}
        for _ in range(args.rounds):
            for s in settings:
                what = ("--prompt", n, "--gen", 0) if n else ("--prompt", 0, "--gen", 32)
                found[s].append(bench(args, "--devices", s[0], "--strategy", s[1], *what, rounds=1, r=args.inner)[0]["tps_median"])
        best = max(settings[:-1], key=lambda s: statistics.median(found[s]))
        ratio = statistics.median(x / y for x, y in zip(found[settings[-1]], found[best]))
        rows.append((n or "decode", *(statistics.median(found[s]) for s in settings), best[0] if best[1] == "single" else "tensor", f"{ratio:.3f}"))
        rates[n] = {" ".join(s): v for s, v in found.items()}
        print(rows[-1], flush=True)
    table("auto", ["tokens", *(" ".join(s) for s in settings), "best", "auto / best"], rows)
    return rates


def predicted(args):
    random.seed(2)
    lengths = args.lengths or sorted(random.sample(range(2, 1000), 40))
    errors, rows = [], []
    found = bench(args, "--devices", BOTH, "--strategy", "tensor", "--prompt", joined(lengths), "--gen", 32, rounds=1, r=args.rounds)
    for row in found:
        error = row["predicted_tps"] / row["tps_median"] - 1
        errors.append(abs(error))
        rows.append((row.get("prompt") or "decode", row["predicted_tps"], row["tps_median"], f"{100 * error:+.0f}%"))
    table("predicted against measured", ["tokens", "predicted", "measured", "error"], rows)
    print(f"\nmedian error {100 * statistics.median(errors):.1f}%, worst {100 * max(errors):.1f}%")
    return rows


def passes(args, what, busy_after=None, core=0, more=()):
    """Milliseconds of each pass of a bench run, from its debug log; a busy loop starts on `core` after so many of them."""
    command = [args.hetero, "bench", args.model, "--precision", args.precision, "--devices", BOTH, "--strategy", "tensor", *more,
               "--log-level", "debug", *map(str, what)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    times, load = [], None
    for line in process.stderr:
        m = re.search(r"debug: (\d+) tokens: ([\d.]+) ms of", line)
        if not m:
            continue
        times.append(float(m.group(2)))
        if busy_after is not None and len(times) == busy_after:
            load = subprocess.Popen(["taskset", "-c", str(core), sys.executable, "-c", "while True: pass"])
    process.wait()
    if load:
        load.kill()
    return times


def drift(args):
    for name, what, settle in (("decode", ("--prompt", 0, "--gen", 128, "-r", 1), 32), ("prompts of 256", ("--prompt", 256, "--gen", 0, "-r", 10), 2)):
        before = len(passes(args, what)) // 2
        for core in (0, 1):
            times = passes(args, what, busy_after=before, core=core)
            load = subprocess.Popen(["taskset", "-c", str(core), sys.executable, "-c", "while True: pass"])
            time.sleep(1)
            fresh = passes(args, what, more=("--measure",))
            load.kill()
            load.wait()
            calm, after = statistics.median(times[3:before]), statistics.median(times[before + settle:])
            print(f"drift, {name}, busy loop on core {core}: {calm:.1f} ms a pass before, {after:.1f} from {settle} passes on; measured anew under the "
                  f"loop: {statistics.median(fresh[3:]):.1f}; rate {100 * statistics.median(fresh[3:]) / after:.0f}% of that", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", choices=["prefill", "cuts", "decode", "auto", "predicted", "drift"])
    parser.add_argument("--hetero", default="build/hetero")
    parser.add_argument("--model", default="models/SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--precision", default="exact")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--inner", type=int, default=5, help="runs of a process, behind its warm-up")
    parser.add_argument("--lengths", type=lambda s: [int(x) for x in s.split(",")])
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    found = {what: globals()[what](args) for what in args.what}
    if args.out:
        args.out.write_text(json.dumps(found, indent=1, default=str) + "\n")


if __name__ == "__main__":
    main()
