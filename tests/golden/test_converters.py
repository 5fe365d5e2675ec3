"""Files as other converters write them: the same model by other keys gives the same numbers."""
import subprocess

import numpy as np
import pytest

from test_tiny import make_tiny # which knows where the tools are

pytestmark = pytest.mark.check

BASES = ("rope.freq_base",)
SAME = { # what is written otherwise -> (case, changes)
    "gemma's bases left out": ("gemma3", dict(without=BASES)),
    "gemma's bases by Ollama's names": ("gemma3", dict(
        without=BASES, keys={"rope.global.freq_base": 1e6, "rope.local.freq_base": 1e4})),
    "key-value heads a layer": ("llama", dict(without=("attention.head_count_kv",), keys={"attention.head_count_kv": [2, 2]})),
    "heads and widths a layer": ("gemma3", dict(
        without=("attention.head_count", "feed_forward_length"),
        keys={"attention.head_count": [4] * 7, "feed_forward_length": [128] * 7})),
    "a base without a point": ("qwen3", dict(without=BASES, keys={"rope.freq_base": 1000000})),
    "tables of integers": ("llama", dict(extra={
        f"table.{t.__name__}": np.arange(6, dtype=t) for t in (np.int8, np.int16, np.int32, np.int64, np.float64)})),
}
OTHER = { # the test above must be able to fail: these bases are read
    "rope.global.freq_base": 2e4,
    "rope.local.freq_base": 2e6,
}


def write(tmp_path, name, case, **changes):
    path = tmp_path / f"{name}.gguf"
    make_tiny.write(case, path, **changes)
    return path


def logprobs(score, path, case):
    return score(path, make_tiny.ids(case), "exact")[0][1:]


@pytest.mark.parametrize("what", SAME)
def test_same_by_other_keys(score, tmp_path, what):
    case, changes = SAME[what]
    assert logprobs(score, write(tmp_path, "other", case, **changes), case) == logprobs(score, write(tmp_path, "usual", case), case)


@pytest.mark.parametrize("key", OTHER)
def test_bases_are_read(score, tmp_path, key):
    changes = dict(without=BASES, keys={key: OTHER[key]})
    assert logprobs(score, write(tmp_path, "other", "gemma3", **changes), "gemma3") != \
        logprobs(score, write(tmp_path, "usual", "gemma3"), "gemma3")


def test_layers_that_differ(binary, tmp_path):
    path = write(tmp_path, "other", "llama", without=("attention.head_count_kv",), keys={"attention.head_count_kv": [2, 1]})
    done = subprocess.run([binary, "inspect", path], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and "head_count_kv" in done.stderr and "differs between layers" in done.stderr


def test_missing_base_is_said(binary, tmp_path):
    path = write(tmp_path, "other", "qwen2", without=BASES)
    done = subprocess.run([binary, "inspect", path], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and "qwen2.rope.freq_base" in done.stderr and "10000" in done.stderr


def test_matrix_of_integers(binary, tmp_path):
    path = write(tmp_path, "other", "llama", shapes={"blk.0.attn_q.weight": None},
                 extra={"blk.0.attn_q.weight": np.zeros((64, 64), np.int32)})
    done = subprocess.run([binary, "inspect", path], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and "blk.0.attn_q.weight" in done.stderr and "I32" in done.stderr


def test_tables_are_kept(binary, tmp_path):
    path, out = write(tmp_path, "tables", "llama", extra={"table": np.arange(6, dtype=np.int32)}), tmp_path / "out.gguf"
    assert subprocess.run([binary, "quantize", path, out, "q8_0", "--quiet"], timeout=60, check=False).returncode == 0
    tensors = {t.name: t for t in make_tiny.gguf.GGUFReader(out).tensors}
    assert tensors["table"].data.tolist() == list(range(6))


def test_empty_text(command_json, binary, tmp_path):
    with_bos, without = write(tmp_path, "bos", "internlm2"), write(tmp_path, "none", "llama")
    assert command_json("score", with_bos, "-p", "")["ids"] == [1]
    assert command_json("run", with_bos, "-p", "", "--raw", "-n", 2)["prompt_ids"] == [1]
    for arguments in (["score", without], ["run", without, "--raw"], ["score", with_bos, "--no-special"]):
        done = subprocess.run([binary, *arguments, "-p", ""], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2 and "the text is empty" in done.stderr


def test_one_bos(command_json, binary, tmp_path):
    path = write(tmp_path, "bos", "internlm2")
    ids = command_json("tokenize", path, "-p", "<s>the", "--parse-special")["ids"]
    assert ids == command_json("tokenize", path, "-p", "the")["ids"] and ids[0] == 1 and 1 not in ids[1:]
    done = subprocess.run([binary, "tokenize", path, "-p", "<s>the", "--parse-special"], capture_output=True, text=True,
                          timeout=60, check=False)
    assert "no second BOS is added" in done.stderr
