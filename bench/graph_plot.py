#!/usr/bin/env python3
"""Draws what `bench_npu build` measured: graph_plot.py CSV SVG. Time to build a graph, and the memory it takes, over its weights;
one line a length, whole FFNs as squares; a row of diagrams for each device. Plain SVG, both colour schemes."""
import csv
import math
import sys

COLOURS = ["#1f77b4", "#2ca02c", "#d62728", "#9467bd"]
WIDTH, HEIGHT, LEFT, TOP = 400, 300, 60, 40


def panel(rows, lengths, field, title, unit, x0):
    """One diagram, both axes logarithmic."""
    xs = [int(r["weights"]) for r in rows]
    ys = [float(r[field]) for r in rows]
    low_x, high_x = math.log10(min(xs)) - 0.1, math.log10(max(xs)) + 0.1
    low_y, high_y = math.floor(math.log10(min(ys)) * 2) / 2, math.ceil(math.log10(max(ys)) * 2) / 2

    def at(x, y):
        return (x0 + LEFT + (math.log10(x) - low_x) / (high_x - low_x) * (WIDTH - LEFT - 20),
                TOP + (high_y - math.log10(y)) / (high_y - low_y) * (HEIGHT - TOP - 50))

    out = [f'<text x="{x0 + WIDTH / 2}" y="20" text-anchor="middle" font-weight="bold">{title}</text>']
    for power in range(math.ceil(low_y), math.floor(high_y) + 1):
        for factor in (1, 3):
            value = factor * 10 ** power
            if math.log10(value) <= high_y:
                y = at(min(xs), value)[1]
                out.append(f'<path d="M{x0 + LEFT} {y:.1f}H{x0 + WIDTH - 20}" class="grid"/>'
                           f'<text x="{x0 + LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in (1e6, 3e6, 1e7, 3e7, 1e8):
        x = at(value, min(ys))[0]
        if x0 + LEFT <= x <= x0 + WIDTH - 20:
            out.append(f'<path d="M{x:.1f} {TOP}V{HEIGHT - 50}" class="grid"/>'
                       f'<text x="{x:.1f}" y="{HEIGHT - 34}" text-anchor="middle">{value / 1e6:g}</text>')
    out.append(f'<text x="{x0 + WIDTH / 2}" y="{HEIGHT - 14}" text-anchor="middle">million weights</text>'
               f'<text x="{x0 + 14}" y="{HEIGHT / 2}" transform="rotate(-90 {x0 + 14} {HEIGHT / 2})" '
               f'text-anchor="middle">{unit}</text>')
    for colour, length in zip(COLOURS, lengths):
        points = sorted((int(r["weights"]), float(r[field])) for r in rows
                        if int(r["length"]) == length and "FFN" not in r["matrix"])
        blocks = [(int(r["weights"]), float(r[field])) for r in rows
                  if int(r["length"]) == length and "FFN" in r["matrix"]]
        out += ['<rect x="{:.1f}" y="{:.1f}" width="7" height="7" style="fill:none;stroke:{}"/>'.format(
            at(*p)[0] - 3.5, at(*p)[1] - 3.5, colour) for p in blocks]
        path = "M" + "L".join("{:.1f} {:.1f}".format(*at(x, y)) for x, y in points)
        out.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        out += ['<circle cx="{:.1f}" cy="{:.1f}" r="3" fill="{}"/>'.format(*at(x, y), colour) for x, y in points]
    return out


def main(source, target):
    with open(source, encoding="utf-8") as file:
        rows = [r for r in csv.DictReader(file) if r["type"] == "Q4_0"]
    lengths = sorted({int(r["length"]) for r in rows})
    devices = list(dict.fromkeys(r["device"] for r in rows))
    bottom = HEIGHT * len(devices)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * WIDTH} {bottom + 24}" font-family="sans-serif" '
           'font-size="12">', "<style>text{fill:#222}.grid{stroke:#8884}rect{fill:#fff}"
           "@media(prefers-color-scheme:dark){text{fill:#ddd}rect{fill:#111}}</style>",
           f'<rect width="{2 * WIDTH}" height="{bottom + 24}"/>']
    for i, device in enumerate(devices):
        own = [r for r in rows if r["device"] == device]
        out.append(f'<g transform="translate(0 {i * HEIGHT})">')
        out += panel(own, lengths, "build_ms", f"{device}: time to build a 4-bit graph", "milliseconds", 0)
        out += panel(own, lengths, "mib", f"{device}: memory that it takes", "MiB", WIDTH)
        out.append("</g>")
    for i, (colour, length) in enumerate(zip(COLOURS, lengths)):
        x = 180 + 120 * i
        out.append(f'<circle cx="{x}" cy="{bottom + 6}" r="4" fill="{colour}"/>'
                   f'<text x="{x + 10}" y="{bottom + 10}">length {length}</text>')
    with open(target, "w", encoding="utf-8") as file:
        file.write("\n".join([*out, "</svg>", ""]))


if __name__ == "__main__":
    main(*sys.argv[1:])
