"""Files that are whole as GGUF but wrong as models: one line that names the culprit, exit 2, no crash."""
import subprocess

import pytest

from test_tiny import make_tiny # which knows where the tools are

pytestmark = pytest.mark.check

BROKEN = { # what is wrong -> (case, changes, what the line must name)
    "unknown family": ("llama", dict(arch="gpt99"), ["gpt99", "llama, qwen2, qwen3, gemma3, internlm2"]),
    "no matrix": ("llama", dict(shapes={"blk.1.ffn_up.weight": None}), ["blk.1.ffn_up.weight", "missing"]),
    "no norm": ("gemma3", dict(shapes={"blk.6.post_ffw_norm.weight": None}), ["blk.6.post_ffw_norm.weight", "missing"]),
    "no embedding": ("llama", dict(shapes={"token_embd.weight": None}), ["token_embd.weight", "missing"]),
    "no bias": ("qwen2", dict(shapes={"blk.0.attn_k.bias": None}), ["blk.0.attn_k.bias", "missing"]),
    "rows": ("llama", dict(shapes={"blk.0.attn_k.weight": (48, 64)}), ["blk.0.attn_k.weight", "[64, 48"]),
    "columns": ("llama", dict(shapes={"blk.0.ffn_down.weight": (64, 64)}), ["blk.0.ffn_down.weight", "[64, 64"]),
    "norm's length": ("qwen3", dict(shapes={"blk.1.attn_q_norm.weight": (16,)}), ["blk.1.attn_q_norm.weight"]),
    "head's rows": ("llama", dict(shapes={"output.weight": (100, 64)}), ["output.weight"]),
    "few embeddings": ("llama", dict(shapes={"token_embd.weight": (100, 64)}), ["token_embd.weight", "100", "289"]),
    "flat matrix": ("llama", dict(shapes={"blk.0.attn_q.weight": (64 * 64,)}), ["blk.0.attn_q.weight"]),
    "heads and kv heads": ("llama", dict(kv_heads=3), ["head_count", "4", "3"]),
    "more kv heads": ("llama", dict(kv_heads=8), ["llama.attention.head_count_kv"]),
    "no heads": ("llama", dict(heads=0, shapes={f"blk.{i}.attn_{n}.weight": None for i in (0, 1) for n in ("q", "output")}),
                 ["llama.attention.head_count"]),
    "odd heads": ("llama", dict(head_dim=15), ["15"]),
    "wide heads": ("llama", dict(head_dim=2048), ["llama.attention.key_length"]),
    "values differ": ("llama", dict(value_dim=8), ["value_length", "key_length"]),
    "layers": ("llama", dict(layers=2000), ["llama.block_count"]),
    "context": ("llama", dict(context=0), ["llama.context_length"]),
    "no epsilon": ("llama", dict(eps=None), ["layer_norm_rms_epsilon"]),
    "epsilon": ("llama", dict(eps=float("nan")), ["layer_norm_rms_epsilon"]),
    "rope base": ("llama", dict(base=0.0), ["base"]),
    "rope dimensions": ("llama", dict(rope_dim=18), ["llama.rope.dimension_count"]),
    "rope scaling": ("llama", dict(scaling=dict(type="longrope", factor=2.0)), ["llama.rope.scaling.type", "longrope"]),
    "rope factor": ("llama", dict(scaling=dict(type="linear", factor=-2.0)), ["rope.scaling.factor"]),
    "nothing": ("llama-freqs", {}, []), # the harness itself must not break what it writes
    "experts": ("llama", dict(keys={"expert_count": 8}), ["llama.expert_count"]),
    "softcapping": ("gemma3", dict(keys={"final_logit_softcapping": 30.0}), ["gemma3.final_logit_softcapping"]),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken(binary, tmp_path, what):
    case, changes, names = BROKEN[what]
    path = tmp_path / "broken.gguf"
    if changes.get("layers", 0) > 1000: # the key is enough: nobody wants to write the tensors
        changes = {**changes, "shapes": {f"blk.{i}.{n}.weight": None for i in range(2, 2000) for n in (
            "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down", "attn_norm", "ffn_norm")}}
    make_tiny.write(case, path, **changes)
    done = subprocess.run([binary, "inspect", path], capture_output=True, text=True, timeout=60, check=False)
    if not names:
        assert done.returncode == 0, done.stderr
        return
    assert done.returncode == 2 and done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    for name in ["broken.gguf", *names]:
        assert name in lines[0], lines[0]
