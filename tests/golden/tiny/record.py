#!/usr/bin/env python3
"""Makes recorded.json anew: llama.cpp's log-probabilities for every tiny model that it can read.

usage: record.py RECORD VERSION [NAME ...]     RECORD: the program built from record.c; VERSION: of llama.cpp, to be noted;
                                               NAME: these only, the other values stay
Prints how far reference.py is from each, and fails where that is more than 1e-4 (Gemma: 1e-3).
"""
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "tools"))
import make_tiny # noqa: E402
import reference # noqa: E402

EVERY, TOP = 8, 20 # the TOP best are kept at every EVERYth position and the last; the given token's value at all


def fingerprint(path):
    """of the weights: recorded values belong to these and no others"""
    digest = hashlib.sha256()
    for tensor in sorted(gguf.GGUFReader(path).tensors, key=lambda t: t.name):
        digest.update(tensor.name.encode() + tensor.data.tobytes())
    return digest.hexdigest()[:16]


def main():
    record, version, *names = sys.argv[1:]
    cases, failed = json.loads((HERE / "recorded.json").read_text())["cases"] if names else {}, False
    gelu = reference.gelu
    half = lambda x: x.astype(np.float16).astype(np.float64)
    with tempfile.TemporaryDirectory() as folder:
        for name, options in make_tiny.CASES.items():
            if not options.get("recorded", True) or (names and name not in names):
                continue
            path, ids = Path(folder) / f"{name}.gguf", make_tiny.ids(name)
            make_tiny.write(name, path)
            out = subprocess.run([record, path, ",".join(map(str, ids))], check=True, capture_output=True, text=True).stdout
            rows = np.array([line.split() for line in out.splitlines()], dtype=np.float64)
            error = np.abs(rows - reference.log_probabilities(*reference.load(path), ids))
            if "gemma" in name: # llama.cpp's GELU is a table from fp16 to fp16; with the same, float32's noise is left
                reference.gelu = lambda x: np.where(x <= -10, 0, np.where(x >= 10, x, half(gelu(half(x)))))
                left = np.abs(rows - reference.log_probabilities(*reference.load(path), ids))
                reference.gelu = gelu
                print(f"{name:16} with GELU in fp16 on both sides: max {left.max():.2e}, median {np.median(left):.2e}, "
                      f"max at the first token {left[0].max():.2e}")
            print(f"{name:16} {len(ids)} tokens: llama.cpp - reference.py: max {error.max():.2e}, mean {error.mean():.2e}; "
                  f"spread of its log-probabilities {rows.std():.2f}")
            failed |= error.max() > (1e-3 if "gemma" in name else 1e-4)
            positions = [*range(0, len(ids) - 1, EVERY), len(ids) - 1]
            cases[name] = {
                "weights": fingerprint(path),
                "ids": ids,
                "path": [round(float(rows[i, ids[i + 1]]), 5) for i in range(len(ids) - 1)],
                "top": {str(i): [[int(t), round(float(rows[i, t]), 5)] for t in np.argsort(-rows[i])[:TOP]]
                        for i in positions}}
    lines = [f" {json.dumps(name)}: {json.dumps(cases[name])}" for name in make_tiny.CASES if name in cases]
    (HERE / "recorded.json").write_text('{"llama.cpp": %s, "cases": {\n%s\n}}\n' % (json.dumps(version), ",\n".join(lines)))
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
