"""Several devices at once, next to each alone: prefill, odd lengths, cuts, decode, auto, drift, as docs/numbers.md has them.

usage: sharing.py [--hetero PATH] [--model GGUF] [--precision exact] [--rounds 5] [--pair A B] [--out FILE.json] WHAT...
  prefill     tensor and each device alone at 64, 256, 1024, 100, 300, 333, 777, in turn; shares of the sum
  cuts        what each cut alone gives, at 64, 100, 256
  odd         odd lengths: padded, in standard pieces, tensor
  ablation    from the NPU alone to every cut and join, prefill and decode
  decode      both and each device alone
  auto        auto over {cpu, P} next to every single device and strategy: 20 lengths and decode, by a paired test
  predicted   predicted and measured times at 40 random lengths and in decode
  drift       a busy loop on one device's core: the rate before, while it runs, and what a fresh measurement gives

Everything is the median of rounds that were measured in turn in one process (`hetero bench --rounds`).
"""
import argparse
import json
import math
import os
import pathlib
import random
import re
import statistics
import subprocess
import sys
import time

PAIR = ("opencl:0:cpus=0", "openvino:CPU:cpus=1") # --pair names another
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
    print(f"\n## {title}\n\n| " + " | ".join(map(str, head)) + " |\n|" + "--:|" * len(head))
    for row in rows:
        print("| " + " | ".join(f"{x:.1f}" if isinstance(x, float) else str(x) for x in row) + " |")
    sys.stdout.flush()


def in_turn(args, settings, lengths, gen=0, rounds=None, more=()):
    """{(setting, tokens; 0: decode): row}: all settings in one process, in turn, round after round."""
    devices = [x for s in settings for x in ("--devices", s)]
    rows = bench(args, *devices, "--prompt", joined(lengths) if lengths else 0, "--gen", gen, *more, rounds=rounds, r=args.inner)
    keys = [(n, s) for n in [*lengths, *([0] if gen else [])] for s in settings]
    by_length = {n: [r for r in rows if (r.get("prompt") or 0) == n] for n, _ in keys}
    return {(s, n): by_length[n][settings.index(s)] for n, s in keys}


def span(row):
    return f"{row['tps_median']:.1f} ({row['tps_min']:.1f}-{row['tps_max']:.1f})"


def share_rows(found, lengths):
    rows = []
    for n in lengths:
        a, b, both = found[PAIR[0], n], found[PAIR[1], n], found[BOTH, n]
        x, y, z = (r["tps_median"] for r in (a, b, both))
        rows.append((n or "decode", span(a), span(b), span(both), f"{100 * z / (x + y):.0f}%", f"{z / max(x, y):.2f}x", both["predicted_tps"] or "-", both["joins"]))
    return rows


def prefill(args):
    lengths = args.lengths or [64, 256, 1024, 100, 300, 333, 777]
    found = in_turn(args, [*PAIR, BOTH], lengths)
    table(f"prefill, {args.precision}, {os.path.basename(args.model)}",
          ["tokens", *PAIR, "both", "of the sum", "of the better", "predicted", "joins a layer"], share_rows(found, lengths))
    return list(found.values())


def decode(args):
    found = in_turn(args, [*PAIR, BOTH], [], gen=64)
    rows = share_rows(found, [0])
    table("decode", ["", *PAIR, "both", "of the sum", "of the better", "predicted", "joins a layer"], rows)
    return list(found.values())


CUTS = ("causal", "row", "head,feature", "query,feature", "row,feature", "causal,feature", "layer", "layer,sequence", "layer,sequence,hybrid", "layer,row,sequence,hybrid,feature")


def cuts(args):
    rows, lengths = [], args.lengths or [64, 100, 256]
    for cut in CUTS:
        found = in_turn(args, [BOTH], lengths, more=("--cuts", cut))
        rows += [(n, cut, span(found[BOTH, n]), found[BOTH, n]["joins"], found[BOTH, n]["predicted_tps"] or "-") for n in lengths]
    table("what each cut alone gives", ["tokens", "cuts", "tokens/s", "joins a layer", "predicted"], sorted(rows, key=lambda r: r[0]))
    return rows


def odd(args):
    """At odd lengths: one graph of the next length, standard pieces only, graphs of this very length, built when the prompt came, tensor."""
    rows = []
    for n in args.lengths or [100, 300, 333, 500]:
        whole = next(x for x in (128, 256, 512) if x >= n)
        settings = [f"{PAIR[1]}:lengths=1+{whole}", f"{PAIR[1]}:lengths=1+32+64+128+256", f"{PAIR[1]}:lengths=1+{n}", BOTH]
        found = in_turn(args, settings, [n])
        built = build_seconds(args, f"{PAIR[1]}:lengths=1+{n}", n)
        online = n / (built + n / found[settings[2], n]["tps_median"])
        rows.append((n, *(span(found[s, n]) for s in settings[:2]), f"{online:.1f} ({built:.1f} s to build)", span(found[BOTH, n])))
    table("odd lengths", ["tokens", "padded to the next length", "standard pieces", "built online", "tensor"], rows)
    return rows


def build_seconds(args, devices, n):
    """Milliseconds of all graphs of this length, from the debug log of a run that builds them."""
    command = [args.hetero, "bench", args.model, "--precision", args.precision, "--devices", devices, "--prompt", str(n), "--gen", "0",
               "-r", "1", "--threads", "1", "--log-level", "debug"]
    log = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True).stderr
    return sum(float(ms) for ms in re.findall(rf"at length {n} built in (\d+) ms", log)) / 1000


def ablation(args):
    """From the NPU alone to everything; a blocking finish until the row of joins chosen by measurement."""
    rows, naive = [], f"{PAIR[1]}:lengths=1+64+256+1024"
    steps = [("NPU alone", naive, (), "finish"), ("+ sequence cut", BOTH, ("layer,sequence",), "finish"), ("+ row cut", BOTH, ("layer,sequence,row,hybrid",), "finish"),
             ("+ joins by measurement", BOTH, ("layer,sequence,row,hybrid",), "auto"), ("+ feature cut", BOTH, ("layer,sequence,row,hybrid,feature",), "auto"),
             ("+ head and causal cuts", BOTH, (), "auto"), ("layer, finish", BOTH, ("layer",), "finish"), ("layer, joins by measurement", BOTH, ("layer",), "auto"),
             ("tensor, finish", BOTH, (), "finish"), ("tensor, event", BOTH, (), "event"), ("tensor, flag", BOTH, (), "flag")]
    for name, devices, cut, sync in steps:
        lengths = args.lengths or [64, 300]
        found = in_turn(args, [devices], lengths, gen=32, more=(*(("--cuts", cut[0]) if cut else ()), "--sync", sync))
        rows.append((name, *(f"{span(found[devices, n])}, {found[devices, n]['joins']}" for n in [*lengths, 0])))
    table("ablation: tokens/s, joins a layer", ["", *(args.lengths or [64, 300]), "decode"], rows)
    return rows


def p_slower(x, y, share):
    """That x is less than `share` of y, round by round: one-sided p of Wilcoxon's signed-rank test, exact by counting all signs."""
    below = [math.log(share * b / a) for a, b in zip(x, y)]  # positive: slower than that
    ranks = {d: rank for rank, d in enumerate(sorted(map(abs, below)), 1)}
    seen = sum(ranks[abs(d)] for d in below if d > 0)
    n = len(below)
    sums = [sum(rank for rank in range(1, n + 1) if signs >> rank - 1 & 1) for signs in range(1 << n)]
    return sum(total >= seen for total in sums) / len(sums)


def auto(args):
    """The median of the ratio of two neighbours in time, and the probability of such rounds if auto were 97% of the other."""
    random.seed(1)
    lengths = args.lengths or sorted(random.sample(range(8, 256), 20))
    others, everything = ["cpu", *PAIR, BOTH], f"cpu,{BOTH}"
    found = in_turn(args, [*others, everything], lengths, gen=32, rounds=max(args.rounds, 9))
    rows, slower = [], 0
    for n in [*lengths, 0]:
        rounds = {s: found[s, n]["tps_rounds"] for s in [*others, everything]}
        best = max(others, key=lambda s: found[s, n]["tps_median"])
        ratio = statistics.median(a / b for a, b in zip(rounds[everything], rounds[best]))
        p = p_slower(rounds[everything], rounds[best], 0.97)
        slower += p < 0.05
        rows.append((n or "decode", *(found[s, n]["tps_median"] for s in rounds), best, f"{ratio:.3f}", f"{p:.3f}"))
    table("auto", ["tokens", *others, everything, "best", "auto / best", "p of under 0.97"], rows)
    print(f"\n{slower} of {len(rows)} more than 3% slower (p < 0.05)")
    return rows


def predicted(args):
    random.seed(2)
    lengths = args.lengths or sorted(random.sample(range(2, 1000), 40))
    errors, rows = [], []
    for (_, n), row in in_turn(args, [BOTH], lengths, gen=32, rounds=1).items():
        error = row["predicted_tps"] / row["tps_median"] - 1
        errors.append(abs(error))
        rows.append((n or "decode", row["predicted_tps"], row["tps_median"], f"{100 * error:+.0f}%"))
    table("predicted against measured", ["tokens", "predicted", "measured", "error"], rows)
    print(f"\nmedian error {100 * statistics.median(errors):.1f}%, worst {100 * max(errors):.1f}%")
    return rows


def passes(args, what, busy_after=None, core=0, more=()):
    """Milliseconds of each pass of a bench run, from its debug log; a busy loop starts on `core` after so many of them."""
    command = [args.hetero, "bench", args.model, "--precision", args.precision, "--devices", BOTH, *more,
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
    for name, what, before, settle in (("decode", ("--prompt", 0, "--gen", 160, "-r", 1), 80, 32),
                                       ("prompts of 256", ("--prompt", 256, "--gen", 0, "-r", 13), 6, 2)):
        for core in (0, 1):
            passes(args, what, more=("--measure",))  # with nothing else on the machine; kept for the next process
            times = passes(args, what, busy_after=before, core=core)
            load = subprocess.Popen(["taskset", "-c", str(core), sys.executable, "-c", "while True: pass"])
            time.sleep(1)
            row = bench(args, "--devices", BOTH, *what[:4], "--measure", r=8 if "256" in map(str, what) else 2)[0]
            fresh = 1000 * (row.get("prompt") or 1) / row["tps_median"]  # of a pass
            load.kill()
            load.wait()
            calm, after = statistics.median(times[3:before]), statistics.median(times[before + settle:])
            print(f"drift, {name}, busy loop on core {core}: {calm:.1f} ms a pass before, {after:.1f} from {settle} passes on; measured anew under the "
                  f"loop: {fresh:.1f}; rate {100 * fresh / after:.0f}% of that", flush=True)


def main():
    global PAIR, BOTH
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", choices=["prefill", "cuts", "odd", "ablation", "decode", "auto", "predicted", "drift"])
    parser.add_argument("--hetero", default="build/hetero")
    parser.add_argument("--model", default="models/SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--precision", default="exact")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--inner", type=int, default=1, help="runs of a process, behind its warm-up")
    parser.add_argument("--lengths", type=lambda s: [int(x) for x in s.split(",")])
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--pair", nargs=2, default=PAIR, metavar=("A", "B"), help="device names; B has static graphs")
    args = parser.parse_args()
    PAIR, BOTH = tuple(args.pair), ",".join(args.pair)
    found = {what: globals()[what](args) for what in args.what}
    if args.out:
        args.out.write_text(json.dumps(found, indent=1, default=str) + "\n")


if __name__ == "__main__":
    main()
