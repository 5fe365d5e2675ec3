#!/usr/bin/env python3
"""Second check of families: the models of llama.cpp's own generator, through llama.cpp, the exact reference and hetero.

usage: check_archs.py ARCHS RECORD [HETERO [FAMILY ...]] [--on WHERE ...] [--folder FOLDER] [--no-reference]
ARCHS: llama.cpp's test-llama-archs; RECORD: built from golden/tiny/record.c; HETERO: the command, or - for none; FAMILY: names as
in general.architecture, all that the generator writes unless named. WHERE: cpu (the default), opencl, lanes (the CPU's core 0 and
OpenCL's core 1, what can be divided by heads, features, experts and rows), or what --devices takes, then options, separated by
blanks. FOLDER: keeps models and llama.cpp's answers for the next run (900 MB for all).
Prints a row for each model: the greatest difference of a log-probability from llama.cpp's, of the reference's (where it knows the
family) and of hetero's in one prefill, chunks of 16 and token by token; then how many agree. Fails where one of a family that
hetero knows differs by more than 1e-4. llama.cpp looks GELU up in a table of fp16, which costs more: build its ggml without
GGML_GELU_FP16 for RECORD.

Weights are drawn with deviation 0.3: at the generator's own 0.1 a wrong rope base does not show. The generator writes tensors
NAME.scale and NAME.input_scale, which only NVFP4 has and llama.cpp heeds in some families: these are left out. It draws divisors of
rope's frequencies so near zero that float32 has no digits left for the angles: these are moved to 1 and above.
"""
import argparse
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
from reference_traits import FAMILIES # noqa: E402

SEED, TOKENS, VOCABULARY, BOUND = 1, 100, 128, 1e-4 # the smallest vocabulary
LANES = "cpu:cpus=0,opencl:0:cpus=1 --strategy tensor --cuts head,query,feature,expert,channel,row"
WHERE = {"cpu": "cpu", "opencl": "opencl:0", "lanes": LANES}
UNKNOWN = "general.architecture \""


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
        if t.name.endswith((".scale", ".input_scale")):
            continue
        data = 1 + np.abs(t.data) if t.name.startswith(("rope_freqs", "rope_factors")) else t.data
        writer.add_tensor(t.name, data, raw_dtype=t.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def of_llama_cpp(record, path, ids):
    kept = path.with_suffix(".npy")
    if not kept.exists():
        out = subprocess.run([record, path, ",".join(map(str, ids))], check=True, capture_output=True, text=True).stdout
        np.save(kept, np.array([line.split() for line in out.splitlines()], dtype=np.float64))
    return np.load(kept)


def of_hetero(hetero, path, ids, chunk, known, where):
    """[tokens, vocabulary], or why not; of wide vocabularies the best, and what is known for the rest"""
    devices, *options = WHERE.get(where, where).split()
    command = [hetero, "score", path, "--ids", ",".join(map(str, ids)), "--precision", "exact", "--kv", "f32", "--chunk", chunk,
               "--top", min(known.shape[1], 1000), "--devices", devices, *options, "--json", "--quiet"]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode:
        return done.stderr.strip() or f"ended with {done.returncode}"
    rows = known.copy() if known.shape[1] > 1000 else np.zeros_like(known)
    for i, row in enumerate(json.loads(done.stdout)["top"]):
        for entry in row:
            rows[i, entry["id"]] = entry["logprob"]
    return rows


def make(archs, families, folder):
    """Generates models that are not there yet; returns those of the families, or all."""
    for family in families or [None]:
        if not (list(folder.glob(f"{family}-*.gguf")) if family else len(list(folder.glob("*.gguf"))) > 1):
            subprocess.run([archs, *(["-a", f"^{family}$"] if family else []), "-s", str(SEED), "-d", "0.3", "-o", folder],
                           check=True, capture_output=True)
    names = {made: gguf_family(made) for made in sorted(folder.glob("*.gguf"))}
    return [made for made, family in names.items() if family in (families or names.values())]


def gguf_family(made):
    return made.stem.removesuffix("-dense").removesuffix("-moe")


def check(o, made):
    """Prints the row of one model; True: all agree; False: not; None: hetero does not know it, or the generator's is broken"""
    path, family, cells, why = made.with_suffix(".plain"), gguf_family(made), [], ""
    ids = [int(i) for i in make_tiny.Random(f"archs {family}").bytes(TOKENS, VOCABULARY)]
    if not path.exists():
        plain(made, path)
    try:
        known = of_llama_cpp(o.record, path, ids)
    except subprocess.CalledProcessError as error:
        print(f"{made.stem:22} llama.cpp itself: {(error.stderr.strip() or str(error)).splitlines()[0]}", flush=True)
        return None
    if not o.no_reference:
        try:
            cells.append(np.abs(reference.log_probabilities(*reference.load(path), ids) - known).max()
                         if family in FAMILIES else None)
        except (KeyError, ValueError, TypeError) as error: # it knows the family, but not all that this model has
            cells, why = [None], f"reference: {error!r}"
    for where in o.on if o.hetero and not why else ():
        worst = 0.0
        for chunk in 0, 16, 1:
            rows = of_hetero(o.hetero, path, ids, chunk, known, where)
            if isinstance(rows, str):
                worst, why = None, rows
                break
            worst = np.fmax(worst, np.abs(rows - known).max()) if np.isfinite(rows).all() else np.nan
        cells.append(worst)
        if why:
            break
    print(f"{made.stem:22}", *("%9s" % ("-" if cell is None else f"{cell:.1e}") for cell in cells), f"{known.std():7.2f}",
          "" if UNKNOWN in why else why, flush=True)
    return None if UNKNOWN in why else not why and all(cell is None or cell <= BOUND for cell in cells)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archs")
    parser.add_argument("record")
    parser.add_argument("hetero", nargs="?", default="-")
    parser.add_argument("families", nargs="*")
    parser.add_argument("--on", nargs="+", default=["cpu"])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--no-reference", action="store_true")
    o = parser.parse_intermixed_args()
    o.hetero = None if o.hetero == "-" else o.hetero
    with tempfile.TemporaryDirectory() as folder:
        folder = o.folder or Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        models = make(o.archs, o.families, folder)
        columns = ([] if o.no_reference else ["reference"]) + ([where.split()[0][:9] for where in o.on] if o.hetero else [])
        print(f"{'':22}", *("%9s" % column for column in columns), " spread", flush=True)
        results = {made: check(o, made) for made in models}
    good = [made for made, result in results.items() if result]
    bad = [made.stem for made, result in results.items() if result is False]
    print(f"{len(good)} models of {len({gguf_family(made) for made in good})} families agree, {len(bad)} of {len(models)} do not",
          *bad)
    sys.exit(int(bool(bad)))


if __name__ == "__main__":
    main()
