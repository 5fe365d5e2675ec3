#!/usr/bin/env python3
"""Second check of families: the models of llama.cpp's own generator, through llama.cpp, the exact reference and hetero.

usage: check_archs.py ARCHS RECORD [HETERO [FAMILY ...]]     ARCHS: llama.cpp's test-llama-archs; RECORD: built from
                                                             golden/tiny/record.c; HETERO: the command, or - for none
Prints, for each model, the greatest difference of a log-probability from llama.cpp's; fails where that is more than
1e-4. Weights are drawn with deviation 0.3: at the generator's own 0.1 a wrong rope base does not show. The generator writes
tensors NAME.scale and NAME.input_scale, which only NVFP4 has and llama.cpp heeds in some families, and divisors of rope's
frequencies so near zero that float32 has no digits left for the angles: these are left out.
"""
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import make_tiny # noqa: E402
import reference # noqa: E402

FAMILIES = ["qwen3moe", "gpt-oss", "lfm2", "lfm2moe", "qwen35", "qwen35moe", "granitehybrid", "deepseek2", "command-r", "olmo2"]
SEED, TOKENS, VOCABULARY, BOUND = 1, 100, 128, 1e-4


def plain(source, out):
    """copy a GGUF file but for what is left out"""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(out, reader.fields["general.architecture"].contents())
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture" or not len(field.data):
            continue
        kind, value = field.types[0], field.contents()
        writer.add_key_value(key, value, kind, field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None)
    for t in reader.tensors:
        if not t.name.endswith((".scale", ".input_scale")) and t.name != "rope_freqs.weight":
            writer.add_tensor(t.name, t.data, raw_dtype=t.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def of_llama_cpp(record, path, ids):
    out = subprocess.run([record, path, ",".join(map(str, ids))], check=True, capture_output=True, text=True).stdout
    return np.array([line.split() for line in out.splitlines()], dtype=np.float64)


def of_hetero(hetero, path, ids, chunk):
    """[tokens, vocabulary], or why not"""
    command = [hetero, "score", path, "--ids", ",".join(map(str, ids)), "--precision", "exact", "--kv", "f32", "--chunk", chunk,
               "--top", VOCABULARY, "--json", "--quiet"]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode:
        return done.stderr.strip()
    rows = np.zeros((len(ids), VOCABULARY))
    for i, row in enumerate(json.loads(done.stdout)["top"]):
        for entry in row:
            rows[i, entry["id"]] = entry["logprob"]
    return rows


def check(archs, record, hetero, family):
    """prints lines for each model of a family; True if all are near enough"""
    good = True
    ids = [int(i) for i in make_tiny.Random(f"archs {family}").bytes(TOKENS, VOCABULARY)]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([archs, "-a", f"^{family}$", "-s", str(SEED), "-d", "0.3", "-o", folder], check=True, capture_output=True)
        for made in sorted(Path(folder).glob("*.gguf")):
            path = made.with_suffix(".plain")
            plain(made, path)
            known = of_llama_cpp(record, path, ids)
            answers = {"reference": reference.log_probabilities(*reference.load(path), ids)}
            for chunk in (0, 16, 1) if hetero else ():
                answers[f"hetero, chunks of {chunk}"] = of_hetero(hetero, path, ids, chunk)
            for who, rows in answers.items():
                if isinstance(rows, str):
                    print(f"{made.stem:20} {who}: {rows}", flush=True)
                    good = False
                    break
                error = np.abs(rows - known).max()
                good &= bool(error <= BOUND)
                print(f"{made.stem:20} {who}: {error:.1e} (spread {known.std():.2f})", flush=True)
    return good


def main():
    archs, record, *rest = sys.argv[1:]
    hetero = rest[0] if rest and rest[0] != "-" else None
    results = [check(archs, record, hetero, family) for family in rest[1:] or FAMILIES]
    sys.exit(int(not all(results)))


if __name__ == "__main__":
    main()
