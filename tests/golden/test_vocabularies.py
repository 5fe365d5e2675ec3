"""Tokenizers against recorded tokenisations: those of other libraries for vocabularies trained here (vocabularies.json), and
llama.cpp's ggml-vocab-*.gguf with .inp and .out beside them, in the folder that $HETERO_VOCABULARIES names."""
import json
import os
import pathlib
import subprocess
import unicodedata

import pytest

gguf = pytest.importorskip("gguf", reason="needs the PyPI package gguf")

RECORDED = json.loads((pathlib.Path(__file__).parent / "vocabularies.json").read_text(encoding="utf-8"))
FOLDER = pathlib.Path(os.environ.get("HETERO_VOCABULARIES", "/nonexistent"))
SEPARATOR = "\n__ggml_vocab_test__\n"
# Qwen 3.5's own tokenizer composes a text first (NFC), as its tokenization_qwen3_5.py in transformers has it; llama.cpp's does not.
COMPOSED = {"qwen35": 3}


def tokenize(binary, path, text, *options):
    done = subprocess.run([binary, "tokenize", path, "--json", "-f", "-", *options], input=text.encode(), capture_output=True,
                          timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["ids"]


@pytest.mark.parametrize("name", RECORDED)
def test_trained_here(binary, tmp_path, name):
    vocabulary = RECORDED[name]
    writer = gguf.GGUFWriter(tmp_path / "vocabulary.gguf", "llama")
    writer.add_tokenizer_model(vocabulary["model"])
    writer.add_token_list(vocabulary["tokens"])
    writer.add_token_types(vocabulary["types"])
    if "pre" in vocabulary:
        writer.add_tokenizer_pre(vocabulary["pre"])
        writer.add_token_merges(vocabulary["merges"])
    if "scores" in vocabulary:
        writer.add_token_scores(vocabulary["scores"])
    if "charsmap" in vocabulary:
        writer.add_precompiled_charsmap(bytes.fromhex(vocabulary["charsmap"]))
    for key, value in vocabulary["keys"].items():
        add = writer.add_bool if isinstance(value, bool) else writer.add_uint32
        add("tokenizer.ggml." + key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    for text, ids in vocabulary["texts"]:
        assert tokenize(binary, tmp_path / "vocabulary.gguf", text, "--no-special") == ids, text


@pytest.mark.parametrize("path", sorted(FOLDER.glob("ggml-vocab-*.gguf.inp")), ids=lambda path: path.name[11:-9])
def test_recorded_by_others(binary, path):
    name = path.name[11:-9]
    rows = path.with_suffix(".out").read_text(encoding="utf-8").splitlines()
    with open(path, encoding="utf-8", newline="") as file:
        texts = file.read().split(SEPARATOR)
    assert len(texts) >= len(rows) > 40
    wrong = [text for text, row in zip(texts, rows, strict=False)
             if tokenize(binary, path.with_suffix(""), text, "--no-special") != [int(i) for i in row.split()]]
    assert all(unicodedata.normalize("NFC", text) != text for text in wrong), wrong
    assert len(wrong) == COMPOSED.get(name, 0)


def test_vocabulary_alone(binary, tmp_path):
    """A file without weights, or of an architecture that is not known, is read for its text; nothing else is done with it."""
    path = tmp_path / "alone.gguf"
    writer = gguf.GGUFWriter(path, "no-such-family")
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["<unk>", "<s>", "</s>", "\u2581", "a"])
    writer.add_token_scores([0.0, 0.0, 0.0, -1.0, -2.0])
    writer.add_token_types([2, 3, 3, 1, 1])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    assert tokenize(binary, path, "a") == [1, 3, 4]
    done = subprocess.run([binary, "inspect", path, "--json"], capture_output=True, text=True, timeout=60, check=False)
    assert json.loads(done.stdout)["vocabulary_alone"] and json.loads(done.stdout)["vocabulary"] == 5
    for command in (["run", path, "-p", "a"], ["score", path, "--ids", "1"], ["plan", path], ["bench", path]):
        done = subprocess.run([binary, *command], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2 and "a vocabulary alone" in done.stderr, (command, done.stderr)
