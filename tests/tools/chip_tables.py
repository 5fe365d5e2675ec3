#!/usr/bin/env python3
"""The figures of docs/simulation.md and docs/reproduction.md that `hetero reproduce` gives.

    hetero reproduce --out all                              # all chips
    hetero reproduce --soc snapdragon-8-gen-3 --out paper   # the paper's experiments
    tests/tools/chip_tables.py all/tables.json [paper/tables.json] [--write docs/simulation.md]

Prints them; --write puts the table of chips in the place of the one in that file."""
import json
import re
import statistics
import sys

CHIPS = {"snapdragon-8-gen-2": "Snapdragon 8 Gen 2", "snapdragon-8-gen-3": "Snapdragon 8 Gen 3",
         "snapdragon-8-elite": "Snapdragon 8 Elite", "snapdragon-8-elite-gen-5": "Snapdragon 8 Elite Gen 5",
         "dimensity-9300": "Dimensity 9300", "snapdragon-x-elite": "Snapdragon X Elite",
         "core-ultra-7-155h": "Core Ultra 7 155H", "core-ultra-7-258v": "Core Ultra 7 258V",
         "ryzen-ai-7-350": "Ryzen AI 7 350"}
MODELS = {"1B": "llama-3.2-1b", "3B": "llama-3.2-3b", "8B": "llama-3.1-8b"}


def tables_of(path):
    with open(path, encoding="utf-8") as file:
        experiments = json.load(file)["experiments"]
    return {name: table for e in experiments.values() for name, table in e["tables"].items()}


def rows_of(table):
    return [dict(zip(table["columns"], row)) for row in table["rows"]]


def rate(x):
    return f"{x:.0f}" if x >= 9.95 else f"{x:.1f}"


def joules(x):
    return f"{x:.1f}" if x >= 0.995 else f"{x:.2f}"


def chips(tables):
    lines = ["| | " + " | ".join(f"{m} | J" for m in MODELS) + " |", "|---|" + "--:|" * 2 * len(MODELS)]
    found = {m: {row["chip"]: row for row in rows_of(tables["chips-" + name])} for m, name in MODELS.items()}
    for chip, title in CHIPS.items():
        cells = [f"{rate(r['prefill 256'])} / {rate(r['decode'])} | {joules(r['J from'])}-{joules(r['J to'])}"
                 for r in (found[m][chip] for m in MODELS)]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return lines


def planners(tables):
    for phase in ("prefill", "decode"):
        rows = rows_of(tables["planners-" + phase])
        gains = [row["gain %"] for row in rows]
        print(f"{phase}: 2% and more in {sum(g >= 2 for g in gains)} of {len(gains)}, median {statistics.median(gains):.1f}%,"
              f" at most {max(gains):.0f}%, at least {min(gains):.1f}%")
        for row in rows:
            if row["gain %"] <= -1:
                print(f"  worse: {row['chip']} {row['model']} {row['gain %']:+.1f}%: {row['from or why not']}")


def main():
    paths = [a for a in sys.argv[1:] if a.endswith(".json")]
    if not paths:
        sys.exit(__doc__)
    tables = tables_of(paths[0])
    lines = chips(tables)
    print("\n".join(lines) + "\n")
    planners(tables)
    for name, table in tables_of(paths[1]).items() if len(paths) > 1 else ():
        if re.match("prefill|decode-rates|gains", name):
            print("\n" + name, ", ".join(table["columns"]), sep=": ")
            for row in table["rows"]:
                print("  " + ", ".join(rate(x) if isinstance(x, float) else str(x) for x in row))
    if "--write" in sys.argv:
        path = sys.argv[sys.argv.index("--write") + 1]
        with open(path, encoding="utf-8") as file:
            text = file.read()
        changed, n = re.subn(r"\| \| 1B \| J \|.*?\n(?!\|)",
                             "\n".join(lines).replace("\\", r"\\") + "\n", text, count=1, flags=re.S)
        if n != 1:
            sys.exit(f"{path}: no table of chips")
        with open(path, "w", encoding="utf-8") as file:
            file.write(changed)


if __name__ == "__main__":
    main()
