#!/usr/bin/env python3
"""Draw one layer of a plan as docs/plan.svg, for the README.

    build/hetero plan shape:llama-3-8b --soc snapdragon-8-gen-3 --length 256 --trace trace.json --run
    python3 bench/plan_picture.py trace.json docs/plan.svg

The timeline is the measured one (pid 2) of a trace that `hetero plan --trace FILE --run` wrote; on a simulated chip two runs
give the same. The colours follow the reader's light or dark mode.
"""
import argparse
import json

# kind of operator: what its name ends with, and its colours in light and dark mode
KINDS = (
    ("matrix products", ("attn_qkv", "attn_output", "ffn_gate_up", "ffn_down"), "#3b6fd4", "#6f9bf2"),
    ("attention, RoPE", ("attn", "rope"), "#c2571a", "#f0945a"),
    ("norms, activation", ("attn_norm", "ffn_norm", "ffn_act"), "#5b8c3e", "#93c572"),
)
LEFT, WIDTH, ROW, TOP = 64, 780, 44, 46


def layer_events(events, layer):
    """The events of one layer, by thread, and the threads' names."""
    prefix = f"blk.{layer}."
    names = {e["tid"]: e["args"]["name"] for e in events
             if e["ph"] == "M" and e["name"] == "thread_name" and e["pid"] == 2}
    rows = {}
    for event in events:
        if event["ph"] == "X" and event["pid"] == 2 and event["name"].startswith(prefix):
            rows.setdefault(event["tid"], []).append(event)
    return rows, names


def short(name):
    """'sim:snapdragon-8-gen-3/npu + ...' -> 'NPU'."""
    return name.split(" + ")[0].split("/")[-1].upper()


def bar(event, start, scale, y):
    what = event["name"].split(".")[-1]
    kind = next(i for i, k in enumerate(KINDS) if what in k[1])
    x, width = LEFT + (event["ts"] - start) * scale, event["dur"] * scale
    out = [f'<rect class="k{kind}" x="{x:.1f}" y="{y}" width="{max(width - 1, 0.8):.1f}" height="{ROW - 12}" rx="3">'
           f'<title>{what}: {event["dur"] / 1000:.2f} ms</title></rect>']
    if width > 9 * len(what):
        out.append(f'<text class="in" x="{x + width / 2:.1f}" y="{y + 21}" text-anchor="middle">{what}</text>')
    return out


def draw(trace, layer):
    rows, names = layer_events(trace["traceEvents"], layer)
    start = min(e["ts"] for events in rows.values() for e in events)
    end = max(e["ts"] + e["dur"] for events in rows.values() for e in events)
    scale = WIDTH / (end - start)
    height = TOP + ROW * len(rows) + 62
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 20} {height}" '
           'font-family="system-ui, sans-serif" font-size="13" role="img">',
           "<title>One layer of Llama-3-8B on GPU and NPU of a simulated Snapdragon 8 Gen 3, 256 tokens</title>",
           "<style>text{fill:#222}.in{fill:#fff;font-size:12px}.axis{stroke:#999}"
           + "".join(f".k{i}{{fill:{k[2]}}}" for i, k in enumerate(KINDS))
           + "@media (prefers-color-scheme: dark){text{fill:#ddd}.in{fill:#111}"
           + "".join(f".k{i}{{fill:{k[3]}}}" for i, k in enumerate(KINDS)) + "}</style>",
           f'<text x="{LEFT}" y="20">One layer of Llama-3-8B (Q4_0), prefill of 256 tokens: each matrix is split by rows so '
           'that both processors finish together</text>']
    for i, tid in enumerate(sorted(rows, key=lambda t: short(names[t]))):
        y = TOP + ROW * i
        out.append(f'<text x="8" y="{y + 21}" font-weight="600">{short(names[tid])}</text>')
        for event in rows[tid]:
            out += bar(event, start, scale, y)
    y = TOP + ROW * len(rows) + 2
    out.append(f'<line class="axis" x1="{LEFT}" y1="{y}" x2="{LEFT + WIDTH}" y2="{y}"/>')
    milliseconds = (end - start) / 1000
    for tick in range(0, int(milliseconds) + 1, 5):
        x = LEFT + tick * 1000 * scale
        out.append(f'<line class="axis" x1="{x:.1f}" y1="{y}" x2="{x:.1f}" y2="{y + 5}"/>'
                   f'<text x="{x:.1f}" y="{y + 19}" text-anchor="middle">{tick}{" ms" if tick == 0 else ""}</text>')
    x = LEFT
    for i, (label, *_) in enumerate(KINDS):
        out.append(f'<rect class="k{i}" x="{x}" y="{y + 34}" width="12" height="12" rx="2"/>'
                   f'<text x="{x + 18}" y="{y + 45}">{label}</text>')
        x += 170
    out.append("</svg>")
    return "\n".join(out) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace")
    parser.add_argument("out")
    parser.add_argument("--layer", type=int, default=15)
    options = parser.parse_args()
    with open(options.trace, encoding="utf-8") as file:
        trace = json.load(file)
    with open(options.out, "w", encoding="utf-8") as file:
        file.write(draw(trace, options.layer))


if __name__ == "__main__":
    main()
